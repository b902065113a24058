"""Remove from hidden states what a training added: a diagnosis, since it needs the original.

Shapes: N prompts, L blocks, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from forgetlib.errors import InputError, require
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method
from forgetlib.forgetting.erasure import changed_output

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import Context
    from forgetlib.models.lm import LM


@dataclass(frozen=True)
class WithoutDirection(Method):
    """Project out the direction in which forgetting moved hidden states, at every block.

    Łucki et al. (arXiv 2409.18025): where a method only adds a direction that covers
    what the model knows, the skill comes back without it. Of each block it is the first right
    singular vector of h(forgotten) - h(known), at the last token of the prompts that were to be
    forgotten. They are not centred, so that a shift that all prompts share is in it. It takes the
    known model, and so tells where a skill is hidden; nobody who has the forgotten model alone can
    do it.

    random: the control: as many directions, drawn at random
    """

    origin: ClassVar[bool] = True

    random: bool = False

    def __post_init__(self) -> None:
        require("WithoutDirection.random", self.random, bool, "True or False")
        super().__post_init__()

    @contextmanager
    def hook(self, lm: LM, context: Context) -> Iterator[None]:
        """Find the directions of the model as it is now, and project them out at every token."""
        terms.require_sets(self, context)
        from forgetlib.models.lm import blocks

        found = directions(lm, [e.prompts[e.label] for e in context.examples], context.origin)
        if self.random:
            import torch

            found = torch.randn(found.shape, generator=context.generator(self.name)).double()
            found = found / found.norm(dim=1, keepdim=True)
        with ExitStack() as held:
            for block, direction in zip(blocks(lm), found, strict=True):
                held.enter_context(changed_output(block, without(direction)))
            yield


def without(direction: Tensor) -> Callable[[Tensor], Tensor]:
    """Make what projects a direction (D,), of length 1, out of states (..., D)."""

    def project(states: Tensor) -> Tensor:
        of = states.float()
        unit = direction.to(of.device, of.dtype)
        return (of - (of @ unit)[..., None] * unit).to(states.dtype)

    return project


def directions(lm: LM, prompts: Sequence[str], origin: Mapping[str, Tensor]) -> Tensor:
    """Find the direction (L, D) in which each block's output has moved most: fp64, of length 1.

    origin: the trainable weights from which it moved, as `LM.weights` gives them
    InputError where some block's output has not moved at all.
    """
    import torch

    now, weights = _ends(lm, prompts), lm.weights()
    try:
        lm.set_weights(dict(origin))
        moved = now - _ends(lm, prompts)
    finally:
        lm.set_weights(weights)
    if still := [i for i, of_block in enumerate(moved) if not of_block.any()]:
        raise InputError(
            f"directions of {lm.name!r}",
            expected="a model whose hidden states differ from those of the one before it",
            found=f"the same ones after block {still[0]}, of {len(moved)}",
            do="Compare a model with what it was trained from.",
        )
    return torch.stack([torch.linalg.svd(m, full_matrices=False).Vh[0] for m in moved])


def _ends(lm: LM, prompts: Sequence[str]) -> Tensor:
    """Compute every block's output (L, N, D) at the last token of each prompt, fp64 on the CPU."""
    import torch

    from forgetlib.models import forward
    from forgetlib.models.lm import blocks, causal_lm

    packed = forward.pack(lm, [[tuple(lm.tokens(prompt.rstrip()))] for prompt in prompts])
    rows, columns = torch.tensor([(row, c[-1]) for row, c in packed.places]).unbind(1)
    found: list[Tensor] = []

    def keep(states: Tensor) -> Tensor:
        found.append(states.detach()[rows, columns].double().cpu())
        return states

    with torch.no_grad(), ExitStack() as held:
        for block in blocks(lm):
            held.enter_context(changed_output(block, keep))
        forward.run_decoder(causal_lm(lm.model), packed)
    return torch.stack(found)
