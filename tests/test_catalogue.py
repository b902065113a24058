"""The embedded models: each loads by its name, is packed, and knows what everybody knows."""

import re
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from forgetlib import catalogue, cost, models, scoring
from forgetlib.schema import Example

# Of the others, 1.6 GB are downloaded and converted, in some minutes: by `make architectures`.
LOADED = [
    pytest.param(model.name, marks=() if model.gguf_bytes < 3e8 else pytest.mark.architectures)
    for model in catalogue.MODELS
]


def test_names_are_told_apart_and_the_alias_is_the_first_model():
    names = catalogue.names()
    assert len(set(names)) == len(names) == len(catalogue.MODELS) + 1
    assert catalogue.find("embedded") is catalogue.find("gemma-3-270m") is catalogue.MODELS[0]
    assert catalogue.find("gemma") is None
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names)


@pytest.mark.parametrize("model", catalogue.MODELS, ids=lambda m: m.name)
def test_sizes_are_known_before_a_download(model):
    """Parameters as their publishers count them, and a shape that an estimate can be made with."""
    stated = re.search(r"(\d+(?:\.\d+)?)([mb])", model.name)
    expected = float(stated[1]) * {"m": 1e6, "b": 1e9}[stated[2]]
    found = cost.shape(model.name)
    tied = model.config.get("tie_word_embeddings", True)
    embeddings = found.embeddings if tied else found.embeddings // 2  # the originals tie them
    assert found.body + embeddings == pytest.approx(expected, rel=0.05)


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("name", LOADED)
def test_an_embedded_model_is_packed_in_bf16_and_scores_as_transformers(name):
    """SmolLM2 was not, as its states of byte tokens, with which it was tried, round by more."""
    lm = models.load(name, device="cpu")
    assert lm.packs == "tree"
    config = dict(catalogue.find(name).config)
    declared = AutoConfig.for_model(**config)
    assert {key: getattr(lm.model.config, key) for key in config} == config
    assert type(declared) is type(lm.model.config)
    places = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo"}
    pairs = [(land, other) for land in places for other in places if land != other]
    examples = [
        Example(f"t/test/{i}", (f"The capital of {a} is",) * 2, (places[a], places[b]), 0)
        for i, (a, b) in enumerate(pairs)
    ]
    ours = scoring.score(lm, examples).log_likelihoods
    assert (ours[:, 0] > ours[:, 1]).all()
    assert lm.tokens("The")[0] not in lm.tokenizer.all_special_ids or name == "gemma-3-270m"
    errors = []
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(models.source_of(name), dtype=dtype)
        single = replace(lm, model=model)
        errors.append(naive(single, examples))
    exact, theirs = errors
    assert abs(ours - exact).mean() <= 1.1 * abs(theirs - exact).mean() + 0.01


def naive(lm, examples):
    """One sequence at a time, all logits."""
    found = torch.empty(len(examples), 2)
    for row, example in enumerate(examples):
        for choice in (0, 1):
            sequence = models.encode(lm, example, choice)
            with torch.inference_mode():
                logits = lm.model(torch.tensor([sequence.tokens])).logits[0].float()
            log_probs = logits.log_softmax(-1)
            n = len(sequence.tokens)
            places = range(n - sequence.n_response, n)
            found[row, choice] = sum(log_probs[i - 1, sequence.tokens[i]] for i in places)
    return found.numpy()
