"""Show forgetting as one number: the shift of the inferred task, and how much of the change it is.

Not in arXiv 2309.10105: delta, in nats of log-odds of the discrete set, is fitted to the fine-tuned
model's predictions (`forgetlib.implicit.shift`); the rest of its change no shift explains.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.errors import InputError
from forgetlib.figures import intervals
from forgetlib.figures.implicit_lines import curve, framed, panel
from forgetlib.figures.implicit_measures import DO, Gate, of_alpha, over_seeds, title
from forgetlib.figures.intervals import as_columns, with_intervals
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.style import BLACK, BLUE, GREEN, TEXT_WIDTH, VERMILION, style

MEASURES = ("before", "after", "moved", "share", "rest", "change")
ALL = -1  # in the place of a number of examples: one fit over all


def table(shifts: pd.DataFrame, alpha: float | None = None) -> pd.DataFrame:
    """Average the fitted shifts over seeds, for each number of examples and over all.

    shifts: "shifts" of `forgetlib.implicit.results.read`; alpha: the mixture weight

    Columns: alpha, k (examples; -1 all), n_seeds, n_bound (seeds whose shift after is as large as
    is tried, so that it is at least so many nats), and with Student's t intervals over seeds, which
    each have their own prompts: before and after, shifts of the two models against Bayes in nats;
    moved, after less before; change, the mean squared difference of their predictions; share, of
    it, that the shift explains; rest, the mean squared difference that it does not.
    """
    wanted = ["seed", "alpha", "k", *(m for m in MEASURES if m != "moved"), "is_bound"]
    intervals.require_columns("shifts of in-context regression", shifts, wanted, DO)
    own = of_alpha(shifts, alpha)
    if own.duplicated(["seed", "k"]).any():
        raise InputError(
            "shifts of in-context regression",
            expected="each seed in one setting",
            found="rows twice",
            do="Take one setting: table[table['key'].isin([...])].",
        )
    own = own.assign(moved=own["after"] - own["before"])
    rows = []
    for k, of in own.groupby("k"):
        row: dict[str, object] = {
            "alpha": of["alpha"].iloc[0],
            "k": k,
            "n_seeds": len(of),
            "n_bound": int(of["is_bound"].sum()),
        }
        for measure in MEASURES:
            row |= as_columns(measure, over_seeds(of[measure]))
        rows.append(row)
    return pd.DataFrame(rows)


def finding(found: pd.DataFrame) -> str:
    """Say in a clause by how much the inferred task shifts, and what that explains.

    found: from `table`
    """
    row = found[found["k"] == ALL].iloc[0]
    least = "at least " if row["n_bound"] else ""
    return (
        f"Fine-tuning moves the log-odds of the discrete set by {least}{estimate_of(row, 'moved')} "
        f"nats, which explains {estimate_of(row, 'share')} of what changes; the rest is no shift"
    )


def draw(found: pd.DataFrame, gate: Gate) -> Figure:
    """Draw the shifts before and after over the number of examples, and the share they explain.

    found: from `table`; gate: from `implicit_measures.judged`
    """
    wanted = ["k", "n_seeds", "n_bound", *with_intervals(MEASURES)]
    intervals.require_columns("table of shifts", found, wanted, "Pass implicit_shift.table.")
    said = title(finding(found), gate, int(found["n_seeds"].max()))
    rows = found[found["k"] >= 0]
    with style([said]):
        figure = Figure(figsize=(TEXT_WIDTH, 2.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for axes in (left, right):
            axes.axhline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        curve(left, rows, "k", "before", "pre-trained", "o", BLUE)
        curve(left, rows, "k", "after", "fine-tuned", "D", VERMILION)
        panel(left, "shift against Bayes", "examples", "nats of log-odds")
        curve(middle, rows, "k", "change", "change of predictions", "s", BLACK)
        curve(middle, rows, "k", "rest", "of it no shift: damage", "^", GREEN)
        middle.set_ylim(bottom=0)
        panel(middle, "what changed", "examples", "mean squared difference")
        curve(right, rows, "k", "share", "share that the shift explains", "v", VERMILION, ":")
        lowest = rows["share"].min()
        right.set_ylim(max(lowest - 0.2, -1.0) if np.isfinite(lowest) and lowest < 0 else 0, 1.05)
        panel(right, "explained by the shift", "examples", "share of the change")
        return framed(figure, said)
