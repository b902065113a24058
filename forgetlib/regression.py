"""What predicts forgetting: the regression analyses of Figure 4 (paper, section 5).

Across tasks: rank correlations, least squares, a mixed model. Across the examples of a task:
rank-biserial correlations. Tables in, tables out, with 95 % intervals; NaN where a number is
undefined.

The table across tasks is `measures.predictors`, one row a (model, eval_task), joined by eval_task
with `tasks.describe`: seeds repeat a task, they do not add one. The mixed model alone takes the
table with one row a seed (`by_seed=True`).

A caution about fine-tuned accuracy ("tuned"): it is also the denominator of the forget ratio, so
its sampling error is in both, and with few test examples they correlate by that alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.stats
from pandas.api.types import is_numeric_dtype
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.mixed_linear_model import MixedLM

from forgetlib.schema import InputError
from forgetlib.stats import (
    CONFIDENCE_LEVEL,
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
TASKS_A_COEFFICIENT = 2
OTHER = "other"
POOLED = "pooled"
INTERCEPT = "intercept"
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
COEFFICIENT_COLUMNS = (
    "term",
    "against",
    "coefficient",
    "coefficient_low",
    "coefficient_high",
    "p_value",
)


def _require(table: pd.DataFrame, columns: Iterable[str]) -> None:
    do = "Pass measures.predictors(...) merged with tasks.describe(...), or other terms."
    require_columns("the regression's table", table, columns, do)


def _one_row_a_task(table: pd.DataFrame) -> pd.DataFrame:
    """The table, which must not have a row a seed: a mean of ratios is not the ratio of means."""
    if table.duplicated(["model", "eval_task"]).any():
        raise InputError(
            "the regression's table",
            expected="one row a model and task",
            found="several",
            do="Pass measures.predictors(...) without by_seed, or use mixed_model.",
        )
    return table


def _one_model(table: pd.DataFrame) -> pd.DataFrame:
    _require(table, ("model", "eval_task"))
    if (n_models := len(table["model"].unique())) > 1:
        raise InputError(
            "least squares",
            expected="one model, as the points of a task are not independent between models",
            found=f"{n_models} models",
            do="Select one: table[table['model'] == ...], or use mixed_model.",
        )
    return _one_row_a_task(table)


def _defined(values: pd.Series) -> pd.Series:
    return np.isfinite(values.astype(float)) if is_numeric_dtype(values) else values.notna()


def _means(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """One row a group: means of numbers, and the one value of what is not a number."""
    how = {c: "mean" if is_numeric_dtype(table[c]) else "first" for c in columns}
    return table.groupby([*by], as_index=False, sort=True).agg(how)


# --- rank correlations over tasks ----------------------------------------------------------------


def bootstrap_over_tasks(
    x: np.ndarray, y: np.ndarray, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Rank correlation of (N,) with (N,) values, one a task, with a bootstrap over tasks.

    There is none with fewer than FEWEST_RESAMPLED tasks, where more than 5 % of the resamples are
    constant, and where all resamples are equal; `stats.rank_correlation` has one there too.
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

    Columns: model, predictor, rank_correlation with its interval (`stats.rank_correlation`),
    bootstrap_low and bootstrap_high (`bootstrap_over_tasks`), n_tasks. No rows of an empty table.
    """
    if table.empty:
        return pd.DataFrame(columns=list(CORRELATION_COLUMNS))
    _require(table, ("model", "eval_task", outcome, *predictors))
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
            tasks = of_model[_defined(of_model[predictor]) & _defined(of_model[outcome])]
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


# --- which terms these tasks can estimate --------------------------------------------------------


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
    _require(table, ("model", "eval_task", OUTCOME, *terms))
    table = table.reset_index(drop=True)
    columns_used = list(dict.fromkeys((*terms, OUTCOME)))
    defined = pd.DataFrame({c: _defined(table[c]) for c in columns_used})
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
        rows = _means(rows, ("model", "eval_task"), columns_used)
    points = _means(rows, ("eval_task",), columns_used)
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


# --- least squares -------------------------------------------------------------------------------


def least_squares(table: pd.DataFrame, terms: Sequence[str] = TERMS) -> Fit:
    """Forget ratio on all terms jointly, one point a task, for one model.

    statsmodels' OLS with HC3 errors, which hold where the scatter differs between tasks, and t
    intervals. Numbers are standardised over tasks, categories treatment-coded, families with a
    single task pooled as "other". `_design` says which terms are dropped; the order of `terms`
    decides which of two aliased ones stays.
    """
    design = _design(_one_model(table), terms)
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
    design = _design(_one_model(table), terms)
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
    design = _design(_one_model(table), terms)
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


# --- mixed model ---------------------------------------------------------------------------------


def mixed_model(table: pd.DataFrame, terms: Sequence[str] = TERMS) -> Fit:
    """Forget ratio on all terms, with a random intercept a task.

    table: `measures.predictors`, with `by_seed=True` for a row a seed. Of several models, seeds are
    averaged first: a row is then a (model, task).

    statsmodels' MixedLM by restricted maximum likelihood. Where there are several models, their
    difference is a term of its own, "model". Terms and standard deviations are those of the task
    means, as in `least_squares`; t intervals with tasks minus coefficients degrees of freedom, as
    the terms differ between tasks and more seeds do not add any. The optimiser's warnings are in
    `notes`. No coefficients, and the reason in `dropped`, where no task has more than one row or
    the fit fails.
    """
    design = _design(table, terms)
    rows, points = design.rows, design.points
    fit = _empty_fit(design, n=len(rows))
    if not design.kept:
        return fit
    if len(rows) == len(points):
        return _without(fit, "one row a task: a mixed model needs several seeds or models")
    intercept = pd.DataFrame({INTERCEPT: np.ones(len(rows))}, index=rows.index)
    columns = pd.concat([intercept, *(_code(t, rows, points)[0] for t in design.kept)], axis=1)
    against = dict(design.against)
    if len(rows["model"].unique()) > 1:
        models, reference, _ = _code("model", rows, rows)
        columns = pd.concat([columns, models], axis=1)
        against |= dict.fromkeys(models.columns, reference)
    if _rank(columns) < columns.shape[1]:
        return _without(fit, "aliased with model: the models did not do the same tasks")
    if (degrees_of_freedom := len(points) - columns.shape[1]) < 1:
        return _without(fit, f"too few tasks: {len(points)} for {columns.shape[1]} coefficients")
    outcome, tasks = rows[OUTCOME].to_numpy(float), rows["eval_task"].to_numpy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fitted = MixedLM(outcome, columns.to_numpy(float), groups=tasks).fit(reml=True)
        except (np.linalg.LinAlgError, ValueError) as error:
            return _without(fit, f"the mixed model failed: {error}")
    warned = dict.fromkeys(" ".join(str(w.message).split()) for w in caught)
    own = slice(1, columns.shape[1])  # the last parameter is the random intercept's variance
    coefficients = _coefficients(
        columns.columns[own],
        against,
        np.asarray(fitted.params)[own],
        np.asarray(fitted.bse)[own],
        degrees_of_freedom,
    )
    return replace(fit, coefficients=coefficients, notes=(*fit.notes, *warned))


# --- examples of a task --------------------------------------------------------------------------


def _rank_biserial(values: np.ndarray, lost: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(N,) values, (N,) lost, every example taken `counts` (R, N) times -> (R,) rank-biserial.

    2 AUC - 1, where AUC is the chance that a lost example has a higher value than one that is not
    lost, equal values counting half. NaN where nothing or everything is lost. The R samples are
    not drawn up: the examples are sorted once, and a resample only changes how many there are of
    each value.
    """
    _, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    counts, is_lost = counts[:, order], lost[order]
    of_level = np.add.reduceat(counts, starts, axis=1)  # (R, distinct values)
    total, n_lost = counts.sum(1), counts[:, is_lost].sum(1)
    # How many are below a value, and half of those that are equal to it.
    rank = of_level.cumsum(1) - of_level / 2
    of_lost = np.einsum("rn,rn->r", rank[:, level[order][is_lost]], counts[:, is_lost])
    pairs = n_lost * (total - n_lost)
    above = 2 * of_lost - n_lost * total  # pairs with the lost one above, less those below
    return np.divide(above, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


@dataclass(frozen=True, eq=False)
class _Group:
    """One task, predictor and seed: rank-biserial, and (R,) bootstrap replicates of it."""

    eval_task: str
    predictor: str
    n: int
    n_lost: int
    value: float
    replicates: np.ndarray


def _groups(table: pd.DataFrame, n_resamples: int, rng: np.random.Generator) -> Iterator[_Group]:
    for task, rows in table[table["tuned_correct"].astype(bool)].groupby("eval_task", sort=True):
        # An example that several seeds test is one example: it is resampled with all its rows.
        example, uids = pd.factorize(rows["uid"])
        counts = resample_counts(rng, len(uids), n_resamples)
        lost = ~rows["forgotten_correct"].to_numpy(bool)
        for predictor in EXAMPLE_PREDICTORS:
            values = rows[predictor].to_numpy(float)
            for seed in rows["seed"].unique():
                used = (rows["seed"] == seed).to_numpy() & ~np.isnan(values)
                if not used.any():
                    continue
                x, y = values[used], lost[used]
                once = np.ones((1, len(x)))
                yield _Group(
                    str(task),
                    predictor,
                    n=len(x),
                    n_lost=int(y.sum()),
                    value=float(_rank_biserial(x, y, once)[0]),
                    replicates=_rank_biserial(x, y, counts[:, example[used]]),
                )


def _average(groups: Sequence[_Group]) -> dict[str, float]:
    """Average rank-biserial of groups; those that are undefined do not enter.

    Each is weighted by how exactly it is known: where there is no effect, its variance is
    proportional to n / (n_lost (n - n_lost)).
    """
    used = [g for g in groups if np.isfinite(g.value)]
    found = Interval(np.nan, np.nan, np.nan)
    if used:
        weights = np.array([g.n_lost * (g.n - g.n_lost) / g.n for g in used])
        replicates = np.stack([g.replicates for g in used], axis=1)  # (R, groups)
        weighted = np.where(np.isfinite(replicates), weights, 0)
        total = weighted.sum(1)
        sums = (np.nan_to_num(replicates) * weighted).sum(1)
        value = float(np.average([g.value for g in used], weights=weights))
        found = correlation_percentiles(value, sums / np.where(total > 0, total, np.nan))
    return {
        **as_columns("rank_biserial", found),
        "largest_not_excluded": max(abs(found.low), abs(found.high)),
        "n": sum(g.n for g in used or groups),
        "n_lost": sum(g.n_lost for g in used or groups),
    }


def example_level(
    table: pd.DataFrame, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Does confidence or deviation tell which examples of a task are forgotten? (paper, section 5)

    table: `measures.example_level`. Among the test examples that are right after fine-tuning, those
    that are lost (wrong after forgetting) are compared with the others by the rank-biserial
    correlation of the predictor, 2 AUC - 1. 0: it predicts nothing. 1: perfectly, all lost ones
    have higher values than all others; -1: lower. It does not depend on how many are lost.

    It is taken within task and seed, and averaged over seeds (`_average`); "pooled" is the average
    over all tasks and seeds, so that differences between tasks do not enter it. The interval is a
    percentile bootstrap over the examples of each task: it holds for these tasks, not for others.

    One row a model, predictor and task, then "pooled". Columns: model, eval_task, predictor,
    rank_biserial with its interval, largest_not_excluded (the largest, of either sign, that the
    interval allows), n and n_lost (examples, all seeds). A seed in which nothing or everything was
    lost has none and does not enter; a task without any other has its row, with NaN and all of its
    examples in n and n_lost.
    """
    columns = ("model", "eval_task", "seed", "uid", "tuned_correct", "forgotten_correct")
    do = "Pass measures.example_level(...)."
    require_columns("the table of examples", table, (*columns, *EXAMPLE_PREDICTORS), do)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for model, of_model in table.groupby("model", sort=True):
        groups = list(_groups(of_model, n_resamples, rng))
        for predictor in EXAMPLE_PREDICTORS:
            own = [g for g in groups if g.predictor == predictor]
            of_task = {
                task: [g for g in own if g.eval_task == task]
                for task in sorted(of_model["eval_task"].unique())
            }
            for name, those in (*of_task.items(), (POOLED, own)):
                row = {"model": model, "eval_task": name, "predictor": predictor}
                rows.append(row | _average(those))
    return pd.DataFrame(rows)
