"""Draw the discrete set, and prompts whose vectors are of it, are not, or are of the mixture.

Everything is drawn from a seed and a name, so that no draw depends on one before it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from forgetlib.errors import InputError, require_one_of, require_whole
from forgetlib.implicit.bayes import Mixture
from forgetlib.implicit.settings import Setting

KINDS = ("continuous", "discrete")  # what the vector of a prompt is
ALPHA = {"continuous": 0.0, "discrete": 1.0}


@dataclass(frozen=True, eq=False)
class Prompts:
    """Hold n prompts of k examples and a query, which are also prompts of 0, 1, ... k examples.

    x: (n, k + 1, d), standard normal; of the prompt of i examples, x[:, i] is the query
    y: (n, k + 1), labels with noise. The last is of the longest prompt's query, and not asked
    truth: (n, k + 1), w.x, the labels without noise
    is_discrete: (n,), whether the vector is of the discrete set
    """

    x: np.ndarray
    y: np.ndarray
    truth: np.ndarray
    is_discrete: np.ndarray

    @property
    def examples(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x (n, k, d) and y (n, k) of the examples, without the last query."""
        return self.x[:, :-1], self.y[:, :-1]


def generator(seed: int, what: str, *numbers: int) -> np.random.Generator:
    """Return the generator of one draw, which its name and numbers decide beside the seed."""
    return np.random.default_rng([seed, zlib.crc32(what.encode()), *numbers])


def mixture(setting: Setting) -> Mixture:
    """Draw the discrete set of a setting's seed, T vectors of entries N(0, tau^2).

    It is the same for every alpha, so that these can be compared.
    """
    shape = setting.n_vectors, setting.dimension
    vectors = setting.tau * generator(setting.seed, "discrete set").standard_normal(shape)
    return Mixture(vectors, setting.alpha, setting.sigma, setting.tau)


def draw(of: Mixture, n: int, n_points: int, rng: np.random.Generator, kind: str = "") -> Prompts:
    """Draw n prompts of 0 to n_points examples from a mixture, or from one kind of it.

    kind: "continuous" or "discrete"; "" draws the kind of each prompt too, with probability alpha

    Raises InputError for another kind, n below 1 and n_points below 0.
    """
    n, n_points = require_whole("n", n, 1), require_whole("n_points", n_points)
    require_one_of("kind of prompts", kind, ("", *KINDS))
    alpha = ALPHA[kind] if kind else of.alpha
    is_discrete = rng.random(n) < alpha
    vectors = of.tau * rng.standard_normal((n, of.dimension))
    fixed = of.vectors[rng.integers(len(of.vectors), size=n)]
    w = np.where(is_discrete[:, None], fixed, vectors)
    x = rng.standard_normal((n, n_points + 1, of.dimension))
    truth = np.einsum("nkd,nd->nk", x, w)
    y = truth + of.sigma * rng.standard_normal(truth.shape)
    return Prompts(x, y, truth, is_discrete)


def require_context(k: int, n_points: int) -> None:
    """Raise InputError where prompts have more examples than a model was made for."""
    if k > n_points:
        raise InputError(
            "examples of a prompt",
            expected=f"at most {n_points}, which the model was made for",
            found=k,
            do="Ask shorter prompts, or train with a larger n_points.",
        )
