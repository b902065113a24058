"""A study on a Ray cluster of two processes. Faults are in tasks, as these go to the workers."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from conftest import TEST_FOLDERS
from filelock import FileLock
from helpers import same_records, same_results, small

from forgetlib import __main__
from forgetlib.data import splits, tasks
from forgetlib.data.base import Task
from forgetlib.models import synthetic
from forgetlib.runs import bench, cluster, jobs, local
from forgetlib.runs.cluster import ClusterError
from forgetlib.runs.content import Present, of_model
from forgetlib.runs.grid import open_store
from forgetlib.runs.local import RunsFailed
from forgetlib.runs.results import run
from forgetlib.runs.store import Store

pytestmark = pytest.mark.usefixtures("brief_probes")


@pytest.fixture(scope="module")
def ray_address():
    """Address of a cluster of two CPUs on this machine, to which this process is connected."""
    ray = pytest.importorskip("ray")
    folder = tempfile.mkdtemp(prefix="ray-")  # pytest's own are too long for a socket's name
    before = set(psutil.Process().children(recursive=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # so that there are two workers
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=folder,
        )
        started = set(psutil.Process().children(recursive=True)) - before
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()
    _, alive = psutil.wait_procs(started, timeout=20)
    shutil.rmtree(folder, ignore_errors=True)
    assert not alive


@pytest.fixture(scope="module")
def one_thread():
    """As the workers have: sums are in the same order."""
    import torch

    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture
def written(monkeypatch):
    """Checkpoints of the jobs as they are written to a store, in order."""
    ids, write = [], Store.write

    def noted(store, records):
        ids.append(records[0].checkpoint.id)
        write(store, records)

    monkeypatch.setattr(Store, "write", noted)
    return ids


@pytest.fixture
def own_task(own_names):
    """own_task(name, fault) is tiny_review under another name, whose rows call fault() first."""

    def add(name, fault):
        like = tasks.get("tiny_review")

        def rows():
            fault()
            return like.rows()

        return tasks.add(Task(name, "synthetic", "text", rows, like.question)).name

    return add


def lineage_of(task, chosen, section):
    """The jobs of what goes back to a task's fine-tuned model."""
    return [
        j
        for j in chosen.jobs(section)
        if j.checkpoint.method and j.checkpoint.lineage[0].task == task
    ]


def ids(wanted):
    return [j.checkpoint.id for j in wanted]


def test_a_cluster_s_results_are_the_local_ones_bit_for_bit_and_each_is_done_once(
    ray_address, one_thread, project, monkeypatch, written
):
    chosen = small(tasks=("tiny_city",))
    found = run(chosen, "sizes", ray_address, progress=False)
    assert sorted(written) == sorted(ids(chosen.jobs("sizes")))
    monkeypatch.setenv("FORGETLIB_ROOT", str(project / "local"))
    assert same_results(found, run(chosen, "sizes", progress=False))
    assert {p["threads"] for r in found for p in r.provenances} == {1}

    monkeypatch.setenv("FORGETLIB_ROOT", str(project))
    monkeypatch.setitem(sys.modules, "ray", None)  # a second call does not even look for it
    assert same_results(run(chosen, "sizes", ray_address), found)
    assert len(written) == 2 * len(found)


def test_a_killed_worker_is_replaced_and_its_lineage_goes_on_where_it_was(
    ray_address, one_thread, project, tmp_path, own_task, written
):
    marker, done = tmp_path / "killed", tmp_path / "work/results"

    def kill_once():
        if not marker.exists():
            marker.write_text(" ".join(p.stem.split("-")[0] for p in done.glob("*")))
            os.kill(os.getpid(), signal.SIGKILL)

    chosen = small(tasks=("tiny_city", own_task("fragile", kill_once)))
    wanted = lineage_of("tiny_city", chosen, "cross")
    assert [j.checkpoint.task for j in wanted] == ["tiny_city", "tiny_city", "fragile"]
    store = Store(tmp_path / "none", tmp_path / "work")
    cluster.compute(wanted, store, ray_address, progress=False)
    # What was done is stored before the next job begins, and is not done again.
    assert set(marker.read_text().split()) == set(ids(wanted[:2]))
    assert written == ids(wanted)
    assert same_records(store.result(wanted[-1]).records, jobs.run(wanted[-1]))
    assert leftovers() == []


def leftovers():
    """Folders of workers that are not there any more."""
    found = Path(tempfile.gettempdir()).glob("forgetlib-worker-*")
    return [p for p in found if not psutil.pid_exists(int(p.name.split("-")[2]))]


@pytest.mark.parametrize("where", ["here", "on a cluster"])
def test_jobs_that_fail_are_named_with_the_reason_and_all_others_are_stored(
    request, where, project, tmp_path, own_task
):
    def no_column():
        raise KeyError("goal")

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    chosen = small(tasks=("tiny_city", own_task("broken", no_column), own_task("deadly", die)))
    fine, _ = lineage_of("tiny_city", chosen, "own")
    tuned, forgotten = lineage_of("broken", chosen, "own")
    deadly, _ = lineage_of("deadly", chosen, "own")
    store = Store(tmp_path / "none", tmp_path / "work")
    with pytest.raises(RunsFailed) as raised:
        if where == "here":
            local.compute([tuned, forgotten, fine], store, progress=False)
        else:
            address = request.getfixturevalue("ray_address")
            wanted = [tuned, forgotten, deadly, fine]
            cluster.compute(wanted, store, address, progress=False, max_retries=0)
    text = str(raised.value)
    n = 1 + (where == "on a cluster")
    assert text.startswith(
        f"jobs: expected all to be computed, found {n} failed and 1 skipped, which start from them:"
    )
    assert f"\n  {tuned} ({tuned.checkpoint.id}): KeyError: 'goal' (test_cluster.py, line " in text
    assert "in no_column)" in text
    assert (f"\n  {deadly} ({deadly.checkpoint.id}): its worker died 1 times, " in text) == (n == 2)
    assert forgotten.checkpoint.id not in text
    assert text.endswith("Correct the cause and start again: only these are computed.")
    assert store.has(fine)


def test_what_is_done_survives_the_driver_and_its_locks_do_not(
    ray_address, project, tmp_path, monkeypatch, written
):
    _, *wanted = small(tasks=("tiny_city",)).jobs("own")
    store = Store(tmp_path / "none", tmp_path / "work")
    show = cluster._Driver.show

    def interrupted_after_the_first(driver, bar):
        if written:
            raise KeyboardInterrupt
        show(driver, bar)

    monkeypatch.setattr(cluster._Driver, "show", interrupted_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        cluster.compute(wanted, store, ray_address, progress=False)
    assert [store.has(j) for j in wanted] == [True, False]
    with FileLock(store.lock_path(wanted[1].id), timeout=0):
        pass


def test_siblings_start_from_weights_that_are_kept_until_another_lineage_begins(
    project, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which a worker sets
    chosen = small(tasks=("tiny_city",))
    base, tuned, forgotten, smaller = chosen.jobs("sizes")
    made, make = [], bench.Bench.make
    monkeypatch.setattr(
        bench.Bench, "make", lambda b, c, *rest: made.append(c.id) or make(b, c, *rest)
    )
    worker = cluster.Worker([], 1, 1.0, cluster.source_hash())
    for job in (tuned, forgotten, smaller):
        found = worker.run(job, {}, keep=job == tuned)
        assert [r.measurement for r in found] == list(job.measurements)
    assert made == ids([tuned, forgotten, smaller])
    assert worker.store.weights_path(tuned.checkpoint.id).exists()
    worker.run(base, {}, keep=False)
    assert not worker.store.weights_path(tuned.checkpoint.id).exists()


def test_a_worker_is_told_what_is_stored_of_a_job_and_adds_the_rest(
    fake_ray, project, tmp_path, written
):
    (base, *_) = small(tasks=("tiny_city",)).jobs("own")
    store = Store(tmp_path / "none", tmp_path / "work")
    whole = jobs.run(base)
    store.write(whole[:1])
    cluster.compute([base], store, "auto", progress=False)
    assert same_records(store.result(base).records, whole)
    first = store.read(base.checkpoint, base.measurements[0])
    assert first.provenance == whole[0].provenance
    assert len(written) == 2


def test_a_job_that_another_process_is_doing_is_left_to_it(
    ray_address, project, tmp_path, monkeypatch, written
):
    _, *wanted = small(tasks=("tiny_city",)).jobs("own")
    store = Store(tmp_path / "none", tmp_path / "work")
    theirs = [jobs.run(j) for j in wanted]
    lock = FileLock(store.lock_path(wanted[0].id))
    lock.acquire()
    looks = []

    def they_finish_at_the_second_look(seconds):
        looks.append(seconds)
        assert not written  # nor what starts from theirs
        if len(looks) == 2:
            for records in theirs:
                store.write(records)
            lock.release()

    patience = SimpleNamespace(sleep=they_finish_at_the_second_look)
    monkeypatch.setattr(cluster, "time", patience)  # the module's own: Ray's threads sleep too
    cluster.compute(wanted, store, ray_address, progress=False)
    assert looks == [local.POLL_SECONDS] * 2


def test_a_node_with_another_version_is_an_error(ray_address, project, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "source_hash", lambda: "another")
    store = Store(tmp_path / "none", tmp_path / "work")
    with pytest.raises(
        ClusterError, match=r"to start, found.*forgetlib on node.*the driver's is another"
    ):
        cluster.compute(small().jobs("own"), store, ray_address, progress=False)


class Unready(Exception):
    """In the place of Ray's own errors; never raised."""


@dataclass(eq=False)
class Handle:
    """A worker as the driver holds it: where nobody does any more, its place is free."""

    load: SimpleNamespace
    run: SimpleNamespace


def in_this_process(n_cpus=2.0, n_gpus=0.0):
    """What the driver uses of Ray, where every call is done at once, in this process."""
    held = weakref.WeakSet()

    def method(function):
        return SimpleNamespace(remote=lambda *given: Reference(function(*given)))

    def actor(*given):
        assert len(held) < n_cpus, "Ray would wait for ever for a place"
        worker = cluster.Worker(*given)
        handle = Handle(method(worker.load), method(worker.run))
        held.add(handle)
        return handle

    return SimpleNamespace(
        is_initialized=lambda: True,
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": n_cpus, "GPU": n_gpus}}],
        remote=lambda of: SimpleNamespace(options=lambda **k: SimpleNamespace(remote=actor)),
        get=lambda reference: reference.value,
        wait=lambda references, timeout: (references[:1], references[1:]),
        kill=lambda worker: None,
        exceptions=SimpleNamespace(RayError=Unready),
    )


class Reference:
    def __init__(self, value):
        self.value = value


@pytest.fixture
def fake_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", in_this_process())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_model_that_a_worker_cannot_load_is_said_once_before_the_first_job(
    fake_ray, project, tmp_path, written
):
    store = Store(tmp_path / "none", tmp_path / "work")
    wanted = small(models=["tiny", "no/model"]).jobs()
    with pytest.raises(ClusterError) as raised:
        cluster.compute(wanted, store, "auto", progress=False)
    text = str(raised.value)
    assert text.startswith(
        "a worker: expected a model that it can use, found ModelError: model 'no"
    )
    assert text.count("ModelError") == 1
    assert written == []


def test_a_model_that_fails_in_a_later_job_is_said_once(project, tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which a worker sets
    worker = cluster.Worker([], 1, 1.0, cluster.source_hash())
    job = small(models=["no/model"]).jobs()[0]
    for outcome in (worker.load(job), worker.run(job, {}, keep=False)):
        assert outcome.shared and outcome.why.startswith("ModelError: model 'no/model': expected")
    unknown = small(tasks=("tiny_city",)).jobs()[0]
    monkeypatch.setattr(splits, "load", lambda *given: 1 / 0)
    outcome = worker.run(unknown, {}, keep=False)
    assert not outcome.shared and not outcome.good


def test_a_folder_s_model_that_is_another_one_on_a_node_is_an_error_before_the_first_job(
    fake_ray, project, tmp_path, written, tiny
):
    folder = str(tmp_path / "model")
    synthetic.tiny(64, torch.float32)[0].save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    present = Present()
    present.learn(folder, "another")
    store = Store(tmp_path / "none", tmp_path / "work", present)
    wanted = small(tasks=("tiny_city",), models=[folder]).jobs("own")[:1]
    with pytest.raises(ClusterError, match=r"of content \w+, here another"):
        cluster.compute(wanted, store, "auto", progress=False)
    assert written == []
    present.learn(folder, None)  # what only the nodes have
    cluster.compute(wanted, store, "auto", progress=False)
    assert present.model(folder) == of_model(folder) is not None
    (about,) = store.result(wanted[0]).provenances
    assert about["content"]["model"] == of_model(folder)


def test_a_model_that_is_in_no_folder_is_what_the_worker_loaded_whatever_a_cache_here_has(
    fake_ray, project, tmp_path
):
    present = Present()
    present.learn("tiny", "another")
    store = Store(tmp_path / "none", tmp_path / "work", present)
    wanted = small(tasks=("tiny_city",)).jobs("own")[:1]
    cluster.compute(wanted, store, "auto", progress=False)
    (about,) = store.result(wanted[0]).provenances
    assert about["content"]["model"] == "1"


def test_a_worker_for_which_nothing_is_left_gives_its_place_free(
    project, tmp_path, monkeypatch, written
):
    monkeypatch.setitem(sys.modules, "ray", in_this_process(n_cpus=1.0))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (base, *_) = small(tasks=("tiny_city",)).jobs("own")
    store = Store(tmp_path / "none", tmp_path / "work")
    lock = FileLock(store.lock_path(base.id))
    lock.acquire()
    patience = SimpleNamespace(sleep=lambda seconds: lock.release())
    monkeypatch.setattr(cluster, "time", patience)
    cluster.compute([base], store, "auto", progress=False)  # a job that another process begins
    assert written == ids([base])


def test_a_cluster_without_room_for_a_worker_is_an_error(
    ray_address, project, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    store = Store(tmp_path / "none", tmp_path / "work")
    with pytest.raises(ClusterError, match=r"a node with 3 CPUs.*found nodes with \[2.0\]"):
        cluster.compute(small().jobs("own"), store, ray_address, progress=False)


def test_the_command_line_computes_on_a_cluster_that_runs_already(ray_address, project):
    code = (
        f"import sys; sys.path[:0] = {TEST_FOLDERS}; import helpers;"
        "from forgetlib.__main__ import main; from forgetlib.studies import STUDIES;"
        "STUDIES['tiny'] = helpers.in_place_of_tiny(); sys.exit(main(['run', 'tiny', 'cross']))"
    )
    environment = os.environ | {"RAY_ADDRESS": ray_address}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "tiny: 3 jobs stored in" in done.stdout, done.stderr
    last = r"100% \|█{12}\| 00:00 left, 3/3 jobs: 0 workers, 0 died, 0 jobs failed"
    assert re.search(last, done.stderr)
    assert list(open_store(small()).packed.glob("*.parquet"))


def test_the_address_comes_from_the_argument_or_else_from_the_environment(project, monkeypatch):
    asked = []

    def compute(wanted, store, address, *, progress):
        asked.append(address)
        raise ClusterError("this test", expected="", found="", do="")

    monkeypatch.setattr(cluster, "compute", compute)
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    assert __main__.main(["run", "tiny", "own"]) == 1
    assert __main__.main(["run", "tiny", "own", "--ray", "local"]) == 1
    assert asked == ["there:1", "local"]


def test_without_ray_the_error_says_what_to_install(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"the package ray.*pip install -e '\.\[ray\]'"):
        run(small(), ray_address="auto")


def test_an_address_where_nothing_is_is_an_error(project):
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "forgetlib", "run", "tiny", "--ray", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr.startswith("error: Ray at 'nowhere': expected a cluster")


def test_neither_ray_nor_torch_is_imported_before_a_run():
    code = "import sys; from forgetlib.runs import cluster; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not {"ray", "torch"} & set(done.stdout.split())
    assert "forgetlib.runs.cluster" in done.stdout


@pytest.mark.parametrize(
    ("share", "n_workers"), [("", 2), ("1", 2), ("0.5", 4), ("0.34", 4), ("0.3333", 6), ("0.1", 20)]
)
def test_so_many_workers_share_a_gpu_as_its_share_says(share, n_workers, project, monkeypatch):
    """Of two GPUs, with CPUs enough."""
    monkeypatch.setenv("FORGETLIB_GPU_SHARE", share)
    ray = in_this_process(n_cpus=64.0, n_gpus=2.0)
    driver = cluster._Driver(ray, [], Store(project / "none", project / "work"), 0)
    assert driver.room() == n_workers
    worker = driver.new_worker()
    assert os.environ["FORGETLIB_GPU_SHARE"] == str(float(share or 1))
    del worker
