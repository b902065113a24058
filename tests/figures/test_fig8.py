"""Figure 8: the comparison draws the two matrices' tasks and pairs."""

import numpy as np
import pytest
from tables import by_name, comparison, cross, described, points_of

from forgetlib.errors import InputError
from forgetlib.figures import crossanalysis, fig8, fig9


class TestCompare:
    def test_draws_a_point_for_each_task_and_each_pair_that_is_defined(self):
        first, second, agreement, families = comparison(6)
        figure = fig8.draw_comparison(first, second, agreement, families)
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
        assert first.tasks[-1] in by_name(figure.get_supxlabel())

    def test_tells_the_rank_correlation_and_the_numbers_of_points(self):
        *crosses, agreement, families = comparison(6)
        left, right = fig8.draw_comparison(*crosses, agreement, families).axes
        row = agreement.iloc[0]
        ends = ("rank_correlation", "rank_correlation_low", "rank_correlation_high")
        value, low, high = (f"{row[name]:.2f}".replace("-", "−") for name in ends)
        assert left.get_title(loc="left").endswith(f"\n{value} [{low}, {high}]")
        assert "(n = 5)" in left.get_title(loc="left")
        assert right.get_title(loc="left") == "all pairs (n = 30)"

    def test_with_nothing_to_forget_anywhere_it_says_so(self):
        pair = [cross(4, n_undefined=4), cross(4, condition="flipped", n_undefined=4)]
        agreement = crossanalysis.model_agreement(pair)
        figure = fig8.draw_comparison(*pair, agreement, described(4))
        assert all(task in by_name(figure.get_supxlabel()) for task in pair[0].tasks)
        assert "rank correlation\nundefined" in figure.axes[0].get_title(loc="left")
        assert fig9.draw(pair[:1], agreement.iloc[:0], described(4))

    def test_matrices_of_other_tasks_are_refused(self):
        first, _, agreement, families = comparison(6)
        with pytest.raises(InputError, match="two matrices of the tasks"):
            fig8.draw_comparison(first, cross(4), agreement, families)


def test_the_tables_are_the_pairs_and_the_means_of_each_kind_of_labels():
    first, second, _, _ = comparison(4)
    pairs = fig8.table(second)
    assert pairs["condition"].unique().tolist() == ["flipped"]
    assert pairs["forget_ratio"].to_numpy() == pytest.approx(
        second.forget_ratio.ravel(), nan_ok=True
    )
    means = fig8.comparison_table(first, second)
    assert means["condition"].tolist() == ["random"] * 4 + ["flipped"] * 4
    expected = np.concatenate([c.forget_ratio.mean(1) for c in (first, second)])
    assert means["mean_ratio"].to_numpy() == pytest.approx(expected, nan_ok=True)
