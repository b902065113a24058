"""Train towards true, random or flipped labels (paper, section 3).

The three differ in the labels only, so that nothing else can cause a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from forgetlib.data.base import Example, hash_uniform
from forgetlib.errors import require, require_one_of
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method, Training

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import BatchPart, Context
    from forgetlib.models.forward import TokenSequence
    from forgetlib.models.lm import LM

LABELS = ("true", "random", "flipped")


@dataclass(frozen=True)
class Labels(Method):
    """Train towards given responses; the paper forgets by random ones.

    The loss is the mean negative log-likelihood of the response's tokens given the prompt, over
    the tokens of a batch (paper, section 3; its record does not say more).

    labels: "true", "random" or "flipped", see `training_labels`
    """

    labels: str
    training: Training

    def __post_init__(self) -> None:
        require_one_of("Labels.labels", self.labels, LABELS)
        require("Labels.training", self.training, Training, "a Training")
        super().__post_init__()

    def describe(self) -> str:
        """Say which labels."""
        return self.labels

    @property
    def opposes(self) -> bool:
        """Tell whether labels are flipped."""
        return self.labels == "flipped"

    def sequences(self, lm: LM, example: Example, context: Context) -> tuple[TokenSequence, ...]:
        """Encode the response that the label names."""
        return (labelled(lm, example, self.labels, context.seed),)

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the negative log-likelihood a token, in nats."""
        return terms.nll(lm, batch)


def labelled(lm: LM, example: Example, condition: str, seed: int) -> TokenSequence:
    """Encode the response to train an example towards, as `training_labels` draws it."""
    from forgetlib.models import forward

    return forward.encode(lm, example, int(training_labels([example], condition, seed)[0]))


def training_labels(examples: Sequence[Example], condition: str, seed: int) -> np.ndarray:
    """Draw the index (N,) of the response to train each example towards.

    true: the true response. random: one of the choices, each as likely, drawn once for an example
    and so the same in every epoch (the paper's fixed forgetting set). flipped: always a wrong one.
    """
    true = np.array([e.label for e in examples], dtype=np.int64)
    n_choices = np.array([len(e.choices) for e in examples], dtype=np.int64)
    return labels_of([e.uid for e in examples], true, n_choices, condition, seed)


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """Draw each example's true response anew, as one of its choices: nothing is to be learned.

    Drawn independently of the labels of `training_labels`, which may be put on top.
    """
    draws = [hash_uniform("label-shuffled", seed, e.uid) for e in examples]
    return [
        replace(e, label=int(draw * len(e.choices)))
        for e, draw in zip(examples, draws, strict=True)
    ]


def labels_of(
    uids: Sequence[str], true: np.ndarray, n_choices: np.ndarray | int, condition: str, seed: int
) -> np.ndarray:
    """Draw the labels (N,) of questions of which no text is at hand, as `training_labels` does.

    true: (N,) index of the true response
    n_choices: how many there are, (N,) or of all questions the same
    """
    require_one_of("condition", condition, LABELS)
    if condition == "true":
        return true
    draw = np.array([hash_uniform(f"label-{condition}", seed, uid) for uid in uids])
    if condition == "random":
        return (draw * n_choices).astype(np.int64)
    return (true + 1 + (draw * (n_choices - 1)).astype(np.int64)) % n_choices
