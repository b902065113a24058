"""Figure 9: every model has the same tasks, in one order and with the same colours."""

import numpy as np
import pandas as pd
import pytest
from tables import cross, described, drawn_texts, models, overlapping, points_of, ticks

from forgetlib.errors import InputError
from forgetlib.figures import fig9
from forgetlib.figures.matrix import RATIO_LIMITS
from forgetlib.figures.published import PUBLISHED_MODELS


class TestModels:
    @pytest.mark.parametrize("n", [2, 3, 4])
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
            assert panel.images[0].get_clim() == RATIO_LIMITS["random"]

    def test_agreement_of_each_two_models_is_drawn(self):
        crosses, agreement, families = models(6, 3)
        axes = fig9.draw(crosses, agreement, families).axes[-1]
        assert points_of(axes)[:, 0] == pytest.approx(agreement["rank_correlation"])
        assert ticks(axes.yaxis) == [
            "gemma-3-270m\ngpt-j-6b",
            "gemma-3-270m\na-model-with-a-long-name",
            "gpt-j-6b\na-model-with-a-long-name",
        ]
        assert "(n = 4 to 5 tasks)" in axes.get_xlabel()

    def test_of_one_model_no_matrix_is_drawn_and_the_missing_ones_are_named(self, monkeypatch):
        figure = fig9.draw(*models(6, 1))
        assert figure.axes == []
        assert figure.get_figheight() < 1
        texts = drawn_texts(figure, monkeypatch)
        said = " ".join(text for text, *_ in texts)
        assert "This study has one model, gemma-3-270m" in said
        assert all(name in said for name in PUBLISHED_MODELS)
        assert overlapping(texts) == []
        width, height = figure.get_size_inches() * figure.dpi
        assert all((e >= 0).all() and e[2] < width and e[3] < height for _, e, _ in texts)

    def test_models_with_other_tasks_are_refused(self):
        with pytest.raises(InputError, match="the same tasks in all"):
            fig9.draw([cross(4), cross(6)], pd.DataFrame(), described(6))


def test_the_table_has_a_row_a_model_and_pair():
    crosses, _, _ = models(4, 2)
    table = fig9.table(crosses)
    assert table["model"].tolist() == [c.model for c in crosses for _ in range(16)]
    expected = np.concatenate([c.forget_ratio.ravel() for c in crosses])
    assert table["forget_ratio"].to_numpy() == pytest.approx(expected, nan_ok=True)
