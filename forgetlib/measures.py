"""What else is measured of a task's own forgetting: confidences, predictors, the order, probes.

Tables of Figures 1, 4, 5 and 6 and of section 5's single examples, as those of `stats`; of
forgetting with random labels, where the forgetting set is the whole training set.

Shapes: N examples, C = 2 choices, S recorded steps, P probed layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from forgetlib.schema import Dynamics, InputError, ProbeResult, RunResult
from forgetlib.stats import (
    N_RESAMPLES,
    PHASES,
    Family,
    Interval,
    Statistic,
    as_columns,
    bootstrap,
    bootstrap_each,
    column,
    confidence,
    correct,
    forget_gap,
    forget_ratio,
    full_size,
    percentiles,
    rank_correlations,
    resample_counts,
    resampled_means,
)

# --- Figure 1: single questions ------------------------------------------------------------------


def question_confidences(results: Iterable[RunResult]) -> pd.DataFrame:
    """Confidence in the true response in the three phases (paper, Fig. 1), a question a row.

    Columns: model, eval_task, split ("train": in the forgetting set; "test": outside), seed, uid,
    and base, tuned, forgotten: p(true) / (p(true) + p(distractor)) in this phase.
    """
    parts = []
    for model, task, seeds in full_size(results):
        for runs in seeds:
            for split in ("train", "test"):
                scores = {phase: runs[phase].scores[f"{task}/{split}"] for phase in PHASES}
                named = {
                    "model": model,
                    "eval_task": task,
                    "split": split,
                    "seed": runs["forgotten"].spec.seed,
                    "uid": scores["forgotten"].uids,
                }
                measured = {phase: confidence(found) for phase, found in scores.items()}
                parts.append(pd.DataFrame(named | measured))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# --- Figure 4: what predicts forgetting ----------------------------------------------------------


def predictors(results: Iterable[RunResult], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Forgetting of each task and what might predict it (paper, Fig. 4), one row a seed.

    Columns: model, eval_task, seed, n (test examples), forget_ratio (NaN where the fine-tuned
    accuracy is not above chance in every bootstrap resample), forgotten, forget_gap, and of the
    fine-tuned model on the test set: confidence (mean), log_variance (natural logarithm of the
    trace of the hidden states' covariance; NaN without a probe) with its interval, tuned (accuracy,
    which stands for difficulty), and base (accuracy before).
    """
    rows = []
    for model, task, seeds in full_size(results):
        for runs in seeds:
            tested = [runs[phase].scores[f"{task}/test"] for phase in PHASES]
            columns = np.stack([correct(s).astype(float) for s in tested], axis=1)
            base, tuned, forgotten = columns.mean(0)
            ratio = bootstrap(
                lambda m: forget_ratio(m[..., 1], m[..., 2]), [columns], n_resamples=n_resamples
            )
            rows.append(
                {
                    "model": model,
                    "eval_task": task,
                    "seed": runs["tuned"].spec.seed,
                    "n": len(columns),
                    "forget_ratio": ratio.value if np.isfinite(ratio.low) else np.nan,
                    "forgotten": forgotten,
                    "forget_gap": forget_gap(forgotten),
                    "confidence": confidence(tested[1]).mean(),
                    **as_columns("log_variance", _log_variance(runs["tuned"].probe, n_resamples)),
                    "tuned": tuned,
                    "base": base,
                }
            )
    return pd.DataFrame(rows)


def _log_variance(probe: ProbeResult | None, n_resamples: int) -> Interval:
    """Logarithm of the trace of the covariance, from the squared distances to the mean (N,).

    The interval resamples test examples. The mean is that of all examples in every resample: only
    the distances to it are stored. It matters little, by a share of about 1 / N.
    """
    if probe is None or len(probe.deviation) < 2 or not probe.deviation.any():
        return Interval(np.nan, np.nan, np.nan)
    n = len(probe.deviation)
    distances = probe.deviation.astype(float)[:, None]
    return bootstrap(
        lambda means: np.log(means[..., 0] * n / (n - 1)), [distances], n_resamples=n_resamples
    )


def example_level(results: Iterable[RunResult]) -> pd.DataFrame:
    """The same for every single test example (paper, section 5).

    Columns: model, eval_task, seed, uid; of the fine-tuned model confidence, log_deviation (natural
    logarithm of the hidden state's squared distance from the task's mean; NaN without a probe),
    tuned_correct; and forgotten_correct, forgotten_confidence.
    """
    parts = []
    for model, task, seeds in full_size(results):
        for runs in seeds:
            tuned, forgotten = (runs[p].scores[f"{task}/test"] for p in ("tuned", "forgotten"))
            deviation = np.full(len(tuned), np.nan)
            if (probe := runs["tuned"].probe) is not None:
                deviation = np.where(probe.deviation > 0, probe.deviation, np.nan)
            parts.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "eval_task": task,
                        "seed": runs["tuned"].spec.seed,
                        "uid": tuned.uids,
                        "confidence": confidence(tuned),
                        "log_deviation": np.log(deviation.astype(float)),
                        "tuned_correct": correct(tuned),
                        "forgotten_correct": correct(forgotten),
                        "forgotten_confidence": confidence(forgotten),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# --- Figure 5: the order of learning and forgetting ----------------------------------------------


ORDER_THRESHOLD = 0.6  # paper, section 5
# What happens to an example of the forgetting set, by the column of `order` that counts it.
_FATES = ("n", "n_known", "n_never_learned", "n_fell_back", "n_never_forgotten")


def passing_steps(dynamics: Dynamics, threshold: float, direction: str) -> np.ndarray:
    """(N,) the first recorded step at which each example has passed a confidence (paper, Fig. 5).

    direction: "up" (from below to at least the threshold) or "down" (from at least the threshold
        to below it)
    NaN where an example is beyond the threshold before training, and where it never passes.
    """
    if direction not in ("up", "down"):
        raise InputError(
            "direction", expected="'up' or 'down'", found=repr(direction), do="Correct the word."
        )
    above = dynamics.confidence >= threshold  # (S, N)
    beyond = above if direction == "up" else ~above
    passes = beyond.any(0) & ~beyond[0]
    return np.where(passes, np.asarray(dynamics.steps, float)[beyond.argmax(0)], np.nan)


def _steps(runs: Family, threshold: float) -> pd.DataFrame | None:
    """One row an example of the forgetting set: when it is learned and forgotten; why not.

    Columns: uid, learned_step, forgotten_step, and which of `_FATES` it had. None without dynamics.
    """
    tuned, forgotten = runs["tuned"].dynamics, runs["forgotten"].dynamics
    if tuned is None or forgotten is None:
        return None
    place = {uid: i for i, uid in enumerate(tuned.uids)}
    if unknown := [uid for uid in forgotten.uids if uid not in place]:
        raise InputError(
            f"dynamics of {runs['forgotten'].spec}",
            expected="examples that were recorded in fine-tuning too",
            found=f"{len(unknown)} others, first {unknown[0]!r}",
            do="They were made by different versions of the data: recompute the study.",
        )
    order = [place[uid] for uid in forgotten.uids]
    learned = passing_steps(tuned, threshold, "up")[order]
    lost = passing_steps(forgotten, threshold, "down")
    known = tuned.confidence[0, order] >= threshold
    fell_back = forgotten.confidence[0] < threshold
    fates = [known, np.isnan(learned), fell_back, np.isnan(lost)]
    return pd.DataFrame(
        {
            "uid": forgotten.uids,
            "learned_step": learned,
            "forgotten_step": lost,
            "fate": np.select(fates, _FATES[1:], _FATES[0]),
        }
    )


def order(
    results: Iterable[RunResult],
    threshold: float = ORDER_THRESHOLD,
    min_examples: int = 20,
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Whether what is learned first is forgotten last (paper, Fig. 5), one row a model and task.

    threshold: the confidence to pass, up in fine-tuning and down in forgetting
    min_examples: below this, a task has too few that pass both ways (`enough` is False)

    Columns: model, eval_task, and training examples of all seeds: n (pass both ways), n_known (at
    or above the threshold before fine-tuning), n_never_learned, n_fell_back (learned, and below
    again when forgetting starts), n_never_forgotten, which add up to all; rank_correlation with its
    interval; enough. The correlation is Spearman's, of the step passed in fine-tuning and the step
    passed in forgetting; below 0: learned first, forgotten last. It is taken within each seed and
    averaged, weighted by n; the interval resamples examples within each seed.
    """
    rows = []
    for model, task, seeds in full_size(results):
        found = [s for s in (_steps(runs, threshold) for runs in seeds) if s is not None]
        if not found:
            continue
        fates = pd.concat(found)["fate"]
        numbers = {fate: int((fates == fate).sum()) for fate in _FATES}
        rng = np.random.default_rng(0)
        total, weight = np.zeros(n_resamples + 1), np.zeros(n_resamples + 1)
        for steps in found:
            both = steps[steps["fate"] == "n"]
            if len(both) < 2:
                continue
            x, y = both["learned_step"].to_numpy(), both["forgotten_step"].to_numpy()
            counts = resample_counts(rng, len(both), n_resamples)
            # The first is the sample itself.
            values = rank_correlations(x, y, np.concatenate([np.ones((1, len(both))), counts]))
            defined = np.isfinite(values)
            total[defined] += len(both) * values[defined]
            weight[defined] += len(both)
        values = np.divide(total, weight, out=np.full(len(total), np.nan), where=weight > 0)
        rows.append(
            {
                "model": model,
                "eval_task": task,
                **numbers,
                **as_columns("rank_correlation", percentiles(float(values[0]), values[1:])),
                "enough": numbers["n"] >= min_examples,
            }
        )
    return pd.DataFrame(rows)


def order_examples(
    results: Iterable[RunResult], threshold: float = ORDER_THRESHOLD
) -> pd.DataFrame:
    """The examples behind `order`, those that pass the threshold both ways.

    Columns: model, eval_task, seed, uid, learned_step, forgotten_step (optimiser steps).
    """
    parts = []
    for model, task, seeds in full_size(results):
        for runs in seeds:
            steps = _steps(runs, threshold)
            if steps is not None:
                both = steps[steps["fate"] == "n"].drop(columns="fate")
                seed = runs["tuned"].spec.seed
                parts.append(both.assign(model=model, eval_task=task, seed=seed))
    columns = ["model", "eval_task", "seed", "uid", "learned_step", "forgotten_step"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


# --- Figure 6: probes ----------------------------------------------------------------------------

PROBED_PHASES = ("pre-trained", "fine-tuned", "forgotten")


def probe_accuracy(results: Iterable[RunResult], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """How well a linear probe tells correct from incorrect answers (paper, Fig. 6).

    One row a model, task, phase and layer. Columns: model, eval_task, phase in `PROBED_PHASES`,
    layer, accuracy and control (a probe fitted to shuffled labels), each with its interval, n
    (pairs of question and answer, all seeds), is_paper_layer (the fifth-to-last). An example's
    pairs are resampled together.
    """
    rows = []
    for model, task, seeds in full_size(results):
        probed = _probed(seeds)
        if not probed:
            continue
        layers, paper_layer = probed[0]["base"].layers, probed[0]["base"].variance_layer
        # (N, phase x (accuracy, control) x layer) for each seed
        groups = [
            np.concatenate(
                [
                    _pair_means(p)
                    for phase in PHASES
                    for p in (found[phase].correct, found[phase].control)
                ],
                axis=1,
            )
            for found in probed
        ]
        means = np.mean([g.mean(0) for g in groups], axis=0)
        rng = np.random.default_rng(0)
        resampled = resampled_means(groups, n_resamples=n_resamples, rng=rng)
        shape = (len(PHASES), 2, len(layers))
        places = np.arange(len(means)).reshape(shape)
        for (i, phase), (j, layer) in product(enumerate(PROBED_PHASES), enumerate(layers)):
            row = {"model": model, "eval_task": task, "phase": phase, "layer": int(layer)}
            for k, name in enumerate(("accuracy", "control")):
                place = places[i, k, j]
                row |= as_columns(name, percentiles(float(means[place]), resampled[:, place]))
            n = sum(found["base"].correct[0].size for found in probed)
            rows.append({**row, "n": n, "is_paper_layer": bool(layer == paper_layer)})
    return pd.DataFrame(rows)


def probe_recovery(results: Iterable[RunResult], *, n_resamples: int = N_RESAMPLES) -> pd.DataFrame:
    """Whether a probe is as accurate after forgetting as after fine-tuning (paper, Fig. 6).

    One row a model and task, at the paper's layer. Columns: model, eval_task, n (pairs, all seeds),
    layer, and with their intervals fine_tuned, forgotten (probe accuracies) and difference
    (forgotten less fine_tuned, paired by example; near 0: forgetting is shallow).
    """
    measures: dict[str, Statistic] = {
        "fine_tuned": column(0),
        "forgotten": column(1),
        "difference": lambda m: m[..., 1] - m[..., 0],
    }
    rows = []
    for model, task, seeds in full_size(results):
        probed = _probed(seeds)
        if not probed:
            continue
        layer = probed[0]["tuned"].variance_layer
        groups = [
            np.concatenate(
                [
                    _pair_means(p.correct[p.layers == layer])
                    for p in (found["tuned"], found["forgotten"])
                ],
                axis=1,
            )
            for found in probed
        ]
        row = {
            "model": model,
            "eval_task": task,
            "n": sum(found["tuned"].correct[0].size for found in probed),
            "layer": int(layer),
        }
        for name, interval in bootstrap_each(measures, groups, n_resamples).items():
            row |= as_columns(name, interval)
        rows.append(row)
    return pd.DataFrame(rows)


def _probed(seeds: Sequence[Family]) -> list[dict[str, ProbeResult]]:
    """The probes of every seed that has one in each phase."""
    probes = [{phase: runs[phase].probe for phase in PHASES} for runs in seeds]
    return [
        {k: p for k, p in found.items() if p is not None}
        for found in probes
        if None not in found.values()
    ]


def _pair_means(right: np.ndarray) -> np.ndarray:
    """(P, N, C) whether pairs are right -> (N, P) share of an example's pairs."""
    return right.mean(-1).T
