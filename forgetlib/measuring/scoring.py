"""Score both choices of every example: the one narrow waist from model to numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from forgetlib.data.base import Example
from forgetlib.engine import parallel
from forgetlib.errors import InputError, UnusableNumbers, require_distinct_uids
from forgetlib.measuring.base import ROUNDING, Asked, PromptNats, Scores
from forgetlib.models import forward
from forgetlib.models.lm import LM

# Tokens in one forward pass. It bounds memory and does not change the scores.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536, "mps": 8192}
# And in one of which every layer's states are kept: 7 billion weights have 33 of 4096 numbers.
STATES_BUDGET = {"cpu": 2048, "cuda": 16384, "mps": 8192}


def encode_all(lm: LM, examples: Sequence[Example]) -> list[list[forward.TokenSequence]]:
    """Encode every choice of every example as tokens.

    Raises InputError for what does not fit the model, and for examples that are there twice.
    """
    require_distinct_uids("examples", [e.uid for e in examples])
    counts = sorted({len(e.choices) for e in examples})
    if len(counts) > 1:
        raise InputError(
            "examples",
            expected="as many choices for all examples",
            found=counts,
            do="Take examples with different numbers of choices apart.",
        )
    encoded = [
        [forward.encode(lm, e, choice) for choice in range(len(e.choices))] for e in examples
    ]
    for example, sequences in zip(examples, encoded, strict=True):
        if len(set(sequences)) < len(sequences):
            raise InputError(
                f"example {example.uid!r}",
                expected="choices that differ in their tokens",
                found=f"{example.choices}, which are equal to {lm.name}",
                do="It cannot tell them apart: drop the question, or use another model.",
            )
    return encoded


def of_choices(
    lm: LM,
    examples: Sequence[Example],
    compute: Callable[[forward.Batch], Tensor],
    token_budget: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute K numbers of each choice of every example, (K, N, C), and its tokens, (N, C).

    compute: (K, n_sequences) of the sequences of a pass
    token_budget: tokens of a forward pass; it bounds memory and does not change the numbers
    """
    # By uid, so that the batches do not depend on the order of the examples.
    order = sorted(range(len(examples)), key=lambda i: examples[i].uid)
    families = encode_all(lm, [examples[i] for i in order])
    sequences = [s for family in families for s in family]
    budget = token_budget or TOKEN_BUDGET[lm.device.type]
    units = forward.units(lm, [[s.tokens[:-1] for s in family] for family in families], budget)
    lengths = [[len(sequences[i].tokens) - 1 for i in unit.sequences] for unit in units]
    sizes = [unit.size for unit in units]
    numbers: Tensor | None = None
    for group, counts in forward.passes(lm, lengths, budget, sizes=sizes):
        members = [units[unit].sequences for unit in group]
        batch = forward.collate(lm, [[sequences[i] for i in of_unit] for of_unit in members])
        values = compute(batch)
        if numbers is None:
            numbers = torch.zeros(len(values), len(sequences), device=lm.device)
        if counts:
            numbers[:, [i for of_unit in members for i in of_unit]] = values
    assert numbers is not None  # every process has a pass
    shape = len(examples), len(families[0])
    found = np.empty((len(numbers), *shape), np.float32)
    found[:, order] = parallel.summed(numbers).cpu().numpy().reshape(found.shape)
    n_tokens = np.empty(shape, np.int32)
    n_tokens[order] = [[s.n_response for s in family] for family in families]
    return found, n_tokens


@parallel.inference()
def score(lm: LM, examples: Sequence[Example], token_budget: int | None = None) -> Scores:
    """Compute the log-likelihood, in nats, of each choice given its prompt, summed over its tokens.

    Equal to the lm-evaluation-harness's `loglikelihood` on the same requests.

    token_budget: tokens of a forward pass; it bounds memory and does not change the scores
    """
    if not examples:
        raise InputError("score", expected="examples", found="none", do="Pass at least one.")

    def compute(batch: forward.Batch) -> Tensor:
        return forward.response_log_likelihoods(lm, batch)[None]

    (found,), n_tokens = of_choices(lm, examples, compute, token_budget)
    if (worst := found.max()) > ROUNDING:  # not-a-number is told by Scores
        uid = examples[int(found.max(1).argmax())].uid
        raise UnusableNumbers(
            f"log-likelihoods by {lm.name!r}",
            expected="at most 0",
            found=f"{worst:.3g} for {uid!r}",
            do="This is an error of forgetlib or of the model's output layer: report it.",
        )
    labels = np.array([e.label for e in examples], np.int64)
    return Scores(tuple(e.uid for e in examples), found, n_tokens, labels)


def nats_a_token(lm: LM, texts: Sequence[str]) -> np.ndarray:
    """Compute (N,) nats a token of texts after their first word: how unusual they are to a model.

    It is how far a prompt lies from what the model was trained on (arXiv 2309.10105, section 3).
    Raises InputError for no text, for one of a single word, and for what does not fit the model.
    """
    parts = [text.split(maxsplit=1) for text in texts]
    short = [text for text, part in zip(texts, parts, strict=True) if len(part) < 2]
    if short or not parts:
        raise InputError(
            "texts to measure",
            expected="at least one, and two words or more in each",
            found=repr(short[0]) if short else "none",
            do="A likelihood needs something to condition on: pass whole prompts.",
        )
    examples = []
    for i, (head, rest) in enumerate(parts):
        words = rest.split()
        other = words[0] if len(words) > 1 else f"{rest} {rest}"  # scored with it, and not used
        examples.append(Example(f"texts/test/{i}", (head, head), (rest.rstrip(), other), 0))
    scores = score(lm, examples)
    return -scores.log_likelihoods[:, 0].astype(np.float64) / scores.n_tokens[:, 0]


def prompt_nats(asked: Asked) -> PromptNats:
    """Measure how unusual questions are as they are shown; of several prompts, the true answer's.

    Raises InputError where a prompt is of a single word.
    """
    texts = [e.prompts[e.label] for e in asked.questions()]
    return PromptNats(nats_a_token(asked.lm, texts).astype(np.float32))
