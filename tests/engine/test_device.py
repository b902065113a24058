"""How much of a GPU a process may take. There is none here: what torch says of it is made up."""

import pytest
import torch

from forgetlib.engine import device
from forgetlib.errors import InputError

GIB = 2**30


@pytest.fixture
def card(monkeypatch):
    """card(...): a GPU of 80 GiB, of which so many GiB are free, taken and held by this process."""

    def with_memory(free, taken, held):
        answers = {
            "mem_get_info": (free * GIB, 80 * GIB),
            "memory_allocated": taken * GIB,
            "memory_reserved": held * GIB,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, lambda _, answer=answer: answer)
        return device.free_memory(torch.device("cuda")) / GIB

    return with_memory


def test_what_pytorch_holds_for_tensors_that_are_gone_is_free(card):
    assert card(free=50, taken=14, held=30) == 50 + 16


def test_a_process_may_take_its_share_of_the_card_only(card, monkeypatch):
    monkeypatch.setenv(device.SHARE, "0.25")
    assert card(free=66, taken=14, held=14) == 20 - 14
    assert card(free=3, taken=14, held=14) == 3  # others have taken the rest


@pytest.mark.parametrize("given", ["0", "-0.5", "1.5", "nan", "half"])
def test_a_share_that_is_none_is_refused(given, monkeypatch):
    monkeypatch.setenv(device.SHARE, given)
    with pytest.raises(InputError, match=f"{device.SHARE}: expected the share of a GPU.*{given}"):
        device.gpu_share()


def test_where_nothing_is_said_the_whole_card_is_a_process_s(monkeypatch):
    for given in ("", "1"):
        monkeypatch.setenv(device.SHARE, given)
        assert device.gpu_share() == 1
    monkeypatch.delenv(device.SHARE)
    assert device.gpu_share() == 1
