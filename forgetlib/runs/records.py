"""What is done and found: jobs, the records that they give, and results as figures read them.

Job      a checkpoint and what to measure of it, done in one go
Record   one measurement's result, with where it comes from: a row of the store
Result   the records of a job, as figures read them
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from forgetlib.data import views
from forgetlib.errors import InputError
from forgetlib.measuring.base import (
    DoseCurve,
    Dynamics,
    HiddenVariance,
    LogitLens,
    Loss,
    Probe,
    Readout,
    Scores,
    ScoresInTraining,
)
from forgetlib.runs.specs import PLAIN, Checkpoint, Measurement, hash_of


@dataclass(frozen=True)
class Job:
    """Name a checkpoint and what to measure of it."""

    checkpoint: Checkpoint
    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        if not self.measurements or len(set(self.measurements)) < len(self.measurements):
            raise InputError(
                f"job of {self.checkpoint}",
                expected="at least one measurement, and every one once",
                found=[str(m) for m in self.measurements],
                do="Ask for something, or remove the duplicates.",
            )
        # Of another split, where both sets are carved from the same rows, test questions would be
        # among those that were trained on.
        trained = {(t, c.data.seed) for c in self.checkpoint.lineage if c.data for t in c.given}
        for m in self.measurements:
            others = sorted(seed for task, seed in trained if task == m.task and seed != m.seed)
            if others:
                raise InputError(
                    f"{m} of {self.checkpoint}",
                    expected=f"the seed of the split that it was trained with, {others[0]}",
                    found=m.seed,
                    do="Ask about the same split, or train with the other.",
                )

    @property
    def seed(self) -> int:
        """Tell the seed of the split that its questions are from."""
        return next((m.seed for m in self.measurements if m.task), self.checkpoint.seed)

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Tell what its records are stored under."""
        return tuple((self.checkpoint.id, m.id) for m in self.measurements)

    @cached_property
    def id(self) -> str:
        """Hash the checkpoint and all measurements: 16 hexadecimal digits."""
        return hash_of({"checkpoint": self.checkpoint.id, "asked": sorted(self.keys)})

    def only(self, wanted: Iterable[Measurement]) -> Job:
        """Return the job that asks these of its measurements alone."""
        chosen = set(wanted)
        return Job(self.checkpoint, tuple(m for m in self.measurements if m in chosen))

    def __str__(self) -> str:
        if self.checkpoint.method:
            return str(self.checkpoint)
        tasks = "+".join(dict.fromkeys(m.task for m in self.measurements if m.task))
        return f"{self.checkpoint.model} seed {self.seed} {tasks}:base"


Key = tuple[str, str]  # ids of a checkpoint and of a measurement


@dataclass(frozen=True)
class Record:
    """Hold what one measurement found.

    found: of the readout's own class; or what reads it, when it is first asked for
    provenance: versions, device, seconds and date of the job; it never changes what is measured
    """

    checkpoint: Checkpoint
    measurement: Measurement
    found: Readout | Callable[[], Readout]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def value(self) -> Any:
        """Read what was found, of the readout's own class."""
        return self.found if isinstance(self.found, Readout) else self.found()

    @property
    def key(self) -> Key:
        """Tell what it is stored under."""
        return self.checkpoint.id, self.measurement.id


@dataclass(frozen=True)
class Result:
    """Hold what was measured of a checkpoint with the questions of one seed, as figures read it."""

    checkpoint: Checkpoint
    seed: int
    records: tuple[Record, ...] = ()

    @cached_property
    def scores(self) -> Mapping[str, Scores]:
        """Find scores of questions as they are, by "<task>/<split>"; of several sizes the largest.

        "<task>/train" of the checkpoint's own task is the forgetting set, with true labels.
        """
        return self.seen(PLAIN)

    def seen(self, view: str) -> dict[str, Scores]:
        """Return the scores of questions seen through a view, by "<task>/<split>".

        few_shot(4) also finds what is stored with all its settings, "few_shot(4, 0, 'true')".
        """
        written = view
        with contextlib.suppress(InputError):  # of a view whose file is not imported here
            written = views.get(view).name
        found = self._records(Scores, written) + self._records(Scores, view)
        return {r.measurement.where: r.value for r in found}

    def of(self, task: str) -> Result:
        """Return what was measured with the questions of one task, and of its training."""
        of_task = (r for r in self.records if r.measurement.task in ("", task))
        return Result(self.checkpoint, self.seed, tuple(of_task))

    @property
    def dynamics(self) -> Dynamics | None:
        """Find confidences while it was trained; None where they were not recorded."""
        return self._of(Dynamics)

    @cached_property
    def in_training(self) -> Mapping[str, ScoresInTraining]:
        """Find scores while it was trained, by "<task>/<split>"; of several sizes the largest."""
        return {r.measurement.where: r.value for r in self._records(ScoresInTraining)}

    @property
    def dose(self) -> DoseCurve | None:
        """Find the forgetting set's AUROC while it was trained to a dose; None without one."""
        return self._of(DoseCurve)

    @property
    def loss(self) -> Loss | None:
        """Find the loss at each step of its training; None where there was none."""
        return self._of(Loss)

    @property
    def probe(self) -> Probe | None:
        """Find what a linear probe of its hidden states says; None where none was fitted."""
        return self._of(Probe)

    @property
    def hidden_variance(self) -> HiddenVariance | None:
        """Find how far its hidden states are from their mean; None where it was not measured."""
        return self._of(HiddenVariance)

    @cached_property
    def lenses(self) -> Mapping[str, LogitLens]:
        """Find what each layer would answer, by "<task>/<split>"; of several sizes the largest."""
        return {r.measurement.where: r.value for r in self._records(LogitLens)}

    def _records(self, kind: type[Readout], view: str = PLAIN) -> list[Record]:
        """List the records of a readout; of several sizes the largest is the last."""
        of_kind = (r for r in self.records if r.measurement.readout == kind.name)
        of_view = (r for r in of_kind if r.measurement.view == view)
        return sorted(of_view, key=lambda r: r.measurement.n)

    def _of(self, kind: type[Readout]) -> Any:
        found = self._records(kind)
        return found[-1].value if found else None

    @cached_property
    def provenances(self) -> tuple[Mapping[str, Any], ...]:
        """List where its records come from, each job once."""
        return tuple({id(r.provenance): r.provenance for r in self.records}.values())
