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
COARSE, FINE = (f"uniform_choice(every={steps})" for steps in (4, 1))  # from check to check
METHODS = dict.fromkeys(("random", COARSE, FINE), SEEDS)  # with the seeds that each is drawn of
FEW = 8


def name(method):
    """How a method is called: of uniform over choices also how often its dose is checked."""
    if method["method"] != "uniform_choice":
        return method.get("labels", method["method"])
    return f"uniform_choice(every={method['training']['until']['every']})"


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
    """The seeds that reached their dose, by the last check of each."""
    drawn = pyarrow.csv.read_csv(FOLDER / f"dose_{SKILL}.csv").to_pylist()
    of_method = [r for r in drawn if r["method"] == method]
    ends = {r["seed"]: r["reached"] for r in sorted(of_method, key=lambda r: r["step"])}
    return [seed for seed in METHODS[method] if ends[seed]]


@pytest.mark.parametrize("n", [0, FEW])
@pytest.mark.parametrize("method", METHODS)
def test_what_comes_back_is_that_of_the_stored_rows(rows, method, n):
    table = pyarrow.csv.read_csv(FOLDER / f"ladder_{SKILL}.csv").to_pylist()
    rung = f"relearned from {n}" if n else "directly"
    (row,) = [r for r in table if r["method"] == method and r["rung"] == rung]
    seeds = METHODS[method]
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


def test_what_the_readmes_say_of_its_weakness_is_in_the_stored_rows(rows):
    """Which seeds decide, and how much of the control's rise any model has."""

    def beyond_twin(method, seed):
        return np.subtract(*(np.mean(rows[seed, who, FEW]) for who in (method, f"never, {method}")))

    own = {s: np.mean(rows[s, "lock", FEW]) - np.mean(rows[s, "lock", 0]) for s in SEEDS}
    more = [own[s] - (pooled(rows, s, FEW) - pooled(rows, s, 0)) for s in SEEDS]
    above = over_seeds(more)
    short = " ".join((FOLDER.parents[1] / "README.md").read_text().split())
    assert (
        len(SEEDS) == 10 and "of those seeds alone that had forgotten their own questions" in short
    )
    assert f"and its AUROC rises by {above} more than that of never-taught" in short
    long = " ".join((FOLDER.parent / "README.md").read_text().split())
    said = {}
    for method in (COARSE, FINE):
        of = at_dose(method), SEEDS
        said[method] = [len(of[0]), *(over_seeds([beyond_twin(method, s) for s in f]) for f in of)]
    few, at_its_dose, every = said[COARSE]
    assert f"{few} of ten seeds end at their dose, and of these alone AUROC beyond the" in long
    assert f"twin is {at_its_dose} after 8 labels (of all ten {every};" in long
    many, at_its_dose, every = said[FINE]
    assert f"{many} reach their dose, and AUROC beyond the twin is {at_its_dose} of these" in long
    assert f"of these, of all ten {every};" in long
    drawn, base = (
        over_seeds([np.mean(rows[s, FINE, FEW]) - np.mean(rows[s, who, FEW]) for s in SEEDS])
        for who in ("never", "base")
    )
    assert f"in the same words it is {drawn}, beyond the pre-trained one {base}." in long
    after = {s: np.mean(rows[s, FINE, FEW]) for s in SEEDS}
    low, others = (after.pop(4), after.pop(9)), sorted(after.values())
    assert f"(AUROC {low[0]:.2f} and {low[1]:.2f} after 8 labels; in the others" in long
    assert f"in the others {others[0]:.2f} to {others[-1]:.2f})" in long
    pilots = pyarrow.csv.read_csv(FOLDER.parent / "methods-pilots" / "pilots.csv").to_pylist()
    (slow,) = [r for r in pilots if r["method"] == "random" and r["rate"] == 3e-5]
    assert not slow["dose_reached"]
    assert f"at AUROC {slow['set_auroc']:.2f} [in one seed](methods-pilots/README.md))" in long
    assert f"its AUROC rises by {over_seeds(list(own.values()))}, by {above} more than" in long
