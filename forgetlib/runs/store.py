"""Results on disk, in files that are only ever added.

    figures/<study>/results/<block>.parquet    packed and committed; what a block gets later is in
                                               <block>-2.parquet and so on
    .work/<study>/results/*.parquet            as jobs finish, a file a job; ignored by git
    .work/<study>/weights/<checkpoint>.safetensors   while another job still starts from them

A file has one row a measurement (see `rows`), and is complete or absent: it is written beside its
place and renamed into it. Of two rows under one key the newer one counts.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock

from forgetlib.errors import InputError
from forgetlib.files import SETTLED, StoreError, remove_left_overs, replacing, writing
from forgetlib.measuring.base import readouts
from forgetlib.runs.content import Present, changed_meanwhile
from forgetlib.runs.records import Job, Key, Record, Result
from forgetlib.runs.rows import RecordFile, write_records
from forgetlib.runs.specs import Checkpoint, Measurement


class Store:
    """Keep the results of one study: those that were packed, and those in the work folder.

    packed: the folder of packs; also another study's, whose records count too
    present: what names stand for now. A record of another content counts as none, though it stays
        where it is; None: every record counts
    """

    def __init__(self, packed: Path, work: Path, present: Present | None = None) -> None:
        self.packed = packed
        self.work = work
        self.present = present
        self._files: dict[str, RecordFile] = {}
        self._looked: tuple[int, ...] = ()
        self._places: dict[Key, list[tuple[RecordFile, int]]] = {}  # the newest first

    @property
    def _worked(self) -> Path:
        return self.work / "results"

    def weights_path(self, checkpoint_id: str) -> Path:
        """Name the file of a checkpoint's weights."""
        return self.work / "weights" / f"{checkpoint_id}.safetensors"

    def lock_path(self, name: str) -> Path:
        """Name the file of a lock, in a folder that is there."""
        path = self.work / "locks" / f"{name}.lock"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def lock(self, name: str, timeout: float = 0) -> AcquireReturnProxy:
        """Take the lock of a job, or another of that name, to be held in a with block.

        Raises filelock.Timeout where another process has it; a negative timeout waits for it.
        """
        path = self.lock_path(name)
        with writing(path):
            return FileLock(path).acquire(timeout)

    # --- reading

    def _look(self) -> None:
        """Take in files that came since the last look, and forget those that went."""
        folders = [folder for folder in (self.packed, self._worked) if folder.is_dir()]
        stamps = tuple(folder.stat().st_mtime_ns for folder in folders)
        settled = all(time.time_ns() - stamp > SETTLED for stamp in stamps)
        if settled and stamps == self._looked:
            return
        # As texts: what has just been written to is listed at every look, and paths take long.
        there = (entry.path for folder in folders for entry in os.scandir(folder))
        listed = sorted(path for path in there if path.endswith(".parquet"))
        self._looked = stamps
        if listed == list(self._files):
            return
        self._files = {p: self._files.get(p) or RecordFile(Path(p)) for p in listed}
        places: dict[Key, list[tuple[RecordFile, int]]] = {}
        for file in self._files.values():
            for row, key in enumerate(file.keys):
                places.setdefault(key, []).append((file, row))
        for found in places.values():
            if len(found) > 1:
                found.sort(key=self._newness, reverse=True)
        self._places = places

    def _newness(self, place: tuple[RecordFile, int]) -> tuple[str, bool, Path]:
        file, row = place
        date = str(file.provenances[row].get("date", ""))
        return date, file.path.parent == self.packed, file.path

    def _differs(self, file: RecordFile, row: int) -> tuple[str, ...]:
        provenance = file.provenances[row]
        if self.present is None or "content" not in provenance or not file.is_known(row):
            return ()
        return self.present.differs(*file.source(row), provenance)

    def _place(self, key: Key) -> tuple[RecordFile, int] | None:
        """Find the newest record of the present content under a key; None where there is none."""
        self._look()
        return self._found(key)

    def _found(self, key: Key) -> tuple[RecordFile, int] | None:
        for file, row in self._places.get(key, ()):
            if not self._differs(file, row):
                return file, row
        return None

    def __contains__(self, key: Key) -> bool:
        return self._place(key) is not None

    def has(self, job: Job) -> bool:
        """Tell whether all that a job measures is stored."""
        self._look()
        return all(self._found(key) is not None for key in job.keys)

    def missing(self, job: Job) -> tuple[Measurement, ...]:
        """Tell what of a job is not stored."""
        return tuple(
            m for m, key in zip(job.measurements, job.keys, strict=True) if key not in self
        )

    def keys(self) -> set[Key]:
        """List the keys of all that is stored, of any content."""
        self._look()
        return set(self._places)

    def sources(self) -> list[tuple[Checkpoint, Measurement, Mapping[str, Any]]]:
        """Read what each record of the present content is of, and no number.

        Those of a later version, with fields that are not known here, are left out.
        """
        places = filter(None, map(self._found, sorted(self.keys())))
        return [
            (*file.source(row), file.provenances[row]) for file, row in places if file.is_known(row)
        ]

    def outdated(self, jobs: Iterable[Job]) -> dict[str, tuple[str, ...]]:
        """Name by job what differs from the present content, of those stored of another alone."""
        self._look()
        found = {}
        for job in jobs:
            differs: dict[str, None] = {}
            for key in job.keys:
                stored = [self._differs(*place) for place in self._places.get(key, ())]
                if stored and () not in stored:
                    differs |= dict.fromkeys(stored[0])
            if differs:
                found[job.id] = tuple(differs)
        return found

    def read(self, checkpoint: Checkpoint, measurement: Measurement) -> Record:
        """Read a record, the newest as of the last look; StoreError where there is none.

        To look again for each of thousands would take longer than to read them: ask `has` before.
        """
        key = checkpoint.id, measurement.id
        place = self._found(key) or self._place(key)
        if place is None:
            changed = [d for p in self._places.get(key, ()) for d in self._differs(*p)]
            if not changed:
                raise StoreError(
                    f"{measurement} of {checkpoint}",
                    expected=f"what was stored in {self._worked} or {self.packed}",
                    found="nothing",
                    do="It was deleted meanwhile: start again, and it is computed again.",
                )
            raise changed_meanwhile(f"{measurement} of {checkpoint}", changed)
        file, row = place
        name = measurement.readout
        # Read when it is asked for: not all that is stored is.
        return Record(checkpoint, measurement, lambda: file.value(row, name), file.provenances[row])

    def result(self, job: Job) -> Result:
        """Read all that a job measured."""
        records = (self.read(job.checkpoint, m) for m in job.measurements)
        return Result(job.checkpoint, job.seed, tuple(records))

    # --- writing

    def write(self, records: Sequence[Record]) -> None:
        """Store a job's records, whose lock the caller has where other processes may do it too."""
        if not records:
            return
        if self.present is not None:
            for r in records:
                if differs := self.present.differs(r.checkpoint, r.measurement, r.provenance):
                    raise changed_meanwhile(f"a result of {r.checkpoint}", differs)
        checkpoint_id = records[0].checkpoint.id
        # Several jobs may ask one checkpoint, as the base model, each under a lock of its own.
        with self.lock(f"{checkpoint_id}.results", timeout=-1):
            remove_left_overs(self._worked, checkpoint_id)
            write_records(records, _free(self._worked, f"{checkpoint_id}-{time.time_ns():x}"))

    def pack(self, blocks: Mapping[str, Collection[Key]]) -> list[Path]:
        """Add to the packs what is stored of these blocks and not packed yet; return new files.

        blocks: by the name of a block, what belongs to it
        """
        new = []
        with self.lock("pack", timeout=-1):
            for name, keys in blocks.items():
                # The newest records, but for those that are packed already.
                records = []
                for file, row in filter(None, map(self._place, keys)):
                    if not file.is_known(row):
                        continue
                    checkpoint, measurement = file.source(row)
                    if file.path.parent != self.packed and measurement.readout in readouts():
                        records.append(self.read(checkpoint, measurement))
                if records:
                    path = _free(self.packed, name)
                    remove_left_overs(self.packed, path.name)
                    write_records(records, path)
                    new.append(path)
        return new

    def is_packed(self, keys: Iterable[Key]) -> bool:
        """Tell whether all of these are in packs, of the present content."""
        places = map(self._place, keys)
        return all(place is not None and place[0].path.parent == self.packed for place in places)

    def save_weights(self, checkpoint_id: str, save: Callable[[Path], None]) -> None:
        """Keep the weights that save(path) writes, until `drop_weights`."""
        path = self.weights_path(checkpoint_id)
        with self.lock(f"{checkpoint_id}.weights", timeout=-1):
            remove_left_overs(path.parent, path.name)
            with replacing(path) as partial:
                save(partial)

    def drop_weights(self, checkpoint_id: str) -> None:
        """Delete a checkpoint's weights, where they are kept."""
        path = self.weights_path(checkpoint_id)
        with writing(path):
            path.unlink(missing_ok=True)


def _free(folder: Path, block: str) -> Path:
    """Name the next pack of a block: a file that is there is never written again."""
    if not re.fullmatch(r"[\w.+:-]+", block):
        raise InputError(
            "block of results",
            expected="letters, digits and _.+:-",
            found=repr(block),
            do="Name it otherwise.",
        )
    k, path = 1, folder / f"{block}.parquet"
    while path.exists():
        k += 1
        path = folder / f"{block}-{k}.parquet"
    return path
