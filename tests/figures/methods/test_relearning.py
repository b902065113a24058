"""What little training brings back: the sentence and the picture, on models of known truth."""

import numpy as np
import pandas as pd
import pytest
from test_rungs import FEW, MANY, RUNGS, SHUFFLED, TRUTHS, seeds

from forgetlib.errors import InputError
from forgetlib.figures import verdicts
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.methods import relearning, rungs
from forgetlib.figures.methods.rungs import Ladder
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.style import DARK_GREY

METHODS = {"random": verdicts.REMOVED, "npo": verdicts.SUPPRESSED, "rmu": verdicts.KEPT}


@pytest.fixture(scope="module")
def table():
    """Of three methods: gone, hidden, and one that took nothing."""
    return rungs.table(
        {("sst2", m): Ladder(seeds(*TRUTHS[truth]), RUNGS, 300) for m, truth in METHODS.items()}
    )


GIVEN = "Trained again on 8 labels (AUROC of never-taught models: 0.51 before, 0.56 after), models"
N_SEEDS = seeds(*TRUTHS[verdicts.REMOVED])


def at(table, method, rung):
    return table[(table["method"] == method) & (table["rung"] == rung.name)].iloc[0]


def test_the_sentence_tells_what_is_beyond_never_taught_models(table):
    excess = {m: estimate_of(at(table, m, FEW), "excess") for m in METHODS}
    twin = estimate_of(at(table, "npo", FEW), "twin_excess")
    assert relearning.finding(table) == (
        f"{GIVEN} show of SST-2, on a scale from never-taught models (0; in round brackets, from "
        "the one that the same method was tried on) to ones that never forgot (1), "
        f"{excess['npo']} ({twin}) after NPO: more than never-taught models show; less than half "
        f"of what was taught after random labels. {WEAK}"
    )
    assert relearning.headline(table) == (
        "Of SST-2, models trained again on 8 labels show more than never-taught models show after "
        f"NPO; less than half of what was taught after random labels. {WEAK}"
    )
    shown = relearning.finding(table, "context")
    assert shown.startswith("With 8 examples in the prompt (AUROC of never-taught models: 0.51 wi")
    assert shown.endswith(
        " with), models show of SST-2 less than half of what was taught after random labels and NPO"
    )


WEAK = "Damage, or so short a training, may keep a model from learning"


def test_the_control_tells_whether_the_training_finds_a_hidden_skill(table):
    there = table.assign(locked=0.6, locked_low=0.5, locked_high=0.7)
    direct = there["kind"] == "direct"
    before = {"locked_excess": 0.3, "locked_excess_low": 0.2, "locked_excess_high": 0.4}
    after = {"locked_excess": 0.8, "locked_excess_low": 0.6, "locked_excess_high": 1.0}
    told = there.assign(**{k: np.where(direct, before[k], v) for k, v in after.items()})
    told = told.assign(locked_rise=0.5, locked_rise_low=0.4, locked_rise_high=0.6)
    said = (
        "The control: models whose skill was hidden on purpose, behind another form of the "
        "question, show 0.30 [0.20, 0.40] of it before this training and 0.80 [0.60, 1.00] after, "
        "0.50 [0.40, 0.60] more"
    )
    ends = {
        True: "; it may miss one hidden in another way, and a damaged model may not learn",
        False: ", so that it is not decided whether it finds a hidden skill; damage, too, may "
        "keep a model from learning",
    }
    for finds, end in ends.items():
        rows = told.assign(finds=finds & (told["rung"] == FEW.name))
        gone = rows[rows["method"] == "random"]
        # Whatever it says, a reader can judge by it; and here every number is told.
        assert relearning.tells(gone) and relearning.tells(rows)
        few = at(table, "random", FEW)
        both = f"{estimate_of(few, 'excess')} ({estimate_of(few, 'twin_excess')})"
        less = f" {both} after random labels: less than half of what was taught"
        assert less in relearning.finding(rows)
        wide = gone.assign(excess_high=0.7)
        few = at(wide, "random", FEW)
        both = f"{estimate_of(few, 'excess')} ({estimate_of(few, 'twin_excess')})"
        assert f" {both} after random labels: not decided" in relearning.finding(wide)
        assert relearning.control(rows) == f"{said}{end}"
        assert relearning.finding(rows).endswith(f" what was taught. {said}{end}")
        assert relearning.headline(rows).endswith(
            " random labels. Where it was hidden on purpose: 0.30 [0.20, 0.40] of it before this "
            "training and 0.80 [0.60, 1.00] after"
        )
        assert "hidden on purpose" not in relearning.finding(rows, "context")
    for axes in relearning.draw(told).axes[:2]:
        assert "hidden on purpose" in axes.get_legend_handles_labels()[1]
        assert list(axes.containers[4].lines[0].get_ydata()) == [0.6] * 3


def test_without_a_control_the_weakness_of_the_test_is_told(table):
    assert relearning.control(table) == relearning.control(table, brief=True) == WEAK
    assert not relearning.tells(table[table["method"] == "random"])
    assert not relearning.tells(table[table["kind"] != "relearned"])


def signed(table, method, shown, high):
    """Say of one method what there is with the sign corrected, and to whom it is compared."""
    row = at(table, method, FEW).to_dict() | {"rung": "sign corrected", "kind": "signed"}
    of_method = pd.DataFrame([row | {"shown": shown, "excess_low": 0.0, "excess_high": high}])
    return pd.concat([table, of_method], ignore_index=True)


def test_what_else_would_give_the_same_decides_nothing(table):
    """What a method may have taught, and a skill whose sign is turned."""
    assert relearning.finding(signed(table, "random", False, 0.4)) == relearning.finding(table)
    turned = relearning.finding(signed(table, "random", False, 0.6))
    assert turned.endswith(f"models show; after random labels it is not decided. {WEAK}")
    for low, high in ((-0.1, 0.9), (np.nan, np.nan)):  # a twin that learns as fast, or faster
        fast = table.assign(twin_excess_low=low, twin_excess_high=high)
        for rows in (fast, fast.assign(twin=np.nan)):  # or there is none
            assert "NPO" in relearning.finding(rows).split("; ")[-1]
            assert "it is not decided" in relearning.finding(rows)
    slow = table.assign(twin_excess_high=0.6)  # to which half of it would have come back
    assert "less than half" not in relearning.finding(slow)
    assert "less than half of what was" in relearning.finding(slow.assign(twin=np.nan))
    taught = relearning.finding(signed(table, "npo", True, 0.9))
    assert taught.endswith(
        "models show of SST-2 less than half of what was taught after random labels; after NPO it "
        f"is not decided. {WEAK}"
    )


def test_in_few_words_it_is_said_why_a_number_that_seems_to_decide_does_not(table):
    with_control = table.assign(
        **dict.fromkeys(with_intervals(["locked_excess", "locked_rise"]), 0.9),
        finds=True,
        twin_excess_low=-0.1,
    )
    assert at(table, "npo", FEW)["excess_low"] > 0
    said = relearning.finding(with_control, exact=False)
    assert f" after NPO: {relearning.BESIDE}." in said and "not decided" not in said
    every = relearning.finding(with_control)
    assert " after NPO: not decided." in every and relearning.BESIDE not in every
    npo = with_control["method"] == "npo"
    small = with_control.assign(excess_low=with_control["excess_low"].mask(npo, -0.1))
    assert " after NPO: not decided." in relearning.finding(small, exact=False)


def test_what_the_seeds_at_the_dose_do_not_show_alone_is_not_said(table):
    """A model that still knows its own questions, or has turned them, has not forgotten."""
    locked = dict.fromkeys(with_intervals(["locked_excess", "locked_rise"]), 0.9)
    npo = table["method"] == "npo"
    words = table["at_dose"].mask(npo, "yes no no yes yes")
    few = {"dose_excess": 0.3, "dose_excess_low": -0.1, "dose_excess_high": 0.7}
    twin = {"dose_twin_excess": 0.2, "dose_twin_excess_low": -0.2, "dose_twin_excess_high": 0.6}
    own = "this is not shown of the 3 of 5 seeds that reached their dose, 0.30 [−0.10, 0.70]"
    both = own.replace("−0.10", "0.10") + " (0.20 [−0.20, 0.60])"
    for changes, said in (
        (few | twin, own),
        (few | twin | {"dose_excess_low": 0.1}, both),
        (dict.fromkeys([*few, *twin], np.nan), "only 3 of 5 seeds reached their dose"),
    ):
        rows = table.assign(at_dose=words)
        rows = rows.assign(**{k: rows[k].mask(npo, v) for k, v in changes.items()})
        without = relearning.finding(rows)
        assert "more than never" not in without and "after NPO it is not decided" in without
        for exact in (True, False):
            told = relearning.finding(rows.assign(**locked, finds=True), exact=exact)
            assert f" after NPO: {relearning.MORE}, but {said}" in told
        lines = [line for axes in relearning.draw(rows).axes for line in axes.lines]
        grey = [line for line in lines if line.get_ls() == ":" and line.get_color() == DARK_GREY]
        assert len(grey) == 2 and "a seed not at its dose" in [line.get_label() for line in grey]
    less = table.assign(**{k: table[k].mask(~npo, v) for k, v in (few | twin).items()})
    assert relearning.finding(less) == relearning.finding(table)  # what does not come back


def test_a_method_of_one_seed_is_marked_where_others_have_more(table):
    one = table.assign(n_seeds=table["n_seeds"].mask(table["method"] == "npo", 1))
    assert " after NPO (one seed): more than never" in relearning.finding(one)
    assert "never-taught models show after NPO (one seed); less" in relearning.headline(one)
    assert "seed" not in relearning.finding(table.assign(n_seeds=1))
    titles = [axes.get_title(loc="left").split("\n")[0] for axes in relearning.draw(one).axes]
    assert titles[:2] == ["NPO, 1 seed", f"random labels, {len(N_SEEDS)} seeds"]


def test_where_nothing_is_beyond_never_taught_models_no_scale_is_told(table):
    assert relearning.finding(table[table["method"] == "random"]) == (
        f"{GIVEN} show of SST-2 less than half of what was taught after random labels. {WEAK}"
    )


def test_single_seeds_are_drawn_where_there_are_several(table):
    one = table.assign(seeds=table["seeds"].str.split().str[0])
    # Each is drawn, beside their mean, where there are several.
    dotted = [
        [line for axes in relearning.draw(t).axes for line in axes.lines if line.get_ls() == ":"]
        for t in (table, one)
    ]
    assert [len(lines) for lines in dotted] == [2 * len(N_SEEDS), 0]
    rows = [at(table, "npo", rung) for rung in (FEW, MANY)]
    first = [float(row["seeds"].split()[0]) for row in rows]
    assert list(dotted[0][0].get_ydata()[1:]) == first


def test_what_had_not_to_come_back_is_left_out(table):
    assert list(relearning.judged(table)["method"]) == ["npo", "random"]  # the most first


def test_without_never_taught_models_nothing_is_said(table):
    nothing = table.assign(excess=np.nan, excess_low=np.nan, excess_high=np.nan)
    assert relearning.finding(nothing) == ""
    assert relearning.headline(nothing) == "No model was taught again yet"
    with pytest.raises(InputError, match="picture of models that were taught again"):
        relearning.draw(nothing)
    with pytest.raises(InputError, match="table of the ladder"):
        relearning.draw(table.drop(columns="oracle"))


def test_the_picture_has_the_numbers_of_the_table(table):
    figure = relearning.draw(table)
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.has_data()]
    assert len(panels) == 2
    for axes, method, name in zip(panels, ("npo", "random"), ("NPO", "random labels"), strict=True):
        excess = estimate_of(at(table, method, FEW), "excess")
        twin = estimate_of(at(table, method, FEW), "twin_excess")
        assert axes.get_title(loc="left") == f"{name}, {len(N_SEEDS)} seeds\n{excess}\n({twin})"
        drawn = [c.lines[0].get_ydata() for c in axes.containers]
        direct = table[(table["method"] == method) & (table["rung"] == "directly")].iloc[0]
        for role, y in zip(relearning.ROLES[:4], drawn, strict=False):
            rows = direct, at(table, method, FEW), at(table, method, MANY)
            assert list(y) == [row[role] for row in rows]
        assert list(drawn[4]) == [at(table, method, SHUFFLED)["forgotten"]]
        assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "8", "128"]
    without = relearning.draw(table[table["rung"] != SHUFFLED.name])
    named = without.axes[0].get_legend_handles_labels()[1]
    assert not any("random labels" in name for name in named)


def test_no_text_leaves_the_page_also_where_a_row_is_full(table):
    more = table[table["method"] == "random"].assign(method="gradient_ascent")
    for rows in (table, pd.concat([table, more], ignore_index=True)):
        figure = relearning.draw(rows)
        figure.draw_without_rendering()
        for text in figure.findobj(lambda a: hasattr(a, "get_text") and a.get_text()):
            box = text.get_window_extent()
            if text.get_visible() and box.width:
                inside = figure.bbox
                assert box.x0 >= inside.x0 - 1 and box.x1 <= inside.x1 + 1, text.get_text()
