"""What each layer would answer: its hidden states through the final norm and the output layer.

Shapes: N examples, C choices, P layers, R response tokens of a pass, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forgetlib.data.base import Example
from forgetlib.engine import parallel
from forgetlib.errors import InputError
from forgetlib.measuring import scoring
from forgetlib.measuring.base import Asked, LogitLens
from forgetlib.models import forward
from forgetlib.models.lm import LM, blocks, causal_lm, decoder

# States that meet the output layer together, of as many layers as fit. With few of each layer, as
# where answers have one token, most of the time would go into reading the vocabulary's weights: 16
# questions of SST-2 take Gemma-3-270M a third of the time that they take a layer at a time.
ROWS = 1024


def logit_lens(asked: Asked) -> LogitLens:
    """Score every choice of the questions at every layer."""
    return of_layers(asked.lm, asked.questions())


@parallel.inference()
def of_layers(lm: LM, examples: Sequence[Example], token_budget: int | None = None) -> LogitLens:
    """Compute the log-likelihood of each choice at every layer, in nats, summed over its tokens.

    The last layer's are those of `scoring.score`. Only states that predict a response token meet
    the vocabulary, a chunk of it at a time; beside scoring's memory a pass holds the hidden states
    of its tokens at every layer, as for probes.

    token_budget: tokens of a forward pass; it bounds memory and does not change the numbers
    Raises InputError for a model without a norm between its last block and its output layer.
    """
    if not examples:
        raise InputError("logit_lens", expected="examples", found="none", do="Pass at least one.")
    norm = final_norm(lm, forward.encode(lm, examples[0], 0).tokens)

    def compute(batch: forward.Batch) -> Tensor:
        places = list(zip(batch.rows.tolist(), batch.columns.tolist(), strict=True))
        *inner, last = forward.layer_outputs(lm, batch.packed, places).split(1)  # (1, R, D) each
        at_once = max(1, ROWS // len(places))
        found = []
        for start in range(0, len(inner), at_once):
            normed = torch.cat([norm(h) for h in inner[start : start + at_once]])
            found.append(_log_likelihoods(lm, batch, normed))
        return torch.cat([*found, _log_likelihoods(lm, batch, last)])

    budget = token_budget or scoring.STATES_BUDGET[lm.device.type]
    found, _ = scoring.of_choices(lm, examples, compute, budget)
    labels = np.array([e.label for e in examples])
    layers = np.arange(len(found), dtype=np.int16)
    return LogitLens(tuple(e.uid for e in examples), labels, layers, found)


def _log_likelihoods(lm: LM, batch: forward.Batch, hidden: Tensor) -> Tensor:
    """Score a pass's sequences from (L, R, D) states of L layers, as if there were L times as many.

    Returns (L, n_sequences).
    """
    n_layers, n = len(hidden), batch.n_sequences
    owners = torch.cat([batch.owners + n * layer for layer in range(n_layers)])
    repeated = replace(
        batch, targets=batch.targets.repeat(n_layers), owners=owners, n_sequences=n * n_layers
    )
    return forward.log_likelihoods_from(lm, repeated, hidden.flatten(0, 1)).reshape(n_layers, n)


@parallel.inference()
def final_norm(lm: LM, tokens: Sequence[int]) -> nn.Module:
    """Find the part of a model that makes its last hidden states of the last block's output.

    Found by what it computes of these tokens and not by its name, of which there are many.
    InputError where there is none: without one, or with more than one part between.
    """
    body = decoder(causal_lm(lm.model))
    inner = {id(part) for block in blocks(lm) for part in block.modules()}
    outer = [part for part in body.modules() if id(part) not in inner]
    calls: list[tuple[nn.Module, tuple[Any, ...], Any]] = []
    with ExitStack() as held:
        for part in (*blocks(lm)[-1:], *outer):
            handle = part.register_forward_hook(lambda *call: calls.append(call))
            held.callback(handle.remove)
        packed = forward.pack(lm, [[tokens]])
        outputs = forward.run_decoder(causal_lm(lm.model), packed, output_hidden_states=True)
    last = outputs.last_hidden_state
    of_block = [_tensor(output) for part, _, output in calls if id(part) in inner]
    found = [
        part
        for part, inputs, output in calls
        if id(part) not in inner and _same(inputs[:1], of_block[-1:]) and _same([output], [last])
    ]
    # Layer for layer are read what `hidden_states` holds, whose last has to be what is scored.
    if not found or not _same(outputs.hidden_states[-1:], [last]):
        raise InputError(
            f"logit_lens of {lm.name!r}",
            expected="a model whose last hidden states are a norm of its last block's output",
            found=f"a {type(body).__name__}, of whose {len(outer)} parts beside blocks none is it",
            do="Ask for scores and probes instead, or use a model of another architecture.",
        )
    return found[-1]


def _tensor(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Tell whether these are a tensor each, of the same values."""
    pair = [*some, *others]
    return len(pair) == 2 and all(isinstance(x, Tensor) for x in pair) and torch.equal(*pair)
