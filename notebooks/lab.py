"""Copy the notebooks to lab/, where they are opened, run and edited: `make lab` calls it.

    python notebooks/lab.py notebooks lab

The committed ones stay as they are, as Jupyter writes a notebook anew when it is opened. A copy
follows the committed notebook until one of its cells is edited; then it is its reader's.
"""

import json
import shutil
import sys
from pathlib import Path


def cells(path: Path) -> list[tuple[str, str]]:
    """Return the kind and the text of each cell: what an edit changes, and running does not."""
    content = json.loads(path.read_text())
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def refresh(notebooks: Path, lab: Path) -> str:
    """Copy what is new or has changed, and say which copies are kept since they were edited."""
    taken = lab / ".committed"  # as each was when it was copied
    taken.mkdir(parents=True, exist_ok=True)
    kept = []
    for committed in sorted(notebooks.rglob("*.ipynb")):
        name = committed.relative_to(notebooks)
        if ".ipynb_checkpoints" in name.parts:
            continue
        copy, as_copied = lab / name, taken / name
        if copy.exists() and as_copied.exists():
            if committed.read_bytes() == as_copied.read_bytes():
                continue
            if cells(copy) != cells(as_copied):
                kept.append(str(name))
                continue
        elif copy.exists():  # nobody knows what it was copied from
            kept.append(str(name))
            continue
        for place in (copy, as_copied):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(committed, place)
    said = f"lab: copies of {notebooks}/ are in {lab}/, which git ignores"
    if kept:
        said += f"; kept, as you edited them, though newer ones are there: {', '.join(kept)}. "
        said += "Delete a copy to have the new one"
    return said


if __name__ == "__main__":
    print(refresh(*map(Path, sys.argv[1:])), flush=True)
