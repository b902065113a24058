"""Say in one word what became of a skill, with thresholds that are the same for every study.

kept: more than half of what the model knew above chance is there, and is used
shifted: it is there (AUROC), but the answers no longer show it (accuracy): a bias moved them
forgotten: more than half of it is gone, whatever the bias, and by the estimate not more than half
    is turned round
inverted: more than half of it is turned round: AUROC is as far below 0.5 as it would be above
    where that much were kept
damaged: it is not shown to be there, and text that has nothing to do with it is predicted worse;
    or the same training on another task takes as much of it
Where it was tried to bring the skill back (`rungs`), shifted and forgotten are told apart further:

gated: most of it is gone when asked directly; in another form, with examples in the prompt, or
    with rounded weights, most of it is there
suppressed: a few labels bring back more than they teach models that never knew it, also the one
    that the same method was tried on
removed: nothing brings it back beyond what these gain

nothing to forget: the fine-tuned model was not shown to know it
not decided: these data leave more than one of these open

AUROC says what is known, blind to a bias of the answers; accuracy says what is used. Each is judged
by its 95 % interval over questions and seeds.

Post hoc: at first any AUROC below 0.5 was called inverted, and all else that was lost forgotten.
That was changed after results were seen, as it gave the two sides unequal margins: half of a skill
may be lost before it is called forgotten, while a model that knows nothing, too, may end a little
below 0.5. Where there are never-taught models (`Remains`), these tell how far below 0.5 a model
ends that knows nothing, as from the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forgetlib.figures.intervals import Interval
from forgetlib.metrics import CHANCE, Numbers

KEPT, SHIFTED, FORGOTTEN, INVERTED, DAMAGED = (
    "kept",
    "shifted",
    "forgotten",
    "inverted",
    "damaged",
)
GATED, SUPPRESSED, REMOVED = "gated", "suppressed", "removed"
NOTHING, NOT_DECIDED = "nothing to forget", "not decided"
VERDICTS = (KEPT, SHIFTED, FORGOTTEN, INVERTED, DAMAGED, NOTHING, NOT_DECIDED)  # of `verdict`
MEANINGS = {  # of these and of a ladder's, for people who have not read the above
    FORGOTTEN: "more than half of the skill is gone",
    REMOVED: "nothing that was tried brings half of the skill back beyond what never-taught models "
    "gain",
    SUPPRESSED: "a few labels bring back more than they teach a model that never knew the skill",
    GATED: "most of the skill comes back in another form of the question, with examples in the "
    "prompt, or with rounded weights",
    INVERTED: "true responses are told from false ones the wrong way round",
    DAMAGED: "the skill is gone, and so is more than the skill",
    SHIFTED: "more than half of the skill is there, but a bias of the answers hides it",
    KEPT: "more than half of the skill is there, and is used",
    NOT_DECIDED: "these data leave more than one of these open",
    NOTHING: "the model before forgetting was not shown to know the skill: there is nothing to "
    "test",
}

# "Mostly": the middle between all and nothing is the only share that favours neither side. The
# paper, too, calls it a failure to generalise where less than half is lost.
HALF = 0.5
# One nat: each token of an unrelated text is e times less likely. A second training on true labels
# mostly changes less (the study's control shows by how much).
DAMAGE = 1.0


@dataclass(frozen=True)
class Evidence:
    """Hold what a verdict is taken from, each with its interval.

    auroc_left, auroc_turned: `most_left` and `most_turned` of AUROC before and after
    accuracy_left: the same of accuracy, above chance or the commonest answer's share
    damage: rise of nats a token of unrelated true responses since fine-tuning; None: not measured
    known: whether the fine-tuned model was shown to know the task at all
    """

    auroc_left: Interval
    auroc_turned: Interval
    accuracy_left: Interval
    damage: Interval | None
    known: bool


def verdict(found: Evidence) -> str:
    """Say what became of a skill; `NOT_DECIDED` where the intervals leave several words open."""
    if not found.known:
        return NOTHING
    became = of_auroc(found.auroc_left, found.auroc_turned)
    if became == KEPT:
        used = _side(found.accuracy_left)
        return {"above": KEPT, "below": SHIFTED}.get(used, NOT_DECIDED)
    gone = _side(found.auroc_left) == "below"
    if gone and found.damage is not None and (side := _side(found.damage, DAMAGE)) != "below":
        return DAMAGED if side == "above" else NOT_DECIDED
    return became


def most_left(before: Numbers, after: Numbers, chance: Numbers = CHANCE) -> Numbers:
    """Compare what is above chance after forgetting with what may be lost: above 0, most is left.

    before, after: AUROC or accuracy of the known and of the forgotten model
    """
    return after - chance - (1 - HALF) * (before - chance)


def most_turned(before: Numbers, after: Numbers) -> Numbers:
    """Compare AUROC below 0.5 after forgetting with half of that above it before.

    Above 0, more than `HALF` of what was known is turned round.
    """
    return CHANCE - after - HALF * (before - CHANCE)


def of_auroc(auroc_left: Interval, auroc_turned: Interval) -> str:
    """Say what AUROC alone tells of a skill: kept, forgotten, inverted, or not decided.

    auroc_left, auroc_turned: `most_left` and `most_turned` of AUROC. Forgotten is what is shown to
    be lost, and by the estimate not turned round. That it is turned round need not be excluded, as
    asked directly it is lost then, too.
    """
    side = _side(auroc_left)
    if side != "below":
        return KEPT if side == "above" else NOT_DECIDED
    if _side(auroc_turned) == "above":
        return INVERTED
    return FORGOTTEN if auroc_turned.value < 0 else NOT_DECIDED


def _side(interval: Interval, of: float = 0.0) -> str:
    """Tell on which side of a number the whole interval is; "" where on neither."""
    if np.isnan([interval.low, interval.high]).any():
        return ""
    return "above" if interval.low > of else "below" if interval.high < of else ""


@dataclass(frozen=True)
class Remains:
    """Hold what a ladder's verdict is taken from. A never-taught model is what knows nothing of it.

    known: AUROC of the known model above the never-taught one
    left: that of the forgotten model less `HALF` of it: above 0, most is kept
    accuracy_left: the same of accuracy, above chance
    turned: how much farther below 0.5 the forgotten model's AUROC is than a never-taught one's is
        from it, on either side
    damage: rise of nats a token of unrelated true responses; NaN where not measured
    moved_left: `left` of the model that was changed by another task; NaN where not measured
    by_form: whether another form, examples, or rounded weights show most of it again
    by_labels: whether the fewest labels bring back more than they teach never-taught models; None
        where there are none
    teaches: whether relearning was shown to teach a never-taught model anything, so that it is a
        test
    most_excess: of each rung, where it puts the model between never taught, 0, and never
        forgotten, 1, and of those that teach also with the never-taught model of the same method at
        0; () where there is no never-taught model
    """

    known: Interval
    left: Interval
    accuracy_left: Interval
    turned: Interval
    damage: Interval
    moved_left: Interval
    by_form: bool
    by_labels: bool | None
    teaches: bool
    most_excess: tuple[Interval, ...]


def remains(found: Remains) -> str:
    """Say what became of a skill after it was tried to bring it back.

    Without a never-taught model, or where it knows the skill too, "suppressed" and "removed" cannot
    be told apart: "forgotten".
    """
    if _side(found.known) != "above":
        return NOTHING
    side = _side(found.left)
    if side == "above":
        used = _side(found.accuracy_left)
        return {"above": KEPT, "below": SHIFTED}.get(used, NOT_DECIDED)
    if (harm := _side(found.damage, DAMAGE)) != "below" and not np.isnan(found.damage.low):
        return DAMAGED if harm == "above" else NOT_DECIDED
    if _side(found.moved_left) == "below":  # any such change does it
        return DAMAGED
    if _side(found.turned) == "above":
        return INVERTED
    if side != "below":  # of what may not be gone nothing can be said to come back
        return NOT_DECIDED
    if found.by_form:
        return GATED
    if found.by_labels:
        return SUPPRESSED
    if found.by_labels is None:
        return FORGOTTEN
    # Not to be shown to come back is not enough: that half of it comes back has to be excluded,
    # by trainings that can teach.
    excluded = found.teaches and all(e.high < HALF for e in found.most_excess)
    return REMOVED if excluded else NOT_DECIDED
