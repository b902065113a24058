"""From scores to numbers: predictions, confidence, forget gap and forget ratio.

Functions of arrays, with their shapes stated: no files, no models, no intervals.

Shapes: N examples, C = 2 choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from forgetlib.errors import InputError

if TYPE_CHECKING:
    from forgetlib.measuring.base import Scores

CHANCE = 0.5  # accuracy of guessing between one true response and one distractor
Numbers = float | np.ndarray


def predictions(scores: Scores) -> np.ndarray:
    """Pick the likelier choice: (N,) indices; the first of equal ones, as in the harness."""
    return scores.log_likelihoods.argmax(1)


def correct(scores: Scores) -> np.ndarray:
    """Tell whether the likelier choice is the true response: (N,) booleans."""
    return predictions(scores) == scores.labels


def choice_probs(scores: Scores) -> np.ndarray:
    """Compute (N, C) probabilities of each choice relative to the others, by softmax."""
    shifted = scores.log_likelihoods.astype(np.float64)
    shifted = np.exp(shifted - shifted.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def confidence(scores: Scores) -> np.ndarray:
    """Compute (N,) p(true) / (p(true) + p(distractor)) (paper, section 5)."""
    return choice_probs(scores)[np.arange(len(scores)), scores.labels]


def forget_gap(forget_accuracy: Numbers) -> Numbers:
    """Forget accuracy above chance: 0 is fully forgotten (paper, Fig. 2). Any shape."""
    _require_shares(forget_accuracy)
    return forget_accuracy - CHANCE


def forget_ratio(tuned: Numbers, forgotten: Numbers, floor: Numbers = CHANCE) -> Numbers:
    """Compute what share of the fine-tuned accuracy above `floor` was lost (paper, Fig. 3).

    (tuned - forgotten) / (tuned - floor): 1 is fully forgotten, 0 nothing. Not-a-number where the
    model was not above the floor to begin with, because there was nothing to lose. Any shape.
    """
    _require_shares(tuned, forgotten, floor)
    above = np.subtract(tuned, floor)
    defined = np.where(above > 0, above, np.nan)
    return (np.subtract(tuned, forgotten) / defined)[()]


def _require_shares(*accuracies: Numbers) -> None:
    for values in accuracies:
        outside = (np.less(values, -1e-9) | np.greater(values, 1 + 1e-9)).ravel()
        if outside.any():
            raise InputError(
                "accuracies",
                expected="shares, from 0 to 1",
                found=f"{np.ravel(values)[outside][0]:g}",
                do="Divide percentages by 100.",
            )


def flipped_forget_ratio(tuned: Numbers, forgotten: Numbers) -> Numbers:
    """Compute the ratio for flipped labels, whose full effect is 1 - tuned (paper, Fig. 8)."""
    return forget_ratio(tuned, forgotten, floor=np.subtract(1, tuned))


def ratio_of(kind: str) -> Callable[[Numbers, Numbers], Numbers]:
    """Return the forget ratio that belongs to what made a model forget (`Checkpoint.kind`).

    Flipped labels have their own; of all else the full effect is chance.
    """
    return flipped_forget_ratio if kind == "flipped" else forget_ratio
