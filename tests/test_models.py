from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from forgetlib import likelihood, models, packing, scoring, tasks
from forgetlib.schema import Example, InputError
from forgetlib.store import StoreError

TOKENS = list(range(20, 40))  # of the tiny vocabulary, for the checks that `load` makes


def naive(lm, example, choice):
    """One sequence at a time, all logits, the model's own way: the oracle."""
    prompt = lm.tokenizer(example.prompts[choice]).input_ids
    whole = lm.tokenizer(f"{example.prompts[choice]} {example.choices[choice]}").input_ids
    with torch.inference_mode():
        logits = lm.model(torch.tensor([whole], device=lm.device)).logits[0].float()
    log_probs = F.log_softmax(logits, -1)
    return sum(float(log_probs[i - 1, whole[i]]) for i in range(len(prompt), len(whole)))


def naive_scores(lm, examples):
    return np.array([[naive(lm, e, c) for c in range(len(e.choices))] for e in examples])


def mixed_examples(n=24):
    """Synthetic examples of all four tasks: one-token and shared prompts, several lengths."""
    names = tasks.suite("tiny")
    single = [e for name in names for e in tasks.load(name, "test", n // 4, 0)]
    long = [
        Example(f"long/test/{i}", e.prompts, (f"{e.choices[0]} ? is", f"{e.choices[1]} it"), 0)
        for i, e in enumerate(single[:4])
    ]
    return single + long


def test_scores_equal_a_naive_loop_on_every_architecture(folder):
    for tuning in ("body", "full", "lora"):
        lm = models.load(str(folder), tuning=tuning, dtype="float32", device="cpu")
        expected = naive_scores(lm, mixed_examples())
        # GPT-J's attention cannot be replaced, Gemma 2's caps its scores.
        capped = folder.name.startswith(("gptj", "gemma2"))
        ways = ("mask",) if capped else ("tree", "mask")
        assert lm.packs == ways[0]
        for way in (*ways, None):
            lm.packs = way
            found = scoring.score(lm, mixed_examples())
            assert found.log_likelihoods == pytest.approx(expected, abs=1e-3)
        assert np.ptp(expected) > 1


def test_a_gradient_step_equals_the_naive_one_on_every_architecture(folder):
    """The loss's gradient through our output layer equals autograd's through all logits."""
    for tuning in ("body", "full", "lora"):
        lm = models.load(str(folder), tuning=tuning, dtype="float32", device="cpu")
        example = mixed_examples()[-1]
        sequence = models.encode(lm, example, 0)
        batch = models.collate(lm, [[sequence], [models.encode(lm, mixed_examples()[0], 1)]])
        models.response_log_likelihoods(lm, batch).sum().backward()
        ours = {n: p.grad.clone() for n, p in lm.trainable.items() if p.grad is not None}
        lm.model.zero_grad()
        total = torch.zeros(())
        for example_, choice in ((example, 0), (mixed_examples()[0], 1)):
            tokens = torch.tensor([models.encode(lm, example_, choice).tokens])
            n = models.encode(lm, example_, choice).n_response
            logits = lm.model(tokens).logits[0, -n - 1 : -1].float()
            total = total - F.cross_entropy(logits, tokens[0, -n:], reduction="sum")
        total.backward()
        assert ours
        for name, gradient in ours.items():
            theirs = lm.trainable[name].grad
            assert torch.allclose(gradient, theirs, rtol=1e-3, atol=1e-5), name


@settings(deadline=None, max_examples=20)
@given(
    rows=st.integers(1, 7),
    softcap=st.sampled_from([0.0, 3.0]),
    bias=st.booleans(),
    chunk=st.sampled_from([1, 5, 50, 64]),
)
def test_the_chunked_output_layer_equals_cross_entropy(rows, softcap, bias, chunk):
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 8, generator=generator, requires_grad=True)
    weight = torch.randn(50, 8, generator=generator)
    offset = torch.randn(50, generator=generator) if bias else None
    targets = torch.randint(50, (rows,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "LOGITS_CHUNK", chunk * rows)
        patch.setattr(likelihood, "FEWEST_COLUMNS", 1)
        ours = likelihood._Chunked.apply(hidden, weight, offset, softcap, targets)
    (gradient,) = torch.autograd.grad((ours * torch.arange(1, rows + 1)).sum(), hidden)
    logits = F.linear(hidden, weight, offset)
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    theirs = -F.cross_entropy(logits, targets, reduction="none")
    (expected,) = torch.autograd.grad((theirs * torch.arange(1, rows + 1)).sum(), hidden)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-4)


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
    collate = models.collate

    def record(lm, group):
        batches.append([max(len(s.tokens) for s in pair) - 1 for pair in group])
        return collate(lm, group)

    monkeypatch.setattr(models, "collate", record)
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


@pytest.mark.parametrize("way", packing.WAYS)
def test_packing_holds_every_token_once_and_pads_little(tiny, way):
    """Trees of 1 to 3 branches: each token's column holds it, prompts are not repeated."""
    rng = np.random.default_rng(0)
    families = []
    for _ in range(40):
        prompt = rng.integers(1, 9, rng.integers(1, 30)).tolist()
        branches = [[b, *rng.integers(1, 9, rng.integers(0, 6))] for b in range(rng.integers(1, 4))]
        families.append([[*prompt, *branch] for branch in branches])
    packed = models.pack(replace(tiny, packs=way), families)
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
    sequences = [[models.encode(tiny, e, c) for c in (0, 1)] for e in mixed_examples(8)]
    expected = models.response_log_likelihoods(tiny, models.collate(tiny, sequences))
    narrow = replace(tiny, window=3)
    batch = models.collate(narrow, sequences)
    assert batch.packed.mask is None and batch.packed.trees is None
    found = models.response_log_likelihoods(narrow, batch)
    assert torch.allclose(found, expected, atol=1e-4)


def test_one_token_responses_to_one_prompt_share_a_row(tiny):
    example = tasks.load("tiny_review", "test", 1, 0)[0]
    batch = models.collate(tiny, [[models.encode(tiny, example, c) for c in (0, 1)]])
    assert batch.packed.input_ids.numel() == len(models.encode(tiny, example, 0).tokens) - 1
    assert batch.n_sequences == 2


def test_white_space_at_the_prompt_s_end_counts_with_the_response():
    lm = models.load("tiny", dtype="float32", device="cpu")
    plain = Example("t/test/0", ("is it", "is it"), ("good", "bad"), 0)
    spaced = Example("t/test/0", ("is it \n", "is it \n"), ("good", "bad"), 0)
    assert models.encode(lm, plain, 0) == models.encode(lm, spaced, 0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120))
def test_groups_by_token_budget_are_all_there_and_within_it(lengths, budget):
    order = list(range(len(lengths)))
    for padded in (True, False):
        groups = list(models.by_token_budget(lengths, order, budget, padded=padded))
        assert [i for g in groups for i in g] == order
        for group in groups:
            chosen = [lengths[i] for i in group]
            size = max(chosen) * len(chosen) if padded else sum(chosen)
            assert len(group) == 1 or size <= budget


def test_loading_and_scoring_leave_global_state_alone():
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    dtype = torch.get_default_dtype()
    lm = models.load("tiny", tuning="lora", dtype="float32")
    scoring.score(lm, mixed_examples(4))
    assert (torch.get_rng_state() == random).all()
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)


def test_tuning_decides_what_is_trained():
    names = {t: set(models.load("tiny", tuning=t).trainable) for t in ("body", "full", "lora")}
    assert names["full"] - names["body"] == {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    assert all("lora_" in n for n in names["lora"])
    assert len(names["lora"]) == 2 * 7 * 2  # A and B, linear layers, blocks


def test_weights_go_out_and_in(tiny):
    other = models.load("tiny", dtype="float32", device="cpu")
    weights = tiny.weights()
    changed = {n: w + 1 for n, w in weights.items()}
    other.set_weights(changed)
    assert all((w == changed[n]).all() for n, w in other.weights().items())
    with pytest.raises(InputError, match=r"weights for tiny: expected the 19 trainable.*found 0"):
        other.set_weights({})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no/such-model", {}, "model 'no/such-model': expected embedded, gemma-3-270m, "),
        ("embeded", {}, "Did you mean 'embedded'? Check the name"),
        ("tests", {}, "tiny, tiny-wide, a folder or a hub id"),
        ("tiny", {"tuning": "some"}, "tuning: expected one of body, full, lora, found 'some'"),
        ("tiny", {"dtype": "int8"}, "dtype: expected one of bfloat16, float32, found 'int8'"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_an_error(name, options, message):
    with pytest.raises((models.ModelError, InputError)) as error:
        models.load(name, **options)
    assert message in str(error.value)


def test_pickled_weights_are_never_loaded(folder, tmp_path):
    for file in Path(folder).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(models.ModelError, match="with safetensors"):
        models.load(str(tmp_path))


def test_broken_weights_are_an_error(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    model.save_pretrained(tmp_path)
    for file in Path(folder).glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(models.ModelError, match="logits that are not finite"):
        models.load(str(tmp_path))


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


def test_a_response_that_tokenises_to_nothing_is_an_error(tiny, monkeypatch):
    class Joining:
        """A tokenizer whose first token swallows what follows."""

        def __call__(self, text):
            return type("Encoding", (), {"input_ids": [1]})

    lm = replace(tiny, tokenizer=Joining(), _tokens={})
    with pytest.raises(InputError, match="expected a response of at least one token"):
        models.encode(lm, Example("t/test/0", ("a", "a"), ("b", "c"), 0), 0)


@pytest.mark.parametrize(
    ("ignored", "way"), [("position_ids", "mask"), ("attention_mask", "mask"), ("trees", "tree")]
)
def test_a_model_that_ignores_positions_or_mask_is_not_packed(tiny, monkeypatch, ignored, way):
    """As those with positions in their attention do, or with recurrent layers."""
    decoder = models._decoder(tiny.model)
    forward = decoder.forward

    def without(**inputs):
        return forward(**{k: v for k, v in inputs.items() if k != ignored})

    trial = models._trial(tiny, TOKENS)
    assert not models._why_not_packed(tiny, way, trial)
    monkeypatch.setattr(decoder, "forward", without)
    assert models._why_not_packed(tiny, way, trial)


@pytest.mark.embedded
def test_the_embedded_model_is_packed_in_bf16_however_the_cpu_rounds(monkeypatch):
    """On a CPU that sums in another order for other sizes it was not, and half as fast."""
    lm = models.load("embedded", device="cpu")
    assert lm.packs == "tree"
    trial = models._trial(lm, models._ordinary_tokens(lm.tokenizer, lm.model, 20).tolist()[0])
    decoder = models._decoder(lm.model)
    forward = decoder.forward
    changes = (
        lambda i: i | {"position_ids": i["position_ids"] * 2},
        lambda i: i | {"position_ids": i["position_ids"].clamp(max=12)},
        lambda i: i | {"trees": tuple((n, None) for n, _ in i["trees"] or ())},
    )
    for change in changes:

        def wrong(change=change, **inputs):
            return forward(**(change(inputs) if "trees" in inputs else inputs))

        monkeypatch.setattr(decoder, "forward", wrong)
        assert models._why_not_packed(lm, "tree", trial)


@pytest.mark.parametrize("window", [4, 19])
def test_a_model_with_a_short_window_is_not_packed(tiny, window):
    narrow = replace(tiny, window=window)
    trial = models._trial(tiny, TOKENS)
    assert (
        models._why_not_packed(narrow, "tree", trial) == f"its layers see {window} tokens at a time"
    )
    assert not models._why_not_packed(replace(tiny, window=20), "tree", trial)


# --- saving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_a_trained_model_that_was_saved_scores_the_same_in_transformers_and_here(
    folder, tmp_path, tuning
):
    lm = models.load(str(folder), tuning=tuning, dtype="float32", device="cpu")
    with torch.no_grad():
        for parameter in lm.trainable.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    expected = scoring.score(lm, mixed_examples()).log_likelihoods
    path = models.save(lm, tmp_path / "models" / "saved")
    again = models.load(str(path), dtype="float32", device="cpu")
    assert scoring.score(again, mixed_examples()).log_likelihoods == pytest.approx(
        expected, abs=1e-4
    )
    plain = replace(again, model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32))
    assert naive_scores(plain, mixed_examples()) == pytest.approx(expected, abs=1e-3)
    untouched = scoring.score(lm, mixed_examples()).log_likelihoods
    assert untouched.tolist() == expected.tolist()
    assert [p.name for p in path.parent.iterdir()] == ["saved"]


def test_a_folder_that_is_there_is_not_written_over(tiny, tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(InputError, match="one that does not exist yet"):
        models.save(tiny, tmp_path / "kept")


def test_a_disk_that_is_full_leaves_no_half_of_a_model(tiny, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny.tokenizer, "save_pretrained", full)
    with pytest.raises(StoreError, match="No space left"):
        models.save(tiny, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


# --- large models --------------------------------------------------------------------------------


def test_gradients_are_the_same_where_activations_are_computed_again(folder):
    for tuning in ("body", "full", "lora"):
        found = []
        for recompute in (False, True):
            lm = models.load(
                str(folder), tuning=tuning, dtype="float32", device="cpu", recompute=recompute
            )
            sequence = models.encode(lm, mixed_examples()[-1], 0)
            models.response_log_likelihoods(lm, models.collate(lm, [[sequence]])).sum().backward()
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
        lm = models.load("tiny", dtype="float32", device="cpu", recompute=recompute)
        sequence = models.encode(lm, mixed_examples()[-1], 0)
        kept: dict[int, int] = {}

        def pack(tensor, kept=kept):
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            models.response_log_likelihoods(lm, models.collate(lm, [[sequence]]))
        parameters = {p.data_ptr() for p in lm.model.parameters()}
        held[recompute] = sum(n for where, n in kept.items() if where not in parameters)
    assert held[True] < held[False] / 4


def test_a_gated_model_s_error_says_where_its_terms_are(monkeypatch):
    def refused(*_, **__):
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))
        raise OSError("gated") from GatedRepoError("no access", response=response)

    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", refused)
    with pytest.raises(models.ModelError, match=r"https://huggingface\.co/meta/secret, and log in"):
        models.load("meta/secret")


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_drawing_weights_seeds_no_gpu(tuning, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    models.load("tiny", tuning=tuning, dtype="float32", device="cpu")
    assert not seeded
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
    assert seeded == [0]  # what would have been seen


# --- adapters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_an_adapter_is_merged_into_its_model(folder, tmp_path, tuning, beside):
    """It was scored as its base, or had nothing to train, and was saved without its model.

    beside: whether the model is in the adapter's folder, rather than named by it
    """
    from peft import PeftModel

    place = adapter_over(folder, tmp_path / "adapter")
    if beside:
        AutoModelForCausalLM.from_pretrained(folder).save_pretrained(place)
    lm = models.load(str(place), tuning=tuning, dtype="float32", device="cpu")
    whole = AutoModelForCausalLM.from_pretrained(folder)
    expected = naive_scores(
        replace(lm, model=PeftModel.from_pretrained(whole, place)), mixed_examples()
    )
    plain = naive_scores(
        replace(lm, model=AutoModelForCausalLM.from_pretrained(folder)), mixed_examples()
    )
    assert abs(expected - plain).max() > 0.1
    found = scoring.score(lm, mixed_examples()).log_likelihoods
    assert found == pytest.approx(expected, abs=1e-3)
    assert lm.trainable
    saved = models.save(lm, tmp_path / "saved")
    again = replace(lm, model=AutoModelForCausalLM.from_pretrained(saved))
    assert naive_scores(again, mixed_examples()) == pytest.approx(expected, abs=1e-3)


def adapter_over(folder, place, rename=None, safe=True):
    """A random adapter for a model, whose keys are renamed."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    base = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    adapted.save_pretrained(place)
    for file in Path(folder).glob("tokenizer*"):
        (place / file.name).write_bytes(file.read_bytes())
    weights = place / "adapter_model.safetensors"
    values = load_file(weights)
    if rename:
        save_file({rename(name): value for name, value in values.items()}, weights)
    if not safe:
        weights.unlink()
        torch.save(values, place / "adapter_model.bin")
    return place


def test_an_adapter_for_another_model_is_refused(folder, tmp_path):
    """peft loads it with a warning, as the base."""
    place = adapter_over(folder, tmp_path, rename=lambda name: name.replace(".0.", ".7."))
    with pytest.raises(models.ModelError, match="missing adapter keys"):
        models.load(str(place), device="cpu")


def test_a_pickled_adapter_is_refused(folder, tmp_path):
    place = adapter_over(folder, tmp_path, safe=False)
    with pytest.raises(models.ModelError, match=r"an adapter without adapter_model\.safetensors"):
        models.load(str(place), device="cpu")


def test_an_adapter_of_an_adapter_has_both(folder, tmp_path):
    from peft import PeftConfig

    inner = adapter_over(folder, tmp_path / "inner")
    outer = adapter_over(folder, tmp_path / "outer")
    settings = PeftConfig.from_pretrained(outer)
    settings.base_model_name_or_path = str(inner)
    settings.save_pretrained(outer)
    lms = {p: models.load(str(p), dtype="float32", device="cpu") for p in (folder, inner, outer)}
    plain = lms[folder].weights()
    one, both = (
        sum(float((w - plain[n]).norm()) for n, w in lms[place].weights().items())
        for place in (inner, outer)
    )
    assert both > 1.1 * one > 0


def test_an_adapter_that_is_no_update_of_weights_is_refused(folder, tmp_path):
    from peft import PromptTuningConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(folder)
    config = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(tmp_path)
    for file in Path(folder).glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(models.ModelError, match="type PROMPT_TUNING, which cannot be merged"):
        models.load(str(tmp_path), device="cpu")


@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_a_model_with_nothing_to_train_is_an_error_at_load(tiny, tuning, monkeypatch):
    """As one whose weights are quantised."""
    tune = models._tuned

    def frozen(name, model, tuning):
        monkeypatch.setattr(model, "parameters", lambda: iter(()))
        return tune(name, model, tuning)

    monkeypatch.setattr(models, "_tuned", frozen)
    if tuning == "lora":
        monkeypatch.setattr(models, "_with_low_rank_updates", lambda name, model: model)
    with pytest.raises(
        models.ModelError, match=f"weights that tuning='{tuning}' can train, found none"
    ):
        models.load("tiny", tuning=tuning, device="cpu")


def test_states_that_are_no_numbers_are_far_from_all(tiny):
    ones, none = torch.ones(2, 3), torch.full((2, 3), torch.nan)
    assert np.isnan(models._furthest([ones, none], [ones, ones]))
    assert models._furthest([ones, 2 * ones], [ones, ones]) == 1


def test_no_row_is_longer_than_a_buffer_of_the_model(tiny):
    """As BigBird's token types, which are as long as its longest sequence."""
    examples = mixed_examples()
    narrow = replace(tiny, longest_row=40)
    lengths = [[len(models.encode(tiny, e, c).tokens) - 1 for c in (0, 1)] for e in examples]
    for group, _ in models.passes(narrow, lengths, 2048):
        assert sum(sum(lengths[i]) for i in group) <= 40
    families = [[models.encode(tiny, e, c).tokens for c in (0, 1)] for e in examples[:8]]
    packed = models.pack(narrow, families)
    assert packed.trees is None and packed.mask is None
    found = scoring.score(narrow, examples).log_likelihoods
    assert found == pytest.approx(scoring.score(tiny, examples).log_likelihoods, abs=1e-4)
    model = tiny.model
    assert models._longest_row(model, 64) > 2048
    model.register_buffer("kinds", torch.zeros(1, 64), persistent=False)
    try:
        assert models._longest_row(model, 64) == 64
    finally:
        del model.kinds
