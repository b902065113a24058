"""Tables in which a claim of the paper is true, false, or cannot be told."""

import numpy as np
import pandas as pd
from synthetic import cross as cross_runs, family, passing, probe_with

from forgetlib.data import tasks
from forgetlib.figures import agreement, crosstask, fig2, fig5, fig6
from forgetlib.figures.statements import CANNOT_DECIDE, UNDECIDED

OPEN = {UNDECIDED, CANNOT_DECIDE}
COMMONSENSE = ("piqa", "hellaswag", "winogrande", "openbookqa")
SCIENCE = ("arc_easy", "arc_challenge", "sciq")
LANGUAGE = ("rte", "mrpc", "sst2", "cb", "wic_hub")
TASKS = (*COMMONSENSE, *SCIENCE, *LANGUAGE, "logical_reasoning", "boolq", "medmcqa")
K = len(TASKS)
DESCRIBED = tasks.describe(TASKS)
FEW = TASKS[:3]


def rng():
    return np.random.default_rng(0)


def own(names, forgotten, tuned=0.9, n=200):
    """Own-task forgetting of each task, with these accuracies."""
    tuned = np.broadcast_to(tuned, len(names))
    runs = [
        r
        for t, a, b in zip(names, tuned, forgotten, strict=True)
        for r in family(t, 0.5, a, b, n=n)
    ]
    return fig2.table(runs, n_resamples=200)


def cross(
    ratios, names=TASKS, *, condition="random", model="tiny", start="pairwise", noisy=True, n=400
):
    """Cross-task forgetting with these ratios (K, K), after a fine-tuned accuracy of 0.9.

    The control by true labels loses nothing, so that AUROC lost beyond it goes with the ratio.
    """
    return of_seeds([ratios], names, condition, model, start, noisy, n)


def of_seeds(
    each, names=TASKS, condition="random", model="tiny", start="pairwise", noisy=True, n=400
):
    """The same of several seeds, each with its own ratios."""
    k = len(names)
    height = 0.4 if condition == "random" else 0.8
    draw = rng() if noisy else None
    runs = []
    for seed, ratios in enumerate(each):
        forgotten = 0.9 - height * np.asarray(ratios)[:k, :k]
        like = {"condition": condition, "model": model, "start": start, "n": n, "rng": draw}
        like["again"] = 0.9
        runs += cross_runs(names, np.full(k, 0.9), forgotten, seeds=(seed,), **like)
    return crosstask.cross_task(runs, condition, n_resamples=200)


BY_TASK = np.linspace(0.1, 0.9, K)
BY_ROW = np.repeat(BY_TASK[:, None], K, axis=1)
IS_COMMONSENSE = np.isin(TASKS, COMMONSENSE)


def others_better(strength, n_seeds=3):
    """Commonsense labels add `strength` to what other tasks forget.

    A task's own labels do less than all others where the strength is positive, else more.
    """
    ratios = 0.3 + strength * IS_COMMONSENSE + 0.01 * np.arange(K) + np.zeros((K, K))
    ratios[np.diag_indices(K)] = 0.05 if strength > 0 else 0.9
    return of_seeds([ratios] * n_seeds, n=600)


def predictors(lost, *, names=TASKS, **columns):
    """fig4.table; predictors that are not given are unrelated to what is lost."""
    n = len(names)
    unrelated = dict(
        zip(("tuned", "confidence", "log_variance"), rng().random((3, n)), strict=True)
    )
    rows = pd.DataFrame({"model": "tiny", "eval_task": names, "auroc_lost": lost[:n]})
    rows["known"] = True
    return rows.assign(**{c: np.asarray(columns.get(c, v))[:n] for c, v in unrelated.items()})


def examples(slope, names=TASKS, n=300):
    """fig4_examples.table; `slope` of both predictors on the logit of being forgotten.

    After true labels, which are lost has nothing to do with either.

    slope: one number, or one a task
    """
    parts = []
    draw = rng()
    for name, own_slope in zip(names, np.broadcast_to(slope, len(names)), strict=True):
        x = draw.normal(size=(2, n))
        lost = draw.random(n) < 1 / (1 + np.exp(-own_slope * x.sum(0)))
        parts.append(
            pd.DataFrame(
                {
                    "model": "tiny",
                    "eval_task": name,
                    "seed": 0,
                    "uid": [f"{name}/test/{i}" for i in range(n)],
                    "confidence": x[0],
                    "log_deviation": x[1],
                    "tuned_correct": True,
                    "forgotten_correct": ~lost,
                    "forgotten_confidence": 0.5,
                    "again_correct": (draw.random(n) < 0.5).astype(float),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def order(sign, names=TASKS, n_examples=60):
    """Steps of learning and of forgetting that go together (+1), oppositely (-1), or not (0)."""
    runs = []
    draw = rng()
    for name in names:
        learned = 1 + np.arange(n_examples) % 20
        forgotten = {1: learned, -1: 21 - learned, 0: draw.permutation(learned)}[sign]
        forgotten = np.where(draw.random(n_examples) < 0.2, draw.permutation(learned), forgotten)
        both = (passing(name, learned, 25), passing(name, forgotten, 25, upward=False))
        runs += family(name, 0.6, 0.9, 0.6, n=n_examples, dynamics=both)
    return fig5.table(runs, n_resamples=100)


def probes(fine_tuned, forgotten, names=TASKS):
    runs = []
    draw = rng()
    for name in names:
        found = [probe_with(a, rng=draw) for a in (0.6, fine_tuned, forgotten)]
        runs += family(name, 0.6, 0.9, 0.6, probes=found)
    return fig6.recovery_table(runs, n_resamples=100)


def sizes(small, full, names=TASKS, size=50, tuned=0.95, middle=None):
    """agreement.of_sizes of sets of 50 and 200 examples, and with `middle` of 100."""
    runs = []
    tuned = np.broadcast_to(tuned, len(names))
    for name, few, many, before in zip(names, small, full, tuned, strict=False):
        runs += family(name, 0.6, before, many) + family(name, 0.6, before, few, size=size)
    for name, some, before in zip(names, () if middle is None else middle, tuned, strict=False):
        runs += family(name, 0.6, before, some, size=100)
    return agreement.of_sizes(runs)


def one_size(forgotten, names=TASKS):
    runs = [family(t, 0.6, 0.95, a) for t, a in zip(names, forgotten, strict=True)]
    return agreement.of_sizes([run for of_task in runs for run in of_task])


ACCURACIES = np.linspace(0.5, 0.9, K)
SPLIT = np.where(np.isin(TASKS, LANGUAGE), 0.5, 0.75) + 0.01 * np.arange(K)
