"""Jobs, the records that they give, and results as figures read them."""

from dataclasses import replace

import pytest
from synthetic import checkpoint_of, dynamics_of, family, probe_with, result_of, scores_with

from forgetlib.errors import InputError
from forgetlib.measuring.base import Loss
from forgetlib.runs.records import Job, Record, Result
from forgetlib.runs.specs import Checkpoint, Measurement

BASE = Checkpoint("tiny")
TUNED = checkpoint_of("t", "true", seed=2)
TEST, TRAIN = (Measurement("scores", "t", split, 8, seed=2) for split in ("test", "train"))
LOSS = Measurement("loss")


def test_a_job_has_an_id_that_the_order_of_what_is_asked_does_not_change():
    job = Job(TUNED, (LOSS, TEST, TRAIN))
    assert job.id == Job(TUNED, (TRAIN, LOSS, TEST)).id
    others = (Job(TUNED, (TEST, TRAIN)), Job(BASE, (LOSS, TEST, TRAIN)))
    assert len({job.id, *(j.id for j in others)}) == 3
    assert job.keys == tuple((TUNED.id, m.id) for m in (LOSS, TEST, TRAIN))
    assert job.only([TRAIN, LOSS]) == Job(TUNED, (LOSS, TRAIN))


def test_a_job_s_seed_is_that_of_its_questions():
    assert Job(BASE, (TEST,)).seed == Job(TUNED, (LOSS, TEST)).seed == 2
    assert Job(checkpoint_of("t", "true", seed=4), (LOSS,)).seed == 4


def test_a_job_says_what_it_is_about():
    assert str(Job(TUNED, (LOSS, TEST))) == "tiny seed 2 t:true"
    asked = (TEST, TRAIN, replace(TEST, task="u"))
    assert str(Job(BASE, asked)) == "tiny seed 2 t+u:base"


def test_a_job_asks_about_the_split_that_its_checkpoint_was_trained_with():
    """Of another, test questions may be in the training set."""
    other = replace(TEST, seed=3)
    said = r"trained with, 2, found 3\. Ask about the same split"
    for checkpoint in (TUNED, checkpoint_of("u", "random", start=TUNED, seed=2)):
        with pytest.raises(InputError, match=said):
            Job(checkpoint, (TEST, other))
    assert Job(BASE, (TEST, other)) and Job(TUNED, (replace(other, task="u"),))


@pytest.mark.parametrize(("asked", "found"), [((), []), ((LOSS, LOSS), ["loss", "loss"])])
def test_a_job_asks_for_something_and_for_each_once(asked, found):
    with pytest.raises(InputError) as error:
        Job(TUNED, asked)
    assert str(error.value) == (
        "job of tiny seed 2 t:true: expected at least one measurement, and every one once, found "
        f"{found}. Ask for something, or remove the duplicates."
    )


def test_a_record_is_read_when_it_is_first_asked_for():
    read = []

    def later():
        read.append(1)
        return scores_with("t", "test", 0.5, 8)

    record = Record(TUNED, TEST, later)
    assert record.key == (TUNED.id, TEST.id) and not read
    assert record.value is record.value and read == [1]
    assert Record(TUNED, TEST, record.value).value is record.value


def test_a_result_has_its_scores_by_set_of_questions_the_largest_of_each():
    few, many, seen = (scores_with("t", "test", a, n) for a, n in ((0.5, 4), (0.75, 8), (1, 8)))
    records = (
        Record(TUNED, TEST, many),
        Record(TUNED, replace(TEST, n=4), few),
        Record(TUNED, replace(TEST, view="upper"), seen),
        Record(TUNED, replace(TEST, task="u"), few),
    )
    result = Result(TUNED, 2, records)
    assert result.scores == {"t/test": many, "u/test": few}
    assert result.seen("upper") == {"t/test": seen} and result.seen("lower") == {}
    assert result.of("u").scores == {"u/test": few}


def test_a_result_has_what_was_measured_beside_scores_and_none_of_what_was_not():
    probe, variance = probe_with(0.7, n=8)
    found = {"probe": probe, "hidden_variance": variance, "loss": Loss(probe.control[:, 0])}
    found["dynamics"] = dynamics_of("t", [[0.5], [0.6]])
    whole = result_of(TUNED, {"t/test": scores_with("t", "test", 0.5, 8)}, **found)
    for name, value in found.items():
        assert getattr(whole, name) is value
        assert getattr(whole.of("t"), name) is value
        assert getattr(whole.of("u"), name) is (value if name == "loss" else None)
    bare = Result(TUNED, 2)
    assert [getattr(bare, name) for name in found] == [None] * 4
    assert bare.scores == {} and bare.provenances == ()


def test_a_result_names_each_job_that_its_records_are_of_once():
    (base, *_) = family("t", 0.5, 0.9, 0.6, n=8)
    one, other = {"date": "1"}, {"date": "2"}
    records = [replace(r, provenance=p) for r, p in zip(base.records, (one, other), strict=True)]
    both = Result(base.checkpoint, 0, (*records, replace(records[0], provenance=one)))
    assert both.provenances == (one, other)
