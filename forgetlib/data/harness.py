"""Make tasks of the installed lm-evaluation-harness: `tasks.get("harness:arc_easy")`.

Any of its multiple-choice tasks is one of ours by its name there. The harness itself makes each
request, for zero shots, from its own description, templates and choices. Rows are read as those
of every task over the hub (`sources.hub`, FORGETLIB_HUB), from the repository and config that the
harness names. Evaluated is its test split, or its validation split where it has none; its training
split is trained on; without one, both sets are carved from the evaluated split.

A task whose requests would not be the harness's own is refused, with the reason: one that
generates text, is scored by a function of its own, has several true responses, or joins prompt
and response by anything but a space. `lm_eval` is imported here alone, when a task is asked for.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import logging
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from forgetlib.data.base import Question, Row, Task
from forgetlib.data.nulls import MARK, NONE, Lacking, has_null
from forgetlib.data.sources import hub
from forgetlib.errors import InputError, is_null, nearest

PREFIX = "harness:"
# What of a task's settings makes its requests. The others name data, measures and examples.
ASKING = (
    *("task", "output_type", "doc_to_text", "doc_to_target", "doc_to_choice"),
    *("description", "target_delimiter", "fewshot_delimiter", "gen_prefix"),
)
# Tasks whose labels name the wrong responses.
WRONG = {
    "multirc": "labels for which 0 is no and 1 is yes, and choices of which the first is yes: what "
    "the harness counts as right is wrong"
}
# Settings with which a request, or what is right, is not what those above say.
REFUSED = {
    "process_results": "the harness scores it by a function of its own",
    "use_prompt": "its prompt is another package's",
    "doc_to_image": "it asks about pictures",
    "doc_to_audio": "it asks about sounds",
    "custom_dataset": "its rows are made by a function",
}
NAMES = re.compile(
    rb"""^['"]?(task|group|tag)['"]?:[ \t]*['"]?([^'"#\s][^'"#\r\n]*?)['"]?[ \t]*(?:\#.*)?\r?$""",
    re.MULTILINE,
)
TAGS = re.compile(rb"^tag:[ \t]*\r?\n((?:[ \t]*-.*\n?)+)", re.MULTILINE)


class Refused(InputError):
    """Say that a task of the harness cannot be asked here as it is there."""


def task(name: str, family: str = "other", folder: str | Path | None = None) -> Task:
    """Make a task of the one that the harness has under this name.

    name: as the harness knows it, without "harness:"
    folder: one's own YAML files, which are looked through instead of the harness's; pass what is
        made to `tasks.add`. Their `dataset_path` names a repository as the harness's own do
    """
    name = name.removeprefix(PREFIX)
    place = _tasks_folder() if folder is None else Path(folder).expanduser().resolve()
    if folder is not None:  # one's own files may have changed
        _index.cache_clear()
        _settings.cache_clear()
    settings = _settings(name, place)
    _require_askable(name, settings)
    evaluated = settings.get("test_split") or settings.get("validation_split")
    training = settings.get("training_split")
    own = (training, str(evaluated)) if training and training != evaluated else None
    # Validation questions are there for where one of the two is missing (`splits.split`).
    there = (training, settings.get("validation_split") or evaluated, evaluated)
    asking = Asking(name, place)
    note = f"as lm-evaluation-harness {_version()} asks it"
    if shots := settings.get("num_fewshot"):
        note += f", but without the {shots} examples that it gives"
    return Task(
        PREFIX + name,
        family,
        _answer_format(settings["doc_to_choice"]),
        hub(
            settings["dataset_path"],
            settings.get("dataset_name"),
            *(dict.fromkeys(there) if own else (evaluated,)),
            process=asking.prepared if settings.get("process_docs") else None,
        ),
        asking,
        name,
        note,
        own,
    )


def _tasks_folder() -> Path:
    """Find the harness's own YAML files, without importing it."""
    found = importlib.util.find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "tasks of the lm-evaluation-harness",
            expected="the package lm_eval",
            found="none installed",
            do="Install it: python -m pip install 'forgetlib[harness]'.",
        )
    return Path(found.submodule_search_locations[0]) / "tasks"


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")


@cache
def _settings(name: str, folder: Path) -> dict[str, Any]:
    """Read the settings of the task of this name; what they include is in them."""
    files, groups = _index(folder)
    if name not in files:
        near = nearest(name, files)
        a_group = f"{name!r}" + (", a group of tasks" if name in groups else "")
        raise InputError(
            "task of the lm-evaluation-harness",
            expected=f"the name of one of the {len(files)} tasks in {folder}",
            found=a_group,
            do=(f"Did you mean {near!r}? " if near else "")
            + "`lm-eval ls subtasks` lists the harness's own.",
        )
    try:
        from lm_eval.tasks._yaml_loader import load_yaml
    except ImportError as error:
        raise InputError(
            "tasks of the lm-evaluation-harness",
            expected="the package lm_eval from 0.4.12 on",
            found=f"lm_eval {_version()}",
            do="Install it: python -m pip install --upgrade 'forgetlib[harness]'.",
        ) from error
    try:
        return load_yaml(files[name])
    except Exception as error:  # of YAML, or of the Python files that it names
        raise _refused(name, f"{files[name]}, where {type(error).__name__}: {error}") from error


@cache
def _index(folder: Path) -> tuple[dict[str, Path], set[str]]:
    """Look through YAML files: the file of each task's name, and the names of groups and tags.

    The harness's own index takes a quarter of a minute, since it parses all 14 000 of its files.
    """
    files: dict[str, Path] = {}
    groups: set[str] = set()
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_bytes()
        found = {kind: of.decode() for kind, of in NAMES.findall(text)}
        groups |= {found[kind] for kind in (b"group", b"tag") if kind in found}
        for listed in TAGS.findall(text):
            groups |= {tag.decode() for tag in re.findall(rb"[\w-]+", listed)}
        if b"task" in found and b"group" not in found:
            files.setdefault(found[b"task"], path)
    return files, groups


def _require_askable(name: str, settings: Mapping[str, Any]) -> None:
    """Raise Refused where the settings show that requests would not be the harness's own."""
    kind = "a Python class" if "class" in settings else settings.get("output_type")
    if kind != "multiple_choice":
        raise _refused(name, f"{kind or 'generate_until'}: no choices that it lists are scored")
    if name in WRONG:
        raise _refused(name, WRONG[name])
    for setting, why in REFUSED.items():
        if settings.get(setting):
            raise _refused(name, f"{setting}: {why}")
    delimiter = settings.get("target_delimiter", " ")
    if delimiter and not delimiter.startswith(" "):
        raise _refused(name, f"target_delimiter {delimiter!r}")
    if not settings.get("test_split") and not settings.get("validation_split"):
        raise _refused(name, "neither a test nor a validation split")
    more = {k: v for k, v in (settings.get("dataset_kwargs") or {}).items() if k != REMOTE_CODE}
    if more or "/" not in str(settings.get("dataset_path")):
        raise Refused(
            f"task '{PREFIX}{name}'",
            expected="data that a repository of the hub and a config name",
            found=f"{settings.get('dataset_path')!r} with {str(more)[:200]}",
            do="Write its rows to a JSON Lines file (tasks.from_json_lines), or lay them out like "
            "a repository in the folder that FORGETLIB_HUB names.",
        )


REMOTE_CODE = "trust_remote_code"  # of `datasets` before 4; nothing that a repository holds is run


def _refused(name: str, found: str) -> Refused:
    return Refused(
        f"task '{PREFIX}{name}'",
        expected="a multiple-choice task, one response of which is right, after a prompt and a "
        "space",
        found=found,
        do="Choose another task, or write a Task with a question function of your own.",
    )


def _answer_format(choices: Any) -> str:
    """Tell "verbaliser" from "text" by whether the choices are written in the settings."""
    from lm_eval.utils import apply_template

    if isinstance(choices, str):  # a template, a column's name, or a list that is a text
        with contextlib.suppress(Exception):
            choices = ast.literal_eval(apply_template(choices, {}))
    return "verbaliser" if isinstance(choices, list | dict) else "text"


class _Unprocessed(dict[str, Any]):
    """Mark a row that the harness's `process_docs` has not seen yet, for a null in it."""


@dataclass(frozen=True)
class Asking:
    """Ask about a row what the harness asks; by names, so that other processes can have it."""

    name: str
    folder: Path

    def prepared(self, rows: Any) -> Iterator[Row]:
        """Pass a split's rows through the task's `process_docs`, in one piece.

        Rows with a null come last, and are passed when they are asked about, each alone: whether
        the null matters shows there. A column of nothing else is none that matters.
        """
        process = _settings(self.name, self.folder)["process_docs"]
        filled = [name for name in rows.column_names if not all(map(is_null, rows[name]))]
        some = enumerate(rows.select_columns(filled))
        apart = [number for number, row in some if has_null(row)]
        together = sorted(set(range(len(rows))) - set(apart))
        done: Iterable[Row] = ()
        if together:
            try:
                with _quiet():
                    done = process(rows.select(together))
            except Exception:  # of which row shows when each is asked about
                apart = list(range(len(rows)))
        yield from done
        yield from (_Unprocessed(rows[number]) for number in apart)

    def __call__(self, row: Row) -> Question | None:
        if isinstance(row, _Unprocessed):
            from datasets import Dataset

            process = _settings(self.name, self.folder)["process_docs"]
            with _quiet():
                (row,) = [*process(Dataset.from_list([dict(row)]))] or [None]
            if row is None:
                return None
        with _quiet(), _templates_kept():
            theirs = _theirs(self.name, self.folder, row)
            context = theirs.fewshot_context(row, 0, gen_prefix=theirs.doc_to_prefix(row))
            requests = theirs.construct_requests(row, context)
            choices = theirs.doc_to_choice(row)
            gold = theirs.doc_to_text(row) if theirs.multiple_input else theirs.doc_to_target(row)
        if isinstance(gold, list):
            raise _refused(self.name, f"several true responses, {gold}")
        place = choices.index(gold) if isinstance(gold, str) and gold in choices else gold
        if not hasattr(place, "__index__") or not 0 <= place < len(choices):
            raise Lacking("gold that is no choice:", repr(gold))  # there, no answer is right
        pairs = [_joined(self.name, *request.args) for request in requests]
        prompts, responses = zip(*pairs, strict=True)
        return Question(prompts, responses, operator.index(place))


def _joined(name: str, context: str, continuation: str) -> tuple[str, str]:
    """Return a request as a prompt and a response, between which this package has one space."""
    if continuation.startswith(" "):
        return context, continuation[1:]
    if context.rstrip(" ") and context.endswith(" "):  # it counts with the continuation there too
        return context[:-1], continuation
    raise _refused(name, f"{continuation[:99]!r} after {context[-99:]!r}")


_THEIRS: dict[tuple[str, Path], Any] = {}


def _theirs(name: str, folder: Path, row: Row) -> Any:
    """Build the harness's own task object; of a row it needs the columns, and one prompt.

    It tries its settings on the row, and would fail where just this one has no true response: so
    target and choices come after.
    """
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    settings = _settings(name, folder)
    kept = _THEIRS.get((name, folder))
    if kept is not None and kept[0] is settings:
        return kept[1]
    sample = {"sample": Dataset.from_list([dict(row)])}
    asking = {k: settings[k] for k in ASKING if k in settings}
    asking |= {"doc_to_target": "", "doc_to_choice": ["one", "other"], "num_fewshot": 0}
    asking |= {"validation_split": "sample", "fewshot_split": "sample"}
    theirs = ConfigurableTask(config=asking | {"custom_dataset": lambda **_: sample})
    for setting in ("doc_to_target", "doc_to_choice"):
        theirs.set_config(setting, settings[setting])
    # Whether contexts differ shows in the prompt, which is then a number; where a null or what
    # stands for it in a trial is written there, in other rows' prompts.
    prompt = str(theirs.doc_to_text(row))
    if MARK not in prompt and not NONE.search(prompt):
        _THEIRS[name, folder] = settings, theirs
    return theirs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's remarks on its own settings, and bars of a row's progress, unsaid."""
    from datasets import disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


@cache
def _compiled(template: str) -> Any:
    from lm_eval.utils import env

    return type(env).from_string(env, template)


@contextlib.contextmanager
def _templates_kept() -> Iterator[None]:
    """Compile each template once: the harness does it for every row, in most of its time."""
    from lm_eval.utils import env

    env.from_string = _compiled
    try:
        yield
    finally:
        vars(env).pop("from_string", None)
