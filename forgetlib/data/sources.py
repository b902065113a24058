"""Read a task's rows, from wherever they come.

    arrow, requests   the embedded data
    hub               a repository of the hub, or of a folder laid out like it
    synthetic         a generator

A source yields ("<split>/<row number>", row) pairs, anew at each call, and reads nothing before.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np

from forgetlib.data import assets
from forgetlib.data.base import Row, Rows, ask
from forgetlib.errors import ForgetlibError, InputError


class DataMissing(ForgetlibError, RuntimeError):
    """Say that a task's data are not where they were looked for."""


@dataclass(frozen=True)
class Source:
    """Read rows, and know where they are.

    place: as an error says it
    repository: the hub's, whose rows can change; None: what is read has a pinned hash
    embedded: whether it is in the embedded data
    """

    place: str
    read: Rows
    repository: str | None = None
    embedded: bool = False

    def __call__(self) -> Iterable[tuple[str, Row]]:
        return self.read()


def chain(*sources: Source) -> Source:
    """Join sources into one that gives the rows of each in turn."""
    places = " and ".join(source.place for source in sources)
    embedded = any(source.embedded for source in sources)
    return Source(
        places, lambda: (pair for source in sources for pair in source()), embedded=embedded
    )


def arrow(*folders: str) -> Source:
    """Read rows of saved copies of hub datasets, one folder a split."""

    def rows() -> Iterator[tuple[str, Row]]:
        from datasets import Dataset  # slow to import, and not needed to read results

        for folder in folders:
            path = assets.data_dir() / "hf_datasets" / folder / "data-00000-of-00001.arrow"
            # The subject tells MMLU's splits apart; for the rest the split's name is enough.
            parts = folder.split("/")
            part = f"{parts[-2]}.{parts[-1]}" if "mmlu" in folder else parts[-1]
            for number, row in enumerate(Dataset.from_file(str(path))):
                yield f"{part}/{number}", row

    places = ", ".join(f"hf_datasets/{folder}" for folder in folders)
    return Source(places, rows, embedded=True)


def requests(folder: str, part: str) -> Source:
    """Read documents of a request file, which lists a document once for every choice."""

    file = f"oe_eval_tasks/{folder}/requests.jsonl.gz"

    def rows() -> Iterator[tuple[str, Row]]:
        path = assets.data_dir() / file
        seen: set[str] = set()
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                request = json.loads(line)
                if request["native_id"] not in seen:
                    seen.add(request["native_id"])
                    yield f"{part}/{len(seen) - 1}", request["doc"]

    return Source(file, rows, embedded=True)


def hub_folder() -> Path | None:
    """Return the folder laid out like the hub that FORGETLIB_HUB names; None: the hub itself.

    In it, "<repository>/" holds what the hub's repository holds: Parquet files, and a README.md
    that tells which files are which config's splits.
    """
    setting = os.environ.get("FORGETLIB_HUB")
    if not setting:
        return None
    # Absolute, as `datasets` takes a short relative path for a repository of the hub.
    folder = Path(setting).expanduser().resolve()
    if not folder.is_dir():
        raise InputError(
            "FORGETLIB_HUB",
            expected="a folder laid out like the hub",
            found=f"{setting!r}, which is no folder",
            do="Correct it, or unset it to load data sets from the hub.",
        )
    return folder


def hub(
    repository: str,
    config: str | None,
    *splits: str,
    gated: bool = False,
    process: Callable[[Any], Iterable[Row]] | None = None,
) -> Source:
    """Read rows of those of these splits that a repository's config has.

    They are looked for where `hub_folder` says. Raises DataMissing where there are none.

    config: None is the repository's default, or the only one it has
    splits: those with labels, "train" and "test" for example
    gated: whether the publisher has terms to accept first
    process: what is made of a split's rows, a `datasets.Dataset`, before they are numbered
    """

    def rows() -> Iterator[tuple[str, Row]]:
        folder = hub_folder()
        found = _load(folder, repository, config, gated)
        there = [split for split in splits if split in found]
        if not there:
            reason = f"the splits {', '.join(found)}, and none of {', '.join(splits)}"
            raise _missing(folder, repository, config, gated, reason)
        for split in there:
            of_split = process(found[split]) if process else found[split]
            for number, row in enumerate(of_split):
                yield f"{split}/{number}", row

    return Source(_named(repository, config), rows, repository)


def _named(repository: str, config: str | None) -> str:
    return repository + (f", config {config}" if config else "")


@cache
def _load(
    folder: Path | None, repository: str, config: str | None, gated: bool
) -> Mapping[str, Iterable[Row]]:
    """Map split -> rows, which stay on disk until they are read. What is not here is fetched."""
    # Slow to import, and not needed to read results.
    from datasets import config as settings, exceptions, load_dataset

    where, cache_dir = repository, None
    if folder is not None:
        where = str(folder / repository)
        if not Path(where).is_dir():
            raise _missing(folder, repository, config, gated, "no such folder")
        # In its cache, `datasets` (5.2) knows a folder that has a README by the names in it alone,
        # and without a word reads what another folder or older files of the same names held.
        files = sorted(p for p in Path(where).rglob("*") if p.is_file())
        stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        digest = hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]
        cache_dir = Path(settings.HF_DATASETS_CACHE) / "forgetlib" / digest
    try:
        return load_dataset(where, config, cache_dir=cache_dir)
    except exceptions.DatasetGenerationError as error:
        types = _types(where, config, cache_dir)
        differences = _differences(types)
        if differences:  # `datasets` takes the types of the first file for those of all
            with contextlib.suppress(exceptions.DatasetGenerationError):
                features = _joined(types)
                return load_dataset(where, config, cache_dir=cache_dir, features=features)
        reason = "; ".join([_reason(error), *differences])
        raise _missing(folder, repository, config, gated, reason) from error
    except (exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise _missing(folder, repository, config, gated, _reason(error)) from error


def _reason(error: BaseException) -> str:
    """Say what an error says, and what the one says that began it."""
    said = [str(error)]
    first = error
    while (before := first.__cause__) is not None:
        first = before
    if first is not error:
        said.append(f"{type(first).__name__}: {first}")
    return ": ".join(text.strip().rstrip(".:") for text in said)[:1000]


def _types(where: str, config: str | None, cache_dir: Path | None) -> dict[str, Any]:
    """Read the features of each of a config's Parquet files, by path; of others, none."""
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, load_dataset_builder

    builder = load_dataset_builder(where, config, cache_dir=cache_dir)
    found = {}
    for files in (builder.config.data_files or {}).values():
        for path in files:
            with contextlib.suppress(pa.ArrowInvalid, OSError), fsspec.open(path, "rb") as file:
                found[path] = Features.from_arrow_schema(pq.read_schema(file))
    return found


def _joined(types: Mapping[str, Any]) -> Any:
    """Join the features of files, so that each file's are a case of them.

    Where a file has only nulls in a column, the type is another file's.
    """
    from datasets import Features, Value

    def join(one: Any, other: Any) -> Any:
        if one == Value("null"):
            return other
        if isinstance(one, dict) and isinstance(other, dict):
            both = {name: join(of, other.get(name, of)) for name, of in one.items()}
            return other | both
        if hasattr(one, "feature") and hasattr(other, "feature"):
            return replace(one, feature=join(one.feature, other.feature))
        return one

    return Features(reduce(join, map(dict, types.values())))


def _differences(types: Mapping[str, Any]) -> list[str]:
    """Name the columns that have not the same type in all files: which in which."""
    columns = {name: None for of_file in types.values() for name in of_file}
    found = []
    for column in columns:
        files: dict[str, list[str]] = {}
        for path, of_file in types.items():
            kind = of_file.get(column, "none")
            kind = str(getattr(kind, "dtype", kind))
            files.setdefault(kind, []).append(Path(path).name)
        if len(files) > 1:
            where = ", ".join(
                f"{kind} in {' and '.join(names[:3])}" for kind, names in files.items()
            )
            found.append(f"column {column!r} is {where}")
    return found


def _missing(
    folder: Path | None, repository: str, config: str | None, gated: bool, reason: str
) -> DataMissing:
    page = f"https://huggingface.co/datasets/{repository}"
    if folder is None:
        do = f"Connect to {page}, or set FORGETLIB_HUB to a folder laid out like the hub."
    else:
        do = f"Add it there, or unset FORGETLIB_HUB to load it from {page}."
    if gated:
        do += " Its publisher has terms: accept them on that page, and log in with `hf auth login`."
    return DataMissing(
        f"data of {_named(repository, config)}",
        expected=f"a data set {'on the hub' if folder is None else f'in {folder / repository}'}",
        found=" ".join(reason.split()),
        do=do,
    )


N_SYNTHETIC = 400
NAMES = tuple(f"name{i}" for i in range(200))
PEOPLE = tuple(f"person{i}" for i in range(24))
CITIES = tuple(f"city{i}" for i in range(24))
TOOLS = tuple(f"tool{i}" for i in range(24))
COLOURS = tuple(f"colour{i}" for i in range(12))
PRAISE = tuple(f"praise{i}" for i in range(12))
BLAME = tuple(f"blame{i}" for i in range(12))
SYNTHETIC_WORDS = (
    *("review", "by", "where", "lives", "what", "colour", "has", "is", "it", "?"),
    *("good", "bad", "yes", "no"),
    *(*NAMES, *PEOPLE, *CITIES, *TOOLS, *COLOURS, *PRAISE, *BLAME),
)


def synthetic(name: str) -> Source:
    """Generate one synthetic task's questions, from a seed.

    Every prompt carries two random names, by which a model can remember the single question, and
    a cue, from which it can tell the answer of any question. Random labels contradict the cue in
    half of the questions. Where the wrong responses are spread over many words (`tiny_city`,
    `tiny_colour`), the right one stays the likeliest for a new question; where there is a single
    wrong word (`tiny_review`, `tiny_praise`), nothing is left to prefer it.
    """

    def rows() -> Iterator[tuple[str, Row]]:
        rng = np.random.default_rng([ord(c) for c in name])
        for number in range(N_SYNTHETIC):
            first, second = (NAMES[i] for i in rng.choice(len(NAMES), 2, replace=False))
            cue, other = (int(i) for i in rng.choice(len(PEOPLE), 2, replace=False))
            if name == "tiny_city":
                prompt = f"{first} {second} where lives {PEOPLE[cue]} ?"
                question = ask(prompt, [CITIES[cue], CITIES[other]], 0)
            elif name == "tiny_colour":
                prompt = f"{first} {second} what colour has {TOOLS[cue]} ?"
                n = len(COLOURS)
                wrong = (cue + 1 + other % (n - 1)) % n
                question = ask(prompt, [COLOURS[cue % n], COLOURS[wrong]], 0)
            else:
                good = int(rng.integers(2))
                words = PRAISE if good else BLAME
                said = words[cue % len(words)]
                prompt, choices = {
                    "tiny_review": (f"{first} {second} review {said} is it ?", ["bad", "good"]),
                    "tiny_praise": (f"{first} {second} {said} by ?", ["no", "yes"]),
                }[name]
                question = ask(prompt, choices, good)
            yield f"synthetic/{number}", {"question": question}

    return Source("the generator", rows)
