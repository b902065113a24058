"""What forgetting costs, on made-up results whose truth is known."""

import numpy as np
import pytest
from made_up_methods import STUDY, answers, results

from forgetlib.errors import InputError
from forgetlib.figures import price, reach
from forgetlib.figures.intervals import Interval, as_columns, with_intervals
from forgetlib.figures.reach import NEW, OTHER


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
        new, other = (whole[of & (whole["where"] == w)].iloc[0] for w in (NEW, OTHER))
        for name in with_intervals(["auroc_known", "auroc", "auroc_lost"]):
            assert row[name] == new[name]
        for name in with_intervals(["nll_rise"]):
            assert row[name] == other[name]
        assert row["auroc"] == pytest.approx(row["auroc_known"] - row["auroc_lost"])


def test_methods_are_sorted_by_what_they_do(table):
    """By the truth that they are made up of: ascent harms, the filter spares new questions."""
    assert price.groups(table) == {
        "generalises": ["random", "npo", "gradient_difference(retain)"],
        "spares": ["prompt_filter(retain)"],
        "inverts": [],
        "damages": ["gradient_ascent"],
        "open": [],
    }
    said = price.finding(table)
    assert said.startswith("New questions of both skills lose AUROC (0.")
    assert "after random labels, NPO and gradient difference; damaged, by up to 4.0 nats" in said
    assert said.endswith("next to nothing is lost after prompt filter")


def changed(table, method, **intervals):
    """The table with other intervals of a method in one skill."""
    found = table.copy()
    place = found.index[(found["method"] == method) & (found["eval_task"] == "arc_easy")]
    for name, (low, high) in intervals.items():
        for column, value in as_columns(name, Interval((low + high) / 2, low, high)).items():
            found.loc[place, column] = value
    return found


def test_one_skill_decides_whether_a_method_inverts_or_harms(table):
    def group(table, method):
        return next(g for g, of in price.groups(table).items() if method in of)

    assert group(changed(table, "npo", auroc=(0.3, 0.4)), "npo") == "inverts"
    assert group(changed(table, "npo", nll_rise=(1.2, 1.4)), "npo") == "damages"
    assert group(changed(table, "npo", nll_rise=(0.5, 1.4)), "npo") == "open"
    assert group(changed(table, "npo", auroc_lost=(-0.1, 0.3)), "npo") == "open"
    assert group(changed(table, "prompt_filter(retain)", auroc_lost=(-0.1, 0.1)), "npo") != "open"
    # A skill that was not known before has no say.
    unknown = changed(table, "npo", auroc_lost=(-0.1, 0.3))
    unknown.loc[unknown["eval_task"] == "arc_easy", "auroc_known_low"] = 0.4
    assert group(unknown, "npo") == "generalises"
    said = price.finding(unknown)
    assert said.startswith("New questions of SST-2 in made-up words lose AUROC")
    unknown["auroc_known_low"] = 0.4
    assert price.finding(unknown) == "No skill was shown to be known before forgetting"


def test_where_harm_was_not_measured_nothing_is_called_harmless(table):
    without = table.assign(**dict.fromkeys(with_intervals(["nll_rise"]), np.nan))
    assert price.groups(without)["generalises"] == []
    said = price.finding(without)
    assert said.startswith("After none of 5 methods") and "not decided after random labels" in said
    assert [t.get_text() for t in price.draw(without).axes[1].texts] == ["not measured", "damage"]


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
