"""Another task's labels: what forgetting one task does to another (paper, Fig. 3, 8 and 9).

`cross_task` makes a matrix of forget ratios, a `CrossTask`, and `cross_table` a table of it, as
`intervals` says of all tables. `crossanalysis` asks it questions.

Shapes: N examples, K tasks, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from forgetlib.errors import InputError
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    as_columns,
    means_of,
    percentiles,
    resampled_means,
    seed_draws,
    something_to_forget,
)
from forgetlib.figures.join import by_checkpoint, check_same_examples, kind_after
from forgetlib.metrics import CHANCE, correct, ratio_of
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
    forget_ratio: (K, K); a row is NaN where there was not `intervals.something_to_forget`
    replicates: (R, K, K) forget_ratio in `intervals.resampled_means`. A row's cells share their
        resample, as they share their examples. Where a row is defined, a resample of it that has
        no ratio, since its fine-tuned accuracy is at or below chance, is replaced by another of
        the row
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
    outcomes: tuple[tuple[np.ndarray, ...], ...]

    @property
    def defined(self) -> np.ndarray:
        """Tell of each evaluated task whether there was something to forget: (K,) booleans."""
        return np.isfinite(self.forget_ratio).all(1)

    @property
    def named(self) -> dict[str, str]:
        """Tell what the matrix is of: the columns model, condition and protocol of its tables."""
        return {"model": self.model, "condition": self.condition, "protocol": self.protocol}


def cross_task(
    results: Iterable[Result], condition: str = "random", *, n_resamples: int = N_RESAMPLES
) -> CrossTask:
    """Measure what forgetting one task does to another, for every pair (paper, Fig. 3 and 8).

    results: of one model and one study, all pairs; others than cross-task runs are left aside
    condition: "random" or "flipped", which has its own ratio
    """
    ratio_of_condition = ratio_of(condition)
    checkpoint, cells = _cross_cells(results, condition)
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
    outcomes = tuple(
        tuple(
            np.stack([cells[seed, task, task][0], *(cells[seed, task, f][1] for f in tasks)], 1)
            for seed in seeds
        )
        for task in tasks
    )
    means = np.array([means_of(groups) for groups in outcomes])
    rng = np.random.default_rng(0)
    # The same seeds for every task. Normal, since variance components are taken of the resamples.
    draws = seed_draws(rng, n_resamples, len(seeds), normal=True)
    resampled = np.stack([resampled_means(g, rng=rng, draws=draws) for g in outcomes], axis=1)
    defined = np.array([something_to_forget([g[:, 0] for g in groups]) for groups in outcomes])
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
        n=np.array([sum(len(g) for g in groups) for groups in outcomes]),
        n_seeds=len(seeds),
        tuned=means[:, 0],
        forgotten=means[:, 1:],
        forget_ratio=ratio(means),
        replicates=ratio(resampled),
        outcomes=outcomes,
    )


Cells = dict[tuple[int, str, str], tuple[np.ndarray, np.ndarray]]


def _cross_cells(results: Iterable[Result], condition: str) -> tuple[Checkpoint, Cells]:
    """(N,) right after fine-tuning and after forgetting, by (seed, evaluated, forgotten task).

    Also one of the checkpoints, which all agree in what a CrossTask states of them. Raises
    InputError where they do not, as then the matrix would compare settings and not tasks.
    """
    known = by_checkpoint(results)
    cells: Cells = {}
    settings: dict[tuple, Checkpoint] = {}
    for (_, seed), result in known.items():
        checkpoint, start = result.checkpoint, result.checkpoint.start
        if start is None or kind_after(checkpoint) != condition or checkpoint.n != start.n:
            continue
        tuned = known.get((start.id, seed))
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
            before, after = correct(tuned.scores[test]), correct(result.scores[test])
            cells[key] = before.astype(float), after.astype(float)
    if not cells:
        raise InputError(
            f"cross-task forgetting with {condition} labels",
            expected="runs that were fine-tuned on a task before, and their starts",
            found=f"none among {len(known)} results",
            do="Pass the section of the study that has these runs.",
        )
    return next(iter(settings.values())), cells


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
    tuned, forgotten (accuracies), forget_ratio with its interval, ratio_defined.
    """
    rows = []
    for (i, evaluated), (j, forgotten) in product(enumerate(cross.tasks), repeat=2):
        ratio = percentiles(float(cross.forget_ratio[i, j]), cross.replicates[:, i, j])
        rows.append(
            {
                **cross.named,
                "eval_task": evaluated,
                "forget_task": forgotten,
                "n": int(cross.n[i]),
                "tuned": float(cross.tuned[i]),
                "forgotten": float(cross.forgotten[i, j]),
                **as_columns("forget_ratio", ratio),
                "ratio_defined": bool(cross.defined[i]),
            }
        )
    return pd.DataFrame(rows)


def short_name(model: str) -> str:
    """Shorten a model's name: without its owner on the hub, or its folder on the disk."""
    return model.rstrip("/").split("/")[-1]
