"""What a study will cost, before it is begun: jobs, examples, FLOPs, memory, disk and hours.

    forgetlib cost paper

`estimate` says it of a whole study, beside what its stored jobs took.

Tokens are counted in the study's own questions, and the engine's rate is measured here. FLOPs are
those of weights: two a weight and token forward, four backward. Attention's own are left out, a
few percent at these lengths. Where nothing is missing, nothing is loaded: torch, too, is imported
where an estimate begins.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from forgetlib.data import assets, splits
from forgetlib.data.base import Example
from forgetlib.errors import ModelError, in_a_line
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.labels import Labels
from forgetlib.models import catalogue
from forgetlib.runs.bench import every
from forgetlib.runs.grid import Study, open_store
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Checkpoint, Data, Measurement

if TYPE_CHECKING:
    from forgetlib.models import memory
    from forgetlib.models.lm import LM

SAMPLE = 40  # questions of a task whose tokens are counted
# Questions on which the rate is measured, of a model, and of layers of one that may be large.
N_MEASURED = {"cpu": 32, "cuda": 256, "mps": 32}
N_OF_LAYERS, N_TOKENS = {"cpu": 8, "cuda": 256, "mps": 8}, 64
GIB = 2**30
BYTES_A_SCORE = 30  # of a scored example in a packed file
# Shapes of the paper's models, where the hub cannot be reached: their architectures' defaults.
KNOWN: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": {"model_type": "llama"},
    "EleutherAI/gpt-j-6b": {"model_type": "gptj"},
    "openai-community/gpt2": {"model_type": "gpt2"},
}
CHARACTERS_A_TOKEN = 4  # of English text, where the model's tokenizer cannot be had


@dataclass(frozen=True)
class Rate:
    """Hold the FLOP/s of training and of scoring."""

    training: float
    scoring: float


@dataclass(frozen=True)
class Shape:
    """Hold a model's numbers of parameters, and the sizes that its activations grow with."""

    body: int
    embeddings: int  # input and output layer, once where they are one
    vocabulary: int
    n_layers: int
    hidden: int


@dataclass(frozen=True)
class Work:
    """Hold a job's examples, as often as they are passed, its FLOPs and how long examples are.

    longest: tokens of a mean example of the task with the longest ones
    """

    trained: int
    scored: int
    training: float
    scoring: float
    longest: float


def table(study: Study, section: str | None = None, rate: Rate | None = None) -> pd.DataFrame:
    """Estimate what of a study, or of a section of it, is not computed yet: one row a model.

    rate: None: measured here (`measured`)
    Columns: model, parameters, jobs, trained and scored (examples, as often as they are), PFLOP,
    memory_GiB (of the device, while it trains), weights_GiB (on disk, of a model that others start
    from) and results_MB, hours.
    """
    store = open_store(study)
    missing = [job for job in study.jobs(section) if not store.has(job)]
    if not missing:
        return pd.DataFrame()
    lost = splits.missing(sorted({t for job in missing for t in tasks_of(job)}))
    rows = []
    for model in study.models:
        jobs = [
            j
            for j in missing
            if j.checkpoint.model == model and lost.keys().isdisjoint(tasks_of(j))
        ]
        if jobs:
            speed = rate or measured(model, study.tuning, study.dtype)
            works = [work(j) for j in jobs]
            needs = [
                needed_memory(j.checkpoint, w.longest) for j, w in zip(jobs, works, strict=True)
            ]
            trained = next((j.checkpoint for j in jobs if j.checkpoint.method), jobs[0].checkpoint)
            rows.append(
                {
                    "model": model,
                    "parameters": shape(model).body + shape(model).embeddings,
                    "jobs": len(jobs),
                    "trained": sum(w.trained for w in works),
                    "scored": sum(w.scored for w in works),
                    "PFLOP": sum(w.training + w.scoring for w in works) / 1e15,
                    "memory_GiB": max(needs) / GIB,
                    "weights_GiB": n_trained(trained) * _bytes(study.dtype) / GIB,
                    "results_MB": sum(w.scored for w in works) * BYTES_A_SCORE / 1e6,
                    "hours": sum(seconds(w, speed) for w in works) / 3600,
                }
            )
    return pd.DataFrame(rows)


def tasks_of(job: Job) -> set[str]:
    """List the tasks whose data a job needs."""
    asked = {m.task for m in job.measurements if m.task}
    return asked | {t for c in job.checkpoint.lineage for t in c.given}


def seconds(done: Work, rate: Rate) -> float:
    """Compute how long work takes at a rate."""
    return done.training / rate.training + done.scoring / rate.scoring


def work(job: Job) -> Work:
    """Count what a job does, by the sizes of its data."""
    checkpoint = job.checkpoint
    form = shape(checkpoint.model)
    trained, scored, longest = 0, 0, 0.0
    training_flop = scoring_flop = 0.0

    def score(task: str, split: str, n: int, seed: int, times: int, ends: int = 1) -> None:
        nonlocal scored, scoring_flop, longest
        n_scored = len(splits.load(task, split, n, seed)) * times
        prompt, response = tokens(checkpoint.model, task)
        scored += n_scored
        scoring_flop += n_scored * _forward(form, prompt + 2 * response, 2 * response * ends)
        longest = max(longest, prompt + response)

    recorded, asked = (
        {(m.where, m.n, m.seed) for m in job.measurements if m.readout == readout}
        for readout in ("dynamics", "scores")
    )
    training = checkpoint.method.settings() if checkpoint.method else None
    for m in job.measurements:
        if not m.task:
            continue
        if m.fit_on:  # as much as scoring, but for the output layer
            score(m.task, "train", m.fit_on, m.seed, 1)
        if m.readout == "scores_in_training":
            n_steps = training.n_steps(checkpoint.n) if training else 0
            times = len(range(0, n_steps, every(m)))
            score(m.task, m.split, m.n, m.seed, times)
        elif m.readout == "dynamics":
            # The first record is the start's scores, the last the checkpoint's own, where those are
            # of the same questions.
            apart = (m.where, m.n, m.seed) not in asked
            score(m.task, m.split, m.n, m.seed, max(m.setting("records", 0), 1) + apart)
        elif m.readout == "scores" and (m.where, m.n, m.seed) in recorded:
            continue
        elif m.readout != "hidden_variance":  # states of the probe's
            # A lens has the output layer at the end of every layer.
            ends = form.n_layers + 1 if m.readout == "logit_lens" else 1
            score(m.task, m.split, m.n, m.seed, 1, ends)
    if training and checkpoint.data:
        for task in checkpoint.tasks:
            examples = splits.load(task, "train", checkpoint.n, checkpoint.data.seed)
            prompt, response = tokens(checkpoint.model, task)
            n = len(examples) * training.epochs
            trained += n
            backward = 1 if checkpoint.tuning == "lora" else 2  # towards input, and weights
            passes = 1 + backward + _passes(checkpoint).recompute
            training_flop += n * passes * _forward(form, prompt + response, response)
            longest = max(longest, prompt + response)
    return Work(trained, scored, training_flop, scoring_flop, longest)


def _forward(form: Shape, n_tokens: float, n_responses: float) -> float:
    """FLOPs of the tokens that meet the body, and of those of them that meet the vocabulary."""
    return 2.0 * (form.body * n_tokens + form.vocabulary * form.hidden * n_responses)


@cache
def tokens(model: str, task: str) -> tuple[float, float]:
    """Average the tokens of prompts and of responses over some of a task's training questions."""
    examples = splits.load(task, "train", SAMPLE, 0)
    texts = [e.prompts[0] for e in examples], [c for e in examples for c in e.choices]
    encode = tokenizer(model)
    if encode is None:
        prompt, response = (float(np.mean([len(t) / CHARACTERS_A_TOKEN for t in x])) for x in texts)
        return prompt, max(1.0, response)
    prompt, response = (float(np.mean([len(encode(t).input_ids) for t in x])) for x in texts)
    special = len(encode("").input_ids)
    return prompt, response - special


@cache
def tokenizer(model: str) -> Any:
    """Load a model's tokenizer; None of an embedded model that would have to be downloaded."""
    from transformers import AutoTokenizer

    from forgetlib.models import loading, synthetic

    if model in synthetic.TINY_WIDTHS:
        return loading.load(model, device="cpu").tokenizer
    embedded = catalogue.find(model)
    if embedded is not None and not assets.has_model(embedded):
        return None
    source = loading.source_of(model)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError):
        return None


@cache
def shape(model: str) -> Shape:
    """Read a model's sizes from its configuration; no weights are read."""
    import torch
    from transformers import AutoModelForCausalLM

    from forgetlib.models import loading, synthetic

    lm: Any
    if model in synthetic.TINY_WIDTHS:
        lm = loading.load(model, device="cpu").model
    else:
        with torch.device("meta"):
            lm = AutoModelForCausalLM.from_config(_config(model))
    return _shape_of(lm)


def _config(model: str) -> Any:
    from transformers import AutoConfig

    try:
        if embedded := catalogue.find(model):
            return AutoConfig.for_model(**embedded.config)
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if model not in KNOWN:
            raise ModelError(
                f"model {model!r}",
                expected="a folder or hub id with a configuration",
                found=in_a_line(error),
                do="Check the name and the network.",
            ) from error
        return AutoConfig.for_model(**KNOWN[model])


def _shape_of(lm: Any) -> Shape:
    ends = (lm.get_input_embeddings(), lm.get_output_embeddings())
    embeddings = sum({id(p): p.numel() for part in ends for p in part.parameters()}.values())
    total = sum(p.numel() for p in lm.parameters())
    vocabulary, hidden = lm.get_output_embeddings().weight.shape
    return Shape(total - embeddings, embeddings, vocabulary, lm.config.num_hidden_layers, hidden)


def n_trained(checkpoint: Checkpoint) -> int:
    """Count the parameters that are trained."""
    from forgetlib.models import tuning

    form = shape(checkpoint.model)
    return {
        "body": form.body,
        "full": form.body + form.embeddings,
        # Two thin matrices for each of about seven square ones in a layer.
        "lora": form.n_layers * 14 * tuning.LORA_RANK * form.hidden,
    }[checkpoint.tuning]


def _passes(checkpoint: Checkpoint) -> memory.Passes:
    """Tell how its backward passes would be on the device that is here."""
    from forgetlib.engine.device import free_memory
    from forgetlib.models import loading, memory

    form, device = shape(checkpoint.model), loading.pick_device()
    return memory.passes(
        device.type,
        form.body + form.embeddings,
        form.n_layers,
        form.hidden,
        _bytes(checkpoint.dtype),
        room=free_memory(device) - _held(checkpoint) if device.type == "cuda" else None,
    )


def _held(checkpoint: Checkpoint) -> int:
    """Count the bytes that are there all the time: weights, and what training keeps of each."""
    from forgetlib.models import memory

    form, wide = shape(checkpoint.model), _bytes(checkpoint.dtype)
    held = (form.body + form.embeddings) * wide
    training = checkpoint.method.settings() if checkpoint.method else None
    if training is not None:
        held += memory.training_state(n_trained(checkpoint), wide, training.optimizer)
    return held


def needed_memory(checkpoint: Checkpoint, longest: float) -> float:
    """Estimate the bytes that the device needs while a checkpoint is trained.

    Weights; of trained ones gradient, fp32 master and the optimiser's state; activations of one
    pass. Of one that is not trained, weights and as many activations: an upper bound.
    """
    from forgetlib.models import memory

    form, passes = shape(checkpoint.model), _passes(checkpoint)
    training = checkpoint.method.settings() if checkpoint.method else None
    batch = 1 if training is None else training.batch_size
    n_tokens = max(min(passes.tokens, batch * longest), longest)
    wide = _bytes(checkpoint.dtype)
    return _held(checkpoint) + memory.activations(
        n_tokens, form.n_layers, form.hidden, wide, passes.recompute
    )


def _bytes(dtype: str) -> int:
    return {"bfloat16": 2, "float32": 4}[dtype]


@cache
def measured(model: str, tuning: str, dtype: str) -> Rate:
    """Measure the engine's rate here, on a few questions.

    Of the model where it is a folder, or embedded and here already, else of two layers of its
    shape with random weights: nothing is downloaded for an estimate.
    """
    from forgetlib.forgetting import loop
    from forgetlib.forgetting.context import Context
    from forgetlib.measuring import scoring

    lm, examples, todo = _to_measure(model, tuning, dtype)
    method = Labels("true", Training(1e-6, epochs=1))
    loop.train(lm, method, Context(0, examples[: len(examples) // 4]))  # first steps are slow
    started = time.perf_counter()
    loop.train(lm, method, Context(0, examples))
    between = time.perf_counter()
    scoring.score(lm, examples)
    ended = time.perf_counter()
    return Rate(todo.training / (between - started), todo.scoring / (ended - between))


def _to_measure(model: str, tuning: str, dtype: str) -> tuple[LM, tuple[Example, ...], Work]:
    """Load what a rate is measured on, and say what training and scoring it once is."""
    import torch

    from forgetlib.models import loading, synthetic

    embedded, device = catalogue.find(model), loading.pick_device()
    is_here = Path(model).is_dir() if embedded is None else assets.has_model(embedded)
    if model in synthetic.TINY_WIDTHS or is_here:
        n = N_MEASURED[device.type]
        task = "tiny_city" if model in synthetic.TINY_WIDTHS else "piqa"
        method, data = Labels("true", Training(1e-6, epochs=1)), Data((task,), n)
        checkpoint = Checkpoint(model, method, None, data, tuning=tuning, dtype=dtype)
        todo = work(Job(checkpoint, (Measurement("scores", task, "train", n),)))
        lm = loading.load(model, tuning=tuning, dtype=dtype)
        return lm, tuple(splits.load(task, "train", n, 0)), todo
    whole, n = shape(model), N_OF_LAYERS[device.type]
    made = synthetic.shaped(_config(model), 2, getattr(torch, dtype), device)
    lm = loading.prepare(model, *made, device, tuning=tuning, recompute=False)
    form = replace(whole, body=whole.body * 2 // whole.n_layers, n_layers=2)
    # The last token of an answer is not fed to the model; both answers go on from one prompt.
    training = (2 if tuning == "lora" else 3) * n * _forward(form, N_TOKENS - 1, 2)
    todo = Work(n, n, training, n * _forward(form, N_TOKENS, 4), N_TOKENS)
    return lm, synthetic.questions(n, N_TOKENS), todo
