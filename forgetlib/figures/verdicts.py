"""Say in one word what became of a skill, with thresholds that were fixed before computing.

kept: more than half of what the model knew above chance is there, and is used
shifted: it is there (AUROC), but the answers no longer show it (accuracy): a bias moved them
forgotten: more than half of it is gone, whatever the bias
inverted: true responses are told from false ones the wrong way round
damaged: the skill is gone, and so is the prediction of text that has nothing to do with it
nothing to forget: the fine-tuned model was not shown to know it
not decided: these data leave more than one of these open

AUROC says what is known, blind to a bias of the answers; accuracy says what is used. Each is judged
by its 95 % interval over questions and seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forgetlib.figures.intervals import Interval

KEPT, SHIFTED, FORGOTTEN, INVERTED, DAMAGED = (
    "kept",
    "shifted",
    "forgotten",
    "inverted",
    "damaged",
)
NOTHING, NOT_DECIDED = "nothing to forget", "not decided"
VERDICTS = (KEPT, SHIFTED, FORGOTTEN, INVERTED, DAMAGED, NOTHING, NOT_DECIDED)

# "Mostly": the middle between all and nothing is the only share that favours neither side. The
# paper's claim, too, is about tasks that lose less than half (`claim_tests.HALF`).
SHARE = 0.5
# One nat: each token of an unrelated text is e times less likely, a change that a second training
# on true labels stays below (the study's control shows by how much).
DAMAGE = 1.0


@dataclass(frozen=True)
class Evidence:
    """Hold what a verdict is taken from, each with its interval.

    auroc: after forgetting
    auroc_left: AUROC above 0.5 less `SHARE` of that after fine-tuning: above 0, most is kept
    accuracy_left: the same of accuracy, above chance or the commonest answer's share
    damage: rise of nats a token of unrelated true responses since fine-tuning; None: not measured
    known: whether the fine-tuned model was shown to know the task at all
    """

    auroc: Interval
    auroc_left: Interval
    accuracy_left: Interval
    damage: Interval | None
    known: bool


def verdict(found: Evidence) -> str:
    """Say what became of a skill; `NOT_DECIDED` where the intervals leave several words open."""
    if not found.known:
        return NOTHING
    gone = _side(found.auroc_left)
    if gone == "below":
        if found.damage is not None and (side := _side(found.damage, DAMAGE)) != "below":
            return DAMAGED if side == "above" else NOT_DECIDED
        return INVERTED if _side(found.auroc, 0.5) == "below" else FORGOTTEN
    if gone == "above":
        used = _side(found.accuracy_left)
        return {"above": KEPT, "below": SHIFTED}.get(used, NOT_DECIDED)
    return NOT_DECIDED


def _side(interval: Interval, of: float = 0.0) -> str:
    """Tell on which side of a number the whole interval is; "" where on neither."""
    if np.isnan([interval.low, interval.high]).any():
        return ""
    return "above" if interval.low > of else "below" if interval.high < of else ""
