"""Draw a study of methods from its stored results: each figure once a skill, the price once.

As in `drawing`, a figure's function yields pictures and tables by the name of their files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from forgetlib.figures import under_way
from forgetlib.figures.methods import (
    collateral,
    dose,
    forms,
    generalisation,
    ladder_figure,
    ladders,
    price,
    relearning,
    rungs,
)
from forgetlib.runs.answers import load_answers
from forgetlib.runs.grid import Study
from forgetlib.runs.ladder import LadderStudy
from forgetlib.runs.records import Result

Drawn = Iterator[tuple[str, Figure, pd.DataFrame]]  # name of the files, picture, its data


def _there(study: Study, section: str | None = None) -> tuple[LadderStudy, list[Result], str]:
    """Read what there is of a study of methods, and what to say where that is not all."""
    assert isinstance(study, LadderStudy)  # `drawing.drawn` has seen to it
    forgotten = {
        study.after(method, task, seed).id
        for task, seed in study.with_seeds(study.seeds)
        for method in study.of(task, seed)
    }
    return study, *under_way.so_far(study, forgotten, section)


def _by_skill(*tables: pd.DataFrame) -> Iterator[tuple[str, list[pd.DataFrame]]]:
    """Take of tables what they have of each skill, with the end of a file's name."""
    for task in dict.fromkeys(tables[0]["eval_task"]):
        yield str(task).replace(":", "-"), [t[t["eval_task"] == task] for t in tables]


def _ladder(study: Study) -> Drawn:
    study, results, note = _there(study)
    found = ladders.of_study(study, results, partial(load_answers, study))
    for task, (summary, table) in _by_skill(rungs.summary(found), rungs.table(found)):
        figure = ladder_figure.draw(table, summary)
        data = table.merge(summary.drop(columns="n_seeds"), on=["eval_task", "method"])
        yield f"ladder_{task}", under_way.with_note(figure, note), data
        if len(relearning.judged(table)):
            yield f"relearning_{task}", under_way.with_note(relearning.draw(table), note), table


def _forms(study: Study) -> Drawn:
    study, results, note = _there(study, "methods")
    found = ladders.of_study(study, results, partial(load_answers, study))
    for task, (of,) in _by_skill(forms.table(found, results)):
        yield f"forms_{task}", under_way.with_note(forms.draw(of), note), of


def _dose(study: Study) -> Drawn:
    study, results, note = _there(study, "methods")
    summary = dose.summary(study, results, partial(load_answers, study))
    for task, (of, curves) in _by_skill(summary, dose.curves(study, results)):
        # In one table, so that it has all that is drawn: a method without a curve is one row.
        data = curves.merge(of, on=["eval_task", "method"], how="outer", sort=False)
        yield f"dose_{task}", under_way.with_note(dose.draw(curves, of), note), data


def _collateral(study: Study) -> Drawn:
    study, results, note = _there(study, "collateral")
    found = collateral.trajectories(study, results, partial(load_answers, study))
    tables = collateral.table(found), collateral.curves(found)
    for task, (of, checks) in _by_skill(*tables):
        # In one table, so that it has all that is drawn.
        data = checks.merge(of.drop(columns="trained"), on=["eval_task", "method"], sort=False)
        yield f"collateral_{task}", under_way.with_note(collateral.draw(checks, of), note), data


def _generalisation(study: Study) -> Drawn:
    study, results, note = _there(study, "methods")
    table = generalisation.table(study, results, partial(load_answers, study))
    costs = price.table(table)
    yield "price", under_way.with_note(price.draw(costs), note), costs
    for task, (of,) in _by_skill(table):
        yield f"generalisation_{task}", under_way.with_note(generalisation.draw(of), note), of
        others = generalisation.draw(of, ("accuracy_lost", "nll_rise"))
        yield f"accuracy_and_nll_{task}", under_way.with_note(others, note), of


FIGURES: dict[str, Callable[[Study], Drawn]] = {
    "ladder": _ladder,
    "dose": _dose,
    "collateral": _collateral,
    "forms": _forms,
    "generalisation": _generalisation,
}
