"""Figure 7: each task's curve over the size of the forgetting set."""

import pytest
from synthetic import family
from tables import by_name, points_of, sizes_table

from forgetlib.figures import fig7, style


class TestSizes:
    def test_each_task_has_a_panel_with_its_own_curve(self):
        table = sizes_table(6)
        panels = [a for a in fig7.draw(table).axes if a.get_visible()]
        assert len(panels) == 6
        for axes in panels:
            rows = table[table["eval_task"] == by_name(axes.get_title().split("\n")[0])]
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
            assert (
                y
                == table.set_index("eval_task")["forgotten"][
                    by_name(axes.get_title().split("\n")[0])
                ]
            )
        assert "only" not in fig7.draw(sizes_table(4)).get_supxlabel()

    def test_panels_that_are_not_used_vanish_and_leave_tick_labels_above_them(self):
        figure = fig7.draw(sizes_table(21))
        assert sum(a.get_visible() for a in figure.axes) == 21
        with style.style():
            figure.draw_without_rendering()
        lowest = [a for a in figure.axes if a.get_visible()][-5:]
        assert all(a.xaxis.get_tick_params()["labelbottom"] for a in lowest)


def test_the_table_is_that_of_figure_2_with_a_row_a_size():
    results = family("t", 0.5, 0.9, 0.6) + family("t", 0.5, 0.9, 0.8, size=50)
    table = fig7.table(results, n_resamples=20)
    assert table["size"].tolist() == [50, 200]
    assert table["forgotten"].tolist() == pytest.approx([0.8, 0.6])
    assert fig7.draw(table).axes
