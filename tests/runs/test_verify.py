"""Stored jobs that are computed again are the same, and others are found out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import small
from synthetic import family

from forgetlib.data import splits, tasks
from forgetlib.errors import InputError
from forgetlib.files import StoreError
from forgetlib.runs import grid, provenance, verify
from forgetlib.runs.grid import open_store
from forgetlib.runs.records import Job
from forgetlib.runs.results import run

pytestmark = pytest.mark.usefixtures("brief_probes", "project")


def test_jobs_computed_again_are_the_same_and_others_are_found_out(monkeypatch):
    monkeypatch.setattr(provenance, "_commit", lambda: "abc")
    chosen = small()
    stored = run(chosen, "own", progress=False)
    table = verify.verify(chosen, 4, seed=1)
    assert len(table) == 4 * 2
    assert table["same_origin"].all() and table["ok"].all() and not table["difference"].any()

    store = open_store(chosen)
    for result in stored:
        moved = [
            replace(
                r,
                found=replace(r.value, log_likelihoods=r.value.log_likelihoods[:, ::-1] + 0.001),
                provenance=r.provenance | {"date": "9999"},  # the newest
            )
            for r in result.records
            if r.measurement.readout == "scores"
        ]
        store.write(moved)
    table = verify.verify(chosen, 4, seed=1)
    assert not table["ok"].any()
    # By another version, small differences are to be expected, and these are not small.
    monkeypatch.setattr(provenance, "_commit", lambda: "def")
    table = verify.verify(chosen, 6)
    assert not table["same_origin"].any()
    # The last check of each job is on record, by the checkpoint and the set.
    kept = pd.read_csv(grid.figures_dir(chosen) / "check.csv")
    assert len(kept) == len(table) == 12
    assert kept["checkpoint_id"].isin([r.checkpoint.id for r in stored]).all()
    assert set(kept["commit_again"]) == {"def"}
    assert kept["machine_again"].str.endswith(f", threads: {torch.get_num_threads()}").all()
    formats = table["data"].map(lambda where: tasks.get(where.split("/")[0]).answer_format)
    other = (table["stored"] - table["again"]).abs() > formats.map(verify.SAME_ACCURACY)
    assert not table.loc[other, "ok"].any()
    assert not table["ok"].all()


@pytest.mark.parametrize(
    ("device", "device_type", "demanded"),
    [
        ("AMD EPYC", None, True),
        ("Intel(R) Xeon(R) Processor", "cpu", True),
        ("NVIDIA H100 80GB HBM3", None, False),
        ("Quadro RTX 6000", None, False),
        ("AMD Instinct MI250X", None, False),
        ("a card of next year", "cuda", False),
        ("Apple M2", "mps", False),
    ],
)
def test_equal_bits_are_demanded_of_cpus_alone(device, device_type, demanded):
    """Nothing makes them equal on a GPU."""
    (result, *_) = family("tiny_city", 0.5, 0.9, 0.6, n=20)
    about = {"device": device, "threads": 1, "commit": "abc", "data": "d", "sets": []}
    about |= {} if device_type is None else {"device_type": device_type}
    now = about | {"content": {"model": "1", "questions": {}}}
    old = [replace(r, provenance=about) for r in result.records]
    moved = [
        replace(r, found=replace(s, log_likelihoods=s.log_likelihoods + np.float32(1e-3)))
        for r in old
        for s in [r.value]
    ]
    moved = [replace(r, provenance=now) for r in moved]
    job = Job(result.checkpoint, tuple(r.measurement for r in old))
    table = verify._compared(job, old, moved)
    assert (table["same_origin"] == demanded).all()
    assert (table["ok"] != demanded).all()


def test_a_changed_model_is_found_out():
    (result, *_) = family("tiny_city", 0.5, 0.9, 0.6, n=20)
    about = {"device": "AMD EPYC", "threads": 1, "commit": "abc", "data": "d", "sets": []}
    then, now = (about | {"content": {"model": m, "questions": {}}} for m in ("1", "2"))
    old, again = ([replace(r, provenance=p) for r in result.records] for p in (then, now))
    job = Job(result.checkpoint, tuple(r.measurement for r in old))
    table = verify._compared(job, old, again)
    assert not table["same_model"].any() and not table["ok"].any()
    assert verify._compared(job, old, old)["ok"].all()


def test_a_damaged_table_of_checks_is_an_error_before_the_work(monkeypatch):
    chosen = small(tasks=["tiny_city"])
    run(chosen, "own", progress=False)
    path = grid.figures_dir(chosen) / "check.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(verify, "run", None)
    for text in ("", "a,b\n1\n1,2,3\n", "<<<<<<< HEAD\ncheckpoint_id,checkpoint\n"):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"table of earlier checks.*or delete it"):
            verify.verify(chosen, 1)


def test_a_check_tells_that_the_questions_have_changed(monkeypatch):
    """A prompt that was edited, say; an id does not cover it."""
    chosen = small(tasks=["tiny_city"])
    run(chosen, "own", progress=False)
    assert verify.verify(chosen, 3)["same_data"].all()
    load = splits.load
    asked = lambda e: replace(e, prompts=tuple(f"{p} what" for p in e.prompts))  # noqa: E731
    monkeypatch.setattr(splits, "load", lambda *given: [asked(e) for e in load(*given)])
    table = verify.verify(chosen, 3)
    assert not table["same_data"].any() and not table["ok"].any()


def test_the_committed_table_of_checks_can_be_added_to():
    """Its columns are those that a check writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FORGETLIB_ROOT")
        path = grid.figures_dir(grid_study("embedded")) / "check.csv"
    (known,) = verify._known_checks(path)
    assert len(known) and not known["checkpoint_id"].isna().any()


def grid_study(name):
    from forgetlib.studies import STUDIES

    return STUDIES[name]


@pytest.mark.parametrize(
    ("n", "message"),
    [(1, "expected stored jobs.*found none"), (2.5, "whole number"), ("two", "whole number")],
)
def test_a_check_of_more_jobs_than_there_are_is_refused(n, message):
    with pytest.raises(InputError, match=message):
        verify.verify(small(), n)


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(InputError, match="seed of the check"):
        verify.verify(small(), 1, seed=-1)
