"""Figure 6 of the paper: what a linear probe of the hidden states still finds.

The table has a row a task, phase and layer: the probe's accuracy and its control's;
`recovery_table` has a row a task: after fine-tuning and after forgetting, at the paper's layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import Statistic, column, of_means, resample
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    as_columns,
    percentiles,
    with_intervals,
)
from forgetlib.figures.join import PHASES, Family, full_size
from forgetlib.figures.style import (
    ACCURACY_MARKS,
    BLACK,
    DARK_GREY,
    GREY,
    LIGHT,
    SMALL,
    TEXT_WIDTH,
    count_text,
    draw_intervals,
    readable,
    require_columns,
    say_where_nothing,
    style,
)
from forgetlib.measuring.base import Probe
from forgetlib.metrics import CHANCE
from forgetlib.runs.records import Result

PROBED_PHASES = ("pre-trained", "fine-tuned", "forgotten")


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
        columns = ([_pair_means(found[p].correct) for p in PHASES] for _, found in probed)
        samples = [
            of_means(uids, np.concatenate(of_phases, axis=1))  # (N, phase x layer)
            for (uids, _), of_phases in zip(probed, columns, strict=True)
        ]
        resampled = resample(samples, n_resamples=n_resamples)
        places = np.arange(len(resampled.means)).reshape(len(PHASES), len(layers))
        for (i, phase), (j, layer) in product(enumerate(PHASES), enumerate(layers)):
            place = places[i, j]
            accuracy = resampled.interval(column(place))
            draws = np.concatenate([found[phase].control[:, j] for _, found in probed])
            rows.append(
                {
                    "model": model,
                    "eval_task": task,
                    "phase": PROBED_PHASES[i],
                    "layer": int(layer),
                    **as_columns("accuracy", accuracy),
                    **as_columns("control", percentiles(float(draws.mean()), draws)),
                    "n": n,
                    "is_paper_layer": bool(layer == paper_layer),
                }
            )
    return pd.DataFrame(rows)


def recovery_table(results: Iterable[Result], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Compare a probe's accuracy after forgetting with that after fine-tuning (paper, Fig. 6).

    One row a model and task, at the paper's layer. Columns: model, eval_task, n (pairs, all seeds),
    layer, and with their intervals fine_tuned, forgotten (probe accuracies) and difference
    (forgotten less fine_tuned, paired by example; near 0: forgetting is shallow).
    """
    measures: dict[str, Statistic] = {
        "fine_tuned": column(0),
        "forgotten": column(1),
        "difference": lambda m: m[..., 1] - m[..., 0],
    }
    rows = []
    for model, task, seeds in full_size(results):
        probed = _probed(seeds, task)
        if not probed:
            continue
        layer = probed[0][1]["tuned"].paper_layer
        samples = []
        for uids, found in probed:
            both = (found["tuned"], found["forgotten"])
            right = [_pair_means(probe.correct[probe.layers == layer]) for probe in both]
            samples.append(of_means(uids, np.concatenate(right, axis=1)))
        row = {
            "model": model,
            "eval_task": task,
            "n": sum(found["tuned"].correct[0].size for _, found in probed),
            "layer": int(layer),
        }
        resampled = resample(samples, n_resamples=n_resamples)
        for name, statistic in measures.items():
            row |= as_columns(name, resampled.interval(statistic))
        rows.append(row)
    return pd.DataFrame(rows)


def _probed(seeds: Sequence[Family], task: str) -> list[tuple[tuple[str, ...], dict[str, Probe]]]:
    """The questions and probes of every seed that has a probe in each phase."""
    probes = [
        (runs["tuned"].scores[f"{task}/test"].uids, {p: runs[p].probe for p in PHASES})
        for runs in seeds
    ]
    return [
        (uids, {k: p for k, p in found.items() if p is not None})
        for uids, found in probes
        if None not in found.values()
    ]


def _pair_means(right: np.ndarray) -> np.ndarray:
    """(P, N, C) whether pairs are right -> (N, P) share of an example's pairs."""
    return right.mean(-1).T


PROBE_PHASES = dict(zip(PROBED_PHASES, PHASES, strict=True))  # of the probe, of the accuracies


def draw(table: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """Draw Figure 6: what a linear probe finds, beside what the model answers, in each phase.

    table: from `fig6.table`, of one model; own: from `fig2.table`
    """
    columns = [*with_intervals(["accuracy", "control"]), "phase", "layer", "is_paper_layer", "n"]
    require_columns(table, ["eval_task", *columns])
    require_columns(own, ["eval_task", "n", *with_intervals(PROBE_PHASES.values())])
    own = readable(own).sort_values("forgotten").reset_index(drop=True)
    at_layer = _at_paper_layer(readable(table))
    y = np.arange(len(own))
    offsets = np.linspace(0.27, -0.27, len(PROBE_PHASES))
    with style(own["eval_task"]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.15 + 0.25 * len(own)), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for (phase, column), offset in zip(PROBE_PHASES.items(), offsets, strict=True):
            rows = at_layer[at_layer["phase"] == phase].set_index("eval_task")
            rows = rows.reindex(own["eval_task"])
            _, marker, colour, filled = ACCURACY_MARKS[column]
            draw_intervals(left, rows, "control", y + offset, "_", "x", LIGHT, True)
            draw_intervals(left, rows, "accuracy", y + offset, "_", marker, colour, filled)
            label = "after forgetting" if phase == "forgotten" else phase
            draw_intervals(right, own, column, y + offset, label, marker, colour, filled)
        left.plot([], [], "x", color=LIGHT, markersize=4, label="control: random labels")
        for line in y[~own["eval_task"].isin(at_layer["eval_task"])]:
            left.annotate(
                "not probed",
                (0.02, line),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=SMALL,
                color=DARK_GREY,
            )
        say_where_nothing(left, at_layer["accuracy"], "undefined")
        say_where_nothing(right, own[[*PROBE_PHASES.values()]], "undefined")
        for axes, name, n, unit in (
            (left, f"linear probe of layer {at_layer['layer'].iloc[0]}", at_layer["n"], "answers"),
            (right, "the model's own choice", own["n"], "questions"),
        ):
            axes.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
            axes.set_title(name)
            axes.set_xlabel(f"accuracy ({count_text(n)} {unit})")
            axes.grid(axis="y", visible=False)
            sns.despine(ax=axes, left=True)
        left.set_yticks(y, own["eval_task"])
        left.set_ylim(-0.6, len(own) - 0.4)
        figure.legend(loc="outside upper center", ncols=4, frameon=False, handletextpad=0.2)
    return figure


def draw_layers(table: pd.DataFrame) -> Figure:
    """Draw the probe's accuracy in every layer: a thin line a task, and the mean over tasks.

    table: from `fig6.table`, of one model
    """
    columns = ["eval_task", "accuracy", "control", "phase", "layer", "is_paper_layer"]
    require_columns(table, columns)
    paper_layer = _at_paper_layer(table)["layer"].iloc[0]
    n_tasks = table["eval_task"].nunique()
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 2.5), layout="constrained")
        panels = figure.subplots(1, len(PROBE_PHASES), sharex=True, sharey=True)
        for axes, (phase, column) in zip(panels, PROBE_PHASES.items(), strict=True):
            rows = table[table["phase"] == phase]
            label, marker, colour, filled = ACCURACY_MARKS[column]
            lines, control = (
                rows.pivot_table(index="layer", columns="eval_task", values=measure)
                for measure in ("accuracy", "control")
            )
            axes.fill_between(
                *(control.index, control.min(axis=1), control.max(axis=1)),
                color=GREY,
                alpha=0.25,
                linewidth=0,
            )
            axes.plot(control.mean(axis=1), color=DARK_GREY, linestyle="--", linewidth=1)
            axes.plot(lines, color=colour, linewidth=0.6, alpha=0.5)
            axes.plot(
                lines.mean(axis=1),
                color=colour,
                marker=marker,
                markersize=3.5,
                markerfacecolor=colour if filled else "white",
            )
            say_where_nothing(axes, lines, "undefined" if len(rows) else "not probed")
            axes.axvline(paper_layer, color=BLACK, linewidth=0.8, linestyle=":", zorder=1)
            axes.set_title(label.split(",")[0])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            sns.despine(ax=axes)
        panels[0].set_ylabel("accuracy of the linear probe")
        panels[1].set_xlabel("layer (0: embeddings; dotted: the paper's layer)")
        figure.legend(
            handles=[
                Line2D([], [], color=BLACK, linewidth=2, label=f"mean of {n_tasks} tasks"),
                Line2D([], [], color=BLACK, linewidth=0.6, alpha=0.5, label="one task"),
                Line2D([], [], color=DARK_GREY, linestyle="--", label="control: mean"),
                Patch(color=GREY, alpha=0.25, linewidth=0, label="control: range of means"),
            ],
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
    return figure


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
