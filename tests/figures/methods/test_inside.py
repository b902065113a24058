"""What is said of hidden states follows from the rows of the ladder's table."""

import numpy as np
import pandas as pd
import pytest

from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.methods import inside
from forgetlib.figures.methods.rungs import DIRECTIONS, LENS


def row(rung, method, *, n_seeds=3, oracle=0.5, excess=None, recovered=None):
    found = {"eval_task": "sst2", "method": method, "rung": rung.name, "kind": rung.kind}
    found |= {"labels": rung.labels, "n_seeds": n_seeds, "forgotten": 0.6, "oracle": oracle}
    found |= {"shown": False, "twin": float("nan")}
    found |= dict.fromkeys(
        with_intervals(["twin_excess", "dose_excess", "dose_twin_excess"]), np.nan
    )
    for name, value in (("excess", excess), ("recovered", recovered)):
        for end, number in zip(("", "_low", "_high"), value or (float("nan"),) * 3, strict=True):
            found[name + end] = number
    return found


def test_it_tells_methods_by_what_their_layer_shows():
    rows = [
        row(LENS, "random", excess=(0.1, -0.1, 0.3)),
        row(LENS, "npo", excess=(0.6, 0.4, 0.8), n_seeds=1),
        row(LENS, "dpo", excess=(0.5, -0.1, 1.1)),
    ]
    rows.append(row(LENS, "true"))  # where the known model does not show the skill
    rows[0]["forgotten"] = 0.55
    assert inside.finding(pd.DataFrame(rows)) == (
        "Of SST-2, the layer that tells most in the forgotten model has an AUROC of 0.55 to 0.60, "
        "where never-taught models have 0.50: more than they have after NPO (one seed); less than "
        "half of what was taught after random labels; not decided after DPO to the distractor and "
        "true labels"
    )


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        ((0.5, 0.3, 0.7), (0.0, -0.1, 0.1), "comes back: 0.50 [0.30, 0.70] after NPO"),
        ((0.5, 0.05, 0.7), (0.0, -0.1, 0.1), "more is not shown to come back after the one"),
        (
            (-0.5, -0.7, -0.3),
            (-0.9, -1.0, -0.8),
            "more is not shown to come back after the one",
        ),
    ],
)
def test_a_direction_is_told_where_it_brings_back_more_than_a_random_one(own, other, said):
    rows = [
        row(rung, "npo", recovered=value)
        for rung, value in zip(DIRECTIONS, (own, other), strict=True)
    ]
    assert said in inside.finding(pd.DataFrame(rows))


def test_where_no_hidden_states_were_looked_into_nothing_is_said():
    assert inside.finding(pd.DataFrame([row(LENS, "npo", oracle=float("nan"))])) == ""
