"""Selective dampening and pruning against loops over examples, by transformers alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.selective import SSD, SelectivePruning, activity, importance
from forgetlib.measuring.scoring import score
from forgetlib.models import forward, loading, memory

REVIEW = ("tiny_review",)


def longer(examples):
    """Some prompts with more words than others, some answers of two words."""
    found = []
    for i, e in enumerate(examples):
        prompts = tuple(f"{p} " * (1 + i % 3) for p in e.prompts)
        choices = tuple(f"{c} {c}" for c in e.choices) if i % 4 == 0 else e.choices
        found.append(replace(e, prompts=prompts, choices=choices))
    return found


def city(n=12):
    return longer(splits.load("tiny_city", "train", n, 0))


def review(n=8):
    return longer(splits.load("tiny_review", "train", n, 0))


@pytest.fixture(scope="module")
def taught():
    lm = loading.load("tiny", dtype="float32", device="cpu")
    examples = [*city(), *review()]
    loop.train(lm, Labels("true", Training(1e-2, epochs=20, batch_size=20)), Context(0, examples))
    return lm, lm.weights()


@pytest.fixture
def lm(taught):
    model, weights = taught
    model.set_weights(weights)
    return model


def harm(lm, method, start):
    """What a method adds to the loss of both tasks, in nats a token."""
    found = []
    for examples in (city(), review()):
        lm.set_weights(start)
        before = metrics.nll_a_token(score(lm, examples)).mean()
        loop.apply(lm, method, Context(0, city(), review()))
        found.append(metrics.nll_a_token(score(lm, examples)).mean() - before)
    return found


def squared_gradients(lm, examples):
    """By name, the mean of squared gradients, each of one example's loss by transformers."""
    total = {n: torch.zeros_like(p) for n, p in lm.trainable.items()}
    for e in examples:
        s = forward.encode(lm, e, e.label)
        logits = lm.model(torch.tensor([s.tokens])).logits[0, -s.n_response - 1 : -1]
        loss = F.cross_entropy(logits, torch.tensor(s.tokens[-s.n_response :]))
        grads = torch.autograd.grad(loss, list(lm.trainable.values()), allow_unused=True)
        for name, g in zip(total, grads, strict=True):
            total[name] += 0 if g is None else g**2
    return {n: t / len(examples) for n, t in total.items()}


def test_importance_is_the_mean_of_squared_gradients(lm):
    expected = squared_gradients(lm, city())
    for name, found in importance(lm, city()).items():
        scale = float(expected[name].max())
        assert torch.allclose(found, expected[name], rtol=1e-3, atol=1e-5 * scale), name
        assert lm.trainable[name].grad is None


def test_a_weight_is_dampened_where_it_matters_more_to_what_is_forgotten(lm):
    """Weight by weight, of the first 300 of each tensor."""
    start = lm.weights()
    forget, keep = importance(lm, city()), importance(lm, review())
    loop.apply(lm, SSD(REVIEW, 16.0, 0.5), Context(0, city(), review()))
    n_dampened = n_spared = 0
    for name, weight in lm.weights().items():
        values = (start[name], weight, forget[name], keep[name])
        for old, new, f, k in zip(*(v.flatten()[:300].tolist() for v in values), strict=True):
            selected = f > 16.0 * k
            expected = old * min(0.5 * k / f, 1.0) if selected else old
            assert abs(new - expected) <= 1e-4 * abs(expected), name
            n_dampened += selected
            n_spared += not selected
    assert n_dampened > 100
    assert n_spared > 100


@pytest.mark.parametrize("settings", [{"threshold": 1e12}, {"threshold": 1.0, "dampening": 1e12}])
def test_a_huge_threshold_changes_nothing_and_nor_does_no_dampening(lm, settings):
    start = lm.weights()
    keep = importance(lm, review())
    assert min(float(k.min()) for k in keep.values()) >= 0
    loop.apply(lm, SSD(REVIEW, **settings), Context(0, city(), review()))
    for name, weight in lm.weights().items():
        # Where nothing retained has a gradient, no threshold is huge.
        assert torch.equal(weight[keep[name] > 0], start[name][keep[name] > 0]), name


def test_dampening_harms_what_is_forgotten_more(lm, taught):
    of_city, of_review = harm(lm, SSD(REVIEW, 2.0), taught[1])
    assert of_city > 0.1
    assert of_review < of_city / 2


def absolute_activations(lm, examples):
    """By layer, the mean over tokens of absolute inputs, sequence by sequence."""
    total, n_tokens = {}, 0
    for e in examples:
        seen = {}
        handles = [
            m.register_forward_pre_hook(
                lambda _, x, n=n, seen=seen: seen.update({n: x[0][0].detach()})
            )
            for n, m in lm.model.named_modules()
            if n.endswith(("o_proj", "down_proj"))
        ]
        tokens = forward.encode(lm, e, e.label).tokens[:-1]
        lm.model(torch.tensor([tokens]))
        for handle in handles:
            handle.remove()
        n_tokens += len(tokens)
        for n, x in seen.items():
            total[n] = total.get(n, 0) + x.abs().sum(0)
    return {n: t / n_tokens for n, t in total.items()}


@pytest.mark.parametrize("budget", [2048, 40])
def test_activity_is_the_mean_of_absolute_activations(lm, monkeypatch, budget):
    monkeypatch.setitem(memory.BACKWARD_TOKENS, "cpu", budget)
    expected = absolute_activations(lm, city())
    found = activity(lm, city())
    assert found.keys() == expected.keys() and len(found) == 4
    for name, values in found.items():
        assert torch.allclose(values, expected[name], rtol=1e-3, atol=1e-6), name


def test_the_share_of_neurons_with_the_highest_scores_is_removed(lm):
    start = lm.weights()
    forget, keep = absolute_activations(lm, city()), absolute_activations(lm, review())
    loop.apply(lm, SelectivePruning(REVIEW, 0.1), Context(0, city(), review()))
    after = lm.weights()
    for part, n_neurons in (("o_proj", 2 * 64), ("down_proj", 2 * 128)):
        scored = sorted(
            (float(forget[n][i] / (keep[n][i] + 1e-5)), n, i)
            for n in forget
            if n.endswith(part)
            for i in range(len(forget[n]))
        )
        assert len(scored) == n_neurons
        removed = {(n, i) for _, n, i in scored[-int(0.1 * n_neurons) :]}
        found = {(n, i) for _, n, i in scored if (after[f"{n}.weight"][:, i] == 0).all()}
        assert found == removed
        for _, n, i in scored[: -len(removed)]:
            assert torch.equal(after[f"{n}.weight"][:, i], start[f"{n}.weight"][:, i])
    others = [n for n in start if not n.endswith(("o_proj.weight", "down_proj.weight"))]
    assert all(torch.equal(after[n], start[n]) for n in others)


def test_pruning_is_what_silent_neurons_would_do(lm):
    """Scores with the weights removed are those with the neurons' activations at 0."""
    start = lm.weights()
    loop.apply(lm, SelectivePruning(REVIEW, 0.3), Context(0, city(), review()))
    pruned, after = score(lm, city()).log_likelihoods, lm.weights()
    lm.set_weights(start)

    def silence(name):
        alive = (after[f"{name}.weight"] != 0).any(0)
        return lambda module, inputs: (inputs[0] * alive,)

    names = [n for n, _ in lm.model.named_modules() if n.endswith(("o_proj", "down_proj"))]
    handles = [lm.model.get_submodule(n).register_forward_pre_hook(silence(n)) for n in names]
    silent = score(lm, city()).log_likelihoods
    for handle in handles:
        handle.remove()
    assert pruned == pytest.approx(silent, abs=1e-4)
    assert np.abs(pruned - score(lm, city()).log_likelihoods).max() > 0.05


@pytest.mark.parametrize("architecture", ["gpt2", "gptj", "gemma3_text", "qwen3"])
def test_pruning_finds_the_neurons_of_other_architectures(architecture, tmp_path, tiny):
    from conftest import save_random_model

    path = save_random_model(architecture, tiny.tokenizer, tmp_path)
    lm = loading.load(str(path), dtype="float32", device="cpu")
    start = lm.weights()
    loop.apply(lm, SelectivePruning(REVIEW, 0.25), Context(0, city(), review()))
    assert {len(a) for a in activity(lm, city(2)).values()} == {
        32,
        128 if "gpt" in architecture else 64,
    }
    changed = [n for n, w in lm.weights().items() if not torch.equal(w, start[n])]
    assert 2 <= len(changed) <= 4


def test_pruning_harms(lm, taught):
    of_city, _ = harm(lm, SelectivePruning(REVIEW, 0.2), taught[1])
    assert of_city > 0.01


def test_pruning_needs_weights_that_it_may_change():
    lm = loading.load("tiny", tuning="lora", dtype="float32", device="cpu")
    with pytest.raises(InputError, match=r"of which 0 may be changed\. Use tuning 'body'"):
        loop.apply(lm, SelectivePruning(REVIEW), Context(0, city(), review()))


@pytest.mark.parametrize("method", [SSD(REVIEW), SelectivePruning(REVIEW)], ids=lambda m: m.name)
def test_both_sets_are_needed(lm, method):
    with pytest.raises(InputError, match="expected examples to forget, found none"):
        loop.apply(lm, method, Context(0, (), review()))
    with pytest.raises(InputError, match="expected examples of the retain set, found none"):
        loop.apply(lm, method, Context(0, city()))
    assert method_from_dict(method.to_dict()) == method
    assert method.kind == "edit"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SSD(()), "and at least one, found ()"),
        (lambda: SSD(REVIEW, 0.0), "SSD.threshold: expected a number above 0"),
        (lambda: SSD(REVIEW, dampening=-1.0), "SSD.dampening: expected a number above 0"),
        (lambda: SelectivePruning(REVIEW, 1.0), "SelectivePruning.share: expected a share"),
        (lambda: SelectivePruning(()), "and at least one, found ()"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
