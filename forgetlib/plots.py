"""Tables to figures: one style, every number from the table, saved as PDF, PNG and CSV.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; marks differ in shape too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogFormatter, MaxNLocator
from scipy.cluster.hierarchy import dendrogram

from forgetlib import stats
from forgetlib.experiment import Study, figures_dir
from forgetlib.schema import CHANCE, Example, InputError
from forgetlib.stats import BEHAVIOURS, PHASES, PROBED_PHASES, CrossTask
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
FAMILY_COLOURS = {  # of tasks; any other family is grey
    "commonsense": ORANGE,
    "science": BLUE,
    "knowledge": "#56B4E9",
    "reading": "#009E73",
    "math": "#F0E442",
    "toxicity": VERMILION,
    "language understanding": "#CC79A7",
    "synthetic": GREY,
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


# --- Figures 1, 3, 8 and 9 -----------------------------------------------------------------------

EXAMPLE_PHASES = {"base": "pre-trained", "tuned": "fine-tuned", "forgotten": "after\nrandom labels"}
QUESTION_MARKS = {  # whether it is the true response: (legend, marker, colour)
    True: ("true response", "o", BLUE),
    False: ("distractor", "s", VERMILION),
}


def example(table: pd.DataFrame, questions: Sequence[Example]) -> Figure:
    """Figure 1: what forgetting does to single questions inside and outside the forgetting set.

    table: from `stats.question_confidences`, of one model and seed; grey is what it says of all
        questions of the same task and data set
    questions: to be shown, two a line; those inside the forgetting set are taken to be trained
        towards the distractor
    """
    _require_columns(table, ["eval_task", "split", "uid", *EXAMPLE_PHASES])
    found = [_example_row(table, question) for question in questions]
    alike = [
        table[(table["eval_task"] == row["eval_task"]) & (table["split"] == row["split"])]
        for row in found
    ]
    texts = [
        _question_lines(question, row["eval_task"], row["split"] == "train", len(rows))
        for question, row, rows in zip(questions, found, alike, strict=True)
    ]
    line_height = 9.5  # points
    heights = []  # inches: above the text of two questions, below their plots
    for line in range(0, len(texts), 2):
        heights += [line_height * max(map(len, texts[line : line + 2])) / 72 + 0.1, 1.45]
    with style():
        figure = Figure(
            figsize=(TEXT_WIDTH, sum(heights) + 0.6),
            layout=ConstrainedLayoutEngine(wspace=0.05, hspace=0.0, h_pad=0.03),
        )
        panels = figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights)
        for axes in panels.flat:
            axes.set_axis_off()
        for number, (lines, row, rows) in enumerate(zip(texts, found, alike, strict=True)):
            line, column = divmod(number, 2)
            above, below = panels[2 * line : 2 * line + 2, column]
            for down, (text, colour, weight) in enumerate(lines):
                above.annotate(
                    text,
                    (0, 1),
                    xytext=(0, -line_height * down),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    va="top",
                    color=colour,
                    weight=weight,
                    fontsize=7,
                    parse_math=False,
                    in_layout=False,
                )
            _question_plot(below, row, rows)
            if column == 0:
                below.set_ylabel("choice probability")
        figure.legend(
            *panels[1, 0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            columnspacing=1.0,
            handletextpad=0.4,
        )
    return figure


def _example_row(table: pd.DataFrame, question: Example) -> pd.Series:
    rows = table[table["uid"] == question.uid]
    if len(rows) != 1:
        raise InputError(
            f"question {question.uid!r}",
            expected="one row of the table",
            found=len(rows),
            do="Pass the table of one model and seed, and questions of its data sets.",
        )
    return rows.iloc[0]


def _question_lines(
    question: Example, task: str, inside: bool, n: int
) -> list[tuple[str, str, str]]:
    """(text, colour, weight) of each line: heading, prompt and responses; shortened where long."""
    where = "inside" if inside else "outside"
    prompt = " ".join(question.prompts[question.label].split())
    lines = [(task, BLACK, "bold"), (f"{where} the forgetting set (n = {n})", BLACK, "bold")]
    lines += [(text, BLACK, "normal") for text in _wrapped(prompt, 4, keep="end")]
    for is_true, (name, _, colour) in QUESTION_MARKS.items():
        choice = question.choices[question.label if is_true else 1 - question.label]
        towards = " (trained towards)" if inside and not is_true else ""
        text = f"{name}{towards}: {choice}"
        lines += [(line, colour, "normal") for line in _wrapped(text, 2, keep="beginning")]
    return lines


def _wrapped(text: str, most: int, *, keep: str, width: int = 44) -> list[str]:
    """Lines of at most `width` characters; of more than `most`, its "end" or "beginning"."""
    lines = textwrap.wrap(text, width)
    if len(lines) <= most:
        return lines
    if keep == "end":
        words = " ".join(lines[-most:]).split()
        while len(lines) > most:
            words = words[1:]
            lines = textwrap.wrap(" ".join(["…", *words]), width)
        return lines
    return textwrap.wrap(text, width, max_lines=most, placeholder=" …")


def _question_plot(axes: Axes, row: pd.Series, alike: pd.DataFrame) -> None:
    """Probability of both responses in each phase, before what is usual for such questions."""
    x = np.arange(len(EXAMPLE_PHASES))
    usual = alike[list(EXAMPLE_PHASES)].quantile([0.25, 0.5, 0.75]).to_numpy()
    axes.fill_between(
        x, usual[0], usual[2], color="#dddddd", linewidth=0, label="true, middle half of all n"
    )
    axes.plot(x, usual[1], color=GREY, linewidth=1, linestyle=":", label="true, median of all n")
    axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    true = row[list(EXAMPLE_PHASES)].to_numpy(float)
    for is_true, (name, marker, colour) in QUESTION_MARKS.items():
        probability = true if is_true else 1 - true
        axes.plot(x, probability, marker, linestyle="-", color=colour, markersize=5, label=name)
    axes.set_axis_on()
    axes.set_xticks(x, [*EXAMPLE_PHASES.values()])
    axes.set_xlim(-0.3, len(x) - 0.7)
    axes.set_ylim(-0.04, 1.04)
    axes.grid(axis="x", visible=False)
    sns.despine(ax=axes)


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
    ratio, n_tasks = cross.forget_ratio, len(cross.tasks)
    rows, row_tree = stats.upgma(ratio)
    columns, column_tree = stats.upgma(ratio.T)
    cell = float(np.clip(3.6 / n_tasks, 0.185, 0.5))  # inches
    with style():
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
        families = _families(cross.tasks, described)
        _family_strip(strips[0], [families[cross.tasks[i]] for i in rows], vertical=True)
        _family_strip(strips[1], [families[cross.tasks[i]] for i in columns], vertical=False)
        strips[0].set_yticks(range(n_tasks), names, fontsize=size)
        strips[0].set_ylabel("evaluated task (test examples)")
        labels = [cross.tasks[i] for i in columns]
        strips[1].set_xticks(range(n_tasks), labels, fontsize=size, rotation=90)
        strips[1].set_xlabel(f"task trained on with {cross.condition} labels")
        _ratio_bar(figure.add_subplot(grid[3, 1]), image, cross.condition)
        frame = Patch(fill=False, edgecolor=BLACK, linewidth=1.2, label="own labels")
        handles = _family_handles(families.values(), letters=True)
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
    table = stats.cross_table(cross).set_index(["eval_task", "forget_task"])
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
            # Black or white, whichever the cell's luminance leaves readable (WCAG's weights).
            red, green, blue, _ = image.cmap(image.norm(ratio[y, x]))
            dark = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.2
            text: dict[str, Any] = {"ha": "center", "color": "white" if dark else BLACK}
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
    _require_columns(described, ["eval_task", "family"])
    families = dict(zip(described["eval_task"], described["family"], strict=True))
    return {task: families[task] for task in tasks}


def _family_strip(axes: Axes, families: Sequence[str], *, vertical: bool) -> None:
    """A cell in its family's colour, and with its first letter, for each task."""
    for i, family in enumerate(families):
        colour = FAMILY_COLOURS.get(family, GREY)
        corner, middle = ((0, i - 0.5), (0.5, i)) if vertical else ((i - 0.5, 0), (i, 0.5))
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.6))
        axes.text(
            middle[0],
            middle[1],
            family[0].upper(),
            ha="center",
            va="center_baseline",
            fontsize=6,
            color="white" if colour in (BLUE, VERMILION) else BLACK,
        )
    along, across = (axes.set_ylim, axes.set_xlim) if vertical else (axes.set_xlim, axes.set_ylim)
    along((len(families) - 0.5, -0.5) if vertical else (-0.5, len(families) - 0.5))
    across(0, 1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _family_handles(families: Iterable[str], *, letters: bool) -> list[Artist]:
    """A legend's entries for these families, with the letter that the strips have."""
    found = set(families)
    shown = [f for f in FAMILY_COLOURS if f in found]
    shown += sorted(found - set(shown))
    return [
        Patch(color=FAMILY_COLOURS.get(f, GREY), label=f"{f[0].upper()}: {f}" if letters else f)
        for f in shown
    ]


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


def cross_task_summary(cross: CrossTask, shares: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """Figure 3, beside the matrix: what its variance is due to, and own against other labels.

    shares: from `stats.variance_shares`
    own: from `stats.own_against_others`. The best other task is named for its ratio on all test
        examples, so that its ratio flatters it; the difference in accuracy is cross-fitted, so
        that the choice cannot bias it.
    """
    _require_columns(shares, ["source", "share", "share_low", "share_high"])
    _require_columns(own, ["eval_task", "own", "best_other", "best_other_ratio", "difference"])
    rows = own.sort_values("difference", na_position="first").reset_index(drop=True)
    cells = stats.cross_table(cross).set_index(["eval_task", "forget_task"])
    y, top = np.arange(len(rows)), np.arange(len(shares))[::-1]
    heights = [0.19 * len(shares), 0.21 * len(rows)]
    with style():
        figure = Figure(
            figsize=(TEXT_WIDTH, 1.75 + sum(heights)), layout=ConstrainedLayoutEngine(hspace=0.05)
        )
        grid = figure.add_gridspec(2, 2, height_ratios=heights, width_ratios=[1.25, 1])
        above = figure.add_subplot(grid[0, :])
        _intervals(above, shares, "share", top, "", "o", BLACK, True)
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
            known = rows["best_other"].notna().to_numpy()
            pairs = list(zip(rows["eval_task"][known], rows[partner][known], strict=True))
            found = cells.loc[pairs]
            _intervals(left, found, "forget_ratio", y[known] + offset, label, marker, colour, True)
        for line in y[rows["best_other"].isna()]:
            left.annotate(
                "nothing to forget",
                (0.02, line),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=SMALL,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        _intervals(right, rows, "difference", y, "", "o", BLACK, True)
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
        right.set_xlabel("accuracy: own − best other\n(above 0: the other forgets more)")
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

    agreement: from `stats.model_agreement` of these two

    Left, a point an evaluated task: its mean over the tasks trained on. Right, a point a pair.
    """
    if first.tasks != second.tasks:
        raise InputError(
            "compare",
            expected=f"two matrices of the tasks {first.tasks}",
            found=second.tasks,
            do="Compare matrices of the same study.",
        )
    families = _families(first.tasks, described)
    shown = [t for t, d in zip(first.tasks, first.defined & second.defined, strict=True) if d]
    x, y = (stats.evaluated_means(c).set_index("eval_task").loc[shown] for c in (first, second))
    kinds = [f"{c.condition} labels" for c in (first, second)]
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
        for task in shown:
            i = first.tasks.index(task)
            colour = FAMILY_COLOURS.get(families[task], GREY)
            ends = [
                _bar(rows.loc[task, _with_intervals(["mean_ratio"])].to_numpy(float))
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
        found = agreement.set_index("what")
        for axes, what in zip((left, right), stats.AGREEMENTS, strict=True):
            row = found.loc[what]
            estimate = _estimate(row, "rank_correlation")
            axes.set_title(f"{what} (n = {row['n']})\nrank correlation\n{estimate}", loc="left")
            axes.axline((0, 0), slope=1, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
            axes.set_xlabel(f"forget ratio, {kinds[0]}")
            sns.despine(ax=axes)
        left.set_ylabel(f"forget ratio, {kinds[1]}")
        own = Line2D([], [], marker="s", linestyle="", color="white", label="own labels")
        own.set_markeredgecolor(BLACK)
        handles = _family_handles([families[t] for t in shown], letters=False)
        _legend(figure, [*handles, own], "outside upper center")
        _undefined_note(figure, [t for t in first.tasks if t not in shown])
        figure.draw_without_rendering()  # names go between points, which must have their places
        columns = _with_intervals(["mean_ratio"])
        _name_points(left, x[columns].to_numpy(float), y[columns].to_numpy(float), shown)
    return figure


def models(
    crosses: Sequence[CrossTask], agreement: pd.DataFrame, described: pd.DataFrame
) -> Figure:
    """Figure 9: the matrices of several models, in one order of tasks and with the same colours.

    agreement: from `stats.model_agreement`; without rows, as for one model, it is not drawn

    Tasks are in the order of the UPGMA tree of the evaluated tasks' mean matrix.
    """
    if len({c.tasks for c in crosses}) != 1:
        raise InputError(
            "models",
            expected="at least one matrix, and the same tasks in all",
            found=[c.tasks for c in crosses],
            do="Compute the same study for every model.",
        )
    names = crosses[0].tasks
    matrices = np.stack([c.forget_ratio for c in crosses])
    known = np.isfinite(matrices)
    total = np.where(known, matrices, 0).sum(0)
    mean = np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0))
    order, _ = stats.upgma(mean)
    n_down = -(-len(crosses) // 3)
    n_across = -(-len(crosses) // n_down)
    width = 3.9 / n_across  # inches a matrix
    cell = float(np.clip(width / len(names), 0.115, 0.4))
    labelled = 72 * width / len(names) > 8  # points: names of columns do not cover each other
    heights = [*[cell * len(names)] * n_down, 0.13]  # inches, without what is written around them
    around = 0.4 * n_down + labelled * _name_length(names) + 0.95
    pairs = list(dict.fromkeys(zip(agreement["a"], agreement["b"], strict=True)))
    if pairs:
        heights.append(0.3 * len(pairs))
        around += 0.7
    with style():
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
        families = _families(names, described)
        for line in range(n_down):
            strip = figure.add_subplot(grid[line, 0])
            _family_strip(strip, [families[names[i]] for i in order], vertical=True)
            rows = [f"{names[i]} ({crosses[0].n[i]})" for i in order]
            strip.set_yticks(range(len(names)), rows, fontsize=SMALL)
            strip.set_ylabel("evaluated task (n)")
        for number, cross in enumerate(crosses):
            axes = figure.add_subplot(grid[number // n_across, 1 + number % n_across])
            image = _matrix(axes, cross, order, order, width=width)
            axes.set_title("\n".join(textwrap.wrap(_model_name(cross.model), int(15 * width))))
            if not labelled:
                axes.set_xlabel("same order as rows", fontsize=7)
            elif number // n_across == n_down - 1:
                columns = [names[i] for i in order]
                axes.set_xticks(range(len(names)), columns, fontsize=SMALL, rotation=90)
                axes.set_xlabel("task with random labels", fontsize=7)
        values = 72 * width / len(names) >= LEAST_CELL
        bar = figure.add_subplot(grid[n_down, 1:])
        _ratio_bar(bar, image, crosses[0].condition, values=values)
        if pairs:
            _agreement(figure.add_subplot(grid[-1, :]), agreement, pairs)
        frame = Patch(fill=False, edgecolor=BLACK, linewidth=1.2, label="own labels")
        handles = _family_handles(families.values(), letters=True)
        _legend(figure, [*handles, frame], "outside lower center")
    return figure


def _agreement(axes: Axes, table: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> None:
    """Rank correlations of each two models' matrices."""
    y = np.arange(len(pairs))[::-1]
    places = dict(zip(pairs, y, strict=True))
    for what, offset, marker, colour in zip(
        stats.AGREEMENTS, (0.15, -0.15), "os", (BLUE, VERMILION), strict=True
    ):
        rows = table[table["what"] == what]
        at = np.array([places[pair] for pair in zip(rows["a"], rows["b"], strict=True)])
        sizes = sorted(set(rows["n"]))
        n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        label = f"{what} (n = {n})"
        _intervals(axes, rows, "rank_correlation", at + offset, label, marker, colour, True)
    labels = ["\n".join(_model_name(m.split(",")[0]) for m in pair) for pair in pairs]
    axes.set_yticks(y, labels, fontsize=SMALL)
    axes.set_ylim(-0.5, len(pairs) - 0.5)
    axes.set_xlim(-1.05, 1.05)
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xlabel("rank correlation of two models' forget ratios")
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, handletextpad=0.2
    )
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)


def _model_name(model: str) -> str:
    """Without the owner on the hub, or the folder on the disk."""
    return model.rstrip("/").split("/")[-1]


def _undefined_note(figure: Figure, tasks: Sequence[str]) -> None:
    if tasks:
        note = f"Not drawn, as there was nothing to forget: {', '.join(tasks)}."
        figure.supxlabel(textwrap.fill(note, 110), fontsize=SMALL)


# --- shared --------------------------------------------------------------------------------------


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


# --- Figures 4 to 7, and the claims --------------------------------------------------------------

FORMAT_MARKS = {"text": ("free-text answers", "o"), "verbaliser": ("fixed verbaliser", "s")}
PREDICTOR_LABELS = {
    "confidence": "mean confidence of the fine-tuned model on the test set",
    "log_variance": "hidden-state variance of the fine-tuned model (trace of the covariance)",
}
PROBE_PHASES = dict(zip(PROBED_PHASES, PHASES, strict=True))  # of the probe, of the accuracies
VALUE = ["value", "low", "high"]
VERDICT_MARKS = {
    "holds": ("o", BLUE, True),
    "does not hold": ("D", VERMILION, True),
    "not decided by these data": ("s", GREY, False),
}
DARK_GREY, LIGHT = "#595959", "#bfbfbf"
SMALL = 6.5  # points, of text inside a panel


def predictors(table: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Figure 4: forget ratio against confidence and against hidden-state variance, a point a task.

    table: one row a task, of one model: forget_ratio, confidence and log_variance with their
        intervals (a bar is drawn where there is one), ratio_defined, eval_task, family,
        answer_format
    correlations: from `regression.correlations`
    """
    _require_columns(table, ["forget_ratio", *PREDICTOR_LABELS, "ratio_defined", "family"])
    rows = table[table["ratio_defined"]]
    y = rows[_with_intervals(["forget_ratio"])].to_numpy(float)
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 6.4), layout="constrained")
        panels = figure.subplots(2, 1, sharey=True)
        drawn = []
        for axes, (predictor, label) in zip(panels, PREDICTOR_LABELS.items(), strict=True):
            x = rows.reindex(columns=_with_intervals([predictor])).to_numpy(float)
            if predictor == "log_variance":
                x = np.exp(x)
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(LogFormatter())
                axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
            drawn.append((axes, x))
            for i, (family, form) in enumerate(zip(rows.family, rows.answer_format, strict=True)):
                axes.errorbar(
                    *(x[i, 0], y[i, 0], _bar(y[i]), _bar(x[i])),
                    fmt=FORMAT_MARKS[form][1],
                    color=FAMILY_COLOURS.get(family, GREY),
                    markeredgecolor=BLACK,
                    markeredgewidth=0.5,
                    markersize=5,
                    ecolor=GREY,
                    elinewidth=0.6,
                )
            for level in (0, 1):
                axes.axhline(level, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
            axes.set(xlabel=label, ylabel="forget ratio")
            row = correlations.set_index("predictor").loc[predictor]
            found = _estimate(row, "rank_correlation")
            axes.set_title(f"rank correlation {found}, n = {row['n_tasks']:.0f} tasks", loc="left")
            sns.despine(ax=axes)
        figure.legend(
            handles=_family_and_format_handles(table),
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
        note = "Dashed: nothing forgotten (0), all forgotten (1). Bars: 95 % intervals."
        undefined = table.loc[~table["ratio_defined"], "eval_task"]
        if len(undefined):
            note += f" Not drawn, as the ratio is undefined: {', '.join(sorted(undefined))}."
        figure.supxlabel(textwrap.fill(note, 110), fontsize=SMALL)
        figure.draw_without_rendering()  # names go between points, which must have their places
        for axes, x in drawn:
            _name_points(axes, x, y, list(rows["eval_task"]))
    return figure


def regression(
    joint: pd.DataFrame, alone: pd.DataFrame, left_out: pd.DataFrame, partial: pd.DataFrame
) -> Figure:
    """Figure 4, regression: the coefficients, how stable they are, and what they are fitted to.

    joint, alone: coefficients of the regression on all terms and on each term alone (columns term,
        coefficient with its interval): `regression.least_squares(...).coefficients`, `each_alone`
    left_out: from `regression.leave_one_task_out`, the joint coefficients without each task
    partial: from `regression.partial_regression`, one panel a term
    """
    _require_columns(alone, ["term", *_with_intervals(["coefficient"])])
    terms = list(dict.fromkeys([*alone["term"], *joint["term"]]))
    panels = [t for t in terms if t in set(partial["term"])]
    n_rows, columns = _grid(len(panels), 3)
    heights = [0.95 + 0.25 * len(terms)] + [0.35 + 1.35 * n_rows] * bool(panels)
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, sum(heights)), layout="constrained")
        upper, *lower = _stacked(figure, heights)
        _coefficients(upper, terms, joint, alone, left_out)
        for part in lower:
            for i, term in enumerate(panels):
                points = partial[partial["term"] == term]
                axes = part.add_subplot(n_rows, columns, i + 1)
                axes.plot(points["x"], points["y"], "o", color=BLUE, markersize=3)
                slope = joint.set_index("term").loc[term, "coefficient"]
                axes.axline((0, 0), slope=slope, color=BLACK, linewidth=0.8)
                axes.set_title(f"{_plain(term)}\nn = {len(points)}", fontsize=SMALL + 0.5)
                axes.tick_params(labelsize=SMALL)
                sns.despine(ax=axes)
            part.supxlabel("term, less what the other terms say of it", fontsize=8)
            part.supylabel("forget ratio, likewise", fontsize=8)
    return figure


def _coefficients(
    figure: SubFigure,
    terms: list[str],
    joint: pd.DataFrame,
    alone: pd.DataFrame,
    left_out: pd.DataFrame,
) -> None:
    axes = figure.subplots()
    y = pd.Series(np.arange(len(terms))[::-1], index=terms, dtype=float)
    if len(left_out):
        spans = left_out.groupby("term")["coefficient"].agg(["min", "max"])
        axes.hlines(
            *(y[spans.index] + 0.18, spans["min"], spans["max"]),
            color=BLUE,
            linewidth=6,
            alpha=0.3,
            label="all terms, leaving out one task in turn",
        )
    for fit, label, marker, colour, offset in (
        (joint, "all terms together", "o", BLUE, 0.18),
        (alone, "each term alone", "D", VERMILION, -0.18),
    ):
        found = fit[fit["coefficient"].notna()]
        if len(found):
            at = y[found["term"]].to_numpy() + offset
            _intervals(axes, found, "coefficient", at, label, marker, colour, fit is joint)
    estimated = pd.concat([joint, alone]).dropna(subset="coefficient")["term"]
    for term in y.index.difference(estimated):
        axes.text(0, y[term], " cannot be estimated", fontsize=SMALL, va="center", color=DARK_GREY)
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_yticks(y, [_plain(t) for t in terms])
    axes.set_ylim(-0.6, len(terms) - 0.4)
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)
    label = "change of the forget ratio per standard deviation, or between groups"
    figure.supxlabel(label, fontsize=8)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, handletextpad=0.4)


def example_level(table: pd.DataFrame) -> Figure:
    """Figure 4, single examples: does a task's confidence or deviation say which are lost?

    table: from `regression.example_level`; the row "pooled" is drawn at the bottom
    """
    _require_columns(table, ["eval_task", "predictor", *_with_intervals(["rank_correlation"])])
    names = [t for t in sorted(set(table["eval_task"])) if t != "pooled"] + ["pooled"]
    y = pd.Series(np.arange(len(names))[::-1], index=names, dtype=float)
    y["pooled"] -= 0.3
    labels = {
        "confidence": "confidence",
        "log_deviation": "hidden state's distance",
    }
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 1.15 + 0.19 * len(names)), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (predictor, label) in zip(panels, labels.items(), strict=True):
            rows = table[table["predictor"] == predictor].set_index("eval_task").loc[names]
            for pooled, marker, colour in ((False, "o", BLUE), (True, "D", VERMILION)):
                some = rows[(rows.index == "pooled") == pooled]
                at = y[some.index].to_numpy()
                _intervals(axes, some, "rank_correlation", at, label, marker, colour, True)
            for name in rows.index[rows["rank_correlation"].isna()]:
                axes.text(0.02, y[name], "undefined", fontsize=SMALL, va="center", color=DARK_GREY)
            axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
            axes.set_title(label)
            axes.grid(axis="y", visible=False)
            sns.despine(ax=axes, left=True)
        rows = table[table["predictor"] == "confidence"].set_index("eval_task")
        panels[0].set_yticks(
            y, [f"{t} ({rows.loc[t, 'n_lost']} of {rows.loc[t, 'n']})" for t in names]
        )
        panels[0].set_ylim(y["pooled"] - 0.6, len(names) - 0.4)
        panels[0].set_ylabel("task (lost of right)")
        label = "rank correlation with being lost\n(over the questions that were right before)"
        figure.supxlabel(label, fontsize=8)
    return figure


def order(table: pd.DataFrame, examples: pd.DataFrame) -> Figure:
    """Figure 5: the step at which an example is learned against the step at which it is forgotten.

    table: from `stats.order`, of one model; a task without enough examples is named with its count
    examples: from `stats.order_examples`; examples with the same two steps are one larger dot
    """
    _require_columns(table, ["n", "enough", *_with_intervals(["rank_correlation"])])
    _require_columns(examples, ["eval_task", "learned_step", "forgotten_step"])
    rows = table.sort_values(["enough", "rank_correlation"], ascending=[True, False])
    names = list(rows.loc[rows["enough"], "eval_task"])[::-1]
    n_rows, columns = _grid(len(names), 5)
    heights = [0.65 + 0.16 * len(rows)] + [0.4 + 1.05 * n_rows] * bool(names)
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, sum(heights)), layout="constrained")
        upper, *lower = _stacked(figure, heights)
        _order_correlations(upper, rows)
        for part in lower:
            panels = part.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False)
            for axes, name in zip(_used(panels, len(names)), names, strict=True):
                own = examples[examples["eval_task"] == name]
                _counts(axes, own[["learned_step", "forgotten_step"]].to_numpy(float))
                axes.set_title(f"{name}\nn = {len(own)}", fontsize=SMALL - 0.5)
                axes.tick_params(labelsize=SMALL)
                sns.despine(ax=axes)
            part.supxlabel("learned at step (of fine-tuning)", fontsize=8)
            part.supylabel("forgotten at step", fontsize=8)
    return figure


def _order_correlations(figure: SubFigure, rows: pd.DataFrame) -> None:
    axes = figure.subplots()
    y = np.arange(len(rows))
    enough = rows["enough"].to_numpy(bool)
    _intervals(axes, rows[enough], "rank_correlation", y[enough], "", "o", BLUE, True)
    for at in y[~enough]:
        axes.text(0.01, at, "too few examples", fontsize=SMALL, va="center", color=DARK_GREY)
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_yticks(y, rows["eval_task"] + " (" + rows["n"].astype(str) + ")")
    drawn = rows.loc[enough, _with_intervals(["rank_correlation"])].to_numpy(float)
    reach = 1.05 * np.nanmax(np.abs(drawn), initial=0.5)
    axes.set(xlim=(-reach, reach), ylim=(-0.6, len(rows) - 0.4), ylabel="task (n)")
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)
    figure.supxlabel("rank correlation (below 0: learned first, forgotten last)", fontsize=8)


def probes(table: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """Figure 6: what a linear probe finds, beside what the model answers, in the same phases.

    table: from `stats.probe_accuracy`, of one model; own: from `stats.forgetting`
    """
    _require_columns(table, [*_with_intervals(["accuracy", "control"]), "phase", "is_paper_layer"])
    _require_columns(own, _with_intervals(PROBE_PHASES.values()))
    own = own.sort_values("forgotten").reset_index(drop=True)
    at_layer = table[table["is_paper_layer"]]
    y = np.arange(len(own))
    offsets = np.linspace(0.27, -0.27, len(PROBE_PHASES))
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 1.15 + 0.25 * len(own)), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for (phase, column), offset in zip(PROBE_PHASES.items(), offsets, strict=True):
            rows = at_layer[at_layer["phase"] == phase].set_index("eval_task")
            rows = rows.loc[own["eval_task"]]
            _, marker, colour, filled = ACCURACY_MARKS[column]
            _intervals(left, rows, "control", y + offset, "_", "x", LIGHT, True)
            _intervals(left, rows, "accuracy", y + offset, "_", marker, colour, filled)
            label = "after forgetting" if phase == "forgotten" else phase
            _intervals(right, own, column, y + offset, label, marker, colour, filled)
        left.plot([], [], "x", color=LIGHT, markersize=4, label="control: shuffled labels")
        for axes, name, n, unit in (
            (left, f"linear probe of layer {at_layer['layer'].iloc[0]}", at_layer["n"], "answers"),
            (right, "the model's own choice", own["n"], "questions"),
        ):
            axes.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
            axes.set_title(name)
            axes.set_xlabel(f"accuracy, {_count(n)} {unit} a task")
            axes.grid(axis="y", visible=False)
            sns.despine(ax=axes, left=True)
        left.set_yticks(y, own["eval_task"])
        left.set_ylim(-0.6, len(own) - 0.4)
        figure.legend(loc="outside upper center", ncols=4, frameon=False, handletextpad=0.2)
    return figure


def probe_layers(table: pd.DataFrame) -> Figure:
    """Figure 6, over layers: the probe's accuracy in every layer, a thin line a task, and its mean.

    table: from `stats.probe_accuracy`, of one model
    """
    _require_columns(table, ["accuracy", "control", "phase", "layer", "is_paper_layer"])
    paper_layer = table.loc[table["is_paper_layer"], "layer"].iloc[0]
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 2.5), layout="constrained")
        panels = figure.subplots(1, len(PROBE_PHASES), sharex=True, sharey=True)
        for axes, (phase, column) in zip(panels, PROBE_PHASES.items(), strict=True):
            rows = table[table["phase"] == phase]
            label, marker, colour, filled = ACCURACY_MARKS[column]
            lines, control = (
                rows.pivot_table(index="layer", columns="eval_task", values=measure)
                for measure in ("accuracy", "control")
            )
            axes.fill_between(
                *(control.index, control.min(axis=1), control.max(axis=1)),
                color=GREY,
                alpha=0.25,
                linewidth=0,
            )
            axes.plot(control.mean(axis=1), color=DARK_GREY, linestyle="--", linewidth=1)
            axes.plot(lines, color=colour, linewidth=0.6, alpha=0.5)
            axes.plot(
                lines.mean(axis=1),
                color=colour,
                marker=marker,
                markersize=3.5,
                markerfacecolor=colour if filled else "white",
            )
            axes.axvline(paper_layer, color=BLACK, linewidth=0.8, linestyle=":", zorder=1)
            axes.set_title(label.split(",")[0])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            sns.despine(ax=axes)
        panels[0].set_ylabel("accuracy of the linear probe")
        panels[1].set_xlabel("layer (0: embeddings; dotted: the paper's layer)")
        figure.legend(
            handles=[
                Line2D([], [], color=BLACK, linewidth=2, label=f"mean of {lines.shape[1]} tasks"),
                Line2D([], [], color=BLACK, linewidth=0.6, alpha=0.5, label="one task"),
                Line2D([], [], color=DARK_GREY, linestyle="--", label="control: mean"),
                Patch(color=GREY, alpha=0.25, linewidth=0, label="control: range over tasks"),
            ],
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
    return figure


def sizes(table: pd.DataFrame) -> Figure:
    """Figure 7: accuracy after forgetting over the size of the forgetting set, a panel a task.

    table: from `stats.forgetting` on the results of part "sizes", of one model
    """
    _require_columns(table, ["size", "n", *_with_intervals(["tuned", "forgotten"])])
    by_task = dict(list(table.sort_values("size").groupby("eval_task")))
    names = sorted(by_task, key=lambda t: by_task[t]["forgotten"].iloc[-1], reverse=True)
    ticks = sorted(set(table["size"]))
    n_rows, columns = _grid(len(names), 5)
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 0.75 + 1.2 * n_rows), layout="constrained")
        panels = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, name in zip(_used(panels, len(names)), names, strict=True):
            rows = by_task[name]
            full = rows.iloc[-1]
            axes.axhspan(full["tuned_low"], full["tuned_high"], color=BLUE, alpha=0.15, linewidth=0)
            axes.axhline(full["tuned"], color=BLUE, linewidth=1)
            axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--")
            values = rows[_with_intervals(["forgotten"])].to_numpy(float)
            axes.errorbar(
                *(rows["size"], values[:, 0]),
                yerr=np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0, None),
                fmt="D-",
                color=VERMILION,
                markersize=3.5,
                linewidth=1,
            )
            axes.set_xscale("log")
            axes.set_title(f"{name}\nn = {full['n']}", fontsize=SMALL)
            axes.set_xticks(ticks, [str(t) for t in ticks])
            axes.minorticks_off()
            axes.tick_params(labelsize=SMALL)
            axes.margins(x=0.15)
            sns.despine(ax=axes)
        panels[0, 0].set_ylim(*_with_margin(table[["forgotten_low", "tuned_high"]].to_numpy()))
        figure.supxlabel("size of the forgetting set (examples)", fontsize=8)
        figure.supylabel("accuracy on the test set", fontsize=8)
        figure.legend(
            handles=[
                Line2D([], [], color=BLUE, linewidth=1, label="fine-tuned"),
                Line2D([], [], color=VERMILION, marker="D", label="after forgetting"),
                Line2D([], [], color=BLACK, linewidth=0.8, linestyle="--", label="chance"),
            ],
            loc="outside upper center",
            ncols=3,
            frameon=False,
        )
    return figure


def claims(table: pd.DataFrame) -> Figure:
    """Every claim's statistic with its interval, its threshold, the verdict and the paper's number.

    table: from `claims.verdicts`
    """
    _require_columns(table, ["claim", "statistic", *VALUE, "statement", "threshold", "paper"])
    rows = table.rename(columns=dict(zip(VALUE, _with_intervals(["value"]), strict=True)))
    y = np.arange(len(rows))[::-1]
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 0.8 + 0.4 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for verdict, (marker, colour, filled) in VERDICT_MARKS.items():
            of_kind = (rows["verdict"] == verdict).to_numpy()
            some = rows[of_kind]
            _intervals(axes, some, "value", y[of_kind], verdict, marker, colour, filled)
        axes.plot(
            *(rows["paper"], y + 0.22, "*"),  # above a point of ours at the same value
            color=ORANGE,
            markeredgecolor=BLACK,
            markeredgewidth=0.5,
            markersize=7,
            label="the paper's value",
        )
        # Shares, correlations and differences of accuracies: all lie between -1 and 1.
        low, high = min(-1, axes.get_xlim()[0]), max(1, axes.get_xlim()[1])
        for at, statement, threshold in zip(y, rows["statement"], rows["threshold"], strict=True):
            left = {"above": threshold, "below": low}.get(statement, -threshold)
            right = {"above": high, "below": threshold}.get(statement, threshold)
            axes.barh(at, right - left, 0.8, left, color=BLUE, alpha=0.13, linewidth=0, zorder=0)
        axes.set_xlim(low, high)
        axes.set_yticks(
            y,
            [
                f"{claim}\n{textwrap.fill(statistic, 56, break_on_hyphens=False)}"
                for claim, statistic in zip(rows["claim"], rows["statistic"], strict=True)
            ],
        )
        axes.set_ylim(-0.6, len(rows) - 0.4)
        figure.supxlabel("value of the statistic (shaded: where the claim holds)", fontsize=8)
        axes.tick_params(axis="y", labelsize=SMALL)
        axes.grid(axis="y", visible=False)
        sns.despine(ax=axes, left=True)
        for at, n, unit in zip(y, rows["n"], rows["unit"], strict=True):
            axes.text(
                *(1.02, at, f"{n:.0f} {unit}" if n > 0 else "no data"),
                transform=axes.get_yaxis_transform(),
                fontsize=SMALL,
                va="center",
            )
        figure.legend(loc="outside upper center", ncols=4, frameon=False, handletextpad=0.2)
    return figure


def _family_and_format_handles(table: pd.DataFrame) -> list[Artist]:
    formats = [f for f in FORMAT_MARKS if f in set(table["answer_format"])]
    marks = [FORMAT_MARKS[f] for f in formats]
    return [
        *(Line2D([], [], marker=m, color=BLACK, linestyle="", label=label) for label, m in marks),
        *_family_handles(table["family"], letters=False),
    ]


def _grid(n: int, most: int) -> tuple[int, int]:
    """Rows and columns of n panels, at most so many a row, with rows of about the same length."""
    n_rows = -(-n // most)
    return n_rows, -(-n // max(n_rows, 1))


def _stacked(figure: Figure, heights: list[float]) -> list[SubFigure]:
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    return list(parts[:, 0])


def _used(panels: np.ndarray, n: int) -> Iterator[Axes]:
    """The first n of shared axes; the others vanish, and those above them get their tick labels."""
    for axes in panels.flat[n:]:
        axes.set_visible(False)
    for axes in panels.flat[max(n - panels.shape[1], 0) : n]:
        axes.tick_params(labelbottom=True)
    return iter(panels.flat[:n])


def _with_intervals(measures: Iterable[str]) -> list[str]:
    return [f"{m}{end}" for m in measures for end in ("", "_low", "_high")]


def _with_margin(values: np.ndarray) -> tuple[float, float]:
    low, high = min(np.nanmin(values), CHANCE), max(np.nanmax(values), CHANCE)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _bar(values: np.ndarray) -> np.ndarray | None:
    """(2, 1) lengths of an error bar for (3,) value, low, high; None where there is no interval."""
    if not np.isfinite(values).all():
        return None
    return np.clip([[values[0] - values[1]], [values[2] - values[0]]], 0, None)


def _estimate(row: pd.Series, measure: str) -> str:
    """Value and interval as text: 0.12 [-0.30, 0.51], with a minus as wide as a plus."""
    value, low, high = (float(row[c]) for c in _with_intervals([measure]))
    if not np.isfinite(value):
        return "undefined"
    interval = f"[{low:.2f}, {high:.2f}]" if np.isfinite(low + high) else "(no interval)"
    return f"{value:.2f} {interval}".replace("-", "−")


def _count(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return str(low) if low == high else f"{low} to {high}"


def _counts(axes: Axes, pairs: np.ndarray) -> None:
    """Dots at the (n, 2) pairs, with an area that grows with how many are the same pair."""
    places, counts = np.unique(pairs, axis=0, return_counts=True)
    steps = max(len(set(places[:, 0])), len(set(places[:, 1])))
    largest = np.clip(60 / steps, 3, 10)  # points: a panel is about 60 wide
    area = np.clip(largest**2 * counts / counts.max(), 1, None)
    axes.scatter(places[:, 0], places[:, 1], s=area, color=BLUE, alpha=0.8, linewidth=0)
    axes.margins(0.15)


def _name_points(axes: Axes, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Write each point's name beside it, where it covers no other name and no point.

    Every name tries places around its point and takes the one that covers least and is nearest;
    in several rounds, as the best place depends on the others'. The figure must be laid out.

    x, y: (n, 3) value, low and high
    """
    pixels = axes.figure.dpi / 72  # a point in pixels
    points, lows, highs = (
        axes.transData.transform(np.column_stack([x[:, i], y[:, i]])) for i in range(3)
    )
    texts = [axes.text(0, 0, name, fontsize=SMALL) for name in names]
    sizes = np.array([t.get_window_extent().size for t in texts]).reshape(-1, 2)
    for text in texts:
        text.remove()
    frame = np.array(axes.get_window_extent().extents)
    marks = [np.hstack([points - 3.5 * pixels, points + 3.5 * pixels])]
    for along in (np.array([1, 0]), np.array([0, 1])):  # a bar is as thick as half a point
        ends = (np.where(along, end, points) for end in (lows - pixels / 4, highs + pixels / 4))
        low, high = ends
        marks.append(np.hstack([low - (1 - along) * pixels / 4, high + (1 - along) * pixels / 4]))
    gaps = np.array([5, 8, 12, 17, 24, 32, 42]) * pixels
    angles = np.arange(16) * np.pi / 8
    around = np.round(np.stack([np.cos(angles), np.sin(angles)], axis=1), 3)
    steps = (gaps[:, None, None] * around).reshape(-1, 2)
    towards = np.tile(np.sign(around), (len(gaps), 1))
    boxes = np.full((len(names), 4), np.nan)  # left, bottom, right, top
    for _ in range(5):
        for i, size in enumerate(sizes):
            centres = points[i] + steps + towards * size / 2
            tried = np.hstack([centres - size / 2, centres + size / 2])
            taken = np.vstack([*marks, np.delete(boxes, i, axis=0)])
            cost = _overlap(tried, taken) + 3 * (size.prod() - _overlap(tried, frame[None]))
            boxes[i] = tried[np.argmin(cost + 2 * np.hypot(*steps.T))]
    for name, point, box in zip(names, points, boxes, strict=True):
        centre = (box[:2] + box[2:]) / 2
        far = np.hypot(*(np.clip(point, box[:2], box[2:]) - point)) > 6.5 * pixels
        axes.annotate(
            name,
            tuple(axes.transData.inverted().transform(point)),
            tuple((centre - point) / pixels),
            textcoords="offset points",
            fontsize=SMALL,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.2},
            arrowprops={"arrowstyle": "-", "color": BLACK, "linewidth": 0.4} if far else None,
        ).set_in_layout(False)


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) area of each of (n, 4) boxes that (m, 4) others cover, each counted for itself."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return np.nansum(np.clip(high - low, 0, None).prod(-1), axis=1)


def _plain(term: str) -> str:
    return term.replace("tuned", "fine-tuned accuracy").replace("_", " ")


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
