"""What the paper reports, as far as it is on record, beside what was found here."""

from __future__ import annotations

import numpy as np
import pandas as pd

from forgetlib import metrics
from forgetlib.data import tasks
from forgetlib.figures.join import given

# Llama-2-7B, accuracy after forgetting with 1000 examples (paper, Fig. 2 and 7).
PUBLISHED_FORGET_ACCURACY = {
    "piqa": 0.69,
    "sciq": 0.76,
    "rte": 0.50,
    "cb": 0.50,
    "wic": 0.50,
    "qnli": 0.50,
    "boolq": 0.50,
    "wnli": 0.97,
    "arc_easy": 0.86,
    "arc_challenge": 0.50,
}
# The same with 100 examples (paper, Fig. 7).
PUBLISHED_FORGET_ACCURACY_100 = {
    "piqa": 0.71,
    "qnli": 0.71,
    "boolq": 0.77,
    "wnli": 0.97,
    "arc_challenge": 0.66,
}
# The models of the paper's Fig. 9.
PUBLISHED_MODELS = ("Llama-2-7B", "GPT-J-6B", "GPT-2")


def beside_published(table: pd.DataFrame) -> pd.DataFrame:
    """Put forget accuracies, with their intervals, beside the paper's where it has them.

    table: from `fig2.table`, one row a task. The models differ, so that the pattern over
        tasks can be compared, not the numbers.
    """
    columns = ["model", "eval_task", "forgotten", "forgotten_low", "forgotten_high"]
    given(table, ["eval_task"], *columns)
    rows = table[columns].copy()
    rows["paper"] = in_the_paper(rows["eval_task"]).map(PUBLISHED_FORGET_ACCURACY)
    return rows


def in_the_paper(names: pd.Series | pd.Index) -> pd.Series | pd.Index:
    """Return the tasks' names in the paper: a task of the hub has there the harness's name."""
    return names.str.removesuffix(tasks.HUB_SUFFIX)


def published_of(task: str) -> float:
    """Return a task's published accuracy after forgetting; NaN where there is none."""
    return PUBLISHED_FORGET_ACCURACY.get(task.removesuffix(tasks.HUB_SUFFIX), np.nan)


def published() -> pd.DataFrame:
    """Return the published accuracies after forgetting, one row a task.

    Columns: eval_task, family, forgotten and forget_gap (1000 examples), forgotten_100 (100
    examples, NaN where not published).
    """
    table = pd.DataFrame(PUBLISHED_FORGET_ACCURACY.items(), columns=["eval_task", "forgotten"])
    table["family"] = [tasks.get(name + tasks.HUB_SUFFIX).family for name in table["eval_task"]]
    table["forget_gap"] = metrics.forget_gap(table["forgotten"].to_numpy())
    table["forgotten_100"] = table["eval_task"].map(PUBLISHED_FORGET_ACCURACY_100)
    return table
