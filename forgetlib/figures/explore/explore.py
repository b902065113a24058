"""Look at any stored result: which there are, what became of a task, and of each question.

    stored = explore.Stored("embedded")            # or the file of a study of one's own
    case = stored.case("gemma-3-270m", "sst2", "random labels")
    explore.table(case), explore.questions(case)   # numbers; a question a row
    explore.text(case, uid)                        # a single question

Nothing is computed, and neither torch nor a study's settings are needed: a folder of results is
enough. `picture` draws, `controls` has the widgets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from forgetlib import metrics, studies
from forgetlib.data import splits, tasks
from forgetlib.data.base import Example
from forgetlib.data.sources import Source
from forgetlib.errors import InputError, require_one_of
from forgetlib.figures.bootstrap import Measure, Sample, difference, joined, of_means, resample
from forgetlib.figures.intervals import UNDEFINED, as_columns
from forgetlib.figures.join import PHASES, but_seed
from forgetlib.figures.measures import auroc_sample, trained_towards
from forgetlib.figures.names import method_title, title
from forgetlib.files import root
from forgetlib.forgetting.labels import LABELS
from forgetlib.measuring.base import Scores
from forgetlib.runs.answers import Answers, of, stored_answers
from forgetlib.runs.questions import stored_questions
from forgetlib.runs.records import Result
from forgetlib.runs.rows import is_pack
from forgetlib.runs.specs import PLAIN, Checkpoint
from forgetlib.runs.store import Store

STEPS = {  # what is compared: (before, after)
    "forgetting: fine-tuned, then after": ("tuned", "forgotten"),
    "fine-tuning: pre-trained, then fine-tuned": ("base", "tuned"),
    "both: pre-trained, then after": ("base", "forgotten"),
}
NAMES = {"base": "pre-trained", "tuned": "fine-tuned", "forgotten": "after"}
PARTS = {"train": "forgetting set", "test": "new questions"}
MEASURES = ("accuracy", "auroc", "confidence")
FATES = {  # of a question: right before, right after
    "lost": (True, False),
    "kept": (True, True),
    "gained": (False, True),
    "never right": (False, False),
}
VARIATION = re.compile(r"-[0-9a-f]{8}$")  # the end of a variation's name: see `studies.study`


def there() -> list[str]:
    """List the studies of which results are stored: the named ones, then all others."""
    folders = [*root().glob("figures/*/results"), *root().glob(".work/*/results")]
    # In-context regression keeps tables of another kind in folders of the same name.
    found = {f.parent.name for f in folders if any(map(is_pack, f.glob("*.parquet")))}
    named = [name for name in studies.STUDIES if name in found]
    return named + sorted(found - set(named))


@dataclass(frozen=True)
class Case:
    """Hold one model, task and method: what each seed's models said of the task's questions.

    seeds: the results of each phase ("base", "tuned", "forgotten"), one dictionary a seed
    answers, texts: by seed and uid, where they are stored
    """

    study: str
    model: str
    task: str
    method: str
    seeds: tuple[Mapping[str, Result], ...]
    answers: Mapping[int, Answers]
    texts: Mapping[int, Mapping[str, Example]]


class Stored:
    """Read what is stored of a study: its packs and its work in progress."""

    def __init__(self, study: str) -> None:
        if study.endswith(".py"):  # which may add tasks and methods, too
            study = studies.resolve(study).name
        require_one_of("study with stored results", study, there(), "Compute it: forgetlib run.")
        self.study = study
        self._named = VARIATION.sub("", study)
        self._store = Store(root() / f"figures/{self._named}/results", root() / f".work/{study}")

    @cached_property
    def _results(self) -> dict[tuple[str, int], Result]:
        """Find by checkpoint and seed what was asked of it; no number is read yet."""
        found: dict[tuple[str, int], list[tuple]] = {}
        for checkpoint, m, _ in self._store.sources():
            if m.readout == Scores.name and m.view == PLAIN:
                found.setdefault((checkpoint.id, m.seed), []).append((checkpoint, m))
        return {
            (_, seed): Result(of[0][0], seed, tuple(self._store.read(c, m) for c, m in of))
            for (_, seed), of in found.items()
        }

    @cached_property
    def _cases(self) -> dict[tuple[str, str], dict[str, list[Result]]]:
        """Find by model and task, and by method, the models that were made to forget."""
        found: dict[tuple[str, str], list[tuple[str, Result]]] = {}
        for result in self._results.values():
            checkpoint = result.checkpoint
            shuffled = any(c.data and c.data.shuffled for c in checkpoint.lineage)
            if checkpoint.start is None or shuffled:
                continue  # pre-trained or fine-tuned, or never taught the task
            asked = {r.measurement.task for r in result.records if r.measurement.split == "test"}
            for task in sorted(asked & set(checkpoint.lineage[0].tasks)):
                found.setdefault((checkpoint.model, task), []).append((task, result))
        return {key: _by_method(results) for key, results in sorted(found.items())}

    def models(self) -> list[str]:
        """List the models of which something is stored."""
        return list(dict.fromkeys(model for model, _ in self._cases))

    def tasks(self, model: str) -> list[str]:
        """List the tasks that a model was taught, and made to forget in some way."""
        return [task for of_model, task in self._cases if of_model == model]

    def methods(self, model: str, task: str) -> list[str]:
        """List what was done to the model after it was taught the task; its own labels first."""
        return list(self._cases[model, task])

    def case(self, model: str, task: str, method: str) -> Case:
        """Read one model, task and method: all seeds."""
        require_one_of(f"model of {self.study!r}", model, self.models())
        require_one_of(f"task of {self.study!r}", task, self.tasks(model))
        require_one_of(f"method of {self.study!r}", method, self.methods(model, task))
        seeds = []
        for result in self._cases[model, task][method]:
            checkpoint = result.checkpoint
            before = (checkpoint.base.id, result.seed), (checkpoint.lineage[0].id, result.seed)
            runs = [self._results.get(key) for key in before]
            if None not in runs:  # else the study is not complete
                of_task = [run.of(task) for run in (*runs, result) if run is not None]
                seeds.append(dict(zip(PHASES, of_task, strict=True)))
        if not seeds:
            raise InputError(
                f"{method} of {model} on {task}",
                expected="the model before it to be stored, too",
                found="none that was asked the same questions",
                do="Finish the study: forgetlib run.",
            )
        numbers = [runs["forgotten"].seed for runs in seeds]
        texts = {seed: self._texts(task, seed) for seed in numbers}
        answers = {seed: self._answers(task, seed, texts[seed]) for seed in numbers}
        return Case(self.study, model, task, method, tuple(seeds), answers, texts)

    def _texts(self, task: str, seed: int) -> dict[str, Example]:
        """Find the questions by uid: stored ones, or those that the task itself makes."""
        for name in (self.study, self._named):
            if (found := stored_questions(root() / "figures" / name, task, seed)) is not None:
                return {e.uid: e for e in (*found.train, *found.test)}
        known = _known(task)
        if known is None or _has_to_be_fetched(known):
            return {}
        whole = splits.split(task, seed)
        return {e.uid: e for e in (*whole.train, *whole.test)}

    def _answers(self, task: str, seed: int, texts: Mapping[str, Example]) -> Answers:
        """Find the fixed answers of questions; {} of a task with free answers, or where unknown."""
        known = _known(task)
        if known is None or not known.has_fixed_answers:
            return {}
        folder = root() / "figures" / self._named
        return of(texts.values()) if texts else stored_answers(folder, task, seed) or {}


def _known(task: str) -> tasks.Task | None:
    """Find a task by name; None for one whose file is not imported here."""
    try:
        return tasks.get(task)
    except InputError:
        return None


def _has_to_be_fetched(task: tasks.Task) -> bool:
    rows = task.rows
    fetched = isinstance(rows, Source) and bool(rows.embedded or rows.repository)
    return fetched or bool(task.splits) or task.name.startswith("harness:")


def _by_method(found: Iterable[tuple[str, Result]]) -> dict[str, list[Result]]:
    """Group results that differ in the seed alone, and name each group as people would."""
    groups: dict[Checkpoint, list[Result]] = {}
    alike: dict[str, list[Checkpoint]] = {}
    for task, result in found:
        key = but_seed(result.checkpoint)
        if key not in groups:
            alike.setdefault(_method_name(task, key), []).append(key)
        groups.setdefault(key, []).append(result)
    named: dict[str, list[Result]] = {}
    for name in sorted(alike, key=lambda name: (name != "random labels", " of " in name, name)):
        for text, key in zip(_told_apart(name, alike[name]), alike[name], strict=True):
            named[text] = sorted(groups[key], key=lambda r: r.seed)
    return named


def _method_name(task: str, checkpoint: Checkpoint) -> str:
    """Write what was done after fine-tuning: "random labels", "random labels of PIQA".

    Where more than the task was taught at once, as in studies with a shared start, that is said.
    """
    first, *after = checkpoint.lineage
    said = []
    for step in after:
        name = method_title(step.kind)
        if step.tasks and step.tasks != (task,):
            name += f" of {', '.join(map(title, step.tasks))}"
        elif step.data and step.n != first.n:
            name += f", {step.n} questions"
        said.append(name)
    taught = f", taught {len(first.tasks)} tasks" if len(first.tasks) > 1 else ""
    return ", then ".join(said) + taught


def _told_apart(name: str, several: list[Checkpoint]) -> list[str]:
    """Add to a name what sets checkpoints apart that are called alike."""
    details = [_details(checkpoint) for checkpoint in several]
    differing = [k for k in details[0] if len({of.get(k) for of in details}) > 1]
    texts = [", ".join([name, *(f"{k} {of[k]}" for k in differing if of.get(k))]) for of in details]
    often = Counter(texts)
    return [text if often[text] == 1 else f"{text} ({i})" for i, text in enumerate(texts, 1)]


def _details(checkpoint: Checkpoint) -> dict[str, str]:
    """List settings in which studies differ, of the checkpoint and of what it started from."""
    found = {"weights:": checkpoint.tuning, "questions:": str(checkpoint.n)}
    for text, made in (("", checkpoint), ("taught at ", checkpoint.lineage[0])):
        training = made.method.settings() if made.method else None
        found[f"{text}rate"] = f"{training.learning_rate:g}" if training else ""
        found[f"{text}epochs"] = str(training.epochs) if training else ""
    found["set:"] = str(checkpoint.data.skip) if checkpoint.data and checkpoint.data.skip else ""
    return found


# --- numbers


def _aligned(case: Case, part: str) -> Iterator[tuple[Result, dict[str, Scores]]]:
    """Yield each seed's last model, and scores by phase of the questions that all were asked."""
    where = f"{case.task}/{part}"
    for runs in case.seeds:
        if not all(where in run.scores for run in runs.values()):
            continue
        found = {phase: run.scores[where] for phase, run in runs.items()}
        shared = set.intersection(*(set(scores.uids) for scores in found.values()))
        if shared:
            order = [uid for uid in found["forgotten"].uids if uid in shared]
            of_shared = {phase: scores.take(order) for phase, scores in found.items()}
            yield runs["forgotten"], of_shared


def table(case: Case, step: str = next(iter(STEPS))) -> pd.DataFrame:
    """Measure a case: accuracy, AUROC and confidence in each phase, with 95 % intervals.

    step: of `STEPS`, what the change is of

    A row a part (forgetting set, new questions) and measure. Columns: model, eval_task, method,
    part, measure, n (questions, all seeds), and base, tuned, forgotten and change (after less
    before) with _low and _high.
    """
    require_one_of("step", step, STEPS)
    before, after = STEPS[step]
    rows = []
    for part, name in PARTS.items():
        seeds = list(_aligned(case, part))
        for measure in MEASURES:
            row: dict[str, object] = {"model": case.model, "eval_task": case.task}
            row |= {"method": case.method, "part": name, "measure": measure}
            row["n"] = sum(len(scores["base"]) for _, scores in seeds)
            found = {
                phase: resample([_sample(case, measure, r.seed, of[phase]) for r, of in seeds])
                for phase in PHASES
                if seeds
            }
            for phase in PHASES:
                interval = found[phase].interval(Measure(0)) if found else UNDEFINED
                row |= as_columns(phase, interval)
            change = UNDEFINED
            if found:
                both = joined([found[before], found[after]])
                change = both.interval(difference(1, 0))
            rows.append(row | as_columns("change", change))
    return pd.DataFrame(rows)


def _sample(case: Case, measure: str, seed: int, scores: Scores) -> Sample:
    if measure != "auroc":
        of_each = metrics.correct if measure == "accuracy" else metrics.confidence
        return of_means(scores.uids, of_each(scores)[:, None])
    known = case.answers.get(seed, {})
    fixed = bool(known) and all(uid in known for uid in scores.uids)
    return auroc_sample(scores, np.array([known[u] for u in scores.uids]) if fixed else None)


def questions(case: Case) -> pd.DataFrame:
    """List every question: its confidence in each phase, and what it was trained on.

    Columns: model, eval_task, method, part, seed, uid, label ("true", "distractor", or "" where it
    was not trained on, or not towards a label), and base, tuned, forgotten: p(true) / (p(true) +
    p(distractor)).
    """
    parts = []
    for part, name in PARTS.items():
        for last, found in _aligned(case, part):
            columns = {"model": case.model, "eval_task": case.task, "method": case.method}
            scores = found["forgotten"]
            named = {**columns, "part": name, "seed": last.seed, "uid": scores.uids}
            named["label"] = _labels(case, last.checkpoint, scores, part)
            measured = {phase: metrics.confidence(of) for phase, of in found.items()}
            parts.append(pd.DataFrame(named | measured))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _labels(case: Case, checkpoint: Checkpoint, found: Scores, part: str) -> list[str]:
    own = checkpoint.tasks == (case.task,) and checkpoint.kind in LABELS
    if part == "test" or not own:
        return [""] * len(found)
    towards = trained_towards(checkpoint, found)
    return ["true" if true else "distractor" for true in towards == found.labels]


def fates(table: pd.DataFrame, step: str = next(iter(STEPS))) -> pd.Series:
    """Say of each question whether it was kept, lost, gained or never right.

    table: from `questions`; step: of `STEPS`
    """
    before, after = (table[phase] > metrics.CHANCE for phase in STEPS[step])
    named = {right: name for name, right in FATES.items()}
    both = zip(before, after, strict=True)
    return pd.Series([named[bool(b), bool(a)] for b, a in both], table.index, dtype=object)


def sample_of(
    table: pd.DataFrame, step: str = next(iter(STEPS)), fate: str = "", part: str = ""
) -> pd.DataFrame:
    """List the questions of one fate and part, those whose confidence fell most first.

    table: from `questions`; fate: of `FATES`, part: of `PARTS`' names; "": all
    """
    before, after = STEPS[step]
    chosen = table.assign(fate=fates(table, step), change=table[after] - table[before])
    for column_, value in (("fate", fate), ("part", part)):
        chosen = chosen[chosen[column_] == value] if value else chosen
    return chosen.sort_values(["change", "uid"], kind="stable").reset_index(drop=True)
