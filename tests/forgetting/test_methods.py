import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, strategies as st

from forgetlib.errors import InputError
from forgetlib.forgetting import base
from forgetlib.forgetting.base import Method, Training, UnknownMethod, method_from_dict
from forgetlib.forgetting.labels import Labels

TRAINING = Training(1e-4)
RANDOM = Labels("random", TRAINING)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Methods that a test defines are forgotten after it."""
    monkeypatch.setattr(base, "_METHODS", dict(base._METHODS))


@dataclass(frozen=True)
class Schedule:
    later: ClassVar[Mapping[str, object]] = {"shape": "linear"}

    steps: tuple[int, ...]
    shape: str = "linear"


@dataclass(frozen=True)
class Everything(Method):
    later: ClassVar[Mapping[str, object]] = {"rounds": 1}

    beta: float
    retain: tuple[str, ...]
    schedule: Schedule
    training: Training
    second: Training | None = None
    rounds: int = 1
    quick: bool = False

    def loss(self, lm, batch, context):
        raise AssertionError


EVERYTHING = Everything(1, ("sst2", "boolq"), Schedule((1, 2)), TRAINING)


def test_a_method_is_written_with_all_its_settings():
    """Literally: ids are hashes of this."""
    assert RANDOM.to_dict() == {
        "method": "labels",
        "labels": "random",
        "training": {
            "learning_rate": 1e-4,
            "epochs": 2,
            "batch_size": 8,
            "warmup": 0.1,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "optimizer": "adamw",
        },
    }
    written = EVERYTHING.to_dict()
    assert written["schedule"] == {"steps": [1, 2]}
    assert written["retain"] == ["sst2", "boolq"]
    assert list(written) == ["method", "beta", "retain", "schedule", "training", "second", "quick"]


@given(
    st.builds(
        Everything,
        st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
        st.lists(st.text()).map(tuple),
        st.builds(Schedule, st.lists(st.integers()).map(tuple), st.sampled_from(["linear", "x"])),
        st.builds(Training, st.floats(1e-9, 0.5), st.integers(1, 9)),
        st.none() | st.just(TRAINING),
        st.integers(),
        st.booleans(),
    )
)
def test_a_method_is_read_back_as_it_was_written(method):
    text = json.dumps(method.to_dict(), allow_nan=False)
    again = method_from_dict(json.loads(text))
    assert again == method
    assert hash(again) == hash(method)
    assert json.dumps(again.to_dict()) == text


def test_a_setting_that_came_later_leaves_older_records_as_they_were():
    old = {k: v for k, v in EVERYTHING.to_dict().items() if k != "rounds"}
    assert EVERYTHING.to_dict() == old
    assert method_from_dict(old) == EVERYTHING
    assert replace(EVERYTHING, rounds=2).to_dict() == old | {"rounds": 2}


def test_equal_settings_are_written_alike():
    assert json.dumps(EVERYTHING.to_dict()) == json.dumps(replace(EVERYTHING, beta=1.0).to_dict())
    assert json.dumps(replace(EVERYTHING, beta=-0.0).to_dict()["beta"]) == "0.0"


FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | st.integers() | FINITE | st.text()
NESTED = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(), PLAIN, max_size=3)


@given(st.dictionaries(st.text(), NESTED, max_size=5))
def test_the_record_of_a_method_that_is_not_imported_stays_as_it_is(values):
    values = {**values, "method": "of_another_file"}
    method = method_from_dict(values)
    assert isinstance(method, UnknownMethod)
    assert json.dumps(method.to_dict()) == json.dumps(values)
    assert method == method_from_dict(values)
    assert hash(method) == hash(method_from_dict(values))
    assert method.describe() == "of_another_file"


def test_a_method_that_is_not_imported_cannot_be_done_again():
    method = method_from_dict({"method": "of_another_file", "beta": 0.1})
    for use in (lambda: method.kind, lambda: method.hook(None, None)):
        with pytest.raises(
            InputError, match=r"method 'of_another_file': expected one of .*labels.*Import"
        ):
            use()


def test_a_record_in_a_process_that_does_not_import_its_method_keeps_its_id():
    code = (
        "import sys, json; from forgetlib.forgetting.base import method_from_dict;"
        f"m = method_from_dict(json.loads({json.dumps(EVERYTHING.to_dict())!r}));"
        "print(json.dumps(m.to_dict())); print(type(m).__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [json.dumps(EVERYTHING.to_dict()), "UnknownMethod False"]


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.to_dict() | {"beta": 1},
        {"method": "labels", "labels": "random"},
        RANDOM.to_dict() | {"labels": "wrong"},
        RANDOM.to_dict() | {"training": {"learning_rate": 1e-4, "momentum": 0.9}},
        RANDOM.to_dict() | {"training": None},
        {"labels": "random"},
        {"method": 3},
        {"method": "of_another_file", "beta": float("nan")},
        {"method": "of_another_file", "beta": object()},
        "labels",
        None,
    ],
)
def test_a_record_with_wrong_fields_is_refused(values):
    with pytest.raises(InputError):
        method_from_dict(values)


@pytest.mark.parametrize("wrong", [{"a": 1}, [1], np.float32(1), float("nan"), object(), {1}])
def test_settings_that_json_cannot_hold_are_refused(wrong):
    with pytest.raises(InputError, match=r"Everything.rounds: .*Convert it"):
        replace(EVERYTHING, rounds=wrong)
    with pytest.raises(InputError, match=r"Everything.retain: .*Convert it"):
        replace(EVERYTHING, retain=(wrong,))


@pytest.mark.parametrize("wrong", ["1", None, True, float("inf"), np.float32(1)])
def test_what_is_no_number_is_refused_where_one_is_meant(wrong):
    with pytest.raises(InputError, match=r"Everything.beta: expected a finite number"):
        replace(EVERYTHING, beta=wrong)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ProjectedAscent", "projected_ascent"),
        ("ABC", "abc"),
        ("KLToStart", "kl_to_start"),
        ("Quantise8", "quantise8"),
    ],
)
def test_a_method_is_named_after_its_class(written, name):
    assert type(written, (Method,), {}).name == name
    assert type("Other" + written, (Method,), {"name": "other"}).name == "other"


def test_two_methods_of_one_name_are_refused_and_a_cell_run_again_is_not():
    with pytest.raises(InputError, match=r"'labels', the name of Labels of forgetlib.forgetting"):

        class Another(Method):
            name = "labels"

    for _ in range(2):  # as a cell of a notebook that runs twice
        exec("class OfACell(Method): pass", {"Method": Method, "__name__": "__main__"})
    assert isinstance(method_from_dict({"method": "of_a_cell"}), Method)


def test_a_method_that_inherits_has_a_name_of_its_own():
    @dataclass(frozen=True)
    class Longer(Labels):
        pass

    assert Longer.name == "longer"
    assert method_from_dict(Longer("true", TRAINING).to_dict()) == Longer("true", TRAINING)


def test_the_kind_is_told_by_what_is_overridden():
    def kind(*names):
        return type("Kind", (Method,), dict.fromkeys(names, lambda self, *_: nullcontext()))().kind

    for names in (("loss",), ("edit",), ("hook",)):
        assert kind(*names) == names[0]
    assert kind("loss", "hook") == "loss"
    assert kind("edit", "hook") == "edit"
    for names in ((), ("sequences",), ("loss", "edit")):
        with pytest.raises(InputError, match="overrides loss, edit or hook"):
            kind(*names)


def test_a_description_says_what_is_unlike_the_usual():
    @dataclass(frozen=True)
    class Plain(Method):
        bits: int = 8
        training: Training = TRAINING

    assert RANDOM.describe() == "random"
    assert RANDOM.settings() == TRAINING
    assert method_from_dict({"method": "of_another_file"}).settings() is None
    assert Plain().describe() == "plain"
    assert Plain(4).describe() == "plain(bits=4)"


def test_the_settings_of_training_are_checked():
    assert Training(1e-4).n_steps(20) == 6
    for wrong in ({"learning_rate": 2}, {"epochs": 0}, {"batch_size": 1.5}, {"warmup": "a"}):
        with pytest.raises(InputError, match=rf"Training.{next(iter(wrong))}: expected"):
            replace(TRAINING, **wrong)
    with pytest.raises(InputError, match=r"Training.optimizer: expected one of adamw, adafactor"):
        replace(TRAINING, optimizer="sgd")


def test_the_example_of_the_docstring_is_short_and_trains():
    from forgetlib.data import splits
    from forgetlib.forgetting.context import Context
    from forgetlib.forgetting.loop import train
    from forgetlib.models import forward, loading

    documented = ast.get_docstring(ast.parse(Path(base.__file__).read_text()))
    code = documented.partition("own:\n\n")[2].partition("\n\nThis")[0]
    assert 5 < len(code.splitlines()) <= 12
    names = {"dataclass": dataclass, "Method": Method, "Training": Training, "np": np}
    names |= {"forward": forward, "__name__": "docstring"}
    exec(textwrap.dedent(code), names)
    lm = loading.load("tiny", dtype="float32", device="cpu")
    method = names["Ascent"](Training(1e-3))
    losses = train(lm, method, Context(0, splits.load("tiny_city", "train", 32, 0)))
    assert losses[-1] < losses[0]
