"""The logit lens against transformers, a sequence at a time, and its last layer against scores."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from conftest import save_random_model
from questions import mixed_examples

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.erasure import LEACE
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring import ask, lens, scoring
from forgetlib.measuring.base import Asked
from forgetlib.models import forward, likelihood, loading
from forgetlib.runs import jobs
from forgetlib.runs.records import Job, Result
from forgetlib.runs.rows import read_records, write_records
from forgetlib.runs.specs import Checkpoint, Measurement

NORMS = {  # where each architecture has its final norm
    "llama": lambda model: model.model.norm,
    "qwen3": lambda model: model.model.norm,
    "gemma2": lambda model: model.model.norm,
    "gemma3_text": lambda model: model.model.norm,
    "gpt2": lambda model: model.transformer.ln_f,
    "gptj": lambda model: model.transformer.ln_f,
}


@torch.inference_mode()
def naive(model, norm, tokenizer, examples):
    """(P, N, C): each layer's states of a sequence alone, normed, through the output layer."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    found = []
    for example in examples:
        for prompt, response in zip(example.prompts, example.choices, strict=True):
            tokens, start = oracle.encode(tokenizer, prompt, response)
            states = oracle.hidden_states(model, tokenizer, prompt, response)  # (P, T, D)
            states = torch.stack([*(norm(s) for s in states[:-1]), states[-1]])
            logits = model.get_output_embeddings()(states)
            logits = torch.tanh(logits / cap) * cap if cap else logits
            log_probs = logits.double().log_softmax(-1)
            of_tokens = [log_probs[:, i - 1, tokens[i]] for i in range(start, len(tokens))]
            found.append(torch.stack(of_tokens).sum(0))
    return torch.stack(found).reshape(len(examples), 2, -1).permute(2, 0, 1).numpy()


def test_every_layer_equals_a_naive_loop_on_every_architecture(folder):
    model = oracle.load(str(folder))
    norm = NORMS[model.config.model_type](model)
    for tuning in ("body", "lora"):
        lm = loading.load(str(folder), tuning=tuning, dtype="float32", device="cpu")
        expected = naive(model, norm, lm.tokenizer, mixed_examples())
        for way in (lm.packs, None):
            lm.packs = way
            found = lens.of_layers(lm, mixed_examples())
            assert found.layers.tolist() == [0, 1, 2]
            assert found.log_likelihoods == pytest.approx(expected, abs=1e-3)
    layers = found.log_likelihoods
    assert np.abs(layers[0] - layers[1]).max() > 0.1 < np.abs(layers[1] - layers[2]).max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_last_layer_is_the_scores(dtype):
    lm = loading.load("tiny", dtype=dtype, device="cpu")
    for budget in (40, None):
        last = lens.of_layers(lm, mixed_examples(), budget).log_likelihoods[-1]
        expected = scoring.score(lm, mixed_examples(), budget).log_likelihoods
        assert np.array_equal(last, expected)  # to the bit, as the sums are the same


def test_the_output_layer_is_met_by_response_tokens_only_a_chunk_at_a_time(tiny, monkeypatch):
    """With the output layer's own function, which never has all logits at once."""
    met = []
    log_probs = likelihood.OutputLayer.log_probs

    def record(self, hidden, targets):
        met.append(tuple(hidden.shape))
        return log_probs(self, hidden, targets)

    monkeypatch.setattr(likelihood.OutputLayer, "log_probs", record)
    monkeypatch.setattr(likelihood.OutputLayer, "logits", None)
    lens.of_layers(tiny, mixed_examples())
    n_tokens = scoring.score(tiny, mixed_examples()).n_tokens.sum()
    assert met[:-1] == [(2 * n_tokens, 64), (n_tokens, 64)]  # two layers, and the last
    monkeypatch.setattr(lens, "ROWS", 1)
    met.clear()
    one = lens.of_layers(tiny, mixed_examples())
    assert met == [(n_tokens, 64)] * 3
    monkeypatch.undo()
    other = lens.of_layers(tiny, mixed_examples())
    assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-5)


def test_neither_order_nor_batches_matter(tiny):
    one = lens.of_layers(tiny, mixed_examples(), token_budget=30)
    other = lens.of_layers(tiny, mixed_examples()[::-1])
    assert one.log_likelihoods == pytest.approx(other.log_likelihoods[:, ::-1], abs=1e-4)


@pytest.fixture(scope="module")
def taught():
    lm = loading.load("tiny", dtype="float32", device="cpu")
    questions = splits.load("tiny_city", "train", 24, 0)
    loop.train(lm, Labels("true", Training(1e-2, epochs=20, batch_size=12)), Context(0, questions))
    return lm


def test_what_is_known_is_read_in_late_layers_and_not_in_the_embeddings(taught):
    """The prompt's last token is the same for all questions of a form: its embedding knows none."""
    questions = splits.load("tiny_city", "train", 24, 0)
    found = lens.of_layers(taught, questions)
    assert found.uids == tuple(e.uid for e in questions)
    assert found.labels.tolist() == [e.label for e in questions]
    margins = metrics.lens_margins(found.log_likelihoods, found.labels)
    assert margins.shape == (3, 24)
    assert margins[-1] == pytest.approx(metrics.margins(scoring.score(taught, questions)), abs=1e-4)
    right = (margins > 0).mean(1)
    assert right[0] < 0.7 < 0.95 < right[-1]
    assert metrics.best_layer(margins) in (1, 2)


def test_a_hook_that_changes_blocks_is_seen(taught):
    questions = splits.load("tiny_city", "train", 24, 0)
    before = lens.of_layers(taught, questions).log_likelihoods
    with LEACE().hook(taught, Context(0, questions)):
        within = lens.of_layers(taught, questions).log_likelihoods
        scores = scoring.score(taught, questions).log_likelihoods
    assert within[-1] == pytest.approx(scores, abs=1e-5)
    assert np.array_equal(within[0], before[0])
    assert np.abs(within[1] - before[1]).max() > 1e-3


def test_the_model_is_left_as_it_was(tiny):
    def hooks():
        return sum(len(m._forward_hooks) for m in tiny.model.modules())

    state, before, n_hooks = torch.get_rng_state(), tiny.weights(), hooks()
    lens.of_layers(tiny, mixed_examples())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[n], w) for n, w in tiny.weights().items())
    assert hooks() == n_hooks


@pytest.mark.parametrize("architecture", NORMS)
def test_the_final_norm_is_found_by_what_it_computes(architecture, tmp_path, tiny):
    path = save_random_model(architecture, tiny.tokenizer, tmp_path)
    lm = loading.load(str(path), dtype="float32", device="cpu")
    tokens = forward.encode(lm, mixed_examples()[0], 0).tokens
    assert lens.final_norm(lm, tokens) is NORMS[architecture](lm.model)


def test_a_model_without_a_final_norm_is_refused(tmp_path):
    """GPT-1, whose blocks end with a norm each."""
    path = oracle.save(oracle.config_of("openai-gpt"), tmp_path / "gpt1")
    lm = loading.load(path, dtype="float32", device="cpu")
    letters = [replace(e, prompts=("a b c",) * 2, choices=("d", "e")) for e in mixed_examples()[:2]]
    scoring.score(lm, letters)
    with pytest.raises(InputError, match=r"expected a model whose last hidden states are a norm"):
        lens.of_layers(lm, letters)


@contextmanager
def louder(lm):
    """A hook that changes what is scored after the norm, which `hidden_states` does not tell."""

    def double(module, inputs, output):
        output.last_hidden_state = 2 * output.last_hidden_state

    handle = lm.model.model.register_forward_hook(double)
    yield
    handle.remove()


def test_what_would_not_be_the_scores_is_refused(tiny):
    with louder(tiny), pytest.raises(InputError, match="logit_lens of 'tiny'"):
        lens.of_layers(tiny, mixed_examples())


def test_no_examples_is_an_error(tiny):
    with pytest.raises(InputError, match="logit_lens: expected examples, found none"):
        lens.of_layers(tiny, [])


def test_it_is_asked_for_stored_and_read_as_the_other_readouts_are(project, tiny, tmp_path):
    questions = splits.load("tiny_city", "test", 8, 0)
    asked = Measurement("logit_lens", "tiny_city", "test", 8)
    found = ask.measure(Asked(tiny, asked, lambda split, n: questions))
    base = Checkpoint("tiny", dtype="float32")
    train = Measurement("logit_lens", "tiny_city", "train", 6)
    records = jobs.run(Job(base, (asked, train, Measurement("scores", "tiny_city", "test", 8))))
    write_records(records, tmp_path / "some.parquet")
    result = Result(base, 0, tuple(read_records(tmp_path / "some.parquet")))
    assert set(result.lenses) == {"tiny_city/test", "tiny_city/train"}
    again = result.lenses["tiny_city/test"]
    assert np.array_equal(again.log_likelihoods, found.log_likelihoods)
    assert again.layers.tolist() == [0, 1, 2]
    scores = result.scores["tiny_city/test"]
    assert again.log_likelihoods[-1] == pytest.approx(scores.log_likelihoods, abs=1e-5)
    assert result.lenses["tiny_city/train"].log_likelihoods.shape == (3, 6, 2)
