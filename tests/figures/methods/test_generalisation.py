"""The generalisation matrix, on made-up results whose truth is known; its sentences."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_methods import FILTER, PREFERENCE, STUDY, TRUTH, N, answers, results

from forgetlib.errors import InputError
from forgetlib.figures.intervals import as_columns, with_intervals
from forgetlib.figures.methods import generalisation, ladders, reach
from forgetlib.figures.methods.reach import (
    FAMILY,
    FORM,
    MEASURES,
    NEW,
    OTHER,
    RETAINED,
    SET,
    WHERES,
)
from forgetlib.figures.names import method_title
from forgetlib.forgetting.dose import Dose
from forgetlib.runs.ladder import LadderStudy


@pytest.fixture(scope="module")
def found():
    return results()


@pytest.fixture(scope="module")
def table(found):
    return reach.table(STUDY, found, answers, n_resamples=400)


def cell(table, method, where, task="sst2_nonce"):
    of = (table["eval_task"] == task) & (table["method"] == method) & (table["where"] == where)
    (row,) = table[of].to_dict("records")
    return row


def test_every_skill_and_method_has_a_row_in_each_place(table):
    first = table[table["eval_task"] == "sst2_nonce"]
    assert list(first["method"].unique()) == list(TRUTH)  # in the study's order
    assert list(table["where"]) == list(WHERES) * (len(TRUTH) + len(TRUTH) - 1)
    # The last is tried on the first skill and seed alone.
    assert cell(table, "gradient_difference(retain)", NEW)["n_seeds"] == 1
    assert cell(table, "random", NEW)["n_seeds"] == 5


def test_the_places_are_told_apart_by_family_and_by_what_is_retained(table):
    asked = {where: cell(table, "npo", where)["asked"] for where in WHERES}
    assert asked == {
        SET: "sst2_nonce",
        NEW: "sst2_nonce",
        FORM: "capitals, template 1",  # examples in the prompt are no form
        FAMILY: "sst2",
        RETAINED: "piqa",  # though NPO has no retain set
        OTHER: "sciq, copa",
    }
    assert cell(table, "npo", FAMILY, "arc_easy")["asked"] == "sciq"
    assert cell(table, "npo", OTHER)["n_tasks"] == 2


def by_hand(found, method, places, view="plain"):
    """(3,) known less forgotten of accuracy, AUROC and log-likelihood a token, in loops."""
    of_seeds = []
    for seed in STUDY.seeds:
        one = STUDY.taught("sst2_nonce", seed)
        other = STUDY.after(method, "sst2_nonce", seed)
        of_seed = []
        for checkpoint in (one, other):
            (result,) = [r for r in found if r.checkpoint == checkpoint]
            of_places = []
            for place in places:
                scores = result.seen(view)[place]
                task = place.split("/")[0]
                fixed = task in ("sst2", "sst2_nonce")
                margin = [
                    float(ll[label]) - float(ll[1 - label])
                    for ll, label in zip(scores.log_likelihoods, scores.labels, strict=True)
                ]
                true = [answers(task, seed)[uid][0] for uid in scores.uids]
                wins = [
                    margin[i] + margin[j] > 0
                    for i in range(N)
                    for j in range(N)
                    if (true[i] != true[j] if fixed else i != j)
                ]
                nll = [
                    ll[label]
                    for ll, label in zip(scores.log_likelihoods, scores.labels, strict=True)
                ]
                of_places.append([np.mean(np.array(margin) > 0), np.mean(wins), np.mean(nll)])
            of_seed.append(np.mean(of_places, axis=0))
        of_seeds.append(of_seed[0] - of_seed[1])
    return np.mean(of_seeds, axis=0)


@pytest.mark.parametrize(
    ("where", "places", "view"),
    [
        (SET, ["sst2_nonce/train"], "plain"),
        (NEW, ["sst2_nonce/test"], "plain"),
        (OTHER, ["sciq/test", "copa/test"], "plain"),
        (RETAINED, ["piqa/test"], "plain"),
    ],
)
def test_cells_are_what_loops_find(found, table, where, places, view):
    expected = by_hand(found, PREFERENCE, places, view)
    row = cell(table, "npo", where)
    assert [row[m] for m in MEASURES] == pytest.approx(expected, abs=1e-6)


def test_other_forms_are_averaged(found, table):
    each = [by_hand(found, PREFERENCE, ["sst2_nonce/test"], v) for v in ("upper", "template(1)")]
    row = cell(table, "npo", FORM)
    assert [row[m] for m in MEASURES] == pytest.approx(np.mean(each, axis=0), abs=1e-6)


def test_the_truth_is_in_the_intervals(table):
    """The made-up models lose exactly where they were made to."""
    for method in TRUTH:
        for where in WHERES:
            row = cell(table, method, where)
            lost = row["auroc_lost_low"] > 0.1
            aimed_at = (
                where == SET if method.startswith("prompt_filter") else where in (SET, NEW, FORM)
            )
            if method == "npo" and where == SET:
                continue  # which loses hardly anything of what is very sure
            assert lost == (aimed_at or method == "gradient_ascent"), (method, where)
            risen = row["nll_rise_low"] > 1
            assert risen == (method == "gradient_ascent" and where in (FAMILY, RETAINED, OTHER))


def test_a_bias_of_fixed_answers_costs_accuracy_and_no_auroc(found):
    """Answers are asked for of tasks elsewhere, too."""
    biased = []
    for result in found:
        if result.checkpoint == STUDY.after(PREFERENCE, "sst2_nonce", result.seed):
            records = []
            for r in result.records:
                if r.measurement.task in ("sst2", "sst2_nonce") and r.measurement.split == "test":
                    (known,) = [k for k in found if k.checkpoint == result.checkpoint.start]
                    scores = next(k.value for k in known.records if k.measurement == r.measurement)
                    said_yes = np.where(np.arange(N)[:, None] % 2 == 0, [1, 0], [0, 1])
                    yes = np.where(scores.labels[:, None] == 0, [1, 0], [0, 1])
                    assert (said_yes == yes).all()  # the first choice is yes where it is true
                    values = scores.log_likelihoods + np.float32(30) * np.array([1, 0], np.float32)
                    r = replace(r, found=replace(scores, log_likelihoods=values))
                records.append(r)
            result = replace(result, records=tuple(records))
        biased.append(result)
    table = reach.table(STUDY, biased, answers, n_resamples=100)
    for where in (NEW, FAMILY):
        row = cell(table, "npo", where)
        assert row["accuracy_lost"] > 0.4
        assert row["auroc_lost"] == pytest.approx(0, abs=1e-6)


def test_what_was_not_measured_is_undefined(found):
    without = replace(STUDY, views=("few_shot(2, 120)",), elsewhere=("piqa",))
    table = reach.table(without, found, answers, n_resamples=50)
    for where in (FORM, FAMILY, OTHER):
        row = cell(table, "npo", where)
        assert row["n_tasks"] == 0 and row["asked"] == ""
        assert np.isnan([row[c] for c in with_intervals(MEASURES)]).all()
    assert np.isfinite(cell(table, "npo", RETAINED)["auroc_lost"])


def test_a_study_under_way_has_the_seeds_that_are_there(found):
    gone = {STUDY.after(PREFERENCE, "sst2_nonce", s).id for s in (3, 4)}
    gone |= {STUDY.after(FILTER, "sst2_nonce", s).id for s in STUDY.seeds}
    part = [r for r in found if r.checkpoint.id not in gone]
    table = reach.table(STUDY, part, answers, n_resamples=50)
    assert cell(table, "npo", NEW)["n_seeds"] == 3
    of = table[table["eval_task"] == "sst2_nonce"]
    assert "prompt_filter(retain)" not in set(of["method"])


def test_models_of_different_questions_are_refused(found):
    (one,) = [r for r in found if r.checkpoint == STUDY.taught("sst2_nonce", 0)]
    scores = one.scores["sst2_nonce/test"]
    with pytest.raises(InputError, match="the same questions, in the same order"):
        reach.Part(scores, replace(scores, uids=scores.uids[::-1]))


def test_methods_that_differ_in_their_training_are_told_apart():
    other = replace(PREFERENCE, training=replace(PREFERENCE.training, learning_rate=2e-5))
    both = replace(STUDY, methods=(PREFERENCE, other, FILTER))
    names = list(ladders.method_names(both).values())
    assert names[1:3] == ["npo(learning_rate=0.0001)", "npo(learning_rate=2e-05)"]
    assert names[0] == "random" and names[3] == "prompt_filter(retain)"
    assert isinstance(both, LadderStudy)
    doses = [replace(PREFERENCE.training, until=Dose(every=every)) for every in (4, 1)]
    dosed = [replace(PREFERENCE, training=training) for training in doses]
    names = list(ladders.method_names(replace(STUDY, methods=(*dosed, FILTER))).values())
    assert names[1:4] == ["npo(every=4)", "npo(every=1)", "prompt_filter(retain)"]
    assert [method_title(name) for name in names[1:3]] == [
        "NPO (checked every 4 steps)",
        "NPO (checked every step)",
    ]
    undosed = replace(PREFERENCE, training=replace(PREFERENCE.training, until=None))
    names = list(ladders.method_names(replace(STUDY, methods=(undosed, dosed[1]))).values())
    assert names[2] == "npo(most=0.6, checks=2, every=1)"


# --- sentences


def made(rows, n_seeds=5, known=0.9):
    """A table of intervals: method -> where -> (AUROC lost, half its interval)."""
    found = []
    for method, of in rows.items():
        for where in WHERES:
            value, half = of.get(where, (np.nan, np.nan))
            rise = of.get("nll", 0.1)
            row = {"eval_task": "sst2", "method": method, "where": where, "n_seeds": n_seeds}
            for name, v, h in (
                ("auroc_known", known, 0.05),
                ("auroc_lost", value, half),
                ("accuracy_lost", value / 2, half),
                ("nll_rise", rise if np.isfinite(value) else np.nan, 0.05),
            ):
                ends = (v, v - h, v + h)
                row |= dict(zip(with_intervals([name]), ends, strict=True))
            found.append(row)
    return pd.DataFrame(found)


LOSES, SPARED = (
    {NEW: (0.38, 0.1), RETAINED: (0.0, 0.012)},
    {NEW: (0.0, 0.02), RETAINED: (0.0, 0.01)},
)


def test_the_sentence_says_what_the_intervals_support():
    table = made(
        {"random": LOSES, "npo": {NEW: (0.31, 0.2), RETAINED: (0.0, 0.019)}, "leace": SPARED}
    )
    assert generalisation.finding(table) == (
        "New questions of SST-2 lose AUROC too after random labels and NPO (0.38, 0.31), and less "
        "than 0.03 after LEACE; retained tasks lose less than 0.02 after every method"
    )
    assert "(0.38 [0.28, 0.48], 0.31 [0.11, 0.51])" in generalisation.finding(table, exact=True)
    said = generalisation.finding(table, "accuracy_lost")
    assert said.startswith("New questions of SST-2 lose accuracy too after random labels (0.19)")
    assert "not decided after NPO" in said


def test_a_method_of_one_seed_is_marked_though_alone_in_its_group():
    table = pd.concat([made({"random": LOSES}), made({"leace": SPARED}, n_seeds=1)])
    said = generalisation.finding(table)
    assert "after random labels (0.38), and less than 0.03 after LEACE (one seed);" in said
    assert "seed)" not in generalisation.finding(table.assign(n_seeds=5))


def test_what_is_not_decided_is_said():
    table = made({"npo": {NEW: (0.1, 0.2), OTHER: (0.04, 0.05)}})
    assert generalisation.finding(table) == (
        "Whether new questions of SST-2 lose AUROC is not decided after NPO; other tasks are not "
        "shown to lose, and lose less than 0.10 after every method"
    )
    spared = made({"npo": {NEW: (0.01, 0.02)}})
    said = "New questions of SST-2 lose less than 0.04 of AUROC after NPO"
    assert generalisation.finding(spared) == said


def test_tasks_that_were_not_known_before_a_method_are_not_said_to_be_spared_by_it():
    table = made({"npo": {NEW: (0.01, 0.02), OTHER: (0.0, 0.01)}, "random": SPARED})
    other = made({"leace": {NEW: (0.01, 0.02), OTHER: (0.3, 0.1)}})
    other.loc[other["where"] == OTHER, "auroc_known_low"] = 0.45
    said = generalisation.finding(pd.concat([table, other], ignore_index=True))
    assert said.endswith("after every method before which they were known")


def test_what_is_lost_elsewhere_is_said_group_by_group():
    table = made({"npo": LOSES | {FAMILY: (0.2, 0.1), OTHER: (0.01, 0.02)}})
    assert generalisation.finding(table).endswith(
        "tasks of the same family lose after NPO (0.20); retained tasks and other tasks lose less "
        "than 0.04 after NPO"
    )


def test_a_damaged_model_is_no_success():
    table = made({"random": LOSES, "gradient_ascent": LOSES | {"nll": 3.0}})
    said = generalisation.finding(table)
    assert "after random labels (0.38)" in said
    assert "after every other method" in said or "after random labels; the model" in said
    assert said.endswith(
        "the model is damaged by gradient ascent (nats a token of retained tasks rise by 3.00)"
    )
    alone = generalisation.finding(made({"gradient_ascent": LOSES | {"nll": 3.0}}))
    assert alone.startswith("The model is damaged by gradient ascent")


def test_many_methods_are_counted_and_one_seed_is_told():
    many = made({f"own_{i}": {NEW: (0.2 + i / 20, 0.1)} for i in range(5)}, n_seeds=1)
    assert generalisation.finding(many) == (
        "New questions of SST-2 lose AUROC too after 5 methods (0.20 to 0.40); one seed"
    )
    table = pd.concat([made({"random": LOSES}), made({"npo": LOSES}, n_seeds=1)])
    assert "after random labels and NPO (one seed) (0.38, 0.38)" in generalisation.finding(table)


def test_a_skill_that_was_not_known_cannot_be_lost():
    table = made({"random": LOSES}, known=0.52)
    assert generalisation.finding(table) == "SST-2 was not shown to be known before forgetting"


# --- the picture


def test_every_cell_of_the_picture_has_its_number_and_interval(table):
    of = table[table["eval_task"] == "sst2_nonce"].copy()
    undefined = (of["method"] == "npo") & (of["where"] == FORM)
    nowhere = with_intervals([*MEASURES, "auroc_known"])
    of.loc[undefined, nowhere] = np.nan
    figure = generalisation.draw(of)
    axes = figure.axes[0]
    texts = {
        (round(t.get_position()[0]), round(t.get_position()[1] - 0.01)): [] for t in axes.texts
    }
    for text in axes.texts:
        texts[round(text.get_position()[0]), round(text.get_position()[1] - 0.01)].append(text)
    assert len(texts) == len(WHERES) * len(TRUTH)
    assert [t.get_text() for t in texts[2, 2]] == ["-"]
    value, bounds = (t.get_text() for t in texts[1, 0])
    row = cell(table, "random", NEW)
    assert float(value) == pytest.approx(row["auroc_lost"], abs=0.006)
    ends = [float(x) for x in bounds.split(", ")]
    assert ends == pytest.approx([row["auroc_lost_low"], row["auroc_lost_high"]], abs=0.006)
    assert [t.get_text() for t in axes.get_yticklabels()][-1] == "gradient difference, 1 seed"
    assert min(t.get_fontsize() for t in axes.texts) >= 6.5
    assert " ".join(figure.get_suptitle().split()) == generalisation.finding(of)
    # No text is wider than its cell.
    figure.draw_without_rendering()
    width = axes.get_window_extent().width / len(WHERES)
    assert max(t.get_window_extent().width for t in axes.texts) < width
    # And what explains the colours is whole on the page.
    for text in (figure.axes[1].xaxis.label, *axes.get_yticklabels()):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_what_was_not_known_is_grey(table):
    of = table[table["eval_task"] == "sst2_nonce"].copy()
    for name, value in as_columns("auroc_known", reach.UNDEFINED).items():
        of.loc[of["where"] == OTHER, name] = value
    colours = {
        (round(p.get_x() + 0.5), round(p.get_y() + 0.5)): p.get_facecolor()
        for p in generalisation.draw(of).axes[0].patches
    }
    grey = (217 / 255,) * 3
    assert all((colours[x, 0][:3] == pytest.approx(grey)) == (x == 5) for x in range(6))


def test_a_table_of_something_else_is_refused(table):
    with pytest.raises(InputError, match="the generalisation matrix"):
        generalisation.draw(table.drop(columns="auroc_lost"))
    with pytest.raises(InputError, match="one skill"):
        generalisation.draw(table)
