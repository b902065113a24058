"""What predicts forgetting: the regression analyses of Figure 4 (paper, section 5).

Across tasks: rank correlations, least squares, a mixed model. Across the examples of a task: rank
correlations. Tables in, tables out, with 95 % intervals; NaN where a number is undefined.

The table across tasks is `measures.predictors`, one row a (model, eval_task, seed), joined by
eval_task with `tasks.describe`. Seeds are averaged first: they repeat a task, they do not add one.

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
    percentiles,
    rank_correlation,
    rank_correlations,
    resample_counts,
)

OUTCOME = "forget_ratio"
NUMERIC = ("confidence", "log_variance", "tuned")
TERMS = (*NUMERIC, "family", "answer_format")
EXAMPLE_PREDICTORS = ("confidence", "log_deviation")

FEWEST_RESAMPLED = 6  # of 5 tasks, a percentile interval of a rank correlation covers 83 %
MAX_UNDEFINED = 0.05  # share of resamples without a value, above which there is no interval
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
    if missing := sorted(set(columns) - set(table.columns)):
        raise InputError(
            "the regression's table",
            expected=f"columns {', '.join(missing)}",
            found=", ".join(map(str, table.columns)),
            do="Pass measures.predictors(...) merged with tasks.describe(...), or other terms.",
        )


def _one_model(table: pd.DataFrame) -> pd.DataFrame:
    if (n_models := len(table["model"].unique())) > 1:
        raise InputError(
            "least squares",
            expected="one model, as the points of a task are not independent between models",
            found=f"{n_models} models",
            do="Select one: table[table['model'] == ...], or use mixed_model.",
        )
    return table


def _defined(values: pd.Series) -> pd.Series:
    return np.isfinite(values.astype(float)) if is_numeric_dtype(values) else values.notna()


def _over_seeds(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One row a task: means of numbers, and the one value of what is not a number."""
    how = {c: "mean" if is_numeric_dtype(table[c]) else "first" for c in columns}
    return table.groupby("eval_task", as_index=False, sort=True).agg(how)


# --- rank correlations over tasks ----------------------------------------------------------------


def _percentiles(value: float, replicates: np.ndarray) -> Interval:
    """Percentile interval of a bootstrap; NaN where resampling cannot show the uncertainty.

    That is where more than MAX_UNDEFINED of the resamples have no value (the others are used), and
    where all of them are equal: of 4 tasks in perfect order, every resample is in perfect order.
    """
    good = replicates[np.isfinite(replicates)]
    if np.isfinite(value) and len(good) >= (1 - MAX_UNDEFINED) * len(replicates):
        found = percentiles(value, good)
        if found.high - found.low > 1e-12:
            return found
    return Interval(value, float("nan"), float("nan"))


def bootstrap_over_tasks(
    x: np.ndarray, y: np.ndarray, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Rank correlation of (N,) with (N,) values, one a task, with a bootstrap over tasks.

    There is none with fewer than FEWEST_RESAMPLED tasks, where more than 5 % of the resamples are
    constant, and where all resamples are equal; `stats.rank_correlation` has one there too.
    """
    value = rank_correlation(x, y).value
    if len(x) < FEWEST_RESAMPLED:
        return Interval(value, float("nan"), float("nan"))
    counts = resample_counts(np.random.default_rng(seed), len(x), n_resamples)
    return _percentiles(value, rank_correlations(x, y, counts))


def correlations(
    table: pd.DataFrame,
    predictors: Sequence[str] = NUMERIC,
    outcome: str = OUTCOME,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation over tasks of predictors with the outcome, one row a model and predictor.

    Seeds where either is undefined are left out, then seeds are averaged.

    Columns: model, predictor, rank_correlation with its interval (`stats.rank_correlation`),
    bootstrap_low and bootstrap_high (`bootstrap_over_tasks`), n_tasks. No rows of an empty table.
    """
    if table.empty:
        return pd.DataFrame(columns=list(CORRELATION_COLUMNS))
    _require(table, ("model", "eval_task", outcome, *predictors))
    rows = []
    for model, of_model in table.groupby("model", sort=True):
        for predictor in predictors:
            both = of_model[_defined(of_model[predictor]) & _defined(of_model[outcome])]
            tasks = _over_seeds(both, list(dict.fromkeys((predictor, outcome))))
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
    left_out: reason by "<task>, seed <seed>"
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

    The terms are tried in the order given, each whole. A term is dropped where
    - it is undefined in every row, or does not vary over the tasks;
    - the terms before it determine it, or a part of it ("aliased");
    - it would leave fewer than two tasks a coefficient, the intercept included;
    - a task alone would decide it (its leverage would be 1): no other task could contradict it.
    """
    _require(table, ("model", "eval_task", "seed", OUTCOME, *terms))
    table = table.reset_index(drop=True)
    columns_used = list(dict.fromkeys((*terms, OUTCOME)))
    defined = pd.DataFrame({c: _defined(table[c]) for c in columns_used})
    dropped = {t: "it is undefined in every row" for t in terms if not defined[t].any()}
    defined = defined.drop(columns=list(dropped))
    several = len(table["model"].unique()) > 1
    left_out = {}
    for index in defined.index[~defined.all(axis=1)]:
        row = table.loc[index]
        name = f"{row['eval_task']}, seed {row['seed']}"
        missing = defined.columns[~defined.loc[index]]
        left_out[f"{row['model']}, {name}" if several else name] = f"{', '.join(missing)} undefined"
    rows = table[defined.all(axis=1)]
    points = _over_seeds(rows, [c for c in columns_used if c not in dropped])
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
        r_squared=float("nan"),
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
    """Forget ratio on all terms, one row a (model, task, seed), with a random intercept a task.

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


def _rank_correlation_with_lost(
    values: np.ndarray, lost: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """(N,) values with (N,) lost, every example taken `counts` (R, N) times -> (R,) Spearman's.

    Average ranks for ties, as in `scipy.stats.spearmanr`, without drawing the R samples up: the
    examples are sorted once, and a resample only changes how many there are of each value.
    """
    _, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    counts, is_lost = counts[:, order], lost[order]
    of_level = np.add.reduceat(counts, starts, axis=1)  # (R, distinct values)
    total, n_lost = counts.sum(1), counts[:, is_lost].sum(1)
    # Up to a constant: the average rank of a value is how many are below it, and half of its own.
    rank = of_level.cumsum(1) - of_level / 2
    of_lost = np.einsum("rn,rn->r", rank[:, level[order][is_lost]], counts[:, is_lost])
    covariance = of_lost - n_lost * total / 2
    variance = (total**3 - np.einsum("rv,rv,rv->r", of_level, of_level, of_level)) / 12
    with np.errstate(invalid="ignore", divide="ignore"):  # an empty resample: 0 of 0
        scale = np.sqrt(variance * n_lost * (total - n_lost) / total)
        return covariance / np.where(scale > 0, scale, np.nan)


@dataclass(frozen=True, eq=False)
class _Group:
    """One task, predictor and seed: rank correlation, and (R,) bootstrap replicates of it."""

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
                    value=float(_rank_correlation_with_lost(x, y, once)[0]),
                    replicates=_rank_correlation_with_lost(x, y, counts[:, example[used]]),
                )


def _average(groups: Sequence[_Group]) -> dict[str, float]:
    """Average rank correlation of groups, weighted by n; those that are undefined do not enter."""
    used = [g for g in groups if np.isfinite(g.value)]
    found = Interval(float("nan"), float("nan"), float("nan"))
    if used:
        weights = np.array([g.n for g in used], float)
        replicates = np.stack([g.replicates for g in used], axis=1)  # (R, groups)
        weighted = np.where(np.isfinite(replicates), weights, 0)
        total = weighted.sum(1)
        sums = (np.nan_to_num(replicates) * weighted).sum(1)
        value = float(np.average([g.value for g in used], weights=weights))
        found = _percentiles(value, sums / np.where(total > 0, total, np.nan))
    return {
        **as_columns("rank_correlation", found),
        "largest_not_excluded": max(abs(found.low), abs(found.high)),
        "n": sum(g.n for g in used or groups),
        "n_lost": sum(g.n_lost for g in used or groups),
    }


def example_level(
    table: pd.DataFrame, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Does confidence or deviation tell which examples of a task are forgotten? (paper, section 5)

    table: `measures.example_level`. Among the test examples that are right after fine-tuning: rank
    correlation of the predictor with `lost`, 1 for an example that is wrong after forgetting.
    Within task and seed, averaged over seeds weighted by n; "pooled" is the average over all tasks
    and seeds, so that differences between tasks do not enter it. The interval is a percentile
    bootstrap over the examples of each task: it holds for these tasks, not for others.

    One row a model, predictor and task, then "pooled". Columns: model, eval_task, predictor,
    rank_correlation, rank_correlation_low, rank_correlation_high, largest_not_excluded (the largest
    correlation, of either sign, that the interval allows), n and n_lost (examples, all seeds). A
    seed in which nothing or everything was lost has no correlation and does not enter; a task
    without any other has its row, with NaN and all of its examples in n and n_lost.
    """
    _require(
        table,
        ("model", "eval_task", "seed", "uid", "tuned_correct", "forgotten_correct"),
    )
    _require(table, EXAMPLE_PREDICTORS)
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
