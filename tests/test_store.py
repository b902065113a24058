import errno
import json
import os
import threading
import time
import warnings
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import Timeout
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
    assert a.train_loss.dtype == b.train_loss.dtype
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
        assert a.dynamics.uids == b.dynamics.uids
        for name in ("steps", "confidence"):
            x, y = getattr(a.dynamics, name), getattr(b.dynamics, name)
            assert x.dtype == y.dtype
            assert (x == y).all()
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


def test_the_order_of_what_json_holds_does_not_change_a_byte(tmp_path):
    result = a_result()
    other = replace(result, provenance=dict(reversed(result.provenance.items())))
    write_records([result], tmp_path / "a")
    write_records([other], tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (text,) = pq.read_table(tmp_path / "a")["spec"].to_pylist()
    assert text == json.dumps(result.spec.to_dict(), sort_keys=True)


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


def test_every_page_has_a_checksum_that_is_looked_at(tmp_path):
    path = tmp_path / "run.parquet"
    write_records([a_result()], path)
    whole = path.read_bytes()
    row = pq.ParquetFile(path).metadata.row_group(0)
    for i in range(row.num_columns):
        column, data = row.column(i), bytearray(whole)
        # The last byte is the last page's content, and no header's.
        start = column.dictionary_page_offset or column.data_page_offset
        data[start + column.total_compressed_size - 1] ^= 1
        path.write_bytes(data)
        with pytest.raises(StoreError, match=r"(?i)crc|checksum"):
            read_records(path)


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


def test_a_folder_where_a_file_should_be_is_an_error_that_names_the_file(place):
    result = a_result()
    record = place.work / "runs" / f"{result.spec.run_id}.parquet"
    left_over = record.with_name(f".{record.name}.abc.partial")
    for in_the_way, named, write in (
        (place.weights_path("a"), place.weights_path("a"), lambda: place.drop_weights("a")),
        (place.lock_path("a"), place.lock_path("a"), lambda: place.lock("a")),
        (left_over, record, lambda: place.write(result)),
    ):
        in_the_way.mkdir(parents=True)
        with pytest.raises(StoreError, match=f"^writing {named}: expected a folder that can be"):
            write()


def test_a_read_only_folder_is_an_error_that_says_so(place, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(store.tempfile, "mkstemp", denied)
    with pytest.raises(StoreError, match=r"Permission denied. Free space or change the perm"):
        place.write(a_result())


def test_everything_is_where_the_module_says(place):
    result = a_result()
    run_id = result.spec.run_id
    place.write(result)
    place.save_weights(run_id, lambda path: path.write_bytes(b"weights"))
    assert (place.work / "runs" / f"{run_id}.parquet").is_file()
    assert (place.work / "weights" / f"{run_id}.safetensors").is_file()
    assert place.lock_path(run_id) == place.work / "locks" / f"{run_id}.lock"
    assert place.pack([run_id]) == place.packed
    assert place.packed.is_file()


def test_others_are_the_runs_in_the_work_folder_and_in_the_pack_that_are_not_named(place):
    packed, working, named = family("t", 0.5, 0.8, 0.6, n=30)
    place.write(packed)
    place.pack([packed.spec.run_id])
    place.write(working)
    place.write(named)
    found = Store(place.packed, place.work).others([named.spec.run_id])
    assert found == {packed.spec.run_id, working.spec.run_id}


def test_what_is_packed_is_all_of_it_or_more(place):
    a, b, c = (r.spec.run_id for r in family("t", 0.5, 0.8, 0.6, n=30))
    for result in family("t", 0.5, 0.8, 0.6, n=30)[:2]:
        place.write(result)
    place.pack([a, b])
    assert place.is_packed([a]) and place.is_packed([a, b])
    assert not place.is_packed([a, b, c])


def test_a_lock_keeps_others_out_until_it_is_given_back(place, monkeypatch):
    """Seen from another store on the same folder, as another process has it."""
    other = Store(place.packed, place.work)
    with place.lock("a"):
        with monkeypatch.context() as patch, pytest.raises(Timeout):
            patch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
            other.lock("a")
        with other.lock("b"):  # another run's
            pass
    with other.lock("a"):
        pass


@pytest.mark.parametrize("name", ["pack", "a.weights"])
def test_packing_and_saving_wait_for_each_other(place, name):
    """As long as it takes: another process may have a large study to pack."""
    result = a_result()
    place.write(result)
    work = {
        "pack": lambda: place.pack([result.spec.run_id]),
        "a.weights": lambda: place.save_weights("a", lambda path: path.write_bytes(b"w")),
    }[name]
    thread = threading.Thread(target=work)
    with Store(place.packed, place.work).lock(name):
        thread.start()
        thread.join(1.5)
        assert thread.is_alive()
        assert not place.packed.exists() and not place.weights_path("a").exists()
    thread.join(30)
    assert place.packed.exists() or place.weights_path("a").exists()


def test_a_file_is_replaced_by_one_beside_it_that_everyone_can_read(tmp_path):
    path = tmp_path / "new folder" / "run.parquet"
    with store.replacing(path) as partial:
        assert partial.parent == path.parent
        assert fnmatch(partial.name, ".run.parquet.*.partial")
        partial.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_beside_its_record_goes_when_the_run_is_written(place):
    result = a_result()
    place.write(result)
    left = place.work / "runs" / f".{result.spec.run_id}.parquet.abc.partial"
    of_another = place.work / "runs" / f".{'0' * 16}.parquet.abc.partial"
    for path in (left, of_another):
        path.write_bytes(b"half of it")
    place.write(result)
    assert not left.exists()
    assert of_another.exists()


def test_weights_are_kept_until_they_are_dropped(place):
    place.save_weights("a", lambda path: path.write_bytes(b"weights"))
    assert place.weights_path("a").read_bytes() == b"weights"
    place.drop_weights("a")
    place.drop_weights("a")
    assert not place.weights_path("a").exists()


# --- log-likelihoods that cannot be ---


def with_scores(values):
    """A result whose test scores' first row is `values`."""
    result = a_result()
    scores = result.scores["t/test"]
    moved = scores.log_likelihoods.copy()
    moved[0] = values
    return replace(
        result, scores=dict(result.scores, **{"t/test": replace(scores, log_likelihoods=moved)})
    )


def test_values_above_0_are_read_as_they_are_and_said_once_a_file(tmp_path):
    result = with_scores((0.5, 2e-4))
    paths = [tmp_path / "a study" / name for name in ("one.parquet", "other.parquet")]
    for path in paths:
        write_records([result], path)
    for path in paths:
        with pytest.warns(UserWarning) as said:
            assert same(read_records(path)[0], result)
            assert same(read_records(path)[0], result)
        (warning,) = said
        n = sum(s.log_likelihoods.size for s in result.scores.values())
        assert str(warning.message).startswith(
            f"2 of {n} log-likelihoods are above 0, the largest 0.50: an earlier version computed"
        )
        assert warning.filename == "/".join(path.parts[-3:])


def test_values_that_are_0_but_for_rounding_are_not_mentioned(tmp_path):
    write_records([with_scores((9e-5, 0.0))], tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_records(tmp_path / "a")


def test_the_committed_results_hold_such_values():
    """So that the warning is dropped with the last of them."""
    paths = sorted(Path(store.__file__).parent.parent.glob("figures/*/results.parquet"))
    assert len(paths) >= 3
    for path in paths:
        store._warned.discard(path.resolve())
        with pytest.warns(UserWarning, match="log-likelihoods are above 0, the largest 0."):
            read_records(path)


# --- another content ---


class OtherThan:
    """What is there now, where the results that a test names are of something else."""

    def __init__(self, *outdated):
        self.outdated = {r.provenance["made"]: ("model 'x'",) for r in outdated}

    def differs(self, spec, provenance):
        return self.outdated.get(provenance["made"], ())


@pytest.fixture
def old_and_new():
    olds = [
        replace(r, provenance={"made": f"then {i}"})
        for i, r in enumerate(family("t", 0.5, 0.8, 0.6, n=30))
    ]
    return olds, [replace(r, provenance={"made": f"now {i}"}) for i, r in enumerate(olds)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_of_another_content_counts_as_none_until_it_is_written_anew(
    place, old_and_new, packed
):
    (old, *_), (new, *_) = old_and_new
    run_id = old.spec.run_id
    place.write(old)
    if packed:
        place.pack([run_id])
        (place.work / "runs" / f"{run_id}.parquet").unlink()
    now = Store(place.packed, place.work, OtherThan(old))
    assert run_id in place and run_id not in now
    assert now.outdated([run_id, "0" * 16]) == {run_id: ("model 'x'",)}
    assert not now.is_packed([run_id])
    with pytest.raises(StoreError):
        now.read(run_id)
    now.write(new)
    assert run_id in now and now.outdated([run_id]) == {}
    assert same(now.read(run_id), new)


def test_packing_puts_the_new_record_in_the_place_of_the_old_one_and_keeps_the_others(
    place, old_and_new
):
    olds, news = old_and_new
    ids = [r.spec.run_id for r in olds]
    for old in olds:
        place.write(old)
    place.pack(ids)
    now = Store(place.packed, place.work, OtherThan(*olds))
    now.write(news[0])
    now.pack([i for i in ids if i in now])
    made = {r.spec.run_id: r.provenance["made"] for r in read_records(place.packed)}
    assert made == dict(zip(ids, ["now 0", "then 1", "then 2"], strict=True))
    assert [i in now for i in ids] == [True, False, False]


def test_what_is_not_of_the_present_content_is_not_written(place, old_and_new):
    (old, *_), _ = old_and_new
    now = Store(place.packed, place.work, OtherThan(old))
    with pytest.raises(StoreError, match=r"^result of run .* found another: model 'x'\. It was"):
        now.write(old)
    assert not (place.work / "runs").exists()


def test_what_another_process_writes_anew_counts_at_once(place, old_and_new):
    (old, *_), (new, *_) = old_and_new
    place.write(old)
    now = Store(place.packed, place.work, OtherThan(old))
    assert old.spec.run_id not in now
    place.write(new)
    assert new.spec.run_id in now


# --- errors ---


@pytest.mark.parametrize(
    ("call", "what", "expected", "found", "do"),
    [
        (
            lambda path: write_records([replace(a_result(), provenance={"a": {1}})], path),
            "writing {}",
            "texts in UTF-8, and a provenance that JSON can hold",
            "TypeError: Object of type set is not JSON serializable",
            "Correct the result.",
        ),
        (
            read_records,
            "results file {}",
            "what was there a moment ago",
            "no such file",
            "It was deleted meanwhile: start again, and what it held is computed again.",
        ),
        (
            lambda path: path.write_bytes(b"x" * 100) and read_records(path),
            "results file {}",
            "a complete record of format 2",
            "Parquet magic bytes not found in footer. Either the file is corrupted or this is not "
            "a parquet file.",
            "It was damaged or written by another version: delete it, and what it held is computed "
            "again.",
        ),
        (
            lambda path: write_records([a_result()], path) or read_records(path, "0" * 16),
            "results file {}",
            "a complete record of format 2",
            f"runs ['{a_result().spec.run_id}']",
            "It was damaged or written by another version: delete it, and what it held is computed "
            "again.",
        ),
        (
            lambda path: path.mkdir() or write_records([a_result()], path),
            "writing {}",
            "a folder that can be written, with space left",
            None,  # the system's words
            "Free space or change the permissions, and start again: finished runs are kept.",
        ),
    ],
)
def test_an_error_says_what_was_expected_what_was_found_and_what_to_do(
    tmp_path, call, what, expected, found, do
):
    path = tmp_path / "run.parquet"
    with pytest.raises(StoreError) as error:
        call(path)
    if found is None:
        found = str(error.value.__cause__)
    assert str(error.value) == f"{what.format(path)}: expected {expected}, found {found}. {do}"


def test_a_foreign_file_has_no_format(tmp_path):
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StoreError, match=r"a complete record of format 2, found format none\."):
        read_records(path)


def test_long_words_of_the_system_are_cut(tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise OSError("a  b\n" * 200)

    monkeypatch.setattr(store.pq, "ParquetFile", fails)
    with pytest.raises(StoreError) as error:
        read_records(tmp_path / "a")
    assert f", found {('a b ' * 200)[:300]}. It was" in str(error.value)
