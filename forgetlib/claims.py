"""What the paper reports, beside what was measured here."""

from __future__ import annotations

import pandas as pd

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


def beside_published(table: pd.DataFrame) -> pd.DataFrame:
    """Forget accuracy measured here, with its interval, and the paper's where it is published.

    table: from `stats.forgetting`. The models differ, so that the pattern over tasks can be
    compared, not the numbers.
    """
    columns = ["model", "eval_task", "forgotten", "forgotten_low", "forgotten_high"]
    rows = table[columns].copy()
    rows["paper"] = rows["eval_task"].map(PUBLISHED_FORGET_ACCURACY)
    return rows
