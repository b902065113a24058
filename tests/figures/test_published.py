"""What the paper reports, beside what was measured."""

import numpy as np
import pandas as pd
import pytest
from claimed import ACCURACIES, TASKS, own

from forgetlib.data import tasks
from forgetlib.errors import InputError
from forgetlib.figures import published


def test_published_tasks_have_families():
    table = published.published().set_index("eval_task")
    assert set(published.PUBLISHED_FORGET_ACCURACY_100) <= set(table.index)
    assert (table.loc[["rte", "cb", "wic", "qnli", "wnli"], "family"] == tasks.LANGUAGE).all()
    assert table.loc["boolq", "family"] == tasks.READING


def test_a_task_of_the_hub_stands_beside_the_paper_s_of_the_same_name():
    beside = published.beside_published(own(("piqa_hub", "mrpc_hub"), [0.8, 0.6]))
    assert beside.set_index("eval_task").loc["piqa_hub", "paper"] == 0.69


def test_measured_accuracies_stand_beside_the_published_ones():
    beside = published.beside_published(own(("piqa", "mrpc"), [0.8, 0.6])).set_index("eval_task")
    assert beside.loc["piqa", "paper"] == 0.69
    assert np.isnan(beside.loc["mrpc", "paper"])
    assert beside.loc["piqa", "forgotten"] == 0.8


def test_two_sizes_of_a_task_are_not_two_tasks_beside_the_paper():
    with pytest.raises(InputError, match="one row a eval_task"):
        both = own(TASKS, ACCURACIES)
        published.beside_published(pd.concat([both, both.assign(size=50)]))
