"""Log-probabilities: never above 0, as near to fp32 as transformers' own, for any output layer."""

import numpy as np
import oracle
import pytest
import torch
from conftest import save_random_model
from helpers import finetune
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from forgetlib.data.base import Example
from forgetlib.data.sources import SYNTHETIC_WORDS
from forgetlib.engine import kernels
from forgetlib.errors import ModelError, UnusableNumbers
from forgetlib.forgetting.base import Training
from forgetlib.measuring import scoring
from forgetlib.models import forward, likelihood, loading, tuning


def sure_folder(tiny, path, seed):
    """A random Llama whose logits are 40 times larger: its likeliest answers are sure."""
    save_random_model("llama", tiny.tokenizer, path)
    model = AutoModelForCausalLM.from_pretrained(path)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.lm_head.weight.data.mul_(40)
    model.save_pretrained(path)
    return path


def likeliest(folder, tokenizer, n=24, seed=0):
    """Questions whose choices are the two words that the model holds to be likeliest."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        prompt = " ".join(rng.choice(SYNTHETIC_WORDS, 6))
        with torch.inference_mode():
            logits = model(torch.tensor([tokenizer(prompt).input_ids])).logits[0, -1]
        one, other = tokenizer.convert_ids_to_tokens(logits[2:].topk(2).indices.add(2).tolist())
        found.append(Example(f"t/test/{number}", (prompt,) * 2, (one, other), 0))
    return found


def theirs(folder, tokenizer, examples, dtype):
    """What transformers alone computes with the model of a folder."""
    return oracle.log_likelihoods(oracle.load(folder, dtype), tokenizer, examples)


@pytest.fixture(scope="module")
def sure(tiny, tmp_path_factory):
    """Six models with questions of their own, and what transformers computes in fp32 and bf16."""
    found = []
    for seed in range(6):
        folder = sure_folder(tiny, tmp_path_factory.mktemp("sure") / "model", seed)
        examples = likeliest(folder, tiny.tokenizer, seed=seed)
        dtypes = (torch.float32, torch.bfloat16)
        computed = [theirs(folder, tiny.tokenizer, examples, dtype) for dtype in dtypes]
        found.append((folder, examples, *computed))
    return found


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setenv("FORGETLIB_KERNELS", "0")
    kernels.library.cache_clear()
    kernels.widens.cache_clear()
    yield
    kernels.library.cache_clear()
    kernels.widens.cache_clear()


def assert_as_exact_as_transformers(sure, tuning):
    """Mean errors against fp32, of our bf16 and of transformers' own, over six models.

    Of sure answers apart: there the rounding of logits cancels, and the errors are few and small.
    """
    ours, others, likely = [], [], []
    for folder, examples, exact, rounded in sure:
        lm = loading.load(str(folder), tuning=tuning, device="cpu")
        found = scoring.score(lm, examples).log_likelihoods
        assert found.max() <= 0
        ours.append(abs(found - exact))
        others.append(abs(rounded - exact))
        likely.append(exact > -1)
    ours, others, likely = (np.concatenate(x) for x in (ours, others, likely))
    assert likely.sum() > 100
    assert ours.mean() <= 1.02 * others.mean()
    assert ours[likely].mean() <= 1.3 * others[likely].mean()


@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_bf16_is_as_exact_as_transformers(sure, tuning):
    """Sure answers were 0.13 nats off where transformers is 0.002, and up to 0.24 above 0."""
    assert_as_exact_as_transformers(sure, tuning)


def test_a_trained_output_layer_is_as_exact_with_gradients(sure):
    """Then its logits are rounded as transformers rounds them."""
    folder, examples, exact, rounded = sure[0]
    lm = loading.load(str(folder), tuning="full", device="cpu")
    batch = forward.collate(lm, scoring.encode_all(lm, examples))
    found = forward.response_log_likelihoods(lm, batch)
    assert found.requires_grad and found.max() <= 0
    ours = found.detach().numpy().reshape(exact.shape)
    assert abs(ours - exact).mean() <= 1.1 * abs(rounded - exact).mean()


@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_so_it_is_without_kernels(sure, tuning, without_kernels):
    assert_as_exact_as_transformers(sure, tuning)


def test_so_it_is_with_logits_rounded_to_bf16(sure, monkeypatch):
    """As on a CPU that multiplies bf16, where the kernels take bf16 logits."""
    monkeypatch.setattr(kernels, "widens", lambda: False)
    assert_as_exact_as_transformers(sure, "body")


@pytest.mark.parametrize("widens", [True, False])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_chunk_s_gradient_in_bf16_is_that_of_cross_entropy(widens, scale, monkeypatch):
    monkeypatch.setattr(kernels, "widens", lambda: widens)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3000, 16, generator=generator).mul(scale).bfloat16()
    hidden = torch.randn(9, 16, generator=generator).bfloat16().requires_grad_()
    # Targets in the first and in the last chunk, the likeliest and an unlikely one.
    likely = (hidden.detach().float() @ weight.float().T).argmax(1)
    targets = torch.cat([likely[:5], torch.tensor([0, 2999, 2047, 2048])])
    monkeypatch.setitem(likelihood.LOGITS_CHUNK, "cpu", 1)
    ours = likelihood._Chunked.apply(hidden, weight, None, 0.0, targets)
    (gradient,) = torch.autograd.grad(ours.sum(), hidden)
    wide = hidden.detach().double().requires_grad_()
    logits = wide @ weight.double().T
    largest = float(logits.detach().abs().max())
    theirs = -F.cross_entropy(logits, targets, reduction="none")
    (expected,) = torch.autograd.grad(theirs.sum(), wide)
    assert ours.max() <= 0
    assert ours.detach().double() == pytest.approx(theirs.detach(), abs=largest / 256)
    assert (gradient.double() - expected).norm() <= 0.02 * max(1.0, expected.norm())


# --- output layers that do more than multiply ----------------------------------------------------

RECURRENT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "lru_width": 32,
    "num_hidden_layers": 3,
    "logits_soft_cap": 5.0,
}


class Halved(LlamaForCausalLM):
    """A Llama that computes logits in a way that no configuration names."""

    def forward(self, *inputs, **options):
        output = super().forward(*inputs, **options)
        output.logits = 0.5 * output.logits.sin()
        return output


class Shifted(LlamaForCausalLM):
    """A Llama whose logits are shifted, by much for its own and by little beside large ones."""

    def forward(self, *inputs, **options):
        output = super().forward(*inputs, **options)
        output.logits = output.logits + torch.linspace(-0.5, 0.5, 60).to(output.logits)
        return output


def small_llama(kind):
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plain_output_layer_is_computed_in_one_pass(dtype):
    model = small_llama(LlamaForCausalLM).to(dtype)
    found = likelihood.find(model, model.model, torch.arange(4, 16)[None])
    assert (found.own, found.softcap) == (None, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unknown_output_layer_is_computed_by_the_model_s_own_code(dtype):
    """With its gradient; of small logits, as those of a new model, it looked like another's."""
    model = small_llama(Halved).to(dtype)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    output = likelihood.find(model, model.model, torch.arange(4, 16)[None])
    assert output.own is not None
    hidden = (10 * torch.randn(40, 32)).to(dtype).requires_grad_()
    targets = torch.arange(40)
    ours = output.log_probs(hidden, targets)
    logits = 0.5 * F.linear(hidden, model.lm_head.weight).float().sin()
    theirs = -F.cross_entropy(logits, targets, reduction="none")
    assert torch.allclose(ours, theirs, atol=1e-5 if dtype == torch.float32 else 0.02)
    (gradient,) = torch.autograd.grad(ours.sum(), hidden, retain_graph=True)
    (expected,) = torch.autograd.grad(theirs.sum(), hidden)
    assert torch.allclose(gradient, expected, atol=1e-4 if dtype == torch.float32 else 0.05)
    assert "forward" not in vars(model.model)  # the decoder is as it was


def test_a_known_cap_under_another_name_is_found_and_its_model_can_be_saved(tiny, tmp_path):
    """RecurrentGemma caps its logits: it was off by 1.5 nats, and its own saved model refused."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "recurrent_gemma",
        vocab_size=len(tiny.tokenizer),
        num_attention_heads=4,
        **RECURRENT,
    )
    folder, saved = tmp_path / "model", tmp_path / "saved"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    with pytest.warns(UserWarning, match="each sequence in a row of its own") as warned:
        lm = loading.load(str(folder), tuning="full", dtype="float32", device="cpu")
    assert warned[0].filename == __file__  # where the user's own line is
    assert (lm.output.own, lm.output.softcap) == (None, 5.0)
    pairs = SYNTHETIC_WORDS[20:28], SYNTHETIC_WORDS[40:48]
    prompts = [f"{a} {b} has ?" for a, b in zip(*pairs, strict=True)]
    examples = [
        Example(f"t/test/{i}", (p, p), ("good", "bad"), i % 2) for i, p in enumerate(prompts)
    ]
    labels = np.array([e.label for e in examples])
    finetune(lm, examples, labels, Training(2e-2, epochs=30, batch_size=8), 0)
    loading.save(lm, saved)
    expected = theirs(saved, tiny.tokenizer, examples, torch.float32)
    assert np.ptp(expected) > 3  # the cap is felt
    assert scoring.score(lm, examples).log_likelihoods == pytest.approx(expected, abs=1e-3)
    with pytest.warns(UserWarning):
        again = loading.load(str(saved), dtype="float32", device="cpu")
    assert scoring.score(again, examples).log_likelihoods == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_shift_of_the_logits_is_felt_at_their_own_size(dtype):
    model = small_llama(Shifted).to(dtype)
    assert likelihood.find(model, model.model, torch.arange(4, 8)[None]).own is not None


class Beside(LlamaForCausalLM):
    """A model whose logits need more than the last hidden states."""

    def forward(self, input_ids=None, **options):
        output = super().forward(input_ids=input_ids, **options)
        output.logits = output.logits + 3 * F.one_hot(input_ids, 60)
        return output


class Another(LlamaForCausalLM):
    """A model that does not call the decoder that it is thought to have."""

    def forward(self, input_ids=None, **options):
        if not hasattr(self, "hidden_copy"):
            self.hidden_copy = [small_llama(LlamaForCausalLM)]
        return self.hidden_copy[0](input_ids=input_ids)


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Beside, "of its output layer"), (Another, "does not call its LlamaModel")],
)
def test_logits_that_come_from_elsewhere_are_refused(kind, message):
    model = small_llama(kind)
    with pytest.raises(likelihood.UnlikeLogits, match=message):
        likelihood.find(model, model.model, torch.arange(4, 16)[None])


def test_scores_above_0_are_refused(tiny, monkeypatch):
    """No log-likelihood is; what computes one is broken, and must not be stored."""
    example = Example("t/test/0", ("is it", "is it"), ("good", "bad"), 0)
    log_probs = likelihood.OutputLayer.log_probs

    def raised(self, hidden, targets):
        return log_probs(self, hidden, targets) + 100

    monkeypatch.setattr(likelihood.OutputLayer, "log_probs", raised)
    with pytest.raises(UnusableNumbers, match=r"at most 0, found 9.* for 't/test/0'"):
        scoring.score(tiny, [example])


def test_an_output_layer_that_is_missing_is_said():
    model = small_llama(LlamaForCausalLM)
    model.get_output_embeddings = lambda: nn.Identity()
    with pytest.raises(ModelError, match="an output layer, each with one matrix"):
        tuning.tuning_of("mine", model, "body")


@settings(deadline=None, max_examples=20)
@given(
    rows=st.integers(1, 7),
    softcap=st.sampled_from([0.0, 3.0]),
    bias=st.booleans(),
    chunk=st.sampled_from([1, 5, 50, 64]),
)
def test_the_chunked_output_layer_equals_cross_entropy(rows, softcap, bias, chunk):
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 8, generator=generator, requires_grad=True)
    weight = torch.randn(50, 8, generator=generator)
    offset = torch.randn(50, generator=generator) if bias else None
    targets = torch.randint(50, (rows,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(likelihood.LOGITS_CHUNK, "cpu", chunk * rows)
        patch.setattr(likelihood, "FEWEST_COLUMNS", 1)
        ours = likelihood._Chunked.apply(hidden, weight, offset, softcap, targets)
    (gradient,) = torch.autograd.grad((ours * torch.arange(1, rows + 1)).sum(), hidden)
    logits = F.linear(hidden, weight, offset)
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    theirs = -F.cross_entropy(logits, targets, reduction="none")
    (expected,) = torch.autograd.grad((theirs * torch.arange(1, rows + 1)).sum(), hidden)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-4)
