"""Draw a stored case: every question's confidence before and after; and show single questions."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.data.base import Example
from forgetlib.figures.explore.explore import NAMES, PARTS, STEPS, Case, fates
from forgetlib.figures.fig1 import LABEL_MARKS
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.join import PHASES
from forgetlib.figures.names import listed, title
from forgetlib.figures.notebook import Shown, show
from forgetlib.figures.numbers import estimate_of, number
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREY,
    SMALL,
    TEXT_WIDTH,
    marks_of,
    readable,
    require_columns,
    set_finding,
    style,
)
from forgetlib.metrics import CHANCE

FORGETTING = next(iter(STEPS))
EDGE = 1e-4  # a confidence nearer to 0 or 1 is drawn as if it were this near
LIMIT = 6e-6  # of the axes: beyond all dots, so that the corners have room for text
TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
WIDE_TICKS = (0.001, 0.1, 0.5, 0.9, 0.999)  # along a panel, whose numbers stand side by side
CORNERS = {  # of a fate: where its count stands, and how it is aligned there
    "lost": (0.97, 0.03, "right", "bottom"),
    "kept": (0.97, 0.97, "right", "top"),
    "gained": (0.03, 0.97, "left", "top"),
    "never right": (0.03, 0.03, "left", "bottom"),
}


def summary(table: pd.DataFrame) -> Shown:
    """Show the numbers of a case; table: from `explore.table`."""
    shown = table.assign(measure=table["measure"].replace({"auroc": "AUROC"}))
    return show(shown, ["part", "measure", "n", *PHASES, "change"], NAMES)


def finding(table: pd.DataFrame, step: str = FORGETTING) -> str:
    """Say in a sentence what became of new questions; table: from `explore.table`, of this step."""
    of = table[table["part"] == PARTS["test"]].set_index("measure")
    task, method = title(str(table["eval_task"].iloc[0])), str(table["method"].iloc[0])
    said = [
        f"{name} goes from {before} to {after} ({estimate_of(of.loc[measure], 'change')})"
        for measure, name in (("accuracy", "accuracy"), ("auroc", "AUROC"))
        if measure in of.index and of.loc[measure, [*STEPS[step], "change"]].notna().all()
        for before, after in [[number(of.loc[measure, phase]) for phase in STEPS[step]]]
    ]
    what = listed(said) if said else "what became of them is not known"
    return f"{task}, {method}: on new questions {what}"


def draw(
    questions: pd.DataFrame, table: pd.DataFrame, step: str = FORGETTING, picked: str = ""
) -> Figure:
    """Draw the confidence of every question before and after, in and outside the forgetting set.

    A dot a question; below the dashed line it is answered wrongly. A skill that is gone is a band
    at 0.5, one that was shifted a cloud that was moved.

    questions, table: from `explore.questions` and `explore.table`, of one case
    picked: the uid of a question to be marked
    """
    columns = ["eval_task", "part", "uid", "label", *PHASES]
    require_columns(questions, columns)
    require_columns(table, ["part", "measure", "n", *PHASES, *with_intervals(["change"])])
    said = finding(table, step)
    before, after = STEPS[step]
    with style([said]):
        figure = Figure(figsize=(TEXT_WIDTH, 3.35), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, part in zip(panels, PARTS.values(), strict=True):
            of = questions[(questions["part"] == part)].dropna(subset=[before, after])
            _panel(axes, of, step, picked)
            axes.set_title(f"{part} ({len(of)})")
            axes.set_xlabel(f"confidence, {NAMES[before]}")
        panels[0].set_ylabel(f"confidence, {NAMES[after]}")
        handles, labels = marks_of(panels)
        if handles:
            figure.legend(
                *(handles, labels),
                loc="outside lower center",
                ncols=len(labels),
                frameon=False,
                markerscale=2,
            )
        set_finding(figure, said)
    return figure


def _panel(axes: Axes, of: pd.DataFrame, step: str, picked: str) -> None:
    """Draw the questions of one part, on a scale that shows how near to 0 and 1 each is."""
    before, after = STEPS[step]
    axes.set(xscale="logit", yscale="logit", xlim=(LIMIT, 1 - LIMIT))
    axes.set_ylim(LIMIT, 1 - LIMIT)
    for axis, ticks in ((axes.xaxis, WIDE_TICKS), (axes.yaxis, TICKS)):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.tick_params(labelsize=6.5)
    for along in (axes.axhline, axes.axvline):
        along(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    sns.despine(ax=axes)
    if not len(of):
        axes.text(0.5, 0.5, "no data: not asked", transform=axes.transAxes, ha="center")
        return
    x, y = (of[phase].clip(EDGE, 1 - EDGE).to_numpy(float) for phase in (before, after))
    for label, (name, colour) in LABEL_MARKS.items():
        mask = (of["label"] == label).to_numpy()
        if mask.any():
            known = name if label or (of["label"] == "").all() else "not trained on a label"
            axes.scatter(x[mask], y[mask], s=6, color=colour, alpha=0.45, lw=0, label=known)
    mask = (of["uid"] == picked).to_numpy()
    if mask.any():
        axes.scatter(x[mask], y[mask], s=45, facecolor="none", edgecolor=BLACK, lw=1.2, zorder=3)
    shares = fates(of, step).value_counts(normalize=True)
    for fate, (right, up, ha, va) in CORNERS.items():
        axes.text(
            *(right, up, f"{100 * shares.get(fate, 0):.0f} % {fate}"),
            transform=axes.transAxes,
            ha=ha,
            va=va,
            fontsize=SMALL,
            color=DARK_GREY,
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
        )


# --- single questions


class Card:
    """Show one question: its text, what it was trained on, and the confidence in each phase."""

    def __init__(self, row: pd.Series, text: Example | None) -> None:
        self.row, self.text = row, text

    def _lines(self) -> list[tuple[str, str]]:
        row, text = self.row, self.text
        towards = {"true": "true response", "distractor": "distractor"}.get(row["label"], "-")
        found = [("question", f"{row['uid']} (seed {row['seed']}, {row['part']})")]
        if text is None:
            found.append(("text", "not stored with the results: see the task's own data"))
        else:
            found += [
                ("prompt", text.prompts[text.label]),
                ("true response", text.choices[text.label]),
                ("distractor", text.choices[1 - text.label]),
            ]
        return [*found, ("trained towards", towards)]

    def __repr__(self) -> str:
        lines = [f"{name + ':':16} {readable(text)}" for name, text in self._lines()]
        lines += [
            f"{NAMES[p] + ':':16} {number(self.row[p])} {'#' * round(20 * float(self.row[p]))}"
            for p in PHASES
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        name_style = 'style="color:#767676;padding:2px 12px 2px 0;white-space:nowrap;border:none;'
        name_style += 'text-align:left;vertical-align:top"'
        value_style = 'style="white-space:pre-wrap;text-align:left;border:none;padding:2px 0"'
        rows = [
            f"<tr><td {name_style}>{escape(name)}</td><td {value_style}>{escape(text)}</td></tr>"
            for name, text in self._lines()
        ]
        for phase in PHASES:
            value = float(self.row[phase])
            colour = BLUE if value > CHANCE else GREY
            bar = (
                f'<span style="display:inline-block;vertical-align:middle;height:9px;'
                f'width:{200 * value:.0f}px;background:{colour}"></span> {number(value)}'
            )
            rows.append(
                f"<tr><td {name_style}>confidence, {NAMES[phase]}</td>"
                f'<td style="border:none;text-align:left;padding:2px 0">{bar}</td></tr>'
            )
        return f'<table style="border-collapse:collapse;margin:0">{"".join(rows)}</table>'


def card(case: Case, row: pd.Series) -> Card:
    """Show one question of a case; row: of `explore.questions` or `explore.sample_of`."""
    return Card(row, case.texts.get(int(row["seed"]), {}).get(str(row["uid"])))


def shares(questions: pd.DataFrame, step: str = FORGETTING) -> Shown:
    """Show how many questions of each part were lost, kept, gained or never right."""
    table = pd.crosstab(questions["part"], fates(questions, step), normalize="index")
    order = [fate for fate in CORNERS if fate in table]
    found = table.reindex(index=list(PARTS.values()))[order].fillna(np.nan)
    return show(found.reset_index())
