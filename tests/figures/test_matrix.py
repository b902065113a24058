"""Matrices of tasks: cells, strips of families and their colours."""

from collections import Counter
from dataclasses import replace

import matplotlib.patches
import numpy as np
import pytest
from hypothesis import given, strategies as st
from matplotlib.colors import to_hex
from tables import cross, described, heat_of, ticks

from forgetlib.figures import crossanalysis, fig3, style
from forgetlib.figures.matrix import RATIO_COLOURS, RATIO_LIMITS, two_digits
from forgetlib.metrics import ratio_of


def strips_of(figure, k):
    """The two axes that name the tasks: of the rows, of the columns."""
    rows = next(a for a in figure.axes if a.get_ylabel().startswith("evaluated task"))
    columns = next(a for a in figure.axes if a.get_xlabel().startswith("task trained on"))
    return rows, columns


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
        order = crossanalysis.upgma(found.forget_ratio)
        assert [t.split(" (")[0] for t in ticks(rows.yaxis)] == [found.tasks[i] for i in order]
        assert ticks(rows.yaxis)[-1].split(" (")[0] == found.tasks[-1]
        order = crossanalysis.upgma(found.forget_ratio.T)
        assert ticks(columns.xaxis) == [found.tasks[i] for i in order]

    def test_frames_stand_round_a_tasks_own_labels(self, k):
        found = cross(k)
        figure = fig3.draw(found, described(k))
        rows, columns = (crossanalysis.upgma(m) for m in (found.forget_ratio, found.forget_ratio.T))
        frames = [p for p in heat_of(figure).patches if not p.get_fill()]
        at = {(p.get_y() + 0.5, p.get_x() + 0.5) for p in frames}
        assert at == {(i, j) for i in range(k) for j in range(k) if rows[i] == columns[j]}

    def test_an_undefined_task_is_hatched_and_says_why(self, k):
        axes = heat_of(fig3.draw(cross(k), described(k)))
        (hatched,) = (p for p in axes.patches if p.get_hatch())
        assert hatched.get_y() + 0.5 == k - 1
        assert hatched.get_width() == k
        assert [t.get_position()[1] for t in axes.texts if t.get_text() == "ratio undefined"] == [
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
        order = crossanalysis.upgma(found.forget_ratio)
        columns = crossanalysis.upgma(found.forget_ratio.T)
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
    shades = RATIO_COLOURS(np.linspace(1 / 3, 1, 50))  # from a ratio of 0
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


def test_a_colour_is_the_same_accuracy_after_random_and_after_flipped_labels():
    tuned, accuracy = 0.8, np.linspace(0.5, 0.9, 9)
    shades = []
    for condition, (low, high) in RATIO_LIMITS.items():
        ratio = ratio_of(condition)(np.full(9, tuned), accuracy)
        shades.append(RATIO_COLOURS((ratio - low) / (high - low)))
    assert shades[0] == pytest.approx(shades[1])
