"""Compute jobs on this machine, alone or beside other processes that share the work."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

from filelock import Timeout

from forgetlib.errors import ForgetlibError, ModelError
from forgetlib.files import StoreError
from forgetlib.measuring.base import Readout
from forgetlib.runs.bench import Bench, StudyError, reason
from forgetlib.runs.jobs import cost, run
from forgetlib.runs.processes import together, told, writes
from forgetlib.runs.progress import Bar
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Measurement
from forgetlib.runs.store import Store

POLL_SECONDS = 2.0  # how often to look whether another process has finished its job


class RunsFailed(ForgetlibError, RuntimeError):
    """Some jobs raised; all others are stored, but for those that start from them.

    failures: why, by the job that raised
    skipped: the jobs that start from these
    """

    def __init__(self, failures: Mapping[Job, str], skipped: Sequence[Job]) -> None:
        lines = [f"\n  {job} ({job.checkpoint.id}): {why}" for job, why in failures.items()]
        super().__init__(
            "jobs",
            expected="all to be computed",
            found=f"{len(failures)} failed and {len(skipped)} skipped, which start from them:"
            + "".join(lines),
            do="All others are stored. Correct the cause and start again: only these are computed.",
        )
        self.failures, self.skipped = dict(failures), tuple(skipped)


def compute(
    jobs: Sequence[Job], store: Store, *, progress: bool = True, keep_weights: bool = False
) -> None:
    """Compute every job of which the store lacks something.

    keep_weights: keep every checkpoint's, not only those that others start from, so that what is
        asked of them later trains nothing again

    Every model is loaded once before the first job: what is wrong with it is said then. A job that
    raises does not stop the others: RunsFailed names it at the end. What the store cannot write,
    and a model that fails or has changed, stops at once, as it would for the others too; so does
    what raises in one of the processes that share a model, since the others may be amid a pass.
    """
    waiting = told(lambda: [j for j in jobs if not store.has(j)])
    if not waiting:
        return
    bench = Bench(store)
    for job in reversed(one_per_model(waiting)):  # the first job's last, which then stays
        bench.load(job.checkpoint)
        if store.present is not None:
            store.present.learn(job.checkpoint.model, bench.digest())
    waiting = told(lambda: [j for j in jobs if not store.has(j)])
    warn_of_outdated(waiting, store)
    n_done = len(jobs) - len(waiting)
    failures: dict[Job, str] = {}
    skipped: list[Job] = []
    lost: set[str] = set()  # checkpoints of these
    with Bar(sum(map(cost, waiting)), len(jobs), quiet=not progress or not writes()) as bar:
        while waiting:
            blocked: set[str] = set()  # checkpoints under way elsewhere, and what starts from them
            for job in list(waiting):
                start = job.checkpoint.start and job.checkpoint.start.id
                if start in blocked:
                    blocked.add(job.checkpoint.id)
                    continue
                if start in lost:
                    skipped.append(job)
                    lost.add(job.checkpoint.id)
                    waiting.remove(job)
                    continue
                bar.at(n_done, job)
                try:
                    with _claimed(job, store) as state:
                        if state == "busy":
                            blocked.add(job.checkpoint.id)
                            continue
                        if state == "ours":
                            _run_and_keep(job, jobs, store, bench, bar, keep_weights)
                        n_done += 1
                except (StoreError, StudyError, ModelError):
                    raise
                except Exception as error:
                    if together():
                        raise
                    failures[job] = reason(error)
                    lost.add(job.checkpoint.id)
                waiting.remove(job)
            if waiting:
                bar.say(n_done, "waiting for another process")
                time.sleep(POLL_SECONDS)
        if not failures:  # what was counted is an estimate: all is done now
            bar.left(0)
        bar.say(n_done, "")
    told(lambda: None)  # until the first has written
    if failures:
        raise RunsFailed(failures, skipped)


def one_per_model(jobs: Iterable[Job]) -> list[Job]:
    """Pick a job of each model and dtype: the first that trains, or the first."""
    found: dict[tuple[str, str], Job] = {}
    for job in jobs:
        key = job.checkpoint.model, job.checkpoint.dtype
        # One that trains, as it says which tuning the model is loaded with.
        if key not in found or (found[key].checkpoint.method is None and job.checkpoint.method):
            found[key] = job
    return list(found.values())


def warn_of_outdated(jobs: Iterable[Job], store: Store) -> None:
    """Say once which contents have changed, and how many stored jobs are computed anew for it."""
    outdated = store.outdated(jobs)
    if outdated and writes():
        names = ", ".join(dict.fromkeys(name for differs in outdated.values() for name in differs))
        warnings.warn(
            f"{len(outdated)} stored jobs are computed anew, as other than when they were made: "
            f"{names}",
            stacklevel=4,
        )


@contextlib.contextmanager
def _claimed(job: Job, store: Store) -> Iterator[str]:
    """Tell whether a job is "ours" to do while this lasts, or another process "busy" or "done"."""
    with contextlib.ExitStack() as held:

        def claim() -> str:
            with contextlib.suppress(Timeout):
                held.enter_context(store.lock(job.id))
                return "done" if store.has(job) else "ours"
            return "busy"

        yield told(claim)


def stored(job: Job, store: Store) -> dict[Measurement, Readout]:
    """Read what is known of a job from before."""
    there = set(job.measurements) - set(store.missing(job))
    return {m: store.read(job.checkpoint, m).value for m in job.measurements if m in there}


def _run_and_keep(
    job: Job, jobs: Sequence[Job], store: Store, bench: Bench, bar: Bar, keep_weights: bool
) -> None:
    """Do a job, store what it found, and keep its weights while others start from them, or all."""

    def starts_from(checkpoint_id: str) -> bool:
        return any(
            j.checkpoint.start is not None
            and j.checkpoint.start.id == checkpoint_id
            and j.id != job.id
            and not store.has(j)
            for j in jobs
        )

    known = told(lambda: stored(job, store))
    records = run(job, bench, bar.report, known)
    # Weights first: a kill between the two loses this job, not its descendants' start.
    if job.checkpoint.method and told(lambda: keep_weights or starts_from(job.checkpoint.id)):
        bench.keep(job.checkpoint)
    if not writes():
        return
    store.write(records)
    start = job.checkpoint.start
    if start is not None and not keep_weights and not starts_from(start.id):
        store.drop_weights(start.id)
