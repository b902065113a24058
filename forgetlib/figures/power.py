"""Tell what a study could decide: the power of its tests, and how many tasks would decide them.

Power is the chance that the interval lies on a claim's side of its threshold where the claim is
true, and its statistic as large as was supposed before the study. It says nothing of the value that
was found: power at that value would only repeat the interval. What is supposed is the same in every
study, so that each power is computed once.

Shapes: N tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.stats import binom, binomtest, norm, t

from forgetlib.figures.intervals import CONFIDENCE_LEVEL, MIN_TASKS, TAIL, Interval

ENOUGH = 0.8  # the usual power of a study that is planned
MOST_TASKS = 5000  # tasks: more are no plan
Power = Callable[[int], float]  # number of tasks -> power


def of_mean(distance: float, found: Interval, n: int) -> Power:
    """Give the power of a mean, or of any statistic whose error falls as the root of N.

    distance: from what is supposed to the threshold
    found, n: an interval of Student's t, and of how many tasks: its width tells how much they
        differ. NaN without one
    """
    half = (found.high - found.low) / 2

    @cache
    def power(m: int) -> float:
        if m < 2 or n < 2 or not half > 0:
            return np.nan
        error = half / t.ppf(1 - TAIL, n - 1) * np.sqrt(n / m)
        return float(norm.cdf(distance / error - t.ppf(1 - TAIL, m - 1)))

    return power


@cache
def of_correlation(supposed: float, threshold: float, *, within: bool = False) -> Power:
    """Give the power of a rank correlation, whose interval is `intervals.rank_correlation`'s.

    within: the claim is that it is near 0, between -threshold and threshold
    """
    z, limit = np.arctanh(supposed), np.arctanh(threshold)

    @cache
    def power(m: int) -> float:
        if m < MIN_TASKS:
            return np.nan
        error = np.sqrt((1 + supposed**2 / 2) / (m - 3))
        reach = norm.ppf(1 - TAIL)
        if not within:
            return float(norm.cdf(abs(z - limit) / error - reach))
        above, below = (limit - z) / error - reach, (-limit - z) / error + reach
        return float(max(norm.cdf(above) - norm.cdf(below), 0))

    return power


@cache
def of_share(supposed: float, threshold: float) -> Power:
    """Give the power of a share of tasks above a threshold, where each task is decided.

    The interval is Clopper and Pearson's (`intervals.share_interval`).
    """

    @cache
    def power(m: int) -> float:
        if m < MIN_TASKS:
            return np.nan
        # The lowest end rises with the count: find the first that is above.
        low, high = 0, m + 1
        while low < high:
            middle = (low + high) // 2
            above = middle > m or (
                binomtest(middle, m).proportion_ci(CONFIDENCE_LEVEL).low > threshold
            )
            low, high = (low, middle) if above else (middle + 1, high)
        return float(binom.sf(low - 1, m, supposed))

    return power


def needed(power: Power) -> float:
    """Find the fewest tasks of which the power is ENOUGH.

    NaN where that is more than MOST_TASKS, or undefined.
    """
    low, high = MIN_TASKS, MIN_TASKS
    while not power(high) >= ENOUGH:
        if high >= MOST_TASKS or np.isnan(power(high)):
            return np.nan
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= ENOUGH else (middle + 1, high)
    return float(low) if low <= MOST_TASKS else np.nan
