"""The notebooks' rules (they are compared with their stored outputs by nbval, in `make test`)."""

import ast
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

import forgetlib
from forgetlib import experiment

ROOT = Path(forgetlib.__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = [p for p in NOTEBOOKS if p.name.startswith("fig") or p.stem == "claims"]


def cells(path, kind="code"):
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def saved(path):
    """Names of the figures that a notebook saves: the third argument of `plots.save`."""
    calls = [
        node
        for cell in cells(path)
        for node in ast.walk(ast.parse(cell.source.replace("%matplotlib", "# ")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "plots.save"
    ]
    return [ast.literal_eval(call.args[2]) for call in calls]


def parameters(path):
    (cell,) = [c for c in cells(path) if "parameters" in c.metadata.get("tags", [])]
    return cell


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestEveryNotebook:
    def test_is_short_and_tells_claim_cost_and_what_to_change(self, path):
        text = [c.source for c in cells(path, "markdown")]
        assert text[0].startswith("# ")
        assert "minutes" in text[0] or "seconds" in text[0]
        assert text[-1].startswith("## Change it")
        assert 12 <= len(nbformat.read(path, 4).cells) <= 20
        assert all(len(c.source.splitlines()) <= 15 for c in cells(path))

    def test_has_one_cell_of_flat_commented_parameters(self, path):
        for line in parameters(path).source.splitlines():
            assert re.fullmatch(r"\w+ = .+  # .+", line), line
        for statement in ast.parse(parameters(path).source).body:
            assert isinstance(statement, ast.Assign)
            ast.literal_eval(statement.value)

    def test_holds_no_science(self, path):
        for cell in cells(path):
            lines = [x for x in cell.source.splitlines() if not x.startswith("%")]
            tree = ast.parse("\n".join(lines))
            kinds = {type(n) for n in ast.walk(tree)}
            assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.Lambda}
            called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
            assert not {c for c in called if "seed" in c or c in ("open", "Path", "exec", "eval")}

    def test_was_executed_from_top_to_bottom_without_error(self, path):
        counts = [c.execution_count for c in cells(path)]
        assert counts == list(range(1, len(counts) + 1))
        outputs = [o for c in cells(path) for o in c.outputs]
        assert not [o for o in outputs if o.output_type == "error"]

    def test_carries_no_times_and_no_paths_of_a_machine(self, path):
        notebook = nbformat.read(path, 4)
        assert set(notebook.metadata) <= {"kernelspec", "language_info"}
        assert all(set(c.metadata) <= {"tags"} for c in notebook.cells)
        text = "".join(
            str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", ""))
            for c in cells(path)
            for o in c.outputs
        )
        assert not re.search(r"(/home|/root|/tmp|/work|/Users|C:\\)", text)


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
class TestEveryFigure:
    def test_takes_a_study(self, path):
        """papermill accepts any -p without a word; what make passes must exist."""
        assert "study" in papermill.inspect_notebook(str(path))

    def test_saves_figures_of_its_own_name(self, path):
        """The first has the notebook's name; further ones begin as it does: fig4_regression."""
        names = saved(path)
        assert names[0] == path.stem
        assert {name.split("_")[0] for name in names} == {path.stem.split("_")[0]}
        assert len(set(names)) == len(names)

    def test_draws_the_tiny_study(self, path, tiny_figures):
        for ending in ("pdf", "png", "csv"):
            file = tiny_figures / "figures" / "tiny" / f"{path.stem}.{ending}"
            assert file.stat().st_size > 100
        with file.open() as lines:
            rows = list(csv.DictReader(lines))
        assert len(rows) >= 4


@pytest.fixture(scope="module")
def tiny_figures(tmp_path_factory):
    """Every figure of `tiny`, from nothing, through papermill as make does it."""
    root = tmp_path_factory.mktemp("tiny_figures")
    environment = os.environ | {"FORGETLIB_ROOT": str(root)}
    for path in FIGURES:
        subprocess.run(
            [
                *(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"),
                *("-p", "study", "tiny", path.name, str(root / path.name)),
            ],
            cwd=path.parent,
            env=environment,
            check=True,
            capture_output=True,
        )
    return root


def test_an_unknown_study_in_a_notebook_says_what_there_is(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="expected one of tiny, quick"):
        papermill.execute_notebook(
            FIGURES[0], tmp_path / "out.ipynb", {"study": "quik"}, progress_bar=False
        )


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
def test_the_committed_figure_is_drawn_from_the_committed_results(path, tmp_path, monkeypatch):
    """The CSV in the repository holds the numbers that the packed results give today."""
    study = ast.literal_eval(
        next(
            s.value
            for s in ast.parse(parameters(path).source).body
            if ast.unparse(s.targets[0]) == "study"
        )
    )
    committed = ROOT / "figures" / study
    (tmp_path / "figures" / study).mkdir(parents=True)
    packed = tmp_path / "figures" / study / "results.parquet"
    packed.symlink_to(committed / "results.parquet")
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(experiment, "compute", lambda *a, **k: pytest.fail("results are missing"))
    environment = os.environ | {"FORGETLIB_ROOT": str(tmp_path)}
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", environment)
        papermill.execute_notebook(
            path, tmp_path / "out.ipynb", {"study": study}, progress_bar=False, cwd=str(path.parent)
        )
    name = f"{path.stem}.csv"
    assert (tmp_path / "figures" / study / name).read_text() == (committed / name).read_text()
