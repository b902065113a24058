"""Causal language models: loading, tuning, and the log-likelihood of a response.

Shapes: B rows, T tokens, R response tokens of all rows, D hidden size, V vocabulary.

The one function that everything else calls is `response_log_likelihoods`. Only the R positions
that predict a response token meet the vocabulary (see likelihood): with Gemma's 262 144 tokens,
logits at every position would cost more than the rest of the model.

A model is used in ways that its own authors may not have tried: several sequences in a row, padded
rows, an output layer without the rest. `load` compares each of these ways with the plainest one, a
sequence alone through the model's own forward, and refuses or avoids what differs.
"""

from __future__ import annotations

import copy
import json
import math
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
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file, find_adapter_config_file
from transformers.utils import logging as transformers_logging

from forgetlib import assets, catalogue, kernels, likelihood, packing, parallel, tasks
from forgetlib.packing import Packed
from forgetlib.schema import (
    DTYPES,
    TUNINGS,
    Example,
    ForgetlibError,
    InputError,
    nearest,
    require_one_of,
)
from forgetlib.store import writing

LORA_RANK = 16
RECOMPUTED_SIZE = 10**9  # parameters of a model whose activations are rather computed again
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
TINY_WIDTHS = {"tiny": 64, "tiny-wide": 96}


class ModelError(ForgetlibError, RuntimeError):
    """A model could not be loaded, or does not do what a causal language model does."""


class UnusableNumbers(ForgetlibError, RuntimeError):
    """What a model computed of some examples cannot be used; of others it may."""


@dataclass
class LM:
    """A model in memory, with what is needed to use it.

    output: how its logits come about
    max_length: the longest sequence in tokens, prompt and response together
    window: the longest sequence of which every layer sees the whole
    unscaled: the longest sequence that is computed alike whatever the length of its pass; what is
        longer shares a pass with sequences of its own length only
    longest_row: the most tokens that can stand in a row, packed
    packs: how several sequences can stand in one row, a packing way; None: they cannot
    kernels: the classes of its parts that are computed by our own kernels
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
    """Load a causal language model, ready to be scored and fine-tuned.

    Where `accelerate launch` or `torchrun` started several processes, it is spread over them.

    name: an embedded model ("gemma-3-270m", or "embedded", and others; see catalogue), "tiny" or
        "tiny-wide" (two random layers for the synthetic tasks), the path of a folder in the Hugging
        Face layout, or a hub id. The last two may hold an adapter (peft) instead of a model: it is
        merged into the model that it names
    tuning: what fine-tuning changes. "body": all but the token embeddings and the output layer,
        which many models share; "full": everything; "lora": low-rank updates of every linear layer
        of the body (peft)
    dtype: of the weights and activations. Training keeps fp32 master weights either way.
    recompute: whether training keeps the input of each layer only and computes the rest again
        (gradient checkpointing): a third more work, half with low-rank tuning, and the same
        gradients. None: for models of over a billion parameters

    Raises ModelError for what cannot be loaded, has nothing to train, is not causal, or gives other
    numbers in a batch than alone. Warns where a slower way has to be taken.
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
    replaced = tuple(kernels.install(model))
    tuned = _tuned(name, model, tuning)
    _check_end(name, tokenizer)
    with _as_model_error(name):
        max_length, window = _lengths(model)
        tokens = _ordinary_tokens(tokenizer, model, min(N_ORDINARY, max_length))
        output = _output_layer(name, model, tokens[:, :N_OUTPUT].to(chosen))
        lm = LM(name, tuned, tokenizer, chosen, output, max_length, window, kernels=replaced)
        lm.unscaled, lm.longest_row = _unscaled(model), _longest_row(model, max_length)
        _check_causal(lm, tokens.tolist()[0])
        trial = _trial(lm, tokens.tolist()[0][: lm.unscaled])
        _check_padding(lm, trial)
        lm.packs = _packing_way(lm, trial)
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
        before = _states_alone(_causal_lm(lm.model), lm.tokenizer)
        model = copy.deepcopy(model).merge_and_unload()
        apart = _furthest([_states_alone(model, lm.tokenizer)], [before])
        if not apart <= _same_states(model):
            raise ModelError(
                f"saving {lm.name!r}",
                expected="merged weights that compute what low-rank updates beside them do",
                found=f"states {apart:.2g} of their norm apart",
                do="Choose tuning 'body' or 'full' for this architecture.",
            )
    with writing(folder), disk_errors(), _no_bars():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial:
            complete = Path(partial) / "model"
            model.save_pretrained(complete)
            lm.tokenizer.save_pretrained(complete)
            complete.rename(folder)
    return folder


@torch.inference_mode()
def _states_alone(model: Any, tokenizer: Any) -> Tensor:
    """Compute the last hidden states (1, tokens, D), fp32, of an ordinary text alone in a pass.

    Those of merged weights tell whether low-rank updates beside them did the same: not where layers
    share a matrix, or where a layer's weights are used without calling it.
    """
    tokens = _ordinary_tokens(tokenizer, model, min(N_ORDINARY, _lengths(model)[0]))
    tokens = tokens.to(model.get_input_embeddings().weight.device)
    return _decoder(model)(input_ids=tokens, use_cache=False).last_hidden_state.float()


def _pretrained(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    source = source_of(name)
    try:
        with _no_bars():
            if adapter := find_adapter_config_file(source):
                return _adapted(source, Path(adapter).parent, dtype)
            tokenizer = _tokenizer(source)  # first, as it is there in a moment or not at all
            return _whole_model(source, dtype), tokenizer
    except Exception as error:  # of any kind, as the files of a model can be damaged in any way
        known = [*catalogue.names(), *TINY_WIDTHS]
        near = nearest(name, known)
        do = f"Did you mean {near!r}? " if near else ""
        do += "Check the name; without a network give the path of a folder."
        if isinstance(error.__cause__, GatedRepoError):
            do = f"Accept its terms on https://huggingface.co/{name}, and log in: `hf auth login`."
        raise ModelError(
            f"model {name!r}",
            expected=f"{', '.join(known)}, a folder or a hub id of a causal LM with safetensors",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            do=do,
        ) from error


def source_of(name: str) -> str:
    """Tell from where transformers loads a model; an embedded one is made at the first call."""
    embedded = catalogue.find(name)
    return name if embedded is None else str(assets.model_dir(embedded, convert_gguf))


def _tokenizer(source: str) -> Any:
    return AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def _whole_model(source: str, dtype: torch.dtype) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=False,
    )
    model, read = loaded
    if missing := sorted(read["missing_keys"]):  # they would be random numbers
        raise ValueError(f"{len(missing)} weights missing, as {', '.join(missing[:3])}")
    if getattr(model.config, "rescale_every", 0):
        # RWKV halves the weights of later layers in place, against overflow in fp16, and would
        # save them so. Without that it computes the same.
        model.config.rescale_every = 0
    return model


def _adapted(source: str, folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load an adapter's model, with the adapter merged into its weights, and the tokenizer.

    transformers would put the adapter's layers beside the model's own, where low-rank tuning cannot
    tell them from its own, and saving would write them alone.
    """
    from peft import PeftConfig, PeftModel

    def has(name: str) -> bool:  # of the hub too, where only the adapter's settings are here yet
        return cached_file(source, name, _raise_exceptions_for_missing_entries=False) is not None

    if not has("adapter_model.safetensors"):
        raise ValueError("an adapter without adapter_model.safetensors")
    with tempfile.TemporaryDirectory() as alone:
        base = PeftConfig.from_pretrained(source).base_model_name_or_path
        if (folder / "config.json").exists():  # the model is in the same folder
            base = alone
            for file in folder.iterdir():
                if not file.name.startswith("adapter_"):
                    (Path(alone) / file.name).symlink_to(file.resolve())
        if not base:
            raise ValueError("an adapter that does not name its model (base_model_name_or_path)")
        own_tokenizer = has("tokenizer.json") or has("tokenizer_config.json")
        if inner := find_adapter_config_file(base):  # an adapter of an adapter
            model, tokenizer = _adapted(base, Path(inner).parent, dtype)
        else:
            model = _whole_model(base, dtype)
            tokenizer = None if own_tokenizer else _tokenizer(base)
        if own_tokenizer:
            tokenizer = _tokenizer(source)
        with warnings.catch_warnings():  # it would be loaded without them
            warnings.filterwarnings("error", message="Found missing adapter keys")
            with _own_config(model):
                adapted: Any = PeftModel.from_pretrained(model, source)
    kind = adapted.peft_config["default"].peft_type
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise ValueError(f"an adapter of type {kind.value}, which cannot be merged into weights")
    before = _states_alone(model, tokenizer)  # whose layers have the adapter beside them
    model = adapted.merge_and_unload(safe_merge=True)
    apart = _furthest([_states_alone(model, tokenizer)], [before])
    if not apart <= _same_states(model):
        raise ValueError(
            f"an adapter that computes otherwise once it is merged: states {apart:.2g} of their "
            "norm apart"
        )
    model.requires_grad_(True)  # peft has frozen it
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


def _tuned(name: str, model: Any, tuning: str) -> nn.Module:
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
        with _seeded(), _own_config(model):
            # In the model's dtype: the optimiser keeps fp32 masters of whatever is trained.
            return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise ModelError(
            f"model {name!r}",
            expected="linear layers, to which peft can add low-rank updates",
            found=" ".join(str(error).split())[:300],
            do="Choose tuning 'body' or 'full'.",
        ) from error


@contextmanager
def _own_config(model: Any) -> Iterator[None]:
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


@contextmanager
def disk_errors() -> Iterator[None]:
    """Make what safetensors says of a full disk the OSError that it is."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file fully, once, into bf16 safetensors in the Hugging Face layout."""
    with tqdm(total=3, desc="convert the model", unit="step") as bar:
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
        raise InputError(
            f"example {example.uid!r}",
            expected=f"token numbers below {known}, the vocabulary of {lm.name}",
            found=f"{largest}, {lm.tokenizer.convert_ids_to_tokens(largest)!r}",
            do="The tokenizer is of another model, or has tokens that were never trained.",
        )
    return TokenSequence(tokens, len(continuation))


def pack(lm: LM, families: Sequence[Sequence[Sequence[int]]]) -> Packed:
    """Lay out families of token sequences as the model can take them (see packing)."""
    lengths = [len(tokens) for family in families for tokens in family]
    fits = max(lengths) <= min(lm.window, lm.unscaled) and sum(lengths) <= lm.longest_row
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
    indices = torch.tensor(where, dtype=torch.long).T.contiguous().to(lm.device)
    rows, predicting, targets, owners = indices.unbind(0)
    return Batch(packed, rows, predicting, targets, owners, len(sequences))


def units(lm: LM, families: Sequence[Sequence[int]]) -> list[list[int]]:
    """Group sequences into those that have to be in one pass, so that they share what they can.

    Mostly a family each. Where positions are scaled by the longest sequence of a pass, those of a
    family that are long and differ are apart.

    families: the lengths of each family's sequences, as they are fed to the model
    Returns the numbers of each unit's sequences, counted over all families.
    """
    found: list[list[int]] = []
    first = 0
    for lengths in families:
        own = list(range(first, first + len(lengths)))
        together = max(lengths) <= lm.unscaled or len(set(lengths)) == 1
        found += [own] if together else [[i] for i in own]
        first += len(lengths)
    return found


def passes(
    lm: LM, lengths: Sequence[Sequence[int]], budget: int, *, spread: bool = True
) -> list[tuple[list[int], bool]]:
    """Split units into forward passes, the longest first, that fit a budget of tokens.

    So a batch has little padding, and running out of memory happens at once.

    lengths: those of each unit's sequences, as they are fed to the model
    spread: whether the passes are dealt out to the processes that share the model
    Returns this process's passes, each as the units in it and whether they count (see
    `parallel.dealt`).
    """
    sizes = [max(unit) * len(unit) for unit in lengths]
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


# --- likelihoods ---------------------------------------------------------------------------------


def response_log_likelihoods(lm: LM, batch: Batch) -> Tensor:
    """Compute the log-likelihood (n_sequences,) of every response given its prompt, in nats, fp32.

    Differentiable in the model's trainable parameters.
    """
    hidden = _run_decoder(_causal_lm(lm.model), batch.packed).last_hidden_state
    picked = hidden[batch.rows, batch.columns]  # (R, D)
    token_log_probs = lm.output.log_probs(picked, batch.targets)  # (R,)
    total = torch.zeros(batch.n_sequences, dtype=torch.float32, device=picked.device)
    return total.index_add(0, batch.owners, token_log_probs)


def layer_outputs(lm: LM, packed: Packed, places: Sequence[tuple[int, int]]) -> Tensor:
    """Compute the hidden states (L + 1, R, D) of packed sequences at R places: rows and columns.

    0 is the token embeddings, l the output of block l; the last has passed the final norm.
    """
    outputs = _run_decoder(_causal_lm(lm.model), packed, output_hidden_states=True)
    rows, columns = torch.tensor(places, device=lm.device).unbind(1)
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
    """Find the part of a causal LM that gives the output layer its hidden states."""
    base = getattr(model, model.base_model_prefix, None)
    if base is None:
        base = next(part for part in model.children() if isinstance(part, PreTrainedModel))
    decoder = getattr(base, "decoder", None)  # of an architecture that also has an encoder
    return decoder if isinstance(decoder, nn.Module) else base


# --- checks at load ------------------------------------------------------------------------------


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


def _lengths(model: Any) -> tuple[int, int]:
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


def _unscaled(model: Any) -> int:
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


def _longest_row(model: Any, max_length: int) -> int:
    """Find how many tokens can stand in a row: where a buffer is as long as a sequence, as many."""
    fixed = any(max_length in buffer.shape for buffer in model.buffers())
    return max_length if fixed else sys.maxsize


@contextmanager
def _as_model_error(name: str) -> Iterator[None]:
    """Turn whatever a foreign model raises when it is tried into a ModelError."""
    try:
        yield
    except ForgetlibError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {name!r}",
            expected="a causal language model that can be tried on a few tokens",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            do="It may need another version of transformers, or is none: report the architecture.",
        ) from error


def _ordinary_tokens(tokenizer: Any, model: Any, n: int) -> Tensor:
    """(1, n) different tokens of an ordinary text, for the checks.

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


def _output_layer(name: str, model: Any, tokens: Tensor) -> likelihood.OutputLayer:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return likelihood.find(model, _decoder(model), tokens)
    except Exception as error:  # whatever a foreign model does with it
        raise ModelError(
            f"model {name!r}",
            expected="finite logits, which its output layer computes from its last hidden states",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            do="Its weights are broken, or it is no causal language model that forgetlib knows: "
            "report the architecture.",
        ) from error


@torch.inference_mode()
def _states(lm: LM, packed: Packed) -> list[Tensor]:
    """Compute the last hidden states (tokens, D), fp32, of each packed sequence."""
    hidden = _run_decoder(_causal_lm(lm.model), packed).last_hidden_state.float()
    return [hidden[row, list(columns)] for row, columns in packed.places]


def _furthest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Compute the largest distance of states from those expected, as a share of their norm."""
    pairs = zip(found, expected, strict=True)
    # By torch, whose largest is not a number where one of them is none.
    return float(torch.stack([(f - e).norm() / e.norm().clamp_min(1e-12) for f, e in pairs]).max())


def _same_states(model: Any) -> float:
    """Give the largest distance that rounding may make, as a share of the states' norm."""
    config = _causal_lm(model).config.get_text_config()
    depth = int(getattr(config, "num_hidden_layers", USUAL_DEPTH) or USUAL_DEPTH)
    exact = next(model.parameters()).dtype == torch.float32
    return SAME_STATES[exact] * max(1.0, math.sqrt(depth / USUAL_DEPTH))


def _check_causal(lm: LM, tokens: list[int]) -> None:
    """Refuse a model whose states of earlier tokens depend on later ones.

    It would see the answer before it predicts it, and with padding its numbers would change. The
    gradient tells: that of a causal model is exactly 0, however it rounds or routes.
    """
    model = _causal_lm(lm.model)
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
            past = _run_decoder(model, packed).last_hidden_state[0, :half].float()
            # Any other than equal weights: the sum of a normalised state is constant.
            weights = torch.linspace(1, 2, past.numel()).view(past.shape).to(past)
            (gradient,) = torch.autograd.grad((past * weights).sum(), inputs[-1])
            by_token = gradient.reshape(len(tokens), -1).float()  # XLNet's is (T, B, D)
    except Exception as error:  # whatever a foreign model does
        raise ModelError(
            f"model {lm.name!r}",
            expected="states through which a gradient reaches the token embeddings",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
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


def _trial(lm: LM, tokens: list[int]) -> _Trial:
    """Make a family that shares a prompt, and a shorter one, of these tokens."""
    n_prompt = max(1, len(tokens) // 4)
    prompt, branch = tokens[:n_prompt], tokens[n_prompt:]
    families = [[prompt + branch, prompt + branch[:2:-1]], [tokens[3:7] or tokens[1:]]]
    single = replace(lm, packs=None)
    sequences = [own for family in families for own in family]
    return _Trial(families, [_states(lm, pack(single, [[own]]))[0] for own in sequences])


def _check_padding(lm: LM, trial: _Trial) -> None:
    """Refuse a model that gives a sequence other states in a padded batch than alone."""
    together = _states(lm, pack(replace(lm, packs=None), trial.families))
    apart = _furthest(together, trial.alone)
    if not apart <= _same_states(lm.model):
        raise ModelError(
            f"model {lm.name!r}",
            expected="the states that it gives a sequence alone, in a batch too",
            found=f"others, by {apart:.2g} of their norm, in a batch padded on the right",
            do="Its numbers would depend on what else is scored: use another architecture.",
        )


def _packing_way(lm: LM, trial: _Trial) -> str | None:
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
            stacklevel=3,
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
    model = _causal_lm(lm.model)
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
            _furthest(_states(lm, x), trial.alone) for x in (layout, without_mask, moved)
        )
        # With random weights, wrong positions or masks may change next to nothing, and yet matter
        # once the model is trained: the right ones have to be nearer by far.
        if right <= _same_states(lm.model) and all(2 * right < w for w in wrong):
            return ""
        reason = f"states {right:.2g} of their norm apart, and {min(wrong):.2g} in a wrong layout"
    except Exception as error:  # whatever a foreign model does with a layout
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if model.config._attn_implementation != attention:
        model.set_attn_implementation(attention)
    return reason


def vocabulary_size(lm: LM) -> int:
    return int(lm.output.layer.weight.shape[0])
