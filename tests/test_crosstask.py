"""Cross-task forgetting against loops, SciPy and statsmodels, on matrices whose truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform
from statsmodels.stats.anova import anova_lm
from synthetic import cross, family, scores_of, with_n_eval

from forgetlib import crosstask, stats
from forgetlib.schema import InputError

TASKS = ("a", "b", "c")
TUNED = np.array([0.9, 0.8, 0.85])
FORGOTTEN = np.array([[0.6, 0.7, 0.85], [0.75, 0.55, 0.5], [0.8, 0.85, 0.65]])


@pytest.mark.parametrize("start", ["pairwise", "shared"])
@pytest.mark.parametrize("condition", ["random", "flipped"])
def test_cross_task_measures_what_was_put_in(start, condition):
    results = cross(TASKS, TUNED, FORGOTTEN, start=start, condition=condition)
    found = crosstask.cross_task(results, condition)
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
    found = crosstask.cross_task(results)
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
    found = crosstask.cross_task(own, n_resamples=500)
    row = stats.forgetting(own, n_resamples=500).iloc[0]
    (cell,) = crosstask.cross_table(found).to_dict("records")
    for name in ("forget_ratio", "forget_ratio_low", "forget_ratio_high"):
        assert cell[name] == pytest.approx(row[name])


def test_the_interval_of_a_pair_is_paired_as_scipy_s():
    rng = np.random.default_rng(3)
    results = cross(TASKS, TUNED, FORGOTTEN, n=300, rng=rng)
    found = crosstask.cross_task(results, n_resamples=6000)
    cell = crosstask.cross_table(found).query("eval_task == 'b' and forget_task == 'c'").iloc[0]
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
    found = crosstask.cross_task(cross(TASKS, TUNED, FORGOTTEN, rng=np.random.default_rng(0)))
    correlation = np.corrcoef(found.replicates.reshape(-1, 9).T).reshape(3, 3, 3, 3)
    assert correlation[0, 1, 0, 2] > 0.2  # the fine-tuned accuracy is in both
    assert np.abs(correlation[0, :, 1, :]).max() < 0.08
    alike = crosstask.cross_task(cross(TASKS, TUNED, np.full((3, 3), 0.6)))
    assert (alike.replicates == alike.replicates[:, :, :1]).all()


def test_seeds_are_resampled_for_all_tasks_together():
    low = cross(TASKS, TUNED, FORGOTTEN, seeds=(0,))
    high = cross(TASKS, TUNED, FORGOTTEN - 0.2, seeds=(1,))
    found = crosstask.cross_task(low + high)
    correlation = np.corrcoef(found.replicates[:, 0, 0], found.replicates[:, 1, 1])
    assert correlation[0, 1] > 0.5


def test_a_task_that_was_never_learned_is_an_undefined_row():
    found = crosstask.cross_task(cross(TASKS, [0.9, 0.52, 0.85], FORGOTTEN))
    assert found.defined.tolist() == [True, False, True]
    assert np.isnan(found.forget_ratio[1]).all()
    assert np.isnan(found.replicates[:, 1]).all()
    table = crosstask.cross_table(found)
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
    found = crosstask.cross_task(unique.values())
    assert found.forgotten == pytest.approx(FORGOTTEN)


def test_what_only_records_more_is_the_same_setting():
    """The diagonal of a study is the own-task run, which is probed and recorded."""
    results = cross(TASKS, TUNED, FORGOTTEN)
    for i, result in enumerate(results):
        if result.spec.start_task == result.spec.train_task:
            train = replace(result.spec.train, record_steps=8)
            results[i] = replace(result, spec=replace(result.spec, train=train))
    assert crosstask.cross_task(results).forgotten == pytest.approx(FORGOTTEN)


def test_missing_pairs_are_named():
    results = cross(TASKS, TUNED, FORGOTTEN)
    pair = [r for r in results if (r.spec.start_task, r.spec.train_task) == ("a", "c")]
    with pytest.raises(InputError, match=r"found 1 pairs missing \(seed 0: a after c's labels\)"):
        crosstask.cross_task([r for r in results if r not in pair])
    with pytest.raises(InputError, match="every pair of the 2 tasks"):
        crosstask.cross_task(family("a", 0.5, 0.9, 0.6) + family("b", 0.5, 0.9, 0.6))
    with pytest.raises(InputError, match="found none among 3 results"):
        crosstask.cross_task(family("a", 0.5, 0.9, 0.6), "flipped")


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
        crosstask.cross_task(cross(TASKS, TUNED, FORGOTTEN) + other)


def test_cross_task_refuses_other_test_examples():
    results = cross(("a",), [0.9], [[0.6]])
    moved = scores_of("a", "test", np.arange(200) < 120, uid_offset=9)
    results[1] = replace(results[1], scores={**results[1].scores, "a/test": moved})
    with pytest.raises(InputError, match="the same test examples"):
        crosstask.cross_task(results)


def many(k):
    return [f"t{i}" for i in range(k)]


def shares(tuned, forgotten, *, n=200, rng=None, n_resamples=500):
    found = crosstask.cross_task(
        cross(many(len(tuned)), tuned, forgotten, n=n, rng=rng), n_resamples=n_resamples
    )
    return found, crosstask.variance_shares(found).set_index("source")


def test_the_uncorrected_shares_are_those_of_statsmodels_two_way_analysis():
    rng = np.random.default_rng(1)
    tuned = rng.uniform(0.75, 0.95, 5)
    tuned[3] = 0.5  # undefined: left out
    found, table = shares(tuned, rng.uniform(0.5, 0.75, (5, 5)))
    assert (table["n_tasks"] == 4).all()
    cells = crosstask.cross_table(found).query("ratio_defined")
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
    table = crosstask.own_against_others(crosstask.cross_task(results)).set_index("eval_task")
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
    found = crosstask.cross_task(results)
    table = crosstask.own_against_others(found)
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
        found = crosstask.cross_task(results, n_resamples=200)
        table = crosstask.own_against_others(found)
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
    order, tree = crosstask.upgma(points[shuffled])
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
    order, tree = crosstask.upgma(matrix)
    assert order[-1] == 2
    assert sorted(order) == list(range(6))
    assert tree[:, 2] == pytest.approx(linkage(squareform(distances), "average")[:, 2])


def test_upgma_of_next_to_nothing():
    for matrix in (np.full((3, 3), np.nan), np.array([[np.nan, np.nan], [1, 2]])):
        order, tree = crosstask.upgma(matrix)
        assert sorted(order) == list(range(len(matrix)))
        assert tree.shape == (0, 4)
    assert crosstask.upgma(np.array([[np.nan, np.nan], [1, 2]]))[0].tolist() == [1, 0]


def test_rows_with_no_column_in_common_are_as_far_apart_as_the_farthest():
    matrix = np.array([[1, np.nan], [np.nan, 1], [1.5, np.nan], [4, np.nan]])
    _, tree = crosstask.upgma(matrix)
    farthest = 3 * np.sqrt(2)
    assert set(tree[0, :2]) == {0, 2}
    assert tree[0, 2] == pytest.approx(0.5 * np.sqrt(2))
    assert tree[2, 2] == pytest.approx(farthest)


# --- an evaluated task's mean ---


def test_evaluated_means_are_the_rows_means_with_an_interval_that_covers_the_truth():
    """100 studies with a known mean: about 95 of their intervals include it."""
    tuned, forgotten = np.array([0.9, 0.8]), np.array([[0.7, 0.6], [0.75, 0.65]])
    truth = ((tuned[:, None] - forgotten) / (tuned[:, None] - 0.5)).mean(1)
    covered = np.zeros(2)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        results = cross(("t", "u"), tuned, forgotten, n=300, rng=rng)
        found = crosstask.cross_task(results, n_resamples=200)
        table = crosstask.evaluated_means(found)
        assert table["mean_ratio"].tolist() == pytest.approx(found.forget_ratio.mean(1).tolist())
        covered += (table["mean_ratio_low"] <= truth) & (truth <= table["mean_ratio_high"])
    assert (covered >= 87).all()
    found = crosstask.cross_task(cross(TASKS, [0.9, 0.8, 0.5], FORGOTTEN))
    undefined = crosstask.evaluated_means(found)
    assert undefined["ratio_defined"].tolist() == [True, True, False]
    assert undefined.iloc[-1][["mean_ratio", "mean_ratio_low"]].isna().all()


# --- agreement between models ---


def of_model(model, forgotten, *, tuned=None, tasks=None, condition="random", start="pairwise"):
    k = len(forgotten)
    tuned = np.full(k, 0.9) if tuned is None else tuned
    tasks = many(k) if tasks is None else tasks
    made = cross(tasks, tuned, forgotten, model=model, condition=condition, start=start)
    return crosstask.cross_task(made, condition, n_resamples=200)


def test_model_agreement_is_scipys_rank_correlation_of_the_rows_means():
    first, second = np.random.default_rng(0).uniform(0.5, 0.9, (2, 8, 8))
    a, b = of_model("one", first), of_model("two", second)
    (row,) = crosstask.model_agreement([a, b]).to_dict("records")
    assert (row["a"], row["b"], row["n"]) == ("one, random", "two, random", 8)
    expected = scipy.stats.spearmanr(a.forget_ratio.mean(1), b.forget_ratio.mean(1)).statistic
    assert row["rank_correlation"] == pytest.approx(expected)
    interval = stats.rank_correlation(a.forget_ratio.mean(1), b.forget_ratio.mean(1))
    ends = row["rank_correlation_low"], row["rank_correlation_high"]
    assert ends == pytest.approx((interval.low, interval.high))


def test_the_same_pattern_agrees_and_the_opposite_one_disagrees():
    pattern = np.linspace(0.5, 0.85, 6)[:, None] + np.linspace(0, 0.04, 6)
    same, alike = of_model("one", pattern), of_model("two", pattern)
    opposite = of_model("three", pattern[::-1])
    table = crosstask.model_agreement([same, alike, opposite])
    pairs = [("one", "two"), ("one", "three"), ("two", "three")]
    expected = [[f"{name}, random" for name in pair] for pair in pairs]
    assert table[["a", "b"]].to_numpy().tolist() == expected
    assert table["rank_correlation"].tolist() == pytest.approx([1, -1, -1])
    assert table["rank_correlation_low"][0] > 0
    assert (table["rank_correlation_high"][1:] < 0).all()


def test_agreement_is_over_the_tasks_that_both_have_and_that_are_defined_in_both():
    rng = np.random.default_rng(1)
    a = of_model("m", rng.uniform(0.5, 0.9, (6, 6)), tuned=[0.9, 0.9, 0.5, 0.9, 0.9, 0.9])
    b = of_model("m", rng.uniform(0.1, 0.9, (5, 5)), tasks=many(6)[1:], condition="flipped")
    (row,) = crosstask.model_agreement([a, b]).to_dict("records")
    assert (row["b"], row["n"]) == ("m, flipped", 4)  # t1, t3, t4, t5; t2 is forgotten too
    ours = a.forget_ratio[np.ix_([1, 3, 4, 5], range(1, 6))].mean(1)
    theirs = b.forget_ratio[[0, 2, 3, 4]].mean(1)
    expected = scipy.stats.spearmanr(ours, theirs).statistic
    assert row["rank_correlation"] == pytest.approx(expected)


def test_too_few_tasks_have_no_interval_of_agreement():
    rng = np.random.default_rng(2)
    for k in (1, 2, 3):
        crosses = [of_model(m, rng.uniform(0.5, 0.9, (k, k)), start="shared") for m in "ab"]
        table = crosstask.model_agreement(crosses)
        assert table["a"].item() == ("a, random" if k == 1 else "a, random, shared")
        assert table[["rank_correlation_low", "rank_correlation_high"]].isna().all(axis=None)
        assert table["rank_correlation"].isna().all() == (k == 1)
    assert crosstask.model_agreement([crosses[0]]).empty


def test_models_without_a_common_task_have_no_agreement():
    crosses = [of_model("m", np.full((1, 1), 0.6), tasks=[task]) for task in "ab"]
    (row,) = crosstask.model_agreement(crosses).to_dict("records")
    assert row["n"] == 0
    assert np.isnan(row["rank_correlation"])


@pytest.mark.parametrize("model", ["gpt-j-6b", "EleutherAI/gpt-j-6b", "/data/models/gpt-j-6b/"])
def test_models_are_named_without_their_owner_or_folder(model):
    made = of_model(model, np.full((2, 2), 0.6))
    assert crosstask.short_name(model) == "gpt-j-6b"
    assert set(crosstask.model_agreement([made, made])["b"]) == {"gpt-j-6b, random"}
    assert crosstask.cross_table(made)["model"].unique().tolist() == [model]
