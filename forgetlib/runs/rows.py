"""Files of records: one Parquet row a measurement, with documented columns.

A row has the ids of its checkpoint and measurement, both in words (JSON), its provenance, and one
column for the readout that it is of; `describe` lists them all. Readouts and columns that a reader
does not know are left aside, and those that a file lacks are absent.

Pages carry checksums, and ids are computed again from the words, so that a damaged record is an
error that names the file, never a number.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forgetlib.errors import LaterVersion, in_a_line
from forgetlib.files import StoreError, replacing
from forgetlib.measuring.base import ROUNDING, Column, Readout, Scores, readout, readouts
from forgetlib.runs.records import Key, Record
from forgetlib.runs.specs import Checkpoint, Measurement, hash_of_text

if TYPE_CHECKING:
    import pandas as pd


FORMAT = 3  # raise when a column changes its meaning
COLUMNS = {
    "checkpoint_id": "16 hexadecimal digits of a hash over `checkpoint`",
    "measurement_id": "16 hexadecimal digits of a hash over `measurement`",
    "checkpoint": "JSON: how the weights came about (specs.Checkpoint)",
    "measurement": "JSON: what was asked (specs.Measurement)",
    "provenance": "JSON: versions, machine, content of model and questions, seconds and date of "
    "the job, whose rows share it",
}


def describe() -> pd.DataFrame:
    """List every stored column: readout ("" for those of each row), column, type and meaning."""
    import pandas as pd

    rows = [("", name, "string", meaning) for name, meaning in COLUMNS.items()]
    for name in readouts():
        of_readout = readout(name).columns.items()
        rows += [(name, column, str(c.type), c.meaning) for column, c in of_readout]
    return pd.DataFrame(rows, columns=["readout", "column", "type", "meaning"])


def _to_row(record: Record) -> dict[str, Any]:
    value = {
        name: found.tolist() if isinstance(found, np.ndarray) else found
        for name in record.value.columns
        for found in [getattr(record.value, name)]
    }
    checkpoint_id, measurement_id = record.key
    return {
        "checkpoint_id": checkpoint_id,
        "measurement_id": measurement_id,
        "checkpoint": json.dumps(record.checkpoint.to_dict(), sort_keys=True),
        "measurement": json.dumps(record.measurement.to_dict(), sort_keys=True),
        "provenance": json.dumps(dict(record.provenance), sort_keys=True),
        record.value.name: value,
    }


def write_records(records: Iterable[Record], path: Path) -> None:
    """Write records to one Parquet file, which appears complete or not at all."""
    records = sorted(records, key=lambda r: r.key)
    kinds = {r.value.name: type(r.value) for r in records}
    schema = pa.schema(
        [(name, pa.string()) for name in COLUMNS]
        + [(name, kind.struct()) for name, kind in sorted(kinds.items())],
        metadata={"forgetlib_format": str(FORMAT)},
    )
    try:
        table = pa.Table.from_pylist([_to_row(r) for r in records], schema=schema)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise StoreError(
            f"writing {path}",
            expected="texts in UTF-8, and a provenance that JSON can hold",
            found=f"{type(error).__name__}: {error}",
            do="Correct the result.",
        ) from error
    with replacing(path) as beside:
        pq.write_table(
            table, beside, compression="zstd", compression_level=9, write_page_checksum=True
        )


def _array(values: pa.Array, dtype: np.dtype) -> np.ndarray:
    """Make an array of nested lists of equal lengths, without an object for each number."""
    shape = [len(values)]
    while pa.types.is_list(values.type):
        lengths = np.unique(values.value_lengths())
        if len(lengths) > 1 or values.null_count:
            raise ValueError(f"lists of lengths {lengths.tolist()[:5]}, where one is expected")
        shape.append(int(lengths.sum()))
        values = values.flatten()
    if values.null_count:
        raise ValueError(f"{values.null_count} values missing")
    return values.to_numpy(zero_copy_only=False).astype(dtype).reshape(shape)


def _field(stored: pa.Scalar, column: Column) -> Any:
    """Return a stored field as Python or NumPy has it."""
    if column.dtype is not None:
        return _array(stored.values, column.dtype)
    value = stored.as_py()
    return tuple(value) if isinstance(value, list) else value


@cache
def _checkpoint(text: str) -> Checkpoint:
    return Checkpoint.from_dict(json.loads(text))


@cache
def _measurement(text: str) -> Measurement:
    return Measurement.from_dict(json.loads(text))


@cache
def _is_known(checkpoint: str, measurement: str) -> bool:
    try:
        _checkpoint(checkpoint)
        _measurement(measurement)
    except LaterVersion:
        return False
    return True


@cache
def _provenance(text: str) -> Mapping[str, Any]:
    """Read a provenance. Equal ones are one object: rows of one job share it."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("a provenance that is no object")
    return found


class RecordFile:
    """Read a file of records: the keys first, and the values when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table: pa.Table | None = None
        with _reading(path) as file:
            rows = file.read(list(COLUMNS)).to_pydict()
            for kind in ("checkpoint", "measurement"):
                for words, found in set(zip(rows[kind], rows[f"{kind}_id"], strict=True)):
                    # The words are what is hashed, whatever fields a newer version has added.
                    if (hashed := hash_of_text(words)) != found:
                        raise ValueError(f"{kind}_id {found} of words that hash to {hashed}")
            self._words = list(zip(rows["checkpoint"], rows["measurement"], strict=True))
            self.keys: list[Key] = list(
                zip(rows["checkpoint_id"], rows["measurement_id"], strict=True)
            )
            self.provenances = [_provenance(text) for text in rows["provenance"]]

    def is_known(self, row: int) -> bool:
        """Tell whether this version knows every field of what a record is of."""
        with _naming(self.path):
            return _is_known(*self._words[row])

    def source(self, row: int) -> tuple[Checkpoint, Measurement]:
        """Read what a record is of."""
        checkpoint, measurement = self._words[row]
        with _naming(self.path):
            return _checkpoint(checkpoint), _measurement(measurement)

    def value(self, row: int, name: str) -> Readout:
        """Read a record's value, of the readout of this name."""
        if self._table is None:
            with _reading(self.path) as file:
                there = [known for known in readouts() if known in file.schema_arrow.names]
                for known in there:
                    _require_types(known, file.schema_arrow.field(known).type)
                self._table = file.read(there).combine_chunks()
                _warn_of_impossible(self._table, self.path)
        kind: Any = readout(name)
        with _naming(self.path):
            stored = self._table[kind.name][row]
            if not stored.is_valid:
                raise ValueError(f"no {kind.name} in row {row}")
            # Of a column that came later, the class has a default.
            columns = [(name, c) for name, c in kind.columns.items() if name in stored]
            return kind(**{name: _field(stored[name], c) for name, c in columns})


def _require_types(name: str, stored: pa.DataType) -> None:
    """Raise ValueError unless a readout's columns are stored as it says."""
    if not pa.types.is_struct(stored):
        raise ValueError(f"{name} of type {stored}")
    columns = readout(name).columns
    for field in stored:
        if field.name in columns and field.type != columns[field.name].type:
            raise ValueError(f"{name}.{field.name} of type {field.type}")


def is_pack(path: Path) -> bool:
    """Tell whether a Parquet file holds records, of whatever format; a damaged one may have."""
    try:
        about = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return True  # whoever reads it says what is wrong
    return b"forgetlib_format" in about


def read_records(path: Path) -> list[Record]:
    """Read what `write_records` wrote. Raises StoreError for a damaged or foreign file.

    What a later version added is left out: readouts, and records with fields not known here.
    """
    file = RecordFile(path)
    found = []
    for row, provenance in enumerate(file.provenances):
        if not file.is_known(row):
            continue
        checkpoint, measurement = file.source(row)
        if measurement.readout in readouts():
            value = file.value(row, measurement.readout)
            found.append(Record(checkpoint, measurement, value, provenance))
    return found


_warned: set[Path] = set()  # folders of which this process has said it


def _warn_of_impossible(table: pa.Table, path: Path) -> None:
    """Say once of a folder that it holds log-likelihoods above 0, which no probability has."""
    if Scores.name not in table.column_names or (place := path.resolve().parent) in _warned:
        return
    stored = table[Scores.name].combine_chunks()
    every = stored.field("log_likelihoods").flatten().flatten().to_numpy(zero_copy_only=False)
    above = every[every > ROUNDING]
    if len(above):
        _warned.add(place)
        warnings.warn_explicit(
            f"log-likelihoods above 0, as {above.max():.2f} in {path.name}: an earlier version "
            "computed them, which in bf16 rounded a token's logit otherwise than the sum over the "
            "vocabulary. They are read as they are stored.",
            UserWarning,
            "/".join(path.parts[-3:-1]),  # in place of a source file: the same on every machine
            0,
        )


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a results file; what is wrong with it, also in the block, becomes a StoreError."""
    with _naming(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        found = (file.schema_arrow.metadata or {}).get(b"forgetlib_format", b"none").decode()
        if found != str(FORMAT):
            raise ValueError(f"format {found}")
        types = {f.name: f.type for f in file.schema_arrow}
        if odd := [name for name in COLUMNS if types.get(name) != pa.string()]:
            raise ValueError(f"{', '.join(odd)} missing or of another type")
        yield file


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make what goes wrong in the block a StoreError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(
            f"results file {path}",
            expected="what was there a moment ago",
            found="no such file",
            do="It was deleted meanwhile: start again, and what it held is computed again.",
        ) from error
    except LaterVersion as error:
        raise StoreError(
            f"results file {path}",
            expected="records with fields that this version knows",
            found=str(error),
            do="It is of a later version: install that one, to read them.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise StoreError(
            f"results file {path}",
            expected=f"complete records of format {FORMAT}",
            found=in_a_line(error),
            do="It was damaged or written by another version: delete it, and what it held is "
            "computed again.",
        ) from error
