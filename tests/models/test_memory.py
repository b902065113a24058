"""How long backward passes are, and whether activations are computed again, by the memory."""

import pytest
import torch

from forgetlib.data import splits
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels
from forgetlib.models import loading, memory
from forgetlib.models.memory import Passes

GIB = 2**30
LLAMA_7B = {"n_parameters": 6_738_415_616, "n_layers": 32, "hidden": 4096, "wide": 2}


def of_7b(room_gib, **options):
    return memory.passes("cuda", **LLAMA_7B, room=room_gib * GIB, **options)


def test_a_gpu_keeps_activations_where_its_memory_has_room_and_computes_them_again_where_not():
    """Of low-rank updates of 7 billion weights, on cards of 80 and of 24 GiB."""
    large, small = of_7b(80 - 14), of_7b(24 - 14)
    assert large == Passes(4096, False)
    assert small == Passes(8192, True)
    for found, room in ((large, 66), (small, 10)):
        held = memory.activations(found.tokens, 32, 4096, 2, found.recompute)
        twice = memory.activations(2 * found.tokens, 32, 4096, 2, found.recompute)
        assert held <= memory.USED * room * GIB < twice


def test_a_small_model_s_passes_are_as_long_as_they_may_be():
    found = memory.passes("cuda", 268_098_176, 18, 640, 2, room=60 * GIB)
    assert found == Passes(memory.BACKWARD_TOKENS["cuda"], False)


def test_too_little_memory_is_left_to_the_device_to_say():
    assert of_7b(-3) == of_7b(0) == Passes(memory.FEWEST, True)


def test_where_adamw_s_state_has_no_room_adafactor_s_is_planned_with():
    body = 6_476_005_376  # of 7 billion weights
    of = {o: memory.training_state(body, 2, o) / body for o in ("adamw", "adafactor")}
    assert of == {"adamw": 14, "adafactor": 6}
    assert memory.left(100 * GIB, body, 2) == 100 * GIB - 14 * body
    assert memory.left(66 * GIB, body, 2) == 66 * GIB - 6 * body
    assert memory.left(20 * GIB, body, 2) == 0


@pytest.mark.parametrize("recompute", [False, True])
def test_what_is_asked_for_is_done(recompute):
    assert of_7b(66, recompute=recompute).recompute == recompute
    assert of_7b(1, recompute=recompute) == Passes(memory.FEWEST, recompute)
    assert memory.passes("cpu", **LLAMA_7B, recompute=recompute).recompute == recompute


@pytest.mark.parametrize(("n", "recompute"), [(10**9, False), (10**9 + 1, True)])
def test_elsewhere_the_number_of_parameters_decides(n, recompute):
    for device in ("cpu", "mps"):
        found = memory.passes(device, n, 32, 4096, 2)
        assert found == Passes(memory.BACKWARD_TOKENS[device], recompute)


def test_a_model_s_passes_are_no_longer_than_its_memory_allows(monkeypatch):
    """And what is learned stays the same, but for the order of sums."""
    lm = loading.load("tiny", dtype="float32", device="cpu")
    assert loop.backward_tokens(lm) == memory.BACKWARD_TOKENS["cpu"]
    examples = tuple(splits.load("tiny_city", "train", 16, 0))
    start, lengths, forward = lm.weights(), [], loop.forward.collate

    def seen(lm, families):
        lengths.append(sum(len(s.tokens) - 1 for family in families for s in family))
        return forward(lm, families)

    monkeypatch.setattr(loop.forward, "collate", seen)
    found = []
    for tokens in (10**6, 12):
        lengths.clear()
        lm.set_weights(start)
        lm.backward_tokens = tokens
        found.append(loop.train(lm, Labels("true", Training(1e-3, epochs=2)), Context(0, examples)))
        assert max(lengths) == min(tokens, 8 * 6)
    torch.testing.assert_close(*map(torch.from_numpy, found))
