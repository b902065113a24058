"""Results on disk: one Parquet row a run, in one file a run while working, in one file to share.

    figures/<study>/results.parquet   packed, committed, read-only
    .work/<study>/runs/<run_id>.parquet   as runs finish; ignored by git
    .work/<study>/weights/<run_id>.safetensors   while another run still starts from them

A record is complete or absent: it is written beside its place and renamed into it. Pages carry
checksums, and the run's id is computed again from its spec, so that a damaged record is an error
that names the file, never a number.
"""

from __future__ import annotations

import glob
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import AcquireReturnProxy, FileLock, Timeout

from forgetlib.schema import Dynamics, ForgetlibError, ProbeResult, RunResult, RunSpec, Scores

if TYPE_CHECKING:
    from forgetlib.content import Present

FORMAT = 2  # raise when a column changes its meaning
MOST = 1e-4  # nats that the logarithm of a probability may be above 0, by rounding

_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("spec", pa.string()),
        ("provenance", pa.string()),
        ("train_loss", pa.list_(pa.float32())),
        (
            "scores",
            pa.list_(
                pa.struct(
                    [
                        ("where", pa.string()),
                        ("uids", pa.list_(pa.string())),
                        ("labels", pa.list_(pa.int8())),
                        ("log_likelihoods", pa.list_(pa.list_(pa.float32()))),
                        ("n_tokens", pa.list_(pa.list_(pa.int32()))),
                    ]
                )
            ),
        ),
        (
            "dynamics",
            pa.struct(
                [
                    ("steps", pa.list_(pa.int32())),
                    ("uids", pa.list_(pa.string())),
                    ("confidence", pa.list_(pa.list_(pa.float32()))),
                ]
            ),
        ),
        (
            "probe",
            pa.struct(
                [
                    ("layers", pa.list_(pa.int16())),
                    ("correct", pa.list_(pa.list_(pa.list_(pa.bool_())))),
                    ("control", pa.list_(pa.list_(pa.float32()))),
                    ("variance_layer", pa.int16()),
                    ("deviation", pa.list_(pa.float32())),
                ]
            ),
        ),
    ],
    metadata={"forgetlib_format": str(FORMAT)},
)


class StoreError(ForgetlibError, RuntimeError):
    """A record cannot be read or written."""


# --- one record ----------------------------------------------------------------------------------


def _to_row(result: RunResult) -> dict[str, Any]:
    dynamics, probe = result.dynamics, result.probe
    return {
        "run_id": result.spec.run_id,
        "spec": json.dumps(result.spec.to_dict(), sort_keys=True),
        "provenance": json.dumps(dict(result.provenance), sort_keys=True),
        "train_loss": result.train_loss.tolist(),
        "scores": [
            {
                "where": where,
                "uids": list(scores.uids),
                "labels": scores.labels.tolist(),
                "log_likelihoods": scores.log_likelihoods.tolist(),
                "n_tokens": scores.n_tokens.tolist(),
            }
            for where, scores in sorted(result.scores.items())
        ],
        "dynamics": None
        if dynamics is None
        else {
            "steps": dynamics.steps.tolist(),
            "uids": list(dynamics.uids),
            "confidence": dynamics.confidence.tolist(),
        },
        "probe": None
        if probe is None
        else {
            "layers": probe.layers.tolist(),
            "correct": probe.correct.tolist(),
            "control": probe.control.tolist(),
            "variance_layer": probe.variance_layer,
            "deviation": probe.deviation.tolist(),
        },
    }


def _array(values: pa.Array, dtype: type) -> np.ndarray:
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


def _from_row(row: dict[str, pa.Scalar]) -> RunResult:
    spec = RunSpec.from_dict(json.loads(row["spec"].as_py()))
    if spec.run_id != row["run_id"].as_py():
        raise ValueError(f"run_id {row['run_id']} of a spec that hashes to {spec.run_id}")
    dynamics, probe = row["dynamics"], row["probe"]
    return RunResult(
        spec,
        {
            s["where"].as_py(): Scores(
                tuple(s["uids"].as_py()),
                _array(s["log_likelihoods"].values, np.float32),
                _array(s["n_tokens"].values, np.int32),
                _array(s["labels"].values, np.int64),
            )
            for s in row["scores"]
        },
        _array(row["train_loss"].values, np.float32),
        None
        if not dynamics.is_valid
        else Dynamics(
            _array(dynamics["steps"].values, np.int32),
            tuple(dynamics["uids"].as_py()),
            _array(dynamics["confidence"].values, np.float32),
        ),
        None
        if not probe.is_valid
        else ProbeResult(
            _array(probe["layers"].values, np.int16),
            _array(probe["correct"].values, bool),
            _array(probe["control"].values, np.float32),
            probe["variance_layer"].as_py(),
            _array(probe["deviation"].values, np.float32),
        ),
        json.loads(row["provenance"].as_py()),
    )


def write_records(results: Iterable[RunResult], path: Path) -> None:
    """Write results to one Parquet file, which appears complete or not at all."""
    try:
        rows = [_to_row(r) for r in sorted(results, key=lambda r: r.spec.run_id)]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise StoreError(
            f"writing {path}",
            expected="texts in UTF-8, and a provenance that JSON can hold",
            found=f"{type(error).__name__}: {error}",
            do="Correct the result.",
        ) from error
    with replacing(path) as partial:
        pq.write_table(
            table, partial, compression="zstd", compression_level=9, write_page_checksum=True
        )


def read_records(path: Path, run_id: str | None = None) -> list[RunResult]:
    """Read what `write_records` wrote. Raises StoreError for a damaged or foreign file.

    run_id: of the one run that the file has to hold
    """
    with _reading(path) as file:
        table = file.read()
        columns = [table[name] for name in table.column_names]
        rows = zip(*columns, strict=True)
        results = [_from_row(dict(zip(table.column_names, row, strict=True))) for row in rows]
        if run_id is not None and [r.spec.run_id for r in results] != [run_id]:
            raise ValueError(f"runs {[r.spec.run_id for r in results]}")
    _warn_of_impossible(results, path)
    return results


def _read_origins(path: Path) -> list[tuple[RunSpec, Mapping[str, Any]]]:
    """Read the specs and the provenances of the runs that a file holds, and no number."""
    with _reading(path) as file:
        rows = file.read(["spec", "provenance"]).to_pylist()
        return [
            (RunSpec.from_dict(json.loads(row["spec"])), json.loads(row["provenance"]))
            for row in rows
        ]


_warned: set[Path] = set()  # files of which this process has said that they hold such values


def _warn_of_impossible(results: Iterable[RunResult], path: Path) -> None:
    """Say once of a file that it holds log-likelihoods above 0, which no probability has."""
    values = [s.log_likelihoods.ravel() for r in results for s in r.scores.values()]
    every = np.concatenate(values) if values else np.zeros(0)
    above = every[every > MOST]
    if not len(above) or (place := path.resolve()) in _warned:
        return
    _warned.add(place)
    warnings.warn_explicit(
        f"{len(above)} of {len(every)} log-likelihoods are above 0, the largest "
        f"{above.max():.2f}: an earlier version computed them, which in bf16 rounded a token's "
        "logit otherwise than the sum over the vocabulary. They are read as they are stored.",
        UserWarning,
        "/".join(path.parts[-3:]),  # in the place of a source file: the same on every machine
        0,
    )


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a results file; what is wrong with it, also in the block, becomes a StoreError."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        found = (file.schema_arrow.metadata or {}).get(b"forgetlib_format", b"none").decode()
        if found != str(FORMAT):
            raise ValueError(f"format {found}")
        types = {f.name: f.type for f in file.schema_arrow}
        if other := [f.name for f in _SCHEMA if types.get(f.name) != f.type]:
            raise ValueError(f"{', '.join(other)} missing or of another type")
        yield file
    except FileNotFoundError as error:
        raise StoreError(
            f"results file {path}",
            expected="what was there a moment ago",
            found="no such file",
            do="It was deleted meanwhile: start again, and what it held is computed again.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise StoreError(
            f"results file {path}",
            expected=f"a complete record of format {FORMAT}",
            found=" ".join(str(error).split())[:300],
            do="It was damaged or written by another version: delete it, and what it held is "
            "computed again.",
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses inside the block into an error that says what to do."""
    try:
        yield
    except Timeout:  # of a lock, which another process has
        raise
    except OSError as error:
        raise StoreError(
            f"writing {path}",
            expected="a folder that can be written, with space left",
            found=str(error),
            do="Free space or change the permissions, and start again: finished runs are kept.",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which takes its place if the block succeeds."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())  # renamed only when its content is on the disk
            partial.chmod(0o644)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _remove_left_overs(path: Path) -> None:
    """Remove the temporary paths beside `path` of killed processes: no other has its lock."""
    with writing(path):
        for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
            partial.unlink(missing_ok=True)


# --- one study -----------------------------------------------------------------------------------


class Store:
    """The results of one study: those that were packed, and those in the work folder.

    present: what names stand for now. A record of another content counts as none, though it stays
        until its run is computed anew; None: every record counts
    """

    def __init__(self, packed: Path, work: Path, present: Present | None = None) -> None:
        self.packed = packed
        self.work = work
        self.present = present
        self._packed_results: dict[str, RunResult] | None = None
        self._origins: dict[Path, tuple[list[int], tuple[RunSpec, Mapping[str, Any]]]] = {}

    def _record(self, run_id: str) -> Path:
        return self.work / "runs" / f"{run_id}.parquet"

    def weights_path(self, run_id: str) -> Path:
        return self.work / "weights" / f"{run_id}.safetensors"

    def lock_path(self, run_id: str) -> Path:
        path = self.work / "locks" / f"{run_id}.lock"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def lock(self, name: str, timeout: float = 0) -> AcquireReturnProxy:
        """Take the lock of a run, or another of that name, to be held in a with block.

        Raises filelock.Timeout where another process has it; a negative timeout waits for it.
        """
        path = self.lock_path(name)
        with writing(path):
            return FileLock(path).acquire(timeout)

    def _from_pack(self) -> dict[str, RunResult]:
        if self._packed_results is None:
            records = read_records(self.packed) if self.packed.exists() else []
            self._packed_results = {r.spec.run_id: r for r in records}
        return self._packed_results

    def _differs(self, spec: RunSpec, provenance: Mapping[str, Any]) -> tuple[str, ...]:
        return () if self.present is None else self.present.differs(spec, provenance)

    def _packed_differs(self, run_id: str) -> tuple[str, ...] | None:
        """Name what of a packed run's content is not the present one; None: it is not packed."""
        result = self._from_pack().get(run_id)
        return None if result is None else self._differs(result.spec, result.provenance)

    def _worked_differs(self, run_id: str) -> tuple[str, ...] | None:
        """Name what of the content of a run in the work folder is not the present one; or None.

        Its origin is read once, as long as the file stays the same.
        """
        path = self._record(run_id)
        if self.present is None:
            return () if path.exists() else None
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        stamp = [found.st_ino, found.st_size, found.st_mtime_ns]
        if path not in self._origins or self._origins[path][0] != stamp:
            (origin,) = _read_origins(path)
            self._origins[path] = stamp, origin
        return self._differs(*self._origins[path][1])

    def __contains__(self, run_id: str) -> bool:
        return self._packed_differs(run_id) == () or self._worked_differs(run_id) == ()

    def outdated(self, run_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Name by run what differs from the present content, of those stored of another alone."""
        found = {}
        for run_id in run_ids:
            both = self._packed_differs(run_id), self._worked_differs(run_id)
            if () not in both and (differs := both[0] or both[1]):
                found[run_id] = differs
        return found

    def provenances(self, run_ids: Iterable[str]) -> list[Mapping[str, Any]]:
        """Read the provenances of those of these runs that are stored, and no number.

        A figure that asks for them is not to wait for all scores.
        """
        wanted = dict.fromkeys(run_ids)
        found = {}
        for path in (*map(self._record, wanted), self.packed):  # the pack comes first in `read`
            for spec, provenance in _read_origins(path) if path.exists() else ():
                if spec.run_id in wanted and not self._differs(spec, provenance):
                    found[spec.run_id] = provenance
        return list(found.values())

    def is_packed(self, run_ids: Iterable[str]) -> bool:
        return all(self._packed_differs(i) == () for i in run_ids)

    def read(self, run_id: str) -> RunResult:
        if self._packed_differs(run_id) == ():
            return self._from_pack()[run_id]
        (result,) = read_records(self._record(run_id), run_id)
        self._require_present(result)
        return result

    def _require_present(self, result: RunResult) -> None:
        if differs := self._differs(result.spec, result.provenance):
            raise StoreError(
                f"result of run {result.spec.run_id}",
                expected="the content that the study began with",
                found=f"another: {', '.join(differs)}",
                do="It was changed meanwhile, or is another one on another node: start again, and "
                "what is stored of another content is computed anew.",
            )

    def write(self, result: RunResult) -> None:
        """Store a run, whose lock the caller has where other processes may do it too."""
        self._require_present(result)
        path = self._record(result.spec.run_id)
        _remove_left_overs(path)
        write_records([result], path)

    def others(self, run_ids: Iterable[str]) -> set[str]:
        """Find the stored runs that are not among `run_ids`: left by a study that has changed."""
        stored = {p.stem for p in (self.work / "runs").glob("*.parquet")} | set(self._from_pack())
        return stored - set(run_ids)

    def pack(self, run_ids: Iterable[str]) -> Path:
        """Write these runs, and those packed already, to the packed file.

        Of a run that is packed of another content than the present one, the new record is left.
        """
        with self.lock("pack", timeout=-1):
            packed = self._from_pack()
            self._packed_results = None  # another process may have packed others meanwhile
            packed = self._packed_results = packed | self._from_pack()
            _remove_left_overs(self.packed)
            new = {i: self.read(i) for i in run_ids if self._packed_differs(i) != ()}
            write_records((packed | new).values(), self.packed)
            self._packed_results = None
        return self.packed

    def save_weights(self, run_id: str, save: Callable[[Path], None]) -> None:
        """Keep the weights that save(path) writes, until `drop_weights`."""
        path = self.weights_path(run_id)
        with self.lock(f"{run_id}.weights", timeout=-1):
            _remove_left_overs(path)
            with replacing(path) as partial:
                save(partial)

    def drop_weights(self, run_id: str) -> None:
        path = self.weights_path(run_id)
        with writing(path):
            path.unlink(missing_ok=True)
