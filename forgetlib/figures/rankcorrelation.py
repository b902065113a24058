"""Rank correlations of predictors with forgetting, over tasks (paper, section 5).

Tables in, tables out, with 95 % intervals; NaN where a number is undefined. The table across tasks
is `fig4.table`, one row a (model, eval_task), joined by eval_task with `tasks.describe`: seeds
repeat a task, they do not add one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from forgetlib.errors import InputError
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    Interval,
    as_columns,
    correlation_percentiles,
    rank_correlation,
    rank_correlations,
    require_columns,
    resample_counts,
)

OUTCOME = "forget_ratio"
NUMERIC = ("confidence", "log_variance", "tuned")
TERMS = (*NUMERIC, "family", "answer_format")
EXAMPLE_PREDICTORS = ("confidence", "log_deviation")
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


def require(table: pd.DataFrame, columns: Iterable[str]) -> None:
    do = "Pass fig4.table(...) merged with tasks.describe(...), or other terms."
    require_columns("the regression's table", table, columns, do)


def one_row_a_task(table: pd.DataFrame) -> pd.DataFrame:
    """The table, which must not have a row a seed: a mean of ratios is not the ratio of means."""
    if table.duplicated(["model", "eval_task"]).any():
        raise InputError(
            "the regression's table",
            expected="one row a model and task",
            found="several",
            do="Pass fig4.table(...) without by_seed, or use mixed_model.",
        )
    return table


def one_model(table: pd.DataFrame) -> pd.DataFrame:
    require(table, ("model", "eval_task"))
    if (n_models := len(table["model"].unique())) > 1:
        raise InputError(
            "least squares",
            expected="one model, as the points of a task are not independent between models",
            found=f"{n_models} models",
            do="Select one: table[table['model'] == ...], or use mixed_model.",
        )
    return one_row_a_task(table)


def is_defined(values: pd.Series) -> pd.Series:
    return np.isfinite(values.astype(float)) if is_numeric_dtype(values) else values.notna()


def means(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """One row a group: means of numbers, and the one value of what is not a number."""
    how = {c: "mean" if is_numeric_dtype(table[c]) else "first" for c in columns}
    return table.groupby([*by], as_index=False, sort=True).agg(how)


def bootstrap_over_tasks(
    x: np.ndarray, y: np.ndarray, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Rank correlation of (N,) with (N,) values, one a task, with a bootstrap over tasks.

    There is none with fewer than FEWEST_RESAMPLED tasks, where more than 5 % of the resamples are
    constant, and where all resamples are equal; `intervals.rank_correlation` has one there too.
    """
    value = rank_correlation(x, y).value
    if len(x) < FEWEST_RESAMPLED:
        return Interval(value, np.nan, np.nan)
    counts = resample_counts(np.random.default_rng(seed), len(x), n_resamples)
    return correlation_percentiles(value, rank_correlations(x, y, counts))


def correlations(
    table: pd.DataFrame,
    predictors: Sequence[str] = NUMERIC,
    outcome: str = OUTCOME,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation over tasks of predictors with the outcome, one row a model and predictor.

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
    one_row_a_task(table)
    rows = []
    for model, of_model in table.groupby("model", sort=True):
        for predictor in predictors:
            tasks = of_model[is_defined(of_model[predictor]) & is_defined(of_model[outcome])]
            x, y = tasks[predictor].to_numpy(float), tasks[outcome].to_numpy(float)
            bootstrap = bootstrap_over_tasks(x, y, n_resamples=n_resamples, seed=seed)
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
