"""Ask models and the Bayes predictors about the same prompts, and tell whether the gate is met.

The table has one row for each model, kind of prompt, number of examples and scale of labels. It
needs no torch: a model is a function from prompts to predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from forgetlib.errors import InputError, require_number, require_one_of
from forgetlib.implicit.bayes import infer_prefixes
from forgetlib.implicit.prompts import KINDS, Prompts, draw, generator, mixture
from forgetlib.implicit.settings import Setting
from forgetlib.implicit.shift import explain

if TYPE_CHECKING:
    import pandas as pd

# (x (n, k + 1, d), y (n, k), gamma) -> predictions of w.x, (n, k + 1), already divided by gamma
Predictor = Callable[[np.ndarray, np.ndarray, float], np.ndarray]

BAYES = {"bayes": 0.0, "ridge": -np.inf, "discrete": np.inf}  # with the shift that makes it so
COLUMNS = {
    "seed": "of the setting",
    "alpha": "probability, in pre-training, that a prompt's vector is of the discrete set",
    "model": "pre-trained, fine-tuned, discrete-only; or the closed forms bayes, ridge, discrete",
    "kind": "of the prompts' vectors: continuous or discrete",
    "k": "labelled examples before the query",
    "gamma": "scale of the labels; predictions are divided by it",
    "quarter": "0: all prompts of the row; 1 to 4: those from the least to the most likely under "
    "the discrete set, in quarters of their log Bayes factor, among prompts of their kind and k",
    "error": "mean squared difference to w.x, without noise",
    "standard_error": "of that mean, over prompts",
    "n": "prompts of the row",
    "blocks": "means over equal parts of the row's prompts, in their order: the same prompts for "
    "every model and scale, so that differences are taken within parts; intervals resample these",
}
SHIFT_COLUMNS = {
    "seed": COLUMNS["seed"],
    "alpha": COLUMNS["alpha"],
    "k": "labelled examples before the query; -1: one fit over all numbers of them",
    "before": "shift of the pre-trained model against Bayes, nats",
    "before_distance": "its mean squared difference to the Bayes predictor with that shift",
    "after": "shift of the fine-tuned model against Bayes, nats: delta",
    "after_distance": "its mean squared difference to the Bayes predictor with that shift",
    "is_bound": "whether the shift after is the largest that is tried: at least so many nats",
    "change": "mean squared difference between the two models' predictions",
    "share": "of the change, explained by the shift from before to after",
    "rest": "mean squared difference that is not",
}
CONTROL_COLUMNS = {
    "model": "in the place of the fine-tuned one of `shifts`: it, or discrete-only, the control "
    "that never knew other tasks",
    **SHIFT_COLUMNS,
    "faded": "part of the way, 0 to 1, that all answers go alike to those of the discrete set",
    "fade_share": "of the change, explained by going this way, in the place of a shift",
}
GATE_EXAMPLES = (5, 10)
N_BLOCKS = 32  # parts of a row's prompts: enough for an interval, and a hundredth of the errors
GATE = 1.1  # the pre-trained model's error by the Bayes predictor's, at most


def ask(setting: Setting, models: Mapping[str, Predictor]) -> pd.DataFrame:
    """Ask models about prompts of both kinds, every length and every scale; see COLUMNS.

    The closed forms are among the rows. All are asked about the same prompts. `quarter` tells
    prompts apart as they are, with gamma = 1, so that it has the same prompts for every gamma.
    """
    import pandas as pd

    of = mixture(setting)
    rows = []
    for kind in KINDS:
        prompts = questions(setting, kind)
        x, y = prompts.examples
        quarters = _quarters(infer_prefixes(of, x, y).log_bayes_factor)
        for gamma in setting.gammas:
            inference = infer_prefixes(of, x, gamma * y)
            found = {
                name: inference.predict(prompts.x, delta) / gamma for name, delta in BAYES.items()
            }
            found |= {name: model(prompts.x, y, gamma) for name, model in models.items()}
            for name, predictions in found.items():
                errors = np.square(predictions - prompts.truth)
                rows += [
                    (name, kind, k, gamma, quarter, *_mean(errors[:, k][chosen]))
                    for k in range(errors.shape[1])
                    for quarter, chosen in _groups(quarters[:, k])
                ]
    names = [name for name in COLUMNS if name not in ("seed", "alpha")]
    table = pd.DataFrame(rows, columns=names)
    table.insert(0, "seed", setting.seed)
    table.insert(1, "alpha", setting.alpha)
    return table


def shifts(setting: Setting, before: Predictor, after: Predictor) -> pd.DataFrame:
    """Fit the shift of log-odds by fine-tuning, over all lengths and at each; see SHIFT_COLUMNS.

    Prompts of both kinds count, as many of each. Empty where alpha is 0 or 1, as then nothing
    shifts them.
    """
    found = controls(setting, before, {"fine-tuned": after})
    return found[list(SHIFT_COLUMNS)]


def controls(setting: Setting, before: Predictor, others: Mapping[str, Predictor]) -> pd.DataFrame:
    """Explain how models differ from one by a shift, and by a fade; see CONTROL_COLUMNS.

    others: by name; prompts as in `shifts`
    """
    import pandas as pd

    rows = []
    if 0 < setting.alpha < 1:
        of = mixture(setting)
        both = [questions(setting, kind) for kind in KINDS]
        x, y = (np.concatenate([getattr(p, name) for p in both]) for name in ("x", "y"))
        inference = infer_prefixes(of, x[:, :-1], y[:, :-1])
        first = before(x, y[:, :-1], 1.0)
        for name, other in others.items():
            second = other(x, y[:, :-1], 1.0)
            for k in range(-1, setting.n_points + 1):
                at = slice(None) if k < 0 else slice(k, k + 1)
                found = explain(second[:, at], first[:, at], inference.at(at), x[:, at])
                rows.append(
                    {
                        "model": name,
                        "seed": setting.seed,
                        "alpha": setting.alpha,
                        "k": k,
                        "before": found.before.delta,
                        "before_distance": found.before.distance,
                        "after": found.after.delta,
                        "after_distance": found.after.distance,
                        "is_bound": found.after.is_bound,
                        "change": found.change,
                        "share": found.share,
                        "rest": found.rest,
                        "faded": found.faded,
                        "fade_share": found.fade_share,
                    }
                )
    return pd.DataFrame(rows, columns=list(CONTROL_COLUMNS))


def questions(setting: Setting, kind: str) -> Prompts:
    """Draw the prompts of a kind that models are asked; no training has them."""
    require_one_of("kind of prompts", kind, KINDS)
    rng = generator(setting.seed, f"questions, {kind}")
    return draw(mixture(setting), setting.n_prompts, setting.n_points, rng, kind)


def gate(table: pd.DataFrame, noise: float = 0.0) -> pd.DataFrame:
    """Compare the pre-trained model with Bayes at the gate: before it is met, nothing is claimed.

    table: rows of `ask`, or of `results.read`
    noise: variance that is added to both errors: 0 compares the errors to w.x; sigma^2 compares
        the losses against labels, in which small differences weigh less

    A row for each seed, alpha, kind and k of 5 and 10: error of the model, of Bayes, their ratio,
    and whether that is at most 1.1. Raises InputError where the table lacks one of these.
    """
    noise = require_number("noise", noise, "a variance of at least 0", lambda x: x >= 0)
    of_one = [name for name in ("key", "seed", "alpha") if name in table]
    at = (table.gamma == 1) & (table.quarter == 0) & table.k.isin(GATE_EXAMPLES)
    keys = [*of_one, "kind", "k"]
    found = table[at].pivot_table(index=keys, columns="model", values="error")
    n_needed = len(table[of_one].drop_duplicates()) * len(KINDS) * len(GATE_EXAMPLES)
    both = ["pre-trained", "bayes"]
    whole = n_needed and len(found) >= n_needed and set(both) <= set(found.columns)
    if not whole or found[both].isna().any(axis=None):
        raise InputError(
            "gate",
            expected=f"errors of 'pre-trained' and 'bayes' at k of {GATE_EXAMPLES}, both kinds",
            found=f"k up to {table.k.max()}, models {sorted(table.model.unique())}",
            do="Take a setting whose n_points is at least 10, and ask the model.",
        )
    result = found[both].set_axis(["error", "bayes"], axis=1) + noise
    result["ratio"] = result.error / result.bayes
    result["met"] = result.ratio <= GATE
    return result.reset_index()


def _quarters(factor: np.ndarray) -> np.ndarray:
    """Number prompts 1 to 4 by the quarter of their value in each column, (n, k + 1).

    Where all are equal, as with no example, all are of quarter 0 and none is told apart.
    """
    places = factor.argsort(0, kind="stable").argsort(0, kind="stable")
    quarters = 1 + 4 * places // len(factor)
    return np.where(np.ptp(factor, axis=0) > 0, quarters, 0)


def _groups(quarter: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """List all prompts as group 0, and each quarter that there is."""
    every = np.ones(len(quarter), bool)
    return [(0, every)] + [(q, quarter == q) for q in (1, 2, 3, 4) if (quarter == q).any()]


def _mean(values: np.ndarray) -> tuple[float, float, int, np.ndarray]:
    """Compute a mean, its standard error (NaN for a single value), the number, means of parts."""
    n = len(values)
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    parts = np.array_split(values, min(N_BLOCKS, n))
    return float(values.mean()), error, n, np.array([p.mean() for p in parts], np.float32)
