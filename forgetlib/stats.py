"""From scores to statements: accuracy, confidence, forget gap and ratio, and their intervals.

A statistic here is a function of arrays, with its shape stated; `bootstrap` gives any of them an
interval. No files, no models, no global random state.

Shapes: N examples, C = 2 choices, G groups (seeds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from forgetlib.schema import CHANCE, InputError, RunResult, RunSpec, Scores

CONFIDENCE_LEVEL = 0.95
N_RESAMPLES = 2000
Numbers = float | np.ndarray

# --- one example, one data set -------------------------------------------------------------------


def predictions(scores: Scores) -> np.ndarray:
    """(N,) index of the likelier choice; the first of equal ones, as in the harness."""
    return scores.log_likelihoods.argmax(1)


def correct(scores: Scores) -> np.ndarray:
    """(N,) whether the likelier choice is the true response."""
    return predictions(scores) == scores.labels


def choice_probs(scores: Scores) -> np.ndarray:
    """(N, C) probability of each choice relative to the others: softmax of the log-likelihoods."""
    shifted = scores.log_likelihoods.astype(np.float64)
    shifted = np.exp(shifted - shifted.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def confidence(scores: Scores) -> np.ndarray:
    """(N,) p(true) / (p(true) + p(distractor)) (paper, section 5)."""
    return choice_probs(scores)[np.arange(len(scores)), scores.labels]


def forget_gap(forget_accuracy: Numbers) -> Numbers:
    """Forget accuracy above chance: 0 is fully forgotten (paper, Fig. 2). Any shape."""
    return forget_accuracy - CHANCE


def forget_ratio(tuned: Numbers, forgotten: Numbers, floor: Numbers = CHANCE) -> Numbers:
    """Share of the fine-tuned accuracy's height above `floor` that was lost (paper, Fig. 3).

    (tuned - forgotten) / (tuned - floor): 1 is fully forgotten, 0 nothing. Not-a-number where the
    model was not above the floor to begin with, because there was nothing to lose. Any shape.
    """
    above = np.subtract(tuned, floor)
    defined = np.where(above > 0, above, np.nan)
    return (np.subtract(tuned, forgotten) / defined)[()]


def flipped_forget_ratio(tuned: Numbers, forgotten: Numbers) -> Numbers:
    """The forget ratio for flipped labels, whose full effect is 1 - tuned (paper, Fig. 8)."""
    return forget_ratio(tuned, forgotten, floor=np.subtract(1, tuned))


# --- intervals -----------------------------------------------------------------------------------


Statistic = Callable[[np.ndarray], Numbers]  # (..., K) means -> (...) values


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile bootstrap interval; low and high are NaN where undefined."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Statistic,
    groups: Sequence[np.ndarray],
    *,
    n_resamples: int = N_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over examples, and over seeds where there are several.

    groups: one (N_g, K) array a seed, a row an example, so that K measurements of an example stay
        together. Each group is reduced to its (K,) column means, the groups' means are averaged,
        and the statistic maps that (K,) to a number: a statistic of accuracies, not of examples.
    statistic: vectorised over leading axes
    """
    if not groups or any(g.ndim != 2 or len(g) == 0 for g in groups):
        raise InputError(
            "bootstrap",
            expected="at least one (N, K) array with N >= 1",
            found=[g.shape for g in groups],
            do="Pass a list of arrays, one a seed.",
        )
    rng = np.random.default_rng(seed)
    value = float(statistic(np.mean([g.mean(0) for g in groups], axis=0)))
    picks = np.zeros((n_resamples, len(groups)), np.intp)
    if len(groups) > 1:  # resample the seeds too
        picks = rng.integers(len(groups), size=picks.shape)
    # A seed that is picked twice brings two resamples of its examples, not one of them twice.
    resampled = np.zeros((n_resamples, groups[0].shape[1]))
    for replicate, row in enumerate(picks):
        for pick in row:
            group = groups[pick]
            resampled[replicate] += group[rng.integers(len(group), size=len(group))].mean(0)
    replicates = np.asarray(statistic(resampled / len(groups)), float)
    if not np.isfinite(replicates).all():
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _column(index: int) -> Statistic:
    return lambda means: means[..., index]


# --- the tidy table ------------------------------------------------------------------------------


def table(results: Iterable[RunResult]) -> pd.DataFrame:
    """One measurement a row: accuracy and mean confidence of every run on every data set.

    Columns: run_id, model, train_task, start_task, condition, seed, n_train, eval_task, split,
    metric, value, n.
    """
    rows = []
    for result in results:
        spec = result.spec
        for where, scores in sorted(result.scores.items()):
            eval_task, split = where.split("/")
            for metric, values in (
                ("accuracy", correct(scores)),
                ("confidence", confidence(scores)),
            ):
                rows.append(
                    {
                        "run_id": spec.run_id,
                        "model": spec.model,
                        "train_task": spec.train_task,
                        "start_task": spec.start_task,
                        "condition": spec.condition,
                        "seed": spec.seed,
                        "n_train": spec.n_train,
                        "eval_task": eval_task,
                        "split": split,
                        "metric": metric,
                        "value": float(values.mean()),
                        "n": len(scores),
                    }
                )
    return pd.DataFrame(rows)


# --- Figure 2 ------------------------------------------------------------------------------------

PHASES = ("base", "tuned", "forgotten")
BEHAVIOURS = ("kept", "below fine-tuned", "below pre-trained", "nothing to forget")


def forgetting(
    results: Iterable[RunResult], condition: str = "random", *, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Forgetting of each task by its own labels: what Figure 2 draws, one row a model and task.

    condition: "random" or "flipped", the labels of the forgetting phase

    Columns: model, eval_task, n (test examples, all seeds), n_train, n_seeds, and for each measure
    m its value, m_low and m_high (95 % bootstrap over examples and seeds):
    base, tuned, forgotten: test accuracy before, after fine-tuning, after forgetting
    forgetting_set: accuracy on the forgetting set after forgetting, true labels
    forget_gap, forget_ratio: as defined above
    confidence: mean confidence on the test set after fine-tuning
    ratio_defined: whether the fine-tuned accuracy is above chance in every bootstrap resample;
        where it is not, the ratio's denominator may be zero: it has no interval and says nothing
    behaviour: the paper's three kinds, each by the interval of the accuracies' difference.
        "kept": not below the fine-tuned accuracy; "below fine-tuned": below it, but not below the
        pre-trained; "below pre-trained". "nothing to forget" where the ratio is undefined
    """
    families = _families(results, condition)
    rows = []
    for (model, task), seeds in sorted(families.items()):
        test = f"{task}/test"
        groups, train_groups = [], []
        for runs in seeds:
            tested = [runs[phase].scores[test] for phase in PHASES]
            columns = [correct(s).astype(float) for s in tested] + [confidence(tested[1])]
            groups.append(np.stack(columns, axis=1))  # (N, 4)
            own = runs["forgotten"].scores[f"{task}/train"]
            train_groups.append(correct(own).astype(float)[:, None])
        measures: dict[str, Statistic] = {
            "base": _column(0),
            "tuned": _column(1),
            "forgotten": _column(2),
            "confidence": _column(3),
            "forget_gap": lambda m: forget_gap(m[..., 2]),
            "lost": lambda m: m[..., 1] - m[..., 2],
            "below_base": lambda m: m[..., 0] - m[..., 2],
        }
        if condition == "flipped":
            measures["forget_ratio"] = lambda m: flipped_forget_ratio(m[..., 1], m[..., 2])
        else:
            measures["forget_ratio"] = lambda m: forget_ratio(m[..., 1], m[..., 2])
        found = {k: bootstrap(f, groups, n_resamples=n_resamples) for k, f in measures.items()}
        found["forgetting_set"] = bootstrap(_column(0), train_groups, n_resamples=n_resamples)
        row: dict[str, object] = {
            "model": model,
            "eval_task": task,
            "n": sum(len(g) for g in groups),
            "n_train": sum(len(g) for g in train_groups),
            "n_seeds": len(seeds),
        }
        for name, interval in found.items():
            row |= {
                name: interval.value,
                f"{name}_low": interval.low,
                f"{name}_high": interval.high,
            }
        row["ratio_defined"] = bool(np.isfinite(found["forget_ratio"].low))
        row["behaviour"] = _behaviour(found) if row["ratio_defined"] else BEHAVIOURS[3]
        rows.append(row)
    return pd.DataFrame(rows)


def _behaviour(found: dict[str, Interval]) -> str:
    if found["lost"].low <= 0:
        return BEHAVIOURS[0]
    return BEHAVIOURS[1 if found["below_base"].low <= 0 else 2]


def _families(
    results: Iterable[RunResult], condition: str
) -> dict[tuple[str, str], list[dict[str, RunResult]]]:
    """Base, tuned and forgotten run of each (model, task), one dictionary a seed.

    The three are found by the specs themselves. Raises InputError where runs of one model and
    task differ in more than the seed, as their average would mean nothing, and where the three
    did not measure the same test examples.
    """
    by_id = {r.spec.run_id: r for r in results}
    families: dict[tuple[str, str], list[dict[str, RunResult]]] = {}
    for result in by_id.values():
        spec = result.spec
        start = spec.start
        if spec.condition != condition or start is None or spec.start_task != spec.train_task:
            continue
        base = by_id.get(replace(start, condition="base", train=None).run_id)
        tuned = by_id.get(start.run_id)
        if base is None or tuned is None:
            continue  # the study is not complete: experiment.results says so
        runs = {"base": base, "tuned": tuned, "forgotten": result}
        test = f"{spec.train_task}/test"
        if len({run.scores[test].uids for run in runs.values()}) != 1:
            raise InputError(
                f"runs of {spec}",
                expected="the same test examples before and after",
                found="different ones",
                do="They were made by different versions of the data: recompute the study.",
            )
        seeds = families.setdefault((spec.model, spec.train_task), [])
        if seeds and _but_seed(seeds[0]["forgotten"].spec) != _but_seed(spec):
            raise InputError(
                f"runs of {spec.model} on {spec.train_task}",
                expected="settings that differ in the seed only",
                found=f"{_but_seed(seeds[0]['forgotten'].spec)} and {_but_seed(spec)}",
                do="Pass the results of one study.",
            )
        seeds.append(runs)
    return families


def _but_seed(spec: RunSpec) -> RunSpec:
    start = None if spec.start is None else replace(spec.start, seed=0)
    return replace(spec, start=start, seed=0)
