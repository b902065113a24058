"""Where a task's rows come from.

    arrow, requests   the embedded data
    hub               a repository of the hub, or of a folder laid out like it
    synthetic         a generator

A source yields ("<split>/<row number>", row) pairs, anew at each call, and reads nothing before.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from forgetlib import assets
from forgetlib.prompts import Row, ask
from forgetlib.schema import ForgetlibError, InputError

Rows = Callable[[], Iterable[tuple[str, Row]]]  # ("<split>/<row number>", row) pairs


class DataMissing(ForgetlibError, RuntimeError):
    """A task's data are not where they were looked for."""


def chain(*sources: Rows) -> Rows:
    return lambda: (pair for source in sources for pair in source())


# --- the embedded data ---------------------------------------------------------------------------


def arrow(*folders: str) -> Rows:
    """Rows of saved copies of hub datasets, one folder a split."""

    def rows() -> Iterator[tuple[str, Row]]:
        from datasets import Dataset  # slow to import, and not needed to read results

        for folder in folders:
            path = assets.data_dir() / "hf_datasets" / folder / "data-00000-of-00001.arrow"
            # The subject tells MMLU's splits apart; for the rest the split's name is enough.
            parts = folder.split("/")
            part = f"{parts[-2]}.{parts[-1]}" if "mmlu" in folder else parts[-1]
            for number, row in enumerate(Dataset.from_file(str(path))):
                yield f"{part}/{number}", row

    return rows


def requests(folder: str, part: str) -> Rows:
    """Documents of a request file, which lists a document once for every choice."""

    def rows() -> Iterator[tuple[str, Row]]:
        path = assets.data_dir() / "oe_eval_tasks" / folder / "requests.jsonl.gz"
        seen: set[str] = set()
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                request = json.loads(line)
                if request["native_id"] not in seen:
                    seen.add(request["native_id"])
                    yield f"{part}/{len(seen) - 1}", request["doc"]

    return rows


# --- the hub, or a folder laid out like it -------------------------------------------------------


def hub_folder() -> Path | None:
    """The folder laid out like the hub that FORGETLIB_HUB names; None: the hub itself.

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


def hub(repository: str, config: str | None, *splits: str, gated: bool = False) -> Rows:
    """Rows of those of these splits that a repository's config has.

    They are looked for where `hub_folder` says. Raises DataMissing where there are none.

    config: None is the repository's default, or the only one it has
    splits: those with labels, "train" and "test" for example
    gated: whether the publisher has terms to accept first
    """

    def rows() -> Iterator[tuple[str, Row]]:
        folder = hub_folder()
        found = _load(folder, repository, config, gated)
        there = [split for split in splits if split in found]
        if not there:
            reason = f"the splits {', '.join(found)}, and none of {', '.join(splits)}"
            raise _missing(folder, repository, config, gated, reason)
        for split in there:
            for number, row in enumerate(found[split]):
                yield f"{split}/{number}", row

    return rows


@cache
def _load(
    folder: Path | None, repository: str, config: str | None, gated: bool
) -> Mapping[str, Iterable[Row]]:
    """Split -> rows, which stay on disk until they are read. What is not here yet is fetched."""
    # Slow to import, and not needed to read results.
    from datasets import config as settings
    from datasets import exceptions, load_dataset

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
    except (exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise _missing(folder, repository, config, gated, str(error)) from error


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
        f"data of {repository}" + (f", config {config}" if config else ""),
        expected=f"a data set {'on the hub' if folder is None else f'in {folder / repository}'}",
        found=" ".join(reason.split()),
        do=do,
    )


# --- synthetic tasks -----------------------------------------------------------------------------

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


def synthetic(name: str) -> Rows:
    """A seeded generator of one synthetic task's questions.

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

    return rows
