"""Fine-tune a model towards given responses: one function for every condition.

True, random and flipped labels differ in the labels only, so nothing else can cause a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.optimization import Adafactor

from forgetlib import kernels, models, parallel, scoring
from forgetlib.schema import (
    Dynamics,
    Example,
    ForgetlibError,
    InputError,
    Scores,
    TrainConfig,
    require_distinct_uids,
    require_whole,
)
from forgetlib.stats import confidence

# Tokens whose activations are held for one backward pass; gradients add up over passes, so
# that it bounds memory and does not change what is learned.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 32768, "mps": 4096}
DIVERGENCE_WINDOW = 20  # steps over which the loss is averaged before it is judged
BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW, which are PyTorch's own
# Weights that one optimiser steps together: a step of many small ones is one call, and no more than
# 256 MB of gradients are there in fp32, or those of the largest weight.
GROUP_NUMBERS = 2**26


class TrainingDiverged(ForgetlibError, RuntimeError):
    """The loss is not a number, or worse than guessing tokens at random."""


@dataclass(frozen=True)
class TrainLog:
    """loss: (steps,) nats a response token.

    dynamics, scores: where TrainConfig.record_steps asks; the training set's scores at the end are
    the last record, and need not be computed again
    """

    loss: np.ndarray
    dynamics: Dynamics | None
    scores: Scores | None


def learning_rate_factor(step: int, n_steps: int, warmup: float) -> float:
    """Linear warm-up over the first share of the steps, then linear decay to zero."""
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return (n_steps - step) / max(1, n_steps - n_warmup)


def finetune(
    lm: models.LM,
    examples: Sequence[Example],
    labels: np.ndarray,
    config: TrainConfig,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
) -> TrainLog:
    """Train the model, in place, to answer each example with the choice its label names.

    The loss is the mean negative log-likelihood of the response's tokens given the prompt, over
    the tokens of a batch (paper, section 3; its record does not say more).

    labels: (N,) from `labels.training_labels`
    seed: decides the order of the examples, epoch by epoch
    on_step: called with (steps done, steps in all)
    """
    require_whole("seed of finetune", seed)
    labels = np.asarray(labels)
    n_choices = np.array([len(e.choices) for e in examples])
    if len(examples) == 0 or labels.shape != n_choices.shape:
        raise InputError(
            "finetune",
            expected="at least one example, and a label for each",
            found=f"{len(examples)} examples and {labels.size} labels of shape {labels.shape}",
            do="Pass labels.training_labels(examples, ...).",
        )
    if labels.dtype.kind not in "iu" or (labels < 0).any() or (labels >= n_choices).any():
        raise InputError(
            "labels of finetune",
            expected="an index of a choice for each example",
            found=f"{labels.dtype}, {np.unique(labels).tolist()[:5]}",
            do="Pass labels.training_labels(examples, ...).",
        )
    require_distinct_uids("examples of finetune", [e.uid for e in examples])
    sequences = [
        models.encode(lm, example, int(label))
        for example, label in zip(examples, labels, strict=True)
    ]
    for parameter in lm.trainable.values():
        parameter.grad = None  # of a training that was broken off
    optimizer = _Optimizer(list(lm.trainable.values()), config)
    rng = np.random.default_rng([seed, len(examples)])
    batches = [
        order[start : start + config.batch_size]
        for order in (rng.permutation(len(examples)) for _ in range(config.epochs))
        for start in range(0, len(examples), config.batch_size)
    ]
    n_steps = len(batches)
    record_at = _record_steps(n_steps, config.record_steps)
    recorded: list[np.ndarray] = []
    losses = np.empty(n_steps, np.float32)
    worst = math.log(models.vocabulary_size(lm))
    for step, batch in enumerate(batches):
        if step in record_at:
            recorded.append(confidence(scoring.score(lm, examples)).astype(np.float32))
        losses[step] = loss = _accumulate(lm, [sequences[i] for i in batch])
        recent = float(losses[max(0, step + 1 - DIVERGENCE_WINDOW) : step + 1].mean())
        # Judged on a full window: a single batch may be hard, and a new model may start badly.
        if not math.isfinite(loss) or (step + 1 >= DIVERGENCE_WINDOW and recent > worst + 1):
            raise TrainingDiverged(
                f"training on {examples[0].task} at step {step + 1} of {n_steps}",
                expected=f"a finite loss below {worst:.1f} nats a token (guessing at random)",
                found=f"{loss:.3g}, mean of the last {DIVERGENCE_WINDOW} {recent:.3g}",
                do=f"Lower the learning rate, now {config.learning_rate:g}.",
            )
        optimizer.step(learning_rate_factor(step, n_steps, config.warmup))
        if on_step is not None:
            on_step(step + 1, n_steps)
    dynamics, scores = None, None
    if record_at:
        scores = scoring.score(lm, examples)
        recorded.append(confidence(scores).astype(np.float32))
        steps = np.array([*sorted(record_at), n_steps], np.int32)
        dynamics = Dynamics(steps, tuple(e.uid for e in examples), np.stack(recorded))
    return TrainLog(losses, dynamics, scores)


def _record_steps(n_steps: int, n_records: int) -> set[int]:
    """Evenly spaced steps before which confidence is recorded; the end is recorded in any case."""
    n = min(n_records, n_steps)
    return {round(i * n_steps / n) for i in range(n)}


def _accumulate(lm: models.LM, batch: Sequence[models.TokenSequence]) -> float:
    """Add the gradient of a batch's mean token loss to the parameters; return the loss."""
    n_tokens = sum(s.n_response for s in batch)
    lengths = [[len(s.tokens) - 1] for s in batch]
    total = torch.zeros((), device=lm.device)
    for group, counts in models.passes(lm, lengths, TOKEN_BUDGET[lm.device.type]):
        collated = models.collate(lm, [[batch[i]] for i in group])
        loss = -models.response_log_likelihoods(lm, collated).sum() / n_tokens
        (loss if counts else 0 * loss).backward()
        total += loss.detach() if counts else 0
    parallel.sum_gradients(list(lm.trainable.values()))
    return float(parallel.summed(total))


class _Optimizer:
    """AdamW or Adafactor on fp32 masters of the weights, copied back into the weights' own dtype.

    Adafactor keeps a row and a column of second moments for each matrix, and no first moments: with
    weight, gradient and master it is 8 bytes a bf16 weight, where AdamW takes 16.
    """

    def __init__(self, parameters: Sequence[Tensor], config: TrainConfig) -> None:
        self.parameters, self.config = parameters, config
        # Of weights that are spread over processes, each has its part.
        self.weights = [parallel.local(p.detach()) for p in parameters]
        self.spread = [parallel.local(p) is not p for p in parameters]
        self.masters = [w.to(torch.float32, copy=True) for w in self.weights]
        if config.optimizer == "adafactor" and parallel.size() > 1:
            raise InputError(
                "TrainConfig.optimizer",
                expected="'adamw' where several processes train, each of which keeps a part",
                found=f"{config.optimizer!r}, whose steps would depend on their number",
                do="Use 'adamw', or one process.",
            )
        contiguous = all(w.is_contiguous() for w in self.weights)
        usable = config.optimizer == "adamw" and contiguous and kernels.usable(*self.weights)
        self.in_kernel = usable and bool(kernels.library())
        if self.in_kernel:
            self.means, self.squares = (
                [torch.zeros_like(m) for m in self.masters] for _ in range(2)
            )
        else:
            self.groups = [(places, self._optimizer_of(places)) for places in self._grouped()]
        self.n_steps = 0

    def _grouped(self) -> list[list[int]]:
        """The places of the weights in their order, as groups of at most GROUP_NUMBERS numbers.

        A larger weight is a group of its own.
        """
        groups: list[list[int]] = []
        room = 0
        for place, master in enumerate(self.masters):
            if not groups or master.numel() > room:
                groups.append([])
                room = GROUP_NUMBERS
            groups[-1].append(place)
            room -= master.numel()
        return groups

    def _optimizer_of(self, places: Sequence[int]) -> torch.optim.Optimizer:
        masters = [self.masters[place] for place in places]
        settings: Any = {"lr": self.config.learning_rate, "weight_decay": self.config.weight_decay}
        if self.config.optimizer == "adafactor":
            plain = {"scale_parameter": False, "relative_step": False}  # the learning rate given
            return Adafactor(masters, **settings, **plain)
        fused = masters[0].device.type in ("cpu", "cuda")
        return torch.optim.AdamW(masters, betas=BETAS, eps=EPS, fused=fused, **settings)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Move the weights against their gradients, at the learning rate times a factor.

        A gradient beyond the largest norm is scaled down to it. All gradients are dropped.
        """
        self.n_steps += 1
        gradients = {
            place: parallel.local(parameter.grad)
            for place, parameter in enumerate(self.parameters)
            if parameter.grad is not None
        }
        if self.in_kernel:
            gradients = {place: gradient.contiguous() for place, gradient in gradients.items()}
        clip = self.config.max_grad_norm / (self._norm(gradients) + 1e-6)
        clip = 1.0 if clip > 1 else clip  # what is not a number stays that
        learning_rate = self.config.learning_rate * factor
        if self.in_kernel:
            self._step_in_kernel(gradients, clip, learning_rate)
        else:
            self._step_in_torch(gradients, clip, learning_rate)
        for parameter in self.parameters:
            parameter.grad = None

    def _norm(self, gradients: Mapping[int, Tensor]) -> float:
        """Euclidean norm of all gradients together, other processes' parts included."""
        parts = [g for place, g in gradients.items() if self.spread[place]]
        same = [g for place, g in gradients.items() if not self.spread[place]]  # in every process
        squares = parallel.summed(self._sum_of_squares(parts)) + self._sum_of_squares(same)
        return float(squares.sqrt())

    def _sum_of_squares(self, gradients: Sequence[Tensor]) -> Tensor:
        """() sum over all gradients. On a GPU nothing here waits for it."""
        device = self.weights[0].device
        dtype = torch.float32 if device.type == "mps" else torch.float64  # which MPS has not
        if not gradients:
            return torch.zeros((), dtype=dtype, device=device)
        if self.in_kernel:
            return torch.tensor(kernels.global_norm(gradients) ** 2, dtype=dtype)
        norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients]
        return torch.stack(norms).square().sum(dtype=dtype)

    def _step_in_kernel(
        self, gradients: Mapping[int, Tensor], clip: float, learning_rate: float
    ) -> None:
        kernels.adamw(
            list(gradients.values()),
            *([of[place] for place in gradients] for of in (self.masters, self.means)),
            *([of[place] for place in gradients] for of in (self.squares, self.weights)),
            clip=clip,
            learning_rate=learning_rate,
            betas=BETAS,
            eps=EPS,
            weight_decay=self.config.weight_decay,
            step=self.n_steps,
        )

    def _step_in_torch(
        self, gradients: Mapping[int, Tensor], clip: float, learning_rate: float
    ) -> None:
        """Group by group, so that the fp32 copies of one group's gradients are there at a time."""
        for places, optimizer in self.groups:
            there = [place for place in places if place in gradients]
            for place in there:
                self.masters[place].grad = gradients[place].to(torch.float32).mul_(clip)
            optimizer.param_groups[0]["lr"] = learning_rate
            optimizer.step()
            for place in there:
                self.masters[place].grad = None
                self.weights[place].copy_(self.masters[place])
