"""A method of one's own, defined here, trains: what a user writes in a file of his own."""

from dataclasses import dataclass

import numpy as np

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.loop import train
from forgetlib.measuring.scoring import score
from forgetlib.models import forward, loading


@dataclass(frozen=True)
class LikelyAscent(Method):
    """Go up the loss of true responses, but only while they are likelier than `floor` nats."""

    floor: float
    training: Training

    def loss(self, lm, batch, context):
        log_likelihoods = forward.response_log_likelihoods(lm, batch.inputs)
        return log_likelihoods.clamp_min(self.floor).sum() / batch.n_tokens

    def diverged(self, losses, worst):
        return None if np.isfinite(losses[-1]) else f"{losses[-1]}"


def test_what_was_known_is_forgotten():
    lm = loading.load("tiny", dtype="float32", device="cpu")
    examples = splits.load("tiny_city", "train", 32, 0)
    before = score(lm, examples)
    method = LikelyAscent(-12.0, Training(1e-3, epochs=4))
    losses = train(lm, method, Context(0, examples))
    assert losses[-1] < losses[0]
    assert metrics.confidence(score(lm, examples)).mean() < metrics.confidence(before).mean()
