"""What predicts forgetting: the regression analyses of Figure 4 (paper, section 5).

Across tasks: rank correlations, least squares, a mixed model. Across the examples of a task:
rank-biserial correlations. Tables in, tables out, with 95 % intervals; NaN where a number is
undefined.

The table across tasks is `fig4.table`, one row a (model, eval_task), joined by eval_task
with `tasks.describe`: seeds repeat a task, they do not add one. The mixed model alone takes the
table with one row a seed (`by_seed=True`).

A caution about fine-tuned accuracy ("tuned"): it is also the denominator of the forget ratio, so
its sampling error is in both, and with few test examples they correlate by that alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.stats
from pandas.api.types import is_numeric_dtype
from statsmodels.regression.linear_model import OLS

from forgetlib.figures.intervals import (
    CONFIDENCE_LEVEL,
)
from forgetlib.figures.rankcorrelation import (
    OUTCOME,
    TERMS,
    is_defined,
    means,
    one_model,
    require,
)

TASKS_A_COEFFICIENT = 2
OTHER = "other"
POOLED = "pooled"
INTERCEPT = "intercept"
COEFFICIENT_COLUMNS = (
    "term",
    "against",
    "coefficient",
    "coefficient_low",
    "coefficient_high",
    "p_value",
)


@dataclass(frozen=True, eq=False)
class Fit:
    """A regression's coefficients, and all that did not get into it.

    coefficients: one row a coefficient, the intercept left out. term: "confidence", or for a
        category "family: science"; against: the level it is compared with, "" for numbers;
        coefficient, coefficient_low, coefficient_high: change of the forget ratio for one standard
        deviation over tasks of a number, or from the level `against` to this one; p_value
    n: rows used; n_tasks: tasks among them
    r_squared: share of the outcome's variance explained; NaN where the model has none
    kept: terms; dropped: reason by term
    left_out: reason by "<task>", with the model and the seed where there are several
    notes: families pooled, warnings of the optimiser
    """

    coefficients: pd.DataFrame
    n: int
    n_tasks: int
    r_squared: float
    kept: tuple[str, ...]
    dropped: dict[str, str]
    left_out: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Design:
    """rows: those with everything defined; points: their means, one row a task.

    columns: (tasks, 1 + coefficients) intercept and coded terms of the points
    kept: a term's columns; against: a column's reference level
    """

    rows: pd.DataFrame
    points: pd.DataFrame
    columns: pd.DataFrame
    kept: dict[str, list[str]]
    against: dict[str, str]
    dropped: dict[str, str]
    left_out: dict[str, str]
    notes: tuple[str, ...]


def _pool(families: pd.Series) -> dict[str, str]:
    """Families with a single task become "other"; so that this one has two, the next may join."""
    sizes = families.value_counts()
    pooled = sorted(sizes.index[sizes == 1])
    larger = sorted(sizes.index[sizes > 1], key=lambda family: (sizes[family], family))
    if len(pooled) == 1 and larger:
        pooled.append(larger[0])
    return {family: OTHER if family in pooled else family for family in sizes.index}


def _code(
    term: str, rows: pd.DataFrame, points: pd.DataFrame
) -> tuple[pd.DataFrame, str, list[str]]:
    """A term's columns for `rows`, coded as `points` say; its reference level; families pooled.

    Numbers: standard deviations from the mean over tasks. Categories: treatment coding against the
    most frequent level, the alphabetically first of equal ones. No columns where nothing varies.
    """
    values = points[term]
    if is_numeric_dtype(values):
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            return pd.DataFrame(index=rows.index), "", []
        scaled = (rows[term] - values.mean()) / values.std()
        return scaled.astype(float).to_frame(), "", []
    levels = _pool(values) if term == "family" else {level: level for level in set(values)}
    counts = values.map(levels).value_counts()
    ordered = sorted(counts.index, key=lambda level: (-counts[level], level))
    coded = rows[term].map(levels)
    columns = {f"{term}: {level}": (coded == level).astype(float) for level in sorted(ordered[1:])}
    pooled = sorted(level for level, name in levels.items() if name != level)
    return pd.DataFrame(columns, index=rows.index), ordered[0], pooled


def _rank(columns: pd.DataFrame) -> int:
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
    if p <= n and _rank(joint) < p:
        for term, names in kept.items():
            pair = joint[[INTERCEPT, *names, *new.columns]]
            if _rank(pair) < pair.shape[1]:
                return f"aliased with {term}"
        return f"aliased with {', '.join(kept)} together"
    if n < TASKS_A_COEFFICIENT * p:
        return f"too few tasks: {n} for {p} coefficients"
    leverage = (np.linalg.qr(joint.to_numpy(float))[0] ** 2).sum(1)
    if alone := [t for t, h in zip(tasks, leverage, strict=True) if h > 1 - 1e-8]:
        return f"decided by {', '.join(alone)} alone"
    return ""


def _design(table: pd.DataFrame, terms: Sequence[str]) -> _Design:
    """The rows that can be used, and the terms that they can estimate.

    Of several models, each has one row a task, the mean over its seeds: a model's seeds share what
    is particular to this model and task, so that they are no further points.

    The terms are tried in the order given, each whole. A term is dropped where
    - it is undefined in every row, or does not vary over the tasks;
    - the terms before it determine it, or a part of it ("aliased");
    - it would leave fewer than two tasks a coefficient, the intercept included;
    - a task alone would decide it (its leverage would be 1): no other task could contradict it.
    """
    require(table, ("model", "eval_task", OUTCOME, *terms))
    table = table.reset_index(drop=True)
    columns_used = list(dict.fromkeys((*terms, OUTCOME)))
    defined = pd.DataFrame({c: is_defined(table[c]) for c in columns_used})
    dropped = {t: "it is undefined in every row" for t in terms if not defined[t].any()}
    defined = defined.drop(columns=list(dropped))
    several = len(table["model"].unique()) > 1
    left_out = {}
    for index in defined.index[~defined.all(axis=1)]:
        row = table.loc[index]
        name = f"{row['model']}, {row['eval_task']}" if several else str(row["eval_task"])
        name += f", seed {row['seed']}" if "seed" in table else ""
        left_out[name] = f"{', '.join(defined.columns[~defined.loc[index]])} undefined"
    rows = table[defined.all(axis=1)]
    columns_used = [c for c in columns_used if c not in dropped]
    if several:
        rows = means(rows, ("model", "eval_task"), columns_used)
    points = means(rows, ("eval_task",), columns_used)
    columns = pd.DataFrame({INTERCEPT: np.ones(len(points))}, index=points.index)
    kept: dict[str, list[str]] = {}
    against: dict[str, str] = {}
    notes = []
    for term in terms:
        if term in dropped:
            continue
        if points[OUTCOME].nunique() < 2:
            dropped[term] = f"{OUTCOME} does not vary over {len(points)} tasks"
            continue
        new, reference, pooled = _code(term, points, points)
        if reason := _obstacle(columns, kept, new, points["eval_task"].tolist()):
            dropped[term] = reason
            continue
        columns = pd.concat([columns, new], axis=1)
        kept[term] = list(new.columns)
        against |= dict.fromkeys(new.columns, reference)
        if pooled:
            notes.append(f"{term}: {OTHER} is {', '.join(pooled)}")
    return _Design(rows, points, columns, kept, against, dropped, left_out, tuple(notes))


def _empty_fit(design: _Design, n: int) -> Fit:
    return Fit(
        pd.DataFrame(columns=list(COEFFICIENT_COLUMNS)),
        n=n,
        n_tasks=len(design.points),
        r_squared=np.nan,
        kept=tuple(design.kept),
        dropped=design.dropped,
        left_out=design.left_out,
        notes=design.notes,
    )


def _without(fit: Fit, reason: str) -> Fit:
    """The fit, empty, with a reason why it has none of the terms that it could have had."""
    return replace(fit, kept=(), dropped=fit.dropped | dict.fromkeys(fit.kept, reason))


def _coefficients(
    names: Sequence[str],
    against: dict[str, str],
    values: np.ndarray,
    errors: np.ndarray,
    degrees_of_freedom: float,
) -> pd.DataFrame:
    """Table of coefficients with t intervals from (p,) values and (p,) standard errors."""
    reach = scipy.stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, degrees_of_freedom) * errors
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


def least_squares(table: pd.DataFrame, terms: Sequence[str] = TERMS) -> Fit:
    """Forget ratio on all terms jointly, one point a task, for one model.

    statsmodels' OLS with HC3 errors, which hold where the scatter differs between tasks, and t
    intervals. Numbers are standardised over tasks, categories treatment-coded, families with a
    single task pooled as "other". `_design` says which terms are dropped; the order of `terms`
    decides which of two aliased ones stays.
    """
    design = _design(one_model(table), terms)
    fit = _empty_fit(design, n=len(design.points))
    if not design.kept:
        return fit
    fitted = OLS(design.points[OUTCOME].to_numpy(float), design.columns.to_numpy(float)).fit(
        cov_type="HC3", use_t=True
    )
    coefficients = _coefficients(
        design.columns.columns[1:],
        design.against,
        fitted.params[1:],
        fitted.bse[1:],
        fitted.df_resid,
    )
    return replace(fit, coefficients=coefficients, r_squared=float(fitted.rsquared))


def each_alone(table: pd.DataFrame, terms: Sequence[str] = TERMS) -> pd.DataFrame:
    """One regression a term, with no other in it: the reading that holds where tasks are few.

    Columns: those of `Fit.coefficients`, then r_squared, n_tasks, and note: why there is no
    coefficient (which is then NaN), or which families were pooled.
    """
    rows = []
    for term in terms:
        fit = least_squares(table, (term,))
        found = fit.coefficients
        if not len(found):
            found = pd.DataFrame([dict.fromkeys(COEFFICIENT_COLUMNS, np.nan)])
            found[["term", "against"]] = [term, ""]
        note = "; ".join((*fit.dropped.values(), *fit.notes))
        rows.append(found.assign(r_squared=fit.r_squared, n_tasks=fit.n_tasks, note=note))
    return pd.concat(rows, ignore_index=True)


def partial_regression(table: pd.DataFrame, terms: Sequence[str] = TERMS) -> pd.DataFrame:
    """What a partial-regression plot draws: each term's own part against the outcome's own part.

    Columns: term, model, eval_task, x (what the other terms leave of this one, standard
    deviations), y (what they leave of the forget ratio). The slope of y on x is the joint
    coefficient (Frisch, Waugh, Lovell). Terms are those of `least_squares`.
    """
    design = _design(one_model(table), terms)
    outcome = design.points[OUTCOME].to_numpy(float)
    parts = []
    for name in design.columns.columns[1:]:
        others = design.columns.drop(columns=name).to_numpy(float)
        both = np.stack([design.columns[name].to_numpy(float), outcome], axis=1)  # (tasks, 2)
        left = both - others @ np.linalg.lstsq(others, both)[0]
        part = {"term": name, "model": table["model"].iloc[0]}
        part |= {"eval_task": design.points["eval_task"], "x": left[:, 0], "y": left[:, 1]}
        parts.append(pd.DataFrame(part))
    if not parts:
        return pd.DataFrame(columns=["term", "model", "eval_task", "x", "y"])
    return pd.concat(parts, ignore_index=True)


def leave_one_task_out(table: pd.DataFrame, terms: Sequence[str] = TERMS) -> pd.DataFrame:
    """The joint coefficients without each task in turn: does one task make the result?

    Terms, pooled families and standard deviations stay those of all tasks, so that the
    coefficients are comparable with those of `least_squares`. All are defined, as no task has
    leverage 1. Columns: left_out, term, coefficient.
    """
    design = _design(one_model(table), terms)
    names = design.columns.columns[1:]
    columns, outcome = design.columns.to_numpy(float), design.points[OUTCOME].to_numpy(float)
    parts = []
    for i, task in enumerate(design.points["eval_task"] if design.kept else []):
        rest = np.arange(len(outcome)) != i
        coefficients = np.linalg.lstsq(columns[rest], outcome[rest])[0][1:]
        parts.append(pd.DataFrame({"left_out": task, "term": names, "coefficient": coefficients}))
    if not parts:
        return pd.DataFrame(columns=["left_out", "term", "coefficient"])
    return pd.concat(parts, ignore_index=True)
