"""What `make lab` opens: copies, which follow the committed notebooks until they are edited."""

import json
import runpy
from pathlib import Path

import pytest

import forgetlib

ROOT = Path(forgetlib.__file__).parent.parent
refresh = runpy.run_path(str(ROOT / "notebooks" / "lab.py"))["refresh"]


def notebook(text, output="", kernel="Python 3"):
    cell = {"cell_type": "code", "source": [text], "outputs": [output], "metadata": {}}
    return json.dumps({"cells": [cell], "metadata": {"kernelspec": {"display_name": kernel}}})


@pytest.fixture
def folders(tmp_path):
    committed, lab = tmp_path / "notebooks", tmp_path / "lab"
    committed.mkdir()
    (committed / "a.ipynb").write_text(notebook("1"))
    refresh(committed, lab)
    return committed / "a.ipynb", lab / "a.ipynb"


def again(folders):
    committed, copy = folders
    return refresh(committed.parent, copy.parent)


def test_the_committed_one_is_copied(folders):
    committed, copy = folders
    assert copy.read_text() == committed.read_text()


def test_folders_of_notebooks_are_copied_and_jupyter_s_own_are_not(folders):
    committed, copy = folders
    for name in ("world/b.ipynb", ".ipynb_checkpoints/a-checkpoint.ipynb"):
        (committed.parent / name).parent.mkdir()
        (committed.parent / name).write_text(notebook("2"))
    again(folders)
    assert (copy.parent / "world/b.ipynb").read_text() == notebook("2")
    assert not (copy.parent / ".ipynb_checkpoints").exists()


def test_a_copy_that_was_opened_and_run_follows_the_committed_one(folders):
    committed, copy = folders
    copy.write_text(notebook("1", output="run", kernel="Python 3 (ipykernel)"))
    again(folders)
    assert "run" in copy.read_text()  # nothing new: what was run stays
    committed.write_text(notebook("2"))
    assert "kept" not in again(folders)
    assert copy.read_text() == committed.read_text()


def test_an_edited_copy_is_its_reader_s_until_it_is_deleted(folders):
    committed, copy = folders
    copy.write_text(notebook("mine"))
    assert "kept" not in again(folders)  # there is no newer one
    committed.write_text(notebook("2"))
    assert "newer ones are there: a.ipynb. Delete a copy to have the new one" in again(folders)
    assert "mine" in copy.read_text()
    copy.unlink()
    assert "kept" not in again(folders)
    assert copy.read_text() == committed.read_text()


def test_a_notebook_of_the_reader_s_own_is_left_alone(folders):
    committed, copy = folders
    (copy.parent / "b.ipynb").write_text(notebook("mine"))
    (committed.parent / "b.ipynb").write_text(notebook("theirs"))
    assert "b.ipynb" in again(folders)
    assert "mine" in (copy.parent / "b.ipynb").read_text()


def test_git_ignores_the_copies():
    assert "/lab/" in (ROOT / ".gitignore").read_text().splitlines()
