"""The same spec gives the same bits, and nothing outside a call changes by it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import global_state
import numpy as np
import pytest
import torch
from conftest import TEST_FOLDERS
from helpers import small

from forgetlib.forgetting.base import Training
from forgetlib.runs import provenance
from forgetlib.runs.jobs import run
from forgetlib.runs.rows import read_records, write_records


def jobs():
    """One that is probed, and one of a forgotten model in bf16, as in the studies."""
    brief = Training(3e-3, epochs=1)
    settings = {"tasks": ("tiny_city",), "tuned": brief, "forgetting": brief, "n_train": 16}
    chosen = small(**settings, records=1)
    base, _, _ = chosen.jobs("own")
    _, _, forgotten = replace(chosen, dtype="bfloat16").jobs("own")
    return base, forgotten.only(m for m in forgotten.measurements if m.readout != "probe")


def run_all(*paths):
    """Do all of it for each of these files, in one process."""
    provenance._commit = lambda: "abc"  # others may be working on the checkout
    for path in paths:
        write_records([record for job in jobs() for record in run(job)], Path(path))


def content(path):
    """The bytes of what was measured, and of its provenance but for when and how fast."""
    records = read_records(path)
    same = [replace(r, provenance=r.provenance | {"seconds": 0, "date": ""}) for r in records]
    write_records(same, path.with_suffix(".content"))
    return path.with_suffix(".content").read_bytes()


def in_new_process(code, *arguments, **environment):
    """What a new process prints. Its threads do not spin where other tests need the cores."""
    code = f"import sys; sys.path[:0] = {TEST_FOLDERS}; {code}"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_same_spec_gives_the_same_bits_in_one_process_and_in_another(tmp_path):
    """With two threads, with hashes salted differently, and scores, probes, dynamics and losses."""
    code = "import test_determinism as t; t.run_all(*sys.argv[1:])"
    first, second, elsewhere = (tmp_path / name for name in ("1", "2", "elsewhere"))
    in_new_process(code, first, second, PYTHONHASHSEED="1")
    in_new_process(code, elsewhere, PYTHONHASHSEED="2")
    assert content(first) == content(second) == content(elsewhere)
    records = read_records(first)
    assert {"scores", "probe", "hidden_variance", "dynamics", "loss"} == {
        r.measurement.readout for r in records
    }
    assert {r.provenance["threads"] for r in records} == {2}

    scored = next(i for i, r in enumerate(records) if r.measurement.readout == "scores")
    scores = records[scored].value
    nudged = replace(scores, log_likelihoods=np.nextafter(scores.log_likelihoods, np.float32(0)))
    records[scored] = replace(records[scored], found=nudged)
    write_records(records, second)
    assert content(first) != content(second)  # the comparison sees the last bit


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_same_spec_gives_the_same_bits_with_deterministic_algorithms(tmp_path):
    code = "import torch; torch.use_deterministic_algorithms(True);"
    code += "import test_determinism as t; t.run_all(*sys.argv[1:])"
    paths = tmp_path / "first", tmp_path / "second"
    in_new_process(code, *paths, CUBLAS_WORKSPACE_CONFIG=":4096:8")
    assert content(paths[0]) == content(paths[1])


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Part of the package -> names of the global state that it changes."""
    found = in_new_process(
        "import runpy; runpy.run_module('global_state', run_name='__main__')",
        FORGETLIB_ROOT=str(tmp_path_factory.mktemp("state")),
        MPLBACKEND="agg",
    )
    return json.loads(found)


@pytest.mark.parametrize("part", [f.__name__ for f in global_state.PARTS])
def test_global_state_is_left_as_it_was_by(part, changed):
    assert changed[part] == []
