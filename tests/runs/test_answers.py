"""Answers that are stored where questions are not: enough to see what a model merely repeats."""

import pytest

from forgetlib import studies
from forgetlib.data import splits, tasks
from forgetlib.data.sources import DataMissing
from forgetlib.files import StoreError
from forgetlib.runs import answers, questions
from forgetlib.runs.answers import keep_answers, load_answers
from forgetlib.runs.grid import figures_dir, open_store

pytestmark = pytest.mark.usefixtures("brief_probes")


@pytest.fixture
def stored(project, monkeypatch):
    """A small study of a task with free and one with fixed answers, computed and packed."""
    chosen = studies.study("tiny", tasks=["tiny_city", "tiny_review"], n_train=8, n_eval=8)
    object.__setattr__(chosen, "named", "")  # packs of its own
    object.__setattr__(chosen, "models", ("tiny",))
    studies.run(chosen, "own", progress=False)
    return chosen


def refuse_data(monkeypatch):
    def refused(*given):
        raise AssertionError("a task's data are read")

    monkeypatch.setattr(splits, "split", refused)


def test_fixed_answers_are_stored_and_read_without_the_data(stored, monkeypatch):
    whole = splits.split("tiny_review", 0)
    expected = answers.of(whole.train[:8] + whole.test[:8])
    (path,) = (figures_dir(stored) / "answers").iterdir()
    assert path.name == "tiny_review-0.parquet"
    assert keep_answers(stored, open_store(stored)) == []  # nothing is asked beyond them
    refuse_data(monkeypatch)
    assert load_answers(stored, "tiny_review", 0) == expected
    assert len({true for true, _ in expected.values()}) == 2  # of so many questions


def test_other_tasks_answers_are_those_of_their_questions(stored):
    whole = splits.split("tiny_city", 0)
    found = load_answers(stored, "tiny_city", 0)
    example = whole.test[0]
    expected = example.choices[example.label], example.choices[1 - example.label]
    assert found[example.uid] == expected


@pytest.mark.parametrize("embedded", [False, True])
def test_answers_of_tasks_that_are_asked_elsewhere_are_stored_too(project, monkeypatch, embedded):
    """Also where more of their questions are asked than of a task that is trained on.

    The questions of an embedded task are stored where it is trained on, and not of one elsewhere.
    """
    monkeypatch.setattr(questions, "is_embedded", lambda task: embedded)
    changes = {"tasks": ["tiny_city"], "elsewhere": ["tiny_review"], "n_train": 8, "n_eval": 8}
    chosen = studies.study("tiny", **changes, n_elsewhere=12)
    object.__setattr__(chosen, "named", "")
    object.__setattr__(chosen, "models", ("tiny",))
    expected = answers.of(splits.split("tiny_review", 0).test[:12])
    assert expected.items() <= load_answers(chosen, "tiny_review", 0).items()
    studies.run(chosen, "own", progress=False)
    (path,) = (figures_dir(chosen) / "answers").iterdir()
    assert path.name == "tiny_review-0.parquet"
    refuse_data(monkeypatch)
    assert load_answers(chosen, "tiny_review", 0) == expected


def test_answers_that_were_corrected_since_are_stored_anew(stored):
    (path,) = (figures_dir(stored) / "answers").iterdir()
    right = answers._read(path)
    answers._write(path, {uid: (distractor, true) for uid, (true, distractor) in right.items()})
    assert keep_answers(stored, open_store(stored)) == [path]
    assert answers._read(path) == right


def test_answers_stay_where_the_data_are_not_and_nothing_more_is_asked(stored, monkeypatch):
    def missing(*given):
        raise DataMissing("data of a task", expected="some", found="none", do="Get them.")

    monkeypatch.setattr(splits, "split", missing)
    assert keep_answers(stored, open_store(stored)) == []
    (path,) = (figures_dir(stored) / "answers").iterdir()
    path.unlink()
    with pytest.raises(DataMissing):
        keep_answers(stored, open_store(stored))


def test_a_damaged_file_is_named(stored):
    (path,) = (figures_dir(stored) / "answers").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=rf"answers .*{path.name}: expected a whole file"):
        load_answers(stored, "tiny_review", 0)


def test_the_papers_suite_has_the_answers_of_every_task_with_fixed_ones(monkeypatch):
    """Its data are not in the repository, and drawing needs none."""
    refuse_data(monkeypatch)
    study = studies.study("paper-suite-270m")
    store = open_store(study, any_content=True)
    asked = {
        (m.task, m.seed, store.read(c, m).value.uids)
        for c, m, _ in store.sources()
        if m.readout == "scores" and tasks.get(m.task).has_fixed_answers
    }
    assert len({task for task, *_ in asked}) == 10
    for task, seed, uids in asked:
        assert set(uids) <= load_answers(study, task, seed).keys()
