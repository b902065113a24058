"""Pattern or instruction on real models: made-up answers of known truth."""

import numpy as np
import pandas as pd
import pytest
from test_style import assert_readable, undefined

from forgetlib.errors import InputError
from forgetlib.figures import implicit_pattern
from forgetlib.figures.statements import DOES_NOT_HOLD, HOLDS

FEW = 200


def answers(shares, n=200):
    """Answers of a base and a tuned model that prefer the pattern so often, by view."""
    rng = np.random.default_rng(0)
    rows = []
    for distance, (view, of) in enumerate(shares.items()):
        for name, share in zip(("base", "tuned"), of, strict=True):
            prefers = rng.random(n) < share
            for i in range(n):
                rows.append(
                    {
                        "model": name,
                        "task": "upper-blank",
                        "view": view,
                        "uid": f"p/{i}",
                        "pattern": -1.0 if prefers[i] else -3.0,
                        "instruction": -2.0,
                        "distance": 2.0 + distance,
                    }
                )
    return pd.DataFrame(rows)


SHARES = {"plain": (0.9, 0.2), "upper": (0.9, 0.2), "leet": (0.9, 0.7), "pig_latin": (0.2, 0.2)}


def test_shares_drops_and_what_a_view_brings_back_are_found():
    found = implicit_pattern.table(answers(SHARES), n_resamples=FEW).set_index("view")
    for view, (base, tuned) in SHARES.items():
        assert found.base[view] == pytest.approx(base, abs=0.08)
        assert found["drop"][view] == pytest.approx(base - tuned, abs=0.1)
    assert found.less_than_plain["leet"] == pytest.approx(0.5, abs=0.15)
    assert found.less_than_plain_low["leet"] > 0 > found.less_than_plain_low["upper"]
    assert np.isnan(found.less_than_plain["plain"])
    judged = implicit_pattern.claims(found.reset_index()).set_index("statistic").verdict
    assert judged["drop of the pattern by tuning"] == HOLDS
    assert judged["drop as asked plainly less the drop in leetspeak"] == HOLDS
    assert judged["drop as asked plainly less the drop in capitals"] != HOLDS
    # a view in which the base model has no pattern either shows nothing
    assert judged["drop as asked plainly less the drop in Pig Latin"] not in (HOLDS, DOES_NOT_HOLD)
    assert implicit_pattern.finding(found.reset_index()).endswith(
        "; leetspeak brings some of it back"
    )


def test_tuning_that_costs_nothing_does_not_hold():
    found = implicit_pattern.table(answers({"plain": (0.2, 0.9)}), n_resamples=FEW)
    assert implicit_pattern.claims(found.assign(base_low=0.6)).verdict[0] == DOES_NOT_HOLD


def test_answers_of_other_prompts_are_told():
    table = answers(SHARES)
    with pytest.raises(InputError, match="the same prompts of 'base' and 'tuned'"):
        implicit_pattern.table(table[(table.uid != "p/3") | (table.model == "base")])
    with pytest.raises(InputError, match="the same prompts of 'base' and 'other'"):
        implicit_pattern.table(table, tuned="other")
    with pytest.raises(InputError, match="columns distance"):
        implicit_pattern.table(table.drop(columns="distance"))


def test_pictures_can_be_read(monkeypatch):
    of_patterns = implicit_pattern.table(answers(SHARES), n_resamples=FEW)
    assert_readable(implicit_pattern.draw(of_patterns), monkeypatch)
    implicit_pattern.draw(undefined(of_patterns))
