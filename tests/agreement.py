"""Log-likelihoods beside the lm-evaluation-harness's, for every task whose data are here.

    python tests/agreement.py

In fp32, with the embedded model, on the shortest of a sample of each task's questions, as length
does not matter here and fp32 is slow on a CPU. The harness renders and scores its own requests;
tasks that it does not know are rendered by ours, and only scored by it. Writes
figures/harness/agreement.csv, and fails where a difference is above 1e-3 nats or a prediction
differs. The paper's tasks come from the hub, or from the folder that FORGETLIB_HUB names.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent / "data"))
from test_harness import harness_instances

from forgetlib.data import splits, tasks
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.files import replacing, root
from forgetlib.measuring import scoring
from forgetlib.models import loading

N_QUESTIONS = 16
TOLERANCE = 1e-3  # nats


def requests_of(example, rendered):
    """The harness's requests for a question: its own, or ours in its form."""
    if rendered:
        return [request for _, request in rendered[example.uid]]
    pairs = zip(example.prompts, example.choices, strict=True)
    return [Instance("loglikelihood", {}, (p, f" {c}"), i) for i, (p, c) in enumerate(pairs)]


def example_of(uid, question):
    """A question with all its choices; None where two of them are equal, or one is empty."""
    try:
        return Example(uid, question.prompts, question.choices, question.gold)
    except InputError:
        return None


def compared(name, ours, theirs):
    """One row of the table: how far the two are from each other on a task."""
    rendered = harness_instances(name) if tasks.get(name).harness else {}
    asked = [
        example
        for uid, q in splits.questions(name)
        if (not rendered or uid in rendered) and (example := example_of(uid, q)) is not None
    ]
    asked = sorted(asked, key=lambda e: len(e.prompts[0]))[:N_QUESTIONS]
    apart, n_others = [], 0
    for n_choices in {len(e.choices) for e in asked}:
        examples = [e for e in asked if len(e.choices) == n_choices]
        scores = scoring.score(ours, examples).log_likelihoods
        requests = [r for e in examples for r in requests_of(e, rendered)]
        found = [value for value, _ in theirs.loglikelihood(requests, disable_tqdm=True)]
        other = np.reshape(found, scores.shape)
        apart.append(np.abs(scores - other).max())
        n_others += int((scores.argmax(1) != other.argmax(1)).sum())
    return {
        "task": name,
        "rendered_by": "lm-eval" if rendered else "forgetlib",
        "questions": len(asked),
        "largest_difference_nats": max(apart),
        "other_predictions": n_others,
    }


def main():
    lm = loading.load("embedded", dtype="float32", device="cpu")
    harness = HFLM(
        pretrained=lm.model,
        tokenizer=lm.tokenizer,
        backend="causal",
        device="cpu",
        dtype="float32",
        softmax_dtype="float64",  # see test_harness
        batch_size=4,
        add_bos_token=True,
    )
    names = [*tasks.suite("embedded"), *tasks.suite("paper")]
    lost = splits.missing(names)
    rows = [compared(n, lm, harness) for n in tqdm(names, unit="task") if n not in lost]
    table = pd.DataFrame(rows)
    with replacing(root() / "figures" / "harness" / "agreement.csv") as path:
        table.to_csv(path, index=False, float_format="%.2g")
    print(table.to_string(index=False))
    for name, why in lost.items():
        print(f"left out: {name}: {why}")
    largest = table["largest_difference_nats"].max()
    disagreeing = table["other_predictions"].sum()
    n = table["questions"].sum()
    print(f"{len(table)} tasks, {n} questions: {largest:.1e} nats, {disagreeing} other predictions")
    return 1 if largest > TOLERANCE or disagreeing else 0


if __name__ == "__main__":
    sys.exit(main())
