"""The regressions with seeds and single questions: a mixed model, rank-biserial correlations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from statsmodels.regression.mixed_linear_model import MixedLM

from forgetlib.figures.bootstrap import resample_counts
from forgetlib.figures.design import (
    INTERCEPT,
    OUTCOME,
    TERMS,
    Fit,
    coded,
    coefficient_table,
    design_of,
    empty_fit,
    rank,
    without,
)
from forgetlib.figures.intervals import (
    N_RESAMPLES,
    as_columns,
    correlation_percentiles,
    require_columns,
)

EXAMPLE_PREDICTORS = ("confidence", "log_deviation")
POOLED = "pooled"
AFTER = ("forgotten", "again")  # random labels, and true ones once more: the control


def mixed_model(table: pd.DataFrame, terms: Sequence[str] = TERMS, outcome: str = OUTCOME) -> Fit:
    """Fit what is forgotten on all terms, with a random intercept a task.

    table: `fig4.table`, with `by_seed=True` for a row a seed. Of several models, seeds are
    averaged first: a row is then a (model, task).

    statsmodels' MixedLM by restricted maximum likelihood. Where there are several models, their
    difference is a term of its own, "model". Terms and standard deviations are those of the task
    means, as in `least_squares`; t intervals with tasks minus coefficients degrees of freedom, as
    the terms differ between tasks and more seeds do not add any. The optimiser's warnings are in
    `notes`. No coefficients, and the reason in `dropped`, where no task has more than one row, and
    where the fit fails or does not converge.
    """
    design = design_of(table, terms, outcome)
    rows, points = design.rows, design.points
    fit = empty_fit(design, n=len(rows))
    if not design.kept:
        return fit
    if len(rows) == len(points):
        return without(fit, "one row a task: a mixed model needs several seeds or models")
    intercept = pd.DataFrame({INTERCEPT: np.ones(len(rows))}, index=rows.index)
    columns = pd.concat([intercept, *(coded(t, rows, points)[0] for t in design.kept)], axis=1)
    against = dict(design.against)
    if len(rows["model"].unique()) > 1:
        models, reference = coded("model", rows, rows)
        columns = pd.concat([columns, models], axis=1)
        against |= dict.fromkeys(models.columns, reference)
    if rank(columns) < columns.shape[1]:
        return without(fit, "aliased with model: the models did not do the same tasks")
    if (degrees_of_freedom := len(points) - columns.shape[1]) < 1:
        return without(fit, f"too few tasks: {len(points)} for {columns.shape[1]} coefficients")
    values, tasks = rows[outcome].to_numpy(float), rows["eval_task"].to_numpy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fitted = MixedLM(values, columns.to_numpy(float), groups=tasks).fit(reml=True)
        except (np.linalg.LinAlgError, ValueError) as error:
            return without(fit, f"the mixed model failed: {error}")
    warned = dict.fromkeys(" ".join(str(w.message).split()) for w in caught)
    if not fitted.converged:
        return without(fit, f"the mixed model did not converge: {'; '.join(warned)}")
    own = slice(1, columns.shape[1])  # the last parameter is the random intercept's variance
    coefficients = coefficient_table(
        columns.columns[own],
        against,
        np.asarray(fitted.params)[own],
        np.asarray(fitted.bse)[own],
        degrees_of_freedom,
    )
    return replace(fit, coefficients=coefficients, notes=(*fit.notes, *warned))


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
    """One task, predictor and seed: rank-biserial, and (R,) bootstrap replicates of it.

    after: "forgotten", or "again" for the control by true labels
    """

    eval_task: str
    predictor: str
    after: str
    n: int
    n_lost: int
    value: float
    replicates: np.ndarray


def _groups(table: pd.DataFrame, n_resamples: int, rng: np.random.Generator) -> Iterator[_Group]:
    for task, rows in table[table["tuned_correct"].astype(bool)].groupby("eval_task", sort=True):
        # An example that several seeds test is one example: it is resampled with all its rows.
        example, uids = pd.factorize(rows["uid"])
        counts = resample_counts(rng, len(uids), n_resamples)
        for predictor, after, seed in product(EXAMPLE_PREDICTORS, AFTER, rows["seed"].unique()):
            values, right = (rows[c].to_numpy(float) for c in (predictor, f"{after}_correct"))
            used = (rows["seed"] == seed).to_numpy() & ~np.isnan(values + right)
            if used.any():
                x, y = values[used], right[used] == 0
                once = np.ones((1, len(x)))
                yield _Group(
                    str(task),
                    predictor,
                    after,
                    n=len(x),
                    n_lost=int(y.sum()),
                    value=float(_rank_biserial(x, y, once)[0]),
                    replicates=_rank_biserial(x, y, counts[:, example[used]]),
                )


def _average(groups: Sequence[_Group]) -> tuple[float, np.ndarray]:
    """Average rank-biserial of groups, and (R,) replicates; those that are undefined do not enter.

    Each is weighted by how exactly it is known: where there is no effect, its variance is
    proportional to n / (n_lost (n - n_lost)).
    """
    used = [g for g in groups if np.isfinite(g.value)]
    if not used:
        return np.nan, np.full(1, np.nan)
    weights = np.array([g.n_lost * (g.n - g.n_lost) / g.n for g in used])
    replicates = np.stack([g.replicates for g in used], axis=1)  # (R, groups)
    weighted = np.where(np.isfinite(replicates), weights, 0)
    total = weighted.sum(1)
    sums = (np.nan_to_num(replicates) * weighted).sum(1)
    value = float(np.average([g.value for g in used], weights=weights))
    return value, sums / np.where(total > 0, total, np.nan)


def _row(groups: Sequence[_Group]) -> dict[str, float]:
    """Average groups after random labels and after true ones, and take the difference."""
    by_kind = {after: [g for g in groups if g.after == after] for after in AFTER}
    forgotten, again = (_average(of) for of in by_kind.values())
    found = correlation_percentiles(*forgotten)
    own = by_kind[AFTER[0]]
    used = [g for g in own if np.isfinite(g.value)] or own
    beyond = correlation_percentiles(forgotten[0] - again[0], forgotten[1] - again[1])
    return {
        **as_columns("rank_biserial", found),
        "largest_not_excluded": max(abs(found.low), abs(found.high)),
        "n": sum(g.n for g in used),
        "n_lost": sum(g.n_lost for g in used),
        **as_columns("again", correlation_percentiles(*again)),
        **as_columns("beyond_true_labels", beyond),
    }


def example_level(table: pd.DataFrame, *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Tell whether confidence or deviation predicts which examples are forgotten (section 5).

    table: `fig4_examples.table`. Among the test examples that are right after fine-tuning, those
    that are lost (wrong after forgetting) are compared with the others by the rank-biserial
    correlation of the predictor, 2 AUC - 1. 0: it predicts nothing. 1: perfectly, all lost ones
    have higher values than all others; -1: lower. It does not depend on how many are lost.

    It is taken within task and seed, and averaged over seeds (`_average`); "pooled" is the average
    over all tasks and seeds, so that differences between tasks do not enter it. The interval is a
    percentile bootstrap over the examples of each task: it holds for these tasks, not for others.

    One row a model, predictor and task, then "pooled". Columns: model, eval_task, predictor,
    rank_biserial with its interval, largest_not_excluded (the largest, of either sign, that the
    interval allows), n and n_lost (examples, all seeds), and with their intervals again (the same
    after a second training on true labels: what crosses the decision boundary by any training) and
    beyond_true_labels (rank_biserial less again, from the same resamples). A seed in which nothing
    or everything was lost has none and does not enter; a task without any other has its row, with
    NaN and all of its examples in n and n_lost.
    """
    columns = ["model", "eval_task", "seed", "uid", "tuned_correct", "forgotten_correct"]
    do = "Pass fig4_examples.table(...)."
    require_columns("the table of examples", table, (*columns, *EXAMPLE_PREDICTORS), do)
    if "again_correct" not in table:
        table = table.assign(again_correct=np.nan)
    rng = np.random.default_rng(0)
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
                rows.append(row | _row(those))
    return pd.DataFrame(rows)
