from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform
from statsmodels.stats.anova import anova_lm
from synthetic import (
    cross,
    dynamics_of,
    family,
    passing,
    probe_with,
    scores_of,
    spec_of,
)

from forgetlib import stats
from forgetlib.schema import InputError, Scores

accuracies = st.floats(0.51, 1.0)


def make(log_likelihoods, labels):
    values = np.array(log_likelihoods, np.float32)
    uids = tuple(f"t/test/{i}" for i in range(len(values)))
    return Scores(uids, values, np.ones(values.shape, np.int32), np.array(labels))


def test_the_prediction_is_the_likelier_choice_and_the_first_of_equal_ones():
    scores = make([[-1, -2], [-3, -1], [-1, -1]], [0, 0, 1])
    assert stats.predictions(scores).tolist() == [0, 1, 0]
    assert stats.correct(scores).tolist() == [True, False, False]


def test_confidence_is_the_true_response_s_share_of_the_probability():
    scores = make([[np.log(0.2), np.log(0.3)], [np.log(1e-30), np.log(1e-30)]], [1, 0])
    assert stats.confidence(scores) == pytest.approx([0.6, 0.5])


def test_confidence_survives_likelihoods_that_underflow():
    assert stats.confidence(make([[-2000, -2001]], [0])) == pytest.approx([1 / (1 + np.exp(-1))])


def test_choice_probs_agree_with_scipy():
    values = np.random.default_rng(0).normal(size=(20, 2)) * 5
    expected = scipy.special.softmax(values.astype(np.float32).astype(float), axis=1)
    assert stats.choice_probs(make(values, [0] * 20)) == pytest.approx(expected)


@given(accuracies)
def test_the_forget_ratio_is_one_at_chance_and_zero_where_nothing_is_lost(tuned):
    assert stats.forget_ratio(tuned, 0.5) == pytest.approx(1)
    assert stats.forget_ratio(tuned, tuned) == 0
    assert stats.flipped_forget_ratio(tuned, 1 - tuned) == pytest.approx(1)
    assert stats.flipped_forget_ratio(tuned, tuned) == 0


def test_the_forget_ratio_of_the_paper_s_formula():
    assert stats.forget_ratio(0.9, 0.6) == pytest.approx(0.75)
    assert stats.flipped_forget_ratio(0.9, 0.5) == pytest.approx(0.5)
    assert stats.forget_gap(0.69) == pytest.approx(0.19)


@pytest.mark.parametrize("tuned", [0.5, 0.4])
def test_there_is_no_ratio_where_there_was_nothing_to_forget(tuned):
    assert np.isnan(stats.forget_ratio(tuned, 0.45))


def test_bootstrap_over_examples_agrees_with_scipy():
    rng = np.random.default_rng(1)
    data = np.stack([rng.random(300) < 0.9, rng.random(300) < 0.6], axis=1).astype(float)

    def ratio(means):
        return (means[..., 0] - means[..., 1]) / (means[..., 0] - 0.5)

    ours = stats.bootstrap(ratio, [data], n_resamples=8000)
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
        interval = stats.bootstrap(lambda m: m[..., 0], [sample], n_resamples=400, seed=trial)
        hits += interval.low <= 0.7 <= interval.high
    assert 0.90 <= hits / 200 <= 0.99


def test_bootstrap_over_seeds_sees_what_differs_between_seeds():
    rng = np.random.default_rng(4)
    alike = [(rng.random((400, 1)) < 0.7).astype(float) for _ in range(3)]
    apart = [(rng.random((400, 1)) < p).astype(float) for p in (0.5, 0.7, 0.9)]

    def width(groups):
        interval = stats.bootstrap(lambda m: m[..., 0], groups)
        return interval.high - interval.low

    assert width(apart) > 3 * width(alike)


def test_bootstrap_is_repeatable_and_leaves_the_global_generator_alone():
    data = np.random.default_rng(0).random((50, 1))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (stats.bootstrap(lambda m: m[..., 0], [data]) for _ in range(2))
    assert first == second
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@pytest.mark.parametrize("groups", [[], [np.zeros((0, 1))], [np.zeros(3)]])
def test_bootstrap_refuses_no_data(groups):
    with pytest.raises(InputError, match="expected at least one"):
        stats.bootstrap(lambda m: m[..., 0], groups)


def test_the_tidy_table_has_one_measurement_a_row():
    results = family("t", 0.5, 0.9, 0.6, n=100)
    table = stats.table(results)
    assert len(table) == len(results) * 2 * 2  # data sets, metrics
    keys = ["run_id", "eval_task", "split", "metric"]
    assert not table.duplicated(keys).any()
    row = table.query("condition == 'true' and split == 'test' and metric == 'accuracy'")
    assert row["value"].item() == pytest.approx(0.9)
    assert row["n"].item() == 100


def test_forgetting_measures_what_was_put_in():
    results = family("kept", 0.6, 0.8, 0.8) + family("lost", 0.55, 0.9, 0.5)
    table = stats.forgetting(results).set_index("eval_task")
    kept, lost = table.loc["kept"], table.loc["lost"]
    assert (lost.base, lost.tuned, lost.forgotten) == pytest.approx((0.55, 0.9, 0.5))
    assert lost.forget_ratio == pytest.approx(1)
    assert lost.forget_gap == pytest.approx(0)
    assert (kept.forget_ratio, kept.forget_gap) == pytest.approx((0, 0.3))
    assert lost.forgetting_set == pytest.approx(0.5)
    assert lost.forgotten_low < 0.5 < lost.forgotten_high
    assert kept.behaviour == "kept"
    assert lost.behaviour == "below pre-trained"
    assert bool(kept.ratio_defined)


@pytest.mark.parametrize("forgotten", [0.7, 0.52, 0.5])
def test_what_is_lost_down_to_the_pre_trained_accuracy_is_below_fine_tuned(forgotten):
    table = stats.forgetting(family("t", 0.5, 0.9, forgotten))
    assert table["behaviour"].item() == "below fine-tuned"


def test_a_ratio_without_a_denominator_is_marked_as_undefined():
    row = stats.forgetting(family("t", 0.5, 0.52, 0.5, n=100)).iloc[0]
    assert not row.ratio_defined
    assert row.behaviour == "nothing to forget"
    assert np.isnan(row.forget_ratio_low)
    assert np.isnan(row.forget_ratio_high)


def test_seeds_are_averaged_and_counted():
    results = family("t", 0.5, 0.9, 0.6, seed=0) + family("t", 0.5, 0.9, 0.8, seed=1)
    row = stats.forgetting(results).iloc[0]
    assert (row.n_seeds, row.n) == (2, 400)
    assert row.forgotten == pytest.approx(0.7)


def test_flipped_labels_have_their_own_ratio():
    results = family("t", 0.5, 0.9, 0.1, condition="flipped")
    assert stats.forgetting(results).empty
    assert stats.forgetting(results, "flipped").forget_ratio.item() == pytest.approx(1)


def test_runs_on_other_test_examples_are_not_mixed():
    base, tuned, forgotten = family("t", 0.5, 0.9, 0.6)
    (other,) = [r for r in family("t", 0.5, 0.9, 0.6, uid_offset=7) if r.spec == base.spec]
    with pytest.raises(InputError, match="expected the same test examples before and after"):
        stats.forgetting([other, tuned, forgotten])


def with_n_eval(results, n_eval):
    """The same results as if their specs had asked for another number of test examples."""

    def changed(spec):
        start = None if spec.start is None else changed(spec.start)
        return replace(spec, n_eval=n_eval, start=start)

    return [replace(r, spec=changed(r.spec)) for r in results]


def test_runs_with_other_settings_are_not_averaged():
    results = family("t", 0.5, 0.9, 0.6)
    with pytest.raises(InputError, match="settings that differ in the seed and in the forgetting"):
        stats.forgetting(results + with_n_eval(results, 50))


def test_each_size_of_the_forgetting_set_has_a_row():
    """Paper, Fig. 7: the sizes share the runs before forgetting, and each has its own after."""
    results = family("t", 0.5, 0.9, 0.6, n=200)
    for seed in (0, 1):
        results += family("t", 0.5, 0.9, 0.8, n=200, size=50, seed=seed)
    results += family("t", 0.5, 0.9, 0.7, n=200, seed=1)
    unique = list({r.spec.run_id: r for r in results}.values())
    table = stats.forgetting(unique)
    assert table["size"].tolist() == [50, 200]
    assert table["n_train"].tolist() == [100, 400]
    assert table["n_seeds"].tolist() == [2, 2]
    assert table["forgotten"].tolist() == pytest.approx([0.8, 0.65])
    assert table["tuned"].tolist() == pytest.approx([0.9, 0.9])


def test_an_unknown_condition_is_named():
    with pytest.raises(InputError, match="expected one of random, flipped, found 'true'"):
        stats.forgetting([], "true")


def test_alike_seeds_are_as_good_as_more_examples():
    """Three seeds without differences between them: a standard error of n = 3 x 200."""
    group = np.repeat([[0.0], [1.0]], 100, axis=0)
    interval = stats.bootstrap(lambda m: m[..., 0], [group] * 3, n_resamples=4000)
    expected = 2 * 1.96 * np.sqrt(0.25 / 600)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.06)


def test_another_task_s_labels_do_not_count_as_a_task_s_own():
    results = family("t", 0.5, 0.9, 0.6)
    crossed = spec_of("t", "random", start=spec_of("u", "true"))
    results[2] = replace(results[2], spec=crossed)
    assert stats.forgetting(results).empty


# --- resamples and rank correlations ---


def test_resample_counts_say_how_often_each_example_was_drawn():
    ours = stats.resample_counts(np.random.default_rng(5), 7, 40)
    drawn = np.random.default_rng(5).integers(7, size=(40, 7))
    assert (ours == [np.bincount(row, minlength=7) for row in drawn]).all()


def test_resampled_means_are_those_of_a_loop_over_resamples_and_seeds():
    data = np.random.default_rng(0)
    groups = [data.random((n, 3)) + i for i, n in enumerate((40, 60, 50))]
    ours = stats.resampled_means(groups, rng=np.random.default_rng(1), n_resamples=4000)
    loop = []
    for _ in range(4000):
        picked = [groups[i] for i in data.integers(3, size=3)]
        loop.append(np.mean([g[data.integers(len(g), size=len(g))].mean(0) for g in picked], 0))
    loop = np.array(loop)
    spread = loop.std(0)
    assert ours.mean(0) == pytest.approx(loop.mean(0), abs=0.07 * spread.max())
    assert np.cov(ours.T) == pytest.approx(np.cov(loop.T), rel=0.1)


@pytest.mark.parametrize("values", [4, 1000])
def test_rank_correlations_agree_with_scipy_with_ties_and_in_every_resample(values):
    rng = np.random.default_rng(values)
    x, y = rng.integers(values, size=(2, 30))
    counts = stats.resample_counts(rng, 30, 50)
    for ours, count in zip(stats.rank_correlations(x, y, counts), counts.astype(int), strict=True):
        theirs = scipy.stats.spearmanr(np.repeat(x, count), np.repeat(y, count)).statistic
        assert ours == pytest.approx(theirs)


def test_a_constant_has_no_rank_correlation():
    counts = np.array([[1.0, 1, 1], [3, 0, 0]])
    found = stats.rank_correlations(np.array([1, 2, 3]), np.array([5, 6, 9]), counts)
    assert found[0] == pytest.approx(1)
    assert np.isnan(found[1])
    assert np.isnan(stats.rank_correlations(np.ones(3), np.arange(3), counts)).all()


# --- cross-task forgetting ---

TASKS = ("a", "b", "c")
TUNED = np.array([0.9, 0.8, 0.85])
FORGOTTEN = np.array([[0.6, 0.7, 0.85], [0.75, 0.55, 0.5], [0.8, 0.85, 0.65]])


@pytest.mark.parametrize("start", ["pairwise", "shared"])
@pytest.mark.parametrize("condition", ["random", "flipped"])
def test_cross_task_measures_what_was_put_in(start, condition):
    results = cross(TASKS, TUNED, FORGOTTEN, start=start, condition=condition)
    found = stats.cross_task(results, condition)
    floor = 0.5 if condition == "random" else 1 - TUNED[:, None]
    assert (found.model, found.condition, found.start) == ("tiny", condition, start)
    assert found.tasks == TASKS
    assert found.tuned == pytest.approx(TUNED)
    assert found.forgotten == pytest.approx(FORGOTTEN)
    expected = (TUNED[:, None] - FORGOTTEN) / (TUNED[:, None] - floor)
    assert found.forget_ratio == pytest.approx(expected)
    assert found.replicates.shape == (stats.N_RESAMPLES, 3, 3)
    assert found.n.tolist() == [200] * 3


def test_cross_task_is_a_loop_over_seeds_and_pairs():
    seeds = (0, 1, 2)
    results = cross(TASKS, TUNED, FORGOTTEN, seeds=seeds, n=50, rng=np.random.default_rng(0))
    found = stats.cross_task(results)
    assert (found.n_seeds, found.n.tolist()) == (3, [150] * 3)
    for i, evaluated in enumerate(TASKS):
        for j, forgotten in enumerate(TASKS):
            before, after = [], []
            for run in results:
                if run.spec.start_task == evaluated and run.spec.train_task == forgotten:
                    (start,) = [r for r in results if r.spec == run.spec.start]
                    test = f"{evaluated}/test"
                    before.append(stats.correct(start.scores[test]).mean())
                    after.append(stats.correct(run.scores[test]).mean())
            assert len(after) == 3
            assert found.forgotten[i, j] == pytest.approx(np.mean(after))
            ratio = stats.forget_ratio(np.mean(before), np.mean(after))
            assert found.forget_ratio[i, j] == pytest.approx(ratio)


def test_the_diagonal_is_the_task_s_own_forgetting():
    own = [r for t, *accuracies in (("a", 0.5, 0.9, 0.6),) for r in family(t, *accuracies)]
    found = stats.cross_task(own, n_resamples=500)
    row = stats.forgetting(own, n_resamples=500).iloc[0]
    (cell,) = stats.cross_table(found).to_dict("records")
    for name in ("forget_ratio", "forget_ratio_low", "forget_ratio_high"):
        assert cell[name] == pytest.approx(row[name])


def test_the_interval_of_a_pair_is_paired_as_scipy_s():
    rng = np.random.default_rng(3)
    results = cross(TASKS, TUNED, FORGOTTEN, n=300, rng=rng)
    found = stats.cross_task(results, n_resamples=6000)
    cell = stats.cross_table(found).query("eval_task == 'b' and forget_task == 'c'").iloc[0]
    outcomes = found.outcomes[1][0]
    theirs = scipy.stats.bootstrap(
        (outcomes[:, 0], outcomes[:, 3]),
        lambda a, b, axis: (a.mean(axis) - b.mean(axis)) / (a.mean(axis) - 0.5),
        paired=True,
        method="percentile",
        n_resamples=6000,
        rng=rng,
    ).confidence_interval
    assert cell.forget_ratio_low == pytest.approx(theirs.low, abs=0.02)
    assert cell.forget_ratio_high == pytest.approx(theirs.high, abs=0.02)


def test_a_row_s_cells_share_their_resample_and_rows_do_not():
    found = stats.cross_task(cross(TASKS, TUNED, FORGOTTEN, rng=np.random.default_rng(0)))
    correlation = np.corrcoef(found.replicates.reshape(-1, 9).T).reshape(3, 3, 3, 3)
    assert correlation[0, 1, 0, 2] > 0.2  # the fine-tuned accuracy is in both
    assert np.abs(correlation[0, :, 1, :]).max() < 0.08
    alike = stats.cross_task(cross(TASKS, TUNED, np.full((3, 3), 0.6)))
    assert (alike.replicates == alike.replicates[:, :, :1]).all()


def test_seeds_are_resampled_for_all_tasks_together():
    low = cross(TASKS, TUNED, FORGOTTEN, seeds=(0,))
    high = cross(TASKS, TUNED, FORGOTTEN - 0.2, seeds=(1,))
    found = stats.cross_task(low + high)
    correlation = np.corrcoef(found.replicates[:, 0, 0], found.replicates[:, 1, 1])
    assert correlation[0, 1] > 0.5


def test_a_task_that_was_never_learned_is_an_undefined_row():
    found = stats.cross_task(cross(TASKS, [0.9, 0.52, 0.85], FORGOTTEN))
    assert found.defined.tolist() == [True, False, True]
    assert np.isnan(found.forget_ratio[1]).all()
    assert np.isnan(found.replicates[:, 1]).all()
    table = stats.cross_table(found)
    assert len(table) == 9
    undefined = table[~table["ratio_defined"]]
    assert set(undefined["eval_task"]) == {"b"}
    assert (
        undefined[["forget_ratio", "forget_ratio_low", "forget_ratio_high"]].isna().all(axis=None)
    )
    assert np.isfinite(undefined["forgotten"]).all()


def test_smaller_forgetting_sets_and_other_conditions_are_left_aside():
    results = cross(TASKS, TUNED, FORGOTTEN)
    others = family("a", 0.5, 0.9, 0.7, size=50)
    others += cross(TASKS, TUNED, FORGOTTEN + 0.1, condition="flipped")
    unique = {r.spec.run_id: r for r in others} | {r.spec.run_id: r for r in results}
    found = stats.cross_task(unique.values())
    assert found.forgotten == pytest.approx(FORGOTTEN)


def test_what_only_records_more_is_the_same_setting():
    """The diagonal of a study is the own-task run, which is probed and recorded."""
    results = cross(TASKS, TUNED, FORGOTTEN)
    for i, result in enumerate(results):
        if result.spec.start_task == result.spec.train_task:
            train = replace(result.spec.train, record_steps=8)
            results[i] = replace(result, spec=replace(result.spec, train=train))
    assert stats.cross_task(results).forgotten == pytest.approx(FORGOTTEN)


def test_missing_pairs_are_named():
    results = cross(TASKS, TUNED, FORGOTTEN)
    pair = [r for r in results if (r.spec.start_task, r.spec.train_task) == ("a", "c")]
    with pytest.raises(InputError, match=r"found 1 pairs missing \(seed 0: a after c's labels\)"):
        stats.cross_task([r for r in results if r not in pair])
    with pytest.raises(InputError, match="every pair of the 2 tasks"):
        stats.cross_task(family("a", 0.5, 0.9, 0.6) + family("b", 0.5, 0.9, 0.6))
    with pytest.raises(InputError, match="found none among 3 results"):
        stats.cross_task(family("a", 0.5, 0.9, 0.6), "flipped")


@pytest.mark.parametrize(
    "other",
    [
        cross(TASKS, TUNED, FORGOTTEN, start="shared"),
        cross(TASKS, TUNED, FORGOTTEN, model="other"),
        with_n_eval(cross(TASKS, TUNED, FORGOTTEN), 50),
    ],
    ids=["start", "model", "setting"],
)
def test_starts_models_and_settings_are_not_mixed(other):
    with pytest.raises(InputError, match="expected one model, start and setting"):
        stats.cross_task(cross(TASKS, TUNED, FORGOTTEN) + other)


def test_cross_task_refuses_other_test_examples():
    results = cross(("a",), [0.9], [[0.6]])
    moved = scores_of("a", "test", np.arange(200) < 120, uid_offset=9)
    results[1] = replace(results[1], scores={**results[1].scores, "a/test": moved})
    with pytest.raises(InputError, match="the same test examples"):
        stats.cross_task(results)


def many(k):
    return [f"t{i}" for i in range(k)]


def shares(tuned, forgotten, *, n=200, rng=None, n_resamples=500):
    found = stats.cross_task(
        cross(many(len(tuned)), tuned, forgotten, n=n, rng=rng), n_resamples=n_resamples
    )
    return found, stats.variance_shares(found).set_index("source")


def test_the_uncorrected_shares_are_those_of_statsmodels_two_way_analysis():
    rng = np.random.default_rng(1)
    tuned = rng.uniform(0.75, 0.95, 5)
    tuned[3] = 0.5  # undefined: left out
    found, table = shares(tuned, rng.uniform(0.5, 0.75, (5, 5)))
    assert (table["n_tasks"] == 4).all()
    cells = stats.cross_table(found).query("ratio_defined")
    squares = anova_lm(smf.ols("forget_ratio ~ C(eval_task) + C(forget_task)", cells).fit())
    expected = squares["sum_sq"] / squares["sum_sq"].sum()
    assert table["uncorrected"].iloc[:3].to_numpy() == pytest.approx(expected.to_numpy())
    assert table["share"].iloc[:3].sum() == pytest.approx(1)
    difference = table["share"].iloc[0] - table["share"].iloc[1]
    assert table.loc["evaluated - forgotten", "share"] == pytest.approx(difference)


@pytest.mark.parametrize("side", ["evaluated task", "forgotten task"])
def test_a_pure_effect_of_one_side_is_all_of_the_variance(side):
    by_row = np.repeat(np.linspace(0.52, 0.8, 6)[:, None], 6, axis=1)
    forgotten = by_row if side == "evaluated task" else by_row.T
    _, table = shares(np.full(6, 0.85), forgotten, rng=np.random.default_rng(0))
    assert table.loc[side, "share"] > 0.93
    assert table.loc[side, "share_low"] > 0.75
    difference = table.loc["evaluated - forgotten"]
    if side == "evaluated task":
        assert difference.share_low > 0
    else:
        assert difference.share_high < 0


def test_sampling_error_alone_is_nobody_s_variance():
    """All true accuracies are equal; what is shared along a row must not look like an effect."""
    uncorrected, decided = [], 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        _, table = shares(np.full(6, 0.85), np.full((6, 6), 0.7), rng=rng, n_resamples=300)
        difference = table.loc["evaluated - forgotten"]
        uncorrected.append(difference.uncorrected)
        decided += not (
            np.isnan(difference.share) or difference.share_low < 0 < difference.share_high
        )
    assert np.mean(uncorrected) > 0.05  # the trap is there
    assert decided <= 2


def test_the_interval_of_the_difference_covers_the_truth():
    k, tuned = 6, np.full(6, 0.85)
    rows, columns = np.linspace(-0.1, 0.1, k), np.linspace(-0.07, 0.07, k)[[3, 0, 5, 2, 4, 1]]
    noise = np.random.default_rng(0).normal(0, 0.04, (k, k))
    truth = 0.68 + rows[:, None] + columns + noise
    ratio = (0.85 - truth) / 0.35
    frame = pd.DataFrame(
        {"ratio": ratio.ravel(), "row": np.repeat(range(k), k), "column": [*range(k)] * k}
    )
    squares = anova_lm(smf.ols("ratio ~ C(row) + C(column)", frame).fit())["sum_sq"]
    expected = (squares / squares.sum()).tolist()
    covered, estimates = np.zeros(3), []
    for trial in range(60):
        rng = np.random.default_rng(trial)
        _, table = shares(tuned, truth, rng=rng, n_resamples=300)
        low, high = table["share_low"].iloc[:3], table["share_high"].iloc[:3]
        covered += (low.to_numpy() <= expected) & (expected <= high.to_numpy())
        estimates.append(table["share"].iloc[:3])
    assert (covered >= 0.85 * 60).all()
    assert np.mean(estimates, axis=0) == pytest.approx(expected, abs=0.03)


def test_fewer_than_two_defined_tasks_have_no_shares():
    for tuned in ([0.9], [0.9, 0.5], [0.5, 0.5]):
        k = len(tuned)
        _, table = shares(tuned, np.full((k, k), 0.5))
        assert table[["share", "share_low", "share_high", "uncorrected"]].isna().all(axis=None)


def test_a_better_trigger_than_a_task_s_own_labels_is_found():
    forgotten = np.array([[0.75, 0.52, 0.7], [0.8, 0.55, 0.78], [0.8, 0.8, 0.5]])
    results = cross(TASKS, [0.9, 0.85, 0.52], forgotten, n=400, rng=np.random.default_rng(2))
    table = stats.own_against_others(stats.cross_task(results)).set_index("eval_task")
    a, b, c = (table.loc[t] for t in TASKS)
    assert (a.best_other, b.best_other) == ("b", "c")
    assert a.own == pytest.approx((0.9 - 0.75) / 0.4, abs=0.1)
    assert a.best_other_ratio == pytest.approx((0.9 - 0.52) / 0.4, abs=0.1)
    assert a.difference == pytest.approx(0.23, abs=0.05)
    assert a.difference_low > 0
    assert b.difference_high < 0
    assert pd.isna(c.best_other)
    assert not c.ratio_defined
    assert np.isnan([c.own, c.best_other_ratio, c.difference, c.difference_low]).all()


def test_the_difference_is_cross_fitted_as_a_loop_does_it():
    rng = np.random.default_rng(8)
    results = cross(many(4), np.full(4, 0.9), np.full((4, 4), 0.7), seeds=(0, 1), n=61, rng=rng)
    found = stats.cross_task(results)
    table = stats.own_against_others(found)
    for i in range(4):
        differences = []
        for half in (0, 1):
            means = [np.zeros(4), np.zeros(4)]  # chosen on, measured on
            for group in found.outcomes[i]:
                means[0] += group[half::2, 1:].mean(0) / 2
                means[1] += group[1 - half :: 2, 1:].mean(0) / 2
            best = min((j for j in range(4) if j != i), key=lambda j, m=means[0]: m[j])
            differences.append(means[1][i] - means[1][best])
        assert table["difference"][i] == pytest.approx(np.mean(differences))


def test_picking_the_best_of_many_does_not_bias_the_cross_fitted_difference():
    """With equal true accuracies the difference is 0, which the naive one is far from."""
    ours, naive, covered = [], [], []
    for trial in range(25):
        rng = np.random.default_rng(trial)
        results = cross(many(8), np.full(8, 0.9), np.full((8, 8), 0.7), n=100, rng=rng)
        found = stats.cross_task(results, n_resamples=200)
        table = stats.own_against_others(found)
        ours += table["difference"].tolist()
        covered += (table["difference_low"] <= 0).tolist()
        others = np.where(np.eye(8, dtype=bool), np.inf, found.forgotten)
        naive += (np.diag(found.forgotten) - others.min(1)).tolist()
    error = np.std(ours) / np.sqrt(len(ours))
    assert np.mean(ours) == pytest.approx(0, abs=3 * error)
    assert np.mean(naive) > 10 * error
    assert np.mean(covered) > 0.94


# --- clustering ---


def test_upgma_recovers_a_known_ultrametric_tree():
    """Points whose distances are ultrametric (by classical scaling): UPGMA finds the tree."""
    heights = np.array(
        [[0, 2, 6, 6, 9], [2, 0, 6, 6, 9], [6, 6, 0, 4, 9], [6, 6, 4, 0, 9], [9, 9, 9, 9, 0]], float
    )
    centre = np.eye(5) - 1 / 5
    values, vectors = np.linalg.eigh(-0.5 * centre @ heights**2 @ centre)
    points = vectors * np.sqrt(np.maximum(values, 0))
    shuffled = [3, 0, 4, 1, 2]
    order, tree = stats.upgma(points[shuffled])
    assert squareform(cophenet(tree)) == pytest.approx(heights[np.ix_(shuffled, shuffled)])
    assert tree[:, 2] == pytest.approx(linkage(points, "average")[:, 2])
    leaves = [shuffled[i] for i in order]
    assert 4 in (leaves[0], leaves[-1])
    assert abs(leaves.index(0) - leaves.index(1)) == 1
    assert abs(leaves.index(2) - leaves.index(3)) == 1


def test_upgma_uses_the_entries_that_both_rows_have():
    rng = np.random.default_rng(0)
    matrix = rng.random((6, 5))
    matrix[rng.random((6, 5)) < 0.25] = np.nan
    matrix[2] = np.nan
    rows = [0, 1, 3, 4, 5]
    distances = np.zeros((5, 5))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            common = [c for c in range(5) if np.isfinite(matrix[a, c] + matrix[b, c])]
            squares = sum((matrix[a, c] - matrix[b, c]) ** 2 for c in common)
            distances[i, j] = np.sqrt(squares * 5 / len(common))
    order, tree = stats.upgma(matrix)
    assert order[-1] == 2
    assert sorted(order) == list(range(6))
    assert tree[:, 2] == pytest.approx(linkage(squareform(distances), "average")[:, 2])


def test_upgma_of_next_to_nothing():
    for matrix in (np.full((3, 3), np.nan), np.array([[np.nan, np.nan], [1, 2]])):
        order, tree = stats.upgma(matrix)
        assert sorted(order) == list(range(len(matrix)))
        assert tree.shape == (0, 4)
    assert stats.upgma(np.array([[np.nan, np.nan], [1, 2]]))[0].tolist() == [1, 0]


def test_rows_with_no_column_in_common_are_as_far_apart_as_the_farthest():
    matrix = np.array([[1, np.nan], [np.nan, 1], [1.5, np.nan], [4, np.nan]])
    _, tree = stats.upgma(matrix)
    farthest = 3 * np.sqrt(2)
    assert set(tree[0, :2]) == {0, 2}
    assert tree[0, 2] == pytest.approx(0.5 * np.sqrt(2))
    assert tree[2, 2] == pytest.approx(farthest)


# --- agreement between models ---


def of_model(model, forgotten, *, tuned=None, tasks=None, condition="random", start="pairwise"):
    k = len(forgotten)
    tuned = np.full(k, 0.9) if tuned is None else tuned
    tasks = many(k) if tasks is None else tasks
    made = cross(tasks, tuned, forgotten, model=model, condition=condition, start=start)
    return stats.cross_task(made, condition, n_resamples=200)


def test_model_agreement_is_scipy_s_rank_correlation():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0.5, 0.9, (2, 8, 8))
    a, b = of_model("one", first), of_model("two", second)
    means, pairs = stats.model_agreement([a, b]).to_dict("records")
    assert (means["a"], means["b"]) == ("one, random", "two, random")
    assert (means["what"], pairs["what"]) == stats.AGREEMENTS
    expected = scipy.stats.spearmanr(a.forget_ratio.mean(1), b.forget_ratio.mean(1)).statistic
    assert means["rank_correlation"] == pytest.approx(expected)
    expected = scipy.stats.spearmanr(a.forget_ratio.ravel(), b.forget_ratio.ravel()).statistic
    assert pairs["rank_correlation"] == pytest.approx(expected)
    assert (means["n"], pairs["n"]) == (8, 64)
    theirs = scipy.stats.bootstrap(
        (a.forget_ratio.mean(1), b.forget_ratio.mean(1)),
        lambda x, y: scipy.stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        rng=rng,
    ).confidence_interval
    assert means["rank_correlation_low"] == pytest.approx(theirs.low, abs=0.08)
    assert means["rank_correlation_high"] == pytest.approx(theirs.high, abs=0.08)
    assert (
        pairs["rank_correlation_low"] < pairs["rank_correlation"] < pairs["rank_correlation_high"]
    )


def test_the_same_pattern_agrees_and_the_opposite_one_disagrees():
    pattern = np.linspace(0.5, 0.85, 6)[:, None] + np.linspace(0, 0.04, 6)
    nearly = np.array([0, 1, 2, 4, 3, 5])
    same = of_model("one", pattern)
    alike, opposite = of_model("two", pattern[nearly]), of_model("three", pattern[nearly[::-1]])
    table = stats.model_agreement([same, alike, opposite])
    assert table["b"].tolist() == [*["two, random"] * 2, *["three, random"] * 4]
    assert (table["rank_correlation"][:2] > 0.9).all()
    assert (table["rank_correlation_low"][:2] > 0.4).all()
    assert (table["rank_correlation_high"][2:4] < 0).all()


def test_a_perfect_order_has_no_interval_of_agreement():
    """Every resample of it is perfect too: an interval of no width would cover far too rarely."""
    pattern = np.linspace(0.5, 0.85, 6)[:, None] + np.linspace(0, 0.04, 6)
    table = stats.model_agreement([of_model("one", pattern), of_model("two", pattern)])
    assert table["rank_correlation"].tolist() == pytest.approx([1, 1])
    assert table[["rank_correlation_low", "rank_correlation_high"]].isna().all(axis=None)


def test_the_interval_of_agreement_covers_no_agreement_as_often_as_it_says():
    made, covered = of_model("m", np.full((8, 8), 0.7)), 0
    for trial in range(60):
        ratios = np.random.default_rng(trial).random((2, 8, 8))
        crosses = [replace(made, forget_ratio=ratio) for ratio in ratios]
        row = stats.model_agreement(crosses, n_resamples=300).iloc[0]
        covered += row.rank_correlation_low <= 0 <= row.rank_correlation_high
    assert covered >= 51


def test_agreement_is_over_the_tasks_that_both_have_and_that_are_defined_in_both():
    rng = np.random.default_rng(1)
    a = of_model("m", rng.uniform(0.5, 0.9, (6, 6)), tuned=[0.9, 0.9, 0.5, 0.9, 0.9, 0.9])
    b = of_model("m", rng.uniform(0.1, 0.9, (5, 5)), tasks=many(6)[1:], condition="flipped")
    means, pairs = stats.model_agreement([a, b]).to_dict("records")
    assert means["b"] == "m, flipped"
    assert (means["n"], pairs["n"]) == (4, 20)  # t1, t3, t4, t5 evaluated; t2 is forgotten too
    ours = a.forget_ratio[np.ix_([1, 3, 4, 5], range(1, 6))].mean(1)
    theirs = b.forget_ratio[[0, 2, 3, 4]].mean(1)
    expected = scipy.stats.spearmanr(ours, theirs).statistic
    assert means["rank_correlation"] == pytest.approx(expected)


def test_too_few_tasks_have_no_interval_of_agreement():
    rng = np.random.default_rng(2)
    for k in (1, 2, 3):
        crosses = [of_model(m, rng.uniform(0.5, 0.9, (k, k)), start="shared") for m in "ab"]
        table = stats.model_agreement(crosses)
        assert table[["rank_correlation_low", "rank_correlation_high"]].isna().all(axis=None)
        assert table["rank_correlation"].isna().all() == (k == 1)
    assert stats.model_agreement([crosses[0]]).empty


# --- predictors and single examples ---


def test_predictors_measure_what_was_put_in():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(200, 12)) * 3  # hidden states at the question's last token
    deviation = ((states - states.mean(0)) ** 2).sum(1)
    results = []
    for seed, forgotten in ((0, 0.6), (1, 0.7)):
        probes = [probe_with(0.6, deviation=deviation)] * 3
        results += family("t", 0.55, 0.9, forgotten, seed=seed, probes=probes)
        results += family("t", 0.55, 0.9, 0.9, seed=seed, probes=probes, size=20)[2:]
    results += family("nothing", 0.5, 0.51, 0.5)
    table = stats.predictors(results).set_index(["eval_task", "seed"])
    assert len(table) == 3
    assert table.loc["t", "forget_ratio"].tolist() == pytest.approx([0.75, 0.5])
    assert table.loc["t", "forget_gap"].tolist() == pytest.approx([0.1, 0.2])
    row = table.loc[("t", 0)]
    assert (row.base, row.tuned, row.forgotten, row.n) == pytest.approx((0.55, 0.9, 0.6, 200))
    assert row.confidence == pytest.approx(0.9 * 0.8 + 0.1 * 0.2)
    assert row.log_variance == pytest.approx(np.log(np.trace(np.cov(states.T))))
    undefined = table.loc[("nothing", 0)]
    assert np.isnan(undefined.forget_ratio)
    assert np.isnan(undefined.log_variance)
    assert undefined.tuned == pytest.approx(0.51)


def test_example_level_has_a_row_for_every_test_example():
    deviation = np.arange(100) + 0.5
    probes = [probe_with(0.6, 100), probe_with(0.6, 100, deviation=deviation), probe_with(0.6, 100)]
    results = family("t", 0.5, 0.9, 0.6, n=100, probes=probes) + family("u", 0.5, 0.9, 0.6, seed=3)
    table = stats.example_level(results)
    t, u = (table[table["eval_task"] == name] for name in "tu")
    assert (len(t), len(u)) == (100, 200)
    assert t["uid"].tolist() == [f"t/test/{i}" for i in range(100)]
    assert np.exp(t["log_deviation"]).tolist() == pytest.approx(deviation)
    assert u["log_deviation"].isna().all()
    assert (t["tuned_correct"].mean(), t["forgotten_correct"].mean()) == (0.9, 0.6)
    right = t["tuned_correct"] & ~t["forgotten_correct"]  # lost
    assert right.sum() == 30
    for phase, column in ((1, "confidence"), (2, "forgotten_confidence")):
        scores = results[phase].scores["t/test"]
        assert t[column].tolist() == pytest.approx(stats.confidence(scores).tolist())
    assert (u["seed"] == 3).all()


# --- the order of learning and forgetting ---


@pytest.mark.parametrize("direction", ["up", "down"])
def test_passing_steps_are_those_of_a_loop(direction):
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.2, 0.59, 0.6, 0.9], size=(6, 200)).astype(np.float32)
    confidence = np.where(np.arange(200) % 3 == 0, confidence[0], confidence)  # some never move
    steps = np.array([0, 3, 6, 9, 12, 14])
    # 0.6 in single precision is just above 0.6 in double: at the threshold counts as above
    found = stats.passing_steps(dynamics_of("t", confidence, steps), 0.6, direction)
    for n in range(200):
        above = [c >= 0.6 for c in confidence[:, n]]
        sides = above if direction == "up" else [not a for a in above]
        passed = next((s for s, beyond in zip(steps, sides, strict=True) if beyond), np.nan)
        expected = np.nan if sides[0] else passed
        assert found[n] == pytest.approx(expected, nan_ok=True)


def test_a_direction_is_up_or_down():
    with pytest.raises(InputError, match="expected 'up' or 'down', found 'left'"):
        stats.passing_steps(passing("t", [1, 2], 3), 0.6, "left")


def learned_and_forgotten(up, down, *, task="t", seed=0, n_steps=20):
    dynamics = passing(task, up, n_steps), passing(task, down, n_steps, upward=False)
    return family(task, 0.5, 0.9, 0.6, seed=seed, dynamics=dynamics)


def test_learned_first_and_forgotten_last_is_a_negative_rank_correlation():
    up = np.tile(np.arange(1, 11), 4)
    results = learned_and_forgotten(up, 19 - up) + learned_and_forgotten(up, up, task="u")
    table = stats.order(results).set_index("eval_task")
    for column in ("rank_correlation", "rank_correlation_low", "rank_correlation_high"):
        assert table[column].tolist() == pytest.approx([-1, 1])
    assert table["n"].tolist() == [40, 40]
    assert table["enough"].all()


def test_the_order_s_rank_correlation_and_interval_agree_with_scipy():
    rng = np.random.default_rng(4)
    up = rng.integers(1, 9, 150)  # many ties
    down = np.clip(12 - up + rng.integers(-5, 6, 150), 1, 19)
    row = stats.order(learned_and_forgotten(up, down)).iloc[0]
    assert row.rank_correlation == pytest.approx(scipy.stats.spearmanr(up, down).statistic)
    theirs = scipy.stats.bootstrap(
        (up, down),
        lambda x, y: scipy.stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1500,
        rng=rng,
    ).confidence_interval
    assert row.rank_correlation_low == pytest.approx(theirs.low, abs=0.03)
    assert row.rank_correlation_high == pytest.approx(theirs.high, abs=0.03)


def test_steps_in_no_order_have_an_interval_around_zero_as_often_as_it_says():
    covered = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        up, down = rng.integers(1, 8, (2, 60))
        row = stats.order(learned_and_forgotten(up, down), n_resamples=300).iloc[0]
        covered += row.rank_correlation_low <= 0 <= row.rank_correlation_high
    assert covered >= 88


def test_seeds_are_correlated_one_by_one_and_weighted_by_their_examples():
    """A seed that learns and forgets everything later must not look like an order."""
    rng = np.random.default_rng(0)
    up, down = rng.integers(1, 6, (2, 90))
    late_up, late_down = rng.integers(12, 19, (2, 30))
    results = learned_and_forgotten(up, down)
    results += learned_and_forgotten(late_up, late_down, seed=1)
    row = stats.order(results).iloc[0]
    each = [scipy.stats.spearmanr(*pair).statistic for pair in ((up, down), (late_up, late_down))]
    assert row.rank_correlation == pytest.approx(np.average(each, weights=[90, 30]))
    assert row.n == 120
    pooled = scipy.stats.spearmanr([*up, *late_up], [*down, *late_down]).statistic
    assert pooled > 0.4 > abs(row.rank_correlation)


def test_every_training_example_has_one_fate():
    confidence = {  # before and after three steps of fine-tuning; the same of forgetting
        "n": ([0.1, 0.7, 0.7], [0.7, 0.7, 0.1]),
        "n_known": ([0.6, 0.7, 0.7], [0.7, 0.7, 0.1]),
        "n_never_learned": ([0.1, 0.2, 0.5], [0.5, 0.7, 0.1]),
        "n_fell_back": ([0.1, 0.7, 0.5], [0.5, 0.7, 0.1]),
        "n_never_forgotten": ([0.1, 0.7, 0.7], [0.7, 0.7, 0.65]),
    }
    repeats = {name: i + 2 for i, name in enumerate(confidence)}
    columns = [confidence[name] for name, count in repeats.items() for _ in range(count)]
    tuned, forgotten = (np.array([c[i] for c in columns]).T for i in (0, 1))
    dynamics = dynamics_of("t", tuned), dynamics_of("t", forgotten)
    results = family("t", 0.5, 0.9, 0.6, dynamics=dynamics)
    row = stats.order(results).iloc[0]
    assert {name: row[name] for name in repeats} == repeats
    assert not row.enough
    assert stats.order(results, min_examples=2)["enough"].item()
    examples = stats.order_examples(results)
    assert examples["uid"].tolist() == ["t/train/0", "t/train/1"]
    assert examples["learned_step"].tolist() == [1, 1]
    assert examples["forgotten_step"].tolist() == [2, 2]
    assert examples.columns.tolist()[:3] == ["model", "eval_task", "seed"]


@pytest.mark.parametrize("up", [[], [3], [3, 3, 3]])
def test_too_few_examples_have_no_order_and_no_interval(up):
    never = [-1] * 5
    row = stats.order(learned_and_forgotten([*up, *never], [*up, *never])).iloc[0]
    assert row.n == len(up)
    assert not row.enough
    intervals = row[["rank_correlation", "rank_correlation_low", "rank_correlation_high"]]
    assert intervals.isna().all()


def test_runs_without_dynamics_have_no_order():
    assert stats.order(family("t", 0.5, 0.9, 0.6)).empty
    assert stats.order_examples(family("t", 0.5, 0.9, 0.6)).empty


def test_the_forgetting_set_is_matched_by_uid():
    up = np.arange(1, 31) % 15 + 1
    (base, tuned, forgotten) = learned_and_forgotten(up, 19 - up)
    mixed = np.random.default_rng(0).permutation(30)
    recorded = forgotten.dynamics
    shuffled = replace(
        recorded,
        uids=tuple(recorded.uids[i] for i in mixed),
        confidence=recorded.confidence[:, mixed],
    )
    row = stats.order([base, tuned, replace(forgotten, dynamics=shuffled)]).iloc[0]
    assert row.rank_correlation == pytest.approx(-1)
    foreign = replace(recorded, uids=("t/train/99", *recorded.uids[1:]))
    with pytest.raises(InputError, match="found 1 others, first 't/train/99'"):
        stats.order([base, tuned, replace(forgotten, dynamics=foreign)])


# --- probes ---


def probed(task="t", seed=0, n=80, accuracies=(0.55, 0.9, 0.8), rng=None):
    probes = [probe_with([0.5, a, 0.6], n, rng=rng) for a in accuracies]
    return family(task, 0.5, 0.9, 0.6, seed=seed, n=n, probes=probes)


def test_probe_accuracy_is_a_loop_over_phases_layers_and_pairs():
    rng = np.random.default_rng(0)
    results = probed(rng=rng, n=60) + probed(rng=rng, n=60, seed=1)
    table = stats.probe_accuracy(results).set_index(["phase", "layer"])
    assert len(table) == 9
    for place, phase in enumerate(stats.PROBED_PHASES):
        for layer in range(3):
            row = table.loc[(phase, layer)]
            for name, field in (("accuracy", "correct"), ("control", "control")):
                right = [getattr(results[3 * s + place].probe, field)[layer] for s in (0, 1)]
                assert row[name] == pytest.approx(np.mean([r.mean() for r in right]))
                assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
            assert row["n"] == 2 * 60 * 2
            assert row["is_paper_layer"] == (layer == 1)


def test_a_probe_s_pairs_of_an_example_are_resampled_together():
    """Two pairs that are right together count as one, so the interval is wider by sqrt(2)."""
    right = np.random.default_rng(0).random((1, 400, 1)) < 0.7
    alone = np.random.default_rng(1).random((1, 400, 2)) < 0.7
    widths = []
    for correct in (np.repeat(right, 2, axis=2), alone):
        probe = replace(probe_with(0.7, 400, layers=(0,)), correct=correct)
        results = family("t", 0.5, 0.9, 0.6, n=400, probes=[probe] * 3)
        row = stats.probe_accuracy(results).iloc[0]
        widths.append(row.accuracy_high - row.accuracy_low)
        theirs = scipy.stats.bootstrap(
            (correct[0].mean(1),), np.mean, method="percentile", n_resamples=3000, rng=0
        ).confidence_interval
        assert row.accuracy_low == pytest.approx(theirs.low, abs=0.006)
        assert row.accuracy_high == pytest.approx(theirs.high, abs=0.006)
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(2), rel=0.1)


def test_probe_recovery_is_the_paired_difference_at_the_paper_s_layer():
    row = stats.probe_recovery(probed()).iloc[0]
    assert (row.fine_tuned, row.forgotten, row.difference) == pytest.approx((0.9, 0.8, -0.1))
    assert (row.layer, row.n) == (1, 160)
    assert row.difference_high < 0


def test_probe_recovery_of_the_same_probe_is_exactly_zero():
    rng = np.random.default_rng(0)
    same = probe_with(0.7, 80, rng=rng)
    row = stats.probe_recovery(family("t", 0.5, 0.9, 0.6, n=80, probes=[same] * 3)).iloc[0]
    assert (row.difference, row.difference_low, row.difference_high) == (0, 0, 0)
    assert row.fine_tuned_low < row.fine_tuned < row.fine_tuned_high


def test_runs_without_probes_have_no_probe_accuracy():
    assert stats.probe_accuracy(family("t", 0.5, 0.9, 0.6)).empty
    assert stats.probe_recovery(family("t", 0.5, 0.9, 0.6)).empty
