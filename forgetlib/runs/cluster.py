"""A study's missing runs on a Ray cluster: many workers, one store, which only the driver has.

    studies.run(study("embedded"), ray_address="auto")

The driver hands a job to a worker, stores what comes back, and only then hands on: what is done
survives every worker and the driver. Results are megabytes at most; weights stay on the worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from forgetlib.data import tasks
from forgetlib.data.base import Task
from forgetlib.engine.device import SHARE, gpu_share
from forgetlib.errors import ForgetlibError, ModelError
from forgetlib.files import PACKAGE
from forgetlib.measuring.base import Readout
from forgetlib.runs import bench, content, cost, jobs, local
from forgetlib.runs.progress import Bar
from forgetlib.runs.records import Job, Record
from forgetlib.runs.specs import Measurement
from forgetlib.runs.store import Store

Lineage = list[Job]  # jobs to be done that share a root, each after the one it starts from


@dataclass(frozen=True)
class Failure:
    """Tell why a job raised, as text, since not every exception can be sent.

    good: whether the worker's process is as good as before
    shared: whether all other jobs of the model would raise too
    """

    why: str
    good: bool
    shared: bool


class ClusterError(ForgetlibError, RuntimeError):
    """Ray is not there, or its nodes are not fit for the work."""


def compute(
    wanted: Sequence[Job],
    store: Store,
    address: str,
    *,
    progress: bool = True,
    max_retries: int = 2,
) -> None:
    """Compute every job of which the store lacks something, on the Ray cluster at `address`.

    address: as ray.init takes it: "host:port", "auto" (the cluster that runs on this machine),
        "local" (a new one on it). A connection that the caller has made is used as it is.
    max_retries: how many workers that die under one job are replaced

    A lineage, all jobs with the same root, is done by one worker, the costliest lineage first. It
    is not split when workers are idle: another worker would have to train the start again, and
    what another GPU rounds differently would be taken for forgetting. Only a worker's death moves
    a lineage, and then the start is trained again.

    A worker has one GPU where the cluster has any, or the share of one that FORGETLIB_GPU_SHARE
    says here; else as many CPUs as OMP_NUM_THREADS says, or 2; and that many threads. A node needs
    the driver's versions of Python, of the libraries and of forgetlib (whose source is compared);
    the model and the data in its cache or within reach, as the environment says in which its Ray
    was started (FORGETLIB_CACHE, HF_HOME, ...); and space for one checkpoint's weights in its
    temporary folder. Tasks of your own are sent along, with what a notebook or script defines;
    modules that they import have to be on the nodes.

    Every model is loaded once by one worker before the first job: what is wrong with it is said
    then. Raises RunsFailed, at the end, where a job raised or its workers kept dying; ClusterError,
    at once, where a worker cannot use a model.
    """
    missing = [j for j in wanted if not store.has(j)]
    if not missing:
        return
    with _connected(address) as ray:
        driver = _Driver(ray, missing, store, max_retries)
        driver.load(local.one_per_model(missing))
        missing = [j for j in wanted if not store.has(j)]  # by what the models are there
        local.warn_of_outdated(missing, store)
        driver.add(missing)
        total = sum(map(jobs.cost, missing))
        try:
            with Bar(total, len(wanted), quiet=not progress) as bar:
                driver.work(bar)
        finally:
            for task in driver.under_way.values():
                ray.kill(task.worker)
                task.lock.release()
    if driver.failures:
        raise local.RunsFailed(driver.failures, driver.skipped)


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


@dataclass(frozen=True)
class _UnderWay:
    """A job that a worker does. lineage: what is to be done after it."""

    job: Job
    lineage: Lineage
    lock: FileLock
    worker: Any


def _root(job: Job) -> str:
    """Name what a job's lineage begins with: one worker does all that goes back to it."""
    return next((c.id for c in job.checkpoint.lineage if c.method), job.id)


class _Driver:
    """Hands out jobs and takes in results. A lineage is in the queue or with one worker."""

    def __init__(self, ray: Any, wanted: Sequence[Job], store: Store, max_retries: int) -> None:
        self.ray, self.store, self.max_retries = ray, store, max_retries
        self.queue: list[Lineage] = []
        self.under_way: dict[Any, _UnderWay] = {}  # by the reference to their result
        # Workers that have nothing to do now. A worker lives as long as a name holds it, and
        # occupies its place: there is to be no other name for one of these.
        self.idle: list[Any] = []
        self.deaths: Counter[Job] = Counter()
        self.failures: dict[Job, str] = {}
        self.skipped: list[Job] = []
        self.lost: set[str] = set()  # checkpoints of these
        self.n_jobs = len(wanted)
        n_threads = int(os.environ.get("OMP_NUM_THREADS") or 2)
        has_gpus = any(node.get("GPU", 0) >= 1 for node in self.nodes())
        self.wanted = {"CPU": 1, "GPU": gpu_share()} if has_gpus else {"CPU": n_threads}
        if not self.room():
            raise ClusterError(
                "the cluster",
                expected=f"a node with {n_threads} CPUs, for a worker with as many threads",
                found=f"nodes with {[node.get('CPU', 0) for node in self.nodes()]}",
                do="Set OMP_NUM_THREADS to fewer, or add a node.",
            )
        names = {t for j in wanted for t in cost.tasks_of(j)}
        own_tasks = [tasks.get(name) for name in sorted(names - tasks.BUILT_IN)]
        cpus, gpus = self.wanted["CPU"], self.wanted.get("GPU", 0)
        actor = ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus)
        code = source_hash()  # now: who edits a file while a study runs is told by a new worker
        self.new_worker = lambda: actor.remote(own_tasks, n_threads, gpus or 1.0, code)

    def load(self, wanted: Sequence[Job]) -> None:
        """Start a worker, and let it load these jobs' models, one after the other."""
        worker = self.new_worker()
        for job in wanted:
            try:
                outcome = self.ray.get(worker.load.remote(job))
            except self.ray.exceptions.RayError as error:
                raise self.unfit(error) from error
            if isinstance(outcome, Failure):
                self.ray.kill(worker)
                raise _unusable(outcome.why)
            if (present := self.store.present) is None:
                continue
            # Of the hub's, which it has loaded now, it knows more than a cache here does.
            model = job.checkpoint.model
            here = present.model(model)
            if content.in_folders(model) and content.differ(outcome, here):
                self.ray.kill(worker)
                raise _unusable(f"{model!r} of content {outcome}, here {here}")
            present.learn(model, outcome or here)  # this process may not have it
        self.idle = [worker]

    def unfit(self, error: Exception) -> ClusterError:
        """Make the error for a worker that could not even start, or died without a job to blame."""
        said = " ".join(str(error).split())
        return ClusterError("a worker", expected="to start", found=said, do="Correct its node.")

    def add(self, wanted: Sequence[Job]) -> None:
        """Queue these jobs."""
        lineages: dict[str, Lineage] = {}
        for job in wanted:
            lineages.setdefault(_root(job), []).append(job)
        # The costliest first: begun late, it would end last, alone.
        self.queue = sorted(lineages.values(), key=lambda line: -sum(map(jobs.cost, line)))

    def nodes(self) -> list[dict[str, float]]:
        """List the resources of the nodes that are there now."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def room(self) -> int:
        """Count the workers that the nodes that are there now can hold."""
        found = [int(node.get("CPU", 0) // self.wanted["CPU"]) for node in self.nodes()]
        if gpu := self.wanted.get("GPU"):
            a_gpu = int(1 / gpu + 1e-9)  # no worker has parts of two
            gpus = [int(node.get("GPU", 0)) * a_gpu for node in self.nodes()]
            found = list(map(min, found, gpus))
        return sum(found)

    def work(self, bar: Bar) -> None:
        """Hand out what is queued until nothing is left, the worker that is free now first."""
        idle, self.idle = self.idle, []  # later the worker that has just done a job
        while self.queue or self.under_way:
            while (idle or len(self.under_way) < self.room()) and (taken := self.take()):
                self.start(*taken, idle)
            idle = []  # nothing is left for it, and what it occupies is free
            self.show(bar)
            if self.under_way:
                done, _ = self.ray.wait(list(self.under_way), timeout=local.POLL_SECONDS)
                idle = [worker for ref in done if (worker := self.take_in(ref)) is not None]
            elif self.queue:  # what is left is in progress in other processes
                time.sleep(local.POLL_SECONDS)

    def start(self, job: Job, lineage: Lineage, lock: FileLock, idle: list[Any]) -> None:
        """Hand a job to a worker that is idle, or else to a new one."""
        worker = idle.pop() if idle else self.new_worker()
        keep = any(j.checkpoint.start == job.checkpoint for j in lineage)
        stored = local.stored(job, self.store)
        ref = worker.run.remote(job, stored, keep)
        self.under_way[ref] = _UnderWay(job, lineage, lock, worker)

    def take(self) -> tuple[Job, Lineage, FileLock] | None:
        """Take the first job that can be done now, under its lock, and what follows it."""
        for lineage in self.queue:
            for job in list(lineage):
                start = job.checkpoint.start
                if start is not None and start.id in self.lost:
                    self.skipped.append(job)
                    self.lost.add(job.checkpoint.id)
                    lineage.remove(job)
                elif all(j.checkpoint != start for j in lineage):  # else another process does it
                    with contextlib.suppress(Timeout):
                        lock = self.store.lock(job.id).lock
                        lineage.remove(job)
                        if not self.store.has(job):
                            self.queue = [other for other in self.queue if other is not lineage]
                            return job, lineage, lock
                        lock.release()  # another process has done it
        self.queue = [lineage for lineage in self.queue if lineage]
        return None

    def take_in(self, ref: Any) -> Any:
        """Store what a job gave; return its worker, or None where it is dead or not trusted."""
        done = self.under_way.pop(ref)
        self.queue.insert(0, done.lineage)  # the worker that has its weights goes on with it
        good = False
        try:
            outcome = self.ray.get(ref)
            if not isinstance(outcome, Failure):
                self.store.write(outcome)
                good = True
            elif outcome.shared:
                self.ray.kill(done.worker)
                raise _unusable(outcome.why)
            else:
                self.fail(done.job, outcome.why)
                good = outcome.good
        except self.ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):
                raise self.unfit(error) from error
            said = " ".join(str(error).split())
            self.deaths[done.job] += 1
            if (n := self.deaths[done.job]) > self.max_retries:
                self.fail(done.job, f"its worker died {n} times, the last time: {said[:300]}")
            else:
                done.lineage.insert(0, done.job)
        finally:
            done.lock.release()
        if good:
            return done.worker
        self.ray.kill(done.worker)
        return None

    def fail(self, job: Job, why: str) -> None:
        """Note that a job cannot be done, and so nothing that starts from it."""
        self.failures[job] = why
        self.lost.add(job.checkpoint.id)

    def show(self, bar: Bar) -> None:
        """Show how much is left, and who works."""
        running = [[u.job, *u.lineage] for u in self.under_way.values()]
        left = [job for lineage in (*self.queue, *running) for job in lineage]
        said = f"{len(self.under_way)} workers, {self.deaths.total()} died"
        bar.say(self.n_jobs - len(left), f"{said}, {len(self.failures)} jobs failed")
        bar.left(sum(map(jobs.cost, left)))


def _unusable(why: str) -> ClusterError:
    return ClusterError(
        "a worker",
        expected="a model that it can use",
        found=why,
        do="Correct it there, and start again: finished runs are kept.",
    )


class Worker:
    """Work in a process on a node, with one model in memory.

    The weights that siblings start from are in a folder of its own, so that they are trained once.
    """

    def __init__(self, own_tasks: Sequence[Task], n_threads: int, share: float, code: str) -> None:
        if code != (found := source_hash()):
            raise RuntimeError(  # Ray cannot send what takes more than its message, as our errors
                f"forgetlib on node {os.uname().nodename} is {found}, the driver's is {code}: "
                "install the same version on both, and edit none while a study runs"
            )
        os.environ["OMP_NUM_THREADS"] = str(n_threads)  # torch, which reads it, comes later
        os.environ[SHARE] = str(share)
        for task in own_tasks:
            tasks.add(task)
        self.folder = _own_folder()
        self.store = Store(Path(self.folder.name) / "none", Path(self.folder.name))
        self.bench = bench.Bench(self.store)
        self.root = ""

    def load(self, job: Job) -> str | Failure | None:
        """Load a job's model; return its content, or why it cannot be loaded."""
        try:
            self.bench.load(job.checkpoint)
            return self.bench.digest()
        except Exception as error:
            return Failure(bench.reason(error), good=False, shared=True)

    def run(
        self, job: Job, stored: Mapping[Measurement, Readout], keep: bool
    ) -> list[Record] | Failure:
        """Do a job; return its records, or why it raised.

        keep: whether another job of the lineage will start from this one
        """
        if self.root != (root := _root(job)):
            self.root = root  # what the last lineage started from is not needed any more
            shutil.rmtree(self.store.weights_path("").parent, ignore_errors=True)
        try:
            found = jobs.run(job, self.bench, stored=stored)
            if keep and job.checkpoint.method:
                self.bench.keep(job.checkpoint)
            return found
        except Exception as error:
            shared = isinstance(error, bench.StudyError | ModelError)
            return Failure(bench.reason(error), isinstance(error, ForgetlibError), shared)


def source_hash() -> str:
    """Hash the package's files: two processes with the same hash do the same."""
    folder = PACKAGE
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
