"""Task vectors and noise against their closed forms."""

import numpy as np
import pytest
import torch

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.arithmetic import Noise, TaskVector
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.dose import Dose
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring.scoring import score
from forgetlib.models import loading

TRAINING = Training(3e-3, epochs=3)


def city(n=24):
    return splits.load("tiny_city", "train", n, 0)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def taught(request):
    lm = loading.load("tiny", dtype=request.param, device="cpu")
    loop.train(lm, Labels("true", Training(1e-2, epochs=20, batch_size=12)), Context(0, city()))
    return lm, lm.weights()


@pytest.fixture
def lm(taught):
    model, weights = taught
    model.set_weights(weights)
    return model


def after(lm, method, start):
    """The weights that a method leaves, its losses, and what the model says of true responses."""
    lm.set_weights(start)
    losses = loop.apply(lm, method, Context(0, city()))
    return lm.weights(), losses, metrics.nll_a_token(score(lm, city())).mean()


def test_a_task_vector_goes_the_way_back_that_true_labels_went(lm, taught):
    """Of scale 0 nothing is changed; of scale 1 the start is the middle of both ends."""
    start = taught[1]
    learned, losses, _ = after(lm, Labels("true", TRAINING), start)
    for scale in (0.0, 1.0, 2.5):
        found, own_losses, _ = after(lm, TaskVector(TRAINING, scale), start)
        assert own_losses.tolist() == losses.tolist()
        for name, weight in start.items():
            change = learned[name].float() - weight.float()
            expected = (weight.float() - scale * change).to(weight.dtype)
            assert torch.equal(found[name], expected), name
            if scale == 0:
                assert torch.equal(found[name], weight)


def test_a_task_vector_forgets_and_more_of_it_more(lm, taught):
    said = [after(lm, TaskVector(TRAINING, s), taught[1])[2] for s in (0.0, 2.0, 8.0)]
    learned = after(lm, Labels("true", TRAINING), taught[1])[2]
    assert learned < said[0] < said[1] < said[2]


def test_noise_is_as_large_as_the_change_by_random_labels_and_in_no_direction(lm, taught):
    start = taught[1]
    changed, losses, _ = after(lm, Labels("random", TRAINING), start)
    noisy, own_losses, _ = after(lm, Noise(TRAINING), start)
    assert own_losses.tolist() == losses.tolist()
    cosines = []
    for name, weight in start.items():
        change = (changed[name].float() - weight.float()).flatten()
        noise = (noisy[name].float() - weight.float()).flatten()
        exact = 0.03 if weight.numel() > 1000 else 0.15  # few numbers round in large steps
        assert noise.norm() == pytest.approx(float(change.norm()), rel=exact), name
        if weight.numel() > 1000 and change.norm() > 0:
            cosines.append(float(torch.cosine_similarity(change, noise, 0)))
    assert len(cosines) > 5
    assert np.abs(cosines).max() < 0.1


def test_noise_harms_less_than_the_change_that_it_replaces(lm, taught):
    """The control does what it is for; the noise is drawn again for another seed, and only then."""
    start = taught[1]
    known = metrics.nll_a_token(score(lm, city())).mean()
    flipped = after(lm, Labels("flipped", TRAINING), start)[2]
    one, _, said = after(lm, Noise(TRAINING, "flipped"), start)
    assert abs(said - known) < (flipped - known) / 2
    again = after(lm, Noise(TRAINING, "flipped"), start)[0]
    assert all(torch.equal(w, again[n]) for n, w in one.items())
    lm.set_weights(start)
    loop.apply(lm, Noise(TRAINING, "flipped"), Context(1, city()))
    assert not all(torch.equal(w, one[n]) for n, w in lm.weights().items())


def test_what_is_watched_at_the_end_is_the_model_that_is_left(lm, taught):
    seen = []
    watch = {0}, lambda step: seen.append(metrics.nll_a_token(score(lm, city())).mean())
    lm.set_weights(taught[1])
    loop.apply(lm, TaskVector(TRAINING, 4.0), Context(0, city()), watches=[watch])
    assert len(seen) == 2
    assert seen[1] == metrics.nll_a_token(score(lm, city())).mean()
    assert seen[1] > seen[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TaskVector(TRAINING, -0.1), "TaskVector.scale: expected a number, 0 or more"),
        (lambda: TaskVector(None), "TaskVector.training: expected a Training"),
        (lambda: Noise(TRAINING, "wrong"), "Noise.labels: expected one of true, random, flipped"),
        (lambda: TaskVector(Training(1e-3, until=Dose())), "TaskVector.training.until: expected"),
        (lambda: Noise(Training(1e-3, until=Dose())), "Noise.training.until: expected None"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)


def test_methods_come_back_as_they_were_written():
    for method in (TaskVector(TRAINING, 0.8), Noise(TRAINING, "true")):
        assert method_from_dict(method.to_dict()) == method
