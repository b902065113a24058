"""What of a model fine-tuning changes: its body, all of it, or low-rank updates."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from forgetlib.errors import ModelError, in_a_line
from forgetlib.models.synthetic import seeded

LORA_RANK = 16


def tuning_of(name: str, model: Any, tuning: str) -> nn.Module:
    """Freeze what a tuning leaves alone, or add what it trains."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if not all(hasattr(part, "weight") for part in ends):
        raise ModelError(
            f"model {name!r}",
            expected="token embeddings and an output layer, each with one matrix of weights",
            found=" and ".join(type(part).__name__ for part in ends),
            do="Use a causal language model of another architecture.",
        )
    tuned = model
    if tuning == "body":
        for part in ends:
            part.requires_grad_(False)
    elif tuning == "lora":
        tuned = _with_low_rank_updates(name, model)
    if not any(p.requires_grad for p in tuned.parameters()):
        raise ModelError(
            f"model {name!r}",
            expected=f"weights that tuning={tuning!r} can train",
            found="none",
            do="Choose another tuning, or weights in bf16 or fp32: quantised ones are not trained.",
        )
    return tuned


def _with_low_rank_updates(name: str, model: Any) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    linear = [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear | Conv1D)
        and part is not model.get_output_embeddings()
        and _gives_one_tensor(part)
    ]
    config = LoraConfig(
        r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=linear, lora_dropout=0.0
    )
    try:
        # The initial update is zero; only its direction is drawn.
        with seeded(), own_config(model), warnings.catch_warnings():
            # Of peft, which asks transformers by an older name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            # In the model's dtype: the optimiser keeps fp32 masters of whatever is trained.
            return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise ModelError(
            f"model {name!r}",
            expected="linear layers, to which peft can add low-rank updates",
            found=in_a_line(error),
            do="Choose tuning 'body' or 'full'.",
        ) from error


@contextmanager
def own_config(model: Any) -> Iterator[None]:
    """Keep a setting of the model's config that peft changes, so that it is saved as it computes.

    peft writes that no layer is computed in slices. Layers that are made already still are.
    """
    slices = getattr(model.config, "pretraining_tp", None)
    yield
    if slices is not None:
        model.config.pretraining_tp = slices


@torch.inference_mode()
def _gives_one_tensor(layer: Any) -> bool:
    """Tell whether a linear layer gives what one does: a router that is one gives more."""
    if type(layer) in (nn.Linear, Conv1D):
        return True
    try:
        return isinstance(layer(layer.weight.new_zeros(1, layer.in_features)), Tensor)
    except Exception:  # whatever it takes, it is not what a linear layer takes
        return False
