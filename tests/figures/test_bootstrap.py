"""Intervals over questions and seeds: against SciPy, against a loop, and how often they cover."""

import re

import intervals as simulation
import numpy as np
import pytest
import scipy.stats
from synthetic import cross, family

from forgetlib.errors import InputError
from forgetlib.figures import crosstask, fig2, fig4
from forgetlib.figures.bootstrap import (
    Measure,
    Sample,
    _draws,
    joined,
    of_means,
    resample,
    resample_counts,
    seed_factors,
)
from forgetlib.figures.intervals import Interval
from forgetlib.figures.join import by_checkpoint


def sample(values, *, seed=0, first=0):
    """A seed's questions, with uids that no other seed has unless first says so."""
    values = np.asarray(values, float).reshape(len(values), -1)
    return of_means([f"t/test/{seed}-{i + first}" for i in range(len(values))], values)


def interval(groups, statistic=None, **options):
    samples = [sample(values, seed=i) for i, values in enumerate(groups)]
    return resample(samples, **options).interval(statistic or Measure(0))


def test_with_one_seed_it_is_scipys_percentile_bootstrap():
    rng = np.random.default_rng(1)
    data = np.stack([rng.random(300) < 0.9, rng.random(300) < 0.6], axis=1).astype(float)

    def ratio(means):
        return (means[..., 0] - means[..., 1]) / (means[..., 0] - 0.5)

    ours = interval([data], ratio, n_resamples=8000)
    theirs = scipy.stats.bootstrap(
        (data[:, 0], data[:, 1]),
        lambda a, b, axis: (a.mean(axis) - b.mean(axis)) / (a.mean(axis) - 0.5),
        paired=True,
        method="percentile",
        n_resamples=8000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours.value == pytest.approx(ratio(data.mean(0)))
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_with_several_seeds_that_differ_it_is_students_t_of_their_values():
    rng = np.random.default_rng(4)
    groups = [(rng.random(150) < p).astype(float) for p in (0.5, 0.7, 0.75, 0.9)]
    found = interval(groups, n_resamples=20_000)
    theirs = scipy.stats.ttest_1samp([g.mean() for g in groups], 0).confidence_interval(0.95)
    assert [found.low, found.high] == pytest.approx([theirs.low, theirs.high], abs=0.02)


def test_seeds_that_happen_to_agree_leave_what_the_questions_leave_open():
    group = np.repeat([0.0, 1.0], 100)
    found = interval([group] * 3, n_resamples=4000)
    expected = 2 * 1.96 * np.sqrt(0.25 / 600)
    assert found.high - found.low == pytest.approx(expected, rel=0.06)


def test_a_question_of_several_seeds_is_drawn_for_all_of_them_together():
    """Three seeds that ask the same questions know no more than one."""
    group = np.repeat([0.0, 1.0], 100)
    same = [sample(group) for _ in range(3)]
    found = resample(same, n_resamples=4000).interval(Measure(0))
    expected = 2 * 1.96 * np.sqrt(0.25 / 200)
    assert found.high - found.low == pytest.approx(expected, rel=0.06)


def test_a_difference_is_taken_within_each_seed():
    """Two measures that differ by the same in every seed, however much the seeds differ."""
    groups = [np.stack([np.full(50, p), np.full(50, p - 0.1)], axis=1) for p in (0.4, 0.6, 0.9)]
    found = interval(groups, lambda m: m[..., 0] - m[..., 1])
    assert [found.value, found.low, found.high] == pytest.approx([0.1] * 3)
    alone = interval(groups)
    assert alone.high - alone.low > 0.4


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("shared", [False, True])
def test_an_interval_over_three_seeds_covers_the_truth(spread, shared):
    """However much trainings differ, and where two seeds in five questions are the same."""
    rng = np.random.default_rng(7)
    hits, trials = 0, 250
    for _ in range(trials):
        effects = rng.normal(size=400)  # of questions, of which each seed asks 160
        samples = []
        for seed in range(3):
            asked = rng.choice(400, 160, replace=False)
            accuracy = np.clip(0.7 + spread * rng.standard_normal(), 0.01, 0.99)
            effect = effects[asked] if shared else rng.normal(size=160)
            noise = effect + rng.normal(size=160)
            right = noise + np.sqrt(2) * scipy.stats.norm.ppf(accuracy) > 0
            uids = [f"{0 if shared else seed}-{i}" for i in asked]
            samples.append(of_means(uids, right[:, None]))
        found = resample(samples, n_resamples=400).interval(Measure(0))
        hits += found.low <= 0.7 <= found.high
    assert hits / trials >= 0.92


def test_what_is_measured_is_measured_of_every_resample():
    """A measure that is no mean: the median, by a loop over the counts."""
    values = np.random.default_rng(0).random(21)

    def median(counts):
        rows = counts.astype(int)
        return np.array([[np.median(np.repeat(values, row))] for row in rows])

    uids = tuple(map(str, range(21)))
    found = resample([Sample(uids, median, np.array([[0.0], [1.0]]))], n_resamples=50)
    assert found.means == pytest.approx([np.median(values)])
    ((counts,), _) = _draws(0, 50, (tuple(range(21)),))
    assert found.by_questions == pytest.approx(median(counts))


def test_measures_side_by_side_share_their_resamples():
    rng = np.random.default_rng(0)
    values = [rng.random((30, 2)) for _ in range(3)]
    both = resample([sample(v, seed=i) for i, v in enumerate(values)], n_resamples=40)
    apart = [
        resample([sample(v[:, j], seed=i) for i, v in enumerate(values)], n_resamples=40)
        for j in (0, 1)
    ]
    for name in ("of_seeds", "by_questions", "by_seeds"):
        assert getattr(joined(apart), name) == pytest.approx(getattr(both, name))


def test_it_is_repeatable_and_leaves_the_global_generator_alone():
    data = [np.random.default_rng(0).random(50)]
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = interval(data)
    _draws.cache_clear()
    assert interval(data) == first != interval(data, seed=1)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_a_single_question_is_data_and_a_single_resample_is_a_point():
    assert interval([[0.75]]) == Interval(0.75, 0.75, 0.75)
    found = interval([np.arange(9.0)], n_resamples=1)
    assert found.low == found.high


def test_no_mean_over_seeds_leaves_its_numbers_range():
    found = interval([np.ones(50), np.r_[np.zeros(25), np.ones(25)]])
    assert (found.low, found.high) == (0, 1)


def test_a_difference_of_measures_that_both_end_there_is_students_t_of_the_differences():
    """Near what they can be at most, or least, both would be cut off, and seem to be equal."""
    rng = np.random.default_rng(3)
    before = [np.r_[np.full(150, 0.001), rng.exponential(level, 150)] for level in (0.2, 4.0, 9.0)]
    risen = zip(before, (0.4, 0.6, 0.9), strict=True)
    pairs = [np.stack([b, 1.3 * b + more], axis=1) for b, more in risen]
    found = resample([sample(p, seed=i) for i, p in enumerate(pairs)], n_resamples=40_000)
    least = min(b.min() for b in before)
    assert found.interval(Measure(0)).low == least  # of a measure itself it ends there
    difference = found.interval(lambda m: m[..., 1] - m[..., 0])
    differences = [np.diff(p.mean(0))[0] for p in pairs]
    theirs = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert [difference.low, difference.high] == pytest.approx([*theirs], abs=0.05)


def test_a_seed_without_a_question_in_a_resample_has_no_value_there():
    few = [sample([1.0], seed=0), sample(np.ones(30), seed=1)]
    found = resample(few, n_resamples=200)
    assert np.isnan(found.by_questions).any()
    assert np.isnan(found.interval(Measure(0)).low)  # more than 5 % of the resamples


def test_resample_counts_say_how_often_each_question_was_drawn():
    ours = resample_counts(np.random.default_rng(5), 7, 40)
    drawn = np.random.default_rng(5).integers(7, size=(40, 7))
    assert (ours == [np.bincount(row, minlength=7) for row in drawn]).all()


@pytest.mark.parametrize("normal", [False, True])
def test_the_seeds_error_is_students_or_normal(normal):
    of_seeds = np.array([0.2, 0.3, 0.7, 0.4])
    factors = seed_factors(np.random.default_rng(0), 200_000, 4, normal=normal)
    noise = factors @ (of_seeds - of_seeds.mean())
    error = of_seeds.std(ddof=1) / 2
    law = scipy.stats.norm() if normal else scipy.stats.t(3)
    for level in (0.025, 0.25, 0.5, 0.975):
        assert np.quantile(noise, level) == pytest.approx(law.ppf(level) * error, abs=0.05 * error)
    assert not seed_factors(np.random.default_rng(0), 10, 1, normal=normal).any()


@pytest.mark.parametrize("wrong", [0, [3]])  # the second cannot be looked up among known draws
def test_a_number_of_resamples_is_a_number(wrong):
    said = rf"^n_resamples: expected a whole number from 1, found {re.escape(str(wrong))}"
    for draw in (
        lambda: interval([[1.0, 0.0]], n_resamples=wrong),
        lambda: resample_counts(np.random.default_rng(0), 3, wrong),
        lambda: seed_factors(np.random.default_rng(0), wrong, 3),
    ):
        with pytest.raises(InputError, match=said):
            draw()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: resample([]), "bootstrap: expected at least one sample, .* a list of samples"),
        (lambda: of_means(["a"], np.ones(1)), r"sample: expected N >= 1 questions .* shape \(1,\)"),
        (lambda: of_means([], np.ones((0, 1))), "sample: expected .* found 0 questions"),
        (lambda: of_means(["a", "b"], np.ones((3, 1))), "found 2 questions, values of shape"),
        (lambda: resample([of_means(["a", "a"], np.ones((2, 1)))]), "each once, found \\[2\\]"),
    ],
)
def test_what_is_no_sample_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


def binomial_low(accuracy, n):
    return scipy.stats.binom.ppf(0.025, n, accuracy) / n


@pytest.mark.parametrize("n", [60, 100, 400])
def test_a_task_is_known_where_the_binomial_interval_is_above_chance(n):
    """Exact for one seed: resampling N right or wrong answers is drawing from a binomial."""
    decided = []
    for right in range(n // 2, n, max(2, n // 40)):
        tail = scipy.stats.binom.cdf(n // 2, n, right / n)  # at or below chance
        if abs(tail - 0.025) > 0.008:  # what 2000 resamples can tell
            row = fig2.table(family("t", 0.5, right / n, 0.5, n=n), n_resamples=1).iloc[0]
            assert row["ratio_defined"] == (binomial_low(right / n, n) > 0.5)
            decided.append(row["ratio_defined"])
    assert decided == sorted(decided) and {*decided} == {True, False}


@pytest.mark.parametrize(("tuned", "expected"), [(0.55, False), (0.63, True), (0.8, True)])
def test_what_is_defined_is_the_same_in_every_figure_and_with_any_number_of_resamples(
    tuned, expected
):
    results = cross(("t", "u"), [tuned, 0.9], np.full((2, 2), 0.6), n=100)
    results += family("t", 0.5, tuned, 0.6, n=100) + family("u", 0.5, 0.9, 0.6, n=100)
    unique = list(by_checkpoint(results).values())
    for n_resamples in (50, 200, 2000, 6000):
        own = fig2.table(unique, n_resamples=n_resamples)
        pairs = crosstask.cross_task(unique, n_resamples=n_resamples)
        predictors = fig4.table(unique, n_resamples=n_resamples)
        assert own["ratio_defined"].tolist() == [expected, True]
        assert pairs.defined.tolist() == [expected, True]
        assert predictors["forget_ratio"].notna().tolist() == [expected, True]
        assert np.isfinite(own["forget_ratio_low"]).tolist() == [expected, True]
        assert np.isfinite(pairs.replicates).all((0, 2)).tolist() == [expected, True]


def test_coverage_is_simulated_with_these_intervals(tmp_path, monkeypatch):
    """One setting, a few times: models near what they can be at most, and seeds that differ."""
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))
    setting = 200, 3, 0.95, True, False
    found = simulation.kept(setting, 3, 0)
    assert set(found) == set(simulation.STATISTICS)
    assert all(0 <= share <= 1 and undefined == 0 for share, undefined in found.values())
    # What was killed goes on with the next setting: one that is there is not simulated again.
    monkeypatch.setattr(simulation, "of_questions", None)
    assert simulation.kept(setting, 3, 0) == found
    with pytest.raises(TypeError):
        simulation.kept(setting, 3, 1)
