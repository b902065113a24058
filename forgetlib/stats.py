"""From scores to statements: accuracy, confidence, forget gap and ratio, and their intervals.

A statistic here is a function of arrays, with its shape stated; `bootstrap` gives any of them an
interval. No files, no models, no global random state.

In the tables, a measure m has its value in column m and its 95 % bootstrap interval in m_low and
m_high; where a measure is undefined, or there are too few data for its interval, they are NaN.

Shapes: N examples, C = 2 choices, G groups (seeds), K tasks, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from forgetlib.schema import CHANCE, Dynamics, InputError, ProbeResult, RunResult, RunSpec, Scores

CONFIDENCE_LEVEL = 0.95
N_RESAMPLES = 2000
Numbers = float | np.ndarray

# --- one example, one data set -------------------------------------------------------------------


def predictions(scores: Scores) -> np.ndarray:
    """(N,) index of the likelier choice; the first of equal ones, as in the harness."""
    return scores.log_likelihoods.argmax(1)


def correct(scores: Scores) -> np.ndarray:
    """(N,) whether the likelier choice is the true response."""
    return predictions(scores) == scores.labels


def choice_probs(scores: Scores) -> np.ndarray:
    """(N, C) probability of each choice relative to the others: softmax of the log-likelihoods."""
    shifted = scores.log_likelihoods.astype(np.float64)
    shifted = np.exp(shifted - shifted.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def confidence(scores: Scores) -> np.ndarray:
    """(N,) p(true) / (p(true) + p(distractor)) (paper, section 5)."""
    return choice_probs(scores)[np.arange(len(scores)), scores.labels]


def forget_gap(forget_accuracy: Numbers) -> Numbers:
    """Forget accuracy above chance: 0 is fully forgotten (paper, Fig. 2). Any shape."""
    return forget_accuracy - CHANCE


def forget_ratio(tuned: Numbers, forgotten: Numbers, floor: Numbers = CHANCE) -> Numbers:
    """Share of the fine-tuned accuracy's height above `floor` that was lost (paper, Fig. 3).

    (tuned - forgotten) / (tuned - floor): 1 is fully forgotten, 0 nothing. Not-a-number where the
    model was not above the floor to begin with, because there was nothing to lose. Any shape.
    """
    above = np.subtract(tuned, floor)
    defined = np.where(above > 0, above, np.nan)
    return (np.subtract(tuned, forgotten) / defined)[()]


def flipped_forget_ratio(tuned: Numbers, forgotten: Numbers) -> Numbers:
    """The forget ratio for flipped labels, whose full effect is 1 - tuned (paper, Fig. 8)."""
    return forget_ratio(tuned, forgotten, floor=np.subtract(1, tuned))


def _ratio_of(condition: str) -> Callable[[Numbers, Numbers], Numbers]:
    """The forget ratio that belongs to the labels of the forgetting phase."""
    ratios = {"random": forget_ratio, "flipped": flipped_forget_ratio}
    if condition not in ratios:
        raise InputError(
            "condition of forgetting",
            expected=f"one of {', '.join(ratios)}",
            found=repr(condition),
            do="Correct the name.",
        )
    return ratios[condition]


# --- intervals -----------------------------------------------------------------------------------


Statistic = Callable[[np.ndarray], Numbers]  # (..., K) means -> (...) values


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile bootstrap interval; low and high are NaN where undefined."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Statistic,
    groups: Sequence[np.ndarray],
    *,
    n_resamples: int = N_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over examples, and over seeds where there are several.

    groups: one (N_g, K) array a seed, a row an example, so that K measurements of an example stay
        together. Each group is reduced to its (K,) column means, the groups' means are averaged,
        and the statistic maps that (K,) to a number: a statistic of accuracies, not of examples.
    statistic: vectorised over leading axes
    """
    if not groups or any(g.ndim != 2 or len(g) == 0 for g in groups):
        raise InputError(
            "bootstrap",
            expected="at least one (N, K) array with N >= 1",
            found=[g.shape for g in groups],
            do="Pass a list of arrays, one a seed.",
        )
    value = statistic(np.mean([g.mean(0) for g in groups], axis=0))
    resampled = resampled_means(groups, n_resamples=n_resamples, rng=np.random.default_rng(seed))
    return percentiles(float(value), statistic(resampled), level)


def resampled_means(
    groups: Sequence[np.ndarray],
    *,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    picks: np.ndarray | None = None,
) -> np.ndarray:
    """(R, K) column means of R bootstrap resamples, averaged over the groups.

    groups: G arrays (N_g, K), one a seed
    picks: (R, G) which seeds each resample is made of; drawn here unless several data sets have to
        pick the same seeds
    """
    if picks is None:
        picks = seed_picks(rng, n_resamples, len(groups))
    total = np.zeros((len(picks), groups[0].shape[1]))
    # A seed that is picked twice brings two resamples of its examples, not one of them twice.
    for slot in picks.T:
        for index, group in enumerate(groups):
            chosen = np.flatnonzero(slot == index)
            if len(chosen):
                counts = resample_counts(rng, len(group), len(chosen))
                total[chosen] += counts @ group / len(group)
    return total / len(groups)


def seed_picks(rng: np.random.Generator, n_resamples: int, n_seeds: int) -> np.ndarray:
    """(R, G) a bootstrap sample of the seeds for every resample; with one seed, always that."""
    if n_seeds == 1:
        return np.zeros((n_resamples, 1), np.intp)
    return rng.integers(n_seeds, size=(n_resamples, n_seeds))


def resample_counts(rng: np.random.Generator, n: int, n_resamples: int) -> np.ndarray:
    """(R, N) how often each of N examples is drawn when N are drawn with replacement."""
    drawn = rng.integers(n, size=(n_resamples, n)) + n * np.arange(n_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n * n_resamples)
    return counts.reshape(n_resamples, n).astype(float)


def percentiles(value: float, replicates: Numbers, level: float = CONFIDENCE_LEVEL) -> Interval:
    """The interval between the (R,) replicates' quantiles; NaN where any is undefined."""
    if not np.size(replicates) or not np.isfinite(replicates).all():
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def rank_correlations(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(R,) Spearman's rank correlation of x and y (N,) in R resamples, given as counts (R, N).

    Equal values share their average rank. NaN where a resample has one value only.
    """
    codes, cells = np.unique(np.stack([x, y]), axis=1, return_inverse=True)
    weights = counts @ (cells.reshape(-1)[:, None] == np.arange(codes.shape[1]))  # (R, cells)
    total = weights.sum(1, keepdims=True)
    ranks = []
    for values in codes:
        level = np.unique(values, return_inverse=True)[1]
        same = weights @ (level[:, None] == np.arange(level.max() + 1))  # (R, values)
        average = same.cumsum(1) - (same - 1) / 2  # rank of each value among the resample's
        ranks.append(average[:, level] - (total + 1) / 2)  # less the mean rank
    covariance = (weights * ranks[0] * ranks[1]).sum(1)
    spread = np.sqrt((weights * ranks[0] ** 2).sum(1) * (weights * ranks[1] ** 2).sum(1))
    return np.divide(covariance, spread, out=np.full(len(counts), np.nan), where=spread > 1e-9)


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _column(index: int) -> Statistic:
    return lambda means: means[..., index]


# --- the tidy table ------------------------------------------------------------------------------


def table(results: Iterable[RunResult]) -> pd.DataFrame:
    """One measurement a row: accuracy and mean confidence of every run on every data set.

    Columns: run_id, model, train_task, start_task, condition, seed, n_train, eval_task, split,
    metric, value, n.
    """
    rows = []
    for result in results:
        spec = result.spec
        for where, scores in sorted(result.scores.items()):
            eval_task, split = where.split("/")
            for metric, values in (
                ("accuracy", correct(scores)),
                ("confidence", confidence(scores)),
            ):
                rows.append(
                    {
                        "run_id": spec.run_id,
                        "model": spec.model,
                        "train_task": spec.train_task,
                        "start_task": spec.start_task,
                        "condition": spec.condition,
                        "seed": spec.seed,
                        "n_train": spec.n_train,
                        "eval_task": eval_task,
                        "split": split,
                        "metric": metric,
                        "value": float(values.mean()),
                        "n": len(scores),
                    }
                )
    return pd.DataFrame(rows)


# --- Figures 2 and 7: a task's own labels --------------------------------------------------------

PHASES = ("base", "tuned", "forgotten")
BEHAVIOURS = ("kept", "below fine-tuned", "below pre-trained", "nothing to forget")


def forgetting(
    results: Iterable[RunResult], condition: str = "random", *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Forgetting of each task by its own labels (paper, Fig. 2 and 7).

    condition: "random" or "flipped", the labels of the forgetting phase

    One row a model, task and size of the forgetting set. Columns: model, eval_task, size (upper
    bound of the forgetting set), n (test examples, all seeds), n_train (size found, all seeds),
    n_seeds, and for each measure m its value, m_low and m_high (bootstrap over examples and seeds):
    base, tuned, forgotten: test accuracy before, after fine-tuning, after forgetting
    forgetting_set: accuracy on the forgetting set after forgetting, true labels
    forget_gap, forget_ratio: as defined above
    confidence: mean confidence on the test set after fine-tuning
    lost, below_base: the fine-tuned and the pre-trained accuracy less the forget accuracy
    ratio_defined: whether the fine-tuned accuracy is above chance in every bootstrap resample;
        where it is not, the ratio's denominator may be zero: it has no interval and says nothing
    behaviour: the paper's three kinds, each by the interval of the accuracies' difference.
        "kept": not below the fine-tuned accuracy; "below fine-tuned": below it, but not below the
        pre-trained; "below pre-trained". "nothing to forget" where the ratio is undefined
    """
    ratio = _ratio_of(condition)
    measures: dict[str, Statistic] = {
        "base": _column(0),
        "tuned": _column(1),
        "forgotten": _column(2),
        "confidence": _column(3),
        "forget_gap": lambda m: forget_gap(m[..., 2]),
        "lost": lambda m: m[..., 1] - m[..., 2],
        "below_base": lambda m: m[..., 0] - m[..., 2],
        "forget_ratio": lambda m: ratio(m[..., 1], m[..., 2]),
    }
    rows = []
    for (model, task, size), seeds in sorted(_families(results, condition).items()):
        groups, train_groups = [], []
        for runs in seeds:
            tested = [runs[phase].scores[f"{task}/test"] for phase in PHASES]
            columns = [correct(s).astype(float) for s in tested] + [confidence(tested[1])]
            groups.append(np.stack(columns, axis=1))  # (N, 4)
            own = runs["forgotten"].scores[f"{task}/train"]
            train_groups.append(correct(own).astype(float)[:, None])
        found = _measured(measures, groups, n_resamples)
        found["forgetting_set"] = bootstrap(_column(0), train_groups, n_resamples=n_resamples)
        row: dict[str, object] = {
            "model": model,
            "eval_task": task,
            "size": size,
            "n": sum(len(g) for g in groups),
            "n_train": sum(len(g) for g in train_groups),
            "n_seeds": len(seeds),
        }
        for name, interval in found.items():
            row |= _columns(name, interval)
        row["ratio_defined"] = bool(np.isfinite(found["forget_ratio"].low))
        row["behaviour"] = _behaviour(found) if row["ratio_defined"] else BEHAVIOURS[3]
        rows.append(row)
    return pd.DataFrame(rows)


def _measured(
    measures: dict[str, Statistic], groups: Sequence[np.ndarray], n_resamples: int
) -> dict[str, Interval]:
    """Several statistics of the same data, from the same resamples."""
    means = np.mean([g.mean(0) for g in groups], axis=0)
    rng = np.random.default_rng(0)
    resampled = resampled_means(groups, n_resamples=n_resamples, rng=rng)
    return {k: percentiles(float(f(means)), f(resampled)) for k, f in measures.items()}


def _behaviour(found: dict[str, Interval]) -> str:
    if found["lost"].low <= 0:
        return BEHAVIOURS[0]
    return BEHAVIOURS[1 if found["below_base"].low <= 0 else 2]


Family = dict[str, RunResult]  # one seed's run of each phase


def _families(
    results: Iterable[RunResult], condition: str
) -> dict[tuple[str, str, int], list[Family]]:
    """Base, tuned and forgotten run of each (model, task, size), one dictionary a seed.

    The three are found by the specs themselves. Raises InputError where runs of one model, task
    and size differ in more than the seed, as their average would mean nothing, and where the three
    did not measure the same test examples.
    """
    by_id = {r.spec.run_id: r for r in results}
    families: dict[tuple[str, str, int], list[Family]] = {}
    for result in by_id.values():
        spec = result.spec
        start = spec.start
        if spec.condition != condition or start is None or not _is_own(spec, start):
            continue
        base = by_id.get(replace(start, condition="base", train=None).run_id)
        tuned = by_id.get(start.run_id)
        if base is None or tuned is None:
            continue  # the study is not complete: experiment.results says so
        runs = {"base": base, "tuned": tuned, "forgotten": result}
        _check_same_examples(spec, f"{spec.train_task}/test", runs.values())
        seeds = families.setdefault((spec.model, spec.train_task, spec.n_train), [])
        if seeds and _but_seed(seeds[0]["forgotten"].spec) != _but_seed(spec):
            raise InputError(
                f"runs of {spec.model} on {spec.train_task}",
                expected="settings that differ in the seed and in the forgetting set's size only",
                found=f"{_but_seed(seeds[0]['forgotten'].spec)} and {_but_seed(spec)}",
                do="Pass the results of one study.",
            )
        seeds.append(runs)
    return families


def _is_own(spec: RunSpec, start: RunSpec) -> bool:
    """Whether one task was fine-tuned on, made to be forgotten, and evaluated."""
    return len(spec.train_tasks) == 1 and spec.train_tasks == start.train_tasks == spec.eval_tasks


def _check_same_examples(spec: RunSpec, test: str, runs: Iterable[RunResult]) -> None:
    if len({run.scores[test].uids for run in runs}) != 1:
        raise InputError(
            f"runs of {spec}",
            expected="the same test examples before and after",
            found="different ones",
            do="They were made by different versions of the data: recompute the study.",
        )


def _but_seed(spec: RunSpec) -> RunSpec:
    start = None if spec.start is None else replace(spec.start, seed=0)
    return replace(spec, start=start, seed=0)


def _full_size(results: Iterable[RunResult]) -> list[tuple[str, str, list[Family]]]:
    """(model, task, seeds) where the forgetting set is the whole training set, in order."""
    return [
        (model, task, seeds)
        for (model, task, size), seeds in sorted(_families(results, "random").items())
        if size == seeds[0]["tuned"].spec.n_train
    ]


# --- Figures 3, 8 and 9: another task's labels ---------------------------------------------------


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
    forget_ratio: (K, K); a row is NaN where the fine-tuned accuracy is not above chance in every
        resample
    replicates: (R, K, K) forget_ratio in bootstrap resamples of examples, and of seeds where there
        are several. A row's cells share their resample, as they share their examples
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
    ratio_of = _ratio_of(condition)
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
    means = np.array([np.mean([g.mean(0) for g in groups], axis=0) for groups in outcomes])
    rng = np.random.default_rng(0)
    picks = seed_picks(rng, n_resamples, len(seeds))  # the same seeds for every task
    resampled = np.stack([resampled_means(g, rng=rng, picks=picks) for g in outcomes], axis=1)
    defined = np.all(resampled[..., 0] > CHANCE, axis=0)  # (K,)

    def ratio(accuracies: np.ndarray) -> np.ndarray:
        found = ratio_of(accuracies[..., :1], accuracies[..., 1:])
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
            _check_same_examples(spec, test, (tuned, result))
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
                **_columns("forget_ratio", ratio),
                "ratio_defined": bool(cross.defined[i]),
            }
        )
    return pd.DataFrame(rows)


SOURCES = ("evaluated task", "forgotten task", "interaction and noise")


def _two_way(matrix: np.ndarray) -> np.ndarray:
    """(..., rows, columns) -> (..., 3) sums of squares of row means, column means, and the rest."""
    grand = matrix.mean((-2, -1), keepdims=True)
    by_row = matrix.mean(-1, keepdims=True) - grand
    by_column = matrix.mean(-2, keepdims=True) - grand
    parts = (by_row, by_column, matrix - grand - by_row - by_column)
    return np.stack(
        [(np.broadcast_to(part, matrix.shape) ** 2).sum((-2, -1)) for part in parts], axis=-1
    )


def variance_shares(cross: CrossTask) -> pd.DataFrame:
    """How much of the forget ratio's variance each side of a pair explains (paper, Fig. 3).

    An additive two-way analysis of the evaluated tasks that are defined. The sums of squares of row
    means, of column means and of the rest, each divided by the total, are the column
    `uncorrected`. Sampling error inflates them, and the evaluated task's above all: a row shares
    its test examples and its fine-tuned accuracy. `share` is therefore taken after subtracting,
    from each sum of squares, what it is for the bootstrap's deviations from their mean (nothing
    below zero is kept). The replicates, which have sampling error twice, lose it twice; one with
    nothing left could be any share, and widens the interval on both sides.

    The tasks are taken as they are: the interval speaks of these tasks, not of others. What differs
    between training runs is seen where there are several seeds only. With one seed it counts as
    variance: the fine-tuning run's as the evaluated task's, the forgetting run's as
    the rest ("pairwise") or as the forgotten task's ("shared").

    Rows: source in `SOURCES`, and "evaluated - forgotten", the difference of the first two, paired.
    Columns: model, condition, start, source, share with its interval, uncorrected, n_tasks
    (evaluated tasks that are defined). NaN with fewer than two of these.
    """
    defined = cross.defined
    n_tasks = int(defined.sum())
    names = (*SOURCES, "evaluated - forgotten")
    shares = [Interval(np.nan, np.nan, np.nan)] * 4
    uncorrected = np.full(4, np.nan)
    if n_tasks > 1:
        replicates = cross.replicates[:, defined]
        noise = _two_way(replicates - replicates.mean(0)).mean(0)  # (3,)
        found = _two_way(cross.forget_ratio[defined])
        uncorrected = _shares(found)
        estimate = _shares(np.maximum(found - noise, 0))
        resampled = _shares(np.maximum(_two_way(replicates) - 2 * noise, 0))  # (R, 4)
        if np.isfinite(estimate).all():
            least, most = np.array([0, 0, 0, -1]), np.ones(4)
            empty = np.isnan(resampled)
            tail = (1 - CONFIDENCE_LEVEL) / 2
            low = np.quantile(np.where(empty, least, resampled), tail, axis=0)
            high = np.quantile(np.where(empty, most, resampled), 1 - tail, axis=0)
            shares = [Interval(*map(float, v)) for v in zip(estimate, low, high, strict=True)]
    return pd.DataFrame(
        {
            "model": cross.model,
            "condition": cross.condition,
            "start": cross.start,
            "source": name,
            **_columns("share", share),
            "uncorrected": float(raw),
            "n_tasks": n_tasks,
        }
        for name, share, raw in zip(names, shares, uncorrected, strict=True)
    )


def _shares(squares: np.ndarray) -> np.ndarray:
    """(..., 3) sums of squares -> (..., 4) shares and the first two's difference; NaN if all 0."""
    total = squares.sum(-1, keepdims=True)
    shares = np.divide(squares, total, out=np.full(squares.shape, np.nan), where=total > 1e-12)
    return np.concatenate([shares, shares[..., :1] - shares[..., 1:2]], axis=-1)


def own_against_others(cross: CrossTask) -> pd.DataFrame:
    """Whether another task's labels make a task forgotten more than its own do (paper, Fig. 3).

    The best of many others looks better than it is, because it was picked. So it is picked, by the
    lowest accuracy, on every other test example, and compared with the task's own labels on the
    rest; then the other way round; `difference` is the mean of both. Each half is resampled for
    itself, with the picking repeated. The difference is that of the task which was picked, so it
    errs downwards where several others are about as good. It speaks of these training runs.

    One row an evaluated task. Columns: model, condition, start, eval_task, n (test examples, all
    seeds), own (forget ratio by its own labels), best_other (task with the highest ratio on all
    examples) and best_other_ratio, which are the picked ones, difference with its interval (own
    accuracy less the best other's; above 0: the other's labels forget more), ratio_defined.
    Missing where the ratio is undefined, or where there is no other task.
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
                **_columns("difference", difference),
                "ratio_defined": bool(cross.defined[i]),
            }
        )
    return pd.DataFrame(rows)


def _own_less_best_other(cross: CrossTask, index: int, rng: np.random.Generator) -> Interval:
    groups = [group[:, 1:] for group in cross.outcomes[index]]  # (N, K) right after forgetting
    if min(len(group) for group in groups) < 2:
        return Interval(np.nan, np.nan, np.nan)
    halves = [[group[half::2] for group in groups] for half in (0, 1)]

    def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(..., K) accuracies on the two halves -> (...) mean difference over both directions."""
        total = np.zeros(first.shape[:-1])
        for chosen_on, measured_on in ((first, second), (second, first)):
            others = chosen_on.copy()
            others[..., index] = np.inf
            best = others.argmin(-1)[..., None]
            total += measured_on[..., index] - np.take_along_axis(measured_on, best, -1)[..., 0]
        return total / 2

    value = difference(*(np.mean([g.mean(0) for g in half], axis=0) for half in halves))
    picks = seed_picks(rng, len(cross.replicates), len(groups))
    resampled = (resampled_means(half, rng=rng, picks=picks) for half in halves)
    return percentiles(float(value), difference(*resampled))


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


AGREEMENTS = ("evaluated-task means", "all pairs")
FEWEST_TASKS = 4  # for an interval over tasks: fewer have hardly any different resamples
MOST_UNDEFINED = 0.05  # share of resamples, of which each has one task only, that may be left out


def model_agreement(
    crosses: Sequence[CrossTask], *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Whether the same tasks are forgotten by several models, or conditions (paper, Fig. 8 and 9).

    For each two of the crosses, Spearman's rank correlation of their forget ratios over the tasks
    that both have, and that are defined in both: of the evaluated tasks' means over the forgotten
    tasks, and of all pairs. The interval is a bootstrap over evaluated tasks. There is none with
    fewer than 4 tasks, nor for a perfect order, which every resample repeats; resamples in which a
    ratio is constant are left out, up to 5 %.

    Columns: a, b ("model, condition"; ", shared" where that is the start), what in `AGREEMENTS`,
    rank_correlation with its interval, n (tasks, or pairs of them).
    """
    rows = []
    for a, b in combinations(crosses, 2):
        forgotten = [t for t in a.tasks if t in b.tasks]
        evaluated = [t for t in forgotten if all(c.defined[c.tasks.index(t)] for c in (a, b))]
        x, y = (
            c.forget_ratio[
                np.ix_([c.tasks.index(t) for t in evaluated], [c.tasks.index(t) for t in forgotten])
            ]
            for c in (a, b)
        )  # (evaluated, forgotten)
        counts = np.ones((1, len(evaluated)))
        if len(evaluated) >= FEWEST_TASKS:
            rng = np.random.default_rng(0)
            resampled = resample_counts(rng, len(evaluated), n_resamples)
            counts = np.concatenate([counts, resampled])
        for what in AGREEMENTS:
            found = np.full(1, np.nan)
            if len(evaluated) > 1 and what == "all pairs":
                weights = np.repeat(counts, len(forgotten), axis=1)
                found = rank_correlations(x.ravel(), y.ravel(), weights)
            elif len(evaluated) > 1:
                found = rank_correlations(x.mean(1), y.mean(1), counts)
            replicates = found[1:][np.isfinite(found[1:])]
            too_few = len(replicates) < (1 - MOST_UNDEFINED) * (len(found) - 1)
            if too_few or abs(found[0]) > 1 - 1e-9:
                replicates = np.zeros(0)
            n = len(evaluated) * (len(forgotten) if what == "all pairs" else 1)
            rows.append(
                {
                    "a": _label(a),
                    "b": _label(b),
                    "what": what,
                    **_columns("rank_correlation", percentiles(float(found[0]), replicates)),
                    "n": n,
                }
            )
    columns = ["a", "b", "what", "rank_correlation", "rank_correlation_low"]
    return pd.DataFrame(rows, columns=[*columns, "rank_correlation_high", "n"])


def _label(cross: CrossTask) -> str:
    return f"{cross.model}, {cross.condition}" + (", shared" if cross.start == "shared" else "")


# --- Figure 4: what predicts forgetting ----------------------------------------------------------


def predictors(results: Iterable[RunResult], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Forgetting of each task and what might predict it (paper, Fig. 4), one row a seed.

    Columns: model, eval_task, seed, n (test examples), forget_ratio (NaN where the fine-tuned
    accuracy is not above chance in every bootstrap resample), forgotten, forget_gap, and of the
    fine-tuned model on the test set: confidence (mean), log_variance (natural logarithm of the
    trace of the hidden states' covariance; NaN without a probe), tuned (accuracy, which stands for
    difficulty), and base (accuracy before).
    """
    rows = []
    for model, task, seeds in _full_size(results):
        for runs in seeds:
            tested = [runs[phase].scores[f"{task}/test"] for phase in PHASES]
            columns = np.stack([correct(s).astype(float) for s in tested], axis=1)
            base, tuned, forgotten = columns.mean(0)
            ratio = bootstrap(
                lambda m: forget_ratio(m[..., 1], m[..., 2]), [columns], n_resamples=n_resamples
            )
            probe = runs["tuned"].probe
            trace = np.nan
            if probe is not None and len(columns) > 1 and probe.deviation.any():
                trace = probe.deviation.astype(float).sum() / (len(columns) - 1)
            rows.append(
                {
                    "model": model,
                    "eval_task": task,
                    "seed": runs["tuned"].spec.seed,
                    "n": len(columns),
                    "forget_ratio": ratio.value if np.isfinite(ratio.low) else np.nan,
                    "forgotten": forgotten,
                    "forget_gap": forget_gap(forgotten),
                    "confidence": confidence(tested[1]).mean(),
                    "log_variance": np.log(trace),
                    "tuned": tuned,
                    "base": base,
                }
            )
    return pd.DataFrame(rows)


def example_level(results: Iterable[RunResult]) -> pd.DataFrame:
    """The same for every single test example (paper, section 5).

    Columns: model, eval_task, seed, uid; of the fine-tuned model confidence, log_deviation (natural
    logarithm of the hidden state's squared distance from the task's mean; NaN without a probe),
    tuned_correct; and forgotten_correct, forgotten_confidence.
    """
    parts = []
    for model, task, seeds in _full_size(results):
        for runs in seeds:
            tuned, forgotten = (runs[p].scores[f"{task}/test"] for p in ("tuned", "forgotten"))
            deviation = np.full(len(tuned), np.nan)
            if (probe := runs["tuned"].probe) is not None:
                deviation = np.where(probe.deviation > 0, probe.deviation, np.nan)
            parts.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "eval_task": task,
                        "seed": runs["tuned"].spec.seed,
                        "uid": tuned.uids,
                        "confidence": confidence(tuned),
                        "log_deviation": np.log(deviation.astype(float)),
                        "tuned_correct": correct(tuned),
                        "forgotten_correct": correct(forgotten),
                        "forgotten_confidence": confidence(forgotten),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# --- Figure 5: the order of learning and forgetting ----------------------------------------------


ORDER_THRESHOLD = 0.6  # paper, section 5
# What happens to an example of the forgetting set, by the column of `order` that counts it.
_FATES = ("n", "n_known", "n_never_learned", "n_fell_back", "n_never_forgotten")


def passing_steps(dynamics: Dynamics, threshold: float, direction: str) -> np.ndarray:
    """(N,) the first recorded step at which each example has passed a confidence (paper, Fig. 5).

    direction: "up" (from below to at least the threshold) or "down" (from at least the threshold
        to below it)
    NaN where an example is beyond the threshold before training, and where it never passes.
    """
    if direction not in ("up", "down"):
        raise InputError(
            "direction", expected="'up' or 'down'", found=repr(direction), do="Correct the word."
        )
    above = dynamics.confidence >= threshold  # (S, N)
    beyond = above if direction == "up" else ~above
    passes = beyond.any(0) & ~beyond[0]
    return np.where(passes, np.asarray(dynamics.steps, float)[beyond.argmax(0)], np.nan)


def _steps(runs: Family, threshold: float) -> pd.DataFrame | None:
    """One row an example of the forgetting set: when it is learned and forgotten; why not.

    Columns: uid, learned_step, forgotten_step, and which of `_FATES` it had. None without dynamics.
    """
    tuned, forgotten = runs["tuned"].dynamics, runs["forgotten"].dynamics
    if tuned is None or forgotten is None:
        return None
    place = {uid: i for i, uid in enumerate(tuned.uids)}
    if unknown := [uid for uid in forgotten.uids if uid not in place]:
        raise InputError(
            f"dynamics of {runs['forgotten'].spec}",
            expected="examples that were recorded in fine-tuning too",
            found=f"{len(unknown)} others, first {unknown[0]!r}",
            do="They were made by different versions of the data: recompute the study.",
        )
    order = [place[uid] for uid in forgotten.uids]
    learned = passing_steps(tuned, threshold, "up")[order]
    lost = passing_steps(forgotten, threshold, "down")
    known = tuned.confidence[0, order] >= threshold
    fell_back = forgotten.confidence[0] < threshold
    fates = [known, np.isnan(learned), fell_back, np.isnan(lost)]
    return pd.DataFrame(
        {
            "uid": forgotten.uids,
            "learned_step": learned,
            "forgotten_step": lost,
            "fate": np.select(fates, _FATES[1:], _FATES[0]),
        }
    )


def order(
    results: Iterable[RunResult],
    threshold: float = ORDER_THRESHOLD,
    min_examples: int = 20,
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Whether what is learned first is forgotten last (paper, Fig. 5), one row a model and task.

    threshold: the confidence to pass, up in fine-tuning and down in forgetting
    min_examples: below this, a task has too few that pass both ways (`enough` is False)

    Columns: model, eval_task, and training examples of all seeds: n (pass both ways), n_known (at
    or above the threshold before fine-tuning), n_never_learned, n_fell_back (learned, and below
    again when forgetting starts), n_never_forgotten, which add up to all; rank_correlation with its
    interval; enough. The correlation is Spearman's, of the step passed in fine-tuning and the step
    passed in forgetting; below 0: learned first, forgotten last. It is taken within each seed and
    averaged, weighted by n; the interval resamples examples within each seed.
    """
    rows = []
    for model, task, seeds in _full_size(results):
        found = [s for s in (_steps(runs, threshold) for runs in seeds) if s is not None]
        if not found:
            continue
        fates = pd.concat(found)["fate"]
        numbers = {fate: int((fates == fate).sum()) for fate in _FATES}
        rng = np.random.default_rng(0)
        total, weight = np.zeros(n_resamples + 1), np.zeros(n_resamples + 1)
        for steps in found:
            both = steps[steps["fate"] == "n"]
            if len(both) < 2:
                continue
            x, y = both["learned_step"].to_numpy(), both["forgotten_step"].to_numpy()
            counts = resample_counts(rng, len(both), n_resamples)
            # The first is the sample itself.
            values = rank_correlations(x, y, np.concatenate([np.ones((1, len(both))), counts]))
            defined = np.isfinite(values)
            total[defined] += len(both) * values[defined]
            weight[defined] += len(both)
        values = np.divide(total, weight, out=np.full(len(total), np.nan), where=weight > 0)
        rows.append(
            {
                "model": model,
                "eval_task": task,
                **numbers,
                **_columns("rank_correlation", percentiles(float(values[0]), values[1:])),
                "enough": numbers["n"] >= min_examples,
            }
        )
    return pd.DataFrame(rows)


def order_examples(
    results: Iterable[RunResult], threshold: float = ORDER_THRESHOLD
) -> pd.DataFrame:
    """The examples behind `order`, those that pass the threshold both ways.

    Columns: model, eval_task, seed, uid, learned_step, forgotten_step (optimiser steps).
    """
    parts = []
    for model, task, seeds in _full_size(results):
        for runs in seeds:
            steps = _steps(runs, threshold)
            if steps is not None:
                both = steps[steps["fate"] == "n"].drop(columns="fate")
                seed = runs["tuned"].spec.seed
                parts.append(both.assign(model=model, eval_task=task, seed=seed))
    columns = ["model", "eval_task", "seed", "uid", "learned_step", "forgotten_step"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


# --- Figure 6: probes ----------------------------------------------------------------------------

PROBED_PHASES = ("pre-trained", "fine-tuned", "forgotten")


def probe_accuracy(results: Iterable[RunResult], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """How well a linear probe tells correct from incorrect answers (paper, Fig. 6).

    One row a model, task, phase and layer. Columns: model, eval_task, phase in `PROBED_PHASES`,
    layer, accuracy and control (a probe fitted to shuffled labels), each with its interval, n
    (pairs of question and answer, all seeds), is_paper_layer (the fifth-to-last). An example's
    pairs are resampled together.
    """
    rows = []
    for model, task, seeds in _full_size(results):
        probed = _probed(seeds)
        if not probed:
            continue
        layers, paper_layer = probed[0]["base"].layers, probed[0]["base"].variance_layer
        # (N, phase x (accuracy, control) x layer) for each seed
        groups = [
            np.concatenate(
                [
                    _pair_means(p)
                    for phase in PHASES
                    for p in (found[phase].correct, found[phase].control)
                ],
                axis=1,
            )
            for found in probed
        ]
        means = np.mean([g.mean(0) for g in groups], axis=0)
        rng = np.random.default_rng(0)
        resampled = resampled_means(groups, n_resamples=n_resamples, rng=rng)
        shape = (len(PHASES), 2, len(layers))
        places = np.arange(len(means)).reshape(shape)
        for (i, phase), (j, layer) in product(enumerate(PROBED_PHASES), enumerate(layers)):
            row = {"model": model, "eval_task": task, "phase": phase, "layer": int(layer)}
            for k, name in enumerate(("accuracy", "control")):
                place = places[i, k, j]
                row |= _columns(name, percentiles(float(means[place]), resampled[:, place]))
            n = sum(found["base"].correct[0].size for found in probed)
            rows.append({**row, "n": n, "is_paper_layer": bool(layer == paper_layer)})
    return pd.DataFrame(rows)


def probe_recovery(results: Iterable[RunResult], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Whether a probe is as accurate after forgetting as after fine-tuning (paper, Fig. 6).

    One row a model and task, at the paper's layer. Columns: model, eval_task, n (pairs, all seeds),
    layer, and with their intervals fine_tuned, forgotten (probe accuracies) and difference
    (forgotten less fine_tuned, paired by example; near 0: forgetting is shallow).
    """
    measures: dict[str, Statistic] = {
        "fine_tuned": _column(0),
        "forgotten": _column(1),
        "difference": lambda m: m[..., 1] - m[..., 0],
    }
    rows = []
    for model, task, seeds in _full_size(results):
        probed = _probed(seeds)
        if not probed:
            continue
        layer = probed[0]["tuned"].variance_layer
        groups = [
            np.concatenate(
                [
                    _pair_means(p.correct[p.layers == layer])
                    for p in (found["tuned"], found["forgotten"])
                ],
                axis=1,
            )
            for found in probed
        ]
        row = {
            "model": model,
            "eval_task": task,
            "n": sum(found["tuned"].correct[0].size for found in probed),
            "layer": int(layer),
        }
        for name, interval in _measured(measures, groups, n_resamples).items():
            row |= _columns(name, interval)
        rows.append(row)
    return pd.DataFrame(rows)


def _probed(seeds: Sequence[Family]) -> list[dict[str, ProbeResult]]:
    """The probes of every seed that has one in each phase."""
    probes = [{phase: runs[phase].probe for phase in PHASES} for runs in seeds]
    return [
        {k: p for k, p in found.items() if p is not None}
        for found in probes
        if None not in found.values()
    ]


def _pair_means(right: np.ndarray) -> np.ndarray:
    """(P, N, C) whether pairs are right -> (N, P) share of an example's pairs."""
    return right.mean(-1).T


# --- Figures 1 and 8: single questions, and an evaluated task's mean -----------------------------


def question_confidences(results: Iterable[RunResult]) -> pd.DataFrame:
    """Confidence in the true response in the three phases (paper, Fig. 1), a question a row.

    Columns: model, eval_task, split ("train": in the forgetting set; "test": outside), seed, uid,
    and base, tuned, forgotten: p(true) / (p(true) + p(distractor)) in this phase.
    """
    parts = []
    for model, task, seeds in _full_size(results):
        for runs in seeds:
            for split in ("train", "test"):
                scores = {phase: runs[phase].scores[f"{task}/{split}"] for phase in PHASES}
                named = {
                    "model": model,
                    "eval_task": task,
                    "split": split,
                    "seed": runs["forgotten"].spec.seed,
                    "uid": scores["forgotten"].uids,
                }
                measured = {phase: confidence(found) for phase, found in scores.items()}
                parts.append(pd.DataFrame(named | measured))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


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
            **_columns("mean_ratio", interval),
            "ratio_defined": bool(defined),
        }
        for task, n, interval, defined in zip(
            cross.tasks, cross.n, found, cross.defined, strict=True
        )
    )
