"""Choose how random labels are trained, on a seed that no study reports.

    python tests/search.py

Which setting forgets the forgetting set, and does the least harm to other tasks? Tasks of both
answer formats; the whole body and low-rank updates; learning rate and epochs of the second phase.
The rule, fixed beforehand: of the settings that reach the dose in every task, the one after which
nats a token of other tasks' true responses have risen least. The dose is reached where, on the
forgetting set, max(AUROC, 1 - AUROC) is at most 0.60 in the last two checks, or the labels trained
on are fitted to 0.9.

What is chosen is tried on the other models of the study `scale` too, on a task of each format: does
it reach the dose there?

Writes figures/settings/: results, and settings.csv. Goes on where it was interrupted; two processes
may share the work.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from forgetlib import files, metrics, studies
from forgetlib.data import splits, tasks
from forgetlib.figures import measures
from forgetlib.forgetting.base import Training
from forgetlib.runs import answers, local
from forgetlib.runs.records import Job, Result
from forgetlib.runs.specs import Measurement
from forgetlib.runs.store import Store

SEED = 7
N_TRAIN, N_TEST, N_OTHER = 128, 120, 40
CHECKS = 2  # of half of the forgetting set in the second phase, before its end
OTHERS = ("arc_easy", "hellaswag")  # what is not trained on: how much harm is done elsewhere
# Both formats; SciRIFF, whose passages are long, comes last.
TASKS = (
    "sst2",
    "common_knowledge",
    "commonsense_qa",
    "pattern",
    "string_operations",
    "sciriff_yesno",
)
TUNED = {"lora": Training(2e-4), "body": Training(2e-5)}
# The first is the paper's rate.
FORGETTING = {
    "body": (Training(1e-4), Training(2e-5)),
    "lora": (Training(5e-4), Training(1e-3), Training(5e-4, epochs=4)),
}
MODEL = "gemma-3-270m"
CHOSEN = {"lora": (Training(5e-4, epochs=4),)}  # which other models are tried with
OTHER_MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")
# What is tried: model, task, tuning and the settings of the second phase.
Trial = tuple[str, str, str, tuple[Training, ...]]
TRIALS: tuple[Trial, ...] = (
    *(
        (m, task, tuning, CHOSEN[tuning])
        for m in OTHER_MODELS
        for task in TASKS[:2]
        for tuning in CHOSEN
    ),
    *((MODEL, task, tuning, FORGETTING[tuning]) for task in TASKS for tuning in TUNED),
)


def jobs_of(model: str, task: str, tuning: str, settings: tuple[Training, ...]) -> list[Job]:
    """List the base, fine-tuned and forgotten models of a task, with what is asked of each."""
    study = replace(
        studies.study("embedded"),
        tuning=tuning,
        tuned=TUNED[tuning],
        n_train=N_TRAIN,
        n_eval=N_TEST,
        sizes=(),
        records=0,
    )
    asked = (
        Measurement("scores", task, "test", N_TEST, SEED),
        Measurement("scores", task, "train", N_TRAIN, SEED),
        *(Measurement("scores", other, "test", N_OTHER, SEED) for other in OTHERS),
    )
    base, tuned, _ = study.own_jobs(task, SEED, model)
    found = [Job(base.checkpoint, asked), Job(tuned.checkpoint, asked)]
    about = (task, "train", N_TRAIN // 2, SEED)
    watched = Measurement("dynamics", *about, settings=(("records", CHECKS),))
    for forgetting in settings:
        of_setting = replace(study, forgetting=forgetting)
        checkpoint = of_setting.own_jobs(task, SEED, model)[2].checkpoint
        found.append(Job(checkpoint, (watched, *asked)))
    return found


MOST_AUROC, LEAST_FIT = 0.6, 0.9  # of the dose


def answers_of(task: str, seed: int) -> answers.Answers:
    whole = splits.split(task, seed)
    return answers.of(whole.train + whole.test)


def reached(result: Result, fit: float) -> bool:
    """Tell whether the set was forgotten in the last two checks, or its labels learned."""
    task, found = result.checkpoint.task, result.dynamics
    fixed = tasks.get(task).has_fixed_answers
    known = np.array([answers_of(task, SEED)[uid] for uid in found.uids]) if fixed else None
    sure = np.clip(found.confidence.astype(float), 1e-9, 1 - 1e-9)
    margins = np.log(sure) - np.log1p(-sure)
    areas = np.array([metrics.auroc(margin, known) for margin in margins[-2:]])
    return bool((np.maximum(areas, 1 - areas) <= MOST_AUROC).all() or fit >= LEAST_FIT)


def rows(store: Store) -> Iterator[dict[str, object]]:
    """Measure every setting of which all is stored."""
    for trial in TRIALS:
        model, task, tuning, _ = trial
        base, tuned, *jobs = jobs_of(*trial)
        for job in jobs:
            if not all(map(store.has, (base, tuned, job))):
                continue
            results = [store.result(j) for j in (base, tuned, job)]
            table = measures.table(results, answers_of).set_index("phase")
            before, after = table.loc["tuned"], table.loc["random"]
            training = job.checkpoint.method.settings()
            yield {
                "model": model,
                "task": task,
                "answer_format": after["answer_format"],
                "tuning": tuning,
                "learning_rate": training.learning_rate,
                "epochs": training.epochs,
                "n_train": N_TRAIN,
                "n_test": after["n"],
                "set_auroc": after["set_auroc"],
                "fit": after["fit"],
                "dose_reached": reached(results[2], after["fit"]),
                "auroc_tuned": before["auroc"],
                "auroc": after["auroc"],
                "accuracy_tuned": before["accuracy"],
                "accuracy": after["accuracy"],
                "nll_elsewhere_tuned": before["nll_elsewhere"],
                "damage": after["damage"],
                "verdict": after["verdict"],
                "device": results[2].provenances[0]["device"],
                "commit": results[2].provenances[0]["commit"],
            }


def main() -> None:
    folder = files.root() / "figures/settings"
    store = Store(folder / "results", files.root() / ".work/search")
    of_trials = {trial: jobs_of(*trial) for trial in TRIALS}
    try:
        local.compute([job for jobs in of_trials.values() for job in jobs], store)
    finally:
        blocks = {}
        for (model, task, *_), jobs in of_trials.items():
            block = task if model == MODEL else f"{model}-{task}"
            keys = [key for job in jobs for key in job.keys if key in store]
            blocks.setdefault(block, {}).update(dict.fromkeys(keys))
        store.pack({block: list(keys) for block, keys in blocks.items()})
        write(pd.DataFrame(rows(store)), folder)


def write(table: pd.DataFrame, folder: Path) -> None:
    """Write the table of all settings, and a page that sums it up and says which is chosen."""
    if table.empty:
        return
    table.to_csv(folder / "settings.csv", index=False, float_format="%.4g")
    by = ["tuning", "learning_rate", "epochs"]
    others = table[table["model"] != MODEL]
    table = table[table["model"] == MODEL]
    summary = table.groupby(by, sort=False).agg(
        tasks=("task", "size"), reached=("dose_reached", "sum"), damage=("damage", "mean")
    )
    whole = summary[summary["tasks"] == len(TASKS)]
    able = whole[whole["reached"] == len(TASKS)]
    said = "No setting has been tried on all of these tasks and reaches the dose in each yet."
    if len(able):
        tuning, rate, epochs = able["damage"].idxmin()
        said = f"Chosen: {tuning}, {rate:g}, {epochs} epochs."
    lines = [
        "# How random labels are trained",
        f"*Written by `make settings`. Gemma-3-270M, seed {SEED}, which no study reports; "
        f"{N_TRAIN} training and {N_TEST} test questions a task.*",
        "The dose is reached where, on the forgetting set, max(AUROC, 1 - AUROC) is at most "
        f"{MOST_AUROC} in the last two checks, or the random labels are fitted to {LEAST_FIT}. "
        "Damage is the rise of nats a token of the true responses of "
        f"{' and '.join(OTHERS)}, {N_OTHER} questions each, where these are of another family than "
        f"the task. {said}",
        "| tuning | learning rate | epochs | tasks | dose reached in | damage, mean |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (tuning, rate, epochs), of in summary.iterrows():
        lines.append(
            f"| {tuning} | {rate:g} | {epochs} | {of['tasks']:.0f} | {of['reached']:.0f} "
            f"| {of['damage']:.2f} |"
        )
    lines += ["", *each(table)]
    for model, of in others.groupby("model", sort=False):
        dose = f"the dose is reached in {of['dose_reached'].sum()} of {len(of)} tasks"
        lines += ["", f"What is chosen, with {model}: {dose}.", "", *each(of)]
    text = "\n\n".join(lines[:4]) + "\n" + "\n".join(lines[4:]) + "\n"
    (folder / "README.md").write_text(text)
    print(text)


def each(table: pd.DataFrame) -> list[str]:
    """Write a table with a row a task and setting."""
    lines = [
        "| task | tuning | rate x epochs | set AUROC, fit | dose | AUROC, tuned and after "
        "| damage |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table.to_dict("records"):
        lines.append(
            f"| {row['task']} | {row['tuning']} | {row['learning_rate']:g} x {row['epochs']} "
            f"| {row['set_auroc']:.2f}, {row['fit']:.2f} "
            f"| {'reached' if row['dose_reached'] else '-'} "
            f"| {row['auroc_tuned']:.2f}, {row['auroc']:.2f} | {row['damage']:.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()
