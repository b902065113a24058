"""Predictors, the order of learning and probes against loops and SciPy."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from synthetic import dynamics_of, family, passing, probe_with

from forgetlib import metrics
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.figures import fig1, fig2, fig4, fig5, fig6


def test_question_confidences_has_every_question_of_both_data_sets_in_all_phases():
    results = family("t", 0.6, 0.9, 0.7, n=50)
    results += family("u", 0.5, 0.8, 0.5, n=50, seed=1)
    table = fig1.table(results)
    assert len(table) == 2 * 2 * 50
    for result, phase in zip(results[:3], ("base", "tuned", "forgotten"), strict=True):
        for split in ("train", "test"):
            scores = result.scores[f"t/{split}"]
            rows = table[(table["eval_task"] == "t") & (table["split"] == split)].set_index("uid")
            for uid, found in zip(scores.uids, metrics.confidence(scores), strict=True):
                assert rows.loc[uid, phase] == found
    assert set(table.loc[table["eval_task"] == "u", "seed"]) == {1}
    assert fig1.table([]).empty


def test_commonest_answers_are_counted_over_the_texts_and_not_over_the_places():
    results = family("t", 0.5, 1.0, 0.5, n=40) + family("free", 0.5, 1.0, 0.5, n=40, seed=1)

    def load(task, part, n, seed):
        """Every other question lists "yes" first; of "free", each has answers of its own."""
        uids = results[0 if task == "t" else 3].scores[f"{task}/{part}"]
        pairs = [("yes", "no") if i % 2 else ("no", "yes") for i in range(40)]
        texts = pairs if task == "t" else [(f"a{i}", f"b{i}") for i in range(40)]
        rows = zip(uids.uids, texts, uids.labels, strict=True)
        return [Example(uid, ("q", "q"), text, int(label)) for uid, text, label in rows]

    (row,) = fig2.commonest_answers(results, load).to_dict("records")
    assert (row["eval_task"], row["n"]) == ("t", 40)
    examples = {e.uid: e for e in load("t", "test", 40, 0)}
    for result, phase in zip(results[:3], ("base", "tuned", "forgotten"), strict=True):
        scores = result.scores["t/test"]
        given = [examples[u].choices[ll.argmax()] for u, ll in zip(*scores_of(scores), strict=True)]
        counts = {a: given.count(a) for a in ("yes", "no")}
        assert counts[row[f"{phase}_answer"]] == max(counts.values())
        assert row[f"{phase}_share"] == max(counts.values()) / 40
    assert fig2.commonest_answers([], load).empty


def scores_of(scores):
    return scores.uids, scores.log_likelihoods


# --- predictors and single examples ---


def test_predictors_measure_what_was_put_in():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(200, 12)) * 3  # hidden states at the question's last token
    deviation = ((states - states.mean(0)) ** 2).sum(1)
    probes = [probe_with(0.6, deviation=deviation)] * 3
    results = family("t", 0.55, 0.9, 0.6, probes=probes)
    results += family("t", 0.55, 0.9, 0.9, probes=probes, size=20)[2:]
    results += family("nothing", 0.5, 0.51, 0.5)
    table = fig4.table(results).set_index("eval_task")
    assert len(table) == 2
    row, undefined = table.loc["t"], table.loc["nothing"]
    assert (row.base, row.tuned, row.forgotten, row.n) == pytest.approx((0.55, 0.9, 0.6, 200))
    assert (row.forget_ratio, row.forget_gap) == pytest.approx((0.75, 0.1))
    assert row.confidence == pytest.approx(0.9 * 0.8 + 0.1 * 0.2)
    assert row.log_variance == pytest.approx(np.log(np.trace(np.cov(states.T))))
    assert np.isnan(undefined.forget_ratio)
    assert undefined[["log_variance", "log_variance_low", "log_variance_high"]].isna().all()
    assert undefined.tuned == pytest.approx(0.51)


def test_the_ratio_of_several_seeds_is_that_of_figure_2_and_not_a_mean_of_ratios():
    results = []
    for seed, (tuned, forgotten) in enumerate([(0.58, 0.5), (0.64, 0.61), (0.7, 0.68)]):
        deviation = np.linspace(1, 2 + seed, 100)
        probes = [probe_with(0.6, 100, deviation=deviation)] * 3
        results += family("t", 0.5, tuned, forgotten, seed=seed, n=100, probes=probes)
    (row,) = fig4.table(results).to_dict("records")
    (own,) = fig2.table(results).to_dict("records")
    assert row["forget_ratio"] == pytest.approx((1.92 - 1.79) / (1.92 - 1.5))
    assert {name: row[name] for name in own} == own
    traces = [np.linspace(1, 2 + seed, 100).sum() / 99 for seed in range(3)]
    assert row["log_variance"] == pytest.approx(np.log(np.mean(traces)))
    by_seed = fig4.table(results, by_seed=True)
    assert by_seed["seed"].tolist() == [0, 1, 2]
    assert by_seed["tuned"].tolist() == pytest.approx([0.58, 0.64, 0.7])
    assert by_seed["forget_ratio"].tolist()[1:] == pytest.approx([0.03 / 0.14, 0.1])
    assert np.isnan(by_seed["forget_ratio"][0])  # 58 of 100 could be chance
    assert by_seed["log_variance"].tolist() == pytest.approx(np.log(traces).tolist())
    assert fig4.table([]).empty


def test_the_variance_s_interval_is_scipys_of_the_mean_distance():
    n = 120
    deviation = np.random.default_rng(1).gamma(2.0, 3.0, n)
    results = family("t", 0.5, 0.9, 0.6, n=n, probes=[probe_with(0.6, n, deviation=deviation)] * 3)
    row = fig4.table(results).iloc[0]
    theirs = scipy.stats.bootstrap(
        (deviation * n / (n - 1),), np.mean, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval
    assert row.log_variance_low == pytest.approx(np.log(theirs.low), abs=0.02)
    assert row.log_variance_high == pytest.approx(np.log(theirs.high), abs=0.02)


def test_the_variance_s_interval_covers_the_truth_as_often_as_it_says():
    """Though the mean that the distances are from is not resampled."""
    n, covered = 60, 0
    for trial in range(150):
        states = np.random.default_rng(trial).normal(size=(n, 5))  # trace of the covariance: 5
        deviation = ((states - states.mean(0)) ** 2).sum(1)
        probes = [probe_with(0.6, n, deviation=deviation)] * 3
        results = family("t", 0.5, 0.9, 0.6, n=n, probes=probes)
        row = fig4.table(results, n_resamples=400).iloc[0]
        covered += row.log_variance_low <= np.log(5) <= row.log_variance_high
    assert 0.89 <= covered / 150 <= 0.99


def test_example_level_has_a_row_for_every_test_example():
    deviation = np.arange(100) + 0.5
    probes = [probe_with(0.6, 100), probe_with(0.6, 100, deviation=deviation), probe_with(0.6, 100)]
    results = family("t", 0.5, 0.9, 0.6, n=100, probes=probes) + family("u", 0.5, 0.9, 0.6, seed=3)
    table = fig4.examples_table(results)
    t, u = (table[table["eval_task"] == name] for name in "tu")
    assert (len(t), len(u)) == (100, 200)
    assert t["uid"].tolist() == [f"t/test/{i}" for i in range(100)]
    assert np.exp(t["log_deviation"]).tolist() == pytest.approx(deviation)
    assert u["log_deviation"].isna().all()
    assert (t["tuned_correct"].mean(), t["forgotten_correct"].mean()) == (0.9, 0.6)
    right = t["tuned_correct"] & ~t["forgotten_correct"]  # lost
    assert right.sum() == 30
    for phase, column in ((1, "confidence"), (2, "forgotten_confidence")):
        scores = results[phase].scores["t/test"]
        assert t[column].tolist() == pytest.approx(metrics.confidence(scores).tolist())
    assert (u["seed"] == 3).all()


# --- the order of learning and forgetting ---


@pytest.mark.parametrize("direction", ["up", "down"])
def test_passing_steps_are_those_of_a_loop(direction):
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.2, 0.59, 0.6, 0.9], size=(6, 200)).astype(np.float32)
    confidence = np.where(np.arange(200) % 3 == 0, confidence[0], confidence)  # some never move
    steps = np.array([0, 3, 6, 9, 12, 14])
    # 0.6 in single precision is just above 0.6 in double: at the threshold counts as above
    found = fig5.passing_steps(dynamics_of("t", confidence, steps), 0.6, direction)
    for n in range(200):
        above = [c >= 0.6 for c in confidence[:, n]]
        sides = above if direction == "up" else [not a for a in above]
        passed = next((s for s, beyond in zip(steps, sides, strict=True) if beyond), np.nan)
        expected = np.nan if sides[0] else passed
        assert found[n] == pytest.approx(expected, nan_ok=True)


def test_a_direction_is_up_or_down():
    with pytest.raises(InputError, match="expected one of up, down, found 'left'"):
        fig5.passing_steps(passing("t", [1, 2], 3), 0.6, "left")


def learned_and_forgotten(up, down, *, task="t", seed=0, n_steps=20):
    dynamics = passing(task, up, n_steps), passing(task, down, n_steps, upward=False)
    return family(task, 0.5, 0.9, 0.6, seed=seed, dynamics=dynamics)


def test_learned_first_and_forgotten_last_is_a_negative_rank_correlation():
    up = np.tile(np.arange(1, 11), 4)
    results = learned_and_forgotten(up, 19 - up) + learned_and_forgotten(up, up, task="u")
    table = fig5.table(results).set_index("eval_task")
    assert table["rank_correlation"].tolist() == pytest.approx([-1, 1])
    # Every resample is in the same order, so that resampling shows no uncertainty.
    assert table[["rank_correlation_low", "rank_correlation_high"]].isna().all(axis=None)
    assert table["n"].tolist() == [40, 40]
    assert table["enough"].all()


def test_the_order_s_rank_correlation_and_interval_agree_with_scipy():
    rng = np.random.default_rng(4)
    up = rng.integers(1, 9, 150)  # many ties
    down = np.clip(12 - up + rng.integers(-5, 6, 150), 1, 19)
    row = fig5.table(learned_and_forgotten(up, down)).iloc[0]
    assert row.rank_correlation == pytest.approx(scipy.stats.spearmanr(up, down).statistic)
    theirs = scipy.stats.bootstrap(
        (up, down),
        lambda x, y: scipy.stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1500,
        rng=rng,
    ).confidence_interval
    assert row.rank_correlation_low == pytest.approx(theirs.low, abs=0.03)
    assert row.rank_correlation_high == pytest.approx(theirs.high, abs=0.03)


def test_steps_in_no_order_have_an_interval_around_zero_as_often_as_it_says():
    covered = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        up, down = rng.integers(1, 8, (2, 60))
        row = fig5.table(learned_and_forgotten(up, down), n_resamples=300).iloc[0]
        covered += row.rank_correlation_low <= 0 <= row.rank_correlation_high
    assert covered >= 88


def test_seeds_are_correlated_one_by_one_and_weighted_by_their_examples():
    """A seed that learns and forgets everything later must not look like an order."""
    rng = np.random.default_rng(0)
    up, down = rng.integers(1, 6, (2, 90))
    late_up, late_down = rng.integers(12, 19, (2, 30))
    results = learned_and_forgotten(up, down)
    results += learned_and_forgotten(late_up, late_down, seed=1)
    row = fig5.table(results).iloc[0]
    each = [scipy.stats.spearmanr(*pair).statistic for pair in ((up, down), (late_up, late_down))]
    assert row.rank_correlation == pytest.approx(np.average(each, weights=[90, 30]))
    assert row.n == 120
    pooled = scipy.stats.spearmanr([*up, *late_up], [*down, *late_down]).statistic
    assert pooled > 0.4 > abs(row.rank_correlation)


def test_every_training_example_has_one_fate():
    confidence = {  # before and after three steps of fine-tuning; the same of forgetting
        "n": ([0.1, 0.7, 0.7], [0.7, 0.7, 0.1]),
        "n_known": ([0.6, 0.7, 0.7], [0.7, 0.7, 0.1]),
        "n_never_learned": ([0.1, 0.2, 0.5], [0.5, 0.7, 0.1]),
        "n_fell_back": ([0.1, 0.7, 0.5], [0.5, 0.7, 0.1]),
        "n_never_forgotten": ([0.1, 0.7, 0.7], [0.7, 0.7, 0.65]),
    }
    repeats = {name: i + 2 for i, name in enumerate(confidence)}
    columns = [confidence[name] for name, count in repeats.items() for _ in range(count)]
    tuned, forgotten = (np.array([c[i] for c in columns]).T for i in (0, 1))
    dynamics = dynamics_of("t", tuned), dynamics_of("t", forgotten)
    results = family("t", 0.5, 0.9, 0.6, dynamics=dynamics)
    row = fig5.table(results).iloc[0]
    assert {name: row[name] for name in repeats} == repeats
    assert not row.enough
    assert fig5.table(results, min_examples=2)["enough"].item()
    examples = fig5.examples_table(results)
    assert examples["uid"].tolist() == ["t/train/0", "t/train/1"]
    assert examples["learned_step"].tolist() == [1, 1]
    assert examples["forgotten_step"].tolist() == [2, 2]
    assert examples.columns.tolist()[:3] == ["model", "eval_task", "seed"]


@pytest.mark.parametrize("up", [[], [3], [3, 3, 3]])
def test_too_few_examples_have_no_order_and_no_interval(up):
    never = [-1] * 5
    row = fig5.table(learned_and_forgotten([*up, *never], [*up, *never])).iloc[0]
    assert row.n == len(up)
    assert not row.enough
    intervals = row[["rank_correlation", "rank_correlation_low", "rank_correlation_high"]]
    assert intervals.isna().all()


def test_runs_without_dynamics_have_no_order():
    assert fig5.table(family("t", 0.5, 0.9, 0.6)).empty
    assert fig5.examples_table(family("t", 0.5, 0.9, 0.6)).empty


def test_the_forgetting_set_is_matched_by_uid():
    up = np.arange(1, 31) % 15 + 1
    (base, tuned, forgotten) = learned_and_forgotten(up, 19 - up)
    mixed = np.random.default_rng(0).permutation(30)
    recorded = forgotten.dynamics
    shuffled = replace(
        recorded,
        uids=tuple(recorded.uids[i] for i in mixed),
        confidence=recorded.confidence[:, mixed],
    )
    row = fig5.table([base, tuned, with_dynamics(forgotten, shuffled)]).iloc[0]
    assert row.rank_correlation == pytest.approx(-1)
    foreign = replace(recorded, uids=("t/train/99", *recorded.uids[1:]))
    with pytest.raises(InputError, match="found 1 others, first 't/train/99'"):
        fig5.table([base, tuned, with_dynamics(forgotten, foreign)])


def with_dynamics(result, dynamics):
    """The result with other dynamics."""
    records = (
        replace(r, found=dynamics) if r.measurement.readout == "dynamics" else r
        for r in result.records
    )
    return replace(result, records=tuple(records))


# --- probes ---


def probed(task="t", seed=0, n=80, accuracies=(0.55, 0.9, 0.8), rng=None):
    probes = [probe_with([0.5, a, 0.6], n, rng=rng) for a in accuracies]
    return family(task, 0.5, 0.9, 0.6, seed=seed, n=n, probes=probes)


def test_probe_accuracy_is_a_loop_over_phases_layers_and_pairs():
    rng = np.random.default_rng(0)
    results = probed(rng=rng, n=60) + probed(rng=rng, n=60, seed=1)
    table = fig6.table(results).set_index(["phase", "layer"])
    assert len(table) == 9
    for place, phase in enumerate(fig6.PROBED_PHASES):
        for layer in range(3):
            row = table.loc[(phase, layer)]
            probes = [results[3 * s + place].probe for s in (0, 1)]
            assert row["accuracy"] == pytest.approx(np.mean([p.correct[layer] for p in probes]))
            assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
            draws = [draw for p in probes for draw in p.control[:, layer]]
            assert row["control"] == pytest.approx(np.mean(draws))
            ends = np.quantile(draws, [0.025, 0.975])
            assert [row["control_low"], row["control_high"]] == pytest.approx(ends)
            assert row["n"] == 2 * 60 * 2
            assert row["is_paper_layer"] == (layer == 1)


def test_a_probe_s_pairs_of_an_example_are_resampled_together():
    """Two pairs that are right together count as one, so the interval is wider by sqrt(2)."""
    right = np.random.default_rng(0).random((1, 400, 1)) < 0.7
    alone = np.random.default_rng(1).random((1, 400, 2)) < 0.7
    widths = []
    for correct in (np.repeat(right, 2, axis=2), alone):
        probe, variance = probe_with(0.7, 400, layers=(0, 1))
        probe = replace(probe, correct=np.concatenate([correct, correct]))
        results = family("t", 0.5, 0.9, 0.6, n=400, probes=[(probe, variance)] * 3)
        row = fig6.table(results).iloc[0]
        widths.append(row.accuracy_high - row.accuracy_low)
        theirs = scipy.stats.bootstrap(
            (correct[0].mean(1),), np.mean, method="percentile", n_resamples=3000, rng=0
        ).confidence_interval
        assert row.accuracy_low == pytest.approx(theirs.low, abs=0.006)
        assert row.accuracy_high == pytest.approx(theirs.high, abs=0.006)
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(2), rel=0.1)


def test_probe_recovery_is_the_paired_difference_at_the_paper_s_layer():
    row = fig6.recovery_table(probed()).iloc[0]
    assert (row.fine_tuned, row.forgotten, row.difference) == pytest.approx((0.9, 0.8, -0.1))
    assert (row.layer, row.n) == (1, 160)
    assert row.difference_high < 0


def test_probe_recovery_of_the_same_probe_is_exactly_zero():
    rng = np.random.default_rng(0)
    same = probe_with(0.7, 80, rng=rng)
    row = fig6.recovery_table(family("t", 0.5, 0.9, 0.6, n=80, probes=[same] * 3)).iloc[0]
    assert (row.difference, row.difference_low, row.difference_high) == (0, 0, 0)
    assert row.fine_tuned_low < row.fine_tuned < row.fine_tuned_high


def test_runs_without_probes_have_no_probe_accuracy():
    assert fig6.table(family("t", 0.5, 0.9, 0.6)).empty
    assert fig6.recovery_table(family("t", 0.5, 0.9, 0.6)).empty
