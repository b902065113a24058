"""The command draws what the notebooks do: the committed tables of a study, for each picture."""

import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import forgetlib
from forgetlib import studies
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.figures import drawing

COMMITTED = Path(forgetlib.__file__).parent.parent / "figures"


def test_the_tables_that_are_drawn_are_the_committed_ones(tmp_path, monkeypatch):
    """From what is committed alone: no task's data are read."""
    for folder in ("quick/results", "quick/questions"):
        shutil.copytree(COMMITTED / folder, tmp_path / "figures" / folder)
    monkeypatch.setattr(splits, "split", lambda task, seed: pytest.fail(f"data of {task} read"))
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))
    # The notebooks' tests render the pictures.
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).touch())
    written = drawing.draw(studies.study("quick"))
    names = {path.name for path in written}
    files = {p.name for p in (COMMITTED / "quick").iterdir() if p.is_file()}
    assert names == files - {"README.md"}
    for path in written:
        if path.suffix == ".csv":
            assert path.read_text() == (COMMITTED / "quick" / path.name).read_text(), path.name


def test_a_figure_of_another_name_is_refused():
    with pytest.raises(InputError, match=r"figure: expected one of fig1, .*, found 'fig10'"):
        drawing.draw(studies.study("quick"), ["fig10"])
