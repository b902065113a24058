"""Figure 8: flipped beside random labels, in drops of accuracy that are paired."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import synthetic
from tables import comparison, cross, described, heat_of, ticks

from forgetlib.errors import InputError
from forgetlib.figures import fig3, fig8
from forgetlib.figures.crosstask import cross_task


def compared(others, own=0.1, *, known=True):
    """A row a task, by how much more flipped labels of others cost than random ones."""
    table = pd.DataFrame({"eval_task": [f"t{i}" for i in range(len(others))]})
    table = table.assign(ratio_defined=known, others_random=0.1, own_random=0.2)
    return table.assign(
        others_difference=others,
        others_flipped=0.1 + np.array(others),
        own_difference=own,
        own_flipped=0.2 + own,
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (compared([0.01, -0.01, 0.01, -0.01, 0.0]), "hardly matters whether they are random or"),
        (compared([0.1, 0.11, 0.1, 0.12]), "Other tasks' flipped labels forget more than random"),
        (compared([-0.1, -0.11, -0.1, -0.12]), "flipped labels forget less than random ones"),
        (compared([-0.1, 0.2, 0.1, -0.2]), "forget more than random ones is not decided"),
        (compared([0.1, 0.2]), "Too few tasks to say whether flipped labels of other tasks"),
        (compared([0.1] * 5, known=False), "No pairs of different tasks with something to forget"),
        (compared([np.nan] * 5), "No pairs of different tasks with something to forget"),
    ],
)
def test_the_finding_of_the_comparison_is_what_the_mean_difference_says(table, said):
    assert said in fig8.comparison_finding(table)


def test_the_finding_of_the_comparison_has_the_costs():
    said = fig8.comparison_finding(compared([0.1, 0.11, 0.1, 0.13], own=0.25))
    assert "flipped ones cost 0.21 of accuracy, random ones 0.10 (difference 0.110 [" in said
    assert "mean of 4 tasks). Of a task's own, they cost 0.45 and 0.20 (difference 0.250" in said


def flipped_pairs(low, *, names=("t", "u")):
    """The two tasks' pairs, with these lower ends of their ratios."""
    rows = [(e, f) for e in names for f in names]
    table = pd.DataFrame(rows, columns=["eval_task", "forget_task"])
    return table.assign(forget_ratio_low=low, ratio_defined=True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (flipped_pairs([0.6, 0.1, 0.1, 0.2]), "t falls below chance after its own flipped labels"),
        (flipped_pairs([0.6, 0.1, 0.7, 0.6]), "t and u fall below chance after their own flipped"),
        (
            flipped_pairs([0.6, 0.1, 0.7, 0.6]),
            "and after another task's in 1 of 2 pairs (accuracy: a bias",
        ),
        (
            flipped_pairs([0.4, 0.1, 0.4, 0.4]),
            "No task is shown to fall below chance after its own",
        ),
        (
            flipped_pairs([0.4] * 4).assign(ratio_defined=False),
            "The forget ratio is undefined in every task",
        ),
        (flipped_pairs([0.6], names=["t"]), "t falls below chance after its own flipped labels"),
    ],
)
def test_the_finding_of_the_matrix_is_what_is_surely_below_chance(table, said):
    assert said in fig8.finding(table)


def test_the_flipped_matrix_has_the_order_of_the_random_one():
    random, flipped, *_ = comparison(6)
    families = described(6)
    figure, other = fig8.draw(flipped, random, families), fig3.draw(random, families)

    def names(figure, axis, label):
        (axes,) = (a for a in figure.axes if getattr(a, f"get_{axis}label")().startswith(label))
        return ticks(getattr(axes, f"{axis}axis"))

    for axis, label in (("y", "evaluated task"), ("x", "task trained on")):
        assert names(figure, axis, label) == names(other, axis, label)
    drawn = heat_of(figure).images[0].get_array().filled(np.nan)
    own = [random.tasks.index(t.split(" (")[0]) for t in names(figure, "y", "evaluated task")]
    columns = [random.tasks.index(t) for t in names(figure, "x", "task trained on")]
    expected = (flipped.tuned[:, None] - flipped.forgotten)[np.ix_(own, columns)]
    assert drawn == pytest.approx(expected)
    assert np.isnan(flipped.forget_ratio).any()  # and yet no drop is undefined
    assert "ratio undefined" not in {t.get_text() for t in heat_of(figure).texts}


def test_a_drop_has_the_colours_that_it_has_in_the_picture_of_harm():
    random, flipped, *_ = comparison(6)
    image = heat_of(fig8.draw(flipped, random, described(6))).images[0]
    harm = fig3.draw_harm(fig3.table(random), described(6)).axes[0].images[0]
    assert (image.norm.vmin, image.norm.vmax) == (harm.norm.vmin, harm.norm.vmax)
    assert image.cmap == harm.cmap


def test_the_same_answers_are_the_same_drop_and_half_the_ratio_as_flipped_labels():
    """Why drops are drawn: a number of Figure 8 is one of Figure 3."""
    accuracies = [0.9, 0.8], [[0.6, 0.8], [0.4, 0.7]]
    random, flipped = (
        fig8.table(cross_task(synthetic.cross(("sst2", "piqa"), *accuracies, condition=c), c))
        for c in ("random", "flipped")
    )
    assert random["accuracy_lost"].to_numpy() == pytest.approx(flipped["accuracy_lost"].to_numpy())
    ratios = flipped["forget_ratio"].to_numpy()
    assert random["forget_ratio"].to_numpy() == pytest.approx(2 * ratios)
    assert np.isfinite(ratios).all()


def test_drops_are_those_of_the_accuracies_and_their_difference_is_paired():
    random, flipped, *_ = comparison(4)
    table = fig8.comparison_table(random, flipped).set_index("eval_task")
    for i, task in enumerate(random.tasks):
        others = np.arange(4) != i
        by = {
            name: c.tuned[i] - c.forgotten[i]
            for name, c in (("random", random), ("flipped", flipped))
        }
        for name, lost in by.items():
            assert table.loc[task, f"others_{name}"] == pytest.approx(lost[others].mean())
            assert table.loc[task, f"own_{name}"] == pytest.approx(lost[i])
        difference = (by["flipped"] - by["random"])[others].mean()
        assert table.loc[task, "others_difference"] == pytest.approx(difference)
    same = fig8.comparison_table(random, random)
    ends = [f"{k}_difference{e}" for k, e in product(fig8.WHOSE, ("", "_low", "_high"))]
    assert np.abs(same[ends].to_numpy()).max() < 1e-12  # of the same answers nothing is left
    assert (same["own_random_high"] - same["own_random_low"]).min() > 0.01


class TestCompare:
    def test_draws_a_point_for_each_task_in_both_panels(self):
        random, flipped, *_ = comparison(6)
        table = fig8.comparison_table(random, flipped)
        for axes, kind in zip(fig8.draw_comparison(table).axes, fig8.WHOSE, strict=True):
            drawn = np.concatenate([c.lines[0].get_xydata() for c in axes.containers])
            expected = table[[f"{kind}_random", f"{kind}_flipped"]].to_numpy()
            assert drawn == pytest.approx(expected)
            colours = [c.lines[0].get_color() for c in axes.containers]
            assert len(set(colours)) == 2  # the last has nothing to forget

    def test_matrices_of_other_tasks_are_refused(self):
        with pytest.raises(InputError, match="two matrices of the tasks"):
            fig8.comparison_table(cross(6), cross(4))
        with pytest.raises(InputError, match="two matrices of the tasks"):
            fig8.draw(cross(4, condition="flipped"), cross(6), described(6))


def test_the_table_is_of_the_pairs():
    _, flipped, *_ = comparison(4)
    pairs = fig8.table(flipped)
    assert pairs["condition"].unique().tolist() == ["flipped"]
    assert pairs["forget_ratio"].to_numpy() == pytest.approx(
        flipped.forget_ratio.ravel(), nan_ok=True
    )
