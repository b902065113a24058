"""What else is measured of a task's own forgetting: confidences, predictors, the order, probes.

Tables of Figures 1, 4, 5 and 6 and of section 5's single examples, as those of `stats`; of
forgetting with random labels, where the forgetting set is the whole training set.

Shapes: N examples, C = 2 choices, S recorded steps, P probed layers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from forgetlib.schema import (
    Dynamics,
    Example,
    ProbeResult,
    RunResult,
    require_number,
    require_one_of,
    require_whole,
)
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
    correlation_percentiles,
    forgetting,
    full_size,
    means_of,
    other_data,
    percentiles,
    predictions,
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


# --- Figure 2: whether a model still tells questions apart ---------------------------------------


def commonest_answers(
    results: Iterable[RunResult], load: Callable[[str, str, int, int], list[Example]]
) -> pd.DataFrame:
    """How often a model gives its commonest answer to a task's test questions.

    A model that gives one answer to all of them has lost the question, and its accuracy is the
    share of that answer among the true ones. Of tasks with fixed answers (yes or no) only: those
    with at most a tenth as many answers as questions.

    load: `tasks.load`, since scores hold no texts
    Columns: model, eval_task, seed, n; true_share, the share of the commonest true answer; and for
    each phase <phase>_answer and <phase>_share.
    """
    rows = []
    for model, task, seeds in full_size(results):
        for runs in seeds:
            spec = runs["forgotten"].spec
            scores = {phase: runs[phase].scores[f"{task}/test"] for phase in PHASES}
            # Of all questions: a run's are not the first n where some are too long for its model.
            known = {e.uid: e for e in load(task, "test", sys.maxsize, spec.seed)}
            n = len(scores["forgotten"])
            examples = [known[uid] for uid in scores["forgotten"].uids if uid in known]
            if len({choice for e in examples for choice in e.choices}) > n / 10:
                continue
            for phase, of_phase in scores.items():
                if gone := [uid for uid in of_phase.uids if uid not in known]:
                    raise other_data(
                        f"answers of {runs[phase].spec}",
                        "questions that the task has",
                        f"{len(gone)} others, first {gone[0]!r}",
                    )
            row = {"model": model, "eval_task": task, "seed": spec.seed, "n": n}
            _, row["true_share"] = _commonest([e.choices[e.label] for e in examples])
            for phase, of_phase in scores.items():
                given = zip(of_phase.uids, predictions(of_phase), strict=True)
                answer, share = _commonest([known[uid].choices[i] for uid, i in given])
                row |= {f"{phase}_answer": answer, f"{phase}_share": share}
            rows.append(row)
    of_phases = [f"{phase}_{what}" for phase in PHASES for what in ("answer", "share")]
    return pd.DataFrame(rows, columns=["model", "eval_task", "seed", "n", "true_share", *of_phases])


def _commonest(answers: Sequence[str]) -> tuple[str, float]:
    ((answer, count),) = Counter(answers).most_common(1)
    return answer, count / len(answers)


# --- Figure 4: what predicts forgetting ----------------------------------------------------------


def predictors(
    results: Iterable[RunResult], *, by_seed: bool = False, n_resamples: int = N_RESAMPLES
) -> pd.DataFrame:
    """Forgetting of each task and what might predict it (paper, Fig. 4), one row a model and task.

    by_seed: one row a model, task and seed instead, for the mixed model alone: each row's ratio is
        then defined or not by one seed's examples

    Columns: those of `stats.forgetting` (of which tuned stands for difficulty, and confidence is
    the fine-tuned model's), log_variance with its interval, and seed where by_seed is set.
    log_variance is the natural logarithm of the trace of the covariance of the fine-tuned model's
    hidden states on the test set, mean over seeds; NaN without a probe.
    """
    parts = []
    for _, _, seeds in full_size(results):
        for those in [[runs] for runs in seeds] if by_seed else [seeds]:
            of_task = [run for runs in those for run in runs.values()]
            row = forgetting(of_task, n_resamples=n_resamples)
            variance = _log_variance([runs["tuned"].probe for runs in those], n_resamples)
            seed = {"seed": those[0]["tuned"].spec.seed} if by_seed else {}
            parts.append(row.assign(**as_columns("log_variance", variance), **seed))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _log_variance(probes: Sequence[ProbeResult | None], n_resamples: int) -> Interval:
    """Logarithm of the trace of the covariance, from the squared distances to the mean (N,).

    The interval resamples test examples. The mean is that of all examples in every resample: only
    the distances to it are stored. It matters little, by a share of about 1 / N.
    """
    distances = [p.deviation.astype(float) for p in probes if p is not None]
    known = [d * len(d) / (len(d) - 1) for d in distances if len(d) > 1 and d.any()]
    if not known:
        return Interval(np.nan, np.nan, np.nan)
    groups = [d[:, None] for d in known]
    return bootstrap(lambda means: np.log(means[..., 0]), groups, n_resamples=n_resamples)


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
    require_one_of("direction", direction, ("up", "down"))
    require_number("threshold", threshold, "a confidence from 0 to 1", lambda t: 0 <= t <= 1)
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
        raise other_data(
            f"dynamics of {runs['forgotten'].spec}",
            "examples that were recorded in fine-tuning too",
            f"{len(unknown)} others, first {unknown[0]!r}",
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
    averaged, weighted by n; the interval resamples examples within each seed, and is missing where
    every resample has the same order (with few recorded steps, most examples share them).
    """
    require_whole("n_resamples", n_resamples, 1)
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
        correlation = correlation_percentiles(float(values[0]), values[1:])
        rows.append(
            {
                "model": model,
                "eval_task": task,
                **numbers,
                **as_columns("rank_correlation", correlation),
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
    layer, accuracy with its interval (an example's pairs are resampled together), control (mean
    accuracy of the probes that were fitted to random labels), control_low and control_high
    (between which 95 % of these probes are, of all seeds), n (pairs of question and answer, all
    seeds), is_paper_layer (the fifth-to-last).
    """
    rows = []
    for model, task, seeds in full_size(results):
        probed = _probed(seeds)
        if not probed:
            continue
        layers, paper_layer = probed[0]["base"].layers, probed[0]["base"].variance_layer
        n = sum(found["base"].correct[0].size for found in probed)
        # (N, phase x layer) for each seed
        groups = [
            np.concatenate([_pair_means(found[phase].correct) for phase in PHASES], axis=1)
            for found in probed
        ]
        means = means_of(groups)
        rng = np.random.default_rng(0)
        resampled = resampled_means(groups, n_resamples=n_resamples, rng=rng)
        places = np.arange(len(means)).reshape(len(PHASES), len(layers))
        for (i, phase), (j, layer) in product(enumerate(PHASES), enumerate(layers)):
            place = places[i, j]
            accuracy = percentiles(float(means[place]), resampled[:, place])
            draws = np.concatenate([found[phase].control[:, j] for found in probed])
            rows.append(
                {
                    "model": model,
                    "eval_task": task,
                    "phase": PROBED_PHASES[i],
                    "layer": int(layer),
                    **as_columns("accuracy", accuracy),
                    **as_columns("control", percentiles(float(draws.mean()), draws)),
                    "n": n,
                    "is_paper_layer": bool(layer == paper_layer),
                }
            )
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
