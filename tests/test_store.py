import errno
import os
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import family

from forgetlib import store
from forgetlib.schema import Dynamics, ProbeResult
from forgetlib.store import Store, StoreError, read_records, write_records


def a_result():
    result = family("t", 0.5, 0.9, 0.6, n=20)[2]
    rng = np.random.default_rng(0)
    right, control = rng.random((3, 20, 2)) < 0.7, rng.random((5, 3)).astype(np.float32)
    layers, deviation = np.arange(3, dtype=np.int16), np.linspace(0, 1 / 3, 20, dtype=np.float32)
    probe = ProbeResult(layers, right, control, 1, deviation)
    uids = result.scores["t/train"].uids
    dynamics = Dynamics(np.array([0, 5], np.int32), uids, np.full((2, 20), 0.25, np.float32))
    return replace(
        result,
        spec=replace(result.spec, probe=True),
        dynamics=dynamics,
        probe=probe,
        train_loss=np.array([2.5, 1 / 3], np.float32),
        provenance={"device": "test", "seconds": 1.5},
    )


def same(a, b):
    assert a.spec == b.spec
    assert a.provenance == b.provenance
    assert (a.train_loss == b.train_loss).all()
    assert set(a.scores) == set(b.scores)
    for where in a.scores:
        assert a.scores[where].uids == b.scores[where].uids
        for name in ("log_likelihoods", "n_tokens", "labels"):
            x, y = getattr(a.scores[where], name), getattr(b.scores[where], name)
            assert x.dtype == y.dtype
            assert (x == y).all()
    assert (a.dynamics is None) == (b.dynamics is None)
    if a.dynamics is not None:
        assert (a.dynamics.confidence == b.dynamics.confidence).all()
        assert a.dynamics.uids == b.dynamics.uids
    assert (a.probe is None) == (b.probe is None)
    if a.probe is not None:
        assert a.probe.variance_layer == b.probe.variance_layer
        for name in ("layers", "correct", "control", "deviation"):
            x, y = getattr(a.probe, name), getattr(b.probe, name)
            assert x.dtype == y.dtype
            assert (x == y).all()
    return True


@pytest.fixture
def place(tmp_path):
    return Store(tmp_path / "packed" / "results.parquet", tmp_path / "work")


def test_a_record_comes_back_bit_for_bit(place):
    result = a_result()
    assert result.spec.run_id not in place
    place.write(result)
    assert result.spec.run_id in place
    assert same(place.read(result.spec.run_id), result)


def test_packing_keeps_every_run_and_survives_the_loss_of_the_work_folder(place, tmp_path):
    results = [a_result(), *family("u", 0.5, 0.8, 0.6, n=30)]
    for result in results:
        place.write(result)
    ids = [r.spec.run_id for r in results]
    place.pack(ids)
    elsewhere = Store(place.packed, tmp_path / "nothing here")
    assert all(same(elsewhere.read(r.spec.run_id), r) for r in results)
    assert elsewhere.others(ids[1:]) == {ids[0]}
    assert elsewhere.others(ids) == set()


def test_the_same_results_pack_to_the_same_bytes(tmp_path):
    results = family("u", 0.5, 0.8, 0.6, n=30)
    write_records(results, tmp_path / "a")
    write_records(results[::-1], tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_record_cut_short_is_an_error_that_names_it(tmp_path, share):
    path = tmp_path / "run.parquet"
    write_records([a_result()], path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StoreError, match=r"run.parquet: expected a complete record.*delete it"):
        read_records(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path, share, bit):
    path = tmp_path / "run.parquet"
    write_records([a_result()], path)
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 1 << bit
    path.write_bytes(data)
    try:
        (found,) = read_records(path)
    except StoreError as error:
        assert "run.parquet" in str(error)
    else:
        assert same(found, a_result())


def test_a_record_under_another_run_s_name_is_an_error(tmp_path):
    path = tmp_path / "run.parquet"
    write_records([a_result()], path)
    table = pq.read_table(path)
    changed = table.set_column(0, "run_id", [["0" * 16]]).replace_schema_metadata(
        table.schema.metadata
    )
    pq.write_table(changed, path)
    with pytest.raises(StoreError, match="run_id 0000000000000000 of a spec that hashes to"):
        read_records(path)


def test_a_record_of_another_format_is_an_error(tmp_path):
    path = tmp_path / "run.parquet"
    write_records([a_result()], path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"forgetlib_format": "0"}), path)
    with pytest.raises(StoreError, match="expected a complete record of format 2, found format 0"):
        read_records(path)


def test_a_full_disk_leaves_the_old_record_and_nothing_else(place, monkeypatch):
    result = a_result()
    place.write(result)

    def full(table, where, **options):
        where.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.pq, "write_table", full)
    with pytest.raises(StoreError, match=r"No space left on device. Free space"):
        place.write(replace(result, provenance={}))
    monkeypatch.undo()
    assert same(place.read(result.spec.run_id), result)
    assert len(list((place.work / "runs").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    (tmp_path / "work").write_text("a file where the folder should be")
    place = Store(tmp_path / "results.parquet", tmp_path / "work")
    for write in (lambda: place.write(a_result()), lambda: place.lock_path("a")):
        with pytest.raises(StoreError, match="expected a folder that can be written"):
            write()


def test_a_read_only_folder_is_an_error_that_says_so(place, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(store.tempfile, "mkstemp", denied)
    with pytest.raises(StoreError, match=r"Permission denied. Free space or change the perm"):
        place.write(a_result())


def test_weights_are_kept_until_they_are_dropped(place):
    place.save_weights("a", lambda path: path.write_bytes(b"weights"))
    assert place.weights_path("a").read_bytes() == b"weights"
    place.drop_weights("a")
    place.drop_weights("a")
    assert not place.weights_path("a").exists()
