"""The command draws what the notebooks do: the committed tables of a study, for each picture."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import small
from matplotlib.figure import Figure

import forgetlib
from forgetlib import studies
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.figures import drawing
from forgetlib.runs import local, results
from forgetlib.runs.bench import StudyError
from forgetlib.runs.grid import open_store

COMMITTED = Path(forgetlib.__file__).parent.parent / "figures"


def test_the_tables_that_are_drawn_are_the_committed_ones(tmp_path, monkeypatch):
    """From what is committed alone: no task's data are read."""
    for folder in ("quick/results", "quick/questions"):
        shutil.copytree(COMMITTED / folder, tmp_path / "figures" / folder)
    monkeypatch.setattr(splits, "split", lambda task, seed: pytest.fail(f"data of {task} read"))
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))
    # The notebooks' tests render the pictures.
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).touch())
    written = list(drawing.drawn(studies.study("quick")))
    names = {path.name for path in written}
    files = {p.name for p in (COMMITTED / "quick").iterdir() if p.is_file()}
    assert names == files - {"README.md"}
    for path in written:
        if path.suffix == ".csv":
            assert path.read_text() == (COMMITTED / "quick" / path.name).read_text(), path.name


def test_a_figure_of_another_name_is_refused():
    with pytest.raises(InputError, match=r"figure: expected one of fig1, .*, found 'fig10'"):
        list(drawing.drawn(studies.study("quick"), ["fig10"]))


@pytest.mark.usefixtures("brief_probes")
def test_of_a_study_under_way_the_tasks_that_are_complete_are_drawn(project):
    settings = {"seeds": (0, 1), "control_seeds": (0, 1), "sizes": ()}
    more = {"more_seeds": (2,), "more_seeds_tasks": ("tiny_city", "tiny_review")}
    study = replace(small(**settings), **more)
    store = open_store(study)
    own = [*study.jobs("own"), *study.jobs("control")]

    def compute(task, *seeds):
        local.compute([j for j in own if j.seed in seeds and f"{task}-" in study.block(j)], store)

    compute("tiny_review", 0)
    with pytest.raises(StudyError, match="of own to be stored"):
        list(drawing.drawn(study, ["fig2b"]))
    compute("tiny_city", 0, 1)
    part = results.complete_part(study, ("own", "control"))
    assert (part.tasks, part.more_seeds_tasks) == (("tiny_city",), ())
    drawn = {name: (figure, data) for name, figure, data in drawing.FIGURES["fig2b"](study)}
    drawn |= {name: (figure, data) for name, figure, data in drawing.FIGURES["fig2"](study)}
    assert set(drawn) == {"fig2b_skill", "fig2_forget_gap", "fig2_control"}
    for figure, data in drawn.values():
        assert set(data["eval_task"]) == {"tiny_city"}
        assert " ".join(figure.get_suptitle().split()).endswith("(under way: 1 of 2 tasks)")
    with pytest.raises(StudyError):  # a matrix of all pairs has no part
        list(drawing.drawn(study, ["fig3"]))
    compute("tiny_review", 1)
    compute("tiny_city", 2)
    part = results.complete_part(study, ("own", "control"))
    assert (part.tasks, part.more_seeds_tasks) == (study.tasks, ("tiny_city",))
    compute("tiny_review", 2)
    ((_, figure, _),) = drawing.FIGURES["fig2b"](study)
    assert "under way" not in figure.get_suptitle()


@pytest.mark.usefixtures("brief_probes")
def test_while_a_study_is_under_way_other_tasks_pre_trained_results_are_used(project):
    """What fine-tuning alone did to a task is told once its pre-trained model was asked it."""
    study = small(sizes=(), control_seeds=(0,), elsewhere=("tiny_review",), n_elsewhere=10)
    store = open_store(study)
    own = [*study.jobs("own"), *study.jobs("control")]
    local.compute([j for j in own if "tiny_city-" in study.block(j)], store)

    def taught():
        ((_, _, table),) = drawing.FIGURES["fig2b"](study)
        assert set(table["eval_task"]) == {"tiny_city"}
        return table.set_index("phase").loc["tuned", "nll_taught"]

    assert np.isnan(taught())
    of_others = [j for j in own if "tiny_review-" in study.block(j)]
    local.compute([j for j in of_others if j.checkpoint.method is None], store)
    assert np.isfinite(taught())
