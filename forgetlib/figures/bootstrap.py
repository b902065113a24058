"""Give measures of questions their 95 % intervals, with one seed or several.

Each seed has its own questions, split, random labels and order of training, so that it is one
repetition of the whole experiment. A `Sample` is a seed: its questions, and what is measured of
them. Measures of one seed stay together, so that a difference is taken within each seed first.

An interval answers two questions at once, and is the wider of the two answers:

over questions: what would other questions give? They are resampled with replacement (percentile
    bootstrap). A question that several seeds asked is drawn for all of them together.
over seeds: what would other seeds give? Student's t of the seeds' values. It has what differs
    between seeds and between their questions, with no estimate of one taken from the other. With
    few seeds it can leave the numbers that a measure can be: the interval of a single measure ends
    there. Differences are taken before that, as two measures that both end there would seem equal.

With one seed there is the first alone, which leaves out what another training would give.
`make intervals` measures how often these intervals cover the truth.

Shapes: G seeds, N questions of a seed, K measures, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from forgetlib.errors import InputError, require_whole
from forgetlib.figures.intervals import N_RESAMPLES, UNDEFINED, Interval, percentiles
from forgetlib.metrics import Numbers

Statistic = Callable[[np.ndarray], Numbers]  # (..., K) measures -> (...) values


@dataclass(frozen=True)
class Sample:
    """Hold one seed's questions, and how to measure any resample of them.

    uids: (N,) which questions; equal ones of several seeds are drawn together
    measure: (R, N) counts -> (R, K) measures of the questions, each taken so often
    limits: (2, K) the least and the greatest that each measure can be, as 0 and 1 of an accuracy
    """

    uids: tuple[str, ...]
    measure: Callable[[np.ndarray], np.ndarray]
    limits: np.ndarray


def of_means(uids: Sequence[str], values: np.ndarray) -> Sample:
    """Make a sample whose measures are the means of the columns of (N, K) values."""
    values = np.asarray(values, float)
    if values.ndim != 2 or len(values) != len(uids) or not len(values):
        raise InputError(
            "sample",
            expected="N >= 1 questions with (N, K) values",
            found=f"{len(uids)} questions, values of shape {values.shape}",
            do="Pass a row for each question.",
        )

    def measure(counts: np.ndarray) -> np.ndarray:
        total = counts.sum(-1, keepdims=True)
        means = counts @ values
        return np.divide(means, total, out=np.full(means.shape, np.nan), where=total > 0)

    return Sample(tuple(uids), measure, np.array([values.min(0), values.max(0)]))


@dataclass(frozen=True)
class Measure:
    """Hold the statistic that is one of the measures, (..., K) -> (...)."""

    index: int

    def __call__(self, measures: np.ndarray) -> Numbers:
        """Take the measure."""
        return measures[..., self.index]


@dataclass(frozen=True)
class Resampled:
    """Hold measures of several seeds, and what they could have been.

    of_seeds: (G, K) what was measured
    by_questions: (R, K) means over the seeds with other questions
    by_seeds: (R, K) means over other seeds, which may be beyond `limits`; None with one seed
    limits: (2, K) the least and the greatest that each measure can be
    """

    of_seeds: np.ndarray
    by_questions: np.ndarray
    by_seeds: np.ndarray | None
    limits: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Average the seeds: (K,)."""
        return self.of_seeds.mean(0)

    def interval(self, statistic: Statistic) -> Interval:
        """Give a statistic of the means the wider of its two intervals.

        That of a single measure, by `Measure`, ends where the measure does.
        """
        value = float(statistic(self.means))
        found = percentiles(value, statistic(self.by_questions))
        if self.by_seeds is None:
            return found
        other = percentiles(value, statistic(self.by_seeds))
        # NaN where either has no interval.
        low, high = np.minimum(found.low, other.low), np.maximum(found.high, other.high)
        if isinstance(statistic, Measure):
            low, high = np.clip([low, high], *self.limits[:, statistic.index])
        return Interval(value, float(low), float(high))

    def ratio(self, above: Statistic, below: Statistic) -> Interval:
        """Divide one statistic of the means by another; undefined where the divisor may be 0.

        That is where its interval is not above 0.
        """
        if not self.interval(below).low > 0:
            return UNDEFINED

        def share(measures: np.ndarray) -> np.ndarray:
            by = np.asarray(below(measures))
            return np.divide(above(measures), by, out=np.full(by.shape, np.nan), where=by != 0)[()]

        return self.interval(share)

    def p_value(self, statistic: Statistic) -> float:
        """Test that a statistic of the means is 0: the two-sided p-value of the wider interval.

        The share of resamples at 0 or on its other side, at least one of them, twice; so 1 for a
        statistic of 0.
        """
        value = float(statistic(self.means))
        found = [statistic(self.by_questions)]
        if self.by_seeds is not None:
            found.append(statistic(self.by_seeds))
        if np.isnan(value) or any(np.isnan(f).any() for f in found):
            return np.nan
        across = [np.mean(np.append(f * np.sign(value) <= 0, True)) for f in found]
        return float(min(1.0, 2 * max(across)))


def adjusted(p_values: Sequence[float]) -> np.ndarray:
    """Adjust the p-values of many tests by Holm's method.

    The chance that any true null hypothesis is rejected stays below the level, whatever the tests
    have to do with each other. NaN where a test has none, which counts as no test.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    found = np.full(len(p), np.nan)
    found[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(0, 1)
    return found


def difference(i: int, j: int) -> Statistic:
    """Return the statistic that is one measure less another."""
    return lambda m: m[..., i] - m[..., j]


def of_shares(statistic: Statistic) -> Statistic:
    """Return a statistic that needs shares, as a ratio of accuracies does, of such from 0 to 1."""
    return lambda measures: statistic(measures.clip(0.0, 1.0))


def joined(found: Sequence[Resampled]) -> Resampled:
    """Put measures of the same seeds side by side: (K1 + K2 + ...)."""
    by_seeds = [f.by_seeds for f in found if f.by_seeds is not None]
    return Resampled(
        np.concatenate([f.of_seeds for f in found], axis=1),
        np.concatenate([f.by_questions for f in found], axis=1),
        np.concatenate(by_seeds, axis=1) if by_seeds else None,
        np.concatenate([f.limits for f in found], axis=1),
    )


def resample(
    samples: Sequence[Sample], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Resampled:
    """Measure samples, one a seed, and resample their questions and the seeds."""
    require_whole("n_resamples", n_resamples, 1)
    if not samples or any(len(set(s.uids)) != len(s.uids) or not s.uids for s in samples):
        raise InputError(
            "bootstrap",
            expected="at least one sample, with a question at least and each once",
            found=[len(s.uids) for s in samples],
            do="Pass a list of samples, one a seed.",
        )
    counts, factors = _draws(seed, n_resamples, _places(samples))
    of_seeds = np.concatenate([s.measure(np.ones((1, len(s.uids)))) for s in samples])
    replicates = [s.measure(c) for s, c in zip(samples, counts, strict=True)]
    by_seeds = None
    if len(samples) > 1:
        by_seeds = of_seeds.mean(0) + factors @ (of_seeds - of_seeds.mean(0))
    limits = np.array([s.limits for s in samples], float)
    ends = np.array([limits[:, 0].min(0), limits[:, 1].max(0)])
    return Resampled(of_seeds, np.mean(replicates, axis=0), by_seeds, ends)


def _places(samples: Sequence[Sample]) -> tuple[tuple[int, ...], ...]:
    """Number the questions of all samples, and tell which of them each sample has."""
    number = {uid: i for i, uid in enumerate(dict.fromkeys(u for s in samples for u in s.uids))}
    return tuple(tuple(number[uid] for uid in s.uids) for s in samples)


@lru_cache(maxsize=4)
def _draws(
    seed: int, n_resamples: int, places: tuple[tuple[int, ...], ...]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Draw the counts (R, N) of each seed's questions, and the seeds' factors (R, G).

    Making them is most of the time of a bootstrap, and a task is measured in several ways. Tasks
    with as many questions have the same counts.
    """
    rng = np.random.default_rng(seed)
    drawn = resample_counts(rng, 1 + max(map(max, places)), n_resamples)
    counts = tuple(drawn[:, of] for of in places)
    factors = seed_factors(rng, n_resamples, len(places))
    for shared in (factors, *counts):
        shared.setflags(write=False)
    return counts, factors


def seed_factors(
    rng: np.random.Generator, n_resamples: int, n_seeds: int, *, normal: bool = False
) -> np.ndarray:
    """Draw (R, G) factors, so that factors @ deviations of G seeds is the error of their mean.

    The same factors for all measures, so that they keep what they have in common. With one seed,
    all are 0.

    normal: for variances; else Student's t with G - 1 degrees of freedom, for intervals, which
        knows that few seeds show badly how much they differ
    """
    require_whole("n_resamples", n_resamples, 1)
    if n_seeds == 1:
        return np.zeros((n_resamples, 1))
    draws = rng.standard_normal((n_resamples, n_seeds)) / np.sqrt(n_seeds)
    freedom = n_seeds - 1
    return draws / np.sqrt(freedom if normal else rng.chisquare(freedom, (n_resamples, 1)))


def resample_counts(rng: np.random.Generator, n: int, n_resamples: int) -> np.ndarray:
    """Draw N of N questions with replacement, R times, and count each one: (R, N)."""
    require_whole("n_resamples", n_resamples, 1)
    drawn = rng.integers(n, size=(n_resamples, n)) + n * np.arange(n_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n * n_resamples)
    return counts.reshape(n_resamples, n).astype(float)
