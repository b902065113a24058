"""What another form brings back after forgetting, on ladders of known truth."""

import numpy as np
import pandas as pd
import pytest
from tables import points_of
from test_rungs import ANSWERS, RUNGS, SKILL, model
from test_style import assert_readable, undefined

from forgetlib.errors import InputError
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.methods import forms
from forgetlib.figures.methods.rungs import Ladder, Seed
from forgetlib.figures.statements import DOES_NOT_HOLD, HOLDS
from forgetlib.measuring.base import PromptNats
from forgetlib.runs.records import Record, Result
from forgetlib.runs.specs import Checkpoint, Measurement

FEW = 200


def ladder(form, known_form=SKILL, direct=0.0, n_seeds=3):
    """A ladder: forgotten as asked plainly, of such a skill in another form."""
    rng = np.random.default_rng(0)
    seeds = [
        Seed(
            {
                "known": (model(rng, {"direct": SKILL, "form": known_form}),),
                "forgotten": (model(rng, {"direct": direct, "form": form}),),
                "oracle": tuple(model(rng, {"direct": 0.0}) for _ in range(2)),
            },
            ANSWERS,
        )
        for _ in range(n_seeds)
    ]
    return Ladder(seeds, RUNGS, n_resamples=FEW)


@pytest.fixture(scope="module")
def found():
    return forms.table({("sst2", "npo"): ladder(SKILL), ("sst2", "random"): ladder(0.0)})


def test_what_a_form_brings_back_is_found_and_nothing_is_nothing(found):
    of = found.set_index("method")
    assert of["counts"].all()
    assert of["gain"]["npo"] == pytest.approx(of["cost"]["npo"], abs=0.08)
    assert of["gain_low"]["npo"] > of["never_taught_gain_high"]["npo"]
    assert of["gain_low"]["random"] < 0 < of["gain_high"]["random"]
    assert (abs(of[["never_taught_gain", "known_gain"]]) < 0.1).all(axis=None)
    said = forms.finding(found)
    assert said.startswith(
        "Asked in another form, SST-2 gains AUROC in 1 of 2 cases, most after NPO"
    )
    assert said.endswith("beyond never-taught models in 1 of 2")
    alone = found.assign(never_taught_gain=np.nan, never_taught_gain_high=np.nan)
    assert "models that were never taught are not there" in forms.finding(alone)
    assert forms.finding(found.assign(n_seeds=1)).endswith("; one seed")


def test_a_form_that_the_known_model_cannot_read_does_not_count():
    found = forms.table({("sst2", "a"): ladder(SKILL, 0.0)})
    assert not found["counts"].any()
    assert forms.finding(found).startswith("In no form is there both a loss of SST-2 and")
    forms.draw(found)


def test_to_go_from_below_chance_to_chance_is_no_gain_that_counts():
    """A model that was turned round is confused by capitals, and knows nothing there."""
    found = forms.table({("sst2", "dpo"): ladder(0.0, direct=-SKILL)})
    assert found["counts"].all() and found["gain_low"][0] > 0.2
    assert not forms.is_gain(found).any()
    assert "gains AUROC in 0 of 1 cases; beyond" in forms.finding(found)


def test_where_nothing_was_lost_nothing_can_come_back():
    found = forms.table({("sst2", "a"): ladder(SKILL, direct=SKILL)})
    assert not found["counts"].any()


def grown(sign, n=8):
    """Forms of growing distance, of which more comes back, or less."""
    gain = (0.1 + 0.1 * np.arange(n))[::sign] * 0.4
    return pd.DataFrame(
        {
            "eval_task": "sst2",
            "method": "random",
            "form": [f"form {i}" for i in range(n)],
            "counts": True,
            "gain": gain,
            "cost": 0.4,
            "distance": np.arange(n) + 1.0,
        }
    )


def test_recovery_that_grows_with_distance_holds_and_one_that_falls_does_not():
    (up,), (down,) = (forms.distance_claim(grown(s)).verdict for s in (1, -1))
    assert (up, down) == (HOLDS, DOES_NOT_HOLD)
    none = forms.distance_claim(grown(1).assign(counts=False))
    lacks = "needs forms farther away, in which the known model is above chance"
    assert none.why[0] == lacks
    # Forms that are nearer than the plain prompts tell nothing of those that are farther.
    near = grown(1).assign(distance=lambda of: of["distance"] - len(of))
    assert forms.distance_claim(near).why[0] == lacks
    assert forms.distance_finding(near) == (
        "That forms of a question bring more back the stranger they are, by nats a token of their "
        f"prompts, cannot be decided by this study ({lacks}); 7 of 8 forms have fewer nats a token "
        "than the plain prompts"
    )


def test_what_was_lost_a_little_weighs_a_little():
    """Of 0.01 lost a gain of 0.3 is thirty times as much: sums are divided, ratios not averaged."""
    more = grown(1).assign(gain=-0.3, cost=0.01, method="npo").iloc[:1]
    (one,), (both,) = (
        forms.distance_claim(t).value for t in (grown(1), pd.concat([grown(1), more]))
    )
    assert one == pytest.approx(1.0) and both == pytest.approx(1.0)


def base_result(task, seed, **nats):
    """What the pre-trained model was asked of prompts, by view."""
    asked = [
        Record(
            Checkpoint("m"),
            Measurement("prompt_nats", task, "test", 2, seed, view=view),
            PromptNats(np.array([value, value + 1.0], np.float32)),
        )
        for view, value in nats.items()
    ]
    return Result(Checkpoint("m"), seed, tuple(asked))


def test_distances_are_means_over_seeds_of_what_the_form_has_more_than_the_plain_one():
    ladders = {(task, "npo"): ladder(SKILL) for task in ("sst2", "sciq")}
    results = [
        base_result("sst2", 0, plain=2.0, upper=5.0),
        base_result("sst2", 1, plain=3.0, upper=5.0),
        base_result("sciq", 0, upper=9.0),  # with nothing to compare with
    ]
    found = forms.table(ladders, results).set_index("eval_task")["distance"]
    assert found["sst2"] == pytest.approx(2.5) and np.isnan(found["sciq"])


def test_a_sentence_says_whether_more_comes_back_farther_away():
    assert forms.distance_finding(grown(1)).startswith(
        "That forms of a question bring more back the stranger they are, by nats a token of their "
        "prompts, is shown (rank correlation 1.00"
    )
    assert "is shown not to be so" in forms.distance_finding(grown(-1))
    few = forms.distance_finding(grown(1).iloc[:3])
    assert "cannot be decided by this study" in few and "over 3 skills' forms: " in few
    assert forms.distance_finding(grown(1).assign(distance=np.nan)) == ""
    less = grown(1).assign(distance=lambda of: of["distance"] - 2.5)
    assert forms.distance_finding(less).endswith(
        f"; 2 of {len(less)} forms have fewer nats a token than the plain prompts"
    )


def test_the_picture_has_a_panel_a_form_and_a_row_a_method(found, monkeypatch):
    figure = forms.draw(found)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["random labels", "NPO"]
    marks = points_of(axes)
    for column in ("gain", "known_gain", "never_taught_gain"):
        for value in found[column]:
            assert np.isclose(marks[:, 0], value).any()
    assert_readable(figure, monkeypatch)
    forms.draw(undefined(found))
    with pytest.raises(InputError, match="columns"):
        forms.draw(found.drop(columns="gain_low"))
    with pytest.raises(InputError, match="one skill"):
        forms.draw(pd.concat([found, found.assign(eval_task="sciq")]))


def test_columns_of_the_docstring_are_those_of_the_table(found):
    first = ["eval_task", "method", "form", "n_seeds", "distance", "counts"]
    assert list(found) == [*first, *with_intervals(forms.MEASURES)]
    assert all(name in forms.table.__doc__ for name in (*first, *forms.MEASURES))
