"""What make does with what it is given: names, targets, and who calls it."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest

import forgetlib
from forgetlib import experiment

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
    (tmp_path / ".venv/ready").write_text("")
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
    assert "fig1 fig2 fig3" in done.stderr and "check-figures" in done.stderr


@pytest.mark.parametrize(("uid", "passed"), [(0, True), (1000, False)])
def test_the_lab_opens_for_root_with_a_word(folder, uid, passed):
    program(folder / "fake/id", f"echo {uid}")
    program(folder / ".venv/bin/jupyter", 'echo "$@"')
    done = make(folder, "lab", PATH=f"{folder}/fake:/usr/local/bin:/usr/bin:/bin")
    assert done.returncode == 0
    assert done.stdout == f"lab {'--allow-root ' * passed}notebooks\n"
    assert ("you are root" in done.stderr) == passed


# The parts that each notebook reads: its calls of results(...), whose second argument is a part.
WANTED = {
    path.stem.split("_")[0]: {
        part
        for cell in json.loads(path.read_text())["cells"]
        for part in experiment.PARTS
        if f'results(chosen, "{part}")' in "".join(cell["source"])
    }
    for path in (ROOT / "notebooks").glob("[!0]*.ipynb")
}


def test_the_longest_files_of_tests_begin_first():
    paths = {p.stem: p for p in (ROOT / "tests").glob("test_*.py")}
    assert paths.keys() >= set(conftest.LONGEST)
    names = [name for name in sorted(paths) for _ in range(2)]
    items = [SimpleNamespace(path=paths[name], place=place) for place, name in enumerate(names)]
    conftest.pytest_collection_modifyitems(items)
    met = list(dict.fromkeys(item.path.stem for item in items))
    rest = sorted(paths.keys() - set(conftest.LONGEST))
    assert met == [*conftest.LONGEST, *rest]
    of_each = [[i.place for i in items if i.path == path] for path in paths.values()]
    assert all(places == sorted(places) for places in of_each)


def test_the_tests_are_begun_in_that_order(folder):
    for target in ("test", "test-full", "coverage"):
        command = make(folder, "--dry-run", target).stdout
        assert "--dist loadfile --no-loadscope-reorder" in command


@pytest.mark.parametrize("part", experiment.PARTS)
def test_a_part_is_said_to_be_needed_by_the_notebooks_that_read_it(part):
    needed_by = {name for name, parts in WANTED.items() if part in parts}
    assert needed_by == set(experiment.PARTS[part])


@pytest.mark.parametrize("figure", sorted(WANTED))
def test_a_figure_s_target_computes_the_parts_that_it_reads(folder, figure):
    program(folder / ".venv/bin/python", 'echo "$@"')
    done = make(folder, figure, "STUDY=tiny")
    computed, *_ = done.stdout.splitlines()
    assert computed.startswith("-m forgetlib.experiment tiny")
    assert set(computed.split()[3:]) == WANTED[figure]
