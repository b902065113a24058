"""What reading and computing give, and what figures are told of a study's data."""

import json
from dataclasses import replace

import pytest
from helpers import in_place_of_tiny, same_results, small

from forgetlib.data import splits, tasks
from forgetlib.data.base import Task, ask
from forgetlib.files import StoreError
from forgetlib.runs import bench, jobs, local, results
from forgetlib.runs.bench import StudyError
from forgetlib.runs.grid import open_store
from forgetlib.runs.results import data_note, has_all, load_results, run
from forgetlib.studies import STUDIES, study

pytestmark = pytest.mark.usefixtures("brief_probes")


def test_a_section_computes_no_other_section_and_the_rest_takes_it_up(project, monkeypatch):
    chosen = small()
    own = run(chosen, "own", progress=False)
    assert len(own) == 6
    assert has_all(chosen, "own") and not has_all(chosen, "cross") and not has_all(chosen)
    calls, do = [], jobs.run
    monkeypatch.setattr(local, "run", lambda job, *a: calls.append(job) or do(job, *a))
    cross = run(chosen, "cross", progress=False)
    assert [j.checkpoint.kind for j in calls] == ["random", "random"]
    assert len(cross) == 8
    assert not list((project / ".work" / chosen.name / "weights").glob("*"))
    assert same_results(load_results(chosen, "cross"), cross)


def test_a_corrupt_record_stops_with_its_name(project):
    chosen = small(tasks=("tiny_city",))
    run(chosen, "own", progress=False)
    path = next((project / ".work" / chosen.name / "results").iterdir())
    path.write_bytes(path.read_bytes()[:-20])
    for call in (run, load_results):
        with pytest.raises(StoreError, match=f"{path.name}: expected complete records"):
            call(chosen, "own")
    path.unlink()
    with pytest.raises(StudyError, match="found 1 that are not"):
        load_results(chosen, "own")
    assert len(run(chosen, "own", progress=False)) == 3


def test_results_that_were_not_packed_before_a_kill_are_packed_by_the_next_call(
    project, monkeypatch
):
    monkeypatch.setitem(STUDIES, "tiny", in_place_of_tiny())
    run(study("tiny"), progress=False)
    packed = open_store(study("tiny")).packed
    (pack,) = packed.iterdir()
    pack.unlink()
    load_results(study("tiny"))  # which reads, and packs nothing
    assert not pack.exists()
    run(study("tiny"), progress=False)
    assert pack.exists()


def test_a_long_study_packs_what_it_has_when_it_is_interrupted(project, monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", in_place_of_tiny())
    do, done = jobs.run, []

    def interrupted(job, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(job)
        return do(job, *rest)

    monkeypatch.setattr(local, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(study("tiny"), progress=False)
    store = open_store(study("tiny"))
    assert store.is_packed(key for job in done for key in job.keys)
    (pack,) = store.packed.iterdir()
    before = pack.read_bytes()
    monkeypatch.setattr(local, "run", do)
    run(study("tiny"), progress=False)
    # What came later is beside it, and what was packed stays as it was.
    assert pack.read_bytes() == before
    assert [p.name for p in sorted(store.packed.iterdir())] == [
        "tiny_city-0-2.parquet",
        "tiny_city-0.parquet",
    ]


def test_tasks_without_data_are_left_out_of_reading_too(project, monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", in_place_of_tiny(tasks=("tiny_city", "tiny_review")))
    monkeypatch.setattr(splits, "missing", lambda names: {"tiny_review": "no network"})
    with pytest.warns(UserWarning, match=r"goes on without 1 tasks:\n  tiny_review: no network"):
        found = run(study("tiny"), "own", progress=False)
    assert {m.task for r in found for m in (x.measurement for x in r.records) if m.task} == {
        "tiny_city"
    }
    monkeypatch.setattr(splits, "missing", lambda names: pytest.fail("looked for data"))
    assert same_results(load_results(study("tiny"), "own"), found)
    path = open_store(study("tiny")).packed / "left_out.json"
    assert json.loads(path.read_text()) == {"tiny_review": "no network"}
    for damaged in ("[1]", "{", ""):
        path.write_text(damaged)
        with pytest.raises(StudyError, match=r"list of left-out tasks .*Restore it from git"):
            load_results(study("tiny"), "own")
    path.write_text(json.dumps({"tiny_review": "no network"}))
    # When the data are there again, the task is computed, and read.
    monkeypatch.setattr(splits, "missing", lambda names: {})
    assert len(run(study("tiny"), progress=False)) > len(found)
    assert results.left_out(study("tiny")) == {}
    assert len(load_results(study("tiny"), "own")) == 6


def test_a_note_counts_the_study_s_records_of_the_present_content_alone(project):
    chosen = small(tasks=["tiny_city"])
    base, tuned, _ = chosen.jobs("own")
    store = open_store(chosen)
    blank = bench.Bench()
    scored = base.only(m for m in base.measurements if m.readout == "scores")
    found = jobs.run(scored, blank)
    note = "Rows left out, with nothing where text is needed: tiny_city"

    def stored(into, n, checkpoint=base.checkpoint, n_eval=24, **more):
        lacking = {"lacking": {"tiny_city": {"n": n, "first": "tiny_city/all/0", "why": "null p"}}}
        records = [
            replace(
                r,
                checkpoint=checkpoint,
                measurement=replace(r.measurement, n=n_eval),
                provenance=r.provenance | lacking | more,
            )
            for r in found
        ]
        into.write(records)

    stored(store, 90, n_eval=23)  # of a study that was changed since
    assert data_note(chosen) == ""
    stored(store, 3)
    assert data_note(chosen) == f"{note} (3)"
    other = found[0].provenance["content"] | {"model": "another"}
    stored(open_store(chosen, any_content=True), 80, tuned.checkpoint, content=other)
    assert data_note(chosen) == f"{note} (3)"
    store.packed.mkdir(parents=True, exist_ok=True)
    (store.packed / "a.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(StoreError, match="complete records"):
        data_note(chosen)


def test_rows_that_lack_something_are_told_with_a_result_and_in_the_figures(project, own_names):
    rows = [(f"all/{i}", {"q": None if i % 10 == 7 else f"name{i}"}) for i in range(100)]
    asked = lambda row: ask(f"what is {row['q']}", ["good", "bad"], 0)  # noqa: E731
    tasks.add(Task("gaps", "synthetic", "verbaliser", lambda: rows, asked))
    chosen = small(tasks=["tiny_city", "gaps"])
    with pytest.warns(UserWarning, match="task 'gaps' goes on without 10 rows"):
        found = run(chosen, "own", progress=False)
    told = {
        r.measurement.task: r.provenance.get("lacking")
        for result in found
        for r in result.records
        if r.measurement.task
    }
    lacking = {"gaps": {"n": 10, "first": "gaps/all/7", "why": "null q"}}
    assert told == {"tiny_city": None, "gaps": lacking}
    assert data_note(chosen) == "Rows left out, with nothing where text is needed: gaps (10)"


def test_a_study_without_a_task_that_has_more_seeds_is_one():
    """The task is left out there, too."""
    both = ("tiny_city", "tiny_review")
    chosen = replace(small(), more_seeds=(1,), more_seeds_tasks=both)
    part = results._without(chosen, {"tiny_review"})
    assert part.tasks == part.more_seeds_tasks == ("tiny_city",)
    scale = study("scale")
    assert "sst2" in scale.large_tasks
    assert "sst2" not in results._without(scale, {"sst2"}).large_tasks
