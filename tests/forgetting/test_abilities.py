"""What a method with a loss can do, each shown by a toy: stop, retain, refer back, reach inside."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import base, context, loop
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.context import Context, hidden_states
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.loop import TrainingDiverged
from forgetlib.measuring.scoring import score
from forgetlib.models import forward, loading, memory

TRAINING = Training(1e-3, epochs=3)
ONE_STEP = Training(1e-3, epochs=1, batch_size=24, warmup=0.0)


@pytest.fixture
def lm():
    return loading.load("tiny", dtype="float32", device="cpu")


@pytest.fixture(params=[2048, 40])
def passes(request, monkeypatch):
    """In one pass a batch, and in many: the shares add up."""
    monkeypatch.setitem(memory.BACKWARD_TOKENS, "cpu", request.param)


def city(n=24):
    return splits.load("tiny_city", "train", n, 0)


def review(n=10):
    return splits.load("tiny_review", "train", n, 0)


def of_true(lm, examples):
    """(N,) log-likelihoods of the true responses and (N,) their tokens, by `score`."""
    scores = score(lm, examples)
    rows = range(len(examples))
    return scores.log_likelihoods[rows, scores.labels], scores.n_tokens[rows, scores.labels]


@dataclass(frozen=True)
class ToyAscent(Method):
    """Ascent that fails below `floor` and is done below `enough`."""

    training: Training
    floor: float = -1e9
    enough: float = -1e9

    def loss(self, lm, batch, context):
        return forward.response_log_likelihoods(lm, batch.inputs).sum() / batch.n_tokens

    def diverged(self, losses, worst):
        return f"{losses[-1]:.3g}, below {self.floor}" if losses[-1] < self.floor else None

    def finished(self, step, losses, context):
        assert step == len(losses)
        return losses[-1] < self.enough


def test_ascent_makes_the_true_response_unlikely(lm, passes):
    before, n_tokens = of_true(lm, city())
    losses = loop.train(lm, ToyAscent(ONE_STEP), Context(0, city()))
    assert losses[0] == pytest.approx(before.sum() / n_tokens.sum(), rel=1e-4)
    loop.train(lm, ToyAscent(TRAINING), Context(0, city()))
    assert of_true(lm, city())[0].mean() < before.mean() - 0.5


def test_a_method_has_a_stopping_rule_of_its_own(lm):
    """The usual one, which would take ascent for a success, is not asked."""
    with pytest.raises(TrainingDiverged, match=re.escape("rule of method 'toy_ascent'")) as error:
        loop.train(lm, ToyAscent(TRAINING, floor=0.0), Context(0, city()))
    assert "at step 1 of 9" in str(error.value)
    assert "below 0.0" in error.value.found
    assert base.Method.diverged(Labels("true", TRAINING), np.full(20, 9.0), 7.9) is not None
    assert base.Method.diverged(Labels("true", TRAINING), np.full(19, 9.0), 7.9) is None
    assert base.Method.diverged(Labels("true", TRAINING), np.full(20, 8.8), 7.9) is None


def test_a_training_can_be_done_before_its_last_step(lm):
    start = lm.weights()
    whole = loop.train(lm, ToyAscent(TRAINING), Context(0, city()))
    lm.set_weights(start)
    seen = []
    method = ToyAscent(TRAINING, enough=float(whole[4]) + 1e-6)
    losses = loop.train(lm, method, Context(0, city()), watches=[({0, 8}, seen.append)])
    n = int(np.argmax(whole < method.enough)) + 1
    assert losses.tolist() == whole[:n].tolist()
    assert 1 < n < len(whole)
    assert seen == [0, n]


@dataclass(frozen=True)
class ToyDifference(Method):
    """Gradient difference: away from the true responses, and towards those of a retain set."""

    retain: tuple[str, ...]
    weight: float
    training: Training

    def loss(self, lm, batch, context):
        found = forward.response_log_likelihoods(lm, batch.inputs)
        assert len(batch.sequences) == len(found) == len(batch.retained)
        forget = found[~batch.retained].sum() / batch.n_tokens
        return forget - self.weight * found[batch.retained].sum() / batch.n_retained_tokens

    def diverged(self, losses, worst):
        return None


def test_a_retain_set_is_trained_on_beside_the_examples_to_forget(lm, passes):
    """Each step has as many of it as examples: of 6, with 24 in a batch, each is there 4 times."""
    forget, n_forget = of_true(lm, city())
    keep, n_keep = of_true(lm, review(6))
    method = ToyDifference(("tiny_review",), 0.5, ONE_STEP)
    losses = loop.train(lm, method, Context(0, city(), retain=review(6)))
    expected = forget.sum() / n_forget.sum() - 0.5 * keep.sum() / n_keep.sum()
    assert losses.tolist() == pytest.approx([expected], rel=1e-4)


def test_a_retain_set_keeps_what_ascent_alone_forgets(lm):
    def left(weight):
        lm.set_weights(start)
        method = ToyDifference(("tiny_review",), weight, Training(1e-3, epochs=8))
        loop.train(lm, method, Context(0, city(), retain=review()))
        return of_true(lm, review())[0].mean()

    start = lm.weights()
    assert left(1.0) > left(0.0) + 1


def test_the_retain_set_is_there_exactly_where_the_method_names_one(lm):
    with pytest.raises(InputError, match=r"retain set of train: .*tiny_review.*found 0 examples"):
        loop.train(lm, ToyDifference(("tiny_review",), 1.0, TRAINING), Context(0, city()))
    with pytest.raises(InputError, match=r"retain set of train: .*found 10 examples"):
        loop.train(lm, ToyAscent(TRAINING), Context(0, city(), retain=review()))


@dataclass(frozen=True)
class ToyPreference(Method):
    """NPO on both responses: each is made less likely than it was, by a sigmoid."""

    keeps = ("log_likelihoods",)

    beta: float
    training: Training

    def sequences(self, lm, example, context):
        return tuple(forward.encode(lm, example, c) for c in range(len(example.choices)))

    def loss(self, lm, batch, context):
        now = forward.response_log_likelihoods(lm, batch.inputs)
        ratio = (now - context.reference(batch.sequences)).reshape(-1, 2)
        # Of the two sequences of one example together.
        return -2 / self.beta * F.logsigmoid(-self.beta * ratio.sum(1)).sum() / batch.n_examples


def test_a_loss_compares_with_the_log_likelihoods_before_training(lm, passes):
    """The values against a naive loop: example by example, by `score`."""
    examples = city(8)
    start, seen = score(lm, examples).log_likelihoods, []

    def look(step):
        now = [score(lm, [e]).log_likelihoods[0] for e in examples]
        seen.append((now - start).sum(1))

    method = ToyPreference(0.5, Training(1e-3, epochs=3, batch_size=8))
    losses = loop.train(lm, method, Context(0, examples), watches=[({1, 2}, look)])
    naive = [np.mean(2 / 0.5 * np.log1p(np.exp(0.5 * ratio))) for ratio in (0 * seen[0], *seen)]
    assert losses.tolist() == pytest.approx(naive[:3], rel=1e-4)
    assert naive[3] < naive[2] < naive[1] < naive[0]


def test_what_is_kept_of_the_start_is_said_by_the_method(lm):
    class Forgetful(ToyPreference):
        keeps = ()

    class Misspelt(ToyPreference):
        keeps = ("weight",)

    with pytest.raises(InputError, match=r'Write keeps = \("log_likelihoods",\)'):
        loop.train(lm, Forgetful(0.5, TRAINING), Context(0, city()))
    with pytest.raises(InputError, match=r"Misspelt.keeps: .*found 'weight'.*mean 'weights'"):
        loop.train(lm, Misspelt(0.5, TRAINING), Context(0, city()))
    with pytest.raises(InputError, match=r'Write keeps = \("weights",\)'), Context(0).at_start(lm):
        pass


def test_two_responses_of_an_example_share_a_pass_where_the_model_can(lm):
    lm.unscaled = 3
    examples = [
        replace(e, choices=(e.choices[0], f"{e.choices[0]} {e.choices[0]}")) for e in city()
    ]
    with pytest.raises(InputError, match=r"sequences of one length where one is above 3 tokens"):
        loop.train(lm, ToyPreference(0.5, TRAINING), Context(0, examples))


@dataclass(frozen=True)
class ToyDivergence(Method):
    """Ascent, and the full KL divergence from the start's next-token distributions, retained."""

    keeps = ("weights",)

    retain: tuple[str, ...]
    weight: float
    training: Training

    def loss(self, lm, batch, context):
        with context.at_start(lm):
            before = lm.output.logits(hidden_states(lm, batch, -1)).log_softmax(-1)
        now = lm.output.logits(hidden_states(lm, batch, -1)).log_softmax(-1)
        kept = batch.retained[batch.inputs.owners]
        of_token = now.gather(1, batch.inputs.targets[:, None])[:, 0]
        divergence = (before.exp() * (before - now)).sum(1)[kept].sum() / batch.n_retained_tokens
        return of_token[~kept].sum() / batch.n_tokens + self.weight * divergence

    def diverged(self, losses, worst):
        return None


def test_a_loss_runs_the_model_as_it_was_before_training(lm, passes):
    start = lm.weights()
    forget, n_forget = of_true(lm, city())
    retain = review()

    def drift(weight):
        lm.set_weights(start)
        method = ToyDivergence(("tiny_review",), weight, Training(1e-3, epochs=3))
        losses = loop.train(lm, method, Context(0, city(), retain=retain))
        after = score(lm, retain).log_likelihoods
        return losses, np.abs(after - kept).mean()

    kept = score(lm, retain).log_likelihoods
    lm.set_weights(start)
    first = loop.train(
        lm, ToyDivergence(("tiny_review",), 1.0, ONE_STEP), Context(0, city(), retain)
    )
    assert first[0] == pytest.approx(forget.sum() / n_forget.sum(), rel=1e-4)  # no divergence yet
    (losses, with_it), (_, without) = drift(10.0), drift(0.0)
    assert losses[-1] != losses[0]
    assert with_it < without / 2


def test_the_start_is_exchanged_for_a_while_and_to_the_bit(lm):
    start = lm.weights()
    kept = context.keep(lm, Context(0), ("weights",), ())
    loop.train(lm, ToyAscent(TRAINING), Context(0, city()))
    now = lm.weights()
    with pytest.raises(KeyError), kept.at_start(lm):
        assert all(torch.equal(w, start[n]) for n, w in lm.weights().items())
        raise KeyError
    assert all(torch.equal(w, now[n]) for n, w in lm.weights().items())
    assert not all(torch.equal(w, start[n]) for n, w in now.items())


@dataclass(frozen=True)
class ToyMisdirection(Method):
    """RMU without a retain set: hidden states of a layer go to a random direction."""

    layer: int
    scale: float
    training: Training

    def loss(self, lm, batch, context):
        states = hidden_states(lm, batch, self.layer)
        generator = context.generator(self.name)
        direction = torch.randn(states.shape[1], generator=generator).to(states.device)
        target = self.scale * direction / direction.norm()
        return (states - target).square().mean(1).sum() / batch.n_tokens


def test_a_loss_of_hidden_states_moves_them_and_nothing_above_the_layer(lm, passes):
    before = {n: p.detach().clone() for n, p in lm.trainable.items()}
    losses = loop.train(lm, ToyMisdirection(1, 3.0, Training(3e-3, epochs=6)), Context(0, city()))
    assert losses[-1] < losses[0] / 2
    changed = {n for n, p in lm.trainable.items() if not torch.equal(p, before[n])}
    assert changed
    assert all(".layers.0." in name for name in changed), changed


def test_random_numbers_depend_on_seed_and_name_only():
    def drawn(seed, name):
        return torch.randn(3, generator=Context(seed).generator(name)).tolist()

    assert drawn(3, "noise") == pytest.approx([-0.38458437, 0.74148, -1.2322989], rel=1e-6)
    assert drawn(3, "noise") == drawn(3, "noise")
    assert len({tuple(drawn(s, n)) for s in (0, 1) for n in ("noise", "rmu")}) == 4


def test_a_method_without_sequences_of_an_example_is_refused(lm):
    class Empty(ToyAscent):
        def sequences(self, lm, example, context):
            return ()

    with pytest.raises(InputError, match=r"Empty.sequences of example 'tiny_city/.*found none"):
        loop.train(lm, Empty(TRAINING), Context(0, city()))


def test_a_loss_needs_the_settings_of_its_training(lm):
    class Untrained(Method):
        def loss(self, lm, batch, context):
            raise AssertionError

    with pytest.raises(InputError, match=r"Untrained.training: expected a Training"):
        loop.train(lm, Untrained(), Context(0, city()))
