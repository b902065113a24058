"""One pass through a model: sequences to rows, rows to log-likelihoods or hidden states.

Shapes: B rows, T tokens, R response tokens of all rows, D hidden size, V vocabulary.

The one function that everything else calls is `response_log_likelihoods`. Only the R positions
that predict a response token meet the vocabulary (see likelihood): with Gemma's 262 144 tokens,
logits at every position would cost more than the rest of the model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetlib.data.base import Example
from forgetlib.engine import packing, parallel
from forgetlib.engine.device import sent
from forgetlib.engine.packing import Packed
from forgetlib.errors import InputError, UnusableNumbers, require_whole
from forgetlib.models.lm import LM, causal_lm, decoder, vocabulary_size

# Families are computed together where they share at least so many tokens, and half of what the
# first of them has; and up to so many tokens, as attention costs their square.
SHARED_LEAST, SHARED_MOST = 64, 1024


@dataclass(frozen=True)
class TokenSequence:
    """Hold a prompt and a response as the model sees them.

    tokens: prompt and response
    n_response: how many tokens at the end are the response
    """

    tokens: tuple[int, ...]
    n_response: int


@dataclass(frozen=True)
class Batch:
    """Hold packed inputs, and where each response token is predicted.

    rows, columns: (R,) where in (B, T) the hidden state predicts a response token: at the token
        before it. This is the one place with that shift.
    targets: (R,) the response tokens
    owners: (R,) which sequence each belongs to
    """

    packed: Packed
    rows: Tensor
    columns: Tensor
    targets: Tensor
    owners: Tensor
    n_sequences: int


def encode(lm: LM, example: Example, choice: int) -> TokenSequence:
    """Encode prompt and response as the lm-evaluation-harness splits them.

    Both are tokenised together, because a tokenizer may merge across the boundary; white space at
    the end of the prompt counts with the response. Raises InputError for what does not fit the
    model, rather than cutting it.
    """
    of_choice = f"response of example {example.uid!r}"
    choice = require_whole(of_choice, choice, 0, len(example.choices) - 1)
    prompt, response = example.prompts[choice], " " + example.choices[choice]
    stripped = prompt.rstrip()
    response = prompt[len(stripped) :] + response
    context = lm.tokens(stripped)
    whole = lm.tokens(stripped + response)
    if not context:
        raise InputError(
            f"example {example.uid!r}",
            expected="a prompt of at least one token",
            found=repr(prompt),
            do="Give the model something to condition on.",
        )
    continuation = whole[len(context) :]
    if not continuation:
        raise InputError(
            f"example {example.uid!r}",
            expected="a response of at least one token",
            found=f"none for {response!r} after the prompt",
            do="The tokenizer joins it to the prompt: change the choice or the tokenizer.",
        )
    # As in the harness, the context keeps its own tokens even where the joint encoding merges.
    tokens = (*context, *continuation)
    if len(tokens) > lm.max_length:
        raise InputError(
            f"example {example.uid!r}",
            expected=f"at most {lm.max_length} tokens, the context of {lm.name}",
            found=f"{len(tokens)}",
            do="Shorten the prompt, drop the example, or use a model with a longer context.",
        )
    if (largest := max(tokens)) >= (known := vocabulary_size(lm)):
        raise InputError(
            f"example {example.uid!r}",
            expected=f"token numbers below {known}, the vocabulary of {lm.name}",
            found=f"{largest}, {lm.tokenizer.convert_ids_to_tokens(largest)!r}",
            do="The tokenizer is of another model, or has tokens that were never trained.",
        )
    if lm.screen is not None:
        tokens = (*lm.screen(tuple(context)), *continuation)
    return TokenSequence(tokens, len(continuation))


def pack(lm: LM, families: Sequence[Sequence[Sequence[int]]]) -> Packed:
    """Lay out families of token sequences as the model can take them (see packing)."""
    lengths = [len(tokens) for family in families for tokens in family]
    row = packing.aligned(sum(lengths), lm.device)
    fits = max(lengths) <= min(lm.window, lm.unscaled) and row <= lm.longest_row
    way = lm.packs if fits else None
    dtype = next(lm.model.parameters()).dtype
    return packing.pack(families, way, lm.device, dtype)


def collate(lm: LM, families: Sequence[Sequence[TokenSequence]]) -> Batch:
    """Pack families of sequences (the choices of a question) for `response_log_likelihoods`."""
    # The last token predicts nothing that is asked for.
    packed = pack(lm, [[s.tokens[:-1] for s in family] for family in families])
    sequences = [s for family in families for s in family]
    where = []
    for owner, sequence in enumerate(sequences):
        row, columns = packed.places[owner]
        start = len(sequence.tokens) - sequence.n_response
        for index in range(start, len(sequence.tokens)):
            where.append((row, columns[index - 1], sequence.tokens[index], owner))
    indices = sent(torch.tensor(where, dtype=torch.long).T.contiguous(), lm.device)
    rows, predicting, targets, owners = indices.unbind(0)
    return Batch(packed, rows, predicting, targets, owners, len(sequences))


@dataclass(frozen=True)
class Unit:
    """Hold sequences that are computed in one pass, so that they share what they can.

    sequences: their numbers, counted over all families
    size: how many tokens they take, at most
    """

    sequences: tuple[int, ...]
    size: int


def units(lm: LM, families: Sequence[Sequence[Sequence[int]]], budget: int) -> list[Unit]:
    """Group sequences into units: mostly a family each.

    Families that have a long beginning in common, such as questions after the same examples, are
    one unit. Where positions are scaled by the longest sequence of a pass, those of a family that
    are long and differ are apart.

    families: the tokens of each family's sequences, as they are fed to the model
    budget: how many tokens a unit of several families has at most
    """
    firsts = np.cumsum([0, *map(len, families)])
    found = []
    for group in _alike(lm, families, min(budget, SHARED_MOST)):
        own = [i for f in group for i in range(firsts[f], firsts[f + 1])]
        tokens = [sequence for f in group for sequence in families[f]]
        lengths = [len(sequence) for sequence in tokens]
        if max(lengths) > lm.unscaled and len(set(lengths)) > 1:
            found += [Unit((i,), n) for i, n in zip(own, lengths, strict=True)]
            continue
        padded = max(lengths) * len(lengths)
        found.append(Unit(tuple(own), padded if len(group) == 1 else packing.n_packed(tokens)))
    return found


def _alike(lm: LM, families: Sequence[Sequence[Sequence[int]]], most: int) -> list[list[int]]:
    """Group the numbers of families that share a beginning, where this saves work."""
    beginnings = [tuple(family[0][: packing.n_shared(family)]) for family in families]
    longest = max(len(sequence) for family in families for sequence in family)
    fits = longest <= min(lm.window, lm.unscaled) and lm.longest_row == sys.maxsize
    if lm.packs is None or not fits:
        return [[f] for f in range(len(families))]
    groups: list[list[int]] = []
    shared, size = 0, 0
    for f in sorted(range(len(families)), key=lambda f: beginnings[f]):
        last = beginnings[groups[-1][0]][:shared] if groups else ()
        common = packing.n_shared([last, beginnings[f]])
        own = packing.n_packed(families[f])
        first = len(beginnings[groups[-1][0]]) if groups else 0
        if common >= max(SHARED_LEAST, first / 2) and size + own - common <= most:
            groups[-1].append(f)
            shared, size = common, size + own - common
        else:
            groups.append([f])
            shared, size = len(beginnings[f]), own
    return sorted(groups, key=min)


def passes(
    lm: LM,
    lengths: Sequence[Sequence[int]],
    budget: int,
    *,
    sizes: Sequence[int] | None = None,
    spread: bool = True,
) -> list[tuple[list[int], bool]]:
    """Split units into forward passes, the longest first, that fit a budget of tokens.

    So a batch has little padding, and running out of memory happens at once.

    lengths: those of each unit's sequences, as they are fed to the model
    sizes: the tokens that each unit takes; None: those of its sequences, padded to the longest
    spread: whether the passes are dealt out to the processes that share the model
    Returns this process's passes, each as the units in it and whether they count (see
    `parallel.dealt`).
    """
    sizes = [max(unit) * len(unit) for unit in lengths] if sizes is None else sizes
    scales = [max(unit) if max(unit) > lm.unscaled else 0 for unit in lengths]
    order = sorted(range(len(lengths)), key=lambda i: (-scales[i], -sizes[i]))
    padded = lm.packs is None or max(map(max, lengths)) > min(lm.window, lm.unscaled)

    def of(places: Sequence[int]) -> list[list[int]]:
        mine = [order[place] for place in places]
        most = budget if padded else min(budget, lm.longest_row)
        return [
            group
            for scale in sorted({scales[i] for i in mine}, reverse=True)
            for group in by_token_budget(
                sizes, [i for i in mine if scales[i] == scale], most, padded=padded
            )
        ]

    if spread:
        return parallel.dealt(len(order), of)
    return [(group, True) for group in of(range(len(order)))]


def by_token_budget(
    sizes: Sequence[int], order: Sequence[int], budget: int, *, padded: bool = False
) -> Iterator[list[int]]:
    """Yield consecutive groups of `order` whose tokens, padded to the longest or not, fit."""
    group: list[int] = []
    for index in order:
        of_group = [sizes[i] for i in (*group, index)]
        size = max(of_group) * len(of_group) if padded else sum(of_group)
        if group and size > budget:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def response_log_likelihoods(lm: LM, batch: Batch) -> Tensor:
    """Compute the log-likelihood (n_sequences,) of every response given its prompt, in nats, fp32.

    Differentiable in the model's trainable parameters.
    """
    hidden = run_decoder(causal_lm(lm.model), batch.packed).last_hidden_state
    return log_likelihoods_from(lm, batch, hidden[batch.rows, batch.columns])


def log_likelihoods_from(lm: LM, batch: Batch, hidden: Tensor) -> Tensor:
    """Compute the log-likelihood (n_sequences,) of every response from hidden states (R, D).

    hidden: where each response token is predicted, after the final norm
    """
    token_log_probs = lm.output.log_probs(hidden, batch.targets)  # (R,)
    total = torch.zeros(batch.n_sequences, dtype=torch.float32, device=hidden.device)
    return total.index_add(0, batch.owners, token_log_probs)


def layer_outputs(lm: LM, packed: Packed, places: Sequence[tuple[int, int]]) -> Tensor:
    """Compute the hidden states (L + 1, R, D) of packed sequences at R places: rows and columns.

    0 is the token embeddings, l the output of block l; the last has passed the final norm.
    """
    outputs = run_decoder(causal_lm(lm.model), packed, output_hidden_states=True)
    rows, columns = sent(torch.tensor(places), lm.device).unbind(1)
    found = outputs.hidden_states or ()
    shapes = {tuple(states.shape) for states in found}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or shape[:2] != packed.input_ids.shape:
        raise UnusableNumbers(
            f"hidden states of {lm.name!r}",
            expected=f"one state for each of {tuple(packed.input_ids.shape)} tokens in every layer",
            found=f"shapes {sorted({tuple(states.shape) for states in found})}",
            do="Its layers pass on something else, which is not probed: set probe=False.",
        )
    return torch.stack([states[rows, columns] for states in found])


def run_decoder(model: Any, packed: Packed, **options: Any) -> Any:
    """Run the layers, without the output layer, over packed sequences, each for itself."""
    mask: Any = packed.mask
    if packed.trees is not None:
        options["trees"] = packed.trees
        mask = packed.input_ids.new_zeros(1, 1, 1, 1)  # made, so that transformers makes none
    if mask is not None:
        if getattr(model.config.get_text_config(), "layer_types", None):
            # One for each kind of layer. No sequence here is longer than the sliding window.
            mask = {"full_attention": mask, "sliding_attention": mask}
        options |= {"attention_mask": mask, "position_ids": packed.position_ids}
    return decoder(model)(input_ids=packed.input_ids, use_cache=False, **options)
