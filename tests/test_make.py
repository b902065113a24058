"""What make does with what it is given: names, targets, and who calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest
from test_notebooks import FIGURES, NOTEBOOKS

import forgetlib
from forgetlib.runs.grid import SECTIONS

ROOT = Path(forgetlib.__file__).parent.parent


def make(folder, *words, **environment):
    """Call make in a folder that has nothing but what a test put there."""
    return subprocess.run(
        ["make", "--file", str(ROOT / "Makefile"), *words],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path):
    """A project folder with an environment that is ready, and work in progress."""
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    for name in ("requirements.txt", "pyproject.toml", ".work/quick/runs", "other/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("made", "ready-to-read", "ready"):
        (tmp_path / ".venv" / name).write_text("")
    return tmp_path


def program(path, text):
    """A stand-in for a program."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


NO_NAMES = ["", " ", "..", ".", "../other", "/", "quick/..", "quick other", "quick ", "-rf"]
NO_NAMES += [
    "a\nb",
    "*",
    "qui?k",
    "~",
    "Quick",
    "quick'",
    'quick"',
    "quick;",
    "a\\b",
    "$$HOME",
    "é",
]


@pytest.mark.parametrize("target", ["clean", "figures"])
@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_plain_name_is_refused_before_anything_is_done(folder, target, name):
    before = sorted(folder.rglob("*"))
    done = make(folder, target, f"STUDY={name}")
    assert done.returncode == 2
    assert "STUDY: expected the name of a study" in done.stderr
    assert "Write STUDY=quick" in done.stderr
    assert not done.stdout
    assert sorted(folder.rglob("*")) == before


def test_a_name_in_the_environment_is_looked_at_as_well(folder):
    assert make(folder, "clean", STUDY="../other").returncode == 2
    assert (folder / "other/file").exists()


def test_clean_deletes_the_work_of_its_study_and_no_other(folder):
    for name in ("quick-modified", "tiny"):
        (folder / ".work" / name).mkdir()
    assert make(folder, "clean", "STUDY=quick").returncode == 0
    assert {p.name for p in (folder / ".work").iterdir()} == {"quick-modified", "tiny"}
    assert make(folder, "clean", "STUDY=quick-modified").returncode == 0
    assert [p.name for p in (folder / ".work").iterdir()] == ["tiny"]


@pytest.mark.parametrize("target", ["fig10", "figuers", "figure2"])
def test_an_unknown_target_gets_the_list_of_those_there_are(folder, target):
    done = make(folder, target)
    assert done.returncode == 2
    assert f"expected a target of those below, found '{target}'" in done.stderr
    assert "fig1 fig2 fig2b fig3" in done.stderr and "check-figures" in done.stderr


@pytest.mark.parametrize(("uid", "passed"), [(0, True), (1000, False)])
def test_the_lab_opens_for_root_with_a_word(folder, uid, passed):
    program(folder / "fake/id", f"echo {uid}")
    program(folder / ".venv/bin/jupyter", 'echo "$@"')
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    done = make(folder, "lab", PATH=f"{folder}/fake:/usr/local/bin:/usr/bin:/bin")
    assert done.returncode == 0
    copied, opened = done.stdout.splitlines()
    assert copied == "lab: copies of notebooks/ are in lab/, which git ignores"
    assert opened == f"lab {'--allow-root ' * passed}lab"
    names = {p.name for p in (folder / "lab").glob("*.ipynb")}
    assert names == {p.name for p in NOTEBOOKS}
    assert ("you are root" in done.stderr) == passed


# The sections that each notebook reads: the second argument of run(...) or load_results(...).
WANTED = {
    path.stem.split("_")[0]: {
        section
        for cell in json.loads(path.read_text())["cells"]
        for section in SECTIONS
        if f'studies.run(chosen, "{section}")' in "".join(cell["source"])
    }
    for path in FIGURES
}


class Item:
    """A test, as far as its place is concerned."""

    def __init__(self, stem, name="test", slow=False, fixtures=(), **given):
        self.path, self.nodeid, self.slow = Path(f"tests/{stem}.py"), f"{stem}::{name}", slow
        self.fixturenames, self.group = fixtures, None
        if given:
            self.callspec = SimpleNamespace(params=given)

    def get_closest_marker(self, name):
        return name if name == "slow" and self.slow else None

    def add_marker(self, mark):
        assert mark.name == "xdist_group"
        (self.group,) = mark.args


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all")
def test_what_belongs_together_is_given_to_one_process(request):
    """As xdist writes it into the name of a test; each version of pytest has to be tried."""
    assert request.node.nodeid.endswith("@test_make")


def test_what_takes_longest_begins_first():
    files = {p.stem for p in (ROOT / "tests").rglob("test_*.py")}
    assert files >= set(conftest.LONGEST) - set(conftest.MODELS)
    assert files >= set(conftest.SHARED_OUT)
    names = sorted(files) * 2
    items = [Item(name, str(number)) for number, name in enumerate(names)]
    slow = Item(min(files), "slow", slow=True)
    waited_for = Item(max(files), "slow", slow=True, fixtures=("tiny_root",))
    items += [slow, waited_for]
    conftest.pytest_collection_modifyitems(items)
    assert items[:2] == [waited_for, slow]
    items = items[2:]
    met = list(dict.fromkeys(item.path.stem for item in items))
    longest = [name for name in conftest.LONGEST if name in files]
    last = list(conftest.SHARED_OUT)
    assert met == [*longest, *sorted(files - {*longest, *last}), *last]
    for name in files:  # in the order they were in
        places = [int(i.nodeid.split("::")[1]) for i in items if i.path.stem == name]
        assert places == sorted(places)


def test_what_belongs_together_is_one_process_s():
    files = [Item("test_a"), Item("test_a", "other"), Item("test_b")]
    slow = [Item("test_a", "slow", slow=True), Item("test_a", "slower", slow=True)]
    apart = [Item(conftest.SHARED_OUT[0], str(n)) for n in range(2)]
    model = conftest.MODELS[0]
    of_models = [Item(f, **{model: m}) for m in ("x", "y") for f in ("test_a", "test_b")]
    conftest.pytest_collection_modifyitems([*files, *slow, *apart, *of_models])
    assert [item.group for item in files] == ["test_a", "test_a", "test_b"]
    assert {item.group for item in slow + apart} == {None}
    assert [i.group for i in of_models] == [f"{model} {m}" for m in ("x", "x", "y", "y")]


def test_the_tests_are_shared_out_so(folder):
    for target in ("test", "test-full", "coverage", "architectures"):
        command = make(folder, "--dry-run", target).stdout
        assert "-n 2 --dist loadgroup --no-loadscope-reorder" in command


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_is_said_to_be_needed_by_the_notebooks_that_read_it(section):
    needed_by = {name for name, sections in WANTED.items() if section in sections}
    assert needed_by == set(SECTIONS[section])


PYTHON_THAT_LACKS_RESULTS = """
case "$3$5" in
  resolve) echo "$4" | sed s/.py$//;;
  resolve--notebooks) echo notebooks$(printf '/methods\\n/scale\\n' | grep "$4") $LEFT_OUT;;
  stored*) exit 1;;
  *) echo "$@";;
esac"""
PYTHON_THAT_HAS_ALL = PYTHON_THAT_LACKS_RESULTS.replace("exit 1", "exit 0")


def test_what_is_stored_is_drawn_without_what_computing_needs(folder):
    (folder / ".venv/ready").unlink()
    program(folder / ".venv/bin/python", PYTHON_THAT_HAS_ALL)
    done = make(folder, "fig2", "STUDY=tiny")
    assert len(done.stdout.splitlines()) == 2 and "draw.py tiny" in done.stdout
    assert not (folder / ".venv/ready").exists()


def test_a_study_s_file_is_resolved_to_its_name(folder):
    program(folder / ".venv/bin/python", PYTHON_THAT_HAS_ALL)
    done = make(folder, "fig2", "STUDY=mine.py")
    said, drawn = done.stdout.splitlines()
    assert said == "drawing into figures/mine/"
    name = "notebooks/fig2_forget_gap.ipynb"
    assert drawn == f"notebooks/draw.py mine.py .work/mine/notebooks {name}"
    assert make(folder, "clean", "STUDY=mine.py").returncode == 0
    assert not (folder / ".work/mine").exists()


@pytest.mark.parametrize("figure", sorted(WANTED))
def test_a_figure_s_target_computes_the_sections_that_it_reads_and_draws_it(folder, figure):
    program(folder / ".venv/bin/python", PYTHON_THAT_LACKS_RESULTS)
    done = make(folder, figure, "STUDY=tiny")
    computed, said, drawn = done.stdout.splitlines()
    assert computed.startswith("-m forgetlib run tiny")
    assert set(computed.split()[4:]) == WANTED[figure]
    (path,) = (p for p in FIGURES if p.stem.split("_")[0] == figure)
    assert said == "drawing into figures/tiny/"
    assert drawn == f"notebooks/draw.py tiny .work/tiny/notebooks notebooks/{path.name}"


@pytest.mark.parametrize(
    ("study", "figure", "sections"),
    [
        ("methods", "dose", ["methods"]),
        ("methods", "generalisation", ["methods"]),
        ("methods", "collateral", ["collateral"]),
        ("methods", "ladder", []),
        ("scale", "models", ["control", "own"]),
        ("scale", "regressions", ["control", "own"]),
    ],
)
def test_a_study_of_methods_or_models_has_notebooks_of_its_own(folder, study, figure, sections):
    program(folder / ".venv/bin/python", PYTHON_THAT_LACKS_RESULTS)
    computed, said, drawn = make(folder, figure, f"STUDY={study}").stdout.splitlines()
    assert computed.split() == ["-m", "forgetlib", "run", study, *sections]
    assert said == f"drawing into figures/{study}/"
    name = f"notebooks/{study}/{figure}.ipynb"
    assert drawn == f"notebooks/draw.py {study} .work/{study}/notebooks {name}"


def test_figures_are_those_of_the_kind_of_study(folder):
    program(folder / ".venv/bin/python", PYTHON_THAT_LACKS_RESULTS)
    every = make(folder, "figures", "STUDY=methods").stdout
    assert "methods/ladder.ipynb" in every and "fig2" not in every
    assert "notebooks/methods" not in make(folder, "figures", "STUDY=tiny").stdout
    done = make(folder, "fig2", "STUDY=methods")
    assert done.returncode and "expected a target of those below, found 'fig2'" in done.stderr
    without = make(folder, "figures", "STUDY=methods", LEFT_OUT="collateral dose").stdout
    assert "methods/ladder.ipynb" in without
    assert "collateral" not in without and "dose" not in without
    done = make(folder, "dose", "STUDY=methods", LEFT_OUT="dose")
    assert done.returncode and "found 'dose'" in done.stderr
    less = make(folder, "figures", "STUDY=tiny", LEFT_OUT="fig7").stdout
    assert "fig8_flipped" in less and "fig7" not in less
    of_models = make(folder, "figures", "STUDY=scale").stdout
    assert "scale/models.ipynb" in of_models and "methods" not in of_models
