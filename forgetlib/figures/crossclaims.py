"""The paper's claims on other tasks' labels, each as a test (see `claims`)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from forgetlib.data.tasks import COMMONSENSE
from forgetlib.figures import (
    crossanalysis,
)
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.intervals import MIN_TASKS, Interval
from forgetlib.figures.verdicts import (
    ABOVE,
    HALF,
    OFTEN,
    claim_row,
    columns_of,
    difference_interval,
    numbers,
    share_interval,
    with_families,
)


def eval_task_determines(cross: CrossTask | None) -> pd.DataFrame:
    """The evaluated task's share of the forget ratio's variance: most of it.

    cross: from `crosstask.cross_task`. Share and interval (over tasks) are those of
    `crossanalysis.variance_shares`.
    """
    found, n = Interval(np.nan, np.nan, np.nan), 0
    if cross is not None:
        row = crossanalysis.variance_shares(cross).set_index("source").loc["evaluated task"]
        n = int(cross.defined.sum())
        ends = (row["tasks_low"], row["tasks_high"]) if n >= MIN_TASKS else (np.nan, np.nan)
        found = Interval(float(row["share"]), *map(float, ends))
    return claim_row(
        "eval-task-determines",
        "share of the forget ratio's variance that the evaluated task explains",
        ABOVE,
        HALF,
        found,
        n,
    )


def trigger_strength(cross: CrossTask) -> pd.DataFrame:
    """How much more than the average task each one's labels make other tasks forget (Fig. 3).

    The column effects of ratio = evaluated task + forgotten task, fitted by least squares to the
    pairs of different tasks; their mean is 0. Plain means of columns without the diagonal would not
    do: each column leaves another row out, so that a task which resists forgetting would look like
    a strong trigger. NaN with fewer than two defined rows, or fewer than three tasks.

    Columns: eval_task (the one whose labels were changed), strength (in forget ratio).
    """
    k = len(cross.tasks)
    strength = np.full(k, np.nan)
    used = cross.defined[:, None] & ~np.eye(k, dtype=bool)
    if k > 2 and cross.defined.sum() > 1:
        row, column = np.nonzero(used)
        design = np.hstack([np.eye(k)[row], np.eye(k)[column]])
        effects = np.linalg.lstsq(design, cross.forget_ratio[used], rcond=None)[0][k:]
        strength = effects - effects.mean()
    return pd.DataFrame({"eval_task": cross.tasks, "strength": strength})


def other_tasks_better(cross: CrossTask | None, described: pd.DataFrame | None) -> pd.DataFrame:
    """Share of tasks forgotten more by another's labels; strength of commonsense as a trigger.

    cross: from `crosstask.cross_task`
    described: from `tasks.describe`

    The best of many other tasks would beat a task's own labels by chance alone, so it is picked on
    other data (`crossanalysis.own_against_others`). With one seed these are other examples of the
    same runs, of which one beats a task's own by chance: then nothing is decided. For the second
    row see `trigger_strength`.
    """
    better = low = high = commonsense = others = np.zeros(0)
    if cross is not None:
        differences = crossanalysis.own_against_others(cross)
        better, low, high = numbers(differences, *columns_of("difference"))
        triggers = with_families(trigger_strength(cross), described).dropna()
        is_commonsense = triggers["family"] == COMMONSENSE
        (commonsense,) = numbers(triggers[is_commonsense], "strength")
        (others,) = numbers(triggers[~is_commonsense], "strength")
    found = share_interval(better, low, high, 0.0)
    if cross is not None and cross.n_seeds == 1:
        found = Interval(found.value, np.nan, np.nan)
    share = claim_row(
        "other-tasks-better",
        "share of tasks forgotten more by the best other task's labels than by their own",
        ABOVE,
        OFTEN,
        found,
        len(better),
    )
    trigger = claim_row(
        "other-tasks-better",
        "forget ratio of other tasks, by commonsense labels minus by other labels",
        ABOVE,
        0.0,
        difference_interval(commonsense, others),
        len(commonsense) + len(others),
    )
    return pd.concat([share, trigger], ignore_index=True)
