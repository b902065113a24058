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
    nearest,
    require_one_of,
)

TRAIN = TrainConfig(learning_rate=1e-4)
TUNED = RunSpec(("sst2",), "true", n_train=8, n_eval=8, eval_tasks=("sst2",), train=TRAIN)
FORGOTTEN = replace(TUNED, condition="random", start=TUNED)


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("fliped", "flipped"),
        ("RANDOM", "random"),
        ("randm", "random"),
        ("Meta-Lama", "meta-Llama"),
        ("sideways", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_a_slip_of_the_keys_is_answered_with_the_word_that_was_meant(value, near):
    words = {"random": 1, "flipped": 2, "meta-Llama": 3}
    assert nearest(value, words) == near
    with pytest.raises(InputError) as error:
        require_one_of("word", value, words, "Correct it.")
    asked = "" if near is None else f"Did you mean {near!r}? "
    expected = "word: expected one of random, flipped, meta-Llama"
    assert str(error.value) == f"{expected}, found {value!r}. {asked}Correct it."


def example(**changes):
    values = {"uid": "t/test/0", "prompts": ("p", "p"), "choices": ("a", "b"), "label": 0}
    return Example(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ("p",), "choices": ("a",)}, "expected at least two choices, found 1"),
        ({"prompts": ("", "")}, "expected prompts and choices with text"),
        ({"choices": ["a", "b"]}, "expected choices to be a tuple of str"),
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
        ({"eval_tasks": ["sst2"]}, "RunSpec.eval_tasks: expected a tuple"),
        ({"condition": "shuffled"}, "expected one of base, true, random, flipped"),
        ({"dtype": "float16"}, "expected one of bfloat16, float32"),
        ({"n_eval": 2.5}, "found 2.5"),
        ({"seed": -1}, "RunSpec.seed: expected a whole number from 0"),
        ({"start": replace(TUNED, seed=1)}, "RunSpec.start.seed: expected the run's own, 0"),
    ],
)
def test_a_bad_spec_is_refused(changes, message):
    with pytest.raises(InputError) as error:
        replace(TUNED, **changes)
    assert message in str(error.value)


RATE, SHARE = "a number between 0 and 1", "a share of the steps, 0 to 1"


@pytest.mark.parametrize(
    ("name", "value", "expected", "do"),
    [
        ("learning_rate", 0.0, RATE, "Correct the number."),
        ("learning_rate", 1.0, RATE, "Correct the number."),
        ("learning_rate", float("nan"), RATE, "Correct the number."),
        ("learning_rate", "1e-4", RATE, "Correct the number."),
        ("epochs", 0, "a whole number from 1", "Correct the number."),
        ("batch_size", 0, "a whole number from 1", "Correct the number."),
        ("warmup", 1.5, SHARE, "Correct the number."),
        ("weight_decay", -1.0, "a number, 0 or more", "Correct the number."),
        ("max_grad_norm", 0.0, "a number above 0", "Correct the number."),
        ("record_steps", -1, "a whole number from 0", "Correct the number."),
        ("optimizer", "sgd", "one of adamw, adafactor", "Choose one of these."),
    ],
)
def test_a_bad_training_setting_is_refused(name, value, expected, do):
    with pytest.raises(InputError) as error:
        replace(TRAIN, **{name: value})
    message = f"TrainConfig.{name}: expected {expected}, found {value!r}. {do}"
    assert str(error.value) == message


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


def test_a_run_names_the_task_before_it():
    assert (TUNED.start_task, FORGOTTEN.start_task) == ("", "sst2")
    assert FORGOTTEN.lineage == (TUNED, FORGOTTEN)
    assert str(FORGOTTEN) == "embedded seed 0 sst2:true > sst2:random"


def test_a_spec_survives_the_way_to_json_and_back():
    again = RunSpec.from_dict(FORGOTTEN.to_dict())
    assert again == FORGOTTEN
    assert again.run_id == FORGOTTEN.run_id
    assert [s.condition for s in again.lineage] == ["true", "random"]


@given(st.text(), st.integers(0, 10), st.text())
def test_hash_uniform_is_a_function_into_the_unit_interval(purpose, seed, uid):
    assert 0 <= hash_uniform(purpose, seed, uid) < 1
    assert hash_uniform(purpose, seed, uid) == hash_uniform(purpose, seed, uid)


def test_hash_uniform_never_changes():
    """Splits, distractors and labels of all stored results hang on it."""
    assert hash_uniform("split", 3, "t/train/7") == 0.6985986285851767
    with pytest.raises(InputError, match=r"^uid: expected text that can be written as UTF-8"):
        hash_uniform("split", 3, "\ud800")


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


def a_probe(**changes):
    right = np.ones((3, 2, 2), bool)
    control = np.full((4, 3), 0.5)
    values = {"layers": np.arange(3), "correct": right, "control": control, "variance_layer": 1}
    return ProbeResult(**(values | {"deviation": np.ones(2)} | changes))


def dynamics(**changes):
    values = {"steps": np.array([0, 4]), "uids": ("t/train/0",), "confidence": np.zeros((2, 1))}
    return Dynamics(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_tokens": np.ones((2, 1))}, r"^Scores: .*\(2, 1\)"),
        ({"log_likelihoods": np.array([[-1, 0], [0, -np.inf]])}, "first 't/test/1'"),
        ({"labels": np.array([-1, 0])}, r"^Scores\.labels: expected .* indices below 2"),
        ({"labels": np.array([0.0, 1])}, r"^Scores\.labels: .*found float64 of shape \(2,\)"),
        ({"labels": np.array([0])}, r"^Scores\.labels: expected \(2,\) indices"),
    ],
)
def test_bad_scores_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        scores(**changes)


@pytest.mark.parametrize("make", [scores, a_probe, dynamics])
def test_a_list_is_no_array(make):
    result = make()
    arrays = [f.name for f in fields(result) if isinstance(getattr(result, f.name), np.ndarray)]
    assert len(arrays) >= 2
    for name in arrays:
        message = f"^{type(result).__name__}.{name}: expected a NumPy array, found list"
        with pytest.raises(InputError, match=message):
            make(**{name: getattr(result, name).tolist()})


def test_a_result_must_have_the_scores_its_spec_names():
    message = f"^RunResult of {TUNED.run_id}: "
    with pytest.raises(
        InputError, match=message + r"expected scores for \['sst2/test', 'sst2/train'\]"
    ):
        RunResult(TUNED, {"sst2/test": scores()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": np.ones((3, 2))}, r"\(3, 2\)"),
        ({"deviation": np.ones(3)}, r"expected correct \(P, N, C\), control \(K, P\)"),
    ],
)
def test_a_bad_probe_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        a_probe(**changes)


def test_a_result_has_a_probe_if_its_spec_says_so():
    found = {"sst2/test": scores(), "sst2/train": scores()}
    probed = replace(TUNED, probe=True)
    message = (
        f"^RunResult of {probed.run_id}: expected a probe: True, as its spec says, found False"
    )
    with pytest.raises(InputError, match=message):
        RunResult(probed, found)
    with pytest.raises(InputError, match="a probe: False, as its spec says, found True"):
        RunResult(TUNED, found, probe=a_probe())
    assert RunResult(replace(TUNED, probe=True), found, probe=a_probe()).probe is not None


def test_a_run_on_several_tasks_is_scored_on_all_of_them():
    spec = replace(TUNED, train_tasks=("sst2", "rte"), eval_tasks=("sst2", "rte"))
    assert spec.train_task == "sst2+rte"
    with pytest.raises(InputError, match=r"\['rte/test', 'rte/train', 'sst2/test', 'sst2/train'\]"):
        RunResult(spec, {"sst2/test": scores(), "sst2/train": scores()})


def spec(**changes):
    return replace(TUNED, **changes)


FIELDS_OF = {c: f"fields among {sorted(f.name for f in fields(c))}" for c in (RunSpec, TrainConfig)}
SCORED = {"sst2/test": scores(), "sst2/train": scores()}


@pytest.mark.parametrize(
    ("make", "what", "expected", "found", "do"),
    [
        (
            lambda: example(uid="no origin"),
            "example 'no origin'",
            "a uid '<task>/<split>/<row>'",
            "'no origin'",
            "Name the example's origin.",
        ),
        (
            lambda: example(choices=("a", 1)),
            "example 't/test/0'",
            "choices to be a tuple of str",
            "('a', 1)",
            "Convert them to str.",
        ),
        (
            lambda: example(prompts=(), choices=()),
            "example 't/test/0'",
            "at least two choices",
            "0",
            "Forgetting is measured against a distractor: add one, or drop the question.",
        ),
        (
            lambda: example(prompts=("p",)),
            "example 't/test/0'",
            "as many prompts as choices",
            "1 prompts and 2 choices",
            "Repeat the prompt for every choice.",
        ),
        (
            lambda: example(choices=("a", " ")),
            "example 't/test/0'",
            "prompts and choices with text",
            "(('p', 'p'), ('a', ' '))",
            "An empty string has no likelihood: fill it in, or drop the question.",
        ),
        (
            lambda: example(choices=("a", "a")),
            "example 't/test/0'",
            "choices that differ",
            "('a', 'a')",
            "Two equal responses cannot be told apart: drop the question.",
        ),
        (
            lambda: example(choices=("a", "\ud800")),
            "example 't/test/0'",
            "text that can be written as UTF-8",
            "'\\ud800'",
            "It was decoded in the wrong way: correct that, or drop it.",
        ),
        (
            lambda: example(label=2),
            "label of example 't/test/0'",
            "a whole number from 0 to 1",
            "2",
            "The label is the index of the true response.",
        ),
        (
            lambda: spec(train_tasks="sst2"),
            "RunSpec.train_tasks",
            "a tuple of task names",
            "'sst2'",
            "Write ('sst2',) for a single task.",
        ),
        (
            lambda: spec(train_tasks=()),
            "RunSpec.train_tasks",
            "at least one task",
            "()",
            "Name a task.",
        ),
        (
            lambda: spec(train_tasks=("sst2", "sst2")),
            "RunSpec.train_tasks",
            "every task once",
            "('sst2', 'sst2')",
            "Remove the duplicates.",
        ),
        (
            lambda: spec(train_tasks=("sst2", "rte"), probe=True),
            "RunSpec with probe=True",
            "one task, trained on and evaluated",
            "train_tasks ('sst2', 'rte') and eval_tasks ('sst2',)",
            "A probe is fitted on a task's training set and scored on its test set.",
        ),
        (lambda: spec(model=""), "RunSpec.model", "a name", "''", "Name one."),
        (lambda: spec(probe=1), "RunSpec.probe", "True or False", "1", "Correct the value."),
        (
            lambda: spec(start="sst2"),
            "RunSpec.start",
            "a RunSpec, or None",
            "'sst2'",
            "Correct the value.",
        ),
        (
            lambda: spec(train="fast"),
            "RunSpec.train",
            "a TrainConfig, or None",
            "'fast'",
            "Correct the value.",
        ),
        (
            lambda: spec(tuning="half"),
            "RunSpec.tuning",
            "one of body, full, lora",
            "'half'",
            "Choose one of these.",
        ),
        (
            lambda: spec(n_train=0),
            "RunSpec.n_train",
            "a whole number from 1",
            "0",
            "Correct the number.",
        ),
        (
            lambda: spec(train=None),
            "RunSpec with condition 'true'",
            "a TrainConfig for every condition but 'base'",
            "None",
            "Pass train=TrainConfig(...), or none for 'base'.",
        ),
        (
            lambda: spec(condition="base"),
            "RunSpec with condition 'base'",
            "a TrainConfig for every condition but 'base'",
            repr(TRAIN),
            "Pass train=TrainConfig(...), or none for 'base'.",
        ),
        (
            lambda: spec(condition="base", train=None, start=TUNED),
            "RunSpec with condition 'base'",
            "no start, as the pre-trained model is meant",
            "start=e7de0fb9115e0c93",
            "Drop the start.",
        ),
        (
            lambda: spec(start=replace(TUNED, model="tiny")),
            "RunSpec.start.model",
            "the run's own, 'embedded'",
            "'tiny'",
            "Start from a run of the same model, tuning, dtype and seed.",
        ),
        (
            lambda: scores(uids=("t/test/0",)),
            "Scores",
            "N >= 1 uids with (N, C) log_likelihoods and n_tokens, C >= 2",
            "1 uids, (2, 2) and (2, 2)",
            "Score at least one example, and every choice of it.",
        ),
        (
            lambda: scores(uids=("t/test/0", "t/test/0")),
            "Scores",
            "every uid once",
            "repeated ['t/test/0']",
            "Remove the duplicates before scoring.",
        ),
        (
            lambda: scores(
                uids=tuple("aabbccdd"),
                log_likelihoods=np.zeros((8, 2)),
                n_tokens=np.zeros((8, 2)),
                labels=np.zeros(8, int),
            ),
            "Scores",
            "every uid once",
            "repeated ['a', 'b', 'c']",
            "Remove the duplicates before scoring.",
        ),
        (
            lambda: scores(labels=np.arange(7)),
            "Scores.labels",
            "(2,) indices below 2",
            "int64 of shape (7,), as [0, 1, 2, 3, 4]",
            "A label is the index of the true response.",
        ),
        (
            lambda: scores(n_tokens=[[1, 1], [1, 1]]),
            "Scores.n_tokens",
            "a NumPy array",
            "list",
            "Convert it: np.array(...).",
        ),
        (
            lambda: scores(log_likelihoods=np.array([[np.nan, 0], [0, 0]])),
            "Scores.log_likelihoods",
            "finite numbers",
            "not-a-number or infinity for 1 of 2, first 't/test/0'",
            "The model returned no usable probabilities: check its weights and dtype.",
        ),
        (
            lambda: scores(labels=np.array([0, 2])),
            "Scores.labels",
            "(2,) indices below 2",
            "int64 of shape (2,), as [0, 2]",
            "A label is the index of the true response.",
        ),
        (
            lambda: a_probe(layers=np.arange(2)),
            "ProbeResult",
            "correct (P, N, C), control (K, P), layers (P,), deviation (N,), K >= 1",
            "(3, 2, 2), (4, 3), (2,), (2,)",
            "Probe every test example at every layer, and a control.",
        ),
        (
            lambda: a_probe(deviation=np.array([1, np.nan])),
            "ProbeResult.deviation",
            "finite numbers",
            "not-a-number or infinity",
            "The model computes no usable numbers: check its weights and dtype.",
        ),
        (
            lambda: dynamics(confidence=np.zeros((1, 2))),
            "Dynamics.confidence",
            "shape (2, 1)",
            "(1, 2)",
            "Record every training example at every step.",
        ),
        (
            lambda: dynamics(steps=np.zeros(0), confidence=np.zeros((0, 1))),
            "Dynamics.confidence",
            "a step and an example at least",
            "(0, 1)",
            "Record every training example at every step.",
        ),
        (
            lambda: dynamics(confidence=np.array([[0.5], [np.inf]])),
            "Dynamics.confidence",
            "finite numbers",
            "not-a-number or infinity",
            "The model computes no usable numbers: check its weights and dtype.",
        ),
        (
            lambda: RunResult(TUNED, {"sst2/test": scores()}),
            "RunResult of e7de0fb9115e0c93",
            "scores for ['sst2/test', 'sst2/train']",
            "['sst2/test']",
            "Score every data set that the spec names.",
        ),
        (
            lambda: RunResult(TUNED, SCORED, probe=a_probe()),
            "RunResult of e7de0fb9115e0c93",
            "a probe: False, as its spec says",
            "True",
            "Probe where the spec asks for it, and only there.",
        ),
        (
            lambda: RunSpec.from_dict(TUNED.to_dict() | {"colour": "red"}),
            "RunSpec",
            FIELDS_OF[RunSpec],
            "['colour']",
            "The record was written by another version: recompute it.",
        ),
        (
            lambda: RunSpec.from_dict({"seed": 0}),
            "RunSpec",
            FIELDS_OF[RunSpec],
            "none of ['train_tasks', 'condition', 'n_train', 'n_eval']",
            "The record was written by another version: recompute it.",
        ),
        (
            lambda: RunSpec.from_dict("sst2"),
            "RunSpec",
            FIELDS_OF[RunSpec],
            "'sst2'",
            "The record was written by another version: recompute it.",
        ),
        (
            lambda: RunSpec.from_dict(TUNED.to_dict() | {"train": {"rate": 1}}),
            "TrainConfig",
            FIELDS_OF[TrainConfig],
            "['rate']",
            "The record was written by another version: recompute it.",
        ),
    ],
)
def test_an_error_says_what_was_expected_what_was_found_and_what_to_do(
    make, what, expected, found, do
):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == f"{what}: expected {expected}, found {found}. {do}"
