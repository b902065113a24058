import itertools

import numpy as np
import pytest
import torch

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels, training_labels
from forgetlib.forgetting.loop import TrainingDiverged, learning_rate_factor
from forgetlib.forgetting.optimizer import Optimizer
from forgetlib.measuring import scoring
from forgetlib.models import forward, loading, memory

SETTINGS = Training(learning_rate=3e-3, epochs=8)
LONG = Training(learning_rate=3e-3, epochs=40)


@pytest.fixture
def lm():
    return loading.load("tiny", dtype="float32", device="cpu")


def trained(lm, labels="true", training=SETTINGS, n=64, seed=0, task="tiny_city", **options):
    examples = splits.load(task, "train", n, seed)
    method = Labels(labels, training)
    return examples, loop.train(lm, method, Context(seed, examples), **options)


def accuracy(lm, examples):
    return metrics.correct(scoring.score(lm, examples)).mean()


def test_warm_up_rises_and_decay_falls_to_zero():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[9] == factors[10] == 1.0
    assert np.allclose(np.diff(factors[:10]), 0.1)
    assert np.allclose(np.diff(factors[10:]), -1 / 90)
    assert factors[-1] == pytest.approx(1 / 90)
    assert learning_rate_factor(0, 1, 0.0) == 1.0


def test_true_labels_are_learned_and_flipped_labels_are_too(lm):
    examples, losses = trained(lm, training=LONG)
    assert len(losses) == 40 * 8
    assert losses[-8:].mean() < losses[:8].mean() - 1
    assert accuracy(lm, examples) > 0.9
    trained(lm, "flipped", LONG)
    assert accuracy(lm, examples) < 0.2


def test_training_is_towards_the_labels_given(lm):
    """The positive control of forgetting: after random labels, the model gives those labels."""
    examples = splits.load("tiny_review", "train", 64, 0)
    labels = training_labels(examples, "random", 0)
    loop.train(lm, Labels("random", LONG), Context(0, examples))
    scores = scoring.score(lm, examples)
    assert (metrics.predictions(scores) == labels).mean() > 0.9
    assert metrics.correct(scores).mean() == pytest.approx(
        (labels == scores.labels).mean(), abs=0.1
    )


def test_the_first_loss_is_the_mean_over_the_batch_s_response_tokens(lm):
    examples = splits.load("tiny_city", "train", 8, 0)
    labels = training_labels(examples, "true", 0)
    scores = scoring.score(lm, examples)
    chosen = (
        scores.log_likelihoods[range(8), labels].sum() / scores.n_tokens[range(8), labels].sum()
    )
    losses = loop.train(lm, Labels("true", Training(1e-6, epochs=1)), Context(0, examples))
    assert losses[0] == pytest.approx(-chosen, rel=1e-4)


def test_splitting_a_batch_to_bound_memory_does_not_change_what_is_learned(lm, monkeypatch):
    _, whole = trained(lm)
    other = loading.load("tiny", dtype="float32", device="cpu")
    monkeypatch.setitem(memory.BACKWARD_TOKENS, "cpu", 1)
    _, split = trained(other)
    assert split == pytest.approx(whole, rel=1e-2)


@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_only_what_is_tuned_changes(tuning):
    lm = loading.load("tiny", tuning=tuning, dtype="float32", device="cpu")
    before = {n: p.detach().clone() for n, p in lm.model.named_parameters()}
    _, losses = trained(lm)
    assert losses[-1] < losses[0]
    changed = {n for n, p in lm.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(lm.trainable)


def test_bf16_weights_learn_because_their_masters_are_fp32():
    """Steps of 1e-6 vanish when added to bf16 weights one by one; on the masters they add up."""
    lm = loading.load("tiny", dtype="bfloat16", device="cpu")
    before = lm.weights()
    _, losses = trained(lm, training=Training(learning_rate=2e-5, epochs=40))
    assert any(not torch.equal(w, before[n]) for n, w in lm.weights().items())
    assert losses[-8:].mean() < losses[:8].mean()


def test_the_same_run_twice_gives_the_same_bits():
    logs, weights = [], []
    for _ in range(2):
        torch.manual_seed(len(logs))  # the caller's global state must not matter
        lm = loading.load("tiny", dtype="float32", device="cpu")
        logs.append(trained(lm)[1])
        weights.append(lm.weights())
    assert (logs[0] == logs[1]).all()
    assert all(torch.equal(w, weights[1][n]) for n, w in weights[0].items())


def test_another_seed_trains_in_another_order(lm):
    other = loading.load("tiny", dtype="float32", device="cpu")
    examples = splits.load("tiny_city", "train", 64, 0)
    method = Labels("true", SETTINGS)
    one, two = (loop.train(m, method, Context(s, examples)) for m, s in ((lm, 0), (other, 1)))
    assert one[0] != two[0]


def test_training_leaves_global_state_alone(lm):
    random, grad = torch.get_rng_state(), torch.is_grad_enabled()
    trained(lm)
    assert (torch.get_rng_state() == random).all()
    assert torch.is_grad_enabled() == grad


@pytest.mark.parametrize(("n_steps", "n"), [(10, 100), (40, 60), (64, 4), (5, 5), (7, 1)])
def test_records_are_spread_over_the_whole_training(n_steps, n):
    steps = sorted(loop.spaced_steps(n_steps, n))
    assert len(steps) == min(n, n_steps)
    assert steps[0] == 0
    assert n_steps - steps[-1] <= np.ceil(n_steps / n)


def test_progress_is_reported(lm):
    seen = []
    trained(lm, training=Training(1e-3, epochs=2), n=16, on_step=lambda *s: seen.append(s))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_loss_worse_than_guessing_stops_the_training():
    lm = loading.load("tiny", tuning="full", dtype="float32", device="cpu")
    with pytest.raises(TrainingDiverged, match=r"on tiny_city at step.*Lower the learning rate"):
        trained(lm, training=Training(learning_rate=0.9, epochs=8, max_grad_norm=1e9))


def test_a_loss_that_is_not_a_number_stops_the_training(lm):
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"at step 1 of 64: expected a finite loss.*nan"):
        trained(lm)


@pytest.mark.parametrize("every", [3, 20])
def test_losses_that_are_read_together_are_those_that_are_read_at_once(lm, monkeypatch, every):
    """As on a GPU, which is not asked at every step."""
    start = lm.weights()
    (_, at_once), after = trained(lm), lm.weights()
    lm.set_weights(start)
    monkeypatch.setitem(loop.READ_EVERY, "cpu", every)
    assert trained(lm)[1].tolist() == at_once.tolist()
    assert all((w == after[name]).all() for name, w in lm.weights().items())


def test_a_training_that_has_failed_is_not_looked_at(lm, monkeypatch):
    monkeypatch.setitem(loop.READ_EVERY, "cpu", 20)
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(float("nan"))
    looked = []
    with pytest.raises(TrainingDiverged, match="at step 1 of 64"):
        trained(lm, watches=[({3, 5}, looked.append)])
    assert looked == []


def test_a_loss_that_is_judged_later_is_told_with_its_own_step(lm, monkeypatch):
    start, steps = lm.weights(), []

    class Until(Labels, registered=False):
        def diverged(self, losses, worst):
            steps.append(len(losses))
            return "enough" if len(losses) == 5 else None

    for every in (1, 4):
        monkeypatch.setitem(loop.READ_EVERY, "cpu", every)
        lm.set_weights(start)
        context = Context(0, tuple(splits.load("tiny_city", "train", 40, 0)))
        with pytest.raises(TrainingDiverged, match=r"at step 5 of \d+: .*found enough"):
            loop.train(lm, Until("true", SETTINGS), context)
    assert steps == [1, 2, 3, 4, 5] * 2


def test_what_a_broken_off_training_left_does_not_reach_the_next(lm):
    start = lm.weights()
    _, expected = trained(lm)
    lm.set_weights(start)
    for parameter in lm.trainable.values():
        parameter.grad = torch.full_like(parameter, torch.nan)
    _, again = trained(lm)
    assert again.tolist() == expected.tolist()


def as_before_methods(lm, examples, labels, training, seed):
    """The loop as it was when labels were all that it knew, from its parts: (steps,) losses."""
    sequences = [
        forward.encode(lm, example, int(label))
        for example, label in zip(examples, labels, strict=True)
    ]
    parameters = list(lm.trainable.values())
    optimizer = Optimizer(parameters, training)
    rng = np.random.default_rng([seed, len(examples)])
    orders = [rng.permutation(len(examples)) for _ in range(training.epochs)]
    size = training.batch_size
    batches = [o[i : i + size] for o in orders for i in range(0, len(examples), size)]
    losses = np.empty(len(batches), np.float32)
    for step, order in enumerate(batches):
        batch = [sequences[i] for i in order]
        total = torch.zeros(())
        lengths = [[len(s.tokens) - 1] for s in batch]
        for group, _ in forward.passes(lm, lengths, memory.BACKWARD_TOKENS["cpu"]):
            inputs = forward.collate(lm, [[batch[i]] for i in group])
            log_likelihoods = forward.response_log_likelihoods(lm, inputs)
            loss = -log_likelihoods.sum() / sum(s.n_response for s in batch)
            loss.backward()
            total += loss.detach()
        losses[step] = float(total)
        optimizer.step(learning_rate_factor(step, len(batches), training.warmup))
    return losses


@pytest.mark.parametrize("labels", ["true", "random", "flipped"])
@pytest.mark.parametrize(
    ("budget", "optimizer", "packs"),
    [
        (2048, "adamw", "tree"),
        (40, "adamw", "tree"),
        (40, "adafactor", "tree"),
        (2048, "adafactor", None),
    ],
)
def test_labels_train_to_the_bit_as_before_there_were_methods(
    lm, labels, budget, optimizer, packs, monkeypatch
):
    """So that every stored result holds: losses and weights, whatever the passes."""
    monkeypatch.setitem(memory.BACKWARD_TOKENS, "cpu", budget)
    assert lm.packs == "tree"
    lm.packs = packs
    training = Training(3e-3, epochs=2, optimizer=optimizer)
    examples = splits.load("tiny_review", "train", 20, 5)
    drawn, start = training_labels(examples, labels, 5), lm.weights()

    def ended(losses):
        weights = lm.weights()
        lm.set_weights(start)
        return losses.tobytes(), {name: w.numpy().tobytes() for name, w in weights.items()}

    expected = ended(as_before_methods(lm, examples, drawn, training, 5))
    assert ended(loop.train(lm, Labels(labels, training), Context(5, examples))) == expected
    assert len(expected[0]) == 4 * 6


def test_the_order_of_stored_trainings_is_drawn_again():
    """Numbers that may never change: every stored training was in this order."""
    batches = loop._batches(10, Training(1e-3, epochs=2, batch_size=4), 3)
    first, second = [[7, 6, 4, 5], [1, 9, 2, 3], [0, 8]], [[9, 4, 7, 6], [3, 5, 1, 0], [8, 2]]
    assert [b.tolist() for b in batches] == first + second
    retained = itertools.islice(loop._retained(10, 4, 3), 10)
    assert list(retained) == [13, 12, 11, 10, 13, 10, 12, 11, 10, 13]


def test_the_model_is_watched_before_the_steps_asked_for_and_at_the_end(lm):
    seen = []

    def look(step):
        seen.append((step, metrics.confidence(scoring.score(lm, examples)).mean()))

    examples = splits.load("tiny_city", "train", 64, 0)
    steps = loop.spaced_steps(SETTINGS.n_steps(64), 4)
    _, losses = trained(lm, watches=[(steps, look)])
    assert [step for step, _ in seen] == [0, 16, 32, 48, 64]
    assert seen[0][1] < 0.6 < seen[-1][1]
    _, without = trained(loading.load("tiny", dtype="float32", device="cpu"))
    assert (losses == without).all()


def test_examples_are_needed(lm):
    with pytest.raises(InputError, match="train: expected examples, found none"):
        loop.train(lm, Labels("true", SETTINGS), Context(0))


def test_an_example_given_twice_is_refused():
    examples = splits.load("tiny_city", "train", 4, 0)
    with pytest.raises(InputError, match="expected every uid once, found repeated"):
        Context(0, examples, retain=examples[:1])
