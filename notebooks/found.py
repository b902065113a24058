"""Write what a notebook found into its first cell, once it is executed: `make notebooks` calls it.

    python notebooks/found.py notebooks/fig2_forget_gap.ipynb ...

The sentence is the first paragraph that the cell with the tag "finding" prints. What widgets leave
of themselves is taken out: they are of a kernel that is gone, and each execution names them anew.
"""

import re
import sys
from pathlib import Path

import nbformat

FOUND = "**Found:** "
WIDGET = "application/vnd.jupyter.widget-view+json"


def finding(notebook: nbformat.NotebookNode) -> str | None:
    """Return the sentence that a notebook states, of its outputs; None where it states none."""
    tagged = [c for c in notebook.cells if "finding" in c.metadata.get("tags", [])]
    printed = [o.text for c in tagged for o in c.outputs if o.get("name") == "stdout"]
    return " ".join(printed[0].split("\n\n")[0].split()) if printed else None


def state(path: Path) -> None:
    """Rewrite a notebook's first cell and widgets' outputs."""
    notebook = nbformat.read(path, 4)
    said, first = finding(notebook), notebook.cells[0]
    if said:
        title, _, rest = first.source.partition("\n")
        rest = re.sub(rf"^{re.escape(FOUND)}.*\n+", "", rest.lstrip("\n"))
        first.source = f"{title}\n\n{FOUND}{said.removesuffix('.')}.\n\n{rest}"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
            output.get("metadata", {}).pop(WIDGET, None)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        state(Path(name))
