"""Figures 1, 3, 8 and 9: what is drawn is the table, and it can be read."""

from collections import Counter
from dataclasses import replace
from functools import cache

import matplotlib.patches
import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from test_plots_measures import assert_readable, points_of

from forgetlib.data import tasks
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.figures import crossanalysis, crosstask, fig1, fig3, fig8, fig9, style
from forgetlib.figures.matrix import RATIO_COLOURS, RATIO_LIMITS, two_digits

SUITES = {4: "tiny", 6: "quick", 21: "embedded"}


@cache
def cross(k, *, condition="random", model="embedded", seed=0, n_undefined=1):
    """A matrix in which tasks differ much and their labels little; the last were never learned."""
    rng = np.random.default_rng(seed)
    names = sorted(tasks.suite(SUITES[k]))
    tuned = np.linspace(0.75, 0.95, k)
    span = (tuned - 0.5) * (1 if condition == "random" else 2)
    ratio = np.linspace(-0.1, 1.2, k)[:, None] + rng.normal(0, 0.1, (k, k))
    forgotten = np.clip(tuned[:, None] - ratio * span[:, None], 0, 1)
    if n_undefined:
        tuned[-n_undefined:] = 0.5
    results = synthetic.cross(names, tuned, forgotten, condition=condition, model=model, rng=rng)
    return crosstask.cross_task(results, condition, n_resamples=200)


def described(k):
    return tasks.describe(tasks.suite(SUITES[k]))


def models(k, n):
    names = ("embedded", "EleutherAI/gpt-j-6b", "folder/a-model-with-a-long-name", "gpt2")
    crosses = [
        cross(k, model=name, seed=i, n_undefined=i)
        for i, name in zip(range(n), names, strict=False)
    ]
    return crosses, crossanalysis.model_agreement(crosses), described(k)


def questions(long):
    prompt = "Question: what is it?\nAnswer:"
    if long:
        prompt = "A passage that goes on and on about many unrelated things. " * 9 + prompt
    choices = ("it is a $3 star" + long * " that shines" * 20, "a planet")
    return [Example(f"t/x/{i}", (prompt, prompt), choices, i % 2) for i in range(4)]


def confidences(n=9):
    rng = np.random.default_rng(0)
    names = {"mmlu_social_sciences": "train", "sst2": "test"}
    table = pd.DataFrame(rng.uniform(size=(4 * n, 3)), columns=["base", "tuned", "forgotten"])
    table["model"], table["uid"] = "embedded", [f"t/x/{i}" for i in range(4 * n)]
    table["eval_task"] = np.repeat([*names], 2 * n)
    table["split"] = ["train", "test"] * (2 * n)
    return table


def summary(k, seed=0):
    found = cross(k, seed=seed)
    return found, crossanalysis.variance_shares(found), crossanalysis.own_against_others(found)


def comparison(k):
    pair = cross(k), cross(k, condition="flipped", seed=1)
    return *pair, crossanalysis.model_agreement(pair), described(k)


FIGURES = {
    "cross_task": lambda k: fig3.draw(cross(k), described(k)),
    "flipped": lambda k: fig3.draw(cross(k, condition="flipped"), described(k)),
    "summary": lambda k: fig3.draw_summary(*summary(k)),
    "compare": lambda k: fig8.draw(*comparison(k)),
    "models, 1": lambda k: fig9.draw(*models(k, 1)),
    "models, 2": lambda k: fig9.draw(*models(k, 2)),
    "models, 3": lambda k: fig9.draw(*models(k, 3)),
    "models, 4": lambda k: fig9.draw(*models(k, 4)),
    "example": lambda k: fig1.draw(confidences(), questions(long=k > 4)),
}


@pytest.mark.parametrize("k", SUITES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_readable(name, k, monkeypatch):
    assert_readable(FIGURES[name](k), monkeypatch)


def heat_of(figure):
    (axes,) = (a for a in figure.axes if a.images)
    return axes


def strips_of(figure, k):
    """The two axes that name the tasks: of the rows, of the columns."""
    rows = next(a for a in figure.axes if a.get_ylabel().startswith("evaluated task"))
    columns = next(a for a in figure.axes if a.get_xlabel().startswith("task trained on"))
    return rows, columns


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize("k", [6])
class TestMatrix:
    def test_cells_are_the_ratios_of_the_tasks_named_beside_them(self, k):
        found = cross(k)
        figure = fig3.draw(found, described(k))
        rows, columns = strips_of(figure, k)
        rows = [name.split(" (")[0] for name in ticks(rows.yaxis)]
        columns = ticks(columns.xaxis)
        assert sorted(rows) == sorted(columns) == list(found.tasks)
        drawn = heat_of(figure).images[0].get_array().filled(np.nan)
        table = fig3.table(found).set_index(["eval_task", "forget_task"])["forget_ratio"]
        expected = [[table[row, column] for column in columns] for row in rows]
        assert drawn == pytest.approx(np.array(expected), nan_ok=True)

    def test_rows_and_columns_are_in_the_order_of_their_trees_the_undefined_last(self, k):
        found = cross(k)
        figure = fig3.draw(found, described(k))
        rows, columns = strips_of(figure, k)
        order, _ = crossanalysis.upgma(found.forget_ratio)
        assert [t.split(" (")[0] for t in ticks(rows.yaxis)] == [found.tasks[i] for i in order]
        assert ticks(rows.yaxis)[-1].split(" (")[0] == found.tasks[-1]
        order, _ = crossanalysis.upgma(found.forget_ratio.T)
        assert ticks(columns.xaxis) == [found.tasks[i] for i in order]

    def test_every_leaf_of_a_tree_stands_at_its_row_or_column(self, k):
        figure = fig3.draw(cross(k), described(k))
        above = next(a for a in figure.axes if a.lines and a.get_ylim()[0] == 0)
        beside = next(a for a in figure.axes if a.lines and a.get_xlim()[0] == 0)
        for axes, along, n in ((above, 0, k), (beside, 1, k - 1)):
            points = np.concatenate([line.get_xydata() for line in axes.lines])
            leaves = points[points[:, 1 - along] == 0][:, along]
            assert sorted(leaves) == list(range(n))  # the undefined row has no leaf

    def test_frames_stand_round_a_tasks_own_labels(self, k):
        found = cross(k)
        figure = fig3.draw(found, described(k))
        rows, columns = (
            np.array(crossanalysis.upgma(m)[0]) for m in (found.forget_ratio, found.forget_ratio.T)
        )
        frames = [p for p in heat_of(figure).patches if not p.get_fill()]
        at = {(p.get_y() + 0.5, p.get_x() + 0.5) for p in frames}
        assert at == {(i, j) for i in range(k) for j in range(k) if rows[i] == columns[j]}

    def test_an_undefined_task_is_hatched_and_says_why(self, k):
        axes = heat_of(fig3.draw(cross(k), described(k)))
        (hatched,) = (p for p in axes.patches if p.get_hatch())
        assert hatched.get_y() + 0.5 == k - 1
        assert hatched.get_width() == k
        assert [t.get_position()[1] for t in axes.texts if t.get_text() == "nothing to forget"] == [
            k - 1
        ]
        assert not fig3.draw(cross(k, n_undefined=0), described(k)).axes[0].patches[0].get_hatch()

    def test_italics_are_ratios_whose_interval_includes_0(self, k):
        found = cross(k)
        axes = heat_of(fig3.draw(found, described(k)))
        values = [t for t in axes.texts if "," not in t.get_text() and " " not in t.get_text()]
        table = fig3.table(found)
        table = table[table["ratio_defined"]]
        includes = (table["forget_ratio_low"] <= 0) & (table["forget_ratio_high"] >= 0)
        styles = Counter(t.get_style() for t in values)
        assert styles == Counter(np.where(includes, "italic", "normal").tolist())
        assert 0 < styles["italic"] < len(values)  # both are there

    def test_the_strips_have_the_families_colours(self, k):
        figure = fig3.draw(cross(k), described(k))
        family = described(k).set_index("eval_task")["family"]
        rows, columns = strips_of(figure, k)
        for axes, names in ((rows, ticks(rows.yaxis)), (columns, ticks(columns.xaxis))):
            expected = [family[name.split(" (")[0]] for name in names]
            assert [to_hex(p.get_facecolor()) for p in axes.patches] == [
                style.FAMILY_COLOURS[f].lower() for f in expected
            ]
            assert [t.get_text() for t in axes.texts] == [f[0].upper() for f in expected]


class TestMatrixText:
    def test_with_few_tasks_each_cell_has_its_value_and_interval(self):
        found = cross(4)
        axes = heat_of(fig3.draw(found, described(4)))
        order, _ = crossanalysis.upgma(found.forget_ratio)
        columns, _ = crossanalysis.upgma(found.forget_ratio.T)
        table = fig3.table(found).set_index(["eval_task", "forget_task"])
        for y, x in ((0, 0), (2, 3)):
            row = table.loc[(found.tasks[order[y]], found.tasks[columns[x]])]
            texts = [t for t in axes.texts if np.allclose(t.get_position(), (x, y), atol=0.3)]
            numbers = [float(v) for t in texts for v in t.get_text().split(",")]
            wanted = row[["forget_ratio", "forget_ratio_low", "forget_ratio_high"]].tolist()
            assert numbers == pytest.approx(wanted, abs=0.051)

    @given(st.floats(-9, 9))
    def test_two_digits_are_short_and_near_the_value(self, value):
        text = two_digits(value)
        assert len(text.lstrip("-")) == 3
        assert float(text) == pytest.approx(value, abs=0.0051 if abs(value) < 0.99 else 0.051)
        assert float(text) != 0 or not text.startswith("-")

    @pytest.mark.parametrize("ratio", np.linspace(-1, 2, 13))
    def test_values_can_be_read_on_their_colour(self, ratio):
        """Contrast of 4.5 at least, as WCAG asks of small text; less where the text is faint."""
        ratios = {"forget_ratio": np.full((4, 4), ratio), "replicates": np.full((10, 4, 4), ratio)}
        found = replace(cross(4, n_undefined=0), **ratios)
        axes = heat_of(fig3.draw(found, described(4)))
        text = next(t for t in axes.texts if "," not in t.get_text())
        colours = (
            axes.images[0].cmap(axes.images[0].norm(ratio)),
            matplotlib.colors.to_rgba(text.get_color()),
        )
        light, dark = sorted((luminance(c) for c in colours), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5


def luminance(colour):
    """WCAG 2.1's relative luminance."""
    c = np.array(colour[:3])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_colours_of_more_forgetting_are_darker_also_without_colour():
    shades = RATIO_COLOURS(np.linspace(0.25, 1, 50))  # from a ratio of 0
    assert (np.diff([luminance(c) for c in shades]) < 0).all()


def test_every_family_has_a_letter_of_its_own():
    letters = style.family_letters(["reasoning", "science", "reading", "sculpture", "reading"])
    assert letters == {"science": "S", "reading": "R", "reasoning": "E", "sculpture": "C"}
    shown = [handle.get_label() for handle in style.family_handles(letters, letters=True)]
    assert shown == ["S: science", "R: reading", "E: reasoning", "C: sculpture"]


def test_a_family_that_the_package_does_not_know_is_grey():
    table = described(4).assign(family="astrology")
    figure = fig3.draw(cross(4), table)
    rows, _ = strips_of(figure, 4)
    assert {to_hex(p.get_facecolor()) for p in rows.patches} == {style.GREY}
    assert "A: astrology" in [t.get_text() for t in figure.legends[0].get_texts()]


class TestSummary:
    def test_draws_shares_ratios_and_differences_of_the_tables(self):
        found, shares, own = summary(6)
        above, left, right = fig3.draw_summary(found, shares, own).axes
        assert points_of(above)[:, 0] == pytest.approx(shares["share"])
        assert ticks(above.yaxis) == list(shares["source"])
        rows = own[own["ratio_defined"]].sort_values("difference")
        n = len(rows)
        assert points_of(left)[:n, 0] == pytest.approx(rows["own"])
        assert points_of(left)[n:, 0] == pytest.approx(rows["best_other_ratio"])
        drawn = points_of(right)[:, 0]
        assert drawn[np.isfinite(drawn)] == pytest.approx(rows["difference"])

    def test_names_every_task_and_the_one_that_beats_it(self):
        found, shares, own = summary(6)
        figure = fig3.draw_summary(found, shares, own)
        _, left, right = figure.axes
        rows = own.set_index("eval_task").fillna({"best_other": ""})
        assert [t.get_text() for t in left.texts] == ["nothing to forget"]
        named = ticks(left.yaxis), ticks(right.child_axes[0].yaxis)
        for task, other in zip(*named, strict=True):
            assert other == (rows.loc[task.split(" (")[0], "best_other"])

    def test_with_nothing_to_forget_anywhere_it_says_so(self):
        found = cross(4, n_undefined=4)
        tables = crossanalysis.variance_shares(found), crossanalysis.own_against_others(found)
        _, left, _ = fig3.draw_summary(found, *tables).axes
        assert [t.get_text() for t in left.texts] == ["nothing to forget"] * 4
        assert heat_of(fig3.draw(found, described(4)))


class TestCompare:
    def test_draws_a_point_for_each_task_and_each_pair_that_is_defined(self):
        first, second, agreement, families = comparison(6)
        figure = fig8.draw(first, second, agreement, families)
        left, right = figure.axes
        means = [c.forget_ratio[:-1].mean(1) for c in (first, second)]
        assert points_of(left) == pytest.approx(np.stack(means, axis=1))
        marks = [line for line in right.lines if line.get_marker() in ("o", "s")]
        pairs = np.concatenate([line.get_xydata() for line in marks])
        assert len(pairs) == 5 * 6
        expected = np.stack([c.forget_ratio[:-1].ravel() for c in (first, second)], axis=1)
        assert sorted(map(tuple, pairs)) == sorted(map(tuple, expected))
        own = np.concatenate([x.get_xydata() for x in marks if x.get_marker() == "s"])
        assert own[:, 0] == pytest.approx(first.forget_ratio.diagonal()[:-1])
        assert first.tasks[-1] in figure.get_supxlabel()

    def test_tells_the_rank_correlation_and_the_numbers_of_points(self):
        *crosses, agreement, families = comparison(6)
        left, right = fig8.draw(*crosses, agreement, families).axes
        row = agreement.iloc[0]
        ends = ("rank_correlation", "rank_correlation_low", "rank_correlation_high")
        value, low, high = (f"{row[name]:.2f}".replace("-", "−") for name in ends)
        assert left.get_title(loc="left").endswith(f"\n{value} [{low}, {high}]")
        assert "(n = 5)" in left.get_title(loc="left")
        assert right.get_title(loc="left") == "all pairs (n = 30)"

    def test_with_nothing_to_forget_anywhere_it_says_so(self):
        pair = [cross(4, n_undefined=4), cross(4, condition="flipped", n_undefined=4)]
        agreement = crossanalysis.model_agreement(pair)
        figure = fig8.draw(*pair, agreement, described(4))
        assert all(task in figure.get_supxlabel() for task in pair[0].tasks)
        assert "rank correlation\nundefined" in figure.axes[0].get_title(loc="left")
        assert fig9.draw(pair[:1], agreement.iloc[:0], described(4))

    def test_matrices_of_other_tasks_are_refused(self):
        first, _, agreement, families = comparison(6)
        with pytest.raises(InputError, match="two matrices of the tasks"):
            fig8.draw(first, cross(4), agreement, families)


class TestModels:
    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    def test_every_model_has_the_same_tasks_in_the_same_order_and_the_same_colours(self, n):
        crosses, agreement, families = models(6, n)
        figure = fig9.draw(crosses, agreement, families)
        panels = [a for a in figure.axes if a.images]
        assert len(panels) == n
        order = [crosses[0].tasks.index(t) for t in ticks(panels[-1].xaxis)]
        for panel, found in zip(panels, crosses, strict=True):
            drawn = panel.images[0].get_array().filled(np.nan)
            expected = found.forget_ratio[np.ix_(order, order)]
            assert drawn == pytest.approx(expected, nan_ok=True)
            assert panel.images[0].get_clim() == RATIO_LIMITS

    def test_agreement_of_each_two_models_is_drawn_and_of_one_there_is_none(self):
        crosses, agreement, families = models(6, 3)
        axes = fig9.draw(crosses, agreement, families).axes[-1]
        assert points_of(axes)[:, 0] == pytest.approx(agreement["rank_correlation"])
        assert ticks(axes.yaxis) == [
            "gemma-3-270m\ngpt-j-6b",
            "gemma-3-270m\na-model-with-a-long-name",
            "gpt-j-6b\na-model-with-a-long-name",
        ]
        assert "(n = 4 to 5 tasks)" in axes.get_xlabel()
        alone = fig9.draw(*models(6, 1))
        assert not [a for a in alone.axes if "rank correlation" in a.get_xlabel()]

    def test_models_with_other_tasks_are_refused(self):
        with pytest.raises(InputError, match="the same tasks in all"):
            fig9.draw([cross(4), cross(6)], pd.DataFrame(), described(6))


class TestExample:
    def test_lines_are_the_questions_probabilities_before_those_of_all(self):
        table = confidences()
        figure = fig1.draw(table, questions(long=False)[:2])
        for number, axes in enumerate(figure.axes[2:4]):
            row = table.iloc[number]
            lines = {line.get_label(): line.get_ydata() for line in axes.lines}
            expected = row[["base", "tuned", "forgotten"]].tolist()
            assert lines["true response"] == pytest.approx(expected)
            assert lines["distractor"] == pytest.approx([1 - p for p in expected])
            alike = table[(table.eval_task == row.eval_task) & (table.split == row.split)]
            medians = [np.median(alike[phase]) for phase in ("base", "tuned", "forgotten")]
            assert lines["true, median of all n"] == pytest.approx(medians)

    def test_text_tells_inside_from_outside_and_the_label_trained_towards(self):
        figure = fig1.draw(confidences(), questions(long=False)[:2])
        inside, outside = ("\n".join(t.get_text() for t in a.texts) for a in figure.axes[:2])
        assert "inside the forgetting set (n = 9)" in inside
        assert "distractor (trained towards): a planet" in inside
        assert "outside the forgetting set (n = 9)" in outside
        assert "distractor: it is a $3 star" in outside  # its true response is the second
        assert "trained towards" not in outside

    def test_a_long_prompt_keeps_its_end_and_says_that_there_was_more(self):
        figure = fig1.draw(confidences(), questions(long=True)[:1])
        text = [t.get_text() for t in figure.axes[0].texts]
        assert text[2].startswith("… ")
        assert text[5].endswith("Answer:")

    @given(
        st.lists(st.text("abcde", min_size=1, max_size=15), min_size=1, max_size=60),
        st.sampled_from(["beginning", "end"]),
    )
    def test_wrapping_keeps_words_whole_and_says_what_it_leaves_out(self, words, keep):
        lines = fig1._wrapped(" ".join(words), 4, keep=keep)
        assert len(lines) <= 4
        assert max(map(len, lines)) <= 44
        kept = " ".join(lines).split()
        if "…" not in kept:
            assert kept == words
        elif keep == "end":
            assert kept[0] == "…"
            assert kept[1:] == words[len(words) - len(kept) + 1 :]
        else:
            assert kept[-1] == "…"
            assert kept[:-1] == words[: len(kept) - 1]

    def test_a_question_that_the_table_does_not_have_is_refused(self):
        other = Example("t/x/999", ("p", "p"), ("a", "b"), 0)
        with pytest.raises(InputError, match=r"t/x/999.*expected one row"):
            fig1.draw(confidences(), [other])
        with pytest.raises(InputError, match="expected one row"):
            fig1.draw(pd.concat([confidences()] * 2), questions(long=False)[:1])
