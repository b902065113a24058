"""Gather what the HTML page shows of a study: from the tables in its folder, and nothing else.

Numbers become texts here, through the formatter of all figures: the page places marks by these
texts, and rounds nothing. What a figure did not draw is absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetlib.figures import findings
from forgetlib.figures.findings import Tables
from forgetlib.figures.implicit import readme as implicit_readme
from forgetlib.figures.methods import generalisation
from forgetlib.figures.methods.reach import WHERES
from forgetlib.figures.methods.readme import drawn_skills
from forgetlib.figures.names import (
    PICTURES,
    listed,
    method_title,
    pictures_in,
    short_name,
    title,
    titles,
)
from forgetlib.figures.numbers import UNDEFINED_TEXT, estimate, estimate_of, number
from forgetlib.figures.published import published_of
from forgetlib.figures.rows import FORMATS
from forgetlib.figures.scale import models as scale, readme as scale_readme
from forgetlib.figures.statements import value_of

Json = dict[str, Any]

PHASES = {
    "base": "pre-trained",
    "tuned": "fine-tuned",
    "random": "random labels",
    "true": "true labels again",
}
MEASURES = {  # of a phase, and of what came after fine-tuning
    "accuracy": "accuracy on new questions",
    "accuracy_a_token": "accuracy by the log-likelihood a token",
    "auroc": "AUROC on new questions",
    "confidence": "confidence in the true response",
    "nll": "nats a token of the true response",
    "commonest_share": "share of its commonest answer",
    "set_accuracy": "accuracy on the forgetting set",
    "set_auroc": "AUROC on the forgetting set",
    "fit": "labels of its training that it fits",
    "accuracy_lost": "accuracy lost",
    "auroc_lost": "AUROC lost",
    "forget_ratio": "forget ratio",
    "auroc_ratio": "AUROC ratio",
    "damage": "damage: rise of nats a token elsewhere",
}
# Of a matrix: what it is called, and the value at the end of its colours; None: the largest there.
PAIRS: dict[str, tuple[str, float | None]] = {
    "auroc_lost": ("AUROC lost", 0.5),
    "accuracy_lost": ("accuracy lost", 0.5),
    "forget_ratio": ("forget ratio", 1.0),
    "nll_risen": ("nats a token risen", None),
    "auroc_beyond_true_labels": ("AUROC lost beyond true labels", 0.5),
    "accuracy_beyond_true_labels": ("accuracy lost beyond true labels", 0.5),
    "nll_beyond_true_labels": ("nats a token risen beyond true labels", None),
}
# Of models beside each other: what the cells have, and what stands beside them.
SCALED = {scale.AUROC_BEYOND: PAIRS[scale.AUROC_BEYOND], "forget_ratio": PAIRS["forget_ratio"]}
SCALED |= {"damage": (MEASURES["damage"], None)}
BESIDE = {
    "auroc_tuned": "AUROC on new questions, fine-tuned",
    "auroc": "after random labels",
    "auroc_again": "after true labels again",
    "set_auroc": "AUROC on the forgetting set",
    "fit": "answers there as the random labels say",
}
REACH = {"auroc_lost": PAIRS["auroc_lost"], "accuracy_lost": PAIRS["accuracy_lost"]}
REACH |= {"nll_rise": PAIRS["nll_risen"]}
MARKDOWN = re.compile(r"\*\*(.+?)\*\*|\*(.+?)\*|\[([^\]]+)\]\(([^)]+)\)")
IMPLICIT = "shift"  # the first picture of a study of implicit inference
EXAMPLES = {"Sec. 5": "fig4_examples"}  # a claim that is of no figure of the paper


def is_study(folder: Path) -> bool:
    """Tell whether a folder has tables that the page shows."""
    names = ("fig2b_skill", "scale_models", IMPLICIT)
    return any((folder / f"{n}.csv").exists() for n in names) or bool(drawn_skills(folder))


def shown(folder: Path, link: str) -> Json:
    """Gather what the page shows of one study.

    link: from the page to the study's folder, for its pictures
    """
    tables = Tables(folder)
    compared = _compared(tables.get("fig9_models"))
    found: Json = {
        "name": folder.name,
        "about": _about(folder),
        "link": link,
        "pictures": [
            {"name": path.stem, "says": _tokens(says, folder)}
            for path, says in pictures_in(folder)
            if compared or path.stem != "fig9_models"  # which compares models
        ],
        "methods": list(_methods(tables)),
    }
    if (scaled := tables.get("scale_models")) is not None:
        first, *more = scale_readme.findings(tables).split("\n")
        return found | {
            "headline": first.split("**")[1],
            "findings": [_tokens(said.removeprefix("- "), folder) for said in more],
            "scaled": _scaled(scaled),
            "claims": _claims(tables.get("scale_claims"), folder),
        }
    if tables.get(IMPLICIT) is not None:
        first, *more = implicit_readme.findings(tables).split("\n")
        return found | {
            "headline": first.split("**")[1],
            "findings": [_tokens(said.removeprefix("- "), folder) for said in more],
            "claims": _claims(tables.get("claims"), folder),
        }
    if (skills := tables.get("fig2b_skill")) is None:
        skills = [of["skill"] for of in found["methods"]]
        n = len({method for of in found["methods"] for method, _ in of["rows"]})
        found["headline"] = f"What {n} ways to forget cost, on {listed(skills)}"
        return found | {"findings": [[[f"{of['finding']}."]] for of in found["methods"]]}
    first, *more = findings.sentences(tables)
    _, headline, lead = first.split("**", 2)
    return found | {
        "headline": headline,
        "lead": _tokens(lead.strip(), folder),
        "findings": [_tokens(said, folder) for said in more],
        "models": list(dict.fromkeys(map(str, skills["model"]))),
        "tasks": _tasks(skills, tables.get("fig2_control")),
        "claims": _claims(tables.get("claims"), folder),
        "pairs": list(_pairs(tables, skills)),
        "compared": compared,
    }


def _about(folder: Path) -> str:
    """Say what a study is, as the first line of its README does; its name where it has none."""
    path = folder / "README.md"
    first = path.read_text().split("\n", 1)[0] if path.exists() else ""
    return first.removeprefix("# ") or folder.name


def _tokens(said: str, folder: Path) -> list[list[str]]:
    """Take a sentence in Markdown apart: [text], or [text, what it is, where it leads]."""
    found, at = [], 0
    for match in MARKDOWN.finditer(said):
        found.append([said[at : match.start()]])
        strong, em, text, target = match.groups()
        if target is None:
            found.append([strong or em, "strong" if strong else "em"])
        elif target == "#the-papers-claims":
            found.append([text, "section", "claims"])
        elif (folder / target).is_file():
            found.append([text, "picture", target])
        else:
            found.append([text])
        at = match.end()
    found.append([said[at:]])
    return [token for token in found if token[0]]


# --- tasks


def _estimates(row: pd.Series, measures: Iterable[str]) -> dict[str, str]:
    """Write those measures of a row that it has, each with its interval."""
    found = {m: estimate_of(row, m) for m in measures if m in row}
    return {m: said for m, said in found.items() if said != UNDEFINED_TEXT}


def _tasks(skills: pd.DataFrame, control: pd.DataFrame | None) -> list[Json]:
    """List the tasks: of each its verdict, every measure of every phase, and the control."""
    beyond = {} if control is None else dict(iter(control.groupby("eval_task")))
    names = titles(skills["eval_task"])
    found = []
    for task, rows in skills.groupby("eval_task", sort=False):
        phases = rows.set_index("phase")
        last = phases.loc["random"]
        paper = published_of(str(task))
        of: Json = {
            "task": task,
            "title": names[str(task)],
            "format": FORMATS[last["answer_format"]],
            "verdict": last["verdict"],
            "n": int(last["n"]),
            "seeds": int(last["n_seeds"]),
            "phases": {p: _estimates(phases.loc[p], MEASURES) for p in PHASES if p in phases.index},
            "beyond": {},
            "paper": "" if np.isnan(paper) else number(paper),
        }
        # The line that one answer to everything reaches, where that is not chance.
        if pd.notna(last["true_share"]):
            of["constant"] = number(max(last["true_share"], 0.5))
        if "true" in phases.index:
            of["verdict_true"] = phases.loc["true", "verdict"]
        if task in beyond:
            measures = ("auroc_beyond_true_labels", "beyond_true_labels")
            of["beyond"] = _estimates(beyond[task].iloc[0], measures)
        found.append(of)
    return found


# --- claims


def _claims(table: pd.DataFrame | None, folder: Path) -> list[Json]:
    """List the paper's claims, each with its statistics and the pictures that show it."""
    found: dict[str, Json] = {}
    for _, row in (table if table is not None else pd.DataFrame()).iterrows():
        pictures = [_picture_of(row["figure"], n) for n in re.findall(r"\d+", row["figure"])]
        of = found.setdefault(
            row["claim"],
            {
                "says": row["says"],
                "figure": row["figure"],
                "pictures": [p for p in pictures if (folder / f"{p}.png").exists()],
                "statistics": [],
            },
        )
        of["statistics"].append(
            {
                "says": row["statistic"],
                "value": estimate(value_of(row)),
                "holds": f"{row['statement'].replace('+-', '±')} {row['threshold']:g}",
                "verdict": row["verdict"],
                "why": "" if pd.isna(row["why"]) else row["why"],
                "paper": "" if pd.isna(row["paper"]) else number(row["paper"]),
                "post_hoc": bool(row["post_hoc"]),
            }
        )
    return list(found.values())


def _picture_of(figure: str, n: str) -> str:
    """Name the first picture of a figure of the paper."""
    if figure in EXAMPLES:
        return EXAMPLES[figure]
    return next((name for name in PICTURES if name.startswith(f"fig{n}_")), "")


# --- matrices: of tasks, and of methods


def _matrix(
    rows: Iterable[tuple[str, str]],
    columns: Iterable[tuple[str, str]],
    cells: dict[tuple[str, str], pd.Series],
    measures: dict[str, tuple[str, float | None]],
) -> Json:
    """Make a matrix: rows and columns by id and title, the cells of each measure, its colours."""
    rows, columns = list(rows), list(columns)
    found: Json = {"rows": rows, "columns": columns, "measures": []}
    for name, (says, end) in measures.items():
        there = [of for of in cells.values() if name in of and pd.notna(of[name])]
        if not there:
            continue
        texts = [
            [estimate_of(cells[r, c], name) if (r, c) in cells else "" for c, _ in columns]
            for r, _ in rows
        ]
        largest = max(max(abs(float(of[name])) for of in there), 1e-9)
        limit = largest if end is None else end
        found["measures"].append({"name": name, "says": says, "end": limit, "cells": texts})
    return found


def _pairs(tables: Tables, skills: pd.DataFrame) -> Iterator[Json]:
    """List the matrices of pairs: a model and a kind of labels each, in one order of tasks."""
    every = [tables.get(name) for name in ("fig3_cross_task", "fig8_flipped", "fig9_models")]
    there = [table for table in every if table is not None]
    if not there:
        return
    pairs = pd.concat(there).drop_duplicates(["model", "condition", "eval_task", "forget_task"])
    first = there[0][there[0]["eval_task"] != there[0]["forget_task"]]
    names, orders = titles([*pairs["eval_task"], *pairs["forget_task"]]), {}
    for side in ("eval_task", "forget_task"):
        lost = first.groupby(side)["auroc_lost"].mean().sort_values(kind="stable")
        orders[side] = [*lost.index, *sorted(set(pairs[side]) - set(lost.index))]
    for (model, condition), of in pairs.groupby(["model", "condition"], sort=False):
        keys = zip(of["eval_task"], of["forget_task"], strict=True)
        cells = dict(zip(keys, (row for _, row in of.iterrows()), strict=True))
        measures = dict(PAIRS)
        if condition == "flipped":  # whose ratio is half of the other at any accuracy
            measures["forget_ratio"] = ("forget ratio", 0.5)
        rows, columns = ([(t, names[t]) for t in orders[s]] for s in ("eval_task", "forget_task"))
        yield {
            "model": model,
            "labels": condition,
            "protocol": of["protocol"].iloc[0],
            "known": {t: number(v) for t, v in zip(of["eval_task"], of["tuned"], strict=True)},
            **_matrix(rows, columns, cells, measures),
        }


def _compared(table: pd.DataFrame | None) -> list[Json]:
    """Compare a study's models by their means over pairs; nothing where there is one model."""
    if table is None or table["model"].nunique() < 2:
        return []
    own = table["eval_task"] == table["forget_task"]
    found = []
    for model in dict.fromkeys(table["model"]):
        of: Json = {"model": model}
        for name, part in (("own", own), ("others", ~own)):
            rows = table[part & (table["model"] == model)]
            for measure in ("accuracy_lost", "auroc_lost", "nll_risen"):
                of[f"{name}_{measure}"] = number(rows[measure].mean())
        found.append(of)
    return found


def _scaled(table: pd.DataFrame) -> Json:
    """Lay out several models beside each other, a row a task, and what is told of each cell."""
    names, models = titles(table["eval_task"]), dict.fromkeys(map(str, table["model"]))
    keys = zip(table["eval_task"], table["model"], strict=True)
    cells = dict(zip(keys, (row for _, row in table.iterrows()), strict=True))
    beside: dict[str, dict[str, list[list[str]]]] = {task: {} for task in names}
    for (task, model), row in cells.items():
        # Else nothing follows for questions that were not trained on.
        told = [["verdict", str(row["verdict"]) if row["learned_or_lost"] else UNDEFINED_TEXT]]
        told += [[says, estimate_of(row, name)] for name, says in BESIDE.items()]
        yes_or_no = "yes" if row["learned_or_lost"] else "no"
        told.append(["random labels learned, or true ones lost", yes_or_no])
        beside[task][model] = told
    rows, columns = names.items(), [(m, short_name(m)) for m in models]
    return {"beside": beside, **_matrix(rows, columns, cells, SCALED)}


def _methods(tables: Tables) -> Iterator[Json]:
    """List the skills that methods were compared on: what each method costs, and where."""
    for name in drawn_skills(tables.folder):
        table = tables.need(f"generalisation_{name}")
        skill = str(table["eval_task"].iloc[0])
        methods = list(dict.fromkeys(table["method"]))
        keys = zip(table["method"], table["where"], strict=True)
        cells = dict(zip(keys, (row for _, row in table.iterrows()), strict=True))
        places = [(w, w) for w in WHERES if w in set(table["where"])]
        yield {
            "skill": title(skill),
            "finding": generalisation.finding(table),
            "about": _methods_about(tables, name, table),
            **_matrix([(m, method_title(m)) for m in methods], places, cells, REACH),
        }


def _methods_about(tables: Tables, name: str, table: pd.DataFrame) -> dict[str, Json]:
    """Tell of each method its seeds, and where these were drawn, its verdict and its dose."""
    found: dict[str, Json] = {
        str(method): {"seeds": int(rows["n_seeds"].max())}
        for method, rows in table.groupby("method")
    }
    if (ladder := tables.get(f"ladder_{name}")) is not None:
        for row in ladder.drop_duplicates("method").itertuples():
            found.setdefault(str(row.method), {})["verdict"] = row.verdict
    if (dose := tables.get(f"dose_{name}")) is not None:
        for row in dose.drop_duplicates("method").itertuples():
            of = found.setdefault(str(row.method), {})
            of["dose"] = f"{row.n_reached} of {row.n_seeds}"
            of["steps"] = number(row.steps, 0)
    return found
