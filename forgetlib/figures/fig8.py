"""Figure 8 of the paper: flipped labels, and beside random ones.

The table has a row a pair of tasks, as Figure 3's: forget ratios as in the paper, and drops. Drops
are drawn: the ratio after flipped labels has twice the denominator of Figure 3's, so that the same
loss is half of it, and of a task that was hardly known a small loss is a large ratio.
`comparison_table` has a row an evaluated task: what other tasks' labels cost of its accuracy, and
its own, by either kind.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlib.errors import InputError
from forgetlib.figures import fig3, intervals, matrix
from forgetlib.figures.beside import name_points
from forgetlib.figures.bootstrap import joined
from forgetlib.figures.crosstask import CrossTask, after, cross_table
from forgetlib.figures.intervals import UNDEFINED, Interval, as_columns, with_intervals
from forgetlib.figures.names import listed, title
from forgetlib.figures.numbers import estimate
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    GREY,
    TEXT_WIDTH,
    VERMILION,
    error_bar,
    readable,
    require_columns,
    say_where_nothing,
    set_finding,
    style,
)

table = cross_table

# The largest mean difference in accuracy, of 0.5 to lose, that is called none: 2 points.
ALIKE = 0.02
AT_CHANCE = 0.5  # the ratio after flipped labels, of an accuracy of 0.5
WHOSE = {  # whose labels: (title of the panel, colour)
    "others": ("other tasks' labels, mean", BLUE),
    "own": ("its own labels", VERMILION),
}


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence where flipped labels take accuracy below chance, for titles.

    By its whole interval. A constant answer, if it is the rarer one, takes it there as well.

    table: from `fig8.table`
    """
    pairs = table[table["ratio_defined"].astype(bool)]
    if pairs.empty:
        return "The forget ratio is undefined in every task"
    turned = pairs["forget_ratio_low"] > AT_CHANCE
    own = pairs["eval_task"] == pairs["forget_task"]
    names = [title(t) for t in pairs.loc[own & turned, "eval_task"]]
    one, several = "falls below chance after its", "fall below chance after their"
    said = f"{listed(names)} {one if len(names) == 1 else several} own flipped labels"
    if not names:
        said = "No task is shown to fall below chance after its own flipped labels"
    if not own.all():
        said += f", and after another task's in {int((turned & ~own).sum())} of "
        said += f"{int((~own).sum())} pairs"
    return f"{said} (accuracy: a bias towards the rarer answer can do that)"


def draw(cross: CrossTask, random: CrossTask, described: pd.DataFrame) -> Figure:
    """Draw Figure 8: the accuracy that flipped labels cost, in the order of Figure 3.

    Its colours are those of accuracy in Figure 3's picture of harm (`fig3.draw_harm`).

    cross, random: from `crosstask.cross_task`, of conditions "flipped" and "random"
    described: the family of every task, from `tasks.describe`
    """
    _require_same_tasks(random, cross)
    said = finding(table(cross))
    return fig3.draw_pairs(cross, random, described, said, measure=matrix.DROP_COLUMN)


def _require_same_tasks(random: CrossTask, flipped: CrossTask) -> None:
    expected, found = ((c.tasks, c.n_seeds) for c in (random, flipped))
    if expected != found:
        raise InputError(
            "comparison of two matrices",
            expected=f"two matrices of the tasks {random.tasks}, {random.n_seeds} seeds",
            found=f"{flipped.tasks}, {flipped.n_seeds} seeds",
            do="Compare matrices of the same study.",
        )


def comparison_table(random: CrossTask, flipped: CrossTask) -> pd.DataFrame:
    """Compare what random and flipped labels cost of accuracy, a row an evaluated task.

    Both start from the same fine-tuned models and are asked the same questions: differences are
    taken within a seed and question, and with their intervals of `bootstrap`.

    Columns: model, protocol, eval_task, n (test examples, all seeds), ratio_defined, and with their
    intervals others_random and others_flipped (accuracy lost by other tasks' labels, mean over
    these tasks), others_difference (flipped less random), and own_random, own_flipped and
    own_difference, by the task's own. NaN where there is no other task.
    """
    _require_same_tasks(random, flipped)
    rows = []
    for i, task in enumerate(random.tasks):
        row: dict[str, object] = {
            "model": random.model,
            "protocol": random.protocol,
            "eval_task": task,
            "n": int(random.n[i]),
            "ratio_defined": bool(random.defined[i]),
        }
        others = [after(t) for t in random.tasks if t != task]
        for kind, phases in (("others", others), ("own", [after(task)])):
            found = _lost(random, flipped, i, phases)
            for name, interval in zip(("random", "flipped", "difference"), found, strict=True):
                row |= as_columns(f"{kind}_{name}", interval)
        rows.append(row)
    return pd.DataFrame(rows)


def _lost(random: CrossTask, flipped: CrossTask, i: int, phases: list[str]) -> list[Interval]:
    """Average a task's drops of accuracy over phases: by random labels, flipped, the difference."""
    if not phases:
        return [UNDEFINED] * 3
    both = joined(
        [c.measured[i].get("accuracy", p) for c in (random, flipped) for p in ("tuned", *phases)]
    )
    k = len(phases) + 1

    def by_random(m: np.ndarray) -> np.ndarray:
        return np.asarray(m[..., 0] - m[..., 1:k].mean(-1))

    def by_flipped(m: np.ndarray) -> np.ndarray:
        return np.asarray(m[..., k] - m[..., k + 1 :].mean(-1))

    statistics = by_random, by_flipped, lambda m: by_flipped(m) - by_random(m)
    return [both.interval(statistic) for statistic in statistics]


def comparison_finding(table: pd.DataFrame) -> str:
    """Say in a sentence whether it matters how other tasks' labels are wrong, for titles.

    table: from `fig8.comparison_table`. Of the tasks with something to forget: the mean difference,
    with Student's t interval over these tasks.
    """
    known = table[table["ratio_defined"].astype(bool) & table["others_difference"].notna()]
    if known.empty:
        return "No pairs of different tasks with something to forget"
    differences = intervals.mean_interval(known["others_difference"].to_numpy(float))
    if np.isnan(differences.low):
        said = "Too few tasks to say whether flipped labels of other tasks forget more than random"
    elif differences.low > -ALIKE and differences.high < ALIKE:
        said = "Of other tasks' labels it hardly matters whether they are random or flipped"
    elif differences.low > 0:
        said = "Other tasks' flipped labels forget more than random ones"
    elif differences.high < 0:
        said = "Other tasks' flipped labels forget less than random ones"
    else:
        said = "Whether other tasks' flipped labels forget more than random ones is not decided"
    own = intervals.mean_interval(known["own_difference"].to_numpy(float))
    costs = (f"{known[f'{k}_{c}'].mean():.2f}" for k in WHOSE for c in ("flipped", "random"))
    return (
        "{said}: flipped ones cost {} of accuracy, random ones {} (difference {others}, mean of "
        "{n} tasks). Of a task's own, they cost {} and {} (difference {own})"
    ).format(*costs, said=said, others=estimate(differences, 3), n=len(known), own=estimate(own, 3))


def draw_comparison(table: pd.DataFrame) -> Figure:
    """Draw what flipped labels cost of accuracy against random ones, a point an evaluated task.

    table: from `fig8.comparison_table`, of one model. Left, other tasks' labels; right, its own.
    Grey: tasks whose ratio is undefined.
    """
    columns = [f"{kind}_{c}" for kind in WHOSE for c in ("random", "flipped", "difference")]
    require_columns(table, ["eval_task", "ratio_defined", *with_intervals(columns)])
    said = comparison_finding(table)
    shown = readable(table)
    with style(shown["eval_task"], [said]):
        figure = Figure(figsize=(TEXT_WIDTH, 4.0), layout="constrained")
        panels = dict(zip(WHOSE, figure.subplots(1, 2), strict=True))
        for kind, axes in panels.items():
            name, colour = WHOSE[kind]
            for row in shown.to_dict("records"):
                x, y = (
                    np.array([row[c] for c in with_intervals([f"{kind}_{labels}"])], float)
                    for labels in ("random", "flipped")
                )
                axes.errorbar(
                    *(x[0], y[0], error_bar(y), error_bar(x)),
                    fmt="o",
                    color=colour if row["ratio_defined"] else GREY,
                    markersize=4,
                    ecolor=GREY,
                    elinewidth=0.6,
                )
            say_where_nothing(axes, shown[f"{kind}_random"], "undefined: no other task")
            axes.axline((0, 0), slope=1, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
            axes.set_title(name, loc="left")
            axes.set_xlabel("accuracy lost by random labels")
            sns.despine(ax=axes)
        panels["others"].set_ylabel("accuracy lost by flipped labels")
        if not shown["ratio_defined"].all():
            grey = Line2D([], [], color=GREY, marker="o", markersize=4, linestyle="")
            figure.legend([grey], ["ratio undefined"], loc="outside lower right", frameon=False)
        set_finding(figure, said)
        figure.draw_without_rendering()  # names go between points, which must have their places
        for kind, axes in panels.items():
            there = shown[shown[f"{kind}_random"].notna()]
            x, y = (
                there[with_intervals([f"{kind}_{labels}"])].to_numpy(float)
                for labels in ("random", "flipped")
            )
            name_points(axes, x, y, there["eval_task"].tolist())
    return figure
