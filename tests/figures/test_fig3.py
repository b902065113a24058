"""Figure 3: the summary draws the tables beside the matrix."""

import numpy as np
import pytest
from tables import cross, described, heat_of, points_of, summary, ticks

from forgetlib.figures import crossanalysis, fig3


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
