"""The output layer: from hidden states to the log-probabilities of tokens.

Shapes: R hidden states, D hidden size, V vocabulary.

Log-probabilities are never above 0, and in bf16 as near to fp32 as transformers' own. Under an
output layer that is not trained, and wherever no gradient is wanted, the logit of the token that is
asked for is computed in fp32 and stands for it in the normaliser too; a CPU without instructions
for bf16 computes all logits in fp32. Where the output layer is trained, or does more than multiply,
logits are rounded as the model rounds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from forgetlib.engine import kernels

# Logits that exist at a time, and the fewest columns of them. On a CPU they should stay in the
# cache, and products with few columns are slow: 1200 rows take 0.84 s in chunks of 2048 columns,
# 1.34 of 873. A GPU wants few large products: half a GiB of logits in fp32.
LOGITS_CHUNK = {"cpu": 2**20, "cuda": 2**27, "mps": 2**20}
FEWEST_COLUMNS = 2048
ROW_CHUNK = 32  # rows of full logits at a time, where these are needed
# What a model's configuration calls the cap c of its logits l, which become c tanh(l / c).
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")
# The largest logit, at least, of the input on which two ways to compute logits are compared, as a
# cap does little to small ones; and how far they may be apart as a share of the largest, by whether
# the model is in fp32.
LARGE_LOGIT = 1000.0
SAME_LOGITS = {True: 1e-4, False: 1e-2}
SAME_OWN_LOGITS = {True: 2e-5, False: 1e-2}


@dataclass(frozen=True)
class OutputLayer:
    """Say how a model's logits come from its decoder's last hidden states.

    layer: its weights (V, D) and bias (V,) or None
    softcap: the cap of the logits; 0 where there is none
    own: hidden states (R, D) -> logits (R, V) by the model's own code, where it does more than this
    """

    layer: Any
    softcap: float = 0.0
    own: Callable[[Tensor], Tensor] | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute the logits (R, V) of hidden states (R, D), rounded as the model rounds them."""
        if self.own is not None:
            return self.own(hidden).float()
        logits = kernels.linear(self.layer, hidden.to(self.layer.weight.dtype)).float()
        return torch.tanh(logits / self.softcap) * self.softcap if self.softcap else logits

    def log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Compute the log-probability (R,), fp32, of each target after its hidden state (R, D)."""
        frozen = not any(p.requires_grad for p in self.layer.parameters())
        if self.own is None and (frozen or not torch.is_grad_enabled()):
            weight, bias = self.layer.weight, self.layer.bias
            return _Chunked.apply(hidden.to(weight.dtype), weight, bias, self.softcap, targets)

        def of_rows(h: Tensor, t: Tensor) -> Tensor:
            return -F.cross_entropy(self.logits(h), t, reduction="none")

        # The output layer is trained too, so that its own gradient is needed, or nobody knows how
        # it computes. A chunk's logits are computed again in the backward pass rather than kept.
        pieces = zip(hidden.split(ROW_CHUNK), targets.split(ROW_CHUNK), strict=True)
        return torch.cat([checkpoint(of_rows, h, t, use_reentrant=False) for h, t in pieces])


class UnlikeLogits(ValueError):
    """A model's logits are not what its decoder's last hidden states give."""


@torch.inference_mode()
def find(model: Any, decoder: nn.Module, tokens: Tensor) -> OutputLayer:
    """Find how a causal language model computes its logits, by comparing with its own forward.

    Some architectures scale, cap, shift or transform. Those that do so in a way that is not known
    here are computed by their own code, which is slower. The comparison is of large logits, since
    what a cap does to small ones cannot be told from rounding.

    tokens: (1, T) of an ordinary text
    Raises UnlikeLogits where the model's forward cannot be parted into decoder and output layer, or
    gives numbers that are not finite.
    """
    whole = model(input_ids=tokens, use_cache=False).logits[0].float()
    if not whole.isfinite().all():
        raise UnlikeLogits("logits that are not finite")
    output = decoder(input_ids=tokens, use_cache=False)
    hidden = output.last_hidden_state[0]
    own = partial(_own_logits, model, decoder, output)
    layer = model.get_output_embeddings()
    exact = layer.weight.dtype == torch.float32
    # In another order, which tells whether the logits do come from these states.
    apart = _apart(own(hidden.flip(0)[1:]), whole.flip(0)[1:])
    if not apart <= SAME_LOGITS[exact]:
        raise UnlikeLogits(f"logits of its forward and of its output layer {apart:.2g} apart")
    config = model.config.get_text_config()
    softcap = next((c for key in SOFTCAPS if (c := getattr(config, key, None))), 0.0)
    simple = OutputLayer(layer, float(softcap))
    large = hidden * (LARGE_LOGIT / whole.abs().max().clamp_min(1e-6))
    try:
        # At their own size, of which a shift is a large part, and at one where a cap is felt.
        ours = simple.logits(torch.cat([hidden, large]))
        known = (
            _apart(ours[: len(hidden)], whole) <= SAME_OWN_LOGITS[exact]
            and _apart(ours[len(hidden) :], own(large)) <= SAME_LOGITS[exact]
        )
    except RuntimeError:  # of other sizes, as where there is a layer between
        known = False
    return simple if known else OutputLayer(layer, own=own)


def _apart(logits: Tensor, others: Tensor) -> float:
    """The largest difference, as a share of the largest logit."""
    if logits.shape != others.shape:
        return float("inf")
    return float((logits - others).abs().max() / others.abs().max().clamp_min(1e-6))


def _own_logits(model: Any, decoder: nn.Module, output: ModelOutput, hidden: Tensor) -> Tensor:
    """Compute logits (R, V) by the model's own forward, whose decoder gives these hidden states.

    output: what the decoder once gave; all but the last hidden states is told again
    """
    given = type(output)(**{**output, "last_hidden_state": hidden[None]})
    told = []

    def tell(*_: Any, **__: Any) -> ModelOutput:
        told.append(given)
        return given

    tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
    with _forward(decoder, tell):
        logits = model(input_ids=tokens, use_cache=False).logits[0]
    if not told:
        raise UnlikeLogits(f"a forward that does not call its {type(decoder).__name__}")
    return logits.float()


@contextmanager
def _forward(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute a function instead, for as long as this lasts."""
    before = vars(module).get("forward")
    module.forward = function
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


class _Chunked(torch.autograd.Function):
    """Log-probabilities under a frozen output layer W, and their gradient, in one pass over W.

    log p(target) = l[target] - logsumexp(l) with l = W h, and its gradient for h is one vector,
    W[target] - softmax(l) W. That is attention of the query h over keys and values W, so it is
    computed as flash attention does: a chunk of the vocabulary at a time, with a running maximum,
    normaliser and weighted sum. W is read once, and no (R, V) tensor ever exists. On 2 CPU cores
    256 rows of Gemma's vocabulary take 0.20 s; row by row chunks of full logits took 0.55 s.

    The target is left out of its chunk and joins the sums at the end, with its logit in fp32: were
    it rounded to bf16 in one place and not in the other, a sure answer's log-probability would be
    off by as much, and could be above 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        softcap: float,
        targets: Tensor,
    ) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        peak = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
        norm = torch.zeros_like(peak)
        mean = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        n_columns = max(FEWEST_COLUMNS, LOGITS_CHUNK[hidden.device.type] // len(hidden))
        plain = not softcap and bias is None
        in_kernel = plain and kernels.usable(hidden, weight) and kernels.library()
        widen = kernels.usable(hidden, weight) and kernels.widens()
        h = hidden.float() if widen else hidden
        for start in range(0, len(weight), n_columns):
            w = weight[start : start + n_columns]
            w = w.float() if widen else w
            if in_kernel:
                logits = kernels.product(h, w.t())
                _leave_out(logits, targets - start)
                shrink = kernels.softmax_chunk(logits, peak, norm)
                if needs_gradient:
                    mean = mean.mul_(shrink).add_(kernels.product(logits, w))
                continue
            b = None if bias is None else bias[start : start + n_columns].to(w.dtype)
            logits = F.linear(h, w, b).float()
            if softcap:
                logits = torch.tanh(logits.div_(softcap)).mul_(softcap)
            slope = 1 - (logits / softcap) ** 2 if softcap and needs_gradient else None
            _leave_out(logits, targets - start)
            new_peak = torch.maximum(peak, logits.amax(1, keepdim=True))
            shrink = (peak - new_peak).exp()
            p = logits.sub_(new_peak).exp_()  # (R, chunk)
            norm = norm * shrink + p.sum(1, keepdim=True)
            if needs_gradient:
                p = p if slope is None else p.mul_(slope)
                mean = mean.mul_(shrink).add_(p.to(w.dtype) @ w)
            peak = new_peak
        towards = weight[targets].float()  # (R, D)
        at_target = (hidden.float() * towards).sum(1, keepdim=True)
        if bias is not None:
            at_target = at_target + bias[targets, None].float()
        if softcap:
            at_target = torch.tanh(at_target / softcap) * softcap
            towards = towards * (1 - (at_target / softcap) ** 2)
        new_peak = torch.maximum(peak, at_target)
        shrink, p = (peak - new_peak).exp(), (at_target - new_peak).exp()  # (R, 1)
        norm = norm * shrink + p
        if needs_gradient:
            mean = mean.mul_(shrink).addcmul_(p, towards)
            ctx.save_for_backward((towards - mean / norm).to(hidden.dtype))
        return (at_target - new_peak - norm.log()).squeeze(1).clamp_max_(0)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0][:, None].to(gradient.dtype), None, None, None, None


def _leave_out(logits: Tensor, columns: Tensor) -> None:
    """Give each row's (R, chunk) logit in a column, where that is in the chunk, no weight."""
    within = (columns >= 0) & (columns < logits.shape[1])
    at = columns.clamp(0, logits.shape[1] - 1)[:, None]
    kept = logits.gather(1, at)
    logits.scatter_(1, at, kept.masked_fill(within[:, None], -torch.inf))
