"""Tiny random models of many architectures, and what transformers itself computes with them.

Nothing here knows of forgetlib's ways: `log_likelihoods` and `hidden_states` ask transformers, one
sequence at a time, without padding, with all logits. Tests compare forgetlib with it.
"""

import dataclasses
import string

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
WORDS = string.ascii_lowercase
VOCABULARY = 64  # a few more than the tokenizer has, as is common

# Of these, a configuration gets what it has under the name.
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # Encoders and decoders with names of their own.
    "ffn_dim": 64,
    "n_inner": 64,
    "ffn_hidden_size": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    # Mixtures of experts.
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    # Attention over compressed keys.
    "kv_lora_rank": 8,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "index_topk": 64,
    "index_head_dim": 16,
    "index_n_heads": 2,
    # Recurrent layers.
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}


def config_of(kind, **settings):
    """A small configuration of an architecture, `kind` being its model_type."""
    of_class = CONFIG_MAPPING[kind]
    known = {f.name for f in dataclasses.fields(of_class)} | set(of_class.attribute_map)
    aliased = {of_class.attribute_map.get(n, n) for n in settings}
    common = {
        n: v
        for n, v in COMMON.items()
        if n in known and n not in settings and of_class.attribute_map.get(n, n) not in aliased
    }
    return AutoConfig.for_model(kind, **common, **settings)


def letters(*, before=(), after=(), extra=0, **settings):
    """A tokenizer whose tokens are letters, each with the space before it, as GPT-2's are words.

    before, after: special tokens that it puts around a text
    extra: how many more tokens there are than a model's VOCABULARY
    """
    tokens = [*SPECIAL, "\u0120", *WORDS, *(f"\u0120{word}" for word in WORDS)]
    tokens += [f"<{n}>" for n in range(extra and VOCABULARY + extra - len(tokens))]
    numbers = {token: number for number, token in enumerate(tokens)}
    merges = [("\u0120", word) for word in WORDS]
    backend = Tokenizer(models.BPE(numbers, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if before or after:
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join([*before, "$A", *after]),
            special_tokens=[(token, numbers[token]) for token in {*before, *after}],
        )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special | settings)


def save(config, folder, *, tokenizer=None, noise=0.1, loud=1.0, dtype=torch.float32):
    """Save a random model of a configuration, with a tokenizer, as transformers does; the folder.

    noise: of the weights, beside what they start with, so that logits differ
    loud: what the output layer's weights are multiplied by, so that caps and scales show
    """
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
            model.get_output_embeddings().weight.mul_(loud)
    model.to(dtype).save_pretrained(folder)
    (tokenizer or letters()).save_pretrained(folder)
    return str(folder)


def load(folder, dtype=torch.float32):
    """The model of a folder, as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def encode(tokenizer, prompt, response):
    """Tokens of a prompt and its response, and how many of them are the prompt's."""
    own = tokenizer(prompt).input_ids
    whole = tokenizer(f"{prompt} {response}").input_ids
    return [*own, *whole[len(own) :]], len(own)


@torch.inference_mode()
def log_likelihoods(model, tokenizer, examples):
    """(N, C) in nats, of each choice of each example given its prompt."""
    found = []
    for example in examples:
        row = []
        for prompt, response in zip(example.prompts, example.choices, strict=True):
            tokens, start = encode(tokenizer, prompt, response)
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
            log_probs = logits.double().log_softmax(-1)
            row.append(sum(log_probs[i - 1, tokens[i]].item() for i in range(start, len(tokens))))
        found.append(row)
    return np.array(found)


@torch.inference_mode()
def hidden_states(model, tokenizer, prompt, response):
    """(L + 1, T, D) hidden states of every token of a prompt with its response."""
    tokens, _ = encode(tokenizer, prompt, response)
    output = model(input_ids=torch.tensor([tokens]), use_cache=False, output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0]


# --- the table ------------------------------------------------------------------------------------

DECODER = {"is_decoder": True}
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"]}
SAME_HEADS = {"num_key_value_heads": 4}
MAMBA_2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
INKLING = {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8}
INKLING |= {"d_rel": 4, "rel_extent": 64, "unpadded_vocab_size": VOCABULARY}
PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
EYES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
EYES |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
QWEN_EYES = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
QWEN_EYES |= {"out_hidden_size": 32, "num_position_embeddings": 16}
INNER = {n: COMMON[n] for n in (*list(COMMON)[:6], *list(COMMON)[7:11])}  # no head_dim


def rope(rope_type, **settings):
    """Settings of rotary positions."""
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 1e4} | settings}


# Phi-3's: other frequencies for a text of more than 16 tokens.
LONG_ROPE = {"original_max_position_embeddings": 16} | rope(
    "longrope",
    short_factor=[1.0] * 4,
    long_factor=[1.0, 4.0, 8.0, 16.0],
    original_max_position_embeddings=16,
)

BYTES = {n: COMMON[n] for n in ("hidden_size", "num_attention_heads", "intermediate_size")}
BYTES |= {"vocab_size": VOCABULARY, "num_hidden_layers": 1}
REFORMER = {"is_decoder": True, "attn_layers": ["local", "local"], "local_attn_chunk_length": 8}
REFORMER |= {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16]}
REFORMER |= {"attention_head_size": 8, "feed_forward_size": 64}

# By model_type: what a small configuration needs beside COMMON. None of its values matter to
# what is tested, other than by being small.
SMALL = {
    "afmoe": {},
    "apertus": {},
    "arcee": {},
    "aria_text": {},
    "axk1": SAME_HEADS,
    "axk2": SAME_HEADS,
    "bailing_hybrid": {},
    "bamba": MAMBA_2 | {"attn_layer_indices": [1]},
    "bart": {},
    "beam": {},
    "bert": DECODER,
    "bert-generation": DECODER,
    "big_bird": DECODER | {"attention_type": "original_full"},
    "bigbird_pegasus": {},
    "biogpt": {},
    "bitnet": {},
    "blenderbot": {},
    "blenderbot-small": {},
    "bloom": {},
    "blt": {
        "encoder_hash_byte_group_vocab": VOCABULARY,
        "patcher_config": BYTES,
        "encoder_config": BYTES | {"hidden_size_global": 32},
        "decoder_config": BYTES | {"hidden_size_global": 32},
        "global_config": BYTES,
    },
    "camembert": DECODER,
    "codegen": {"rotary_dim": 4},
    "cohere": {},
    "cohere2": {},
    "cohere2_moe": {},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
            for kind in ("full_attention", "sliding_attention")
        }
    },
    "ctrl": {"dff": 64},
    "cwm": {},
    "data2vec-text": DECODER,
    "dbrx": {
        "d_model": 32,
        "n_heads": 4,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.5, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": SAME_HEADS,
    "deepseek_v3": SAME_HEADS,
    "deepseek_v32": SAME_HEADS,
    "deepseek_v4": {
        "o_groups": 2,
        "o_lora_rank": 8,
        "layer_types": ["compressed_sparse_attention", "heavily_compressed_attention"],
        "mlp_layer_types": ["moe", "moe"],
    },
    "diffllama": {},
    "doge": {},
    "dots1": {"n_shared_experts": 1},
    "dots3_note_text": SAME_HEADS,
    "electra": DECODER | {"embedding_size": 16},
    "ernie": DECODER,
    "ernie4_5": {},
    "ernie4_5_moe": {},
    "exaone4": {},
    "exaone_moe": {},
    "falcon": {},
    "falcon_h1": MAMBA_2 | {"mamba_d_ssm": 64, "mamba_chunk_size": 8},
    "falcon_mamba": {"state_size": 8},
    "flex_olmo": {},
    "flint": {},
    "fuyu": {"text_config": INNER | {"model_type": "persimmon"}, "image_token_id": 4},
    "gemma": {},
    "gemma2": {},
    "gemma3": {
        "text_config": INNER | {"head_dim": 8},
        "vision_config": EYES | {"model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
    },
    "gemma3_text": {},
    "gemma3n_text": PER_LAYER | SLIDING | {"num_kv_shared_layers": 0, "laurel_rank": 4},
    "gemma4": {
        "text_config": INNER | PER_LAYER | SLIDING | {"head_dim": 8, "global_head_dim": 8},
        "vision_config": EYES | {"head_dim": 8, "num_key_value_heads": 2},
    },
    "gemma4_text": PER_LAYER | SLIDING | {"global_head_dim": 8},
    "gemma4_unified": {"text_config": INNER | PER_LAYER | SLIDING | {"head_dim": 8}},
    "gemma4_unified_text": {},
    "git": {"vision_config": EYES},
    "glm": {},
    "glm4": {},
    "glm4_moe": {},
    "glm4_moe_lite": SAME_HEADS,
    "glm_moe_dsa": SAME_HEADS,
    "got_ocr2": {
        "text_config": INNER | {"model_type": "qwen2"},
        "vision_config": EYES | {"output_channels": 16, "mlp_dim": 16, "global_attn_indexes": [0]},
    },
    "gpt-sw3": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gpt_neox": {},
    "gpt_neox_japanese": {},
    "gpt_oss": {},
    "gptj": {"rotary_dim": 4},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "granite_swa": {},
    "granitemoe": {"logits_scaling": 4.0},
    "granitemoe_swa": {},
    "granitemoehybrid": HYBRID | MAMBA_2 | {"shared_intermediate_size": 16},
    "granitemoeshared": {},
    "helium": {},
    "hrm_text": {},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": {},
    "hy_v3": {},
    "hy_v4": {},
    "hyperclovax": {},
    "inkling2_text": INKLING,
    "inkling_text": INKLING,
    "internlm3": {},
    "iquestcoder": {},
    "jais2": {},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
    },
    "jetmoe": {},
    "kimi_linear": SAME_HEADS | HYBRID | {"linear_head_dim": 8, "linear_num_heads": 4},
    "kolibri1": {},
    "laguna": {},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm3": {},
    "llama": {},
    "llama4": {
        "text_config": INNER | {"head_dim": 8, "num_local_experts": 4, "intermediate_size_mlp": 64},
        "vision_config": EYES | {"vision_output_dim": 16, "projector_input_dim": 16},
    },
    "llama4_text": {},
    "longcat_flash": SAME_HEADS
    | {"num_layers": 1, "expert_ffn_hidden_size": 16, "moe_topk": 2, "zero_expert_num": 2},
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "marian": {},
    "mbart": {},
    "megatron-bert": DECODER,
    "mellum": {},
    "mimo_v2_flash": {},
    "minicpm3": SAME_HEADS,
    "minimax": {},
    "minimax_m2": {},
    "minimax_m3_vl_text": {},
    "ministral": {},
    "ministral3": {},
    "mistral": {},
    "mixtral": {},
    "modernbert-decoder": {},
    "moshi": {},
    "mpt": {"max_seq_len": 64},
    "mvp": {},
    "nanochat": {},
    "nemotron": {},
    "nemotron_h": {
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
        "moe_shared_expert_intermediate_size": 16,
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
    },
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "olmo_hybrid": {},
    "olmoe": {},
    "openai-gpt": {},
    "opt": {},
    "pegasus": {},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "phi4_multimodal": INNER
    | {
        "original_max_position_embeddings": 64,
        "vision_config": EYES | {"crop_size": 16, "image_token_id": 5},
        "audio_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_blocks": 1,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 16,
            "nemo_conv_channels": 16,
            "depthwise_separable_out_channel": 16,
            "audio_token_id": 6,
        },
    },
    "phimoe": {},
    "plbart": {},
    "qwen2": {},
    "qwen2_moe": {},
    "qwen3": {},
    "qwen3_5": {"text_config": INNER | HYBRID | {"head_dim": 8}, "vision_config": QWEN_EYES},
    "qwen3_5_moe_text": HYBRID,
    "qwen3_5_text": HYBRID,
    "qwen3_moe": {},
    "qwen3_next": HYBRID,
    "qwen4_exp_text": HYBRID
    | {
        "hc_lowrank": 8,
        "ngram_vocab_size_base": 20,
        "split_ngram_parts": 1,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 64},
    "rembert": DECODER | {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": DECODER,
    "roberta-prelayernorm": DECODER,
    "roc_bert": DECODER
    | {
        "pronunciation_embed_dim": 8,
        "pronunciation_vocab_size": VOCABULARY,
        "shape_embed_dim": 8,
        "shape_vocab_size": VOCABULARY,
    },
    "roformer": DECODER,
    "rwkv": {},
    "seed_oss": {},
    "smollm3": {},
    "solar_open": {},
    "stablelm": {},
    "starcoder2": {},
    "trocr": {},
    "vaultgemma": {},
    "whisper": {"max_target_positions": 64},
    "xglm": {},
    "xlm": {"causal": True},
    "xlm-roberta": DECODER,
    "xlm-roberta-xl": DECODER,
    "xlstm": {"num_heads": 4},
    "xmod": DECODER | {"default_language": "en_XX"},
    "youtu": SAME_HEADS,
    "zamba": {
        "num_hidden_layers": 4,
        "head_dim": 16,
        "num_key_value_heads": 4,
        "layer_types": ["mamba", "hybrid", "mamba", "hybrid"],
        "mamba_d_state": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
}
