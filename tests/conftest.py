"""Shared by all tests: no hub, a project folder of their own, and models loaded once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import subprocess
import sys

import pytest


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
