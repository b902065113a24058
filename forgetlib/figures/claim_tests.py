"""Test each claim of the paper: tables in, statistics with their intervals and statements out.

A function here is the test of one claim of `claims.CLAIMS`. It takes the tables it needs, None
where there is none, and gives one row a statistic: statistic (in words), value, low, high, n and
what it counts (unit), statement and threshold, paper (the same statistic of the published numbers,
else NaN). `claims` adds the verdicts.

Most statistics count tasks, and their intervals are over tasks: would other tasks of this kind show
the same? A study has 4 to 21 of them, and a percentile bootstrap of so few is too narrow: four
tasks in the same order twice have a rank correlation of 1 in every resample. Used instead, as about
right from four tasks on: Student's t for means, Welch's t for differences, Clopper and Pearson's
interval for shares, Bonett and Wright's for rank correlations (`intervals.rank_correlation`, which
the figures show too), a jackknife for what is none of these. Tasks that are all alike have no
interval: they do not show how much tasks differ. One statistic alone has the figure's interval over
the examples of these tasks: section 5's pooled effect on single examples.

Over the paper's own 21 tasks a rank correlation is known to plus or minus 0.4, too little to show
that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.stats import norm

from forgetlib.data.tasks import COMMONSENSE, LANGUAGE, SCIENCE
from forgetlib.errors import InputError
from forgetlib.figures import crossanalysis, intervals, mixedmodel, regression
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.intervals import MIN_TASKS, UNDEFINED, Interval, with_intervals
from forgetlib.figures.join import given
from forgetlib.figures.published import published
from forgetlib.metrics import CHANCE

Table: TypeAlias = pd.DataFrame | None
Matrix: TypeAlias = CrossTask | None
ABOVE, BELOW, WITHIN = "above", "below", "within +-"  # statements about a threshold
# Thresholds. The paper gives none: these are ours.
LARGE_GAP = 0.1  # a fifth of the way from chance to perfect: not the noise of a test set
HALF = 0.5  # "fails to generalise": less than half is lost; "mostly": over half of the variance
OFTEN = 0.25  # "often", "many": more than one task in four
NO_CORRELATION = 0.3  # over tasks: less than a tenth of the ranks' variance
# Rank-biserial, of examples: of a lost question and one that is not, the lost one has the higher
# value with a chance between 0.4 and 0.6, where 0.5 is a coin.
NO_EXAMPLE_EFFECT = 0.2
PROBE_LOSS = -0.25  # "about as accurate": a quarter of the height above chance lost at most
SAME_PATTERN = 0.5  # rank correlation of two patterns over tasks: usually called large


def _row(
    statistic: str,
    statement: str,
    threshold: float,
    interval: Interval,
    n: int,
    *,
    unit: str = "tasks",
    paper: float = np.nan,
) -> pd.DataFrame:
    row = {"statistic": statistic, "value": interval.value, "low": interval.low}
    row |= {"high": interval.high, "n": n, "unit": unit}
    return pd.DataFrame([row | {"statement": statement, "threshold": threshold, "paper": paper}])


def _require(table: pd.DataFrame, *columns: str) -> None:
    do = "Pass the table that the claim's docstring names."
    intervals.require_columns("table of a claim", table, columns, do)


def _interval(row: Mapping[str, Any] | pd.Series, measure: str) -> Interval:
    return Interval(*(float(row[column]) for column in with_intervals([measure])))


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
    by_gap = _row(
        f"share of tasks with a forget gap above {LARGE_GAP}",
        ABOVE,
        OFTEN,
        intervals.share_interval(gap, gap_low, gap_high, LARGE_GAP),
        len(gap),
        paper=intervals.share_interval(theirs, theirs, theirs, LARGE_GAP).value,
    )
    by_ratio = _row(
        f"share of tasks with a forget ratio below {HALF}",
        ABOVE,
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

    table = _with_ratio(own)
    gaps = ratios = [np.zeros(0), np.zeros(0)]
    if table is not None:
        table = _with_families(table, described)
        gaps = sides(table, "forget_gap", resisting, forgotten)
        ratios = sides(table, "forget_ratio", forgotten, resisting)
    by_gap = _row(
        "mean forget gap, commonsense and science minus language understanding",
        ABOVE,
        0.0,
        intervals.difference_interval(*gaps),
        sum(map(len, gaps)),
        paper=intervals.difference_interval(
            *sides(published(), "forget_gap", resisting, forgotten)
        ).value,
    )
    by_ratio = _row(
        "mean forget ratio, language understanding minus commonsense and science",
        ABOVE,
        0.0,
        intervals.difference_interval(*ratios),
        sum(map(len, ratios)),
    )
    return pd.concat([by_gap, by_ratio], ignore_index=True)


def eval_task_determines(cross: Matrix = None) -> pd.DataFrame:
    """Measure the evaluated task's share of the forget ratio's variance: over a half.

    cross: from `crosstask.cross_task`. Share and interval (over tasks) are those of
    `crossanalysis.variance_shares`.
    """
    found, n = UNDEFINED, 0
    if cross is not None:
        row = crossanalysis.variance_shares(cross).set_index("source").loc["evaluated task"]
        n = int(cross.defined.sum())
        ends = (row["tasks_low"], row["tasks_high"]) if n >= MIN_TASKS else (np.nan, np.nan)
        found = Interval(float(row["share"]), *map(float, ends))
    return _row(
        "share of the forget ratio's variance that the evaluated task explains",
        ABOVE,
        HALF,
        found,
        n,
    )


def other_tasks_better(cross: Matrix = None, described: Table = None) -> pd.DataFrame:
    """Count the tasks forgotten more by another's labels; compare commonsense as a trigger.

    cross: from `crosstask.cross_task`
    described: from `tasks.describe`

    The best of many other tasks would beat a task's own labels by chance alone, so it is picked on
    other data (`crossanalysis.own_against_others`). With one seed these are other examples of the
    same runs, of which one beats a task's own by chance: then nothing is decided. For the second
    row see `crossanalysis.trigger_strength`.
    """
    better = low = high = commonsense = others = np.zeros(0)
    if cross is not None:
        differences = crossanalysis.own_against_others(cross)
        better, low, high = _numbers(differences, *with_intervals(["difference"]))
        triggers = _with_families(crossanalysis.trigger_strength(cross), described).dropna()
        is_commonsense = triggers["family"] == COMMONSENSE
        (commonsense,) = _numbers(triggers[is_commonsense], "strength")
        (others,) = _numbers(triggers[~is_commonsense], "strength")
    found = intervals.share_interval(better, low, high, 0.0)
    if cross is not None and cross.n_seeds == 1:
        found = Interval(found.value, np.nan, np.nan)
    share = _row(
        "share of tasks forgotten more by the best other task's labels than by their own",
        ABOVE,
        OFTEN,
        found,
        len(better),
    )
    trigger = _row(
        "forget ratio of other tasks, by commonsense labels minus by other labels",
        ABOVE,
        0.0,
        intervals.difference_interval(commonsense, others),
        len(commonsense) + len(others),
    )
    return pd.concat([share, trigger], ignore_index=True)


def _with_forget_ratio(predictors: Table, predictor: str) -> tuple[Interval, int]:
    """Rank correlation over tasks of a predictor with the forget ratio, and the number of tasks."""
    table = given(predictors, ["eval_task"])
    if table is None:
        return UNDEFINED, 0
    (found,) = regression.correlations(table, [predictor]).to_dict("records")
    return _interval(found, "rank_correlation"), found["n_tasks"]


def difficulty_not_predictive(predictors: Table = None) -> pd.DataFrame:
    """Correlate fine-tuned accuracy with the forget ratio, by ranks over tasks: near 0.

    predictors: from `fig4.table`. The fine-tuned accuracy is in the ratio too, so that its
    sampling error alone correlates the two a little where the test set is small.
    """
    found, n = _with_forget_ratio(predictors, "tuned")
    statistic = "rank correlation of forget ratio and fine-tuned accuracy"
    return _row(statistic, WITHIN, NO_CORRELATION, found, n)


def confidence_and_variance(predictors: Table = None) -> pd.DataFrame:
    """Correlate confidence, and variance, with the forget ratio, by ranks over tasks: below 0.

    predictors: from `fig4.table`
    """
    rows = []
    for predictor, words in (
        ("confidence", "confidence"),
        ("log_variance", "hidden-state variance"),
    ):
        found, n = _with_forget_ratio(predictors, predictor)
        statistic = f"rank correlation of forget ratio and {words}"
        rows.append(_row(statistic, BELOW, 0.0, found, n))
    return pd.concat(rows, ignore_index=True)


def no_example_level_prediction(examples: Table = None) -> pd.DataFrame:
    """Compare the confidence, and distance, of lost examples with the others': no difference.

    examples: from `fig4.examples_table`. Any training moves questions near the decision boundary
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
            pooled = _interval(of.loc[mixedmodel.POOLED], measure)
            if of_tasks[measure].count() < MIN_TASKS:
                pooled = Interval(pooled.value, np.nan, np.nan)
            n = int(of.loc[mixedmodel.POOLED, "n"])
        effect, low, high = _numbers(of_tasks, *with_intervals([measure]))
        errors = (high - low) / (2 * norm.ppf(1 - intervals.TAIL))
        squares = effect**2 - errors**2
        statistic = f"rank-biserial correlation within tasks of being lost and {words}{less}"
        rows.append(_row(statistic, WITHIN, NO_EXAMPLE_EFFECT, pooled, n, unit="examples"))
        statistic = f"mean over tasks of its square, without sampling error ({words}{less})"
        square = round(NO_EXAMPLE_EFFECT**2, 4)
        rows.append(_row(statistic, BELOW, square, intervals.mean_interval(squares), len(squares)))
    return pd.concat(rows, ignore_index=True)


def learn_forget_anticorrelated(order: Table = None) -> pd.DataFrame:
    """Average over tasks the rank correlation of learning and forgetting step: below 0.

    order: from `fig5.table`; tasks with too few qualifying examples are left out (`enough`).
    Learned first is a small step and forgotten last a large one, hence the sign.
    """
    table = given(order, ["eval_task"], "enough")
    table = None if table is None else table[table["enough"].astype(bool)]
    (correlation,) = _numbers(table, "rank_correlation")
    statistic = "mean rank correlation of the steps of learning and of forgetting"
    found, n = intervals.mean_interval(correlation), len(correlation)
    return _row(statistic, BELOW, 0.0, found, n)


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
    return _row(statistic, ABOVE, PROBE_LOSS, found, n)


def not_sample_size(sizes: Table = None) -> pd.DataFrame:
    """Correlate forgetting with the smallest and the largest size, by ranks over tasks: strongly.

    sizes: from `fig7.table`. Left out are tasks with nothing to
    forget, and tasks so small that both forgetting sets are the same. The accuracies can be
    compared with the paper, of whose tasks five have published ones for both sizes. But accuracies
    have the same order already where nothing is forgotten: hence the forget ratios.
    """
    table = given(
        sizes, ["eval_task", "size"], "ratio_defined", "n_train", "forgotten", "forget_ratio"
    )
    both: Table = None
    words = "small and full forgetting sets"
    if table is not None and table["size"].min() < table["size"].max():
        least, most = table["size"].min(), table["size"].max()
        words = f"{least} and {most} examples"
        first, last = (table[table["size"] == n].set_index("eval_task") for n in (least, most))
        both = first.join(last, how="inner", rsuffix="_most")
        both = both[both["ratio_defined"].astype(bool) & (both["n_train"] < both["n_train_most"])]
    theirs = intervals.rank_correlation(*_numbers(published(), "forgotten_100", "forgotten")).value
    rows = []
    for measure, name, paper in (
        ("forgotten", "forget accuracy", theirs),
        ("forget_ratio", "forget ratio", np.nan),
    ):
        small, large = _numbers(both, measure, f"{measure}_most")
        statistic = f"rank correlation of {name} with {words}"
        found, n = intervals.rank_correlation(small, large), len(small)
        limits = (ABOVE, SAME_PATTERN)
        rows.append(_row(statistic, *limits, found, n, paper=paper))
    return pd.concat(rows, ignore_index=True)


def robust_to_method_and_model(
    cross: Matrix = None,
    flipped: Matrix = None,
    crosses_of_models: Sequence[CrossTask] = (),
) -> pd.DataFrame:
    """Correlate the evaluated tasks' mean ratios of two conditions, and of each two models.

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
            (f"{row['a']}; {row['b']}", _interval(row, "rank_correlation"), row["n"])
            for row in agreement
        ]
        for pair, interval, n in found or [(what, UNDEFINED, 0)]:
            statistic = f"rank correlation of the evaluated tasks' mean forget ratios ({pair})"
            limits = (ABOVE, SAME_PATTERN)
            rows.append(_row(statistic, *limits, interval, n))
    return pd.concat(rows, ignore_index=True)
