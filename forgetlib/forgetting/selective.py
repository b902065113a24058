"""Edit what matters more to questions to forget than to others: single weights, or neurons.

Neither trains. Both compare two sets, the examples to forget and a retain set, and how many numbers
are edited follows from a threshold or a share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetlib.data.base import Example
from forgetlib.errors import InputError, require_number
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import Context
    from forgetlib.models.lm import LM

EPS = 1e-5  # added to a retained activation before it is divided by, as in the authors' code
# The layer of a block that reads its neurons: what it is called, by the part that it is in.
OUTPUTS = {
    "attention": ("o_proj", "out_proj", "c_proj", "dense"),
    "mlp": ("down_proj", "fc_out", "c_proj", "fc2", "dense_4h_to_h"),
}


@dataclass(frozen=True)
class SSD(Method):
    """Dampen weights that matter more to what is forgotten than to what is retained.

    Selective synaptic dampening (Foster et al., arXiv 2308.07707). The importance of a weight is
    the mean over examples of the squared gradient of the loss a token of the true response, I_f to
    forget and I_r to retain. Where I_f > threshold I_r, the weight is
    multiplied by min(dampening I_r / I_f, 1).

    Gradients are squared example by example: those of a batch would cancel first. The authors take
    the importance to all training data in the place of I_r. Of two sets of equal size that would be
    at least I_f / 2, so that a threshold of 10 would select nothing.

    retain: tasks whose weights are spared
    """

    retain: tuple[str, ...]
    threshold: float = 10.0
    dampening: float = 1.0

    def __post_init__(self) -> None:
        terms.check(self, positive=("threshold", "dampening"), needs_retain=True)
        super().__post_init__()

    def edit(self, lm: LM, context: Context) -> None:
        """Dampen the weights that are selected."""
        import torch

        terms.require_sets(self, context)
        to_forget, to_keep = (importance(lm, e) for e in (context.examples, context.retain))
        weights = lm.weights()
        for name, weight in weights.items():
            forget, keep = to_forget[name], to_keep[name]
            factor = (self.dampening * keep / forget).clamp_max(1)
            dampened = (weight.float() * factor).to(weight.dtype)
            selected = forget > self.threshold * keep
            weights[name] = torch.where(selected, dampened, weight)
        lm.set_weights(weights)


@dataclass(frozen=True)
class SelectivePruning(Method):
    """Remove the neurons that are most active on what is forgotten, next to what is retained.

    Selective pruning (Pochinkov and Schoots, arXiv 2403.01267). A neuron's score is the mean over
    tokens of its absolute activation on the examples to forget, over that on the retain set plus
    1e-5. Of all blocks' MLP neurons (inputs of the down-projection) the share with the highest
    scores is removed, and as large a share of the attention's (inputs of its output projection):
    their columns of weights are set to 0.

    retain: tasks whose neurons are spared
    share: of the neurons of either kind, 0 to 1, rounded down
    """

    retain: tuple[str, ...]
    share: float = 0.03

    def __post_init__(self) -> None:
        terms.check(self, needs_retain=True)
        expected = "a share of the neurons, above 0 and below 1"
        require_number("SelectivePruning.share", self.share, expected, lambda x: 0 < x < 1)
        super().__post_init__()

    def edit(self, lm: LM, context: Context) -> None:
        """Set the weights of the selected neurons to 0."""
        import torch
        from transformers.pytorch_utils import Conv1D

        terms.require_sets(self, context)
        of_kind = output_layers(lm)
        to_forget, to_keep = (activity(lm, e) for e in (context.examples, context.retain))
        weights = lm.weights()
        for layers in of_kind.values():
            scores = [to_forget[name] / (to_keep[name] + EPS) for name in layers]
            flat = torch.cat(scores)
            selected = torch.zeros(len(flat), dtype=torch.bool)
            selected[flat.topk(int(self.share * len(flat))).indices] = True
            pieces = selected.split([len(s) for s in scores])
            for (name, layer), removed in zip(layers.items(), pieces, strict=True):
                weight = weights[f"{name}.weight"]
                inputs_first = isinstance(layer, Conv1D)
                weight[removed if inputs_first else (slice(None), removed)] = 0
        lm.set_weights(weights)


def importance(lm: LM, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Measure each trainable weight's importance, fp32, on the CPU: the mean squared gradient.

    Of the negative log-likelihood a token of an example's true response, one example at a time.
    Where several processes share the model, each goes through all examples.
    """
    import torch

    from forgetlib.engine import parallel
    from forgetlib.models import forward

    found = {n: torch.zeros(p.shape, dtype=torch.float32) for n, p in lm.trainable.items()}
    for example in examples:
        sequence = forward.encode(lm, example, example.label)
        with torch.enable_grad():
            batch = forward.collate(lm, [[sequence]])
            nll = -forward.response_log_likelihoods(lm, batch).sum() / sequence.n_response
            nll.backward()
        for name, parameter in lm.trainable.items():
            if parameter.grad is not None:
                gradient = parallel.whole(parameter.grad).float().cpu()
                found[name] += gradient.square() / len(examples)
            parameter.grad = None
    return found


def output_layers(lm: LM) -> dict[str, dict[str, Any]]:
    """Find the layers that read a block's neurons, by kind, "attention" or "mlp", and by name.

    InputError where a block has not one of each, or where the model's tuning leaves them alone.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from forgetlib.models.lm import blocks

    found: dict[str, dict[str, Any]] = {kind: {} for kind in OUTPUTS}
    for name, module in lm.model.named_modules():
        part, _, own = name.rpartition(".")
        kind = "attention" if "att" in part.rpartition(".")[2] else "mlp"
        if isinstance(module, nn.Linear | Conv1D) and own in OUTPUTS[kind]:
            found[kind][name] = module
    n_blocks = len(blocks(lm))
    numbers = {kind: len(layers) for kind, layers in found.items()}
    names = [f"{name}.weight" for layers in found.values() for name in layers]
    if set(numbers.values()) != {n_blocks} or not set(names) <= set(lm.trainable):
        raise InputError(
            f"model {lm.name!r}",
            expected=f"for each of {n_blocks} blocks an output projection of its attention and one "
            f"of its MLP, called {OUTPUTS}, which the tuning may change",
            found=f"{numbers}, of which {len(set(names) & set(lm.trainable))} may be changed",
            do="Use tuning 'body', or a model of another architecture.",
        )
    return found


def activity(lm: LM, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Measure each neuron's mean absolute activation, fp32, over all tokens: (neurons,) by layer.

    Tokens of the prompt and of the true response, but for the last, which predicts nothing.
    """
    import torch

    from forgetlib.forgetting.loop import backward_tokens
    from forgetlib.models import forward
    from forgetlib.models.lm import causal_lm

    sequences = [forward.encode(lm, e, e.label) for e in examples]
    n_tokens = sum(len(s.tokens) - 1 for s in sequences)
    layers = {n: m for of_kind in output_layers(lm).values() for n, m in of_kind.items()}
    found: dict[str, Tensor] = {}
    places: list[tuple[int, int]] = []

    def add(name: str, inputs: tuple[Tensor, ...]) -> None:
        rows, columns = torch.tensor(places, device=lm.device).unbind(1)
        total = inputs[0][rows, columns].float().abs().sum(0).cpu() / n_tokens
        found[name] = found[name] + total if name in found else total

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs))
        for name, layer in layers.items()
    ]
    try:
        lengths = [[len(s.tokens) - 1] for s in sequences]
        # Passes as in training though none goes backward: of others, sums would round otherwise.
        for group, _ in forward.passes(lm, lengths, backward_tokens(lm), spread=False):
            batch = forward.collate(lm, [[sequences[i]] for i in group])
            places[:] = [(row, c) for row, columns in batch.packed.places for c in columns]
            forward.run_decoder(causal_lm(lm.model), batch.packed)
    finally:
        for handle in handles:
            handle.remove()
    return found
