"""Compare training settings for random labels, on a seed that no study reports.

    python tests/search.py

Which setting forgets the forgetting set, and does the least harm to other tasks? Tasks of both
answer formats; the whole body and low-rank updates; learning rate and epochs of the second phase.
`forgetlib.figures.settings` makes the table. Goes on where it was interrupted; two processes may
share the work.
"""

from dataclasses import replace

from forgetlib import files, studies
from forgetlib.forgetting.base import Training
from forgetlib.runs import local
from forgetlib.runs.records import Job
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


def jobs_of(task: str, tuning: str) -> list[Job]:
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
    base, tuned, _ = study.own_jobs(task, SEED, study.models[0])
    found = [Job(base.checkpoint, asked), Job(tuned.checkpoint, asked)]
    about = (task, "train", N_TRAIN // 2, SEED)
    watched = Measurement("dynamics", *about, settings=(("records", CHECKS),))
    for forgetting in FORGETTING[tuning]:
        of_setting = replace(study, forgetting=forgetting)
        checkpoint = of_setting.own_jobs(task, SEED, study.models[0])[2].checkpoint
        found.append(Job(checkpoint, (watched, *asked)))
    return found


def main() -> None:
    store = Store(files.root() / ".work/search/packed", files.root() / ".work/search")
    jobs = [job for task in TASKS for tuning in TUNED for job in jobs_of(task, tuning)]
    local.compute(jobs, store)


if __name__ == "__main__":
    main()
