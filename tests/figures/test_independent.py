"""Headline numbers, recomputed from the stored rows with pyarrow, NumPy and SciPy alone.

Nothing of forgetlib is imported: who distrusts it can read this file instead.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from scipy.stats import mannwhitneyu, spearmanr, t

FOLDER = Path(__file__).parents[2] / "figures" / "embedded"
FIXED = ("boolq", "mrpc", "rte", "sciriff_yesno", "sst2")
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def rows():
    """Scores by (what was done, tasks trained on, evaluated task, part, size, seed)."""
    found = {}
    for path in sorted((FOLDER / "results").glob("*.parquet")):
        table = pq.read_table(path, columns=["checkpoint", "measurement", "scores"])
        for row in table.to_pylist():
            if row["scores"] is None:
                continue
            checkpoint, asked = json.loads(row["checkpoint"]), json.loads(row["measurement"])
            done, trained, size = [], [], 0
            while checkpoint and checkpoint.get("method"):
                done.append(checkpoint["method"]["labels"])
                trained.append(checkpoint["data"]["tasks"][0])
                size = size or checkpoint["data"]["n"]
                checkpoint = checkpoint["start"]
            key = (*done[::-1],), (*trained[::-1],), asked["task"], asked["split"]
            scores = row["scores"]
            values = np.array(scores["log_likelihoods"])
            true = np.array(scores["labels"])
            tokens = np.array(scores["n_tokens"])
            every = np.arange(len(true))
            found[(*key, size, asked.get("seed", 0))] = {
                "uids": scores["uids"],
                "labels": true,
                "margin": values[every, true] - values[every, 1 - true],
                "said": values.argmax(1),
                "nll": -values[every, true] / tokens[every, true],
            }
    return found


def answers(task, seed):
    """The true response's text, and the distractor's, by uid."""
    table = pq.read_table(FOLDER / "questions" / f"{task}-{seed}.parquet").to_pylist()
    return {r["uid"]: (r["choices"][r["label"]], r["choices"][1 - r["label"]]) for r in table}


def own(rows, task, phase, part="test"):
    """One task's model of each seed: before, after fine-tuning, and after labels of a kind."""
    done = {"base": (), "tuned": ("true",)}.get(phase, ("true", phase))
    size = 0 if phase == "base" else 128
    return [rows[done, (task,) * len(done), task, part, size, seed] for seed in SEEDS]


def auroc(task, seed, found):
    margin = found["margin"].astype(float)
    if task not in FIXED:  # pairs of all questions
        total = margin[:, None] + margin[None]
        one = np.triu_indices(len(margin), 1)
        return ((np.sign(total) + 1) / 2)[one].mean()
    known = answers(task, seed)
    first = min(known[found["uids"][0]])
    is_first = np.array([known[uid][0] == first for uid in found["uids"]])
    difference = np.where(is_first, margin, -margin)
    u = mannwhitneyu(difference[is_first], difference[~is_first]).statistic
    return u / (is_first.sum() * (~is_first).sum())


def stored(name, **where):
    table = pyarrow.csv.read_csv(FOLDER / f"{name}.csv").to_pylist()
    (row,) = [r for r in table if all(r[k] == v for k, v in where.items())]
    return row


def mean(values):
    return float(np.mean(list(values)))


TASKS = ("sst2", "sciriff_yesno", "mrpc", "boolq", "arc_easy", "common_knowledge", "piqa")


@pytest.mark.parametrize("phase", ["tuned", "random", "true"])
@pytest.mark.parametrize("task", TASKS)
def test_accuracy_and_auroc_are_those_of_figure_2b(rows, task, phase):
    found = own(rows, task, phase)
    row = stored("fig2b_skill", eval_task=task, phase=phase)
    assert row["accuracy"] == pytest.approx(mean((f["margin"] > 0).mean() for f in found), abs=2e-3)
    areas = [auroc(task, seed, f) for seed, f in zip(SEEDS, found, strict=True)]
    assert row["auroc"] == pytest.approx(mean(areas), abs=1e-5)
    assert row["nll"] == pytest.approx(mean(f["nll"].mean() for f in found), rel=1e-4)


@pytest.mark.parametrize("task", ["sst2", "mrpc"])
def test_the_commonest_answer_s_share_is_counted(rows, task):
    shares = []
    for seed, found in zip(SEEDS, own(rows, task, "random"), strict=True):
        known = answers(task, seed)
        right = found["said"] == found["labels"]
        said = [known[u][0 if r else 1] for u, r in zip(found["uids"], right, strict=True)]
        shares.append(max(said.count(text) for text in set(said)) / len(said))
    row = stored("fig2b_skill", eval_task=task, phase="random")
    assert row["commonest_share"] == pytest.approx(mean(shares), abs=1e-5)


@pytest.mark.parametrize("task", ["sst2", "arc_easy"])
def test_the_fit_is_to_labels_that_a_hash_draws(rows, task):
    fits = []
    for seed, found in zip(SEEDS, own(rows, task, "random", "train"), strict=True):
        digests = (
            hashlib.blake2b(f"label-random|{seed}|{u}".encode(), digest_size=8).digest()
            for u in found["uids"]
        )
        drawn = [int((int.from_bytes(d, "big") >> 11) / 2**53 * 2) for d in digests]
        fits.append((found["said"] == drawn).mean())
    row = stored("fig2b_skill", eval_task=task, phase="random")
    assert row["fit"] == pytest.approx(mean(fits), abs=1e-5)


def test_what_random_labels_cost_beyond_true_ones_is_students_t_of_three_seeds(rows):
    """SST-2, where the seeds differ by more than their questions explain."""
    differences = [
        (true["margin"] > 0).mean() - (random["margin"] > 0).mean()
        for true, random in zip(own(rows, "sst2", "true"), own(rows, "sst2", "random"), strict=True)
    ]
    row = stored("fig2_control", eval_task="sst2")
    assert row["beyond_true_labels"] == pytest.approx(mean(differences), abs=1e-5)
    half = t.ppf(0.975, 2) * np.std(differences, ddof=1) / np.sqrt(3)
    ends = np.array([row["beyond_true_labels_low"], row["beyond_true_labels_high"]])
    assert ends == pytest.approx(mean(differences) + np.array([-half, half]), abs=0.03)


def test_pairs_cost_and_damage_as_much_as_is_said(rows):
    table = pyarrow.csv.read_csv(FOLDER / "fig3_cross_task.csv").to_pylist()
    others = [r for r in table if r["eval_task"] != r["forget_task"]]
    lost, risen = [], []
    for row in others:
        task, other = row["eval_task"], row["forget_task"]
        before = rows[("true",), (task,), task, "test", 128, 0]
        after = rows[("true", "random"), (task, other), task, "test", 128, 0]
        lost.append((before["margin"] > 0).mean() - (after["margin"] > 0).mean())
        risen.append(after["nll"].mean() - before["nll"].mean())
    assert mean(r["accuracy_lost"] for r in others) == pytest.approx(mean(lost), abs=1e-5)
    assert mean(r["nll_risen"] for r in others) == pytest.approx(mean(risen), rel=1e-4)
    page = (FOLDER / "README.md").read_text()
    assert f"({len(others)} pairs, one seed): accuracy falls by {mean(lost):.2f}" in page
    assert f"rises by {mean(risen):.1f} nats a token on average" in page


@pytest.mark.parametrize("measure", ["forget accuracy", "accuracy lost"])
def test_the_order_of_the_tasks_with_fewer_labels_is_that_of_the_claim(rows, measure):
    """32 labels of a seed against 128 of another; beside it, each size against itself."""
    table = pyarrow.csv.read_csv(FOLDER / "fig7_sizes.csv").to_pylist()
    names = sorted({r["eval_task"] for r in table if r["ratio_defined"]})

    def of(task, n, seed):
        forgotten = rows[("true", "random"), (task, task), task, "test", n, seed]["margin"] > 0
        tuned = rows[("true",), (task,), task, "test", 128, seed]["margin"] > 0
        return forgotten.mean() if measure == "forget accuracy" else tuned.mean() - forgotten.mean()

    values = {(n, s): [of(task, n, s) for task in names] for n in (32, 128) for s in SEEDS}
    pairs = [(s, other) for s in SEEDS for other in SEEDS if s != other]

    def correlate(n, m):
        return mean(spearmanr(values[n, s], values[m, other]).statistic for s, other in pairs)

    claims = pyarrow.csv.read_csv(FOLDER / "claims.csv").to_pylist()
    (claim,) = [
        c for c in claims if c["statistic"].startswith(f"rank correlation of {measure} with")
    ]
    assert claim["value"] == pytest.approx(correlate(32, 128), abs=1e-4)
    ceiling = mean([correlate(32, 32), correlate(128, 128)])
    assert claim["ceiling"] == pytest.approx(ceiling, abs=1e-4)


def test_the_order_of_the_tasks_with_flipped_labels_is_that_of_the_claim(rows):
    """Even questions after random labels against odd ones after flipped, and vice versa."""
    table = pyarrow.csv.read_csv(FOLDER / "fig3_cross_task.csv").to_pylist()
    tasks = sorted({r["forget_task"] for r in table})
    known = [t for t in tasks if any(r["eval_task"] == t and r["ratio_defined"] for r in table)]

    def lost(task, kind, half):
        tuned = rows[("true",), (task,), task, "test", 128, 0]["margin"][half::2] > 0
        after = [
            (
                rows[("true", kind), (task, other), task, "test", 128, 0]["margin"][half::2] > 0
            ).mean()
            for other in tasks
        ]
        return tuned.mean() - np.mean(after)

    values = {
        (kind, half): [lost(task, kind, half) for task in known]
        for kind in ("random", "flipped")
        for half in (0, 1)
    }

    def correlate(kind, other):
        return mean(
            spearmanr(values[kind, half], values[other, 1 - half]).statistic for half in (0, 1)
        )

    claims = pyarrow.csv.read_csv(FOLDER / "claims.csv").to_pylist()
    (claim,) = [c for c in claims if "flipped" in c["statistic"]]
    assert claim["value"] == pytest.approx(correlate("random", "flipped"), abs=1e-4)
    ceiling = mean(correlate(kind, kind) for kind in ("random", "flipped"))
    assert claim["ceiling"] == pytest.approx(ceiling, abs=1e-4)


def test_auroc_lost_and_confidence_go_together_as_the_claim_says(rows):
    table = pyarrow.csv.read_csv(FOLDER / "fig4_predictors.csv").to_pylist()
    names = sorted(r["eval_task"] for r in table if r["known"])
    lost, confidence = [], []
    for task in names:
        tuned, after = own(rows, task, "tuned"), own(rows, task, "random")
        areas = [[auroc(task, s, of[s]) for s in SEEDS] for of in (tuned, after)]
        lost.append(np.mean(areas[0]) - np.mean(areas[1]))
        confidence.append(mean(np.concatenate([1 / (1 + np.exp(-f["margin"])) for f in tuned])))
    claims = pyarrow.csv.read_csv(FOLDER / "claims.csv").to_pylist()
    (claim,) = [c for c in claims if c["statistic"].endswith("AUROC lost and confidence")]
    assert claim["value"] == pytest.approx(spearmanr(lost, confidence).statistic, abs=1e-3)
    assert claim["n"] == len(names)
