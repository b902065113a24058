"""Place tasks in rows, grouped by the format of their answers.

What Figures 2, 2b, 5, 6, 7 and those over models have in common.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from forgetlib.errors import InputError
from forgetlib.figures import intervals
from forgetlib.figures.names import listed, title
from forgetlib.figures.style import BLACK, DARK_GREY, LIGHT, SMALL
from forgetlib.metrics import CHANCE

FORMATS = {"text": "free answers", "verbaliser": "fixed answers"}


@dataclass(frozen=True)
class Rows:
    """Heights of tasks from below: those with free answers, a gap, those with fixed ones."""

    heights: dict[str, int]
    n_free: int

    def of(self, tasks: pd.Series) -> np.ndarray:
        """Look up the heights of these tasks: (N,)."""
        return tasks.map(self.heights).to_numpy(float)


def with_formats(table: pd.DataFrame, described: pd.DataFrame) -> pd.DataFrame:
    """Add to a table the column answer_format of each row's task.

    described: from `tasks.describe`; InputError where one of the table's tasks is not in it
    """
    do = "Pass tasks.describe(...) of all tasks."
    intervals.require_columns("formats", described, ["eval_task", "answer_format"], do)
    formats = dict(zip(described["eval_task"], described["answer_format"], strict=True))
    if unknown := [task for task in table["eval_task"] if task not in formats]:
        raise InputError(
            "formats of the tasks",
            expected=f"one for {', '.join(dict.fromkeys(unknown))}",
            found=f"those of {', '.join(formats) or 'none'}",
            do=do,
        )
    return table.assign(answer_format=table["eval_task"].map(formats))


def by_format(table: pd.DataFrame, column: str) -> Rows:
    """Sort a table's tasks by a column within each format, the largest on top.

    table: one row a task, with columns eval_task and answer_format; undefined values are below
    """
    of = table.sort_values(column, na_position="first")
    order = [t for f in FORMATS for t in of.loc[of["answer_format"] == f, "eval_task"]]
    n_free = int((of["answer_format"] == "text").sum())
    return Rows({task: i + (i >= n_free > 0) for i, task in enumerate(order)}, n_free)


def set_rows(axes: Axes, rows: Rows) -> None:
    """Name the rows at the left of a panel, and the formats where there are both."""
    heights = list(rows.heights.values())
    axes.set_yticks(heights, list(rows.heights))
    axes.set_ylim(-0.7, max(heights, default=0) + 0.6)
    if not 0 < rows.n_free < len(heights):
        return
    axes.axhline(rows.n_free, color=LIGHT, linewidth=0.8)
    for y, va, name in ((-0.1, "top", "text"), (0.1, "bottom", "verbaliser")):
        axes.text(
            *(-0.02, rows.n_free + y, FORMATS[name]),
            transform=axes.get_yaxis_transform(),
            ha="right",
            va=va,
            fontsize=SMALL,
            color=DARK_GREY,
            style="italic",
        )


def mark(axes: Axes, x: float) -> None:
    """Draw a dashed line at chance, or at no difference, and leave only the axis below."""
    axes.axvline(x, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)  # over the grid
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)


def draw_constants(axes: Axes, table: pd.DataFrame, rows: Rows) -> None:
    """Mark the accuracy that one answer to everything reaches, in tasks with fixed answers.

    table: one row a task, with columns eval_task and true_share
    """
    fixed = table[table["true_share"] > CHANCE]
    if len(fixed):
        axes.plot(
            *(fixed["true_share"], rows.of(fixed["eval_task"]), "|"),
            color=DARK_GREY,
            markersize=11,
            label="one answer to everything",
            zorder=1,
        )


def seeds_text(values: Iterable[float]) -> str:
    """Write the values of the seeds as a table keeps them, in one column: "0.48 0.525"."""
    return " ".join(f"{value:.6g}" for value in values)


def draw_seeds(
    axes: Axes, table: pd.DataFrame, column: str, heights: np.ndarray, colour: str
) -> None:
    """Draw each seed's value as a dot behind the mean, where there are several.

    table: with the column `<column>_seeds`, from `seeds_text`; heights: (N,) of its rows
    """
    for text, height in zip(table[f"{column}_seeds"], heights, strict=True):
        values = [float(value) for value in text.split()]
        if len(values) > 1:
            axes.scatter(values, [height] * len(values), s=8, color=colour, linewidth=0, zorder=1.5)


def skill_of(table: pd.DataFrame) -> str:
    """Return the one skill that a table is of; InputError where it is of several, or of none."""
    found = sorted(set(table["eval_task"]))
    if len(found) != 1:
        raise InputError(
            "table of methods",
            expected="one skill",
            found=", ".join(map(str, found)) or "none",
            do="Take one at a time: table[table['eval_task'] == ...].",
        )
    return str(found[0])


def names_or_count(tasks: Iterable[str]) -> str:
    """Write tasks as a sentence has them: up to three by their titles, of more how many."""
    every = [title(task) for task in tasks]
    return listed(every) if 0 < len(every) <= 3 else str(len(every))
