"""The claims of the paper and what these runs say of each, in one picture."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.figures.findings import claims_finding
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.statements import (
    ABOVE,
    BELOW,
    CANNOT_DECIDE,
    DOES_NOT_HOLD,
    HOLDS,
    MEAN,
    NATS,
    RANK,
    SHARE,
    UNDECIDED,
)
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREY,
    LIGHT,
    ORANGE,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    marks_of,
    readable,
    require_columns,
    set_finding,
    style,
)

VALUE = ["value", "low", "high"]
VERDICT_MARKS = {
    HOLDS: ("o", BLUE, True),
    DOES_NOT_HOLD: ("D", VERMILION, True),
    UNDECIDED: ("s", GREY, True),
    CANNOT_DECIDE: ("s", GREY, False),
}
# Statistics of one kind have an axis in common, and its limits.
AXES = {SHARE: ("share", 0, 1), MEAN: ("difference", -1, 1), RANK: ("correlation", -1, 1)}
AXES |= {NATS: ("difference in nats", -1, 1)}


def draw(table: pd.DataFrame, of: str = "the paper's claims") -> Figure:
    """Draw each claim's statistic and interval, threshold, verdict, and the paper's number.

    table: from `claims.verdicts`; of: whose claims they are, for the title. Post hoc: stated after
    the study was computed.
    """
    columns = ["claim", "statistic", *VALUE, "statement", "threshold", "ceiling", "paper"]
    require_columns(table, [*columns, "verdict", "why", "n", "unit", "axis"])
    said = claims_finding(table, of)
    rows = readable(table).rename(columns=dict(zip(VALUE, with_intervals(["value"]), strict=True)))
    parts = [rows[rows["axis"] == axis] for axis in AXES]
    parts = [part for part in parts if len(part)]
    with style([*rows["statistic"], said]):
        size = (TEXT_WIDTH, 1.3 + 0.35 * len(parts) + 0.34 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        heights = [len(part) for part in parts]
        panels = figure.subplots(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, part in zip(panels, parts, strict=True):
            _draw_part(axes, part)
        figure.legend(
            *marks_of(panels),
            loc="outside lower center",
            ncols=3,
            frameon=False,
            handletextpad=0.2,
        )
        set_finding(figure, said)
    return figure


def _draw_part(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the statistics that share an axis."""
    name, least, most = AXES[rows["axis"].iloc[0]]
    y = np.arange(len(rows))[::-1]
    for verdict, (marker, colour, filled) in VERDICT_MARKS.items():
        of_kind = (rows["verdict"] == verdict).to_numpy()
        if of_kind.any():
            some = rows[of_kind]
            draw_intervals(axes, some, "value", y[of_kind], verdict, marker, colour, filled)
    _draw_marks(axes, rows["ceiling"], y, "|", DARK_GREY, "ceiling (an estimate)")
    _draw_marks(axes, rows["paper"], y + 0.22, "*", ORANGE, "the paper's value")
    # One interval that is wider would press the others together.
    values = rows[["value", "paper"]].to_numpy(float)
    low, high = np.nanmin(values, initial=least) - 0.1, np.nanmax(values, initial=most) + 0.1
    for at, statement, threshold in zip(y, rows["statement"], rows["threshold"], strict=True):
        left = {ABOVE: threshold, BELOW: low}.get(statement, -threshold)
        right = {ABOVE: high, BELOW: threshold}.get(statement, threshold)
        axes.barh(at, right - left, 0.8, left, color=BLUE, alpha=0.13, linewidth=0, zorder=0)
    axes.set_xlim(low, high)
    names = [textwrap.fill(s, 58, break_on_hyphens=False) for s in rows["statistic"]]
    axes.set_yticks(y, names)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{name} (shaded: where the claim holds)")
    axes.tick_params(axis="y", labelsize=SMALL)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=LIGHT, linewidth=0.8, zorder=0)
    sns.despine(ax=axes, left=True)
    for at, (_, row) in zip(y, rows.iterrows(), strict=True):
        unit = row["unit"].removesuffix("s") if row["n"] == 1 else row["unit"]
        text = f"{row['n']:.0f} {unit}" if row["n"] > 0 else "no data"
        text += ", post hoc" if row.get("post_hoc", False) else ""
        if isinstance(row["why"], str) and row["why"]:
            text = textwrap.fill(f"{text}: {row['why']}" if row["n"] > 0 else row["why"], 32)
        axes.text(
            *(1.02, at, text),
            transform=axes.get_yaxis_transform(),
            fontsize=SMALL - 0.5,
            va="center",
        )


def _draw_marks(
    axes: Axes, values: pd.Series, y: np.ndarray, marker: str, colour: str, label: str
) -> None:
    if values.notna().any():
        axes.plot(
            *(values, y, marker),
            color=colour,
            markeredgecolor=BLACK if marker == "*" else colour,
            markeredgewidth=0.5 if marker == "*" else 1.2,
            markersize=7 if marker == "*" else 9,
            label=label,
        )
