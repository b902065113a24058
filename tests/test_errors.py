"""What is asked of a value, and what an error says."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from forgetlib.errors import (
    ForgetlibError,
    InputError,
    UnusableNumbers,
    in_a_line,
    is_null,
    nearest,
    require_distinct_uids,
    require_number,
    require_one_of,
    require_record,
    require_whole,
)
from forgetlib.runs.local import RunsFailed


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("fliped", "flipped"),
        ("RANDOM", "random"),
        ("randm", "random"),
        ("Meta-Lama", "meta-Llama"),
        ("sideways", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_a_slip_of_the_keys_is_answered_with_the_word_that_was_meant(value, near):
    words = {"random": 1, "flipped": 2, "meta-Llama": 3}
    assert nearest(value, words) == near
    with pytest.raises(InputError) as error:
        require_one_of("word", value, words, "Correct it.")
    asked = "" if near is None else f"Did you mean {near!r}? "
    expected = "word: expected one of random, flipped, meta-Llama"
    assert str(error.value) == f"{expected}, found {value!r}. {asked}Correct it."


def test_uids_have_to_be_distinct():
    assert require_distinct_uids("examples", ["a", "b"]) is None
    said = r"examples: expected every uid once, found repeated \['a', 'b', 'c'\]. Remove the dup"
    with pytest.raises(InputError, match=said):
        require_distinct_uids("examples", [*"dcbaabcd"])


@pytest.mark.parametrize(
    ("value", "null"),
    [
        *((v, True) for v in (None, float("nan"), np.float16("nan"), np.datetime64("NaT"))),
        *((v, True) for v in (pd.NA, pd.NaT, torch.tensor(float("nan")))),
        *((v, False) for v in (0, "", "nan", "None", False, [], {}, [None], np.array([np.nan]))),
        *((v, False) for v in (np.str_("nan"), np.int64(0), torch.tensor(0), float("inf"))),
    ],
)
def test_what_stands_for_none_is_a_null(value, null):
    assert is_null(value) is null


CONVERT, CORRECT = "Convert it with int(...).", "Correct the number."


@pytest.mark.parametrize(
    "one", [1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), torch.tensor(1).int()]
)
def test_integers_of_numpy_and_pytorch_are_whole_numbers_and_become_python_s(one):
    assert type(require_whole("n", one)) is int and require_whole("n", one) == 1


@pytest.mark.parametrize(
    ("value", "do"),
    [
        *((number, CONVERT) for number in ("1", " 0 ", "+2", 0.0, np.float64(1), True, np.True_)),
        *((other, CORRECT) for other in (None, -1, 7, 0.5, "A", "", "1.0", np.array([1]), [1])),
        *((other, CORRECT) for other in (torch.tensor(1.0), torch.tensor(True))),
    ],
)
def test_what_is_no_whole_number_of_the_range_is_refused_with_what_to_do(value, do):
    with pytest.raises(InputError) as error:
        require_whole("n", value, 0, 6)
    assert str(error.value) == f"n: expected a whole number from 0 to 6, found {value!r}. {do}"


def test_a_number_is_finite_and_a_float_of_python_s_without_a_negative_zero():
    for zero in (0, -0.0):
        assert str(require_number("x", zero, "a number", lambda x: True)) == "0.0"
    for wrong in (True, "1", None, float("nan"), float("inf"), np.float32(1)):
        with pytest.raises(InputError, match="x: expected a number, found"):
            require_number("x", wrong, "a number", lambda x: True)


def test_an_error_has_four_parts():
    error = ForgetlibError("n", expected=1, found=2, do="Take 1.")
    assert str(error) == "n: expected 1, found 2. Take 1."
    assert (error.what, error.expected, error.found) == ("n", "1", "2")


def test_an_error_is_told_in_a_line():
    error = ValueError("one\n  two\tthree")
    assert in_a_line(error) == "one two three"
    assert in_a_line(error, named=True) == "ValueError: one two three"
    assert in_a_line(error, most=7) == "one two"
    assert in_a_line(ValueError("x" * 400)) == "x" * 300


def test_the_fields_of_a_record_are_all_known_and_those_without_a_default_there():
    from forgetlib.forgetting.base import Training

    require_record(Training, {"learning_rate": 1e-4})
    names = (
        "batch_size, epochs, learning_rate, max_grad_norm, optimizer, until, warmup, weight_decay"
    )
    known = f"fields among {[*names.split(', ')]}"
    for values, found in (
        ({"rate": 1}, "['rate']"),
        ({"epochs": 1}, "none of ['learning_rate']"),
        ("fast", "'fast'"),
    ):
        with pytest.raises(InputError) as error:
            require_record(Training, values)
        said = (
            "The record is incomplete, or of another version: delete it, and it is computed again."
        )
        if isinstance(values, dict) and "rate" in values:  # of a later one
            said = "The record was written by a newer version: install that one to read it."
        assert str(error.value) == f"Training: expected {known}, found {found}. {said}"


@pytest.mark.parametrize("kind", [InputError, UnusableNumbers, RunsFailed])
def test_an_error_comes_whole_from_another_process(kind):
    """A pool that could not read it would end with words about the pool."""
    if kind is RunsFailed:
        error = RunsFailed({}, [])
    else:
        error = kind("rate", expected="a number", found="None", do="Correct it.")
    again = copy.copy(error)  # which makes it as a process does that was sent it
    assert type(again) is kind and str(again) == str(error)
    assert vars(again) == vars(error)
