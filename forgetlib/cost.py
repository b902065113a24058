"""What a study will cost, before it is begun: runs, examples, FLOPs, memory, disk and hours.

    python -m forgetlib.experiment paper --cost

Tokens are counted in the study's own questions, and the engine's rate is measured here. FLOPs are
those of weights: two a weight and token forward, four backward. Attention's own are left out, a
few percent at these lengths. Where nothing is missing, nothing is loaded: torch, too, is imported
where an estimate begins.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forgetlib import assets, catalogue, tasks
from forgetlib.experiment import Study, open_store
from forgetlib.schema import RunSpec, TrainConfig, require_number

SAMPLE = 40  # questions of a task whose tokens are counted
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
    """FLOP/s of training and of scoring."""

    training: float
    scoring: float


@dataclass(frozen=True)
class Shape:
    """A model's numbers of parameters, and the sizes that its activations grow with."""

    body: int
    embeddings: int  # input and output layer, once where they are one
    vocabulary: int
    n_layers: int
    hidden: int


@dataclass(frozen=True)
class Work:
    """Of a run: examples, as often as they are trained or scored; FLOPs; tokens of the longest."""

    trained: int
    scored: int
    training: float
    scoring: float
    longest: float


def table(study: Study, part: str | None = None, rate: Rate | None = None) -> pd.DataFrame:
    """What of a study, or of a part of it, is not computed yet: one row a model.

    rate: None: measured here, with the model or, where it cannot be loaded, the embedded one
    Columns: model, parameters, runs, trained and scored (examples, as often as they are), PFLOP,
    memory_GiB (of the device, while it trains), weights_GiB (on disk, of a model that others start
    from) and results_MB, hours.
    """
    store = open_store(study)
    missing = [s for s in study.specs(part) if s.run_id not in store]
    if not missing:
        return pd.DataFrame()
    lost = tasks.missing({t: None for s in missing for t in (*s.train_tasks, *s.eval_tasks)})
    rows = []
    for model in study.models:
        specs = [
            s
            for s in missing
            if s.model == model and lost.keys().isdisjoint((*s.train_tasks, *s.eval_tasks))
        ]
        if specs:
            speed = rate or measured(model, study.tuning, study.dtype)
            works = [work(s) for s in specs]
            needs = [needed_memory(s, w.longest) for s, w in zip(specs, works, strict=True)]
            rows.append(
                {
                    "model": model,
                    "parameters": shape(model).body + shape(model).embeddings,
                    "runs": len(specs),
                    "trained": sum(w.trained for w in works),
                    "scored": sum(w.scored for w in works),
                    "PFLOP": sum(w.training + w.scoring for w in works) / 1e15,
                    "memory_GiB": max(needs) / GIB,
                    "weights_GiB": n_trained(specs[0]) * _bytes(study.dtype) / GIB,
                    "results_MB": sum(w.scored for w in works) * BYTES_A_SCORE / 1e6,
                    "hours": sum(seconds(w, speed) for w in works) / 3600,
                }
            )
    return pd.DataFrame(rows)


def seconds(done: Work, rate: Rate) -> float:
    return done.training / rate.training + done.scoring / rate.scoring


def work(spec: RunSpec) -> Work:
    """What a run does, by the sizes of its data."""
    form = shape(spec.model)
    n_records = (spec.train.record_steps + 1) if spec.train else 1
    parts = [(t, "train", spec.n_train, n_records) for t in spec.train_tasks]
    parts += [(t, "test", spec.n_eval, 1) for t in spec.eval_tasks]
    trained, scored, longest = 0, 0, 0.0
    training_flop = scoring_flop = 0.0
    for task, part, n, times in parts:
        examples = tasks.load(task, part, n, spec.seed)
        prompt, response = tokens(spec.model, task)
        times += spec.probe  # as much as scoring, but for the output layer
        n_scored = len(examples) * times
        scored += n_scored
        scoring_flop += n_scored * _forward(form, prompt + 2 * response, 2 * response)
        longest = max(longest, prompt + response)
        if part == "train" and spec.train:
            n = len(examples) * spec.train.epochs
            trained += n
            backward = 1 if spec.tuning == "lora" else 2  # towards the input, and the weights
            passes = 1 + backward + _recomputes(form)
            training_flop += n * passes * _forward(form, prompt + response, response)
    return Work(trained, scored, training_flop, scoring_flop, longest)


def _forward(form: Shape, n_tokens: float, n_responses: float) -> float:
    """FLOPs of the tokens that meet the body, and of those of them that meet the vocabulary."""
    return 2.0 * (form.body * n_tokens + form.vocabulary * form.hidden * n_responses)


@cache
def tokens(model: str, task: str) -> tuple[float, float]:
    """Mean tokens of a prompt and of a response, of a sample of a task's training questions."""
    examples = tasks.load(task, "train", SAMPLE, 0)
    texts = [e.prompts[0] for e in examples], [c for e in examples for c in e.choices]
    tokenizer = _tokenizer(model)
    if tokenizer is None:
        prompt, response = (float(np.mean([len(t) / CHARACTERS_A_TOKEN for t in x])) for x in texts)
        return prompt, max(1.0, response)
    prompt, response = (float(np.mean([len(tokenizer(t).input_ids) for t in x])) for x in texts)
    special = len(tokenizer("").input_ids)
    return prompt, response - special


@cache
def _tokenizer(model: str) -> Any:
    """The model's tokenizer; None where it is not here, and would have to be downloaded."""
    from transformers import AutoTokenizer

    from forgetlib import models

    if model in models.TINY_WIDTHS:
        return models.load(model, device="cpu").tokenizer
    embedded = catalogue.find(model)
    if embedded is not None and not assets.has_model(embedded):
        return None
    source = models.source_of(model)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError):
        return None


@cache
def shape(model: str) -> Shape:
    """A model's sizes by its configuration; no weights are read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from forgetlib import models

    lm: Any
    if model in models.TINY_WIDTHS:
        lm = models.load(model, device="cpu").model
    else:
        try:
            if embedded := catalogue.find(model):
                config = AutoConfig.for_model(**embedded.config)
            else:
                config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        except (OSError, ValueError) as error:
            if model not in KNOWN:
                raise models.ModelError(
                    f"model {model!r}",
                    expected="a folder or hub id with a configuration",
                    found=" ".join(str(error).split())[:300],
                    do="Check the name and the network.",
                ) from error
            config = AutoConfig.for_model(**KNOWN[model])
        with torch.device("meta"):
            lm = AutoModelForCausalLM.from_config(config)
    ends = (lm.get_input_embeddings(), lm.get_output_embeddings())
    embeddings = sum({id(p): p.numel() for part in ends for p in part.parameters()}.values())
    total = sum(p.numel() for p in lm.parameters())
    vocabulary, hidden = lm.get_output_embeddings().weight.shape
    return Shape(total - embeddings, embeddings, vocabulary, lm.config.num_hidden_layers, hidden)


def n_trained(spec: RunSpec) -> int:
    """Trained parameters."""
    from forgetlib import models

    form = shape(spec.model)
    return {
        "body": form.body,
        "full": form.body + form.embeddings,
        # Two thin matrices for each of about seven square ones in a layer.
        "lora": form.n_layers * 14 * models.LORA_RANK * form.hidden,
    }[spec.tuning]


def _recomputes(form: Shape) -> bool:
    from forgetlib import models

    return form.body + form.embeddings > models.RECOMPUTED_SIZE


def needed_memory(spec: RunSpec, longest: float) -> float:
    """Bytes that the device needs while a run trains.

    Weights; of trained ones gradient, fp32 master and the optimiser's state; activations of one
    pass, of which every layer keeps about 24 vectors a token, or 2 where they are computed again.
    Of a run that does not train, weights and as many activations: an upper bound.
    """
    from forgetlib import models, training

    form, wide = shape(spec.model), _bytes(spec.dtype)
    trained = 0 if spec.train is None else n_trained(spec)
    lean = spec.train is not None and spec.train.optimizer == "adafactor"
    state = 4 + (0 if lean else 8)
    kept = 2 if _recomputes(form) else 24
    batch = 1 if spec.train is None else spec.train.batch_size
    n_tokens = max(min(training.TOKEN_BUDGET[models.pick_device().type], batch * longest), longest)
    activations = n_tokens * form.hidden * wide * (kept * form.n_layers + 24)
    everything = (form.body + form.embeddings) * wide + trained * (wide + state) + activations
    return everything


def _bytes(dtype: str) -> int:
    return {"bfloat16": 2, "float32": 4}[dtype]


@cache
def measured(model: str, tuning: str, dtype: str) -> Rate:
    """The engine's rate here, on a few questions.

    Of the model where it is here already, else of Gemma-3-270M: nothing large is downloaded for an
    estimate.
    """
    from forgetlib import models, scoring, training

    embedded = catalogue.find(model)
    is_here = Path(model).is_dir() if embedded is None else assets.has_model(embedded)
    if model not in models.TINY_WIDTHS and not is_here:
        model = "embedded"
    lm = models.load(model, tuning=tuning, dtype=dtype)
    task = "tiny_city" if model in models.TINY_WIDTHS else "piqa"
    settings = TrainConfig(1e-6, epochs=1)
    spec = RunSpec((task,), "true", 32, 1, train=settings, model=model, tuning=tuning, dtype=dtype)
    examples = tasks.load(task, "train", spec.n_train, spec.seed)
    truth = np.array([e.label for e in examples])
    todo = work(spec)
    training.finetune(lm, examples[:8], truth[:8], settings, 0)  # the first steps are slow
    started = time.perf_counter()
    training.finetune(lm, examples, truth, settings, 0)
    between = time.perf_counter()
    scoring.score(lm, examples)
    ended = time.perf_counter()
    return Rate(todo.training / (between - started), todo.scoring / (ended - between))


def report(study: Study, part: str | None = None, tflops: float | None = None) -> str:
    """The table as text; and how long the stored runs took, beside what this estimate says of them.

    It says so where something is missing, or `tflops` is given: else nothing has to be loaded.

    tflops: the rate of training and scoring on another machine; None: measured on this one
    """
    rate = None
    if tflops is not None:
        tflops = require_number("--tflops", tflops, "a number above 0", lambda x: x > 0)
        rate = Rate(tflops * 1e12, tflops * 1e12)
    found = table(study, part, rate)
    store, specs = open_store(study), study.specs(part)
    stored = [s for s in specs if s.run_id in store]
    lines = [f"{study.name}: {study.description}", "nothing is missing"]
    if not found.empty:
        lines[1] = found.round(2).to_string(index=False)
    elif lacking := len(specs) - len(stored):
        lines[1] = f"{lacking} runs are missing, and so are the data of their tasks"
    estimated = rate is not None or not found.empty
    if estimated:
        lost = tasks.missing({t: None for s in stored for t in (*s.train_tasks, *s.eval_tasks)})
        stored = [s for s in stored if lost.keys().isdisjoint((*s.train_tasks, *s.eval_tasks))]
    if stored:
        took = sum(store.read(s.run_id).provenance.get("seconds", 0) for s in stored)
        lines.append(
            f"{len(stored)} runs are stored; they took {took / 3600:.2f} hours where they were "
            "computed"
        )
    if stored and estimated:
        guess = sum(seconds(work(s), rate or measured(s.model, s.tuning, s.dtype)) for s in stored)
        lines[-1] += f", and would take {guess / 3600:.2f} by this estimate"
    return "\n".join(lines)
