"""From texts to packed tokens and gradients, against one sequence at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from questions import mixed_examples
from torch.nn import functional as F

from forgetlib.data import splits, views
from forgetlib.data.base import Example
from forgetlib.engine import packing
from forgetlib.errors import InputError
from forgetlib.measuring import probing, scoring
from forgetlib.models import checks, forward, loading


def test_white_space_at_the_prompt_s_end_counts_with_the_response():
    lm = loading.load("tiny", dtype="float32", device="cpu")
    plain = Example("t/test/0", ("is it", "is it"), ("good", "bad"), 0)
    spaced = Example("t/test/0", ("is it \n", "is it \n"), ("good", "bad"), 0)
    assert forward.encode(lm, plain, 0) == forward.encode(lm, spaced, 0)


def test_a_response_that_tokenises_to_nothing_is_an_error(tiny, monkeypatch):
    class Joining:
        """A tokenizer whose first token swallows what follows."""

        def __call__(self, text):
            return type("Encoding", (), {"input_ids": [1]})

    lm = replace(tiny, tokenizer=Joining(), _tokens={})
    with pytest.raises(InputError, match="expected a response of at least one token"):
        forward.encode(lm, Example("t/test/0", ("a", "a"), ("b", "c"), 0), 0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120))
def test_groups_by_token_budget_are_all_there_and_within_it(lengths, budget):
    order = list(range(len(lengths)))
    for padded in (True, False):
        groups = list(forward.by_token_budget(lengths, order, budget, padded=padded))
        assert [i for g in groups for i in g] == order
        for group in groups:
            chosen = [lengths[i] for i in group]
            size = max(chosen) * len(chosen) if padded else sum(chosen)
            assert len(group) == 1 or size <= budget


def test_a_gradient_step_equals_the_naive_one_on_every_architecture(folder):
    """The loss's gradient through our output layer equals autograd's through all logits."""
    for tuning in ("body", "full", "lora"):
        lm = loading.load(str(folder), tuning=tuning, dtype="float32", device="cpu")
        example = mixed_examples()[-1]
        sequence = forward.encode(lm, example, 0)
        batch = forward.collate(lm, [[sequence], [forward.encode(lm, mixed_examples()[0], 1)]])
        forward.response_log_likelihoods(lm, batch).sum().backward()
        ours = {n: p.grad.clone() for n, p in lm.trainable.items() if p.grad is not None}
        lm.model.zero_grad()
        total = torch.zeros(())
        for example_, choice in ((example, 0), (mixed_examples()[0], 1)):
            tokens = torch.tensor([forward.encode(lm, example_, choice).tokens])
            n = forward.encode(lm, example_, choice).n_response
            logits = lm.model(tokens).logits[0, -n - 1 : -1].float()
            total = total - F.cross_entropy(logits, tokens[0, -n:], reduction="sum")
        total.backward()
        assert ours
        for name, gradient in ours.items():
            theirs = lm.trainable[name].grad
            assert torch.allclose(gradient, theirs, rtol=1e-3, atol=1e-5), name


# --- packing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", packing.WAYS)
def test_packing_holds_every_token_once_and_pads_little(tiny, way):
    """Of trees of some branches: each column holds its token, and none is there twice."""
    rng = np.random.default_rng(0)
    families = []
    for i in range(40):
        prompt = rng.integers(1, 9, rng.integers(1, 30)).tolist()
        branches = [[b, *rng.integers(1, 9, rng.integers(0, 6))] for b in range(rng.integers(1, 4))]
        if i % 4 == 0:  # a branch that branches, one that ends where another goes on, and one twice
            branches += [[*branches[0], 9, 9, 4], [*branches[0], 9, 9], [*branches[0], 9, 8], [9]]
            branches += [branches[1]]
        families.append([[*prompt, *branch] for branch in branches])
    packed = forward.pack(replace(tiny, packs=way), families)
    mask = packed.mask if way == "mask" else whole_mask(packed)
    sequences = [tokens for family in families for tokens in family]
    for (row, columns), tokens in zip(packed.places, sequences, strict=True):
        assert packed.input_ids[row, list(columns)].tolist() == tokens
        assert packed.position_ids[row, list(columns)].tolist() == list(range(len(tokens)))
        for i, column in enumerate(columns):  # a token sees its own past, and nothing else
            seen = (mask[row, 0, column] == 0).nonzero().flatten().tolist()
            assert seen == list(columns[: i + 1])
    unshared = sum(map(len, sequences))
    assert packed.input_ids.numel() < (0.7 if way == "mask" else 0.65) * unshared


@pytest.mark.parametrize("way", packing.WAYS)
def test_questions_after_the_same_examples_share_them(tiny, way, monkeypatch):
    """Scores as of each alone, from less than half of the tokens; ordinary questions stay alone."""
    lm, view = replace(tiny, packs=way), views.get("few_shot(5)").of("tiny_review", 0)
    monkeypatch.setattr(forward, "SHARED_LEAST", 16)  # the model has room for 64
    plain = splits.load("tiny_review", "test", 12, 0)
    asked = [view.shown(e) for e in plain]
    sizes: list[int] = []
    collate = forward.collate

    def counting(lm, families):
        batch = collate(lm, families)
        sizes.append(batch.packed.input_ids.numel())
        return batch

    monkeypatch.setattr(forward, "collate", counting)
    found = scoring.score(lm, asked).log_likelihoods
    shared, sizes = sum(sizes), []
    alone = np.concatenate([scoring.score(lm, [e]).log_likelihoods for e in asked])
    assert found == pytest.approx(alone, abs=1e-4)
    assert 2 * shared < sum(sizes)
    states = probing.hidden_states(lm, asked)
    for i, example in enumerate(asked):
        own = probing.hidden_states(lm, [example])
        for together, by_itself in ((states.question, own.question), (states.answer, own.answer)):
            assert torch.allclose(together[i], by_itself[0], atol=1e-4)

    def units_of(examples, budget):
        encoded = [[forward.encode(lm, e, c).tokens[:-1] for c in (0, 1)] for e in examples]
        return forward.units(lm, encoded, budget)

    assert [unit.sequences for unit in units_of(plain, 2048)] == [
        (2 * i, 2 * i + 1) for i in range(12)
    ]
    for budget in (1, 300):  # a unit of several questions keeps to the budget
        of = units_of(asked, budget)
        assert all(len(unit.sequences) == 2 or unit.size <= budget for unit in of)
        assert any(len(unit.sequences) > 2 for unit in of) == (budget > 1)
        assert sorted(i for unit in of for i in unit.sequences) == list(range(24))
    assert len(units_of(asked, 1)) == 12


def whole_mask(packed):
    """(1, 1, T, T) of what attention by tree sees."""
    n = packed.input_ids.shape[1]
    mask = torch.full((1, 1, n, n), -torch.inf)
    start = 0
    for length, own in packed.trees:
        causal = torch.full((length, length), -torch.inf).triu(1)
        mask[0, 0, start : start + length, start : start + length] = causal if own is None else own
        start += length
    assert start == n
    return mask


def test_a_sequence_beyond_the_sliding_window_is_not_packed(tiny):
    sequences = [[forward.encode(tiny, e, c) for c in (0, 1)] for e in mixed_examples(8)]
    expected = forward.response_log_likelihoods(tiny, forward.collate(tiny, sequences))
    narrow = replace(tiny, window=3)
    batch = forward.collate(narrow, sequences)
    assert batch.packed.mask is None and batch.packed.trees is None
    found = forward.response_log_likelihoods(narrow, batch)
    assert torch.allclose(found, expected, atol=1e-4)


def test_one_token_responses_to_one_prompt_share_a_row(tiny):
    example = splits.load("tiny_review", "test", 1, 0)[0]
    batch = forward.collate(tiny, [[forward.encode(tiny, example, c) for c in (0, 1)]])
    assert batch.packed.input_ids.numel() == len(forward.encode(tiny, example, 0).tokens) - 1
    assert batch.n_sequences == 2


def test_no_row_is_longer_than_a_buffer_of_the_model(tiny):
    """As BigBird's token types, which are as long as its longest sequence."""
    examples = mixed_examples()
    narrow = replace(tiny, longest_row=40)
    lengths = [[len(forward.encode(tiny, e, c).tokens) - 1 for c in (0, 1)] for e in examples]
    for group, _ in forward.passes(narrow, lengths, 2048):
        assert sum(sum(lengths[i]) for i in group) <= 40
    families = [[forward.encode(tiny, e, c).tokens for c in (0, 1)] for e in examples[:8]]
    packed = forward.pack(narrow, families)
    assert packed.trees is None and packed.mask is None
    found = scoring.score(narrow, examples).log_likelihoods
    assert found == pytest.approx(scoring.score(tiny, examples).log_likelihoods, abs=1e-4)
    model = tiny.model
    assert checks.longest_row(model, 64) > 2048
    model.register_buffer("kinds", torch.zeros(1, 64), persistent=False)
    try:
        assert checks.longest_row(model, 64) == 64
    finally:
        del model.kinds


# --- activations that are computed again ----------------------------------------------------------


def test_gradients_are_the_same_where_activations_are_computed_again(folder):
    for tuning in ("body", "full", "lora"):
        found = []
        for recompute in (False, True):
            lm = loading.load(
                str(folder), tuning=tuning, dtype="float32", device="cpu", recompute=recompute
            )
            sequence = forward.encode(lm, mixed_examples()[-1], 0)
            forward.response_log_likelihoods(lm, forward.collate(lm, [[sequence]])).sum().backward()
            found.append({n: p.grad for n, p in lm.trainable.items() if p.grad is not None})
        kept, again = found
        assert kept
        assert set(kept) == set(again)
        for name, gradient in kept.items():
            assert torch.allclose(gradient, again[name], rtol=1e-5, atol=1e-6), name


def test_activations_that_are_computed_again_are_not_kept(tiny):
    """Tensors that the backward pass holds, in numbers, with and without."""
    held = {}
    for recompute in (False, True):
        lm = loading.load("tiny", dtype="float32", device="cpu", recompute=recompute)
        sequence = forward.encode(lm, mixed_examples()[-1], 0)
        kept: dict[int, int] = {}

        def pack(tensor, kept=kept):
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            forward.response_log_likelihoods(lm, forward.collate(lm, [[sequence]]))
        parameters = {p.data_ptr() for p in lm.model.parameters()}
        held[recompute] = sum(n for where, n in kept.items() if where not in parameters)
    assert held[True] < held[False] / 4
