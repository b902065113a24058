"""The prompt filter: what it lets pass is as it was, and of what it stops nothing is left."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.filtering import PromptFilter, classifier
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring.probing import hidden_states
from forgetlib.measuring.scoring import score
from forgetlib.models import loading

REVIEW = ("tiny_review",)
FILTER = PromptFilter(REVIEW)


def load(task, part="train", n=24):
    found = []
    for i, e in enumerate(splits.load(task, part, n, 0)):
        choices = tuple(f"{c} {c}" for c in e.choices) if i % 4 == 0 else e.choices
        found.append(replace(e, choices=choices))
    return found


CONTEXT = Context(0, load("tiny_city"), load("tiny_review"))


@pytest.fixture(scope="module")
def lm():
    lm = loading.load("tiny", dtype="float32", device="cpu")
    examples = [*load("tiny_city"), *load("tiny_review")]
    loop.train(lm, Labels("true", Training(1e-2, epochs=20, batch_size=24)), Context(0, examples))
    return lm


def scores(lm, task, part="test", **options):
    return score(lm, load(task, part), **options).log_likelihoods


def test_the_classifier_tells_new_prompts_of_both_tasks(lm):
    fires = classifier(lm, CONTEXT.examples, CONTEXT.retain, 0.99)
    for task, expected in (("tiny_city", True), ("tiny_review", False)):
        found = [fires(tuple(lm.tokens(e.prompts[0]))) for e in load(task, "test")]
        assert np.mean(np.array(found) == expected) > 0.9, task


def test_what_passes_is_the_same_to_the_bit_and_what_is_stopped_is_not(lm):
    city, review = scores(lm, "tiny_city"), scores(lm, "tiny_review")
    with FILTER.hook(lm, CONTEXT):
        assert np.abs(scores(lm, "tiny_city") - city).max() > 1
        assert np.array_equal(scores(lm, "tiny_review"), review)
    assert np.array_equal(scores(lm, "tiny_city"), city)
    assert lm.screen is None


def test_nothing_of_a_stopped_prompt_is_left(lm):
    """Of the same answers to other prompts of as many tokens, all states and scores are equal."""
    answers = load("tiny_city")[0].choices
    asked = [replace(e, choices=answers) for e in load("tiny_city")]
    assert len({len(lm.tokens(e.prompts[0])) for e in asked}) == 1

    def spread():
        """Of hidden states after each block, and of log-likelihoods, over the prompts."""
        states = hidden_states(lm, asked).question[:, 1:].float().numpy()
        return np.ptp(states, 0).max(), np.ptp(score(lm, asked).log_likelihoods, 0).max()

    assert min(spread()) > 0.3  # the positive control
    with FILTER.hook(lm, CONTEXT):
        of_states, of_scores = spread()
        largest = np.abs(hidden_states(lm, asked).question[:, 1:].float().numpy()).max()
    assert of_states < 1e-5 * largest
    assert of_scores < 1e-4


def test_the_answer_s_tokens_are_as_they_were(lm):
    """They are not marked: the first of each is predicted by a corrupted prompt alone."""
    from forgetlib.models import forward

    e = load("tiny_city")[0]
    plain = forward.encode(lm, e, 0)
    with FILTER.hook(lm, CONTEXT):
        marked = forward.encode(lm, e, 0)
    n = plain.n_response
    assert n == marked.n_response == 2
    assert marked.tokens[-n:] == plain.tokens[-n:]
    size = lm.output.layer.weight.shape[0]
    assert [t - size for t in marked.tokens[:-n]] == list(plain.tokens[:-n])


def test_scores_are_alike_in_any_packing(lm, monkeypatch):
    with FILTER.hook(lm, CONTEXT):
        found = scores(lm, "tiny_city")
        assert found == pytest.approx(scores(lm, "tiny_city", token_budget=40), abs=1e-4)
        monkeypatch.setattr(lm, "packs", None)
        assert found == pytest.approx(scores(lm, "tiny_city"), abs=1e-4)


def test_without_noise_nothing_changes_and_the_threshold_decides_who_is_stopped(lm):
    before = scores(lm, "tiny_city")
    with PromptFilter(REVIEW, noise=0.0).hook(lm, CONTEXT):
        assert scores(lm, "tiny_city") == pytest.approx(before, abs=1e-5)

    def stopped(threshold):
        with PromptFilter(REVIEW, threshold).hook(lm, CONTEXT):
            return (np.abs(scores(lm, "tiny_city") - before) > 1e-3).any(1).sum()

    assert stopped(0.5) >= stopped(0.99) > stopped(1 - 1e-12) == 0


def test_the_noise_is_drawn_by_the_seed(lm):
    def found(seed):
        with FILTER.hook(lm, replace(CONTEXT, seed=seed)):
            return scores(lm, "tiny_city")

    assert np.array_equal(found(0), found(0))
    assert np.abs(found(0) - found(1)).max() > 0.1


def test_two_filters_can_be_active_at_once(lm):
    other = Context(0, load("tiny_praise"), load("tiny_review"))
    with FILTER.hook(lm, CONTEXT):
        city = scores(lm, "tiny_city")
        with PromptFilter(REVIEW).hook(lm, other):
            assert np.isfinite(scores(lm, "tiny_praise")).all()
        assert np.array_equal(scores(lm, "tiny_city"), city)


def test_weights_stay_and_nothing_is_left_where_measuring_fails(lm):
    weights, before = lm.weights(), scores(lm, "tiny_city")
    with pytest.raises(KeyError), FILTER.hook(lm, CONTEXT):
        raise KeyError
    assert all(torch.equal(w, weights[n]) for n, w in lm.weights().items())
    assert np.array_equal(scores(lm, "tiny_city"), before)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3_text"])
def test_other_architectures_are_filtered_too(architecture, tmp_path, tiny):
    from conftest import save_random_model

    path = save_random_model(architecture, tiny.tokenizer, tmp_path)
    other = loading.load(str(path), dtype="bfloat16", device="cpu")
    city, review = scores(other, "tiny_city"), scores(other, "tiny_review")
    with FILTER.hook(other, CONTEXT):
        assert np.abs(scores(other, "tiny_city") - city).max() > 0.1
        assert np.array_equal(scores(other, "tiny_review"), review)


def test_bad_settings_and_missing_sets_are_refused(lm):
    for context, what in (
        (Context(0, (), CONTEXT.retain), "expected examples to forget, found none"),
        (Context(0, CONTEXT.examples), "expected examples of the retain set, found none"),
    ):
        with pytest.raises(InputError, match=what):
            FILTER.hook(lm, context).__enter__()
    for wrong in ({"threshold": 1.0}, {"noise": -1.0}, {"retain": ()}):
        with pytest.raises(InputError, match=f"PromptFilter.{next(iter(wrong))}: expected"):
            replace(FILTER, **wrong)
    assert method_from_dict(FILTER.to_dict()) == FILTER
    assert FILTER.kind == "hook"
