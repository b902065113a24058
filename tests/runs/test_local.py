"""Jobs in this process: each once, weights only while they are needed, failures at the end."""

import warnings
from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from helpers import same_records, same_results, small

from forgetlib import metrics
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.figures import fig2
from forgetlib.figures.join import families
from forgetlib.files import StoreError
from forgetlib.forgetting.base import Method
from forgetlib.forgetting.labels import Labels
from forgetlib.runs import jobs, local
from forgetlib.runs.bench import Bench
from forgetlib.runs.grid import open_store
from forgetlib.runs.local import RunsFailed
from forgetlib.runs.records import Job
from forgetlib.runs.results import run
from forgetlib.runs.specs import Measurement
from forgetlib.runs.store import Store

pytestmark = pytest.mark.usefixtures("brief_probes", "project")


def test_where_weights_are_kept_measuring_more_trains_nothing_again(made):
    """Else they are made again, and what was measured decides whether they are the same."""
    for keep in (True, False):
        study = small(tasks=["tiny_city"], seeds=[3 + keep])
        results = run(study, "own", progress=False, keep_weights=keep)
        store = open_store(study)
        n_made = len(made)
        more = [
            Job(r.checkpoint, (*(m.measurement for m in r.records), asked))
            for r in results
            if r.checkpoint.method
            for asked in [Measurement("scores", "tiny_city", "test", 3, r.seed)]
        ]
        local.compute(more, store, progress=False)
        assert all(map(store.has, more))
        assert len(made) - n_made == (0 if keep else len(more))


def test_a_cluster_keeps_no_weights():
    with pytest.raises(InputError, match="keep_weights of a run: expected False on a Ray cluster"):
        run(small(tasks=["tiny_city"]), "own", "local", keep_weights=True)


@pytest.fixture
def made(monkeypatch):
    """Checkpoints as they are made, and whether their dynamics were recorded."""
    found, make = [], Bench.make

    def noted(bench, checkpoint, report, record=()):
        found.append((checkpoint, bool(record)))
        return make(bench, checkpoint, report, record)

    monkeypatch.setattr(Bench, "make", noted)
    return found


@pytest.mark.parametrize("protocol", ["pairwise", "shared"])
def test_in_a_whole_study_each_checkpoint_is_made_exactly_once(made, protocol):
    chosen = small(protocol=protocol)
    results = run(chosen, progress=False)
    count = Counter(checkpoint for checkpoint, _ in made)
    assert set(count.values()) == {1}
    assert set(count) == {r.checkpoint for r in results if r.checkpoint.method}
    recorded = {checkpoint for checkpoint, watched in made if watched}
    assert recorded == {r.checkpoint for r in results if r.dynamics}


def test_a_start_that_is_made_again_records_nothing_and_is_made_once(made):
    """Where its weights are lost, or another section was computed before."""
    chosen = small(tasks=("tiny_city",))
    run(chosen, "own", progress=False)
    first = [c for c, _ in made]
    made.clear()
    run(chosen, progress=False)  # control, flipped, sizes: all start from the tuned model
    again = [(c, watched) for c, watched in made if c in first]
    assert again == [(first[0], False)]
    assert len(made) == 1 + 3


def test_what_is_reported_of_a_start_that_is_made_again_counts_no_examples():
    _, _, forgotten = small(tasks=("tiny_city",)).jobs("own")
    said = []
    jobs.run(forgotten, Bench(), lambda what, n: said.append((what, n)))
    again = [n for what, n in said if what.endswith("(its start, again)")]
    assert len(again) > 3 and set(again) == {0}


def test_weights_are_kept_as_long_as_something_starts_from_them(monkeypatch):
    chosen = small(tasks=("tiny_city",))
    store = open_store(chosen)
    kept, do = [], jobs.run

    def noted(job, *rest):
        kept.append(len(list((store.work / "weights").glob("*.safetensors"))))
        return do(job, *rest)

    monkeypatch.setattr(local, "run", noted)
    run(chosen, progress=False)
    assert kept == [0, 0, 1, 1, 1, 1]  # base, tuned; then what starts from it
    assert not list((store.work / "weights").glob("*.safetensors"))


def test_a_job_that_another_process_is_doing_is_waited_for(monkeypatch):
    chosen = small(tasks=("tiny_city",))
    lock = FileLock(open_store(chosen).lock_path(chosen.jobs("own")[0].id))
    lock.acquire()
    waited = []

    def release_at_the_second_look(seconds):
        waited.append(seconds)
        lock.release()

    # The module's own: filelock sleeps too.
    monkeypatch.setattr(local, "time", SimpleNamespace(sleep=release_at_the_second_look))
    assert len(run(chosen, "own", progress=False)) == 3
    assert waited == [local.POLL_SECONDS]


def test_what_starts_from_a_job_of_another_process_is_waited_for_too(monkeypatch, made):
    chosen = small(tasks=("tiny_city",))
    _, tuned, _ = chosen.jobs("own")
    store = open_store(chosen)
    theirs = jobs.run(tuned)
    made.clear()
    lock = FileLock(store.lock_path(tuned.id))
    lock.acquire()

    def they_finish(seconds):
        store.write(theirs)
        lock.release()

    monkeypatch.setattr(local, "time", SimpleNamespace(sleep=they_finish))
    found = run(chosen, "own", progress=False)
    assert same_records(found[1].records, theirs)
    assert [c.kind for c, _ in made] == ["true", "random"]  # the start again, without its weights


def test_a_disk_that_is_full_when_weights_are_kept_is_an_error_that_says_so(monkeypatch):
    import safetensors.torch

    def full(weights, path, metadata):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StoreError, match=r"No space left.*finished runs are kept"):
        run(small(), progress=False)


def test_jobs_that_fail_are_named_and_what_starts_from_them_is_skipped(tmp_path, monkeypatch):
    """Also what starts from what was skipped; all others are done."""
    chosen = small()
    of_city = [j for j in chosen.jobs("own") if "tiny_city" in str(j)]
    again = Labels("true", chosen.forgetting)
    relearned = chosen.checkpoint(("tiny_city",), 0, "tiny", again, of_city[2].checkpoint)
    wanted = [*of_city, Job(relearned, of_city[2].measurements[-2:])]
    wanted += [j for j in chosen.jobs("own") if "tiny_review" in str(j)]
    apply, n = jobs.Bench.make, 0

    def broken(bench, checkpoint, *rest):
        nonlocal n
        n += 1
        if checkpoint.task == "tiny_city":
            raise ZeroDivisionError("no luck")
        return apply(bench, checkpoint, *rest)

    monkeypatch.setattr(Bench, "make", broken)
    store = Store(tmp_path / "none", tmp_path / "work")
    with pytest.raises(RunsFailed) as raised:
        local.compute(wanted, store, progress=False)
    assert list(raised.value.failures) == [of_city[1]]
    assert list(raised.value.skipped) == [of_city[2], wanted[3]]
    said = str(raised.value)
    assert said.startswith("jobs: expected all to be computed, found 1 failed and 2 skipped")
    assert f"{of_city[1]} ({of_city[1].checkpoint.id}): ZeroDivisionError: no luck (test_lo" in said
    assert [store.has(j) for j in wanted] == [True, False, False, False, True, True, True]
    assert n == 3


def test_where_a_gpu_s_memory_does_not_suffice_it_says_what_to_do(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Bench, "make", full)
    with pytest.raises(RunsFailed) as raised:
        local.compute(small().jobs("own"), Store(tmp_path / "none", tmp_path / "work"))
    told = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. End other programs"
    assert told in str(raised.value) and "FORGETLIB_GPU_SHARE" in str(raised.value)


def test_what_is_stored_of_another_content_is_said_once(tmp_path):
    (job, *_) = small(tasks=("tiny_city",)).jobs("own")
    records = jobs.run(job)
    stored = [
        replace(r, provenance=r.provenance | {"content": r.provenance["content"] | {"model": "0"}})
        for r in records
    ]
    store = open_store(small())
    Store(store.packed, store.work).write(stored)
    with pytest.warns(UserWarning, match=r"1 stored jobs are computed anew, as .*: model 'tiny'"):
        local.compute([job], store, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local.compute([job], store, progress=False)


# --- more than two steps -------------------------------------------------------------------------


def relearning(chosen, task="tiny_city"):
    """A task forgotten by random labels, then learned again: base, tuned, forgotten, relearned."""
    own = [j for j in chosen.jobs("own") if task in str(j)]
    again = Labels("true", chosen.forgetting)
    made = chosen.checkpoint((task,), 0, "tiny", again, own[2].checkpoint)
    return [*own, Job(made, own[2].measurements)]


def test_a_checkpoint_that_starts_at_a_forgotten_one_is_computed_stored_read_and_analysed(made):
    chosen = small()
    wanted = [j for task in chosen.tasks for j in relearning(chosen, task)]
    store = open_store(chosen)
    local.compute(wanted, store, progress=False)
    assert Counter(len(c.lineage) for c, _ in made) == {1: 2, 2: 2, 3: 2}
    assert not list((store.work / "weights").glob("*.safetensors"))
    found = [open_store(chosen).result(j) for j in wanted]
    assert str(found[3].checkpoint) == (
        "tiny seed 0 tiny_city:true > tiny_city:random > tiny_city:true"
    )
    assert found[3].dynamics.confidence[0] == pytest.approx(found[2].dynamics.confidence[-1])
    of_kind = families(found, "random > true")
    assert set(of_kind) == {("tiny", task, 24) for task in chosen.tasks}
    ((family,), _) = of_kind.values()
    assert [r.checkpoint for r in family.values()] == [found[i].checkpoint for i in (0, 1, 3)]
    table = fig2.table(found, "random > true").set_index("eval_task")
    for i, task in enumerate(chosen.tasks):
        right = [r.scores[f"{task}/test"] for r in (found[4 * i + 1], found[4 * i + 3])]
        accuracies = [float(metrics.correct(s).mean()) for s in right]
        assert table.loc[task, ["tuned", "forgotten"]].tolist() == pytest.approx(accuracies)
    # The two steps before are still found by their own names.
    assert set(families(found, "random")) == set(of_kind)
    alone = jobs.run(wanted[3])
    assert same_records(alone, found[3].records)


@dataclass(frozen=True)
class Double(Method, registered=False):
    """Scale what the model says while it is measured, and leave its weights."""

    name = "double"

    def hook(self, lm, context):
        import contextlib

        @contextlib.contextmanager
        def scaled():
            handle = lm.model.get_output_embeddings().register_forward_hook(
                lambda module, given, logits: logits * 2
            )
            weights = lm.weights()
            try:
                lm.set_weights({n: w * 0.5 for n, w in weights.items()})
                yield
            finally:
                lm.set_weights(weights)
                handle.remove()

        return scaled()


def test_a_hook_is_active_while_its_checkpoint_is_measured_and_at_no_other_time(made):
    """Nor in the records of a training that starts there is it for some and not for others."""
    chosen = small(tasks=("tiny_city",), methods=[Double()])
    hooked = chosen.jobs("methods")[3]
    assert hooked.checkpoint.kind == "double"
    own = chosen.jobs("own")[2]
    after = chosen.checkpoint(
        ("tiny_city",), 0, "tiny", Labels("random", chosen.forgetting), hooked.checkpoint
    )
    wanted = [*chosen.jobs("methods"), Job(after, own.measurements)]
    store = open_store(chosen)
    local.compute(wanted, store, progress=False)
    found = [store.result(j) for j in wanted]
    tuned, forgotten, scaled, then = (r.scores["tiny_city/train"] for r in found[1:])
    assert (tuned.log_likelihoods != scaled.log_likelihoods).any()
    assert (forgotten.log_likelihoods != then.log_likelihoods).any()  # a descendant has it too
    # Trained alike: the losses are, which no hook sees.
    assert (found[2].loss.loss == found[4].loss.loss).all()
    confidence = found[4].dynamics.confidence
    assert confidence[0] == pytest.approx(metrics.confidence(scaled), abs=1e-6)
    assert confidence[-1] == pytest.approx(metrics.confidence(then), abs=1e-6)
    alone = jobs.run(wanted[-1])
    assert same_records(alone, found[-1].records)
    examples = splits.load("tiny_city", "train", 24, 0)
    assert len(then) == len(examples)


def test_progress_of_one_study_is_the_same_results(capsys):
    one = run(small(tasks=("tiny_city",)), "own", progress=True)
    assert "3/3 jobs" in capsys.readouterr().err
    assert same_results(one, run(small(tasks=("tiny_city",)), "own"))
