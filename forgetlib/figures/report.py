"""Write what a comparison of models found: as text, as a table, and as one HTML file."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import style
from forgetlib.figures.methods import ladder_figure
from forgetlib.figures.names import title
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.verdicts import MEANINGS
from forgetlib.files import replacing

HEADINGS = {
    "rung": "asked",
    "labels": "labels",
    "measure": "measure",
    "known": "original",
    "forgotten": "unlearned",
    "oracle": "retrained",
    "recovered": "recovered",
    "excess": "excess",
}
MEASURES = {"auroc": "AUROC", "matched": "accuracy, each answer as often as true"}
COLUMNS = (
    "recovered: share of what was lost that comes back. excess: 0 as if never taught, 1 as if "
    "never forgotten. 95 % intervals in brackets; - where undefined."
)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Write a ladder's table as people read it: an estimate in a cell, short headings."""
    found = {}
    for name, heading in HEADINGS.items():
        if name in ("rung", "labels", "measure"):
            found[heading] = table[name].replace(MEASURES).astype(str).tolist()
        elif table[name].notna().any():
            found[heading] = [estimate_of(row, name) for _, row in table.iterrows()]
    return pd.DataFrame(found)


def sentence(row: Mapping[str, object]) -> str:
    """Say in a sentence what became of a skill. row: of `rungs.summary`"""
    verdict = str(row["verdict"])
    return f"{title(str(row['eval_task']))}: {verdict.upper()}. That is, {MEANINGS[verdict]}."


def _harm(row: Mapping[Hashable, Any]) -> str:
    """Say what other tasks lost; "" where they were not asked. row: of `rungs.summary`"""
    if pd.isna(row["damage"]):
        return ""
    return f"Other tasks' true responses cost {estimate_of(row, 'damage')} nats a token more."


def text(table: pd.DataFrame, summary: pd.DataFrame, unknown: Sequence[str]) -> str:
    """Write all that was found for a terminal."""
    lines = []
    for row in summary.to_dict("records"):
        of_task = table[table["eval_task"] == row["eval_task"]]
        lines += [sentence(row), "", shown(of_task).to_string(index=False), ""]
        if said := _harm(row):
            lines += [said, ""]
    lines += [COLUMNS, ""]
    if unknown:
        lines += ["What this cannot tell:", *(f"- {said}" for said in unknown)]
    return "\n".join(lines)


def page(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    figures: Mapping[str, Figure],
    unknown: Sequence[str],
    about: Mapping[str, str],
) -> str:
    """Write one HTML file that needs no other: verdicts, pictures, tables and what is not known.

    figures: by task; about: what was compared, by what it is
    """
    name = Path(about.get("unlearned", "the unlearned model")).name
    parts = [f"<h1>What is left in {escape(name)}?</h1>"]
    for row in summary.to_dict("records"):
        task = str(row["eval_task"])
        of_task = shown(table[table["eval_task"] == task])
        parts += [
            f"<h2>{escape(title(task))}: {escape(str(row['verdict']))}</h2>",
            f'<img alt="{escape(sentence(row))}" src="{style.as_data(figures[task], 160)}">',
            of_task.to_html(index=False, border=0),
        ]
        if said := _harm(row):
            parts.append(f"<p>{said}</p>")
    parts.append(f"<p>{escape(COLUMNS)}</p>")
    if unknown:
        items = "".join(f"<li>{escape(s)}</li>" for s in unknown)
        parts.append(f"<h2>What this cannot tell</h2><ul>{items}</ul>")
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in about.items())
    parts.append(f"<h2>What was compared</h2><table class='about'>{rows}</table>")
    return HEAD + "\n".join(parts) + "\n</body></html>\n"


HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What is left?</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
img { max-width: 100%; background: #fff; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.85rem; }
th, td { text-align: left; padding: 0.2rem 0.7rem; white-space: nowrap; }
.about td { white-space: normal; overflow-wrap: anywhere; }
tr + tr { border-top: 1px solid #ddd; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1b; } }
</style></head><body>
"""


def as_json(
    models: Mapping[str, str], table: pd.DataFrame, summary: pd.DataFrame, unknown: Sequence[str]
) -> str:
    """Write all that was found as JSON; NaN is null."""
    found = {
        "models": models,
        "summary": json.loads(summary.to_json(orient="records")),
        "rungs": json.loads(table.to_json(orient="records")),
        "cannot_tell": unknown,
    }
    return json.dumps(found, indent=1)


def write(
    folder: Path,
    table: pd.DataFrame,
    summary: pd.DataFrame,
    unknown: Sequence[str],
    about: Mapping[str, str],
) -> list[Path]:
    """Write tables (CSV), a picture a skill (PNG, PDF) and the page; return the files."""
    figures = {}
    for task in summary["eval_task"]:
        of_rungs, row = (t[t["eval_task"] == task] for t in (table, summary))
        said = sentence(row.to_dict("records")[0])
        figures[task] = ladder_figure.draw(of_rungs, row, said)
    html = page(table, summary, figures, unknown, about)
    written = []
    for task, figure in figures.items():
        of_task = table[table["eval_task"] == task]
        written += style.write(figure, of_task, folder, f"ladder_{task.replace(':', '-')}")
    for name, put in (
        ("summary.csv", lambda p: summary.to_csv(p, index=False, float_format="%.6g")),
        ("report.html", lambda p: p.write_text(html)),
    ):
        with replacing(folder / name) as path:
            put(path)
        written.append(folder / name)
    return written
