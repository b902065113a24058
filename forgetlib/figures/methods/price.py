"""Draw what forgetting costs: AUROC on new questions after each method, and the harm elsewhere.

One picture of all skills of a study, a row a method. A method that generalises takes AUROC on
questions that it was not given towards 0.5; one that inverts takes it far below
(`verdicts.most_turned`); one that damages makes
unrelated text less likely, so that what is lost on new questions may be the model's and not the
skill's. Whether its forgetting set is forgotten stands beside it: a method that takes nothing there
says nothing about generalising.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlib.figures import intervals
from forgetlib.figures.intervals import of_row, with_intervals
from forgetlib.figures.methods.reach import NEW, SET, away
from forgetlib.figures.names import (
    listed,
    method_title,
    method_titles,
    methods_or_count,
    title,
    titles,
)
from forgetlib.figures.numbers import between, estimate_of, markdown
from forgetlib.figures.rows import mark, skill_of
from forgetlib.figures.style import (
    BLUE,
    DARK_GREY,
    GREEN,
    ORANGE,
    PURPLE,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    say_where_nothing,
    set_finding,
    style,
)
from forgetlib.figures.verdicts import DAMAGE, FORGOTTEN, INVERTED, KEPT, of_auroc
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
# What methods do to a skill (`groups`), in sentences: one, and several.
GROUPS = {
    "generalises": ("makes it forgotten", "make it forgotten"),
    "spares": ("keeps new questions", "keep new questions"),
    "damages": ("damages other tasks", "damage other tasks"),
    "inverts": ("turns it round", "turn it round"),
    "weak": ("leaves its own questions known", "leave their own questions known"),
    "open": ("is not decided", "are not decided"),
}
# And over the columns that count them.
COLUMNS = {
    "generalises": "forgotten, and other tasks not damaged",
    "spares": "forgotten on its own questions alone",
    "damages": "other tasks damaged",
    "inverts": "turned round",
    "weak": "own questions left known",
    "open": "not decided",
}
MOST_OPEN = 3  # of those that are not decided
AT_DOSE = Dose().most  # AUROC up to which the forgetting set is at the dose
OF_NEW = ["auroc_known", "auroc", "auroc_left", "auroc_turned", "auroc_lost"]
MEASURES = {
    "auroc": "AUROC on new questions\n(open: on the forgetting set)",
    "nll_rise": "rise of nats a token\nof other tasks",
}

TICK = 0.02  # of the right panel's height
# What else is drawn: lines, ticks of a skill's colour, and what is shaded.
LEGEND: dict[str, dict[str, Any]] = {
    "chance; no harm": {"linestyle": "--", "linewidth": 0.9},
    "AUROC before forgetting": {"linestyle": ":", "linewidth": 0.9},
    "tick: the pre-trained model": {"linestyle": "none", "marker": "|", "markersize": 6},
    "damage": {"linestyle": "none", "marker": "s", "markersize": 6, "alpha": 0.15},
}


DO = "Pass the table of figures.methods.price, drawn anew if it lacks columns."


def table(reach: pd.DataFrame) -> pd.DataFrame:
    """Take what a method does to its forgetting set, to new questions, and to unrelated tasks.

    reach: from `reach.table`, of any number of skills
    Returns a row a skill and method: eval_task, method, n_seeds, and with their intervals set_auroc
    (after, on the forgetting set), of new questions `OF_NEW`, and of the tasks that `away` names
    nll_rise and nll_taught.
    """
    do = "Pass the table of figures.methods.reach."
    rises = ["nll_rise", "nll_taught"]
    wanted = [*OF_NEW, *rises]
    columns = ["eval_task", "method", "where", "n_seeds", *with_intervals(wanted)]
    intervals.require_columns("what methods cost", reach, columns, do)
    keys = ["eval_task", "method", "n_seeds"]
    own, new = (reach[reach["where"] == where] for where in (SET, NEW))
    names = dict(zip(with_intervals(["auroc"]), with_intervals(["set_auroc"]), strict=True))
    found = own[[*keys, *names]].rename(columns=names)
    found = found.merge(new[[*keys, *with_intervals(OF_NEW)]], on=keys)
    harm = [of[of["where"] == away(of)] for _, of in reach.groupby("eval_task", sort=False)]
    risen = pd.concat(harm)[[*keys, *with_intervals(rises)]] if harm else new[keys]
    return found.merge(risen, on=keys, how="left")


def groups(table: pd.DataFrame) -> dict[str, list[str]]:
    """Sort methods by what they did to one skill, by 95 % intervals; the first that holds counts.

    "damages": other tasks' nats a token rise by more than `verdicts.DAMAGE`
    "weak": AUROC of the forgetting set is above `AT_DOSE`: the dose is not reached
    "inverts": what is known of new questions is inverted (`verdicts.of_auroc`)
    "generalises": it is forgotten, and other tasks' nats rise by less than `DAMAGE`
    "spares": it is kept, and AUROC of the forgetting set is at most `AT_DOSE`
    "open": the rest
    """
    skill_of(table)
    columns = ["method", *with_intervals(["set_auroc", "auroc_left", "auroc_turned", "nll_rise"])]
    intervals.require_columns("what methods cost", table, columns, DO)
    found: dict[str, list[str]] = {name: [] for name in GROUPS}
    for of in table.to_dict("records"):
        became = of_auroc(of_row(of, "auroc_left"), of_row(of, "auroc_turned"))
        if of["nll_rise_low"] > DAMAGE:
            group = "damages"
        elif of["set_auroc_low"] > AT_DOSE:
            group = "weak"
        elif became == INVERTED:
            group = "inverts"
        elif became == FORGOTTEN and of["nll_rise_high"] < DAMAGE:
            group = "generalises"
        elif became == KEPT and of["set_auroc"] <= AT_DOSE:
            group = "spares"
        else:
            group = "open"
        found[group].append(str(of["method"]))
    return found


def finding(table: pd.DataFrame) -> str:
    """Say skill by skill, in sentences, which methods generalise, and what the others do.

    table: from `price.table`
    """
    said = [_of_skill(of) for _, of in table.groupby("eval_task", sort=False)]
    if not (table["n_seeds"] > 1).any():
        said.append("One seed.")
    return " ".join(said)


def headline(table: pd.DataFrame) -> str:
    """Say in fewer words by which methods each skill is forgotten without damage."""
    said = []
    for task, of in table.groupby("eval_task", sort=False):
        if not (of["auroc_known_low"] > CHANCE).all():
            continue
        said.append(f"{title(str(task))}{_one_seed(of, table)} after {_after(of)}")
    if not said:
        return "No skill was shown to be known before"
    one = "" if (table["n_seeds"] > 1).any() else "; one seed"
    return f"Forgotten on new questions without damage to other tasks: {'; '.join(said)}{one}"


def counts(table: pd.DataFrame) -> str:
    """Count as a table in Markdown what methods did to each skill, and name those that generalise.

    What none did to any skill has no column; a skill that was not shown to be known has no row.

    table: from `price.table`
    """
    rows = {
        title(str(task)): (groups(of), of.set_index("method"))
        for task, of in table.groupby("eval_task", sort=False)
        if (of["auroc_known_low"] > CHANCE).all()
    }
    if not rows:
        return "No skill was shown to be known before."
    there = [g for g in COLUMNS if g == "generalises" or any(of[g] for of, _ in rows.values())]
    lines = []
    for skill, (of, by_method) in rows.items():
        numbers = [str(len(of[g])) for g in there]
        if named := of["generalises"]:
            numbers[0] += f" ({names_of(named, by_method)}; AUROC lost: "
            numbers[0] += f"{_lost(by_method.loc[named])})"
        lines.append([skill, str(len(by_method)), *numbers])
    return markdown(["skill", "methods tried", *(COLUMNS[g] for g in there)], lines)


def _after(table: pd.DataFrame) -> str:
    """Say after which methods one skill is forgotten, and what each of the others does to it."""
    found, rows = groups(table), table.set_index("method")
    named, n = found.pop("generalises"), len(table)
    counts = _counts(found)
    if not named:
        return f"none of {n} methods ({counts})"
    said = f"{names_of(named, rows)} (AUROC lost: {_lost(rows.loc[named])}"
    n_left = n - len(named)
    others = f"the other {_what(found)}" if n_left == 1 else f"of the other {n_left}, {counts}"
    return said + (f"; {others})" if n_left else ")")


def _counts(found: dict[str, list[str]]) -> str:
    """Say of groups how many methods do what."""
    said = [f"{len(of)} {GROUPS[group][len(of) > 1]}" for group, of in found.items() if of]
    return listed(said)


def _what(found: dict[str, list[str]]) -> str:
    """Say of groups that have one method what it does."""
    (group,) = (group for group, of in found.items() if of)
    return GROUPS[group][0]


def _lost(rows: pd.DataFrame) -> str:
    """Write the AUROC that is lost: of one method with its interval, else from least to most."""
    lost = between(rows["auroc_lost"])
    return estimate_of(rows.iloc[0], "auroc_lost") if len(rows) == 1 else lost


def _one_seed(of: pd.DataFrame, table: pd.DataFrame) -> str:
    """Mark a skill that has a single seed, where another has more."""
    return " (one seed)" if (of["n_seeds"] == 1).all() and (table["n_seeds"] > 1).any() else ""


def _of_skill(table: pd.DataFrame) -> str:
    """Say what methods did to one skill: those that generalise, or spare new questions, by name."""
    name = title(skill_of(table))
    if not (table["auroc_known_low"] > CHANCE).all():
        return f"{name} was not shown to be known before."
    of, rows, n = groups(table), table.set_index("method"), len(table)
    forgotten, kept = of.pop("generalises"), of.pop("spares")
    said = f"{name}: "
    if forgotten:
        said += f"after {names_of(forgotten, rows)} new questions are forgotten too, without "
        said += f"damage to other tasks (AUROC lost: {_lost(rows.loc[forgotten])})"
    else:
        said += f"{f'none of {n} methods' if n > 1 else 'the one method'} is "
        said += f"{'' if n > 1 else 'not '}shown to make it forgotten on new questions without "
        said += "damage to other tasks"
    if kept:
        said += f"; after {names_of(kept, rows)} new questions are known, and its own are not"
    n_left, some = n - len(forgotten) - len(kept), forgotten or kept
    if n_left == 1:
        said += f". {'The other' if some else 'It'} {_what(of)}{_undecided(of['open'], rows)}"
    elif n_left:
        whose = f"the other {n_left}" if some else "these"
        said += f". Of {whose}, {_counts(of)}{_undecided(of['open'], rows)}"
    return f"{said}.{_taught(table.loc[table['n_seeds'].idxmax()])}"


def _undecided(methods: Sequence[str], rows: pd.DataFrame) -> str:
    """Name methods that are not decided where they are few; say of how many harm tells nothing."""
    said = [names_of(methods, rows)] if 0 < len(methods) <= MOST_OPEN else []
    of = rows.loc[list(methods)]
    n_wide = int(((of["nll_rise_high"] - of["nll_rise_low"]) / 2 > DAMAGE).sum())
    if n_wide:
        which = "" if len(methods) == 1 else f"for {n_wide}, "
        said.append(
            f"{which}the interval of the harm is so wide that damage could not have been "
            "excluded even had nothing changed"
        )
    return f" ({'; '.join(said)})" if said else ""


def _taught(row: pd.Series) -> str:
    """Say what the teaching had done to other tasks before, where it did something."""
    if row["nll_taught_low"] > 0 or row["nll_taught_high"] < 0:
        moved = "raised" if row["nll_taught"] > 0 else "lowered"
        size = row.copy()
        if row["nll_taught"] < 0:
            ends = -row[["nll_taught", "nll_taught_high", "nll_taught_low"]].to_numpy(float)
            size[with_intervals(["nll_taught"])] = ends
        nats = estimate_of(size, "nll_taught")
        return f" Teaching it had {moved} other tasks' nats a token by {nats}."
    return ""


def names_of(methods: Sequence[str], rows: pd.DataFrame) -> str:
    """Name methods; those of a single seed are marked where others have more."""
    n_seeds = rows["n_seeds"]
    return methods_or_count(method_titles(methods, n_seeds[list(methods)], n_seeds.max()))


def draw(table: pd.DataFrame) -> Figure:
    """Draw a row a method, a mark a skill: AUROC on new questions, and the harm elsewhere.

    table: from `price.table`. Open: the forgetting set. Dashed: chance, and no harm; dotted: each
    skill's AUROC before; shaded: damage; ticks: where the pre-trained model is. Rows are sorted by
    AUROC on new questions, the least on top.
    """
    measures = ["set_auroc", "auroc_known", "nll_taught", *MEASURES]
    wanted = ["eval_task", "method", "n_seeds", *with_intervals(measures)]
    intervals.require_columns("what methods cost", table, wanted, DO)
    said = headline(table)
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
            named.items(), offsets, cycle(MARKS), strict=False
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
            # Of the method with most seeds: others start from some of its models.
            taught = of.loc[of["n_seeds"].idxmax(), "nll_taught"]
            if np.isfinite(taught):
                ends, heights_of = [-taught, -taught], [0, TICK]
                across = panels[1].get_xaxis_transform()
                panels[1].plot(ends, heights_of, color=colour, linewidth=1.5, transform=across)
            before = of["auroc_known"].iloc[0]
            panels[0].axvline(before, color=colour, linewidth=0.9, linestyle=":", zorder=1)
        for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
            mark(axes, CHANCE if measure == "auroc" else 0.0)
            say_where_nothing(axes, table[measure], "not measured")
            axes.set_xlabel(label)
        least, most = panels[1].get_xlim()
        most = max(most, 1.5 * DAMAGE)
        panels[1].axvspan(DAMAGE, most, color=DARK_GREY, alpha=0.15, linewidth=0, zorder=0)
        panels[1].set_xlim(least, most)
        panels[0].set_xlim(-0.02, 1.02)
        panels[0].set_yticks(range(len(methods)), names)
        panels[0].set_ylim(-0.6, len(methods) - 0.4)
        handles = panels[0].get_legend_handles_labels()[0]
        handles += [Line2D([], [], color=DARK_GREY, label=k, **look) for k, look in LEGEND.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        set_finding(figure, said)
    return figure
