"""Tuned to obey: prompts that are kept apart, answers that are stored once, and bad settings."""

from dataclasses import replace

import pytest

from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.figures.implicit import readme as implicit_readme
from forgetlib.files import StoreError
from forgetlib.forgetting.base import Training
from forgetlib.implicit import obey, pattern, results
from forgetlib.implicit.obey import Obedience
from forgetlib.implicit.study import STUDIES

SETTINGS = {"n_train": 4, "n": 2, "training": Training(1e-2, epochs=20), "through": ("plain",)}


def words(n, start=0):
    """Prompts in words that the tokenizer of `tiny` has; the pattern's answer is their label."""
    answers = ("yes", "no"), ("no", "yes")
    return [
        Example(f"mine/test/{start + i}", ("what colour has it ?",) * 2, answers[i % 2], i % 2)
        for i in range(n)
    ]


@pytest.fixture
def of_words(project, monkeypatch):
    """Prompts that the tiny model can read, in the place of sentences."""

    def examples(self):
        trained = [replace(e, label=1 - e.label) for e in words(self.n_train, start=100)]
        return trained, {"mine": words(self.n)}

    monkeypatch.setattr(Obedience, "examples", examples)


def test_no_prompt_is_trained_on_and_asked_and_the_label_is_what_obeys():
    setting = Obedience(n_train=8, n=5, seed=3)
    trained, asked = setting.examples()
    assert list(asked) == list(pattern.TASKS)
    assert len(trained) == 8 and all(len(of) == 5 for of in asked.values())
    prompts = {e.prompts[0] for of in asked.values() for e in of}
    assert len(prompts) == 20 and not prompts & {e.prompts[0] for e in trained}
    for example in trained:
        whole = {e.uid: e for e in pattern.examples(example.uid.split("/")[1], 7, 3)}
        assert whole[example.uid].label == 1 - example.label  # the pattern's is the other


def test_the_page_says_how_many_asked_inputs_were_trained_on():
    percent = {"all": [], "blank": []}
    answers, taught, n = set(), set(), 0
    for job in STUDIES["implicit"].obeying:
        trained, asked = job.examples()
        known = {last_input(e) for e in trained}
        taught |= {e.choices[1 - e.label] for e in trained}
        of = {"all": [], "blank": []}
        for task, examples in asked.items():
            seen = [last_input(e) in known for e in examples]
            of["all"] += seen
            of["blank"] += seen if task.endswith("blank") else []
            answers |= {e.choices[e.label] for e in examples}
        n += len(of["all"])
        for kind, seen in of.items():
            percent[kind].append(round(100 * sum(seen) / len(seen)))
    said = " ".join(implicit_readme.OF_IMPLICIT.split())
    every, blank = ("{}, {} and {} %".format(*percent[kind]) for kind in ("all", "blank"))
    assert answers == taught == {"What", "WHAT", "____"}
    assert f"Its {n} prompts are not independent" in said
    assert f"{every} of the three seeds' prompts ({blank} of those with a blank)" in said


def last_input(example):
    return example.prompts[0].rpartition("Input: ")[2]


def test_what_was_asked_is_stored_once_and_tuning_makes_the_model_obey(of_words, monkeypatch):
    found = obey.obtain("tiny", [0, 1], **SETTINGS)
    assert list(found.columns) == ["key", "seed", *pattern.COLUMNS]
    assert set(found["seed"]) == {0, 1} and len(found) == 2 * 2 * 2
    prefers = (found["pattern"] - found["instruction"]).groupby(found["model"]).mean()
    assert prefers["tuned"] < prefers["base"] - 1
    settings, provenance = results.about(obey.path_of(Obedience("tiny", **SETTINGS, seed=1)))
    assert settings["seed"] == 1 and settings["through"] == ["plain"]
    assert provenance["seconds"] > 0 and provenance["torch"]
    monkeypatch.setattr(obey, "run", lambda *_: pytest.fail("it is stored"))
    assert obey.obtain("tiny", [0, 1], **SETTINGS).equals(found)
    one = obey.obtain("tiny", [1], **SETTINGS)
    assert one.equals(found[found["seed"] == 1].reset_index(drop=True))


def test_settings_decide_the_file():
    keys = {
        Obedience().key,
        Obedience(seed=1).key,
        Obedience(n=3).key,
        Obedience(training=Training(1e-4)).key,
        Obedience("tiny").key,
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_train": 6}, "a multiple of 4"),
        ({"n": 0}, "Obedience.n"),
        ({"seed": -1}, "Obedience.seed"),
        ({"model": ""}, "model that is tuned to obey"),
        ({"through": ("rot13",)}, "rot13"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Obedience(**settings)
    with pytest.raises(InputError, match="at least one"):
        obey.obtain(seeds=[])


def test_a_damaged_file_is_told(of_words):
    obey.obtain("tiny", [0], **SETTINGS)
    path = obey.path_of(Obedience("tiny", **SETTINGS))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match="delete it, and compute it again"):
        obey.obtain("tiny", [0], **SETTINGS)
