"""The picture of the claims is that of the verdicts' table."""

import numpy as np
import pytest
from tables import claims_table, points_of

from forgetlib.figures import claims_figure, statements


class TestClaims:
    def test_marks_are_those_of_the_verdicts(self):
        assert set(claims_figure.VERDICT_MARKS) == {
            *statements.VERDICTS,
        }

    @pytest.mark.parametrize(
        ("statement", "threshold", "left", "right"),
        [
            (statements.ABOVE, 0.25, 0.25, None),
            (statements.BELOW, -0.1, None, -0.1),
            (statements.WITHIN, 0.3, -0.3, 0.3),
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
        panels = claims_figure.draw(table).axes
        kinds = [name for name in claims_figure.AXES if (table["axis"] == name).any()]
        for axes, kind in zip(panels, kinds, strict=True):
            rows = table[table["axis"] == kind]
            drawn = points_of(axes)
            values = sorted(rows["value"].dropna())
            assert sorted(drawn[np.isfinite(drawn[:, 0]), 0]) == pytest.approx(values)
            stars = [line for line in axes.lines if line.get_label() == "the paper's value"]
            assert len(stars) == rows["paper"].notna().any()
            for line in stars:
                assert line.get_xdata() == pytest.approx(rows["paper"].to_numpy(), nan_ok=True)

    def test_the_title_counts_the_verdicts(self):
        table = claims_table(21)
        verdicts = np.resize([statements.HOLDS, statements.CANNOT_DECIDE], len(table))
        said = claims_figure.draw(table.assign(verdict=verdicts)).get_suptitle()
        assert said.replace("\n", " ") == (
            f"Of {len(table)} statistics of the paper's claims, {(len(table) + 1) // 2} hold, none "
            f"does not hold and {len(table) // 2} cannot be decided by this study"
        )
