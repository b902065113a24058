"""Figure 4 of the paper: what predicts forgetting, task by task.

The table has a row a task, that of Figure 2 with the hidden states' variance. The analyses are
`regression` and `mixedmodel`; single questions are in `fig4_examples`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

from forgetlib.figures import fig2, intervals
from forgetlib.figures.beside import name_points
from forgetlib.figures.bootstrap import of_means, resample
from forgetlib.figures.design import OUTCOMES
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    UNDEFINED,
    Interval,
    as_columns,
    with_intervals,
)
from forgetlib.figures.join import full_size
from forgetlib.figures.names import listed
from forgetlib.figures.numbers import between, estimate_of, number
from forgetlib.figures.power import of_correlation
from forgetlib.figures.regression import LARGE
from forgetlib.figures.rows import mark
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    FAMILY_COLOURS,
    GREY,
    SMALL,
    TEXT_WIDTH,
    draw_intervals,
    error_bar,
    family_handles,
    readable,
    require_columns,
    require_rows,
    say_where_nothing,
    set_finding,
    style,
)
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
    least = resampled.limits[0, 0]  # seeds that differ much would give variances below 0
    return resampled.interval(lambda means: np.log(np.maximum(means[..., 0], least)))


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
    said = predictors_finding(correlations)
    with style(table["eval_task"], table["family"], [said]):
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
            limits = min(ratios) - np.ptp(ratios) / 2, max(ratios) + np.ptp(ratios) / 2
            axes.set(xlabel=label, ylabel="forget ratio", ylim=limits)
            row = correlations.set_index("predictor").loc[predictor]
            found = estimate_of(row, "rank_correlation")
            axes.set_title(f"rank correlation {found}, n = {row['n_tasks']:.0f} tasks", loc="left")
            sns.despine(ax=axes)
        panels[0].legend(
            handles=_family_and_format_handles(table),
            loc="lower center",
            bbox_to_anchor=(0.45, 1.1),
            ncols=4,
            frameon=False,
        )
        set_finding(figure, said)
        note = "Dashed: nothing forgotten (0), all forgotten (1). Bars: 95 % intervals."
        wide = rows[(y[:, 1] < limits[0]) | (y[:, 2] > limits[1])].sort_values("eval_task")
        if len(wide):
            cut = (f"{r.eval_task} {estimate_of(r, 'forget_ratio')}" for _, r in wide.iterrows())
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


def predictors_finding(correlations: pd.DataFrame) -> str:
    """Say whether confidence and variance are shown to go with the forget ratio, over tasks.

    correlations: from `regression.correlations`
    """
    words = {"confidence": "confidence", "log_variance": "hidden-state variance"}
    rows = correlations.set_index("predictor")
    parts = []
    for predictor, name in words.items():
        low, high = rows.loc[predictor, ["rank_correlation_low", "rank_correlation_high"]]
        if low > 0 or high < 0:
            parts.append(f"{'more' if low > 0 else 'less'} is forgotten with higher {name}")
    n = int(rows.loc[list(words), "n_tasks"].min())
    if parts:
        return f"{listed(parts).capitalize()} ({n} tasks)"
    has = of_correlation(LARGE, 0.0)(n)
    said = f"Neither confidence nor variance is shown to go with the forget ratio of {n} tasks"
    if np.isnan(has):
        return said
    return f"{said} (power {number(has)} for a rank correlation of {number(LARGE, 1)})"


def _family_and_format_handles(table: pd.DataFrame) -> list[Artist]:
    formats = [f for f in FORMAT_MARKS if f in set(table["answer_format"])]
    marks = [FORMAT_MARKS[f] for f in formats]
    return [
        *(Line2D([], [], marker=m, color=BLACK, linestyle="", label=label) for label, m in marks),
        *family_handles(table["family"], letters=False),
    ]


def regression_finding(alone: pd.DataFrame) -> str:
    """Say which predictors alone are shown to go with what is forgotten, and with what power.

    alone: from `regression.each_alone`
    """
    shown = alone[(alone["coefficient_low"] > 0) | (alone["coefficient_high"] < 0)]
    parts = [
        f"{_plain(of['term'])} ({'more' if of['coefficient'] > 0 else 'less'} "
        f"{OUTCOMES[of['outcome']]})"
        for _, of in shown.iterrows()
    ]
    if len(parts) > 3:
        parts = [f"predictors in {len(parts)} of {len(alone)} regressions"]
    said = f"Alone, {listed(parts) if parts else 'no predictor'} "
    said += "is" if len(parts) < 2 and len(shown) < 2 else "are"
    said += " shown to go with what is forgotten"
    able = alone.dropna(subset="power")
    if len(able):
        n, has, enough = (able[c].min() for c in ("n_tasks", "power", "needed"))
        said += f"; a rank correlation of 0.5 is found in {n:.0f} tasks with a chance of {has:.2f}"
        said += f" (0.8 with {enough:.0f})"
    return said


def draw_regression(alone: pd.DataFrame) -> Figure:
    """Draw Figure 4's regressions: what goes with each predictor alone, by three measures.

    alone: from `regression.each_alone`
    """
    measures = with_intervals(["coefficient"])
    require_columns(alone, ["outcome", "term", "least", "most", "n_tasks", *measures])
    require_rows(alone, "outcome", OUTCOMES, "Pass regression.each_alone(...), whole.")
    said = regression_finding(alone)
    alone = readable(alone.assign(term=alone["term"].map(_plain)))
    terms = list(dict.fromkeys(alone["term"]))[::-1]
    y = pd.Series(np.arange(len(terms)), index=terms, dtype=float)
    with style([*terms, said]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.5 + 0.23 * len(terms)), layout="constrained")
        panels = figure.subplots(1, len(OUTCOMES), sharey=True)
        for axes, (outcome, label) in zip(panels, OUTCOMES.items(), strict=True):
            rows = alone[alone["outcome"] == outcome]
            at = y[rows["term"]].to_numpy()
            spans = "leaving out each task in turn"
            span = {"color": BLUE, "linewidth": 6, "alpha": 0.3, "label": spans}
            axes.hlines(at, rows["least"], rows["most"], **span)
            marks = "each predictor alone", "o", BLUE, True
            draw_intervals(axes, rows, "coefficient", at, *marks)
            for _, of in rows[rows["coefficient"].isna()].iterrows():
                like = {"fontsize": SMALL, "va": "center", "ha": "center", "color": DARK_GREY}
                like["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                axes.text(0, y[of["term"]], "undefined", **like).set_in_layout(False)
            mark(axes, 0)
            axes.set_title(f"{label}\nn = {between(rows['n_tasks'], 0)}")
            axes.set_xlabel("change for one\nstandard deviation")
        panels[0].set_yticks(y, terms)
        panels[0].set_ylim(-0.6, len(terms) - 0.4)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        set_finding(figure, said)
    return figure


def _plain(term: str) -> str:
    plain = {
        "tuned": "fine-tuned accuracy",
        "log_variance": "hidden-state variance (log)",
        "answer_format": "fixed against free answers",  # there are none
        "answer_format: verbaliser": "fixed against free answers",
    }
    return plain.get(term, term.replace("_", " "))
