"""Tune a real model to obey, ask it and the model from before, and keep what both answer.

    figures/<study>/patterns/<key>.parquet   a file a model, seed and other settings

After arXiv 2309.10105, section 3, whose tuned models are instruction-tuned ones of others. Here the
pair is made: a low-rank tuning on prompts of `pattern`, asked plainly, towards the answer that
obeys. Both models are then asked other prompts, plainly and through views.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetlib.data import views
from forgetlib.data.base import Example
from forgetlib.errors import InputError, require_name, require_whole
from forgetlib.forgetting.base import Training
from forgetlib.implicit import pattern, results
from forgetlib.runs.specs import hash_of

if TYPE_CHECKING:
    import pandas as pd

TABLE = "patterns"
TUNING = Training(2e-4)  # as the studies `gentle` and `scale` teach this model its tasks


@dataclass(frozen=True)
class Obedience:
    """Name a comparison of a model with itself after it was tuned to obey.

    model: a name of ours, a folder or a hub id
    n_train: prompts that it is tuned on, as many of each task
    n: other prompts of each task, which both models are asked
    through: views by name; "plain" as it is
    seed: of the sentences, the numbers and the training
    study: of the folder that the answers are kept in; it never changes a number
    """

    model: str = "gemma-3-270m"
    n_train: int = 128
    n: int = 25
    training: Training = TUNING
    through: tuple[str, ...] = pattern.VIEWS
    seed: int = 0
    study: str = "implicit"

    def __post_init__(self) -> None:
        require_name("model that is tuned to obey", self.model)
        require_name("study of a model that is tuned to obey", self.study)
        object.__setattr__(self, "through", tuple(self.through))
        for name, least in (("n_train", 1), ("n", 1), ("seed", 0)):
            require_whole(f"Obedience.{name}", getattr(self, name), least)
        if self.n_train % len(pattern.TASKS):
            raise InputError(
                "Obedience.n_train",
                expected=f"a multiple of {len(pattern.TASKS)}, the number of tasks",
                found=self.n_train,
                do="Train on as many prompts of each task.",
            )
        for view in self.through:
            views.get(view)

    @property
    def key(self) -> str:
        """Name its file: the model, the seed, and a hash of all settings."""
        return f"{Path(self.model).name}-{self.seed}-{hash_of(self.as_dict())[:8]}"

    def as_dict(self) -> dict[str, Any]:
        """Write the settings as JSON has them, those that change a number."""
        found = asdict(self) | {"through": list(self.through)}
        del found["study"]
        return found

    def examples(self) -> tuple[list[Example], dict[str, list[Example]]]:
        """Draw the prompts that are trained on, with the answer that obeys as their label.

        And those that are asked, by task, with the pattern's answer as their label. No prompt is
        among both.
        """
        trained, asked = [], {}
        for task in pattern.TASKS:
            each = self.n_train // len(pattern.TASKS)
            found = pattern.examples(task, self.n + each, self.seed)
            asked[task] = found[: self.n]
            trained += [replace(e, label=1 - e.label) for e in found[self.n :]]
        return trained, asked


def obtain(
    model: str = "gemma-3-270m", seeds: Sequence[int] = (0, 1, 2), **settings: Any
) -> pd.DataFrame:
    """Return what a model answers before and after it was tuned to obey, for each seed.

    What is stored is read, without torch; what is not is computed and stored, about a quarter of
    an hour of a core for each seed of Gemma-3-270M.

    settings: n_train, n, training, through and study, of `Obedience`

    Columns: key, seed, and those of `pattern.ask`, whose models are "base" and "tuned". Raises
    InputError where there is no seed, and for settings that cannot be.
    """
    wanted = [Obedience(model, seed=seed, **settings) for seed in seeds]
    if not wanted:
        raise InputError(
            f"seeds of {model!r}", expected="at least one", found="none", do="Write seeds=[0]."
        )
    for each in wanted:
        if not path_of(each).exists():
            run(each)
    stored = results.read(wanted[0].study, TABLE)
    return stored[stored["key"].isin([each.key for each in wanted])].reset_index(drop=True)


def path_of(setting: Obedience) -> Path:
    """Name the file of what was answered."""
    return results.folder(setting.study) / TABLE / f"{setting.key}.parquet"


def run(setting: Obedience) -> None:
    """Ask the model, tune it, ask it again, and store the answers."""
    found, about = answers(setting)
    results.put(path_of(setting), found, setting.as_dict(), about)


def answers(setting: Obedience) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Ask the model, tune it and ask it again; return the answers and their provenance."""
    import pandas as pd

    from forgetlib.forgetting import loop
    from forgetlib.forgetting.context import Context
    from forgetlib.forgetting.labels import Labels
    from forgetlib.models import loading
    from forgetlib.runs.progress import new_bar
    from forgetlib.runs.provenance import provenance

    started = time.perf_counter()
    lm = loading.load(setting.model, tuning="lora")
    trained, asked = setting.examples()
    found = []
    with new_bar(2 * len(setting.through), quiet=False) as bar:
        for name in ("base", "tuned"):
            if name == "tuned":
                bar.set_description_str(f"{setting.key}: tuning", refresh=True)
                method = Labels("true", setting.training)
                loop.apply(lm, method, Context(setting.seed, trained))
            for view in setting.through:
                bar.set_description_str(f"{setting.key}: {name}, {view}", refresh=False)
                found.append(pattern.ask({name: lm}, asked, [view]))
                bar.update(1)
    table = pd.concat(found, ignore_index=True).assign(seed=setting.seed)
    return table, dict(provenance(lm, time.perf_counter() - started))
