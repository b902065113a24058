"""The predictors that no model can beat: ridge, discrete, their mixture, and a mixture shifted.

A prompt has k labelled examples, y_i = w.x_i + sigma * noise, and a query x. With probability alpha
its vector w is one of T fixed vectors, each as likely; else every entry of w is N(0, tau^2). What
predicts w.x with the least squared error is then known in closed form (arXiv 2309.10105, section
2): what holds for each of the two kinds, weighed by how likely it is to be of that kind.

NumPy in float64, probabilities as logarithms, and no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logsumexp

from forgetlib.errors import InputError, require_arrays, require_finite, require_number

LEAST_NOISE = 1e-4


def require_scale(what: str, gamma: object) -> float:
    """Return a scale of labels as a float; InputError unless it is a finite number above 0."""
    return require_number(what, gamma, "a number above 0", lambda x: x > 0)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Say where the vectors and labels of prompts come from.

    vectors: (T, d), the discrete set. With T = 1 the discrete predictor is that vector's own
    alpha: probability, 0 to 1, that a prompt's vector is of the discrete set
    sigma: standard deviation of a label's noise, at least LEAST_NOISE of tau. Without noise the
        kinds have no densities to weigh, and with less than that float64 has no digits for them
    tau: standard deviation of each entry of a vector that is not of the discrete set, above 0

    Raises InputError for other values.
    """

    vectors: np.ndarray
    alpha: float = 0.5
    sigma: float = 1.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        require_arrays(self, "vectors")
        if self.vectors.ndim != 2 or not self.vectors.size:
            raise InputError(
                "Mixture.vectors",
                expected="an array of shape (T, d), of at least one vector",
                found=f"shape {self.vectors.shape}",
                do="Pass one row a vector.",
            )
        require_finite("Mixture.vectors", self.vectors)
        object.__setattr__(self, "vectors", self.vectors.astype(np.float64))
        expected = "a probability from 0 to 1"
        alpha = require_number("Mixture.alpha", self.alpha, expected, lambda x: 0 <= x <= 1)
        object.__setattr__(self, "alpha", alpha)
        tau = require_number("Mixture.tau", self.tau, "a number above 0", lambda x: x > 0)
        object.__setattr__(self, "tau", tau)
        expected = f"a number of at least {LEAST_NOISE} times tau"
        fits = (LEAST_NOISE * tau).__le__
        object.__setattr__(
            self, "sigma", require_number("Mixture.sigma", self.sigma, expected, fits)
        )

    @property
    def dimension(self) -> int:
        """Tell the number of entries of a vector, d."""
        return int(self.vectors.shape[1])

    @property
    def prior_log_odds(self) -> float:
        """Tell log(alpha / (1 - alpha)) in nats, infinite where alpha is 0 or 1."""
        with np.errstate(divide="ignore"):
            return float(np.log(self.alpha) - np.log1p(-self.alpha))


@dataclass(frozen=True, eq=False)
class Inference:
    """Hold what prompts say of their vectors; leading dimensions `...` are prompts.

    continuous: (..., d), the posterior mean of w if it is no vector of the discrete set: ridge
    discrete: (..., d), the posterior mean of w if it is one of them
    log_continuous: (...), log density of the labels in nats if w is no vector of the discrete set
    log_discrete: (...), the same if it is one of them
    prior_log_odds: log(alpha / (1 - alpha))
    """

    continuous: np.ndarray
    discrete: np.ndarray
    log_continuous: np.ndarray
    log_discrete: np.ndarray
    prior_log_odds: float

    @property
    def log_bayes_factor(self) -> np.ndarray:
        """Compute how many nats the labels speak for the discrete set, (...)."""
        return self.log_discrete - self.log_continuous

    def log_odds(self, delta: float = 0.0) -> np.ndarray:
        """Compute the log-odds of the discrete set in nats, (...), shifted by delta nats."""
        return self.prior_log_odds + delta + self.log_bayes_factor

    def p_discrete(self, delta: float = 0.0) -> np.ndarray:
        """Compute the probability of the discrete set, (...), its log-odds shifted by delta."""
        return expit(self.log_odds(delta))

    def weights(self, delta: float = 0.0) -> np.ndarray:
        """Compute the posterior mean of w, (..., d), the log-odds of the set shifted by delta.

        delta in nats: 0 is the best predictor; towards infinity it is the discrete one, towards
        minus infinity ridge
        """
        p_discrete = self.p_discrete(delta)[..., None]
        return p_discrete * self.discrete + (1 - p_discrete) * self.continuous

    def predict(self, query: np.ndarray, delta: float = 0.0) -> np.ndarray:
        """Predict w.x, (...), of queries (..., d), log-odds shifted by delta nats."""
        return np.einsum("...d,...d->...", self.weights(delta), query)

    def at(self, lengths: slice | int) -> Inference:
        """Return it of some lengths, or one, where the last leading dimension is of lengths."""
        return replace(
            self,
            continuous=self.continuous[..., lengths, :],
            discrete=self.discrete[..., lengths, :],
            log_continuous=self.log_continuous[..., lengths],
            log_discrete=self.log_discrete[..., lengths],
        )


def infer_prefixes(mixture: Mixture, x: np.ndarray, y: np.ndarray) -> Inference:
    """Infer w of prompts from their first 0, 1, ..., k examples: arrays are (..., k + 1, ...).

    x: (..., k, d), y: (..., k). Raises InputError for other shapes.
    """
    x, y = _as_prompts(mixture, x, y)
    # Of every prefix X'X, X'y, y'y, ||y - X w_j||^2 and k.
    gram = _running_sums(x[..., :, None] * x[..., None, :], -3)
    moment = _running_sums(x * y[..., None], -2)
    square = _running_sums(np.square(y), -1)
    residual = _running_sums(np.square(y[..., None] - x @ mixture.vectors.T), -2)
    k = np.arange(x.shape[-2] + 1)

    variance, ratio = mixture.sigma**2, (mixture.sigma / mixture.tau) ** 2
    precision = gram + ratio * np.eye(mixture.dimension)
    continuous = np.linalg.solve(precision, moment[..., None])[..., 0]
    # y'(tau^2 XX' + sigma^2 I)^-1 y and the determinant of that k x k matrix, by way of d x d.
    left = (square - np.einsum("...i,...i->...", moment, continuous)) / variance
    diagonal = np.diagonal(np.linalg.cholesky(precision), axis1=-2, axis2=-1)
    log_det = 2 * np.log(diagonal).sum(-1) - mixture.dimension * np.log(ratio)
    constant = -0.5 * k * np.log(2 * np.pi * variance)
    log_continuous = constant - 0.5 * (log_det + left)

    log_likelihoods = -0.5 * residual / variance  # (..., T), but for the constant
    total = logsumexp(log_likelihoods, axis=-1, keepdims=True)
    posterior = np.exp(log_likelihoods - total)
    return Inference(
        continuous=continuous,
        discrete=posterior @ mixture.vectors,
        log_continuous=log_continuous,
        log_discrete=constant + total[..., 0] - np.log(len(mixture.vectors)),
        prior_log_odds=mixture.prior_log_odds,
    )


def _running_sums(values: np.ndarray, axis: int) -> np.ndarray:
    """Sum the first 0, 1, ..., k values along an axis."""
    before = [(0, 0)] * values.ndim
    before[axis] = (1, 0)
    return np.pad(np.cumsum(values, axis), before)


def _as_prompts(mixture: Mixture, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if x.ndim < 2 or x.shape[-1] != mixture.dimension or y.shape != x.shape[:-1]:
        raise InputError(
            "prompts",
            expected=f"x of shape (..., k, {mixture.dimension}) and y of shape (..., k)",
            found=f"{x.shape} and {y.shape}",
            do="Put the examples of a prompt in the last dimension but one of x.",
        )
    return x.astype(np.float64), y.astype(np.float64)
