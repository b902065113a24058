"""Trade the error on discrete prompts against that on continuous ones, by the mixture weight.

After arXiv 2309.10105, section 2: pre-training with a larger weight of the discrete set is better
on its prompts and worse on all others, along the frontier that Bayes' predictor has.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.implicit.lines import MODELS, NAMES, framed, panel
from forgetlib.figures.implicit.measures import Errors, Gate, Of, title
from forgetlib.figures.intervals import N_RESAMPLES, as_columns, with_intervals
from forgetlib.figures.names import listed
from forgetlib.figures.numbers import number
from forgetlib.figures.style import SMALL, TEXT_WIDTH, style
from forgetlib.implicit.prompts import KINDS

SHOWN = ("pre-trained", "fine-tuned", "bayes")


def table(errors: pd.DataFrame, *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Measure models of every mixture weight on prompts of both kinds.

    errors: "results" of `forgetlib.implicit.results.read`

    Columns: k (examples), which (model), alpha, n_seeds, and with their intervals the mean
    squared errors continuous and discrete.
    """
    rows = []
    for alpha in sorted(set(errors["alpha"])):
        found = Errors(errors, alpha, n_resamples)
        for k in found.shown:
            for model in SHOWN:
                row: dict[str, object] = {
                    "k": k,
                    "which": NAMES[model],
                    "alpha": alpha,
                    "n_seeds": len(found.seeds),
                }
                for kind in KINDS:
                    row |= as_columns(kind, found.of(Of(model, kind, k)))
                rows.append(row)
    return pd.DataFrame(rows).sort_values(["k", "which", "alpha"], ignore_index=True)


def finding(found: pd.DataFrame) -> str:
    """Say in a clause what a larger weight of the discrete set does to the pre-trained model.

    found: from `table`
    """
    weights = sorted(set(found["alpha"]))
    if len(weights) < 2:
        return f"One mixture weight was tried, {weights[0]:g}: there is no trade to see"
    own = found[found["which"] == "pre_trained"]
    change = {
        kind: own[own["alpha"] == weights[-1]][kind].mean()
        - own[own["alpha"] == weights[0]][kind].mean()
        for kind in KINDS
    }
    said = [f"the error of {kind} prompts by {number(change[kind])}" for kind in KINDS]
    return f"From weight {weights[0]:g} to {weights[-1]:g} pre-training changes {listed(said)}"


def draw(found: pd.DataFrame, gate: Gate) -> Figure:
    """Draw the two errors against each other, a point a mixture weight, a panel a length.

    found: from `table`; gate: from `measures.judged`, over all weights
    """
    wanted = ["k", "which", "alpha", "n_seeds", *with_intervals(KINDS)]
    intervals.require_columns("table of weights", found, wanted, "Pass implicit.weights.table.")
    said = title(finding(found), gate, int(found["n_seeds"].min()))
    lengths = sorted(set(found["k"]))
    with style([said]):
        figure = Figure(figsize=(TEXT_WIDTH, 2.9), layout="constrained")
        panels = figure.subplots(1, len(lengths), squeeze=False)[0]
        for axes, k in zip(panels, lengths, strict=True):
            for which in dict.fromkeys(found["which"]):
                rows = found[(found["k"] == k) & (found["which"] == which)].sort_values("alpha")
                label, marker, colour, dashes = MODELS[which]
                x, y = rows["discrete"].to_numpy(float), rows["continuous"].to_numpy(float)
                ends = [
                    np.abs(rows[[f"{kind}_low", f"{kind}_high"]].to_numpy(float).T - middle)
                    for kind, middle in (("discrete", x), ("continuous", y))
                ]
                axes.errorbar(
                    *(x, y, ends[1], ends[0]),
                    fmt=(marker or "x") + dashes,
                    color=colour,
                    label=label,
                    markersize=3.5,
                    linewidth=0.9,
                )
                if which == "pre_trained":
                    for at, height, alpha in zip(x, y, rows["alpha"], strict=True):
                        if np.isfinite([at, height]).all():
                            axes.annotate(
                                f"{alpha:g}",
                                (at, height),
                                (-4, -4),
                                textcoords="offset points",
                                fontsize=SMALL,
                                ha="right",
                                va="top",
                            )
            first = "error, continuous prompts" if k == lengths[0] else ""
            panel(axes, f"{k} examples", "error, discrete prompts", first)
            axes.margins(0.2)
            axes.set_xlim(left=max(axes.get_xlim()[0], 0))
            axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        return framed(figure, said)
