"""A study's missing runs on a Ray cluster: many workers, one store, which only the driver has.

    experiment.results(study("embedded"), ray_address="auto")

The driver hands a run to a worker, stores what comes back, and only then hands on: what is done
survives every worker and the driver. Results are megabytes at most; weights stay on the worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from forgetlib import content, experiment, tasks
from forgetlib.schema import ForgetlibError, RunResult, RunSpec
from forgetlib.store import Store

Lineage = list[RunSpec]  # runs to be done that share a root, each after the one it starts from


@dataclass(frozen=True)
class Failure:
    """Tell why a run raised, as text, since not every exception can be sent.

    good: whether the worker's process is as good as before
    shared: whether all other runs of the model would raise too
    """

    why: str
    good: bool
    shared: bool


class ClusterError(ForgetlibError, RuntimeError):
    """Ray is not there, or its nodes are not fit for the work."""


def compute(
    specs: Sequence[RunSpec],
    store: Store,
    address: str,
    *,
    progress: bool = True,
    max_retries: int = 2,
) -> None:
    """Compute every run that the store does not have, on the Ray cluster at `address`.

    address: as ray.init takes it: "host:port", "auto" (the cluster that runs on this machine),
        "local" (a new one on it). A connection that the caller has made is used as it is.
    max_retries: how many workers that die under one run are replaced

    A lineage, all runs with the same root, is done by one worker, the costliest lineage first. It
    is not split when workers are idle: another worker would have to train the start again, and
    what another GPU rounds differently would be taken for forgetting. Only a worker's death moves
    a lineage, and then the start is trained again.

    A worker has one GPU where the cluster has any, else as many CPUs as OMP_NUM_THREADS says here,
    or 2; and that many threads. A node needs the driver's versions of Python, of the libraries and
    of forgetlib (whose source is compared); the model and the data in its cache or within reach, as
    the environment says in which its Ray was started (FORGETLIB_CACHE, HF_HOME, ...); and space for
    one run's weights in its temporary folder. Tasks of your own are sent along, with what a
    notebook or script defines; modules that they import have to be on the nodes.

    Every model is loaded once by one worker before the first run: what is wrong with it is said
    then. Raises RunsFailed, at the end, where a run raised or its workers kept dying; ClusterError,
    at once, where a worker cannot use a model.
    """
    missing = [s for s in specs if s.run_id not in store]
    if not missing:
        return
    with _connected(address) as ray:
        driver = _Driver(ray, missing, store, max_retries)
        driver.load(experiment.one_per_model(missing))
        missing = [s for s in specs if s.run_id not in store]  # by what the models are there
        experiment.warn_of_outdated(missing, store)
        driver.add(missing)
        total = sum(map(experiment.cost, missing))
        pause = 0.2 if sys.stderr.isatty() else 5.0
        bar = tqdm(total=total, unit="ex", disable=not progress, mininterval=pause)
        try:
            driver.work(bar)
        finally:
            bar.close()
            for job in driver.jobs.values():
                ray.kill(job.worker)
                job.lock.release()
    if driver.failures:
        raise experiment.RunsFailed(driver.failures, driver.skipped)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "computing on a cluster",
            expected="the package ray",
            found=str(error),
            do="Call pip install -e '.[ray]' in the repository, here and on every node, or give no "
            "address.",
        ) from error
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds
        raise ClusterError(
            f"Ray at {address!r}",
            expected="a cluster that lets this process in",
            found=str(error),
            do="Start one (`ray start --head`), correct the address, or take 'local'.",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


# --- the driver ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A run under way. lineage: what is to be done after it."""

    spec: RunSpec
    lineage: Lineage
    lock: FileLock
    worker: Any


class _Driver:
    """Hands out runs and takes in results. A lineage is in the queue or with one worker."""

    def __init__(self, ray: Any, specs: Sequence[RunSpec], store: Store, max_retries: int) -> None:
        self.ray, self.store, self.max_retries = ray, store, max_retries
        self.queue: list[Lineage] = []
        self.jobs: dict[Any, _Job] = {}  # by the reference to their result
        # Workers that have nothing to do now. A worker lives as long as a name holds it, and
        # occupies its place: there is to be no other name for one of these.
        self.idle: list[Any] = []
        self.deaths: Counter[RunSpec] = Counter()
        self.failures: dict[RunSpec, str] = {}
        self.skipped: list[RunSpec] = []
        n_threads = int(os.environ.get("OMP_NUM_THREADS") or 2)
        has_gpus = any(node.get("GPU", 0) >= 1 for node in self.nodes())
        self.wanted = {"CPU": 1, "GPU": 1} if has_gpus else {"CPU": n_threads}
        if not self.room():
            raise ClusterError(
                "the cluster",
                expected=f"a node with {n_threads} CPUs, for a worker with as many threads",
                found=f"nodes with {[node.get('CPU', 0) for node in self.nodes()]}",
                do="Set OMP_NUM_THREADS to fewer, or add a node.",
            )
        names = {t for s in specs for a in s.lineage for t in (*a.train_tasks, *a.eval_tasks)}
        own_tasks = [tasks.get(name) for name in sorted(names - tasks._BUILT_IN)]
        actor = ray.remote(Worker).options(
            num_cpus=self.wanted["CPU"], num_gpus=self.wanted.get("GPU", 0)
        )
        code = source_hash()  # now: who edits a file while a study runs is told by a new worker
        self.new_worker = lambda: actor.remote(own_tasks, n_threads, code)

    def load(self, specs: Sequence[RunSpec]) -> None:
        """Start a worker, and let it load these runs' models, one after the other."""
        worker = self.new_worker()
        for spec in specs:
            try:
                outcome = self.ray.get(worker.load.remote(spec))
            except self.ray.exceptions.RayError as error:
                raise self.unfit(error) from error
            if isinstance(outcome, Failure):
                self.ray.kill(worker)
                raise _unusable(outcome.why)
            if (present := self.store.present) is None:
                continue
            # Of the hub's, which it has loaded now, it knows more than a cache here does.
            here = present.model(spec.model)
            if content.in_folders(spec.model) and content.differ(outcome, here):
                self.ray.kill(worker)
                raise _unusable(f"{spec.model!r} of content {outcome}, here {here}")
            present.learn(spec.model, outcome or here)  # this process may not have it
        self.idle = [worker]

    def unfit(self, error: Exception) -> ClusterError:
        """Make the error for a worker that could not even start, or died without a run to blame."""
        said = " ".join(str(error).split())
        return ClusterError("a worker", expected="to start", found=said, do="Correct its node.")

    def add(self, specs: Sequence[RunSpec]) -> None:
        """Queue these runs."""
        lineages: dict[str, Lineage] = {}
        for spec in specs:
            lineages.setdefault(spec.lineage[0].run_id, []).append(spec)
        # The costliest first: begun late, it would end last, alone.
        self.queue = sorted(lineages.values(), key=lambda runs: -sum(map(experiment.cost, runs)))

    def nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def room(self) -> int:
        """Count the workers that the nodes that are there now can hold."""
        return sum(
            min(int(node.get(name, 0) // n) for name, n in self.wanted.items())
            for node in self.nodes()
        )

    def work(self, bar: tqdm) -> None:
        """Hand out what is queued until nothing is left, the worker that is free now first."""
        idle, self.idle = self.idle, []  # later the worker that has just done a run
        while self.queue or self.jobs:
            while (idle or len(self.jobs) < self.room()) and (taken := self.take()):
                self.start(*taken, idle)
            idle = []  # nothing is left for it, and what it occupies is free
            self.show(bar)
            if self.jobs:
                done, _ = self.ray.wait(list(self.jobs), timeout=experiment.POLL_SECONDS)
                idle = [worker for ref in done if (worker := self.take_in(ref)) is not None]
            elif self.queue:  # what is left is in progress in other processes
                time.sleep(experiment.POLL_SECONDS)

    def start(self, spec: RunSpec, lineage: Lineage, lock: FileLock, idle: list[Any]) -> None:
        """Hand a run to a worker that is idle, or else to a new one."""
        worker = idle.pop() if idle else self.new_worker()
        keep = any(s.start == spec for s in lineage)
        self.jobs[worker.run.remote(spec, keep)] = _Job(spec, lineage, lock, worker)

    def take(self) -> tuple[RunSpec, Lineage, FileLock] | None:
        """Take the first run that can be done now, under its lock, and what follows it."""
        for lineage in self.queue:
            for spec in list(lineage):
                if spec.start in self.failures or spec.start in self.skipped:
                    self.skipped.append(spec)
                    lineage.remove(spec)
                elif spec.start not in lineage:  # else another process is doing its start
                    with contextlib.suppress(Timeout):
                        lock = self.store.lock(spec.run_id).lock
                        lineage.remove(spec)
                        if spec.run_id not in self.store:
                            self.queue = [other for other in self.queue if other is not lineage]
                            return spec, lineage, lock
                        lock.release()  # another process has done it
        self.queue = [lineage for lineage in self.queue if lineage]
        return None

    def take_in(self, ref: Any) -> Any:
        """Store what a job gave; return its worker, or None where it is dead or not trusted."""
        job = self.jobs.pop(ref)
        self.queue.insert(0, job.lineage)  # the worker that has its weights goes on with it
        good = False
        try:
            outcome = self.ray.get(ref)
            if isinstance(outcome, RunResult):
                self.store.write(outcome)
                good = True
            elif outcome.shared:
                self.ray.kill(job.worker)
                raise _unusable(outcome.why)
            else:
                self.failures[job.spec], good = outcome.why, outcome.good
        except self.ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):
                raise self.unfit(error) from error
            said = " ".join(str(error).split())
            self.deaths[job.spec] += 1
            if (n := self.deaths[job.spec]) > self.max_retries:
                self.failures[job.spec] = f"its worker died {n} times, the last time: {said[:300]}"
            else:
                job.lineage.insert(0, job.spec)
        finally:
            job.lock.release()
        if good:
            return job.worker
        self.ray.kill(job.worker)
        return None

    def show(self, bar: tqdm) -> None:
        running = [[job.spec, *job.lineage] for job in self.jobs.values()]
        left = [spec for lineage in (*self.queue, *running) for spec in lineage]
        said = f"{len(left)} runs left, {len(self.jobs)} workers, {self.deaths.total()} died"
        bar.set_description(f"{said}, {len(self.failures)} runs failed", refresh=False)
        bar.update(bar.total - bar.n - sum(map(experiment.cost, left)))


def _unusable(why: str) -> ClusterError:
    return ClusterError(
        "a worker",
        expected="a model that it can use",
        found=why,
        do="Correct it there, and start again: finished runs are kept.",
    )


# --- a worker ------------------------------------------------------------------------------------


class Worker:
    """A process on a node, with one model in memory.

    The weights that siblings start from are in a folder of its own, so that they are trained once.
    """

    def __init__(self, own_tasks: Sequence[tasks.Task], n_threads: int, code: str) -> None:
        if code != (found := source_hash()):
            raise RuntimeError(  # Ray cannot send what takes more than its message, as our errors
                f"forgetlib on node {os.uname().nodename} is {found}, the driver's is {code}: "
                "install the same version on both, and edit none while a study runs"
            )
        os.environ["OMP_NUM_THREADS"] = str(n_threads)  # torch, which reads it, comes later
        for task in own_tasks:
            tasks.add(task)
        self.folder = _own_folder()
        self.store = Store(Path(self.folder.name) / "none.parquet", Path(self.folder.name))
        self.bench = experiment.Bench(self.store)
        self.root = ""

    def load(self, spec: RunSpec) -> str | Failure | None:
        """Load a run's model; return its content, or why it cannot be loaded."""
        try:
            self.bench.load(spec)
            return self.bench.digest()
        except Exception as error:
            return Failure(experiment.reason(error), good=False, shared=True)

    def run(self, spec: RunSpec, keep: bool) -> RunResult | Failure:
        """Do a run; return its result, or why it raised.

        keep: whether another run of the lineage will start from this one
        """
        if self.root != (root := spec.lineage[0].run_id):
            self.root = root  # what the last lineage started from is not needed any more
            shutil.rmtree(self.store.weights_path("").parent, ignore_errors=True)
        try:
            result = experiment.run(spec, self.bench)
            if keep:
                self.bench.keep(spec)
            return result
        except Exception as error:
            from forgetlib.models import ModelError

            shared = isinstance(error, experiment.StudyError | ModelError)
            return Failure(experiment.reason(error), isinstance(error, ForgetlibError), shared)


def source_hash() -> str:
    """Hash the package's files: two processes with the same hash do the same."""
    folder = Path(__file__).parent
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".cpp"))
    content = [(p.relative_to(folder).as_posix(), p.read_bytes()) for p in files]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that goes with this process. A killed one's stays for the next to remove."""
    prefix = "forgetlib-worker-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            os.kill(int(left.name.removeprefix(prefix).split("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:  # another user's, alive
            continue
    return tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-")
