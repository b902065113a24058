"""Figure 4: predictors and single examples against SciPy, and what is drawn of them."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from synthetic import family, probe_with
from tables import (
    by_name,
    correlations_table,
    drawn_texts,
    example_level_table,
    labels_of,
    overlapping,
    own_table,
    points_of,
    regression_table,
)

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import fig2, fig4, fig4_examples


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
    shared = set(own) - set(fig2.DRAWN)
    assert {name: row[name] for name in shared} == {name: own[name] for name in shared}
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
    table = fig4_examples.table(results)
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


class TestPredictors:
    def test_draws_each_defined_task_at_its_values(self):
        table = own_table(21)
        figure = fig4.draw(table, correlations_table(21))
        defined = table[table["ratio_defined"]]
        for axes, x in zip(
            figure.axes, (defined["confidence"], np.exp(defined["log_variance"])), strict=True
        ):
            assert points_of(axes) == pytest.approx(np.stack([x, defined["forget_ratio"]], axis=1))
            assert labels_of(axes) == list(defined["eval_task"])
        assert figure.axes[1].get_xscale() == "log"

    def test_bars_are_the_intervals_of_both_the_predictor_and_the_ratio(self):
        table = own_table(6)
        for axes, name in zip(
            fig4.draw(table, correlations_table(6)).axes,
            ("confidence", "log_variance"),
            strict=True,
        ):
            for bars, (_, row) in zip(axes.containers, table.iterrows(), strict=False):
                across, up = (bar.get_segments()[0] for bar in bars.lines[2])
                expected = row[[f"{name}_low", f"{name}_high"]].to_numpy(float)
                expected = np.exp(expected) if name == "log_variance" else expected
                assert across[:, 0] == pytest.approx(expected)
                assert up[:, 1] == pytest.approx([row.forget_ratio_low, row.forget_ratio_high])
            assert len(axes.containers) == len(table) - 1

    def test_names_what_it_does_not_draw(self):
        table = own_table(6)
        figure = fig4.draw(table, correlations_table(6))
        assert table["eval_task"].iloc[-1] in by_name(figure.get_supxlabel())
        assert table["eval_task"].iloc[0] not in by_name(figure.get_supxlabel())

    def test_tells_correlation_and_number_of_tasks(self):
        figure = fig4.draw(own_table(6), correlations_table(6))
        title = figure.axes[0].get_title(loc="left")
        assert title == "rank correlation −0.41 [−0.61, −0.21], n = 6 tasks"

    def test_an_undefined_interval_is_left_out(self):
        correlations = correlations_table(4)
        correlations[["rank_correlation_low", "rank_correlation_high"]] = np.nan
        title = fig4.draw(own_table(4), correlations).axes[0].get_title(loc="left")
        assert title == "rank correlation −0.41, n = 4 tasks"

    def test_no_task_with_something_to_forget(self):
        table = own_table(4).assign(ratio_defined=False)
        figure = fig4.draw(table, correlations_table(4))
        assert all(name in by_name(figure.get_supxlabel()) for name in table["eval_task"])

    def test_names_cover_neither_points_nor_each_other(self, monkeypatch):
        """Also where they crowd: 20 of 21 points in the right third of the panel."""
        table = own_table(21).assign(ratio_defined=True)
        table.loc[0, ["confidence", "confidence_low", "confidence_high"]] = 0.0
        figure = fig4.draw(table, correlations_table(21))
        axes = figure.axes[0]
        names = set(table["eval_task"])
        boxes = [t for t in drawn_texts(figure, monkeypatch) if t[0] in names][: len(names)]
        assert [name for name, *_ in boxes] == labels_of(axes)
        assert overlapping(boxes) == []
        for x, y in axes.transData.transform(points_of(axes)):
            inside = [n for n, (a, b, c, d), _ in boxes if a < x < c and b < y < d]
            assert inside == []

    def test_a_line_to_a_far_name_passes_the_other_names_by(self, monkeypatch):
        table = own_table(21).assign(ratio_defined=True)
        table.loc[0, ["confidence", "confidence_low", "confidence_high"]] = 0.0
        figure = fig4.draw(table, correlations_table(21))
        axes = figure.axes[0]
        names = set(labels_of(axes))
        texts = [(t, e) for t, e, _ in drawn_texts(figure, monkeypatch) if t in names]
        boxes = dict(texts[: len(names)])  # of the first panel
        far = [t for t in axes.texts if t.arrow_patch is not None]
        assert far
        for text in far:
            patch = text.arrow_patch
            ends = patch.get_transform().transform(patch.get_path().vertices)[[0, -1]]
            dots = ends[0] + np.linspace(0, 1, 50)[:, None] * (ends[1] - ends[0])
            crossed = {
                name
                for name, (a, b, c, d) in boxes.items()
                if any(a + 1 < x < c - 1 and b + 1 < y < d - 1 for x, y in dots)
            }
            assert crossed <= {by_name(text.get_text())}

    def test_a_table_of_two_models_is_refused(self):
        table = pd.concat([own_table(4), own_table(4).assign(model="other")])
        with pytest.raises(InputError, match="one model"):
            fig4.draw(table, correlations_table(4))


class TestRegression:
    def test_draws_every_coefficient_and_says_what_has_none(self):
        alone = regression_table(21)
        for axes, (_, rows) in zip(
            fig4.draw_regression(alone).axes, alone.groupby("outcome", sort=False), strict=True
        ):
            drawn = points_of(axes)[:, 0]
            assert drawn == pytest.approx(rows["coefficient"].to_numpy(), nan_ok=True)
            assert [t.strip() for t in labels_of(axes)] == ["undefined"]

    def test_bands_span_the_coefficients_without_each_task(self):
        alone = regression_table(6)
        axes = fig4.draw_regression(alone).axes[0]
        (bands,) = [c for c in axes.collections if c.get_label() == "leaving out each task in turn"]
        segments = [s for s in bands.get_segments() if len(s) and np.isfinite(s).all()]
        spans = sorted((s[0, 0], s[1, 0]) for s in segments)
        rows = alone[alone["outcome"] == "forget_ratio"].dropna(subset="least")
        assert spans == sorted(zip(rows["least"], rows["most"], strict=True))

    def test_the_title_names_what_is_shown_and_the_power(self):
        none = regression_table(16)
        said = fig4.regression_finding(none)
        assert said.startswith("Alone, no predictor is shown to go with what is forgotten; ")
        assert said.endswith("found in 16 tasks with a chance of 0.46 (0.8 with 33)")
        one = none.copy()
        place = (one["outcome"] == "auroc_lost") & (one["term"] == "tuned")
        one.loc[place, ["coefficient", "coefficient_low"]] = 0.4, 0.1
        assert "Alone, fine-tuned accuracy (more AUROC lost) is shown" in fig4.regression_finding(
            one
        )
        one.loc[0, ["coefficient", "coefficient_high"]] = -0.4, -0.1
        assert (
            "Alone, confidence (less forget ratio) and fine-tuned accuracy (more AUROC lost) are"
            in fig4.regression_finding(one)
        )


def test_the_title_of_figure_4_says_what_goes_with_the_ratio():
    table = correlations_table(11)
    table["rank_correlation_low"], table["rank_correlation_high"] = -0.2, 0.3
    assert fig4.predictors_finding(table) == (
        "Neither confidence nor variance is shown to go with the forget ratio of 11 tasks "
        "(power 0.31 for a rank correlation of −0.5)"
    )
    table.loc[0, "rank_correlation_high"] = -0.1
    found = fig4.predictors_finding(table)
    assert found == "Less is forgotten with higher confidence (11 tasks)"


def test_the_title_of_single_examples_gives_the_control():
    table = example_level_table(6)
    pooled = (table["eval_task"] == "pooled") & (table["predictor"] == "confidence")
    for measure, value in (("rank_biserial", -0.3), ("again", -0.4), ("beyond_true_labels", 0.1)):
        ends = [f"{measure}{end}" for end in ("", "_low", "_high")]
        table.loc[pooled, ends] = value, value - 0.05, value + 0.05
    assert fig4_examples.finding(table) == (
        "The less sure questions are lost after random labels (pooled −0.30 [−0.35, −0.25]), after "
        "true labels −0.40 [−0.45, −0.35]: the difference is 0.10 [0.05, 0.15]"
    )
    alone = fig4_examples.finding(table.assign(again=np.nan))
    assert alone.endswith("any training may do that: there is no control by true labels")


def test_example_level_draws_tasks_and_the_pooled_row_and_names_the_undefined():
    table = example_level_table(6)
    for axes, predictor in zip(
        fig4_examples.draw(table).axes, ("confidence", "log_deviation"), strict=True
    ):
        rows = table[table["predictor"] == predictor]
        drawn = points_of(axes)[:, 0]
        both = [*rows["rank_biserial"].dropna(), *rows["again"].dropna()]
        assert sorted(drawn[np.isfinite(drawn)]) == pytest.approx(sorted(both))
        assert len(labels_of(axes)) == rows["rank_biserial"].isna().sum()
