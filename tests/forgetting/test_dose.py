"""The rule that stops a training: at the second check in a row at which AUROC is near chance."""

from dataclasses import replace

import numpy as np
import pytest

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.ascent import GradientAscent
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.dose import Check, Dose, set_auroc
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.uniform import UniformChoice
from forgetlib.measuring.scoring import score
from forgetlib.models import loading
from forgetlib.runs.specs import Checkpoint, Data

RATE = {"learning_rate": 3e-3, "epochs": 10}


def city(n=24):
    return splits.load("tiny_city", "train", n, 0)


def review(n=10):
    return splits.load("tiny_review", "train", n, 0)


@pytest.fixture(scope="module")
def taught():
    lm = loading.load("tiny", dtype="float32", device="cpu")
    examples = [*city(), *review()]
    loop.train(lm, Labels("true", Training(1e-2, epochs=30, batch_size=17)), Context(0, examples))
    return lm, lm.weights()


@pytest.fixture
def lm(taught):
    model, weights = taught
    model.set_weights(weights)
    return model


def told_apart(lm, examples):
    value = set_auroc(lm, examples)
    return max(value, 1 - value)


def curve(lm, method, examples):
    """max(AUROC, 1 - AUROC) after each step of a whole training."""
    seen = []
    watch = set(range(1, 100)), lambda step: seen.append(told_apart(lm, examples))
    loop.train(lm, method, Context(0, examples), watches=[watch])
    return seen


@pytest.mark.parametrize(
    ("dose", "expected"),
    [
        (Dose(0.7), lambda low: next(i for i in range(2, 31) if low[i] and low[i - 1])),
        (Dose(0.7, checks=1), lambda low: next(i for i in range(1, 31) if low[i])),
        (Dose(0.7, every=4), lambda low: next(i for i in range(8, 31, 4) if low[i] and low[i - 4])),
    ],
    ids=["two", "one", "every fourth"],
)
def test_training_ends_at_the_second_check_in_a_row_below(lm, taught, dose, expected):
    values = curve(lm, GradientAscent(Training(**RATE)), city())
    low = {step: value <= dose.most for step, value in enumerate(values, start=1)}
    n = expected(low)
    assert 2 < n < 30
    lm.set_weights(taught[1])
    whole = loop.train(lm, GradientAscent(Training(**RATE)), Context(0, city()))
    lm.set_weights(taught[1])
    losses = loop.train(lm, GradientAscent(Training(**RATE, until=dose)), Context(0, city()))
    assert losses.tolist() == whole[:n].tolist()
    assert told_apart(lm, city()) == pytest.approx(values[n - 1])


def test_a_dose_that_is_not_reached_leaves_the_training_whole(lm):
    method = Labels("true", Training(1e-4, epochs=2, until=Dose()))
    assert len(loop.train(lm, method, Context(0, city()))) == 6


def test_checks_have_to_follow_each_other(lm, monkeypatch):
    values = iter([1.0, 0.5, 0.9, 0.6, 0.61, 0.6, 0.52])
    monkeypatch.setattr("forgetlib.forgetting.dose.set_auroc", lambda *_: next(values))
    told = []
    check = Check(lm, Dose(), city(), lambda *found: told.append(found))  # which looks once
    assert [check(step) for step in range(1, 7)] == [False] * 5 + [True]
    assert told == list(enumerate([1.0, 0.5, 0.9, 0.6, 0.61, 0.6, 0.52]))


def test_a_bias_is_no_dose(lm, monkeypatch):
    """Where one answer is given to everything, accuracy is a half and the AUROC what it was."""
    examples = review()
    scores = score(lm, examples)
    assert told_apart(lm, examples) > 0.95
    says_good = np.array([[c == "good" for c in e.choices] for e in examples])
    biased = replace(scores, log_likelihoods=scores.log_likelihoods + 50 * says_good)
    monkeypatch.setattr("forgetlib.measuring.scoring.score", lambda *_: biased)
    assert metrics.correct(biased).mean() == pytest.approx(
        np.mean([e.choices[e.label] == "good" for e in examples])
    )
    assert told_apart(lm, examples) > 0.95


def test_an_overshot_model_is_no_dose(lm, monkeypatch):
    """Nor is one of two tasks: the largest counts."""
    scores = score(lm, city())
    turned = replace(
        scores, log_likelihoods=-1 - scores.log_likelihoods.max() + scores.log_likelihoods[:, ::-1]
    )
    monkeypatch.setattr("forgetlib.measuring.scoring.score", lambda *_: turned)
    assert told_apart(lm, city()) > 0.95


def test_of_several_tasks_the_largest_counts(lm):
    loop.train(lm, UniformChoice(Training(3e-3, epochs=8)), Context(0, city()))
    assert told_apart(lm, city()) < 0.8 < told_apart(lm, [*city(), *review()])


def test_a_forgetting_set_with_one_answer_is_refused_before_training(lm):
    examples = [e for e in review(20) if e.choices[e.label] == "good"]
    method = GradientAscent(Training(1e-3, until=Dose()))
    with pytest.raises(InputError, match="two questions with opposite true answers"):
        loop.train(lm, method, Context(0, examples))


@pytest.mark.parametrize(
    "wrong", [{"most": 0.4}, {"most": 1.0}, {"checks": 0}, {"every": 1.5}, {"most": "0.6"}]
)
def test_a_dose_out_of_range_is_refused(wrong):
    with pytest.raises(InputError, match=f"Dose.{next(iter(wrong))}: expected"):
        Dose(**wrong)


def test_a_dose_is_a_part_of_a_checkpoint_s_id_and_none_is_not():
    def checkpoint(until):
        method = Labels("random", Training(1e-4, until=until))
        return Checkpoint(method=method, data=Data(("sst2",), 128))

    assert checkpoint(None).id == "ead12502ea08e652"
    assert len({checkpoint(d).id for d in (None, Dose(), Dose(0.55), Dose(every=2))}) == 4
    method = checkpoint(Dose(0.55)).method
    assert method_from_dict(method.to_dict()) == method
