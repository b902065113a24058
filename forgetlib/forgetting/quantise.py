"""Quantise a model's weights: round them to a grid, as one does to run a model in less memory.

Shapes: O outputs of a linear layer, I inputs.

This file needs no torch at import, so that results can be read without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetlib.errors import InputError, require_whole
from forgetlib.forgetting.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import Context
    from forgetlib.models.lm import LM

BITS = (4, 8)
GROUP = 32


@dataclass(frozen=True)
class Quantise(Method):
    """Round the weights of linear layers to 8 or 4 bits, and go on with the rounded ones.

    That can bring back what was forgotten, where forgetting has changed most weights by less than
    a step of the grid (Zhang et al., arXiv 2410.16454, code: FailureLLMUnlearning).

    Round to nearest, symmetric: a weight becomes code * scale, where the codes are whole numbers
    from -127 to 127, or from -7 to 7, and the scale makes the largest absolute weight the largest
    code. 8 bits have one scale a row, that is for each output of a layer; 4 bits have one for each
    group of consecutive weights in a row. The result is stored in the model's own dtype, so that
    nothing else computes otherwise: activations are not rounded.

    All linear layers but the output layer are quantised. Token embeddings and output layer keep
    their weights, as in most such deployments, and so do norms, biases and position embeddings.
    With tuning "lora" an InputError is raised: its weights are updates beside frozen ones, and
    rounding the updates alone would be no quantised model.

    Zhang et al. take the defaults of bitsandbytes, which are not quite these: with 8 bits it rounds
    activations too, but for outliers, and its grid of 4 bits has steps of different sizes.

    bits: 4 or 8
    group: weights that share a scale, with 4 bits; the last group of a row may be shorter
    """

    bits: int
    group: int = GROUP

    def __post_init__(self) -> None:
        bits = require_whole("Quantise.bits", self.bits, min(BITS), max(BITS))
        group = require_whole("Quantise.group", self.group, 1)
        if bits not in BITS:
            raise InputError(
                "Quantise.bits", expected="4 or 8", found=bits, do="Choose one of these."
            )
        if bits == 8 and group != GROUP:  # else what is the same would have several ids
            raise InputError(
                "Quantise.group",
                expected=f"its default, {GROUP}, as 8 bits have one scale a row",
                found=group,
                do="Leave it out, or take 4 bits.",
            )
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "group", group)
        super().__post_init__()

    def edit(self, lm: LM, context: Context) -> None:
        """Round the weights of all linear layers but the output layer."""
        weights = lm.weights()
        for matrix in matrices(lm, weights).values():
            rounded, scales = codes(matrix, self.bits, self.group)
            matrix.copy_(rounded * scales)
        lm.set_weights(weights)


def codes(matrix: Tensor, bits: int, group: int = GROUP) -> tuple[Tensor, Tensor]:
    """Find the codes of a matrix (O, I), and the scale (O, I) of each: codes * scales are weights.

    In fp64, so that rounding what is rounded already changes nothing: in fp32 the largest weight
    would not always come back from its scale.

    group: with 4 bits, consecutive weights of a row that share a scale; 8 bits have one scale a row
    """
    import torch
    from torch.nn import functional as F

    n_inputs = matrix.shape[1]
    size = n_inputs if bits == 8 else group
    largest = 2 ** (bits - 1) - 1
    padded = F.pad(matrix.double(), (0, -n_inputs % size)).unflatten(1, (-1, size))
    scales = padded.abs().amax(2, keepdim=True) / largest  # (O, groups, 1)
    rounded = (padded / torch.where(scales == 0, 1, scales)).round()
    parts = (rounded, scales.expand_as(padded))
    found, of_each = (x.flatten(1)[:, :n_inputs] for x in parts)
    return found, of_each


def matrices(lm: LM, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick from weights, as `LM.weights` gives them, those that are quantised: (O, I) by name.

    They are views: what is written into them is written into the weights. InputError where some
    linear layer's weights are not among those that the tuning changes, as with low-rank tuning, and
    for matrices stacked in one tensor (experts), of which nobody says which way round they are.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from forgetlib.models.lm import causal_lm

    model = causal_lm(lm.model)
    names = {id(parameter): name for name, parameter in lm.trainable.items()}
    found: dict[str, Tensor] = {}
    for place, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not model.get_output_embeddings():
            name = names.get(id(module.weight))
            if name is None:
                raise InputError(
                    f"quantising {lm.name!r}",
                    expected="linear layers whose own weights the tuning changes",
                    found=f"{place}, which is frozen",
                    do="Use tuning 'body' for all that it starts from. Of low-rank updates, save "
                    "the model, which merges them, and quantise what is saved.",
                )
            found[name] = weights[name].t() if isinstance(module, Conv1D) else weights[name]
        elif not isinstance(module, nn.Conv1d | nn.Conv2d):
            own = module.named_parameters(recurse=False)
            if stacked := [n for n, p in own if p.ndim > 2 and min(p.shape) > 1]:
                raise InputError(
                    f"quantising {lm.name!r}",
                    expected="matrices that are each a linear layer's",
                    found=f"several in one tensor, {place}.{stacked[0]}",
                    do="Use a model without mixtures of experts.",
                )
    return found
