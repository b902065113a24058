"""Figure 2b, which the paper has not: is the skill gone, or were the answers only shifted?

Accuracy says what a model answers, AUROC what it knows, blind to a bias of the answers (see
`measures`). The paper's accuracies stand beside ours where it has them. The table is
`measures.table`, a row a task and phase.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.measures import table as table
from forgetlib.figures.names import listed, title
from forgetlib.figures.published import PUBLISHED_FORGET_ACCURACY, in_the_paper
from forgetlib.figures.rows import (
    by_format,
    draw_constants,
    mark,
    set_rows,
)
from forgetlib.figures.style import (
    ACCURACY_MARKS,
    BLACK,
    GREEN,
    SMALL,
    TEXT_WIDTH,
    VERDICT_COLOURS,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    set_finding,
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
    VERDICTS,
)
from forgetlib.metrics import CHANCE

MARKS = {
    "base": ACCURACY_MARKS["base"],
    "tuned": ("fine-tuned", *ACCURACY_MARKS["tuned"][1:]),
    "true": ("after true labels again", "s", GREEN, True),
    "random": ("after random labels", "D", VERMILION, True),
}
KINDS = ("random", "true")  # after fine-tuning: what is judged, and its control
MEASURED = ("accuracy", "auroc")


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence what the verdicts after random labels are, for titles and texts.

    table: from `fig2b.table`
    """
    of = table[table["phase"] == "random"]
    names = {v: [title(t) for t in of.loc[of["verdict"] == v, "eval_task"]] for v in VERDICTS}
    known = len(of) - len(names[NOTHING])
    said = [
        f"{listed(names[v])} {'is' if len(names[v]) == 1 else 'are'} {v}"
        for v in (FORGOTTEN, INVERTED, SHIFTED, DAMAGED, KEPT)
        if names[v]
    ]
    if n := len(names[NOT_DECIDED]):
        undecided = listed(names[NOT_DECIDED]) if n < 4 else n
        said.append(f"{undecided} {'is' if n == 1 else 'are'} not decided")
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


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 2b: accuracy and AUROC side by side, with a verdict a task.

    table: from `fig2b.table`, of one model. Verdicts and order are those after random labels.
    """
    columns = ["eval_task", "phase", "answer_format", "verdict", "true_share"]
    require_columns(table, [*columns, *with_intervals(MEASURED)])
    said = finding(table)
    shown = readable(table)
    of = shown[shown["phase"] == "random"]
    rows = by_format(of, "auroc")
    phases = [p for p in MARKS if p in set(shown["phase"])]
    with style(rows.heights, [said]):
        size = (TEXT_WIDTH, 1.45 + 0.22 * len(rows.heights))
        figure = Figure(figsize=size, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        offsets = np.linspace(0.27, -0.27, len(phases))
        for axes, measure in ((left, "accuracy"), (right, "auroc")):
            for name, offset in zip(phases, offsets, strict=True):
                part = shown[(shown["phase"] == name) & shown["eval_task"].isin(rows.heights)]
                y = rows.of(part["eval_task"]) + offset
                draw_intervals(axes, part, measure, y, *MARKS[name])
            mark(axes, CHANCE)
        draw_constants(left, of, rows)
        names = in_the_paper(table.loc[of.index, "eval_task"])
        _draw_published(left, names, rows.of(of["eval_task"]) + offsets[-1])
        set_rows(left, rows)
        left.set_xlabel("accuracy")
        right.set_xlabel("AUROC (blind to a bias of the answers)")
        for row in of.itertuples():
            right.text(
                *(1.02, rows.heights[row.eval_task], row.verdict),
                transform=right.get_yaxis_transform(),
                va="center",
                fontsize=SMALL,
                color=VERDICT_COLOURS[row.verdict],
            )
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        set_finding(figure, said)
    return figure


def _draw_published(axes: Axes, names: pd.Series, y: np.ndarray) -> None:
    """Mark what the paper reports of these tasks, at heights y (N,); most it does not report."""
    accuracy = names.map(PUBLISHED_FORGET_ACCURACY).to_numpy(float)
    if np.isfinite(accuracy).any():
        axes.plot(
            *(accuracy, y, "^"),
            color=BLACK,
            markerfacecolor="none",
            markersize=6,
            zorder=5,  # over ours, which show through
            label="paper: Llama-2-7B, random labels",
        )
