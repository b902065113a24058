"""Shortcuts and near-duplicates, on questions made so that the answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import family

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.data.base import Example
from forgetlib.data.splits import Split
from forgetlib.errors import InputError
from forgetlib.figures import audit


def asked(prompt, choices, label, number=0):
    return Example(f"made/test/{number}", (prompt, prompt), tuple(choices), label)


def test_a_copy_is_nearest_and_fixed_words_do_not_count():
    train = [
        asked("Question: why do cats sleep so long today? Answer:", ("a", "b"), 0),
        asked("Question: how far away is the red moon now? Answer:", ("a", "b"), 1),
    ]
    copy = asked("Question: Why do cats sleep so long TODAY? Answer:", ("a", "b"), 1)
    half = asked("why do cats sleep so well by day", ("a", "b"), 1)
    other = asked("Question: what is it? Answer:", ("a", "b"), 0)
    found = audit.nearest(train, [copy, half, other])
    assert found[0] == 1
    # "why do cats", "do cats sleep", "cats sleep so" are shared by 7 and 6 triples.
    assert found[1] == pytest.approx(3 / (7 + 6 - 3))
    assert found[2] == 0
    assert audit.nearest(train[:1], train[:1]) == [1]
    assert audit.nearest([], [other]) == [0]


def test_the_commonest_answer_is_that_of_the_training_set():
    train = [asked("p", ("yes", "no"), label) for label in (0, 0, 1)]
    test = [asked("q", ("no", "yes"), 1), asked("q", ("yes", "no"), 1), asked("q", ("x", "y"), 0)]
    assert audit.commonest_answer(train, test) == pytest.approx((1 + 0 + 0.5) / 3)


def test_the_longer_answer():
    test = [asked("q", ("long", "no"), 0), asked("q", ("long", "no"), 1), asked("q", ("a", "b"), 1)]
    assert audit.longer_answer(test) == pytest.approx((1 + 0 + 0.5) / 3)


def test_the_answer_in_the_prompt():
    """Whole words, whatever their case, by their share of the response."""
    test = [
        asked("The red fox ran.", ("a red fox", "a blue dog"), 0),
        asked("The red fox ran.", ("the fox", "a fox ran"), 0),
        asked("The foxes ran.", ("fox", "FOXES"), 0),
        asked("Nothing", ("x", "..."), 1),
    ]
    assert audit.answer_in_prompt(test) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_the_audit_of_a_suite_has_a_row_a_task():
    def load(task, seed):
        whole = splits.split(task, seed)
        return replace(whole, train=whole.train[:40], test=whole.test[:30])

    table = audit.table(["tiny_city", "tiny_review"], [0, 1], load)
    assert table["eval_task"].tolist() == ["tiny_city", "tiny_review"]
    assert (table["n_train"] == 40).all() and (table["n_test"] == 30).all()
    assert table["true_first"].between(0.35, 0.65).all()
    assert np.isfinite(table[list(audit.SHORTCUTS)]).all(axis=None)


def test_a_shared_part_is_a_passage_and_not_an_instruction():
    train = [asked("A passage.\nQuestion: what?\nAnswer:", ("a", "b"), 0)]
    test = [
        asked("a passage.\nQuestion: who?\nAnswer:", ("a", "b"), 0),
        asked("Another.\nQuestion: what?\nAnswer:", ("a", "b"), 0),
        asked("Question: A passage.\nAnswer:", ("a", "b"), 0),
    ]
    assert audit.shares_part(train, test).tolist() == [True, False, False]
    told = [asked(f"Read this.\n\nQuestion: {q}?\nAnswer:", ("a", "b"), 0) for q in "xy"]
    assert not audit.shares_part(told[:1], told[1:]).any()


def test_questions_with_neighbours_that_are_forgotten_more_are_seen():
    """Of 100 test questions, the first 30 resemble a training question; those that are lost do."""
    results = family("t", 0.5, 1.0, 0.75, n=100)
    uids = results[2].scores["t/test"].uids
    lost = ~metrics.correct(results[2].scores["t/test"])
    alike = set(np.flatnonzero(lost)) | set(np.flatnonzero(~lost)[:5])

    def made(uids, asks):
        pairs = zip(uids, asks, strict=True)
        return tuple(Example(uid, (ask, ask), ("a", "b"), 0) for uid, ask in pairs)

    def load(task, seed):
        same = "one two three four five six"
        trained = [same, *(f"r{i} s{i} t{i}" for i in range(1, 100))]
        tested = [same if i in alike else f"w{i} x{i} y{i} z{i}" for i in range(100)]
        train = made(results[2].scores["t/train"].uids, trained)
        return Split(train, made(uids, tested), 0, True)

    (row,) = audit.neighbours_table(results, load).to_dict("records")
    assert (row["n_with"], row["n_without"]) == (30, 70)
    assert row["lost_with"] == pytest.approx(25 / 30) and row["lost_without"] == 0
    assert 0.6 < row["difference_low"] < 25 / 30 < row["difference_high"] < 1
    alike |= set(range(100))
    assert audit.neighbours_table(results, load).empty
    with pytest.raises(InputError, match=r"train set of .*: expected questions .* 100 others"):
        audit.neighbours_table(results, lambda *a: Split((), (), 0, True))
