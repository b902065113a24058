"""Rank correlations and intervals over tasks against SciPy and their coverage."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.stats.proportion import proportion_confint

from forgetlib.errors import InputError
from forgetlib.figures import intervals
from forgetlib.figures.bootstrap import resample_counts
from forgetlib.figures.statements import (
    ABOVE,
    DOES_NOT_HOLD,
    HOLDS,
    UNDECIDED,
    Statement,
    verdict,
)


def test_what_is_no_table_has_no_columns():
    with pytest.raises(InputError, match=r"a table: expected columns a, found list.* Pass one"):
        intervals.require_columns("a table", [1], ["a"], "Pass one.")


def test_an_interval_needs_95_percent_of_its_replicates():
    replicates = np.where(np.arange(100) < 5, np.nan, np.linspace(0, 1, 100))
    assert np.isfinite(intervals.percentiles(0.5, replicates).low)
    replicates[5] = np.nan
    found = intervals.percentiles(0.5, replicates)
    assert found.value == 0.5 and np.isnan([found.low, found.high]).all()
    assert intervals.percentiles(0.5, np.array([0.25])) == intervals.Interval(0.5, 0.25, 0.25)
    assert np.isnan(intervals.percentiles(0.5, np.array([np.nan])).low)


@pytest.mark.parametrize("values", [4, 1000])
def test_rank_correlations_agree_with_scipy_with_ties_and_in_every_resample(values):
    rng = np.random.default_rng(values)
    x, y = rng.integers(values, size=(2, 30))
    counts = resample_counts(rng, 30, 50)
    for ours, count in zip(
        intervals.rank_correlations(x, y, counts), counts.astype(int), strict=True
    ):
        theirs = scipy.stats.spearmanr(np.repeat(x, count), np.repeat(y, count)).statistic
        assert ours == pytest.approx(theirs)


def test_a_constant_has_no_rank_correlation():
    counts = np.array([[1.0, 1, 1], [3, 0, 0]])
    with np.errstate(all="raise"):
        found = intervals.rank_correlations(np.array([1, 2, 3]), np.array([5, 6, 9]), counts)
    assert found[0] == pytest.approx(1)
    assert np.isnan(found[1])
    assert np.isnan(intervals.rank_correlations(np.ones(3), np.arange(3), counts)).all()


@pytest.mark.parametrize("n", [4, 5, 21])
def test_a_rank_correlation_is_scipys_with_and_without_ties(n):
    for values in (3, 1000):
        x, y = np.random.default_rng(n).integers(values, size=(2, n))
        expected = scipy.stats.spearmanr(x, y).statistic
        assert intervals.rank_correlation(x, y).value == pytest.approx(expected)


def test_the_interval_of_a_rank_correlation_is_the_formula_of_bonett_and_wright():
    x, y = np.arange(10), np.array([1, 0, 3, 2, 6, 4, 5, 9, 7, 8])
    value = scipy.stats.spearmanr(x, y).statistic
    error = np.sqrt((1 + value**2 / 2) / 7)
    z = np.log((1 + value) / (1 - value)) / 2 + 1.959964 * error * np.array([-1, 1])
    expected = (np.exp(2 * z) - 1) / (np.exp(2 * z) + 1)
    found = intervals.rank_correlation(x, y)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_fewer_than_four_have_no_interval_of_a_rank_correlation(n):
    found = intervals.rank_correlation(np.arange(n), np.arange(n))
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(found.value) == (n < 2)


def test_a_constant_has_neither_a_rank_correlation_nor_an_interval():
    found = intervals.rank_correlation(np.ones(8), np.arange(8))
    assert np.isnan([found.value, found.low, found.high]).all()


def bootstrapped(x, y, picks):
    """Percentile bootstrap of a rank correlation, by a loop over resamples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [scipy.stats.spearmanr(x[p], y[p]).statistic for p in picks]
    return np.nanquantile(found, [0.025, 0.975])


@pytest.mark.parametrize("n", [4, 6, 21])
@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_the_interval_of_a_rank_correlation_covers_it_down_to_four_tasks(n, correlation):
    truth = 6 / np.pi * np.arcsin(correlation / 2)  # Spearman's, of bivariate normal values
    draw = np.random.default_rng(1)
    covered = []
    for _ in range(600):
        x, noise = draw.normal(size=(2, n))
        y = correlation * x + np.sqrt(1 - correlation**2) * noise
        found = intervals.rank_correlation(x, y)
        assert found.low <= found.value <= found.high
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) > 0.93


def test_a_percentile_bootstrap_of_few_tasks_would_not_cover_it():
    draw = np.random.default_rng(1)
    covered = []
    for _ in range(60):
        x, noise = draw.normal(size=(2, 4))
        y = 0.9 * x + np.sqrt(1 - 0.9**2) * noise
        low, high = bootstrapped(x, y, draw.integers(4, size=(60, 4)))
        covered.append(low <= 6 / np.pi * np.arcsin(0.45) <= high)
    assert np.mean(covered) < 0.8


def test_the_papers_21_tasks_leave_plus_or_minus_four_tenths():
    x = np.arange(21.0)
    found = intervals.rank_correlation(x, np.abs(x - 10))
    assert found.value == pytest.approx(0)
    assert (found.low, found.high) == pytest.approx((-0.43, 0.43), abs=0.01)


@pytest.mark.parametrize("n", [4, 5, 9])
def test_a_perfect_rank_correlation_is_taken_half_a_step_inside(n):
    """A step is that of two neighbours swapped: 12 / (n (n^2 - 1))."""
    swapped = np.arange(n)
    swapped[:2] = 1, 0
    step = 1 - scipy.stats.spearmanr(np.arange(n), swapped).statistic
    inside = 1 - step / 2
    half = 1.959963985 * np.sqrt((1 + inside**2 / 2) / (n - 3))
    found = intervals.rank_correlation(np.arange(n), np.arange(n))
    assert (found.low, found.high) == pytest.approx((np.tanh(np.arctanh(inside) - half), 1))


def test_a_perfect_rank_correlation_is_not_certain():
    four, six, many = (intervals.rank_correlation(np.arange(n), np.arange(n)) for n in (4, 6, 21))
    assert [found.value for found in (four, six, many)] == pytest.approx([1, 1, 1])
    assert four.low < 0 < six.low < many.low < 1
    mirrored = intervals.rank_correlation(np.arange(6), -np.arange(6))
    assert (mirrored.value, mirrored.high) == pytest.approx((-1, -six.low))


def test_a_correlation_that_no_resample_changes_has_no_interval():
    """Of examples in perfect order, every resample is in perfect order."""
    found = intervals.correlation_percentiles(1.0, np.ones(50))
    assert found.value == 1 and np.isnan([found.low, found.high]).all()
    for half in (1, 1e-6):
        found = intervals.correlation_percentiles(0.3, np.linspace(-half, half, 2001))
        assert found.value == 0.3
        assert (found.low, found.high) == pytest.approx((-0.95 * half, 0.95 * half))


def test_a_rank_correlation_takes_numbers_of_any_kind():
    x = np.array([1, 2.5, 3, 7, 5], dtype=object)  # as a table's row has them
    expected = intervals.rank_correlation(x.astype(float), np.array([1.0, 2, 4, 3, 5]))
    assert intervals.rank_correlation(x, [1, 2, 4, 3, 5]) == expected
    assert intervals.rank_correlation([1, 2, 4, 3, 5], x) == expected


def test_an_interval_around_a_value_has_its_half_on_either_side():
    assert intervals.around(0.5, 0.125) == intervals.Interval(0.5, 0.375, 0.625)
    assert intervals.around(0.5, 1e-11).low < 0.5


@pytest.mark.parametrize("half", [0.0, 1e-13, float("nan")])
def test_a_width_that_is_0_or_undefined_makes_no_interval(half):
    found = intervals.around(0.5, half)
    assert found.value == 0.5 and np.isnan([found.low, found.high]).all()


def test_four_tasks_are_enough_for_a_jackknife():
    found = intervals.jackknife(2.5, np.array([1.0, 2, 3, 4]), 3)
    half = scipy.stats.t.ppf(0.975, 3) * np.sqrt(3 / 4 * 5)
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half))


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(0).normal(size=9)
    without_each = np.array([np.delete(values, i).mean() for i in range(9)])
    found = intervals.jackknife(values.mean(), without_each, 8)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    "without_each", [np.arange(3.0), np.full(6, 0.1), np.array([0.1, 0.2, np.nan, 0.3, 0.4])]
)
def test_too_few_equal_or_undefined_values_have_no_jackknife(without_each):
    found = intervals.jackknife(0.2, without_each, max(len(without_each) - 1, 1))
    assert found.value == 0.2
    assert np.isnan([found.low, found.high]).all()


def rng():
    return np.random.default_rng(0)


def test_the_interval_of_a_mean_is_scipys():
    values = rng().normal(size=9)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    found = intervals.mean_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), *expected))


def test_the_interval_of_a_difference_is_scipys_with_unequal_variances():
    first, second = rng().normal(size=7), 3 * rng().normal(size=4) + 1
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    found = intervals.difference_interval(first, second)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.value == pytest.approx(first.mean() - second.mean())


def test_the_interval_of_a_share_of_certain_values_is_statsmodels():
    values = np.array([0.1, 0.3, 0.4, 0.0, 0.2, 0.9, 0.25])
    found = intervals.share_interval(values, values, values, 0.25)
    assert found.value == pytest.approx(3 / 7)
    assert (found.low, found.high) == pytest.approx(proportion_confint(3, 7, method="beta"))


@pytest.mark.parametrize(("value", "share", "known"), [(0.12, 1, HOLDS), (0.08, 0, DOES_NOT_HOLD)])
def test_tasks_that_sampling_may_have_put_on_either_side_decide_nothing(value, share, known):
    values = np.full(20, value)
    certain = intervals.share_interval(values, values - 0.01, values + 0.01, 0.1)
    uncertain = intervals.share_interval(values, values - 0.1, values + 0.1, 0.1)
    assert verdict(Statement(ABOVE, 0.25, 0.5), certain, 0.9) == known  # positive control
    assert verdict(Statement(ABOVE, 0.25, 0.5), uncertain, 0.9) == UNDECIDED
    assert (uncertain.value, uncertain.low, uncertain.high) == (share, 0, 1)


def test_tasks_that_are_all_alike_do_not_show_how_much_tasks_differ():
    alike, others = np.full(2, 0.2), np.full(2, 0.1)
    for found in (
        intervals.difference_interval(alike, others),
        intervals.mean_interval(np.full(7, 0.1)),
        intervals.relative_interval(np.full(5, -0.1), np.full(5, 0.3)),
    ):
        assert np.isfinite(found.value)
        assert verdict(Statement(ABOVE, -9, 0), found, 0.9) == UNDECIDED


def test_the_relative_interval_covers_the_truth_as_often_as_it_says():
    draw, covered = rng(), []
    for _ in range(400):
        heights = draw.uniform(0.1, 0.4, 8)
        changes = -0.2 * heights + 0.05 * draw.normal(size=8)
        found = intervals.relative_interval(changes, heights)
        covered.append(found.low <= -0.2 <= found.high)
        assert found.value == pytest.approx(changes.mean() / heights.mean())
    assert 0.9 < np.mean(covered) < 0.98


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_fewer_than_four_tasks_have_no_interval(n):
    values = np.arange(n, dtype=float)
    for found in (
        intervals.mean_interval(values),
        intervals.relative_interval(values, values + 1),
        intervals.difference_interval(values[:2], values[2:]),
        intervals.share_interval(values, values, values, 0.5),
    ):
        assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(
    ("call", "what", "expected", "found", "do"),
    [
        (
            lambda: intervals.rank_correlation([1, 2, np.nan], [1, np.nan, 2]),
            "rank correlation",
            "two values of every task, and none undefined",
            "3 and 3, 2 of them undefined",
            "Leave out the tasks where either is undefined.",
        ),
        (
            lambda: intervals.require_columns(
                "a table", pd.DataFrame({"a": []}), "cab", "Pass one."
            ),
            "a table",
            "columns b, c",
            "a",
            "Pass one.",
        ),
        (
            lambda: intervals.require_columns("a table", pd.DataFrame(), ["a"], "Pass one."),
            "a table",
            "columns a",
            "none",
            "Pass one.",
        ),
    ],
)
def test_an_error_says_what_was_expected_what_was_found_and_what_to_do(
    call, what, expected, found, do
):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == f"{what}: expected {expected}, found {found}. {do}"


@pytest.mark.parametrize("n", [4, 5, 11, 21])
def test_a_rank_correlation_s_p_value_is_that_of_its_interval(n):
    """It is below 0.05 where the interval leaves out 0, also at a perfect correlation."""
    for value in (-1.0, -0.7, -0.3, 0.0, 0.2, 0.55, 0.6, 0.63, 0.9, 1.0):
        found = intervals.rank_interval(value, n)
        p = intervals.rank_p_value(value, n)
        assert 0 <= p <= 1
        assert (p < 0.05) == (found.low > 0 or found.high < 0), value
    assert intervals.rank_p_value(0.0, n) == 1
    assert np.isnan(intervals.rank_p_value(np.nan, n))
    assert np.isnan(intervals.rank_p_value(0.9, 3))
