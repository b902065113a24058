"""Figure 2 of the paper: each task forgotten by its own random labels, and its control.

The table has a row a task: accuracies, forget gap and forget ratio, with intervals. The control is
the same second training on true labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import adjusted
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    UNDEFINED,
    Interval,
    as_columns,
    with_intervals,
)
from forgetlib.figures.measures import measured
from forgetlib.figures.style import (
    ACCURACY_MARKS,
    BLACK,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    TEXT_WIDTH,
    draw_intervals,
    readable,
    require_columns,
    say_where_nothing,
    style,
)
from forgetlib.forgetting.labels import Labels
from forgetlib.metrics import CHANCE, forget_gap, ratio_of
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result
from forgetlib.runs.specs import Checkpoint

BEHAVIOURS = ("no loss shown", "below fine-tuned", "below pre-trained", "nothing to forget")


def table(
    results: Iterable[Result],
    condition: str = "random",
    *,
    answers: Load | None = None,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Measure the forgetting of each task by its own labels (paper, Fig. 2 and 7).

    condition: "random" or "flipped", the labels of the forgetting phase
    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study), which say
        what a constant answer reaches; None: 0.5 for every task

    One row a model, task and size of the forgetting set. Columns: model, eval_task, size (upper
    bound of the forgetting set), n (test examples, all seeds), n_train (size found, all seeds),
    n_seeds, and for each measure m its value, m_low and m_high (`bootstrap`):
    base, tuned, forgotten: test accuracy before, after fine-tuning, after forgetting
    forgetting_set: accuracy on the forgetting set after forgetting, true labels
    forget_gap, forget_ratio: as `metrics` defines them
    confidence: mean confidence on the test set after fine-tuning
    lost, below_base: the fine-tuned and the pre-trained accuracy less the forget accuracy
    auroc_lost: the fine-tuned AUROC less the one after forgetting
    known: whether there was something to forget, by accuracy or AUROC
    ratio_defined: whether the fine-tuned accuracy was shown to be above 0.5 and above what a
        constant answer reaches; where it is not, the ratio's denominator may be zero, and it is NaN
    behaviour: the paper's three kinds, each by the interval of the accuracies' difference.
        "no loss shown": the interval of what is lost includes 0 (nothing was, or these data are
        too few to show it); "below fine-tuned": below it, but not shown to be below the
        pre-trained; "below pre-trained". "nothing to forget" where the ratio is undefined
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
            "forget_gap": found.interval(lambda m: forget_gap(m[..., 0]), ("accuracy", condition)),
            "lost": found.difference("accuracy", "tuned", condition),
            "auroc_lost": found.difference("auroc", "tuned", condition),
            "below_base": found.difference("accuracy", "base", condition),
            "forget_ratio": found.interval(
                lambda m: ratio(m[..., 0], m[..., 1]),
                ("accuracy", "tuned"),
                ("accuracy", condition),
            )
            if defined
            else UNDEFINED,
            "forgetting_set": found.of("accuracy", condition, "train"),
        }
        row: dict[str, object] = {"model": model, "eval_task": task, "size": size, "n": found.n}
        row["n_train"] = sum(len(runs[condition].scores[own]) for runs in found.seeds)
        row["n_seeds"] = found.n_seeds
        for name, interval in intervals.items():
            row |= as_columns(name, interval)
        row["ratio_defined"], row["known"] = defined, found.something_to_forget
        row["behaviour"] = _behaviour(intervals) if defined else BEHAVIOURS[3]
        rows.append(row)
    return pd.DataFrame(rows)


def control_table(
    results: Iterable[Result], *, answers: Load | None = None, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Measure what random labels do beyond the same training on true labels, a row a task.

    Both start from the same fine-tuned model, with the same settings. The differences are taken
    within each seed; with one seed their intervals leave out what another training would give.

    results: of part "control"; InputError where the two differ in more than their labels
    answers: as in `table`

    One row a model and task, of the seeds that have both. Columns: model, eval_task, n (test
    examples, all seeds), n_seeds, and for each measure m its value, m_low and m_high (`bootstrap`):
    tuned, again, forgotten: test accuracy after fine-tuning, and after a second phase on true and
        on random labels
    lost, lost_again: the fine-tuned accuracy less the one after random and after true labels
    beyond_true_labels: the accuracy after true labels less the one after random labels
    auroc_beyond_true_labels: the same of AUROC
    and of the last two <m>_p, the p-value of no difference, and <m>_holm, which is adjusted for as
        many tests as there are tasks (`bootstrap.adjusted`)
    """
    rows = []
    kinds = ["random", "true"]
    for (model, task, _), found in measured(
        list(results), answers, kinds, paired=True, n_resamples=n_resamples
    ):
        for runs in found.seeds:
            _check_same_training(runs["true"].checkpoint, runs["random"].checkpoint)
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
        row |= {"n": found.n, "n_seeds": found.n_seeds}
        for name, interval in intervals.items():
            row |= as_columns(name, interval)
        row["beyond_true_labels_p"] = found.p_value("accuracy", "true", "random")
        row["auroc_beyond_true_labels_p"] = found.p_value("auroc", "true", "random")
        rows.append(row)
    table = pd.DataFrame(rows)
    for name in ("beyond_true_labels", "auroc_beyond_true_labels") if rows else ():
        table[f"{name}_holm"] = adjusted(table[f"{name}_p"])
    return table


def _check_same_training(true: Checkpoint, random: Checkpoint) -> None:
    """Raise InputError where two runs differ in more than their labels and what was recorded."""

    def trained(checkpoint: Checkpoint) -> Checkpoint:
        method = checkpoint.method
        if isinstance(method, Labels):
            method = replace(method, labels="random")
        return replace(checkpoint, method=method)

    if trained(true) != trained(random):
        raise InputError(
            f"control of {random}",
            expected="the same training, but for the labels",
            found=f"{trained(true)!r} and {trained(random)!r}",
            do="Pass the results of one study.",
        )


def _behaviour(found: dict[str, Interval]) -> str:
    if found["lost"].low <= 0:
        return BEHAVIOURS[0]
    return BEHAVIOURS[1 if found["below_base"].low <= 0 else 2]


BEHAVIOUR_MARKS = {
    BEHAVIOURS[0]: ("o", GREEN),
    BEHAVIOURS[1]: ("s", ORANGE),
    BEHAVIOURS[2]: ("D", PURPLE),
    BEHAVIOURS[3]: ("x", GREY),
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 2: accuracy before, after fine-tuning and after forgetting; the forget gap.

    table: from `fig2.table`, of one model and one size of the forgetting set
    """
    measures = with_intervals([*ACCURACY_MARKS, "forget_gap"])
    require_columns(table, [*measures, "behaviour", "eval_task", "n"])
    if table["eval_task"].duplicated().any():
        raise InputError(
            "table of Figure 2",
            expected="one row a task",
            found=f"several for {sorted(table.loc[table['eval_task'].duplicated(), 'eval_task'])}",
            do='Pass the results of one size: studies.load_results(study, "own").',
        )
    rows = readable(table).sort_values("forgotten").reset_index(drop=True)
    y = np.arange(len(rows))
    with style(rows["eval_task"]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.35 + 0.27 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
        offsets = np.linspace(0.27, -0.27, len(ACCURACY_MARKS))
        for (column, mark), offset in zip(ACCURACY_MARKS.items(), offsets, strict=True):
            label, marker, colour, filled = mark
            draw_intervals(left, rows, column, y + offset, label, marker, colour, filled)
        for name, (marker, colour) in BEHAVIOUR_MARKS.items():
            of_kind = rows["behaviour"] == name
            if of_kind.any():
                draw_intervals(
                    right, rows[of_kind], "forget_gap", y[of_kind], name, marker, colour, True
                )
        say_where_nothing(left, rows[[*ACCURACY_MARKS]], "no accuracy is known")
        say_where_nothing(right, rows["forget_gap"], "undefined")
        left.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
        right.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
        left.set_yticks(
            y, [f"{t} ({n})" for t, n in zip(rows["eval_task"], rows["n"], strict=True)]
        )
        left.set_ylim(-0.6, len(rows) - 0.4)
        left.set_xlabel("accuracy (dashed: chance)")
        right.set_xlabel("forget gap")
        left.set_ylabel("task (test examples)")
        for axes, columns in ((left, 2), (right, 1)):
            axes.legend(
                loc="lower center",
                bbox_to_anchor=(0.5, 1.0),
                ncols=columns,
                frameon=False,
                handletextpad=0.2,
                columnspacing=1.0,
            )
            axes.grid(axis="y", visible=False)
            sns.despine(ax=axes, left=True)
    return figure


def draw_control(table: pd.DataFrame) -> Figure:
    """Draw Figure 2's control: accuracy after a second phase on random and on true labels.

    table: from `fig2.control_table`, of one model
    """
    marks = ACCURACY_MARKS | {
        "again": ("after true labels again", "s", GREEN, True),
        "forgotten": ("after random labels", *ACCURACY_MARKS["forgotten"][1:]),
    }
    columns = ["tuned", "again", "forgotten"]
    require_columns(table, ["eval_task", "n", *with_intervals(columns)])
    rows = readable(table).sort_values("forgotten").reset_index(drop=True)
    y = np.arange(len(rows))
    with style(rows["eval_task"]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.2 + 0.24 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for name, offset in zip(columns, (0.25, 0.0, -0.25), strict=True):
            draw_intervals(axes, rows, name, y + offset, *marks[name])
        say_where_nothing(axes, rows[columns], "no accuracy is known")
        axes.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
        axes.set_yticks(
            y, [f"{t} ({n})" for t, n in zip(rows["eval_task"], rows["n"], strict=True)]
        )
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("accuracy on the test set (dashed: chance)")
        axes.set_ylabel("task (test examples)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False)
        axes.grid(axis="y", visible=False)
        sns.despine(ax=axes, left=True)
    return figure
