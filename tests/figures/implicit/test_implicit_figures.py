"""Pictures and claims of in-context regression, on made-up worlds in which the answer is known."""

import numpy as np
import pandas as pd
import pytest
from regressors import controls, world
from test_style import assert_readable, undefined

from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import difference
from forgetlib.figures.implicit import (
    bayes as implicit_bayes,
    claims as implicit_claims,
    conjugate as implicit_conjugate,
    shift as implicit_shift,
    tuning as implicit_tuning,
    weights as implicit_weights,
)
from forgetlib.figures.implicit.measures import Errors, Of, judged
from forgetlib.figures.statements import CANNOT_DECIDE, DOES_NOT_HOLD, HOLDS, VERDICTS

FEW = 200  # resamples


def errors_of(name="shift", **options):
    return world(name, **options)[0]


def tables(name="shift"):
    errors, shifts = world(name)
    return {
        implicit_bayes: implicit_bayes.table(errors, n_resamples=FEW),
        implicit_weights: implicit_weights.table(errors, n_resamples=FEW),
        implicit_tuning: implicit_tuning.table(errors, n_resamples=FEW),
        implicit_conjugate: implicit_conjugate.table(errors, n_resamples=FEW),
        implicit_shift: implicit_shift.table(shifts, None, controls(name)),
    }


# --- the gate


def test_the_gate_is_met_by_bayes_and_by_nothing_that_is_far_from_it():
    met, failed = judged(errors_of()), judged(errors_of("untrained"))
    assert met.met
    assert not failed.met
    assert "Gate not met, nothing is claimed (error" in failed.said


def test_one_seed_that_misses_the_gate_is_enough():
    errors = errors_of().copy()
    one = (errors.model == "pre-trained") & (errors.seed == 2) & (errors.kind == "discrete")
    errors.loc[one & (errors.k == 10), "error"] *= 1.2
    assert not judged(errors).met
    many = pd.concat([errors_of(seeds=(0, 1, 2, 3)), errors_of("untrained", seeds=(4, 5))])
    found = judged(many)
    assert found.met and found.left_out == (4, 5)
    assert found.said.endswith("in any of these; 2 other seeds do not meet it")
    assert set(found.within(many)["seed"]) == {0, 1, 2, 3}
    few = judged(many[many["seed"] > 1])
    assert not few.met and few.left_out == () and few.said.startswith("Gate not met")


def test_prompts_that_are_too_short_for_the_gate_miss_it():
    errors = errors_of()
    found = judged(errors[errors.k <= 6])
    assert not found.met
    assert "prompts have at most 6 examples" in found.said


# --- errors and their intervals


def test_errors_are_the_means_of_the_stored_ones():
    errors = errors_of()
    found = Errors(errors, n_resamples=FEW)
    rows = errors.query("model == 'ridge' and kind == 'continuous' and k == 5 and gamma == 2")
    expected = rows[rows.quarter == 0].error.mean()
    interval = found.of(Of("ridge", k=5, gamma=2.0))
    assert interval.value == pytest.approx(expected, rel=1e-4)
    assert interval.low < interval.value < interval.high


def test_differences_are_taken_on_the_same_prompts():
    """Ridge does not change with the scale: its difference has no spread, whatever its error's."""
    found = Errors(errors_of(), n_resamples=FEW)
    of = Of("ridge", k=5, gamma=2.0), Of("ridge", k=5)
    interval = found.interval(difference(0, 1), *of)
    np.testing.assert_allclose([interval.low, interval.high], 0, atol=1e-5)


def test_one_seed_has_the_interval_over_prompts_alone():
    one = Errors(errors_of(seeds=(0,)), n_resamples=FEW).of(Of("bayes"))
    three = Errors(errors_of(), n_resamples=FEW).of(Of("bayes"))
    assert 0 < one.high - one.low < 2 * (three.high - three.low)


def test_what_was_not_asked_is_told():
    found = Errors(errors_of(), n_resamples=FEW)
    with pytest.raises(InputError, match="expected Of"):
        found.of(Of("bayes", k=99))
    with pytest.raises(InputError, match=r"expected one of 0\.5, found 0\.3"):
        Errors(errors_of(), 0.3)
    with pytest.raises(InputError, match="each seed and mixture weight in one setting"):
        Errors(pd.concat([errors_of(), errors_of()]))
    with pytest.raises(InputError, match="columns blocks"):
        Errors(errors_of().drop(columns="blocks"))


# --- what the worlds are made of is found


def test_a_shift_is_found_and_scaled_labels_undo_it():
    shifts = implicit_shift.table(world("shift")[1])
    whole = shifts[shifts.k == implicit_shift.ALL].iloc[0]
    assert whole.moved == pytest.approx(3, abs=0.1)
    assert whole.share > 0.8
    table = implicit_conjugate.table(errors_of(), n_resamples=FEW)
    row = table[(table.k == 5) & (table.gamma == 2)].iloc[0]
    assert row.recovered_low > 0.3
    # Bayes itself is nothing but helped by a scale: what is closed is no more than what returned.
    assert row.closed <= row.recovered + 0.1


def test_damage_is_no_shift_and_does_not_come_back():
    errors, shifts = world("damage")
    table = implicit_shift.table(shifts)
    assert abs(table[table.k == implicit_shift.ALL].iloc[0].share) < 0.05
    table = implicit_conjugate.table(errors, n_resamples=FEW)
    assert abs(table[(table.k == 5) & (table.gamma == 2)].iloc[0].recovered) < 0.3


def test_a_shift_is_more_than_a_fade_and_a_fade_is_not():
    table = implicit_shift.table(world("shift")[1], None, controls("shift"))
    whole = table[table.k == implicit_shift.ALL].iloc[0]
    assert whole.beyond_fade_low > 0.1
    assert whole.beyond_fade == pytest.approx(whole.share - whole.fade_share)
    assert whole.never_n_bound == 3 and whole.never_moved == pytest.approx(40, abs=0.1)
    assert whole.never_share > whole.share  # without noise, and as far as it goes
    said = implicit_shift.exact(table)
    assert f", more than the {whole.fade_share:.2f} that a fade of all answers explains" in said
    assert "]); the shift is " in said and "single" not in said
    assert f"at least 40 nats, which explains {whole.never_share:.2f}" in said
    table = implicit_shift.table(world("fade")[1], None, controls("fade"))
    whole = table[table.k == implicit_shift.ALL].iloc[0]
    assert whole.fade_share == pytest.approx(1, abs=1e-6) and whole.beyond_fade_high < 0
    assert whole.share > 0.4  # which by itself would pass for a shift
    said = implicit_shift.finding(table)
    assert "less than the 1.00 that a fade of all answers explains (difference: −" in said
    assert "at 10, and so no single wrong guess" in said


def test_controls_that_are_not_stored_of_every_seed_are_not_told():
    shifts = world("shift")[1]
    every = controls("shift")
    table = implicit_shift.table(shifts, None, every[every.seed > 0])
    told = [c for c in table if c.startswith(("never", "fade", "beyond"))]
    assert len(told) == 13 and table[told].isna().all(axis=None)
    assert "of what that changes; the shift is " in implicit_shift.finding(table)
    pd.testing.assert_frame_equal(table, implicit_shift.table(shifts))
    with_them = implicit_shift.table(shifts, None, every)
    pd.testing.assert_frame_equal(table.drop(columns=told), with_them.drop(columns=told))


def test_a_larger_weight_trades_continuous_prompts_for_discrete_ones():
    errors = errors_of(seeds=(0,), alphas=(0.2, 0.8))
    table = implicit_weights.table(errors, n_resamples=FEW)
    own = table[(table.which == "bayes") & (table.k == 5)].set_index("alpha")
    assert own.continuous[0.2] < own.continuous[0.8]
    assert own.discrete[0.2] > own.discrete[0.8]
    assert "there is no trade to see" in implicit_weights.finding(table[table.alpha == 0.2])


# --- claims


def verdicts(name):
    errors, shifts = world(name)
    found = [
        implicit_claims.judge(claim, errors, shifts, None, controls(name), n_resamples=FEW)
        for claim in implicit_claims.CLAIMS
    ]
    return pd.concat(found).set_index("statistic")


def starting(found, words):
    """The verdict of all statistics whose names begin so."""
    (verdict,) = {row.verdict for name, row in found.iterrows() if name.startswith(words)}
    return verdict


def test_claims_hold_where_they_are_true():
    found = verdicts("shift")
    assert set(found.verdict) <= set(VERDICTS)
    for words in (
        "rise of the error of other prompts",
        "share of the loss that labels scaled by 2",
        "shift towards the discrete set",
        "share of the change that the shift explains",
        "that share beyond what a fade",
    ):
        assert starting(found, words) == HOLDS, words


def test_claims_fail_where_they_are_false():
    found = verdicts("damage")
    assert starting(found, "rise of the error of prompts of the discrete set") == DOES_NOT_HOLD
    assert starting(found, "share of the change that the shift explains") == DOES_NOT_HOLD
    assert starting(found, "share of the loss that labels scaled by 2") != HOLDS
    # There the model "that never knew" knew: something does come back.
    assert starting(found, "share of what it lacks that comes back: a model") == DOES_NOT_HOLD


def test_a_fade_passes_for_a_shift_by_its_share_alone():
    found = verdicts("fade")
    assert starting(found, "share of the change that the shift explains") == HOLDS
    assert starting(found, "that share beyond what a fade") == DOES_NOT_HOLD


def test_nothing_is_claimed_of_models_that_miss_the_gate():
    found = verdicts("untrained")
    assert set(found.verdict) == {CANNOT_DECIDE}
    assert (found.why == f"needs {implicit_claims.GATED}").all()
    assert found[["low", "high"]].isna().all(axis=None)


def test_nothing_is_claimed_of_two_seeds():
    errors, shifts = world("shift")
    found = implicit_claims.judge(
        "fine-tuning-harms",
        errors[errors.seed < 2],
        shifts[shifts.seed < 2],
        n_resamples=FEW,
    )
    assert (found.why == f"needs {implicit_claims.SEVERAL}").all()


def test_an_unknown_claim_is_told():
    with pytest.raises(InputError, match="Did you mean 'fine-tuning-harms'"):
        implicit_claims.judge("fine-tuning-harm", *world("shift"))


# --- pictures


@pytest.mark.parametrize("name", ["shift", "untrained"])
def test_every_picture_can_be_read(name, monkeypatch):
    gate = judged(errors_of(name))
    for module, table in tables(name).items():
        figure = module.draw(table, gate)
        assert_readable(figure, monkeypatch)
        said = " ".join(figure.get_suptitle().split())
        assert said.startswith("Gate not met, nothing is claimed") == (name == "untrained")


def test_pictures_of_nothing_but_undefined_numbers(monkeypatch):
    gate = judged(errors_of())
    for module, table in tables().items():
        kept = [c for c in ("alpha", "gamma", "k") if c in table]
        figure = module.draw(undefined(table).assign(**{c: table[c] for c in kept}), gate)
        assert figure.axes
        figure.draw_without_rendering()  # fails for limits that are no numbers


def test_another_table_is_told():
    gate = judged(errors_of())
    for module in tables():
        with pytest.raises(InputError, match=r"table of .*expected columns"):
            module.draw(pd.DataFrame({"k": [1]}), gate)


def weighed(change, spread=0.01):
    """Errors of three seeds, two weights and both kinds, which change so from one to the other."""
    errors = errors_of()
    heavy = errors.copy()
    heavy["alpha"] = 0.8
    for kind, by in change.items():
        rows = (heavy.kind == kind) & (heavy.model == "pre-trained") & (heavy.k == 5)
        heavy.loc[rows, "error"] += by + spread * heavy.loc[rows, "seed"]
    return pd.concat([errors, heavy], ignore_index=True)


def test_a_trade_of_weights_holds_where_there_is_one_and_fails_where_it_is_the_other_way(
    monkeypatch,
):
    # The gate has tests of its own: a change of errors would be one against Bayes, too.
    monkeypatch.setattr(implicit_claims, "judged", lambda errors: judged(errors_of()))
    for sign, expected in ((1, HOLDS), (-1, DOES_NOT_HOLD)):
        found = implicit_claims.judge_weights(
            weighed({"continuous": 0.3 * sign, "discrete": -0.2 * sign})
        )
        assert set(found.verdict) == {expected}
    one = implicit_claims.judge_weights(errors_of())
    assert (one.why == "needs two mixture weights of three seeds").all()


def test_a_trade_of_models_that_miss_the_gate_is_not_decided():
    found = implicit_claims.judge_weights(weighed({"continuous": 0.3, "discrete": 0.3}))
    assert (found.why == f"needs {implicit_claims.GATED}").all()
