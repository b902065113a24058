from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.optimization import Adafactor

from forgetlib import experiment, kernels, models, scoring, stats, tasks, training
from forgetlib.labels import training_labels
from forgetlib.schema import InputError, RunSpec, TrainConfig
from forgetlib.training import TrainingDiverged, finetune, learning_rate_factor

CONFIG = TrainConfig(learning_rate=3e-3, epochs=8)
LONG = TrainConfig(learning_rate=3e-3, epochs=40)


@pytest.fixture
def lm():
    return models.load("tiny", dtype="float32", device="cpu")


def trained(lm, condition="true", config=CONFIG, n=64, seed=0, task="tiny_city"):
    examples = tasks.load(task, "train", n, seed)
    labels = training_labels(examples, condition, seed)
    return examples, finetune(lm, examples, labels, config, seed)


def accuracy(lm, examples):
    return stats.correct(scoring.score(lm, examples)).mean()


def test_warm_up_rises_and_decay_falls_to_zero():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[9] == factors[10] == 1.0
    assert np.allclose(np.diff(factors[:10]), 0.1)
    assert np.allclose(np.diff(factors[10:]), -1 / 90)
    assert factors[-1] == pytest.approx(1 / 90)
    assert learning_rate_factor(0, 1, 0.0) == 1.0


def test_true_labels_are_learned_and_flipped_labels_are_too(lm):
    examples, log = trained(lm, config=LONG)
    assert len(log.loss) == 40 * 8
    assert log.loss[-8:].mean() < log.loss[:8].mean() - 1
    assert accuracy(lm, examples) > 0.9
    trained(lm, "flipped", LONG)
    assert accuracy(lm, examples) < 0.2


def test_training_is_towards_the_labels_given(lm):
    """The positive control of forgetting: after random labels, the model gives those labels."""
    examples = tasks.load("tiny_review", "train", 64, 0)
    labels = training_labels(examples, "random", 0)
    finetune(lm, examples, labels, LONG, 0)
    scores = scoring.score(lm, examples)
    assert (stats.predictions(scores) == labels).mean() > 0.9
    assert stats.correct(scores).mean() == pytest.approx((labels == scores.labels).mean(), abs=0.1)


def test_the_first_loss_is_the_mean_over_the_batch_s_response_tokens(lm):
    examples = tasks.load("tiny_city", "train", 8, 0)
    labels = training_labels(examples, "true", 0)
    scores = scoring.score(lm, examples)
    chosen = (
        scores.log_likelihoods[range(8), labels].sum() / scores.n_tokens[range(8), labels].sum()
    )
    log = finetune(lm, examples, labels, TrainConfig(learning_rate=1e-6, epochs=1), 0)
    assert log.loss[0] == pytest.approx(-chosen, rel=1e-4)


def test_an_optimiser_step_equals_torch_s_adamw_on_the_same_gradient(lm):
    examples = tasks.load("tiny_city", "train", 8, 0)
    labels = training_labels(examples, "true", 0)
    other = models.load("tiny", dtype="float32", device="cpu")
    config = TrainConfig(learning_rate=1e-2, epochs=1, warmup=0.0, weight_decay=0.1)
    finetune(lm, examples, labels, config, 0)
    sequences = [models.encode(other, e, int(c)) for e, c in zip(examples, labels, strict=True)]
    batch = models.collate(other, [[s] for s in sequences])
    loss = -models.response_log_likelihoods(other, batch).sum() / len(batch.targets)
    loss.backward()
    parameters = list(other.trainable.values())
    torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1).step()
    for name, parameter in other.trainable.items():
        assert torch.allclose(parameter, lm.trainable[name], atol=2e-4), name


def test_splitting_a_batch_to_bound_memory_does_not_change_what_is_learned(lm, monkeypatch):
    _, whole = trained(lm)
    other = models.load("tiny", dtype="float32", device="cpu")
    monkeypatch.setitem(training.TOKEN_BUDGET, "cpu", 1)
    _, split = trained(other)
    assert split.loss == pytest.approx(whole.loss, rel=1e-2)


@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_only_what_is_tuned_changes(tuning):
    lm = models.load("tiny", tuning=tuning, dtype="float32", device="cpu")
    before = {n: p.detach().clone() for n, p in lm.model.named_parameters()}
    _, log = trained(lm)
    assert log.loss[-1] < log.loss[0]
    changed = {n for n, p in lm.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(lm.trainable)


def test_bf16_weights_learn_because_their_masters_are_fp32():
    """Steps of 1e-6 vanish when added to bf16 weights one by one; on the masters they add up."""
    lm = models.load("tiny", dtype="bfloat16", device="cpu")
    before = lm.weights()
    _, log = trained(lm, config=TrainConfig(learning_rate=2e-5, epochs=40))
    assert any(not torch.equal(w, before[n]) for n, w in lm.weights().items())
    assert log.loss[-8:].mean() < log.loss[:8].mean()


def test_the_same_run_twice_gives_the_same_bits():
    logs, weights = [], []
    for _ in range(2):
        torch.manual_seed(len(logs))  # the caller's global state must not matter
        lm = models.load("tiny", dtype="float32", device="cpu")
        logs.append(trained(lm)[1].loss)
        weights.append(lm.weights())
    assert (logs[0] == logs[1]).all()
    assert all(torch.equal(w, weights[1][n]) for n, w in weights[0].items())


def test_another_seed_trains_in_another_order(lm):
    other = models.load("tiny", dtype="float32", device="cpu")
    examples = tasks.load("tiny_city", "train", 64, 0)
    labels = training_labels(examples, "true", 0)
    one, two = (finetune(m, examples, labels, CONFIG, s) for m, s in ((lm, 0), (other, 1)))
    assert one.loss[0] != two.loss[0]


def test_training_leaves_global_state_alone(lm):
    random, grad = torch.get_rng_state(), torch.is_grad_enabled()
    trained(lm)
    assert (torch.get_rng_state() == random).all()
    assert torch.is_grad_enabled() == grad


def test_dynamics_record_every_example_s_confidence_on_the_way(lm):
    config = TrainConfig(learning_rate=3e-3, epochs=8, record_steps=4)
    examples, log = trained(lm, config=config)
    dynamics = log.dynamics
    assert dynamics.steps.tolist() == [0, 16, 32, 48, 64]
    assert dynamics.confidence.shape == (5, 64)
    after = stats.confidence(scoring.score(lm, examples))
    assert dynamics.confidence[-1] == pytest.approx(after)
    assert dynamics.confidence[0].mean() < 0.6 < dynamics.confidence[-1].mean()


@pytest.mark.parametrize(("n_steps", "n"), [(10, 100), (40, 60), (64, 4), (5, 5), (7, 1)])
def test_records_are_spread_over_the_whole_training(n_steps, n):
    steps = sorted(training._record_steps(n_steps, n))
    assert len(steps) == min(n, n_steps)
    assert steps[0] == 0
    assert n_steps - steps[-1] <= np.ceil(n_steps / n)


def test_recording_does_not_change_what_is_learned(lm):
    _, with_records = trained(lm, config=TrainConfig(3e-3, epochs=8, record_steps=4))
    _, without = trained(models.load("tiny", dtype="float32", device="cpu"))
    assert (with_records.loss == without.loss).all()


def test_progress_is_reported(lm):
    examples = tasks.load("tiny_city", "train", 16, 0)
    seen = []
    labels = training_labels(examples, "true", 0)
    finetune(lm, examples, labels, TrainConfig(1e-3, epochs=2), 0, lambda *s: seen.append(s))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_loss_worse_than_guessing_stops_the_training():
    lm = models.load("tiny", tuning="full", dtype="float32", device="cpu")
    with pytest.raises(TrainingDiverged, match=r"on tiny_city at step.*Lower the learning rate"):
        trained(lm, config=TrainConfig(learning_rate=0.9, epochs=8, max_grad_norm=1e9))


def test_a_loss_that_is_not_a_number_stops_the_training(lm):
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"at step 1 of 64: expected a finite loss.*nan"):
        trained(lm)


def test_labels_must_fit_the_examples(lm):
    examples = tasks.load("tiny_city", "train", 4, 0)
    with pytest.raises(InputError, match="found 4 examples and 3 labels"):
        finetune(lm, examples, np.zeros(3, int), CONFIG, 0)


def test_adafactor_moves_as_transformers_s_own_on_the_same_gradients(lm):
    """Several weights in groups: as one optimiser of them all."""
    examples = tasks.load("tiny_city", "train", 8, 0)
    labels = training_labels(examples, "true", 0)
    other = models.load("tiny", dtype="float32", device="cpu")
    config = TrainConfig(1e-2, epochs=3, warmup=0.0, optimizer="adafactor")
    finetune(lm, examples, labels, config, 0)
    parameters = list(other.trainable.values())
    theirs = Adafactor(parameters, lr=1e-2, scale_parameter=False, relative_step=False)
    sequences = [models.encode(other, e, int(c)) for e, c in zip(examples, labels, strict=True)]
    batch = models.collate(other, [[s] for s in sequences])
    for step in range(3):
        loss = -models.response_log_likelihoods(other, batch).sum() / len(batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        for group in theirs.param_groups:
            group["lr"] = 1e-2 * learning_rate_factor(step, 3, 0.0)
        theirs.step()
        theirs.zero_grad()
    for name, parameter in lm.trainable.items():
        assert torch.allclose(parameter, other.trainable[name], atol=1e-5), name


def test_what_a_broken_off_training_left_does_not_reach_the_next(lm):
    start = lm.weights()
    _, expected = trained(lm)
    lm.set_weights(start)
    for parameter in lm.trainable.values():
        parameter.grad = torch.full_like(parameter, torch.nan)
    _, again = trained(lm)
    assert again.loss.tolist() == expected.loss.tolist()


def test_adafactor_keeps_two_vectors_a_matrix(lm):
    parameters = list(lm.trainable.values())
    optimizer = training._Optimizer(parameters, TrainConfig(1e-3, optimizer="adafactor"))
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
    monkeypatch.setattr(training, "GROUP_NUMBERS", group_numbers)
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    config = TrainConfig(1e-2, weight_decay=0.1)
    ours, theirs = parameters_of(dtype), parameters_of(dtype)
    together = training._Optimizer(ours, config)
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
    monkeypatch.setattr(training, "GROUP_NUMBERS", 5000)
    parameters = parameters_of(torch.float32)
    found = training._Optimizer(parameters, TrainConfig(1e-3, optimizer=optimizer))
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
    training._Optimizer(list(lm.trainable.values()), TrainConfig(1e-3)).step(1.0)
    assert all(torch.equal(w, before[n]) for n, w in lm.weights().items())


def test_the_optimiser_is_part_of_a_run_s_identity_and_older_ids_hold():
    spec = experiment.study("quick").specs()[1]
    assert "optimizer" not in spec.to_dict()["train"]
    other = replace(spec, train=replace(spec.train, optimizer="adafactor"))
    assert other.run_id != spec.run_id
    assert RunSpec.from_dict(other.to_dict()) == other
    assert RunSpec.from_dict(spec.to_dict()) == spec
