"""Share what pictures of in-context regression have in common: lines with bands, and the frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SMALL,
    VERMILION,
    marks_of,
    set_finding,
)

MODELS = {  # column of a table: (legend, marker, colour, line)
    "pre_trained": ("pre-trained", "o", BLUE, "-"),
    "fine_tuned": ("fine-tuned on the discrete set", "D", VERMILION, "-"),
    "discrete_only": ("discrete set only: never knew", "s", GREY, "-"),
    "bayes": ("Bayes", "", BLACK, "--"),
    "ridge": ("ridge", "", GREEN, ":"),
    "discrete": ("discrete predictor", "", ORANGE, ":"),
}
NAMES = {name.replace("_", "-") if "_" in name else name: name for name in MODELS}


def line(axes: Axes, rows: pd.DataFrame, x: str, measure: str) -> None:
    """Draw a measure of a table over one of its columns, with the band of its interval.

    measure: one of MODELS, whose look it has
    """
    legend, marker, colour, dashes = MODELS[measure]
    curve(axes, rows, x, measure, legend, marker, colour, dashes)


def curve(
    axes: Axes,
    rows: pd.DataFrame,
    x: str,
    measure: str,
    label: str,
    marker: str,
    colour: str,
    dashes: str = "-",
) -> None:
    """Draw a measure over a column with the band of its interval; a point alone has a bar."""
    values = rows[with_intervals([measure])].to_numpy(float)
    there = np.isfinite(values[:, 0])
    if not there.any():
        return
    at, values = rows[x].to_numpy(float)[there], values[there]
    axes.plot(
        *(at, values[:, 0], dashes),
        marker=marker,
        color=colour,
        label=label,
        markersize=3,
        linewidth=1,
    )
    bounded = np.isfinite(values).all(1)
    if bounded.sum() > 1:
        low, high = values[bounded, 1], values[bounded, 2]
        axes.fill_between(at[bounded], low, high, color=colour, alpha=0.15, linewidth=0)
    elif bounded.any():
        # A percentile interval can leave out the estimate; a bar cannot have negative length.
        sides = np.abs(values[bounded].T - values[bounded, 0])[1:]
        axes.errorbar(at[bounded], values[bounded, 0], sides, color=colour, linewidth=1)


def panel(axes: Axes, heading: str, x: str, y: str = "") -> None:
    """Name a panel and its axes."""
    axes.set_title(heading, fontsize=7.5, loc="left")
    axes.set_xlabel(x, fontsize=SMALL + 0.5)
    axes.set_ylabel(y, fontsize=SMALL + 0.5)
    axes.tick_params(labelsize=SMALL)
    sns.despine(ax=axes)


def framed(figure: Figure, said: str, columns: int = 3) -> Figure:
    """Put one legend below all panels, and the finding above."""
    handles, labels = marks_of(figure.axes)
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    set_finding(figure, said)
    return figure
