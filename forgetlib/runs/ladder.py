"""A study of methods: what each makes a model forget, and what of it comes back, rung by rung.

Long because its models, by their roles, and the jobs that ask them are one subject.

Models of a skill and seed, by their role:

    base       pre-trained
    known      fine-tuned on the skill's true labels
    forgotten  known, and then a method
    oracle     never taught: fine-tuned and then made to forget in the same way, on labels that were
               drawn at random from the start, so that there was no skill in them
    moved      known, and then the same method on another task: what any such change does
    anew       never taught, and then a method that makes true responses less likely, on the true
               labels: what of the opposite it teaches by itself
    locked     known, and then hidden on purpose behind another form of the question: a positive
               control, as its skill is known to be there

Each is asked directly; those that knew, forgot, never knew or are locked also in other forms, with
examples in the prompt, with rounded weights (quantised), and after a little training on labels that
no other set has (relearning). Where hidden states are looked into, every layer is asked what it
would answer (logit lens), and forgotten models once more without the direction in which forgetting
moved them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from forgetlib.data import tasks
from forgetlib.errors import InputError, require, require_one_of, require_whole
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.direction import WithoutDirection
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.lock import Lock
from forgetlib.forgetting.quantise import Quantise
from forgetlib.runs.grid import Study
from forgetlib.runs.records import Job
from forgetlib.runs.specs import PLAIN, Checkpoint, Measurement

KNOWN, FORGOTTEN, ORACLE, MOVED, ANEW, LOCKED = (
    "known",
    "forgotten",
    "oracle",
    "moved",
    "anew",
    "locked",
)

# How often a method without a dose is asked while it is trained.
CHECKS = 16
# So low that a model that knows the skill loses nothing by it, and so high that most of a hidden
# skill came back in a pilot (figures/relearning-rates).
RELEARNING = Training(5e-5)


@dataclass(frozen=True)
class LadderStudy(Study):
    """Name a study of methods on a few skills, in sections.

    tasks: the skills, first one that no model knows before; `tuned` teaches one, `forgetting` is of
        random labels, `methods` are further ways to forget
    more_methods: tried on the first skill and seed alone
    views, readouts: other forms in which test questions are asked, and other ways to read them:
        "probe" is a rung of the ladder
    elsewhere: tasks of which `n_elsewhere` questions are asked of every model: those that methods
        retain, and others
    moved_by: the task on which methods are tried to see what any such change does; "": none
    quantised: ways to round the weights of known, forgotten and never-taught models
    lock: how a skill is hidden on purpose, behind one of `views`; None: there is no such control
    relearning: how what is forgotten is taught again; its epochs follow from `relearning_steps`,
        which are as many for each number of labels
    n_relearned: numbers of labelled questions
    draws: how many different sets of questions for each
    inside: whether hidden states are looked into
    trajectories: whether methods are compared at equal collateral
    """

    sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "methods": ("dose", "forms", "generalisation"),
        "collateral": ("collateral",),
        "oracles": ("ladder",),
        "anew": ("ladder",),
        "relearning": ("ladder",),
        "inside": ("ladder",),
    }
    notebooks: ClassVar[str] = "notebooks/methods"

    more_methods: tuple[Method, ...] = ()
    moved_by: str = ""
    quantised: tuple[Quantise, ...] = ()
    relearning: Training = RELEARNING
    relearning_steps: int = 16
    n_relearned: tuple[int, ...] = (8, 128)
    draws: int = 2
    lock: Lock | None = None
    inside: bool = False
    trajectories: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        what = f"study {self.name!r}"
        require(f"relearning of {what}", self.relearning, Training, "a Training")
        for name in ("relearning_steps", "draws"):
            require_whole(f"{name} of {what}", getattr(self, name), 1)
        for n in self.n_relearned:
            require_whole(f"n_relearned of {what}", n, 1)
        for method in self.more_methods:
            require(f"more_methods of {what}", method, Method, "a Method")
        for method in self.quantised:
            require(f"quantised of {what}", method, Quantise, "a Quantise")
        if self.lock is not None:
            require(f"lock of {what}", self.lock, Lock, "a Lock, or None")
            if self.lock.key not in self.views:
                raise InputError(
                    f"lock of {what}",
                    expected="a key among the study's views, which shows that the skill is there",
                    found=repr(self.lock.key),
                    do=f"Add it: views=(..., {self.lock.key!r}).",
                )
        if self.moved_by:
            tasks.get(self.moved_by)
            if self.moved_by in self.tasks:
                raise InputError(
                    f"moved_by of {what}",
                    expected="another task than the skills, to see what any such change does",
                    found=repr(self.moved_by),
                    do='Name another task, or none: moved_by="".',
                )
        every = (*self.every_method, *self.more_methods)
        if again := {m.name for m in every if every.count(m) > 1}:
            raise InputError(
                f"methods of {what}",
                expected="every method with the same settings once",
                found=sorted(again),
                do="Leave one out: random labels are there already, as `forgetting`.",
            )
        trained = {*self.tasks, self.moved_by}
        for method in (*self.methods, *self.more_methods):
            if both := sorted(trained & set(method.retained())):
                raise InputError(
                    f"methods of {what}",
                    expected="retain sets of other tasks than the skills and `moved_by`",
                    found=f"{method.name} retains {both}",
                    do="Leave these out of the retain set.",
                )

    @property
    def not_drawn(self) -> tuple[str, ...]:
        """Name the figures of its kind that it has nothing for."""
        return () if self.trajectories else ("collateral",)

    @property
    def every_method(self) -> tuple[Method, ...]:
        """List the methods that are tried on every skill and seed, random labels first."""
        return (self._random, *self.methods)

    def skill(self, name: str | None = None) -> str:
        """Give the name of one of the skills, the first where none is named; else InputError."""
        if name is not None:
            require_one_of(f"skill of study {self.name!r}", name, self.tasks)
        return name or self.tasks[0]

    def of(self, task: str, seed: int) -> tuple[Method, ...]:
        """List the methods that are tried on a skill and seed."""
        first = (task, seed) == (self.tasks[0], self.seeds[0])
        return (*self.every_method, *(self.more_methods if first else ()))

    @property
    def retained(self) -> frozenset[str]:
        """List the tasks that some method retains, whether or not the others do."""
        methods = (*self.every_method, *self.more_methods)
        return frozenset(task for method in methods for task in method.retained())

    def unrelated(self, task: str) -> tuple[str, ...]:
        """List the tasks elsewhere that no method retains, of other families than a skill's."""
        others = (t for t in self.elsewhere if t not in self.retained)
        return tuple(t for t in others if tasks.get(t).family != tasks.get(task).family)

    def away(self, task: str) -> tuple[str, ...]:
        """List the tasks elsewhere by which harm is read: of those there are, the least related."""
        others = tuple(t for t in self.elsewhere if t != task)
        free = tuple(t for t in others if t not in self.retained)
        return self.unrelated(task) or free or others

    @staticmethod
    def has_trajectory(method: Method) -> bool:
        """Tell whether a training leads to what a method makes, so that it is checked on the way.

        Not where what it makes is far from where its training ends, as with a task vector, nor
        where a hook changes the model from its first step on.
        """
        own = type(method)
        untouched = own.after is Method.after and own.hook is Method.hook
        return method.kind == "loss" and untouched

    # --- models

    def taught(self, task: str, seed: int, *, oracle: bool = False) -> Checkpoint:
        """Make the model that knows a skill; or the oracle's, which was taught random labels."""
        found = self.tuned_on((task,), seed, self.models[0])
        assert found.data is not None
        return replace(found, data=replace(found.data, shuffled=True)) if oracle else found

    def after(self, method: Method, task: str, seed: int, role: str = FORGOTTEN) -> Checkpoint:
        """Make a model that has been made to forget: in the role forgotten, oracle or moved."""
        start = self.taught(task, seed, oracle=role == ORACLE)
        of = (self.moved_by if role == MOVED else task,)
        found = self.checkpoint(of, seed, self.models[0], method, start)
        assert found.data is not None
        return replace(found, data=replace(found.data, shuffled=role == ORACLE))

    def locked(self, task: str, seed: int) -> Checkpoint | None:
        """Make the model whose skill is hidden on purpose; None where there is no such control."""
        return self.after(self.lock, task, seed) if self.lock is not None else None

    def anew(self, method: Method, task: str, seed: int) -> tuple[Checkpoint, ...]:
        """Make models that never knew a skill, and were shown its true labels by a method.

        From the pre-trained model, and from that which was taught random labels. Both are trained
        to the end: they are at the dose, which is chance, from the start.

        () where the method does not make true responses less likely.
        """
        training = method.settings()
        if not method.opposes or training is None:
            return ()
        values: dict[str, Any] = {"training": replace(training, until=None)}
        whole = replace(method, **values)
        starts = (None, self.taught(task, seed, oracle=True))
        return tuple(self.checkpoint((task,), seed, self.models[0], whole, s) for s in starts)

    def relearned(
        self,
        start: Checkpoint | None,
        task: str,
        n: int,
        draw: int,
        labels: str = "true",
        *,
        seed: int = 0,
    ) -> Checkpoint:
        """Teach a model a skill again, by so many labelled questions outside all other sets.

        start: None is the pre-trained model, which is taught with the questions of `seed`
        draw: 0, 1, ...: which of several sets
        labels: "random" for the control that has the questions' form alone
        """
        training = relearning_of(self.relearning, self.relearning_steps, n)
        skip = self.n_train + draw * max(self.n_relearned)
        seed = start.seed if start else seed
        found = self.checkpoint((task,), seed, self.models[0], Labels(labels, training), start, n)
        assert found.data is not None
        return replace(found, data=replace(found.data, skip=skip))

    def rounded(self, start: Checkpoint | None, method: Quantise) -> Checkpoint:
        """Round the weights of a model, which takes no data and draws nothing.

        start: None is the pre-trained model
        """
        return Checkpoint(self.models[0], method, start, tuning=self.tuning, dtype=self.dtype)

    # --- jobs

    def _wanted(self, section: str | None) -> Iterable[Job]:
        """List what a section asks for, or the whole study.

        methods: base, known and forgotten models of each skill and seed
        collateral: these, and forgotten ones asked while they are trained about new questions and
            about unrelated tasks, so that methods can be compared at equal harm there
        oracles: these, the never-taught, the moved and the locked ones
        anew: these, and of the first skill never-taught ones that were shown the true labels
        relearning: these, and known, forgotten, locked and never-taught ones, among them the
            pre-trained model, quantised and taught again
        inside: known, forgotten and never-taught ones, asked at every layer; and forgotten ones
            without the direction in which they were moved
        """
        wanted: dict[Job, None] = {}
        if self.elsewhere:
            # What the teaching itself did there: of one seed the same for every skill.
            base = Checkpoint(self.models[0], dtype=self.dtype)
            seeds = dict.fromkeys(seed for _, seed in self.with_seeds(self.seeds))
            wanted |= {Job(base, self._elsewhere("", seed)): None for seed in seeds}
        for task, seed in self.with_seeds(self.seeds):
            wanted |= dict.fromkeys(self._methods_of(task, seed))
            if section in (None, "collateral"):
                wanted |= dict.fromkeys(self._collateral_of(task, seed))
            if section not in ("methods", "collateral"):
                wanted |= dict.fromkeys(self._oracles_of(task, seed))
            if section in (None, "anew") and task == self.tasks[0]:
                wanted |= dict.fromkeys(self._anew_of(task, seed))
            if section in (None, "relearning"):
                wanted |= dict.fromkeys(self._relearning_of(task, seed))
            if section in (None, "inside"):
                wanted |= dict.fromkeys(self._inside_of(task, seed))
        return wanted

    def _methods_of(self, task: str, seed: int) -> Iterator[Job]:
        asked = self._asked(task, seed)
        base = tuple(m for m in asked if m.task == task)
        # How far each form is from what the model expects, before anybody taught it anything.
        forms = (PLAIN, *(view for view in self.views if not view.startswith("few_shot")))
        about = task, "test", self.n_eval, seed
        seen = (Measurement("prompt_nats", *about, view=view) for view in forms)
        yield Job(Checkpoint(self.models[0], dtype=self.dtype), (*base, *seen))
        yield Job(self.taught(task, seed), (Measurement("loss"), *asked))
        for method in self.of(task, seed):
            yield Job(self.after(method, task, seed), (*_watched(method), *asked))

    def _collateral_of(self, task: str, seed: int) -> Iterator[Job]:
        new = Measurement("scores", task, "test", self.n_eval, seed)
        for method in self.of(task, seed) if self.trajectories else ():
            training = method.settings()
            if not self.has_trajectory(method) or training is None:
                continue
            n_steps = training.n_steps(self.n_train)
            every = training.until.every if training.until else math.ceil(n_steps / CHECKS)
            away = (m for m in self._elsewhere(task, seed) if m.task in self.away(task))
            recorded: Any = {"readout": "scores_in_training", "settings": (("every", every),)}
            asked = (new, *(replace(m, **recorded) for m in (new, *away)))
            yield Job(self.after(method, task, seed), (*_watched(method), *asked))

    def _oracles_of(self, task: str, seed: int) -> Iterator[Job]:
        asked = self._asked(task, seed)
        yield Job(self.taught(task, seed, oracle=True), (Measurement("loss"), *asked))
        for method in self.of(task, seed):
            yield Job(self.after(method, task, seed, ORACLE), (*_watched(method), *asked))
            if self.moved_by:
                directly = (self._scored(task, seed)[0], *self._elsewhere(task, seed))
                moved = self.after(method, task, seed, MOVED)
                yield Job(moved, (*_watched(method), *directly))
        if self.lock is not None:
            yield Job(self.after(self.lock, task, seed), (*_watched(self.lock), *asked))

    def _anew_of(self, task: str, seed: int) -> Iterator[Job]:
        for method in self.of(task, seed):
            for found in self.anew(method, task, seed):
                yield Job(found, (Measurement("loss"), *self._scored(task, seed)))

    def _relearning_of(self, task: str, seed: int) -> Iterator[Job]:
        starts: list[Checkpoint | None]  # None: the pre-trained model, which nobody taught either
        starts = [self.taught(task, seed), None, self.taught(task, seed, oracle=True)]
        for method in self.of(task, seed):
            # It leaves the weights as they were: rounded or taught again, they are known's.
            if method.kind == "hook":
                continue
            starts += [self.after(method, task, seed, role) for role in (FORGOTTEN, ORACLE)]
        if (locked := self.locked(task, seed)) is not None:
            starts.append(locked)
        test = self._scored(task, seed)[0]
        for start in starts:
            for method in self.quantised:
                yield Job(self.rounded(start, method), (test,))
            for n in self.n_relearned:
                for draw in range(self.draws):
                    found = self.relearned(start, task, n, draw, seed=seed)
                    yield Job(found, (Measurement("loss"), test))
            if self.n_relearned:
                n = max(self.n_relearned)
                last = self.relearned(start, task, n, 0, "random", seed=seed)
                yield Job(last, (Measurement("loss"), test))

    def _inside_of(self, task: str, seed: int) -> Iterator[Job]:
        if not self.inside:
            return
        test, chosen_on = self.lenses(task, seed)
        base = Checkpoint(self.models[0], dtype=self.dtype)
        for oracle in (False, True):
            yield Job(self.taught(task, seed, oracle=oracle), (test,))
        yield Job(base, (test,))
        directly = self._scored(task, seed)[0]
        for method in self.of(task, seed):
            forgotten = self.after(method, task, seed)
            yield Job(forgotten, (test, chosen_on))
            yield Job(self.after(method, task, seed, ORACLE), (test,))
            if method.kind != "hook":  # its weights have not moved
                for random in (False, True):
                    yield Job(self.without_direction(forgotten, random=random), (directly,))

    def lenses(self, task: str, seed: int) -> tuple[Measurement, Measurement]:
        """Ask every layer about test questions, and about training ones, to choose a layer by.

        By those after the first `n_train`, which were forgotten: as many as are relearned from.
        """
        n = self.n_train + max(self.n_relearned, default=self.n_train)
        return (
            Measurement("logit_lens", task, "test", self.n_eval, seed),
            Measurement("logit_lens", task, "train", n, seed),
        )

    def without_direction(self, start: Checkpoint, *, random: bool) -> Checkpoint:
        """Ask a forgotten model without the direction in which forgetting moved it.

        random: without a direction of no meaning, as a control
        """
        return replace(start, method=WithoutDirection(random), start=start)

    def _asked(self, task: str, seed: int) -> tuple[Measurement, ...]:
        """Ask a model about a skill, in every form, read it inside, and ask about other tasks."""
        about = task, "test", self.n_eval, seed
        forms = [Measurement("scores", *about, view=view) for view in self.views]
        read = [
            Measurement(name, *about, fit_on=self.n_train if name == "probe" else 0)
            for name in self.readouts
        ]
        asked = (*self._scored(task, seed), *forms, *read, *self._elsewhere(task, seed))
        return tuple(dict.fromkeys(asked))  # each once, as a readout may be asked for anyway


def relearning_of(training: Training, n_steps: int, n: int) -> Training:
    """Train for as many steps on n questions as on any other number: the epochs follow."""
    once = replace(training, epochs=1)
    return replace(once, epochs=max(1, round(n_steps / once.n_steps(n))))


def _watched(method: Method) -> tuple[Measurement, ...]:
    """Ask for what a method's training leaves: its losses, and its dose's curve."""
    training = method.settings()
    if training is None:
        return ()
    return (Measurement("loss"), *([Measurement("dose")] if training.until else []))
