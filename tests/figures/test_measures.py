"""Measures of made-up models whose truth is known: what they know, and what they say."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from synthetic import checkpoint_of, family, result_of

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import fig2, fig2b, measures, verdicts
from forgetlib.forgetting.labels import labels_of
from forgetlib.measuring.base import Scores

YES_SHARE = 0.6


def answers_of(task, seed):
    """Texts that belong to the uids below: the first is yes or no by the number in the uid."""
    known = {}
    for part in ("train", "test"):
        for i in range(1000):
            yes = (i * 7919) % 1000 < YES_SHARE * 1000
            known[f"{task}/{part}/{i}"] = ("yes", "no") if yes else ("no", "yes")
    return known


def model(task, part, n, *, strength, bias=0.0, first=0, rng=None, toward=None):
    """Scores of a model that knows `strength` (in standard deviations) and says yes by `bias`.

    toward: labels (N,) that it has learned by heart, beside what it knows
    """
    rng = rng or np.random.default_rng(len(task) + n)
    uids = tuple(f"{task}/{part}/{i + first}" for i in range(n))
    answers = answers_of(task, 0)
    is_yes = np.array([answers[u][0] == "yes" for u in uids])
    labels = np.arange(n) % 2
    margin = rng.normal(strength, 1, n) + np.where(is_yes, bias, -bias)
    if toward is not None:
        margin = np.where(toward(uids, labels) == labels, 9.0, -9.0)
    values = np.full((n, 2), -4.0)
    values[np.arange(n), labels] += margin
    return Scores(uids, values.astype(np.float32), np.full((n, 2), 2, np.int32), labels)


def runs(task, *, tuned, after, n=400, seeds=(0, 1, 2), elsewhere=None, before=(), kind="random"):
    """A family a seed: tuned and after are settings of `model`; elsewhere: nats of both.

    before: nats of the pre-trained one, and how many of the other task's questions it was asked
    """
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        one = checkpoint_of(task, "true", seed=seed, n=n)
        last = checkpoint_of(task, kind, seed=seed, start=one, n=n)
        base = checkpoint_of(task, "base")
        settings = ((base, {"strength": 0.3}), (one, tuned), (last, after))
        for i, (checkpoint, setting) in enumerate(settings):
            scores = {
                f"{task}/test": model(task, "test", n, rng=rng, first=seed * n % 600, **setting),
                f"{task}/train": model(task, "train", n, rng=rng, **setting),
            }
            if elsewhere and (i or before):
                nats, n_asked = (elsewhere[i - 1], 60) if i else before
                other = model("other", "test", n_asked, strength=1, rng=rng)
                worse = other.log_likelihoods - np.float32(2 * nats)
                scores["other/test"] = replace(other, log_likelihoods=worse)
            found.append(result_of(checkpoint, scores, seed=seed))
    return found


def row_of(results, task="sst2", phase="random", answers=answers_of):
    table = measures.table(results, answers, n_resamples=2000)
    (row,) = table[(table["eval_task"] == task) & (table["phase"] == phase)].to_dict("records")
    return row


KNOWS, NOTHING = {"strength": 2.0}, {"strength": 0.0}


@pytest.mark.parametrize(
    ("task", "after", "expected"),
    [
        ("sst2", {"strength": 1.8}, verdicts.KEPT),
        ("sst2", {"strength": 2.0, "bias": 9.0}, verdicts.SHIFTED),
        ("sst2", {"strength": 2.0, "bias": -9.0}, verdicts.SHIFTED),
        ("sst2", NOTHING, verdicts.FORGOTTEN),
        ("sst2", {"strength": 0.0, "bias": 9.0}, verdicts.FORGOTTEN),
        ("sst2", {"strength": -2.0}, verdicts.INVERTED),
        ("piqa", {"strength": 1.8}, verdicts.KEPT),
        ("piqa", NOTHING, verdicts.FORGOTTEN),
        ("piqa", {"strength": -2.0}, verdicts.INVERTED),
    ],
)
def test_a_model_whose_truth_is_known_gets_its_verdict(task, after, expected):
    found = row_of(runs(task, tuned=KNOWS, after=after), task)
    assert found["verdict"] == expected
    assert found["answer_format"] == ("verbaliser" if task == "sst2" else "text")


def test_a_model_that_predicts_other_text_badly_is_damaged():
    for elsewhere, expected in (((1, 1.2), verdicts.FORGOTTEN), ((1, 4), verdicts.DAMAGED)):
        found = row_of(runs("sst2", tuned=KNOWS, after=NOTHING, elsewhere=elsewhere))
        assert found["verdict"] == expected
        assert found["damage"] == pytest.approx(elsewhere[1] - elsewhere[0], abs=0.2)


def test_what_teaching_alone_did_to_other_text_is_told_where_it_was_asked_before():
    """Of the questions that the later models were asked, where the first was asked more."""
    harmed = {"tuned": KNOWS, "after": NOTHING, "elsewhere": (3, 3.2)}
    found = row_of(runs("sst2", before=(1, 80), **harmed), phase="tuned")
    assert found["nll_taught"] == pytest.approx(2, abs=0.2)
    assert found["nll_taught_low"] < found["nll_taught"] < found["nll_taught_high"]
    assert np.isnan(found["damage"])
    asked = runs("sst2", before=(1, 80), **harmed)
    by_hand = []
    for base, tuned in zip(asked[::3], asked[1::3], strict=True):
        first, later = base.scores["other/test"], tuned.scores["other/test"]
        assert first.uids[:60] == later.uids
        each = [metrics.nll_a_token(s)[:60].mean() for s in (later, first)]
        by_hand.append(each[0] - each[1])
    assert found["nll_taught"] == pytest.approx(np.mean(by_hand))
    for before in ((), (1, 50)):  # not asked, or fewer of the questions
        rows = runs("sst2", before=before, **harmed)
        assert np.isnan(row_of(rows, phase="tuned")["nll_taught"])
        assert row_of(rows)["damage"] == pytest.approx(0.2, abs=0.2)


def test_what_was_never_known_cannot_be_forgotten():
    found = row_of(runs("sst2", tuned=NOTHING, after=NOTHING))
    assert found["verdict"] == verdicts.NOTHING
    assert np.isnan([found["forget_ratio"], found["auroc_ratio"]]).all()


def test_one_answer_to_everything_is_no_knowledge_of_a_task_with_fixed_answers():
    """Right in the commoner answer's share, 0.6: above 0.5 by its interval, and nothing known."""
    results = runs("sst2", tuned={"strength": 0.0, "bias": 9.0}, after=NOTHING)
    tuned = row_of(results, phase="tuned")
    assert tuned["accuracy_low"] > 0.5 and tuned["commonest_share"] == 1
    assert tuned["accuracy"] == pytest.approx(tuned["true_share"]) and tuned["auroc"] < 0.6
    assert row_of(results)["verdict"] == verdicts.NOTHING
    own = fig2.table(results, answers=answers_of)
    assert not own["ratio_defined"].item() and own["behaviour"].item() == "ratio undefined"
    assert fig2.table(results)["ratio_defined"].item()  # without the texts nobody can tell


def test_the_commoner_of_two_answers_has_half_of_them_at_least():
    """Also at the end of an interval over two seeds that lie apart."""
    both = [
        run
        for seed, bias in ((0, 0.0), (1, 9.0))
        for run in runs("sst2", tuned={"strength": 0.0, "bias": bias}, after=NOTHING, seeds=(seed,))
    ]
    tuned = row_of(both, phase="tuned")
    assert tuned["n_seeds"] == 2
    assert tuned["commonest_share_low"] == 0.5 < tuned["commonest_share"] < 1


def test_measures_are_those_of_an_independent_computation():
    results = runs("sst2", tuned=KNOWS, after={"strength": 0.5, "bias": 1.0})
    found, areas, rights = row_of(results), [], []
    for result in results:
        if result.checkpoint.kind == "random":
            scores = result.scores["sst2/test"]
            known = answers_of("sst2", 0)
            rows = np.arange(len(scores))
            of_true, of_other = (
                scores.log_likelihoods[rows, x] for x in (scores.labels, 1 - scores.labels)
            )
            yes = np.array([known[u][0] == "yes" for u in scores.uids])
            difference = np.where(yes, of_true - of_other, of_other - of_true)
            u = scipy.stats.mannwhitneyu(difference[yes], difference[~yes]).statistic
            areas.append(u / (yes.sum() * (~yes).sum()))
            rights.append((of_true > of_other).mean())
    assert found["auroc"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert found["accuracy"] == pytest.approx(np.mean(rights))
    assert found["nll"] > 0 and found["n"] == 1200 and found["n_seeds"] == 3


def test_the_fit_is_to_the_labels_that_were_trained_on():
    def drawn(uids, labels):
        return labels_of(uids, labels, np.full(len(labels), 2), "random", 0)

    results = runs("sst2", tuned=KNOWS, after={"strength": 0.0, "toward": drawn}, seeds=(0,))
    found = row_of(results)
    assert found["fit"] == 1 and 0.4 < found["set_accuracy"] < 0.6
    assert row_of(results, phase="tuned")["fit"] > 0.9  # to the true ones
    assert np.isnan(row_of(results, phase="base")["fit"])


def test_kinds_of_the_same_seeds_are_compared_with_each_other_and_others_stand_alone():
    results = runs("piqa", tuned=KNOWS, after=NOTHING)
    results += [
        r
        for r in runs("piqa", tuned=KNOWS, after=KNOWS, kind="true", seeds=(0, 1))
        if r.checkpoint.start
    ]
    table = measures.table(results, None, ("random", "true"), n_resamples=50)
    assert table["phase"].tolist() == ["base", "tuned", "random", "true"]
    assert table["n_seeds"].tolist() == [3, 3, 3, 2]
    (both,) = measures.measured(results, None, ("random", "true"), paired=True, n_resamples=50)
    assert (both[0], both[1].phases, both[1].n_seeds) == (
        ("tiny", "piqa", 400),
        ("base", "tuned", "random", "true"),
        2,
    )


def test_answers_that_are_not_those_of_the_results_are_refused():
    results = runs("sst2", tuned=KNOWS, after=NOTHING, seeds=(0,))
    with pytest.raises(InputError, match="questions that the task has, found 400 others"):
        measures.table(results, lambda task, seed: {})


def test_smaller_forgetting_sets_are_left_to_figure_7():
    results = family("t", 0.5, 0.9, 0.6) + family("t", 0.5, 0.9, 0.8, size=50)
    assert len(measures.table(results, None)) == 3
    assert measures.table([], None).empty


def test_the_finding_names_what_became_of_each_task():
    results = runs("sst2", tuned=KNOWS, after=NOTHING) + runs("piqa", tuned=KNOWS, after=KNOWS)
    results += runs("rte", tuned=NOTHING, after=NOTHING)
    table = measures.table(results, answers_of)
    said = fig2b.finding(table)
    words = "Of 2 tasks that were known, SST-2 is forgotten; PIQA is kept"
    assert (
        said == f"{words} (harm to other tasks was not measured)"
    )  # what is gone may be the model
    harmless = runs("sst2", tuned=KNOWS, after=NOTHING, elsewhere=(1, 1.2))
    seen = fig2b.finding(measures.table(harmless, answers_of))
    assert seen == "Of 1 tasks that were known, SST-2 is forgotten"
    assert fig2b.draw(table).get_suptitle().replace(chr(10), " ") == said
    nothing = table[table["eval_task"] == "rte"]
    assert fig2b.finding(nothing) == "No task was shown to be known before forgetting"
    assert fig2b.draw(nothing)


def test_the_paper_s_accuracies_stand_in_the_rows_of_its_tasks():
    results = runs("sst2", tuned=KNOWS, after=NOTHING) + runs("piqa", tuned=KNOWS, after=KNOWS)
    panel = fig2b.draw(measures.table(results, answers_of)).axes[0]
    (marks,) = (line for line in panel.lines if str(line.get_label()).startswith("paper"))
    drawn = dict(zip(marks.get_ydata(), marks.get_xdata(), strict=True))
    (height,) = (y for y, x in drawn.items() if np.isfinite(x))
    assert drawn[height] == 0.69  # PIQA; of SST-2 the paper says nothing
    labels = [label.get_text() for label in panel.get_yticklabels()]
    names = dict(zip(panel.get_yticks(), labels, strict=True))
    assert names[round(height)] == "PIQA"
