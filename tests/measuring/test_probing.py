"""Hidden states and linear probes, against scikit-learn and a loop of one sequence at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from forgetlib.data import splits, tasks
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.measuring import probing
from forgetlib.measuring.base import Asked
from forgetlib.models import forward
from forgetlib.runs.specs import Measurement


def examples(n=16):
    """Shared prompts, prompts of their own, and answers of several tokens."""
    single = [e for name in tasks.suite("tiny") for e in splits.load(name, "test", n // 4, 0)]
    partial = [
        Example(f"partial/test/{i}", (f"{e.prompts[0]} good", f"{e.prompts[0]} bad"), e.choices, 0)
        for i, e in enumerate(single[:3])
    ]
    return single + partial


@pytest.mark.parametrize("packs", ["tree", "mask", None])
def test_hidden_states_equal_a_loop_of_single_sequences(tiny, packs):
    lm = replace(tiny, packs=packs)
    found = probing.hidden_states(lm, examples(), token_budget=60)
    for i, example in enumerate(examples()):
        for choice in (0, 1):
            sequence = forward.encode(lm, example, choice)
            output = lm.model(torch.tensor([sequence.tokens]), output_hidden_states=True)
            states = torch.stack(output.hidden_states)[:, 0]  # (P, T, D)
            assert torch.allclose(found.answer[i, choice], states[:, -1], atol=1e-4)
            if choice == 0:
                last_of_question = states[:, -sequence.n_response - 1]
                assert torch.allclose(found.question[i], last_of_question, atol=1e-4)


def test_variance_is_the_trace_of_the_covariance_matrix():
    states = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(7)
    trace = np.trace(np.cov(states.numpy().T))
    assert probing.deviation(states).sum() / 39 == pytest.approx(trace, rel=1e-5)


def test_the_paper_s_layer_is_the_fifth_to_last_hidden_state():
    assert list(range(33))[probing.paper_layer(32)] == list(range(33))[-5]  # Llama-2-7B
    assert probing.paper_layer(2) == 1


def data(n, width=12, n_layers=2, signal=(0.0, 1.0), seed=0):
    """(P, M, D) features of which one direction tells the target, at the second layer only."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 2
    features = torch.randn(n_layers, n, width, generator=generator)
    for layer, strength in enumerate(signal):
        features[layer, :, 3] += strength * (2 * targets - 1)
    return features * 5 + 2, targets[:, None]


def test_without_early_stopping_the_probe_is_scikit_learn_s_logistic_regression():
    features, targets = data(200)
    l2 = 0.05
    linear = probing.fit(features, targets, l2=l2, learning_rate=0.01, max_steps=4000)
    for layer in range(2):
        x = (features[layer] - linear.mean[layer]) / linear.scale[layer]
        # The package's scikit-learn is at its default penalty, L2.
        theirs = LogisticRegression(C=1 / (l2 * 200), tol=1e-8, max_iter=5000)
        theirs.fit(x.numpy(), targets[:, 0].numpy())
        assert linear.weight[layer, :, 0].numpy() == pytest.approx(theirs.coef_[0], abs=2e-3)
        assert linear.bias[layer, 0, 0].item() == pytest.approx(theirs.intercept_[0], abs=2e-3)


def test_fits_do_not_disturb_each_other():
    features, targets = data(100)
    other = (torch.arange(100) % 3 == 0)[:, None]
    held_out = torch.arange(100) >= 80
    both = probing.fit(features, torch.cat([targets, other], 1), held_out, max_steps=120)
    for layer in range(2):
        for k, target in enumerate((targets, other)):
            alone = probing.fit(features[layer : layer + 1], target, held_out, max_steps=120)
            assert torch.allclose(both.weight[layer, :, k], alone.weight[0, :, 0], atol=1e-5)


def test_early_stopping_keeps_a_probe_of_noise_from_memorising_it():
    features, targets = data(60, width=300, signal=(0.0, 0.0))
    held_out = torch.arange(60) >= 40
    stopped = probing.fit(features, targets, held_out)
    memorised = probing.fit(features, targets, max_steps=400)
    norms = [float(p.weight.norm()) for p in (stopped, memorised)]
    assert norms[0] < norms[1] / 3
    fitted = (memorised.logits(features) > 0)[..., 0] == targets[:, 0]
    assert fitted.all()


def test_held_out_rows_are_not_fitted():
    features, targets = data(100)
    held_out = torch.arange(100) >= 80
    poisoned = features.clone()
    poisoned[:, held_out] = 1e4 * torch.randn(2, 20, 12)
    one, other = (probing.fit(f, targets, held_out, max_steps=1) for f in (features, poisoned))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.scale, other.scale)


class Reads:
    """Stands for a model whose hidden states tell, at layer 1 only, which answer is right."""

    def __init__(self, n_layers=2, width=8):
        self.shape, self.generator = (n_layers + 1, width), torch.Generator().manual_seed(1)

    def __call__(self, lm, examples):
        n_layers, width = self.shape
        question = torch.randn(len(examples), n_layers, width, generator=self.generator)
        answer = torch.randn(len(examples), 2, n_layers, width, generator=self.generator)
        for i, example in enumerate(examples):
            answer[i, example.label, 1, 0] += 4
        return probing.HiddenStates(question, answer)


def asked_of(lm, train, test):
    """What a probe is asked of these questions."""
    asked = Measurement("probe", "tiny_city", "test", len(test), fit_on=len(train))
    return Asked(lm, asked, lambda split, n: {"train": train, "test": test}[split])


def test_a_probe_finds_what_is_there_and_its_control_does_not(tiny, monkeypatch):
    monkeypatch.setattr(probing, "hidden_states", Reads())
    train, test = (splits.load("tiny_city", part, 120, 0) for part in ("train", "test"))
    found = probing.probe(asked_of(tiny, train, test))
    assert found.correct.shape == (3, 120, 2)
    accuracy = found.correct.mean((1, 2))
    assert accuracy[1] > 0.9
    assert abs(accuracy[[0, 2]] - 0.5).max() < 0.12
    assert found.control.shape == (probing.N_CONTROLS, 3)
    # Labels drawn at random agree with the truth by accident, and disagree as often.
    assert abs(np.median(found.control, axis=0) - 0.5).max() < 0.1
    assert np.ptp(found.control[:, 1]) > np.ptp(found.control[:, [0, 2]])


def test_probing_leaves_the_model_and_torch_s_generator_alone(tiny):
    state, before = torch.get_rng_state(), tiny.weights()
    train, test = (splits.load("tiny_city", part, 12, 0) for part in ("train", "test"))
    one, other = (probing.probe(asked_of(tiny, train, test)) for _ in range(2))
    assert (one.correct == other.correct).all()
    assert (one.control == other.control).all()
    one, other = (probing.hidden_variance(asked_of(tiny, train, test)) for _ in range(2))
    assert (one.deviation == other.deviation).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[n], w) for n, w in tiny.weights().items())
    assert all(p.grad is None for p in tiny.model.parameters())


def test_no_examples_is_an_error(tiny):
    with pytest.raises(InputError, match="hidden_states: expected examples, found none"):
        probing.hidden_states(tiny, [])
