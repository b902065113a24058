"""Ask whether two conditions make the same tasks forgotten: rank agreement, and its ceiling.

Two conditions that share fine-tuned models and questions agree by that alone. So each is taken from
other data than the other: from other seeds, or with one seed from the other half of the questions.
The ceiling is what a condition agrees with itself, taken from other data in the same way: no two
conditions can be expected to agree more. It is an estimate, of as few tasks: a value may be above
it by chance.

Shapes: P parts (seeds, or halves of the questions), N tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations, product

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from forgetlib.errors import InputError
from forgetlib.figures.intervals import (
    MIN_TASKS,
    UNDEFINED,
    Interval,
    as_columns,
    rank_correlation,
    rank_interval,
    with_intervals,
)
from forgetlib.figures.measures import Measured, measured
from forgetlib.metrics import Numbers
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result

Phase = tuple[str, str]  # a measure's name, and the phase that it is measured in
APART = ("other seeds", "other half of the questions")


def parts(measured: Measured, *phases: Phase) -> np.ndarray:
    """Measure a task on data that are apart: (P, len(phases)).

    A part is a seed; with one seed, every other question of the test set.
    """
    found = []
    for seed in range(measured.n_seeds):
        n = len(measured.seeds[seed]["tuned"].scores[f"{measured.task}/test"])
        every = np.arange(n)
        counts = [np.ones(n)] if measured.n_seeds > 1 else [every % 2 == 0, every % 2 == 1]
        found += [
            [measured.on(name, phase, seed, np.asarray(c, float)) for name, phase in phases]
            for c in counts
        ]
    return np.array(found)


def agreement(a: np.ndarray, b: np.ndarray, *, apart: bool = False) -> dict[str, Numbers]:
    """Correlate the ranks of N tasks in two conditions.

    a, b: (P, N) what was measured in each condition; part p of both has the same data
    apart: whether the two conditions share no data in the same part either, as two models

    Columns: rank_correlation with its interval over tasks (the mean of all pairs of parts that are
    apart, with the interval of a single one, which is not narrower), ceiling (the mean of what each
    condition agrees with itself), n (tasks)
    """
    if a.shape != b.shape or a.ndim != 2 or not np.isfinite([a, b]).all():
        raise InputError(
            "rank agreement",
            expected="two arrays of the same shape, parts by tasks, without undefined values",
            found=f"{a.shape} and {b.shape}, {int((~np.isfinite([*a.flat, *b.flat])).sum())} "
            "undefined",
            do="Leave out the tasks where either is undefined.",
        )
    n = a.shape[1]
    found = rank_interval(_between(a, b, same=apart), n)
    own = [_between(x, x) for x in (a, b)]
    return {**as_columns("rank_correlation", found), "ceiling": float(np.mean(own)), "n": n}


def _between(a: np.ndarray, b: np.ndarray, *, same: bool = False) -> float:
    """Average the rank correlation over all pairs of different parts; NaN where any is undefined.

    With one part there is no pair. same: over pairs of the same part as well
    """
    pairs = product(range(len(a)), repeat=2) if same else permutations(range(len(a)), 2)
    found = [rank_correlation(a[p], b[q]).value for p, q in pairs]
    return float(np.mean(found)) if found else np.nan


def agreement_beside(
    a: np.ndarray, b: np.ndarray, beside_a: np.ndarray, beside_b: np.ndarray
) -> Interval:
    """Correlate the ranks of N tasks in two conditions, with a measure of each held fixed.

    a, b: (P, N) as in `agreement`; beside_a, beside_b: (P, N) what is held fixed, of the same data

    Partial rank correlation: that of what least squares on the ranks of both fixed measures leave
    of the ranks of a and of b; the mean of all pairs of parts that are apart. The interval is
    `rank_interval`'s of two tasks fewer, as two measures are held fixed. In simulations of 6 to 21
    tasks it covers 95 to 99 % of the time. Undefined with fewer than `MIN_TASKS` + 2 tasks.
    """
    n = a.shape[1]
    if n < MIN_TASKS + 2:
        return UNDEFINED
    found = [
        _partial(a[p], b[q], (beside_a[p], beside_b[q])) for p, q in permutations(range(len(a)), 2)
    ]
    return rank_interval(float(np.mean(found)) if found else np.nan, n - 2)


def _partial(x: np.ndarray, y: np.ndarray, fixed: Sequence[np.ndarray]) -> float:
    """Correlate what the ranks of fixed measures leave of those of x and y, all (N,)."""
    ranks = np.array([rankdata(v) for v in (x, y, *fixed)]).T
    ranks -= ranks.mean(0)
    both, others = ranks[:, :2], ranks[:, 2:]
    left = both - others @ np.linalg.lstsq(others, both, rcond=None)[0]
    size = np.linalg.norm(left, axis=0)
    return float(left[:, 0] @ left[:, 1] / size.prod()) if size.min() > 1e-9 else np.nan


def of_sizes(results: Iterable[Result], answers: Load | None = None) -> pd.DataFrame:
    """Ask whether the smallest and the largest forgetting set make the same tasks forgotten.

    results: of section "sizes"; answers: as in `measures.table`

    Of the tasks with something to forget whose two sets differ. One row a measure, "forget
    accuracy" and "accuracy lost"; none where there is one size. Columns: measure, small, full
    (examples), apart (of `APART`), and those of `agreement`.
    """
    found: dict[str, dict[int, Measured]] = {}
    for (_, task, size), measured_on in measured(list(results), answers):
        found.setdefault(task, {})[size] = measured_on
    every = [size for of_task in found.values() for size in of_task]
    columns = ["measure", "small", "full", "apart", *with_intervals(["rank_correlation"])]
    rows = []
    if every and min(every) < max(every):
        small, full = min(every), max(every)
        pairs = [
            (of_task[small], of_task[full])
            for of_task in found.values()
            if {small, full} <= set(of_task) and of_task[full].knows("accuracy")
        ]
        phases = ("accuracy", "tuned"), ("accuracy", "random")
        none = np.zeros((2, 2, 0))  # where no task was known
        first, last = (
            np.array([parts(pair[i], *phases) for pair in pairs]).T if pairs else none
            for i in (0, 1)
        )  # (phases, P, N)
        apart = taken_from([pair[0] for pair in pairs]) if pairs else ""
        for measure, (a, b) in {
            "forget accuracy": (first[1], last[1]),
            "accuracy lost": (first[0] - first[1], last[0] - last[1]),
        }.items():
            named = {"measure": measure, "small": small, "full": full, "apart": apart}
            rows.append({**named, **agreement(a, b)})
    return pd.DataFrame(rows, columns=[*columns, "ceiling", "n"])


def taken_from(measured: Sequence[Measured]) -> str:
    """Say what the parts are, of `APART`."""
    return APART[0 if all(m.n_seeds > 1 for m in measured) else 1]
