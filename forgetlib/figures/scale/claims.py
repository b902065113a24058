"""Judge the paper's claims that need several models, by the one rule (`statements`).

A model has few tasks: its own claims (`claims`) are mostly not decided. Several models on the same
tasks have more to say, of what differs between tasks and of what models have in common. Statements
are those of `thresholds`; all are post hoc, as these measures were chosen when most of the study
`scale` had been computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.stats

from forgetlib.data.tasks import COMMONSENSE, LANGUAGE, SCIENCE
from forgetlib.figures import intervals
from forgetlib.figures.claims import CLAIMS
from forgetlib.figures.intervals import TAIL, UNDEFINED, Interval, of_row
from forgetlib.figures.measures import family_of
from forgetlib.figures.names import short_name
from forgetlib.figures.scale import agreement, models as scale, regressions
from forgetlib.figures.statements import row
from forgetlib.figures.thresholds import ANY, NEGATIVE, SAME_PATTERN, lacks_families

STATED = "2026-11-28"


def table(lost: pd.DataFrame, agreed: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Judge the claims about families, predictors and models, for `claims_figure.draw`.

    lost: from `scale.table`; agreed: from `agreement.table`; points: from
    `regressions.table`; all of the same results

    One row a statistic. Columns: claim, says, figure, those of `statements.row`, and post_hoc.
    """
    of_claims = {
        "task-family-split": [_family_split(lost)],
        "confidence-and-variance": [_correlation(points, term) for term in regressions.SHOWN],
        "robust-to-method-and-model": _same_pattern(agreed),
    }
    rows = [
        found.assign(claim=claim, says=CLAIMS[claim].says, figure=CLAIMS[claim].figure)
        for claim, statistics in of_claims.items()
        for found in statistics
    ]
    found = pd.concat(rows, ignore_index=True)
    first = ["claim", "says", "figure"]
    return found[[*first, *found.columns.difference(first, sort=False)]].assign(post_hoc=True)


def _family_split(lost: pd.DataFrame) -> pd.DataFrame:
    """Compare what families lose beyond true labels: Welch's t over tasks, each a mean of models.

    Of models' tasks that were known, and whose random labels were learned (or true ones lost).
    """
    used = lost[lost["known"].astype(bool) & lost["learned_or_lost"].astype(bool)]
    means = used.groupby("eval_task")[scale.AUROC_BEYOND].mean()
    family = means.index.map(lambda task: family_of(str(task)))
    language, resisting = (
        means[family.isin(of)].to_numpy(float) for of in ((LANGUAGE,), (COMMONSENSE, SCIENCE))
    )
    return row(
        "AUROC lost beyond true labels, language understanding minus commonsense and science",
        replace(ANY, stated=STATED),
        intervals.difference_interval(language, resisting),
        len(language) + len(resisting),
        lacks=lacks_families(len(language), len(resisting)),
    )


def _correlation(points: pd.DataFrame, term: str) -> pd.DataFrame:
    """Correlate a predictor with what is lost over models' tasks, models taken out.

    The mixed model's t of this predictor alone, as a partial correlation: t / sqrt(t^2 + df), with
    Fisher's interval. Its degrees of freedom are tasks less coefficients, so that a task that
    several models did counts once.
    """
    words = regressions.PLAIN[term]
    fit = regressions.fit_of(points, scale.AUROC_BEYOND, [term])
    n_models = points.dropna(subset=[scale.AUROC_BEYOND, term])["model"].nunique()
    freedom = fit.n_tasks - 1 - n_models  # predictor, intercept, models but the first
    of, found = fit.coefficients.set_index("term"), UNDEFINED
    if term in of.index:
        found = _partial(of.loc[term, "coefficient"], of.loc[term, "p_value"], freedom)
    return row(
        f"partial correlation of AUROC lost beyond true labels and {words}",
        replace(NEGATIVE, stated=STATED),
        found,
        fit.n_tasks,
        lacks="" if term in of.index else fit.dropped.get(term, "; ".join(fit.notes)),
    )


def _partial(coefficient: float, p_value: float, freedom: int) -> Interval:
    """Turn a coefficient's t test into a partial correlation with Fisher's interval."""
    if np.isnan(coefficient) or freedom < 2:
        return UNDEFINED
    t = np.sign(coefficient) * scipy.stats.t.isf(p_value / 2, freedom)
    value = t / np.sqrt(t**2 + freedom)
    reach = scipy.stats.norm.ppf(1 - TAIL) / np.sqrt(freedom - 1)
    low, high = np.tanh(np.arctanh(value) + reach * np.array([-1, 1]))
    return Interval(float(value), float(low), float(high))


def _same_pattern(agreed: pd.DataFrame) -> Sequence[pd.DataFrame]:
    """Ask of each two models whether they rank tasks alike by the share lost."""
    statement = replace(SAME_PATTERN, stated=STATED)
    of = agreed[agreed["measure"] == agreement.SHARE]
    if of.empty:
        lacks = "two models of which each knows the tasks"
        return [row("rank correlation of the share lost", statement, UNDEFINED, 0, lacks=lacks)]
    return [
        row(
            f"rank correlation of the share lost ({short_name(one['a'])}; {short_name(one['b'])})",
            statement,
            of_row(one, "rank_correlation"),
            int(one["n"]),
            ceiling=float(one["ceiling"]),
        )
        for one in of.to_dict("records")
    ]
