"""Models with random weights: the two for the synthetic tasks, and any of another's shape."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from forgetlib.data.base import Example
from forgetlib.data.sources import SYNTHETIC_WORDS

TINY_WIDTHS = {"tiny": 64, "tiny-wide": 96}


def tiny(width: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """Make a two-layer Llama with random weights, always the same, and a tokenizer of words."""
    tokenizer = of_words()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
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


def of_words() -> Any:
    """Make a tokenizer of the words of the synthetic tasks, a token each."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ("<unk>", "<s>", *SYNTHETIC_WORDS)
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")


def shaped(config: Any, n_layers: int, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Make a model of a configuration's shape with so many layers, and a tokenizer of words.

    What a model costs is measured on it: nothing is downloaded, and its numbers mean nothing.
    Weights are as large as a trained model's, so that it matters where a token stands.
    """
    config = copy.deepcopy(config)
    text = config.get_text_config()
    text.num_hidden_layers = n_layers
    text.initializer_range = 2 * text.hidden_size**-0.5
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model, of_words()


def questions(n: int, n_tokens: int) -> tuple[Example, ...]:
    """Make up questions for such a model: with either answer, of two tokens, so many tokens."""
    words, made = sorted(SYNTHETIC_WORDS), []
    for i in range(n):
        picked = ((i + 7 * k * (1 + i % 5)) % len(words) for k in range(n_tokens - 2))
        prompt = " ".join(words[number] for number in picked)
        one, other, last = (words[(i + k) % len(words)] for k in range(3))
        answers = f"{one} {last}", f"{other} {last}"
        made.append(Example(f"made up/{n_tokens}/{i}", (prompt, prompt), answers, i % 2))
    return tuple(made)


@contextmanager
def seeded() -> Iterator[None]:
    """Draw the same weights whatever was drawn before, and leave no trace.

    Weights are drawn on the CPU. torch.manual_seed would seed the GPUs' generators for good.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
