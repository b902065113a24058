"""Look for each method's settings, on a seed that no study reports.

    forgetlib run tests/pilots.py methods

Two rates or strengths of each method, until its dose. `python tests/pilots.py` prints what each did
and writes it to figures/methods-pilots/pilots.csv. The rule by which a study takes one: of the
settings that reach the dose without inverting, the one that harms other tasks least.
"""

from functools import partial

import pandas as pd

from forgetlib import files, metrics
from forgetlib.forgetting.arithmetic import TaskVector
from forgetlib.forgetting.ascent import GradientAscent, GradientDifference, KLAscent
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.dose import Dose
from forgetlib.forgetting.erasure import LEACE
from forgetlib.forgetting.filtering import PromptFilter
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.preference import DPO, NPO, SimNPO
from forgetlib.forgetting.representation import RMU
from forgetlib.forgetting.selective import SSD, SelectivePruning
from forgetlib.forgetting.uniform import UniformChoice, UniformToken
from forgetlib.runs.ladder import FORGOTTEN, LadderStudy
from forgetlib.runs.results import load_stored
from forgetlib.studies import load_answers

RETAINED = ("commonsense_qa", "arithmetic", "logical_reasoning")
until = partial(Training, epochs=4, until=Dose(every=4))
METHODS = [
    method(until(rate), *rest)
    for method, rates, rest in (
        (UniformChoice, (1e-4, 3e-5), ()),
        (UniformToken, (1e-4, 3e-5), ()),
        (GradientAscent, (3e-5, 1e-5), ()),
        (GradientDifference, (3e-5, 1e-5), (RETAINED,)),
        (NPO, (5e-5, 2e-5), ()),
        (DPO, (5e-5, 2e-5), ()),
        (KLAscent, (3e-5, 1e-5), (RETAINED,)),
        (RMU, (2e-4, 5e-5), (RETAINED, 8)),
    )
    for rate in rates
]
METHODS += [Labels("random", until(3e-5))]  # beside the paper's rate, which is `forgetting`
METHODS += [SimNPO(until(rate), forget_weight=1.0) for rate in (5e-5, 2e-5)]
METHODS += [NPO(until(5e-5), retain=RETAINED)]
METHODS += [TaskVector(Training(1e-4, epochs=3), scale) for scale in (0.5, 1.0, 2.0)]
METHODS += [LEACE(), PromptFilter(RETAINED)]
METHODS += [SSD(RETAINED, threshold) for threshold in (10.0, 3.0)]
METHODS += [SelectivePruning(RETAINED, share) for share in (0.03, 0.1)]

pilots = LadderStudy(
    "methods-pilots",
    "SmolLM2-135M, a planted skill: each method in two settings, to choose by, on one seed",
    ("sst2_nonce",),
    seeds=(7,),
    n_train=128,
    n_eval=120,
    tuned=Training(1e-4, epochs=3),
    forgetting=until(1e-4),
    methods=tuple(METHODS),
    elsewhere=("commonsense_qa", "sciq", "coding"),
    n_elsewhere=30,
    models=("smollm2-135m-instruct",),
)


def table() -> pd.DataFrame:
    """Measure every setting of which all is stored: a row each."""
    (task,), (seed,) = pilots.tasks, pilots.seeds
    answers = load_answers(pilots, task, seed)
    results = {r.checkpoint.id: r for r in load_stored(pilots, "methods")}
    known = results[pilots.taught(task, seed).id]
    rows = []
    for method in pilots.every_method:
        if (found := results.get(pilots.after(method, task, seed, FORGOTTEN).id)) is None:
            continue
        test, train = (found.scores[f"{task}/{part}"] for part in ("test", "train"))
        settings = method.settings()

        def nll(result) -> float:
            others = [result.scores[f"{t}/test"] for t in pilots.elsewhere]
            return sum(metrics.nll_a_token(s).mean() for s in others) / len(others)

        def auroc(scores) -> float:
            of = [answers[uid] for uid in scores.uids]
            return float(metrics.auroc(metrics.margins(scores), of))

        rows.append(
            {
                "method": method.describe(),
                "rate": settings.learning_rate if settings else None,
                "steps": len(found.loss.loss) if found.loss else 0,
                "dose_reached": found.dose.reached(0.6, 2) if found.dose else None,
                "set_auroc": auroc(train),
                "auroc_known": auroc(known.scores[f"{task}/test"]),
                "auroc": auroc(test),
                "accuracy": metrics.correct(test).mean(),
                "nll": metrics.nll_a_token(test).mean(),
                "damage": nll(found) - nll(known),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    found = table()
    with files.replacing(files.root() / "figures" / pilots.name / "pilots.csv") as partial_file:
        found.to_csv(partial_file, index=False, float_format="%.4g")
    print(found.round(3).to_string(index=False))
