"""Draw what becomes of a model, phase by phase: accuracy and AUROC, a row a set of questions.

For a handful of models that were just trained, as in the tour and where a method of one's own is
tried: of scores alone, without a study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib import metrics
from forgetlib.data import tasks
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import Measure, of_means, resample
from forgetlib.figures.fig2b import MARKS
from forgetlib.figures.intervals import N_RESAMPLES, as_columns, with_intervals
from forgetlib.figures.measures import auroc_sample
from forgetlib.figures.names import listed, title, titles
from forgetlib.figures.numbers import number
from forgetlib.figures.rows import mark
from forgetlib.figures.style import (
    BLACK,
    GREEN,
    LIGHT,
    ORANGE,
    PURPLE,
    TEXT_WIDTH,
    draw_intervals,
    readable,
    require_columns,
    say_where_nothing,
    set_finding,
    style,
)
from forgetlib.measuring.base import Scores
from forgetlib.runs.answers import of as answers_of

SET, TUNED = "forgetting set", "fine-tuned"
MEASURES = {
    "accuracy": "accuracy\n(share of right answers)",
    "auroc": "AUROC\n(blind to a bias of the answers)",
}
# Of phases that have no mark in Figure 2b, in their order.
OTHERS = (("s", PURPLE), ("^", ORANGE), ("v", GREEN), ("P", BLACK))


def table(
    parts: Mapping[str, Sequence[Example]],
    phases: Mapping[str, Scores],
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Measure models on parts of the questions that they were asked, a row a part and phase.

    parts: by name, as "forgetting set" and "new questions"; each of one task
    phases: by name, as "fine-tuned", a model's scores of all these questions, in the phases' order

    Columns: eval_task, part, phase, n, and accuracy and auroc with their 95 % intervals over
    questions (`bootstrap`); other draws of the training would differ by more.
    """
    rows = []
    for part, examples in parts.items():
        uids = [e.uid for e in examples]
        known = answers_of(examples)
        task = examples[0].task
        fixed = tasks.get(task).has_fixed_answers
        answers = np.array([known[uid] for uid in uids]) if fixed else None
        for phase, scores in phases.items():
            of = _of_uids(scores, uids, phase)
            samples = {
                "accuracy": of_means(of.uids, metrics.correct(of)[:, None]),
                "auroc": auroc_sample(of, answers),
            }
            row: dict[str, object] = {"eval_task": task, "part": part, "phase": phase}
            row["n"] = len(of)
            for name, sample in samples.items():
                found = resample([sample], n_resamples=n_resamples).interval(Measure(0))
                row |= as_columns(name, found)
            rows.append(row)
    return pd.DataFrame(rows)


def _of_uids(scores: Scores, uids: Sequence[str], phase: str) -> Scores:
    if lacking := [uid for uid in uids if uid not in scores.uids]:
        raise InputError(
            f"scores of phase {phase!r}",
            expected="every question of every part",
            found=f"{len(lacking)} that were not asked, first {lacking[0]!r}",
            do="Score the questions of all parts: scoring.score(lm, train + test).",
        )
    return scores.take(uids)


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence what becomes of AUROC on questions outside of the forgetting set.

    table: from `dumbbell.table`, whose last phases are what was done after "fine-tuned"
    """
    said = []
    outside = table[table["part"] != SET]
    for (task, part), of in outside.groupby(["eval_task", "part"], sort=False):
        values = dict(zip(of["phase"], map(number, of["auroc"]), strict=True))
        start = TUNED if TUNED in values else next(iter(values), "")
        phases = list(values)
        after = [f"{values[p]} {p}" for p in phases[phases.index(start) + 1 :]]
        where = "" if part == "new questions" else f" ({part})"
        said.append(f"{title(str(task))}{where} from {values[start]} to {listed(after) or '-'}")
    return f"AUROC on new questions goes in {'; in '.join(said)}" if said else "Nothing was asked"


def draw(table: pd.DataFrame) -> Figure:
    """Draw a row a part, a mark a phase; lines lead to what started from the fine-tuned model.

    table: from `dumbbell.table`; of several tasks, one below the other
    """
    require_columns(table, ["eval_task", "part", "phase", "n", *with_intervals(MEASURES)])
    said = finding(table)
    named = titles(table["eval_task"])
    places = list(dict.fromkeys(zip(table["eval_task"], table["part"], strict=True)))
    names = [readable(f"{named[task]}, {part} ({_n(table, task, part)})") for task, part in places]
    phases = list(dict.fromkeys(table["phase"]))
    marks = _marks(phases)
    heights = {place: len(places) - i for i, place in enumerate(places)}
    offsets = dict(zip(phases, np.linspace(0.24, -0.24, len(phases)), strict=True))
    y = np.array(
        [
            heights[task, part] + offsets[phase]
            for task, part, phase in table[["eval_task", "part", "phase"]].itertuples(index=False)
        ]
    )
    with style([*names, said, *phases]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.35 + 0.5 * len(places)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
            _joined(axes, table, measure, y)
            for phase in phases:
                mask = (table["phase"] == phase).to_numpy()
                draw_intervals(axes, table[mask], measure, y[mask], *marks[phase])
            mark(axes, metrics.CHANCE)
            say_where_nothing(axes, table[measure], "undefined")
            axes.set_xlabel(label)
        panels[0].set_yticks(list(heights.values()), names)
        panels[0].set_ylim(0.4, len(places) + 0.6)
        handles = panels[0].get_legend_handles_labels()
        ncols = min(len(phases), 4)
        figure.legend(*handles, loc="outside lower center", ncols=ncols, frameon=False)
        set_finding(figure, said)
    return figure


def _n(table: pd.DataFrame, task: str, part: str) -> int:
    return int(table.loc[(table["eval_task"] == task) & (table["part"] == part), "n"].iloc[0])


def _marks(phases: Sequence[str]) -> dict[str, tuple[str, str, str, bool]]:
    """Give each phase its mark: those of Figure 2b, and others in their order."""
    known = {label: (marker, colour, filled) for label, marker, colour, filled in MARKS.values()}
    others = [phase for phase in phases if phase not in known]
    for i, phase in enumerate(others):
        known[phase] = (*OTHERS[i % len(OTHERS)], True)
    return {phase: (readable(phase), *known[phase]) for phase in phases}


def _joined(axes: Axes, table: pd.DataFrame, measure: str, y: np.ndarray) -> None:
    """Join the phases of each part by lines: whatever comes after fine-tuning starts there."""
    for _, of in table.assign(y=y).groupby(["eval_task", "part"], sort=False):
        start = list(of["phase"]).index(TUNED) if TUNED in set(of["phase"]) else 0
        rows = [list(range(start + 1)), *([start, after] for after in range(start + 1, len(of)))]
        for joined in rows:
            ends = of.iloc[joined]
            axes.plot(ends[measure], ends["y"], color=LIGHT, linewidth=2.5, zorder=1, label="_")
