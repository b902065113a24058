"""Tell what asking in another form gains after forgetting: conjugate prompting.

After arXiv 2309.10105, section 3.3, on the models of a study of methods (`ladders.of_study`), which
keeps its scores in other forms. What forgetting cost is AUROC of the known less the forgotten
model, asked plainly; a form gains what the forgotten model has more when it is asked so. Two
controls stand beside it: models that were never taught the skill and forgot the same way, which a
form should give nothing, and the known model, which a form may harm by itself.

A model that forgetting has turned round gains by any form that confuses it: it goes back to chance.
A gain counts where the form's AUROC is above chance, too, and not only above the plain.

A form counts where the known model is above chance in it: else nobody could show the skill there.
A case, of a method and a form, counts where forgetting was shown to cost anything. Gains are
differences, not shares of the cost: of little lost any share is large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures.bootstrap import difference
from forgetlib.figures.intervals import UNDEFINED, as_columns, rank_correlation, with_intervals
from forgetlib.figures.methods.ladders import of_view
from forgetlib.figures.methods.rungs import DIRECT, Ladder
from forgetlib.figures.names import method_title, title
from forgetlib.figures.numbers import estimate, estimate_of, number
from forgetlib.figures.rows import mark, skill_of
from forgetlib.figures.statements import (
    ABOVE,
    CANNOT_DECIDE,
    DOES_NOT_HOLD,
    HOLDS,
    RANK,
    UNDECIDED,
    Statement,
    row,
    value_of,
)
from forgetlib.figures.style import (
    BLUE,
    GREY,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    marks_of,
    readable,
    require_columns,
    say_where_nothing,
    set_finding,
    style,
)
from forgetlib.measuring.base import PromptNats
from forgetlib.metrics import CHANCE
from forgetlib.runs.ladder import FORGOTTEN, KNOWN, ORACLE
from forgetlib.runs.records import Result

GAINS = {  # role: (column, in the legend, marker, colour, height in the row)
    KNOWN: ("known_gain", "before forgetting", "o", BLUE, -0.22),
    ORACLE: ("never_taught_gain", "never taught", "s", GREY, 0.0),
    FORGOTTEN: ("gain", "after forgetting", "D", VERMILION, 0.22),
}
MEASURES = ("cost", "known", "asked", *(column for column, *_ in GAINS.values()))
SAID = {  # of verdicts, in a sentence
    HOLDS: "is shown",
    DOES_NOT_HOLD: "is shown not to be so",
    UNDECIDED: "is not decided by these data",
    CANNOT_DECIDE: "cannot be decided by this study",
}
GROWS = Statement(ABOVE, 0.0, 0.5, RANK, stated="2026-11-28")


def table(
    ladders: Mapping[tuple[str, str], Ladder], results: Iterable[Result] = ()
) -> pd.DataFrame:
    """Measure every form in which a skill was asked, a row a skill, method and form.

    ladders: from `ladders.of_study`; results: of the same study, for the distances

    Columns: eval_task, method, form, n_seeds, distance (how many nats a token more the form's
    prompts have than the plain ones, to the pre-trained model, which nobody has taught the skill in
    any form; NaN where that was not measured), counts (whether the known model is above chance in
    this form and forgetting cost anything, each by its whole interval), and with their intervals
    cost (AUROC lost by forgetting, asked plainly), known and asked (AUROC in this form of the known
    and of the forgotten model), and AUROC gained by the form, in the same seeds: gain, by the
    forgotten model; known_gain, by the known one; never_taught_gain, by those that were never
    taught, NaN where there are none.
    """
    rows, distances = [], _distances(results)
    for (task, method), ladder in ladders.items():
        plainly = [("auroc", role, DIRECT) for role in (KNOWN, FORGOTTEN)]
        cost = ladder.interval(difference(0, 1), *plainly)
        for rung in ladder.rungs:
            if rung.kind != "form":
                continue
            known = ladder.of("auroc", KNOWN, rung)
            of: dict[str, object] = {
                "eval_task": task,
                "method": method,
                "form": rung.name,
                "n_seeds": len(ladder.seeds),
                "distance": distances.get((task, rung.name), np.nan),
                "counts": bool(known.low > CHANCE and cost.low > 0),
            }
            of |= as_columns("cost", cost) | as_columns("known", known)
            of |= as_columns("asked", ladder.of("auroc", FORGOTTEN, rung))
            for role, (column, *_) in GAINS.items():
                asked = [("auroc", role, rung), ("auroc", role, DIRECT)]
                gained = UNDEFINED
                if ladder.has(role, rung):
                    gained = ladder.interval(difference(0, 1), *asked)
                of |= as_columns(column, gained)
            rows.append(of)
    columns = ["eval_task", "method", "form", "n_seeds", "distance", "counts"]
    columns += with_intervals(MEASURES)
    return pd.DataFrame(rows, columns=columns)


def _distances(results: Iterable[Result]) -> dict[tuple[object, object], float]:
    """Average what was measured of prompts, by skill and form, less the plain form's."""
    nats: dict[tuple[str, str], list[float]] = {}
    for result in results:
        for record in result.records if result.checkpoint.method is None else ():
            if record.measurement.readout == PromptNats.name:
                form = of_view(record.measurement.view).name
                of = nats.setdefault((record.measurement.task, form), [])
                of.append(float(np.mean(record.value.nats)))
    plain = {task: fmean(of) for (task, form), of in nats.items() if form == DIRECT.name}
    return {key: fmean(of) - plain[key[0]] for key, of in nats.items() if key[0] in plain}


def distance_claim(found: pd.DataFrame) -> pd.DataFrame:
    """Judge that recovery grows with distance: one row, in the columns of `statements.row`.

    found: from `table`. The rank correlation over skills and forms that are farther away than the
    plain prompts: of the share that comes back, its gains by its costs summed over methods that
    count, and the distance.
    """
    known = found[found["counts"].astype(bool) & (found["distance"] > 0)]
    means = known.groupby(["eval_task", "form"])[["gain", "cost", "distance"]].mean()
    shares = (means["gain"] / means["cost"]).to_numpy()
    value = rank_correlation(means["distance"].to_numpy(), shares)
    said = "rank correlation, over skills and forms, of the share that comes back and the distance"
    lacks = "" if len(means) > 1 else "forms farther away, in which the known model is above chance"
    return row(said, GROWS, value, len(means), unit="skills' forms", lacks=lacks)


def distance_finding(found: pd.DataFrame) -> str:
    """Say in a sentence whether more comes back in forms that are farther away; "" without any.

    found: from `table`, of all skills
    """
    judged = distance_claim(found).iloc[0]
    if found["distance"].isna().all():
        return ""
    value = estimate(value_of(judged))
    why = f": {judged['why']}" if judged["why"] else ""
    apart = found.drop_duplicates(["eval_task", "form"])["distance"].dropna()
    fewer = int((apart < 0).sum())
    over = f"rank correlation {value} over {judged['n']} skills' forms"
    return (
        "That forms of a question bring more back the stranger they are, by nats a token of their "
        f"prompts, {SAID[judged['verdict']]} ({over if judged['n'] > 1 else ''}"
        f"{why if judged['n'] > 1 else why.removeprefix(': ')}); {fewer} of {len(apart)} "
        "forms have fewer nats a token than the plain prompts"
    )


def is_gain(found: pd.DataFrame) -> pd.Series:
    """Tell of each row of `table` whether its form is shown to gain, and to be above chance."""
    shown = (found["gain_low"] > 0) & (found["asked_low"] > CHANCE)
    return found["counts"].astype(bool) & shown


def finding(found: pd.DataFrame) -> str:
    """Say in a sentence in how many cases another form gains anything, and how much.

    Not that the skill comes back, which takes half of it elsewhere: here any gain counts.

    found: of one skill, from `table`
    """
    name = title(skill_of(found))
    own = found[found["counts"].astype(bool)]
    if own.empty:
        return f"In no form is there both a loss of {name} and a known model above chance"
    more = own[is_gain(own)].sort_values("gain", ascending=False)
    said = f"Asked in another form, {name} gains AUROC in {len(more)} of {len(own)} cases"
    if len(more):
        most = more.iloc[0]
        said += f", most after {method_title(str(most['method']))} ({most['form']}: "
        said += f"{estimate_of(most, 'gain')}, of {number(most['cost'])} lost)"
    compared = own[own["never_taught_gain"].notna()]
    if compared.empty:
        said += "; models that were never taught are not there to compare with"
    else:
        beyond = is_gain(compared) & (compared["gain_low"] > compared["never_taught_gain_high"])
        said += f"; beyond never-taught models in {int(beyond.sum())} of {len(compared)}"
    return said if (found["n_seeds"] > 1).any() else f"{said}; one seed"


def draw(found: pd.DataFrame) -> Figure:
    """Draw what each form gains, a panel a form, a row a method, beside both controls.

    found: of one skill, from `table`. Filled: what is shown to gain (`is_gain`). Grey: forms and
    methods that do not count.
    """
    wanted = ["eval_task", "method", "form", "counts", "n_seeds", "distance"]
    wanted += with_intervals(MEASURES)
    require_columns(found, wanted)
    said = finding(found)
    best = found.groupby("method")["gain"].max().sort_values(na_position="first")
    rows = {method: float(i) for i, method in enumerate(best.index)}
    shown = [str(f) for f in dict.fromkeys(found["form"])]
    names = [readable(method_title(str(method))) for method in rows]
    with style([*names, *shown], [said]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.5 + 0.3 * max(len(rows), 2)), layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True, sharex=True, squeeze=False)[0]
        for axes, form in zip(panels, shown, strict=True):
            of = found[found["form"] == form]
            y = of["method"].map(rows).to_numpy(float)
            counts = of["counts"].to_numpy(bool)
            more = is_gain(of).to_numpy(bool)
            for role, (column, label, marker, colour, up) in GAINS.items():
                parts = [(counts, label, True)]
                if role == FORGOTTEN:
                    parts = [(more, f"{label}: a gain is shown", True)]
                    parts.append((counts & ~more, f"{label}: it is not", False))
                for part, words, filled in parts:
                    if of.loc[part, column].notna().any():
                        draw_intervals(
                            axes, of[part], column, y[part] + up, words, marker, colour, filled
                        )
            rest = of[~counts]
            if len(rest):
                words = "does not count: unreadable, or no loss"
                draw_intervals(axes, rest, "gain", y[~counts] + 0.22, words, "D", GREY, False)
            mark(axes, 0.0)
            say_where_nothing(axes, of["gain"], "not asked")
            away = of["distance"].iloc[0]
            told = f"{readable(form)}\n({number(away)} nats)" if np.isfinite(away) else form
            axes.set_title(told, loc="left", fontsize=SMALL)
        panels[0].set_yticks(list(rows.values()), names, fontsize=SMALL)
        panels[0].set_ylim(-0.6, max(len(rows), 1) - 0.4)
        panels[len(panels) // 2].set_xlabel("AUROC gained by the form")
        handles, labels = marks_of(panels)
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        set_finding(figure, said)
    return figure
