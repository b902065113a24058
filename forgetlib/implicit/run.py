"""Do one experiment: pre-train, fine-tune, train the control, ask all, store. It can be stopped."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from forgetlib.files import root, writing
from forgetlib.implicit import evaluate, results, train
from forgetlib.implicit.evaluate import Predictor
from forgetlib.implicit.settings import Setting
from forgetlib.implicit.transformer import Regressor, predict
from forgetlib.runs.progress import new_bar
from forgetlib.runs.provenance import of_machine


def work(setting: Setting) -> Path:
    """Name the folder of a setting's checkpoints, which git ignores."""
    return root() / ".work" / setting.name / setting.key


def trained(
    setting: Setting, *, quiet: bool = False, every: int = train.EVERY
) -> dict[str, Regressor]:
    """Train the pre-trained, the fine-tuned and the discrete-only model, or load what is trained.

    Killed at any time and called again, it goes on from the last checkpoint of `every` steps.
    """
    stages = train.pre_training(setting), train.fine_tuning(setting), train.alone(setting)
    folder = work(setting)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done = dict.fromkeys((stage.name for stage in stages), 0)
    with (
        FileLock(folder / "lock"),
        new_bar(sum(stage.steps for stage in stages), quiet=quiet) as bar,
    ):

        def progress(stage: str, n_done: int) -> None:
            bar.set_description_str(f"{setting.key}: {stage}", refresh=False)
            bar.update(n_done - done[stage])
            done[stage] = n_done

        models: dict[str, Regressor] = {}
        for stage in stages:
            start = models.get("pre-trained") if stage.name == "fine-tuned" else None
            model = copy.deepcopy(start) if start is not None else Regressor(setting)
            path = folder / f"{stage.name}.safetensors"
            train.train(model, setting, stage, path, every=every, progress=progress)
            models[stage.name] = model
    return models


def run(setting: Setting, *, quiet: bool = False, every: int = train.EVERY) -> None:
    """Compute and store what is asked of a setting, unless it is stored.

    The provenance's seconds are those since the last start.
    """
    if results.is_stored(setting):
        return
    errors, shifts, about = computed(setting, quiet=quiet, every=every)
    if not results.is_stored(setting):  # nor meanwhile, by a process that waited for this training
        results.write(setting, errors, shifts, about)


def computed(
    setting: Setting, *, quiet: bool = False, every: int = train.EVERY
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train the models and ask them; return errors, shifts and the provenance."""
    started = time.perf_counter()
    models = trained(setting, quiet=quiet, every=every)
    asked = {name: predictor(model) for name, model in models.items()}
    errors = evaluate.ask(setting, asked)
    shifts = evaluate.shifts(setting, asked["pre-trained"], asked["fine-tuned"])
    about = of_machine(torch.device("cpu"), time.perf_counter() - started)
    return errors, shifts, dict(about)


def run_control(setting: Setting) -> None:
    """Compute and store the controls of a setting, unless they are stored."""
    path = results.path_of(setting, "controls")
    if not path.exists():
        found, about = control(setting)
        results.put(path, found, asdict(setting), about)


def control(setting: Setting) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Ask what else would explain how models differ; return that, and the provenance.

    Of the fine-tuned model, and of one that never knew other tasks.
    """
    started = time.perf_counter()
    asked = {name: predictor(model) for name, model in trained(setting).items()}
    found = evaluate.controls(setting, asked.pop("pre-trained"), asked)
    return found, dict(of_machine(torch.device("cpu"), time.perf_counter() - started))


def predictor(model: Regressor) -> Predictor:
    """Return a model as a function of prompts and a scale of labels."""

    def ask(x: np.ndarray, y: np.ndarray, gamma: float) -> np.ndarray:
        return predict(model, x, y, gamma=gamma)

    return ask
