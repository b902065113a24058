"""Score both choices of every example: the one narrow waist from model to numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from forgetlib import models
from forgetlib.schema import Example, InputError, Scores

# Tokens in one forward pass. It bounds memory and does not change the scores.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536, "mps": 8192}


def encode_all(lm: models.LM, examples: Sequence[Example]) -> list[list[models.TokenSequence]]:
    """Every choice of every example as tokens; InputError for what does not fit the model."""
    return [[models.encode(lm, e, choice) for choice in range(len(e.choices))] for e in examples]


@torch.inference_mode()
def score(lm: models.LM, examples: Sequence[Example], token_budget: int | None = None) -> Scores:
    """Log-likelihood, in nats, of each choice given its prompt, summed over its tokens.

    Equal to the lm-evaluation-harness's `loglikelihood` on the same requests. Examples are
    sorted by length, the longest first, so that a batch has little padding and running out of
    memory happens at once.
    """
    if not examples:
        raise InputError("score", expected="examples", found="none", do="Pass at least one.")
    counts = sorted({len(e.choices) for e in examples})
    if len(counts) > 1:
        raise InputError(
            "score",
            expected="as many choices for all examples",
            found=counts,
            do="Score examples with different numbers of choices apart.",
        )
    sequences = encode_all(lm, examples)
    lengths = [max(len(s.tokens) for s in pair) * len(pair) for pair in sequences]
    order = sorted(range(len(examples)), key=lambda i: (-lengths[i], examples[i].uid))
    (n_choices,) = counts
    log_likelihoods = np.empty((len(examples), n_choices), np.float32)
    n_tokens = np.array([[s.n_response for s in pair] for pair in sequences], np.int32)
    budget = token_budget or TOKEN_BUDGET[lm.device.type]
    padded = models.pads(lm, lengths)
    for group in models.by_token_budget(lengths, order, budget, padded=padded):
        batch = models.collate(lm, [sequences[i] for i in group])
        values = models.response_log_likelihoods(lm, batch)
        log_likelihoods[group] = values.view(len(group), n_choices).cpu().numpy()
    labels = np.array([e.label for e in examples], np.int64)
    return Scores(tuple(e.uid for e in examples), log_likelihoods, n_tokens, labels)
