"""Which response each training example is trained towards (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgetlib.schema import CONDITIONS, Example, hash_uniform, require_one_of


def training_labels(examples: Sequence[Example], condition: str, seed: int) -> np.ndarray:
    """(N,) index of the response to train towards.

    true: the true response. random: one of the choices, each as likely, drawn once for an example
    and so the same in every epoch (the paper's fixed forgetting set). flipped: always a wrong one.
    """
    require_one_of("condition", condition, CONDITIONS[1:], "'base' trains nothing: no labels.")
    true = np.array([e.label for e in examples], dtype=np.int64)
    if condition == "true":
        return true
    n_choices = np.array([len(e.choices) for e in examples], dtype=np.int64)
    draw = np.array([hash_uniform(f"label-{condition}", seed, e.uid) for e in examples])
    if condition == "random":
        return (draw * n_choices).astype(np.int64)
    return (true + 1 + (draw * (n_choices - 1)).astype(np.int64)) % n_choices
