import pytest
import torch
from transformers.optimization import Adafactor

from forgetlib.data import splits
from forgetlib.engine import kernels
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.loop import learning_rate_factor, train
from forgetlib.forgetting.optimizer import Optimizer
from forgetlib.models import forward, loading


@pytest.fixture
def lm():
    return loading.load("tiny", dtype="float32", device="cpu")


def gradients_of(lm, examples):
    """The gradient of one batch's mean token loss, clipped, in the parameters' own .grad."""
    inputs = forward.collate(lm, [[forward.encode(lm, e, e.label)] for e in examples])
    loss = -forward.response_log_likelihoods(lm, inputs).sum() / len(inputs.targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(list(lm.trainable.values()), 1.0)


def test_an_optimiser_step_equals_torch_s_adamw_on_the_same_gradient(lm):
    examples = splits.load("tiny_city", "train", 8, 0)
    other = loading.load("tiny", dtype="float32", device="cpu")
    training = Training(learning_rate=1e-2, epochs=1, warmup=0.0, weight_decay=0.1)
    train(lm, Labels("true", training), Context(0, examples))
    gradients_of(other, examples)
    torch.optim.AdamW(list(other.trainable.values()), lr=1e-2, weight_decay=0.1).step()
    for name, parameter in other.trainable.items():
        assert torch.allclose(parameter, lm.trainable[name], atol=2e-4), name


def test_adafactor_moves_as_transformers_s_own_on_the_same_gradients(lm):
    """Several weights in groups: as one optimiser of them all."""
    examples = splits.load("tiny_city", "train", 8, 0)
    other = loading.load("tiny", dtype="float32", device="cpu")
    training = Training(1e-2, epochs=3, warmup=0.0, optimizer="adafactor")
    train(lm, Labels("true", training), Context(0, examples))
    parameters = list(other.trainable.values())
    theirs = Adafactor(parameters, lr=1e-2, scale_parameter=False, relative_step=False)
    for step in range(3):
        gradients_of(other, examples)
        for group in theirs.param_groups:
            group["lr"] = 1e-2 * learning_rate_factor(step, 3, 0.0)
        theirs.step()
        theirs.zero_grad()
    for name, parameter in lm.trainable.items():
        assert torch.allclose(parameter, other.trainable[name], atol=1e-5), name


def test_adafactor_keeps_two_vectors_a_matrix(lm):
    parameters = list(lm.trainable.values())
    optimizer = Optimizer(parameters, Training(1e-3, optimizer="adafactor"))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1.0)
    states = [t for _, o in optimizer.groups for s in o.state.values() for t in s.values()]
    kept = sum(t.numel() for t in states if isinstance(t, torch.Tensor))
    assert 0 < kept < 0.1 * sum(p.numel() for p in parameters)


SHAPES = [(16, 40), (7,), (33, 129), (1, 1), (300, 301), (5, 3, 2), (70000,)]


class OneByOne:
    """AdamW as a loop over the weights, each with an optimiser or a call of its own."""

    def __init__(self, parameters, config, in_kernel):
        self.parameters, self.config, self.in_kernel, self.n_steps = (
            parameters,
            config,
            in_kernel,
            0,
        )
        self.masters = [p.detach().to(torch.float32, copy=True) for p in parameters]
        settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
        self.optimizers = [torch.optim.AdamW([m], **settings) for m in self.masters]
        self.moments = [(torch.zeros_like(m), torch.zeros_like(m)) for m in self.masters]

    @torch.no_grad()
    def step(self, factor):
        self.n_steps += 1
        total, rate = torch.zeros((), dtype=torch.float64), self.config.learning_rate * factor
        for p in self.parameters:
            if p.grad is not None and self.in_kernel:
                total += kernels.global_norm([p.grad]) ** 2
            elif p.grad is not None:
                total += torch.linalg.vector_norm(p.grad, dtype=torch.float32) ** 2
        clip = min(1.0, self.config.max_grad_norm / (float(total.sqrt()) + 1e-6))
        for i, (p, master) in enumerate(zip(self.parameters, self.masters, strict=True)):
            if p.grad is None:
                continue
            if self.in_kernel:
                one = ([p.grad], [master], *([m] for m in self.moments[i]), [p.detach()])
                settings = {"betas": (0.9, 0.999), "eps": 1e-8, "step": self.n_steps}
                settings |= {"weight_decay": self.config.weight_decay, "learning_rate": rate}
                kernels.adamw(*one, clip=clip, **settings)
            else:
                self.optimizers[i].param_groups[0]["lr"] = rate
                master.grad = p.grad.to(torch.float32) * clip
                self.optimizers[i].step()
                p.copy_(master)
            p.grad = None


def parameters_of(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]


@pytest.mark.parametrize("group_numbers", [1, 5000, 2**26])
@pytest.mark.parametrize(
    ("dtype", "compiled"),
    [(torch.bfloat16, True), (torch.bfloat16, False), (torch.float32, False)],
)
def test_steps_of_many_weights_together_are_those_of_each_alone(
    dtype, compiled, group_numbers, monkeypatch
):
    """To the bit, over a dozen steps, in some of which some weights have no gradient."""
    monkeypatch.setattr("forgetlib.forgetting.optimizer.GROUP_NUMBERS", group_numbers)
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    config = Training(1e-2, weight_decay=0.1)
    ours, theirs = parameters_of(dtype), parameters_of(dtype)
    together = Optimizer(ours, config)
    assert together.in_kernel == compiled
    alone = OneByOne(theirs, config, compiled)
    generator = torch.Generator().manual_seed(1)
    start = [p.detach().clone() for p in ours]
    for step in range(12):
        size = 1.0 if step % 3 else 1e-4  # beyond the largest norm, and not
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            gradient = (size * torch.randn(one.shape, generator=generator)).to(dtype)
            if (step + i) % 4:
                one.grad, other.grad = gradient, gradient.clone()
        together.step(1 - step / 12)
        alone.step(1 - step / 12)
        assert all(p.grad is None for p in ours)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
        for one, other in zip(together.masters, alone.masters, strict=True):
            assert torch.equal(one, other)
    assert not any(torch.equal(p, before) for p, before in zip(ours, start, strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_one_group_s_gradients_at_a_time_are_there_in_fp32(optimizer, monkeypatch):
    monkeypatch.setattr("forgetlib.forgetting.optimizer.GROUP_NUMBERS", 5000)
    parameters = parameters_of(torch.float32)
    found = Optimizer(parameters, Training(1e-3, optimizer=optimizer))
    assert sorted(place for places, _ in found.groups for place in places) == [*range(len(SHAPES))]
    there = []
    for _, group in found.groups:
        group.register_step_pre_hook(
            lambda *_: there.append([m.numel() for m in found.masters if m.grad is not None])
        )
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    found.step(1.0)
    assert there == [[640, 7, 4257, 1], [90300], [30], [70000]]
    assert all(m.grad is None for m in found.masters)


def test_a_step_without_any_gradient_changes_nothing(lm):
    before = lm.weights()
    Optimizer(list(lm.trainable.values()), Training(1e-3)).step(1.0)
    assert all(torch.equal(w, before[n]) for n, w in lm.weights().items())
