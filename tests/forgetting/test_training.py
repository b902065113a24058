"""The settings of the shared training."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from forgetlib.errors import InputError
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.dose import Dose
from forgetlib.forgetting.labels import Labels

TRAINING = Training(learning_rate=1e-4)
RATE, SHARE = "a number between 0 and 1", "a share of the steps, 0 to 1"


@pytest.mark.parametrize(
    ("name", "value", "expected", "do"),
    [
        ("learning_rate", 0.0, RATE, "Correct the number."),
        ("learning_rate", 1.0, RATE, "Correct the number."),
        ("learning_rate", float("nan"), RATE, "Correct the number."),
        ("learning_rate", "1e-4", RATE, "Correct the number."),
        ("epochs", 0, "a whole number from 1", "Correct the number."),
        ("batch_size", 0, "a whole number from 1", "Correct the number."),
        ("warmup", 1.5, SHARE, "Correct the number."),
        ("weight_decay", -1.0, "a number, 0 or more", "Correct the number."),
        ("max_grad_norm", 0.0, "a number above 0", "Correct the number."),
        ("until", 0.6, "a Dose, or None", "Correct the value."),
        ("optimizer", "sgd", "one of adamw, adafactor", "Choose one of these."),
    ],
)
def test_a_bad_setting_is_refused(name, value, expected, do):
    with pytest.raises(InputError) as error:
        replace(TRAINING, **{name: value})
    message = f"Training.{name}: expected {expected}, found {value!r}. {do}"
    assert str(error.value) == message


@pytest.mark.parametrize(
    "one", [1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), torch.tensor(1).int()]
)
def test_integers_of_numpy_and_pytorch_become_python_s(one):
    made = replace(TRAINING, epochs=one, batch_size=one)
    assert made == replace(TRAINING, epochs=1, batch_size=1)
    assert {type(made.epochs), type(made.batch_size)} == {int}
    assert Labels("true", made).to_dict() == Labels("true", replace(made, epochs=1)).to_dict()


def test_every_setting_is_in_what_is_hashed():
    """Of those that came later, only what does not go without saying: older ids hold."""
    written = Labels("true", TRAINING).to_dict()["training"]
    assert set(written) == {f.name for f in fields(Training)} - set(Training.later)
    later = Labels("true", replace(TRAINING, until=Dose())).to_dict()["training"]
    assert later == written | {"until": {"most": 0.6, "checks": 2, "every": 1}}


def test_labels_are_one_of_three_with_the_settings_of_a_training():
    with pytest.raises(InputError, match=r"Labels\.labels: expected one of true, random, flipped"):
        Labels("base", TRAINING)
    for wrong in (None, "fast", {"learning_rate": 1e-4}):
        with pytest.raises(InputError, match=r"Labels\.training: expected a Training, found"):
            Labels("true", wrong)
