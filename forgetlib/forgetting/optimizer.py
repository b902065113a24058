"""Step weights by AdamW or Adafactor, on fp32 masters of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.optimization import Adafactor

from forgetlib.engine import kernels, parallel
from forgetlib.errors import InputError
from forgetlib.forgetting.base import Training

BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW, which are PyTorch's own
# Weights that one optimiser steps together: a step of many small ones is one call, and no more than
# 256 MB of gradients are there in fp32, or those of the largest weight.
GROUP_NUMBERS = 2**26


class Optimizer:
    """Step fp32 masters of the weights, which are copied back into the weights' own dtype.

    Adafactor keeps a row and a column of second moments for each matrix, and no first moments: with
    weight, gradient and master it is 8 bytes a bf16 weight, where AdamW takes 16.
    """

    def __init__(self, parameters: Sequence[Tensor], config: Training) -> None:
        self.parameters, self.config = parameters, config
        # Of weights that are spread over processes, each has its part.
        self.weights = [parallel.local(p.detach()) for p in parameters]
        self.spread = [parallel.local(p) is not p for p in parameters]
        self.masters = [w.to(torch.float32, copy=True) for w in self.weights]
        if config.optimizer == "adafactor" and parallel.size() > 1:
            raise InputError(
                f"{type(config).__name__}.optimizer",
                expected="'adamw' where several processes train, each of which keeps a part",
                found=f"{config.optimizer!r}, whose steps would depend on their number",
                do="Use 'adamw', or one process.",
            )
        contiguous = all(w.is_contiguous() for w in self.weights)
        usable = config.optimizer == "adamw" and contiguous and kernels.usable(*self.weights)
        self.in_kernel = usable and bool(kernels.library())
        if self.in_kernel:
            self.means, self.squares = (
                [torch.zeros_like(m) for m in self.masters] for _ in range(2)
            )
        else:
            self.groups = [(places, self._optimizer_of(places)) for places in self._grouped()]
        self.n_steps = 0

    def _grouped(self) -> list[list[int]]:
        """Split the places of the weights, in order, into groups of at most GROUP_NUMBERS numbers.

        A larger weight is a group of its own.
        """
        groups: list[list[int]] = []
        room = 0
        for place, master in enumerate(self.masters):
            if not groups or master.numel() > room:
                groups.append([])
                room = GROUP_NUMBERS
            groups[-1].append(place)
            room -= master.numel()
        return groups

    def _optimizer_of(self, places: Sequence[int]) -> torch.optim.Optimizer:
        masters = [self.masters[place] for place in places]
        settings: Any = {"lr": self.config.learning_rate, "weight_decay": self.config.weight_decay}
        if self.config.optimizer == "adafactor":
            plain = {"scale_parameter": False, "relative_step": False}  # the learning rate given
            return Adafactor(masters, **settings, **plain)
        fused = masters[0].device.type in ("cpu", "cuda")
        return torch.optim.AdamW(masters, betas=BETAS, eps=EPS, fused=fused, **settings)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Move the weights against their gradients, at the learning rate times a factor.

        A gradient beyond the largest norm is scaled down to it. All gradients are dropped.
        """
        self.n_steps += 1
        gradients = {
            place: parallel.local(parameter.grad)
            for place, parameter in enumerate(self.parameters)
            if parameter.grad is not None
        }
        if self.in_kernel:
            gradients = {place: gradient.contiguous() for place, gradient in gradients.items()}
        clip = self.config.max_grad_norm / (self._norm(gradients) + 1e-6)
        clip = clip.clamp_max(1)  # what is not a number stays that
        learning_rate = self.config.learning_rate * factor
        if self.in_kernel:
            self._step_in_kernel(gradients, float(clip), learning_rate)
        else:
            self._step_in_torch(gradients, clip, learning_rate)
        for parameter in self.parameters:
            parameter.grad = None

    def _norm(self, gradients: Mapping[int, Tensor]) -> Tensor:
        """Compute the Euclidean norm, (), of all gradients together, other processes' included."""
        parts = [g for place, g in gradients.items() if self.spread[place]]
        same = [g for place, g in gradients.items() if not self.spread[place]]  # in every process
        squares = parallel.summed(self._sum_of_squares(parts)) + self._sum_of_squares(same)
        return squares.sqrt()

    def _sum_of_squares(self, gradients: Sequence[Tensor]) -> Tensor:
        """Sum over all gradients, (). On a GPU nothing here waits for it."""
        device = self.weights[0].device
        dtype = torch.float32 if device.type == "mps" else torch.float64  # which MPS has not
        if not gradients:
            return torch.zeros((), dtype=dtype, device=device)
        if self.in_kernel:
            return torch.tensor(kernels.global_norm(gradients) ** 2, dtype=dtype)
        norms = torch._foreach_norm(list(gradients), dtype=torch.float32)
        return torch.stack(norms).square().sum(dtype=dtype)

    def _step_in_kernel(
        self, gradients: Mapping[int, Tensor], clip: float, learning_rate: float
    ) -> None:
        kernels.adamw(
            list(gradients.values()),
            *([of[place] for place in gradients] for of in (self.masters, self.means)),
            *([of[place] for place in gradients] for of in (self.squares, self.weights)),
            clip=clip,
            learning_rate=learning_rate,
            betas=BETAS,
            eps=EPS,
            weight_decay=self.config.weight_decay,
            step=self.n_steps,
        )

    def _step_in_torch(
        self, gradients: Mapping[int, Tensor], clip: Tensor, learning_rate: float
    ) -> None:
        """Step group by group: one group's gradients are there in fp32 at a time.

        All weights of a group at once, as PyTorch's own optimisers do: a GPU is not kept waiting by
        hundreds of small calls.
        """
        for places, optimizer in self.groups:
            there = [place for place in places if place in gradients]
            if not there:
                continue
            masters = [self.masters[place] for place in there]
            wide = [gradients[place].to(torch.float32) for place in there]
            torch._foreach_mul_(wide, clip.to(torch.float32))  # another dtype would be slow
            for master, gradient in zip(masters, wide, strict=True):
                master.grad = gradient
            optimizer.param_groups[0]["lr"] = learning_rate
            optimizer.step()
            for master in masters:
                master.grad = None
            torch._foreach_copy_([self.weights[place] for place in there], masters)
