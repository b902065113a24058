"""Figures 4, 5 and 6: what predicts forgetting, its order, and what a probe still finds."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter, LogLocator, MaxNLocator, NullFormatter

from forgetlib import stats
from forgetlib.measures import PROBED_PHASES
from forgetlib.plots.common import (
    ACCURACY_MARKS,
    BLACK,
    BLUE,
    DARK_GREY,
    FAMILY_COLOURS,
    GREY,
    LIGHT,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    count_text,
    error_bar,
    estimate_text,
    family_handles,
    intervals,
    name_points,
    panel_grid,
    readable,
    require_columns,
    require_rows,
    say_where_nothing,
    style,
    used_panels,
    with_intervals,
)
from forgetlib.schema import CHANCE, InputError
from forgetlib.stats import PHASES

FORMAT_MARKS = {"text": ("free-text answers", "o"), "verbaliser": ("fixed answers", "s")}
PREDICTOR_LABELS = {
    "confidence": "mean confidence of the fine-tuned model on the test set",
    "log_variance": "hidden-state variance of the fine-tuned model (trace of the covariance)",
}
PROBE_PHASES = dict(zip(PROBED_PHASES, PHASES, strict=True))  # of the probe, of the accuracies


def predictors(table: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Figure 4: forget ratio against confidence and against hidden-state variance, a point a task.

    table: from `measures.predictors`, of one model, merged with `tasks.describe`
    correlations: from `regression.correlations`
    """
    measures = with_intervals(["forget_ratio", *PREDICTOR_LABELS])
    require_columns(table, ["eval_task", *measures, "ratio_defined", "family", "answer_format"])
    do = "Pass regression.correlations(...) of the same table."
    stats.require_columns(
        "the correlations", correlations, [*with_intervals(["rank_correlation"]), "n_tasks"], do
    )
    require_rows(correlations, "predictor", PREDICTOR_LABELS, do)
    table = readable(table)
    rows = table[table["ratio_defined"].astype(bool) & np.isfinite(table["forget_ratio"])]
    y = rows[with_intervals(["forget_ratio"])].to_numpy(float)
    with style(table["eval_task"], table["family"]):
        figure = Figure(figsize=(TEXT_WIDTH, 6.4), layout="constrained")
        panels = figure.subplots(2, 1, sharey=True)
        drawn = []
        for axes, (predictor, label) in zip(panels, PREDICTOR_LABELS.items(), strict=True):
            x = rows[with_intervals([predictor])].to_numpy(float)
            if predictor == "log_variance":
                x = np.exp(x)
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter(LogFormatter(minor_thresholds=(np.inf, np.inf)))
                axes.xaxis.set_minor_formatter(NullFormatter())
            known = np.isfinite(x[:, 0])
            drawn.append((axes, x, known))
            for i in np.flatnonzero(known):
                family, form = rows["family"].iloc[i], rows["answer_format"].iloc[i]
                axes.errorbar(
                    *(x[i, 0], y[i, 0], error_bar(y[i]), error_bar(x[i])),
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
            why = (
                "of no task is it known"
                if len(rows)
                else "in no task was there something to forget"
            )
            say_where_nothing(axes, x[:, 0], f"nothing to draw: {why}")
            # One interval many times as wide as all others would hide what there is to see.
            ratios = [0, 1, *y[:, 0]]
            limits = min(ratios) - np.ptp(ratios), max(ratios) + np.ptp(ratios)
            axes.set(xlabel=label, ylabel="forget ratio", ylim=limits)
            row = correlations.set_index("predictor").loc[predictor]
            found = estimate_text(row, "rank_correlation")
            axes.set_title(f"rank correlation {found}, n = {row['n_tasks']:.0f} tasks", loc="left")
            sns.despine(ax=axes)
        figure.legend(
            handles=_family_and_format_handles(table),
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
        note = "Dashed: nothing forgotten (0), all forgotten (1). Bars: 95 % intervals."
        wide = rows[(y[:, 1] < limits[0]) | (y[:, 2] > limits[1])].sort_values("eval_task")
        if len(wide):
            cut = (f"{r.eval_task} {estimate_text(r, 'forget_ratio')}" for _, r in wide.iterrows())
            note += f" Wider than the panel: {', '.join(cut)}."
        undefined = set(table["eval_task"]) - set(rows["eval_task"])
        if len(undefined):
            note += f" Not drawn, as the ratio is undefined: {', '.join(sorted(undefined))}."
        for predictor, (_, _, known) in zip(PREDICTOR_LABELS, drawn, strict=True):
            if 0 < known.sum() < len(rows):
                lacking = ", ".join(sorted(rows["eval_task"][~known]))
                note += f" Not drawn, as {predictor} is not known: {lacking}."
        figure.supxlabel(textwrap.fill(note, 110), fontsize=SMALL)
        figure.draw_without_rendering()  # names go between points, which must have their places
        for axes, x, known in drawn:
            name_points(axes, x[known], y[known], list(rows["eval_task"][known]))
    return figure


def _family_and_format_handles(table: pd.DataFrame) -> list[Artist]:
    formats = [f for f in FORMAT_MARKS if f in set(table["answer_format"])]
    marks = [FORMAT_MARKS[f] for f in formats]
    return [
        *(Line2D([], [], marker=m, color=BLACK, linestyle="", label=label) for label, m in marks),
        *family_handles(table["family"], letters=False),
    ]


def regression(
    joint: pd.DataFrame, alone: pd.DataFrame, left_out: pd.DataFrame, partial: pd.DataFrame
) -> Figure:
    """Figure 4, regression: the coefficients, how stable they are, and what they are fitted to.

    joint, alone: coefficients of the regression on all terms and on each term alone (columns term,
        coefficient with its interval): `regression.least_squares(...).coefficients`, `each_alone`
    left_out: from `regression.leave_one_task_out`, the joint coefficients without each task
    partial: from `regression.partial_regression`, one panel a term
    """
    require_columns(alone, ["term", *with_intervals(["coefficient"])])
    joint, alone, left_out, partial = map(readable, (joint, alone, left_out, partial))
    terms = list(dict.fromkeys([*alone["term"], *joint["term"]]))
    panels = [t for t in terms if t in set(partial["term"])]
    require_rows(joint, "term", panels, "Pass the four tables of the same regression.")
    n_rows, columns = panel_grid(len(panels), 3)
    heights = [0.95 + 0.23 * len(terms)] + [0.35 + 1.25 * n_rows] * bool(panels)
    with style(terms):
        figure = Figure(figsize=(TEXT_WIDTH, sum(heights)), layout="constrained")
        upper, *lower = _stacked(figure, heights)
        _coefficients(upper, terms, joint, alone, left_out)
        for part in lower:
            for i, term in enumerate(panels):
                points = partial[partial["term"] == term]
                axes = part.add_subplot(n_rows, columns, i + 1)
                axes.plot(points["x"], points["y"], "o", color=BLUE, markersize=3)
                slope = joint.set_index("term").loc[term, "coefficient"]
                if np.isfinite(slope):
                    axes.axline((0, 0), slope=slope, color=BLACK, linewidth=0.8)
                say_where_nothing(axes, points[["x", "y"]], "undefined")
                axes.set_title(f"{_plain(term)}\nn = {len(points)}", fontsize=SMALL + 0.5)
                axes.tick_params(labelsize=SMALL)
                axes.xaxis.set_major_locator(MaxNLocator(4))
                sns.despine(ax=axes)
            part.supxlabel("residual of the term, given the other terms", fontsize=8)
            part.supylabel("residual of the forget ratio", fontsize=8)
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
            intervals(axes, found, "coefficient", at, label, marker, colour, fit is joint)
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
    if len(estimated) or len(left_out):
        figure.legend(loc="outside upper center", ncols=3, frameon=False, handletextpad=0.4)


def _plain(term: str) -> str:
    return term.replace("tuned", "fine-tuned accuracy").replace("_", " ")


def example_level(table: pd.DataFrame) -> Figure:
    """Figure 4, single examples: does a task's confidence or deviation say which are lost?

    table: from `regression.example_level`; the row "pooled" is drawn at the bottom
    """
    require_columns(
        table, ["eval_task", "predictor", "n", "n_lost", *with_intervals(["rank_biserial"])]
    )
    table = readable(table)
    names = [t for t in sorted(set(table["eval_task"])) if t != "pooled"] + ["pooled"]
    y = pd.Series(np.arange(len(names))[::-1], index=names, dtype=float)
    y["pooled"] -= 0.3
    labels = {
        "confidence": "confidence",
        "log_deviation": "distance from the mean",
    }
    for predictor in labels:
        do = "Pass regression.example_level(...), whole."
        require_rows(table[table["predictor"] == predictor], "eval_task", names, do)
    with style(names):
        figure = Figure(figsize=(TEXT_WIDTH, 1.2 + 0.19 * len(names)), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        if table["rank_biserial"].isna().all():
            panels[0].set_xlim(-1, 1)
        for axes, (predictor, label) in zip(panels, labels.items(), strict=True):
            rows = table[table["predictor"] == predictor].set_index("eval_task").loc[names]
            for pooled, marker, colour in ((False, "o", BLUE), (True, "D", VERMILION)):
                some = rows[(rows.index == "pooled") == pooled]
                at = y[some.index].to_numpy()
                intervals(axes, some, "rank_biserial", at, label, marker, colour, True)
            for name, row in rows[rows["rank_biserial"].isna()].iterrows():
                axes.text(
                    *(0.02, y[name], _why_undefined(row["n"], row["n_lost"])),
                    fontsize=SMALL,
                    va="center",
                    color=DARK_GREY,
                )
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
        label = "rank-biserial correlation with being lost, of questions that were right before\n"
        label += "(0: no prediction; 1: the lost ones have the highest values; −1: the lowest)"
        figure.supxlabel(label, fontsize=8)
    return figure


def _why_undefined(n: int, n_lost: int) -> str:
    """Why there is no correlation of n examples with being among the n_lost that are lost."""
    if n == 0:
        return "undefined: not measured"
    if n_lost in (0, n):
        return "undefined: all lost" if n_lost else "undefined: none lost"
    return "undefined"  # one of these in every seed


def order(table: pd.DataFrame, examples: pd.DataFrame) -> Figure:
    """Figure 5: the step at which an example is learned against the step at which it is forgotten.

    table: from `measures.order`, of one model; a task without enough examples is named, and counted
    examples: from `measures.order_examples`; examples with the same two steps are one larger dot
    """
    require_columns(table, ["eval_task", "n", "enough", *with_intervals(["rank_correlation"])])
    stats.require_columns(
        "the examples",
        examples,
        ["eval_task", "learned_step", "forgotten_step"],
        "Pass measures.order_examples(...).",
    )
    table, examples = readable(table), readable(examples)
    rows = table.sort_values(["enough", "rank_correlation"], ascending=[True, False])
    names = list(rows.loc[rows["enough"], "eval_task"])[::-1]
    do = "Pass measures.order_examples(...) of the same results and threshold."
    require_rows(examples, "eval_task", rows.loc[rows["enough"] & (rows["n"] > 0), "eval_task"], do)
    n_rows, columns = panel_grid(len(names), 5)
    heights = [0.65 + 0.16 * len(rows)] + [0.4 + 1.05 * n_rows] * bool(names)
    with style(rows["eval_task"]):
        figure = Figure(figsize=(TEXT_WIDTH, sum(heights)), layout="constrained")
        upper, *lower = _stacked(figure, heights)
        _order_correlations(upper, rows)
        for part in lower:
            panels = part.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False)
            for axes, name in zip(used_panels(panels, len(names)), names, strict=True):
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
    intervals(axes, rows[enough], "rank_correlation", y[enough], "", "o", BLUE, True)
    for at in y[~enough]:
        axes.text(0.01, at, "too few examples", fontsize=SMALL, va="center", color=DARK_GREY)
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_yticks(y, rows["eval_task"] + " (" + rows["n"].astype(str) + ")")
    drawn = rows.loc[enough, with_intervals(["rank_correlation"])].to_numpy(float)
    for at, (value, low, _), n in zip(y[enough], drawn, rows.loc[enough, "n"], strict=True):
        if np.isnan(low):
            why = "undefined: all at one step" if n > 1 else "undefined: fewer than two examples"
            why = why if np.isnan(value) else "no interval"
            to_left = value > 0  # towards the middle, beside the mark
            axes.annotate(
                why,
                (np.nan_to_num(value), at),
                (-5 if to_left else 5, 0),
                textcoords="offset points",
                ha="right" if to_left else "left",
                va="center",
                fontsize=SMALL,
                color=DARK_GREY,
            )
    reach = 1.05 * np.nanmax(np.abs(drawn), initial=0.5)
    axes.set(xlim=(-reach, reach), ylim=(-0.6, len(rows) - 0.4), ylabel="task (n)")
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)
    figure.supxlabel("rank correlation (below 0: learned first, forgotten last)", fontsize=8)


def _counts(axes: Axes, pairs: np.ndarray) -> None:
    """Dots at the (n, 2) pairs, with an area that grows with how many are the same pair."""
    say_where_nothing(axes, pairs, "none")
    if not len(pairs):
        return
    places, counts = np.unique(pairs, axis=0, return_counts=True)
    steps = max(len(set(places[:, 0])), len(set(places[:, 1])))
    largest = np.clip(60 / steps, 3, 10)  # points: a panel is about 60 wide
    area = np.clip(largest**2 * counts / counts.max(), 1, None)
    axes.scatter(places[:, 0], places[:, 1], s=area, color=BLUE, alpha=0.8, linewidth=0)
    axes.margins(0.15)


def probes(table: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """Figure 6: what a linear probe finds, beside what the model answers, in the same phases.

    table: from `measures.probe_accuracy`, of one model; own: from `stats.forgetting`
    """
    columns = [*with_intervals(["accuracy", "control"]), "phase", "layer", "is_paper_layer", "n"]
    require_columns(table, ["eval_task", *columns])
    require_columns(own, ["eval_task", "n", *with_intervals(PROBE_PHASES.values())])
    own = readable(own).sort_values("forgotten").reset_index(drop=True)
    at_layer = _at_paper_layer(readable(table))
    y = np.arange(len(own))
    offsets = np.linspace(0.27, -0.27, len(PROBE_PHASES))
    with style(own["eval_task"]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.15 + 0.25 * len(own)), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for (phase, column), offset in zip(PROBE_PHASES.items(), offsets, strict=True):
            rows = at_layer[at_layer["phase"] == phase].set_index("eval_task")
            rows = rows.reindex(own["eval_task"])
            _, marker, colour, filled = ACCURACY_MARKS[column]
            intervals(left, rows, "control", y + offset, "_", "x", LIGHT, True)
            intervals(left, rows, "accuracy", y + offset, "_", marker, colour, filled)
            label = "after forgetting" if phase == "forgotten" else phase
            intervals(right, own, column, y + offset, label, marker, colour, filled)
        left.plot([], [], "x", color=LIGHT, markersize=4, label="control: random labels")
        for line in y[~own["eval_task"].isin(at_layer["eval_task"])]:
            left.annotate(
                "not probed",
                (0.02, line),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=SMALL,
                color=DARK_GREY,
            )
        say_where_nothing(left, at_layer["accuracy"], "undefined")
        say_where_nothing(right, own[[*PROBE_PHASES.values()]], "undefined")
        for axes, name, n, unit in (
            (left, f"linear probe of layer {at_layer['layer'].iloc[0]}", at_layer["n"], "answers"),
            (right, "the model's own choice", own["n"], "questions"),
        ):
            axes.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
            axes.set_title(name)
            axes.set_xlabel(f"accuracy ({count_text(n)} {unit})")
            axes.grid(axis="y", visible=False)
            sns.despine(ax=axes, left=True)
        left.set_yticks(y, own["eval_task"])
        left.set_ylim(-0.6, len(own) - 0.4)
        figure.legend(loc="outside upper center", ncols=4, frameon=False, handletextpad=0.2)
    return figure


def probe_layers(table: pd.DataFrame) -> Figure:
    """Figure 6, over layers: the probe's accuracy in every layer, a thin line a task, and its mean.

    table: from `measures.probe_accuracy`, of one model
    """
    columns = ["eval_task", "accuracy", "control", "phase", "layer", "is_paper_layer"]
    require_columns(table, columns)
    paper_layer = _at_paper_layer(table)["layer"].iloc[0]
    n_tasks = table["eval_task"].nunique()
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
            say_where_nothing(axes, lines, "undefined" if len(rows) else "not probed")
            axes.axvline(paper_layer, color=BLACK, linewidth=0.8, linestyle=":", zorder=1)
            axes.set_title(label.split(",")[0])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            sns.despine(ax=axes)
        panels[0].set_ylabel("accuracy of the linear probe")
        panels[1].set_xlabel("layer (0: embeddings; dotted: the paper's layer)")
        figure.legend(
            handles=[
                Line2D([], [], color=BLACK, linewidth=2, label=f"mean of {n_tasks} tasks"),
                Line2D([], [], color=BLACK, linewidth=0.6, alpha=0.5, label="one task"),
                Line2D([], [], color=DARK_GREY, linestyle="--", label="control: mean"),
                Patch(color=GREY, alpha=0.25, linewidth=0, label="control: range of means"),
            ],
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
    return figure


def _at_paper_layer(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the paper's layer, which is the fifth-to-last."""
    rows = table[table["is_paper_layer"].astype(bool)]
    if rows.empty:
        raise InputError(
            "the probes' table",
            expected="rows of the paper's layer (is_paper_layer)",
            found=f"only those of layers {sorted(set(table['layer']))}",
            do="Pass measures.probe_accuracy(...), whole.",
        )
    return rows


def _stacked(figure: Figure, heights: list[float]) -> list[SubFigure]:
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    return list(parts[:, 0])
