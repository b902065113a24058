"""Find the ladders of a study of methods in its results: which model is on which rung."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cached_property, partial

from forgetlib import metrics
from forgetlib.figures.join import by_checkpoint
from forgetlib.figures.methods.rungs import (
    DIRECT,
    DIRECTIONS,
    KINDS,
    SIGNED,
    TWIN,
    Ladder,
    Model,
    Rung,
    Seed,
    Shared,
    exchanged,
)
from forgetlib.forgetting.base import Method, Training
from forgetlib.forgetting.dose import dose_of
from forgetlib.forgetting.quantise import Quantise
from forgetlib.measuring.base import LogitLens, Scores
from forgetlib.metrics import CHANCE
from forgetlib.runs.answers import Answers, Load, fixed, texts_of
from forgetlib.runs.ladder import ANEW, FORGOTTEN, KNOWN, LOCKED, MOVED, ORACLE, LadderStudy
from forgetlib.runs.records import Result
from forgetlib.runs.specs import PLAIN, Checkpoint

FORMS = {
    "upper": "capitals",
    "lower": "small letters",
    "leet": "leetspeak",
    "pig_latin": "Pig Latin",
    "spaced": "letters apart",
    "chat": "chat",
}


def of_view(view: str) -> Rung:
    """Name the rung on which questions are asked through a view."""
    if view == PLAIN:
        return DIRECT
    found = re.fullmatch(r"few_shot\((\d+), \d+, '(\w+)'\)", view)
    if found is None:
        return Rung(FORMS.get(view, re.sub(r"\((.*)\)", r" \1", view)), "form")
    k = int(found[1])
    if found[2] == "true":
        return Rung(f"{k} examples", "context", k)
    return Rung(f"{k} examples, random labels", "control")


def relearned(n: int, labels: str = "true") -> Rung:
    """Name the rung of a model that was taught again with so many labels."""
    if labels == "true":
        return Rung(f"relearned from {n}", "relearned", n)
    return Rung(f"relearned from {n}, random labels", "control")


def quantised(method: Quantise) -> Rung:
    """Name the rung of a model whose weights are rounded."""
    return Rung(f"{method.bits} bits", "quantised")


def layer_of(lens: LogitLens, answers: Answers | None, skip: int = 0) -> int:
    """Choose the layer that tells true responses from false ones best.

    answers: of the lens's questions, where they are fixed, so that no bias towards one decides
    skip: how many of its first questions to leave out
    """
    margins = metrics.lens_margins(lens.log_likelihoods, lens.labels)[:, skip:]
    return metrics.best_layer(margins, texts_of(answers, lens.uids[skip:]))


def method_names(study: LadderStudy) -> dict[Method, str]:
    """Name every method of a study; of those that are called alike also what sets them apart.

    "npo(learning_rate=5e-05)" where NPO is tried with another learning rate, too; "npo(every=1)"
    where its dose is looked at after other numbers of steps.
    """
    every = (*study.every_method, *study.more_methods)
    found = {}
    for method in every:
        name = method.describe()
        own = _settings(method.settings())
        alike = [_settings(m.settings()) for m in every if m.describe() == name]
        told = [
            f"{setting}={value!r}"
            for setting, value in own.items()
            if any(other.get(setting) != value for other in alike)
        ]
        if told:
            kind, _, settings = name.removesuffix(")").partition("(")
            name = f"{kind}({', '.join([*([settings] if settings else []), *told])})"
        found[method] = name
    return found


def _settings(training: Training | None) -> dict[str, object]:
    """List a training's settings, and those of its dose; {}: there is no training."""
    both = (training, training.until) if training else ()
    found = {f.name: getattr(of, f.name) for of in both if of for f in fields(of)}
    return {name: value for name, value in found.items() if name != "until"}


def rungs(study: LadderStudy) -> list[Rung]:
    """List a study's rungs: by kind, and by how many labels they take."""
    found = [DIRECT, *map(quantised, study.quantised), *map(of_view, study.views)]
    found += map(relearned, study.n_relearned)
    found += [relearned(max(study.n_relearned), "random")] if study.n_relearned else []
    return sorted(found, key=lambda r: (KINDS.index(r.kind), r.labels))


def of_study(
    study: LadderStudy, results: Iterable[Result], answers: Load
) -> dict[tuple[str, str], Ladder]:
    """Make the ladder of each skill and method of which a known and a forgotten model are there.

    The never-taught models of a seed are pooled over methods: those of one method are few, and lie
    farther apart than their questions tell. The one of a method's own is its twin, beside the
    pool. Harm elsewhere is that to tasks that no method retains,
    of other families than the skill's where there are any: those have nothing to do with it.
    """
    by_id, names = by_checkpoint(results), method_names(study)
    found: dict[tuple[str, str], list[Seed]] = {}
    for task, seed in study.with_seeds(study.seeds):
        load = partial(fixed, answers, task, seed)
        of_seed = _Models(study, by_id, task, seed, load)
        never = list(of_seed.never_taught())
        for method in study.of(task, seed):
            models: dict[str, tuple[Model, ...]] = {}
            for role in (KNOWN, FORGOTTEN, MOVED, LOCKED):
                model = of_seed.model(role, method)
                if model is not None:
                    models[role] = (model,)
            if never:
                models[ORACLE] = tuple(never)
            if (twin := of_seed.model(ORACLE, method)) is not None:
                models[TWIN] = (twin,)
            if shown := tuple(of_seed.anew(method)):
                models[ANEW] = shown
            if KNOWN in models and FORGOTTEN in models:
                seeds = found.setdefault((task, names[method]), [])
                layer, at_dose = of_seed.layer(method), of_seed.at_dose(method)
                seeds.append(Seed(models, of_seed.answers, layer, at_dose))
    shared: Shared = {}
    every = rungs(study)
    control = study.lock is not None
    return {
        key: Ladder(_complete(s), every, shared=shared, has_control=control)
        for key, s in found.items()
    }


def _complete(seeds: list[Seed]) -> list[Seed]:
    """Keep the seeds that have every rung which any has, where there are two; else all.

    A rung is compared with others in the same seeds, and is not left out because of a seed whose
    models are not taught again yet. A single seed has no interval over seeds: its rungs are left
    out, where others have fewer. Of models that were changed by another task nothing but their
    answers is asked: a seed may lack them.
    """
    compared = (KNOWN, FORGOTTEN, ORACLE, LOCKED)
    beside = {rung.name for rung in (SIGNED, *DIRECTIONS)}  # the ladder, and not of it
    there = [
        {
            (role, name)
            for role in compared
            for m in seed.models.get(role, ())
            for name in m.rungs.keys() - beside
        }
        for seed in seeds
    ]
    every = set().union(*there)
    complete = [s for s, own in zip(seeds, there, strict=True) if own == every]
    return complete if len(complete) > 1 else seeds


class _Models:
    """Find the models of one skill and seed."""

    def __init__(
        self,
        study: LadderStudy,
        by_id: Mapping[tuple[str, int], Result],
        task: str,
        seed: int,
        load: Callable[[], Answers | None],
    ) -> None:
        self.study, self.by_id, self.task, self.seed = study, by_id, task, seed
        self._load = load

    @cached_property
    def answers(self) -> Answers | None:
        """Read what is true and false of each question, where answers are fixed."""
        return self._load()

    @cached_property
    def taught(self) -> Model | None:
        """Find the known model, which is the same one for every method."""
        return self._of(self.study.taught(self.task, self.seed))

    @cached_property
    def locked(self) -> Model | None:
        """Find the model whose skill is hidden on purpose, which is the same for every method."""
        found = self.study.locked(self.task, self.seed)
        return None if found is None else self._of(found)

    def model(self, role: str, method: Method) -> Model | None:
        """Find the model of a role; None where it is not there."""
        if role == KNOWN:
            return self.taught
        if role == MOVED and not self.study.moved_by:
            return None
        if role == LOCKED:
            return self.locked
        return self._of(self.study.after(method, self.task, self.seed, role), method)

    def never_taught(self) -> Iterator[Model]:
        """Find the models that were never taught the skill.

        The pre-trained one; that which was taught random labels; and those that were then made to
        forget these.
        """
        study = self.study
        base = self._of(Checkpoint(study.models[0], dtype=study.dtype))
        first = self._of(study.taught(self.task, self.seed, oracle=True))
        others = (self.model(ORACLE, m) for m in study.of(self.task, self.seed))
        yield from (model for model in (base, first, *others) if model is not None)

    def anew(self, method: Method) -> Iterator[Model]:
        """Find the models that never knew the skill, and were shown its true labels."""
        found = map(self._of, self.study.anew(method, self.task, self.seed))
        yield from (model for model in found if model is not None)

    def _of(self, checkpoint: Checkpoint, method: Method | None = None) -> Model | None:
        where = f"{self.task}/test"
        result = self.by_id.get((checkpoint.id, self.seed))
        if result is None or where not in result.scores:
            return None
        found: dict[str, tuple[Scores, ...]] = {DIRECT.name: (result.scores[where],)}
        if (own := self._set_auroc(result)) is not None:  # below 0.5 it knows their opposite
            plain = result.scores[where]
            found[SIGNED.name] = (exchanged(plain) if own < CHANCE else plain,)
        for view in self.study.views:
            if where in (seen := result.seen(view)):
                found[of_view(view).name] = (seen[where],)
        # A hook leaves the weights as they were: what is rounded or taught again is the model
        # without it.
        hooked = method is not None and method.kind == "hook"
        start = checkpoint if checkpoint.method is not None else None
        further = [] if hooked else self._from(start)
        for rung, of_draws in (*further, *self._without(checkpoint, method)):
            draws = [self.by_id.get((c.id, self.seed)) for c in of_draws]
            there = tuple(r.scores[where] for r in draws if r is not None)
            if there:
                found[rung.name] = there
        places = [f"{t}/test" for t in self.study.away(self.task)]
        elsewhere = tuple(result.scores[w] for w in places if w in result.scores)
        probed = None
        # The pre-trained model was asked about every skill.
        if (probe := result.of(self.task).probe) is not None:
            at = list(probe.layers).index(probe.paper_layer)
            probed = probe.correct[at].mean(-1)
        lens = result.lenses.get(where)
        return Model(found, elsewhere, probed, lens.log_likelihoods if lens else None)

    def _set_auroc(self, result: Result) -> float | None:
        """Measure AUROC on a model's own questions, by their true responses; None: not asked."""
        scores = result.scores.get(f"{self.task}/train")
        if scores is None:
            return None
        if self.answers is not None and not self.answers.keys() >= set(scores.uids):
            return None
        margins = metrics.margins(scores)
        return float(metrics.auroc(margins, texts_of(self.answers, scores.uids)))

    def at_dose(self, method: Method) -> bool | None:
        """Tell whether the forgotten model reached the dose; None: neither looked at nor asked.

        By the checks of its training; without these, by its own questions in the end.
        """
        result = self.by_id.get((self.study.after(method, self.task, self.seed).id, self.seed))
        if result is None:
            return None
        dose = dose_of(method)
        if result.dose is not None:
            return result.dose.reached(dose.most, dose.checks)
        end = self._set_auroc(result)
        return None if end is None else max(end, 1 - end) <= dose.most

    def layer(self, method: Method) -> int | None:
        """Choose the layer that tells true from false best in the forgotten model.

        By training questions that are in no forgetting set. None where it was not asked about
        these, or where they are not stored yet, as of a study that is being computed.
        """
        study, where, answers = self.study, f"{self.task}/train", self.answers
        result = self.by_id.get((study.after(method, self.task, self.seed).id, self.seed))
        if result is None or where not in result.lenses:
            return None
        lens = result.lenses[where]
        if answers is not None and not answers.keys() >= set(lens.uids[study.n_train :]):
            return None
        return layer_of(lens, answers, skip=study.n_train)

    def _without(
        self, checkpoint: Checkpoint, method: Method | None
    ) -> Iterator[tuple[Rung, list[Checkpoint]]]:
        """List the forgotten model without the direction in which it was moved, and its control."""
        of = self.study
        if not of.inside or method is None:
            return
        if method.kind != "hook" and checkpoint == of.after(method, self.task, self.seed):
            for rung, random in zip(DIRECTIONS, (False, True), strict=True):
                yield rung, [of.without_direction(checkpoint, random=random)]

    def _from(self, start: Checkpoint | None) -> Iterator[tuple[Rung, list[Checkpoint]]]:
        """List what starts from a model: it with rounded weights, and taught again.

        start: None is the pre-trained model
        """
        of, seed = self.study, self.seed
        for method in of.quantised:
            yield quantised(method), [of.rounded(start, method)]
        for n in of.n_relearned:
            draws = range(of.draws)
            yield relearned(n), [of.relearned(start, self.task, n, d, seed=seed) for d in draws]
        if of.n_relearned:
            n = max(of.n_relearned)
            last = of.relearned(start, self.task, n, 0, "random", seed=seed)
            yield relearned(n, "random"), [last]
