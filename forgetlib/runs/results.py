"""A study's results: read them, or compute what is missing and read them.

Only `run` computes. Reading imports no torch, and looks at no hub and at no task's data: which
tasks a study was computed without is noted beside its packs.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forgetlib.data import splits, tasks
from forgetlib.data.sources import DataMissing
from forgetlib.errors import InputError
from forgetlib.files import replacing
from forgetlib.runs.answers import keep_answers
from forgetlib.runs.bench import StudyError
from forgetlib.runs.grid import Study, open_store, same_job, work_dir
from forgetlib.runs.local import compute
from forgetlib.runs.processes import told, writes
from forgetlib.runs.questions import keep_questions
from forgetlib.runs.records import Result
from forgetlib.runs.specs import Measurement
from forgetlib.runs.store import Store


def load_results(study: Study, section: str | None = None) -> list[Result]:
    """Read the results of a study or of one section of it, in the order of its jobs.

    Computes nothing. Raises StudyError where something is missing. Tasks that were left out when
    the study was computed, since their data could not be had, are left out.
    """
    store = open_store(study)
    jobs = _stored_part(study, store).jobs(section)
    if missing := [job for job in jobs if not store.has(job)]:
        raise StudyError(
            f"results of study {study.name!r}",
            expected=f"all {len(jobs)} jobs of {section or 'the study'} to be stored",
            found=f"{len(missing)} that are not, first {missing[0]}",
            do="Compute them: forgetlib run, or studies.run(study).",
        )
    return [store.result(job) for job in jobs]


def load_stored(study: Study, section: str | None = None) -> list[Result]:
    """Read the results of those jobs that are stored, of a study that is under way.

    Several sections may ask the same checkpoint: what is stored of it for one of them counts, also
    where another is still to be computed.
    """
    store, jobs = open_store(study), study.jobs(section)
    asked: dict[tuple[str, int, str], set[Measurement]] = {
        same_job(job): set(job.measurements) for job in jobs if store.has(job)
    }
    parts: dict[tuple[str, int, str], set[Measurement]] = {}
    if section is None and len(asked) < len(jobs):
        for job in (job for name in study.sections for job in study.jobs(name)):
            if same_job(job) not in asked and store.has(job):
                parts.setdefault(same_job(job), set()).update(job.measurements)
    asked |= parts
    return [
        store.result(replace(job, measurements=tuple(m for m in job.measurements if m in of_job)))
        for job in jobs
        if (of_job := asked.get(same_job(job)))
    ]


def has_all(study: Study, section: str | None = None) -> bool:
    """Tell whether all of a study, or of a section of it, is stored."""
    store = open_store(study)
    return all(map(store.has, _stored_part(study, store).jobs(section)))


def complete_part(study: Study, sections: Sequence[str]) -> Study:
    """Make the study of those tasks of which all seeds of these sections are stored.

    For what can be drawn of a study that is under way. The study itself where no task is complete.
    """
    store = open_store(study)
    missing = [j for of in sections for j in study.jobs(of) if not store.has(j)]
    lacking = {(next(m.task for m in j.measurements if m.task), j.seed) for j in missing}

    def complete(task: str, seeds: Iterable[int]) -> bool:
        return lacking.isdisjoint((task, seed) for seed in seeds)

    lost = {t for t in study.tasks if not complete(t, study.seeds)}
    if len(lost) == len(study.tasks):
        return study
    part = _without(study, lost)
    more = tuple(t for t in part.more_seeds_tasks if complete(t, study.more_seeds))
    return replace(part, more_seeds_tasks=more)


def run(
    study: Study,
    section: str | None = None,
    ray_address: str | None = None,
    *,
    progress: bool = True,
    keep_weights: bool = False,
) -> list[Result]:
    """Compute what is missing of a study or of one section of it, and return all its results.

    In this process, or on the Ray cluster at `ray_address` (see `cluster.compute`). What is stored
    of a model, questions or code that have changed since (see `content`) is computed anew, with a
    warning. Several processes may call this for one study at the same time: each job is done by
    one of them. After a kill, finished jobs are there, and the job in progress starts again. Raises
    RunsFailed, at the end, where a job raised. Tasks whose data cannot be had are left out, with a
    warning, and figures name them.

    keep_weights: keep every checkpoint's weights in the work folder, so that what a study asks of
        them later trains nothing again; else they are made again for it, and have to score as then
    """
    if keep_weights and ray_address is not None:
        raise InputError(
            "keep_weights of a run",
            expected="False on a Ray cluster, whose jobs share no folder of weights",
            found="True",
            do="Leave one of them out.",
        )
    store = open_store(study)
    named = study
    study = told(lambda: _stored_part(named, store))
    if told(lambda: not all(map(store.has, study.jobs(section)))):
        study = told(lambda: _with_data(named, store))
    jobs = study.jobs(section)
    try:
        if told(lambda: not all(map(store.has, jobs))):
            if ray_address is None:
                compute(jobs, store, progress=progress, keep_weights=keep_weights)
            else:
                from forgetlib.runs import cluster

                cluster.compute(jobs, store, ray_address, progress=progress)
    finally:
        # What there is, so that a long study can be handed on while it is under way.
        if writes() and not study.named:
            pack(study, store)
    return [store.result(job) for job in jobs]


def pack(study: Study, store: Store | None = None) -> list[Path]:
    """Add to a study's packs what is stored of it and not packed yet; return the new files.

    Its questions and answers are stored beside them first: after a kill in between, all come again.
    """
    store = store or open_store(study)
    blocks = {
        name: [key for job in jobs for key in job.keys if key in store]
        for name, jobs in study.blocks().items()
    }
    if store.is_packed(key for keys in blocks.values() for key in keys):
        return []
    keep_questions(study, store)
    keep_answers(study, store)
    return store.pack(blocks)


def _left_out_path(study: Study) -> Path:
    """Name the list of left-out tasks: beside the packs, of a variation in its work folder."""
    return (work_dir(study) if study.named else open_store(study).packed) / "left_out.json"


def left_out(study: Study) -> dict[str, str]:
    """Read which tasks a study was computed without, and why; {} where it has all."""
    path = _left_out_path(study)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("no object of tasks and reasons")
    except ValueError as error:
        raise StudyError(
            f"list of left-out tasks {path}",
            expected="JSON, as `run` writes it",
            found=str(error),
            do="Restore it from git, or delete it.",
        ) from error
    return {str(task): str(why) for task, why in found.items()}


def _stored_part(study: Study, store: Store) -> Study:
    """Make the study without the tasks that were left out and of which nothing is stored."""
    lost = left_out(study)
    if not lost:
        return study
    there = {m.task for _, m, _ in store.sources()}
    return _without(study, {task for task in lost if task not in there})


def _with_data(study: Study, store: Store) -> Study:
    """Leave out of a study those tasks that are not stored and whose data cannot be had here."""
    there = {m.task for _, m, _ in store.sources()}
    lost = splits.missing(t for t in study.tasks if t not in there)
    if lost or left_out(study):
        reasons = "".join(f"\n  {task}: {why}" for task, why in lost.items())
        if len(lost) == len(study.tasks):
            raise DataMissing(
                f"study {study.name!r}",
                expected="the data of at least one of its tasks",
                found=f"none:{reasons}",
                do="Make them available, and start again.",
            )
        if writes():
            _note_left_out(study, lost)
        if lost:
            said = f"study {study.name!r} goes on without {len(lost)} tasks:{reasons}"
            warnings.warn(said, stacklevel=4)
    return _without(study, lost)


def _note_left_out(study: Study, lost: Mapping[str, str]) -> None:
    """Write down beside the packs which tasks a study goes on without."""
    with replacing(_left_out_path(study)) as partial:
        partial.write_text(json.dumps(dict(lost), indent=1, sort_keys=True) + "\n")


def _without(study: Study, lost: Container[str]) -> Study:
    """Make the study of those tasks that are not lost, of which there has to be one."""
    lists = ("tasks", "more_seeds_tasks", "cross_tasks", "large_tasks")
    there: dict[str, tuple[str, ...]] = {n: of for n in lists if (of := getattr(study, n, None))}
    left: dict[str, Any] = {n: tuple(t for t in of if t not in lost) for n, of in there.items()}
    left["cross_tasks"] = left.get("cross_tasks") or None  # where none of the pairs is left, all
    if all(getattr(study, name) == of for name, of in left.items()):
        return study  # which has listed its jobs already
    return replace(study, **left)


def data_note(study: Study) -> str:
    """Say what a figure has to tell of a study's data; "" where there is nothing.

    Which questions are left out, as the jobs tell. Of tasks with splits of their own: which are
    left out, since their data could not be had, and for which both sets are carved from the same
    rows, since a split was missing.
    """
    store = open_store(study)
    notes: dict[str, list[str]] = {}
    lost: list[str] = []
    if any(tasks.get(t).splits for t in study.tasks):
        origins = _origins(store)
        lost = notes["Left out, no data"] = [t for t in study.tasks if t not in origins]
        notes["Train and test carved from one split"] = [
            t
            for t in study.tasks
            if tasks.get(t).splits
            and (parts := origins.get(t, {})).keys() == {"train", "test"}
            and not parts["train"].isdisjoint(parts["test"])
        ]
    counts = _counts_left_out(study if len(lost) == len(study.tasks) else _without(study, lost))
    notes["Questions left out of a set, too long for the model"] = counts["too_long"]
    notes["Rows left out, with nothing where text is needed"] = counts["lacking"]
    return ". ".join(f"{note}: {', '.join(names)}" for note, names in notes.items() if names)


def _origins(store: Store) -> dict[str, dict[str, set[str]]]:
    """Map task and "train" or "test" to the source's splits that stored examples are from."""
    found: dict[str, dict[str, set[str]]] = {}
    seen: set[Measurement] = set()
    for checkpoint, measurement, _ in store.sources():
        if measurement.readout == "scores" and measurement not in seen:
            seen.add(measurement)
            value: Any = store.read(checkpoint, measurement).value
            of_split = found.setdefault(measurement.task, {}).setdefault(measurement.split, set())
            of_split.update(uid.split("/")[1] for uid in value.uids)
    return found


def _counts_left_out(study: Study) -> dict[str, list[str]]:
    """Name by kind the study's tasks with the most questions that a job left out of a set."""
    most: dict[str, dict[str, int]] = {"too_long": {}, "lacking": {}}
    store = open_store(study)
    wanted = {key for job in study.jobs() for key in job.keys}
    for checkpoint, measurement, found in store.sources():
        if (checkpoint.id, measurement.id) not in wanted:
            continue
        for kind, of_kind in most.items():
            for where, left in found.get(kind, {}).items():
                task = where.split("/")[0]
                of_kind[task] = max(of_kind.get(task, 0), left["n"])
    return {
        kind: [f"{task} ({of_kind[task]})" for task in study.tasks if task in of_kind]
        for kind, of_kind in most.items()
    }
