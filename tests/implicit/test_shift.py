"""The shift of log-odds: known ones are found, and damage is no shift."""

from dataclasses import replace

import numpy as np
import pytest

from forgetlib.errors import InputError
from forgetlib.implicit import bayes, shift
from forgetlib.implicit.prompts import draw, mixture
from forgetlib.implicit.settings import named

OF = mixture(named("implicit", alpha=0.4))
PROMPTS = draw(OF, 1000, 10, np.random.default_rng(0))
SEEN = bayes.infer_prefixes(OF, *PROMPTS.examples)


def predicted(delta):
    return SEEN.predict(PROMPTS.x, delta)


def fit(predictions):
    return shift.fit(predictions, SEEN, PROMPTS.x)


@pytest.mark.parametrize("delta", [-7.3, -0.5, 0.0, 2.0, 9.2, 15.0])
def test_a_known_shift_is_found(delta):
    found = fit(predicted(delta))
    assert found.delta == pytest.approx(delta, abs=1e-3)
    assert found.distance < 1e-9
    assert not found.is_bound


def test_a_model_that_is_all_discrete_has_a_bound():
    found = fit(predicted(np.inf))
    assert found.is_bound
    assert found.delta > 35


def test_a_shift_explains_all_of_what_is_a_shift():
    found = shift.explain(predicted(6.0), predicted(-1.0), SEEN, PROMPTS.x)
    assert (found.before.delta, found.after.delta) == pytest.approx((-1, 6), abs=1e-3)
    assert found.share == pytest.approx(1, abs=1e-6)
    assert found.rest == pytest.approx(0, abs=1e-6)
    assert found.change == pytest.approx(np.square(predicted(6.0) - predicted(-1.0)).mean())


@pytest.mark.parametrize("part", [0.2, 0.7, 1.0])
def test_a_fade_is_told_from_a_shift_though_each_explains_some_of_the_other(part):
    """Every answer goes the same part of the way, whatever the labels say: no guess is wrong."""
    here = predicted(-1.0)
    faded = here + part * (predicted(np.inf) - here)
    found = shift.explain(faded, here, SEEN, PROMPTS.x)
    assert found.faded == pytest.approx(part, abs=1e-3)
    assert found.fade_share == pytest.approx(1, abs=1e-6)
    assert found.share > 0.4  # which by itself says little
    shifted = shift.explain(predicted(4.0), here, SEEN, PROMPTS.x)
    assert 0 < shifted.fade_share < 0.9 < shifted.share
    # By a loop: no other part of the way explains more.
    parts = np.linspace(0, 1, 101)
    moved, way = predicted(4.0) - here, predicted(np.inf) - here
    every = [1 - np.square(moved - p * way).mean() / np.square(moved).mean() for p in parts]
    assert shifted.fade_share == pytest.approx(max(every), abs=1e-3)
    assert shifted.faded == pytest.approx(parts[np.argmax(every)], abs=0.01)


def test_from_the_discrete_predictor_itself_there_is_no_way_to_fade():
    few = replace(SEEN, log_discrete=SEEN.log_discrete + 1e4)  # of the set with any shift
    same = few.predict(PROMPTS.x, np.inf)
    found = shift.explain(same + 1, same, few, PROMPTS.x)
    assert (found.faded, found.fade_share) == (0, 0)


def test_damage_is_what_a_shift_does_not_explain():
    """The more noise in the predictions, the smaller the share, and the rest is its variance."""
    rng = np.random.default_rng(1)
    found = []
    for noise in (0.0, 0.3, 1.0, 3.0):
        damaged = predicted(6.0) + noise * rng.standard_normal(PROMPTS.truth.shape)
        found.append(shift.explain(damaged, predicted(0.0), SEEN, PROMPTS.x))
        assert found[-1].rest == pytest.approx(noise**2, rel=0.05, abs=1e-6)
        assert found[-1].after.delta == pytest.approx(6.0, abs=1.0)
        assert found[-1].rest == pytest.approx(found[-1].change * (1 - found[-1].share))
    shares = [f.share for f in found]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.3 < 0.99 < shares[0]


def test_a_model_that_knows_neither_kind_is_damage_alone():
    found = shift.explain(0 * predicted(0.0), predicted(0.0), SEEN, PROMPTS.x)
    assert found.share < 0.1


def test_an_error_that_was_there_before_is_no_change():
    """What pre-training did not learn is in both models, and takes nothing from the share."""
    wrong = np.random.default_rng(2).standard_normal(PROMPTS.truth.shape)
    found = shift.explain(
        predicted(3.0) + 0.2 * wrong, predicted(0.0) + 0.2 * wrong, SEEN, PROMPTS.x
    )
    assert found.share > 0.98
    assert found.after.distance == pytest.approx(0.04, rel=0.1)


def test_nothing_changed():
    found = shift.explain(predicted(0.0), predicted(0.0), SEEN, PROMPTS.x)
    assert found.change == found.rest == 0
    assert np.isnan(found.share)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(InputError, match="predictions: expected one a prompt"):
        fit(predicted(0.0)[:, :3])
    for alpha in (0.0, 1.0):
        certain = bayes.infer_prefixes(replace(OF, alpha=alpha), *PROMPTS.examples)
        with pytest.raises(InputError, match="alpha above 0 and below 1"):
            shift.fit(predicted(0.0), certain, PROMPTS.x)
