"""The nouns of the package. All are frozen and checked when they are made.

Shapes: N examples, C choices (2 after binarising), S recorded training steps.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from types import UnionType
from typing import Any

import numpy as np

CHANCE = 0.5  # accuracy of guessing between one true response and one distractor
CONDITIONS = ("base", "true", "random", "flipped")
TUNINGS = ("body", "full", "lora")
DTYPES = ("bfloat16", "float32")
OPTIMIZERS = ("adamw", "adafactor")
# Settings that came later, at the value that goes without saying: the ids of older runs still hold.
LATER = {"optimizer": "adamw"}


class ForgetlibError(Exception):
    """Every error says what is wrong, what was expected, what was found, and what to do."""

    def __init__(self, what: str, *, expected: object, found: object, do: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}. {do}")


class InputError(ForgetlibError, ValueError):
    """The caller passed something that cannot be right."""


# --- what is asked of a value, here and in the modules above -------------------------------------


def require(what: str, value: object, kind: type | UnionType, expected: str) -> None:
    """Raise InputError unless the value is of this kind."""
    if not isinstance(value, kind):
        raise InputError(what, expected=expected, found=repr(value), do="Correct the value.")


def require_one_of(
    what: str, value: object, allowed: Collection[str], do: str = "Choose one of these."
) -> None:
    """Raise InputError unless the value is one of these words; it names the one that is near."""
    if not isinstance(value, str) or value not in allowed:
        if near := nearest(value, allowed):
            do = f"Did you mean {near!r}? {do}"
        raise InputError(what, expected=f"one of {', '.join(allowed)}", found=repr(value), do=do)


def nearest(value: object, allowed: Collection[str]) -> str | None:
    """Return the word that the value is a misspelling of, if there is one."""
    lower = {word.lower(): word for word in allowed}
    near = difflib.get_close_matches(str(value).lower(), lower, n=1, cutoff=0.7)
    return lower[near[0]] if near else None


def require_whole(
    what: str,
    value: object,
    least: int = 0,
    most: int | None = None,
    do: str = "Correct the number.",
) -> None:
    """Raise InputError unless the value is an int of Python's own, as JSON can hold no other."""
    if type(value) is not int or value < least or (most is not None and value > most):
        until = "" if most is None else f" to {most}"
        expected = f"a whole number from {least}{until}"
        raise InputError(what, expected=expected, found=repr(value), do=do)


def require_number(what: str, value: Any, expected: str, fits: Callable[[float], bool]) -> float:
    """The number as a float, 0 without a sign; InputError where it is none or does not fit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not fits(value):
        raise InputError(what, expected=expected, found=repr(value), do="Correct the number.")
    return float(value) + 0.0


def require_name(what: str, value: object) -> None:
    """Raise InputError unless the value is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputError(what, expected="a name", found=repr(value), do="Name one.")


def require_texts(what: str, value: object, expected: str, do: str) -> None:
    """Raise InputError unless the value is a tuple of str: a single str would be its letters."""
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise InputError(what, expected=expected, found=repr(value), do=do)


def utf8(what: str, text: str) -> bytes:
    """The text's bytes; InputError where it has none, as half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            what,
            expected="text that can be written as UTF-8",
            found=repr(text),
            do="It was decoded in the wrong way: correct that, or drop it.",
        ) from error


def _require_arrays(result: object, *names: str) -> None:
    for name in names:
        if not isinstance(value := getattr(result, name), np.ndarray):
            raise InputError(
                f"{type(result).__name__}.{name}",
                expected="a NumPy array",
                found=type(value).__name__,
                do="Convert it: np.array(...).",
            )


def _require_finite(what: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError(
            what,
            expected="finite numbers",
            found="not-a-number or infinity",
            do="The model computes no usable numbers: check its weights and dtype.",
        )


def _require_record(cls: type, values: object) -> None:
    """Raise InputError unless these are fields of the class, and all that have no default."""
    known = {f.name: f.default is MISSING for f in fields(cls)}
    found: object = repr(values)
    if isinstance(values, Mapping):
        unknown = sorted(set(values) - set(known))
        absent = [name for name, needed in known.items() if needed and name not in values]
        if not unknown and not absent:
            return
        found = unknown or f"none of {absent}"
    raise InputError(
        cls.__name__,
        expected=f"fields among {sorted(known)}",
        found=found,
        do="The record was written by another version: recompute it.",
    )


# --- nouns ---------------------------------------------------------------------------------------


def hash_uniform(purpose: str, seed: int, uid: str) -> float:
    """A number in [0, 1) that depends on its arguments only.

    Every random choice about an example (its split, its distractor, the order of its choices, its
    random label) comes from here, so that none depends on how many examples there are or on their
    order: the first 100 examples of a task are a prefix of the first 1000.
    """
    require_whole("seed", seed)
    text = utf8("uid", f"{purpose}|{seed}|{uid}")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


@dataclass(frozen=True)
class Example:
    """One binarised multiple-choice question.

    uid: "<task>/<split>/<row>"
    prompts: (C,) equal strings, except in partial scoring (WinoGrande), where the prompts differ
        and the choice, which is then the continuation, is shared
    choices: (C,) the responses, without the space that joins them to the prompt
    label: index of the true response
    """

    uid: str
    prompts: tuple[str, ...]
    choices: tuple[str, ...]
    label: int

    def __post_init__(self) -> None:
        what = f"example {self.uid!r}"

        def wrong(expected: object, found: object, do: str) -> InputError:
            return InputError(what, expected=expected, found=found, do=do)

        parts = self.uid.split("/", 2) if isinstance(self.uid, str) else ()
        if len(parts) < 3 or not all(parts):
            raise wrong(
                "a uid '<task>/<split>/<row>'", repr(self.uid), "Name the example's origin."
            )
        for name in ("prompts", "choices"):
            expected = f"{name} to be a tuple of str"
            require_texts(what, getattr(self, name), expected, "Convert them to str.")
        if len(self.choices) < 2:
            raise wrong(
                "at least two choices",
                f"{len(self.choices)}",
                "Forgetting is measured against a distractor: add one, or drop the question.",
            )
        if len(self.prompts) != len(self.choices):
            raise wrong(
                "as many prompts as choices",
                f"{len(self.prompts)} prompts and {len(self.choices)} choices",
                "Repeat the prompt for every choice.",
            )
        for text in (self.uid, *self.prompts, *self.choices):
            utf8(what, text)
        if not all(t.strip() for t in (*self.prompts, *self.choices)):
            raise wrong(
                "prompts and choices with text",
                repr((self.prompts, self.choices)),
                "An empty string has no likelihood: fill it in, or drop the question.",
            )
        pairs = list(zip(self.prompts, self.choices, strict=True))
        if len(set(pairs)) < len(pairs):
            raise wrong(
                "choices that differ",
                repr(self.choices),
                "Two equal responses cannot be told apart: drop the question.",
            )
        do = "The label is the index of the true response."
        require_whole(f"label of {what}", self.label, 0, len(self.choices) - 1, do)

    @property
    def task(self) -> str:
        return self.uid.partition("/")[0]


@dataclass(frozen=True)
class TrainConfig:
    """How one phase of fine-tuning is done. All of it changes the result.

    learning_rate: peak of a linear warm-up followed by a linear decay to zero
    warmup: share of the steps spent warming up
    record_steps: how many times, evenly spaced, every training example's confidence is recorded
        (0: never; each costs one scoring pass over the training set)
    optimizer: "adamw", or "adafactor", which takes half the memory: 7 billion weights in 80 GB
    """

    learning_rate: float
    epochs: int = 2
    batch_size: int = 8
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    record_steps: int = 0
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        limits: dict[str, tuple[str, Callable[[float], bool]]] = {
            "learning_rate": ("a number between 0 and 1", lambda x: 0 < x < 1),
            "warmup": ("a share of the steps, 0 to 1", lambda x: 0 <= x <= 1),
            "weight_decay": ("a number, 0 or more", lambda x: x >= 0),
            "max_grad_norm": ("a number above 0", lambda x: x > 0),
        }
        for name, (expected, fits) in limits.items():
            number = require_number(f"TrainConfig.{name}", getattr(self, name), expected, fits)
            # Equal settings have one run_id, though JSON tells 0, 0.0 and -0.0 apart.
            object.__setattr__(self, name, number)
        for name, least in (("epochs", 1), ("batch_size", 1), ("record_steps", 0)):
            require_whole(f"TrainConfig.{name}", getattr(self, name), least)
        require_one_of("TrainConfig.optimizer", self.optimizer, OPTIMIZERS)


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run's result, and nothing else (device and batching do not).

    A run takes a model, fine-tunes it on the training sets of `train_tasks` (mostly one) under a
    condition, and scores it on these training sets (true labels) and on the test sets of
    `eval_tasks`.

    condition: base (no training), true, random or flipped labels
    start: the run whose weights this one starts from; None is the pre-trained model. Forgetting
        (paper, section 3) is condition "random" with a "true" run as its start.
    n_train, n_eval: upper bounds for each task; a smaller task gives what it has, and the scores
        tell
    seed: decides split, distractors, random labels and the order of training
    probe: whether the trained model's hidden states are probed (paper, Fig. 4 and 6), on the one
        task of `train_tasks`
    """

    train_tasks: tuple[str, ...]
    condition: str
    n_train: int
    n_eval: int
    seed: int = 0
    eval_tasks: tuple[str, ...] = ()
    start: RunSpec | None = None
    train: TrainConfig | None = None
    model: str = "embedded"
    tuning: str = "body"
    dtype: str = "bfloat16"
    probe: bool = False

    def __post_init__(self) -> None:
        for name in ("train_tasks", "eval_tasks"):
            names = getattr(self, name)
            do = "Write ('sst2',) for a single task."
            require_texts(f"RunSpec.{name}", names, "a tuple of task names", do)
            if len(set(names)) < len(names):
                raise InputError(
                    f"RunSpec.{name}",
                    expected="every task once",
                    found=repr(names),
                    do="Remove the duplicates.",
                )
        if not self.train_tasks:
            raise InputError(
                "RunSpec.train_tasks", expected="at least one task", found="()", do="Name a task."
            )
        require_name("RunSpec.model", self.model)
        require("RunSpec.probe", self.probe, bool, "True or False")
        require("RunSpec.start", self.start, RunSpec | None, "a RunSpec, or None")
        require("RunSpec.train", self.train, TrainConfig | None, "a TrainConfig, or None")
        for name, allowed in (("condition", CONDITIONS), ("tuning", TUNINGS), ("dtype", DTYPES)):
            require_one_of(f"RunSpec.{name}", getattr(self, name), allowed)
        for name, least in (("n_train", 1), ("n_eval", 1), ("seed", 0)):
            require_whole(f"RunSpec.{name}", getattr(self, name), least)
        if self.probe and not self.train_tasks == self.eval_tasks == self.train_tasks[:1]:
            raise InputError(
                "RunSpec with probe=True",
                expected="one task, trained on and evaluated",
                found=f"train_tasks {self.train_tasks} and eval_tasks {self.eval_tasks}",
                do="A probe is fitted on a task's training set and scored on its test set.",
            )
        if (self.train is None) != (self.condition == "base"):
            raise InputError(
                f"RunSpec with condition {self.condition!r}",
                expected="a TrainConfig for every condition but 'base'",
                found=repr(self.train),
                do="Pass train=TrainConfig(...), or none for 'base'.",
            )
        if self.condition == "base" and self.start is not None:
            raise InputError(
                "RunSpec with condition 'base'",
                expected="no start, as the pre-trained model is meant",
                found=f"start={self.start.run_id}",
                do="Drop the start.",
            )
        if self.start is not None:
            for name in ("model", "tuning", "dtype", "seed"):
                if getattr(self.start, name) != getattr(self, name):
                    raise InputError(
                        f"RunSpec.start.{name}",
                        expected=f"the run's own, {getattr(self, name)!r}",
                        found=repr(getattr(self.start, name)),
                        do="Start from a run of the same model, tuning, dtype and seed.",
                    )

    @property
    def train_task(self) -> str:
        """The task trained on; "a+b+c" where there are several."""
        return "+".join(self.train_tasks)

    @property
    def start_task(self) -> str:
        """The task fine-tuned on before this run, or "" for the pre-trained model."""
        return "" if self.start is None else self.start.train_task

    @property
    def lineage(self) -> tuple[RunSpec, ...]:
        """This run's ancestors, the oldest first, and the run itself."""
        return (*(self.start.lineage if self.start else ()), self)

    def to_dict(self) -> dict[str, Any]:
        def without_later(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            return {name: v for name, v in pairs if name not in LATER or LATER[name] != v}

        return asdict(self, dict_factory=without_later)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        _require_record(cls, values)
        rest: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        if (start := rest.get("start")) is not None:
            rest["start"] = cls.from_dict(start)
        if (train := rest.get("train")) is not None:
            _require_record(TrainConfig, train)
            rest["train"] = TrainConfig(**train)
        return cls(**rest)

    @cached_property
    def run_id(self) -> str:
        """16 hexadecimal digits of a hash over every field, ancestors included."""
        text = json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        steps = [f"{s.train_task}:{s.condition}" for s in self.lineage]
        return f"{self.model} seed {self.seed} {' > '.join(steps)}"


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of every choice of N examples; every statistic is computed from these.

    uids: (N,)
    log_likelihoods: (N, C) nats, summed over the choice's tokens
    n_tokens: (N, C) tokens in the choice
    labels: (N,) index of the true response
    """

    uids: tuple[str, ...]
    log_likelihoods: np.ndarray
    n_tokens: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        _require_arrays(self, "log_likelihoods", "n_tokens", "labels")
        n, shape = len(self.uids), self.log_likelihoods.shape
        fits = len(shape) == 2 and shape[0] == n > 0 and shape[1] > 1
        if not fits or self.n_tokens.shape != shape:
            raise InputError(
                "Scores",
                expected="N >= 1 uids with (N, C) log_likelihoods and n_tokens, C >= 2",
                found=f"{n} uids, {shape} and {self.n_tokens.shape}",
                do="Score at least one example, and every choice of it.",
            )
        if len(set(self.uids)) != n:
            repeated = sorted({u for u in self.uids if self.uids.count(u) > 1})
            raise InputError(
                "Scores",
                expected="every uid once",
                found=f"repeated {repeated[:3]}",
                do="Remove the duplicates before scoring.",
            )
        if not np.isfinite(self.log_likelihoods).all():
            bad = [self.uids[i] for i in np.flatnonzero(~np.isfinite(self.log_likelihoods).all(1))]
            raise InputError(
                "Scores.log_likelihoods",
                expected="finite numbers",
                found=f"not-a-number or infinity for {len(bad)} of {n}, first {bad[0]!r}",
                do="The model returned no usable probabilities: check its weights and dtype.",
            )
        labels = self.labels
        are_indices = labels.dtype.kind in "iu" and labels.shape == (n,)
        if not are_indices or labels.min() < 0 or labels.max() >= shape[1]:
            raise InputError(
                "Scores.labels",
                expected=f"({n},) indices below {shape[1]}",
                found=f"{labels.dtype} of shape {labels.shape}, as {labels.ravel()[:5].tolist()}",
                do="A label is the index of the true response.",
            )

    def __len__(self) -> int:
        return len(self.uids)


@dataclass(frozen=True)
class Dynamics:
    """Confidence in the true response of every training example while training (paper, Fig. 5).

    steps: (S,) optimiser steps taken; 0 is before training
    uids: (N,)
    confidence: (S, N) p(true) / (p(true) + p(distractor))
    """

    steps: np.ndarray
    uids: tuple[str, ...]
    confidence: np.ndarray

    def __post_init__(self) -> None:
        _require_arrays(self, "steps", "confidence")
        shape = len(self.steps), len(self.uids)
        if self.confidence.shape != shape or 0 in shape:
            raise InputError(
                "Dynamics.confidence",
                expected=f"shape {shape}" if all(shape) else "a step and an example at least",
                found=self.confidence.shape,
                do="Record every training example at every step.",
            )
        _require_finite("Dynamics.confidence", self.confidence)


@dataclass(frozen=True)
class ProbeResult:
    """What a linear probe of the hidden states says of the test examples (paper, Fig. 4 and 6).

    Shapes: P probed layers, N test examples in the order of the run's test scores, C choices, K
    draws of random labels.

    layers: (P,) 0 is the token embeddings, l the output of block l
    correct: (P, N, C) whether the probe is right about each (question, answer) pair
    control: (K, P) share of these pairs about which a probe is right that was fitted to shuffled
        labels, one a draw: what a probe finds by accident
    variance_layer: the layer of `deviation`: the fifth-to-last
    deviation: (N,) squared distance of the hidden state at the question's last token from its mean
        over the N examples; their sum over N - 1 is the trace of the covariance matrix
    """

    layers: np.ndarray
    correct: np.ndarray
    control: np.ndarray
    variance_layer: int
    deviation: np.ndarray

    def __post_init__(self) -> None:
        names = ("correct", "control", "layers", "deviation")
        _require_arrays(self, *names)
        shapes = [getattr(self, name).shape for name in names]
        of_correct, of_control, of_layers, of_deviation = shapes
        fits = len(of_correct) == 3 and of_correct[:2] == (*of_layers, *of_deviation)
        if not fits or len(of_control) != 2 or of_control[1:] != of_layers or not of_control[0]:
            raise InputError(
                "ProbeResult",
                expected="correct (P, N, C), control (K, P), layers (P,), deviation (N,), K >= 1",
                found=", ".join(map(str, shapes)),
                do="Probe every test example at every layer, and a control.",
            )
        _require_finite("ProbeResult.deviation", self.deviation)


@dataclass(frozen=True)
class RunResult:
    """What one run measured.

    scores: by "<task>/<split>"; "<train_task>/train" is the forgetting set, with true labels
    train_loss: (steps,) nats a response token, empty for "base"
    dynamics: where TrainConfig.record_steps asks for it
    probe: where RunSpec.probe asks for it
    provenance: versions, device, seconds and date; it never changes what is measured
    """

    spec: RunSpec
    scores: Mapping[str, Scores]
    train_loss: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    dynamics: Dynamics | None = None
    probe: ProbeResult | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = {f"{t}/test" for t in self.spec.eval_tasks}
        wanted |= {f"{t}/train" for t in self.spec.train_tasks}
        if set(self.scores) != wanted:
            raise InputError(
                f"RunResult of {self.spec.run_id}",
                expected=f"scores for {sorted(wanted)}",
                found=f"{sorted(self.scores)}",
                do="Score every data set that the spec names.",
            )
        if self.spec.probe != (self.probe is not None):
            raise InputError(
                f"RunResult of {self.spec.run_id}",
                expected=f"a probe: {self.spec.probe}, as its spec says",
                found=f"{self.probe is not None}",
                do="Probe where the spec asks for it, and only there.",
            )
