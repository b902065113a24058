"""Several processes that share one model: which of them writes, and what all are told."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def together() -> bool:
    """Tell whether several processes share a model (see parallel), all of which do the same."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def writes() -> bool:
    """Tell whether this process writes results: alone, or the first that shares a model."""
    return not together() or os.environ["RANK"] == "0"


def told(value: Callable[[], T]) -> T:
    """Take what the first of the processes that share a model finds, so that all do the same."""
    if not together():
        return value()
    from forgetlib.engine import parallel

    return parallel.from_first(value)
