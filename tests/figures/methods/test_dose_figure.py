"""The dose's curves and summary, on made-up results whose truth is known; its sentences."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from made_up_methods import (
    ASCENT,
    DIFFERENCE,
    FILTER,
    PREFERENCE,
    STUDY,
    UNTIL,
    N,
    answers,
    results,
)

from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.figures.methods import dose
from forgetlib.forgetting.arithmetic import Noise
from forgetlib.forgetting.ascent import KLAscent
from forgetlib.forgetting.base import Method, methods
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.lock import Lock
from forgetlib.forgetting.preference import DPO
from forgetlib.forgetting.representation import RMU
from forgetlib.forgetting.uniform import UniformChoice, UniformToken


@pytest.fixture(scope="module")
def found():
    return results()


@pytest.fixture(scope="module")
def curves(found):
    return dose.curves(STUDY, found)


@pytest.fixture(scope="module")
def summary(found):
    table = dose.summary(STUDY, found, answers, n_resamples=200)
    return table[table["eval_task"] == "sst2_nonce"].set_index("method")


def test_curves_have_every_check(curves):
    of = curves[(curves["eval_task"] == "sst2_nonce") & (curves["method"] == "random")]
    assert list(of["seed"].unique()) == list(STUDY.seeds)
    one = of[of["seed"] == 3]
    assert list(one["step"]) == [0, 1, 2, 3]
    assert one["auroc"].to_numpy() == pytest.approx([1.0, 0.8, 0.55, 0.5])
    reached = curves.groupby("method")["reached"].agg(["min", "max"])
    assert set(reached.index[reached["min"]]) == {"random", "gradient_difference(retain)"}
    assert not reached.loc[["npo", "gradient_ascent"], "max"].any()
    assert "prompt_filter(retain)" not in reached.index


def test_the_summary_says_who_reached_the_dose_and_in_how_many_steps(summary):
    assert summary["n_reached"].drop("prompt_filter(retain)").to_dict() == {
        "random": 5,
        "gradient_ascent": 0,
        "npo": 0,
        "gradient_difference(retain)": 1,
    }
    assert summary["n_overshot"]["gradient_ascent"] == 5 and summary["n_overshot"]["npo"] == 0
    assert summary["steps"]["random"] == 3 and np.isnan(summary["steps"]["npo"])
    assert summary["learning_rate"]["npo"] == 1e-4
    filtered = summary.loc["prompt_filter(retain)"]
    assert np.isnan(filtered["learning_rate"]) and filtered["passes"] == 0
    assert not filtered["has_curve"] and summary["has_curve"].sum() == 4


def test_what_has_no_curve_is_judged_by_the_stored_scores(found, summary):
    """Counted by hand: pairs with opposite true answers whose margins add up to more than 0."""
    ends = []
    for seed in STUDY.seeds:
        checkpoint = STUDY.after(FILTER, "sst2_nonce", seed)
        (result,) = [r for r in found if r.checkpoint == checkpoint]
        scores = result.scores["sst2_nonce/train"]
        values, labels = scores.log_likelihoods.astype(float), scores.labels
        margin = [values[i, labels[i]] - values[i, 1 - labels[i]] for i in range(N)]
        wins = [margin[i] + margin[j] > 0 for i in range(0, N, 2) for j in range(1, N, 2)]
        ends.append(np.mean(wins))
    row = summary.loc["prompt_filter(retain)"]
    assert row["set_auroc"] == pytest.approx(np.mean(ends))
    assert row["n_reached"] == sum(0.4 <= end <= 0.6 for end in ends)
    assert row["set_auroc_low"] <= row["set_auroc"] <= row["set_auroc_high"]


def test_passes_are_epochs_of_plain_fine_tuning(summary):
    an_epoch = math.ceil(N / UNTIL.batch_size)
    assert summary["passes"]["random"] == pytest.approx(3 / an_epoch)
    # With a retain set, as many sequences again.
    assert summary["passes"]["gradient_difference(retain)"] == pytest.approx(2 * 2 / an_epoch)


def test_sequences_are_those_that_the_methods_encode(tiny):
    """Of each method that overrides how it encodes, as it is now."""
    own = [
        Labels("random", UNTIL),
        Noise(replace(UNTIL, until=None)),
        UniformChoice(UNTIL),
        UniformToken(UNTIL),
        DPO(UNTIL),
        KLAscent(UNTIL, ("tiny_city",)),
        Lock(UNTIL),
    ]
    usual = [ASCENT, PREFERENCE, DIFFERENCE, RMU(UNTIL, ("tiny_city",), 1)]
    (example,) = splits.load("tiny_review", "train", 1, 0)
    context = Context(0, (example,))
    for method in (*own, *usual):
        counts = tuple(
            len(encode(tiny, example, context))
            for encode in (method.sequences, method.retained_sequences)
        )
        assert counts == dose.SEQUENCES.get(method.name, (1, 1)), method.name
    overriding = {
        name
        for name, cls in methods().items()
        if cls.__module__.startswith("forgetlib.")
        and (
            cls.sequences is not Method.sequences
            or cls.retained_sequences is not Method.retained_sequences
        )
    }
    assert overriding == {m.name for m in own} == set(dose.SEQUENCES)


def test_the_cost_of_a_method_that_encodes_otherwise_is_not_known():
    @dataclass(frozen=True)
    class Twice(Method, registered=False):
        training: object

        def sequences(self, lm, example, context):
            return super().sequences(lm, example, context) * 2

    assert np.isnan(dose._passes(Twice(UNTIL), 3, N))


# --- sentences


def made(*rows):
    """A summary, of (method, seeds, reached, overshot, steps)."""
    names = ("method", "n_seeds", "n_reached", "n_overshot", "steps")
    found = pd.DataFrame([dict(zip(names, r, strict=True)) for r in rows])
    return found.assign(eval_task="sst2", set_auroc=0.7, most=0.6)


def test_the_sentence_names_who_reaches_the_dose_who_inverts_and_who_does_not():
    table = made(
        ("npo", 5, 5, 0, 12.0),
        ("random", 5, 5, 0, 9.0),
        ("gradient_ascent", 5, 0, 5, np.nan),
        ("simnpo", 5, 0, 0, np.nan),
        ("leace", 5, 5, 0, np.nan),
        ("rmu", 5, 3, 1, 20.0),
    )
    assert dose.finding(table) == (
        "For SST-2 the dose is reached by random labels (9 steps) and NPO (12); reached without a "
        "training by LEACE; overshot, with the sign turned, by gradient ascent; not reached by "
        "SimNPO; reached in some seeds only by RMU (3 of 5)"
    )
    mixed = made(*((f"own_{i}", 2, 1, i % 2, 5.0) for i in range(7)))
    assert dose.finding(mixed).endswith(
        "reached in some seeds only by 7 methods (in 7 of 14 seeds, overshot in 3)"
    )
    some = made(("npo", 2, 0, 1, np.nan), ("rmu", 2, 1, 0, 4.0))
    assert dose.finding(some) == (
        "For SST-2 the dose is reached in some seeds only by RMU (1 of 2); overshot in some seeds "
        "only by NPO (1 of 2)"
    )
    assert dose._told(some.iloc[0], dose.MIXED) == "overshot in 1 of 2"
    many = made(*((f"own_{i}", 2, 2, 0, 5.0 + i) for i in range(6)))
    said = "For SST-2 the dose is reached by 6 methods (5 to 10 steps)"
    assert dose.finding(many) == said
    assert dose.finding(made(("npo", 2, 2, 0, 1.0))).endswith("reached by NPO (1 step)")


@pytest.mark.parametrize(
    ("counts", "word"),
    [((5, 0), "reached"), ((0, 5), "overshot"), ((0, 0), "not reached"), ((2, 3), "mixed")],
)
def test_a_word_stands_for_all_seeds(counts, word):
    row = pd.Series({"n_seeds": 5, "n_reached": counts[0], "n_overshot": counts[1]})
    row["set_auroc"], row["most"] = 0.7, 0.6
    assert dose.ending(row) == word


def test_who_ends_at_the_dose_without_two_checks_there_has_passed_it():
    row = pd.Series({"n_seeds": 5, "n_reached": 0, "n_overshot": 0, "set_auroc": 0.5, "most": 0.6})
    assert dose.ending(row) == dose.PASSED


# --- the picture


def test_a_panel_has_a_line_a_seed_and_the_band(curves, summary):
    of = curves[curves["eval_task"] == "sst2_nonce"]
    table = summary.reset_index()
    figure = dose.draw(of, table)
    panels = dict(zip(table["method"], figure.axes, strict=False))
    axes = panels["random"]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert len(lines) == 5
    band = axes.patches[0].get_bbox()
    assert (band.y0, band.y1) == pytest.approx((0.4, 0.6))
    assert axes.texts[0].get_text() == "reached, 3 steps"
    assert panels["gradient_ascent"].texts[0].get_text() == "overshot"
    assert panels["gradient_difference(retain)"].texts[0].get_text() == "reached, 2 steps, 1 seed"
    assert len(panels["prompt_filter(retain)"].containers) == 1
    assert " ".join(figure.get_suptitle().split()) == dose.finding(table)
    figure.draw_without_rendering()


def test_methods_without_any_curve_are_drawn(found):
    edits = replace(STUDY, methods=(FILTER,), more_methods=(), tasks=("arc_easy",))
    table = dose.summary(edits, found, answers, n_resamples=50)
    table = table[table["method"] == "prompt_filter(retain)"]
    none = dose.curves(edits, [])
    assert none.empty
    figure = dose.draw(none, table)
    assert figure.axes[0].get_ylabel() == "AUROC"


def test_other_tables_are_refused(curves, summary):
    with pytest.raises(InputError, match="summary of the dose"):
        dose.draw(curves, summary.drop(columns="most"))
    with pytest.raises(InputError, match="one skill"):
        two = pd.concat([summary.reset_index(), summary.reset_index().assign(eval_task="x")])
        dose.draw(curves, two)
