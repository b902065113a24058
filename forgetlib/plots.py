"""Tables to figures: one style, every number from the table, saved as PDF, PNG and CSV.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; marks differ in shape too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.experiment import Study, figures_dir
from forgetlib.schema import CHANCE, InputError
from forgetlib.stats import BEHAVIOURS
from forgetlib.store import replacing

TEXT_WIDTH = 5.5  # inches, the width of a COLM page's text
BLACK, GREY = "#000000", "#8c8c8c"
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"

ACCURACY_MARKS = {  # column: (legend, marker, colour, filled)
    "base": ("pre-trained", "o", GREY, False),
    "tuned": ("fine-tuned, test set", "o", BLUE, True),
    "forgotten": ("after forgetting, test set", "D", VERMILION, True),
    "forgetting_set": ("after forgetting, forgetting set", "x", BLACK, True),
}
BEHAVIOUR_MARKS = {
    BEHAVIOURS[0]: ("o", BLUE),
    BEHAVIOURS[1]: ("s", ORANGE),
    BEHAVIOURS[2]: ("D", VERMILION),
    BEHAVIOURS[3]: ("x", GREY),
}


@contextmanager
def style() -> Iterator[None]:
    """The package's look, for the block only: no global setting changes."""
    settings = sns.axes_style("whitegrid") | sns.plotting_context("paper")
    settings |= {
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "legend.fontsize": 7.5,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.6,
        "axes.edgecolor": GREY,
        "pdf.fonttype": 42,  # text stays text in the PDF
        "savefig.dpi": 200,
    }
    with mpl.rc_context(settings):
        yield


def forget_gap(table: pd.DataFrame) -> Figure:
    """Figure 2: accuracy before, after fine-tuning and after forgetting, and the forget gap.

    table: from `stats.forgetting`, of one model
    """
    _require_columns(table, [*ACCURACY_MARKS, "forget_gap", "behaviour", "eval_task", "n"])
    rows = table.sort_values("forgotten").reset_index(drop=True)
    y = np.arange(len(rows))
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 1.35 + 0.27 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
        offsets = np.linspace(0.27, -0.27, len(ACCURACY_MARKS))
        for (column, mark), offset in zip(ACCURACY_MARKS.items(), offsets, strict=True):
            label, marker, colour, filled = mark
            _intervals(left, rows, column, y + offset, label, marker, colour, filled)
        for name, (marker, colour) in BEHAVIOUR_MARKS.items():
            of_kind = rows["behaviour"] == name
            if of_kind.any():
                _intervals(
                    right, rows[of_kind], "forget_gap", y[of_kind], name, marker, colour, True
                )
        left.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
        right.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
        left.set_yticks(
            y, [f"{t} ({n})" for t, n in zip(rows["eval_task"], rows["n"], strict=True)]
        )
        left.set_ylim(-0.6, len(rows) - 0.4)
        left.set_xlabel("accuracy (dashed: chance)")
        right.set_xlabel("forget gap")
        left.set_ylabel("task (test examples)")
        for axes, columns in ((left, 2), (right, 1)):
            axes.legend(
                loc="lower center",
                bbox_to_anchor=(0.5, 1.0),
                ncols=columns,
                frameon=False,
                handletextpad=0.2,
                columnspacing=1.0,
            )
            axes.grid(axis="y", visible=False)
            sns.despine(ax=axes, left=True)
    return figure


def _intervals(
    axes: Axes,
    rows: pd.DataFrame,
    column: str,
    y: np.ndarray,
    label: str,
    marker: str,
    colour: str,
    filled: bool,
) -> None:
    """Points with their 95 % intervals, one row of the table each."""
    x = rows[column].to_numpy()
    low, high = rows[f"{column}_low"].to_numpy(), rows[f"{column}_high"].to_numpy()
    axes.errorbar(
        x,
        y,
        # A percentile interval can leave out the estimate; a bar cannot have negative length.
        xerr=np.stack([np.clip(x - low, 0, None), np.clip(high - x, 0, None)]),
        fmt=marker,
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=4,
        linewidth=1.0,
        label=label,
    )


def save(figure: Figure, data: pd.DataFrame, name: str, study: Study) -> list[Path]:
    """Write a figure as PDF and PNG, and its data as CSV, to the study's folder."""
    written = []
    for ending in ("pdf", "png", "csv"):
        path = figures_dir(study) / f"{name}.{ending}"
        with replacing(path) as partial:
            if ending == "csv":
                data.to_csv(partial, index=False, float_format="%.6g")
            else:
                # Without the date, the same numbers give the same file.
                metadata = {"CreationDate": None} if ending == "pdf" else None
                with style():
                    figure.savefig(partial, format=ending, metadata=metadata)
        written.append(path)
    return written


def _require_columns(table: pd.DataFrame, columns: list[str]) -> None:
    missing = [c for c in columns if c not in table.columns]
    if missing or table.empty:
        raise InputError(
            "table",
            expected=f"rows with columns {columns}",
            found=f"{len(table)} rows, without {missing}",
            do="Pass the table that stats makes for this figure.",
        )
    if "model" in table and len(set(table["model"])) > 1:
        raise InputError(
            "table",
            expected="one model",
            found=sorted(set(table["model"])),
            do="Draw one figure a model: table[table['model'] == ...].",
        )
