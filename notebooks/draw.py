"""Draw a study's figures: execute notebooks with the study's name in their cell of parameters.

    python notebooks/draw.py tiny .work/tiny/notebooks notebooks/fig2_forget_gap.ipynb

The executed copies are written into the folder. Several notebooks are executed side by side, each
in a kernel of its own, by one process: importing papermill takes longer than some figures.

papermill writes the name, and nbclient executes. papermill could do both, but asks its kernel a
question after the last cell, and interrupts it where it has not quite ended its answer: on a busy
machine the kernel then reports an error, of a figure that is drawn.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from traitlets.config import Config

LONGEST = 70  # characters of a folder below which a socket's path is not too long for the system


def short_folder() -> str:
    """Choose where temporary files are put, but for a place whose sockets had too long a name."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= LONGEST else "/tmp"


async def draw(study: str, notebook: Path, executed: Path) -> None:
    """Execute a notebook in this process's folder, and write it as far as it came."""
    papermill.execute_notebook(
        notebook, executed, {"study": study}, prepare_only=True, progress_bar=False
    )
    content = nbformat.read(executed, 4)
    # Files in place of ports, which others on this machine could listen at.
    with tempfile.TemporaryDirectory(dir=short_folder()) as folder:
        config = Config(KernelManager={"transport": "ipc", "ip": str(Path(folder) / "kernel")})
        try:
            await NotebookClient(content, config=config).async_execute()
        finally:
            nbformat.write(content, executed)


async def draw_all(study: str, folder: Path, notebooks: list[Path], jobs: int) -> list[str]:
    """Execute notebooks, `jobs` at a time; give the errors of those that have failed."""
    free = asyncio.Semaphore(jobs)

    async def one(notebook: Path) -> str | None:
        async with free:
            print(f"{notebook.stem.split('_')[0]}: {notebook}", flush=True)
            try:
                await draw(study, notebook, folder / notebook.name)
            except (CellExecutionError, DeadKernelError) as error:
                return f"{notebook}: {error}"
        return None

    return [error for error in await asyncio.gather(*map(one, notebooks)) if error]


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description="Execute notebooks with a study's name.")
    parser.add_argument("study", help="the name of a study, or a file that defines one")
    parser.add_argument("folder", type=Path, help="where the executed notebooks are written")
    parser.add_argument("notebooks", type=Path, nargs="+")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at the same time (1)")
    given = parser.parse_args()
    study = given.study
    if study.endswith(".py"):  # a file of one's own, wherever the notebook is executed
        study = str(Path(study).resolve())
    given.folder.mkdir(parents=True, exist_ok=True)
    if errors := asyncio.run(draw_all(study, given.folder, given.notebooks, given.jobs)):
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    main()
