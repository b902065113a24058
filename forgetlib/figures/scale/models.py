"""Several models on the same tasks: does what one forgets go from another too?

A study of models has for each task the same trainings of every model: fine-tuned, then random
labels, or true ones again. `table` has a row a model and task; whether two models agree is in
`agreement`, what predicts forgetting in `regressions`. Sizes, families of models and
how they were tuned before differ together in any few models: no slope over sizes is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import fig4_examples, intervals, mixedmodel
from forgetlib.figures.bootstrap import Measure, difference, of_means, resample
from forgetlib.figures.fig6 import pair_means
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    UNDEFINED,
    Interval,
    as_columns,
    with_intervals,
)
from forgetlib.figures.join import check_same_training, families
from forgetlib.figures.measures import Measured, measured
from forgetlib.figures.names import listed, short_name, title
from forgetlib.figures.rows import (
    by_format,
    mark,
    names_or_count,
    set_rows,
)
from forgetlib.figures.style import (
    BLACK,
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
from forgetlib.figures.verdicts import DAMAGE, FORGOTTEN, INVERTED, KEPT, NOT_DECIDED, VERDICTS
from forgetlib.forgetting.dose import Dose
from forgetlib.metrics import CHANCE
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result

KINDS = ("random", "true")
MOST_TOLD = 3  # tasks whose models' verdicts differ, of which the finding says how
MARKS = (("o", BLUE), ("s", VERMILION), ("^", GREEN), ("D", PURPLE), ("v", ORANGE), ("P", BLACK))
AUROC_BEYOND = "auroc_beyond_true_labels"
MEASURES = {
    AUROC_BEYOND: "AUROC lost\nbeyond true labels",
    "set_auroc": "AUROC of the\nforgetting set",
    "fit": "answers as the\nrandom labels say",
    "damage": "rise of nats a token\nof other tasks",
}
MORE = {
    "forget_ratio": "forget ratio",
    "probe_lost": "probe's accuracy lost\nbeyond true labels",
    "lost_confidence": "rank correlation of being\nlost with confidence,\nbeyond true labels",
}
AT_CHANCE = ("set_auroc", "fit")  # where doing nothing, or knowing nothing, is at 0.5
# True labels of the forgetting set are lost by its AUROC at the end, random ones learned by `fit`.
MOST_AUROC, LEAST_FIT = Dose().most, 0.9
COLUMNS = (
    *("model", "eval_task", "answer_format", "n", "n_seeds", "known"),
    *("learned_or_lost", "verdict"),
)


def measured_in_order(
    results: Iterable[Result], answers: Load | None, n_resamples: int = N_RESAMPLES
) -> list[tuple[tuple[str, str, int], Measured]]:
    """Measure what has a control, in the order in which the results name the models.

    Raises InputError where the two trainings differ in more than their labels.
    """
    results = list(results)
    order = {m: i for i, m in enumerate(dict.fromkeys(r.checkpoint.model for r in results))}
    found = list(measured(results, answers, KINDS, paired=True, n_resamples=n_resamples))
    for _, of in found:
        for runs in of.seeds:
            check_same_training(runs["true"].checkpoint, runs["random"].checkpoint)
    return sorted(found, key=lambda pair: order[pair[0][0]])


def with_controls(results: Iterable[Result]) -> list[Result]:
    """Leave out the trainings of those seeds of a model and task that have no control, or no other.

    What is measured of several results is then of the same seeds.
    """
    results = list(results)
    seeds: list[set[tuple[str, str, int]]] = []
    for kind in KINDS:
        found = families(results, kind)
        seeds.append({(m, t, runs["tuned"].seed) for (m, t, _), of in found.items() for runs in of})
    both = seeds[0] & seeds[1]
    return [
        r
        for r in results
        if not r.checkpoint.tasks or (r.checkpoint.model, r.checkpoint.task, r.seed) in both
    ]


def table(
    results: Iterable[Result], answers: Load | None = None, *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Measure what random labels take from each model, beyond the same training on true labels.

    results: own jobs and their controls, of any number of models
    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study)

    One row a model and task, of the seeds that have both; none without a control. Columns: model,
    eval_task, answer_format, n (test questions, all seeds), n_seeds, known (whether the fine-tuned
    model was shown to know the task by AUROC), learned_or_lost (of the forgetting set: whether the
    random labels are learned, to 0.9, or the true ones lost, to an AUROC within 0.40 and 0.60),
    verdict (of `verdicts`, against the fine-tuned model), and with their intervals
    auroc_tuned, auroc, auroc_again: after fine-tuning, and after random and after true labels
    auroc_beyond_true_labels: auroc_again less auroc
    forget_ratio: the share of accuracy above chance that is lost; NaN where it was not known
    set_auroc, fit: after random labels, on the set that was trained on: by the true labels, and the
        share whose prediction is the random label
    damage, damage_again: rise of nats a token of true responses of tasks of other families
    probe_lost: accuracy of a linear probe, after true labels less after random ones (the paper's
        layer); NaN where the probe did not beat chance before
    lost_confidence: whether the surer (above 0) or the less sure of the right questions are lost,
        beyond those after true labels (`mixedmodel.example_level`)
    """
    results = with_controls(results)
    rows = []
    for (model, task, _), found in measured_in_order(results, answers, n_resamples):
        set_auroc, fit = (found.of(name, "random", "train") for name in ("auroc", "fit"))
        measures = {
            "auroc_tuned": found.of("auroc", "tuned"),
            "auroc": found.of("auroc", "random"),
            "auroc_again": found.of("auroc", "true"),
            AUROC_BEYOND: found.difference("auroc", "true", "random"),
            "forget_ratio": found.ratio("accuracy", "random"),
            "set_auroc": set_auroc,
            "fit": fit,
            "damage": found.damage("random"),
            "damage_again": found.damage("true"),
            "probe_lost": _probe_lost(found),
        }
        row: dict[str, object] = {"model": model, "eval_task": task}
        row["answer_format"] = found.answer_format
        row |= {"n": found.n, "n_seeds": found.n_seeds, "known": found.knows("auroc")}
        row |= {"learned_or_lost": learned_or_lost(found)}
        row["verdict"] = found.verdict("random")
        for name, interval in measures.items():
            row |= as_columns(name, interval)
        rows.append(row)
    if not rows:
        columns = with_intervals(dict.fromkeys([AUROC_BEYOND, *MEASURES, *MORE]))
        return pd.DataFrame(columns=[*COLUMNS, *columns])
    examples = _examples(results, n_resamples)
    return pd.DataFrame(rows).merge(examples, on=["model", "eval_task"], how="left")


def learned_or_lost(found: Measured) -> bool:
    """Tell whether a model learned its forgetting set's random labels, or lost the true ones."""
    auroc, fit = (found.of(name, "random", "train").value for name in ("auroc", "fit"))
    return bool(max(auroc, 1 - auroc) <= MOST_AUROC or fit >= LEAST_FIT)


def _probe_lost(found: Measured) -> Interval:
    """Compare the linear probe after true labels with the one after random ones."""
    samples = []
    for runs in found.seeds:
        probes = [runs[phase].probe for phase in ("tuned", *reversed(KINDS))]
        if any(probe is None for probe in probes):
            return UNDEFINED
        uids = runs["tuned"].scores[f"{found.task}/test"].uids
        right = [pair_means(p.correct[p.layers == p.paper_layer]) for p in probes if p is not None]
        samples.append(of_means(uids, np.concatenate(right, axis=1)))
    resampled = resample(samples, n_resamples=found.n_resamples)
    if not resampled.interval(Measure(0)).low > CHANCE:
        return UNDEFINED
    return resampled.interval(difference(1, 2))


def _examples(results: Sequence[Result], n_resamples: int) -> pd.DataFrame:
    """Take whether the surer of the right questions are lost, a row a model and task."""
    found = mixedmodel.example_level(fig4_examples.table(results), n_resamples=n_resamples)
    found = found[(found["predictor"] == "confidence") & (found["eval_task"] != mixedmodel.POOLED)]
    columns = with_intervals(["beyond_true_labels"])
    names = dict(zip(columns, with_intervals(["lost_confidence"]), strict=True))
    return found[["model", "eval_task", *columns]].rename(columns=names)


def outcomes(table: pd.DataFrame) -> dict[str, list[str]]:
    """List by task its verdict in each model that knew it and learned or lost its labels.

    A loss is one only where random labels cost more than true ones: else it is not decided.
    """
    found: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        if row["known"] and row["learned_or_lost"]:
            verdict = str(row["verdict"])
            if verdict in (FORGOTTEN, INVERTED) and not row[f"{AUROC_BEYOND}_low"] > 0:
                verdict = NOT_DECIDED
            found.setdefault(str(row["eval_task"]), []).append(verdict)
    return found


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence what becomes of each task in all models that can tell.

    table: from `scale.table`
    """
    n_models = table["model"].nunique()
    if n_models < 2:
        return "One model has nothing to be compared with"
    several = {task: of for task, of in outcomes(table).items() if len(of) > 1}
    if not several:
        labels = "its random labels learned (or the true ones lost)"
        return f"No task was known, and {labels}, by two of {n_models} models"
    counts = sorted({len(of) for of in several.values()})
    parts, differ, rest = [], [], []
    for verdict in VERDICTS:
        tasks = [task for task, of in several.items() if set(of) == {verdict}]
        if tasks and verdict != NOT_DECIDED:
            where = "in each model"
            if len(counts) > 1:
                where = _in_how_many([len(several[task]) for task in tasks])
            parts.append(f"{_are(tasks)} {verdict} {where}")
    for task, of in several.items():
        decided = set(of) - {NOT_DECIDED}
        if NOT_DECIDED in of and decided <= {KEPT}:
            rest.append(task)
        elif len(set(of)) > 1:  # what was found in one model is not to be hidden by another
            differ.append(task)
    if len(differ) > MOST_TOLD:
        parts.append(f"models differ in {len(differ)} tasks")
    else:
        parts += [f"{title(task)} is {_by_verdict(several[task])}" for task in differ]
    if rest:
        parts.append(f"{_are(rest)} not decided in at least one")
    to = " or " if counts[-1] - counts[0] == 1 else " to "
    models = to.join(dict.fromkeys(str(n) for n in (counts[0], counts[-1])))
    what = "1 task" if len(several) == 1 else f"{len(several)} tasks"
    which = "that knew them, and learned their random labels or lost the true ones"
    return f"Of {what} that {models} models can tell of ({which}), {'; '.join(parts)}"


def _by_verdict(of: Sequence[str]) -> str:
    """Write in how many models a task has which verdict: "kept in 2 models and damaged in 1"."""
    first, *others = [(verdict, of.count(verdict)) for verdict in VERDICTS if verdict in of]
    models = "model" if first[1] == 1 else "models"
    said = [f"{first[0]} in {first[1]} {models}", *(f"{verdict} in {n}" for verdict, n in others)]
    return listed(said)


def _are(tasks: Sequence[str]) -> str:
    return f"{names_or_count(tasks)} {'is' if len(tasks) == 1 else 'are'}"


def _in_how_many(models: Sequence[int]) -> str:
    """Say of how many models tasks are: "in each of 3 models", or how many of them of how many.

    models: how many, task by task
    """
    sizes = sorted(set(models), reverse=True)
    if len(sizes) == 1:
        return f"in each of {sizes[0]} models"
    first, *rest = ((models.count(n), n) for n in sizes)
    more = "".join(f", {n_tasks} in {n}" for n_tasks, n in rest)
    return f"in each of these ({first[0]} of them in {first[1]} models{more})"


def _shown(table: pd.DataFrame, measures: Mapping[str, str]) -> str:
    """Count where each measure is shown to be above 0, of what can tell."""
    tells = table[table["known"].astype(bool) & table["learned_or_lost"].astype(bool)]
    parts = []
    for measure, label in measures.items():
        of = tells[tells[f"{measure}_low"].notna()]
        above = int((of[f"{measure}_low"] > 0).sum())
        parts.append(f"{' '.join(label.split())} in {above} of {len(of)}")
    return f"By their intervals above 0, of models and tasks that can tell: {', '.join(parts)}"


def draw(table: pd.DataFrame, measures: Mapping[str, str] = MEASURES) -> Figure:
    """Draw a row a task, a mark a model: what is lost, what was learned, and the harm elsewhere.

    table: from `scale.table`. Open marks: the model was not shown to know the task, or neither
    learned the random labels nor lost the true ones, so that it says nothing of other questions.
    Tasks are sorted by their mean loss, within each format of answers.
    measures: columns and their labels, a panel each: `MEASURES`, or `MORE`
    """
    do = "Pass the table of figures.scale.models."
    wanted = [*COLUMNS, *with_intervals(dict.fromkeys([AUROC_BEYOND, *measures]))]
    intervals.require_columns("models", table, wanted, do)
    said = finding(table) if AUROC_BEYOND in measures else _shown(table, measures)
    shown = readable(table.assign(eval_task=[title(t) for t in table["eval_task"]]))
    models = list(dict.fromkeys(shown["model"]))
    means = shown.groupby(["eval_task", "answer_format"], as_index=False)[AUROC_BEYOND].mean()
    rows = by_format(means, AUROC_BEYOND)
    names = {model: short_name(model) for model in models}
    with style(rows.heights, [said], names.values()):
        size = (TEXT_WIDTH, 1.5 + (0.1 + 0.1 * len(models)) * len(rows.heights))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(measures), sharey=True)
        offsets = np.linspace(0.3, -0.3, len(models)) if len(models) > 1 else [0.0]
        for i, (model, offset) in enumerate(zip(models, offsets, strict=True)):
            marker, colour = MARKS[i % len(MARKS)]
            of = shown[shown["model"] == model]
            tells = of["known"].astype(bool) & of["learned_or_lost"].astype(bool)
            for axes, measure in zip(panels, measures, strict=True):
                for filled in (True, False):
                    part = of[(tells == filled) & of[measure].notna()]
                    y = rows.of(part["eval_task"]) + offset
                    label = names[model] if filled else "_"
                    draw_intervals(axes, part, measure, y, label, marker, colour, filled)
        for axes, (measure, label) in zip(panels, measures.items(), strict=True):
            mark(axes, CHANCE if measure in AT_CHANCE else 0.0)
            say_where_nothing(axes, shown[measure], "not measured")
            axes.set_xlabel(label)
            if measure == "damage":
                axes.set_xlabel(f"{label}\n(dotted: damage)")
                axes.axvline(DAMAGE, color=DARK_GREY, linewidth=0.9, linestyle=":", zorder=1)
        set_rows(panels[0], rows)
        handles = panels[0].get_legend_handles_labels()
        ncols = min(len(models), 2)
        figure.legend(*handles, loc="outside lower center", ncols=ncols, frameon=False)
        set_finding(figure, said)
    return figure
