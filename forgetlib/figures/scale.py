"""Several models on the same tasks: does what one forgets go from another too? (Paper, Fig. 9.)

A study of models has for each task the same trainings of every model: fine-tuned, then random
labels, or true ones again. `table` has a row a model and task, `agreement` a row for two models.
Sizes, families of models and how they were tuned before go together in any few models: no slope
over sizes is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import fig4_examples, fig6, intervals, mixedmodel
from forgetlib.figures.agreement import agreement, parts
from forgetlib.figures.crosstask import short_name
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    UNDEFINED,
    Interval,
    as_columns,
    with_intervals,
)
from forgetlib.figures.join import check_same_training
from forgetlib.figures.measures import Measured, measured
from forgetlib.figures.names import title
from forgetlib.figures.numbers import estimate_of, number
from forgetlib.figures.rows import by_format, mark, names_or_count, set_finding, set_rows
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREEN,
    ORANGE,
    PURPLE,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    error_bar,
    name_points,
    readable,
    say_where_nothing,
    style,
)
from forgetlib.figures.verdicts import DAMAGE, FORGOTTEN, KEPT, NOTHING
from forgetlib.metrics import CHANCE, forget_ratio
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result

KINDS = ("random", "true")
MARKS = (("o", BLUE), ("s", VERMILION), ("^", GREEN), ("D", PURPLE), ("v", ORANGE), ("P", BLACK))
LOST = "auroc_beyond_true_labels"
MEASURES = {
    LOST: "AUROC lost\nbeyond true labels",
    "set_auroc": "AUROC of the\nforgetting set",
    "fit": "random labels\nlearned",
    "damage": "rise of nats a token\nof other tasks",
}
MORE = {
    "forget_ratio": "forget ratio",
    "probe_lost": "accuracy lost by\na linear probe",
    "lost_confidence": "confidence of the questions\nthat are lost (rank-biserial)",
}
AT_CHANCE = ("set_auroc", "fit")  # where doing nothing, or knowing nothing, is at 0.5


def table(
    results: Iterable[Result], answers: Load | None = None, *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Measure what random labels take from each model, beyond the same training on true labels.

    results: own jobs and their controls, of any number of models
    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study)

    One row a model and task, of the seeds that have both. Columns: model, eval_task, answer_format,
    n (test questions, all seeds), n_seeds, known (whether the fine-tuned model was shown to know
    the task by AUROC), verdict (of `verdicts`), and with their intervals
    auroc_tuned, auroc, auroc_again: after fine-tuning, and after random and after true labels
    auroc_beyond_true_labels: auroc_again less auroc
    forget_ratio, auroc_ratio: the share above chance that is lost; NaN where it was not known
    set_auroc, fit: after random labels, on the set that was trained on: by the true labels, and the
        share whose prediction is the random label
    damage, damage_again: rise of nats a token of other tasks' true responses
    probe_lost: accuracy that a linear probe loses by random labels (`fig6.recovery_table`)
    lost_confidence: whether the surer (1) or the less sure (-1) of the right questions are lost
        (`mixedmodel.example_level`)
    """
    results = list(results)
    rows = []
    for (model, task, _), found in measured(
        results, answers, KINDS, paired=True, n_resamples=n_resamples
    ):
        for runs in found.seeds:
            check_same_training(runs["true"].checkpoint, runs["random"].checkpoint)
        known = found.knows("auroc")
        measures = {
            "auroc_tuned": found.of("auroc", "tuned"),
            "auroc": found.of("auroc", "random"),
            "auroc_again": found.of("auroc", "true"),
            LOST: found.difference("auroc", "true", "random"),
            "forget_ratio": _ratio(found, "accuracy") if found.knows("accuracy") else UNDEFINED,
            "auroc_ratio": _ratio(found, "auroc") if known else UNDEFINED,
            "set_auroc": found.of("auroc", "random", "train"),
            "fit": found.of("fit", "random", "train"),
            "damage": found.damage("random"),
            "damage_again": found.damage("true"),
        }
        row: dict[str, object] = {"model": model, "eval_task": task}
        row["answer_format"] = "verbaliser" if found.fixed else "text"
        row |= {"n": found.n, "n_seeds": found.n_seeds, "known": known}
        row["verdict"] = found.verdict("random")
        for name, interval in measures.items():
            row |= as_columns(name, interval)
        rows.append(row)
    if not rows:
        return pd.DataFrame()
    found_so_far = pd.DataFrame(rows)
    for more in (_probes(results, n_resamples), _examples(results, n_resamples)):
        found_so_far = found_so_far.merge(more, on=["model", "eval_task"], how="left")
    return found_so_far


def _probes(results: Sequence[Result], n_resamples: int) -> pd.DataFrame:
    """Take what a linear probe loses: a gain is a negative loss, its ends change places."""
    found = fig6.recovery_table(results, n_resamples=n_resamples)
    if found.empty:
        return pd.DataFrame(columns=["model", "eval_task", *with_intervals(["probe_lost"])])
    ends = {"probe_lost": "", "probe_lost_low": "_high", "probe_lost_high": "_low"}
    lost = {name: 0.0 - found[f"difference{end}"] for name, end in ends.items()}
    return found[["model", "eval_task"]].assign(**lost)


def _examples(results: Sequence[Result], n_resamples: int) -> pd.DataFrame:
    """Take whether the surer of the right questions are lost, a row a model and task."""
    of_examples = fig4_examples.table(results)
    columns = with_intervals(["rank_biserial"])
    names = dict(zip(columns, with_intervals(["lost_confidence"]), strict=True))
    if of_examples.empty:
        return pd.DataFrame(columns=["model", "eval_task", *names.values()])
    found = mixedmodel.example_level(of_examples, n_resamples=n_resamples)
    found = found[(found["predictor"] == "confidence") & (found["eval_task"] != mixedmodel.POOLED)]
    return found[["model", "eval_task", *columns]].rename(columns=names)


def _ratio(found: Measured, name: str) -> Interval:
    """Give the share of what was above chance that random labels took."""
    return found.interval(
        lambda m: forget_ratio(m[..., 0], m[..., 1]), (name, "tuned"), (name, "random")
    )


def agreements(
    results: Iterable[Result], answers: Load | None = None, *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Ask whether two models lose the same tasks: rank agreement of AUROC beyond true labels.

    Over the tasks that both were shown to know. Models of one seed are asked the same questions and
    trained on the same labels, and agree by that alone: so each is taken from the other half of the
    questions than the other (or from other seeds, where there are several), and so is the ceiling,
    what each agrees with itself (`agreement`). Draws of labels are apart with several seeds alone.

    results, answers: as in `table`
    One row for each two models with at least two such tasks. Columns: a, b, rank_correlation with
    its interval, ceiling, n (tasks).
    """
    found: dict[str, dict[str, Measured]] = {}
    every = measured(list(results), answers, KINDS, paired=True, n_resamples=n_resamples)
    for (model, task, _), of in every:
        if of.knows("auroc"):
            found.setdefault(model, {})[task] = of
    rows = []
    for a, b in combinations(found, 2):
        both = [task for task in found[a] if task in found[b]]
        if len(both) < 2:
            continue
        values = [np.array([_parts(found[m][task]) for task in both]).T for m in (a, b)]
        rows.append({"a": a, "b": b, **agreement(*values)})
    columns = ["a", "b", *with_intervals(["rank_correlation"]), "ceiling", "n"]
    return pd.DataFrame(rows, columns=columns)


def _parts(found: Measured) -> np.ndarray:
    """Measure AUROC beyond true labels on two parts that share no data: (2,).

    Of several seeds, the first two, so that every task has as many.
    """
    of = parts(found, ("auroc", "true"), ("auroc", "random"))[:2]
    return np.asarray(of[:, 0] - of[:, 1])


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence which tasks all models forget or keep, and in which they differ.

    table: from `scale.table`, of at least two models
    """
    models = table["model"].nunique()
    of = table[table["verdict"] != NOTHING]
    shared = of[of.groupby("eval_task")["model"].transform("nunique") > 1]
    if shared.empty:
        return f"No task was shown to be known by two of {models} models"
    verdicts = {task: list(rows["verdict"]) for task, rows in shared.groupby("eval_task")}
    n = shared.groupby("eval_task")["model"].nunique()
    named: dict[str, list[str]] = {FORGOTTEN: [], KEPT: []}
    differ, rest = [], 0
    for task, found in verdicts.items():
        if set(found) in ({FORGOTTEN}, {KEPT}):
            named[found[0]].append(task)
        elif {FORGOTTEN, KEPT} <= set(found):
            differ.append(task)
        else:
            rest += 1
    said = [
        f"{names_or_count(tasks)} {'is' if len(tasks) == 1 else 'are'} {verdict} by all"
        for verdict, tasks in named.items()
        if tasks
    ]
    if differ:
        said.append(f"models differ in {names_or_count(differ)}")
    if rest:
        said.append(f"{rest} {'is' if rest == 1 else 'are'} not decided for all")
    numbers = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
    return f"Of {len(verdicts)} tasks that {numbers} models knew, {'; '.join(said)}"


def draw(table: pd.DataFrame, measures: Mapping[str, str] = MEASURES) -> Figure:
    """Draw a row a task, a mark a model: what is lost, what was learned, and the harm elsewhere.

    table: from `scale.table`. Open marks: tasks that the model was not shown to know. Tasks are
    sorted by their mean loss, within each format of answers.
    measures: columns and their labels, a panel each: `MEASURES`, or `MORE`
    """
    do = "Pass the table of figures.scale."
    wanted = ["model", "eval_task", "answer_format", "known", "verdict"]
    wanted += with_intervals([LOST, *measures])
    intervals.require_columns("models", table, wanted, do)
    said = finding(table)
    shown = readable(table.assign(eval_task=[title(t) for t in table["eval_task"]]))
    models = list(dict.fromkeys(shown["model"]))
    means = shown.groupby(["eval_task", "answer_format"], as_index=False)[LOST].mean()
    rows = by_format(means, LOST)
    names = {model: short_name(model) for model in models}
    with style(rows.heights, [said], names.values()):
        size = (TEXT_WIDTH, 1.5 + (0.1 + 0.1 * len(models)) * len(rows.heights))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(measures), sharey=True)
        offsets = np.linspace(0.3, -0.3, len(models)) if len(models) > 1 else [0.0]
        for i, (model, offset) in enumerate(zip(models, offsets, strict=True)):
            marker, colour = MARKS[i % len(MARKS)]
            of = shown[shown["model"] == model]
            for axes, measure in zip(panels, measures, strict=True):
                for known, filled in ((True, True), (False, False)):
                    part = of[(of["known"].astype(bool) == known) & of[measure].notna()]
                    y = rows.of(part["eval_task"]) + offset
                    label = names[model] if known else "_"
                    draw_intervals(axes, part, measure, y, label, marker, colour, filled)
        for axes, (measure, label) in zip(panels, measures.items(), strict=True):
            mark(axes, CHANCE if measure in AT_CHANCE else 0.0)
            say_where_nothing(axes, shown[measure], "not measured")
            axes.set_xlabel(label)
            if measure == "damage":
                axes.axvline(DAMAGE, color=DARK_GREY, linewidth=0.9, linestyle=":", zorder=1)
        set_rows(panels[0], rows)
        handles = panels[0].get_legend_handles_labels()
        ncols = min(len(models), 2)
        figure.legend(*handles, loc="outside lower center", ncols=ncols, frameon=False)
        set_finding(figure, said)
    return figure


def agreement_finding(agreed: pd.DataFrame) -> str:
    """Say in a sentence how far models agree on which tasks are lost, and how far they could.

    agreed: from `scale.agreements`
    """
    if agreed.empty:
        return "No two models were shown to know two tasks: whether they agree cannot be told"
    shown = agreed[agreed["rank_correlation_low"] > 0]
    pairs = f"{len(shown)} of {len(agreed)} pairs of models"
    said = f"Models are shown to lose the same tasks in {pairs}"
    several = [
        f"{short_name(of['a'])} and {short_name(of['b'])}: {estimate_of(of, 'rank_correlation')}, "
        f"ceiling {number(of['ceiling'])}"
        for of in agreed.to_dict("records")
    ]
    if len(several) > 3:
        low, high = (number(f(agreed["rank_correlation"])) for f in (min, max))
        several = [
            f"rank correlations {low} to {high}, ceilings from {number(agreed['ceiling'].min())}"
        ]
    n = agreed["n"]
    tasks = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
    return f"{said} (of {tasks} tasks; {'; '.join(several)})"


def draw_agreement(table: pd.DataFrame, agreed: pd.DataFrame) -> Figure:
    """Draw Figure 9: what each two models lose of the tasks that both knew, a point a task.

    table: from `scale.table`; agreed: from `scale.agreements` of the same results. Dashed: equal.
    """
    do = "Pass scale.agreements(...) of the same results."
    columns = ["a", "b", "ceiling", "n", *with_intervals(["rank_correlation"])]
    intervals.require_columns("the agreement of models", agreed, columns, do)
    wanted = ["model", "eval_task", "known", *with_intervals([LOST])]
    intervals.require_columns("models", table, wanted, "Pass the table of figures.scale.")
    said = agreement_finding(agreed)
    if agreed.empty:
        with style([said]):
            figure = Figure(figsize=(TEXT_WIDTH, 0.5))
            set_finding(figure, said)
        return figure
    known = table[table["known"].astype(bool)].set_index(["model", "eval_task"])
    names = {task: readable(title(task)) for task in dict.fromkeys(table["eval_task"])}
    across = min(3, len(agreed))
    down = -(-len(agreed) // across)
    with style(names.values(), [said], [short_name(m) for m in set(table["model"])]):
        size = (TEXT_WIDTH, 0.75 + 2.35 * down)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        drawn = []
        for axes, pair in zip(panels, agreed.to_dict("records"), strict=False):
            both = [t for t in names if all((pair[m], t) in known.index for m in "ab")]
            x, y = (
                known.loc[[(pair[m], t) for t in both], with_intervals([LOST])].to_numpy(float)
                for m in "ab"
            )
            for i in range(len(both)):
                axes.errorbar(
                    *(x[i, 0], y[i, 0], error_bar(y[i]), error_bar(x[i])),
                    fmt="o",
                    color=BLUE,
                    markersize=3.5,
                    elinewidth=0.6,
                    ecolor=DARK_GREY,
                )
            axes.axline((0, 0), slope=1, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
            axes.set_xlabel(readable(short_name(pair["a"])))
            axes.set_ylabel(readable(short_name(pair["b"])))
            words = f"{estimate_of(pair, 'rank_correlation')}\nceiling {number(pair['ceiling'])}"
            axes.set_title(f"{words}, {pair['n']} tasks", loc="left", fontsize=SMALL)
            drawn.append((axes, x, y, [names[t] for t in both]))
        for axes in panels[len(agreed) :]:
            axes.set_axis_off()
        figure.supxlabel("AUROC lost beyond true labels", fontsize=SMALL)
        set_finding(figure, said)
        figure.draw_without_rendering()  # names go between points, which must have their places
        for axes, x, y, labels in drawn:
            name_points(axes, x, y, labels)
    return figure


def in_words(table: pd.DataFrame, agreed: pd.DataFrame) -> str:
    """Answer in two sentences whether other models forget the same: for texts."""
    return f"{finding(table)}. {agreement_finding(agreed)}."
