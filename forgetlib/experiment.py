"""Runs and studies: the one place where data, models, training, scoring and storage meet.

    results(study("quick"))   every result of a study; what is missing is computed first

Reading stored results imports no torch: what needs it is imported where a run is computed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import Timeout
from tqdm import tqdm

import forgetlib
from forgetlib import catalogue, content, labels, tasks
from forgetlib.schema import (
    Example,
    ForgetlibError,
    InputError,
    RunResult,
    RunSpec,
    TrainConfig,
    nearest,
    require,
    require_name,
    require_one_of,
    require_whole,
)
from forgetlib.sources import DataMissing
from forgetlib.store import Store, StoreError, replacing

if TYPE_CHECKING:
    import pandas as pd

    from forgetlib.models import LM

T = TypeVar("T")
Progress = Callable[[str, int], None]  # (what is being done, examples done since the last call)
TRAINING_COST = 3  # a training example costs about three times a scored one
POLL_SECONDS = 2.0  # how often to look whether another process has finished its run


class StudyError(ForgetlibError, RuntimeError):
    """A study as a whole cannot go on: its results, its definition or its model do not fit."""


class RunsFailed(ForgetlibError, RuntimeError):
    """Some runs raised; all others are stored, but for those that start from them.

    failures: why, by the run that raised
    skipped: the runs that start from these
    """

    def __init__(self, failures: Mapping[RunSpec, str], skipped: Sequence[RunSpec]) -> None:
        lines = [f"\n  {spec} ({spec.run_id}): {why}" for spec, why in failures.items()]
        super().__init__(
            "runs",
            expected="all to be computed",
            found=f"{len(failures)} failed and {len(skipped)} skipped, which start from them:"
            + "".join(lines),
            do="All others are stored. Correct the cause and start again: only these are computed.",
        )


def root() -> Path:
    """The project's folder, which has figures/ and .work/: FORGETLIB_ROOT or the checkout."""
    return Path(os.environ.get("FORGETLIB_ROOT") or Path(__file__).parent.parent).resolve()


# --- studies -------------------------------------------------------------------------------------


PARTS = {  # see Study.specs; the notebooks that need them
    "own": ("fig1", "fig2", "fig4", "fig5", "fig6", "tasks"),
    "control": ("fig2",),
    "cross": ("fig3", "fig8"),
    "flipped": ("fig8",),
    "sizes": ("fig7",),
    "models": ("fig9",),
}
MODELS = (*catalogue.names(), *content.MADE_HERE)  # ours; others are folders or hub ids
STARTS = ("pairwise", "shared")


@dataclass(frozen=True)
class Study:
    """A named grid of runs, in parts that the figures ask for one by one.

    tuned, forgetting: training settings of the two phases (paper, section 3), the same for all
        tasks
    sizes: smaller forgetting sets (paper, Fig. 7)
    control_seeds: seeds whose second phase is trained on true labels too, to compare with random
        ones; (): none
    start: what cross-task forgetting starts from (paper, Fig. 3). "pairwise": the model fine-tuned
        on the evaluated task. "shared": one model fine-tuned on all tasks, which costs a run a
        task instead of a run a pair
    cross_seeds: seeds of the cross-task runs; None: all of the study's
    cross_tasks: tasks of the cross-task runs, which are as many as their pairs; None: all
    models: the first is the study's own; the others appear in Fig. 9
    modified: whether it is a named study's variation, whose folder may hold other variations too
    """

    name: str
    description: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    n_train: int
    n_eval: int
    tuned: TrainConfig
    forgetting: TrainConfig
    sizes: tuple[int, ...] = ()
    control_seeds: tuple[int, ...] = ()
    start: str = "pairwise"
    cross_seeds: tuple[int, ...] | None = None
    cross_tasks: tuple[str, ...] | None = None
    models: tuple[str, ...] = ("embedded",)
    tuning: str = "body"
    dtype: str = "bfloat16"
    modified: bool = False

    def __post_init__(self) -> None:
        for name in ("n_train", "n_eval"):
            require_whole(f"{name} of study {self.name!r}", getattr(self, name), 1)
        for name in ("tuned", "forgetting"):
            what = f"{name} of study {self.name!r}"
            require(what, getattr(self, name), TrainConfig, "a TrainConfig")
        for name in ("tasks", "seeds", "models", "cross_seeds", "cross_tasks"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise InputError(
                    f"{name} of study {self.name!r}",
                    expected="at least one",
                    found="none",
                    do="Name one, or leave the setting out.",
                )
        require_one_of(f"start of study {self.name!r}", self.start, STARTS)
        if too_large := [n for n in self.sizes if n not in range(1, self.n_train)]:
            raise InputError(
                f"sizes of study {self.name!r}",
                expected=f"from 1 to below n_train, {self.n_train}",
                found=too_large,
                do="Drop them: the full size is always there.",
            )
        for task in self.tasks:
            tasks.get(task)
        for task in self.cross_tasks or ():
            require_one_of(f"cross_tasks of study {self.name!r}", task, self.tasks)

    def specs(self, part: str | None = None) -> tuple[RunSpec, ...]:
        """Every run of a part or of the whole study, each after the run that it starts from.

        own: base, fine-tuned and forgotten model of each task (Fig. 1, 2, 4, 5, 6)
        control: own of `control_seeds`, and the second phase on true labels instead
        cross, flipped: each task's labels randomised, each other evaluated (Fig. 3, 8)
        sizes: own, and smaller forgetting sets (Fig. 7)
        models: cross for every model (Fig. 9)
        """
        cross_seeds = self.seeds if self.cross_seeds is None else self.cross_seeds
        main = self.models[0]
        briefly = replace(self.forgetting, record_steps=0)
        own = [s for seed in self.seeds for t in self.tasks for s in self.own_task(t, seed, main)]
        controls = [self.own_task(t, seed, main) for seed in self.control_seeds for t in self.tasks]
        parts = {
            "own": own,
            "control": [
                spec
                for base, tuned, forgotten in controls
                for again in [replace(forgotten, condition="true", train=briefly, probe=False)]
                for spec in (base, tuned, forgotten, again)
            ],
            "cross": [s for seed in cross_seeds for s in self.cross_task("random", seed, main)],
            "flipped": [s for seed in cross_seeds for s in self.cross_task("flipped", seed, main)],
            "sizes": own
            + [
                replace(self.own_task(t, seed, main)[2], n_train=n, train=briefly, probe=False)
                for seed in self.seeds
                for t in self.tasks
                for n in self.sizes
            ],
            "models": [
                s
                for model in self.models
                for seed in cross_seeds
                for s in self.cross_task("random", seed, model)
            ],
        }
        if part is not None:
            _require_part(part)
        wanted = [s for name in parts if part in (None, name) for s in parts[name]]
        unique = {a.run_id: a for s in wanted for a in s.lineage}
        # What starts from the same model stands together, so that its weights are kept briefly.
        roots = {run_id: s.lineage[0].run_id for run_id, s in unique.items()}
        first_seen = {root: place for place, root in enumerate(dict.fromkeys(roots.values()))}
        return tuple(sorted(unique.values(), key=lambda s: first_seen[roots[s.run_id]]))

    def own_task(self, task: str, seed: int, model: str) -> tuple[RunSpec, RunSpec, RunSpec]:
        """Base, fine-tuned and forgotten model of one task (paper, Fig. 2)."""
        base = RunSpec(
            train_tasks=(task,),
            condition="base",
            n_train=self.n_train,
            n_eval=self.n_eval,
            seed=seed,
            eval_tasks=(task,),
            model=model,
            tuning=self.tuning,
            dtype=self.dtype,
            probe=True,
        )
        tuned = replace(base, condition="true", train=self.tuned)
        return base, tuned, replace(tuned, condition="random", start=tuned, train=self.forgetting)

    def cross_task(self, condition: str, seed: int, model: str) -> list[RunSpec]:
        """Each task's labels randomised or flipped, each task evaluated (paper, Fig. 3 and 8)."""
        forgetting = replace(self.forgetting, record_steps=0)
        chosen = self.tasks if self.cross_tasks is None else self.cross_tasks
        if self.start == "shared":
            tuned = replace(
                self.own_task(chosen[0], seed, model)[1],
                train_tasks=chosen,
                eval_tasks=chosen,
                train=replace(self.tuned, record_steps=0),
                probe=False,
            )
            forgotten = replace(tuned, condition=condition, start=tuned, train=forgetting)
            return [replace(forgotten, train_tasks=(task,)) for task in chosen]
        found = []
        for evaluated in chosen:
            _, tuned, own = self.own_task(evaluated, seed, model)
            other = replace(own, condition=condition, train=forgetting, probe=False)
            for forgotten_task in chosen:
                is_own = forgotten_task == evaluated and condition == "random"
                found.append(own if is_own else replace(other, train_tasks=(forgotten_task,)))
        return found


# See README, "What is assumed". The second learning rate is the paper's.
_TUNED = TrainConfig(learning_rate=2e-5, record_steps=3)
_FORGETTING = TrainConfig(learning_rate=1e-4, record_steps=3)
STUDIES = {
    s.name: s
    for s in (
        Study(
            "tiny",
            "two random layers, synthetic tasks",
            tasks.suite("tiny"),
            seeds=(0,),
            n_train=120,
            n_eval=120,
            tuned=TrainConfig(5e-3, epochs=15, batch_size=40, record_steps=10),
            forgetting=TrainConfig(5e-3, epochs=20, batch_size=40, record_steps=10),
            sizes=(30,),
            control_seeds=(0,),
            start="shared",
            models=("tiny", "tiny-wide"),
            dtype="float32",
        ),
        Study(
            "quick",
            "Gemma-3-270M, 6 real tasks",
            tasks.suite("quick"),
            seeds=(0,),
            n_train=64,
            n_eval=96,
            tuned=_TUNED,
            forgetting=_FORGETTING,
            sizes=(16,),
            control_seeds=(0,),
            start="shared",
        ),
        Study(
            "embedded",
            "Gemma-3-270M, 21 real tasks, 3 seeds",
            tasks.suite("embedded"),
            seeds=(0, 1, 2),
            n_train=128,
            n_eval=200,
            tuned=_TUNED,
            forgetting=_FORGETTING,
            sizes=(32,),
            control_seeds=(0, 1, 2),
            cross_seeds=(0,),
            # All with something to forget in every seed, as the rows of others would be undefined.
            cross_tasks=(
                "sst2",
                "arc_easy",
                "commonsense_qa",
                "logical_reasoning",
                "piqa",
                "sciq",
                "common_knowledge",
                "basic_arithmetic",
                "pattern",
                "string_operations",
                "coding",
                "sciriff_yesno",
            ),
        ),
        Study(
            "paper-suite-270m",
            "Gemma-3-270M, the paper's tasks",
            tasks.suite("paper"),
            seeds=(0,),
            n_train=128,
            n_eval=200,
            tuned=_TUNED,
            forgetting=_FORGETTING,
            start="shared",
            # With something to forget in this one seed.
            cross_tasks=(
                "piqa_hub",
                "hellaswag_hub",
                "social_iqa_hub",
                "copa_hub",
                "arc_easy_hub",
                "sciq_hub",
                "boolq_hub",
                "mrpc_hub",
                "sst2_hub",
                "cb_hub",
            ),
        ),
        # Low-rank, which one GPU has room for, and for which the paper's learning rate is usual.
        Study(
            "paper",
            "Llama-2-7B, GPT-J-6B and GPT-2, the paper's tasks",
            tasks.suite("paper"),
            seeds=(0,),
            n_train=1000,
            n_eval=500,
            tuned=TrainConfig(1e-4, record_steps=10),
            forgetting=TrainConfig(1e-4, record_steps=10),
            sizes=(100,),
            control_seeds=(0,),
            models=("meta-llama/Llama-2-7b-hf", "EleutherAI/gpt-j-6b", "openai-community/gpt2"),
            tuning="lora",
        ),
    )
}


def _require_part(part: str) -> None:
    """Raise InputError unless a study has such a part; it says which figure needs which."""
    needed = "; ".join(f"{name}: {', '.join(figures)}" for name, figures in PARTS.items())
    do = f"Name what a figure needs ({needed}), or leave it out for the whole study."
    require_one_of("part of a study", part, PARTS, do)


def study(name: str, **changes: Any) -> Study:
    """A named study, or a variation of it: study("quick", tasks=("sst2",), n_train=50).

    A change that is None changes nothing. A variation keeps its results in a folder of its own,
    and takes those runs from the named study that are the same.
    """
    do = "Correct the name, or vary one: study('quick', tasks=(...))."
    require_one_of("study", name, STUDIES, do)
    named = STUDIES[name]
    lists = ("tasks", "seeds", "sizes", "control_seeds", "models", "cross_seeds", "cross_tasks")
    for key in lists:
        if not isinstance(changes.get(key), list | tuple | None):
            raise InputError(
                f"change of study {name!r}",
                expected=f"{key} to be a list",
                found=repr(changes[key]),
                do=f"Write {key}=[{changes[key]!r}].",
            )
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in changes.items() if v is not None
    }
    for key in given:
        do = "Correct the name of the setting."
        require_one_of(f"change of study {name!r}", key, sorted(Study.__dataclass_fields__), do)
    if "sizes" not in given:  # the study's own, of those that are still smaller
        n_train = given.get("n_train", named.n_train)
        require_whole(f"n_train of study {name!r}", n_train, 1)
        given["sizes"] = tuple(n for n in named.sizes if n < n_train)
    if "seeds" in given:
        given.setdefault(
            "control_seeds", tuple(s for s in named.control_seeds if s in given["seeds"])
        )
    if "tasks" in given:  # all pairs of these, not those that the study has pairs of
        given.setdefault("cross_tasks", None)
    for model in given.get("models", ()):
        require_name(f"models of study {name!r}", model)
        # Any other word may be a hub id; one that is nearly a name of ours is a slip.
        if "/" not in model and nearest(model, MODELS) and not Path(model).is_dir():
            do = "Else name a folder that exists, or a hub id with its owner."
            require_one_of(f"models of study {name!r}", model, MODELS, do)
    # A folder is the same one wherever a notebook or a target is started. A name of ours stays one
    # beside a folder of that name, as figures/ has one for each study.
    given["models"] = tuple(
        str(Path(m).resolve()) if m not in MODELS and Path(m).is_dir() else m
        for m in given.get("models", named.models)
    )
    changed = replace(named, **given)
    if changed == named:
        return named
    description = f"a variation of {name}: {len(changed.tasks)} tasks, {changed.n_train} examples"
    return replace(changed, name=f"{name}-modified", modified=True, description=description)


def figures_dir(study: Study) -> Path:
    return root() / "figures" / study.name


def open_store(study: Study, *, any_content: bool = False) -> Store:
    """The study's results; a variation also sees what its named study has packed.

    any_content: whether those of models and questions count that have changed since
    """
    named = study.name.removesuffix("-modified")
    packed = root() / "figures" / named / "results.parquet"
    present = None if any_content else content.Present()
    return Store(packed, root() / ".work" / study.name, present)


# --- results -------------------------------------------------------------------------------------


def results(
    study: Study,
    part: str | None = None,
    ray_address: str | None = None,
    *,
    progress: bool = True,
) -> list[RunResult]:
    """All results of a study or of one part of it, in the order of its specs.

    Missing runs are computed first, in this process or on the Ray cluster at `ray_address` (see
    `cluster.compute`); so are, with a warning, those whose model or questions have changed since
    (see `content`). Several processes may call this for one study at the same time: each run is
    done by one of them. After a kill, finished runs are there, and the run in progress starts
    again. Raises RunsFailed, at the end, where a run raised. Tasks whose data cannot be had are
    left out, with a warning, and figures name them.
    """
    store = open_store(study)
    specs = study.specs(part)
    if _told(lambda: any(s.run_id not in store for s in specs)):
        named = study
        study = _told(lambda: _with_data(named))
        specs = study.specs(part)
    all_ids = [s.run_id for s in study.specs()]
    if not study.modified and (others := store.others(all_ids)):
        raise StudyError(
            f"study {study.name!r}",
            expected=f"stored runs among the {len(all_ids)} that it defines",
            found=f"{len(others)} others, as {sorted(others)[0]}",
            do=f"It was changed since, or data of its tasks came or went: undo the change, pass "
            f"tasks=[...], or delete {store.packed} and {store.work} to compute it again.",
        )
    try:
        if _told(lambda: any(s.run_id not in store for s in specs)):
            if ray_address is None:
                compute(specs, store, progress=progress)
            else:
                from forgetlib import cluster

                cluster.compute(specs, store, ray_address, progress=progress)
    finally:
        # What there is, so that a long study can be handed on while it is under way.
        done = [i for i in all_ids if i in store]
        if _writes() and not study.modified and not store.is_packed(done):
            store.pack(done)
    return [store.read(s.run_id) for s in specs]


def _together() -> bool:
    """Tell whether several processes share a model (see parallel), all of which do the same."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _writes() -> bool:
    """Tell whether this process writes results: alone, or the first that shares a model."""
    return not _together() or os.environ["RANK"] == "0"


def _told(value: Callable[[], T]) -> T:
    """Take what the first of the processes that share a model finds, so that all do the same."""
    if not _together():
        return value()
    from forgetlib import parallel

    return parallel.from_first(value)


def _with_data(study: Study) -> Study:
    """Leave out of a study those tasks that are not stored and whose data cannot be had here."""
    done = _origins(study)
    lost = tasks.missing(t for t in study.tasks if t not in done)
    if not lost:
        return study
    reasons = "".join(f"\n  {task}: {why}" for task, why in lost.items())
    if len(lost) == len(study.tasks):
        raise DataMissing(
            f"study {study.name!r}",
            expected="the data of at least one of its tasks",
            found=f"none:{reasons}",
            do="Make them available, and start again.",
        )
    warnings.warn(f"study {study.name!r} goes on without {len(lost)} tasks:{reasons}", stacklevel=3)
    return _without(study, lost)


def _without(study: Study, lost: Container[str]) -> Study:
    """Make the study of those tasks that are not lost, of which there has to be one."""
    cross = study.cross_tasks and tuple(t for t in study.cross_tasks if t not in lost)
    left = tuple(t for t in study.tasks if t not in lost)
    return replace(study, tasks=left, cross_tasks=cross or None)  # where none is left, all pairs


def _origins(study: Study) -> dict[str, dict[str, set[str]]]:
    """Map task and "train" or "test" to the source's splits that stored examples are from."""
    store = open_store(study)
    found: dict[str, dict[str, set[str]]] = {}
    for run_id in store.others(()):
        if run_id not in store:  # of another content
            continue
        for where, scores in store.read(run_id).scores.items():
            task, part = where.split("/")
            of_part = found.setdefault(task, {}).setdefault(part, set())
            of_part.update(uid.split("/")[1] for uid in scores.uids)
    return found


def data_note(study: Study) -> str:
    """Say what a figure has to tell of a study's data; "" where there is nothing.

    Which questions are left out, as the runs tell. Of tasks with splits of their own: which are
    left out, since their data could not be had, and for which both sets are carved from the same
    rows, since a split was missing.
    """
    notes: dict[str, list[str]] = {}
    lost: list[str] = []
    if any(tasks.get(t).splits for t in study.tasks):
        origins = _origins(study)
        lost = notes["Left out, no data"] = [t for t in study.tasks if t not in origins]
        notes["Train and test carved from one split"] = [
            t
            for t in study.tasks
            if tasks.get(t).splits
            and (parts := origins.get(t, {})).keys() == {"train", "test"}
            and not parts["train"].isdisjoint(parts["test"])
        ]
    counts = _counts_left_out(study if len(lost) == len(study.tasks) else _without(study, lost))
    notes["Questions left out of a set, too long for the model"] = counts["too_long"]
    notes["Rows left out, with nothing where text is needed"] = counts["lacking"]
    return ". ".join(f"{note}: {', '.join(names)}" for note, names in notes.items() if names)


def _counts_left_out(study: Study) -> dict[str, list[str]]:
    """Name by kind the study's tasks with the most questions that a run left out of a set."""
    most: dict[str, dict[str, int]] = {"too_long": {}, "lacking": {}}
    for found in open_store(study).provenances(s.run_id for s in study.specs()):
        for kind, of_kind in most.items():
            for where, left_out in found.get(kind, {}).items():
                task = where.split("/")[0]
                of_kind[task] = max(of_kind.get(task, 0), left_out["n"])
    return {
        kind: [f"{task} ({of_kind[task]})" for task in study.tasks if task in of_kind]
        for kind, of_kind in most.items()
    }


def compute(specs: Sequence[RunSpec], store: Store, *, progress: bool = True) -> None:
    """Compute every run that the store does not have.

    Every model is loaded once before the first run: what is wrong with it is said then. A run that
    raises does not stop the others: RunsFailed names it at the end. What the store cannot write,
    and a model that fails or has changed, stops at once, as it would for the others too; so does
    what raises in one of the processes that share a model, since the others may be amid a pass.
    """
    waiting = _told(lambda: [s for s in specs if s.run_id not in store])
    if not waiting:
        return
    bench = Bench(store)
    for spec in reversed(one_per_model(waiting)):  # the first run's last, which then stays
        bench.load(spec)
        if store.present is not None:
            store.present.learn(spec.model, bench.digest())
    from forgetlib.models import ModelError

    waiting = _told(lambda: [s for s in specs if s.run_id not in store])
    warn_of_outdated(waiting, store)
    n_done = len(specs) - len(waiting)
    failures: dict[RunSpec, str] = {}
    skipped: list[RunSpec] = []
    total = sum(map(cost, waiting))
    # A log file gets a line now and then; a terminal, a moving bar.
    pause = 0.2 if sys.stderr.isatty() else 5.0
    quiet = not progress or not _writes()
    with tqdm(total=total, unit="ex", disable=quiet, mininterval=pause) as bar:
        while waiting:
            blocked: set[str] = set()  # runs in progress elsewhere, and what starts from them
            for spec in list(waiting):
                if spec.start is not None and spec.start.run_id in blocked:
                    blocked.add(spec.run_id)
                    continue
                if spec.start in failures or spec.start in skipped:
                    skipped.append(spec)
                    waiting.remove(spec)
                    continue
                try:
                    with _claimed(spec, store) as state:
                        if state == "busy":
                            blocked.add(spec.run_id)
                            continue
                        if state == "ours":
                            _run_and_keep(spec, specs, store, bench, bar, f"{n_done}/{len(specs)}")
                        n_done += 1
                except (StoreError, StudyError, ModelError):
                    raise
                except Exception as error:
                    if _together():
                        raise
                    failures[spec] = reason(error)
                waiting.remove(spec)
            if waiting:
                bar.set_description(f"{n_done}/{len(specs)} runs: waiting for another process")
                time.sleep(POLL_SECONDS)
        bar.set_description(f"{n_done}/{len(specs)} runs")
    _told(lambda: None)  # until the first has written
    if failures:
        raise RunsFailed(failures, skipped)


def one_per_model(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """Pick the first run of each model, tuning and dtype."""
    return list({(s.model, s.tuning, s.dtype): s for s in reversed(list(specs))}.values())[::-1]


def warn_of_outdated(specs: Iterable[RunSpec], store: Store) -> None:
    """Say once which contents have changed, and how many stored runs are computed anew for it."""
    outdated = store.outdated(s.run_id for s in specs)
    if outdated and _writes():
        names = ", ".join(dict.fromkeys(name for differs in outdated.values() for name in differs))
        warnings.warn(
            f"{len(outdated)} stored runs are computed anew, as other than when they were made: "
            f"{names}",
            stacklevel=4,
        )


@contextlib.contextmanager
def _claimed(spec: RunSpec, store: Store) -> Iterator[str]:
    """Tell whether a run is "ours" to do while this lasts, or another process "busy" or "done"."""
    with contextlib.ExitStack() as held:

        def claim() -> str:
            with contextlib.suppress(Timeout):
                held.enter_context(store.lock(spec.run_id))
                return "done" if spec.run_id in store else "ours"
            return "busy"

        yield _told(claim)


def reason(error: Exception) -> str:
    """Say what went wrong; and where, for an error that nobody foresaw."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, ForgetlibError):
        return said
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{said} ({Path(last.filename).name}, line {last.lineno}, in {last.name})"


def _run_and_keep(
    spec: RunSpec, specs: Sequence[RunSpec], store: Store, bench: Bench, bar: tqdm, done: str
) -> None:
    def report(what: str, n_examples: int) -> None:
        bar.set_description(f"{done} runs: {spec}, {what}", refresh=False)
        bar.update(n_examples)

    result = run(spec, bench, report)
    # Weights first: a kill between the two loses this run, not this run's descendants' start.
    if _told(lambda: any(s.start == spec and s.run_id not in store for s in specs)):
        bench.keep(spec)
    start = spec.start
    if not _writes():
        return
    store.write(result)
    if start and not any(s.start == start and s.run_id not in store for s in specs):
        store.drop_weights(start.run_id)


def cost(spec: RunSpec) -> int:
    """Estimate what a run costs, in scored examples."""
    n_train, n_eval = spec.n_train * len(spec.train_tasks), spec.n_eval * len(spec.eval_tasks)
    probed = n_train + n_eval if spec.probe else 0
    if spec.train is None:
        return n_train + n_eval + probed
    trained = spec.train.epochs * TRAINING_COST + spec.train.record_steps
    return n_train * (1 + trained) + n_eval + probed


# --- one run -------------------------------------------------------------------------------------


def _ignore_progress(what: str, n_examples: int) -> None:
    pass


def _changed(model: str, loaded: str, now: str) -> StudyError:
    """Make the error for a model whose name stands for another now than was loaded."""
    return StudyError(
        f"model {model!r}",
        expected=f"the content that was loaded, {loaded}",
        found=f"{now}: it was changed meanwhile",
        do="Start again when it is complete: what is stored of the old one is computed anew.",
    )


class Bench:
    """One model in memory, brought into the state that a run starts from."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._lm: LM | None = None
        self._pretrained: dict[str, Any] = {}
        self._loaded: tuple[str, str, str] | None = None
        self._digest: str | None = None  # of the pre-trained model's content
        self._state: str | None = None  # run_id whose weights the model has; None: pre-trained

    def load(self, spec: RunSpec, report: Progress = _ignore_progress) -> LM:
        """Load the model of `spec`, or return it in whatever state it is."""
        from forgetlib import models

        wanted = (spec.model, spec.tuning, spec.dtype)
        if self._lm is not None and self._loaded == wanted:
            return self._lm
        report("loading the model", 0)

        # A folder may be written to meanwhile; of a hub's model the newest revision is fetched.
        before = _told(lambda: content.of_folders(spec.model))
        self._lm = None  # before the next is loaded: two may not fit
        try:
            self._lm = models.load(spec.model, tuning=spec.tuning, dtype=spec.dtype)
        except ForgetlibError:
            raise
        except Exception as error:  # of any kind, as from its code or a device without room
            raise StudyError(
                f"model {spec.model!r}",
                expected="one that can be loaded here",
                found=reason(error),
                do="Correct the cause, or leave the model out.",
            ) from error
        self._pretrained = self._lm.weights()
        self._digest = _told(lambda: content.of_model(spec.model))
        self._loaded, self._state = wanted, None
        if (now := _told(lambda: content.of_folders(spec.model))) != before:
            self._loaded = None
            raise _changed(spec.model, ", ".join(before), ", ".join(now) or "none")
        return self._lm

    def digest(self) -> str | None:
        """Tell the content of the model in memory; StudyError where its name has another now."""
        assert self._loaded is not None
        name = self._loaded[0]
        now = _told(lambda: content.of_model(name))
        if None not in (now, self._digest) and now != self._digest:
            raise _changed(name, str(self._digest), str(now))
        return self._digest

    def at(self, spec: RunSpec, start: RunSpec | None, report: Progress) -> LM:
        """Bring the model of `spec` to the weights that `start` ended with."""
        lm = self.load(spec, report)
        self.digest()  # raises where the folder holds another model by now
        state = None if start is None else start.run_id
        if self._state != state:
            if start is None:
                lm.set_weights(self._pretrained)
                self._state = None
            elif (kept := self._kept(start)) is not None:
                lm.set_weights(kept)
                self._state = start.run_id
            else:
                self.train(start, lambda what, n: report(f"{what} (its start, again)", 0))
                if self._store is not None:  # others may start from it too
                    self.keep(start)
        return lm

    def _content(self, spec: RunSpec) -> str:
        """Write down what, beside a run's spec, decides the weights that it ends with."""
        found = {"model": self._digest, "questions": content.of_training(spec)}
        return json.dumps(found, sort_keys=True)

    def _kept(self, spec: RunSpec) -> dict[str, Any] | None:
        """Read the weights that a run ended with, where every process can.

        Not those that were made from another content of the model or of the questions.
        """
        from safetensors import SafetensorError, safe_open

        from forgetlib import parallel

        found = None
        if self._store is not None:
            path = self._store.weights_path(spec.run_id)
            # What cannot be read can be trained again.
            with contextlib.suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("content") == self._content(spec):
                    names = file.keys()
                    found = {name: file.get_tensor(name) for name in names}
        return found if parallel.all_agree(found is not None) else None

    def train(self, spec: RunSpec, report: Progress) -> Any:
        """Bring the model to its state at the end of `spec`; the training log, or None for base."""
        from forgetlib import training

        lm = self.at(spec, spec.start, report)
        if spec.train is None:
            return None
        train = [
            example
            for task in spec.train_tasks
            for example in _fitting(lm, task, "train", spec.n_train, spec.seed)[0]
        ]
        targets = labels.training_labels(train, spec.condition, spec.seed)
        self._state = "in training"  # until it is done, the weights are nobody's

        cost = len(train) * (TRAINING_COST * spec.train.epochs + spec.train.record_steps)

        def on_step(step: int, n_steps: int) -> None:
            n = cost * step // n_steps - cost * (step - 1) // n_steps
            report(f"training, step {step} of {n_steps}", n)

        log = training.finetune(lm, train, targets, spec.train, spec.seed, on_step)
        self._state = spec.run_id
        return log

    def keep(self, spec: RunSpec) -> None:
        """Put the model's weights into the store, as those that a run ended with."""
        from safetensors.torch import save_file

        from forgetlib import parallel
        from forgetlib.models import disk_errors

        assert self._lm is not None
        assert self._store is not None
        weights, made_from = self._lm.weights(), self._content(spec)

        def save(path: Path) -> None:
            with disk_errors():
                save_file(weights, path, metadata={"content": made_from})

        if _writes():
            self._store.save_weights(spec.run_id, save)
        parallel.wait()


def _fits(lm: LM, question: tasks.Question) -> bool:
    """Tell whether the model's context holds the question with each of its choices.

    Of all choices, whichever becomes the distractor, so that a seed does not decide it. Counted as
    `models.encode` counts, which refuses what is longer.
    """
    for prompt, choice in dict.fromkeys(zip(question.prompts, question.choices, strict=True)):
        texts = prompt.rstrip(), f"{prompt} {choice}"
        if max(len(lm.tokens(text)) for text in texts) > lm.max_length:
            return False
    return True


def _fitting(lm: LM, task: str, part: str, n: int, seed: int) -> tuple[list[Example], list[str]]:
    """Take the first n examples of a task that fit the model; and the uids of those left out."""
    examples = tasks.load(task, part, sys.maxsize, seed)
    taken: list[Example] = []
    too_long: list[str] = []
    for example in examples:
        if len(taken) == n:
            break
        if _fits(lm, tasks.question(example.uid)):
            taken.append(example)
        else:
            too_long.append(example.uid)
    if not taken:
        raise InputError(
            f"task {task!r}",
            expected=f"a {part} question of at most {lm.max_length} tokens, the context of "
            f"{lm.name}",
            found=f"none among {len(examples)}",
            do="Leave the task out, or use a model with a longer context.",
        )
    return taken, too_long


def _left_out(too_long: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Write down for a run's provenance which questions its sets are without; {} for none.

    too_long: by "<task>/<part>", uids
    """
    lacking = {t: tasks.left_out(t) for t in {where.split("/")[0]: None for where in too_long}}
    found: dict[str, dict[str, Any]] = {
        "too_long": {w: {"n": len(u), "first": u[0]} for w, u in too_long.items() if u},
        "lacking": {
            task: {"n": len(rows), "first": first, "why": rows[first]}
            for task, rows in lacking.items()
            for first in [*rows][:1]
        },
    }
    return {kind: of_kind for kind, of_kind in found.items() if of_kind}


def run(
    spec: RunSpec, bench: Bench | None = None, report: Progress = _ignore_progress
) -> RunResult:
    """Do one run: train as it says, from what it starts from, and score.

    On its own it trains the ancestors too; with a study's bench it takes their weights from there.
    """
    from forgetlib import probing, scoring

    started = time.perf_counter()
    bench = bench or Bench()
    wanted = [(t, "train", spec.n_train) for t in spec.train_tasks]
    wanted += [(t, "test", spec.n_eval) for t in spec.eval_tasks]
    for task, part, n in wanted:  # a task without data is found before the model is loaded
        tasks.load(task, part, n, spec.seed)
    lm = bench.at(spec, spec.start, report)
    sets = {f"{t}/{part}": _fitting(lm, t, part, n, spec.seed) for t, part, n in wanted}
    data = {where: examples for where, (examples, _) in sets.items()}
    for examples in data.values():  # what does not fit the model is found before the training
        scoring.encode_all(lm, examples)
    log = bench.train(spec, report)
    scores = {}
    for where, examples in data.items():
        report(f"scoring {where}", 0)
        if log is not None and log.scores is not None and where == f"{spec.train_task}/train":
            scores[where] = log.scores  # the last record of the dynamics
        else:
            scores[where] = scoring.score(lm, examples)
        report(f"scored {where}", len(examples))
    extra: dict[str, Any] = (
        {} if log is None else {"train_loss": log.loss, "dynamics": log.dynamics}
    )
    if spec.probe:
        report("probing", 0)
        train, test = (data[f"{spec.train_task}/{part}"] for part in ("train", "test"))
        extra["probe"] = probing.probe(lm, train, test, spec.seed)
        report("probed", len(train) + len(test))
    where_from = provenance(lm, time.perf_counter() - started) | {
        "data": content.data_hash(data),
        "content": {"model": bench.digest(), **content.of_tasks(spec)},
    }
    where_from |= _left_out({where: too_long for where, (_, too_long) in sets.items()})
    return RunResult(spec, scores, provenance=where_from, **extra)


def trained(spec: RunSpec) -> LM:
    """The model as a run leaves it, to look at or to save: its training is done again."""
    return Bench().at(spec, spec, _ignore_progress)


# Between processors bf16 rounds in another order, and training carries that on, most where all
# questions have the same two answers: the same run of MRPC ended at 0.66 and at 0.42, one of BoolQ
# on true labels at 0.36 and at 0.55.
SAME_LOG_LIKELIHOODS = 0.3
SAME_ACCURACY = {"text": 0.15, "verbaliser": 0.4}  # by the task's answer format


def check(study: Study, n_runs: int, seed: int = 0) -> pd.DataFrame:
    """Compute some of the stored runs again, from nothing, and compare: one row a run and data set.

    On the kind of CPU and by the versions that a result came from, its scores are the same to the
    last bit. Elsewhere, and on a GPU, where sums are in no fixed order, an accuracy differs by at
    most `SAME_ACCURACY`, and the log-likelihoods of a pre-trained model by `SAME_LOG_LIKELIHOODS`
    nats on average. A model or questions that have changed since are found out.

    Each run's rows, but for `ok`, are added to figures/<study>/check.csv as it ends, in place of
    what an earlier check of it on such a machine found.

    n_runs, seed: how many runs, drawn at random
    Columns: run_id, run, data, machine and machine_again (the CPU or GPU, and the number of
    threads), commit_again, same_origin (whether the scores have to be the same), same_data and
    same_model (whether the questions are, and the pre-trained model), n, stored and again
    (accuracies), equal_predictions (share), difference (mean absolute, of log-likelihoods, nats),
    ok.
    """
    import numpy as np
    import pandas as pd

    store = open_store(study, any_content=True)
    stored = [s for s in study.specs() if s.run_id in store]
    require_whole("seed of the check", seed)
    if n_runs not in range(1, len(stored) + 1):
        raise InputError(
            f"check of study {study.name!r}",
            expected=f"from 1 to {len(stored)} runs, as many as are stored",
            found=repr(n_runs),
            do="Correct the number, or compute the study first.",
        )
    picked = np.random.default_rng(seed).choice(len(stored), n_runs, replace=False)
    path = figures_dir(study) / "check.csv"
    _known_checks(path)  # what is wrong with it is said before hours of work
    bench, tables = Bench(), []
    for spec in (stored[i] for i in sorted(picked)):
        tables.append(_compared(store.read(spec.run_id), run(spec, bench)))
        if not _writes():
            continue
        with store.lock("check", timeout=-1), replacing(path) as partial:
            known = pd.concat([*_known_checks(path), tables[-1].drop(columns="ok")])
            known = known.drop_duplicates(["run_id", "data", "machine_again"], keep="last")
            known.sort_values(["machine_again", "run", "run_id", "data"]).to_csv(
                partial, index=False, float_format="%.6g"
            )
    return pd.concat(tables, ignore_index=True)


def _known_checks(path: Path) -> list[pd.DataFrame]:
    """Read the table of earlier checks, if there were any."""
    import pandas as pd

    if not path.exists():
        return []
    try:
        # As texts, since a hash can look like a number.
        known = pd.read_csv(path, dtype={"run_id": str, "commit_again": str})
        known[["run_id", "run", "data", "machine_again", "commit_again"]]  # KeyError
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"table of earlier checks {path}",
            expected="the table that a check writes",
            found=" ".join(str(error).split())[:300],
            do="Restore it from git, or delete it to begin a new one.",
        ) from error
    return [known]


def _compared(old: RunResult, new: RunResult) -> pd.DataFrame:
    """Make the rows of `check` for one run."""
    import numpy as np
    import pandas as pd

    from forgetlib.stats import correct, predictions

    apart_from = ("seconds", "date", "content", "device_type")
    was, now = ({k: v for k, v in r.provenance.items() if k not in apart_from} for r in (old, new))
    same_data = was.get("data", now["data"]) == now["data"]  # earlier results do not tell
    same_model = True
    if then := old.provenance.get("content"):
        found = new.provenance["content"]
        same_data = same_data and then["questions"] == found["questions"]  # the starts' too
        same_model = not content.differ(then["model"], found["model"])
    same_origin = (
        was == now
        and same_data
        and same_model
        and not was["commit"].endswith("+")
        and _on_cpu(old.provenance)
        and _on_cpu(new.provenance)
    )
    rows = []
    for data, scores in old.scores.items():
        again = new.scores[data]
        apart = np.abs(scores.log_likelihoods - again.log_likelihoods)
        accuracies = correct(scores).mean(), correct(again).mean()
        if same_origin:
            ok = not apart.any()
        else:
            tolerance = SAME_ACCURACY[tasks.get(data.split("/")[0]).answer_format]
            ok = abs(accuracies[0] - accuracies[1]) <= tolerance and (
                old.spec.train is not None or apart.mean() <= SAME_LOG_LIKELIHOODS
            )
        rows.append(
            {
                "run_id": old.spec.run_id,
                "run": str(old.spec),
                "data": data,
                "machine": f"{was['device']}, threads: {was['threads']}",
                "machine_again": f"{now['device']}, threads: {now['threads']}",
                "commit_again": now["commit"],
                "same_origin": same_origin,
                "same_data": same_data,
                "same_model": same_model,
                "n": len(scores),
                "stored": accuracies[0],
                "again": accuracies[1],
                "equal_predictions": (predictions(scores) == predictions(again)).mean(),
                "difference": apart.mean(),
                "ok": bool(ok) and same_data and same_model and scores.uids == again.uids,
            }
        )
    return pd.DataFrame(rows)


GPU_NAMES = ("NVIDIA", "GeForce", "Tesla", "Quadro", "Radeon", "AMD Instinct")


def _on_cpu(provenance: Mapping[str, Any]) -> bool:
    """Tell whether a result was computed on a CPU, of earlier ones by the device's name alone."""
    by_name = not any(name in provenance["device"] for name in GPU_NAMES)
    return provenance.get("device_type", "cpu" if by_name else "cuda") == "cpu"


LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "peft")


def provenance(lm: LM, seconds: float) -> dict[str, Any]:
    """Write down where a result comes from: code, libraries, machine, time; never computed with."""
    import torch

    from forgetlib import kernels, parallel

    found: dict[str, Any] = {"forgetlib": forgetlib.__version__, "commit": _commit()}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    if parallel.size() > 1:
        found["processes"] = parallel.size()
    cuda = lm.device.type == "cuda"
    if not cuda and kernels.widens():
        found["products"] = "fp32"
    return found | {
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(lm.device) if cuda else _cpu_name(),
        "device_type": lm.device.type,
        "threads": torch.get_num_threads(),
        "packs": lm.packs,
        "kernels": list(lm.kernels),
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    """Name the checkout's commit, with "+" where files differ from it; "" outside a checkout.

    But for figures, which are made from results and not the other way round.
    """
    git = ["git", "-C", str(Path(__file__).parent.parent)]
    try:
        named, differs = (
            subprocess.run([*git, *command], capture_output=True, text=True, timeout=10)
            for command in (
                ["describe", "--always", "--exclude=*"],
                ["diff", "--quiet", "HEAD", "--", ".", ":!figures"],
            )
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return named.stdout.strip() + "+" * (differs.returncode != 0) if named.returncode == 0 else ""


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# --- command line --------------------------------------------------------------------------------


def main(arguments: Iterable[str] | None = None) -> int:
    """The command line: compute, check, or estimate; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m forgetlib.experiment",
        description="Compute a study's missing runs.",
        epilog="; ".join(f"{s.name}: {s.description}" for s in STUDIES.values()),
    )
    parser.add_argument("study", help=f"one of {', '.join(STUDIES)}")
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all where left out")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        default=os.environ.get("RAY_ADDRESS") or None,
        help="compute on a Ray cluster: host:port, auto (the one running here) or local (a new one "
        "on this machine); RAY_ADDRESS where left out",
    )
    parser.add_argument("--check", type=int, metavar="N", help="compute N stored runs again")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of these runs")
    parser.add_argument(
        "--cost",
        action="store_true",
        help="compute nothing; print what it would cost on this machine",
    )
    parser.add_argument(
        "--tflops", type=float, metavar="RATE", help="of another machine, for --cost, in TFLOP/s"
    )
    given = parser.parse_args(None if arguments is None else list(arguments))
    try:
        chosen = study(given.study)
        for part in given.part:
            _require_part(part)
        parts = given.part or (None,)
        if given.check is not None:
            table = check(chosen, given.check, given.seed)
            shown = table.drop(columns=["run_id", "machine", "machine_again", "commit_again"])
            print(shown.round(3).to_string(index=False))
            return 0 if table["ok"].all() else 1
        if given.cost:
            from forgetlib import cost as estimate

            for part in parts:
                print(estimate.report(chosen, part, given.tflops))
            return 0
        store = open_store(chosen)
        before = {s.run_id for part in parts for s in chosen.specs(part) if s.run_id in store}
        found = {r.spec: r for part in parts for r in results(chosen, part, given.ray)}
    except ForgetlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not _writes():
        return 0
    hours = sum(r.provenance.get("seconds", 0) for r in found.values()) / 3600
    n_now = sum(s.run_id not in before for s in found)
    print(
        f"{chosen.name}: {len(found)} runs stored in {store.packed}, {n_now} of them computed just "
        f"now; {hours:.2f} hours of work where they were computed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
