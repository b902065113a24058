"""Figure 9 over models: do two of them lose the same tasks? A row for two models and a measure.

What else would make two models agree, and what is done about it:

    the same test questions   each is taken from the other half of the questions than the other
    the same easy tasks       what can be lost is bounded by what is known: `SHARE` is of what there
                              was. Models agree in what is known, too (`KNOWN`): what is left of
                              their agreement with that held fixed stands beside it
    the format of answers     fixed answers may be lost, free ones kept: `FREE` is of these alone
    the same failed trainings where random labels were not learned, little can be lost: `TRAINED` is
                              of tasks whose random labels each learned (or lost the true ones)
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
from forgetlib.figures.agreement import agreement, agreement_beside
from forgetlib.figures.beside import name_points
from forgetlib.figures.bootstrap import adjusted
from forgetlib.figures.fig2 import LEVEL
from forgetlib.figures.intervals import MIN_TASKS, UNDEFINED, as_columns, with_intervals
from forgetlib.figures.measures import Measured
from forgetlib.figures.names import listed, short_name, title
from forgetlib.figures.numbers import between, estimate_of, number
from forgetlib.figures.scale.models import AUROC_BEYOND, KINDS, learned_or_lost, measured_in_order
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    SMALL,
    TEXT_WIDTH,
    error_bar,
    readable,
    set_finding,
    style,
)
from forgetlib.metrics import CHANCE
from forgetlib.runs.answers import Load
from forgetlib.runs.records import Result

SHARE, FREE, TRAINED, LOSS, KNOWN = AGREE = (
    "share lost",
    "share lost, free answers",
    "share lost, random labels learned or true ones lost",
    "AUROC lost",
    "known after true labels",
)

PARTS = {  # with the numbers of tasks of all pairs
    SHARE: "by the share lost",
    FREE: "by free answers alone",
    TRAINED: "by the tasks whose random labels both learned (or lost the true ones; {} tasks)",
}
HELD_FIXED = "with what both models know held fixed"


def table(results: Iterable[Result], answers: Load | None = None) -> pd.DataFrame:
    """Ask whether two models rank tasks alike: by what they lose beyond true labels.

    Over the tasks that both were shown to know, in the seeds that both have. Each model is taken
    from the other half of the questions than the other. So is the ceiling: what a model's one
    training agrees with itself.

    results, answers: as in `scale.table`
    One row for two models and a measure of `AGREE`, where they share at least `intervals.MIN_TASKS`
    such tasks. Columns: a, b, measure, rank_correlation with its interval, ceiling, n (tasks), and
    beside_known with its interval: the rank correlation with what each model knows after true
    labels held fixed (`agreement_beside`); NaN for `KNOWN` itself, and of few tasks.
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
            TRAINED: [t for t in both if all(learned_or_lost(found[m][t]) for m in (a, b))],
        }
        for measure in AGREE:
            tasks = part.get(measure, both)
            if len(tasks) < MIN_TASKS:
                continue
            values, known = (
                [
                    np.array([_halves(found[m][t], _seeds(found, (a, b), t), of) for t in tasks]).T
                    for m in (a, b)
                ]
                for of in (measure, KNOWN)
            )
            if np.isfinite(values).all():
                beside = UNDEFINED if measure == KNOWN else agreement_beside(*values, *known)
                row = {"a": a, "b": b, "measure": measure, **agreement(*values)}
                rows.append(row | as_columns("beside_known", beside))
    columns = ["a", "b", "measure", *with_intervals(["rank_correlation"]), "ceiling", "n"]
    return pd.DataFrame(rows, columns=[*columns, *with_intervals(["beside_known"])])


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
    """Say in a sentence how far models rank tasks alike, also with what they know held fixed.

    agreed: from `agreement.table`
    exact: with every two models' numbers, and how many are shown to before Holm's correction
    """
    if agreed.empty:
        return f"No two models knew the same {MIN_TASKS} tasks: whether they agree cannot be told"
    said = _how_many(agreed, exact)
    of = agreed[agreed["measure"] == SHARE]
    if exact and len(of) <= 3:
        parts = []
        for row in of.to_dict("records"):
            of_both = estimate_of(row, "rank_correlation")
            numbers = [f"ceiling {number(row['ceiling'])}", f"{row['n']} tasks"]
            if not np.isnan(row["beside_known"]):
                numbers.append(f"{HELD_FIXED} {estimate_of(row, 'beside_known')}")
            names = " and ".join(short_name(str(row[m])) for m in "ab")
            parts.append(f"{names} {of_both}, {', '.join(numbers)}")
        return f"{said}; rank correlations by the share lost: {'; '.join(parts)}"
    are = " is" if len(of) == 1 else "s are"
    said += f"; by the share lost the rank correlation{are} {between(of['rank_correlation'])}"
    if of["beside_known"].notna().any():
        said += f", and {between(of['beside_known'].dropna())} {HELD_FIXED}"
    return f"{said} (ceilings {between(of['ceiling'])})" if exact else said


def _how_many(agreed: pd.DataFrame, exact: bool) -> str:
    """Say how many pairs of models are shown to rank tasks alike, by each measure."""
    n_models = len({*agreed["a"], *agreed["b"]})
    n_pairs = len(agreed.drop_duplicates(["a", "b"]))
    parts, of_pairs, before, after = [], [], [], []
    for measure, says in PARTS.items():
        of = agreed[agreed["measure"] == measure]
        if len(of):
            sizes = [*map(str, of["n"])]
            parts.append(says.format(listed(sizes if len(set(sizes)) > 1 else sizes[:1])))
            shown = of["rank_correlation_low"] > 0
            of_pairs.append("" if len(of) == n_pairs else f" of {len(of)}")
            before.append(int(shown.sum()))
            after.append(int((shown & _after_holm(of)).sum()))
    if n_pairs == 1 or not any(before):
        yes, no = ([w for w, n in zip(parts, before, strict=True) if bool(n) == b] for b in (1, 0))
        subject = "Two models are not" if n_pairs == 1 else f"No pair of {n_models} models is"
        if not yes:
            return f"{subject} shown to rank tasks alike: not {', nor '.join(no)}"
        but = f", but not {' nor '.join(no)}" if no else ""
        return f"Two models are shown to rank tasks alike {listed(yes)}{but}"
    counts = after if any(after) else before
    are = "is" if counts[0] == 1 else "are"
    first, *rest = (f"{n or 'none'}{all_of}" for n, all_of in zip(counts, of_pairs, strict=True))
    more = "".join(f", {n} {says}" for n, says in zip(rest, parts[1:], strict=True))
    if any(after):
        said = f"Of {n_pairs} pairs of {n_models} models, {first} {are} shown to rank tasks alike "
        numbers = listed(str(n or "none") for n in before)
        before_it = f" (before it {numbers})" if exact else ""
        return f"{said}{parts[0]}{more}, after Holm's correction{before_it}"
    said = f"No pair of {n_models} models is shown to rank tasks alike after Holm's correction"
    return f"{said}; before it, {first} {are} {parts[0]}{more}" if exact else said


def _after_holm(of: pd.DataFrame) -> pd.Series:
    """Tell of which pairs it is still shown, where as many are tried."""
    values = of["rank_correlation"].to_numpy(float)
    p = adjusted(
        [intervals.rank_p_value(value, n) for value, n in zip(values, of["n"], strict=True)]
    )
    return pd.Series((p < LEVEL) & (values > 0), of.index)


def draw(table: pd.DataFrame, agreed: pd.DataFrame, note: str = "") -> Figure:
    """Draw Figure 9 over models: what each two lose of the tasks that both knew, a point a task.

    table: from `scale.table`; agreed: from `agreement.table` of the same results. Points are
    of all questions, the correlations above them of opposite halves. Dashed: equal.
    note: what has to be said beside the finding, as of a study that is under way
    """
    do = "Pass scale.agreement.table(...) of the same results."
    numbers = with_intervals(["rank_correlation", "beside_known"])
    columns = ["a", "b", "measure", "ceiling", "n", *numbers]
    intervals.require_columns("the agreement of models", agreed, columns, do)
    wanted = ["model", "eval_task", "known", *with_intervals([AUROC_BEYOND])]
    intervals.require_columns("models", table, wanted, "Pass the table of figures.scale.models.")
    said = finding(agreed, exact=False) + (f" ({note})" if note else "")
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
        size = (TEXT_WIDTH, 1.3 + 2.5 * down if across > 1 else 4.5)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        drawn = []
        for axes, pair in zip(panels, pairs, strict=False):
            both = [t for t in names if all((pair[m], t) in known.index for m in "ab")]
            x, y = (
                known.loc[[(pair[m], t) for t in both], with_intervals([AUROC_BEYOND])].to_numpy(
                    float
                )
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
            words = f"{found}\nfixed: {estimate_of(pair, 'beside_known')}\n"
            words += f"ceiling {number(pair['ceiling'])}, {pair['n']} tasks"
            axes.set_title(words, loc="left", fontsize=SMALL)
            drawn.append((axes, x, y, [names[t] for t in both]))
        for axes in panels[len(pairs) :]:
            axes.set_axis_off()
        below = (
            "AUROC lost beyond true labels; above: rank correlation of the share lost. Fixed: the\n"
            "same with what both models know held fixed. Ceiling: what one training agrees with\n"
            "itself, an estimate that a value may exceed by chance"
        )
        figure.supxlabel(below, fontsize=SMALL)
        set_finding(figure, said)
        figure.draw_without_rendering()  # names go between points, which must have their places
        for axes, x, y, labels in drawn:
            name_points(axes, x, y, labels)
    return figure
