"""Write numbers as every title, page and sentence has them, rounded in one way; and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from forgetlib.figures.intervals import Interval, of_row

UNDEFINED_TEXT = "-"


def number(value: float, digits: int = 2) -> str:
    """Write a number with a minus as wide as a plus; "-" where it is undefined."""
    if pd.isna(value):
        return UNDEFINED_TEXT
    # First as tables are stored: else 0.575 is 0.57 there, and 0.58 of a mean that is a bit more.
    rounded = round(float(f"{value:.6g}"), digits) + 0.0  # which makes a 0 of -0
    return f"{rounded:.{digits}f}".replace("-", "−")


def estimate(found: Interval, digits: int = 2) -> str:
    """Write a value with its interval, where it has one: 0.31 [0.20, 0.41]."""
    value, low, high = (number(x, digits) for x in (found.value, found.low, found.high))
    return value if np.isnan([found.value, found.low]).any() else f"{value} [{low}, {high}]"


def estimate_of(row: Mapping[Any, Any] | pd.Series, measure: str, digits: int = 2) -> str:
    """Write a measure of a table's row, whose columns end in _low and _high, as `estimate` does."""
    return estimate(of_row(row, measure), digits)


def between(values: pd.Series, digits: int = 2) -> str:
    """Write the least and the greatest of some values, "0.1 to 0.3", or the one."""
    return " to ".join(dict.fromkeys(number(x, digits) for x in (values.min(), values.max())))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
