"""Measure how far forgetting reaches: from the forgetting set to unrelated tasks.

A method is given some questions to forget. What it costs there is its dose. What it costs elsewhere
says what was forgotten: those questions, the skill behind them, or more than that. "Where" it is
measured:

    forgetting set   the questions that the method was given, by their true labels
    new questions    the skill's test set
    other form       the same test set, asked in other forms; the mean over forms
    same family      other tasks of the skill's family that no method retains
    retained tasks   tasks that some method of the study retains, whether or not this one does
    other tasks      the rest

Every measure is taken of the known model, from before forgetting, and of the forgotten one, on the
same questions of the same seed. To our knowledge nobody published such a matrix of many methods at
one dose; benchmarks with a single retain set mislead (Thaker et al., arXiv 2410.02879).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import Measure, Sample, difference, of_means, resample
from forgetlib.figures.intervals import N_RESAMPLES, UNDEFINED, as_columns
from forgetlib.figures.join import by_checkpoint
from forgetlib.figures.measures import auroc_sample
from forgetlib.figures.methods.ladders import method_names, of_view
from forgetlib.figures.verdicts import most_left, most_turned
from forgetlib.measuring.base import Scores
from forgetlib.runs.answers import Answers, Load, fixed, texts_of
from forgetlib.runs.ladder import LadderStudy
from forgetlib.runs.records import Result
from forgetlib.runs.specs import PLAIN

SET, NEW, FORM, FAMILY, RETAINED, OTHER = WHERES = (
    "forgetting set",
    "new questions",
    "other form",
    "same family",
    "retained tasks",
    "other tasks",
)
MEASURES = {"accuracy_lost": "accuracy", "auroc_lost": "AUROC", "nll_rise": "nats a token"}

Place = tuple[str, str]  # "<task>/<split>", and the view


@dataclass(frozen=True)
class Part:
    """Hold what the models of a seed say of the same questions: of one task, through one view.

    answers: true response and distractor of each question by uid, where answers are fixed
    base: of the pre-trained model, where it was asked
    """

    known: Scores
    forgotten: Scores
    answers: Answers | None = None
    base: Scores | None = None

    def __post_init__(self) -> None:
        for other in (self.forgotten, *([self.base] if self.base else [])):
            if self.known.uids != other.uids:
                raise InputError(
                    "known and forgotten model",
                    expected="the same questions, in the same order",
                    found=f"{len(self.known)} and {len(other)}, which differ",
                    do="Ask all with the same n and the same split.",
                )

    def measure(self, counts: np.ndarray) -> np.ndarray:
        """Measure a resample of the questions, (R, N) counts: (R, 7).

        Accuracy, AUROC and nats a token of true responses, each of the known, then of the forgotten
        model; last the pre-trained model's nats. NaN where a resample has no question, for AUROC no
        pair, and where the pre-trained model was not asked.
        """
        both = self.known, self.forgotten

        def mean(of: Callable[[Scores], np.ndarray], scores: Scores) -> np.ndarray:
            return of_means(scores.uids, of(scores)[:, None]).measure(counts)[:, 0]

        answers = texts_of(self.answers, self.known.uids)
        found = [mean(metrics.correct, s) for s in both]
        found += [auroc_sample(s, answers).measure(counts)[:, 0] for s in both]
        found += [mean(metrics.nll_a_token, s) for s in both]
        found.append(mean(metrics.nll_a_token, self.base) if self.base else counts[:, 0] * np.nan)
        return np.stack(found, axis=1)


def sample(parts: Sequence[Part]) -> Sample:
    """Make the sample of one seed's parts: each measure is the mean over the parts, (R, 7).

    A question that several parts ask, as in several forms, is drawn for all of them together.
    """
    uids = tuple(dict.fromkeys(uid for part in parts for uid in part.known.uids))
    place = {uid: i for i, uid in enumerate(uids)}
    places = [[place[uid] for uid in part.known.uids] for part in parts]
    every = [s for part in parts for s in (part.known, part.forgotten, part.base) if s is not None]
    nll = [metrics.nll_a_token(s) for s in every]
    most = max(map(np.max, nll))
    least = min(map(np.min, nll))

    def measure(counts: np.ndarray) -> np.ndarray:
        each = [part.measure(counts[:, own]) for part, own in zip(parts, places, strict=True)]
        return np.mean(each, axis=0)

    return Sample(uids, measure, np.array([[0.0] * 4 + [least] * 3, [1.0] * 4 + [most] * 3]))


def places(study: LadderStudy, task: str) -> dict[str, dict[Place, str]]:
    """List where a skill's models are asked: by "where", each place with what it is called."""
    unrelated = study.unrelated(task)
    found: dict[str, dict[Place, str]] = {where: {} for where in WHERES}
    found[SET][f"{task}/train", PLAIN] = task
    found[NEW][f"{task}/test", PLAIN] = task
    for view in study.views:
        if (rung := of_view(view)).kind == "form":
            found[FORM][f"{task}/test", view] = rung.name
    for other in study.elsewhere:
        if other != task:
            kept = RETAINED if other in study.retained else FAMILY
            found[OTHER if other in unrelated else kept][f"{other}/test", PLAIN] = other
    return found


def away(table: pd.DataFrame) -> str:
    """Name where harm to the rest of a model is read: the least related of the places measured.

    table: rows of one skill, of this file's `table`
    """
    measured = set(table.loc[table["nll_rise"].notna(), "where"])
    return next((where for where in (OTHER, FAMILY, RETAINED) if where in measured), OTHER)


def table(
    study: LadderStudy,
    results: Iterable[Result],
    answers: Load | None,
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Measure what each method costs in each place: a row a skill, method and "where".

    Of a study that is under way, those seeds count of which both models are there.

    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study); asked for
        of tasks with fixed answers. None: no task has fixed answers

    Columns: eval_task, method, where, asked (tasks, or forms, that are averaged), n_tasks (how
    many), n_seeds, and with their 95 % intervals (_low, _high), the wider of those over questions
    and over seeds:
    auroc_known: AUROC of the known model; where it is not above 0.5 there was nothing to lose
    auroc: of the forgotten one; where it is below 0.5, responses are told apart the wrong way round
    auroc_left, auroc_turned: whether more than half of it is kept, or turned round, where above 0
        (`verdicts.most_left`, `verdicts.most_turned`)
    accuracy_lost, auroc_lost: the known model's less the forgotten one's
    nll_rise: nats a token of true responses, the forgotten model's less the known one's
    nll_taught: the known model's less the pre-trained one's: what the teaching did before
    Positive is lost; NaN where nothing was measured.
    """
    known = by_checkpoint(results)
    answers_of = cache(partial(fixed, answers))
    rows: list[dict[str, object]] = []
    for task in study.tasks:
        pairs = _pairs(study, known, task)
        # Place by place, as methods share their questions, and so the resamples of them.
        for where, asked in places(study, task).items():
            for method, of_seeds in pairs.items():
                there = [
                    place
                    for place in asked
                    if all(_scores(r, place) for _, pair in of_seeds for r in pair)
                ]
                bases = {
                    seed: known.get((pair[0].checkpoint.base.id, seed)) for seed, pair in of_seeds
                }
                asked_base = all(
                    base is not None and _scores(base, place)
                    for base in bases.values()
                    for place in there
                )
                samples = [
                    sample(
                        [
                            _part(
                                pair,
                                p,
                                answers_of(_task(p), seed),
                                bases[seed] if asked_base else None,
                            )
                            for p in there
                        ]
                    )
                    for seed, pair in of_seeds
                    if there
                ]
                row = {
                    "eval_task": task,
                    "method": method,
                    "where": where,
                    "asked": ", ".join(asked[place] for place in there),
                    "n_tasks": len(there),
                    "n_seeds": len(of_seeds),
                }
                rows.append(row | _measured(samples, n_resamples, with_base=asked_base))
    order = {method: i for i, method in enumerate(method_names(study).values())}
    rows.sort(key=lambda r: (study.tasks.index(str(r["eval_task"])), order[str(r["method"])]))
    return pd.DataFrame(rows)


Pair = tuple[Result, Result]  # of the known and the forgotten model of a seed


def _pairs(
    study: LadderStudy, known: Mapping[tuple[str, int], Result], task: str
) -> dict[str, list[tuple[int, Pair]]]:
    """Find by method the seeds of which both models are there, with these."""
    names = method_names(study)
    found: dict[str, list[tuple[int, Pair]]] = {}
    for of, seed in study.with_seeds(study.seeds):
        before = known.get((study.taught(task, seed).id, seed))
        if of != task or before is None:
            continue
        for method in study.of(task, seed):
            after = known.get((study.after(method, task, seed).id, seed))
            if after is not None:
                found.setdefault(names[method], []).append((seed, (before, after)))
    return found


def _task(place: Place) -> str:
    return place[0].rpartition("/")[0]


def _scores(result: Result, place: Place) -> Scores | None:
    where, view = place
    return result.seen(view).get(where)


def _part(pair: Pair, place: Place, answers: Answers | None, base: Result | None) -> Part:
    known, forgotten = (_scores(result, place) for result in pair)
    assert known is not None and forgotten is not None
    return Part(known, forgotten, answers, None if base is None else _scores(base, place))


def _measured(samples: Sequence[Sample], n_resamples: int, *, with_base: bool) -> dict[str, float]:
    """Make the columns of a row's measures."""
    names = ("auroc_known", "auroc", "auroc_left", "auroc_turned", *MEASURES, "nll_taught")
    found = dict.fromkeys(names, UNDEFINED)
    if samples:
        of = resample(samples, n_resamples=n_resamples)
        found |= {
            "auroc_known": of.interval(Measure(2)),
            "auroc": of.interval(Measure(3)),
            "auroc_left": of.interval(lambda m: most_left(m[..., 2], m[..., 3])),
            "auroc_turned": of.interval(lambda m: most_turned(m[..., 2], m[..., 3])),
            "accuracy_lost": of.interval(difference(0, 1)),
            "auroc_lost": of.interval(difference(2, 3)),
            "nll_rise": of.interval(difference(5, 4)),
        }
        if with_base:
            found["nll_taught"] = of.interval(difference(4, 6))
    columns: dict[str, float] = {}
    for name, interval in found.items():
        columns |= as_columns(name, interval)
    return columns
