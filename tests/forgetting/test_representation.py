"""RMU against the model's own hidden states, sequence by sequence, and what it moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.representation import RMU
from forgetlib.models import forward, loading, memory

TWO_STEPS = Training(3e-3, epochs=2, batch_size=24, warmup=0.0)
REVIEW = ("tiny_review",)
METHOD = RMU(TWO_STEPS, REVIEW, layer=1, scale=3.0, retain_weight=7.0)


@pytest.fixture
def lm():
    return loading.load("tiny", dtype="float32", device="cpu")


@pytest.fixture(params=[2048, 40])
def passes(request, monkeypatch):
    """In one pass a batch, and in many: the shares add up."""
    monkeypatch.setitem(memory.BACKWARD_TOKENS, "cpu", request.param)


def longer(examples):
    """Some prompts with more words than others."""
    return [
        replace(e, prompts=tuple(f"{p} " * (1 + i % 3) for p in e.prompts))
        for i, e in enumerate(examples)
    ]


def city(n=24):
    return longer(splits.load("tiny_city", "train", n, 0))


def review(n=24):
    return longer(splits.load("tiny_review", "train", n, 0))


@torch.no_grad()
def states(lm, examples, layer=1):
    """Of each example the states (tokens - 1, D) after a block, by transformers alone."""
    found = []
    for e in examples:
        tokens = torch.tensor([forward.encode(lm, e, e.label).tokens[:-1]])
        hidden = lm.model(tokens, output_hidden_states=True).hidden_states[layer]
        found.append(hidden[0, 1:])
    return found


def naive(method, forget, retain, forget_0, retain_0):
    u = torch.rand(64, generator=Context(0).generator("rmu"))
    u = u / u.square().sum().sqrt()
    total = 0.0
    for h, h0 in zip(forget, forget_0, strict=True):
        tokens = [
            ((a - method.scale * b.norm() * u) ** 2).sum().item() / 64
            for a, b in zip(h, h0, strict=True)
        ]
        total += sum(tokens) / len(tokens) / len(forget)
    for h, h0 in zip(retain, retain_0, strict=True):
        tokens = [((a - b) ** 2).sum().item() / 64 for a, b in zip(h, h0, strict=True)]
        total += method.retain_weight * sum(tokens) / len(tokens) / len(retain)
    return total


def test_the_loss_is_what_a_loop_over_sequences_gives(lm, passes):
    context = Context(0, city(), review())
    start, seen = (states(lm, city()), states(lm, review())), []
    watch = {1}, lambda step: seen.append((states(lm, city()), states(lm, review())))
    losses = loop.train(lm, METHOD, context, watches=[watch])
    expected = [naive(METHOD, *now, *start) for now in (start, seen[0])]
    assert losses.tolist() == pytest.approx(expected, rel=1e-3)
    assert expected[1] < expected[0]


@pytest.mark.parametrize(
    ("layer", "trained", "blocks"), [(1, 3, (0,)), (2, 1, (1,)), (2, 2, (0, 1))]
)
def test_the_blocks_up_to_the_layer_are_trained_and_no_others(lm, layer, trained, blocks):
    before = lm.weights()
    method = RMU(TWO_STEPS, REVIEW, layer, trained)
    loop.train(lm, method, Context(0, city(), review()))
    changed = {
        n.split(".layers.")[1].split(".")[0]
        for n, w in lm.weights().items()
        if not torch.equal(w, before[n])
    }
    assert changed == {str(b) for b in blocks}


def test_states_to_forget_are_moved_and_retained_ones_held(lm):
    def moved(now, before):
        return np.mean([float((a - b).norm() / b.norm()) for a, b in zip(now, before, strict=True)])

    forget, retain = states(lm, city()), states(lm, review())
    method = RMU(Training(1e-2, epochs=10), REVIEW, 1, scale=3.0, retain_weight=30.0)
    loop.train(lm, method, Context(0, city(), review()))
    far = moved(states(lm, city()), forget)
    assert far > 0.2
    assert moved(states(lm, review()), retain) < far / 2


def test_a_layer_that_is_not_there_is_refused_before_a_step(lm):
    before = lm.weights()
    with pytest.raises(InputError, match=r"RMU.layer: expected a block of tiny, 1 to 2, found 3"):
        loop.train(lm, RMU(TWO_STEPS, REVIEW, 3), Context(0, city(), review()))
    assert all(torch.equal(w, before[n]) for n, w in lm.weights().items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layer": 0}, "RMU.layer: expected a whole number from 1"),
        ({"trained": 0}, "RMU.trained: expected a whole number from 1"),
        ({"scale": 0.0}, "RMU.scale: expected a number above 0"),
        ({"retain_weight": -1.0}, "RMU.retain_weight: expected a number above 0"),
        ({"retain": ()}, "and at least one, found ()"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(InputError) as error:
        replace(METHOD, **wrong)
    assert message in str(error.value)


def test_a_method_comes_back_as_it_was_written():
    assert method_from_dict(METHOD.to_dict()) == METHOD
