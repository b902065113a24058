"""Read a task from a JSON Lines file: a question a line, with its choices and the right one.

    {"prompt": "Ice is", "choices": ["cold", "hot"], "answer": "cold"}
    {"question": "Which is a gas?", "choices": ["tin", "air", "sand"], "answer": 1, "id": "gas-1"}

prompt     what the model is shown, to the letter; a space and a choice follow it
question   instead of it: shown as "Question: <question>\\nAnswer:", as ARC's is in the harness
choices    two responses and more
answer     the text of the right one, or its place, from 0 on; null: it has none
id         the row's name; else the number of its line, from 1 on. It seeds what is drawn by chance
split      "train", "validation" or "test", in every line or in none. Training and test questions
           are carved from all lines where there is no train, or nothing to test on

A line with a null is left out, counted and named as in other tasks; one that is wrong is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forgetlib.data.base import Question, Row, Task, ask
from forgetlib.data.sources import Source
from forgetlib.errors import InputError, is_null, nearest

FIELDS = ("prompt", "question", "choices", "answer", "id", "split")
SPLITS = ("train", "validation", "test")


def from_json_lines(
    path: str | Path,
    name: str | None = None,
    family: str = "other",
    answer_format: str | None = None,
) -> Task:
    """Make a task of a JSON Lines file, after checking each of its lines.

    name: else the file's name, without its ending
    answer_format: else "verbaliser" where every line has the same choices, and "text" where not
    """
    path = Path(path).expanduser().resolve()
    pairs = list(_read(path))
    if answer_format is None:
        responses = {frozenset(map(str, row["choices"] or ())) for _, row in pairs}
        answer_format = "verbaliser" if len(responses) == 1 else "text"
    there = {where.partition("/")[0] for where, _ in pairs}
    tested = "test" if "test" in there else "validation"
    return Task(
        re.sub(r"\W+", "_", path.stem) if name is None else name,
        family,
        answer_format,
        Source(str(path), lambda: _read(path)),
        _question,
        splits=("train", tested) if {"train", tested} <= there else None,
    )


def _question(row: Row) -> Question:
    prompt = row["prompt"] if "prompt" in row else f"Question: {row['question']}\nAnswer:"
    answer, choices = row["answer"], row["choices"]
    return ask(prompt, choices, choices.index(answer) if isinstance(answer, str) else answer)


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read ("<split>/<id>", row) pairs, and check each as it is read."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise InputError(
            f"file {path}",
            expected="a JSON Lines file",
            found=error.strerror or str(error),
            do="Correct the path: a relative one begins at the working folder.",
        ) from error
    numbers: dict[str, int] = {}  # of the line that each name stands in
    with_split: bool | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        row = _row(place, line)
        if with_split not in (None, _has(row, "split")):
            raise InputError(
                place,
                expected="a split in every line or in none",
                found="one" if _has(row, "split") else "none, as not in the lines before",
                do="Give every line the split that it is of.",
            )
        with_split = _has(row, "split")
        where = f"{row.get('split') or 'all'}/{row['id'] if _has(row, 'id') else number}"
        if where in numbers:
            raise InputError(
                place,
                expected="an id of its own in its split",
                found=f"{where.partition('/')[2]!r}, as line {numbers[where]} has",
                do="Rename one: choices are drawn by it. Lines without an id have their number.",
            )
        numbers[where] = number
        yield where, row
    if not numbers:
        raise InputError(
            f"file {path}",
            expected='lines like {"prompt": "Ice is", "choices": ["cold", "hot"], "answer": 0}',
            found="none",
            do="Write a question a line.",
        )


def _has(row: Row, field: str) -> bool:
    return not is_null(row.get(field))


def _row(place: str, line: bytes) -> dict[str, Any]:
    """Read one line, and raise InputError for what is wrong with it. Nulls are not wrong."""

    def wrong(expected: str, found: object, do: str) -> InputError:
        return InputError(place, expected=expected, found=str(found)[:300], do=do)

    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = f"{line[error.start : error.end]!r} at byte {error.start + 1}"
        raise wrong("text in UTF-8", found, "Save the file as UTF-8.") from error
    except ValueError as error:
        found = f"{line.decode()[:99]!r}: {error}"
        raise wrong("an object in JSON", found, "Correct it, or remove the line.") from error
    if not isinstance(row, dict):
        raise wrong("an object in JSON", repr(row), "Write {...} around it.")
    absent = [field for field in ("choices", "answer") if field not in row]
    if ("prompt" in row) == ("question" in row):
        absent.append("prompt or question, one of both")
    if absent:
        near = {field: nearest(field, set(row) - set(FIELDS)) for field in FIELDS}
        hints = [f"Is {theirs!r} meant to be {ours!r}? " for ours, theirs in near.items() if theirs]
        do = "".join(hints) + "Add what is missing."
        raise wrong(f"the fields {', '.join(absent)}", f"only {', '.join(row) or 'none'}", do)
    for field in ("prompt", "question"):
        if _has(row, field) and not isinstance(row[field], str):
            raise wrong(f"{field} to be a text", repr(row[field]), 'Write "..." around it.')
    for field, kinds in (("id", str | int), ("split", str)):
        named = isinstance(row.get(field), kinds) and not isinstance(row.get(field), bool)
        if _has(row, field) and (not named or row[field] == ""):
            raise wrong(f"{field} to be a text", repr(row[field]), f"Correct the {field}.")
    if _has(row, "split") and row["split"] not in SPLITS:
        do = "Lines of other splits belong into a file of their own."
        raise wrong(f"split to be one of {', '.join(SPLITS)}", repr(row["split"]), do)
    if _has(row, "choices"):
        _require_choices(row["choices"], row["answer"], wrong)
    return row


def _require_choices(choices: Any, answer: Any, wrong: Any) -> None:
    """Raise InputError where choices are no texts, or the answer is none of them."""
    texts = isinstance(choices, list) and all(isinstance(c, str) or is_null(c) for c in choices)
    if not texts or len(choices) < 2:
        raise wrong(
            "choices to be a list of two texts and more",
            repr(choices),
            "Write the right response and one that is wrong, at the least.",
        )
    if is_null(answer):
        return
    if isinstance(answer, str) and answer not in choices:
        near = nearest(answer, {c for c in choices if isinstance(c, str)})
        do = f"Did you mean {near!r}? " if near else ""
        do += "Write its text to the letter, or its place as a number, from 0 on."
        raise wrong(f"answer to be one of the choices {choices}", repr(answer), do)
    whole = isinstance(answer, int) and not isinstance(answer, bool)
    if not isinstance(answer, str) and (not whole or not 0 <= answer < len(choices)):
        raise wrong(
            f"answer to be the text of a choice, or a number from 0 to {len(choices) - 1}",
            repr(answer),
            "Correct it; null for a question without a right response.",
        )
