"""Figure 4 of the paper: what predicts forgetting, task by task and question by question.

The table has a row a task, that of Figure 2 with the hidden states' variance; `examples_table` has
a row a test question. The analyses are `regression` and `mixedmodel`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, LogLocator, MaxNLocator, NullFormatter

from forgetlib.figures import fig2, intervals
from forgetlib.figures.bootstrap import of_means, resample
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    UNDEFINED,
    Interval,
    as_columns,
    with_intervals,
)
from forgetlib.figures.join import families, full_size
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    FAMILY_COLOURS,
    GREEN,
    GREY,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    error_bar,
    estimate_text,
    family_handles,
    name_points,
    panel_grid,
    readable,
    require_columns,
    require_rows,
    say_where_nothing,
    stacked,
    style,
)
from forgetlib.metrics import confidence, correct
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result


def table(
    results: Iterable[Result],
    *,
    by_seed: bool = False,
    answers: Load | None = None,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Tabulate the forgetting of each task and what might predict it, one row a model and task.

    by_seed: one row a model, task and seed instead, for the mixed model alone: each row's ratio is
        then defined or not by one seed's examples
    answers: as in `fig2.table`

    Columns: those of `fig2.table` but `fig2.DRAWN` (of which tuned stands for difficulty, and
    confidence is the fine-tuned model's), log_variance with its interval, and seed where by_seed is
    set. log_variance is the natural logarithm of the trace of the covariance of the fine-tuned
    model's hidden states on the test set, mean over seeds; NaN without a probe.
    """
    parts = []
    for _, task, seeds in full_size(results):
        for those in [[runs] for runs in seeds] if by_seed else [seeds]:
            of = [run for runs in those for run in runs.values()]
            row = fig2.table(of, answers=answers, n_resamples=n_resamples).drop(columns=fig2.DRAWN)
            variance = _log_variance([runs["tuned"] for runs in those], task, n_resamples)
            seed = {"seed": those[0]["tuned"].seed} if by_seed else {}
            parts.append(row.assign(**as_columns("log_variance", variance), **seed))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _log_variance(runs: Sequence[Result], task: str, n_resamples: int) -> Interval:
    """Logarithm of the trace of the covariance, from the squared distances to the mean (N,).

    The interval resamples test examples. The mean is that of all examples in every resample: only
    the distances to it are stored. It matters little, by a share of about 1 / N.
    """
    samples = []
    for run in runs:
        if (found := run.hidden_variance) is not None:
            distances, n = found.deviation.astype(float), len(found.deviation)
            if n > 1 and distances.any():
                uids = run.scores[f"{task}/test"].uids
                samples.append(of_means(uids, distances[:, None] * n / (n - 1)))
    if not samples:
        return UNDEFINED
    resampled = resample(samples, n_resamples=n_resamples)
    return resampled.interval(lambda means: np.log(means[..., 0]))


def examples_table(results: Iterable[Result]) -> pd.DataFrame:
    """Tabulate every test example: whether it is lost, and what might predict it (section 5).

    Columns: model, eval_task, seed, uid; of the fine-tuned model confidence, log_deviation (natural
    logarithm of the hidden state's squared distance from the task's mean; NaN without a probe),
    tuned_correct; forgotten_correct, forgotten_confidence; and again_correct, whether it is right
    after a second training on true labels (1 or 0; NaN where the results have none).
    """
    parts = []
    results = list(results)
    again = {
        (model, task, runs["tuned"].seed): correct(runs["forgotten"].scores[f"{task}/test"])
        for (model, task, _), seeds in families(results, "true").items()
        for runs in seeds
    }
    for model, task, seeds in full_size(results):
        for runs in seeds:
            control = again.get((model, task, runs["tuned"].seed))
            tuned, forgotten = (runs[p].scores[f"{task}/test"] for p in ("tuned", "forgotten"))
            deviation = np.full(len(tuned), np.nan)
            if (found := runs["tuned"].hidden_variance) is not None:
                deviation = np.where(found.deviation > 0, found.deviation, np.nan)
            parts.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "eval_task": task,
                        "seed": runs["tuned"].seed,
                        "uid": tuned.uids,
                        "confidence": confidence(tuned),
                        "log_deviation": np.log(deviation.astype(float)),
                        "tuned_correct": correct(tuned),
                        "forgotten_correct": correct(forgotten),
                        "forgotten_confidence": confidence(forgotten),
                        "again_correct": np.nan if control is None else control.astype(float),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


FORMAT_MARKS = {"text": ("free-text answers", "o"), "verbaliser": ("fixed answers", "s")}
PREDICTOR_LABELS = {
    "confidence": "mean confidence of the fine-tuned model on the test set",
    "log_variance": "hidden-state variance of the fine-tuned model (trace of the covariance)",
}


def draw(table: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Draw Figure 4: forget ratio against confidence, and against hidden-state variance.

    A point is a task.

    table: from `fig4.table`, of one model, merged with `tasks.describe`
    correlations: from `regression.correlations`
    """
    measures = with_intervals(["forget_ratio", *PREDICTOR_LABELS])
    require_columns(table, ["eval_task", *measures, "ratio_defined", "family", "answer_format"])
    do = "Pass regression.correlations(...) of the same table."
    intervals.require_columns(
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


def regression_table(joint: pd.DataFrame, alone: pd.DataFrame) -> pd.DataFrame:
    """Put the coefficients that `draw_regression` draws under each other, for its CSV.

    Columns: those of `design.Fit.coefficients`, terms ("together" or "alone"), and those that
    `regression.each_alone` adds, NaN for the terms together.
    """
    return pd.concat([joint.assign(terms="together"), alone.assign(terms="alone")])


def draw_regression(
    joint: pd.DataFrame, alone: pd.DataFrame, left_out: pd.DataFrame, partial: pd.DataFrame
) -> Figure:
    """Draw Figure 4's regression: coefficients, how stable they are, what they are fitted to.

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
        upper, *lower = stacked(figure, heights)
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
            draw_intervals(axes, found, "coefficient", at, label, marker, colour, fit is joint)
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


def draw_examples(table: pd.DataFrame) -> Figure:
    """Draw whether confidence or deviation says which single examples of a task are lost.

    table: from `mixedmodel.example_level`; the row "pooled" is drawn at the bottom
    """
    measures = with_intervals(["rank_biserial", "again"])
    require_columns(table, ["eval_task", "predictor", "n", "n_lost", *measures])
    table = readable(table)
    names = [t for t in sorted(set(table["eval_task"])) if t != "pooled"] + ["pooled"]
    y = pd.Series(np.arange(len(names))[::-1], index=names, dtype=float)
    y["pooled"] -= 0.3
    labels = {"confidence": "confidence", "log_deviation": "distance from the mean"}
    for predictor in labels:
        do = "Pass mixedmodel.example_level(...), whole."
        require_rows(table[table["predictor"] == predictor], "eval_task", names, do)
    with style(names):
        figure = Figure(figsize=(TEXT_WIDTH, 1.2 + 0.19 * len(names)), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        if table["rank_biserial"].isna().all():
            panels[0].set_xlim(-1, 1)
        for axes, (predictor, label) in zip(panels, labels.items(), strict=True):
            rows = table[table["predictor"] == predictor].set_index("eval_task").loc[names]
            at = y[rows.index].to_numpy()
            marks = "after random labels", "D", VERMILION, True
            draw_intervals(axes, rows, "rank_biserial", at, *marks)
            if rows["again"].notna().any():
                marks = "after true labels again", "s", GREEN, True
                draw_intervals(axes, rows, "again", at - 0.25, *marks)
            for name, row in rows[rows["rank_biserial"].isna()].iterrows():
                axes.text(
                    *(0.02, y[name], why_undefined(row["n"], row["n_lost"])),
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
        if table["again"].notna().any():
            handles = panels[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside upper center", ncols=2, frameon=False)
        label = "rank-biserial correlation with being lost, of questions that were right before\n"
        label += "(0: no prediction; 1: the lost ones have the highest values; −1: the lowest)"
        figure.supxlabel(label, fontsize=8)
    return figure


def why_undefined(n: int, n_lost: int) -> str:
    """Say why there is no correlation of n examples with being among the n_lost that are lost."""
    if n == 0:
        return "undefined: not measured"
    if n_lost in (0, n):
        return "undefined: all lost" if n_lost else "undefined: none lost"
    return "undefined"  # one of these in every seed
