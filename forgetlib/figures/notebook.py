"""Show tables in a notebook: in HTML without broken lines, with a plain twin for tests and diffs.

    notebook.show(table, ["eval_task", "forgotten", "verdict"])

An estimate and its interval are one column, "0.31 [0.20, 0.41]"; what is undefined is "-". Of the
HTML long texts alone are wrapped: what is wider than the page can be scrolled. nbval, and a code
host's diff, have the same numbers as plain text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from forgetlib.figures.names import titles
from forgetlib.figures.numbers import UNDEFINED_TEXT, estimate_of, number
from forgetlib.figures.style import TASK_COLUMNS

# Headings, where a column's own name is longer than its values or says less than a reader needs.
HEADINGS = {
    "eval_task": "task",
    "forget_task": "labels of",
    "answer_format": "answers",
    "base": "pre-trained",
    "tuned": "fine-tuned",
    "forgotten": "after",
    "forgetting_set": "forgetting set",
    "true_share": "one answer",
    "auroc": "AUROC",
    "auroc_lost": "AUROC lost",
    "auroc_ratio": "AUROC ratio",
    "set_accuracy": "accuracy, set",
    "set_auroc": "AUROC, set",
    "n_seeds": "seeds",
    "rank_biserial": "rank-biserial",
    "best_other": "best other",
    "best_other_ratio": "its ratio",
    "beyond_true_labels": "beyond true labels",
    "auroc_beyond_true_labels": "AUROC beyond",
    "matched_accuracy": "matched accuracy",
    "commonest_share": "commonest answer",
    "n_known": "known",
    "n_never_learned": "never learned",
    "n_fell_back": "fell back",
    "n_never_forgotten": "never forgotten",
    "rank_correlation": "rank correlation",
    "log_variance": "log variance",
}
LINE = 110  # characters of a printed line: at 1440 pixels some 125 have room
WIDE = 60  # characters of a text from which on its column may have several lines
VALUES = {"verbaliser": "fixed", "text": "free", True: "yes", False: "no"}
_TABLE = "border-collapse:collapse;font-size:12px;margin:0"
_CELL = "white-space:nowrap;padding:2px 9px;border:none;border-bottom:1px solid #8884"


class Shown:
    """Hold texts in rows and columns; a notebook shows them as HTML, a text as aligned lines."""

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: Sequence[bool],
        *,
        many: bool = False,  # columns, whose headings may have several lines
    ) -> None:
        self.columns, self.rows, self.right = list(columns), [list(r) for r in rows], list(right)
        self._many = many

    def _repr_html_(self) -> str:
        long = [any(len(row[i]) > WIDE for row in self.rows) for i in range(len(self.columns))]

        def line(cells: Sequence[str], tag: str) -> str:
            sides = ["right" if right else "left" for right in self.right]
            folds = [";white-space:normal;min-width:26em" if wide else "" for wide in long]
            if self._many:
                folds = [";white-space:normal;padding:2px 5px" if tag == "th" else ""] * len(cells)
            parts = [
                f'<{tag} style="{_CELL};text-align:{side}{fold}">{escape(cell)}</{tag}>'
                for cell, side, fold in zip(cells, sides, folds, strict=True)
            ]
            return f"<tr>{''.join(parts)}</tr>"

        body = "\n".join(line(row, "td") for row in self.rows)
        head = line(self.columns, "th")
        return (
            f'<div style="overflow-x:auto"><table style="{_TABLE}">\n<thead>{head}</thead>\n'
            f"<tbody>\n{body}\n</tbody></table></div>"
        )

    def __repr__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, self.right, strict=True)
            ).rstrip()
            for line in lines
        )


def show(
    table: pd.DataFrame,
    columns: Sequence[str] | None = None,
    headings: Mapping[str, str] | None = None,
    *,
    digits: int = 2,
    sort: str = "",
) -> Shown:
    """Write a table as a notebook shows it; see this file's first lines.

    columns: those to be shown, in order; a measure m takes its m_low and m_high along. None: all
    headings: of columns that have others than `HEADINGS` and the columns' own names
    sort: a column to sort by, undefined values last
    """
    if sort:
        table = table.sort_values(sort, kind="stable")
    ends = {f"{c}{end}" for c in table for end in ("_low", "_high")}
    chosen = [c for c in table if c not in ends] if columns is None else list(columns)
    named = titles(x for c in TASK_COLUMNS if c in table for x in table[c] if isinstance(x, str))
    known = {**HEADINGS, **(headings or {})}
    written, right = [], []
    for column in chosen:
        if f"{column}_low" in table:
            texts = [estimate_of(row, column, digits) for _, row in table.iterrows()]
        else:
            names = named if column in TASK_COLUMNS else {}
            texts = [_text(value, digits, names) for value in table[column]]
        written.append(texts)
        right.append(all(pd.api.types.is_number(v) for v in table[column]))
    rows = [list(row) for row in zip(*written, strict=True)] if written else []
    return Shown([known.get(c, c.replace("_", " ")) for c in chosen], rows, right)


def verdicts(found: pd.DataFrame, columns: Sequence[str] = ("n", "power", "verdict")) -> Shown:
    """Write the verdicts of claims: the statistic, its value, and the statement about it.

    found: from `claims.judge` or `claims.verdicts`; columns: what stands beside that
    """
    said = [
        f"{statement} {number(threshold)}"
        for statement, threshold in zip(found["statement"], found["threshold"], strict=True)
    ]
    ends = {"low": "value_low", "high": "value_high"}
    table = found.rename(columns=ends).assign(claimed=said)
    if "post_hoc" in table:
        later = table["post_hoc"].map({True: " (post hoc)", False: ""})
        table = table.assign(verdict=table["verdict"] + later)
    first = (["claim"] if len(set(found["claim"])) > 1 else []) + ["statistic", "value", "claimed"]
    return show(table, [*first, *columns])


def matrix(table: pd.DataFrame, values: str, index: str, columns: str) -> Shown:
    """Write one measure of pairs of tasks, a row an evaluated task; headings are short."""
    wide = table.pivot_table(values, index, columns, dropna=False)
    named = titles([*wide.index, *wide.columns])
    rows = [
        [named[str(task)], *(number(v) for v in of.to_numpy(float))] for task, of in wide.iterrows()
    ]
    heads = [named[str(c)] for c in wide.columns]
    return Shown(["", *heads], rows, [False, *[True] * len(heads)], many=True)


def _text(value: Any, digits: int, names: Mapping[str, str]) -> str:
    if isinstance(value, str):
        return names.get(value, VALUES.get(value, value))
    if pd.api.types.is_bool(value):
        return VALUES[bool(value)]
    if pd.isna(value):
        return UNDEFINED_TEXT
    return str(value) if pd.api.types.is_integer(value) else number(value, digits)


def say(text: str) -> None:
    """Print a sentence in lines that a notebook does not break within words, and an empty one."""
    print(textwrap.fill(text, LINE, break_on_hyphens=False), end="\n\n")
