"""Measure by simulation how often each kind of interval covers the truth.

    python tests/intervals.py [simulations]

Over questions and seeds (`figures.bootstrap`): accuracy, AUROC, their differences within a seed and
the forget ratio, of made-up models whose truth is known, with 200 and 500 questions, 3 and 5 seeds,
several accuracies, seeds that differ or do not, with questions of their own or in part the same.
Over tasks (`figures.intervals`): means, differences, ratios of means and rank correlations.
Writes figures/intervals/coverage.csv, and prints where an interval covers less than 0.93.

Two thousand simulations take two processes an hour. What was killed goes on where it was: each
setting is kept in .work/intervals, for as long as the code that it was computed with stays.
"""

import hashlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from forgetlib import files, metrics
from forgetlib.figures import bootstrap, intervals
from forgetlib.figures.bootstrap import (
    Measure,
    Sample,
    difference,
    joined,
    of_means,
    of_shares,
    resample,
)

N_RESAMPLES = 400
SHARED = 0.4  # of a pool of questions, that each seed draws, where seeds share them
EFFECT = 0.3  # standard deviation of what a seed adds to a margin, where seeds differ
LEAST = 0.93
STATISTICS = ("accuracy", "accuracy lost", "forget ratio", "AUROC", "AUROC lost")


def of_questions(n, n_seeds, accuracy, seeds_differ, questions_shared, n_simulations, seed):
    """Count how often the intervals of one setting cover: {statistic: (share, undefined)}.

    A margin is normal: strength + the seed's effect + the question's, before and after forgetting.
    The truth is that of infinitely many seeds and questions.
    """
    rng = np.random.default_rng(seed)
    spread = EFFECT if seeds_differ else 0.0
    whole = np.sqrt(1 + spread**2)  # of a margin, over questions and seeds
    strengths = norm.ppf(accuracy) * whole, norm.ppf(0.5 + (accuracy - 0.5) * 0.6) * whole
    # Of two questions of one seed: their effects are shared, and so is the seed's.
    far = rng.normal(size=(400_000, 3))
    areas = [
        float((2 * s + far[:, 0] + far[:, 1] + 2 * spread * far[:, 2] > 0).mean())
        for s in strengths
    ]
    rights = [float(norm.cdf(s / whole)) for s in strengths]
    truth = {
        "accuracy": rights[1],
        "accuracy lost": rights[0] - rights[1],
        "forget ratio": (rights[0] - rights[1]) / (rights[0] - 0.5) if accuracy > 0.5 else np.nan,
        "AUROC": areas[1],
        "AUROC lost": areas[0] - areas[1],
    }
    of = {
        "accuracy": Measure(1),
        "accuracy lost": difference(0, 1),
        "forget ratio": of_shares(lambda m: metrics.forget_ratio(m[..., 0], m[..., 1])),
        "AUROC": Measure(3),
        "AUROC lost": difference(2, 3),
    }
    hits, undefined = dict.fromkeys(STATISTICS, 0), dict.fromkeys(STATISTICS, 0)
    pool = int(n / SHARED)
    for _ in range(n_simulations):
        effects = rng.normal(size=pool)
        accuracies, auroc = [], []
        for g in range(n_seeds):
            asked = rng.choice(pool, n, replace=False)
            question = effects[asked] if questions_shared else rng.normal(size=n)
            uids = tuple(f"{'' if questions_shared else g}-{i}" for i in asked)
            of_seed = spread * rng.normal(size=2)
            # Half of a question's effect is there before and after.
            own = rng.normal(size=(2, n))
            margins = [
                s + e + np.sqrt(0.5) * (question + o)
                for s, e, o in zip(strengths, of_seed, own, strict=True)
            ]
            accuracies.append(of_means(uids, np.stack([m > 0 for m in margins], axis=1)))
            auroc.append(_of_areas(uids, margins))
        found = joined(
            [resample(samples, n_resamples=N_RESAMPLES) for samples in (accuracies, auroc)]
        )
        for name in STATISTICS:
            interval = found.interval(of[name])
            hits[name] += interval.low <= truth[name] <= interval.high
            undefined[name] += np.isnan(interval.low)
    return {
        name: (
            hits[name] / max(n_simulations - undefined[name], 1),
            undefined[name] / n_simulations,
        )
        for name in STATISTICS
        if not np.isnan(truth[name])
    }


def kept(setting, n_simulations, seed):
    """Do the same as `of_questions`, once: {statistic: [share, undefined]}."""
    code = [Path(module.__file__).read_bytes() for module in (bootstrap, intervals, metrics)]
    code.append(Path(__file__).read_bytes())
    name = hashlib.sha256(b"".join(code)).hexdigest()[:16]
    path = files.root() / ".work" / "intervals" / f"{name}-{n_simulations}-{seed}.json"
    if not path.exists():
        found = of_questions(*setting, n_simulations, seed)
        with files.replacing(path) as partial:
            partial.write_text(json.dumps(found))
    return json.loads(path.read_text())


def _of_areas(uids, margins):
    def measure(counts):
        return np.stack([metrics.auroc(margin, None, counts) for margin in margins], axis=1)

    return Sample(uids, measure, np.array([[0.0, 0.0], [1.0, 1.0]]))


def of_tasks(n, n_simulations, seed):
    """Count how often the intervals over n tasks cover: {statistic: share}."""
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(("mean", "difference", "ratio of means", "rank correlation"), 0)
    correlation = 0.6
    spearman = 6 / np.pi * np.arcsin(correlation / 2)
    for _ in range(n_simulations):
        values = 0.1 + 0.05 * rng.normal(size=n)
        heights = 0.3 + 0.05 * rng.normal(size=n)
        x = rng.normal(size=n)
        y = correlation * x + np.sqrt(1 - correlation**2) * rng.normal(size=n)
        half = n // 2
        for name, interval, truth in (
            ("mean", intervals.mean_interval(values), 0.1),
            ("difference", intervals.difference_interval(values[:half], values[half:]), 0.0),
            ("ratio of means", intervals.relative_interval(values, heights), 1 / 3),
            ("rank correlation", intervals.rank_correlation(x, y), spearman),
        ):
            hits[name] += interval.low <= truth <= interval.high
    return {name: count / n_simulations for name, count in hits.items()}


def main(n_simulations: int = 2000) -> None:
    settings = list(product((200, 500), (3, 5), (0.5, 0.75, 0.95), (False, True), (False, True)))
    rows = []
    with ProcessPoolExecutor(2) as pool:
        found = [pool.submit(kept, setting, n_simulations, i) for i, setting in enumerate(settings)]
        for setting, future in zip(settings, found, strict=True):
            named = dict(
                zip(("n", "n_seeds", "accuracy", "seeds_differ", "shared"), setting, strict=True)
            )
            rows += [
                {
                    "over": "questions and seeds",
                    "statistic": name,
                    **named,
                    "coverage": share,
                    "undefined": undefined,
                }
                for name, (share, undefined) in future.result().items()
            ]
    for n in (6, 12, 21):
        rows += [
            {"over": "tasks", "statistic": name, "n": n, "coverage": share}
            for name, share in of_tasks(n, n_simulations, n).items()
        ]
    table = pd.DataFrame(rows).assign(simulations=n_simulations)
    path = files.root() / "figures/intervals/coverage.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.4g")
    groups = table.groupby(["over", "statistic"])["coverage"].agg(["min", "median", "max"])
    groups["undefined, at most"] = table.groupby(["over", "statistic"])["undefined"].max()
    print(groups.round(3).to_string())
    low = table[table["coverage"] < LEAST]
    print(low.to_string(index=False) if len(low) else f"none covers less than {LEAST}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
