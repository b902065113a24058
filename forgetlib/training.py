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

from forgetlib import models, scoring
from forgetlib.schema import Dynamics, Example, ForgetlibError, InputError, Scores, TrainConfig
from forgetlib.stats import confidence

# Padded tokens whose activations are held for one backward pass; gradients add up over passes, so
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
    parameters = list(lm.trainable.values())
    masters = [p.detach().to(torch.float32, copy=True) for p in parameters]
    fused = lm.device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(
        masters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused
    )
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
        for group in optimizer.param_groups:
            factor = learning_rate_factor(step, n_steps, config.warmup)
            group["lr"] = config.learning_rate * factor
        _update(parameters, masters, optimizer, config.max_grad_norm)
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
    for group in models.by_token_budget(lengths, order, TOKEN_BUDGET[lm.device.type]):
        collated = models.collate(lm, [[batch[i]] for i in group])
        loss = -models.response_log_likelihoods(lm, collated).sum() / n_tokens
        loss.backward()
        total += float(loss.detach())
    return total


@torch.no_grad()
def _update(
    parameters: Sequence[Tensor],
    masters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
) -> None:
    """One optimiser step on the fp32 masters, copied back into the model's own dtype."""
    for parameter, master in zip(parameters, masters, strict=True):
        if parameter.grad is not None:
            master.grad = parameter.grad.to(torch.float32)
        parameter.grad = None
    torch.nn.utils.clip_grad_norm_(masters, max_grad_norm)
    optimizer.step()
    for parameter, master in zip(parameters, masters, strict=True):
        parameter.copy_(master)
        master.grad = None
