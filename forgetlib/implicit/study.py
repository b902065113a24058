"""The studies of implicit inference: what belongs to each, what is stored, and computing it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetlib.errors import InputError, require_one_of, require_whole
from forgetlib.implicit import obey, results, settings
from forgetlib.implicit.obey import Obedience
from forgetlib.implicit.settings import Setting

if TYPE_CHECKING:
    import pandas as pd

REGRESSION, CONTROL, WEIGHTS, PATTERN = "regression", "control", "weights", "pattern"
SECTIONS = (REGRESSION, CONTROL, WEIGHTS, PATTERN)
# Columns that a check compares.
MEASURED = ("error", "pattern", "instruction", "before", "after", "change", "faded")
SAME = 0.1


@dataclass(frozen=True)
class Control:
    """Name what else would explain the shift of a setting: `evaluate.controls`.

    of: the setting that the models are trained in
    """

    of: Setting

    @property
    def key(self) -> str:
        """Name its file, as the setting's."""
        return self.of.key


Job = Setting | Control | Obedience


@dataclass(frozen=True)
class ImplicitStudy:
    """Name what is computed of arXiv 2309.10105, under one name.

    seeds: of in-context regression, at the setting's own mixture weight, and of its controls
    alphas: other mixture weights, for the first seed
    obeying: real models, each tuned to obey where it continues a pattern
    """

    name: str
    description: str
    seeds: tuple[int, ...]
    alphas: tuple[float, ...]
    obeying: tuple[Obedience, ...]

    @property
    def notebooks(self) -> str:
        """The folder of the notebooks that draw it."""
        return "notebooks/implicit"

    @property
    def not_drawn(self) -> tuple[str, ...]:
        """Name the notebooks that it has nothing for."""
        return () if self.obeying else ("pattern",)

    @property
    def setting(self) -> Setting:
        """The setting of in-context regression, with the first seed."""
        return settings.named(self.name, seed=self.seeds[0])

    def jobs(self, section: str | None = None) -> list[Job]:
        """List what a section consists of, or all; InputError for no such section."""
        if section is not None:
            require_one_of(f"section of study {self.name!r}", section, SECTIONS)
        own = [settings.named(self.name, seed=seed) for seed in self.seeds]
        of: dict[str, list[Job]] = {
            REGRESSION: [*own],
            CONTROL: [Control(setting) for setting in own],
            WEIGHTS: [
                settings.named(self.name, seed=self.seeds[0], alpha=alpha) for alpha in self.alphas
            ],
            PATTERN: list(self.obeying),
        }
        return [job for name in SECTIONS if section in (None, name) for job in of[name]]


STUDIES = {
    study.name: study
    for study in (
        ImplicitStudy(
            "implicit-tiny",
            "in-context regression in seconds, too small to be near Bayes' rule",
            seeds=(0,),
            alphas=(0.2,),
            obeying=(),  # a model of two random layers cannot read such prompts
        ),
        ImplicitStudy(
            "implicit",
            "in-context regression beside Bayes' rule, and a real model: is forgetting a wrong "
            "guess of the task?",
            # Seeds 3 to 9 were added after what 0 to 2 say had been seen. Ten was fixed before they
            # were computed: with so many each claim about them would be decided with power 0.8.
            seeds=tuple(range(10)),
            alphas=(0.2, 0.8),
            obeying=tuple(Obedience(seed=seed) for seed in (0, 1, 2)),
        ),
    )
}


def path_of(job: Job) -> Path:
    """Name the file of a job's results; where it is, all is stored that the job gives."""
    if isinstance(job, Obedience):
        return obey.path_of(job)
    return results.path_of(job.of, "controls") if isinstance(job, Control) else results.path_of(job)


def is_stored(job: Job) -> bool:
    """Tell whether all is there that a job gives."""
    return path_of(job).exists()


def provenance_of(job: Job) -> dict[str, Any]:
    """Read what computed a stored job, and when."""
    return results.about(path_of(job))[1]


def run(study: ImplicitStudy, section: str | None = None) -> int:
    """Compute and store what is missing of a section, or of all; return how many jobs that was.

    Killed and called again, it goes on where it was.
    """
    missing = [job for job in study.jobs(section) if not is_stored(job)]
    for job in missing:
        if isinstance(job, Obedience):
            obey.run(job)
        else:
            from forgetlib.implicit import run as regression

            if isinstance(job, Control):
                regression.run_control(job.of)
            else:
                regression.run(job)
    return len(missing)


def table(study: ImplicitStudy, section: str | None = None) -> pd.DataFrame:
    """List a study's jobs. Columns: section, job (its key), stored, hours (that it took)."""
    import pandas as pd

    study.jobs(section)  # is there such a section?
    rows = [
        {
            "section": name,
            "job": job.key,
            "stored": is_stored(job),
            "hours": provenance_of(job)["seconds"] / 3600 if is_stored(job) else float("nan"),
        }
        for name in SECTIONS
        if section in (None, name)
        for job in study.jobs(name)
    ]
    return pd.DataFrame(rows, columns=["section", "job", "stored", "hours"])


def estimate(study: ImplicitStudy, section: str | None = None) -> dict[str, Any]:
    """Tell what is missing and stored, and what it takes by the mean of stored jobs of its kind.

    hours_missing is None where nothing is stored of a kind that lacks something. A control takes
    what its setting does, as it needs the same models, and seconds where their weights are left.
    """
    took: dict[type, list[float]] = {Setting: [], Obedience: []}
    took[Control] = took[Setting]
    for job in filter(is_stored, study.jobs()):
        if not isinstance(job, Control):
            took[type(job)].append(provenance_of(job)["seconds"] / 3600)
    jobs = study.jobs(section)
    missing = [took[type(job)] for job in jobs if not is_stored(job)]
    spent = sum(provenance_of(job)["seconds"] / 3600 for job in jobs if is_stored(job))
    return {
        "study": study.name,
        "section": section,
        "jobs_missing": len(missing),
        "hours_missing": round(sum(map(fmean, missing)), 2) if all(missing) else None,
        "jobs_stored": len(jobs) - len(missing),
        "hours_spent": round(spent, 2),
    }


def verify(study: ImplicitStudy, n_jobs: int, seed: int = 0) -> pd.DataFrame:
    """Compute some stored jobs again, from nothing, and compare: a row a job.

    On the kind of processor and by the versions that a result came from, it is the same to the
    last bit; elsewhere sums are in another order, and mean errors, or answers' log-likelihoods,
    differ by at most `SAME` of their size on average.

    n_jobs, seed: how many jobs, drawn at random
    Columns: job, device, device_again, same_origin (whether all has to be the same), n (numbers
    compared), difference (mean absolute, by the stored numbers' mean size), ok.
    """
    import pandas as pd

    stored = [job for job in study.jobs() if is_stored(job)]
    require_whole("seed of the check", seed)
    if n_jobs not in range(1, len(stored) + 1):
        raise InputError(
            f"check of study {study.name!r}",
            expected=f"from 1 to {len(stored)} jobs, as many as are stored",
            found=repr(n_jobs),
            do="Correct the number, or compute more: forgetlib run.",
        )
    picked = np.random.default_rng(seed).choice(len(stored), n_jobs, replace=False)
    return pd.DataFrame([_compared(stored[i]) for i in sorted(picked)])


def _compared(job: Job) -> dict[str, Any]:
    then, origin = results.read_file(path_of(job)), provenance_of(job)
    if isinstance(job, Obedience):
        now, about = obey.answers(job)
    else:
        from forgetlib.implicit import run as regression

        # Under another name, so that no checkpoint of the stored one is taken.
        setting = job.of if isinstance(job, Control) else job
        again = replace(setting, name=f"{setting.name}-again")
        if isinstance(job, Control):
            now, about = regression.control(again)
        else:
            now, _, about = regression.computed(again)
        shutil.rmtree(regression.work(again).parent)
    measured = [name for name in then if name in MEASURED]
    first, second = (
        np.vstack([np.stack(of[name]).ravel() for name in measured]) for of in (then, now)
    )
    difference = float(np.abs(first - second).mean() / np.abs(first).mean())
    same = all(origin.get(name) == about.get(name) for name in ("device", "threads", "torch"))
    return {
        "job": job.key,
        "device": origin["device"],
        "device_again": about["device"],
        "same_origin": same,
        "n": first.size,
        "difference": difference,
        "ok": difference == 0 if same else difference < SAME,
    }
