"""Rank correlations and least squares against SciPy, statsmodels and known truths."""

import time

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm
import statsmodels.formula.api as smf
from tables import FAMILIES, FORMATS, examples_of, of_term, table_of

from forgetlib.errors import InputError
from forgetlib.figures import intervals, mixedmodel, regression
from forgetlib.figures.design import OUTCOMES
from forgetlib.figures.regression import NUMERIC, TERMS


def test_correlations_agree_with_scipy():
    table = table_of(21, effects=(0.5, -0.2, 0.0))
    found = regression.correlations(table).set_index("predictor")
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
    row = regression.correlations(table, ["confidence"], n_resamples=4000).iloc[0]
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


@pytest.mark.parametrize("n_tasks", [regression.FEWEST_RESAMPLED, 21])
def test_under_the_null_the_interval_covers_zero_in_95_percent(n_tasks):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        x, y = rng.normal(size=(2, n_tasks))
        found = regression.bootstrap_over_tasks(x, y, n_resamples=300)
        covered.append(not (found.low > 0 or found.high < 0))
    assert 0.92 <= np.mean(covered) <= 0.99


def test_a_real_correlation_is_found():
    row = regression.correlations(table_of(effects=(-0.3, 0, 0))).iloc[0]
    assert row["rank_correlation_high"] < -0.5 and row["bootstrap_high"] < -0.5


@pytest.mark.parametrize("n_tasks", [0, 1, 2, 4, regression.FEWEST_RESAMPLED - 1])
def test_few_tasks_give_no_interval(n_tasks):
    found = regression.bootstrap_over_tasks(*np.random.default_rng(0).normal(size=(2, n_tasks)))
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(found.value) == (n_tasks < 2)


def test_there_is_no_interval_where_resampling_cannot_show_the_uncertainty():
    order = np.arange(8.0)
    perfect = regression.bootstrap_over_tasks(order, -order)
    assert perfect.value == pytest.approx(-1) and np.isnan(perfect.low)
    one_differs = regression.bootstrap_over_tasks(order == 0, order)  # (7/8)^8 = 34 % are constant
    assert np.isfinite(one_differs.value) and np.isnan(one_differs.low)
    assert np.isnan(regression.bootstrap_over_tasks(np.ones(8), order).value)


def test_an_empty_table_has_no_correlations():
    columns = list(regression.correlations(table_of(8)))
    for empty in (pd.DataFrame(), table_of(8).iloc[:0]):
        found = regression.correlations(empty)
        assert found.empty and list(found) == columns


def test_models_have_a_row_each_and_undefined_tasks_are_not_counted():
    small = table_of(8).assign(model="small")
    small.loc[0, "forget_ratio"] = np.nan
    found = regression.correlations(pd.concat([table_of(7), small]), ["tuned"])
    assert found[["model", "n_tasks"]].values.tolist() == [["m", 7], ["small", 7]]
    other = regression.correlations(small.assign(forgotten=0.5), ["tuned"], "forgotten")
    assert other["n_tasks"].tolist() == [8] and other["rank_correlation"].isna().all()


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
    assert (fit.n, fit.n_tasks, fit.kept, fit.dropped) == (21, 21, TERMS, {})


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
    found = regression.each_alone(table, terms, ["forget_ratio"])
    alone = of_term(found, "confidence")
    joint = regression.least_squares(table, terms).coefficients
    assert alone["coefficient_low"] > 0.1
    assert of_term(joint, "confidence")["coefficient_low"] < 0
    assert of_term(joint, "confidence")["coefficient_high"] > 0
    assert of_term(joint, "answer_format: verbaliser")["coefficient"] == pytest.approx(0.6, abs=0.2)
    assert of_term(joint, "answer_format: verbaliser")["coefficient_low"] > 0.3


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_alone_is_one_regression_a_term(outcome):
    table = table_of(effects=(0.3, -0.2, 0.1))
    every = regression.each_alone(table)
    assert list(dict.fromkeys(every["outcome"])) == list(OUTCOMES)
    found = every[every["outcome"] == outcome]
    for predictor in NUMERIC:
        theirs = scipy.stats.linregress(table[predictor], table[outcome])
        row = of_term(found, predictor)
        assert row["coefficient"] == pytest.approx(theirs.slope * table[predictor].std())
        assert row["r_squared"] == pytest.approx(theirs.rvalue**2)
        scaled = (table[predictor] - table[predictor].mean()) / table[predictor].std()
        without = [
            scipy.stats.linregress(scaled.drop(i), table[outcome].drop(i)).slope
            for i in table.index
        ]
        assert (row["least"], row["most"]) == pytest.approx((min(without), max(without)))
        assert row["needed"] == 33 and row["power"] == pytest.approx(0.6, abs=0.02)
    means = table.groupby("answer_format")[outcome].mean()
    row = of_term(found, "answer_format: verbaliser")
    assert row["coefficient"] == pytest.approx(means["verbaliser"] - means["text"])
    assert np.isnan([row["power"], row["needed"]]).all()
    assert (found["n_tasks"] == 21).all() and (found["note"] == "").all()


def test_errors_say_what_to_do():
    with pytest.raises(InputError, match=r"expected columns answer_format, family.*describe"):
        regression.least_squares(table_of().drop(columns=["family", "answer_format"]))
    two = pd.concat([table_of(), table_of().assign(model="other")])
    with pytest.raises(InputError, match="found 2 models"):
        regression.least_squares(two)
    for function in (regression.least_squares, regression.correlations, regression.each_alone):
        with pytest.raises(InputError, match=r"one row a model and task.*without by_seed"):
            function(table_of(21, 2))


def test_leaving_one_task_out_agrees_with_statsmodels_influence():
    table = table_of(effects=(0.3, -0.2, 0.1))
    found = regression.leave_one_task_out(table, NUMERIC).set_index(["left_out", "term"])
    x = sm.add_constant(scipy.stats.zscore(table[list(NUMERIC)], ddof=1))
    fitted = sm.OLS(table["forget_ratio"], x).fit()
    theirs = fitted.params.to_numpy() - fitted.get_influence().dfbeta
    for i, task in enumerate(table["eval_task"]):
        ours = found.loc[task].loc[list(NUMERIC), "coefficient"].to_numpy()
        assert ours == pytest.approx(theirs[i, 1:])


def test_leaving_one_task_out_is_a_fit_of_the_others():
    """By NumPy alone, with the standard deviations of all tasks."""
    table = table_of(effects=(0.3, -0.2, 0.1))
    found = regression.leave_one_task_out(table, NUMERIC)
    assert found["left_out"].tolist() == [t for t in table["eval_task"] for _ in NUMERIC]
    assert found["term"].tolist() == [*NUMERIC] * len(table)
    x = np.column_stack(
        [np.ones(len(table)), *(scipy.stats.zscore(table[c], ddof=1) for c in NUMERIC)]
    )
    y = table["forget_ratio"].to_numpy()
    for i, of_task in enumerate(np.split(found["coefficient"].to_numpy(), len(table))):
        rest = np.arange(len(y)) != i
        assert of_task == pytest.approx(np.linalg.lstsq(x[rest], y[rest])[0][1:], abs=1e-12)


def test_leaving_out_the_task_that_makes_the_result_shows_it():
    rng = np.random.default_rng(0)
    confidence = np.r_[rng.normal(size=20), 9]
    ratio = np.r_[0.1 * rng.normal(size=20), 1]
    table = table_of(confidence=confidence, forget_ratio=ratio)
    found = regression.leave_one_task_out(table, ("confidence",)).set_index("left_out")
    assert found["coefficient"].drop("task20").min() > 0.15
    assert abs(found.loc["task20", "coefficient"]) < 0.1


def test_everything_is_deterministic():
    table, examples = table_of(21), examples_of()
    for function, argument in (
        (regression.correlations, table),
        (regression.each_alone, table),
        (mixedmodel.example_level, examples),
    ):
        pd.testing.assert_frame_equal(function(argument), function(argument))


def test_the_embedded_study_s_size_takes_seconds():
    examples = examples_of(7, 3, 500)  # a third of its tasks
    start = time.process_time()
    assert len(mixedmodel.example_level(examples)) == 2 * 8
    assert time.process_time() - start < 5  # 1 s on an idle core
