"""Find out what is left of a skill in one model that another had, for any two models.

Long because what is asked, refused and found in one comparison is one subject.

    forgetlib compare --original F --unlearned G --task sst2

F knows a skill, and G is F after somebody tried to remove it: two folders in the Hugging Face
layout, hub ids, adapters or embedded models. Nothing of how G was made has to be known. The skill
is asked for directly, in other forms, with examples in the prompt, and after relearning from a few
labels (`figures.methods.rungs`). With a third model that was never taught the skill (`--retrained
C`), what relearning gives to anybody is told from what was hidden; without one the verdict is
weaker.

What relearning changes is in memory only: no model's folder is written to.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import forgetlib
from forgetlib import files
from forgetlib.data import splits, tasks, views
from forgetlib.errors import InputError, require, require_name, require_one_of, require_whole
from forgetlib.figures import report
from forgetlib.figures.bootstrap import difference
from forgetlib.figures.methods import rungs
from forgetlib.figures.methods.ladders import layer_of, of_view, quantised, relearned
from forgetlib.figures.methods.rungs import DIRECT, KINDS, TWIN, Ladder, Model, Rung, Seed
from forgetlib.figures.numbers import estimate
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.quantise import Quantise
from forgetlib.measuring.base import LogitLens, Scores
from forgetlib.models.catalogue import DTYPES, TUNINGS
from forgetlib.runs import answers, content, cost, local
from forgetlib.runs.ladder import FORGOTTEN, KNOWN, ORACLE, RELEARNING, relearning_of
from forgetlib.runs.records import Job, Result
from forgetlib.runs.specs import PLAIN, Checkpoint, Data, Measurement
from forgetlib.runs.store import Store

FORMS: tuple[str, ...] = (
    *("upper", "leet", "pig_latin", "template(1)", "chat", "verbaliser('blick', 'dax')"),
    *("few_shot(2)", "few_shot(8)", "few_shot(8, 0, 'random')"),  # the last is the control
)
QUANTISED = (8, 4)
ELSEWHERE = ("arc_easy", "piqa", "sciq")
# For a first look.
QUICK = {
    "n": 80,
    "forms": ("upper", "few_shot(4)"),
    "quantised": (),
    "n_relearned": (8,),
    "draws": 1,
    "n_elsewhere": 20,
}
TAUGHT = 0.02  # a change of AUROC that relearning has to make somewhere, to be a test
SAMPLE = "The 7 quick foxes: jumped over -- a lazy dog's (blue) house?\n  Answer: yes/no"


@dataclass(frozen=True)
class Comparison:
    """Name two models of one origin, or three, and what to ask them.

    original, unlearned: the model that knows the skills, and the one that shall have lost them
    retrained: one that was never taught them, "": none
    tasks: the skills
    n: test questions of each, as an upper bound; seed: of their split
    forms: views in which they are asked too; those that a task's questions do not have are left out
    quantised: bits to which weights are rounded, 8 or 4, before the models are asked once more
    relearning, n_relearned, draws: how the skill is taught again, from so many labels, with so many
        different sets of questions; the number of steps is the same for all (`relearning_steps`)
    elsewhere: tasks of which `n_elsewhere` questions are asked: what was damaged
    lens: training questions on which a layer is chosen, whose answers are then read through the
        logit lens; 0: hidden states are not looked into, as long answers take it long
    """

    original: str
    unlearned: str
    tasks: tuple[str, ...]
    retrained: str = ""
    n: int = 200
    seed: int = 0
    forms: tuple[str, ...] = FORMS
    quantised: tuple[int, ...] = QUANTISED
    relearning: Training = RELEARNING
    relearning_steps: int = 16
    n_relearned: tuple[int, ...] = (8, 128)
    draws: int = 2
    elsewhere: tuple[str, ...] = ELSEWHERE
    n_elsewhere: int = 40
    lens: int = 0
    tuning: str = "body"
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("original", "unlearned", *(["retrained"] if self.retrained else [])):
            require_name(name, getattr(self, name))
            folder = Path(getattr(self, name))
            if folder.is_dir():
                object.__setattr__(self, name, str(folder.resolve()))
        require("relearning", self.relearning, Training, "a Training")
        require_one_of("tuning", self.tuning, TUNINGS)
        require_one_of("dtype", self.dtype, DTYPES)
        for name in ("n", "draws", "relearning_steps", "n_elsewhere"):
            require_whole(name, getattr(self, name), 1)
        for n in self.n_relearned:
            require_whole("n_relearned", n, 1)
        require_whole("lens", self.lens)
        if not self.tasks:
            raise InputError("tasks", expected="at least one", found="none", do="Name a task.")
        for task in (*self.tasks, *self.elsewhere):
            tasks.get(task)
        for form in self.forms:
            views.get(form)
        for bits in self.quantised:
            Quantise(bits)

    @property
    def models(self) -> dict[str, str]:
        """Tell the model of each role."""
        found = {KNOWN: self.original, FORGOTTEN: self.unlearned}
        return found | ({ORACLE: self.retrained} if self.retrained else {})

    # --- what is computed

    def forms_of(self, task: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """List the forms in which a task can be asked, and say why not in the others."""
        asked = splits.load(task, "test", self.n, self.seed)
        able, refused = [], {}
        for form in self.forms:
            try:
                views.apply(form, asked, self.seed)
                able.append(views.get(form).name)
            except InputError as error:
                refused[form] = f"expected {error.expected}, found {error.found}"
        return tuple(able), refused

    def jobs(self) -> tuple[Job, ...]:
        """List what is to be computed, model by model."""
        found = []
        for role, model in self.models.items():
            checkpoint = Checkpoint(model, dtype=self.dtype)
            for task in self.tasks:
                about = task, "test", self.n, self.seed
                if self.lens:
                    found.append(Job(checkpoint, (Measurement("logit_lens", *about),)))
                if self.lens and role == FORGOTTEN:
                    chosen_on = Measurement("logit_lens", task, "train", self.lens, self.seed)
                    found.append(Job(checkpoint, (chosen_on,)))
                found.append(Job(checkpoint, (Measurement("scores", *about),)))
                # By itself, as a form may be too long for the model, or have equal choices for it.
                forms = [Measurement("scores", *about, view=v) for v in self.forms_of(task)[0]]
                found += [Job(checkpoint, (form,)) for form in forms]
            found += [Job(checkpoint, (self._elsewhere(t),)) for t in self._others]
            for task in self.tasks:
                test = Measurement("scores", task, "test", self.n, self.seed)
                found += [Job(self.rounded(model, bits), (test,)) for bits in self.quantised]
                for n in self.n_relearned:
                    for draw in range(self.draws):
                        found.append(Job(self.relearned(model, task, n, draw), (test,)))
        return tuple(found)

    @property
    def _others(self) -> tuple[str, ...]:
        return tuple(t for t in self.elsewhere if t not in self.tasks)

    def _elsewhere(self, task: str) -> Measurement:
        return Measurement("scores", task, "test", self.n_elsewhere, self.seed)

    def relearned(self, model: str, task: str, n: int, draw: int) -> Checkpoint:
        """Teach a model a skill, or teach it again, by so many labelled questions."""
        method = Labels("true", relearning_of(self.relearning, self.relearning_steps, n))
        data = Data((task,), n, self.seed, skip=draw * max(self.n_relearned))
        return Checkpoint(model, method, None, data, self.seed, self.tuning, self.dtype)

    def rounded(self, model: str, bits: int) -> Checkpoint:
        """Round a model's weights."""
        return Checkpoint(model, Quantise(bits), tuning="body", dtype=self.dtype)

    # --- what is wrong before anything is computed

    def check(self) -> None:
        """Raise InputError where these models or tasks cannot be compared."""
        contents = {role: content.of_model(model) for role, model in self.models.items()}
        for role, other in ((FORGOTTEN, KNOWN), (ORACLE, KNOWN), (ORACLE, FORGOTTEN)):
            same = role in contents and contents[role] == contents[other] is not None
            if same or (role in contents and self.models[role] == self.models[other]):
                raise InputError(
                    f"models {self.models[other]!r} and {self.models[role]!r}",
                    expected="two models, with different weights",
                    found="the same one twice",
                    do="Name the model before, and the one after somebody tried to remove a skill.",
                )
        sizes = {
            role: cost.shape(content.whole_model(model)) for role, model in self.models.items()
        }
        for role, size in sizes.items():
            if size != sizes[KNOWN]:
                raise InputError(
                    f"model {self.models[role]!r}",
                    expected=f"the sizes of {self.original!r}: {sizes[KNOWN]}",
                    found=size,
                    do="Compare models of one origin: the one must come from the other.",
                )
        self._check_tokenizers()
        needed = self.draws * max(self.n_relearned, default=0)
        for task in self.tasks:
            if len(pool := splits.split(task, self.seed).train) < needed:
                raise InputError(
                    f"training questions of task {task!r}",
                    expected=f"{needed}, for {self.draws} sets of {max(self.n_relearned)} to "
                    "relearn from, without a question in two",
                    found=f"{len(pool)}",
                    do="Relearn from fewer, or take fewer draws.",
                )

    def _check_tokenizers(self) -> None:
        """Raise InputError where a text is other tokens to one of the models."""
        texts = [SAMPLE]
        for task in self.tasks:
            asked = splits.load(task, "test", 20, self.seed)
            texts += [f"{e.prompts[i]} {e.choices[i]}" for e in asked for i in (0, 1)]
        first = None
        for role, model in self.models.items():
            tokenizer = cost.tokenizer(model) or cost.tokenizer(content.whole_model(model))
            if tokenizer is None:  # not here yet: what is downloaded for it has its own checks
                continue
            tokens = [tokenizer(text).input_ids for text in texts]
            first = first or (role, tokens)
            if tokens != first[1]:
                raise InputError(
                    f"tokenizer of {model!r}",
                    expected=f"that of {self.models[first[0]]!r}",
                    found="other tokens for the same text",
                    do="Compare models of one origin, each saved with the same tokenizer.",
                )

    # --- from results to ladders

    def ladders(self, store: Store) -> dict[tuple[str, str], Ladder]:
        """Make the ladder of each skill from what is stored."""
        results = [store.result(job) for job in self.jobs() if store.has(job)]
        known: dict[str, list[Result]] = {}
        for result in results:
            known.setdefault(result.checkpoint.id, []).append(result)
        name = Path(self.unlearned).name
        found = {}
        for task in self.tasks:
            fixed = tasks.get(task).has_fixed_answers
            whole = splits.split(task, self.seed)
            loaded = answers.of(whole.test) if fixed else None
            models = {role: (self._model(m, task, known),) for role, m in self.models.items()}
            if ORACLE in models:  # the one that there is, by whatever method it was made
                models[TWIN] = models[ORACLE]
            layer = None
            if self.lens:
                chosen_on = self._lens(self.unlearned, f"{task}/train", known)
                given = answers.of(whole.train) if fixed else None
                layer = layer_of(chosen_on, given) if chosen_on is not None else None
            found[task, name] = Ladder([Seed(models, loaded, layer)], self.rungs(task))
        return found

    def rungs(self, task: str) -> list[Rung]:
        """List a task's rungs, by how many labels they take."""
        found = [of_view(form) for form in self.forms_of(task)[0]]
        found.sort(key=lambda rung: (KINDS.index(rung.kind), rung.labels))
        rounded = [quantised(Quantise(bits)) for bits in self.quantised]
        return [DIRECT, *rounded, *found, *map(relearned, self.n_relearned)]

    def _model(self, model: str, task: str, known: dict[str, list[Result]]) -> Model:
        own = known[Checkpoint(model, dtype=self.dtype).id]
        test = {of: r.seen(of)[f"{task}/test"] for r in own for of in _views_of(r, task)}
        rungs: dict[str, tuple[Scores, ...]] = {of_view(v).name: (s,) for v, s in test.items()}
        for n in self.n_relearned:
            ids = [self.relearned(model, task, n, draw).id for draw in range(self.draws)]
            rungs[relearned(n).name] = tuple(known[i][0].scores[f"{task}/test"] for i in ids)
        for bits in self.quantised:
            scored = [r.scores for r in known[self.rounded(model, bits).id]]  # a task each
            where = f"{task}/test"
            rungs[quantised(Quantise(bits)).name] = tuple(s[where] for s in scored if where in s)
        places = [f"{t}/test" for t in self._others]
        elsewhere = [r.scores[w] for w in places for r in own if w in r.scores]
        lens = self._lens(model, f"{task}/test", known)
        return Model(rungs, tuple(elsewhere), lens=lens.log_likelihoods if lens else None)

    def _lens(self, model: str, where: str, known: dict[str, list[Result]]) -> LogitLens | None:
        own = known[Checkpoint(model, dtype=self.dtype).id]
        return next((r.lenses[where] for r in own if where in r.lenses), None)

    @property
    def digest(self) -> str:
        """Hash all settings: what is computed of one comparison is kept in one place."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:8]


def _views_of(result: Result, task: str) -> list[str]:
    """List the views through which a task's test questions were scored."""
    about = [r.measurement for r in result.records if r.measurement.readout == "scores"]
    return list(dict.fromkeys(m.view for m in about if m.where == f"{task}/test"))


def run(comparison: Comparison, folder: Path, *, progress: bool = True) -> Store:
    """Compute what is missing of a comparison, into a folder; return what is stored.

    Goes on where it was interrupted. What is stored of a model that has changed since is computed
    anew. A form in which a model cannot be asked is left out, with a warning.
    """
    comparison.check()
    store = Store(folder / "results", folder / ".work", content.Present())
    jobs = comparison.jobs()
    try:
        local.compute(jobs, store, progress=progress)
    except local.RunsFailed as error:
        if not all(_is_form(job) for job in error.failures):
            raise
        reasons = {job.measurements[0].view: why for job, why in error.failures.items()}
        for form, why in reasons.items():
            warnings.warn(f"goes on without the form {form}: {why}", stacklevel=2)
    finally:
        store.pack({"compared": [key for job in jobs for key in job.keys if key in store]})
    return store


def _is_form(job: Job) -> bool:
    return all(m.view != PLAIN for m in job.measurements)


def task_of(name: str) -> str:
    """Make a task known by its name, "harness:<name>", or the path of a JSON Lines file."""
    if name.endswith(".jsonl"):
        return tasks.add(tasks.from_json_lines(name)).name
    return tasks.get(name).name


def place_of(comparison: Comparison) -> Path:
    """Name the folder of a comparison's results where the caller names none."""
    return files.root() / "compared" / f"{Path(comparison.unlearned).name}-{comparison.digest}"


def cannot_tell(comparison: Comparison) -> Sequence[str]:
    """Say what this comparison cannot tell, a sentence each."""
    said = []
    if not comparison.retrained:
        said.append(
            "There is no model that was never taught the skill (--retrained): in its place stands "
            "an AUROC of 0.5. What examples and relearning bring back cannot be told from what "
            "they teach anybody, so that neither suppressed nor removed can be found."
        )
    else:
        said.append(
            "There is no model that was moved as far by another task, nor a never-taught one that "
            "was unlearned in the same way: that any such change would have taken the skill, or "
            "makes models learn faster or slower, is not excluded."
        )
    said.append(
        "It is one model of each kind: intervals are over questions alone, and do not say what "
        "another run of the same method would give."
    )
    said.append(
        "Which questions the method was given is not known here: relearning, examples and the "
        "choice of a layer may take some of them."
    )
    if comparison.n_relearned:
        said.append(
            "Whether relearning finds a skill that is only hidden is not tested here: there is no "
            "model whose skill was hidden on purpose."
        )
    if not comparison.elsewhere:
        said.append("Damage to other tasks was not measured.")
    for task in comparison.tasks:
        for form, why in comparison.forms_of(task)[1].items():
            said.append(f"{task} cannot be asked as {form}: {why}.")
    return said


# --- what was found


@dataclass(frozen=True)
class Found:
    """Hold what a comparison found: `rungs.table`, `rungs.summary`, and what it cannot tell."""

    comparison: Comparison
    table: pd.DataFrame
    summary: pd.DataFrame
    unknown: tuple[str, ...]
    computed: str

    def as_text(self) -> str:
        """Write it for a terminal."""
        return report.text(self.table, self.summary, self.unknown)

    def as_json(self) -> str:
        """Write it as JSON: models, summary, rungs, and what cannot be told; NaN is null."""
        return report.as_json(self.comparison.models, self.table, self.summary, self.unknown)

    def write(self, folder: Path) -> list[Path]:
        """Write tables, pictures and a report into a folder; return the files."""
        about = {
            "original": self.comparison.original,
            "unlearned": self.comparison.unlearned,
            "retrained": self.comparison.retrained or "none",
            "computed": self.computed,
            "forgetlib": forgetlib.__version__,
            "settings": repr(self.comparison),
        }
        return report.write(folder, self.table, self.summary, self.unknown, about)


def found(comparison: Comparison, store: Store) -> Found:
    """Judge what is stored of a comparison."""
    ladders = comparison.ladders(store)
    there = [job for job in comparison.jobs() if store.has(job)]
    records = [record for job in there for record in store.result(job).records]
    return Found(
        comparison,
        rungs.table(ladders),
        rungs.summary(ladders),
        (
            *cannot_tell(comparison),
            *_known_anyway(ladders),
            *_not_taught(ladders),
            *_harmed(ladders),
            *_not_asked(comparison, ladders),
        ),
        max(str(record.provenance["date"]) for record in records),
    )


def _known_anyway(ladders: Mapping[tuple[str, str], Ladder]) -> Iterator[str]:
    """Say where the model that was never taught the skill knows it, and so is no control."""
    for (task, _), ladder in ladders.items():
        if ladder.oracle_knows:
            yield (
                f"The model that was never taught {task} knows it (AUROC "
                f"{estimate(ladder.of('auroc', ORACLE))}), as pre-training may have taught it. 0.5 "
                "stands in its place, and suppressed and removed cannot be told apart."
            )


def _not_taught(ladders: Mapping[tuple[str, str], Ladder]) -> Iterator[str]:
    """Say where relearning taught no model anything: it could not have brought anything back."""
    for (task, _), ladder in ladders.items():
        taught = [r for r in ladder.rungs if r.kind == "relearned"]
        changes = [
            abs(ladder.of("auroc", role, r).value - ladder.of("auroc", role).value)
            for role in ladder.roles
            for r in taught
        ]
        if changes and max(changes) < TAUGHT:
            yield (
                f"Relearning changed {task}'s AUROC by less than {TAUGHT:g} in every model: at so "
                "low a rate, or with so few steps, it would bring nothing back (--rate)."
            )


def _harmed(ladders: Mapping[tuple[str, str], Ladder]) -> Iterator[str]:
    """Say where relearning takes of the skill from the model that has it."""
    for (task, _), ladder in ladders.items():
        for rung in (r for r in ladder.rungs if r.kind == "relearned"):
            columns = [("auroc", KNOWN, of) for of in (rung, DIRECT)]
            if ladder.interval(difference(0, 1), *columns).high < 0:
                after, before = (estimate(ladder.of("auroc", KNOWN, of)) for of in (rung, DIRECT))
                yield (
                    f"Training on {rung.labels} labels took the original's AUROC of {task} from "
                    f"{before} to {after}: at so high a rate it harms what it should bring back "
                    "(--rate)."
                )


def _not_asked(comparison: Comparison, ladders: Mapping[tuple[str, str], Ladder]) -> Iterator[str]:
    """Name the forms in which one of the models could not be asked."""
    for (task, _), ladder in ladders.items():
        for rung in comparison.rungs(task):
            if rung not in ladder.rungs:
                yield f"Not every model could be asked {task} in this form: {rung.name}."
