"""Figure 7 of the paper: forgetting sets of several sizes.

The table is that of Figure 2, on the results of part "sizes": a row a task and size.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forgetlib.figures import fig2
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    panel_grid,
    readable,
    require_columns,
    say_where_nothing,
    style,
    used_panels,
    with_margin,
)
from forgetlib.metrics import CHANCE

table = fig2.table


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 7: accuracy after forgetting over the forgetting set's size, a panel a task.

    table: from `fig7.table` on the results of part "sizes", of one model
    """
    require_columns(table, ["eval_task", "size", "n", *with_intervals(["tuned", "forgotten"])])
    table = readable(table)
    by_task = dict(list(table.sort_values("size").groupby("eval_task")))
    names = sorted(by_task, key=lambda t: by_task[t]["forgotten"].iloc[-1], reverse=True)
    ticks = sorted(set(table["size"]))
    # A title of more letters is wider than a fifth of the page.
    n_rows, columns = panel_grid(len(names), 5 if max(map(len, names)) <= 17 else 4)
    with style(names):
        figure = Figure(figsize=(TEXT_WIDTH, 0.75 + 1.2 * n_rows), layout="constrained")
        panels = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False)
        # Stated, as the limits around a single size would be too close for the log scale's ticks.
        panels[0, 0].set(xscale="log", xlim=(ticks[0] / 1.5, ticks[-1] * 1.5))
        for axes, name in zip(used_panels(panels, len(names)), names, strict=True):
            rows = by_task[name]
            full = rows.iloc[-1]
            axes.axhspan(full["tuned_low"], full["tuned_high"], color=BLUE, alpha=0.15, linewidth=0)
            axes.axhline(full["tuned"], color=BLUE, linewidth=1)
            axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--")
            values = rows[with_intervals(["forgotten"])].to_numpy(float)
            axes.errorbar(
                *(rows["size"], values[:, 0]),
                yerr=np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0, None),
                fmt="D-",
                color=VERMILION,
                markersize=3.5,
                linewidth=1,
            )
            say_where_nothing(axes, values, "not known")
            axes.set_title(f"{name}\nn = {full['n']}", fontsize=SMALL)
            axes.set_xticks(ticks, [str(t) for t in ticks])
            axes.minorticks_off()
            axes.tick_params(labelsize=SMALL)
            sns.despine(ax=axes)
        panels[0, 0].set_ylim(*with_margin(table[["forgotten_low", "tuned_high"]].to_numpy()))
        only = "; the study has this one only" if len(ticks) == 1 else ""
        figure.supxlabel(f"size of the forgetting set (examples{only})", fontsize=8)
        figure.supylabel("accuracy on the test set", fontsize=8)
        figure.legend(
            handles=[
                Line2D([], [], color=BLUE, linewidth=1, label="fine-tuned"),
                Line2D([], [], color=VERMILION, marker="D", label="after forgetting"),
                Line2D([], [], color=BLACK, linewidth=0.8, linestyle="--", label="chance"),
            ],
            loc="outside upper center",
            ncols=3,
            frameon=False,
        )
    return figure
