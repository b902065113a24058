"""Muon: momentum whose singular values are all made one, for the matrices inside a network.

After Jordan et al. (2024, "Muon: an optimizer for hidden layers in neural networks"), with steps of
the size of AdamW's as Liu et al. (2025, arXiv 2502.16982) scale them, so that one learning rate
serves both. In float32: PyTorch's own rounds to bfloat16, which many CPUs have no fast products of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Jordan's, of a polynomial that takes singular values from (0, 1] to about 1 in five rounds.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
LIKE_ADAMW = 0.2  # root mean square of AdamW's usual step, as a share of its rate


class Muon(torch.optim.Optimizer):
    """Update matrices by their momentum, made orthogonal.

    parameters: matrices alone
    rate: root mean square of a step's entries is LIKE_ADAMW of it
    momentum: share that is kept of the gradients before
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], rate: float, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make one step with the gradients that are there; a closure is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if "kept" not in state:
                    state["kept"] = torch.zeros_like(parameter)
                kept, gradient = state["kept"], parameter.grad
                kept.lerp_(gradient, 1 - group["momentum"])
                ahead = gradient.lerp(kept, group["momentum"])  # Nesterov's
                size = group["lr"] * LIKE_ADAMW * max(parameter.shape) ** 0.5
                parameter.add_(orthogonal(ahead), alpha=-size)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U V' of a matrix U S V', with singular values from 0.7 to 1.2.

    Values that are a thousandth of the largest and less stay small.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found = wide / (wide.norm() + 1e-12)
    for _ in range(ROUNDS):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found if wide is matrix else found.T
