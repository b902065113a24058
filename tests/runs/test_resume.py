"""Kills, full disks, read-only and vanishing folders, and clocks: a study ends the same.

Its processes are forked from one that has imported torch, so that each starts at once.
"""

import contextlib
import errno
import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
from conftest import TEST_FOLDERS
from helpers import in_place_of_tiny
from synthetic import family

from forgetlib import studies
from forgetlib.forgetting.base import Training
from forgetlib.runs import local, provenance, rows
from forgetlib.runs.rows import read_records, write_records
from forgetlib.runs.store import Store

CHILDREN = multiprocessing.get_context("forkserver")
IMPORTED_ONCE = ("test_resume", "forgetlib.models", "forgetlib.forgetting", "forgetlib.measuring")
IMPORTED_ONCE += ("transformers.models.llama.modeling_llama",)


@pytest.fixture(scope="module", autouse=True)
def _importing_once():
    from multiprocessing import forkserver

    with pytest.MonkeyPatch.context() as patch:
        paths = [*TEST_FOLDERS, *sys.path]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("OMP_NUM_THREADS", "1")
        CHILDREN.set_forkserver_preload(list(IMPORTED_ONCE))
        forkserver.ensure_running()


# --- in a child ----------------------------------------------------------------------------------


def named():
    """A study of a second, in the place of the named one."""
    briefly = Training(3e-3, epochs=1)
    tasks = ("tiny_city", "tiny_review")
    return in_place_of_tiny(tasks=tasks, tuned=briefly, forgetting=briefly, records=1)


def compute(root, say, faults):
    """Compute the study in a project folder after these calls, and say how it went."""
    from forgetlib.measuring import probing

    os.environ["FORGETLIB_ROOT"] = str(root)
    studies.STUDIES["tiny"] = named()
    local.POLL_SECONDS = 0.05
    provenance._commit = lambda: "abc"  # others may be working on the checkout
    probing.fit = partial(probing.fit, max_steps=5)
    sys.stderr = io.StringIO()
    said = "done"
    for fault, *arguments in faults:
        fault(*arguments)
    say.send("started")
    try:
        studies.run(named())
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    say.send(said)


def start(root, *faults):
    """A process that computes the study, and what it says. A fault is (function, *arguments)."""
    hear, say = CHILDREN.Pipe(duplex=False)
    process = CHILDREN.Process(target=compute, args=(root, say, faults))
    process.start()
    say.close()
    return process, hear


def outcome(process, hear):
    """ "done", what was raised, or "killed"."""
    said = "started"
    try:
        while said == "started":
            said = hear.recv()
    except EOFError:
        said = "killed"
    process.join()
    assert (process.exitcode == -signal.SIGKILL) == (said == "killed"), process.exitcode
    return said


def computed(root, *faults):
    return outcome(*start(root, *faults))


# Where a file of the study is: its record or weights in the work folder, or what is packed.
RECORD, WEIGHTS, LOCKS = (f".work/tiny/{name}" for name in ("results", "weights", "locks"))
PACK = "figures/tiny/results"
STEPS = {  # of writing: where the function is, and the path in its arguments
    "make the folder": (Path, "mkdir", lambda path, **k: path / "any"),
    "open": (os, "open", lambda path, *a, **k: Path(os.fsdecode(path))),
    "create": (tempfile, "mkstemp", lambda *a, dir, **k: dir / "any"),
    "write a table": (rows.pq, "write_table", lambda table, path, **k: path),
    "write weights": (safetensors.torch, "save_file", lambda weights, path, **k: path),
    "sync": (os, "fsync", lambda fd: Path(f"/proc/self/fd/{fd}").readlink()),
    "rename": (Path, "replace", lambda partial, path: path),
    "drop": (Path, "unlink", lambda path, **k: path if path.suffix == ".safetensors" else Path()),
}


def at(step, place, count, do):
    """From the count-th time that a step is done in a place, do(its function) does it."""
    owner, name, path_of = STEPS[step]
    function, n = getattr(owner, name), 0

    def counted(*arguments, **options):
        nonlocal n
        path = path_of(*arguments, **options)
        is_there = path.parent.as_posix().endswith(place)
        n += is_there
        if not is_there or n < count:
            return function(*arguments, **options)
        return do(lambda: function(*arguments, **options), path)

    setattr(owner, name, counted)


def kill_at(step, place, moment, count):
    def killed(function, path):
        if moment != "before":
            function()
        if moment == "amid":
            os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    at(step, place, count, killed)


# --- what there is afterwards --------------------------------------------------------------------


def stored(root):
    """File name -> bytes of the records of every finished job."""
    return {p.name: p.read_bytes() for p in (root / RECORD).glob("*.parquet")}


def packed(root):
    """What is packed, each record once."""
    found = [r for pack in (root / PACK).glob("*.parquet") for r in read_records(pack)]
    assert len({r.key for r in found}) == len(found)
    return found


def content(root, folder):
    """The packed results as bytes, but for what differs between any two runs."""
    kept = [replace(r, provenance=r.provenance | {"seconds": 0, "date": ""}) for r in packed(root)]
    write_records(kept, folder / "content")
    return (folder / "content").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, _importing_once):
    root = tmp_path_factory.mktemp("undisturbed")
    process, hear = start(root)
    assert hear.recv() == "started"
    began = time.monotonic()
    assert outcome(process, hear) == "done"
    return root, time.monotonic() - began


@pytest.fixture
def ends_well(undisturbed, tmp_path):
    """ends_well(root): whether the study ends, as if undisturbed, with nothing left lying about."""
    expected = content(undisturbed[0], tmp_path)

    def check(root):
        assert computed(root) == "done"
        for records in (root / RECORD).glob("*.parquet"):
            assert len({r.checkpoint for r in read_records(records)}) == 1
        assert not list(root.rglob("*.partial"))
        return content(root, tmp_path) == expected

    return check


# --- kills ---------------------------------------------------------------------------------------

MOMENTS = [
    *[None] * 7,  # any time
    *((step, RECORD, "after", 3) for step in ("create", "sync")),
    *(("write a table", RECORD, moment, 2) for moment in ("before", "amid", "after")),
    *(("rename", RECORD, moment, 3) for moment in ("before", "after")),
    *(("write weights", WEIGHTS, moment, 1) for moment in ("before", "amid", "after")),
    *(("rename", WEIGHTS, moment, 1) for moment in ("before", "after")),
    *(("drop", WEIGHTS, moment, 1) for moment in ("before", "after")),
    *(("write a table", PACK, moment, 1) for moment in ("amid", "after")),
    *(("rename", PACK, moment, 1) for moment in ("before", "after")),
]


@pytest.mark.slow
def test_killed_at_25_moments_a_study_resumes_to_the_same_bits(tmp_path, undisturbed, ends_well):
    _, seconds = undisturbed
    chance = random.Random(0)
    moments = chance.sample(MOMENTS, len(MOMENTS))
    assert len(moments) == 25
    roots = [tmp_path / "0"]
    for moment in moments:
        for _ in range(10):
            root = roots[-1]
            before = stored(root)
            process, hear = start(root, *([(kill_at, *moment)] if moment else []))
            if moment is None:
                assert hear.recv() == "started"
                time.sleep(chance.uniform(0, seconds))
                process.kill()
            if outcome(process, hear) == "killed":
                break
            assert ends_well(root)
            roots.append(tmp_path / str(len(roots)))
        else:
            pytest.fail(f"was not killed: {moment}")
        after = stored(root)
        assert before.items() <= after.items()  # what was finished stays as it was
    assert ends_well(roots[-1])


# --- two processes -------------------------------------------------------------------------------


def note_jobs(log):
    """Append a line a job: the process and the job."""
    run = local.run

    def noted(job, *rest):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {job.id}\n")
        return run(job, *rest)

    local.run = noted


def wait_for_all(barrier):
    barrier.wait(60)


def jobs_of(log):
    """Process -> its jobs, as noted."""
    found = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        process, job_id = line.split()
        found.setdefault(process, []).append(job_id)
    return found


def test_two_processes_share_a_study_and_each_job_is_done_once(tmp_path, ends_well):
    log, barrier = tmp_path / "log", CHILDREN.Barrier(2)
    both = [start(tmp_path, (note_jobs, log), (wait_for_all, barrier)) for _ in range(2)]
    assert [outcome(*process) for process in both] == ["done", "done"]
    one, other = jobs_of(log).values()
    assert sorted(one + other) == sorted(j.id for j in named().jobs())
    assert ends_well(tmp_path)


def test_the_other_process_takes_over_what_a_killed_one_had_begun(tmp_path, ends_well):
    log, barrier = tmp_path / "log", CHILDREN.Barrier(2)
    ready = (note_jobs, log), (wait_for_all, barrier)
    killed = start(tmp_path, *ready, (kill_at, "write a table", RECORD, "amid", 1))
    other = start(tmp_path, *ready)
    assert [outcome(*killed), outcome(*other)] == ["killed", "done"]
    (lost,), done = (jobs_of(log)[str(process.pid)] for process, _ in (killed, other))
    assert lost in done
    assert sorted(done) == sorted(j.id for j in named().jobs())
    assert ends_well(tmp_path)


def test_of_two_processes_that_pack_neither_loses_the_other_s_records(tmp_path):
    results = family("t", 0.5, 0.9, 0.6, n=20)
    keys = [[r.key for r in result.records] for result in results]
    one, other = (Store(tmp_path / "packed", tmp_path / folder) for folder in ("a", "b"))
    one.write(results[0].records)
    one.pack({"block": keys[0]})
    assert keys[1][0] not in one  # and it has read what is packed
    for result in results[1:]:
        other.write(result.records)
    assert other.pack({"block": [*keys[1], *keys[2]]})
    assert one.pack({"block": keys[0]}) == []
    found = [r.key for pack in (tmp_path / "packed").iterdir() for r in read_records(pack)]
    assert sorted(found) == sorted(key for of in keys for key in of)


def test_two_processes_that_store_one_checkpoint_do_not_disturb_each_other(tmp_path, monkeypatch):
    """The base model is asked by a job of each task, each of which has a lock of its own."""
    (base, *_), (again, *_) = (family(task, 0.5, 0.9, 0.6, n=20) for task in "tu")
    assert base.checkpoint == again.checkpoint
    place, write, both_in = Store(tmp_path / "none", tmp_path), rows.pq.write_table, []

    def slowly(table, path, **options):
        both_in.append(path)
        write(table, path, **options)
        time.sleep(0.3)
        assert path.exists()

    monkeypatch.setattr(rows.pq, "write_table", slowly)
    monkeypatch.setattr(time, "time_ns", lambda: 5)  # nor are their files one
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda result: place.write(result.records), (base, again)))
    assert len(both_in) == 2
    assert all(r.key in place for r in (*base.records, *again.records))


def test_who_writes_the_same_weights_at_once_does_not_disturb_the_other(tmp_path):
    place, both_in = Store(tmp_path / "packed", tmp_path), threading.Barrier(2)

    def slowly(text):
        def save(path):
            path.write_text(text)
            with contextlib.suppress(threading.BrokenBarrierError):
                both_in.wait(0.3)
            path.write_text(path.read_text() * 2)

        place.save_weights("a", save)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(slowly, "xy"))
    assert place.weights_path("a").read_text() in ("xx", "yy")


# --- the disk ------------------------------------------------------------------------------------


def full_at(step, place, count):
    def full(function, path):
        if step.startswith("write"):
            function()
            os.truncate(path, path.stat().st_size // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at(step, place, count, full)


FULL = (
    *(("make the folder", LOCKS, 1), ("open", LOCKS, 1), ("make the folder", RECORD, 1)),
    *((step, RECORD, 1) for step in ("create", "write a table", "sync", "rename")),
    *((step, WEIGHTS, 1) for step in ("create", "write weights", "sync", "rename")),
    ("open", LOCKS, 4),
    *((step, PACK, 1) for step in ("create", "write a table", "sync", "rename")),
)


def is_clear(said, path, reason):
    return (
        said.startswith(f"StoreError: writing {path}")
        and f": expected a folder that can be written, with space left, found {reason}" in said
        and "Free space or change the permissions, and start again: finished runs are kept." in said
    )


def test_a_disk_that_is_full_at_any_step_is_a_clear_error_and_breaks_nothing(tmp_path, ends_well):
    for step in FULL:
        before = stored(tmp_path)
        said = computed(tmp_path, (full_at, *step))
        assert is_clear(said, tmp_path, "[Errno 28] No space left on device"), (step, said)
        assert before.items() <= stored(tmp_path).items()
        assert not list(tmp_path.rglob("*.partial")), step
    assert ends_well(tmp_path)


def limit_files(n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


@pytest.mark.parametrize(("place", "n_bytes"), [(RECORD, 1_000), (WEIGHTS, 100_000)])
def test_a_write_that_the_system_cuts_short_is_a_clear_error_and_breaks_nothing(
    tmp_path, ends_well, place, n_bytes
):
    said = computed(tmp_path, (limit_files, n_bytes))
    assert is_clear(said, tmp_path / place, ""), said
    assert "File too large" in said
    assert all(read_records(p) for p in (tmp_path / RECORD).glob("*"))
    assert not list(tmp_path.rglob("*.partial"))
    assert ends_well(tmp_path)


def become_another_user():
    """Root may write anywhere."""
    if os.geteuid() == 0:
        os.seteuid(65534)


@pytest.fixture
def shared_folder():
    """A folder that every user can read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        if not all(p.stat().st_mode & 0o001 for p in Path(name).parents):
            pytest.skip(f"other users cannot read what is in {name}")
        yield Path(name) / "project"


def allow_writing(root, allowed):
    for path in (root, *root.rglob("*")):
        path.chmod((0o755 if allowed else 0o555) if path.is_dir() else 0o644 if allowed else 0o444)


@pytest.mark.parametrize("found", ["nothing", "half", "all"])
def test_what_is_stored_can_be_read_in_a_read_only_folder_and_nothing_else_can_be_done(
    shared_folder, undisturbed, ends_well, found
):
    root = shared_folder
    if found == "all":
        shutil.copytree(undisturbed[0], root)
    else:
        root.mkdir()
    if found == "half":
        assert computed(root, (kill_at, "rename", RECORD, "after", 4)) == "killed"
    before = stored(root)
    allow_writing(root, False)
    try:
        said = computed(root, (become_another_user,))
    finally:
        allow_writing(root, True)
    if found == "all":
        assert said == "done"
    else:
        assert is_clear(said, root / ".work", "[Errno 13] Permission denied"), said
    assert stored(root) == before
    assert ends_well(root)


# --- what vanishes -------------------------------------------------------------------------------


def delete_before_loading():
    load = safetensors.safe_open

    def load_deleted(path, framework):
        Path(path).unlink(missing_ok=True)
        return load(path, framework)

    safetensors.safe_open = load_deleted


@pytest.mark.parametrize("fate", ["deleted", "cut short", "deleted as they are read"])
def test_weights_that_are_gone_or_broken_are_trained_again(tmp_path, ends_well, fate):
    assert computed(tmp_path, (kill_at, "rename", RECORD, "after", 3)) == "killed"
    (weights,) = (tmp_path / WEIGHTS).iterdir()
    if fate == "deleted":
        weights.unlink()
    elif fate == "cut short":
        os.truncate(weights, weights.stat().st_size // 2)
    else:
        assert computed(tmp_path, (delete_before_loading,)) == "done"
    assert ends_well(tmp_path)


@pytest.mark.parametrize("lost", [("figures",), (".work",), ("figures", ".work")], ids="+".join)
def test_what_was_packed_or_worked_on_is_computed_again_only_when_both_are_lost(
    tmp_path, undisturbed, ends_well, lost
):
    root, log = tmp_path / "project", tmp_path / "log"
    shutil.copytree(undisturbed[0], root)
    for name in lost:
        shutil.rmtree(root / name)
    assert computed(root, (note_jobs, log)) == "done"
    n_again = sum(map(len, jobs_of(log).values()))
    assert n_again == (len(named().jobs()) if len(lost) == 2 else 0)
    assert ends_well(root)


def delete_at_job(folder, count, moment):
    run, n = local.run, 0

    def deleting(job, *rest):
        nonlocal n
        n += 1
        if n == count and moment == "before":
            shutil.rmtree(folder)
        found = run(job, *rest)
        if n == count and moment == "after":
            shutil.rmtree(folder)
        return found

    local.run = deleting


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_work_folder_that_is_deleted_meanwhile_is_an_error_at_most(
    tmp_path, ends_well, count, moment
):
    said = computed(tmp_path, (delete_at_job, tmp_path / ".work/tiny", count, moment))
    if count == 1:  # nothing was lost
        assert said == "done"
    else:
        assert said.startswith("StoreError: ")
        assert f"expected what was stored in {tmp_path}/.work/tiny/results or" in said
        assert "found nothing. It was deleted meanwhile: start again" in said
    assert ends_well(tmp_path)


# --- the clock -----------------------------------------------------------------------------------


def jumping_clock():
    """Every look at the clock finds another decade."""
    import tqdm.std

    chance = random.Random(0)
    time.time = tqdm.std.time = lambda: chance.choice((0.0, 1e9, 2e9, 1e11))
    time.time_ns = lambda: int(time.time() * 1e9)


def test_a_clock_that_jumps_changes_nothing(tmp_path, ends_well):
    assert computed(tmp_path, (jumping_clock,), (kill_at, "rename", RECORD, "after", 6)) == "killed"
    for number, path in enumerate(p for p in tmp_path.rglob("*") if p.is_file()):
        os.utime(path, (number % 2 * 2**32, number % 2 * 2**32))
    assert computed(tmp_path, (jumping_clock,)) == "done"
    assert all(0 <= r.provenance["seconds"] < 60 for r in packed(tmp_path))
    assert ends_well(tmp_path)
