"""What a few labels bring back of a skill, recomputed from stored rows by pyarrow, NumPy, SciPy.

Nothing of forgetlib is imported: who distrusts it can read this file instead.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from scipy import stats

FOLDER = Path(__file__).parents[3] / "figures" / "recovery"
SKILL = "sst2_nonce"
SEEDS = (*range(7), 8, 9, 10)
METHODS = ("random", "uniform_choice")  # those that are drawn
COARSE = "uniform_choice, every 4"  # the same training, stopped at another step: stored, not drawn
FEW = 8
HARM = ("sciq", "coding")  # tasks of other families, that no method retains


def name(method):
    """How a method is called; of uniform over choices it is told how often its dose is checked."""
    called = method.get("labels", method["method"])
    if called != "uniform_choice":
        return called
    if method["training"]["learning_rate"] != 3e-5:
        return f"{called}, another rate"  # not drawn yet
    return called if method["training"]["until"]["every"] == 1 else COARSE


def stored(kind, seed):
    """The rows of all files of a seed: its results were computed in several goes."""
    files = sorted((FOLDER / kind).glob(f"{SKILL}-{seed}[-.]*"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def role(checkpoint):
    """Who a model is: by whom it was made, step by step, whether the labels were drawn at random.

    checkpoint: as stored; {} is the pre-trained model
    """
    if not checkpoint.get("method"):
        return "base"
    taught = checkpoint["start"] is None or not checkpoint["start"].get("method")
    drawn = checkpoint["data"].get("shuffled", False)
    if taught:
        return "never" if drawn else "known"
    return f"{'never, ' if drawn else ''}{name(checkpoint['method'])}"


@pytest.fixture(scope="module")
def rows():
    """AUROC on new questions, by seed, who was asked, and how many labels it was shown again."""
    found = {}
    for seed in SEEDS:
        asked = stored("questions", seed)
        answers = {row["uid"]: row["choices"][row["label"]] for row in asked}
        for row in stored("results", seed):
            checkpoint, measured = json.loads(row["checkpoint"]), json.loads(row["measurement"])
            place = measured.get("task"), measured.get("split"), measured.get("view", "plain")
            if row["scores"] is None or place != (SKILL, "test", "plain"):
                continue
            data = checkpoint.get("data") or {}
            again = data.get("skip", 0) > 0
            if again and name(checkpoint["method"]) == "random":
                continue
            n = data["n"] if again else 0
            who = role((checkpoint["start"] or {}) if again else checkpoint)
            found.setdefault((seed, who, n), []).append(auroc(row["scores"], answers))
    return found


def auroc(scores, answers):
    """Pairs of questions with opposite answers, whose margins the true ones win together."""
    values, true = np.array(scores["log_likelihoods"]), np.array(scores["labels"])
    every = np.arange(len(true))
    margin = (values[every, true] - values[every, 1 - true]).astype(float)
    given = np.array([answers[uid] for uid in scores["uids"]])
    above = (np.sign(margin[:, None] + margin[None]) + 1) / 2
    return above[given[:, None] != given[None]].mean()


def mean(rows, who, n, seeds):
    """Over seeds of the mean over a role's models and draws; never-taught ones are pooled."""
    if who != "never":
        return np.mean([np.mean(rows[seed, who, n]) for seed in seeds])
    return np.mean([pooled(rows, seed, n) for seed in seeds])


def pooled(rows, seed, n):
    """The mean over a seed's never-taught models, as many as it has."""
    every = ["base", "never", *(f"never, {method}" for method in METHODS)]
    return np.mean([np.mean(rows[seed, who, n]) for who in every if (seed, who, n) in rows])


def at_dose(method):
    """The seeds that reached their dose, and after how many steps, by the checks of each."""
    found = {}
    for seed in SEEDS:
        for row in stored("results", seed):
            checks = row["dose"] or {}
            if not checks.get("steps") or role(json.loads(row["checkpoint"])) != method:
                continue
            if all(0.4 <= auroc <= 0.6 for auroc in checks["auroc"][-2:]):
                found[seed] = checks["steps"][-1]
    return found


@pytest.mark.parametrize("n", [0, FEW])
@pytest.mark.parametrize("method", METHODS)
def test_what_comes_back_is_that_of_the_stored_rows(rows, method, n):
    table = pyarrow.csv.read_csv(FOLDER / f"ladder_{SKILL}.csv").to_pylist()
    rung = f"relearned from {n}" if n else "directly"
    (row,) = [r for r in table if r["method"] == method and r["rung"] == rung]
    seeds = SEEDS
    assert row["n_seeds"] == len(seeds)
    never, known, left, locked = (
        mean(rows, who, n, seeds) for who in ("never", "known", method, "lock")
    )
    drawn = [row[of] for of in ("oracle", "known", "forgotten", "locked")]
    assert drawn == pytest.approx([never, known, left, locked], abs=1e-5)
    twin = mean(rows, f"never, {method}", n, seeds)
    assert row["twin"] == pytest.approx(twin, abs=1e-5)
    beyond = (left - twin) / (known - twin)
    assert row["twin_excess"] == pytest.approx(beyond, abs=1e-4)
    for column, own in (("excess", left), ("locked_excess", locked)):
        assert row[column] == pytest.approx((own - never) / (known - never), abs=1e-4)
    there = at_dose(method)
    assert row["at_dose"].split() == ["yes" if seed in there else "no" for seed in seeds]
    if n:
        never, known, left, twin = (
            mean(rows, who, n, there) for who in ("never", "known", method, f"never, {method}")
        )
        for column, floor in (("dose_excess", never), ("dose_twin_excess", twin)):
            assert row[column] == pytest.approx((left - floor) / (known - floor), abs=1e-4)
        before, known, never = (mean(rows, who, 0, seeds) for who in ("lock", "known", "never"))
        rise = row["locked_excess"] - (before - never) / (known - never)
        assert row["locked_rise"] == pytest.approx(rise, abs=1e-4)


def test_each_model_is_taught_again_by_two_sets_of_labels(rows):
    assert {len(of) for (_, _, n), of in rows.items() if n} == {2}
    assert {len(of) for (_, _, n), of in rows.items() if not n} == {1}


def over_seeds(values):
    """A mean and its 95 % interval, by Student's t, as texts say it."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    mean = np.mean(values)
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]".replace("-", "−")


@pytest.fixture(scope="module")
def rise():
    """By how much a method raised other tasks' nats a token, by seed and method."""
    nats = {}
    for seed in SEEDS:
        for row in stored("results", seed):
            checkpoint, measured = json.loads(row["checkpoint"]), json.loads(row["measurement"])
            if row["scores"] is None or measured.get("task") not in HARM:
                continue
            if (checkpoint.get("data") or {}).get("skip", 0) == 0:
                each, true = row["scores"], np.array(row["scores"]["labels"])
                first = np.arange(len(true)), true
                each = -np.array(each["log_likelihoods"])[first] / np.array(each["n_tokens"])[first]
                nats.setdefault((seed, role(checkpoint)), []).extend(each)
    return {
        (seed, who): np.mean(of) - np.mean(nats[seed, "known"])
        for (seed, who), of in nats.items()
        if who in METHODS
    }


@pytest.fixture(scope="module")
def long():
    return " ".join((FOLDER.parent / "README.md").read_text().split())


def above(rows, method, who, seeds, n=FEW):
    """By how much a method's models know more than others, over seeds, as texts say it."""
    return over_seeds([difference(rows, method, who, seed, n) for seed in seeds])


def difference(rows, method, who, seed, n=FEW):
    return np.mean(rows[seed, method, n]) - np.mean(rows[seed, who, n])


def test_what_the_readmes_say_of_the_control_is_in_the_stored_rows(rows, long):
    own = {s: np.mean(rows[s, "lock", FEW]) - np.mean(rows[s, "lock", 0]) for s in SEEDS}
    more = over_seeds([own[s] - (pooled(rows, s, FEW) - pooled(rows, s, 0)) for s in SEEDS])
    short = " ".join((FOLDER.parents[1] / "README.md").read_text().split())
    assert "ten seeds; " in short and len(SEEDS) == 10
    assert f"and its AUROC rises by {more} more than that of never-taught" in short
    assert f"its AUROC rises by {over_seeds(list(own.values()))}, by {more} more than" in long


def test_what_is_said_of_uniform_over_choices_is_in_the_stored_rows(rows, long):
    """Also of the same training that is stopped where a check every four steps ends it."""
    there, twin = at_dose(COARSE), f"never, {COARSE}"
    assert f"{len(there)} of ten seeds end at their dose, and of these alone AUROC" in long
    few, every = (above(rows, COARSE, twin, seeds) for seeds in (there, SEEDS))
    assert f"beyond the twin is {few} after 8 labels (of all ten {every};" in long
    there, twin = at_dose("uniform_choice"), "never, uniform_choice"
    steps = there.values()
    assert f"{len(there)} seeds reach their dose, after {min(steps)} to {max(steps)} steps" in long
    assert f"beyond the twin, which has all {64} steps, is" in long
    assert not at_dose(twin)
    few, every = (above(rows, "uniform_choice", twin, seeds) for seeds in (there, SEEDS))
    assert f"is {few} of these, of all ten {every}; of all ten, beyond the model" in long
    drawn, moved, base = (
        above(rows, "uniform_choice", who, SEEDS) for who in ("never", "never, random", "base")
    )
    assert f"in the same words it is {drawn}, beyond the one that random labels were" in long
    assert f"tried on after that {moved}, beyond the pre-trained one {base}." in long
    after = {s: np.mean(rows[s, "uniform_choice", FEW]) for s in SEEDS}
    for seed in (4, 9):
        never = [np.mean(rows[seed, f"never{more}", FEW]) for more in ("", ", uniform_choice")]
        assert after[seed] < max(*never, pooled(rows, seed, FEW))
    low, others = (after.pop(4), after.pop(9)), sorted(after.values())
    assert f"(AUROC {low[0]:.2f} and {low[1]:.2f} after 8 labels; in the others" in long
    assert f"in the others {others[0]:.2f} to {others[-1]:.2f})" in long


def test_what_was_seen_afterwards_is_in_the_stored_rows(rows, rise, long):
    method, twin = "uniform_choice", "never, uniform_choice"
    there = at_dose(method)
    before = {s: np.mean(rows[s, method, 0]) for s in there}
    turned = [s for s in there if before[s] < 0.4]
    assert turned == [1, 2, 5]
    ends = sorted(before[s] for s in turned)
    assert f"(AUROC {ends[0]:.2f} to {ends[-1]:.2f}); of the other six at their dose" in long
    others = above(rows, method, twin, [s for s in there if s not in turned])
    assert f"at their dose AUROC beyond the twin is {others}." in long
    harmed = [s for s in there if rise[s, method] > 0]
    assert harmed == [0, 4, 9]
    assert all(difference(rows, method, twin, s) < 0.11 for s in harmed)
    short = (FOLDER.parents[1] / "README.md").read_text()
    assert "little came back in the three seeds in which other tasks had got worse" in short
    rises = sorted(rise[s, method] for s in harmed)
    assert f"in seeds 0, 4 and 9 (by {rises[0]:.1f} to {rises[-1]:.1f}), AUROC" in long
    least, *_, most = sorted(difference(rows, method, twin, s) for s in harmed)
    assert f"AUROC beyond the twin is {least:.2f} to {most:.2f};".replace("-", "−") in long
    fallen = above(rows, method, twin, [s for s in there if s not in harmed])
    assert f"where they had fallen, it is {fallen}." in long


def test_what_is_said_of_random_labels_is_in_the_stored_rows(rows, rise, long):
    there = at_dose("random")
    harm = over_seeds([rise[s, "random"] for s in there])
    assert f"rise by {harm} in the {len(there)} seeds at their dose)" in long
    own = np.mean([np.mean(rows[s, "random", FEW]) - np.mean(rows[s, "random", 0]) for s in SEEDS])
    never = np.mean([pooled(rows, s, FEW) - pooled(rows, s, 0) for s in SEEDS])
    assert f"AUROC rises, from lower down, by {own:.2f}, that of never-taught" in long
    assert f"that of never-taught models by {never:.2f}." in long
    pilots = pyarrow.csv.read_csv(FOLDER.parent / "methods-pilots" / "pilots.csv").to_pylist()
    (slow,) = [r for r in pilots if r["method"] == "random" and r["rate"] == 3e-5]
    assert not slow["dose_reached"]
    assert f"at AUROC {slow['set_auroc']:.2f} [in one seed](methods-pilots/README.md))" in long
