"""Every notebook executed: on the committed results it prints what it printed, and `tiny` is drawn.

Each process that runs tests has one kernel for all of its notebooks, as starting one and importing
takes longer than most of them. Names of one notebook are gone before the next begins.
"""

import ast
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from test_notebooks import FIGURES, ROOT, TOURS, cells, parameters, saved


@pytest.fixture(scope="module")
def kernel():
    """A client whose kernel goes on; it is started with the first notebook."""
    client = NotebookClient(
        nbformat.v4.new_notebook(),
        kernel_name="python3",
        timeout=600,
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    )
    yield client
    client.nb = nbformat.v4.new_notebook()
    client.execute()  # and stops what it has


# Pictures are drawn into files, and not once more into the notebook.
BEGIN = """%reset -f
%matplotlib inline
%config InlineBackend.figure_formats = set()
import os
os.environ["FORGETLIB_ROOT"] = {root!r}
os.environ["FORGETLIB_CACHE"] = {root!r} + "/cache"  # empty: no figure needs a task's data
del os
from matplotlib.figure import Figure
Figure.as_it_was = getattr(Figure, "as_it_was", Figure.savefig)
Figure.savefig = Figure.as_it_was if {files} else lambda self, path, **_: open(path, "w").close()
del Figure
"""


def execute(kernel, notebook, root, *, files=True):
    """Execute a notebook from top to bottom in this project folder, as in a new kernel.

    files: whether pictures are rendered, which takes a fifth of the time
    """
    kernel.nb = nbformat.from_dict(notebook)
    begin = BEGIN.format(root=str(root), files=files)
    kernel.nb.cells.insert(0, nbformat.v4.new_code_cell(begin))
    kernel.execute(cleanup_kc=False)
    return kernel.nb.cells[1:]


def said(cell):
    """What a cell prints and shows, but for pictures: of each kind, in its order."""
    found = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            found[output.name] = found.get(output.name, "") + output.text
        else:
            data = {kind: shown for kind, shown in output.data.items() if kind != "image/png"}
            found.setdefault("shown", []).append(data)
    return found


@pytest.fixture
def committed(tmp_path):
    """A project folder with the committed results and questions, and nothing else.

    They are copies, as a process says once of a folder what is odd in it.
    """
    for kind in ("results", "questions"):
        for folder in ROOT.glob(f"figures/*/{kind}"):
            shutil.copytree(folder, tmp_path / folder.relative_to(ROOT))
    return tmp_path


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
def test_the_committed_figure_is_drawn_from_the_committed_results(path, committed, kernel):
    """The notebook prints what it printed, and its CSVs hold what they held, today as well.

    Its pictures are laid out; those of `tiny`, below, are rendered.
    """
    executed = execute(kernel, nbformat.read(path, 4), committed, files=False)
    assert not (committed / ".work").exists(), "results are missing: something was computed"
    assert not (committed / "cache").exists(), "questions are missing: data were looked for"
    code = [cell for cell in executed if cell.cell_type == "code"]
    assert [said(cell) for cell in code] == [said(cell) for cell in cells(path)]
    (study,) = (
        ast.literal_eval(statement.value)
        for statement in ast.parse(parameters(path).source).body
        if ast.unparse(statement.targets[0]) == "study"
    )
    assert saved(path)
    for name in saved(path):
        place = f"figures/{study}/{name}.csv"
        assert (committed / place).read_text() == (ROOT / place).read_text(), name


EXPLORE = ROOT / "notebooks" / "explore.ipynb"


def test_exploring_the_committed_results_shows_what_it_showed(committed, kernel):
    executed = execute(kernel, nbformat.read(EXPLORE, 4), committed)
    assert not (committed / "cache").exists(), "data were looked for"
    both = zip((c for c in executed if c.cell_type == "code"), cells(EXPLORE), strict=True)
    for now, then in both:
        if "nbval-ignore-output" not in then.metadata.get("tags", []):
            assert said(now) == said(then)


def test_a_study_of_one_s_own_is_explored(tiny_root, kernel):
    """One whose questions are stored nowhere, as they are made when they are needed."""
    given = {"study": "tiny", "task": "tiny_review"}
    notebook = parameterize_notebook(load_notebook_node(str(EXPLORE)), given)
    shown = str([said(c) for c in execute(kernel, notebook, tiny_root) if c.cell_type == "code"])
    assert "studies: tiny" in shown and "true response" in shown
    assert "not stored with the results" not in shown


def assert_drawn(root, path):
    for ending in ("pdf", "png", "csv"):
        file = root / "figures" / "tiny" / f"{path.stem}.{ending}"
        assert file.stat().st_size > 100
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) >= 4


@pytest.mark.slow
def test_make_draws_figures_of_the_tiny_study(tiny_root):
    """Two at a time, in another folder, which is the project's there; the others: test_make."""
    (tiny_root / "notebooks").symlink_to(ROOT / "notebooks")
    names = ("fig2_forget_gap", "fig2b_skill")
    made = {"BIN": Path(sys.executable).parent, "READ": "", "STUDY": "tiny"}
    made |= {"STUDY_NAME": "tiny", "STUDY_NOTEBOOKS": "notebooks", "JOBS": 2}
    made["FIGURES"] = " ".join(f"notebooks/{name}.ipynb" for name in names)
    done = subprocess.run(
        ["make", "--file", ROOT / "Makefile", "figures"]
        + [f"{name}={value}" for name, value in made.items()],
        cwd=tiny_root,
        env=os.environ | {"FORGETLIB_ROOT": str(tiny_root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "fig2b: notebooks/fig2b_skill.ipynb" in done.stdout
    for name in names:
        assert_drawn(tiny_root, ROOT / "notebooks" / name)


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
def test_the_tiny_study_is_drawn(path, tiny_root, kernel):
    for file in (tiny_root / "figures" / "tiny").glob(f"{path.stem}.*"):
        file.unlink()
    notebook = parameterize_notebook(load_notebook_node(str(path)), {"study": "tiny"})
    execute(kernel, notebook, tiny_root)
    assert_drawn(tiny_root, path)


SMALL = {  # in seconds: the same notebooks with the model of two random layers
    "00_quickstart": {"model": "tiny", "tasks": ["tiny_review", "tiny_city"], "n_train": 40},
    "add_a_method": {"model": "tiny", "task": "tiny_review", "other": "tiny_city", "n_train": 40},
}


@pytest.mark.parametrize("name", SMALL)
def test_the_tour_runs_with_the_tiny_model(name, tmp_path, kernel):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = parameterize_notebook(load_notebook_node(str(path)), SMALL[name] | {"n_eval": 20})
    executed = execute(kernel, notebook, tmp_path)
    shown = [said(c) for c in executed if "finding" in c.metadata.get("tags", [])]
    assert "AUROC on new questions goes in tiny_review from" in shown[0]["stdout"]
    assert "forgetting set" in shown[0]["shown"][0]["text/plain"]
    steps = str([said(c) for c in executed if c.cell_type == "code"])
    assert "random labels: 10 steps" in steps


@pytest.mark.embedded
@pytest.mark.full
@pytest.mark.parametrize("name", sorted(set(TOURS) - {"explore"}))
def test_the_tour_runs_as_committed(name, tmp_path):
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=600"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, f"{name}.ipynb"],
        cwd=ROOT / "notebooks",
        env=os.environ | {"FORGETLIB_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
