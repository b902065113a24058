"""Compare training settings for the study `embedded`, on a seed that it does not report.

    python tests/search.py

Tasks of every format and family, one after the other. Fine-tuning should improve or keep accuracy,
and random labels should bring the forgetting set to chance. The paper gives the second learning
rate. Writes figures/embedded/settings.csv; goes on where it was interrupted.
"""

from dataclasses import replace

import pandas as pd

from forgetlib import files, metrics, studies
from forgetlib.forgetting.base import Training
from forgetlib.runs import grid, local
from forgetlib.runs.store import Store

SEED = 7
TASKS = ("winogrande", "arc_challenge", "basic_arithmetic", "logical_reasoning", "rte", "sst2")
SETTINGS = ((2e-5, 2), (2e-5, 4), (5e-5, 2))  # learning rate and epochs
TUNED = {f"{rate:g} x {n}": Training(rate, epochs=n) for rate, n in SETTINGS}
FORGETTING = {f"1e-4 x {n}": Training(1e-4, epochs=n) for n in (2, 3)}
START = "2e-05 x 2"  # what the forgetting settings are compared from


def wanted():
    """(fine-tuning, forgetting, jobs of base, tuned and forgotten model) of every setting."""
    study = studies.study("embedded")
    for task in TASKS:
        for name, tuned in TUNED.items():
            for other, forgetting in FORGETTING.items() if name == START else [("", None)]:
                settings = {"tuned": tuned, "forgetting": forgetting or study.forgetting}
                jobs = replace(study, **settings, records=0).own_jobs(task, SEED, study.models[0])
                scored = [j.only(m for m in j.measurements if m.readout == "scores") for j in jobs]
                yield task, name, other, scored if forgetting else scored[:2]


def main():
    store = Store(files.root() / ".work/search/packed", files.root() / ".work/search")
    settings = list(wanted())
    local.compute(list({job.id: job for *_, jobs in settings for job in jobs}.values()), store)
    rows = []
    for task, tuning, forgetting, jobs in settings:
        before, after, *end = (store.result(job) for job in jobs)
        row = {"task": task, "fine-tuning": tuning, "forgetting": forgetting, "seed": SEED}
        test, train = f"{task}/test", f"{task}/train"
        row |= {"n_train": len(before.scores[train]), "n_test": len(before.scores[test])}
        row["pre-trained"] = metrics.correct(before.scores[test]).mean()
        row["fine-tuned"] = metrics.correct(after.scores[test]).mean()
        for found in end:
            row["after forgetting"] = metrics.correct(found.scores[test]).mean()
            row["on the forgetting set"] = metrics.correct(found.scores[train]).mean()
        rows.append(row | {"commit": after.provenances[0]["commit"]})
    table = pd.DataFrame(rows)
    folder = grid.figures_dir(studies.study("embedded"))
    folder.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(folder / "settings.csv", index=False)
    print(table.drop(columns="commit").round(2).to_string(index=False))


if __name__ == "__main__":
    main()
