"""Figure 2b, which the paper has not: is the skill gone, or were the answers only shifted?

Accuracy says what a model answers, AUROC what it knows, blind to a bias of the answers (see
`measures`). The table is `measures.table`, a row a task and phase.
"""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.measures import table as table
from forgetlib.figures.names import listed, title
from forgetlib.figures.style import (
    ACCURACY_MARKS,
    BLACK,
    BLUE,
    DARK_GREY,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    SMALL,
    TEXT_WIDTH,
    TITLE_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    style,
)
from forgetlib.figures.verdicts import (
    DAMAGED,
    FORGOTTEN,
    INVERTED,
    KEPT,
    NOT_DECIDED,
    NOTHING,
    SHIFTED,
)
from forgetlib.metrics import CHANCE

MARKS = {
    "base": ACCURACY_MARKS["base"],
    "tuned": ("fine-tuned", *ACCURACY_MARKS["tuned"][1:]),
    "true": ("after true labels again", "s", GREEN, True),
    "random": ("after random labels", "D", VERMILION, True),
}
COLOURS = {
    KEPT: GREEN,
    SHIFTED: ORANGE,
    FORGOTTEN: VERMILION,
    INVERTED: PURPLE,
    DAMAGED: BLACK,
    NOTHING: GREY,
    NOT_DECIDED: BLUE,
}
KINDS = ("random", "true")  # after fine-tuning: what is judged, and its control
FORMATS = {"text": "free answers", "verbaliser": "fixed answers"}
MEASURED = ("accuracy", "auroc")


def finding(table: pd.DataFrame, phase: str = "random") -> str:
    """Say in a sentence what the verdicts are, for titles and texts.

    table: from `fig2b.table`; phase: of which the verdicts are
    """
    of = table[table["phase"] == phase]
    names = {v: [title(t) for t in of.loc[of["verdict"] == v, "eval_task"]] for v in COLOURS}
    known = len(of) - len(names[NOTHING])
    said = [
        f"{listed(names[v])} {'is' if len(names[v]) == 1 else 'are'} {v}"
        for v in (FORGOTTEN, INVERTED, SHIFTED, DAMAGED, KEPT)
        if names[v]
    ]
    if names[NOT_DECIDED]:
        n = len(names[NOT_DECIDED])
        said.append(f"{n} {'is' if n == 1 else 'are'} not decided")
    if not known:
        return "No task was shown to be known before forgetting"
    found = f"Of {known} tasks that were known, {'; '.join(said)}"
    # Without it, a skill may have gone with the language model itself.
    measured = "damage" in of and of["damage"].notna().any()
    return (
        found
        if measured or not names[FORGOTTEN]
        else f"{found} (harm to other tasks was not measured)"
    )


def draw(table: pd.DataFrame, phase: str = "random") -> Figure:
    """Draw Figure 2b: accuracy and AUROC side by side, with a verdict a task.

    table: from `fig2b.table`, of one model; phase: what the verdicts and the order are of
    """
    columns = ["eval_task", "phase", "answer_format", "verdict", "true_share"]
    require_columns(table, [*columns, *with_intervals(MEASURED)])
    said = readable(finding(table, phase))
    shown = readable(table)
    of = shown[shown["phase"] == phase].sort_values("auroc")
    order = [t for f in FORMATS for t in of.loc[of["answer_format"] == f, "eval_task"]]
    n_free = int((of["answer_format"] == "text").sum())
    place = {task: i + (i >= n_free > 0) for i, task in enumerate(order)}  # a gap between formats
    phases = [p for p in MARKS if p in set(shown["phase"])]
    top = max(place.values(), default=0) + 0.6
    with style(order, [said]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.45 + 0.22 * len(order)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, measure in ((left, "accuracy"), (right, "auroc")):
            offsets = np.linspace(0.27, -0.27, len(phases))
            for name, offset in zip(phases, offsets, strict=True):
                rows = shown[(shown["phase"] == name) & shown["eval_task"].isin(order)]
                y = rows["eval_task"].map(place).to_numpy(float) + offset
                draw_intervals(axes, rows, measure, y, *MARKS[name])
            axes.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
            axes.grid(axis="y", visible=False)
            axes.set_ylim(-0.7, top)
            sns.despine(ax=axes, left=True)
        _draw_constants(left, of, place)
        left.set_yticks(list(place.values()), list(place))
        left.set_xlabel("accuracy")
        right.set_xlabel("AUROC (blind to a bias of the answers)")
        for row in of.itertuples():
            right.text(
                *(1.02, place[row.eval_task], row.verdict),
                transform=right.get_yaxis_transform(),
                va="center",
                fontsize=SMALL,
                color=COLOURS[row.verdict],
            )
        _name_formats(left, n_free, len(order))
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(textwrap.fill(said, TITLE_WIDTH), fontsize=8, x=0.01, ha="left")
    return figure


def _draw_constants(axes: Axes, of: pd.DataFrame, place: dict[str, int]) -> None:
    """Mark the accuracy that one answer to everything reaches, in tasks with fixed answers."""
    fixed = of[of["true_share"] > CHANCE]
    y = fixed["eval_task"].map(place).to_numpy(float)
    label = "one answer to everything"
    if len(fixed):
        x = fixed["true_share"]
        axes.plot(x, y, "|", color=DARK_GREY, markersize=11, label=label, zorder=1)


def _name_formats(axes: Axes, n_free: int, n: int) -> None:
    if 0 < n_free < n:
        axes.axhline(n_free, color=LIGHT, linewidth=0.8)
        for y, va, name in ((n_free - 0.1, "top", "text"), (n_free + 0.1, "bottom", "verbaliser")):
            axes.text(
                *(-0.02, y, FORMATS[name]),
                transform=axes.get_yaxis_transform(),
                ha="right",
                va=va,
                fontsize=SMALL,
                color=DARK_GREY,
                style="italic",
            )
