"""What decides a checkpoint's weights and what is asked of it, and the ids that hash it."""

import json
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch

from forgetlib.errors import InputError
from forgetlib.forgetting.base import Method, Training, UnknownMethod
from forgetlib.forgetting.labels import Labels
from forgetlib.runs.specs import Checkpoint, Data, Measurement

TRAINING = Training(learning_rate=1e-4)
DATA = Data(("sst2",), 8)
BASE = Checkpoint()
TUNED = Checkpoint(method=Labels("true", TRAINING), data=DATA)
FORGOTTEN = replace(TUNED, method=Labels("random", TRAINING), start=TUNED)
SCORES = Measurement("scores", "sst2", "test", 8)


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (BASE, "1219fe45ea0f220f"),
        (TUNED, "1eafc46b3bc61a7a"),
        (FORGOTTEN, "afd65680e51e8533"),
        (SCORES, "75b0d4be331ec4f1"),
        (replace(SCORES, seed=1, view="upper"), "3f29718305dea489"),
        (Measurement("probe", "sst2", "test", 8, fit_on=8), "f359d417fe582d96"),
        (Measurement("hidden_variance", "sst2", "test", 8), "c8c33bbe0297e58b"),
        (
            Measurement("dynamics", "sst2", "train", 8, settings={"records": 3}),
            "c670d8bb18dac6ce",
        ),
        (Measurement("loss"), "e355408f59d9bc2e"),
    ],
    ids=str,
)
def test_an_id_never_changes(one, expected):
    """All that is stored is found under it."""
    assert one.id == expected


def test_the_base_model_has_one_id_whatever_is_trained_later():
    others = [
        replace(FORGOTTEN, seed=3),
        replace(TUNED, tuning="lora"),
        replace(TUNED, data=Data(("rte",), 9, seed=2), seed=1),
    ]
    assert {c.base.id for c in (BASE, TUNED, FORGOTTEN, *others)} == {BASE.id}
    assert Checkpoint("gemma-3-270m") == BASE
    assert FORGOTTEN.base == BASE and TUNED.base.kind == "base"
    assert {Checkpoint(dtype="float32").id, Checkpoint("tiny").id}.isdisjoint({BASE.id})


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"tuning": "lora"}, {"data": DATA}, {"start": TUNED}, {"start": BASE}],
    ids=str,
)
def test_nothing_of_a_training_is_said_of_the_base_model(changes):
    with pytest.raises(InputError) as error:
        Checkpoint(**changes)
    assert str(error.value).startswith(
        "Checkpoint without a method: expected no start, data, seed or tuning, as the pre-trained "
        "model is meant, found Checkpoint("
    )
    assert str(error.value).endswith(". Leave them out, or name a method.")


def test_an_alias_of_a_model_is_the_model():
    assert Checkpoint("embedded").id == BASE.id
    assert replace(TUNED, model="embedded").id == TUNED.id
    assert Checkpoint("embedded").model == "gemma-3-270m"
    assert Checkpoint.from_dict(BASE.to_dict() | {"model": "embedded"}) == BASE


def test_a_start_that_is_the_base_model_is_none():
    """Else equal weights would have two ids."""
    again = replace(TUNED, start=BASE)
    assert again.start is None and again == TUNED and again.id == TUNED.id


def test_a_checkpoint_s_id_hashes_every_field_of_it_and_of_its_ancestors():
    other = {
        "model": "tiny",
        "method": Labels("flipped", TRAINING),
        "start": None,
        "data": Data(("rte",), 8),
        "seed": 1,
        "tuning": "lora",
        "dtype": "float32",
    }
    assert set(other) == {f.name for f in fields(Checkpoint)}
    shared = ("model", "tuning", "dtype")  # a checkpoint shares these with its start
    changed = [
        replace(
            FORGOTTEN,
            **{name: value},
            **({"start": replace(TUNED, **{name: value})} if name in shared else {}),
        )
        for name, value in other.items()
    ]
    other_data = {"tasks": ("sst2", "rte"), "n": 9, "seed": 1, "skip": 8, "shuffled": True}
    assert set(other_data) == {f.name for f in fields(Data)}
    for name, value in other_data.items():
        data = replace(DATA, **{name: value})
        start = replace(TUNED, data=data) if name == "seed" else TUNED
        changed.append(replace(FORGOTTEN, data=data, start=start))
    slower = Labels("true", replace(TRAINING, learning_rate=1e-3))
    changed += [
        replace(FORGOTTEN, start=replace(TUNED, method=slower)),
        replace(FORGOTTEN, start=replace(TUNED, seed=1)),
        replace(FORGOTTEN, start=replace(TUNED, data=replace(DATA, n=9))),
    ]
    ids = [c.id for c in (BASE, TUNED, FORGOTTEN, *changed)]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 16 and set(i) <= set("0123456789abcdef") for i in ids)


def test_what_came_later_is_in_the_words_of_data_only_where_it_says_something():
    """So that the ids of what was stored before hold."""
    words = {"tasks": ["sst2"], "n": 8, "seed": 0}
    assert Data(("sst2",), 8).to_dict() == words
    assert Data(("sst2",), 8, skip=4).to_dict() == words | {"skip": 4}
    assert Data(("sst2",), 8, shuffled=True).to_dict() == words | {"shuffled": True}
    changed = replace(FORGOTTEN, data=replace(DATA, skip=4, shuffled=True))
    assert Checkpoint.from_dict(changed.to_dict()) == changed


@pytest.mark.parametrize("changes", [{"skip": -1}, {"skip": 1.5}, {"shuffled": 1}], ids=str)
def test_bad_data_are_refused(changes):
    with pytest.raises(InputError, match=f"Data.{next(iter(changes))}"):
        replace(DATA, **changes)


def test_a_measurement_s_id_hashes_every_field_of_it():
    other = {
        "readout": "probe",
        "task": "rte",
        "split": "train",
        "n": 9,
        "seed": 1,
        "view": "upper",
        "fit_on": 8,
        "settings": (("records", 3),),
    }
    assert set(other) == {f.name for f in fields(Measurement)}
    ids = [SCORES.id, *(replace(SCORES, **{name: value}).id for name, value in other.items())]
    assert len(set(ids)) == len(ids)


def test_what_a_measurement_leaves_at_its_default_is_not_in_its_words():
    """So that another field changes no id of a stored one."""
    assert Measurement("loss").to_dict() == {"readout": "loss"}
    assert SCORES.to_dict() == {"readout": "scores", "task": "sst2", "split": "test", "n": 8}


def test_the_words_of_a_checkpoint_are_these():
    """Literally: ids are hashes of this."""
    assert BASE.to_dict() == {"model": "gemma-3-270m", "dtype": "bfloat16"}
    assert TUNED.to_dict() == {
        "model": "gemma-3-270m",
        "dtype": "bfloat16",
        "tuning": "body",
        "start": None,
        "method": Labels("true", TRAINING).to_dict(),
        "data": {"tasks": ["sst2"], "n": 8, "seed": 0},
        "seed": 0,
    }
    assert FORGOTTEN.to_dict()["start"] == TUNED.to_dict()


@pytest.mark.parametrize(
    "one", [1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), torch.tensor(1).int()]
)
def test_integers_of_numpy_and_pytorch_become_python_s(one):
    made = replace(TUNED, seed=one, data=Data(("sst2",), one, one))
    same = replace(TUNED, seed=1, data=Data(("sst2",), 1, 1))
    assert made == same and made.id == same.id
    assert {type(v) for v in (made.seed, made.data.n, made.data.seed)} == {int}
    asked = Measurement("probe", "sst2", "test", one, one, fit_on=one)
    assert asked == Measurement("probe", "sst2", "test", 1, 1, fit_on=1)
    assert {type(v) for v in (asked.n, asked.seed, asked.fit_on)} == {int}


def test_settings_of_a_measurement_are_sorted_and_as_json_has_them():
    one = Measurement("mine", settings={"b": [1, [2]], "a": -0.0})
    assert one.settings == (("a", 0.0), ("b", (1, (2,))))
    assert one == Measurement("mine", settings=(("b", (1, (2,))), ("a", 0)))
    assert str(one.setting("a")) == "0.0" and one.setting("c", 7) == 7
    again = Measurement.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one and again.id == one.id and hash(again) == hash(one)


# --- words ---------------------------------------------------------------------------------------


def test_a_checkpoint_says_where_it_comes_from():
    assert (BASE.lineage, TUNED.lineage) == ((BASE,), (TUNED,))
    assert FORGOTTEN.lineage == (TUNED, FORGOTTEN)
    assert [c.kind for c in (BASE, *FORGOTTEN.lineage)] == ["base", "true", "random"]
    assert (BASE.tasks, BASE.n, BASE.task) == ((), 0, "")
    assert (FORGOTTEN.tasks, FORGOTTEN.n, FORGOTTEN.task) == (("sst2",), 8, "sst2")
    assert str(BASE) == "gemma-3-270m base"
    assert str(FORGOTTEN) == "gemma-3-270m seed 0 sst2:true > sst2:random"
    several = replace(TUNED, data=Data(("sst2", "rte"), 8), seed=2)
    assert several.task == "sst2+rte"
    assert str(several) == "gemma-3-270m seed 2 sst2+rte:true"


def test_the_questions_of_a_retain_set_are_given_too(own_names):
    @dataclass(frozen=True)
    class Keeping(Method):
        retain: tuple[str, ...]

        def edit(self, lm, context):
            pass

    made = replace(TUNED, method=Keeping(("rte",)))
    assert (made.tasks, made.given) == (("sst2",), ("sst2", "rte"))
    assert Checkpoint(method=Keeping(())).given == ()
    assert str(Checkpoint(method=Keeping(()))) == "gemma-3-270m seed 0 keeping(retain=())"
    with pytest.raises(InputError, match=r"Checkpoint\.method\.retain: expected other tasks"):
        replace(TUNED, method=Keeping(("rte", "sst2")))


def test_a_measurement_says_what_it_asks():
    assert str(SCORES) == "scores sst2/test" and SCORES.where == "sst2/test"
    assert str(replace(SCORES, view="upper")) == "scores sst2/test (upper)"
    assert str(Measurement("loss")) == "loss" and Measurement("loss").where == ""


@pytest.mark.parametrize("one", [BASE, TUNED, FORGOTTEN, replace(FORGOTTEN, seed=1)], ids=str)
def test_a_checkpoint_survives_the_way_to_json_and_back(one):
    again = Checkpoint.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one and again.id == one.id
    assert again.lineage == one.lineage


def test_a_checkpoint_of_a_method_that_is_not_imported_keeps_its_id_and_its_words():
    words = TUNED.to_dict() | {"method": {"method": "melt", "heat": [1, 2.5]}, "start": None}
    read = Checkpoint.from_dict(words)
    assert isinstance(read.method, UnknownMethod) and read.kind == "melt"
    assert read.to_dict() == words
    after = replace(FORGOTTEN, start=read)
    assert Checkpoint.from_dict(after.to_dict()).id == after.id
    assert str(after) == "gemma-3-270m seed 0 sst2:melt > sst2:random"


# --- what is refused -----------------------------------------------------------------------------


def fields_of(cls):
    return f"fields among {sorted(f.name for f in fields(cls))}"


NEWER = "The record was written by a newer version: install that one to read it."
INCOMPLETE = "The record is incomplete, or of another version: delete it, and it is computed again."
SETTINGS = "text, numbers, truth values, None, or tuples of these"
HASHED = "Convert it: settings are hashed and stored as JSON."


@pytest.mark.parametrize(
    ("make", "what", "expected", "found", "do"),
    [
        (
            lambda: Data("sst2", 8),
            "Data.tasks",
            "a tuple of task names",
            "'sst2'",
            "Write ('sst2',) for a single task.",
        ),
        (
            lambda: Data(["sst2"], 8),
            "Data.tasks",
            "a tuple of task names",
            "['sst2']",
            "Write ('sst2',) for a single task.",
        ),
        (
            lambda: Data((), 8),
            "Data.tasks",
            "at least one task, and every one once",
            "()",
            "Name a task, or remove the duplicates.",
        ),
        (
            lambda: Data(("sst2", "sst2"), 8),
            "Data.tasks",
            "at least one task, and every one once",
            "('sst2', 'sst2')",
            "Name a task, or remove the duplicates.",
        ),
        (lambda: Data(("sst2",), 0), "Data.n", "a whole number from 1", "0", "Correct the number."),
        (
            lambda: Data(("sst2",), 2.5),
            "Data.n",
            "a whole number from 1",
            "2.5",
            "Correct the number.",
        ),
        (
            lambda: Data(("sst2",), 8, -1),
            "Data.seed",
            "a whole number from 0",
            "-1",
            "Correct the number.",
        ),
        (lambda: Checkpoint(""), "Checkpoint.model", "a name", "''", "Name one."),
        (lambda: Checkpoint(None), "Checkpoint.model", "a name", "None", "Name one."),
        (
            lambda: replace(TUNED, method="random"),
            "Checkpoint.method",
            "a Method, or None",
            "'random'",
            "Correct the value.",
        ),
        (
            lambda: replace(TUNED, start=TUNED.id),
            "Checkpoint.start",
            "a Checkpoint, or None",
            "'1eafc46b3bc61a7a'",
            "Correct the value.",
        ),
        (
            lambda: replace(TUNED, data=("sst2",)),
            "Checkpoint.data",
            "Data, or None",
            "('sst2',)",
            "Correct the value.",
        ),
        (
            lambda: replace(TUNED, seed=-1),
            "Checkpoint.seed",
            "a whole number from 0",
            "-1",
            "Correct the number.",
        ),
        (
            lambda: replace(TUNED, tuning="half"),
            "Checkpoint.tuning",
            "one of body, full, lora",
            "'half'",
            "Choose one of these.",
        ),
        (
            lambda: replace(TUNED, dtype="float16"),
            "Checkpoint.dtype",
            "one of bfloat16, float32",
            "'float16'",
            "Did you mean 'bfloat16'? Choose one of these.",
        ),
        (
            lambda: replace(FORGOTTEN, start=replace(TUNED, model="tiny")),
            "Checkpoint.start.model",
            "the checkpoint's own, 'gemma-3-270m'",
            "'tiny'",
            "Start from a checkpoint of the same model and dtype.",
        ),
        (
            lambda: replace(TUNED, start=Checkpoint(dtype="float32")),
            "Checkpoint.start.dtype",
            "the checkpoint's own, 'bfloat16'",
            "'float32'",
            "Start from a checkpoint of the same model and dtype.",
        ),
        (
            lambda: replace(FORGOTTEN, start=replace(TUNED, tuning="full")),
            "Checkpoint.start.tuning",
            "the checkpoint's own, 'body'",
            "'full'",
            "Start from a checkpoint of the same tuning.",
        ),
        (
            lambda: replace(FORGOTTEN, start=replace(TUNED, data=replace(DATA, seed=1))),
            "Checkpoint.start.data.seed",
            "the seed of this one's split, 0",
            "1",
            "Take one split: another's test questions may have been trained on.",
        ),
        (lambda: Measurement(""), "Measurement.readout", "a name", "''", "Name one."),
        (lambda: replace(SCORES, view=""), "Measurement.view", "a name", "''", "Name one."),
        (
            lambda: Measurement("scores", split="test", n=8),
            "Measurement.task",
            "a name",
            "''",
            "Name one.",
        ),
        (
            lambda: Measurement("scores", "sst2", n=8),
            "Measurement.split",
            "one of train, test",
            "''",
            "Choose one of these.",
        ),
        (
            lambda: Measurement("scores", "sst2", "dev", 8),
            "Measurement.split",
            "one of train, test",
            "'dev'",
            "Choose one of these.",
        ),
        (
            lambda: Measurement("scores", "sst2", "test"),
            "Measurement.n",
            "a whole number from 1",
            "0",
            "Correct the number.",
        ),
        (
            lambda: replace(SCORES, n=2.5),
            "Measurement.n",
            "a whole number from 0",
            "2.5",
            "Correct the number.",
        ),
        (
            lambda: replace(SCORES, fit_on=-1),
            "Measurement.fit_on",
            "a whole number from 0",
            "-1",
            "Correct the number.",
        ),
        (
            lambda: replace(SCORES, settings=5),
            "Measurement.settings",
            "a mapping of names and values, or pairs of these",
            "5",
            "Write settings={'records': 3}.",
        ),
        (
            lambda: replace(SCORES, settings={"records": np.int64(3)}),
            "Measurement.settings",
            SETTINGS,
            "np.int64(3)",
            HASHED,
        ),
        (
            lambda: replace(SCORES, settings={"records": [float("nan")]}),
            "Measurement.settings",
            SETTINGS,
            "nan",
            HASHED,
        ),
        (
            lambda: Checkpoint.from_dict(TUNED.to_dict() | {"colour": "red"}),
            "Checkpoint",
            fields_of(Checkpoint),
            "['colour']",
            NEWER,
        ),
        (
            lambda: Checkpoint.from_dict({"seed": 0}),
            "Checkpoint",
            fields_of(Checkpoint),
            "none of ['model', 'dtype']",
            INCOMPLETE,
        ),
        (
            lambda: Checkpoint.from_dict("sst2"),
            "Checkpoint",
            fields_of(Checkpoint),
            "'sst2'",
            INCOMPLETE,
        ),
        (
            lambda: Checkpoint.from_dict(FORGOTTEN.to_dict() | {"start": {"model": "tiny"}}),
            "Checkpoint",
            fields_of(Checkpoint),
            "none of ['dtype']",
            INCOMPLETE,
        ),
        (
            lambda: Checkpoint.from_dict(TUNED.to_dict() | {"data": {"tasks": ["a"], "m": 1}}),
            "Data",
            fields_of(Data),
            "['m']",
            NEWER,
        ),
        (
            lambda: Checkpoint.from_dict(TUNED.to_dict() | {"data": {"n": 1}}),
            "Data",
            fields_of(Data),
            "none of ['tasks', 'seed']",
            INCOMPLETE,
        ),
        (
            lambda: Checkpoint.from_dict(
                TUNED.to_dict() | {"data": {"tasks": "abc", "n": 1, "seed": 0}}
            ),
            "Data.tasks",
            "a tuple of task names",
            "'abc'",
            "Write ('sst2',) for a single task.",
        ),
        (
            lambda: Checkpoint.from_dict(
                TUNED.to_dict()
                | {"method": {"method": "labels", "labels": "true", "training": {"rate": 1}}}
            ),
            "Training",
            fields_of(Training),
            "['rate']",
            NEWER,
        ),
        (
            lambda: Measurement.from_dict(SCORES.to_dict() | {"colour": "red"}),
            "Measurement",
            fields_of(Measurement),
            "['colour']",
            NEWER,
        ),
        (
            lambda: Measurement.from_dict({}),
            "Measurement",
            fields_of(Measurement),
            "none of ['readout']",
            INCOMPLETE,
        ),
        (
            lambda: Measurement.from_dict(None),
            "Measurement",
            fields_of(Measurement),
            "None",
            INCOMPLETE,
        ),
    ],
)
def test_an_error_says_what_was_expected_what_was_found_and_what_to_do(
    make, what, expected, found, do
):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == f"{what}: expected {expected}, found {found}. {do}"
