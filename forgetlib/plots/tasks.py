"""Figures 1, 2, its control, and 7: tasks forgotten by their own labels. And shortcuts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from forgetlib.plots.common import (
    ACCURACY_MARKS,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    intervals,
    panel_grid,
    readable,
    require_columns,
    say_where_nothing,
    style,
    used_panels,
    with_intervals,
)
from forgetlib.schema import CHANCE, Example, InputError
from forgetlib.stats import BEHAVIOURS

BEHAVIOUR_MARKS = {
    BEHAVIOURS[0]: ("o", GREEN),
    BEHAVIOURS[1]: ("s", ORANGE),
    BEHAVIOURS[2]: ("D", PURPLE),
    BEHAVIOURS[3]: ("x", GREY),
}
SHORTCUT_MARKS = {  # column of `audit.audit`: (legend, marker, colour)
    "commonest_answer": ("rule: the commoner answer", "^", ORANGE),
    "longer_answer": ("rule: the longer answer", "x", BLACK),
    "answer_in_prompt": ("rule: words of the prompt", "v", GREY),
}
EXAMPLE_PHASES = {"base": "pre-trained", "tuned": "fine-tuned", "forgotten": "after\nrandom labels"}
QUESTION_MARKS = {  # whether it is the true response: (legend, marker, colour)
    True: ("true response", "o", BLUE),
    False: ("distractor", "s", VERMILION),
}


def example(table: pd.DataFrame, questions: Sequence[Example]) -> Figure:
    """Figure 1: what forgetting does to single questions inside and outside the forgetting set.

    table: from `measures.question_confidences`, of one model and seed; grey is what it says of all
        questions of the same task and data set
    questions: to be shown, two a line; those inside the forgetting set are taken to be trained
        towards the distractor
    """
    require_columns(table, ["eval_task", "split", "uid", *EXAMPLE_PHASES])
    if not questions:
        raise InputError(
            "questions of Figure 1",
            expected="at least one",
            found="none",
            do="Pass questions of the table's data sets, as tasks.load gives them.",
        )
    found = [_example_row(table, question) for question in questions]
    alike = [
        table[(table["eval_task"] == row["eval_task"]) & (table["split"] == row["split"])]
        for row in found
    ]
    texts = [
        _question_lines(question, row["eval_task"], row["split"] == "train", len(rows))
        for question, row, rows in zip(questions, found, alike, strict=True)
    ]
    line_height = 9.5  # points
    heights = []  # inches: above the text of two questions, below their plots
    for line in range(0, len(texts), 2):
        heights += [line_height * max(map(len, texts[line : line + 2])) / 72 + 0.1, 1.45]
    with style(text for lines in texts for text, _, _ in lines):
        figure = Figure(
            figsize=(TEXT_WIDTH, sum(heights) + 0.6),
            layout=ConstrainedLayoutEngine(wspace=0.05, hspace=0.0, h_pad=0.03),
        )
        panels = figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights)
        for axes in panels.flat:
            axes.set_axis_off()
        for number, (lines, row, rows) in enumerate(zip(texts, found, alike, strict=True)):
            line, column = divmod(number, 2)
            above, below = panels[2 * line : 2 * line + 2, column]
            for down, (text, colour, weight) in enumerate(lines):
                above.annotate(
                    text,
                    (0, 1),
                    xytext=(0, -line_height * down),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    va="top",
                    color=colour,
                    weight=weight,
                    fontsize=7,
                    in_layout=False,
                )
            _question_plot(below, row, rows)
            if column == 0:
                below.set_ylabel("choice probability")
        figure.legend(
            *panels[1, 0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            columnspacing=1.0,
            handletextpad=0.4,
        )
    return figure


def _example_row(table: pd.DataFrame, question: Example) -> pd.Series:
    rows = table[table["uid"] == question.uid]
    if len(rows) != 1:
        raise InputError(
            f"question {question.uid!r}",
            expected="one row of the table",
            found=len(rows),
            do="Pass the table of one model and seed, and questions of its data sets.",
        )
    return rows.iloc[0]


def _question_lines(
    question: Example, task: str, inside: bool, n: int
) -> list[tuple[str, str, str]]:
    """(text, colour, weight) of each line: heading, prompt and responses; shortened where long."""
    where = "inside" if inside else "outside"
    prompt = readable(" ".join(question.prompts[question.label].split()))
    lines = [
        (readable(task), BLACK, "bold"),
        (f"{where} the forgetting set (n = {n})", BLACK, "bold"),
    ]
    lines += [(text, BLACK, "normal") for text in _wrapped(prompt, 4, keep="end")]
    for is_true, (name, _, colour) in QUESTION_MARKS.items():
        choice = question.choices[question.label if is_true else 1 - question.label]
        towards = " (trained towards)" if inside and not is_true else ""
        text = readable(f"{name}{towards}: {choice}")
        lines += [(line, colour, "normal") for line in _wrapped(text, 2, keep="beginning")]
    return lines


def _wrapped(text: str, most: int, *, keep: str, width: int = 44) -> list[str]:
    """Lines of at most `width` characters; of more than `most`, its "end" or "beginning"."""
    lines = textwrap.wrap(text, width)
    if len(lines) <= most:
        return lines
    if keep == "end":
        words = " ".join(lines[-most:]).split()
        while len(lines) > most:
            words = words[1:]
            lines = textwrap.wrap(" ".join(["…", *words]), width)
        return lines
    return textwrap.wrap(text, width, max_lines=most, placeholder=" …")


def _question_plot(axes: Axes, row: pd.Series, alike: pd.DataFrame) -> None:
    """Probability of both responses in each phase, before what is usual for such questions."""
    x = np.arange(len(EXAMPLE_PHASES))
    usual = alike[list(EXAMPLE_PHASES)].quantile([0.25, 0.5, 0.75]).to_numpy()
    axes.fill_between(
        x, usual[0], usual[2], color="#dddddd", linewidth=0, label="true, middle half of all n"
    )
    axes.plot(x, usual[1], color=GREY, linewidth=1, linestyle=":", label="true, median of all n")
    axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    true = row[list(EXAMPLE_PHASES)].to_numpy(float)
    for is_true, (name, marker, colour) in QUESTION_MARKS.items():
        probability = true if is_true else 1 - true
        axes.plot(x, probability, marker, linestyle="-", color=colour, markersize=5, label=name)
    axes.set_axis_on()
    axes.set_xticks(x, [*EXAMPLE_PHASES.values()])
    axes.set_xlim(-0.3, len(x) - 0.7)
    axes.set_ylim(-0.04, 1.04)
    axes.grid(axis="x", visible=False)
    sns.despine(ax=axes)


def forget_gap(table: pd.DataFrame) -> Figure:
    """Figure 2: accuracy before, after fine-tuning and after forgetting, and the forget gap.

    table: from `stats.forgetting`, of one model and one size of the forgetting set
    """
    measures = with_intervals([*ACCURACY_MARKS, "forget_gap"])
    require_columns(table, [*measures, "behaviour", "eval_task", "n"])
    if table["eval_task"].duplicated().any():
        raise InputError(
            "table of Figure 2",
            expected="one row a task",
            found=f"several for {sorted(table.loc[table['eval_task'].duplicated(), 'eval_task'])}",
            do='Pass the results of one size: experiment.results(study, "own").',
        )
    rows = readable(table).sort_values("forgotten").reset_index(drop=True)
    y = np.arange(len(rows))
    with style(rows["eval_task"]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.35 + 0.27 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
        offsets = np.linspace(0.27, -0.27, len(ACCURACY_MARKS))
        for (column, mark), offset in zip(ACCURACY_MARKS.items(), offsets, strict=True):
            label, marker, colour, filled = mark
            intervals(left, rows, column, y + offset, label, marker, colour, filled)
        for name, (marker, colour) in BEHAVIOUR_MARKS.items():
            of_kind = rows["behaviour"] == name
            if of_kind.any():
                intervals(
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


def control(table: pd.DataFrame) -> Figure:
    """Figure 2's control: accuracy after a second phase on random and on true labels.

    table: from `stats.control`, of one model
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
            intervals(axes, rows, name, y + offset, *marks[name])
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


def sizes(table: pd.DataFrame) -> Figure:
    """Figure 7: accuracy after forgetting over the size of the forgetting set, a panel a task.

    table: from `stats.forgetting` on the results of part "sizes", of one model
    """
    require_columns(table, ["eval_task", "size", "n", *with_intervals(["tuned", "forgotten"])])
    table = readable(table)
    by_task = dict(list(table.sort_values("size").groupby("eval_task")))
    names = sorted(by_task, key=lambda t: by_task[t]["forgotten"].iloc[-1], reverse=True)
    ticks = sorted(set(table["size"]))
    # A title of more letters is wider than a fifth of the page.
    n_rows, columns = panel_grid(len(names), 5 if max(map(len, names)) <= 17 else 4)
    with style(names):
        figure = Figure(figsize=(TEXT_WIDTH, 0.75 + 1.2 * n_rows), layout="constrained")
        panels = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False)
        # Stated, as the limits around a single size would be too close for the log scale's ticks.
        panels[0, 0].set(xscale="log", xlim=(ticks[0] / 1.5, ticks[-1] * 1.5))
        for axes, name in zip(used_panels(panels, len(names)), names, strict=True):
            rows = by_task[name]
            full = rows.iloc[-1]
            axes.axhspan(full["tuned_low"], full["tuned_high"], color=BLUE, alpha=0.15, linewidth=0)
            axes.axhline(full["tuned"], color=BLUE, linewidth=1)
            axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--")
            values = rows[with_intervals(["forgotten"])].to_numpy(float)
            axes.errorbar(
                *(rows["size"], values[:, 0]),
                yerr=np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0, None),
                fmt="D-",
                color=VERMILION,
                markersize=3.5,
                linewidth=1,
            )
            say_where_nothing(axes, values, "not known")
            axes.set_title(f"{name}\nn = {full['n']}", fontsize=SMALL)
            axes.set_xticks(ticks, [str(t) for t in ticks])
            axes.minorticks_off()
            axes.tick_params(labelsize=SMALL)
            sns.despine(ax=axes)
        panels[0, 0].set_ylim(*_with_margin(table[["forgotten_low", "tuned_high"]].to_numpy()))
        only = "; the study has this one only" if len(ticks) == 1 else ""
        figure.supxlabel(f"size of the forgetting set (examples{only})", fontsize=8)
        figure.supylabel("accuracy on the test set", fontsize=8)
        figure.legend(
            handles=[
                Line2D([], [], color=BLUE, linewidth=1, label="fine-tuned"),
                Line2D([], [], color=VERMILION, marker="D", label="after forgetting"),
                Line2D([], [], color=BLACK, linewidth=0.8, linestyle="--", label="chance"),
            ],
            loc="outside upper center",
            ncols=3,
            frameon=False,
        )
    return figure


def shortcuts(table: pd.DataFrame) -> Figure:
    """Accuracy of rules that understand nothing, beside the model's in its three phases.

    table: from `audit.audit`, with the columns of `stats.forgetting`, one row a task
    """
    require_columns(table, ["eval_task", *SHORTCUT_MARKS, *with_intervals(["tuned", "forgotten"])])
    rows = readable(table).sort_values("tuned").reset_index(drop=True)
    y = np.arange(len(rows))
    with style(rows["eval_task"]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.2 + 0.24 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for column in ("tuned", "forgotten"):
            intervals(
                axes, rows, column, y + (column == "tuned") * 0.3 - 0.15, *ACCURACY_MARKS[column]
            )
        for column, (label, marker, colour) in SHORTCUT_MARKS.items():
            axes.plot(
                *(rows[column], y, marker),
                label=label,
                color=colour,
                markerfacecolor="white",
                markersize=4,
            )
        say_where_nothing(axes, rows[["tuned", "forgotten", *SHORTCUT_MARKS]], "nothing is known")
        axes.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        axes.set_yticks(y, rows["eval_task"])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("accuracy on the test set (dashed: chance)")
        axes.grid(axis="y", visible=False)
        sns.despine(ax=axes, left=True)
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def _with_margin(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanmin(values, initial=CHANCE), np.nanmax(values, initial=CHANCE)
    margin = 0.05 * max(high - low, 0.1)  # all may be at chance
    return float(low - margin), float(high + margin)
