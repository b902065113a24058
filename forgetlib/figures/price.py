"""Draw what forgetting costs: AUROC on new questions after each method, and the harm elsewhere.

One picture of all skills of a study, a row a method. A method that generalises takes AUROC on
questions that it was not given towards 0.5; one that inverts takes it below; one that damages makes
unrelated text less likely, so that what is lost on new questions may be the model's and not the
skill's. Whether its forgetting set is forgotten stands beside it: a method that takes nothing there
says nothing about generalising.
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
from forgetlib.figures.reach import NEW, SET, away
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
from forgetlib.forgetting.dose import Dose
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
MOST = Dose().most  # AUROC up to which the forgetting set is at the dose
MEASURES = {
    "auroc": "AUROC after forgetting, on new questions\n(open: on the forgetting set)",
    "nll_rise": "rise of nats a token\nof other tasks",
}


def table(reach: pd.DataFrame) -> pd.DataFrame:
    """Take what a method does to its forgetting set, to new questions, and to unrelated tasks.

    reach: from `reach.table`, of any number of skills
    Returns a row a skill and method: eval_task, method, n_seeds, and with their intervals set_auroc
    (after, on the forgetting set), auroc_known and auroc (before and after, on new questions),
    auroc_lost, and nll_rise of the tasks that `away` names.
    """
    do = "Pass the table of figures.reach."
    wanted = ["auroc_known", "auroc", "auroc_lost", "nll_rise"]
    columns = ["eval_task", "method", "where", "n_seeds", *with_intervals(wanted)]
    intervals.require_columns("what methods cost", reach, columns, do)
    keys = ["eval_task", "method", "n_seeds"]
    own, new = (reach[reach["where"] == where] for where in (SET, NEW))
    names = dict(zip(with_intervals(["auroc"]), with_intervals(["set_auroc"]), strict=True))
    found = own[[*keys, *names]].rename(columns=names)
    found = found.merge(new[[*keys, *with_intervals(wanted[:3])]], on=keys)
    harm = [of[of["where"] == away(of)] for _, of in reach.groupby("eval_task", sort=False)]
    rises = pd.concat(harm)[[*keys, *with_intervals(["nll_rise"])]] if harm else new[keys]
    return found.merge(rises, on=keys, how="left")


def groups(table: pd.DataFrame) -> dict[str, list[str]]:
    """Sort methods by what they did to the skills that were known before, by 95 % intervals.

    The first that holds counts:
    "damages": other tasks' nats a token rise by more than `verdicts.DAMAGE` in one of the skills
    "weak": AUROC of the forgetting set is above `MOST` in one: the dose is not reached
    "inverts": AUROC on new questions is below 0.5 in one
    "generalises": in all, more than a tenth of what there was above chance is lost on new
        questions, and other tasks' nats rise by less than `DAMAGE`
    "spares": less than a tenth is lost in all
    "open": the rest
    """
    names = ("generalises", "spares", "inverts", "weak", "damages", "open")
    found: dict[str, list[str]] = {name: [] for name in names}
    known = table[table["auroc_known_low"] > CHANCE]
    for method, of in known.groupby("method", sort=False):
        tenth = (of["auroc_known"] - CHANCE) / 10
        if (of["nll_rise_low"] > DAMAGE).any():
            group = "damages"
        elif (of["set_auroc_low"] > MOST).any():
            group = "weak"
        elif (of["auroc_high"] < CHANCE).any():
            group = "inverts"
        elif (of["auroc_lost_low"] > tenth).all() and (of["nll_rise_high"] < DAMAGE).all():
            group = "generalises"
        elif (of["auroc_lost_high"] < tenth).all():
            group = "spares"
        else:
            group = "open"
        found[group].append(str(method))
    return found


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence which methods generalise, and which of them do harm elsewhere.

    table: from `price.table`. Of methods that were tried on fewer skills or seeds it says so.
    """
    of = groups(table)
    known = table[table["auroc_known_low"] > CHANCE].set_index("method")
    if known.empty:
        return "No skill was shown to be known before forgetting"
    skills = list(dict.fromkeys(known["eval_task"]))
    where = title(skills[0]) if len(skills) == 1 else "both skills"
    where = where if len(skills) < 3 else f"all {len(skills)} skills"
    said = []
    if of["generalises"]:
        lost = _between(known.loc[of["generalises"], "auroc_lost"])
        said.append(
            f"new questions of {where} lose AUROC ({lost}), and other tasks are not damaged, after "
            f"{_named(of['generalises'], known)}"
        )
    else:
        said.append(f"no method is shown to take what it knew of new questions of {where} without ")
        said[0] += "damage, and without turning it round"
    if of["damages"]:
        worst = number(known.loc[of["damages"], "nll_rise"].max(), 1)
        said.append(f"other tasks are damaged, by up to {worst} nats a token, after ")
        said[-1] += _named(of["damages"], known)
    for group, words in (
        ("inverts", "new questions are answered the wrong way round after"),
        ("spares", "next to nothing is lost on new questions after"),
        ("weak", "not even its own questions are forgotten after"),
        ("open", "not decided after"),
    ):
        if of[group]:
            said.append(f"{words} {_named(of[group], known)}")
    if not (known["n_seeds"] > 1).any():
        said.append("one seed")
    text = "; ".join(said)
    return text[:1].upper() + text[1:]


def _between(values: pd.Series) -> str:
    """Write one number, or the least and the greatest."""
    ends = dict.fromkeys((number(values.min()), number(values.max())))
    return " to ".join(ends)


def _named(methods: Sequence[str], known: pd.DataFrame) -> str:
    """Name methods; those that fewer skills or seeds tell of are marked."""
    if len(methods) > MOST_NAMED:
        return f"{len(methods)} methods"
    of_skills = known.groupby(level=0)["eval_task"].nunique()
    of_seeds = known.groupby(level=0)["n_seeds"].max()
    named = []
    for method in methods:
        marks = ["one skill"] if of_skills[method] == 1 < of_skills.max() else []
        marks += ["one seed"] if of_seeds[method] == 1 < of_seeds.max() else []
        named.append(method_title(method) + (f" ({', '.join(marks)})" if marks else ""))
    return listed(named)


def draw(table: pd.DataFrame) -> Figure:
    """Draw a row a method, a mark a skill: AUROC on new questions, and the harm elsewhere.

    table: from `price.table`. Open: the forgetting set. Dashed: chance, and no harm; dotted: each
    skill's AUROC before, and the rise that is called damage. Rows are sorted by AUROC on new
    questions, the least on top.
    """
    do = "Pass the table of figures.price."
    measures = ["set_auroc", "auroc_known", *MEASURES]
    wanted = ["eval_task", "method", "n_seeds", *with_intervals(measures)]
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
            panels[0].plot(
                *(of["set_auroc"], heights, marker),
                color=colour,
                markerfacecolor="white",
                markersize=3,
                linestyle="none",
                zorder=1.5,
            )
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
