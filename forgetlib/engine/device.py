"""The device that computes: what is sent to it, and how much memory it has left."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device, without waiting for what a GPU is computing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def free_memory(device: torch.device) -> int:
    """Count the bytes of a GPU that this process can still take.

    What PyTorch holds for tensors that are gone counts; what is beyond the share of the card that
    the process was given does not (`torch.cuda.set_per_process_memory_fraction`).
    """
    free, total = torch.cuda.mem_get_info(device)
    taken, held = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    share = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free + held - taken, share - taken)
