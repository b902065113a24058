"""Write down once what the losses of several methods are made of, and what is asked of settings.

Shapes: S sequences of a pass, N examples in it.

This file needs no torch at import, so that results can be read without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgetlib.data.base import Example
from forgetlib.engine.device import sent
from forgetlib.errors import InputError, require, require_number, require_texts
from forgetlib.forgetting.base import Method, Training

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import BatchPart, Context
    from forgetlib.models.forward import TokenSequence
    from forgetlib.models.lm import LM


def check(
    method: Method,
    *,
    positive: tuple[str, ...] = (),
    from_0: tuple[str, ...] = (),
    needs_retain: bool = False,
) -> None:
    """Raise InputError where a method's setting is of the wrong kind or out of range.

    positive, from_0: names of numbers above 0, and of those that may be 0
    needs_retain: whether its retain set has to name a task
    """
    name = type(method).__name__
    if hasattr(method, "training"):
        require(f"{name}.training", method.settings(), Training, "a Training")
    for field in positive:
        number = getattr(method, field)
        require_number(f"{name}.{field}", number, "a number above 0", lambda x: x > 0)
    for field in from_0:
        number = getattr(method, field)
        require_number(f"{name}.{field}", number, "a number, 0 or more", lambda x: x >= 0)
    what, retain = f"{name}.retain", method.retained()
    require_texts(what, retain, "a tuple of task names", "Write ('piqa',) for a single task.")
    if len(set(retain)) < len(retain) or (needs_retain and not retain):
        raise InputError(
            what,
            expected="tasks that the model shall keep, every one once"
            + (", and at least one" if needs_retain else ""),
            found=repr(retain),
            do="Name tasks that are not forgotten.",
        )


def require_sets(method: Method, context: Context) -> None:
    """Raise InputError where an edit or a hook lacks the examples, or the retain set, it needs."""
    for what, needed, given in (
        ("examples to forget", True, context.examples),
        ("examples of the retain set", bool(method.retained()), context.retain),
    ):
        if needed and not given:
            raise InputError(
                f"method {method.name!r}",
                expected=what,
                found="none",
                do="Pass them in the Context; a Checkpoint with data has them loaded.",
            )


def pair(lm: LM, example: Example) -> tuple[TokenSequence, TokenSequence]:
    """Encode the true response and the distractor, in this order, whatever that of the choices."""
    from forgetlib.models import forward

    if len(example.choices) != 2:
        raise InputError(
            f"example {example.uid!r}",
            expected="two choices, a true response and a distractor",
            found=f"{len(example.choices)}",
            do="Make it of two, as data.base.binarise does.",
        )
    true, other = (forward.encode(lm, example, c) for c in (example.label, 1 - example.label))
    return true, other


def token_counts(batch: BatchPart) -> Tensor:
    """Count the response tokens of each sequence: (S,) as fp32."""
    import torch

    counts = [s.n_response for s in batch.sequences]
    return sent(torch.tensor(counts, dtype=torch.float32), batch.retained.device)


def pairs(values: Tensor, batch: BatchPart, *, retained: bool = False) -> Tensor:
    """Take of (S,) values those of the examples to forget: (N, 2), true response and distractor.

    retained: take those of the retain set instead
    """
    chosen = batch.retained if retained else ~batch.retained
    return values[chosen].reshape(-1, 2)


def nll(lm: LM, batch: BatchPart) -> Tensor:
    """Compute the negative log-likelihood a token of a batch, in nats: a pass's share of it."""
    from forgetlib.models import forward

    return -forward.response_log_likelihoods(lm, batch.inputs).sum() / batch.n_tokens


def retained_nll(log_likelihoods: Tensor, batch: BatchPart) -> Tensor:
    """Compute the retain set's negative log-likelihood a token, in nats: a pass's share of it.

    The loss of training on its true labels; 0 where there is no retain set.

    log_likelihoods: (S,) of true responses
    """
    return -log_likelihoods[batch.retained].sum() / max(batch.n_retained_tokens, 1)
