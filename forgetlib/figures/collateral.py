"""Compare methods at equal harm elsewhere: what is left of a skill within one nat of collateral.

Methods that are trained to one dose have done as much to their forgetting set, and each as much
harm to other tasks as it did on the way. Here the harm is held equal instead. A model is asked
every few steps of its training about new questions, and about unrelated tasks; what counts is the
last look before the true responses of these lost more than the budget. What is changed at once, as
by an edit, a hook or a task vector, has no way there: it counts as it is, or, where it goes beyond
the budget, as not done.

The budget is what is called damage everywhere (`verdicts.DAMAGE`): one nat a token, above which a
forgotten skill may be a broken model.
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
from forgetlib.data import tasks
from forgetlib.figures import intervals
from forgetlib.figures.bootstrap import Sample, column, resample
from forgetlib.figures.intervals import N_RESAMPLES, as_columns, with_intervals
from forgetlib.figures.join import by_checkpoint
from forgetlib.figures.ladders import method_names
from forgetlib.figures.measures import auroc_sample
from forgetlib.figures.names import listed, method_title, method_titles, title
from forgetlib.figures.numbers import between, number
from forgetlib.figures.rows import mark, set_finding, skill_of
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREY,
    ORANGE,
    SMALL,
    TEXT_WIDTH,
    draw_intervals,
    readable,
    style,
)
from forgetlib.figures.verdicts import DAMAGE, SHARE
from forgetlib.measuring.base import Scores
from forgetlib.metrics import CHANCE
from forgetlib.runs.answers import Load
from forgetlib.runs.ladder import LadderStudy
from forgetlib.runs.records import Result

BUDGET = DAMAGE
PER_ROW = 4  # panels
# What methods do within the budget (`groups`).
FORGETS, KEEPS, INVERTS, OPEN = "forgets", "keeps", "inverts", "open"
COLUMNS = ["eval_task", "method", "n_seeds", "looked", "n_stopped"]
MEASURES = ["auroc_known", "auroc", "nll_rise", "auroc_end", "nll_end", "auroc_lost"]
LOOK = ["seed", "looked", "step", "look_auroc", "look_rise", "last"]  # columns of a look


@dataclass(frozen=True)
class Way:
    """Hold what a model said on its way from known to forgotten, look by look.

    seed, looked: whose it is, and whether it was looked at in training; else the looks are before
        and after
    steps: (S,) optimiser steps done, the first 0; of a change at once 0 and 0
    new: (S,) scores of the skill's new questions
    away: by unrelated task, (S,) scores of its questions
    answers: (N, 2) true response and distractor of each new question, where answers are fixed
    """

    seed: int
    looked: bool
    steps: Sequence[int]
    new: Sequence[Scores]
    away: Mapping[str, Sequence[Scores]]
    answers: np.ndarray | None

    def measure(self, counts: np.ndarray) -> np.ndarray:
        """Measure every look on a resample of the questions, (R, N) counts: (R, S, 2).

        AUROC on new questions, and the rise of nats a token of true responses of unrelated tasks
        since the first look, the mean over tasks.
        """
        n = len(self.new[0])
        own = counts[:, :n]
        aurocs = [auroc_sample(s, self.answers).measure(own)[:, 0] for s in self.new]
        nats = []
        for of_task in self.away.values():
            part, n = counts[:, n : n + len(of_task[0])], n + len(of_task[0])
            of = np.stack([metrics.nll_a_token(s) for s in of_task])  # (S, n)
            total = part.sum(-1, keepdims=True)
            summed = part @ (of - of[0]).T  # (R, S)
            nats.append(
                np.divide(summed, total, out=np.full(summed.shape, np.nan), where=total > 0)
            )
        return np.stack([np.stack(aurocs, axis=1), np.mean(nats, axis=0)], axis=-1)

    def sample(self) -> Sample:
        """Make the sample of what `within` tells of the looks: (R, 6)."""
        uids = [*self.new[0].uids]
        uids += [uid for of_task in self.away.values() for uid in of_task[0].uids]
        whole = self.measure(np.ones((1, len(uids))))[0, :, 1]
        least, most = min(0.0, whole.min()), max(0.0, whole.max())
        limits = [[0.0, 0.0, least, 0.0, least, 0.0], [1.0, 1.0, BUDGET, 1.0, most, 1.0]]
        return Sample(tuple(uids), lambda counts: within(self.measure(counts)), np.array(limits))


def within(looks: np.ndarray) -> np.ndarray:
    """Find the last look before the first whose rise is beyond the budget: (R, 6).

    looks: (R, S, 2) AUROC and rise of each
    Returns AUROC at the first look, AUROC and rise at the last within the budget, AUROC and rise at
    the end, and 1 where some look is beyond the budget, 0 where none is.
    """
    last = _last(looks[..., 1])
    there = looks[np.arange(len(looks)), last]  # (R, 2)
    stopped = (looks[..., 1] > BUDGET).any(axis=1, keepdims=True)
    return np.concatenate([looks[:, 0, :1], there, looks[:, -1], stopped], axis=1)


def _last(rises: np.ndarray) -> np.ndarray:
    """Find of (R, S) rises the place of the last before the first beyond the budget: (R,)."""
    beyond = np.concatenate([rises > BUDGET, np.ones((len(rises), 1), bool)], axis=1)
    return np.maximum(beyond.argmax(axis=1) - 1, 0)


Ways = Mapping[tuple[str, str], Sequence[Way]]  # by skill and method's name, a way a seed


def ways(study: LadderStudy, results: Iterable[Result], answers: Load | None) -> Ways:
    """Find each method's way of each skill and seed.

    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study); asked for
        of tasks with fixed answers. None: no task has fixed answers
    Only the seeds in which some training was looked at, so that all are compared in the same.
    """
    known, names = by_checkpoint(results), method_names(study)
    found: dict[tuple[str, str], list[Way]] = {}
    for task, seed in study.with_seeds(study.seeds):
        before = known.get((study.taught(task, seed).id, seed))
        for method in study.of(task, seed):
            after = known.get((study.after(method, task, seed).id, seed))
            if before is None or after is None:
                continue
            wheres = [f"{t}/test" for t in (task, *study.away(task))]
            looked = study.is_looked_at(method)
            steps, looks = _looks(before, after, wheres, looked=looked)
            if len(looks) < len(wheres) or len(wheres) < 2:
                continue
            new = looks.pop(wheres[0])
            of_questions = None
            if answers is not None and tasks.get(task).answer_format == "verbaliser":
                by_uid = answers(task, seed)
                of_questions = np.array([by_uid[uid] for uid in new[0].uids])
            way = Way(seed, looked, steps, new, looks, of_questions)
            found.setdefault((task, names[method]), []).append(way)
    looked_at = {(task, w.seed) for (task, _), of in found.items() for w in of if w.looked}
    same = {k: [w for w in of if (k[0], w.seed) in looked_at] for k, of in found.items()}
    order = sorted((k for k, of in same.items() if of), key=lambda k: study.tasks.index(k[0]))
    return {key: same[key] for key in order}


def _looks(
    before: Result, after: Result, wheres: Sequence[str], *, looked: bool
) -> tuple[Sequence[int], dict[str, Sequence[Scores]]]:
    """List the steps of the looks, and by where those that were asked there their scores."""
    if looked:
        there = {w: after.in_training[w] for w in wheres if w in after.in_training}
        steps: list[int] = next((of.steps.tolist() for of in there.values()), [])
        return steps, {where: of.scores for where, of in there.items()}
    both = [w for w in wheres if w in before.scores and w in after.scores]
    return [0, 0], {where: (before.scores[where], after.scores[where]) for where in both}


def curves(found: Ways) -> pd.DataFrame:
    """List every look: a row a skill, method, seed and step.

    found: from `ways`
    Columns: eval_task, method, seed, looked (whether it was looked at in training; else the two
    rows are before and after), step (optimiser steps done), look_auroc (on new questions),
    look_rise (nats a token of true responses of unrelated tasks, since step 0), last (whether it is
    the last look within the budget)
    """
    rows = []
    for (task, name), of_seeds in found.items():
        for way in of_seeds:
            uids = len(way.new[0]) + sum(len(of[0]) for of in way.away.values())
            looks = way.measure(np.ones((1, uids)))[0]
            last = int(_last(looks[None, :, 1])[0])
            about = {"eval_task": task, "method": name, "seed": way.seed, "looked": way.looked}
            rows += [
                about
                | {"step": int(step), "look_auroc": auroc, "look_rise": rise, "last": i == last}
                for i, (step, (auroc, rise)) in enumerate(zip(way.steps, looks, strict=True))
            ]
    return pd.DataFrame(rows, columns=["eval_task", "method", *LOOK])


def table(
    found: Ways,
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Tell what each method leaves of a skill within the budget: a row a skill and method.

    found: from `ways`
    Columns: eval_task, method, n_seeds, looked, n_stopped (seeds that the budget stopped before
    their end), and with their 95 % intervals (_low, _high), the wider of those over questions and
    over seeds:
    auroc_known: AUROC on new questions before
    auroc: at the last look within the budget; auroc_lost: the difference
    nll_rise: of other tasks at that look
    auroc_end, nll_end: where the method ends, at its dose or after its last step
    """
    rows = []
    for (task, name), of_seeds in found.items():
        of = resample([way.sample() for way in of_seeds], n_resamples=n_resamples)
        row: dict[str, object] = {"eval_task": task, "method": name, "n_seeds": len(of_seeds)}
        row |= {"looked": all(way.looked for way in of_seeds)}
        row |= {"n_stopped": int(of.of_seeds[:, 5].sum())}
        for i, measure in enumerate(MEASURES[:5]):
            row |= as_columns(measure, of.interval(column(i)))
        row |= as_columns("auroc_lost", of.interval(lambda m: m[..., 0] - m[..., 1]))
        rows.append(row)
    return pd.DataFrame(rows, columns=[*COLUMNS, *with_intervals(MEASURES)])


def groups(table: pd.DataFrame) -> dict[str, list[str]]:
    """Sort methods by what they did to one skill within the budget, by 95 % intervals.

    "forgets": more than `verdicts.SHARE` of what there was above chance is lost, and not turned
        round; "inverts": AUROC is below 0.5; "keeps": less than that share is lost; "open": the
        rest
    """
    skill_of(table)
    found: dict[str, list[str]] = {name: [] for name in (FORGETS, KEEPS, INVERTS, OPEN)}
    for of in table.to_dict("records"):
        share = SHARE * (of["auroc_known"] - CHANCE)
        if of["auroc_high"] < CHANCE:
            group = INVERTS
        elif of["auroc_lost_low"] > share and of["auroc_low"] > CHANCE - share:
            group = FORGETS
        else:
            group = KEEPS if of["auroc_lost_high"] < share else OPEN
        found[group].append(str(of["method"]))
    return found


def finding(table: pd.DataFrame) -> str:
    """Say what each method leaves of one skill within the budget.

    table: from `collateral.table`, of one skill
    """
    skill = title(skill_of(table))
    within = f"With at most {number(BUDGET, 0)} nat a token of harm to other tasks"
    if not (table["auroc_known_low"] > CHANCE).all():
        return f"{skill} was not shown to be known before"
    of, rows = groups(table), table.set_index("method")
    said = []
    for group, words in (
        (FORGETS, "is forgotten on new questions by"),
        (INVERTS, "is turned round by"),
        (KEEPS, "is mostly kept by"),
    ):
        if of[group]:
            lost = between(rows.loc[of[group], "auroc_lost"])
            said.append(f"{words} {_named(of[group], rows)} (AUROC lost: {lost})")
    if not of[FORGETS]:
        said.insert(0, "is shown to be forgotten on new questions by no method")
    if of[OPEN]:
        said.append(f"it is not decided for {len(of[OPEN])} of {len(table)}")
    stopped = int(table["n_stopped"].sum())
    more = f"; {stopped} of {int(table['n_seeds'].sum())} models would have gone beyond"
    n = int(table["n_seeds"].max())
    within += f" ({n} seed{'s' if n > 1 else ''})"
    return f"{within}, {skill} {'; '.join(said)}{more}"


def _named(methods: Sequence[str], rows: pd.DataFrame) -> str:
    """Name methods; those of a single seed are marked where others have more."""
    n_seeds = rows["n_seeds"]
    return listed(method_titles(methods, n_seeds[list(methods)], n_seeds.max()))


def draw(curves: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draw what is left within the budget, a row a method; below, each method's way, seed by seed.

    curves, table: from this file, of one skill. Open: where the method ends. On the ways, from left
    to right as other tasks lose nats and from top to bottom as the skill is lost, dots are the last
    looks within the budget, which is the dotted line.
    """
    do = "Pass the tables of figures.collateral, of one skill."
    wanted = [*COLUMNS, *with_intervals(MEASURES)]
    intervals.require_columns("what is left at equal harm", table, wanted, do)
    intervals.require_columns("ways of methods", curves, ["method", *LOOK], do)
    said = finding(table)
    of = table.sort_values("auroc", ascending=False, kind="stable")
    looked = [str(m) for m in table.loc[table["looked"], "method"]]
    names = [
        readable(method_title(str(m)) + (", 1 seed" if n == 1 < table["n_seeds"].max() else ""))
        for m, n in zip(of["method"], of["n_seeds"], strict=True)
    ]
    n_rows = -(-len(looked) // PER_ROW)
    heights = [1.1 + 0.2 * len(of), 1.25 * n_rows + 0.2]
    with style([*names, said]):
        size = (TEXT_WIDTH, sum(heights) + 0.9)
        figure = Figure(figsize=size, layout="constrained")
        above, *below = figure.subfigures(
            1 + bool(looked), 1, squeeze=False, height_ratios=heights[: 1 + bool(looked)]
        )[:, 0]
        _draw_left(above.subplots(1, 2, sharey=True), of, names)
        if looked:
            _draw_ways(
                below[0].subplots(n_rows, PER_ROW, sharex=True, sharey=True, squeeze=False),
                curves,
                looked,
            )
        set_finding(figure, said)
    return figure


def _draw_left(panels: np.ndarray, of: pd.DataFrame, names: Sequence[str]) -> None:
    """Draw a row a method: AUROC on new questions and harm elsewhere, within and at the end."""
    rows = np.arange(len(of), dtype=float)
    for axes, measure, end, label in (
        (panels[0], "auroc", "auroc_end", "AUROC on new questions"),
        (panels[1], "nll_rise", "nll_end", "rise of nats a token\nof other tasks"),
    ):
        draw_intervals(axes, of, measure, rows, "within the budget", "o", BLUE, True)
        axes.plot(
            *(of[end], rows, "o"),
            color=ORANGE,
            markerfacecolor="white",
            markersize=3.5,
            linestyle="none",
            label="where the method ends",
            zorder=1.5,
        )
        mark(axes, CHANCE if measure == "auroc" else 0.0)
        axes.set_xlabel(label)
    panels[0].axvline(of["auroc_known"].iloc[0], color=DARK_GREY, lw=0.9, linestyle=":", zorder=1)
    panels[1].axvline(BUDGET, color=DARK_GREY, lw=0.9, linestyle=":", zorder=1)
    panels[0].set_xlim(-0.02, 1.02)
    panels[0].set_yticks(rows, names)
    panels[0].set_ylim(-0.6, len(of) - 0.4)
    handles = panels[0].get_legend_handles_labels()[0]
    kinds: dict[Any, str] = {"--": "chance; no harm", ":": "before; the budget"}
    for kind, words in kinds.items():
        handles.append(Line2D([], [], color=DARK_GREY, lw=0.9, linestyle=kind, label=words))
    panels[0].figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)


def _draw_ways(panels: np.ndarray, curves: pd.DataFrame, methods: Sequence[str]) -> None:
    """Draw a panel a method, a line a seed: AUROC on new questions by the harm elsewhere."""
    for axes, method in zip(panels.ravel(), methods, strict=False):
        for _, way in curves[curves["method"] == method].groupby("seed"):
            axes.plot(way["look_rise"], way["look_auroc"], color=GREY, linewidth=0.8, zorder=1)
            there = way[way["last"]]
            axes.plot(
                there["look_rise"], there["look_auroc"], "o", color=BLUE, markersize=3, zorder=3
            )
            end = way.iloc[[-1]]
            axes.plot(
                *(end["look_rise"], end["look_auroc"], "o"),
                color=ORANGE,
                markerfacecolor="white",
                markersize=3,
                zorder=2,
            )
        axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
        axes.axvline(BUDGET, color=DARK_GREY, linewidth=0.9, linestyle=":", zorder=0)
        axes.set_title(readable(method_title(method)), fontsize=7, loc="left")
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.5, 1])
        axes.tick_params(labelsize=SMALL)
        axes.grid(visible=False)
        sns.despine(ax=axes)
    for axes in panels.ravel()[len(methods) :]:
        axes.set_axis_off()
    for i in range(min(PER_ROW, len(methods))):  # below the last panel of each column
        last = panels[(len(methods) - 1 - i) // PER_ROW, i]
        last.tick_params(labelbottom=True)
        last.set_xlabel("rise of nats", fontsize=SMALL)
    for axes in panels[:, 0]:
        axes.set_ylabel("AUROC", fontsize=SMALL)
