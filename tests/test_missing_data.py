"""Studies some of whose tasks have no data here, or no training split."""

import shutil

import matplotlib.text
import pytest
from made_up import forget, sentences, write_cola

from forgetlib import studies
from forgetlib.data import sources
from forgetlib.figures import fig2, style
from forgetlib.forgetting.base import Training
from forgetlib.runs import results
from forgetlib.runs.grid import PROTOCOLS


def brief_study(name="tiny", **changes):
    """A few steps of the tiny model on CoLA, which the folder has, and on ToxiGen."""
    brief = Training(1e-3, epochs=1)
    given = {"tasks": ["cola_hub", "toxigen_hub"], "n_train": 8, "n_eval": 8, "sizes": []}
    given |= {"tuned": brief, "forgetting": brief, "models": ["tiny"]}
    return studies.study(name, **(given | changes))


@pytest.fixture
def cola(hub, project):
    write_cola(hub, train=sentences("t", 20), validation=sentences("v", 20))
    return hub


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_study_goes_on_without_missing_tasks_and_says_so(cola, protocol):
    study = brief_study(protocol=protocol)
    with pytest.warns(UserWarning, match=r"without 1 tasks:\n  toxigen_hub: data of skg/toxigen"):
        found = studies.run(study, progress=False)
    assert {t for r in found for t in r.checkpoint.tasks} == {"cola_hub"}
    assert results.data_note(study) == "Left out, no data: toxigen_hub"


def test_stored_tasks_are_drawn_where_their_data_are_missing(cola, monkeypatch):
    with pytest.warns(UserWarning, match="toxigen_hub"):
        computed = studies.run(brief_study(), progress=False)
    shutil.rmtree(cola / "nyu-mll")
    forget()
    again = studies.load_results(brief_study())
    assert [r.checkpoint for r in again] == [r.checkpoint for r in computed]


def test_a_study_of_which_no_task_has_data_is_an_error_with_each_reason(hub, project):
    with pytest.raises(
        sources.DataMissing, match=r"(?s)cola_hub: data of nyu.*toxigen_hub: data of"
    ):
        studies.run(brief_study(), progress=False)


def test_figures_name_the_tasks_that_are_left_out_and_those_that_are_carved(hub, project):
    write_cola(hub, validation=sentences("v", 40))
    study = brief_study()
    with pytest.warns(UserWarning):
        found = studies.run(study, "own", progress=False)
    table = fig2.table(found)
    figure = fig2.draw(table)
    style.save(figure, table, "fig2", study)
    note = "Left out, no data: toxigen_hub. Train and test carved from one split: cola_hub"
    drawn = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    assert note in " ".join(" ".join(drawn).split())


def test_tasks_without_splits_of_their_own_need_no_note(project):
    assert results.data_note(studies.study("quick")) == ""
