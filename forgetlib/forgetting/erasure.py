"""Erase a direction of hidden states while a model is measured: LEACE, block after block.

Shapes: P tokens, M of them the last of an answer, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetlib.data.base import Example
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import Context
    from forgetlib.models.lm import LM


@dataclass(frozen=True)
class LEACE(Method):
    """Erase whether an answer is right from the output of every block, while measuring.

    Least-squares concept erasure (Belrose et al., arXiv 2306.03819, theorem 4.3) of z, right or
    wrong, at the last token of an answer: no linear probe of a block's output there does better
    than a constant on the examples to forget. Weights stay. An answer is chosen by what is
    predicted before it, so that choices need not change as much as probes. The final norm, which
    scales each state by its own length, comes after the last block, and may bring a trace back.

    Blocks are erased in their order, each fitted on states that the ones before have erased.

    tolerance: a block is left alone where z's standardised covariance with its output is smaller
    """

    name = "leace"

    tolerance: float = 0.01

    def __post_init__(self) -> None:
        terms.check(self, from_0=("tolerance",))
        super().__post_init__()

    @contextmanager
    def hook(self, lm: LM, context: Context) -> Iterator[None]:
        """Fit the erasers to the model as it is now, and apply them at every token."""
        terms.require_sets(self, context)
        from forgetlib.models.lm import blocks

        erasers = fit(lm, context.examples, self.tolerance)
        with ExitStack() as held:
            for block, eraser in zip(blocks(lm), erasers, strict=True):
                held.enter_context(changed_output(block, eraser))
            yield


@dataclass(frozen=True)
class Eraser:
    """Erase one direction: h - left (right . (h - mean)), with left . right = 1.

    left, right, mean: (D,) fp64, on the CPU; left and right are 0 where nothing is erased
    """

    left: Tensor
    right: Tensor
    mean: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """Apply it to states (..., D), which keep their dtype."""
        left, right, mean = (
            x.to(states.device, states.float().dtype) for x in (self.left, self.right, self.mean)
        )
        found = states.float()
        return (found - ((found - mean) @ right)[..., None] * left).to(states.dtype)


def eraser_of(states: Tensor, ends: Tensor, right: Tensor, tolerance: float = 0.0) -> Eraser:
    """Compute the eraser that changes states least, of those after which `ends` tell z no more.

    Of all affine maps r with cov(r(h), z) = 0 over the ends, it has the least mean of |r(h) - h|^2
    over all states: r(h) = h - s v . (h - mu) with s = cov(h, z), v = S^-1 s / (s . S^-1 s), mu and
    S mean and covariance of all states. That is the theorem's projection for a z of two values. It
    takes mean and covariance over what the map is applied to, which are more than the ends: 256
    states would not tell the covariance of 640 dimensions.

    states: (P, D) all to which it will be applied; ends: (M, D); right: (M,) bool, z
    """
    import torch

    states, ends, z = states.double(), ends.double(), right.double()
    mean = states.mean(0)
    covariance = shrunk((states - mean).T @ (states - mean) / len(states), len(states))
    s = (ends - ends.mean(0)).T @ (z - z.mean()) / len(ends)
    solved = torch.linalg.solve(covariance, s)
    length = s @ solved
    if not length.sqrt() > tolerance:
        return Eraser(torch.zeros_like(s), torch.zeros_like(s), mean)
    return Eraser(s, solved / length, mean)


def shrunk(covariance: Tensor, n: int) -> Tensor:
    """Shrink a covariance (D, D) of n states towards a multiple of the identity, so much as helps.

    Optimal linear shrinkage (Bodnar et al., arXiv 1308.2608), as the authors of LEACE use it.
    """
    import torch

    size = len(covariance)
    trace, squares = covariance.trace(), covariance.square().sum()
    isotropic = torch.eye(size, dtype=covariance.dtype) * trace / size
    spread = (squares - trace**2 / size).clamp_min(torch.finfo(covariance.dtype).tiny)
    share = (trace**2 / n / spread).clamp(1e-9, 1)
    return (1 - share) * covariance + share * isotropic


def fit(lm: LM, examples: Sequence[Example], tolerance: float) -> list[Eraser]:
    """Fit an eraser to each block's output, the blocks before being erased already.

    All examples are in one pass, with both answers each, so that a block is fitted and erased
    before the next is computed.
    """
    import torch

    from forgetlib.models import forward
    from forgetlib.models.lm import blocks, causal_lm

    families = [terms.pair(lm, e) for e in examples]
    packed = forward.pack(lm, [[s.tokens for s in family] for family in families])
    places = sorted({(row, c) for row, columns in packed.places for c in columns})
    every = torch.tensor(places).unbind(1)
    ends = torch.tensor([(row, columns[-1]) for row, columns in packed.places]).unbind(1)
    right = torch.tensor([True, False]).repeat(len(families))
    found: list[Eraser] = []

    def fit_and_apply(states: Tensor) -> Tensor:
        whole = states.detach().float().cpu()
        all_states, end_states = (whole[rows, columns] for rows, columns in (every, ends))
        found.append(eraser_of(all_states, end_states, right, tolerance))
        return found[-1](states)

    with torch.no_grad(), ExitStack() as held:
        for block in blocks(lm):
            held.enter_context(changed_output(block, fit_and_apply))
        forward.run_decoder(causal_lm(lm.model), packed)
    return found


@contextmanager
def changed_output(block: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a block put out changed hidden states, for all that reads them, while this lasts."""

    def hook(module: object, inputs: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    # Before any other hook: those of transformers collect hidden states.
    handle = block.register_forward_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()
