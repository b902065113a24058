import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from synthetic import (
    checkpoint_of,
    cross,
    family,
    moved,
    passing,
    probe_with,
    result_of,
    scores_with,
    with_training,
)

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import crosstask, fig2, fig4, intervals
from forgetlib.figures.join import but_seed, by_checkpoint
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


def test_bootstrap_over_examples_agrees_with_scipy():
    rng = np.random.default_rng(1)
    data = np.stack([rng.random(300) < 0.9, rng.random(300) < 0.6], axis=1).astype(float)

    def ratio(means):
        return (means[..., 0] - means[..., 1]) / (means[..., 0] - 0.5)

    ours = intervals.bootstrap(ratio, [data], n_resamples=8000)
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


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        sample = (rng.random((150, 1)) < 0.7).astype(float)
        interval = intervals.bootstrap(lambda m: m[..., 0], [sample], n_resamples=400, seed=trial)
        hits += interval.low <= 0.7 <= interval.high
    assert 0.90 <= hits / 200 <= 0.99


def test_bootstrap_over_seeds_sees_what_differs_between_seeds():
    rng = np.random.default_rng(4)
    alike = [(rng.random((400, 1)) < 0.7).astype(float) for _ in range(3)]
    apart = [(rng.random((400, 1)) < p).astype(float) for p in (0.5, 0.7, 0.9)]

    def width(groups):
        interval = intervals.bootstrap(lambda m: m[..., 0], groups)
        return interval.high - interval.low

    assert width(apart) > 3 * width(alike)


def test_bootstrap_is_repeatable_and_leaves_the_global_generator_alone():
    data = np.random.default_rng(0).random((50, 1))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = intervals.bootstrap(lambda m: m[..., 0], [data])
    intervals._draws_and_counts.cache_clear()
    assert intervals.bootstrap(lambda m: m[..., 0], [data]) == first
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_statistics_of_the_same_resamples_are_those_of_their_seed_whatever_came_before():
    rng = np.random.default_rng(4)
    measures = {"first": intervals.column(0), "difference": lambda m: m[..., 1] - m[..., 0]}
    for sizes, n_resamples, seed in (
        ((30, 30), 300, 0),
        ((30, 20), 300, 0),
        ((30, 30), 200, 1),
    ) * 2:
        groups = [rng.random((n, 2)) for n in sizes]
        resampled = intervals.resampled_means(
            groups, n_resamples=n_resamples, rng=np.random.default_rng(seed)
        )
        means = intervals.means_of(groups)
        expected = {
            k: intervals.percentiles(float(f(means)), f(resampled)) for k, f in measures.items()
        }
        assert intervals.bootstrap_each(measures, groups, n_resamples, seed=seed) == expected
        one = intervals.bootstrap(measures["first"], groups, n_resamples=n_resamples, seed=seed)
        assert one == expected["first"]


def test_a_single_example_is_data_and_a_single_resample_is_a_point():
    assert intervals.bootstrap(intervals.column(0), [np.array([[0.75]])]) == intervals.Interval(
        0.75, 0.75, 0.75
    )
    found = intervals.bootstrap(intervals.column(0), [np.arange(9.0)[:, None]], n_resamples=1)
    assert found.low == found.high


@pytest.mark.parametrize("groups", [[], [np.zeros((0, 1))], [np.zeros(3)]])
def test_bootstrap_refuses_no_data(groups):
    with pytest.raises(InputError, match="expected at least one"):
        intervals.bootstrap(lambda m: m[..., 0], groups)


def test_forgetting_measures_what_was_put_in():
    results = family("kept", 0.6, 0.8, 0.8) + family("lost", 0.55, 0.9, 0.5)
    table = fig2.table(results).set_index("eval_task")
    kept, lost = table.loc["kept"], table.loc["lost"]
    assert (lost.base, lost.tuned, lost.forgotten) == pytest.approx((0.55, 0.9, 0.5))
    assert lost.forget_ratio == pytest.approx(1)
    assert lost.forget_gap == pytest.approx(0)
    assert (kept.forget_ratio, kept.forget_gap) == pytest.approx((0, 0.3))
    assert lost.forgetting_set == pytest.approx(0.5)
    assert lost.forgotten_low < 0.5 < lost.forgotten_high
    assert kept.behaviour == "no loss shown"
    assert lost.behaviour == "below pre-trained"
    assert bool(kept.ratio_defined)


@pytest.mark.parametrize("forgotten", [0.7, 0.52, 0.5])
def test_what_is_lost_down_to_the_pre_trained_accuracy_is_below_fine_tuned(forgotten):
    table = fig2.table(family("t", 0.5, 0.9, forgotten))
    assert table["behaviour"].item() == "below fine-tuned"


def test_a_ratio_without_a_denominator_is_marked_as_undefined_and_has_no_number():
    row = fig2.table(family("t", 0.5, 0.52, 0.44, n=100)).iloc[0]
    assert metrics.forget_ratio(0.52, 0.44) == pytest.approx(4)  # the trap
    assert not row.ratio_defined
    assert row.behaviour == "nothing to forget"
    assert row[["forget_ratio", "forget_ratio_low", "forget_ratio_high"]].isna().all()
    assert row.forgotten == pytest.approx(0.44)


def test_a_loss_that_few_examples_do_not_show_is_not_called_kept():
    rng = np.random.default_rng(0)
    row = fig2.table(family("t", 0.5, 0.75, 0.65, n=100, rng=rng)).iloc[0]
    assert row.lost_low <= 0 < row.lost
    assert row.behaviour == "no loss shown"


def binomial_low(accuracy, n):
    return scipy.stats.binom.ppf(0.025, n, accuracy) / n


@pytest.mark.parametrize("n", [60, 100, 400])
def test_there_is_something_to_forget_where_the_binomial_interval_is_above_chance(n):
    """Exact for one seed: resampling N right or wrong answers is drawing from a binomial."""
    decided = []
    for right in range(n // 2, n, 2):
        tail = scipy.stats.binom.cdf(n // 2, n, right / n)  # at or below chance
        if abs(tail - 0.025) > 0.008:  # what 2000 resamples can tell
            found = intervals.something_to_forget([np.arange(n) < right])
            assert found == (binomial_low(right / n, n) > 0.5)
            decided.append(found)
    assert decided == sorted(decided) and {*decided} == {True, False}


def test_an_interval_that_begins_at_chance_is_not_above_it():
    right = {k: np.arange(20) < k for k in range(11, 20)}
    lows = {
        k: intervals.bootstrap(intervals.column(0), [r[:, None].astype(float)]).low
        for k, r in right.items()
    }
    (at_chance,) = [k for k, low in lows.items() if low == 0.5]
    assert not intervals.something_to_forget([right[at_chance]])
    assert intervals.something_to_forget([right[at_chance + 1]])


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


def test_resamples_without_a_ratio_are_left_out_of_its_interval():
    """A few of the resamples of 62 right of 100 are at or below chance."""
    accuracies = np.random.default_rng(0).binomial(100, 0.62, (4000, 2)) / 100
    ratios = metrics.forget_ratio(accuracies[:, 0], accuracies[:, 1])
    undefined = np.isnan(ratios)
    assert 0 < undefined.mean() < 0.025
    found = intervals.percentiles(0.0, ratios)
    expected = np.quantile(ratios[~undefined], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    many = np.where(np.arange(4000) % 15 == 0, np.nan, ratios)  # more than 5 %
    assert np.isnan(intervals.percentiles(0.0, many).low)


def test_confidence_is_the_fine_tuned_model_s():
    """Paper, Fig. 4: what is known before forgetting is to predict it."""
    results = family("t", 0.5, 0.9, 0.6)  # every answer with probability 0.8
    row = fig2.table(results).iloc[0]
    assert row.confidence == pytest.approx(0.9 * 0.8 + 0.1 * 0.2)
    assert row.confidence_low < row.confidence < row.confidence_high


def test_as_many_resamples_are_drawn_as_were_asked_for():
    """Of one resample, an interval is a point."""
    row = fig2.table(family("t", 0.5, 0.9, 0.6), n_resamples=1).iloc[0]
    for measure in ("forgotten", "forgetting_set"):
        assert row[f"{measure}_low"] == row[f"{measure}_high"] != row[measure]


def test_an_undefined_ratio_is_three_times_not_a_number():
    row = fig2.table(family("t", 0.5, 0.5, 0.5)).iloc[0]
    ratio = [row[f"forget_ratio{end}"] for end in ("", "_low", "_high")]
    assert all(isinstance(x, float) and np.isnan(x) for x in ratio)


def test_seeds_are_averaged_and_counted():
    results = family("t", 0.5, 0.9, 0.6, seed=0) + family("t", 0.5, 0.9, 0.8, seed=1)
    row = fig2.table(results).iloc[0]
    assert (row.n_seeds, row.n) == (2, 400)
    assert row.forgotten == pytest.approx(0.7)


def test_flipped_labels_have_their_own_ratio():
    results = family("t", 0.5, 0.9, 0.1, condition="flipped")
    assert fig2.table(results).empty
    assert fig2.table(results, "flipped").forget_ratio.item() == pytest.approx(1)


def test_runs_on_other_test_examples_are_not_mixed():
    base, tuned, forgotten = family("t", 0.5, 0.9, 0.6)
    (other,) = [
        r for r in family("t", 0.5, 0.9, 0.6, uid_offset=7) if r.checkpoint == base.checkpoint
    ]
    message = "runs of tiny seed 0 .*: expected the same test examples before and after, found diff"
    with pytest.raises(InputError, match=message):
        fig2.table([other, tuned, forgotten])


def test_runs_with_other_settings_are_not_averaged():
    results = family("t", 0.5, 0.9, 0.6)
    others = family("t", 0.5, 0.9, 0.6, seed=1)
    others[2] = moved(others[2], with_training(others[2].checkpoint, epochs=7))
    with pytest.raises(InputError) as error:
        fig2.table(results + others)
    assert str(error.value) == (
        "runs of tiny on t: expected settings that differ in the seed and in the forgetting set's "
        f"size only, found {results[2].checkpoint} and {but_seed(others[2].checkpoint)}. "
        "Pass the results of one study."
    )


def test_runs_that_start_from_other_settings_are_not_averaged():
    def with_rate(results, rate):  # of the fine-tuning, the forgetting being the same
        _, tuned, forgotten = (r.checkpoint for r in results)
        other = with_training(tuned, learning_rate=rate)
        made = (results[0].checkpoint, other, replace(forgotten, start=other))
        return [moved(r, c) for r, c in zip(results, made, strict=True)]

    results = [family("t", 0.5, 0.9, 0.6, seed=seed) for seed in (0, 1)]
    assert len(fig2.table(results[0] + with_rate(results[1], 1e-4))) == 1  # as it was
    with pytest.raises(InputError, match="settings that differ in the seed"):
        fig2.table(results[0] + with_rate(results[1], 1e-3))


@pytest.mark.parametrize("absent", [0, 1])
def test_a_task_without_its_base_or_its_fine_tuned_run_is_left_out_and_no_other(absent):
    incomplete, complete = family("t", 0.5, 0.9, 0.6), family("u", 0.5, 0.9, 0.7)
    del incomplete[absent]
    assert fig2.table(incomplete + complete)["eval_task"].tolist() == ["u"]


def test_each_size_of_the_forgetting_set_has_a_row():
    """Paper, Fig. 7: the sizes share the runs before forgetting, and each has its own after."""
    results = family("t", 0.5, 0.9, 0.6, n=200)
    for seed in (0, 1):
        results += family("t", 0.5, 0.9, 0.8, n=200, size=50, seed=seed)
    results += family("t", 0.5, 0.9, 0.7, n=200, seed=1)
    unique = list(by_checkpoint(results).values())
    table = fig2.table(unique)
    assert table["size"].tolist() == [50, 200]
    assert table["n_train"].tolist() == [100, 400]
    assert table["n_seeds"].tolist() == [2, 2]
    assert table["forgotten"].tolist() == pytest.approx([0.8, 0.65])
    assert table["tuned"].tolist() == pytest.approx([0.9, 0.9])


def test_what_another_method_made_forgotten_is_analysed_alike_and_apart():
    """A relearned model, too: what starts at a forgotten one has its own kind."""
    results = family("t", 0.5, 0.9, 0.6)
    again = checkpoint_of("t", "true", start=results[2].checkpoint, n=8)
    scores = {
        "t/test": scores_with("t", "test", 0.8, 200),
        "t/train": scores_with("t", "train", 0.5, 8),
    }
    relearned = result_of(again, scores)
    assert len(fig2.table([*results, relearned])) == 1
    row = fig2.table([*results, relearned], "random > true").iloc[0]
    assert (row.tuned, row.forgotten, row["size"]) == pytest.approx((0.9, 0.8, 8))
    assert row.forget_ratio == pytest.approx(0.25)
    assert fig2.table([*results, relearned], "noise").empty


def test_what_is_no_table_has_no_columns():
    with pytest.raises(InputError, match=r"a table: expected columns a, found list.* Pass one"):
        intervals.require_columns("a table", [1], ["a"], "Pass one.")


def test_alike_seeds_are_as_good_as_more_examples():
    """Three seeds without differences between them: a standard error of n = 3 x 200."""
    group = np.repeat([[0.0], [1.0]], 100, axis=0)
    interval = intervals.bootstrap(lambda m: m[..., 0], [group] * 3, n_resamples=4000)
    expected = 2 * 1.96 * np.sqrt(0.25 / 600)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.06)


def test_another_task_s_labels_do_not_count_as_a_task_s_own():
    results = family("t", 0.5, 0.9, 0.6)
    crossed = checkpoint_of("t", "random", start=checkpoint_of("u", "true"))
    results[2] = moved(results[2], crossed)
    assert fig2.table(results).empty


# --- the control ---


def controlled(task, tuned, again, forgotten, **options):
    """A task's runs of part "control", with these test accuracies."""
    random = family(task, 0.5, tuned, forgotten, **options)
    true = family(task, 0.5, tuned, again, condition="true", **options)
    return [*random, true[2]]


def test_the_control_tells_what_is_lost_by_training_from_what_is_due_to_the_labels():
    results = controlled("t", 0.9, 0.8, 0.6) + controlled("u", 0.7, 0.75, 0.7)
    t, u = (row for _, row in fig2.control_table(results).iterrows())
    assert (t.eval_task, t.n, t.n_seeds) == ("t", 200, 1)
    assert (t.tuned, t.again, t.forgotten) == pytest.approx((0.9, 0.8, 0.6))
    assert (t.lost, t.lost_again, t.beyond_true_labels) == pytest.approx((0.3, 0.1, 0.2))
    assert t.beyond_true_labels_low > 0.1
    assert (u.lost, u.lost_again, u.beyond_true_labels) == pytest.approx((0, -0.05, 0.05))


def test_questions_of_the_control_are_paired_with_those_of_forgetting():
    """Each question of both is one row of the bootstrap: equal answers differ by exactly 0."""
    row = fig2.control_table(controlled("t", 0.9, 0.7, 0.7)).iloc[0]
    assert (row.beyond_true_labels, row.beyond_true_labels_low, row.beyond_true_labels_high) == (
        0,
        0,
        0,
    )
    assert row.again_low < 0.7 < row.again_high


def test_a_task_or_a_seed_without_its_control_does_not_count():
    results = controlled("t", 0.9, 0.8, 0.6) + family("t", 0.5, 0.9, 0.9, seed=1)
    table = fig2.control_table([*results, *family("u", 0.5, 0.9, 0.9)])
    assert list(table.columns[:4]) == ["model", "eval_task", "n", "n_seeds"]
    assert list(zip(table["model"], table["eval_task"], strict=True)) == [("tiny", "t")]
    row = table.iloc[0]
    assert (row.n_seeds, row.n, row.forgotten) == (1, 200, pytest.approx(0.6))
    only_the_other = controlled("t", 0.9, 0.8, 0.6)[:2] + results[3:]
    assert fig2.control_table(only_the_other).empty


def test_a_control_of_another_training_is_an_error():
    results = controlled("t", 0.9, 0.8, 0.6)
    other = with_training(results[3].checkpoint, learning_rate=1e-5)
    with pytest.raises(InputError) as raised:
        fig2.control_table([*results[:3], moved(results[3], other)])
    compared = replace(other, method=replace(other.method, labels="random"))
    assert str(raised.value) == (
        f"control of {results[2].checkpoint}: expected the same training, but for the labels, "
        f"found {compared!r} and {results[2].checkpoint!r}. Pass the results of one study."
    )


@pytest.mark.parametrize("place", [2, 3])
def test_what_is_recorded_and_probed_is_no_other_training(place):
    results = controlled("t", 0.9, 0.8, 0.6)
    dynamics = passing("t", [1] * 200, 3)
    probe, variance = probe_with(0.8)
    more = {"dynamics": dynamics, "probe": probe, "hidden_variance": variance}
    scores = {"t/test": results[place].scores["t/test"]}
    more = result_of(results[place].checkpoint, scores, **more)
    results[place] = replace(results[place], records=results[place].records + more.records[1:])
    assert len(fig2.control_table(results)) == 1


def test_a_control_on_other_test_examples_is_an_error():
    results = controlled("t", 0.9, 0.8, 0.6)
    shifted = controlled("t", 0.9, 0.8, 0.6, uid_offset=7)[3]
    with pytest.raises(InputError) as raised:
        fig2.control_table([*results[:3], shifted])
    said = (
        f"runs of {results[3].checkpoint}: expected the same test examples before and after, found"
    )
    assert str(raised.value).startswith(said)


# --- quantiles of replicates ---


def test_an_interval_needs_95_percent_of_its_replicates():
    replicates = np.where(np.arange(100) < 5, np.nan, np.linspace(0, 1, 100))
    assert np.isfinite(intervals.percentiles(0.5, replicates).low)
    replicates[5] = np.nan
    found = intervals.percentiles(0.5, replicates)
    assert found.value == 0.5 and np.isnan([found.low, found.high]).all()
    assert intervals.percentiles(0.5, np.array([0.25])) == intervals.Interval(0.5, 0.25, 0.25)
    assert np.isnan(intervals.percentiles(0.5, np.array([np.nan])).low)


# --- resamples and rank correlations ---


def test_resample_counts_say_how_often_each_example_was_drawn():
    ours = intervals.resample_counts(np.random.default_rng(5), 7, 40)
    drawn = np.random.default_rng(5).integers(7, size=(40, 7))
    assert (ours == [np.bincount(row, minlength=7) for row in drawn]).all()


def test_a_number_of_resamples_is_a_number():
    for draw in (intervals.resample_counts, intervals.seed_draws):
        arguments = (3, 0) if draw is intervals.resample_counts else (0, 3)
        with pytest.raises(
            InputError, match=r"^n_resamples: expected a whole number from 1, found 0"
        ):
            draw(np.random.default_rng(0), *arguments)
    assert intervals.resample_counts(np.random.default_rng(0), 3, 1).shape == (1, 3)
    assert intervals.seed_draws(np.random.default_rng(0), 1, 3).shape == (1, 3)
    assert intervals.seed_draws(np.random.default_rng(0), 5, 1).tolist() == [[0]] * 5


def test_a_bootstrap_draws_from_seed_0_and_at_least_once():
    groups = [np.random.default_rng(0).random((30, 1))]
    measures_of = {"mean": intervals.column(0)}
    own = intervals.bootstrap_each(measures_of, groups, 50)
    assert own == intervals.bootstrap_each(measures_of, groups, 50, seed=0)
    assert own != intervals.bootstrap_each(measures_of, groups, 50, seed=1)
    for wrong in (0, [3]):  # the second cannot be looked up among remembered draws
        said = rf"^n_resamples: expected a whole number from 1, found {re.escape(str(wrong))}"
        with pytest.raises(InputError, match=said):
            intervals.bootstrap_each(measures_of, groups, wrong)


def test_resampled_means_of_one_seed_are_those_of_a_loop():
    data = np.random.default_rng(0)
    group = data.random((40, 3))
    with warnings.catch_warnings(action="error"):  # one seed has no spread
        ours = intervals.resampled_means([group], rng=np.random.default_rng(1), n_resamples=4000)
    loop = np.array([group[data.integers(40, size=40)].mean(0) for _ in range(4000)])
    assert ours.mean(0) == pytest.approx(loop.mean(0), abs=0.07 * loop.std(0).max())
    assert np.cov(ours.T) == pytest.approx(np.cov(loop.T), rel=0.1, abs=2e-4)


def test_resampled_means_of_several_seeds_are_those_of_a_loop_with_the_seeds_noise():
    rng = np.random.default_rng(3)
    groups = [rng.random((n, 2)) * [1, 0.1] + offset for n, offset in ((8, 0), (2, 0.3))]
    draws = np.array([[0.5, -0.5], [0.2, 0.1], [9, -9], [-9, 9]])
    ours = intervals.resampled_means(groups, rng=np.random.default_rng(7), draws=draws)
    same = np.random.default_rng(7)
    counts = [intervals.resample_counts(same, len(g), 4) for g in groups]
    means = np.mean([c @ g / len(g) for c, g in zip(counts, groups, strict=True)], axis=0)
    of_examples = np.mean([g.var(0, ddof=1) / len(g) for g in groups], axis=0)  # of a mean
    noise = intervals.seed_noise(draws, np.array([g.mean(0) for g in groups]), of_examples)
    everything = np.concatenate(groups)
    expected = np.clip(means + noise, everything.min(0), everything.max(0))
    assert ours == pytest.approx(expected, rel=1e-12)
    assert (noise != 0).all()


@pytest.mark.parametrize("normal", [False, True])
def test_the_seeds_error_is_student_s_or_normal(normal):
    """Of means with no examples to resample, the interval is the textbook's."""
    of_seeds = np.array([[0.2], [0.3], [0.7], [0.4]])
    draws = intervals.seed_draws(np.random.default_rng(0), 200_000, 4, normal=normal)
    noise = intervals.seed_noise(draws, of_seeds, np.zeros(1))[:, 0]
    error = of_seeds.std(ddof=1) / 2
    law = scipy.stats.norm() if normal else scipy.stats.t(3)
    for level in (0.025, 0.25, 0.5, 0.975):
        assert np.quantile(noise, level) == pytest.approx(law.ppf(level) * error, abs=0.05 * error)


def test_seeds_that_differ_no_more_than_their_examples_explain_add_nothing():
    of_seeds = np.array([[0.60], [0.65]])
    draws = intervals.seed_draws(np.random.default_rng(0), 10, 2)
    assert not intervals.seed_noise(draws, of_seeds, np.array([0.01])).any()
    assert intervals.seed_noise(draws, of_seeds, np.array([0.001])).any()
    assert not intervals.seed_draws(np.random.default_rng(0), 10, 1).any()


def test_each_measurement_has_the_noise_of_its_own_seeds():
    """Of two columns: one whose seeds differ around 0.9, one in which they are equal."""
    of_seeds = np.array([[0.8, 0.3], [1.0, 0.3]])
    with np.errstate(all="raise"):
        noise = intervals.seed_noise(
            np.array([[1.0, 0.0], [0.5, 0.5]]), of_seeds, np.array([0.01, 0.0])
        )
    share = np.sqrt((0.02 - 0.01) / 0.02)  # of the variance, which the examples do not explain
    assert noise == pytest.approx(np.array([[-0.1 * share, 0], [0, 0]]))


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])
def test_an_interval_over_three_seeds_covers_the_truth(spread):
    """However much trainings differ: by nothing, as much as 200 questions do, or far more."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        accuracies = np.clip(0.7 + spread * rng.standard_normal(3), 0, 1)
        groups = [(rng.random((200, 1)) < p).astype(float) for p in accuracies]
        interval = intervals.bootstrap(intervals.column(0), groups, n_resamples=300)
        hits += interval.low <= 0.7 <= interval.high
    assert 0.915 <= hits / 300 <= 1


def test_no_mean_over_seeds_leaves_its_numbers_range():
    groups = [np.ones((50, 1)), np.r_[np.zeros((25, 1)), np.ones((25, 1))]]
    interval = intervals.bootstrap(intervals.column(0), groups)
    assert (interval.low, interval.high) == (0, 1)


@pytest.mark.parametrize("values", [4, 1000])
def test_rank_correlations_agree_with_scipy_with_ties_and_in_every_resample(values):
    rng = np.random.default_rng(values)
    x, y = rng.integers(values, size=(2, 30))
    counts = intervals.resample_counts(rng, 30, 50)
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


# --- intervals around a value ---


def test_an_interval_around_a_value_has_its_half_on_either_side():
    assert intervals.around(0.5, 0.125) == intervals.Interval(0.5, 0.375, 0.625)
    assert intervals.around(0.5, 1e-11).low < 0.5


@pytest.mark.parametrize("half", [0.0, 1e-13, float("nan")])
def test_a_width_that_is_0_or_undefined_makes_no_interval(half):
    found = intervals.around(0.5, half)
    assert found.value == 0.5 and np.isnan([found.low, found.high]).all()


# --- the jackknife ---


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


# --- errors ---


RUNS = family("t", 0.5, 0.9, 0.6)
OTHER_RECORDS = family("t", 0.5, 0.9, 0.6, uid_offset=7)[2].records


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
        (
            lambda: intervals.bootstrap(intervals.column(0), [np.zeros((3, 1)), np.zeros((2, 2))]),
            "bootstrap",
            "at least one (N, K) array with N >= 1, and one K",
            "[(3, 1), (2, 2)]",
            "Pass a list of arrays, one a seed.",
        ),
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
        (
            lambda: fig2.table([RUNS[0], RUNS[1], replace(RUNS[2], records=OTHER_RECORDS)]),
            f"runs of {RUNS[2].checkpoint}",
            "the same test examples before and after",
            "different ones",
            "They were made by different versions of the data: recompute the study.",
        ),
    ],
)
def test_an_error_says_what_was_expected_what_was_found_and_what_to_do(
    call, what, expected, found, do
):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == f"{what}: expected {expected}, found {found}. {do}"
