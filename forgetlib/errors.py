"""The package's errors, and what is asked of a value before it is used.

Every error says what is wrong, what was expected, what was found, and what to do.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any

import numpy as np


class ForgetlibError(Exception):
    """Every error says what is wrong, what was expected, what was found, and what to do."""

    def __init__(self, what: str, *, expected: object, found: object, do: str) -> None:
        self.what, self.expected, self.found = what, str(expected), str(found)
        super().__init__(f"{what}: expected {expected}, found {found}. {do}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call the class with the message alone. An error that cannot be made again
        # from what a process sends breaks the pool that the process is of.
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[ForgetlibError], args: tuple[str], state: dict[str, Any]) -> Any:
    """Make an error again as it was, also of a class that is called in its own way."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InputError(ForgetlibError, ValueError):
    """The caller passed something that cannot be right."""


class LaterVersion(InputError):
    """A stored record has a field that only a later version of this package knows."""


class ModelError(ForgetlibError, RuntimeError):
    """A model could not be loaded, or does not do what a causal language model does."""


class UnusableNumbers(ForgetlibError, RuntimeError):
    """What a model computed of some examples cannot be used; of others it may."""


def in_a_line(error: BaseException, *, named: bool = False, most: int = 300) -> str:
    """Write what an error says in one line, of so many letters at most.

    named: begin with the name of its class
    """
    said = f"{type(error).__name__}: {error}" if named else str(error)
    return " ".join(said.split())[:most]


def require(what: str, value: object, kind: type | UnionType, expected: str) -> None:
    """Raise InputError unless the value is of this kind."""
    if not isinstance(value, kind):
        raise InputError(what, expected=expected, found=repr(value), do="Correct the value.")


def require_one_of(
    what: str, value: object, allowed: Collection[str], do: str = "Choose one of these."
) -> None:
    """Raise InputError unless the value is one of these words; it names the one that is near."""
    if not isinstance(value, str) or value not in allowed:
        if near := nearest(value, allowed):
            do = f"Did you mean {near!r}? {do}"
        raise InputError(what, expected=f"one of {', '.join(allowed)}", found=repr(value), do=do)


def nearest(value: object, allowed: Collection[str]) -> str | None:
    """Return the word that the value is a misspelling of, if there is one."""
    lower = {word.lower(): word for word in allowed}
    near = difflib.get_close_matches(str(value).lower(), lower, n=1, cutoff=0.7)
    return lower[near[0]] if near else None


def require_whole(
    what: str,
    value: object,
    least: int = 0,
    most: int | None = None,
    do: str = "Correct the number.",
) -> int:
    """Return the number as Python's int, as JSON can hold no other; InputError where it is none.

    Integers of NumPy and PyTorch, single ones, are whole numbers too.

    do: what to do where `int` would not make it one
    """
    number = _whole(value)
    if number is None or number < least or (most is not None and number > most):
        until = "" if most is None else f" to {most}"
        expected = f"a whole number from {least}{until}"
        do = "Convert it with int(...)." if number is None and _says_whole(value) else do
        raise InputError(what, expected=expected, found=repr(value), do=do)
    return number


def require_label(what: str, value: object, n_choices: int, unlabelled: str) -> int:
    """Return the index of one of so many choices as Python's int; InputError where it is none.

    unlabelled: what to do where there is no label, for which data sets write null or -1
    """
    without = is_null(value) or _whole(value) == -1
    do = unlabelled if without else "The label is the index of the true response."
    return require_whole(what, value, 0, n_choices - 1, do)


def _whole(value: Any) -> int | None:
    """The value as an int of Python's own; None where it is no integer, or a truth value."""
    if type(value) is int:
        return value
    is_truth = isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
    if is_truth or getattr(value, "ndim", None):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _says_whole(value: object) -> bool:
    """Whether int(value) is what was meant: "0", 0.0 or True."""
    if isinstance(value, str):
        return re.fullmatch(r"\s*[+-]?\d+\s*", value) is not None
    if isinstance(value, float | np.floating):
        return float(value).is_integer()
    return isinstance(value, bool | np.bool_)


def is_null(value: Any) -> bool:
    """Tell whether a value is one of those that stand for none: None, NaN, and those of pandas."""
    if isinstance(value, float) or getattr(value, "ndim", 1) == 0:
        return bool(value != value)  # only NaN, and a date that is none, differ from themselves
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def require_number(what: str, value: Any, expected: str, fits: Callable[[float], bool]) -> float:
    """Return the number as a float, 0 without a sign; InputError where it does not fit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not fits(value):
        raise InputError(what, expected=expected, found=repr(value), do="Correct the number.")
    return float(value) + 0.0


def require_name(what: str, value: object) -> None:
    """Raise InputError unless the value is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputError(what, expected="a name", found=repr(value), do="Name one.")


def require_texts(what: str, value: object, expected: str, do: str) -> tuple[str, ...]:
    """Return the texts as Python's str; InputError where it is no tuple of str.

    A single str would be its letters. NumPy's are str too, but written otherwise.
    """
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise InputError(what, expected=expected, found=repr(value), do=do)
    return tuple(str(text) for text in value)


def require_distinct_uids(what: str, uids: Sequence[str]) -> None:
    """Raise InputError where a uid is there twice: scores and labels are told apart by it."""
    if len(set(uids)) < len(uids):
        repeated = sorted(uid for uid, count in Counter(uids).items() if count > 1)
        raise InputError(
            what,
            expected="every uid once",
            found=f"repeated {repeated[:3]}",
            do="Remove the duplicates before scoring.",
        )


def utf8(what: str, text: str) -> bytes:
    """Encode a text; InputError where it has no bytes, as half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            what,
            expected="text that can be written as UTF-8",
            found=repr(text),
            do="It was decoded in the wrong way: correct that, or drop it.",
        ) from error


def require_arrays(result: object, *names: str) -> None:
    """Raise InputError unless each of these attributes is a NumPy array."""
    for name in names:
        if not isinstance(value := getattr(result, name), np.ndarray):
            raise InputError(
                f"{type(result).__name__}.{name}",
                expected="a NumPy array",
                found=type(value).__name__,
                do="Convert it: np.array(...).",
            )


def require_finite(what: str, values: np.ndarray) -> None:
    """Raise InputError where a value is infinite or no number."""
    if not np.isfinite(values).all():
        raise InputError(
            what,
            expected="finite numbers",
            found="not-a-number or infinity",
            do="The model computes no usable numbers: check its weights and dtype.",
        )


def require_record(cls: type, values: object, needed: Collection[str] = ()) -> None:
    """Raise InputError unless these are fields of the class, and all that have no default.

    needed: further ones that have to be there
    """
    known = {f.name: f.default is MISSING or f.name in needed for f in fields(cls)}
    found: object = repr(values)
    if isinstance(values, Mapping):
        unknown = sorted(set(values) - set(known))
        absent = [name for name, is_needed in known.items() if is_needed and name not in values]
        if not unknown and not absent:
            return
        if unknown:
            raise LaterVersion(
                cls.__name__,
                expected=f"fields among {sorted(known)}",
                found=unknown,
                do="The record was written by a newer version: install that one to read it.",
            )
        found = f"none of {absent}"
    raise InputError(
        cls.__name__,
        expected=f"fields among {sorted(known)}",
        found=found,
        do="The record is incomplete, or of another version: delete it, and it is computed again.",
    )
