"""The nouns of the package. All are frozen and checked when they are made.

Shapes: N examples, C choices (2 after binarising), S recorded training steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

CHANCE = 0.5  # accuracy of guessing between one true response and one distractor
CONDITIONS = ("base", "true", "random", "flipped")
TUNINGS = ("body", "full", "lora")
DTYPES = ("bfloat16", "float32")


class ForgetlibError(Exception):
    """Every error says what is wrong, what was expected, what was found, and what to do."""

    def __init__(self, what: str, *, expected: object, found: object, do: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}. {do}")


class InputError(ForgetlibError, ValueError):
    """The caller passed something that cannot be right."""


def hash_uniform(purpose: str, seed: int, uid: str) -> float:
    """A number in [0, 1) that depends on its arguments only.

    Every random choice about an example (its split, its distractor, the order of its choices, its
    random label) comes from here, so that none depends on how many examples there are or on their
    order: the first 100 examples of a task are a prefix of the first 1000.
    """
    digest = hashlib.blake2b(f"{purpose}|{seed}|{uid}".encode(), digest_size=8).digest()
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
        def wrong(expected: object, found: object, do: str) -> InputError:
            return InputError(f"example {self.uid!r}", expected=expected, found=found, do=do)

        if not isinstance(self.uid, str) or self.uid.count("/") < 2:
            raise wrong(
                "a uid '<task>/<split>/<row>'", repr(self.uid), "Name the example's origin."
            )
        for name in ("prompts", "choices"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(t, str) for t in texts):
                raise wrong(f"{name} to be a tuple of str", repr(texts), "Convert them to str.")
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
        is_index = isinstance(self.label, int) and not isinstance(self.label, bool)
        if not is_index or not 0 <= self.label < len(self.choices):
            raise wrong(
                f"a label from 0 to {len(self.choices) - 1}",
                repr(self.label),
                "The label is the index of the true response.",
            )

    @property
    def task(self) -> str:
        return self.uid.split("/", 1)[0]


@dataclass(frozen=True)
class TrainConfig:
    """How one phase of fine-tuning is done. All of it changes the result.

    learning_rate: peak of a linear warm-up followed by a linear decay to zero
    warmup: share of the steps spent warming up
    record_steps: how many times, evenly spaced, every training example's confidence is recorded
        (0: never; each costs one scoring pass over the training set)
    """

    learning_rate: float
    epochs: int = 2
    batch_size: int = 8
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    record_steps: int = 0

    def __post_init__(self) -> None:
        limits = {
            "learning_rate": (0 < self.learning_rate < 1, "a number between 0 and 1"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "warmup": (0 <= self.warmup <= 1, "a share of the steps, 0 to 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "max_grad_norm": (self.max_grad_norm > 0, "more than 0"),
            "record_steps": (self.record_steps >= 0, "0 or more"),
        }
        for name, (ok, expected) in limits.items():
            if not ok:
                raise InputError(
                    f"TrainConfig.{name}",
                    expected=expected,
                    found=repr(getattr(self, name)),
                    do="Correct the setting.",
                )


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
            if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names):
                raise InputError(
                    f"RunSpec.{name}",
                    expected="a tuple of task names",
                    found=repr(names),
                    do="Write ('sst2',) for a single task.",
                )
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
        if self.probe and self.train_tasks != self.eval_tasks:
            raise InputError(
                "RunSpec with probe=True",
                expected="one task, trained on and evaluated",
                found=f"train_tasks {self.train_tasks} and eval_tasks {self.eval_tasks}",
                do="A probe is fitted on a task's training set and scored on its test set.",
            )
        for name, allowed in (
            ("condition", CONDITIONS),
            ("tuning", TUNINGS),
            ("dtype", DTYPES),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"RunSpec.{name}",
                    expected=f"one of {', '.join(allowed)}",
                    found=repr(getattr(self, name)),
                    do="Choose one of these.",
                )
        for name, least in (("n_train", 1), ("n_eval", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(
                    f"RunSpec.{name}",
                    expected=f"a whole number from {least}",
                    found=repr(value),
                    do="Correct the setting.",
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
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        known = {f.name for f in fields(cls)}
        if unknown := set(values) - known:
            raise InputError(
                "RunSpec",
                expected=f"fields among {sorted(known)}",
                found=f"{sorted(unknown)}",
                do="The record was written by another version: recompute it.",
            )
        rest = dict(values)
        start, train = rest.pop("start", None), rest.pop("train", None)
        for name in ("train_tasks", "eval_tasks"):
            rest[name] = tuple(rest.get(name, ()))
        return cls(
            **rest,
            start=None if start is None else cls.from_dict(start),
            train=None if train is None else TrainConfig(**train),
        )

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
        n = len(self.uids)
        shape = self.log_likelihoods.shape
        if (
            n == 0
            or self.log_likelihoods.ndim != 2
            or shape[0] != n
            or self.n_tokens.shape != shape
        ):
            raise InputError(
                "Scores",
                expected="N >= 1 uids with (N, C) log_likelihoods and n_tokens",
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
        if self.labels.shape != (n,) or self.labels.min() < 0 or self.labels.max() >= shape[1]:
            raise InputError(
                "Scores.labels",
                expected=f"({n},) indices below {shape[1]}",
                found=f"shape {self.labels.shape}, values {np.unique(self.labels).tolist()[:5]}",
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
        if self.confidence.shape != (len(self.steps), len(self.uids)):
            raise InputError(
                "Dynamics.confidence",
                expected=f"shape {(len(self.steps), len(self.uids))}",
                found=self.confidence.shape,
                do="Record every training example at every step.",
            )


@dataclass(frozen=True)
class ProbeResult:
    """What a linear probe of the hidden states says of the test examples (paper, Fig. 4 and 6).

    Shapes: P probed layers, N test examples in the order of the run's test scores, C choices, K
    draws of shuffled labels.

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
        shape = self.correct.shape
        if (
            len(shape) != 3
            or shape[:2] != (len(self.layers), len(self.deviation))
            or self.control.ndim != 2
            or self.control.shape[1] != len(self.layers)
        ):
            raise InputError(
                "ProbeResult",
                expected="correct (P, N, C), control (K, P), layers (P,), deviation (N,)",
                found=f"{shape}, {self.control.shape}, {self.layers.shape}, {self.deviation.shape}",
                do="Probe every test example at every layer.",
            )
        if not np.isfinite(self.deviation).all():
            raise InputError(
                "ProbeResult.deviation",
                expected="finite numbers",
                found="not-a-number or infinity",
                do="The model's hidden states are broken: check its weights and dtype.",
            )


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
