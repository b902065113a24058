"""Figure 6: the probes against loops, and what is drawn of them."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from synthetic import family, probe_with
from tables import own_table, probe_table

from forgetlib.figures import (
    fig6,
)


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


class TestProbes:
    def test_probe_and_model_stand_side_by_side(self):
        table, own = probe_table(6), own_table(6)
        left, right = fig6.draw(table, own).axes
        own = own.sort_values("forgotten")
        at_layer = table[table["is_paper_layer"]]
        for i, (phase, column) in enumerate(fig6.PROBE_PHASES.items()):
            rows = at_layer[at_layer["phase"] == phase].set_index("eval_task")
            rows = rows.loc[own["eval_task"]]
            control, probe = (c.lines[0].get_xydata() for c in left.containers[2 * i : 2 * i + 2])
            answers = right.containers[i].lines[0].get_xydata()
            assert control[:, 0] == pytest.approx(rows["control"].to_numpy())
            assert probe[:, 0] == pytest.approx(rows["accuracy"].to_numpy())
            assert answers[:, 0] == pytest.approx(own[column].to_numpy())
            assert probe[:, 1] == pytest.approx(answers[:, 1])  # the same row of the figure

    def test_over_layers_the_thick_line_is_the_mean_over_tasks(self):
        table = probe_table(4, n_layers=3)
        for axes, phase in zip(fig6.draw_layers(table).axes, fig6.PROBED_PHASES, strict=True):
            _, *thin, thick = axes.lines[
                :-1
            ]  # the first is the control, the last the paper's layer
            rows = table[table["phase"] == phase]
            means = [rows.loc[rows["layer"] == x, "accuracy"].mean() for x in range(3)]
            assert thick.get_xydata() == pytest.approx(np.stack([range(3), means], axis=1))
            assert len(thin) == 4
