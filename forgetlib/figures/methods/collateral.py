"""Compare methods at equal harm elsewhere: what is left of a skill within one nat of collateral.

Methods that are trained to one dose have done as much to their forgetting set, and each as much
harm to other tasks as it did on the way. Here the harm is bounded as well: a model is asked every
few steps of its training about new questions, and about unrelated tasks, and what counts is the
last check before the true responses of these had lost more than the budget on average. A training
that reaches its dose before is judged there. What is changed at once, as by an edit, a hook or a
task vector, has no way there: it counts as it is. What is beyond the budget at its first check, or
at once, cannot be compared: a weaker one might be within.

The check is chosen by the same questions that say how much harm there is at it, so that this has no
interval of its own. The budget is what is called damage everywhere (`verdicts.DAMAGE`): one nat a
token, above which a forgotten skill may be a broken model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlib import metrics
from forgetlib.figures import intervals, verdicts
from forgetlib.figures.bootstrap import Measure, Sample, difference, of_means, resample
from forgetlib.figures.intervals import N_RESAMPLES, as_columns, of_row, with_intervals
from forgetlib.figures.join import by_checkpoint
from forgetlib.figures.measures import auroc_sample
from forgetlib.figures.methods.ladders import method_names
from forgetlib.figures.methods.price import names_of
from forgetlib.figures.names import method_title, title
from forgetlib.figures.numbers import between
from forgetlib.figures.rows import mark, skill_of
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREY,
    ORANGE,
    SMALL,
    TEXT_WIDTH,
    draw_intervals,
    heading,
    name_grid,
    readable,
    set_finding,
    style,
)
from forgetlib.figures.verdicts import FORGOTTEN, INVERTED, KEPT, most_left, most_turned
from forgetlib.forgetting.base import Method
from forgetlib.measuring.base import Scores
from forgetlib.metrics import CHANCE
from forgetlib.runs.answers import Load, fixed, texts_of
from forgetlib.runs.ladder import LadderStudy
from forgetlib.runs.records import Result

BUDGET = verdicts.DAMAGE
PER_ROW = 3  # panels
OVER_BUDGET = "beyond"  # nothing is known of a method within the budget
COLUMNS = ["eval_task", "method", "n_seeds", "trained", "n_stopped", "n_beyond", "rise", "worst"]
MEASURES = ["auroc_known", "auroc", "auroc_end", "nll_end"]
COMPARED = ["auroc_lost", "auroc_left", "auroc_turned"]  # before and within the budget
# Columns of a check.
CHECK = ["seed", "trained", "step", "check_auroc", "check_rise", "check_worst", "last"]


@dataclass(frozen=True)
class Trajectory:
    """Hold what a model said on its way from known to forgotten, check by check.

    seed, trained: whose it is, and whether it was checked in training; else the checks are before
        and after
    steps: (S,) optimiser steps done, the first 0; of a change at once 0 and 0
    new: (S,) scores of the skill's new questions
    away: by unrelated task, (S,) scores of its questions
    answers: (N, 2) true response and distractor of each new question, where answers are fixed
    """

    seed: int
    trained: bool
    steps: Sequence[int]
    new: Sequence[Scores]
    away: Mapping[str, Sequence[Scores]]
    answers: np.ndarray | None

    @property
    def uids(self) -> tuple[str, ...]:
        """List the questions, in the order of the counts that `measure` takes."""
        return tuple(uid for of in (self.new, *self.away.values()) for uid in of[0].uids)

    def measure(self, counts: np.ndarray) -> np.ndarray:
        """Measure every check on a resample of the questions, (R, N) counts: (R, S, 3).

        AUROC on new questions, and the rise of nats a token of true responses of unrelated tasks
        since the first check: the mean over tasks, and the largest of a task.
        """
        n = len(self.new[0])
        own = counts[:, :n]
        aurocs = [auroc_sample(s, self.answers).measure(own)[:, 0] for s in self.new]
        nats = []
        for of_task in self.away.values():
            part, n = counts[:, n : n + len(of_task[0])], n + len(of_task[0])
            of = np.stack([metrics.nll_a_token(s) for s in of_task])  # (S, n)
            nats.append(of_means(of_task[0].uids, (of - of[0]).T).measure(part))  # (R, S)
        rises = np.mean(nats, axis=0), np.max(nats, axis=0)
        return np.stack([np.stack(aurocs, axis=1), *rises], axis=-1)

    def sample(self) -> Sample:
        """Make the sample of what `within` tells of the checks: (R, 4)."""
        rises = self.measure(np.ones((1, len(self.uids))))[0, :, 1]
        ends = min(0.0, rises.min()), max(0.0, rises.max())
        limits = [[0.0, 0.0, 0.0, ends[0]], [1.0, 1.0, 1.0, ends[1]]]
        return Sample(self.uids, lambda counts: within(self.measure(counts)), np.array(limits))


def within(checks: np.ndarray) -> np.ndarray:
    """Find the last check before the first whose mean rise is beyond the budget: (R, 4).

    checks: (R, S, 2 or more) AUROC and mean rise of each
    Returns AUROC at the first check, at the last within the budget, and at the end; and the rise at
    the end.
    """
    last = _last(checks[..., 1])
    there = checks[np.arange(len(checks)), last, :1]  # (R, 1)
    return np.concatenate([checks[:, 0, :1], there, checks[:, -1, :2]], axis=1)


def _last(rises: np.ndarray) -> np.ndarray:
    """Find of (R, S) rises the place of the last before the first beyond the budget: (R,)."""
    beyond = np.concatenate([rises > BUDGET, np.ones((len(rises), 1), bool)], axis=1)
    return np.maximum(beyond.argmax(axis=1) - 1, 0)


Trajectories = Mapping[tuple[str, str], Sequence[Trajectory]]  # by skill and method's name


def trajectories(
    study: LadderStudy, results: Iterable[Result], answers: Load | None
) -> Trajectories:
    """Find each method's trajectories of each skill, one a seed.

    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study); asked for
        of tasks with fixed answers. None: no task has fixed answers
    Only the seeds in which all trainings were checked that the study has in every seed, so that
    methods are compared in the same.
    """
    known, names = by_checkpoint(results), method_names(study)
    found: dict[tuple[str, str], list[Trajectory]] = {}
    every = [method for method in study.every_method if study.has_trajectory(method)]
    for task, seed in sorted(study.with_seeds(study.seeds), key=lambda t: study.tasks.index(t[0])):
        before = known.get((study.taught(task, seed).id, seed))
        of_seed: dict[Method, Trajectory] = {}
        for method in study.of(task, seed) if before is not None else ():
            after = known.get((study.after(method, task, seed).id, seed))
            if before is not None and after is not None:
                trained = study.has_trajectory(method)
                wheres = [f"{t}/test" for t in (task, *study.away(task))]
                of = _trajectory(before, after, wheres, answers, trained=trained)
                of_seed |= {} if of is None else {method: of}
        if every and all(method in of_seed for method in every):
            for method, of in of_seed.items():
                found.setdefault((task, names[method]), []).append(of)
    return found


def _trajectory(
    before: Result, after: Result, wheres: Sequence[str], answers: Load | None, *, trained: bool
) -> Trajectory | None:
    """Put together what was asked at these places, first the skill's; None where one lacks."""
    steps: list[int] = [0, 0]
    checks: dict[str, Sequence[Scores]]
    if trained:
        there = {w: after.in_training[w] for w in wheres if w in after.in_training}
        steps = next((of.steps.tolist() for of in there.values()), [])
        checks = {w: of.scores for w, of in there.items() if of.steps.tolist() == steps}
    else:
        both = [w for w in wheres if w in before.scores and w in after.scores]
        checks = {where: (before.scores[where], after.scores[where]) for where in both}
    if len(wheres) < 2 or any(where not in checks for where in wheres):
        return None
    new, task = checks.pop(wheres[0]), wheres[0].rpartition("/")[0]
    of_questions = texts_of(fixed(answers, task, after.seed), new[0].uids)
    return Trajectory(after.seed, trained, steps, new, checks, of_questions)


def curves(found: Trajectories) -> pd.DataFrame:
    """List every check: a row a skill, method, seed and step.

    found: from `trajectories`
    Columns: eval_task, method, seed, trained (whether it was checked in training; else the two
    rows are before and after), step (optimiser steps done), check_auroc (on new questions),
    check_rise (nats a token of true responses of unrelated tasks, since step 0, the mean over
    tasks), check_worst (the largest of a task), last (whether it is the last check within the
    budget)
    """
    rows = []
    for (task, name), of_seeds in found.items():
        for of in of_seeds:
            checks = of.measure(np.ones((1, len(of.uids))))[0]
            last = int(_last(checks[None, :, 1])[0])
            rows += [
                [task, name, of.seed, of.trained, int(step), *check, i == last]
                for i, (step, check) in enumerate(zip(of.steps, checks.tolist(), strict=True))
            ]
    return pd.DataFrame(rows, columns=["eval_task", "method", *CHECK])


def table(found: Trajectories, *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Tell what each method leaves of a skill within the budget: a row a skill and method.

    found: from `trajectories`
    Columns: eval_task, method, n_seeds, trained, n_stopped (seeds that the budget stopped before
    their end), n_beyond (those of them that were beyond it at the first check, so that nothing is
    known of within), rise and worst (nats a token that other tasks had lost at the last check
    within, the mean over tasks and the largest of a task), and with their 95 % intervals (_low,
    _high), the wider of those over questions and over seeds:
    auroc_known: AUROC on new questions before
    auroc: at the last check within the budget; auroc_lost: the difference
    auroc_left, auroc_turned: `verdicts.most_left` and `verdicts.most_turned` of both
    auroc_end, nll_end: where the method ends, and the rise of other tasks' nats a token there
    """
    checks = curves(found)
    rows = []
    for (task, name), of_seeds in found.items():
        own = checks[(checks["eval_task"] == task) & (checks["method"] == name)]
        seeds = [of_seed for _, of_seed in own.groupby("seed")]
        stopped = [bool(of_seed["check_rise"].max() > BUDGET) for of_seed in seeds]
        at_first = [bool(of_seed["last"].iloc[0]) for of_seed in seeds]
        mean = own.loc[own["last"], ["check_rise", "check_worst"]].mean()
        about = task, name, len(of_seeds), of_seeds[0].trained, sum(stopped)
        row = dict(zip(COLUMNS, (*about, sum(map(min, stopped, at_first)), *mean), strict=True))
        of = resample([trajectory.sample() for trajectory in of_seeds], n_resamples=n_resamples)
        for i, measure in enumerate(MEASURES):
            row |= as_columns(measure, of.interval(Measure(i)))
        row |= as_columns("auroc_lost", of.interval(difference(0, 1)))
        row |= as_columns("auroc_left", of.interval(lambda m: most_left(m[..., 0], m[..., 1])))
        row |= as_columns("auroc_turned", of.interval(lambda m: most_turned(m[..., 0], m[..., 1])))
        rows.append(row)
    return pd.DataFrame(rows, columns=[*COLUMNS, *with_intervals([*MEASURES, *COMPARED])])


def groups(table: pd.DataFrame) -> dict[str, list[str]]:
    """Sort methods by what AUROC tells of one skill within the budget (`verdicts.of_auroc`).

    `OVER_BUDGET`: in every seed the first check is beyond it; where it is in some, none is "kept".
    """
    skill_of(table)
    found: dict[str, list[str]] = {
        of: [] for of in (FORGOTTEN, INVERTED, KEPT, OVER_BUDGET, verdicts.NOT_DECIDED)
    }
    for of in table.to_dict("records"):
        group = verdicts.of_auroc(of_row(of, "auroc_left"), of_row(of, "auroc_turned"))
        if of["n_beyond"] == of["n_seeds"]:
            group = OVER_BUDGET
        elif of["n_beyond"] and group == KEPT:
            group = verdicts.NOT_DECIDED
        found[group].append(str(of["method"]))
    return found


def finding(table: pd.DataFrame) -> str:
    """Say what each method leaves of one skill within the budget.

    table: from `collateral.table`, of one skill
    """
    skill, most = title(skill_of(table)), table.loc[table["n_seeds"].idxmax()]
    if not most["auroc_known_low"] > CHANCE:
        return f"{skill} was not shown to be known before"
    of, rows, n = groups(table), table.set_index("method"), int(most["n_seeds"])
    said = []
    for group, words in (
        (FORGOTTEN, "forgotten on new questions by"),
        (INVERTED, "turned round by"),
        (KEPT, "mostly kept by"),
    ):
        if of[group]:
            lost = between(rows.loc[of[group], "auroc_lost"])
            said.append(f"{words} {names_of(of[group], rows)} (AUROC lost: {lost})")
    if not of[FORGOTTEN]:
        said.insert(0, "not shown to be forgotten on new questions by any method")
    are = "is" if len(of[verdicts.NOT_DECIDED]) == 1 else "are"
    counts = {
        OVER_BUDGET: "did more harm by the first check",
        verdicts.NOT_DECIDED: f"{are} not decided",
    }
    others = "; ".join(f"{len(of[group])} {words}" for group, words in counts.items() if of[group])
    return (
        f"Where methods stop at their dose, or before other tasks lose {BUDGET:g} nat a token on "
        f"average ({n} seed{'s' if n > 1 else ''}), {skill} is {'; '.join(said)}"
        + (f"; of {len(table)} methods, {others}" if others else "")
    )


def draw(curves: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draw what is left within the budget, a row a method; below, trajectories, a line a seed.

    curves, table: from this file, of one skill. Open: where the method ends; alone where all seeds
    are beyond the budget at once. Dots on trajectories: the last checks within it (dotted).
    """
    do = "Pass the tables of figures.methods.collateral, of one skill."
    wanted = [*COLUMNS, *with_intervals([*MEASURES, *COMPARED])]
    intervals.require_columns("what is left at equal harm", table, wanted, do)
    intervals.require_columns("trajectories of methods", curves, ["method", *CHECK], do)
    said = finding(table)
    of = table.sort_values("auroc", ascending=False, kind="stable")
    trained = [str(m) for m in table.loc[table["trained"], "method"]]
    names = [
        readable(method_title(str(m)) + (", 1 seed" if n == 1 < table["n_seeds"].max() else ""))
        for m, n in zip(of["method"], of["n_seeds"], strict=True)
    ]
    n_rows = -(-len(trained) // PER_ROW)
    heights = [1.1 + 0.2 * len(of), 1.25 * n_rows + 0.2]
    with style([*names, said]):
        figure = Figure(figsize=(TEXT_WIDTH, sum(heights) + 0.9), layout="constrained")
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)
        above, below = parts[:, 0]
        _draw_left(above.subplots(1, 2, sharey=True), of, names)
        panels = below.subplots(n_rows, PER_ROW, sharex=True, sharey=True, squeeze=False)
        _draw_trajectories(panels, curves, trained)
        set_finding(figure, said)
    return figure


def _draw_left(panels: np.ndarray, of: pd.DataFrame, names: Sequence[str]) -> None:
    """Draw a row a method: AUROC on new questions and harm elsewhere, within and at the end."""
    rows = np.arange(len(of), dtype=float)
    at = (of["n_beyond"] < of["n_seeds"]).to_numpy()  # of the rest nothing is known within
    draw_intervals(panels[0], of[at], "auroc", rows[at], "within the budget", "o", BLUE, True)
    panels[1].plot(of.loc[at, "rise"], rows[at], "o", color=BLUE, markersize=3.5)
    for axes, end, label, middle in (
        (panels[0], "auroc_end", "AUROC on new questions", CHANCE),
        (panels[1], "nll_end", "rise of nats a token\nof other tasks", 0.0),
    ):
        axes.plot(
            *(of[end], rows, "o"),
            color=ORANGE,
            markerfacecolor="white",
            markersize=3.5,
            linestyle="none",
            label="where the method ends",
            zorder=1.5,
        )
        mark(axes, middle)
        axes.set_xlabel(label)
    before = of.loc[of["n_seeds"].idxmax(), "auroc_known"]
    panels[0].axvline(before, color=DARK_GREY, lw=0.9, linestyle=":", zorder=1)
    panels[1].axvline(BUDGET, color=DARK_GREY, lw=0.9, linestyle=":", zorder=1)
    panels[0].set_xlim(-0.02, 1.02)
    panels[0].set_yticks(rows, names)
    panels[0].set_ylim(-0.6, len(of) - 0.4)
    handles = panels[0].get_legend_handles_labels()[0]
    kinds: dict[Any, str] = {"--": "chance; no harm", ":": "before; the budget"}
    for kind, words in kinds.items():
        handles.append(Line2D([], [], color=DARK_GREY, lw=0.9, linestyle=kind, label=words))
    panels[0].figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)


def _draw_trajectories(panels: np.ndarray, curves: pd.DataFrame, methods: Sequence[str]) -> None:
    """Draw a panel a method, a line a seed: AUROC on new questions by the harm elsewhere."""
    for axes, method in zip(panels.ravel(), methods, strict=False):
        for _, way in curves[curves["method"] == method].groupby("seed"):
            axes.plot(way["check_rise"], way["check_auroc"], color=GREY, linewidth=0.8, zorder=1)
            there = way[way["last"]]
            axes.plot(
                there["check_rise"], there["check_auroc"], "o", color=BLUE, markersize=3, zorder=3
            )
            end = way.iloc[[-1]]
            axes.plot(
                *(end["check_rise"], end["check_auroc"], "o"),
                color=ORANGE,
                markerfacecolor="white",
                markersize=3,
                zorder=2,
            )
        axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
        axes.axvline(BUDGET, color=DARK_GREY, linewidth=0.9, linestyle=":", zorder=0)
        axes.set_title(heading(method_title(method)), fontsize=7, loc="left")
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.5, 1])
        axes.tick_params(labelsize=SMALL)
        axes.grid(visible=False)
        sns.despine(ax=axes)
    name_grid(panels, len(methods), "rise of nats")
