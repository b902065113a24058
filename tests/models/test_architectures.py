"""What forgetlib computes with a model is what transformers computes, whatever its architecture.

The oracle (see oracle.py) is transformers alone: one sequence at a time, all logits, no padding.
A dozen architectures are tried at every run of the tests, all of them by `make architectures`.
"""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
import torch
from helpers import finetune
from oracle import DECODER, LONG_ROPE, SLIDING, SMALL
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from forgetlib.data.base import Example
from forgetlib.errors import InputError, ModelError, UnusableNumbers
from forgetlib.forgetting.base import Training
from forgetlib.measuring import probing, scoring
from forgetlib.models import loading

TUNINGS = ("body", "full", "lora")
EXACT = 1e-4  # nats
TRAINED = 1e-3  # nats, after two steps of Adam, to which gradients of next to nothing count
LOUD = 40.0  # times the weights of the output layer

# Beside the table of small configurations, settings that change what is computed.
VARIANTS = {
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, yarn": ("llama", oracle.rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama, 16 tokens, dynamic NTK": (
        "llama",
        oracle.rope("dynamic", factor=4.0) | {"max_position_embeddings": 16},
    ),
    "llama, longrope": ("llama", LONG_ROPE),
    "phi3, longrope": ("phi3", LONG_ROPE),
    "phi3, window": ("phi3", {"sliding_window": 6}),
    "gpt2, 16 tokens": ("gpt2", {"n_positions": 16}),
    "gpt2, scaled by layer": (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    ),
    "gpt2, untied": ("gpt2", {"tie_word_embeddings": False}),
    "gemma2, low caps, windows": (
        "gemma2",
        {"sliding_window": 6, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0},
    ),
    "gemma2, no caps": (
        "gemma2",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "gemma3_text, windows": ("gemma3_text", SLIDING | {"sliding_window": 6}),
    "gemma3_text, low cap": ("gemma3_text", {"final_logit_softcapping": 5.0}),
    "gemma3n_text, shared keys": (
        "gemma3n_text",
        SMALL["gemma3n_text"]
        | {
            "num_hidden_layers": 4,
            "layer_types": SLIDING["layer_types"] * 2,
            "num_kv_shared_layers": 2,
            "sliding_window": 6,
            "activation_sparsity_pattern": [0.95, 0.0, 0.95, 0.0],
        },
    ),
    "gemma4_text, shared keys": (
        "gemma4_text",
        SMALL["gemma4_text"]
        | {
            "num_hidden_layers": 4,
            "layer_types": SLIDING["layer_types"] * 2,
            "num_kv_shared_layers": 2,
            "sliding_window": 6,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma4_text, experts": (
        "gemma4_text",
        SMALL["gemma4_text"]
        | {"enable_moe_block": True, "top_k_experts": 2, "num_experts": 4}
        | {"moe_intermediate_size": 16},
    ),
    "mistral, window": ("mistral", {"sliding_window": 6}),
    "mixtral, window": ("mixtral", {"sliding_window": 6, "output_router_logits": True}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen2_moe, mixed": ("qwen2_moe", {"mlp_only_layers": [0], "norm_topk_prob": True}),
    "cohere, scale": ("cohere", {"logit_scale": 0.5, "use_qk_norm": True}),
    "cohere2, windows": ("cohere2", SLIDING | {"sliding_window": 6, "logit_scale": 0.25}),
    "gpt_oss, windows": ("gpt_oss", {"sliding_window": 6}),
    "olmo, clipped": ("olmo", {"clip_qkv": 0.5}),
    "mpt, 32 tokens": ("mpt", {"max_seq_len": 32}),
    "mpt, clipped": ("mpt", {"max_seq_len": 64, "attn_config": {"clip_qkv": 0.5}}),
    "bloom, residual": ("bloom", {"apply_residual_connection_post_layernorm": True}),
    "bloom, slow": ("bloom", {"pretraining_tp": 2, "slow_but_exact": True}),
    "falcon, alibi": ("falcon", {"alibi": True, "parallel_attn": False, "bias": True}),
    "falcon, new": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "opt, projections": ("opt", {"word_embed_proj_dim": 16}),
    "opt, norms after": ("opt", {"do_layer_norm_before": False}),
    "gpt_neox, serial": (
        "gpt_neox",
        {"use_parallel_residual": False, "tie_word_embeddings": True},
    ),
    "phi, partial": ("phi", {"partial_rotary_factor": 0.5, "qk_layernorm": True}),
    "phimoe, longrope": (
        "phimoe",
        LONG_ROPE | oracle.rope(**LONG_ROPE["rope_parameters"], short_mscale=1.1, long_mscale=1.3),
    ),
    "bert, untied": ("bert", DECODER | {"tie_word_embeddings": False}),
    "recurrent_gemma, low cap": (
        "recurrent_gemma",
        SMALL["recurrent_gemma"] | {"attention_window_size": 6, "logits_soft_cap": 5.0},
    ),
    "xlstm, low cap": ("xlstm", {"num_heads": 4, "output_logit_soft_cap": 3.0}),
    "llama4_text, chunks": ("llama4_text", {"attention_chunk_size": 8}),
    "minimax, blocks": ("minimax", {"block_size": 8}),
    "big_bird, sparse": (
        "big_bird",
        DECODER | {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    ),
}

CASES = {kind: (kind, settings) for kind, settings in SMALL.items()} | VARIANTS

# Tried at every run: one of each way to be unusual, in under a minute.
QUICK = (
    "bert",  # layers between decoder and output layer
    "cohere, scale",
    "deepseek_v3",
    "gemma2, low caps, windows",
    "gemma3",  # a text model within one of text and images
    "jamba",
    "mamba",
    "mpt, 32 tokens",
    "opt, projections",
    "phi3, longrope",
    "recurrent_gemma, low cap",
    "roberta",  # positions that do not start at 0
)

# What cannot be scored as a causal language model is a ModelError with the reason.
NOT_CAUSAL = "expected a causal model"
REFUSED = {
    "llama, not causal": ("llama", {"is_causal": False}, NOT_CAUSAL),
    "gemma3_text, both ways": ("gemma3_text", {"use_bidirectional_attention": True}, NOT_CAUSAL),
    "gemma4_text, both ways": (
        "gemma4_text",
        SMALL["gemma4_text"] | {"use_bidirectional_attention": "all"},
        NOT_CAUSAL,
    ),
    "bert, encoder": ("bert", {}, NOT_CAUSAL),
    "bert-generation, encoder": ("bert-generation", {"is_decoder": False}, NOT_CAUSAL),
    "roberta, encoder": ("roberta", {}, NOT_CAUSAL),
    "electra, encoder": ("electra", {"embedding_size": 16}, NOT_CAUSAL),
    "xlm, both ways": ("xlm", {"causal": False}, NOT_CAUSAL),
    # In bf16 its own code multiplies bf16 by fp32.
    "xlnet": ("xlnet", {"d_head": 8, "d_inner": 64}, f"{NOT_CAUSAL}|but found BFloat16"),
    "prophetnet": ("prophetnet", {}, ""),
    "cpmant": (  # it reads a text as a prefix
        "cpmant",
        {"dim_head": 8, "dim_ff": 64, "prompt_length": 4, "prompt_types": 4, "segment_types": 4},
        "",
    ),
    "reformer": ("reformer", oracle.REFORMER, ""),
}

# What is in transformers' mapping and not tried, and why.
NOT_BUILT = {
    "dots3_note": "of images and sound; its text model is dots3_note_text",
    "emu3": "of images; transformers cannot load its saved text model",
    "gemma3n": "needs timm for its images; its text model is gemma3n_text",
    "gemma4_assistant": "drafts for another model, whose states it reads",
    "gemma4_unified_assistant": "drafts for another model, whose states it reads",
    "mllama": "of images; transformers cannot load its saved text model",
    "moss_transcribe_diarize": "needs sound",
    "musicgen": "makes sound of several codes a step",
    "musicgen_melody": "makes sound of several codes a step",
    "qwen3_5_moe": "of images; its text model is qwen3_5_moe_text",
    "qwen4_exp": "of images; its text model is qwen4_exp_text",
    "zamba2": "its layers are tied in a way that transformers cannot build at this size",
}


def test_every_causal_architecture_of_transformers_is_accounted_for():
    """One that is new to a version of transformers has to be tried, or refused with a reason."""
    tried = {kind for kind, *_ in (*CASES.values(), *REFUSED.values())}
    assert tried | set(NOT_BUILT) >= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert not tried & set(NOT_BUILT)
    assert len(CASES) > 150 and len(QUICK) > 10


# Those of which peft refuses low-rank updates, as their fused kernels would not see them.
NO_UPDATES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
# Those whose low-rank updates compute something else once they are merged.
UNMERGED = ("zamba",)

# Those whose hidden states are not all of one shape: of several streams, or projected at the end.
NO_STATES = (
    "deepseek_v4",
    "gemma3n_text",
    "gemma3n_text, shared keys",
    "hy_v4",
    "opt, projections",
    "qwen4_exp_text",
)


# --- questions ------------------------------------------------------------------------------------


def text(rng, n):
    return " ".join(rng.choice(list(oracle.WORDS), n))


def questions(limit=64, lengths=(3, 5, 9, 14, 22, 31), seed=0):
    """Questions that fit a context: with one-token answers, long ones, and prompts that differ."""
    rng = np.random.default_rng(seed)
    found = []
    for i, length in enumerate(n for n in lengths if n + 4 <= limit):
        prompt = text(rng, length)
        ways = (
            ((prompt, prompt), ("b", "c")),
            ((prompt, prompt), ("d e f", "g")),
            ((f"{prompt} h", f"{prompt} i j"), ("k l", "k l")),
        )
        found.append(Example(f"letters/test/{i}", *ways[i % len(ways)], 0))
    return found


def as_long_as(n_tokens):
    """A question whose second choice makes a text of so many tokens, of letters."""
    prompt = text(np.random.default_rng(n_tokens), n_tokens - 2)
    return Example("letters/test/0", (prompt, prompt), ("b", "c d"), 0)


def context(config):
    """The longest text that a configuration is made for; None where it does not say."""
    text_config = config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len", "max_target_positions")
    return next((n for name in names if (n := getattr(text_config, name, None))), None)


def marked(labels, quick):
    """Labels as parameters of a test, those that are not quick for `make architectures` only."""
    marks = pytest.mark.architectures
    return [pytest.param(label, marks=() if label in quick else marks) for label in labels]


@pytest.fixture(scope="module", params=marked(CASES, QUICK))
def case(request, tmp_path_factory):
    """A model of an architecture in a folder, and what transformers computes with it."""
    kind, settings = CASES[request.param]
    config = oracle.config_of(kind, **settings)
    folder = oracle.save(config, tmp_path_factory.mktemp("model") / "saved")
    examples = questions(context(config) or 64)
    theirs, tokenizer = oracle.load(folder), AutoTokenizer.from_pretrained(folder)
    exact = oracle.log_likelihoods(theirs, tokenizer, examples)
    return SimpleNamespace(
        label=request.param,
        config=config,
        folder=folder,
        examples=examples,
        theirs=theirs,
        tokenizer=tokenizer,
        exact=exact,
    )


def load(folder, **options):
    options = {"dtype": "float32"} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some way is slower
        return loading.load(str(folder), device="cpu", **options)


@pytest.fixture(scope="module")
def lm(case):
    """The model as forgetlib loads it, in fp32. No test may change it."""
    return load(case.folder)


# --- scores ---------------------------------------------------------------------------------------


def test_scores_are_those_of_transformers_at_every_token_budget(case, lm):
    for budget in (1, 60, None):
        found = scoring.score(lm, case.examples, budget).log_likelihoods
        assert found == pytest.approx(case.exact, abs=EXACT)
        assert found.max() <= 0
    assert np.ptp(case.exact) > 1  # numbers that a wrong model would not give


def test_scores_of_a_sure_model_are_those_of_transformers(case, tmp_path):
    """Large logits show what caps and scales do; a sure answer's log-likelihood is next to 0."""
    folder = oracle.save(case.config, tmp_path / "loud", loud=LOUD)
    exact = oracle.log_likelihoods(oracle.load(folder), case.tokenizer, case.examples)
    lm = load(folder)
    for budget in (1, None):
        found = scoring.score(lm, case.examples, budget).log_likelihoods
        assert found == pytest.approx(exact, rel=1e-5, abs=1e-3)
        assert found.max() <= 0


def test_bf16_is_as_near_to_fp32_as_that_of_transformers(case):
    examples = [e for seed in range(3) for e in renamed(questions(60, seed=seed), seed)]
    examples = [
        e for e in examples if len(e.prompts[0].split()) + 4 <= (context(case.config) or 64)
    ]
    exact = oracle.log_likelihoods(case.theirs, case.tokenizer, examples)
    in_bf16 = oracle.load(case.folder, torch.bfloat16)
    theirs = abs(oracle.log_likelihoods(in_bf16, case.tokenizer, examples) - exact)
    found = scoring.score(load(case.folder, dtype="bfloat16"), examples).log_likelihoods
    assert abs(found - exact).mean() <= 1.5 * theirs.mean() + 0.01
    assert found.max() <= 0


def renamed(examples, seed):
    return [replace(e, uid=f"{e.uid}-{seed}") for e in examples]


def test_every_length_up_to_the_context_is_scored_and_none_beyond(case, lm):
    longest = min(lm.max_length, 100)
    for n in sorted({longest - 1, longest}):
        example = as_long_as(n)
        exact = oracle.log_likelihoods(case.theirs, case.tokenizer, [example])
        found = scoring.score(lm, [example]).log_likelihoods
        assert found == pytest.approx(exact, abs=EXACT)
    said = context(case.config)
    assert lm.max_length > 100 or lm.max_length >= (said or 0) - 4
    if lm.max_length == longest:
        with pytest.raises(InputError, match=f"at most {longest} tokens"):
            scoring.score(lm, [as_long_as(longest + 1)])


# --- training -------------------------------------------------------------------------------------

CONFIG = Training(learning_rate=1e-3, epochs=1, batch_size=3, warmup=0.0, weight_decay=0.1)
SEED = 3


def trained_plainly(model, names, tokenizer, examples, labels):
    """Train the named parameters as PyTorch's documentation would; the losses."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    model.requires_grad_(False)
    chosen = [parameters[name].requires_grad_() for name in names]
    optimizer = torch.optim.AdamW(chosen, weight_decay=CONFIG.weight_decay)
    order = np.random.default_rng([SEED, len(examples)]).permutation(len(examples))
    batches = [order[i : i + CONFIG.batch_size] for i in range(0, len(order), CONFIG.batch_size)]
    losses = []
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = CONFIG.learning_rate * (1 - step / len(batches))
        log_probs = []
        for i in batch:
            prompt, response = (x[labels[i]] for x in (examples[i].prompts, examples[i].choices))
            tokens, start = oracle.encode(tokenizer, prompt, response)
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()
            targets = torch.tensor(tokens[start:])
            log_probs.append(-F.cross_entropy(logits[start - 1 : -1], targets, reduction="none"))
        loss = -torch.cat(log_probs).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chosen, CONFIG.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def as_before(lm, folder):
    """transformers' own model with the weights of an LM, and peft's updates where it has some."""
    model = oracle.load(folder)
    if hasattr(model.config, "rescale_every"):  # RWKV halves its weights at the first pass
        model.config.rescale_every = 0
    if hasattr(lm.model, "peft_config"):
        model = get_peft_model(model, lm.model.peft_config["default"])
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, weight in lm.weights().items():
            parameters[name].copy_(weight)
    return model


def trained_by(tuning, model):
    """The names of what a tuning trains: all, or what is no token embedding or output layer."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    left = {id(p) for part in ends for p in part.parameters() if tuning == "body"}
    return {n for n, p in model.named_parameters() if p.requires_grad and id(p) not in left}


@pytest.mark.parametrize("tuning", TUNINGS)
def test_training_and_saving_are_those_of_a_plain_loop(case, tuning, tmp_path):
    """Two steps give the losses and the model of a plain loop; saved, it is that model too."""
    if tuning == "lora" and case.config.model_type in NO_UPDATES:
        with pytest.raises(ModelError, match="linear layers, to which peft can add"):
            load(case.folder, tuning=tuning)
        return
    lm = load(case.folder, tuning=tuning)
    assert scoring.score(lm, case.examples).log_likelihoods == pytest.approx(case.exact, abs=EXACT)
    if tuning == "lora":
        assert all("lora_" in name for name in lm.trainable)
    else:
        assert set(lm.trainable) == trained_by(tuning, case.theirs)
    plain = as_before(lm, case.folder)
    labels = np.arange(len(case.examples)) % 2
    loss = finetune(lm, case.examples, labels, CONFIG, SEED)
    losses = trained_plainly(plain, list(lm.trainable), case.tokenizer, case.examples, labels)
    assert loss == pytest.approx(losses, abs=1e-4)
    assert len(losses) == CONFIG.epochs * -(-len(case.examples) // CONFIG.batch_size)
    found = scoring.score(lm, case.examples).log_likelihoods
    expected = oracle.log_likelihoods(plain, case.tokenizer, case.examples)
    assert found == pytest.approx(expected, abs=TRAINED)
    assert abs(found - case.exact).max() > 2 * TRAINED  # it did learn
    if tuning == "lora" and case.label in UNMERGED:
        with pytest.raises(ModelError, match="merged weights that compute"):
            loading.save(lm, tmp_path / "saved")
        return
    saved = oracle.load(loading.save(lm, tmp_path / "saved"))
    again = oracle.log_likelihoods(saved, case.tokenizer, case.examples)
    assert found == pytest.approx(again, abs=TRAINED)


# --- hidden states --------------------------------------------------------------------------------


def test_hidden_states_are_those_of_transformers(case, lm):
    if case.label in NO_STATES:
        with pytest.raises(UnusableNumbers, match="expected one state for each"):
            probing.hidden_states(lm, case.examples)
        return
    found = probing.hidden_states(lm, case.examples)
    for i, example in enumerate(case.examples):
        for choice, (prompt, response) in enumerate(
            zip(example.prompts, example.choices, strict=True)
        ):
            states = oracle.hidden_states(case.theirs, case.tokenizer, prompt, response)
            assert torch.allclose(found.answer[i, choice], states[:, -1], rtol=1e-3, atol=1e-3)
            if choice == 0:
                n_prompt = oracle.encode(case.tokenizer, prompt, response)[1]
                asked = states[:, n_prompt - 1]
                assert torch.allclose(found.question[i], asked, rtol=1e-3, atol=1e-3)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("label", marked(REFUSED, ("llama, not causal", "bert, encoder")))
def test_what_is_no_causal_language_model_is_an_error_that_says_so(label, noise, dtype, tmp_path):
    """Also with the weak attention of a model that is not trained, whose future hardly shows."""
    kind, settings, reason = REFUSED[label]
    folder = oracle.save(oracle.config_of(kind, **settings), tmp_path / "saved", noise=noise)
    with pytest.raises(ModelError, match=reason):
        load(folder, dtype=dtype)


# --- tokenizers and adapters ----------------------------------------------------------------------


def saved_llama(folder, tokenizer=None):
    return oracle.save(oracle.config_of("llama"), folder, tokenizer=tokenizer)


def test_a_tokenizer_that_begins_texts_scores_as_in_transformers(tmp_path):
    folder = saved_llama(tmp_path / "saved", oracle.letters(before=["<s>"]))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("a b").input_ids[0] == tokenizer.bos_token_id
    exact = oracle.log_likelihoods(oracle.load(folder), tokenizer, questions())
    found = scoring.score(load(folder), questions()).log_likelihoods
    assert found == pytest.approx(exact, abs=EXACT)
    without = oracle.log_likelihoods(oracle.load(folder), oracle.letters(), questions())
    assert abs(found - without).max() > 0.1


def test_a_tokenizer_that_ends_texts_is_an_error(tmp_path):
    folder = saved_llama(tmp_path / "saved", oracle.letters(before=["<s>"], after=["</s>"]))
    with pytest.raises(ModelError, match="adds nothing after a text, found one that ends"):
        load(folder)


def test_a_token_beyond_the_vocabulary_is_an_error_and_the_others_are_scored(tmp_path):
    folder = saved_llama(tmp_path / "saved", oracle.letters(extra=3))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == oracle.VOCABULARY + 3
    exact = oracle.log_likelihoods(oracle.load(folder), tokenizer, questions())
    lm = load(folder)
    assert scoring.score(lm, questions()).log_likelihoods == pytest.approx(exact, abs=EXACT)
    unknown = tokenizer.convert_ids_to_tokens(oracle.VOCABULARY)
    tokenizer.add_special_tokens({"additional_special_tokens": [unknown]})
    tokenizer.save_pretrained(folder)
    example = Example("letters/test/0", (f"a {unknown}",) * 2, ("b", "c"), 0)
    with pytest.raises(InputError, match=f"below {oracle.VOCABULARY}, the vocabulary"):
        scoring.score(load(folder), [example])


@torch.no_grad()
def updated(adapted):
    """Draw the half of an adapter's weights that begins as zeros."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder with a low-rank adapter alone, the base model's, and the adapted model."""
    root = tmp_path_factory.mktemp("adapter")
    base = saved_llama(root / "base")
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(oracle.load(base), config)
    updated(adapted)
    adapted.save_pretrained(root / "adapter")
    oracle.letters().save_pretrained(root / "adapter")
    return SimpleNamespace(folder=root / "adapter", base=base, model=adapted.eval())


@pytest.mark.parametrize("tuning", TUNINGS)
def test_an_adapter_is_scored_trained_and_saved_as_the_model_that_it_makes(
    adapter, tuning, tmp_path
):
    tokenizer, examples = oracle.letters(), questions()
    exact = oracle.log_likelihoods(adapter.model, tokenizer, examples)
    lm = load(adapter.folder, tuning=tuning)
    assert scoring.score(lm, examples).log_likelihoods == pytest.approx(exact, abs=EXACT)
    base = oracle.log_likelihoods(oracle.load(adapter.base), tokenizer, examples)
    assert abs(exact - base).max() > 0.1
    labels = np.arange(len(examples)) % 2
    finetune(lm, examples, labels, CONFIG, SEED)
    found = scoring.score(lm, examples).log_likelihoods
    assert abs(found - exact).max() > 0.01
    saved = loading.save(lm, tmp_path / "saved")
    assert not (saved / "adapter_config.json").exists()
    again = oracle.log_likelihoods(oracle.load(saved), tokenizer, examples)
    assert found == pytest.approx(again, abs=EXACT)


def slow_bloom(place, *layers):
    """A Bloom that computes two of its kinds of layers in slices, and an adapter of some layers."""
    settings = CASES["bloom, slow"][1]
    base = oracle.save(oracle.config_of("bloom", **settings), place / "base")
    adapted = get_peft_model(oracle.load(base), LoraConfig(r=4, target_modules=list(layers)))
    updated(adapted)
    adapted.save_pretrained(place / "adapter")
    oracle.letters().save_pretrained(place / "adapter")
    return base, place / "adapter"


def test_a_model_that_computes_in_slices_does_so_when_it_is_saved(tmp_path):
    """peft writes into its config that it does not."""
    base, adapter = slow_bloom(tmp_path, "query_key_value")
    for number, folder in enumerate((base, adapter)):
        lm = load(folder, tuning="lora")
        found = scoring.score(lm, questions()).log_likelihoods
        saved = oracle.load(loading.save(lm, tmp_path / f"saved-{number}"))
        again = oracle.log_likelihoods(saved, oracle.letters(), questions())
        assert found == pytest.approx(again, abs=EXACT)


def test_an_adapter_that_computes_otherwise_once_it_is_merged_is_refused(tmp_path):
    """Slices are of a layer's weights, which an adapter beside them does not change."""
    _, adapter = slow_bloom(tmp_path, "query_key_value", "dense")
    with pytest.raises(ModelError, match="computes otherwise once it is merged"):
        load(adapter)


def test_rwkv_is_saved_as_it_was_loaded(tmp_path):
    """Left to itself it halves the weights of its later layers, and would be saved so."""
    folder = oracle.save(oracle.config_of("rwkv", rescale_every=1), tmp_path / "rwkv")
    before = {n: p.clone() for n, p in oracle.load(folder).named_parameters()}
    lm = load(folder)
    scoring.score(lm, questions())
    saved = oracle.load(loading.save(lm, tmp_path / "saved"))
    assert all(torch.equal(p, before[n]) for n, p in saved.named_parameters())
