"""Misdirect hidden states: RMU, which trains a few blocks below the middle of a model.

Shapes: S sequences of a pass, P tokens of all of them, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetlib.errors import InputError, require_whole
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method, Training

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import BatchPart, Context
    from forgetlib.models.lm import LM


@dataclass(frozen=True)
class RMU(Method):
    """Drive hidden states of what to forget in a random direction, and hold those of a retain set.

    Representation misdirection for unlearning (Li et al., arXiv 2403.03218). The loss is the mean
    over examples of |h - c u|^2 / D, plus `retain_weight` times that of |h - h0|^2 / D on the
    retain set, each a mean over the tokens of a sequence. h is the output of block `layer`, h0 the
    same before training, u a random unit vector with entries above 0, as in the authors' code. In
    place of one c for all, which has to be found for every model, it is scale |h0|, token by token
    (adaptive RMU, Dang et al., arXiv 2408.06223).

    The first token of a sequence is left out: it sees no question, and its state is hundreds of
    times as long as others, so that it would be all of the loss.

    retain: tasks whose hidden states are held
    layer: 1 for the first block; about a quarter of the depth
    trained: how many blocks are trained, `layer` the last of them; of these, all that the model's
        tuning trains, where the authors train one matrix each
    scale: length of the target in lengths of the state before
    """

    keeps = ("weights",)
    fails_above_guessing = False  # its loss is not in nats

    training: Training
    retain: tuple[str, ...]
    layer: int
    trained: int = 3
    scale: float = 5.0
    retain_weight: float = 1200.0

    def __post_init__(self) -> None:
        terms.check(self, positive=("scale", "retain_weight"), needs_retain=True)
        for name in ("layer", "trained"):
            whole = require_whole(f"RMU.{name}", getattr(self, name), 1)
            object.__setattr__(self, name, whole)
        super().__post_init__()

    def loss(self, lm: LM, batch: BatchPart, context: Context) -> Tensor:
        """Compute the mean squared distances from what the states shall be."""
        import torch

        with context.at_start(lm):
            before = self._states(lm, batch)
        now = self._states(lm, batch)  # (P, D)
        owners = _owners(batch)  # (P,)
        generator = context.generator(self.name)
        direction = torch.rand(now.shape[1], generator=generator).to(now.device)
        far = self.scale * before.norm(dim=1, keepdim=True) * direction / direction.norm()
        kept = batch.retained[owners]
        target = torch.where(kept[:, None], before, far)
        of_token = (now - target).square().mean(1)
        # Each sequence counts alike, and each batch as the whole of its sequences.
        counts = torch.bincount(owners, minlength=len(batch.sequences))
        weight = torch.where(
            batch.retained,
            self.retain_weight / max(batch.n_retained, 1),
            1 / max(batch.n_examples, 1),
        )
        return (of_token * (weight / counts.clamp_min(1))[owners]).sum()

    def _states(self, lm: LM, batch: BatchPart) -> Tensor:
        """Compute hidden states (P, D), fp32, with gradients for the trained blocks only."""
        import torch

        from forgetlib.models import forward
        from forgetlib.models.lm import blocks, causal_lm

        of_model = blocks(lm)
        if self.layer > len(of_model):
            raise InputError(
                "RMU.layer",
                expected=f"a block of {lm.name}, 1 to {len(of_model)}",
                found=self.layer,
                do="Name one of these; about a quarter of the depth is usual.",
            )
        found: list[Tensor] = []

        def cut(module: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (inputs[0].detach(), *inputs[1:])

        def take(module: object, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            found.append(output if isinstance(output, torch.Tensor) else output[0])

        first = of_model[max(0, self.layer - self.trained)]
        handles = (
            first.register_forward_pre_hook(cut),
            of_model[self.layer - 1].register_forward_hook(take),
        )
        try:
            forward.run_decoder(causal_lm(lm.model), batch.inputs.packed)
        finally:
            for handle in handles:
                handle.remove()
        places = [
            (row, column) for row, columns in batch.inputs.packed.places for column in columns[1:]
        ]
        rows, columns = torch.tensor(places, device=lm.device).unbind(1)
        return found[0][rows, columns].float()


def _owners(batch: BatchPart) -> Tensor:
    """Tell which sequence each token is of, without the first ones: (P,)."""
    import torch

    counts = [len(columns) - 1 for _, columns in batch.inputs.packed.places]
    numbers = torch.arange(len(counts), device=batch.retained.device)
    return numbers.repeat_interleave(torch.tensor(counts, device=numbers.device))
