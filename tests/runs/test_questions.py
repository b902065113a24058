"""Questions that are stored beside results: those that were asked, without the task's data."""

import shutil
from pathlib import Path

import pytest
from helpers import in_place_of_tiny

import forgetlib
from forgetlib import studies
from forgetlib.data import splits, tasks
from forgetlib.files import StoreError
from forgetlib.runs import questions
from forgetlib.runs.grid import figures_dir, open_store
from forgetlib.runs.questions import keep_questions, load_questions

pytestmark = pytest.mark.usefixtures("brief_probes")
COMMITTED = Path(forgetlib.__file__).parent.parent / "figures"


@pytest.fixture
def stored(project, monkeypatch):
    """A study that is computed and packed, as if its task were of the embedded data."""
    chosen = in_place_of_tiny()
    monkeypatch.setattr(questions, "is_embedded", lambda task: True)
    monkeypatch.setitem(studies.STUDIES, "tiny", chosen)
    studies.run(chosen, progress=False)
    return chosen


def without_data(monkeypatch):
    def refused(*given):
        raise AssertionError("a task's data are read")

    monkeypatch.setattr(splits, "split", refused)


def test_a_study_stores_the_questions_that_it_asks(stored, monkeypatch):
    whole = splits.split("tiny_city", 0)
    without_data(monkeypatch)
    found = load_questions(stored, "tiny_city", 0)
    assert found.train == whole.train[: stored.n_train]
    assert found.test == whole.test[: stored.n_eval]
    assert (found.n_overlap, found.carved) == (whole.n_overlap, whole.carved)
    assert keep_questions(stored, open_store(stored)) == []
    fewer = studies.study(stored, n_train=7, n_eval=5)  # a variation takes its study's
    found = load_questions(fewer, "tiny_city", 0)
    assert (found.train, found.test) == (whole.train[:7], whole.test[:5])


def test_a_variation_that_asks_more_than_its_study_reads_the_data(stored, monkeypatch):
    more = studies.study(stored, n_eval=stored.n_eval + 1)  # of which nothing is stored
    found = load_questions(more, "tiny_city", 0)
    assert found.test == splits.split("tiny_city", 0).test[: stored.n_eval + 1]
    without_data(monkeypatch)
    with pytest.raises(AssertionError, match="data are read"):
        load_questions(more, "tiny_city", 0)


def test_a_study_that_is_under_way_adds_what_it_asks(project, monkeypatch):
    chosen = in_place_of_tiny()
    monkeypatch.setattr(questions, "is_embedded", lambda task: True)
    assert keep_questions(chosen, open_store(chosen)) == []  # nothing of it is there
    studies.run(chosen, progress=False)
    (path,) = (figures_dir(chosen) / "questions").iterdir()
    path.unlink()
    assert keep_questions(chosen, open_store(chosen)) == [path]


def test_questions_of_other_sources_are_read_where_they_are(project):
    """Those of functions, of files of one's own and of the hub: nothing is handed on."""
    chosen = in_place_of_tiny()
    before = load_questions(chosen, "tiny_city", 0)
    studies.run(chosen, progress=False)
    assert not (figures_dir(chosen) / "questions").exists()
    assert load_questions(chosen, "tiny_city", 0) == before
    assert len(before.train) == chosen.n_train and len(before.test) == chosen.n_eval
    of = {t for t in tasks.suite("embedded") if questions.is_embedded(t)}
    assert of == set(tasks.suite("embedded"))
    assert not any(map(questions.is_embedded, (*tasks.suite("tiny"), *tasks.suite("paper"))))


@pytest.mark.parametrize("damage", ["cut", "another format", "no question"])
def test_a_damaged_file_is_named(stored, damage):
    (path,) = (figures_dir(stored) / "questions").iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "another format":
        shutil.copy(next(open_store(stored).packed.glob("*.parquet")), path)
    else:
        split, sizes = questions._read(path)
        object.__setattr__(split.train[0], "label", 2)
        questions._write(path, split, sizes)
    with pytest.raises(StoreError, match=rf"questions .*{path.name}: expected a whole file"):
        load_questions(stored, "tiny_city", 0)


@pytest.mark.parametrize("name", ["quick", "embedded"])
def test_committed_questions_are_those_of_the_committed_results(name):
    study = studies.study(name)
    store = open_store(study)
    asked = questions.asked_of(study, store, study.tasks)
    assert set(asked) == {(task, seed) for task in study.tasks for seed in study.seeds}
    for (task, seed), of_parts in asked.items():
        found = load_questions(study, task, seed)
        for part, uids in of_parts.items():
            assert {e.uid for e in getattr(found, part)} == uids, (task, seed, part)


@pytest.mark.embedded
@pytest.mark.parametrize("name", ["quick", "embedded"])
def test_committed_questions_are_those_of_the_data(name):
    study = studies.study(name)
    for task in study.tasks:
        for seed in study.seeds:
            found, whole = load_questions(study, task, seed), splits.split(task, seed)
            assert found.train == whole.train[: study.n_train], (task, seed)
            assert found.test == whole.test[: study.n_eval], (task, seed)
            counts = whole.n_overlap, whole.carved, whole.n_left_out
            assert (found.n_overlap, found.carved, found.n_left_out) == counts
