"""Figure 5: the order of learning and forgetting against loops and SciPy, and what is drawn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from synthetic import dynamics_of, family, passing
from tables import by_name, labels_of, order_tables, points_of

from forgetlib.errors import InputError
from forgetlib.figures import fig5
from forgetlib.figures.rows import FORMATS


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
    assert (row.learned_at_first, row.forgotten_at_first) == (1, 0)  # steps 1 of 2, and 2


def test_what_is_over_at_the_first_recording_is_a_share_of_those_that_pass_both_ways():
    up = [1] * 6 + [3] * 4 + [-1] * 5  # the last are never learned
    down = [1] * 2 + [4] * 8 + [1] * 5
    row = fig5.table(learned_and_forgotten(up, down)).iloc[0]
    assert row.n == 10
    assert row.learned_at_first == pytest.approx(0.6)
    assert row.forgotten_at_first == pytest.approx(0.2)
    alone = fig5.table(learned_and_forgotten([-1] * 5, [-1] * 5)).iloc[0]
    assert np.isnan(alone.learned_at_first)
    assert np.isnan(alone.forgotten_at_first)


def weakly_correlated(rho, n, rng):
    """Draw two uniforms of Farlie, Gumbel and Morgenstern's copula: Spearman's rho is rho."""
    u, p = rng.random((2, n))
    a = 3 * rho * (1 - 2 * u)
    return u, 2 * p / (1 + a + np.sqrt((1 + a) ** 2 - 4 * a * p))


@pytest.mark.parametrize("shares", [(0.25, 0.5, 0.75), (0.6, 0.9), (0.95,)])
def test_what_ties_leave_of_a_correlation_is_what_spearman_finds_in_them(shares):
    u, v = weakly_correlated(-0.3, 400_000, np.random.default_rng(0))
    assert scipy.stats.spearmanr(u, v).statistic == pytest.approx(-0.3, abs=0.01)
    steps = np.searchsorted((0.5,), u), np.searchsorted(shares, v)  # at which it is recorded
    found = scipy.stats.spearmanr(*steps).statistic
    assert abs(found) < 0.27
    assert fig5.share_seen(*steps) == pytest.approx(found / -0.3, abs=0.015)


def test_without_ties_all_of_a_correlation_is_seen_and_of_one_step_nothing():
    steps = np.arange(20)
    assert fig5.share_seen(steps, steps[::-1]) == 1
    assert fig5.share_seen(steps, np.ones(20)) == 0
    assert fig5.share_seen(np.repeat([1, 2], 2), np.arange(4)) == pytest.approx(np.sqrt(0.8))


def test_what_is_seen_is_of_the_seeds_that_have_an_order():
    up, one = np.arange(1, 11), np.full(10, 3)
    results = learned_and_forgotten(up, up) + learned_and_forgotten(one, one, seed=1)
    assert fig5.table(results)["seen"].item() == 1
    assert np.isnan(fig5.table(learned_and_forgotten(one, one))["seen"].item())


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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([-0.3, -0.2, -0.4, -0.3], "What is learned first is forgotten last: mean rank"),
        ([0.3, 0.2, 0.4, 0.3], "What is learned first is forgotten first: mean rank"),
        ([-0.3, 0.2, -0.1, 0.3], "What is learned first is not shown to be forgotten last, or"),
        ([-0.3, -0.2, -0.4], "Too few tasks to say whether what is learned first is"),
        ([-0.3], "rank correlation −0.30 of 1 task;"),
        ([np.nan, np.nan], "No task shows an order of learning and forgetting"),
    ],
)
def test_the_finding_says_what_the_mean_over_tasks_says(values, said):
    table = pd.DataFrame({"rank_correlation": values, "n": 50, "enough": True, "seen": 1.0})
    assert said in fig5.finding(table.assign(learned_at_first=0.5, forgotten_at_first=0.5))


def test_the_finding_leaves_out_tasks_with_too_few_and_counts_all_their_examples():
    table = pd.DataFrame(
        {
            "rank_correlation": [-0.3, -0.2, -0.4, -0.3, 0.9, np.nan],
            "n": [10, 10, 10, 10, 10, 0],
            "enough": [True] * 4 + [False] * 2,
            "seen": [0.5, 0.5, 0.4, 0.6, 0.9, np.nan],
            "learned_at_first": [1, 1, 1, 1, 0, np.nan],
            "forgotten_at_first": [0, 0, 0, 0, 0.5, np.nan],
        }
    )
    said = fig5.finding(table)
    assert "−0.30 [−0.43, −0.17] of 4 tasks" in said
    assert "; 80 % of the learning and 10 % of the forgetting is over at the first" in said
    assert said.endswith("so that a correlation of −0.30 would be seen as −0.15")


def notes_of(axes):
    """What is written in the rows, without the names of the formats."""
    return [text for text in labels_of(axes) if text not in FORMATS.values()]


class TestOrder:
    def test_tasks_with_too_few_examples_are_named_with_their_count(self):
        table, families = order_tables(6, n_enough=4)
        left, _ = fig5.draw(table, families).axes
        named = [by_name(t.get_text()) for t in left.get_yticklabels()]
        assert {f"{t} ({n})" for t, n in zip(table["eval_task"], table["n"], strict=True)} == set(
            named
        )
        assert notes_of(left) == ["too few examples"] * 2
        assert sorted(points_of(left)[:, 0]) == pytest.approx(
            sorted(table.loc[table["enough"], "rank_correlation"])
        )
        assert by_name(left.figure.get_suptitle()).replace("\n", " ") == fig5.finding(table)

    def test_shares_stand_in_the_row_of_their_task(self):
        table, families = order_tables(6, n_enough=6)
        left, right = fig5.draw(table, families).axes
        heights = dict(
            zip(
                (by_name(t.get_text()).split(" (")[0] for t in left.get_yticklabels()),
                left.get_yticks(),
                strict=True,
            )
        )
        drawn = [line for line in right.lines if line.get_marker() in ("o", "D")]
        for line, column in zip(drawn, fig5.AT_FIRST, strict=True):
            assert line.get_xdata() == pytest.approx(table[column].to_numpy())
            expected = [heights[t] for t in table["eval_task"]]
            assert line.get_ydata().round() == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("value", "said"), [(1.0, "no interval"), (np.nan, "undefined: all at one step")]
    )
    def test_a_correlation_without_interval_says_so(self, value, said):
        table, families = order_tables(4, n_enough=4)
        one = table["eval_task"] == table["eval_task"].iloc[0]
        ends = ["rank_correlation_low", "rank_correlation_high"]
        table.loc[one, ["rank_correlation", *ends]] = [value, np.nan, np.nan]
        left, _ = fig5.draw(table, families).axes
        assert notes_of(left) == [said]

    def test_without_a_task_that_has_enough_there_is_a_figure_that_says_so(self):
        left, _ = fig5.draw(*order_tables(6, n_enough=0)).axes
        assert notes_of(left) == ["too few examples"] * 6
        assert len(points_of(left)) == 0

    def test_a_task_that_is_not_described_is_refused(self):
        table, families = order_tables(4, n_enough=4)
        with pytest.raises(InputError, match="formats of the tasks: expected one for "):
            fig5.draw(table, families.iloc[:2])


def with_dynamics(result, dynamics):
    """The result with other dynamics."""
    records = (
        replace(r, found=dynamics) if r.measurement.readout == "dynamics" else r
        for r in result.records
    )
    return replace(result, records=tuple(records))
