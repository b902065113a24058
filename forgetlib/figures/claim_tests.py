"""Test each claim of the paper: tables in, statistics with their intervals and statements out.

A function here is the test of one claim of `claims.CLAIMS`. It takes the tables it needs, None
where there is none, and gives one row a statistic, those of `statements.row`.

Most statistics count tasks, and their intervals are over tasks: would other tasks of this kind show
the same? A study has 4 to 21 of them, and a percentile bootstrap of so few is too narrow: four
tasks in the same order twice have a rank correlation of 1 in every resample. Used instead, as about
right from four tasks on: Student's t for means, Welch's t for differences, Clopper and Pearson's
interval for shares, Bonett and Wright's for rank correlations (`intervals.rank_correlation`, which
the figures show too), a jackknife for what is none of these. Tasks that are all alike have no
interval: they do not show how much tasks differ. One statistic alone has the figure's interval over
the examples of these tasks: section 5's pooled effect on single examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pandas as pd
from scipy.stats import norm

from forgetlib.data.tasks import COMMONSENSE, LANGUAGE, SCIENCE
from forgetlib.errors import InputError
from forgetlib.figures import crossanalysis, intervals, mixedmodel, regression
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.effects import AUROC_BEYOND, Effects, beyond_true_labels
from forgetlib.figures.intervals import MIN_TASKS, UNDEFINED, Interval, of_row, with_intervals
from forgetlib.figures.join import given
from forgetlib.figures.published import published
from forgetlib.figures.statements import row
from forgetlib.figures.thresholds import (
    ANY,
    LARGE_GAP,
    MOSTLY,
    NEGATIVE,
    NO_CORRELATION,
    NO_EXAMPLE_EFFECT,
    NO_SQUARE,
    OFTEN,
    OFTEN_BETTER,
    OPPOSITE,
    PROBE_LOSS,
    SAME_PATTERN,
    STRONGER,
    lacks_families,
)
from forgetlib.figures.verdicts import HALF
from forgetlib.metrics import CHANCE

Table: TypeAlias = pd.DataFrame | None
Matrix: TypeAlias = CrossTask | None

# What a study can lack.
CONTROL = "a control by true labels for each pair"


def _require(table: pd.DataFrame, *columns: str) -> None:
    do = "Pass the table that the claim's docstring names."
    intervals.require_columns("table of a claim", table, columns, do)


def _numbers(table: Table, *columns: str) -> list[np.ndarray]:
    """The columns, each (N,), of the N rows where all of them are defined; N = 0 without table."""
    if table is None:
        return [np.zeros(0) for _ in columns]
    _require(table, *columns)
    return list(table[list(columns)].astype(float).dropna().to_numpy().T)


def _with_ratio(own: Table) -> Table:
    """The tasks that had something to forget."""
    table = given(own, ["eval_task"], "ratio_defined")
    return None if table is None else table[table["ratio_defined"].astype(bool)]


def _with_families(table: pd.DataFrame, described: Table) -> pd.DataFrame:
    """The table with the family of each task; NaN where it is not described."""
    known = {}
    if described is not None:
        _require(described, "eval_task", "family")
        known = dict(zip(described["eval_task"], described["family"], strict=True))
    return table.assign(family=table["eval_task"].map(known))


def generalization_varies(own: Table = None) -> pd.DataFrame:
    """Count the share of tasks that keep a large forget gap, and that lose less than half.

    own: from `fig2.table`. Tasks with nothing to forget are left out (`ratio_defined`): their
    small gap says nothing. The first can be compared with the paper, of whose tasks ten have a
    published accuracy. But a gap is also small where little was learned: hence the second.
    """
    table = _with_ratio(own)
    gap, gap_low, gap_high = _numbers(table, *with_intervals(["forget_gap"]))
    ratio, ratio_low, ratio_high = _numbers(table, *with_intervals(["forget_ratio"]))
    (theirs,) = _numbers(published(), "forget_gap")
    by_gap = row(
        f"share of tasks with a forget gap above {LARGE_GAP}",
        OFTEN,
        intervals.share_interval(gap, gap_low, gap_high, LARGE_GAP),
        len(gap),
        paper=intervals.share_interval(theirs, theirs, theirs, LARGE_GAP).value,
    )
    by_ratio = row(
        f"share of tasks with a forget ratio below {HALF}",
        OFTEN,
        intervals.share_interval(-ratio, -ratio_high, -ratio_low, -HALF),
        len(ratio),
    )
    return pd.concat([by_gap, by_ratio], ignore_index=True)


def task_family_split(own: Table = None, described: Table = None) -> pd.DataFrame:
    """Compare what commonsense and science keep with what language understanding keeps.

    own: from `fig2.table`, without the tasks that have nothing to forget
    described: from `tasks.describe`

    As in `generalization_varies`, the gap can be compared with the paper, and the ratio does not
    take little learning for much forgetting.
    """
    resisting, forgotten = (COMMONSENSE, SCIENCE), (LANGUAGE,)

    def sides(table: pd.DataFrame, measure: str, *families: tuple[str, ...]) -> list[np.ndarray]:
        return [_numbers(table[table["family"].isin(f)], measure)[0] for f in families]

    gaps = ratios = [np.zeros(0), np.zeros(0)]
    if (table := _with_ratio(own)) is not None:
        table = _with_families(table, described)
        gaps = sides(table, "forget_gap", resisting, forgotten)
        ratios = sides(table, "forget_ratio", forgotten, resisting)
    lacks = lacks_families(len(gaps[1]), len(gaps[0]))
    by_gap = row(
        "mean forget gap, commonsense and science minus language understanding",
        ANY,
        intervals.difference_interval(*gaps),
        sum(map(len, gaps)),
        paper=intervals.difference_interval(
            *sides(published(), "forget_gap", resisting, forgotten)
        ).value,
        lacks=lacks,
    )
    by_ratio = row(
        "mean forget ratio, language understanding minus commonsense and science",
        ANY,
        intervals.difference_interval(*ratios),
        sum(map(len, ratios)),
        lacks=lacks,
    )
    return pd.concat([by_gap, by_ratio], ignore_index=True)


def _effects(cross: Matrix) -> Effects | None:
    """What labels did in each pair beyond true ones; None where there is no such control."""
    return None if cross is None or not cross.has_control else beyond_true_labels(cross)


def eval_task_determines(cross: Matrix = None) -> pd.DataFrame:
    """Measure the evaluated task's share of the variance of what random labels did: over a half.

    cross: from `crosstask.cross_task`. What any second training does is no effect of labels, so
    that the effect is taken beyond true ones. Share and interval (over tasks) are those of
    `crossanalysis.variance_shares`.
    """
    effects, found, n = _effects(cross), UNDEFINED, 0
    if effects is not None:
        shares = crossanalysis.variance_shares(effects).set_index("source")
        of = shares.loc["evaluated task"]
        n = int(effects.defined.sum())
        ends = (of["tasks_low"], of["tasks_high"]) if n >= MIN_TASKS else (np.nan, np.nan)
        found = Interval(float(of["share"]), *map(float, ends))
    return row(
        f"share of the variance of {AUROC_BEYOND} that the evaluated task explains",
        MOSTLY,
        found,
        n,
        lacks="" if effects is not None else CONTROL,
    )


def other_tasks_better(cross: Matrix = None, described: Table = None) -> pd.DataFrame:
    """Count the tasks that another's labels cost more; compare commonsense labels with others.

    cross: from `crosstask.cross_task`
    described: from `tasks.describe`

    The best of many other tasks would beat a task's own labels by chance alone, so it is picked on
    other seeds (`crossanalysis.best_other`). For the second row see
    `crossanalysis.trigger_strength`.
    """
    effects = _effects(cross)
    better = low = high = commonsense = others = np.zeros(0)
    if effects is not None:
        found = crossanalysis.best_other(effects).dropna()
        better, low, high = _numbers(found, *with_intervals(["difference"]))
        triggers = _with_families(crossanalysis.trigger_strength(effects), described).dropna()
        is_commonsense = triggers["family"] == COMMONSENSE
        (commonsense,) = _numbers(triggers[is_commonsense], "strength")
        (others,) = _numbers(triggers[~is_commonsense], "strength")
    one_seed = effects is not None and len(effects.of_seeds) == 1
    share = row(
        f"share of tasks with more {AUROC_BEYOND} after the best other task's labels than after "
        "their own",
        OFTEN_BETTER,
        intervals.share_interval(better, low, high, 0.0),
        len(better),
        lacks=CONTROL if effects is None else "pairs of two seeds" if one_seed else "",
    )
    trigger = row(
        f"{AUROC_BEYOND} of other tasks, by commonsense labels minus by other labels",
        STRONGER,
        intervals.difference_interval(commonsense, others),
        len(commonsense) + len(others),
        lacks=CONTROL if effects is None else "",
    )
    return pd.concat([share, trigger], ignore_index=True)


def _with_loss(predictors: Table, predictor: str) -> tuple[Interval, int]:
    """Rank correlation over tasks of a predictor with the AUROC lost, and the number of tasks."""
    table = given(predictors, ["eval_task"], "auroc_lost", "known")
    if table is None:
        return UNDEFINED, 0
    known = table[table["known"].astype(bool)]
    if known.empty:
        return UNDEFINED, 0
    (found,) = regression.correlations(known, [predictor], "auroc_lost").to_dict("records")
    return of_row(found, "rank_correlation"), found["n_tasks"]


def difficulty_not_predictive(predictors: Table = None) -> pd.DataFrame:
    """Correlate fine-tuned accuracy with the AUROC lost, by ranks over tasks: near 0.

    predictors: from `fig4.table`. Not with the forget ratio, whose denominator the fine-tuned
    accuracy is: their sampling errors alone would correlate the two.
    """
    statistic = "rank correlation of AUROC lost and fine-tuned accuracy"
    return row(statistic, NO_CORRELATION, *_with_loss(predictors, "tuned"))


def confidence_and_variance(predictors: Table = None) -> pd.DataFrame:
    """Correlate confidence, and variance, with the AUROC lost, by ranks over tasks: below 0.

    predictors: from `fig4.table`
    """
    rows = []
    for predictor, words in (
        ("confidence", "confidence"),
        ("log_variance", "hidden-state variance"),
    ):
        statistic = f"rank correlation of AUROC lost and {words}"
        rows.append(row(statistic, NEGATIVE, *_with_loss(predictors, predictor)))
    return pd.concat(rows, ignore_index=True)


def no_example_level_prediction(examples: Table = None) -> pd.DataFrame:
    """Compare the confidence, and distance, of lost examples with the others': no difference.

    examples: from `fig4_examples.table`. Any training moves questions near the decision boundary
    across it. Where there is a control by true labels, the effect is therefore that of random
    labels less that of true ones (`mixedmodel.example_level`); else it is random labels' own. Two
    rows a predictor: the effect (rank-biserial) within tasks, pooled, with its interval over these
    tasks' examples; and, as opposite effects would cancel there, the mean over tasks of the squared
    effect. Of that, the square of its standard error (a quarter of the interval's width, about) is
    subtracted, which sampling error adds.
    """
    table = given(examples, ["seed", "uid"])
    found = None if table is None else mixedmodel.example_level(table).set_index("eval_task")
    controlled = found is not None and found["beyond_true_labels"].notna().any()
    measure = "beyond_true_labels" if controlled else "rank_biserial"
    less = ", random minus true labels" if controlled else ""
    rows = []
    named = (("confidence",) * 2, ("log_deviation", "distance from the mean state"))
    for predictor, words in named:
        pooled, n, of_tasks = UNDEFINED, 0, None
        if found is not None:
            of = found[found["predictor"] == predictor]
            of_tasks = of.drop(mixedmodel.POOLED)
            pooled = of_row(of.loc[mixedmodel.POOLED], measure)
            if of_tasks[measure].count() < MIN_TASKS:
                pooled = Interval(pooled.value, np.nan, np.nan)
            n = int(of.loc[mixedmodel.POOLED, "n"])
        effect, low, high = _numbers(of_tasks, *with_intervals([measure]))
        errors = (high - low) / (2 * norm.ppf(1 - intervals.TAIL))
        squares = effect**2 - errors**2
        statistic = f"rank-biserial correlation within tasks of being lost and {words}{less}"
        lacks = "" if controlled else "a second training on true labels, as control"
        rows.append(row(statistic, NO_EXAMPLE_EFFECT, pooled, n, unit="examples", lacks=lacks))
        statistic = f"mean over tasks of its square, without sampling error ({words}{less})"
        found_squares = intervals.mean_interval(squares)
        rows.append(row(statistic, NO_SQUARE, found_squares, len(squares), lacks=lacks))
    return pd.concat(rows, ignore_index=True)


def learn_forget_anticorrelated(order: Table = None) -> pd.DataFrame:
    """Average over tasks the rank correlation of learning and forgetting step: below 0.

    order: from `fig5.table`; tasks with too few qualifying examples are left out (`enough`).
    Learned first is a small step and forgotten last a large one, hence the sign. What is supposed
    is of exact steps: of it, ties between recordings leave `seen`, and the power is that of this.
    """
    table = given(order, ["eval_task"], "enough")
    table = None if table is None else table[table["enough"].astype(bool)]
    correlation, seen = _numbers(table, "rank_correlation", "seen")
    statistic = "mean rank correlation of the steps of learning and of forgetting"
    said = replace(OPPOSITE, supposed=OPPOSITE.supposed * (seen.mean() if len(seen) else 1))
    return row(statistic, said, intervals.mean_interval(correlation), len(correlation))


def probes_recover(probes: Table = None) -> pd.DataFrame:
    """Measure what a probe loses by forgetting, by its height above chance after fine-tuning.

    probes: from `fig6.recovery_table`. Mean difference over tasks by mean height: 5 points are
    little of a probe that is right in 90 %, and all of one that is right in 55 %. A task counts
    where the interval of the probe's accuracy after fine-tuning is above chance: else there is
    nothing that it could lose.
    """
    table = given(probes, ["eval_task"], "fine_tuned_low")
    table = None if table is None else table[table["fine_tuned_low"] > CHANCE]
    difference, fine_tuned = _numbers(table, "difference", "fine_tuned")
    statistic = "change of probe accuracy by forgetting, by its height above chance before"
    found, n = intervals.relative_interval(difference, fine_tuned - CHANCE), len(difference)
    return row(statistic, PROBE_LOSS, found, n)


def not_sample_size(sizes: Table = None) -> pd.DataFrame:
    """Correlate forgetting with the smallest and the largest size, by ranks over tasks: strongly.

    sizes: from `agreement.of_sizes`, which takes the two sizes from other data than each other. The
    accuracies can be compared with the paper, of whose tasks five have published ones for both
    sizes. But accuracies have the same order already where nothing is forgotten: hence what is
    lost.
    """
    table = given(sizes, ["measure"], "rank_correlation", "ceiling", "small", "full")
    theirs = intervals.rank_correlation(*_numbers(published(), "forgotten_100", "forgotten")).value
    rows = []
    for measure, paper in (("forget accuracy", theirs), ("accuracy lost", np.nan)):
        words, found, n, ceiling = "small and full forgetting sets", UNDEFINED, 0, np.nan
        if table is not None:
            of = table.set_index("measure").loc[measure]
            words = f"{of['small']} and {of['full']} examples"
            found, n, ceiling = of_row(of, "rank_correlation"), int(of["n"]), of["ceiling"]
        statistic = f"rank correlation of {measure} with {words}"
        lacks = "" if table is not None else "two sizes of the forgetting set"
        made = row(statistic, SAME_PATTERN, found, n, paper=paper, ceiling=ceiling, lacks=lacks)
        rows.append(made)
    return pd.concat(rows, ignore_index=True)


def robust_to_method_and_model(
    cross: Matrix = None,
    flipped: Matrix = None,
    crosses_of_models: Sequence[CrossTask] = (),
) -> pd.DataFrame:
    """Correlate the evaluated tasks' mean effects in two conditions, and in each two models.

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
    both = [c for c in (cross, flipped) if c is not None]
    rows = [
        *_of_agreement(both, "random and flipped labels", CONTROL),
        *_of_agreement(crosses_of_models, "two models", "two models of which each knows the tasks"),
    ]
    return pd.concat(rows, ignore_index=True)


def _of_agreement(crosses: Sequence[CrossTask], what: str, lacks: str) -> list[pd.DataFrame]:
    """Make a row for every pair of matrices; one that says what is missing where there is none."""
    statistic = "rank correlation of the evaluated tasks' mean "
    found = crossanalysis.model_agreement(list(crosses)).to_dict("records")
    if not found:
        return [row(f"{statistic}{AUROC_BEYOND} ({what})", SAME_PATTERN, UNDEFINED, 0, lacks=lacks)]
    return [
        row(
            f"{statistic}{of['measure']} ({of['a']}; {of['b']})",
            SAME_PATTERN,
            of_row(of, "rank_correlation"),
            int(of["n"]),
            ceiling=of["ceiling"],
            lacks="" if of["measure"] == AUROC_BEYOND else CONTROL,
        )
        for of in found
    ]
