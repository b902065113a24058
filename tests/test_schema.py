from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetlib.schema import (
    Dynamics,
    Example,
    InputError,
    ProbeResult,
    RunResult,
    RunSpec,
    Scores,
    TrainConfig,
    hash_uniform,
)

TRAIN = TrainConfig(learning_rate=1e-4)
TUNED = RunSpec(("sst2",), "true", n_train=8, n_eval=8, eval_tasks=("sst2",), train=TRAIN)
FORGOTTEN = replace(TUNED, condition="random", start=TUNED)


def example(**changes):
    values = {"uid": "t/test/0", "prompts": ("p", "p"), "choices": ("a", "b"), "label": 0}
    return Example(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uid": "no origin"}, "expected a uid '<task>/<split>/<row>', found 'no origin'"),
        ({"prompts": (), "choices": ()}, "expected at least two choices, found 0"),
        ({"prompts": ("p",), "choices": ("a",)}, "expected at least two choices, found 1"),
        ({"prompts": ("p",)}, "found 1 prompts and 2 choices"),
        ({"choices": ("a", " ")}, "expected prompts and choices with text"),
        ({"prompts": ("", "")}, "expected prompts and choices with text"),
        ({"choices": ("a", "a")}, "expected choices that differ"),
        ({"choices": ["a", "b"]}, "expected choices to be a tuple of str"),
        ({"choices": ("a", 1)}, "expected choices to be a tuple of str"),
        ({"label": 2}, "expected a whole number from 0 to 1, found 2"),
        ({"label": -1}, "expected a whole number from 0 to 1, found -1"),
        ({"label": "0"}, "expected a whole number from 0 to 1, found '0'"),
        ({"label": True}, "expected a whole number from 0 to 1, found True"),
    ],
)
def test_a_bad_example_is_refused(changes, message):
    with pytest.raises(InputError, match="example") as error:
        example(**changes)
    assert message in str(error.value)


def test_equal_continuations_of_different_prompts_are_an_example():
    assert example(prompts=("p", "q"), choices=("a", "a")).task == "t"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_tasks": "sst2"}, "expected a tuple of task names, found 'sst2'"),
        ({"train_tasks": ()}, "RunSpec.train_tasks: expected at least one task"),
        ({"train_tasks": ("sst2", "sst2")}, "expected every task once"),
        ({"eval_tasks": ["sst2"]}, "RunSpec.eval_tasks: expected a tuple"),
        ({"train_tasks": ("sst2", "rte"), "probe": True}, "one task, trained on and evaluated"),
        ({"condition": "shuffled"}, "expected one of base, true, random, flipped"),
        ({"tuning": "half"}, "expected one of body, full, lora, found 'half'"),
        ({"dtype": "float16"}, "expected one of bfloat16, float32"),
        ({"n_train": 0}, "RunSpec.n_train: expected a whole number from 1, found 0"),
        ({"n_eval": 2.5}, "found 2.5"),
        ({"seed": -1}, "RunSpec.seed: expected a whole number from 0"),
        ({"train": None}, "a TrainConfig for every condition but 'base'"),
        ({"condition": "base"}, "a TrainConfig for every condition but 'base'"),
        ({"condition": "base", "train": None, "start": TUNED}, "expected no start"),
        ({"start": replace(TUNED, seed=1)}, "RunSpec.start.seed: expected the run's own, 0"),
        ({"start": replace(TUNED, model="tiny")}, "RunSpec.start.model"),
    ],
)
def test_a_bad_spec_is_refused(changes, message):
    with pytest.raises(InputError) as error:
        replace(TUNED, **changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"epochs": 0},
        {"batch_size": 0},
        {"warmup": 1.5},
        {"weight_decay": -1.0},
        {"max_grad_norm": 0.0},
        {"record_steps": -1},
    ],
)
def test_a_bad_training_setting_is_refused(changes):
    (name,) = changes
    with pytest.raises(InputError, match=f"TrainConfig.{name}: expected"):
        replace(TRAIN, **changes)


def test_the_run_id_hashes_every_field_of_the_run_and_of_its_ancestors():
    other = {
        "train_tasks": ("rte",),
        "condition": "flipped",
        "n_train": 9,
        "n_eval": 9,
        "seed": 1,
        "eval_tasks": ("rte",),
        "start": None,
        "train": replace(TRAIN, epochs=3),
        "model": "tiny",
        "tuning": "lora",
        "dtype": "float32",
        "probe": True,
    }
    assert set(other) == {f.name for f in fields(RunSpec)}
    shared = ("seed", "model", "tuning", "dtype")  # a run shares these with its start
    changed = [
        replace(
            FORGOTTEN,
            **{name: value},
            **({"start": replace(TUNED, **{name: value})} if name in shared else {}),
        )
        for name, value in other.items()
    ]
    ancestor = replace(FORGOTTEN, start=replace(TUNED, train=replace(TRAIN, learning_rate=1e-3)))
    ids = [s.run_id for s in (FORGOTTEN, *changed, ancestor)]
    assert len(set(ids)) == len(ids)


def test_a_spec_survives_the_way_to_json_and_back():
    again = RunSpec.from_dict(FORGOTTEN.to_dict())
    assert again == FORGOTTEN
    assert again.run_id == FORGOTTEN.run_id
    assert [s.condition for s in again.lineage] == ["true", "random"]


def test_a_spec_of_another_version_is_refused():
    with pytest.raises(InputError, match=r"found \['colour'\].*another version"):
        RunSpec.from_dict(FORGOTTEN.to_dict() | {"colour": "red"})


@given(st.text(), st.integers(0, 10), st.text())
def test_hash_uniform_is_a_function_into_the_unit_interval(purpose, seed, uid):
    assert 0 <= hash_uniform(purpose, seed, uid) < 1
    assert hash_uniform(purpose, seed, uid) == hash_uniform(purpose, seed, uid)


def test_hash_uniform_is_uniform_and_independent_between_purposes():
    a = np.array([hash_uniform("a", 0, str(i)) for i in range(4000)])
    b = np.array([hash_uniform("b", 0, str(i)) for i in range(4000)])
    counts, _ = np.histogram(a, bins=10, range=(0, 1))
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-square, 9 degrees: p = 0.001
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06


def scores(**changes):
    values = {
        "uids": ("t/test/0", "t/test/1"),
        "log_likelihoods": np.array([[-1.0, -2.0], [-3.0, -1.0]], np.float32),
        "n_tokens": np.ones((2, 2), np.int32),
        "labels": np.array([0, 1]),
    }
    return Scores(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uids": ("t/test/0",)}, "found 1 uids"),
        ({"uids": ("t/test/0", "t/test/0")}, "expected every uid once"),
        ({"n_tokens": np.ones((2, 1))}, r"\(2, 1\)"),
        ({"log_likelihoods": np.array([[np.nan, 0], [0, 0]])}, "first 't/test/0'"),
        ({"log_likelihoods": np.array([[-1, 0], [0, -np.inf]])}, "first 't/test/1'"),
        ({"labels": np.array([0, 2])}, "indices below 2"),
        ({"labels": np.array([0])}, r"expected \(2,\) indices"),
    ],
)
def test_bad_scores_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        scores(**changes)


def test_a_result_must_have_the_scores_its_spec_names():
    with pytest.raises(InputError, match=r"expected scores for \['sst2/test', 'sst2/train'\]"):
        RunResult(TUNED, {"sst2/test": scores()})


def a_probe(**changes):
    right = np.ones((3, 2, 2), bool)
    control = np.full((4, 3), 0.5)
    values = {"layers": np.arange(3), "correct": right, "control": control, "variance_layer": 1}
    return ProbeResult(**(values | {"deviation": np.ones(2)} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": np.arange(2)}, r"found \(3, 2, 2\), \(4, 3\), \(2,\)"),
        ({"control": np.ones((3, 2))}, r"\(3, 2\)"),
        ({"deviation": np.ones(3)}, r"expected correct \(P, N, C\), control \(K, P\)"),
        ({"deviation": np.array([1, np.nan])}, "finite numbers.*check its weights"),
    ],
)
def test_a_bad_probe_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        a_probe(**changes)


def test_a_result_has_a_probe_if_its_spec_says_so():
    found = {"sst2/test": scores(), "sst2/train": scores()}
    with pytest.raises(InputError, match="a probe: True, as its spec says, found False"):
        RunResult(replace(TUNED, probe=True), found)
    with pytest.raises(InputError, match="a probe: False, as its spec says, found True"):
        RunResult(TUNED, found, probe=a_probe())
    assert RunResult(replace(TUNED, probe=True), found, probe=a_probe()).probe is not None


def test_a_run_on_several_tasks_is_scored_on_all_of_them():
    spec = replace(TUNED, train_tasks=("sst2", "rte"), eval_tasks=("sst2", "rte"))
    assert spec.train_task == "sst2+rte"
    with pytest.raises(InputError, match=r"\['rte/test', 'rte/train', 'sst2/test', 'sst2/train'\]"):
        RunResult(spec, {"sst2/test": scores(), "sst2/train": scores()})


def test_dynamics_must_have_every_example_at_every_step():
    with pytest.raises(InputError, match=r"expected shape \(2, 1\), found \(1, 2\)"):
        Dynamics(np.array([0, 4]), ("t/train/0",), np.zeros((1, 2)))
