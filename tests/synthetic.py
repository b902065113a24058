"""Results with known accuracies, for tests of what is computed from results."""

from dataclasses import replace
from functools import cache

import numpy as np

from forgetlib.forgetting.base import Training
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring.base import Dynamics, HiddenVariance, Probe, Scores
from forgetlib.runs.records import Record, Result
from forgetlib.runs.specs import Checkpoint, Data, Measurement

TRAIN = Training(learning_rate=1e-4)
PHASES = ("base", "tuned", "forgotten")


def checkpoint_of(task, kind, *, seed=0, start=None, n=200, model="tiny"):
    """A checkpoint of one task, or of a tuple of tasks: base, true, random or flipped."""
    if kind == "base":
        return Checkpoint(model)
    tasks = (task,) if isinstance(task, str) else tuple(task)
    return Checkpoint(model, Labels(kind, TRAIN), start, Data(tasks, n, seed), seed)


def result_of(checkpoint, scores, *, seed=None, n_eval=None, provenance=None, **values):
    """A result with these scores, by "<task>/<split>", and these other values of its own task.

    values: dynamics, dose, probe, hidden_variance, loss, logit_lens, prompt_nats
    """
    seed = checkpoint.seed if seed is None else seed
    about = {} if provenance is None else provenance
    records = []
    for where, found in scores.items():
        task, split = where.split("/")
        n = n_eval if n_eval and split == "test" else max(len(found), 1)
        records.append(
            Record(checkpoint, Measurement("scores", task, split, n, seed), found, about)
        )
    task = next(iter(scores)).split("/")[0]
    for name, value in values.items():
        if value is not None:
            asked = Measurement(name, task, "train" if name == "dynamics" else "test", 1, seed)
            asked = Measurement(name) if name in ("loss", "dose") else asked
            records.append(Record(checkpoint, asked, value, about))
    return Result(checkpoint, seed, tuple(records))


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
    uids = uids_of(task, part, n, uid_offset)
    return Scores(uids, values.astype(np.float32), np.ones((n, 2), np.int32), labels)


@cache
def uids_of(task, part, n, offset):
    """The same for every model that is asked: a matrix has thousands."""
    return tuple(f"{task}/{part}/{i + offset}" for i in range(n))


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
    probes: (base, tuned, forgotten) pairs of Probe and HiddenVariance, from `probe_with`
    dynamics: (tuned, forgotten) Dynamics, from `dynamics_of`
    rng: draws which test examples are right; without it, the first ones are
    """
    like = {"seed": seed, "n": n, "model": model}
    tuned_one = checkpoint_of(task, "true", **like)
    last = checkpoint_of(task, condition, start=tuned_one, **(like | {"n": size or n}))
    made = (checkpoint_of(task, "base", **like), tuned_one, last)
    results = []
    for i, (checkpoint, accuracy) in enumerate(zip(made, (base, tuned, forgotten), strict=True)):
        scores = {
            f"{task}/test": scores_with(task, "test", accuracy, n, uid_offset=uid_offset, rng=rng),
            f"{task}/train": scores_with(task, "train", 0.5, checkpoint.n or n),
        }
        probe, variance = (None, None) if probes is None else probes[i]
        results.append(
            result_of(
                checkpoint,
                scores,
                seed=seed,
                dynamics=None if dynamics is None else (None, *dynamics)[i],
                probe=probe,
                hidden_variance=variance,
            )
        )
    return results


def moved(result, checkpoint):
    """The same numbers as if they were of another checkpoint."""
    records = tuple(replace(r, checkpoint=checkpoint) for r in result.records)
    return replace(result, checkpoint=checkpoint, records=records)


def with_training(checkpoint, **changes):
    """The checkpoint by a training with other settings."""
    training = replace(checkpoint.method.training, **changes)
    return replace(checkpoint, method=replace(checkpoint.method, training=training))


def with_n_eval(results, n_eval):
    """The same results as if they had been asked for another number of test examples."""

    def changed(record):
        asked = record.measurement
        if asked.split == "test":
            asked = replace(asked, n=n_eval)
        return replace(record, measurement=asked)

    return [replace(r, records=tuple(map(changed, r.records))) for r in results]


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
    again=None,
):
    """Every pair of tasks: fine-tuned on one, made to forget another; with the starting runs.

    tuned: (K,) test accuracies after fine-tuning
    forgotten: (K, K) test accuracies after forgetting, a row an evaluated task
    start: "pairwise" or "shared"
    rng: draws which test examples are right; without it, the first ones are
    again: accuracies of a control by true labels, (K, K) or one for all; None: there is none
    """
    tuned, forgotten = np.asarray(tuned), np.asarray(forgotten)

    def result(checkpoint, evaluated, accuracies):
        scores = {
            f"{t}/test": scores_with(t, "test", a, n, rng=rng)
            for t, a in zip(evaluated, accuracies, strict=True)
        }
        return result_of(checkpoint, scores)

    results = []
    for seed in seeds:
        like = {"seed": seed, "n": n, "model": model}
        same = np.broadcast_to(np.nan if again is None else again, forgotten.shape)
        blocks = [(tuple(tasks), tuned, forgotten, same)]
        if start == "pairwise":
            blocks = [((t,), *(x[[i]] for x in blocks[0][1:])) for i, t in enumerate(tasks)]
        for evaluated, before, after, control in blocks:
            origin = checkpoint_of(evaluated, "true", **like)
            results.append(result(origin, evaluated, before))
            for j, task in enumerate(tasks):
                made = checkpoint_of(task, condition, start=origin, **like)
                results.append(result(made, evaluated, after[:, j]))
                if again is not None:
                    made = checkpoint_of(task, "true", start=origin, **like)
                    results.append(result(made, evaluated, control[:, j]))
    return results


def probe_with(accuracy, n=200, *, control=0.5, layers=(0, 1, 2), deviation=None, rng=None):
    """A probe that is right about this share of the pairs, at every layer or at each (P,).

    And the hidden states' variance, of the middle layer.
    rng: draws which pairs; without it, the first ones
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
    return Probe(layers, right(accuracy), draws), HiddenVariance(middle, np.asarray(deviation))


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
