"""Fine-tune a model towards given responses: one function for every condition.

True, random and flipped labels differ in the labels only, so nothing else can cause a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forgetlib import kernels, models, scoring
from forgetlib.schema import Dynamics, Example, ForgetlibError, InputError, Scores, TrainConfig
from forgetlib.stats import confidence

# Tokens whose activations are held for one backward pass; gradients add up over passes, so
# that it bounds memory and does not change what is learned.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 32768, "mps": 4096}
DIVERGENCE_WINDOW = 20  # steps over which the loss is averaged before it is judged


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
    the tokens of a batch (paper, section 3; its record does not say more). AdamW works on fp32
    master copies of the trainable weights.

    labels: (N,) from `labels.training_labels`
    seed: decides the order of the examples, epoch by epoch
    on_step: called with (steps done, steps in all)
    """
    if len(examples) == 0 or len(labels) != len(examples):
        raise InputError(
            "finetune",
            expected="at least one example, and a label for each",
            found=f"{len(examples)} examples and {len(labels)} labels",
            do="Pass labels.training_labels(examples, ...).",
        )
    sequences = [
        models.encode(lm, example, int(label))
        for example, label in zip(examples, labels, strict=True)
    ]
    optimizer = _AdamW(list(lm.trainable.values()), config)
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
    lengths = [len(s.tokens) for s in batch]
    order = sorted(range(len(batch)), key=lambda i: -lengths[i])
    total = 0.0
    padded = models.pads(lm, lengths)
    budget = TOKEN_BUDGET[lm.device.type]
    for group in models.by_token_budget(lengths, order, budget, padded=padded):
        collated = models.collate(lm, [[batch[i]] for i in group])
        loss = -models.response_log_likelihoods(lm, collated).sum() / n_tokens
        loss.backward()
        total += float(loss.detach())
    return total


class _AdamW:
    """AdamW on fp32 masters of the weights, copied back into the weights' own dtype."""

    def __init__(self, parameters: Sequence[Tensor], config: TrainConfig) -> None:
        self.parameters, self.config = parameters, config
        self.masters = [p.detach().to(torch.float32, copy=True) for p in parameters]
        self.optimizer = torch.optim.AdamW(
            self.masters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=parameters[0].device.type in ("cpu", "cuda"),
        )
        contiguous = all(p.is_contiguous() for p in parameters)
        self.in_kernel = contiguous and kernels.usable(*parameters) and bool(kernels.library())
        if self.in_kernel:
            self.moments = [(torch.zeros_like(m), torch.zeros_like(m)) for m in self.masters]
        self.n_steps = 0

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Move the weights against their gradients, at the learning rate times a factor.

        A gradient beyond the largest norm is scaled down to it. All gradients are dropped.
        """
        self.n_steps += 1
        if self.in_kernel:
            self._step_in_kernel(factor)
        else:
            self._step_in_torch(factor)
        for parameter in self.parameters:
            parameter.grad = None

    def _step_in_kernel(self, factor: float) -> None:
        (group,) = self.optimizer.param_groups
        moving = [
            (p.grad.contiguous(), master, *moments, p)
            for p, master, moments in zip(self.parameters, self.masters, self.moments, strict=True)
            if p.grad is not None
        ]
        norm = kernels.global_norm([gradient for gradient, *_ in moving])
        clip = self.config.max_grad_norm / (norm + 1e-6)
        for tensors in moving:
            kernels.adamw(
                *tensors,
                clip=1.0 if clip > 1 else clip,  # what is not a number stays that
                learning_rate=self.config.learning_rate * factor,
                betas=group["betas"],
                eps=group["eps"],
                weight_decay=self.config.weight_decay,
                step=self.n_steps,
            )

    def _step_in_torch(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is not None:
                master.grad = parameter.grad.to(torch.float32)
        torch.nn.utils.clip_grad_norm_(self.masters, self.config.max_grad_norm)
        self.optimizer.step()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)
            master.grad = None
