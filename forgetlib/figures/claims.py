"""The paper's claims, and what these data say of each.

A claim becomes one or more statistics (`claim_tests`), each with a 95 % interval and a statement
about it, made before a study is computed. `statements` has the one rule that judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from forgetlib.errors import require_one_of
from forgetlib.figures import claim_tests
from forgetlib.figures.crosstask import CrossTask
from forgetlib.runs.records import Result


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


def judge(claim: str, **tables: Any) -> pd.DataFrame:
    """Test one claim, by its id in `CLAIMS`, and give the verdicts: one row a statistic.

    tables: those it needs, named and made as in `verdicts`; without one, nothing is decided

    Columns: claim, says, figure, then those of `statements.row`.
    """
    require_one_of("claim", claim, CLAIMS)
    found = CLAIMS[claim]
    for name in tables:
        require_one_of(f"table of the claim {claim}", name, found.needs)
    rows = found.test(**tables)
    first = {"claim": claim, "says": found.says, "figure": found.figure}
    return pd.DataFrame(first, index=rows.index).join(rows)


def first_day(results: Iterable[Result]) -> str:
    """Find the day on which the first of these was computed: year-month-day; "" if none says."""
    days = [str(p["date"])[:10] for r in results for p in r.provenances if p.get("date")]
    return min(days, default="")


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
    computed: str = "",
) -> pd.DataFrame:
    """Judge every claim, one row a statistic; what is not given leaves its claims undecided.

    described: from `tasks.describe`; own: `fig2.table`; sizes: `agreement.of_sizes`; cross, flipped
    and crosses_of_models: `crosstask.cross_task`; predictors: `fig4.table`; examples:
    `fig4_examples.table`; order: `fig5.table`; probes: `fig6.recovery_table`
    computed: the day on which the study's first result was computed (`first_day`)

    Columns: those of `judge`, then post_hoc: whether the statement was made after that day.
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
    every = pd.concat(found, ignore_index=True)
    return every.assign(post_hoc=every["stated"] > computed if computed else False)
