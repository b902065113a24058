"""What the package's readouts hold, and what they refuse."""

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from forgetlib.errors import InputError
from forgetlib.measuring import ask
from forgetlib.measuring.base import (
    BUILT_IN,
    RESERVED,
    Column,
    DoseCurve,
    Dynamics,
    HiddenVariance,
    LogitLens,
    Loss,
    Probe,
    PromptNats,
    Readout,
    Scores,
    ScoresInTraining,
    readout,
    readouts,
)
from forgetlib.runs import rows


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
    values = {"layers": np.arange(3), "correct": right, "control": np.full((4, 3), 0.5)}
    return Probe(**(values | changes))


def variance(**changes):
    return HiddenVariance(**({"layer": 1, "deviation": np.ones(2)} | changes))


def a_lens(**changes):
    asked = {"uids": ("a", "b"), "labels": np.arange(2)}
    values = asked | {"layers": np.arange(3), "log_likelihoods": np.full((3, 2, 2), -1.0)}
    return LogitLens(**(values | changes))


def nats(**changes):
    return PromptNats(**({"nats": np.ones(2)} | changes))


def loss(**changes):
    return Loss(**({"loss": np.ones(3)} | changes))


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


def scores_in_training(**changes):
    values = {
        "steps": np.array([0, 4]),
        "uids": ("a", "b"),
        "labels": np.array([0, 1]),
        "log_likelihoods": np.array([[[-1.0, -2.0], [-3.0, -4.0]], [[-2.0, -1.0], [-4.0, -3.0]]]),
        "n_tokens": np.ones((2, 2), int),
    }
    return ScoresInTraining(**(values | changes))


def dose(**changes):
    return DoseCurve(**({"steps": np.array([0, 2]), "auroc": np.array([0.9, 0.5])} | changes))


MADE = (scores, a_probe, dynamics, scores_in_training, variance, loss, dose, a_lens, nats)


@pytest.mark.parametrize("make", MADE)
def test_a_list_is_no_array(make):
    result = make()
    arrays = [f.name for f in fields(result) if isinstance(getattr(result, f.name), np.ndarray)]
    assert arrays
    for name in arrays:
        message = f"^{type(result).__name__}.{name}: expected a NumPy array, found list"
        with pytest.raises(InputError, match=message):
            make(**{name: getattr(result, name).tolist()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": np.ones((3, 2))}, r"\(3, 2\)"),
        ({"correct": np.ones((3, 2), bool)}, r"expected correct \(P, N, C\), control \(K, P\)"),
    ],
)
def test_a_bad_probe_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        a_probe(**changes)


@pytest.mark.parametrize(
    ("make", "what", "expected", "found", "do"),
    [
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
            "Probe",
            "correct (P, N, C), control (K, P), layers (P,), K >= 1",
            "(3, 2, 2), (4, 3), (2,)",
            "Probe every test example at every layer, and a control.",
        ),
        (
            lambda: a_probe(control=np.ones((0, 3))),
            "Probe",
            "correct (P, N, C), control (K, P), layers (P,), K >= 1",
            "(3, 2, 2), (0, 3), (3,)",
            "Probe every test example at every layer, and a control.",
        ),
        (
            lambda: variance(deviation=np.ones((2, 1))),
            "HiddenVariance.deviation",
            "shape (N,), N >= 1",
            "(2, 1)",
            "Give one number for each example.",
        ),
        (
            lambda: variance(deviation=np.array([1, np.nan])),
            "HiddenVariance.deviation",
            "finite numbers",
            "not-a-number or infinity",
            "The model computes no usable numbers: check its weights and dtype.",
        ),
        (
            lambda: a_lens(layers=np.arange(2)),
            "LogitLens",
            "layers (P,), uids and labels (N,) with log_likelihoods (P, N, C)",
            "(2,), 2, (2,) and (3, 2, 2)",
            "Score at least one example at every layer, and every choice of it.",
        ),
        (
            lambda: a_lens(log_likelihoods=np.zeros((3, 2, 1))),
            "LogitLens",
            "layers (P,), uids and labels (N,) with log_likelihoods (P, N, C)",
            "(3,), 2, (2,) and (3, 2, 1)",
            "Score at least one example at every layer, and every choice of it.",
        ),
        (
            lambda: a_lens(log_likelihoods=np.full((3, 2, 2), -np.inf)),
            "LogitLens.log_likelihoods",
            "finite numbers",
            "not-a-number or infinity",
            "The model computes no usable numbers: check its weights and dtype.",
        ),
        (
            lambda: nats(nats=np.ones((2, 1))),
            "PromptNats.nats",
            "shape (N,), N >= 1",
            "(2, 1)",
            "Give one number for each prompt.",
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
            lambda: scores_in_training(log_likelihoods=np.zeros((1, 2, 2))),
            "ScoresInTraining.log_likelihoods",
            "shape (S, N, C) of S = 2 steps, and one at least",
            "(1, 2, 2)",
            "Score every example at every step.",
        ),
        (
            lambda: scores_in_training(labels=np.array([0, 2])),
            "Scores.labels",
            "(2,) indices below 2",
            "int64 of shape (2,), as [0, 2]",
            "A label is the index of the true response.",
        ),
        (
            lambda: dose(auroc=np.array([0.9])),
            "DoseCurve.auroc",
            "a number for each of 2 checks, and one at least",
            "(1,)",
            "Record every check.",
        ),
        (
            lambda: dynamics(confidence=np.array([[0.5], [np.inf]])),
            "Dynamics.confidence",
            "finite numbers",
            "not-a-number or infinity",
            "The model computes no usable numbers: check its weights and dtype.",
        ),
    ],
)
def test_an_error_says_what_was_expected_what_was_found_and_what_to_do(
    make, what, expected, found, do
):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == f"{what}: expected {expected}, found {found}. {do}"


@pytest.mark.parametrize("make", MADE)
def test_a_readout_s_columns_are_its_fields_and_each_has_a_meaning(make):
    kind = type(make())
    assert set(kind.columns) == {f.name for f in fields(kind)}
    assert [f.name for f in kind.struct()] == list(kind.columns)
    assert all(column.meaning for column in kind.columns.values())
    assert readout(kind.name) is kind


def test_the_package_s_readouts_are_known_and_each_is_measured_or_taken_in_training():
    assert readouts()[: len(BUILT_IN)] == BUILT_IN
    assert {type(make()).name for make in MADE} == set(BUILT_IN)
    assert set(RESERVED) == set(rows.COLUMNS)
    for name in BUILT_IN:
        assert readout(name).in_training == (name not in ask.OWN)
    with pytest.raises(InputError, match=r"one of scores, .*'score'\. Did you mean 'scores'\? Imp"):
        readout("score")


def test_a_column_says_what_its_numbers_are_in_memory():
    def dtype(kind, read_as=""):
        return Column(kind, "what it means", read_as).dtype

    assert dtype(pa.list_(pa.float32())) == np.float32
    assert dtype(pa.list_(pa.list_(pa.bool_()))) == np.bool_
    assert dtype(pa.list_(pa.int8()), "int64") == np.int64
    assert dtype(pa.list_(pa.string())) is None
    assert dtype(pa.int16()) is None


def test_the_paper_s_layer_is_the_fifth_to_last_and_of_a_shallow_model_the_first_block():
    def layer(n):
        shape = (n, 2, 2)
        made = a_probe(
            layers=np.arange(n), correct=np.ones(shape, bool), control=np.full((4, n), 0.5)
        )
        return made.paper_layer

    assert (layer(19), layer(6), layer(5), layer(3), layer(2)) == (14, 1, 1, 1, 1)


@pytest.mark.parametrize("name", ["scores", "provenance", "checkpoint_id", "Lengths", "a b", "", 3])
def test_one_s_own_readout_has_a_name_of_its_own(name, own_names):
    with pytest.raises(InputError, match=r"name of readout Mine: expected a new name"):

        class Mine(Readout, name=name):
            columns: ClassVar = {"n": Column(pa.int32(), "how many")}

    assert readout("scores") is Scores


def test_one_s_own_readout_can_be_corrected(own_names):
    def made():
        @dataclass(frozen=True)
        class Mine(Readout, name="mine"):
            columns: ClassVar = {"n": Column(pa.int32(), "how many")}
            n: int

        return Mine

    first, second = made(), made()
    assert readout("mine") is second is not first
    with pytest.raises(NotImplementedError, match=r"Mine\.measure"):
        second.measure(None)


@pytest.mark.parametrize(
    ("auroc", "reached"),
    [
        ([0.9, 0.7, 0.6, 0.41], True),
        ([0.9, 0.7, 0.6, 0.39], False),  # inverted
        ([0.9, 0.7, 0.61, 0.5], False),  # once
        ([0.5, 0.5], False),  # the first is before any step
    ],
)
def test_a_dose_is_reached_in_the_last_checks(auroc, reached):
    checks = [(2 * i, value) for i, value in enumerate(auroc)]
    assert DoseCurve.of(checks).reached(0.6, 2) == reached
