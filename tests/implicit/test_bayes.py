"""Closed forms against integrals over w on a grid, and against numbers computed elsewhere."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from forgetlib.errors import InputError
from forgetlib.implicit import bayes
from forgetlib.implicit.bayes import Mixture


def infer(mixture, x, y):
    """What all examples of each prompt tell."""
    return bayes.infer_prefixes(mixture, x, y).at(-1)


def predict(mixture, x, y, query, delta=0.0, gamma=1.0):
    return infer(mixture, x, gamma * y).predict(query, delta) / gamma


def prompts(n, k, d, rng, sigma=1.0):
    """x (n, k, d), y (n, k), queries (n, d) and w.query (n,), of standard normal vectors."""
    x, w, query = (rng.standard_normal(shape) for shape in ((n, k, d), (n, d), (n, d)))
    y = np.einsum("nkd,nd->nk", x, w) + sigma * rng.standard_normal((n, k))
    return x, y, query, np.einsum("nd,nd->n", w, query)


def integrated(mixture, x, y, query):
    """The prediction of one prompt and the densities of its labels, by sums over a grid of w."""
    d = mixture.dimension
    axis = np.linspace(-8 * mixture.tau, 8 * mixture.tau, {1: 20_001, 2: 801}[d])
    w = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
    prior = norm.pdf(w, scale=mixture.tau).prod(-1) * (axis[1] - axis[0]) ** d
    seen = norm.pdf(y, w @ x.T, mixture.sigma).prod(-1) * prior
    seen_discrete = norm.pdf(y, mixture.vectors @ x.T, mixture.sigma).prod(-1).mean()
    of_each = norm.pdf(y, mixture.vectors @ x.T, mixture.sigma).prod(-1) / len(mixture.vectors)
    top = (1 - mixture.alpha) * (seen @ (w @ query))
    top += mixture.alpha * (of_each @ (mixture.vectors @ query))
    below = (1 - mixture.alpha) * seen.sum() + mixture.alpha * seen_discrete
    return top / below, np.log(seen.sum()), np.log(seen_discrete)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("k", [0, 1, 4])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_predictions_and_densities_are_those_of_an_integral_over_w(d, k, alpha):
    rng = np.random.default_rng(k)
    mixture = Mixture(rng.standard_normal((3, d)), alpha, sigma=0.7, tau=1.3)
    x, y, query, _ = prompts(4, k, d, rng)
    found = infer(mixture, x, y)
    for i in range(4):
        prediction, log_continuous, log_discrete = integrated(mixture, x[i], y[i], query[i])
        assert found.predict(query)[i] == pytest.approx(prediction, abs=1e-6)
        assert found.log_continuous[i] == pytest.approx(log_continuous, abs=1e-6)
        assert found.log_discrete[i] == pytest.approx(log_discrete, abs=1e-6)


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 10.0])
def test_the_density_is_that_of_scipy_in_the_space_of_labels(sigma):
    rng = np.random.default_rng(0)
    mixture = Mixture(rng.standard_normal((64, 5)), sigma=sigma, tau=2.0)
    x, y, _, _ = prompts(8, 12, 5, rng, sigma)
    found = infer(mixture, x, y)
    for i in range(8):
        covariance = 4 * x[i] @ x[i].T + sigma**2 * np.eye(12)
        expected = multivariate_normal.logpdf(y[i], cov=covariance, allow_singular=False)
        assert found.log_continuous[i] == pytest.approx(expected, rel=1e-6)


# Squared error to w.x of (ridge, mixture at .5, odds of 10^4 to 1, discrete), by gamma; least and
# most of three draws, each with its own sampling error. That of ridge is .815 in expectation.
REFERENCE = {
    1.0: [(0.76, 0.79), (0.84, 0.88), (1.75, 1.81), (2.2, 2.4)],
    1.5: [(0.76, 0.79), (0.79, 0.82), (1.18, 1.23), (2.4, 2.6)],
    2.0: [(0.76, 0.79), (0.77, 0.81), (0.91, 0.96), (2.6, 2.9)],
}


@pytest.mark.parametrize("draw", range(3))
@pytest.mark.parametrize("gamma", REFERENCE)
def test_errors_are_those_of_the_reference_table(draw, gamma):
    rng = np.random.default_rng(draw)
    mixture = Mixture(rng.standard_normal((64, 5)))
    x, y, query, truth = prompts(4096, 10, 5, rng)
    shifts = (-np.inf, 0.0, np.log(1e4), np.inf)
    for delta, (least, most) in zip(shifts, REFERENCE[gamma], strict=True):
        found = predict(mixture, x, y, query, delta=delta, gamma=gamma)
        errors = np.square(found - truth)
        sampling = 4 * errors.std() / 64  # four standard errors of the mean over 4,096 prompts
        assert least - sampling <= errors.mean() <= most + sampling


def test_the_error_of_ridge_is_the_trace_of_the_posterior_covariance():
    """In expectation it is E tr (X'X + I)^-1, from the same X: no draw of labels is in it."""
    rng = np.random.default_rng(5)
    mixture = Mixture(np.zeros((1, 5)), alpha=0)
    x, y, query, truth = prompts(40_000, 10, 5, rng)
    covariance = np.linalg.inv(np.einsum("nki,nkj->nij", x, x) + np.eye(5))
    expected = np.trace(covariance, axis1=1, axis2=2).mean()
    errors = np.square(predict(mixture, x, y, query) - truth)
    assert errors.mean() == pytest.approx(expected, abs=4 * errors.std() / 200)
    assert expected == pytest.approx(0.815, abs=0.01)


def test_the_mixture_is_best_where_prompts_are_of_it():
    """No shift of the log-odds, and neither kind alone, has a smaller error."""
    rng = np.random.default_rng(1)
    mixture = Mixture(rng.standard_normal((8, 5)), alpha=0.3)
    x, y, query, truth = prompts(20_000, 5, 5, rng)
    discrete = rng.random(20_000) < 0.3
    w = mixture.vectors[rng.integers(8, size=20_000)]
    y = np.where(discrete[:, None], np.einsum("nkd,nd->nk", x, w) + rng.normal(size=y.shape), y)
    truth = np.where(discrete, np.einsum("nd,nd->n", w, query), truth)
    found = infer(mixture, x, y)
    errors = {
        s: np.square(found.predict(query, s) - truth).mean() for s in (-np.inf, -2, 0, 2, np.inf)
    }
    assert min(errors, key=errors.get) == 0
    # Calibrated: among prompts of a probability of about p, a share p is of the set.
    for low in (0.1, 0.4, 0.7):
        chosen = (found.p_discrete() > low) & (found.p_discrete() < low + 0.2)
        error = 4 / np.sqrt(chosen.sum())
        assert discrete[chosen].mean() == pytest.approx(
            found.p_discrete()[chosen].mean(), abs=error
        )


def test_prefixes_are_prompts_of_their_own():
    rng = np.random.default_rng(2)
    mixture = Mixture(rng.standard_normal((4, 3)), 0.2)
    x, y, _, _ = prompts(6, 7, 3, rng)
    every = bayes.infer_prefixes(mixture, x, y)
    assert every.weights().shape == (6, 8, 3)
    for k in range(8):
        one = infer(mixture, x[:, :k], y[:, :k])
        np.testing.assert_allclose(every.weights()[:, k], one.weights(), atol=1e-10)
        np.testing.assert_allclose(every.log_odds()[:, k], one.log_odds(), atol=1e-9)
        np.testing.assert_array_equal(
            every.at(slice(k, k + 1)).p_discrete()[:, 0], every.p_discrete()[:, k]
        )


def test_limits():
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((4, 3))
    x, y, query, _ = prompts(50, 5, 3, rng)
    only = {a: predict(Mixture(vectors, a), x, y, query) for a in (0, 1)}
    half = infer(Mixture(vectors), x, y)
    # alpha of 0 and 1 are ridge and discrete alone, and no finite shift changes that
    np.testing.assert_array_equal(only[0], half.predict(query, -np.inf))
    np.testing.assert_array_equal(only[1], half.predict(query, np.inf))
    for a in (0, 1):
        found = predict(Mixture(vectors, a), x, y, query, delta=30.0)
        np.testing.assert_array_equal(found, only[a])
    # without examples: the prior's mean, weighed with alpha
    none = infer(Mixture(vectors, 0.3), x[:, :0], y[:, :0])
    np.testing.assert_allclose(none.weights(), np.tile(0.3 * vectors.mean(0), (50, 1)))
    np.testing.assert_allclose(none.p_discrete(), 0.3)
    # one vector: whatever the labels say, it is that one
    one = Mixture(vectors[:1])
    np.testing.assert_allclose(infer(one, x, y).discrete, np.tile(vectors[0], (50, 1)))
    # a shift is a change of alpha: log-odds add
    moved = Mixture(vectors, 0.5 * np.e**2 / (0.5 * np.e**2 + 0.5))
    np.testing.assert_allclose(infer(moved, x, y).p_discrete(), half.p_discrete(2.0))
    # labels that nothing explains: logarithms, and so no infinity or not-a-number
    far = infer(Mixture(vectors), x, 1e6 * y)
    assert np.isfinite(far.weights()).all()
    assert (far.p_discrete() == 0).all()


@pytest.mark.parametrize("gamma", [0.01, 1.5, 2.0, 100.0])
def test_ridge_does_not_change_with_the_scale_of_labels(gamma):
    rng = np.random.default_rng(4)
    mixture = Mixture(rng.standard_normal((4, 3)))
    x, y, query, _ = prompts(50, 5, 3, rng)
    found = predict(mixture, x, y, query, delta=-np.inf, gamma=gamma)
    np.testing.assert_allclose(found, predict(mixture, x, y, query, delta=-np.inf))


def test_large_labels_speak_against_the_discrete_set():
    rng = np.random.default_rng(4)
    mixture = Mixture(rng.standard_normal((4, 3)))
    x, y, _, _ = prompts(500, 8, 3, rng)
    shares = [infer(mixture, x, gamma * y).p_discrete(5.0).mean() for gamma in (1, 1.5, 2, 3)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.5 * shares[0]


BAD = {
    "y of other prompts": lambda m, x, y: infer(m, x, y[:-1]),
    "x of another dimension": lambda m, x, y: infer(m, x[..., :2], y),
    "no discrete set": lambda m, x, y: Mixture(np.zeros((0, 3))),
    "one vector as a row": lambda m, x, y: Mixture(np.zeros(3)),
    "vectors that are none": lambda m, x, y: Mixture(np.full((1, 3), np.nan)),
    "no array": lambda m, x, y: Mixture([[1.0, 2.0]]),
    "alpha above 1": lambda m, x, y: Mixture(m.vectors, 1.1),
    "alpha below 0": lambda m, x, y: Mixture(m.vectors, -0.1),
    "no noise": lambda m, x, y: Mixture(m.vectors, sigma=0.0),
    "too little noise": lambda m, x, y: Mixture(m.vectors, sigma=1e-5),
    "tau 0": lambda m, x, y: Mixture(m.vectors, tau=0),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_right_is_refused(case):
    mixture = Mixture(np.eye(3))
    with pytest.raises(InputError, match=r"expected .*, found "):
        BAD[case](mixture, np.ones((4, 5, 3)), np.ones((4, 5)))


@pytest.mark.parametrize("sigma", [1e-4, 1e-2])
def test_little_noise_is_no_loss_of_digits(sigma):
    rng = np.random.default_rng(6)
    mixture = Mixture(rng.standard_normal((4, 3)), sigma=sigma)
    x, y, query, truth = prompts(200, 6, 3, rng, sigma)
    found = infer(mixture, x, y)
    assert (found.p_discrete() == 0).all()  # continuous prompts rule the discrete set out
    assert np.abs(found.predict(query) - truth).max() < 100 * sigma
