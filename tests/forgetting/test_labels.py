import numpy as np
import pytest
from hypothesis import given, strategies as st

from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.forgetting.labels import training_labels


def examples(n, n_choices=2, task="t"):
    choices = tuple("abcdef"[:n_choices])
    return [
        Example(f"{task}/train/{i}", ("p",) * n_choices, choices, i % n_choices) for i in range(n)
    ]


@given(st.integers(0, 100), st.integers(2, 5))
def test_flipped_is_never_the_true_label(seed, n_choices):
    batch = examples(50, n_choices)
    flipped = training_labels(batch, "flipped", seed)
    assert all(f != e.label and 0 <= f < n_choices for f, e in zip(flipped, batch, strict=True))


def test_true_is_the_true_label():
    batch = examples(10)
    assert training_labels(batch, "true", 3).tolist() == [e.label for e in batch]


@pytest.mark.parametrize("n_choices", [2, 3])
def test_random_is_uniform_and_independent_of_the_truth(n_choices):
    batch = examples(6000, n_choices)
    drawn = training_labels(batch, "random", 0)
    truth = training_labels(batch, "true", 0)
    counts = np.zeros((n_choices, n_choices))
    np.add.at(counts, (truth, drawn), 1)
    expected = 6000 / n_choices**2
    # Chi-square with n_choices^2 - 1 degrees of freedom, p = 0.001.
    assert ((counts - expected) ** 2 / expected).sum() < {2: 16.3, 3: 26.1}[n_choices]


def test_flipped_is_any_of_the_wrong_responses_as_often():
    batch = examples(6000, 4)
    offset = (training_labels(batch, "flipped", 0) - training_labels(batch, "true", 0)) % 4
    counts = np.bincount(offset, minlength=4)
    assert counts[0] == 0
    assert ((counts[1:] - 2000) ** 2 / 2000).sum() < 13.8  # chi-square, 2 degrees, p = 0.001


def test_the_labels_of_stored_runs_are_drawn_again():
    """Numbers of a draw that may never change: every stored forgetting set was made with it."""
    batch = examples(16, 4)
    assert training_labels(batch, "random", 0).tolist() == [
        3,
        0,
        0,
        2,
        0,
        1,
        2,
        0,
        0,
        1,
        3,
        1,
        2,
        2,
        2,
        3,
    ]
    assert training_labels(batch, "flipped", 0).tolist() == [
        2,
        2,
        3,
        0,
        1,
        3,
        3,
        2,
        2,
        3,
        0,
        0,
        2,
        2,
        1,
        2,
    ]


def test_another_seed_draws_other_labels():
    batch = examples(1000)
    a, b = (training_labels(batch, "random", seed) for seed in (0, 1))
    assert 0.4 < (a == b).mean() < 0.6


@given(st.permutations(range(40)), st.integers(1, 40))
def test_a_label_depends_on_its_example_only(order, n):
    batch = examples(40)
    whole = dict(zip(range(40), training_labels(batch, "random", 7), strict=True))
    part = training_labels([batch[i] for i in order[:n]], "random", 7)
    assert part.tolist() == [whole[i] for i in order[:n]]


@pytest.mark.parametrize("condition", ["true", "random", "flipped"])
def test_labels_are_indices_also_where_there_are_no_examples(condition):
    for n in (0, 3):
        labels = training_labels(examples(n), condition, 0)
        assert (labels.shape, labels.dtype) == ((n,), np.int64)


def test_an_unknown_condition_is_refused():
    with pytest.raises(InputError) as error:
        training_labels(examples(2), "base", 0)
    assert str(error.value) == (
        "condition: expected one of true, random, flipped, found 'base'. Choose one of these."
    )
