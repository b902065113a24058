"""Draw what little training brings back: one panel a method, labels spent against AUROC.

Of the ladder (`ladder_figure`) the part that decides: each model as it is, and trained on a few and
on many true labels. A skill that was hidden is back after few labels. One that is gone comes as
slowly as to models that were never taught it: where a forgotten model rises no faster, this
training found nothing left, or damage kept the model from learning. Where there is a model whose
skill was hidden on purpose, it tells whether such a training finds a hidden skill. Beside them
stand the never-taught model that the same method was tried on (the twin), as a method by itself may
make models learn faster or slower, and models trained on random labels, which have nothing to
teach.

The table is `rungs.table`, a row a rung.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from forgetlib.errors import InputError
from forgetlib.figures import intervals
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.methods.ladder_figure import JOINED, LINES, legend_below
from forgetlib.figures.methods.rungs import TEACHING, TRIED, at_dose, seeds_of
from forgetlib.figures.names import listed, method_title, method_titles, title
from forgetlib.figures.numbers import estimate_of, number
from forgetlib.figures.style import (
    BLACK,
    DARK_GREY,
    SMALL,
    TEXT_WIDTH,
    heading,
    name_grid,
    set_finding,
    style,
)
from forgetlib.figures.verdicts import HALF
from forgetlib.metrics import CHANCE

ROLES = ("known", "forgotten", "oracle", "twin", "locked")
LESS, MORE = "less than half of what was taught", "more than never-taught models show"
BESIDE = "not shown to be more than the never-taught model of the same method shows"
# Of the excess, and in round brackets that beyond the twin.
SCALE = (
    "on a scale from never-taught models (0; in round brackets, from the one that the same method "
    "was tried on) to ones that never forgot (1)"
)
SHORT_SCALE = "on a scale from never-taught models (0) to ones that never forgot (1)"
BRIEF_SCALE = "0: never-taught models (in brackets: the one of the same method); 1: never forgotten"
PER_ROW = 3  # panels
ASIDE = 0.1  # of places, between models


def judged(table: pd.DataFrame, kind: str = "relearned") -> pd.DataFrame:
    """Take what models show once given the fewest labels: a row a method, most excess first.

    Not of models that show most of the skill anyway, as nothing had to come back.

    table: from `rungs.table`, of one skill
    kind: "relearned", trained on labels, or "context", with labelled examples in the prompt
    Returns two more columns: opposes, whether the method makes true responses less likely, and so
    may itself have taught what is found (known where never-taught models were shown the true
    labels by it); and turned, whether it is not excluded that with the sign corrected half of the
    skill or more is there without any label.
    """
    kept = table.loc[(table["kind"] == "direct") & (table["excess_low"] > HALF), "method"]
    rows = table[(table["kind"] == kind) & table["excess"].notna()]
    rows = rows[~rows["method"].isin(kept)]
    rows = rows[rows["labels"] == rows["labels"].min()]
    signed = table[table["kind"] == "signed"].set_index("method")
    less = signed.index[signed["excess_high"] < HALF]
    shown = signed.index[signed["shown"].astype(bool)]
    rows = rows.assign(
        opposes=rows["method"].isin(shown),
        turned=rows["method"].isin(signed.index) & ~rows["method"].isin(less),
    )
    return rows.sort_values("excess", ascending=False, kind="stable")


def finding(table: pd.DataFrame, kind: str = "relearned", *, exact: bool = True) -> str:
    """Say what models show of a skill once given the fewest labels; "" where none were.

    Whatever the verdict, as a damaged model can be trained again too. It says what is there, also
    without the labels; and last, what else would keep a skill from coming back.

    table, kind: as of `judged`
    exact: tell of never-taught models, too, and of the one that the same method was tried on
    """
    rows = judged(table, kind)
    if rows.empty:
        return ""
    beyond, less, rest = groups(rows)
    # A study that has such a control asks this first: there every number is told.
    every = kind == "relearned" and _has_control(table)
    parts = [(beyond, f"{{}}: {MORE}")]
    if every:
        seems = (rest["excess_low"] > 0) & ~rest["opposes"]  # the number alone seems to decide
        undosed = seems & (rest["twin_excess_low"] > 0)
        beside = seems & ~undosed & ~exact
        parts += [(less, f"{{}}: {LESS}"), (rest[~beside & ~undosed], "{}: not decided")]
        parts += [(rest[beside], f"{{}}: {BESIDE}")]
        alone = [rest.loc[[name]] for name in rest.index[undosed]]
        parts += [(of, f"{{}}: {MORE}, but {_of_dose(of.iloc[0])}") for of in alone]
    placed = [
        words.format(listed(with_excess(of, rows, beyond_twin=exact)))
        for of, words in parts
        if len(of)
    ]
    others = [] if every else [(less, f"{LESS} after {{}}"), (rest, "after {} it is not decided")]
    left = [words.format(listed(named(of, rows))) for of, words in others if len(of)]
    (task,) = set(rows["eval_task"])
    said = f"{_given(rows, table, kind, exact)}, models show "
    if placed:
        scale = SCALE if exact else SHORT_SCALE
        said += f"of {title(task)}, {scale}, {'; '.join([*placed, *left])}"
    else:
        said += f"of {title(task)} {'; '.join(left)}"
    if kind != "relearned":
        return said
    return f"{said}. {control(table)}"


def headline(table: pd.DataFrame) -> str:
    """Say the same by the methods' names alone, for where the picture has the numbers."""
    rows = judged(table)
    if rows.empty:
        return "No model was taught again yet"
    beyond, less, rest = (listed(named(of, rows)) for of in groups(rows))
    parts = {
        f"show {MORE} after {beyond}": beyond,
        f"{'' if beyond else 'show '}{LESS} after {less}": less,
        f"after {rest} it is not decided": rest,
    }
    said = "; ".join(words for words, names in parts.items() if names)
    (task,) = set(rows["eval_task"])
    n = int(rows["labels"].iloc[0])
    return (
        f"Of {title(task)}, models trained again on {n} labels {said}. {control(table, brief=True)}"
    )


def control(table: pd.DataFrame, *, brief: bool = False) -> str:
    """Say what else would keep a skill from coming back, and whether a hidden one does come back.

    table: as of `judged`; brief: of a hidden one the numbers alone
    """
    if not _has_control(table):
        return "Damage, or so short a training, may keep a model from learning"
    after = _fewest(table).iloc[0]
    of = table[table["method"] == after["method"]]
    before = of[of["kind"] == "direct"].iloc[0]
    ends = f"{estimate_of(before, 'locked_excess')} of it before this training and "
    ends += f"{estimate_of(after, 'locked_excess')} after"
    if brief:
        return f"Where it was hidden on purpose: {ends}"
    ends += f", {estimate_of(after, 'locked_rise')} more"
    said = (
        "The control: models whose skill was hidden on purpose, behind another form of the "
        f"question, show {ends}"
    )
    if after["finds"]:
        return f"{said}; it may miss one hidden in another way, and a damaged model may not learn"
    return (
        f"{said}, so that it is not decided whether it finds a hidden skill; damage, too, may keep "
        "a model from learning"
    )


def tells(table: pd.DataFrame) -> bool:
    """Tell whether the fewest labels answer anything.

    Where they bring something back, or there is a model whose skill was hidden on purpose, by which
    to judge: without that, that little comes back says nothing.

    table: as of `judged`
    """
    rows = judged(table)
    return not rows.empty and (len(groups(rows)[0]) > 0 or _has_control(table))


def _has_control(table: pd.DataFrame) -> bool:
    """Tell whether a model whose skill was hidden on purpose was taught again."""
    taught = _fewest(table)
    return not taught.empty and not np.isnan(taught["locked_excess"].iloc[0])


def _fewest(table: pd.DataFrame) -> pd.DataFrame:
    """Take the rows of models that were taught the fewest labels, first those of most seeds."""
    taught = table[table["kind"] == "relearned"]
    taught = taught[taught["labels"] == taught["labels"].min()]
    return taught.sort_values("n_seeds", ascending=False, kind="stable")


def _given(rows: pd.DataFrame, table: pd.DataFrame, kind: str, exact: bool) -> str:
    """Say what models were given, and how far that takes those that were never taught."""
    most = rows.loc[rows["n_seeds"].idxmax()]
    direct = table[(table["kind"] == "direct") & (table["method"] == most["method"])].iloc[0]
    before, after, n = number(direct["oracle"]), number(most["oracle"]), int(most["labels"])
    said, ends = f"Trained again on {n} labels", f"{before} before, {after} after"
    if kind == "context":
        said, ends = f"With {n} examples in the prompt", f"{before} without, {after} with"
    return f"{said} (AUROC of never-taught models: {ends})" if exact else said


def groups(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Sort methods: excess shown to be above 0, else below `HALF`; and the rest.

    Where a rung teaches, both also of the excess beyond the twin, the never-taught model of the
    same method, as a method by itself may make models learn faster or slower. Without a twin
    nothing is shown to be above 0. Models that were shown the true labels (`shown`) are of the same
    method, and need no twin. What is above 0 has to be so in the seeds that reached their dose
    alone, too (`rungs.Ladder.at_dose`): models that still know their own questions have something
    to bring back in any case. Among the rest are those of which `judged` tells what else would give
    the same.
    """

    def told(name: str) -> pd.Series:
        return rows[name] if name in rows else pd.Series(False, rows.index)

    taught = rows["kind"].isin(TEACHING) & ~rows["shown"].astype(bool)
    beyond = (rows["excess_low"] > 0) & ~told("opposes")
    beyond &= ~taught | (rows["twin_excess_low"] > 0)
    tried = rows["kind"].isin(TRIED)
    beyond &= ~tried | (rows["dose_excess_low"] > 0)
    beyond &= ~(tried & taught) | (rows["dose_twin_excess_low"] > 0)
    less = (rows["excess_high"] < HALF) & ~told("turned")
    less &= ~taught | rows["twin"].isna() | (rows["twin_excess_high"] < HALF)
    return [rows[beyond], rows[less & ~beyond], rows[~less & ~beyond]]


def _of_dose(row: pd.Series) -> str:
    """Say that seeds at the dose alone do not show what all seeds do."""
    n = at_dose(row).count(True)
    seeds = f"{n} of {int(row['n_seeds'])} seeds"
    if np.isnan(row["dose_excess"]):
        return f"only {seeds} reached {'its' if n == 1 else 'their'} dose"
    share = estimate_of(row, "dose_excess")
    if row["dose_excess_low"] > 0:
        share += f" ({estimate_of(row, 'dose_twin_excess')})"
    return f"this is not shown of the {seeds} that reached their dose, {share}"


def named(of: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Name methods; those of a single seed are marked where others of all rows have more."""
    return method_titles(of["method"], of["n_seeds"], rows["n_seeds"].max())


def with_excess(of: pd.DataFrame, rows: pd.DataFrame, *, beyond_twin: bool = False) -> list[str]:
    """Name methods with their excess: "0.8 [0.7, 0.9] after NPO".

    beyond_twin: tell also, in brackets, that beyond the twin
    """
    return [
        estimate_of(row, "excess")
        + (f" ({estimate_of(row, 'twin_excess')})" if beyond_twin else "")
        + f" after {name}"
        for name, (_, row) in zip(named(of, rows), of.iterrows(), strict=True)
    ]


def draw(table: pd.DataFrame) -> Figure:
    """Draw a panel a method whose models were taught again, most excess first.

    table: from `rungs.table`, of one skill; InputError where no model was taught again
    """
    do = "Pass the table of figures.methods.rungs, with models that were taught again."
    wanted = ["eval_task", "method", "rung", "kind", "labels", "n_seeds", "seeds"]
    wanted += ["at_dose", "shown", "finds"]
    shares = ["twin_excess", "dose_excess", "dose_twin_excess", "locked_excess", "locked_rise"]
    wanted += with_intervals([*ROLES, *shares])
    intervals.require_columns("table of the ladder", table, wanted, do)
    rows, said = judged(table), f"{headline(table)}. {BRIEF_SCALE}"
    if rows.empty:
        raise InputError(
            "picture of models that were taught again",
            expected="a method with a model that was taught again, and never-taught ones",
            found="none",
            do=do,
        )
    methods = list(rows["method"])
    shown = table[table["kind"].isin(JOINED)]
    labels = sorted({int(n) for n in shown["labels"]})
    n_columns = min(PER_ROW, len(methods))
    n_rows = -(-len(methods) // n_columns)
    with style(methods, [str(n) for n in labels], [said]):
        names = [heading(_named(row)) for _, row in rows.iterrows()]
        broken = max(name.count("\n") for name in names)
        size = (TEXT_WIDTH, 1.2 + (1.5 + 0.4 * broken) * n_rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        of_methods = zip(names, rows.iterrows(), strict=True)
        for axes, (name, (_, row)) in zip(panels.ravel(), of_methods, strict=False):
            of = table[table["method"] == row["method"]]
            _panel(axes, of, labels)
            both = estimate_of(row, "excess")
            if not np.isnan(row["twin_excess"]):
                both += f"\n({estimate_of(row, 'twin_excess')})"
            axes.set_title(f"{name}\n{both}", fontsize=SMALL, loc="left")
        name_grid(panels, len(methods), "labels trained on")
        legend_below(figure, panels, fontsize=SMALL)
        set_finding(figure, said)
    return figure


def _named(row: pd.Series) -> str:
    """Name the method of a row, and how many seeds it has."""
    n = int(row["n_seeds"])
    return f"{method_title(str(row['method']))}, {n} seed{'s' * (n > 1)}"


def _panel(axes: Axes, rows: pd.DataFrame, labels: list[int]) -> None:
    """Draw one method's models, by how many labels they were trained on."""
    axes.axhline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
    joined = rows[rows["kind"].isin(JOINED)].sort_values("labels")
    control = rows[(rows["kind"] == "control") & rows["rung"].str.startswith("relearned")]
    for i, role in enumerate(role for role in ROLES if joined[role].notna().any()):
        label, marker, colour = LINES["oracle" if role == "twin" else role]
        look = {"marker": marker, "color": colour, "label": label, "linestyle": "-"}
        if role == "twin":
            look |= {"label": f"{label}, same method", "linestyle": "--"}
            look |= {"markerfacecolor": "white"}
        of = joined[joined[role].notna()]
        x = of["labels"].map(labels.index).to_numpy() + (i - 1) * ASIDE
        _points(axes, of, role, x, **look)
    of = joined[joined["forgotten"].notna()]
    x = of["labels"].map(labels.index).to_numpy() + (ROLES.index("forgotten") - 1) * ASIDE
    every = np.array([seeds_of(row) for _, row in of.iterrows()])
    _, marker, colour = LINES["forgotten"]
    if every.shape[1] > 1:
        looks = {True: ("a seed", colour), False: ("a seed not at its dose", DARK_GREY)}
        told: set[str] = set()
        for ends, reached in zip(every.T, at_dose(of.iloc[0]), strict=False):
            label, line = looks[reached]
            given: dict[str, Any] = {
                "color": line,
                "linewidth": 0.8,
                "alpha": 0.6,
                "linestyle": ":",
            }
            axes.plot(x, ends, label="_" * (label in told) + label, **given)
            told.add(label)
    there = control[control["forgotten"].notna()]
    x = np.full(len(there), len(labels) - 1 + 4.5 * ASIDE)
    open_mark = {"marker": marker, "color": colour, "markerfacecolor": "white", "linestyle": "none"}
    name = f"after it, and {labels[-1]} random labels"
    if len(there):
        _points(axes, there, "forgotten", x, label=name, **open_mark)
    axes.set_xlim(-0.5, len(labels) - 0.3)
    axes.set_xticks(range(len(labels)), [str(n) for n in labels], fontsize=SMALL)
    axes.grid(axis="x", visible=False)
    sns.despine(ax=axes)


def _points(axes: Axes, rows: pd.DataFrame, role: str, x: np.ndarray, **given: Any) -> None:
    values = rows[with_intervals([role])].to_numpy(float)
    errors = np.nan_to_num(np.abs(values[:, 1:] - values[:, :1]).T)
    axes.errorbar(x, values[:, 0], errors, markersize=3, linewidth=1, elinewidth=0.8, **given)
