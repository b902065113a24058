"""Several models beside each other, and what predicts forgetting, on models of known truth."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from synthetic import checkpoint_of, probe_with, result_of, with_training
from tables import drawn_texts, overlapping, points_of, ticks
from test_measures import answers_of, model

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import claims_figure, verdicts
from forgetlib.figures.findings import Tables
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.numbers import between, estimate_of
from forgetlib.figures.scale import (
    agreement as scale_agreement,
    claims as scale_claims,
    models as scale,
    readme as scale_readme,
    regressions as scale_regressions,
)
from forgetlib.figures.statements import CANNOT_DECIDE, HOLDS

N = 300
TASKS = ("sst2", "sciq", "piqa", "coding", "pattern", "arc_easy", "boolq", "rte")
# How much of its strength each model keeps after random labels, task by task: the third keeps what
# the others lose.
KEPT = np.linspace(0.0, 1.0, len(TASKS))
MODELS = {"one": KEPT, "two": KEPT, "other": KEPT[::-1]}


def of_task(name, task, kept, seed=0, kinds=("random", "true"), harm=0.0, known=2.0, set_kept=None):
    """A model's runs of a task: known with this strength, which random labels leave a share of.

    set_kept: the share on the forgetting set, where it is another than on new questions
    """
    rng = np.random.default_rng([seed, TASKS.index(task), *name.encode()])
    like = {"seed": seed, "n": N, "model": name}
    tuned = checkpoint_of(task, "true", **like)
    last = [checkpoint_of(task, kind, start=tuned, **like) for kind in kinds]
    strengths = [0.3, known, *(known * kept if kind == "random" else known for kind in kinds)]
    found = []
    made = [checkpoint_of(task, "base", model=name), tuned, *last]
    for checkpoint, strength in zip(made, strengths, strict=True):
        of_set = strength
        if checkpoint.kind == "random" and set_kept is not None:
            of_set = known * set_kept
        scores = {
            f"{task}/{part}": model(task, part, N, strength=of, rng=rng)
            for part, of in (("test", strength), ("train", of_set))
        }
        if checkpoint.method is not None:
            other = model("mrpc", "test", 60, strength=1, rng=np.random.default_rng(1))
            worse = harm if checkpoint.kind == "random" else 0.0
            values = other.log_likelihoods - np.float32(2 * worse)  # of two tokens
            scores["mrpc/test"] = replace(other, log_likelihoods=values)
        probe, variance = probe_with(0.6 + strength / 10, N)
        more = {"probe": probe, "hidden_variance": variance}
        found.append(result_of(checkpoint, scores, seed=seed, **more))
    return found


def results(models=MODELS, tasks=TASKS, seeds=(0,), **more):
    return [
        run
        for name, kept in models.items()
        for task in tasks
        for seed in seeds
        for run in of_task(name, task, float(kept[TASKS.index(task)]), seed, **more)
    ]


@pytest.fixture(scope="module")
def made():
    return results()


@pytest.fixture(scope="module")
def table(made):
    return scale.table(made, answers_of, n_resamples=300)


@pytest.fixture(scope="module")
def agreed(made):
    return scale_agreement.table(made, answers_of)


def test_what_is_lost_is_what_the_model_after_true_labels_has_more(made, table):
    assert len(table) == len(MODELS) * len(TASKS)
    assert table["known"].all()
    row = table[(table["model"] == "two") & (table["eval_task"] == "sciq")].iloc[0]
    margins = {
        r.checkpoint.kind if r.checkpoint.start else "tuned": metrics.margins(r.scores["sciq/test"])
        for r in made
        if r.checkpoint.model == "two" and r.checkpoint.task == "sciq"
    }
    area = {kind: float(metrics.auroc(of, None)) for kind, of in margins.items()}
    assert row["auroc"] == pytest.approx(area["random"])
    assert row[scale.AUROC_BEYOND] == pytest.approx(area["true"] - area["random"])
    assert row["auroc_tuned"] == pytest.approx(area["tuned"])
    assert (table[f"{scale.AUROC_BEYOND}_low"] <= table[scale.AUROC_BEYOND]).all()


def test_a_probe_s_loss_is_counted_beyond_true_labels_where_it_knew_something(made, table):
    row = table[(table["model"] == "one") & (table["eval_task"] == "sst2")].iloc[0]
    right = {
        r.checkpoint.kind: r.probe.correct[r.probe.layers == r.probe.paper_layer].mean()
        for r in made
        if r.checkpoint.model == "one" and r.checkpoint.task == "sst2"
    }  # the later "true" is the control
    assert row["probe_lost"] == pytest.approx(right["true"] - right["random"])
    assert row["probe_lost_low"] <= row["probe_lost"] <= row["probe_lost_high"]
    blind = [replace(r, records=tuple(map(_blind, r.records))) for r in made if _of(r, "sst2")]
    assert scale.table(blind, answers_of, n_resamples=100)["probe_lost"].isna().all()
    assert table["lost_confidence"].abs().max() <= 2


def _of(result, task):
    return result.checkpoint.model == "one" and result.checkpoint.task in ("", task)


def _blind(record):
    """The record, but of a probe that is right by chance."""
    if record.measurement.readout != "probe":
        return record
    value = record.value
    correct = np.arange(value.correct.size).reshape(value.correct.shape) % 2 == 0
    return replace(record, found=replace(value, correct=correct))


def test_a_model_can_tell_where_it_learned_the_random_labels_or_lost_the_true_ones(table):
    away = np.maximum(table["set_auroc"], 1 - table["set_auroc"])
    assert (table["learned_or_lost"] == ((away <= 0.6) | (table["fit"] >= 0.9))).all()
    assert set(table["learned_or_lost"]) == {True, False}


def test_harm_is_that_of_random_labels():
    of = results({"one": KEPT}, ("sst2",), harm=2.0)
    row = scale.table(of, answers_of, n_resamples=300).iloc[0]
    assert row["damage"] == pytest.approx(2.0, abs=1e-5)
    assert row["damage_again"] == pytest.approx(0.0, abs=1e-5)
    assert row["verdict"] == "damaged"


def test_harm_is_that_to_tasks_of_other_families_where_there_are_any():
    """MRPC is no commonsense task; PIQA's own family is left out, and is all there is without."""
    found = []
    for others in (("mrpc", "hellaswag"), ("hellaswag",)):
        runs = []
        for run in of_task("one", "piqa", 0.5):
            records = [r for r in run.records if r.measurement.task != "mrpc"]
            for other in others if run.checkpoint.method is not None else ():
                worse = (2.0 if other == "mrpc" else 4.0) if run.checkpoint.kind == "random" else 0
                scores = model(other, "test", 60, strength=1, rng=np.random.default_rng(1))
                values = scores.log_likelihoods - np.float32(2 * worse)
                asked = replace(records[0].measurement, task=other, split="test", n=60)
                value = replace(scores, log_likelihoods=values)
                records.append(replace(records[0], measurement=asked, found=value))
            runs.append(replace(run, records=tuple(records)))
        found.append(scale.table(runs, answers_of, n_resamples=100).iloc[0]["damage"])
    assert found == pytest.approx([2.0, 4.0], abs=1e-5)


def test_models_without_a_control_have_no_row_and_another_training_is_no_control():
    alone = results({"one": KEPT}, ("sst2",), kinds=("random",))
    for nothing in (alone, []):
        found = scale.table(nothing, answers_of)
        assert found.empty and {"model", scale.AUROC_BEYOND, "known", "learned_or_lost"} <= set(
            found
        )
        assert scale_agreement.table(nothing, answers_of).empty
        assert scale_regressions.table(nothing, answers_of).empty
    base, tuned, random, true = of_task("one", "sst2", 0.5)
    longer = with_training(true.checkpoint, epochs=9)
    other = replace(
        true,
        checkpoint=longer,
        records=tuple(replace(r, checkpoint=longer) for r in true.records),
    )
    with pytest.raises(InputError, match="the same training, but for the labels"):
        scale.table([base, tuned, random, other], answers_of)


def test_what_has_no_control_in_a_seed_is_left_out_of_every_measure():
    both = results({"one": KEPT}, ("sst2",), seeds=(0,))
    more = both + results({"one": KEPT}, ("sst2",), seeds=(1,), kinds=("random",))
    one, two = (scale.table(of, answers_of, n_resamples=100) for of in (both, more))
    pd.testing.assert_frame_equal(one, two)


def test_models_that_lose_the_same_agree_and_those_that_lose_the_opposite_do_not(agreed):
    shares = agreed[agreed["measure"] == scale_agreement.SHARE]
    found = {(r["a"], r["b"]): r for r in shares.to_dict("records")}
    assert list(found) == [("one", "two"), ("one", "other"), ("two", "other")]
    assert found["one", "two"]["rank_correlation_low"] > 0.5
    assert found["one", "two"]["ceiling"] > 0.9
    assert found["one", "other"]["rank_correlation_high"] < -0.3
    assert set(shares["n"]) == {len(TASKS)}
    free = agreed[agreed["measure"] == scale_agreement.FREE]
    assert set(free["n"]) == {len(TASKS) - 3}  # sst2, boolq and rte have fixed answers
    said = scale_agreement.finding(agreed)
    assert said.startswith(
        "Of 3 pairs of 3 models, 1 is shown to rank tasks alike by the share lost, "
    )
    known = agreed[agreed["measure"] == scale_agreement.KNOWN]
    assert len(known) == 3 and known["beside_known"].isna().all()
    row = found["one", "two"]
    assert f"one and two {estimate_of(row, 'rank_correlation')}, ceiling" in said
    assert f"with what both models know held fixed {estimate_of(row, 'beside_known')};" in said


SHARE, FREE, TRAINED = list(scale_agreement.PARTS)
STRONG, WEAK, NONE = (0.99, 0.9, 1.0), (0.66, 0.02, 0.91), (0.3, -0.4, 0.8)
OF_ONE = [NONE, NONE, WEAK]
NO_PAIR = "No pair of 3 models is shown to rank tasks alike"
OF_TASKS = "by the tasks whose random labels both learned (or lost the true ones; {} tasks)"


def ranked(n=(11, 11, 11), **of):
    """An agreement of three pairs of three models, or of the first of them, by measure."""
    pairs = (("one", "two"), ("one", "three"), ("two", "three"))
    names = {"share": SHARE, "free": FREE, "trained": TRAINED}
    columns = with_intervals(["rank_correlation"])
    rows = [
        {"a": a, "b": b, "measure": names[name], "ceiling": 0.6, "n": size}
        | dict(zip(columns, value, strict=True))
        | dict.fromkeys(with_intervals(["beside_known"]), 0.5)
        for name, values in of.items()
        for (a, b), value, size in zip(pairs, values, n, strict=False)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("agreed", "said"),
    [
        (
            ranked((4, 4, 11), share=[WEAK, NONE, WEAK], free=[NONE] * 3, trained=OF_ONE),
            f"{NO_PAIR} after Holm's correction; before it, 2 are by the share lost, none by free "
            f"answers alone, 1 {OF_TASKS.format('4, 4 and 11')};",
        ),
        (
            ranked(share=[WEAK, NONE, STRONG], free=[NONE] * 3, trained=[STRONG] * 2),
            "Of 3 pairs of 3 models, 1 is shown to rank tasks alike by the share lost, none by "
            f"free answers alone, 2 of 2 {OF_TASKS.format('11')}, after Holm's correction "
            "(before it 2, none and 2)",
        ),
        (
            ranked(share=[NONE] * 3, free=[NONE, WEAK, NONE]),
            f"{NO_PAIR} after Holm's correction; before it, none are by the share lost, 1 by free "
            "answers alone;",
        ),
        (
            ranked(share=[NONE] * 3, free=[NONE] * 3),
            f"{NO_PAIR}: not by the share lost, nor by free answers alone;",
        ),
        (
            ranked(share=[WEAK], free=[NONE], trained=[NONE]),
            "Two models are shown to rank tasks alike by the share lost, but not by free answers "
            f"alone nor {OF_TASKS.format('11')};",
        ),
        (ranked(share=[WEAK]), "Two models are shown to rank tasks alike by the share lost; rank"),
        (ranked(share=[NONE]), "Two models are not shown to rank tasks alike: not by the share"),
    ],
)  # fmt: skip
def test_what_is_shown_of_agreement_is_what_many_tries_leave(agreed, said):
    """An interval that just leaves out 0 is chance in one of three: it is no longer shown."""
    assert scale_agreement.finding(agreed).startswith(said)
    short = scale_agreement.finding(agreed, exact=False)
    assert short.startswith(said.removesuffix("; rank").partition("before it")[0].rstrip("; ("))
    assert "before it" not in short
    ends = agreed.loc[agreed["measure"] == SHARE, "rank_correlation"]
    assert f"{between(ends)}, and 0.50 with what both models know held fixed" in short


def test_where_labels_were_neither_learned_nor_lost_is_told_apart(agreed):
    """Else models would agree on which trainings failed."""
    assert scale_agreement.TRAINED not in set(agreed["measure"])  # two tasks at most
    forgot = results(tasks=TASKS[:5], set_kept=0.0)
    rest = results(tasks=TASKS[5:], set_kept=1.0)
    found = scale_agreement.table([*forgot, *rest], answers_of)
    of = found.set_index("measure")
    assert set(of.loc[scale_agreement.TRAINED, "n"]) == {5}
    assert set(of.loc[scale_agreement.SHARE, "n"]) == {len(TASKS)}
    alone = scale_agreement.table(forgot, answers_of).set_index("measure")
    columns = ["rank_correlation", "ceiling"]
    assert of.loc[scale_agreement.TRAINED, columns].to_numpy() == pytest.approx(
        alone.loc[scale_agreement.SHARE, columns].to_numpy()
    )
    assert OF_TASKS.format(5) in scale_agreement.finding(found)


def test_models_that_know_the_same_tasks_well_are_not_said_to_lose_the_same():
    """What is known is ranked alike, what is lost of it is chance: the two are told apart."""
    rng = np.random.default_rng(5)
    strengths = dict(zip(TASKS, np.linspace(0.5, 3.0, len(TASKS)), strict=True))
    found = {measure: [] for measure in scale_agreement.AGREE}
    for seed in range(4):
        every = []
        for name in ("one", "two"):
            for task in TASKS:
                kept = rng.uniform(0, 1)
                every += of_task(name, task, kept, seed, known=strengths[task])
        for row in scale_agreement.table(every, answers_of).to_dict("records"):
            found[row["measure"]].append(row["rank_correlation"])
    assert np.mean(found[scale_agreement.KNOWN]) > 0.9
    assert np.mean(found[scale_agreement.SHARE]) < 0.6


def test_models_that_lose_more_of_what_they_know_better_agree_by_that_alone():
    """Both know the same tasks well, and lose these: with that held fixed, chance is left."""
    rng = np.random.default_rng(5)
    levels = dict(zip(TASKS, np.linspace(0.0, 1.0, len(TASKS)), strict=True))
    found = []
    for seed in range(6):
        every = []
        for name in ("one", "two"):
            for task, level in levels.items():
                kept = float(np.clip(0.9 - 0.8 * level + rng.normal(0, 0.15), 0, 1))
                every += of_task(name, task, kept, seed, known=1.0 + 1.5 * level)
        table = scale_agreement.table(every, answers_of).set_index("measure")
        found.append(table.loc[scale_agreement.SHARE, ["rank_correlation", "beside_known"]])
    plain, beside = np.mean(np.array(found, float), axis=0)
    assert plain > 0.6 and abs(beside) < 0.4


def test_questions_that_two_models_share_do_not_make_them_agree():
    """Both are the same model, whose tasks are lost alike: what is left is chance in questions."""
    found = []
    for seed in range(8):
        runs = [run for task in TASKS for run in of_task("one", task, 0.5, seed)]
        every = [_named(run, name) for name in ("one", "two") for run in runs]
        agreed = scale_agreement.table(every, answers_of).set_index("measure")
        found.append(agreed.loc[scale_agreement.LOSS, "rank_correlation"])
    assert abs(np.mean(found)) < 0.35, found


def test_a_model_with_fewer_seeds_is_compared_in_those_that_both_have():
    two = results({"one": KEPT}, seeds=(0, 1)) + results({"two": KEPT}, seeds=(0,))
    one = results({"one": KEPT}, seeds=(0,)) + results({"two": KEPT}, seeds=(0,))
    found = [scale_agreement.table(of, answers_of).iloc[0] for of in (two, one)]
    assert found[0]["rank_correlation"] == pytest.approx(found[1]["rank_correlation"])


def test_of_fewer_than_four_tasks_agreement_is_not_taken():
    few = results(MODELS, TASKS[:3])
    agreed = scale_agreement.table(few, answers_of)
    assert agreed.empty
    assert scale_agreement.finding(agreed).startswith("No two models knew the same 4 tasks")


def _named(run, name):
    """The same numbers as if they were of a model of this name."""

    def renamed(checkpoint):
        start = checkpoint.start and renamed(checkpoint.start)
        return replace(checkpoint, model=name, start=start)

    checkpoint = renamed(run.checkpoint)
    records = tuple(replace(r, checkpoint=checkpoint) for r in run.records)
    return replace(run, checkpoint=checkpoint, records=records)


def judged(**verdicts_of):
    """A table of models, a letter each, with these verdicts by task: "sst2": "FFK"."""
    words = {"F": "forgotten", "K": "kept", "I": "inverted", "D": "damaged", "?": "not decided"}
    rows = [
        {
            "model": f"model {i}",
            "eval_task": task,
            "known": letter != "-",
            "learned_or_lost": letter != "x",
            "verdict": words.get(letter, "kept"),
            f"{scale.AUROC_BEYOND}_low": 0.1,
        }
        for task, letters in verdicts_of.items()
        for i, letter in enumerate(letters)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sst2": "FF"}, "Of 1 task that 2 models can tell of (that knew them, and learned their "),
        ({"sst2": "FF"}, "or lost the true ones), SST-2 is forgotten in each model"),
        ({"sst2": "IIII"}, "SST-2 is inverted in each model"),
        ({"sst2": "DDD", "piqa": "KKK"}, "PIQA is kept in each model; SST-2 is damaged in "),
        ({"sst2": "FK", "piqa": "KK"}, "PIQA is kept in each model; SST-2 is kept in 1 model and"),
        ({"sst2": "FI"}, "SST-2 is forgotten in 1 model and inverted in 1"),
        ({"sst2": "DFF"}, "SST-2 is forgotten in 2 models and damaged in 1"),
        (dict.fromkeys(("sst2", "piqa", "sciq", "copa"), "FK"), "models differ in 4 tasks"),
        ({"sst2": "K?", "piqa": "??"}, "SST-2 and PIQA are not decided in at least one"),
        ({"sst2": "?F", "piqa": "??"}, "SST-2 is forgotten in 1 model and not decided in 1; PIQA"),
        ({"sst2": "FF?"}, "SST-2 is forgotten in 2 models and not decided in 1"),
        ({"sst2": "D??"}, "SST-2 is damaged in 1 model and not decided in 2"),
        ({"sst2": "FK?"}, "SST-2 is kept in 1 model, forgotten in 1 and not decided in 1"),
        ({"sst2": "FF-", "piqa": "KKK"}, "Of 2 tasks that 2 or 3 models can tell of"),
        ({"sst2": "FF-", "piqa": "KKK"}, "PIQA is kept in each of 3 models; SST-2 is forgotten"),
        ({"sst2": "KK-", "piqa": "KKK"}, "kept in each of these (1 of them in 3 models, 1 in 2)"),
        ({"sst2": "KK--", "piqa": "KKKK"}, "Of 2 tasks that 2 to 4 models can tell of"),
        ({"sst2": "Fx"}, "No task was known, and its random labels learned (or the true ones l"),
        ({"sst2": "F-"}, "No task was known, and its random labels learned (or the true ones l"),
        ({"sst2": "F"}, "One model has nothing to be compared with"),
    ],
)  # fmt: skip
def test_the_finding_says_what_becomes_of_a_task_in_models_that_can_tell(given, said):
    assert said in scale.finding(judged(**given))


def test_every_verdict_has_its_place_in_the_finding():
    for verdict in set(verdicts.VERDICTS) - {verdicts.NOTHING, verdicts.NOT_DECIDED}:
        table = judged(sst2="KK").assign(verdict=verdict)
        assert f"SST-2 is {verdict} in each" in scale.finding(table)


def test_a_loss_that_true_labels_cost_too_is_none():
    table = judged(sst2="FF").assign(**{f"{scale.AUROC_BEYOND}_low": -0.1})
    assert scale.outcomes(table) == {"sst2": ["not decided", "not decided"]}


def numbers(n_models=3, n_tasks=12, slope=0.15, seed=0):
    """A table of known truth: confidence acts, variance does not, models differ by a level."""
    rng = np.random.default_rng(seed)
    tasks = [f"task{i}" for i in range(n_tasks)]
    level = 0.03 * rng.normal(size=n_tasks)
    rows = []
    for m in range(n_models):
        for i, task in enumerate(tasks):
            x = rng.normal()
            rows.append(
                {
                    "model": f"model{m}",
                    "eval_task": task,
                    "confidence": 0.8 + 0.05 * x + 0.1 * m,
                    "log_variance": rng.normal() + 3 * m,
                    "fit": 0.8 + 0.1 * rng.normal(),
                    "tuned": 0.85 + 0.05 * rng.normal(),
                    "answer_format": "text" if i % 2 else "verbaliser",
                    scale.AUROC_BEYOND: 0.2 + slope * x + level[i] - 0.3 * m + 0.03 * rng.normal(),
                    "forget_ratio": 0.5 + 0.2 * rng.normal(),
                }
            )
    return pd.DataFrame(rows)


def test_what_acts_is_found_whatever_models_differ_by_and_agrees_with_statsmodels():
    table = numbers()
    found = scale_regressions.coefficients(table)
    of = found[(found["outcome"] == scale.AUROC_BEYOND) & (found["fitted"] == "alone")].set_index(
        "term"
    )
    row = of.loc["confidence"]

    def theirs(table):
        own = table["confidence"] - table.groupby("model")["confidence"].transform("mean")
        standard = table.assign(z=own / own.groupby(table["eval_task"]).mean().std())
        formula = f"{scale.AUROC_BEYOND} ~ z + model"
        return smf.mixedlm(formula, standard, groups=table["eval_task"]).fit().params["z"]

    assert row["coefficient"] == pytest.approx(theirs(table), rel=1e-3)
    assert row["coefficient_low"] > 0 and row["holm"] < 0.05
    without = [theirs(table[table["model"] != name]) for name in set(table["model"])]
    assert [row["least"], row["most"]] == pytest.approx([min(without), max(without)], rel=1e-3)
    low, high = of.loc["log_variance", ["coefficient_low", "coefficient_high"]]
    assert low < 0 < high
    said = scale_regressions.finding(found)
    assert said.startswith("Confidence (more is forgotten with it) is shown to go with AUROC lost")
    assert "over 36 pairs of a model and a task (12 tasks)" in said
    # Without the term for models, the levels that they differ by would turn the sign.
    assert np.polyfit(table["confidence"], table[scale.AUROC_BEYOND], 1)[0] < 0


def test_of_a_group_it_is_said_how_many_tasks_it_has():
    table = numbers(slope=0.0)
    fixed = table["eval_task"].isin(["task3", "task8"])
    table["answer_format"] = np.where(fixed, "verbaliser", "text")
    table[scale.AUROC_BEYOND] += 0.5 * fixed
    found = scale_regressions.coefficients(table)
    of = found[(found["outcome"] == scale.AUROC_BEYOND) & (found["fitted"] == "alone")]
    assert of.set_index("term")["n_of"].dropna().to_dict() == {"answer_format: verbaliser": 2}
    said = scale_regressions.finding(found)
    assert said.startswith(
        "Fixed against free answers (2 tasks against 10; more is forgotten with it) is shown to go"
    )


def test_levels_that_models_differ_by_are_in_no_standard_deviation():
    """One model did half of the tasks: the others' level is not a difference of tasks."""
    table = numbers()
    half = table[(table["model"] != "model2") | (table.index % 2 == 0)]
    far = half.assign(log_variance=half["log_variance"] + 50 * (half["model"] == "model2"))
    one, two = (
        scale_regressions.coefficients(of, ["log_variance"])["coefficient"] for of in (half, far)
    )
    assert one.to_numpy() == pytest.approx(two.to_numpy(), rel=1e-3)


def test_of_what_does_nothing_little_is_said():
    """Ten tests of nothing, each at 5 %, after Holm's correction. Two models: none is left out."""
    said = []
    for seed in range(12):
        found = scale_regressions.coefficients(numbers(2, slope=0.0, seed=seed))
        said.append((found["holm"] < 0.05).any())
    assert np.mean(said) <= 0.25


def test_a_partial_regression_has_the_slope_of_least_squares_with_models():
    table = numbers()
    points = scale_regressions.partial(table, "confidence")
    slope = (points["x"] * points["y"]).sum() / (points["x"] ** 2).sum()
    theirs = smf.ols(f"{scale.AUROC_BEYOND} ~ confidence + model", table).fit()
    assert slope == pytest.approx(theirs.params["confidence"])
    assert points.groupby("model")[["x", "y"]].mean().abs().max().max() < 1e-12
    holes = table.assign(log_variance=np.nan)
    assert scale_regressions.partial(holes, "log_variance").empty


@pytest.mark.parametrize(("n_models", "n_tasks"), [(1, 12), (3, 2)])
def test_where_nothing_can_be_estimated_it_is_said_why(n_models, n_tasks):
    found = scale_regressions.coefficients(numbers(n_models, n_tasks))
    assert found["coefficient"].isna().all()
    assert found["note"].str.len().min() > 0
    assert "cannot be explained by" in scale_regressions.finding(found)


def test_the_table_of_predictors_has_the_tasks_that_were_known(made, table):
    found = scale_regressions.table(made, answers_of)
    assert len(found) == len(table)
    assert set(scale_regressions.TERMS) <= set(found)
    assert scale_regressions.table([], answers_of).empty


PICTURES = {
    "models": lambda t, a: scale.draw(t),
    "one model": lambda t, a: scale.draw(t[t["model"] == "one"]),
    "more": lambda t, a: scale.draw(t, scale.MORE),
    "agreement": lambda t, a: scale_agreement.draw(t, a),
    "under way": lambda t, a: scale_agreement.draw(t, a, "under way: 140 of 168 jobs"),
    "two models": lambda t, a: scale.draw(t[t["model"] != "other"]),
    "no agreement": lambda t, a: scale_agreement.draw(t, a.iloc[:0]),
    "regressions": lambda t, a: scale_regressions.draw(numbers(), regressed()),
    "claims": lambda t, a: claims_figure.draw(scale_claims.table(t, a, numbers())),
    "few tasks": lambda t, a: scale_regressions.draw(n := numbers(2, 2), regress(n)),
}


def regress(table):
    return scale_regressions.coefficients(table)


@cache
def regressed():
    """The coefficients of `numbers`, whose mixed models take seconds."""
    return regress(numbers())


def verdicts_of(lost, agreed, points):
    """The verdict on each statistic of a claim, as lists by claim."""
    found = scale_claims.table(lost, agreed, points)
    return found, found.groupby("claim")["verdict"].agg(list).to_dict()


def test_claims_that_models_decide_are_judged_by_the_one_rule(table, agreed):
    """Confidence goes with more forgetting here: the claim is that it goes with less."""
    points = numbers(3, 40)
    found, by_claim = verdicts_of(table, agreed, points)
    assert found["post_hoc"].all()
    assert len(by_claim["robust-to-method-and-model"]) == 3
    confidence, variance = by_claim["confidence-and-variance"]
    assert confidence == "does not hold" and variance in (
        CANNOT_DECIDE,
        "not decided by these data",
    )
    less = points.assign(**{scale.AUROC_BEYOND: -points[scale.AUROC_BEYOND]})
    assert verdicts_of(table, agreed, less)[1]["confidence-and-variance"][0] == HOLDS


def test_a_partial_correlation_is_that_of_the_mixed_models_test():
    """Of one model a task there is nothing random: least squares has the same t."""
    found = scale_claims._partial(0.2, 0.03, 17)
    t = abs(stats.t.ppf(0.015, 17))
    assert found.value == pytest.approx(t / np.sqrt(t**2 + 17))
    assert scale_claims._partial(-0.2, 0.03, 17).value == pytest.approx(-found.value)
    assert found.low < found.value < found.high < 1
    # As wide as a correlation's of as many points: Fisher's 1 / sqrt(n - 3), n = df + 2.
    width = np.arctanh(found.high) - np.arctanh(found.low)
    assert width == pytest.approx(2 * stats.norm.ppf(0.975) / 4)
    assert np.isnan(scale_claims._partial(np.nan, np.nan, 17).value)


def test_a_family_of_few_tasks_is_no_family(table, agreed):
    points = numbers(1, 12)  # of one model: of these, nothing is estimated
    found, by_claim = verdicts_of(table, agreed, points)
    assert by_claim["task-family-split"] == [CANNOT_DECIDE]
    assert "5 language tasks learned (2 here)" in found["why"].iloc[0]
    names = ("sst2", "rte", "mrpc", "cola_hub", "qnli_hub", "sciq", "piqa", "arc_easy")
    many = pd.DataFrame(
        {"model": "one", "eval_task": names, "known": True, "learned_or_lost": True}
    )
    many[scale.AUROC_BEYOND] = [0.30, 0.32, 0.28, 0.31, 0.29, 0.01, 0.02, 0.03]
    found, by_claim = verdicts_of(many, agreed.iloc[:0], points)
    assert by_claim["task-family-split"] == [HOLDS]
    assert found["value"].iloc[0] == pytest.approx(0.28)
    untrained = many.assign(learned_or_lost=many["eval_task"] != "rte")
    assert verdicts_of(untrained, agreed, points)[1]["task-family-split"] == [CANNOT_DECIDE]


def test_claims_of_nothing_say_what_they_lack(table, agreed):
    few = numbers(1, 12)
    found, _ = verdicts_of(table.iloc[:0], agreed.iloc[:0], few)
    assert (found["verdict"] == CANNOT_DECIDE).all() and found["why"].str.startswith("needs").all()
    claims_figure.draw(found)


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_of_a_picture_covers_another_or_leaves_the_page(name, table, agreed, monkeypatch):
    figure = PICTURES[name](table, agreed)
    assert figure.get_figheight() <= 9.5
    texts = drawn_texts(figure, monkeypatch)
    width, height = figure.get_size_inches() * figure.dpi
    outside = [
        t for t, e, _ in texts if e[0] < -1 or e[1] < -1 or e[2] > width + 1 or e[3] > height + 1
    ]
    assert outside == []
    assert overlapping(texts) == []


def test_a_mark_stands_at_its_number_and_is_open_where_it_cannot_tell(table):
    told = table.assign(known=table["model"] != "two", learned_or_lost=True)
    axes = scale.draw(told).axes[0]
    assert sorted(points_of(axes)[:, 0]) == pytest.approx(sorted(table[scale.AUROC_BEYOND]))
    found = {}
    for line in axes.lines:
        if line.get_marker() in [m for m, _ in scale.MARKS] and len(line.get_xdata()):
            found.setdefault(line.get_color(), set()).add(line.get_markerfacecolor())
    (_, one), (_, two), (_, other) = scale.MARKS[:3]
    assert found == {one: {one}, two: {"white"}, other: {other}}
    assert len(ticks(axes.yaxis)) == len(TASKS)


@pytest.mark.parametrize(
    "draw",
    [
        lambda t, a: scale.draw(t.drop(columns="known")),
        lambda t, a: scale.draw(t.drop(columns="fit_low")),
        lambda t, a: scale_agreement.draw(t, a.drop(columns="ceiling")),
        lambda t, a: scale_agreement.draw(t.drop(columns=scale.AUROC_BEYOND), a),
        lambda t, a: scale_regressions.draw(t, regressed()),
        lambda t, a: scale_regressions.draw(numbers(), t),
    ],
)
def test_a_table_of_something_else_is_refused(draw, table, agreed):
    with pytest.raises(InputError, match="column"):
        draw(table, agreed)


def test_the_readme_says_what_the_tables_say(table, agreed, tmp_path):
    table.to_csv(tmp_path / "scale_models.csv", index=False)
    agreed.to_csv(tmp_path / "scale_agreement.csv", index=False)
    regressed().to_csv(tmp_path / "scale_regressions.csv", index=False)
    tables = Tables(tmp_path)
    answer = scale_readme.answer(tables)
    assert answer.startswith(scale.finding(table)) and answer.endswith("(scale_agreement.png)).")
    first, *models, agree, last = scale_readme.findings(tables).splitlines()
    assert agree.startswith(f"- {scale_agreement.finding(agreed)}")
    assert first == f"- **{scale.finding(table)}** ([every model](scale_models.png))."
    assert len(models) == len(MODELS)
    assert scale_regressions.finding(regressed()) in last
    one = table[table["model"] == "one"]
    assert models[0].startswith(f"- one knew {one['known'].sum()} of 8 tasks, and learned the")
    assert "harm" not in models[0]
    harmed = table["model"] == "one"
    worse = table.assign(damage=table["damage"].mask(harmed, 2.5))
    worse = worse.assign(damage_low=worse["damage_low"].mask(harmed, 1.5), learned_or_lost=False)
    worse = worse.assign(damage_again=0.2, damage_again_low=0.1)
    worse.to_csv(tmp_path / "scale_models.csv", index=False)
    said = scale_readme.findings(Tables(tmp_path)).splitlines()[1]
    assert "learned the random labels (or lost the true ones) of none; random labels of" in said
    assert said.endswith("harm other tasks (nats a token up by 2.50, after true labels by 0.20).")
    # Where true labels do it as well, it is no matter of labels.
    worse.assign(damage_again=2.4, damage_again_low=1.4).to_csv(
        tmp_path / "scale_models.csv", index=False
    )
    said = scale_readme.findings(Tables(tmp_path)).splitlines()[1]
    assert "random labels of" not in said and "; a second training on" in said
    assert said.endswith(
        "with true labels too (nats a token up by 2.50, after true labels by 2.40)."
    )
    table.to_csv(tmp_path / "scale_models.csv", index=False)
    rows = [line for line in scale_readme.table(tables).splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(table)
    row = table[(table["model"] == "two") & (table["eval_task"] == "sciq")].iloc[0]
    assert any(f"| SciQ | two | {estimate_of(row, 'auroc_tuned')} |" in line for line in rows)
    with pytest.raises(InputError, match="scale_models"):
        scale_readme.findings(Tables(tmp_path / "empty"))


def test_a_study_that_is_under_way_says_so_in_the_picture_of_agreement(table, agreed):
    for found in (agreed, agreed.iloc[:0]):
        figure = scale_agreement.draw(table, found, "under way: 140 of 168 jobs")
        assert " ".join(figure.get_suptitle().split()).endswith("(under way: 140 of 168 jobs)")


def test_the_readme_says_what_fixed_answers_have_of_the_agreement(table, tmp_path):
    """Where agreement is as great without them, nothing is said of them."""
    table.to_csv(tmp_path / "scale_models.csv", index=False)
    for free, said in (([NONE, WEAK, NONE], True), ([STRONG, NONE, NONE], False)):
        ranked(share=[WEAK, STRONG, WEAK], free=free).to_csv(
            tmp_path / "scale_agreement.csv", index=False
        )
        tables = Tables(tmp_path)
        last = scale_readme.findings(tables).splitlines()[-1]
        words = (
            "Some of it rests on BoolQ, RTE and SST-2, whose answers are fixed: by the other tasks"
        )
        end = "0.30, 0.66 and 0.30, and 0.50, 0.50 and 0.50 with what both models know held fixed."
        assert last.endswith(f"{words} the rank correlations are {end}") == said
        assert ("rests on" in last) == said and "rests on" not in scale_readme.answer(tables)


def test_rows_that_learned_random_labels_and_still_rank_by_true_ones_are_counted(table, tmp_path):
    first = table.index == table.index[0]
    told = table.assign(fit=np.where(table.index < table.index[4], 0.95, 0.5), set_auroc_low=0.5)
    said = "In 1 of the 4 rows whose random labels were learned, the AUROC of the set"
    for low, there in ((0.61, True), (0.6, False)):
        changed = told.assign(set_auroc_low=told["set_auroc_low"].mask(first, low))
        changed.to_csv(tmp_path / "scale_models.csv", index=False)
        assert (said in scale_readme.table(Tables(tmp_path))) == there


def test_columns_of_the_docstring_are_those_of_the_table(table):
    names = ["auroc_tuned", "auroc", "auroc_again", scale.AUROC_BEYOND, "forget_ratio"]
    names += ["set_auroc", "fit", "damage", "damage_again", "probe_lost", "lost_confidence"]
    assert list(table) == [*scale.COLUMNS, *with_intervals(names)]
    assert all(name in scale.table.__doc__ for name in [*scale.COLUMNS, *names])
