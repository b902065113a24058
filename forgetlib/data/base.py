"""Define questions, examples, tasks and views. The first three are frozen, and checked when made.

    rows -> Question (all choices, the harness's prompt) -> Example (true response, one distractor)
         -> Example (as a view shows it)

Shapes: C choices (2 after binarising).
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

from forgetlib.errors import (
    InputError,
    require_label,
    require_one_of,
    require_texts,
    require_whole,
    utf8,
)


def hash_uniform(purpose: str, seed: int, uid: str) -> float:
    """Draw a number in [0, 1) that depends on its arguments only.

    Every random choice about an example (its split, its distractor, the order of its choices, its
    random label) comes from here, so that none depends on how many examples there are or on their
    order: the first 100 examples of a task are a prefix of the first 1000.
    """
    seed = require_whole("seed", seed)
    text = utf8("uid", f"{purpose}|{seed}|{uid}")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


@dataclass(frozen=True)
class Example:
    """Hold one binarised multiple-choice question.

    uid: "<task>/<split>/<row>"
    prompts: (C,) equal strings, except in partial scoring (WinoGrande), where the prompts differ
        and the choice, which is then the continuation, is shared
    choices: (C,) the responses, without the space that joins them to the prompt
    label: index of the true response
    """

    uid: str
    prompts: tuple[str, ...]
    choices: tuple[str, ...]
    label: int

    def __post_init__(self) -> None:
        what = f"example {self.uid!r}"

        def wrong(expected: object, found: object, do: str) -> InputError:
            return InputError(what, expected=expected, found=found, do=do)

        parts = self.uid.split("/", 2) if isinstance(self.uid, str) else ()
        if len(parts) < 3 or not all(parts):
            raise wrong(
                "a uid '<task>/<split>/<row>'", repr(self.uid), "Name the example's origin."
            )
        for name in ("prompts", "choices"):
            expected = f"{name} to be a tuple of str"
            texts = require_texts(what, getattr(self, name), expected, "Convert them to str.")
            object.__setattr__(self, name, texts)
        if len(self.choices) < 2:
            raise wrong(
                "at least two choices",
                f"{len(self.choices)}",
                "Forgetting is measured against a distractor: add one, or drop the question.",
            )
        if len(self.prompts) != len(self.choices):
            raise wrong(
                "as many prompts as choices",
                f"{len(self.prompts)} prompts and {len(self.choices)} choices",
                "Repeat the prompt for every choice.",
            )
        for text in (self.uid, *self.prompts, *self.choices):
            utf8(what, text)
        if not all(t.strip() for t in (*self.prompts, *self.choices)):
            raise wrong(
                "prompts and choices with text",
                repr((self.prompts, self.choices)),
                "An empty string has no likelihood: fill it in, or drop the question.",
            )
        pairs = list(zip(self.prompts, self.choices, strict=True))
        if len(set(pairs)) < len(pairs):
            raise wrong(
                "choices that differ",
                repr(self.choices),
                "Two equal responses cannot be told apart: drop the question.",
            )
        do = "It has no true response: leave the example out."
        label = require_label(f"label of {what}", self.label, len(self.choices), do)
        object.__setattr__(self, "label", label)

    @property
    def task(self) -> str:
        """Read the task's name off the uid."""
        return self.uid.partition("/")[0]


Row = Mapping[str, Any]
Rows = Callable[[], Iterable[tuple[str, Row]]]  # ("<split>/<row number>", row) pairs


@dataclass(frozen=True)
class Question:
    """Hold a question with all its choices, as the harness scores it.

    prompts: (K,) one for each choice; equal but in partial scoring
    choices: (K,) without the space that joins them to the prompt
    gold: index of the true response
    """

    prompts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int

    def __post_init__(self) -> None:
        for name in ("prompts", "choices"):
            what = f"{name} of a question"
            do = "Convert them to str."
            texts = require_texts(what, getattr(self, name), "a tuple of str", do)
            object.__setattr__(self, name, texts)
            for text in texts:
                utf8(what, text)
        if len(self.prompts) != len(self.choices):
            raise InputError(
                f"question {self.prompts[:1]}",
                expected="as many prompts as choices",
                found=f"{len(self.prompts)} prompts and {len(self.choices)} choices",
                do="Repeat the prompt for every choice, as `ask` does.",
            )
        # Rows without a label have -1, which as an index would be the last choice.
        do = "Leave out rows without a label: their question is None."
        what = f"gold of question {self.prompts[:1]}"
        gold = require_label(what, self.gold, len(self.choices), do)
        object.__setattr__(self, "gold", gold)


def ask(prompt: str, choices: Sequence[str], gold: int) -> Question:
    """Make a question whose choices follow the same prompt."""
    if isinstance(choices, str):
        raise InputError(
            "choices of a question",
            expected="a list of str",
            found=repr(choices),
            do="Write [...] around it: its letters are no choices.",
        )
    return Question((prompt,) * len(choices), tuple(choices), gold)


ANSWER_FORMATS = ("text", "verbaliser")
NAME = re.compile(r"\w+|harness:[\w.()+-]+")  # of a task; the latter as the harness has them


@dataclass(frozen=True)
class Task:
    """Say where a task's rows are and how a row becomes a question; both have to be given.

    family: commonsense, science, reading, math, reasoning, knowledge, programming, toxicity,
        language understanding, synthetic or other; the analyses compare tasks by it
    answer_format: "verbaliser" where every question has the same responses (yes/no), else "text"
    rows: () -> ("<split>/<row>", row) pairs
    question: row -> Question, or None where the row is not usable for the task
    harness: the task's name in the lm-evaluation-harness, or a pattern of several; else ""
    note: why it has none there, or how it differs
    splits: the source's splits to train on and to test on. None, or a source that lacks one of
        them: training and test examples are carved from all rows
    """

    name: str
    family: str = "other"
    answer_format: str = "text"
    rows: Rows = None  # type: ignore[assignment]
    question: Callable[[Row], Question | None] = None  # type: ignore[assignment]
    harness: str = ""
    note: str = ""
    splits: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise InputError(
                "task name", expected="letters, digits, _", found=repr(self.name), do="Rename it."
            )
        require_one_of(f"answer_format of task {self.name!r}", self.answer_format, ANSWER_FORMATS)
        for name in ("rows", "question"):
            if not callable(value := getattr(self, name)):
                raise InputError(
                    f"task {self.name!r}",
                    expected=f"{name} to be a function",
                    found=type(value).__name__,
                    do="Pass rows() -> ('<split>/<row>', row) pairs and question(row) -> Question.",
                )

    @property
    def has_fixed_answers(self) -> bool:
        """Tell whether every question has the same responses."""
        return self.answer_format == "verbaliser"


def binarise(question: Question, uid: str, seed: int) -> Example | None:
    """Keep the true response and one random distractor, in random order (paper, section 3).

    Distractors equal to the true response are no distractors; None where none is left. White space
    may be all that differs, as in questions on trimming.
    """
    pairs = list(zip(question.prompts, question.choices, strict=True))
    true = pairs[question.gold]
    others = sorted({p for p in pairs if p != true and p[1].strip()})
    if not others or not true[1].strip() or not true[0].strip():
        return None
    other = others[int(hash_uniform("distractor", seed, uid) * len(others))]
    label = int(hash_uniform("order", seed, uid) < 0.5)
    first, second = (true, other) if label == 0 else (other, true)
    return Example(uid, (first[0], second[0]), (first[1], second[1]), label)


def normalised(example: Example) -> str:
    """Return what two examples share when one gives the other away.

    It is the prompt, but for case and space.
    """
    return " ".join(sorted({" ".join(p.lower().split()) for p in example.prompts}))


class View(ABC):
    """Show an example in some form. A subclass is known by its name as soon as it is defined.

    How to add one is shown in `views`; the package's own are in `forms`.
    """

    kind: ClassVar[str]  # the name, without settings
    _known: ClassVar[dict[str, type[View]]] = {}

    def __init_subclass__(cls, name: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        if not name:  # of several views, which have names of their own
            return
        if not re.fullmatch(r"[a-z]\w*", name):
            raise InputError(
                f"name of view {cls.__name__}",
                expected="a small letter, then letters, digits, _",
                found=repr(name),
                do='Write class Shouted(View, name="shouted").',
            )
        if name in View._known and is_ours(View._known[name]) and not is_ours(cls):
            raise InputError(
                f"name of view {cls.__name__}",
                expected="a new name",
                found=repr(name),
                do="The package has a view of this name: choose another.",
            )
        cls.kind = name
        View._known[name] = cls  # again, to correct one's own

    @abstractmethod
    def shown(self, example: Example) -> Example:
        """Return the example with other texts, and everything else as it is.

        example: (2,) prompts and choices, as binarised
        """

    def of(self, task: str, seed: int) -> View:
        """Return the view made ready for a task's questions; as a rule it is ready as it is.

        For a view that needs to know the task, or other questions of it, as examples to show.
        `views.apply` calls it once a task.

        seed: of the split that the questions are of
        """
        return self

    @property
    def name(self) -> str:
        """Return the name by which `views.get` finds the view, settings included."""
        if not is_dataclass(self) or not fields(self):
            return self.kind
        return f"{self.kind}({', '.join(repr(getattr(self, f.name)) for f in fields(self))})"


def is_ours(cls: Any) -> bool:
    """Tell whether a class or function is of the package."""
    return cls.__module__.startswith("forgetlib.")


def with_texts(
    example: Example,
    write: Callable[[str], str],
    *,
    prompts: bool = True,
    choices: bool = True,
) -> Example:
    """Write an example's texts anew, each by itself."""
    return replace(
        example,
        prompts=tuple(map(write, example.prompts)) if prompts else example.prompts,
        choices=tuple(map(write, example.choices)) if choices else example.choices,
    )
