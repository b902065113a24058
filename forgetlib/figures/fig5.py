"""Figure 5 of the paper: whether what is learned first is forgotten last.

The table has a row a task: the rank correlation of the steps of learning and of forgetting;
`examples_table` has a row a training example: these steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from forgetlib.errors import require_number, require_one_of, require_whole
from forgetlib.figures import intervals
from forgetlib.figures.bootstrap import resample_counts
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    as_columns,
    correlation_percentiles,
    rank_correlations,
    with_intervals,
)
from forgetlib.figures.join import Family, full_size, other_data
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    SMALL,
    TEXT_WIDTH,
    draw_intervals,
    panel_grid,
    readable,
    require_columns,
    require_rows,
    say_where_nothing,
    stacked,
    style,
    used_panels,
)
from forgetlib.measuring.base import Dynamics
from forgetlib.runs.records import Result

ORDER_THRESHOLD = 0.6  # paper, section 5
# What happens to an example of the forgetting set, by the column of `order` that counts it.
_FATES = ("n", "n_known", "n_never_learned", "n_fell_back", "n_never_forgotten")


def passing_steps(dynamics: Dynamics, threshold: float, direction: str) -> np.ndarray:
    """Find the first recorded step at which each example has passed a confidence: (N,) steps.

    direction: "up" (from below to at least the threshold) or "down" (from at least the threshold
        to below it)
    NaN where an example is beyond the threshold before training, and where it never passes.
    """
    require_one_of("direction", direction, ("up", "down"))
    require_number("threshold", threshold, "a confidence from 0 to 1", lambda t: 0 <= t <= 1)
    above = dynamics.confidence >= threshold  # (S, N)
    beyond = above if direction == "up" else ~above
    passes = beyond.any(0) & ~beyond[0]
    return np.where(passes, np.asarray(dynamics.steps, float)[beyond.argmax(0)], np.nan)


def _steps(runs: Family, threshold: float) -> pd.DataFrame | None:
    """One row an example of the forgetting set: when it is learned and forgotten; why not.

    Columns: uid, learned_step, forgotten_step, and which of `_FATES` it had. None without dynamics.
    """
    tuned, forgotten = runs["tuned"].dynamics, runs["forgotten"].dynamics
    if tuned is None or forgotten is None:
        return None
    place = {uid: i for i, uid in enumerate(tuned.uids)}
    if unknown := [uid for uid in forgotten.uids if uid not in place]:
        raise other_data(
            f"dynamics of {runs['forgotten'].checkpoint}",
            "examples that were recorded in fine-tuning too",
            f"{len(unknown)} others, first {unknown[0]!r}",
        )
    order = [place[uid] for uid in forgotten.uids]
    learned = passing_steps(tuned, threshold, "up")[order]
    lost = passing_steps(forgotten, threshold, "down")
    known = tuned.confidence[0, order] >= threshold
    fell_back = forgotten.confidence[0] < threshold
    fates = [known, np.isnan(learned), fell_back, np.isnan(lost)]
    return pd.DataFrame(
        {
            "uid": forgotten.uids,
            "learned_step": learned,
            "forgotten_step": lost,
            "fate": np.select(fates, _FATES[1:], _FATES[0]),
        }
    )


def table(
    results: Iterable[Result],
    threshold: float = ORDER_THRESHOLD,
    min_examples: int = 20,
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Correlate when examples are learned and forgotten (paper, Fig. 5), a row a model and task.

    threshold: the confidence to pass, up in fine-tuning and down in forgetting
    min_examples: below this, a task has too few that pass both ways (`enough` is False)

    Columns: model, eval_task, and training examples of all seeds: n (pass both ways), n_known (at
    or above the threshold before fine-tuning), n_never_learned, n_fell_back (learned, and below
    again when forgetting starts), n_never_forgotten, which add up to all; rank_correlation with its
    interval; enough. The correlation is Spearman's, of the step passed in fine-tuning and the step
    passed in forgetting; below 0: learned first, forgotten last. It is taken within each seed and
    averaged, weighted by n; the interval resamples examples within each seed, and is missing where
    every resample has the same order (with few recorded steps, most examples share them).
    """
    require_whole("n_resamples", n_resamples, 1)
    rows = []
    for model, task, seeds in full_size(results):
        found = [s for s in (_steps(runs, threshold) for runs in seeds) if s is not None]
        if not found:
            continue
        fates = pd.concat(found)["fate"]
        numbers = {fate: int((fates == fate).sum()) for fate in _FATES}
        rng = np.random.default_rng(0)
        total, weight = np.zeros(n_resamples + 1), np.zeros(n_resamples + 1)
        for steps in found:
            both = steps[steps["fate"] == "n"]
            if len(both) < 2:
                continue
            x, y = both["learned_step"].to_numpy(), both["forgotten_step"].to_numpy()
            counts = resample_counts(rng, len(both), n_resamples)
            # The first is the sample itself.
            values = rank_correlations(x, y, np.concatenate([np.ones((1, len(both))), counts]))
            defined = np.isfinite(values)
            total[defined] += len(both) * values[defined]
            weight[defined] += len(both)
        values = np.divide(total, weight, out=np.full(len(total), np.nan), where=weight > 0)
        correlation = correlation_percentiles(float(values[0]), values[1:])
        rows.append(
            {
                "model": model,
                "eval_task": task,
                **numbers,
                **as_columns("rank_correlation", correlation),
                "enough": numbers["n"] >= min_examples,
            }
        )
    return pd.DataFrame(rows)


def examples_table(results: Iterable[Result], threshold: float = ORDER_THRESHOLD) -> pd.DataFrame:
    """Tabulate the examples behind `table`: those that pass the threshold both ways.

    Columns: model, eval_task, seed, uid, learned_step, forgotten_step (optimiser steps).
    """
    parts = []
    for model, task, seeds in full_size(results):
        for runs in seeds:
            steps = _steps(runs, threshold)
            if steps is not None:
                both = steps[steps["fate"] == "n"].drop(columns="fate")
                seed = runs["tuned"].seed
                parts.append(both.assign(model=model, eval_task=task, seed=seed))
    columns = ["model", "eval_task", "seed", "uid", "learned_step", "forgotten_step"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


def draw(table: pd.DataFrame, examples: pd.DataFrame) -> Figure:
    """Draw Figure 5: the step at which an example is learned against that of forgetting it.

    table: from `fig5.table`, of one model; a task without enough examples is named, and counted
    examples: from `fig5.examples_table`; examples with the same two steps are one larger dot
    """
    require_columns(table, ["eval_task", "n", "enough", *with_intervals(["rank_correlation"])])
    intervals.require_columns(
        "the examples",
        examples,
        ["eval_task", "learned_step", "forgotten_step"],
        "Pass fig5.examples_table(...).",
    )
    table, examples = readable(table), readable(examples)
    rows = table.sort_values(["enough", "rank_correlation"], ascending=[True, False])
    names = list(rows.loc[rows["enough"], "eval_task"])[::-1]
    do = "Pass fig5.examples_table(...) of the same results and threshold."
    require_rows(examples, "eval_task", rows.loc[rows["enough"] & (rows["n"] > 0), "eval_task"], do)
    n_rows, columns = panel_grid(len(names), 5)
    heights = [0.65 + 0.16 * len(rows)] + [0.4 + 1.05 * n_rows] * bool(names)
    with style(rows["eval_task"]):
        figure = Figure(figsize=(TEXT_WIDTH, sum(heights)), layout="constrained")
        upper, *lower = stacked(figure, heights)
        _order_correlations(upper, rows)
        for part in lower:
            panels = part.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False)
            for axes, name in zip(used_panels(panels, len(names)), names, strict=True):
                own = examples[examples["eval_task"] == name]
                _counts(axes, own[["learned_step", "forgotten_step"]].to_numpy(float))
                axes.set_title(f"{name}\nn = {len(own)}", fontsize=SMALL - 0.5)
                axes.tick_params(labelsize=SMALL)
                sns.despine(ax=axes)
            part.supxlabel("learned at step (of fine-tuning)", fontsize=8)
            part.supylabel("forgotten at step", fontsize=8)
    return figure


def _order_correlations(figure: SubFigure, rows: pd.DataFrame) -> None:
    axes = figure.subplots()
    y = np.arange(len(rows))
    enough = rows["enough"].to_numpy(bool)
    draw_intervals(axes, rows[enough], "rank_correlation", y[enough], "", "o", BLUE, True)
    for at in y[~enough]:
        axes.text(0.01, at, "too few examples", fontsize=SMALL, va="center", color=DARK_GREY)
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_yticks(y, rows["eval_task"] + " (" + rows["n"].astype(str) + ")")
    drawn = rows.loc[enough, with_intervals(["rank_correlation"])].to_numpy(float)
    for at, (value, low, _), n in zip(y[enough], drawn, rows.loc[enough, "n"], strict=True):
        if np.isnan(low):
            why = "undefined: all at one step" if n > 1 else "undefined: fewer than two examples"
            why = why if np.isnan(value) else "no interval"
            to_left = value > 0  # towards the middle, beside the mark
            axes.annotate(
                why,
                (np.nan_to_num(value), at),
                (-5 if to_left else 5, 0),
                textcoords="offset points",
                ha="right" if to_left else "left",
                va="center",
                fontsize=SMALL,
                color=DARK_GREY,
            )
    reach = 1.05 * np.nanmax(np.abs(drawn), initial=0.5)
    axes.set(xlim=(-reach, reach), ylim=(-0.6, len(rows) - 0.4), ylabel="task (n)")
    axes.grid(axis="y", visible=False)
    sns.despine(ax=axes, left=True)
    figure.supxlabel("rank correlation (below 0: learned first, forgotten last)", fontsize=8)


def _counts(axes: Axes, pairs: np.ndarray) -> None:
    """Dots at the (n, 2) pairs, with an area that grows with how many are the same pair."""
    say_where_nothing(axes, pairs, "none")
    if not len(pairs):
        return
    places, counts = np.unique(pairs, axis=0, return_counts=True)
    steps = max(len(set(places[:, 0])), len(set(places[:, 1])))
    largest = np.clip(60 / steps, 3, 10)  # points: a panel is about 60 wide
    area = np.clip(largest**2 * counts / counts.max(), 1, None)
    axes.scatter(places[:, 0], places[:, 1], s=area, color=BLUE, alpha=0.8, linewidth=0)
    axes.margins(0.15)
