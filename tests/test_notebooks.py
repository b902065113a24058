"""The notebooks' rules (they are compared with their stored outputs by nbval, in `make test`)."""

import ast
import csv
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import pytest

import forgetlib

ROOT = Path(forgetlib.__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = [p for p in NOTEBOOKS if not p.name.startswith("00")]


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
            functions = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
            called = {f.attr if isinstance(f, ast.Attribute) else ast.unparse(f) for f in functions}
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


def execute(commands, root):
    """Run commands in the notebooks' folder, two at a time; their completed processes."""

    def one(command):
        environment = os.environ | {"FORGETLIB_ROOT": str(root)}
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT / "notebooks",
            env=environment,
            capture_output=True,
            text=True,
        )

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, commands))


@pytest.fixture(scope="module")
def tiny_figures(tiny_root):
    """Every figure of `tiny`, drawn by make in another folder, which is the project's there."""
    (tiny_root / "notebooks").symlink_to(ROOT / "notebooks")
    names = [p.stem.split("_")[0] for p in FIGURES]
    made = {"BIN": Path(sys.executable).parent, "COMPUTED": "yes", "STUDY": "tiny"}
    command = ["make", "--file", ROOT / "Makefile", "--jobs=2", *names]
    done = subprocess.run(
        [*command, *(f"{name}={value}" for name, value in made.items())],
        cwd=tiny_root,
        env=os.environ | {"FORGETLIB_ROOT": str(tiny_root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return tiny_root


def drawn(folder, code, **environment):
    """What drawing a notebook of one more cell says; and its outputs."""
    new = nbformat.v4
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "3"}}
    given = new.new_code_cell('study = "embedded"', metadata={"tags": ["parameters"]})
    notebook = new.new_notebook(cells=[given, new.new_code_cell(code)], metadata=metadata)
    nbformat.write(notebook, folder / "in.ipynb")
    script = ROOT / "notebooks" / "draw.py"
    done = subprocess.run(
        [sys.executable, script, "tiny", "in.ipynb", "out.ipynb"],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    outputs = [o for c in nbformat.read(folder / "out.ipynb", 4).cells for o in c.outputs]
    return done, outputs


def test_a_drawn_notebook_has_the_study_and_the_folder_it_was_started_in(tmp_path):
    done, (output,) = drawn(tmp_path, "import os; print(study, os.getcwd())")
    assert (done.returncode, output["text"]) == (0, f"tiny {tmp_path}\n")


def test_a_notebook_is_drawn_where_temporary_files_have_a_long_name(tmp_path):
    """A socket's path may have some hundred characters."""
    place = tmp_path / ("long" * 25)
    place.mkdir()
    done, (output,) = drawn(tmp_path, "print(study)", TMPDIR=str(place))
    assert (done.returncode, output["text"]) == (0, "tiny\n"), done.stderr[-2000:]


# Every answer takes a second longer to be done with than to be given, as on a busy machine.
SLOW_KERNEL = """
import time
kernel = get_ipython().kernel
def slowly(name, handle):
    async def handler(*given):
        found = handle(*given)
        if hasattr(found, "__await__"):
            await found
        time.sleep(1)
    return handler
for name, handle in kernel.shell_handlers.items():
    kernel.shell_handlers[name] = slowly(name, handle)
"""


def test_a_kernel_that_has_drawn_reports_no_error_however_slow_it_is(tmp_path):
    """It says `KeyboardInterrupt caught in kernel` if it is stopped before it has finished."""
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "slow.py").write_text(SLOW_KERNEL)
    done, (output,) = drawn(tmp_path, "print(study)", IPYTHONDIR=str(tmp_path))
    assert (done.returncode, output["text"]) == (0, "tiny\n")
    assert not done.stderr


def test_a_notebook_that_fails_says_why_and_is_written_as_far_as_it_came(tmp_path):
    done, outputs = drawn(tmp_path, "print(study); import no_such_module")
    assert done.returncode == 1
    assert "No module named 'no_such_module'" in done.stderr
    assert [o.output_type for o in outputs] == ["stream", "error"]


def test_an_unknown_study_in_a_notebook_says_what_there_is(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="expected one of tiny, quick"):
        papermill.execute_notebook(
            FIGURES[0], tmp_path / "out.ipynb", {"study": "quik"}, progress_bar=False
        )


def nbval(path):
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=600"]
    return ["pytest", "-q", "-p", "no:cacheprovider", *options, path.name]


@pytest.fixture(scope="module")
def committed_figures(tmp_path_factory):
    """Every figure's notebook executed by nbval on the committed results, and nothing else."""
    root = tmp_path_factory.mktemp("committed")
    for results in ROOT.glob("figures/*/results.parquet"):
        folder = root / "figures" / results.parent.name
        folder.mkdir(parents=True)
        (folder / results.name).symlink_to(results)
    done = execute([nbval(path) for path in FIGURES], root)
    assert not (root / ".work").exists(), "results are missing: something was computed"
    return root, dict(zip(FIGURES, done, strict=True))


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: p.stem)
def test_the_committed_figure_is_drawn_from_the_committed_results(path, committed_figures):
    """The notebook prints what it printed, and its CSVs hold what they held, today as well."""
    root, done = committed_figures
    assert done[path].returncode == 0, done[path].stdout[-3000:]
    (study,) = (
        ast.literal_eval(statement.value)
        for statement in ast.parse(parameters(path).source).body
        if ast.unparse(statement.targets[0]) == "study"
    )
    for name in saved(path):
        place = f"figures/{study}/{name}.csv"
        assert (root / place).read_text() == (ROOT / place).read_text(), name


@pytest.mark.embedded
@pytest.mark.full
@pytest.mark.parametrize("path", sorted(set(NOTEBOOKS) - set(FIGURES)), ids=lambda p: p.stem)
def test_the_tour_runs_as_committed(path, tmp_path):
    (done,) = execute([nbval(path)], tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
