"""Figure 5 of the paper: whether what is learned first is forgotten last.

The table has a row a task: the rank correlation of the steps of learning and of forgetting, how
much of either is over before the second recording, so that its order is not seen, and what is left
of a correlation by recording so seldom.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from forgetlib.figures.numbers import estimate, number
from forgetlib.figures.rows import (
    by_format,
    mark,
    set_rows,
    with_formats,
)
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
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
from forgetlib.figures.thresholds import OPPOSITE
from forgetlib.measuring.base import Dynamics
from forgetlib.runs.records import Result

ORDER_THRESHOLD = 0.6  # paper, section 5
AT_FIRST = {  # column: (legend, marker, colour), as fine-tuning and forgetting have elsewhere
    "learned_at_first": ("learning", "o", BLUE),
    "forgotten_at_first": ("forgetting", "D", VERMILION),
}
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


def share_seen(learned: np.ndarray, forgotten: np.ndarray) -> float:
    """Tell what share of a weak rank correlation is seen where steps are recorded with ties.

    Examples that pass between the same two recordings share their rank. A correlation of the exact
    steps shrinks by the share of the ranks' standard deviation that each side keeps: 1 without
    ties, 0 where all pass together. Exact for the copula of Farlie, Gumbel and Morgenstern, which
    has correlations up to 1/3.

    learned, forgotten: (N,) recorded steps, N of at least two
    """
    kept = []
    for steps in (learned, forgotten):
        n, ties = len(steps), np.unique(steps, return_counts=True)[1]
        kept.append(1 - (ties**3 - ties).sum() / (n**3 - n))
    return float(np.sqrt(np.prod(kept)))


def _steps(runs: Family, threshold: float) -> pd.DataFrame | None:
    """One row an example of the forgetting set: when it is learned and forgotten; why not.

    Columns: uid, learned_step, forgotten_step, at_first of each (whether that is the first recorded
    step of training), fate (of `_FATES`). None without dynamics.
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
            "learned_at_first": learned == tuned.steps[1],
            "forgotten_at_first": lost == forgotten.steps[1],
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
    interval; seen: the share of a weak correlation of the exact steps that these ties leave
    (`share_seen`), over the same seeds; enough; learned_at_first and forgotten_at_first: of the n,
    the share that has passed at the first recording after the start, NaN without any: the order
    within it is not seen.

    The correlation is Spearman's, of the step passed in fine-tuning and the step passed in
    forgetting; below 0: learned first, forgotten last. It is taken within each seed and averaged,
    weighted by n; the interval resamples examples within each seed, and is missing where every
    resample has the same order (with few recorded steps, most examples share them).
    """
    require_whole("n_resamples", n_resamples, 1)
    rows = []
    for model, task, seeds in full_size(results):
        found = [s for s in (_steps(runs, threshold) for runs in seeds) if s is not None]
        if not found:
            continue
        examples = pd.concat(found)
        fates = examples["fate"]
        numbers = {fate: int((fates == fate).sum()) for fate in _FATES}
        rng = np.random.default_rng(0)
        total, weight = np.zeros(n_resamples + 1), np.zeros(n_resamples + 1)
        seen = 0.0
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
            seen += len(both) * defined[0] * share_seen(x, y)
        values = np.divide(total, weight, out=np.full(len(total), np.nan), where=weight > 0)
        correlation = correlation_percentiles(float(values[0]), values[1:])
        rows.append(
            {
                "model": model,
                "eval_task": task,
                **numbers,
                **as_columns("rank_correlation", correlation),
                "seen": seen / weight[0] if weight[0] else np.nan,
                "enough": numbers["n"] >= min_examples,
                **examples.loc[fates == "n", list(AT_FIRST)].mean(),
            }
        )
    return pd.DataFrame(rows)


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence whether what is learned first is forgotten last, for titles.

    table: from `fig5.table`. The rank correlation is averaged over the tasks with enough examples,
    with Student's t interval over these tasks; the shares are of the examples of all tasks. What
    would be seen of the correlation that the claim supposes is the mean over the same tasks.
    """
    defined = table[table["enough"].astype(bool) & table["rank_correlation"].notna()]
    correlations = defined["rank_correlation"]
    if correlations.empty:
        return "No task shows an order of learning and forgetting: too few examples pass both ways"
    order = intervals.mean_interval(correlations.to_numpy(float))
    if np.isnan(order.low):
        said = "Too few tasks to say whether what is learned first is forgotten last"
    elif order.high < 0:
        said = "What is learned first is forgotten last"
    elif order.low > 0:
        said = "What is learned first is forgotten first"
    else:
        said = "What is learned first is not shown to be forgotten last, or first"
    learned, forgotten = (
        np.average(table[c].fillna(0).astype(float), weights=table["n"]) for c in AT_FIRST
    )
    return (
        f"{said}: mean rank correlation {estimate(order)} of {len(correlations)} "
        f"task{'s' * (len(correlations) > 1)}; {100 * learned:.0f} % of the learning and "
        f"{100 * forgotten:.0f} % of the forgetting is over at the first recording, so that a "
        f"correlation of {number(OPPOSITE.supposed)} would be seen as "
        f"{number(OPPOSITE.supposed * defined['seen'].mean())}"
    )


def draw(table: pd.DataFrame, described: pd.DataFrame) -> Figure:
    """Draw Figure 5: the order of learning and forgetting, and how much of it can be seen at all.

    table: from `fig5.table`, of one model; a task without enough examples is named, and counted
    described: the format of every task's answers, from `tasks.describe`
    """
    measures = with_intervals(["rank_correlation"])
    require_columns(table, ["eval_task", "n", "enough", "seen", *AT_FIRST, *measures])
    said = finding(table)
    shown = readable(with_formats(table, described))
    shown["eval_task"] += " (" + shown["n"].astype(str) + ")"
    enough = shown["enough"].to_numpy(bool)
    shown.loc[~enough, measures] = np.nan
    rows = by_format(shown, "rank_correlation")
    y = rows.of(shown["eval_task"])
    with style(rows.heights, [said]):
        size = (TEXT_WIDTH, 1.6 + 0.205 * len(rows.heights))
        figure = Figure(figsize=size, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.3, 1])
        draw_intervals(left, shown[enough], "rank_correlation", y[enough], "", "o", BLACK, True)
        _say_why_nothing(left, shown, y)
        reach = 1.05 * np.nanmax(np.abs(shown[measures].to_numpy(float)), initial=0.5)
        left.set_xlim(-reach, reach)
        left.set_xlabel(
            "rank correlation over n examples\n(below 0: learned first, forgotten last)"
        )
        for (column, (label, marker, colour)), up in zip(
            AT_FIRST.items(), (0.15, -0.15), strict=True
        ):
            right.plot(shown[column], y + up, marker, color=colour, markersize=4, label=label)
        say_where_nothing(right, shown[list(AT_FIRST)], "none pass both ways")
        right.set_xlim(-0.05, 1.05)
        right.set_xlabel("share that is over at the\nfirst recording")
        set_rows(left, rows)
        left.set_ylabel("task (n)")
        for axes, x in ((left, 0), (right, 1)):
            mark(axes, x)
        figure.legend(
            *right.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False
        )
        set_finding(figure, said)
    return figure


def _say_why_nothing(axes: Axes, rows: pd.DataFrame, y: np.ndarray) -> None:
    """Say in each row without a correlation, or without its interval, why.

    y: (N,) heights of the table's rows
    """
    for at, row in zip(y, rows.itertuples(), strict=True):
        if np.isfinite(row.rank_correlation_low):
            continue
        why = "undefined: all at one step" if row.n > 1 else "undefined: fewer than two examples"
        if not row.enough:
            why = "too few examples"
        elif np.isfinite(row.rank_correlation):
            why = "no interval"
        value, aside, ha = 0.0, 0, "center"
        if np.isfinite(row.rank_correlation):  # towards the middle, beside the mark
            value = row.rank_correlation
            aside, ha = (-5, "right") if value > 0 else (5, "left")
        axes.annotate(
            why,
            (value, at),
            (aside, 0),
            textcoords="offset points",
            ha=ha,
            va="center",
            fontsize=SMALL,
            color=DARK_GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # over the line at 0
        )
