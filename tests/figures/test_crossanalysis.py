"""What is asked of matrices against statsmodels, SciPy, loops and known truths."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from statsmodels.stats.anova import anova_lm
from synthetic import cross
from tables import many

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import crossanalysis, crosstask, effects, fig3, intervals, names

TASKS = ("a", "b", "c")
FORGOTTEN = np.array([[0.6, 0.7, 0.85], [0.75, 0.55, 0.5], [0.8, 0.85, 0.65]])


def shares(tuned, forgotten, *, n=200, rng=None, n_resamples=500):
    found = crosstask.cross_task(
        cross(many(len(tuned)), tuned, forgotten, n=n, rng=rng), n_resamples=n_resamples
    )
    return found, crossanalysis.variance_shares(effects.ratios(found)).set_index("source")


def test_the_uncorrected_shares_are_those_of_statsmodels_two_way_analysis():
    """Each mean square is the rest's plus a multiple of the component (Henderson's method 1)."""
    rng = np.random.default_rng(1)
    tuned = rng.uniform(0.75, 0.95, 6)
    tuned[3] = 0.5  # undefined: left out, so that there are fewer rows than columns
    rows, columns = np.linspace(0, 0.2, 6), np.linspace(0, 0.1, 6)[[2, 0, 5, 1, 4, 3]]
    found, table = shares(tuned, 0.5 + rows[:, None] + columns + rng.uniform(0, 0.03, (6, 6)))
    assert (table["n_tasks"] == 5).all()
    cells = fig3.table(found).query("ratio_defined")
    analysis = anova_lm(smf.ols("forget_ratio ~ C(eval_task) + C(forget_task)", cells).fit())
    by_row, by_column, rest = analysis["sum_sq"] / analysis["df"]
    components = np.array([(by_row - rest) / 6, (by_column - rest) / 5, rest])
    assert (components > 0).all()
    expected = components / components.sum()
    assert table["uncorrected"].to_numpy() == pytest.approx(expected)
    assert table["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize("side", ["evaluated task", "forgotten task"])
def test_a_pure_effect_of_one_side_is_all_of_the_variance(side):
    by_row = np.repeat(np.linspace(0.52, 0.8, 6)[:, None], 6, axis=1)
    forgotten = by_row if side == "evaluated task" else by_row.T
    _, table = shares(np.full(6, 0.85), forgotten, rng=np.random.default_rng(0))
    other = "forgotten task" if side == "evaluated task" else "evaluated task"
    assert table.loc[side, "share"] > 0.93
    assert table.loc[side, "share_low"] > 0.75
    assert table.loc[side, "tasks_low"] > 0.75
    assert table.loc[other, ["share_high", "tasks_high"]].max() < 0.2


def test_sampling_error_alone_is_nobody_s_variance():
    """All true accuracies are equal; what is shared along a row must not look like an effect."""
    uncorrected, decided = [], 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        _, table = shares(np.full(6, 0.85), np.full((6, 6), 0.7), rng=rng, n_resamples=300)
        evaluated, forgotten = table.loc["evaluated task"], table.loc["forgotten task"]
        uncorrected.append(evaluated.uncorrected - forgotten.uncorrected)
        decided += evaluated.share_low > 0
    assert np.mean(uncorrected) > 0.05  # the trap is there
    assert decided <= 2


def exact(ratio):
    """A CrossTask with these ratios (K, K), known without sampling error."""
    k = len(ratio)
    found = crosstask.cross_task(cross(many(k), np.full(k, 0.9), np.full((k, k), 0.7), n=20))
    return replace(found, forget_ratio=ratio, replicates=np.stack([ratio, ratio]))


@pytest.mark.parametrize("n_undefined", [0, 2])
def test_components_of_no_effect_are_0_on_average_for_rows_and_columns_alike(n_undefined):
    """Raw sums of squares would give the fewer rows 3/23 and the columns 5/23 of the variance."""
    rng = np.random.default_rng(0)
    cells = rng.random((4000, 6 - n_undefined, 6))
    found = crossanalysis._components(cells)
    error = found.std(0) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - [0, 0, 1 / 12]) < 4 * error).all()


@pytest.mark.parametrize("n_undefined", [0, 2])
def test_random_cells_are_not_called_an_effect_of_the_evaluated_task(n_undefined):
    base, above_half = exact(np.full((6, 6), 0.5)), 0
    for trial in range(200):
        ratio = np.random.default_rng(trial).random((6, 6))
        ratio[6 - n_undefined :] = np.nan
        both = replace(base, forget_ratio=ratio, replicates=np.stack([ratio, ratio]))
        table = crossanalysis.variance_shares(effects.ratios(both)).set_index("source")
        assert (table["n_tasks"] == 6 - n_undefined).all()
        above_half += table.loc["evaluated task", "tasks_low"] > 0.5
    assert above_half <= 2


@pytest.mark.parametrize("k", [6, 21])
def test_the_interval_over_tasks_covers_a_share_of_one_half(k):
    """Tasks are drawn too: their effect has the variance of everything else together."""
    base, covered, above = exact(np.full((k, k), 0.5)), [], []
    rng = np.random.default_rng(0)
    for _ in range(150):
        by_row, by_column = rng.normal(size=(k, 1)), np.sqrt(0.5) * rng.normal(size=k)
        ratio = by_row + by_column + np.sqrt(0.5) * rng.normal(size=(k, k))
        both = replace(base, forget_ratio=ratio, replicates=np.stack([ratio, ratio]))
        row = crossanalysis.variance_shares(effects.ratios(both)).iloc[0]
        covered.append(row.tasks_low <= 0.5 <= row.tasks_high)
        above.append(row.tasks_low > 0.5)
    assert np.mean(covered) > 0.88
    assert np.mean(above) < 0.06


def test_the_interval_over_tasks_is_a_loop_that_leaves_out_each_task():
    rng = np.random.default_rng(3)
    forgotten = np.linspace(0.5, 0.75, 7)[:, None] + 0.05 * rng.random((7, 7))
    tuned = np.full(7, 0.9)
    tuned[2] = 0.5  # a column only
    found, table = shares(tuned, forgotten, rng=rng)
    rows = [i for i in range(7) if i != 2]
    noise = found.replicates - found.replicates.mean(0)
    without = []
    for task in range(7):
        kept = np.ix_([i for i in rows if i != task], [j for j in range(7) if j != task])
        components = crossanalysis._components(found.forget_ratio[kept])
        components = components - np.mean(
            [crossanalysis._components(d[kept]) for d in noise], axis=0
        )
        without.append(components[0] / components.sum())
    error = np.sqrt(6 * np.var(without))
    share = table.loc["evaluated task", "share"]
    low = share - scipy.stats.t.ppf(0.975, 5) * error
    assert table.loc["evaluated task", "tasks_low"] == pytest.approx(low)


def test_the_interval_over_examples_covers_the_truth():
    k, tuned = 6, np.full(6, 0.85)
    rows, columns = np.linspace(-0.1, 0.1, k), np.linspace(-0.07, 0.07, k)[[3, 0, 5, 2, 4, 1]]
    noise = np.random.default_rng(0).normal(0, 0.04, (k, k))
    truth = 0.68 + rows[:, None] + columns + noise
    components = crossanalysis._components((0.85 - truth) / 0.35)
    expected = (components / components.sum()).tolist()
    covered, estimates = np.zeros(3), []
    for trial in range(60):
        rng = np.random.default_rng(trial)
        _, table = shares(tuned, truth, rng=rng, n_resamples=300)
        covered += (table["share_low"] <= expected) & (expected <= table["share_high"])
        estimates.append(table["share"])
    assert (covered >= 0.85 * 60).all()
    assert np.mean(estimates, axis=0) == pytest.approx(expected, abs=0.03)


def test_fewer_than_two_defined_tasks_have_no_shares():
    for tuned in ([0.9], [0.9, 0.5], [0.5, 0.5]):
        k = len(tuned)
        _, table = shares(tuned, np.full((k, k), 0.5))
        columns = ["share", "share_low", "share_high", "tasks_low", "tasks_high", "uncorrected"]
        assert table[columns].isna().all(axis=None)


def test_a_better_trigger_than_a_task_s_own_labels_is_found():
    forgotten = np.array([[0.75, 0.52, 0.7], [0.8, 0.55, 0.78], [0.8, 0.8, 0.5]])
    results = cross(TASKS, [0.9, 0.85, 0.5], forgotten, n=400, rng=np.random.default_rng(2))
    table = crossanalysis.own_against_others(crosstask.cross_task(results)).set_index("eval_task")
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


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_difference_is_picked_on_other_data_as_a_loop_does_it(seeds):
    rng = np.random.default_rng(8)
    results = cross(many(4), np.full(4, 0.9), np.full((4, 4), 0.7), seeds=seeds, n=61, rng=rng)
    found = crosstask.cross_task(results)
    table = crossanalysis.own_against_others(found)
    expected = "other seeds" if len(seeds) > 1 else "half of the test questions"
    assert set(table["picked_on"]) == {expected}
    for i in range(4):
        parts = [group[:, 1:] for group in found.outcomes[i]]
        if len(seeds) == 1:
            parts = [parts[0][::2], parts[0][1::2]]
        differences = []
        for measured_on in range(len(parts)):
            rest = [p.mean(0) for k, p in enumerate(parts) if k != measured_on]
            picked_by = np.mean(rest, axis=0)
            best = min((j for j in range(4) if j != i), key=lambda j, m=picked_by: m[j])
            accuracy = parts[measured_on].mean(0)
            differences.append(accuracy[i] - accuracy[best])
        assert table["difference"][i] == pytest.approx(np.mean(differences))


def differences_of_alike_labels(seeds, run_noise, trials=25):
    """own_against_others where all labels are as good; every run differs by `run_noise`."""
    tables = []
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        results = []
        for seed in seeds:
            forgotten = 0.7 + run_noise * rng.normal(size=(8, 8))
            made = cross(many(8), np.full(8, 0.9), forgotten, seeds=(seed,), n=100, rng=rng)
            results += made
        tables.append(
            crossanalysis.own_against_others(crosstask.cross_task(results, n_resamples=200))
        )
    return pd.concat(tables)


def test_picking_the_best_of_many_does_not_bias_the_difference_between_these_runs():
    """With equal true accuracies the difference is 0."""
    found = differences_of_alike_labels((0,), 0.0)
    error = found["difference"].std() / np.sqrt(len(found))
    assert found["difference"].mean() == pytest.approx(0, abs=3 * error)
    assert (found["difference_low"] <= 0).mean() > 0.94


def test_runs_that_differ_by_chance_are_not_better_labels_where_there_are_other_seeds():
    """One seed sees that one of seven runs is better than the own one; which no seed repeats."""
    one, three = (differences_of_alike_labels(seeds, 0.08) for seeds in ((0,), (0, 1, 2)))
    error = three["difference"].std() / np.sqrt(len(three))
    assert one["difference"].mean() > 10 * error  # the trap
    assert three["difference"].mean() == pytest.approx(0, abs=3 * error)


def test_upgma_brings_together_what_a_known_ultrametric_tree_has_together():
    """Points whose distances are ultrametric (by classical scaling)."""
    heights = np.array(
        [[0, 2, 6, 6, 9], [2, 0, 6, 6, 9], [6, 6, 0, 4, 9], [6, 6, 4, 0, 9], [9, 9, 9, 9, 0]], float
    )
    centre = np.eye(5) - 1 / 5
    values, vectors = np.linalg.eigh(-0.5 * centre @ heights**2 @ centre)
    points = vectors * np.sqrt(np.maximum(values, 0))
    shuffled = [3, 0, 4, 1, 2]
    order = crossanalysis.upgma(points[shuffled])
    assert crossanalysis.row_distances(points) == pytest.approx(heights)
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
    order = crossanalysis.upgma(matrix)
    assert order[-1] == 2
    assert sorted(order) == list(range(6))
    assert crossanalysis.row_distances(matrix[rows]) == pytest.approx(distances)
    tree = linkage(squareform(distances), "average", optimal_ordering=True)
    assert [rows[i] for i in leaves_list(tree)] == order[:-1].tolist()


def test_upgma_of_next_to_nothing():
    for matrix in (np.full((3, 3), np.nan), np.array([[np.nan, np.nan], [1, 2]])):
        assert sorted(crossanalysis.upgma(matrix)) == list(range(len(matrix)))
    assert crossanalysis.upgma(np.array([[np.nan, np.nan], [1, 2]])).tolist() == [1, 0]


def test_rows_with_no_column_in_common_are_as_far_apart_as_the_farthest():
    matrix = np.array([[1, np.nan], [np.nan, 1], [1.5, np.nan], [4, np.nan]])
    distances = crossanalysis.row_distances(matrix)
    assert distances[0, [2, 3]] == pytest.approx(np.sqrt(2) * np.array([0.5, 3]))
    assert distances[1, [0, 2, 3]] == pytest.approx(3 * np.sqrt(2))


def test_evaluated_means_are_the_rows_means_with_an_interval_that_covers_the_truth():
    """100 studies with a known mean: about 95 of their intervals include it."""
    tuned, forgotten = np.array([0.9, 0.8]), np.array([[0.7, 0.6], [0.75, 0.65]])
    truth = ((tuned[:, None] - forgotten) / (tuned[:, None] - 0.5)).mean(1)
    covered = np.zeros(2)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        results = cross(("t", "u"), tuned, forgotten, n=300, rng=rng)
        found = crosstask.cross_task(results, n_resamples=200)
        table = crossanalysis.evaluated_means(found)
        assert table["mean_ratio"].tolist() == pytest.approx(found.forget_ratio.mean(1).tolist())
        covered += (table["mean_ratio_low"] <= truth) & (truth <= table["mean_ratio_high"])
    assert (covered >= 87).all()
    found = crosstask.cross_task(cross(TASKS, [0.9, 0.8, 0.5], FORGOTTEN))
    undefined = crossanalysis.evaluated_means(found)
    assert undefined["ratio_defined"].tolist() == [True, True, False]
    assert undefined.iloc[-1][["mean_ratio", "mean_ratio_low"]].isna().all()


def of_model(model, forgotten, *, tuned=None, tasks=None, condition="random", start="pairwise"):
    k = len(forgotten)
    tuned = np.full(k, 0.9) if tuned is None else tuned
    tasks = many(k) if tasks is None else tasks
    made = cross(tasks, tuned, forgotten, model=model, condition=condition, start=start, again=0.9)
    return crosstask.cross_task(made, condition, n_resamples=200)


def test_model_agreement_is_scipys_rank_correlation_of_the_rows_means():
    """The mean over every two halves of the questions: as little data as the ceiling has."""
    first, second = np.random.default_rng(0).uniform(0.5, 0.9, (2, 8, 8))
    a, b = of_model("one", first), of_model("two", second)
    (row,) = crossanalysis.model_agreement([a, b]).to_dict("records")
    assert (row["a"], row["b"], row["n"]) == ("one, random", "two, random", 8)
    means = [effects.beyond_true_labels(c).values.mean(1) for c in (a, b)]
    assert means[0] == pytest.approx(0.9 - first.mean(1), abs=0.01)
    halves = [
        np.array([effects.mean_effects(m, c.tasks, effects.AUROC_BEYOND) for m in c.measured]).T
        for c in (a, b)
    ]
    assert [len(of) for of in halves] == [2, 2]
    expected = [scipy.stats.spearmanr(p, q).statistic for p in halves[0] for q in halves[1]]
    assert row["rank_correlation"] == pytest.approx(np.mean(expected))
    interval = intervals.rank_interval(np.mean(expected), 8)
    ends = row["rank_correlation_low"], row["rank_correlation_high"]
    assert ends == pytest.approx((interval.low, interval.high))


def test_the_same_pattern_agrees_and_the_opposite_one_disagrees():
    pattern = np.linspace(0.5, 0.85, 6)[:, None] + np.linspace(0, 0.04, 6)
    same, alike = of_model("one", pattern), of_model("two", pattern)
    opposite = of_model("three", pattern[::-1])
    table = crossanalysis.model_agreement([same, alike, opposite])
    pairs = [("one", "two"), ("one", "three"), ("two", "three")]
    expected = [[f"{name}, random" for name in pair] for pair in pairs]
    assert table[["a", "b"]].to_numpy().tolist() == expected
    assert table["rank_correlation"].tolist() == pytest.approx([1, -1, -1])
    assert table["rank_correlation_low"][0] > 0
    assert (table["rank_correlation_high"][1:] < 0).all()


def _mean_loss(measured, forgotten, half):
    """What the labels of other tasks cost beyond true ones, on every other question: AUROC."""
    found = []
    for task in forgotten:
        areas = []
        for phase in (crosstask.again(task), crosstask.after(task)):
            scores = measured.seeds[0][phase].scores[f"{measured.task}/test"]
            m = metrics.margins(scores)[half::2]
            sums = m[:, None] + m
            pairs = ~np.eye(len(m), dtype=bool)
            areas.append((sums > 0)[pairs].mean() + (sums == 0)[pairs].mean() / 2)
        found.append(areas[0] - areas[1])
    return np.mean(found)


def test_agreement_is_over_the_tasks_that_both_have_and_that_are_defined_in_both():
    rng = np.random.default_rng(1)
    a = of_model("m", rng.uniform(0.5, 0.9, (6, 6)), tuned=[0.9, 0.9, 0.5, 0.9, 0.9, 0.9])
    b = of_model("m", rng.uniform(0.1, 0.9, (5, 5)), tasks=many(6)[1:], condition="flipped")
    (row,) = crossanalysis.model_agreement([a, b]).to_dict("records")
    assert (row["b"], row["n"]) == ("m, flipped", 4)  # t1, t3, t4, t5; t2 is forgotten too
    assert (row["measure"], row["apart"]) == (effects.AUROC_BEYOND, "other half of the questions")
    shared = [f"t{i}" for i in range(1, 6)]
    halves = [
        [
            [_mean_loss(c.measured[c.tasks.index(t)], shared, half) for t in shared if t != "t2"]
            for half in (0, 1)
        ]
        for c in (a, b)
    ]
    crossed = [scipy.stats.spearmanr(halves[0][p], halves[1][1 - p]).statistic for p in (0, 1)]
    assert row["rank_correlation"] == pytest.approx(np.mean(crossed))
    own = [scipy.stats.spearmanr(*of).statistic for of in halves]
    assert row["ceiling"] == pytest.approx(np.mean(own))


def test_too_few_tasks_have_no_interval_of_agreement():
    rng = np.random.default_rng(2)
    for k in (1, 2, 3):
        crosses = [of_model(m, rng.uniform(0.5, 0.9, (k, k)), start="shared") for m in "ab"]
        table = crossanalysis.model_agreement(crosses)
        assert table["a"].item() == ("a, random" if k == 1 else "a, random, shared")
        assert table[["rank_correlation_low", "rank_correlation_high"]].isna().all(axis=None)
        assert table["rank_correlation"].isna().all() == (k == 1)
    assert crossanalysis.model_agreement([crosses[0]]).empty


def test_models_without_a_common_task_have_no_agreement():
    crosses = [of_model(task, np.full((1, 1), 0.6), tasks=[task]) for task in "ab"]
    (row,) = crossanalysis.model_agreement(crosses).to_dict("records")
    assert row["n"] == 0
    assert np.isnan(row["rank_correlation"])


@pytest.mark.parametrize("model", ["gpt-j-6b", "EleutherAI/gpt-j-6b", "/data/models/gpt-j-6b/"])
def test_models_are_named_without_their_owner_or_folder(model):
    made = of_model(model, np.full((2, 2), 0.6))
    other = of_model("other", np.full((2, 2), 0.6))
    assert names.short_name(model) == "gpt-j-6b"
    assert crossanalysis.model_agreement([other, made])["b"].item() == "gpt-j-6b, random"
    assert fig3.table(made)["model"].unique().tolist() == [model]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "one"},
        {"model": "two", "condition": "flipped"},
        {"model": "one", "start": "shared"},
        {"model": "two", "start": "shared"},
    ],
    ids=["repeated", "model and condition", "start", "model and start"],
)
def test_agreement_is_refused_where_not_just_the_model_or_the_condition_differs(other):
    first = of_model("one", np.full((2, 2), 0.6))
    second = of_model(forgotten=np.full((2, 2), 0.6), **other)
    with pytest.raises(InputError, match="differ in either the model or the condition"):
        crossanalysis.model_agreement([first, second])
