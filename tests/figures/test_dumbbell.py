"""What the tour draws of a handful of models is what their scores say."""

import numpy as np
import pytest

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.figures import dumbbell
from forgetlib.measuring.base import Scores


def scored(examples, right, seed=0):
    """Scores of which this share is right."""
    rng = np.random.default_rng(seed)
    labels = np.array([e.label for e in examples])
    signs = np.where(rng.uniform(size=len(labels)) < right, 1, -1)
    margins = signs * rng.uniform(1, 2, len(labels))
    found = np.full((len(labels), 2), -5.0)
    found[np.arange(len(labels)), labels] += margins
    return Scores(tuple(e.uid for e in examples), found, np.ones_like(found, int), labels)


@pytest.fixture(scope="module")
def found():
    parts = {
        "forgetting set": splits.load("tiny_review", "train", 30, 0),
        "new questions": splits.load("tiny_review", "test", 40, 0),
        "another task": splits.load("tiny_city", "test", 20, 0),
    }
    every = [e for part in parts.values() for e in part]
    shares = {"fine-tuned": 0.95, "after random labels": 0.5, "after my loss": 0.7}
    phases = {name: scored(every, share, i) for i, (name, share) in enumerate(shares.items())}
    return parts, phases, dumbbell.table(parts, phases, n_resamples=200)


def test_a_row_has_the_numbers_of_its_part_and_phase(found):
    parts, phases, table = found
    assert len(table) == len(parts) * len(phases)
    for row in table.itertuples():
        scores, examples = phases[row.phase], parts[row.part]
        places = [scores.uids.index(e.uid) for e in examples]
        assert row.n == len(examples) and row.eval_task == examples[0].task
        assert row.accuracy == pytest.approx(metrics.correct(scores)[places].mean())
        answers = None
        if row.eval_task == "tiny_review":
            answers = np.array([(e.choices[e.label], e.choices[1 - e.label]) for e in examples])
        assert row.auroc == pytest.approx(metrics.auroc(metrics.margins(scores)[places], answers))
        assert row.accuracy_low <= row.accuracy <= row.accuracy_high


def test_the_sentence_names_each_task_with_what_became_of_it(found):
    said = dumbbell.finding(found[2])
    values = found[2].set_index(["part", "phase"])["auroc"]
    assert said.startswith("AUROC on new questions goes in tiny_review from ")
    for part in ("new questions", "another task"):
        for phase in ("after random labels", "after my loss"):
            assert f"{values[part, phase]:.2f} {phase}" in said
    assert "in tiny_city (another task) from" in said
    assert f"{values['forgetting set', 'fine-tuned']:.2f}" not in said.split("tiny_city")[1]


def test_questions_that_a_model_was_not_asked_are_refused(found):
    parts, *_ = found
    few = {"fine-tuned": scored(parts["new questions"], 0.5)}
    with pytest.raises(InputError, match="30 that were not asked"):
        dumbbell.table(parts, few)


def test_a_phase_of_one_s_own_has_a_mark_of_its_own(found):
    marks = dumbbell._marks([*dict.fromkeys(found[2]["phase"]), "after another"])
    assert len({mark[1:3] for mark in marks.values()}) == 4
