"""Figure 7 of the paper: forgetting sets of several sizes.

The table is that of Figure 2 on the results of part "sizes", a row a task and size, with what a
size costs more of accuracy than the smallest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlib.figures import fig2, intervals
from forgetlib.figures.bootstrap import difference, joined
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    UNDEFINED,
    Interval,
    as_columns,
    with_intervals,
)
from forgetlib.figures.measures import Measured, measured
from forgetlib.figures.numbers import estimate
from forgetlib.figures.rows import (
    by_format,
    mark,
    set_rows,
    with_formats,
)
from forgetlib.figures.style import (
    BLACK,
    GREY,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    say_where_nothing,
    set_finding,
    style,
)
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result

MORE = "lost_beyond_smallest"


def table(
    results: Iterable[Result], *, answers: Load | None = None, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Measure forgetting with each size of the forgetting set, a row a model, task and size.

    results, answers: as in `fig2.table`

    Columns: those of `fig2.table`, and lost_beyond_smallest with its interval: the accuracy with
    the task's smallest size less that with this one, within each seed. NaN of the smallest itself,
    and where the two sizes have not the same seeds.
    """
    results = list(results)
    found = fig2.table(results, answers=answers, n_resamples=n_resamples)
    smallest: dict[tuple[str, str], Measured] = {}
    rows = []
    for (model, task, _), of_size in measured(results, answers, n_resamples=n_resamples):
        least = smallest.setdefault((model, task), of_size)  # sizes come sorted
        rows.append(as_columns(MORE, _lost_beyond(of_size, least)))
    return found.join(pd.DataFrame(rows))


def _lost_beyond(found: Measured, least: Measured) -> Interval:
    """Subtract the accuracy after forgetting from that with the smallest size."""
    seeds = [[runs["tuned"].seed for runs in of.seeds] for of in (least, found)]
    if found is least or seeds[0] != seeds[1]:
        return UNDEFINED
    both = joined([of.get("accuracy", "random") for of in (least, found)])
    return both.interval(difference(0, 1))


def _largest(table: pd.DataFrame) -> pd.DataFrame:
    """Take each task's row of its largest size."""
    return table.sort_values("size").drop_duplicates("eval_task", keep="last")


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence whether more random labels forget more, for titles.

    table: from `fig7.table`. Of the tasks with something to forget: the mean of what the largest
    set costs beyond the smallest, with Student's t interval over these tasks.
    """
    least, most = table["size"].min(), table["size"].max()
    if least == most:
        return f"Only one size of the forgetting set was tried, {most} examples"
    full = _largest(table)
    full = full[full["ratio_defined"].astype(bool) & full[MORE].notna()]
    if full.empty:
        return "No task with something to forget was tried with two sizes"
    more = intervals.mean_interval(full[MORE].to_numpy(float))
    if np.isnan(more.low):
        said = "Too few tasks to say whether more random labels forget more"
    elif more.low > 0:
        said = "More random labels forget more"
    elif more.high < 0:
        said = "More random labels forget less"
    else:
        said = "More random labels are not shown to forget more"
    above, below = int((full[f"{MORE}_low"] > 0).sum()), int((full[f"{MORE}_high"] < 0).sum())
    own = f"more in {above}, less in {below} by their own intervals"
    if not above + below:
        own = "neither more nor less in any by its own interval"
    return (
        f"{said}: with {most} instead of {least}, accuracy lost changes by {estimate(more)} (mean "
        f"of {len(full)} tasks that were known; {own})"
    )


def draw(table: pd.DataFrame, described: pd.DataFrame) -> Figure:
    """Draw Figure 7: what each size of the forgetting set costs, and the largest beyond the least.

    table: from `fig7.table` on the results of part "sizes", of one model
    described: the format of every task's answers, from `tasks.describe`

    Grey: tasks whose fine-tuned accuracy was not shown to be above chance.
    """
    columns = ["eval_task", "size", "ratio_defined"]
    require_columns(table, [*columns, *with_intervals(["lost", MORE])])
    said = finding(table)
    shown = readable(with_formats(table, described))
    full = _largest(shown)
    rows = by_format(full, "lost")
    sizes = sorted(set(shown["size"]))
    with style(rows.heights, [said]):
        size = (TEXT_WIDTH, 1.6 + 0.205 * len(rows.heights))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, 1 + (len(sizes) > 1), sharey=True, squeeze=False)[0]
        for i, n in enumerate(sizes):
            up = 0.44 * (0.5 - i / max(len(sizes) - 1, 1)) if len(sizes) > 1 else 0
            of_size = shown[shown["size"] == n]
            y = rows.of(of_size["eval_task"]) + up
            colours = [_tint(c, (i + 1) / len(sizes)) for c in (VERMILION, GREY)]
            _draw(panels[0], of_size, "lost", y, f"{n} random labels", "D", colours)
        say_where_nothing(panels[0], shown["lost"], "undefined")
        panels[0].set_xlabel("accuracy lost")
        set_rows(panels[0], rows)
        if len(sizes) > 1:
            _draw(panels[1], full, MORE, rows.of(full["eval_task"]), "", "o", [BLACK, GREY])
            say_where_nothing(panels[1], full[MORE], "undefined")
            panels[1].set_xlabel(f"lost with {sizes[-1]} less lost with {sizes[0]}")
        for axes in panels:
            mark(axes, 0)
        handles, labels = panels[0].get_legend_handles_labels()
        if not full["ratio_defined"].all():
            handles.append(Line2D([], [], color=GREY, marker="D", markersize=4))
            labels.append("ratio undefined")
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        set_finding(figure, said)
    return figure


def _tint(colour: str, share: float) -> str:
    """Mix a colour with white: a share of 1 is the colour itself."""
    red, green, blue = mpl.colors.to_rgb(colour)
    least = 0.3 + 0.7 * share  # the lightest is seen on white
    return mpl.colors.to_hex(
        (1 - least * (1 - red), 1 - least * (1 - green), 1 - least * (1 - blue))
    )


def _draw(
    axes: Axes,
    rows: pd.DataFrame,
    column: str,
    y: np.ndarray,
    label: str,
    marker: str,
    colours: Sequence[str],
) -> None:
    """Draw points with intervals at heights y (N,), those without a ratio in the second colour."""
    known = rows["ratio_defined"].to_numpy(bool)
    for of, colour, name in ((known, colours[0], label), (~known, colours[1], "")):
        draw_intervals(axes, rows[of], column, y[of], name, marker, colour, True)
