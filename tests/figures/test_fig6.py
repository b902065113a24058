"""Figure 6: the probes against loops, and what is drawn of them."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from synthetic import family, probe_with
from tables import by_name, described, probe_table, recovery_table

from forgetlib.figures import fig6
from forgetlib.figures.names import title


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


def test_the_model_s_own_choices_are_compared_on_the_same_questions():
    row = fig6.recovery_table(probed() + probed(seed=1, accuracies=(0.5, 0.9, 0.7))).iloc[0]
    assert row.own_difference == pytest.approx(0.6 - 0.9)
    assert (row.n_seeds, row.own_difference_seeds) == (2, "-0.3 -0.3")
    assert [float(x) for x in row.difference_seeds.split()] == pytest.approx([-0.1, -0.2], abs=0.01)


def test_a_task_counts_where_the_probe_beat_chance_before_forgetting():
    known = fig6.recovery_table(probed(accuracies=(0.5, 0.9, 0.5))).iloc[0]
    unknown = fig6.recovery_table(probed(accuracies=(0.5, 0.52, 0.9))).iloc[0]
    assert (known.counts, unknown.counts) == (True, False)


def test_a_task_s_share_of_the_loss_is_of_the_tasks_that_count():
    rng = np.random.default_rng(0)
    drops = {"t": (0.9, 0.6), "u": (0.8, 0.7), "at_chance": (0.5, 0.1)}
    results = [
        r
        for task, (before, after) in drops.items()
        for r in probed(task, n=2000, accuracies=(0.5, before, after), rng=rng)
    ]
    table = fig6.recovery_table(results).set_index("eval_task")
    lost = table["difference"][["t", "u"]]
    found = table[["share_of_loss", "share_of_loss_low", "share_of_loss_high"]]
    assert found.loc["at_chance"].isna().all()
    assert found.loc[["t", "u"], "share_of_loss"].tolist() == pytest.approx(lost / lost.sum())
    assert (found.loc["t", "share_of_loss_low"], found.loc["t", "share_of_loss_high"]) == (
        pytest.approx((0.75 - 0.05, 0.75 + 0.05), abs=0.03)
    )
    # Of tasks that are resampled apart, by the delta method: what the one gains the other loses.
    t, u = -lost["t"], -lost["u"]
    errors = (table["difference_high"] - table["difference_low"]) / 2
    half = np.hypot(u * errors["t"], t * errors["u"]) / (t + u) ** 2
    width = found.loc["t", "share_of_loss_high"] - found.loc["t", "share_of_loss_low"]
    assert width / 2 == pytest.approx(half, rel=0.1)


def test_where_nothing_is_lost_there_is_no_share_of_it():
    rng = np.random.default_rng(0)
    results = [r for t in "tu" for r in probed(t, accuracies=(0.5, 0.8, 0.85), rng=rng)]
    table = fig6.recovery_table(results)
    assert table["counts"].all() and table["share_of_loss_low"].isna().all()
    assert "of its sum" not in fig6.finding(table)


def test_probe_recovery_of_the_same_probe_is_exactly_zero():
    rng = np.random.default_rng(0)
    same = probe_with(0.7, 80, rng=rng)
    row = fig6.recovery_table(family("t", 0.5, 0.9, 0.6, n=80, probes=[same] * 3)).iloc[0]
    assert (row.difference, row.difference_low, row.difference_high) == (0, 0, 0)
    assert row.fine_tuned_low < row.fine_tuned < row.fine_tuned_high


def test_runs_without_probes_have_no_probe_accuracy():
    assert fig6.table(family("t", 0.5, 0.9, 0.6)).empty
    assert fig6.recovery_table(family("t", 0.5, 0.9, 0.6)).empty


def test_the_finding_is_of_the_tasks_that_count():
    table = recovery_table(6).assign(counts=[True] * 5 + [False], difference_high=-0.01)
    table["difference"] = [-0.1, -0.2, -0.15, -0.15, -0.15, 9]
    table["own_difference"] = table["difference"] - 0.2
    said = fig6.finding(table)
    assert said.startswith("Where the probe beat chance before (5 of 6 tasks), forgetting changes")
    minus = "\N{MINUS SIGN}"
    assert f"its accuracy by {minus}0.15 [" in said
    assert f"own choices by {minus}0.35 [" in said
    most = table.loc[table["share_of_loss"].idxmax()]
    share = f"{most['share_of_loss']:.2f} [{most['share_of_loss_low']:.2f}, "
    assert f"the probe's loss is shown in 5, and {share}" in said
    assert said.endswith(f"] of its sum is that of {title(most['eval_task'])}")
    nothing = table.assign(difference_high=0.0, share_of_loss_low=np.nan)
    assert fig6.finding(nothing).endswith("shown in 0")
    none = fig6.finding(table.assign(counts=False))
    assert none == "In no task was the probe shown to beat chance after fine-tuning"


def layers(changes, fine_tuned=0.8, names=("sst2", "piqa")):
    """A table of three layers, each task's probe changed so much in each."""
    table = probe_table(4, n_layers=3)
    table = table[table["eval_task"].isin(table["eval_task"].unique()[:2])]
    known = dict(zip(table["eval_task"].unique(), names, strict=True))
    table = table.assign(accuracy=fine_tuned, accuracy_low=fine_tuned - 0.1)
    table["eval_task"] = table["eval_task"].map(known)
    for name, of in zip(names, changes, strict=True):
        rows = (table["eval_task"] == name) & (table["phase"] == "forgotten")
        table.loc[rows, "accuracy"] += np.array(of)
    return table


def test_the_finding_over_layers_says_where_most_is_lost_and_where_half_of_it():
    table = layers([[0, -0.22, -0.4], [0, -0.08, -0.1]])
    assert fig6.layers_finding(table) == (
        "Forgetting costs the probe most in layer 2: 0.25, mean of 2 tasks (0.10 without SST-2); "
        "half of that is reached in layer 1"
    )
    one = table[table["eval_task"] == "sst2"]
    assert fig6.layers_finding(one) == (
        "Forgetting costs the probe most in layer 2: 0.40; half of that is reached in layer 1"
    )
    kept = fig6.layers_finding(layers([[0, 0, 0.1], [0, 0, 0]]))
    assert kept == "In no layer does the probe lose accuracy by forgetting, on average over tasks"
    unknown = fig6.layers_finding(layers([[0, 0, 0], [0, 0, 0]], fine_tuned=0.55))
    assert unknown == "In no task was the probe shown to beat chance after fine-tuning"


class TestProbes:
    def test_differences_are_drawn_and_the_tasks_that_count_are_filled(self):
        table = recovery_table(6)
        figure = fig6.draw(table, described(6))
        counts = table["counts"]
        assert 0 < counts.sum() < 6
        columns = ("fine_tuned", *fig6.CHANGES)
        for axes, column in zip(figure.axes, columns, strict=True):
            filled, empty = (c.lines[0].get_xdata() for c in axes.containers)
            assert filled == pytest.approx(table.loc[counts, column].to_numpy())
            assert empty == pytest.approx(table.loc[~counts, column].to_numpy())
        formats = table.merge(described(6)).sort_values(["answer_format", "fine_tuned"])
        labels = [by_name(t.get_text()) for t in figure.axes[0].get_yticklabels()]
        assert labels == formats["eval_task"].tolist()

    def test_over_layers_only_the_tasks_that_count_are_drawn(self):
        table = probe_table(4, n_layers=3)
        out = table["eval_task"].iloc[0]
        table.loc[table["eval_task"] == out, "accuracy_low"] = 0.4
        rest = table["eval_task"].unique()[1:]
        table.loc[table["eval_task"].isin(rest), "accuracy_low"] = 0.6
        left, right = fig6.draw_layers(table).axes
        of = table[table["eval_task"].isin(rest)]
        means = of.pivot_table("accuracy", "layer", "phase")[[*fig6.PROBED_PHASES]]
        drawn = np.array([line.get_ydata() for line in left.lines[:3]])
        assert drawn == pytest.approx(means.to_numpy().T)
        by_task = [of[of["eval_task"] == name] for name in sorted(rest)]
        changes = [
            t.loc[t["phase"] == "forgotten", "accuracy"].to_numpy()
            - t.loc[t["phase"] == "fine-tuned", "accuracy"].to_numpy()
            for t in by_task
        ]
        thin = np.array([line.get_ydata() for line in right.lines[: len(rest)]])
        assert thin == pytest.approx(np.array(changes))
        thick = right.lines[len(rest) + 1]
        assert thick.get_ydata() == pytest.approx(np.mean(changes, axis=0))
