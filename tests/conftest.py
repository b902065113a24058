"""Shared by all tests: no hub, a project folder of their own, and models loaded once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

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
