"""What a model knows of a task, and what it says: every measure, with its verdict.

Accuracy alone cannot tell a skill that is gone from answers that were shifted: a model that says
"yes" to everything is right in half of the questions, and may still be the surer of its "yes" the
more it is true. AUROC is blind to such a shift. `table` has both, a row a task and phase.
Long because what is measured, what is compared with it, and the verdict are taken from one record.

A phase is a model of one task: "base", "tuned", or what was done after that, as `Checkpoint.kind`
says it ("random", "true", "flipped").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd

from forgetlib import metrics
from forgetlib.data import tasks
from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import (
    Measure,
    Resampled,
    Sample,
    Statistic,
    difference,
    joined,
    of_means,
    of_shares,
    resample,
)
from forgetlib.figures.intervals import N_RESAMPLES, UNDEFINED, Interval, as_columns
from forgetlib.figures.join import by_checkpoint, families, other_data
from forgetlib.figures.verdicts import Evidence, most_left, most_turned, verdict
from forgetlib.forgetting.labels import LABELS, labels_of
from forgetlib.measuring.base import Scores
from forgetlib.metrics import CHANCE
from forgetlib.runs.answers import Answers, Load
from forgetlib.runs.records import Result
from forgetlib.runs.specs import Checkpoint

Runs = Mapping[str, Result]  # one seed's run of each phase
BEFORE = ("base", "tuned")


def table(
    results: Iterable[Result],
    answers: Load | None,
    kinds: Sequence[str] = ("random",),
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Measure what is known of each task: before, after fine-tuning, and after each of `kinds`.

    answers: (task, seed) -> its answers by uid, as partial(studies.load_answers, study); asked for
        of tasks with fixed answers. None: no task has fixed answers

    One row a model, task and phase, of the whole forgetting set. Columns: model, eval_task,
    answer_format, phase, n (test questions, all seeds), n_seeds, verdict (of `verdicts`, of
    `kinds`), and for each measure m its value, m_low and m_high:
    accuracy, accuracy_a_token, nll (nats a token of the true response), confidence, auroc,
        matched_accuracy, commonest_share, true_share (of the commonest true answer): on the test
        set, as `metrics` defines them; the last three NaN without fixed answers
    set_accuracy, set_auroc: by the true labels, on the set that was trained on
    fit: share of that set whose prediction is the label trained on; NaN where none was
    nll_elsewhere: nats a token of true responses of other tasks, of other families where these were
        asked; NaN where not measured
    Of `kinds`, against the fine-tuned model of the same seed, paired by question:
    accuracy_lost, auroc_lost: what the fine-tuned model had more
    forget_ratio, auroc_ratio: what share of it above chance was lost; NaN where it was not shown
        to be above chance, or above the commonest answer's share
    damage: rise of nll_elsewhere
    nll_taught, of the fine-tuned model: its rise since the pre-trained one; NaN where that was not
        asked the same questions
    """
    rows: dict[tuple[str, str, int], dict[str, object]] = {}
    order = {phase: i for i, phase in enumerate((*BEFORE, *kinds))}
    for (model, task, _), found in measured(list(results), answers, kinds, n_resamples=n_resamples):
        if found.is_whole:
            for phase in found.phases:
                key = model, task, order[phase]
                rows.setdefault(key, {"model": model, "eval_task": task, **_row(found, phase)})
    return pd.DataFrame([row for _, row in sorted(rows.items())])


def measured(
    results: Sequence[Result],
    answers: Load | None,
    kinds: Sequence[str] = ("random",),
    *,
    paired: bool = False,
    n_resamples: int = N_RESAMPLES,
) -> Iterator[tuple[tuple[str, str, int], Measured]]:
    """Yield ((model, task, size of the forgetting set), its measures), sorted.

    Kinds that the same seeds have are measured together, so that they are compared within a seed.

    paired: take only the seeds that have all kinds
    """
    by_id = by_checkpoint(results)
    of_kinds = {kind: families(results, kind) for kind in kinds}
    for key in sorted(set().union(*of_kinds.values())):
        seeds = {
            kind: {runs["forgotten"].seed: runs for runs in found[key]}
            for kind, found in of_kinds.items()
            if key in found
        }
        shared = set.intersection(*map(set, seeds.values()))
        groups: dict[tuple[int, ...], list[str]] = {}
        for kind, of_kind in seeds.items():
            chosen = [s for s in of_kind if s in shared] if paired else list(of_kind)
            groups.setdefault(tuple(chosen), []).append(kind)
        if paired and (len(seeds) < len(kinds) or not shared):
            continue
        for chosen_seeds, together in groups.items():
            runs = [
                {p: seeds[together[0]][s][p] for p in BEFORE}
                | {kind: seeds[kind][s]["forgotten"] for kind in together}
                for s in chosen_seeds
            ]
            yield key, Measured(key[1], runs, answers, by_id, n_resamples)


# --- one measure of one model on one set of questions, as a sample

MEANS: Mapping[str, Callable[[Scores], np.ndarray]] = {
    "accuracy": metrics.correct,
    "accuracy_a_token": metrics.correct_a_token,
    "nll": metrics.nll_a_token,
    "confidence": metrics.confidence,
}
TESTED = (*MEANS, "auroc", "matched_accuracy", "commonest_share", "true_share")
_SHARE = np.array([[0.0], [1.0]])  # the limits of a share


def _column(uids: tuple[str, ...], measure: Callable[[np.ndarray], metrics.Numbers]) -> Sample:
    """Make a sample of one share, from what computes it of counts: (R, N) -> (R,)."""
    return Sample(uids, lambda counts: np.reshape(measure(counts), (-1, 1)), _SHARE)


def auroc_sample(scores: Scores, answers: np.ndarray | None) -> Sample:
    """Make the sample of an AUROC; answers: as `metrics.auroc` takes them."""
    margin = metrics.margins(scores)
    return _column(scores.uids, lambda counts: metrics.auroc(margin, answers, counts))


def _of_answers(name: str, scores: Scores, answers: np.ndarray) -> Sample:
    """Make the sample of what fixed answers have beside: matched accuracy, commonest answers."""
    margin, rows = metrics.margins(scores), np.arange(len(scores))
    if name == "matched_accuracy":
        return _column(scores.uids, lambda c: metrics.matched_accuracy(margin, answers, c))
    said = answers[:, 0] if name == "true_share" else answers[rows, 1 - metrics.correct(scores)]
    share = _column(scores.uids, lambda counts: metrics.commonest_share(said, counts))
    return replace(share, limits=np.array([[1 / len(set(answers.ravel()))], [1.0]]))


def trained_towards(checkpoint: Checkpoint, found: Scores) -> np.ndarray:
    """Draw the labels (N,) that a model was trained on, of its forgetting set."""
    n_choices = found.log_likelihoods.shape[1]
    return labels_of(found.uids, found.labels, n_choices, checkpoint.kind, checkpoint.seed)


def _fit(run: Result, found: Scores) -> Sample:
    """Make the sample of the share of predictions that are the label trained on."""
    right = np.full(len(found), np.nan)
    if run.checkpoint.kind in LABELS:
        right = (metrics.predictions(found) == trained_towards(run.checkpoint, found)).astype(float)
    return of_means(found.uids, right[:, None])


class Measured:
    """Measure one task's models of all seeds: paired by question, and from the same resamples.

    What is not asked for is not computed.

    seeds: one seed's run of each phase
    answers: as in `table`
    by_id: everything that was measured of each checkpoint, by its id and seed
    """

    def __init__(
        self,
        task: str,
        seeds: Sequence[Runs],
        answers: Load | None,
        by_id: Mapping[tuple[str, int], Result],
        n_resamples: int = N_RESAMPLES,
    ) -> None:
        self.task, self.seeds, self.n_resamples = task, list(seeds), n_resamples
        self.phases = tuple(self.seeds[0])
        self.n_seeds = len(self.seeds)
        self.n = sum(len(runs["tuned"].scores[f"{task}/test"]) for runs in self.seeds)
        self.fixed = answers is not None and tasks.get(task).has_fixed_answers
        self.answer_format = "verbaliser" if self.fixed else "text"
        self._load, self._by_id = answers, by_id
        # What is known is the same in every figure, however many resamples it takes.
        self._judge = self
        if n_resamples != N_RESAMPLES:
            self._judge = Measured(task, seeds, answers, by_id)
        self._found: dict[tuple[str, str, str], Resampled] = {}
        self._less: dict[tuple[str, str, str, str], Interval] = {}

    @property
    def is_whole(self) -> bool:
        """Tell whether the forgetting set is the whole training set."""
        last = self.seeds[0][self.phases[-1]].checkpoint
        return last.n == self.seeds[0]["tuned"].checkpoint.n

    def get(self, name: str, phase: str, part: str = "test") -> Resampled:
        """Measure a phase's models: (G, 1) and its resamples.

        name: of `TESTED`, or "fit" of the set trained on
        part: "test", "train" or "elsewhere", the test questions of other tasks
        """
        key = name, phase, part
        if key not in self._found:
            samples = [self._sample(name, phase, part, i) for i in range(self.n_seeds)]
            self._found[key] = resample(samples, n_resamples=self.n_resamples)
        return self._found[key]

    def interval(self, statistic: Statistic, *columns: tuple[str, ...]) -> Interval:
        """Give a statistic of several measures, each (name, phase) or (name, phase, part)."""
        return joined([self.get(*column) for column in columns]).interval(statistic)

    def of(self, name: str, phase: str, part: str = "test") -> Interval:
        """Give a measure its interval."""
        return self.interval(Measure(0), (name, phase, part))

    def difference(self, name: str, phase: str, other: str, part: str = "test") -> Interval:
        """Subtract a measure of another phase, within each seed."""
        key = name, phase, other, part
        if key not in self._less:  # a matrix asks again for each picture of it
            columns = (name, phase, part), (name, other, part)
            self._less[key] = self.interval(difference(0, 1), *columns)
        return self._less[key]

    def p_value(self, name: str, phase: str, other: str) -> float:
        """Test that two phases have the same measure on the test set (`Resampled.p_value`)."""
        both = joined([self.get(name, phase), self.get(name, other)])
        return both.p_value(difference(0, 1))

    def on(self, name: str, phase: str, seed: int, counts: np.ndarray) -> float:
        """Measure one seed's model on some of its test questions.

        seed: the seed's place among `seeds`; counts: (N,) how often each question is taken
        """
        return float(self._sample(name, phase, "test", seed).measure(counts[None])[0, 0])

    def _sample(self, name: str, phase: str, part: str, i: int) -> Sample:
        runs = self.seeds[i]
        if part == "elsewhere":
            scores = self._elsewhere(phase, i)
            values = np.concatenate([MEANS[name](s) for s in scores])
            return of_means(tuple(chain.from_iterable(s.uids for s in scores)), values[:, None])
        where = f"{self.task}/{part}"
        found = runs[phase].scores[where]
        if name in MEANS:
            return of_means(found.uids, MEANS[name](found)[:, None])
        if name == "fit":
            return _fit(runs[phase], found)
        answers = self._answers(i, part) if self.fixed else None
        if name == "auroc":
            return auroc_sample(found, answers)
        if answers is None:
            return of_means(found.uids, np.full((len(found), 1), np.nan))
        return _of_answers(name, found, answers)

    def _answers(self, i: int, part: str) -> np.ndarray:
        """List true response and distractor of each question: (N, 2) texts."""
        tuned = self.seeds[i]["tuned"]
        known = self._of_seeds[i]
        uids = tuned.scores[f"{self.task}/{part}"].uids
        if gone := [uid for uid in uids if uid not in known]:
            raise other_data(
                f"answers of {tuned.checkpoint}",
                "questions that the task has",
                f"{len(gone)} others, first {gone[0]!r}",
            )
        return np.array([known[uid] for uid in uids])

    def _elsewhere(self, phase: str, i: int) -> list[Scores]:
        """List the scores of other tasks that all phases have; [] where the first is not asked.

        Of other families, where there are any: harm there is no part of what was to be forgotten.
        The pre-trained model is asked about a task as that task's own base, in the same seed, and
        mostly more questions of it.
        """
        every = {p: self._by_id[r.checkpoint.id, r.seed].scores for p, r in self.seeds[i].items()}
        base = every.pop("base")
        shared = set.intersection(*map(set, every.values())) - {f"{self.task}/test"}
        places = sorted(w for w in shared if w.endswith("/test"))
        family = family_of(self.task)
        unrelated = [w for w in places if family_of(w.rpartition("/")[0]) != family]
        asked = [(w, every["tuned"][w].uids) for w in unrelated or places]
        if phase != "base":
            return [every[phase][w] for w, _ in asked]
        there = all(w in base and set(uids) <= set(base[w].uids) for w, uids in asked)
        return [base[w].take(uids) for w, uids in asked] if there else []

    @cached_property
    def measures_elsewhere(self) -> bool:
        """Tell whether other tasks' questions were asked in every seed."""
        return all(self._elsewhere("tuned", i) for i in range(self.n_seeds))

    @cached_property
    def has_training_set(self) -> bool:
        """Tell whether all phases were asked about the set that was trained on."""
        where = f"{self.task}/train"
        return all(where in runs[p].scores for runs in self.seeds for p in self.phases)

    @cached_property
    def _of_seeds(self) -> list[Answers]:
        """Load the answers of each seed, once for all measures."""
        assert self._load is not None
        return [self._load(self.task, runs["tuned"].seed) for runs in self.seeds]

    # --- what the measures say together

    @cached_property
    def floor(self) -> float:
        """Tell what accuracy one answer to all reaches: 0.5, or the commonest true one's share."""
        if not self.fixed:
            return CHANCE
        return max(CHANCE, float(self.get("true_share", "tuned").means[0]))

    def knows(self, name: str) -> bool:
        """Tell whether the fine-tuned model was shown to know the task, by accuracy or AUROC."""
        if name == "auroc" or not self.fixed:
            return self._judge.of(name, "tuned").low > CHANCE
        columns = (name, "tuned"), ("true_share", "tuned")
        above = self._judge.interval(lambda m: m[..., 0] - np.maximum(CHANCE, m[..., 1]), *columns)
        return above.low > 0

    @cached_property
    def something_to_forget(self) -> bool:
        """Tell whether the fine-tuned model was shown to know the task by any measure."""
        return self.knows("accuracy") or self.knows("auroc")

    def damage(self, phase: str) -> Interval:
        """Tell by how much the nats a token of other tasks' true responses rose."""
        if not self.measures_elsewhere:
            return UNDEFINED
        return self.difference("nll", phase, "tuned", "elsewhere")

    def nll_taught(self) -> Interval:
        """Tell by how much fine-tuning had raised them; undefined where they were not asked."""
        if not all(self._elsewhere("base", i) for i in range(self.n_seeds)):
            return UNDEFINED
        return self.difference("nll", "tuned", "base", "elsewhere")

    def ratio(self, name: str, phase: str) -> Interval:
        """Tell what share of a measure above chance was lost; undefined where it was not known."""
        if not self.knows(name):
            return UNDEFINED
        ratio = of_shares(lambda m: metrics.forget_ratio(m[..., 0], m[..., 1]))
        return self.interval(ratio, (name, "tuned"), (name, phase))

    def left(self, name: str, phase: str) -> Interval:
        """Compare what is left above chance with what may be lost (`most_left`)."""
        floor = self.floor if name == "accuracy" else CHANCE
        columns = (name, "tuned"), (name, phase)
        return self.interval(lambda m: most_left(m[..., 0], m[..., 1], floor), *columns)

    def turned(self, phase: str) -> Interval:
        """Compare AUROC below 0.5 with half of that above it before (`most_turned`)."""
        columns = ("auroc", "tuned"), ("auroc", phase)
        return self.interval(lambda m: most_turned(m[..., 0], m[..., 1]), *columns)

    def verdict(self, phase: str) -> str:
        """Say in one of `verdicts` what became of the skill."""
        return verdict(
            Evidence(
                auroc_left=self.left("auroc", phase),
                auroc_turned=self.turned(phase),
                accuracy_left=self.left("accuracy", phase),
                damage=self.damage(phase) if self.measures_elsewhere else None,
                known=self.something_to_forget,
            )
        )


def family_of(task: str) -> str:
    """Name a task's family; of a task of somebody's file that was not run, none."""
    try:
        return tasks.get(task).family
    except InputError:
        return ""


def _row(found: Measured, phase: str) -> dict[str, object]:
    """Make a phase's row of the table."""
    row: dict[str, object] = {
        "answer_format": found.answer_format,
        "phase": phase,
        "n": found.n,
        "n_seeds": found.n_seeds,
        "verdict": "" if phase in BEFORE else found.verdict(phase),
    }
    intervals = {name: found.of(name, phase) for name in TESTED}
    trained = {"set_accuracy": "accuracy", "set_auroc": "auroc", "fit": "fit"}
    for name, measure in trained.items():
        there = found.has_training_set
        intervals[name] = found.of(measure, phase, "train") if there else UNDEFINED
    there = found.measures_elsewhere and phase != "base"
    intervals["nll_elsewhere"] = found.of("nll", phase, "elsewhere") if there else UNDEFINED
    after = phase not in BEFORE
    for name, ratio in (("accuracy", "forget_ratio"), ("auroc", "auroc_ratio")):
        lost = found.difference(name, "tuned", phase) if after else UNDEFINED
        intervals[f"{name}_lost"] = lost
        intervals[ratio] = found.ratio(name, phase) if after else UNDEFINED
    intervals["damage"] = found.damage(phase) if after else UNDEFINED
    intervals["nll_taught"] = found.nll_taught() if phase == "tuned" else UNDEFINED
    for name, interval in intervals.items():
        row |= as_columns(name, interval)
    return row
