"""Several devices for one model: FSDP, started by `accelerate launch` or `torchrun`.

Every process runs the same program. The weights of the layers are spread over the processes, a
batch's sequences are dealt out, and gradients are summed, so that a step is that of one device
but for the order of sums. Scoring is dealt out too; probing is done by every process. A pass is
collective: all processes make equally many, in one order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed as dist, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from forgetlib.errors import InputError

T = TypeVar("T")
LAUNCHED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what a launcher sets


def size() -> int:
    """Count the processes; 1 where none was launched."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Tell which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0"))


def connect() -> None:
    """Let the processes find each other; each has the GPU of its number, where there are GPUs."""
    if size() > 1 and not dist.is_initialized():
        if missing := [name for name in LAUNCHED if name not in os.environ]:
            raise InputError(
                "environment",
                expected=f"{', '.join(LAUNCHED)} beside WORLD_SIZE={size()}",
                found=f"no {', '.join(missing)}",
                do="Start with `accelerate launch` or `torchrun`, or unset WORLD_SIZE.",
            )
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # Both: what is told and counted is on the CPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def own(device: torch.device) -> torch.device:
    """Pick this process's device of a kind."""
    connect()
    if size() > 1 and device.type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return device


def layers(model: nn.Module) -> list[nn.Module]:
    """List the model's layers, in their order."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


def shard(model: nn.Module) -> None:
    """Spread the weights of the model's layers; embeddings and output layer stay whole.

    The output layer's weights are used without a call of it, and its logits are most of the work
    of a small model.
    """
    from torch.distributed.fsdp import fully_shard

    if size() > 1:
        mesh = dist.init_device_mesh(next(model.parameters()).device.type, (size(),))
        for layer in layers(model):
            # Each is a root of its own, which by default stays whole after a pass.
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def inference() -> Any:
    """Compute without gradients. FSDP would keep tensors of inference mode for the training."""
    return torch.inference_mode() if size() == 1 else torch.no_grad()


def local(tensor: Tensor) -> Tensor:
    """Take this process's part of a tensor; all of one that is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor that is spread over processes; return any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(parameter: Tensor, value: Tensor) -> None:
    """Copy a whole value into a parameter, of which each process keeps its part."""
    if isinstance(parameter, DTensor):
        value = value.to(parameter.device, parameter.dtype)
        value = distribute_tensor(value, parameter.device_mesh, parameter.placements).to_local()
    local(parameter).copy_(value)


def dealt(n: int, of: Callable[[Sequence[int]], list[list[int]]]) -> list[tuple[list[int], bool]]:
    """Deal this process its passes over items 0 to n - 1, as (items, whether they count).

    of: splits the items that one process is dealt into passes. Every process makes as many passes
        as the one with most; those that it adds do not count.
    """
    passes = [of(range(r, n, size())) for r in range(size())]
    mine = [(items, True) for items in passes[rank()]]
    return mine + [([0], False)] * (max(map(len, passes)) - len(mine))


def summed(values: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def smallest(value: float) -> float:
    """Find the smallest of the processes' values, so that all plan with the same."""
    if size() == 1:
        return value
    connect()
    found = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return float(found)


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Make every gradient the sum over the processes. FSDP has made those of its weights means."""
    if size() == 1:
        return
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            if parameter.grad is not None:
                parameter.grad.mul_(size())
            continue
        if parameter.grad is None:  # of a process whose passes did not meet it
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def from_first(value: Callable[[], T]) -> T:
    """Tell all processes what the first one finds."""
    if size() == 1:
        return value()
    connect()
    told: list[Any] = [value() if rank() == 0 else None]
    dist.broadcast_object_list(told)
    return told[0]


def all_agree(here: bool) -> bool:
    """Tell whether it is so in every process."""
    connect()
    return int(summed(torch.tensor(int(here)))) == size()


def wait() -> None:
    """Wait until all processes are here."""
    if size() > 1:
        connect()
        dist.barrier()
