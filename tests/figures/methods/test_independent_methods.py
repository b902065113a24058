"""What became of skills after each method, recomputed from stored rows with pyarrow and NumPy.

Nothing of forgetlib is imported: who distrusts it can read this file instead.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parents[3] / "figures" / "methods"
# Tasks that no method retains, of other families than the skill's: harm is measured there.
UNRELATED = {"sst2": ("sciq", "coding"), "common_knowledge": ("sciq", "coding", "mrpc")}
SEEDS = {"sst2": (0, 1, 2), "common_knowledge": (0, 1, 2)}
METHODS = (
    *("random", "uniform_choice", "uniform_token", "gradient_ascent", "kl_ascent", "npo", "dpo"),
    *("task_vector", "selective_pruning", "prompt_filter"),
)


@pytest.fixture(scope="module")
def rows():
    """Scores of questions as they are, by (seed, what was done last, skill, evaluated task)."""
    found = {}
    for path in [FOLDER / f"results/{skill}-{s}.parquet" for skill in SEEDS for s in SEEDS[skill]]:
        columns = ["checkpoint", "measurement", "scores"]
        for row in pq.read_table(path, columns=columns).to_pylist():
            checkpoint, asked = json.loads(row["checkpoint"]), json.loads(row["measurement"])
            if (
                row["scores"] is None
                or asked["split"] != "test"
                or asked.get("view", "plain") != "plain"
            ):
                continue
            method = checkpoint.get("method") or {"method": "base"}
            done = method.get("labels", method["method"])
            skill = checkpoint["data"]["tasks"][0] if checkpoint.get("data") else ""
            scores = row["scores"]
            values, true = np.array(scores["log_likelihoods"]), np.array(scores["labels"])
            every, tokens = np.arange(len(true)), np.array(scores["n_tokens"])
            found[asked.get("seed", 0), done, skill, asked["task"]] = {
                "uids": scores["uids"],
                "margin": (values[every, true] - values[every, 1 - true]).astype(float),
                "nll": -values[every, true] / tokens[every, true],
            }
    return found


def auroc(skill, found):
    """Pairs of questions with opposite answers; with free answers all pairs."""
    margin = found["margin"]
    above = (np.sign(margin[:, None] + margin[None]) + 1) / 2
    if skill == "sst2":
        paths = [FOLDER / "questions" / f"sst2-{seed}.parquet" for seed in SEEDS[skill]]
        asked = [r for path in paths for r in pq.read_table(path).to_pylist()]
        known = {r["uid"]: r["choices"][r["label"]] for r in asked}
        answers = np.array([known[uid] for uid in found["uids"]])
        return above[answers[:, None] != answers[None]].mean()
    return above[np.triu_indices(len(margin), 1)].mean()


def drawn(skill, method):
    """The ladder's row of direct asking."""
    table = pyarrow.csv.read_csv(FOLDER / f"ladder_{skill}.csv").to_pylist()
    (row,) = [
        r for r in table if r["method"].partition("(")[0] == method and r["rung"] == "directly"
    ]
    return row


@pytest.mark.parametrize("skill", UNRELATED)
@pytest.mark.parametrize("method", METHODS)
def test_a_verdict_s_numbers_are_those_of_the_stored_rows(rows, method, skill):
    row = drawn(skill, method)
    assert row["n_seeds"] == len(SEEDS[skill])
    known, forgotten = (
        [rows[seed, done, skill, skill] for seed in SEEDS[skill]] for done in ("true", method)
    )
    area = [np.mean([auroc(skill, found) for found in of]) for of in (known, forgotten)]
    assert [row["known"], row["auroc"]] == pytest.approx(area, abs=1e-5)
    assert row["auroc_lost"] == pytest.approx(row["known"] - row["auroc"], abs=1e-5)
    right = np.mean([(found["margin"] > 0).mean() for found in forgotten])
    assert row["accuracy"] == pytest.approx(right, abs=1e-5)
    worse = []
    for seed in SEEDS[skill]:
        after, before = (
            np.concatenate([rows[seed, done, skill, task]["nll"] for task in UNRELATED[skill]])
            for done in (method, "true")
        )
        worse.append(after.mean() - before.mean())
    assert row["damage"] == pytest.approx(np.mean(worse), abs=1e-4)


@pytest.mark.parametrize("skill", UNRELATED)
@pytest.mark.parametrize("method", METHODS)
def test_a_verdict_follows_from_its_numbers(method, skill):
    """What the words mean, as far as the written numbers tell: half of the skill, one nat."""
    row = drawn(skill, method)
    half = (row["known"] - 0.5) / 2
    most_gone, most_left = row["auroc_lost"] > half, row["auroc_lost"] < half
    verdict = row["verdict"]
    if verdict == "forgotten":
        assert most_gone and row["damage_high"] < 1
    elif verdict == "damaged":
        assert most_gone and row["damage_low"] > 1
    elif verdict == "inverted":
        assert row["auroc_high"] < 0.5
    elif verdict in ("kept", "shifted"):
        assert most_left
    else:
        assert verdict == "not decided"
