"""Runs and studies: the one place where data, models, training, scoring and storage meet.

    results(study("quick"))   every result of a study; what is missing is computed first

Reading stored results imports no torch: what needs it is imported where a run is computed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from tqdm import tqdm

import forgetlib
from forgetlib import labels, tasks
from forgetlib.schema import ForgetlibError, InputError, RunResult, RunSpec, TrainConfig
from forgetlib.store import Store

if TYPE_CHECKING:
    from forgetlib.models import LM

Progress = Callable[[str, int], None]  # (what is being done, examples done since the last call)
TRAINING_COST = 3  # a training example costs about three times a scored one
POLL_SECONDS = 2.0  # how often to look whether another process has finished its run


class StudyError(ForgetlibError, RuntimeError):
    """A study's stored results and its definition do not fit together."""


def root() -> Path:
    """The project's folder, which has figures/ and .work/: FORGETLIB_ROOT or the checkout."""
    return Path(os.environ.get("FORGETLIB_ROOT") or Path(__file__).parent.parent).resolve()


# --- studies -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """A named grid of runs: every task by itself, for every seed.

    tuned, forgetting: training settings of the two phases (paper, section 3), the same for all
        tasks
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
    model: str = "embedded"
    tuning: str = "body"
    dtype: str = "bfloat16"
    modified: bool = False

    def specs(self) -> tuple[RunSpec, ...]:
        """Every run, ancestors before their descendants, and close to them."""
        return tuple(s for seed in self.seeds for t in self.tasks for s in self.own_task(t, seed))

    def own_task(self, task: str, seed: int) -> tuple[RunSpec, RunSpec, RunSpec]:
        """Base, fine-tuned and forgotten model of one task (paper, Fig. 2)."""
        tasks.get(task)
        base = RunSpec(
            train_task=task,
            condition="base",
            n_train=self.n_train,
            n_eval=self.n_eval,
            seed=seed,
            eval_tasks=(task,),
            model=self.model,
            tuning=self.tuning,
            dtype=self.dtype,
        )
        tuned = replace(base, condition="true", train=self.tuned)
        return base, tuned, replace(tuned, condition="random", start=tuned, train=self.forgetting)


# Learning rates of the embedded model: see README, "What is assumed".
_TUNED = TrainConfig(learning_rate=2e-5)
_FORGETTING = TrainConfig(learning_rate=5e-5, epochs=3)
STUDIES = {
    s.name: s
    for s in (
        Study(
            "tiny",
            "two random layers, synthetic tasks; seconds",
            tasks.suite("tiny"),
            seeds=(0,),
            n_train=120,
            n_eval=120,
            tuned=TrainConfig(learning_rate=3e-3, epochs=12),
            forgetting=TrainConfig(learning_rate=3e-3, epochs=30),
            model="tiny",
            dtype="float32",
        ),
        Study(
            "quick",
            "Gemma-3-270M, 6 real tasks; about 17 minutes on 2 CPU cores",
            tasks.suite("quick"),
            seeds=(0,),
            n_train=160,
            n_eval=200,
            tuned=_TUNED,
            forgetting=_FORGETTING,
        ),
        Study(
            "embedded",
            "Gemma-3-270M, 21 real tasks, 3 seeds; about 20 hours on 2 CPU cores",
            tasks.suite("embedded"),
            seeds=(0, 1, 2),
            n_train=1000,
            n_eval=500,
            tuned=_TUNED,
            forgetting=_FORGETTING,
        ),
    )
}


def study(name: str, **changes: Any) -> Study:
    """A named study, or a variation of it: study("quick", tasks=("sst2",), n_train=50).

    A change that is None changes nothing. A variation keeps its results in a folder of its own,
    and takes those runs from the named study that are the same.
    """
    if name not in STUDIES:
        raise InputError(
            "study",
            expected=f"one of {', '.join(STUDIES)}",
            found=repr(name),
            do="Correct the name, or vary one: study('quick', tasks=(...)).",
        )
    named = STUDIES[name]
    for key in ("tasks", "seeds"):
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
    if unknown := set(given) - set(Study.__dataclass_fields__):
        raise InputError(
            f"change of study {name!r}",
            expected=f"fields among {sorted(Study.__dataclass_fields__)}",
            found=f"{sorted(unknown)}",
            do="Correct the name of the setting.",
        )
    changed = replace(named, **given)
    return named if changed == named else replace(changed, name=f"{name}-modified", modified=True)


def figures_dir(study: Study) -> Path:
    return root() / "figures" / study.name


def open_store(study: Study) -> Store:
    """The study's results; a variation also sees what its named study has packed."""
    named = study.name.removesuffix("-modified")
    packed = root() / "figures" / named / "results.parquet"
    return Store(packed, root() / ".work" / study.name)


# --- results -------------------------------------------------------------------------------------


def results(study: Study, *, progress: bool = True) -> list[RunResult]:
    """All results of a study, in the order of its specs; missing runs are computed first.

    Several processes may call this for one study at the same time: each run is done by one of
    them. After a kill, finished runs are there, and the run in progress starts again.
    """
    store = open_store(study)
    specs = study.specs()
    ids = [s.run_id for s in specs]
    if not study.modified and (others := store.others(ids)):
        raise StudyError(
            f"study {study.name!r}",
            expected=f"stored runs among the {len(ids)} that it defines",
            found=f"{len(others)} others, as {sorted(others)[0]}",
            do=f"It was changed since: undo the change, or delete {store.packed} and "
            f"{store.work} to compute it again.",
        )
    if any(i not in store for i in ids):
        compute(specs, store, progress=progress)
    if not study.modified and not store.is_packed(ids):
        store.pack(ids)
    return [store.read(i) for i in ids]


def compute(specs: Sequence[RunSpec], store: Store, *, progress: bool = True) -> None:
    """Compute every run that the store does not have."""
    waiting = [s for s in specs if s.run_id not in store]
    n_done = len(specs) - len(waiting)
    bench = Bench(store)
    total = sum(map(_cost, waiting))
    # A log file gets a line now and then; a terminal, a moving bar.
    pause = 0.2 if sys.stderr.isatty() else 5.0
    with tqdm(total=total, unit="ex", disable=not progress, mininterval=pause) as bar:
        while waiting:
            blocked: set[str] = set()  # runs in progress elsewhere, and what starts from them
            for spec in list(waiting):
                if spec.start is not None and spec.start.run_id in blocked:
                    blocked.add(spec.run_id)
                    continue
                try:
                    lock = FileLock(store.lock_path(spec.run_id), timeout=0)
                    with lock:
                        if spec.run_id not in store:  # not done by another process meanwhile
                            _run_and_keep(spec, specs, store, bench, bar, f"{n_done}/{len(specs)}")
                        waiting.remove(spec)
                        n_done += 1
                except Timeout:
                    blocked.add(spec.run_id)
            if waiting:
                bar.set_description(f"{n_done}/{len(specs)} runs: waiting for another process")
                time.sleep(POLL_SECONDS)
        bar.set_description(f"{n_done}/{len(specs)} runs")


def _run_and_keep(
    spec: RunSpec, specs: Sequence[RunSpec], store: Store, bench: Bench, bar: tqdm, done: str
) -> None:
    def report(what: str, n_examples: int) -> None:
        bar.set_description(f"{done} runs: {spec}, {what}", refresh=False)
        bar.update(n_examples)

    result = run(spec, bench, report)
    # Weights first: a kill between the two loses this run, not this run's descendants' start.
    if any(s.start == spec and s.run_id not in store for s in specs):
        store.save_weights(spec.run_id, bench.save)
    store.write(result)
    start = spec.start
    if start and not any(s.start == start and s.run_id not in store for s in specs):
        store.drop_weights(start.run_id)


def _cost(spec: RunSpec) -> int:
    """Roughly, in scored examples."""
    trained = 0 if spec.train is None else spec.train.epochs * TRAINING_COST
    return spec.n_train * (1 + trained) + spec.n_eval * len(spec.eval_tasks)


# --- one run -------------------------------------------------------------------------------------


class Bench:
    """One model in memory, brought into the state that a run starts from."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._lm: LM | None = None
        self._pretrained: dict[str, Any] = {}
        self._loaded: tuple[str, str, str] | None = None
        self._state: str | None = None  # run_id whose weights the model has; None: pre-trained

    def at(self, spec: RunSpec, start: RunSpec | None, report: Progress) -> LM:
        """The model of `spec` with the weights that `start` ended with."""
        from forgetlib import models

        wanted = (spec.model, spec.tuning, spec.dtype)
        if self._lm is None or self._loaded != wanted:
            report("loading the model", 0)
            self._lm = None  # before the next is loaded: two may not fit
            self._lm = models.load(spec.model, tuning=spec.tuning, dtype=spec.dtype)
            self._pretrained = self._lm.weights()
            self._loaded, self._state = wanted, None
        state = None if start is None else start.run_id
        if self._state != state:
            if start is None:
                self._lm.set_weights(self._pretrained)
                self._state = None
            elif self._store is not None and self._store.weights_path(start.run_id).exists():
                from safetensors.torch import load_file

                self._lm.set_weights(load_file(self._store.weights_path(start.run_id)))
                self._state = start.run_id
            else:
                self.train(start, lambda what, n: report(f"{what} (its start, again)", 0))
        return self._lm

    def train(self, spec: RunSpec, report: Progress) -> Any:
        """Bring the model to its state at the end of `spec`; the training log, or None for base."""
        from forgetlib import training

        lm = self.at(spec, spec.start, report)
        if spec.train is None:
            return None
        train = tasks.load(spec.train_task, "train", spec.n_train, spec.seed)
        targets = labels.training_labels(train, spec.condition, spec.seed)
        self._state = "in training"  # until it is done, the weights are nobody's

        def on_step(step: int, n_steps: int) -> None:
            n = TRAINING_COST * len(train) * spec.train.epochs // n_steps if spec.train else 0
            report(f"training, step {step} of {n_steps}", n)

        log = training.finetune(lm, train, targets, spec.train, spec.seed, on_step)
        self._state = spec.run_id
        return log

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        from forgetlib.models import disk_errors

        assert self._lm is not None
        with disk_errors():
            save_file(self._lm.weights(), path)


def _ignore_progress(what: str, n_examples: int) -> None:
    pass


def run(
    spec: RunSpec, bench: Bench | None = None, report: Progress = _ignore_progress
) -> RunResult:
    """Do one run: train as it says, from what it starts from, and score.

    On its own it trains the ancestors too; with a study's bench it takes their weights from there.
    """
    from forgetlib import scoring

    started = time.time()
    bench = bench or Bench()
    train = tasks.load(spec.train_task, "train", spec.n_train, spec.seed)
    data = {f"{spec.train_task}/train": train}
    for task in spec.eval_tasks:
        data[f"{task}/test"] = tasks.load(task, "test", spec.n_eval, spec.seed)
    lm = bench.at(spec, spec.start, report)
    for examples in data.values():  # what does not fit the model is found before the training
        scoring.encode_all(lm, examples)
    log = bench.train(spec, report)
    scores = {}
    for where, examples in data.items():
        report(f"scoring {where}", 0)
        scores[where] = scoring.score(lm, examples)
        report(f"scored {where}", len(examples))
    extra = {} if log is None else {"train_loss": log.loss, "dynamics": log.dynamics}
    return RunResult(spec, scores, provenance=provenance(lm, time.time() - started), **extra)


LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "peft")


def provenance(lm: LM, seconds: float) -> dict[str, Any]:
    """Where a result came from: code, libraries, machine, time. Read, never computed with."""
    import torch

    found: dict[str, Any] = {"forgetlib": forgetlib.__version__, "commit": _commit()}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    cuda = lm.device.type == "cuda"
    return found | {
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(lm.device) if cuda else _cpu_name(),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    """The checkout's commit, with "+" where files differ from it; "" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# --- command line --------------------------------------------------------------------------------


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m forgetlib.experiment",
        description="Compute a study's missing runs.",
        epilog="; ".join(f"{s.name}: {s.description}" for s in STUDIES.values()),
    )
    parser.add_argument("study", help=f"one of {', '.join(STUDIES)}")
    try:
        chosen = study(parser.parse_args(None if arguments is None else list(arguments)).study)
        found = results(chosen)
    except ForgetlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    seconds = sum(r.provenance.get("seconds", 0) for r in found)
    print(
        f"{chosen.name}: {len(found)} runs in {open_store(chosen).packed}, {seconds:.0f} s of work"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
