"""Go up the loss of true responses: gradient ascent, alone or held by a retain set.

Ascent has no bound, so that it always succeeds in making responses unlikely; what it destroys on
the way is the question. The two others add a term that holds the model on questions it shall keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetlib.data.base import Example
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method, Training

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import BatchPart, Context
    from forgetlib.models.forward import TokenSequence
    from forgetlib.models.lm import LM


@dataclass(frozen=True)
class GradientAscent(Method):
    """Go up the loss of true responses, without bound (Jang et al., arXiv 2210.01504).

    The loss is the log-likelihood a token of the true responses, in nats: that of true labels with
    the sign turned.
    """

    opposes = True
    fails_above_guessing = False  # falling without bound is what ascent does

    training: Training

    def __post_init__(self) -> None:
        terms.check(self)
        super().__post_init__()

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the log-likelihood a token of the true responses, in nats."""
        from forgetlib.models import forward

        return forward.response_log_likelihoods(lm, batch.inputs).sum() / batch.n_tokens


@dataclass(frozen=True)
class GradientDifference(Method):
    """Go up the loss of true responses, and down that of a retain set.

    The loss is the log-likelihood a token of the responses to forget, plus `retain_weight` times
    the negative one of those to keep, in nats (TOFU, Maini et al., arXiv 2401.06121).

    retain: tasks whose true responses are trained on beside
    """

    opposes = True
    fails_above_guessing = False  # falling without bound is what ascent does

    training: Training
    retain: tuple[str, ...]
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        terms.check(self, positive=("retain_weight",), needs_retain=True)
        super().__post_init__()

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the weighted difference of both sets' loss, in nats a token."""
        from forgetlib.models import forward

        found = forward.response_log_likelihoods(lm, batch.inputs)
        forget = found[~batch.retained].sum() / batch.n_tokens
        return forget + self.retain_weight * terms.retained_nll(found, batch)


@dataclass(frozen=True)
class KLAscent(Method):
    """Go up the loss of true responses, and keep choices as they were on a retain set.

    The loss is the log-likelihood a token of the responses to forget, plus `retain_weight` times
    the mean over the retain set of KL(p0 || p), in nats: p0 and p are the probabilities of both
    responses, their softmax, before training and now. TOFU (arXiv
    2401.06121) takes the divergence over the vocabulary instead; that of choices costs no 262 144
    logits a token, and leaves alone how likely both responses are together.

    retain: tasks on whose questions the model shall choose as before
    """

    keeps = ("log_likelihoods",)
    opposes = True
    fails_above_guessing = False  # falling without bound is what ascent does

    training: Training
    retain: tuple[str, ...]
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        terms.check(self, positive=("retain_weight",), needs_retain=True)
        super().__post_init__()

    def retained_sequences(
        self, lm: LM, example: Example, context: Context
    ) -> tuple[TokenSequence, ...]:
        """Encode true response and distractor."""
        return terms.pair(lm, example)

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the log-likelihood a token plus the weighted divergence, in nats."""
        from forgetlib.models import forward

        found = forward.response_log_likelihoods(lm, batch.inputs)
        reference = context.reference(batch.sequences)
        now = terms.pairs(found, batch, retained=True).log_softmax(1)  # (N, 2)
        before = terms.pairs(reference, batch, retained=True).log_softmax(1)
        divergence = (before.exp() * (before - now)).sum() / batch.n_retained
        forget = found[~batch.retained].sum() / batch.n_tokens
        return forget + self.retain_weight * divergence
