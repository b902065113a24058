"""Show forgetting as one number: the shift of the inferred task, and how much of the change it is.

Not in arXiv 2309.10105: delta, in nats of log-odds of the discrete set, is fitted to the fine-tuned
model's predictions (`forgetlib.implicit.shift`); the rest of its change no shift explains. A shift
that is large enough describes a model without the other tasks, too: how large, and how well, is
told by the one that never knew them.
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
from forgetlib.figures.style import BLACK, BLUE, GREEN, GREY, TEXT_WIDTH, VERMILION, style

MEASURES = ("before", "after", "moved", "share", "rest", "change")
NEVER = ("moved", "share")  # measures that are told of the model that never knew, too
TUNED, CONTROL = "fine-tuned", "discrete-only"
ALL = -1  # in the place of a number of examples: one fit over all


def table(shifts: pd.DataFrame, alpha: float | None = None) -> pd.DataFrame:
    """Average the fitted shifts over seeds, for each number of examples and over all.

    shifts: "shifts" of `forgetlib.implicit.results.read`; alpha: the mixture weight

    Columns: alpha, k (examples; -1 all), n_seeds, n_bound (seeds whose shift after is as large as
    is tried, so that it is at least so many nats), and with Student's t intervals over seeds, which
    each have their own prompts: before and after, shifts of the two models against Bayes in nats;
    moved, after less before; change, the mean squared difference of their predictions; share, of
    it, that the shift explains; rest, the mean squared difference that it does not. Then of the
    model that never knew other tasks in the place of the fine-tuned one never_n_bound, never_moved
    and never_share, NaN where not all of these seeds have it.
    """
    wanted = ["model", "seed", "alpha", "k", *(m for m in MEASURES if m != "moved"), "is_bound"]
    intervals.require_columns("shifts of in-context regression", shifts, wanted, DO)
    own = of_alpha(shifts, alpha)
    if own.duplicated(["model", "seed", "k"]).any():
        raise InputError(
            "shifts of in-context regression",
            expected="each seed in one setting",
            found="rows twice",
            do="Take one setting: table[table['key'].isin([...])].",
        )
    own = own.assign(moved=own["after"] - own["before"])
    rows = []
    never, own = (own[own["model"] == model] for model in (CONTROL, TUNED))
    for k, of in own.groupby("k"):
        row: dict[str, object] = {
            "alpha": of["alpha"].iloc[0],
            "k": k,
            "n_seeds": len(of),
            "n_bound": int(of["is_bound"].sum()),
        }
        for measure in MEASURES:
            row |= as_columns(measure, over_seeds(of[measure]))
        control = never[(never["k"] == k) & never["seed"].isin(of["seed"])]
        control = control if len(control) == len(of) else control[:0]
        row["never_n_bound"] = int(control["is_bound"].sum()) if len(control) else np.nan
        for measure in NEVER:
            row |= as_columns(f"never_{measure}", over_seeds(control[measure]))
        rows.append(row)
    return pd.DataFrame(rows)


def finding(found: pd.DataFrame) -> str:
    """Say in a clause by how much the inferred task shifts, and what that explains.

    found: from `table`
    """
    row = found[found["k"] == ALL].iloc[0]
    return (
        f"Fine-tuning moves the log-odds of the discrete set by {nats(row, 'n_bound', 'moved')}, "
        f"which explains {estimate_of(row, 'share')} of what changes; "
        f"{control(row) or 'the rest is no shift'}"
    )


def nats(row: pd.Series, n_bound: str, moved: str) -> str:
    """Write a shift of a row of `table`, "at least" where a seed's is the largest that is tried."""
    return f"{'at least ' if row[n_bound] else ''}{estimate_of(row, moved)} nats"


def control(row: pd.Series) -> str:
    """Say in a clause what a shift explains of a model that never knew; "" where it is not stored.

    row: of `table`
    """
    if pd.isna(row["never_share"]):
        return ""
    return (
        "a model that never knew other tasks differs from the one before fine-tuning by a shift of "
        f"{nats(row, 'never_n_bound', 'never_moved')}, which explains "
        f"{estimate_of(row, 'never_share')} of the difference"
    )


def draw(found: pd.DataFrame, gate: Gate) -> Figure:
    """Draw the shifts before and after over the number of examples, and the share they explain.

    found: from `table`; gate: from `implicit_measures.judged`
    """
    never = [f"never_{measure}" for measure in NEVER]
    wanted = ["k", "n_seeds", "n_bound", "never_n_bound", *with_intervals([*MEASURES, *never])]
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
        curve(right, rows, "k", "never_share", "the same of one that never knew", "s", GREY, ":")
        lowest = rows[["share", "never_share"]].min(axis=None)
        right.set_ylim(max(lowest - 0.2, -1.0) if np.isfinite(lowest) and lowest < 0 else 0, 1.05)
        panel(right, "explained by the shift", "examples", "share of the change")
        return framed(figure, said)
