"""The paper's claims, each as a test on the tables that the figures are drawn from.

A claim becomes one or two statistics, each with a 95 % interval and a statement about it: that it
is above a threshold, below one, or within plus or minus one. `verdict` is the one rule: "holds"
where the whole interval agrees with the statement, "does not hold" where none of it does, else
"not decided by these data". Missing data, undefined statistics and fewer than `MIN_TASKS` tasks
are not decided either.

Most statistics count tasks, and their intervals are over tasks: would other tasks of this kind show
the same? A study has 4 to 21 of them, and a percentile bootstrap of so few is too narrow: four
tasks in the same order twice have a rank correlation of 1 in every resample. Used instead, as about
right from four tasks on: Student's t for means, Welch's t for differences, Clopper and Pearson's
interval for shares, Bonett and Wright's for rank correlations (`stats.rank_correlation`, which the
figures show too). Where the figure's interval is over examples (Fig. 3's shares of variance,
section 5's single examples), it is used here too.

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

from forgetlib import crosstask, regression, stats
from forgetlib.crosstask import CrossTask
from forgetlib.schema import CHANCE, InputError
from forgetlib.stats import MIN_TASKS, Interval
from forgetlib.tasks import COMMONSENSE, LANGUAGE, READING, SCIENCE

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
PUBLISHED_FAMILY = {
    "piqa": COMMONSENSE,
    "sciq": SCIENCE,
    "rte": LANGUAGE,
    "cb": LANGUAGE,
    "wic": LANGUAGE,
    "qnli": LANGUAGE,
    "boolq": READING,
    "wnli": LANGUAGE,
    "arc_easy": SCIENCE,
    "arc_challenge": SCIENCE,
}


def beside_published(table: pd.DataFrame) -> pd.DataFrame:
    """Forget accuracy measured here, with its interval, and the paper's where it is published.

    table: from `stats.forgetting`. The models differ, so that the pattern over tasks can be
    compared, not the numbers.
    """
    columns = ["model", "eval_task", "forgotten", "forgotten_low", "forgotten_high"]
    rows = table[columns].copy()
    rows["paper"] = rows["eval_task"].map(PUBLISHED_FORGET_ACCURACY)
    return rows


def published() -> pd.DataFrame:
    """The published accuracies after forgetting, one row a task.

    Columns: eval_task, family, forgotten and forget_gap (1000 examples), forgotten_100 (100
    examples, NaN where not published).
    """
    table = pd.DataFrame(PUBLISHED_FORGET_ACCURACY.items(), columns=["eval_task", "forgotten"])
    table["family"] = table["eval_task"].map(PUBLISHED_FAMILY)
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
OFTEN = 0.25  # "often", "many": more than one task in four
NO_CORRELATION = 0.3  # over tasks: less than a tenth of the ranks' variance
NO_EXAMPLE_CORRELATION = 0.1  # over examples, of which there are many: a hundredth
PROBE_LOSS = -0.05  # "about as accurate": not more than 5 points lost
SAME_PATTERN = 0.5  # rank correlation of two patterns over tasks: usually called large


def verdict(statement: str, threshold: float, interval: Interval) -> str:
    """Whether an interval agrees with "above" or "below" the threshold, or "within +-" it."""
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

NAN = float("nan")
TAIL = (1 - stats.CONFIDENCE_LEVEL) / 2


def mean_interval(values: np.ndarray) -> Interval:
    """Mean of (N,) values, one a task, with Student's t interval."""
    n = len(values)
    if n == 0:
        return Interval(NAN, NAN, NAN)
    mean = float(values.mean())
    if n < MIN_TASKS:
        return Interval(mean, NAN, NAN)
    half = float(scipy.stats.t.ppf(1 - TAIL, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def difference_interval(first: np.ndarray, second: np.ndarray) -> Interval:
    """Mean of the first tasks' values minus that of the second's, with Welch's t interval."""
    sizes = np.array([len(first), len(second)])
    if sizes.min() == 0:
        return Interval(NAN, NAN, NAN)
    difference = float(first.mean() - second.mean())
    if sizes.min() < 2 or sizes.sum() < MIN_TASKS:
        return Interval(difference, NAN, NAN)
    errors = np.array([first.var(ddof=1), second.var(ddof=1)]) / sizes  # squared
    if errors.sum() == 0:
        return Interval(difference, difference, difference)
    freedom = errors.sum() ** 2 / (errors**2 / (sizes - 1)).sum()
    half = float(scipy.stats.t.ppf(1 - TAIL, freedom) * np.sqrt(errors.sum()))
    return Interval(difference, difference - half, difference + half)


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
        return Interval(NAN, NAN, NAN)
    share = float((values > threshold).mean())
    if n < MIN_TASKS:
        return Interval(share, NAN, NAN)
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
    paper: float = NAN,
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


def _given(table: pd.DataFrame | None, *key: str) -> pd.DataFrame | None:
    """The table, or None where it is empty; every `key` has to be there once."""
    if table is None or table.empty:
        return None
    if table.duplicated([*key]).any():
        twice = table.loc[table.duplicated([*key]), [*key]].iloc[0].to_dict()
        raise InputError(
            "table of a claim",
            expected=f"one row a {' and '.join(key)}",
            found=f"several for {twice}",
            do="Pass the rows of one model, of one study.",
        )
    return table


def _interval(row: Mapping[str, Any] | pd.Series, measure: str) -> Interval:
    return Interval(*(float(row[f"{measure}{end}"]) for end in ("", "_low", "_high")))


def _numbers(table: pd.DataFrame | None, *columns: str) -> list[np.ndarray]:
    """The columns, each (N,), of the N rows where all of them are defined; N = 0 without table."""
    if table is None:
        return [np.zeros(0) for _ in columns]
    return list(table[list(columns)].astype(float).dropna().to_numpy().T)


def _with_families(table: pd.DataFrame, described: pd.DataFrame | None) -> pd.DataFrame:
    """The table with the family of each task; NaN where it is not described."""
    known = {} if described is None else described.set_index("eval_task")["family"].to_dict()
    return table.assign(family=table["eval_task"].map(known))


def generalization_varies(own: pd.DataFrame | None) -> pd.DataFrame:
    """Share of tasks that keep a large forget gap.

    own: from `stats.forgetting`. Tasks with nothing to forget are left out (`ratio_defined`): their
    small gap says nothing. The paper's number is of the ten tasks whose accuracy is published.
    """
    table = _given(own, "eval_task")
    table = None if table is None else table[table["ratio_defined"].astype(bool)]
    gap, low, high = _numbers(table, "forget_gap", "forget_gap_low", "forget_gap_high")
    (theirs,) = _numbers(published(), "forget_gap")
    return _row(
        "generalization-varies",
        f"share of tasks with a forget gap above {LARGE_GAP}",
        ABOVE,
        OFTEN,
        share_interval(gap, low, high, LARGE_GAP),
        len(gap),
        paper=share_interval(theirs, theirs, theirs, LARGE_GAP).value,
    )


def task_family_split(own: pd.DataFrame | None, described: pd.DataFrame | None) -> pd.DataFrame:
    """Mean forget gap of commonsense and science tasks minus that of language understanding.

    own: from `stats.forgetting`, without the tasks that have nothing to forget
    described: from `tasks.describe`
    """

    def sides(table: pd.DataFrame) -> list[np.ndarray]:
        families = ((COMMONSENSE, SCIENCE), (LANGUAGE,))
        return [_numbers(table[table["family"].isin(f)], "forget_gap")[0] for f in families]

    table = _given(own, "eval_task")
    ours = [np.zeros(0), np.zeros(0)]
    if table is not None:
        ours = sides(_with_families(table[table["ratio_defined"].astype(bool)], described))
    return _row(
        "task-family-split",
        "mean forget gap, commonsense and science minus language understanding",
        ABOVE,
        0.0,
        difference_interval(*ours),
        sum(map(len, ours)),
        paper=difference_interval(*sides(published())).value,
    )


def eval_task_determines(cross: CrossTask | None) -> pd.DataFrame:
    """The evaluated task's share of the forget ratio's variance minus the forgotten task's.

    cross: from `crosstask.cross_task`. The interval is over examples (`crosstask.variance_shares`).
    """
    found, n = Interval(NAN, NAN, NAN), 0
    if cross is not None:
        shares = crosstask.variance_shares(cross).set_index("source")
        found = _interval(shares.loc["evaluated - forgotten"], "share")
        if cross.defined.sum() < MIN_TASKS:
            found = Interval(found.value, NAN, NAN)
        n = int(cross.defined.sum()) * len(cross.tasks)
    return _row(
        "eval-task-determines",
        "share of variance by evaluated task minus that by forgotten task",
        ABOVE,
        0.0,
        found,
        n,
        unit="pairs",
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
    strength = np.full(k, NAN)
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

    The differences behind the first row are cross-fitted (`crosstask.own_against_others`): the best
    of many other tasks would beat a task's own labels by chance alone. For the second row see
    `trigger_strength`.
    """
    better = low = high = commonsense = others = np.zeros(0)
    if cross is not None:
        columns = ("difference", "difference_low", "difference_high")
        better, low, high = _numbers(crosstask.own_against_others(cross), *columns)
        triggers = _with_families(trigger_strength(cross), described).dropna()
        is_commonsense = triggers["family"] == COMMONSENSE
        (commonsense,) = _numbers(triggers[is_commonsense], "strength")
        (others,) = _numbers(triggers[~is_commonsense], "strength")
    share = _row(
        "other-tasks-better",
        "share of tasks forgotten more by the best other task's labels than by their own",
        ABOVE,
        OFTEN,
        share_interval(better, low, high, 0.0),
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
    table = _given(predictors, "eval_task", "seed")
    if table is None:
        return Interval(NAN, NAN, NAN), 0
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
    """Rank correlation, within tasks, of both predictors with being forgotten: none.

    examples: from `measures.example_level`. Correlation and interval are those of
    `regression.example_level`, pooled over tasks, over the examples of these tasks.
    """
    table = _given(examples, "seed", "uid")
    found = None if table is None else regression.example_level(table).set_index("eval_task")
    rows = []
    for predictor, words in (
        ("confidence", "confidence"),
        ("log_deviation", "distance from the mean hidden state"),
    ):
        interval, n = Interval(NAN, NAN, NAN), 0
        if found is not None:
            of = found[found["predictor"] == predictor]
            interval = _interval(of.loc[regression.POOLED], "rank_correlation")
            if of["rank_correlation"].drop(regression.POOLED).count() < MIN_TASKS:
                interval = Interval(interval.value, NAN, NAN)
            n = int(of.loc[regression.POOLED, "n"])
        statistic = f"rank correlation within tasks of being forgotten and {words}"
        limits = (WITHIN, NO_EXAMPLE_CORRELATION)
        rows.append(
            _row("no-example-level-prediction", statistic, *limits, interval, n, unit="examples")
        )
    return pd.concat(rows, ignore_index=True)


def learn_forget_anticorrelated(order: pd.DataFrame | None) -> pd.DataFrame:
    """Mean over tasks of the rank correlation of learning step and forgetting step: below 0.

    order: from `measures.order`; tasks with too few qualifying examples are left out (`enough`).
    Learned first is a small step and forgotten last a large one, hence the sign.
    """
    table = _given(order, "eval_task")
    table = None if table is None else table[table["enough"].astype(bool)]
    (correlation,) = _numbers(table, "rank_correlation")
    statistic = "mean rank correlation of the steps of learning and of forgetting"
    found, n = mean_interval(correlation), len(correlation)
    return _row("learn-forget-anticorrelated", statistic, BELOW, 0.0, found, n)


def probes_recover(probes: pd.DataFrame | None) -> pd.DataFrame:
    """Mean over tasks of the probe's accuracy after forgetting minus after fine-tuning.

    probes: from `measures.probe_recovery`. A task counts where the interval of the probe's accuracy
    after fine-tuning is above chance: else there is nothing that it could lose.
    """
    table = _given(probes, "eval_task")
    table = None if table is None else table[table["fine_tuned_low"] > CHANCE]
    (difference,) = _numbers(table, "difference")
    statistic = "mean probe accuracy after forgetting minus after fine-tuning"
    found, n = mean_interval(difference), len(difference)
    return _row("probes-recover", statistic, ABOVE, PROBE_LOSS, found, n)


def not_sample_size(sizes: pd.DataFrame | None) -> pd.DataFrame:
    """Rank correlation over tasks of forget accuracy with the smallest and the largest size.

    sizes: from `stats.forgetting` of runs with several sizes. Left out are tasks with nothing to
    forget, and tasks so small that both forgetting sets are the same. The paper's number is of the
    five tasks whose accuracy is published for both sizes.
    """
    table = _given(sizes, "eval_task", "size")
    small = large = np.zeros(0)
    statistic = "rank correlation of forget accuracy with small and full forgetting sets"
    if table is not None and table["size"].min() < table["size"].max():
        least, most = table["size"].min(), table["size"].max()
        statistic = f"rank correlation of forget accuracy with {least} and {most} examples"
        first, last = (table[table["size"] == n].set_index("eval_task") for n in (least, most))
        both = first.join(last, how="inner", rsuffix="_most")
        differ = both["ratio_defined"].astype(bool) & (both["n_train"] < both["n_train_most"])
        small, large = _numbers(both[differ], "forgotten", "forgotten_most")
    theirs = _numbers(published(), "forgotten_100", "forgotten")
    return _row(
        "not-sample-size",
        statistic,
        ABOVE,
        SAME_PATTERN,
        stats.rank_correlation(small, large),
        len(small),
        paper=stats.rank_correlation(*theirs).value,
    )


def robust_to_method_and_model(
    cross: CrossTask | None,
    flipped: CrossTask | None,
    crosses_of_models: Sequence[CrossTask] = (),
) -> pd.DataFrame:
    """Rank correlation over evaluated tasks of the mean ratio: two conditions, then two models.

    cross, flipped: from `crosstask.cross_task`, random and flipped labels of the same model
    crosses_of_models: one a model; every pair of them has its row
    """
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
        for pair, interval, n in found or [(what, Interval(NAN, NAN, NAN), 0)]:
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
