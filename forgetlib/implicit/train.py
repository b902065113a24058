"""Train a transformer on prompts: resumable to the bit, and without any global state.

A step's prompts are drawn from a generator of the seed, the stage and the step, so that the weights
and the optimiser's state are all that a checkpoint has to hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from forgetlib.errors import UnusableNumbers, in_a_line
from forgetlib.files import StoreError, remove_left_overs, replacing
from forgetlib.implicit.bayes import Mixture, infer_prefixes
from forgetlib.implicit.muon import Muon
from forgetlib.implicit.prompts import Prompts, draw, generator, mixture
from forgetlib.implicit.settings import Setting
from forgetlib.implicit.transformer import Regressor, as_tensor

EVERY = 250  # steps from one checkpoint to the next: half a minute

Progress = Callable[[str, int], None]  # (the stage, its steps that are done)


@dataclass(frozen=True)
class Stage:
    """Say what one training does: on which prompts, for how many steps, against what.

    name: of the model that comes of it
    alpha: probability that a prompt's vector is of the discrete set
    rate: the learning rate, at its highest where it `decays`: then it rises for warm_up steps
        and falls to 0 along a cosine
    target: what predictions are compared with, as in Setting
    optimizer: "adamw", or "muon" for the layers' matrices and AdamW for what is left
    """

    name: str
    alpha: float
    steps: int
    rate: float
    warm_up: int = 0
    decays: bool = False
    target: str = "label"
    optimizer: str = "adamw"

    def rate_at(self, step: int) -> float:
        """Compute the learning rate of a step, counted from 0."""
        if not self.decays:
            return self.rate
        rising = min(1.0, (step + 1) / (self.warm_up + 1))
        return self.rate * rising * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def pre_training(setting: Setting) -> Stage:
    """Return the stage that trains on the mixture."""
    return Stage(
        "pre-trained",
        setting.alpha,
        setting.steps,
        setting.rate,
        setting.warm_up,
        decays=True,
        target=setting.target,
        optimizer=setting.optimizer,
    )


def alone(setting: Setting) -> Stage:
    """Return the stage that trains on the discrete set from nothing: a model that never knew."""
    whole = pre_training(setting)
    return replace(whole, name="discrete-only", alpha=1.0, steps=setting.alone_steps)


def fine_tuning(setting: Setting) -> Stage:
    """Return the stage that goes on from the pre-trained model with the discrete set alone.

    By AdamW and against labels, as the paper does, whatever pre-training did.
    """
    return Stage("fine-tuned", 1.0, setting.tuning_steps, setting.tuning_rate)


def train(
    model: Regressor,
    setting: Setting,
    stage: Stage,
    path: Path | None = None,
    *,
    every: int = EVERY,
    progress: Progress = lambda stage, n_done: None,
) -> None:
    """Train a model in place: squared error, averaged over the prompts of 0 to n_points examples.

    path: a file that keeps weights and optimiser every so many steps and at the end. Where it is
        there, training goes on from it, and ends in the same bits as without the break on the
        same processor and number of threads. None: nothing is kept
    progress: called after each step, and once for the steps that the file had

    Raises StoreError for a damaged file, and UnusableNumbers where the loss is not finite.
    """
    of = replace(mixture(setting), alpha=stage.alpha)
    optimizers = _optimizers(model, stage)
    done = 0
    if path is not None and path.exists():
        done = _load(path, model, optimizers)
        progress(stage.name, done)
    model.train()
    for step in range(done, stage.steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = stage.rate_at(step)
        rng = generator(setting.seed, stage.name, step)
        prompts = draw(of, setting.batch, setting.n_points, rng)
        goal = as_tensor(target(of, prompts, stage.target))
        found = model(as_tensor(prompts.x), as_tensor(prompts.y))
        loss = (found - goal).square().mean()
        if not math.isfinite(loss.item()):
            raise UnusableNumbers(
                f"loss of the {stage.name} model",
                expected="a finite number",
                found=f"{loss.item()} at step {step}",
                do="Lower the learning rate; delete the checkpoint, if one is kept.",
            )
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        done = step + 1
        if path is not None and (done % every == 0 or done == stage.steps):
            _save(path, model, optimizers, done)
        progress(stage.name, done)
    model.eval()


def target(of: Mixture, prompts: Prompts, name: str) -> np.ndarray:
    """Return what predictions are compared with, (n, k + 1); see Setting.target."""
    if name == "label":
        return prompts.y
    if name == "truth":
        return prompts.truth
    return infer_prefixes(of, *prompts.examples).predict(prompts.x)


def _optimizers(model: Regressor, stage: Stage) -> list[torch.optim.Optimizer]:
    """Return AdamW of all weights; or Muon of the layers' matrices, and AdamW of what is left."""
    if stage.optimizer == "adamw":
        return [torch.optim.AdamW(model.parameters(), stage.rate)]
    matrices = [p for p in model.backbone.h.parameters() if p.ndim == 2]
    own = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in own]
    return [Muon(matrices, stage.rate), torch.optim.AdamW(others, stage.rate)]


def _save(path: Path, model: Regressor, optimizers: list[torch.optim.Optimizer], done: int) -> None:
    remove_left_overs(path.parent, path.name)
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for place, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{place}/{name}": value for name, value in state.items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"done": str(done)})


def _load(path: Path, model: Regressor, optimizers: list[torch.optim.Optimizer]) -> int:
    try:
        with safe_open(path, "pt") as file:
            done = int(file.metadata()["done"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights = {name: tensors.pop(f"model/{name}") for name in model.state_dict()}
        model.load_state_dict(weights)
        # Groups are those of the optimisers as they are: the rate is set anew before each step.
        stored = [{**o.state_dict(), "state": {}} for o in optimizers]
        for name, value in tensors.items():
            _, i, place, kind = name.split("/")
            stored[int(i)]["state"].setdefault(int(place), {})[kind] = value
        for optimizer, state in zip(optimizers, stored, strict=True):
            optimizer.load_state_dict(state)
        return done
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, SafetensorError) as error:
        raise StoreError(
            f"checkpoint {path}",
            expected="weights and optimiser of these settings",
            found=in_a_line(error),
            do="It was damaged or written by another version: delete it, and training begins anew.",
        ) from error
