"""Matrices of tasks: cells, strips of families, and their legends (Figures 3, 8 and 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from forgetlib.errors import InputError
from forgetlib.figures.crosstask import CrossTask, cross_table
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    FAMILY_COLOURS,
    GREY,
    SMALL,
    VERMILION,
    family_letters,
    require_columns,
)

# Blue where the model got better, white where it forgot nothing, vermilion where it is at chance or
# below: a small denominator makes ratios above that large, which says little. Lighter is less at
# any point above 0, in print without colour too. The ratio after flipped labels is half of the
# other at any accuracy, so that its limits are: a colour is the same accuracy in every matrix.
RATIO_LIMITS = {"random": (-0.5, 1.0), "flipped": (-0.25, 0.5)}
RATIO_COLOURS = mpl.colors.LinearSegmentedColormap.from_list(
    "forget ratio", [(0, BLUE), (1 / 3, "#ffffff"), (2 / 3, "#f6b26b"), (1, VERMILION)]
)
DROP_COLOURS = mpl.colors.LinearSegmentedColormap.from_list(
    "drop", [(0, BLUE), (0.5, "#ffffff"), (0.75, "#f6b26b"), (1, VERMILION)]
)
LEAST_CELL = 12  # points, the width that two digits need
ITALICS = "italics: the 95 % interval includes 0"
# What a cell shows: columns of `cross_table`.
RATIO_COLUMN, DROP_COLUMN = "forget_ratio", "accuracy_lost"
# Of a drop, as in Figure 3's picture of harm: with 0.5 a sure task is at chance.
DROP_LIMITS = (-0.5, 0.5)


def draw_matrix(
    axes: Axes,
    cross: CrossTask,
    rows: np.ndarray,
    columns: np.ndarray,
    *,
    width: float = 3.55,
    measure: str = RATIO_COLUMN,
) -> AxesImage:
    """Draw one cross-task matrix, rows and columns (K,) in this order, `width` inches wide.

    measure: RATIO_COLUMN, or DROP_COLUMN, which has no denominator and is defined in every task
    """
    table = cross_table(cross).set_index(["eval_task", "forget_task"])
    n_tasks = len(cross.tasks)
    values = cross.forget_ratio
    (low, high), colours = RATIO_LIMITS[cross.condition], RATIO_COLOURS
    if measure == DROP_COLUMN:
        values = table[DROP_COLUMN].to_numpy().reshape(n_tasks, n_tasks)
        (low, high), colours = DROP_LIMITS, DROP_COLOURS
    values = values[np.ix_(rows, columns)]
    with np.errstate(invalid="ignore"):
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    room = 72 * width / n_tasks  # points a cell
    for y, evaluated in enumerate(rows):
        if measure == RATIO_COLUMN and not cross.defined[evaluated]:
            axes.add_patch(
                Rectangle(
                    (-0.5, y - 0.5), n_tasks, 1, facecolor="#eeeeee", edgecolor=GREY, hatch="////"
                )
            )
            axes.text(
                (n_tasks - 1) / 2,
                y,
                "ratio undefined",
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
            if not np.isfinite(values[y, x]) or room < LEAST_CELL:
                continue
            row = table.loc[(cross.tasks[evaluated], cross.tasks[forgotten])]
            low, high = row[f"{measure}_low"], row[f"{measure}_high"]
            interval = room > 40 and np.isfinite(low)
            colour = readable_on(image.cmap(image.norm(values[y, x])))
            text: dict[str, Any] = {"ha": "center", "color": colour}
            if not (low > 0 or high < 0):
                text |= {"alpha": 0.7, "style": "italic"}
            axes.text(
                x,
                y - (0.03 if interval else 0),
                two_digits(values[y, x]),
                va="bottom" if interval else "center_baseline",
                fontsize=6 if room < 20 else 7.5,
                **text,
            )
            if interval:
                bounds = f"{two_digits(low)}, {two_digits(high)}"
                axes.text(x, y + 0.06, bounds, va="top", fontsize=6, **text)
    return image


def name_length(names: Sequence[str]) -> float:
    """Measure the longest name, as the label of a row or column, in inches."""
    return max(map(len, names)) * 0.6 * SMALL / 72


def readable_on(colour: Any) -> str:
    """White or black, whichever the colour's luminance leaves readable (WCAG's weights)."""
    red, green, blue = mpl.colors.to_rgb(colour)
    return "white" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.2 else BLACK


def two_digits(value: float) -> str:
    """Write a number as fits into a small cell: ".87", "1.2", "-.05"."""
    if abs(value) >= 0.995:
        return f"{value:.1f}"
    return f"{value:.2f}".replace("0.", ".").replace("-.00", ".00")


def families_of(tasks: Sequence[str], described: pd.DataFrame) -> dict[str, str]:
    """Look up the family of every task, or raise InputError where one is not described."""
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


def family_strip(axes: Axes, families: Sequence[str], *, vertical: bool) -> None:
    """Draw a cell in its family's colour, and with its letter, for each task."""
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
            color=readable_on(colour),
        )
    along, across = (axes.set_ylim, axes.set_xlim) if vertical else (axes.set_xlim, axes.set_ylim)
    along((len(families) - 0.5, -0.5) if vertical else (-0.5, len(families) - 0.5))
    across(0, 1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def ratio_bar(axes: Axes, image: AxesImage, condition: str, *, values: bool = True) -> None:
    """Explain the colours of a forget ratio, where they end, and italics of written values."""
    low, high = RATIO_LIMITS[condition]
    ticks = {low: f"−{-low:g}", 0: "0: nothing", high / 2: f"{high / 2:g}"}
    said = f"at chance and below it ({high:g} and more), colours are the same"
    if values:
        said += f"\n{ITALICS}"
    _bar(axes, image, "forget ratio", ticks | {high: f"{high:g}: at chance"}, said)


def drop_bar(axes: Axes, image: AxesImage) -> None:
    """Explain the colours of accuracy lost, and italics of written values."""
    low, high = DROP_LIMITS
    ticks = {low: f"−{-low:g}", 0: "0: nothing", high / 2: f"{high / 2:g}", high: f"{high:g}"}
    _bar(axes, image, "accuracy lost", ticks, ITALICS)


def _bar(axes: Axes, image: AxesImage, name: str, ticks: dict[float, str], said: str) -> None:
    """Draw a bar of colours with its name on the left, these ticks, and words below it."""
    bar = axes.figure.colorbar(image, cax=axes, orientation="horizontal", extend="both")
    bar.outline.set_visible(False)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.set_label(said, fontsize=SMALL)
    axes.annotate(
        name,
        (0, 0.5),
        xytext=(-18, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="center",
        in_layout=False,  # the matrix stays as wide as it is
    )


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend of small squares below a figure."""
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 4),
        frameon=False,
        handlelength=1,
        handleheight=1,
        handletextpad=0.4,
        columnspacing=1.2,
    )
