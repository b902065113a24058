"""What methods without a loss can do, each shown by a toy: edit weights, or hook into the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring.scoring import score
from forgetlib.models import loading
from forgetlib.models.lm import causal_lm, decoder

TRAINING = Training(1e-3, epochs=3)


@pytest.fixture
def lm():
    return loading.load("tiny", dtype="float32", device="cpu")


def city():
    return splits.load("tiny_city", "train", 24, 0)


def confidence(lm):
    return metrics.confidence(score(lm, city()))


def likelihood(lm):
    """Mean log-likelihood of the true responses."""
    scores = score(lm, city())
    return scores.log_likelihoods[range(len(scores)), scores.labels].mean()


@dataclass(frozen=True)
class ToyNoise(Method):
    """Add to every weight noise as large as a share of its deviation."""

    share: float

    def edit(self, lm, context):
        weights = lm.weights()
        for name, weight in weights.items():
            generator = context.generator(f"{self.name}/{name}")
            noise = torch.randn(weight.shape, generator=generator)
            weight += self.share * weight.float().std() * noise
        lm.set_weights(weights)


def test_an_edit_changes_weights_without_training(lm):
    def edited(seed, share=0.1):
        lm.set_weights(start)
        torch.manual_seed(seed + 1)
        state = torch.get_rng_state()
        losses = loop.apply(lm, ToyNoise(share), Context(seed))
        assert losses.shape == (0,)
        assert (torch.get_rng_state() == state).all()
        return lm.weights()

    start = lm.weights()
    one, again, other, none = edited(0), edited(0), edited(1), edited(0, 0.0)
    for name, weight in start.items():
        assert torch.equal(one[name], again[name])
        assert torch.equal(one[name], other[name]) == (weight.std() == 0)
        assert torch.equal(none[name], weight)
        if weight.numel() > 1000:
            share = (one[name] - weight).std() / weight.std()
            assert share == pytest.approx(0.1, rel=0.1)
    with pytest.raises(InputError, match=r"found one whose kind is 'edit'.*loop.apply"):
        loop.train(lm, ToyNoise(0.1), Context(0, city()))


@dataclass(frozen=True)
class ToyTaskVector(Method):
    """Go from the pre-trained weights the other way: what was learned, subtracted."""

    scale: float

    def edit(self, lm, context):
        here, before = lm.weights(), context.pretrained
        lm.set_weights({n: before[n] - self.scale * (w - before[n]) for n, w in here.items()})


def test_an_edit_knows_the_weights_before_any_method(lm):
    pretrained = lm.weights()
    loop.apply(lm, Labels("true", TRAINING), Context(0, city()))
    learned = likelihood(lm)
    loop.apply(lm, ToyTaskVector(0.0), Context(0, pretrained=pretrained))
    assert all(torch.equal(w, pretrained[n]) for n, w in lm.weights().items())
    known = likelihood(lm)
    loop.apply(lm, Labels("true", TRAINING), Context(0, city()))
    loop.apply(lm, ToyTaskVector(1.0), Context(0, pretrained=pretrained))
    assert likelihood(lm) < known < learned


@dataclass(frozen=True)
class ToyFilter(Method):
    """While the model is measured, its last hidden states point the other way."""

    factor: float = -1.0

    @contextmanager
    def hook(self, lm, context) -> Iterator[None]:
        def scale(module, inputs, output):
            output.last_hidden_state = self.factor * output.last_hidden_state

        handle = decoder(causal_lm(lm.model)).register_forward_hook(scale)
        try:
            yield
        finally:
            handle.remove()


def test_a_hook_is_active_while_the_model_is_measured_only(lm):
    weights, before = lm.weights(), confidence(lm)
    assert loop.apply(lm, ToyFilter(), Context(0)).shape == (0,)
    with ToyFilter().hook(lm, Context(0)):
        within = confidence(lm)
    with Labels("true", TRAINING).hook(lm, Context(0)):  # every method has one, mostly of nothing
        after = confidence(lm)
    assert np.abs(within - before).max() > 0.05
    assert (after == before).all()
    assert all(torch.equal(w, weights[n]) for n, w in lm.weights().items())
