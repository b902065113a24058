"""The results of three studies were computed when a run was one row; every value came over.

The digests are those of the old files, each value in the type that it was stored in.
"""

import hashlib
import json

import numpy as np
import pytest

from forgetlib.files import PACKAGE
from forgetlib.runs.rows import read_records

STUDIES = PACKAGE.parent / "figures"
# By study: its runs, and a hash over every stored value of every run.
DIGESTS = json.loads((PACKAGE.parent / "tests/runs/carried_over.json").read_text())


def values_of(record):
    """A record's values under the names and types of the old columns, as bytes."""
    value, asked = record.value, record.measurement
    arrays = {
        name: np.array(found, object) if isinstance(found, tuple) else np.asarray(found)
        for name in value.columns
        for found in [getattr(value, name)]
    }
    for name, array in sorted(arrays.items()):
        content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
        yield f"{asked.readout} {asked.where} {name} {array.dtype} {array.shape}", content


def digest(records):
    """Hash the values and provenance of records, whatever their order."""
    lines = []
    for record in records:
        about = json.dumps(dict(record.provenance), sort_keys=True)
        for name, content in values_of(record):
            words = f"{record.checkpoint} {record.measurement.seed} {name} {about}"
            lines.append(hashlib.sha256(words.encode() + content).hexdigest())
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@pytest.mark.parametrize("study", DIGESTS)
def test_every_stored_value_came_over_to_the_bit(study):
    carried = DIGESTS[study]["records"]
    packs = sorted((STUDIES / study / "results").glob("*.parquet"))
    first = [p for p in packs if p.name in DIGESTS[study]["packs"]]
    records = [r for path in first for r in read_records(path)]
    assert len(records) == carried
    assert digest(records) == DIGESTS[study]["digest"]


def test_another_value_has_another_digest():
    (path, *_) = sorted((STUDIES / "quick/results").glob("*.parquet"))
    records = read_records(path)
    before = digest(records)
    scores = next(r.value for r in records if r.measurement.readout == "scores")
    scores.log_likelihoods[0, 0] = np.nextafter(scores.log_likelihoods[0, 0], np.float32(0))
    assert digest(records) != before
