"""Figure 6 of the paper: what a linear probe of the hidden states still finds.

`recovery_table` has a row a task: what forgetting changes in the probe at the paper's layer, and in
the model's own choices. `table` has a row a task, phase and layer: the probe's accuracy and its
control's. A task counts where the probe was shown to beat chance before forgetting: else there is
nothing that it could lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import (
    Measure,
    Resampled,
    Statistic,
    difference,
    of_means,
    resample,
)
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    UNDEFINED,
    Interval,
    as_columns,
    mean_interval,
    percentiles,
    with_intervals,
)
from forgetlib.figures.join import PHASES, Family, full_size
from forgetlib.figures.names import title
from forgetlib.figures.numbers import estimate, estimate_of
from forgetlib.figures.rows import (
    by_format,
    draw_seeds,
    mark,
    seeds_text,
    set_rows,
    with_formats,
)
from forgetlib.figures.style import (
    ACCURACY_MARKS,
    BLACK,
    BLUE,
    DARK_GREY,
    GREY,
    SMALL,
    TEXT_WIDTH,
    draw_intervals,
    readable,
    require_columns,
    say_where_nothing,
    set_finding,
    style,
)
from forgetlib.measuring.base import Probe, Scores
from forgetlib.metrics import CHANCE, correct
from forgetlib.runs.records import Result

CHANGES = ("difference", "own_difference")  # of the probe's accuracy, of the model's own
# Of the probe, as tables name them: of `join.PHASES`.
PROBED_PHASES = dict(zip(("pre-trained", "fine-tuned", "forgotten"), PHASES, strict=True))


def table(results: Iterable[Result], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Measure how well a linear probe tells correct from incorrect answers (paper, Fig. 6).

    One row a model, task, phase and layer. Columns: model, eval_task, phase in `PROBED_PHASES`,
    layer, accuracy with its interval (an example's pairs are resampled together), control (mean
    accuracy of the probes that were fitted to random labels), control_low and control_high
    (between which 95 % of these probes are, of all seeds), n (pairs of question and answer, all
    seeds), is_paper_layer (the fifth-to-last).
    """
    rows = []
    for model, task, seeds in full_size(results):
        probed = _probed(seeds, task)
        if not probed:
            continue
        first = probed[0][1]["base"]
        layers, paper_layer = first.layers, first.paper_layer
        n = sum(found["base"].correct[0].size for _, found in probed)
        columns = ([pair_means(found[p].correct) for p in PHASES] for _, found in probed)
        samples = [
            of_means(scores["tuned"].uids, np.concatenate(of_phases, axis=1))  # (N, phase x layer)
            for (scores, _), of_phases in zip(probed, columns, strict=True)
        ]
        resampled = resample(samples, n_resamples=n_resamples)
        places = np.arange(len(resampled.means)).reshape(len(PHASES), len(layers))
        named = enumerate(PROBED_PHASES.items())
        for (i, (name, phase)), (j, layer) in product(named, enumerate(layers)):
            place = places[i, j]
            accuracy = resampled.interval(Measure(place))
            draws = np.concatenate([found[phase].control[:, j] for _, found in probed])
            rows.append(
                {
                    "model": model,
                    "eval_task": task,
                    "phase": name,
                    "layer": int(layer),
                    **as_columns("accuracy", accuracy),
                    **as_columns("control", percentiles(float(draws.mean()), draws)),
                    "n": n,
                    "is_paper_layer": bool(layer == paper_layer),
                }
            )
    return pd.DataFrame(rows)


def recovery_table(results: Iterable[Result], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Compare a probe after forgetting with that after fine-tuning (paper, Fig. 6).

    One row a model and task, at the paper's layer. Columns: model, eval_task, n (pairs, all seeds),
    n_seeds, layer, and with their intervals
    fine_tuned, forgotten: the probe's accuracies
    difference: forgotten less fine_tuned, paired by example; near 0: forgetting is shallow
    own_difference: the same of the accuracy of the model's own choices on these questions
    difference_seeds, own_difference_seeds: these of each seed, as text (`rows.seeds_text`)
    counts: whether fine_tuned was shown to be above chance
    share_of_loss: its part of what the probes of the tasks that count lose in sum; NaN of others,
        and where these lose nothing in sum
    """
    measures: dict[str, Statistic] = {
        "fine_tuned": Measure(0),
        "forgotten": Measure(1),
        "difference": difference(1, 0),
        "own_difference": difference(3, 2),
    }
    rows = []
    that_count: dict[str, dict[str, Resampled]] = {}
    for model, task, seeds in full_size(results):
        probed = _probed(seeds, task)
        if not probed:
            continue
        layer = probed[0][1]["tuned"].paper_layer
        samples = []
        for scores, found in probed:
            both = (found["tuned"], found["forgotten"])
            right = [pair_means(probe.correct[probe.layers == layer]) for probe in both]
            right += [correct(scores[p])[:, None].astype(float) for p in ("tuned", "forgotten")]
            samples.append(of_means(scores["tuned"].uids, np.concatenate(right, axis=1)))
        row = {
            "model": model,
            "eval_task": task,
            "n": sum(found["tuned"].correct[0].size for _, found in probed),
            "n_seeds": len(probed),
            "layer": int(layer),
        }
        resampled = resample(samples, n_resamples=n_resamples)
        for name, statistic in measures.items():
            row |= as_columns(name, resampled.interval(statistic))
        for name in CHANGES:
            row[f"{name}_seeds"] = seeds_text(np.atleast_1d(measures[name](resampled.of_seeds)))
        row["counts"] = bool(row["fine_tuned_low"] > CHANCE)
        if row["counts"]:
            that_count.setdefault(model, {})[task] = resampled
        rows.append(row)
    shares = {model: _shares_of_loss(of) for model, of in that_count.items()}
    for row in rows:
        of = shares.get(str(row["model"]), {})
        row |= as_columns("share_of_loss", of.get(str(row["eval_task"]), UNDEFINED))
    return pd.DataFrame(rows)


def _shares_of_loss(found: dict[str, Resampled]) -> dict[str, Interval]:
    """Share what is lost between tasks, by name: resamples were drawn alike, and are shuffled."""
    rng = np.random.default_rng(0)

    def together(of_tasks: Iterable[np.ndarray]) -> np.ndarray:
        return np.stack([rng.permutation(m[..., 1] - m[..., 0]) for m in of_tasks], axis=-1)

    by_seeds = [f.by_seeds for f in found.values() if f.by_seeds is not None]
    every = Resampled(
        np.array([[f.means[1] - f.means[0] for f in found.values()]]),
        together(f.by_questions for f in found.values()),
        together(by_seeds) if len(by_seeds) == len(found) else None,
        np.array([[-np.inf], [np.inf]]).repeat(len(found), axis=1),
    )

    def share(place: int) -> Statistic:
        def statistic(m: np.ndarray) -> np.ndarray:
            total = m.sum(-1)
            nothing = np.full(np.shape(total), np.nan)
            return np.divide(m[..., place], total, out=nothing, where=total < 0)

        return statistic

    return {task: every.interval(share(i)) for i, task in enumerate(found)}


def _probed(seeds: Sequence[Family], task: str) -> list[tuple[dict[str, Scores], dict[str, Probe]]]:
    """The test scores and probes by phase, of every seed that has a probe in each phase."""
    found = [
        (
            {p: runs[p].scores[f"{task}/test"] for p in PHASES},
            {p: probe for p in PHASES if (probe := runs[p].probe) is not None},
        )
        for runs in seeds
    ]
    return [(scores, probes) for scores, probes in found if len(probes) == len(PHASES)]


def pair_means(right: np.ndarray) -> np.ndarray:
    """(P, N, C) whether pairs are right -> (N, P) share of an example's pairs."""
    return right.mean(-1).T


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence what forgetting changes in the probe, and in the model's own choices.

    table: from `fig6.recovery_table`, of one model
    """
    of = table[table["counts"].astype(bool)]
    if of.empty:
        return "In no task was the probe shown to beat chance after fine-tuning"
    probe, own = (estimate(mean_interval(of[name].to_numpy())) for name in CHANGES)
    lost = (of["difference_high"] < 0).sum()
    said = (
        f"Where the probe beat chance before ({len(of)} of {len(table)} tasks), forgetting changes "
        f"its accuracy by {probe} on average, that of the model's own choices by {own}; the "
        f"probe's loss is shown in {lost}"
    )
    shares = of[of["share_of_loss_low"].notna()]
    if len(of) > 1 and len(shares):
        most = shares.loc[shares["share_of_loss"].idxmax()]
        said += f", and {estimate_of(most, 'share_of_loss')} of its sum is that of "
        said += title(most["eval_task"])
    return said


def draw(table: pd.DataFrame, described: pd.DataFrame) -> Figure:
    """Draw Figure 6: what forgetting changes in a linear probe, and in the model's own choices.

    Sorted by the probe's accuracy before, so that the tasks that count are together.

    table: from `fig6.recovery_table`, of one model; described: the format of every task's answers,
        from `tasks.describe`
    """
    columns = ["eval_task", "layer", "counts", *(f"{name}_seeds" for name in CHANGES)]
    require_columns(table, [*columns, *with_intervals(["fine_tuned", *CHANGES, "share_of_loss"])])
    said = finding(table)
    shown = readable(with_formats(table, described))
    rows = by_format(shown, "fine_tuned")
    counts = shown["counts"].to_numpy(bool)
    y = rows.of(shown["eval_task"])
    with style(rows.heights, [said]):
        size = (TEXT_WIDTH, 1.6 + 0.19 * len(rows.heights))
        figure = Figure(figsize=size, layout="constrained")
        before, probe, own = figure.subplots(1, 3, sharey=True)
        own.sharex(probe)
        panels = {
            "fine_tuned": (before, BLUE, CHANCE),
            "difference": (probe, BLACK, 0.0),
            "own_difference": (own, BLACK, 0.0),
        }
        for name, (axes, colour, none) in panels.items():
            for of in (True, False):
                part = counts == of
                draw_intervals(axes, shown[part], name, y[part], "_", "o", colour, of)
            if name in CHANGES:
                draw_seeds(axes, shown, name, y, colour)
            mark(axes, none)
            say_where_nothing(axes, shown[name], "undefined")
        set_rows(before, rows)
        before.set_xlabel(f"probe of layer {shown['layer'].iloc[0]},\nafter fine-tuning")
        probe.set_xlabel("change of the probe\nby forgetting")
        own.set_xlabel("change of the model's\nown choices")
        figure.legend(handles=_marks(), loc="outside lower center", ncols=2, frameon=False)
        set_finding(figure, said)
    return figure


def _marks() -> list[Line2D]:
    """Make the legend of filled and open marks."""
    labels = {True: "the probe beats chance: counts", False: "not shown to: does not count"}
    fill = {True: BLACK, False: "white"}
    return [
        Line2D([], [], color=BLACK, marker="o", mfc=fill[of], ms=4, lw=0, label=label)
        for of, label in labels.items()
    ]


def layers_finding(table: pd.DataFrame) -> str:
    """Say in a sentence in which layers forgetting changes the probe.

    table: from `fig6.table`, of one model
    """
    change = _change_of_layers(_that_count(table))
    if change.empty:
        return "In no task was the probe shown to beat chance after fine-tuning"
    means = change.mean(axis=1)
    if not means.min() < 0:
        return "In no layer does the probe lose accuracy by forgetting, on average over tasks"
    n_tasks = len(change.columns)
    most = change.loc[means.idxmin()].idxmin()
    half = means.index[means <= means.min() / 2][0]
    said = f"Forgetting costs the probe most in layer {means.idxmin()}: {-means.min():.2f}"
    if n_tasks > 1:
        without = -change.loc[means.idxmin()].drop(most).mean()
        said += f", mean of {n_tasks} tasks ({without:.2f} without {title(most)})"
    return f"{said}; half of that is reached in layer {half}"


def draw_layers(table: pd.DataFrame) -> Figure:
    """Draw the probe's accuracy in every layer, and what forgetting changes in it.

    Of the tasks that count at the paper's layer: left their mean in each phase; right the change
    in each of them, and its mean.

    table: from `fig6.table`, of one model
    """
    columns = ["eval_task", "accuracy", "accuracy_low", "control", "phase", "layer"]
    require_columns(table, [*columns, "is_paper_layer"])
    paper_layer = _at_paper_layer(table)["layer"].iloc[0]
    said = layers_finding(table)
    of = _that_count(table)
    n_tasks = of["eval_task"].nunique()
    change = _change_of_layers(of)
    with style([said]):
        figure = Figure(figsize=(TEXT_WIDTH, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        for phase, column in PROBED_PHASES.items():
            label, marker, colour, filled = ACCURACY_MARKS[column]
            left.plot(
                of[of["phase"] == phase].groupby("layer")["accuracy"].mean(),
                color=colour,
                marker=marker,
                markersize=3.5,
                markerfacecolor=colour if filled else "white",
                label=label.split(",")[0],
            )
        control = of.groupby("layer")["control"].mean()
        left.plot(control, color=DARK_GREY, linestyle="--", linewidth=1, label="control")
        right.plot(change, color=GREY, linewidth=0.6, alpha=0.7)
        right.plot([], [], color=GREY, linewidth=0.6, label="change in one task")
        right.plot(change.mean(axis=1), "k-", linewidth=2, label="mean change")
        right.axhline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        left.set_ylabel(f"probe's accuracy, mean of {n_tasks}")
        right.set_ylabel("after forgetting − fine-tuned")
        if not change.empty:
            most = change.iloc[-1].idxmin()
            right.annotate(
                readable(title(most)),
                (change.index[-1], change.iloc[-1].min()),
                xytext=(0, 4),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=SMALL,
                color=DARK_GREY,
            )
        for axes in (left, right):
            say_where_nothing(axes, change, "undefined: none above chance")
            axes.axvline(paper_layer, color=BLACK, linewidth=0.8, linestyle=":", zorder=1)
            axes.set_xlabel("layer (dotted: the paper's)")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            sns.despine(ax=axes)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        set_finding(figure, said)
    return figure


def _that_count(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the tasks whose probe was above chance at the paper's layer before forgetting."""
    before = _at_paper_layer(table)
    before = before[(before["phase"] == "fine-tuned") & (before["accuracy_low"] > CHANCE)]
    return table[table["eval_task"].isin(before["eval_task"])]


def _change_of_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Subtract the probe's accuracy before forgetting from that after: a row a layer, by task."""
    before, after = (
        table[table["phase"] == phase].pivot_table("accuracy", "layer", "eval_task")
        for phase in ("fine-tuned", "forgotten")
    )
    return after - before


def _at_paper_layer(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the paper's layer, which is the fifth-to-last."""
    rows = table[table["is_paper_layer"].astype(bool)]
    if rows.empty:
        raise InputError(
            "the probes' table",
            expected="rows of the paper's layer (is_paper_layer)",
            found=f"only those of layers {sorted(set(table['layer']))}",
            do="Pass fig6.table(...), whole.",
        )
    return rows
