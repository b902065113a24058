"""`make gpu` is rehearsed on a CPU, so that it works on the day when there is a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import gpu
import numpy as np
import pandas as pd
import pytest
import torch

from forgetlib.models.lm import blocks as lm_blocks

SCRIPT = Path(gpu.__file__)


@pytest.mark.slow
def test_it_can_be_rehearsed_on_a_cpu(tmp_path):
    environment = os.environ | {"FORGETLIB_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", SCRIPT, "--small", "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    table = pd.read_csv(tmp_path / ".work/bench/gpu-rehearsal.csv", keep_default_na=False)
    assert list(table.columns) == list(gpu.COLUMNS)
    assert (tmp_path / ".work/bench/gpu-rehearsal.png").stat().st_size > 10_000
    assert set(table["section"]) == {
        *("fp32", "packing", "bf16", "bits", "machine", "scoring", "training", "processes")
    }
    of_card = table[table["section"].isin(["scoring", "training", "processes"])]
    rates = pd.to_numeric(of_card.loc[of_card["quantity"].str.startswith("rate"), "value"])
    assert len(rates) >= 8 and (rates > 0).all()
    assert {"ours, a plain loop", "ours, lm-eval", "ours, Trainer"} <= set(of_card["setting"])


@pytest.fixture
def bench():
    return gpu.Bench(torch.device("cpu"), small=True)


def test_what_is_beyond_its_limit_is_told_and_fails(bench, tmp_path, capsys):
    bench.report("fp32/llama/body", "scores: largest difference", "nats", [0.3, 0.1, 0.2], 0.15)
    bench.report("scoring/7b/ours", "rate", "questions/s", 7.0)
    assert capsys.readouterr().out.count("BEYOND") == 1
    assert gpu.finish(bench, {"device": "none"}, tmp_path / "table") == 1
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.loc[0, ["value", "low", "high", "limit"]].tolist() == [0.2, 0.1, 0.3, 0.15]
    del bench.rows[0]
    assert gpu.finish(bench, {"device": "none"}, tmp_path / "table") == 0


def test_numbers_that_are_not_finite_are_beyond_every_limit(bench):
    assert gpu.worst(np.array([1.0, np.nan]), np.ones(2)) == np.inf
    assert gpu.worst(np.array([1.0, 1.5]), np.ones(2)) == 0.5


def test_a_device_that_computes_otherwise_is_found(bench, monkeypatch):
    """A scale of attention that is off by a hundredth, on the device alone."""
    made, count = gpu.of_architecture, iter(range(10**6))

    def off(*given):
        lm = made(*given)
        if next(count) % 2:  # the CPU's model is made first
            for layer in lm_blocks(lm):
                layer.self_attn.scaling *= 1.01
        return lm

    monkeypatch.setattr(gpu, "of_architecture", off)
    monkeypatch.setattr(gpu, "VERIFIED", ("llama",))
    monkeypatch.setattr(gpu, "verify_bits", lambda bench: None)
    monkeypatch.setattr(gpu, "verify_bf16", lambda *_: None)
    gpu.verify(bench)
    table = pd.DataFrame(bench.rows, columns=gpu.COLUMNS)
    beyond = table[table["value"] > table["limit"]]
    assert {"scores: largest difference", "gradients: difference"} <= set(beyond["quantity"])


def test_where_there_is_no_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert "no GPU is here: --small --device cpu rehearses it" in capsys.readouterr().err
