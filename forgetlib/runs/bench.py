"""One model in memory, brought to checkpoints: loaded once, trained, its weights kept.

Long because what state that model is in is one subject, whoever changes or asks it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetlib.data import splits, tasks
from forgetlib.data.base import Example
from forgetlib.errors import ForgetlibError, InputError, require_whole
from forgetlib.forgetting.base import Method
from forgetlib.measuring.base import DoseCurve, Dynamics, Readout, Scores, ScoresInTraining
from forgetlib.metrics import confidence
from forgetlib.runs import code, content
from forgetlib.runs.processes import told, writes
from forgetlib.runs.specs import Checkpoint, Measurement
from forgetlib.runs.store import Store

if TYPE_CHECKING:
    from forgetlib.forgetting.context import Context
    from forgetlib.models.lm import LM

Progress = Callable[[str, int], None]  # (what is being done, examples done since the last call)
TRAINING_COST = 3  # a training example costs about three times a scored one


class StudyError(ForgetlibError, RuntimeError):
    """A study as a whole cannot go on: its results, its definition or its model do not fit."""


# What to do where a GPU's memory does not suffice.
ROOM = (
    "End other programs on the card, give this process more of it (FORGETLIB_GPU_SHARE), choose "
    "tuning 'lora' or Training(optimizer='adafactor'), or use a smaller model or a larger card."
)


def reason(error: Exception) -> str:
    """Say what went wrong; and where, for an error that nobody foresaw."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, ForgetlibError):
        return said
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not loaded for this
        return f"{said.rstrip('.')}. {ROOM}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{said} ({Path(last.filename).name}, line {last.lineno}, in {last.name})"


def ignore_progress(what: str, n_examples: int) -> None:
    """Report nothing."""


def _changed(model: str, loaded: str, now: str) -> StudyError:
    """Make the error for a model whose name stands for another now than was loaded."""
    return StudyError(
        f"model {model!r}",
        expected=f"the content that was loaded, {loaded}",
        found=f"{now}: it was changed meanwhile",
        do="Start again when it is complete: what is stored of the old one is computed anew.",
    )


@dataclass(frozen=True)
class Log:
    """Hold what a training left: the loss of each step, and what was watched.

    dose: what the checks of its dose found; None where it had none
    recorded: by the id of the measurement that asked for it
    scores: those of the last records, by the id of the measurement that they answer
    """

    loss: np.ndarray
    dose: DoseCurve | None = None
    recorded: Mapping[str, Readout] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)


def _require_torch() -> None:
    """Raise StudyError where what computing needs is not installed."""
    needed = ("torch", "transformers", "peft", "safetensors", "gguf")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise StudyError(
            "computing",
            expected=f"the packages {', '.join(needed)}",
            found=f"no {', '.join(missing)}",
            do="Install them: pip install 'forgetlib[train]'. Reading and drawing need none.",
        )


class Bench:
    """Hold one model in memory, and bring it to the checkpoints that jobs ask for."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._lm: LM | None = None
        self._pretrained: dict[str, Any] = {}
        self._loaded: tuple[str, str, str] | None = None
        self._digest: str | None = None  # of the pre-trained model's content
        self._state: str | None = None  # id of the checkpoint that the model is; None: pre-trained
        self._scores: dict[str, Scores] = {}  # of this state, by the measurement's id

    def load(self, checkpoint: Checkpoint, report: Progress = ignore_progress) -> LM:
        """Load a checkpoint's model, or return it in whatever state it is."""
        _require_torch()
        from forgetlib.models import loading

        wanted = (checkpoint.model, checkpoint.tuning, checkpoint.dtype)
        if self._lm is not None and self._loaded == wanted:
            return self._lm
        report("loading the model", 0)

        # A folder may be written to meanwhile; of a hub's model the newest revision is fetched.
        before = told(lambda: content.of_folders(checkpoint.model))
        self._lm = None  # before the next is loaded: two may not fit
        gc.collect()  # its layers and what computes them again are circles of references
        try:
            self._lm = loading.load(
                checkpoint.model, tuning=checkpoint.tuning, dtype=checkpoint.dtype
            )
        except ForgetlibError:
            raise
        except Exception as error:  # of any kind, as from its code or a device without room
            raise StudyError(
                f"model {checkpoint.model!r}",
                expected="one that can be loaded here",
                found=reason(error),
                do="Correct the cause, or leave the model out.",
            ) from error
        self._pretrained = self._lm.weights()
        self._digest = told(lambda: content.of_model(checkpoint.model))
        self._loaded = wanted
        self._enter(None)
        if (now := told(lambda: content.of_folders(checkpoint.model))) != before:
            self._loaded = None
            raise _changed(checkpoint.model, ", ".join(before), ", ".join(now) or "none")
        return self._lm

    def digest(self) -> str | None:
        """Tell the content of the model in memory; StudyError where its name has another now."""
        assert self._loaded is not None
        name = self._loaded[0]
        now = told(lambda: content.of_model(name))
        if None not in (now, self._digest) and now != self._digest:
            raise _changed(name, str(self._digest), str(now))
        return self._digest

    def at(self, checkpoint: Checkpoint | None, like: Checkpoint, report: Progress) -> LM:
        """Bring the model to a checkpoint, trained again where its weights are not kept.

        checkpoint: None: the pre-trained model
        like: a checkpoint of the model that is meant
        """
        lm = self.load(like, report)
        self.digest()  # raises where the folder holds another model by now
        if checkpoint is None or checkpoint.method is None:
            if self._state is not None:
                lm.set_weights(self._pretrained)
                self._enter(None)
        elif self._state != checkpoint.id:
            if (kept := self._kept(checkpoint)) is not None:
                lm.set_weights(kept)
                self._enter(checkpoint.id)
            else:
                # A start that is trained again records nothing.
                self.make(checkpoint, lambda what, n: report(f"{what} (its start, again)", 0))
                if self._store is not None:  # others may start from it too
                    self.keep(checkpoint)
        return lm

    def _enter(self, state: str | None) -> None:
        self._state = state
        self._scores = {}

    def _content(self, checkpoint: Checkpoint) -> str:
        """Write down what, beside a checkpoint's id, decides its weights."""
        found = {
            "model": self._digest,
            "questions": content.of_training(checkpoint),
            "code": code.of_code(checkpoint, ()),
        }
        return json.dumps(found, sort_keys=True)

    def _kept(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """Read a checkpoint's kept weights, where every process can.

        Not those that were made from another content of the model or of the questions.
        """
        from safetensors import SafetensorError, safe_open

        from forgetlib.engine import parallel

        found = None
        if self._store is not None:
            path = self._store.weights_path(checkpoint.id)
            # What cannot be read can be trained again.
            with contextlib.suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("content") == self._content(checkpoint):
                    names = file.keys()
                    found = {name: file.get_tensor(name) for name in names}
        return found if parallel.all_agree(found is not None) else None

    def has(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the model can be brought to a checkpoint without making it again."""
        return self._state == checkpoint.id or self._kept(checkpoint) is not None

    def context(self, checkpoint: Checkpoint) -> Context:
        """Load what a checkpoint's method is given, but for the model."""
        from forgetlib.forgetting.context import Context
        from forgetlib.forgetting.labels import shuffled

        lm, method, data = self.load(checkpoint), checkpoint.method, checkpoint.data
        given: list[Example] = []
        retain: list[Example] = []
        if data is not None:
            for task in checkpoint.tasks:
                first = fitting(lm, task, "train", data.skip + data.n, data.seed)[0]
                given += require_left(task, first, data.skip)
            for task in method.retained() if method else ():
                retain += fitting(lm, task, "train", data.n, data.seed)[0]
            if data.shuffled:
                given = shuffled(given, checkpoint.seed)
        return Context(checkpoint.seed, tuple(given), tuple(retain), self._pretrained)

    @contextlib.contextmanager
    def hooked(self, checkpoint: Checkpoint) -> Iterator[None]:
        """Keep active what a checkpoint's methods do while it is measured, its ancestors' too."""
        with contextlib.ExitStack() as held:
            for ancestor in checkpoint.lineage:
                if ancestor.method is not None and _has_hook(ancestor.method):
                    lm = self.load(checkpoint)
                    context = self.context(ancestor)
                    if ancestor.method.origin:
                        context = replace(context, origin=self._origin(ancestor))
                    held.enter_context(ancestor.method.hook(lm, context))
            yield

    def _origin(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Find the weights from which a checkpoint's start was trained; the model stays as it is.

        InputError where it starts from the pre-trained model, which was trained from nothing here.
        """
        if checkpoint.start is None:
            raise InputError(
                f"start of {checkpoint}",
                expected="a checkpoint that was trained, to compare it with what it was before",
                found="the pre-trained model",
                do="Start from a model that was made to forget.",
            )
        of = checkpoint.start.start
        if of is None:
            return self._pretrained
        if (kept := self._kept(of)) is not None:
            return kept
        weights = self.at(of, checkpoint, ignore_progress).weights()
        self.at(checkpoint, checkpoint, ignore_progress)
        return weights

    def make(
        self, checkpoint: Checkpoint, report: Progress, record: Sequence[Measurement] = ()
    ) -> Log:
        """Bring the model to a checkpoint by doing what its method says; return the log.

        record: what is asked of the model while it is trained, as `is_recorded` tells
        """
        from forgetlib.forgetting import loop

        method = checkpoint.method
        assert method is not None
        lm = self.at(checkpoint.start, checkpoint, report)
        # Scores of what it starts from are the first record's, where they were taken as these are.
        before = {} if _has_hook(method) else dict(self._scores)
        context = self.context(checkpoint)
        self._enter("in the making")  # until it is done, the weights are nobody's
        training = method.settings()
        recorders: dict[str, _Recorder] = {}
        watches: list[loop.Watch] = []
        for m in record if training is not None else ():
            recorder = _Recorder(lm, m, before, report, lambda: self.hooked(checkpoint))
            recorders[m.id] = recorder
            assert training is not None
            watches.append((recorder.steps_of(training.n_steps(len(context.examples))), recorder))
        cost = len(context.examples) * TRAINING_COST * (training.epochs if training else 0)
        report(method.describe(), 0)

        def on_step(step: int, n_steps: int) -> None:
            n = cost * step // n_steps - cost * (step - 1) // n_steps
            report(f"training, step {step} of {n_steps}", n)

        checks: list[tuple[int, float]] = []
        loss = loop.apply(
            lm, method, context, on_step, watches, lambda *check: checks.append(check)
        )
        self._enter(checkpoint.id)
        return Log(
            loss,
            DoseCurve.of(checks) if checks else None,
            {wanted: recorder.found() for wanted, recorder in recorders.items()},
            {recorder.same.id: recorder.records[-1][1] for recorder in recorders.values()},
        )

    def remember(self, measurement: Measurement, scores: Scores) -> None:
        """Remember scores of the state that the model is in, for a record before training."""
        self._scores[measurement.id] = scores

    def keep(self, checkpoint: Checkpoint) -> None:
        """Put the model's weights into the store, as this checkpoint's."""
        from safetensors.torch import save_file

        from forgetlib.engine import parallel
        from forgetlib.models.convert import disk_errors

        assert self._lm is not None
        assert self._store is not None
        weights, made_from = self._lm.weights(), self._content(checkpoint)

        def save(path: Path) -> None:
            with disk_errors():
                save_file(weights, path, metadata={"content": made_from})

        if writes():
            self._store.save_weights(checkpoint.id, save)
        parallel.wait()


def _has_hook(method: Method) -> bool:
    return type(method).hook is not Method.hook


def is_recorded(m: Measurement) -> bool:
    """Tell whether a measurement asks a model about questions while it is trained."""
    return m.readout in (Dynamics.name, ScoresInTraining.name)


def every(m: Measurement) -> int:
    """Tell how many steps lie between two records of a measurement; InputError for none."""
    return require_whole(f"setting 'every' of {m}", m.setting("every", 1), 1)


class _Recorder:
    """Scores questions while a model is trained, and at the end."""

    def __init__(
        self,
        lm: LM,
        m: Measurement,
        before: Mapping[str, Scores],
        report: Progress,
        hooked: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.lm, self.asked, self.report, self.hooked = lm, m, report, hooked
        self.examples = fitting(lm, m.task, m.split, m.n, m.seed)[0]
        self.same = Measurement(Scores.name, m.task, m.split, m.n, m.seed)  # as one record
        self.start = before.get(self.same.id)
        self.records: list[tuple[int, Scores]] = []  # (steps done, scores)

    def steps_of(self, n_steps: int) -> Collection[int]:
        """List the steps before which to record; the end is no step."""
        from forgetlib.forgetting import loop

        if self.asked.readout == Dynamics.name:
            return loop.spaced_steps(n_steps, self.asked.setting("records", 0))
        return range(0, n_steps, every(self.asked))

    def __call__(self, step: int) -> None:
        """Record after so many steps."""
        from forgetlib.measuring import scoring

        uids = tuple(e.uid for e in self.examples)
        if step == 0 and self.start is not None and self.start.uids == uids:
            found = self.start  # scored already, as what the training starts from
        else:
            with self.hooked():
                found = scoring.score(self.lm, self.examples)
            self.report("recording", len(uids))
        self.records.append((step, found))

    def found(self) -> Dynamics | ScoresInTraining:
        """Return what was recorded."""
        if self.asked.readout == ScoresInTraining.name:
            return ScoresInTraining.of(self.records)
        steps = np.array([step for step, _ in self.records], np.int32)
        confidences = [confidence(scores).astype(np.float32) for _, scores in self.records]
        return Dynamics(steps, tuple(e.uid for e in self.examples), np.stack(confidences))


def require_left(task: str, first: list[Example], skip: int) -> list[Example]:
    """Leave out the first training questions; InputError where none is left."""
    if len(first) > skip:
        return first[skip:]
    raise InputError(
        f"training questions of task {task!r}",
        expected=f"some after the first {skip}, which others are trained on",
        found=f"{len(first)} in all",
        do="Take a task with more questions, or a smaller forgetting set.",
    )


def _fits(lm: LM, question: tasks.Question) -> bool:
    """Tell whether the model's context holds the question with each of its choices.

    Of all choices, whichever becomes the distractor, so that a seed does not decide it. Counted as
    `forward.encode` counts, which refuses what is longer.
    """
    for prompt, choice in dict.fromkeys(zip(question.prompts, question.choices, strict=True)):
        texts = prompt.rstrip(), f"{prompt} {choice}"
        if max(len(lm.tokens(text)) for text in texts) > lm.max_length:
            return False
    return True


def fitting(lm: LM, task: str, part: str, n: int, seed: int) -> tuple[list[Example], list[str]]:
    """Take the first n examples of a task that fit the model; and the uids of those left out."""
    examples = splits.load(task, part, sys.maxsize, seed)
    taken: list[Example] = []
    too_long: list[str] = []
    for example in examples:
        if len(taken) == n:
            break
        if _fits(lm, splits.question(example.uid)):
            taken.append(example)
        else:
            too_long.append(example.uid)
    if not taken:
        raise InputError(
            f"task {task!r}",
            expected=f"a {part} question of at most {lm.max_length} tokens, the context of "
            f"{lm.name}",
            found=f"none among {len(examples)}",
            do="Leave the task out, or use a model with a longer context.",
        )
    return taken, too_long
