"""Small configurations of the architectures that tests use, by their names in transformers."""

ARCHITECTURES = {
    "llama": {"hidden_size": 32, "intermediate_size": 64, "num_key_value_heads": 2},
    "qwen3": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_key_value_heads": 2,
        "head_dim": 8,
    },
    "gemma2": {"hidden_size": 32, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_key_value_heads": 1,
        "head_dim": 8,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
}
