"""A study on a Ray cluster of two processes. Faults are in tasks, as these go to the workers."""

import os
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
from filelock import FileLock
from test_experiment import same_results, small

from forgetlib import cluster, experiment, models, tasks
from forgetlib.cluster import ClusterError
from forgetlib.content import Present, of_model
from forgetlib.experiment import RunsFailed, open_store, results
from forgetlib.store import Store


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
    """Ids of the runs as they are written to a store, in order."""
    ids, write = [], Store.write

    def noted(store, result):
        ids.append(result.spec.run_id)
        write(store, result)

    monkeypatch.setattr(Store, "write", noted)
    return ids


@pytest.fixture
def own_task():
    """own_task(name, fault) is tiny_review under another name, whose rows call fault() first."""
    known = dict(tasks._TASKS)

    def add(name, fault):
        like = tasks.get("tiny_review")

        def rows():
            fault()
            return like.rows()

        return tasks.add(tasks.Task(name, "synthetic", "text", rows, like.question)).name

    yield add
    tasks._TASKS.clear()
    tasks._TASKS.update(known)


def lineage_of(task, chosen, part):
    return [s for s in chosen.specs(part) if s.lineage[0].train_task == task]


def test_a_cluster_s_results_are_the_local_ones_bit_for_bit_and_each_is_done_once(
    ray_address, one_thread, project, monkeypatch, written
):
    chosen = small(tasks=("tiny_city",))
    found = results(chosen, "sizes", ray_address, progress=False)
    assert sorted(written) == sorted(s.run_id for s in chosen.specs("sizes"))
    monkeypatch.setenv("FORGETLIB_ROOT", str(project / "local"))
    assert same_results(found, results(chosen, "sizes", progress=False))
    assert {r.provenance["threads"] for r in found} == {1}

    monkeypatch.setenv("FORGETLIB_ROOT", str(project))
    monkeypatch.setitem(sys.modules, "ray", None)  # a second call does not even look for it
    assert same_results(results(chosen, "sizes", ray_address), found)
    assert len(written) == 2 * len(found)


def test_a_killed_worker_is_replaced_and_its_lineage_goes_on_where_it_was(
    ray_address, one_thread, project, tmp_path, own_task, written
):
    marker, runs = tmp_path / "killed", tmp_path / "work/runs"

    def kill_once():
        if not marker.exists():
            marker.write_text(" ".join(p.stem for p in runs.glob("*")))
            os.kill(os.getpid(), signal.SIGKILL)

    chosen = small(tasks=("tiny_city", own_task("fragile", kill_once)))
    specs = lineage_of("tiny_city", chosen, "cross")
    assert [s.train_task for s in specs] == ["tiny_city", "tiny_city", "fragile"]
    store = Store(tmp_path / "none", tmp_path / "work")
    cluster.compute(specs, store, ray_address, progress=False)
    # What was done is stored before the next run begins, and is not done again.
    assert set(marker.read_text().split()) == {s.run_id for s in specs[:2]}
    assert written == [s.run_id for s in specs]
    alone = experiment.run(specs[-1])
    assert same_results([store.read(specs[-1].run_id)], [alone])
    assert leftovers() == []


def leftovers():
    """Folders of workers that are not there any more."""
    found = Path(tempfile.gettempdir()).glob("forgetlib-worker-*")
    return [p for p in found if not psutil.pid_exists(int(p.name.split("-")[2]))]


@pytest.mark.parametrize("where", ["here", "on a cluster"])
def test_runs_that_fail_are_named_with_the_reason_and_all_others_are_stored(
    request, where, project, tmp_path, own_task
):
    def no_column():
        raise KeyError("goal")

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    chosen = small(tasks=("tiny_city", own_task("broken", no_column), own_task("deadly", die)))
    fine, _ = lineage_of("tiny_city", chosen, "own")[1:]
    tuned, forgotten = lineage_of("broken", chosen, "own")[1:]
    deadly = lineage_of("deadly", chosen, "own")[0]
    store = Store(tmp_path / "none", tmp_path / "work")
    with pytest.raises(RunsFailed) as raised:
        if where == "here":
            experiment.compute([tuned, forgotten, fine], store, progress=False)
        else:
            address, specs = (
                request.getfixturevalue("ray_address"),
                [tuned, forgotten, deadly, fine],
            )
            cluster.compute(specs, store, address, progress=False, max_retries=0)
    text = str(raised.value)
    n = 1 + (where == "on a cluster")
    assert text.startswith(
        f"runs: expected all to be computed, found {n} failed and 1 skipped, which start from them:"
    )
    assert f"\n  {tuned} ({tuned.run_id}): KeyError: 'goal' (test_cluster.py, line " in text
    assert "in no_column)" in text
    assert (f"\n  {deadly} ({deadly.run_id}): its worker died 1 times, " in text) == (n == 2)
    assert forgotten.run_id not in text
    assert text.endswith("Correct the cause and start again: only these are computed.")
    assert fine.run_id in store


def test_what_is_done_survives_the_driver_and_its_locks_do_not(
    ray_address, project, tmp_path, monkeypatch, written
):
    _, *specs = small(tasks=("tiny_city",)).specs("own")
    store = Store(tmp_path / "none", tmp_path / "work")
    show = cluster._Driver.show

    def interrupted_after_the_first(driver, bar):
        if written:
            raise KeyboardInterrupt
        show(driver, bar)

    monkeypatch.setattr(cluster._Driver, "show", interrupted_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        cluster.compute(specs, store, ray_address, progress=False)
    assert [s.run_id in store for s in specs] == [True, False]
    with FileLock(store.lock_path(specs[1].run_id), timeout=0):
        pass


def test_siblings_start_from_weights_that_are_kept_until_another_lineage_begins(
    project, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which a worker sets
    chosen = small(tasks=("tiny_city",))
    base, tuned, forgotten, smaller = chosen.specs("sizes")
    trained, train = [], experiment.Bench.train
    monkeypatch.setattr(
        experiment.Bench, "train", lambda b, spec, r: trained.append(spec) or train(b, spec, r)
    )
    worker = cluster.Worker([], 1, cluster.source_hash())
    for spec in (tuned, forgotten, smaller):
        assert worker.run(spec, keep=spec == tuned).spec == spec
    assert trained == [tuned, forgotten, smaller]
    assert worker.store.weights_path(tuned.run_id).exists()
    worker.run(base, keep=False)
    assert not worker.store.weights_path(tuned.run_id).exists()


def test_a_run_that_another_process_is_doing_is_left_to_it(
    ray_address, project, tmp_path, monkeypatch, written
):
    _, *specs = small(tasks=("tiny_city",)).specs("own")
    store = Store(tmp_path / "none", tmp_path / "work")
    theirs = [experiment.run(s) for s in specs]
    lock = FileLock(store.lock_path(specs[0].run_id))
    lock.acquire()
    looks = []

    def they_finish_at_the_second_look(seconds):
        looks.append(seconds)
        assert not written  # nor what starts from theirs
        if len(looks) == 2:
            for result in theirs:
                store.write(result)
            lock.release()

    patience = SimpleNamespace(sleep=they_finish_at_the_second_look)
    monkeypatch.setattr(cluster, "time", patience)  # the module's own: Ray's threads sleep too
    cluster.compute(specs, store, ray_address, progress=False)
    assert looks == [experiment.POLL_SECONDS] * 2


def test_a_node_with_another_version_is_an_error(ray_address, project, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "source_hash", lambda: "another")
    store = Store(tmp_path / "none", tmp_path / "work")
    with pytest.raises(
        ClusterError, match=r"to start, found.*forgetlib on node.*the driver's is another"
    ):
        cluster.compute(small().specs("own"), store, ray_address, progress=False)


class Unready(Exception):
    """In the place of Ray's own errors; never raised."""


@dataclass(eq=False)
class Handle:
    """A worker as the driver holds it: where nobody does any more, its place is free."""

    load: SimpleNamespace
    run: SimpleNamespace


def in_this_process(n_cpus=2.0):
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
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": n_cpus}}],
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


def test_a_model_that_a_worker_cannot_load_is_said_once_before_the_first_run(
    fake_ray, project, tmp_path, written
):
    store = Store(tmp_path / "none", tmp_path / "work")
    specs = small(models=["tiny", "no/model"]).specs()
    with pytest.raises(ClusterError) as raised:
        cluster.compute(specs, store, "auto", progress=False)
    text = str(raised.value)
    assert text.startswith(
        "a worker: expected a model that it can use, found ModelError: model 'no"
    )
    assert text.count("ModelError") == 1
    assert written == []


def test_a_model_that_fails_in_a_later_run_is_said_once(project, tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which a worker sets
    worker = cluster.Worker([], 1, cluster.source_hash())
    spec = small(models=["no/model"]).specs()[0]
    for outcome in (worker.load(spec), worker.run(spec, keep=False)):
        assert outcome.shared and outcome.why.startswith("ModelError: model 'no/model': expected")
    unknown = small(tasks=("tiny_city",)).specs()[0]
    monkeypatch.setattr(tasks, "load", lambda *given: 1 / 0)
    outcome = worker.run(unknown, keep=False)
    assert not outcome.shared and not outcome.good


def test_a_folder_s_model_that_is_another_one_on_a_node_is_an_error_before_the_first_run(
    fake_ray, project, tmp_path, written, tiny
):
    folder = str(tmp_path / "model")
    models._tiny(64, torch.float32)[0].save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    present = Present()
    present.learn(folder, "another")
    store = Store(tmp_path / "none", tmp_path / "work", present)
    specs = small(tasks=("tiny_city",), models=[folder]).specs("own")[:1]
    with pytest.raises(ClusterError, match=r"of content \w+, here another"):
        cluster.compute(specs, store, "auto", progress=False)
    assert written == []
    present.learn(folder, None)  # what only the nodes have
    cluster.compute(specs, store, "auto", progress=False)
    assert present.model(folder) == of_model(folder) is not None
    assert store.read(specs[0].run_id).provenance["content"]["model"] == of_model(folder)


def test_a_model_that_is_in_no_folder_is_what_the_worker_loaded_whatever_a_cache_here_has(
    fake_ray, project, tmp_path
):
    present = Present()
    present.learn("tiny", "another")
    store = Store(tmp_path / "none", tmp_path / "work", present)
    specs = small(tasks=("tiny_city",)).specs("own")[:1]
    cluster.compute(specs, store, "auto", progress=False)
    assert store.read(specs[0].run_id).provenance["content"]["model"] == "1"


def test_a_worker_for_which_nothing_is_left_gives_its_place_free(
    project, tmp_path, monkeypatch, written
):
    monkeypatch.setitem(sys.modules, "ray", in_this_process(n_cpus=1.0))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (base, *_) = small(tasks=("tiny_city",)).specs("own")
    store = Store(tmp_path / "none", tmp_path / "work")
    lock = FileLock(store.lock_path(base.run_id))
    lock.acquire()
    patience = SimpleNamespace(sleep=lambda seconds: lock.release())
    monkeypatch.setattr(cluster, "time", patience)
    cluster.compute([base], store, "auto", progress=False)  # a run that another process begins
    assert written == [base.run_id]


def test_a_cluster_without_room_for_a_worker_is_an_error(
    ray_address, project, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    store = Store(tmp_path / "none", tmp_path / "work")
    with pytest.raises(ClusterError, match=r"a node with 3 CPUs.*found nodes with \[2.0\]"):
        cluster.compute(small().specs("own"), store, ray_address, progress=False)


def test_the_command_line_computes_on_a_cluster_that_runs_already(ray_address, project):
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_experiment as t;"
        "t.STUDIES['tiny'] = t.named_tiny(); sys.exit(t.main(['tiny', 'cross']))"
    )
    environment = os.environ | {"RAY_ADDRESS": ray_address}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "tiny: 2 runs stored in" in done.stdout, done.stderr
    assert "0 runs left, 0 workers, 0 died, 0 runs failed: 100%" in done.stderr
    assert open_store(small()).packed.exists()


def test_the_address_comes_from_the_argument_or_else_from_the_environment(project, monkeypatch):
    asked = []

    def compute(specs, store, address, *, progress):
        asked.append(address)
        raise ClusterError("this test", expected="", found="", do="")

    monkeypatch.setattr(cluster, "compute", compute)
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    assert experiment.main(["tiny", "own"]) == 1
    assert experiment.main(["tiny", "own", "--ray", "local"]) == 1
    assert asked == ["there:1", "local"]


def test_without_ray_the_error_says_what_to_install(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"the package ray.*pip install -e '\.\[ray\]'"):
        results(small(), ray_address="auto")


def test_an_address_where_nothing_is_is_an_error(project):
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "forgetlib.experiment", "tiny", "--ray", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr.startswith("error: Ray at 'nowhere': expected a cluster")


def test_neither_ray_nor_torch_is_imported_before_a_run():
    code = "import sys; from forgetlib import cluster, experiment; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not {"ray", "torch"} & set(done.stdout.split())
    assert "forgetlib.cluster" in done.stdout
