"""The paper's claims, on tables where they are true, false, and where the data are too few."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from statsmodels.stats.proportion import proportion_confint

from forgetlib.data import tasks
from forgetlib.errors import InputError
from forgetlib.figures import (
    claims,
    crossanalysis,
    crossclaims,
    crosstask,
    fig2,
    fig3,
    fig5,
    fig6,
    mixedmodel,
    published,
    rankcorrelation,
    verdicts,
)
from forgetlib.figures.intervals import Interval
from forgetlib.figures.verdicts import ABOVE, BELOW, DOES_NOT_HOLD, HOLDS, NOT_DECIDED, WITHIN
from tests.synthetic import cross as cross_runs
from tests.synthetic import family, passing, probe_with

COMMONSENSE = ("piqa", "hellaswag", "winogrande", "openbookqa")
SCIENCE = ("arc_easy", "arc_challenge", "sciq")
LANGUAGE = ("rte", "mrpc", "sst2", "cb")
TASKS = (*COMMONSENSE, *SCIENCE, *LANGUAGE, "logical_reasoning", "boolq", "medmcqa")
K = len(TASKS)
DESCRIBED = tasks.describe(TASKS)
FEW = TASKS[:3]
COLUMNS = [
    *("claim", "says", "statistic", "value", "low", "high", "n", "unit", "statement"),
    *("threshold", "verdict", "paper", "figure"),
]


def rng():
    return np.random.default_rng(0)


# --- tables --------------------------------------------------------------------------------------


def own(names, forgotten, tuned=0.9, n=200):
    """Own-task forgetting of each task, with these accuracies."""
    tuned = np.broadcast_to(tuned, len(names))
    runs = [
        r
        for t, a, b in zip(names, tuned, forgotten, strict=True)
        for r in family(t, 0.5, a, b, n=n)
    ]
    return fig2.table(runs, n_resamples=200)


def cross(
    ratios, names=TASKS, *, condition="random", model="tiny", start="pairwise", noisy=True, n=400
):
    """Cross-task forgetting with these ratios (K, K), after a fine-tuned accuracy of 0.9."""
    return of_seeds([ratios], names, condition, model, start, noisy, n)


def of_seeds(
    each, names=TASKS, condition="random", model="tiny", start="pairwise", noisy=True, n=400
):
    """The same of several seeds, each with its own ratios."""
    k = len(names)
    height = 0.4 if condition == "random" else 0.8
    draw = rng() if noisy else None
    runs = []
    for seed, ratios in enumerate(each):
        forgotten = 0.9 - height * np.asarray(ratios)[:k, :k]
        like = {"condition": condition, "model": model, "start": start, "n": n, "rng": draw}
        runs += cross_runs(names, np.full(k, 0.9), forgotten, seeds=(seed,), **like)
    return crosstask.cross_task(runs, condition, n_resamples=200)


BY_TASK = np.linspace(0.1, 0.9, K)
BY_ROW = np.repeat(BY_TASK[:, None], K, axis=1)
SHUFFLED = np.array([6, 0, 11, 3, 8, 13, 1, 10, 5, 12, 2, 9, 4, 7])
IS_COMMONSENSE = np.isin(TASKS, COMMONSENSE)


def others_better(strength, n_seeds=3):
    """Commonsense labels add `strength` to what other tasks forget.

    A task's own labels do less than all others where the strength is positive, else more.
    """
    ratios = 0.3 + strength * IS_COMMONSENSE + 0.01 * np.arange(K) + np.zeros((K, K))
    ratios[np.diag_indices(K)] = 0.05 if strength > 0 else 0.9
    return of_seeds([ratios] * n_seeds, n=200)


def predictors(ratio, *, names=TASKS, **columns):
    """fig4.table; predictors that are not given are unrelated to the ratio."""
    n = len(names)
    unrelated = dict(
        zip(("tuned", "confidence", "log_variance"), rng().random((3, n)), strict=True)
    )
    rows = pd.DataFrame({"model": "tiny", "eval_task": names, "forget_ratio": ratio[:n]})
    return rows.assign(**{c: np.asarray(columns.get(c, v))[:n] for c, v in unrelated.items()})


def many_tasks(rank_correlation):
    """Predictors of 100 made-up tasks, ratio and tuned this much correlated."""
    x, noise = rng().normal(size=(2, 100))
    y = rank_correlation * x + np.sqrt(1 - rank_correlation**2) * noise
    return predictors(y, names=[f"task{i}" for i in range(100)], tuned=x)


def examples(slope, names=TASKS, n=300):
    """fig4.examples_table; `slope` of both predictors on the logit of being forgotten.

    slope: one number, or one a task
    """
    parts = []
    draw = rng()
    for name, own_slope in zip(names, np.broadcast_to(slope, len(names)), strict=True):
        x = draw.normal(size=(2, n))
        lost = draw.random(n) < 1 / (1 + np.exp(-own_slope * x.sum(0)))
        parts.append(
            pd.DataFrame(
                {
                    "model": "tiny",
                    "eval_task": name,
                    "seed": 0,
                    "uid": [f"{name}/test/{i}" for i in range(n)],
                    "confidence": x[0],
                    "log_deviation": x[1],
                    "tuned_correct": True,
                    "forgotten_correct": ~lost,
                    "forgotten_confidence": 0.5,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def order(sign, names=TASKS, n_examples=60):
    """Steps of learning and of forgetting that go together (+1), oppositely (-1), or not (0)."""
    runs = []
    draw = rng()
    for name in names:
        learned = 1 + np.arange(n_examples) % 20
        forgotten = {1: learned, -1: 21 - learned, 0: draw.permutation(learned)}[sign]
        forgotten = np.where(draw.random(n_examples) < 0.2, draw.permutation(learned), forgotten)
        both = (passing(name, learned, 25), passing(name, forgotten, 25, upward=False))
        runs += family(name, 0.6, 0.9, 0.6, n=n_examples, dynamics=both)
    return fig5.table(runs, n_resamples=100)


def probes(fine_tuned, forgotten, names=TASKS):
    runs = []
    draw = rng()
    for name in names:
        found = [probe_with(a, rng=draw) for a in (0.6, fine_tuned, forgotten)]
        runs += family(name, 0.6, 0.9, 0.6, probes=found)
    return fig6.recovery_table(runs, n_resamples=100)


def sizes(small, full, names=TASKS, size=50, tuned=0.95):
    runs = []
    tuned = np.broadcast_to(tuned, len(names))
    for name, few, many, before in zip(names, small, full, tuned, strict=False):
        runs += family(name, 0.6, before, many) + family(name, 0.6, before, few, size=size)
    return fig2.table(runs, n_resamples=100)


ACCURACIES = np.linspace(0.5, 0.9, K)
SPLIT = np.where(np.isin(TASKS, LANGUAGE), 0.5, 0.75) + 0.01 * np.arange(K)

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
@pytest.mark.parametrize("claim", verdicts.CLAIMS)
def test_the_verdict_on_a_claim_that_is_true_or_false_or_cannot_be_told(claim, case):
    found = verdicts_on(claim, **CASES[claim][case]())
    assert set(found["verdict"]) == {(HOLDS, DOES_NOT_HOLD, NOT_DECIDED)[case]}, found.T
    assert set(found["says"]) == {verdicts.CLAIMS[claim].says}


# --- the table of verdicts -----------------------------------------------------------------------


def test_without_data_every_claim_is_there_and_none_is_decided():
    table = claims.verdicts()
    assert list(table) == COLUMNS
    assert list(dict.fromkeys(table["claim"])) == list(verdicts.CLAIMS)
    assert set(table["verdict"]) == {NOT_DECIDED}
    assert table[["value", "low", "high"]].isna().all(axis=None)
    assert (table["n"] == 0).all()


def test_a_claim_on_data_that_are_there_does_not_wait_for_the_others():
    given = CASES["probes-recover"][0]()
    table = claims.verdicts(**given).set_index("claim")
    assert table.loc["probes-recover", "verdict"] == HOLDS
    assert set(table.drop("probes-recover")["verdict"]) == {NOT_DECIDED}
    alone = claims.probes_recover(given["probes"]).set_index("claim")
    pd.testing.assert_frame_equal(alone, table.loc[["probes-recover"]])


def test_empty_tables_are_missing_tables():
    empty = dict.fromkeys(
        ("own", "predictors", "examples", "order", "probes", "sizes"), pd.DataFrame()
    )
    pd.testing.assert_frame_equal(claims.verdicts(**empty), claims.verdicts())


def test_undecided_for_lack_of_spread_is_not_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = claims.verdicts(predictors=predictors(np.full(K, 0.5)))
    assert set(table["verdict"]) == {NOT_DECIDED}


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


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "threshold", "low", "high", "expected"),
    [
        (ABOVE, 0.2, 0.3, 0.5, HOLDS),
        (ABOVE, 0.2, 0.1, 0.5, NOT_DECIDED),
        (ABOVE, 0.2, 0.0, 0.1, DOES_NOT_HOLD),
        (BELOW, 0.2, 0.3, 0.5, DOES_NOT_HOLD),
        (BELOW, 0.2, 0.1, 0.5, NOT_DECIDED),
        (BELOW, 0.2, 0.0, 0.1, HOLDS),
        (WITHIN, 0.2, -0.1, 0.1, HOLDS),
        (WITHIN, 0.2, -0.3, 0.1, NOT_DECIDED),
        (WITHIN, 0.2, -0.3, 0.3, NOT_DECIDED),
        (WITHIN, 0.2, 0.3, 0.5, DOES_NOT_HOLD),
        (WITHIN, 0.2, -0.5, -0.3, DOES_NOT_HOLD),
        (ABOVE, 0.0, 0.0, 0.5, NOT_DECIDED),
        (BELOW, 0.0, -0.5, 0.0, NOT_DECIDED),
    ],
)
def test_the_whole_interval_decides(statement, threshold, low, high, expected):
    interval = Interval((low + high) / 2, low, high)
    assert verdicts.verdict(statement, threshold, interval) == expected


@pytest.mark.parametrize("statement", [ABOVE, BELOW, WITHIN])
@pytest.mark.parametrize("ends", [(np.nan, np.nan), (np.nan, 0.0), (1.0, np.nan)])
def test_without_an_interval_nothing_is_decided(statement, ends):
    assert verdicts.verdict(statement, 0.1, Interval(0.5, *ends)) == NOT_DECIDED


# --- intervals over tasks ------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_scipys():
    values = rng().normal(size=9)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    found = verdicts.mean_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), *expected))


def test_the_interval_of_a_difference_is_scipys_with_unequal_variances():
    first, second = rng().normal(size=7), 3 * rng().normal(size=4) + 1
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    found = verdicts.difference_interval(first, second)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.value == pytest.approx(first.mean() - second.mean())


def test_the_interval_of_a_share_of_certain_values_is_statsmodels():
    values = np.array([0.1, 0.3, 0.4, 0.0, 0.2, 0.9, 0.25])
    found = verdicts.share_interval(values, values, values, 0.25)
    assert found.value == pytest.approx(3 / 7)
    assert (found.low, found.high) == pytest.approx(proportion_confint(3, 7, method="beta"))


@pytest.mark.parametrize(("value", "share", "known"), [(0.12, 1, HOLDS), (0.08, 0, DOES_NOT_HOLD)])
def test_tasks_that_sampling_may_have_put_on_either_side_decide_nothing(value, share, known):
    values = np.full(20, value)
    certain = verdicts.share_interval(values, values - 0.01, values + 0.01, 0.1)
    uncertain = verdicts.share_interval(values, values - 0.1, values + 0.1, 0.1)
    assert verdicts.verdict(ABOVE, 0.25, certain) == known  # positive control
    assert verdicts.verdict(ABOVE, 0.25, uncertain) == NOT_DECIDED
    assert (uncertain.value, uncertain.low, uncertain.high) == (share, 0, 1)


def test_tasks_that_are_all_alike_do_not_show_how_much_tasks_differ():
    alike, others = np.full(2, 0.2), np.full(2, 0.1)
    for found in (
        verdicts.difference_interval(alike, others),
        verdicts.mean_interval(np.full(7, 0.1)),
        verdicts.relative_interval(np.full(5, -0.1), np.full(5, 0.3)),
    ):
        assert np.isfinite(found.value)
        assert verdicts.verdict(ABOVE, -9, found) == NOT_DECIDED


def test_the_relative_interval_covers_the_truth_as_often_as_it_says():
    draw, covered = rng(), []
    for _ in range(400):
        heights = draw.uniform(0.1, 0.4, 8)
        changes = -0.2 * heights + 0.05 * draw.normal(size=8)
        found = verdicts.relative_interval(changes, heights)
        covered.append(found.low <= -0.2 <= found.high)
        assert found.value == pytest.approx(changes.mean() / heights.mean())
    assert 0.9 < np.mean(covered) < 0.98


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_fewer_than_four_tasks_have_no_interval(n):
    values = np.arange(n, dtype=float)
    for found in (
        verdicts.mean_interval(values),
        verdicts.relative_interval(values, values + 1),
        verdicts.difference_interval(values[:2], values[2:]),
        verdicts.share_interval(values, values, values, 0.5),
    ):
        assert np.isnan([found.low, found.high]).all()


# --- what each claim counts ----------------------------------------------------------------------


def test_tasks_with_nothing_to_forget_are_left_out():
    forgotten = [0.8] * 6 + [0.5] * (K - 6)
    with_chance = own(TASKS, forgotten, tuned=[0.9] * 6 + [0.5] * (K - 6))
    for found in claims.generalization_varies(with_chance).to_dict("records"):
        assert (found["value"], found["n"]) == (1, 6)
    for split in claims.task_family_split(with_chance, DESCRIBED).to_dict("records"):
        assert split["n"] == 6 and split["verdict"] == NOT_DECIDED


def test_little_learning_is_not_called_forgetting():
    """Nothing was forgotten of the little that was learned: a small gap, and a ratio of 0."""
    table = own(TASKS, np.full(K, 0.57), tuned=0.57, n=1500)
    by_gap, by_ratio = claims.generalization_varies(table)["verdict"]
    assert (by_gap, by_ratio) == (DOES_NOT_HOLD, HOLDS)


def test_a_family_that_learned_little_is_not_called_forgotten():
    """Commonsense and science keep more of less."""
    of_language = np.isin(TASKS, LANGUAGE)
    jitter = 0.005 * np.arange(K)
    tuned = np.where(of_language, 0.9, 0.67)
    table = own(TASKS, np.where(of_language, 0.75, 0.64) + jitter / 5, tuned=tuned + jitter / 5)
    by_gap, by_ratio = claims.task_family_split(table, DESCRIBED).to_dict("records")
    assert by_gap["verdict"] == DOES_NOT_HOLD
    assert by_ratio["verdict"] == HOLDS
    assert by_ratio["value"] == pytest.approx(0.15 / 0.4 - 0.03 / 0.17, abs=0.03)


def test_the_family_split_is_that_of_the_families_means():
    table = own(TASKS, SPLIT)
    found = claims.task_family_split(table, DESCRIBED).to_dict("records")
    for row, measure, sign in zip(found, ("forget_gap", "forget_ratio"), (1, -1), strict=True):
        of = dict(zip(table["eval_task"], table[measure], strict=True))
        mean = [np.mean([of[t] for t in names]) for names in ((*COMMONSENSE, *SCIENCE), LANGUAGE)]
        assert row["value"] == pytest.approx(sign * (mean[0] - mean[1]))
        assert row["n"] == K - 3  # reasoning, reading and knowledge are on neither side


@pytest.mark.parametrize("described", [None, tasks.describe(tasks.suite("tiny"))])
def test_without_families_what_is_about_families_is_not_decided(described):
    found = claims.verdicts(own=own(TASKS, SPLIT), cross=others_better(0.5), described=described)
    by_statistic = found[found["statistic"].str.contains("commonsense")]
    assert len(by_statistic) == 3
    assert set(by_statistic["verdict"]) == {NOT_DECIDED}
    assert (by_statistic["n"] == 0).all()


def test_labels_that_are_all_alike_are_not_called_better_than_a_tasks_own():
    """The best of thirteen equal ones looks better, and half of the tasks are above 0 by chance."""
    alike = of_seeds([np.full((K, K), 0.5)] * 2, n=200)
    assert crossclaims.other_tasks_better(alike, DESCRIBED).iloc[0]["verdict"] == NOT_DECIDED


def test_runs_that_differ_by_chance_are_not_called_better_labels():
    """In 13 of 14 rows, one of the other runs really is better than the own one."""
    draw = rng()
    each = [0.5 + 0.25 * draw.normal(size=(K, K)) for _ in range(3)]
    one = of_seeds(each[:1], n=1000)
    difference = crossanalysis.own_against_others(one)
    assert (difference["difference_low"] > 0).sum() > K / 2  # the trap
    for found in (one, of_seeds(each, n=1000)):
        row = crossclaims.other_tasks_better(found, DESCRIBED).iloc[0]
        assert row["n"] == K
        assert row["verdict"] == NOT_DECIDED


def test_one_seed_does_not_decide_whose_labels_are_better():
    one, three = (
        crossclaims.other_tasks_better(others_better(0.5, n), DESCRIBED).iloc[0] for n in (1, 3)
    )
    assert (one["value"], one["verdict"]) == (1, NOT_DECIDED)
    assert np.isnan(one["low"])
    assert (three["value"], three["verdict"]) == (1, HOLDS)


def test_a_resisting_task_is_not_taken_for_a_strong_trigger():
    """Columns leave their own row out: their plain means depend on the evaluated tasks."""
    resists = np.where(IS_COMMONSENSE, 0.1, 0.9)
    ratios = np.repeat(resists[:, None], K, axis=1)
    exact = cross(ratios, noisy=False)
    off_diagonal = np.where(np.eye(K, dtype=bool), np.nan, exact.forget_ratio)
    plain = np.nanmean(off_diagonal, axis=0)
    is_commonsense = np.isin(exact.tasks, COMMONSENSE)
    assert plain[is_commonsense].mean() - plain[~is_commonsense].mean() > 0.05  # the trap
    assert crossclaims.trigger_strength(exact)["strength"].to_numpy() == pytest.approx(0, abs=1e-9)


def test_the_strength_of_a_trigger_is_statsmodels_column_effect():
    found = cross(rng().random((K, K)))
    table = fig3.table(found)
    table = table[table["eval_task"] != table["forget_task"]]
    fit = smf.ols("forget_ratio ~ C(eval_task) + C(forget_task, Sum)", table).fit()
    effects = fit.params[fit.params.index.str.contains("forget_task")].to_numpy()
    strength = crossclaims.trigger_strength(found)
    assert list(strength["eval_task"]) == sorted(TASKS)
    expected = [*effects, -effects.sum()]
    assert strength["strength"].to_numpy() == pytest.approx(expected)


@pytest.mark.parametrize(("n_tasks", "expected"), [(3, NOT_DECIDED), (4, HOLDS)])
def test_three_evaluated_tasks_do_not_stand_for_all(n_tasks, expected):
    spread = np.repeat(np.array([0.1, 0.9, 0.5, 0.3])[:, None], 4, axis=1)
    found = crossclaims.eval_task_determines(cross(spread, TASKS[:n_tasks])).iloc[0]
    assert found["value"] > 0.8
    assert (found["verdict"], found["n"]) == (expected, n_tasks)


def test_the_evaluated_task_is_not_said_to_determine_what_it_does_not():
    """More than the forgotten task, but not most; and cells without any effect."""
    draw = rng()
    for by_row in (0.0, 0.5):
        ratios = by_row * draw.normal(size=(K, 1)) + draw.normal(size=(K, K))
        found = crossclaims.eval_task_determines(cross(0.5 + 0.15 * ratios, n=1000)).iloc[0]
        assert found["verdict"] != HOLDS
        assert found["value"] < 0.5


def test_the_strength_of_a_trigger_needs_three_tasks():
    assert crossclaims.trigger_strength(cross(BY_ROW, TASKS[:2]))["strength"].isna().all()
    assert crossclaims.trigger_strength(cross(BY_ROW, FEW))["strength"].notna().all()


def test_correlations_are_scipys_over_tasks():
    ratio, confidence = rng().normal(size=(2, K))
    found = claims.confidence_and_variance(predictors(ratio, confidence=confidence)).iloc[0]
    assert found["value"] == pytest.approx(scipy.stats.spearmanr(ratio, confidence).statistic)
    assert found["n"] == K


def test_a_row_a_seed_is_refused():
    table = predictors(BY_TASK)
    with pytest.raises(InputError, match="one row a eval_task"):
        claims.difficulty_not_predictive(pd.concat([table.assign(seed=s) for s in (0, 1)]))


def test_undefined_ratios_are_not_counted():
    table = predictors(np.where(np.arange(K) < 3, np.nan, BY_TASK), tuned=BY_TASK)
    assert claims.difficulty_not_predictive(table).iloc[0]["n"] == K - 3


def test_single_examples_are_not_decided_in_fewer_than_four_tasks():
    enough = claims.no_example_level_prediction(examples(0, TASKS[:4], n=1000))
    few = claims.no_example_level_prediction(examples(0, FEW, n=1000))
    assert set(enough["verdict"]) == {HOLDS}
    assert set(few["verdict"]) == {NOT_DECIDED}
    assert list(enough["n"]) == [4000, 4, 4000, 4]
    tiny = claims.no_example_level_prediction(examples(0, n=8))
    assert not set(tiny["verdict"]) & {DOES_NOT_HOLD}
    assert set(tiny["verdict"].iloc[::2]) == {NOT_DECIDED}


def test_opposite_effects_in_two_halves_of_the_tasks_do_not_cancel():
    found = claims.no_example_level_prediction(examples(np.resize([0.8, -0.8], K)))
    pooled, squares = found.iloc[::2], found.iloc[1::2]
    assert set(pooled["verdict"]) == {HOLDS}  # the trap
    assert set(squares["verdict"]) == {DOES_NOT_HOLD}


def test_the_mean_square_of_effects_is_not_that_of_sampling_error():
    """0 where no task has an effect, though every estimate's square is above 0."""
    table = examples(0, names=[f"task{i}" for i in range(200)], n=60)
    found = claims.no_example_level_prediction(table).iloc[1]
    effects = mixedmodel.example_level(table).query("predictor == 'confidence'")["rank_biserial"]
    error = (found["high"] - found["value"]) / 2
    assert (effects**2).mean() > 5 * error  # the trap
    assert found["value"] == pytest.approx(0, abs=3 * error)


def test_a_perfect_prediction_of_few_losses_is_seen():
    """5 % lost: Spearman's rank correlation would be 0.38 at most, and 0.09 for an AUC of 0.62."""
    table = examples(0, n=1000)
    lost = table["uid"].str.split("/").str[-1].astype(int) < 50
    noise = rng().normal(size=len(table))
    shifted = noise + np.sqrt(2) * scipy.stats.norm.ppf(0.62) * lost  # an AUC of 0.62
    table = table.assign(forgotten_correct=~lost, confidence=shifted)
    spearman = scipy.stats.spearmanr(shifted, lost).statistic
    assert spearman < 0.1  # the trap
    pooled = claims.no_example_level_prediction(table).iloc[0]
    assert pooled["value"] == pytest.approx(0.24, abs=0.03)
    assert pooled["verdict"] != HOLDS


def test_the_sign_of_the_order_is_learned_first_forgotten_last():
    opposite, same = (claims.learn_forget_anticorrelated(order(s)).iloc[0] for s in (-1, 1))
    assert opposite["value"] < -0.5 < 0.5 < same["value"]
    table = order(-1)
    assert opposite["value"] == pytest.approx(table["rank_correlation"].mean())


def test_unrelated_orders_are_not_called_anticorrelated():
    assert claims.learn_forget_anticorrelated(order(0)).iloc[0]["verdict"] == NOT_DECIDED


def test_tasks_with_too_few_examples_have_no_say_in_the_order():
    table = order(-1)
    table.loc[:2, "enough"] = False
    assert claims.learn_forget_anticorrelated(table).iloc[0]["n"] == K - 3


def test_a_probe_at_chance_has_nothing_to_recover():
    found = claims.probes_recover(probes(0.5, 0.5)).iloc[0]
    assert found["verdict"] == NOT_DECIDED
    assert found["n"] < 4


def test_a_weak_probe_that_loses_all_it_had_has_not_recovered():
    """4 points of 4 are lost, as 4 of 40 are."""
    jitter = 0.002 * np.arange(K)
    table = pd.DataFrame({"eval_task": TASKS, "difference": -0.04 - jitter / 2})
    for height, expected in ((0.04, DOES_NOT_HOLD), (0.4, HOLDS)):
        fine_tuned = 0.5 + height + jitter
        given = table.assign(fine_tuned=fine_tuned, fine_tuned_low=fine_tuned - 0.01)
        assert claims.probes_recover(given).iloc[0]["verdict"] == expected


def test_a_small_set_that_leaves_all_in_place_does_not_have_the_pattern_of_forgetting():
    """Accuracies keep their order where nothing at all is forgotten."""
    tuned = np.linspace(0.65, 0.95, K)
    table = sizes(tuned, 0.5 + 0.2 * (tuned - 0.5), tuned=tuned)
    by_accuracy, by_ratio = claims.not_sample_size(table).to_dict("records")
    assert by_accuracy["verdict"] == HOLDS
    assert by_accuracy["paper"] > 0 and np.isnan(by_ratio["paper"])
    assert (by_ratio["verdict"], by_ratio["n"]) == (NOT_DECIDED, K)
    assert np.isnan(by_ratio["value"])


def test_sizes_compare_the_smallest_with_the_full_one():
    middle = sizes(ACCURACIES[::-1], ACCURACIES, size=100)  # would say the opposite
    table = pd.concat([sizes(ACCURACIES, ACCURACIES), middle[middle["size"] == 100]])
    found = claims.not_sample_size(table).iloc[0]
    assert found["verdict"] == HOLDS
    assert found["statistic"].endswith("with 50 and 200 examples")
    assert found["value"] == pytest.approx(1)


def test_tasks_that_are_smaller_than_both_sizes_are_not_evidence():
    table = sizes(ACCURACIES, ACCURACIES)
    table.loc[table["eval_task"].isin(FEW), "n_train"] = 40
    assert claims.not_sample_size(table)["n"].tolist() == [K - 3, K - 3]


def test_one_size_has_nothing_to_compare_with():
    found = claims.not_sample_size(own(TASKS, ACCURACIES)).iloc[0]
    assert (found["verdict"], found["n"]) == (NOT_DECIDED, 0)


def test_every_pair_of_models_has_its_row():
    models = [cross(BY_ROW, model=name) for name in "abc"]
    found = claims.robust_to_method_and_model(None, None, models)
    assert len(found) == 1 + 3  # flipped labels are missing
    assert list(found["verdict"]) == [NOT_DECIDED, HOLDS, HOLDS, HOLDS]
    means = [c.forget_ratio.mean(1) for c in models]
    assert found["value"].iloc[1] == pytest.approx(scipy.stats.spearmanr(*means[:2]).statistic)


@pytest.mark.parametrize(
    "given",
    [
        lambda a, b: (None, None, [a, a]),
        lambda a, b: (a, cross(BY_ROW, FEW, condition="flipped", model="other"), []),
        lambda a, b: (a, cross(BY_ROW, FEW, condition="flipped", start="shared"), []),
        lambda a, b: (None, None, [a, cross(BY_ROW, FEW, model="other", start="shared")]),
        lambda a, b: (b, a, []),
        lambda a, b: (None, None, [a, b]),
    ],
    ids=["repeated", "model", "start", "start of models", "swapped", "conditions"],
)
def test_matrices_that_differ_in_more_than_they_should_are_refused(given):
    pair = cross(BY_ROW, FEW), cross(BY_ROW, FEW, condition="flipped")
    with pytest.raises(InputError):
        claims.robust_to_method_and_model(*given(*pair))
    assert len(claims.robust_to_method_and_model(*pair)) == 2  # positive control


def test_claims_and_figures_say_the_same_of_a_rank_correlation():
    draw = rng()
    models = [cross(draw.random((K, K)), model=name) for name in ("a", "b")]
    table = predictors(BY_TASK, confidence=draw.normal(size=K))
    for claim, of_figure in (
        (
            claims.robust_to_method_and_model(None, None, models).iloc[1],
            crossanalysis.model_agreement(models).iloc[0],
        ),
        (
            claims.confidence_and_variance(table).iloc[0],
            rankcorrelation.correlations(table).iloc[0],
        ),
    ):
        columns = [f"rank_correlation{end}" for end in ("", "_low", "_high")]
        assert claim[["value", "low", "high"]].tolist() == of_figure[columns].tolist()
        assert claim["low"] < claim["value"] < claim["high"]


# --- the paper's numbers -------------------------------------------------------------------------


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


def test_published_tasks_have_families():
    table = published.published().set_index("eval_task")
    assert set(published.PUBLISHED_FORGET_ACCURACY_100) <= set(table.index)
    assert (table.loc[["rte", "cb", "wic", "qnli", "wnli"], "family"] == tasks.LANGUAGE).all()
    assert table.loc["boolq", "family"] == tasks.READING


def test_a_task_of_the_hub_stands_beside_the_paper_s_of_the_same_name():
    beside = published.beside_published(own(("piqa_hub", "mrpc_hub"), [0.8, 0.6]))
    assert beside.set_index("eval_task").loc["piqa_hub", "paper"] == 0.69


def test_measured_accuracies_stand_beside_the_published_ones():
    beside = published.beside_published(own(("piqa", "mrpc"), [0.8, 0.6])).set_index("eval_task")
    assert beside.loc["piqa", "paper"] == 0.69
    assert np.isnan(beside.loc["mrpc", "paper"])
    assert beside.loc["piqa", "forgotten"] == 0.8


def test_two_sizes_of_a_task_are_not_two_tasks_beside_the_paper():
    with pytest.raises(InputError, match="one row a eval_task"):
        published.beside_published(sizes(ACCURACIES, ACCURACIES))
