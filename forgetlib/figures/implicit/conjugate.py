"""Ask with scaled labels: does the fine-tuned model return towards ridge, and what does scaling do?

After arXiv 2309.10105, section 2, conjugate prompting: with labels scaled by gamma, and the answer
divided by it, ridge says the same, and the discrete set becomes unlikely. Two controls that the
paper lacks: the pre-trained model under the same scale, which large labels harm by themselves, and
a model that was trained on the discrete set alone, which has nothing that could come back.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.bootstrap import difference
from forgetlib.figures.implicit.lines import NAMES, curve, framed, line, panel
from forgetlib.figures.implicit.measures import Errors, Gate, Of, title
from forgetlib.figures.intervals import N_RESAMPLES, Interval, as_columns, with_intervals
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.style import BLACK, BLUE, TEXT_WIDTH, VERMILION, say_where_nothing, style

SHOWN = ("pre-trained", "fine-tuned", "discrete-only", "bayes", "ridge")


def recovered(errors: Errors, k: int, gamma: float, model: str = "fine-tuned") -> Interval:
    """Tell what share of the loss by fine-tuning a scale of labels returns, at k examples.

    (tuned - tuned scaled) / (tuned - pre-trained), of errors on continuous prompts: 1 all, 0
    nothing, below 0 harm. Undefined where fine-tuning was not shown to cost anything.

    model: in the place of the fine-tuned one, "discrete-only" for the one that never knew
    """
    tuned, before = Of(model, k=k), Of("pre-trained", k=k)
    of = tuned, before, replace(tuned, gamma=gamma)
    return errors.share(difference(0, 2), difference(0, 1), *of)


def closed(errors: Errors, k: int, gamma: float) -> Interval:
    """Tell what share of the gap to the pre-trained model under the same scale is closed.

    1 - (tuned scaled - pre-trained scaled) / (tuned - pre-trained). A scale that harms both models
    alike closes the gap without returning anything: read it beside `recovered`.
    """
    tuned, before = Of("fine-tuned", k=k), Of("pre-trained", k=k)
    of = tuned, before, replace(tuned, gamma=gamma), replace(before, gamma=gamma)
    return errors.share(
        lambda m: m[..., 0] - m[..., 1] - m[..., 2] + m[..., 3], difference(0, 1), *of
    )


def change(errors: Errors, model: str, k: int, gamma: float) -> Interval:
    """Tell by how much a scale of labels raises a model's error on continuous prompts."""
    of = Of(model, k=k)
    return errors.interval(difference(0, 1), replace(of, gamma=gamma), of)


def table(
    errors: pd.DataFrame, alpha: float | None = None, *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Measure every model on continuous prompts under every scale of labels.

    errors: "results" of `forgetlib.implicit.results.read`; alpha: the mixture weight

    Columns: alpha, k (examples), gamma (scale), n_seeds, and with their intervals the mean squared
    errors pre_trained, fine_tuned, discrete_only, bayes and ridge; recovered and closed, shares of
    what fine-tuning cost; harm and never_change, by how much the scale raises the error of the
    pre-trained model and of the one that never knew.
    """
    found = Errors(errors, alpha, n_resamples)
    rows = []
    for k in found.shown:
        for gamma in found.gammas:
            row: dict[str, object] = {
                "alpha": found.table["alpha"].iloc[0],
                "k": k,
                "gamma": gamma,
                "n_seeds": len(found.seeds),
            }
            for model in SHOWN:
                row |= as_columns(NAMES[model], found.of(Of(model, k=k, gamma=gamma)))
            row |= as_columns("recovered", recovered(found, k, gamma))
            row |= as_columns("closed", closed(found, k, gamma))
            row |= as_columns("harm", change(found, "pre-trained", k, gamma))
            row |= as_columns("never_change", change(found, "discrete-only", k, gamma))
            rows.append(row)
    return pd.DataFrame(rows)


def told(found: pd.DataFrame) -> pd.Series | None:
    """Choose the row of which sentences tell: the smallest scale above 1; None without any.

    found: from `table`. At 5 examples where these were asked, else at the most.
    """
    k = 5 if 5 in set(found["k"]) else found["k"].max()
    own = found[(found["k"] == k) & (found["gamma"] > 1)].sort_values("gamma")
    return None if own.empty else own.iloc[0]


def finding(found: pd.DataFrame) -> str:
    """Say in a clause what the scale of `told` brings back, and its controls.

    found: from `table`
    """
    row = told(found)
    if row is None:
        return "No scale of labels above 1 was tried"
    controls = (
        f"change the error of the pre-trained model by {estimate_of(row, 'harm')} and of the one "
        f"that never knew by {estimate_of(row, 'never_change')}, at {row['k']:.0f} examples"
    )
    scaled_by = f"labels scaled by {row['gamma']:g}"
    if np.isnan(row["recovered"]):
        return f"Fine-tuning is not shown to cost anything; {scaled_by} {controls}"
    returned = f"return {estimate_of(row, 'recovered')} of what fine-tuning cost"
    return f"{scaled_by.capitalize()} {returned}, and {controls}"


def draw(found: pd.DataFrame, gate: Gate) -> Figure:
    """Draw the error under each scale of labels, a panel a length, and the shares below.

    found: from `table`; gate: from `measures.judged`
    """
    measures = [*(NAMES[model] for model in SHOWN), "recovered", "closed"]
    wanted = ["k", "gamma", "n_seeds", *with_intervals([*measures, "harm", "never_change"])]
    intervals.require_columns(
        "table of conjugate prompts", found, wanted, "Pass implicit.conjugate.table."
    )
    said = title(finding(found), gate, int(found["n_seeds"].max()))
    lengths = sorted(set(found["k"]))
    with style([said]):
        figure = Figure(figsize=(TEXT_WIDTH, 4.9), layout="constrained")
        panels = figure.subplots(2, len(lengths), sharex=True, squeeze=False)
        for k, (above, below) in zip(lengths, panels.T, strict=True):
            rows = found[found["k"] == k].sort_values("gamma")
            first = k == lengths[0]
            for model in SHOWN:
                line(above, rows, "gamma", NAMES[model])
            above.set_ylim(bottom=0)
            panel(above, f"{k} examples", "", "error, continuous prompts" * first)
            below.axhline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
            scales = rows[rows["gamma"] != 1]
            curve(below, scales, "gamma", "recovered", "share returned", "D", VERMILION)
            curve(
                *(below, scales, "gamma", "closed", "share of the gap to pre-trained, same scale"),
                *("o", BLUE, ":"),
            )
            low, high = below.get_ylim()
            below.set_ylim(max(low, -3.0), min(max(high, 1.05), 3.0))
            say_where_nothing(below, scales["recovered"], "no loss is shown")
            panel(below, "", "scale of labels", "share of what was lost" * first)
        return framed(figure, said, 2)
