"""Methods with all abilities, trained by two processes that share the model, learn as by one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_abilities import ToyDifference, ToyDivergence, ToyPreference, city, review

from forgetlib.forgetting import loop
from forgetlib.forgetting.arithmetic import TaskVector
from forgetlib.forgetting.ascent import KLAscent
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.quantise import Quantise
from forgetlib.forgetting.representation import RMU
from forgetlib.forgetting.selective import SSD, SelectivePruning
from forgetlib.models import loading

# 20 examples in batches of 7: no batch has an even share for two.
TRAINING = Training(3e-3, epochs=2, batch_size=7, max_grad_norm=0.5)
METHODS = (
    ToyDifference(("tiny_review",), 1.0, TRAINING),
    ToyDivergence(("tiny_review",), 1.0, TRAINING),
    ToyPreference(0.5, TRAINING),
    KLAscent(TRAINING, ("tiny_review",), 10.0),
    TaskVector(TRAINING, 2.0),
    RMU(TRAINING, ("tiny_review",), layer=1, retain_weight=5.0),
    SSD(("tiny_review",)),
    SelectivePruning(("tiny_review",)),
    Quantise(4),
)


def outcome():
    """Each method's losses and weights, as arrays by name."""
    lm = loading.load("tiny", dtype="float32", device="cpu")
    start, found = lm.weights(), {}
    for method in METHODS:
        lm.set_weights(start)
        context = Context(0, city(20), review() if method.retained() else ())
        found[f"{method.name} loss"] = loop.apply(lm, method, context)
        found |= {f"{method.name} {n}": w.numpy() for n, w in lm.weights().items()}
    return found


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """To 1e-3 of the largest value, after six steps: sums are in another order."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    port = str(20000 + os.getpid() % 20000)
    done = subprocess.run(
        [*command, "--master-port", port, __file__, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one = outcome()
    for rank in (0, 1):
        two = np.load(tmp_path / f"{rank}.npz")
        assert set(two) == set(one)
        for name, expected in one.items():
            scale = float(np.abs(expected).max(initial=0))  # an edit has no losses
            assert two[name] == pytest.approx(expected, abs=1e-3 * scale), name


if __name__ == "__main__":
    np.savez(Path(sys.argv[1]) / f"{os.environ['RANK']}.npz", **outcome())
