"""What is checked of a model when it is loaded: each way of use against a sequence alone.

A model is used in ways that its own authors may not have tried: several sequences in a row, padded
rows, an output layer without the rest. Each is compared with the plainest one, a sequence alone
through the model's own forward; what differs is refused or avoided.

Shapes: T tokens, D hidden size.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from forgetlib.engine import packing
from forgetlib.engine.packing import Packed
from forgetlib.errors import ModelError, in_a_line
from forgetlib.models import likelihood
from forgetlib.models.forward import pack, run_decoder
from forgetlib.models.lm import LM, causal_lm, decoder

# By whether the model is in fp32: how far its states of a sequence may be from those in another
# layout, as a share of their norm. In bf16 those of Gemma-3-270M are 0.04 apart, on a CPU whose
# products sum in another order for other sizes, and those of SmolLM2 0.02; with a wrong mask 0.5,
# with the last seven of 20 positions wrong 0.25. Log-likelihoods tell less: those of three unlikely
# tokens were 0.4 nats of 59 apart. Rounding adds up over layers, as the root of their number.
SAME_STATES = {True: 1e-3, False: 0.1}
USUAL_DEPTH = 18
# What the checks at load are made with: enough words for 20 different tokens.
ORDINARY_TEXT = (
    "The river runs down from the hills to an old town, where every Monday farmers sell apples, "
    "bread and cheese near a stone bridge that was built before anyone could write its story."
)
N_ORDINARY = 20
N_OUTPUT = 4  # of them, whose logits are compared: the work of a large vocabulary
# What configurations call the longest sequence, and the longest one of which a layer sees all.
CONTEXTS = (
    *("max_position_embeddings", "n_positions", "max_target_positions"),
    *("max_seq_len", "max_sequence_length", "n_ctx"),
)
WINDOWS = ("sliding_window", "window_size", "attention_window_size", "attention_chunk_size")


@torch.inference_mode()
def states_alone(model: Any, tokenizer: Any) -> Tensor:
    """Compute the last hidden states (1, tokens, D), fp32, of an ordinary text alone in a pass.

    Those of merged weights tell whether low-rank updates beside them did the same: not where layers
    share a matrix, or where a layer's weights are used without calling it.
    """
    tokens = ordinary_tokens(tokenizer, model, min(N_ORDINARY, lengths(model)[0]))
    tokens = tokens.to(model.get_input_embeddings().weight.device)
    return decoder(model)(input_ids=tokens, use_cache=False).last_hidden_state.float()


def check_end(name: str, tokenizer: Any) -> None:
    """Check that a text's last token is its own: a response is scored as a text's last tokens."""
    text = "a"
    own, given = tokenizer(text, add_special_tokens=False).input_ids, tokenizer(text).input_ids
    if given[len(given) - len(own) :] != own:
        raise ModelError(
            f"model {name!r}",
            expected="a tokenizer that adds nothing after a text",
            found=f"one that ends every text with {tokenizer.convert_ids_to_tokens(given[-1])!r}",
            do="Save the tokenizer without that, as with add_eos_token=False.",
        )


def lengths(model: Any) -> tuple[int, int]:
    """Read the longest sequence, and the longest of which every layer sees all, in tokens."""
    config = model.config.get_text_config()

    def least(names: Sequence[str]) -> int:
        found = [n for key in names if isinstance(n := getattr(config, key, None), int) and n > 0]
        return min(found, default=sys.maxsize)

    # A model without positions (recurrent, or with relative ones) takes any length.
    context = next((n for key in CONTEXTS if (n := least([key])) < sys.maxsize), sys.maxsize)
    for part_name, part in model.named_modules():  # RoBERTa numbers positions from its padding on
        if (
            isinstance(part, nn.Embedding)
            and "position" in part_name
            and part.padding_idx is not None
        ):
            context = min(context, part.num_embeddings - part.padding_idx - 1)
    return context, min(context, least(WINDOWS))


def unscaled(model: Any) -> int:
    """Find the longest sequence that is computed alike whatever the length of its pass.

    Some rotary embeddings (Phi-3's, "longrope") take other frequencies where the longest sequence
    of a pass is beyond the context that they were first trained for. And attention to chosen tokens
    (DeepSeek's `index_topk`) breaks ties by that length.
    """
    chosen = getattr(model.config.get_text_config(), "index_topk", None)
    found = [chosen or sys.maxsize]
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        by_layer = kinds if isinstance(kinds, dict) else {None: kinds}
        for layer_type, kind in by_layer.items():
            if kind == "longrope":
                settings = module.config.rope_parameters
                settings = settings if layer_type is None else settings[layer_type]
                found.append(settings["original_max_position_embeddings"])
    return min(found)


def longest_row(model: Any, max_length: int) -> int:
    """Find how many tokens can stand in a row: where a buffer is as long as a sequence, as many."""
    fixed = any(max_length in buffer.shape for buffer in model.buffers())
    return max_length if fixed else sys.maxsize


def ordinary_tokens(tokenizer: Any, model: Any, n: int) -> Tensor:
    """Pick (1, n) different tokens of an ordinary text, for the checks.

    Special ones, and bytes, are rare in training: a model's states of them are extreme, and in bf16
    so is their rounding. A vocabulary without these words gives its own, special ones last.
    """
    known = model.get_input_embeddings().weight.shape[0]
    special = set(tokenizer.all_special_ids)
    text = dict.fromkeys(tokenizer(ORDINARY_TEXT, add_special_tokens=False).input_ids)
    found = [i for i in text if i not in special and i < known][:n]
    if len(found) < n:
        others = (i for i in range(min(known, len(tokenizer))) if i not in found)
        found += sorted(others, key=lambda i: (i in special, i))[: n - len(found)]
    return torch.tensor([found])


def output_layer(name: str, model: Any, tokens: Tensor) -> likelihood.OutputLayer:
    """Find a model's output layer; raise ModelError where it has none that we know."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return likelihood.find(model, decoder(model), tokens)
    except Exception as error:  # whatever a foreign model does with it
        raise ModelError(
            f"model {name!r}",
            expected="finite logits, which its output layer computes from its last hidden states",
            found=in_a_line(error, named=True),
            do="Its weights are broken, or it is no causal language model that forgetlib knows: "
            "report the architecture.",
        ) from error


@torch.inference_mode()
def _states(lm: LM, packed: Packed) -> list[Tensor]:
    """Compute the last hidden states (tokens, D), fp32, of each packed sequence."""
    hidden = run_decoder(causal_lm(lm.model), packed).last_hidden_state.float()
    return [hidden[row, list(columns)] for row, columns in packed.places]


def furthest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Compute the largest distance of states from those expected, as a share of their norm."""
    pairs = zip(found, expected, strict=True)
    # By torch, whose largest is not a number where one of them is none.
    return float(torch.stack([(f - e).norm() / e.norm().clamp_min(1e-12) for f, e in pairs]).max())


def same_states(model: Any) -> float:
    """Give the largest distance that rounding may make, as a share of the states' norm."""
    config = causal_lm(model).config.get_text_config()
    depth = int(getattr(config, "num_hidden_layers", USUAL_DEPTH) or USUAL_DEPTH)
    exact = next(model.parameters()).dtype == torch.float32
    return SAME_STATES[exact] * max(1.0, math.sqrt(depth / USUAL_DEPTH))


def check_causal(lm: LM, tokens: list[int]) -> None:
    """Refuse a model whose states of earlier tokens depend on later ones.

    It would see the answer before it predicts it, and with padding its numbers would change. The
    gradient tells: that of a causal model is exactly 0, however it rounds or routes.
    """
    model = causal_lm(lm.model)
    inputs: list[Tensor] = []

    def watch(module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
        inputs.append(embedded.detach().requires_grad_())
        return inputs[-1] * 1  # some architectures scale it in place

    hook = model.get_input_embeddings().register_forward_hook(watch)
    half = len(tokens) // 2
    trained = list(lm.trainable.values())
    try:
        for parameter in trained:  # whose own gradients are not wanted
            parameter.requires_grad_(False)
        with torch.enable_grad():
            packed = pack(replace(lm, packs=None), [[tokens]])
            past = run_decoder(model, packed).last_hidden_state[0, :half].float()
            # Any other than equal weights: the sum of a normalised state is constant.
            weights = torch.linspace(1, 2, past.numel()).view(past.shape).to(past)
            (gradient,) = torch.autograd.grad((past * weights).sum(), inputs[-1])
            by_token = gradient.reshape(len(tokens), -1).float()  # XLNet's is (T, B, D)
    except Exception as error:  # whatever a foreign model does
        raise ModelError(
            f"model {lm.name!r}",
            expected="states through which a gradient reaches the token embeddings",
            found=in_a_line(error, named=True),
            do="It cannot be trained here: use another architecture.",
        ) from error
    finally:
        hook.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
    of_earlier, of_later = float(by_token[:half].norm()), float(by_token[half:].norm())
    if not math.isfinite(of_earlier + of_later):
        raise ModelError(
            f"model {lm.name!r}",
            expected="a gradient of finite numbers",
            found="not-a-number or infinity",
            do="Its weights are broken: check them, and the dtype.",
        )
    if of_later != 0:
        raise ModelError(
            f"model {lm.name!r}",
            expected="a causal model, whose states of earlier tokens no later token moves",
            found=f"a gradient of {of_later:.2g} for later tokens, beside {of_earlier:.2g} for "
            "earlier ones",
            do="Use a causal language model: one that sees the whole text cannot be scored so.",
        )


@dataclass(frozen=True)
class _Trial:
    """Families of sequences, and the states (tokens, D) that the model gives each of them alone."""

    families: list[list[list[int]]]
    alone: list[Tensor]

    @property
    def longest(self) -> int:
        return max(map(len, self.alone))


def trial_of(lm: LM, tokens: list[int]) -> _Trial:
    """Make a family that shares a prompt, and a shorter one, of these tokens."""
    n_prompt = max(1, len(tokens) // 4)
    prompt, branch = tokens[:n_prompt], tokens[n_prompt:]
    families = [[prompt + branch, prompt + branch[:2:-1]], [tokens[3:7] or tokens[1:]]]
    single = replace(lm, packs=None)
    sequences = [own for family in families for own in family]
    return _Trial(families, [_states(lm, pack(single, [[own]]))[0] for own in sequences])


def check_padding(lm: LM, trial: _Trial) -> None:
    """Refuse a model that gives a sequence other states in a padded batch than alone."""
    together = _states(lm, pack(replace(lm, packs=None), trial.families))
    apart = furthest(together, trial.alone)
    if not apart <= same_states(lm.model):
        raise ModelError(
            f"model {lm.name!r}",
            expected="the states that it gives a sequence alone, in a batch too",
            found=f"others, by {apart:.2g} of their norm, in a batch padded on the right",
            do="Its numbers would depend on what else is scored: use another architecture.",
        )


def packing_way(lm: LM, trial: _Trial) -> str | None:
    """Choose how sequences are packed; warn where the model allows none of the faster ways."""
    # Attention by tree is faster on a CPU only; everything can be packed by mask that can by tree.
    ways = packing.WAYS if lm.device.type == "cpu" else ("mask",)
    reasons = []
    for way in ways:
        reason = _why_not_packed(lm, way, trial)
        if not reason:
            break
        reasons.append(f"{way}: {reason}")
    found = way if len(reasons) < len(ways) else None
    if reasons:
        instead = "with a mask" if found else "each sequence in a row of its own"
        warnings.warn(
            f"model {lm.name!r} is computed {instead}, which is slower and as right "
            f"({'; '.join(reasons)})",
            stacklevel=4,
        )
    return found


@torch.inference_mode()
def _why_not_packed(lm: LM, way: str, trial: _Trial) -> str:
    """Say why packed sequences do not get the states that they get alone; "" where they do.

    Not so where a model takes no mask or no positions (recurrent layers, or positions in the
    attention), or where its attention cannot be replaced. Such a model is left as it was.
    """
    if trial.longest < 8 or lm.window < trial.longest:
        return f"its layers see {min(lm.window, trial.longest)} tokens at a time"
    model = causal_lm(lm.model)
    attention = model.config._attn_implementation
    if way == "tree" and attention not in ("sdpa", packing.TREE_ATTENTION):
        return f"its attention is {attention!r}"
    layout = pack(replace(lm, packs=way), trial.families)
    if layout.trees is None and layout.mask is None:
        return f"its rows have {lm.longest_row} tokens"
    if layout.trees is not None:
        without_mask = replace(layout, trees=tuple((n, None) for n, _ in layout.trees))
    else:
        without_mask = replace(layout, mask=torch.zeros_like(layout.mask))  # type: ignore[arg-type]
    moved = replace(layout, position_ids=2 * layout.position_ids % trial.longest)
    try:
        if way == "tree":
            model.set_attn_implementation(packing.TREE_ATTENTION)
        right, *wrong = (
            furthest(_states(lm, x), trial.alone) for x in (layout, without_mask, moved)
        )
        # With random weights, wrong positions or masks may change next to nothing, and yet matter
        # once the model is trained: the right ones have to be nearer by far.
        if right <= same_states(lm.model) and all(2 * right < w for w in wrong):
            return ""
        reason = f"states {right:.2g} of their norm apart, and {min(wrong):.2g} in a wrong layout"
    except Exception as error:  # whatever a foreign model does with a layout
        reason = in_a_line(error, named=True, most=200)
    if model.config._attn_implementation != attention:
        model.set_attn_implementation(attention)
    return reason
