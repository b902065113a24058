"""Read all that is stored of a study of implicit inference, for its figures and claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from forgetlib.errors import InputError
from forgetlib.figures.implicit.measures import Gate, judged, of_alpha
from forgetlib.implicit import results
from forgetlib.implicit.study import (
    CONTROL,
    PATTERN,
    REGRESSION,
    ImplicitStudy,
    is_stored,
    provenance_of,
)


@dataclass(frozen=True)
class Stored:
    """Hold what is stored of a study: errors and shifts by mixture weight, answers, the first day.

    controls: of the study's own setting, None where none are stored
    alpha: the mixture weight of that setting
    gate: what its pre-trained models are worth; of shifts and controls those that do not meet it
        are left out
    """

    errors: pd.DataFrame
    shifts: pd.DataFrame
    controls: pd.DataFrame | None
    alpha: float
    gate: Gate
    answers: pd.DataFrame | None
    computed: str

    @property
    def own(self) -> pd.DataFrame:
        """The errors of that mixture weight, of the seeds that meet the gate."""
        return self.gate.within(of_alpha(self.errors, self.alpha))


def stored(
    study: ImplicitStudy, seeds: Sequence[int] | None = None, alphas: Sequence[float] | None = None
) -> Stored:
    """Read what is stored; InputError where a section that all figures need is not complete.

    seeds, alphas: of them only these; None: all. The first alpha is that of claims about one.
    """
    there = [job for job in study.jobs() if is_stored(job)]
    if any(job not in there for job in study.jobs(REGRESSION)):
        n = sum(job in there for job in study.jobs(REGRESSION))
        raise InputError(
            f"figures of study {study.name!r}",
            expected=f"all {len(study.jobs(REGRESSION))} jobs of {REGRESSION} stored",
            found=f"{n} of them in {results.folder(study.name)}",
            do=f"Compute the others: forgetlib run {study.name} {REGRESSION}.",
        )
    keys = [job.key for job in there]

    def read(table: str) -> pd.DataFrame:
        found = results.read(study.name, table)
        found = found[found["key"].isin(keys)]
        if seeds is not None:
            found = found[found["seed"].isin(seeds)]
        if alphas is not None and "alpha" in found:
            found = found[found["alpha"].isin(alphas)]
        if found.empty:
            raise InputError(
                f"{table} of study {study.name!r}",
                expected="some of these seeds and mixture weights stored",
                found=f"none of seeds {seeds}, weights {alphas}",
                do=f"See `forgetlib list {study.name}`, or leave them out.",
            )
        return found.reset_index(drop=True)

    asked, controlled = (
        any(job in there for job in study.jobs(section)) for section in (PATTERN, CONTROL)
    )
    errors, alpha = read("results"), alphas[0] if alphas else study.setting.alpha
    gate = judged(errors, alpha)
    return Stored(
        errors,
        gate.within(read("shifts")),
        gate.within(read("controls")) if controlled else None,
        alpha,
        gate,
        read("patterns") if asked else None,
        min(provenance_of(job)["date"][:10] for job in there),
    )
