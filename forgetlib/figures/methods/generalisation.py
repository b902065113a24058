"""Draw the generalisation matrix: what each method costs, from its forgetting set to other tasks.

Does forgetting generalise beyond the questions that a method was given, and at what price
elsewhere? The table is `reach.table`, a row a skill, method and "where".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from forgetlib.figures import intervals
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.matrix import DROP_COLOURS, readable_on, two_digits
from forgetlib.figures.methods.reach import (
    FAMILY,
    MEASURES,
    NEW,
    OTHER,
    RETAINED,
    WHERES,
    away,
    table as table,
)
from forgetlib.figures.names import (
    MOST_NAMED,
    listed,
    method_title,
    method_titles,
    methods_or_count,
    title,
)
from forgetlib.figures.numbers import UNDEFINED_TEXT, estimate_of, number
from forgetlib.figures.rows import skill_of
from forgetlib.figures.style import (
    DARK_GREY,
    GREEN,
    PURPLE,
    SMALL,
    TEXT_WIDTH,
    readable,
    set_finding,
    style,
)
from forgetlib.figures.verdicts import DAMAGE
from forgetlib.metrics import CHANCE

# What an interval has to stay below for "less than": a tenth of what there is above chance.
LITTLE = 0.05
# Of a share, from all that is above chance won to all of it lost; of nats, twice a damage.
NLL_COLOURS = mpl.colors.LinearSegmentedColormap.from_list(
    "nats", [(0, GREEN), (0.5, "#ffffff"), (0.75, "#dcb3cd"), (1, PURPLE)]
)
SCALES = {  # of each measure its name, its colours and where they end
    "accuracy_lost": ("accuracy lost", DROP_COLOURS, 0.5),
    "auroc_lost": ("AUROC lost", DROP_COLOURS, 0.5),
    "nll_rise": ("rise of nats a token of the true response", NLL_COLOURS, 2 * DAMAGE),
}
EDGE = "#e6e6e6"
EXPLAINED = "small: 95 % interval; italics where it includes 0"
UNKNOWN = "#d9d9d9"  # where nothing was known, so that nothing could be lost


def finding(table: pd.DataFrame, measure: str = "auroc_lost", *, exact: bool = False) -> str:
    """Say in a sentence which methods cost more than the forgetting set, and what.

    A method costs something where its interval is above 0, and less than a number where its
    interval is below that. Damaged is a model whose nats a token of unrelated text rise by more
    than `verdicts.DAMAGE`: what else it lost is not told.

    table: of one skill, from `table`; measure: "auroc_lost" or "accuracy_lost"
    exact: give each number its interval
    """
    task = skill_of(table)
    table = table.assign(most_seeds=table["n_seeds"].max())  # of any method: see `_named`
    new = table[table["where"] == NEW].set_index("method")
    if not (new["auroc_known_low"] > CHANCE).any():
        return f"{title(task)} was not shown to be known before forgetting"
    harm = _harm(table)
    damaged = harm[harm["nll_rise_low"] > DAMAGE]
    left = table[~table["method"].isin(damaged.index)]
    said = []
    if len(new := left[left["where"] == NEW].set_index("method")):
        undamaged = "where the model is not damaged, " if len(damaged) else ""
        said.append(undamaged + _on_new_questions(new, task, measure, exact))
        said += _elsewhere(left, measure, "other method" if len(damaged) else "method", exact)
    if len(damaged):
        numbers = _numbers(damaged, "nll_rise", exact)
        where = f"nats a token of {damaged['where'].iloc[0]} rise by {numbers}"
        said.append(f"the model is damaged by {_named(damaged)} ({where})")
    if not (table["n_seeds"] > 1).any():
        said.append("one seed")
    text = "; ".join(said)
    return text[:1].upper() + text[1:]


def _on_new_questions(rows: pd.DataFrame, task: str, measure: str, exact: bool) -> str:
    """Say after which methods questions are lost that these were not given."""
    name = MEASURES[measure]
    lost = _lost(rows, measure)
    rest = rows.drop(index=lost.index)
    spared = rest[rest[f"{measure}_high"] < LITTLE]
    undecided = rest.drop(index=spared.index)
    said = []
    if len(lost):
        said.append(f"lose {name} too after {_named(lost)} ({_numbers(lost, measure, exact)})")
    if len(spared):
        bound = _at_most(spared, measure) + ("" if said else f" of {name}")
        said.append(f"{'and' if said else 'lose'} {bound} after {_named(spared)}")
    found = f"new questions of {title(task)} {', '.join(said)}"
    if not said:
        return f"whether {found}lose {name} is not decided after {_named(undecided)}"
    return f"{found}; not decided after {_named(undecided)}" if len(undecided) else found


def _elsewhere(table: pd.DataFrame, measure: str, every: str, exact: bool) -> Iterator[str]:
    """Say of tasks that were not to be forgotten what they lose, group by group."""
    little: dict[str, pd.DataFrame] = {}
    every_little = ""
    for where in (FAMILY, RETAINED, OTHER):
        there = table[(table["where"] == where) & table[f"{measure}_high"].notna()]
        rows = there[there["auroc_known_low"] > CHANCE].set_index("method")
        # A method may have been tried in other seeds than most.
        some = " before which they were known" if len(rows) < len(there) else ""
        name = "tasks of the same family" if where == FAMILY else where
        if not len(rows):
            continue
        if (rows[f"{measure}_high"] < LITTLE).all():
            little[name] = rows
            every_little = max(every_little, f"every {every}{some}", key=len)
        elif len(lost := _lost(rows, measure)):
            yield f"{name} lose after {_named(lost)} ({_numbers(lost, measure, exact)})"
        else:
            most = _at_most(rows, measure)
            yield f"{name} are not shown to lose, and lose {most} after every {every}{some}"
    if little:
        both = pd.concat(list(little.values()))
        one = len(set(both.index)) == 1
        after = _named(both.iloc[:1]) if one else every_little
        yield f"{listed(little)} lose {_at_most(both, measure)} after {after}"


def _harm(table: pd.DataFrame) -> pd.DataFrame:
    """Take the rows of unrelated tasks: of those that no method retains, where there are any."""
    rows = table[table["nll_rise"].notna()].set_index("method")
    return rows[rows["where"] == away(table)]


def _lost(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Take the rows of methods that are shown to cost something, those that cost most first."""
    return rows[rows[f"{measure}_low"] > 0].sort_values(measure, ascending=False)


def _named(rows: pd.DataFrame) -> str:
    """Name the methods of rows; those of a single seed are marked where any others have more."""
    most = rows["most_seeds"].max()
    return methods_or_count(method_titles(rows.index, rows["n_seeds"], most))


def _numbers(rows: pd.DataFrame, measure: str, exact: bool) -> str:
    """Write the methods' numbers in their order; of many the least and the greatest."""
    if len(rows) > MOST_NAMED:
        return f"{number(rows[measure].min())} to {number(rows[measure].max())}"
    if exact:
        return ", ".join(estimate_of(row, measure) for _, row in rows.iterrows())
    return ", ".join(number(value) for value in rows[measure])


def _at_most(rows: pd.DataFrame, measure: str) -> str:
    """Write what the intervals of all rows stay below, rounded up to hundredths."""
    highest = max(float(rows[f"{measure}_high"].max()), 0.0)
    return f"less than {number((math.floor(round(100 * highest, 6)) + 1) / 100)}"


# --- as a picture


def draw(table: pd.DataFrame, measures: Sequence[str] = ("auroc_lost",)) -> Figure:
    """Draw the matrix of one skill: a row a method, a column a place; a block a measure.

    Every cell has its number and below it the interval, "-" where nothing was measured. A place
    where nothing was measured after any method has no column. Italics:
    the interval includes 0. Grey: the known model was not shown to know what is asked there.

    table: from `generalisation.table`; measures: of `MEASURES`, AUROC alone unless said otherwise,
        as all of them at once are more than a page has room for
    """
    do = "Pass the table of figures.methods.generalisation, of one skill."
    wanted = [
        "eval_task",
        "method",
        "where",
        "n_seeds",
        *with_intervals(["auroc_known", *MEASURES]),
    ]
    intervals.require_columns("the generalisation matrix", table, wanted, do)
    said = finding(table, "accuracy_lost" if "accuracy_lost" in measures else "auroc_lost")
    methods = list(dict.fromkeys(table["method"]))
    names = [readable(_row_name(table[table["method"] == m])) for m in methods]
    with style(names, [said]):
        height = 0.75 + len(measures) * (0.8 + 0.3 * len(methods))
        figure = Figure(figsize=(TEXT_WIDTH, height), layout="constrained")
        panels = figure.subplots(len(measures), 1, squeeze=False)[:, 0]
        for axes, measure in zip(panels, measures, strict=True):
            _block(axes, table, measure, methods)
            axes.set_yticks(range(len(methods)), names, fontsize=SMALL)
        set_finding(figure, said)
    return figure


def _row_name(rows: pd.DataFrame) -> str:
    """Name a method's row; a single seed is told, as its intervals are over questions alone."""
    name = method_title(str(rows["method"].iloc[0]))
    return f"{name}, 1 seed" if rows["n_seeds"].max() == 1 else name


def _block(axes: Axes, table: pd.DataFrame, measure: str, methods: Sequence[str]) -> None:
    """Draw one measure's matrix, with a bar that explains its colours."""
    name, colours, most = SCALES[measure]
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(-most, most), colours)
    measured = set(table.loc[table[measure].notna(), "where"])
    wheres = [where for where in WHERES if where in measured]
    for row in table[table["where"].isin(wheres)].to_dict("records"):
        of = pd.Series(row)
        place = wheres.index(row["where"]), methods.index(row["method"])
        value, low, high = (float(of[c]) for c in with_intervals([measure]))
        known = measure == "nll_rise" or of["auroc_known_low"] > CHANCE
        colour = scale.to_rgba(np.array(value)) if known else UNKNOWN
        colour = colour if np.isfinite(value) else "white"
        _cell(axes, place, (value, low, high), colour)
    axes.set_xlim(-0.5, len(wheres) - 0.5)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xticks(range(len(wheres)), [w.replace(" ", "\n") for w in wheres], fontsize=SMALL)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(
        scale, ax=axes, location="bottom", shrink=0.5, aspect=40, extend="both", pad=0.03
    )
    bar.outline.set_visible(False)
    bar.set_ticks([-most, 0, most], labels=[f"−{most:g}", "0", f"{most:g}"], fontsize=SMALL)
    grey = "" if measure == "nll_rise" else "\ngrey: not shown to be known before"
    bar.set_label(f"{name}\n{EXPLAINED}{grey}", fontsize=SMALL)


def _cell(
    axes: Axes, place: tuple[int, int], values: tuple[float, float, float], colour: Any
) -> None:
    """Draw a cell: its value, and below it the interval, where it has one."""
    x, y = place
    value, low, high = values
    box = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=EDGE, linewidth=0.6)
    axes.add_patch(box)
    if not np.isfinite(value):
        axes.text(x, y, UNDEFINED_TEXT, ha="center", va="center", color=DARK_GREY)
        return
    ink = readable_on(colour)
    whole = np.isfinite([low, high]).all()
    slant = "italic" if whole and low <= 0 <= high else "normal"
    text: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "style": slant}
    axes.text(x, y - (0.17 if whole else 0), two_digits(value), fontsize=7.5, **text)
    if whole:
        bounds = f"{two_digits(low)}, {two_digits(high)}"
        axes.text(x, y + 0.23, bounds, fontsize=SMALL, **text)
