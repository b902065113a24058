"""Pattern or instruction: the prompts, their scores on a tiny model, and every bad input."""

import numpy as np
import pytest

from forgetlib.data import views
from forgetlib.data.base import Example
from forgetlib.data.views import View, with_texts
from forgetlib.errors import InputError
from forgetlib.implicit import pattern
from forgetlib.measuring import scoring


@pytest.mark.parametrize("task", pattern.TASKS)
def test_the_two_answers_are_the_patterns_and_the_instructions(task):
    found = pattern.examples(task, 40)
    assert len({e.prompts for e in found}) == len({e.uid for e in found}) == 40
    labels = [e.label for e in found]
    assert 0.2 < np.mean(labels) < 0.8
    for example in found:
        prompt = example.prompts[0]
        assert prompt.count("Input: ") == 3
        assert prompt.endswith("\nOutput:")
        asked = prompt.rpartition("Input: ")[2].partition("\n")[0]
        own, other = example.choices[example.label], example.choices[1 - example.label]
        first = asked.split()[0]
        assert own == (first.upper() if task.startswith("upper") else first)
        if task.endswith("arithmetic"):
            a, b = asked.removeprefix("What is ").removesuffix("?").split(" plus ")
            assert int(other) == int(a) + int(b)
        else:
            assert asked.startswith("____ ")
            assert f"{asked.removeprefix('____ ')}" in dict(pattern.BLANKS)
        # the solved examples show the pattern, and do not show the answer
        for line in prompt.split("\n"):
            if line.startswith("Output: "):
                shown = line.removeprefix("Output: ")
                assert shown in map(pattern.CHANGES[task.split("-")[0]][1], pattern.SENTENCES)


def test_prompts_depend_on_their_seed_alone():
    first, again, other = (pattern.examples("upper-blank", 10, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert pattern.examples("upper-blank", 20)[:10] == first  # more begins as fewer


@pytest.mark.parametrize("view", pattern.VIEWS)
@pytest.mark.parametrize("task", pattern.TASKS)
def test_every_view_can_show_every_task(task, view):
    plain = pattern.examples(task, 20)
    seen = views.apply(view, plain)
    assert [e.label for e in seen] == [e.label for e in plain]
    assert all(len(set(e.choices)) == 2 for e in seen)


def asked_of_tiny():
    """Prompts in words that the tokenizer of `tiny` has."""
    return [
        Example(f"mine/test/{i}", ("what colour has it ?",) * 2, choices, label)
        for i, (choices, label) in enumerate([(("yes", "no"), 0), (("good", "bad"), 1)])
    ]


def test_both_answers_are_scored_for_every_model_view_and_prompt(tiny):
    examples = asked_of_tiny()
    found = pattern.ask({"base": tiny, "tuned": tiny}, {"mine": examples}, ["plain"])
    assert len(found) == 4
    assert set(found.model) == {"base", "tuned"}
    scores = scoring.score(tiny, examples)
    own = found[found.model == "base"].set_index("uid")
    for i, example in enumerate(examples):
        assert own.pattern[example.uid] == pytest.approx(scores.log_likelihoods[i, example.label])
        other = scores.log_likelihoods[i, 1 - example.label]
        assert own.instruction[example.uid] == pytest.approx(other)
        tokens = [scores.n_tokens[i, answer] for answer in (example.label, 1 - example.label)]
        assert own.loc[example.uid, ["pattern_tokens", "instruction_tokens"]].tolist() == tokens
    assert (found.distance > 0).all()


def test_distance_is_nats_a_token_after_the_first_word(tiny):
    texts = ["what colour has it ?", "good bad"]
    found = scoring.nats_a_token(tiny, texts)
    first = Example("a/b/0", ("what", "what"), ("colour has it ?", "colour"), 0)
    scores = scoring.score(tiny, [first])
    assert found[0] == pytest.approx(-scores.log_likelihoods[0, 0] / 4, rel=1e-5)
    assert found.shape == (2,)


@pytest.fixture
def emptied(monkeypatch):
    """Define a view, which is forgotten after the test."""
    monkeypatch.setattr(View, "_known", dict(View._known))

    class Emptied(View, name="emptied_for_a_test"):
        """Leave nothing of an answer."""

        def shown(self, example):
            return with_texts(example, lambda text: "", prompts=False)

    return Emptied


BAD = {
    "a task that is none": (lambda lm: pattern.examples("uper-blank"), "Did you mean"),
    "no prompt": (lambda lm: pattern.examples("upper-blank", 0), "whole number from 1"),
    "a pattern that is none": (lambda lm: pattern.prompt_of("lower", ["A."], "B."), "pattern"),
    "more prompts than there are": (
        lambda lm: pattern.examples("repeat-blank", 20_000),
        "expected 20000 different ones",
    ),
    "a text that is emptied": (
        lambda lm: views.apply("emptied_for_a_test", asked_of_tiny()),
        "text",
    ),
    "a view that changes nothing": (
        lambda lm: pattern.ask({"base": lm}, {"mine": asked_of_tiny()}, ["lower"]),
        "each as it was",
    ),
    "words that a tokenizer cannot spell": (
        lambda lm: pattern.ask(
            {"base": lm}, {"upper-blank": short(pattern.examples("upper-blank", 2))}, ["plain"]
        ),
        "choices that differ in their tokens",
    ),
    "a text of one word": (lambda lm: scoring.nats_a_token(lm, ["good"]), "found 'good'"),
    "no text": (lambda lm: scoring.nats_a_token(lm, []), "found none"),
}


def short(examples):
    """The examples with prompts that fit the context of `tiny`."""
    return [with_texts(e, lambda t: " ".join(t.split()[-9:]), choices=False) for e in examples]


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_asked_is_refused(case, tiny, emptied):
    do, says = BAD[case]
    with pytest.raises(InputError, match=says):
        do(tiny)
