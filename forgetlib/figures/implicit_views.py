"""Tell what asking in another form brings back after forgetting, and whether more with distance.

After arXiv 2309.10105, section 3.3, on the models of a study of methods (`ladders.of_study`), which
keeps its scores in other forms. What forgetting cost is AUROC of the known less the forgotten
model, asked plainly; a form brings back what the forgotten model then has more. Two controls stand
beside it: models that were never taught the skill and forgot the same way, which a form should give
nothing, and the known model, which a form may harm by itself. A form counts only where the known
model is above chance in it: else nobody could show the skill there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import intervals
from forgetlib.figures.implicit_lines import framed
from forgetlib.figures.intervals import (
    UNDEFINED,
    Interval,
    as_columns,
    rank_correlation,
    with_intervals,
)
from forgetlib.figures.ladders import of_view
from forgetlib.figures.names import method_title, title
from forgetlib.figures.numbers import estimate, number
from forgetlib.figures.rows import mark
from forgetlib.figures.rungs import DIRECT, Ladder, Rung
from forgetlib.figures.statements import ABOVE, RANK, Statement, row
from forgetlib.figures.style import (
    BLUE,
    GREY,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    say_where_nothing,
    style,
)
from forgetlib.metrics import CHANCE
from forgetlib.runs.ladder import FORGOTTEN, KNOWN, ORACLE

MEASURES = ("known", "recovered", "never_taught", "known_change")
GROWS = Statement(ABOVE, 0.0, 0.5, RANK, stated="2026-11-28")


def table(ladders: Mapping[tuple[str, str], Ladder]) -> pd.DataFrame:
    """Measure every form in which a skill was asked, a row a skill, method and form.

    ladders: from `ladders.of_study`

    Columns: eval_task, method, form, n_seeds, counts (whether the known model is above chance in
    this form, by its whole interval), and with their intervals known, its AUROC there; as shares of
    what forgetting cost (undefined where no cost is shown): recovered, what the forgotten model
    gains by the form; never_taught, what models gain that were never taught; known_change, what the
    known model gains. And gain and cost, numerator and denominator of recovered, NaN where that is.
    """
    rows = []
    for (task, method), ladder in ladders.items():
        for rung in ladder.rungs:
            if rung.kind != "form":
                continue
            known = ladder.of("auroc", KNOWN, rung)
            counts = bool(known.low > CHANCE)
            of: dict[str, object] = {
                "eval_task": task,
                "method": method,
                "form": rung.name,
                "n_seeds": len(ladder.seeds),
                "counts": counts,
            }
            of |= as_columns("known", known)
            for name, role in (
                ("recovered", FORGOTTEN),
                ("never_taught", ORACLE),
                ("known_change", KNOWN),
            ):
                of |= as_columns(name, _gain(ladder, role, rung) if counts else UNDEFINED)
            here, direct = (ladder.of("auroc", FORGOTTEN, r).value for r in (rung, DIRECT))
            defined = pd.notna(of["recovered"])
            of["gain"] = here - direct if defined else np.nan
            of["cost"] = ladder.of("auroc", KNOWN).value - direct if defined else np.nan
            rows.append(of)
    columns = ["eval_task", "method", "form", "n_seeds", "counts", *with_intervals(MEASURES)]
    columns += ["gain", "cost"]
    return pd.DataFrame(rows, columns=columns)


def _gain(ladder: Ladder, role: str, rung: Rung) -> Interval:
    """Tell what a role's models gain by a form, as a share of what forgetting cost."""
    if not ladder.has(role, rung):
        return UNDEFINED
    own = [("auroc", role, rung), ("auroc", role, DIRECT)]
    lost = [("auroc", KNOWN, DIRECT), ("auroc", FORGOTTEN, DIRECT)]
    return ladder.ratio(
        [*own, *lost], lambda m: m[..., 0] - m[..., 1], lambda m: m[..., 2] - m[..., 3]
    )


def with_distances(found: pd.DataFrame, distances: Mapping[str, float]) -> pd.DataFrame:
    """Add the distance of each form: nats a token of the prompts as it shows them.

    found: from `table`; distances: by view, as "leet", from `scoring.nats_a_token`
    """
    named = {of_view(view).name: distance for view, distance in distances.items()}
    return found.assign(distance=found["form"].map(named).astype(float))


def distance_claim(found: pd.DataFrame) -> pd.DataFrame:
    """Judge that recovery grows with distance: one row, in the columns of `statements.row`.

    found: from `with_distances`. The rank correlation over forms of the share that comes back, its
    gains by its costs summed over cases, and the distance, of forms that count.
    """
    known = found[found["counts"] & found["recovered"].notna() & found["distance"].notna()]
    means = known.groupby("form")[["gain", "cost", "distance"]].mean()
    means["recovered"] = means["gain"] / means["cost"]
    value = UNDEFINED
    if len(means) > 1:
        value = rank_correlation(means["distance"].to_numpy(), means["recovered"].to_numpy())
    said = "rank correlation over forms of what comes back and of the prompts' nats a token"
    lacks = "" if len(means) else "a form in which the known model is above chance"
    return row(said, GROWS, value, len(means), unit="forms", lacks=lacks)


def finding(found: pd.DataFrame) -> str:
    """Say in a sentence in how many cases a form brings back more than controls gain.

    found: from `table`
    """
    own = found[found["counts"] & found["recovered"].notna()]
    if own.empty:
        return "In no form and task is there both a loss and a known model above chance"
    gain = estimate(intervals.mean_interval(own["gain"].to_numpy(float)))
    said = (
        f"Another form changes AUROC by {gain}, where forgetting cost {number(own['cost'].mean())} "
        f"(means of {len(own)} cases); by its own interval it brings something back in "
        f"{int((own['recovered_low'] > 0).sum())}"
    )
    compared = own[own["never_taught"].notna()]
    if compared.empty:
        return f"{said}. Models that were never taught are not there to compare with"
    more = compared["recovered_low"] > np.fmax(0, compared["never_taught_high"])
    return f"{said}, beyond models that were never taught in {int(more.sum())} of {len(compared)}"


def draw(found: pd.DataFrame) -> Figure:
    """Draw what each form brings back, beside its two controls, a row a skill, method and form.

    found: from `table`; cases that do not count are left out
    """
    require_columns(found, ["eval_task", "method", "form", "counts", *with_intervals(MEASURES)])
    said = finding(found)
    shown = found[found["counts"].astype(bool)].sort_values(["eval_task", "method", "recovered"])
    names = [
        readable(f"{title(t)}, {method_title(m)}: {f}")
        for t, m, f in zip(shown["eval_task"], shown["method"], shown["form"], strict=True)
    ]
    y = np.arange(len(shown), dtype=float)
    with style(names, [said]):
        height = min(9.4, 1.5 + 0.3 * max(len(shown), 1))
        figure = Figure(figsize=(TEXT_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        for measure, label, marker, colour, up in (
            ("recovered", "forgotten", "D", VERMILION, 0.2),
            ("never_taught", "never taught", "s", GREY, 0.0),
            ("known_change", "known", "o", BLUE, -0.2),
        ):
            draw_intervals(axes, shown, measure, y + up, label, marker, colour, True)
        mark(axes, 0)
        say_where_nothing(axes, shown["recovered"], "undefined")
        axes.set_yticks(y, names, fontsize=SMALL)
        axes.set_ylim(-0.6, max(len(shown), 1) - 0.4)
        axes.set_xlabel("gained by the form, as a share of what forgetting cost (AUROC)")
        return framed(figure, said)
