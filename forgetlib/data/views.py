'''Show questions otherwise than plainly: in capitals, in a chat, after examples.

A view changes an example's texts and nothing else. It is applied to examples that `splits.load`
gave, after distractors were drawn and training and test questions told apart: uids, labels, order
and pairing stay, and no question that was trained on comes into a test set under another form.

Only `plain` is built in. To add one, write a class; its name is what a measurement calls it by:

    from forgetlib.data import splits, views

    class Upper(views.View, name="upper"):
        """Show everything in capitals."""

        def shown(self, example):
            return views.with_texts(example, str.upper)

    examples = views.apply("upper", splits.load("tiny_city", "test", n=5, seed=0))

One with settings is a dataclass, and they are a part of the name:

    from dataclasses import dataclass

    @dataclass(frozen=True)
    class After(views.View, name="after"):
        """Show the prompt after so many words of nothing."""

        n: int

        def shown(self, example):
            return views.with_texts(example, lambda t: "um " * self.n + t, choices=False)

    views.get("after(3)")
'''

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar

from forgetlib.data.base import Example
from forgetlib.errors import ForgetlibError, InputError, require_one_of

_VIEWS: dict[str, type[View]] = {}


class View(ABC):
    """Show an example in some form. A subclass is known by its name as soon as it is defined."""

    kind: ClassVar[str]  # the name, without settings

    def __init_subclass__(cls, name: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        if not name:  # of several views, which have names of their own
            return
        if not re.fullmatch(r"[a-z]\w*", name):
            raise InputError(
                f"name of view {cls.__name__}",
                expected="a small letter, then letters, digits, _",
                found=repr(name),
                do='Write class Upper(View, name="upper").',
            )
        if name in BUILT_IN:
            raise InputError(
                f"name of view {cls.__name__}",
                expected="a new name",
                found=repr(name),
                do="The package has a view of this name: choose another.",
            )
        cls.kind = name
        _VIEWS[name] = cls  # again, to correct one's own

    @abstractmethod
    def shown(self, example: Example) -> Example:
        """Return the example with other texts, and everything else as it is.

        example: (2,) prompts and choices, as binarised
        """

    @property
    def name(self) -> str:
        """Return the name by which `get` finds the view, settings included."""
        if not is_dataclass(self) or not fields(self):
            return self.kind
        return f"{self.kind}({', '.join(repr(getattr(self, f.name)) for f in fields(self))})"


BUILT_IN: frozenset[str] = frozenset()  # filled below


class Plain(View, name="plain"):
    """Show every example as it is."""

    def shown(self, example: Example) -> Example:
        return example


BUILT_IN = frozenset(_VIEWS)


def get(name: str) -> View:
    """Return the view of this name; settings stand in brackets, as in few_shot(4)."""
    found = re.fullmatch(r"(\w+)(?:\((.*)\))?", name) if isinstance(name, str) else None
    kind = found[1] if found else name
    do = "Correct the name, or define the view: see forgetlib.data.views."
    require_one_of("view", kind, sorted(_VIEWS), do)
    given = found[2] if found else None
    try:
        settings = ast.literal_eval(f"({given},)") if given else ()
        return _VIEWS[kind](*settings)
    except InputError:  # of a setting, in the view's own words
        raise
    except (SyntaxError, TypeError, ValueError) as error:
        kinds = _VIEWS[kind]
        known: tuple[Any, ...] = fields(kinds) if is_dataclass(kinds) else ()
        wanted = [f"{f.name}: {getattr(f.type, '__name__', f.type)}" for f in known]
        raise InputError(
            f"view {name!r}",
            expected=f"{kind}({', '.join(wanted)})" if wanted else f"{kind}, without settings",
            found=f"{name!r}: {error}",
            do="Correct what stands in brackets.",
        ) from error


def names() -> tuple[str, ...]:
    """List the names of the views that are known, without settings."""
    return tuple(_VIEWS)


def apply(name: str, examples: Iterable[Example]) -> list[Example]:
    """Show examples through a view, in their order, and check what it may not change.

    Raises InputError where a uid, a label or the number of choices has changed, the choices have
    changed places, or both have become the same.
    """
    view = get(name)
    return [_checked(view, example) for example in examples]


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


def _checked(view: View, example: Example) -> Example:
    def wrong(expected: str, found: object) -> InputError:
        return InputError(
            f"view {view.name!r} of example {example.uid!r}",
            expected=expected,
            found=str(found)[:500],
            do="Correct the view: it may change texts only.",
        )

    try:
        shown = view.shown(example)
    except ForgetlibError as error:  # of an Example that is none, as with two equal choices
        raise wrong(error.expected, error.found) from error
    if not isinstance(shown, Example):
        raise wrong("an Example", repr(shown))
    for name in ("uid", "label"):
        if (now := getattr(shown, name)) != (before := getattr(example, name)):
            raise wrong(f"{name} to stay {before!r}", repr(now))
    if len(shown.choices) != len(example.choices):
        raise wrong(f"{len(example.choices)} choices", f"{len(shown.choices)}")
    before, now = (list(zip(e.prompts, e.choices, strict=True)) for e in (example, shown))
    if now != before and sorted(now) == sorted(before):
        raise wrong("every choice in its place", repr(shown.choices))
    return shown
