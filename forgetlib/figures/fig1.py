"""Figure 1 of the paper: the confidence in single questions before and after forgetting.

The table has a row a question: its confidence in the three phases.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from forgetlib.data.base import Example
from forgetlib.errors import InputError, require_whole
from forgetlib.figures.join import PHASES, full_size
from forgetlib.figures.names import title
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    GREY,
    TEXT_WIDTH,
    VERMILION,
    readable,
    require_columns,
    style,
)
from forgetlib.metrics import CHANCE, confidence
from forgetlib.runs.records import Result


def table(results: Iterable[Result]) -> pd.DataFrame:
    """Tabulate the confidence in the true response in the three phases, a question a row.

    Columns: model, eval_task, split ("train": in the forgetting set; "test": outside), seed, uid,
    and base, tuned, forgotten: p(true) / (p(true) + p(distractor)) in this phase.
    """
    parts = []
    for model, task, seeds in full_size(results):
        for runs in seeds:
            for split in ("train", "test"):
                scores = {phase: runs[phase].scores[f"{task}/{split}"] for phase in PHASES}
                named = {
                    "model": model,
                    "eval_task": task,
                    "split": split,
                    "seed": runs["forgotten"].seed,
                    "uid": scores["forgotten"].uids,
                }
                measured = {phase: confidence(found) for phase, found in scores.items()}
                parts.append(pd.DataFrame(named | measured))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


EXAMPLE_PHASES = {"base": "pre-trained", "tuned": "fine-tuned", "forgotten": "after\nrandom labels"}
QUESTION_MARKS = {  # whether it is the true response: (legend, marker, colour)
    True: ("true response", "o", BLUE),
    False: ("distractor", "s", VERMILION),
}


def choose(table: pd.DataFrame, questions: Sequence[Example], index: int = 0) -> Example:
    """Return the question to be drawn: the one of this index among those known after fine-tuning.

    table: from `fig1.table`, of one model and seed; only there can knowledge be forgotten
    questions: to choose from, in order; index: 0 is the first
    """
    require_columns(table, ["uid", "tuned"])
    require_whole("index of a question of Figure 1", index, 0)
    known = set(table.loc[table["tuned"] > CHANCE, "uid"])
    fitting = [question for question in questions if question.uid in known]
    if index >= len(fitting):
        raise InputError(
            "index of a question of Figure 1",
            expected=f"a number below {len(fitting)}, as so many of these questions were right "
            "after fine-tuning",
            found=index,
            do="Pass a smaller index or, where there are none, another task.",
        )
    return fitting[index]


def draw(table: pd.DataFrame, questions: Sequence[Example]) -> Figure:
    """Draw Figure 1: what forgetting does to single questions in and outside the forgetting set.

    table: from `fig1.table`, of one model and seed; grey is what it says of all
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
            do="Pass questions of the table's data sets, as studies.load_questions gives them.",
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
        (readable(title(task)), BLACK, "bold"),
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
