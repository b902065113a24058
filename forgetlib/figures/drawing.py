"""Draw a study's figures from its stored results, without a notebook.

Each figure's function loads what it needs, makes tables and pictures, and yields them by the name
of their files. The notebooks do the same step by step, with words in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from forgetlib.data import tasks
from forgetlib.errors import InputError, require_one_of
from forgetlib.figures import (
    agreement,
    audit,
    claims,
    claims_figure,
    crossanalysis,
    crosstask,
    fig1,
    fig2,
    fig2b,
    fig3,
    fig4,
    fig4_examples,
    fig5,
    fig6,
    fig7,
    fig8,
    fig9,
    intervals,
    mixedmodel,
    regression,
    style,
    under_way,
)
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.methods import drawing as methods_drawing
from forgetlib.figures.methods.drawing import Drawn
from forgetlib.figures.scale import (
    agreement as scale_agreement,
    claims as scale_claims,
    models as scale,
    regressions as scale_regressions,
)
from forgetlib.forgetting.labels import training_labels
from forgetlib.runs.answers import load_answers
from forgetlib.runs.grid import Study
from forgetlib.runs.ladder import LadderStudy
from forgetlib.runs.questions import load_questions
from forgetlib.runs.records import Result
from forgetlib.runs.results import complete_part, has_all, load_results, load_stored
from forgetlib.runs.scale import ScaleStudy


def drawn(study: Study, names: Sequence[str] = ()) -> Iterator[Path]:
    """Draw figures of a study, by their names or all, into its folder; yield file by file.

    Computes nothing: raises StudyError where results are missing. Of all figures, those are left
    out that the study has no section for. Studies of methods and of models are drawn while they are
    under way, too, as are Figures 2 and 2b of the tasks that are complete; these figures say so.
    """
    for name in names:
        require_one_of("figure", name, FIGURES)
        if name not in _of_kind(study):
            raise InputError(
                f"figure {name!r} of study {study.name!r}",
                expected="a figure of this kind of study",
                found="one of another kind",
                do=f"Draw another: {', '.join(_all(study))}.",
            )
        if name in study.not_drawn:
            raise InputError(
                f"figure {name!r} of study {study.name!r}",
                expected="a figure that the study has something for",
                found=f"one of what its settings leave out ({NOT_DRAWN[name]})",
                do=f"Draw another: {', '.join(_all(study))}; or change the setting.",
            )
    for name in names or _all(study):
        for file, figure, data in FIGURES[name](study):
            yield from style.save(figure, data, file, study)


def _of_kind(study: Study) -> list[str]:
    """List the figures of a study's kind: of methods, of models, or of tasks."""
    kinds = {LadderStudy: OF_METHODS, ScaleStudy: OF_SCALE}
    for kind, names in kinds.items():
        if isinstance(study, kind):
            return list(names)
    return [name for name in FIGURES if name not in (*OF_METHODS, *OF_SCALE)]


def _all(study: Study) -> list[str]:
    """List the figures that a study has something for."""
    return [name for name in _of_kind(study) if name not in study.not_drawn]


def _fig1(study: Study) -> Drawn:
    """The least and the most forgotten task, a question inside and one outside of each set."""
    results = load_results(study, "own")
    names = fig1.tasks_to_show(fig2.table(results, answers=partial(load_answers, study)))
    seed, table = study.seeds[0], fig1.table(results)
    table = table[table["eval_task"].isin(names) & (table["seed"] == seed)]
    shown = []
    for name in names:
        asked = load_questions(study, name, seed)
        drawn = training_labels(asked.train, "random", seed)
        inside = [e for e, d in zip(asked.train, drawn, strict=True) if d != e.label]
        shown += [fig1.choose(table, part) for part in (inside, asked.test)]
    yield "fig1_example", fig1.draw(table, shown), table


def _own(study: Study) -> tuple[Study, str]:
    """Take the tasks whose own runs and controls are stored, and say where that is not all."""
    sections = ("own", "control")
    if all(has_all(study, section) for section in sections):
        return study, ""
    part = complete_part(study, sections)
    return part, f"under way: {len(part.tasks)} of {len(study.tasks)} tasks"


def _fig2(study: Study) -> Drawn:
    part, note = _own(study)
    answers = partial(load_answers, study)
    table = fig2.table(load_results(part, "own"), answers=answers)
    yield "fig2_forget_gap", under_way.with_note(fig2.draw(table), note), table
    control = fig2.control_table(load_results(part, "control"), answers=answers)
    if len(control):
        yield "fig2_control", under_way.with_note(fig2.draw_control(control), note), control


def _fig2b(study: Study) -> Drawn:
    part, note = _own(study)
    results = [*load_results(part, "own"), *load_results(part, "control")]
    if part is not study:  # what fine-tuning did to other tasks is told by their pre-trained model
        results += [r for r in load_stored(study, "own") if r.checkpoint.method is None]
    table = fig2b.table(results, partial(load_answers, study), fig2b.KINDS)
    yield "fig2b_skill", under_way.with_note(fig2b.draw(table), note), table


def _cross(study: Study, condition: str = "random") -> CrossTask:
    """Make the cross-task matrix of a kind of labels."""
    results = load_results(study, "flipped" if condition == "flipped" else "cross")
    results = [*results, *load_results(study, "cross_control")]
    return crosstask.cross_task(results, condition, answers=partial(load_answers, study))


def _fig3(study: Study) -> Drawn:
    cross = _cross(study)
    table, described = fig3.table(cross), tasks.describe(cross.tasks)
    yield "fig3_cross_task", fig3.draw(cross, described), table
    yield "fig3_harm", fig3.draw_harm(table, described), table
    shares = fig3.shares(cross)
    own = crossanalysis.own_against_others(cross)
    yield "fig3_summary", fig3.draw_summary(cross, shares, own), fig3.summary_table(shares, own)


def _fig4(study: Study) -> Drawn:
    results = load_results(study, "own")
    described = tasks.describe(study.tasks)
    own = fig4.table(results, answers=partial(load_answers, study))
    table = own.merge(described, on="eval_task")
    yield "fig4_predictors", fig4.draw(table, regression.correlations(table)), table
    alone = regression.each_alone(table[table["known"]])
    yield "fig4_regression", fig4.draw_regression(alone), alone
    examples = fig4_examples.table([*results, *load_results(study, "control")])
    within = mixedmodel.example_level(examples)
    yield "fig4_examples", fig4_examples.draw(within), within


def _fig5(study: Study) -> Drawn:
    results = load_results(study, "own")
    table = fig5.table(results)
    if len(table):
        yield "fig5_order", fig5.draw(table, tasks.describe(table["eval_task"])), table


def _fig6(study: Study) -> Drawn:
    results = load_results(study, "own")
    recovery = fig6.recovery_table(results)
    yield "fig6_probes", fig6.draw(recovery, tasks.describe(study.tasks)), recovery
    table = fig6.table(results)
    yield "fig6_layers", fig6.draw_layers(table), table


def _fig7(study: Study) -> Drawn:
    table = fig7.table(load_results(study, "sizes"), answers=partial(load_answers, study))
    yield "fig7_sizes", fig7.draw(table, tasks.describe(table["eval_task"])), table


def _fig8(study: Study) -> Drawn:
    flipped = _cross(study, "flipped")
    random = _cross(study)
    figure = fig8.draw(flipped, random, tasks.describe(flipped.tasks))
    yield "fig8_flipped", figure, fig8.table(flipped)
    both = fig8.comparison_table(random, flipped)
    yield "fig8_comparison", fig8.draw_comparison(both), both


def _of_models(study: Study) -> list[CrossTask]:
    """Make the cross-task matrix of each of a study's models."""
    results = load_results(study, "models")
    return [
        crosstask.cross_task(
            [r for r in results if r.checkpoint.model == model],
            answers=partial(load_answers, study),
        )
        for model in study.models
    ]


def _fig9(study: Study) -> Drawn:
    crosses = _of_models(study)
    found = crossanalysis.model_agreement(crosses)
    figure = fig9.draw(crosses, found, tasks.describe(crosses[0].tasks))
    yield "fig9_models", figure, fig9.table(crosses)


def _tasks(study: Study) -> Drawn:
    results = load_results(study, "own")
    there = [t for t in study.tasks if t in {r.checkpoint.task for r in results}]
    found = audit.table(there, study.seeds, partial(load_questions, study))
    own = fig2.table(results, answers=partial(load_answers, study))
    table = found.merge(own.drop(columns=["n_train", *fig2.DRAWN]), on="eval_task")
    yield "tasks", audit.draw(table), table


def _claims(study: Study) -> Drawn:
    own, answers = load_results(study, "own"), partial(load_answers, study)
    table = claims.verdicts(
        described=tasks.describe(study.tasks),
        own=fig2.table(own, answers=answers),
        cross=_cross(study),
        flipped=_cross(study, "flipped"),
        predictors=fig4.table(own, answers=answers),
        examples=fig4_examples.table([*own, *load_results(study, "control")]),
        order=fig5.table(own),
        probes=fig6.recovery_table(own),
        sizes=agreement.of_sizes(load_results(study, "sizes"), answers),
        crosses_of_models=_of_models(study),
        computed=claims.first_day(own),
    )
    yield "claims", claims_figure.draw(table), table


# --- studies of models


def _of_scale(study: Study) -> tuple[list[Result], str]:
    """Read what there is of a study of models, and what to say where that is not all."""
    # Each starts at a fine-tuned model on the same labels: only with it there is anything to draw.
    again = {
        j.checkpoint.id
        for j in study.jobs("control")
        if len(j.checkpoint.lineage) > 1 and j.checkpoint.kind == "true"
    }
    return under_way.so_far(study, again)


def _models(study: Study) -> Drawn:
    results, note = _of_scale(study)
    answers = partial(load_answers, study)
    table, agreed = scale.table(results, answers), scale_agreement.table(results, answers)
    more = table[[*scale.COLUMNS, *intervals.with_intervals([scale.AUROC_BEYOND, *scale.MORE])]]
    yield "scale_models", under_way.with_note(scale.draw(table), note), table
    yield "scale_more", under_way.with_note(scale.draw(more, scale.MORE), note), more
    # Its points' names have their places once all of its title is there.
    yield "scale_agreement", scale_agreement.draw(table, agreed, note), agreed


def _regressions(study: Study) -> Drawn:
    results, note = _of_scale(study)
    answers = partial(load_answers, study)
    points = scale_regressions.table(results, answers)
    found = scale_regressions.coefficients(points)
    figure = under_way.with_note(scale_regressions.draw(points, found), note)
    # In one table, so that it has all that is drawn: a point is a row without a coefficient.
    yield "scale_regressions", figure, pd.concat([found, points.assign(fitted="point")])
    lost, agreed = scale.table(results, answers), scale_agreement.table(results, answers)
    judged = scale_claims.table(lost, agreed, points)
    yield "scale_claims", under_way.with_note(claims_figure.draw(judged), note), judged


FIGURES: dict[str, Callable[[Study], Drawn]] = {
    "fig1": _fig1,
    "fig2": _fig2,
    "fig2b": _fig2b,
    "fig3": _fig3,
    "fig4": _fig4,
    "fig5": _fig5,
    "fig6": _fig6,
    "fig7": _fig7,
    "fig8": _fig8,
    "fig9": _fig9,
    "tasks": _tasks,
    "claims": _claims,
    "models": _models,
    "regressions": _regressions,
    **methods_drawing.FIGURES,
}
# Why a study may have nothing for a figure (`Study.not_drawn`).
NOT_DRAWN = {
    "fig7": "no smaller sizes",
    "claims": "fewer than two tasks",
    "collateral": "trajectories=False",
}
OF_METHODS = tuple(methods_drawing.FIGURES)  # of a LadderStudy, and of no other
OF_SCALE = ("models", "regressions")  # of a ScaleStudy
