"""What is explored is what is stored: cases, numbers and questions; and the widgets show them."""

from functools import partial

import pandas as pd
import pytest
from helpers import MINE
from tables import stored_case

from forgetlib import metrics, studies
from forgetlib.errors import InputError
from forgetlib.figures import fig2b
from forgetlib.figures.explore import (
    controls as explore_controls,
    explore,
    picture as explore_picture,
)
from forgetlib.figures.explore.explore import Stored, sample_of
from forgetlib.runs.results import load_results, run

TASKS = studies.study("tiny").tasks
OWN = "random labels"


@pytest.fixture
def tiny(tiny_root, monkeypatch):
    """The whole study `tiny`, whose pairs have a shared start."""
    monkeypatch.setenv("FORGETLIB_ROOT", str(tiny_root))
    return studies.study("tiny")


def test_what_is_stored_is_offered(tiny):
    assert explore.there() == ["tiny"]
    stored = Stored("tiny")
    assert stored.models() == ["tiny", "tiny-wide"]
    assert sorted(stored.tasks("tiny")) == sorted(TASKS)
    found = stored.methods("tiny", "tiny_city")
    own = {OWN, "random labels, taught 4 tasks", "random labels, 30 questions", "true labels"}
    assert own < set(found) and found[0] == OWN
    assert "flipped labels of tiny_review, taught 4 tasks" in found


def test_a_folder_of_tables_of_another_kind_is_no_study(tmp_path, monkeypatch):
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))
    results = tmp_path / "figures" / "world" / "results"
    results.mkdir(parents=True)
    pd.DataFrame({"loss": [1.0]}).to_parquet(results / "seed0.parquet")
    assert explore.there() == []
    # Of what cannot be read something is said, and not that it is not there.
    (results / "seed1.parquet").write_bytes(b"torn")
    assert explore.there() == ["world"]


@pytest.mark.parametrize("task", ["tiny_city", "tiny_review"])
def test_the_numbers_are_those_of_figure_2b(tiny, task):
    table = fig2b.table(load_results(tiny, "own"), partial(studies.load_answers, tiny))
    found = explore.table(Stored("tiny").case("tiny", task, OWN))
    found = found.set_index(["part", "measure"])
    for phase, name in (("base", "base"), ("tuned", "tuned"), ("random", "forgotten")):
        (row,) = table[(table["eval_task"] == task) & (table["phase"] == phase)].to_dict("records")
        for column in ("accuracy", "auroc", "confidence"):
            for end in ("", "_low", "_high"):
                value = found.loc[("new questions", column), f"{name}{end}"]
                assert value == pytest.approx(row[f"{column}{end}"], nan_ok=True)
        set_auroc = found.loc[("forgetting set", "auroc"), name]
        assert set_auroc == pytest.approx(row["set_auroc"])
    before, after, change = (found[c] for c in ("tuned", "forgotten", "change"))
    assert change.to_numpy() == pytest.approx((after - before).to_numpy())


def test_every_question_has_its_confidence_its_text_and_its_label(tiny):
    case = Stored("tiny").case("tiny", "tiny_city", OWN)
    table = explore.questions(case).set_index("uid")
    (runs,) = case.seeds
    for phase, result in runs.items():
        for where in ("tiny_city/test", "tiny_city/train"):
            scores = result.scores[where]
            found = table.loc[list(scores.uids), phase].to_numpy()
            assert found == pytest.approx(metrics.confidence(scores))
    assert set(table.loc[table["part"] == "new questions", "label"]) == {""}
    assert set(table.loc[table["part"] == "forgetting set", "label"]) == {"true", "distractor"}
    row = table.reset_index().iloc[0]
    shown = repr(explore_picture.card(case, row))
    text = case.texts[0][row["uid"]]
    for part in (row["uid"], text.choices[0], text.choices[1], "trained towards"):
        assert part in shown


def test_of_another_task_s_labels_the_set_that_was_trained_on_is_not_asked(tiny):
    case = Stored("tiny").case("tiny", "tiny_city", "random labels of tiny_review, taught 4 tasks")
    table, questions = explore.table(case), explore.questions(case)
    assert set(questions["part"]) == {"new questions"} and set(questions["label"]) == {""}
    assert table.loc[table["part"] == "forgetting set", "change"].isna().all()
    explore_picture.draw(questions, table)


def test_a_smaller_set_is_compared_on_its_own_questions(tiny):
    case = Stored("tiny").case("tiny", "tiny_city", "random labels, 30 questions")
    assert (explore.questions(case)["part"] == "forgetting set").sum() == 30


def test_fates_are_what_their_names_say():
    questions, _ = stored_case(40)
    before, after = questions["tuned"] > 0.5, questions["forgotten"] > 0.5
    rights = {"lost": (1, 0), "kept": (1, 1), "gained": (0, 1), "never right": (0, 0)}
    found = explore.fates(questions)
    for fate, (was, now) in rights.items():
        assert ((found == fate) == ((before == was) & (after == now))).all()
        of = sample_of(questions, fate=fate, part="new questions")
        assert len(of) == ((found == fate) & (questions["part"] == "new questions")).sum()
        assert of["change"].is_monotonic_increasing


def test_a_study_of_one_s_own_is_there_with_its_file_and_without(project, brief_probes, own_names):
    path = project / "mine.py"
    path.write_text(MINE)
    run(studies.resolve(str(path)), "methods", progress=False)
    assert explore.there() == ["mine"]
    with_file = Stored(str(path))
    assert with_file.methods("tiny", "odd")[-1] == "shrink (factor=0.5)"
    case = with_file.case("tiny", "odd", "shrink (factor=0.5)")
    assert case.texts[0] and case.answers[0]
    from forgetlib.data import tasks

    del tasks._TASKS["odd"]  # as in another process, which has not run the file
    case = Stored("mine").case("tiny", "odd", "random labels")
    assert explore.table(case)["base"].notna().all()
    card = explore_picture.card(case, explore.questions(case).iloc[0])
    assert "not stored with the results" in repr(card) and "not stored" in card._repr_html_()


def test_what_is_not_there_is_refused_with_what_there_is(tiny):
    with pytest.raises(InputError, match="tiny"):
        Stored("gentle")
    with pytest.raises(InputError, match="tiny_review"):
        Stored("tiny").case("tiny", "sst2", "random labels")


def test_the_widgets_show_what_is_chosen(tiny):
    panel = explore_controls.panel("tiny", "tiny_review")
    assert panel.task.value == "tiny_review" and panel.method.value == OWN
    seen = [panel.picture.value]
    for control, value in (
        (panel.number, 1),
        (panel.task, "tiny_city"),
        (panel.method, "true labels"),
        (panel.phase, list(explore.STEPS)[1]),
        (panel.part, "forgetting set"),
    ):
        control.value = value
        assert panel.picture.value.startswith("<img") and "confidence" in panel.card.value
        assert panel.picture.value not in seen
        seen.append(panel.picture.value)
    # What was chosen stays where it is there, too.
    assert panel.method.value == "true labels"
    panel.task.value = "tiny_review"
    assert panel.method.value == "true labels"


def test_the_widgets_say_where_there_is_no_such_question(tiny):
    panel = explore_controls.panel("tiny", "tiny_city")
    counts = {}
    for fate in explore.FATES:
        panel.fate.value = fate
        counts[fate] = 0 if "no such question" in panel.card.value else panel.number.max + 1
    assert sum(counts.values()) == 120 and panel.picture.value.startswith("<img")
