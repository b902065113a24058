"""Token sequences side by side: little padding, and no prompt computed twice.

The two choices of a question share their prompt, so they form a tree: the prompt, then a branch for
each choice. The layers of a transformer treat every token alone, all but attention. So trees can
stand one after another in a row, as long as attention keeps them apart, in one of two ways:

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

WAYS = ("tree", "mask")
TREE_ATTENTION = "forgetlib_tree"  # the name of `attend_by_tree` among transformers' attentions
# Tokens in a row of several masked trees: attention costs their square, short rows cost padding.
ROW_TOKENS = {"cpu": 384, "cuda": 1024, "mps": 512}


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
    """One family: its tokens in a line, each token's position and branch (0: the shared prompt).

    columns: of each sequence, where its tokens are in the line
    owners: the number of each sequence in the batch; one sequence can have several
    """

    def __init__(self, family: Sequence[Sequence[int]], owners: list[int]) -> None:
        n_shared = _n_shared(family)
        shared = range(n_shared)
        self.tokens = [*family[0][:n_shared]]
        self.positions, self.branches = [*shared], [0] * n_shared
        self.columns: list[tuple[int, ...]] = []
        for branch, tokens in enumerate(family, start=1):
            own = range(len(self.tokens), len(self.tokens) + len(tokens) - n_shared)
            self.columns.append((*shared, *own))
            self.tokens += tokens[n_shared:]
            self.positions += range(n_shared, len(tokens))
            self.branches += [branch] * len(own)
        if len(family) < len(owners):  # the same sequence, wanted several times
            self.columns *= len(owners)
        self.owners = owners

    @property
    def is_causal(self) -> bool:
        """Tell whether each token may see all tokens before it: there is no second branch."""
        return max(self.branches) <= 1


def _n_shared(family: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with."""
    for place, tokens in enumerate(zip(*family, strict=False)):
        if len(set(tokens)) > 1:
            return place
    return min(map(len, family))


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


def _lay_out(
    rows: Sequence[Sequence[_Tree]],
    device: torch.device,
    *,
    by_tree: torch.dtype | None = None,
    mask: torch.dtype | None = None,
) -> Packed:
    """Rows of trees as tensors, with masks of a dtype for each tree or for whole rows."""
    length = max(sum(len(tree.tokens) for tree in row) for row in rows)
    # Input, position, tree and branch of every token; padding is a tree of its own.
    layout = np.zeros((4, len(rows), length), np.int64)
    places: dict[int, tuple[int, tuple[int, ...]]] = {}
    for number, row in enumerate(rows):
        start = 0
        for index, tree in enumerate(row, start=1):
            end = start + len(tree.tokens)
            layout[:3, number, start:end] = tree.tokens, tree.positions, [index] * (end - start)
            layout[3, number, start:end] = tree.branches
            for owner, columns in zip(tree.owners, tree.columns, strict=True):
                places[owner] = (number, tuple(start + c for c in columns))
            start = end
    on_device = torch.from_numpy(layout).to(device)
    input_ids, position_ids, trees, branches = on_device
    row_mask, tree_masks = None, None
    if mask is not None and any(len(row) > 1 or not row[0].is_causal for row in rows):
        row_mask = _mask(trees, branches, mask)
    if by_tree is not None:
        pieces = branches.split([len(tree.tokens) for tree in rows[0]], dim=1)
        tree_masks = tuple(
            (len(tree.tokens), None if tree.is_causal else _mask(piece * 0, piece, by_tree))
            for tree, piece in zip(rows[0], pieces, strict=True)
        )
    ordered = tuple(places[owner] for owner in range(len(places)))
    return Packed(input_ids, position_ids, row_mask, tree_masks, ordered)


def _mask(trees: Tensor, branches: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, T): a token sees those before it in its tree's prompt and in its own branch."""
    same_tree = trees[:, :, None] == trees[:, None, :]
    same_branch = branches[:, :, None] == branches[:, None, :]
    in_prompt = branches[:, None, :] == 0
    allowed = (same_tree & (same_branch | in_prompt)).tril()
    mask = torch.zeros(allowed.shape, dtype=dtype, device=trees.device)
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
