"""Figure 9 of the paper: several models beside each other.

The table has a row a model and pair of tasks, as Figure 3's.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from forgetlib.errors import InputError
from forgetlib.figures import crossanalysis
from forgetlib.figures.crosstask import CrossTask, cross_table
from forgetlib.figures.matrix import (
    LEAST_CELL,
    draw_matrix,
    families_of,
    family_strip,
    legend,
    name_length,
    ratio_bar,
)
from forgetlib.figures.names import listed, short_name
from forgetlib.figures.numbers import between
from forgetlib.figures.published import PUBLISHED_MODELS
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    SMALL,
    TEXT_WIDTH,
    draw_intervals,
    family_handles,
    readable,
    style,
)


def table(crosses: Sequence[CrossTask]) -> pd.DataFrame:
    """Tabulate the matrices of several models under each other, a row a model and pair of tasks.

    Columns: those of `crosstask.cross_table`.
    """
    return pd.concat([cross_table(cross) for cross in crosses])


def draw(crosses: Sequence[CrossTask], agreement: pd.DataFrame, described: pd.DataFrame) -> Figure:
    """Draw Figure 9: the matrices of several models, in one order of tasks and the same colours.

    agreement: from `crossanalysis.model_agreement`; without rows it is not drawn

    Tasks are in the order of the UPGMA tree of the evaluated tasks' mean matrix. One model is
    Figure 3 again: then no matrix is drawn, and it is said what is missing.
    """
    if len({c.tasks for c in crosses}) != 1:
        raise InputError(
            "matrices of Figure 9",
            expected="at least one matrix, and the same tasks in all",
            found=[c.tasks for c in crosses],
            do="Compute the same study for every model.",
        )
    if len(crosses) == 1:
        return _draw_nothing(crosses[0])
    crosses, described = [readable(c) for c in crosses], readable(described)
    agreement = readable(agreement)
    names = crosses[0].tasks
    mean = np.ma.masked_invalid([c.forget_ratio for c in crosses]).mean(0).filled(np.nan)
    order = crossanalysis.upgma(mean)
    families = families_of(names, described)
    n_down = -(-len(crosses) // 3)
    n_across = -(-len(crosses) // n_down)
    width = 3.9 / n_across  # inches a matrix
    cell = float(np.clip(width / len(names), 0.115, 0.4))
    labelled = 72 * width / len(names) > 8  # points: names of columns do not cover each other
    heights = [*[cell * len(names)] * n_down, 0.13]  # inches, without what is written around them
    around = 0.4 * n_down + labelled * name_length(names) + 0.95
    if len(agreement):
        heights.append(0.3 * len(agreement))
        around += 0.5
    with style(names, families.values(), [c.model for c in crosses]):
        figure = Figure(
            figsize=(TEXT_WIDTH, sum(heights) + around),
            layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, wspace=0.0, hspace=0.0),
        )
        grid = figure.add_gridspec(
            len(heights),
            1 + n_across,
            height_ratios=heights,
            width_ratios=[0.13, *[width] * n_across],
        )
        for line in range(n_down):
            strip = figure.add_subplot(grid[line, 0])
            family_strip(strip, [families[names[i]] for i in order], vertical=True)
            rows = [f"{names[i]} ({crosses[0].n[i]})" for i in order]
            strip.set_yticks(range(len(names)), rows, fontsize=SMALL)
            strip.set_ylabel("evaluated task (n)")
        for number, cross in enumerate(crosses):
            axes = figure.add_subplot(grid[number // n_across, 1 + number % n_across])
            image = draw_matrix(axes, cross, order, order, width=width)
            axes.set_title("\n".join(textwrap.wrap(short_name(cross.model), int(15 * width))))
            if not labelled:
                axes.set_xlabel("same order as rows", fontsize=7)
            elif number // n_across == n_down - 1:
                columns = [names[i] for i in order]
                axes.set_xticks(range(len(names)), columns, fontsize=SMALL, rotation=90)
                axes.set_xlabel("task with random labels", fontsize=7)
        values = 72 * width / len(names) >= LEAST_CELL
        bar = figure.add_subplot(grid[n_down, 1:])
        ratio_bar(bar, image, crosses[0].condition, values=values)
        if len(agreement):
            _agreement(figure.add_subplot(grid[-1, :]), agreement)
        frame = Patch(fill=False, edgecolor=BLACK, linewidth=1.2, label="own labels")
        handles = family_handles(families.values(), letters=True)
        legend(figure, [*handles, frame])
    return figure


def _draw_nothing(cross: CrossTask) -> Figure:
    """Say that there is one model, and which the paper has, on a page that is otherwise empty."""
    model = readable(short_name(cross.model))
    said = [
        f"This study has one model, {model}: there is no other to compare it with.",
        f"Missing are a second one, and the paper's {listed(PUBLISHED_MODELS)}.",
        "The matrix of this model is Figure 3. The study's `models` may name more.",
    ]
    with style([model]):
        figure = Figure(figsize=(TEXT_WIDTH, 0.9))
        for line, text in enumerate(said):
            figure.text(0.01, 0.75 - 0.27 * line, text, fontsize=8, va="center")
    return figure


def _agreement(axes: Axes, table: pd.DataFrame) -> None:
    """Rank correlations of each two models' evaluated-task means."""
    y = np.arange(len(table))[::-1]
    draw_intervals(axes, table, "rank_correlation", y, "", "o", BLUE, True)
    pairs = zip(table["a"], table["b"], strict=True)
    labels = ["\n".join(name.split(",")[0] for name in pair) for pair in pairs]
    axes.set_yticks(y, labels, fontsize=SMALL)
    axes.set_ylim(-0.5, len(table) - 0.5)
    axes.set_xlim(-1.05, 1.05)
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
    n = between(table["n"], 0)
    axes.set_xlabel(f"rank correlation of the evaluated tasks' means (n = {n} tasks)")
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)
