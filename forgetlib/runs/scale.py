"""A study of models: does what one forgets, another forget too?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from forgetlib.errors import InputError, require_one_of
from forgetlib.runs.grid import Study


@dataclass(frozen=True)
class ScaleStudy(Study):
    """Name a study of several models on the same tasks: what each forgets, and its control.

    models: each does every task with every seed, but those of `large`
    large, large_tasks: models that do these tasks alone, with the first seed
    """

    sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "own": ("models", "regressions"),
        "control": ("models", "regressions"),
    }
    notebooks: ClassVar[str] = "notebooks/scale"

    large: tuple[str, ...] = ()
    large_tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        what = f"study {self.name!r}"
        if set(self.control_seeds) != {*self.seeds}:
            raise InputError(
                f"control_seeds of {what}",
                expected=f"its seeds, {self.seeds}, as losses are counted beyond true labels",
                found=repr(self.control_seeds),
                do="Name the same seeds in both.",
            )
        for model in self.large:
            require_one_of(f"large of {what}", model, self.models)
        for task in self.large_tasks:
            require_one_of(f"large_tasks of {what}", task, self.tasks)

    @property
    def not_drawn(self) -> tuple[str, ...]:
        """Name the figures of its kind that it has nothing for: none."""
        return ()

    def owned(self, seeds: tuple[int, ...]) -> Iterator[tuple[str, str, int]]:
        """List each model, task and seed, model by model: the first ones are compared soon."""
        for seed in dict.fromkeys(seed for _, seed in self.with_seeds(seeds)):
            of_seed = [task for task, other in self.with_seeds(seeds) if other == seed]
            for model in self.models:
                few = model in self.large
                if few and seed != self.seeds[0]:
                    continue
                yield from ((model, t, seed) for t in of_seed if not few or t in self.large_tasks)
