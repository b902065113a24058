"""The claims of the paper and what these runs say of each, in one picture."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    style,
)

VALUE = ["value", "low", "high"]
VERDICT_MARKS = {
    "holds": ("o", BLUE, True),
    "does not hold": ("D", VERMILION, True),
    "not decided by these data": ("s", GREY, False),
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw each claim's statistic and interval, threshold, verdict, and the paper's number.

    table: from `claims.verdicts`
    """
    require_columns(
        table,
        ["claim", "statistic", *VALUE, "statement", "threshold", "paper", "verdict", "n", "unit"],
    )
    rows = readable(table).rename(columns=dict(zip(VALUE, with_intervals(["value"]), strict=True)))
    y = np.arange(len(rows))[::-1]
    with style(rows["statistic"]):
        figure = Figure(figsize=(TEXT_WIDTH, 0.8 + 0.39 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for verdict, (marker, colour, filled) in VERDICT_MARKS.items():
            of_kind = (rows["verdict"] == verdict).to_numpy()
            some = rows[of_kind]
            draw_intervals(axes, some, "value", y[of_kind], verdict, marker, colour, filled)
        axes.plot(
            *(rows["paper"], y + 0.22, "*"),  # above a point of ours at the same value
            color=ORANGE,
            markeredgecolor=BLACK,
            markeredgewidth=0.5,
            markersize=7,
            label="the paper's value",
        )
        # Nearly all lie between -1 and 1; one wide interval would press the others together.
        values = rows[["value", "paper"]].to_numpy(float)
        low, high = np.nanmin(values, initial=-1) - 0.2, np.nanmax(values, initial=1) + 0.2
        for at, statement, threshold in zip(y, rows["statement"], rows["threshold"], strict=True):
            left = {"above": threshold, "below": low}.get(statement, -threshold)
            right = {"above": high, "below": threshold}.get(statement, threshold)
            axes.barh(at, right - left, 0.8, left, color=BLUE, alpha=0.13, linewidth=0, zorder=0)
        axes.set_xlim(low, high)
        axes.set_yticks(
            y,
            [
                f"{claim}\n{textwrap.fill(statistic, 56, break_on_hyphens=False)}"
                for claim, statistic in zip(rows["claim"], rows["statistic"], strict=True)
            ],
        )
        axes.set_ylim(-0.6, len(rows) - 0.4)
        figure.supxlabel("value of the statistic (shaded: where the claim holds)", fontsize=8)
        axes.tick_params(axis="y", labelsize=SMALL)
        axes.grid(axis="y", visible=False)
        sns.despine(ax=axes, left=True)
        for at, (_, row) in zip(y, rows.iterrows(), strict=True):
            text = f"{row['n']:.0f} {row['unit']}" if row["n"] > 0 else "no data"
            if row["value_low"] < low or row["value_high"] > high:
                text += f"\n[{row['value_low']:.1f}, {row['value_high']:.1f}]".replace("-", "−")
            axes.text(
                *(1.02, at, text),
                transform=axes.get_yaxis_transform(),
                fontsize=SMALL,
                va="center",
            )
        figure.legend(loc="outside upper center", ncols=4, frameon=False, handletextpad=0.2)
    return figure
