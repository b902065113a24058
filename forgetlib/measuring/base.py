"""What can be measured of a checkpoint: an open set of readouts, each with documented columns.

Long because what is stored is one subject: each readout says what its columns mean and checks it.

A readout is a frozen class whose fields are what is stored, `columns` says what each means, and
`measure` asks a model. To add one, define it where it is imported before it is asked for:

    @dataclass(frozen=True)
    class Lengths(Readout, name="lengths"):
        columns = {"tokens": Column(pa.list_(pa.int32()), "(N,) tokens of each prompt")}
        tokens: np.ndarray

        @classmethod
        def measure(cls, asked):
            prompts = [e.prompts[0] for e in asked.questions()]
            return cls(np.array([len(asked.lm.tokens(p)) for p in prompts], np.int32))

    study("tiny", readouts=["lengths"])

Shapes: N examples, C choices, S recorded training steps, P layers, K control probes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from forgetlib.data.base import Example
from forgetlib.errors import (
    InputError,
    require_arrays,
    require_distinct_uids,
    require_finite,
    require_one_of,
)

if TYPE_CHECKING:
    from forgetlib.models.lm import LM


@dataclass(frozen=True)
class Column:
    """Say how a field of a readout is stored, and what it means.

    type: lists of numbers become arrays, lists of texts become tuples
    """

    type: pa.DataType
    meaning: str
    read_as: str = ""  # NumPy's type in memory, where it is not the stored one

    @cached_property
    def dtype(self) -> np.dtype | None:
        """Tell NumPy's type of a list's numbers; None for texts and for what is no list."""
        inner = self.type
        while pa.types.is_list(inner):
            inner = inner.value_type
        if inner is self.type or pa.types.is_string(inner):
            return None
        return np.dtype(self.read_as or inner.to_pandas_dtype())


@dataclass(frozen=True)
class Asked:
    """Ask a readout: hold a model, and questions of one task, as a view shows them.

    measurement: a `runs.specs.Measurement`
    load: (split, n) -> the first n questions of this split that fit the model
    memo: what readouts of one job share, as hidden states
    """

    lm: LM
    measurement: Any
    load: Callable[[str, int], list[Example]]
    memo: dict[Any, Any] = field(default_factory=dict)

    def questions(self) -> list[Example]:
        """Return the questions that the measurement is about."""
        return self.load(self.measurement.split, self.measurement.n)


# Defined below.
BUILT_IN = (
    "scores",
    "dynamics",
    "scores_in_training",
    "dose",
    "probe",
    "hidden_variance",
    "loss",
    "logit_lens",
    "prompt_nats",
)
# What a row of the store has beside a readout.
RESERVED = ("checkpoint", "checkpoint_id", "measurement", "measurement_id", "provenance")


class Readout:
    """Hold what one measurement found. Subclasses are frozen dataclasses with a name.

    columns: by field, how it is stored and what it means
    in_training: whether it is taken while a checkpoint comes about, and not of its weights
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, Column]]
    in_training: ClassVar[bool] = False
    version: ClassVar[str] = "1"
    _known: ClassVar[dict[str, type[Readout]]] = {}

    def __init_subclass__(cls, name: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        free = name not in BUILT_IN and name not in RESERVED
        if not re.fullmatch(r"[a-z]\w*", str(name)) or not (free or cls.__module__ == __name__):
            raise InputError(
                f"name of readout {cls.__name__}",
                expected="a new name of a small letter, then letters, digits, _",
                found=repr(name),
                do="Choose another: the stored column is called so too.",
            )
        cls.name = name
        Readout._known[name] = cls  # again, to correct one's own

    @classmethod
    def measure(cls, asked: Asked) -> Self:
        """Measure a model. The package's own are measured by `ask`, so that this needs no torch."""
        raise NotImplementedError(f"{cls.__name__}.measure")

    @classmethod
    def struct(cls) -> pa.StructType:
        """Return the columns as Arrow's type."""
        return pa.struct([(name, column.type) for name, column in cls.columns.items()])


def readout(name: str) -> type[Readout]:
    """Return the class of a readout by its name; InputError where none has it."""
    require_one_of("readout", name, Readout._known, "Import the file that defines it first.")
    return Readout._known[name]


def readouts() -> tuple[str, ...]:
    """List the names of all readouts that are known."""
    return tuple(Readout._known)


ROUNDING = 1e-4  # nats that the logarithm of a probability may be above 0, by rounding


def paper_layer(n_layers: int) -> int:
    """Tell the fifth-to-last hidden state of 0 to n_layers; in a shallow model the first block."""
    return max(1, n_layers - 4)


_NUMBERS, _WHOLE, _TEXTS = pa.list_(pa.float32()), pa.list_(pa.int32()), pa.list_(pa.string())


@dataclass(frozen=True)
class Scores(Readout, name="scores"):
    """Hold log-likelihoods of every choice of N examples; all statistics come from these."""

    columns: ClassVar = {
        "uids": Column(_TEXTS, "(N,) which examples, <task>/<source's split>/<row>"),
        "labels": Column(pa.list_(pa.int8()), "(N,) index of the true response", "int64"),
        "log_likelihoods": Column(
            pa.list_(_NUMBERS), "(N, C) nats, summed over the tokens of the choice"
        ),
        "n_tokens": Column(pa.list_(_WHOLE), "(N, C) tokens of the choice"),
    }

    uids: tuple[str, ...]
    log_likelihoods: np.ndarray
    n_tokens: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        require_arrays(self, "log_likelihoods", "n_tokens", "labels")
        n, shape = len(self.uids), self.log_likelihoods.shape
        fits = len(shape) == 2 and shape[0] == n > 0 and shape[1] > 1
        if not fits or self.n_tokens.shape != shape:
            raise InputError(
                "Scores",
                expected="N >= 1 uids with (N, C) log_likelihoods and n_tokens, C >= 2",
                found=f"{n} uids, {shape} and {self.n_tokens.shape}",
                do="Score at least one example, and every choice of it.",
            )
        require_distinct_uids("Scores", self.uids)
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

    def take(self, uids: Sequence[str]) -> Scores:
        """Take the scores of some of the examples, in this order; KeyError for any other."""
        place = {uid: i for i, uid in enumerate(self.uids)}
        places = [place[uid] for uid in uids]
        arrays = self.log_likelihoods, self.n_tokens, self.labels
        return Scores(tuple(uids), *(array[places] for array in arrays))


@dataclass(frozen=True)
class Dynamics(Readout, name="dynamics"):
    """Hold confidence in the true response of examples while they are trained on (paper, Fig. 5).

    Measurement.settings["records"] says how many times, evenly spaced, beside the end.
    """

    in_training = True
    columns: ClassVar = {
        "steps": Column(_WHOLE, "(S,) optimiser steps taken; 0 is before training"),
        "uids": Column(_TEXTS, "(N,) which examples"),
        "confidence": Column(pa.list_(_NUMBERS), "(S, N) p(true) / (p(true) + p(distractor))"),
    }

    steps: np.ndarray
    uids: tuple[str, ...]
    confidence: np.ndarray

    def __post_init__(self) -> None:
        require_arrays(self, "steps", "confidence")
        shape = len(self.steps), len(self.uids)
        if self.confidence.shape != shape or 0 in shape:
            raise InputError(
                "Dynamics.confidence",
                expected=f"shape {shape}" if all(shape) else "a step and an example at least",
                found=self.confidence.shape,
                do="Record every training example at every step.",
            )
        require_finite("Dynamics.confidence", self.confidence)


@dataclass(frozen=True)
class ScoresInTraining(Readout, name="scores_in_training"):
    """Hold log-likelihoods of every choice of N examples, at S steps of a training.

    Measurement.settings["every"] says how many steps lie between two records; the last is at the
    end.
    """

    in_training = True
    columns: ClassVar = {
        "steps": Column(_WHOLE, "(S,) optimiser steps taken; 0 is before training"),
        "uids": Column(_TEXTS, "(N,) which examples, <task>/<source's split>/<row>"),
        "labels": Column(pa.list_(pa.int8()), "(N,) index of the true response", "int64"),
        "log_likelihoods": Column(
            pa.list_(pa.list_(_NUMBERS)), "(S, N, C) nats, summed over the tokens of the choice"
        ),
        "n_tokens": Column(pa.list_(_WHOLE), "(N, C) tokens of the choice"),
    }

    steps: np.ndarray
    uids: tuple[str, ...]
    labels: np.ndarray
    log_likelihoods: np.ndarray
    n_tokens: np.ndarray

    def __post_init__(self) -> None:
        require_arrays(self, "steps", "labels", "log_likelihoods", "n_tokens")
        shape = self.log_likelihoods.shape
        if len(shape) != 3 or shape[:1] != self.steps.shape or not len(self.steps):
            raise InputError(
                "ScoresInTraining.log_likelihoods",
                expected=f"shape (S, N, C) of S = {len(self.steps)} steps, and one at least",
                found=shape,
                do="Score every example at every step.",
            )
        _ = self.scores  # raises where those of a step are none

    @cached_property
    def scores(self) -> tuple[Scores, ...]:
        """Return the scores at each step, (S,)."""
        return tuple(
            Scores(self.uids, found, self.n_tokens, self.labels) for found in self.log_likelihoods
        )

    @classmethod
    def of(cls, records: Sequence[tuple[int, Scores]]) -> Self:
        """Make it of (step, scores) pairs, all of the same examples."""
        steps, found = zip(*records, strict=True)
        return cls(
            np.array(steps, np.int32),
            found[0].uids,
            found[0].labels,
            np.stack([scores.log_likelihoods for scores in found]),
            found[0].n_tokens,
        )


@dataclass(frozen=True)
class DoseCurve(Readout, name="dose"):
    """Hold how the forgetting set's AUROC fell while a training went on until its dose.

    One check each time that the dose was looked at, the first before any step.
    """

    in_training = True
    columns: ClassVar = {
        "steps": Column(_WHOLE, "(S,) optimiser steps taken; 0 is before training"),
        "auroc": Column(
            _NUMBERS, "(S,) AUROC of the forgetting set, by the labels that the method was given"
        ),
    }

    steps: np.ndarray
    auroc: np.ndarray

    def __post_init__(self) -> None:
        require_arrays(self, "steps", "auroc")
        if self.steps.shape != self.auroc.shape or not self.steps.size:
            raise InputError(
                "DoseCurve.auroc",
                expected=f"a number for each of {len(self.steps)} checks, and one at least",
                found=self.auroc.shape,
                do="Record every check.",
            )
        require_finite("DoseCurve.auroc", self.auroc)

    @classmethod
    def of(cls, checks: Sequence[tuple[int, float]]) -> Self:
        """Make it of (step, AUROC) pairs."""
        steps, values = zip(*checks, strict=True)
        return cls(np.array(steps, np.int32), np.array(values, np.float32))

    def reached(self, most: float, checks: int) -> bool:
        """Tell whether max(AUROC, 1 - AUROC) was at most so much in the last checks."""
        last = self.auroc[1:][-checks:]
        return len(last) == checks and bool((np.maximum(last, 1 - last) <= most).all())


@dataclass(frozen=True)
class Probe(Readout, name="probe"):
    """Hold what a linear probe of the hidden states says of the test examples (paper, Fig. 6).

    The examples are those of the checkpoint's test scores, in their order.
    Measurement.fit_on says how many training questions it is fitted on.
    """

    columns: ClassVar = {
        "layers": Column(
            pa.list_(pa.int16()), "(P,) 0 is the token embeddings, l the output of block l"
        ),
        "correct": Column(
            pa.list_(pa.list_(pa.list_(pa.bool_()))),
            "(P, N, C) whether the probe is right about each pair of question and answer",
        ),
        "control": Column(
            pa.list_(_NUMBERS),
            "(K, P) share of these pairs about which a probe is right that was fitted to labels "
            "drawn at random, one a draw: what a probe finds by accident",
        ),
    }

    layers: np.ndarray
    correct: np.ndarray
    control: np.ndarray

    def __post_init__(self) -> None:
        names = ("correct", "control", "layers")
        require_arrays(self, *names)
        of_correct, of_control, of_layers = shapes = [getattr(self, name).shape for name in names]
        fits = len(of_correct) == 3 and of_correct[:1] == of_layers
        if not fits or len(of_control) != 2 or of_control[1:] != of_layers or not of_control[0]:
            raise InputError(
                "Probe",
                expected="correct (P, N, C), control (K, P), layers (P,), K >= 1",
                found=", ".join(map(str, shapes)),
                do="Probe every test example at every layer, and a control.",
            )

    @property
    def paper_layer(self) -> int:
        """Tell the fifth-to-last of the hidden states; in a shallow model the first block."""
        return int(self.layers[paper_layer(len(self.layers) - 1)])


@dataclass(frozen=True)
class HiddenVariance(Readout, name="hidden_variance"):
    """Hold how far the hidden states of questions are from their mean (paper, Fig. 4)."""

    columns: ClassVar = {
        "layer": Column(pa.int16(), "of the hidden states: the fifth-to-last"),
        "deviation": Column(
            _NUMBERS,
            "(N,) squared distance of the hidden state at the question's last token from its mean "
            "over the N examples; their sum over N - 1 is the trace of the covariance matrix",
        ),
    }

    layer: int
    deviation: np.ndarray

    def __post_init__(self) -> None:
        require_arrays(self, "deviation")
        if self.deviation.ndim != 1 or not len(self.deviation):
            raise InputError(
                "HiddenVariance.deviation",
                expected="shape (N,), N >= 1",
                found=self.deviation.shape,
                do="Give one number for each example.",
            )
        require_finite("HiddenVariance.deviation", self.deviation)


@dataclass(frozen=True)
class Loss(Readout, name="loss"):
    """Hold the loss of each step while a checkpoint was trained."""

    in_training = True
    columns: ClassVar = {
        "loss": Column(
            _NUMBERS, "(steps,) the method's, before each step; of labels: nats a response token"
        )
    }

    loss: np.ndarray

    def __post_init__(self) -> None:
        require_arrays(self, "loss")


@dataclass(frozen=True)
class LogitLens(Readout, name="logit_lens"):
    """Hold what each layer would answer, if the model ended there: log-likelihoods of N examples.

    A layer's hidden states pass the final norm and the output layer (nostalgebraist, 2020,
    "interpreting GPT: the logit lens"). What a model has forgotten may still be read in an earlier
    layer (Łucki et al., arXiv 2409.18025).
    """

    columns: ClassVar = {
        "uids": Column(_TEXTS, "(N,) which examples, <task>/<source's split>/<row>"),
        "labels": Column(pa.list_(pa.int8()), "(N,) index of the true response", "int64"),
        "layers": Column(
            pa.list_(pa.int16()), "(P,) 0 is the token embeddings, l the output of block l"
        ),
        "log_likelihoods": Column(
            pa.list_(pa.list_(_NUMBERS)),
            "(P, N, C) nats, summed over the tokens of the choice; those of the last layer are the "
            "model's own, as in scores",
        ),
    }

    uids: tuple[str, ...]
    labels: np.ndarray
    layers: np.ndarray
    log_likelihoods: np.ndarray

    def __post_init__(self) -> None:
        require_arrays(self, "labels", "layers", "log_likelihoods")
        shape, n = self.log_likelihoods.shape, len(self.uids)
        fits = len(shape) == 3 and shape[:2] == (len(self.layers), n) and 0 not in shape
        if not fits or shape[2] < 2 or self.labels.shape != (n,):
            raise InputError(
                "LogitLens",
                expected="layers (P,), uids and labels (N,) with log_likelihoods (P, N, C)",
                found=f"{self.layers.shape}, {n}, {self.labels.shape} and {shape}",
                do="Score at least one example at every layer, and every choice of it.",
            )
        require_finite("LogitLens.log_likelihoods", self.log_likelihoods)


@dataclass(frozen=True)
class PromptNats(Readout, name="prompt_nats"):
    """Hold how unusual the prompts of N questions are to a model (arXiv 2309.10105, section 3).

    The questions are those of the checkpoint's scores of the same view, in their order.
    """

    columns: ClassVar = {
        "nats": Column(_NUMBERS, "(N,) nats a token of each prompt, after its first word")
    }

    nats: np.ndarray

    def __post_init__(self) -> None:
        require_arrays(self, "nats")
        if self.nats.ndim != 1 or not len(self.nats):
            raise InputError(
                "PromptNats.nats",
                expected="shape (N,), N >= 1",
                found=self.nats.shape,
                do="Give one number for each prompt.",
            )
        require_finite("PromptNats.nats", self.nats)
