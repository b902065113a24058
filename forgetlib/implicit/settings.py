"""The settings of one experiment, checked, and those that have a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from forgetlib.errors import (
    InputError,
    require,
    require_name,
    require_number,
    require_one_of,
    require_whole,
)
from forgetlib.implicit.bayes import LEAST_NOISE, require_scale
from forgetlib.runs.specs import hash_of

OPTIMIZERS = ("muon", "adamw")
TARGETS = ("label", "truth", "posterior")
# Fields that are whole numbers, with the least that each may be.
WHOLE = {
    "dimension": 1,
    "n_vectors": 1,
    "n_points": 1,
    "layers": 1,
    "width": 1,
    "heads": 1,
    "batch": 1,
    "steps": 1,
    "warm_up": 0,
    "tuning_steps": 0,
    "alone_steps": 0,
    "n_prompts": 2,
    "seed": 0,
}


@dataclass(frozen=True)
class Setting:
    """Say what is drawn, what is trained on it, and what is asked (arXiv 2309.10105, section 2).

    The paper's T is 64 and its sigma 1. Its text was not at hand: d, tau and all sizes of the
    model and of training are assumptions, chosen for two cores. With tau = 1 and 16 examples the
    gate was not met (error on discrete prompts of 10 examples 3.1 times Bayes' after 2,400 steps):
    labels then tell vectors apart so well that Bayes' own error is next to 0. With tau = 0.5, which
    is the same as twice the noise, and no longer prompts than the gate asks, it is 1.37 times in a
    training of 1,500 steps and 1.05 times in one of 6,000 (seed 0, 379 s of a core), 1.01 times at
    5 examples, and on continuous prompts 1.00 and 0.99 times. Whether a model that was trained so
    may be spoken of is told by `evaluate.gate`, and not by these numbers.

    name: of the folder that results are kept in; it never changes a number
    dimension: d, entries of a vector
    n_vectors: T, vectors of the discrete set; 1 is allowed, and is a discrete set that is known
    alpha: probability that a prompt's vector is of the discrete set, 0 to 1
    sigma, tau: standard deviations of a label's noise and of a vector's entries; sigma is at least
        LEAST_NOISE of tau, as without noise there are no densities to weigh
    n_points: labelled examples of the longest prompt; prompts of 0 to n_points are asked
    layers, width, heads: of the transformer; the width is a multiple of the heads
    batch: prompts of a step
    steps, rate: of pre-training, the rate at its highest
    warm_up: steps in which the rate rises; then it falls to 0 along a cosine
    target: what pre-training compares predictions with. "label": y, as the paper does. "truth":
        w.x, without the noise. "posterior": the expectation of w.x given the prompt. All three
        have the same loss on average, but for a constant, and the same gradient on average; the
        later ones have less noise in it
    optimizer: of pre-training. "muon" for the matrices of layers and AdamW for what is left, or
        "adamw" for all, as the paper
    tuning_steps, tuning_rate: of fine-tuning on prompts of the discrete set, against labels
    alone_steps: of pre-training on the discrete set alone, the model that never knew
    n_prompts: prompts of each kind that are asked
    gammas: scales of labels, above 0, that prompts are asked under; 1 is among them
    seed: of the discrete set, weights, training and questions

    Raises InputError for other values.
    """

    name: str = "implicit"
    dimension: int = 5
    n_vectors: int = 8
    alpha: float = 0.5
    sigma: float = 1.0
    tau: float = 0.5
    n_points: int = 10
    layers: int = 4
    width: int = 64
    heads: int = 4
    batch: int = 64
    steps: int = 6_000
    rate: float = 3e-3
    warm_up: int = 300
    target: str = "posterior"
    optimizer: str = "muon"
    tuning_steps: int = 400
    tuning_rate: float = 1e-4
    alone_steps: int = 2_000
    n_prompts: int = 4_096
    gammas: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in WHOLE.items():
            whole = require_whole(f"Setting.{name}", getattr(self, name), least)
            object.__setattr__(self, name, whole)
        for name in ("tau", "rate", "tuning_rate"):
            self._check(name, "a number above 0", lambda x: x > 0)
        of_tau = (LEAST_NOISE * self.tau).__le__
        self._check("sigma", f"a number of at least {LEAST_NOISE} times tau", of_tau)
        self._check("alpha", "a probability from 0 to 1", lambda x: 0 <= x <= 1)
        require_one_of("Setting.target", self.target, TARGETS)
        require_one_of("Setting.optimizer", self.optimizer, OPTIMIZERS)
        require_name("Setting.name", self.name)
        if self.width % self.heads:
            raise InputError(
                "Setting.width",
                expected=f"a multiple of the number of heads, {self.heads}",
                found=self.width,
                do="Change one of the two.",
            )
        require("Setting.gammas", self.gammas, tuple, "a tuple of numbers")
        object.__setattr__(
            self, "gammas", tuple(require_scale("Setting.gammas", g) for g in self.gammas)
        )
        if 1.0 not in self.gammas or len(set(self.gammas)) < len(self.gammas):
            raise InputError(
                "Setting.gammas",
                expected="1 among them, and every one once",
                found=self.gammas,
                do="Prompts as they are is what others are compared with: add 1.",
            )

    def _check(self, name: str, expected: str, fits: Callable[[float], bool]) -> None:
        value = require_number(f"Setting.{name}", getattr(self, name), expected, fits)
        object.__setattr__(self, name, value)

    @property
    def key(self) -> str:
        """Name what belongs to these settings: seed, alpha and 8 digits of a hash over all."""
        values = {name: value for name, value in asdict(self).items() if name != "name"}
        return f"seed{self.seed}-alpha{self.alpha:g}-{hash_of(values)[:8]}"


NAMED = {
    # For tests: trained in seconds, and so far from the gate.
    "implicit-tiny": Setting(
        name="implicit-tiny",
        dimension=2,
        n_vectors=2,
        tau=1.0,
        n_points=6,
        layers=2,
        width=32,
        heads=2,
        batch=32,
        steps=500,
        rate=4e-3,
        warm_up=30,
        optimizer="adamw",
        tuning_steps=60,
        tuning_rate=1e-3,
        alone_steps=100,
        n_prompts=256,
    ),
    "implicit": Setting(),
}


def named(name: str, **changes: Any) -> Setting:
    """Return the setting of a name, with these of its fields changed; InputError for no such one.

    Write named("implicit", seed=1, alpha=0.2).
    """
    require_one_of("setting", name, tuple(NAMED))
    known = tuple(f.name for f in fields(Setting))
    for field in changes:
        require_one_of("field of a setting", field, known)
    return replace(NAMED[name], **changes)
