"""Rank agreement from data that are apart, and its ceiling, against loops and known truths."""

import numpy as np
import pytest
import scipy.stats
from synthetic import TRAIN, cross, family, moved, with_training

from forgetlib.errors import InputError
from forgetlib.figures import agreement, crosstask, effects
from forgetlib.figures.agreement import APART
from forgetlib.figures.intervals import rank_interval

MANY = [f"t{i}" for i in range(12)]


def test_agreement_is_the_mean_over_pairs_of_different_parts():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 8))
    found = agreement.agreement(a, b)
    pairs = [(p, q) for p in range(3) for q in range(3) if p != q]
    crossed = [scipy.stats.spearmanr(a[p], b[q]).statistic for p, q in pairs]
    own = [scipy.stats.spearmanr(x[p], x[q]).statistic for x in (a, b) for p, q in pairs]
    assert found["rank_correlation"] == pytest.approx(np.mean(crossed))
    assert found["ceiling"] == pytest.approx(np.mean(own))
    assert found["n"] == 8


def test_what_two_conditions_share_in_a_part_is_no_agreement():
    """The same fine-tuned models and questions move both conditions alike."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 200))
    a, b = (shared + 0.1 * rng.normal(size=(3, 200)) for _ in range(2))
    same_parts = [scipy.stats.spearmanr(a[p], b[p]).statistic for p in range(3)]
    assert min(same_parts) > 0.9  # the trap
    assert agreement.agreement(a, b)["rank_correlation"] == pytest.approx(0, abs=0.15)


def test_two_conditions_of_one_pattern_reach_the_ceiling():
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=60)
    a, b = (pattern + 0.7 * rng.normal(size=(4, 60)) for _ in range(2))
    found = agreement.agreement(a, b)
    assert 0.5 < found["ceiling"] < 0.8
    assert found["rank_correlation"] == pytest.approx(found["ceiling"], abs=0.1)


def test_a_correlation_beside_others_is_the_textbook_s_partial_correlation_of_ranks():
    rng = np.random.default_rng(0)
    a, b, known_a, known_b = rng.normal(size=(4, 2, 11))
    expected = []
    for p, q in ((0, 1), (1, 0)):
        every = [a[p], b[q], known_a[p], known_b[q]]
        inverse = np.linalg.inv(scipy.stats.spearmanr(every, axis=1).statistic)
        expected.append(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]))
    found = agreement.agreement_beside(a, b, known_a, known_b)
    assert found.value == pytest.approx(np.mean(expected))
    assert found == rank_interval(found.value, 9)
    for few in (4, 5):
        none = agreement.agreement_beside(*(x[:, :few] for x in (a, b, known_a, known_b)))
        assert np.isnan([none.value, none.low, none.high]).all()
    alone = agreement.agreement_beside(*(x[:1] for x in (a, b, known_a, known_b)))
    assert np.isnan(alone.value)  # of one part no other is apart


def test_what_two_conditions_share_by_another_measure_alone_is_none_beside_it():
    rng = np.random.default_rng(0)
    fixed = np.stack([rng.normal(size=200)] * 2)
    a, b = (fixed + 0.5 * rng.normal(size=(2, 200)) for _ in range(2))
    assert agreement.agreement(a, b)["rank_correlation"] > 0.6
    assert agreement.agreement_beside(a, b, fixed, fixed).value == pytest.approx(0, abs=0.15)
    both = rng.normal(size=200)
    assert agreement.agreement_beside(a + both, b + both, fixed, fixed).value > 0.6


def test_arrays_that_do_not_fit_are_refused():
    for a, b in (
        (np.zeros((2, 3)), np.zeros((2, 4))),
        (np.full((2, 3), np.nan), np.zeros((2, 3))),
        (np.zeros(3), np.zeros(3)),
    ):
        with pytest.raises(InputError, match="rank agreement"):
            agreement.agreement(a, b)


def runs_of(small, full, seeds=(0,), tuned=0.95, rng=None):
    found = []
    for seed in seeds:
        for name, few, many in zip(MANY, small, full, strict=True):
            like = {"seed": seed, "rng": rng} if rng is not None else {"seed": seed}
            found += family(name, 0.6, tuned, many, **like)
            found += family(name, 0.6, tuned, few, size=50, **like)
    return found


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_sizes_that_forget_alike_agree_and_say_where_the_data_are_from(seeds):
    accuracies = np.linspace(0.55, 0.9, 12)
    same = agreement.of_sizes(runs_of(accuracies, accuracies, seeds))
    turned = agreement.of_sizes(runs_of(accuracies[::-1], accuracies, seeds))
    assert same["measure"].tolist() == ["forget accuracy", "accuracy lost"]
    assert (same["rank_correlation"] > 0.95).all() and (same["ceiling"] > 0.95).all()
    assert (turned["rank_correlation"] < -0.95).all() and (turned["ceiling"] > 0.95).all()
    assert set(same["apart"]) == {APART[0] if len(seeds) > 1 else APART[1]}
    assert same[["small", "full", "n"]].iloc[0].tolist() == [50, 200, 12]


def test_one_size_has_no_agreement():
    runs = [r for name in MANY for r in family(name, 0.6, 0.9, 0.7)]
    assert agreement.of_sizes(runs).empty
    assert agreement.of_sizes([]).empty


def test_tasks_with_nothing_to_forget_do_not_agree_either():
    accuracies = np.linspace(0.55, 0.9, 12)
    runs = runs_of(accuracies, accuracies)
    runs += family("unknown", 0.5, 0.5, 0.5) + family("unknown", 0.5, 0.5, 0.5, size=50)
    assert set(agreement.of_sizes(runs)["n"]) == {12}
    none = agreement.of_sizes(runs[-6:])
    assert set(none["n"]) == {0} and set(none["apart"]) == {""}
    assert none[["rank_correlation", "ceiling"]].isna().all(axis=None)


def test_the_effect_of_labels_is_what_they_cost_beyond_true_ones():
    rng = np.random.default_rng(0)
    forgotten, again = rng.uniform(0.5, 0.7, (3, 3)), rng.uniform(0.7, 0.9, (3, 3))
    for seeds in ((0,), (0, 1)):
        runs = cross("abc", np.full(3, 0.9), forgotten, again=again, seeds=seeds, n=1000)
        found = effects.beyond_true_labels(crosstask.cross_task(runs, n_resamples=50))
        # Where all are equally sure, AUROC is the accuracy but for pairs of a question with itself.
        assert found.values == pytest.approx(again - forgotten, abs=0.005)
        assert found.of_seeds.shape == (len(seeds), 3, 3)
        assert found.replicates.shape == (50, 3, 3)
        assert found.measure == effects.AUROC_BEYOND
        if len(seeds) == 1:
            assert found.replicates.mean(0) == pytest.approx(found.values, abs=0.02)


def test_without_a_control_of_every_pair_there_is_no_effect_of_labels():
    runs = cross("abc", np.full(3, 0.9), np.full((3, 3), 0.6), again=0.8)
    partly = [
        r
        for r in runs
        if not (r.checkpoint.start and r.checkpoint.kind == "true" and r.checkpoint.task == "a")
    ]
    for some in (partly, cross("abc", np.full(3, 0.9), np.full((3, 3), 0.6))):
        found = crosstask.cross_task(some, n_resamples=50)
        assert not found.has_control
        with pytest.raises(InputError, match="cross_control=True"):
            effects.beyond_true_labels(found)
        table = crosstask.cross_table(found)
        assert table["auroc_beyond_true_labels"].isna().all()
    whole = crosstask.cross_table(crosstask.cross_task(runs, n_resamples=50))
    assert whole["accuracy_beyond_true_labels"].to_numpy() == pytest.approx(0.2)


def test_a_control_that_was_trained_otherwise_is_refused():

    runs = cross("ab", np.full(2, 0.9), np.full((2, 2), 0.6), again=0.8)
    other = [
        r
        if r.checkpoint.kind != "true" or not r.checkpoint.start
        else _with_checkpoint(r, with_training(r.checkpoint, learning_rate=TRAIN.learning_rate / 2))
        for r in runs
    ]
    with pytest.raises(InputError, match="the same training, but for the labels"):
        crosstask.cross_task(other, n_resamples=50)


def _with_checkpoint(result, checkpoint):

    return moved(result, checkpoint)
