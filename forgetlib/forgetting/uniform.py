"""Train towards knowing nothing: both responses equally likely, said without drawing a label.

Random labels (`labels`) tell each question one answer, which can be memorised. Here the model is
told both at once, so that there is nothing to memorise.
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
class UniformChoice(Method):
    """Train towards choosing either response with probability one half.

    The loss is the cross-entropy of the model's choice from a fair coin, in nats, at least log 2:
    the mean over examples of -1/2 sum_c log p(c), where p is the softmax of both responses'
    log-likelihoods. Its gradient vanishes where both are equally likely, so that it does not invert
    what it forgets. How likely both are together is left alone.
    """

    fails_above_guessing = False  # a sure choice between long responses costs many nats

    training: Training

    def __post_init__(self) -> None:
        terms.check(self)
        super().__post_init__()

    def sequences(self, lm: LM, example: Example, context: Context) -> tuple[TokenSequence, ...]:
        """Encode true response and distractor."""
        return terms.pair(lm, example)

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the cross-entropy of a choice, in nats."""
        from forgetlib.models import forward

        found = forward.response_log_likelihoods(lm, batch.inputs)
        chosen = terms.pairs(found, batch).log_softmax(1)  # (N, 2)
        return -chosen.mean(1).sum() / batch.n_examples


@dataclass(frozen=True)
class UniformToken(Method):
    """Train towards the tokens of both responses at once, each with half the weight.

    The loss is the mean over examples of -1/2 sum_c l_c / n_c, the negative log-likelihood a token
    of both responses. It is what random labels are on average over their draws, where the responses
    have as many tokens; the gap between the two is memorisation of the draw.
    """

    training: Training

    def __post_init__(self) -> None:
        terms.check(self)
        super().__post_init__()

    def sequences(self, lm: LM, example: Example, context: Context) -> tuple[TokenSequence, ...]:
        """Encode true response and distractor."""
        return terms.pair(lm, example)

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the negative log-likelihood a token, in nats."""
        from forgetlib.models import forward

        found = forward.response_log_likelihoods(lm, batch.inputs) / terms.token_counts(batch)
        return -terms.pairs(found, batch).mean(1).sum() / batch.n_examples
