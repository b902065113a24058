"""The one rule by which a claim holds, and what the tests of claims share.

A claim becomes one or more statistics, each with a 95 % interval and a statement about it: that it
is above a threshold, below one, or within plus or minus one. "holds" where the whole interval
agrees with the statement, "does not hold" where none of it does, else "not decided by these data".
Missing data, undefined statistics and fewer than `MIN_TASKS` tasks are not decided either.

Most statistics count tasks, and their intervals are over tasks: would other tasks of this kind show
the same? A study has 4 to 21 of them, and a percentile bootstrap of so few is too narrow: four
tasks in the same order twice have a rank correlation of 1 in every resample. Used instead, as about
right from four tasks on: Student's t for means, Welch's t for differences, Clopper and Pearson's
interval for shares, Bonett and Wright's for rank correlations (`intervals.rank_correlation`, which
the figures show too), a jackknife for what is none of these. Tasks that are all alike have no
interval: they do not show how much tasks differ. One statistic alone has the figure's interval over
the examples of these tasks: section 5's pooled effect on single examples.

A rank correlation over the paper's own 21 tasks has an interval of about plus or minus 0.4: a
claim that there is none can be refuted with so few, but hardly be shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from forgetlib.errors import require_one_of
from forgetlib.figures import intervals
from forgetlib.figures.intervals import MIN_TASKS, Interval
from forgetlib.figures.join import given


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


def mean_interval(values: np.ndarray) -> Interval:
    """Return the mean of (N,) values, one a task, with Student's t interval."""
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(values.mean())
    if len(values) < MIN_TASKS or not values.std() > 0:
        return Interval(mean, np.nan, np.nan)
    return _around(mean, scipy.stats.ttest_1samp(values, 0))


def difference_interval(first: np.ndarray, second: np.ndarray) -> Interval:
    """Return the mean of the first tasks' values less the second's, with Welch's t interval."""
    sizes = len(first), len(second)
    if min(sizes) == 0:
        return Interval(np.nan, np.nan, np.nan)
    difference = float(first.mean() - second.mean())
    if min(sizes) < 2 or sum(sizes) < MIN_TASKS or not first.std() + second.std() > 0:
        return Interval(difference, np.nan, np.nan)
    return _around(difference, scipy.stats.ttest_ind(first, second, equal_var=False))


def _around(value: float, found: Any) -> Interval:
    """Put the interval of one of SciPy's t tests around the value; none where it has no width."""
    interval = found.confidence_interval(intervals.CONFIDENCE_LEVEL)
    return intervals.around(value, float(interval.high - interval.low) / 2)


def relative_interval(changes: np.ndarray, heights: np.ndarray) -> Interval:
    """Mean of (N,) changes by the mean of (N,) heights, one a task, with a jackknife's interval."""
    n = len(changes)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    value = float(changes.mean() / heights.mean())
    if n < MIN_TASKS:
        return Interval(value, np.nan, np.nan)
    without_each = (changes.sum() - changes) / (heights.sum() - heights)
    return intervals.jackknife(value, without_each, n - 1)


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
        found = scipy.stats.binomtest(count, n).proportion_ci(intervals.CONFIDENCE_LEVEL)
        return float(found.low), float(found.high)

    return Interval(share, exact(surely)[0], exact(possibly)[1])


# Each takes the tables it needs, None where there is none, and gives one row a statistic: claim,
# says, statistic (in words), value, low, high, n and what it counts (unit), statement and
# threshold, verdict, paper (the same statistic of the published numbers, else NaN), figure.
def claim_row(
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


def require(table: pd.DataFrame, *columns: str) -> None:
    do = "Pass the table that the claim's docstring names."
    intervals.require_columns("table of a claim", table, columns, do)


def interval_of(row: Mapping[str, Any] | pd.Series, measure: str) -> Interval:
    return Interval(*(float(row[column]) for column in columns_of(measure)))


def numbers(table: pd.DataFrame | None, *columns: str) -> list[np.ndarray]:
    """The columns, each (N,), of the N rows where all of them are defined; N = 0 without table."""
    if table is None:
        return [np.zeros(0) for _ in columns]
    require(table, *columns)
    return list(table[list(columns)].astype(float).dropna().to_numpy().T)


def columns_of(measure: str) -> list[str]:
    return [f"{measure}{end}" for end in ("", "_low", "_high")]


def with_ratio(own: pd.DataFrame | None) -> pd.DataFrame | None:
    """The tasks that had something to forget."""
    table = given(own, ["eval_task"], "ratio_defined")
    return None if table is None else table[table["ratio_defined"].astype(bool)]


def with_families(table: pd.DataFrame, described: pd.DataFrame | None) -> pd.DataFrame:
    """The table with the family of each task; NaN where it is not described."""
    known = {}
    if described is not None:
        require(described, "eval_task", "family")
        known = dict(zip(described["eval_task"], described["family"], strict=True))
    return table.assign(family=table["eval_task"].map(known))
