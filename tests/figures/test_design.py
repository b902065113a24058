"""Which rows and terms a regression has, and that the other terms are named."""

import numpy as np
import pandas as pd
import pytest
from tables import FAMILIES, FORMATS, of_term, table_of

from forgetlib.figures import design, mixedmodel, regression
from forgetlib.figures.design import OUTCOMES
from forgetlib.figures.regression import NUMERIC, TERMS


def test_four_tasks_estimate_one_term_and_name_the_others():
    table = table_of(4, family=["synthetic"] * 4, answer_format=[*FORMATS, *FORMATS])
    fit = regression.least_squares(table)
    assert fit.kept == ("confidence",) and fit.coefficients["term"].tolist() == ["confidence"]
    assert np.isfinite(fit.coefficients.drop(columns=["term", "against"]).to_numpy()).all()
    assert fit.dropped == {
        "log_variance": "too few tasks: 4 for 3 coefficients",
        "tuned": "too few tasks: 4 for 3 coefficients",
        "family": "it does not vary over these tasks",
        "answer_format": "too few tasks: 4 for 3 coefficients",
    }
    alone = regression.each_alone(table, TERMS, ["forget_ratio"])
    assert alone["coefficient"].notna().tolist() == [True, True, True, False, True]
    assert of_term(alone, "family")["note"] == "it does not vary over these tasks"


@pytest.mark.parametrize("n_tasks", range(7))
def test_every_function_takes_any_number_of_tasks(n_tasks):
    table = table_of(n_tasks)
    fit = regression.least_squares(table)
    assert set(fit.kept) | set(fit.dropped) == set(TERMS) and fit.n == n_tasks
    assert len(regression.each_alone(table)) == len(regression.ALONE) * len(OUTCOMES)
    assert len(regression.leave_one_task_out(table)) == n_tasks * len(fit.coefficients)
    assert mixedmodel.mixed_model(table).coefficients.empty
    assert len(regression.correlations(table)) == (3 if n_tasks else 0)


def test_an_aliased_term_is_named_with_the_term_that_determines_it():
    families = [FAMILIES[i % 4] for i in range(21)]
    formats = ["verbaliser" if f == FAMILIES[3] else "text" for f in families]
    table = table_of(family=families, answer_format=formats)
    assert regression.least_squares(table).dropped == {"answer_format": "aliased with family"}
    turned = regression.least_squares(table, ("answer_format", "family"))
    assert turned.kept == ("answer_format",)
    assert turned.dropped == {"family": "aliased with answer_format"}
    table["tuned"] = table["confidence"] + 2 * table["log_variance"]
    dropped = regression.least_squares(table, NUMERIC).dropped
    assert dropped == {"tuned": "aliased with confidence, log_variance together"}


def test_families_with_a_single_task_are_pooled():
    families = [*FAMILIES[:3] * 6, "math", "toxicity", "reading"]
    fit = regression.least_squares(table_of(family=families), ("family",))
    assert fit.notes == ("family: other is math, reading, toxicity",)
    assert "family: other" in fit.coefficients["term"].tolist()
    # a single such family would be alone in "other": the smallest of the others joins it
    families = [*FAMILIES[:3] * 6, "commonsense", "science", "math"]
    fit = regression.least_squares(table_of(family=families), ("family",))
    assert fit.notes == ("family: other is knowledge, math",)
    assert np.isfinite(fit.coefficients["coefficient_low"]).all()


def test_a_term_that_one_task_alone_decides_is_dropped():
    formats = ["text"] * 20 + ["verbaliser"]
    fit = regression.least_squares(table_of(answer_format=formats))
    assert fit.dropped == {"answer_format": "decided by task20 alone"}
    # The paper's families determine the format but in "other", where mathqa alone is text.
    families = ["commonsense"] * 7 + ["science"] * 3 + ["glue"] * 8 + ["reading", "math", "toxic"]
    formats = ["text"] * 10 + ["verbaliser"] * 9 + ["text", "verbaliser"]
    fit = regression.least_squares(table_of(family=families, answer_format=formats))
    assert fit.dropped == {"answer_format": "decided by task19 alone"}


def test_undefined_rows_are_left_out():
    table = table_of(21)
    table.loc[3, "forget_ratio"] = np.nan
    table.loc[5, "log_variance"] = -np.inf
    fit = regression.least_squares(table)
    assert fit.n == 19
    rest = table.drop(index=[3, 5])
    pd.testing.assert_frame_equal(fit.coefficients, regression.least_squares(rest).coefficients)
    fit = regression.least_squares(table.assign(log_variance=np.nan))
    assert fit.dropped["log_variance"] == "it is undefined in every row"
    assert fit.n == 20


def test_an_outcome_that_does_not_vary_is_named():
    fit = regression.least_squares(table_of(6, forget_ratio=np.ones(6)))
    assert fit.coefficients.empty
    assert fit.dropped["confidence"] == "forget_ratio does not vary over 6 tasks"


def test_a_category_is_coded_against_its_most_frequent_level_in_the_order_of_the_names():
    """Rows may lack a level that the points have, and levels may be any text."""
    points = pd.DataFrame({"answer_format": ["z 'z'", "b", "b", "a, (c)", "a, (c)"]})
    rows = points.iloc[[0, 1, 1, 0]].reset_index(drop=True)
    coded, reference = design.coded("answer_format", rows, points)
    assert reference == "a, (c)"  # as frequent as b, and before it
    assert coded.columns.tolist() == ["answer_format: b", "answer_format: z 'z'"]
    assert coded.to_numpy().tolist() == [[0, 1], [1, 0], [1, 0], [0, 1]]
    assert coded.dtypes.tolist() == [float, float]
