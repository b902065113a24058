"""Another task's labels: what forgetting one task does to another (paper, Fig. 3, 8 and 9).

`cross_task` makes a matrix of forget ratios, a `CrossTask`; the other functions ask it questions.
Tables are as those of `stats`.

Shapes: N examples, K tasks, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from forgetlib.schema import CHANCE, InputError, RunResult, RunSpec
from forgetlib.stats import (
    CONFIDENCE_LEVEL,
    N_RESAMPLES,
    Interval,
    as_columns,
    check_same_examples,
    correct,
    jackknife,
    means_of,
    percentiles,
    rank_correlation,
    ratio_of,
    resampled_means,
    seed_draws,
    seed_noise,
    something_to_forget,
)


@dataclass(frozen=True)
class CrossTask:
    """One model's cross-task forgetting (paper, Fig. 3, 8 and 9), with its resamples.

    condition: "random" or "flipped"
    start: "pairwise" (from the model fine-tuned on the evaluated task) or "shared" (from one model
        fine-tuned on all tasks)
    tasks: (K,) the order of rows (evaluated task) and columns (task whose labels were changed)
    n: (K,) test examples of each task, all seeds
    tuned: (K,) test accuracy after fine-tuning, mean over seeds
    forgotten: (K, K) test accuracy after forgetting, mean over seeds
    forget_ratio: (K, K); a row is NaN where there was not `stats.something_to_forget`
    replicates: (R, K, K) forget_ratio in `stats.resampled_means`. A row's cells share their
        resample, as they share their examples. Where a row is defined, a resample of it that has
        no ratio, since its fine-tuned accuracy is at or below chance, is replaced by another of
        the row
    outcomes: for each task and seed (N, 1 + K), whether each test example is right: after
        fine-tuning, and after forgetting each task
    """

    model: str
    condition: str
    start: str
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
        """(K,) whether there was something to forget in each evaluated task."""
        return np.isfinite(self.forget_ratio).all(1)


def cross_task(
    results: Iterable[RunResult], condition: str = "random", *, n_resamples: int = N_RESAMPLES
) -> CrossTask:
    """What forgetting one task does to another, for every pair (paper, Fig. 3 and 8).

    results: of one model and one study, all pairs; others than cross-task runs are left aside
    condition: "random" or "flipped", which has its own ratio
    """
    ratio_of_condition = ratio_of(condition)
    spec, cells = _cross_cells(results, condition)
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
        model=spec.model,
        condition=condition,
        start=_start_kind(spec),
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


def _cross_cells(results: Iterable[RunResult], condition: str) -> tuple[RunSpec, Cells]:
    """(N,) right after fine-tuning and after forgetting, by (seed, evaluated, forgotten task).

    Also one of the specs, which all agree in what a CrossTask states of them. Raises InputError
    where they do not, as then the matrix would compare settings and not tasks.
    """
    by_id = {r.spec.run_id: r for r in results}
    cells: Cells = {}
    specs: dict[tuple, RunSpec] = {}
    for result in by_id.values():
        spec, start = result.spec, result.spec.start
        if spec.condition != condition or start is None or spec.n_train != start.n_train:
            continue
        tuned = by_id.get(start.run_id)
        if tuned is None:
            continue  # its cells are reported as missing
        for task in spec.eval_tasks:
            test = f"{task}/test"
            if task not in start.train_tasks or test not in tuned.scores:
                continue
            check_same_examples(spec, test, (tuned, result))
            key = (spec.seed, task, spec.train_task)
            specs.setdefault(_cross_setting(spec), spec)
            if len(specs) > 1 or key in cells:
                raise InputError(
                    f"cross-task forgetting with {condition} labels",
                    expected="one model, start and setting, and one run a seed and pair of tasks",
                    found=" and ".join(str(s) for s in (*specs.values(), spec)[:2]),
                    do="Pass the results of one study, of one model at a time.",
                )
            before, after = correct(tuned.scores[test]), correct(result.scores[test])
            cells[key] = before.astype(float), after.astype(float)
    if not cells:
        raise InputError(
            f"cross-task forgetting with {condition} labels",
            expected="runs that were fine-tuned on a task before, and their starts",
            found=f"none among {len(by_id)} results",
            do="Pass the part of the study that has these runs.",
        )
    return next(iter(specs.values())), cells


def _start_kind(spec: RunSpec) -> str:
    return "pairwise" if spec.start is None or len(spec.start.train_tasks) == 1 else "shared"


def _cross_setting(spec: RunSpec) -> tuple:
    """What has to be equal in all cells: everything but task, seed, and what is only recorded."""
    trained = (None if s.train is None else replace(s.train, record_steps=0) for s in spec.lineage)
    sizes = (spec.model, spec.tuning, spec.dtype, spec.n_train, spec.n_eval)
    return (*sizes, _start_kind(spec), *trained)


def cross_table(cross: CrossTask) -> pd.DataFrame:
    """One row a pair of tasks.

    Columns: model, condition, start, eval_task, forget_task, n (test examples, all seeds), tuned,
    forgotten (accuracies), forget_ratio with its interval, ratio_defined.
    """
    rows = []
    for (i, evaluated), (j, forgotten) in product(enumerate(cross.tasks), repeat=2):
        ratio = percentiles(float(cross.forget_ratio[i, j]), cross.replicates[:, i, j])
        rows.append(
            {
                "model": cross.model,
                "condition": cross.condition,
                "start": cross.start,
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


def variance_shares(cross: CrossTask) -> pd.DataFrame:
    """How much of the forget ratio's variance each side of a pair explains (paper, Fig. 3).

    A two-way analysis of the evaluated tasks that are defined: components of variance (unbiased
    with any number of rows and columns), those below 0 taken as 0, divided by their sum. These
    shares are the column `uncorrected`. Sampling error inflates them, and the evaluated task's
    above all: a row shares its test examples and its fine-tuned accuracy. `share` is therefore
    taken after subtracting, from each component, what it is for the bootstrap's deviations from
    their mean.

    Two intervals. share_low and share_high are over examples, and speak of these tasks: the
    replicates, which have sampling error twice, lose it twice; one with nothing left could be any
    share, and widens the interval on both sides. tasks_low and tasks_high speak of tasks like
    these: a jackknife that leaves out each task in turn, as row and as column (`stats.jackknife`,
    with as many degrees of freedom as there are defined tasks, less one).

    What differs between training runs is seen where there are several seeds only. With one seed it
    counts as variance: the fine-tuning run's as the evaluated task's, the forgetting run's as
    the rest ("pairwise") or as the forgotten task's ("shared").

    Rows: source in `SOURCES`. Columns: model, condition, start, source, share with its intervals,
    uncorrected, n_tasks (evaluated tasks that are defined). NaN with fewer than two of these, or
    without any variance.
    """
    defined = cross.defined
    n_tasks = int(defined.sum())
    shares = tasks = [Interval(np.nan, np.nan, np.nan)] * 3
    uncorrected = np.full(3, np.nan)
    if n_tasks > 1:
        ratio, replicates = cross.forget_ratio[defined], cross.replicates[:, defined]
        deviations = replicates - replicates.mean(0)
        noise = _components(deviations).mean(0)
        uncorrected = _shares(np.maximum(_components(ratio), 0))
        estimate = _shares(np.maximum(_components(ratio) - noise, 0))
        if np.isfinite(estimate).all():
            resampled = _shares(np.maximum(_components(replicates) - 2 * noise, 0))  # (R, 3)
            tail = (1 - CONFIDENCE_LEVEL) / 2
            low = np.quantile(np.nan_to_num(resampled, nan=0), tail, axis=0)
            high = np.quantile(np.nan_to_num(resampled, nan=1), 1 - tail, axis=0)
            shares = [Interval(*map(float, v)) for v in zip(estimate, low, high, strict=True)]
            tasks = _over_tasks(estimate, cross.forget_ratio, deviations, defined)
    return pd.DataFrame(
        {
            "model": cross.model,
            "condition": cross.condition,
            "start": cross.start,
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
    estimate: np.ndarray, ratio: np.ndarray, deviations: np.ndarray, defined: np.ndarray
) -> list[Interval]:
    """The shares' intervals over tasks, between 0 and 1.

    Without a task, a component may be below 0 here: cut off there, the shares of a clear result
    would all be 1, without a spread to tell how certain that is.

    ratio: (K, K); deviations: (R, D, K) of the D defined rows
    """
    if defined.sum() < 3:
        return [Interval(float(share), np.nan, np.nan) for share in estimate]
    rows = np.flatnonzero(defined)
    without_each = []
    for task in range(len(ratio)):
        left, columns = rows != task, np.arange(len(ratio)) != task
        noise = _components(deviations[:, left][:, :, columns]).mean(0)
        without_each.append(_shares(_components(ratio[rows[left]][:, columns]) - noise))
    found = (
        jackknife(float(share), values, len(rows) - 1)
        for share, values in zip(estimate, np.array(without_each).T, strict=True)
    )
    return [Interval(i.value, *map(float, np.clip([i.low, i.high], 0, 1))) for i in found]


def own_against_others(cross: CrossTask) -> pd.DataFrame:
    """Whether another task's labels make a task forgotten more than its own do (paper, Fig. 3).

    The best of many others looks better than it is, because it was picked. So it is picked, by the
    lowest accuracy, on other data than those on which it is compared with the task's own labels.

    - With several seeds, it is picked on the other seeds' runs and compared on this seed's;
      `difference` is the mean over seeds, which are resampled (too narrow an interval, of few).
    - With one seed, it is picked on every other test example and compared on the rest, then the
      other way round. That speaks of these training runs only: among K - 1 runs that differ by
      chance, one really is better than the task's own.

    Examples are resampled with the picking repeated. The difference is that of the task which was
    picked, so it errs downwards where several others are about as good.

    One row an evaluated task. Columns: model, condition, start, eval_task, n (test examples, all
    seeds), own (forget ratio by its own labels), best_other (task with the highest ratio on all
    data) and best_other_ratio, which flatters it, difference with its interval (own accuracy less
    the best other's; above 0: the other's labels forget more), picked_on ("other seeds" or "half of
    the test questions"), ratio_defined. Missing where the ratio is undefined, or where there is no
    other task.
    """
    rng = np.random.default_rng(0)
    rows = []
    for i, task in enumerate(cross.tasks):
        best, difference = None, Interval(np.nan, np.nan, np.nan)
        if cross.defined[i] and len(cross.tasks) > 1:
            best = int(
                np.where(np.arange(len(cross.tasks)) == i, np.inf, cross.forgotten[i]).argmin()
            )
            difference = _own_less_best_other(cross, i, rng)
        rows.append(
            {
                "model": cross.model,
                "condition": cross.condition,
                "start": cross.start,
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
        return Interval(np.nan, np.nan, np.nan)

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
    resampled = differences(
        np.array([resampled_means([part], rng=rng, n_resamples=n_resamples) for part in parts])
    )
    replicates = resampled.mean(0)
    if cross.n_seeds > 1:
        draws = seed_draws(rng, n_resamples, cross.n_seeds)
        known = resampled.var(1).mean(keepdims=True)
        replicates = replicates + seed_noise(draws, of_parts[:, None], known)[:, 0]
    return percentiles(float(of_parts.mean()), replicates)


def upgma(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average-linkage clustering of the rows, to bring alike ones together (paper, Fig. 3).

    The distance of two rows is Euclidean, over the columns where both are defined, scaled up to all
    columns. Two rows without such a column count as far apart as the farthest two.

    matrix: (K, M), NaN where undefined. Cluster the columns by passing the transpose.
    Returns the (K,) rows in the order of the tree's leaves, those with nothing defined last, and
    SciPy's linkage (D - 1, 4) of the D rows with something defined, counted from 0 among these;
    (0, 4) for fewer than two.
    """
    present = np.isfinite(matrix)
    some = np.flatnonzero(present.any(1))
    rest = np.flatnonzero(~present.any(1))
    if len(some) < 2:
        return np.concatenate([some, rest]), np.zeros((0, 4))
    values = np.where(present, matrix, 0)[some]
    both = present[some][:, None] & present[some][None]  # (D, D, M)
    common = both.sum(-1)
    squares = ((values[:, None] - values[None]) ** 2 * both).sum(-1)
    with np.errstate(invalid="ignore"):
        distances = np.sqrt(squares / common * matrix.shape[1])
    farthest = np.nanmax(distances)
    distances = np.where(np.isnan(distances), farthest, distances)
    tree = linkage(squareform(distances, checks=False), method="average", optimal_ordering=True)
    return np.concatenate([some[leaves_list(tree)], rest]), tree


def evaluated_means(cross: CrossTask) -> pd.DataFrame:
    """How much each task is forgotten on average over the tasks trained on (paper, Fig. 3 and 8).

    Columns: model, condition, start, eval_task, n (test examples, all seeds), mean_ratio with its
    interval, ratio_defined.
    """
    found = [
        percentiles(float(value), replicates)
        for value, replicates in zip(
            cross.forget_ratio.mean(1), cross.replicates.mean(2).T, strict=True
        )
    ]
    return pd.DataFrame(
        {
            "model": cross.model,
            "condition": cross.condition,
            "start": cross.start,
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
    """Whether the same tasks are forgotten by several models, or conditions (paper, Fig. 8 and 9).

    For each two of the crosses, the rank correlation of the evaluated tasks' mean forget ratios
    (`stats.rank_correlation`), over the tasks that are defined in both. Means are over the
    forgotten tasks that both have.

    crosses: every two differ in the model or in the condition, and in nothing else

    Columns: a, b ("model, condition"; ", shared" where that is the start), rank_correlation with
    its interval, n (tasks).
    """
    rows = []
    for a, b in combinations(crosses, 2):
        differ = [k for k in ("model", "condition", "start") if getattr(a, k) != getattr(b, k)]
        if differ not in (["model"], ["condition"]):
            raise InputError(
                "agreement of two cross-task matrices",
                expected="two that differ in either the model or the condition, and not in start",
                found=f"{_label(a)} and {_label(b)}",
                do="Pass every model or condition once, all of one study.",
            )
        forgotten = [t for t in a.tasks if t in b.tasks]
        evaluated = [t for t in forgotten if all(c.defined[c.tasks.index(t)] for c in (a, b))]
        means = (
            pd.DataFrame(c.forget_ratio, list(c.tasks), list(c.tasks))
            .loc[evaluated, forgotten]
            .mean(axis=1)
            .to_numpy()
            for c in (a, b)
        )
        found = as_columns("rank_correlation", rank_correlation(*means))
        rows.append({"a": _label(a), "b": _label(b), **found, "n": len(evaluated)})
    columns = ["a", "b", "rank_correlation", "rank_correlation_low", "rank_correlation_high", "n"]
    return pd.DataFrame(rows, columns=columns)


def _label(cross: CrossTask) -> str:
    shared = ", shared" if cross.start == "shared" else ""
    return f"{short_name(cross.model)}, {cross.condition}{shared}"


def short_name(model: str) -> str:
    """A model without its owner on the hub, or its folder on the disk."""
    return model.rstrip("/").split("/")[-1]
