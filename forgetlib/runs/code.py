"""What methods, readouts and views of one's own are: digests of their source.

A stored result is of the code that made it. Where that was edited since, it is computed anew.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from forgetlib.data import views
from forgetlib.data.base import is_ours
from forgetlib.errors import InputError
from forgetlib.forgetting.base import UnknownMethod, methods
from forgetlib.measuring.base import readout, readouts
from forgetlib.runs.specs import Checkpoint, Measurement

MADE = "<string>"  # the file of functions that `dataclass` makes
FIRST = "1"  # the version of a class of the package that goes without saying


def of_code(checkpoint: Checkpoint, asked: Iterable[Measurement]) -> dict[str, str]:
    """Hash the source of methods, readouts and views that are defined outside of the package.

    With what they use of the file that they are in. What another file changes is not seen. Of the
    package's own it is their version that tells, where it is not the first.
    """
    found = {name: of_class(cls) for name, cls in classes(checkpoint, asked).items()}
    return {name: text for name, text in found.items() if text is not None and text != FIRST}


def classes(checkpoint: Checkpoint, asked: Iterable[Measurement]) -> dict[str, Any]:
    """Find the classes of methods, readouts and views, by what they are called in a record."""
    found: dict[str, Any] = {}
    for method in (c.method for c in checkpoint.lineage):
        if method is not None and not isinstance(method, UnknownMethod):
            # As it is now: a cell that ran again has defined another class of the name.
            found[f"method {method.name}"] = methods().get(method.name, type(method))
    for measurement in asked:
        if measurement.readout in readouts():
            found[f"readout {measurement.readout}"] = readout(measurement.readout)
        with contextlib.suppress(InputError):  # of a view whose file is not imported here
            found[f"view {measurement.view}"] = type(views.get(measurement.view))
    return found


def takes_more(view: str) -> bool:
    """Tell whether a view shows more of a task than the question, as examples of its training set.

    One that is made ready for a task may do so. False of a view whose file is not imported here.
    """
    with contextlib.suppress(InputError):
        return type(views.get(view)).of is not views.View.of
    return False


@lru_cache(maxsize=256)
def of_class(cls: Any) -> str | None:
    """Hash the source of a class with what it uses; of the package's own tell the version.

    None: it has no source.
    """
    if is_ours(cls):
        return str(getattr(cls, "version", FIRST))
    try:
        sources = sorted(_sources(cls))
    except (OSError, TypeError, KeyError, SyntaxError):  # typed into an interpreter, or a fragment
        return None
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:16]


def _sources(cls: type) -> set[str]:
    """Collect the source of a class, and of what it uses of its own file, by name.

    That is functions, other classes, and constants that are numbers, texts or tuples of these. So
    for the classes that it is derived from: those of the package count by their version.
    """
    found: dict[Any, str] = {}
    plain: set[str] = set()
    waiting: list[Any] = [cls]
    while waiting:
        thing = waiting.pop()
        if thing in found or thing.__module__.partition(".")[0] in sys.stdlib_module_names:
            continue
        if is_ours(thing):
            found[thing] = f"{thing.__qualname__} {thing.__dict__.get('version', FIRST)}"
            continue
        found[thing] = source = _source(thing)
        waiting += thing.__mro__ if isinstance(thing, type) else ()
        there = vars(sys.modules[thing.__module__])
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        for name in names & there.keys():
            value = there[name]
            if inspect.isfunction(value) or inspect.isclass(value):
                waiting += [value] if value.__module__ == thing.__module__ else []
            elif isinstance(value, str | int | float | tuple):
                plain.add(f"{name} = {value!r}")
    return {*found.values(), *plain}


def _source(thing: Any) -> str:
    """Return the source of a class or function; of a notebook's class that of its functions."""
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        if not inspect.isclass(thing):
            raise
    found = []
    for name, value in vars(thing).items():
        function = inspect.unwrap(getattr(value, "__func__", value))
        if not inspect.isfunction(function):
            continue
        # Not what `dataclass` makes of fields: settings are in the id.
        if not (name.startswith("__") and function.__code__.co_filename == MADE):
            found.append(textwrap.dedent(inspect.getsource(function)))
    return "\n".join(found)
