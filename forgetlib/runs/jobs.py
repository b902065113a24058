"""Do a job: bring a model to a checkpoint, and measure it.

The one place where data, models, methods and readouts meet.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetlib.data import splits, views
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.measuring.base import (
    Asked,
    DoseCurve,
    Dynamics,
    Loss,
    Readout,
    Scores,
    ScoresInTraining,
    readout,
)
from forgetlib.runs import content
from forgetlib.runs.bench import (
    TRAINING_COST,
    Bench,
    Log,
    Progress,
    every,
    fitting,
    ignore_progress,
    is_recorded,
)
from forgetlib.runs.provenance import provenance
from forgetlib.runs.records import Job, Record
from forgetlib.runs.specs import PLAIN, Checkpoint, Measurement

if TYPE_CHECKING:
    from forgetlib.models.lm import LM


def cost(job: Job) -> int:
    """Estimate what a job costs, in scored examples."""
    checkpoint = job.checkpoint
    found = 0
    training = checkpoint.method.settings() if checkpoint.method else None
    if training:
        found += TRAINING_COST * training.epochs * checkpoint.n * len(checkpoint.tasks)
    for m in job.measurements:
        if m.readout == Dynamics.name:
            found += m.n * m.setting("records", 0)
        elif m.readout == ScoresInTraining.name and training:
            found += m.n * len(range(0, training.n_steps(checkpoint.n), every(m)))
        elif m.task:
            found += m.n + m.fit_on
    return found


SetKey = tuple[str, str, int, int]  # task, split, n, seed
Sets = dict[SetKey, tuple[list[Example], list[str]]]


def _needed(job: Job) -> list[SetKey]:
    """List the sets of questions that a job trains on or asks: task, split, n, seed."""
    checkpoint = job.checkpoint
    data = checkpoint.data
    wanted = []
    if data:
        wanted = [(t, "train", data.skip + data.n, data.seed) for t in checkpoint.tasks]
        retained = checkpoint.given[len(checkpoint.tasks) :]
        wanted += [(t, "train", data.n, data.seed) for t in retained]
    return list(dict.fromkeys(wanted + [key for m in job.measurements for key in _asked(m)]))


def _asked(m: Measurement) -> list[tuple[str, str, int, int]]:
    """List the sets of questions that a measurement asks: task, split, n, seed."""
    asked = [(m.task, m.split, m.n, m.seed)] if m.task else []
    return asked + ([(m.task, "train", m.fit_on, m.seed)] if m.fit_on else [])


def run(
    job: Job,
    bench: Bench | None = None,
    report: Progress = ignore_progress,
    stored: Mapping[Measurement, Readout] | None = None,
) -> list[Record]:
    """Do a job: bring the model to the checkpoint, and measure what is not known of it.

    On its own it makes the ancestors too; with a study's bench it takes their weights from there.

    stored: what is known of the checkpoint from before. Where it has to be made again, and does
        not score as it did then, all of the job is measured anew
    """
    from forgetlib.measuring import ask, scoring

    started = time.perf_counter()
    bench, stored = bench or Bench(), dict(stored or {})
    checkpoint, needed = job.checkpoint, _needed(job)
    for key in needed:  # a task without data is found before the model is loaded
        splits.load(*key)
    wanted = [m for m in job.measurements if m not in stored]
    if not wanted:  # all was stored meanwhile
        return []
    in_training = [m for m in wanted if readout(m.readout).in_training]
    for m in in_training:
        if m.view != PLAIN:
            raise InputError(
                f"view of {m}",
                expected=f"{PLAIN!r}, as what is asked while a model is trained is shown as it is",
                found=repr(m.view),
                do="Ask through a view when the training is done.",
            )
    there = checkpoint.method is None or (not in_training and bench.has(checkpoint))
    lm = bench.at(checkpoint if there else checkpoint.start, checkpoint, report)
    sets: Sets = {key: fitting(lm, *key) for key in needed}
    for examples, _ in sets.values():  # what does not fit the model is found before the training
        scoring.encode_all(lm, examples)
    for m in wanted:
        if m.view != PLAIN:
            for key in _asked(m):
                _require_fits(lm, m, views.apply(m.view, sets[key][0], m.seed))
    log = Log(np.zeros(0, np.float32))
    if not there:
        log = bench.make(checkpoint, report, [m for m in wanted if is_recorded(m)])
    memo: dict[Any, Any] = {}

    def measure(m: Measurement) -> Readout:
        if readout(m.readout).in_training:
            return _in_training(m, log, checkpoint)
        if m.id in log.scores:
            return log.scores[m.id]

        def load(split: str, n: int) -> list[Example]:
            return views.apply(m.view, sets[m.task, split, n, m.seed][0], m.seed)

        report(str(m), 0)
        found = ask.measure(Asked(lm, m, load, memo))
        report(str(m), m.n + m.fit_on)
        return found

    with bench.hooked(checkpoint):
        known = next((m for m in stored if m.readout == Scores.name), None)
        as_before = there or known is None or _equal(measure(known), stored[known])
        found = {m: measure(m) for m in wanted} if as_before else {}
    if not as_before:  # made anew outside of the hooks, which are for measuring
        warnings.warn(
            f"{checkpoint}, trained again, does not score as it did, as on another processor: all "
            "of this job is measured anew. What started from the first one is stored as it was",
            stacklevel=2,
        )
        return run(job, bench, report)
    for m, value in found.items():
        if isinstance(value, Scores) and m.view == PLAIN:
            bench.remember(m, value)
    by_name = {_set_name(key, sets): of_set for key, of_set in sets.items()}
    about = provenance(lm, time.perf_counter() - started) | {
        "sets": sorted(by_name),
        "data": content.data_hash({where: examples for where, (examples, _) in by_name.items()}),
        "content": {"model": bench.digest(), **content.of_job(job)},
    }
    about |= _left_out({where: too_long for where, (_, too_long) in by_name.items()})
    return [Record(checkpoint, m, found[m], about) for m in wanted]


def _set_name(key: SetKey, sets: Sets) -> str:
    """Name a set of questions, "<task>/<split>"; with its size where a job has several of them."""
    task, split, n, _ = key
    several = sum(of[:2] == key[:2] for of in sets) > 1
    return f"{task}/{split}" + (f" ({n})" if several else "")


def _require_fits(lm: LM, m: Measurement, shown: list[Example]) -> None:
    """Raise InputError where what a view shows is too long for the model, or all one to it."""
    from forgetlib.measuring import scoring

    try:
        scoring.encode_all(lm, shown)
    except InputError as error:
        raise InputError(
            f"view {m.view!r} of {error.what}",
            expected=error.expected,
            found=error.found,
            do="Leave the view out for this task or this model, or give it other settings.",
        ) from error


def _in_training(m: Measurement, log: Log, checkpoint: Checkpoint) -> Readout:
    """Return what the training of a checkpoint left."""
    trains = checkpoint.method is not None and checkpoint.method.settings() is not None
    left = {Loss.name: Loss(log.loss), DoseCurve.name: log.dose, **log.recorded}
    found = left.get(m.id, left.get(m.readout))
    if found is None or not trains:
        until = " until a dose" if m.readout == DoseCurve.name else ""
        raise InputError(
            f"{m.readout} of {checkpoint}",
            expected=f"a checkpoint that is trained{until}",
            found="one that is not",
            do=f"Ask for it where the method trains{until}.",
        )
    return found


def _equal(one: Readout, other: Readout) -> bool:
    """Tell whether two readouts are the same to the last bit."""
    return type(one) is type(other) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in one.columns
    )


def _left_out(too_long: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Write down for a run's provenance which questions its sets are without; {} for none.

    too_long: by "<task>/<part>", uids
    """
    lacking = {t: splits.left_out(t) for t in {where.split("/")[0]: None for where in too_long}}
    found: dict[str, dict[str, Any]] = {
        "too_long": {w: {"n": len(u), "first": u[0]} for w, u in too_long.items() if u},
        "lacking": {
            task: {"n": len(rows), "first": first, "why": rows[first]}
            for task, rows in lacking.items()
            for first in [*rows][:1]
        },
    }
    return {kind: of_kind for kind, of_kind in found.items() if of_kind}


def trained(checkpoint: Checkpoint) -> LM:
    """Make a checkpoint, to look at or to save: its training is done again."""
    return Bench().at(checkpoint, checkpoint, ignore_progress)
