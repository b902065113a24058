"""The verdicts' rule on models of known truth, put together out of a study's own."""

import pandas as pd
import pytest
from test_rungs import ANSWERS, FEW, FORM, NEVER, RUNGS, auroc, seeds

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import verdicts
from forgetlib.figures.methods import rule
from forgetlib.figures.methods.rungs import DIRECT, Ladder

FOUND = {("sst2", "random"): Ladder(seeds(NEVER), RUNGS, 200)}


def test_clear_cases_get_their_verdicts():
    table = rule.table(FOUND, most=2, n_resamples=200)
    assert list(dict.fromkeys(table["truth"])) == [
        *("kept", "shifted", "inverted", "gated", "suppressed", "removed", "damaged")
    ]
    # Of these few seeds one model's questions leave open whether half of the skill comes back.
    left = table[table["verdict"] != table["truth"]]
    assert left[["truth", "case", "verdict"]].to_numpy().tolist() == [["removed", 0, "not decided"]]
    assert len(table) == 1 + 2 + 1 + 4 * 2
    said = rule.finding(table)
    assert said.startswith("The rule names the truth of 11 of 12 models made of those of SST-2")
    counts = rule.matrix(table)
    assert list(counts["truth"]) == list(rule.TRUTHS)
    assert counts.set_index("truth").to_numpy().sum() == 12
    assert counts.set_index("truth").loc["shifted", "shifted"] == 2


def test_what_is_open_and_what_is_wrong_is_told():
    truths = ["kept", "gated", "removed", "removed"]
    given = ["kept", "not decided", "suppressed", "suppressed"]
    table = pd.DataFrame(
        {"eval_task": "sst2", "truth": truths, "case": 0, "verdict": given}, index=range(4)
    )
    said = rule.finding(table)
    assert said.endswith("leaves 1 open, and is wrong in 2 (removed called suppressed: 2)")
    assert list(rule.matrix(table)) == ["truth", "kept", "suppressed", "not decided"]


def test_models_are_what_their_truth_says():
    (ladder,) = FOUND.values()
    of = {(truth, i): found for truth, i, found in rule.cases(ladder, 2)}
    known = ladder.seeds[0].models["known"][0]
    never = ladder.seeds[0].models["oracle"]

    def model(truth, i):
        return of[truth, i][0].models["forgotten"][0]

    def direct(m):
        return m.rungs[DIRECT.name][0]

    for side, share in ((0, 0.0), (1, 1.0)):  # one answer to everything; the order is untouched
        shifted = direct(model("shifted", side))
        chosen = [ANSWERS[u][0] == "yes" for u in shifted.uids]
        right = metrics.correct(shifted)
        assert {bool(r) == c for r, c in zip(right, chosen, strict=True)} == {bool(share)}
        assert auroc(shifted) == pytest.approx(auroc(direct(known)))
    assert auroc(direct(model("inverted", 0))) == pytest.approx(1 - auroc(direct(known)))
    for i in (0, 1):
        assert direct(model("gated", i)) is direct(never[i])
        assert model("gated", i).rungs[FORM.name] is known.rungs[FORM.name]
        assert model("gated", i).rungs[FEW.name] is never[i].rungs[FEW.name]
        assert model("suppressed", i).rungs[FEW.name] is known.rungs[FEW.name]
        assert model("suppressed", i).rungs[FORM.name] is never[i].rungs[FORM.name]
        # The null has no model that stands in for the forgotten one.
        (seed, *_) = of["removed", i]
        assert [m is never[1 - i] for m in seed.models["oracle"]] == [True, False]
        before, after = (
            metrics.nll_a_token(m.elsewhere[0]).mean() for m in (known, model("damaged", i))
        )
        assert after - before == pytest.approx(2 * verdicts.DAMAGE, rel=1e-5)


def test_skills_of_which_nothing_can_be_said_are_left_out():
    unknown = Ladder(seeds(NEVER, known=NEVER), RUNGS, 200)
    alone = Ladder(seeds(NEVER, oracle=seeds(NEVER, n_seeds=1)[0].models["oracle"][:1]), RUNGS, 200)
    found = rule.table({("sst2", "random"): unknown, ("cola", "random"): alone}, n_resamples=200)
    assert found.empty and rule.finding(found).startswith("No skill was shown to be known")
    assert list(rule.matrix(found)) == ["truth"]


def test_a_bias_is_one_of_two_answers():
    (ladder,) = FOUND.values()
    three = [
        type(s)(
            s.models,
            {u: (("maybe", "no") if i < 9 else a) for i, (u, a) in enumerate(ANSWERS.items())},
        )
        for s in ladder.seeds
    ]
    truths = {truth for truth, *_ in rule.cases(Ladder(three, RUNGS, 200), 1)}
    assert "shifted" not in truths and "inverted" in truths


def test_without_never_taught_models_nothing_can_be_tried():
    alone = [type(s)({r: m for r, m in s.models.items() if r != "oracle"}) for s in seeds(NEVER)]
    with pytest.raises(InputError, match="two never-taught models or more in every seed"):
        list(rule.cases(Ladder(alone, RUNGS)))
