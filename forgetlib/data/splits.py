"""Decide which questions of a task are trained on and which are tested, for a seed.

Every random choice hashes seed and uid, so that none depends on how many questions there are or on
their order.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import compress

from forgetlib.data import tasks
from forgetlib.data.base import Example, Question, Row, Task, binarise, hash_uniform, normalised
from forgetlib.data.harness import Asking, Refused
from forgetlib.data.nulls import Lacking, asked
from forgetlib.data.sources import DataMissing, Source
from forgetlib.errors import ForgetlibError, InputError, require_one_of, require_whole

TEST_SHARE = 0.4  # of the questions, where the source's own splits are not used


@cache
def questions(name: str) -> tuple[tuple[str, Question], ...]:
    """Return every usable question of a task, as (uid, question), in the source's order."""
    return tuple(_read(name)[0].items())


def question(uid: str) -> Question:
    """Return the question that an example is made from, with all its choices."""
    return _read(uid.partition("/")[0])[0][uid]


def left_out(name: str) -> dict[str, str]:
    """Name the rows of a task that lack what their question needs: uid -> "null passage", say.

    Nulls, fields that only other rows have, and empty texts. Rows for which the task's function
    says None are not counted.
    """
    return dict(_read(name)[1])


@cache
def _read(name: str) -> tuple[dict[str, Question], dict[str, str]]:
    """Read the questions of a task's rows, and what those lack that have none, both by uid.

    What is left out is told once, when it is read.
    """
    task = tasks.get(name)
    seen: set[str] = set()
    fields: set[str] = set()
    found: dict[str, Question] = {}
    lacking: dict[str, Lacking] = {}
    for pair in task.rows():
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InputError(
                f"rows of task {name!r}",
                expected="pairs ('<split>/<row>', row)",
                found=repr(pair)[:300],
                do="Give every row its name in the source.",
            )
        uid, row = f"{name}/{pair[0]}", pair[1]
        if uid in seen:
            raise InputError(
                f"rows of task {name!r}",
                expected="every row under a name of its own",
                found=f"{pair[0]!r} twice",
                do="Number the rows of a split.",
            )
        seen.add(uid)
        if isinstance(row, Mapping):
            fields.update(row)
        try:
            question = _question(task, uid, row)
        except Lacking as error:
            lacking[uid] = error
        else:
            if question is not None:
                found[uid] = question
    for uid, lack in lacking.items():
        if lack.kind == "absent" and lack.field not in fields:  # of no row: it is misspelt
            raise _unusable(task, uid, f"KeyError: {lack.field!r}, a field of no row") from lack
    reasons = {uid: str(lack) for uid, lack in lacking.items()}
    if reasons:
        said = _first(reasons)
        warnings.warn(f"task {name!r} goes on without {said}", stacklevel=3)
    return found, reasons


def _first(reasons: Mapping[str, str]) -> str:
    """Say how many rows were left out, and why the first of them was."""
    uid, why = next(iter(reasons.items()))
    return f"{len(reasons)} rows that lack what their question needs, first {uid!r}: {why}"


def _question(task: Task, uid: str, row: Row) -> Question | None:
    """Ask what the task asks about a row; what goes wrong is said with the row's name."""
    try:
        question = asked(task.question, row)
    except (Lacking, Refused):
        raise
    except Exception as error:
        raise _unusable(task, uid, error) from error
    if question is not None and not isinstance(question, Question):
        raise _unusable(task, uid, repr(question)[:300])
    return question


def _unusable(task: Task, uid: str, found: str | Exception) -> InputError:
    """Make the error for a row without a question: a task's own function is to blame, or the data.

    Functions of the package were written for data as they were published.
    """
    said = f"{type(found).__name__}: {found}" if isinstance(found, Exception) else found
    expected = "a Question, or None where it cannot be used"
    do = "Correct the task's question function."
    ours = task.name in tasks.BUILT_IN or isinstance(task.question, Asking)
    if ours and isinstance(task.rows, Source):
        expected = f"what a row of {task.rows.place} holds"
        do = "The data there are damaged, or of another version: correct this row, or drop it."
        if isinstance(found, ForgetlibError):  # without its advice, which is for a function
            said = f"{found.what}: expected {found.expected}, found {found.found}"
    return InputError(f"row {uid!r}", expected=expected, found=said.rstrip("."), do=do)


@dataclass(frozen=True)
class Split:
    """Hold a task's examples for one seed, in the order in which a smaller n takes them.

    n_overlap: training examples removed because the test set asks the same
    n_left_out: rows that lack what their question needs, of both sets and all seeds (`left_out`)
    carved: whether both were carved from the same rows, anew for each seed; else they are the
        source's own splits, and the seed decides their order
    """

    train: tuple[Example, ...]
    test: tuple[Example, ...]
    n_overlap: int
    carved: bool
    n_left_out: int = 0


@lru_cache(maxsize=64)
def split(name: str, seed: int) -> Split:
    """Split a task into training and test examples, by seed and uids, whatever the order."""
    examples = [
        example
        for uid, question in questions(name)
        if (example := binarise(question, uid, seed)) is not None
    ]
    examples.sort(key=lambda e: hash_uniform("sample", seed, e.uid))
    origins = [e.uid.split("/")[1] for e in examples]
    own = tasks.get(name).splits or ()
    carved = not own or not set(own) <= set(origins)
    if carved:
        in_test = [hash_uniform("split", seed, e.uid) < TEST_SHARE for e in examples]
        in_train = [not tested for tested in in_test]
    else:
        in_train, in_test = ([origin == part for origin in origins] for part in own)
    test = tuple(compress(examples, in_test))
    asked = {normalised(e) for e in test}
    pool = tuple(compress(examples, in_train))
    train = tuple(e for e in pool if normalised(e) not in asked)
    return Split(train, test, len(pool) - len(train), carved, len(left_out(name)))


def load(name: str, part: str, n: int, seed: int) -> list[Example]:
    """Return the first n examples of a task's "train" or "test" part, or all of fewer."""
    require_one_of(f"part of task {name!r}", part, ("train", "test"))
    require_whole("n", n, 1)
    require_whole("seed", seed)
    examples = getattr(split(name, seed), part)[:n]
    if not examples:
        reasons = left_out(name)
        raise InputError(
            f"task {name!r}",
            expected=f"at least one usable {part} example",
            found="none" + (f", but {_first(reasons)}" if reasons else ""),
            do="Check the task's rows and its question function.",
        )
    return list(examples)


def missing(names: Iterable[str]) -> dict[str, str]:
    """Name the tasks whose data cannot be had here, with the reason in one line.

    Data that only have not been fetched yet are fetched; of those that are here one row is read. A
    wrong FORGETLIB_HUB is no missing data but an error.
    """
    found = {}
    for name in names:
        try:
            next(iter(tasks.get(name).rows()), None)
        except DataMissing as error:
            found[name] = str(error)
    return found


# Until another task of the name is added.
tasks.REMEMBERING.extend([_read, questions, split])
