"""Predictions, confidence and forget ratios against hand-made scores and SciPy."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, strategies as st

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


def pairwise(margin, answers):
    """AUROC by its definition, a pair after another."""
    won = []
    for i in range(len(margin)):
        for j in range(len(margin)):
            free = answers is None and i != j
            if free or (answers is not None and tuple(answers[i]) == tuple(answers[j])[::-1]):
                total = margin[i] + margin[j]
                won.append(0.5 if total == 0 else float(total > 0))
    return np.mean(won) if won else np.nan


# Few values, so that there are ties.
some_margins = st.lists(st.integers(-4, 4), min_size=2, max_size=12).map(np.array)


@given(some_margins, st.randoms(use_true_random=False), st.booleans())
def test_auroc_is_the_share_of_pairs_that_are_told_apart(margin, random, fixed):
    sides = [random.choice([("yes", "no"), ("no", "yes"), ("no", "maybe")]) for _ in margin]
    answers = np.array(sides) if fixed else None
    found = metrics.auroc(margin, answers)
    assert found == pytest.approx(pairwise(margin, answers), nan_ok=True)
    # Counted twice, a question is two questions; but not a pair of its own.
    weights = np.array([random.randint(0, 2) for _ in margin])
    again = np.repeat(np.arange(len(margin)), weights)
    if fixed:
        expected = pairwise(margin[again], answers[again]) if len(again) else np.nan
        assert metrics.auroc(margin, answers, weights) == pytest.approx(expected, nan_ok=True)
    stacked = metrics.auroc(margin, answers, np.stack([weights, np.ones(len(margin))]))
    assert stacked[1] == pytest.approx(found, nan_ok=True)


def test_auroc_of_fixed_answers_is_the_area_under_the_roc_curve_whatever_the_bias():
    """An independent oracle: SciPy's Mann-Whitney U of the two sides."""
    rng = np.random.default_rng(0)
    yes = rng.random(200) < 0.6
    difference = rng.normal(size=200) + yes  # log p(yes) - log p(no)
    u = scipy.stats.mannwhitneyu(difference[yes], difference[~yes]).statistic
    area = u / (yes.sum() * (~yes).sum())
    answers = np.where(yes[:, None], ("yes", "no"), ("no", "yes"))
    for bias in (0, 5, -5):
        margin = np.where(yes, difference + bias, -difference - bias)
        assert metrics.auroc(margin, answers) == pytest.approx(area)
    assert abs((margin > 0).mean() - 0.5) < 0.11 < area - 0.5  # accuracy does not see it


def test_matched_accuracy_gives_back_what_a_bias_costs():
    rng = np.random.default_rng(1)
    yes = rng.random(301) < 0.7
    difference = rng.normal(size=301) + 2 * yes
    answers = np.where(yes[:, None], ("yes", "no"), ("no", "yes"))
    k = yes.sum()
    said = np.zeros(301, bool)
    said[np.argsort(-difference)[:k]] = True
    for bias in (0, 9, -9):
        margin = np.where(yes, difference + bias, -difference - bias)
        assert metrics.matched_accuracy(margin, answers) == pytest.approx((said == yes).mean())
    doubled = metrics.matched_accuracy(margin, answers, np.full((3, 301), 2))
    assert doubled == pytest.approx([(said == yes).mean()] * 3)


def test_matched_accuracy_of_a_constant_is_that_of_guessing_with_the_true_shares():
    answers = np.array([("yes", "no")] * 3 + [("no", "yes")])
    margin = np.where(answers[:, 0] == "yes", 1.0, -1.0)
    assert metrics.matched_accuracy(margin, answers) == pytest.approx(0.75**2 + 0.25**2)


def test_the_commonest_answer_s_share_is_1_where_it_is_the_only_one():
    assert metrics.commonest_share(np.array(["no"] * 5)) == 1
    weights = np.array([[1, 1, 1], [0, 0, 2]])
    found = metrics.commonest_share(np.array(["no", "no", "yes"]), weights)
    assert found == pytest.approx([2 / 3, 1])


def test_margins_are_of_the_true_response_summed_or_a_token():
    values = np.array([[-6.0, -4.0], [-6.0, -4.0]], np.float32)
    tokens = np.array([[4, 1], [4, 1]], np.int32)
    scores = Scores(("t/test/0", "t/test/1"), values, tokens, np.array([0, 1]))
    assert metrics.margins(scores) == pytest.approx([-2, 2])
    assert metrics.margins(scores, a_token=True) == pytest.approx([2.5, -2.5])
    assert metrics.correct_a_token(scores).tolist() == [True, False]
    assert metrics.nll_a_token(scores) == pytest.approx([1.5, 4])


def test_margins_of_layers_are_those_of_scores_layer_for_layer():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(4, 6, 2)), np.array([0, 1, 1, 0, 1, 0])
    found = metrics.lens_margins(values, labels)
    assert found.shape == (4, 6)
    for of_layer, layer in zip(found, values, strict=True):
        uids, ones = tuple("abcdef"), np.ones((6, 2), int)
        assert of_layer.tolist() == metrics.margins(Scores(uids, layer, ones, labels)).tolist()


def test_the_best_layer_tells_right_from_wrong_best_whatever_its_bias():
    answers = np.array([["yes", "no"], ["no", "yes"]] * 10)
    sign = np.where(answers[:, 0] == "yes", 1.0, -1.0)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(5, 20))
    signal = np.array([0.0, 1.0, 9.0, 0.5, -9.0])[:, None]  # at layer 4 turned round
    assert metrics.best_layer(signal + noise) == 2
    biased = signal + noise + 50 * sign * (np.arange(5) == 2)[:, None]
    assert (biased[2] > 0).mean() == 0.5  # always "yes"
    assert metrics.best_layer(biased, answers) == 2
    # Layers that know equally much: the one nearest to the answer.
    assert metrics.best_layer(np.array([[-1.0, -1], [1, 1], [5, 2], [-1, -1]])) == 2


@pytest.mark.parametrize(
    ("margins", "answers"),
    [(np.zeros((0, 4)), None), (np.zeros((3, 1)), None), (np.zeros((2, 2)), [["a", "b"]] * 2)],
)
def test_no_layer_is_picked_where_nothing_can_be_compared(margins, answers):
    with pytest.raises(InputError, match=r"^margins of layers: expected at least one layer"):
        metrics.best_layer(margins, answers)
