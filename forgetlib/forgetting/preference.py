"""Train against true responses by preference losses, whose gradient fades as they become unlikely.

Response log-likelihoods l are sums over tokens in NPO and DPO, and means in SimNPO. Published code
mixes the two up, which changes what beta means.
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
class NPO(Method):
    """Make true responses less likely than they were, until a sigmoid is saturated.

    Negative preference optimisation (Zhang et al., arXiv 2404.05868): the mean over examples of
    -2 / beta log sigmoid(-beta (l - l0)), l and l0 the summed log-likelihoods of the true response
    now and before training; plus `retain_weight` times the retain set's negative log-likelihood a
    token, where there is one. It begins at 2 / beta log 2. With a small beta it is ascent.

    retain: tasks whose true responses are trained on beside; () for none
    """

    keeps = ("log_likelihoods",)
    opposes = True
    fails_above_guessing = False  # its loss is not in nats a token

    training: Training
    beta: float = 0.1
    retain: tuple[str, ...] = ()
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        terms.check(self, positive=("beta", "retain_weight"))
        super().__post_init__()

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the preference loss of an example, plus what is retained."""
        from torch.nn.functional import logsigmoid

        from forgetlib.models import forward

        found = forward.response_log_likelihoods(lm, batch.inputs)
        ratio = (found - context.reference(batch.sequences))[~batch.retained]  # (N,)
        forget = -2 / self.beta * logsigmoid(-self.beta * ratio).sum() / batch.n_examples
        return forget + self.retain_weight * terms.retained_nll(found, batch)


@dataclass(frozen=True)
class SimNPO(Method):
    """Make true responses unlikely, however likely they were, until a sigmoid is saturated.

    NPO without a reference model (Fan et al., arXiv 2410.07163): the mean over examples of
    -2 / beta log sigmoid(-beta l / n - delta), l / n the log-likelihood a token of the true
    response; times `forget_weight`, plus `retain_weight` times the retain set's negative
    log-likelihood a token, where there is one.

    delta: margin, in nats times beta; above 0 the sigmoid saturates later
    forget_weight: 0.125 beside a retain weight of 1, as in open-unlearning
    retain: tasks whose true responses are trained on beside; () for none
    """

    name = "simnpo"
    opposes = True
    fails_above_guessing = False  # its loss is not in nats a token

    training: Training
    beta: float = 4.5
    delta: float = 0.0
    forget_weight: float = 0.125
    retain: tuple[str, ...] = ()
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        terms.check(self, positive=("beta", "forget_weight", "retain_weight"))
        super().__post_init__()

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the preference loss of an example, plus what is retained."""
        from torch.nn.functional import logsigmoid

        from forgetlib.models import forward

        found = forward.response_log_likelihoods(lm, batch.inputs)
        a_token = (found / terms.token_counts(batch))[~batch.retained]  # (N,)
        each = -2 / self.beta * logsigmoid(-self.beta * a_token - self.delta)
        forget = self.forget_weight * each.sum() / batch.n_examples
        return forget + self.retain_weight * terms.retained_nll(found, batch)


@dataclass(frozen=True)
class DPO(Method):
    """Prefer the distractor to the true response, by more than the model did before.

    Direct preference optimisation (Rafailov et al., arXiv 2305.18290, eq. 7) with the distractor as
    the winner: the mean over examples of -2 / beta log sigmoid(beta ((l- - l0-) - (l+ - l0+))),
    summed log-likelihoods of distractor (-) and true response (+), now and before training. The
    factor 2 / beta is NPO's, so that both have one scale. It begins at 2 / beta log 2.
    """

    keeps = ("log_likelihoods",)
    opposes = True
    fails_above_guessing = False  # its loss is not in nats a token

    training: Training
    beta: float = 0.1

    def __post_init__(self) -> None:
        terms.check(self, positive=("beta",))
        super().__post_init__()

    def sequences(self, lm: LM, example: Example, context: Context) -> tuple[TokenSequence, ...]:
        """Encode true response and distractor."""
        return terms.pair(lm, example)

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the preference loss of an example."""
        from torch.nn.functional import logsigmoid

        from forgetlib.models import forward

        found = forward.response_log_likelihoods(lm, batch.inputs)
        ratio = terms.pairs(found - context.reference(batch.sequences), batch)  # (N, 2)
        preferred = ratio[:, 1] - ratio[:, 0]
        return -2 / self.beta * logsigmoid(self.beta * preferred).sum() / batch.n_examples
