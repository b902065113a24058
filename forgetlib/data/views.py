'''Show questions otherwise than plainly: in capitals, in a chat, after examples.

A view changes an example's texts and nothing else. It is applied to examples that `splits.load`
gave, after distractors were drawn and training and test questions told apart: uids, labels, order
and pairing stay, and no question that was trained on comes into a test set under another form.

`plain` leaves a question as it is; the package's other views are in `forms`:

    upper  lower  leet  pig_latin  spaced      other letters
    few_shot(k)                                after k solved examples
    verbaliser('a', 'b')                       fixed answers in other words
    template(i)  chat                          other words around the question

To add one, write a class; its name is what a measurement calls it by:

    from forgetlib.data import splits, views

    class Shouted(views.View, name="shouted"):
        """Show the question in capitals, and the answers as they are."""

        def shown(self, example):
            return views.with_texts(example, str.upper, choices=False)

    examples = views.apply("shouted", splits.load("tiny_city", "test", n=5, seed=0))

One with settings is a dataclass, and they are a part of the name:

    from dataclasses import dataclass

    @dataclass(frozen=True)
    class After(views.View, name="after"):
        """Show the prompt after so many words of nothing."""

        n: int

        def shown(self, example):
            return views.with_texts(example, lambda t: "um " * self.n + t, choices=False)

    views.get("after(3)")

One that has to know the task, or others of its questions, has a method `of(task, seed)` too.
'''

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from forgetlib.data import forms  # noqa: F401, so that the package's own views are known
from forgetlib.data.base import Example, View as View, with_texts as with_texts
from forgetlib.errors import ForgetlibError, InputError, require_one_of


class Plain(View, name="plain"):
    """Show every example as it is."""

    def shown(self, example: Example) -> Example:
        return example


def get(name: str) -> View:
    """Return the view of this name; settings stand in brackets, as in few_shot(4)."""
    found = re.fullmatch(r"(\w+)(?:\((.*)\))?", name) if isinstance(name, str) else None
    kind = found[1] if found else name
    do = "Correct the name, or define the view: see forgetlib.data.views."
    require_one_of("view", kind, kinds(), do)
    given = found[2] if found else None
    try:
        settings = ast.literal_eval(f"({given},)") if given else ()
        return View._known[kind](*settings)
    except InputError:  # of a setting, in the view's own words
        raise
    except (SyntaxError, TypeError, ValueError) as error:
        wanted = settings_of(kind)
        raise InputError(
            f"view {name!r}",
            expected=f"{kind}({wanted})" if wanted else f"{kind}, without settings",
            found=f"{name!r}: {error}",
            do="Correct what stands in brackets.",
        ) from error


def kinds() -> Mapping[str, type[View]]:
    """Map the names of the views that are known, by the alphabet, to their classes."""
    return dict(sorted(View._known.items()))


def settings_of(kind: str) -> str:
    """Write a view's settings as they are declared, "k: int, after: int = 0"; "" for none."""
    cls = View._known[kind]
    known: tuple[Any, ...] = fields(cls) if is_dataclass(cls) else ()
    return ", ".join(
        f"{f.name}: {getattr(f.type, '__name__', f.type)}"
        + ("" if f.default is MISSING else f" = {f.default!r}")
        for f in known
    )


def apply(name: str, examples: Iterable[Example], seed: int = 0) -> list[Example]:
    """Show examples through a view, in their order, and check what it may not change.

    Raises InputError where a uid, a label or the number of choices has changed, the choices have
    changed places, both have become the same, a text is empty, or not one example has changed.

    seed: of the split that the examples are of, as `splits.load` took it
    """
    view, examples = get(name), list(examples)
    ready = {task: view.of(task, seed) for task in dict.fromkeys(e.task for e in examples)}
    shown = [_checked(view.name, ready[e.task], e) for e in examples]
    if examples and shown == examples and not isinstance(view, Plain):
        raise InputError(
            f"view {view.name!r} of {len(examples)} examples of {', '.join(ready)}",
            expected="another text in one of them at least",
            found=f"each as it was, first {examples[0].prompts[0][:200]!r}",
            do="It would measure what 'plain' does: leave the view out for this task.",
        )
    return shown


def _checked(name: str, view: View, example: Example) -> Example:
    """Show an example through a view that is ready, and check what it may not change."""

    def wrong(expected: str, found: object) -> InputError:
        return InputError(
            f"view {name!r} of example {example.uid!r}",
            expected=expected,
            found=str(found)[:500],
            do="A view may change texts only: leave it out for this task, or correct it.",
        )

    try:
        shown = view.shown(example)
    except ForgetlibError as error:  # of an Example that is none, as with two equal choices
        raise wrong(error.expected, error.found) from error
    if not isinstance(shown, Example):
        raise wrong("an Example", repr(shown))
    for field in ("uid", "label"):
        if (now := getattr(shown, field)) != (before := getattr(example, field)):
            raise wrong(f"{field} to stay {before!r}", repr(now))
    if len(shown.choices) != len(example.choices):
        raise wrong(f"{len(example.choices)} choices", f"{len(shown.choices)}")
    before, now = (list(zip(e.prompts, e.choices, strict=True)) for e in (example, shown))
    if now != before and sorted(now) == sorted(before):
        raise wrong("every choice in its place", repr(shown.choices))
    return shown
