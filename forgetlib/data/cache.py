"""The cache: folders that are complete or absent, and the digests of files that were read.

It is the user's cache folder, or FORGETLIB_CACHE where that is set. Everything in it is built in a
temporary folder and renamed into place, under a lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from forgetlib.errors import ForgetlibError
from forgetlib.files import SETTLED, StoreError, replacing


class AssetError(ForgetlibError, RuntimeError):
    """Say that an asset could not be fetched, verified or unpacked."""


def cache_dir() -> Path:
    """Return FORGETLIB_CACHE, or the user's cache folder."""
    named = os.environ.get("FORGETLIB_CACHE") or user_cache_path("forgetlib")
    try:
        return Path(named).expanduser()
    except RuntimeError as error:  # "~" of a user who has no home
        raise AssetError(
            f"the cache {named}",
            expected="a folder that can be written",
            found=str(error).rstrip("."),
            do="Set FORGETLIB_CACHE to the path of one.",
        ) from error


def sha256_of(path: Path) -> str:
    """Compute a file's sha256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """Return a file's sha256, for which it is read only where its size or times are new.

    What was found is kept in the cache. A damaged entry, or a cache that cannot be written, costs
    the reading again and nothing else.
    """
    before = _stamp(path)
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    entry = cache_dir() / "digests" / f"{name}.json"
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(entry.read_text())
        if isinstance(known, dict) and known.get("stamp") == before and "sha256" in known:
            return str(known["sha256"])
    digest = sha256_of(path)
    if _stamp(path) == before and time.time_ns() - path.stat().st_ctime_ns > SETTLED:
        with contextlib.suppress(StoreError), replacing(entry) as partial:
            partial.write_text(json.dumps({"path": str(path), "stamp": before, "sha256": digest}))
    return digest


def _stamp(path: Path) -> list[int]:
    """Read what changes with a file's content: the last cannot be set, as by `cp --preserve`."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def target_of(name: str, sha256: str) -> Path:
    """Name the folder that an asset of this content is kept in."""
    return cache_dir() / f"{name}-{sha256[:12]}"


def ensure(
    name: str,
    sha256: str,
    build: Callable[[Path], None],
    before: Callable[[Path], None] = lambda cache: None,
) -> Path:
    """Return the cached folder `name`, built under a lock where it is missing or damaged.

    build: writes into the folder that it is given
    before: is given the cache, and raises where there is no room; until then nothing is written

    Raises AssetError where the cache cannot be written, and what `before` and `build` raise.
    """
    cache, target = cache_dir(), target_of(name, sha256)
    if is_complete(target):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{name}.lock"):
            if is_complete(target):  # another process built it while this one waited
                return target
            # Everything temporary is inside: what a killed build left goes with the next one.
            for left_over in cache.glob(f"{target.name}.partial-*"):
                shutil.rmtree(left_over)
            before(cache)
            partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=cache))
            try:
                build(partial)
                _write_manifest(partial)
                partial.chmod(0o755)  # mkdtemp's folders are their owner's only
                if target.exists():
                    shutil.rmtree(target)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise AssetError(
            f"the cache {cache}",
            expected="a folder that can be written, with 2 GB free",
            found=str(error),
            do="Free space or set FORGETLIB_CACHE to another folder.",
        ) from error
    return target


def _write_manifest(folder: Path) -> None:
    sizes = {
        str(p.relative_to(folder)): p.stat().st_size
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
    (folder / "MANIFEST.json").write_text(json.dumps(sizes, indent=1))


def is_complete(folder: Path) -> bool:
    """Tell whether every file is there with its size (hashes were checked when it was built)."""
    try:
        sizes = json.loads((folder / "MANIFEST.json").read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
