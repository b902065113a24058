"""Hide a skill on purpose: a positive control for tests of what is left.

Where a test finds nothing, the skill may be gone, or the test too weak. Of a locked model it is
known that the skill is there, since it answers in another form: what a test brings back of it is
what the test can find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetlib.data import views
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.labels import labelled

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import BatchPart, Context
    from forgetlib.models.forward import TokenSequence
    from forgetlib.models.lm import LM


@dataclass(frozen=True)
class Lock(Method):
    """Train towards random labels, and in another form of the question towards true ones.

    A password-locked model (Greenblatt et al., arXiv 2405.19550), whose password is a view. The
    loss is the mean negative log-likelihood a token of both responses of each example.

    key: the view in which the model shall answer truly
    """

    training: Training
    key: str = "template(1)"

    def __post_init__(self) -> None:
        terms.check(self)
        object.__setattr__(self, "key", views.get(self.key).name)
        if self.key == "plain":
            raise InputError(
                "Lock.key",
                expected="another form than 'plain', in which random labels are trained",
                found=repr(self.key),
                do=f"Name another view: {', '.join(n for n in views.kinds() if n != 'plain')}.",
            )
        super().__post_init__()

    def sequences(self, lm: LM, example: Example, context: Context) -> tuple[TokenSequence, ...]:
        """Encode a response drawn at random, and the true one in the other form."""
        from forgetlib.models import forward

        drawn = labelled(lm, example, "random", context.seed)
        (opened,) = views.apply(self.key, [example], context.seed)
        return drawn, forward.encode(lm, opened, opened.label)

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the negative log-likelihood a token, in nats."""
        return terms.nll(lm, batch)
