"""A loaded model and its weights."""

import pytest

from forgetlib.errors import InputError
from forgetlib.models import loading


def test_weights_go_out_and_in(tiny):
    other = loading.load("tiny", dtype="float32", device="cpu")
    weights = tiny.weights()
    changed = {n: w + 1 for n, w in weights.items()}
    other.set_weights(changed)
    assert all((w == changed[n]).all() for n, w in other.weights().items())
    with pytest.raises(InputError, match=r"weights for tiny: expected the 19 trainable.*found 0"):
        other.set_weights({})
