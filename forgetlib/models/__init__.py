"""Causal language models: loading them, checking them, and one pass through them."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Answer a name of version 0.1, when this was one module, with where to look now."""
    said = f"module 'forgetlib.models' has no {name!r}"
    now = {"load": "loading.load", "save": "loading.save", "LM": "lm.LM"}
    where = f"forgetlib.models.{now.get(name, 'loading')}"
    raise AttributeError(f"{said}. Look in {where}." if not name.startswith("__") else said)
