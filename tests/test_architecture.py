"""The package's structure, as the design states it."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import forgetlib

FOLDER = Path(forgetlib.__file__).parent
# What is lower may not import what is higher, and within one nothing goes round in circles.
LAYERS = (
    {"errors"},
    {"files"},
    {"metrics"},
    {"data"},
    {"engine"},
    {"models"},
    {"measuring"},
    {"forgetting"},
    {"runs"},
    {"implicit"},
    {"studies"},
    {"figures", "listing"},
    {"compare"},
    {"__main__"},
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
FILES = {
    p.relative_to(FOLDER).with_suffix("").as_posix().replace("/", "."): p
    for p in sorted(FOLDER.rglob("*.py"))
    if p.stem != "__init__"
}
MOST_LINES = 400  # above that, a file says why in its first lines


def place(name):
    """The folder or file of the package's own folder that a module is in."""
    return name.split(".")[0]


def imports(name):
    """Modules of the package that a module imports, anywhere in it but for type checking."""
    tree = ast.parse(FILES[name].read_text())
    skipped = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in skipped and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}".removeprefix("forgetlib.")
                found |= {whole, whole.rpartition(".")[0]} & set(FILES)
    return found - {name}


def test_every_module_has_a_layer():
    assert set(map(place, FILES)) == set(LAYER)


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downward(name):
    for other in imports(name):
        ours, theirs = LAYER[place(name)], LAYER[place(other)]
        assert theirs < ours or place(other) == place(name), f"{name} imports {other}"


def test_imports_go_round_in_no_circle():
    TopologicalSorter({name: imports(name) for name in FILES}).prepare()  # CycleError


def test_a_circle_would_be_seen():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


@pytest.mark.parametrize("name", FILES)
def test_a_long_file_says_why_it_is_one(name):
    text = FILES[name].read_text()
    head = " ".join(ast.get_docstring(ast.parse(text)).split())
    assert text.count("\n") <= MOST_LINES or "Long because" in head


def in_new_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_heavy():
    loaded = in_new_process("import forgetlib, sys; print(*sys.modules)").split()
    assert not {"torch", "numpy", "pandas", "transformers"} & set(loaded)


def test_the_way_from_results_to_figures_has_no_torch_in_it():
    loaded = in_new_process(
        "import sys;"
        "from forgetlib import studies;"
        "from forgetlib.figures import (fig1, fig2, fig3, fig4, fig5, fig6, fig7, fig8, fig9,"
        " audit, claims, claims_figure, notebook, readme);"
        "from forgetlib.figures.explore import controls; from forgetlib.figures.page import page;"
        "print(*sys.modules)"
    ).split()
    assert not {"torch", "transformers", "datasets"} & set(loaded)


@pytest.mark.parametrize("name", FILES)
def test_public_functions_say_what_they_do(name):
    tree = ast.parse(FILES[name].read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            short = isinstance(node, ast.FunctionDef) and len(node.body) <= 12
            assert ast.get_docstring(node) or short, f"{name}.{node.name} has no docstring"
