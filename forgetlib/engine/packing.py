"""Token sequences side by side: little padding, and no prompt computed twice.

The two choices of a question share their prompt, so they form a tree: the prompt, then a branch for
each choice. Questions after the same examples form one too, with branches of branches. The layers
of a transformer treat every token alone, all but attention. So trees can stand one after another in
a row, as long as attention keeps them apart, in one of two ways:

"tree": attention is called once for each tree. Nothing is padded and nothing is computed between
    trees. This is the CPU's way, where a call costs little beside its work.
"mask": one call with a mask over rows of several trees. This is the GPU's way, where many small
    calls would not fill it, and that of architectures whose attention cannot be replaced.

Shapes: B rows, T tokens, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from forgetlib.engine import kernels
from forgetlib.engine.device import sent

WAYS = ("tree", "mask")
TREE_ATTENTION = "forgetlib_tree"  # the name of `attend_by_tree` among transformers' attentions
# Tokens in a row of several masked trees: attention costs their square, short rows cost padding.
ROW_TOKENS = {"cpu": 384, "cuda": 1024, "mps": 512}
# Masked rows are as long as a multiple of this: CUDA's attention copies any other mask, in every
# layer, into one whose lines lie so.
ALIGNED = {"cpu": 1, "cuda": 8, "mps": 1}


@dataclass(frozen=True)
class Packed:
    """Lay out token sequences in B rows of T columns, without repeating shared prompts.

    input_ids: (B, T), padded on the right
    position_ids: (B, T) place of each token in its own sequence
    mask: (B, 1, T, T) to add to attention scores: 0 where a token may look, hugely negative
        elsewhere; None where the causal order of each row, or of each tree, is all it needs
    trees: of one row whose trees attention treats one by one, each one's length and mask, (1, 1,
        length, length) or None where the causal order is enough; else None
    places: of each sequence, the row and, for each of its tokens, the column
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor | None
    trees: tuple[tuple[int, Tensor | None], ...] | None
    places: tuple[tuple[int, tuple[int, ...]], ...]


def pack(
    families: Sequence[Sequence[Sequence[int]]],
    way: str | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Packed:
    """Lay out families of token sequences: those of one family share their common beginning.

    way: "tree", "mask" or None: a row for each different sequence, which every model can take
    dtype: of the masks, the model's own
    """
    if way is None:
        places_of: dict[tuple[int, ...], list[int]] = {}
        sequences = [tuple(tokens) for family in families for tokens in family]
        for index, tokens in enumerate(sequences):
            places_of.setdefault(tokens, []).append(index)
        rows = [[_Tree([tokens], owners)] for tokens, owners in places_of.items()]
        return _lay_out(rows, device)
    first = np.cumsum([0, *map(len, families)])
    trees = [
        _Tree(family, list(range(start, start + len(family))))
        for start, family in zip(first, families, strict=False)
    ]
    if way == "tree":
        return _lay_out([trees], device, by_tree=dtype)
    longest = max(len(tree.tokens) for tree in trees)
    return _lay_out(_fill_rows(trees, max(longest, ROW_TOKENS[device.type])), device, mask=dtype)


class _Tree:
    """One family: each different beginning of its sequences once, and what follows it behind.

    tokens, positions: in a line, and each one's place in its own sequence
    until: before which column of the line a token is seen: those up to there, and after it, go on
        from it
    columns: of each sequence, where its tokens are in the line
    owners: the number of each sequence in the batch; one sequence can have several
    """

    def __init__(self, family: Sequence[Sequence[int]], owners: list[int]) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.until: list[int] = []
        columns: list[list[int]] = [[] for _ in family]
        self._grow(family, columns, range(len(family)), 0)
        if len(family) < len(owners):  # the same sequence, wanted several times
            columns *= len(owners)
        self.columns = [tuple(of_sequence) for of_sequence in columns]
        self.owners = owners

    def _grow(
        self,
        family: Sequence[Sequence[int]],
        columns: list[list[int]],
        members: Sequence[int],
        place: int,
    ) -> None:
        """Add what sequences that are the same up to a place have from there on."""
        start = len(self.tokens)
        end = place + n_shared([family[m][place:] for m in members])
        first = family[members[0]]
        self.tokens += first[place:end]
        self.positions += range(place, end)
        self.until += [0] * (end - place)
        for member in members:
            columns[member] += range(start, len(self.tokens))
        branches: dict[int, list[int]] = {}
        for member in members:
            if len(family[member]) > end:
                branches.setdefault(family[member][end], []).append(member)
        for branch in branches.values():
            self._grow(family, columns, branch, end)
        self.until[start : start + end - place] = [len(self.tokens)] * (end - place)

    @property
    def is_causal(self) -> bool:
        """Tell whether each token may see all tokens before it: there is no second branch."""
        return min(self.until) == len(self.tokens)


def n_shared(family: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all sequences begin with."""
    for place, tokens in enumerate(zip(*family, strict=False)):
        if len(set(tokens)) > 1:
            return place
    return min(map(len, family))


def n_packed(family: Sequence[Sequence[int]]) -> int:
    """Count the tokens of a family, each shared one once."""
    return len(_Tree(family, [*range(len(family))]).tokens)


def _fill_rows(trees: Sequence[_Tree], capacity: int) -> list[list[_Tree]]:
    """Rows of at most `capacity` tokens: each tree in the first with room, the longest first."""
    rows: list[list[_Tree]] = []
    free: list[int] = []
    for tree in sorted(trees, key=lambda t: -len(t.tokens)):
        row = next((r for r, n in enumerate(free) if n >= len(tree.tokens)), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(capacity)
        rows[row].append(tree)
        free[row] -= len(tree.tokens)
    return rows


def aligned(length: int, device: torch.device) -> int:
    """Round the length of a masked row up to what the device's attention takes as it is."""
    multiple = ALIGNED[device.type]
    return -(-length // multiple) * multiple


def _lay_out(
    rows: Sequence[Sequence[_Tree]],
    device: torch.device,
    *,
    by_tree: torch.dtype | None = None,
    mask: torch.dtype | None = None,
) -> Packed:
    """Rows of trees as tensors, with masks of a dtype for each tree or for whole rows."""
    length = max(sum(len(tree.tokens) for tree in row) for row in rows)
    if not any(len(row) > 1 or not row[0].is_causal for row in rows):
        mask = None  # the causal order is enough
    if mask is not None:
        length = aligned(length, device)
    # Input, position, and until where it is seen, of every token; padding is seen by itself alone.
    layout = np.zeros((3, len(rows), length), np.int64)
    layout[2] = np.arange(1, length + 1)
    places: dict[int, tuple[int, tuple[int, ...]]] = {}
    for number, row in enumerate(rows):
        start = 0
        for tree in row:
            end = start + len(tree.tokens)
            layout[:2, number, start:end] = tree.tokens, tree.positions
            layout[2, number, start:end] = np.add(tree.until, start)
            for owner, columns in zip(tree.owners, tree.columns, strict=True):
                places[owner] = (number, tuple(start + c for c in columns))
            start = end
    input_ids, position_ids, until = sent(torch.from_numpy(layout), device)
    tree_masks = None
    row_mask = None if mask is None else _mask(until, mask)
    if by_tree is not None:
        own = [torch.tensor([tree.until], device=device) for tree in rows[0]]
        tree_masks = tuple(
            (len(tree.tokens), None if tree.is_causal else _mask(of_tree, by_tree))
            for tree, of_tree in zip(rows[0], own, strict=True)
        )
    ordered = tuple(places[owner] for owner in range(len(places)))
    return Packed(input_ids, position_ids, row_mask, tree_masks, ordered)


def _mask(until: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, T) of (B, T): a token sees itself, and those before it that it goes on from."""
    columns = torch.arange(until.shape[1], device=until.device)
    allowed = (columns[:, None] < until[:, None, :]).tril()
    mask = torch.zeros(allowed.shape, dtype=dtype, device=until.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]


def attend_by_tree(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    trees: Sequence[tuple[int, Tensor | None]] | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' functions do: (1, T, H, D) from query, key and value (1, H, T, D).

    Without trees it is transformers' own. What it does not know of (caps of the scores, sinks,
    learned position biases, chosen indices) is an error rather than left out.
    """
    unknown = [
        name
        for name, option in options.items()
        if (isinstance(option, Tensor) and name not in ("position_ids", "cache_position"))
        or (name == "softcap" and option is not None)
    ]
    if unknown:
        raise ValueError(f"attention by tree does not know {unknown}")
    if trees is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    # Split rather than sliced: the gradient of a split is one concatenation.
    lengths = [length for length, _ in trees]
    outputs = [
        kernels.attention(q, k, v, mask, scaling)
        for q, k, v, (_, mask) in zip(
            *(x.split(lengths, 2) for x in (query, key, value)), trees, strict=True
        )
    ]
    return torch.cat([o.transpose(1, 2) for o in outputs], 1), None


AttentionInterface.register(TREE_ATTENTION, attend_by_tree)
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
