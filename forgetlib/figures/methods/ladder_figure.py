"""Draw the ladder: one panel a method, labels spent against what of the skill is shown.

From left to right: measures other than AUROC, as open marks; other ways to ask; and, joined by
lines, asking directly and after training on so many labels, the one part that has an order.

The tables are `rungs.table`, a row a rung, and `rungs.summary`, a row a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.methods.rungs import KINDS
from forgetlib.figures.names import listed, method_title, methods_or_count, title
from forgetlib.figures.numbers import between, estimate_of, number
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    PURPLE,
    SMALL,
    TEXT_WIDTH,
    VERDICT_COLOURS,
    VERMILION,
    heading,
    marks_of,
    set_finding,
    style,
)
from forgetlib.figures.verdicts import (
    DAMAGED,
    FORGOTTEN,
    GATED,
    INVERTED,
    KEPT,
    MEANINGS,
    NOT_DECIDED,
    NOTHING,
    REMOVED,
    SHIFTED,
    SUPPRESSED,
)
from forgetlib.metrics import CHANCE

LINES = {  # role: (legend, marker, colour)
    "known": ("before forgetting", "o", BLUE),
    "forgotten": ("after forgetting", "D", VERMILION),
    "oracle": ("never taught", "s", GREY),
    "moved": ("changed by another task", "^", GREEN),
    "locked": ("hidden on purpose", "v", PURPLE),
}
SHARES = ("answered", "probe")  # kinds whose measure is a share that is right, and no AUROC
JOINED = ("direct", "relearned")
PER_ROW = 3  # panels
GAP = 0.6  # of places on the axis, between parts of a panel
ASIDE = 0.14  # of places, between models


def finding(summary: pd.DataFrame) -> str:
    """Say in a sentence what became of a skill, method by method.

    summary: from `rungs.summary`, of one skill
    """
    (task,) = set(summary["eval_task"])
    names = {
        v: [method_title(m) for m in summary.loc[summary["verdict"] == v, "method"]]
        for v in MEANINGS
    }
    if names[NOTHING] and len(names[NOTHING]) == len(summary):
        return f"{title(task)} was not shown to be known before forgetting"
    order = (REMOVED, FORGOTTEN, SUPPRESSED, GATED, SHIFTED, INVERTED, KEPT, DAMAGED)
    said = [f"{v} after {listed(names[v])}" for v in order if names[v]]
    if undecided := names[NOT_DECIDED]:
        said.append(f"not decided after {methods_or_count(undecided)}")
    if "oracle_knows" in summary and summary["oracle_knows"].any():
        said.append(
            "models that were never taught it here know it too, so that suppressed and removed "
            "cannot be told apart"
        )
    if "n_seeds" in summary and (summary["n_seeds"] > 1).any() and (summary["n_seeds"] == 1).any():
        several = summary["n_seeds"] > 1
        few = several if several.mean() <= 0.5 else ~several
        those = listed(method_title(str(m)) for m in summary.loc[few, "method"])
        how = ("one seed", "several") if few is several else ("several seeds", "one")
        said.append(f"{how[0]}, but of {those} {how[1]}")
    return f"{title(task)} is {'; '.join(said)}"


def moved(table: pd.DataFrame) -> str:
    """Say what the same methods take of a skill when tried on another task; "": none was.

    table: from `rungs.table`, of one skill
    """
    rows = table[(table["kind"] == "direct") & table["moved"].notna()]
    if rows.empty:
        return ""
    (task,) = set(rows["eval_task"])
    ends = listed(
        f"{estimate_of(row, 'moved')} by {method_title(str(row['method']))} "
        f"({number(row['forgotten'])} where tried on the skill itself)"
        for _, row in rows.iterrows()
    )
    return (
        f"Tried on another task, methods take AUROC on new questions of {title(task)} from "
        f"{between(rows['known'])} to {ends}"
    )


def draw(table: pd.DataFrame, summary: pd.DataFrame, said: str = "") -> Figure:
    """Draw a panel a method: AUROC on each rung, by what the model was taught.

    table, summary: from `rungs.table` and `rungs.summary`, of one skill
    said: what stands above, in the place of `finding`
    """
    do = "Pass the tables of figures.methods.rungs, of one skill."
    wanted = ["eval_task", "method", "rung", "kind", "labels", *with_intervals(LINES)]
    intervals.require_columns("table of the ladder", table, wanted, do)
    intervals.require_columns("summary of the ladder", summary, ["method", "verdict"], do)
    said = said or finding(summary)
    shown = table[~table["kind"].isin(("control", "direction"))]
    methods = list(summary["method"])
    n_columns = min(PER_ROW, len(methods))
    n_rows = -(-len(methods) // n_columns)
    places = _places(shown)
    with style(methods, places, [said]):
        size = (TEXT_WIDTH, 1.5 + 1.6 * n_rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for axes, method in zip(panels.ravel(), methods, strict=False):
            row = summary[summary["method"] == method].iloc[0]
            _panel(axes, shown[shown["method"] == method], row, places)
        for axes in panels.ravel()[len(methods) :]:  # their names of rungs are the column's
            axes.grid(visible=False)
            axes.tick_params(left=False, labelleft=False)
            sns.despine(ax=axes, left=True, bottom=True)
        for axes in panels[-1]:
            axes.set_xticks(list(places.values()), list(places), rotation=90, fontsize=SMALL)
        for axes in panels[:, 0]:
            axes.set_ylabel("AUROC (open: share right)", fontsize=SMALL)
            axes.tick_params(axis="y", labelsize=SMALL)
        legend_below(figure, panels)
        set_finding(figure, said)
    return figure


def legend_below(figure: Figure, panels: np.ndarray, **given: Any) -> None:
    """Name below a figure each mark that any of its panels has, once, in one row."""
    figure.legend(
        *marks_of(panels.ravel()),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        columnspacing=1.0,
        handlelength=1.5,
        **given,
    )


def _group(kind: str) -> int:
    """Number the part of a panel in which a kind of rung stands."""
    return 0 if kind in SHARES else 2 if kind in JOINED else 1


def _places(rows: pd.DataFrame) -> dict[str, float]:
    """Give each rung its place on the axis, with a gap between the parts of a panel."""
    kinds = {
        row.rung: (_group(row.kind), KINDS.index(row.kind), row.labels) for row in rows.itertuples()
    }
    ordered = sorted(kinds, key=lambda rung: kinds[rung])
    parts = sorted({kinds[rung][0] for rung in ordered})
    return {rung: i + GAP * parts.index(kinds[rung][0]) for i, rung in enumerate(ordered)}


def _panel(axes: Axes, rows: pd.DataFrame, row: pd.Series, places: Mapping[str, float]) -> None:
    """Draw one method's ladder."""
    axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    rows = rows.assign(x=rows["rung"].map(places)).sort_values("x")
    there = [role for role in LINES if rows[role].notna().any()]
    for i, role in enumerate(there):
        label, marker, colour = LINES[role]
        aside = (i - (len(there) - 1) / 2) * ASIDE  # so that marks of one rung stay apart
        for group, of in rows[rows[role].notna()].groupby(rows["kind"].map(_group)):
            x, values = of["x"].to_numpy() + aside, of[with_intervals([role])].to_numpy(float)
            errors = np.abs(values[:, 1:] - values[:, :1]).T
            axes.errorbar(
                *(x, values[:, 0], np.nan_to_num(errors)),
                label=label,
                marker=marker,
                color=colour,
                markerfacecolor="white" if group == 0 else colour,
                markersize=3,
                linewidth=1,
                elinewidth=0.8,
                linestyle="-" if group == 2 else "none",
                zorder=3 if role == "forgotten" else 2,
            )
    ends = sorted(places.values())
    axes.set_xlim(-0.6, ends[-1] + 0.6)
    for left, right in pairwise(ends):
        if right - left > 1:
            axes.axvline((left + right) / 2, color=LIGHT, linewidth=0.8)
    verdict = str(row["verdict"])
    axes.set_title(f"{heading(method_title(str(row['method'])))}\n\n", fontsize=7, loc="left")
    text = f"{verdict}\n"
    if "residue" in row and np.isfinite(row["residue"]):
        text += f"residue {estimate_of(row, 'residue')}"
    written = axes.text(
        *(0, 1.03, text),
        transform=axes.transAxes,
        fontsize=SMALL - 0.5,
        color=VERDICT_COLOURS[verdict],
    )
    written.set_in_layout(False)  # a long one may end over the next panel's edge
    axes.grid(axis="x", visible=False)
    sns.despine(ax=axes)
