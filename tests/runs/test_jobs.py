"""Jobs: bringing a model to a checkpoint, and measuring what is not known of it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from helpers import same_records, same_values, small

from forgetlib import metrics
from forgetlib.data import splits, views
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.ascent import GradientAscent
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.dose import Dose, set_auroc
from forgetlib.forgetting.labels import Labels, shuffled
from forgetlib.measuring import scoring
from forgetlib.measuring.base import Column, Loss, Readout, Scores
from forgetlib.models import loading
from forgetlib.runs import jobs, local, verify
from forgetlib.runs.bench import Bench
from forgetlib.runs.grid import open_store
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Checkpoint, Measurement
from forgetlib.studies import load_results, run, study

BRIEF = Training(3e-3, epochs=1)


@pytest.fixture(autouse=True)
def _apart(project, brief_probes, own_names):
    """A project folder of their own, and names that go with the test."""


@pytest.fixture(scope="module")
def of_one_task():
    """The three jobs of a task's base, tuned and forgotten model."""
    brief = {"tuned": BRIEF, "forgetting": BRIEF, "n_train": 12, "n_eval": 12}
    return small(tasks=("tiny_city",), **brief).jobs("own")


@pytest.fixture
def trainings(monkeypatch):
    """The methods that are applied, in order."""
    done, apply = [], loop.apply
    monkeypatch.setattr(
        loop, "apply", lambda lm, m, *a: done.append(m.describe()) or apply(lm, m, *a)
    )
    return done


def by_name(records):
    return {str(r.measurement): r.value for r in records}


# --- a job alone ----------------------------------------------------------------------------------


def test_recording_and_probing_do_not_change_what_is_trained():
    """What is measured on the way leaves no trace in the weights: figures never train twice."""
    forgotten = small(tasks=("tiny_city",)).jobs("own")[2]
    bare = forgotten.only(m for m in forgotten.measurements if m.readout in ("scores", "loss"))
    one, other = by_name(jobs.run(forgotten)), by_name(jobs.run(bare))
    assert one.keys() - other.keys() == {
        "dynamics tiny_city/train",
        "probe tiny_city/test",
        "hidden_variance tiny_city/test",
    }
    for name, value in other.items():
        (column,) = ["log_likelihoods" if isinstance(value, Scores) else "loss"]
        assert (getattr(value, column) == getattr(one[name], column)).all()
    dynamics = one["dynamics tiny_city/train"]
    assert dynamics.steps.tolist() == [0, 4, 9]
    # The last record is the trained model's, as scored for the forgetting set.
    expected = metrics.confidence(one["scores tiny_city/train"])
    assert dynamics.confidence[-1] == pytest.approx(expected, abs=1e-6)
    assert len(one["loss"].loss) == 9


def test_a_job_on_several_tasks_trains_and_scores_them_all():
    chosen = small(protocol="shared")
    shared = next(j for j in chosen.jobs("cross") if j.checkpoint.start is None)
    found = by_name(jobs.run(shared))
    lengths = {name: len(v) for name, v in found.items() if isinstance(v, Scores)}
    assert lengths == {f"scores {task}/test": 24 for task in chosen.tasks}
    assert len(found["loss"].loss) == 3 * 48 / 8


def test_the_model_of_a_job_is_the_one_that_its_scores_came_from():
    chosen = small(tasks=["tiny_city"])
    for result in run(chosen, "own", progress=False):
        examples = splits.load("tiny_city", "test", chosen.n_eval, result.seed)
        again = scoring.score(jobs.trained(result.checkpoint), examples)
        stored = result.scores["tiny_city/test"]
        assert again.log_likelihoods.tolist() == stored.log_likelihoods.tolist()


def test_a_base_model_is_neither_trained_nor_scored_again_to_add_a_measurement(monkeypatch):
    base, *_ = small(tasks=("tiny_city",)).jobs("own")
    whole = jobs.run(base)
    known = {r.measurement: r.value for r in whole if r.measurement.readout == "scores"}
    monkeypatch.setattr(scoring, "score", lambda *a: pytest.fail("scored again"))
    monkeypatch.setattr(Bench, "make", lambda *a: pytest.fail("trained"))
    rest = jobs.run(base, None, jobs.ignore_progress, known)
    assert {r.measurement.readout for r in rest} == {"probe", "hidden_variance"}


def test_questions_of_another_seed_are_measured_too():
    """Of the base model: it has none of its own, and belongs to every split."""
    base, *_ = small(tasks=("tiny_city",)).jobs("own")
    asked = tuple(Measurement("scores", "tiny_city", "test", 24, seed) for seed in (0, 1))
    one, other = jobs.run(replace(base, measurements=asked))
    for record, seed in ((one, 0), (other, 1)):
        expected = [e.uid for e in splits.load("tiny_city", "test", 24, seed)]
        assert list(record.value.uids) == expected
    assert one.value.uids != other.value.uids


def test_what_a_job_costs_is_what_the_bar_counts():
    """But for what is scored already: the last record is the forgetting set's scores."""
    for job in small(tasks=("tiny_city",)).jobs():
        counted = []
        jobs.run(job, Bench(), lambda what, n: counted.append((what, n)))  # noqa: B023
        own = [n for what, n in counted if "again" not in what]
        assert 0.5 * jobs.cost(job) <= sum(own) <= 1.2 * jobs.cost(job)


# --- what is known already -----------------------------------------------------------------------


def measured_with(job, stored, bench=None):
    """What a job gives beside what is stored of it."""
    return jobs.run(job, bench or Bench(), stored=stored)


@pytest.mark.parametrize("known", ["scores tiny_city/test", "scores tiny_city/train"])
def test_more_is_measured_of_a_checkpoint_that_comes_out_as_it_did(of_one_task, trainings, known):
    job = of_one_task[1]
    whole = jobs.run(job)
    stored = {r.measurement: r.value for r in whole if str(r.measurement) == known}
    trainings.clear()
    more = measured_with(job, stored)
    assert trainings == ["true"]
    assert {str(r.measurement) for r in more} == {str(m) for m in job.measurements} - {known}
    assert same_records(more, [r for r in whole if str(r.measurement) != known])


def test_all_of_a_checkpoint_that_comes_out_otherwise_is_measured_anew(of_one_task, trainings):
    job = of_one_task[1]
    whole = jobs.run(job)
    (scores,) = [r for r in whole if str(r.measurement) == "scores tiny_city/test"]
    moved = np.nextafter(scores.value.log_likelihoods, np.float32(0))  # by the last bit
    trainings.clear()
    with pytest.warns(UserWarning, match="trained again, does not score as it did"):
        more = measured_with(
            job, {scores.measurement: replace(scores.value, log_likelihoods=moved)}
        )
    assert same_records(more, whole) and len(more) == len(job.measurements)
    assert trainings == ["true"] * 2


def test_what_needs_no_training_is_measured_of_kept_weights_without_a_look_at_the_rest(
    of_one_task, trainings
):
    _, tuned, _ = of_one_task
    bench = Bench()
    whole = jobs.run(tuned, bench)
    trainings.clear()
    kept = {r.measurement: r.value for r in whole if r.measurement.readout != "scores"}
    more = measured_with(tuned, kept, bench)
    assert trainings == [] and {r.measurement.readout for r in more} == {"scores"}
    assert same_records(more, [r for r in whole if r.measurement.readout == "scores"])


def test_a_job_of_which_all_is_known_loads_no_model(of_one_task, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *a, **k: pytest.fail("loaded"))
    known = {m: Loss(np.zeros(0, np.float32)) for m in of_one_task[1].measurements}
    assert jobs.run(of_one_task[1], stored=known) == []


def test_a_study_that_asks_for_more_keeps_what_is_stored(trainings):
    """The rest of it is measured of the same weights, made again."""
    brief = {"tuned": BRIEF, "forgetting": BRIEF, "n_train": 12, "n_eval": 12, "sizes": ()}
    named = small(tasks=("tiny_city",), records=0, **brief)
    first = run(named, "own", progress=False)
    packed = {p: p.read_bytes() for p in (open_store(named).work / "results").iterdir()}
    trainings.clear()
    more = replace(named, records=2)  # in the same folders
    again = run(more, "own", progress=False)
    assert trainings == ["true", "random"]
    for before, now in zip(first, again, strict=True):
        was = {r.key: r for r in before.records}
        assert was.keys() <= {r.key for r in now.records}
        for record in now.records:
            if record.key in was:
                assert record.provenance == was[record.key].provenance
                assert same_values(record.value, was[record.key].value)
    assert [r.dynamics is not None for r in again] == [False, True, True]
    assert all(p.read_bytes() == content for p, content in packed.items())


# --- dynamics ------------------------------------------------------------------------------------


def test_the_first_record_is_the_start_s_scores_and_equals_scoring_again_to_the_bit(
    of_one_task, monkeypatch
):
    base, tuned, forgotten = of_one_task
    asked, score = [], scoring.score
    monkeypatch.setattr(
        scoring, "score", lambda lm, e, *a: asked.append(e[0].uid) or score(lm, e, *a)
    )

    def scored(job, bench):
        asked.clear()
        return by_name(jobs.run(job, bench)), len(asked)

    bench = Bench()
    before, n_base = scored(base, bench)
    first, n_tuned = scored(tuned, bench)
    second, n_forgotten = scored(forgotten, bench)
    alone, n_alone = scored(forgotten, Bench())
    # Test and training set; of a training one record amid it and one at its end, which is the
    # training set's scores.
    assert (n_base, n_tuned, n_forgotten) == (2, 3, 3)
    assert n_alone == 4  # and one of the start, of which nobody remembers scores
    for found, start in ((first, before), (second, first)):
        at_start = metrics.confidence(start["scores tiny_city/train"]).astype(np.float32)
        at_end = metrics.confidence(found["scores tiny_city/train"]).astype(np.float32)
        dynamics = found["dynamics tiny_city/train"]
        assert dynamics.steps.tolist() == [0, 1, 2]
        assert np.array_equal(dynamics.confidence[0], at_start)
        assert np.array_equal(dynamics.confidence[-1], at_end)
    for name, value in alone.items():
        assert same_values(value, second[name]), name


def test_remembered_scores_of_another_model_are_not_the_first_record(of_one_task):
    base, tuned, _ = of_one_task
    other = Job(replace(tuned.checkpoint, model="tiny-wide"), tuned.measurements)
    bench = Bench()
    jobs.run(base, bench)
    found, alone = (
        by_name(jobs.run(other, b))["dynamics tiny_city/train"] for b in (bench, Bench())
    )
    assert same_values(found, alone)


def test_two_sets_of_a_split_are_told_apart_in_the_provenance(of_one_task):
    base, *_ = of_one_task
    (first, *_) = base.measurements
    two = (first, replace(first, n=5))
    (record, _) = jobs.run(Job(base.checkpoint, two))
    assert record.provenance["sets"] == [f"{first.where} (12)", f"{first.where} (5)"]
    (alone,) = jobs.run(Job(base.checkpoint, (first,)))
    assert alone.provenance["sets"] == [first.where]


def test_remembered_scores_of_other_questions_are_not_the_first_record(of_one_task):
    _, tuned, forgotten = of_one_task
    few = replace(forgotten.measurements[1], n=5)
    assert few.readout == "dynamics"
    job = Job(forgotten.checkpoint, (few, *forgotten.measurements[2:4]))
    bench = Bench()
    jobs.run(tuned, bench)
    dynamics = by_name(jobs.run(job, bench))["dynamics tiny_city/train"]
    assert dynamics.confidence.shape == (3, 5)
    whole = by_name(jobs.run(forgotten, Bench()))["dynamics tiny_city/train"]
    assert dynamics.uids == whole.uids[:5]
    assert dynamics.confidence == pytest.approx(whole.confidence[:, :5], abs=1e-5)


def test_a_training_is_recorded_in_several_ways_at_once(of_one_task):
    job = of_one_task[1]
    dynamics = job.measurements[1]
    once = replace(dynamics, settings={"records": 1})
    elsewhere = Measurement("scores_in_training", "tiny_review", "test", 5, settings={"every": 2})
    asked = (dynamics, once, elsewhere, *job.measurements[2:])
    found = {r.measurement: r.value for r in jobs.run(Job(job.checkpoint, asked))}
    alone = by_name(jobs.run(job, Bench()))
    assert same_values(found[dynamics], alone[str(dynamics)])
    assert (found[once].confidence == found[dynamics].confidence[[0, -1]]).all()
    n_steps = job.checkpoint.method.settings().n_steps(12)
    recorded = found[elsewhere]
    assert recorded.steps.tolist() == [*range(0, n_steps, 2), n_steps]
    models = loading.load("tiny", dtype="float32"), jobs.trained(job.checkpoint)
    for lm, scores in zip(models, (recorded.scores[0], recorded.scores[-1]), strict=True):
        again = scoring.score(lm, splits.load("tiny_review", "test", 5, 0))
        assert scores.uids == again.uids
        assert scores.log_likelihoods == pytest.approx(again.log_likelihoods, abs=1e-5)


def test_questions_are_asked_every_so_many_steps_and_not_every_none(of_one_task):
    job = of_one_task[1]
    asked = Measurement("scores_in_training", "tiny_city", "test", 5, settings={"every": 0})
    with pytest.raises(InputError, match=r"setting 'every' of .*from 1, found 0"):
        jobs.run(Job(job.checkpoint, (asked,)))
    with pytest.raises(InputError, match=r"setting 'every' of .*from 1, found 0"):
        jobs.cost(Job(job.checkpoint, (asked,)))


def test_what_is_asked_in_training_is_shown_as_it_is(of_one_task):
    job = of_one_task[1]
    asked = Measurement("scores_in_training", "tiny_city", "test", 5, view="upper")
    with pytest.raises(InputError, match=r"view of scores_in_training .*expected 'plain'"):
        jobs.run(Job(job.checkpoint, (asked,)))


def test_dynamics_of_what_is_not_trained_are_refused(of_one_task):
    asked = of_one_task[1].measurements[1]
    with pytest.raises(InputError, match=r"dynamics of tiny base: expected a checkpoint that is"):
        jobs.run(Job(Checkpoint("tiny", dtype="float32"), (asked,)))


def test_a_dose_s_curve_is_kept_and_needs_a_dose(of_one_task):
    tuned = of_one_task[1].checkpoint
    until = replace(BRIEF, epochs=3, until=Dose(0.6, checks=2, every=1))
    job = Job(replace(tuned, method=GradientAscent(until), start=tuned), (Measurement("dose"),))
    (record,) = jobs.run(job)
    curve = record.value
    assert curve.steps.tolist() == list(range(len(curve.steps)))
    examples = splits.load("tiny_city", "train", 12, 0)
    lm = jobs.trained(tuned)
    assert curve.auroc[0] == pytest.approx(set_auroc(lm, examples))
    lm = jobs.trained(job.checkpoint)
    assert curve.auroc[-1] == pytest.approx(set_auroc(lm, examples))
    with pytest.raises(InputError, match=r"dose of .* trained until a dose, found one that"):
        jobs.run(Job(tuned, (Measurement("dose"),)))


# --- which questions a checkpoint is made of -----------------------------------------------------


def given(checkpoint):
    return Bench().context(checkpoint).examples


def test_questions_that_others_are_trained_on_are_skipped(of_one_task):
    tuned = of_one_task[1].checkpoint
    rest = replace(tuned, data=replace(tuned.data, n=5, skip=12))
    assert list(given(rest)) == splits.load("tiny_city", "train", 17, 0)[12:]
    none = replace(tuned, data=replace(tuned.data, skip=10_000))
    with pytest.raises(InputError, match=r"some after the first 10000, which others .*, found 226"):
        jobs.run(Job(none, (Measurement("loss"),)))


def test_shuffled_labels_are_one_draw_for_teaching_and_forgetting(of_one_task):
    """The oracle is taught, and made to forget, the same labels, which carry no skill."""
    tuned = of_one_task[1].checkpoint
    plain = given(tuned)
    data = replace(tuned.data, shuffled=True)
    taught = given(replace(tuned, data=data))
    forgotten = given(replace(tuned, data=data, method=Labels("flipped", BRIEF)))
    assert taught == forgotten
    assert [replace(e, label=0) for e in taught] == [replace(e, label=0) for e in plain]
    same = np.mean([a.label == b.label for a, b in zip(taught, plain, strict=True)])
    assert 0.1 < same < 0.9
    other = given(replace(tuned, data=replace(data, seed=0), seed=5))
    assert [e.label for e in other] != [e.label for e in taught]


def test_half_of_many_shuffled_labels_are_the_true_ones():
    examples = splits.load("sst2_nonce", "train", 1000, 0)
    drawn = shuffled(examples, 3)
    same = [a.label == b.label for a, b in zip(examples, drawn, strict=True)]
    assert abs(np.mean(same) - 0.5) < 3 * np.sqrt(0.25 / len(examples))


# --- one's own readouts, views and methods -------------------------------------------------------


def with_lengths():
    @dataclass(frozen=True)
    class Lengths(Readout, name="lengths"):
        """How long questions are, and how many there are."""

        columns: ClassVar = {
            "tokens": Column(pa.list_(pa.int32()), "(N,) tokens of each prompt"),
            "model": Column(pa.string(), "whose tokens"),
        }
        tokens: np.ndarray
        model: str

        @classmethod
        def measure(cls, asked):
            n = [len(asked.lm.tokens(e.prompts[0])) for e in asked.questions()]
            return cls(np.array(n, np.int32), asked.lm.name)

    class Twice(views.View, name="twice"):
        """Ask everything twice."""

        def shown(self, example):
            return views.with_texts(example, lambda text: f"{text} {text}", choices=False)

    return Lengths


def test_a_readout_and_a_view_of_one_s_own_are_measured_stored_and_read(monkeypatch):
    kind = with_lengths()
    brief = {"tuned": BRIEF, "forgetting": BRIEF, "n_train": 12, "n_eval": 12, "sizes": ()}
    chosen = study(
        "tiny", tasks=["tiny_city"], models=["tiny"], readouts=["lengths"], views=["twice"], **brief
    )
    run(chosen, "own", progress=False)
    monkeypatch.setattr(local, "run", lambda *a: pytest.fail("computed again"))
    run(chosen, "own", progress=False)
    questions = splits.load("tiny_city", "test", 12, 0)
    lm = loading.load("tiny", dtype="float32")
    expected = [len(lm.tokens(e.prompts[0])) for e in questions]
    for result in load_results(chosen, "own"):
        (found,) = [r for r in result.records if r.measurement.readout == "lengths"]
        assert isinstance(found.value, kind) and found.value.model == "tiny"
        assert found.value.tokens.dtype == np.int32 and found.value.tokens.tolist() == expected
        plain, seen = (result.seen(view)["tiny_city/test"] for view in ("plain", "twice"))
        assert seen.uids == plain.uids == tuple(e.uid for e in questions)
        assert (seen.log_likelihoods != plain.log_likelihoods).any()
        assert set(result.scores) == {"tiny_city/test", "tiny_city/train"}
        about = found.provenance["content"]["code"]
        assert set(about) == {"readout lengths", "view twice"}
    base = load_results(chosen, "own")[0]
    again = scoring.score(lm, views.apply("twice", questions))
    assert same_values(base.seen("twice")["tiny_city/test"], again)
    assert verify.verify(chosen, 1)["ok"].all()


def test_what_is_measured_of_a_base_model_is_not_of_a_training(of_one_task):
    loss = Measurement("loss")
    with pytest.raises(InputError, match="expected a checkpoint that is trained"):
        jobs.run(Job(of_one_task[0].checkpoint, (loss, *of_one_task[0].measurements)))
