"""Predictions, confidence and forget ratios against hand-made scores and SciPy."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.measuring.base import Scores

accuracies = st.floats(0.51, 1.0)


def make(log_likelihoods, labels):
    values = np.array(log_likelihoods, np.float32)
    uids = tuple(f"t/test/{i}" for i in range(len(values)))
    return Scores(uids, values, np.ones(values.shape, np.int32), np.array(labels))


def test_the_prediction_is_the_likelier_choice_and_the_first_of_equal_ones():
    scores = make([[-1, -2], [-3, -1], [-1, -1]], [0, 0, 1])
    assert metrics.predictions(scores).tolist() == [0, 1, 0]
    assert metrics.correct(scores).tolist() == [True, False, False]


def test_confidence_is_the_true_response_s_share_of_the_probability():
    scores = make([[np.log(0.2), np.log(0.3)], [np.log(1e-30), np.log(1e-30)]], [1, 0])
    assert metrics.confidence(scores) == pytest.approx([0.6, 0.5])


def test_confidence_survives_likelihoods_that_underflow():
    assert metrics.confidence(make([[-2000, -2001]], [0])) == pytest.approx([1 / (1 + np.exp(-1))])


def test_confidence_survives_questions_of_very_different_likelihood():
    """Each question is shifted by its own largest likelihood, in float64."""
    assert metrics.confidence(make([[-5000, -5001], [-1, -2]], [0, 0])) == pytest.approx(
        [1 / (1 + np.exp(-1))] * 2, rel=1e-12
    )


def test_choice_probs_agree_with_scipy():
    values = np.random.default_rng(0).normal(size=(20, 2)) * 5
    expected = scipy.special.softmax(values.astype(np.float32).astype(float), axis=1)
    assert metrics.choice_probs(make(values, [0] * 20)) == pytest.approx(expected)


@given(accuracies)
def test_the_forget_ratio_is_one_at_chance_and_zero_where_nothing_is_lost(tuned):
    assert metrics.forget_ratio(tuned, 0.5) == pytest.approx(1)
    assert metrics.forget_ratio(tuned, tuned) == 0
    assert metrics.flipped_forget_ratio(tuned, 1 - tuned) == pytest.approx(1)
    assert metrics.flipped_forget_ratio(tuned, tuned) == 0


def test_the_forget_ratio_of_the_paper_s_formula():
    assert metrics.forget_ratio(0.9, 0.6) == pytest.approx(0.75)
    assert metrics.flipped_forget_ratio(0.9, 0.5) == pytest.approx(0.5)
    assert metrics.forget_gap(0.69) == pytest.approx(0.19)


@pytest.mark.parametrize("wrong", [90, 1.001, -0.001])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_accuracy_of_a_ratio_is_a_share(wrong, place):
    given = [np.array([0.9, 0.8]), np.array([0.6, 0.7]), np.array([0.5, 0.5])]
    given[place][1] = wrong
    with pytest.raises(InputError, match=f"expected shares, from 0 to 1, found {wrong:g}"):
        metrics.forget_ratio(*given)


@pytest.mark.parametrize("tuned", [0.5, 0.4])
def test_there_is_no_ratio_where_there_was_nothing_to_forget(tuned):
    assert np.isnan(metrics.forget_ratio(tuned, 0.45))


@pytest.mark.parametrize(
    ("call", "what", "expected", "found", "do"),
    [
        (
            lambda: metrics.forget_gap(np.array([0.5, 75])),
            "accuracies",
            "shares, from 0 to 1",
            "75",
            "Divide percentages by 100.",
        ),
    ],
)
def test_an_error_of_accuracies_says_what_was_expected_and_what_to_do(
    call, what, expected, found, do
):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == f"{what}: expected {expected}, found {found}. {do}"
