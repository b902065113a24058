"""The notebooks' rules, and how one is drawn; test_executed executes them."""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

import forgetlib

ROOT = Path(forgetlib.__file__).parent.parent
found = runpy.run_path(str(ROOT / "notebooks" / "found.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TOURS = ("00_quickstart", "add_a_method", "explore")  # which draw no figure of the paper
FIGURES = [p for p in NOTEBOOKS if p.stem not in TOURS]


def cells(path, kind="code"):
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def saved(path):
    """Names of the figures that a notebook saves: the third argument of `style.save`."""
    calls = [
        node
        for cell in cells(path)
        for node in ast.walk(ast.parse(re.sub("^%", "# ", cell.source, flags=re.M)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "style.save"
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
        lines = [[x for x in c.source.splitlines() if x] for c in cells(path)]
        assert all(len(of_cell) <= 15 for of_cell in lines)

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
            if "method" not in cell.metadata.get("tags", []):  # which a student writes
                assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.Lambda}
            functions = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
            called = {f.attr if isinstance(f, ast.Attribute) else ast.unparse(f) for f in functions}
            assert not {c for c in called if "seed" in c or c in ("open", "Path", "exec", "eval")}

    def test_was_executed_from_top_to_bottom_without_error(self, path):
        counts = [c.execution_count for c in cells(path)]
        assert counts == list(range(1, len(counts) + 1))
        outputs = [o for c in cells(path) for o in c.outputs]
        assert not [o for o in outputs if o.output_type == "error"]

    def test_states_first_what_it_found(self, path):
        """As a cell prints it, which test_executed compares with what it prints today."""
        said = found["finding"](nbformat.read(path, 4))
        first = cells(path, "markdown")[0].source
        if path.stem == "fig9_models":  # which compares models: the study has one
            assert said is None
        else:
            assert re.search(r"\d", said)
            assert first.splitlines()[2] == f"{found['FOUND']}{said.removesuffix('.')}."

    def test_shows_its_pictures_at_the_width_of_the_page(self, path):
        assert '%config InlineBackend.print_figure_kwargs = {"dpi": 180}' in cells(path)[0].source

    def test_ends_with_an_exercise(self, path):
        assert cells(path, "markdown")[-1].source.count("- Exercise: ") == 1

    def test_has_no_table_that_breaks_its_lines(self, path):
        """A line of a text is as wide as 125 characters at 1440 pixels; questions may be longer."""
        code = "\n".join(c.source for c in cells(path))
        assert "to_string" not in code

    def test_is_what_jupyter_writes(self, path):
        """Else opening it changes it, and git sees that."""
        notebook = nbformat.read(path, 4)
        assert notebook.metadata.kernelspec == {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        }
        assert path.read_text() == nbformat.writes(notebook) + "\n"

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


def drawn(folder, code, **environment):
    """What drawing a notebook of one more cell says; and its outputs."""
    new = nbformat.v4
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "3"}}
    given = new.new_code_cell('study = "embedded"', metadata={"tags": ["parameters"]})
    notebook = new.new_notebook(cells=[given, new.new_code_cell(code)], metadata=metadata)
    nbformat.write(notebook, folder / "one.ipynb")
    script = ROOT / "notebooks" / "draw.py"
    done = subprocess.run(
        [sys.executable, script, "tiny", "executed", "one.ipynb"],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    outputs = [o for c in nbformat.read(folder / "executed/one.ipynb", 4).cells for o in c.outputs]
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


def test_of_several_notebooks_those_are_drawn_that_can_be(tmp_path):
    """One after the other or side by side: what fails stops no other, and is told at the end."""
    new = nbformat.v4
    for name, code in {"fails": "1 / 0", "works": "print(study)"}.items():
        given = new.new_code_cell('study = ""', metadata={"tags": ["parameters"]})
        metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "3"}}
        cells = [given, new.new_code_cell(code)]
        nbformat.write(new.new_notebook(cells=cells, metadata=metadata), tmp_path / f"{name}.ipynb")
    script = ROOT / "notebooks" / "draw.py"
    done = subprocess.run(
        [sys.executable, script, "tiny", "out", "fails.ipynb", "works.ipynb", "--jobs", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "fails.ipynb" in done.stderr and "ZeroDivision" in done.stderr
    assert "works.ipynb" not in done.stderr
    (output,) = (o for c in nbformat.read(tmp_path / "out/works.ipynb", 4).cells for o in c.outputs)
    assert output["text"] == "tiny\n"


def test_an_unknown_study_in_a_notebook_says_what_there_is(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="expected one of tiny, quick"):
        papermill.execute_notebook(
            FIGURES[0], tmp_path / "out.ipynb", {"study": "quik"}, progress_bar=False
        )
