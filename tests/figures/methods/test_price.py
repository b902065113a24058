"""What forgetting costs, on made-up results whose truth is known."""

import re

import numpy as np
import pytest
from made_up_methods import NLL, STUDY, answers, of_base, results

from forgetlib.errors import InputError
from forgetlib.figures.intervals import Interval, as_columns, with_intervals
from forgetlib.figures.methods import price, reach
from forgetlib.figures.methods.reach import NEW, OTHER, SET
from forgetlib.figures.numbers import between, estimate_of, number


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


def of_skill(table, task="arc_easy"):
    return table[table["eval_task"] == task]


def test_methods_are_sorted_by_what_they_do(table):
    """By the truth that they are made up of: NPO leaves its own questions, the filter new ones."""
    assert price.groups(of_skill(table, "sst2_nonce")) == {
        "generalises": ["random", "gradient_difference(retain)"],
        "spares": ["prompt_filter(retain)"],
        "damages": ["gradient_ascent"],
        "inverts": [],
        "weak": ["npo"],
        "open": [],
    }
    first, second = price.finding(table).split(" ARC Easy: ")
    assert first.startswith(
        "SST-2 in made-up words: after random labels and gradient difference (one seed) new "
        "questions are forgotten too, without damage to other tasks (AUROC lost: 0."
    )
    assert first.endswith(
        "; after prompt filter new questions are known, and its own are not. Of the other 2, 1 "
        "damages other tasks and 1 leaves its own questions known."
    )
    assert second.startswith("after random labels new questions are forgotten too, without")
    with pytest.raises(InputError, match="one skill"):
        price.groups(table)


def changed(table, method, **intervals):
    """The table with other intervals of a method."""
    found = table.copy()
    for name, (low, high) in intervals.items():
        for column, value in as_columns(name, Interval((low + high) / 2, low, high)).items():
            found.loc[found["method"] == method, column] = value
    return found


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        # More likely turned round than not, and then less likely.
        ({"auroc_turned": (-0.1, 0.2)}, "open"),
        ({"auroc_turned": (-0.2, 0.1)}, "generalises"),
        ({}, "generalises"),
        # Below 0.5, and less than half turned round: as one that knows nothing may be.
        ({"auroc": (0.37, 0.49), "auroc_left": (-0.3, -0.2)}, "generalises"),
        ({"auroc_turned": (0.01, 0.1)}, "inverts"),
        ({"auroc_turned": (0.01, 0.1), "nll_rise": (0.5, 1.4)}, "inverts"),
        ({"set_auroc": (0.62, 0.7)}, "weak"),
        ({"set_auroc": (0.55, 0.7)}, "generalises"),
        ({"nll_rise": (1.2, 1.4)}, "damages"),
        ({"nll_rise": (1.2, 1.4), "auroc_turned": (0.01, 0.1)}, "damages"),
        ({"nll_rise": (0.5, 1.4)}, "open"),
        ({"nll_rise": (np.nan, np.nan)}, "open"),
        ({"auroc_left": (-0.1, 0.1)}, "open"),
        ({"auroc_left": (0.1, 0.2)}, "spares"),  # shown to be lost or not, less than half is
        ({"auroc_left": (0.1, 0.2), "set_auroc": (0.55, 0.7)}, "open"),  # its own may be known
    ],
    ids=str,
)
def test_the_first_rule_that_holds_decides(table, intervals, expected):
    of = price.groups(changed(of_skill(table), "random", **intervals))
    assert next(g for g, methods in of.items() if "random" in methods) == expected


def test_a_skill_that_was_not_known_is_told(table):
    unknown = table.copy()
    unknown.loc[unknown["eval_task"] == "arc_easy", "auroc_known_low"] = 0.4
    assert price.finding(unknown).endswith(" ARC Easy was not shown to be known before.")


def test_where_none_generalises_the_sentence_says_no_more_than_that(table):
    one = of_skill(table)[of_skill(table)["method"] == "random"].assign(n_seeds=1)
    said = price.finding(changed(one, "random", auroc_turned=(0.05, 0.15)))
    assert said == (
        "ARC Easy: the one method is not shown to make it forgotten on new questions without "
        "damage to other tasks. It turns it round. One seed."
    )
    lost = estimate_of(one.iloc[0], "auroc_lost")
    assert price.finding(one).endswith(
        f"without damage to other tasks (AUROC lost: {lost}). One seed."
    )


def test_one_other_method_is_not_counted(table):
    two = of_skill(table)[of_skill(table)["method"].isin(["random", "npo"])]
    assert price.finding(two).endswith("). The other leaves its own questions known.")
    assert price.headline(two).endswith("]; the other leaves its own questions known)")


def test_of_what_is_not_decided_few_are_named_and_it_is_said_where_harm_tells_nothing(table):
    """That the interval of the harm is too wide is told by its width, wherever it lies."""
    arc = of_skill(table)
    unsure = changed(arc, "random", nll_rise=(0.5, 1.4))
    assert price.finding(unsure).endswith(" and 1 is not decided (random labels).")
    for interval in ((-0.5, 1.6), (-3.5, 1.4)):
        assert price.finding(changed(arc, "random", nll_rise=interval)).endswith(
            " and 1 is not decided (random labels; the interval of the harm is so wide that "
            "damage could not have been excluded even had nothing changed)."
        )
    every = arc.assign(auroc_left_low=-1.0, auroc_left_high=1.0, set_auroc_low=0.4)
    every = every.assign(nll_rise_low=0.5, nll_rise_high=1.5)
    assert price.groups(every)["open"] == list(arc["method"])
    assert price.finding(every).endswith(". Of these, 4 are not decided.")


def test_methods_are_counted_skill_by_skill_and_those_that_generalise_are_named(table):
    head, _, first, second = price.counts(table).splitlines()
    heads = [price.COLUMNS[g] for g in ("generalises", "spares", "damages", "weak")]
    assert head == f"| skill | methods tried | {' | '.join(heads)} |"  # none is open or inverts
    lost = between(
        of_skill(table, "sst2_nonce")
        .set_index("method")
        .loc[["random", "gradient_difference(retain)"], "auroc_lost"]
    )
    named = f"random labels and gradient difference (one seed); AUROC lost: {lost}"
    assert first == f"| SST-2 in made-up words | 5 | 2 ({named}) | 1 | 1 | 1 |"
    assert second.startswith("| ARC Easy | 4 | 1 (random labels; AUROC lost: ")
    assert second.endswith("]) | 1 | 1 | 1 |")
    none = price.counts(table.assign(set_auroc_low=0.7)).splitlines()[0]
    assert none == f"| skill | methods tried | {' | '.join(heads[i] for i in (0, 2, 3))} |"
    arc = table["eval_task"] == "arc_easy"
    unknown = table.assign(auroc_known_low=table["auroc_known_low"].mask(arc, 0.4))
    assert len(price.counts(unknown).splitlines()) == 3
    assert price.counts(unknown[arc]) == "No skill was shown to be known before."


def test_where_harm_was_not_measured_nothing_is_called_harmless(table):
    without = table.assign(**dict.fromkeys(with_intervals(["nll_rise"]), np.nan))
    assert price.groups(of_skill(without))["generalises"] == []
    assert "ARC Easy: none of 4 methods is shown" in price.finding(without)
    assert [t.get_text() for t in price.draw(without).axes[1].texts] == ["not measured"]


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
    by_skill = [of.set_index("method") for _, of in table.groupby("eval_task", sort=False)]
    forgotten = by_skill[0].loc[["random", "gradient_difference(retain)"], "auroc_lost"]
    lost = between(forgotten), estimate_of(by_skill[1].loc["random"], "auroc_lost")
    assert (
        " ".join(figure.get_suptitle().split())
        == price.headline(table)
        == (
            "Forgotten on new questions without damage to other tasks: SST-2 in made-up words "
            f"after random labels and gradient difference (one seed) (AUROC lost: {lost[0]}; of "
            "the other 3, 1 keeps new questions, 1 damages other tasks and 1 leaves its own "
            f"questions known); ARC Easy after random labels (AUROC lost: {lost[1]}; of the other "
            "3, 1 keeps new questions, 1 damages other tasks and 1 leaves its own questions known)"
        )
    )
    none = price.headline(table.assign(set_auroc_low=0.7, n_seeds=1))
    assert none.endswith(
        "after none of 5 methods (1 damages other tasks and 4 leave their own questions known); "
        "ARC Easy after none of 4 methods (1 damages other tasks and 3 leave their own questions "
        "known); one seed"
    )
    arc = table["eval_task"] == "arc_easy"
    assert "ARC Easy (one seed) after random labels (AUROC" in price.headline(
        table.assign(n_seeds=table["n_seeds"].mask(arc, 1))
    )
    assert price.headline(table.assign(auroc_known_low=0.4)).startswith("No skill was shown")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "SST-2 in made-up words",
        "ARC Easy",
        *price.LEGEND,
    ]
    # What is called damage is shaded, to the end of the panel.
    (damage,) = right.patches
    assert (damage.get_x(), damage.get_x() + damage.get_width()) == (
        pytest.approx(price.DAMAGE),
        pytest.approx(right.get_xlim()[1]),
    )


def test_a_table_of_something_else_is_refused(whole):
    with pytest.raises(InputError, match="what methods cost"):
        price.table(whole.drop(columns="auroc"))
    with pytest.raises(InputError, match=r"what methods cost.*auroc_turned"):
        price.groups(of_skill(price.table(whole)).drop(columns="auroc_turned"))
    with pytest.raises(InputError, match="what methods cost"):
        price.draw(whole.drop(columns="auroc"))


def test_what_the_teaching_did_is_told_apart_from_what_forgetting_did(table):
    assert table["nll_taught"].isna().all()
    asked = reach.table(STUDY, [*results(), *of_base()], answers, n_resamples=200)
    found = price.table(asked)
    for name in with_intervals(["auroc", "nll_rise"]):  # what was there stays as it was
        assert found[name].to_numpy() == pytest.approx(table[name].to_numpy())
    assert found["nll_taught"].to_numpy() == pytest.approx(1.0, abs=0.1)
    panel = price.draw(found).axes[1]
    lines = [line for line in panel.lines if tuple(line.get_ydata()) == (0, price.TICK)]
    taught = found.groupby("eval_task", sort=False)["nll_taught"].first()
    assert [line.get_xdata()[0] for line in lines] == pytest.approx(list(-taught))


@pytest.mark.parametrize(("nats", "said"), [(NLL - 1, "raised"), (NLL + 3, "lowered")])
def test_it_is_said_what_the_teaching_had_done(nats, said):
    asked = [*results(), *of_base(nll=nats)]
    found = price.table(reach.table(STUDY, asked, answers, n_resamples=100))
    size = abs(found["nll_taught"].iloc[0])
    first = price.finding(found).split(" ARC Easy: ")[0]
    assert f" Teaching it had {said} other tasks' nats a token by {number(size)} [" in first
    low, high = (float(x) for x in re.search(r"by \S+ \[(\S+), (\S+)\]\.", first).groups())
    assert low <= round(size, 2) <= high


def test_a_pre_trained_model_that_lacks_a_seed_says_nothing():
    some = [*results(), *of_base(seeds=STUDY.seeds[1:])]
    assert reach.table(STUDY, some, answers, n_resamples=50)["nll_taught"].isna().all()
