"""Another task's labels: what forgetting one task does to another (paper, Fig. 3, 8 and 9).

`cross_task` makes a matrix of forget ratios, a `CrossTask`, and `cross_table` a table of it, as
`intervals` says of all tables. `crossanalysis` asks it questions.

Shapes: N examples, K tasks, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import of_shares, resample_counts, seed_factors
from forgetlib.figures.intervals import N_RESAMPLES, UNDEFINED, as_columns
from forgetlib.figures.join import (
    by_checkpoint,
    check_same_examples,
    check_same_training,
    kind_after,
)
from forgetlib.figures.measures import Measured
from forgetlib.metrics import CHANCE, correct, ratio_of
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result
from forgetlib.runs.specs import Checkpoint


@dataclass(frozen=True)
class CrossTask:
    """Hold one model's cross-task forgetting (paper, Fig. 3, 8 and 9), with its resamples.

    condition: "random" or "flipped"
    protocol: "pairwise" (from the model fine-tuned on the evaluated task) or "shared" (from one
        model fine-tuned on all tasks)
    tasks: (K,) the order of rows (evaluated task) and columns (task whose labels were changed)
    n: (K,) test examples of each task, all seeds
    tuned: (K,) test accuracy after fine-tuning, mean over seeds
    forgotten: (K, K) test accuracy after forgetting, mean over seeds
    forget_ratio: (K, K); a row is NaN where there was not `measures.Measured.knows` (accuracy)
    replicates: (R, K, K) forget_ratio as it could have been: with other questions; where there are
        several seeds, with other seeds, drawn from a normal distribution, as variances are taken of
        these. A row's cells share their resample, as they share their examples. Where a row is
        defined, a resample of it that has no ratio, since its fine-tuned accuracy is at or below
        chance, is replaced by another of the row
    measured: for each task its models, of phases "tuned", `after` of each task, and where there is
        a control by true labels `again` of each task; intervals of single cells and rows come from
        these
    outcomes: for each task and seed (N, 1 + K), whether each test example is right: after
        fine-tuning, and after forgetting each task
    """

    model: str
    condition: str
    protocol: str
    tasks: tuple[str, ...]
    n: np.ndarray
    n_seeds: int
    tuned: np.ndarray
    forgotten: np.ndarray
    forget_ratio: np.ndarray
    replicates: np.ndarray
    measured: tuple[Measured, ...]
    outcomes: tuple[tuple[np.ndarray, ...], ...]

    @property
    def defined(self) -> np.ndarray:
        """Tell of each evaluated task whether there was something to forget: (K,) booleans."""
        return np.isfinite(self.forget_ratio).all(1)

    @property
    def has_control(self) -> bool:
        """Tell whether each pair was trained on true labels too, to compare."""
        return again(self.tasks[0]) in self.measured[0].phases

    @property
    def about(self) -> dict[str, str]:
        """Tell what the matrix is of: the columns model, condition and protocol of its tables."""
        return {"model": self.model, "condition": self.condition, "protocol": self.protocol}


def after(task: str) -> str:
    """Name the phase of the model whose labels of this task were changed."""
    return f"after {task}"


def again(task: str) -> str:
    """Name the phase of its control, which was trained on the task's true labels instead."""
    return f"again {task}"


def cross_task(
    results: Iterable[Result],
    condition: str = "random",
    *,
    answers: Load | None = None,
    n_resamples: int = N_RESAMPLES,
) -> CrossTask:
    """Measure what forgetting one task does to another, for every pair (paper, Fig. 3 and 8).

    results: of one model and one study, all pairs; others than cross-task runs are left aside
    condition: "random" or "flipped", which has its own ratio
    answers: as in `fig2.table`
    """
    ratio_of_condition = ratio_of(condition)
    results = list(results)
    cells, checkpoint = _pairs(results, condition)
    if checkpoint is None:
        raise InputError(
            f"cross-task forgetting with {condition} labels",
            expected="runs that were fine-tuned on a task before, and their starts",
            found=f"none among {len(results)} results",
            do="Pass the section of the study that has these runs.",
        )
    seeds = sorted({seed for seed, _, _ in cells})
    tasks = tuple(sorted({task for _, *pair in cells for task in pair}))
    wanted = product(seeds, tasks, tasks)
    if missing := [key for key in wanted if key not in cells]:
        named = ", ".join(f"seed {s}: {e} after {f}'s labels" for s, e, f in missing[:4])
        raise InputError(
            f"cross-task forgetting with {condition} labels",
            expected=f"every pair of the {len(tasks)} tasks, for {len(seeds)} seeds",
            found=f"{len(missing)} pairs missing ({named}{', ...' if len(missing) > 4 else ''})",
            do="Pass the part of the study that has these runs, and compute all of it.",
        )
    by_id = by_checkpoint(results)
    control = _control(results, cells)

    def phases(seed: int, task: str) -> dict[str, Result]:
        runs = {"tuned": cells[seed, task, task][0]}
        runs |= {after(f): cells[seed, task, f][1] for f in tasks}
        return runs | ({again(f): control[seed, task, f][1] for f in tasks} if control else {})

    measured = tuple(
        Measured(task, [phases(s, task) for s in seeds], answers, by_id, n_resamples)
        for task in tasks
    )
    outcomes = tuple(map(_outcomes, measured))
    means = np.array([np.mean([g.mean(0) for g in groups], axis=0) for groups in outcomes])
    rng = np.random.default_rng(0)
    # The same seeds for every task.
    factors = seed_factors(rng, n_resamples, len(seeds), normal=True)
    resampled = np.stack([_could_be(groups, factors, rng) for groups in outcomes], axis=1)
    defined = np.array([of_task.knows("accuracy") for of_task in measured])
    for row in np.flatnonzero(defined):
        has_ratio = resampled[:, row, 0] > CHANCE
        others = rng.choice(np.flatnonzero(has_ratio), int((~has_ratio).sum()))
        resampled[~has_ratio, row] = resampled[others, row]

    def ratio(accuracies: np.ndarray) -> np.ndarray:
        found = ratio_of_condition(accuracies[..., :1], accuracies[..., 1:])
        return np.where(defined[:, None], found, np.nan)

    return CrossTask(
        model=checkpoint.model,
        condition=condition,
        protocol=_protocol(checkpoint),
        tasks=tasks,
        n=np.array([of_task.n for of_task in measured]),
        n_seeds=len(seeds),
        tuned=means[:, 0],
        forgotten=means[:, 1:],
        forget_ratio=ratio(means),
        replicates=ratio(resampled),
        measured=measured,
        outcomes=outcomes,
    )


def _outcomes(measured: Measured) -> tuple[np.ndarray, ...]:
    """List for each seed (N, 1 + K) whether each test example is right, in every phase."""
    test = f"{measured.task}/test"
    wanted = [phase for phase in measured.phases if not phase.startswith(again(""))]
    return tuple(
        np.stack([correct(runs[p].scores[test]).astype(float) for p in wanted], axis=1)
        for runs in measured.seeds
    )


def _could_be(
    groups: Sequence[np.ndarray], factors: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the mean accuracies (R, 1 + K) of one task as other questions, or seeds, could give."""
    of_seeds = np.array([group.mean(0) for group in groups])
    if len(groups) > 1:
        # Each seed's value has what its questions do to it.
        return (of_seeds.mean(0) + factors @ (of_seeds - of_seeds.mean(0))).clip(0, 1)
    counts = resample_counts(rng, len(groups[0]), len(factors))
    return counts @ groups[0] / len(groups[0])


Cells = dict[tuple[int, str, str], tuple[Result, Result]]


def _pairs(results: Sequence[Result], condition: str) -> tuple[Cells, Checkpoint | None]:
    """Find the fine-tuned and the forgotten model, by (seed, evaluated task, forgotten task).

    Also one of the checkpoints, which all agree in what a CrossTask states of them; None without
    any. Raises InputError where they do not agree, as then the matrix would compare settings and
    not tasks.
    """
    by_id = by_checkpoint(results)
    cells: Cells = {}
    settings: dict[tuple, Checkpoint] = {}
    for (_, seed), result in by_id.items():
        checkpoint, start = result.checkpoint, result.checkpoint.start
        if start is None or kind_after(checkpoint) != condition or checkpoint.n != start.n:
            continue
        tuned = by_id.get((start.id, seed))
        if tuned is None:
            continue  # its cells are reported as missing
        asked = {r.measurement.where: r.measurement for r in result.records}
        for task in start.tasks:
            test = f"{task}/test"
            if test not in tuned.scores or test not in result.scores:
                continue
            check_same_examples(checkpoint, test, (tuned, result))
            key = (seed, task, checkpoint.task)
            settings.setdefault((*_cross_setting(checkpoint), asked[test].n), checkpoint)
            if len(settings) > 1 or key in cells:
                raise InputError(
                    f"cross-task forgetting with {condition} labels",
                    expected="one model, start and setting, and one run a seed and pair of tasks",
                    found=" and ".join(str(c) for c in (*settings.values(), checkpoint)[:2]),
                    do="Pass the results of one study, of one model at a time.",
                )
            cells[key] = tuned, result
    return cells, next(iter(settings.values()), None)


def _control(results: Sequence[Result], cells: Cells) -> Cells:
    """Find the same pairs trained on true labels; none where not every pair has one."""
    if all(kind_after(r.checkpoint) != "true" for r in results):
        return {}
    found, _ = _pairs(results, "true")
    if not set(cells) <= set(found):
        return {}
    for key, (_, run) in cells.items():
        check_same_training(found[key][1].checkpoint, run.checkpoint)
    return found


def _protocol(checkpoint: Checkpoint) -> str:
    shared = checkpoint.start is not None and len(checkpoint.start.tasks) > 1
    return "shared" if shared else "pairwise"


def _cross_setting(checkpoint: Checkpoint) -> tuple:
    """List what has to be equal in all cells: everything but task and seed."""
    methods = (c.method for c in checkpoint.lineage)
    same = (checkpoint.model, checkpoint.tuning, checkpoint.dtype, checkpoint.n)
    return (*same, _protocol(checkpoint), *methods)


def cross_table(cross: CrossTask) -> pd.DataFrame:
    """Tabulate a matrix of forget ratios: one row a pair of tasks.

    Columns: model, condition, protocol, eval_task, forget_task, n (test examples, all seeds),
    tuned, forgotten (accuracies), ratio_defined, and with their intervals forget_ratio; against the
    fine-tuned model accuracy_lost, auroc_lost and nll_risen (nats a token of the true response);
    and against the control by true labels accuracy_beyond_true_labels, auroc_beyond_true_labels and
    nll_beyond_true_labels, NaN without one
    """
    ratio = ratio_of(cross.condition)
    forget_ratio = of_shares(lambda m: ratio(m[..., 0], m[..., 1]))
    rows = []
    for (i, evaluated), (j, forgotten) in product(enumerate(cross.tasks), repeat=2):
        of_task = cross.measured[i]
        phase = of_task.phases[1 + j]
        found = {
            "forget_ratio": of_task.interval(
                forget_ratio, ("accuracy", "tuned"), ("accuracy", phase)
            )
            if cross.defined[i]
            else UNDEFINED,
            "accuracy_lost": of_task.difference("accuracy", "tuned", phase),
            "auroc_lost": of_task.difference("auroc", "tuned", phase),
            "nll_risen": of_task.difference("nll", phase, "tuned"),
        }
        control = again(forgotten)
        for name, less in (("accuracy", True), ("auroc", True), ("nll", False)):
            pair = (control, phase) if less else (phase, control)
            beyond = of_task.difference(name, *pair) if cross.has_control else UNDEFINED
            found[f"{name}_beyond_true_labels"] = beyond
        row = {
            **cross.about,
            "eval_task": evaluated,
            "forget_task": forgotten,
            "n": int(cross.n[i]),
            "tuned": float(cross.tuned[i]),
            "forgotten": float(cross.forgotten[i, j]),
            "ratio_defined": bool(cross.defined[i]),
        }
        for name, interval in found.items():
            row |= as_columns(name, interval)
        rows.append(row)
    return pd.DataFrame(rows)
