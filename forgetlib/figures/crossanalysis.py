"""Ask a matrix of forget ratios: what decides it, which labels do more, whether two agree.

For Figures 3, 8 and 9 of the paper, from `crosstask.CrossTask` or its `effects`. Intervals: 95 %.

Shapes: N examples, K tasks, D of them defined, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from forgetlib.errors import InputError
from forgetlib.figures.agreement import agreement, taken_from
from forgetlib.figures.bootstrap import (
    Measure,
    Resampled,
    of_shares,
    resample_counts,
    seed_factors,
)
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.effects import ACCURACY_LOST, AUROC_BEYOND, Effects, mean_effects, named
from forgetlib.figures.intervals import (
    TAIL,
    UNDEFINED,
    Interval,
    as_columns,
    jackknife,
    mean_interval,
    with_intervals,
)
from forgetlib.metrics import ratio_of

SOURCES = ("evaluated task", "forgotten task", "interaction and noise")


def _components(matrix: np.ndarray) -> np.ndarray:
    """(..., rows, columns) -> (..., 3) variance by row, by column, and of the rest.

    The unbiased estimates of a two-way analysis without replication: what the rest adds to the mean
    square of the row (or column) means is subtracted from it. They can be below 0.
    """
    rows, columns = matrix.shape[-2:]
    grand = matrix.mean((-2, -1), keepdims=True)
    by_row = matrix.mean(-1, keepdims=True) - grand
    by_column = matrix.mean(-2, keepdims=True) - grand
    rest = ((matrix - grand - by_row - by_column) ** 2).sum((-2, -1)) / ((rows - 1) * (columns - 1))
    of_rows = (by_row**2).sum((-2, -1)) / (rows - 1)
    of_columns = (by_column**2).sum((-2, -1)) / (columns - 1)
    return np.stack([of_rows - rest / columns, of_columns - rest / rows, rest], axis=-1)


def _shares(components: np.ndarray) -> np.ndarray:
    """(..., 3) components -> (..., 3) shares of their sum, NaN where that is not above 0."""
    total = components.sum(-1, keepdims=True)
    return np.divide(components, total, out=np.full(components.shape, np.nan), where=total > 1e-12)


def variance_shares(effects: Effects) -> pd.DataFrame:
    """Share the variance of what labels did between the sides of a pair (paper, Fig. 3).

    A two-way analysis of the evaluated tasks that are defined: components of variance (unbiased
    with any number of rows and columns), those below 0 taken as 0, divided by their sum. These
    shares are the column `uncorrected`. Sampling error inflates them, and the evaluated task's
    above all: a row shares its test examples and its fine-tuned accuracy. `share` is therefore
    taken after subtracting, from each component, what it is for the bootstrap's deviations from
    their mean.

    Two intervals. share_low and share_high are over examples, and speak of these tasks: the
    replicates, which have sampling error twice, lose it twice; one with nothing left could be any
    share, and widens the interval on both sides. tasks_low and tasks_high speak of tasks like
    these: a jackknife that leaves out each task in turn, as row and as column
    (`intervals.jackknife`, with as many degrees of freedom as there are defined tasks, less one).

    What differs between training runs is seen where there are several seeds only. With one seed it
    counts as variance: the fine-tuning run's as the evaluated task's, the forgetting run's as
    the rest ("pairwise") or as the forgotten task's ("shared").

    Rows: source in `SOURCES`. Columns: model, condition, protocol, measure, source, share with its
    intervals, uncorrected, n_tasks (evaluated tasks that are defined). NaN with fewer than two of
    these, or without any variance.
    """
    defined = effects.defined
    n_tasks = int(defined.sum())
    shares = tasks = [UNDEFINED] * 3
    uncorrected = np.full(3, np.nan)
    if n_tasks > 1:
        values, replicates = effects.values, effects.replicates
        deviations = replicates - replicates.mean(0)
        noise = _components(deviations).mean(0)
        uncorrected = _shares(np.maximum(_components(values), 0))
        estimate = _shares(np.maximum(_components(values) - noise, 0))
        if np.isfinite(estimate).all():
            resampled = _shares(np.maximum(_components(replicates) - 2 * noise, 0))  # (R, 3)
            low = np.quantile(np.nan_to_num(resampled, nan=0), TAIL, axis=0)
            high = np.quantile(np.nan_to_num(resampled, nan=1), 1 - TAIL, axis=0)
            shares = [Interval(*map(float, v)) for v in zip(estimate, low, high, strict=True)]
            tasks = _over_tasks(estimate, values, deviations, defined)
    return pd.DataFrame(
        {
            **effects.cross.about,
            "measure": effects.measure,
            "source": name,
            **as_columns("share", share),
            "tasks_low": of_tasks.low,
            "tasks_high": of_tasks.high,
            "uncorrected": float(raw),
            "n_tasks": n_tasks,
        }
        for name, share, of_tasks, raw in zip(SOURCES, shares, tasks, uncorrected, strict=True)
    )


def _over_tasks(
    estimate: np.ndarray, values: np.ndarray, deviations: np.ndarray, defined: np.ndarray
) -> list[Interval]:
    """The shares' intervals over tasks, between 0 and 1.

    Without a task, a component may be below 0 here: cut off there, the shares of a clear result
    would all be 1, without a spread to tell how certain that is.

    values: (D, K) of the D defined rows; deviations: (R, D, K)
    """
    if defined.sum() < 3:
        return [Interval(float(share), np.nan, np.nan) for share in estimate]
    rows = np.flatnonzero(defined)
    without_each = []
    for task in range(len(defined)):
        left, columns = rows != task, np.arange(len(defined)) != task
        noise = _components(deviations[:, left][:, :, columns]).mean(0)
        without_each.append(_shares(_components(values[left][:, columns]) - noise))
    found = (
        jackknife(float(share), values, len(rows) - 1)
        for share, values in zip(estimate, np.array(without_each).T, strict=True)
    )
    return [Interval(i.value, *map(float, np.clip([i.low, i.high], 0, 1))) for i in found]


def own_against_others(cross: CrossTask) -> pd.DataFrame:
    """Compare a task's own labels with the best other task's (paper, Fig. 3).

    The best of many others looks better than it is, because it was picked. So it is picked, by the
    lowest accuracy, on other data than those on which it is compared with the task's own labels.

    - With several seeds, it is picked on the other seeds' runs and compared on this seed's;
      `difference` is the mean over seeds, with the wider of two intervals: over test questions,
      and Student's t over seeds.
    - With one seed, it is picked on every other test example and compared on the rest, then the
      other way round. That speaks of these training runs only: among K - 1 runs that differ by
      chance, one really is better than the task's own.

    Examples are resampled with the picking repeated. The difference is that of the task which was
    picked, so it errs downwards where several others are about as good.

    One row an evaluated task. Columns: model, condition, protocol, eval_task, n (test examples, all
    seeds), own (forget ratio by its own labels), best_other (task with the highest ratio on all
    data) and best_other_ratio, which flatters it, difference with its interval (own accuracy less
    the best other's; above 0: the other's labels forget more), picked_on ("other seeds" or "half of
    the test questions"), ratio_defined. Missing where the ratio is undefined, or where there is no
    other task.
    """
    rng = np.random.default_rng(0)
    rows = []
    for i, task in enumerate(cross.tasks):
        best, difference = None, UNDEFINED
        if cross.defined[i] and len(cross.tasks) > 1:
            best = int(
                np.where(np.arange(len(cross.tasks)) == i, np.inf, cross.forgotten[i]).argmin()
            )
            difference = _own_less_best_other(cross, i, rng)
        rows.append(
            {
                **cross.about,
                "eval_task": task,
                "n": int(cross.n[i]),
                "own": float(cross.forget_ratio[i, i]),
                "best_other": None if best is None else cross.tasks[best],
                "best_other_ratio": np.nan if best is None else float(cross.forget_ratio[i, best]),
                **as_columns("difference", difference),
                "picked_on": "other seeds" if cross.n_seeds > 1 else "half of the test questions",
                "ratio_defined": bool(cross.defined[i]),
            }
        )
    return pd.DataFrame(rows)


def _own_less_best_other(cross: CrossTask, index: int, rng: np.random.Generator) -> Interval:
    parts = [group[:, 1:] for group in cross.outcomes[index]]  # a seed: (N, K), after forgetting
    if cross.n_seeds == 1:
        parts = [parts[0][half::2] for half in (0, 1)]
    if min(map(len, parts)) < 1:
        return UNDEFINED

    def differences(means: np.ndarray) -> np.ndarray:
        """(P, ..., K) accuracies on each part -> (P, ...) differences, picked on the others."""
        found = []
        for part, measured_on in enumerate(means):
            others = np.delete(means, part, axis=0).mean(0)
            others[..., index] = np.inf
            best = others.argmin(-1)[..., None]
            best_other = np.take_along_axis(measured_on, best, -1)[..., 0]
            found.append(measured_on[..., index] - best_other)
        return np.array(found)

    n_resamples = len(cross.replicates)
    of_parts = differences(np.array([part.mean(0) for part in parts]))
    counts = [resample_counts(rng, len(part), n_resamples) for part in parts]
    resampled = differences(
        np.array([c @ part / len(part) for c, part in zip(counts, parts, strict=True)])
    )
    by_seeds = None
    if cross.n_seeds > 1:
        factors = seed_factors(rng, n_resamples, cross.n_seeds)
        by_seeds = (of_parts.mean() + factors @ (of_parts - of_parts.mean()))[:, None]
    limits = np.array([[-1.0], [1.0]])
    found = Resampled(of_parts[:, None], resampled.mean(0)[:, None], by_seeds, limits)
    return found.interval(Measure(0))


def best_other(effects: Effects) -> pd.DataFrame:
    """Compare a task's own labels with the best other task's, picked on other seeds.

    The best of many others looks better than it is, because it was picked. So it is picked by the
    mean of the other seeds, and compared on this one. It errs downwards where several others are
    about as good.

    One row an evaluated task that is defined. Columns: eval_task, difference (what the best other's
    labels did less what its own did, mean over seeds) with Student's t interval over seeds; NaN
    with one seed
    """
    rows = []
    n_seeds = len(effects.of_seeds)
    for row, i in enumerate(np.flatnonzero(effects.defined)):
        of_task = effects.of_seeds[:, row]  # (G, K)
        found = UNDEFINED
        if n_seeds > 1 and of_task.shape[1] > 1:
            differences = []
            for seed in range(n_seeds):
                others = np.delete(of_task, seed, axis=0).mean(0)
                others[i] = -np.inf
                differences.append(of_task[seed, others.argmax()] - of_task[seed, i])
            found = mean_interval(np.array(differences), fewest=2)
        rows.append({"eval_task": effects.cross.tasks[i], **as_columns("difference", found)})
    return pd.DataFrame(rows, columns=["eval_task", *with_intervals(["difference"])])


def trigger_strength(effects: Effects) -> pd.DataFrame:
    """Measure how much each task's labels do to other tasks, less the average task's.

    The column effects of values = evaluated task + forgotten task, fitted by least squares to the
    pairs of different tasks; their mean is 0. Plain means of columns without the diagonal would not
    do: each column leaves another row out, so that a task which resists forgetting would look like
    a strong trigger. NaN with fewer than two defined rows, or fewer than three tasks.

    Columns: eval_task (the one whose labels were changed), strength (in the effects' measure).
    """
    k = len(effects.defined)
    strength = np.full(k, np.nan)
    own = np.flatnonzero(effects.defined)
    if k > 2 and len(own) > 1:
        row, column = np.nonzero(np.arange(k) != own[:, None])
        design = np.hstack([np.eye(len(own))[row], np.eye(k)[column]])
        fitted = np.linalg.lstsq(design, effects.values[row, column], rcond=None)[0][len(own) :]
        strength = fitted - fitted.mean()
    return pd.DataFrame({"eval_task": effects.cross.tasks, "strength": strength})


def upgma(matrix: np.ndarray) -> np.ndarray:
    """Order the (K,) rows by average linkage, to bring alike ones together (paper, Fig. 3).

    As the leaves of the tree are; rows with nothing defined are last.

    matrix: (K, M), NaN where undefined. Order the columns by passing the transpose.
    """
    defined = np.isfinite(matrix).any(1)
    some, rest = np.flatnonzero(defined), np.flatnonzero(~defined)
    if len(some) > 1:
        condensed = squareform(row_distances(matrix[some]), checks=False)
        some = some[leaves_list(linkage(condensed, method="average", optimal_ordering=True))]
    return np.concatenate([some, rest])


def row_distances(matrix: np.ndarray) -> np.ndarray:
    """Measure how far apart the rows of (K, M) are, each with something defined: (K, K).

    Euclidean, over the columns where both are defined, scaled up to all columns. Two rows without
    such a column count as far apart as the farthest two.
    """
    present = np.isfinite(matrix)
    values = np.where(present, matrix, 0)
    both = present[:, None] & present[None]  # (K, K, M)
    squares = ((values[:, None] - values[None]) ** 2 * both).sum(-1)
    with np.errstate(invalid="ignore"):
        distances = np.sqrt(squares / both.sum(-1) * matrix.shape[1])
    return np.where(np.isnan(distances), np.nanmax(distances), distances)


def evaluated_means(cross: CrossTask) -> pd.DataFrame:
    """Average each task's forget ratio over the tasks trained on (paper, Fig. 3 and 8).

    Columns: model, condition, protocol, eval_task, n (test examples, all seeds), mean_ratio with
    its interval, ratio_defined.
    """
    ratio = ratio_of(cross.condition)

    def mean_ratio(m: np.ndarray) -> np.ndarray:
        return np.mean(ratio(m[..., :1], m[..., 1:]), axis=-1)

    found = [
        of_task.interval(of_shares(mean_ratio), *(("accuracy", phase) for phase in of_task.phases))
        if defined
        else UNDEFINED
        for of_task, defined in zip(cross.measured, cross.defined, strict=True)
    ]
    return pd.DataFrame(
        {
            **cross.about,
            "eval_task": task,
            "n": int(n),
            **as_columns("mean_ratio", interval),
            "ratio_defined": bool(defined),
        }
        for task, n, interval, defined in zip(
            cross.tasks, cross.n, found, cross.defined, strict=True
        )
    )


def model_agreement(crosses: Sequence[CrossTask]) -> pd.DataFrame:
    """Correlate which tasks are forgotten, of each two models or conditions (Fig. 8 and 9).

    For each two of the crosses, the rank agreement of the evaluated tasks' mean effects, with its
    ceiling (`agreement`), over the tasks that are defined in both. Means are over the forgotten
    tasks that both have.

    crosses: every two differ in the model or in the condition, and in nothing else

    Columns: a, b ("model, condition"; ", shared" where that is the start), measure
    (`effects.AUROC_BEYOND` where both have a control by true labels, else `effects.ACCURACY_LOST`),
    apart (`agreement.APART`, "" for two models), rank_correlation with its interval, ceiling, n
    (tasks).
    """
    rows = []
    for a, b in combinations(crosses, 2):
        differ = [k for k in ("model", "condition", "protocol") if getattr(a, k) != getattr(b, k)]
        if differ not in (["model"], ["condition"]):
            raise InputError(
                "agreement of two cross-task matrices",
                expected="two that differ in either the model or the condition alone",
                found=f"{named(a)} and {named(b)}",
                do="Pass every model or condition once, all of one study.",
            )
        forgotten = [t for t in a.tasks if t in b.tasks]
        measure = AUROC_BEYOND if a.has_control and b.has_control else ACCURACY_LOST
        known = "auroc" if measure == AUROC_BEYOND else "accuracy"
        both = [
            [c.measured[c.tasks.index(t)] for c in (a, b)]
            for t in forgotten
            if all(c.measured[c.tasks.index(t)].knows(known) for c in (a, b))
        ]
        means = [
            np.array([mean_effects(of[i], forgotten, measure) for of in both]).T for i in (0, 1)
        ]
        apart = differ == ["model"]
        found = agreement(*means, apart=apart) if both else agreement(*np.zeros((2, 2, 0)))
        where = "" if apart else taken_from([of[0] for of in both])
        rows.append({"a": named(a), "b": named(b), "measure": measure, "apart": where, **found})
    ends = with_intervals(["rank_correlation"])
    return pd.DataFrame(rows, columns=["a", "b", "measure", "apart", *ends, "ceiling", "n"])
