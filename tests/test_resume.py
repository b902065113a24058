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
from synthetic import family
from test_experiment import small

from forgetlib import experiment, store
from forgetlib.schema import TrainConfig
from forgetlib.store import Store, read_records, write_records

CHILDREN = multiprocessing.get_context("forkserver")
IMPORTED_ONCE = ("test_resume", "forgetlib.models", "forgetlib.training", "forgetlib.probing")
IMPORTED_ONCE += ("transformers.models.llama.modeling_llama",)


@pytest.fixture(scope="module", autouse=True)
def _importing_once():
    from multiprocessing import forkserver

    with pytest.MonkeyPatch.context() as patch:
        paths = [str(Path(__file__).parent), *sys.path]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("OMP_NUM_THREADS", "1")
        CHILDREN.set_forkserver_preload(list(IMPORTED_ONCE))
        forkserver.ensure_running()


# --- in a child ----------------------------------------------------------------------------------


def named():
    """A study of a second, in the place of the named one."""
    briefly = TrainConfig(3e-3, record_steps=1, epochs=1)
    return replace(small(tuned=briefly, forgetting=briefly), name="tiny", modified=False)


def compute(root, say, faults):
    """Compute the study in a project folder after these calls, and say how it went."""
    from forgetlib import probing

    os.environ["FORGETLIB_ROOT"] = str(root)
    experiment.STUDIES["tiny"] = named()
    experiment.POLL_SECONDS = 0.05
    experiment._commit = lambda: "abc"  # others may be working on the checkout
    probing.fit = partial(probing.fit, max_steps=5)
    sys.stderr = io.StringIO()
    said = "done"
    for fault, *arguments in faults:
        fault(*arguments)
    say.send("started")
    try:
        experiment.results(named())
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
RECORD, WEIGHTS, PACK = "runs", "weights", "tiny"
STEPS = {  # of writing: where the function is, and the path in its arguments
    "make the folder": (Path, "mkdir", lambda path, **k: path / "any"),
    "open": (os, "open", lambda path, *a, **k: Path(os.fsdecode(path))),
    "create": (tempfile, "mkstemp", lambda *a, dir, **k: dir / "any"),
    "write a table": (store.pq, "write_table", lambda table, path, **k: path),
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
        n += path.parent.name == place
        if path.parent.name != place or n < count:
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
    """File name -> bytes of every record."""
    return {p.name: p.read_bytes() for p in (root / ".work/tiny/runs").glob("*.parquet")}


def content(root, folder):
    """The packed results as bytes, but for what differs between any two runs."""
    records = read_records(root / "figures/tiny/results.parquet")
    kept = [replace(r, provenance=r.provenance | {"seconds": 0, "date": ""}) for r in records]
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
        for record in (root / ".work/tiny/runs").glob("*.parquet"):
            assert len(read_records(record)) == 1
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


def note_runs(log):
    """Append a line a run: the process and the run."""
    run = experiment.run

    def noted(spec, *rest):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {spec.run_id}\n")
        return run(spec, *rest)

    experiment.run = noted


def wait_for_all(barrier):
    barrier.wait(60)


def runs_of(log):
    """Process -> its runs, as noted."""
    found = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        process, run_id = line.split()
        found.setdefault(process, []).append(run_id)
    return found


def test_two_processes_share_a_study_and_each_run_is_done_once(tmp_path, ends_well):
    log, barrier = tmp_path / "log", CHILDREN.Barrier(2)
    both = [start(tmp_path, (note_runs, log), (wait_for_all, barrier)) for _ in range(2)]
    assert [outcome(*process) for process in both] == ["done", "done"]
    one, other = runs_of(log).values()
    assert sorted(one + other) == sorted(s.run_id for s in named().specs())
    assert ends_well(tmp_path)


def test_the_other_process_takes_over_what_a_killed_one_had_begun(tmp_path, ends_well):
    log, barrier = tmp_path / "log", CHILDREN.Barrier(2)
    ready = (note_runs, log), (wait_for_all, barrier)
    killed = start(tmp_path, *ready, (kill_at, "write a table", RECORD, "amid", 1))
    other = start(tmp_path, *ready)
    assert [outcome(*killed), outcome(*other)] == ["killed", "done"]
    (lost,), done = (runs_of(log)[str(process.pid)] for process, _ in (killed, other))
    assert lost in done
    assert sorted(done) == sorted(s.run_id for s in named().specs())
    assert ends_well(tmp_path)


def test_of_two_processes_that_pack_neither_loses_the_other_s_runs(tmp_path):
    results = family("t", 0.5, 0.9, 0.6, n=20)
    ids = [r.spec.run_id for r in results]
    one, other = (Store(tmp_path / "packed", tmp_path / folder) for folder in ("a", "b"))
    one.write(results[0])
    one.pack(ids[:1])
    assert ids[1] not in one  # and it has read what is packed
    for result in results[1:]:
        other.write(result)
    other.pack(ids[1:])
    one.pack(ids[:1])
    assert {r.spec.run_id for r in read_records(tmp_path / "packed")} == set(ids)


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
    *(("make the folder", "locks", 1), ("open", "locks", 1), ("make the folder", RECORD, 1)),
    *((step, RECORD, 1) for step in ("create", "write a table", "sync", "rename")),
    *((step, WEIGHTS, 1) for step in ("create", "write weights", "sync", "rename")),
    ("open", "locks", 4),
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
    assert is_clear(said, tmp_path / ".work/tiny" / place, ""), said
    assert "File too large" in said
    assert all(len(read_records(p)) == 1 for p in (tmp_path / ".work/tiny/runs").glob("*"))
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
    load = safetensors.torch.load_file

    def load_deleted(path):
        Path(path).unlink()
        return load(path)

    safetensors.torch.load_file = load_deleted


@pytest.mark.parametrize("fate", ["deleted", "cut short", "deleted as they are read"])
def test_weights_that_are_gone_or_broken_are_trained_again(tmp_path, ends_well, fate):
    assert computed(tmp_path, (kill_at, "rename", RECORD, "after", 3)) == "killed"
    (weights,) = (tmp_path / ".work/tiny/weights").iterdir()
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
    assert computed(root, (note_runs, log)) == "done"
    n_again = sum(map(len, runs_of(log).values()))
    assert n_again == (len(named().specs()) if len(lost) == 2 else 0)
    assert ends_well(root)


def delete_at_run(folder, count, moment):
    run, n = experiment.run, 0

    def deleting(spec, *rest):
        nonlocal n
        n += 1
        if n == count and moment == "before":
            shutil.rmtree(folder)
        result = run(spec, *rest)
        if n == count and moment == "after":
            shutil.rmtree(folder)
        return result

    experiment.run = deleting


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_work_folder_that_is_deleted_meanwhile_is_an_error_at_most(
    tmp_path, ends_well, count, moment
):
    said = computed(tmp_path, (delete_at_run, tmp_path / ".work/tiny", count, moment))
    if count == 1:  # nothing was lost
        assert said == "done"
    else:
        found, _, do = said.partition(
            ": expected what was there a moment ago, found no such file. "
        )
        assert found.startswith(f"StoreError: results file {tmp_path}/.work/tiny/runs/")
        assert do.startswith("It was deleted meanwhile: start again")
    assert ends_well(tmp_path)


# --- the clock -----------------------------------------------------------------------------------


def jumping_clock():
    """Every look at the clock finds another decade."""
    import tqdm.std

    chance = random.Random(0)
    time.time = tqdm.std.time = lambda: chance.choice((0.0, 1e9, 2e9, 1e11))


def test_a_clock_that_jumps_changes_nothing(tmp_path, ends_well):
    assert computed(tmp_path, (jumping_clock,), (kill_at, "rename", RECORD, "after", 6)) == "killed"
    for number, path in enumerate(p for p in tmp_path.rglob("*") if p.is_file()):
        os.utime(path, (number % 2 * 2**32, number % 2 * 2**32))
    assert computed(tmp_path, (jumping_clock,)) == "done"
    records = read_records(tmp_path / "figures/tiny/results.parquet")
    assert all(0 <= r.provenance["seconds"] < 60 for r in records)
    assert ends_well(tmp_path)
