"""A study of methods whose results are made up: what each method costs, and where, is known."""

import numpy as np

from forgetlib.forgetting.ascent import GradientAscent, GradientDifference
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.dose import Dose
from forgetlib.forgetting.filtering import PromptFilter
from forgetlib.forgetting.preference import NPO
from forgetlib.measuring.base import DoseCurve, Loss, Scores
from forgetlib.runs.ladder import LadderStudy
from forgetlib.runs.records import Record, Result
from forgetlib.runs.specs import Measurement

N = 120
UNTIL = Training(1e-4, epochs=2, batch_size=20, until=Dose())
ASCENT, PREFERENCE = GradientAscent(UNTIL), NPO(UNTIL)
FILTER, DIFFERENCE = PromptFilter(("piqa",)), GradientDifference(UNTIL, ("piqa",))
STUDY = LadderStudy(
    "made-up",
    "results of known truth",
    ("sst2_nonce", "arc_easy"),
    seeds=(0, 1, 2, 3, 4),
    n_train=N,
    n_eval=N,
    tuned=Training(1e-4),
    forgetting=UNTIL,
    methods=(ASCENT, PREFERENCE, FILTER),
    more_methods=(DIFFERENCE,),
    views=("upper", "few_shot(2, 120)", "template(1)"),
    elsewhere=("sst2", "piqa", "sciq", "copa"),
    n_elsewhere=N,
    models=("tiny",),
)
# Distance of true responses from false ones, in deviations, of the known model; and nats a token.
SKILL, SET_SKILL, NLL = 1.5, 4.0, 2.0
# Of each method: skill on the forgetting set, on new questions (in other forms, too), elsewhere;
# nats a token elsewhere; checks of the dose.
TRUTH = {
    "random": (0.0, 0.0, SKILL, NLL, (1.0, 0.8, 0.55, 0.5)),
    "gradient_ascent": (-SET_SKILL, 0.0, 0.0, NLL + 4, (1.0, 0.9, 0.1, 0.05, 0.02)),
    "npo": (2.0, 0.5, SKILL, NLL + 0.1, (1.0, 0.95, 0.9)),
    "prompt_filter(retain)": (0.0, SKILL, SKILL, NLL, None),
    "gradient_difference(retain)": (0.0, 0.0, SKILL, NLL, (1.0, 0.52, 0.48)),
}


def answers(task, seed):
    """The true response and the distractor of every question, by uid."""
    uids = [_uid(task, part, seed, i) for part in ("train", "test") for i in range(N)]
    return {
        u: ("yes", "no") if u.endswith(("0", "2", "4", "6", "8")) else ("no", "yes") for u in uids
    }


def _uid(task, part, seed, i):
    return f"{task}/{part}/{1000 * seed + i}"


def scores(task, part, seed, skill, nll, who):
    """Scores of N questions; the same noise for every model, but for a part of its own."""
    rng = np.random.default_rng([seed, *f"{task}/{part}".encode()])
    own = np.random.default_rng([seed, *f"{task}/{part}/{who}".encode()])
    margin = skill + rng.standard_normal(N) + 0.1 * own.standard_normal(N)
    true = -nll * np.ones(N) + 0.1 * own.standard_normal(N)
    labels = np.arange(N) % 2
    values = np.where(labels[:, None] == np.arange(2), true[:, None], (true - margin)[:, None])
    uids = tuple(_uid(task, part, seed, i) for i in range(N))
    return Scores(uids, values.astype(np.float32), np.ones((N, 2), np.int32), labels)


def _result(checkpoint, task, seed, of_set, of_new, elsewhere, nll, **more):
    """What a model of one skill and seed was asked."""
    who, asked = checkpoint.id, {}
    asked[Measurement("scores", task, "train", N, seed)] = of_set, NLL
    for view in ("plain", *STUDY.views):
        asked[Measurement("scores", task, "test", N, seed, view=view)] = of_new, NLL
    for other in STUDY.elsewhere:
        asked[Measurement("scores", other, "test", N, seed)] = elsewhere, nll
    records = [
        Record(checkpoint, m, scores(m.task, m.split, seed, skill, of, f"{who}{m.view}"))
        for m, (skill, of) in asked.items()
    ]
    records += [Record(checkpoint, Measurement(name), value) for name, value in more.items()]
    return Result(checkpoint, seed, tuple(records))


def results(study=STUDY, truth=TRUTH):
    """Made-up results of the known and the forgotten models of a study."""
    found = []
    for task, seed in study.with_seeds(study.seeds):
        known = SET_SKILL, SKILL, SKILL, NLL
        found.append(_result(study.taught(task, seed), task, seed, *known))
        for method in study.of(task, seed):
            *values, curve = truth[method.describe()]
            more = {}
            if curve is not None:
                n = len(curve) - 1
                more["dose"] = DoseCurve(np.arange(n + 1, dtype=np.int32), np.float32(curve))
                more["loss"] = Loss(np.zeros(n, np.float32))
            found.append(_result(study.after(method, task, seed), task, seed, *values, **more))
    return found


def of_base(study=STUDY, nll=NLL - 1, seeds=None):
    """What the pre-trained model was asked about tasks elsewhere: a job a seed."""
    base = study.taught(study.tasks[0], study.seeds[0]).base
    found = []
    for seed in study.seeds if seeds is None else seeds:
        records = [
            Record(base, m, scores(other, "test", seed, SKILL, nll, "base"))
            for other in study.elsewhere
            for m in [Measurement("scores", other, "test", N, seed)]
        ]
        found.append(Result(base, seed, tuple(records)))
    return found
