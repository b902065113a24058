"""Fit one number, the shift of a model's log-odds in nats, and tell what of a change it explains.

If fine-tuning only shifts which task is inferred, then the tuned model is the Bayes predictor with
delta nats added to the log-odds of the discrete set, and nothing else has changed. What one number
does not explain is the rest: damage, or something learned. (Not in arXiv 2309.10105.)

One number explains much of a change that is no shift, too. So it is compared with another one: a
fade, by which every answer goes the same part of the way to that of the discrete set, whatever the
labels say of where the prompt comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from forgetlib.errors import InputError
from forgetlib.implicit.bayes import Inference

FARTHEST = 40.0  # nats either way; beyond it the predictor is ridge, or the discrete one
STEP = 0.5  # nats between the points from which the search begins


@dataclass(frozen=True)
class Shift:
    """Hold the shift of a model's log-odds of the discrete set.

    delta: nats added to the log-odds of the discrete set, so that the Bayes predictor is as near
        to the model as it comes
    distance: mean squared difference to that predictor, what no shift explains
    is_bound: whether delta is as large as it may be, so that it only says "at least"
    """

    delta: float
    distance: float
    is_bound: bool


@dataclass(frozen=True)
class Change:
    """Hold what a shift explains of how a model changed.

    before, after: the shifts of the model before and after, each against Bayes
    change: mean squared difference of the two models' predictions
    share: of the change that going from one shift to the other explains: 1 all of it, 0
        none, below 0 worse than no change. NaN where nothing changed
    rest: mean squared difference that is left, change * (1 - share)
    faded: part of the way, 0 to 1, to the discrete predictor, from Bayes with the shift before, on
        which answers are nearest to the model after
    fade_share: of the change that going this way explains, as share
    """

    before: Shift
    after: Shift
    change: float
    share: float
    rest: float
    faded: float
    fade_share: float


def fit(predictions: np.ndarray, inference: Inference, query: np.ndarray) -> Shift:
    """Fit delta = argmin mean (f - f_Bayes(logit alpha + delta))^2.

    predictions: (...), the model's f of each prompt
    inference: what the prompts say, of leading dimensions (...)
    query: (..., d)

    Raises InputError where alpha is 0 or 1, as then no number of nats changes the odds, and
    for other shapes.
    """
    ridge, step = _parts(inference, query)
    if predictions.shape != ridge.shape:
        raise InputError(
            "predictions",
            expected=f"one a prompt, of shape {ridge.shape}",
            found=predictions.shape,
            do="Ask the model about the same prompts.",
        )
    if not np.isfinite(inference.prior_log_odds):
        raise InputError(
            "mixture of the prompts",
            expected="alpha above 0 and below 1",
            found=f"log-odds {inference.prior_log_odds}",
            do="A gate that is certain cannot be shifted: fit where alpha is between.",
        )

    def distance(delta: float) -> float:
        return float(np.square(ridge + inference.p_discrete(delta) * step - predictions).mean())

    # From the best of a grid, as there may be more than one valley.
    grid = np.arange(-FARTHEST, FARTHEST + STEP, STEP)
    best = float(grid[int(np.argmin([distance(delta) for delta in grid]))])
    bounds = max(best - STEP, -FARTHEST), min(best + STEP, FARTHEST)
    found = minimize_scalar(distance, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return Shift(float(found.x), float(found.fun), bool(abs(best) == FARTHEST))


def explain(
    after: np.ndarray, before: np.ndarray, inference: Inference, query: np.ndarray
) -> Change:
    """Fit the shift of a model before and after, and tell how much of the change it explains.

    after, before: (...), predictions of the same prompts; others as in `fit`
    """
    first, second = fit(before, inference, query), fit(after, inference, query)
    changed, from_here = after - before, inference.predict(query, first.delta)
    shifted = inference.predict(query, second.delta) - from_here
    whole_way = inference.predict(query, np.inf) - from_here
    size = np.square(whole_way).sum()  # 0 where before is the discrete predictor: no way to go
    faded = float(np.clip(((after - from_here) * whole_way).sum() / size, 0, 1)) if size else 0.0
    change = float(np.square(changed).mean())
    rest, fade_rest = (
        float(np.square(changed - explained).mean()) for explained in (shifted, faded * whole_way)
    )
    share, fade_share = (1 - left / change if change else np.nan for left in (rest, fade_rest))
    return Change(first, second, change, share, rest, faded, fade_share)


def _parts(inference: Inference, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute ridge's prediction, (...), and what to add for that of the discrete set."""
    ridge = np.einsum("...d,...d->...", inference.continuous, query)
    return ridge, np.einsum("...d,...d->...", inference.discrete, query) - ridge
