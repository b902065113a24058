"""Score both choices of every example: the one narrow waist from model to numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from forgetlib import models, parallel
from forgetlib.schema import Example, InputError, Scores

# Tokens in one forward pass. It bounds memory and does not change the scores.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536, "mps": 8192}


def encode_all(lm: models.LM, examples: Sequence[Example]) -> list[list[models.TokenSequence]]:
    """Every choice of every example as tokens; InputError for what does not fit the model."""
    counts = sorted({len(e.choices) for e in examples})
    if len(counts) > 1:
        raise InputError(
            "examples",
            expected="as many choices for all examples",
            found=counts,
            do="Take examples with different numbers of choices apart.",
        )
    encoded = [[models.encode(lm, e, choice) for choice in range(len(e.choices))] for e in examples]
    for example, sequences in zip(examples, encoded, strict=True):
        if len(set(sequences)) < len(sequences):
            raise InputError(
                f"example {example.uid!r}",
                expected="choices that differ in their tokens",
                found=f"{example.choices}, which are equal to {lm.name}",
                do="It cannot tell them apart: drop the question, or use another model.",
            )
    return encoded


@parallel.inference()
def score(lm: models.LM, examples: Sequence[Example], token_budget: int | None = None) -> Scores:
    """Log-likelihood, in nats, of each choice given its prompt, summed over its tokens.

    Equal to the lm-evaluation-harness's `loglikelihood` on the same requests. Examples are
    sorted by length, the longest first, so that a batch has little padding and running out of
    memory happens at once.
    """
    if not examples:
        raise InputError("score", expected="examples", found="none", do="Pass at least one.")
    sequences = encode_all(lm, examples)
    lengths = [max(len(s.tokens) for s in pair) * len(pair) for pair in sequences]
    order = sorted(range(len(examples)), key=lambda i: (-lengths[i], examples[i].uid))
    n_choices = len(sequences[0])
    log_likelihoods = torch.zeros(len(examples), n_choices, device=lm.device)
    n_tokens = np.array([[s.n_response for s in pair] for pair in sequences], np.int32)
    budget = token_budget or TOKEN_BUDGET[lm.device.type]
    padded = models.pads(lm, lengths)

    def passes(places: Sequence[int]) -> list[list[int]]:
        of_process = [order[place] for place in places]
        return list(models.by_token_budget(lengths, of_process, budget, padded=padded))

    for group, counts in parallel.dealt(len(order), passes):
        batch = models.collate(lm, [sequences[i] for i in group])
        values = models.response_log_likelihoods(lm, batch)
        if counts:
            log_likelihoods[group] = values.view(len(group), n_choices)
    found = parallel.summed(log_likelihoods).cpu().numpy()
    labels = np.array([e.label for e in examples], np.int64)
    return Scores(tuple(e.uid for e in examples), found, n_tokens, labels)
