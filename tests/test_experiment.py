import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from test_store import same

from forgetlib import experiment, stats, tasks
from forgetlib.experiment import STUDIES, StudyError, main, open_store, results, study
from forgetlib.schema import InputError, TrainConfig
from forgetlib.store import StoreError


def small(**changes):
    """A study of seconds: two of the tiny tasks, trained briefly."""
    settings = {
        "tasks": ("tiny_city", "tiny_review"),
        "n_train": 24,
        "n_eval": 24,
        "tuned": TrainConfig(3e-3, epochs=3),
        "forgetting": TrainConfig(3e-3, epochs=3, record_steps=2),
    }
    return study("tiny", **(settings | changes))


@pytest.fixture(scope="module")
def tiny_results(tmp_path_factory):
    """The whole `tiny` study, computed once for this module."""
    root = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETLIB_ROOT", str(root))
        return root, results(STUDIES["tiny"], progress=False)


def test_the_tiny_study_shows_both_kinds_of_forgetting(tiny_results):
    """The positive control of the package: what is built in by construction is measured."""
    table = stats.forgetting(tiny_results[1]).set_index("eval_task")
    assert (table["tuned"] > 0.75).all()
    assert ((table["forgetting_set"] - 0.5).abs() < 0.12).all()
    formats = {t: tasks.get(t).answer_format for t in table.index}
    for task, answer_format in formats.items():
        if answer_format == "verbaliser":
            assert table.loc[task, "forget_ratio_high"] > 0.95, task
        else:
            assert table.loc[task, "forget_ratio_high"] < 0.95, task
            assert table.loc[task, "forget_gap_low"] > 0.1, task


def test_a_second_call_computes_nothing_and_needs_no_torch(tiny_results):
    root, _ = tiny_results
    code = (
        "import sys; from forgetlib import experiment as e; r = e.results(e.study('tiny'));"
        "print(len(r), 'torch' in sys.modules)"
    )
    environment = os.environ | {"FORGETLIB_ROOT": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode().split() == ["12", "False"], done.stderr.decode()


def test_results_say_where_they_came_from(tiny_results):
    for result in tiny_results[1]:
        found = result.provenance
        assert found["seconds"] > 0
        assert {"forgetlib", "commit", "torch", "transformers", "device", "threads"} <= set(found)


def test_weights_are_dropped_when_nothing_starts_from_them_any_more(tiny_results):
    root, _ = tiny_results
    assert not list((root / ".work" / "tiny" / "weights").glob("*"))


def test_a_run_on_its_own_equals_the_study_s(tiny_results):
    """Nothing leaks from one run of a study into the next: order and company do not matter."""
    forgotten = next(r for r in tiny_results[1] if r.spec.start is not None)
    alone = experiment.run(forgotten.spec)
    assert same(replace(alone, provenance={}), replace(forgotten, provenance={}))


def same_results(one, other):
    assert len(one) == len(other)
    return all(
        same(replace(a, provenance={}), replace(b, provenance={}))
        for a, b in zip(one, other, strict=True)
    )


SMALL_IN_NEW_PROCESS = (
    "import sys; sys.path.insert(0, 'tests'); import test_experiment as t;"
    "t.results(t.small(), progress=False)"
)


def test_killed_at_any_moment_it_resumes_to_the_same_results(tmp_path, monkeypatch):
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path / "undisturbed"))
    started = time.time()
    expected = results(small(), progress=False)
    usual = time.time() - started
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path / "killed"))
    chance = random.Random(0)
    counts = []
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", SMALL_IN_NEW_PROCESS])
        time.sleep(4 + chance.random() * usual)  # about 4 s pass before the first run starts
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(len(list((tmp_path / "killed/.work/tiny-modified/runs").glob("*.parquet"))))
    assert counts == sorted(counts)  # what was finished stays
    assert same_results(results(small(), progress=False), expected)


def test_two_processes_share_a_study(tmp_path, monkeypatch):
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path / "one"))
    expected = results(small(), progress=False)
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path / "two"))
    code = f"{SMALL_IN_NEW_PROCESS}; print('done')"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)
    ]
    assert [p.communicate(timeout=120)[0] for p in both] == [b"done\n"] * 2
    assert same_results(results(small(), progress=False), expected)


def test_a_run_that_another_process_is_doing_is_waited_for(project, monkeypatch):
    from filelock import FileLock

    chosen = small(tasks=("tiny_city",))
    store = open_store(chosen)
    lock = FileLock(store.lock_path(chosen.specs()[0].run_id))
    lock.acquire()

    def release_at_the_second_look(seconds):
        lock.release()

    monkeypatch.setattr(experiment.time, "sleep", release_at_the_second_look)
    assert len(results(chosen, progress=False)) == 3


def test_a_corrupt_record_stops_with_its_name(project):
    chosen = small(tasks=("tiny_city",))
    results(chosen, progress=False)
    path = next((project / ".work" / "tiny-modified" / "runs").iterdir())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{path.name}: expected a complete record"):
        results(chosen, progress=False)
    path.unlink()
    assert len(results(chosen, progress=False)) == 3


def test_a_study_changed_under_its_records_is_an_error(project, monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", replace(small(), name="tiny", modified=False))
    results(study("tiny"), progress=False)
    monkeypatch.setitem(STUDIES, "tiny", replace(study("tiny"), n_train=23))
    with pytest.raises(
        StudyError, match=r"study 'tiny': expected stored runs among the 6.*found 6"
    ):
        results(study("tiny"), progress=False)


def test_results_that_were_not_packed_before_a_kill_are_packed_by_the_next_call(
    project, monkeypatch
):
    monkeypatch.setitem(STUDIES, "tiny", replace(small(), name="tiny", modified=False))
    results(study("tiny"), progress=False)
    store = open_store(study("tiny"))
    store.packed.unlink()
    results(study("tiny"), progress=False)
    assert store.packed.exists()


def test_a_disk_that_is_full_when_weights_are_kept_is_an_error_that_says_so(project, monkeypatch):
    import safetensors.torch

    def full(weights, path):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StoreError, match=r"No space left.*finished runs are kept"):
        results(small(), progress=False)


def test_what_does_not_fit_the_model_is_found_before_the_training(project, monkeypatch):
    from forgetlib import training

    monkeypatch.setattr(training, "finetune", lambda *a: pytest.fail("trained already"))
    spec = replace(small().specs()[1], eval_tasks=("sciq",), model="tiny")
    with pytest.raises(InputError, match="at most 64 tokens"):
        experiment.run(spec)


def test_a_variation_reuses_the_named_study_s_runs(tiny_results, monkeypatch):
    root, named = tiny_results
    monkeypatch.setenv("FORGETLIB_ROOT", str(root))
    part = study("tiny", tasks=["tiny_city"])
    assert (part.name, part.modified) == ("tiny-modified", True)
    monkeypatch.setattr(experiment, "compute", lambda *a, **k: pytest.fail("computed again"))
    assert same_results(results(part), named[:3])


def test_a_change_of_nothing_is_the_named_study():
    assert study("quick", tasks=None, n_train=160) is STUDIES["quick"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study("big"), "study: expected one of tiny, quick, embedded, found 'big'"),
        (lambda: study("tiny", colour=1), r"change of study 'tiny'.*found \['colour'\]"),
        (lambda: study("tiny", tasks=["sst-2"]).specs(), "task: expected one of.*'sst-2'"),
        (lambda: study("tiny", tasks="tiny_city"), r"expected tasks to be a list.*tasks=\['tiny"),
        (
            lambda: study("tiny", seeds=0),
            r"expected seeds to be a list, found 0. Write seeds=\[0\]",
        ),
        (lambda: study("tiny", n_train=0).specs(), "RunSpec.n_train: expected a whole number"),
        (lambda: results(study("tiny", model="no/model")), "model 'no/model': expected"),
    ],
)
def test_bad_input_is_refused(project, call, message):
    with pytest.raises((InputError, RuntimeError), match=message):
        call()


def test_the_command_line_computes_and_reports(project, capsys, monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", replace(small(), name="tiny", modified=False))
    assert main(["tiny"]) == 0
    assert "tiny: 6 runs in" in capsys.readouterr().out
    assert (project / "figures" / "tiny" / "results.parquet").exists()


def test_the_command_line_says_what_is_wrong_without_a_traceback(capsys):
    assert main(["big"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: study: expected one of tiny")
    assert "Traceback" not in error


def test_every_named_study_has_distinct_runs_in_an_order_that_can_be_run():
    for chosen in STUDIES.values():
        specs = chosen.specs()
        assert (
            len({s.run_id for s in specs})
            == len(specs)
            == 3 * len(chosen.tasks) * len(chosen.seeds)
        )
        place = {s.run_id: i for i, s in enumerate(specs)}
        assert all(place[s.start.run_id] < place[s.run_id] for s in specs if s.start)
