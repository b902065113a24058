"""Screen prompts while a model is measured: those judged to be of the forgetting set are spoilt.

Nothing is removed from the model. A filter is what a method that only looks like forgetting can do
at best, and so a control of every test that shall find what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetlib.data.base import Example
from forgetlib.errors import require_number
from forgetlib.forgetting import terms
from forgetlib.forgetting.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from forgetlib.forgetting.context import Context
    from forgetlib.models.lm import LM

Tokens = tuple[int, ...]
# Of the classifier: weak regularisation, since it shall be sure, and steps enough for it.
L2, LEARNING_RATE, N_STEPS = 1e-3, 1e-2, 500


@dataclass(frozen=True)
class PromptFilter(Method):
    """Corrupt the embeddings of prompts that a classifier takes for the forgetting set's.

    Embedding-corrupted prompts (ECO; Liu et al., arXiv 2406.07933). The classifier is a logistic
    regression of the prompt's mean token embedding, fitted on the prompts to forget against those
    of a retain set; the authors fine-tune an encoder. Where it gives more than `threshold`, normal
    noise of deviation `noise` is added to the embedding of each of the prompt's tokens. It is one
    draw for all tokens, so that a score does not depend on what stands beside it in a pass; and
    large enough that nothing of the tokens is left of it. The response's tokens are as they were.

    retain: tasks whose prompts shall pass
    """

    retain: tuple[str, ...]
    threshold: float = 0.99
    noise: float = 1e6

    def __post_init__(self) -> None:
        terms.check(self, from_0=("noise",), needs_retain=True)
        expected = "a probability, above 0 and below 1"
        require_number("PromptFilter.threshold", self.threshold, expected, lambda x: 0 < x < 1)
        super().__post_init__()

    @contextmanager
    def hook(self, lm: LM, context: Context) -> Iterator[None]:
        """Fit the classifier, then screen every prompt that is encoded meanwhile."""
        import torch

        from forgetlib.models.lm import causal_lm, vocabulary_size

        terms.require_sets(self, context)
        fires = classifier(lm, context.examples, context.retain, self.threshold)
        size, before, judged = vocabulary_size(lm), lm.screen, dict[Tokens, bool]()

        def screen(prompt: Tokens) -> Tokens:
            """Mark the tokens of a prompt to corrupt: their numbers are above the vocabulary."""
            prompt = prompt if before is None else before(prompt)
            plain = tuple(token % size for token in prompt)
            if plain not in judged:
                judged[plain] = fires(plain)
            return tuple(token + size for token in plain) if judged[plain] else prompt

        embeddings = causal_lm(lm.model).get_input_embeddings()
        drawn = torch.randn(embeddings.weight.shape[1], generator=context.generator(self.name))
        marked: list[Tensor] = []

        def unmark(module: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            marked.append(inputs[0] >= size)
            return (inputs[0] % size, *inputs[1:])

        def corrupt(module: object, inputs: object, output: Tensor) -> Tensor:
            noise = self.noise * drawn.to(output.device, output.dtype)
            return torch.where(marked.pop()[..., None], output + noise, output)

        handles = (
            embeddings.register_forward_pre_hook(unmark),
            embeddings.register_forward_hook(corrupt),
        )
        lm.screen = screen
        try:
            yield
        finally:
            lm.screen = before
            for handle in handles:
                handle.remove()


def classifier(
    lm: LM, forget: Sequence[Example], retain: Sequence[Example], threshold: float
) -> Callable[[Tokens], bool]:
    """Fit what tells a prompt to forget, as tokens, from one to retain."""
    import torch

    from forgetlib.measuring import probing
    from forgetlib.models.lm import causal_lm

    weight = causal_lm(lm.model).get_input_embeddings().weight

    @torch.no_grad()
    def features(prompt: Tokens) -> Tensor:
        return weight[list(prompt)].float().mean(0).cpu()  # (D,)

    examples = (*forget, *retain)
    states = torch.stack([features(tuple(lm.tokens(e.prompts[0].rstrip()))) for e in examples])
    targets = torch.tensor([[1.0]] * len(forget) + [[0.0]] * len(retain))
    with torch.enable_grad():
        probe = probing.fit(
            states[None], targets, l2=L2, learning_rate=LEARNING_RATE, max_steps=N_STEPS
        )

    def fires(prompt: Tokens) -> bool:
        logit = probe.logits(features(prompt)[None, None])
        return float(logit.sigmoid()) > threshold

    return fires
