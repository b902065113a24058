"""What several tests share: a study of a second, a comparison of results, a training."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from forgetlib import studies
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.context import Context
from forgetlib.models import forward
from forgetlib.runs.records import Record, Result


@dataclass(frozen=True)
class Towards(Method, registered=False):
    """Train each example towards a response that the test names, with the loss of `Labels`."""

    training: Training
    labels: tuple[int, ...]
    uids: tuple[str, ...]
    name: ClassVar[str] = "towards"

    def sequences(self, lm, example, context):
        return (forward.encode(lm, example, self.labels[self.uids.index(example.uid)]),)

    def loss(self, lm, batch, context):
        return -forward.response_log_likelihoods(lm, batch.inputs).sum() / batch.n_tokens


def finetune(lm, examples, labels, training, seed=0, on_step=None):
    """Train in place towards (N,) labels; return the loss (steps,) before each step."""
    uids = tuple(e.uid for e in examples)
    method = Towards(training, tuple(int(label) for label in labels), uids)
    return loop.train(lm, method, Context(seed, tuple(examples)), on_step)


def small(**changes):
    """A variation of `tiny` of a second: two of its tasks, trained briefly."""
    briefly = Training(3e-3, epochs=3)
    settings = {
        "tasks": ("tiny_city", "tiny_review"),
        "n_train": 24,
        "n_eval": 24,
        "tuned": briefly,
        "forgetting": briefly,
        "records": 2,
        "sizes": (8,),
        "models": ("tiny",),
        "protocol": "pairwise",
    }
    return studies.study("tiny", **(settings | changes))


def in_place_of_tiny(**changes):
    """The same with one task, as if it were the named study: what it finds is packed."""
    found = small(**({"tasks": ("tiny_city",)} | changes))
    return replace(found, name="tiny", named="", description="in the place of tiny")


def same_values(one, other):
    """Whether two readouts are equal to the last bit, types of numbers included."""
    if type(one) is not type(other):
        return False
    for name in one.columns:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, np.ndarray):
            if a.dtype != b.dtype or not np.array_equal(a, b):
                return False
        elif a != b:
            return False
    return True


def same_records(one, other):
    """Whether records are of the same checkpoints and measurements, with the same values."""
    return {r.key for r in one} == {r.key for r in other} and all(
        same_values(a.value, b.value)
        for a, b in zip(*(sorted(x, key=_key) for x in (one, other)), strict=True)
    )


def _key(record: Record):
    return record.key


def same_results(one: list[Result], other: list[Result]):
    """Whether results are of the same jobs in the same order, with the same values."""
    return [(r.checkpoint, r.seed) for r in one] == [(r.checkpoint, r.seed) for r in other] and all(
        same_records(a.records, b.records) for a, b in zip(one, other, strict=True)
    )


# A file with a study: a task and a method of its own.
MINE = '''
from dataclasses import dataclass

from forgetlib.data import tasks
from forgetlib.data.base import Task, ask
from forgetlib.forgetting.base import Method, Training
from forgetlib.studies import Study


def question(row):
    return ask(f"what is name{row['i'] % 50}", ["good", "bad"], row["i"] % 2)


tasks.add(Task("odd", "mine", rows=lambda: ((f"all/{i}", {"i": i}) for i in range(80)),
               question=question, answer_format="verbaliser"))


@dataclass(frozen=True)
class Shrink(Method):
    """Make all weights smaller."""

    factor: float

    def edit(self, lm, context):
        lm.set_weights({name: w * self.factor for name, w in lm.weights().items()})


brief = Training(3e-3, epochs=1)
mine = Study("mine", "one task, one method", ("odd",), seeds=(0,), n_train=12, n_eval=12,
             tuned=brief, forgetting=brief, models=("tiny",), dtype="float32",
             methods=(Shrink(0.5),))
'''
