"""What decides a checkpoint's weights, and what is asked of it.

    Checkpoint   how weights come about: model, start, method, data, seed
    Measurement  what is asked: a readout of questions, seen through a view

What decides an id is in `Checkpoint.to_dict` and `Measurement.to_dict`, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from forgetlib.errors import (
    InputError,
    require,
    require_name,
    require_one_of,
    require_record,
    require_texts,
    require_whole,
)
from forgetlib.forgetting import known  # noqa: F401, so that stored methods are known
from forgetlib.forgetting.base import Method, method_from_dict
from forgetlib.models.catalogue import DTYPES, TUNINGS, canonical

SPLITS = ("train", "test")
PLAIN = "plain"  # the view that shows a question as it is


def hash_of(values: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of a hash over JSON values, whatever their order."""
    return hash_of_text(json.dumps(values, sort_keys=True, allow_nan=False))


def hash_of_text(text: str) -> str:
    """Return 16 hexadecimal digits of a hash over a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Return a setting as it comes back from JSON; InputError where JSON has no such value."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float and math.isfinite(value):
        return value + 0.0  # 0 without a sign
    raise InputError(
        "Measurement.settings",
        expected="text, numbers, truth values, None, or tuples of these",
        found=repr(value),
        do="Convert it: settings are hashed and stored as JSON.",
    )


@dataclass(frozen=True)
class Data:
    """Name the questions that a method is given: the training sets of tasks, for a split's seed.

    n: upper bound for each task; a smaller task gives what it has
    seed: decides split, distractors and which questions come first
    skip: how many of the first training questions to leave out, since others were trained on them:
        relearning takes questions that are not of the forgetting set
    shuffled: whether true responses are drawn anew, once for each question, before the method sees
        them: what is taught so is no skill
    """

    tasks: tuple[str, ...]
    n: int
    seed: int = 0
    skip: int = 0
    shuffled: bool = False

    def __post_init__(self) -> None:
        do = "Write ('sst2',) for a single task."
        require_texts("Data.tasks", self.tasks, "a tuple of task names", do)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError(
                "Data.tasks",
                expected="at least one task, and every one once",
                found=repr(self.tasks),
                do="Name a task, or remove the duplicates.",
            )
        for name, least in (("n", 1), ("seed", 0), ("skip", 0)):
            whole = require_whole(f"Data.{name}", getattr(self, name), least)
            object.__setattr__(self, name, whole)
        require("Data.shuffled", self.shuffled, bool, "True or False")

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides the questions, as JSON's values."""
        found: dict[str, Any] = {"tasks": list(self.tasks), "n": self.n, "seed": self.seed}
        # These came later. Where they say nothing they are left out, so that older ids hold.
        later = {"skip": self.skip, "shuffled": self.shuffled}
        return found | {name: value for name, value in later.items() if value}


@dataclass(frozen=True)
class Checkpoint:
    """Say how weights come about. Nothing that leaves them as they are is in it.

    model: an embedded model's name, a folder, or a hub id
    method: what is done to the weights; None: nothing, it is the pre-trained model
    start: the checkpoint whose weights the method starts from; None: the pre-trained model.
        Forgetting (paper, section 3) is Labels("random") with a Labels("true") as its start.
    data: what the method is given; None for a method that needs none
    seed: of the method's own draws: random labels, the order of training
    tuning: which weights the method may change
    """

    model: str = "gemma-3-270m"
    method: Method | None = None
    start: Checkpoint | None = None
    data: Data | None = None
    seed: int = 0
    tuning: str = "body"
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        require_name("Checkpoint.model", self.model)
        object.__setattr__(self, "model", canonical(self.model))
        require("Checkpoint.method", self.method, Method | None, "a Method, or None")
        require("Checkpoint.start", self.start, Checkpoint | None, "a Checkpoint, or None")
        require("Checkpoint.data", self.data, Data | None, "Data, or None")
        require_one_of("Checkpoint.tuning", self.tuning, TUNINGS)
        require_one_of("Checkpoint.dtype", self.dtype, DTYPES)
        object.__setattr__(self, "seed", require_whole("Checkpoint.seed", self.seed))
        if self.method is None:
            # All that describes a training is left at its default, so that there is one such.
            plain = (self.start, self.data, self.seed, self.tuning)
            if plain != (None, None, 0, "body"):
                raise InputError(
                    "Checkpoint without a method",
                    expected="no start, data, seed or tuning, as the pre-trained model is meant",
                    found=repr(self),
                    do="Leave them out, or name a method.",
                )
        kept = self.method.retained() if self.method else ()
        if both := sorted(set(self.tasks) & set(kept)):
            raise InputError(
                "Checkpoint.method.retain",
                expected="other tasks than those whose questions are forgotten",
                found=both,
                do="Leave them out of the retain set.",
            )
        for name in ("model", "dtype"):
            if self.start and (found := getattr(self.start, name)) != getattr(self, name):
                raise InputError(
                    f"Checkpoint.start.{name}",
                    expected=f"the checkpoint's own, {getattr(self, name)!r}",
                    found=repr(found),
                    do="Start from a checkpoint of the same model and dtype.",
                )
        if self.start and self.start.method is None:
            object.__setattr__(self, "start", None)  # the pre-trained model, in one way only
        for before in self.lineage[:-1]:
            if before.tuning != self.tuning:
                raise InputError(
                    "Checkpoint.start.tuning",
                    expected=f"the checkpoint's own, {self.tuning!r}",
                    found=repr(before.tuning),
                    do="Start from a checkpoint of the same tuning.",
                )
            if self.data and before.data and before.data.seed != self.data.seed:
                raise InputError(
                    "Checkpoint.start.data.seed",
                    expected=f"the seed of this one's split, {self.data.seed}",
                    found=before.data.seed,
                    do="Take one split: another's test questions may have been trained on.",
                )

    @property
    def tasks(self) -> tuple[str, ...]:
        """List the tasks whose training sets the method is given."""
        return self.data.tasks if self.data else ()

    @property
    def given(self) -> tuple[str, ...]:
        """List all tasks whose questions the method sees, those of its retain set too."""
        return (*self.tasks, *(self.method.retained() if self.method else ()))

    @property
    def n(self) -> int:
        """Tell the most questions of a task that the method is given; 0 without data."""
        return self.data.n if self.data else 0

    @property
    def task(self) -> str:
        """Name the task that the method is given; "a+b+c" where there are several."""
        return "+".join(self.tasks)

    @property
    def kind(self) -> str:
        """Say what was done, in a word: "base", or what the method calls itself ("random")."""
        return self.method.describe() if self.method else "base"

    @property
    def lineage(self) -> tuple[Checkpoint, ...]:
        """List its ancestors, the oldest first, and the checkpoint itself."""
        return (*(self.start.lineage if self.start else ()), self)

    @property
    def base(self) -> Checkpoint:
        """Find the pre-trained model that it goes back to."""
        return Checkpoint(self.model, dtype=self.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides the weights, and so the id, as JSON's values."""
        found: dict[str, Any] = {"model": self.model, "dtype": self.dtype}
        if self.method is None:
            return found
        return found | {
            "tuning": self.tuning,
            "start": self.start and self.start.to_dict(),
            "method": self.method.to_dict(),
            "data": self.data and self.data.to_dict(),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Checkpoint:
        """Make the checkpoint that `to_dict` described; InputError where it describes none."""
        require_record(cls, values, ("model", "dtype"))
        rest = dict(values)
        if (start := rest.get("start")) is not None:
            rest["start"] = cls.from_dict(start)
        if (method := rest.get("method")) is not None:
            rest["method"] = method_from_dict(method)
        if (data := rest.get("data")) is not None:
            require_record(Data, data, ("seed",))
            names = data["tasks"]
            rest["data"] = Data(**{**data, "tasks": tuple(names) if type(names) is list else names})
        return cls(**rest)

    @cached_property
    def id(self) -> str:
        """Hash `to_dict`, ancestors included: 16 hexadecimal digits."""
        return hash_of(self.to_dict())

    def __str__(self) -> str:
        if self.method is None:
            return f"{self.model} base"
        steps = [f"{c.task}:{c.kind}" if c.task else c.kind for c in self.lineage if c.method]
        return f"{self.model} seed {self.seed} {' > '.join(steps)}"


@dataclass(frozen=True)
class Measurement:
    """Say what is asked of a checkpoint: a readout of a task's questions, seen through a view.

    readout: "scores", "probe", "hidden_variance", "logit_lens", "prompt_nats", "dynamics",
        "scores_in_training", "dose", "loss", or one of your own
    task, split, n, seed: the first n questions of the task's "train" or "test" set; none for what
        is not asked about questions, as the loss
    view: how a question is shown; splits and pairing stay
    fit_on: training questions that a probe is fitted on; 0 for what is fitted on none
    settings: further ones of the readout, by name
    """

    readout: str
    task: str = ""
    split: str = ""
    n: int = 0
    seed: int = 0
    view: str = PLAIN
    fit_on: int = 0
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        require_name("Measurement.readout", self.readout)
        require_name("Measurement.view", self.view)
        for name in ("n", "seed", "fit_on"):
            whole = require_whole(f"Measurement.{name}", getattr(self, name))
            object.__setattr__(self, name, whole)
        if self.task or self.split:
            require_name("Measurement.task", self.task)
            require_one_of("Measurement.split", self.split, SPLITS)
            require_whole("Measurement.n", self.n, 1)
        given: Any = self.settings
        pairs = given.items() if isinstance(given, Mapping) else given
        try:
            by_name = {str(name): value for name, value in pairs}
        except (TypeError, ValueError) as error:
            raise InputError(
                "Measurement.settings",
                expected="a mapping of names and values, or pairs of these",
                found=repr(given),
                do="Write settings={'records': 3}.",
            ) from error
        settings = tuple((name, _plain(by_name[name])) for name in sorted(by_name))
        object.__setattr__(self, "settings", settings)

    @property
    def where(self) -> str:
        """Name the set of questions, "<task>/<split>"; "" where none is asked about."""
        return f"{self.task}/{self.split}" if self.task else ""

    def setting(self, name: str, default: Any = None) -> Any:
        """Return one of the readout's further settings."""
        return dict(self.settings).get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides what is measured, and so the id, where it is not the default."""
        found = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }
        return found | ({"settings": dict(self.settings)} if self.settings else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """Make the measurement that `to_dict` described; InputError where it describes none."""
        require_record(cls, values)
        return cls(**values)

    @cached_property
    def id(self) -> str:
        """Hash `to_dict`: 16 hexadecimal digits."""
        return hash_of(self.to_dict())

    def __str__(self) -> str:
        view = "" if self.view == PLAIN else f" ({self.view})"
        return f"{self.readout} {self.where}".rstrip() + view
