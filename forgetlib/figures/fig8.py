"""Figure 8 of the paper: flipped labels, and beside random ones.

The table has a row a pair of tasks, as Figure 3's; `comparison_table` has a row a kind of labels
and evaluated task: its mean forget ratio.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlib.errors import InputError
from forgetlib.figures import crossanalysis, fig3
from forgetlib.figures.crosstask import CrossTask, cross_table
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.matrix import families_of, legend, undefined_note
from forgetlib.figures.style import (
    BLACK,
    FAMILY_COLOURS,
    GREY,
    TEXT_WIDTH,
    error_bar,
    estimate_text,
    family_handles,
    name_points,
    readable,
    say_where_nothing,
    style,
)

table = cross_table


def draw(cross: CrossTask, described: pd.DataFrame) -> Figure:
    """Draw Figure 8: the matrix of forget ratios after flipped labels, in the way of Figure 3.

    cross: from `crosstask.cross_task`, with condition "flipped"
    described: the family of every task, from `tasks.describe`
    """
    return fig3.draw(cross, described)


def comparison_table(first: CrossTask, second: CrossTask) -> pd.DataFrame:
    """Tabulate the evaluated tasks' mean forget ratios of both matrices, a row a matrix and task.

    Columns: those of `crossanalysis.evaluated_means`.
    """
    return pd.concat([crossanalysis.evaluated_means(cross) for cross in (first, second)])


def draw_comparison(
    first: CrossTask, second: CrossTask, agreement: pd.DataFrame, described: pd.DataFrame
) -> Figure:
    """Draw whether two matrices of the same tasks tell the same, as random and flipped labels do.

    agreement: from `crossanalysis.model_agreement` of these two

    Left, a point an evaluated task: its mean over the tasks trained on. Right, a point a pair.
    """
    if first.tasks != second.tasks:
        raise InputError(
            "comparison of two matrices",
            expected=f"two matrices of the tasks {first.tasks}",
            found=second.tasks,
            do="Compare matrices of the same study.",
        )
    if len(agreement) != 1:
        raise InputError(
            "agreement of the two matrices",
            expected="one row",
            found=f"{len(agreement)}",
            do="Pass crossanalysis.model_agreement([first, second]).",
        )
    first, second, described = readable(first), readable(second), readable(described)
    families = families_of(first.tasks, described)
    shown = [t for t, d in zip(first.tasks, first.defined & second.defined, strict=True) if d]
    x, y = (
        crossanalysis.evaluated_means(c).set_index("eval_task").loc[shown] for c in (first, second)
    )
    kinds = [f"{c.condition} labels" for c in (first, second)]
    with style(first.tasks, families.values()):
        figure = Figure(figsize=(TEXT_WIDTH, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
        for task in shown:
            i = first.tasks.index(task)
            colour = FAMILY_COLOURS.get(families[task], GREY)
            ends = [
                error_bar(rows.loc[task, with_intervals(["mean_ratio"])].to_numpy(float))
                for rows in (y, x)
            ]
            left.errorbar(
                *(x.loc[task, "mean_ratio"], y.loc[task, "mean_ratio"], *ends),
                fmt="o",
                color=colour,
                markeredgecolor=BLACK,
                markeredgewidth=0.5,
                markersize=5,
                ecolor=GREY,
                elinewidth=0.6,
            )
            others = np.arange(len(first.tasks)) != i
            for pairs, marker, edge in ((others, "o", colour), (~others, "s", BLACK)):
                right.plot(
                    first.forget_ratio[i][pairs],
                    second.forget_ratio[i][pairs],
                    marker,
                    color=colour,
                    markeredgecolor=edge,
                    markersize=3,
                )
        (row,) = agreement.to_dict("records")
        found = f"rank correlation\n{estimate_text(row, 'rank_correlation')}"
        left.set_title(f"evaluated-task means (n = {row['n']})\n{found}", loc="left")
        right.set_title(f"all pairs (n = {len(shown) * len(first.tasks)})", loc="left")
        for axes in (left, right):
            say_where_nothing(axes, x["mean_ratio"], "nothing to forget in any task")
            axes.axline((0, 0), slope=1, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
            axes.set_xlabel(f"forget ratio, {kinds[0]}")
            sns.despine(ax=axes)
        left.set_ylabel(f"forget ratio, {kinds[1]}")
        own = Line2D([], [], marker="s", linestyle="", color="white", label="own labels")
        own.set_markeredgecolor(BLACK)
        handles = family_handles([families[t] for t in shown], letters=False)
        legend(figure, [*handles, own], "outside upper center")
        undefined_note(figure, [t for t in first.tasks if t not in shown])
        figure.draw_without_rendering()  # names go between points, which must have their places
        columns = with_intervals(["mean_ratio"])
        name_points(left, x[columns].to_numpy(float), y[columns].to_numpy(float), shown)
    return figure
