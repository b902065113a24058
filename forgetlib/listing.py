"""What there is: studies, tasks, models, methods and measurements, with what is stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import pandas as pd

from forgetlib.data import tasks, views
from forgetlib.errors import InputError
from forgetlib.forgetting.base import methods
from forgetlib.implicit import study as implicit
from forgetlib.models import catalogue
from forgetlib.runs.grid import Study, open_store
from forgetlib.runs.rows import describe
from forgetlib.studies import STUDIES, study

Stored = Mapping[str, Counter[str]]  # how much of each task, readout, view, model and method


def of(what: str) -> dict[str, pd.DataFrame]:
    """Return the table of what there is of a kind, of a study's checkpoints, or, of "", of all.

    InputError where it is neither.
    """
    stored = cache(_stored)  # which takes seconds, and four of the tables tell of it
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "studies": of_studies,
        "tasks": lambda: of_tasks(stored()),
        "models": lambda: of_models(stored()),
        "methods": lambda: of_methods(stored()),
        "measurements": lambda: of_measurements(stored()),
    }
    if what in makers or not what:
        return {kind: make() for kind, make in makers.items() if what in (kind, "")}
    if what in STUDIES or what.endswith(".py"):
        return {what: of_study(study(what))}
    if what in implicit.STUDIES:
        return {what: implicit.table(implicit.STUDIES[what]).round(2)}
    names = ", ".join((*STUDIES, *implicit.STUDIES))
    raise InputError(
        "list",
        expected=f"one of {', '.join(makers)}, or a study: {names}, or a file",
        found=repr(what),
        do="Correct the name, or leave it out.",
    )


def as_text(tables: Mapping[str, pd.DataFrame]) -> str:
    """Write tables one below the other; a single one has no heading."""
    if len(tables) == 1:
        return "".join(map(_text, tables.values()))
    return "\n\n".join(f"{kind}\n{_text(table)}" for kind, table in tables.items())


def as_json(tables: Mapping[str, pd.DataFrame]) -> str:
    """Write tables for a script: of each its rows, by its name; of a single one the rows alone."""
    rows = {kind: table.to_dict("records") for kind, table in tables.items()}
    found = next(iter(rows.values())) if len(rows) == 1 else rows
    return json.dumps(found, indent=1, ensure_ascii=False)


def of_studies() -> pd.DataFrame:
    """List the named studies: jobs stored of all, what it is, and its sections.

    Of a section that is not complete, how many of its jobs are stored. Studies of implicit
    inference, whose models are no language models, come last.
    """
    rows = []
    for chosen in STUDIES.values():
        store = open_store(chosen, any_content=True)
        rows.append(_study_row(chosen, chosen.sections, store.has))
    rows += [
        _study_row(o, implicit.SECTIONS, implicit.is_stored) for o in implicit.STUDIES.values()
    ]
    return pd.DataFrame(rows)


def _study_row(
    chosen: Study | implicit.ImplicitStudy, sections: Iterable[str], has: Callable[[Any], bool]
) -> dict[str, str]:
    """Make a study's row; has: whether a job is stored."""

    def stored(section: str | None) -> tuple[int, int]:
        jobs = chosen.jobs(section)
        return sum(map(has, jobs)), len(jobs)

    told = []
    for section in sections:
        n, every = stored(section)
        if every:
            told.append(section if n == every else f"{section} ({n} of {every})")
    return {
        "study": chosen.name,
        "stored": "{}/{}".format(*stored(None)),
        "description": chosen.description,
        "sections": ", ".join(told),
    }


def _stored() -> Stored:
    """Count what the named studies have stored, each once, however many studies share it.

    Measurements by task, readout and view; checkpoints by model and method.
    """
    asked, made = {}, {}
    for chosen in STUDIES.values():
        for checkpoint, measurement, _ in open_store(chosen, any_content=True).sources():
            asked[checkpoint.id, measurement.id] = measurement
            made[checkpoint.id] = checkpoint
    return {
        "tasks": Counter(m.task for m in asked.values()),
        "readouts": Counter(m.readout for m in asked.values()),
        "views": Counter(m.view.partition("(")[0] for m in asked.values()),
        "models": Counter(c.model for c in made.values()),
        "methods": Counter(c.method.name for c in made.values() if c.method),
    }


def of_study(chosen: Study) -> pd.DataFrame:
    """List a study's jobs: the checkpoint's id and history, what is asked, and what is stored.

    n: questions that its last method was given, at most.
    """
    store = open_store(chosen, any_content=True)
    return pd.DataFrame(
        {
            "checkpoint": job.checkpoint.id,
            "history": str(job),
            "stored": f"{len(job.measurements) - len(store.missing(job))}/{len(job.measurements)}",
            "n": job.checkpoint.n or "-",
            "measurements": ", ".join(map(str, job.measurements)),
        }
        for job in chosen.jobs()
    )


def of_tasks(stored: Stored) -> pd.DataFrame:
    """List the tasks by suite; stored: how many measurements of each."""
    suites = {name: set(tasks.suite(name)) for name in tasks.SUITES}
    names = dict.fromkeys(t for of_suite in map(tasks.suite, suites) for t in of_suite)
    return pd.DataFrame(
        {
            "task": name,
            "family": tasks.get(name).family,
            "answers": tasks.get(name).answer_format,
            "harness": tasks.get(name).harness or "-",
            "suites": " ".join(s for s, of_suite in suites.items() if name in of_suite),
            "stored": stored["tasks"][name],
        }
        for name in names
    )


def of_models(stored: Stored) -> pd.DataFrame:
    """List the embedded models: size of the download, origin, licence, checkpoints stored."""
    return pd.DataFrame(
        {
            "model": model.name,
            "MB": round(model.gguf_bytes / 1e6),
            "origin": model.origin,
            "licence": model.licence,
            "stored": stored["models"][model.name],
        }
        for model in catalogue.MODELS
    )


def of_methods(stored: Stored) -> pd.DataFrame:
    """List the methods, how many checkpoints of each are stored, and what each does."""
    return pd.DataFrame(
        {
            "method": name,
            "stored": stored["methods"][name],
            "what": (cls.__doc__ or "").strip().split("\n")[0],
        }
        for name, cls in methods().items()
    )


def of_measurements(stored: Stored) -> pd.DataFrame:
    """List readouts with every stored column, views with their settings; stored: measurements."""
    table = describe()
    table.insert(2, "stored", [stored["readouts"][n] if n else "-" for n in table["readout"]])
    seen = pd.DataFrame(
        {
            "readout": "(view)",
            "column": name,
            "stored": stored["views"][name],
            "type": views.settings_of(name),
            "meaning": (cls.__doc__ or "").strip().split("\n")[0],
        }
        for name, cls in views.kinds().items()
    )
    return pd.concat([table, seen], ignore_index=True)


def _text(table: pd.DataFrame) -> str:
    """Return a table as text, left-aligned, cut to no width: a pager or grep does that."""
    widths = {c: max(len(c), *(len(str(x)) for x in table[c])) for c in table}
    lines = ["  ".join(str(c).ljust(widths[c]) for c in table)]
    for row in table.itertuples(index=False):
        cells = zip(row, widths.values(), strict=True)
        lines.append("  ".join(str(x).ljust(width) for x, width in cells))
    return "\n".join(line.rstrip() for line in lines)
