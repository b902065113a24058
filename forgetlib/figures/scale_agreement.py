"""Figure 9 over models: do two of them lose the same tasks? A row for two models and a measure.

What else would make two models agree, and what is done about it:

    the same test questions   each is taken from the other half of the questions than the other
    the same easy tasks       what can be lost is bounded by what is known: `SHARE` is of what there
                              was, and `KNOWN`, what is known after true labels, stands beside it
    the format of answers     fixed answers may be lost, free ones kept: `FREE` is of these alone
    the same failed trainings where random labels were not learned, little can be lost: `REACHED` is
                              of tasks whose forgetting set both forgot
    the same random labels    the same in all models of a seed: only further seeds would tell
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from zlib import crc32

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.agreement import agreement
from forgetlib.figures.bootstrap import adjusted
from forgetlib.figures.crosstask import short_name
from forgetlib.figures.fig2 import LEVEL
from forgetlib.figures.intervals import MIN_TASKS, with_intervals
from forgetlib.figures.measures import Measured
from forgetlib.figures.names import title
from forgetlib.figures.numbers import estimate_of, number
from forgetlib.figures.rows import set_finding
from forgetlib.figures.scale import KINDS, LOST, has_reached, measured_in_order
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    SMALL,
    TEXT_WIDTH,
    error_bar,
    name_points,
    readable,
    style,
)
from forgetlib.metrics import CHANCE
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result

SHARE, FREE, REACHED, LOSS, KNOWN = AGREE = (
    "share lost",
    "share lost, free answers",
    "share lost, forgetting set forgotten",
    "AUROC lost",
    "known after true labels",
)


PARTS = {
    FREE: "by free answers alone",
    REACHED: "by the {} tasks whose forgetting set both forgot",
}


def table(results: Iterable[Result], answers: Load | None = None) -> pd.DataFrame:
    """Ask whether two models rank tasks alike: by what they lose beyond true labels.

    Over the tasks that both were shown to know, in the seeds that both have. Each model is taken
    from the other half of the questions than the other. So is the ceiling: what a model's one
    training agrees with itself.

    results, answers: as in `scale.table`
    One row for two models and a measure of `AGREE`, where they share at least `intervals.MIN_TASKS`
    such tasks. Columns: a, b, measure, rank_correlation with its interval, ceiling, n (tasks).
    """
    found: dict[str, dict[str, Measured]] = {}
    for (model, task, _), of in measured_in_order(results, answers):
        if of.knows("auroc"):
            found.setdefault(model, {})[task] = of
    rows = []
    for a, b in combinations(found, 2):
        both = [task for task in found[a] if task in found[b] and _seeds(found, (a, b), task)]
        part = {
            FREE: [task for task in both if not found[a][task].fixed],
            REACHED: [t for t in both if has_reached(found[a][t]) and has_reached(found[b][t])],
        }
        for measure in AGREE:
            tasks = part.get(measure, both)
            if len(tasks) < MIN_TASKS:
                continue
            values = [
                np.array([_halves(found[m][t], _seeds(found, (a, b), t), measure) for t in tasks]).T
                for m in (a, b)
            ]
            if np.isfinite(values).all():
                rows.append({"a": a, "b": b, "measure": measure, **agreement(*values)})
    columns = ["a", "b", "measure", *with_intervals(["rank_correlation"]), "ceiling", "n"]
    return pd.DataFrame(rows, columns=columns)


def _seeds(
    found: dict[str, dict[str, Measured]], models: Sequence[str], task: str
) -> tuple[int, ...]:
    """List the seeds that both models have of a task."""
    of = [{runs["tuned"].seed for runs in found[m][task].seeds} for m in models]
    return tuple(sorted(of[0] & of[1]))


def _halves(found: Measured, seeds: Sequence[int], measure: str) -> np.ndarray:
    """Measure a model on either half of the questions, the mean over seeds: (2,).

    A question is in the same half in every seed that asks it.
    """
    values = []
    for place, runs in enumerate(found.seeds):
        if runs["tuned"].seed not in seeds:
            continue
        uids = runs["tuned"].scores[f"{found.task}/test"].uids
        half = np.array([crc32(uid.encode()) % 2 for uid in uids])
        values.append(
            [
                [found.on("auroc", kind, place, (half == h).astype(float)) for kind in KINDS]
                for h in (0, 1)
            ]
        )
    random, true = np.mean(values, axis=0).T
    if measure == KNOWN:
        return np.asarray(true)
    return np.asarray(true - random if measure == LOSS else (true - random) / (true - CHANCE))


def finding(agreed: pd.DataFrame, *, exact: bool = True) -> str:
    """Say in a sentence how far models rank tasks alike, and what would make them anyway.

    agreed: from `scale_agreement.table`; exact: with every two models' numbers
    """
    if agreed.empty:
        return f"No two models knew the same {MIN_TASKS} tasks: whether they agree cannot be told"
    n_pairs = len(agreed.drop_duplicates(["a", "b"]))
    counts: dict[str, tuple[str, str]] = {}
    for measure in (SHARE, FREE, REACHED):
        if len(of := agreed[agreed["measure"] == measure]):
            shown = int((of["rank_correlation_low"] > 0).sum())
            count = f"{shown or 'none'}{'' if len(of) == n_pairs else f' of {len(of)}'}"
            counts[measure] = count, _corrected(of) if shown and len(of) > 1 else ""
    first, corrected = counts.pop(SHARE)
    said = f"Of {n_pairs} pair{'s' if n_pairs > 1 else ''} of models {first} "
    said += f"{'is' if first == '1' else 'are'} shown to rank tasks alike by the share lost"
    said += corrected
    for measure, (n, more) in counts.items():
        sizes = agreed.loc[agreed["measure"] == measure, "n"]
        tasks = " to ".join(dict.fromkeys(str(f(sizes)) for f in (min, max)))
        said += f", {n}{more} {PARTS[measure].format(tasks)}"
    if not exact:
        of = agreed[agreed["measure"] == KNOWN]["rank_correlation"].dropna()
        both = " to ".join(dict.fromkeys(number(f(of)) for f in (min, max))) if len(of) else ""
        return f"{said}; by what they know their ranks agree by {both} anyway" if both else said
    parts = []
    for (a, b), of in agreed.groupby(["a", "b"], sort=False):
        rows = of.set_index("measure")
        numbers = [estimate_of(rows.loc[SHARE], "rank_correlation")]
        numbers.append(f"ceiling {number(rows.loc[SHARE, 'ceiling'])}")
        numbers.append(f"{rows.loc[SHARE, 'n']} tasks")
        if KNOWN in rows.index:
            numbers.append(f"by what is known {number(rows.loc[KNOWN, 'rank_correlation'])}")
        parts.append(f"{short_name(str(a))} and {short_name(str(b))} {', '.join(numbers)}")
    if len(parts) > 3:
        of = agreed[agreed["measure"] == SHARE]
        ends = [number(f(of[c])) for c in ("rank_correlation", "ceiling") for f in (min, max)]
        parts = ["rank correlations {} to {}, ceilings {} to {}".format(*ends)]
    return f"{said} ({'; '.join(parts)})"


def _corrected(of: pd.DataFrame) -> str:
    """Say of how many pairs it is still shown where as many are tried."""
    values = of["rank_correlation"].to_numpy(float)
    p = adjusted(
        [intervals.rank_p_value(value, n) for value, n in zip(values, of["n"], strict=True)]
    )
    certain = int(((p < LEVEL) & (values > 0)).sum())
    return f" ({certain or 'none'} after Holm's correction)"


def draw(table: pd.DataFrame, agreed: pd.DataFrame) -> Figure:
    """Draw Figure 9 over models: what each two lose of the tasks that both knew, a point a task.

    table: from `scale.table`; agreed: from `scale_agreement.table` of the same results. Points are
    of all questions, the correlations above them of opposite halves. Dashed: equal.
    """
    do = "Pass scale_agreement.table(...) of the same results."
    columns = ["a", "b", "measure", "ceiling", "n", *with_intervals(["rank_correlation"])]
    intervals.require_columns("the agreement of models", agreed, columns, do)
    wanted = ["model", "eval_task", "known", *with_intervals([LOST])]
    intervals.require_columns("models", table, wanted, "Pass the table of figures.scale.")
    said = finding(agreed, exact=False)
    pairs = agreed[agreed["measure"] == SHARE].to_dict("records")
    if not pairs:
        with style([said]):
            figure = Figure(figsize=(TEXT_WIDTH, 0.5))
            set_finding(figure, said)
        return figure
    known = table[table["known"].astype(bool)].set_index(["model", "eval_task"])
    names = {task: readable(title(task)) for task in dict.fromkeys(table["eval_task"])}
    across = min(3, len(pairs))
    down = -(-len(pairs) // across)
    with style(names.values(), [said], [short_name(m) for m in set(table["model"])]):
        size = (TEXT_WIDTH, 1.0 + 2.35 * down if across > 1 else 4.2)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        drawn = []
        for axes, pair in zip(panels, pairs, strict=False):
            both = [t for t in names if all((pair[m], t) in known.index for m in "ab")]
            x, y = (
                known.loc[[(pair[m], t) for t in both], with_intervals([LOST])].to_numpy(float)
                for m in "ab"
            )
            for i in range(len(both)):
                axes.errorbar(
                    *(x[i, 0], y[i, 0], error_bar(y[i]), error_bar(x[i])),
                    fmt="o",
                    color=BLUE,
                    markersize=3.5,
                    elinewidth=0.6,
                    ecolor=DARK_GREY,
                )
            axes.axline((0, 0), slope=1, color=BLACK, linewidth=0.8, linestyle="--", zorder=0)
            axes.set_xlabel(readable(short_name(pair["a"])))
            axes.set_ylabel(readable(short_name(pair["b"])))
            found = estimate_of(pair, "rank_correlation")
            words = f"{found}\nceiling {number(pair['ceiling'])}, {pair['n']} tasks"
            axes.set_title(words, loc="left", fontsize=SMALL)
            drawn.append((axes, x, y, [names[t] for t in both]))
        for axes in panels[len(pairs) :]:
            axes.set_axis_off()
        note = "AUROC lost beyond true labels; above: rank correlation of the share lost. Ceiling: "
        note += (
            "what\none training agrees with itself, an estimate that a value may exceed by chance"
        )
        figure.supxlabel(note, fontsize=SMALL)
        set_finding(figure, said)
        figure.draw_without_rendering()  # names go between points, which must have their places
        for axes, x, y, labels in drawn:
            name_points(axes, x, y, labels)
    return figure
