"""Gather the verdicts on every claim of a study of implicit inference in one table and picture."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import claims_figure
from forgetlib.figures.findings import claims_finding
from forgetlib.figures.implicit import claims, pattern
from forgetlib.figures.implicit.stored import Stored

OF = "the claims about implicit inference"


def table(of: Stored) -> pd.DataFrame:
    """Judge every claim: of one mixture weight, of several, and of a real model if one was asked.

    Columns: claim, says, figure, those of `statements.row`, and post_hoc: whether the statement
    was made after the first day on which results were computed.
    """
    every = [
        claims.verdicts(of.own, of.shifts, of.alpha, of.controls),
        claims.judge_weights(of.errors),
    ]
    if of.answers is not None:
        every.append(pattern.claims(pattern.table(of.answers)))
    found = pd.concat(every, ignore_index=True)
    return found.assign(post_hoc=found["stated"] > of.computed)


def finding(found: pd.DataFrame) -> str:
    """Count the verdicts in a sentence. found: from `table`."""
    return claims_finding(found, OF)


def draw(found: pd.DataFrame) -> Figure:
    """Draw each claim's statistic, its interval, threshold and verdict. found: from `table`."""
    return claims_figure.draw(found, OF)
