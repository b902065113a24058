"""Made-up results of in-context regression, in which what is claimed is true or false by make."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from forgetlib.implicit import bayes, evaluate
from forgetlib.implicit.prompts import mixture
from forgetlib.implicit.settings import named

SETTING = replace(named("implicit"), n_points=10, n_prompts=256, gammas=(1.0, 1.5, 2.0))


def shifted(setting, delta):
    """The Bayes predictor with a shifted gate, as a model."""

    def predict(x, y, gamma):
        seen = bayes.infer_prefixes(mixture(setting), x[:, :-1], gamma * y[:, : x.shape[1] - 1])
        return seen.predict(x, delta) / gamma

    return predict


def noisy(setting, delta, noise):
    """The same with noise in its answers, which no shift explains, whatever the scale."""
    own = shifted(setting, delta)

    def predict(x, y, gamma):
        rng = np.random.default_rng(len(x))
        return own(x, y, gamma) + noise * rng.standard_normal(x.shape[:2])

    return predict


def untrained(x, y, gamma):
    return np.zeros(x.shape[:2])


# world: shift and noise of the pre-trained, the fine-tuned and the discrete-only model; "faded":
# part of the way that answers go
WORLDS = {
    "shift": ((0.0, 0.0), (3.0, 0.1), (np.inf, 0.0)),
    "damage": ((0.0, 0.0), (0.0, 1.0), (8.0, 0.0)),
    "fade": ((0.0, 0.0), (0.8, "faded"), (np.inf, 0.0)),
    "untrained": (None, (6.0, 0.0), (np.inf, 0.0)),
}


def faded(setting, part):
    """Every answer goes the same part of the way from Bayes' to the discrete predictor's."""
    here, there = shifted(setting, 0.0), shifted(setting, np.inf)
    return lambda *asked: (1 - part) * here(*asked) + part * there(*asked)


def model(setting, how):
    if how is None:
        return untrained
    return faded(setting, how[0]) if how[1] == "faded" else noisy(setting, *how)


@cache
def controls(name, seeds=(0, 1, 2)):
    """The controls of a world, as `results.read` gives them."""
    found = []
    for seed in seeds:
        setting = replace(SETTING, seed=seed)
        before, after, never = (model(setting, how) for how in WORLDS[name])
        others = {"fine-tuned": after, "discrete-only": never}
        found.append(evaluate.controls(setting, before, others).assign(key=setting.key))
    return pd.concat(found, ignore_index=True)


@cache
def world(name, seeds=(0, 1, 2), alphas=(0.5,)):
    """Errors and shifts of a world, as `results.read` gives them."""
    errors, shifts = [], []
    for alpha in alphas:
        for seed in seeds:
            setting = replace(SETTING, seed=seed, alpha=alpha)
            before, after, never = (model(setting, how) for how in WORLDS[name])
            models = {"pre-trained": before, "fine-tuned": after, "discrete-only": never}
            errors.append(evaluate.ask(setting, models))
            shifts.append(evaluate.shifts(setting, before, after))
            for table in (errors[-1], shifts[-1]):
                table.insert(0, "key", setting.key)
    return pd.concat(errors, ignore_index=True), pd.concat(shifts, ignore_index=True)
