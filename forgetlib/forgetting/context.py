"""Give a method what it works with: examples, randomness, and the model as it was before.

Shapes: S sequences, R response tokens of all of them, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from forgetlib.data.base import Example, hash_uniform
from forgetlib.engine import parallel
from forgetlib.errors import InputError, require_distinct_uids, require_whole
from forgetlib.measuring.scoring import TOKEN_BUDGET
from forgetlib.models import forward
from forgetlib.models.forward import TokenSequence
from forgetlib.models.lm import LM


@dataclass(frozen=True, eq=False)
class BatchPart:
    """Hold the sequences of one pass, and what a loss divides by: counts of the whole batch.

    inputs: the sequences as the model takes them, for `forward.response_log_likelihoods`
    sequences: (S,) in the order of the log-likelihoods; those of an example, as `Method.sequences`
        gave them, are next to each other
    retained: (S,) bool, whether a sequence is of the retain set
    n_examples, n_tokens: examples to forget in the whole batch, and their response tokens
    n_retained, n_retained_tokens: those of the retain set
    """

    inputs: forward.Batch
    sequences: tuple[TokenSequence, ...]
    retained: Tensor
    n_examples: int
    n_tokens: int
    n_retained: int
    n_retained_tokens: int


@dataclass(frozen=True, eq=False)
class Context:
    """Hold what a method may use beside the model; whoever calls the method loads it.

    seed: decides all that is random
    examples: those to forget; () where an edit needs none
    retain: examples of the tasks that `Method.retained` names
    pretrained: the trainable weights before any method, as `LM.weights` gives them
    origin: those from which the model was trained that a hook is for; empty where none asks
    """

    seed: int
    examples: Sequence[Example] = ()
    retain: Sequence[Example] = ()
    pretrained: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    origin: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    _reference: tuple[dict[TokenSequence, int], Tensor] | None = field(default=None, repr=False)
    _start: dict[str, Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", require_whole("seed of a method", self.seed))
        uids = [e.uid for e in (*self.examples, *self.retain)]
        require_distinct_uids("examples and retain set of a method", uids)

    def generator(self, name: str) -> torch.Generator:
        """Make a generator, on the CPU, whose numbers depend on the seed and the name only."""
        drawn = hash_uniform(f"method-{name}", self.seed, "generator")
        return torch.Generator().manual_seed(int(drawn * 2**53))

    def reference(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Look up the log-likelihoods (S,) that sequences had before training, in nats.

        Of a method whose `keeps` has "log_likelihoods".
        """
        if self._reference is None:
            raise _not_kept("log_likelihoods")
        places, values = self._reference
        return values[[places[s] for s in sequences]]

    @contextmanager
    def at_start(self, lm: LM) -> Iterator[None]:
        """Give the model the weights from before training, without gradients, while in this block.

        Of a method whose `keeps` has "weights". It has to be left before the loss runs the model as
        it is now: PyTorch refuses gradients through weights that were exchanged meanwhile.
        """
        if self._start is None:
            raise _not_kept("weights")
        weights = {n: parallel.local(p.detach()) for n, p in lm.trainable.items()}
        now = {name: weight.clone() for name, weight in weights.items()}
        try:
            _copy(self._start, weights)
            with torch.no_grad():
                yield
        finally:
            _copy(now, weights)


def hidden_states(lm: LM, batch: BatchPart, layer: int) -> Tensor:
    """Compute hidden states (R, D) where response tokens are predicted, with gradients.

    layer: 0 is the token embeddings, l the output of block l; -1 the last, which has passed the
        final norm, so that `lm.output.logits` makes the next token's logits of it
    """
    places = zip(batch.inputs.rows.tolist(), batch.inputs.columns.tolist(), strict=True)
    return forward.layer_outputs(lm, batch.inputs.packed, list(places))[layer]


def keep(
    lm: LM, context: Context, keeps: Sequence[str], sequences: Sequence[TokenSequence]
) -> Context:
    """Keep of the model as it is what a method's `keeps` name; return a context that has it."""
    if "weights" in keeps:
        weights = {n: parallel.local(p.detach()).clone() for n, p in lm.trainable.items()}
        context = replace(context, _start=weights)
    if "log_likelihoods" in keeps:
        context = replace(context, _reference=_log_likelihoods(lm, sequences))
    return context


@torch.no_grad()
def _log_likelihoods(
    lm: LM, sequences: Sequence[TokenSequence]
) -> tuple[dict[TokenSequence, int], Tensor]:
    """Compute the log-likelihood of each different sequence: its place, and the values by place."""
    distinct = list(dict.fromkeys(sequences))
    values = torch.zeros(len(distinct), device=lm.device)
    lengths = [[len(s.tokens) - 1] for s in distinct]
    for group, counts in forward.passes(lm, lengths, TOKEN_BUDGET[lm.device.type]):
        batch = forward.collate(lm, [[distinct[i]] for i in group])
        found = forward.response_log_likelihoods(lm, batch)
        if counts:
            values[group] = found
    return {s: place for place, s in enumerate(distinct)}, parallel.summed(values)


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])


def _not_kept(what: str) -> InputError:
    return InputError(
        "a loss's look at the model before training",
        expected=f"a method that says so, as this has to be kept: {what!r}",
        found="another",
        do=f'Write keeps = ("{what}",) in its class, and train with loop.train.',
    )
