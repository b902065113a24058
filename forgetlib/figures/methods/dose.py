"""Draw the dose: how far each method takes its forgetting set, and in how many steps.

Methods are compared where each has done as much to the questions that it was given (see
`forgetting.dose`): where max(AUROC, 1 - AUROC) of the forgetting set is at most 0.6, at two checks
in a row. Some take it there, some past it, so that true responses are told from false ones the
wrong way round, and some never do. Edits and hooks have no steps: what counts is where they end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.bootstrap import Measure, resample
from forgetlib.figures.intervals import N_RESAMPLES, as_columns
from forgetlib.figures.join import by_checkpoint
from forgetlib.figures.measures import auroc_sample
from forgetlib.figures.methods.ladders import method_names
from forgetlib.figures.names import MOST_NAMED, method_title, methods_or_count, title
from forgetlib.figures.rows import skill_of
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    error_bar,
    heading,
    name_grid,
    set_finding,
    style,
)
from forgetlib.forgetting.base import Method
from forgetlib.forgetting.dose import dose_of
from forgetlib.metrics import CHANCE
from forgetlib.runs.answers import Load, fixed, texts_of
from forgetlib.runs.ladder import LadderStudy
from forgetlib.runs.records import Result

# Sequences in a step, of each example to forget and of each to retain, by a method's name; of
# others that override neither it is one of each. What a method passes over without training on it
# (references, checks of the dose) is not counted.
SEQUENCES: Mapping[str, tuple[int, int]] = {
    "labels": (1, 1),
    "noise": (1, 1),
    "uniform_choice": (2, 1),
    "uniform_token": (2, 1),
    "dpo": (2, 1),
    "kl_ascent": (1, 2),
    "lock": (2, 1),
}
REACHED, OVERSHOT, SHORT, MIXED = "reached", "overshot", "not reached", "mixed"
PASSED = "passed between checks"
COLOURS = {REACHED: GREEN, OVERSHOT: PURPLE, SHORT: VERMILION, MIXED: ORANGE, PASSED: ORANGE}
PER_ROW = 3  # panels


def curves(study: LadderStudy, results: Iterable[Result]) -> pd.DataFrame:
    """List every check of the dose: a row a skill, method, seed and check.

    Columns: eval_task, method, seed, step (optimiser steps done; 0 is before any), auroc (of the
    forgetting set, by the labels that the method was given), reached (whether this training got to
    the dose). No row of a method that has none.
    """
    rows = []
    for task, method, name, found in _forgotten(study, results):
        if (curve := found.dose) is None:
            continue
        dose = dose_of(method)
        about = {"eval_task": task, "method": name, "seed": found.seed}
        reached = curve.reached(dose.most, dose.checks)
        rows += [
            about | {"step": int(step), "auroc": float(auroc), "reached": reached}
            for step, auroc in zip(curve.steps, curve.auroc, strict=True)
        ]
    columns = ["eval_task", "method", "seed", "step", "auroc", "reached"]
    return pd.DataFrame(rows, columns=columns)


def summary(
    study: LadderStudy,
    results: Iterable[Result],
    answers: Load | None,
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Judge every method's dose: a row a skill and method.

    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study); asked for
        of tasks with fixed answers. None: no task has fixed answers

    Columns: eval_task, method, n_seeds, and
    has_curve: whether its training looked at the dose
    n_reached, n_overshot: seeds that ended at the dose, and beyond it, with AUROC below it; without
        a curve by the AUROC of the stored scores of the forgetting set
    most: the largest AUROC at which the dose is reached; the least is 1 - most
    steps: optimiser steps of the seeds that reached it, their median; NaN where none did, or where
        nothing was trained
    learning_rate: the peak of its training's; NaN where nothing was trained
    passes: sequences trained on, by those of an epoch of plain fine-tuning on the forgetting set,
        the median over seeds. 0 without a training; NaN of a method of one's own that encodes its
        examples otherwise
    set_auroc: of the forgetting set after all, by its true labels, with its 95 % interval (_low,
        _high)
    """
    found: dict[tuple[str, str], list[tuple[Method, Result]]] = {}
    for task, method, name, result in _forgotten(study, results):
        if f"{task}/train" in result.scores:
            found.setdefault((task, name), []).append((method, result))
    rows = []
    for (task, name), of_seeds in found.items():
        method = of_seeds[0][0]
        training, dose = method.settings(), dose_of(method)
        scores = [result.scores[f"{task}/train"] for _, result in of_seeds]
        samples = []
        for (_, result), own in zip(of_seeds, scores, strict=True):
            samples.append(auroc_sample(own, texts_of(fixed(answers, task, result.seed), own.uids)))
        after = resample(samples, n_resamples=n_resamples)
        dosed = [r.dose for _, r in of_seeds]
        if has_curve := all(curve is not None for curve in dosed):
            reached = [c.reached(dose.most, dose.checks) for c in dosed if c is not None]
            ends = np.array([c.auroc[-1] for c in dosed if c is not None])
        else:
            ends = after.of_seeds[:, 0]
            reached = list(np.maximum(ends, 1 - ends) <= dose.most)
        steps = [len(r.loss.loss) if r.loss is not None else 0 for _, r in of_seeds]
        to_dose = [n for n, there in zip(steps, reached, strict=True) if there and n]
        cost = [_passes(method, n, len(s)) for n, s in zip(steps, scores, strict=True)]
        row: dict[str, object] = {
            "eval_task": task,
            "method": name,
            "n_seeds": len(of_seeds),
            "has_curve": has_curve,
            "n_reached": int(np.sum(reached)),
            "n_overshot": int(np.sum(~np.array(reached) & (ends < 1 - dose.most))),
            "most": dose.most,
            "steps": float(np.median(to_dose)) if to_dose else np.nan,
            "learning_rate": training.learning_rate if training else np.nan,
            "passes": float(np.median(cost)),
        }
        rows.append(row | as_columns("set_auroc", after.interval(Measure(0))))
    return pd.DataFrame(rows)


def _forgotten(
    study: LadderStudy, results: Iterable[Result]
) -> list[tuple[str, Method, str, Result]]:
    """List what each method did to each skill and seed: skill, method, its name, its model."""
    known, names = by_checkpoint(results), method_names(study)
    found = []
    for task in study.tasks:
        for method, name in names.items():
            for of, seed in study.with_seeds(study.seeds):
                if of == task and method in study.of(task, seed):
                    result = known.get((study.after(method, task, seed).id, seed))
                    if result is not None:
                        found.append((task, method, name, result))
    return found


def _passes(method: Method, n_steps: int, n_examples: int) -> float:
    """Count the epochs of plain fine-tuning that a training costs; see `summary`."""
    training = method.settings()
    if training is None:
        return 0.0
    cls = type(method)
    usual = cls.sequences is Method.sequences
    usual &= cls.retained_sequences is Method.retained_sequences
    own, kept = SEQUENCES.get(method.name, (1, 1) if usual else (np.nan, np.nan))
    epochs = n_steps / math.ceil(n_examples / training.batch_size)
    return epochs * (own + (kept if method.retained() else 0))


# --- in words, and as a picture


def ending(row: pd.Series) -> str:
    """Say how a method's trainings ended: all at the dose, all past it, none of these, or mixed.

    Passed between checks: never twice in a row at the dose, and not above it in the end.

    row: of `summary`
    """
    for word, n in ((REACHED, row["n_reached"]), (OVERSHOT, row["n_overshot"])):
        if n == row["n_seeds"]:
            return word
    if row["n_reached"] + row["n_overshot"]:
        return MIXED
    return PASSED if row["set_auroc"] <= row["most"] else SHORT


def finding(summary: pd.DataFrame) -> str:
    """Say in a sentence which methods reach the dose, in how many steps, and which do not.

    summary: from `dose.summary`, of one skill
    """
    task = skill_of(summary)
    of = summary.assign(ending=[ending(row) for _, row in summary.iterrows()])
    reached = of[of["ending"] == REACHED].sort_values("steps")
    trained, at_once = reached[reached["steps"].notna()], reached[reached["steps"].isna()]
    said = []
    if len(trained):
        names = [f"{method_title(r.method)} ({r.steps:g})" for r in trained.itertuples()]
        names[0] = f"{names[0][:-1]} step{'s' if trained['steps'].iloc[0] != 1 else ''})"
        steps = f"{trained['steps'].min():g} to {trained['steps'].max():g} steps"
        said.append(f"reached by {_several(names, steps)}")
    if len(at_once):
        after = _several([method_title(m) for m in at_once["method"]])
        said.append(f"reached without a training by {after}")
    for word, before in (
        (OVERSHOT, "overshot, with the sign turned, by"),
        (PASSED, "passed between two checks by"),
        (SHORT, "not reached by"),
    ):
        if names := [method_title(m) for m in of.loc[of["ending"] == word, "method"]]:
            said.append(f"{before} {_several(names)}")
    mixed = of[of["ending"] == MIXED]
    some = mixed[mixed["n_reached"] > 0]
    for before, rows, n in (
        ("reached", some, "n_reached"),
        ("overshot", mixed.drop(index=some.index), "n_overshot"),
    ):
        names = [
            f"{method_title(row['method'])} ({row[n]} of {row['n_seeds']})"
            for _, row in rows.iterrows()
        ]
        if names:
            more = f"in {rows[n].sum()} of {rows['n_seeds'].sum()} seeds"
            if n == "n_reached" and (over := rows["n_overshot"].sum()):
                more += f", overshot in {over}"
            said.append(f"{before} in some seeds only by {_several(names, more)}")
    return f"For {title(task)} the dose is {'; '.join(said)}"


def _several(names: list[str], more: str = "") -> str:
    """Name methods; of many say how many, and what more there is to say."""
    said = methods_or_count(names)
    return f"{said} ({more})" if more and len(names) > MOST_NAMED else said


def draw(curves: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw a panel a method: AUROC of the forgetting set, step by step, a line a seed.

    The band is the dose. A method without a training is a point with its interval, at no step.

    curves, summary: from `dose.curves` and `dose.summary`, of one skill
    """
    do = "Pass the tables of figures.methods.dose, of one skill."
    wanted = ["method", "seed", "step", "auroc", "reached"]
    intervals.require_columns("curves of the dose", curves, wanted, do)
    wanted = ["eval_task", "method", "n_seeds", "n_reached", "n_overshot", "most", "steps"]
    intervals.require_columns("summary of the dose", summary, [*wanted, "set_auroc"], do)
    said = finding(summary)
    n_columns = min(PER_ROW, len(summary))
    n_rows = -(-len(summary) // n_columns)
    with style([method_title(m) for m in summary["method"]], [said]):
        size = (TEXT_WIDTH, 1.1 + 1.25 * n_rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        last = max(int(curves["step"].max()) if len(curves) else 1, 1)
        for axes, (_, row) in zip(panels.ravel(), summary.iterrows(), strict=False):
            _panel(axes, curves[curves["method"] == row["method"]], row, last)
        name_grid(panels, len(summary), "steps")
        set_finding(figure, said)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, row: pd.Series, last: int) -> None:
    """Draw one method's curves, with the dose's band."""
    most = float(row["most"])
    axes.axhspan(1 - most, most, color=LIGHT, alpha=0.4, linewidth=0, zorder=0)
    axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    word = ending(row)
    # Most is done in the first steps, and some methods take many: doubled, not added.
    axes.set_xscale("symlog", base=2, linthresh=1)
    for _, of in rows.groupby("seed"):
        axes.plot(of["step"], of["auroc"], color=BLUE, linewidth=0.9, alpha=0.8)
        axes.plot(of["step"].iloc[-1], of["auroc"].iloc[-1], "o", color=BLUE, markersize=2.5)
    if rows.empty:
        values = row[["set_auroc", "set_auroc_low", "set_auroc_high"]].to_numpy(float)
        x = 2 ** (math.log2(last + 1) / 2) - 0.5
        axes.errorbar(
            x, values[0], error_bar(values), fmt="D", color=BLUE, markersize=3.5, clip_on=False
        )
        at = 0.2 if values[0] > CHANCE - 0.1 else 0.8  # where the point is not
        why = axes.text(x, at, "no steps: judged once", ha="center", va="center", fontsize=SMALL)
        why.set_color(DARK_GREY)
    ticks = [0, *(2**i for i in range(0, max(last.bit_length(), 1), 2))]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.15, 1.15 * last + 0.2)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(labelsize=SMALL)
    axes.grid(axis="x", visible=False)
    axes.set_title(f"{heading(method_title(str(row['method'])))}\n", fontsize=7, loc="left")
    written = axes.text(
        *(0, 1.03, _told(row, word)),
        transform=axes.transAxes,
        fontsize=SMALL,
        color=COLOURS[word],
    )
    written.set_in_layout(False)
    axes.spines[:].set_color(GREY)
    sns.despine(ax=axes)


def _told(row: pd.Series, word: str) -> str:
    """Say below a method's name how it ended."""
    n = int(row["n_seeds"])
    if word == MIXED:
        word, count = (
            (REACHED, row["n_reached"]) if row["n_reached"] else (OVERSHOT, row["n_overshot"])
        )
        return f"{word} in {count} of {n}"
    steps = f", {row['steps']:g} steps" if np.isfinite(row["steps"]) else ""
    return f"{word}{steps}{', 1 seed' if n == 1 else ''}"
