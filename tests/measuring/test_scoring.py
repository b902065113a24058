"""Scores against a loop of one sequence at a time, whatever their batches."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import oracle
import pytest
from questions import mixed_examples

from forgetlib.data import splits
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.measuring import ask, scoring
from forgetlib.measuring.base import Asked
from forgetlib.models import forward, loading
from forgetlib.runs import jobs
from forgetlib.runs.records import Job
from forgetlib.runs.rows import read_records, write_records
from forgetlib.runs.specs import Checkpoint, Measurement


def test_scores_equal_a_naive_loop_on_every_architecture(folder):
    for tuning in ("body", "full", "lora"):
        lm = loading.load(str(folder), tuning=tuning, dtype="float32", device="cpu")
        expected = oracle.log_likelihoods(lm.model, lm.tokenizer, mixed_examples())
        # GPT-J's attention cannot be replaced, Gemma 2's caps its scores.
        capped = folder.name.startswith(("gptj", "gemma2"))
        ways = ("mask",) if capped else ("tree", "mask")
        assert lm.packs == ways[0]
        for way in (*ways, None):
            lm.packs = way
            found = scoring.score(lm, mixed_examples())
            assert found.log_likelihoods == pytest.approx(expected, abs=1e-3)
        assert np.ptp(expected) > 1


@pytest.mark.parametrize("budget", [1, 30, 100, 10_000])
def test_batching_and_padding_do_not_matter(tiny, budget):
    examples = mixed_examples()
    one = scoring.score(tiny, examples, token_budget=budget)
    other = scoring.score(tiny, examples[::-1], token_budget=64)
    assert one.log_likelihoods == pytest.approx(other.log_likelihoods[::-1], abs=1e-4)
    assert one.uids == tuple(e.uid for e in examples)


def recorded_batches(lm, examples, monkeypatch, token_budget):
    """The tokens that are fed of every example's longest choice, batch by batch."""
    batches = []
    collate = forward.collate

    def record(lm, group):
        batches.append([max(len(s.tokens) for s in pair) - 1 for pair in group])
        return collate(lm, group)

    monkeypatch.setattr(forward, "collate", record)
    scores = scoring.score(lm, examples, token_budget=token_budget)
    return scores, batches


@pytest.mark.parametrize("packs", ["as it does", None])
def test_the_longest_come_first_in_batches_within_the_budget(tiny, monkeypatch, packs):
    """packs: None is a model whose sequences are padded to the longest of their batch."""
    lm = tiny if packs else replace(tiny, packs=None)
    examples = mixed_examples(24)
    budget = 100
    scores, batches = recorded_batches(lm, examples, monkeypatch, budget)
    flat = [n for batch in batches for n in batch]
    assert flat == sorted(flat, reverse=True)
    assert len(set(flat)) > 3 and len(batches) > 3
    for batch, following in pairwise([*batches, None]):

        def tokens(of):  # both choices of each example
            return 2 * (sum(of) if packs else max(of) * len(of))

        assert tokens(batch) <= budget
        assert following is None or tokens([*batch, following[0]]) > budget  # none is left empty
    assert (scores.n_tokens.dtype, scores.labels.dtype) == (np.int32, np.int64)
    assert scores.log_likelihoods.dtype == np.float32


def test_permuting_the_choices_permutes_the_scores(tiny):
    examples = mixed_examples()
    swapped = [Example(e.uid, e.prompts[::-1], e.choices[::-1], 1 - e.label) for e in examples]
    one, other = (scoring.score(tiny, part) for part in (examples, swapped))
    assert one.log_likelihoods == pytest.approx(other.log_likelihoods[:, ::-1], abs=1e-5)
    assert (one.labels == 1 - other.labels).all()


@pytest.mark.parametrize(
    ("prompt", "choices", "message"),
    [
        ("good " * 80, ("good", "bad"), "at most 64 tokens, the context of tiny, found 81"),
        ("good", ("bad " * 80, "bad"), "at most 64 tokens"),
    ],
)
def test_what_does_not_fit_the_context_is_an_error_and_not_cut(tiny, prompt, choices, message):
    example = Example("t/test/0", (prompt, prompt), choices, 0)
    with pytest.raises(InputError, match=message):
        scoring.score(tiny, [example])


def test_scoring_nothing_is_an_error(tiny):
    with pytest.raises(
        InputError, match=r"^score: expected examples, found none. Pass at least one."
    ):
        scoring.score(tiny, [])


def test_examples_with_different_numbers_of_choices_are_an_error(tiny):
    two = Example("t/test/0", ("is",) * 2, ("good", "bad"), 0)
    three = Example("t/test/1", ("is",) * 3, ("good", "bad", "it"), 0)
    with pytest.raises(InputError) as error:
        scoring.score(tiny, [two, three])
    assert str(error.value) == (
        "examples: expected as many choices for all examples, found [2, 3]. "
        "Take examples with different numbers of choices apart."
    )


def test_choices_that_are_equal_to_the_model_are_an_error(tiny):
    example = Example("t/test/0", ("is",) * 2, ("good", "good "), 0)
    assert len(set(map(tuple, tiny.tokenizer(["is good", "is good "])["input_ids"]))) == 1
    with pytest.raises(InputError) as error:
        scoring.score(tiny, [example])
    assert str(error.value) == (
        "example 't/test/0': expected choices that differ in their tokens, found ('good', 'good '),"
        " which are equal to tiny. It cannot tell them apart: drop the question, or use another "
        "model."
    )


def test_prompts_are_measured_as_a_view_shows_them_and_stored(project, tiny, tmp_path):
    """Of a question with several prompts that of the true answer."""
    asked = Measurement("prompt_nats", "tiny_city", "test", 6)
    among = replace(asked, view="few_shot(2)")
    base = Checkpoint("tiny", dtype="float32")
    write_records(jobs.run(Job(base, (asked, among))), tmp_path / "some.parquet")
    found = {r.measurement: r.value.nats for r in read_records(tmp_path / "some.parquet")}
    plain, seen = found[asked], found[among]
    questions = splits.load("tiny_city", "test", 6, 0)
    texts = [e.prompts[e.label] for e in questions]
    assert plain == pytest.approx(scoring.nats_a_token(tiny, texts), rel=1e-5)
    assert seen.shape == (6,) and not np.allclose(seen, plain)
    two = Example("t/test/0", ("it is good", "it is bad"), ("yes", "no"), 1)
    one = ask.measure(Asked(tiny, asked, lambda split, n: [two]))
    assert one.nats == pytest.approx(scoring.nats_a_token(tiny, ["it is bad"]), rel=1e-5)
