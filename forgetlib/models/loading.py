"""Load a causal language model, ready to be scored and fine-tuned; save it."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import (
    cached_file,
    find_adapter_config_file,
    logging as transformers_logging,
)

from forgetlib.data import assets, room
from forgetlib.engine import kernels, parallel
from forgetlib.engine.device import free_memory, gpu_share
from forgetlib.errors import InputError, ModelError, in_a_line, nearest, require_one_of
from forgetlib.files import writing
from forgetlib.models import catalogue, memory
from forgetlib.models.catalogue import DTYPES, TUNINGS
from forgetlib.models.checks import (
    N_ORDINARY,
    N_OUTPUT,
    check_causal,
    check_end,
    check_padding,
    furthest,
    lengths,
    longest_row,
    ordinary_tokens,
    output_layer,
    packing_way,
    same_states,
    states_alone,
    trial_of,
    unscaled,
)
from forgetlib.models.convert import convert_gguf, disk_errors
from forgetlib.models.lm import LM, as_model_error, blocks, causal_lm
from forgetlib.models.synthetic import TINY_WIDTHS, tiny
from forgetlib.models.tuning import own_config, tuning_of


def pick_device() -> torch.device:
    """Pick CUDA where there is one, else MPS, else the CPU."""
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
        gradients. None: on a GPU where its memory is too small otherwise, elsewhere for models of
        over a billion parameters

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
        model, tokenizer = tiny(TINY_WIDTHS[name], torch_dtype)
    else:
        model, tokenizer = _pretrained(name, torch_dtype)
    return prepare(name, model, tokenizer, chosen, tuning=tuning, recompute=recompute)


def prepare(
    name: str,
    model: Any,
    tokenizer: Any,
    device: torch.device,
    *,
    tuning: str = "body",
    recompute: bool | None = None,
) -> LM:
    """Make a causal language model that is in memory ready to be scored and fine-tuned.

    It is changed, and moved to the device. Raises and warns as `load`, whose settings these are.

    name: what errors and warnings call it
    """
    if device.type == "cuda" and (share := gpu_share()) < 1:
        torch.cuda.set_per_process_memory_fraction(share, device.index)
    model.to(device)
    # Dropout would draw from torch's global generator, and the models of the paper have next to
    # none: it stays off in training too, so that a run depends on its spec only.
    model.eval()
    replaced = set(kernels.install(model))
    tuned = tuning_of(name, model, tuning)
    if tuned is not model:
        replaced.update(kernels.install(tuned))  # what the tuning has added
    check_end(name, tokenizer)
    with as_model_error(name):
        max_length, window = lengths(model)
        tokens = ordinary_tokens(tokenizer, model, min(N_ORDINARY, max_length))
        output = output_layer(name, model, tokens[:, :N_OUTPUT].to(device))
        lm = LM(
            name,
            tuned,
            tokenizer,
            device,
            output,
            max_length,
            window,
            kernels=tuple(sorted(replaced)),
        )
        lm.unscaled, lm.longest_row = unscaled(model), longest_row(model, max_length)
        check_causal(lm, tokens.tolist()[0])
        trial = trial_of(lm, tokens.tolist()[0][: lm.unscaled])
        check_padding(lm, trial)
        lm.packs = packing_way(lm, trial)
    passes = _passes(lm, recompute)
    lm.backward_tokens = passes.tokens
    if passes.recompute:
        for layer in parallel.layers(tuned):
            layer.forward = _recomputed(layer.forward)
    parallel.shard(tuned)
    return lm


def _passes(lm: LM, recompute: bool | None) -> memory.Passes:
    """Choose the length of backward passes by the device's memory, less the training's state."""
    embeddings = causal_lm(lm.model).get_input_embeddings().weight
    room = None
    if lm.device.type == "cuda":
        n_trained = sum(p.numel() for p in lm.trainable.values()) // parallel.size()
        room = memory.left(free_memory(lm.device), n_trained, embeddings.itemsize)
        room = parallel.smallest(room)  # as all make the same passes
    return memory.passes(
        lm.device.type,
        sum(p.numel() for p in lm.model.parameters()),
        len(blocks(lm)),
        embeddings.shape[1],
        embeddings.itemsize,
        room=room,
        recompute=recompute,
    )


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
        before = states_alone(causal_lm(lm.model), lm.tokenizer)
        model = copy.deepcopy(model).merge_and_unload()
        apart = furthest([states_alone(model, lm.tokenizer)], [before])
        if not apart <= same_states(model):
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


def _pretrained(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    source = source_of(name)
    if catalogue.find(name) is not None:  # else its size is not known before it is read
        weights = sum(file.stat().st_size for file in Path(source).glob("*.safetensors"))
        room.require_memory(f"loading {name}", weights)
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
            found=in_a_line(error, named=True),
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
            with own_config(model):
                adapted: Any = PeftModel.from_pretrained(model, source)
    kind = adapted.peft_config["default"].peft_type
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise ValueError(f"an adapter of type {kind.value}, which cannot be merged into weights")
    before = states_alone(model, tokenizer)  # whose layers have the adapter beside them
    model = adapted.merge_and_unload(safe_merge=True)
    apart = furthest([states_alone(model, tokenizer)], [before])
    if not apart <= same_states(model):
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
