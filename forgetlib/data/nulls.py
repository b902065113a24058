"""Find rows with nothing where a question needs text, by asking with and without the field."""

from __future__ import annotations

import re
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np
import pandas as pd

from forgetlib.data.base import Question, Row
from forgetlib.errors import ForgetlibError, is_null

Path = tuple[str | int, ...]  # where in a row a value is: ("choices", "text", 0)
MARK = "\ufdd0"  # stands for a null in a trial; Unicode keeps it out of every text
# As str() writes a null, or as a function that writes all in capitals does. In small letters it is
# a word that a function has chosen: `row["topping"] or "none"`.
NONE = re.compile("None|NONE")


class Lacking(Exception):
    """Say that a question needs a field in which its row has nothing.

    kind: "null", "empty", "absent" where the row has no such field, or what else is wrong with it
    field: "choices.text", for example; or the part of the question that is empty
    """

    def __init__(self, kind: str, field: str) -> None:
        super().__init__(f"{kind} {field}")
        self.kind, self.field = kind, field


def asked(function: Callable[[Row], Question | None], row: Row) -> Question | None:
    """Ask what a task's function asks about a row. Raises Lacking, or what the function raises.

    The function sees None for every null, NaN included. It may make something of it; but a null
    that it writes into the question as the word "None", or over which it stumbles, is lacking. So
    is an empty text over which it stumbles. Whether it was that, a trial tells with another value
    in its place.
    """
    leaves = list(_leaves(row))
    nulls = [path for path, leaf in leaves if is_null(leaf)]
    for path in nulls:
        row = _with(row, path, None)
    found = _outcome(function, row)
    stumbled = isinstance(found, Exception)
    if stumbled or (isinstance(found, Question) and NONE.search(_text(found))):
        suspects = [("null", path) for path in nulls]
        if isinstance(row, Mapping):
            watched = _Watched(row)
            _outcome(function, watched)
            suspects += [("absent", (field,)) for field in watched.absent]
        if stumbled:
            empty = (path for path, leaf in leaves if isinstance(leaf, str) and not leaf.strip())
            suspects += [("empty", path) for path in empty]
        for kind, path in suspects:
            if _matters(kind, found, _outcome(function, _with(row, path, MARK))):
                names = [key for key in path if isinstance(key, str)] or [*map(str, path)]
                raise Lacking(kind, ".".join(names)) from (found if stumbled else None)
    if stumbled:
        raise found
    if isinstance(found, Question) and (part := _empty_part(found)):
        raise Lacking("empty", part)
    return found


def _empty_part(question: Question) -> str:
    """Name what a question has no text for, though every example needs it; "" for nothing."""
    others = [c for i, c in enumerate(question.choices) if i != question.gold]
    if not question.prompts[question.gold].strip():
        return "prompt"
    if not question.choices[question.gold].strip():
        return "true response"
    return "distractor" if others and not "".join(others).strip() else ""


def _outcome(function: Callable[[Row], Question | None], row: Row) -> Any:
    """Call a question function, and return what it returns or what it raises."""
    try:
        return function(row)
    except Exception as error:
        return error


def _matters(kind: str, found: Question | Exception, trial: Any) -> bool:
    """Tell whether a question function, given a mark instead of nothing, does something else.

    Where it had made a question: whether the mark stands where the word "None" stood; and of a
    field that its row need not have, nothing else may have changed.
    """
    if isinstance(found, Exception):
        return _complaint(found) != _complaint(trial)
    if not isinstance(trial, Question) or not (n_marks := _text(trial).count(MARK)):
        return False
    if kind == "absent":
        return NONE.sub(MARK, _text(found)) == NONE.sub(MARK, _text(trial))
    return len(NONE.findall(_text(found))) == len(NONE.findall(_text(trial))) + n_marks


def _complaint(outcome: Any) -> tuple[str, ...]:
    """Tell what an exception is about. Ours name the question, which has the mark in any case."""
    if isinstance(outcome, ForgetlibError):
        return outcome.expected, outcome.found
    return type(outcome).__name__, str(outcome)


def has_null(row: Row) -> bool:
    """Tell whether a row has a null anywhere in it."""
    return any(is_null(leaf) for _, leaf in _leaves(row))


def _text(question: Question) -> str:
    return "\n".join((*question.prompts, *question.choices))


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Find the values in a row that hold no others, each with its place."""
    parts: Any
    if isinstance(value, Mapping | pd.Series):
        parts = value.items()
    elif isinstance(value, list | tuple) or _holds_objects(value):
        parts = enumerate(value)
    else:
        yield path, value
        return
    for key, part in parts:
        yield from _leaves(part, (*path, key))


def _with(value: Any, path: Path, leaf: Any) -> Any:
    """Copy a row, or a part of it, with another value at this place."""
    if not path:
        return leaf
    key, *rest = path
    changed: Any
    if isinstance(value, Mapping):
        # A dict with ways of its own keeps them. Of others a copy may share what is inside.
        changed = copy(value) if isinstance(value, dict | UserDict) else dict(value)
        changed[key] = _with(value.get(key), tuple(rest), leaf)
        return changed
    if isinstance(value, pd.Series):
        changed = value.astype(object)  # of numbers or texts, None would be NaN again
    else:
        changed = value.copy() if isinstance(value, np.ndarray) else list(value)
    changed[key] = _with(value[key], tuple(rest), leaf)
    if isinstance(value, tuple):
        return type(value)(*changed) if hasattr(value, "_fields") else tuple(changed)
    return changed


def _holds_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object and value.ndim > 0


class _Watched(dict[str, Any]):
    """Remember which fields a row was asked for that it does not have."""

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self.absent: list[str] = []

    def get(self, field: str, default: Any = None) -> Any:
        if field not in self and default is None:
            self.absent.append(field)
        return super().get(field, default)

    def __missing__(self, field: str) -> Any:
        self.absent.append(field)
        raise KeyError(field)
