"""LEACE against its theorem: probes at chance by construction, and by the least change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.erasure import LEACE, Eraser, eraser_of, fit, shrunk
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring.probing import hidden_states
from forgetlib.measuring.scoring import encode_all, score
from forgetlib.models import loading


def city(n=24):
    found = []
    for i, e in enumerate(splits.load("tiny_city", "train", n, 0)):
        prompts = tuple(f"{p} " * (1 + i % 3) for p in e.prompts)
        choices = tuple(f"{c} {c}" for c in e.choices) if i % 4 == 0 else e.choices
        found.append(replace(e, prompts=prompts, choices=choices))
    return found


@pytest.fixture(scope="module")
def lm():
    lm = loading.load("tiny", dtype="float32", device="cpu")
    training = Training(1e-2, epochs=20, batch_size=12)
    loop.train(lm, Labels("true", training), Context(0, city()))
    return lm


def made_up(n=400, size=12):
    """States of which some directions tell z, in a space that is stretched, and further states."""
    rng = np.random.default_rng(0)
    stretch = rng.normal(size=(size, size)) * np.geomspace(0.1, 10, size)
    z = rng.random(n) < 0.4
    ends = rng.normal(size=(n, size)) + np.outer(z, rng.normal(size=size))
    others = rng.normal(size=(2 * n, size)) + 1.0
    return (
        torch.from_numpy(x) for x in (np.concatenate([ends, others]) @ stretch, ends @ stretch, z)
    )


def gap(ends, z):
    """The largest difference of both classes' means, in standard deviations."""
    ends, z = np.asarray(ends, np.float64), np.asarray(z)
    scale = ends.std(0) + 1e-12
    return np.abs((ends[z].mean(0) - ends[~z].mean(0)) / scale).max()


def probed(ends, z):
    """What a linear probe gets right of the states that it is fitted on, almost unregularised."""
    ends, z = np.asarray(ends, np.float64), np.asarray(z)
    scaled = (ends - ends.mean(0)) / (ends.std(0) + 1e-12)
    return LogisticRegression(C=1e4, max_iter=2000).fit(scaled, z).score(scaled, z)


def test_a_probe_is_at_chance_by_construction():
    """After erasure the best linear probe is a constant, which gives the commoner answer."""
    states, ends, z = made_up()
    eraser = eraser_of(states, ends, z)
    commoner = max(float(z.double().mean()), 1 - float(z.double().mean()))
    assert probed(ends, z) > commoner + 0.2  # the positive control
    assert gap(ends, z) > 0.5
    assert gap(eraser(ends.float()), z) < 1e-5
    assert probed(eraser(ends.float()), z) == pytest.approx(commoner, abs=0.01)
    twice = eraser(eraser(ends.float()))
    assert torch.allclose(twice, eraser(ends.float()), atol=1e-4)


def test_no_other_map_that_erases_changes_less():
    """Of h - B (h - mu) - c that erase, whose B has B s = s, it has the least squared change."""
    states, ends, z = made_up()
    eraser = eraser_of(states, ends, z)
    s = (ends - ends.mean(0)).T @ (z.double() - z.double().mean()) / len(ends)
    mean = states.mean(0)

    def change(b, offset=0.0):
        return float(((states - mean) @ b.T + offset).square().sum(1).mean())

    ours = torch.outer(eraser.left, eraser.right)
    assert torch.allclose(ours @ s, s)
    orthogonal = torch.outer(s, s) / s.square().sum()
    least = change(ours)
    assert least < 0.9 * change(orthogonal)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        away = size * torch.randn(12, 12, generator=generator, dtype=torch.float64)
        away -= torch.outer(away @ s, s) / s.square().sum()
        assert torch.allclose((ours + away) @ s, s)
        assert change(ours + away) > least
        assert change(ours, size * torch.ones(12)) > least
    # It is what the general formula gives: h - W^-1 P W (h - mu), W the root of the inverse.
    covariance = shrunk((states - mean).T @ (states - mean) / len(states), len(states))
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.rsqrt() @ vectors.T
    direction = root @ s / (root @ s).norm()
    general = torch.linalg.inv(root) @ torch.outer(direction, direction) @ root
    assert torch.allclose(ours, general)


def test_what_is_not_there_is_not_erased():
    states, ends, z = made_up()
    nothing = eraser_of(states, ends, torch.ones_like(z))
    assert torch.equal(nothing(states), states.float().to(states.dtype))
    assert torch.equal(eraser_of(states, ends, z, tolerance=10.0).left, torch.zeros(12).double())
    assert float(eraser_of(states, ends, z, tolerance=0.01).left.norm()) > 0


def test_shrinkage_makes_a_covariance_invertible_and_leaves_one_of_many_states():
    rng = np.random.default_rng(1)
    states = torch.from_numpy(rng.normal(size=(100_000, 8)) * np.arange(1, 9))
    many = states.T @ states / len(states)
    assert torch.allclose(shrunk(many, len(states)), many, rtol=1e-2, atol=1e-2)
    few = states[:4].T @ states[:4] / 4
    assert torch.linalg.matrix_rank(few) == 4
    assert torch.linalg.eigvalsh(shrunk(few, 4)).min() > 0.1
    assert shrunk(few, 4).trace() == pytest.approx(float(few.trace()))


def ends_of(lm, layer):
    """States at the last token of each answer, and whether it is right, by the probe's readout."""
    found = hidden_states(lm, city()).answer[:, :, layer]  # (N, 2, D)
    z = np.array([[c == e.label for c in (0, 1)] for e in city()])
    return found.flatten(0, 1).float().numpy(), z.ravel()


def test_the_readout_of_a_block_tells_right_from_wrong_no_more(lm):
    """By what probes are given: the states of block 1, of which the last is followed by a norm."""
    before, z = ends_of(lm, 1)
    assert gap(before, z) > 0.1
    assert probed(before, z) > 0.8
    with LEACE().hook(lm, Context(0, city())):
        after, _ = ends_of(lm, 1)
    assert gap(after, z) < 1e-3
    assert probed(after, z) < 0.6
    assert np.abs(after - before).max() > 0.01


def test_each_block_is_fitted_on_what_the_blocks_before_have_erased(lm):
    """So block 2, read before the final norm, is erased too; one sequence at a time."""
    last, found = lm.model.model.layers[1], []
    with LEACE().hook(lm, Context(0, city())), torch.no_grad():
        handle = last.register_forward_hook(lambda _, x, y: found.append(y[0, -1].numpy()))
        for family in encode_all(lm, city()):
            for sequence in family:
                lm.model(torch.tensor([sequence.tokens]))
        handle.remove()
    z = np.array([c == e.label for e in city() for c in (0, 1)])
    assert len(found) == len(z)
    assert gap(np.stack(found), z) < 1e-3


def test_choices_are_scored_with_the_eraser_and_alike_in_any_packing(lm):
    before = score(lm, city()).log_likelihoods
    with LEACE().hook(lm, Context(0, city())):
        within = score(lm, city()).log_likelihoods
        split = score(lm, city(), token_budget=40).log_likelihoods
    after = score(lm, city()).log_likelihoods
    assert np.abs(within - before).max() > 1e-3
    assert within == pytest.approx(split, abs=1e-4)
    assert np.array_equal(after, before)


def test_weights_stay_and_nothing_is_left_where_measuring_fails(lm):
    weights, before = lm.weights(), score(lm, city()).log_likelihoods
    assert loop.apply(lm, LEACE(), Context(0, city())).shape == (0,)
    with pytest.raises(KeyError), LEACE().hook(lm, Context(0, city())):
        raise KeyError
    assert all(torch.equal(w, weights[n]) for n, w in lm.weights().items())
    assert np.array_equal(score(lm, city()).log_likelihoods, before)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3_text", "gptj"])
def test_other_architectures_are_erased_too(architecture, tmp_path, tiny):
    from conftest import save_random_model

    path = save_random_model(architecture, tiny.tokenizer, tmp_path)
    other = loading.load(str(path), dtype="float32", device="cpu")
    before, z = ends_of(other, 1)
    with LEACE().hook(other, Context(0, city())):
        after, _ = ends_of(other, 1)
    assert gap(before, z) > 0.05
    assert gap(after, z) < 1e-3


def test_examples_are_needed(lm):
    with pytest.raises(InputError, match="expected examples to forget, found none"):
        LEACE().hook(lm, Context(0)).__enter__()
    with pytest.raises(InputError, match=r"LEACE\.tolerance: expected a number, 0 or more"):
        LEACE(-1.0)
    assert method_from_dict(LEACE(0.1).to_dict()) == LEACE(0.1)
    assert LEACE().kind == "hook"
    assert isinstance(fit(lm, city(4), 0.01)[1], Eraser)
