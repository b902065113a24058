"""The notebooks of in-context regression keep the rules of all, and print what they printed."""

import ast
import shutil

import nbformat
import pytest
import test_notebooks
from test_executed import execute, kernel as kernel, said

from forgetlib.figures.implicit import drawing as implicit_drawing

ROOT = test_notebooks.ROOT
PATHS = sorted((ROOT / "notebooks" / "implicit").glob("*.ipynb"))
OF_MODELS = "pattern"  # asks real models; the others are of the small world
RULES = [name for name in vars(test_notebooks.TestEveryNotebook) if name.startswith("test_")]


def values(path):
    """The parameters of a notebook by name."""
    body = ast.parse(test_notebooks.parameters(path).source).body
    return {ast.unparse(s.targets[0]): ast.literal_eval(s.value) for s in body}


def test_there_is_one_for_each_picture():
    assert [p.stem for p in PATHS] == sorted(implicit_drawing.FIGURES)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_the_rules_of_all_notebooks_hold(path, rule):
    getattr(test_notebooks.TestEveryNotebook(), rule)(path)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_it_takes_a_study_seeds_and_weights(path):
    of_models = path.stem == OF_MODELS
    expected = ["model", "seeds", "n_train", "n"] if of_models else ["seeds", "alphas"]
    assert list(values(path)) == ["study", *expected]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_it_prints_what_it_printed_and_computes_nothing(path, kernel, tmp_path):
    study = values(path)["study"]
    for kind in ("results", "shifts", "controls", "patterns"):
        place = f"figures/{study}/{kind}"
        shutil.copytree(ROOT / place, tmp_path / place)
    executed = execute(kernel, nbformat.read(path, 4), tmp_path)
    assert not (tmp_path / ".work").exists(), "results are missing: something was computed"
    code = [cell for cell in executed if cell.cell_type == "code"]
    assert [said(cell) for cell in code] == [said(cell) for cell in test_notebooks.cells(path)]
    name = f"figures/{study}/{path.stem}.csv"
    assert (tmp_path / name).read_text() == (ROOT / name).read_text()
