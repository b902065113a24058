"""Figures 4 to 7 and the claims: what is drawn is the table, and it can be read."""

from itertools import combinations

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from synthetic import family

from forgetlib.data import tasks
from forgetlib.errors import InputError
from forgetlib.figures import (
    audit,
    claims,
    claims_figure,
    fig2,
    fig4,
    fig5,
    fig6,
    fig7,
    style,
    verdicts,
)
from forgetlib.figures.style import TEXT_WIDTH

SUITES = {4: "tiny", 6: "quick", 20: "paper", 21: "embedded"}  # how many of its tasks: the suite


def names_of(k):
    return tasks.suite(SUITES[k])[:k]


def with_interval(table, name, value, half):
    table[name] = value
    table[f"{name}_low"], table[f"{name}_high"] = table[name] - half, table[name] + half


def own_table(k):
    """What Figure 4's notebook makes: one row a task, the last of which has nothing to forget."""
    rng = np.random.default_rng(k)
    table = tasks.describe(names_of(k)).assign(model="embedded", n=200)
    tuned, ratio = rng.uniform(0.6, 1, k), rng.uniform(0, 1.5, k)
    with_interval(table, "base", rng.uniform(0.5, 0.8, k), 0.05)
    with_interval(table, "tuned", tuned, 0.05)
    with_interval(table, "forgotten", tuned - ratio * (tuned - 0.5), 0.06)
    with_interval(table, "forget_ratio", ratio, rng.uniform(0.1, 0.4, k))
    with_interval(table, "confidence", tuned - 0.02, 0.03)
    with_interval(table, "log_variance", rng.normal(8, 0.5, k), 0.1)
    return table.assign(ratio_defined=np.arange(k) < k - 1)


def correlations_table(k):
    table = pd.DataFrame({"predictor": ["confidence", "log_variance"], "n_tasks": k})
    with_interval(table, "rank_correlation", np.array([-0.41, 0.12]), 0.2)
    return table


def coefficients(terms, seed):
    table = pd.DataFrame({"term": terms})
    with_interval(table, "coefficient", np.random.default_rng(seed).normal(0, 0.3, len(terms)), 0.3)
    return table


def regression_tables(k):
    """Some terms are in the joint regression; the last cannot be estimated even alone."""
    families = sorted(set(tasks.describe(tasks.suite("embedded"))["family"]))
    terms = ["confidence", "log_variance", "tuned", "answer_format: verbaliser"]
    terms += [f"family: {family}" for family in families if k >= 20] + ["family"]
    kept = terms[: {4: 0, 6: 2}.get(k, len(terms) - 1)]
    joint, alone = coefficients(kept, 0), coefficients(terms, 1)
    alone.loc[len(alone) - 1, ["coefficient", "coefficient_low", "coefficient_high"]] = np.nan
    rng = np.random.default_rng(2)
    names = names_of(k)
    rows = [(term, task, *rng.normal(size=2)) for term in kept for task in names]
    partial = pd.DataFrame(rows, columns=["term", "eval_task", "x", "y"])
    left_out = partial[["term", "eval_task"]].assign(coefficient=rng.normal(0, 0.1, len(rows)))
    return joint, alone, left_out, partial


def example_level_table(k):
    names = [*names_of(k), "pooled"]
    rows = [(t, p) for p in ("confidence", "log_deviation") for t in names]
    table = pd.DataFrame(rows, columns=["eval_task", "predictor"]).assign(n=160, n_lost=30)
    values = np.random.default_rng(0).normal(0, 0.1, len(table))
    values[1] = np.nan
    with_interval(table, "rank_biserial", values, 0.1)
    return table


def order_tables(k, n_enough):
    rng = np.random.default_rng(0)
    enough = np.arange(k) < n_enough
    table = pd.DataFrame({"model": "embedded", "eval_task": names_of(k)})
    table = table.assign(n=np.where(enough, 100, 3), enough=enough)
    values = np.where(enough, rng.normal(-0.2, 0.1, k), np.nan)
    with_interval(table, "rank_correlation", values, 0.15)
    steps = 10.0 * rng.integers(1, 9, (table["n"].sum(), 2))
    examples = pd.DataFrame(steps, columns=["learned_step", "forgotten_step"])
    return table, examples.assign(eval_task=np.repeat(table["eval_task"], table["n"]).to_numpy())


def probe_table(k, n_layers=19):
    names = names_of(k)
    rows = [(t, p, x) for t in names for p in fig6.PROBED_PHASES for x in range(n_layers)]
    table = pd.DataFrame(rows, columns=["eval_task", "phase", "layer"]).assign(n=400)
    rng = np.random.default_rng(0)
    with_interval(table, "accuracy", rng.uniform(0.5, 0.9, len(table)), 0.04)
    with_interval(table, "control", rng.normal(0.5, 0.02, len(table)), 0.04)
    return table.assign(model="embedded", is_paper_layer=table["layer"] == max(n_layers - 5, 0))


def sizes_table(k, sizes=(20, 40, 80, 160)):
    parts = [own_table(k).assign(size=size) for size in sizes]
    for part, size in zip(parts, sizes, strict=True):
        with_interval(part, "forgotten", part["forgotten"] - size / 1000, 0.05)
    return pd.concat(parts, ignore_index=True)


def control_table(k):
    table = own_table(k)
    with_interval(table, "again", table["tuned"] - 0.02, 0.05)
    return table


def claims_table(k):
    order, _ = order_tables(k, n_enough=k)
    own = own_table(k).drop(columns=["family", "answer_format"])
    with_interval(own, "forget_gap", own["forgotten"] - 0.5, 0.05)
    described = tasks.describe(own["eval_task"])
    return claims.verdicts(own=own, order=order, described=described)


def shortcuts_table(k):
    rng = np.random.default_rng(3)
    rules = {name: rng.uniform(0.4, 0.9, k) for name in audit.SHORTCUTS}
    table = own_table(k).assign(**rules)
    with_interval(table, "forgotten", table["forgotten"], 0.05)
    with_interval(table, "tuned", table["tuned"], 0.05)
    return table


FIGURES = {
    "shortcuts": lambda k: audit.draw(shortcuts_table(k)),
    "predictors": lambda k: fig4.draw(own_table(k), correlations_table(k)),
    "regression": lambda k: fig4.draw_regression(*regression_tables(k)),
    "example_level": lambda k: fig4.draw_examples(example_level_table(k)),
    "order": lambda k: fig5.draw(*order_tables(k, n_enough=k - 2)),
    "order, nothing": lambda k: fig5.draw(*order_tables(k, n_enough=0)),
    "probes": lambda k: fig6.draw(probe_table(k), own_table(k)),
    "probe_layers": lambda k: fig6.draw_layers(probe_table(k, 3 if k == 4 else 19)),
    "sizes": lambda k: fig7.draw(sizes_table(k)),
    "sizes, one": lambda k: fig7.draw(sizes_table(k, (128,))),
    "control": lambda k: fig2.draw_control(control_table(k)),
    "claims": lambda k: claims_figure.draw(claims_table(k)),
}


def drawn_texts(figure, monkeypatch):
    """Every piece of text that drawing the figure puts on the page: (text, extent in pixels)."""
    found = []
    draw = matplotlib.text.Text.draw

    def record(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            extent = matplotlib.text.Text.get_window_extent(self, renderer)
            found.append((self.get_text(), extent.extents, self.get_fontsize()))
        return draw(self, renderer, *args, **kwargs)

    with style.style(), monkeypatch.context() as patch:
        figure.draw_without_rendering()
        patch.setattr(matplotlib.text.Text, "draw", record)
        figure.draw_without_rendering()
    return found


def overlapping(texts, tolerance=1.0):
    """Pairs of texts whose extents share more than `tolerance` pixels in both directions."""
    pairs = []
    for (one, a, _), (other, b, _) in combinations(texts, 2):
        shared = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        if (shared > tolerance).all():
            pairs.append((one, other))
    return pairs


def assert_readable(figure, monkeypatch):
    """All text is on the page, large enough for print, and over no other text."""
    assert figure.get_figwidth() == TEXT_WIDTH
    assert figure.get_figheight() <= 9.5  # a page
    texts = drawn_texts(figure, monkeypatch)
    width, height = figure.get_size_inches() * figure.dpi
    outside = [
        t for t, e, _ in texts if e[0] < -1 or e[1] < -1 or e[2] > width + 1 or e[3] > height + 1
    ]
    assert len(texts) > 5
    assert outside == []
    assert overlapping(texts) == []
    assert min(size for *_, size in texts) >= 6


@pytest.mark.parametrize("k", SUITES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_readable(name, k, monkeypatch):
    assert_readable(FIGURES[name](k), monkeypatch)


def test_the_test_above_sees_what_is_wrong(monkeypatch):
    """Its positive control: text over text, and text beside the page."""
    figure = fig7.draw(sizes_table(4))
    figure.text(0.5, 0.5, "here")
    figure.text(0.5, 0.5, "and here")
    figure.text(0.99, 0.99, "beyond the edge").set_in_layout(False)
    texts = drawn_texts(figure, monkeypatch)
    assert ("here", "and here") in overlapping(texts)
    assert [t for t, e, _ in texts if e[2] > 550 + 1] == ["beyond the edge"]


def points_of(axes):
    """(n, 2) every point that was drawn with an error bar, in data coordinates."""
    bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    return np.concatenate([c.lines[0].get_xydata() for c in bars])


def labels_of(axes):
    return [t.get_text() for t in axes.texts]


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
        assert table["eval_task"].iloc[-1] in figure.get_supxlabel()
        assert table["eval_task"].iloc[0] not in figure.get_supxlabel()

    def test_tells_correlation_and_number_of_tasks(self):
        figure = fig4.draw(own_table(6), correlations_table(6))
        title = figure.axes[0].get_title(loc="left")
        assert title == "rank correlation −0.41 [−0.61, −0.21], n = 6 tasks"

    def test_an_undefined_interval_is_said_to_be_missing(self):
        correlations = correlations_table(4)
        correlations[["rank_correlation_low", "rank_correlation_high"]] = np.nan
        title = fig4.draw(own_table(4), correlations).axes[0].get_title(loc="left")
        assert "−0.41 (no interval)" in title

    def test_no_task_with_something_to_forget(self):
        table = own_table(4).assign(ratio_defined=False)
        figure = fig4.draw(table, correlations_table(4))
        assert all(name in figure.get_supxlabel() for name in table["eval_task"])

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

    def test_a_table_of_two_models_is_refused(self):
        table = pd.concat([own_table(4), own_table(4).assign(model="other")])
        with pytest.raises(InputError, match="one model"):
            fig4.draw(table, correlations_table(4))


class TestRegression:
    def test_draws_every_coefficient_and_says_what_has_none(self):
        joint, alone, left_out, partial = regression_tables(21)
        axes, *panels = fig4.draw_regression(joint, alone, left_out, partial).axes
        drawn = points_of(axes)[:, 0]
        expected = [*joint["coefficient"], *alone["coefficient"].dropna()]
        assert drawn == pytest.approx(expected)
        assert [t.strip() for t in labels_of(axes)] == ["cannot be estimated"]
        assert len(panels) == len(joint)

    def test_bands_span_the_coefficients_without_each_task(self):
        joint, alone, left_out, partial = regression_tables(6)
        axes = fig4.draw_regression(joint, alone, left_out, partial).axes[0]
        (bands,) = [c for c in axes.collections if c.get_label().startswith("all terms, leaving")]
        spans = sorted((s[0, 0], s[1, 0]) for s in bands.get_segments())
        groups = [g["coefficient"] for _, g in left_out.groupby("term")]
        assert spans == sorted((g.min(), g.max()) for g in groups)

    def test_the_lines_of_partial_regression_have_the_joint_slope(self):
        joint, alone, left_out, partial = regression_tables(6)
        _, *panels = fig4.draw_regression(joint, alone, left_out, partial).axes
        for axes, (_, row) in zip(panels, joint.iterrows(), strict=True):
            points, line = axes.lines
            own = partial[partial["term"] == row["term"]]
            assert points.get_xydata() == pytest.approx(own[["x", "y"]].to_numpy())
            assert line.get_slope() == row["coefficient"]


def test_example_level_draws_tasks_and_the_pooled_row_and_names_the_undefined():
    table = example_level_table(6)
    for axes, predictor in zip(
        fig4.draw_examples(table).axes, ("confidence", "log_deviation"), strict=True
    ):
        rows = table[table["predictor"] == predictor]
        drawn = points_of(axes)[:, 0]
        assert sorted(drawn[np.isfinite(drawn)]) == pytest.approx(
            sorted(rows["rank_biserial"].dropna())
        )
        assert len(labels_of(axes)) == rows["rank_biserial"].isna().sum()


class TestOrder:
    def test_tasks_with_too_few_examples_are_named_with_their_count(self):
        table, examples = order_tables(6, n_enough=4)
        forest, *panels = fig5.draw(table, examples).axes
        named = [t.get_text() for t in forest.get_yticklabels()]
        assert {f"{t} ({n})" for t, n in zip(table["eval_task"], table["n"], strict=True)} == set(
            named
        )
        assert labels_of(forest) == ["too few examples"] * 2
        titles = {axes.get_title().split("\n")[0] for axes in panels if axes.get_visible()}
        assert titles == set(table.loc[table["enough"], "eval_task"])

    @pytest.mark.parametrize(
        ("value", "said"), [(1.0, "no interval"), (np.nan, "undefined: all at one step")]
    )
    def test_a_correlation_without_interval_says_so(self, value, said):
        table, examples = order_tables(4, n_enough=4)
        one = table["eval_task"] == table["eval_task"].iloc[0]
        ends = ["rank_correlation_low", "rank_correlation_high"]
        table.loc[one, ["rank_correlation", *ends]] = [value, np.nan, np.nan]
        forest, *_ = fig5.draw(table, examples).axes
        assert labels_of(forest) == [said]

    def test_without_a_task_that_has_enough_there_is_a_figure_that_says_so(self):
        (forest,) = fig5.draw(*order_tables(6, n_enough=0)).axes
        assert labels_of(forest) == ["too few examples"] * 6
        assert len(points_of(forest)) == 0

    def test_a_dots_area_is_the_number_of_examples_at_its_place(self):
        table, _ = order_tables(4, n_enough=1)
        places = [(10, 40), (20, 30), (30, 10)]
        steps = np.repeat(places, [5, 20, 10], axis=0)
        examples = pd.DataFrame(steps, columns=["learned_step", "forgotten_step"])
        _, axes = fig5.draw(table, examples.assign(eval_task=table["eval_task"].iloc[0])).axes
        (dots,) = axes.collections
        assert dots.get_offsets().tolist() == [list(place) for place in places]
        areas = dots.get_sizes()
        assert areas / areas[1] == pytest.approx([0.25, 1, 0.5])


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


def test_figure_2_refuses_several_sizes_of_a_task():
    several = fig2.table(family("t", 0.5, 0.9, 0.6) + family("t", 0.5, 0.9, 0.8, size=50))
    with pytest.raises(InputError, match=r"expected one row a task, found several for \['t'\]"):
        fig2.draw(several)
    assert fig2.draw(several[several["size"] == 200])


class TestSizes:
    def test_each_task_has_a_panel_with_its_own_curve(self):
        table = sizes_table(6)
        panels = [a for a in fig7.draw(table).axes if a.get_visible()]
        assert len(panels) == 6
        for axes in panels:
            rows = table[table["eval_task"] == axes.get_title().split("\n")[0]]
            assert points_of(axes) == pytest.approx(rows[["size", "forgotten"]].to_numpy())
            tuned, chance = (line.get_ydata()[0] for line in axes.lines[:2])
            assert (tuned, chance) == (rows["tuned"].iloc[0], 0.5)

    def test_a_single_size_is_drawn_and_named(self):
        table = sizes_table(4, (128,))
        figure = fig7.draw(table)
        assert "the study has this one only" in figure.get_supxlabel()
        for axes in figure.axes:
            ((x, y),) = points_of(axes)
            left, right = axes.get_xlim()
            assert left < x < right
            assert y == table.set_index("eval_task")["forgotten"][axes.get_title().split("\n")[0]]
        assert "only" not in fig7.draw(sizes_table(4)).get_supxlabel()

    def test_panels_that_are_not_used_vanish_and_leave_tick_labels_above_them(self):
        figure = fig7.draw(sizes_table(21))
        assert sum(a.get_visible() for a in figure.axes) == 21
        with style.style():
            figure.draw_without_rendering()
        lowest = [a for a in figure.axes if a.get_visible()][-5:]
        assert all(a.xaxis.get_tick_params()["labelbottom"] for a in lowest)


class TestClaims:
    def test_marks_are_those_of_the_verdicts(self):
        assert set(claims_figure.VERDICT_MARKS) == {
            verdicts.HOLDS,
            verdicts.DOES_NOT_HOLD,
            verdicts.NOT_DECIDED,
        }

    @pytest.mark.parametrize(
        ("statement", "threshold", "left", "right"),
        [
            (verdicts.ABOVE, 0.25, 0.25, None),
            (verdicts.BELOW, -0.1, None, -0.1),
            (verdicts.WITHIN, 0.3, -0.3, 0.3),
        ],
    )
    def test_an_interval_inside_the_shade_is_a_claim_that_holds(
        self, statement, threshold, left, right
    ):
        rows = claims_table(6).iloc[[0]].assign(statement=statement, threshold=threshold)
        (shade,) = claims_figure.draw(rows).axes[0].patches
        limits = claims_figure.draw(rows).axes[0].get_xlim()
        assert shade.get_x() == pytest.approx(limits[0] if left is None else left)
        assert shade.get_x() + shade.get_width() == pytest.approx(
            limits[1] if right is None else right
        )

    def test_draws_each_value_and_the_papers_beside_it(self):
        table = claims_table(21)
        axes = claims_figure.draw(table).axes[0]
        drawn = points_of(axes)
        assert sorted(drawn[np.isfinite(drawn[:, 0]), 0]) == pytest.approx(
            sorted(table["value"].dropna())
        )
        (stars,) = [line for line in axes.lines if line.get_label() == "the paper's value"]
        assert stars.get_xdata() == pytest.approx(table["paper"].to_numpy(), nan_ok=True)
