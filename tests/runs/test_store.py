"""Records in files: to the bit, complete or absent, added and never rewritten."""

import errno
import json
import os
import threading
import time
import warnings
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import Timeout
from helpers import same_records, same_values
from hypothesis import HealthCheck, given, settings, strategies as st
from synthetic import family, result_of

from forgetlib import files
from forgetlib.files import PACKAGE, StoreError
from forgetlib.forgetting.base import UnknownMethod
from forgetlib.measuring.base import (
    Column,
    DoseCurve,
    Dynamics,
    HiddenVariance,
    LogitLens,
    Loss,
    Probe,
    PromptNats,
    Readout,
    ScoresInTraining,
    readout,
    readouts,
)
from forgetlib.runs import rows
from forgetlib.runs.content import Present
from forgetlib.runs.records import Job, Record
from forgetlib.runs.rows import COLUMNS, RecordFile, describe, read_records, write_records
from forgetlib.runs.specs import Measurement, hash_of, hash_of_text
from forgetlib.runs.store import Store

ABOUT = {"device": "test", "seconds": 1.5}


def a_result(**about):
    """One of a job with a record of every readout."""
    result = family("t", 0.5, 0.9, 0.6, n=20)[2]
    rng = np.random.default_rng(0)
    right, control = rng.random((3, 20, 2)) < 0.7, rng.random((5, 3)).astype(np.float32)
    uids = result.scores["t/train"].uids
    return result_of(
        result.checkpoint,
        result.scores,
        provenance=ABOUT | about,
        probe=Probe(np.arange(3, dtype=np.int16), right, control),
        hidden_variance=HiddenVariance(1, np.linspace(0, 1 / 3, 20, dtype=np.float32)),
        dynamics=Dynamics(np.array([0, 5], np.int32), uids, np.full((2, 20), 0.25, np.float32)),
        loss=Loss(np.array([2.5, 1 / 3], np.float32)),
        scores_in_training=ScoresInTraining(
            np.array([0, 5], np.int32),
            uids,
            np.arange(20, dtype=np.int64) % 2,
            np.linspace(-9, -1, 80, dtype=np.float32).reshape(2, 20, 2),
            np.full((20, 2), 3, np.int32),
        ),
        dose=DoseCurve(np.array([0, 4], np.int32), np.array([0.9, 1 / 3], np.float32)),
        logit_lens=LogitLens(
            uids,
            np.arange(20) % 2,
            np.arange(3, dtype=np.int16),
            -rng.random((3, 20, 2), np.float32),
        ),
        prompt_nats=PromptNats(rng.random(20, dtype=np.float32)),
    )


def some_records(**about):
    return list(a_result(**about).records)


def job_of(result):
    return Job(result.checkpoint, tuple(r.measurement for r in result.records))


def keys_of(*results):
    return [r.key for result in results for r in result.records]


def same(one, other):
    """Records of the same checkpoints and measurements, with the same values and provenances."""
    assert same_records(one, other)
    by_key = {r.key: r for r in other}
    for record in one:
        again = by_key[record.key]
        assert (again.checkpoint, again.measurement) == (record.checkpoint, record.measurement)
        assert again.provenance == record.provenance
    return True


@pytest.fixture
def place(tmp_path):
    return Store(tmp_path / "packed", tmp_path / "work")


def test_a_record_comes_back_bit_for_bit(place):
    result = a_result()
    job = job_of(result)
    assert {r.measurement.readout for r in result.records} == set(rows.readouts())
    assert not place.has(job) and place.missing(job) == job.measurements
    assert not any(key in place for key in job.keys)
    place.write(result.records)
    assert place.has(job) and place.missing(job) == ()
    assert all(key in place for key in job.keys)
    assert same(place.result(job).records, result.records)
    found = place.result(job)
    assert (found.checkpoint, found.seed) == (result.checkpoint, job.seed)
    assert len(found.provenances) == 1  # all are of one job


def test_a_part_of_a_job_can_be_stored(place):
    result = a_result()
    job = job_of(result)
    place.write(result.records[:2])
    assert not place.has(job) and place.missing(job) == job.measurements[2:]
    place.write(result.records[2:])
    assert place.has(job)
    place.write([])
    assert len(list((place.work / "results").iterdir())) == 2


def test_packing_keeps_every_record_and_survives_the_loss_of_the_work_folder(place, tmp_path):
    results = [a_result(), *family("u", 0.5, 0.8, 0.6, n=30)]
    for result in results:
        place.write(result.records)
    place.pack({"t-0": keys_of(results[0]), "u-0": keys_of(*results[1:])})
    elsewhere = Store(place.packed, tmp_path / "nothing here")
    for result in results:
        assert same(elsewhere.result(job_of(result)).records, result.records)
    assert elsewhere.keys() == set(keys_of(*results))
    found = {(c.id, m.id): p for c, m, p in elsewhere.sources()}
    assert found == {r.key: r.provenance for result in results for r in result.records}


def test_the_same_records_pack_to_the_same_bytes(tmp_path):
    records = [r for result in family("u", 0.5, 0.8, 0.6, n=30) for r in result.records]
    write_records(records, tmp_path / "a")
    write_records(records[::-1], tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_order_of_what_json_holds_does_not_change_a_byte(tmp_path):
    (record, *_) = some_records()
    other = replace(record, provenance=dict(reversed(record.provenance.items())))
    write_records([record], tmp_path / "a")
    write_records([other], tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (row,) = pq.read_table(tmp_path / "a").to_pylist()
    for name in ("checkpoint", "measurement"):
        assert row[name] == json.dumps(getattr(record, name).to_dict(), sort_keys=True)
        assert row[f"{name}_id"] == getattr(record, name).id == hash_of_text(row[name])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_file_cut_short_is_an_error_that_names_it(tmp_path, share):
    path = tmp_path / "job.parquet"
    write_records(some_records(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StoreError, match=r"job.parquet: expected complete records.*delete it"):
        read_records(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path, share, bit):
    path = tmp_path / "job.parquet"
    write_records(some_records(), path)
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 1 << bit
    path.write_bytes(data)
    try:
        found = read_records(path)
    except StoreError as error:
        assert "job.parquet" in str(error)
    else:
        assert same(found, some_records())


def test_every_page_has_a_checksum_that_is_looked_at(tmp_path):
    path = tmp_path / "job.parquet"
    write_records(some_records(), path)
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


def test_a_damaged_name_of_a_column_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "job.parquet"
    write_records(some_records(), path)
    whole = path.read_bytes()
    assert whole.count(b"log_likelihoods") >= 2
    path.write_bytes(whole.replace(b"log_likelihoods", b"log_likelihoodz"))
    with pytest.raises(StoreError, match=r"job\.parquet: expected complete records"):
        read_records(path)


def changed(path, change, **metadata):
    """Write a file's table again after a change of its rows, as another version might."""
    table = pq.read_table(path)
    again = change(table)
    pq.write_table(again.replace_schema_metadata(table.schema.metadata | metadata), path)


def with_column(name, values):
    def change(table):
        return table.set_column(table.column_names.index(name), name, [values])

    return change


@pytest.mark.parametrize("kind", ["checkpoint", "measurement"])
def test_a_record_under_another_s_id_is_an_error(tmp_path, kind):
    path = tmp_path / "job.parquet"
    write_records(some_records()[:1], path)
    changed(path, with_column(f"{kind}_id", ["0" * 16]))
    with pytest.raises(StoreError, match=f"{kind}_id 0000000000000000 of words that hash to"):
        read_records(path)


def test_a_file_of_another_format_is_an_error(tmp_path):
    path = tmp_path / "job.parquet"
    write_records(some_records(), path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"forgetlib_format": "0"}), path)
    with pytest.raises(StoreError, match="expected complete records of format 3, found format 0"):
        read_records(path)


def full(table, where, **options):
    where.write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_record_and_nothing_else(place, monkeypatch):
    result = a_result()
    place.write(result.records)
    with monkeypatch.context() as patch:
        patch.setattr(rows.pq, "write_table", full)
        with pytest.raises(StoreError, match=r"No space left on device. Free space"):
            place.write(some_records(date="later"))
        with pytest.raises(StoreError, match=r"No space left on device. Free space"):
            place.pack({"t-0": keys_of(result)})
    assert same(place.result(job_of(result)).records, result.records)
    assert len(list((place.work / "results").iterdir())) == 1
    assert list(place.packed.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    (tmp_path / "work").write_text("a file where the folder should be")
    place = Store(tmp_path / "results", tmp_path / "work")
    for write in (lambda: place.write(some_records()), lambda: place.lock_path("a")):
        with pytest.raises(StoreError, match="expected a folder that can be written"):
            write()


def test_a_folder_where_a_file_should_be_is_an_error_that_names_the_place(place):
    records = some_records()
    folder = place.work / "results"
    left_over = folder / f".{records[0].checkpoint.id}-1.parquet.abc.partial"
    for in_the_way, named, write in (
        (place.weights_path("a"), place.weights_path("a"), lambda: place.drop_weights("a")),
        (place.lock_path("a"), place.lock_path("a"), lambda: place.lock("a")),
        (left_over, folder, lambda: place.write(records)),
    ):
        in_the_way.mkdir(parents=True)
        with pytest.raises(StoreError, match=f"^writing {named}: expected a folder that can be"):
            write()


def test_a_read_only_folder_is_an_error_that_says_so(place, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files.tempfile, "mkstemp", denied)
    with pytest.raises(StoreError, match=r"Permission denied. Free space or change the perm"):
        place.write(some_records())


def test_everything_is_where_the_module_says(place):
    result = a_result()
    checkpoint_id = result.checkpoint.id
    place.write(result.records)
    place.save_weights(checkpoint_id, lambda path: path.write_bytes(b"weights"))
    (found,) = (place.work / "results").iterdir()
    assert fnmatch(found.name, f"{checkpoint_id}-*.parquet")
    assert (place.work / "weights" / f"{checkpoint_id}.safetensors").is_file()
    assert place.lock_path("a") == place.work / "locks" / "a.lock"
    assert place.pack({"t-0": keys_of(result)}) == [place.packed / "t-0.parquet"]
    assert [p.name for p in place.packed.iterdir()] == ["t-0.parquet"]


def test_a_lock_keeps_others_out_until_it_is_given_back(place, monkeypatch):
    """Seen from another store on the same folder, as another process has it."""
    other = Store(place.packed, place.work)
    with place.lock("a"):
        with monkeypatch.context() as patch, pytest.raises(Timeout):
            patch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
            other.lock("a")
        with other.lock("b"):  # another job's
            pass
    with other.lock("a"):
        pass


@pytest.mark.parametrize("name", ["pack", "a.weights"])
def test_packing_and_saving_wait_for_each_other(place, name):
    """As long as it takes: another process may have a large study to pack."""
    result = a_result()
    place.write(result.records)
    work = {
        "pack": lambda: place.pack({"t-0": keys_of(result)}),
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
    path = tmp_path / "new folder" / "job.parquet"
    with files.replacing(path) as partial:
        assert partial.parent == path.parent
        assert fnmatch(partial.name, ".job.parquet.*.partial")
        partial.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_beside_its_records_goes_when_the_job_is_done(place):
    records = some_records()
    place.write(records)
    folder = place.work / "results"
    left = folder / f".{records[0].checkpoint.id}-17.parquet.abc.partial"
    of_another = folder / f".{'0' * 16}-17.parquet.abc.partial"
    for path in (left, of_another):
        path.write_bytes(b"half of it")
    place.write(records)
    assert not left.exists()
    assert of_another.exists()


def test_weights_are_kept_until_they_are_dropped(place):
    place.save_weights("a", lambda path: path.write_bytes(b"weights"))
    assert place.weights_path("a").read_bytes() == b"weights"
    place.drop_weights("a")
    place.drop_weights("a")
    assert not place.weights_path("a").exists()


# --- packs are added -----------------------------------------------------------------------------


def test_a_second_pack_of_a_block_is_another_file_and_the_first_keeps_its_bytes(place):
    results = family("t", 0.5, 0.8, 0.6, n=30)
    blocks = {"t-0": keys_of(*results)}
    place.write(results[0].records)
    (first,) = place.pack(blocks)
    was = first.read_bytes(), first.stat().st_mtime_ns
    assert place.pack(blocks) == []  # nothing is new
    place.write(results[1].records)
    (second,) = place.pack(blocks)
    place.write(results[2].records)
    (third,) = place.pack(blocks)
    assert [p.name for p in (first, second, third)] == [
        "t-0.parquet",
        "t-0-2.parquet",
        "t-0-3.parquet",
    ]
    assert (first.read_bytes(), first.stat().st_mtime_ns) == was
    assert same(read_records(second), results[1].records)
    again = Store(place.packed, place.work / "none")
    for result in results:
        assert same(again.result(job_of(result)).records, result.records)


def test_of_two_records_under_one_key_the_newest_date_counts_wherever_it_is(place):
    def at(date, value):
        (record, *_) = some_records(date=date)
        return replace(record, provenance=record.provenance | {"value": value})

    dates = ("2026-01-02T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "2026-01-03T00:00:00+00:00")
    asked = at(dates[0], 0)

    def found(store):
        assert asked.key in store  # which looks for files that came since
        return store.read(asked.checkpoint, asked.measurement).provenance["value"]

    place.write([at(dates[0], "packed")])
    place.pack({"b": [asked.key]})
    place.write([at(dates[1], "older")])
    assert found(place) == "packed" and place.is_packed([asked.key])
    assert place.pack({"b": [asked.key]}) == []
    place.write([at(dates[2], "newer")])
    assert found(place) == found(Store(place.packed, place.work)) == "newer"
    assert not place.is_packed([asked.key])
    (second,) = place.pack({"b": [asked.key]})
    assert second.name == "b-2.parquet" and place.is_packed([asked.key])
    assert found(Store(place.packed, place.work / "none")) == "newer"


def test_one_of_two_of_the_same_date_is_packed_once(place):
    """As after a kill between packing and the end, when the work folder has it too."""
    result = a_result(date="2026-01-01T00:00:00+00:00")
    place.write(result.records)
    place.pack({"b": keys_of(result)})
    again = Store(place.packed, place.work)
    assert again.is_packed(keys_of(result)) and again.pack({"b": keys_of(result)}) == []


def test_what_is_packed_is_all_of_it_or_more(place):
    a, b, c = (keys_of(r) for r in family("t", 0.5, 0.8, 0.6, n=30))
    for result in family("t", 0.5, 0.8, 0.6, n=30)[:2]:
        place.write(result.records)
    place.pack({"t-0": a + b})
    assert place.is_packed(a) and place.is_packed(a + b)
    assert not place.is_packed(a + b + c)


def test_the_keys_are_those_of_the_work_folder_and_of_the_packs(place):
    """So that what a changed study has left can be told."""
    packed, working, named = family("t", 0.5, 0.8, 0.6, n=30)
    place.write(packed.records)
    place.pack({"t-0": keys_of(packed)})
    place.write(working.records)
    place.write(named.records)
    found = Store(place.packed, place.work).keys() - set(keys_of(named))
    assert found == set(keys_of(packed, working))


def test_what_belongs_to_no_block_is_not_packed(place):
    results = family("t", 0.5, 0.8, 0.6, n=30)
    for result in results:
        place.write(result.records)
    new = place.pack({"a": keys_of(results[0]), "b": keys_of(results[1]), "c": [("x", "y")]})
    assert [p.name for p in new] == ["a.parquet", "b.parquet"]
    assert same(read_records(new[0]), results[0].records)


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b"])
def test_a_block_s_name_is_a_file_s(place, name):
    from forgetlib.errors import InputError

    place.write(some_records())
    with pytest.raises(InputError) as error:
        place.pack({name: [some_records()[0].key]})
    assert str(error.value) == (
        f"block of results: expected letters, digits and _.+:-, found {name!r}. Name it otherwise."
    )


# --- what another version writes -----------------------------------------------------------------


def test_every_stored_column_is_described_with_its_type(tmp_path):
    path = tmp_path / "job.parquet"
    write_records(some_records(), path)
    stored = {("", f.name): str(f.type) for f in pq.read_schema(path)}
    for name in rows.readouts():
        of_readout = pq.read_schema(path).field(name).type
        del stored["", name]
        # Parquet calls a list's items so, which is no type.
        types = ((f.name, str(f.type).replace("element: ", "item: ")) for f in of_readout)
        stored |= {(name, column): kind for column, kind in types}
    table = describe()
    assert dict(zip(zip(table.readout, table.column, strict=True), table.type, strict=True)) == (
        stored
    )
    assert (table.meaning.str.len() > 10).all()


@pytest.fixture
def of_tomorrow(tmp_path, own_names):
    """A file of a later version: a readout, a column and a method that today's does not know."""

    @dataclass(frozen=True)
    class Spread(Readout, name="spread"):
        columns: ClassVar = {"width": Column(pa.float32(), "how far apart")}
        width: float

    result = a_result()
    before = tuple(readouts())
    words = result.checkpoint.to_dict() | {"method": {"heat": 3, "method": "melt"}}
    melted = replace(result.checkpoint, method=UnknownMethod(json.dumps(words["method"])))
    records = [replace(r, checkpoint=melted) for r in result.records]
    spread = Record(melted, Measurement("spread", "t", "test", 20), Spread(2.0), ABOUT)
    path = tmp_path / "work/results/tomorrow.parquet"
    write_records([*records, spread], path)

    def wider(table):
        of_loss = table["loss"].combine_chunks()
        more = pa.StructArray.from_arrays(
            [of_loss.field("loss"), pa.array([0.5] * len(table))],
            ["loss", "smooth"],
            mask=of_loss.is_null(),
        )
        return table.set_column(table.column_names.index("loss"), "loss", more)

    changed(path, wider)
    del Readout._known["spread"]
    assert before[-1] == "spread"
    assert pq.read_schema(path).field("loss").type.num_fields == 2
    return path, records, spread, words


def test_what_a_later_version_added_is_left_aside_and_all_else_is_read(of_tomorrow):
    path, records, spread, words = of_tomorrow
    found = read_records(path)
    assert same(found, records)
    assert {r.checkpoint.kind for r in found} == {"melt"}
    assert found[0].checkpoint.to_dict() == words
    assert found[0].checkpoint.id == hash_of(words)
    assert spread.key in RecordFile(path).keys


def test_what_a_later_version_added_is_kept_where_it_is_and_the_rest_is_packed(
    of_tomorrow, tmp_path
):
    path, records, spread, words = of_tomorrow
    was = path.read_bytes()
    place = Store(tmp_path / "packed", tmp_path / "work")
    every = [*(r.key for r in records), spread.key]
    assert place.keys() == set(every)
    (packed,) = place.pack({"b": every})
    assert same(read_records(packed), records)
    assert {r.checkpoint.id for r in read_records(packed)} == {hash_of(words)}
    assert "spread" not in pq.read_schema(packed).names
    assert path.read_bytes() == was
    assert place.pack({"b": every}) == []  # what is not known stays unpacked
    assert not place.is_packed(every) and place.is_packed(every[:-1])


@pytest.mark.parametrize("of", ["data", "method"])
def test_records_with_a_field_of_tomorrow_stay_where_they_are_and_all_else_is_read(of, tmp_path):
    """As `skip` was once added to Data: an older version reads what it knows, and goes on."""
    result, folder = a_result(), tmp_path / "work/results"
    write_records(result.records, folder / "today.parquet")
    table = pq.read_table(folder / "today.parquet")
    words = json.loads(table["checkpoint"][0].as_py())
    inside = words[of] if of == "data" else words[of]["training"]
    inside["cutoff"] = 3
    text = json.dumps(words, sort_keys=True)
    for name, value in {"checkpoint": text, "checkpoint_id": hash_of_text(text)}.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array([value] * len(table)))
    pq.write_table(table, folder / "tomorrow.parquet", write_page_checksum=True)
    place = Store(tmp_path / "packed", tmp_path / "work", Present())
    keys = [(hash_of_text(text), m) for m in table["measurement_id"].to_pylist()]
    assert set(keys) < place.keys()
    assert {c.id for c, _, _ in place.sources()} == {result.checkpoint.id}
    assert read_records(folder / "tomorrow.parquet") == []
    assert place.pack({"b": keys}) == []
    assert (folder / "tomorrow.parquet").exists()
    with pytest.raises(StoreError, match="of a later version") as error:
        RecordFile(folder / "tomorrow.parquet").source(0)
    assert "cutoff" in str(error.value)


def test_a_readout_that_a_file_lacks_is_absent(tmp_path):
    path = tmp_path / "job.parquet"
    only = [r for r in some_records() if r.measurement.readout == "loss"]
    write_records(only, path)
    assert pq.read_schema(path).names == [*COLUMNS, "loss"]
    assert same(read_records(path), only)


def test_a_column_that_came_later_has_its_default_in_older_files(tmp_path, own_names):
    def version(later):
        fields = {"n": Column(pa.int32(), "how many")}
        fields |= {"why": Column(pa.string(), "for what reason")} if later else {}

        @dataclass(frozen=True)
        class Counted(Readout, name="counted"):
            columns: ClassVar = fields
            n: int
            why: str = "not said"

        return Counted

    first, record = version(later=False), some_records()[0]
    asked = Measurement("counted", "t", "test", 20)
    write_records([Record(record.checkpoint, asked, first(3))], tmp_path / "a")
    second = version(later=True)
    (found,) = read_records(tmp_path / "a")
    assert same_values(found.value, second(3)) and found.value.why == "not said"
    assert readout("counted") is second


def test_a_column_without_which_a_readout_is_nothing_is_an_error(tmp_path):
    path = tmp_path / "job.parquet"
    write_records([r for r in some_records() if r.measurement.readout == "hidden_variance"], path)

    def without(table):
        whole = table["hidden_variance"].combine_chunks()
        return with_column("hidden_variance", pa.StructArray.from_arrays(
            [whole.field("layer")], ["layer"]))(table)  # fmt: skip

    changed(path, without)
    with pytest.raises(StoreError, match=r"job\.parquet: .*missing .*argument: 'deviation'"):
        read_records(path)


def test_a_row_without_what_it_measured_is_an_error(tmp_path):
    path = tmp_path / "job.parquet"
    write_records(records := some_records(), path)
    changed(path, with_column("loss", pa.nulls(len(records), readout("loss").struct())))
    with pytest.raises(StoreError, match=r"found no loss in row \d"):
        read_records(path)


# --- log-likelihoods that cannot be --------------------------------------------------------------


def with_scores(values):
    """A result whose test scores' first row is `values`."""
    result = a_result()

    def moved(record):
        if record.measurement.where != "t/test" or record.measurement.readout != "scores":
            return record
        other = record.value.log_likelihoods.copy()
        other[0] = values
        return replace(record, found=replace(record.value, log_likelihoods=other))

    return list(map(moved, result.records))


def test_values_above_0_are_read_as_they_are_and_said_once_a_folder(tmp_path):
    records = with_scores((0.5, 2e-4))
    names = [f"{folder}/{name}.parquet" for folder in "ab" for name in ("one", "other")]
    paths = [tmp_path / "a study" / name for name in names]
    for path in paths:
        write_records(records, path)
    with pytest.warns(UserWarning) as said:
        for path in paths:
            assert same(read_records(path), records)
            assert same(read_records(path), records)
    assert len(said) == 2
    for warning, folder in zip(said, "ab", strict=True):
        assert str(warning.message).startswith(
            "log-likelihoods above 0, as 0.50 in one.parquet: an earlier version computed them"
        )
        assert warning.filename == f"a study/{folder}"


def test_values_that_are_0_but_for_rounding_are_not_mentioned(tmp_path):
    write_records(with_scores((9e-5, 0.0)), tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_records(tmp_path / "a")


def test_the_committed_results_hold_such_values():
    """So that the warning is dropped with the last of them."""
    earlier = ("quick", "embedded", "paper-suite-270m")  # computed by the version that did it
    for folder in (PACKAGE.parent / "figures" / name / "results" for name in earlier):
        rows._warned.discard(folder.resolve())
        with pytest.warns(UserWarning, match=r"log-likelihoods above 0, as 0\."):
            for path in sorted(folder.glob("*.parquet")):
                read_records(path)


# --- another content -----------------------------------------------------------------------------


class OtherThan:
    """What is there now, where the results that a test names are of something else."""

    def __init__(self, *outdated):
        self.outdated = {p["made"] for r in outdated for p in r.provenances}

    def differs(self, checkpoint, measurement, provenance):
        return ("model 'x'",) if provenance["made"] in self.outdated else ()


def made(result, about):
    provenance = {"made": about, "content": {}}
    return replace(result, records=tuple(replace(r, provenance=provenance) for r in result.records))


@pytest.fixture
def old_and_new():
    olds = [made(r, f"then {i}") for i, r in enumerate(family("t", 0.5, 0.8, 0.6, n=30))]
    return olds, [made(r, f"now {i}") for i, r in enumerate(olds)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_of_another_content_counts_as_none_until_it_is_written_anew(
    place, old_and_new, packed
):
    (old, unstored, *_), (new, *_) = old_and_new
    job = job_of(old)
    place.write(old.records)
    if packed:
        place.pack({"t-0": job.keys})
        for path in (place.work / "results").iterdir():
            path.unlink()
    now = Store(place.packed, place.work, OtherThan(old))
    assert place.has(job) and not now.has(job)
    assert now.missing(job) == job.measurements and now.sources() == []
    assert now.outdated([job, job_of(unstored)]) == {job.id: ("model 'x'",)}
    assert not now.is_packed(job.keys)
    with pytest.raises(StoreError, match=r"began with, found another: model 'x'\. It was changed"):
        now.read(job.checkpoint, job.measurements[0])
    now.write(new.records)
    assert now.has(job) and now.outdated([job]) == {}
    assert same(now.result(job).records, new.records)


def test_packing_adds_the_new_records_and_leaves_the_old_ones_where_they_are(place, old_and_new):
    olds, news = old_and_new
    blocks = {"t-0": keys_of(*olds)}
    for old in olds:
        place.write(old.records)
    (first,) = place.pack(blocks)
    was = first.read_bytes()
    now = Store(place.packed, place.work, OtherThan(*olds))
    now.write(news[0].records)
    (second,) = now.pack(blocks)
    assert first.read_bytes() == was
    assert same(read_records(second), news[0].records)
    assert [now.has(job_of(r)) for r in olds] == [True, False, False]
    assert [place.has(job_of(r)) for r in olds] == [True] * 3


def test_what_is_not_of_the_present_content_is_not_written(place, old_and_new):
    (old, *_), _ = old_and_new
    now = Store(place.packed, place.work, OtherThan(old))
    with pytest.raises(StoreError, match="found another"):
        now.write(old.records)
    assert not (place.work / "results").exists()


def test_what_another_process_writes_anew_counts_at_once(place, old_and_new):
    (old, *_), (new, *_) = old_and_new
    place.write(old.records)
    now = Store(place.packed, place.work, OtherThan(old))
    assert not now.has(job_of(old))
    place.write(new.records)
    assert now.has(job_of(new))


def test_a_record_without_a_content_counts_whatever_there_is_now(place):
    place.write(some_records())
    now = Store(place.packed, place.work, OtherThan())
    assert now.has(job_of(a_result()))


# --- errors --------------------------------------------------------------------------------------

DELETE = (
    "It was damaged or written by another version: delete it, and what it held is computed again."
)


def without_columns(path):
    write_records(some_records(), path)
    changed(path, lambda table: table.drop_columns(["provenance", "measurement"]))
    read_records(path)


@pytest.mark.parametrize(
    ("call", "what", "expected", "found", "do"),
    [
        (
            lambda path: write_records([replace(some_records()[0], provenance={"a": {1}})], path),
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
            "complete records of format 3",
            "Parquet magic bytes not found in footer. Either the file is corrupted or this is not "
            "a parquet file.",
            DELETE,
        ),
        (
            without_columns,
            "results file {}",
            "complete records of format 3",
            "measurement, provenance missing or of another type",
            DELETE,
        ),
        (
            lambda path: path.mkdir() or write_records(some_records(), path),
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
    path = tmp_path / "job.parquet"
    with pytest.raises(StoreError) as error:
        call(path)
    if found is None:
        found = str(error.value.__cause__)
    assert str(error.value) == f"{what.format(path)}: expected {expected}, found {found}. {do}"


def test_a_record_that_is_not_stored_is_an_error_that_names_it(place):
    (record, *_) = some_records()
    with pytest.raises(StoreError) as error:
        place.read(record.checkpoint, record.measurement)
    assert str(error.value).startswith(
        "scores t/test of tiny seed 0 t:true > t:random: expected what was stored in "
    )


def test_a_file_that_is_deleted_before_its_values_are_read_is_an_error(place):
    result = a_result()
    place.write(result.records)
    found = place.result(job_of(result))
    for path in (place.work / "results").iterdir():
        path.unlink()
    with pytest.raises(StoreError, match="expected what was there a moment ago, found no such"):
        _ = found.scores


def test_a_foreign_file_has_no_format(tmp_path):
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StoreError, match=r"complete records of format 3, found format none\."):
        read_records(path)


def test_long_words_of_the_system_are_cut(tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise OSError("a  b\n" * 200)

    monkeypatch.setattr(rows.pq, "ParquetFile", fails)
    with pytest.raises(StoreError) as error:
        read_records(tmp_path / "a")
    assert f", found {('a b ' * 200)[:300]}. It was" in str(error.value)
