"""The two random models for the synthetic tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from forgetlib.data.sources import SYNTHETIC_WORDS

TINY_WIDTHS = {"tiny": 64, "tiny-wide": 96}


def tiny(width: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Make a two-layer Llama with random weights, always the same, and a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ("<unk>", "<s>", *SYNTHETIC_WORDS)
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>"
    )
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    with seeded():
        model = LlamaForCausalLM(config)
    return nn.Module.to(model, dtype), tokenizer


@contextmanager
def seeded() -> Iterator[None]:
    """Draw the same weights whatever was drawn before, and leave no trace.

    Weights are drawn on the CPU. torch.manual_seed would seed the GPUs' generators for good.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
