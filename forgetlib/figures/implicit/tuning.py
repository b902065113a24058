"""Show what fine-tuning on the discrete set costs on all other prompts, and which it costs most.

After arXiv 2309.10105, section 2: the error on continuous prompts rises at once, and most for those
that are likely under the discrete set.
"""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.bootstrap import difference
from forgetlib.figures.implicit.lines import curve, framed, line, panel
from forgetlib.figures.implicit.measures import (
    SHOWN_EXAMPLES,
    Errors,
    Gate,
    Of,
    title,
)
from forgetlib.figures.intervals import N_RESAMPLES, Interval, as_columns, with_intervals
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.style import BLACK, TEXT_WIDTH, style
from forgetlib.implicit.prompts import KINDS

QUARTERS = (1, 2, 3, 4)


def table(
    errors: pd.DataFrame, alpha: float | None = None, *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Measure errors before and after fine-tuning, of all prompts and of quarters of them.

    errors: "results" of `forgetlib.implicit.results.read`; alpha: the mixture weight

    Columns: alpha, kind (of the prompts' vectors), k (examples), quarter (0 all; 1 to 4 from the
    least to the most likely under the discrete set), n_seeds, and with their intervals the mean
    squared errors pre_trained, fine_tuned, bayes and discrete, and rise, fine_tuned less
    pre_trained.
    """
    found = Errors(errors, alpha, n_resamples)
    rows = []
    for kind in KINDS:
        for k in found.examples:
            for quarter in (0, *QUARTERS):
                of = [
                    Of(model, kind, k, 1.0, quarter)
                    for model in ("pre-trained", "fine-tuned", "bayes", "discrete")
                ]
                if not all(map(found.has, of)):
                    continue
                row: dict[str, object] = {
                    "alpha": found.table["alpha"].iloc[0],
                    "kind": kind,
                    "k": k,
                    "quarter": quarter,
                    "n_seeds": len(found.seeds),
                }
                for one, name in zip(
                    of, ("pre_trained", "fine_tuned", "bayes", "discrete"), strict=True
                ):
                    row |= as_columns(name, found.of(one))
                row |= as_columns("rise", found.interval(difference(0, 1), of[1], of[0]))
                rows.append(row)
    return pd.DataFrame(rows)


def nearest_less_farthest(errors: Errors, k: int) -> Interval:
    """Subtract the rise of the least likely quarter from that of the most likely one.

    Of continuous prompts of k examples: above 0 where fine-tuning costs those most that are likely
    under the discrete set.
    """
    of = [
        Of(model, "continuous", k, 1.0, quarter)
        for quarter in (QUARTERS[-1], QUARTERS[0])
        for model in ("fine-tuned", "pre-trained")
    ]
    return errors.interval(lambda m: m[..., 0] - m[..., 1] - m[..., 2] + m[..., 3], *of)


def finding(found: pd.DataFrame) -> str:
    """Say in a clause what fine-tuning costs, and where most.

    found: from `table`. Of the largest number of examples at which pictures look.
    """
    own = found[found["kind"] == "continuous"]
    k = _lengths(found)[-1]
    whole = own[(own["k"] == k) & (own["quarter"] == 0)].iloc[0]
    said = f"Fine-tuning changes the error of continuous prompts by {estimate_of(whole, 'rise')}"
    near = own[(own["k"] == k) & (own["quarter"] == QUARTERS[-1])]
    far = own[(own["k"] == k) & (own["quarter"] == QUARTERS[0])]
    if len(near) and len(far):
        said += (
            f", of those likeliest under the discrete set by {estimate_of(near.iloc[0], 'rise')}, "
            f"of the least likely by {estimate_of(far.iloc[0], 'rise')}"
        )
    return f"{said}, at {k} examples"


def draw(found: pd.DataFrame, gate: Gate) -> Figure:
    """Draw the error before and after over the number of examples, and the rise by quarter.

    found: from `table`; gate: from `measures.judged`
    """
    measures = ["pre_trained", "fine_tuned", "bayes", "rise"]
    wanted = ["kind", "k", "quarter", "n_seeds", *with_intervals(measures)]
    intervals.require_columns("table of fine-tuning", found, wanted, "Pass implicit.tuning.table.")
    said = title(finding(found), gate, int(found["n_seeds"].max()))
    lengths = _lengths(found)
    with style([said]):
        figure = Figure(figsize=(TEXT_WIDTH, 3.0), layout="constrained")
        *of_kinds, last = figure.subplots(1, 3)
        for axes, kind in zip(of_kinds, KINDS, strict=True):
            rows = found[(found["kind"] == kind) & (found["quarter"] == 0)]
            for measure in measures[:-1]:
                line(axes, rows, "k", measure)
            axes.set_ylim(bottom=0)
            panel(axes, f"{kind} prompts", "examples", "mean squared error" * (kind == KINDS[0]))
        last.axhline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        colours = sns.color_palette("viridis", len(lengths) + 1).as_hex()
        for k, colour, marker in zip(lengths, colours, ("^", "v", ">"), strict=False):
            rows = found[(found["kind"] == "continuous") & (found["k"] == k)]
            rows = rows[rows["quarter"] > 0]
            curve(last, rows, "quarter", "rise", f"rise at {k} examples", marker, colour)
        last.set_xticks(QUARTERS)
        panel(last, "rise, continuous prompts", "quarter: 4 likeliest discrete")
        return framed(figure, said)


def _lengths(found: pd.DataFrame) -> list[int]:
    """List the numbers of examples that are picked out, where quarters can be told apart."""
    there = sorted(set(found.loc[found["quarter"] > 0, "k"])) or sorted(set(found["k"]))
    return [k for k in SHOWN_EXAMPLES if k in there] or there[-1:]
