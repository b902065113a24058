"""Pattern or instruction on real models: made-up answers of known truth."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from test_style import assert_readable, undefined

from forgetlib.errors import InputError
from forgetlib.figures.implicit import pattern as implicit_pattern, readme as implicit_readme
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.statements import CANNOT_DECIDE, DOES_NOT_HOLD, HOLDS

FEW = 200
TOKENS = {"pattern_tokens": 1, "instruction_tokens": 1}


def answers(shares, n=200, seeds=(0, 1, 2), task="upper-blank"):
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
                        "task": task,
                        "view": view,
                        "uid": f"{task}/{i}",
                        "pattern": -1.0 if prefers[i] else -3.0,
                        "instruction": -2.0,
                        "distance": 2.0 + distance,
                        **TOKENS,
                    }
                )
    return pd.DataFrame(rows)


def by_view(found, score=implicit_pattern.PER_TOKEN):
    return implicit_pattern.of_views(found, score)


def verdicts(found):
    """Verdicts by statistic, without the words that all have."""
    judged = implicit_pattern.claims(found)
    short = judged["statistic"].str.removesuffix(", less that as asked plainly, per token")
    return judged.set_index(short.str.removeprefix("share after tuning in "))


SHARES = {"plain": (0.9, 0.2), "upper": (0.9, 0.2), "leet": (0.9, 0.7), "pig_latin": (0.2, 0.6)}


def test_shares_drops_and_what_a_view_brings_back_are_found():
    whole = implicit_pattern.table(answers(SHARES), n_resamples=FEW)
    found = by_view(whole)
    for view, (base, tuned) in SHARES.items():
        assert found.base[view] == pytest.approx(base, abs=0.08)
        assert found["drop"][view] == pytest.approx(base - tuned, abs=0.1)
    assert found.back["leet"] == pytest.approx(0.5, abs=0.15)
    assert found.back_low["leet"] > 0 > found.back_low["upper"]
    assert np.isnan(found.back["plain"])
    judged = verdicts(whole).verdict
    assert judged["drop of the pattern by tuning, per token"] == HOLDS
    assert judged["leetspeak"] == HOLDS and judged["capitals"] != HOLDS
    # a view in which the base model has no pattern shows nothing, though the tuned model has
    assert found.back_low["pig_latin"] > 0 and judged["Pig Latin"] == CANNOT_DECIDE
    assert "needs a base model" in verdicts(whole).why["Pig Latin"]
    assert implicit_pattern.brought(whole) == (["leet"], [])
    leet = estimate_of(found.loc["leet"], "back")
    assert implicit_pattern.finding(whole).endswith(
        f"; leetspeak brings some of it back, {leet} (per token {leet})"
    )


def of_lengths(pattern_tokens, instruction_tokens, shares=(0.9, 0.7)):
    """Answers whose lengths differ in leetspeak alone, where models prefer so often as a whole."""
    made = answers({"plain": (1.0, 0.0), "leet": shares})
    of = made["view"] == "leet"
    made.loc[of, list(TOKENS)] = pattern_tokens, instruction_tokens
    return made


def test_a_preference_that_only_the_length_of_an_answer_makes_brings_nothing_back():
    """-1 of one token and -2 of three: the shorter is likelier as a whole, the longer a token."""
    made = of_lengths(1, 3)
    base = (made["model"] == "base") & (made["view"] == "leet")
    made.loc[base, "pattern"] = -0.1  # likelier per token too, so that the view counts
    found = implicit_pattern.table(made, n_resamples=FEW)
    assert by_view(found, implicit_pattern.WHOLE).back["leet"] == pytest.approx(0.7, abs=0.1)
    assert by_view(found).tuned["leet"] == 0
    assert implicit_pattern.brought(found) == ([], ["leet"])
    assert verdicts(found).verdict["leetspeak"] == CANNOT_DECIDE
    assert "leetspeak does so by whole answers alone" in implicit_pattern.finding(found)
    said = implicit_readme._pattern(found)
    assert implicit_readme.UNCLEAR not in said
    assert (
        "in leetspeak the pattern's answer is the shorter, 1.0 tokens on average against 3.0"
        in said
    )


def test_a_preference_per_token_alone_brings_nothing_back():
    found = implicit_pattern.table(of_lengths(3, 1, (1.0, 0.0)), n_resamples=FEW)
    assert by_view(found).back["leet"] == 1 and implicit_pattern.brought(found) == ([], [])
    made = of_lengths(3, 1, (1.0, 0.0))
    other = made["uid"].isin([f"upper-blank/{i}" for i in range(50)])
    made.loc[other & (made["view"] == "leet"), list(TOKENS)] = 1
    found = implicit_pattern.table(made, n_resamples=FEW)
    assert by_view(found).back_low["leet"] > 0
    judged = verdicts(found).loc["leetspeak"]
    assert (judged.verdict, judged.why) == (CANNOT_DECIDE, "needs whole answers that say the same")


def test_a_share_on_which_all_prompts_agree_has_no_interval():
    found = implicit_pattern.table(answers({"plain": (1.0, 0.0), "upper": (1.0, 0.0)}))
    plain = by_view(found).loc["plain"]
    assert plain["drop"] == 1 and np.isnan(plain[["drop_low", "drop_high"]].astype(float)).all()
    said = "1.00 (on all of 600 prompts; per token 1.00 on all of 600)"
    assert implicit_pattern.told(found, "plain", "drop") == said
    judged = implicit_pattern.claims(found).iloc[0]
    assert (judged.verdict, judged.why) == (CANNOT_DECIDE, "needs prompts that do not all agree")
    assert implicit_pattern.counts(found).all()  # on all prompts is over half of them


def test_kinds_of_inputs_are_told_apart():
    of = {"upper-blank": (0.9, 0.0), "upper-arithmetic": (0.9, 0.8)}
    made = [answers({"plain": (1.0, 0.0), "leet": s}, task=task) for task, s in of.items()]
    found = implicit_pattern.table(pd.concat(made), n_resamples=FEW)
    assert list(dict.fromkeys(found["inputs"])) == ["all", "blank", "arithmetic"]
    blank, numbers = (
        implicit_pattern.of_views(found, implicit_pattern.PER_TOKEN, kind)
        for kind in ("blank", "arithmetic")
    )
    assert blank.tuned["leet"] == 0 and numbers.tuned["leet"] == pytest.approx(0.8, abs=0.05)
    assert by_view(found).tuned["leet"] == pytest.approx(numbers.tuned["leet"] / 2)
    assert (by_view(found).n == 1200).all() and (blank.n == 600).all()
    share = f"{numbers.tuned['leet']:.2f}"
    said = implicit_readme._pattern(found)
    assert f": 0.00 on blank and {share} on arithmetic prompts): the pattern is still" in said


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
    found = implicit_pattern.table(answers(shares), n_resamples=FEW)
    by = by_view(found)
    assert by["drop"]["template(3)"] < 0.9 and by["back"]["template(3)"] == 0
    assert implicit_pattern.finding(found).endswith("no view is shown to bring it back")


def test_tuning_that_costs_nothing_does_not_hold():
    found = implicit_pattern.table(answers({"plain": (0.2, 0.9)}), n_resamples=FEW)
    assert implicit_pattern.claims(found.assign(base_low=0.6)).verdict[0] == DOES_NOT_HOLD


def test_seeds_have_prompts_of_their_own_and_their_spread_counts():
    apart = pd.concat(
        answers({"plain": (0.9, share)}, seeds=[seed]) for seed, share in enumerate((0.1, 0.5, 0.8))
    )
    whole = implicit_pattern.table(apart, n_resamples=FEW)
    found = by_view(whole).loc["plain"]
    assert (found["n"], found["n_seeds"]) == (600, 3)
    assert found["tuned"] == pytest.approx((0.1 + 0.5 + 0.8) / 3, abs=0.05)
    assert found["tuned_high"] - found["tuned_low"] > 0.5  # Student's t of three seeds
    assert implicit_pattern.claims(whole).verdict[0] not in (HOLDS, DOES_NOT_HOLD)
    one = implicit_pattern.table(apart[apart["seed"] == 0].drop(columns="seed"), n_resamples=FEW)
    assert (one["n"][0], one["n_seeds"][0]) == (200, 1)
    assert one["tuned_high"][0] - one["tuned_low"][0] < 0.2
    assert "three seeds" in implicit_pattern.claims(one).why[0]


def test_answers_of_other_prompts_are_told():
    table = answers(SHARES)
    with pytest.raises(InputError, match="the same prompts of 'base' and 'tuned'"):
        odd = (table.uid == "upper-blank/3") & (table.model == "tuned") & (table.seed == 1)
        implicit_pattern.table(table[~odd])
    with pytest.raises(InputError, match="the same prompts of 'base' and 'other'"):
        implicit_pattern.table(table, tuned="other")
    with pytest.raises(InputError, match="columns pattern_tokens"):
        implicit_pattern.table(table.drop(columns="pattern_tokens"))


def test_pictures_can_be_read(monkeypatch):
    of_patterns = implicit_pattern.table(answers(SHARES), n_resamples=FEW)
    assert_readable(implicit_pattern.draw(of_patterns), monkeypatch)
    implicit_pattern.draw(undefined(of_patterns))
