"""Say what is done to weights: a `Method`, and the settings of the training that many share.

A method is a frozen dataclass. Its fields are its settings, which enter a checkpoint's id. Which of
these it overrides tells what it does:

    overrides   kind   what is done                                         by
    loss        loss   the weights descend this loss, in the shared loop    loop.train
    edit        edit   the weights are changed at once, without training    method.edit
    hook        hook   nothing: active while the model is measured          method.hook

A method of one's own, in a file of one's own:

    @dataclass(frozen=True)
    class Ascent(Method):
        fails_above_guessing = False
        training: Training

        def loss(self, lm, batch, context):
            return forward.response_log_likelihoods(lm, batch.inputs).sum() / batch.n_tokens

This file needs no torch, so that results can be read without it.
"""

from __future__ import annotations

import json
import math
import re
import sys
import typing
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from forgetlib.errors import (
    InputError,
    require,
    require_number,
    require_one_of,
    require_record,
    require_whole,
)
from forgetlib.forgetting.dose import Dose

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.data.base import Example
    from forgetlib.forgetting.context import BatchPart, Context
    from forgetlib.models.forward import TokenSequence
    from forgetlib.models.lm import LM

OPTIMIZERS = ("adamw", "adafactor")
DIVERGENCE_WINDOW = 20  # steps over which the loss is averaged before it is judged
KINDS = ("loss", "edit", "hook")
KEPT = ("log_likelihoods", "weights")


@dataclass(frozen=True)
class Training:
    """Set how the shared loop trains. All of it changes the weights.

    learning_rate: peak of a linear warm-up followed by a linear decay to zero
    epochs: how often the loop goes through all examples, each time in another order
    batch_size: examples of a step
    warmup: share of the steps spent warming up
    max_grad_norm: a gradient with a larger norm is scaled down to it
    optimizer: "adamw", or "adafactor", which takes half the memory: 7 billion weights in 80 GB
    until: the dose at which training stops before its last step; None: at none
    """

    later: ClassVar[Mapping[str, Any]] = {"until": None}

    learning_rate: float
    epochs: int = 2
    batch_size: int = 8
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw"
    until: Dose | None = None

    def __post_init__(self) -> None:
        limits: dict[str, tuple[str, Callable[[float], bool]]] = {
            "learning_rate": ("a number between 0 and 1", lambda x: 0 < x < 1),
            "warmup": ("a share of the steps, 0 to 1", lambda x: 0 <= x <= 1),
            "weight_decay": ("a number, 0 or more", lambda x: x >= 0),
            "max_grad_norm": ("a number above 0", lambda x: x > 0),
        }
        for name, (expected, fits) in limits.items():
            number = require_number(f"Training.{name}", getattr(self, name), expected, fits)
            # Equal settings have one id, though JSON tells 0, 0.0 and -0.0 apart.
            object.__setattr__(self, name, number)
        for name in ("epochs", "batch_size"):
            whole = require_whole(f"Training.{name}", getattr(self, name), 1)
            object.__setattr__(self, name, whole)
        require_one_of("Training.optimizer", self.optimizer, OPTIMIZERS)
        require("Training.until", self.until, Dose | None, "a Dose, or None")

    def n_steps(self, n_examples: int) -> int:
        """Count the steps of a training on so many examples."""
        return self.epochs * math.ceil(n_examples / self.batch_size)


def _snake_case(name: str) -> str:
    """Write GradientAscent as gradient_ascent, and KLToStart as kl_to_start."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _origin(cls: type) -> tuple[str, str]:
    """Tell a class's name and file: a cell that runs again defines the same class again."""
    module = sys.modules.get(cls.__module__)
    return cls.__qualname__, getattr(module, "__file__", None) or cls.__module__


@dataclass(frozen=True)
class Method:
    """Do something to a model's weights, or to a model while it is measured.

    Subclasses are frozen dataclasses. Fields with a meaning of their own:

    training: a `Training`; every loss method has it
    retain: a tuple of names of tasks whose questions the model shall keep; the caller loads them

    Constants of a class:

    name: how records name the method; without one, the class's name in snake case
    version: raised when the numbers that the method computes change
    later: fields that came later, at the value that goes without saying: records leave them out at
        that value, so that the ids of older ones hold
    keeps: what of the model before training its loss looks at: "log_likelihoods" of all sequences
        (`context.reference`), "weights" (`context.at_start`), both, or nothing
    fails_above_guessing: whether training fails at a loss that is worse than guessing tokens at
        random by a nat, or only at one that is not finite
    origin: whether its hook compares the model with what that was trained from (`context.origin`)
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    later: ClassVar[Mapping[str, Any]] = {}
    keeps: ClassVar[tuple[str, ...]] = ()
    fails_above_guessing: ClassVar[bool] = True
    origin: ClassVar[bool] = False

    def __init_subclass__(cls, registered: bool = True, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = _snake_case(cls.__name__)
        if not registered:
            return
        other = _METHODS.get(cls.name)
        if other is not None and _origin(other) != _origin(cls):
            raise InputError(
                f"method {cls.__qualname__} of {cls.__module__}",
                expected="a name that no other method has",
                found=f"{cls.name!r}, the name of {other.__qualname__} of {other.__module__}",
                do='Give it another: name = "...".',
            )
        _METHODS[cls.name] = cls

    def __post_init__(self) -> None:
        for field in fields(self):
            what, value = f"{type(self).__name__}.{field.name}", getattr(self, field.name)
            if field.type in ("float", float):  # equal settings have one id: 1 and 1.0
                number = require_number(what, value, "a finite number", lambda x: True)
                object.__setattr__(self, field.name, number)
            elif not _is_plain(value):
                raise InputError(
                    what,
                    expected="text, a number, a truth value, None, a tuple of these or settings "
                    "in a frozen dataclass",
                    found=repr(value),
                    do="Convert it: the settings of a method are hashed and stored as JSON.",
                )

    @property
    def kind(self) -> str:
        """Tell what the method overrides: "loss", "edit", or "hook" alone."""
        overridden = [k for k in KINDS if getattr(type(self), k) is not getattr(Method, k)]
        if not overridden or overridden[:2] == ["loss", "edit"]:
            raise InputError(
                f"method {self.name!r}",
                expected="a class that overrides loss, edit or hook, and not both loss and edit",
                found=" and ".join(overridden) or "none of them",
                do="See forgetlib.forgetting.base.",
            )
        return overridden[0]

    def to_dict(self) -> dict[str, Any]:
        """Write the method as JSON can hold it; `method_from_dict` reads it."""
        return {"method": self.name, **_to_dict(self)}

    def describe(self) -> str:
        """Say in a word or two what is done, settings that are not the usual ones included."""
        told = [
            "retain" if f.name == "retain" and value else f"{f.name}={value!r}"
            for f in fields(self)
            if not is_dataclass(value := getattr(self, f.name)) and value != f.default
        ]
        return f"{self.name}({', '.join(told)})" if told else self.name

    @property
    def opposes(self) -> bool:
        """Tell whether it makes true responses unlikely, by which it may teach the opposite."""
        return False

    def settings(self) -> Training | None:
        """Return the settings of the method's training; None where it trains nothing."""
        return getattr(self, "training", None)

    def retained(self) -> tuple[str, ...]:
        """Name the tasks whose questions the method needs beside those to forget."""
        return getattr(self, "retain", ())

    def sequences(self, lm: LM, example: Example, context: Context) -> tuple[TokenSequence, ...]:
        """Encode what the loss needs of an example: the true response, unless overridden.

        All sequences of an example are in one pass.
        """
        from forgetlib.models import forward

        return (forward.encode(lm, example, example.label),)

    def retained_sequences(
        self, lm: LM, example: Example, context: Context
    ) -> tuple[TokenSequence, ...]:
        """Encode what the loss needs of an example of the retain set: the true response, too."""
        from forgetlib.models import forward

        return (forward.encode(lm, example, example.label),)

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute one pass's share of the batch's loss; the shares of all passes add up to it."""
        raise NotImplementedError

    def diverged(self, losses: np.ndarray, worst: float) -> str | None:
        """Say why training has to stop as failed, or None: judged before each step is taken.

        A loss that is not finite, or, where `fails_above_guessing`, one that is worse than guessing
        tokens at random by a nat. Judged on a full window: a single batch may be hard, and a new
        model may start badly.

        losses: (steps,) up to the present one
        worst: nats a token of guessing tokens at random
        """
        if not self.fails_above_guessing:
            if math.isfinite(losses[-1]):
                return None
            return f"{float(losses[-1])}, which is no number to go on from"
        recent = float(losses[-DIVERGENCE_WINDOW:].mean())
        judged = len(losses) >= DIVERGENCE_WINDOW
        if math.isfinite(losses[-1]) and not (judged and recent > worst + 1):
            return None
        last = f"{losses[-1]:.3g}, mean of the last {DIVERGENCE_WINDOW} {recent:.3g}"
        return f"{last}, where guessing tokens at random has {worst:.1f} nats a token"

    def finished(self, step: int, losses: np.ndarray, context: Context) -> bool:
        """Tell whether training is done before its last step; asked after each.

        step: steps done; losses: (step,)
        """
        return False

    def after(self, lm: LM, context: Context) -> None:
        """Change the weights once more, in place, when the last step of a training is done.

        Nothing unless overridden; called without gradients. `context.at_start` is there for a
        method whose `keeps` has "weights".
        """

    def edit(self, lm: LM, context: Context) -> None:
        """Change the model's trainable weights, in place; called without gradients.

        `lm.weights` and `lm.set_weights` also do where several processes share the model.
        """
        raise NotImplementedError

    def hook(self, lm: LM, context: Context) -> AbstractContextManager[None]:
        """Change what the model computes while the returned context is active."""
        return nullcontext()


_METHODS: dict[str, type[Method]] = {}


def methods() -> dict[str, type[Method]]:
    """List the methods that are known, by name."""
    return dict(_METHODS)


@dataclass(frozen=True)
class UnknownMethod(Method, registered=False):
    """Stand for a method whose file is not imported: its record can be read, not done again.

    text: the record, as JSON
    """

    text: str

    def to_dict(self) -> dict[str, Any]:
        """Give the record as it was read."""
        return json.loads(self.text)

    def describe(self) -> str:
        """Say the name that the record gives."""
        return str(self.to_dict()["method"])

    @property
    def kind(self) -> str:
        """Raise InputError: only the file that defines the method knows."""
        raise self._error()

    def hook(self, lm: LM, context: Context) -> AbstractContextManager[None]:
        """Raise InputError: whether it has one is not known."""
        raise self._error()

    def _error(self) -> InputError:
        return InputError(
            f"method {self.describe()!r}",
            expected=f"one of {', '.join(sorted(_METHODS))}",
            found="a method whose file is not imported",
            do="Import the file that defines it.",
        )


def method_from_dict(values: Mapping[str, Any]) -> Method:
    """Read a method from what its `to_dict` wrote; one that is not imported is an UnknownMethod."""
    name = values.get("method") if isinstance(values, Mapping) else None
    if not isinstance(name, str) or not name:
        raise InputError(
            "method",
            expected='a mapping with the name of a method under "method"',
            found=repr(values),
            do="The record is incomplete, or of another version: delete it, and it is "
            "computed again.",
        )
    if name not in _METHODS:
        try:
            return UnknownMethod(json.dumps(dict(values), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"method {name!r}",
                expected="values that JSON can hold",
                found=repr(values),
                do="Correct the record, or import the file that defines the method.",
            ) from error
    return _from_dict(_METHODS[name], {k: v for k, v in values.items() if k != "method"})


def _from_dict(cls: type, values: Any) -> Any:
    """Make a dataclass from what `_to_dict` wrote of it."""
    if isinstance(values, Mapping):
        values = {**getattr(cls, "later", {}), **values}
    require_record(cls, values)
    found = {key: _tuple(value) for key, value in values.items()}
    for key, value in found.items():
        if isinstance(value, Mapping):
            of_field = typing.get_type_hints(cls).get(key)
            kinds = [k for k in (of_field, *typing.get_args(of_field)) if is_dataclass(k)]
            if kinds:
                found[key] = _from_dict(typing.cast(type, kinds[0]), value)
    return cls(**found)


def _to_dict(value: Any) -> dict[str, Any]:
    """Write a dataclass's fields, without those that came later and go without saying."""
    later = getattr(type(value), "later", {})
    found = {f.name: getattr(value, f.name) for f in fields(value)}
    return {
        name: _to_dict(v) if is_dataclass(v) else _list(v)
        for name, v in found.items()
        if name not in later or later[name] != v
    }


def _list(value: Any) -> Any:
    return [_list(v) for v in value] if isinstance(value, tuple) else value


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list) else value


def _is_plain(value: Any) -> bool:
    """Whether the value comes back from JSON as it was, given `_to_dict` and `_from_dict`."""
    if isinstance(value, tuple):
        return all(_is_plain(v) and not is_dataclass(v) for v in value)
    if is_dataclass(value):
        return all(_is_plain(getattr(value, f.name)) for f in fields(value))
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (str, int, bool)
