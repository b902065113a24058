"""A causal language model in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetlib.engine import parallel
from forgetlib.errors import ForgetlibError, InputError, ModelError, in_a_line
from forgetlib.models import likelihood


@dataclass
class LM:
    """Hold a model in memory, with what is needed to use it.

    output: how its logits come about
    max_length: the longest sequence in tokens, prompt and response together
    window: the longest sequence of which every layer sees the whole
    unscaled: the longest sequence that is computed alike whatever the length of its pass; what is
        longer shares a pass with sequences of its own length only
    longest_row: the most tokens that can stand in a row, packed
    backward_tokens: the most tokens of a backward pass that its memory has room for
    packs: how several sequences can stand in one row, a packing way; None: they cannot
    kernels: the classes of its parts that are computed by our own kernels
    screen: what becomes of a prompt's tokens while a filter is active; None: nothing
    """

    name: str
    model: nn.Module
    tokenizer: Any
    device: torch.device
    output: likelihood.OutputLayer
    max_length: int
    window: int = sys.maxsize
    unscaled: int = sys.maxsize
    longest_row: int = sys.maxsize
    backward_tokens: int = sys.maxsize
    packs: str | None = None
    kernels: tuple[str, ...] = ()
    screen: Callable[[tuple[int, ...]], tuple[int, ...]] | None = field(default=None, repr=False)
    _tokens: dict[str, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def tokens(self, text: str) -> list[int]:
        """Tokenise a text, and remember it: a study scores the same questions again and again."""
        if text not in self._tokens:
            self._tokens[text] = self.tokenizer(text).input_ids
        return self._tokens[text]

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """Find the parameters that fine-tuning changes, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Copy the parameters that fine-tuning changes to the CPU."""
        return {
            n: parallel.whole(p.detach()).to("cpu", copy=True).contiguous()
            for n, p in self.trainable.items()
        }

    @torch.no_grad()
    def set_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back what `weights` gave; raise InputError where it is of another model or tuning."""
        parameters = self.trainable
        if set(weights) != set(parameters):
            odd = sorted(set(weights) ^ set(parameters))
            raise InputError(
                f"weights for {self.name}",
                expected=f"the {len(parameters)} trainable parameters",
                found=f"{len(weights)} weights, differing in {odd[:3]}",
                do="Load weights that were saved with the same model and tuning.",
            )
        if odd := [n for n, p in parameters.items() if weights[n].shape != p.shape]:
            raise InputError(
                f"weights for {self.name}",
                expected=f"the shape {tuple(parameters[odd[0]].shape)} of {odd[0]}",
                found=tuple(weights[odd[0]].shape),
                do="Load weights that were saved with the same model and tuning.",
            )
        for name, parameter in parameters.items():
            parallel.fill(parameter, weights[name])


def causal_lm(model: Any) -> Any:
    """Unwrap the causal LM where peft has wrapped it; its adapters live in its layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: Any) -> nn.Module:
    """Find the part of a causal LM that gives the output layer its hidden states."""
    base = getattr(model, model.base_model_prefix, None)
    if base is None:
        base = next(part for part in model.children() if isinstance(part, PreTrainedModel))
    decoder = getattr(base, "decoder", None)  # of an architecture that also has an encoder
    return decoder if isinstance(decoder, nn.Module) else base


def blocks(lm: LM) -> list[nn.Module]:
    """List the transformer's blocks, in their order: those whose outputs are its hidden states."""
    return parallel.layers(decoder(causal_lm(lm.model)))


@contextmanager
def as_model_error(name: str) -> Iterator[None]:
    """Turn whatever a foreign model raises when it is tried into a ModelError."""
    try:
        yield
    except ForgetlibError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {name!r}",
            expected="a causal language model that can be tried on a few tokens",
            found=in_a_line(error, named=True),
            do="It may need another version of transformers, or is none: report the architecture.",
        ) from error


def vocabulary_size(lm: LM) -> int:
    """Count the tokens that the output layer scores, which may be more than the tokenizer has."""
    return int(lm.output.layer.weight.shape[0])
