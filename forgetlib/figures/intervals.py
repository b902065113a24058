"""Give statistics of tasks their 95 % intervals: Student's t, rank correlations, shares.

Shared by all figures. A statistic here is a function of arrays, with its shape stated. No files, no
models, no global random state. Intervals over questions and seeds are in `bootstrap`.

In the tables, a measure m has its value in column m and its 95 % interval in m_low and m_high;
where a measure is undefined, or there are too few data for its interval, they are NaN.

Shapes: N tasks, R resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm, t, ttest_1samp, ttest_ind

from forgetlib.errors import InputError
from forgetlib.metrics import Numbers

CONFIDENCE_LEVEL = 0.95
TAIL = (1 - CONFIDENCE_LEVEL) / 2  # the share on either side of an interval
N_RESAMPLES = 2000
MIN_TASKS = 4  # of three tasks, even a perfect rank correlation is a one-in-six accident
MAX_UNDEFINED = 0.05  # share of resamples without a value, above which there is no interval


@dataclass(frozen=True)
class Interval:
    """Hold an estimate and its 95 % interval; low and high are NaN where undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Interval(np.nan, np.nan, np.nan)


def percentiles(value: float, replicates: Numbers) -> Interval:
    """Take the interval between the quantiles of (R,) replicates, without undefined ones.

    NaN where the value is undefined, or more than 5 % of the replicates are.
    """
    good = np.extract(np.isfinite(replicates), replicates)
    if np.isnan(value) or len(good) < max((1 - MAX_UNDEFINED) * np.size(replicates), 1):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(good, [TAIL, 1 - TAIL])
    return Interval(value, float(low), float(high))


def correlation_percentiles(value: float, replicates: np.ndarray) -> Interval:
    """Take a correlation's interval from (R,) replicates; none where all of them are equal.

    Of examples in perfect order, every resample is in perfect order: that shows no uncertainty.
    """
    return with_width(percentiles(value, replicates))


def with_width(found: Interval) -> Interval:
    """Leave out the ends of an interval without width: data that all agree show no uncertainty."""
    return found if found.high - found.low > 1e-9 else Interval(found.value, np.nan, np.nan)


def rank_correlations(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Correlate the ranks of x and y (N,) in R resamples, given as counts (R, N): (R,) Spearman's.

    Equal values share their average rank. NaN where a resample has one value only.
    """
    codes, cells = np.unique(np.stack([x, y]), axis=1, return_inverse=True)
    weights = counts @ (cells.ravel()[:, None] == np.arange(codes.shape[1]))  # (R, cells)
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


def rank_correlation(x: np.ndarray, y: np.ndarray) -> Interval:
    """Correlate the ranks of (N,) and (N,) values, one a task: Spearman's, and its interval.

    The interval is that of `rank_interval`. The value is NaN with fewer than two tasks, or where
    one of the two is constant.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    n = len(x)
    if n != len(y) or np.isnan([x, y]).any():
        raise InputError(
            "rank correlation",
            expected="two values of every task, and none undefined",
            found=f"{n} and {len(y)}, {np.isnan(x).sum() + np.isnan(y).sum()} of them undefined",
            do="Leave out the tasks where either is undefined.",
        )
    value = float(rank_correlations(x, y, np.ones((1, n)))[0]) if n > 1 else np.nan
    return rank_interval(value, n)


def rank_interval(value: float, n: int) -> Interval:
    """Give a rank correlation of N tasks its interval over tasks.

    Bonett and Wright's (2000): Fisher's z with standard error sqrt((1 + value^2 / 2) / (N - 3)). z
    is infinite at a perfect correlation, so that the interval is taken half a step of the N ranks
    inside of it. In simulations it covers at least 93 % of the time with 4 to 21 tasks, up to a
    correlation of 0.9; a bootstrap of so few tasks does not.

    low and high are NaN with fewer than `MIN_TASKS` tasks, and where the value is.
    """
    if n < MIN_TASKS or np.isnan(value):
        return Interval(value, np.nan, np.nan)
    z, error = _fisher(value, n)
    half = norm.ppf(1 - TAIL) * error
    low, high = np.tanh(z + np.array([-half, half]))
    return Interval(value, min(float(low), value), max(float(high), value))


def rank_p_value(value: float, n: int) -> float:
    """Test that a rank correlation of N tasks is 0: the two-sided p-value of `rank_interval`.

    NaN where the interval has no ends.
    """
    if n < MIN_TASKS or np.isnan(value):
        return np.nan
    z, error = _fisher(value, n)
    return float(2 * norm.sf(abs(z) / error))


def _fisher(value: float, n: int) -> tuple[float, float]:
    """Return Fisher's z of a rank correlation, and its standard error; see `rank_interval`."""
    most = 1 - 6 / (n * (n**2 - 1))  # with two neighbours swapped it is twice as far from 1
    inside = float(np.clip(value, -most, most))
    return float(np.arctanh(inside)), float(np.sqrt((1 + inside**2 / 2) / (n - 3)))


def around(value: float, half: float) -> Interval:
    """Return the value plus or minus half the interval's width.

    low and high are NaN where the width is 0 or undefined: tasks that are all alike do not show how
    much tasks differ.
    """
    if not half > 1e-12:
        return Interval(value, np.nan, np.nan)
    return Interval(value, value - half, value + half)


def jackknife(value: float, without_each: np.ndarray, degrees_of_freedom: int) -> Interval:
    """Give a statistic of N tasks Tukey's interval, from its values without each of them (N,).

    Student's t with the jackknife's standard error. low and high are NaN with fewer than
    `MIN_TASKS` tasks, where a value is undefined, and where all are equal.
    """
    n = len(without_each)
    if n < MIN_TASKS:
        return Interval(value, np.nan, np.nan)
    error = np.sqrt((n - 1) / n * ((without_each - without_each.mean()) ** 2).sum())
    return around(value, float(t.ppf(1 - TAIL, degrees_of_freedom) * error))


def mean_interval(values: np.ndarray, fewest: int = MIN_TASKS) -> Interval:
    """Average (N,) values, one a task or seed, with Student's t interval.

    fewest: of fewer values there is no interval; 2 of seeds
    """
    if len(values) < fewest:
        return Interval(float(values.mean()), np.nan, np.nan) if len(values) else UNDEFINED
    return _of_test(float(values.mean()), ttest_1samp, values, 0)


def difference_interval(first: np.ndarray, second: np.ndarray) -> Interval:
    """Subtract the mean of some tasks' values (M,) from that of others (N,), with Welch's t."""
    sizes = len(first), len(second)
    if min(sizes) == 0:
        return UNDEFINED
    difference = float(first.mean() - second.mean())
    if min(sizes) < 2 or sum(sizes) < MIN_TASKS:
        return Interval(difference, np.nan, np.nan)
    return _of_test(difference, ttest_ind, first, second, equal_var=False)


def _of_test(value: float, test: Callable[..., Any], *samples: Any, **options: Any) -> Interval:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of samples that are constant
        low, high = test(*samples, **options).confidence_interval(CONFIDENCE_LEVEL)
    return around(value, float(high - low) / 2)


def relative_interval(changes: np.ndarray, heights: np.ndarray) -> Interval:
    """Divide the mean of (N,) changes by that of (N,) heights, one a task, with a jackknife."""
    n = len(changes)
    if n == 0:
        return UNDEFINED
    value = float(changes.mean() / heights.mean())
    if n < MIN_TASKS:
        return Interval(value, np.nan, np.nan)
    without_each = (changes.sum() - changes) / (heights.sum() - heights)
    return jackknife(value, without_each, n - 1)


def share_interval(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, threshold: float
) -> Interval:
    """Count the share of N tasks above a threshold, from values and their intervals, each (N,).

    The lower end counts the tasks whose whole interval is above the threshold, the upper end all
    but those whose whole interval is below it: tasks that sampling may have put on either side
    decide nothing. Each end is that of Clopper and Pearson's interval for so many of N tasks.
    """
    n = len(values)
    if n == 0:
        return UNDEFINED
    share = float((values > threshold).mean())
    if n < MIN_TASKS:
        return Interval(share, np.nan, np.nan)
    surely, possibly = (low > threshold).sum(), n - (high <= threshold).sum()
    least, most = (
        binomtest(int(count), n).proportion_ci(CONFIDENCE_LEVEL) for count in (surely, possibly)
    )
    return Interval(share, float(least.low), float(most.high))


def with_intervals(measures: Iterable[str]) -> list[str]:
    """List the columns of the measures and of the ends of their intervals."""
    return [f"{m}{end}" for m in measures for end in ("", "_low", "_high")]


def as_columns(name: str, interval: Interval) -> dict[str, float]:
    """Return the three columns of a measure in a table."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def of_row(row: Mapping[Any, Any] | pd.Series, name: str) -> Interval:
    """Read a measure's three columns from a row of a table."""
    value, low, high = (float(row[column]) for column in with_intervals([name]))
    return Interval(value, low, high)


def require_columns(what: str, table: pd.DataFrame, columns: Iterable[str], do: str) -> None:
    """Raise InputError where the table lacks one of these columns."""
    there = table.columns if isinstance(table, pd.DataFrame) else [type(table).__name__]
    if missing := sorted(set(columns) - set(there)):
        raise InputError(
            what,
            expected=f"columns {', '.join(missing)}",
            found=", ".join(map(str, there)) or "none",
            do=do,
        )
