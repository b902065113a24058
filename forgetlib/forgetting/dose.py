"""Stop a training at a dose: when the model no longer tells true responses of the forgetting set.

Methods can be compared only where each has done as much to the questions that it was given. The
dose is measured by AUROC and not by accuracy, which falls to a half within a step or two as soon as
a model gives one answer to everything, whatever it still knows.

This file needs no torch at import, so that results can be read without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from forgetlib import metrics
from forgetlib.errors import InputError, require_number, require_whole

if TYPE_CHECKING:
    from forgetlib.data.base import Example
    from forgetlib.forgetting.base import Method
    from forgetlib.models.lm import LM


@dataclass(frozen=True)
class Dose:
    """Say when a training has done enough, as `Training.until`.

    most: the largest max(AUROC, 1 - AUROC) of the forgetting set at which it has; as an inverted
        model has knowledge too, with its sign turned
    checks: at how many checks in a row, the last of which is the end
    every: steps from one check to the next; a check scores the whole forgetting set
    """

    most: float = 0.6
    checks: int = 2
    every: int = 1

    def __post_init__(self) -> None:
        expected = "an AUROC from 0.5, which is chance, to below 1"
        most = require_number("Dose.most", self.most, expected, lambda x: 0.5 <= x < 1)
        object.__setattr__(self, "most", most)
        for name in ("checks", "every"):
            whole = require_whole(f"Dose.{name}", getattr(self, name), 1)
            object.__setattr__(self, name, whole)


def dose_of(method: Method) -> Dose:
    """Find the dose that a method is trained to; of one without, the usual one judges its end."""
    training = method.settings()
    return training.until if training and training.until else Dose()


def set_auroc(lm: LM, examples: Sequence[Example]) -> float:
    """Measure the AUROC, 0 to 1, of telling true responses of a set from distractors.

    Of several tasks it is the one farthest from 0.5. Of a task with fixed answers it is blind to a
    bias towards one of them; InputError where all questions of it have the same true answer, since
    then nothing is blind to that bias.
    """
    from forgetlib.data import tasks
    from forgetlib.measuring.scoring import score

    found = []
    for name in dict.fromkeys(e.task for e in examples):
        own = [e for e in examples if e.task == name]
        answers = None
        if tasks.get(name).has_fixed_answers:
            answers = np.array([(e.choices[e.label], e.choices[1 - e.label]) for e in own])
        value = float(metrics.auroc(metrics.margins(score(lm, own)), answers))
        if np.isnan(value):
            raise InputError(
                f"forgetting set of task {name!r}",
                expected="two questions with opposite true answers, for the AUROC of the dose",
                found=f"{len(own)} questions without such a pair",
                do="Take more questions, or train without Training.until.",
            )
        found.append(value)
    return max(found, key=lambda value: abs(value - 0.5))


class Check:
    """Look at a model while it is trained, and tell when the dose is reached.

    told: called with (steps done, AUROC of the forgetting set) at each check, and before any step
    """

    def __init__(
        self,
        lm: LM,
        dose: Dose,
        examples: Sequence[Example],
        told: Callable[[int, float], None] | None = None,
    ) -> None:
        """Raise InputError where the dose of these examples cannot be measured."""
        self.lm, self.dose, self.examples = lm, dose, examples
        self.told = told or (lambda step, found: None)
        self.n_below = 0  # checks in a row
        self.told(0, set_auroc(lm, examples))

    def is_due(self, step: int) -> bool:
        """Tell whether the model is looked at after so many steps."""
        return step % self.dose.every == 0

    def __call__(self, step: int) -> bool:
        """Look; tell whether training is done after so many steps, the checks before included."""
        found = set_auroc(self.lm, self.examples)
        self.told(step, found)
        below = max(found, 1 - found) <= self.dose.most
        self.n_below = self.n_below + 1 if below else 0
        return self.n_below >= self.dose.checks
