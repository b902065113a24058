"""Examples, and the numbers that every draw about one comes from."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from forgetlib.data.base import Example, hash_uniform
from forgetlib.errors import InputError


def example(**changes):
    values = {"uid": "t/test/0", "prompts": ("p", "p"), "choices": ("a", "b"), "label": 0}
    return Example(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ("p",), "choices": ("a",)}, "expected at least two choices, found 1"),
        ({"prompts": ("", "")}, "expected prompts and choices with text"),
        ({"choices": ["a", "b"]}, "expected choices to be a tuple of str"),
        ({"label": -1}, "expected a whole number from 0 to 1, found -1"),
        ({"label": "0"}, "expected a whole number from 0 to 1, found '0'"),
        ({"label": True}, "expected a whole number from 0 to 1, found True"),
    ],
)
def test_a_bad_example_is_refused(changes, message):
    with pytest.raises(InputError, match="example") as error:
        example(**changes)
    assert message in str(error.value)


LEAVE_OUT = "It has no true response: leave the example out."
CONVERT, INDEX = "Convert it with int(...).", "The label is the index of the true response."


@pytest.mark.parametrize(
    ("label", "do"),
    [
        *((none, LEAVE_OUT) for none in (None, -1, np.int64(-1), float("nan"), np.float32("nan"))),
        *((number, CONVERT) for number in ("1", " 0 ", 0.0, np.float64(1), True, np.True_)),
        *(
            (other, INDEX)
            for other in (2, np.int64(2), -2, 0.5, "A", "", "1.0", np.array([1]), [1])
        ),
        *((other, INDEX) for other in (torch.tensor(1.0), torch.tensor(True), torch.tensor([0]))),
    ],
)
def test_what_to_do_with_a_bad_label_is_said_of_its_value(label, do):
    with pytest.raises(InputError) as error:
        example(label=label)
    said = "label of example 't/test/0': expected a whole number from 0 to 1"
    assert str(error.value) == f"{said}, found {label!r}. {do}"


@pytest.mark.parametrize(
    "one", [1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), torch.tensor(1).int()]
)
def test_labels_and_seeds_of_numpy_and_pytorch_become_python_s(one):
    assert example(label=one) == example(label=1) and type(example(label=one).label) is int
    assert hash_uniform("split", one, "t/test/0") == hash_uniform("split", 1, "t/test/0")


def test_texts_of_numpy_become_python_s():
    """They are written otherwise, and so hash otherwise where a run's data are hashed."""
    made = example(prompts=(np.str_("p"),) * 2, choices=tuple(np.array(["a", "b"])))
    assert repr(made) == repr(example())


def test_equal_continuations_of_different_prompts_are_an_example():
    assert example(prompts=("p", "q"), choices=("a", "a")).task == "t"


@given(st.text(), st.integers(0, 10), st.text())
def test_hash_uniform_is_a_function_into_the_unit_interval(purpose, seed, uid):
    assert 0 <= hash_uniform(purpose, seed, uid) < 1
    assert hash_uniform(purpose, seed, uid) == hash_uniform(purpose, seed, uid)


def test_hash_uniform_never_changes():
    """Splits, distractors and labels of all stored results hang on it."""
    assert hash_uniform("split", 3, "t/train/7") == 0.6985986285851767
    with pytest.raises(InputError, match=r"^uid: expected text that can be written as UTF-8"):
        hash_uniform("split", 3, "\ud800")


def test_hash_uniform_is_uniform_and_independent_between_purposes():
    a = np.array([hash_uniform("a", 0, str(i)) for i in range(4000)])
    b = np.array([hash_uniform("b", 0, str(i)) for i in range(4000)])
    counts, _ = np.histogram(a, bins=10, range=(0, 1))
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-square, 9 degrees: p = 0.001
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("make", "what", "expected", "found", "do"),
    [
        (
            lambda: example(uid="no origin"),
            "example 'no origin'",
            "a uid '<task>/<split>/<row>'",
            "'no origin'",
            "Name the example's origin.",
        ),
        (
            lambda: example(choices=("a", 1)),
            "example 't/test/0'",
            "choices to be a tuple of str",
            "('a', 1)",
            "Convert them to str.",
        ),
        (
            lambda: example(prompts=(), choices=()),
            "example 't/test/0'",
            "at least two choices",
            "0",
            "Forgetting is measured against a distractor: add one, or drop the question.",
        ),
        (
            lambda: example(prompts=("p",)),
            "example 't/test/0'",
            "as many prompts as choices",
            "1 prompts and 2 choices",
            "Repeat the prompt for every choice.",
        ),
        (
            lambda: example(choices=("a", " ")),
            "example 't/test/0'",
            "prompts and choices with text",
            "(('p', 'p'), ('a', ' '))",
            "An empty string has no likelihood: fill it in, or drop the question.",
        ),
        (
            lambda: example(choices=("a", "a")),
            "example 't/test/0'",
            "choices that differ",
            "('a', 'a')",
            "Two equal responses cannot be told apart: drop the question.",
        ),
        (
            lambda: example(choices=("a", "\ud800")),
            "example 't/test/0'",
            "text that can be written as UTF-8",
            "'\\ud800'",
            "It was decoded in the wrong way: correct that, or drop it.",
        ),
        (
            lambda: example(label=2),
            "label of example 't/test/0'",
            "a whole number from 0 to 1",
            "2",
            "The label is the index of the true response.",
        ),
    ],
)
def test_an_error_says_what_was_expected_what_was_found_and_what_to_do(
    make, what, expected, found, do
):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == f"{what}: expected {expected}, found {found}. {do}"
