"""What each claim counts, and the traps that it does not fall into."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from claimed import (
    ACCURACIES,
    BY_ROW,
    BY_TASK,
    COMMONSENSE,
    DESCRIBED,
    FEW,
    IS_COMMONSENSE,
    LANGUAGE,
    OPEN,
    SCIENCE,
    SPLIT,
    TASKS,
    K,
    cross,
    examples,
    of_seeds,
    one_size,
    order,
    others_better,
    own,
    predictors,
    probes,
    rng,
    sizes,
)
from synthetic import cross as cross_runs

from forgetlib.data import tasks
from forgetlib.errors import InputError
from forgetlib.figures import claim_tests, claims, crossanalysis, crosstask, fig3, mixedmodel
from forgetlib.figures.effects import beyond_true_labels, ratios as ratios_of
from forgetlib.figures.statements import CANNOT_DECIDE, DOES_NOT_HOLD, HOLDS, UNDECIDED


def test_tasks_with_nothing_to_forget_are_left_out():
    forgotten = [0.8] * 6 + [0.5] * (K - 6)
    with_chance = own(TASKS, forgotten, tuned=[0.9] * 6 + [0.5] * (K - 6))
    for found in claims.judge("generalization-varies", own=with_chance).to_dict("records"):
        assert (found["value"], found["n"]) == (1, 6)
    for split in claims.judge("task-family-split", own=with_chance, described=DESCRIBED).to_dict(
        "records"
    ):
        assert split["n"] == 6 and split["verdict"] == CANNOT_DECIDE


def test_little_learning_is_not_called_forgetting():
    """Nothing was forgotten of the little that was learned: a small gap, and a ratio of 0."""
    table = own(TASKS, np.full(K, 0.57), tuned=0.57, n=1500)
    by_gap, by_ratio = claims.judge("generalization-varies", own=table)["verdict"]
    assert (by_gap, by_ratio) == (DOES_NOT_HOLD, HOLDS)


def test_a_family_that_learned_little_is_not_called_forgotten():
    """Commonsense and science keep more of less."""
    of_language = np.isin(TASKS, LANGUAGE)
    jitter = 0.005 * np.arange(K)
    tuned = np.where(of_language, 0.9, 0.67)
    table = own(TASKS, np.where(of_language, 0.75, 0.64) + jitter / 5, tuned=tuned + jitter / 5)
    by_gap, by_ratio = claims.judge("task-family-split", own=table, described=DESCRIBED).to_dict(
        "records"
    )
    assert by_gap["verdict"] == DOES_NOT_HOLD
    assert by_ratio["verdict"] == HOLDS
    assert by_ratio["value"] == pytest.approx(0.15 / 0.4 - 0.03 / 0.17, abs=0.03)


def test_the_family_split_is_that_of_the_families_means():
    table = own(TASKS, SPLIT)
    found = claims.judge("task-family-split", own=table, described=DESCRIBED).to_dict("records")
    for row, measure, sign in zip(found, ("forget_gap", "forget_ratio"), (1, -1), strict=True):
        of = dict(zip(table["eval_task"], table[measure], strict=True))
        mean = [np.mean([of[t] for t in names]) for names in ((*COMMONSENSE, *SCIENCE), LANGUAGE)]
        assert row["value"] == pytest.approx(sign * (mean[0] - mean[1]))
        assert row["n"] == K - 3  # reasoning, reading and knowledge are on neither side


def test_a_few_language_tasks_are_not_their_family():
    """As over models (`scale_claims`): of four, one task is much of what is called the family."""
    kept = np.isin(TASKS, LANGUAGE[:4]) | ~np.isin(TASKS, LANGUAGE)
    names = [t for t, keep in zip(TASKS, kept, strict=True) if keep]
    few, enough = (
        claims.judge("task-family-split", own=own(of, accuracies), described=DESCRIBED)
        for of, accuracies in ((names, SPLIT[kept]), (TASKS, SPLIT))
    )
    assert set(enough["verdict"]) == {HOLDS}
    assert set(few["verdict"]) == {CANNOT_DECIDE}
    assert set(few["why"]) == {"needs 5 language tasks learned (4 here)"}
    alone = own([*LANGUAGE, "piqa"], np.linspace(0.5, 0.8, 6))
    found = claims.judge("task-family-split", own=alone, described=DESCRIBED)
    assert set(found["why"]) == {"needs two commonsense or science tasks learned"}


@pytest.mark.parametrize("described", [None, tasks.describe(tasks.suite("tiny"))])
def test_without_families_what_is_about_families_is_not_decided(described):
    found = claims.verdicts(own=own(TASKS, SPLIT), cross=others_better(0.5), described=described)
    by_statistic = found[found["statistic"].str.contains("commonsense")]
    assert len(by_statistic) == 3
    assert set(by_statistic["verdict"]) <= OPEN
    assert (by_statistic["n"] == 0).all()


def test_labels_that_are_all_alike_are_not_called_better_than_a_tasks_own():
    """The best of thirteen equal ones looks better, and half of the tasks are above 0 by chance."""
    alike = of_seeds([np.full((K, K), 0.5)] * 2, n=200)
    assert (
        claims.judge("other-tasks-better", cross=alike, described=DESCRIBED).iloc[0]["verdict"]
        in OPEN
    )


def test_runs_that_differ_by_chance_are_not_called_better_labels():
    """In 13 of 14 rows, one of the other runs really is better than the own one."""
    draw = rng()
    each = [0.5 + 0.25 * draw.normal(size=(K, K)) for _ in range(3)]
    one = of_seeds(each[:1], n=1000)
    difference = crossanalysis.own_against_others(one)
    assert (difference["difference_low"] > 0).sum() > K / 2  # the trap
    row = claims.judge("other-tasks-better", cross=of_seeds(each, n=1000), described=DESCRIBED)
    assert row["n"].iloc[0] == K
    assert row["verdict"].iloc[0] in OPEN


def test_one_seed_does_not_decide_whose_labels_are_better():
    one, three = (
        claims.judge("other-tasks-better", cross=others_better(0.5, n), described=DESCRIBED).iloc[0]
        for n in (1, 3)
    )
    assert (one["verdict"], one["why"]) == (CANNOT_DECIDE, "needs pairs of two seeds")
    assert np.isnan(one["low"])
    assert (three["value"], three["verdict"]) == (1, HOLDS)


def test_a_resisting_task_is_not_taken_for_a_strong_trigger():
    """Columns leave their own row out: their plain means depend on the evaluated tasks."""
    resists = np.where(IS_COMMONSENSE, 0.1, 0.9)
    ratios = np.repeat(resists[:, None], K, axis=1)
    exact = cross(ratios, noisy=False)
    off_diagonal = np.where(np.eye(K, dtype=bool), np.nan, exact.forget_ratio)
    plain = np.nanmean(off_diagonal, axis=0)
    is_commonsense = np.isin(exact.tasks, COMMONSENSE)
    assert plain[is_commonsense].mean() - plain[~is_commonsense].mean() > 0.05  # the trap
    for effects in (ratios_of(exact), beyond_true_labels(exact)):
        strength = crossanalysis.trigger_strength(effects)["strength"].to_numpy()
        assert strength == pytest.approx(0, abs=1e-9)


def test_the_strength_of_a_trigger_is_statsmodels_column_effect():
    found = cross(rng().random((K, K)))
    table = fig3.table(found)
    table = table[table["eval_task"] != table["forget_task"]]
    fit = smf.ols("forget_ratio ~ C(eval_task) + C(forget_task, Sum)", table).fit()
    effects = fit.params[fit.params.index.str.contains("forget_task")].to_numpy()
    strength = crossanalysis.trigger_strength(ratios_of(found))
    assert list(strength["eval_task"]) == sorted(TASKS)
    expected = [*effects, -effects.sum()]
    assert strength["strength"].to_numpy() == pytest.approx(expected)


@pytest.mark.parametrize(("n_tasks", "expected"), [(3, CANNOT_DECIDE), (4, HOLDS)])
def test_three_evaluated_tasks_do_not_stand_for_all(n_tasks, expected):
    spread = np.repeat(np.array([0.1, 0.9, 0.5, 0.3])[:, None], 4, axis=1)
    found = claims.judge("eval-task-determines", cross=cross(spread, TASKS[:n_tasks])).iloc[0]
    assert found["value"] > 0.8
    assert (found["verdict"], found["n"]) == (expected, n_tasks)


def test_the_evaluated_task_is_not_said_to_determine_what_it_does_not():
    """More than the forgotten task, but not most; and cells without any effect."""
    draw = rng()
    for by_row in (0.0, 0.5):
        ratios = by_row * draw.normal(size=(K, 1)) + draw.normal(size=(K, K))
        found = claims.judge("eval-task-determines", cross=cross(0.5 + 0.15 * ratios, n=1000)).iloc[
            0
        ]
        assert found["verdict"] != HOLDS
        assert found["value"] < 0.5


def test_the_strength_of_a_trigger_needs_three_tasks():
    two, three = (ratios_of(cross(BY_ROW, names)) for names in (TASKS[:2], FEW))
    assert crossanalysis.trigger_strength(two)["strength"].isna().all()
    assert crossanalysis.trigger_strength(three)["strength"].notna().all()


def test_correlations_are_scipys_over_tasks():
    ratio, confidence = rng().normal(size=(2, K))
    found = claims.judge(
        "confidence-and-variance", predictors=predictors(ratio, confidence=confidence)
    ).iloc[0]
    assert found["value"] == pytest.approx(scipy.stats.spearmanr(ratio, confidence).statistic)
    assert found["n"] == K


def test_a_row_a_seed_is_refused():
    table = predictors(BY_TASK)
    with pytest.raises(InputError, match="one row a eval_task"):
        claims.judge(
            "difficulty-not-predictive",
            predictors=pd.concat([table.assign(seed=s) for s in (0, 1)]),
        )


def test_tasks_that_were_not_known_are_not_counted():
    table = predictors(BY_TASK, tuned=BY_TASK).assign(known=np.arange(K) >= 3)
    assert claims.judge("difficulty-not-predictive", predictors=table).iloc[0]["n"] == K - 3


def test_single_examples_are_not_decided_in_fewer_than_four_tasks():
    enough = claims.judge("no-example-level-prediction", examples=examples(0, TASKS[:4], n=1000))
    few = claims.judge("no-example-level-prediction", examples=examples(0, FEW, n=1000))
    assert set(enough["verdict"]) == {HOLDS}
    assert set(few["verdict"]) <= OPEN
    assert list(enough["n"]) == [4000, 4, 4000, 4]
    tiny = claims.judge("no-example-level-prediction", examples=examples(0, n=8))
    assert not set(tiny["verdict"]) & {DOES_NOT_HOLD}
    assert set(tiny["verdict"].iloc[::2]) <= OPEN


def test_opposite_effects_in_two_halves_of_the_tasks_do_not_cancel():
    found = claims.judge(
        "no-example-level-prediction", examples=examples(np.resize([0.8, -0.8], K))
    )
    pooled, squares = found.iloc[::2], found.iloc[1::2]
    assert set(pooled["verdict"]) == {HOLDS}  # the trap
    assert set(squares["verdict"]) == {DOES_NOT_HOLD}


def test_the_mean_square_of_effects_is_not_that_of_sampling_error():
    """0 where no task has an effect, though every estimate's square is above 0."""
    table = examples(0, names=[f"task{i}" for i in range(200)], n=60)
    found = claims.judge("no-example-level-prediction", examples=table).iloc[1]
    effects = mixedmodel.example_level(table).query("predictor == 'confidence'")["rank_biserial"]
    error = (found["high"] - found["value"]) / 2
    assert (effects**2).mean() > 5 * error  # the trap
    assert found["value"] == pytest.approx(0, abs=3 * error)


def test_a_perfect_prediction_of_few_losses_is_seen():
    """5 % lost: Spearman's rank correlation would be 0.38 at most, and 0.09 for an AUC of 0.62."""
    table = examples(0, n=1000)
    lost = table["uid"].str.split("/").str[-1].astype(int) < 50
    noise = rng().normal(size=len(table))
    shifted = noise + np.sqrt(2) * scipy.stats.norm.ppf(0.62) * lost  # an AUC of 0.62
    table = table.assign(forgotten_correct=~lost, confidence=shifted)
    spearman = scipy.stats.spearmanr(shifted, lost).statistic
    assert spearman < 0.1  # the trap
    pooled = claims.judge("no-example-level-prediction", examples=table).iloc[0]
    assert pooled["value"] == pytest.approx(0.24, abs=0.03)
    assert pooled["verdict"] != HOLDS


def test_the_sign_of_the_order_is_learned_first_forgotten_last():
    opposite, same = (
        claims.judge("learn-forget-anticorrelated", order=order(s)).iloc[0] for s in (-1, 1)
    )
    assert opposite["value"] < -0.5 < 0.5 < same["value"]
    table = order(-1)
    assert opposite["value"] == pytest.approx(table["rank_correlation"].mean())


def test_the_power_of_an_order_is_that_of_what_ties_leave_of_it():
    table = order(0)
    exact, tied = (
        claims.judge("learn-forget-anticorrelated", order=table.assign(seen=seen)).iloc[0]
        for seen in (1.0, 0.2)
    )
    assert (exact["supposed"], tied["supposed"]) == pytest.approx((-0.3, -0.06))
    assert exact["value"] == tied["value"] and exact["low"] == tied["low"]
    assert tied["power"] < 0.8 < exact["power"]
    assert (tied["verdict"], exact["verdict"]) == (CANNOT_DECIDE, UNDECIDED)


def test_unrelated_orders_are_not_called_anticorrelated():
    assert claims.judge("learn-forget-anticorrelated", order=order(0)).iloc[0]["verdict"] in OPEN


def test_tasks_with_too_few_examples_have_no_say_in_the_order():
    table = order(-1)
    table.loc[:2, "enough"] = False
    assert claims.judge("learn-forget-anticorrelated", order=table).iloc[0]["n"] == K - 3


def test_a_probe_at_chance_has_nothing_to_recover():
    found = claims.judge("probes-recover", probes=probes(0.5, 0.5)).iloc[0]
    assert found["verdict"] in OPEN
    assert found["n"] < 4


def test_a_weak_probe_that_loses_all_it_had_has_not_recovered():
    """4 points of 4 are lost, as 4 of 40 are."""
    jitter = 0.002 * np.arange(K)
    table = pd.DataFrame({"eval_task": TASKS, "difference": -0.04 - jitter / 2})
    for height, expected in ((0.04, DOES_NOT_HOLD), (0.4, HOLDS)):
        fine_tuned = 0.5 + height + jitter
        given = table.assign(fine_tuned=fine_tuned, fine_tuned_low=fine_tuned - 0.01)
        assert claims.judge("probes-recover", probes=given).iloc[0]["verdict"] == expected


def test_a_small_set_that_leaves_all_in_place_does_not_have_the_pattern_of_forgetting():
    """Accuracies keep their order where nothing at all is forgotten."""
    tuned = np.linspace(0.65, 0.95, K)
    table = sizes(tuned, 0.5 + 0.2 * (tuned - 0.5), tuned=tuned)
    by_accuracy, by_loss = claims.judge("not-sample-size", sizes=table).to_dict("records")
    assert by_accuracy["verdict"] == HOLDS
    assert by_accuracy["paper"] > 0 and np.isnan(by_loss["paper"])
    assert (by_loss["verdict"], by_loss["n"]) == (CANNOT_DECIDE, K)


def test_sizes_compare_the_smallest_with_the_full_one():
    table = sizes(ACCURACIES, ACCURACIES, middle=ACCURACIES[::-1])  # would say the opposite
    found = claims.judge("not-sample-size", sizes=table).iloc[0]
    assert found["verdict"] == HOLDS
    assert found["statistic"].endswith("with 50 and 200 examples")
    assert found["value"] == pytest.approx(1)


def test_sizes_that_agree_with_themselves_no_better_than_the_claim_asks_decide_nothing():
    table = sizes(ACCURACIES, ACCURACIES).assign(ceiling=0.4)
    for found in claims.judge("not-sample-size", sizes=table).to_dict("records"):
        assert found["verdict"] == CANNOT_DECIDE
        assert found["why"] == "the same condition agrees with itself by 0.40 only"


def test_one_size_has_nothing_to_compare_with():
    found = claims.judge("not-sample-size", sizes=one_size(ACCURACIES)).iloc[0]
    assert (found["verdict"], found["n"]) == (CANNOT_DECIDE, 0)
    assert found["why"] == "needs two sizes of the forgetting set"


def test_without_a_control_by_true_labels_nothing_is_called_an_effect_of_random_ones():
    bare = crosstask.cross_task(cross_runs(TASKS, np.full(K, 0.9), 0.9 - 0.4 * BY_ROW))
    every = claims.verdicts(cross=bare, flipped=cross(BY_ROW, condition="flipped"))
    about = every[every["claim"].isin(["eval-task-determines", "other-tasks-better"])]
    flipped = every[every["statistic"].str.contains("flipped")]
    for found in (about, flipped):
        assert set(found["verdict"]) == {CANNOT_DECIDE}
        assert set(found["why"]) == {"needs a control by true labels for each pair"}


def test_what_true_labels_do_as_well_is_no_effect_of_random_ones():
    """The evaluated task decides all of what is lost, after random and after true labels alike."""
    forgotten = 0.9 - 0.4 * BY_ROW
    draw = rng()
    runs = cross_runs(TASKS, np.full(K, 0.9), forgotten, n=400, rng=draw, again=forgotten)
    found = crosstask.cross_task(runs, n_resamples=200)
    assert crossanalysis.variance_shares(ratios_of(found))["share"][0] > 0.9  # the trap
    assert claims.judge("eval-task-determines", cross=found).iloc[0]["verdict"] != HOLDS


def test_every_pair_of_models_has_its_row():
    models = [cross(BY_ROW, model=name) for name in "abc"]
    found = claims.judge("robust-to-method-and-model", crosses_of_models=models)
    assert len(found) == 1 + 3  # flipped labels are missing
    assert list(found["verdict"]) == [CANNOT_DECIDE, HOLDS, HOLDS, HOLDS]
    means = [beyond_true_labels(c).values.mean(1) for c in models]
    assert found["value"].iloc[1] == pytest.approx(scipy.stats.spearmanr(*means[:2]).statistic)


@pytest.mark.parametrize(
    "given",
    [
        lambda a, b: (None, None, [a, a]),
        lambda a, b: (a, cross(BY_ROW, FEW, condition="flipped", model="other"), []),
        lambda a, b: (a, cross(BY_ROW, FEW, condition="flipped", start="shared"), []),
        lambda a, b: (None, None, [a, cross(BY_ROW, FEW, model="other", start="shared")]),
        lambda a, b: (b, a, []),
        lambda a, b: (None, None, [a, b]),
    ],
    ids=["repeated", "model", "start", "start of models", "swapped", "conditions"],
)
def test_matrices_that_differ_in_more_than_they_should_are_refused(given):
    pair = cross(BY_ROW, FEW), cross(BY_ROW, FEW, condition="flipped")
    with pytest.raises(InputError):
        claim_tests.robust_to_method_and_model(*given(*pair))
    assert len(claim_tests.robust_to_method_and_model(*pair)) == 2  # positive control
