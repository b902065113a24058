"""Figure 3 of the paper: what forgetting one task does to every other; a matrix and a summary.

The table has a row a pair of tasks: the forget ratio of one after the labels of the other. The
summary is drawn from two tables of `crossanalysis`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from forgetlib.figures import crossanalysis, matrix
from forgetlib.figures.crosstask import CrossTask, cross_table
from forgetlib.figures.effects import AUROC_LOST, RATIO, auroc_lost, ratios
from forgetlib.figures.intervals import Interval, jackknife, with_intervals
from forgetlib.figures.matrix import (
    DROP_COLOURS,
    draw_matrix,
    drop_bar,
    families_of,
    family_strip,
    legend,
    name_length,
    ratio_bar,
)
from forgetlib.figures.names import listed, title
from forgetlib.figures.numbers import estimate, number
from forgetlib.figures.rows import FORMATS, with_formats
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    LIGHT,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    family_handles,
    readable,
    require_columns,
    require_rows,
    say_where_nothing,
    set_finding,
    style,
)

table = cross_table


def shares(cross: CrossTask) -> pd.DataFrame:
    """Share the variance over pairs, of the forget ratio and of AUROC lost.

    Columns: those of `crossanalysis.variance_shares`, whose `measure` tells which.
    """
    both = [crossanalysis.variance_shares(of(cross)) for of in (ratios, auroc_lost)]
    return pd.concat(both, ignore_index=True)


def summary_table(shares: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Put the two tables that the summary draws under each other, for its CSV.

    shares, own: as of `draw_summary`; a column that one of them lacks is NaN in its rows
    """
    return pd.concat([shares, own])


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence how much another task's labels forget, and whose do most, for titles.

    table: from `fig3.table`, of random labels. Medians, which a small denominator leaves alone.
    """
    pairs = table[table["ratio_defined"].astype(bool) & table["forget_ratio"].notna()]
    own = pairs["eval_task"] == pairs["forget_task"]
    if pairs.empty:
        return "The forget ratio is undefined in every task"
    of_own = pairs.loc[own, "forget_ratio"].median()
    if own.all():
        return f"After its own random labels {number(of_own)} of what a task had is gone (median)"
    others = pairs[~own]
    by_labels = others.groupby("forget_task")["forget_ratio"].median().sort_values(ascending=False)
    most = listed(f"{title(t)} ({number(v)})" for t, v in by_labels.head(2).items())
    return (
        f"After another task's random labels {number(others['forget_ratio'].median())} of what a "
        f"task had above chance is gone (median of {len(others)} pairs), after its own "
        f"{number(of_own)}; most after those of {most}"
    )


def draw(cross: CrossTask, described: pd.DataFrame) -> Figure:
    """Draw Figure 3: the forget ratio of each task after the labels of each task.

    cross: from `crosstask.cross_task`
    described: the family of every task, from `tasks.describe`

    Rows and columns are in the order of UPGMA trees of their own, so that alike ones are side by
    side. The trees are not drawn: one task far from all others leaves the rest of one flat. Framed:
    a task's own labels. Italics: the 95 % interval includes 0; where there is room, it stands below
    the value. Hatched: tasks whose ratio is undefined.
    """
    return draw_pairs(cross, cross, described, finding(table(cross)))


def draw_pairs(
    cross: CrossTask,
    like: CrossTask,
    described: pd.DataFrame,
    said: str,
    *,
    measure: str = matrix.RATIO_COLUMN,
) -> Figure:
    """Draw a matrix in the order of another's UPGMA trees, under a title.

    cross, described: as in `draw`; like: of the same tasks; measure: as in `matrix.draw_matrix`
    """
    cross, like, described = readable(cross), readable(like), readable(described)
    n_tasks = len(cross.tasks)
    rows = crossanalysis.upgma(like.forget_ratio)
    columns = crossanalysis.upgma(like.forget_ratio.T)
    cell = float(np.clip(3.6 / n_tasks, 0.185, 0.5))  # inches
    families = families_of(cross.tasks, described)
    with style(cross.tasks, families.values(), [said]):
        figure = Figure(
            figsize=(TEXT_WIDTH, 2.0 + cell * n_tasks + name_length(cross.tasks)),
            layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0),
        )
        grid = figure.add_gridspec(
            3, 2, height_ratios=[cell * n_tasks, 0.12, 0.12], width_ratios=[0.13, 3.6]
        )
        heat = figure.add_subplot(grid[0, 1])
        image = draw_matrix(heat, cross, rows, columns, measure=measure)
        strips = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 1])
        size = 6.5 if n_tasks > 12 else 7.5
        names = [f"{cross.tasks[i]} ({cross.n[i]})" for i in rows]
        family_strip(strips[0], [families[cross.tasks[i]] for i in rows], vertical=True)
        family_strip(strips[1], [families[cross.tasks[i]] for i in columns], vertical=False)
        strips[0].set_yticks(range(n_tasks), names, fontsize=size)
        strips[0].set_ylabel("evaluated task (test examples)")
        labels = [cross.tasks[i] for i in columns]
        strips[1].set_xticks(range(n_tasks), labels, fontsize=size, rotation=90)
        strips[1].set_xlabel(f"task trained on with {cross.condition} labels")
        below = figure.add_subplot(grid[2, 1])
        if measure == matrix.RATIO_COLUMN:
            ratio_bar(below, image, cross.condition)
        else:
            drop_bar(below, image)
        frame = Patch(fill=False, edgecolor=BLACK, linewidth=1.2, label="own labels")
        handles = family_handles(families.values(), letters=True)
        legend(figure, [*handles, frame])
        set_finding(figure, said)
    return figure


DECIDES = 0.5  # a share of the variance that is most of it


def summary_finding(shares: pd.DataFrame, own: pd.DataFrame) -> str:
    """Say in a sentence which task decides, and whose labels forget more, for titles.

    shares, own: as of `draw_summary`. The share is the ratio's, its interval over tasks, as the
    claim's is; of AUROC the share beside it.
    """
    evaluated = shares[shares["source"] == crossanalysis.SOURCES[0]].set_index("measure")
    share, low, high = map(float, evaluated.loc[RATIO, ["share", "tasks_low", "tasks_high"]])
    said = "Whether the evaluated task decides how much is forgotten is open"
    if low > DECIDES:
        said = "The evaluated task decides how much is forgotten"
    elif high < DECIDES:
        said = "The evaluated task does not decide how much is forgotten"
    if np.isnan(share):
        said = "What decides how much is forgotten is undefined"
    else:
        said += f": its share of the variance is {estimate(Interval(share, low, high))} over tasks"
    if AUROC_LOST in evaluated.index and np.isfinite(
        of_auroc := float(evaluated.loc[AUROC_LOST, "share"])
    ):
        said += f" (of AUROC lost: {number(of_auroc)})"
    known = own[own["difference_low"].notna()]
    if known.empty:
        return said
    more, less = (known["difference_low"] > 0).sum(), (known["difference_high"] < 0).sum()
    return (
        f"{said}. The best other task's labels forget more than a task's own in {more} of "
        f"{len(known)} tasks, less in {less}"
    )


def draw_summary(cross: CrossTask, shares: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """Draw Figure 3's summary: what the variance is due to, and own against other labels.

    shares: from `fig3.shares`
    own: from `crossanalysis.own_against_others`. The best other task is named for its ratio on all
        data, so that its ratio flatters it; the difference in accuracy is measured on other data
        than it was picked on.

    The shares have two intervals: over questions, which speaks of these tasks, and over tasks.
    Those of the differences speak of these runs.
    """
    ends = ["tasks_low", "tasks_high"]
    require_columns(shares, ["source", "measure", *with_intervals(["share"]), *ends])
    columns = ["eval_task", "own", "best_other", "best_other_ratio", "picked_on"]
    require_columns(own, [*columns, *with_intervals(["difference"])])
    do = "Pass crossanalysis.own_against_others(...) of this matrix."
    named = [*own["eval_task"], *own["best_other"].dropna()]
    require_rows(pd.DataFrame({"eval_task": cross.tasks}), "eval_task", named, do)
    said = summary_finding(shares, own)
    rows = readable(own).sort_values("difference", na_position="first").reset_index(drop=True)
    cross = readable(cross)
    cells = table(cross).set_index(["eval_task", "forget_task"])
    sources = list(dict.fromkeys(shares["source"]))
    y = np.arange(len(rows))
    heights = [0.28 * len(sources), 0.21 * len(rows)]
    with style(cross.tasks, [said]):
        figure = Figure(
            figsize=(TEXT_WIDTH, 2.6 + sum(heights)), layout=ConstrainedLayoutEngine(hspace=0.05)
        )
        grid = figure.add_gridspec(2, 2, height_ratios=heights, width_ratios=[1.25, 1])
        above = figure.add_subplot(grid[0, :])
        for measure, marker, up in ((RATIO, "o", 0.17), (AUROC_LOST, "s", -0.17)):
            of = shares[shares["measure"] == measure]
            top = np.array([len(sources) - 1.0 - sources.index(s) for s in of["source"]]) + up
            above.hlines(top, *of[ends].to_numpy(float).T, color=LIGHT, linewidth=2.5)
            draw_intervals(above, of, "share", top, measure, marker, BLACK, measure == RATIO)
        why = "undefined: it takes two tasks with something to forget, and ratios that differ"
        say_where_nothing(above, shares["share"], why)
        above.set_yticks(range(len(sources)), sources[::-1])
        above.set_ylim(-0.6, len(sources) - 0.4)
        above.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, handletextpad=0.1
        )
        size = f"{int(cross.defined.sum())} × {len(cross.tasks)} pairs"
        what = "black: over questions, grey: over tasks"
        above.set_xlabel(f"share of the variance over pairs ({size} for the ratio;\n{what})")
        left = figure.add_subplot(grid[1, 0])
        right = figure.add_subplot(grid[1, 1], sharey=left)
        for partner, label, marker, colour, offset in (
            ("eval_task", "own labels", "D", VERMILION, 0.16),
            ("best_other", "best other task's", "o", BLUE, -0.16),
        ):
            known = (rows[partner].notna() & rows["own"].notna()).to_numpy()
            pairs = list(zip(rows["eval_task"][known], rows[partner][known], strict=True))
            found = cells.loc[pairs]
            draw_intervals(
                left, found, "forget_ratio", y[known] + offset, label, marker, colour, True
            )
        alone = len(cross.tasks) == 1 and bool(cross.defined[0])
        for line in y[rows["best_other"].isna()]:
            (right if alone else left).annotate(
                "no other task" if alone else "ratio undefined",
                (0.02, line),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=SMALL,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        draw_intervals(right, rows, "difference", y, "", "o", BLACK, True)
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
        picked_on = f"of these runs, picked on\n{own['picked_on'].iloc[0]}"
        above_0 = "(above 0: the other forgets more)"
        right.set_xlabel(f"accuracy: own − best other\n{picked_on}\n{above_0}")
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
        set_finding(figure, said)
    return figure


# Column: (title, the value at the end of the colours, or None for the largest)
HARMS: dict[str, tuple[str, float | None]] = {
    "accuracy_lost": ("accuracy lost", 0.5),
    "auroc_lost": ("AUROC lost", 0.5),
    "nll_risen": ("nats a token risen", None),
}

MOST_IN_THREE = 13  # tasks whose names fit below three panels


def harm_finding(table: pd.DataFrame) -> str:
    """Say in a sentence what is lost after others' labels on average, for titles.

    table: from `fig3.table`
    """
    others = table[table["eval_task"] != table["forget_task"]]
    if others.empty:
        return "No pairs of different tasks"
    accuracy, auroc, nats = (others[name].mean() for name in HARMS)
    return (
        f"After another task's labels accuracy is {number(accuracy)} and AUROC {number(auroc)} "
        f"lower on average, and a token of the true response costs {number(nats)} nats more"
    )


def harm_correlation(table: pd.DataFrame) -> tuple[Interval, int]:
    """Correlate the forget ratio after other tasks' labels with the nats that they add, over pairs.

    Where the two go together, what is lost may be damage. Pairs with a task in common are not
    independent: the interval is a jackknife, of Fisher's z, that leaves out each task in turn, as
    row and as column.

    table: rows of `fig3.table`
    Returns Pearson's correlation with its interval over tasks, and the number of pairs.
    """
    sides = ["eval_task", "forget_task"]
    pairs = table[(table["eval_task"] != table["forget_task"]) & table["forget_ratio"].notna()]
    names = sorted({*pairs["eval_task"], *pairs["forget_task"]})

    def z(rows: pd.DataFrame) -> float:
        return float(np.arctanh(rows["nll_risen"].corr(rows["forget_ratio"])))

    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.array([z(pairs[(pairs[sides] != name).all(axis=1)]) for name in names])
        found = jackknife(z(pairs), without, len(names) - 1)
    return Interval(*map(float, np.tanh([found.value, found.low, found.high]))), len(pairs)


def draw_harm(table: pd.DataFrame, described: pd.DataFrame) -> Figure:
    """Draw what each task's labels do to each task: accuracy and AUROC lost, nats a token risen.

    Drops, which unlike ratios have no small denominator. Rows and columns are grouped by the format
    of their answers, in the order of the mean rise of nats a token. Of many tasks, AUROC and nats
    only.

    table: from `fig3.table`, of one model and one kind of labels
    described: the format of every task's answers, from `tasks.describe`
    """
    require_columns(table, ["eval_task", "forget_task", *HARMS])
    said = harm_finding(table)
    shown = readable(with_formats(table, described))
    formats = dict(zip(shown["eval_task"], shown["answer_format"], strict=True))
    order = {}
    for side in ("eval_task", "forget_task"):
        mean = shown.groupby(side)["nll_risen"].mean().sort_values()
        order[side] = [t for f in FORMATS for t in mean.index if formats.get(t) == f]
    k, n_free = len(formats), sum(f == "text" for f in formats.values())
    drawn = list(HARMS)[0 if k <= MOST_IN_THREE else 1 :]  # of more, names need the width of half
    with style(shown["eval_task"], [said]):
        longest = max(map(len, formats))  # names below stand on end
        height = 2.1 + 0.13 * k + 0.06 * max(longest - 18, 0)
        figure = Figure(figsize=(TEXT_WIDTH, height), layout="constrained")
        panels = figure.subplots(1, len(drawn), sharey=True)
        for axes, column in zip(panels, drawn, strict=True):
            name, most = HARMS[column]
            values = shown.pivot_table(column, "eval_task", "forget_task", dropna=False)
            values = values.reindex(order["eval_task"], columns=order["forget_task"])
            largest = np.nanmax(np.abs(values.to_numpy()), initial=1e-9)
            end = largest if most is None else most
            image = axes.imshow(values, cmap=DROP_COLOURS, vmin=-end, vmax=end, aspect="auto")
            axes.set_title(name)
            axes.set_xticks(
                range(len(values.columns)), order["forget_task"], rotation=90, fontsize=SMALL
            )
            axes.set_yticks(range(len(values)), order["eval_task"], fontsize=SMALL)
            axes.grid(visible=False)
            if 0 < n_free < k:
                for line in (axes.axhline, axes.axvline):
                    line(n_free - 0.5, color=DARK_GREY, linewidth=0.8)
            bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.8, aspect=15)
            bar.set_ticks([-end, 0, end], labels=[f"−{end:.2g}", "0", f"{end:.2g}"], fontsize=SMALL)
            say_where_nothing(axes, values, "undefined")
        panels[0].set_ylabel("evaluated task")
        split = "\n(free answers | fixed answers)" if 0 < n_free < k else ""
        panels[1].set_xlabel(f"task whose labels were trained on{split}")
        set_finding(figure, said)
    return figure
