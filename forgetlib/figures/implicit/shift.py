"""Show forgetting as one number: the shift of the inferred task, and how much of the change it is.

Not in arXiv 2309.10105: delta, in nats of log-odds of the discrete set, is fitted to the fine-tuned
model's predictions (`forgetlib.implicit.shift`); the rest of its change no shift explains. What
else would explain as much is asked, too: a fade of all answers alike, and, as one that is large
enough describes a model without the other tasks, how large it is for one that never knew them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.errors import InputError
from forgetlib.figures import intervals
from forgetlib.figures.implicit.lines import curve, framed, panel
from forgetlib.figures.implicit.measures import DO, Gate, of_alpha, over_seeds, title
from forgetlib.figures.intervals import as_columns, with_intervals
from forgetlib.figures.numbers import estimate_of, number
from forgetlib.figures.style import BLACK, BLUE, GREEN, GREY, TEXT_WIDTH, VERMILION, style
from forgetlib.implicit.evaluate import CONTROL_COLUMNS

MEASURES = ("before", "after", "moved", "share", "rest", "change")
TOLD = ("fade_share", "beyond_fade", "never_moved", "never_share")  # by the controls
TUNED, NEVER = "fine-tuned", "discrete-only"
ALL = -1  # in the place of a number of examples: one fit over all


def table(
    shifts: pd.DataFrame, alpha: float | None = None, controls: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Average the fitted shifts over seeds, for each number of examples and over all.

    shifts: "shifts" of `forgetlib.implicit.results.read`; alpha: the mixture weight
    controls: "controls" of it

    Columns: alpha, k (examples; -1 all), n_seeds, n_bound (seeds whose shift after is as large as
    is tried, so that it is at least so many nats), and with Student's t intervals over seeds, which
    each have their own prompts: before and after, shifts of the two models against Bayes in nats;
    moved, after less before; change, the mean squared difference of their predictions; share, of
    it, that the shift explains; rest, the mean squared difference that it does not. Then, NaN where
    not all of these seeds have controls: fade_share, what a fade explains; beyond_fade, how much
    more the shift does, of the same models; never_moved, never_share and never_n_bound, the shift
    to a model that never knew other tasks, what it explains, and in how many seeds it is as large
    as is tried.
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
    tuned, never = told(controls, set(own["seed"]), own["alpha"].iloc[0])
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
        fade, whole = tuned[tuned["k"] == k], never[never["k"] == k]
        row["never_n_bound"] = int(whole["is_bound"].sum()) if len(whole) else np.nan
        row |= as_columns("fade_share", over_seeds(fade["fade_share"]))
        row |= as_columns("beyond_fade", over_seeds(fade["share"] - fade["fade_share"]))
        row |= as_columns("never_moved", over_seeds(whole["after"] - whole["before"]))
        row |= as_columns("never_share", over_seeds(whole["share"]))
        rows.append(row)
    return pd.DataFrame(rows)


def told(
    controls: pd.DataFrame | None, seeds: set[int], alpha: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take the controls' rows of the fine-tuned model, and those of the one that never knew.

    None where a seed lacks them, as a mean over other seeds would be compared with one over all.
    """
    if controls is None:
        controls = pd.DataFrame(columns=list(CONTROL_COLUMNS))
    own = controls[(controls["alpha"] == alpha) & controls["seed"].isin(seeds)]
    if set(own["seed"]) != seeds:
        own = own[:0]
    return own[own["model"] == TUNED], own[own["model"] == NEVER]


def finding(found: pd.DataFrame) -> str:
    """Say in a clause by how much the inferred task shifts, and what else explains as much.

    found: from `table`
    """
    row = found[found["k"] == ALL].iloc[0]
    said = (
        f"A shift of the guess by {nats(row)} towards the tasks of fine-tuning explains "
        f"{estimate_of(row, 'share')} of what that changes"
    )
    if pd.isna(row["fade_share"]):
        return f"{said}; {by_examples(found)}"
    return f"{said}, {by_fade(row)}; {by_examples(found)}"


def exact(found: pd.DataFrame) -> str:
    """Say the same, and the shift to a model that never knew other tasks. found: from `table`."""
    row = found[found["k"] == ALL].iloc[0]
    never = "" if pd.isna(row["never_share"]) else f"; {by_never(row)}"
    return f"{finding(found)}{never}"


def nats(row: pd.Series, moved: str = "moved", n_bound: str = "n_bound") -> str:
    """Write a shift of a row of `table`; where a seed's is the largest tried, only "at least"."""
    if row[n_bound]:
        return f"at least {number(row[moved], 0)} nats"
    return f"{estimate_of(row, moved)} nats"


def by_fade(row: pd.Series) -> str:
    """Compare what the shift explains with what a fade does. row: of `table`."""
    if row["beyond_fade_high"] < 0:
        said = "less"
    else:
        said = "more" if row["beyond_fade_low"] > 0 else "not shown to be more"
    return (
        f"{said} than the {number(row['fade_share'])} that a fade of all answers explains "
        f"(difference: {estimate_of(row, 'beyond_fade')})"
    )


def by_examples(found: pd.DataFrame) -> str:
    """Say whether the shift is one number, as one wrong guess would be. found: from `table`."""
    of = found[found["k"] > 0]
    few, many = of.loc[of["k"].idxmin()], of.loc[of["k"].idxmax()]
    at = f"at {few['k']:g} example{'s' if few['k'] > 1 else ''}"
    both = f"{nats(few)} {at} and {nats(many)} at {many['k']:g}"
    if few["moved_high"] < many["moved_low"] or many["moved_high"] < few["moved_low"]:
        return f"the shift is {both}, and so no single wrong guess"
    return f"the shift is {both}"


def by_never(row: pd.Series) -> str:
    """Tell the shift to a model that never knew other tasks. row: of `table`."""
    return (
        f"to a model that never knew other tasks it is {nats(row, 'never_moved', 'never_n_bound')},"
        f" which explains {estimate_of(row, 'never_share')} of the difference"
    )


def draw(found: pd.DataFrame, gate: Gate) -> Figure:
    """Draw the shifts before and after over the number of examples, and the share they explain.

    found: from `table`; gate: from `measures.judged`
    """
    wanted = ["k", "n_seeds", "n_bound", "never_n_bound", *with_intervals([*MEASURES, *TOLD])]
    intervals.require_columns("table of shifts", found, wanted, "Pass implicit.shift.table.")
    said = title(finding(found), gate, int(found["n_seeds"].max()))
    rows = found[found["k"] >= 0]
    with style([said]):
        figure = Figure(figsize=(TEXT_WIDTH, 2.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for axes in (left, right):
            axes.axhline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        curve(left, rows, "k", "before", "pre-trained", "o", BLUE)
        curve(left, rows, "k", "after", "fine-tuned", "D", VERMILION)
        asked = rows[rows["k"] > 0]  # without examples a shift is hardly told: its band is cut
        least = min(0.0, asked[["before_low", "after_low"]].min(axis=None))
        most = max(asked["after_high"].max(), rows["after"].max())
        if np.isfinite([least, most]).all() and most > least:
            left.set_ylim(least - 0.1 * (most - least), most + 0.1 * (most - least))
        panel(left, "shift against Bayes", "examples", "nats of log-odds")
        curve(middle, rows, "k", "change", "change of predictions", "s", BLACK)
        curve(middle, rows, "k", "rest", "of it no shift", "^", GREEN)
        middle.set_ylim(bottom=0)
        panel(middle, "what changed", "examples", "mean squared difference")
        curve(right, rows, "k", "share", "share that the shift explains", "v", VERMILION, ":")
        curve(right, rows, "k", "fade_share", "that a fade of all answers explains", "x", GREY, ":")
        lowest = rows[["share", "fade_share"]].min(axis=None)
        right.set_ylim(max(lowest - 0.2, -1.0) if np.isfinite(lowest) and lowest < 0 else 0, 1.05)
        panel(right, "explained by the shift", "examples", "share of the change")
        return framed(figure, said)
