"""A study of methods: who starts from whom, which questions nobody shares, and that it runs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import same_values

from forgetlib import metrics, studies
from forgetlib.data import splits
from forgetlib.data.base import normalised
from forgetlib.errors import InputError
from forgetlib.figures import drawing
from forgetlib.figures.methods import dose, ladder_figure, ladders, relearning, rungs
from forgetlib.figures.verdicts import MEANINGS
from forgetlib.forgetting.ascent import GradientAscent, GradientDifference
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.dose import Dose
from forgetlib.forgetting.filtering import PromptFilter
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.lock import Lock
from forgetlib.forgetting.quantise import Quantise
from forgetlib.runs.bench import Bench, StudyError
from forgetlib.runs.grid import figures_dir
from forgetlib.runs.ladder import ANEW, FORGOTTEN, LOCKED, MOVED, ORACLE, LadderStudy
from forgetlib.runs.results import load_results, load_stored, run
from forgetlib.studies import load_answers

N = 40
UNTIL = Training(3e-3, epochs=2, until=Dose(every=2))
STUDY = LadderStudy(
    "ladder",
    "two methods and a filter on a tiny model",
    ("tiny_review",),
    seeds=(0, 1),
    n_train=N,
    n_eval=40,
    tuned=Training(1e-2, epochs=10, batch_size=20),
    forgetting=UNTIL,
    methods=(GradientAscent(UNTIL), PromptFilter(("tiny_praise",))),
    more_methods=(GradientDifference(UNTIL, ("tiny_praise",)),),
    views=(f"few_shot(2, {N})", "template(1)"),
    elsewhere=("tiny_colour", "tiny_praise"),
    n_elsewhere=20,
    moved_by="tiny_city",
    readouts=("probe",),
    quantised=(Quantise(4),),
    inside=True,
    lock=Lock(UNTIL),
    relearning=Training(3e-3),
    relearning_steps=2,
    n_relearned=(8, 16),
    models=("tiny",),
    dtype="float32",
)


@pytest.fixture(autouse=True)
def _apart(project, brief_probes):
    """A project folder of its own."""


def trained_on(checkpoint):
    """The questions of each step of a checkpoint's lineage, as uids; and their prompts."""
    bench = Bench()
    return [bench.context(c).examples for c in checkpoint.lineage]


def test_every_start_is_a_job_and_comes_first():
    seen = set()
    jobs = STUDY.jobs()
    for job in jobs:
        start = job.checkpoint.start
        assert start is None or start.id in seen, job
        seen.add(job.checkpoint.id)
    blocks = [job for of in STUDY.blocks().values() for job in of]
    assert {key for job in blocks for key in job.keys} == {key for j in jobs for key in j.keys}


def test_the_pre_trained_model_is_asked_elsewhere_once_a_seed():
    jobs = [j for j in STUDY.jobs("methods") if j.checkpoint.method is None]
    asked = [(m.task, m.seed) for job in jobs for m in job.measurements if m.task != "tiny_review"]
    assert asked == [(task, seed) for seed in STUDY.seeds for task in STUDY.elsewhere]


@pytest.mark.parametrize("section", [*STUDY.sections, None])
def test_a_section_has_what_it_is_for(section):
    kinds = {job.checkpoint.kind for job in STUDY.jobs(section)}
    assert {"base", "true", "random", "gradient_ascent", "prompt_filter(retain)"} <= kinds
    shuffled = [j for j in STUDY.jobs(section) if j.checkpoint.data and j.checkpoint.data.shuffled]
    assert bool(shuffled) == (section not in ("methods", "collateral"))
    relearned = [j for j in STUDY.jobs(section) if j.checkpoint.data and j.checkpoint.data.skip]
    assert bool(relearned) == (section in ("relearning", None))
    lenses = [j for j in STUDY.jobs(section) if any("lens" in m.readout for m in j.measurements)]
    assert bool(lenses) == (section in ("inside", None))
    anew = {c for m in STUDY.of("tiny_review", 0) for c in STUDY.anew(m, "tiny_review", 0)}
    assert bool(anew & {j.checkpoint for j in STUDY.jobs(section)}) == (section in ("anew", None))
    assert ("lock" in kinds) == (section not in ("methods", "collateral"))
    watched = {m.readout for j in STUDY.jobs(section) for m in j.measurements}
    assert ("scores_in_training" in watched) == (section in ("collateral", None))


def test_a_control_that_a_study_leaves_out_costs_nothing():
    """Each is something that is asked of a study's models beyond what methods are compared by."""
    less = replace(STUDY, lock=None, trajectories=False, inside=False)
    assert less.locked("tiny_review", 0) is None
    jobs = less.jobs()
    assert {j.checkpoint.kind for j in jobs if j.checkpoint.kind == "lock"} == set()
    readouts = {m.readout for j in jobs for m in j.measurements}
    assert not {"scores_in_training", "logit_lens"} & readouts
    assert "collateral" in drawing._all(STUDY) and "collateral" not in drawing._all(less)
    with pytest.raises(InputError, match=r"something for, found one of.*trajectories=False"):
        list(drawing.drawn(less, ["collateral"]))


def test_a_locked_model_is_asked_in_the_form_that_opens_it_and_taught_again():
    (locked,) = (j for j in STUDY.jobs("oracles") if j.checkpoint.kind == "lock" and j.seed == 1)
    assert locked.checkpoint == STUDY.locked("tiny_review", 1)
    assert locked.checkpoint.start == STUDY.taught("tiny_review", 1)
    assert STUDY.lock.key in {m.view for m in locked.measurements}
    again = {j.checkpoint for j in STUDY.jobs("relearning")}
    for n in STUDY.n_relearned:
        assert STUDY.relearned(locked.checkpoint, "tiny_review", n, 1) in again


def test_other_methods_are_tried_on_the_first_skill_and_seed_alone():
    found = [j.checkpoint for j in STUDY.jobs("methods") if "difference" in j.checkpoint.kind]
    assert [c.seed for c in found] == [0]


def test_relearning_takes_questions_that_no_other_set_has():
    method = STUDY.methods[0]
    start = STUDY.after(method, "tiny_review", 0)
    every = [STUDY.relearned(start, "tiny_review", n, d) for n in (8, 16) for d in (0, 1)]
    forgotten = {e.uid for e in trained_on(start)[-1]}
    test = {normalised(e) for e in splits.load("tiny_review", "test", 40, 0)}
    sets = {}
    for checkpoint in every:
        assert checkpoint.start == start
        *_, own = trained_on(checkpoint)
        sets[checkpoint.n, checkpoint.data.skip] = uids = {e.uid for e in own}
        assert len(uids) == checkpoint.n
        assert not uids & forgotten and not test & {normalised(e) for e in own}
        assert checkpoint.method.training.n_steps(len(own)) == 2
    assert sets[8, N] < sets[16, N] and sets[8, N + 16] < sets[16, N + 16]
    assert not sets[16, N] & sets[16, N + 16]


def test_an_oracle_is_taught_and_made_to_forget_the_same_random_labels():
    oracle = STUDY.after(STUDY.methods[0], "tiny_review", 0, ORACLE)
    taught, forgotten = trained_on(oracle)
    assert taught == forgotten
    true = splits.load("tiny_review", "train", N, 0)
    assert [e.uid for e in taught] == [e.uid for e in true]
    assert 0.2 < sum(a.label == b.label for a, b in zip(taught, true, strict=True)) / N < 0.8
    # What it relearns is true.
    relearned = STUDY.relearned(oracle, "tiny_review", 8, 0)
    assert list(trained_on(relearned)[-1]) == splits.load("tiny_review", "train", N + 8, 0)[N:]


def test_what_is_taught_anew_is_taught_by_true_labels_and_to_the_end():
    true = splits.load("tiny_review", "train", N, 0)
    ascent = STUDY.methods[0]
    base, oracle = STUDY.anew(ascent, "tiny_review", 0)
    assert (base.start, oracle.start) == (None, STUDY.taught("tiny_review", 0, oracle=True))
    for checkpoint in (base, oracle):
        assert list(trained_on(checkpoint)[-1]) == true
        assert checkpoint.method == GradientAscent(replace(UNTIL, until=None))
    flipped, random = (Labels(labels, UNTIL) for labels in ("flipped", "random"))
    assert len(STUDY.anew(flipped, "tiny_review", 0)) == 2
    for other in (random, PromptFilter(("tiny_praise",))):
        assert STUDY.anew(other, "tiny_review", 0) == ()


def test_a_moved_model_forgets_another_task():
    moved = STUDY.after(STUDY.methods[0], "tiny_review", 0, MOVED)
    assert moved.task == "tiny_city"
    assert moved.start == STUDY.taught("tiny_review", 0)


def test_a_hook_is_not_relearned_from_nor_quantised():
    """It leaves the weights alone: what is relearned or rounded is known's."""
    jobs = [j.checkpoint for j in STUDY.jobs() if j.checkpoint.start]
    expected = {"true", "random", "gradient_ascent", "gradient_difference(retain)", "lock"}
    assert {c.start.kind for c in jobs if c.data and c.data.skip} == expected
    rounded = [c for c in jobs if c.method == Quantise(4)]
    assert {c.start.kind for c in rounded} == expected
    # Known, never taught and locked, of either seed; and both after each method that changes
    # weights.
    assert len(rounded) == 2 * 3 + (2 + 2 + 1) * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": (Labels("random", UNTIL),)}, "every method with the same settings once"),
        ({"moved_by": "tiny_praise"}, "retain sets of other tasks than the skills"),
        ({"moved_by": "nowhere"}, "task"),
        ({"moved_by": "tiny_review"}, "another task than the skills"),
        ({"n_relearned": (0,)}, "n_relearned of study"),
        ({"draws": 0}, "draws of study"),
        ({"relearning": 2e-5}, "relearning of study"),
        ({"more_methods": ("npo",)}, "more_methods of study"),
        ({"quantised": (4,)}, "quantised of study"),
        ({"lock": UNTIL}, "lock of study 'ladder': expected a Lock, or None"),
        (
            {"lock": Lock(UNTIL, "upper")},
            r"a key among the study's views.*Add it: views=\(\.\.\., 'up",
        ),
    ],
    ids=str,
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(STUDY, **changes)


def test_a_study_may_teach_nothing_again():
    none = replace(STUDY, n_relearned=())
    kinds = {j.checkpoint.kind for j in none.jobs("relearning") if j.checkpoint.start}
    assert "quantise(bits=4)" in kinds
    assert len(none.jobs()) < len(STUDY.jobs())


def test_a_skill_is_the_first_where_none_is_named():
    assert STUDY.skill() == STUDY.skill("tiny_review") == "tiny_review"
    with pytest.raises(InputError, match="skill of study 'ladder': expected one of tiny_review"):
        STUDY.skill("tiny_city")


def test_a_section_of_another_study_is_refused():
    with pytest.raises(InputError, match=r"methods: dose, forms, generalisation"):
        STUDY.jobs("cross")


def test_it_runs_and_is_drawn_also_while_it_is_under_way():
    run(STUDY, "methods", progress=False)
    part = load_stored(STUDY)
    assert 0 < len(part) < len(STUDY.jobs())
    ((name, figure, _),) = drawing.FIGURES["ladder"](STUDY)
    assert name == "ladder_tiny_review"
    said = " ".join(figure.get_suptitle().split())
    assert said.endswith(f"(under way: {len(part)} of {len(STUDY.jobs())} jobs)")
    run(STUDY, progress=False)
    results = load_results(STUDY)
    assert len(results) == len(load_stored(STUDY)) == len(STUDY.jobs())

    def answers(task, seed):
        return load_answers(STUDY, task, seed)

    assert not list(drawing.FIGURES["collateral"](replace(STUDY, elsewhere=())))
    ((name, _, data),) = drawing.FIGURES["collateral"](STUDY)
    assert name == "collateral_tiny_review"
    ascents = [
        r for r in results if r.checkpoint == STUDY.after(STUDY.methods[0], "tiny_review", 1)
    ]
    looks = ascents[0].in_training["tiny_colour/test"]
    of = data[(data["method"] == "gradient_ascent") & (data["seed"] == 1)]
    assert of["step"].tolist() == looks.steps.tolist() == ascents[0].dose.steps.tolist()
    nats = [metrics.nll_a_token(s).mean() for s in looks.scores]
    assert of["check_rise"].to_numpy() == pytest.approx(np.array(nats) - nats[0], abs=1e-6)
    assert same_values(looks.scores[-1], ascents[0].scores["tiny_colour/test"])

    under_way = ladders.of_study(STUDY, part, answers)
    early = under_way["tiny_review", "random"]
    assert early.oracle_is_null and [len(s.models[ORACLE]) for s in early.seeds] == [1, 1]
    assert rungs.summary(under_way)["verdict"].isin(MEANINGS).all()
    found = ladders.of_study(STUDY, results, answers)
    names = {method for _, method in found}
    assert names == {
        "random",
        "gradient_ascent",
        "prompt_filter(retain)",
        "gradient_difference(retain)",
    }
    of = found["tiny_review", "random"]
    once = found["tiny_review", "gradient_difference(retain)"]
    assert (len(of.seeds), len(once.seeds)) == (2, 1)
    doses = dose.summary(STUDY, results, answers).set_index("method")
    for method in names:
        there = [seed.at_dose for seed in found["tiny_review", method].seeds]
        row = doses.loc[method]
        assert (there.count(True), len(there)) == (row["n_reached"], row["n_seeds"])
        assert set(there) <= {True, False}
    assert [r.name for r in of.rungs] == [
        "directly",
        "4 bits",
        "template 1",
        "2 examples",
        "relearned from 8",
        "relearned from 16",
        "relearned from 16, random labels",
    ]
    for seed in of.seeds:
        (locked,) = seed.models[LOCKED]
        assert {"directly", "template 1", "relearned from 8"} <= set(locked.rungs)
    # Never taught are the pre-trained one, the one that was taught random labels, and it after
    # each method.
    assert [len(s.models[ORACLE]) for s in of.seeds] == [6, 5]
    for seed in of.seeds:
        assert all("relearned from 16" in model.rungs for model in seed.models[ORACLE][:2])
        assert all("4 bits" in model.rungs for model in seed.models[ORACLE][:2])
    # Rounded weights answer otherwise, and are the known model's after a filter.
    for seed in of.seeds:
        rung = seed.models[FORGOTTEN][0].rungs
        assert (rung["4 bits"][0].log_likelihoods != rung["directly"][0].log_likelihoods).any()
    # A filter is gone once the model is rounded or taught again: that asks nothing of it.
    filtered = found["tiny_review", "prompt_filter(retain)"]
    names_left = [r.name for r in filtered.rungs]
    assert names_left == ["directly", "template 1", "2 examples"]
    table, summary = rungs.table(found), rungs.summary(found)
    assert set(summary["verdict"]) <= set(MEANINGS)
    assert summary["damage"].notna().all()
    assert table.loc[table["rung"] == "directly", "moved"].notna().all()
    probed = table[table["rung"] == "probe"].set_index("method")
    assert set(probed["measure"]) == {"pairs"} and set(probed.index) == names
    by_hand = [
        r.probe.correct[list(r.probe.layers).index(r.probe.paper_layer)].mean()
        for r in results
        if r.checkpoint in [STUDY.taught("tiny_review", seed) for seed in STUDY.seeds]
    ]
    assert probed.loc["random", "known"] == pytest.approx(sum(by_hand) / 2)
    assert probed[["forgotten", "oracle"]].notna().all(axis=None)
    # Of what another skill's probe says of the pre-trained model nothing is taken.
    base = next(r for r in results if r.checkpoint.method is None and r.probe)
    (own,) = (r for r in base.records if r.measurement.readout == "probe")
    wrong = replace(own.value, correct=np.zeros_like(own.value.correct))
    other = replace(own, measurement=replace(own.measurement, task="tiny_city"), found=wrong)
    more = [replace(r, records=(*r.records, other)) if r is base else r for r in results]
    again = rungs.table(ladders.of_study(STUDY, more, answers))
    pd.testing.assert_frame_equal(again, table)
    corrected = table[table["rung"] == "sign corrected"].set_index("method")
    assert set(corrected.index) == names
    assert corrected[["known", "forgotten", "oracle"]].notna().all(axis=None)
    # Compared with those that were shown the true labels, where a method shows what is true.
    opposing = {"gradient_ascent", "gradient_difference(retain)"}
    assert set(corrected.index[corrected["shown"]]) == opposing
    assert not table.loc[table["rung"] != "sign corrected", "shown"].any()
    for method in opposing:
        by_hand = []
        for seed in found["tiny_review", method].seeds:
            assert len(seed.models[ANEW]) == 2
            for model in seed.models[ANEW]:
                (scored,) = model.rungs["sign corrected"]
                told = np.array([seed.answers[uid] for uid in scored.uids])
                by_hand.append(metrics.auroc(metrics.margins(scored), told))
        assert corrected.loc[method, "oracle"] == pytest.approx(np.mean(by_hand), abs=1e-6)
    # The answers are exchanged where a model is wrong about what it was made to forget.
    for role in ("known", FORGOTTEN):
        for seed in of.seeds:
            (model,) = seed.models[role]
            same = model.rungs["sign corrected"][0] is model.rungs["directly"][0]
            of_set = next(
                r.scores["tiny_review/train"]
                for r in results
                if r.scores.get("tiny_review/test") is model.rungs["directly"][0]
            )
            told = np.array([seed.answers[uid] for uid in of_set.uids])
            assert same == (metrics.auroc(metrics.margins(of_set), told) >= 0.5)
    read = table[table["rung"] == "logit lens"].set_index("method")
    assert set(read.index) == names and set(read["measure"]) == {"auroc"}
    assert read[["known", "forgotten", "oracle"]].notna().all(axis=None)
    # One layer for every model of a method and seed, chosen by questions that no other set has.
    (model,) = of.seeds[0].models[FORGOTTEN]
    (chosen,) = model.scores(rungs.LENS, of.seeds[0].layer)
    assert np.array_equal(chosen.log_likelihoods, model.lens[of.seeds[0].layer])
    assert model.lens[-1] == pytest.approx(
        model.rungs["directly"][0].log_likelihoods.astype(float), abs=1e-4
    )
    # Where a seed was not asked at every layer, the others are told.
    one = replace(of.seeds[1], layer=None)
    fewer = rungs.Ladder([of.seeds[0], one], of.rungs, of.n_resamples)
    part = rungs.table({("tiny_review", "random"): fewer}).set_index("rung")["n_seeds"]
    assert (part["logit lens"], part["probe"], part["directly"]) == (1, 2, 2)
    # What a filter hides did not move.
    moved = table[table["kind"] == "direction"]
    assert set(moved["method"]) == names - {"prompt_filter(retain)"}
    assert len(moved) == 6 and moved["forgotten"].notna().all()
    assert moved[["known", "oracle", "excess"]].isna().all(axis=None)
    curves = [r.dose for r in results if r.checkpoint.kind == "gradient_ascent" and r.dose]
    assert curves and all(c.steps[0] == 0 for c in curves)
    figure = ladder_figure.draw(table, summary)
    titles = [axes.get_title(loc="left").strip() for axes in figure.axes]
    assert titles[:2] == ["random labels", "gradient ascent"]
    written = {path.name for path in drawing.drawn(STUDY)}
    names = ("ladder", "dose", "collateral", "forms", "generalisation", "accuracy_and_nll")
    endings = ("pdf", "png", "csv")
    again = ["relearning_tiny_review"] if len(relearning.judged(table)) else []
    pictures = ("price", *again, *(f"{name}_tiny_review" for name in names))
    assert written == {f"{name}.{end}" for name in pictures for end in endings}
    tables = {name: pd.read_csv(figures_dir(STUDY) / f"{name}_tiny_review.csv") for name in names}
    assert set(tables["generalisation"]["method"]) == set(summary["method"])
    again = tables["generalisation"].query("where == 'new questions'").set_index("method")
    expected = summary.set_index("method")["auroc_lost"]
    assert again["auroc_lost"].to_numpy() == pytest.approx(expected[again.index], abs=1e-5)
    # The same harm, whichever picture tells it.
    costs = pd.read_csv(figures_dir(STUDY) / "price.csv").set_index("method")
    harm = summary.set_index("method")["damage"]
    assert costs["nll_rise"].to_numpy() == pytest.approx(harm[costs.index], abs=1e-4)
    for name in ("dose", "forms"):
        assert set(tables[name]["method"]) == set(summary["method"])
    assert tables["ladder"].set_index("method")["verdict"].notna().all()


def test_where_nothing_is_there_nothing_is_drawn():
    with pytest.raises(StudyError, match="jobs of methods to be stored"):
        list(drawing.drawn(STUDY, ["dose"]))
    with pytest.raises(StudyError, match="results of study 'ladder'"):
        list(drawing.drawn(STUDY))


def test_its_figures_are_of_studies_of_methods_alone():
    with pytest.raises(InputError, match="expected a figure of this kind of study"):
        list(drawing.drawn(studies.study("quick"), ["ladder"]))
    assert not set(drawing.OF_METHODS) & set(drawing._all(studies.study("quick")))
