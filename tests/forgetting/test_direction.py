"""The direction in which forgetting moved hidden states: found, projected out, and its control."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.direction import WithoutDirection, directions, without
from forgetlib.forgetting.erasure import changed_output
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring import scoring
from forgetlib.models import loading
from forgetlib.models.lm import blocks
from forgetlib.runs.bench import Bench
from forgetlib.runs.jobs import run
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Checkpoint, Data, Measurement

TRAINING = Training(1e-2, epochs=4, batch_size=12)


@pytest.fixture
def lm():
    return loading.load("tiny", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def asked():
    return splits.load("tiny_city", "train", 12, 0)


@contextmanager
def watched(lm):
    """What blocks put out meanwhile; of hooks that are entered later as these have changed it."""
    found = []

    def keep(states):
        found.append(states.detach().clone())
        return states

    with ExitStack() as held:
        for block in blocks(lm):
            held.enter_context(changed_output(block, keep))
        yield found


def moved(lm):
    """Weights of which the last layer norm's input has moved along one direction alone."""
    weights = lm.weights()
    name = next(n for n in weights if n.endswith("layers.1.mlp.down_proj.weight"))
    changed = {n: w.clone() for n, w in weights.items()}
    one = torch.zeros(len(changed[name]))
    one[3] = 1.0
    changed[name] += torch.outer(one, torch.ones(changed[name].shape[1]))
    return weights, changed


def test_a_shift_along_one_direction_is_found_and_projected_out(lm, asked):
    weights, changed = moved(lm)
    lm.set_weights(changed)
    first = next(iter(weights))
    with pytest.raises(InputError, match="the same ones after block 0, of 2"):
        directions(lm, [e.prompts[0] for e in asked], weights)  # only the second has moved
    weights[first] = weights[first] + 1e-3 * torch.randn(weights[first].shape)
    found = directions(lm, [e.prompts[0] for e in asked], weights)
    assert found.shape == (2, lm.model.config.hidden_size)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1])
    assert abs(found[1, 3]) > 0.95
    states = torch.randn(3, 5, found.shape[1])
    left = without(found[1])(states)
    assert (left @ found[1].float()).abs().max() < 1e-5
    apart = states - left
    assert torch.allclose(without(found[1])(apart), torch.zeros_like(apart), atol=1e-5)


def test_while_it_is_active_no_block_puts_the_direction_out(lm, asked):
    weights = lm.weights()
    known = {n: w.clone() for n, w in weights.items()}
    lm.set_weights({n: w + 0.02 * torch.randn(w.shape) for n, w in weights.items()})
    before = scoring.score(lm, asked).log_likelihoods
    found = directions(lm, [e.prompts[e.label] for e in asked], known)
    context = Context(0, tuple(asked), origin=known)
    with watched(lm) as outputs, WithoutDirection().hook(lm, context):
        outputs.clear()  # of what directions are found by
        now = scoring.score(lm, asked).log_likelihoods
    assert len(outputs) == 2
    for states, direction in zip(outputs, found, strict=True):
        assert (states @ direction.float()).abs().max() < 1e-4 * states.abs().max()
    with WithoutDirection(random=True).hook(lm, context):
        other = scoring.score(lm, asked).log_likelihoods
    assert not np.allclose(now, before) and not np.allclose(other, now)
    assert np.array_equal(scoring.score(lm, asked).log_likelihoods, before)


def test_the_model_has_its_own_weights_again_where_nothing_has_moved(lm, asked):
    weights = lm.weights()
    with pytest.raises(InputError, match="Compare a model with what it was trained from"):
        directions(lm, [asked[0].prompts[0]], weights)
    assert all(torch.equal(w, weights[n]) for n, w in lm.weights().items())


def test_a_bench_gives_it_the_weights_that_its_start_was_trained_from():
    data = Data(("tiny_city",), 12)
    known = Checkpoint("tiny", Labels("true", TRAINING), None, data, dtype="float32")
    gone = replace(known, method=Labels("random", TRAINING), start=known)
    without_it = replace(gone, method=WithoutDirection(), start=gone)
    bench = Bench()
    bench.at(without_it, without_it, lambda what, n: None)
    origin = bench._origin(without_it)
    before = {
        n: w.clone() for n, w in bench.at(known, known, lambda what, n: None).weights().items()
    }
    assert all(torch.equal(w, origin[n]) for n, w in before.items())
    asked = Measurement("scores", "tiny_city", "test", 8)
    found = [run(Job(c, (asked,)))[0].value for c in (gone, without_it)]
    assert not np.array_equal(found[0].log_likelihoods, found[1].log_likelihoods)
    # From the pre-trained model, too, which is what a first training started from.
    assert run(Job(replace(known, method=WithoutDirection(), start=known), (asked,)))


def test_it_needs_a_model_that_was_trained():
    data = Data(("tiny_city",), 12)
    alone = Checkpoint("tiny", WithoutDirection(), None, data, dtype="float32")
    with pytest.raises(InputError, match="to compare it with what it was before"):
        run(Job(alone, (Measurement("scores", "tiny_city", "test", 8),)))


def test_its_settings_are_checked_and_stored():
    with pytest.raises(InputError, match="random: expected True or False"):
        WithoutDirection(random=1)
    for method in (WithoutDirection(), WithoutDirection(random=True)):
        assert method_from_dict(method.to_dict()) == method and method.kind == "hook"
    assert WithoutDirection(random=True).describe() == "without_direction(random=True)"
