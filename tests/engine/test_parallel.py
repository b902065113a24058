"""Two processes, each with a part of the weights, do what one process does."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a script, too
from helpers import finetune

from forgetlib import studies
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.labels import training_labels
from forgetlib.measuring import probing, scoring
from forgetlib.models import loading
from forgetlib.runs import local

# 20 examples in batches of 7: the last batch has 6, and no batch has an even share for two.
N, CONFIG = 20, Training(3e-3, epochs=3, batch_size=7, max_grad_norm=0.5)


@cache
def outcome(tuning, recompute):
    """What a training ends with: losses, scores, probes and weights, as arrays by name."""
    lm = loading.load("tiny", tuning=tuning, dtype="float32", device="cpu", recompute=recompute)
    start = lm.weights()
    train, test = (splits.load("tiny_city", part, N, 0) for part in ("train", "test"))
    loss = finetune(lm, train, training_labels(train, "random", 0), CONFIG, 0)
    trained = {f"weights {n}": w.numpy() for n, w in lm.weights().items()}
    found = {
        "loss": loss,
        "scores": scoring.score(lm, test).log_likelihoods,
        "probes": probing.deviation(probing.hidden_states(lm, test).question[:, 1]),
    }
    lm.set_weights(start)
    return found | trained | {"scores at the start": scoring.score(lm, test).log_likelihoods}


def small_study():
    brief = Training(3e-3, epochs=1)
    settings = {"n_train": 10, "n_eval": 10, "sizes": [], "tuned": brief, "forgetting": brief}
    return studies.study("tiny", tasks=["tiny_city"], models=["tiny"], **settings)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """A folder that two processes of this file wrote, as `accelerate launch` runs it on GPUs."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "--master-port", str(20000 + os.getpid() % 20000), __file__, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "FORGETLIB_ROOT": str(folder / "project")},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_two_processes_train_as_one(two_processes, tuning, recompute):
    """To 5e-4 of the largest value, after nine steps: sums are in another order."""
    one = outcome(tuning, False)
    for rank in (0, 1):
        two = np.load(two_processes / f"{tuning}-{recompute}-{rank}.npz")
        assert set(two) == set(one)
        for name, expected in one.items():
            scale = float(np.abs(expected).max())
            assert two[name] == pytest.approx(expected, abs=5e-4 * scale), name
    assert np.ptp(one["scores"] - one["scores at the start"]) > 0.1


def test_two_processes_compute_a_study_as_one_does(two_processes, tmp_path, monkeypatch):
    """To 1e-3 nats of log-likelihood."""
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))
    expected = studies.run(small_study(), progress=False)
    monkeypatch.setenv("FORGETLIB_ROOT", str(two_processes / "project"))
    with monkeypatch.context() as patch:
        patch.setattr(local, "compute", lambda *a, **k: pytest.fail("something is missing"))
        found = studies.load_results(small_study())
    for two, one in zip(found, expected, strict=True):
        assert two.checkpoint == one.checkpoint
        assert {p["processes"] for p in two.provenances} == {2}
        for where, scores in one.scores.items():
            theirs = scores.log_likelihoods
            assert two.scores[where].log_likelihoods == pytest.approx(theirs, abs=1e-3)
    assert not list((two_processes / "project").rglob("*.safetensors"))


def test_a_process_that_no_launcher_started_says_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"RANK.*beside WORLD_SIZE=2.*`accelerate launch`"):
        studies.run(small_study(), progress=False)


def save_outcomes(folder):
    for tuning in ("body", "full", "lora"):
        for recompute in (False, True):
            name = f"{tuning}-{recompute}-{os.environ['RANK']}.npz"
            np.savez(folder / name, **outcome(tuning, recompute))


if __name__ == "__main__":
    save_outcomes(Path(sys.argv[1]))
    studies.run(small_study(), progress=False)
