"""Compare a pre-trained in-context regressor with Bayes, over the number of examples.

After arXiv 2309.10105, section 2: pre-training on a mixture gives the mixture's Bayes predictor. A
model of which that is not so yet cannot tell what fine-tuning does to it: hence the gate.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.implicit.lines import NAMES, curve, framed, line, panel
from forgetlib.figures.implicit.measures import Errors, Gate, Of, title
from forgetlib.figures.intervals import N_RESAMPLES, as_columns, with_intervals
from forgetlib.figures.numbers import number
from forgetlib.figures.style import BLACK, LIGHT, PURPLE, TEXT_WIDTH, VERMILION, style
from forgetlib.implicit.evaluate import GATE
from forgetlib.implicit.prompts import KINDS

SHOWN = ("pre-trained", "bayes", "ridge", "discrete")


def table(
    errors: pd.DataFrame, alpha: float | None = None, *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Measure the pre-trained model and the closed forms at every number of examples.

    errors: "results" of `forgetlib.implicit.results.read`; alpha: the mixture weight

    Columns: alpha, kind (of the prompts' vectors), k (examples), n_seeds, and with their intervals
    the mean squared errors pre_trained, bayes, ridge, discrete, and ratio, pre_trained by bayes.
    """
    found = Errors(errors, alpha, n_resamples)
    rows = []
    for kind in KINDS:
        for k in found.examples:
            row: dict[str, object] = {
                "alpha": found.table["alpha"].iloc[0],
                "kind": kind,
                "k": k,
                "n_seeds": len(found.seeds),
            }
            for model in SHOWN:
                row |= as_columns(NAMES[model], found.of(Of(model, kind, k)))
            both = Of("pre-trained", kind, k), Of("bayes", kind, k)
            row |= as_columns("ratio", found.interval(lambda m: m[..., 0] / m[..., 1], *both))
            rows.append(row)
    return pd.DataFrame(rows)


def finding(found: pd.DataFrame) -> str:
    """Say in a clause how far the pre-trained model is from Bayes.

    found: from `table`
    """
    own = found[found["k"] > 0]
    said = []
    for kind in dict.fromkeys(own["kind"]):
        of = own[own["kind"] == kind]
        least, most = of["ratio"].min(), of["ratio"].max()
        said.append(f"{number(least)} to {number(most)} times Bayes' for {kind} prompts")
    return f"The pre-trained model's error is {' and '.join(said)}"


def draw(found: pd.DataFrame, gate: Gate) -> Figure:
    """Draw the error over the number of examples beside the closed forms, and the ratio to Bayes.

    found: from `table`; gate: from `measures.judged`
    """
    measures = [*(NAMES[model] for model in SHOWN), "ratio"]
    wanted = ["kind", "k", "n_seeds", *with_intervals(measures)]
    intervals.require_columns("table of pre-training", found, wanted, "Pass implicit.bayes.table.")
    said = title(finding(found), gate, int(found["n_seeds"].max()))
    kinds = list(dict.fromkeys(found["kind"]))
    with style([said]):
        figure = Figure(figsize=(TEXT_WIDTH, 2.9), layout="constrained")
        panels = figure.subplots(1, len(kinds) + 1, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=False):
            of = found[found["kind"] == kind]
            for model in SHOWN:
                line(axes, of, "k", NAMES[model])
            axes.set_ylim(bottom=0)
            panel(axes, f"{kind} prompts", "examples", "mean squared error" * (kind == kinds[0]))
        ratios = panels[-1]
        ratios.axhspan(0, GATE, color=LIGHT, alpha=0.35, linewidth=0, zorder=0)
        ratios.axhline(1, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        _ratios(ratios, found, kinds)
        panel(ratios, "by Bayes' error (grey: gate)", "examples")
        return framed(figure, said, 4)


def _ratios(axes: Axes, found: pd.DataFrame, kinds: list[str]) -> None:
    """Draw the ratio of each kind."""
    for kind, colour, marker in zip(kinds, (PURPLE, VERMILION), ("^", "v"), strict=False):
        rows = found[(found["kind"] == kind) & (found["k"] > 0)]
        curve(axes, rows, "k", "ratio", f"ratio, {kind}", marker, colour)
    # A band of few seeds may be many times as high as the line.
    highest = np.nanmax([1.2, *(1.15 * found.loc[found["k"] > 0, "ratio"])])
    axes.set_ylim(0.8 if found["ratio"].min() >= 0.8 else 0.0, highest)
