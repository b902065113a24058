"""A skill that was turned round is told from one that is gone, on models of known truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_rungs import NEVER, RUNGS, SKILL, TRUTHS, model, scores, seeds

from forgetlib.figures import verdicts
from forgetlib.figures.methods import rungs, sign
from forgetlib.figures.methods.rungs import DIRECT, SIGNED, Ladder, Model, exchanged
from forgetlib.figures.numbers import estimate_of, number
from forgetlib.runs.ladder import ANEW, FORGOTTEN


def signed(seeds, turned=()):
    """Correct every model's sign: in these seeds the forgotten ones' answers are exchanged."""
    found = []
    for i, seed in enumerate(seeds):
        models = {}
        for role, of_role in seed.models.items():
            back = role == FORGOTTEN and i in turned
            models[role] = tuple(
                replace(m, rungs={**m.rungs, SIGNED.name: (exchanged(own) if back else own,)})
                for m in of_role
                for own in m.rungs[DIRECT.name]
            )
        found.append(replace(seed, models=models))
    return found


def half_turned():
    """Seeds of which the first two took the opposite for true, and the others know the skill."""
    kept, turned = (seeds(NEVER | {"direct": skill}) for skill in (SKILL, -SKILL))
    return signed([*turned[:2], *kept[2:]], turned=(0, 1))


def shown(seeds, skill):
    """Add never-taught models that were shown the true labels, and then have such a skill."""
    found = []
    for i, seed in enumerate(seeds):
        of = scores(np.random.default_rng([i, 7]), skill)
        made = Model({DIRECT.name: (of,), SIGNED.name: (exchanged(of),)})
        found.append(replace(seed, models={**seed.models, ANEW: (made,)}))
    return found


@pytest.fixture(scope="module")
def table():
    """Of three methods: turned round in two of five seeds, gone, and nothing taken."""
    gone = signed(seeds(*TRUTHS[verdicts.REMOVED]), turned=(4,))
    kept = signed(seeds(*TRUTHS[verdicts.KEPT]))
    of = {"npo": half_turned(), "random": gone, "rmu": kept}
    return rungs.table({("sst2", m): Ladder(models, RUNGS, 300) for m, models in of.items()})


def test_a_skill_turned_round_in_some_seeds_is_found(table):
    rows = table[table["method"] == "npo"].set_index("rung")
    direct, corrected = rows.loc[DIRECT.name], rows.loc[SIGNED.name]
    assert direct["forgotten_low"] < 0.5 < direct["forgotten_high"]
    assert corrected["forgotten"] == pytest.approx(corrected["known"], abs=0.05)
    ends, before = rungs.seeds_of(corrected), rungs.seeds_of(direct)
    assert ends[:2] == pytest.approx([1 - end for end in before[:2]], abs=1e-3)
    assert ends[2:] == before[2:]


def test_the_sentence_tells_only_of_methods_that_turned_a_seed(table):
    row = table[(table["method"] == "npo") & (table["rung"] == SIGNED.name)].iloc[0]
    assert row["excess_low"] > verdicts.HALF
    excess = estimate_of(row, "excess")
    assert sign.turned(table) == (
        "Of SST-2, on a scale from never-taught models (0) to ones that never forgot (1), with the "
        "answers exchanged wherever the forgetting set shows that a model has turned them, models "
        f"show most of what was taught, {excess} after NPO; less than half after random labels; "
        f"{sign.CAUTION}"
    )
    assert sign.headline(table) == (
        "With the answers exchanged where the forgetting set shows that a model has turned them, "
        "models show of SST-2, on a scale from never-taught models (0) to ones that never forgot "
        f"(1), most of what was taught, {excess} after NPO: there it is turned round, and not "
        f"gone; {sign.CAUTION}"
    )
    assert sign.headline(table[table["method"] != "npo"]) == ""
    assert sign.turned(table[table["method"] == "random"]) == (
        "Of SST-2, with the answers exchanged wherever the forgetting set shows that a model has "
        "turned them, models show less than half of what was taught after random labels"
    )
    assert sign.turned(table[table["method"] == "rmu"]) == ""


def test_that_most_is_there_has_to_be_shown_as_that_most_is_gone(table):
    """An excess of 0.9 that may be 0.3 is more than never-taught models show, and no more."""
    signed = (table["method"] == "npo") & (table["rung"] == SIGNED.name)
    for low, words in ((0.51, "most of what was taught"), (0.3, "more than never-taught models")):
        wide = table.assign(
            excess=table["excess"].mask(signed, 0.9),
            excess_low=table["excess_low"].mask(signed, low),
            excess_high=table["excess_high"].mask(signed, 1.1),
        )
        for said in (sign.turned(wide), sign.headline(wide)):
            assert f"{words}, 0.90 [{number(low)}, 1.10] after NPO" in said
    both = pd.concat([table, wide[signed].assign(method="dpo")])
    direct = (table["method"] == "npo") & (table["rung"] == DIRECT.name)
    both = pd.concat([both, table[direct].assign(method="dpo")], ignore_index=True)
    most = estimate_of(table[signed].iloc[0], "excess")
    assert (
        f"most of what was taught, {most} after NPO: there it is turned round, and not gone; more "
        "than never-taught models, 0.90 [0.30, 1.10] after DPO to the distractor: there some of it "
        "is left, turned round"
    ) in sign.headline(both)


def test_what_forgetting_teaches_by_itself_is_not_taken_for_what_is_left():
    """Never-taught models that were shown the true labels take the opposite for true as well."""

    def told(skill):
        return rungs.table({("sst2", "npo"): Ladder(shown(half_turned(), skill), RUNGS, 300)})

    plain = rungs.table({("sst2", "npo"): Ladder(half_turned(), RUNGS, 300)}).set_index("rung")
    taught, left = told(-SKILL), told(0.0)
    assert sign.headline(taught) == ""
    assert sign.turned(taught).endswith(
        "has turned them, after NPO it cannot be told, as the same lesson may teach as much to "
        "models that never knew the skill"
    )
    assert "from never-taught models that were shown the same true labels (0) to" in (
        sign.headline(left)
    )
    for table in (taught, left):
        rows = table.set_index("rung")
        assert list(rows.index[rows["shown"]]) == [SIGNED.name]
        # No other rung is compared with them.
        pd.testing.assert_series_equal(
            rows["oracle"].drop(SIGNED.name), plain["oracle"].drop(SIGNED.name)
        )


def test_where_never_taught_models_know_the_skill_no_lesson_is_blamed():
    """As of a skill of pre-training: then there is nothing to compare with."""
    rng = np.random.default_rng(5)
    knowing = tuple(model(rng, dict.fromkeys(NEVER, 0.8)) for _ in range(3))
    known = seeds(NEVER | {"direct": -SKILL}, oracle=knowing)
    table = rungs.table({("sst2", "npo"): Ladder(shown(signed(known, (0, 1)), 0.0), RUNGS, 300)})
    assert not table["shown"].any() and sign.turned(table) == ""


def test_without_never_taught_models_nothing_is_said():
    models = [
        replace(s, models={r: s.models[r] for r in ("known", FORGOTTEN)}) for s in half_turned()
    ]
    alone = rungs.table({("sst2", "npo"): Ladder(models, RUNGS, 300)})
    assert alone.loc[alone["rung"] == SIGNED.name, "forgotten"].notna().all()
    assert sign.turned(alone) == ""


def test_seeds_that_end_far_apart_are_told(table):
    table = table[table["method"] != "rmu"]
    assert "after NPO" in sign.apart(table)
    table = table.assign(seeds="0.52 0.5")
    direct = table["kind"] == "direct"
    ends = table.assign(seeds=table["seeds"].mask(direct & (table["method"] == "npo"), "0.7 0.31"))
    assert sign.apart(ends) == (
        "Seeds may end far apart: their AUROC on new questions is 0.31 and 0.70 after NPO"
    )
    ends = ends.assign(seeds=ends["seeds"].replace("0.7 0.31", "0.7 0.15"))
    assert sign.apart(ends).endswith(
        "0.15 and 0.70 after NPO (far below 0.5: with the sign turned)"
    )
    assert sign.apart(table) == ""
    one = table.assign(seeds=table["seeds"].str.split().str[0])
    assert sign.apart(one) == ""
