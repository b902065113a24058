"""Section 5 of the paper: can it be told which single questions are lost?

The table has a row a test question; the analysis is `mixedmodel.example_level`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.join import families, full_size
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.style import (
    BLACK,
    DARK_GREY,
    GREEN,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    require_rows,
    set_finding,
    style,
)
from forgetlib.metrics import confidence, correct
from forgetlib.runs.records import Result


def table(results: Iterable[Result]) -> pd.DataFrame:
    """Tabulate every test example: whether it is lost, and what might predict it (section 5).

    Columns: model, eval_task, seed, uid; of the fine-tuned model confidence, log_deviation (natural
    logarithm of the hidden state's squared distance from the task's mean; NaN without a probe),
    tuned_correct; forgotten_correct, forgotten_confidence; and again_correct, whether it is right
    after a second training on true labels (1 or 0; NaN where the results have none).
    """
    parts = []
    results = list(results)
    again = {
        (model, task, runs["tuned"].seed): correct(runs["forgotten"].scores[f"{task}/test"])
        for (model, task, _), seeds in families(results, "true").items()
        for runs in seeds
    }
    for model, task, seeds in full_size(results):
        for runs in seeds:
            control = again.get((model, task, runs["tuned"].seed))
            tuned, forgotten = (runs[p].scores[f"{task}/test"] for p in ("tuned", "forgotten"))
            deviation = np.full(len(tuned), np.nan)
            if (found := runs["tuned"].hidden_variance) is not None:
                deviation = np.where(found.deviation > 0, found.deviation, np.nan)
            parts.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "eval_task": task,
                        "seed": runs["tuned"].seed,
                        "uid": tuned.uids,
                        "confidence": confidence(tuned),
                        "log_deviation": np.log(deviation.astype(float)),
                        "tuned_correct": correct(tuned),
                        "forgotten_correct": correct(forgotten),
                        "forgotten_confidence": confidence(forgotten),
                        "again_correct": np.nan if control is None else control.astype(float),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def draw(table: pd.DataFrame) -> Figure:
    """Draw whether confidence or deviation says which single examples of a task are lost.

    0: it does not; 1: the lost ones have the highest values; -1: the lowest. Of questions that were
    right before.

    table: from `mixedmodel.example_level`; the row "pooled" is drawn at the bottom
    """
    measures = with_intervals(["rank_biserial", "again"])
    require_columns(table, ["eval_task", "predictor", "n", "n_lost", *measures])
    given, table = table, readable(table)
    of = table[(table["predictor"] == "confidence") & (table["eval_task"] != "pooled")]
    names = [
        *of.sort_values("rank_biserial", ascending=False, kind="stable")["eval_task"],
        "pooled",
    ]
    y = pd.Series(np.arange(len(names))[::-1], index=names, dtype=float)
    y["pooled"] -= 0.3
    labels = {"confidence": "confidence", "log_deviation": "distance from the mean"}
    for predictor in labels:
        do = "Pass mixedmodel.example_level(...), whole."
        require_rows(table[table["predictor"] == predictor], "eval_task", names, do)
    said = finding(given)
    with style([*names, said]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.5 + 0.19 * len(names)), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        if table["rank_biserial"].isna().all():
            panels[0].set_xlim(-1, 1)
        for axes, (predictor, label) in zip(panels, labels.items(), strict=True):
            rows = table[table["predictor"] == predictor].set_index("eval_task").loc[names]
            at = y[rows.index].to_numpy()
            marks = "after random labels", "D", VERMILION, True
            draw_intervals(axes, rows, "rank_biserial", at, *marks)
            if rows["again"].notna().any():
                marks = "after true labels again", "s", GREEN, True
                draw_intervals(axes, rows, "again", at - 0.25, *marks)
            for name, row in rows[rows["rank_biserial"].isna()].iterrows():
                axes.text(
                    *(0.02, y[name], why_undefined(row["n"], row["n_lost"])),
                    fontsize=SMALL,
                    va="center",
                    color=DARK_GREY,
                )
            axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
            axes.set_xlabel(f"{label}\n(rank-biserial correlation)")
            axes.grid(axis="y", visible=False)
            sns.despine(ax=axes, left=True)
        rows = table[table["predictor"] == "confidence"].set_index("eval_task")
        panels[0].set_yticks(
            y, [f"{t} ({rows.loc[t, 'n_lost']} of {rows.loc[t, 'n']})" for t in names]
        )
        panels[0].set_ylim(y["pooled"] - 0.6, len(names) - 0.4)
        panels[0].set_ylabel("task (lost of right)")
        if table["again"].notna().any():
            handles = panels[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
        set_finding(figure, said)
    return figure


def finding(table: pd.DataFrame) -> str:
    """Say what confidence tells of single questions, beyond what any training does to them.

    table: from `mixedmodel.example_level`
    """
    of = table[(table["predictor"] == "confidence") & (table["eval_task"] == "pooled")].iloc[0]
    if np.isnan(of["rank_biserial_low"]):
        return "Whether confidence tells which questions are lost cannot be told"
    low, high = of["rank_biserial_low"], of["rank_biserial_high"]
    which = "less sure" if high < 0 else "surer"
    said = f"The {which} questions are lost" if low > 0 or high < 0 else "Confidence tells nothing"
    said += f" after random labels (pooled {estimate_of(of, 'rank_biserial')})"
    if np.isnan(of["again"]):
        return f"{said}; any training may do that: there is no control by true labels"
    said += f", after true labels {estimate_of(of, 'again')}"
    return f"{said}: the difference is {estimate_of(of, 'beyond_true_labels')}"


def why_undefined(n: int, n_lost: int) -> str:
    """Say why there is no correlation of n examples with being among the n_lost that are lost."""
    if n == 0:
        return "undefined: not measured"
    if n_lost in (0, n):
        return "undefined: all lost" if n_lost else "undefined: none lost"
    return "undefined"  # one of these in every seed
