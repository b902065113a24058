"""What the names in a job stand for: digests of models and of questions.

An id hashes names and settings. What these stood for is stored beside its result, in
`provenance["content"]`, so that a model that was trained further in the same folder, or a task
whose question function was edited, never gets an old result:

    model       of a folder, its files; of a hub id, those of the revision that the cache has; of
                what a low-rank adapter is for, that too; of an embedded model, its file's sha256
    revisions   by task, of the hub's repository that its rows are from
    questions   by "<task>/<part>", of the questions that the run and its starts took theirs from
    code        of methods, readouts and views of one's own, their source (`code`)

Revisions and questions are of tasks that can change: one's own, and those over the hub. The others'
data have pinned hashes. An own task's functions count by the questions that they give: what a
helper changes counts, and a comment does not.

Nothing here needs torch or the network. What cannot be looked up is None, and equal to everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from forgetlib.data import cache, splits, tasks
from forgetlib.data.base import Example, is_ours
from forgetlib.data.sources import Source, hub_folder
from forgetlib.errors import ForgetlibError
from forgetlib.files import StoreError
from forgetlib.models import catalogue
from forgetlib.runs import code
from forgetlib.runs.records import Job
from forgetlib.runs.specs import SPLITS, Checkpoint, Measurement

# Models that are made here. The tiny ones' numbers are to be raised when they are drawn otherwise.
MADE_HERE = {"tiny": "1", "tiny-wide": "1"}
# Of a model's folder, what `transformers` loads: config, tokenizer, weights, adapter. Notes and
# tables that those who train or publish put beside it are not the model.
LOADED = (
    *("config.json", "*.safetensors", "*.safetensors.index.json", "adapter_config.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "*.model", "*.tiktoken", "*.spm", "*.bpe", "*.vocab"),
    *("chat_template.json", "*.jinja"),
)


def data_hash(data: Mapping[str, Sequence[Example]]) -> str:
    """Hash every example's uid, prompts, choices and label: a changed prompt or row changes it."""
    content = [(where, [astuple(e) for e in data[where]]) for where in sorted(data)]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def of_model(name: str) -> str | None:
    """Tell the content that a model's name stands for now: a folder's, a hub id's, or one of ours.

    Of a hub id it is what the local cache has of the revision that it resolves it to.
    """
    try:
        return _ours(name) or _of_pretrained(name)
    except (OSError, ValueError):  # a folder that is gone or no model's, a name that is no id
        return None


def of_folders(name: str) -> list[str]:
    """Hash each folder that a model's name stands for now, up to the first that is the hub's."""
    found: list[str] = []
    if _ours(name):
        return found
    with contextlib.suppress(OSError, ValueError):
        for part, folder in _parts(name):
            if not Path(part).is_dir():
                break
            found.append(_of_loaded(folder))
    return found


def in_folders(name: str) -> bool:
    """Tell whether all that a model's name stands for is in folders, and nothing of the hub."""
    try:
        return not _ours(name) and all(Path(part).is_dir() for part, _ in _parts(name))
    except (OSError, ValueError):
        return False


def whole_model(name: str) -> str:
    """Name the whole model behind a name: of an adapter the model that it is for, or its folder."""
    with contextlib.suppress(OSError, ValueError):
        if not _ours(name):
            return str([*_parts(name)][-1][1])
    return name


def _ours(name: str) -> str | None:
    """Tell the content of a model of the package; None: the name is not one of these."""
    embedded = catalogue.find(name)
    return embedded.gguf_sha256 if embedded else MADE_HERE.get(name)


def _of_pretrained(name: str) -> str:
    """Hash what is loaded by a name; ValueError or OSError where that is no whole model."""
    *adapters, whole = (_of_loaded(folder) for _, folder in _parts(name))
    for adapter in reversed(adapters):
        whole = hashlib.sha256(repr((adapter, whole)).encode()).hexdigest()[:16]
    return whole


def _parts(name: str) -> Iterator[tuple[str, Path]]:
    """Find a model's name and folder, and those of each model that it is a low-rank adapter for.

    Of an adapter beside its model, the one folder.
    """
    seen: list[str] = []
    while name not in seen:
        seen.append(name)
        folder = Path(name) if Path(name).is_dir() else _snapshot(name)
        yield name, folder
        adapter = folder / "adapter_config.json"
        if (folder / "config.json").exists() or not adapter.exists():
            return
        config = json.loads(adapter.read_text())
        base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
        if not isinstance(base, str):
            raise ValueError(f"{adapter} does not name the adapter's model")
        name = base
    raise ValueError(f"{name} is an adapter for itself")


def _snapshot(name: str) -> Path:
    """Find a hub id's files in the local cache; ValueError until its weights are among them.

    To look at a model's config alone, as a cost does, downloads that and moves the revision.
    """
    folder = _hub_cache("models", name) / "snapshots" / _cached_revision("models", name)
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"no weights in {folder}")
    return folder


def _of_loaded(folder: Path) -> str:
    """Hash the files of a model's folder that are loaded from it."""
    is_loaded = (p for p in folder.iterdir() if any(fnmatchcase(p.name, like) for like in LOADED))
    return _of_files(folder, is_loaded)


def _of_files(folder: Path, files: Iterable[Path]) -> str:
    """Hash names and contents; ValueError where there are none."""
    content = [(p.relative_to(folder).as_posix(), cache.digest_of(p)) for p in sorted(files)]
    if not content:
        raise ValueError(f"no files in {folder}")
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _hub_cache(kind: str, repository: str) -> Path:
    """Name the folder of a repository in the hub's local cache. kind: "models" or "datasets" """
    from huggingface_hub import constants  # not needed for what is not from the hub

    return Path(constants.HF_HUB_CACHE) / "--".join([kind, *repository.split("/")])


def _cached_revision(kind: str, repository: str) -> str:
    """Read the commit to which the last download resolved the repository's main branch."""
    return (_hub_cache(kind, repository) / "refs" / "main").read_text().strip()


_first_seen: dict[str, str] = {}  # task -> its revision at the first look of this process


def _is_own(task: str) -> bool:
    return task not in tasks.BUILT_IN


def _repository(task: str) -> str | None:
    """Name the hub's repository that a task of the package is over; None: its data are pinned."""
    rows = tasks.get(task).rows
    return rows.repository if isinstance(rows, Source) else None


def can_change(task: str) -> bool:
    """Tell whether a task of this name may have other questions tomorrow."""
    return _is_own(task) or _repository(task) is not None


def revision(task: str) -> str | None:
    """Tell what the repository of a task over the hub, or the folder in its place, is now.

    None too where it has changed since this process first looked, as `tasks` remembers questions.
    """
    if _is_own(task) or (repository := _repository(task)) is None:
        return None
    try:
        if (folder := hub_folder()) is None:
            now = _cached_revision("datasets", repository)
        else:
            place = folder / repository
            now = _of_files(place, (p for p in place.rglob("*") if p.is_file()))
    except (OSError, ValueError):  # nothing there; InputError, a FORGETLIB_HUB that is wrong
        return None
    return now if _first_seen.setdefault(task, now) == now else None


def of_training(checkpoint: Checkpoint) -> dict[str, str]:
    """Hash the questions that made a checkpoint's weights, by "<task>/train"."""
    found = {}
    for ancestor in checkpoint.lineage:
        if (data := ancestor.data) is not None:
            for task in filter(can_change, ancestor.given):
                found[f"{task}/train"] = _questions(task, "train", data.seed)
    return dict(sorted(found.items()))


def of_job(job: Job) -> dict[str, Any]:
    """Tell the content of all that a job's names stand for but the model: questions and code."""
    asked = sorted(
        {
            (m.task, split, m.seed)
            for m in job.measurements
            if m.task and can_change(m.task)
            for split in ((m.split, "train") if code.takes_more(m.view) else (m.split,))
        }
    )
    questions = of_training(job.checkpoint)
    questions |= {f"{task}/{split}": _questions(task, split, seed) for task, split, seed in asked}
    names = sorted({key.split("/")[0] for key in questions})
    revisions = {t: now for t in names if (now := revision(t)) is not None}
    own = code.of_code(job.checkpoint, job.measurements)
    return {"revisions": revisions, "questions": questions} | ({"code": own} if own else {})


@lru_cache(maxsize=1024)
def _questions(task: str, part: str, seed: int) -> str:
    """Hash all of a part, as which of them a run takes may depend on the model too."""
    return data_hash({task: splits.load(task, part, sys.maxsize, seed)})


tasks.REMEMBERING.append(_questions)  # until another task of the name is added


class Present:
    """Know what names stand for now. Each is looked up once, when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], tuple[tuple[str, ...], object]] = {}
        self._models: dict[str, str | None] = {}
        self._revisions: dict[str, str | None] = {}
        self._questions: dict[tuple[str, int], str | None] = {}

    def model(self, name: str) -> str | None:
        """Tell what a model's name stands for now, as a digest; None where that cannot be told."""
        if name not in self._models:
            self._models[name] = of_model(name)
        return self._models[name]

    def learn(self, name: str, digest: str | None) -> None:
        """Take it that a model's name stands for what was loaded by it."""
        self._known.clear()
        self._models[name] = digest

    def differs(
        self, checkpoint: Checkpoint, measurement: Measurement, provenance: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """Name what of a record's content is not the present one; () where it is, or nobody knows.

        Records of versions that noted no content are taken as they are.
        """
        then = provenance.get("content")
        if then is None:
            return ()
        key = checkpoint.id, measurement.id, id(provenance)
        if key not in self._known:
            self._known[key] = tuple(self._differing(checkpoint, measurement, then)), provenance
        return self._known[key][0]

    def _differing(
        self, checkpoint: Checkpoint, measurement: Measurement, then: Mapping[str, Any]
    ) -> Iterator[str]:
        if differ(then["model"], self.model(checkpoint.model)):
            yield f"model {checkpoint.model!r}"
        trained = [(c, c.data.seed) for c in checkpoint.lineage if c.data]
        seeds = {f"{t}/train": seed for c, seed in trained for t in c.given}
        seeds |= {f"{measurement.task}/{split}": measurement.seed for split in SPLITS}
        changed: dict[str, None] = {}
        for data, digest in then["questions"].items():
            task = data.split("/")[0]
            if data not in seeds:  # of another measurement of the job, or a retain set
                continue
            if not self._pinned(task, then) and differ(digest, self._asked(data, seeds[data])):
                changed[f"questions of task {task!r}"] = None
        yield from changed
        for name, cls in code.classes(checkpoint, [measurement]).items():
            was = then.get("code", {}).get(name, code.FIRST if is_ours(cls) else None)
            if differ(was, code.of_class(cls)):
                yield f"the code of {name}"

    def _pinned(self, task: str, then: Mapping[str, Any]) -> bool:
        """Tell whether a task's data need not be opened, or cannot, to know its questions."""
        if _is_own(task):
            return False
        if task not in self._revisions:
            self._revisions[task] = revision(task)
        now = self._revisions[task]
        return now is None or then["revisions"].get(task) == now

    def _asked(self, data: str, seed: int) -> str | None:
        if (data, seed) not in self._questions:
            task, part = data.split("/")
            found = None
            # Of any kind, as its rows and questions are anybody's functions. Who computes is told.
            with contextlib.suppress(Exception if _is_own(task) else ForgetlibError):
                found = _questions(task, part, seed)
            self._questions[data, seed] = found
        return self._questions[data, seed]


def changed_meanwhile(what: str, differs: Iterable[str]) -> StoreError:
    """Make the error for a result of another content than the present one."""
    return StoreError(
        what,
        expected="the content that the study began with",
        found=f"another: {', '.join(differs)}",
        do="It was changed meanwhile, or is another one on another node: start again, and "
        "what is stored of another content is computed anew.",
    )


def differ(one: str | None, other: str | None) -> bool:
    """Tell whether two digests are of different contents, as far as both are known."""
    return None not in (one, other) and one != other
