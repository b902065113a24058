"""A study of models: who does which tasks, what belongs together, and that it runs."""

from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest

import forgetlib
from forgetlib import studies
from forgetlib.errors import InputError
from forgetlib.figures import drawing
from forgetlib.forgetting.base import Training
from forgetlib.runs.bench import StudyError
from forgetlib.runs.grid import figures_dir
from forgetlib.runs.results import load_results, run
from forgetlib.runs.scale import ScaleStudy

TRAINING = Training(1e-2, epochs=4, batch_size=20)
STUDY = ScaleStudy(
    "two-models",
    "two tiny models, two tasks",
    ("tiny_review", "tiny_city"),
    seeds=(0, 1),
    n_train=40,
    n_eval=40,
    tuned=TRAINING,
    forgetting=TRAINING,
    control_seeds=(0, 1),
    elsewhere=("tiny_praise",),
    n_elsewhere=20,
    models=("tiny", "tiny-wide"),
    large=("tiny-wide",),
    large_tasks=("tiny_city",),
    tuning="lora",
    dtype="float32",
)


def test_a_checkpoint_of_each_model_came_out_again_to_the_last_bit():
    """What `forgetlib verify scale` found, as tests/README says."""
    table = pd.read_csv(Path(forgetlib.__file__).parents[1] / "figures/scale/check.csv")
    models = set(table["checkpoint"].str.split().str[0])
    assert models == set(studies.study("scale").models)
    same = table[table["machine"] == table["machine_again"]]
    assert set(same["checkpoint"].str.split().str[0]) == models
    assert (same["difference"] == 0).all() and (same["equal_predictions"] == 1).all()


def test_models_come_one_by_one_and_large_ones_with_their_tasks_and_the_first_seed():
    assert list(STUDY.owned((0, 1))) == [
        ("tiny", "tiny_review", 0),
        ("tiny", "tiny_city", 0),
        ("tiny-wide", "tiny_city", 0),
        ("tiny", "tiny_review", 1),
        ("tiny", "tiny_city", 1),
    ]
    assert set(replace(STUDY, large=()).owned((1,))) == {
        (model, task, 1) for model in STUDY.models for task in STUDY.tasks
    }


def test_a_block_has_the_models_that_are_compared_and_each_start_comes_first():
    blocks = STUDY.blocks()
    assert len(blocks) == 5
    for jobs in blocks.values():
        assert [j.checkpoint.kind for j in jobs] == ["base", "true", "random", "true"]
        assert len({(j.checkpoint.model, j.seed) for j in jobs}) == 1
    seen = set()
    for job in STUDY.jobs():
        assert job.checkpoint.start is None or job.checkpoint.start.id in seen
        seen.add(job.checkpoint.id)


def test_harm_elsewhere_is_asked_after_random_and_after_true_labels_alike():
    for job in STUDY.jobs():
        if job.checkpoint.method is not None:
            assert "tiny_praise" in {m.task for m in job.measurements}
    of = {j.checkpoint.kind: set(j.measurements) for j in STUDY.blocks()["tiny-tiny_city-0"][2:]}
    assert of["random"] == of["true"]


@pytest.mark.parametrize(
    "change", [{"large": ("gemma-3-270m",)}, {"large_tasks": ("tiny_colour",)}]
)
def test_a_large_model_or_task_that_the_study_has_not_is_refused(change):
    with pytest.raises(InputError, match=f"{next(iter(change))} of study 'two-models'"):
        replace(STUDY, **change)


def test_seeds_without_a_control_are_refused_and_a_variation_has_the_same_in_both():
    with pytest.raises(InputError, match="control_seeds of study 'two-models'"):
        replace(STUDY, control_seeds=(0,))
    assert studies.study(STUDY, seeds=[1]).control_seeds == (1,)
    one, two = (studies.study(STUDY, large=large) for large in ([], ["tiny", "tiny-wide"]))
    assert one.large == () and two.large == ("tiny", "tiny-wide")
    assert len({STUDY.name, one.name, two.name}) == 3


@pytest.mark.parametrize(
    ("study", "figure", "others"),
    [
        ("tiny", "models", "fig1"),
        ("scale", "fig3", "models, regressions"),
        ("methods", "fig2", "ladder"),
    ],
)
def test_a_figure_of_another_kind_of_study_is_refused_with_those_that_there_are(
    study, figure, others
):
    with pytest.raises(InputError, match=f"figure '{figure}' of study '{study}'.*{others}"):
        list(drawing.drawn(studies.study(study), [figure]))


def test_a_study_of_a_class_of_one_s_own_has_the_figures_of_its_kind():
    class Own(ScaleStudy):
        pass

    own = Own(**{f.name: getattr(STUDY, f.name) for f in fields(STUDY)})
    assert drawing._all(own) == ["models", "regressions"]


def test_a_variation_keeps_of_its_large_models_those_that_are_left():
    some = studies.study(STUDY, models=["tiny"])
    assert (some.large, some.large_tasks) == ((), ("tiny_city",))
    assert studies.study(STUDY, tasks=["tiny_review"]).large_tasks == ()


def test_the_named_study_asks_every_model_but_the_largest_about_every_task():
    study = studies.study("scale")
    (large,) = study.large
    asked = list(study.owned(study.seeds))
    for model in study.models:
        of = [task for m, task, _ in asked if m == model]
        assert of == list(study.large_tasks if model == large else study.tasks)


def test_it_runs_and_is_drawn_while_it_is_under_way(project, brief_probes):
    with pytest.raises(StudyError):
        list(drawing.drawn(STUDY, ["models"]))
    own = replace(STUDY, seeds=(0,), control_seeds=(0,), tasks=("tiny_city",), large=())
    run(own, "own")  # without a control there is nothing to draw
    with pytest.raises(StudyError):
        list(drawing.drawn(STUDY, ["models"]))
    part = replace(STUDY, seeds=(0,), control_seeds=(0,), tasks=("tiny_city",))
    run(part)
    assert len(load_results(part)) == 8
    written = {p.name for p in drawing.drawn(STUDY)}
    names = ("models", "more", "agreement", "regressions", "claims")
    endings = ("csv", "pdf", "png")
    assert written == {f"scale_{name}.{end}" for name in names for end in endings}
    table = (figures_dir(STUDY) / "scale_models.csv").read_text()
    assert {line.split(",")[0] for line in table.splitlines()[1:]} == {"tiny", "tiny-wide"}
