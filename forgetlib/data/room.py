"""Is there room? Asked before a download starts, so that nothing is left half-made."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from forgetlib.data.cache import AssetError

MEMINFO = Path("/proc/meminfo")


def require_disk(what: str, folder: Path, needed: int) -> None:
    """Raise AssetError where a folder's filesystem has fewer bytes left than needed."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise AssetError(
            f"room for {what} in {folder}",
            expected=f"{in_words(needed)} of free disk",
            found=in_words(free),
            do="Free space, or set FORGETLIB_CACHE to a folder on another disk.",
        )


def require_memory(what: str, needed: int) -> None:
    """Raise AssetError where fewer bytes of memory are available than needed, if that is known."""
    available = available_memory()
    if available is not None and available < needed:
        raise AssetError(
            f"memory for {what}",
            expected=f"{in_words(needed)} available",
            found=in_words(available),
            do="End other programs, or use a smaller model or a larger machine.",
        )


def available_memory() -> int | None:
    """Read how many bytes a program can have without swapping; None where Linux does not say."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def in_words(n_bytes: int) -> str:
    """Write a number of bytes in MB, or in GB from 1 GB on."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
