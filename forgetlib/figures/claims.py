"""The paper's claims, each as a test on the tables that the figures are drawn from.

`verdicts` has the rule by which a claim holds, and says which intervals are used; `crossclaims` the
claims on other tasks' labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

from forgetlib.data.tasks import COMMONSENSE, LANGUAGE, SCIENCE
from forgetlib.errors import InputError
from forgetlib.figures import (
    crossanalysis,
    intervals,
    mixedmodel,
    rankcorrelation,
    regression,
)
from forgetlib.figures.crossclaims import eval_task_determines, other_tasks_better
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.intervals import CONFIDENCE_LEVEL, MIN_TASKS, Interval
from forgetlib.figures.join import given
from forgetlib.figures.published import published
from forgetlib.figures.verdicts import (
    ABOVE,
    BELOW,
    HALF,
    LARGE_GAP,
    NO_CORRELATION,
    NO_EXAMPLE_EFFECT,
    OFTEN,
    PROBE_LOSS,
    SAME_PATTERN,
    WITHIN,
    claim_row,
    columns_of,
    difference_interval,
    interval_of,
    mean_interval,
    numbers,
    relative_interval,
    share_interval,
    with_families,
    with_ratio,
)
from forgetlib.metrics import CHANCE


def generalization_varies(own: pd.DataFrame | None) -> pd.DataFrame:
    """Share of tasks that keep a large forget gap; share of tasks that lose less than half.

    own: from `fig2.table`. Tasks with nothing to forget are left out (`ratio_defined`): their
    small gap says nothing. The first can be compared with the paper, of whose tasks ten have a
    published accuracy. But a gap is also small where little was learned: hence the second.
    """
    table = with_ratio(own)
    gap, gap_low, gap_high = numbers(table, *columns_of("forget_gap"))
    ratio, ratio_low, ratio_high = numbers(table, *columns_of("forget_ratio"))
    (theirs,) = numbers(published(), "forget_gap")
    by_gap = claim_row(
        "generalization-varies",
        f"share of tasks with a forget gap above {LARGE_GAP}",
        ABOVE,
        OFTEN,
        share_interval(gap, gap_low, gap_high, LARGE_GAP),
        len(gap),
        paper=share_interval(theirs, theirs, theirs, LARGE_GAP).value,
    )
    by_ratio = claim_row(
        "generalization-varies",
        f"share of tasks with a forget ratio below {HALF}",
        ABOVE,
        OFTEN,
        share_interval(-ratio, -ratio_high, -ratio_low, -HALF),
        len(ratio),
    )
    return pd.concat([by_gap, by_ratio], ignore_index=True)


def task_family_split(own: pd.DataFrame | None, described: pd.DataFrame | None) -> pd.DataFrame:
    """What commonsense and science tasks keep more than language understanding, by gap and ratio.

    own: from `fig2.table`, without the tasks that have nothing to forget
    described: from `tasks.describe`

    As in `generalization_varies`, the gap can be compared with the paper, and the ratio does not
    take little learning for much forgetting.
    """
    resisting, forgotten = (COMMONSENSE, SCIENCE), (LANGUAGE,)

    def sides(table: pd.DataFrame, measure: str, *families: tuple[str, ...]) -> list[np.ndarray]:
        return [numbers(table[table["family"].isin(f)], measure)[0] for f in families]

    table = with_ratio(own)
    gaps = ratios = [np.zeros(0), np.zeros(0)]
    if table is not None:
        table = with_families(table, described)
        gaps = sides(table, "forget_gap", resisting, forgotten)
        ratios = sides(table, "forget_ratio", forgotten, resisting)
    by_gap = claim_row(
        "task-family-split",
        "mean forget gap, commonsense and science minus language understanding",
        ABOVE,
        0.0,
        difference_interval(*gaps),
        sum(map(len, gaps)),
        paper=difference_interval(*sides(published(), "forget_gap", resisting, forgotten)).value,
    )
    by_ratio = claim_row(
        "task-family-split",
        "mean forget ratio, language understanding minus commonsense and science",
        ABOVE,
        0.0,
        difference_interval(*ratios),
        sum(map(len, ratios)),
    )
    return pd.concat([by_gap, by_ratio], ignore_index=True)


def _with_forget_ratio(predictors: pd.DataFrame | None, predictor: str) -> tuple[Interval, int]:
    """Rank correlation over tasks of a predictor with the forget ratio, and the number of tasks."""
    table = given(predictors, ["eval_task"])
    if table is None:
        return Interval(np.nan, np.nan, np.nan), 0
    (found,) = rankcorrelation.correlations(table, [predictor]).to_dict("records")
    return interval_of(found, "rank_correlation"), found["n_tasks"]


def difficulty_not_predictive(predictors: pd.DataFrame | None) -> pd.DataFrame:
    """Rank correlation over tasks of fine-tuned accuracy with the forget ratio: none.

    predictors: from `fig4.table`. The fine-tuned accuracy is in the ratio too, so that its
    sampling error alone correlates the two a little where the test set is small.
    """
    found, n = _with_forget_ratio(predictors, "tuned")
    statistic = "rank correlation of forget ratio and fine-tuned accuracy"
    return claim_row("difficulty-not-predictive", statistic, WITHIN, NO_CORRELATION, found, n)


def confidence_and_variance(predictors: pd.DataFrame | None) -> pd.DataFrame:
    """Rank correlation over tasks of confidence, and of variance, with the forget ratio: below 0.

    predictors: from `fig4.table`
    """
    rows = []
    for predictor, words in (
        ("confidence", "confidence"),
        ("log_variance", "hidden-state variance"),
    ):
        found, n = _with_forget_ratio(predictors, predictor)
        statistic = f"rank correlation of forget ratio and {words}"
        rows.append(claim_row("confidence-and-variance", statistic, BELOW, 0.0, found, n))
    return pd.concat(rows, ignore_index=True)


def no_example_level_prediction(examples: pd.DataFrame | None) -> pd.DataFrame:
    """Whether a lost example had another confidence, or distance, than one that was not: no.

    examples: from `fig4.examples_table`. Two rows a predictor, of `mixedmodel.example_level`:
    the effect (rank-biserial) within tasks, pooled, with its interval over these tasks' examples;
    and, as opposite effects would cancel there, the mean over tasks of the squared effect. Of that,
    the square of its standard error (a quarter of the interval's width, about) is subtracted, which
    sampling error adds.
    """
    table = given(examples, ["seed", "uid"])
    found = None if table is None else mixedmodel.example_level(table).set_index("eval_task")
    rows = []
    for predictor, words in (
        ("confidence", "confidence"),
        ("log_deviation", "distance from the mean hidden state"),
    ):
        pooled, n = Interval(np.nan, np.nan, np.nan), 0
        of_tasks = None
        if found is not None:
            of = found[found["predictor"] == predictor]
            of_tasks = of.drop(regression.POOLED)
            pooled = interval_of(of.loc[regression.POOLED], "rank_biserial")
            if of_tasks["rank_biserial"].count() < MIN_TASKS:
                pooled = Interval(pooled.value, np.nan, np.nan)
            n = int(of.loc[regression.POOLED, "n"])
        effect, low, high = numbers(of_tasks, *columns_of("rank_biserial"))
        errors = (high - low) / (2 * scipy.stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2))
        squares = effect**2 - errors**2
        claim = "no-example-level-prediction"
        statistic = f"rank-biserial correlation within tasks of being lost and {words}"
        limits = (WITHIN, NO_EXAMPLE_EFFECT)
        rows.append(claim_row(claim, statistic, *limits, pooled, n, unit="examples"))
        statistic = f"mean over tasks of its square, without sampling error ({words})"
        square = round(NO_EXAMPLE_EFFECT**2, 4)
        rows.append(
            claim_row(claim, statistic, BELOW, square, mean_interval(squares), len(squares))
        )
    return pd.concat(rows, ignore_index=True)


def learn_forget_anticorrelated(order: pd.DataFrame | None) -> pd.DataFrame:
    """Mean over tasks of the rank correlation of learning step and forgetting step: below 0.

    order: from `fig5.table`; tasks with too few qualifying examples are left out (`enough`).
    Learned first is a small step and forgotten last a large one, hence the sign.
    """
    table = given(order, ["eval_task"], "enough")
    table = None if table is None else table[table["enough"].astype(bool)]
    (correlation,) = numbers(table, "rank_correlation")
    statistic = "mean rank correlation of the steps of learning and of forgetting"
    found, n = mean_interval(correlation), len(correlation)
    return claim_row("learn-forget-anticorrelated", statistic, BELOW, 0.0, found, n)


def probes_recover(probes: pd.DataFrame | None) -> pd.DataFrame:
    """What a probe's accuracy loses by forgetting, by its height above chance after fine-tuning.

    probes: from `fig6.recovery_table`. Mean difference over tasks by mean height: 5 points are
    little of a probe that is right in 90 %, and all of one that is right in 55 %. A task counts
    where the interval of the probe's accuracy after fine-tuning is above chance: else there is
    nothing that it could lose.
    """
    table = given(probes, ["eval_task"], "fine_tuned_low")
    table = None if table is None else table[table["fine_tuned_low"] > CHANCE]
    difference, fine_tuned = numbers(table, "difference", "fine_tuned")
    statistic = "change of probe accuracy by forgetting, by its height above chance before"
    found, n = relative_interval(difference, fine_tuned - CHANCE), len(difference)
    return claim_row("probes-recover", statistic, ABOVE, PROBE_LOSS, found, n)


def not_sample_size(sizes: pd.DataFrame | None) -> pd.DataFrame:
    """Rank correlation over tasks, with the smallest and the largest size, of accuracy and ratio.

    sizes: from `fig2.table` of runs with several sizes. Left out are tasks with nothing to
    forget, and tasks so small that both forgetting sets are the same. The accuracies can be
    compared with the paper, of whose tasks five have published ones for both sizes. But accuracies
    have the same order already where nothing is forgotten: hence the forget ratios.
    """
    table = given(
        sizes, ["eval_task", "size"], "ratio_defined", "n_train", "forgotten", "forget_ratio"
    )
    both: pd.DataFrame | None = None
    words = "small and full forgetting sets"
    if table is not None and table["size"].min() < table["size"].max():
        least, most = table["size"].min(), table["size"].max()
        words = f"{least} and {most} examples"
        first, last = (table[table["size"] == n].set_index("eval_task") for n in (least, most))
        both = first.join(last, how="inner", rsuffix="_most")
        both = both[both["ratio_defined"].astype(bool) & (both["n_train"] < both["n_train_most"])]
    theirs = intervals.rank_correlation(*numbers(published(), "forgotten_100", "forgotten")).value
    rows = []
    for measure, name, paper in (
        ("forgotten", "forget accuracy", theirs),
        ("forget_ratio", "forget ratio", np.nan),
    ):
        small, large = numbers(both, measure, f"{measure}_most")
        statistic = f"rank correlation of {name} with {words}"
        found, n = intervals.rank_correlation(small, large), len(small)
        limits = (ABOVE, SAME_PATTERN)
        rows.append(claim_row("not-sample-size", statistic, *limits, found, n, paper=paper))
    return pd.concat(rows, ignore_index=True)


def robust_to_method_and_model(
    cross: CrossTask | None,
    flipped: CrossTask | None,
    crosses_of_models: Sequence[CrossTask] = (),
) -> pd.DataFrame:
    """Rank correlation over evaluated tasks of the mean ratio: two conditions, then two models.

    cross, flipped: from `crosstask.cross_task`, random and flipped labels of the same model
    crosses_of_models: random labels, one a model; every pair of them has its row
    """
    wanted = [(cross, "random"), (flipped, "flipped"), *((c, "random") for c in crosses_of_models)]
    for matrix, condition in wanted:
        if matrix is not None and matrix.condition != condition:
            raise InputError(
                "matrices of a claim",
                expected=f"{condition} labels in this place",
                found=f"{matrix.model}, {matrix.condition}",
                do="Pass cross, flipped and crosses_of_models as verdicts names them.",
            )
    rows = []
    for crosses, what in (
        ([c for c in (cross, flipped) if c is not None], "random and flipped labels"),
        (list(crosses_of_models), "two models"),
    ):
        agreement = crossanalysis.model_agreement(crosses).to_dict("records")
        found = [
            (f"{row['a']}; {row['b']}", interval_of(row, "rank_correlation"), row["n"])
            for row in agreement
        ]
        for pair, interval, n in found or [(what, Interval(np.nan, np.nan, np.nan), 0)]:
            statistic = f"rank correlation of the evaluated tasks' mean forget ratios ({pair})"
            limits = (ABOVE, SAME_PATTERN)
            rows.append(claim_row("robust-to-method-and-model", statistic, *limits, interval, n))
    return pd.concat(rows, ignore_index=True)


def verdicts(
    *,
    described: pd.DataFrame | None = None,
    own: pd.DataFrame | None = None,
    cross: CrossTask | None = None,
    flipped: CrossTask | None = None,
    predictors: pd.DataFrame | None = None,
    examples: pd.DataFrame | None = None,
    order: pd.DataFrame | None = None,
    probes: pd.DataFrame | None = None,
    sizes: pd.DataFrame | None = None,
    crosses_of_models: Sequence[CrossTask] = (),
) -> pd.DataFrame:
    """Every claim, one row a statistic; what is not given leaves its claims undecided.

    described: from `tasks.describe`; own, sizes: `fig2.table`; cross, flipped and
    crosses_of_models: `crosstask.cross_task`; predictors: `fig4.table`; examples:
    `fig4.examples_table`; order: `fig5.table`; probes: `fig6.recovery_table`
    """
    found = (
        generalization_varies(own),
        task_family_split(own, described),
        eval_task_determines(cross),
        other_tasks_better(cross, described),
        difficulty_not_predictive(predictors),
        confidence_and_variance(predictors),
        no_example_level_prediction(examples),
        learn_forget_anticorrelated(order),
        probes_recover(probes),
        not_sample_size(sizes),
        robust_to_method_and_model(cross, flipped, crosses_of_models),
    )
    return pd.concat(found, ignore_index=True)
