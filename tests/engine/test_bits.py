"""A CPU gives the bits that it gave: nine steps of training and 64 scores, by kind of processor.

Stored results are compared to the bit, so a commit that changes any has to say so, and why. What a
processor that is not in bits.json gives is said, to be added.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TEST_FOLDERS

from forgetlib.engine import kernels
from forgetlib.runs.provenance import _cpu_name

KNOWN = Path(__file__).with_name("bits.json")

COMPUTED = """if True:
    import hashlib, json
    import torch
    torch.set_num_threads(1)
    from helpers import finetune
    from forgetlib.data import splits
    from forgetlib.forgetting.base import Training
    from forgetlib.forgetting.labels import training_labels
    from forgetlib.measuring import scoring
    from forgetlib.models import loading

    def digest(*arrays):
        return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()[:16]

    lm = loading.load("gemma-3-270m", device="cpu")
    tested = [e for t, n in (("sst2", 56), ("piqa", 8)) for e in splits.load(t, "test", n, 0)]
    trained = [e for t, n in (("sst2", 14), ("piqa", 4)) for e in splits.load(t, "train", n, 0)]
    scores = scoring.score(lm, tested).log_likelihoods
    labels = training_labels(trained, "random", 0)
    loss = finetune(lm, trained, labels, Training(5e-5, epochs=1, batch_size=2))
    weights = [w.view(torch.int16).numpy() for _, w in sorted(lm.weights().items())]
    assert len(loss) == 9
    print(json.dumps({"scores": digest(scores), "training": digest(loss, *weights)}))
"""


def kind():
    """What the bits depend on, beside the code: processor, its instructions, PyTorch, compiler."""
    compiled = "no kernels"
    if kernels.library() is not None:
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
        command = [*shlex.split(compiler), "-dumpfullversion"]
        done = subprocess.run(command, capture_output=True, text=True)
        compiled = f"{Path(command[0]).name} {done.stdout.strip()}"
    parts = [
        _cpu_name(),
        torch.backends.cpu.get_cpu_capability(),
        f"torch {torch.__version__.split('+')[0]}",
        compiled,
    ]
    return ", ".join(parts)


@pytest.mark.embedded
def test_nine_steps_and_64_scores_have_the_bits_that_they_had():
    code = f"import sys; sys.path[:0] = {TEST_FOLDERS}\n{COMPUTED}"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    known = json.loads(KNOWN.read_text())
    if kind() not in known:
        pytest.skip(f"not in {KNOWN.name}: {json.dumps({kind(): found})}")
    assert found == known[kind()]
