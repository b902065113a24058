"""The package's structure, as the design states it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import forgetlib

FOLDER = Path(forgetlib.__file__).parent
LAYERS = (
    {"schema"},
    {
        *(
            "assets",
            "catalogue",
            "prompts",
            "sources",
            "tasks",
            "audit",
            "labels",
            "store",
            "content",
        ),
        *("stats", "crosstask", "measures", "regression"),
    },
    {
        *("kernels", "likelihood", "packing", "parallel"),
        *("models", "scoring", "training", "probing"),
    },
    {"experiment", "cluster", "cost", "plots", "claims"},
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
# Within a layer, who may use whom: sources read what assets fetched, training scores, and so on.
SIDEWAYS = {
    "assets": {"catalogue"},
    "sources": {"assets", "prompts"},
    "tasks": {"prompts", "sources"},
    "audit": {"stats", "tasks"},
    "content": {"assets", "catalogue", "sources", "tasks"},
    "crosstask": {"stats"},
    "measures": {"stats"},
    "regression": {"stats"},
    "packing": {"kernels"},
    "likelihood": {"kernels"},
    "models": {"kernels", "likelihood", "packing", "parallel"},
    "scoring": {"models", "parallel"},
    "training": {"kernels", "models", "parallel", "scoring"},
    "probing": {"models", "parallel", "scoring"},
    "cluster": {"experiment"},
    "cost": {"experiment"},
    "experiment": {"cluster", "cost"},  # offers them, and imports them where they are asked for
    "plots": {"experiment"},
    "claims": {"experiment"},
}
# A folder is one module of several rooms, as `plots`.
FILES = {p.stem: [p] for p in FOLDER.glob("*.py") if p.stem != "__init__"}
FILES |= {p.parent.name: sorted(p.parent.glob("*.py")) for p in FOLDER.glob("*/__init__.py")}
MODULES = sorted(FILES)
ROOMS = [p for files in FILES.values() if len(files) > 1 for p in files if p.stem != "__init__"]


def imports(name):
    """Modules of the package that a module imports, itself left out."""
    return {other for file in FILES[name] for other in imports_of(file)} - {name}


def imports_of(file):
    """Modules of the package that a file imports, anywhere in it but for type checking."""
    tree = ast.parse(file.read_text())
    skipped = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in skipped and node.module:
            if node.module == "forgetlib":
                found |= {a.name for a in node.names}
            elif node.module.startswith("forgetlib."):
                found.add(node.module.split(".")[1])
    return found & set(MODULES)


def test_every_module_has_a_layer():
    assert set(MODULES) <= set(LAYER)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_strictly_downward(name):
    for other in imports(name):
        allowed = LAYER[other] < LAYER[name] or other in SIDEWAYS.get(name, ())
        assert allowed, f"{name} (layer {LAYER[name]}) imports {other} (layer {LAYER[other]})"


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
        "from forgetlib import claims, crosstask, experiment, measures, plots, stats, store, tasks;"
        "print(*sys.modules)"
    ).split()
    assert not {"torch", "transformers", "datasets"} & set(loaded)


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: p.stem)
def test_rooms_of_a_module_use_their_common_room_only(room):
    module = f"forgetlib.{room.parent.name}."
    nodes = [n for n in ast.walk(ast.parse(room.read_text())) if isinstance(n, ast.ImportFrom)]
    used = {n.module.removeprefix(module) for n in nodes if n.module.startswith(module)}
    assert used <= ({"common"} if room.stem != "common" else set())


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_say_what_they_do(name):
    for file in FILES[name]:
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                short = isinstance(node, ast.FunctionDef) and len(node.body) <= 12
                assert ast.get_docstring(node) or short, f"{name}.{node.name} has no docstring"
