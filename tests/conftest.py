"""Shared by all tests: no hub, a project folder of their own, and models loaded once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import subprocess
import sys

import pytest

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


def save_random_model(architecture, tokenizer, path):
    """A random model of an architecture, saved in the Hugging Face layout with a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        num_attention_heads=4,
        **ARCHITECTURES[architecture],
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():  # larger than at the start of training, so that logits differ
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session", params=ARCHITECTURES)
def folder(request, tmp_path_factory, tiny):
    path = tmp_path_factory.mktemp(request.param)
    return save_random_model(request.param, tiny.tokenizer, path)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def folder_with_a_real_tokenizer(request, tmp_path_factory, embedded):
    """With Gemma's tokenizer, and so 262 144 tokens."""
    path = tmp_path_factory.mktemp(request.param)
    return save_random_model(request.param, embedded.tokenizer, path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder: nothing a test computes lands in the checkout."""
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def tiny():
    from forgetlib import models

    return models.load("tiny", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def embedded():
    from forgetlib import models

    return models.load("embedded", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A project folder with the whole `tiny` study, computed once as make does it."""
    root = tmp_path_factory.mktemp("tiny")
    environment = os.environ | {"FORGETLIB_ROOT": str(root)}
    command = [sys.executable, "-m", "forgetlib.experiment", "tiny"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return root
