"""The device that computes: what is sent to it, and how much of its memory a process may take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from forgetlib.errors import require_number

if TYPE_CHECKING:
    import torch

SHARE = "FORGETLIB_GPU_SHARE"


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the CPU to a device, without waiting for what a GPU is computing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def gpu_share() -> float:
    """Read which share of a GPU this process may take: FORGETLIB_GPU_SHARE, 1 where it is not set.

    Raises InputError where it is no number above 0 and up to 1.
    """
    given = os.environ.get(SHARE) or "1"
    try:
        share: float | str = float(given)
    except ValueError:
        share = given
    expected = "the share of a GPU that a process may take, above 0 and up to 1"
    return require_number(SHARE, share, expected, lambda x: 0 < x <= 1)


def free_memory(device: torch.device) -> int:
    """Count the bytes of a GPU that this process can still take, of its share.

    What PyTorch holds for tensors that are gone is free.
    """
    import torch

    free, total = torch.cuda.mem_get_info(device)
    taken, held = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    return min(free + held - taken, int(total * gpu_share()) - taken)
