"""Room on the disk and in memory."""

from types import SimpleNamespace

import pytest

from forgetlib.data import room
from forgetlib.data.cache import AssetError


def test_a_disk_is_enough_or_the_error_has_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    room.require_disk("a model", tmp_path, 10**9)
    with pytest.raises(AssetError, match=r"room for a model in .*expected 1\.5 GB.*found 1\.0 GB"):
        room.require_disk("a model", tmp_path, 15 * 10**8)


def test_memory_is_enough_or_the_error_has_both_numbers(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:   1000000 kB\n")
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    assert room.available_memory() == 1_024_000_000
    room.require_memory("a model", 10**9)
    with pytest.raises(AssetError, match=r"expected 2\.0 GB available, found 1\.0 GB"):
        room.require_memory("a model", 2 * 10**9)


@pytest.mark.parametrize("text", [None, "MemTotal: 9000000 kB\n"])
def test_memory_that_nobody_states_is_not_asked_for(tmp_path, monkeypatch, text):
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    assert room.available_memory() is None
    room.require_memory("a model", 10**15)  # does not raise
