"""Train a model with any method's loss: one loop, so that methods differ in their losses only."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from forgetlib.data.base import Example
from forgetlib.engine import parallel
from forgetlib.engine.device import sent
from forgetlib.errors import (
    ForgetlibError,
    InputError,
    require,
    require_one_of,
    require_whole,
)
from forgetlib.forgetting.base import KEPT, Method, Training
from forgetlib.forgetting.context import BatchPart, Context, keep
from forgetlib.forgetting.dose import Check
from forgetlib.forgetting.optimizer import Optimizer
from forgetlib.models import forward, memory
from forgetlib.models.lm import LM, vocabulary_size

# Steps whose losses are read from the device and judged together: a GPU that has to answer after
# each has nothing to do until the next is asked for.
READ_EVERY = {"cpu": 1, "cuda": 20, "mps": 20}

OnStep = Callable[[int, int], None]  # (steps done, steps in all)
OnCheck = Callable[[int, float], None]  # (steps done, AUROC of the forgetting set)
Watch = tuple[Collection[int], Callable[[int], None]]  # (steps, what is called before them)


class TrainingDiverged(ForgetlibError, RuntimeError):
    """Stop a training whose loss the method's rule does not let pass."""


def learning_rate_factor(step: int, n_steps: int, warmup: float) -> float:
    """Rise linearly over the first share of the steps, then fall linearly to zero."""
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return (n_steps - step) / max(1, n_steps - n_warmup)


def apply(
    lm: LM,
    method: Method,
    context: Context,
    on_step: OnStep | None = None,
    watches: Sequence[Watch] = (),
    on_check: OnCheck | None = None,
) -> np.ndarray:
    """Do what a method does to weights, in place; return its losses (steps,), none for an edit.

    A hook changes no weights: it is entered while the model is measured, `with method.hook(...)`.
    on_step, watches, on_check: as of `train`
    """
    if method.kind == "loss":
        return train(lm, method, context, on_step, watches, on_check)
    if method.kind == "edit":
        with torch.no_grad():
            method.edit(lm, context)
    return np.zeros(0, np.float32)


def train(
    lm: LM,
    method: Method,
    context: Context,
    on_step: OnStep | None = None,
    watches: Sequence[Watch] = (),
    on_check: OnCheck | None = None,
) -> np.ndarray:
    """Train the model, in place, with a method's loss; return the loss of each step, (steps,).

    A batch is `Training.batch_size` examples, in an order that the seed decides epoch by epoch,
    and where the method has a retain set as many of it, which begins anew when it is through.
    It ends early where the method says so, or at the dose that `Training.until` names.

    on_step: called after each step with (steps done, steps in all)
    watches: each of steps, and what is called before each of them, and once at the end, with the
        number of steps done by then; it may look at the model, and must not change it
    on_check: called with (steps done, AUROC of the forgetting set) where the dose is looked at
    """
    training = _check(method, context)
    examples, retain = context.examples, context.retain
    units = [method.sequences(lm, example, context) for example in examples]
    units += [method.retained_sequences(lm, example, context) for example in retain]
    for example, unit in zip((*examples, *retain), units, strict=True):
        _check_unit(lm, method, example, unit)
    context = keep(lm, context, method.keeps, [s for unit in units for s in unit])
    for parameter in lm.trainable.values():
        parameter.grad = None  # of a training that was broken off
    optimizer = Optimizer(list(lm.trainable.values()), training)
    n_steps = training.n_steps(len(examples))
    losses = _Losses(lm, method, f"training on {examples[0].task}", n_steps, training.learning_rate)
    asks = type(method).finished is not Method.finished
    reached = Check(lm, training.until, examples, on_check) if training.until else None
    others = _retained(len(examples), len(retain), context.seed)
    for step, batch in enumerate(_batches(len(examples), training, context.seed)):
        for steps, look in watches:
            if step in steps:
                losses.read()  # a training that has failed is not looked at
                look(step)
        kept = [next(others) for _ in batch] if retain else []
        losses.add(
            _step_gradient(lm, method, context, [units[i] for i in batch], [units[i] for i in kept])
        )
        optimizer.step(learning_rate_factor(step, n_steps, training.warmup))
        if on_step is not None:
            on_step(step + 1, n_steps)
        done = asks and method.finished(step + 1, losses.read(), context)
        if not done and reached is not None and reached.is_due(step + 1):
            losses.read()
            done = reached(step + 1)
        if done:
            break
    found = losses.read().copy()
    with torch.no_grad():
        method.after(lm, context)
    for _, look in watches:
        look(len(found))
    return found


class _Losses:
    """Keep the loss of each step; raise TrainingDiverged where the method's rule says so."""

    def __init__(
        self, lm: LM, method: Method, what: str, n_steps: int, learning_rate: float
    ) -> None:
        self.method, self.what, self.learning_rate = method, what, learning_rate
        self.worst = math.log(vocabulary_size(lm))
        self.every = READ_EVERY[lm.device.type]
        self.values = np.empty(n_steps, np.float32)
        self.n_read = 0
        self.waiting: list[Tensor] = []  # on the device, of the steps since

    def add(self, loss: Tensor) -> None:
        """Keep a step's loss, (), and judge it with others when it is time."""
        self.waiting.append(loss)
        if len(self.waiting) == self.every:
            self.read()

    def read(self) -> np.ndarray:
        """Judge what was not yet, and return the losses of all steps so far, (steps,)."""
        if self.waiting:
            n = self.n_read + len(self.waiting)
            self.values[self.n_read : n] = torch.stack(self.waiting).cpu().numpy()
            self.waiting = []
            while self.n_read < n:
                self.n_read += 1
                self._judge()
        return self.values[: self.n_read]

    def _judge(self) -> None:
        found = self.method.diverged(self.values[: self.n_read], self.worst)
        if found is not None:
            raise TrainingDiverged(
                f"{self.what} at step {self.n_read} of {len(self.values)}",
                expected=f"a finite loss that the rule of method {self.method.name!r} lets pass",
                found=found,
                do=f"Lower the learning rate, now {self.learning_rate:g}.",
            )


def spaced_steps(n_steps: int, n_records: int) -> set[int]:
    """Spread so many records over the steps, the first before any; the end is no step."""
    n = min(require_whole("records while training", n_records), n_steps)
    return {round(i * n_steps / n) for i in range(n)}


def _check(method: Method, context: Context) -> Training:
    """Return the method's training; InputError where it cannot be trained in this context."""
    if method.kind != "loss":
        raise InputError(
            f"method {method.name!r}",
            expected="one with a loss, as it shall be trained",
            found=f"one whose kind is {method.kind!r}",
            do="Call loop.apply, which does what a method of any kind does.",
        )
    training = method.settings()
    what = f"{type(method).__name__}.training"
    require(what, training, Training, "a Training, as every method with a loss has")
    for kept in method.keeps:
        require_one_of(f"{type(method).__name__}.keeps", kept, KEPT)
    if not context.examples:
        raise InputError("train", expected="examples", found="none", do="Pass at least one.")
    if bool(method.retained()) != bool(context.retain):
        raise InputError(
            "retain set of train",
            expected=f"examples of the tasks that the method names, {method.retained()}",
            found=f"{len(context.retain)} examples",
            do="Load the tasks of method.retained() into Context.retain.",
        )
    assert isinstance(training, Training)
    return training


def _check_unit(
    lm: LM, method: Method, example: Example, unit: Sequence[forward.TokenSequence]
) -> None:
    """Raise InputError for sequences of an example that cannot be in one pass."""
    lengths = [len(s.tokens) - 1 for s in unit]
    if not unit:
        raise InputError(
            f"{type(method).__name__}.sequences of example {example.uid!r}",
            expected="at least one",
            found="none",
            do="Return a tuple of sequences from forward.encode.",
        )
    if len(forward.units(lm, [[s.tokens[:-1] for s in unit]], 1)) > 1:
        raise InputError(
            f"example {example.uid!r}",
            expected=f"sequences of one length where one is above {lm.unscaled} tokens, as "
            f"{lm.name} scales positions by the longest of a pass",
            found=f"{lengths}",
            do="Leave the example out, or use another model.",
        )


def _batches(n: int, training: Training, seed: int) -> Iterator[np.ndarray]:
    """Yield the examples of every step, as indices, in an order that the seed decides."""
    rng = np.random.default_rng([seed, n])
    for _ in range(training.epochs):
        order = rng.permutation(n)
        for start in range(0, n, training.batch_size):
            yield order[start : start + training.batch_size]


def _retained(n: int, n_retained: int, seed: int) -> Iterator[int]:
    """Yield places n, n + 1, ... of the retain set without end, each round in another order."""
    rng = np.random.default_rng([seed, n, n_retained])
    while True:
        yield from (n + rng.permutation(n_retained)).tolist()


def backward_tokens(lm: LM) -> int:
    """Tell how many tokens a backward pass has at most, but for a longer example."""
    return min(memory.BACKWARD_TOKENS[lm.device.type], lm.backward_tokens)


def _step_gradient(
    lm: LM,
    method: Method,
    context: Context,
    forgotten: Sequence[Sequence[forward.TokenSequence]],
    retained: Sequence[Sequence[forward.TokenSequence]],
) -> Tensor:
    """Add the gradient of a batch's loss to the parameters; return the loss, ().

    forgotten, retained: the sequences of each example
    """
    units = [*forgotten, *retained]
    counts_of_batch = {
        "n_examples": len(forgotten),
        "n_tokens": sum(s.n_response for unit in forgotten for s in unit),
        "n_retained": len(retained),
        "n_retained_tokens": sum(s.n_response for unit in retained for s in unit),
    }
    lengths = [[len(s.tokens) - 1 for s in unit] for unit in units]
    total = torch.zeros((), device=lm.device)
    for group, counts in forward.passes(lm, lengths, backward_tokens(lm)):
        families = [units[i] for i in group]
        sequences = tuple(s for family in families for s in family)
        of_retained = [i >= len(forgotten) for i in group for _ in units[i]]
        part = BatchPart(
            forward.collate(lm, families),
            sequences,
            sent(torch.tensor(of_retained), lm.device),
            **counts_of_batch,
        )
        loss = method.loss(lm, part, context)
        (loss if counts else 0 * loss).backward()
        total += loss.detach() if counts else 0
    parallel.sum_gradients(list(lm.trainable.values()))
    return parallel.summed(total)
