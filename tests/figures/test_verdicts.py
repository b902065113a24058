"""Each verdict on a study that is made so, and thresholds against made-up intervals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from forgetlib.figures import verdicts
from forgetlib.figures.intervals import UNDEFINED, Interval
from forgetlib.figures.verdicts import Evidence, verdict


def around(value, half=0.05):
    return Interval(value, value - half, value + half)


KEPT = Evidence(
    auroc_left=around(0.2),
    auroc_turned=around(-0.5),
    accuracy_left=around(0.2),
    damage=around(0.2),
    known=True,
)
GONE = replace(KEPT, auroc_left=around(-0.2), auroc_turned=around(-0.2), accuracy_left=around(-0.2))
TURNED = replace(GONE, auroc_left=around(-0.5), auroc_turned=around(0.2))


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (KEPT, verdicts.KEPT),
        (replace(KEPT, accuracy_left=around(-0.2)), verdicts.SHIFTED),
        (GONE, verdicts.FORGOTTEN),
        (TURNED, verdicts.INVERTED),
        (replace(GONE, damage=around(2.0)), verdicts.DAMAGED),
        (replace(TURNED, damage=around(2.0)), verdicts.DAMAGED),
        (replace(KEPT, known=False), verdicts.NOTHING),
        # What cannot be told apart:
        (replace(KEPT, auroc_left=around(0.0)), verdicts.NOT_DECIDED),
        (replace(KEPT, accuracy_left=around(0.0)), verdicts.NOT_DECIDED),
        (replace(GONE, damage=around(1.0)), verdicts.NOT_DECIDED),
        (replace(GONE, damage=UNDEFINED), verdicts.NOT_DECIDED),
        (replace(KEPT, auroc_left=UNDEFINED), verdicts.NOT_DECIDED),
        # What is not measured does not count, and what is kept is kept though others suffer.
        (replace(GONE, damage=None), verdicts.FORGOTTEN),
        (replace(KEPT, damage=around(2.0)), verdicts.KEPT),
        # Lost, and perhaps turned round: neither is shown.
        (replace(GONE, auroc_turned=around(0.0)), verdicts.NOT_DECIDED),
        (replace(GONE, auroc_turned=UNDEFINED), verdicts.NOT_DECIDED),
        (replace(GONE, auroc_turned=around(0.0), damage=around(2.0)), verdicts.DAMAGED),
    ],
)
def test_every_word_has_its_evidence(evidence, expected):
    assert verdict(evidence) == expected


intervals = st.tuples(st.floats(-1, 1), st.floats(0, 0.5)).map(lambda x: around(*x))
evidence = st.builds(
    Evidence, intervals, intervals, intervals, st.none() | intervals, st.booleans()
)


@given(evidence)
def test_every_verdict_is_a_word_of_the_vocabulary(found):
    assert verdict(found) in verdicts.VERDICTS


@given(evidence)
def test_a_wider_interval_never_decides_what_was_not_decided(found):
    if verdict(found) == verdicts.NOT_DECIDED:
        wider = {
            name: Interval(i.value, i.low - 0.1, i.high + 0.1)
            for name in ("auroc_left", "auroc_turned", "accuracy_left", "damage")
            if (i := getattr(found, name)) is not None
        }
        assert verdict(replace(found, **wider)) == verdicts.NOT_DECIDED


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (0.75, verdicts.KEPT),
        (0.65, verdicts.FORGOTTEN),
        (0.5, verdicts.FORGOTTEN),
        (0.35, verdicts.FORGOTTEN),  # below chance, as models that know nothing are too
        (0.25, verdicts.INVERTED),
        (0.1, verdicts.INVERTED),
    ],
)
def test_as_much_may_be_turned_round_as_may_be_lost(after, expected):
    """Of AUROC 0.9 half is 0.2: what lies as far on either side of 0.5 is treated alike."""
    known = 0.9
    left, turned = verdicts.most_left(known, after), verdicts.most_turned(known, after)
    assert left == pytest.approx(verdicts.most_turned(known, 1 - after))
    assert verdicts.of_auroc(around(left, 0.04), around(turned, 0.04)) == expected


def test_thresholds_are_those_that_were_fixed_before_computing():
    assert (verdicts.HALF, verdicts.DAMAGE) == (0.5, 1.0)
    assert not np.isnan(verdicts.DAMAGE)
