"""Questions, examples and tasks: what they are made of, and what is drawn by chance."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from forgetlib.data import prompts
from forgetlib.data.base import Question, Task, ask, binarise
from forgetlib.errors import InputError


@given(st.integers(0, 50), st.integers(2, 6), st.integers(0, 5))
def test_binarising_keeps_the_true_response_and_one_other(seed, n_choices, gold):
    gold %= n_choices
    question = ask("p", [f"c{i}" for i in range(n_choices)], gold)
    example = binarise(question, "t/test/0", seed)
    assert example.choices[example.label] == f"c{gold}"
    assert len(set(example.choices)) == 2
    assert set(example.choices) <= set(question.choices)


def test_distractor_and_order_are_uniform():
    question = ask("p", ["a", "b", "c", "d"], 0)
    made = [binarise(question, f"t/test/{i}", 0) for i in range(3000)]
    labels = np.array([e.label for e in made])
    assert abs(labels.mean() - 0.5) < 0.03
    others = [e.choices[1 - e.label] for e in made]
    assert all(abs(others.count(c) / 3000 - 1 / 3) < 0.03 for c in "bcd")


def test_a_distractor_equal_to_the_truth_is_none():
    assert binarise(ask("p", ["a", "a", "b"], 0), "t/test/0", 0).choices in (("a", "b"), ("b", "a"))
    assert binarise(ask("p", ["a", "a"], 0), "t/test/0", 0) is None


def test_partial_scoring_pairs_each_prompt_with_the_shared_rest():
    example = binarise(Question(("I", "You"), ("am", "am"), 1), "t/test/0", 0)
    assert set(example.prompts) == {"I", "You"}
    assert example.prompts[example.label] == "You"


@pytest.mark.parametrize("gold", [-1, 2])
def test_a_question_without_a_true_response_is_an_error(gold):
    """A row without a label has -1, which would be the last choice."""
    with pytest.raises(InputError, match=rf"gold of question \('p',\).*0 to 1, found {gold}"):
        ask("p", ["a", "b"], gold)
    with pytest.raises(InputError, match="Leave out rows without a label"):
        prompts.cola({"sentence": "p", "label": -1})


def test_of_a_task_only_its_rows_and_its_question_have_to_be_given():
    task = Task("mine", rows=list, question=lambda row: None)
    assert (task.family, task.answer_format, task.splits) == ("other", "text", None)
    for with_one, other in (({"rows": list}, "question"), ({"question": print}, "rows")):
        with pytest.raises(InputError, match=f"'mine': expected {other} to be a function, found"):
            Task("mine", **with_one)


@pytest.mark.parametrize("name", ["harness:arc_easy", "harness:tmmluplus_(a)-b.c+d"])
def test_a_task_of_the_harness_has_its_name(name):
    assert Task(name, rows=list, question=print).name == name


@pytest.mark.parametrize("name", ["a:b", "harness:", "harness:a/b", "other:arc", "harness:a b"])
def test_no_other_task_has_a_mark_in_its_name(name):
    with pytest.raises(InputError, match="task name: expected letters, digits, _, found"):
        Task(name, rows=list, question=print)
