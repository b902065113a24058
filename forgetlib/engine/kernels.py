"""The parts of a transformer that PyTorch leaves slow on a CPU in bf16.

In a training step of Gemma-3-270M on 2 cores, half of the time was not spent in matrix products:
PyTorch runs a normalisation or a gate operation by operation, each over whole tensors. And some
products ran on one core only, or on matrices that lay the wrong way. `install` replaces these
parts of a loaded model by kernels.cpp, after comparing the two on random numbers.
The C++ compiler runs once, for a second; without one the model stays as it is, and slower.

Most laptops multiply no bf16 numbers at all, and PyTorch is slow at doing it for them: there,
compiler or not, matrices become fp32 for the product (`widens`).

Long because each of the parts that are replaced has its operations here, its derivative and the
comparison that decides whether it is replaced: apart, one would not be understood alone.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import types
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.pytorch_utils import Conv1D

from forgetlib.data.cache import cache_dir
from forgetlib.errors import ForgetlibError
from forgetlib.files import replacing

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fopenmp", "-shared", "-fPIC"),
)
WIDE = ("-mprefer-vector-width=512",)
TOLERANCE = 0.015  # of the largest number: bf16 rounds to 0.4 %, PyTorch's chains several times


@cache
def library() -> ctypes.CDLL | None:
    """Load the compiled kernels; None where they cannot be compiled or FORGETLIB_KERNELS is 0."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not compiler or os.environ.get("FORGETLIB_KERNELS") == "0" or sys.platform != "linux":
        return None
    try:
        found = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, ForgetlibError, subprocess.CalledProcessError) as error:
        warnings.warn(
            f"the CPU kernels could not be compiled with {compiler!r} and kept in "
            f"{cache_dir()}, which FORGETLIB_CACHE sets ({error}): training and scoring are "
            "slower without them, and right",
            stacklevel=2,
        )
        return None
    found.sum_of_squares.restype = ctypes.c_double
    return found


def _compiled(compiler: str) -> Path:
    # -march=native: what was compiled on another kind of machine may not run here.
    flags = FLAGS + WIDE * (platform.machine() == "x86_64")
    made_from = (SOURCE.read_text(), flags, compiler, platform.machine(), _cpu_flags())
    name = hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
    path = cache_dir() / f"kernels-{name}.so"
    if not path.exists():
        with replacing(path) as partial:
            command = [*shlex.split(compiler), *flags, str(SOURCE), "-o", str(partial)]
            subprocess.run(command, capture_output=True, check=True)
    return path


def _cpu_flags() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return ""


@cache
def widens() -> bool:
    """Tell whether to multiply bf16 matrices as fp32 ones: on x86 CPUs without bf16 for it.

    With AVX2 a core does 512 x 640 times 640 x 2048 at 7 GFLOP/s in bf16, and at 70 in fp32; with
    AVX-512 alone at 36 and 82. GPT-2's layers, whose weights lie the other way, take 1.6 s for 512
    tokens in bf16, and 0.02 s so. Sums are in fp32 either way.
    """
    if platform.machine() not in ("x86_64", "AMD64") or os.environ.get("FORGETLIB_KERNELS") == "0":
        return False
    in_use = torch.backends.cpu.get_cpu_capability()
    return in_use != "AVX512" or not torch.cpu._is_avx512_bf16_supported()


def usable(*tensors: Tensor) -> bool:
    """Tell whether the kernels can take these: bfloat16 on a CPU."""
    return all(t.device.type == "cpu" and t.dtype == torch.bfloat16 for t in tensors)


def _dense(x: Tensor) -> Tensor:
    """x as rows that stand in memory one after another, in any order of the rows."""
    ordered = torch.empty_like(x)  # the strides of x where it is dense
    return x if ordered.stride() == x.stride() and x.stride(-1) == 1 else x.contiguous()


def _call(name: str, *arguments: Any) -> Any:
    """Call a kernel with pointers for tensors, int64 for ints, float for floats."""
    found = library()
    assert found is not None
    kinds = {int: ctypes.c_int64, float: ctypes.c_float}
    given = [
        ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else kinds[type(a)](a)
        for a in arguments
    ]
    return getattr(found, name)(*given)


def _like(tensor: Tensor, layout: Tensor) -> Tensor:
    """The tensor in the memory layout of another."""
    if tensor.stride() == layout.stride():
        return tensor
    return torch.empty_like(layout).copy_(tensor)


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) * (weight + offset) over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, offset: float, eps: float) -> Tensor:
        x = _dense(x)
        width = x.shape[-1]
        rows = x.numel() // width
        y = torch.empty_like(x)
        scale = torch.empty(rows)
        _call("rms_norm", x, weight, offset, eps, y, scale, rows, width)
        ctx.save_for_backward(x, weight, scale)
        ctx.offset = offset
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        gradient = _like(outputs[0], x)
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        rows, width = len(scale), x.shape[-1]
        _call("rms_norm_backward", gradient, x, weight, ctx.offset, scale, dx, dweight, rows, width)
        return dx, dweight, None, None


class _Gated(torch.autograd.Function):
    """activation(gates) * up, with SiLU or the tanh form of GELU."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, up: Tensor, gelu: int) -> Tensor:
        gates, up = gates.contiguous(), up.contiguous()
        y = torch.empty_like(gates)
        _call("gated", gates, up, y, gelu, gates.numel())
        ctx.save_for_backward(gates, up)
        ctx.gelu = gelu
        return y

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        gates, up = ctx.saved_tensors
        gradient = _like(outputs[0], gates)
        dgates, dup = torch.empty_like(gates), torch.empty_like(up)
        _call("gated_backward", gradient, gates, up, dgates, dup, ctx.gelu, gates.numel())
        return dgates, dup, None


class _Rotary(torch.autograd.Function):
    """Rotary position embedding of x (B, T, H, D) by cosines and sines (B, T, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotate(x, cosine, sine, 1)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        return _rotate(outputs[0], cosine, sine, -1), None, None


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor, direction: int) -> Tensor:
    x = x.contiguous()
    batch, length, heads, width = x.shape
    # One row of angles may stand for all rows of x.
    cosine, sine = (a.expand(batch, length, width).contiguous() for a in (cosine, sine))
    y = torch.empty_like(x)
    _call("rotate", x, cosine, sine, y, direction, batch * length, heads, width)
    return y


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """Compute causal attention (1, H, T, D) of a sequence; key and value can have fewer heads.

    mask: (1, 1, T, T) to add to the scores, which hides all later places too; or None
    """
    if usable(query, key, value) and widens():
        q, k, v = query.float(), key.float(), value.float()
        mask = None if mask is None else mask.float()
        return _attention(q, k, v, mask, scale).to(query.dtype)
    if query.requires_grad and usable(query, key, value) and library() is not None:
        return _Attention.apply(query, key, value, mask, scale or query.shape[-1] ** -0.5)
    return _attention(query, key, value, mask, scale)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    repeats = q.shape[1] // k.shape[1]
    k, v = repeat_kv(k, repeats), repeat_kv(v, repeats)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale)


class _Attention(torch.autograd.Function):
    """PyTorch's attention, with a backward pass by matrix products.

    PyTorch's own backward pass on a CPU took 19 % of a training step on BoolQ, at 3.1 ms a call.
    Query heads that share a key are rows of one product. Probabilities are computed again.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        return _attention(query, key, value, mask, scale)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        _, heads, length, width = query.shape
        groups = key.shape[1]
        repeats = heads // groups

        def rows(x: Tensor) -> Tensor:  # (1, H, T, D) -> (groups, T * repeats, D)
            by_place = x.view(groups, repeats, length, width).transpose(1, 2)
            return by_place.reshape(groups, length * repeats, width)

        q, gradient, k, v = rows(query), rows(outputs[0]), key[0], value[0]
        n_rows = groups * length * repeats
        p = q @ k.mT  # (groups, T * repeats, T)
        mask = torch.empty(0) if mask is None else mask.contiguous()  # its pointer is null
        _call("attention_softmax", p, mask, ctx.scale, repeats, n_rows, length)
        dp = gradient @ v.mT
        dvalue = p.mT @ gradient
        _call("attention_softmax_backward", p, dp, ctx.scale, n_rows, length)
        dquery = (dp @ k).view(groups, length, repeats, width).transpose(1, 2)
        dkey = dp.mT @ q
        return dquery.reshape(query.shape), dkey[None], dvalue[None], None, None


class _Linear(torch.autograd.Function):
    """x W^T."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = product(x.reshape(-1, x.shape[-1]), weight.t())
        # Not y.view: autograd refuses what a model changes in place and is a view made in here.
        return torch.ops.aten._unsafe_view(y, [*x.shape[:-1], len(weight)])

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = outputs[0].reshape(-1, len(weight))
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = product(gradient, weight).view(x.shape)
        if ctx.needs_input_grad[1]:
            dweight = product(_transposed(gradient), x.reshape(-1, x.shape[-1]))
        return dx, dweight


def product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply a (M, K) by b (K, N), in bf16 on a CPU, so that both of two cores compute.

    For some sizes oneDNN 3.12 gives all of a product to one core: 1024 x 2048 times 2048 x 640 at
    1.15 TFLOP/s, in two halves of its rows at 2.03. Others are faster whole.
    """
    if widens():
        return (a.float() @ b.float()).to(a.dtype)  # nothing is rounded where they are fp32
    rows, columns = len(a), b.shape[1]
    if torch.get_num_threads() != 2 or not (640 <= rows <= 1300 and 512 <= columns < 2048):
        return a @ b
    y = a.new_empty(rows, columns)
    size = math.ceil(rows / math.ceil(rows / 512))
    for part, into in zip(a.split(size), y.split(size), strict=True):
        torch.mm(part, b, out=into)
    return y


def _transposed(x: Tensor) -> Tensor:
    """The transpose of x (R, columns) in memory, in a fifth of PyTorch's time for it.

    A gradient of weights (2048, 640) over 1024 tokens is computed at 1.45 TFLOP/s from a transposed
    view, at 2.46 from a copy.
    """
    if widens():  # it is copied anyway
        return x.t()
    x = x.contiguous()
    y = x.new_empty(x.shape[::-1])
    _call("transpose", x, y, *x.shape)
    return y


def softmax_chunk(logits: Tensor, peak: Tensor, norm: Tensor) -> Tensor:
    """Take a chunk of logits (R, columns) into a running softmax; say what sums so far shrink by.

    logits, bf16 or fp32, become exp(logits - peak), in place; peak and norm, (R, 1) fp32, are
    updated. A chunk of 1200 rows and 873 columns takes 0.45 ms on 2 cores; PyTorch's operations
    take 0.77 ms.
    """
    shrink = torch.empty_like(peak)
    name = "softmax_chunk" if logits.dtype == torch.bfloat16 else "softmax_chunk_wide"
    _call(name, logits, peak, norm, shrink, *logits.shape)
    return shrink


def _addresses(tensors: Sequence[Tensor]) -> Tensor:
    """(n,) where each tensor stands in memory: an array of pointers, to a kernel."""
    return torch.tensor([t.data_ptr() for t in tensors], dtype=torch.int64)


def _sizes(tensors: Sequence[Tensor]) -> Tensor:
    return torch.tensor([t.numel() for t in tensors], dtype=torch.int64)


def global_norm(gradients: Sequence[Tensor]) -> float:
    """Measure the Euclidean norm of all gradients together."""
    found = _call("sum_of_squares", _addresses(gradients), _sizes(gradients), len(gradients))
    return math.sqrt(found)


def adamw(
    gradients: Sequence[Tensor],
    masters: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    clip: float,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """Step AdamW with the gradients times `clip`: fp32 masters, and the weights rounded from them.

    One pass over memory instead of five: 0.24 s a step became 0.11 s for Gemma-3-270M. One call for
    all tensors: of 448 small ones, a step takes half as long as with a call for each.
    """
    tensors = [_addresses(of) for of in (gradients, masters, means, squares, weights)]
    settings = map(float, (clip, learning_rate, *betas, eps, weight_decay))
    _call("adamw", *tensors, _sizes(masters), len(masters), *settings, step)


def install(model: nn.Module) -> list[str]:
    """Let a model's normalisations, gated layers and attentions use the kernels; their classes.

    A kind of module is changed where its first instance gives the same numbers and gradients with
    the kernel as without, on random input of several sizes and with random weights. So an
    architecture that this file has never heard of is either faster or as it was. Other models of
    the process stay as they are.
    """
    if not usable(next(model.parameters())) or (library() is None and not widens()):
        return []
    changes: dict[Any, Any] = {}  # how the forward of each kind is made; None: it stays
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for module in model.modules():
        # Another's or ours; and models computes with the output layer's weights itself.
        if "forward" in vars(module) or module is head:
            continue
        kind = _kind(module)
        if kind not in changes:
            changes[kind] = _change(module)
        if changes[kind] is not None:
            module.forward = changes[kind](module)
    return sorted({kind[0].__name__ for kind, change in changes.items() if change is not None})


def _kind(module: nn.Module) -> tuple[Any, ...]:
    """Modules of one kind compute the same: class, settings, and what their weights are like."""
    settings = [(n, v) for n, v in vars(module).items() if isinstance(v, bool | int | float | str)]
    weights = [(n, p.shape, p.dtype) for n, p in module.named_parameters()]
    # A layer's number is no setting of what is replaced here.
    return type(module), *(x for x in settings if x[0] != "layer_idx"), *weights


def _change(module: nn.Module) -> Any:
    """A function from a module of this class to its new forward, or None."""
    if library() is not None and _rotates(module):
        return _with_our_rotation
    way = next((way for way in _ways(module) if _same(module, way)), None)
    return None if way is None else lambda module: _Dispatch(module, way)


class _Dispatch:
    """A module's forward: the kernel for what it can do, the original for all else."""

    def __init__(self, module: nn.Module, way: Any) -> None:
        self.module, self.way, self.original = module, way, module.forward

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        if len(inputs) == 1 and not options and usable(*inputs, *self.module.parameters()):
            return self.way(self.module, *inputs)
        return self.original(*inputs, **options)


def _ways(module: nn.Module) -> list[Any]:
    """What the module may compute, by the names of its parts."""
    if type(module) is nn.Linear and (module.bias is None or widens()):
        return [_linear]
    if type(module) is Conv1D and widens():
        return [_transposed_linear]
    if library() is None:
        return []
    if type(module).__name__.endswith("RMSNorm") and hasattr(module, "weight"):
        return [_plain_norm, _offset_norm]
    if all(hasattr(module, n) for n in ("gate_proj", "up_proj", "down_proj")):
        return [_gelu_mlp, _silu_mlp]
    return []


def _linear(module: Any, x: Tensor) -> Tensor:
    y = _Linear.apply(x, module.weight)
    return y if module.bias is None else y + module.bias


def _transposed_linear(module: Any, x: Tensor) -> Tensor:
    return _Linear.apply(x, module.weight.t()) + module.bias


def linear(module: nn.Module, x: Tensor) -> Any:
    """Compute a linear layer, of those that `install` leaves alone."""
    return _linear(module, x) if usable(x, *module.parameters()) and widens() else module(x)


def _eps(module: Any) -> float:
    return float(module.eps if hasattr(module, "eps") else module.variance_epsilon)


def _plain_norm(module: Any, x: Tensor) -> Tensor:
    return _RMSNorm.apply(x, module.weight.contiguous(), 0.0, _eps(module))


def _offset_norm(module: Any, x: Tensor) -> Tensor:
    return _RMSNorm.apply(x, module.weight.contiguous(), 1.0, _eps(module))


def _gelu_mlp(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(_Gated.apply(module.gate_proj(x), module.up_proj(x), 1))


def _silu_mlp(module: Any, x: Tensor) -> Tensor:
    return module.down_proj(_Gated.apply(module.gate_proj(x), module.up_proj(x), 0))


@torch.inference_mode(False)
@torch.enable_grad()
def _same(module: nn.Module, way: Any) -> bool:
    """Whether a way to compute a module gives its output and gradients, on random input.

    Small input, and large: an activation may be clamped. Weights of a normalisation are drawn,
    since next to a large weight w the wrong 1 + w is hardly seen, and those that begin at zero.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        trial = copy.deepcopy(module)
        weights = list(trial.parameters())
        if not weights or not usable(*weights):
            return False
        for weight in weights:
            weight.requires_grad_()
            if weight.dim() == 1 or not weight.any():
                weight.data.copy_(torch.randn(weight.shape, generator=generator))
        width = weights[0].shape[0 if isinstance(trial, Conv1D) else -1]
        for size in (1.0, 30.0):
            x = torch.randn(2, 3, width, generator=generator).mul(size).bfloat16()
            x.requires_grad_()
            results = []
            for function in (trial, lambda x: way(trial, x)):
                y = function(x)
                gradient = torch.randn(y.shape, generator=generator.manual_seed(1)).bfloat16()
                results.append((y.detach(), *torch.autograd.grad(y, [x, *weights], gradient)))
            if not _close(*results):
                return False
    except Exception:  # whatever a foreign module does with a trial, it stays as it was
        return False
    return True


def _close(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    differences = (
        ((a - b).abs().max() / a.abs().max()).item() for a, b in zip(one, other, strict=True)
    )
    return all(d <= TOLERANCE for d in differences)


ROTATION = "apply_rotary_pos_emb"


@torch.inference_mode(False)
@torch.enable_grad()
def _rotates(module: nn.Module) -> bool:
    """Whether the module's forward calls a rotation of queries and keys that equals ours."""
    forward = type(module).forward
    if not isinstance(forward, types.FunctionType) or ROTATION not in forward.__code__.co_names:
        return False
    theirs: Any = forward.__globals__.get(ROTATION)
    generator = torch.Generator().manual_seed(0)
    q, k, g = (torch.randn(2, 5, h, 8, generator=generator).bfloat16() for h in (4, 2, 4))
    q, k, g = (x.transpose(1, 2) for x in (q.requires_grad_(), k, g))
    angles = torch.randn(2, 5, 4, generator=generator).repeat(1, 1, 2)
    cosine, sine = angles.cos().bfloat16(), angles.sin().bfloat16()
    try:
        results = []
        for rotate in (theirs, _rotation(theirs)):
            rotated = rotate(q, k, cosine, sine)
            results.append(
                (*(r.detach() for r in rotated), *torch.autograd.grad(rotated[0], [q], g))
            )
    except Exception:
        return False
    return _close(*results)


def _with_our_rotation(module: nn.Module) -> types.MethodType:
    """The module's forward, whose call of the rotation meets ours."""
    function = type(module).forward
    names = function.__globals__ | {ROTATION: _rotation(function.__globals__[ROTATION])}
    ours = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    ours.__kwdefaults__ = function.__kwdefaults__
    return types.MethodType(ours, module)


def _rotation(original: Any) -> Any:
    def rotate(*inputs: Any, **options: Any) -> Any:
        if len(inputs) != 4 or options or not usable(*inputs):
            return original(*inputs, **options)
        q, k, cos, sin = inputs
        if (cos.dim(), q.dim()) != (3, 4) or cos.shape[-1] != q.shape[-1]:
            return original(*inputs)
        # (B, H, T, D), from and to the order in which the projection made them.
        return tuple(_Rotary.apply(x.transpose(1, 2), cos, sin).transpose(1, 2) for x in (q, k))

    return rotate
