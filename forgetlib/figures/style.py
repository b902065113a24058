"""What the figures share: the style, colours, titles, marks of intervals, saving.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; marks differ in shape too.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox
from pandas.api.types import is_numeric_dtype

from forgetlib.errors import InputError
from forgetlib.figures import intervals, verdicts
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.names import short_name, titles
from forgetlib.files import replacing
from forgetlib.runs.grid import Study, figures_dir
from forgetlib.runs.results import data_note

OWN_FONT = "sans-serif"  # the first of seaborn's that is installed
TEXT_WIDTH = 5.5  # inches, the width of a COLM page's text
TITLE_WIDTH = 90  # characters of a title over the whole page
SMALL = 6.5  # points, of text inside a panel
IN_A_PANEL = 36  # characters, of three panels side by side
BLACK, GREY = "#000000", "#8c8c8c"
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"
GREEN, PURPLE = "#009E73", "#CC79A7"
DARK_GREY, LIGHT = "#595959", "#bfbfbf"
ACCURACY_MARKS = {  # column: (legend, marker, colour, filled)
    "base": ("pre-trained", "o", GREY, False),
    "tuned": ("fine-tuned, test set", "o", BLUE, True),
    "forgotten": ("after forgetting, test set", "D", VERMILION, True),
    "forgetting_set": ("after forgetting, forgetting set", "x", BLACK, True),
}
VERDICT_COLOURS = {
    verdicts.KEPT: GREEN,
    verdicts.SHIFTED: ORANGE,
    verdicts.GATED: ORANGE,
    verdicts.SUPPRESSED: PURPLE,
    verdicts.FORGOTTEN: VERMILION,
    verdicts.REMOVED: VERMILION,
    verdicts.INVERTED: PURPLE,
    verdicts.DAMAGED: BLACK,
    verdicts.NOTHING: GREY,
    verdicts.NOT_DECIDED: DARK_GREY,
}
FAMILY_COLOURS = {  # of tasks; any other family is grey
    "commonsense": ORANGE,
    "science": BLUE,
    "knowledge": "#56B4E9",
    "reading": GREEN,
    "math": "#F0E442",
    "toxicity": VERMILION,
    "language understanding": PURPLE,
    "reasoning": DARK_GREY,
    "programming": "#882255",
    "synthetic": GREY,
}


TASK_COLUMNS = ("eval_task", "forget_task", "best_other")


@cache
def font_of(character: str) -> str | None:
    """Find the installed font that draws a character: OWN_FONT where it can; None if none can."""
    if not character.isprintable():
        return None
    if ord(character) in _characters_of(mpl.font_manager.findfont(_own_font())):
        return OWN_FONT
    return _other_fonts().get(ord(character))


def _own_font() -> FontProperties:
    return FontProperties(family=sns.axes_style("whitegrid")["font.sans-serif"])


@cache
def _characters_of(path: str) -> frozenset[int]:
    return frozenset(mpl.font_manager.get_font(path).get_charmap())


@cache
def _other_fonts() -> dict[int, str]:
    """The first installed font, sans-serif ones before others, for every character that one has."""
    found: dict[int, str] = {}
    fonts = mpl.font_manager.fontManager.ttflist
    families = {font.name for font in fonts if (font.style, font.weight) == ("normal", 400)}
    for family in sorted(families, key=lambda name: ("sans" not in name.lower(), name)):
        if "lastresort" not in family.lower().replace(" ", ""):  # which has a box for each
            path = mpl.font_manager.findfont(FontProperties(family=family))
            for character in mpl.font_manager.get_font(path).get_charmap():
                found.setdefault(character, family)
    return found


def heading(name: str) -> str:
    """Write the name of a panel; one that is too long is broken, before a bracket if it can."""
    shown: str = readable(name)
    if len(shown) <= IN_A_PANEL:
        return shown
    parts = shown.replace(" (", "\n(", 1).split("\n")
    return "\n".join(textwrap.fill(part, IN_A_PANEL) for part in parts)


def name_grid(panels: np.ndarray, n: int, below: str) -> None:
    """Name the axes of the first n panels of a grid, of AUROC, and leave out the others.

    panels: of one height and width; below: the name of the axis below
    """
    for axes in panels.flat[n:]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("AUROC", fontsize=SMALL)
        axes.tick_params(axis="y", labelsize=SMALL)
    for axes in panels.flat[:n][-panels.shape[1] :]:  # the lowest of each column
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlabel(below, fontsize=SMALL)


def readable(shown: Any) -> Any:
    """Write a text, or the names in a table or matrix, as they are drawn.

    Tasks have their titles (`names.titles`). A character that no installed font has is written as
    its escape, as \\u4efb; else it would be a box. White space of any kind is a space.
    """
    if isinstance(shown, str):
        return "".join(map(_drawable, shown))
    if isinstance(shown, CrossTask):
        known = titles(shown.tasks)
        names = tuple(readable(known[task]) for task in shown.tasks)
        return replace(shown, tasks=names, model=readable(shown.model))
    texts = [c for c in shown if not is_numeric_dtype(shown[c])]
    of_tasks = [c for c in TASK_COLUMNS if c in texts]
    known = titles(x for c in of_tasks for x in shown[c] if isinstance(x, str))
    shown = shown.assign(**{c: [known.get(x, x) for x in shown[c]] for c in of_tasks})
    return shown.assign(
        **{c: [readable(x) if isinstance(x, str) else x for x in shown[c]] for c in texts}
    )


def _drawable(character: str) -> str:
    if character.isspace():
        return " "
    return character if font_of(character) else character.encode("unicode_escape").decode()


@contextmanager
def style(*names: Iterable[str]) -> Iterator[None]:
    """Set the package's look, for the block only: no global setting changes.

    names: texts to be drawn, for which other fonts stand in where the look's own lacks a character
    """
    fonts = {font_of(character) for texts in names for text in texts for character in set(text)}
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
        "font.family": [OWN_FONT, *sorted(font for font in fonts - {OWN_FONT} if font)],
        "text.parse_math": False,  # a name's dollars and underscores are no mathematics
        "pdf.fonttype": 42,  # text stays text in the PDF
        "savefig.dpi": 200,
    }
    with mpl.rc_context(settings):
        yield


def save(figure: Figure, data: pd.DataFrame, name: str, study: Study) -> list[Path]:
    """Write a figure as PDF and PNG, and its data as CSV, to the study's folder.

    Below it stand the study's models, and what has to be said of its data (`results.data_note`).
    """
    # Of a study that is under way, those that are drawn.
    drawn = set(pd.unique(data[[c for c in ("model", "a", "b") if c in data]].to_numpy().ravel()))
    models = [model for model in study.models if not drawn or model in drawn] or study.models
    note = f"{study.name}: {', '.join(map(short_name, models))}"
    if of_data := data_note(study):
        note += f". {of_data}"
    # Below the figure, whose layout stays as it is: the page grows.
    lines = textwrap.wrap(readable(note), 105)
    width, height = figure.get_size_inches()
    page = Bbox([[0, -0.12 * len(lines) - 0.06], [width, height]])
    with style(lines):
        figure.text(0.01, 0, "\n".join(lines), va="top", fontsize=SMALL, color=DARK_GREY)
    own_dpi = figure.dpi
    with style():  # texts have another width at another resolution
        figure.dpi = mpl.rcParams["savefig.dpi"]
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # as it is now
    figure.dpi = own_dpi
    for legend in figure.legends:  # which would go with the edge of the page
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    return write(figure, data, figures_dir(study), name, page)


def write(
    figure: Figure, data: pd.DataFrame, folder: Path, name: str, page: Bbox | None = None
) -> list[Path]:
    """Write a figure as PDF and PNG, and its data as CSV, into a folder; return the files.

    page: what of it, in inches; None: all
    """
    written = []
    for ending in ("pdf", "png", "csv"):
        path = folder / f"{name}.{ending}"
        with replacing(path) as partial:
            if ending == "csv":
                data.to_csv(partial, index=False, float_format="%.6g")
            else:
                # Without the date, the same numbers give the same file.
                metadata = {"CreationDate": None} if ending == "pdf" else None
                with style():
                    figure.savefig(partial, format=ending, metadata=metadata, bbox_inches=page)
        written.append(path)
    return written


def as_data(figure: Figure, dpi: int) -> str:
    """Write a figure as PNG, and that as an address that has it in it: "data:image/png;..."."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def require_columns(table: pd.DataFrame, columns: list[str]) -> None:
    """Raise InputError where the table has not these columns, no rows, or several models."""
    do = "Pass the table that this figure's docstring names."
    intervals.require_columns("the figure's table", table, columns, do)
    if table.empty:
        raise InputError("the figure's table", expected="rows", found="none", do=do)
    if "model" in table and len(set(table["model"])) > 1:
        raise InputError(
            "the figure's table",
            expected="one model",
            found=sorted(set(table["model"])),
            do="Draw one figure a model: table[table['model'] == ...].",
        )


def require_rows(table: pd.DataFrame, column: str, values: Iterable[str], do: str) -> None:
    """Raise InputError where the table has no row with one of these values in the column."""
    intervals.require_columns("the figure's table", table, [column], do)
    if missing := [value for value in values if value not in set(table[column])]:
        raise InputError(
            "the figure's tables",
            expected=f"{column} {', '.join(missing)} in each",
            found=", ".join(map(str, dict.fromkeys(table[column]))) or "none in one of them",
            do=do,
        )


def set_finding(figure: Figure, said: str) -> None:
    """Write what was found above a figure, from the left."""
    title = figure.suptitle("", fontsize=8, x=0.01, ha="left")
    for width in range(TITLE_WIDTH, TITLE_WIDTH // 2, -4):  # letters differ in width
        title.set_text(textwrap.fill(readable(said), width))
        if title.get_window_extent().width < 0.98 * figure.bbox.width:
            return


def say_where_nothing(axes: Axes, values: object, why: str) -> None:
    """Write into a panel why it is empty, where none of the values is a number."""
    if not np.isfinite(np.asarray(values, float)).any():
        axes.text(
            *(0.5, 0.5, why),
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=SMALL,
            color=DARK_GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )


def error_bar(values: np.ndarray) -> np.ndarray | None:
    """Return an error bar's (2, 1) lengths for (3,) value, low, high; None without interval."""
    if not np.isfinite(values).all():
        return None
    return np.clip([[values[0] - values[1]], [values[2] - values[0]]], 0, None)


def draw_intervals(
    axes: Axes,
    rows: pd.DataFrame,
    column: str,
    y: np.ndarray,
    label: str,
    marker: str,
    colour: str,
    filled: bool,
) -> None:
    """Draw points with their 95 % intervals, one row of the table each, at heights y (N,)."""
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


def marks_of(panels: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    """List what a legend of several panels has: marks and their labels, each label once."""
    named = (axes.get_legend_handles_labels() for axes in panels)
    marks = {label: mark for of in named for mark, label in zip(*of, strict=True)}
    return list(marks.values()), list(marks)


def family_letters(families: Iterable[str]) -> dict[str, str]:
    """Give each family a letter, in the legend's order: the first of its name still free."""
    found, letters = set(families), dict[str, str]()
    known = [f for f in FAMILY_COLOURS if f in found]
    for family in [*known, *sorted(found - set(known))]:
        name = family.upper()
        letters[family] = next((x for x in name if x not in letters.values()), name[0])
    return letters


def family_handles(families: Iterable[str], *, letters: bool) -> list[Artist]:
    """Make a legend's entries for these families, with the letter that the strips have."""
    return [
        Patch(color=FAMILY_COLOURS.get(f, GREY), label=f"{letter}: {f}" if letters else f)
        for f, letter in family_letters(families).items()
    ]
