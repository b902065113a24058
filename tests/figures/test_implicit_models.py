"""Pattern or instruction on real models: made-up answers of known truth."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from test_style import assert_readable, undefined

from forgetlib.errors import InputError
from forgetlib.figures import implicit_pattern
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.statements import CANNOT_DECIDE, DOES_NOT_HOLD, HOLDS

FEW = 200


def answers(shares, n=200, seeds=(0, 1, 2)):
    """Answers of a base and a tuned model that prefer the pattern so often, by view."""
    rng = np.random.default_rng(0)
    rows = []
    for distance, (view, of) in enumerate(shares.items()):
        for (name, share), seed in product(zip(("base", "tuned"), of, strict=True), seeds):
            prefers = rng.random(n) < share
            for i in range(n):
                rows.append(
                    {
                        "seed": seed,
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
    assert found.back["leet"] == pytest.approx(0.5, abs=0.15)
    assert found.back_low["leet"] > 0 > found.back_low["upper"]
    assert np.isnan(found.back["plain"])
    judged = implicit_pattern.claims(found.reset_index()).set_index("statistic").verdict
    assert judged["drop of the pattern by tuning"] == HOLDS
    assert judged["share after tuning in leetspeak, less that as asked plainly"] == HOLDS
    assert judged["share after tuning in capitals, less that as asked plainly"] != HOLDS
    # a view in which the base model has no pattern either shows nothing
    assert judged["share after tuning in Pig Latin, less that as asked plainly"] not in (
        HOLDS,
        DOES_NOT_HOLD,
    )
    leet = estimate_of(found.loc["leet"], "back")
    assert implicit_pattern.finding(found.reset_index()).endswith(
        f"; leetspeak ({leet}) brings some of it back"
    )


@pytest.mark.parametrize(
    ("n", "falls", "verdict"),
    [(9, False, HOLDS), (9, True, DOES_NOT_HOLD), (4, False, CANNOT_DECIDE)],
)
def test_whether_the_farther_brings_more_is_told_over_views(n, falls, verdict):
    """The n-th view is farther than the one before; another, the farthest, does not count."""
    shares = np.linspace(0.1, 0.8, n)[:: -1 if falls else 1]
    of = {"plain": (0.9, 0.0)} | {f"template({i})": (0.9, s) for i, s in enumerate(shares)}
    of |= {"leet": (0.2, 0.9 if falls else 0.0)}
    judged = implicit_pattern.claims(implicit_pattern.table(answers(of), n_resamples=FEW))
    last = judged.iloc[-1]
    assert last["statistic"].startswith("rank correlation of that share with nats a token")
    assert (last["n"], last["unit"], last["verdict"]) == (n, "views", verdict)
    assert last["value"] == pytest.approx(-1 if falls else 1)
    one = implicit_pattern.table(answers(of, seeds=(0,)), n_resamples=FEW)
    assert "three seeds" in implicit_pattern.claims(one).iloc[-1]["why"]


def test_a_form_in_which_the_base_model_has_less_to_lose_brings_nothing_back_by_that():
    shares = {"plain": (1.0, 0.0), "template(3)": (0.8, 0.0)}
    found = implicit_pattern.table(answers(shares), n_resamples=FEW).set_index("view")
    assert found["drop"]["template(3)"] < 0.9 and found["back"]["template(3)"] == 0
    assert implicit_pattern.finding(found.reset_index()).endswith(
        "no view is shown to bring it back"
    )


def test_tuning_that_costs_nothing_does_not_hold():
    found = implicit_pattern.table(answers({"plain": (0.2, 0.9)}), n_resamples=FEW)
    assert implicit_pattern.claims(found.assign(base_low=0.6)).verdict[0] == DOES_NOT_HOLD


def test_seeds_have_prompts_of_their_own_and_their_spread_counts():
    apart = pd.concat(
        answers({"plain": (0.9, share)}, seeds=[seed]) for seed, share in enumerate((0.1, 0.5, 0.8))
    )
    found = implicit_pattern.table(apart, n_resamples=FEW).iloc[0]
    assert (found["n"], found["n_seeds"]) == (600, 3)
    assert found["tuned"] == pytest.approx((0.1 + 0.5 + 0.8) / 3, abs=0.05)
    assert found["tuned_high"] - found["tuned_low"] > 0.5  # Student's t of three seeds
    assert implicit_pattern.claims(pd.DataFrame([found])).verdict[0] not in (HOLDS, DOES_NOT_HOLD)
    one = implicit_pattern.table(apart[apart["seed"] == 0].drop(columns="seed"), n_resamples=FEW)
    assert (one["n"][0], one["n_seeds"][0]) == (200, 1)
    assert one["tuned_high"][0] - one["tuned_low"][0] < 0.2
    assert "three seeds" in implicit_pattern.claims(one).why[0]


def test_answers_of_other_prompts_are_told():
    table = answers(SHARES)
    with pytest.raises(InputError, match="the same prompts of 'base' and 'tuned'"):
        odd = (table.uid == "p/3") & (table.model == "tuned") & (table.seed == 1)
        implicit_pattern.table(table[~odd])
    with pytest.raises(InputError, match="the same prompts of 'base' and 'other'"):
        implicit_pattern.table(table, tuned="other")
    with pytest.raises(InputError, match="columns distance"):
        implicit_pattern.table(table.drop(columns="distance"))


def test_pictures_can_be_read(monkeypatch):
    of_patterns = implicit_pattern.table(answers(SHARES), n_resamples=FEW)
    assert_readable(implicit_pattern.draw(of_patterns), monkeypatch)
    implicit_pattern.draw(undefined(of_patterns))
