"""Causal language models: loading, tuning, and the log-likelihood of a response.

Shapes: B rows, T tokens, R response tokens of all rows, D hidden size, V vocabulary.

The one function that everything else calls is `response_log_likelihoods`. Only the R positions
that predict a response token meet the vocabulary, a chunk of them at a time: with Gemma's 262 144
tokens, logits at every position would cost more than the rest of the model.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from forgetlib import assets, kernels, packing, parallel, tasks
from forgetlib.packing import Packed
from forgetlib.schema import (
    DTYPES,
    TUNINGS,
    Example,
    ForgetlibError,
    InputError,
    require_one_of,
)
from forgetlib.store import writing

# Logits that exist at a time, and the fewest columns of them: they should stay in the cache, and
# products with few columns are slow. 1200 rows take 0.84 s in chunks of 2048 columns, 1.34 of 873.
LOGITS_CHUNK = 2**20
FEWEST_COLUMNS = 2048
ROW_CHUNK = 32  # rows of full logits at a time, where the output layer is trained too
LORA_RANK = 16
RECOMPUTED_SIZE = 10**9  # parameters of a model whose activations are rather computed again
# By whether the model is in fp32: how far its states of a sequence may be from those in another
# layout, as a share of their norm. In bf16 those of Gemma-3-270M are up to 0.027 apart, on a CPU
# whose products sum in another order for other sizes; with a wrong mask 0.23, with the last seven
# of 20 positions wrong 0.08. Log-likelihoods tell less: there, those of three unlikely tokens were
# 0.4 nats of 59 apart.
SAME_STATES = {True: 1e-3, False: 0.05}
TINY_WIDTHS = {"tiny": 64, "tiny-wide": 96}


class ModelError(ForgetlibError, RuntimeError):
    """A model could not be loaded, or does not do what a causal language model does."""


@dataclass
class LM:
    """A model in memory, with what is needed to use it.

    max_length: the longest sequence in tokens, prompt and response together
    window: the longest sequence of which every layer sees the whole
    packs: how several sequences can stand in one row, a packing way; None: they cannot
    kernels: the classes of its parts that are computed by our own kernels
    """

    name: str
    model: nn.Module
    tokenizer: Any
    device: torch.device
    max_length: int
    window: int = sys.maxsize
    packs: str | None = None
    kernels: tuple[str, ...] = ()
    _tokens: dict[str, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def tokens(self, text: str) -> list[int]:
        """Text as tokens, remembered: a study scores the same questions again and again."""
        if text not in self._tokens:
            self._tokens[text] = self.tokenizer(text).input_ids
        return self._tokens[text]

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that fine-tuning changes, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of the parameters that fine-tuning changes."""
        return {
            n: parallel.whole(p.detach()).to("cpu", copy=True).contiguous()
            for n, p in self.trainable.items()
        }

    @torch.no_grad()
    def set_weights(self, weights: dict[str, Tensor]) -> None:
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


# --- loading -------------------------------------------------------------------------------------


def pick_device() -> torch.device:
    """CUDA where there is one, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(
    name: str = "embedded",
    *,
    tuning: str = "body",
    dtype: str = "bfloat16",
    device: str | torch.device | None = None,
    recompute: bool | None = None,
) -> LM:
    """A causal language model, ready to be scored and fine-tuned.

    Where `accelerate launch` or `torchrun` started several processes, it is spread over them.

    name: "embedded" (Gemma-3-270M), "tiny" or "tiny-wide" (two random layers for the synthetic
        tasks), the path of a folder in the Hugging Face layout, or a hub id
    tuning: what fine-tuning changes. "body": all but the token embeddings; "full": everything;
        "lora": low-rank updates of every linear layer of the body (peft)
    dtype: of the weights and activations. Training keeps fp32 master weights either way.
    recompute: whether training keeps the input of each layer only and computes the rest again
        (gradient checkpointing): a third more work, half with low-rank tuning, and the same
        gradients. None: for models of over a billion parameters
    """
    require_one_of("tuning", tuning, TUNINGS)
    require_one_of("dtype", dtype, DTYPES)
    torch_dtype = getattr(torch, dtype)
    parallel.connect()  # what fails here is not the device
    try:
        chosen = parallel.own(pick_device() if device is None else torch.device(device))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # an unknown name; one that is not here
        raise InputError(
            "device",
            expected="one that PyTorch has here",
            found=f"{device!r} ({str(error).splitlines()[0]})",
            do="Write 'cpu', 'cuda' or 'mps', or leave it out.",
        ) from error
    if name in TINY_WIDTHS:
        model, tokenizer = _tiny(TINY_WIDTHS[name], torch_dtype)
    else:
        model, tokenizer = _pretrained(name, torch_dtype)
    model.to(chosen)
    # Dropout would draw from torch's global generator, and the models of the paper have next to
    # none: it stays off in training too, so that a run depends on its spec only.
    model.eval()
    config = model.config.get_text_config()
    lengths = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    # A model without positions (recurrent, or with relative ones) takes any length.
    max_length = next((int(n) for n in lengths if n), sys.maxsize)
    windows = ("sliding_window", "window_size", "attention_window_size")
    window = min((w for key in windows if (w := getattr(config, key, None))), default=max_length)
    replaced = tuple(kernels.install(model))
    tuned = _tuned(model, tuning)
    _check_end(name, tokenizer)
    _check_head(name, _causal_lm(tuned))
    lm = LM(name, tuned, tokenizer, chosen, max_length, window, kernels=replaced)
    # Attention by tree is faster on a CPU only; everything can be packed by mask that can by tree.
    ways = packing.WAYS if chosen.type == "cpu" else ("mask",)
    lm.packs = next((way for way in ways if _can_pack(lm, way)), None)
    n_parameters = sum(p.numel() for p in tuned.parameters())
    if n_parameters > RECOMPUTED_SIZE if recompute is None else recompute:
        for layer in parallel.layers(tuned):
            layer.forward = _recomputed(layer.forward)
    parallel.shard(tuned)
    return lm


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """transformers' own gradient checkpointing needs training mode, which turns dropout on too."""

    def wrapped(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(
            forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options
        )

    return wrapped


def save(lm: LM, folder: str | Path) -> Path:
    """Write a model as a folder in the Hugging Face layout, which `load` and other tools read.

        lm_eval --model hf --model_args pretrained=<folder> --tasks ...

    Low-rank updates are merged into the weights, in a copy of the model, and rounded to the dtype
    of these: in bf16 it scores a little otherwise. The folder appears complete or not at all.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(
            f"folder {str(folder)!r} for a model",
            expected="one that does not exist yet",
            found="one that does",
            do="Choose another name, or delete it.",
        )
    if parallel.size() > 1:
        raise InputError(
            "saving a model",
            expected="one process",
            found=f"{parallel.size()}, over which its weights are spread",
            do="Keep lm.weights(), and set them in a single process.",
        )
    model: Any = lm.model
    if hasattr(model, "merge_and_unload"):
        model = copy.deepcopy(model).merge_and_unload()
    with writing(folder), disk_errors(), _no_bars():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial:
            complete = Path(partial) / "model"
            model.save_pretrained(complete)
            lm.tokenizer.save_pretrained(complete)
            complete.rename(folder)
    return folder


def _pretrained(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    source = str(assets.model_dir(convert_gguf)) if name == "embedded" else name
    try:
        options: dict[str, Any] = {"trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        with _no_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
        model, read = loaded
        if missing := sorted(read["missing_keys"]):  # they would be random numbers
            raise ValueError(f"{len(missing)} weights missing, as {', '.join(missing[:3])}")
    except Exception as error:  # of any kind, as the files of a model can be damaged in any way
        do = "Check the name; without a network give the path of a folder."
        if isinstance(error.__cause__, GatedRepoError):
            do = f"Accept its terms on https://huggingface.co/{name}, and log in: `hf auth login`."
        raise ModelError(
            f"model {name!r}",
            expected="'embedded', 'tiny', a folder or a hub id of a causal LM with safetensors",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            do=do,
        ) from error
    return model, tokenizer


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' progress bars, which are of seconds."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


def _tiny(width: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """A two-layer Llama with random weights, the same at every call, and a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ("<unk>", "<s>", *tasks.SYNTHETIC_WORDS)
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
    with _seeded():
        model = LlamaForCausalLM(config)
    return nn.Module.to(model, dtype), tokenizer


@contextmanager
def _seeded() -> Iterator[None]:
    """Draw the same weights whatever was drawn before, and leave no trace.

    Weights are drawn on the CPU. torch.manual_seed would seed the GPUs' generators for good.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _tuned(model: Any, tuning: str) -> nn.Module:
    if tuning == "full":
        return model
    if tuning == "body":
        for part in (model.get_input_embeddings(), model.get_output_embeddings()):
            part.requires_grad_(False)
        return model
    from peft import LoraConfig, get_peft_model

    with _seeded():  # the initial update is zero; only its direction is drawn
        config = LoraConfig(
            r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear", lora_dropout=0.0
        )
        return get_peft_model(model, config)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Make what safetensors says of a full disk the OSError that it is."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file fully, once, into bf16 safetensors in the Hugging Face layout."""
    with tqdm(total=3, desc="convert the embedded model", unit="step") as bar:
        options: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
        tokenizer.save_pretrained(folder)
        # The file has the whole tokenizer. Its model's own class would build the tokenizer anew
        # from the vocabulary at every start: 3.1 s, against 1.4 s for reading it.
        settings = folder / "tokenizer_config.json"
        values = json.loads(settings.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings.write_text(json.dumps(values, indent=2))
        bar.update()
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            **options,
        )
        bar.update()
        with disk_errors():
            model.save_pretrained(folder)
        bar.update()


# --- tokens --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenSequence:
    """A prompt and a response as the model sees them.

    tokens: prompt and response
    n_response: how many tokens at the end are the response
    """

    tokens: tuple[int, ...]
    n_response: int


@dataclass(frozen=True)
class Batch:
    """Packed inputs, and where each response token is predicted.

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
    """Prompt and response as the lm-evaluation-harness splits them.

    Both are tokenised together, because a tokenizer may merge across the boundary; white space at
    the end of the prompt counts with the response. Raises InputError for what does not fit the
    model, rather than cutting it.
    """
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
        raise ModelError(
            f"example {example.uid!r}",
            expected=f"token numbers below {known}, the vocabulary of {lm.name}",
            found=f"{largest}, {lm.tokenizer.convert_ids_to_tokens(largest)!r}",
            do="The tokenizer is of another model, or has tokens that were never trained.",
        )
    return TokenSequence(tokens, len(continuation))


def pack(lm: LM, families: Sequence[Sequence[Sequence[int]]]) -> Packed:
    """Lay out families of token sequences as the model can take them (see packing)."""
    longest = max(len(tokens) for family in families for tokens in family)
    way = lm.packs if longest <= lm.window else None
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
    indices = torch.tensor(where, dtype=torch.long).T.contiguous().to(lm.device)
    rows, predicting, targets, owners = indices.unbind(0)
    return Batch(packed, rows, predicting, targets, owners, len(sequences))


def by_token_budget(
    lengths: Sequence[int], order: Sequence[int], budget: int, *, padded: bool = False
) -> Iterator[list[int]]:
    """Consecutive groups of `order` whose tokens, padded to the longest or not, fit the budget."""
    group: list[int] = []
    for index in order:
        of_group = [lengths[i] for i in (*group, index)]
        size = max(of_group) * len(of_group) if padded else sum(of_group)
        if group and size > budget:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def pads(lm: LM, lengths: Sequence[int]) -> bool:
    """Whether `pack` may give each sequence a row, padded to the longest."""
    return lm.packs is None or max(lengths) > lm.window


# --- likelihoods ---------------------------------------------------------------------------------


def response_log_likelihoods(lm: LM, batch: Batch) -> Tensor:
    """(n_sequences,) log-likelihood of every response given its prompt, in nats, fp32.

    Differentiable in the model's trainable parameters.
    """
    model = _causal_lm(lm.model)
    hidden = _run_decoder(model, batch.packed).last_hidden_state
    picked = hidden[batch.rows, batch.columns]  # (R, D)
    token_log_probs = _token_log_probs(model, picked, batch.targets)  # (R,)
    total = torch.zeros(batch.n_sequences, dtype=torch.float32, device=picked.device)
    return total.index_add(0, batch.owners, token_log_probs)


def layer_outputs(lm: LM, packed: Packed, places: Sequence[tuple[int, int]]) -> Tensor:
    """(L + 1, R, D) hidden states of packed sequences at R places, each a row and a column.

    0 is the token embeddings, l the output of block l; the last has passed the final norm.
    """
    outputs = _run_decoder(_causal_lm(lm.model), packed, output_hidden_states=True)
    rows, columns = torch.tensor(places, device=lm.device).unbind(1)
    return torch.stack([states[rows, columns] for states in outputs.hidden_states])


def _run_decoder(model: Any, packed: Packed, **options: Any) -> Any:
    mask: Any = packed.mask
    if packed.trees is not None:
        options["trees"] = packed.trees
        mask = packed.input_ids.new_zeros(1, 1, 1, 1)  # made, so that transformers makes none
    if mask is not None:
        if getattr(model.config.get_text_config(), "layer_types", None):
            # One for each kind of layer. No sequence here is longer than the sliding window.
            mask = {"full_attention": mask, "sliding_attention": mask}
        options |= {"attention_mask": mask, "position_ids": packed.position_ids}
    return _decoder(model)(input_ids=packed.input_ids, use_cache=False, **options)


def _causal_lm(model: Any) -> Any:
    """The causal LM itself where peft has wrapped it; its adapters live in its layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _decoder(model: Any) -> nn.Module:
    return getattr(model, model.base_model_prefix)


def _token_log_probs(model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """(R,) log-probability of each target after its hidden state (R, D), fp32."""
    head = model.get_output_embeddings()
    softcap = getattr(model.config, "final_logit_softcapping", None) or 0.0
    if not any(p.requires_grad for p in head.parameters()):
        return _FrozenHead.apply(hidden, head.weight, head.bias, softcap, targets)

    def log_probs(h: Tensor, t: Tensor) -> Tensor:
        logits = kernels.linear(head, h).float()
        if softcap:
            logits = torch.tanh(logits / softcap) * softcap
        return -F.cross_entropy(logits, t, reduction="none")

    # The head is trained too, so that its own gradient is needed. A chunk's logits are computed
    # again in the backward pass rather than kept.
    pieces = zip(hidden.split(ROW_CHUNK), targets.split(ROW_CHUNK), strict=True)
    return torch.cat([checkpoint(log_probs, h, t, use_reentrant=False) for h, t in pieces])


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities under a frozen output layer W, and their gradient, in one pass over W.

    log p(target) = l[target] - logsumexp(l) with l = W h, and its gradient for h is one vector,
    W[target] - softmax(l) W. That is attention of the query h over keys and values W, so it is
    computed as flash attention does: a chunk of the vocabulary at a time, with a running maximum,
    normaliser and weighted sum. W is read once, and no (R, V) tensor ever exists. On 2 CPU cores
    256 rows of Gemma's vocabulary take 0.20 s; row by row chunks of full logits took 0.55 s.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        softcap: float,
        targets: Tensor,
    ) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        peak = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
        norm = torch.zeros_like(peak)
        mean = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        n_columns = max(FEWEST_COLUMNS, LOGITS_CHUNK // len(hidden))
        plain = not softcap and bias is None
        in_kernel = plain and kernels.usable(hidden, weight) and kernels.library()
        for start in range(0, len(weight), n_columns):
            part = slice(start, start + n_columns)
            if in_kernel:
                logits = kernels.product(hidden, weight[part].t())
                shrink = kernels.softmax_chunk(logits, peak, norm)
                if needs_gradient:
                    mean = mean.mul_(shrink).add_(kernels.product(logits, weight[part]))
                continue
            h, w, b = hidden, weight[part], None if bias is None else bias[part]
            if kernels.usable(h, w) and kernels.widens():
                h, w, b = h.float(), w.float(), None if b is None else b.float()
            logits = F.linear(h, w, b).float()
            if softcap:
                logits = torch.tanh(logits.div_(softcap)).mul_(softcap)
            new_peak = torch.maximum(peak, logits.amax(1, keepdim=True))
            shrink = (peak - new_peak).exp()
            slope = 1 - (logits / softcap) ** 2 if softcap and needs_gradient else None
            p = logits.sub_(new_peak).exp_()  # (R, chunk)
            norm = norm * shrink + p.sum(1, keepdim=True)
            if needs_gradient:
                p = p if slope is None else p.mul_(slope)
                mean = mean.mul_(shrink).add_(p.to(w.dtype) @ w)
            peak = new_peak
        towards = weight[targets].float()  # (R, D)
        at_target = (hidden.float() * towards).sum(1)
        if bias is not None:
            at_target = at_target + bias[targets].float()
        if softcap:
            at_target = torch.tanh(at_target / softcap) * softcap
            towards = towards * (1 - (at_target[:, None] / softcap) ** 2)
        if needs_gradient:
            ctx.save_for_backward((towards - mean / norm).to(hidden.dtype))
        return at_target - (peak + norm.log()).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0][:, None].to(gradient.dtype), None, None, None, None


def _check_end(name: str, tokenizer: Any) -> None:
    """That a text's last token is its own: a response is scored as the last tokens of a text."""
    text = "a"
    own, given = tokenizer(text, add_special_tokens=False).input_ids, tokenizer(text).input_ids
    if given[len(given) - len(own) :] != own:
        raise ModelError(
            f"model {name!r}",
            expected="a tokenizer that adds nothing after a text",
            found=f"one that ends every text with {tokenizer.convert_ids_to_tokens(given[-1])!r}",
            do="Save the tokenizer without that, as with add_eos_token=False.",
        )


@torch.inference_mode()
def _check_head(name: str, model: Any) -> None:
    """Compare our way to the logits with the model's own, on a few tokens.

    Some architectures scale, cap or shift their logits after the output layer. One that does so
    in a way that `_token_log_probs` does not know must not give numbers that look right.
    """
    tokens = torch.arange(4, 9, device=next(model.parameters()).device)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
        theirs = -F.cross_entropy(logits, tokens[0, 1:], reduction="none")
        hidden = _decoder(model)(input_ids=tokens, use_cache=False).last_hidden_state
    ours = _token_log_probs(model, hidden[0, :-1], tokens[0, 1:])
    if not torch.isfinite(theirs).all() or not torch.allclose(ours, theirs, rtol=0.01, atol=0.05):
        raise ModelError(
            f"model {name!r}",
            expected="finite log-probabilities, equal on both ways to compute them",
            found=f"{theirs.tolist()} and {ours.tolist()}",
            do="Its weights are broken, or its output layer does something that forgetlib does "
            "not know: report the architecture.",
        )


@torch.inference_mode()
def _can_pack(lm: LM, way: str) -> bool:
    """Whether the model gives packed sequences the hidden states that it gives them alone.

    Not so where it takes no mask or no positions (recurrent layers, or positions in the attention),
    or where its attention cannot be replaced. A model that cannot is left as it was.
    """
    prompt, words = [5, 3, 9, 6, 2], [7, 4, 8]
    families = [[prompt + 5 * words, prompt + words[::-1]], [[9, 3, 5, 6]]]
    model = _causal_lm(lm.model)
    if way == "tree" and model.config._attn_implementation not in ("sdpa", packing.TREE_ATTENTION):
        return False

    def states(packed: Packed) -> list[Tensor]:
        """Of each sequence, (tokens, D)."""
        hidden = _run_decoder(model, packed).last_hidden_state.float()
        return [hidden[row, list(columns)] for row, columns in packed.places]

    single = replace(lm, packs=None)
    alone = [states(pack(single, [[tokens]]))[0] for family in families for tokens in family]
    attention = model.config._attn_implementation
    layout = pack(replace(lm, packs=way), families)
    if layout.trees is not None:
        without_mask = replace(layout, trees=tuple((n, None) for n, _ in layout.trees))
    elif layout.mask is not None:
        without_mask = replace(layout, mask=torch.zeros_like(layout.mask))
    else:  # longer than the model's window
        return False
    moved = replace(layout, position_ids=2 * layout.position_ids)
    exact = next(lm.model.parameters()).dtype == torch.float32
    can = False
    try:
        if way == "tree":
            model.set_attn_implementation(packing.TREE_ATTENTION)
        right, *wrong = (
            torch.stack([(t - a).norm() / a.norm() for t, a in zip(states(x), alone, strict=True)])
            .max()
            .item()
            for x in (layout, without_mask, moved)
        )
        # With random weights, wrong positions or masks may change next to nothing, and yet matter
        # once the model is trained: the right ones have to be nearer by far.
        can = right <= SAME_STATES[exact] and 2 * right < min(wrong)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, IndexError):
        pass
    if not can and model.config._attn_implementation != attention:
        model.set_attn_implementation(attention)
    return can


def vocabulary_size(lm: LM) -> int:
    return int(_causal_lm(lm.model).get_output_embeddings().weight.shape[0])
