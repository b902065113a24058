"""Results with known accuracies, for tests of what is computed from results."""

from dataclasses import replace

import numpy as np

from forgetlib.schema import Dynamics, ProbeResult, RunResult, RunSpec, Scores, TrainConfig

TRAIN = TrainConfig(learning_rate=1e-4)
PHASES = ("base", "tuned", "forgotten")


def spec_of(
    task, condition, *, seed=0, start=None, n=200, model="tiny", eval_tasks=None, probe=False
):
    """A run on one task, or on a tuple of tasks; evaluated on the same, or on `eval_tasks`."""
    train_tasks = (task,) if isinstance(task, str) else tuple(task)
    return RunSpec(
        train_tasks=train_tasks,
        condition=condition,
        n_train=n,
        n_eval=n,
        seed=seed,
        eval_tasks=train_tasks if eval_tasks is None else tuple(eval_tasks),
        start=start,
        train=None if condition == "base" else TRAIN,
        model=model,
        probe=probe,
    )


def scores_with(task, part, accuracy, n, *, uid_offset=0, confidence=0.8, rng=None):
    """n examples, each with the same confidence when it is right, of which accuracy * n are right.

    The first ones are right, or, with rng, as many as a coin with this accuracy gives.
    """
    right = np.arange(n) < round(accuracy * n)
    if rng is not None:
        right = rng.random(n) < accuracy
    return scores_of(task, part, right, uid_offset=uid_offset, confidence=confidence)


def scores_of(task, part, right, *, uid_offset=0, confidence=0.8):
    """Scores that are right where `right` (N,) says so.

    confidence: p of the likelier response, one number or (N,)
    """
    right = np.asarray(right, bool)
    n = len(right)
    labels = np.arange(n) % 2
    sure = np.log(np.where(right, confidence, 1 - np.asarray(confidence)))
    unsure = np.log(np.where(right, 1 - np.asarray(confidence), confidence))
    values = np.where(labels[:, None] == np.arange(2), sure[:, None], unsure[:, None])
    uids = tuple(f"{task}/{part}/{i + uid_offset}" for i in range(n))
    return Scores(uids, values.astype(np.float32), np.ones((n, 2), np.int32), labels)


def family(
    task,
    base,
    tuned,
    forgotten,
    *,
    condition="random",
    seed=0,
    n=200,
    uid_offset=0,
    model="tiny",
    size=None,
    probes=None,
    dynamics=None,
    rng=None,
):
    """Base, tuned and forgotten run of a task with these test accuracies.

    size: of the forgetting set, where it is smaller than the n of the fine-tuning
    probes: (base, tuned, forgotten) ProbeResults, from `probe_with`
    dynamics: (tuned, forgotten) Dynamics, from `dynamics_of`
    rng: draws which test examples are right; without it, the first ones are
    """
    like = {"seed": seed, "n": n, "model": model, "probe": probes is not None}
    tuned_spec = spec_of(task, "true", **like)
    forgotten_spec = spec_of(task, condition, start=tuned_spec, **like)
    if size is not None:
        forgotten_spec = replace(forgotten_spec, n_train=size)
    specs = (spec_of(task, "base", **like), tuned_spec, forgotten_spec)
    return [
        RunResult(
            spec,
            {
                f"{task}/test": scores_with(
                    task, "test", accuracy, n, uid_offset=uid_offset, rng=rng
                ),
                f"{task}/train": scores_with(task, "train", 0.5, spec.n_train),
            },
            dynamics=None if dynamics is None else (None, *dynamics)[i],
            probe=None if probes is None else probes[i],
        )
        for i, (spec, accuracy) in enumerate(zip(specs, (base, tuned, forgotten), strict=True))
    ]


def with_n_eval(results, n_eval):
    """The same results as if their specs had asked for another number of test examples."""

    def changed(spec):
        start = None if spec.start is None else changed(spec.start)
        return replace(spec, n_eval=n_eval, start=start)

    return [replace(r, spec=changed(r.spec)) for r in results]


def cross(
    tasks,
    tuned,
    forgotten,
    *,
    condition="random",
    start="pairwise",
    seeds=(0,),
    n=200,
    model="tiny",
    rng=None,
):
    """Every pair of tasks: fine-tuned on one, made to forget another; with the starting runs.

    tuned: (K,) test accuracies after fine-tuning
    forgotten: (K, K) test accuracies after forgetting, a row an evaluated task
    start: "pairwise" or "shared"
    rng: draws which test examples are right; without it, the first ones are
    """
    tuned, forgotten = np.asarray(tuned), np.asarray(forgotten)

    def result(spec, accuracies):
        """accuracies: of the spec's eval_tasks"""
        scores = {
            f"{t}/test": scores_with(t, "test", a, n, rng=rng)
            for t, a in zip(spec.eval_tasks, accuracies, strict=True)
        }
        scores |= {f"{t}/train": scores_with(t, "train", 0.5, n) for t in spec.train_tasks}
        return RunResult(spec, scores)

    results = []
    for seed in seeds:
        like = {"seed": seed, "n": n, "model": model}
        blocks = [(tuple(tasks), tuned, forgotten)]
        if start == "pairwise":
            blocks = [((t,), tuned[[i]], forgotten[[i]]) for i, t in enumerate(tasks)]
        for evaluated, before, after in blocks:
            origin = spec_of(evaluated, "true", **like)
            results.append(result(origin, before))
            for j, task in enumerate(tasks):
                spec = spec_of(task, condition, start=origin, eval_tasks=evaluated, **like)
                results.append(result(spec, after[:, j]))
    return results


def probe_with(accuracy, n=200, *, control=0.5, layers=(0, 1, 2), deviation=None, rng=None):
    """A probe that is right about this share of the pairs, at every layer or at each (P,).

    The middle layer is the one of `deviation`. rng: draws which pairs; without it, the first ones.
    control: mean of the twenty control probes' accuracies
    """
    layers = np.asarray(layers)

    def right(share):
        shares = np.broadcast_to(share, len(layers))[:, None, None]
        where = np.arange(2 * n).reshape(n, 2) if rng is None else None
        drawn = where / (2 * n) if rng is None else rng.random((len(layers), n, 2))
        return np.broadcast_to(drawn < shares, (len(layers), n, 2))

    if deviation is None:
        deviation = np.linspace(1, 2, n)
    middle = int(layers[len(layers) // 2])
    draws = control + np.linspace(-0.05, 0.05, 20)[:, None] * np.ones(len(layers))
    return ProbeResult(layers, right(accuracy), draws, middle, np.asarray(deviation))


def dynamics_of(task, confidence, steps=None):
    """confidence: (S, N) of the task's training examples, after `steps` (S,)"""
    confidence = np.asarray(confidence, np.float32)
    steps = np.arange(len(confidence)) if steps is None else np.asarray(steps)
    uids = tuple(f"{task}/train/{i}" for i in range(confidence.shape[1]))
    return Dynamics(steps, uids, confidence)


def passing(task, steps_passed, n_steps, *, upward=True):
    """Dynamics of examples that pass every threshold at these steps (N,); -1: never.

    From 0.1 to 0.9 on the way up, from 0.9 to 0.1 on the way down, one record a step.
    """
    passed = np.asarray(steps_passed)
    beyond = (np.arange(n_steps)[:, None] >= passed) & (passed >= 0)
    confidence = np.where(beyond, 0.9, 0.1) if upward else np.where(beyond, 0.1, 0.9)
    return dynamics_of(task, confidence)
