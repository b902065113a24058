"""The notebooks of studies of methods and of models keep all rules, and print what they printed."""

import ast
import shutil

import nbformat
import pytest
import test_notebooks
from test_executed import execute, kernel as kernel, said

from forgetlib.figures.drawing import OF_METHODS, OF_SCALE

ROOT = test_notebooks.ROOT
PARAMETERS = {  # of each folder's notebooks
    "methods": ("study", "skill", "seeds"),
    "scale": ("study", "models", "seeds"),
}
PATHS = [p for of in PARAMETERS for p in sorted((ROOT / "notebooks" / of).glob("*.ipynb"))]
RULES = [name for name in vars(test_notebooks.TestEveryNotebook) if name.startswith("test_")]


def values(path):
    """The parameters of a notebook by name."""
    body = ast.parse(test_notebooks.parameters(path).source).body
    return {ast.unparse(s.targets[0]): ast.literal_eval(s.value) for s in body}


def test_there_is_one_for_each_figure_and_it_takes_a_study_and_what_to_draw_of_it():
    assert [p.stem for p in PATHS] == [*sorted(OF_METHODS), *OF_SCALE]
    for path in PATHS:
        assert tuple(values(path)) == PARAMETERS[path.parent.name]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_the_rules_of_all_notebooks_hold(path, rule):
    getattr(test_notebooks.TestEveryNotebook(), rule)(path)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_it_prints_what_it_printed_and_computes_nothing(path, kernel, tmp_path):
    of = values(path)
    for kind in ("results", "questions", "answers"):
        place = f"figures/{of['study']}/{kind}"
        if (ROOT / place).exists():  # of free answers alone there are no answers to store
            shutil.copytree(ROOT / place, tmp_path / place)
    executed = execute(kernel, nbformat.read(path, 4), tmp_path)
    assert not (tmp_path / ".work").exists(), "something was computed"
    code = [cell for cell in executed if cell.cell_type == "code"]
    assert [said(cell) for cell in code] == [said(cell) for cell in test_notebooks.cells(path)]
    drawn = sorted((tmp_path / "figures" / of["study"]).glob("*.csv"))
    assert drawn
    for table in drawn:
        assert table.read_text() == (ROOT / "figures" / of["study"] / table.name).read_text()
