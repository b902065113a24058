"""Ask a model for any readout: the package's own, or one that measures itself."""

from __future__ import annotations

from collections.abc import Callable

from forgetlib.measuring import lens, probing, scoring
from forgetlib.measuring.base import (
    Asked,
    HiddenVariance,
    LogitLens,
    Probe,
    PromptNats,
    Readout,
    Scores,
    readout,
)

OWN: dict[str, Callable[[Asked], Readout]] = {
    Scores.name: lambda asked: scoring.score(asked.lm, asked.questions()),
    Probe.name: probing.probe,
    HiddenVariance.name: probing.hidden_variance,
    LogitLens.name: lens.logit_lens,
    PromptNats.name: scoring.prompt_nats,
}


def measure(asked: Asked) -> Readout:
    """Measure what is asked; what is taken in training, the runner has from there."""
    name = asked.measurement.readout
    return OWN[name](asked) if name in OWN else readout(name).measure(asked)
