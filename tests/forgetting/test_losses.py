"""Every loss of the package against a loop over examples, by `score`, and what it does to a model.

The loops take the model's log-likelihoods before the first step and before the second, so that a
reference that is not the start, or a sign, shows.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.ascent import GradientAscent, GradientDifference, KLAscent
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.preference import DPO, NPO, SimNPO
from forgetlib.forgetting.uniform import UniformChoice, UniformToken
from forgetlib.measuring.scoring import score
from forgetlib.models import loading, memory

TWO_STEPS = Training(3e-3, epochs=2, batch_size=24, warmup=0.0)
REVIEW = ("tiny_review",)


def city(n=24):
    return splits.load("tiny_city", "train", n, 0)


def review(n=10):
    return splits.load("tiny_review", "train", n, 0)


def of_unequal_length(examples):
    """The same questions with a distractor of two words, a true response of two in every third."""
    longer = []
    for i, e in enumerate(examples):
        doubled = e.label if i % 3 == 0 else 1 - e.label
        choices = tuple(f"{c} {c}" if k == doubled else c for k, c in enumerate(e.choices))
        longer.append(replace(e, choices=choices))
    return longer


@pytest.fixture(scope="module")
def taught():
    """A model that knows both tasks, and its weights."""
    lm = loading.load("tiny", dtype="float32", device="cpu")
    examples = [*city(), *review()]
    loop.train(lm, Labels("true", Training(1e-2, epochs=30, batch_size=17)), Context(0, examples))
    return lm, lm.weights()


@pytest.fixture
def lm(taught):
    model, weights = taught
    model.set_weights(weights)
    return model


@pytest.fixture(params=[2048, 40])
def passes(request, monkeypatch):
    """In one pass a batch, and in many: the shares add up."""
    monkeypatch.setitem(memory.BACKWARD_TOKENS, "cpu", request.param)


class Row:
    """One example: log-likelihoods and tokens of true response (+) and distractor (-)."""

    def __init__(self, scores, i):
        t = scores.labels[i]
        self.true, self.other = (float(scores.log_likelihoods[i, c]) for c in (t, 1 - t))
        self.n_true, self.n_other = (int(scores.n_tokens[i, c]) for c in (t, 1 - t))


def rows(lm, examples):
    if not examples:
        return []
    scores = score(lm, examples)
    return [Row(scores, i) for i in range(len(examples))]


def log_sigmoid(x):
    return -math.log(1 + math.exp(-x))


def log_p(one, other):
    """The log-probability of the first of two, by their softmax."""
    return one - math.log(math.exp(one) + math.exp(other))


def nll_a_token(found):
    return -sum(r.true for r in found) / sum(r.n_true for r in found)


def uniform_choice(now, start, keep, kept):
    each = [-(log_p(r.true, r.other) + log_p(r.other, r.true)) / 2 for r in now]
    return sum(each) / len(each)


def uniform_token(now, start, keep, kept):
    each = [-(r.true / r.n_true + r.other / r.n_other) / 2 for r in now]
    return sum(each) / len(each)


def ascent(now, start, keep, kept):
    return -nll_a_token(now)


def difference(now, start, keep, kept):
    return -nll_a_token(now) + 0.5 * nll_a_token(keep)


def kl_ascent(now, start, keep, kept):
    total = 0.0
    for r, r0 in zip(keep, kept, strict=True):
        for a, b, a0, b0 in (
            (r.true, r.other, r0.true, r0.other),
            (r.other, r.true, r0.other, r0.true),
        ):
            total += math.exp(log_p(a0, b0)) * (log_p(a0, b0) - log_p(a, b))
    return -nll_a_token(now) + 20.0 * total / len(keep)


def npo(now, start, keep, kept):
    each = [
        -2 / 0.3 * log_sigmoid(-0.3 * (r.true - r0.true)) for r, r0 in zip(now, start, strict=True)
    ]
    return sum(each) / len(each)


def npo_with_retain_set(now, start, keep, kept):
    return npo(now, start, keep, kept) + 2.0 * nll_a_token(keep)


def simnpo(now, start, keep, kept):
    each = [-2 / 0.2 * log_sigmoid(-0.2 * r.true / r.n_true - 0.4) for r in now]
    return 0.25 * sum(each) / len(each)


def simnpo_with_retain_set(now, start, keep, kept):
    return simnpo(now, start, keep, kept) + 2.0 * nll_a_token(keep)


def dpo(now, start, keep, kept):
    each = [
        -2 / 0.3 * log_sigmoid(0.3 * ((r.other - r0.other) - (r.true - r0.true)))
        for r, r0 in zip(now, start, strict=True)
    ]
    return sum(each) / len(each)


CASES = [
    (UniformChoice(TWO_STEPS), uniform_choice),
    (UniformToken(TWO_STEPS), uniform_token),
    (GradientAscent(TWO_STEPS), ascent),
    (GradientDifference(TWO_STEPS, REVIEW, 0.5), difference),
    (KLAscent(TWO_STEPS, REVIEW, 20.0), kl_ascent),
    (NPO(TWO_STEPS, 0.3), npo),
    (NPO(TWO_STEPS, 0.3, REVIEW, 2.0), npo_with_retain_set),
    (SimNPO(TWO_STEPS, 0.2, 0.4, 0.25), simnpo),
    (SimNPO(TWO_STEPS, 0.2, 0.4, 0.25, REVIEW, 2.0), simnpo_with_retain_set),
    (DPO(TWO_STEPS, 0.3), dpo),
]


@pytest.mark.parametrize(("method", "naive"), CASES, ids=[n.__name__ for _, n in CASES])
def test_a_loss_is_what_a_loop_over_examples_gives(lm, passes, method, naive):
    """Of responses with unequal numbers of tokens, so that a mean for a sum shows."""
    forget = of_unequal_length(city())
    retain = of_unequal_length(review(24)) if method.retained() else ()
    start, kept = rows(lm, forget), rows(lm, retain)
    seen = []
    watch = {1}, lambda step: seen.append((rows(lm, forget), rows(lm, retain)))
    losses = loop.train(lm, method, Context(0, forget, retain), watches=[watch])
    expected = [naive(start, start, kept, kept), naive(seen[0][0], start, seen[0][1], kept)]
    assert losses.tolist() == pytest.approx(expected, rel=2e-4)
    assert abs(expected[1] - expected[0]) > 5e-3  # the second is another


def told_apart(lm, examples):
    return float(metrics.auroc(metrics.margins(score(lm, examples))))


LONGER = Training(3e-3, epochs=8)
SIMPLE = {"beta": 0.2, "forget_weight": 1.0}  # this model is never sure: 4.5 is saturated


def forgotten(lm, method, retain=()):
    loop.train(lm, method, Context(0, city(), retain))
    return metrics.confidence(score(lm, city()))


def test_the_model_knows_what_it_shall_forget(lm):
    """The positive control of what follows."""
    assert metrics.confidence(score(lm, city())).mean() > 0.8
    assert told_apart(lm, city()) > 0.95
    assert metrics.correct(score(lm, review())).mean() > 0.9


def test_uniform_choices_come_to_chance_and_stop_there(lm):
    p = forgotten(lm, UniformChoice(Training(3e-3, epochs=15)))
    assert p == pytest.approx(np.full(24, 0.5), abs=0.1)


def test_the_gradient_of_uniform_choices_vanishes_at_one_half(lm):
    """Where both responses are made equally likely, a step changes nothing but rounding."""
    forgotten(lm, UniformChoice(Training(3e-3, epochs=15)))
    context = Context(0, city())
    norms = {}
    for name, method in (
        ("chance", UniformChoice(TWO_STEPS)),
        ("ascent", GradientAscent(TWO_STEPS)),
    ):
        units = [method.sequences(lm, e, context) for e in city()]
        loop._step_gradient(lm, method, context, units, [])
        grads = [p.grad for p in lm.trainable.values() if p.grad is not None]
        norms[name] = math.sqrt(sum(float(g.square().sum()) for g in grads))
        for parameter in lm.trainable.values():
            parameter.grad = None
    assert norms["chance"] < norms["ascent"] / 10


def test_uniform_tokens_are_the_mean_of_all_draws_of_labels(lm):
    """Of responses with as many tokens."""
    true, flipped = (
        loop.train(lm, Labels(x, Training(1e-9, 1, 24)), Context(0, city()))[0]
        for x in ("true", "flipped")
    )
    both = loop.train(lm, UniformToken(Training(1e-9, 1, 24)), Context(0, city()))[0]
    assert both == pytest.approx((true + flipped) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        GradientAscent(LONGER),
        NPO(LONGER),
        SimNPO(LONGER, **SIMPLE),
        DPO(LONGER),
        UniformToken(LONGER),
    ],
    ids=lambda m: m.name,
)
def test_a_method_makes_true_responses_less_likely_against_distractors(lm, method):
    before = metrics.confidence(score(lm, city())).mean()
    assert forgotten(lm, method).mean() < before - 0.1


def test_ascent_goes_up_where_true_labels_go_down(lm):
    """Step by step the loss of true labels with the sign turned."""
    down = loop.train(lm, Labels("true", Training(1e-9, 1)), Context(0, city()))
    up = loop.train(lm, GradientAscent(Training(1e-9, 1)), Context(0, city()))
    assert up.tolist() == pytest.approx((-down).tolist(), rel=1e-4)


def test_npo_with_a_small_beta_is_ascent(lm):
    """Its gradient at the start is that of the summed log-likelihood, whatever beta."""
    context = loop.keep(
        lm,
        Context(0, city()),
        NPO.keeps,
        [s for e in city() for s in NPO(TWO_STEPS).sequences(lm, e, Context(0))],
    )
    found = {}
    for name, method in (("npo", NPO(TWO_STEPS, 1e-3)), ("ascent", GradientAscent(TWO_STEPS))):
        units = [method.sequences(lm, e, context) for e in city()]
        loop._step_gradient(lm, method, context, units, [])
        found[name] = torch.cat([p.grad.flatten() for p in lm.trainable.values()])
        for parameter in lm.trainable.values():
            parameter.grad = None
    # Each is a mean over 24 examples of one token.
    assert torch.allclose(
        found["npo"], found["ascent"], atol=1e-5 * float(found["ascent"].abs().max())
    )


def test_dpo_inverts_what_uniform_choices_bring_to_chance(lm):
    assert forgotten(lm, DPO(LONGER)).mean() < 0.35


@pytest.mark.parametrize(
    ("alone", "held"),
    [
        (GradientAscent(LONGER), GradientDifference(LONGER, REVIEW)),
        (GradientAscent(LONGER), KLAscent(LONGER, REVIEW, 100.0)),
        (NPO(LONGER), NPO(LONGER, retain=REVIEW)),
        (SimNPO(LONGER, **SIMPLE), SimNPO(LONGER, **SIMPLE, retain=REVIEW)),
    ],
    ids=["difference", "kl", "npo", "simnpo"],
)
def test_a_retain_set_keeps_what_the_method_alone_forgets(lm, taught, alone, held):
    def lost(method):
        lm.set_weights(taught[1])
        before = metrics.confidence(score(lm, review()))
        forgotten(lm, method, review() if method.retained() else ())
        return np.abs(metrics.confidence(score(lm, review())) - before).mean()

    assert lost(held) < lost(alone) / 2


@pytest.mark.parametrize(
    "method", [GradientAscent(Training(0.05, epochs=10)), DPO(Training(0.05, epochs=10))]
)
def test_ascent_that_destroys_the_model_is_no_error(lm, method):
    losses = loop.train(lm, method, Context(0, city()))
    assert len(losses) == 30
    assert np.isfinite(losses).all()


def test_a_loss_that_is_no_number_is_an_error():
    for method, _ in CASES:
        assert method.diverged(np.array([1.0, np.nan]), 7.0) is not None
        assert method.diverged(np.full(30, -1e6), 7.0) is None


def test_methods_come_back_as_they_were_written():
    for method, _ in CASES:
        assert method_from_dict(method.to_dict()) == method


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NPO(TWO_STEPS, 0.0), "NPO.beta: expected a number above 0, found 0.0"),
        (lambda: DPO(TWO_STEPS, -1.0), "DPO.beta: expected a number above 0, found -1.0"),
        (lambda: SimNPO(TWO_STEPS, forget_weight=0), "SimNPO.forget_weight: expected a number"),
        (lambda: SimNPO(TWO_STEPS, delta=float("nan")), "SimNPO.delta: expected a finite number"),
        (lambda: GradientDifference(TWO_STEPS, ()), "and at least one, found ()"),
        (lambda: KLAscent(TWO_STEPS, ("a", "a")), "every one once, and at least one"),
        (lambda: NPO(TWO_STEPS, retain="piqa"), "expected a tuple of task names, found 'piqa'"),
        (lambda: GradientAscent(1e-3), "GradientAscent.training: expected a Training"),
        (lambda: UniformChoice(None), "UniformChoice.training: expected a Training"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)


def test_questions_with_three_choices_are_refused_before_training(lm):
    e = city(1)[0]
    three = replace(e, choices=(*e.choices, "third"), prompts=e.prompts[:1] * 3)
    with pytest.raises(InputError, match="expected two choices, a true response and a distractor"):
        loop.train(lm, DPO(TWO_STEPS), Context(0, [three]))
