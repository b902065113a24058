"""Draw a study of implicit inference from its stored results, without a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from forgetlib.errors import require_one_of
from forgetlib.figures import style
from forgetlib.figures.implicit import bayes, conjugate, pattern, shift, tuning, verdicts, weights
from forgetlib.figures.implicit.measures import judged
from forgetlib.figures.implicit.stored import Stored, stored
from forgetlib.implicit import results
from forgetlib.implicit.study import ImplicitStudy

Picture = tuple[Figure, pd.DataFrame] | None  # and its data; None: nothing is stored of it


def _bayes(of: Stored) -> Picture:
    table = bayes.table(of.own)
    return bayes.draw(table, of.gate), table


def _weights(of: Stored) -> Picture:
    """Compare mixture weights by the seeds that all of them have."""
    seeds = of.errors.groupby("alpha")["seed"].unique().map(set)
    errors = of.errors[of.errors["seed"].isin(set.intersection(*seeds))]
    table = weights.table(errors)
    return weights.draw(table, judged(errors)), table


def _tuning(of: Stored) -> Picture:
    table = tuning.table(of.own)
    return tuning.draw(table, of.gate), table


def _conjugate(of: Stored) -> Picture:
    table = conjugate.table(of.own)
    return conjugate.draw(table, of.gate), table


def _shift(of: Stored) -> Picture:
    table = shift.table(of.shifts, of.alpha, of.controls)
    return shift.draw(table, of.gate), table


def _pattern(of: Stored) -> Picture:
    if of.answers is None:
        return None
    table = pattern.table(of.answers)
    return pattern.draw(table), table


def _claims(of: Stored) -> Picture:
    table = verdicts.table(of)
    return verdicts.draw(table), table


FIGURES: dict[str, Callable[[Stored], Picture]] = {
    "bayes": _bayes,
    "weights": _weights,
    "tuning": _tuning,
    "conjugate": _conjugate,
    "shift": _shift,
    "pattern": _pattern,
    "claims": _claims,
}


def drawn(study: ImplicitStudy, names: Sequence[str] = ()) -> Iterator[Path]:
    """Draw figures of a study, by their names or all, into its folder; yield file by file.

    Computes nothing: raises InputError where results are missing. Where no real model was asked,
    there is no figure `pattern`.
    """
    for name in names:
        require_one_of(f"figure of study {study.name!r}", name, FIGURES)
    of = stored(study)
    for name in names or FIGURES:
        if (found := FIGURES[name](of)) is not None:
            yield from style.write(*found, results.folder(study.name), name)
