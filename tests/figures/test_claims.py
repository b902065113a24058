"""The one rule: each claim on data where it is true, false, or cannot be told."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from claimed import (
    ACCURACIES,
    BY_ROW,
    BY_TASK,
    DESCRIBED,
    FEW,
    OPEN,
    SPLIT,
    TASKS,
    K,
    cross,
    examples,
    order,
    others_better,
    own,
    predictors,
    probes,
    rng,
    sizes,
)

from forgetlib.errors import InputError
from forgetlib.figures import claims, crossanalysis, published, regression
from forgetlib.figures.intervals import Interval
from forgetlib.figures.statements import (
    ABOVE,
    BELOW,
    CANNOT_DECIDE,
    DOES_NOT_HOLD,
    HOLDS,
    UNDECIDED,
    WITHIN,
    Statement,
    verdict,
)

COLUMNS = [
    *("claim", "says", "figure", "statistic", "value", "low", "high", "n", "unit", "statement"),
    *("threshold", "supposed", "power", "needed", "ceiling", "verdict", "why", "paper", "stated"),
    *("axis", "post_hoc"),
]
SHUFFLED = np.array([6, 0, 11, 3, 8, 13, 1, 10, 5, 12, 2, 9, 4, 7, 14])


def many_tasks(rank_correlation):
    """Predictors of 100 made-up tasks, ratio and tuned this much correlated."""
    x, noise = rng().normal(size=(2, 100))
    y = rank_correlation * x + np.sqrt(1 - rank_correlation**2) * noise
    return predictors(y, names=[f"task{i}" for i in range(100)], tuned=x)


# By claim: tables where it is true, where it is false, and where they are too few to tell.
CASES = {
    "generalization-varies": (
        lambda: {"own": own(TASKS, np.full(K, 0.8))},
        lambda: {"own": own(TASKS, np.full(K, 0.5))},
        lambda: {"own": own(FEW, np.full(3, 0.8))},
    ),
    "task-family-split": (
        lambda: {"own": own(TASKS, SPLIT), "described": DESCRIBED},
        lambda: {"own": own(TASKS, 1.25 - SPLIT), "described": DESCRIBED},
        lambda: {"own": own(TASKS[:7], SPLIT[:7]), "described": DESCRIBED},  # none of language
    ),
    "eval-task-determines": (
        lambda: {"cross": cross(BY_ROW)},
        lambda: {"cross": cross(BY_ROW.T)},
        lambda: {"cross": cross(BY_ROW, FEW)},
    ),
    "other-tasks-better": (
        lambda: {"cross": others_better(0.5), "described": DESCRIBED},
        lambda: {"cross": others_better(-0.25), "described": DESCRIBED},
        lambda: {"cross": cross(BY_ROW, FEW), "described": DESCRIBED},
    ),
    "difficulty-not-predictive": (
        lambda: {"predictors": many_tasks(0.0)},
        lambda: {"predictors": predictors(BY_TASK, tuned=-BY_TASK)},
        lambda: {"predictors": predictors(BY_TASK, tuned=BY_TASK[SHUFFLED])},
    ),
    "confidence-and-variance": (
        lambda: {"predictors": predictors(BY_TASK, confidence=-BY_TASK, log_variance=-BY_TASK)},
        lambda: {"predictors": predictors(BY_TASK, confidence=BY_TASK, log_variance=BY_TASK)},
        lambda: {
            "predictors": predictors(
                BY_TASK, confidence=-BY_TASK, log_variance=-BY_TASK, names=TASKS[:4]
            )
        },
    ),
    "no-example-level-prediction": (
        lambda: {"examples": examples(0)},
        lambda: {"examples": examples(1)},
        lambda: {"examples": examples(0, FEW)},
    ),
    "learn-forget-anticorrelated": (
        lambda: {"order": order(-1)},
        lambda: {"order": order(1)},
        lambda: {"order": order(-1, n_examples=15)},
    ),
    "probes-recover": (
        lambda: {"probes": probes(0.8, 0.8)},
        lambda: {"probes": probes(0.8, 0.65)},
        lambda: {"probes": probes(0.8, 0.8, FEW)},
    ),
    "not-sample-size": (
        lambda: {"sizes": sizes(ACCURACIES, ACCURACIES)},
        lambda: {"sizes": sizes(ACCURACIES[::-1], ACCURACIES)},
        lambda: {"sizes": sizes(ACCURACIES, ACCURACIES, TASKS[:4])},
    ),
    "robust-to-method-and-model": (
        lambda: {
            "cross": cross(BY_ROW),
            "flipped": cross(BY_ROW, condition="flipped"),
            "crosses_of_models": [cross(BY_ROW), cross(BY_ROW, model="other")],
        },
        lambda: {
            "cross": cross(BY_ROW),
            "flipped": cross(BY_ROW[::-1], condition="flipped"),
            "crosses_of_models": [cross(BY_ROW), cross(BY_ROW[::-1], model="other")],
        },
        lambda: {
            "cross": cross(BY_ROW, TASKS[:4]),
            "flipped": cross(BY_ROW, TASKS[:4], condition="flipped"),
            "crosses_of_models": [cross(BY_ROW, TASKS[:4])],
        },
    ),
}


def verdicts_on(claim, **given):
    table = claims.verdicts(**given)
    return table[table["claim"] == claim]


@pytest.mark.parametrize("case", range(3), ids=("true", "false", "too few"))
@pytest.mark.parametrize("claim", claims.CLAIMS)
def test_the_verdict_on_a_claim_that_is_true_or_false_or_cannot_be_told(claim, case):
    found = verdicts_on(claim, **CASES[claim][case]())
    expected = ({HOLDS}, {DOES_NOT_HOLD}, OPEN)[case]
    assert set(found["verdict"]) <= expected, found.T
    assert set(found["says"]) == {claims.CLAIMS[claim].says}


def test_without_data_every_claim_is_there_and_none_is_decided():
    table = claims.verdicts()
    assert list(table) == COLUMNS
    assert list(dict.fromkeys(table["claim"])) == list(claims.CLAIMS)
    assert set(table["verdict"]) <= OPEN
    assert table[["value", "low", "high"]].isna().all(axis=None)
    assert (table["n"] == 0).all()


def test_a_claim_on_data_that_are_there_does_not_wait_for_the_others():
    given = CASES["probes-recover"][0]()
    table = claims.verdicts(**given).set_index("claim")
    assert table.loc["probes-recover", "verdict"] == HOLDS
    assert set(table.drop("probes-recover")["verdict"]) <= OPEN
    alone = claims.judge("probes-recover", probes=given["probes"]).set_index("claim")
    together = table.loc[["probes-recover"]].drop(columns="post_hoc")
    pd.testing.assert_frame_equal(alone, together)


def test_a_statement_that_was_made_after_the_study_is_post_hoc():
    given = CASES["probes-recover"][0]()
    stated = claims.verdicts(**given)["stated"]
    day = sorted(set(stated))[-1]
    for computed in (day, "2026-11-20", "2030-01-01"):
        found = claims.verdicts(**given, computed=computed)
        assert (found["post_hoc"] == (stated > computed)).all()
    assert not claims.verdicts(**given)["post_hoc"].any()


def test_empty_tables_are_missing_tables():
    empty = dict.fromkeys(
        ("own", "predictors", "examples", "order", "probes", "sizes"), pd.DataFrame()
    )
    pd.testing.assert_frame_equal(claims.verdicts(**empty), claims.verdicts())


def test_undecided_for_lack_of_spread_is_not_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = claims.verdicts(predictors=predictors(np.full(K, 0.5)))
    assert set(table["verdict"]) <= OPEN


@pytest.mark.parametrize("name", ["own", "order", "probes", "sizes", "predictors", "examples"])
def test_rows_of_several_models_are_refused(name):
    claim = {
        "own": "generalization-varies",
        "order": "learn-forget-anticorrelated",
        "probes": "probes-recover",
        "sizes": "not-sample-size",
        "predictors": "confidence-and-variance",
        "examples": "no-example-level-prediction",
    }[name]
    table = CASES[claim][0]()[name]
    both = pd.concat([table, table.assign(model="other")])
    with pytest.raises(InputError, match=r"expected one row a .*Pass the rows of one model"):
        claims.verdicts(**{name: both})


@pytest.mark.parametrize(
    ("statement", "threshold", "low", "high", "expected"),
    [
        (ABOVE, 0.2, 0.3, 0.5, HOLDS),
        (ABOVE, 0.2, 0.1, 0.5, UNDECIDED),
        (ABOVE, 0.2, 0.0, 0.1, DOES_NOT_HOLD),
        (BELOW, 0.2, 0.3, 0.5, DOES_NOT_HOLD),
        (BELOW, 0.2, 0.1, 0.5, UNDECIDED),
        (BELOW, 0.2, 0.0, 0.1, HOLDS),
        (WITHIN, 0.2, -0.1, 0.1, HOLDS),
        (WITHIN, 0.2, -0.3, 0.1, UNDECIDED),
        (WITHIN, 0.2, -0.3, 0.3, UNDECIDED),
        (WITHIN, 0.2, 0.3, 0.5, DOES_NOT_HOLD),
        (WITHIN, 0.2, -0.5, -0.3, DOES_NOT_HOLD),
        (ABOVE, 0.0, 0.0, 0.5, UNDECIDED),
        (BELOW, 0.0, -0.5, 0.0, UNDECIDED),
    ],
)
def test_the_whole_interval_decides(statement, threshold, low, high, expected):
    interval = Interval((low + high) / 2, low, high)
    assert verdict(Statement(statement, threshold, 0.0), interval, 0.9) == expected


@pytest.mark.parametrize("statement", [ABOVE, BELOW, WITHIN])
@pytest.mark.parametrize("ends", [(np.nan, np.nan), (np.nan, 0.0), (1.0, np.nan)])
def test_without_an_interval_nothing_is_decided(statement, ends):
    stated = Statement(statement, 0.1, 0.0)
    assert verdict(stated, Interval(0.5, *ends), 0.9) == UNDECIDED
    assert verdict(stated, Interval(0.5, *ends), np.nan) == CANNOT_DECIDE


def test_claims_and_figures_say_the_same_of_a_rank_correlation():
    draw = rng()
    models = [cross(draw.random((K, K)), model=name) for name in ("a", "b")]
    table = predictors(BY_TASK, confidence=draw.normal(size=K))
    for claim, of_figure in (
        (
            claims.judge("robust-to-method-and-model", crosses_of_models=models).iloc[1],
            crossanalysis.model_agreement(models).iloc[0],
        ),
        (
            claims.judge("confidence-and-variance", predictors=table).iloc[0],
            regression.correlations(table, ["confidence"], "auroc_lost").iloc[0],
        ),
    ):
        columns = [f"rank_correlation{end}" for end in ("", "_low", "_high")]
        assert claim[["value", "low", "high"]].tolist() == of_figure[columns].tolist()
        assert claim["low"] < claim["value"] < claim["high"]


def test_the_papers_values_follow_from_the_published_accuracies():
    full, small = published.PUBLISHED_FORGET_ACCURACY, published.PUBLISHED_FORGET_ACCURACY_100
    paper = claims.verdicts().set_index("claim")["paper"].dropna()
    assert sorted(paper.index) == ["generalization-varies", "not-sample-size", "task-family-split"]
    large = [task for task, accuracy in full.items() if accuracy > 0.6]
    assert paper["generalization-varies"] == len(large) / len(full)
    resisting = np.mean([full[t] for t in ("piqa", "sciq", "arc_easy", "arc_challenge")])
    forgotten = np.mean([full[t] for t in ("rte", "cb", "wic", "qnli", "wnli")])
    assert paper["task-family-split"] == pytest.approx(resisting - forgotten)
    pairs = np.array([(small[t], full[t]) for t in small])
    expected = scipy.stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic
    assert paper["not-sample-size"] == pytest.approx(expected)


def test_the_papers_values_are_computed_and_not_typed(monkeypatch):
    before = claims.verdicts().set_index("claim")["paper"].dropna()
    monkeypatch.setitem(published.PUBLISHED_FORGET_ACCURACY, "piqa", 0.5)
    after = claims.verdicts().set_index("claim")["paper"].dropna()
    assert after["generalization-varies"] == pytest.approx(0.3)
    assert before["generalization-varies"] == pytest.approx(0.4)
    assert after["task-family-split"] < before["task-family-split"]
    assert after["not-sample-size"] != before["not-sample-size"]


def test_unknown_claims_and_tables_are_refused():
    with pytest.raises(InputError, match="claim: expected one of generalization-varies"):
        claims.judge("forgetting-varies")
    with pytest.raises(InputError, match="table of the claim probes-recover: expected one of"):
        claims.judge("probes-recover", own=own(TASKS, ACCURACIES))


def test_every_claim_names_the_tables_that_its_test_takes():
    for claim in claims.CLAIMS.values():
        assert tuple(inspect.signature(claim.test).parameters) == claim.needs
