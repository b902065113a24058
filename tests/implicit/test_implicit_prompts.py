"""Prompts are what the mixture says, and drawn from a seed alone; settings are checked."""

from dataclasses import replace

import numpy as np
import pytest

from forgetlib.errors import InputError
from forgetlib.implicit import prompts, settings
from forgetlib.implicit.bayes import Mixture
from forgetlib.implicit.settings import Setting, named

TINY = named("implicit-tiny")


def test_prompts_have_the_moments_that_the_mixture_says():
    of = Mixture(np.array([[1.0, 0.0], [0.0, -2.0]]), alpha=0.25, sigma=0.5, tau=1.5)
    drawn = prompts.draw(of, 40_000, 3, np.random.default_rng(0))
    assert drawn.x.shape == (40_000, 4, 2)
    assert drawn.y.shape == drawn.truth.shape == (40_000, 4)
    assert drawn.examples[0].shape == (40_000, 3, 2)
    assert drawn.is_discrete.mean() == pytest.approx(0.25, abs=0.01)
    assert (drawn.y - drawn.truth).std() == pytest.approx(0.5, abs=0.01)
    continuous = drawn.truth[~drawn.is_discrete]
    assert continuous.var() == pytest.approx(2 * 1.5**2, rel=0.03)
    assert drawn.truth[drawn.is_discrete].var() == pytest.approx(2.5, rel=0.05)  # (1 + 4) / 2


@pytest.mark.parametrize("kind", prompts.KINDS)
def test_a_kind_is_all_of_it(kind):
    of = prompts.mixture(TINY)
    drawn = prompts.draw(of, 50, 2, np.random.default_rng(0), kind)
    assert (drawn.is_discrete == (kind == "discrete")).all()
    fits = np.abs(drawn.truth[:, :, None] - drawn.x @ of.vectors.T).max(1).min(1) < 1e-12
    assert (fits == drawn.is_discrete).all()


def test_draws_depend_on_their_seed_and_name_alone():
    first, again = (prompts.generator(0, "weights", 3).random(4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for other in ((1, "weights", 3), (0, "questions", 3), (0, "weights", 4)):
        assert (prompts.generator(*other).random(4) != first).all()
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - that it stays is what is tested
    vectors = prompts.mixture(TINY).vectors
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    # the discrete set is the seed's, whatever the mixture's weight
    np.testing.assert_array_equal(prompts.mixture(replace(TINY, alpha=0.1)).vectors, vectors)
    assert (prompts.mixture(replace(TINY, seed=1)).vectors != vectors).all()


def test_no_example_and_one_vector_are_allowed():
    of = prompts.mixture(replace(TINY, n_vectors=1))
    drawn = prompts.draw(of, 3, 0, np.random.default_rng(0), "discrete")
    assert drawn.examples[0].shape == (3, 0, 2)
    np.testing.assert_allclose(drawn.truth, drawn.x @ of.vectors[0])


BAD = {
    "dimension": 0,
    "n_vectors": 0,
    "alpha": 1.5,
    "sigma": 0.0,
    "tau": 0,
    "n_points": 0,
    "layers": 0,
    "width": 33,
    "heads": 0,
    "batch": 1.5,
    "steps": 0,
    "rate": 0.0,
    "warm_up": -1,
    "target": "lable",
    "optimizer": "sgd",
    "tuning_steps": -1,
    "tuning_rate": -1e-4,
    "alone_steps": -1,
    "n_prompts": 1,
    "gammas": (1.0, 0.0),
    "seed": -1,
    "name": "",
}


@pytest.mark.parametrize("field", BAD)
def test_settings_that_cannot_be_right_are_refused(field):
    with pytest.raises(InputError, match=r"expected .*, found "):
        replace(TINY, **{field: BAD[field]})


@pytest.mark.parametrize("gammas", [(), (2.0,), (1.0, 1.0), (1.0, -2.0), [1.0], 1.0])
def test_scales_that_cannot_be_right_are_refused(gammas):
    with pytest.raises(InputError, match=r"expected .*, found "):
        Setting(gammas=gammas)


def test_every_field_but_the_name_is_in_the_key():
    assert replace(TINY, name="other").key == TINY.key
    assert TINY.key.startswith("seed0-alpha0.5-")
    assert replace(TINY, alpha=0.2, seed=3).key.startswith("seed3-alpha0.2-")
    other = {"batch": 33, "target": "label", "gammas": (1.0, 4.0), "rate": 1e-2}
    keys = {TINY.key} | {replace(TINY, **{name: value}).key for name, value in other.items()}
    assert len(keys) == 1 + len(other)
    assert replace(TINY, tau=1).key == TINY.key  # a whole number is the same number


def test_names():
    assert set(settings.NAMED) == {"implicit-tiny", "implicit"}
    assert all(setting.name == name for name, setting in settings.NAMED.items())
    assert named("implicit", seed=2, alpha=0.8).alpha == 0.8
    with pytest.raises(InputError, match="Did you mean 'implicit-tiny'"):
        named("implict-tiny")
    with pytest.raises(InputError, match="Did you mean 'alpha'"):
        named("implicit", alpah=0.8)


def test_other_prompts_are_refused():
    of, rng = prompts.mixture(TINY), np.random.default_rng(0)
    with pytest.raises(InputError, match="kind of prompts"):
        prompts.draw(of, 1, 1, rng, "discret")
    with pytest.raises(InputError, match="expected a whole number from 1"):
        prompts.draw(of, 0, 1, rng)
    with pytest.raises(InputError, match="expected a whole number from 0"):
        prompts.draw(of, 1, -1, rng)
