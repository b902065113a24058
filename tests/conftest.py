"""Shared by all tests: no hub, a project folder of their own, and models loaded once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import shutil
import subprocess
import sys

import pytest
from filelock import FileLock

# Files whose tests take minutes, the longest first: a file is one process's, and one that begins
# last is waited for alone. Others follow in the order of their names.
LONGEST = ("test_notebooks", "test_experiment", "test_harness", "test_resume", "test_models")


def pytest_collection_modifyitems(items):
    """Begin with the longest files; within a file the order stays."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


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
    """A project folder with the whole `tiny` study, computed once as make does it.

    It takes a minute and more: where several processes run tests, one computes, and each has a
    copy.
    """
    mine = tmp_path_factory.getbasetemp()
    of_all = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    first, partial = of_all / "tiny-computed-once", of_all / "tiny-being-computed"
    with FileLock(of_all / "tiny.lock"):
        if not first.exists():
            environment = os.environ | {"FORGETLIB_ROOT": str(partial)}
            command = [sys.executable, "-m", "forgetlib.experiment", "tiny"]
            subprocess.run(command, env=environment, check=True, capture_output=True)
            partial.rename(first)
    root = tmp_path_factory.mktemp("tiny") / "root"
    shutil.copytree(first, root)
    return root
