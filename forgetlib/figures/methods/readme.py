"""Say what a study of methods found, as Markdown, from its figures' tables, skill by skill."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import pandas as pd

from forgetlib.figures.findings import Tables
from forgetlib.figures.methods import (
    collateral,
    dose,
    forms,
    generalisation,
    inside,
    ladder_figure,
    price,
    relearning,
    sign,
)
from forgetlib.figures.methods.reach import WHERES, away
from forgetlib.figures.names import listed, method_title, title
from forgetlib.figures.numbers import UNDEFINED_TEXT, estimate_of, markdown, number
from forgetlib.forgetting.base import methods

HEADER = ["method", "dose", "passes"]
WORDS = (
    "Dose: optimiser steps until the AUROC of the forgetting set was within 0.40 and 0.60 at two "
    "checks in a row, in how many of the seeds. Passes: sequences trained on, by those of an epoch "
    "of plain fine-tuning on the forgetting set. Then the AUROC lost, with its 95 % interval; the "
    "rise of nats a token of other tasks' true responses; the AUROC left, as it is and with "
    "weights rounded to so many bits; the residue, what is left of the skill beyond never-taught "
    "models over all rungs; and the ladder's verdict, which asks more than the counts above do: is "
    "the skill gone, or hidden?"
)


def drawn_skills(folder: Path) -> list[str]:
    """List the skills of which something was drawn, by the ends of the files' names."""
    return [p.stem.partition("_")[2] for p in sorted(folder.glob("generalisation_*.csv"))]


def skills(tables: Tables) -> list[str]:
    """List the skills of which something was drawn; InputError where there is none."""
    found = drawn_skills(tables.folder)
    return found or [tables.need("generalisation_<skill>")["eval_task"].iloc[0]]


def answer(tables: Tables) -> str:
    """Count by how many methods skills are forgotten, or say what little training brings back.

    The second of the first skill, where that tells anything (`relearning.tells`).
    """
    costs = tables.need("price")
    skill = str(costs["eval_task"].iloc[0]).replace(":", "-")  # as files are named
    said = f"{price.counts(costs)}\n\nBy 95 % intervals ([price](price.png))."
    rungs = tables.get(f"ladder_{skill}")
    if rungs is not None and relearning.tells(rungs):
        again = relearning.finding(rungs, exact=False)
        said = f"{again} ([relearning](relearning_{skill}.png))."
    if rungs is not None and (turned := sign.headline(rungs)):
        said += f" {turned}."
    return said


def findings(tables: Tables) -> str:
    """Count what methods do to each skill; then say of each what was found.

    Skills have a heading each, where there are several.
    """
    every = skills(tables)
    parts = [said] if (said := _of_all(tables)) else []
    for skill in every:
        said = "\n".join(f"- {said}" for said in _of_skill(tables, skill))
        parts.append(f"### On {title(skill)}\n\n{said}" if len(every) > 1 else said)
    return "\n\n".join(parts)


def _of_all(tables: Tables) -> str:
    """Count what methods do to each skill, and say on which tasks harm is read; "" if not drawn."""
    if (costs := tables.get("price")) is None:
        return ""
    said = "After how many methods a skill is forgotten on new questions without damage to other "
    said += "tasks, and what the others do, by "
    said += f"95 % intervals ([price](price.png)).{_other_tasks(tables)}"
    said += f"\n\n{price.counts(costs)}"
    asked = [of for skill in skills(tables) if (of := tables.get(f"forms_{skill}")) is not None]
    if asked and (distance := forms.distance_finding(pd.concat(asked, ignore_index=True))):
        said += f"\n\n{distance}."
    return said


def _of_skill(tables: Tables, skill: str) -> Iterator[str]:
    if (costs := tables.get("price")) is not None:
        of = costs[costs["eval_task"].str.replace(":", "-") == skill]  # as files are named
        if len(of):
            yield f"{price.finding(of)[:-1]} ([price](price.png))."
    reach = tables.need(f"generalisation_{skill}")
    said = generalisation.finding(reach, exact=True)
    yield f"{said} ([{title(skill)}](generalisation_{skill}.png))."
    if (curves := tables.get(f"dose_{skill}")) is not None:
        yield f"{dose.finding(_a_method_each(curves))} ([dose](dose_{skill}.png))."
    if (left := tables.get(f"collateral_{skill}")) is not None:
        said = collateral.finding(_a_method_each(left))
        yield f"{said} ([collateral](collateral_{skill}.png))."
    if (rungs := tables.get(f"ladder_{skill}")) is not None:
        said = ladder_figure.finding(_a_method_each(rungs))
        lead = "By the ladder, which asks whether a skill is gone or hidden, "
        yield f"{lead}{said} ([ladder](ladder_{skill}.png))."
        if elsewhere := ladder_figure.moved(rungs):
            yield f"{elsewhere} ([table](ladder_{skill}.csv))."
        if again := relearning.finding(rungs):
            yield f"{again} ([relearning](relearning_{skill}.png))."
        if shown := relearning.finding(rungs, "context"):
            yield f"{shown}; not corrected for many tests ([ladder](ladder_{skill}.png))."
        if ends := sign.apart(rungs):
            yield f"{ends}."
        if turned := sign.turned(rungs):
            yield f"{turned} ([table](ladder_{skill}.csv))."
        if states := inside.finding(rungs):
            yield f"{states} ([hidden states](ladder_{skill}.csv))."
    if (of := tables.get(f"forms_{skill}")) is not None:
        yield f"{forms.finding(of)} ([other forms](forms_{skill}.png))."


def _other_tasks(tables: Tables) -> str:
    """Name the tasks on which harm is read, by skill where they differ; "" where on none."""
    named: dict[str, list[str]] = {}
    for skill in skills(tables):
        reach = tables.need(f"generalisation_{skill}")
        rows = reach[(reach["where"] == away(reach)) & reach["nll_rise"].notna()]
        for asked in rows["asked"].iloc[:1]:
            named.setdefault(listed(map(title, asked.split(", "))), []).append(title(skill))
    told = [names + (f" for {listed(of)}" if len(named) > 1 else "") for names, of in named.items()]
    return f" Other tasks are {'; '.join(told)}." if told else ""


def table(tables: Tables) -> str:
    """Make a table a skill: a row a method, with its dose, what it costs where, and a verdict.

    Below them stands what each method does.
    """
    every = [_table(tables, skill) for skill in skills(tables)]
    return "\n\n".join([*every, WORDS, _glossary(tables)])


def _glossary(tables: Tables) -> str:
    """Say what each method does, and whose it is, as the first line of its class does."""
    reach = [tables.need(f"generalisation_{skill}")["method"] for skill in skills(tables)]
    known, lines = methods(), {}
    for method in pd.concat(reach):
        name = str(method).partition("(")[0]
        about = cleandoc(known.get(name, known["labels"]).__doc__ or "")  # "random" names labels
        said = about.partition("\n")[0].removesuffix(".")
        if paper := re.search(r"arXiv\s(\d+\.\d+)", about):
            said = re.sub(r" \([^()]*arXiv.*", "", said)
            said += f" ([arXiv {paper[1]}](https://arxiv.org/abs/{paper[1]}))"
        lines[name] = f"- **{method_title(name)}**: {said}."
    return "### What each does\n\n" + "\n".join(lines.values())


def _table(tables: Tables, skill: str) -> str:
    reach = tables.need(f"generalisation_{skill}")
    measured = set(reach.loc[reach["auroc_lost"].notna(), "where"])
    wheres = [where for where in WHERES if where in measured]
    doses, rungs = (
        _a_method_each(found).set_index("method")
        if (found := tables.get(f"{name}_{skill}")) is not None
        else pd.DataFrame()
        for name in ("dose", "ladder")
    )
    rounded = _rounded(tables, skill)
    after = ["nats, other tasks", "AUROC left", *rounded, "residue", "ladder's verdict"]
    lines = []
    for method, of in reach.groupby("method", sort=False):
        rows = of.set_index("where")
        steps = doses.loc[method] if method in doses.index else None
        rung = rungs.loc[method] if method in rungs.index else None
        far = away(of)
        harm = estimate_of(rows.loc[far], "nll_rise") if far in rows.index else UNDEFINED_TEXT
        lines.append(
            [
                method_title(str(method)),
                UNDEFINED_TEXT if steps is None else _dose(steps),
                UNDEFINED_TEXT if steps is None else number(steps["passes"], 1),
                *(estimate_of(rows.loc[w], "auroc_lost") for w in wheres),
                harm,
                UNDEFINED_TEXT if rung is None else estimate_of(rung, "auroc"),
                *(said.get(str(method), UNDEFINED_TEXT) for said in rounded.values()),
                UNDEFINED_TEXT if rung is None else estimate_of(rung, "residue"),
                UNDEFINED_TEXT if rung is None else rung["verdict"],
            ]
        )
    return f"### {title(skill)}\n\n{markdown([*HEADER, *wheres, *after], lines)}"


def _rounded(tables: Tables, skill: str) -> dict[str, dict[str, str]]:
    """Write each method's AUROC with rounded weights: by the rung's name, and the method."""
    found: dict[str, dict[str, str]] = {}
    if (table := tables.get(f"ladder_{skill}")) is not None:
        for _, row in table[table["kind"] == "quantised"].iterrows():
            of_rung = found.setdefault(str(row["rung"]), {})
            of_rung[str(row["method"])] = estimate_of(row, "forgotten")
    return found


def _dose(row: pd.Series) -> str:
    """Write a method's dose: the median of its steps, and of how many seeds; or how it ended."""
    if not row["n_reached"]:
        return dose.ending(row)
    steps = "no training" if pd.isna(row["steps"]) else f"{row['steps']:g}"
    return f"{steps}, {row['n_reached']:g} of {row['n_seeds']:g}"


def _a_method_each(table: pd.DataFrame) -> pd.DataFrame:
    """Take of a figure's table what it says of each method as a whole."""
    return table.drop_duplicates(["eval_task", "method"]).reset_index(drop=True)
