"""Figure 7: what each size of the forgetting set costs, and what more labels cost beyond fewer."""

import numpy as np
import pandas as pd
import pytest
from synthetic import family
from tables import by_name, described, points_of, sizes_table

from forgetlib.figures import fig7


def more(values, *, half=0.001, known=True, sizes=(32, 128)):
    """A row a task and size, of which the larger costs so much more."""
    parts = []
    for size, beyond in zip(sizes, (np.full(len(values), np.nan), np.array(values)), strict=False):
        part = pd.DataFrame({"eval_task": [f"t{i}" for i in range(len(values))], "size": size})
        ends = {"": beyond, "_low": beyond - half, "_high": beyond + half}
        parts.append(part.assign(**{f"{fig7.MORE}{end}": v for end, v in ends.items()}))
    return pd.concat(parts).assign(ratio_defined=known)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            more([0.1, 0.2, 0.1, 0.2]),
            "forget more: with 128 instead of 32, accuracy lost changes by 0.15 [",
        ),
        (more([-0.1, -0.2, -0.1, -0.2]), "More random labels forget less: with 128"),
        (
            more([-0.1, 0.2, -0.1, 0.1]),
            "forget more: with 128 instead of 32, accuracy lost changes by 0.0",
        ),
        (more([-0.1, 0.2, 0.1, 0.1]), "more in 3, less in 1 by their own intervals"),
        (more([-0.1, 0.2, 0.1, 0.1], half=0.5), "neither more nor less in any by its own interval"),
        (more([0.1, 0.2]), "Too few tasks to say whether more random labels forget more"),
        (more([0.1] * 4, sizes=(64,)), "Only one size of the forgetting set was tried, 64"),
        (more([0.1] * 4, known=False), "No task with something to forget was tried with two"),
    ],
)
def test_the_finding_is_what_the_mean_over_the_known_tasks_says(table, said):
    assert said in fig7.finding(table)


class TestSizes:
    @pytest.mark.parametrize("sizes", [(128,), (32, 128), (20, 40, 80, 160)])
    def test_each_size_of_each_task_is_a_point_in_its_task_s_row(self, sizes):
        table = sizes_table(6, sizes)
        left = fig7.draw(table, described(6)).axes[0]
        rows = dict(zip(left.get_yticks(), map(text, left.get_yticklabels()), strict=True))
        points = points_of(left)
        assert len(points) == len(table) == 6 * len(sizes)
        for name, of in table.groupby("eval_task"):
            own = points[[rows[round(y)] == name for y in points[:, 1]]]
            by_size = own[np.argsort(-own[:, 1])][:, 0]  # the smallest on top
            assert by_size == pytest.approx(of.sort_values("size")["lost"].to_numpy())

    def test_beside_it_is_what_the_largest_costs_beyond_the_smallest(self):
        table = sizes_table(6)
        left, right = fig7.draw(table, described(6)).axes
        rows = dict(zip(map(text, left.get_yticklabels()), left.get_yticks(), strict=True))
        full = table[table["size"] == 160]
        expected = [[v, rows[t]] for t, v in zip(full["eval_task"], full[fig7.MORE], strict=True)]
        assert sorted(map(tuple, points_of(right))) == pytest.approx(sorted(map(tuple, expected)))

    def test_one_size_has_no_panel_of_differences(self):
        figure = fig7.draw(sizes_table(4, (128,)), described(4))
        assert len(figure.axes) == 1
        assert figure.get_suptitle().startswith("Only one size")

    def test_tasks_with_nothing_to_forget_are_grey(self):
        table = sizes_table(6, (32, 128))
        _, right = fig7.draw(table, described(6)).axes
        known, unknown = (c.lines[0] for c in right.containers)
        assert len(known.get_xdata()) == 5
        assert len(unknown.get_xdata()) == 1
        assert known.get_color() != unknown.get_color()


def text(label):
    return by_name(label.get_text())


def test_the_table_has_a_row_a_size_and_what_it_costs_beyond_the_smallest():
    results = family("t", 0.5, 0.9, 0.6) + family("t", 0.5, 0.9, 0.8, size=50)
    table = fig7.table(results, n_resamples=20)
    assert table["size"].tolist() == [50, 200]
    assert table["forgotten"].tolist() == pytest.approx([0.8, 0.6])
    assert table["lost"].tolist() == pytest.approx([0.1, 0.3])
    assert table[fig7.MORE].tolist() == pytest.approx([np.nan, 0.2], nan_ok=True)
    assert (table[f"{fig7.MORE}_low"] <= 0.2).tolist() == [False, True]
    assert fig7.draw(table, pd.DataFrame({"eval_task": ["t"], "answer_format": "text"})).axes


def test_what_a_size_costs_beyond_the_smallest_is_paired_by_question():
    """The same questions wrong with both sizes: no resample makes a difference of them."""
    results = family("t", 0.5, 0.9, 0.6) + family("t", 0.5, 0.9, 0.6, size=50)
    row = fig7.table(results, n_resamples=50).iloc[1]
    ends = [row[f"{fig7.MORE}{end}"] for end in ("", "_low", "_high")]
    assert ends == [0, 0, 0]
    assert row["forgotten_high"] - row["forgotten_low"] > 0.05
