"""Figure 1 of the paper: single questions before and after forgetting.

The table has a row a question: its margin in the three phases, log p(true response) -
log p(distractor). The answer is right where it is above 0. A probability of the response would
hide how far above: of long responses most are 0 or 1.
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
from matplotlib.lines import Line2D

from forgetlib.data.base import Example
from forgetlib.errors import InputError, require_whole
from forgetlib.figures.join import PHASES, full_size
from forgetlib.figures.measures import trained_towards
from forgetlib.figures.names import listed, title
from forgetlib.figures.numbers import number
from forgetlib.figures.style import (
    BLACK,
    DARK_GREY,
    GREEN,
    TEXT_WIDTH,
    VERMILION,
    readable,
    require_columns,
    set_finding,
    style,
)
from forgetlib.measuring.base import Scores
from forgetlib.metrics import margins
from forgetlib.runs.records import Result

LINE = 44  # characters of a line of the example


def table(results: Iterable[Result]) -> pd.DataFrame:
    """Tabulate the margin of every question in the three phases, a question a row.

    Columns: model, eval_task, split ("train": in the forgetting set; "test": outside), label (what
    the question was trained on: "true" or "distractor"; "" outside), seed, uid, and base, tuned,
    forgotten: the margin in this phase, in nats.
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
                    "label": _labels(runs["forgotten"], scores["forgotten"], split),
                    "seed": runs["forgotten"].seed,
                    "uid": scores["forgotten"].uids,
                }
                measured = {phase: margins(found) for phase, found in scores.items()}
                parts.append(pd.DataFrame(named | measured))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _labels(run: Result, found: Scores, split: str) -> list[str]:
    if split == "test":
        return [""] * len(found)
    towards = trained_towards(run.checkpoint, found)
    return ["true" if true else "distractor" for true in towards == found.labels]


EXAMPLE_PHASES = {"base": "pre-trained", "tuned": "fine-tuned", "forgotten": "after forgetting"}
LABEL_MARKS = {  # what a question was trained on: (legend, colour)
    "true": ("trained on the true response", GREEN),
    "distractor": ("trained on the distractor", VERMILION),
    "": ("not trained on", DARK_GREY),
}
MARGIN = "margin: log p(true response) − log p(distractor); logarithmic beyond 1 nat"
N_LINES = 25  # questions of a panel: more hide each other


def tasks_to_show(own: pd.DataFrame) -> list[str]:
    """Pick the tasks that lose least and most accuracy, of those with something to forget.

    own: from `fig2.table`; all its tasks are taken where fewer than two had something to forget
    """
    require_columns(own, ["eval_task", "lost", "ratio_defined"])
    known = own[own["ratio_defined"].astype(bool)]
    of = (known if len(known) > 1 else own).sort_values("lost")["eval_task"]
    return list(dict.fromkeys([of.iloc[0], of.iloc[-1]]))


def choose(table: pd.DataFrame, questions: Sequence[Example], index: int = 0) -> Example:
    """Return the question to be drawn: the one of this index among those known after fine-tuning.

    table: from `fig1.table`, of one model and seed; only there can knowledge be forgotten
    questions: to choose from, in order; index: 0 is the first
    """
    require_columns(table, ["uid", "tuned"])
    require_whole("index of a question of Figure 1", index, 0)
    known = set(table.loc[table["tuned"] > 0, "uid"])
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


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence what becomes of the right answers outside the forgetting set, a task each.

    table: from `fig1.table`, of one model and seed
    """
    said = []
    for task, of in table[table["split"] == "test"].groupby("eval_task", sort=False):
        known = of[of["tuned"] > 0]
        if known.empty:
            said.append(f"{title(str(task))} had none")
            continue
        before, after = (number(m, 1) for m in known[[*PHASES[1:]]].median())
        kept = f"{100 * (known['forgotten'] > 0).mean():.0f} %"
        said.append(f"{title(str(task))} keeps {kept} (median margin {before} to {after} nats)")
    return f"Of the right answers to new questions, {listed(said)}"


def draw(table: pd.DataFrame, questions: Sequence[Example]) -> Figure:
    """Draw Figure 1: what forgetting does to single questions in and outside the forgetting set.

    A line a question: the first of its data set, whatever their answers, so that one sees how they
    differ; thick: the one whose text is above. The scale is logarithmic beyond 1 nat, and 0, where
    right and wrong part, is in the middle. Below stands the share of right answers of all.

    table: from `fig1.table`, of one model and seed
    questions: to be shown as text, two a line: one inside the forgetting set, one outside
    """
    require_columns(table, ["eval_task", "split", "label", "uid", *EXAMPLE_PHASES])
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
        _question_lines(question, row, len(rows))
        for question, row, rows in zip(questions, found, alike, strict=True)
    ]
    shown = [row["eval_task"] for row in found]
    said = finding(table[table["eval_task"].isin(shown)])
    line_height = 9.5  # points
    heights = []  # inches: above the text of two questions, below their plots
    for line in range(0, len(texts), 2):
        heights += [line_height * max(map(len, texts[line : line + 2])) / 72 + 0.1, 1.6]
    with style([said], (text for lines in texts for text, _, _ in lines)):
        figure = Figure(
            figsize=(TEXT_WIDTH, sum(heights) + 1.25),
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
            if column and row["eval_task"] == found[number - 1]["eval_task"]:
                below.sharey(panels[2 * line + 1, 0])
            _question_plot(below, row, rows)
            if column == 0:
                below.set_ylabel("← wrong   margin (nats)   right →", fontsize=7)
        for below in panels[1::2].flat:
            reach = np.abs(below.get_ylim()).max()
            reach = max(10, reach, 10 ** np.round(np.log10(reach)))  # an end with a number near it
            below.set_ylim(-reach, reach)
        handles = [Line2D([], [], color=c, lw=1, label=name) for name, c in LABEL_MARKS.values()]
        handles.append(Line2D([], [], color=BLACK, lw=2, marker="o", ms=4, label="the one above"))
        figure.legend(
            handles=handles,
            title=MARGIN,
            title_fontsize=7,
            loc="outside lower center",
            ncols=2,
            frameon=False,
        )
        set_finding(figure, said)
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


def _question_lines(question: Example, row: pd.Series, n: int) -> list[tuple[str, str, str]]:
    """(text, colour, weight) of each line: heading, prompt and responses; shortened where long."""
    where = "inside" if row["split"] == "train" else "outside"
    prompt = readable(" ".join(question.prompts[question.label].split()))
    lines = [
        (readable(title(row["eval_task"])), BLACK, "bold"),
        (f"{where} the forgetting set ({min(n, N_LINES)} of {n})", BLACK, "bold"),
    ]
    lines += [(text, BLACK, "normal") for text in _wrapped(prompt, 4, keep="end")]
    names = {"true": ("true response", question.label), "distractor": ("distractor", None)}
    for label, (name, place) in names.items():
        choice = question.choices[1 - question.label if place is None else place]
        towards = " (trained on)" if row["label"] == label else ""
        text = readable(f"{name}{towards}: {choice}")
        lines += [
            (line, LABEL_MARKS[label][1], "normal") for line in _wrapped(text, 2, keep="beginning")
        ]
    return lines


def _wrapped(text: str, most: int, *, keep: str) -> list[str]:
    """Lines of at most `LINE` characters; of more than `most`, its "end" or "beginning"."""
    lines = textwrap.wrap(text, LINE)
    if len(lines) <= most:
        return lines
    if keep == "end":
        words = " ".join(lines[-most:]).split()
        while len(lines) > most:
            words = words[1:]
            lines = textwrap.wrap(" ".join(["…", *words]), LINE)
        return lines
    return textwrap.wrap(text, LINE, max_lines=most, placeholder=" …")


def _question_plot(axes: Axes, row: pd.Series, alike: pd.DataFrame) -> None:
    """Draw the margins of some questions, and of one above them; below, how many are right."""
    x = np.arange(len(EXAMPLE_PHASES))
    some = alike[alike["uid"] != row["uid"]].iloc[: N_LINES - 1]
    values = some[list(EXAMPLE_PHASES)].to_numpy(float)
    for label, of in zip(some["label"], values, strict=True):
        axes.plot(x, of, color=LABEL_MARKS[label][1], linewidth=0.6, alpha=0.6)
    one = row[list(EXAMPLE_PHASES)].to_numpy(float)
    axes.plot(x, one, "o-", color=LABEL_MARKS[row["label"]][1], linewidth=2, markersize=5)
    axes.axhline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(lambda nats, _: f"{nats:g}".replace("-", "−"))
    right = (alike[list(EXAMPLE_PHASES)] > 0).mean()
    axes.set_axis_on()
    ticks = [f"{name}\n{100 * right[p]:.0f} % right" for p, name in EXAMPLE_PHASES.items()]
    axes.set_xticks(x, ticks)
    axes.set_xlim(-0.3, len(x) - 0.7)
    axes.grid(axis="x", visible=False)
    sns.despine(ax=axes)
