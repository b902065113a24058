"""What forgetting costs, on made-up results whose truth is known."""

import numpy as np
import pytest
from made_up_methods import STUDY, answers, results

from forgetlib.errors import InputError
from forgetlib.figures import price, reach
from forgetlib.figures.intervals import Interval, as_columns, with_intervals
from forgetlib.figures.reach import NEW, OTHER, SET


@pytest.fixture(scope="module")
def whole():
    return reach.table(STUDY, results(), answers, n_resamples=200)


@pytest.fixture(scope="module")
def table(whole):
    return price.table(whole)


def test_its_numbers_are_those_of_new_questions_and_of_other_tasks(whole, table):
    assert len(table) == 5 + 4  # methods of the first skill, of which one is tried there alone
    for row in table.to_dict("records"):
        of = (whole["eval_task"] == row["eval_task"]) & (whole["method"] == row["method"])
        own, new, other = (whole[of & (whole["where"] == w)].iloc[0] for w in (SET, NEW, OTHER))
        assert row["set_auroc_low"] == own["auroc_low"]
        for name in with_intervals(["auroc_known", "auroc", "auroc_lost"]):
            assert row[name] == new[name]
        for name in with_intervals(["nll_rise"]):
            assert row[name] == other[name]
        assert row["auroc"] == pytest.approx(row["auroc_known"] - row["auroc_lost"])


def test_methods_are_sorted_by_what_they_do(table):
    """By the truth that they are made up of: NPO leaves its own questions, the filter new ones."""
    assert price.groups(table) == {
        "generalises": ["random", "gradient_difference(retain)"],
        "spares": ["prompt_filter(retain)"],
        "inverts": [],
        "weak": ["npo"],
        "damages": ["gradient_ascent"],
        "open": [],
    }
    said = price.finding(table)
    assert said.startswith("New questions of both skills lose AUROC (0.")
    # It was tried on the first skill and seed alone.
    assert "after random labels and gradient difference (one skill, one seed); other tasks" in said
    assert "are damaged, by up to 4.0 nats a token, after gradient ascent" in said
    assert "next to nothing is lost on new questions after prompt filter" in said
    assert said.endswith("not even its own questions are forgotten after NPO")


def changed(table, method, **intervals):
    """The table with other intervals of a method in one skill."""
    found = table.copy()
    place = found.index[(found["method"] == method) & (found["eval_task"] == "arc_easy")]
    for name, (low, high) in intervals.items():
        for column, value in as_columns(name, Interval((low + high) / 2, low, high)).items():
            found.loc[place, column] = value
    return found


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ({}, "generalises"),
        ({"auroc": (0.3, 0.4)}, "inverts"),
        ({"set_auroc": (0.62, 0.7)}, "weak"),
        ({"set_auroc": (0.55, 0.7)}, "generalises"),
        ({"nll_rise": (1.2, 1.4)}, "damages"),
        ({"nll_rise": (1.2, 1.4), "auroc": (0.3, 0.4)}, "damages"),
        ({"nll_rise": (0.5, 1.4)}, "open"),
        ({"auroc_lost": (-0.1, 0.3)}, "open"),
        ({"auroc_lost": (0.01, 0.03)}, "open"),  # shown, and less than a tenth: of one skill only
    ],
    ids=str,
)
def test_one_skill_decides_whether_a_method_inverts_or_harms(table, intervals, expected):
    of = price.groups(changed(table, "random", **intervals))
    assert next(g for g, methods in of.items() if "random" in methods) == expected


def test_a_loss_that_is_shown_and_small_is_next_to_nothing(table):
    assert "prompt_filter(retain)" in price.groups(table)["spares"]
    one = table[table["eval_task"] == "arc_easy"]
    small = changed(one, "random", auroc_lost=(0.01, 0.03))
    assert "random" in price.groups(small)["spares"]
    open_ = changed(one, "prompt_filter(retain)", auroc_lost=(-0.1, 0.1))
    assert "prompt_filter(retain)" in price.groups(open_)["open"]


def test_a_skill_that_was_not_known_has_no_say(table):
    unknown = changed(table, "random", auroc_lost=(-0.1, 0.3))
    unknown.loc[unknown["eval_task"] == "arc_easy", "auroc_known_low"] = 0.4
    assert "random" in price.groups(unknown)["generalises"]
    said = price.finding(unknown)
    assert said.startswith("New questions of SST-2 in made-up words lose AUROC")
    assert "gradient difference (one seed)" in said
    unknown["auroc_known_low"] = 0.4
    assert price.finding(unknown) == "No skill was shown to be known before forgetting"


def test_where_none_generalises_the_sentence_says_no_more_than_that(table):
    """A method that turns the skill round takes it, too, and does no damage."""
    one = table[(table["eval_task"] == "arc_easy") & (table["method"] == "random")]
    said = price.finding(changed(one, "random", auroc=(0.25, 0.35)).assign(n_seeds=1))
    assert said == (
        "No method is shown to take what it knew of new questions of ARC Easy without damage, and "
        "without turning it round; new questions are answered the wrong way round after random "
        "labels; one seed"
    )
    assert "lose AUROC (0.45), and" in price.finding(one)


def test_where_harm_was_not_measured_nothing_is_called_harmless(table):
    without = table.assign(**dict.fromkeys(with_intervals(["nll_rise"]), np.nan))
    assert price.groups(without)["generalises"] == []
    said = price.finding(without)
    assert said.startswith("No method is shown") and "not decided after random labels" in said
    assert [t.get_text() for t in price.draw(without).axes[1].texts] == ["not measured", "damage"]


def test_harm_is_read_where_it_was_measured_skill_by_skill(whole):
    lacking = whole.copy()
    of = (lacking["eval_task"] == "arc_easy") & (lacking["where"] == OTHER)
    lacking.loc[of, with_intervals(["nll_rise"])] = np.nan
    assert price.table(lacking)["nll_rise"].notna().all()  # of the same family


def test_the_picture_has_a_row_a_method_and_a_mark_a_skill(table):
    figure = price.draw(table)
    figure.draw_without_rendering()
    left, right = figure.axes
    names = [t.get_text() for t in left.get_yticklabels()]
    assert sorted(names) == [
        "NPO",
        "gradient ascent",
        "gradient difference, 1 seed",
        "prompt filter",
        "random labels",
    ]
    assert names[0] == "prompt filter"  # at the bottom: what is kept
    for axes, measure in ((left, "auroc"), (right, "nll_rise")):
        for container, (_, of) in zip(
            axes.containers, table.groupby("eval_task", sort=False), strict=True
        ):
            (line, *_) = container.lines
            assert line.get_xdata() == pytest.approx(of[measure].to_numpy())
            rows = [names[round(y)] for y in line.get_ydata()]
            assert [r.split(",")[0] for r in rows] == [price.method_title(m) for m in of["method"]]
    assert " ".join(figure.get_suptitle().split()) == price.finding(table)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "SST-2 in made-up words",
        "ARC Easy",
    ]


def test_a_table_of_something_else_is_refused(whole):
    with pytest.raises(InputError, match="what methods cost"):
        price.table(whole.drop(columns="auroc"))
    with pytest.raises(InputError, match="what methods cost"):
        price.draw(whole.drop(columns="auroc"))
