"""Add and subtract weights: a task vector, and noise as a control of it.

Both train first, in the shared loop, and then put something else in the place of what the training
changed. So a training is all they need, no second checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetlib.data.base import Example
from forgetlib.errors import InputError, require_one_of
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.labels import LABELS, labelled

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import BatchPart, Context
    from forgetlib.models.forward import TokenSequence
    from forgetlib.models.lm import LM


N_HALVINGS = 12  # of an interval in which a length is found: to 1 / 4096 of it


@dataclass(frozen=True)
class TaskVector(Method):
    """Learn the true responses further, and go the same way back: weights w - scale (w' - w).

    w are the weights before, w' those after training on true labels (Ilharco et al., arXiv
    2212.04089, section 3). A scale of 0 changes nothing. Of weights in bfloat16 most changes are a
    single step of rounding, which a scale below 0.5 rounds away: compare scales in float32.
    """

    keeps = ("weights",)
    opposes = True

    training: Training
    scale: float = 1.0

    def __post_init__(self) -> None:
        terms.check(self, from_0=("scale",))
        _without_dose(self)
        super().__post_init__()

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the negative log-likelihood a token of true responses, in nats."""
        return terms.nll(lm, batch)

    def after(self, lm: LM, context: Context) -> None:
        """Turn the change round."""
        changes = _changes(lm, context)
        with context.at_start(lm):
            start = lm.weights()
        lm.set_weights(
            {n: (w.float() - self.scale * changes[n]).to(w.dtype) for n, w in start.items()}
        )


@dataclass(frozen=True)
class Noise(Method):
    """Add noise instead of what a training changes: as much, in no direction. A control.

    Every tensor's change is replaced by normal noise with the same Euclidean norm, measured after
    rounding. What the model loses by it is lost to the size of a change and not to its direction.

    labels: what the training is towards, "random" for the paper's forgetting; see `labels`
    """

    keeps = ("weights",)

    training: Training
    labels: str = "random"

    def __post_init__(self) -> None:
        terms.check(self)
        require_one_of("Noise.labels", self.labels, LABELS)
        _without_dose(self)
        super().__post_init__()

    def sequences(self, lm: LM, example: Example, context: Context) -> tuple[TokenSequence, ...]:
        """Encode the response that the label names."""
        return (labelled(lm, example, self.labels, context.seed),)

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the negative log-likelihood a token, in nats."""
        return terms.nll(lm, batch)

    def after(self, lm: LM, context: Context) -> None:
        """Put noise in the place of the change."""
        import torch

        changes = _changes(lm, context)
        with context.at_start(lm):
            start = lm.weights()
        noisy = {}
        for name, weight in start.items():
            generator = context.generator(f"{self.name}/{name}")
            drawn = torch.randn(weight.shape, generator=generator)
            noisy[name] = _noisy(weight, drawn / drawn.norm(), float(changes[name].norm()))
        lm.set_weights(noisy)


def _changes(lm: LM, context: Context) -> dict[str, Tensor]:
    """Compute what training changed of each weight, in fp32, on the CPU."""
    now = lm.weights()
    with context.at_start(lm):
        start = lm.weights()
    return {name: weight.float() - start[name].float() for name, weight in now.items()}


def _noisy(weight: Tensor, direction: Tensor, norm: float) -> Tensor:
    """Move a weight in a direction, of norm 1, so far that the change has a norm once rounded.

    Weights in bfloat16 round most of small noise away, so that more of it has to be added.
    """

    def moved(length: float) -> Tensor:
        return (weight.float() + length * direction).to(weight.dtype)

    def too_short(length: float) -> bool:
        return float((moved(length).float() - weight.float()).norm()) < norm

    short, long = 0.0, norm
    while norm and too_short(long):
        short, long = long, 2 * long
    for _ in range(N_HALVINGS if short else 0):
        middle = (short + long) / 2
        short, long = (middle, long) if too_short(middle) else (short, middle)
    return moved(long)


def _without_dose(method: Method) -> None:
    """Raise InputError where training shall stop at a dose, which is not of the weights left."""
    training = method.settings()
    if training is not None and training.until is not None:
        raise InputError(
            f"{type(method).__name__}.training.until",
            expected="None, as the weights that it trains are not those that are left",
            found=repr(training.until),
            do="Leave it out, and compare several strengths.",
        )
