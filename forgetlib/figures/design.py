"""Choose what a regression of what is forgotten can estimate: rows, terms, coded columns.

Shared by `regression` and `mixedmodel` (Figure 4). Which terms are dropped, and why, is decided
here by rule, before anything is fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.stats
from pandas.api.types import is_numeric_dtype

from forgetlib.figures.intervals import TAIL, require_columns

# What is forgotten: by the paper's ratio, whose denominator is small where little was learned, and
# as what was lost.
OUTCOMES = {
    "forget_ratio": "forget ratio",
    "lost": "accuracy lost",
    "auroc_lost": "AUROC lost",
}
OUTCOME = "forget_ratio"
NUMERIC = ("confidence", "log_variance", "tuned")
TERMS = (*NUMERIC, "family", "answer_format")
TASKS_A_COEFFICIENT = 2
OTHER = "other"
INTERCEPT = "intercept"
COEFFICIENT_COLUMNS = (
    "term",
    "against",
    "coefficient",
    "coefficient_low",
    "coefficient_high",
    "p_value",
)


def require(table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise InputError where the table across tasks lacks one of these columns."""
    do = "Pass fig4.table(...) merged with tasks.describe(...), or other terms."
    require_columns("the regression's table", table, columns, do)


def is_defined(values: pd.Series) -> pd.Series:
    """Tell of each value whether it is a finite number, or a category that is there."""
    return np.isfinite(values.astype(float)) if is_numeric_dtype(values) else values.notna()


def _means(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """One row a group: means of numbers, and the one value of what is not a number."""
    how = {c: "mean" if is_numeric_dtype(table[c]) else "first" for c in columns}
    return table.groupby([*by], as_index=False, sort=True).agg(how)


@dataclass(frozen=True, eq=False)
class Fit:
    """Hold a regression's coefficients, and which terms did not get into it, and why.

    coefficients: one row a coefficient, the intercept left out. term: "confidence", or for a
        category "family: science"; against: the level it is compared with, "" for numbers;
        coefficient, coefficient_low, coefficient_high: change of the outcome for one standard
        deviation over tasks of a number, or from the level `against` to this one; p_value
    n: rows used; n_tasks: tasks among them
    r_squared: share of the outcome's variance explained; NaN where the model has none
    kept: terms; dropped: reason by term
    notes: families pooled, warnings of the optimiser
    """

    coefficients: pd.DataFrame
    n: int
    n_tasks: int
    r_squared: float
    kept: tuple[str, ...]
    dropped: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Design:
    """Hold what a regression is fitted to, and why other terms are not in it.

    outcome: the column that is explained
    rows: those with everything defined; points: their means, one row a task
    columns: (tasks, 1 + coefficients) intercept and coded terms of the points
    kept: a term's columns; against: a column's reference level
    """

    outcome: str
    rows: pd.DataFrame
    points: pd.DataFrame
    columns: pd.DataFrame
    kept: dict[str, list[str]]
    against: dict[str, str]
    dropped: dict[str, str]
    notes: tuple[str, ...]


def _pooled(term: str, values: pd.Series) -> dict[str, str]:
    """Map families with a single task to "other"; so that this one has two, the next may join."""
    sizes = values.value_counts()
    single = sorted(sizes.index[sizes == 1]) if term == "family" else []
    larger = sorted(sizes.index[sizes > 1], key=lambda family: (sizes[family], family))
    if len(single) == 1 and larger:
        single.append(larger[0])
    return dict.fromkeys(single, OTHER)


def coded(term: str, rows: pd.DataFrame, points: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Code a term of `rows` as `points` say: (rows, coefficients) columns, and the reference level.

    Numbers: standard deviations from the mean over tasks. Categories: treatment coding against the
    most frequent level, the alphabetically first of equal ones. No columns where nothing varies.
    """
    values = points[term]
    if is_numeric_dtype(values):
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return pd.DataFrame(index=rows.index), ""
        scaled = (rows[term] - values.mean()) / values.std()
        return scaled.astype(float).to_frame(), ""
    pooled = _pooled(term, values)
    counts = values.replace(pooled).value_counts()
    reference = min(counts.index, key=lambda level: (-counts[level], level))
    coding = pd.DataFrame(
        {
            f"{term}: {level}": (rows[term].replace(pooled) == level).astype(float)
            for level in sorted(counts.index)
            if level != reference
        },
        index=rows.index,
    )
    return coding, reference


def rank(columns: pd.DataFrame) -> int:
    """Count the columns that the others do not determine, whatever their units."""
    values = columns.to_numpy(float)
    return int(np.linalg.matrix_rank(values / np.linalg.norm(values, axis=0), tol=1e-8))


def _obstacle(
    columns: pd.DataFrame, kept: dict[str, list[str]], new: pd.DataFrame, tasks: Sequence[str]
) -> str:
    """Why a term's `new` columns cannot join the `columns` kept before it; "" if they can."""
    if new.shape[1] == 0:
        return "it does not vary over these tasks"
    joint = pd.concat([columns, new], axis=1)
    n, p = joint.shape
    if p <= n and rank(joint) < p:
        for term, names in kept.items():
            pair = joint[[INTERCEPT, *names, *new.columns]]
            if rank(pair) < pair.shape[1]:
                return f"aliased with {term}"
        return f"aliased with {', '.join(kept)} together"
    if n < TASKS_A_COEFFICIENT * p:
        return f"too few tasks: {n} for {p} coefficients"
    leverage = (np.linalg.qr(joint.to_numpy(float))[0] ** 2).sum(1)
    if alone := [t for t, h in zip(tasks, leverage, strict=True) if h > 1 - 1e-8]:
        return f"decided by {', '.join(alone)} alone"
    return ""


def design_of(table: pd.DataFrame, terms: Sequence[str], outcome: str = OUTCOME) -> Design:
    """Choose the rows that can be used, and the terms that they can estimate.

    Of several models, each has one row a task, the mean over its seeds: a model's seeds share what
    is particular to this model and task, so that they are no further points.

    The terms are tried in the order given, each whole. A term is dropped where
    - it is undefined in every row, or does not vary over the tasks;
    - the terms before it determine it, or a part of it ("aliased");
    - it would leave fewer than two tasks a coefficient, the intercept included;
    - a task alone would decide it (its leverage would be 1): no other task could contradict it.
    """
    require(table, ("model", "eval_task", outcome, *terms))
    table = table.reset_index(drop=True)
    columns_used = list(dict.fromkeys((*terms, outcome)))
    defined = pd.DataFrame({c: is_defined(table[c]) for c in columns_used})
    dropped = {t: "it is undefined in every row" for t in terms if not defined[t].any()}
    defined = defined.drop(columns=list(dropped))
    rows = table[defined.all(axis=1)]
    columns_used = [c for c in columns_used if c not in dropped]
    if len(table["model"].unique()) > 1:
        rows = _means(rows, ("model", "eval_task"), columns_used)
    points = _means(rows, ("eval_task",), columns_used)
    columns = pd.DataFrame({INTERCEPT: np.ones(len(points))}, index=points.index)
    kept: dict[str, list[str]] = {}
    against: dict[str, str] = {}
    notes = []
    for term in terms:
        if term in dropped:
            continue
        if points[outcome].nunique() < 2:
            dropped[term] = f"{outcome} does not vary over {len(points)} tasks"
            continue
        new, reference = coded(term, points, points)
        if reason := _obstacle(columns, kept, new, points["eval_task"].tolist()):
            dropped[term] = reason
            continue
        columns = pd.concat([columns, new], axis=1)
        kept[term] = list(new.columns)
        against |= dict.fromkeys(new.columns, reference)
        if not is_numeric_dtype(points[term]) and (pooled := _pooled(term, points[term])):
            notes.append(f"{term}: {OTHER} is {', '.join(sorted(pooled))}")
    return Design(outcome, rows, points, columns, kept, against, dropped, tuple(notes))


def empty_fit(design: Design, n: int) -> Fit:
    """Begin a fit of n rows, with what is known of it before any coefficient is."""
    return Fit(
        pd.DataFrame(columns=list(COEFFICIENT_COLUMNS)),
        n=n,
        n_tasks=len(design.points),
        r_squared=np.nan,
        kept=tuple(design.kept),
        dropped=design.dropped,
        notes=design.notes,
    )


def without(fit: Fit, reason: str) -> Fit:
    """Empty the fit, with a reason why it has none of the terms that it could have had."""
    return replace(fit, kept=(), dropped=fit.dropped | dict.fromkeys(fit.kept, reason))


def coefficient_table(
    names: Sequence[str],
    against: dict[str, str],
    values: np.ndarray,
    errors: np.ndarray,
    degrees_of_freedom: float,
) -> pd.DataFrame:
    """Tabulate coefficients with t intervals from (p,) values and (p,) standard errors."""
    reach = scipy.stats.t.ppf(1 - TAIL, degrees_of_freedom) * errors
    with np.errstate(invalid="ignore", divide="ignore"):  # a perfect fit has no errors
        distance = np.abs(values) / errors
    columns = (
        list(names),
        [against.get(name, "") for name in names],
        values,
        values - reach,
        values + reach,
        2 * scipy.stats.t.sf(distance, degrees_of_freedom),
    )
    return pd.DataFrame(dict(zip(COEFFICIENT_COLUMNS, columns, strict=True)))
