"""The picture of the claims is that of the verdicts' table."""

import numpy as np
import pytest
from tables import claims_table, points_of

from forgetlib.figures import claims, claims_figure


class TestClaims:
    def test_marks_are_those_of_the_verdicts(self):
        assert set(claims_figure.VERDICT_MARKS) == {
            claims.HOLDS,
            claims.DOES_NOT_HOLD,
            claims.NOT_DECIDED,
        }

    @pytest.mark.parametrize(
        ("statement", "threshold", "left", "right"),
        [
            (claims.ABOVE, 0.25, 0.25, None),
            (claims.BELOW, -0.1, None, -0.1),
            (claims.WITHIN, 0.3, -0.3, 0.3),
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
