"""Draw a study's figure: execute a notebook with the study's name in its cell of parameters.

    python notebooks/draw.py tiny notebooks/fig2_forget_gap.ipynb .work/fig2_forget_gap.ipynb

papermill writes the name, and nbclient executes. papermill could do both, but asks its kernel a
question after the last cell, and interrupts it where it has not quite ended its answer: on a busy
machine the kernel then reports an error, of a figure that is drawn.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

LONGEST = 70  # characters of a folder below which a socket's path is not too long for the system


def short_folder() -> str:
    """Choose where temporary files are put, but for a place whose sockets had too long a name."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= LONGEST else "/tmp"


def draw(study: str, notebook: str, executed: str) -> None:
    """Execute a notebook in this process's folder, and write it as far as it came."""
    if study.endswith(".py"):  # a file of one's own, wherever the notebook is executed
        study = str(Path(study).resolve())
    papermill.execute_notebook(
        notebook, executed, {"study": study}, prepare_only=True, progress_bar=False
    )
    content = nbformat.read(executed, 4)
    # Files in place of ports, which others on this machine could listen at.
    with tempfile.TemporaryDirectory(dir=short_folder()) as folder:
        config = Config(KernelManager={"transport": "ipc", "ip": str(Path(folder) / "kernel")})
        try:
            NotebookClient(content, config=config).execute()
        finally:
            nbformat.write(content, executed)


if __name__ == "__main__":
    try:
        draw(*sys.argv[1:])
    except CellExecutionError as error:
        sys.exit(str(error))
