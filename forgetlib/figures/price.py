"""Draw what forgetting costs: AUROC on new questions after each method, and the harm elsewhere.

One picture of all skills of a study, a row a method. A method that generalises takes AUROC on
questions that it was not given towards 0.5; one that inverts takes it below; one that damages makes
unrelated text less likely, so that what is lost on new questions may be the model's and not the
skill's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.names import listed, method_title, title, titles
from forgetlib.figures.numbers import number
from forgetlib.figures.reach import FAMILY, NEW, OTHER, RETAINED
from forgetlib.figures.rows import mark, set_finding
from forgetlib.figures.style import (
    BLUE,
    DARK_GREY,
    GREEN,
    ORANGE,
    PURPLE,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    say_where_nothing,
    style,
)
from forgetlib.figures.verdicts import DAMAGE
from forgetlib.metrics import CHANCE

MARKS = (
    ("o", BLUE),
    ("s", VERMILION),
    ("^", GREEN),
    ("v", PURPLE),
    ("D", ORANGE),
    ("P", DARK_GREY),
)
MOST_NAMED = 6  # methods that a sentence names; of more it says how many
MEASURES = {
    "auroc": "AUROC on new questions,\nafter forgetting",
    "nll_rise": "rise of nats a token\nof other tasks",
}


def table(reach: pd.DataFrame) -> pd.DataFrame:
    """Take what a method costs on new questions of its skill, and on unrelated tasks.

    reach: from `reach.table`, of any number of skills
    Returns a row a skill and method: eval_task, method, n_seeds, and with their intervals
    auroc_known and auroc (before and after, on new questions), auroc_lost, and nll_rise of tasks
    that no method retains, or of others where there are none.
    """
    do = "Pass the table of figures.reach."
    wanted = ["auroc_known", "auroc", "auroc_lost", "nll_rise"]
    columns = ["eval_task", "method", "where", "n_seeds", *with_intervals(wanted)]
    intervals.require_columns("what methods cost", reach, columns, do)
    keys = ["eval_task", "method", "n_seeds"]
    new = reach[reach["where"] == NEW]
    measured = reach[reach["nll_rise"].notna()]
    away = next((w for w in (OTHER, FAMILY, RETAINED) if (measured["where"] == w).any()), OTHER)
    harm = measured.loc[measured["where"] == away, [*keys, *with_intervals(["nll_rise"])]]
    return new[[*keys, *with_intervals(wanted[:3])]].merge(harm, on=keys, how="left")


def groups(table: pd.DataFrame) -> dict[str, list[str]]:
    """Sort methods by what they did to every skill that was known before.

    "damages": other tasks' nats a token rise by more than `verdicts.DAMAGE` in one of the skills
    "inverts": AUROC on new questions is below 0.5 in one
    "generalises": AUROC is lost in all, and other tasks' nats stay below `DAMAGE`
    "spares": less than a tenth of what there is above chance is lost in all
    "open": the rest; by 95 % intervals
    """
    found: dict[str, list[str]] = {
        g: [] for g in ("generalises", "spares", "inverts", "damages", "open")
    }
    known = table[table["auroc_known_low"] > CHANCE]
    for method, of in known.groupby("method", sort=False):
        little = (of["auroc_known"] - CHANCE) / 10
        if (of["nll_rise_low"] > DAMAGE).any():
            group = "damages"
        elif (of["auroc_high"] < CHANCE).any():
            group = "inverts"
        elif (of["auroc_lost_low"] > 0).all() and (of["nll_rise_high"] < DAMAGE).all():
            group = "generalises"
        elif (of["auroc_lost_high"] < little).all():
            group = "spares"
        else:
            group = "open"
        found[group].append(str(method))
    return found


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence which methods generalise, and which of them do harm elsewhere.

    table: from `price.table`
    """
    of = groups(table)
    n_methods = sum(map(len, of.values()))
    if not n_methods:
        return "No skill was shown to be known before forgetting"
    known = table[table["auroc_known_low"] > CHANCE].set_index("method")
    skills = list(dict.fromkeys(known["eval_task"]))
    where = title(skills[0]) if len(skills) == 1 else "both skills"
    where = where if len(skills) < 3 else f"all {len(skills)} skills"
    said = []
    if of["generalises"]:
        lost = known.loc[of["generalises"], "auroc_lost"]
        said.append(
            f"new questions of {where} lose AUROC ({number(lost.min())} to {number(lost.max())}) "
            f"and other tasks are not damaged after {_named(of['generalises'])}"
        )
    else:
        said.append(f"after none of {n_methods} methods is a loss on new questions of {where} ")
        said[0] += "shown without damage to other tasks"
    if of["damages"]:
        worst = known.loc[of["damages"], "nll_rise"].max()
        said.append(f"damaged, by up to {number(worst, 1)} nats a token, after ")
        said[-1] += _named(of["damages"])
    for group, words in (
        ("inverts", "turned round after"),
        ("spares", "next to nothing is lost after"),
        ("open", "not decided after"),
    ):
        if of[group]:
            said.append(f"{words} {_named(of[group])}")
    if not (known["n_seeds"] > 1).any():
        said.append("one seed")
    text = "; ".join(said)
    return text[:1].upper() + text[1:]


def _named(methods: Sequence[str]) -> str:
    if len(methods) > MOST_NAMED:
        return f"{len(methods)} methods"
    return listed(method_title(method) for method in methods)


def draw(table: pd.DataFrame) -> Figure:
    """Draw a row a method, a mark a skill: AUROC on new questions, and the harm elsewhere.

    table: from `price.table`. Dashed: chance, and no harm; dotted: each skill's AUROC before, and
    the rise that is called damage. Rows are sorted by AUROC, the least on top.
    """
    do = "Pass the table of figures.price."
    wanted = ["eval_task", "method", "n_seeds", *with_intervals(["auroc_known", *MEASURES])]
    intervals.require_columns("what methods cost", table, wanted, do)
    said = finding(table)
    order = table.groupby("method", sort=False)["auroc"].mean().sort_values(ascending=False)
    methods = [str(method) for method in order.index]
    one = table.groupby("method")["n_seeds"].max() == 1
    several = not one.all()
    names = [
        readable(method_title(m) + (", 1 seed" if several and one[m] else "")) for m in methods
    ]
    named = titles(table["eval_task"])
    with style([*names, said, *named.values()]):
        height = 1.5 + 0.13 * len(methods) * (1 + len(named))
        figure = Figure(figsize=(TEXT_WIDTH, height), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        offsets = np.linspace(0.27, -0.27, len(named)) if len(named) > 1 else [0.0]
        for (task, label), offset, (marker, colour) in zip(
            named.items(), offsets, _marks(len(named)), strict=True
        ):
            of = table[table["eval_task"] == task]
            heights = np.array([methods.index(str(m)) + offset for m in of["method"]])
            for axes, measure in zip(panels, MEASURES, strict=True):
                there = of[measure].notna().to_numpy()
                look = readable(label), marker, colour, True
                draw_intervals(axes, of[there], measure, heights[there], *look)
            before = of["auroc_known"].iloc[0]
            panels[0].axvline(before, color=colour, linewidth=0.9, linestyle=":", zorder=1)
        for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
            mark(axes, CHANCE if measure == "auroc" else 0.0)
            say_where_nothing(axes, table[measure], "not measured")
            axes.set_xlabel(label)
        panels[1].axvline(DAMAGE, color=DARK_GREY, linewidth=0.9, linestyle=":", zorder=1)
        panels[1].annotate(
            *("damage", (DAMAGE, len(methods) - 0.45)),
            xytext=(2, 0),
            textcoords="offset points",
            fontsize=SMALL,
            color=DARK_GREY,
            va="top",
        )
        panels[0].set_xlim(-0.02, 1.02)
        panels[0].set_yticks(range(len(methods)), names)
        panels[0].set_ylim(-0.6, len(methods) - 0.4)
        handles = panels[0].get_legend_handles_labels()
        ncols = min(len(named), 3)
        figure.legend(*handles, loc="outside lower center", ncols=ncols, frameon=False)
        set_finding(figure, said)
    return figure


def _marks(n: int) -> Sequence[tuple[str, str]]:
    """Give each skill a mark; of many, they come again."""
    return [MARKS[i % len(MARKS)] for i in range(n)]
