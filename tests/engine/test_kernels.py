"""The C++ kernels against PyTorch in fp64, and models with them against models without.

bf16 keeps 8 bits, so that a number rounded once is within 2^-8 of the exact one.
"""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import finetune
from questions import mixed_examples
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from forgetlib.data import splits
from forgetlib.engine import kernels
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels, training_labels
from forgetlib.measuring import scoring
from forgetlib.models import forward, loading

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C++ compiler here")
ROUNDED = 2**-8


@pytest.fixture(params=[False, True], ids=["as-they-are", "widened"])
def widened(request, monkeypatch):
    """Products of bf16 matrices as they are, and as fp32 ones."""
    monkeypatch.setattr(kernels, "widens", lambda: request.param)
    return request.param


class Products(TorchDispatchMode):
    """The dtypes of the matrices that are multiplied meanwhile."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if any(name in str(function) for name in ("aten.mm.", "aten.bmm.", "scaled_dot_product")):
            self.dtypes.add(arguments[0].dtype)
        return function(*arguments, **options or {})


def random(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator)).bfloat16()


def assert_rounded(found, exact, ulps=1.0):
    """Equal but for one rounding to bf16, and sums in another order."""
    assert found.dtype == torch.bfloat16
    error = (found.double() - exact).abs()
    assert (error <= ulps * ROUNDED * exact.abs() + 1e-3 * float(exact.abs().max())).all()


def compare(ours, exact, *inputs):
    """Outputs and gradients of a kernel and of the same function in fp64."""
    one = [x.clone().requires_grad_() for x in inputs]
    other = [x.double().requires_grad_() for x in inputs]
    y, expected = ours(*one), exact(*other)
    gradient = random(*y.shape, seed=9)
    y.backward(gradient)
    expected.backward(gradient.double())
    assert_rounded(y.detach(), expected.detach())
    for a, b in zip(one, other, strict=True):
        assert_rounded(a.grad, b.grad)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(3, 40), (2, 5, 640), (1, 33), (2, 3, 7, 256)])
def test_rms_norm(shape, offset):
    compare(
        lambda x, w: kernels._RMSNorm.apply(x, w, offset, 1e-6),
        lambda x, w: x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * (w + offset),
        random(*shape),
        random(shape[-1], seed=1),
    )


def test_rms_norm_of_a_transposed_tensor():
    """Queries are normalised as (B, H, T, D) while they lie in memory as (B, T, H, D)."""
    x, weight = random(2, 5, 4, 16), random(16, seed=1)
    straight = kernels._RMSNorm.apply(x, weight, 0.0, 1e-6)
    turned = kernels._RMSNorm.apply(x.transpose(1, 2), weight, 0.0, 1e-6)
    assert torch.equal(turned.transpose(1, 2), straight)
    leaf = x.clone().requires_grad_()
    y = kernels._RMSNorm.apply(leaf.transpose(1, 2), weight, 0.0, 1e-6)
    gradient = random(2, 4, 5, 16, seed=3)  # not laid out as the output
    y.backward(gradient)
    other = x.clone().requires_grad_()
    kernels._RMSNorm.apply(other, weight, 0.0, 1e-6).backward(gradient.transpose(1, 2))
    assert torch.equal(leaf.grad, other.grad)


@pytest.mark.parametrize("gelu", [0, 1])
def test_gated_activation(gelu):
    def exact(gates, up):
        return (F.gelu(gates, approximate="tanh") if gelu else F.silu(gates)) * up

    compare(
        lambda gates, up: kernels._Gated.apply(gates, up, gelu),
        exact,
        random(3, 7, 50, scale=3),
        random(3, 7, 50, seed=1),
    )


def test_gated_activation_of_extreme_numbers():
    gates = torch.tensor([-1e30, -200.0, -90.0, -20.0, 0.0, 20.0, 200.0, 1e15]).bfloat16()
    ones = torch.ones_like(gates)
    assert_rounded(kernels._Gated.apply(gates, ones, 0), F.silu(gates.double()))
    not_a_number = torch.full((4,), torch.nan).bfloat16()
    assert kernels._Gated.apply(not_a_number, ones[:4], 1).isnan().all()


@pytest.mark.parametrize("rows_of_angles", [1, 3])
def test_rotation(rows_of_angles):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    angles = torch.randn(rows_of_angles, 5, 8, generator=torch.Generator().manual_seed(2))
    cosine, sine = (f(angles.repeat(1, 1, 2)).bfloat16() for f in (torch.cos, torch.sin))
    compare(
        lambda x: kernels._Rotary.apply(x, cosine, sine).transpose(1, 2),
        lambda x: apply_rotary_pos_emb(*[x.transpose(1, 2)] * 2, cosine.double(), sine.double())[0],
        random(3, 5, 4, 16),
    )


@pytest.mark.parametrize("shape", [(5, 16, 24), (2, 7, 9, 33), (700, 32, 640)])
def test_linear(shape, widened):
    *rows, width, columns = shape
    inputs = random(*rows, width), random(columns, width, seed=1)
    compare(kernels._Linear.apply, F.linear, *inputs)


def test_linear_of_a_transposed_tensor_and_without_a_gradient_of_its_weights():
    x, weight = random(3, 4, 16), random(8, 16, seed=1)
    leaf = x.clone().requires_grad_()
    y = kernels._Linear.apply(leaf.transpose(0, 1), weight)
    assert_rounded(y.detach(), (x.double() @ weight.double().T).transpose(0, 1))
    gradient = random(3, 4, 8, seed=2).transpose(0, 1)  # not laid out as the output
    y.backward(gradient)
    assert_rounded(leaf.grad, gradient.transpose(0, 1).double() @ weight.double())
    assert weight.grad is None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [639, 640, 1025, 1300, 1301])
def test_a_product_in_pieces_is_the_product(rows, threads, widened, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    a, b = random(rows, 48), random(640, 48, seed=1)
    with Products() as products:
        found = kernels.product(a, b.t())
    assert_rounded(found, a.double() @ b.double().t())
    assert products.dtypes == {torch.float32 if widened else torch.bfloat16}


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (7, 9), (16, 40), (37, 130), (130, 37)])
def test_transposed(shape, monkeypatch):
    monkeypatch.setattr(kernels, "widens", lambda: False)
    x = random(*shape)
    y = kernels._transposed(x)
    assert torch.equal(y, x.t()) and y.is_contiguous()


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("heads, groups", [(4, 1), (4, 2), (3, 3)])
def test_attention(heads, groups, branches, widened):
    """Of a sequence, and of a tree: a prompt of 6 tokens and two branches."""
    length = 11
    mask = None
    if branches:
        branch = torch.tensor([0] * 6 + [1] * 2 + [2] * 3)
        allowed = ((branch[:, None] == branch) | (branch == 0)).tril()
        mask = torch.zeros(length, length).masked_fill_(~allowed, -torch.inf)
        mask = mask.bfloat16().clamp_min_(torch.finfo(torch.bfloat16).min)[None, None]

    def exact(q, k, v):
        k, v = (x.repeat_interleave(heads // groups, 1) for x in (k, v))
        hidden = torch.ones(length, length).triu(1).bool()
        scores = (0.3 * q @ k.mT).masked_fill(hidden, -torch.inf)
        return (scores + (0 if mask is None else mask.double())).softmax(-1) @ v

    def ours(q, k, v):
        return kernels.attention(q, k, v, mask, 0.3)

    inputs = [random(1, h, length, 16, seed=s) for s, h in enumerate((heads, groups, groups))]
    one, other = ([f(x).requires_grad_() for x in inputs] for f in (Tensor.clone, Tensor.double))
    gradient = random(1, heads, length, 16, seed=9)
    with Products() as products:
        y = ours(*one)
        y.backward(gradient)
    assert products.dtypes == {torch.float32 if widened else torch.bfloat16}
    expected = exact(*other)
    expected.backward(gradient.double())
    # Probabilities are rounded before they are multiplied, as in PyTorch's own.
    for a, b in zip((y, *(x.grad for x in one)), (expected, *(x.grad for x in other)), strict=True):
        apart = (a.double() - b).abs().max() / b.abs().max()
        assert apart.item() < 3 * ROUNDED


def test_a_softmax_in_chunks_is_the_softmax():
    logits = random(6, 1000, scale=5)
    peak, norm = torch.full((6, 1), -torch.inf), torch.zeros(6, 1)
    weighted = torch.zeros(6, 1)
    for start in range(0, 1000, 130):
        chunk = logits[:, start : start + 130].clone()
        columns = torch.arange(start, start + chunk.shape[1]).float()[:, None]
        shrink = kernels.softmax_chunk(chunk, peak, norm)
        weighted = weighted * shrink + chunk.float() @ columns
    exact = logits.double().softmax(1)
    log_norm = logits.double().logsumexp(1, keepdim=True)
    assert torch.allclose((peak + norm.log()).double(), log_norm, atol=1e-5)
    expected = exact @ torch.arange(1000).double()[:, None]
    assert torch.allclose((weighted / norm).double(), expected, rtol=3e-3)


def test_adamw_is_torch_s():
    weight = nn.Parameter(random(1000, scale=0.1).float())
    optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.1)
    master = weight.detach().clone()
    mean, square = torch.zeros(1000), torch.zeros(1000)
    rounded = torch.empty(1000, dtype=torch.bfloat16)
    for step in range(1, 6):
        gradient = random(1000, seed=step)
        norm = kernels.global_norm([gradient[:300].clone(), gradient[300:].clone()])
        assert norm == pytest.approx(float(gradient.float().norm()), rel=1e-5)
        weight.grad = gradient.float()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        kernels.adamw(
            [gradient],
            [master],
            [mean],
            [square],
            [rounded],
            clip=min(1.0, 1.0 / (norm + 1e-6)),
            learning_rate=1e-3,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.1,
            step=step,
        )
        assert torch.allclose(master, weight.detach(), rtol=1e-5, atol=1e-7)
        assert torch.equal(rounded, master.bfloat16())


def without_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setattr(kernels, "widens", lambda: False)


def test_a_model_with_kernels_scores_as_one_without(folder, monkeypatch):
    """Within bf16's rounding: no further from fp32 than the model without them, but for luck."""
    examples = mixed_examples()
    exact = scoring.score(loading.load(str(folder), dtype="float32", device="cpu"), examples)
    ours = scoring.score(loading.load(str(folder), device="cpu"), examples)
    without_kernels(monkeypatch)
    lm = loading.load(str(folder), device="cpu")
    assert lm.kernels == ()
    plain = scoring.score(lm, examples)
    ours_off, plain_off = (
        np.abs(s.log_likelihoods - exact.log_likelihoods).mean() for s in (ours, plain)
    )
    assert ours_off < 1.3 * plain_off + 0.01
    assert plain_off < 0.2


@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_with_widened_products_scores_as_one_without(folder, compiled, monkeypatch):
    """On CPUs without instructions for bf16: no further from fp32 than what PyTorch does there."""
    examples = mixed_examples()
    exact = scoring.score(loading.load(str(folder), dtype="float32", device="cpu"), examples)
    if not compiled:
        without_kernels(monkeypatch)
    monkeypatch.setattr(kernels, "widens", lambda: True)
    lm = loading.load(str(folder), device="cpu")
    others = [m for m in lm.model.modules() if m is not lm.model.get_output_embeddings()]
    linear = {"Linear", "Conv1D"} & {type(m).__name__ for m in others}
    assert linear <= set(lm.kernels) and (compiled or linear == set(lm.kernels))
    assert all("forward" in vars(m) for m in others if type(m).__name__ in linear)
    with Products() as products:
        widened = scoring.score(lm, examples)
    if lm.packs == "tree":  # not GPT-J's attention
        assert products.dtypes == {torch.float32}
    without_kernels(monkeypatch)
    plain = scoring.score(loading.load(str(folder), device="cpu"), examples)
    widened_off, plain_off = (
        np.abs(s.log_likelihoods - exact.log_likelihoods).mean() for s in (widened, plain)
    )
    assert widened_off < 1.3 * plain_off + 0.01


def test_low_rank_updates_are_widened_too(monkeypatch):
    """peft adds its layers to a model that has its kernels; one half of them begins at zero."""
    monkeypatch.setattr(kernels, "widens", lambda: True)
    lm = loading.load("tiny", tuning="lora", device="cpu")
    added = [m for n, m in lm.model.named_modules() if ".lora_A." in n or ".lora_B." in n]
    assert added and all("forward" in vars(module) for module in added)


def test_products_are_widened_where_pytorch_has_no_instructions_for_bf16():
    x86, flags = platform.machine() in ("x86_64", "AMD64"), kernels._cpu_flags().split()
    expected = {"avx2": x86}
    if "avx512f" in flags:  # PyTorch takes it at its word
        expected["avx512"] = "avx512_bf16" not in flags
    command = [
        sys.executable,
        "-c",
        "from forgetlib.engine import kernels; print(kernels.widens())",
    ]
    for capability, widens in expected.items():
        env = os.environ | {"ATEN_CPU_CAPABILITY": capability}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(widens)


@pytest.mark.parametrize("widen", [False, True])
def test_training_with_kernels_is_training_without(widen, monkeypatch):
    """The gradient of a step, and the loss over many."""
    examples = splits.load("tiny_city", "train", 64, 0)
    labels = training_labels(examples, "true", 0)

    def train():
        lm = loading.load("tiny", dtype="bfloat16", device="cpu")
        units = [(forward.encode(lm, e, 0),) for e in examples]
        loop._step_gradient(lm, Labels("true", Training(3e-3)), Context(0, examples), units, [])
        gradients = {n: p.grad.float() for n, p in lm.trainable.items()}
        for p in lm.trainable.values():
            p.grad = None
        loss = finetune(lm, examples, labels, Training(3e-3, epochs=10), 0)
        return lm.kernels, gradients, loss

    monkeypatch.setattr(kernels, "widens", lambda: widen)
    names, ours, loss = train()
    assert set(names) == {"Linear", "LlamaAttention", "LlamaMLP", "LlamaRMSNorm"}
    without_kernels(monkeypatch)
    names, theirs, other_loss = train()
    assert names == ()
    for name, gradient in theirs.items():
        cosine = F.cosine_similarity(gradient.flatten(), ours[name].flatten(), dim=0)
        assert cosine > 0.995, name
    assert loss[-8:].mean() == pytest.approx(other_loss[-8:].mean(), rel=0.1)


def test_a_class_that_computes_something_else_stays_as_it_is():
    class LookalikeRMSNorm(nn.Module):
        """It subtracts the mean."""

        eps = 1e-6

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(16, dtype=torch.bfloat16))

        def forward(self, x):
            x = x - x.mean(-1, keepdim=True)
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight

    class PlainRMSNorm(LookalikeRMSNorm):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight

    assert kernels.install(nn.Sequential(LookalikeRMSNorm())) == []
    assert kernels.install(nn.Sequential(PlainRMSNorm())) == ["PlainRMSNorm"]


def test_fp32_models_and_other_models_of_the_process_stay_as_they_are():
    lm = loading.load("tiny", dtype="float32", device="cpu")
    assert lm.kernels == ()
    from transformers.models.llama import modeling_llama

    original = modeling_llama.apply_rotary_pos_emb
    loading.load("tiny", dtype="bfloat16", device="cpu")
    assert modeling_llama.apply_rotary_pos_emb is original
    assert "forward" not in vars(loading.load("tiny", dtype="float32").model.model.layers[0].mlp)


def test_a_compiler_that_fails_leaves_the_model_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("FORGETLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    kernels.library.cache_clear()
    try:
        with pytest.warns(UserWarning, match="could not be compiled with 'false'"):
            assert kernels.library() is None
        lm = loading.load("tiny", dtype="bfloat16", device="cpu")
        assert lm.kernels == (("Linear",) if kernels.widens() else ())
        assert not list(tmp_path.iterdir())
    finally:
        kernels.library.cache_clear()


def test_a_slice_is_normalised_as_a_copy_of_it():
    whole, weight = random(2, 5, 48), random(16, seed=1)
    for part in (whole.split([16, 32], -1)[0], whole.view(2, 5, 3, 16)[:, :, 1]):
        found = kernels._RMSNorm.apply(part, weight, 0.0, 1e-6)
        assert torch.equal(found, kernels._RMSNorm.apply(part.contiguous(), weight, 0.0, 1e-6))


def test_large_weights_do_not_hide_the_offset():
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

    norm = Gemma3RMSNorm(16).bfloat16()
    norm.weight.data.fill_(300.0)
    assert not kernels._same(norm, kernels._plain_norm)
    assert kernels._same(norm, kernels._offset_norm)


def test_instances_of_one_class_that_compute_differently_are_told_apart():
    class ScaledRMSNorm(nn.Module):
        def __init__(self, with_scale):
            super().__init__()
            self.eps = 1e-6
            self.with_scale = with_scale
            if with_scale:
                self.weight = nn.Parameter(torch.ones(16, dtype=torch.bfloat16))

        def forward(self, x):
            y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
            return y * self.weight if self.with_scale else y

    model = nn.Sequential(ScaledRMSNorm(True), ScaledRMSNorm(False))
    assert kernels.install(model) == ["ScaledRMSNorm"]
    assert model(random(3, 16)).shape == (3, 16)
    assert "forward" not in vars(model[1])


def test_a_weight_decay_of_zero_may_be_an_integer():
    lm = loading.load("tiny", dtype="bfloat16", device="cpu")
    examples = splits.load("tiny_city", "train", 16, 0)
    labels = training_labels(examples, "true", 0)
    finetune(lm, examples, labels, Training(1e-3, epochs=1, weight_decay=0), 0)
    assert all(w.isfinite().all() for w in lm.weights().values())
