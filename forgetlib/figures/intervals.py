"""Give statistics their 95 % intervals: the bootstrap, Student's t, rank correlations, shares.

Shared by all figures. A statistic here is a function of arrays, with its shape stated; `bootstrap`
gives any of them an interval over examples. No files, no models, no global random state.

In the tables, a measure m has its value in column m and its 95 % interval in m_low and m_high;
where a measure is undefined, or there are too few data for its interval, they are NaN. Questions
are resampled (bootstrap). Where there are several seeds, what differs between them beyond that is
added with Student's t: they are few, and a bootstrap of three covers the truth 75 % of the time.

Shapes: N examples, C = 2 choices, G groups (seeds), K tasks, R bootstrap resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm, t, ttest_1samp, ttest_ind

from forgetlib.errors import InputError, require_whole
from forgetlib.metrics import CHANCE, Numbers

CONFIDENCE_LEVEL = 0.95
TAIL = (1 - CONFIDENCE_LEVEL) / 2  # the share on either side of an interval
N_RESAMPLES = 2000
MIN_TASKS = 4  # of three tasks, even a perfect rank correlation is a one-in-six accident
MAX_UNDEFINED = 0.05  # share of resamples without a value, above which there is no interval
Statistic = Callable[[np.ndarray], Numbers]  # (..., K) means -> (...) values


@dataclass(frozen=True)
class Interval:
    """Hold an estimate and its 95 % interval; low and high are NaN where undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Interval(np.nan, np.nan, np.nan)


def bootstrap(
    statistic: Statistic,
    groups: Sequence[np.ndarray],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Bootstrap a statistic over examples, with what differs between seeds (`resampled_means`).

    groups: one (N_g, K) array a seed, a row an example, so that K measurements of an example stay
        together. Each group is reduced to its (K,) column means, the groups' means are averaged,
        and the statistic maps that (K,) to a number: a statistic of accuracies, not of examples.
    statistic: vectorised over leading axes
    """
    return bootstrap_each({"": statistic}, groups, n_resamples, seed=seed)[""]


def bootstrap_each(
    measures: dict[str, Statistic],
    groups: Sequence[np.ndarray],
    n_resamples: int,
    *,
    seed: int = 0,
) -> dict[str, Interval]:
    """Bootstrap several statistics of the same data, from the same resamples."""
    require_whole("n_resamples", n_resamples, 1)
    means = means_of(groups)
    draws, counts = _draws_and_counts(seed, n_resamples, tuple(map(len, groups)))
    resampled = _resampled_means(groups, draws, counts)
    return {k: percentiles(float(f(means)), f(resampled)) for k, f in measures.items()}


@lru_cache(maxsize=4)
def _draws_and_counts(
    seed: int, n_resamples: int, sizes: tuple[int, ...]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """`seed_draws` and each group's `resample_counts`, which are equal for all data of these sizes.

    Making them is most of the time of a bootstrap, and a study's tasks mostly have one size.
    """
    rng = np.random.default_rng(seed)
    draws = seed_draws(rng, n_resamples, len(sizes))
    counts = [resample_counts(rng, n, n_resamples) for n in sizes]
    for shared in (draws, *counts):
        shared.setflags(write=False)
    return draws, counts


def means_of(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Average the column means (K,) of the groups (N_g, K), which are the seeds."""
    shapes = [np.shape(g) for g in groups]
    fits = all(len(s) == 2 and s[0] > 0 and s[1] == shapes[0][1] for s in shapes)
    if not shapes or not fits:
        raise InputError(
            "bootstrap",
            expected="at least one (N, K) array with N >= 1, and one K",
            found=shapes,
            do="Pass a list of arrays, one a seed.",
        )
    return np.mean([g.mean(0) for g in groups], axis=0)


def resampled_means(
    groups: Sequence[np.ndarray],
    *,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    draws: np.ndarray | None = None,
) -> np.ndarray:
    """Resample the averaged column means: (R, K), as they could have been with other data.

    The examples of every group are resampled with replacement; `seed_noise` is added for the seeds.
    No mean leaves the range of its column's numbers.

    groups: G arrays (N_g, K), one a seed
    draws: (R, G) of `seed_draws`; made here unless several data sets have to share them
    """
    if draws is None:
        draws = seed_draws(rng, n_resamples, len(groups))
    counts = (resample_counts(rng, len(group), len(draws)) for group in groups)
    return _resampled_means(groups, draws, counts)


def _resampled_means(
    groups: Sequence[np.ndarray], draws: np.ndarray, counts: Iterable[np.ndarray]
) -> np.ndarray:
    total = np.zeros((len(draws), groups[0].shape[1]))
    for group, times in zip(groups, counts, strict=True):
        total += times @ group / len(group)
    total /= len(groups)
    if len(groups) > 1:
        known = np.mean([g.var(0) / max(len(g) - 1, 1) for g in groups], axis=0)
        total += seed_noise(draws, np.array([g.mean(0) for g in groups]), known)
        together = np.concatenate(groups)
        total = total.clip(together.min(0), together.max(0))
    return total


def seed_draws(
    rng: np.random.Generator, n_resamples: int, n_seeds: int, *, normal: bool = False
) -> np.ndarray:
    """Draw (R, G) factors, so that factors @ deviations of G seeds is the error of their mean.

    normal: for variances; else Student's t with G - 1 degrees of freedom, for intervals, which
        knows that few seeds show badly how much they differ. With one seed, all are 0.
    """
    require_whole("n_resamples", n_resamples, 1)
    if n_seeds == 1:
        return np.zeros((n_resamples, 1))
    draws = rng.standard_normal((n_resamples, n_seeds)) / np.sqrt(n_seeds)
    freedom = n_seeds - 1
    return draws / np.sqrt(freedom if normal else rng.chisquare(freedom, (n_resamples, 1)))


def seed_noise(draws: np.ndarray, of_seeds: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Draw what the mean over seeds could be off by, (R, K), as other seeds would differ too.

    of_seeds: (G, K) each seed's values
    known: (K,) variance of one seed's value that resampling its examples brings already: only the
        variance between seeds beyond it is added
    """
    between = of_seeds.var(0, ddof=1)
    excess = np.divide(between - known, between, out=np.zeros_like(between), where=between > 0)
    return draws @ ((of_seeds - of_seeds.mean(0)) * np.sqrt(excess.clip(0)))


def resample_counts(rng: np.random.Generator, n: int, n_resamples: int) -> np.ndarray:
    """Draw N of N examples with replacement, R times, and count each one: (R, N)."""
    require_whole("n_resamples", n_resamples, 1)
    drawn = rng.integers(n, size=(n_resamples, n)) + n * np.arange(n_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n * n_resamples)
    return counts.reshape(n_resamples, n).astype(float)


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
    found = percentiles(value, replicates)
    return found if found.high - found.low > 1e-9 else Interval(value, np.nan, np.nan)


def something_to_forget(tuned: Sequence[np.ndarray]) -> bool:
    """Tell whether a task has a forget ratio: whether its fine-tuned accuracy is above chance.

    That is, whether the lower end of its 95 % interval is (`bootstrap`, with its own number of
    resamples and its own seed, so that every figure says the same of the same runs). Where it is,
    at most 2.5 % of the resamples are at or below chance. They have no ratio, and are left out of
    the ratio's interval.

    tuned: for each seed (N,), whether each test example is right after fine-tuning
    """
    groups = [np.asarray(right, float)[:, None] for right in tuned]
    return bootstrap(column(0), groups).low > CHANCE


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

    The interval is Bonett and Wright's (2000): Fisher's z with standard error
    sqrt((1 + value^2 / 2) / (N - 3)). z is infinite at a perfect correlation, so that the interval
    is taken half a step of the N ranks inside of it. In simulations it covers at least 93 % of the
    time with 4 to 21 tasks, up to a correlation of 0.9; a bootstrap of so few tasks does not.

    The value is NaN with fewer than two tasks, or where one of the two is constant; low and high
    are NaN with fewer than `MIN_TASKS` too.
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
    if n < MIN_TASKS or np.isnan(value):
        return Interval(value, np.nan, np.nan)
    most = 1 - 6 / (n * (n**2 - 1))  # with two neighbours swapped it is twice as far from 1
    inside = float(np.clip(value, -most, most))
    half = norm.ppf(1 - TAIL) * np.sqrt((1 + inside**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(inside) + np.array([-half, half]))
    return Interval(value, min(float(low), value), max(float(high), value))


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


def mean_interval(values: np.ndarray) -> Interval:
    """Average (N,) values, one a task, with Student's t interval; none below `MIN_TASKS`."""
    if len(values) < MIN_TASKS:
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


def column(index: int) -> Statistic:
    """Return the statistic that is one of the means."""
    return lambda means: means[..., index]


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
