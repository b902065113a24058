"""Shared by all tests: no hub, a project folder of their own, and models loaded once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from shapes import ARCHITECTURES

# For processes that tests start: pytest itself has them from pyproject.toml.
TEST_FOLDERS = [str(p) for p in (Path(__file__).parent, *sorted(Path(__file__).parent.glob("*/")))]

# What takes minutes, the longest first: files, and fixtures that make a model each. What begins
# last is waited for alone. Others follow in the order of their names.
LONGEST = (
    "folder_with_a_real_tokenizer",
    "test_harness",
    "test_studies",
    "test_resume",
    "test_parallel",
    "test_catalogue",
    "test_supply_chain",
    "case",
)
# Fixtures of one model after the other: all tests of a model are one process's.
MODELS = ("folder", "folder_with_a_real_tokenizer", "case")
# Files whose tests have nothing in common that takes long: pieces that fill the end.
SHARED_OUT = ("test_executed",)


def unit(item):
    """What one process runs in one go, as (what LONGEST may name, which of it).

    A file, but for its slow tests, each of which is alone, and for what is above.
    """
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if item.get_closest_marker("slow") or item.path.stem in SHARED_OUT:
        return item.path.stem, item.nodeid
    for name in MODELS:
        if name in given:
            return name, f"{name} {given[name]}"
    return item.path.stem, item.path.stem


# First, as xdist reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tell xdist what belongs together, and begin with what takes longest, slow tests before all.

    The first computes the study that others have to wait for. What belongs together stays in the
    order that pytest gave it.
    """
    order = {name: place for place, name in enumerate(LONGEST)}
    order |= {name: len(LONGEST) + 1 for name in SHARED_OUT}

    def place(item):
        name, _ = unit(item)
        if item.get_closest_marker("slow"):
            return 0, "tiny_root" not in item.fixturenames, name
        return 1, order.get(name, len(LONGEST)), ""

    items.sort(key=place)
    for item in items:
        _, of_it = unit(item)
        if of_it != item.nodeid:
            item.add_marker(pytest.mark.xdist_group(of_it))


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
def folder_with_a_real_tokenizer(request, tmp_path_factory):
    """With Gemma's tokenizer, and so 262 144 tokens."""
    from transformers import AutoTokenizer

    from forgetlib.models import loading

    tokenizer = AutoTokenizer.from_pretrained(loading.source_of("embedded"))
    path = tmp_path_factory.mktemp(request.param)
    return save_random_model(request.param, tokenizer, path)


@pytest.fixture
def hub(tmp_path):
    """An empty folder in the place of the hub."""
    from made_up import in_place_of_the_hub

    folder = tmp_path / "hub"
    folder.mkdir()
    with in_place_of_the_hub(folder, tmp_path / "cache"):
        yield folder


@pytest.fixture
def no_folder(hub, monkeypatch):
    """The hub itself, nothing of which is in the cache."""
    monkeypatch.delenv("FORGETLIB_HUB")


@pytest.fixture(scope="module")
def real_hub(tmp_path_factory):
    """The folder laid out like the hub that there is beside the checkout."""
    from made_up import REAL_HUB, in_place_of_the_hub

    with in_place_of_the_hub(REAL_HUB, tmp_path_factory.mktemp("cache")):
        yield REAL_HUB


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder: nothing a test computes lands in the checkout."""
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def brief_probes(monkeypatch):
    """Probes that are hardly fitted, which is most of what a small study takes."""
    from forgetlib.measuring import probing

    monkeypatch.setattr(probing, "fit", partial(probing.fit, max_steps=3))


@pytest.fixture
def own_names():
    """What a test adds goes with it: tasks, methods, readouts, views and files of studies."""
    from forgetlib import studies
    from forgetlib.data import tasks, views
    from forgetlib.forgetting import base
    from forgetlib.measuring.base import Readout

    places = (tasks._TASKS, base._METHODS, Readout._known, views.View._known, studies._files)
    known = [dict(place) for place in places]
    yield
    for place, before in zip(places, known, strict=True):
        place.clear()
        place.update(before)
    for function in tasks.REMEMBERING:
        function.cache_clear()


@pytest.fixture(scope="session")
def tiny():
    from forgetlib.models import loading

    return loading.load("tiny", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def embedded():
    from forgetlib.models import loading

    return loading.load("embedded", dtype="float32", device="cpu")


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
            command = [sys.executable, "-m", "forgetlib", "run", "tiny"]
            subprocess.run(command, env=environment, check=True, capture_output=True)
            partial.rename(first)
    root = tmp_path_factory.mktemp("tiny") / "root"
    shutil.copytree(first, root)
    return root
