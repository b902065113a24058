"""What is left at equal harm elsewhere, on made-up trajectories whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_methods import NLL, SKILL, STUDY, TRUTH, N, answers, results, scores

from forgetlib.errors import InputError
from forgetlib.figures import verdicts
from forgetlib.figures.methods import collateral
from forgetlib.forgetting.arithmetic import Noise, TaskVector
from forgetlib.forgetting.base import Training
from forgetlib.measuring.base import ScoresInTraining
from forgetlib.runs.records import Record
from forgetlib.runs.specs import Measurement

# Of each method, check by check: its skill on new questions, and the rise of nats elsewhere.
CHECKS = {
    "random": ((SKILL, 0.0), (0.7, 0.4), (0.0, 0.8), (0.0, 2.5)),
    "gradient_ascent": ((SKILL, 0.0), (1.4, 0.3), (-0.5, 3.0), (-SKILL, 0.5)),
    "npo": ((SKILL, 0.0), (1.45, 0.1), (1.4, 0.2)),
    "gradient_difference(retain)": ((SKILL, 0.0), (0.0, -0.5), (-SKILL, -1.0)),
}


def of_checks(study, checks=CHECKS, truth=TRUTH):
    """Results of the made-up study, with what forgotten models said in training."""
    found = results(study, truth)
    methods = {
        study.after(method, task, seed).id: (task, method.describe())
        for task, seed in study.with_seeds(study.seeds)
        for method in study.of(task, seed)
    }
    for i, result in enumerate(found):
        task, method = methods.get(result.checkpoint.id, ("", ""))
        if method not in checks:
            continue
        more = []
        for other in (task, *study.unrelated(task)):
            records = [
                (4 * k, scores(other, "test", result.seed, skill, nll, f"{method}{k}"))
                for k, (skill, nll) in enumerate(
                    (s, NLL) if other == task else (SKILL, NLL + rise) for s, rise in checks[method]
                )
            ]
            asked = Measurement("scores_in_training", other, "test", N, result.seed)
            more.append(Record(result.checkpoint, asked, ScoresInTraining.of(records)))
        found[i] = replace(result, records=(*result.records, *more))
    return found


@pytest.fixture(scope="module")
def found():
    return collateral.trajectories(STUDY, of_checks(STUDY), answers)


@pytest.fixture(scope="module")
def table(found):
    return collateral.table(found, n_resamples=300)


@pytest.fixture(scope="module")
def of_skill(table):
    return table[table["eval_task"] == "sst2_nonce"].reset_index(drop=True)


def test_unrelated_tasks_are_retained_by_none_and_of_another_family():
    assert STUDY.retained == {"piqa"}
    assert STUDY.unrelated("sst2_nonce") == ("sciq", "copa")
    assert STUDY.unrelated("arc_easy") == ("sst2", "copa")


def test_harm_is_read_by_the_least_related_tasks_there_are():
    assert STUDY.away("sst2_nonce") == ("sciq", "copa")
    assert replace(STUDY, elsewhere=("sst2", "piqa")).away("sst2_nonce") == ("sst2",)
    assert replace(STUDY, elsewhere=("piqa", "arc_easy")).away("arc_easy") == ("piqa",)
    assert replace(STUDY, elsewhere=()).away("arc_easy") == ()


def test_a_task_vector_is_not_made_by_what_its_training_passes():
    methods = TaskVector(Training(1e-4), 2.0), Noise(Training(1e-4))
    study = replace(STUDY, methods=(*STUDY.methods, *methods), more_methods=())
    assert not any(map(study.has_trajectory, methods))
    asked = [
        job.checkpoint.method.name
        for job in study.jobs("collateral")
        if any(m.readout == "scores_in_training" for m in job.measurements)
    ]
    assert set(asked) == {"labels", "gradient_ascent", "npo"}


def test_the_section_asks_about_new_questions_and_unrelated_tasks_at_each_check_of_the_dose():
    (job,) = (
        job
        for job in STUDY.jobs("collateral")
        if job.checkpoint == STUDY.after(STUDY.methods[0], "sst2_nonce", 2)
    )
    asked = [m for m in job.measurements if m.readout == "scores_in_training"]
    assert [m.where for m in asked] == ["sst2_nonce/test", "sciq/test", "copa/test"]
    assert {m.setting("every") for m in asked} == {STUDY.methods[0].training.until.every}
    assert not any(
        m.readout == "scores_in_training" for j in STUDY.jobs("methods") for m in j.measurements
    )


@pytest.mark.parametrize("epochs", [1, 2, 5, 16, 17])
def test_without_a_dose_it_asks_sixteen_times_at_most(epochs):
    long = replace(STUDY.forgetting, until=None, epochs=epochs)
    study = replace(STUDY, forgetting=long)
    (every,) = {
        m.setting("every")
        for job in study.jobs("collateral")
        for m in job.measurements
        if m.readout == "scores_in_training" and job.checkpoint.method.name == "labels"
    }
    n_checks = len(range(0, long.n_steps(N), every))
    assert n_checks <= 16
    assert n_checks > 8 or every == 1


@pytest.mark.parametrize(
    ("rises", "last"),
    [
        ((0.0, 0.5, 1.0), 2),
        ((0.0, 0.5, 1.01), 1),
        ((0.0, 1.01, 0.5), 0),  # what comes back within was beyond before
        ((0.0, -3.0, -1.0), 2),
        ((0.0,), 0),
    ],
)
def test_the_last_check_is_the_one_before_the_first_beyond_the_budget(rises, last):
    aurocs = np.linspace(1, 0.2, len(rises))
    (found,) = collateral.within(np.stack([aurocs, rises], axis=-1)[None])
    expected = [aurocs[0], aurocs[last], aurocs[-1], rises[-1]]
    assert found == pytest.approx(expected)


def test_checks_are_those_of_a_loop_over_tasks_questions_and_steps(found):
    of = found["sst2_nonce", "random"][0]
    counts = np.random.default_rng(0).integers(0, 3, (2, 3 * N))
    found = of.measure(counts)
    for r, k in ((0, 1), (1, 3)):
        rises = []
        for place, of_task in enumerate(of.away.values(), 1):
            own = counts[r, place * N : (place + 1) * N]
            rise = 0.0
            for i in range(N):
                true = [s.log_likelihoods[i, s.labels[i]] for s in (of_task[0], of_task[k])]
                rise += own[i] * (true[0] - true[1]) / own.sum()
            rises.append(rise)
        assert found[r, k, 1] == pytest.approx(np.mean(rises), abs=1e-5)
        assert found[r, k, 2] == pytest.approx(max(rises), abs=1e-5)
        one, margin = of.new[k], []
        for i in range(N):
            lls = one.log_likelihoods[i]
            margin.append(lls[one.labels[i]] - lls[1 - one.labels[i]])
        wins = total = 0.0
        for i in range(N):
            for j in range(N):
                if of.answers[i][0] != of.answers[j][0]:
                    weight = counts[r, i] * counts[r, j]
                    wins += weight * (margin[i] + margin[j] > 0)
                    total += weight
        assert found[r, k, 0] == pytest.approx(wins / total, abs=1e-6)


def test_the_table_tells_the_truth_within_the_budget_and_at_the_end(of_skill):
    of = of_skill.set_index("method")
    known, none = of.loc["npo", "auroc_known"], 0.5
    assert known > 0.8
    random = of.loc["random"]
    assert random["auroc"] == pytest.approx(none, abs=0.05)
    assert random["rise"] == pytest.approx(0.8, abs=0.05)
    assert random["rise"] <= random["worst"] < 0.9
    assert random["nll_end"] == pytest.approx(2.5, abs=0.05)
    assert (random["n_stopped"], random["n_seeds"]) == (5, 5)
    ascent = of.loc["gradient_ascent"]  # beyond it on its way, and within it at the end
    assert ascent["auroc"] == pytest.approx(known, abs=0.06)
    assert ascent["auroc_end"] < 0.2 and (ascent["n_stopped"], ascent["n_beyond"]) == (5, 0)
    difference = of.loc["gradient_difference(retain)"]
    assert difference["auroc"] == difference["auroc_end"] < 0.2
    assert (difference["n_stopped"], difference["n_seeds"]) == (0, 1)
    filtered = of.loc["prompt_filter(retain)"]  # at once, and without harm
    assert not filtered["trained"] and filtered["auroc"] == filtered["auroc_end"]
    assert (of["auroc_low"] <= of["auroc"]).all() and (of["auroc"] <= of["auroc_high"]).all()
    lost = of["auroc_known"] - of["auroc"]
    assert of["auroc_lost"].to_numpy() == pytest.approx(lost.to_numpy())


def test_what_is_changed_at_once_and_beyond_the_budget_is_not_said_to_keep():
    """Harm of 4 nats is beyond it: what a weaker change would do is not known."""
    study = replace(STUDY, methods=(TaskVector(Training(1e-4), 2.0),), more_methods=())
    truth = {
        "random": (0.0, 0.0, SKILL, NLL, (1.0, 0.5)),
        "task_vector(scale=2.0)": (0.0, 0.0, 0.0, NLL + 4, None),
    }
    assert not collateral.trajectories(study, results(study, truth), answers)  # none checked
    found = collateral.trajectories(study, of_checks(study, truth=truth), answers)
    assert len(found) == 4
    table = collateral.table(found, n_resamples=20).set_index(["eval_task", "method"])
    row = table.loc["sst2_nonce", "task_vector(scale=2.0)"]
    assert row["auroc"] == row["auroc_known"] > 0.8
    assert row["auroc_end"] == pytest.approx(0.5, abs=0.06)
    assert row["n_stopped"] == row["n_beyond"] == row["n_seeds"] == 5
    of = table.loc[["sst2_nonce"]].reset_index()
    assert collateral.groups(of)["beyond"] == ["task_vector(scale=2.0)"]
    assert collateral.finding(of).endswith("; of 2 methods, 1 did more harm by the first check")


def test_only_seeds_in_which_all_were_checked_count():
    some = [r for r in of_checks(STUDY) if r.seed != 2]
    without = [r for r in results(STUDY) if r.seed == 2]
    found = collateral.trajectories(STUDY, [*some, *without], answers)
    seeds = [of.seed for of in found["sst2_nonce", "random"]]
    assert seeds == [0, 1, 3, 4]
    at_once = found["sst2_nonce", "prompt_filter(retain)"]  # compared in the same seeds
    assert [of.seed for of in at_once] == [0, 1, 3, 4]
    # NPO alone in seed 2, and only in the skill's seed 1: all are compared where all are.
    npo = {"npo": CHECKS["npo"]}
    most = [r for r in of_checks(STUDY) if r.seed in (0, 1)]
    part = [r for r in of_checks(STUDY, npo) if r.seed > 1]
    found = collateral.trajectories(STUDY, [*most, *part], answers)
    assert {of.seed for every in found.values() for of in every} == {0, 1}
    assert collateral.table(collateral.trajectories(STUDY, [], answers)).empty


def test_curves_have_every_check_and_mark_the_last_within(found):
    curves = collateral.curves(found)
    of = curves[(curves["eval_task"] == "arc_easy") & (curves["method"] == "random")]
    one = of[of["seed"] == 1]
    assert one["step"].tolist() == [0, 4, 8, 12]
    assert one["last"].tolist() == [False, False, True, False]
    assert one["check_rise"].to_numpy() == pytest.approx([0, 0.4, 0.8, 2.5], abs=0.06)
    at_once = curves[curves["method"] == "prompt_filter(retain)"]
    assert not at_once["trained"].any() and (at_once.groupby("seed").size() % 2 == 0).all()


def test_methods_are_sorted_by_what_they_do_within_the_budget(of_skill):
    assert collateral.groups(of_skill) == {
        verdicts.FORGOTTEN: ["random"],
        verdicts.INVERTED: ["gradient_difference(retain)"],
        verdicts.KEPT: ["gradient_ascent", "npo", "prompt_filter(retain)"],
        collateral.OVER_BUDGET: [],
        verdicts.NOT_DECIDED: [],
    }
    some = of_skill.assign(n_beyond=(of_skill["n_seeds"] > 1).astype(int))
    kept = ["gradient_ascent", "npo", "prompt_filter(retain)"]
    assert collateral.groups(some)[verdicts.NOT_DECIDED] == kept
    unsure = of_skill.assign(auroc_left_low=-0.2, auroc_left_high=0.2)
    assert collateral.groups(unsure)[verdicts.NOT_DECIDED] == list(of_skill["method"])
    assert collateral.finding(unsure).endswith("; of 5 methods, 5 are not decided")


def test_the_sentence_says_what_each_leaves_and_how_many_would_have_gone_beyond(of_skill):
    of = of_skill.round(2)
    lost = dict(zip(of["method"], of["auroc_lost"], strict=True))
    kept = [abs(lost[m]) for m in ("gradient_ascent", "npo", "prompt_filter(retain)")]
    budget = (
        "Where methods stop at their dose, or before other tasks lose 1 nat a token on average "
    )
    budget += "(5 seeds), "
    skill = "SST-2 in made-up words is "
    turned = lost["gradient_difference(retain)"]
    assert collateral.finding(of) == (
        f"{budget}{skill}forgotten on new questions by random labels (AUROC lost: "
        f"{lost['random']:.2f}); turned round by gradient difference (one seed) (AUROC lost: "
        f"{turned:.2f}); mostly kept by gradient ascent, NPO and prompt filter (AUROC lost: "
        f"{min(kept):.2f} to {max(kept):.2f})"
    )
    none = collateral.finding(of[of["method"] == "npo"])
    assert f"{skill}not shown to be forgotten on new questions by any method; " in none
    unknown = of.assign(auroc_known_low=0.4)
    assert collateral.finding(unknown) == "SST-2 in made-up words was not shown to be known before"
    one = of.assign(auroc_known_low=of["auroc_known_low"].where(of["n_seeds"] > 1, 0.4))
    assert collateral.finding(one) == collateral.finding(of)  # the other methods' seeds tell


def test_the_picture_shows_both_ends_of_each_method_and_every_trajectory(found, of_skill):
    curves = collateral.curves(found)
    of = curves[curves["eval_task"] == "sst2_nonce"]
    figure = collateral.draw(of, of_skill)
    assert " ".join(figure.get_suptitle().split()) == collateral.finding(of_skill)
    left, right, *panels = figure.axes
    named = [label.get_text() for label in left.get_yticklabels()]
    assert named[0] == "prompt filter" and named[-1].startswith("gradient difference")
    (ends,) = (line for line in left.lines if line.get_label() == "where the method ends")
    order = of_skill.sort_values("auroc", ascending=False, kind="stable")
    assert ends.get_xdata() == pytest.approx(order["auroc_end"].to_numpy())
    beyond = of_skill.assign(n_beyond=of_skill["n_seeds"] * (of_skill["method"] == "npo"))
    _, harm, *_ = collateral.draw(of, beyond).axes
    assert len(harm.lines[0].get_xdata()) == len(right.lines[0].get_xdata()) - 1
    shown = [axes for axes in panels if axes.get_title("left")]
    assert [axes.get_title("left") for axes in shown] == [
        "random labels",
        "gradient ascent",
        "NPO",
        "gradient difference",
    ]
    lines = [line for line in shown[0].lines if len(line.get_xdata()) == 4]
    assert len(lines) == 5  # a line a seed
    first = of[(of["method"] == "random") & (of["seed"] == 0)]
    assert lines[0].get_xdata() == pytest.approx(first["check_rise"].to_numpy())
    assert lines[0].get_ydata() == pytest.approx(first["check_auroc"].to_numpy())
    assert right.get_xlabel().startswith("rise of nats")


def test_a_table_that_lacks_a_column_is_refused(found, of_skill):
    curves = collateral.curves(found)
    with pytest.raises(InputError, match=r"what is left at equal harm.*nll_end"):
        collateral.draw(curves, of_skill.drop(columns="nll_end"))
    with pytest.raises(InputError, match=r"trajectories of methods.*check_rise"):
        collateral.draw(curves.drop(columns="check_rise"), of_skill)
