"""The paper's claims, and what these data say of each: the one rule that judges them.

A claim becomes one or more statistics (`claim_tests`), each with a 95 % interval and a statement
about it: that it is above a threshold, below one, or within plus or minus one. `verdict` is the one
rule: "holds" where the whole interval agrees with the statement, "does not hold" where none of it
does, else "not decided by these data". Missing data, undefined statistics and fewer than
`intervals.MIN_TASKS` tasks are not decided either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from forgetlib.errors import require_one_of
from forgetlib.figures import claim_tests
from forgetlib.figures.claim_tests import ABOVE, BELOW, WITHIN
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.intervals import Interval

HOLDS, DOES_NOT_HOLD, NOT_DECIDED = "holds", "does not hold", "not decided by these data"


@dataclass(frozen=True)
class Claim:
    """State what the paper says, where, and how it is tested.

    figure: of the paper, or its section
    test: makes the statistics, of tables; needs: their names in `verdicts`
    """

    id: str
    says: str
    figure: str
    test: Callable[..., pd.DataFrame]
    needs: tuple[str, ...]


CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            "generalization-varies",
            "forgetting often fails to generalise beyond the forgetting set",
            "Fig. 2",
            claim_tests.generalization_varies,
            ("own",),
        ),
        Claim(
            "task-family-split",
            "commonsense and science tasks resist, language understanding is forgotten",
            "Fig. 2, 7",
            claim_tests.task_family_split,
            ("own", "described"),
        ),
        Claim(
            "eval-task-determines",
            "the evaluated task, more than the forgotten one, sets how much is forgotten",
            "Fig. 3",
            claim_tests.eval_task_determines,
            ("cross",),
        ),
        Claim(
            "other-tasks-better",
            "many tasks are forgotten more by another task's labels, most by commonsense ones",
            "Fig. 3",
            claim_tests.other_tasks_better,
            ("cross", "described"),
        ),
        Claim(
            "difficulty-not-predictive",
            "difficulty does not predict forgetting",
            "Fig. 2, 7",
            claim_tests.difficulty_not_predictive,
            ("predictors",),
        ),
        Claim(
            "confidence-and-variance",
            "low confidence and low hidden-state variance predict more forgetting, weakly",
            "Fig. 4",
            claim_tests.confidence_and_variance,
            ("predictors",),
        ),
        Claim(
            "no-example-level-prediction",
            "neither predicts which examples of a task are forgotten",
            "Sec. 5",
            claim_tests.no_example_level_prediction,
            ("examples",),
        ),
        Claim(
            "learn-forget-anticorrelated",
            "what is learned first is forgotten last",
            "Fig. 5",
            claim_tests.learn_forget_anticorrelated,
            ("order",),
        ),
        Claim(
            "probes-recover",
            "a linear probe is about as accurate after forgetting as after fine-tuning",
            "Fig. 6",
            claim_tests.probes_recover,
            ("probes",),
        ),
        Claim(
            "not-sample-size",
            "a smaller forgetting set leaves the pattern intact",
            "Fig. 7",
            claim_tests.not_sample_size,
            ("sizes",),
        ),
        Claim(
            "robust-to-method-and-model",
            "flipped labels and other models show the same pattern over tasks",
            "Fig. 8, 9",
            claim_tests.robust_to_method_and_model,
            ("cross", "flipped", "crosses_of_models"),
        ),
    )
}
COLUMNS = (
    "claim",
    "says",
    "statistic",
    "value",
    "low",
    "high",
    "n",
    "unit",
    "statement",
    "threshold",
    "verdict",
    "paper",
    "figure",
)


def verdict(statement: str, threshold: float, interval: Interval) -> str:
    """Judge by the one rule whether an interval is above, below or within +- a threshold."""
    require_one_of("statement of a claim", statement, (ABOVE, BELOW, WITHIN))
    low, high = interval.low, interval.high
    agrees, disagrees = {
        ABOVE: (low > threshold, high < threshold),
        BELOW: (high < threshold, low > threshold),
        WITHIN: (-threshold < low and high < threshold, low > threshold or high < -threshold),
    }[statement]
    if np.isnan(low) or np.isnan(high):
        return NOT_DECIDED
    return HOLDS if agrees else DOES_NOT_HOLD if disagrees else NOT_DECIDED


def judge(claim: str, **tables: Any) -> pd.DataFrame:
    """Test one claim, by its id in `CLAIMS`, and give the verdicts: one row a statistic.

    tables: those it needs, named and made as in `verdicts`; without one, nothing is decided

    Columns: claim, says, statistic (in words), value, low, high, n and what it counts (unit),
    statement and threshold, verdict, paper (the same statistic of the published numbers, else
    NaN), figure.
    """
    require_one_of("claim", claim, CLAIMS)
    found = CLAIMS[claim]
    for name in tables:
        require_one_of(f"table of the claim {claim}", name, found.needs)
    rows = found.test(**tables)
    verdicts = [
        verdict(r["statement"], r["threshold"], Interval(r["value"], r["low"], r["high"]))
        for r in rows.to_dict("records")
    ]
    rows = rows.assign(claim=claim, says=found.says, verdict=verdicts, figure=found.figure)
    return rows[list(COLUMNS)]


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
    """Judge every claim, one row a statistic; what is not given leaves its claims undecided.

    described: from `tasks.describe`; own: `fig2.table`; sizes: `fig7.table`; cross, flipped and
    crosses_of_models: `crosstask.cross_task`; predictors: `fig4.table`; examples:
    `fig4.examples_table`; order: `fig5.table`; probes: `fig6.recovery_table`

    Columns: those of `judge`.
    """
    given = {
        "described": described,
        "own": own,
        "cross": cross,
        "flipped": flipped,
        "predictors": predictors,
        "examples": examples,
        "order": order,
        "probes": probes,
        "sizes": sizes,
        "crosses_of_models": crosses_of_models,
    }
    found = (judge(c.id, **{n: given[n] for n in c.needs}) for c in CLAIMS.values())
    return pd.concat(found, ignore_index=True)
