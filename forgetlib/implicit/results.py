"""Results of in-context regression on disk: read without torch, added and never rewritten.

    figures/<name>/results/<key>.parquet   errors, a file for each seed, alpha and other settings
    figures/<name>/shifts/<key>.parquet    the shifts of log-odds that belong to them
    figures/<name>/controls/<key>.parquet  what else would explain the same (`evaluate.controls`)
    figures/<name>/patterns/<key>.parquet  answers of real models (`obey`)

The settings and the provenance are in the files' metadata. A file is complete or absent, and the
shifts are written first, so that where there are errors there is all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from forgetlib.errors import in_a_line, require_name
from forgetlib.files import StoreError, replacing, root
from forgetlib.implicit import evaluate, pattern
from forgetlib.implicit.settings import Setting

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2  # raise when a column changes its meaning
TABLES = {
    "results": evaluate.COLUMNS,
    "shifts": evaluate.SHIFT_COLUMNS,
    "controls": evaluate.CONTROL_COLUMNS,
    "patterns": {"seed": "of the prompts and of the tuning"} | pattern.COLUMNS,
}


def folder(name: str) -> Path:
    """Name the folder of a setting's results and pictures."""
    require_name("name of the setting", name)
    return root() / "figures" / name


def path_of(setting: Setting, table: str = "results") -> Path:
    """Name the file of a setting's errors, or of another table."""
    return folder(setting.name) / table / f"{setting.key}.parquet"


def is_stored(setting: Setting) -> bool:
    """Tell whether all is there that was asked of these settings."""
    return path_of(setting).exists()


def write(
    setting: Setting, errors: pd.DataFrame, shifts: pd.DataFrame, provenance: Mapping[str, Any]
) -> None:
    """Store what was found. Raises StoreError where it is stored already."""
    if is_stored(setting):
        raise StoreError(
            f"writing {path_of(setting)}",
            expected="settings that nothing is stored of",
            found="a file that is there",
            do="What is stored stays as it is: delete it first, or change the settings.",
        )
    for name, found in (("shifts", shifts), ("results", errors)):
        put(path_of(setting, name), found, asdict(setting), provenance)


def put(
    path: Path, found: pd.DataFrame, setting: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    """Write a table, the settings and the provenance into a file of a folder of TABLES."""
    about = {
        "format": str(FORMAT),
        "setting": json.dumps(dict(setting), sort_keys=True),
        "provenance": json.dumps(dict(provenance), sort_keys=True),
    }
    table = pa.Table.from_pandas(found[list(TABLES[path.parent.name])], preserve_index=False)
    with replacing(path) as partial:
        pq.write_table(
            table.replace_schema_metadata(about),
            partial,
            compression="zstd",
            write_page_checksum=True,
        )


def read(name: str = "implicit", table: str = "results") -> pd.DataFrame:
    """Read all that is stored under a name: a table of TABLES, "results" for the errors.

    Columns are those of TABLES; `key` before them tells files apart that differ in other settings
    than seed and alpha. Raises StoreError where nothing is stored, and for a damaged or foreign
    file.
    """
    import pandas as pd

    place = folder(name) / table
    paths = sorted(place.glob("*.parquet"))
    if not paths:
        raise StoreError(
            f"results of {name!r}",
            expected=f"files in {place}",
            found="none",
            do=f"Compute them: forgetlib run {name}.",
        )
    found = [read_file(path) for path in paths]
    return pd.concat([f for f in found if len(f)] or found[:1], ignore_index=True)


def read_file(path: Path) -> pd.DataFrame:
    """Read one file of a folder of TABLES, with its `key` first; StoreError where it is damaged."""
    stored = _table(path, TABLES[path.parent.name]).to_pandas()
    stored.insert(0, "key", path.stem)
    return stored


def about(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the settings and the provenance of a file; StoreError where it is damaged."""
    metadata = _table(path, {}).schema.metadata
    return json.loads(metadata[b"setting"]), json.loads(metadata[b"provenance"])


def _table(path: Path, columns: Mapping[str, str]) -> pa.Table:
    """Read a file, and require its format and these columns."""
    try:
        found = pq.read_table(path, page_checksum_verification=True)
        metadata = found.schema.metadata or {}
        if (form := metadata.get(b"format", b"none").decode()) != str(FORMAT):
            raise ValueError(f"format {form}")
        if absent := [name for name in columns if name not in found.column_names]:
            raise ValueError(f"no {', '.join(absent)}")
        return found
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(
            f"results file {path}",
            expected=f"a complete table of format {FORMAT}",
            found=in_a_line(error),
            do="It was damaged or written by another version: delete it, and compute it again.",
        ) from error
