"""What shows whether a model can be packed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forgetlib.models import checks
from forgetlib.models.lm import decoder as decoder_of

TOKENS = list(range(20, 40))  # of the tiny vocabulary, for the checks that `load` makes


@pytest.mark.parametrize(
    ("ignored", "way"), [("position_ids", "mask"), ("attention_mask", "mask"), ("trees", "tree")]
)
def test_a_model_that_ignores_positions_or_mask_is_not_packed(tiny, monkeypatch, ignored, way):
    """As those with positions in their attention do, or with recurrent layers."""
    decoder = decoder_of(tiny.model)
    forward = decoder.forward

    def without(**inputs):
        return forward(**{k: v for k, v in inputs.items() if k != ignored})

    trial = checks.trial_of(tiny, TOKENS)
    assert not checks._why_not_packed(tiny, way, trial)
    monkeypatch.setattr(decoder, "forward", without)
    assert checks._why_not_packed(tiny, way, trial)


@pytest.mark.parametrize("window", [4, 19])
def test_a_model_with_a_short_window_is_not_packed(tiny, window):
    narrow = replace(tiny, window=window)
    trial = checks.trial_of(tiny, TOKENS)
    assert (
        checks._why_not_packed(narrow, "tree", trial) == f"its layers see {window} tokens at a time"
    )
    assert not checks._why_not_packed(replace(tiny, window=20), "tree", trial)


def test_states_that_are_no_numbers_are_far_from_all(tiny):
    ones, none = torch.ones(2, 3), torch.full((2, 3), torch.nan)
    assert np.isnan(checks.furthest([ones, none], [ones, ones]))
    assert checks.furthest([ones, 2 * ones], [ones, ones]) == 1
