"""A study: a named grid of jobs, in sections that the figures ask for one by one.

Long because a study's settings, their checks and its jobs are one class. The named studies are in
`forgetlib.studies`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from forgetlib.data import tasks, views
from forgetlib.errors import InputError, require, require_name, require_one_of, require_whole
from forgetlib.files import root
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring.base import readout
from forgetlib.runs import content
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Checkpoint, Data, Measurement
from forgetlib.runs.store import Store

SECTIONS = {  # see Study.jobs; the notebooks that need them
    "own": ("fig1", "fig2", "fig2b", "fig4", "fig5", "fig6", "tasks"),
    "control": ("fig2", "fig2b", "fig4"),
    "cross": ("fig3", "fig8"),
    "cross_control": ("fig3", "fig8"),
    "flipped": ("fig8",),
    "sizes": ("fig7",),
    "models": ("fig9",),
    "methods": (),
}
PROTOCOLS = ("pairwise", "shared")
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")  # a study's name is a folder's, and a word of commands


@dataclass(frozen=True)
class Study:
    """Name a grid of jobs, in sections that the figures ask for one by one.

    n_train, n_eval: upper bounds for each task; a smaller task gives what it has
    tuned, forgetting: training settings of the two phases (paper, section 3), the same for all
        tasks
    records: how many times confidence in the training set is recorded in both phases, evenly
        spaced, beside the end (paper, Fig. 5); each costs a scoring pass over the questions
        recorded. 0: never
    n_recorded: how many of the training set's questions are recorded; None: all
    sizes: smaller forgetting sets (paper, Fig. 7)
    control_seeds: seeds whose second phase is trained on true labels too, to compare with random
        ones; (): none
    more_seeds, more_seeds_tasks: further seeds of some tasks, those where there is something to
        forget, with their controls
    elsewhere, n_elsewhere: tasks of which so many test questions are scored after each training on
        another task: the harm that it does there
    protocol: what cross-task forgetting starts from (paper, Fig. 3). "pairwise": the model
        fine-tuned on the evaluated task. "shared": one model fine-tuned on all tasks, which costs
        a job a task instead of a job a pair
    cross_seeds: seeds of the cross-task jobs; None: all of the study's
    cross_tasks: tasks of the cross-task jobs, which are as many as their pairs; None: all
    cross_control: whether each task's true labels are trained on again for each other, to compare
        with random ones
    models: the first is the study's own; the others appear in Fig. 9
    methods: further methods that make each task forgotten, beside random labels
    views: further views through which the own jobs' test questions are scored
    readouts: further readouts of the own jobs' test questions
    named: of a variation, the study that it varies, whose stored jobs it takes; else ""
    """

    sections: ClassVar[Mapping[str, tuple[str, ...]]] = SECTIONS
    notebooks: ClassVar[str] = "notebooks"  # the folder of those that draw it

    name: str
    description: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    n_train: int
    n_eval: int
    tuned: Training
    forgetting: Training
    records: int = 0
    n_recorded: int | None = None
    sizes: tuple[int, ...] = ()
    control_seeds: tuple[int, ...] = ()
    more_seeds: tuple[int, ...] = ()
    more_seeds_tasks: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    n_elsewhere: int = 40
    protocol: str = "pairwise"
    cross_seeds: tuple[int, ...] | None = None
    cross_tasks: tuple[str, ...] | None = None
    cross_control: bool = False
    models: tuple[str, ...] = ("gemma-3-270m",)
    methods: tuple[Method, ...] = ()
    views: tuple[str, ...] = ()
    readouts: tuple[str, ...] = ()
    tuning: str = "body"
    dtype: str = "bfloat16"
    named: str = ""

    def __post_init__(self) -> None:
        what = f"study {self.name!r}"
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise InputError(
                "name of a study",
                expected="a-z, 0-9 and -, as it is a folder's too",
                found=repr(self.name),
                do="Rename it.",
            )
        for name in ("n_train", "n_eval", "n_elsewhere"):
            require_whole(f"{name} of {what}", getattr(self, name), 1)
        require_whole(f"records of {what}", self.records)
        if self.n_recorded is not None:
            require_whole(f"n_recorded of {what}", self.n_recorded, 1)
        for name in ("tuned", "forgetting"):
            require(f"{name} of {what}", getattr(self, name), Training, "a Training")
        for name in ("tasks", "seeds", "models", "cross_seeds", "cross_tasks"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise InputError(
                    f"{name} of {what}",
                    expected="at least one",
                    found="none",
                    do="Name one, or leave the setting out.",
                )
        require_one_of(f"protocol of {what}", self.protocol, PROTOCOLS)
        if too_large := [n for n in self.sizes if n not in range(1, self.n_train)]:
            raise InputError(
                f"sizes of {what}",
                expected=f"from 1 to below n_train, {self.n_train}",
                found=too_large,
                do="Drop them: the full size is always there.",
            )
        for model in self.models:
            require_name(f"models of {what}", model)
        for task in self.tasks:
            tasks.get(task)
        for name in ("cross_tasks", "more_seeds_tasks"):
            for task in getattr(self, name) or ():
                require_one_of(f"{name} of {what}", task, self.tasks)
        for task in self.elsewhere:
            tasks.get(task)
        if again := set(self.seeds) & set(self.more_seeds):
            raise InputError(
                f"more_seeds of {what}",
                expected="seeds that are not among its seeds",
                found=sorted(again),
                do="Leave them out: every task has those.",
            )
        for method in self.methods:
            require(f"methods of {what}", method, Method, "a Method")
        # As the view itself writes it: said( 2 ) is said(2).
        object.__setattr__(self, "views", tuple(views.get(view).name for view in self.views))
        for name in self.readouts:
            if readout(name).in_training:
                raise InputError(
                    f"readouts of {what}",
                    expected="what is measured of test questions",
                    found=f"{name!r}, which is taken while a model is trained",
                    do="Leave it out: own jobs have it, dynamics where `records` is set.",
                )

    # --- sections

    @cached_property
    def _listed(self) -> dict[str | None, tuple[Job, ...]]:
        return {}

    def jobs(self, section: str | None = None) -> tuple[Job, ...]:
        """List the jobs of a section or of the whole study, each after what it starts from.

        own: base, fine-tuned and forgotten model of each task (Fig. 1, 2, 4, 5, 6)
        control: own of `control_seeds`, and the second phase on true labels instead
        cross, flipped: each task's labels randomised, or flipped, each other evaluated
            (Fig. 3, 8)
        cross_control: the same with true labels, where `cross_control` is set
        sizes: own, and smaller forgetting sets (Fig. 7)
        models: cross for every model (Fig. 9)
        methods: own, and each task forgotten by each of `methods`
        """
        if section is not None:
            self.require_section(section)
        if section not in self._listed:  # each figure asks several times, and listing takes seconds
            self._listed[section] = in_order(self._wanted(section))
        return self._listed[section]

    def _wanted(self, section: str | None) -> Iterable[Job]:
        return (
            job
            for name in self.sections
            if section in (None, name)
            for job in getattr(self, f"_{name}")()
        )

    def require_section(self, section: str) -> None:
        """Raise InputError for what is no section of it; say which figure needs which."""
        needed = "; ".join(f"{name}: {', '.join(f) or 'none'}" for name, f in self.sections.items())
        do = f"Name what a figure needs ({needed}), or leave it out for the whole study."
        require_one_of("section of a study", section, self.sections, do)

    @property
    def not_drawn(self) -> tuple[str, ...]:
        """Name the figures of its kind that it has nothing for."""
        few = len(self.tasks) < 2
        return (*(() if self.sizes else ("fig7",)), *(("claims",) if few else ()))

    @property
    def crossed(self) -> tuple[str, ...]:
        """List the tasks of the cross-task jobs."""
        return self.tasks if self.cross_tasks is None else self.cross_tasks

    @property
    def _cross_seeds(self) -> tuple[int, ...]:
        return self.seeds if self.cross_seeds is None else self.cross_seeds

    def _own(self) -> Iterator[Job]:
        for model, task, seed in self.owned(self.seeds):
            yield from self.own_jobs(task, seed, model)

    def _control(self) -> Iterator[Job]:
        for model, task, seed in self.owned(self.control_seeds):
            base, tuned, forgotten = self.own_jobs(task, seed, model)
            yield from (base, tuned, forgotten)
            again = self._again(task, seed, model, Labels("true", self.forgetting))
            # Where harm elsewhere is measured, so is all else: the control is compared in full.
            yield Job(again.checkpoint, forgotten.measurements) if self.elsewhere else again

    def owned(self, seeds: tuple[int, ...]) -> Iterator[tuple[str, str, int]]:
        """List whose own tasks are forgotten: the first model, with each task and its seeds."""
        for task, seed in self.with_seeds(seeds):
            yield self.models[0], task, seed

    def with_seeds(self, seeds: tuple[int, ...]) -> Iterator[tuple[str, int]]:
        """List each task with each of its seeds."""
        for seed in seeds:
            yield from ((task, seed) for task in self.tasks)
        for seed in self.more_seeds if seeds else ():
            yield from ((task, seed) for task in self.more_seeds_tasks)

    def _sizes(self) -> Iterator[Job]:
        yield from self._own()
        for seed in self.seeds:
            for task in self.tasks:
                for n in self.sizes:
                    yield self._again(task, seed, self.models[0], self._random, n)

    def _methods(self) -> Iterator[Job]:
        if not self.methods:
            return
        yield from self._own()
        for seed in self.seeds:
            for task in self.tasks:
                for method in self.methods:
                    yield self._again(task, seed, self.models[0], method)

    def _cross(self) -> Iterator[Job]:
        for seed in self._cross_seeds:
            yield from self.cross_jobs("random", seed, self.models[0])

    def _cross_control(self) -> Iterator[Job]:
        for seed in self._cross_seeds if self.cross_control else ():
            yield from self.cross_jobs("true", seed, self.models[0])

    def _flipped(self) -> Iterator[Job]:
        for seed in self._cross_seeds:
            yield from self.cross_jobs("flipped", seed, self.models[0])

    def _models(self) -> Iterator[Job]:
        for model in self.models:
            for seed in self._cross_seeds:
                yield from self.cross_jobs("random", seed, model)

    # --- jobs

    @property
    def _random(self) -> Labels:
        return Labels("random", self.forgetting)

    def checkpoint(
        self,
        tasks: tuple[str, ...],
        seed: int,
        model: str,
        method: Method,
        start: Checkpoint | None = None,
        n: int | None = None,
    ) -> Checkpoint:
        """Make a checkpoint with this study's settings."""
        data = Data(tasks, self.n_train if n is None else n, seed)
        return Checkpoint(model, method, start, data, seed, self.tuning, self.dtype)

    def tuned_on(self, tasks: tuple[str, ...], seed: int, model: str) -> Checkpoint:
        """Make the checkpoint that was fine-tuned on the true labels of these tasks."""
        return self.checkpoint(tasks, seed, model, Labels("true", self.tuned))

    def own_jobs(self, task: str, seed: int, model: str) -> tuple[Job, Job, Job]:
        """Make the jobs of one task's base, fine-tuned and forgotten model (paper, Fig. 2)."""
        tuned = self.tuned_on((task,), seed, model)
        forgotten = self.checkpoint((task,), seed, model, self._random, tuned)
        # Each once, as a study may ask for what is measured anyway.
        asked = tuple(dict.fromkeys((*self._scored(task, seed), *self._further(task, seed))))
        trained = (Measurement("loss"), *self._recorded(task, seed))
        further = asked + self._elsewhere(task, seed)
        base = Checkpoint(model, dtype=self.dtype)
        return Job(base, asked), Job(tuned, trained + further), Job(forgotten, trained + further)

    def _scored(self, task: str, seed: int, n: int | None = None) -> tuple[Measurement, ...]:
        """Ask for scores of a task's test set and of its training set."""
        test = Measurement("scores", task, "test", self.n_eval, seed)
        return test, Measurement("scores", task, "train", n or self.n_train, seed)

    def _further(self, task: str, seed: int) -> tuple[Measurement, ...]:
        """Ask for what is measured of own jobs beside scores."""
        about = task, "test", self.n_eval, seed
        found = [
            Measurement("probe", *about, fit_on=self.n_train),
            Measurement("hidden_variance", *about),
            *(Measurement("scores", *about, view=view) for view in self.views),
        ]
        # What is measured anyway is not asked for once more, in another way.
        own = {m.readout for m in found}
        found += [Measurement(name, *about) for name in self.readouts if name not in own]
        return tuple(found)

    def _elsewhere(self, task: str, seed: int) -> tuple[Measurement, ...]:
        """Ask for scores of other tasks than the one trained on."""
        return tuple(
            Measurement("scores", other, "test", self.n_elsewhere, seed)
            for other in self.elsewhere
            if other != task
        )

    def _recorded(self, task: str, seed: int) -> tuple[Measurement, ...]:
        if not self.records:
            return ()
        n = min(self.n_recorded or self.n_train, self.n_train)
        settings = (("records", self.records),)
        return (Measurement("dynamics", task, "train", n, seed, settings=settings),)

    def _again(self, task: str, seed: int, model: str, method: Method, n: int | None = None) -> Job:
        """Make the job of a second phase that starts at a task's fine-tuned model."""
        start = self.tuned_on((task,), seed, model)
        found = self.checkpoint((task,), seed, model, method, start, n)
        loss = (Measurement("loss"),) if method.settings() is not None else ()
        return Job(found, loss + self._scored(task, seed, n))

    def cross_jobs(self, kind: str, seed: int, model: str) -> Iterator[Job]:
        """Make each task's labels random, flipped or true, each task evaluated (Fig. 3 and 8).

        The sets that were trained on are not scored, but where they are the evaluated task's own.
        """
        method = Labels(kind, self.forgetting)
        if self.protocol == "shared":
            start = self.tuned_on(self.crossed, seed, model)
            asked = tuple(self._scored(task, seed)[0] for task in self.crossed)
            yield Job(start, (Measurement("loss"), *asked))
            for task in self.crossed:
                forgotten = self.checkpoint((task,), seed, model, method, start)
                own = self._scored(task, seed)[1]
                yield Job(forgotten, (Measurement("loss"), own, *asked))
            return
        for evaluated in self.crossed:
            base, tuned, own_job = self.own_jobs(evaluated, seed, model)
            yield from (base, tuned)
            test, own = self._scored(evaluated, seed)
            for task in self.crossed:
                if task == evaluated and kind == "random":
                    yield own_job
                    continue
                found = self.checkpoint((task,), seed, model, method, tuned.checkpoint)
                asked = (test, own) if task == evaluated else (test,)
                yield Job(found, (Measurement("loss"), *asked))

    def block(self, job: Job) -> str:
        """Name what a job is compared with, and so packed with: an evaluated task and a seed.

        With a shared start it is the seed; of several models each has blocks of its own.
        """
        of = (
            "all" if self.protocol == "shared" else next(m.task for m in job.measurements if m.task)
        )
        model = Path(job.checkpoint.model).name
        prefix = "" if len(self.models) == 1 else f"{re.sub(r'[^A-Za-z0-9_.-]', '-', model)}-"
        return f"{prefix}{of.replace(':', '-')}-{job.seed}"

    def blocks(self) -> dict[str, list[Job]]:
        """List the jobs of each block."""
        found: dict[str, list[Job]] = {}
        for job in self.jobs():
            found.setdefault(self.block(job), []).append(job)
        return found


def in_order(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Put each job once, after what it starts from, and what starts from one model together.

    So weights are kept briefly. Jobs that ask the same checkpoint with the same seed become one.
    """
    unique: dict[tuple[str, int, str], Job] = {}
    for job in jobs:
        key = same_job(job)
        if key in unique:
            merged = dict.fromkeys((*unique[key].measurements, *job.measurements))
            job = Job(job.checkpoint, tuple(merged))
        unique[key] = job
    children: dict[str | None, list[Job]] = {}
    there = {job.checkpoint.id for job in unique.values()}
    for job in unique.values():
        start = job.checkpoint.start
        # Of a start that is no job of its own, nothing is asked: it is made where it is needed.
        key_of_start = start.id if start is not None and start.id in there else None
        children.setdefault(key_of_start, []).append(job)

    def below(job: Job) -> Iterator[Job]:
        yield job
        if job.checkpoint.method is not None:
            for child in children.get(job.checkpoint.id, ()):
                yield from below(child)

    return tuple(job for top in children.get(None, ()) for job in below(top))


def same_job(job: Job) -> tuple[str, int, str]:
    """Tell what jobs have in common that are one: checkpoint, seed, and of the base model the task.

    The base model is asked about one task at a time, as the tuned ones.
    """
    task = "" if job.checkpoint.method else next(m.task for m in job.measurements)
    return job.checkpoint.id, job.seed, task


def figures_dir(study: Study) -> Path:
    """Name the folder of a study's figures; its packed results are in it."""
    return root() / "figures" / study.name


def stored_dir(study: Study) -> Path:
    """Name the folder of what a study stores: a variation has that of the study that it varies."""
    return root() / "figures" / (study.named or study.name)


def work_dir(study: Study) -> Path:
    """Name the folder of a study's work in progress."""
    return root() / ".work" / study.name


def open_store(study: Study, *, any_content: bool = False) -> Store:
    """Open a study's results; a variation also sees what its named study has packed.

    any_content: whether those of models and questions count that have changed since
    """
    present = None if any_content else content.Present()
    return Store(stored_dir(study) / "results", work_dir(study), present)
