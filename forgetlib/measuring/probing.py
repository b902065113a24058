"""What a model's hidden states still hold: their variance, and linear probes (paper, Fig. 4 and 6).

Shapes: N examples, C choices, P probed layers, D hidden size, M rows (a row is a question with one
of its answers).

Layer 0 is the token embeddings and layer l the output of block l, as in transformers'
`hidden_states`; the last one has passed the final normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from forgetlib.data.base import Example, hash_uniform
from forgetlib.engine import parallel
from forgetlib.errors import InputError
from forgetlib.measuring import scoring
from forgetlib.measuring.base import Asked, HiddenVariance, Probe, paper_layer
from forgetlib.models import forward
from forgetlib.models.lm import LM

L2 = 1e-2  # weight of half the squared norm, beside the mean loss of a row
LEARNING_RATE = 1e-3
MAX_STEPS = 1000
PATIENCE = 50  # steps without a lower held-out loss at any layer before stopping
N_CONTROLS = 20
HELD_OUT = 0.2  # of the training questions, for early stopping


@dataclass(frozen=True)
class HiddenStates:
    """Hold hidden states at every layer, in the model's dtype, on the CPU.

    question: (N, P, D) at the question's last token; where prompts differ (partial scoring), of
        the first one
    answer: (N, C, P, D) at the last token of the question with each answer
    """

    question: Tensor
    answer: Tensor


@parallel.inference()
def hidden_states(
    lm: LM, examples: Sequence[Example], token_budget: int | None = None
) -> HiddenStates:
    """Take the hidden states of every question, alone and with each of its answers."""
    if not examples:
        raise InputError("hidden_states", expected="examples", found="none", do="Pass some.")
    families = scoring.encode_all(lm, examples)
    sequences = [s for family in families for s in family]
    budget = token_budget or scoring.STATES_BUDGET[lm.device.type]
    units = forward.units(lm, [[s.tokens for s in family] for family in families], budget)
    lengths = [[len(sequences[i].tokens) for i in unit.sequences] for unit in units]
    sizes = [unit.size for unit in units]
    ends: list[Tensor] = [torch.empty(0)] * len(sequences)  # (P, 2, D): question's end, answer's
    for group, _ in forward.passes(lm, lengths, budget, sizes=sizes, spread=False):
        members = [units[unit].sequences for unit in group]
        numbers = [i for of_unit in members for i in of_unit]
        packed = forward.pack(lm, [[sequences[i].tokens for i in own] for own in members])
        asked = [
            (row, columns[place])
            for i, (row, columns) in zip(numbers, packed.places, strict=True)
            for place in (-sequences[i].n_response - 1, -1)
        ]
        states = forward.layer_outputs(lm, packed, asked).cpu()
        for i, of_sequence in zip(numbers, states.split(2, dim=1), strict=True):
            ends[i] = of_sequence
    found = torch.stack(ends).unflatten(0, (len(families), -1))  # (N, C, P, 2, D)
    for example, of_example in zip(examples, found, strict=True):
        if not of_example.isfinite().all():
            raise InputError(
                f"hidden states of {example.uid!r}",
                expected="finite numbers",
                found="not-a-number or infinity",
                do=f"The model {lm.name} is broken: check its weights and dtype.",
            )
    return HiddenStates(found[:, 0, :, 0].clone(), found[..., 1, :].clone())


def deviation(states: Tensor) -> np.ndarray:
    """Measure the squared distance of each hidden state (N, D) from their mean: (N,).

    Their sum over N - 1 is the trace of the covariance matrix, the paper's hidden-state variance.
    """
    centred = states.float() - states.float().mean(0)
    return (centred**2).sum(1).numpy()


@dataclass(frozen=True)
class LinearProbe:
    """Hold logistic regressions on standardised hidden states: P layers, K targets each.

    mean, scale: (P, 1, D) of the training rows
    weight, bias: (P, D, K), (P, 1, K)
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Compute (P, M, K) logits of features (P, M, D); positive: the answer is judged right."""
        standardised = (features.float() - self.mean) / self.scale
        return torch.baddbmm(self.bias, standardised, self.weight)


def fit(
    features: Tensor,
    targets: Tensor,
    held_out: Tensor | None = None,
    *,
    l2: float = L2,
    learning_rate: float = LEARNING_RATE,
    max_steps: int = MAX_STEPS,
) -> LinearProbe:
    """Fit L2-regularised logistic regressions by full-batch Adam, with early stopping.

    All layers and targets are fitted at once, each with an early stop of its own: the weights with
    the lowest loss on the held-out rows are kept. The minimum without early stopping is
    scikit-learn's LogisticRegression with C = 1 / (l2 * M).

    features: (P, M, D); targets: (M, K) in {0, 1}
    held_out: (M,) bool; None: no early stopping, all rows are fitted
    """
    device = features.device
    n_layers, n_rows, width = features.shape
    n_targets = targets.shape[1]
    fitted = torch.ones(n_rows, dtype=torch.bool, device=device) if held_out is None else ~held_out
    # Statistics of the fitted rows only. A constant column carries nothing and stays zero.
    mean = features[:, fitted].float().mean(1, keepdim=True)
    scale = features[:, fitted].float().std(1, keepdim=True).clamp_min(1e-6)
    x = (features.float() - mean) / scale
    y = targets.float().expand(n_layers, -1, -1)
    weight = torch.zeros(n_layers, width, n_targets, device=device, requires_grad=True)
    bias = torch.zeros(n_layers, 1, n_targets, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=learning_rate)
    lowest = torch.full((n_layers, 1, n_targets), torch.inf, device=device)
    best = LinearProbe(mean, scale, weight.detach().clone(), bias.detach().clone())
    last_improved = 0
    for step in range(max_steps):
        z = torch.baddbmm(bias, x, weight)
        losses = F.binary_cross_entropy_with_logits(z, y, reduction="none")  # (P, M, K)
        if held_out is not None:
            judged = losses.detach()[:, held_out].mean(1, keepdim=True)
            better = judged < lowest
            lowest = torch.where(better, judged, lowest)
            best.weight.copy_(torch.where(better, weight.detach(), best.weight))
            best.bias.copy_(torch.where(better, bias.detach(), best.bias))
            last_improved = step if better.any() else last_improved
            if step - last_improved >= PATIENCE:
                break
        penalty = l2 / 2 * (weight**2).sum(1)  # (P, K)
        optimizer.zero_grad()
        # The fits share no parameter, so that minimising the sum minimises each.
        (losses[:, fitted].mean(1) + penalty).sum().backward()
        optimizer.step()
    if held_out is None:
        return LinearProbe(mean, scale, weight.detach(), bias.detach())
    return best


def probe(asked: Asked) -> Probe:
    """Fit probes on the training questions and judge the test questions, at every layer.

    A row is a question with one of its answers; its target is whether the answer is right. The
    controls are fitted to the same rows, with one answer of each question, drawn at random, called
    right. A drawn set of labels agrees or disagrees with the truth by accident, so that there are
    N_CONTROLS of them: their spread is what a probe can find where there is nothing.
    """
    lm, seed = asked.lm, asked.measurement.seed
    train, test = asked.load("train", asked.measurement.fit_on), asked.questions()
    fitted, judged = _remembered(asked, train), _remembered(asked, test)
    n_choices = fitted.answer.shape[1]
    called_right = [np.array([e.label for e in train])]
    for draw in range(N_CONTROLS):
        drawn = np.array([hash_uniform(f"probe-control-{draw}", seed, e.uid) for e in train])
        called_right.append((drawn * n_choices).astype(np.int64))
    choices = np.arange(n_choices)
    targets = np.stack([(c[:, None] == choices).reshape(-1) for c in called_right], axis=1)
    apart = np.array([hash_uniform("probe-held-out", seed, e.uid) < HELD_OUT for e in train])
    # Whole questions are held out. Of a handful, all or none may be: then all are fitted.
    held_out = None if apart.all() or not apart.any() else apart.repeat(n_choices)
    linear = fit(
        _by_layer(fitted.answer).to(lm.device),
        torch.tensor(targets, device=lm.device),
        None if held_out is None else torch.tensor(held_out, device=lm.device),
    )
    verdicts = (linear.logits(_by_layer(judged.answer).to(lm.device)) > 0).cpu()  # (P, M, 1 + K)
    is_right = torch.tensor([[e.label == c for c in choices] for e in test])  # (N, C)
    correct = (verdicts == is_right.reshape(-1, 1)).numpy()  # (P, M, 1 + K)
    n_layers = fitted.question.shape[1] - 1
    return Probe(
        layers=np.arange(n_layers + 1, dtype=np.int16),
        correct=correct[..., 0].reshape(n_layers + 1, *is_right.shape),
        control=correct[..., 1:].mean(1).T.astype(np.float32),
    )


def hidden_variance(asked: Asked) -> HiddenVariance:
    """Measure how far questions' hidden states at the paper's layer are from their mean."""
    states = _remembered(asked, asked.questions())
    layer = paper_layer(states.question.shape[1] - 1)
    return HiddenVariance(layer, deviation(states.question[:, layer]))


def _remembered(asked: Asked, examples: list[Example]) -> HiddenStates:
    """Return the hidden states of these questions, computed once in a job."""
    key = "hidden_states", tuple(e.uid for e in examples), asked.measurement.view
    if key not in asked.memo:
        asked.memo[key] = hidden_states(asked.lm, examples)
    return asked.memo[key]


def _by_layer(answers: Tensor) -> Tensor:
    """(P, M, D) rows from (N, C, P, D)."""
    return answers.flatten(0, 1).transpose(0, 1).contiguous()
