"""What views bring back on real models: made-up answers and ladders of known truth."""

import numpy as np
import pandas as pd
import pytest
from test_rungs import ANSWERS, RUNGS, SKILL, model
from test_style import assert_readable, undefined

from forgetlib.errors import InputError
from forgetlib.figures import implicit_pattern, implicit_views
from forgetlib.figures.rungs import Ladder, Seed
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


def ladder(form, known_form=SKILL):
    """A ladder of three seeds: forgotten plainly, of such a skill in another form."""
    rng = np.random.default_rng(0)
    seeds = [
        Seed(
            {
                "known": (model(rng, {"direct": SKILL, "form": known_form}),),
                "forgotten": (model(rng, {"direct": 0.0, "form": form}),),
                "oracle": tuple(model(rng, {"direct": 0.0}) for _ in range(2)),
            },
            ANSWERS,
        )
        for _ in range(3)
    ]
    return Ladder(seeds, RUNGS, n_resamples=FEW)


def test_what_a_form_brings_back_is_found_and_nothing_is_nothing():
    found = implicit_views.table({("sst2", "a"): ladder(SKILL), ("sst2", "b"): ladder(0.0)})
    found = found.set_index("method")
    assert found.counts.all()
    assert found.recovered["a"] == pytest.approx(1, abs=0.25)
    assert found.recovered_low["a"] > found.never_taught_high["a"]
    assert abs(found.recovered["b"]) < 0.25
    assert found.recovered_low["b"] < 0 < found.recovered_high["b"]
    assert (abs(found.never_taught) < 0.3).all()
    said = implicit_views.finding(found.reset_index())
    assert "it brings something back in 1, beyond models that were never taught in 1 of 2" in said
    gain, cost = found[["gain", "cost"]].mean()
    assert f"where forgetting cost {cost:.2f} (means of 2 cases)" in said
    assert said.startswith(f"Another form changes AUROC by {gain:.2f}")
    alone = found.assign(never_taught=np.nan, never_taught_high=np.nan).reset_index()
    assert "Models that were never taught are not there" in implicit_views.finding(alone)


def test_what_was_lost_a_little_weighs_a_little():
    """A ratio of little lost is large whatever happens: sums are pooled, not ratios."""
    many = grown(1).assign(form="capitals")
    many.loc[0, ["gain", "cost"]] = -0.3, 0.01
    far = pd.concat([many, grown(1, 3).assign(gain=0.1, cost=0.4)])
    means = far.groupby("form")[["gain", "cost"]].mean()
    share = (means["gain"] / means["cost"])["capitals"]
    assert abs(share) < 1 < abs((many["gain"] / many["cost"]).mean())
    assert implicit_views.distance_claim(far).n[0] == 4


def test_a_form_that_the_known_model_cannot_read_does_not_count():
    (row,) = implicit_views.table({("sst2", "a"): ladder(SKILL, 0.0)}).to_dict("records")
    assert not row["counts"]
    assert np.isnan(row["recovered"])
    assert "In no form and task" in implicit_views.finding(pd.DataFrame([row]))


def grown(sign, n=8):
    """Forms of growing distance, of which more comes back, or less."""
    share = 0.1 + 0.1 * np.arange(n)
    return pd.DataFrame(
        {
            "eval_task": "sst2",
            "method": "random",
            "form": [f"form {i}" for i in range(n)],
            "counts": True,
            "recovered": share[::sign],
            "gain": share[::sign] * 0.4,
            "cost": 0.4,
            "distance": np.arange(n, dtype=float),
        }
    )


def test_recovery_that_grows_with_distance_holds_and_one_that_falls_does_not():
    (up,), (down,) = (implicit_views.distance_claim(grown(s)).verdict for s in (1, -1))
    assert (up, down) == (HOLDS, DOES_NOT_HOLD)
    none = implicit_views.distance_claim(grown(1).assign(counts=False))
    assert none.why[0] == "needs a form in which the known model is above chance"


def test_distances_are_those_of_the_views():
    found = implicit_views.table({("sst2", "a"): ladder(SKILL)})
    assert implicit_views.with_distances(found, {"upper": 3.5, "leet": 6.0}).distance[0] == 3.5
    assert np.isnan(implicit_views.with_distances(found, {"leet": 6.0}).distance[0])


def test_pictures_can_be_read(monkeypatch):
    of_patterns = implicit_pattern.table(answers(SHARES), n_resamples=FEW)
    assert_readable(implicit_pattern.draw(of_patterns), monkeypatch)
    of_views = implicit_views.table({("sst2", "random"): ladder(SKILL), ("sst2", "npo"): ladder(0)})
    assert_readable(implicit_views.draw(of_views), monkeypatch)
    implicit_pattern.draw(undefined(of_patterns))
    implicit_views.draw(undefined(of_views))
