"""Compare training settings for the study `embedded`, on a seed that it does not report.

    python tests/search.py

Tasks of every format and family, one after the other. Fine-tuning should improve or keep accuracy,
and random labels should bring the forgetting set to chance. The paper gives the second learning
rate. Writes figures/embedded/settings.csv; goes on where it was interrupted.
"""

from dataclasses import replace

import pandas as pd

from forgetlib import experiment, stats
from forgetlib.schema import TrainConfig
from forgetlib.store import Store

SEED = 7
TASKS = ("winogrande", "arc_challenge", "basic_arithmetic", "logical_reasoning", "rte", "sst2")
SETTINGS = ((2e-5, 2), (2e-5, 4), (5e-5, 2))  # learning rate and epochs
TUNED = {f"{rate:g} x {n}": TrainConfig(rate, epochs=n) for rate, n in SETTINGS}
FORGETTING = {f"1e-4 x {n}": TrainConfig(1e-4, epochs=n) for n in (2, 3)}
START = "2e-05 x 2"  # what the forgetting settings are compared from


def specs():
    """(fine-tuning, forgetting, base, tuned, forgotten) of every setting and task."""
    study = experiment.study("embedded")
    for task in TASKS:
        base, *_ = study.own_task(task, SEED, study.models[0])
        base = replace(base, probe=False)
        for name, config in TUNED.items():
            tuned = replace(base, condition="true", train=config)
            for other, forgetting in FORGETTING.items() if name == START else ():
                yield (
                    name,
                    other,
                    base,
                    tuned,
                    replace(tuned, condition="random", start=tuned, train=forgetting),
                )
            yield name, "", base, tuned, None


def main():
    store = Store(experiment.root() / ".work/search.parquet", experiment.root() / ".work/search")
    wanted = list(specs())
    runs = {
        s.run_id: s for *_, base, tuned, forgotten in wanted for s in (base, tuned, forgotten) if s
    }
    experiment.compute(list(runs.values()), store)
    rows = []
    for tuning, forgetting, base, tuned, forgotten in wanted:
        task = base.train_task
        before, after = (store.read(s.run_id) for s in (base, tuned))
        row = {"task": task, "fine-tuning": tuning, "forgetting": forgetting, "seed": SEED}
        test, train = f"{task}/test", f"{task}/train"
        row |= {"n_train": len(before.scores[train]), "n_test": len(before.scores[test])}
        row["pre-trained"] = stats.correct(before.scores[test]).mean()
        row["fine-tuned"] = stats.correct(after.scores[test]).mean()
        if forgotten is not None:
            end = store.read(forgotten.run_id)
            row["after forgetting"] = stats.correct(end.scores[test]).mean()
            row["on the forgetting set"] = stats.correct(end.scores[train]).mean()
        rows.append(row | {"commit": after.provenance["commit"]})
    table = pd.DataFrame(rows)
    folder = experiment.figures_dir(experiment.study("embedded"))
    folder.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(folder / "settings.csv", index=False)
    print(table.drop(columns="commit").round(2).to_string(index=False))


if __name__ == "__main__":
    main()
