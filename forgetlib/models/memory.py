"""What training needs of a device's memory, and how long its passes can be.

Shapes: T tokens of a pass, L layers, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

# Tokens whose activations are held for one backward pass, at most; gradients add up over passes, so
# that it bounds memory and does not change what is learned.
BACKWARD_TOKENS = {"cpu": 2048, "cuda": 32768, "mps": 4096}
# But on a GPU, whose memory says it: parameters of a model of which activations are computed again.
RECOMPUTED_SIZE = 10**9
# Vectors that the backward pass needs of each token and layer (Llama 23, GPT-2 28, Gemma 43), and
# those where they are computed again; and of the embeddings and the output layer together.
KEPT, INPUTS, ENDS = 44, 2, 24
# Tokens of a pass that occupy a GPU: rather than have fewer, activations are computed again.
# And the fewest that are tried.
OCCUPYING, FEWEST = 4096, 1024
USED = 0.8  # share of the free memory that is planned with, as the allocator leaves gaps


@dataclass(frozen=True)
class Passes:
    """Say how long backward passes are, and whether activations are computed again.

    tokens: the most of a pass, but for a longer example, which is a pass of its own
    """

    tokens: int
    recompute: bool


def passes(
    device: str,
    n_parameters: int,
    n_layers: int,
    hidden: int,
    wide: int,
    *,
    room: float | None = None,
    recompute: bool | None = None,
) -> Passes:
    """Choose backward passes, on a GPU the longest that its memory has room for.

    Activations are kept where passes that occupy the GPU fit so; elsewhere, where the model is not
    a large one (RECOMPUTED_SIZE).

    device: its type, as torch names it
    wide: bytes of an activation
    room: bytes that are free for activations on a GPU; None: it is none, or nobody knows
    recompute: None: chosen here
    """
    most = BACKWARD_TOKENS[device]
    if room is None:
        return Passes(most, n_parameters > RECOMPUTED_SIZE if recompute is None else recompute)
    tried = [(False, OCCUPYING), (True, FEWEST)] if recompute is None else [(recompute, FEWEST)]
    for again, least in tried:
        tokens = most
        while tokens >= least:
            if activations(tokens, n_layers, hidden, wide, again) <= USED * room:
                return Passes(tokens, again)
            tokens //= 2
    return Passes(FEWEST, tried[-1][0])


def activations(n_tokens: float, n_layers: int, hidden: int, wide: int, recompute: bool) -> float:
    """Estimate the bytes that are held of so many tokens for the backward pass."""
    kept = INPUTS if recompute else KEPT
    return n_tokens * hidden * wide * (kept * n_layers + ENDS)


def left(free: float, n_trained: int, wide: int) -> float:
    """Tell how many bytes training's state leaves of those that are free: AdamW's.

    Adafactor's where there is no room for that: another optimiser could not train this model here.
    """
    rooms = (free - training_state(n_trained, wide, o) for o in ("adamw", "adafactor"))
    return next((room for room in rooms if room > 0), 0.0)


def training_state(n_trained: int, wide: int, optimizer: str = "adamw") -> int:
    """Count the bytes beside weights of `wide` bytes: gradient, fp32 master, optimiser's moments.

    Adafactor keeps a row and a column of these for each matrix, which are not counted.
    """
    return n_trained * (wide + 4 + (0 if optimizer == "adafactor" else 8))
