"""Results with known accuracies, for tests of what is computed from results."""

import numpy as np

from forgetlib.schema import RunResult, RunSpec, Scores, TrainConfig

TRAIN = TrainConfig(learning_rate=1e-4)


def spec_of(task, condition, *, seed=0, start=None, n=200, model="tiny"):
    return RunSpec(
        train_task=task,
        condition=condition,
        n_train=n,
        n_eval=n,
        seed=seed,
        eval_tasks=(task,),
        start=start,
        train=None if condition == "base" else TRAIN,
        model=model,
    )


def scores_with(task, part, accuracy, n, *, uid_offset=0, confidence=0.8):
    """n examples, of which the first accuracy * n are right, each with the same confidence."""
    right = np.arange(n) < round(accuracy * n)
    labels = np.arange(n) % 2
    sure = np.log(np.where(right, confidence, 1 - confidence))
    unsure = np.log(np.where(right, 1 - confidence, confidence))
    values = np.where(labels[:, None] == np.arange(2), sure[:, None], unsure[:, None])
    uids = tuple(f"{task}/{part}/{i + uid_offset}" for i in range(n))
    return Scores(uids, values.astype(np.float32), np.ones((n, 2), np.int32), labels)


def family(task, base, tuned, forgotten, *, condition="random", seed=0, n=200, uid_offset=0):
    """Base, tuned and forgotten run of a task with these test accuracies."""
    tuned_spec = spec_of(task, "true", seed=seed, n=n)
    specs = (
        spec_of(task, "base", seed=seed, n=n),
        tuned_spec,
        spec_of(task, condition, seed=seed, start=tuned_spec, n=n),
    )
    return [
        RunResult(
            spec,
            {
                f"{task}/test": scores_with(task, "test", accuracy, n, uid_offset=uid_offset),
                f"{task}/train": scores_with(task, "train", 0.5, n),
            },
        )
        for spec, accuracy in zip(specs, (base, tuned, forgotten), strict=True)
    ]
