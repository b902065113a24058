"""What predicts forgetting, over all models and tasks: Figure 4 as one model cannot draw it.

One model has as many points as tasks. Several have a point a model and task: a mixed model takes
tasks as random, since they repeat, and models as a term of their own. Tables in, tables out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from forgetlib.figures import fig4, intervals
from forgetlib.figures.bootstrap import adjusted
from forgetlib.figures.design import COEFFICIENT_COLUMNS, Fit, is_defined, without
from forgetlib.figures.fig2 import LEVEL
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.mixedmodel import mixed_model
from forgetlib.figures.names import listed, short_name
from forgetlib.figures.numbers import between
from forgetlib.figures.rows import mark
from forgetlib.figures.scale import models as scale
from forgetlib.figures.style import (
    BLACK,
    DARK_GREY,
    SMALL,
    TEXT_WIDTH,
    draw_intervals,
    marks_of,
    readable,
    say_where_nothing,
    set_finding,
    style,
)
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result

TERMS = ("confidence", "log_variance", "fit", "tuned", "answer_format")
OUTCOMES = {scale.AUROC_BEYOND: "AUROC lost beyond true labels", "forget_ratio": "forget ratio"}
SHOWN = ("confidence", "log_variance")  # the paper's predictors (Fig. 4)
ALONE, JOINTLY = FITS = ("alone", "jointly")
PLAIN = {
    "confidence": "confidence",
    "log_variance": "log hidden-state variance",
    "fit": "answers as the random labels say",
    "tuned": "fine-tuned accuracy",
    "answer_format": "fixed against free answers",
    "answer_format: verbaliser": "fixed against free answers",
    "answer_format: text": "free against fixed answers",
}
LEAST_FREEDOM = 4  # degrees of freedom: with fewer, intervals of null models leave out 0 too often


def table(results: Iterable[Result], answers: Load | None = None) -> pd.DataFrame:
    """Tabulate what is forgotten of each model and task that was known, and what may predict it.

    results: own jobs and their controls, of several models; answers: as in `scale.table`

    One row a model and task, of the seeds that have a control. Columns: model, eval_task, those of
    `TERMS` and of `OUTCOMES`. Confidence, accuracy (tuned) and the logarithm of the hidden states'
    variance are the fine-tuned model's, and fit is the share of the random labels that the
    forgotten one answers.
    """
    results = scale.with_controls(results)
    lost = scale.table(results, answers)
    keys = ["model", "eval_task"]
    columns = [*keys, *TERMS, *OUTCOMES]
    if lost.empty:
        return pd.DataFrame(columns=columns)
    lost = lost.loc[lost["known"].astype(bool), [*keys, *OUTCOMES, "fit", "answer_format"]]
    found = fig4.table(results, answers=answers)
    return lost.merge(found[[*keys, "confidence", "log_variance", "tuned"]], on=keys)[columns]


def coefficients(table: pd.DataFrame, terms: Sequence[str] = TERMS) -> pd.DataFrame:
    """Fit what is forgotten on each term alone, and on all jointly, and without each model.

    `mixedmodel.mixed_model`: tasks random, models a term of their own (not listed), t intervals
    with tasks less coefficients as degrees of freedom. A coefficient is for one standard deviation
    over tasks, once what models differ by is taken out. Fine-tuned accuracy is in the forget
    ratio's denominator, and bounds what of AUROC can be lost: some of its coefficient is that.

    table: from `regressions.table`
    Columns: outcome (of `OUTCOMES`), fitted (of `FITS`), those of `Fit.coefficients`, holm (of
    those alone: the p-value, adjusted for all of them), least and most (the coefficient without
    each model in turn; NaN where one of these fits has none), n (models' tasks), n_tasks, n_of (how
    many of these are in the group that a coefficient is of; NaN of a number's), and note: why there
    is no coefficient, which is then NaN, or what the optimiser warned of. There is none with fewer
    than `LEAST_FREEDOM` degrees of freedom, or where the optimiser failed.
    """
    rows = []
    for outcome in OUTCOMES:
        for fitted, chosen in (*((ALONE, (term,)) for term in terms), (JOINTLY, tuple(terms))):
            rows += _fitted(table, outcome, fitted, chosen)
    ends = ["holm", "least", "most", "n", "n_tasks", "n_of", "note"]
    found = pd.DataFrame(rows, columns=["outcome", "fitted", *COEFFICIENT_COLUMNS, *ends])
    alone = (found["fitted"] == ALONE) & found["p_value"].notna()
    found.loc[alone, "holm"] = adjusted(found.loc[alone, "p_value"].tolist())
    return found


def _fitted(
    table: pd.DataFrame, outcome: str, fitted: str, terms: Sequence[str]
) -> list[dict[str, object]]:
    """Make the rows of one fit, one a coefficient; of a term without any, one that says why."""
    fit = fit_of(table, outcome, terms)
    models = sorted(set(table["model"]))
    others = [
        fit_of(table[table["model"] != model], outcome, terms).coefficients.set_index("term")
        for model in (models if len(models) > 2 else ())
    ]
    found = {str(row["term"]): row for row in fit.coefficients.to_dict("records")}
    of_all = {"outcome": outcome, "fitted": fitted, "n": fit.n, "n_tasks": fit.n_tasks}
    rows: list[dict[str, object]] = []
    for term in terms:
        names = [name for name in found if name == term or name.startswith(f"{term}: ")]
        if not names:
            nothing = dict.fromkeys(COEFFICIENT_COLUMNS, np.nan) | {"term": term, "against": ""}
            rows.append(of_all | nothing | {"note": fit.dropped.get(term, "; ".join(fit.notes))})
        for name in names:
            of = [float(o["coefficient"].get(name, np.nan)) for o in others]
            ends = {"least": np.min(of), "most": np.max(of)} if of else {}
            used = table[is_defined(table[outcome])]
            group = used[used[term].astype(str) == name.removeprefix(f"{term}: ")]
            ends["n_of"] = group["eval_task"].nunique() if name != term else np.nan
            rows.append(of_all | found[name] | ends | {"note": "; ".join(fit.notes)})
    return rows


def fit_of(table: pd.DataFrame, outcome: str, terms: Sequence[str]) -> Fit:
    """Fit a mixed model, of numbers less each model's mean; empty where it is not to be trusted.

    The term for models takes such differences out anyway. Taken out before, they are in no standard
    deviation either, where models did not do the same tasks.
    """
    used = table[is_defined(table[outcome])]
    for term in terms:
        used = used[is_defined(used[term])]
    numbers = [term for term in terms if is_numeric_dtype(used[term])]
    centred = used.assign(
        **{t: used[t] - used.groupby("model")[t].transform("mean") for t in numbers}
    )
    fit = mixed_model(centred, terms, outcome)
    freedom = fit.n_tasks - len(fit.coefficients) - 1
    if len(fit.coefficients) and freedom < LEAST_FREEDOM:
        why = f"too few tasks: {fit.n_tasks} for {len(fit.coefficients) + 1} coefficients"
        return without(replace(fit, coefficients=fit.coefficients.iloc[:0]), why)
    if not np.isfinite(fit.coefficients["p_value"].to_numpy(float)).all():
        return without(replace(fit, coefficients=fit.coefficients.iloc[:0]), "no standard error")
    return fit


def partial(table: pd.DataFrame, term: str) -> pd.DataFrame:
    """Take from a term and from the AUROC lost what models differ in on average (least squares).

    A line through these points has the slope of the term beside models: a partial regression.
    Columns: model, eval_task, x (in the term's units), y (of AUROC). Rows where either is
    undefined are left out.
    """
    of = table[is_defined(table[term]) & is_defined(table[scale.AUROC_BEYOND])]
    if not len(of):
        return pd.DataFrame(columns=["model", "eval_task", "x", "y"])
    x, y = (of[c] - of.groupby("model")[c].transform("mean") for c in (term, scale.AUROC_BEYOND))
    return of[["model", "eval_task"]].assign(x=x, y=y)


def finding(found: pd.DataFrame) -> str:
    """Say which predictors go with what is forgotten, over models and tasks, by Holm's correction.

    found: from `regressions.coefficients`
    """
    parts = []
    for outcome, words in OUTCOMES.items():
        of = found[(found["outcome"] == outcome) & (found["fitted"] == ALONE)]
        n, n_tasks = int(of["n"].max()), int(of["n_tasks"].max())
        if of["coefficient"].isna().all():
            parts.append(f"{words} cannot be explained by {n_tasks} tasks of so few models")
            continue
        shown = of[of["holm"] < LEVEL]
        named = [
            f"{PLAIN.get(t, t)} ({_of_tasks(of_group, n_tasks)}{'more' if c > 0 else 'less'} is "
            "forgotten with it)"
            for t, c, of_group in zip(
                shown["term"], shown["coefficient"], shown["n_of"], strict=True
            )
        ]
        where = f"{n} pairs of a model and a task ({n_tasks} tasks)"
        parts.append(f"{listed(named) or 'no predictor'} is shown to go with {words} over {where}")
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]} (each predictor alone, Holm's correction)"


def _of_tasks(n_of: float, n_tasks: int) -> str:
    """Say how many tasks a group has, and how many the others: few are weak evidence."""
    return "" if np.isnan(n_of) else f"{int(n_of)} tasks against {n_tasks - int(n_of)}; "


def draw(table: pd.DataFrame, found: pd.DataFrame) -> Figure:
    """Draw each predictor's coefficient, alone and jointly, and partial regressions of the paper's.

    table: from `regressions.table`; found: from `coefficients` of it. Band: leaving out each
    model in turn. Line: least squares of the points.
    """
    do = "Pass scale.regressions.coefficients(...), whole."
    wanted = ["outcome", "fitted", "term", "least", "most", "n", *with_intervals(["coefficient"])]
    intervals.require_columns("the regressions of models", found, wanted, do)
    do = "Pass scale.regressions.table(...)."
    columns = ["model", "eval_task", *SHOWN, *OUTCOMES]
    intervals.require_columns("what predicts forgetting", table, columns, do)
    said = finding(found)
    found = found[found["fitted"].isin(FITS)]
    found = found.assign(term=[readable(PLAIN.get(str(t), str(t))) for t in found["term"]])
    terms = list(dict.fromkeys(found["term"]))[::-1]
    heights = {term: float(i) for i, term in enumerate(terms)}
    models = list(dict.fromkeys(table["model"]))
    with style([*terms, said], [short_name(m) for m in models]):
        size = (TEXT_WIDTH, 3.6 + 0.28 * len(terms))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=[0.6 + 0.28 * len(terms), 2.4])
        top = [figure.add_subplot(grid[0, 0])]
        top.append(figure.add_subplot(grid[0, 1], sharey=top[0]))
        for axes, (outcome, label) in zip(top, OUTCOMES.items(), strict=True):
            of = found[found["outcome"] == outcome]
            for fitted, offset, marker, colour in (
                (ALONE, 0.17, "o", BLACK),
                (JOINTLY, -0.17, "s", DARK_GREY),
            ):
                rows = of[(of["fitted"] == fitted) & of["coefficient"].notna()]
                y = rows["term"].map(heights).to_numpy(float) + offset
                spans = axes.hlines(y, rows["least"], rows["most"], color=colour, linewidth=6)
                spans.set(
                    alpha=0.3, label="leaving out each model in turn" if fitted == ALONE else "_"
                )
                name = fitted if len(rows) else "_"
                draw_intervals(axes, rows, "coefficient", y, name, marker, colour, True)
            lacking = of[(of["fitted"] == ALONE) & of["coefficient"].isna()]
            for term in lacking["term"] if of["coefficient"].notna().any() else ():
                why = axes.text(0, heights[term], "undefined", fontsize=SMALL, va="center")
                why.set(color=DARK_GREY, ha="center", in_layout=False)
                why.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
            mark(axes, 0.0)
            say_where_nothing(axes, of["coefficient"], "too few tasks")
            axes.set_title(f"{label}\nn = {between(of['n'], 0)}", loc="left", fontsize=SMALL)
            axes.set_xlabel("change for one\nstandard deviation")
        top[0].set_yticks(list(heights.values()), terms)
        top[0].set_ylim(-0.6, len(terms) - 0.4)
        top[1].tick_params(labelleft=False)
        below = [figure.add_subplot(grid[1, i]) for i in range(len(SHOWN))]
        for axes, term in zip(below, SHOWN, strict=True):
            points = partial(table, term)
            for i, model in enumerate(models):
                marker, colour = scale.MARKS[i % len(scale.MARKS)]
                of = points[points["model"] == model]
                label = readable(short_name(model))
                axes.plot(of["x"], of["y"], marker, color=colour, markersize=4, label=label)
            x, y = points["x"].to_numpy(float), points["y"].to_numpy(float)
            if (x**2).sum() > 0:
                slope = (x * y).sum() / (x**2).sum()  # both have mean 0
                axes.axline((0, 0), slope=slope, color=BLACK, linewidth=0.8)
            say_where_nothing(axes, points["y"], "not measured")
            axes.set_xlabel(f"{PLAIN[term]},\nless the model's mean")
            sns.despine(ax=axes)
        below[0].set_ylabel("AUROC lost beyond true\nlabels, less the model's mean")
        marks = marks_of([top[0], below[0]])
        figure.legend(*marks, loc="outside lower center", ncols=2, frameon=False)
        set_finding(figure, said)
    return figure
