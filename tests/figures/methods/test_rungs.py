"""The ladder: what is left, what comes back, and the verdict, on made-up models of known truth."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import verdicts
from forgetlib.figures.intervals import UNDEFINED
from forgetlib.figures.methods import ladder_figure, ladders, rungs
from forgetlib.figures.methods.rungs import DIRECT, Model, Rung, Seed
from forgetlib.figures.numbers import estimate_of, number
from forgetlib.figures.verdicts import HALF
from forgetlib.measuring.base import Scores
from forgetlib.metrics import CHANCE

Ladder = partial(rungs.Ladder, n_resamples=300)  # which decide as all 2,000 do
N = 200
FORM, CONTEXT = Rung("capitals", "form"), Rung("8 examples", "context", 8)
FEW, MANY = Rung("relearned from 8", "relearned", 8), Rung("relearned from 128", "relearned", 128)
SHUFFLED = Rung("relearned from 128, random labels", "control")
RUNGS = (DIRECT, FORM, CONTEXT, FEW, MANY, SHUFFLED)
SKILL = 1.3  # distance of yes from no, in deviations: AUROC about 0.82 over pairs


def scores(rng, skill, bias=0.0):
    """Scores of N questions with the answers yes and no, known so well, with a bias to yes."""
    is_yes = np.arange(N) % 2 == 0
    yes = np.where(is_yes, skill, -skill) / 2 + rng.standard_normal(N) + bias
    values = np.stack([yes / 2, -yes / 2], axis=1) - 20
    uids = tuple(f"t/test/{i}" for i in range(N))
    return Scores(
        uids, values.astype(np.float32), np.ones((N, 2), np.int32), 1 - is_yes.astype(int)
    )


ANSWERS = {f"t/test/{i}": ("yes", "no") if i % 2 == 0 else ("no", "yes") for i in range(N)}


def elsewhere(rng, nll):
    found = scores(rng, 1.0)
    values = np.full((N, 2), -nll) + 0.3 * rng.standard_normal((N, 2))
    uids = tuple(u.replace("t/", "other/") for u in found.uids)
    return (replace(found, uids=uids, log_likelihoods=values.astype(np.float32)),)


def model(rng, skills, bias=0.0, nll=3.0):
    """A model of such a skill on each rung, two draws of what is relearned."""
    found = {}
    for rung in RUNGS:
        skill = skills.get(rung.kind if rung is not MANY else "many", skills["direct"])
        n = 2 if rung.kind == "relearned" else 1
        found[rung.name] = tuple(scores(rng, skill, bias) for _ in range(n))
    return Model(found, elsewhere(rng, nll))


NEVER = {"direct": 0.0, "context": 0.3, "relearned": 0.2, "many": 0.7}
KNOWN = {"direct": SKILL}
TRUTHS = {
    verdicts.KEPT: ({"direct": SKILL}, {}),
    verdicts.SHIFTED: ({"direct": SKILL}, {"bias": 6.0}),
    verdicts.INVERTED: (NEVER | {"direct": -SKILL}, {}),
    verdicts.DAMAGED: (NEVER, {"nll": 9.0}),
    verdicts.GATED: (NEVER | {"form": SKILL}, {}),
    verdicts.SUPPRESSED: (NEVER | {"relearned": SKILL}, {}),
    verdicts.REMOVED: (NEVER, {}),
}


def seeds(forgotten, more=None, n_seeds=5, known=KNOWN, **changes):
    found = []
    for seed in range(n_seeds):
        rng = np.random.default_rng([seed, 1])
        models = {
            "known": (model(rng, known),),
            "forgotten": (model(rng, forgotten, **(more or {})),),
            "oracle": tuple(model(rng, NEVER) for _ in range(3)),
            "moved": (model(rng, known),),
        }
        models["twin"] = models["oracle"][-1:]
        found.append(Seed(models | changes, ANSWERS))
    return found


@pytest.mark.parametrize("truth", TRUTHS)
def test_each_truth_gets_its_verdict(truth):
    assert Ladder(seeds(*TRUTHS[truth]), RUNGS).verdict() == truth


def test_a_seed_that_is_not_taught_again_yet_takes_no_rung_from_the_others():
    first, second, later = seeds(NEVER, n_seeds=3)
    less = {
        role: tuple(
            replace(m, rungs={k: v for k, v in m.rungs.items() if k != FEW.name}) for m in of
        )
        for role, of in later.models.items()
    }
    later = replace(later, models=less)
    assert ladders._complete([first, later, second]) == [first, second]
    assert ladders._complete([later, later]) == [later, later]
    # With one seed there is no interval over seeds: then it is the rung that is left out.
    assert ladders._complete([first, later]) == [first, later]
    assert FEW in Ladder([first], RUNGS).rungs and FEW not in Ladder([first, later], RUNGS).rungs
    # Where each lacks something else, all stay, and what any lacks is not told.
    other, moved = (
        replace(first, models={r: of for r, of in first.models.items() if r != role})
        for role in ("oracle", "moved")
    )
    assert ladders._complete([later, other]) == [later, other]
    assert ladders._complete([moved, first, other]) == [moved, first]


def test_what_was_never_known_is_nothing_to_forget():
    assert Ladder(seeds(NEVER, known=NEVER), RUNGS).verdict() == verdicts.NOTHING


def test_where_another_task_s_training_does_the_same_it_is_damage():
    moved = (model(np.random.default_rng(9), NEVER),)
    assert Ladder(seeds(NEVER, moved=moved), RUNGS).verdict() == verdicts.DAMAGED


def test_two_seeds_decide_little():
    """Student's t of two seeds is wide: that half comes back is not excluded."""
    few = [replace(s, models=dict(s.models)) for s in seeds(NEVER, n_seeds=2)]
    # With all resamples, as so wide an interval has ends that few of them decide.
    assert rungs.Ladder(few, RUNGS).verdict() == verdicts.NOT_DECIDED


def test_a_never_taught_model_that_knows_the_skill_is_no_null():
    """What pre-training knows cannot be told from what was taught: SST-2 is such a skill."""
    rng = np.random.default_rng(5)
    knowing = tuple(model(rng, dict.fromkeys(NEVER, 0.8)) for _ in range(3))
    found = Ladder(seeds(NEVER, oracle=knowing), RUNGS)
    assert found.oracle_knows and not found.oracle_is_null
    assert found.verdict() == verdicts.FORGOTTEN  # and not removed
    assert found.residue() is UNDEFINED and found.excess(FEW) is UNDEFINED
    row = rungs.table({("t", "random"): found}).set_index("rung").loc[FEW.name]
    assert row["oracle"] == found.of("auroc", "oracle", FEW).value  # is shown all the same
    found = Ladder(seeds(NEVER), RUNGS)
    assert found.oracle_is_null and not found.oracle_knows
    assert not Ladder([replace(s, models=_without(s)) for s in seeds(NEVER)], RUNGS).oracle_knows


def _without(seed):
    return {role: of for role, of in seed.models.items() if role != "oracle"}


def test_what_cannot_teach_removes_nothing():
    """Where no training taught a never-taught model anything, it is no test of what is left."""
    found = seeds(NEVER)
    for seed in found:
        for m in (m for of_role in seed.models.values() for m in of_role):
            m.rungs.update({r.name: m.rungs[DIRECT.name] for r in (FEW, MANY)})
    assert Ladder(found, RUNGS).verdict() == verdicts.NOT_DECIDED


def with_lock(truth, skills, n_seeds=5):
    """Seeds of such a truth, in which so many have a model whose skill was hidden on purpose."""
    return [
        replace(s, models=s.models | {"locked": (model(np.random.default_rng([i, 2]), skills),)})
        if i < n_seeds
        else s
        for i, s in enumerate(seeds(*TRUTHS[truth]))
    ]


HIDDEN = NEVER | {"relearned": SKILL, "many": SKILL, "form": SKILL}
LOCKS = {  # skill of the locked model, and whether relearning is then shown to find a hidden skill
    "hidden": (HIDDEN, True),
    "destroyed": (NEVER, False),
    "not hidden": (KNOWN, False),
    "comes back late": (HIDDEN | {"relearned": NEVER["relearned"]}, False),
    # Most of it is shown after the training, and was before: it gains as never-taught models do.
    "mostly there before": (dict.fromkeys(("direct", "relearned", "many"), 0.9), False),
}


@pytest.mark.parametrize("truth", [verdicts.REMOVED, verdicts.SUPPRESSED])
@pytest.mark.parametrize("lock", LOCKS)
def test_what_does_not_find_a_hidden_skill_removes_nothing(truth, lock):
    """A skill that is known to be hidden tells whether relearning finds one."""
    skills, finds = LOCKS[lock]
    of = Ladder(with_lock(truth, skills), RUNGS, has_control=True)
    weak = {verdicts.REMOVED: verdicts.NOT_DECIDED}  # what comes back all the same does come back
    assert of.verdict() == (truth if finds else weak.get(truth, truth))
    table = rungs.table({("t", "random"): of}).set_index("rung")
    assert table.loc[FEW.name, "finds"] == of.finds(FEW) == finds
    assert table.loc[MANY.name, "finds"] == (finds or lock == "comes back late")
    assert not table.loc["directly", "finds"] and not table.loc["as answered", "finds"]
    few = table.loc[FEW.name]
    by_hand = [
        (few[role] - few["oracle"]) / (few["known"] - few["oracle"])
        for role in ("locked", "forgotten")
    ]
    assert [few["locked_excess"], few["excess"]] == pytest.approx(by_hand)
    rise = few["locked_excess"] - table.loc["directly", "locked_excess"]
    assert few["locked_rise"] == pytest.approx(rise)
    assert not finds or few["locked_rise_low"] > 0
    if lock == "mostly there before":
        assert few["locked_excess_low"] > HALF and few["locked_rise_low"] < 0


def dosed(found, at_dose):
    return [replace(s, at_dose=there) for s, there in zip(found, at_dose, strict=True)]


@pytest.mark.parametrize("truth", [verdicts.SUPPRESSED, verdicts.GATED, verdicts.REMOVED])
def test_what_comes_back_has_to_in_the_seeds_at_the_dose_alone(truth):
    """Of two that reached it, one that did not bring it back: all five show it, these do not."""
    found = seeds(*TRUTHS[truth])
    found[0] = seeds(NEVER)[0]
    assert Ladder(found, RUNGS).verdict() in {truth, verdicts.NOT_DECIDED}
    every = Ladder(seeds(*TRUTHS[truth]), RUNGS)
    same = Ladder(dosed(every.seeds, [True] * 5), RUNGS)
    assert same.at_dose is same and every.at_dose is every
    few = Ladder(dosed(found, [True, True, False, False, False]), RUNGS)
    assert len(few.at_dose.seeds) == 2
    one = Ladder(dosed(every.seeds, [True] + [False] * 4), RUNGS)
    assert one.at_dose is None  # one of several: no interval over seeds
    for of in (few, one):
        # What does not come back is judged by all: a dose that was overshot is told by the sign.
        assert of.verdict() in {truth} & {verdicts.REMOVED} or of.verdict() == verdicts.NOT_DECIDED
    table = rungs.table({("t", "random"): few}).set_index("rung")
    assert table.loc[FEW.name, "dose_excess"] == few.at_dose.excess(FEW).value
    assert table.loc[FEW.name, "dose_twin_excess"] == few.at_dose.excess(FEW, twin=True).value
    assert rungs.at_dose(table.loc[FEW.name]) == [True, True, False, False, False]
    assert np.isnan(table.loc["directly", "dose_excess"])
    none = rungs.table({("t", "random"): one}).set_index("rung").loc[FEW.name]
    assert np.isnan(none["dose_excess"]) and rungs.at_dose(none).count(True) == 1
    plain = rungs.table({("t", "random"): every}).set_index("rung").loc[FEW.name]
    assert plain["dose_excess"] == plain["excess"]


def with_twin(truth, skills):
    """Seeds whose never-taught model of the same method is of such a skill; None: there is none."""
    found = []
    for i, seed in enumerate(seeds(*TRUTHS[truth])):
        models = {role: of for role, of in seed.models.items() if role != "twin"}
        if skills is not None:
            models["twin"] = (model(np.random.default_rng([9, i]), skills),)
        found.append(replace(seed, models=models))
    return found


FASTER = dict.fromkeys(("relearned", "many", "context", "form"), 2 * SKILL)


@pytest.mark.parametrize(
    ("truth", "skills", "verdict"),
    [
        (verdicts.SUPPRESSED, NEVER, verdicts.SUPPRESSED),
        (verdicts.SUPPRESSED, HIDDEN, verdicts.NOT_DECIDED),  # it learns as fast by itself
        (verdicts.SUPPRESSED, NEVER | FASTER, verdicts.NOT_DECIDED),
        (verdicts.SUPPRESSED, None, verdicts.NOT_DECIDED),
        (verdicts.REMOVED, NEVER, verdicts.REMOVED),
        # It learns so slowly by itself that of the forgotten one much has come back.
        (verdicts.REMOVED, NEVER | {"relearned": -1.0, "many": -1.0}, verdicts.NOT_DECIDED),
        (verdicts.REMOVED, None, verdicts.NOT_DECIDED),
        # Another form teaches nothing, so that a twin is no matter.
        (verdicts.GATED, NEVER | FASTER, verdicts.GATED),
        (verdicts.GATED, None, verdicts.GATED),
    ],
)
def test_what_a_method_alone_does_to_learning_is_not_what_was_left(truth, skills, verdict):
    assert Ladder(with_twin(truth, skills), RUNGS).verdict() == verdict


def test_what_is_beyond_the_twin_is_told():
    of = Ladder(with_twin(verdicts.SUPPRESSED, NEVER), RUNGS)
    few = rungs.table({("t", "npo"): of}).set_index("rung").loc[FEW.name]
    by_hand = (few["forgotten"] - few["twin"]) / (few["known"] - few["twin"])
    assert few["twin_excess"] == pytest.approx(by_hand)
    assert few["twin"] != few["oracle"] and few["twin_excess"] != few["excess"]
    for skills in (NEVER | FASTER, None):  # no share: it has more than the known one
        none = rungs.table({("t", "npo"): Ladder(with_twin(verdicts.SUPPRESSED, skills), RUNGS)})
        assert none.set_index("rung").loc[FEW.name, ["twin_excess"]].isna().all()
        assert none["twin"].isna().all() == (skills is None)


def test_without_a_lock_where_there_should_be_one_nothing_is_removed():
    """Also not where some seeds have it, of a study that is under way."""
    some = with_lock(verdicts.REMOVED, HIDDEN, n_seeds=1)
    for found in (some, seeds(NEVER)):
        assert Ladder(found, RUNGS, has_control=True).verdict() == verdicts.NOT_DECIDED
        without = rungs.table({("t", "random"): Ladder(found, RUNGS)})
        assert without[["locked", "locked_excess"]].isna().all(axis=None)
        assert not without["finds"].any()


@pytest.mark.parametrize(
    ("truth", "verdict"),
    [
        (verdicts.KEPT, verdicts.KEPT),
        (verdicts.SHIFTED, verdicts.SHIFTED),
        (verdicts.GATED, verdicts.GATED),
        (verdicts.SUPPRESSED, verdicts.FORGOTTEN),
        (verdicts.REMOVED, verdicts.FORGOTTEN),
    ],
)
def test_without_never_taught_models_the_verdict_is_weaker(truth, verdict):
    without = [
        replace(s, models={r: m for r, m in s.models.items() if r != "oracle"})
        for s in seeds(*TRUTHS[truth])
    ]
    found = Ladder(without, RUNGS)
    assert not found.oracle_is_null
    assert found.verdict() == verdict
    assert np.isnan(found.excess(FEW).value) and np.isnan(found.residue().value)


def auroc(scored):
    answers = np.array([ANSWERS[uid] for uid in scored.uids])
    return metrics.auroc(metrics.margins(scored), answers)


def mean(found, role, rung):
    """The mean AUROC over seeds of the mean over models and draws, once more by hand."""
    each = [
        np.mean([auroc(s) for m in seed.models[role] for s in m.rungs[rung.name]]) for seed in found
    ]
    return float(np.mean(each))


def test_ratios_are_sums_over_sums():
    found = seeds(NEVER | {"direct": 0.4, "relearned": 0.8})
    of = Ladder(found, RUNGS)
    roles = ("forgotten", "known", "oracle")
    g, f, c = (lambda rung, role=role: mean(found, role, rung) for role in roles)
    assert of.recovered(FEW).value == pytest.approx((g(FEW) - g(DIRECT)) / (f(DIRECT) - g(DIRECT)))
    assert of.excess(FEW).value == pytest.approx((g(FEW) - c(FEW)) / (f(FEW) - c(FEW)))
    rungs = RUNGS[:-1]  # the control is no rung of it
    assert of.residue().value == pytest.approx(
        sum(g(r) - c(r) for r in rungs) / sum(f(r) - c(r) for r in rungs)
    )
    for interval in (of.recovered(FEW), of.excess(FEW), of.residue()):
        assert interval.low < interval.value < interval.high


def test_a_ratio_is_undefined_where_its_denominator_may_be_0():
    kept = Ladder(seeds(KNOWN), RUNGS)
    assert np.isnan(kept.recovered(FORM).value)  # nothing was lost
    assert kept.excess(FORM).low > 0.5
    forms = KNOWN | {"form": 0.0}  # the known model does not show the skill in capitals
    gone = Ladder(seeds(NEVER, known=forms), RUNGS)
    assert np.isnan(gone.excess(FORM).value)
    assert FORM not in gone._judged
    assert gone.verdict() == verdicts.REMOVED


def test_many_forms_are_corrected_for():
    """Of twenty forms that bring nothing back, none is taken for a gate by accident."""
    forms = [Rung(f"form {i}", "form") for i in range(20)]
    n_gated = 0
    for repeat in range(3):
        found = seeds(NEVER, n_seeds=3)
        for i, seed in enumerate(found):
            rng = np.random.default_rng([repeat, i])
            for role, skill in (("known", SKILL), ("forgotten", 0.0), ("oracle", 0.0)):
                for m in seed.models[role]:
                    m.rungs.update({f.name: (scores(rng, skill),) for f in forms})
        n_gated += Ladder(found, (DIRECT, *forms), n_resamples=400).verdict() == verdicts.GATED
    assert n_gated == 0


def test_what_may_not_be_gone_is_not_said_to_come_back():
    """Half is gone, so that it is not decided whether most is; capitals bring a bit more."""
    half, more = SKILL * 0.46, SKILL * 1.0
    found = Ladder(seeds(NEVER | {"direct": half, "form": more, "relearned": SKILL}), RUNGS)
    left = found.remains().left
    assert left.low < 0 < left.high
    assert found.recovered(FORM).low > 0
    assert found.verdict() == verdicts.NOT_DECIDED


def test_a_form_that_shows_little_is_no_gate():
    """Most is gone, and capitals bring back some: it is beyond the null, and far from most."""
    found = Ladder(seeds(NEVER | {"direct": 0.1, "form": 0.5}), RUNGS)
    assert found.recovered(FORM).low > 0 and found.excess(FORM).low < verdicts.HALF
    assert not found.remains().by_form
    assert found.verdict() != verdicts.GATED


def test_models_of_different_questions_are_refused():
    found = seeds(NEVER)
    other = scores(np.random.default_rng(0), 1.0)
    other = replace(other, uids=tuple(u.replace("t/", "u/") for u in other.uids))
    found[0].models["forgotten"][0].rungs[FORM.name] = (other,)
    with pytest.raises(InputError, match="the same test questions of every model"):
        Ladder(found, RUNGS)


@pytest.mark.parametrize("role", ["known", "forgotten"])
def test_known_and_forgotten_have_to_be_there(role):
    lacking = [replace(s, models=dict(s.models) | {role: ()}) for s in seeds(NEVER)]
    with pytest.raises(InputError, match="in every seed a known and a forgotten model"):
        Ladder(lacking, RUNGS)
    with pytest.raises(InputError, match="in every seed"):
        Ladder([], RUNGS)


def test_a_null_that_knows_the_skill_is_told():
    found = {("sst2", "npo"): Ladder(seeds(*TRUTHS[verdicts.SUPPRESSED]), RUNGS)}
    summary = rungs.summary(found)
    assert "never taught" not in ladder_figure.finding(summary)
    assert ladder_figure.finding(summary.assign(oracle_knows=True)).endswith(
        "; models that were never taught it here know it too, so that suppressed and removed "
        "cannot be told apart"
    )
    two = pd.concat([summary, summary.assign(method="random", n_seeds=1)])
    assert ladder_figure.finding(two).endswith("; one seed, but of NPO several")
    three = pd.concat([two, summary.assign(method="dpo")])
    said = ladder_figure.finding(three)
    assert said.endswith("; several seeds, but of random labels one")
    assert "one seed" not in ladder_figure.finding(summary)


def test_what_the_same_methods_take_when_tried_on_another_task_is_told():
    of = seeds(*TRUTHS[verdicts.REMOVED])
    table = rungs.table({("sst2", "npo"): Ladder(of, RUNGS)})
    assert table["moved"].notna().any()
    row = table[table["rung"] == "directly"].iloc[0]
    assert ladder_figure.moved(table) == (
        f"Tried on another task, methods take AUROC on new questions of SST-2 from "
        f"{number(row['known'])} to {estimate_of(row, 'moved')} by NPO "
        f"({number(row['forgotten'])} where tried on the skill itself)"
    )
    assert ladder_figure.moved(table.assign(moved=np.nan)) == ""


def _alone(seed):
    return replace(seed, models=_without(seed))


def test_tables_say_what_the_ladder_says():
    ladders = {("t", "random"): Ladder(seeds(*TRUTHS[verdicts.SUPPRESSED]), RUNGS)}
    of = ladders["t", "random"]
    table = rungs.table(ladders).set_index("rung")
    assert list(table.index) == ["as answered", "calibrated", *(r.name for r in RUNGS)]
    row = table.loc["as answered"]
    assert row["measure"] == "accuracy" and np.isnan(row["excess"])
    assert row["known"] == of.of("accuracy", "known").value
    row = table.loc["calibrated"]
    of_seeds = [s.models["known"][0].rungs["directly"][0] for s in of.seeds]
    answers = [[s.answers[uid] for uid in x.uids] for s, x in zip(of.seeds, of_seeds, strict=True)]
    by_hand = [
        metrics.matched_accuracy(metrics.margins(x), np.array(a))
        for x, a in zip(of_seeds, answers, strict=True)
    ]
    assert row["measure"] == "matched" and np.isnan(row["excess"])
    assert row["known"] == pytest.approx(np.mean(by_hand))
    row = table.loc[FEW.name]
    assert row["excess"] == of.excess(FEW).value and row["labels"] == 8
    assert row["forgotten_low"] == of.of("auroc", "forgotten", FEW).low
    (row,) = rungs.summary(ladders).to_dict("records")
    assert row["verdict"] == verdicts.SUPPRESSED and row["n_seeds"] == 5
    assert row["auroc"] == of.of("auroc", "forgotten").value
    assert row["auroc_lost"] > 0.2 and abs(row["auroc"] - CHANCE) < 0.1
