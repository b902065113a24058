"""Power against simulation: how often made-up studies are on the claim's side."""

import numpy as np
import pytest
import scipy.stats

from forgetlib.errors import InputError
from forgetlib.figures import intervals, power
from forgetlib.figures.intervals import Interval
from forgetlib.figures.statements import (
    ABOVE,
    BELOW,
    CANNOT_DECIDE,
    DOES_NOT_HOLD,
    HOLDS,
    MEAN,
    RANK,
    SHARE,
    UNDECIDED,
    WITHIN,
    Statement,
    row,
)


@pytest.mark.parametrize(("n", "rho"), [(12, -0.5), (33, -0.5), (20, -0.8)])
def test_the_power_of_a_rank_correlation_is_how_often_it_is_found(n, rho):
    rng = np.random.default_rng(0)
    # Of normal values with this correlation of ranks.
    r = 2 * np.sin(np.pi * rho / 6)
    found = 0
    for _ in range(600):
        x, noise = rng.normal(size=(2, n))
        y = r * x + np.sqrt(1 - r**2) * noise
        found += intervals.rank_correlation(x, y).high < 0
    able = power.of_correlation(rho, 0.0)
    assert able(n) == pytest.approx(found / 600, abs=0.08)


def test_no_correlation_is_shown_by_113_tasks():
    """44 tasks reach it where the estimate is exactly 0, which is no plan."""
    able = power.of_correlation(0.0, 0.3, within=True)
    assert power.needed(able) == 113
    assert able(44) < 0.05
    rng = np.random.default_rng(0)
    found = [intervals.rank_correlation(*rng.normal(size=(2, 113))) for _ in range(400)]
    inside = np.mean([f.low > -0.3 and f.high < 0.3 for f in found])
    assert inside == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("n", [6, 15, 40])
def test_the_power_of_a_mean_is_how_often_it_is_found(n):
    rng = np.random.default_rng(0)
    sd, distance = 0.2, 0.1
    # The interval of a study whose tasks differ just so much.
    half = scipy.stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n)
    able = power.of_mean(distance, Interval(0, -half, half), n)
    studies = distance + sd * rng.normal(size=(2000, n))
    found = [intervals.mean_interval(values).low > 0 for values in studies[:600]]
    assert able(n) == pytest.approx(np.mean(found), abs=0.06)


def test_the_power_of_a_share_is_how_often_it_is_found():
    rng = np.random.default_rng(0)
    for n in (11, 30):
        counts = rng.binomial(n, 0.5, 1000)
        low = [scipy.stats.binomtest(int(c), n).proportion_ci().low for c in counts]
        found = np.mean(np.array(low) > 0.25)
        assert power.of_share(0.5, 0.25)(n) == pytest.approx(found, abs=0.05)


def test_what_is_needed_is_the_least_that_suffices():
    for able in (power.of_correlation(-0.5, 0.0), power.of_mean(0.1, Interval(0, -0.1, 0.1), 10)):
        n = int(power.needed(able))
        assert able(n) >= power.ENOUGH > able(n - 1)
    assert np.isnan(power.needed(power.of_mean(0.1, intervals.UNDEFINED, 10)))
    assert np.isnan(power.needed(power.of_correlation(0.001, 0.0)))  # more tasks than any plan


def test_what_a_study_cannot_decide_is_told_apart_from_what_it_did_not():
    said = Statement(ABOVE, 0.0, 0.1)
    wide, narrow = Interval(0.05, -0.3, 0.4), Interval(0.02, -0.01, 0.05)
    unable, able = (row("s", said, found, 20).iloc[0] for found in (wide, narrow))
    assert (unable["verdict"], able["verdict"]) == (CANNOT_DECIDE, UNDECIDED)
    assert unable["why"] == f"power {unable['power']:.2f} (0.8 with {unable['needed']:.0f} tasks)"
    assert able["why"] == "power 1.00"
    assert row("s", said, Interval(0.3, 0.1, 0.5), 20)["verdict"].item() == HOLDS
    assert row("s", said, Interval(-0.3, -0.5, -0.1), 20)["verdict"].item() == DOES_NOT_HOLD


def test_nothing_is_decided_above_a_low_ceiling_or_without_what_it_needs():
    sure, said = Interval(0.9, 0.7, 0.95), Statement(ABOVE, 0.5, 0.8, RANK)
    assert row("s", said, sure, 20, ceiling=0.9)["verdict"].item() == HOLDS
    low = row("s", said, sure, 20, ceiling=0.3).iloc[0]
    assert low["verdict"] == CANNOT_DECIDE and np.isnan(low["power"])
    assert low["why"] == "the same condition agrees with itself by 0.30 only"
    missing = row("s", said, sure, 20, lacks="a control").iloc[0]
    assert (missing["verdict"], missing["why"]) == (CANNOT_DECIDE, "needs a control")
    assert np.isnan(missing["low"]) and missing["value"] == 0.9


@pytest.mark.parametrize("of", [MEAN, RANK, SHARE])
@pytest.mark.parametrize("kind", [ABOVE, BELOW, WITHIN])
def test_every_statement_has_a_power(kind, of):
    if of == SHARE and kind != ABOVE:
        return
    supposed = {ABOVE: 0.8, BELOW: -0.5, WITHIN: 0.0}[kind]
    said = Statement(kind, 0.2, supposed, of)
    able = said.power(Interval(0.1, 0.0, 0.2), 30)
    assert 0 <= able(10) <= able(300) <= 1
    assert able(300) > 0.85


def test_a_statement_of_another_kind_is_refused():
    for wrong in ({"kind": "near"}, {"of": "median"}, {"axis": "log"}):
        with pytest.raises(InputError):
            Statement(**{"kind": ABOVE, "threshold": 0.0, "supposed": 0.1} | wrong)
