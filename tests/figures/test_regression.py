"""Regressions against SciPy, NumPy and statsmodels, on tables whose truth is known."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm
import statsmodels.formula.api as smf

from forgetlib.errors import InputError
from forgetlib.figures import intervals, mixedmodel, rankcorrelation, regression
from forgetlib.figures.rankcorrelation import NUMERIC, TERMS

FAMILIES = ("commonsense", "science", "knowledge", "language understanding")
FORMATS = ("text", "verbaliser")


def table_of(n_tasks=21, n_seeds=1, *, effects=(0.0, 0.0, 0.0), noise=0.1, seed=0, **columns):
    """A table of predictors; the ratio is a sum of effects on standard normal predictors.

    n_seeds: with several, a row is a seed, as the mixed model takes it
    columns: (n_tasks,) further columns, or others in place of the drawn ones
    """
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(n_tasks, 3))
    per_task = {
        **{name: drawn[:, i] for i, name in enumerate(NUMERIC)},
        "forget_ratio": 0.5 + drawn @ np.array(effects) + noise * rng.normal(size=n_tasks),
        "family": [FAMILIES[i % len(FAMILIES)] for i in range(n_tasks)],
        "answer_format": [FORMATS[i // 3 % 2] for i in range(n_tasks)],
        **columns,
    }
    tasks = pd.DataFrame(per_task)
    tasks.insert(0, "eval_task", [f"task{i:02d}" for i in range(n_tasks)])
    tables = []
    for s in range(n_seeds):
        of_seed = tasks.assign(model="m", seed=s)
        for name in (*NUMERIC, "forget_ratio") if n_seeds > 1 else ():
            of_seed[name] += 0.02 * rng.normal(size=n_tasks)
        tables.append(of_seed)
    table = pd.concat(tables, ignore_index=True)
    return table if n_seeds > 1 else table.drop(columns="seed")


def of_term(coefficients, term):
    return coefficients.set_index("term").loc[term]


# --- rank correlations ---------------------------------------------------------------------------


def test_correlations_agree_with_scipy():
    table = table_of(21, effects=(0.5, -0.2, 0.0))
    found = rankcorrelation.correlations(table).set_index("predictor")
    for predictor in NUMERIC:
        expected = scipy.stats.spearmanr(table[predictor], table["forget_ratio"]).statistic
        assert found.loc[predictor, "rank_correlation"] == pytest.approx(expected)
        interval = intervals.rank_correlation(table[predictor], table["forget_ratio"])
        ends = found.loc[predictor, ["rank_correlation_low", "rank_correlation_high"]]
        assert ends.tolist() == pytest.approx([interval.low, interval.high])
    assert found["n_tasks"].tolist() == [21, 21, 21]
    assert set(found["model"]) == {"m"}


def test_the_bootstrap_over_tasks_agrees_with_scipy():
    table = table_of(21, effects=(0.1, 0, 0), confidence=np.arange(21) // 3)  # with ties
    row = rankcorrelation.correlations(table, ["confidence"], n_resamples=4000).iloc[0]
    theirs = scipy.stats.bootstrap(
        (table["confidence"], table["forget_ratio"]),
        lambda x, y: scipy.stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert row["bootstrap_low"] == pytest.approx(theirs.low, abs=0.04)
    assert row["bootstrap_high"] == pytest.approx(theirs.high, abs=0.04)


@pytest.mark.parametrize("n_tasks", [rankcorrelation.FEWEST_RESAMPLED, 21])
def test_under_the_null_the_interval_covers_zero_in_95_percent(n_tasks):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        x, y = rng.normal(size=(2, n_tasks))
        found = rankcorrelation.bootstrap_over_tasks(x, y, n_resamples=300)
        covered.append(not (found.low > 0 or found.high < 0))
    assert 0.92 <= np.mean(covered) <= 0.99


def test_a_real_correlation_is_found():
    row = rankcorrelation.correlations(table_of(effects=(-0.3, 0, 0))).iloc[0]
    assert row["rank_correlation_high"] < -0.5 and row["bootstrap_high"] < -0.5


@pytest.mark.parametrize("n_tasks", [0, 1, 2, 4, rankcorrelation.FEWEST_RESAMPLED - 1])
def test_few_tasks_give_no_interval(n_tasks):
    found = rankcorrelation.bootstrap_over_tasks(
        *np.random.default_rng(0).normal(size=(2, n_tasks))
    )
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(found.value) == (n_tasks < 2)


def test_there_is_no_interval_where_resampling_cannot_show_the_uncertainty():
    order = np.arange(8.0)
    perfect = rankcorrelation.bootstrap_over_tasks(order, -order)
    assert perfect.value == pytest.approx(-1) and np.isnan(perfect.low)
    one_differs = rankcorrelation.bootstrap_over_tasks(
        order == 0, order
    )  # (7/8)^8 = 34 % are constant
    assert np.isfinite(one_differs.value) and np.isnan(one_differs.low)
    assert np.isnan(rankcorrelation.bootstrap_over_tasks(np.ones(8), order).value)


def test_an_empty_table_has_no_correlations():
    columns = list(rankcorrelation.correlations(table_of(8)))
    for empty in (pd.DataFrame(), table_of(8).iloc[:0]):
        found = rankcorrelation.correlations(empty)
        assert found.empty and list(found) == columns


def test_models_have_a_row_each_and_undefined_tasks_are_not_counted():
    small = table_of(8).assign(model="small")
    small.loc[0, "forget_ratio"] = np.nan
    found = rankcorrelation.correlations(pd.concat([table_of(7), small]), ["tuned"])
    assert found[["model", "n_tasks"]].values.tolist() == [["m", 7], ["small", 7]]
    other = rankcorrelation.correlations(small.assign(forgotten=0.5), ["tuned"], "forgotten")
    assert other["n_tasks"].tolist() == [8] and other["rank_correlation"].isna().all()


# --- least squares -------------------------------------------------------------------------------


def by_hand(table):
    """Coefficients and HC3 errors of all terms by NumPy alone; HC3 as MacKinnon and White wrote it.

    With e the residuals and h the leverages: (X'X)^-1 X' diag(e^2 / (1 - h)^2) X (X'X)^-1
    """
    numbers = table[list(NUMERIC)].to_numpy()
    numbers = (numbers - numbers.mean(0)) / numbers.std(0, ddof=1)
    # the most frequent family (6 of 21) and format (12 of 21) have no column of their own
    families = [table["family"] == f for f in sorted(FAMILIES[1:])]
    columns = [np.ones(len(table)), *numbers.T, *families, table["answer_format"] == "verbaliser"]
    x, y = np.stack(columns, axis=1).astype(float), table["forget_ratio"].to_numpy()
    coefficients = np.linalg.lstsq(x, y)[0]
    inverse = np.linalg.inv(x.T @ x)
    leverage = np.diag(x @ inverse @ x.T)
    squared = ((y - x @ coefficients) / (1 - leverage)) ** 2
    covariance = inverse @ (x.T * squared) @ x @ inverse
    return coefficients[1:], np.sqrt(np.diag(covariance))[1:], len(y) - x.shape[1]


def test_least_squares_agrees_with_numpy_and_the_formula_of_hc3():
    table = table_of(effects=(0.3, -0.2, 0.1))
    fit = regression.least_squares(table)
    values, errors, degrees = by_hand(table)
    found = fit.coefficients
    reach = scipy.stats.t.ppf(0.975, degrees) * errors
    assert found["term"].tolist() == [
        *NUMERIC,
        "family: knowledge",
        "family: language understanding",
        "family: science",
        "answer_format: verbaliser",
    ]
    assert found["against"].tolist() == ["", "", "", *["commonsense"] * 3, "text"]
    assert found["coefficient"].to_numpy() == pytest.approx(values)
    assert found["coefficient_low"].to_numpy() == pytest.approx(values - reach)
    assert found["coefficient_high"].to_numpy() == pytest.approx(values + reach)
    assert (fit.n, fit.n_tasks, fit.kept, fit.dropped, fit.left_out) == (21, 21, TERMS, {}, {})


def test_least_squares_agrees_with_statsmodels_formulas():
    table = table_of(effects=(0.3, -0.2, 0.1))
    fit = regression.least_squares(table, ("confidence", "answer_format"))
    table["confidence"] = scipy.stats.zscore(table["confidence"], ddof=1)
    theirs = smf.ols("forget_ratio ~ confidence + answer_format", table)
    theirs = theirs.fit(cov_type="HC3", use_t=True)
    names = ["confidence", "answer_format[T.verbaliser]"]
    assert fit.coefficients["coefficient"].to_numpy() == pytest.approx(theirs.params[names])
    assert fit.coefficients["p_value"].to_numpy() == pytest.approx(theirs.pvalues[names])
    assert fit.r_squared == pytest.approx(theirs.rsquared)


def test_known_coefficients_lie_in_the_intervals():
    for seed in range(5):
        table = table_of(200, effects=(0.3, -0.2, 0.0), seed=seed)
        found = regression.least_squares(table, NUMERIC).coefficients
        truth = np.array([0.3, -0.2, 0.0]) * table[list(NUMERIC)].std().to_numpy()
        # 15 intervals of 95 %: within half as much again, all of them
        spread = found["coefficient_high"] - found["coefficient_low"]
        assert (np.abs(found["coefficient"] - truth) < 0.75 * spread).all()
        assert found["coefficient_low"].iloc[0] > 0.2 and found["coefficient_high"].iloc[1] < -0.1


@pytest.mark.parametrize("n_tasks", [4, 6, 21])
def test_under_the_null_the_coefficients_intervals_cover_zero_in_95_percent(n_tasks):
    covered = []
    for seed in range(120):
        table = table_of(n_tasks, seed=seed)
        found = regression.least_squares(table, NUMERIC[: n_tasks // 2 - 1]).coefficients
        covered += ((found["coefficient_low"] <= 0) & (found["coefficient_high"] >= 0)).tolist()
    assert 0.92 <= np.mean(covered) <= 0.995


def test_the_joint_regression_tells_a_confound_apart_and_the_simple_one_does_not():
    rng = np.random.default_rng(0)
    verbaliser = np.arange(21) % 2
    table = table_of(
        21,
        confidence=verbaliser + 0.5 * rng.normal(size=21),
        forget_ratio=0.3 + 0.6 * verbaliser + 0.1 * rng.normal(size=21),
        answer_format=np.array(FORMATS)[verbaliser],
    )
    terms = ("confidence", "answer_format")
    alone = of_term(regression.each_alone(table, terms), "confidence")
    joint = regression.least_squares(table, terms).coefficients
    assert alone["coefficient_low"] > 0.1
    assert of_term(joint, "confidence")["coefficient_low"] < 0
    assert of_term(joint, "confidence")["coefficient_high"] > 0
    assert of_term(joint, "answer_format: verbaliser")["coefficient"] == pytest.approx(0.6, abs=0.2)
    assert of_term(joint, "answer_format: verbaliser")["coefficient_low"] > 0.3


def test_each_alone_is_one_regression_a_term():
    table = table_of(effects=(0.3, -0.2, 0.1))
    found = regression.each_alone(table)
    for predictor in NUMERIC:
        theirs = scipy.stats.linregress(table[predictor], table["forget_ratio"])
        row = of_term(found, predictor)
        assert row["coefficient"] == pytest.approx(theirs.slope * table[predictor].std())
        assert row["r_squared"] == pytest.approx(theirs.rvalue**2)
    means = table.groupby("answer_format")["forget_ratio"].mean()
    difference = of_term(found, "answer_format: verbaliser")["coefficient"]
    assert difference == pytest.approx(means["verbaliser"] - means["text"])
    assert (found["n_tasks"] == 21).all() and (found["note"] == "").all()


# --- what cannot be estimated is dropped by rule, and named --------------------------------------


def test_four_tasks_estimate_one_term_and_name_the_others():
    table = table_of(4, family=["synthetic"] * 4, answer_format=[*FORMATS, *FORMATS])
    fit = regression.least_squares(table)
    assert fit.kept == ("confidence",) and fit.coefficients["term"].tolist() == ["confidence"]
    assert np.isfinite(fit.coefficients.drop(columns=["term", "against"]).to_numpy()).all()
    assert fit.dropped == {
        "log_variance": "too few tasks: 4 for 3 coefficients",
        "tuned": "too few tasks: 4 for 3 coefficients",
        "family": "it does not vary over these tasks",
        "answer_format": "too few tasks: 4 for 3 coefficients",
    }
    alone = regression.each_alone(table)
    assert alone["coefficient"].notna().tolist() == [True, True, True, False, True]
    assert of_term(alone, "family")["note"] == "it does not vary over these tasks"


@pytest.mark.parametrize("n_tasks", range(7))
def test_every_function_takes_any_number_of_tasks(n_tasks):
    table = table_of(n_tasks)
    fit = regression.least_squares(table)
    assert set(fit.kept) | set(fit.dropped) == set(TERMS) and fit.n == n_tasks
    assert len(regression.each_alone(table)) >= len(TERMS)
    for tidy in (regression.partial_regression, regression.leave_one_task_out):
        assert len(tidy(table)) == n_tasks * len(fit.coefficients)
    assert mixedmodel.mixed_model(table).coefficients.empty
    assert len(rankcorrelation.correlations(table)) == (3 if n_tasks else 0)


def test_an_aliased_term_is_named_with_the_term_that_determines_it():
    families = [FAMILIES[i % 4] for i in range(21)]
    formats = ["verbaliser" if f == FAMILIES[3] else "text" for f in families]
    table = table_of(family=families, answer_format=formats)
    assert regression.least_squares(table).dropped == {"answer_format": "aliased with family"}
    turned = regression.least_squares(table, ("answer_format", "family"))
    assert turned.kept == ("answer_format",)
    assert turned.dropped == {"family": "aliased with answer_format"}
    table["tuned"] = table["confidence"] + 2 * table["log_variance"]
    dropped = regression.least_squares(table, NUMERIC).dropped
    assert dropped == {"tuned": "aliased with confidence, log_variance together"}


def test_families_with_a_single_task_are_pooled():
    families = [*FAMILIES[:3] * 6, "math", "toxicity", "reading"]
    fit = regression.least_squares(table_of(family=families), ("family",))
    assert fit.notes == ("family: other is math, reading, toxicity",)
    assert "family: other" in fit.coefficients["term"].tolist()
    # a single such family would be alone in "other": the smallest of the others joins it
    families = [*FAMILIES[:3] * 6, "commonsense", "science", "math"]
    fit = regression.least_squares(table_of(family=families), ("family",))
    assert fit.notes == ("family: other is knowledge, math",)
    assert np.isfinite(fit.coefficients["coefficient_low"]).all()


def test_a_term_that_one_task_alone_decides_is_dropped():
    formats = ["text"] * 20 + ["verbaliser"]
    fit = regression.least_squares(table_of(answer_format=formats))
    assert fit.dropped == {"answer_format": "decided by task20 alone"}
    # The paper's families determine the format but in "other", where mathqa alone is text.
    families = ["commonsense"] * 7 + ["science"] * 3 + ["glue"] * 8 + ["reading", "math", "toxic"]
    formats = ["text"] * 10 + ["verbaliser"] * 9 + ["text", "verbaliser"]
    fit = regression.least_squares(table_of(family=families, answer_format=formats))
    assert fit.dropped == {"answer_format": "decided by task19 alone"}


def test_undefined_rows_are_left_out_and_named():
    table = table_of(21)
    table.loc[3, "forget_ratio"] = np.nan
    table.loc[5, "log_variance"] = -np.inf
    fit = regression.least_squares(table)
    assert fit.left_out == {
        "task03": "forget_ratio undefined",
        "task05": "log_variance undefined",
    }
    assert fit.n == 19
    rest = table.drop(index=[3, 5])
    pd.testing.assert_frame_equal(fit.coefficients, regression.least_squares(rest).coefficients)
    fit = regression.least_squares(table.assign(log_variance=np.nan))
    assert fit.dropped["log_variance"] == "it is undefined in every row"
    assert fit.left_out == {"task03": "forget_ratio undefined"}
    of_seeds = table_of(21, 2)
    of_seeds.loc[24, "forget_ratio"] = np.nan
    left_out = mixedmodel.mixed_model(of_seeds).left_out
    assert left_out == {"task03, seed 1": "forget_ratio undefined"}
    of_models = pd.concat([of_seeds, table_of(21, 2).assign(model="n")])
    left_out = mixedmodel.mixed_model(of_models).left_out
    assert left_out == {"m, task03, seed 1": "forget_ratio undefined"}


def test_an_outcome_that_does_not_vary_is_named():
    fit = regression.least_squares(table_of(6, forget_ratio=np.ones(6)))
    assert fit.coefficients.empty
    assert fit.dropped["confidence"] == "forget_ratio does not vary over 6 tasks"


def test_errors_say_what_to_do():
    with pytest.raises(InputError, match=r"expected columns answer_format, family.*describe"):
        regression.least_squares(table_of().drop(columns=["family", "answer_format"]))
    two = pd.concat([table_of(), table_of().assign(model="other")])
    with pytest.raises(InputError, match="found 2 models"):
        regression.least_squares(two)
    for function in (regression.least_squares, rankcorrelation.correlations, regression.each_alone):
        with pytest.raises(InputError, match=r"one row a model and task.*without by_seed"):
            function(table_of(21, 2))


# --- stability -----------------------------------------------------------------------------------


def test_the_slope_of_the_partial_regression_is_the_joint_coefficient():
    """The theorem of Frisch, Waugh and Lovell."""
    table = table_of(21, effects=(0.3, -0.2, 0.1))
    fit = regression.least_squares(table)
    parts = regression.partial_regression(table)
    assert parts.columns.tolist() == ["term", "model", "eval_task", "x", "y"]
    for term, part in parts.groupby("term"):
        slope, intercept = np.polyfit(part["x"], part["y"], 1)
        assert slope == pytest.approx(of_term(fit.coefficients, term)["coefficient"])
        assert intercept == pytest.approx(0)
        assert sorted(part["eval_task"]) == sorted(set(table["eval_task"]))


def test_leaving_one_task_out_agrees_with_statsmodels_influence():
    table = table_of(effects=(0.3, -0.2, 0.1))
    found = regression.leave_one_task_out(table, NUMERIC).set_index(["left_out", "term"])
    x = sm.add_constant(scipy.stats.zscore(table[list(NUMERIC)], ddof=1))
    fitted = sm.OLS(table["forget_ratio"], x).fit()
    theirs = fitted.params.to_numpy() - fitted.get_influence().dfbeta
    for i, task in enumerate(table["eval_task"]):
        ours = found.loc[task].loc[list(NUMERIC), "coefficient"].to_numpy()
        assert ours == pytest.approx(theirs[i, 1:])


def test_leaving_out_the_task_that_makes_the_result_shows_it():
    rng = np.random.default_rng(0)
    confidence = np.r_[rng.normal(size=20), 9]
    ratio = np.r_[0.1 * rng.normal(size=20), 1]
    table = table_of(confidence=confidence, forget_ratio=ratio)
    found = regression.leave_one_task_out(table, ("confidence",)).set_index("left_out")
    assert found["coefficient"].drop("task20").min() > 0.15
    assert abs(found.loc["task20", "coefficient"]) < 0.1


# --- mixed model ---------------------------------------------------------------------------------


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
        row = mixedmodel.mixed_model(table, ("confidence",)).coefficients.iloc[0]
        found.append(row["coefficient_low"] <= 0 <= row["coefficient_high"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            naively = smf.mixedlm("forget_ratio ~ confidence + model", table, groups="eval_task")
            fit = naively.fit()
        naive.append(abs(fit.tvalues["confidence"]) < scipy.stats.t.ppf(0.975, 7))
    assert np.mean(naive) < 0.85  # positive control
    assert np.mean(found) > 0.9


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


# --- examples of a task --------------------------------------------------------------------------


def examples_of(n_tasks=3, n_seeds=2, n=150, *, effect=0.0, share_lost=0.3, seed=0, shared=False):
    """Examples, of which a share is lost, the likelier the lower the confidence by `effect`."""
    rng = np.random.default_rng(seed)
    tables = []
    for t in range(n_tasks):
        for s in range(n_seeds):
            confidence = rng.normal(size=n)
            chance = scipy.special.expit(scipy.special.logit(share_lost) - effect * confidence)
            tables.append(
                pd.DataFrame(
                    {
                        "model": "m",
                        "eval_task": f"task{t:02d}",
                        "seed": s,
                        "uid": [f"task{t}/test/{i + (0 if shared else s * n)}" for i in range(n)],
                        "confidence": np.round(confidence, 1),  # with ties
                        "log_deviation": rng.normal(size=n),
                        "tuned_correct": rng.random(n) < 0.9,
                        "forgotten_correct": rng.random(n) >= chance,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


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


def test_everything_is_deterministic():
    table, examples = table_of(21), examples_of()
    for function, argument in (
        (rankcorrelation.correlations, table),
        (regression.each_alone, table),
        (mixedmodel.example_level, examples),
    ):
        pd.testing.assert_frame_equal(function(argument), function(argument))


def test_the_embedded_study_s_size_takes_seconds():
    examples = examples_of(7, 3, 500)  # a third of its tasks
    start = time.process_time()
    assert len(mixedmodel.example_level(examples)) == 2 * 8
    assert time.process_time() - start < 5  # 1 s on an idle core
