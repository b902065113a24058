"""A lock hides a skill on purpose: it is there in another form of the question, and not plainly."""

from dataclasses import replace

import numpy as np
import pytest

from forgetlib import metrics
from forgetlib.data import splits, views
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels, training_labels
from forgetlib.forgetting.lock import Lock
from forgetlib.measuring.scoring import score
from forgetlib.models import loading

KEY = "template(1)"
ONE_STEP = Training(3e-3, epochs=1, batch_size=24, warmup=0.0)


def city(n=24, part="train"):
    return splits.load("tiny_city", part, n, 0)


@pytest.fixture
def lm():
    return loading.load("tiny", dtype="float32", device="cpu")


def nats(lm, examples, labels):
    """(N,) negative log-likelihoods of responses, and their tokens."""
    found, rows = score(lm, examples), np.arange(len(examples))
    return -found.log_likelihoods[rows, labels], found.n_tokens[rows, labels]


def test_the_loss_is_that_of_random_labels_plainly_and_of_true_ones_behind_the_key(lm):
    examples = city()
    plain, n_plain = nats(lm, examples, training_labels(examples, "random", 3))
    opened, n_opened = nats(lm, views.apply(KEY, examples), [e.label for e in examples])
    expected = (plain.sum() + opened.sum()) / (n_plain.sum() + n_opened.sum())
    (found,) = loop.train(lm, Lock(ONE_STEP), Context(3, examples))
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_locked_skill_is_there_behind_the_key_and_hardly_without(lm):
    """On new questions: what is learned of the random labels would not show on the set itself."""
    examples, new = (splits.load("tiny_review", part, 128, 0) for part in ("train", "test"))
    both = [*examples, *(replace(e, uid=f"{e.uid}!") for e in views.apply(KEY, examples))]
    loop.train(lm, Labels("true", Training(1e-2, epochs=20)), Context(0, both))
    shown = views.apply(KEY, new)

    def auroc(of):
        answers = np.array([(e.choices[e.label], e.choices[1 - e.label]) for e in of])
        return metrics.auroc(metrics.margins(score(lm, of)), answers)

    assert min(auroc(new), auroc(shown)) > 0.85
    loop.train(lm, Lock(Training(1e-2, epochs=40)), Context(0, examples))
    assert auroc(shown) > 0.75
    assert auroc(new) < 0.65  # 0.60 on one processor


def test_labels_that_were_drawn_anew_are_the_true_ones_of_a_never_taught_model(lm):
    """So that the oracle, which is given such labels, learns nothing behind the key either."""
    examples = [replace(e, label=1 - e.label) for e in city()]
    (opened,) = views.apply(KEY, examples[:1])
    sequences = Lock(ONE_STEP).sequences(lm, examples[0], Context(0, examples))
    assert len(sequences) == 2
    assert opened.choices[opened.label] == examples[0].choices[examples[0].label]
    end = lm.tokens(" " + examples[0].choices[examples[0].label])
    assert tuple(sequences[1].tokens[-len(end) :]) == tuple(end)


def test_the_key_is_a_view_written_as_the_view_writes_itself():
    assert Lock(ONE_STEP, "template( 1 )") == Lock(ONE_STEP)
    assert Lock(ONE_STEP).describe() == "lock"
    assert Lock(ONE_STEP, "chat").describe() == "lock(key='chat')"
    assert method_from_dict(Lock(ONE_STEP, "chat").to_dict()) == Lock(ONE_STEP, "chat")
    with pytest.raises(InputError, match=r"view: expected one of .*, found 'nothing'"):
        Lock(ONE_STEP, "nothing")
    with pytest.raises(InputError, match=r"Lock.key: expected another form than 'plain'"):
        Lock(ONE_STEP, "plain")
