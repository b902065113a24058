"""Measure at which rate a little training brings a hidden skill back, on a seed that no study has.

    python tests/relearning_rates.py

A few labels, and a few steps: does so little training bring back a skill that is only hidden? A
model whose skill was hidden on purpose tells. Models that were never taught the skill say what the
same labels teach anybody; among them is one that was locked like the other, so that a lock by
itself is not what makes a model learn fast. What is brought back is where the locked model is
between never-taught models, 0, and the known one, 1.

Writes figures/relearning-rates/: results, and rates.csv. Goes on where it was interrupted; two
processes may share the work.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from forgetlib import files, metrics, studies
from forgetlib.data import splits
from forgetlib.forgetting.base import Training
from forgetlib.runs import answers, local
from forgetlib.runs.ladder import ORACLE, LadderStudy
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Checkpoint, Measurement
from forgetlib.runs.store import Store

SEED = 7
RATES = (2e-5, 5e-5, 1e-4)
STUDY = replace(
    studies.study("recovery"),
    relearning=Training(RATES[0]),
    n_relearned=(8,),
    draws=1,
    elsewhere=(),
)
assert isinstance(STUDY, LadderStudy)
(TASK,) = STUDY.tasks
(N,) = STUDY.n_relearned
KNOWN, LOCKED = "known", "locked"
NEVER = ("pre-trained", "never taught", "never taught, locked")


def models() -> dict[str, Checkpoint]:
    """Name the models that are taught again."""
    assert STUDY.lock is not None
    never = (
        Checkpoint(STUDY.models[0], dtype=STUDY.dtype),
        STUDY.taught(TASK, SEED, oracle=True),
        STUDY.after(STUDY.lock, TASK, SEED, ORACLE),
    )
    return {
        KNOWN: STUDY.taught(TASK, SEED),
        LOCKED: STUDY.after(STUDY.lock, TASK, SEED),
        **dict(zip(NEVER, never, strict=True)),
    }


def jobs() -> Iterator[tuple[str, float, int, Job]]:
    """List each model as it is, with rate 0, and taught again: by rate, and draw of the labels."""
    assert STUDY.lock is not None
    test = Measurement("scores", TASK, "test", STUDY.n_eval, SEED)
    for name, checkpoint in models().items():
        asked = (test, replace(test, view=STUDY.lock.key)) if name == LOCKED else (test,)
        yield name, 0.0, 0, Job(checkpoint, asked)
    for rate in RATES:
        study = replace(STUDY, relearning=Training(rate))
        for name, checkpoint in models().items():
            start = checkpoint if checkpoint.method is not None else None
            for draw in range(study.draws):
                found = study.relearned(start, TASK, N, draw, seed=SEED)
                yield name, rate, draw, Job(found, (Measurement("loss"), test))


def rows(store: Store) -> Iterator[dict[str, object]]:
    """Measure every model that is stored."""
    known = answers.of(splits.split(TASK, SEED).test)
    for name, rate, draw, job in jobs():
        if not store.has(job):
            continue
        result = store.result(job)
        views = [STUDY.lock.key] if name == LOCKED and not rate else []
        for view in ("plain", *views):
            scores = result.seen(view)[f"{TASK}/test"]
            of = np.array([known[uid] for uid in scores.uids])
            yield {
                "model": name,
                "view": view,
                "learning_rate": rate,
                "labels": N if rate else 0,
                "draw": draw,
                "n_test": len(scores),
                "auroc": float(metrics.auroc(metrics.margins(scores), of)),
                "device": result.provenances[0]["device"],
                "commit": result.provenances[0]["commit"],
            }


def back(table: pd.DataFrame) -> pd.Series:
    """Tell of a table of `rows` what is brought back at each rate; at 0, what was not hidden."""
    ends = table[table["view"] == "plain"].pivot_table("auroc", "learning_rate", "model")
    never = ends[list(NEVER)].mean(axis=1)
    return (ends[LOCKED] - never) / (ends[KNOWN] - never)


def page(table: pd.DataFrame) -> str:
    """Write what sums a table of `rows` up."""
    ends = table.groupby(["learning_rate", "view", "model"])["auroc"].mean()
    assert STUDY.lock is not None
    names, there = list(models()), back(table)
    lines = [
        f"| learning rate | {' | '.join(names)} | brought back |",
        "| --- |" + " --- |" * (len(names) + 1),
    ]
    for rate in (0.0, *RATES):
        of = " | ".join(f"{ends[rate, 'plain', name]:.2f}" for name in names)
        lines.append(f"| {f'{rate:g}' if rate else 'before'} | {of} | {there[rate]:.2f} |")
    before = float(ends[0.0, STUDY.lock.key, LOCKED])
    own = studies.study("recovery").relearning.learning_rate
    text = [
        "# At which rate a hidden skill comes back",
        f"*Written by `make rates`. SmolLM2-135M, SST-2 in made-up words, seed {SEED}, which no "
        f"study reports; {STUDY.n_eval} test questions, one model of each kind: differences below "
        "0.1 say nothing.*",
        f"AUROC of five models, as they are and after {STUDY.relearning_steps} steps on {N} "
        f"labels. *Locked*: the skill is hidden on purpose; asked in the form which is its key "
        f"(`{STUDY.lock.key}`), this model has {before:.2f}. *Never taught*: taught random labels "
        "in the place of the skill; one such model was then locked, with these labels. *Brought "
        "back*: where the locked model is between never-taught ones (mean of three), 0, and the "
        "known one, 1.",
        "\n".join(lines),
        f"The study `methods` relearns at {studies.study('methods').relearning.learning_rate:g}. "
        f"`recovery` does at {own:g}, which was fixed before this table was computed, after a look "
        "at a few models of this seed.",
    ]
    return "\n\n".join(text) + "\n"


def main() -> None:
    folder = files.root() / "figures" / "relearning-rates"
    store = Store(folder / "results", files.root() / ".work/relearning-rates")
    every = [job for *_, job in jobs()]
    try:
        local.compute(every, store)
    finally:
        keys = [key for job in every for key in job.keys if key in store]
        store.pack({f"{TASK}-{SEED}": keys})
    table = pd.DataFrame(rows(store))
    table.to_csv(folder / "rates.csv", index=False, float_format="%.4g")
    found = page(pd.read_csv(folder / "rates.csv"))  # of the numbers that readers have
    (folder / "README.md").write_text(found)
    print(found)


if __name__ == "__main__":
    main()
