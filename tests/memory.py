"""Print the process's peak resident memory in GiB after each task of the embedded suite.

Each task trains one step on its longest training examples, and scores its longest test examples:
the worst that a study can meet.
"""

import resource

from forgetlib import models, scoring, tasks, training
from forgetlib.labels import training_labels
from forgetlib.schema import TrainConfig

N = 4

lm = models.load("embedded")
for name in tasks.suite("embedded"):
    longest = [
        sorted(part, key=lambda e: -len(e.prompts[0]) - max(map(len, e.choices)))[:N]
        for part in (tasks.split(name, 0).train, tasks.split(name, 0).test)
    ]
    labels = training_labels(longest[0], "true", 0)
    training.finetune(lm, longest[0], labels, TrainConfig(1e-6, epochs=1, batch_size=N), 0)
    scoring.score(lm, longest[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(name, f"{peak:.2f}", flush=True)
