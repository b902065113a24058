"""Figures 3, 8 and 9: matrices of tasks forgotten by other tasks' labels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from scipy.cluster.hierarchy import dendrogram

from forgetlib import crosstask
from forgetlib.crosstask import CrossTask, short_name
from forgetlib.plots.common import (
    BLACK,
    BLUE,
    FAMILY_COLOURS,
    GREY,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    count_text,
    error_bar,
    estimate_text,
    family_handles,
    family_letters,
    intervals,
    name_points,
    readable,
    require_columns,
    require_rows,
    say_where_nothing,
    style,
    with_intervals,
)
from forgetlib.schema import InputError

# Blue where the model got better, white where it forgot nothing, vermilion where it is at chance,
# and darker where it is below. Lighter is less at any point above 0, in print without colour too.
RATIO_LIMITS = (-0.5, 1.5)
RATIO_COLOURS = mpl.colors.LinearSegmentedColormap.from_list(
    "forget ratio",
    [(0, BLUE), (0.25, "#ffffff"), (0.5, "#f6b26b"), (0.75, VERMILION), (1, "#451c00")],
)
LEAST_CELL = 12  # points, the width that two digits need
ALL_FORGOTTEN = {"random": "at chance", "flipped": "inverted"}  # what a ratio of 1 means


def cross_task(cross: CrossTask, described: pd.DataFrame) -> Figure:
    """Figures 3 and 8: the forget ratio of each task after the labels of each task.

    described: the family of every task, from `tasks.describe`

    Rows and columns are sorted by UPGMA trees of their own. Framed: a task's own labels. Italics:
    the 95 % interval includes 0; where there is room, it stands below the value. Hatched: tasks
    whose ratio is undefined.
    """
    cross, described = readable(cross), readable(described)
    ratio, n_tasks = cross.forget_ratio, len(cross.tasks)
    rows, row_tree = crosstask.upgma(ratio)
    columns, column_tree = crosstask.upgma(ratio.T)
    cell = float(np.clip(3.6 / n_tasks, 0.185, 0.5))  # inches
    families = _families(cross.tasks, described)
    with style(cross.tasks, families.values()):
        figure = Figure(
            figsize=(TEXT_WIDTH, 1.65 + cell * n_tasks + _name_length(cross.tasks)),
            layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0),
        )
        grid = figure.add_gridspec(
            4, 3, height_ratios=[0.3, cell * n_tasks, 0.12, 0.12], width_ratios=[0.13, 3.6, 0.3]
        )
        heat = figure.add_subplot(grid[1, 1])
        image = _matrix(heat, cross, rows, columns)
        strips = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[2, 1])
        _tree(figure.add_subplot(grid[0, 1]), column_tree, len(columns), "top")
        _tree(figure.add_subplot(grid[1, 2]), row_tree, len(rows), "right")
        size = 6.5 if n_tasks > 12 else 7.5
        names = [f"{cross.tasks[i]} ({cross.n[i]})" for i in rows]
        _family_strip(strips[0], [families[cross.tasks[i]] for i in rows], vertical=True)
        _family_strip(strips[1], [families[cross.tasks[i]] for i in columns], vertical=False)
        strips[0].set_yticks(range(n_tasks), names, fontsize=size)
        strips[0].set_ylabel("evaluated task (test examples)")
        labels = [cross.tasks[i] for i in columns]
        strips[1].set_xticks(range(n_tasks), labels, fontsize=size, rotation=90)
        strips[1].set_xlabel(f"task trained on with {cross.condition} labels")
        _ratio_bar(figure.add_subplot(grid[3, 1]), image, cross.condition)
        frame = Patch(fill=False, edgecolor=BLACK, linewidth=1.2, label="own labels")
        handles = family_handles(families.values(), letters=True)
        _legend(figure, [*handles, frame], "outside lower center")
    return figure


def _matrix(
    axes: Axes,
    cross: CrossTask,
    rows: np.ndarray,
    columns: np.ndarray,
    *,
    width: float = 3.55,
) -> AxesImage:
    """One cross-task matrix in this order of rows and columns; `width` inches tell what fits."""
    table = crosstask.cross_table(cross).set_index(["eval_task", "forget_task"])
    n_tasks = len(cross.tasks)
    ratio = cross.forget_ratio[np.ix_(rows, columns)]
    with np.errstate(invalid="ignore"):
        image = axes.imshow(
            ratio, cmap=RATIO_COLOURS, vmin=RATIO_LIMITS[0], vmax=RATIO_LIMITS[1], aspect="auto"
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    room = 72 * width / n_tasks  # points a cell
    for y, evaluated in enumerate(rows):
        if not cross.defined[evaluated]:
            axes.add_patch(
                Rectangle(
                    (-0.5, y - 0.5), n_tasks, 1, facecolor="#eeeeee", edgecolor=GREY, hatch="////"
                )
            )
            axes.text(
                (n_tasks - 1) / 2,
                y,
                "nothing to forget",
                ha="center",
                va="center",
                fontsize=SMALL,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                zorder=4,
            )
        for x, forgotten in enumerate(columns):
            if evaluated == forgotten:
                axes.add_patch(
                    Rectangle(
                        (x - 0.5, y - 0.5),
                        1,
                        1,
                        fill=False,
                        edgecolor=BLACK,
                        linewidth=1.2 if room > LEAST_CELL else 0.7,
                        zorder=3,
                    )
                )
            if not np.isfinite(ratio[y, x]) or room < LEAST_CELL:
                continue
            row = table.loc[(cross.tasks[evaluated], cross.tasks[forgotten])]
            low, high = row["forget_ratio_low"], row["forget_ratio_high"]
            interval = room > 40 and np.isfinite(low)
            colour = _readable_on(image.cmap(image.norm(ratio[y, x])))
            text: dict[str, Any] = {"ha": "center", "color": colour}
            if not (low > 0 or high < 0):
                text |= {"alpha": 0.7, "style": "italic"}
            axes.text(
                x,
                y - (0.03 if interval else 0),
                _two_digits(ratio[y, x]),
                va="bottom" if interval else "center_baseline",
                fontsize=6 if room < 20 else 7.5,
                **text,
            )
            if interval:
                bounds = f"{_two_digits(low)}, {_two_digits(high)}"
                axes.text(x, y + 0.06, bounds, va="top", fontsize=6, **text)
    return image


def _name_length(names: Sequence[str]) -> float:
    """Inches that the longest name takes, as the label of a row or column."""
    return max(map(len, names)) * 0.6 * SMALL / 72


def _readable_on(colour: Any) -> str:
    """White or black, whichever the colour's luminance leaves readable (WCAG's weights)."""
    red, green, blue = mpl.colors.to_rgb(colour)
    return "white" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.2 else BLACK


def _two_digits(value: float) -> str:
    """ ".87", "1.2", "-.05": what fits into a small cell."""
    if abs(value) >= 0.995:
        return f"{value:.1f}"
    return f"{value:.2f}".replace("0.", ".").replace("-.00", ".00")


def _tree(axes: Axes, tree: np.ndarray, n_leaves: int, side: str) -> None:
    """A UPGMA tree beside a matrix, whose first rows (or columns) are its leaves."""
    axes.set_axis_off()
    if len(tree):
        drawn = dendrogram(tree, no_plot=True)
        for at, height in zip(drawn["icoord"], drawn["dcoord"], strict=True):
            leaves = (np.array(at) - 5) / 10  # SciPy puts leaves at 5, 15, 25, ...
            ends = (leaves, height) if side == "top" else (height, leaves)
            axes.plot(*ends, color=BLACK, linewidth=0.7)
    if side == "top":
        axes.set_xlim(-0.5, n_leaves - 0.5)
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylim(n_leaves - 0.5, -0.5)
        axes.set_xlim(left=0)


def _families(tasks: Sequence[str], described: pd.DataFrame) -> dict[str, str]:
    require_columns(described, ["eval_task", "family"])
    families = dict(zip(described["eval_task"], described["family"], strict=True))
    if unknown := [task for task in tasks if task not in families]:
        raise InputError(
            "families of the tasks",
            expected=f"one for {', '.join(unknown)}",
            found=f"those of {', '.join(families)}",
            do="Pass tasks.describe(...) of all tasks.",
        )
    return {task: families[task] for task in tasks}


def _family_strip(axes: Axes, families: Sequence[str], *, vertical: bool) -> None:
    """A cell in its family's colour, and with its letter, for each task."""
    letters = family_letters(families)
    for i, family in enumerate(families):
        colour = FAMILY_COLOURS.get(family, GREY)
        corner, middle = ((0, i - 0.5), (0.5, i)) if vertical else ((i - 0.5, 0), (i, 0.5))
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.6))
        axes.text(
            middle[0],
            middle[1],
            letters[family],
            ha="center",
            va="center_baseline",
            fontsize=6,
            color=_readable_on(colour),
        )
    along, across = (axes.set_ylim, axes.set_xlim) if vertical else (axes.set_xlim, axes.set_ylim)
    along((len(families) - 0.5, -0.5) if vertical else (-0.5, len(families) - 0.5))
    across(0, 1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _ratio_bar(axes: Axes, image: AxesImage, condition: str, *, values: bool = True) -> None:
    """The colours of a forget ratio, with what 0 and 1 mean; and, of written values, italics."""
    bar = axes.figure.colorbar(image, cax=axes, orientation="horizontal", extend="both")
    bar.outline.set_visible(False)
    bar.set_ticks(
        [-0.5, 0, 0.5, 1, 1.5],
        labels=["−0.5", "0: nothing", "0.5", f"1: {ALL_FORGOTTEN[condition]}", "1.5"],
    )
    if values:
        bar.set_label("italics: the 95 % interval includes 0", fontsize=SMALL)
    axes.annotate(
        "forget ratio",
        (0, 0.5),
        xytext=(-18, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="center",
        in_layout=False,  # the matrix stays as wide as it is
    )


Place = Literal["outside upper center", "outside lower center"]


def _legend(figure: Figure, handles: Sequence[Artist], place: Place) -> None:
    figure.legend(
        handles=handles,
        loc=place,
        ncols=min(len(handles), 4),
        frameon=False,
        handlelength=1,
        handleheight=1,
        handletextpad=0.4,
        columnspacing=1.2,
    )


def cross_task_summary(cross: CrossTask, shares: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """Figure 3, beside the matrix: what its variance is due to, and own against other labels.

    shares: from `crosstask.variance_shares`
    own: from `crosstask.own_against_others`. The best other task is named for its ratio on all
        data, so that its ratio flatters it; the difference in accuracy is measured on other data
        than it was picked on.

    The shares' intervals are over examples, and those of the differences speak of these runs.
    """
    require_columns(shares, ["source", "share", "share_low", "share_high"])
    columns = ["eval_task", "own", "best_other", "best_other_ratio", "picked_on"]
    require_columns(own, [*columns, *with_intervals(["difference"])])
    do = "Pass crosstask.own_against_others(...) of this matrix."
    named = [*own["eval_task"], *own["best_other"].dropna()]
    require_rows(pd.DataFrame({"eval_task": cross.tasks}), "eval_task", named, do)
    rows = readable(own).sort_values("difference", na_position="first").reset_index(drop=True)
    cross = readable(cross)
    cells = crosstask.cross_table(cross).set_index(["eval_task", "forget_task"])
    y, top = np.arange(len(rows)), np.arange(len(shares))[::-1]
    heights = [0.19 * len(shares), 0.21 * len(rows)]
    with style(cross.tasks):
        figure = Figure(
            figsize=(TEXT_WIDTH, 1.9 + sum(heights)), layout=ConstrainedLayoutEngine(hspace=0.05)
        )
        grid = figure.add_gridspec(2, 2, height_ratios=heights, width_ratios=[1.25, 1])
        above = figure.add_subplot(grid[0, :])
        intervals(above, shares, "share", top, "", "o", BLACK, True)
        why = "undefined: it takes two tasks with something to forget, and ratios that differ"
        say_where_nothing(above, shares["share"], why)
        above.set_yticks(top, [*shares["source"]])
        above.set_ylim(-0.6, len(top) - 0.4)
        size = f"{int(cross.defined.sum())} × {len(cross.tasks)} pairs"
        above.set_xlabel(f"share of the forget ratio's variance ({size})")
        left = figure.add_subplot(grid[1, 0])
        right = figure.add_subplot(grid[1, 1], sharey=left)
        for partner, label, marker, colour, offset in (
            ("eval_task", "own labels", "D", VERMILION, 0.16),
            ("best_other", "best other task's", "o", BLUE, -0.16),
        ):
            known = (rows[partner].notna() & rows["own"].notna()).to_numpy()
            pairs = list(zip(rows["eval_task"][known], rows[partner][known], strict=True))
            found = cells.loc[pairs]
            intervals(left, found, "forget_ratio", y[known] + offset, label, marker, colour, True)
        alone = len(cross.tasks) == 1 and bool(cross.defined[0])
        for line in y[rows["best_other"].isna()]:
            (right if alone else left).annotate(
                "no other task" if alone else "nothing to forget",
                (0.02, line),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=SMALL,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        intervals(right, rows, "difference", y, "", "o", BLACK, True)
        n = dict(zip(cross.tasks, cross.n, strict=True))
        left.set_yticks(y, [f"{task} ({n[task]})" for task in rows["eval_task"]])
        left.set_ylim(-0.6, len(rows) - 0.4)
        left.set_ylabel("evaluated task (n)")
        left.set_xlabel("forget ratio")
        left.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
            ncols=2,
            frameon=False,
            handletextpad=0.1,
            columnspacing=0.8,
        )
        picked_on = f"of these runs, picked on\n{own['picked_on'].iloc[0]}"
        above_0 = "(above 0: the other forgets more)"
        right.set_xlabel(f"accuracy: own − best other\n{picked_on}\n{above_0}")
        right.tick_params(labelleft=False)
        names = right.secondary_yaxis("right")
        names.set_yticks(y, rows["best_other"].fillna(""))
        names.tick_params(length=0)
        names.set_ylabel("best other task")
        for axes in (above, left, right):
            axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
            axes.grid(axis="y", visible=False)
            sns.despine(ax=axes, left=True)
        names.spines[:].set_visible(False)
    return figure


def compare(
    first: CrossTask, second: CrossTask, agreement: pd.DataFrame, described: pd.DataFrame
) -> Figure:
    """Figure 8: whether two matrices of the same tasks tell the same, as random and flipped labels.

    agreement: from `crosstask.model_agreement` of these two

    Left, a point an evaluated task: its mean over the tasks trained on. Right, a point a pair.
    """
    if first.tasks != second.tasks:
        raise InputError(
            "compare",
            expected=f"two matrices of the tasks {first.tasks}",
            found=second.tasks,
            do="Compare matrices of the same study.",
        )
    if len(agreement) != 1:
        raise InputError(
            "agreement of the two matrices",
            expected="one row",
            found=f"{len(agreement)}",
            do="Pass crosstask.model_agreement([first, second]).",
        )
    first, second, described = readable(first), readable(second), readable(described)
    families = _families(first.tasks, described)
    shown = [t for t, d in zip(first.tasks, first.defined & second.defined, strict=True) if d]
    x, y = (crosstask.evaluated_means(c).set_index("eval_task").loc[shown] for c in (first, second))
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
        _legend(figure, [*handles, own], "outside upper center")
        _undefined_note(figure, [t for t in first.tasks if t not in shown])
        figure.draw_without_rendering()  # names go between points, which must have their places
        columns = with_intervals(["mean_ratio"])
        name_points(left, x[columns].to_numpy(float), y[columns].to_numpy(float), shown)
    return figure


def models(
    crosses: Sequence[CrossTask], agreement: pd.DataFrame, described: pd.DataFrame
) -> Figure:
    """Figure 9: the matrices of several models, in one order of tasks and with the same colours.

    agreement: from `crosstask.model_agreement`; without rows, as for one model, it is not drawn

    Tasks are in the order of the UPGMA tree of the evaluated tasks' mean matrix.
    """
    if len({c.tasks for c in crosses}) != 1:
        raise InputError(
            "models",
            expected="at least one matrix, and the same tasks in all",
            found=[c.tasks for c in crosses],
            do="Compute the same study for every model.",
        )
    crosses, described = [readable(c) for c in crosses], readable(described)
    agreement = readable(agreement)
    names = crosses[0].tasks
    matrices = np.stack([c.forget_ratio for c in crosses])
    known = np.isfinite(matrices)
    total = np.where(known, matrices, 0).sum(0)
    mean = np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0))
    order, _ = crosstask.upgma(mean)
    families = _families(names, described)
    n_down = -(-len(crosses) // 3)
    n_across = -(-len(crosses) // n_down)
    width = 3.9 / n_across  # inches a matrix
    cell = float(np.clip(width / len(names), 0.115, 0.4))
    labelled = 72 * width / len(names) > 8  # points: names of columns do not cover each other
    heights = [*[cell * len(names)] * n_down, 0.13]  # inches, without what is written around them
    around = 0.4 * n_down + labelled * _name_length(names) + 0.95
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
            _family_strip(strip, [families[names[i]] for i in order], vertical=True)
            rows = [f"{names[i]} ({crosses[0].n[i]})" for i in order]
            strip.set_yticks(range(len(names)), rows, fontsize=SMALL)
            strip.set_ylabel("evaluated task (n)")
        for number, cross in enumerate(crosses):
            axes = figure.add_subplot(grid[number // n_across, 1 + number % n_across])
            image = _matrix(axes, cross, order, order, width=width)
            axes.set_title("\n".join(textwrap.wrap(short_name(cross.model), int(15 * width))))
            if not labelled:
                axes.set_xlabel("same order as rows", fontsize=7)
            elif number // n_across == n_down - 1:
                columns = [names[i] for i in order]
                axes.set_xticks(range(len(names)), columns, fontsize=SMALL, rotation=90)
                axes.set_xlabel("task with random labels", fontsize=7)
        values = 72 * width / len(names) >= LEAST_CELL
        bar = figure.add_subplot(grid[n_down, 1:])
        _ratio_bar(bar, image, crosses[0].condition, values=values)
        if len(agreement):
            _agreement(figure.add_subplot(grid[-1, :]), agreement)
        frame = Patch(fill=False, edgecolor=BLACK, linewidth=1.2, label="own labels")
        handles = family_handles(families.values(), letters=True)
        _legend(figure, [*handles, frame], "outside lower center")
    return figure


def _agreement(axes: Axes, table: pd.DataFrame) -> None:
    """Rank correlations of each two models' evaluated-task means."""
    y = np.arange(len(table))[::-1]
    intervals(axes, table, "rank_correlation", y, "", "o", BLUE, True)
    pairs = zip(table["a"], table["b"], strict=True)
    labels = ["\n".join(name.split(",")[0] for name in pair) for pair in pairs]
    axes.set_yticks(y, labels, fontsize=SMALL)
    axes.set_ylim(-0.5, len(table) - 0.5)
    axes.set_xlim(-1.05, 1.05)
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
    n = count_text(table["n"])
    axes.set_xlabel(f"rank correlation of the evaluated tasks' means (n = {n} tasks)")
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)


def _undefined_note(figure: Figure, tasks: Sequence[str]) -> None:
    if tasks:
        note = f"Not drawn, as there was nothing to forget: {', '.join(tasks)}."
        figure.supxlabel(textwrap.fill(note, 110), fontsize=SMALL)
