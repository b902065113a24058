"""State what a claim says of a statistic, and judge a study by it: the one rule.

A statement is made before a study is computed: that a statistic is above a threshold, below one, or
within plus or minus one, and how large it is supposed to be where the claim is true. With the
statistic's interval `verdict` says: "holds" where the whole interval agrees, "does not hold" where
none of it does. Else the study did not decide it. Whether it could have is told by its power at
what was supposed: below `power.ENOUGH`, "this study cannot decide".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from forgetlib.errors import require_one_of
from forgetlib.figures import power
from forgetlib.figures.intervals import Interval

ABOVE, BELOW, WITHIN = "above", "below", "within +-"  # statements about a threshold
MEAN, RANK, SHARE = "mean", "rank correlation", "share"  # what statistics are: see `power`
NATS = "nats"  # an axis of its own for means that are in nats
HOLDS, DOES_NOT_HOLD = "holds", "does not hold"
UNDECIDED, CANNOT_DECIDE = "not decided by these data", "this study cannot decide"
VERDICTS = (HOLDS, DOES_NOT_HOLD, UNDECIDED, CANNOT_DECIDE)
FIRST = "2026-11-22"  # before the first studies were computed, on the same day


@dataclass(frozen=True)
class Statement:
    """Say what a claim needs of a statistic.

    kind: ABOVE, BELOW or WITHIN the threshold
    supposed: the statistic where the claim is true, for the power
    of: what the statistic is, MEAN, RANK or SHARE
    stated: the day, year-month-day; for a study computed before, it is post hoc
    axis: on which of the three, or of NATS, it is drawn, where that is not `of`
    """

    kind: str
    threshold: float
    supposed: float
    of: str = MEAN
    stated: str = FIRST
    axis: str = ""

    def __post_init__(self) -> None:
        require_one_of("statement of a claim", self.kind, (ABOVE, BELOW, WITHIN))
        require_one_of("statistic of a claim", self.of, (MEAN, RANK, SHARE))
        require_one_of("axis of a claim", self.axis or self.of, (MEAN, RANK, SHARE, NATS))

    def power(self, found: Interval, n: int) -> power.Power:
        """Give the power of this statement, of other numbers of tasks than n too."""
        if self.of == RANK:
            within = self.kind == WITHIN
            return power.of_correlation(self.supposed, self.threshold, within=within)
        if self.of == SHARE:
            return power.of_share(self.supposed, self.threshold)
        value = abs(self.supposed) if self.kind == WITHIN else self.supposed
        return power.of_mean(abs(value - self.threshold), found, n)


def verdict(statement: Statement, found: Interval, has_power: float) -> str:
    """Judge by the one rule what a study says of a statement.

    has_power: of the study; NaN where it cannot be computed
    """
    low, high, threshold = found.low, found.high, statement.threshold
    agrees, disagrees = {
        ABOVE: (low > threshold, high < threshold),
        BELOW: (high < threshold, low > threshold),
        WITHIN: (-threshold < low and high < threshold, low > threshold or high < -threshold),
    }[statement.kind]
    if np.isfinite(low) and np.isfinite(high) and (agrees or disagrees):
        return HOLDS if agrees else DOES_NOT_HOLD
    return UNDECIDED if has_power >= power.ENOUGH else CANNOT_DECIDE


def row(
    statistic: str,
    statement: Statement,
    found: Interval,
    n: int,
    *,
    unit: str = "tasks",
    paper: float = np.nan,
    ceiling: float = np.nan,
    lacks: str = "",
) -> pd.DataFrame:
    """Judge one statistic: a table of one row.

    n: of how many tasks, or of another unit
    paper: the same statistic of the published numbers
    ceiling: the most that could be expected, as a rank agreement's; below the threshold, nothing
        can be decided
    lacks: what the study has not that the statistic needs; then it has no interval

    Columns: statistic, value, low, high, n, unit, statement, threshold, supposed, power, needed
    (how many would have the power `power.ENOUGH`), ceiling, verdict, why (it is not decided),
    paper, stated, axis.
    """
    low_ceiling = ceiling < statement.threshold and statement.kind == ABOVE
    if lacks or low_ceiling:
        found = Interval(found.value, np.nan, np.nan)
    able = statement.power(found, n)
    has = able(n) if n and not lacks and not low_ceiling else np.nan
    said = verdict(statement, found, has)
    enough = np.nan if lacks or low_ceiling else power.needed(able)
    why = ""
    if said in (UNDECIDED, CANNOT_DECIDE):
        why = _why(lacks, ceiling if low_ceiling else np.nan, has, enough, unit)
        if not lacks and found.low == found.high:
            why = f"the same value in all {unit}: nothing to tell the power by"
    return pd.DataFrame(
        [
            {
                "statistic": statistic,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "n": n,
                "unit": unit,
                "statement": statement.kind,
                "threshold": statement.threshold,
                "supposed": statement.supposed,
                "power": has,
                "needed": enough,
                "ceiling": ceiling,
                "verdict": said,
                "why": why,
                "paper": paper,
                "stated": statement.stated,
                "axis": statement.axis or statement.of,
            }
        ]
    )


def value_of(row: pd.Series) -> Interval:
    """Read the statistic that a row of judged claims has."""
    return Interval(*(float(row[name]) for name in ("value", "low", "high")))


def _why(lacks: str, ceiling: float, has: float, enough: float, unit: str) -> str:
    if lacks:
        return f"needs {lacks}"
    if np.isfinite(ceiling):
        return f"the same condition agrees with itself by {ceiling:.2f} only"
    if np.isnan(has):
        return f"too few {unit} for an interval" + (
            f"; {enough:.0f} would do" if np.isfinite(enough) else ""
        )
    said = f"power {has:.2f}"
    if has >= power.ENOUGH:
        return said
    return f"{said} ({power.ENOUGH} with {enough:.0f} {unit})" if np.isfinite(enough) else said
