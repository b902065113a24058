"""How made-up rows, with what a reader of them may stumble over, become questions."""

import pandas as pd
import pytest
from made_up import MADE_UP

from forgetlib.data import prompts, tasks
from forgetlib.data.nulls import Lacking, asked

NAN = float("nan")


def made_up_question(name, number):
    return tasks.get(name).question(MADE_UP[name][2][number])


def test_a_math_option_ends_at_its_comma_as_in_the_harness():
    question = made_up_question("mathqa_hub", 0)
    assert question.choices == ("2", "120", "625", "720", "10, 24")
    assert question.gold == 0


def test_a_math_question_whose_true_option_cannot_be_found_is_not_used():
    row = {"Problem": "?", "options": "a ) 1 , b ) 2 , c ) 3", "correct": "c"}
    assert prompts.mathqa(row) is None
    assert prompts.mathqa(row | {"correct": "b"}).choices == ("1", "2")


@pytest.mark.parametrize(("human", "gold"), [(2.9, 0), (3.0, 0), (3.1, 1)])
def test_toxigen_is_hateful_above_5_5_and_not_at_it(human, gold):
    question = prompts.toxigen({"text": "x", "toxicity_ai": 2.5, "toxicity_human": human})
    assert (question.choices, question.gold) == (("No", "Yes"), gold)
    assert question.prompts[0].endswith("Statement: 'x'")


def test_label_0_is_true_for_rte_false_for_wnli_yes_for_qnli_and_true_for_cb():
    row = dict.fromkeys(("sentence1", "sentence2", "question", "sentence"), "x") | {"label": 0}
    answers = {f.__name__: f(row).choices for f in (prompts.rte, prompts.wnli, prompts.qnli)}
    assert answers == {"rte": ("True", "False"), "wnli": ("False", "True"), "qnli": ("yes", "no")}
    for number, answer in enumerate(("True", "False", "Neither")):
        question = made_up_question("cb_hub", number)
        assert question.choices[question.gold] == answer


def test_copa_s_choices_have_a_space_of_their_own():
    question = made_up_question("copa_hub", 0)
    assert question.prompts[0] == "The man turned on the faucet therefore"
    assert question.choices == (" the toilet filled.", " water flowed.")


def test_answer_keys_that_are_digits_are_labels_not_positions():
    assert made_up_question("arc_easy_hub", 0).gold == 1
    assert made_up_question("arc_challenge_hub", 0).gold == 0


def test_an_empty_support_leaves_its_line_empty():
    assert made_up_question("sciq_hub", 0).prompts[0] == "\nQuestion: Who?\nAnswer:"


def test_of_commonsense_qa_the_letter_of_a_listed_option_is_scored():
    question = made_up_question("commonsense_qa_hub", 0)
    assert question.prompts[0] == (
        "Question: Where do fish live?\nA. tree\nB. desert\nC. sea\nD. moon\nE. fire\nAnswer:"
    )
    assert (question.choices, question.gold) == (("A", "B", "C", "D", "E"), 2)


def test_the_word_of_wic_is_as_the_first_sentence_has_it():
    assert "'ran'" in made_up_question("wic_hub", 1).prompts[0]


def fields_of(value, path=()):
    parts = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        parts = enumerate(value)
    return [f for key, part in parts for f in fields_of(part, (*path, key))] or [path]


def with_null(value, path, null):
    if not path:
        return null
    parts = dict(value) if isinstance(value, dict) else list(value)
    parts[path[0]] = with_null(parts[path[0]], path[1:], null)
    return parts


def test_no_prompt_of_the_package_makes_text_of_a_null():
    """Each field of a row of each task in turn is null: the row is left out, or as it was."""
    n_left_out = 0
    for name, (_, _, rows) in MADE_UP.items():
        function = tasks.get(name).question
        for made_up in rows:
            whole = asked(function, made_up)
            for path in fields_of(made_up):
                for null in (None, NAN, pd.NA):
                    try:
                        assert asked(function, with_null(made_up, path, null)) == whole
                    except Lacking as error:
                        n_left_out += 1
                        assert str(error) == f"null {'.'.join(k for k in path if type(k) is str)}"
                    except ValueError as error:  # of the choices' labels, the true one
                        assert path[:2] == ("choices", "label") and "is not in list" in str(error)
    assert n_left_out > 300
