"""The mixed model and single examples against statsmodels, SciPy and brute force."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from tables import examples_of, of_term, table_of

from forgetlib.figures import mixedmodel, regression


def with_task_effects(n_tasks=40, n_seeds=4, effect=0.3, seed=0):
    """Every task has a level of its own, which all of its seeds share."""
    rng = np.random.default_rng(seed)
    confidence = rng.normal(size=n_tasks)
    level = 0.3 * rng.normal(size=n_tasks)
    table = table_of(n_tasks, n_seeds, confidence=confidence, seed=seed)
    table["confidence"] = np.tile(confidence, n_seeds)
    table["forget_ratio"] = np.tile(effect * confidence + level, n_seeds)
    table["forget_ratio"] += 0.05 * rng.normal(size=len(table))
    return table


def test_the_mixed_model_agrees_with_statsmodels_formulas():
    table = with_task_effects()
    fit = mixedmodel.mixed_model(table, ("confidence",))
    means = table.groupby("eval_task")["confidence"].mean()
    table["z"] = (table["confidence"] - means.mean()) / means.std()
    theirs = smf.mixedlm("forget_ratio ~ z", table, groups=table["eval_task"]).fit()
    row = fit.coefficients.iloc[0]
    reach = scipy.stats.t.ppf(0.975, 38) * theirs.bse["z"]
    assert row["coefficient"] == pytest.approx(theirs.params["z"], abs=1e-4)
    assert row["coefficient_high"] - row["coefficient"] == pytest.approx(reach, rel=1e-3)
    assert row["coefficient_low"] < 0.3 * means.std() < row["coefficient_high"]
    assert (fit.n, fit.n_tasks, fit.notes) == (160, 40, ())


def test_more_seeds_do_not_make_the_mixed_model_more_certain_of_tasks():
    def width(n_seeds):
        row = mixedmodel.mixed_model(with_task_effects(21, n_seeds), ("confidence",)).coefficients
        return (row["coefficient_high"] - row["coefficient_low"]).iloc[0]

    pooled = with_task_effects(21, 8)  # positive control: taking seeds for tasks
    pooled["eval_task"] += pooled.pop("seed").astype(str)
    row = regression.least_squares(pooled, ("confidence",)).coefficients.iloc[0]
    assert width(8) > 0.8 * width(2)
    assert row["coefficient_high"] - row["coefficient_low"] < 0.6 * width(8)


def test_under_the_null_the_mixed_model_s_intervals_cover_zero_in_95_percent():
    covered = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none may pass through: they belong in the notes
        for seed in range(60):
            table = with_task_effects(8, 3, effect=0.0, seed=seed)
            row = mixedmodel.mixed_model(table, ("confidence",)).coefficients.iloc[0]
            covered.append(row["coefficient_low"] <= 0 <= row["coefficient_high"])
    assert 0.9 <= np.mean(covered) <= 0.99


def test_models_differ_by_a_term_of_their_own():
    small = with_task_effects(21, 2)
    small = small[small["seed"] == 0].reset_index(drop=True)
    large = small.assign(model="n", forget_ratio=small["forget_ratio"] + 1)
    large["forget_ratio"] += 0.02 * np.random.default_rng(5).normal(size=21)
    large["confidence"] -= 0.5
    fit = mixedmodel.mixed_model(pd.concat([small, large]), ("confidence",))
    assert fit.coefficients["term"].tolist() == ["confidence", "model: n"]
    slope = fit.coefficients["coefficient"].iloc[0] / small["confidence"].std()
    assert of_term(fit.coefficients, "model: n")["against"] == "m"
    # what confidence explains of the models' distance, the term does not
    distance = of_term(fit.coefficients, "model: n")["coefficient"]
    assert distance == pytest.approx(1 + 0.5 * slope, abs=0.05)


def with_deviations(seed, n_seeds=3, n_tasks=10):
    """Two models, several seeds; every (model, task) has a deviation that its seeds share.

    The confidence, which has no effect, differs between models and tasks, not between seeds.
    """
    rng = np.random.default_rng(seed)
    tables = []
    for model in "mn":
        rows = table_of(n_tasks, seed=seed).assign(model=model)
        rows["confidence"] = rng.normal(size=n_tasks)
        rows["forget_ratio"] = 0.3 * rng.normal(size=n_tasks)
        tables += [
            rows.assign(seed=s, forget_ratio=rows["forget_ratio"] + 0.02 * rng.normal(size=n_tasks))
            for s in range(n_seeds)
        ]
    return pd.concat(tables, ignore_index=True)


def test_seeds_of_a_model_and_task_are_averaged_where_there_are_several_models():
    table = with_deviations(0)
    fit = mixedmodel.mixed_model(table, ("confidence",))
    columns = ["confidence", "forget_ratio"]
    averaged = table.groupby(["model", "eval_task"], as_index=False)[columns].mean()
    assert (fit.n, fit.n_tasks) == (20, 10)
    expected = mixedmodel.mixed_model(averaged, ("confidence",)).coefficients
    pd.testing.assert_frame_equal(fit.coefficients, expected)


def test_three_seeds_of_two_models_do_not_find_what_is_not_there():
    """Taken for six independent rows a task, they would."""
    found, naive = [], []
    for seed in range(60):
        table = with_deviations(seed)
        fit = mixedmodel.mixed_model(table, ("confidence",))
        for row in fit.coefficients.iloc[:1].to_dict("records"):
            found.append(row["coefficient_low"] <= 0 <= row["coefficient_high"])
        if fit.coefficients.empty:
            assert "did not converge" in fit.dropped["confidence"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            naively = smf.mixedlm("forget_ratio ~ confidence + model", table, groups="eval_task")
            fit = naively.fit()
        naive.append(abs(fit.tvalues["confidence"]) < scipy.stats.t.ppf(0.975, 7))
    assert np.mean(naive) < 0.85  # positive control
    assert np.mean(found) > 0.9
    assert 45 < len(found) < 60  # it is rare that a fit fails, and it does


def test_one_row_a_task_has_no_mixed_model_and_says_so():
    fit = mixedmodel.mixed_model(table_of(), ("confidence", "family"))
    assert fit.coefficients.empty and np.isnan(fit.r_squared) and fit.kept == ()
    reason = "one row a task: a mixed model needs several seeds or models"
    assert fit.dropped == {"confidence": reason, "family": reason}


def test_models_that_did_other_tasks_cannot_be_told_from_the_terms():
    table = table_of(20, answer_format=["text"] * 10 + ["verbaliser"] * 10)
    third = table[table["answer_format"] == "verbaliser"].assign(model="o")
    table["model"] = np.where(table["answer_format"] == "text", "m", "n")
    table = pd.concat([table, third])
    fit = mixedmodel.mixed_model(table, ("answer_format",))
    assert fit.coefficients.empty
    assert fit.dropped == {
        "answer_format": "aliased with model: the models did not do the same tasks"
    }


def test_the_optimiser_s_warnings_are_reported():
    table = with_task_effects(8, 3)
    table["forget_ratio"] = np.random.default_rng(1).normal(size=len(table))
    means = table.groupby("eval_task")["forget_ratio"].transform("mean")
    table["forget_ratio"] -= means  # all tasks have the same mean: no variance between them
    table.loc[0, "forget_ratio"] += 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = mixedmodel.mixed_model(table, ("confidence",))
    assert any("boundary" in note or "singular" in note for note in fit.notes)


def brute_force(table, predictor):
    """2 AUC - 1 within each task and seed by SciPy, averaged by the inverse of its variance."""
    found, weights = [], []
    for _, group in table[table["tuned_correct"]].groupby(["eval_task", "seed"]):
        found.append(by_scipy(group[predictor], ~group["forgotten_correct"]))
        n_lost = (~group["forgotten_correct"]).sum()
        weights.append(1 / (1 / n_lost + 1 / (len(group) - n_lost)))
    return np.average(found, weights=weights)


def by_scipy(values, lost):
    """Rank-biserial correlation, from Mann and Whitney's U."""
    u = scipy.stats.mannwhitneyu(values[lost], values[~lost]).statistic
    return 2 * u / (lost.sum() * (~lost).sum()) - 1


def test_example_level_agrees_with_scipy_within_task_and_seed():
    table = examples_of(effect=0.5)
    table = table.drop(index=table.index[:60])  # unequal n
    found = mixedmodel.example_level(table).set_index(["predictor", "eval_task"])
    for predictor in ("confidence", "log_deviation"):
        for task in ("task00", "task01", "task02"):
            of_task = table[table["eval_task"] == task]
            ours = found.loc[(predictor, task), "rank_biserial"]
            assert ours == pytest.approx(brute_force(of_task, predictor))
        ours = found.loc[(predictor, "pooled")]
        assert ours["rank_biserial"] == pytest.approx(brute_force(table, predictor))
        right = table[table["tuned_correct"]]
        assert ours["n"] == len(right) and ours["n_lost"] == (~right["forgotten_correct"]).sum()


def test_the_replicates_are_those_of_drawing_up_every_sample():
    rng = np.random.default_rng(0)
    values, lost = rng.integers(10, size=40).astype(float), rng.random(40) < 0.4
    counts = rng.multinomial(40, [1 / 40] * 40, size=50)
    ours = mixedmodel._rank_biserial(values, lost, counts)
    theirs = [by_scipy(np.repeat(values, c), np.repeat(lost, c)) for c in counts]
    assert ours == pytest.approx(theirs)


def test_the_interval_over_examples_agrees_with_scipy():
    table = examples_of(1, 1, 300, effect=0.5)
    table = table[table["tuned_correct"]]
    row = mixedmodel.example_level(table).iloc[0]
    theirs = scipy.stats.bootstrap(
        (table["confidence"], ~table["forgotten_correct"]),
        lambda x, y: by_scipy(x, y.astype(bool)),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert row["rank_biserial_low"] == pytest.approx(theirs.low, abs=0.02)
    assert row["rank_biserial_high"] == pytest.approx(theirs.high, abs=0.02)


def test_the_pooled_interval_covers_a_null_and_shows_what_it_excludes():
    covered, excluded = [], []
    for seed in range(120):
        found = mixedmodel.example_level(examples_of(seed=seed, n=60), n_resamples=200)
        found = found[found["eval_task"] == "pooled"]
        covered += (found["rank_biserial_low"] * found["rank_biserial_high"] <= 0).tolist()
        excluded += found["largest_not_excluded"].tolist()
    assert 0.92 <= np.mean(covered) <= 0.98
    # 3 tasks x 2 seeds x 54 examples, of which 30 % are lost: 1.96 / sqrt(3 x 324 x 0.3 x 0.7)
    # = 0.14, and the estimate is not at zero
    assert 0.14 < np.mean(excluded) < 0.25


def test_a_real_effect_on_examples_is_found_and_a_difference_between_tasks_is_not_one():
    found = mixedmodel.example_level(examples_of(effect=1.0)).set_index(["predictor", "eval_task"])
    assert found.loc[("confidence", "pooled"), "rank_biserial_high"] < -0.2
    assert abs(found.loc[("log_deviation", "pooled"), "rank_biserial"]) < 0.1
    kept = examples_of(1, share_lost=0.1).assign(confidence=lambda t: t["confidence"] + 5)
    lost = examples_of(1, share_lost=0.7, seed=1).assign(eval_task="task01")
    both = pd.concat([kept, lost])
    across = by_scipy(both["confidence"], ~both["forgotten_correct"])
    row = mixedmodel.example_level(both).set_index(["predictor", "eval_task"])
    assert across < -0.4  # positive control
    assert abs(row.loc[("confidence", "pooled"), "rank_biserial"]) < 0.15


def test_what_true_labels_do_as_well_is_no_prediction_of_forgetting():
    """The same questions are lost by both trainings; then other ones by the control."""
    table = examples_of(effect=1.0)
    same = table.assign(again_correct=table["forgotten_correct"].astype(float))
    found = mixedmodel.example_level(same).set_index(["predictor", "eval_task"])
    row = found.loc[("confidence", "pooled")]
    assert row["again"] == row["rank_biserial"] < -0.2 and row["beyond_true_labels"] == 0
    others = table.groupby(["eval_task", "seed"])["forgotten_correct"].sample(
        frac=1, random_state=0
    )
    apart = table.assign(again_correct=others.to_numpy(float))
    row = mixedmodel.example_level(apart).set_index(["predictor", "eval_task"])
    row = row.loc[("confidence", "pooled")]
    assert row["beyond_true_labels"] == pytest.approx(row["rank_biserial"] - row["again"])
    assert row["beyond_true_labels_high"] < -0.2 < row["again_low"]
    alone = mixedmodel.example_level(table)
    assert alone["again"].isna().all() and alone["beyond_true_labels"].isna().all()


@pytest.mark.parametrize("share_lost", [0.05, 0.5])
def test_perfect_prediction_is_1_and_none_is_0_however_few_are_lost(share_lost):
    table = examples_of(1, 1, 2000, share_lost=share_lost).assign(tuned_correct=True)
    perfect = np.where(table["forgotten_correct"], 0.9, 0.6) + 1e-3 * table["log_deviation"]
    found = mixedmodel.example_level(table.assign(confidence=perfect)).set_index("predictor")
    pooled = found[found["eval_task"] == "pooled"]["rank_biserial"]
    assert pooled["confidence"] == pytest.approx(-1)
    assert abs(pooled["log_deviation"]) < 0.2
    constant = mixedmodel.example_level(table.assign(confidence=0.5)).iloc[0]
    assert constant["rank_biserial"] == 0 and np.isnan(constant["rank_biserial_low"])


def test_an_example_that_several_seeds_test_counts_as_one():
    once = examples_of(1, 1, 200, effect=0.5)
    thrice = pd.concat([once.assign(seed=s) for s in range(3)])
    apart = thrice.assign(uid=thrice["uid"] + thrice["seed"].astype(str))

    def width(table):
        row = mixedmodel.example_level(table).iloc[0]
        return row["rank_biserial_high"] - row["rank_biserial_low"]

    assert width(thrice) == pytest.approx(width(once))
    assert width(apart) < 0.7 * width(once)  # positive control


def test_tasks_without_a_loss_or_without_a_survivor_are_named_and_not_pooled():
    table = examples_of(3)
    table.loc[table["eval_task"] == "task00", "forgotten_correct"] = True
    table.loc[table["eval_task"] == "task01", "forgotten_correct"] = False
    table.loc[table["eval_task"] == "task01", "log_deviation"] = np.nan
    found = mixedmodel.example_level(table).set_index(["predictor", "eval_task"])
    for task in ("task00", "task01"):
        row = found.loc[("confidence", task)]
        assert row.drop(["model", "n", "n_lost"]).isna().all() and row["n"] > 0
    assert found.loc[("confidence", "task00"), "n_lost"] == 0
    assert found.loc[("log_deviation", "task01"), "n"] == 0
    rest = table[table["eval_task"] == "task02"]
    pooled = found.loc[("confidence", "pooled")]
    assert pooled["rank_biserial"] == pytest.approx(brute_force(rest, "confidence"))
    assert pooled["n"] == found.loc[("confidence", "task02"), "n"]
