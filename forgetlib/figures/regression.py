"""What predicts forgetting: the regression analyses of Figure 4 (paper, section 5).

Across tasks: rank correlations, and least squares of each predictor alone; `design` chooses rows
and terms. All predictors jointly need more points than the tasks of one model: the mixed model, of
several, is in `mixedmodel`, with single examples. Intervals are 95 %; NaN where a number is
undefined.

The table across tasks is `fig4.table`, one row a (model, eval_task), joined by eval_task
with `tasks.describe`: seeds repeat a task, they do not add one. The mixed model alone takes the
table with one row a seed (`by_seed=True`).

A caution about fine-tuned accuracy ("tuned"): it is also the denominator of the forget ratio, so
its sampling error is in both, and with few test examples they correlate by that alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.outliers_influence import OLSInfluence

from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import resample_counts
from forgetlib.figures.design import (
    COEFFICIENT_COLUMNS,
    NUMERIC,
    OUTCOME,
    OUTCOMES,
    TERMS,
    Design,
    Fit,
    coefficient_table,
    design_of,
    empty_fit,
    is_defined,
    require,
)
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    Interval,
    as_columns,
    correlation_percentiles,
    rank_correlation,
    rank_correlations,
)
from forgetlib.figures.power import needed, of_correlation

ALONE = (*NUMERIC, "answer_format")
LARGE = -0.5  # a rank correlation that is usually called large
FEWEST_RESAMPLED = 6  # of 5 tasks, a percentile interval of a rank correlation covers 83 %
CORRELATION_COLUMNS = (
    "model",
    "predictor",
    "rank_correlation",
    "rank_correlation_low",
    "rank_correlation_high",
    "bootstrap_low",
    "bootstrap_high",
    "n_tasks",
)


def _one_row_a_task(table: pd.DataFrame) -> pd.DataFrame:
    """The table, which must not have a row a seed: a mean of ratios is not the ratio of means."""
    if table.duplicated(["model", "eval_task"]).any():
        raise InputError(
            "the regression's table",
            expected="one row a model and task",
            found="several",
            do="Pass fig4.table(...) without by_seed, or use mixed_model.",
        )
    return table


def _one_model(table: pd.DataFrame) -> pd.DataFrame:
    require(table, ("model", "eval_task"))
    if (n_models := len(table["model"].unique())) > 1:
        raise InputError(
            "least squares",
            expected="one model, as the points of a task are not independent between models",
            found=f"{n_models} models",
            do="Select one: table[table['model'] == ...], or use mixed_model.",
        )
    return _one_row_a_task(table)


def bootstrap_over_tasks(
    x: np.ndarray, y: np.ndarray, *, n_resamples: int = N_RESAMPLES
) -> Interval:
    """Correlate the ranks of (N,) and (N,) values, one a task, with a bootstrap over tasks.

    There is none with fewer than FEWEST_RESAMPLED tasks, where more than 5 % of the resamples are
    constant, and where all resamples are equal; `intervals.rank_correlation` has one there too.
    """
    value = rank_correlation(x, y).value
    if len(x) < FEWEST_RESAMPLED:
        return Interval(value, np.nan, np.nan)
    counts = resample_counts(np.random.default_rng(0), len(x), n_resamples)
    return correlation_percentiles(value, rank_correlations(x, y, counts))


def correlations(
    table: pd.DataFrame,
    predictors: Sequence[str] = NUMERIC,
    outcome: str = OUTCOME,
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Correlate predictors with the outcome by ranks over tasks, one row a model and predictor.

    Tasks where either is undefined are left out.

    Columns: model, predictor, rank_correlation with its interval (`intervals.rank_correlation`),
    bootstrap_low and bootstrap_high (`bootstrap_over_tasks`), n_tasks. No rows of an empty table.
    """
    if table.empty:
        return pd.DataFrame(columns=list(CORRELATION_COLUMNS))
    require(table, ("model", "eval_task", outcome, *predictors))
    if words := [c for c in (outcome, *predictors) if not is_numeric_dtype(table[c])]:
        raise InputError(
            "rank correlation",
            expected="columns of numbers",
            found=", ".join(words),
            do="Leave out categories: least_squares takes them.",
        )
    _one_row_a_task(table)
    rows = []
    for model, of_model in table.groupby("model", sort=True):
        for predictor in predictors:
            tasks = of_model[is_defined(of_model[predictor]) & is_defined(of_model[outcome])]
            x, y = tasks[predictor].to_numpy(float), tasks[outcome].to_numpy(float)
            bootstrap = bootstrap_over_tasks(x, y, n_resamples=n_resamples)
            rows.append(
                {
                    "model": model,
                    "predictor": predictor,
                    **as_columns("rank_correlation", rank_correlation(x, y)),
                    "bootstrap_low": bootstrap.low,
                    "bootstrap_high": bootstrap.high,
                    "n_tasks": len(tasks),
                }
            )
    return pd.DataFrame(rows, columns=list(CORRELATION_COLUMNS))


def _ols(design: Design) -> OLS:
    return OLS(design.points[design.outcome].to_numpy(float), design.columns.to_numpy(float))


def least_squares(table: pd.DataFrame, terms: Sequence[str] = TERMS, outcome: str = OUTCOME) -> Fit:
    """Fit what is forgotten on all terms jointly, one point a task, for one model.

    statsmodels' OLS with HC3 errors, which hold where the scatter differs between tasks, and t
    intervals. Numbers are standardised over tasks, categories treatment-coded, families with a
    single task pooled as "other". `design.design_of` says which terms are dropped; the order of
    `terms` decides which of two aliased ones stays.

    outcome: of `design.OUTCOMES`
    """
    design = design_of(_one_model(table), terms, outcome)
    fit = empty_fit(design, n=len(design.points))
    if not design.kept:
        return fit
    fitted = _ols(design).fit(cov_type="HC3", use_t=True)
    coefficients = coefficient_table(
        design.columns.columns[1:],
        design.against,
        fitted.params[1:],
        fitted.bse[1:],
        fitted.df_resid,
    )
    return replace(fit, coefficients=coefficients, r_squared=float(fitted.rsquared))


def each_alone(
    table: pd.DataFrame, terms: Sequence[str] = ALONE, outcomes: Iterable[str] = OUTCOMES
) -> pd.DataFrame:
    """Fit one regression a term and outcome, with no other term in it, and without each task.

    Families of tasks are left out: a family has one to four of a model's tasks, and the errors of
    so few are not to be trusted.

    Columns: outcome, those of `Fit.coefficients`, least and most (the coefficient without each task
    in turn: does one task make the result?), r_squared, n_tasks, power and needed (of a rank
    correlation of `LARGE` with so many tasks, and how many have the power `power.ENOUGH`; of
    numbers), and note: why there is no coefficient (which is then NaN), or which families were
    pooled.
    """
    rows = []
    able = of_correlation(LARGE, 0.0)
    for outcome, term in product(outcomes, terms):
        fit = least_squares(table, (term,), outcome)
        found = fit.coefficients
        if not len(found):
            found = pd.DataFrame([dict.fromkeys(COEFFICIENT_COLUMNS, np.nan)])
            found[["term", "against"]] = [term, ""]
        without = leave_one_task_out(table, (term,), outcome).groupby("term")["coefficient"]
        number = term in NUMERIC
        rows.append(
            found.assign(
                outcome=outcome,
                least=found["term"].map(without.min()),
                most=found["term"].map(without.max()),
                r_squared=fit.r_squared,
                n_tasks=fit.n_tasks,
                power=able(fit.n_tasks) if number else np.nan,
                needed=needed(able) if number else np.nan,
                note="; ".join((*fit.dropped.values(), *fit.notes)),
            )
        )
    every = pd.concat(rows, ignore_index=True)
    return every[["outcome", *(c for c in every if c != "outcome")]]


def leave_one_task_out(
    table: pd.DataFrame, terms: Sequence[str] = TERMS, outcome: str = OUTCOME
) -> pd.DataFrame:
    """Fit the coefficients of all terms without each task in turn.

    Terms, pooled families and standard deviations stay those of all tasks, so that the
    coefficients are comparable with those of `least_squares`. All are defined, as no task has
    leverage 1. Columns: left_out, term, coefficient.
    """
    design = design_of(_one_model(table), terms, outcome)
    if not design.kept:
        return pd.DataFrame(columns=["left_out", "term", "coefficient"])
    without = OLSInfluence(_ols(design).fit()).params_not_obsi[:, 1:]  # (tasks, coefficients)
    names = design.columns.columns[1:]
    pairs = product(design.points["eval_task"], names)
    return pd.DataFrame(pairs, columns=["left_out", "term"]).assign(coefficient=without.ravel())
