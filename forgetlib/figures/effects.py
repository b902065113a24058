"""Take from a matrix what labels did in each pair of tasks: ratios, or losses beyond true labels.

Any second training moves a model, whatever its labels. What is called an effect of labels is
therefore what they cost beyond the same training on true labels (`beyond_true_labels`).

Shapes: K tasks, D of them defined, G seeds, R resamples, P parts (`agreement.parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from forgetlib.errors import InputError
from forgetlib.figures.agreement import parts
from forgetlib.figures.bootstrap import joined, seed_factors
from forgetlib.figures.crosstask import CrossTask, after, again
from forgetlib.figures.measures import Measured
from forgetlib.figures.names import short_name

RATIO = "forget ratio"
ACCURACY_LOST = "accuracy lost"
AUROC_LOST = "AUROC lost"
AUROC_BEYOND = "AUROC lost beyond true labels"


@dataclass(frozen=True)
class Effects:
    """Hold what labels did in each pair of tasks, by one measure, and what it could have been.

    measure: RATIO; AUROC_LOST, that of the fine-tuned model less that after the labels that are
        asked about; or AUROC_BEYOND, that after true labels less the same, from the same model
    defined: (K,) evaluated tasks of which there was something to forget
    of_seeds: (G, D, K) a seed each; of the ratio, whose mean is of means, of all seeds together
    values: (D, K) of all seeds
    replicates: (R, D, K) values as other questions, or other seeds, could give them
    """

    cross: CrossTask
    measure: str
    defined: np.ndarray
    of_seeds: np.ndarray
    values: np.ndarray
    replicates: np.ndarray


def ratios(cross: CrossTask) -> Effects:
    """Take the forget ratios of a matrix (paper, Fig. 3)."""
    values = cross.forget_ratio[cross.defined]
    return Effects(
        cross, RATIO, cross.defined, values[None], values, cross.replicates[:, cross.defined]
    )


def auroc_lost(cross: CrossTask) -> Effects:
    """Take what labels cost of AUROC, within each seed: blind to a bias, without a denominator."""
    return _auroc_lost(cross, AUROC_LOST, _tuned)


def beyond_true_labels(cross: CrossTask) -> Effects:
    """Take what labels cost of AUROC beyond the same training on true labels, within each seed.

    Any second training moves a model. InputError where the matrix has no control.
    """
    if not cross.has_control:
        raise InputError(
            f"control of {named(cross)}",
            expected="every pair trained on true labels too",
            found="none, or not of every pair",
            do="Compute the study with cross_control=True, and pass those results too.",
        )
    return _auroc_lost(cross, AUROC_BEYOND, again)


def _auroc_lost(cross: CrossTask, measure: str, before: Callable[[str], str]) -> Effects:
    """Subtract AUROC after labels from that of the models that `before` names for each task."""
    defined = np.array([of_task.knows("auroc") for of_task in cross.measured])
    known = [of_task for of_task, of in zip(cross.measured, defined, strict=True) if of]
    k, n_seeds, n_resamples = len(cross.tasks), cross.n_seeds, len(cross.replicates)
    phases = [("auroc", of(task)) for of in (before, after) for task in cross.tasks]

    def less(measures: np.ndarray) -> np.ndarray:
        """(..., 2 K) before and after the labels -> (..., K) differences."""
        return measures[..., :k] - measures[..., k:]

    if n_seeds > 1:
        of_seeds = np.array([less(parts(of_task, *phases)) for of_task in known])
        of_seeds = of_seeds.reshape(-1, n_seeds, k).swapaxes(0, 1)
        values = of_seeds.mean(0)
        # Each seed's value has what its questions do to it. The same seeds for every task.
        factors = seed_factors(np.random.default_rng(0), n_resamples, n_seeds, normal=True)
        replicates = values + np.tensordot(factors, of_seeds - values, axes=1)
    else:
        found = [joined([of_task.get(*phase) for phase in phases]) for of_task in known]
        values = np.array([less(f.of_seeds[0]) for f in found]).reshape(-1, k)
        of_seeds = values[None]
        replicates = np.array([less(f.by_questions) for f in found]).reshape(-1, n_resamples, k)
        replicates = replicates.swapaxes(0, 1)
    return Effects(cross, measure, defined, of_seeds, values, replicates)


def mean_effects(measured: Measured, forgotten: Sequence[str], measure: str) -> np.ndarray:
    """Average what these tasks' labels did to one task, on data that are apart: (P,).

    measure: AUROC_BEYOND or ACCURACY_LOST
    """
    name, before = ("auroc", again) if measure == AUROC_BEYOND else ("accuracy", _tuned)
    phases = [(name, before(t)) for t in forgotten] + [(name, after(t)) for t in forgotten]
    found = parts(measured, *phases)
    return (found[:, : len(forgotten)] - found[:, len(forgotten) :]).mean(1)


def _tuned(task: str) -> str:
    return "tuned"


def named(cross: CrossTask) -> str:
    """Name what a matrix is of: "model, condition", and ", shared" where that is the start."""
    shared = ", shared" if cross.protocol == "shared" else ""
    return f"{short_name(cross.model)}, {cross.condition}{shared}"
