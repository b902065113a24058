"""Say of a whole study what is missing, what it will cost, and what stored jobs took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from forgetlib.data import splits
from forgetlib.errors import require_number
from forgetlib.runs import cost
from forgetlib.runs.grid import Study, open_store
from forgetlib.runs.records import Job
from forgetlib.runs.store import Store


@dataclass(frozen=True)
class Estimate:
    """Hold what of a study, or of a section of it, is missing and stored, and what it takes.

    missing: from `cost.table`, a row a model; jobs_missing counts those whose data are missing,
        too, and jobs_stored only those whose data are here, where something is missing
    hours_spent: what the stored jobs took where they were computed
    hours_estimated: what they would take by this estimate; None: nothing had to be estimated
    threads_spent: with how many threads stored jobs were computed; threads_estimated: with how many
        the rate was measured, None where it was given. Hours compare where these are the same
    """

    study: str
    description: str
    section: str | None
    missing: pd.DataFrame
    jobs_missing: int
    jobs_stored: int
    hours_spent: float
    hours_estimated: float | None
    threads_spent: tuple[int, ...]
    threads_estimated: int | None

    def as_text(self) -> str:
        """Write it for people."""
        lines = [f"{self.study}: {self.description}", "nothing is missing"]
        if not self.missing.empty:
            lines[1] = self.missing.round(2).to_string(index=False)
        elif self.jobs_missing:
            lines[1] = f"{self.jobs_missing} jobs are missing, and so are the data of their tasks"
        if self.jobs_stored:
            took = f"{self.hours_spent:.2f} hours where they were computed"
            lines.append(f"{self.jobs_stored} jobs are stored; they took {took}")
            if self.threads_spent:
                lines[-1] += f" ({_of_threads(*self.threads_spent)})"
            if self.hours_estimated is not None:
                lines[-1] += f", and would take {self.hours_estimated:.2f} by this estimate"
            if self.threads_estimated is not None:
                lines[-1] += f" ({_of_threads(self.threads_estimated)})"
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Write it for scripts: what JSON can hold."""
        return {**vars(self), "missing": self.missing.to_dict("records")}


def _of_threads(*counts: int) -> str:
    """Write with how many threads a process computed: "1 thread", "1 or 2 threads"."""
    return f"{' or '.join(map(str, counts))} thread{'s' if counts[-1] > 1 else ''}"


def of_study(study: Study, section: str | None = None, tflops: float | None = None) -> Estimate:
    """Estimate what is missing, and how long stored jobs took beside this estimate of them.

    The second where something is missing, or `tflops` is given: else nothing has to be loaded.

    tflops: the rate of training and scoring on another machine; None: measured on this one
    """
    rate = None
    if tflops is not None:
        tflops = require_number("--tflops", tflops, "a number above 0", lambda x: x > 0)
        rate = cost.Rate(tflops * 1e12, tflops * 1e12)
    missing = cost.table(study, section, rate)
    store, jobs = open_store(study), study.jobs(section)
    stored = [job for job in jobs if store.has(job)]
    n_missing, guessed = len(jobs) - len(stored), None
    if rate is not None or not missing.empty:
        lost = splits.missing(sorted({t for job in stored for t in cost.tasks_of(job)}))
        stored = [job for job in stored if lost.keys().isdisjoint(cost.tasks_of(job))]
        keys = [(j.checkpoint.model, study.tuning, study.dtype) for j in stored]
        speed = {key: rate or cost.measured(*key) for key in dict.fromkeys(keys)}
        works = zip(stored, keys, strict=True)
        guessed = sum(cost.seconds(cost.work(j), speed[key]) for j, key in works) / 3600
    threads = None
    if rate is None and guessed is not None:
        import torch

        threads = torch.get_num_threads()
    provenances = _provenances(stored, store)
    spent_by = {int(found["threads"]) for found in provenances if "threads" in found}
    return Estimate(
        study=study.name,
        description=study.description,
        section=section,
        missing=missing,
        jobs_missing=n_missing,
        jobs_stored=len(stored),
        hours_spent=_seconds(provenances) / 3600,
        hours_estimated=guessed,
        threads_spent=tuple(sorted(spent_by)),
        threads_estimated=threads,
    )


def spent(jobs: Iterable[Job], store: Store) -> float:
    """Add up the seconds that stored jobs took; rows that were measured together count once."""
    return _seconds(_provenances(jobs, store))


def _seconds(provenances: Iterable[Mapping[str, Any]]) -> float:
    return sum(float(found.get("seconds", 0)) for found in provenances)


def _provenances(jobs: Iterable[Job], store: Store) -> list[Mapping[str, Any]]:
    """List where stored jobs come from, each once: rows that were measured together share one."""
    wanted = {key for job in jobs for key in job.keys}
    return list(
        {
            (checkpoint.id, id(found)): found
            for checkpoint, measurement, found in store.sources()
            if (checkpoint.id, measurement.id) in wanted
        }.values()
    )
