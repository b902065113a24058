"""The paper's claims, each as a test on the tables that the figures are drawn from.

A claim becomes one or more statistics, each with a 95 % interval and a statement about it: that it
is above a threshold, below one, or within plus or minus one. `verdict` is the one rule: "holds"
where the whole interval agrees with the statement, "does not hold" where none of it does, else
"not decided by these data". Missing data, undefined statistics and fewer than `MIN_TASKS` tasks
are not decided either.

Most statistics count tasks, and their intervals are over tasks: would other tasks of this kind show
the same? A study has 4 to 21 of them, and a percentile bootstrap of so few is too narrow: four
tasks in the same order twice have a rank correlation of 1 in every resample. Used instead, as about
right from four tasks on: Student's t for means, Welch's t for differences, Clopper and Pearson's
interval for shares, Bonett and Wright's for rank correlations (`stats.rank_correlation`, which the
figures show too), a jackknife for what is none of these. Tasks that are all alike have no interval:
they do not show how much tasks differ. One statistic alone has the figure's interval over the
examples of these tasks: section 5's pooled effect on single examples.

A rank correlation over the paper's own 21 tasks has an interval of about plus or minus 0.4: a
claim that there is none can be refuted with so few, but hardly be shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from forgetlib import crosstask, regression, stats, tasks
from forgetlib.crosstask import CrossTask
from forgetlib.schema import CHANCE, InputError, require_one_of
from forgetlib.stats import MIN_TASKS, Interval
from forgetlib.tasks import COMMONSENSE, LANGUAGE, SCIENCE

# --- what the paper reports ----------------------------------------------------------------------

# Llama-2-7B, accuracy after forgetting with 1000 examples (paper, Fig. 2 and 7).
PUBLISHED_FORGET_ACCURACY = {
    "piqa": 0.69,
    "sciq": 0.76,
    "rte": 0.50,
    "cb": 0.50,
    "wic": 0.50,
    "qnli": 0.50,
    "boolq": 0.50,
    "wnli": 0.97,
    "arc_easy": 0.86,
    "arc_challenge": 0.50,
}
# The same with 100 examples (paper, Fig. 7).
PUBLISHED_FORGET_ACCURACY_100 = {
    "piqa": 0.71,
    "qnli": 0.71,
    "boolq": 0.77,
    "wnli": 0.97,
    "arc_challenge": 0.66,
}


def beside_published(table: pd.DataFrame) -> pd.DataFrame:
    """Forget accuracy measured here, with its interval, and the paper's where it is published.

    table: from `stats.forgetting`, one row a task. The models differ, so that the pattern over
        tasks can be compared, not the numbers.
    """
    columns = ["model", "eval_task", "forgotten", "forgotten_low", "forgotten_high"]
    _given(table, ["eval_task"], *columns)
    rows = table[columns].copy()
    rows["paper"] = in_the_paper(rows["eval_task"]).map(PUBLISHED_FORGET_ACCURACY)
    return rows


def in_the_paper(names: pd.Series | pd.Index) -> pd.Series | pd.Index:
    """The tasks' names in the paper, which has the hub's rows under the harness's names."""
    return names.str.removesuffix(tasks.HUB_SUFFIX)


def published() -> pd.DataFrame:
    """The published accuracies after forgetting, one row a task.

    Columns: eval_task, family, forgotten and forget_gap (1000 examples), forgotten_100 (100
    examples, NaN where not published).
    """
    table = pd.DataFrame(PUBLISHED_FORGET_ACCURACY.items(), columns=["eval_task", "forgotten"])
    table["family"] = [tasks.get(name + tasks.HUB_SUFFIX).family for name in table["eval_task"]]
    table["forget_gap"] = stats.forget_gap(table["forgotten"].to_numpy())
    table["forgotten_100"] = table["eval_task"].map(PUBLISHED_FORGET_ACCURACY_100)
    return table


@dataclass(frozen=True)
class Claim:
    """What the paper says, and where."""

    id: str
    says: str
    figure: str


CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            "generalization-varies",
            "forgetting often fails to generalise beyond the forgetting set",
            "Fig. 2",
        ),
        Claim(
            "task-family-split",
            "commonsense and science tasks resist, language understanding is forgotten",
            "Fig. 2, 7",
        ),
        Claim(
            "eval-task-determines",
            "the evaluated task, more than the forgotten one, sets how much is forgotten",
            "Fig. 3",
        ),
        Claim(
            "other-tasks-better",
            "many tasks are forgotten more by another task's labels, most by commonsense ones",
            "Fig. 3",
        ),
        Claim("difficulty-not-predictive", "difficulty does not predict forgetting", "Fig. 2, 7"),
        Claim(
            "confidence-and-variance",
            "low confidence and low hidden-state variance predict more forgetting, weakly",
            "Fig. 4",
        ),
        Claim(
            "no-example-level-prediction",
            "neither predicts which examples of a task are forgotten",
            "Sec. 5",
        ),
        Claim("learn-forget-anticorrelated", "what is learned first is forgotten last", "Fig. 5"),
        Claim(
            "probes-recover",
            "a linear probe is about as accurate after forgetting as after fine-tuning",
            "Fig. 6",
        ),
        Claim("not-sample-size", "a smaller forgetting set leaves the pattern intact", "Fig. 7"),
        Claim(
            "robust-to-method-and-model",
            "flipped labels and other models show the same pattern over tasks",
            "Fig. 8, 9",
        ),
    )
}

# --- the rule ------------------------------------------------------------------------------------

HOLDS, DOES_NOT_HOLD, NOT_DECIDED = "holds", "does not hold", "not decided by these data"
ABOVE, BELOW, WITHIN = "above", "below", "within +-"

# Thresholds. The paper gives none: these are ours.
LARGE_GAP = 0.1  # a fifth of the way from chance to perfect: not the noise of a test set
HALF = 0.5  # "fails to generalise": less than half is lost; "mostly": over half of the variance
OFTEN = 0.25  # "often", "many": more than one task in four
NO_CORRELATION = 0.3  # over tasks: less than a tenth of the ranks' variance
# Rank-biserial, of examples: of a lost question and one that is not, the lost one has the higher
# value with a chance between 0.4 and 0.6, where 0.5 is a coin.
NO_EXAMPLE_EFFECT = 0.2
PROBE_LOSS = -0.25  # "about as accurate": a quarter of the height above chance lost at most
SAME_PATTERN = 0.5  # rank correlation of two patterns over tasks: usually called large


def verdict(statement: str, threshold: float, interval: Interval) -> str:
    """Whether an interval agrees with "above" or "below" the threshold, or "within +-" it."""
    require_one_of("statement of a claim", statement, (ABOVE, BELOW, WITHIN))
    low, high = interval.low, interval.high
    agrees, disagrees = {
        ABOVE: (low > threshold, high < threshold),
        BELOW: (high < threshold, low > threshold),
        WITHIN: (-threshold < low and high < threshold, low > threshold or high < -threshold),
    }[statement]
    if np.isnan(low) or np.isnan(high):
        return NOT_DECIDED
    return HOLDS if agrees else DOES_NOT_HOLD if disagrees else NOT_DECIDED


# --- intervals over tasks ------------------------------------------------------------------------

TAIL = (1 - stats.CONFIDENCE_LEVEL) / 2


def mean_interval(values: np.ndarray) -> Interval:
    """Mean of (N,) values, one a task, with Student's t interval."""
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(values.mean())
    if n < MIN_TASKS:
        return Interval(mean, np.nan, np.nan)
    half = float(scipy.stats.t.ppf(1 - TAIL, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return stats.around(mean, half)


def difference_interval(first: np.ndarray, second: np.ndarray) -> Interval:
    """Mean of the first tasks' values minus that of the second's, with Welch's t interval."""
    sizes = np.array([len(first), len(second)])
    if sizes.min() == 0:
        return Interval(np.nan, np.nan, np.nan)
    difference = float(first.mean() - second.mean())
    if sizes.min() < 2 or sizes.sum() < MIN_TASKS:
        return Interval(difference, np.nan, np.nan)
    errors = np.array([first.var(ddof=1), second.var(ddof=1)]) / sizes  # squared
    if errors.sum() == 0:
        return Interval(difference, np.nan, np.nan)
    freedom = errors.sum() ** 2 / (errors**2 / (sizes - 1)).sum()
    half = float(scipy.stats.t.ppf(1 - TAIL, freedom) * np.sqrt(errors.sum()))
    return stats.around(difference, half)


def relative_interval(changes: np.ndarray, heights: np.ndarray) -> Interval:
    """Mean of (N,) changes by the mean of (N,) heights, one a task, with a jackknife's interval."""
    n = len(changes)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    value = float(changes.mean() / heights.mean())
    if n < MIN_TASKS:
        return Interval(value, np.nan, np.nan)
    without_each = (changes.sum() - changes) / (heights.sum() - heights)
    return stats.jackknife(value, without_each, n - 1)


def share_interval(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, threshold: float
) -> Interval:
    """Share of N tasks above a threshold, given their values and the values' intervals, each (N,).

    The lower end counts the tasks whose whole interval is above the threshold, the upper end all
    but those whose whole interval is below it: tasks that sampling may have put on either side
    decide nothing. Each end is that of Clopper and Pearson's interval for so many of N tasks.
    """
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    share = float((values > threshold).mean())
    if n < MIN_TASKS:
        return Interval(share, np.nan, np.nan)
    surely, possibly = int((low > threshold).sum()), n - int((high <= threshold).sum())

    def exact(count: int) -> tuple[float, float]:
        found = scipy.stats.binomtest(count, n).proportion_ci(stats.CONFIDENCE_LEVEL)
        return float(found.low), float(found.high)

    return Interval(share, exact(surely)[0], exact(possibly)[1])


# --- the claims ----------------------------------------------------------------------------------
# Each takes the tables it needs, None where there is none, and gives one row a statistic: claim,
# says, statistic (in words), value, low, high, n and what it counts (unit), statement and
# threshold, verdict, paper (the same statistic of the published numbers, else NaN), figure.


def _row(
    claim: str,
    statistic: str,
    statement: str,
    threshold: float,
    interval: Interval,
    n: int,
    *,
    unit: str = "tasks",
    paper: float = np.nan,
) -> pd.DataFrame:
    row = {
        "claim": claim,
        "says": CLAIMS[claim].says,
        "statistic": statistic,
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "unit": unit,
        "statement": statement,
        "threshold": threshold,
        "verdict": verdict(statement, threshold, interval),
        "paper": paper,
        "figure": CLAIMS[claim].figure,
    }
    return pd.DataFrame([row])


def _require(table: pd.DataFrame, *columns: str) -> None:
    do = "Pass the table that the claim's docstring names."
    stats.require_columns("table of a claim", table, columns, do)


def _given(table: pd.DataFrame | None, key: Sequence[str], *others: str) -> pd.DataFrame | None:
    """The table with these columns, or None where it is empty; every key has to be there once."""
    if table is None or table.empty:
        return None
    _require(table, *key, *others)
    if table.duplicated(key).any():
        twice = table.loc[table.duplicated(key), key].iloc[0].to_dict()
        raise InputError(
            "table of a claim",
            expected=f"one row a {' and '.join(key)}",
            found=f"several for {twice}",
            do="Pass the rows of one model, of one study.",
        )
    return table


def _interval(row: Mapping[str, Any] | pd.Series, measure: str) -> Interval:
    return Interval(*(float(row[column]) for column in _columns(measure)))


def _numbers(table: pd.DataFrame | None, *columns: str) -> list[np.ndarray]:
    """The columns, each (N,), of the N rows where all of them are defined; N = 0 without table."""
    if table is None:
        return [np.zeros(0) for _ in columns]
    _require(table, *columns)
    return list(table[list(columns)].astype(float).dropna().to_numpy().T)


def _columns(measure: str) -> list[str]:
    return [f"{measure}{end}" for end in ("", "_low", "_high")]


def _with_ratio(own: pd.DataFrame | None) -> pd.DataFrame | None:
    """The tasks that had something to forget."""
    table = _given(own, ["eval_task"], "ratio_defined")
    return None if table is None else table[table["ratio_defined"].astype(bool)]


def _with_families(table: pd.DataFrame, described: pd.DataFrame | None) -> pd.DataFrame:
    """The table with the family of each task; NaN where it is not described."""
    known = {}
    if described is not None:
        _require(described, "eval_task", "family")
        known = dict(zip(described["eval_task"], described["family"], strict=True))
    return table.assign(family=table["eval_task"].map(known))


def generalization_varies(own: pd.DataFrame | None) -> pd.DataFrame:
    """Share of tasks that keep a large forget gap; share of tasks that lose less than half.

    own: from `stats.forgetting`. Tasks with nothing to forget are left out (`ratio_defined`): their
    small gap says nothing. The first can be compared with the paper, of whose tasks ten have a
    published accuracy. But a gap is also small where little was learned: hence the second.
    """
    table = _with_ratio(own)
    gap, gap_low, gap_high = _numbers(table, *_columns("forget_gap"))
    ratio, ratio_low, ratio_high = _numbers(table, *_columns("forget_ratio"))
    (theirs,) = _numbers(published(), "forget_gap")
    by_gap = _row(
        "generalization-varies",
        f"share of tasks with a forget gap above {LARGE_GAP}",
        ABOVE,
        OFTEN,
        share_interval(gap, gap_low, gap_high, LARGE_GAP),
        len(gap),
        paper=share_interval(theirs, theirs, theirs, LARGE_GAP).value,
    )
    by_ratio = _row(
        "generalization-varies",
        f"share of tasks with a forget ratio below {HALF}",
        ABOVE,
        OFTEN,
        share_interval(-ratio, -ratio_high, -ratio_low, -HALF),
        len(ratio),
    )
    return pd.concat([by_gap, by_ratio], ignore_index=True)


def task_family_split(own: pd.DataFrame | None, described: pd.DataFrame | None) -> pd.DataFrame:
    """What commonsense and science tasks keep more than language understanding, by gap and ratio.

    own: from `stats.forgetting`, without the tasks that have nothing to forget
    described: from `tasks.describe`

    As in `generalization_varies`, the gap can be compared with the paper, and the ratio does not
    take little learning for much forgetting.
    """
    resisting, forgotten = (COMMONSENSE, SCIENCE), (LANGUAGE,)

    def sides(table: pd.DataFrame, measure: str, *families: tuple[str, ...]) -> list[np.ndarray]:
        return [_numbers(table[table["family"].isin(f)], measure)[0] for f in families]

    table = _with_ratio(own)
    gaps = ratios = [np.zeros(0), np.zeros(0)]
    if table is not None:
        table = _with_families(table, described)
        gaps = sides(table, "forget_gap", resisting, forgotten)
        ratios = sides(table, "forget_ratio", forgotten, resisting)
    by_gap = _row(
        "task-family-split",
        "mean forget gap, commonsense and science minus language understanding",
        ABOVE,
        0.0,
        difference_interval(*gaps),
        sum(map(len, gaps)),
        paper=difference_interval(*sides(published(), "forget_gap", resisting, forgotten)).value,
    )
    by_ratio = _row(
        "task-family-split",
        "mean forget ratio, language understanding minus commonsense and science",
        ABOVE,
        0.0,
        difference_interval(*ratios),
        sum(map(len, ratios)),
    )
    return pd.concat([by_gap, by_ratio], ignore_index=True)


def eval_task_determines(cross: CrossTask | None) -> pd.DataFrame:
    """The evaluated task's share of the forget ratio's variance: most of it.

    cross: from `crosstask.cross_task`. Share and interval (over tasks) are those of
    `crosstask.variance_shares`.
    """
    found, n = Interval(np.nan, np.nan, np.nan), 0
    if cross is not None:
        row = crosstask.variance_shares(cross).set_index("source").loc["evaluated task"]
        n = int(cross.defined.sum())
        ends = (row["tasks_low"], row["tasks_high"]) if n >= MIN_TASKS else (np.nan, np.nan)
        found = Interval(float(row["share"]), *map(float, ends))
    return _row(
        "eval-task-determines",
        "share of the forget ratio's variance that the evaluated task explains",
        ABOVE,
        HALF,
        found,
        n,
    )


def trigger_strength(cross: CrossTask) -> pd.DataFrame:
    """How much more than the average task each one's labels make other tasks forget (Fig. 3).

    The column effects of ratio = evaluated task + forgotten task, fitted by least squares to the
    pairs of different tasks; their mean is 0. Plain means of columns without the diagonal would not
    do: each column leaves another row out, so that a task which resists forgetting would look like
    a strong trigger. NaN with fewer than two defined rows, or fewer than three tasks.

    Columns: eval_task (the one whose labels were changed), strength (in forget ratio).
    """
    k = len(cross.tasks)
    strength = np.full(k, np.nan)
    used = cross.defined[:, None] & ~np.eye(k, dtype=bool)
    if k > 2 and cross.defined.sum() > 1:
        row, column = np.nonzero(used)
        design = np.hstack([np.eye(k)[row], np.eye(k)[column]])
        effects = np.linalg.lstsq(design, cross.forget_ratio[used], rcond=None)[0][k:]
        strength = effects - effects.mean()
    return pd.DataFrame({"eval_task": cross.tasks, "strength": strength})


def other_tasks_better(cross: CrossTask | None, described: pd.DataFrame | None) -> pd.DataFrame:
    """Share of tasks forgotten more by another's labels; strength of commonsense as a trigger.

    cross: from `crosstask.cross_task`
    described: from `tasks.describe`

    The best of many other tasks would beat a task's own labels by chance alone, so it is picked on
    other data (`crosstask.own_against_others`). With one seed these are other examples of the same
    runs, of which one beats a task's own by chance: then nothing is decided. For the second row
    see `trigger_strength`.
    """
    better = low = high = commonsense = others = np.zeros(0)
    if cross is not None:
        differences = crosstask.own_against_others(cross)
        better, low, high = _numbers(differences, *_columns("difference"))
        triggers = _with_families(trigger_strength(cross), described).dropna()
        is_commonsense = triggers["family"] == COMMONSENSE
        (commonsense,) = _numbers(triggers[is_commonsense], "strength")
        (others,) = _numbers(triggers[~is_commonsense], "strength")
    found = share_interval(better, low, high, 0.0)
    if cross is not None and cross.n_seeds == 1:
        found = Interval(found.value, np.nan, np.nan)
    share = _row(
        "other-tasks-better",
        "share of tasks forgotten more by the best other task's labels than by their own",
        ABOVE,
        OFTEN,
        found,
        len(better),
    )
    trigger = _row(
        "other-tasks-better",
        "forget ratio of other tasks, by commonsense labels minus by other labels",
        ABOVE,
        0.0,
        difference_interval(commonsense, others),
        len(commonsense) + len(others),
    )
    return pd.concat([share, trigger], ignore_index=True)


def _with_forget_ratio(predictors: pd.DataFrame | None, predictor: str) -> tuple[Interval, int]:
    """Rank correlation over tasks of a predictor with the forget ratio, and the number of tasks."""
    table = _given(predictors, ["eval_task"])
    if table is None:
        return Interval(np.nan, np.nan, np.nan), 0
    (found,) = regression.correlations(table, [predictor]).to_dict("records")
    return _interval(found, "rank_correlation"), found["n_tasks"]


def difficulty_not_predictive(predictors: pd.DataFrame | None) -> pd.DataFrame:
    """Rank correlation over tasks of fine-tuned accuracy with the forget ratio: none.

    predictors: from `measures.predictors`. The fine-tuned accuracy is in the ratio too, so that its
    sampling error alone correlates the two a little where the test set is small.
    """
    found, n = _with_forget_ratio(predictors, "tuned")
    statistic = "rank correlation of forget ratio and fine-tuned accuracy"
    return _row("difficulty-not-predictive", statistic, WITHIN, NO_CORRELATION, found, n)


def confidence_and_variance(predictors: pd.DataFrame | None) -> pd.DataFrame:
    """Rank correlation over tasks of confidence, and of variance, with the forget ratio: below 0.

    predictors: from `measures.predictors`
    """
    rows = []
    for predictor, words in (
        ("confidence", "confidence"),
        ("log_variance", "hidden-state variance"),
    ):
        found, n = _with_forget_ratio(predictors, predictor)
        statistic = f"rank correlation of forget ratio and {words}"
        rows.append(_row("confidence-and-variance", statistic, BELOW, 0.0, found, n))
    return pd.concat(rows, ignore_index=True)


def no_example_level_prediction(examples: pd.DataFrame | None) -> pd.DataFrame:
    """Whether a lost example had another confidence, or distance, than one that was not: no.

    examples: from `measures.example_level`. Two rows a predictor, of `regression.example_level`:
    the effect (rank-biserial) within tasks, pooled, with its interval over these tasks' examples;
    and, as opposite effects would cancel there, the mean over tasks of the squared effect. Of that,
    the square of its standard error (a quarter of the interval's width, about) is subtracted, which
    sampling error adds.
    """
    table = _given(examples, ["seed", "uid"])
    found = None if table is None else regression.example_level(table).set_index("eval_task")
    rows = []
    for predictor, words in (
        ("confidence", "confidence"),
        ("log_deviation", "distance from the mean hidden state"),
    ):
        pooled, n = Interval(np.nan, np.nan, np.nan), 0
        of_tasks = None
        if found is not None:
            of = found[found["predictor"] == predictor]
            of_tasks = of.drop(regression.POOLED)
            pooled = _interval(of.loc[regression.POOLED], "rank_biserial")
            if of_tasks["rank_biserial"].count() < MIN_TASKS:
                pooled = Interval(pooled.value, np.nan, np.nan)
            n = int(of.loc[regression.POOLED, "n"])
        effect, low, high = _numbers(of_tasks, *_columns("rank_biserial"))
        errors = (high - low) / (2 * scipy.stats.norm.ppf(1 - TAIL))
        squares = effect**2 - errors**2
        claim = "no-example-level-prediction"
        statistic = f"rank-biserial correlation within tasks of being lost and {words}"
        limits = (WITHIN, NO_EXAMPLE_EFFECT)
        rows.append(_row(claim, statistic, *limits, pooled, n, unit="examples"))
        statistic = f"mean over tasks of its square, without sampling error ({words})"
        square = round(NO_EXAMPLE_EFFECT**2, 4)
        rows.append(_row(claim, statistic, BELOW, square, mean_interval(squares), len(squares)))
    return pd.concat(rows, ignore_index=True)


def learn_forget_anticorrelated(order: pd.DataFrame | None) -> pd.DataFrame:
    """Mean over tasks of the rank correlation of learning step and forgetting step: below 0.

    order: from `measures.order`; tasks with too few qualifying examples are left out (`enough`).
    Learned first is a small step and forgotten last a large one, hence the sign.
    """
    table = _given(order, ["eval_task"], "enough")
    table = None if table is None else table[table["enough"].astype(bool)]
    (correlation,) = _numbers(table, "rank_correlation")
    statistic = "mean rank correlation of the steps of learning and of forgetting"
    found, n = mean_interval(correlation), len(correlation)
    return _row("learn-forget-anticorrelated", statistic, BELOW, 0.0, found, n)


def probes_recover(probes: pd.DataFrame | None) -> pd.DataFrame:
    """What a probe's accuracy loses by forgetting, by its height above chance after fine-tuning.

    probes: from `measures.probe_recovery`. Mean difference over tasks by mean height: 5 points are
    little of a probe that is right in 90 %, and all of one that is right in 55 %. A task counts
    where the interval of the probe's accuracy after fine-tuning is above chance: else there is
    nothing that it could lose.
    """
    table = _given(probes, ["eval_task"], "fine_tuned_low")
    table = None if table is None else table[table["fine_tuned_low"] > CHANCE]
    difference, fine_tuned = _numbers(table, "difference", "fine_tuned")
    statistic = "change of probe accuracy by forgetting, by its height above chance before"
    found, n = relative_interval(difference, fine_tuned - CHANCE), len(difference)
    return _row("probes-recover", statistic, ABOVE, PROBE_LOSS, found, n)


def not_sample_size(sizes: pd.DataFrame | None) -> pd.DataFrame:
    """Rank correlation over tasks, with the smallest and the largest size, of accuracy and ratio.

    sizes: from `stats.forgetting` of runs with several sizes. Left out are tasks with nothing to
    forget, and tasks so small that both forgetting sets are the same. The accuracies can be
    compared with the paper, of whose tasks five have published ones for both sizes. But accuracies
    have the same order already where nothing is forgotten: hence the forget ratios.
    """
    table = _given(
        sizes, ["eval_task", "size"], "ratio_defined", "n_train", "forgotten", "forget_ratio"
    )
    both: pd.DataFrame | None = None
    words = "small and full forgetting sets"
    if table is not None and table["size"].min() < table["size"].max():
        least, most = table["size"].min(), table["size"].max()
        words = f"{least} and {most} examples"
        first, last = (table[table["size"] == n].set_index("eval_task") for n in (least, most))
        both = first.join(last, how="inner", rsuffix="_most")
        both = both[both["ratio_defined"].astype(bool) & (both["n_train"] < both["n_train_most"])]
    theirs = stats.rank_correlation(*_numbers(published(), "forgotten_100", "forgotten")).value
    rows = []
    for measure, name, paper in (
        ("forgotten", "forget accuracy", theirs),
        ("forget_ratio", "forget ratio", np.nan),
    ):
        small, large = _numbers(both, measure, f"{measure}_most")
        statistic = f"rank correlation of {name} with {words}"
        found, n = stats.rank_correlation(small, large), len(small)
        limits = (ABOVE, SAME_PATTERN)
        rows.append(_row("not-sample-size", statistic, *limits, found, n, paper=paper))
    return pd.concat(rows, ignore_index=True)


def robust_to_method_and_model(
    cross: CrossTask | None,
    flipped: CrossTask | None,
    crosses_of_models: Sequence[CrossTask] = (),
) -> pd.DataFrame:
    """Rank correlation over evaluated tasks of the mean ratio: two conditions, then two models.

    cross, flipped: from `crosstask.cross_task`, random and flipped labels of the same model
    crosses_of_models: random labels, one a model; every pair of them has its row
    """
    wanted = [(cross, "random"), (flipped, "flipped"), *((c, "random") for c in crosses_of_models)]
    for given, condition in wanted:
        if given is not None and given.condition != condition:
            raise InputError(
                "matrices of a claim",
                expected=f"{condition} labels in this place",
                found=f"{given.model}, {given.condition}",
                do="Pass cross, flipped and crosses_of_models as verdicts names them.",
            )
    rows = []
    for crosses, what in (
        ([c for c in (cross, flipped) if c is not None], "random and flipped labels"),
        (list(crosses_of_models), "two models"),
    ):
        agreement = crosstask.model_agreement(crosses).to_dict("records")
        found = [
            (f"{row['a']}; {row['b']}", _interval(row, "rank_correlation"), row["n"])
            for row in agreement
        ]
        for pair, interval, n in found or [(what, Interval(np.nan, np.nan, np.nan), 0)]:
            statistic = f"rank correlation of the evaluated tasks' mean forget ratios ({pair})"
            limits = (ABOVE, SAME_PATTERN)
            rows.append(_row("robust-to-method-and-model", statistic, *limits, interval, n))
    return pd.concat(rows, ignore_index=True)


def verdicts(
    *,
    described: pd.DataFrame | None = None,
    own: pd.DataFrame | None = None,
    cross: CrossTask | None = None,
    flipped: CrossTask | None = None,
    predictors: pd.DataFrame | None = None,
    examples: pd.DataFrame | None = None,
    order: pd.DataFrame | None = None,
    probes: pd.DataFrame | None = None,
    sizes: pd.DataFrame | None = None,
    crosses_of_models: Sequence[CrossTask] = (),
) -> pd.DataFrame:
    """Every claim, one row a statistic; what is not given leaves its claims undecided.

    described: from `tasks.describe`; own, sizes: `stats.forgetting`; cross, flipped and
    crosses_of_models: `crosstask.cross_task`; predictors: `measures.predictors`; examples:
    `measures.example_level`; order: `measures.order`; probes: `measures.probe_recovery`
    """
    found = (
        generalization_varies(own),
        task_family_split(own, described),
        eval_task_determines(cross),
        other_tasks_better(cross, described),
        difficulty_not_predictive(predictors),
        confidence_and_variance(predictors),
        no_example_level_prediction(examples),
        learn_forget_anticorrelated(order),
        probes_recover(probes),
        not_sample_size(sizes),
        robust_to_method_and_model(cross, flipped, crosses_of_models),
    )
    return pd.concat(found, ignore_index=True)
