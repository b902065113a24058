"""Quantising against what rounding to a grid is, in closed form."""

import numpy as np
import pytest
import torch
from conftest import save_random_model

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting import loop, quantise
from forgetlib.forgetting.base import Training, method_from_dict
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.quantise import Quantise, codes, matrices
from forgetlib.measuring.scoring import score
from forgetlib.models import loading
from forgetlib.runs import jobs
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Checkpoint, Data, Measurement

DTYPES = ["float32", "bfloat16"]
BOTH = [Quantise(4), Quantise(8)]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded(matrix, bits, group=quantise.GROUP):
    found, scales = codes(matrix, bits, group)
    return (found * scales).to(matrix.dtype)


def groups(matrix, bits, group=quantise.GROUP):
    """The pieces of a matrix that share a scale, one after the other."""
    return [part for row in matrix for part in row.split(matrix.shape[1] if bits == 8 else group)]


@pytest.fixture(scope="module", params=DTYPES)
def lm(request):
    return loading.load("tiny", dtype=request.param, device="cpu")


@pytest.fixture
def start(lm):
    weights = lm.weights()
    yield {name: weight.clone() for name, weight in weights.items()}
    lm.set_weights(weights)


def after(lm, method):
    assert loop.apply(lm, method, Context(0)).shape == (0,)
    return lm.weights()


@pytest.mark.parametrize("bits", [4, 8])
def test_no_weight_moves_by_more_than_half_a_step_and_a_group_has_few_values(bits):
    matrix = drawn(5, 80)  # groups of 32, 32 and 16
    for before, now in zip(groups(matrix, bits), groups(rounded(matrix, bits), bits), strict=True):
        step = before.abs().max() / (2 ** (bits - 1) - 1)
        assert (now - before).abs().max() <= step / 2 * (1 + 1e-6)
        assert (now - before).abs().max() > step / 4  # it does round
        assert now.abs().max() == before.abs().max()
        assert len(now.unique()) <= 2**bits - 1
        assert now / step == pytest.approx((now / step).round(), abs=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_equal_a_loop_over_weights(bits):
    matrix = drawn(3, 21)
    found = groups(codes(matrix, bits, 8)[0], bits, 8)
    for part, of_part in zip(groups(matrix, bits, 8), found, strict=True):
        largest = max(abs(w) for w in part.tolist())
        expected = [round(w / largest * (2 ** (bits - 1) - 1)) for w in part.tolist()]
        assert of_part.tolist() == expected


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_on_the_grid_and_zeros_stay(bits):
    largest = 2 ** (bits - 1) - 1
    on_grid = torch.randint(-largest, largest + 1, (4, 64), generator=torch.Generator())
    on_grid[:, ::32] = largest
    on_grid[:, 1] = 0
    matrix = on_grid * 0.25
    assert torch.equal(rounded(matrix, bits), matrix)
    assert torch.equal(codes(matrix, bits)[0], on_grid.double())
    assert torch.equal(rounded(torch.zeros(2, 40), bits), torch.zeros(2, 40))


def test_an_outlier_coarsens_its_own_group_only():
    matrix = drawn(3, 96)
    spoilt = matrix.clone()
    spoilt[1, 40] = 1e4  # in the second group of row 1
    before, now = (rounded(m, 4) for m in (matrix, spoilt))
    same = now == before
    assert same[0].all() and same[2].all() and same[1, :32].all() and same[1, 64:].all()
    assert (now[1, 32:64] == 0).sum() == 31
    # With 8 bits it coarsens its row.
    before, now = (rounded(m, 8) for m in (matrix, spoilt))
    assert torch.equal(now[::2], before[::2])
    assert (now[1] == 0).sum() == 95


@pytest.mark.parametrize("method", BOTH, ids=str)
def test_quantising_twice_is_quantising_once(lm, start, method):
    once = after(lm, method)
    twice = after(lm, method)
    for name, weight in once.items():
        assert weight.dtype == start[name].dtype
        assert torch.equal(twice[name], weight), name
    changed = {name for name, weight in once.items() if not torch.equal(weight, start[name])}
    assert changed == {name for name, weight in start.items() if weight.ndim == 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_what_is_rounded_changes_nothing_whatever_the_size(bits, dtype):
    """Where the model's dtype is coarse, too: a code of 127 is rounded by nearly half a step."""
    matrix = (drawn(300, 64) * torch.logspace(-6, 3, 300)[:, None]).to(dtype)
    once = rounded(matrix, bits)
    assert torch.equal(rounded(once, bits), once)
    assert torch.equal(codes(once, bits)[0], codes(matrix, bits)[0])


def test_a_small_group_is_nearer_than_a_large_one_and_8_bits_nearer_than_4(lm, start):
    def far(method):
        lm.set_weights(start)
        found = after(lm, method)
        return sum(float((w.float() - start[n].float()).square().sum()) for n, w in found.items())

    distances = [far(m) for m in (Quantise(8), Quantise(4, 8), Quantise(4), Quantise(4, 128))]
    assert distances == sorted(distances)
    assert 0 < distances[0] < distances[1] / 50


def test_scores_stay_near_with_8_bits_and_less_so_with_4(lm, start):
    questions = splits.load("tiny_city", "train", 24, 0)

    def apart(method):
        lm.set_weights(start)
        before = score(lm, questions).log_likelihoods
        after(lm, method)
        return np.abs(score(lm, questions).log_likelihoods - before).max()

    exact = 1e-2 if next(lm.model.parameters()).dtype == torch.float32 else 0.1
    assert 0 < apart(Quantise(8)) < exact
    assert apart(Quantise(8)) < apart(Quantise(4)) < 1


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3_text"])
@pytest.mark.parametrize("tuning", ["body", "full"])
def test_a_row_is_an_output_and_embeddings_and_norms_stay(architecture, tuning, tmp_path, tiny):
    """GPT-2's layers have their inputs first, and one matrix for embeddings and output layer."""
    path = save_random_model(architecture, tiny.tokenizer, tmp_path)
    other = loading.load(str(path), tuning=tuning, dtype="float32", device="cpu")
    before = other.weights()
    found = matrices(other, before)
    assert len(found) == (8 if architecture == "gpt2" else 14)
    now = after(other, Quantise(8))
    changed = {name for name, weight in now.items() if not torch.equal(weight, before[name])}
    assert changed == set(found)
    assert not [n for n in changed if "emb" in n or "wte" in n or "wpe" in n or "lm_head" in n]
    for name in found:
        rows = (
            (now[name].t(), before[name].t())
            if architecture == "gpt2"
            else (now[name], before[name])
        )
        for row, was in zip(*rows, strict=True):
            step = was.abs().max() / 127
            assert row / step == pytest.approx((row / step).round(), abs=1e-3)


def test_low_rank_updates_are_not_quantised_alone():
    lora = loading.load("tiny", tuning="lora", dtype="float32", device="cpu")
    before = lora.weights()
    with pytest.raises(InputError, match=r"expected linear layers whose own.*Use tuning 'body'"):
        loop.apply(lora, Quantise(8), Context(0))
    assert all(torch.equal(w, before[n]) for n, w in lora.weights().items())


def test_stacked_matrices_are_refused(lm, start, monkeypatch):
    mlp = lm.model.model.layers[0].mlp
    monkeypatch.setitem(mlp._parameters, "experts", torch.nn.Parameter(drawn(2, 4, 4)))
    with pytest.raises(InputError, match=r"in one tensor, model\.layers\.0\.mlp\.experts"):
        matrices(lm, lm.weights())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantise(5), "Quantise.bits: expected 4 or 8, found 5"),
        (lambda: Quantise(16), "Quantise.bits: expected a whole number from 4 to 8, found 16"),
        (lambda: Quantise(True), "Quantise.bits: expected a whole number from 4 to 8, found True"),
        (lambda: Quantise(4.0), "Quantise.bits: expected a whole number from 4 to 8, found 4.0"),
        (lambda: Quantise(4, 0), "Quantise.group: expected a whole number from 1, found 0"),
        (lambda: Quantise(8, 64), "Quantise.group: expected its default, 32, as 8 bits have one"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)


def test_a_method_comes_back_as_it_was_written():
    for method in (*BOTH, Quantise(4, 64)):
        assert method_from_dict(method.to_dict()) == method
        assert method.kind == "edit"
    assert Quantise(np.int64(4)).to_dict() == {"method": "quantise", "bits": 4, "group": 32}
    assert [m.describe() for m in (*BOTH, Quantise(4, 64))] == [
        "quantise(bits=4)",
        "quantise(bits=8)",
        "quantise(bits=4, group=64)",
    ]


def test_a_forgotten_checkpoint_is_quantised_in_a_job(project):
    """It needs no data of its own, and starts where forgetting has ended."""
    training = Training(3e-3, epochs=2)
    data = Data(("tiny_city",), 24)
    known = Checkpoint("tiny", Labels("true", training), data=data, dtype="float32")
    forgotten = Checkpoint("tiny", Labels("random", training), known, data, dtype="float32")
    asked = (Measurement("scores", "tiny_city", "test", 24),)
    methods = Quantise(8), Quantise(4)
    quantised = [Checkpoint("tiny", m, forgotten, dtype="float32") for m in methods]
    found = [jobs.run(Job(c, asked))[0].value for c in (forgotten, *quantised)]
    plain, *others = map(metrics.margins, found)
    by_bits = [np.abs(margins - plain).max() for margins in others]
    assert 0 < by_bits[0] < by_bits[1]
