"""Installed from a wheel, forgetlib works outside of a checkout: it reads, computes and draws."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import forgetlib

ROOT = Path(forgetlib.__file__).parent.parent
SMALL = """
from forgetlib.forgetting.base import Training
from forgetlib.studies import Study

small = Study(
    "small",
    "the tiny model, one task",
    ("tiny_city",),
    seeds=(0,),
    n_train=8,
    n_eval=8,
    models=("tiny",),
    dtype="bfloat16",
    tuned=Training(5e-3, epochs=1),
    forgetting=Training(5e-3, epochs=1),
    records=2,
)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as its wheel has it, and nothing else of the checkout."""
    source, place = (tmp_path_factory.mktemp(name) for name in ("source", "installed"))
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "forgetlib", source / "forgetlib", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    wheels = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", place, source]
    subprocess.run(wheels, check=True, capture_output=True)
    (wheel,) = place.glob("forgetlib-*.whl")
    subprocess.run([*pip, "install", *offline, "--target", place, wheel], check=True)
    return place


def call(place, folder, *words, **environment):
    """Call the command of what is installed there, from another folder."""
    drop = ("FORGETLIB_ROOT", "FORGETLIB_CACHE", "CXX")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    given = {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    given["FORGETLIB_CACHE"] = str(folder / "cache")
    return subprocess.run(
        [sys.executable, "-m", "forgetlib", *words],
        cwd=folder,
        env=kept | given | environment,
        capture_output=True,
        text=True,
    )


def test_the_command_of_a_wheel_is_there(installed):
    assert (installed / "bin/forgetlib").exists()
    assert not (installed / "tests").exists()
    left_out = (".py", ".pyc", ".md")
    beside = [p for p in (ROOT / "forgetlib").rglob("*") if p.suffix not in left_out]
    beside = [p.relative_to(ROOT) for p in beside if p.is_file()]
    assert {"kernels.cpp", "page.html"} <= {path.name for path in beside}
    assert all((installed / path).exists() for path in beside)


@pytest.mark.parametrize("compiler", [True, False])
def test_a_study_of_one_s_own_is_listed_computed_and_drawn_in_the_folder_it_is_called_from(
    installed, tmp_path, compiler
):
    (tmp_path / "small.py").write_text(SMALL)
    without = {} if compiler else {"FORGETLIB_KERNELS": "0"}
    listed = call(installed, tmp_path, "list")
    assert listed.returncode == 0 and "embedded" in listed.stdout, listed.stderr
    done = call(installed, tmp_path, "run", "small.py", "own", **without)
    assert done.returncode == 0, done.stderr
    assert bool(list(tmp_path.glob("cache/kernels-*.so"))) == (
        compiler and bool(shutil.which("g++"))
    )
    drawn = call(installed, tmp_path, "draw", "small.py", "fig2", **without)
    assert drawn.returncode == 0, drawn.stderr
    found = {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*") if p.is_file()}
    found -= {"__pycache__"}  # where Python keeps what it compiles
    assert found == {"small.py", "cache", ".work", "figures"} - (set() if compiler else {"cache"})
    assert list(tmp_path.glob("figures/*/fig2_forget_gap.csv"))
    if compiler:
        models_are_saved_and_compared(installed, tmp_path)


def models_are_saved_and_compared(installed, folder):
    """What was computed there is saved as two folders, and these are compared."""
    rows = json.loads(call(installed, folder, "list", "small.py", "--json").stdout)
    ids = {row["history"].split(":")[-1]: row["checkpoint"] for row in rows}
    for kind in ("true", "random"):
        saved = call(installed, folder, "save", "small.py", ids[kind], kind)
        assert saved.returncode == 0, saved.stderr
    words = ["compare", "--original", "true", "--unlearned", "random", "--task", "tiny_city"]
    words += ["--quick", "--n", "16", "--elsewhere", "--dtype", "float32", "--out", "compared"]
    done = call(installed, folder, *words)
    assert done.returncode == 0, done.stderr
    assert "tiny_city: NOTHING TO FORGET" in done.stdout
    assert (folder / "compared/report.html").exists()
