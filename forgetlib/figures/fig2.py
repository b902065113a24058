"""Figure 2 of the paper: each task forgotten by its own random labels, and its control.

The table has a row a task: accuracies, forget gap and forget ratio, with intervals. The control is
the same second training on true labels: what random labels cost beyond that is due to the labels.
Both are sorted by what they show, within each format of answers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import adjusted, of_shares
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    UNDEFINED,
    Interval,
    as_columns,
    with_intervals,
)
from forgetlib.figures.join import check_same_training
from forgetlib.figures.measures import Measured, measured
from forgetlib.figures.rows import (
    Rows,
    by_format,
    draw_constants,
    draw_seeds,
    mark,
    names_or_count,
    seeds_text,
    set_rows,
)
from forgetlib.figures.style import (
    ACCURACY_MARKS,
    BLACK,
    GREY,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    say_where_nothing,
    set_finding,
    style,
)
from forgetlib.metrics import CHANCE, forget_gap, ratio_of
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result

DRAWN = ["answer_format", "true_share", "forgotten_seeds", "lost_seeds"]  # for this figure alone
LEVEL = 0.05  # of Holm's tests
CONTROLLED = {"beyond_true_labels": "accuracy", "auroc_beyond_true_labels": "auroc"}
BEHAVIOURS = ("no loss shown", "below fine-tuned", "below pre-trained", "ratio undefined")


def table(
    results: Iterable[Result],
    condition: str = "random",
    *,
    answers: Load | None = None,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Measure the forgetting of each task by its own labels (paper, Fig. 2 and 7).

    condition: "random", or another kind of the second phase (`Checkpoint.kind`), as "flipped"
    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study), which say
        what a constant answer reaches; None: 0.5 for every task

    One row a model, task and size of the forgetting set. Columns: model, eval_task, answer_format
    ("verbaliser": fixed answers; "text"), size (upper bound of the forgetting set), n (test
    examples, all seeds), n_train (size found, all seeds), n_seeds, true_share (accuracy that one
    answer to everything reaches; 0.5 with free answers, and at least), and for each measure m its
    value, m_low and m_high (`bootstrap`):
    base, tuned, forgotten: test accuracy before, after fine-tuning, after forgetting
    forgetting_set: accuracy on the forgetting set after forgetting, true labels
    forget_gap, forget_ratio: as `metrics` defines them
    confidence: mean confidence on the test set after fine-tuning
    lost, below_base: the fine-tuned and the pre-trained accuracy less the forget accuracy
    auroc_lost: the fine-tuned AUROC less the one after forgetting
    known: whether there was something to forget, by accuracy or AUROC
    forgotten_seeds, lost_seeds: these of each seed, as text (`rows.seeds_text`)
    ratio_defined: whether the fine-tuned accuracy was shown to be above 0.5 and above what a
        constant answer reaches; where it is not, the ratio's denominator may be zero, and it is NaN
    behaviour: the paper's three kinds, each by the interval of the accuracies' difference.
        "no loss shown": the interval of what is lost includes 0 (nothing was, or these data are
        too few to show it); "below fine-tuned": below it, but not shown to be below the
        pre-trained; "below pre-trained". "ratio undefined" where the ratio is undefined
    """
    ratio = ratio_of(condition)
    rows = []
    for (model, task, size), found in measured(
        list(results), answers, [condition], n_resamples=n_resamples
    ):
        own = f"{task}/train"
        defined = found.knows("accuracy")
        intervals = {
            "base": found.of("accuracy", "base"),
            "tuned": found.of("accuracy", "tuned"),
            "forgotten": found.of("accuracy", condition),
            "confidence": found.of("confidence", "tuned"),
            "forget_gap": found.interval(
                of_shares(lambda m: forget_gap(m[..., 0])), ("accuracy", condition)
            ),
            "lost": found.difference("accuracy", "tuned", condition),
            "auroc_lost": found.difference("auroc", "tuned", condition),
            "below_base": found.difference("accuracy", "base", condition),
            "forget_ratio": found.interval(
                of_shares(lambda m: ratio(m[..., 0], m[..., 1])),
                ("accuracy", "tuned"),
                ("accuracy", condition),
            )
            if defined
            else UNDEFINED,
            "forgetting_set": found.of("accuracy", condition, "train"),
        }
        row: dict[str, object] = {"model": model, "eval_task": task}
        row |= {"answer_format": found.answer_format, "size": size, "n": found.n}
        row["n_train"] = sum(len(runs[condition].scores[own]) for runs in found.seeds)
        row |= {"n_seeds": found.n_seeds, "true_share": found.floor}
        for name, interval in intervals.items():
            row |= as_columns(name, interval)
        forgotten = _of_seeds(found, "accuracy", condition)
        row["forgotten_seeds"] = seeds_text(forgotten)
        row["lost_seeds"] = seeds_text(_of_seeds(found, "accuracy", "tuned") - forgotten)
        row["ratio_defined"], row["known"] = defined, found.something_to_forget
        row["behaviour"] = _behaviour(intervals) if defined else BEHAVIOURS[3]
        rows.append(row)
    return pd.DataFrame(rows)


def control_table(results: Iterable[Result], *, answers: Load | None = None) -> pd.DataFrame:
    """Measure what random labels do beyond the same training on true labels, a row a task.

    Both start from the same fine-tuned model, with the same settings. The differences are taken
    within each seed; with one seed their intervals leave out what another training would give.

    results: of part "control"; InputError where the two differ in more than their labels
    answers: as in `table`

    One row a model and task, of the seeds that have both. Columns: model, eval_task, answer_format
    (as in `table`), n (test examples, all seeds), n_seeds, and for each measure m its value, m_low
    and m_high (`bootstrap`):
    tuned, again, forgotten: test accuracy after fine-tuning, and after a second phase on true and
        on random labels
    lost, lost_again: the fine-tuned accuracy less the one after random and after true labels
    beyond_true_labels: the accuracy after true labels less the one after random labels
    auroc_beyond_true_labels: the same of AUROC
    and of the last two <m>_seeds, the value of each seed as text (`rows.seeds_text`), <m>_p, the
        p-value of no difference, and <m>_holm, which is adjusted for as many tests as there are
        tasks (`bootstrap.adjusted`)
    """
    rows = []
    kinds = ["random", "true"]
    for (model, task, _), found in measured(list(results), answers, kinds, paired=True):
        for runs in found.seeds:
            check_same_training(runs["true"].checkpoint, runs["random"].checkpoint)
        intervals = {
            "tuned": found.of("accuracy", "tuned"),
            "again": found.of("accuracy", "true"),
            "forgotten": found.of("accuracy", "random"),
            "lost": found.difference("accuracy", "tuned", "random"),
            "lost_again": found.difference("accuracy", "tuned", "true"),
            "beyond_true_labels": found.difference("accuracy", "true", "random"),
            "auroc_beyond_true_labels": found.difference("auroc", "true", "random"),
        }
        row: dict[str, object] = {"model": model, "eval_task": task}
        row |= {"answer_format": found.answer_format, "n": found.n, "n_seeds": found.n_seeds}
        for name, interval in intervals.items():
            row |= as_columns(name, interval)
        for name, measure in CONTROLLED.items():
            of_seeds = _of_seeds(found, measure, "true") - _of_seeds(found, measure, "random")
            row[f"{name}_seeds"] = seeds_text(of_seeds)
            row[f"{name}_p"] = found.p_value(measure, "true", "random")
        rows.append(row)
    table = pd.DataFrame(rows)
    for name in CONTROLLED if rows else ():
        table[f"{name}_holm"] = adjusted(table[f"{name}_p"])
    return table


def _of_seeds(found: Measured, measure: str, phase: str) -> np.ndarray:
    """Measure each seed's model of a phase on the test set: (G,)."""
    return found.get(measure, phase).of_seeds[:, 0]


def _behaviour(found: dict[str, Interval]) -> str:
    if found["lost"].low <= 0:
        return BEHAVIOURS[0]
    return BEHAVIOURS[1 if found["below_base"].low <= 0 else 2]


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence in how many tasks some of the skill is left, for titles and texts.

    Above chance: the whole interval is above what guessing and one answer to everything reach.

    table: from `fig2.table`, of one model and one size of the forgetting set
    """
    known = table[table["ratio_defined"].astype(bool)]
    if known.empty:
        return "In no task was there shown to be anything to forget"
    left = known["forgotten_low"] > known["true_share"]
    inside = (known["forgetting_set_low"] > known["true_share"]).sum()
    were = "tasks that were" if len(known) > 1 else "task that was"
    said = f"Of {len(known)} {were} known by accuracy, "
    said += f"{_are(left.sum())} still above chance on new questions"
    if not left.all():
        rest = known.loc[~left, "eval_task"]
        said += f"; {names_or_count(rest)} {'is' if len(rest) == 1 else 'are'} not shown to be"
    return f"{said}. On the questions of the forgetting set, {_are(inside)} (95 % intervals)"


def _are(count: int) -> str:
    return {0: "none is", 1: "1 is"}.get(int(count), f"{count} are")


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 2: accuracy before, after fine-tuning and after forgetting; what is lost.

    Sorted by the accuracy after forgetting, which is the forget gap but for 0.5 (scale on top).

    table: from `fig2.table`, of one model and one size of the forgetting set
    """
    columns = [*with_intervals([*ACCURACY_MARKS, "forget_gap", "lost"]), "true_share", "behaviour"]
    columns += ["eval_task", "answer_format", "ratio_defined", "forgotten_seeds", "lost_seeds"]
    require_columns(table, columns)
    if table["eval_task"].duplicated().any():
        raise InputError(
            "table of Figure 2",
            expected="one row a task",
            found=f"several for {sorted(table.loc[table['eval_task'].duplicated(), 'eval_task'])}",
            do='Pass the results of one size: studies.load_results(study, "own").',
        )
    said = finding(table)
    shown = readable(table)
    rows = by_format(shown, "forgotten")
    y = rows.of(shown["eval_task"])
    with style(rows.heights, [said]):
        size = (TEXT_WIDTH, 2.05 + 0.25 * len(rows.heights))
        figure = Figure(figsize=size, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.4, 1])
        offsets = np.linspace(0.3, -0.3, len(ACCURACY_MARKS))
        for (column, marks), offset in zip(ACCURACY_MARKS.items(), offsets, strict=True):
            draw_intervals(left, shown, column, y + offset, *marks)
            if column == "forgotten":
                draw_seeds(left, shown, column, y + offset, VERMILION)
        draw_constants(left, shown, rows)
        draw_intervals(right, shown, "lost", y, "_", "o", BLACK, True)
        draw_seeds(right, shown, "lost", y, BLACK)
        for axes, x, values in ((left, CHANCE, [*ACCURACY_MARKS]), (right, 0, ["lost"])):
            mark(axes, x)
            say_where_nothing(axes, shown[values], "undefined")
        set_rows(left, rows)
        left.set_xlabel("accuracy")
        gap = left.secondary_xaxis("top", functions=(lambda a: a - CHANCE, lambda g: g + CHANCE))
        gap.set_xlabel("forget gap")
        right.set_xlabel("accuracy lost (fine-tuned − after)")
        for behaviour, height in zip(shown["behaviour"], y, strict=True):
            right.text(
                *(1.02, height, behaviour),
                transform=right.get_yaxis_transform(),
                va="center",
                fontsize=SMALL,
                color=GREY if behaviour == BEHAVIOURS[3] else BLACK,
            )
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
        )
        set_finding(figure, said)
    return figure


def control_finding(table: pd.DataFrame) -> str:
    """Say in a sentence in how many tasks random labels cost more than true ones.

    table: from `fig2.control_table`, of one model
    """
    own, holm, less = [], [], []
    for name in CONTROLLED:
        more = table[f"{name}_low"] > 0
        own.append(more.sum())
        holm.append((more & (table[f"{name}_holm"] < LEVEL)).sum())
        less += list(table.loc[table[f"{name}_high"] < 0, "eval_task"])
    said = (
        f"By their own intervals, random labels cost more accuracy than true ones in {own[0]} of "
        f"{len(table)} tasks, and more AUROC in {own[1]}; after Holm's correction, in "
        f"{f'{holm[0]} and {holm[1]}' if sum(holm) else 'none'}"
    )
    return f"{said}. They cost less in {names_or_count(dict.fromkeys(less))}" if less else said


def draw_control(table: pd.DataFrame) -> Figure:
    """Draw Figure 2's control: what random labels cost beyond the same training on true ones.

    Differences within each seed; sorted by that of AUROC, which no bias of the answers moves.

    table: from `fig2.control_table`, of one model
    """
    columns = [f"{name}_{of}" for name in CONTROLLED for of in ("seeds", "holm")]
    require_columns(table, ["eval_task", "answer_format", *columns, *with_intervals(CONTROLLED)])
    said = control_finding(table)
    shown = readable(table)
    rows = by_format(shown, "auroc_beyond_true_labels")
    with style(rows.heights, [said]):
        size = (TEXT_WIDTH, 1.5 + 0.19 * len(rows.heights))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, measure in zip(panels, CONTROLLED, ("accuracy", "AUROC"), strict=True):
            _draw_beyond(axes, shown, name, rows)
            axes.set_xlabel(f"{measure} (true − random labels)")
        set_rows(panels[0], rows)
        marks = {  # marker, filled
            "interval without 0": ("o", True),
            "interval with 0": ("o", False),
            "p < 0.05 after Holm's correction": ("*", True),
        }
        handles = [
            Line2D([], [], color=BLACK, marker=m, mfc=BLACK if f else "white", ms=4, lw=0, label=of)
            for of, (m, f) in marks.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        set_finding(figure, said)
    return figure


def _draw_beyond(axes: Axes, table: pd.DataFrame, name: str, rows: Rows) -> None:
    """Draw the differences of one measure: filled where the interval leaves out 0."""
    y = rows.of(table["eval_task"])
    apart = ((table[f"{name}_low"] > 0) | (table[f"{name}_high"] < 0)).to_numpy()
    for of, filled in ((apart, True), (~apart, False)):
        draw_intervals(axes, table[of], name, y[of], "_", "o", BLACK, filled)
    draw_seeds(axes, table, name, y, BLACK)
    certain = y[table[f"{name}_holm"] < LEVEL]
    if len(certain):
        x = np.full(len(certain), 0.98)
        axes.plot(x, certain, "k*", transform=axes.get_yaxis_transform(), markersize=4)
    mark(axes, 0)
    say_where_nothing(axes, table[name], "undefined")
