"""Measure forgetlib beside lm-eval's HFLM and Hugging Face's Trainer on this machine, in one run.

    python tests/bench.py [--quick] [--only scoring,training,growth,memory]
    python tests/bench.py memory ours-training     one memory job: its last line is GiB

The machine's speed drifts, so the tools take turns, and every comparison is a ratio of times that
were measured one after the other: the median of the rounds, with the smallest and the largest.
Between any two measurements stands one of the machine's matmul rate. Loading is never included.
A full run writes figures/bench/<processor>.*, any other .work/bench/<processor>.*.
"""

import argparse
import gc
import logging
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
import transformers
from gpu import now
from helpers import finetune
from matplotlib.figure import Figure
from torch import nn
from transformers.trainer_callback import PrinterCallback

from forgetlib import files
from forgetlib.data import splits, tasks
from forgetlib.data.base import Example
from forgetlib.figures import style
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.labels import training_labels
from forgetlib.measuring import scoring
from forgetlib.models import forward, loading
from forgetlib.models.likelihood import OutputLayer
from forgetlib.models.lm import LM, causal_lm, vocabulary_size
from forgetlib.runs import provenance

ROUNDS = 3
SCORED = ("arc_easy", "piqa", "boolq", "hellaswag", "sst2")
N_SCORED, N_TRIED = 48, 16  # questions a task; those on which lm-eval's batch size is chosen
TRAINED = {"piqa": 96, "sst2": 96, "boolq": 48}  # examples
COMPARED = ("piqa", "sst2")  # with Trainer; boolq is for the share of the peak only
N_TRAINER, N_TRAINER_TRIED = 16, 8  # examples a round; those on which its batch size is chosen
N_OURS_TRIED = 32
COUNTS, LENGTHS, N_LENGTH = (16, 32, 64, 128), (32, 64, 128, 256, 512), 16
LONGEST_STEP = 30.0  # seconds; where a step of Trainer would take longer, it is left out
CONFIG = Training(learning_rate=1e-6, epochs=1, batch_size=8)
HARNESS_SIZES = {"cpu": (1, 4, 16), "cuda": (1, 4, 16, 64)}
TRAINER_SIZES = {"cpu": (2, 4, 8, 16), "cuda": (2, 4, 8, 16, 32, 64)}
OUR_SIZES = {"cpu": (8, 16), "cuda": (8, 16, 32, 64)}
FIXED_SIZE = {"cpu": 4, "cuda": 16}  # of both, where prompt length or memory is in question
# Bytes a logit at their peaks. lm-eval: the last batch's bf16 log-softmax, logits, log-softmax.
# Trainer's backward pass: fp32 log-softmax and its gradients on both sides, the bf16 gradient.
HARNESS_BYTES, TRAINER_BYTES = 6, 14
JOBS = ("ours-scoring", "lm-eval-scoring", "ours-training", "Trainer-training", "ours-longest")
TOOLS = {
    "ours": style.BLUE,
    "lm-eval": style.ORANGE,
    "Trainer": style.GREY,
    "Trainer, bf16 weights": style.LIGHT,
}
COLUMNS = ("section", "task", "tool", "setting", "quantity", "unit", "value", "low", "high")


@dataclass
class Run:
    """lm is ours, harness has lm-eval's own copy of the model, trained what Trainer trains.

    square: the matrix whose product with itself shows the machine's speed; peaks: its FLOP/s
    rows: COLUMNS of all that was measured
    """

    lm: LM
    harness: Any  # HFLM
    trained: dict  # by the tool's name
    square: torch.Tensor
    quick: bool
    rows: list = field(default_factory=list)
    peaks: list = field(default_factory=list)

    def amount(self, n):
        """How many examples: n on a CPU, more where they take less time, fewer to try it out."""
        n = 8 * n if self.lm.device.type == "cuda" else n
        return max(4, n // 10) if self.quick else n


def report(run, where, quantity, unit, values):
    """Keep and print a row: the median of the rounds' values, with the smallest and the largest.

    where: section/task/tool/setting; values: one a round, or a single number
    """
    values = np.atleast_1d(np.asarray(values, float))
    ends = (values.min(), values.max()) if len(values) > 1 else (np.nan, np.nan)
    names = where.split("/")
    run.rows.append((*names, quantity, unit, np.median(values), *ends))
    text = "".join(name.ljust(n) for name, n in zip(names, (9, 10, 15, 9), strict=True))
    between = "[{:.4g}, {:.4g}]".format(*ends) if len(values) > 1 else ""
    print(f"{text}{quantity:<38}{np.median(values):>9.4g} {between:<18} {unit}", flush=True)


def measure_peak(run):
    """FLOP/s of a bf16 product of two 4096 x 4096 matrices, the better of two tries."""
    n, seconds = 50 if run.square.is_cuda else 1, []
    for _ in range(2):
        started = now(run.square.device)
        for _ in range(n):
            torch.mm(run.square, run.square)
        seconds.append((now(run.square.device) - started) / n)
    run.peaks.append(2 * len(run.square) ** 3 / min(seconds))


def timed(run, function, *arguments):
    """Seconds of a call, and its result; the matmul rate is measured before it."""
    measure_peak(run)
    started = now(run.lm.device)
    result = function(*arguments)
    return now(run.lm.device) - started, result


def unless_too_large(lm, n_tokens, bytes_a_logit, function):
    """function(), or nan where the logits of so many padded tokens do not fit into memory.

    Looked at beforehand, as Linux kills a process that takes too much rather than telling it.
    """
    free = psutil.virtual_memory().available
    if lm.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(lm.device)
        free += torch.cuda.memory_reserved(lm.device) - torch.cuda.memory_allocated(lm.device)
    if n_tokens * vocabulary_size(lm) * bytes_a_logit > 0.8 * free:
        return np.nan
    try:
        return function()
    except RuntimeError as error:  # out of the device's memory
        print(f"left out: {str(error)[:200]}", flush=True)
        return np.nan
    finally:
        gc.collect()  # Trainer and its optimiser's state are in a circle of references
        torch.cuda.empty_cache()


def best_size(run, where, unit, sizes, seconds):
    """The fastest of the batch sizes. seconds(size): of an example, nan without the memory."""
    found = {}
    for size in sizes:
        found[size] = seconds(size)
        report(run, f"{where}/batch {size}", "rate tried", unit, 1 / found[size])
    return min(found, key=lambda size: np.nan_to_num(found[size], nan=np.inf))


# --- scoring -------------------------------------------------------------------------------------


def load_harness(tokenizer, device):
    """HFLM with a copy of the model that it loads itself."""
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = loading.source_of("embedded")
    settings = {"dtype": "bfloat16", "backend": "causal", "add_bos_token": True}
    return HFLM(folder, tokenizer=tokenizer, device=str(device), **settings)


def harness_scores(harness, examples, size):
    """(N, 2) log-likelihoods, in nats, of both choices of every question."""
    from lm_eval.api.instance import Instance

    harness.batch_size_per_gpu = size
    pairs = [(p, f" {c}") for e in examples for p, c in zip(e.prompts, e.choices, strict=True)]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    values = harness.loglikelihood(requests, disable_tqdm=True)
    return np.array([value for value, _ in values]).reshape(len(examples), -1)


def best_harness_size(run, task, examples):
    """The fastest batch size on the first questions, of those with memory for all of them."""
    longest = max(len(s.tokens) for e in scoring.encode_all(run.lm, examples) for s in e)
    first = examples[: run.amount(N_TRIED)]

    def seconds(size):
        def measure():
            return timed(run, harness_scores, run.harness, first, size)[0] / len(first)

        return unless_too_large(run.lm, size * longest, HARNESS_BYTES, measure)

    sizes = HARNESS_SIZES[run.lm.device.type]
    return best_size(run, f"scoring/{task}/lm-eval", "questions/s", sizes, seconds)


def bench_scoring(run):
    """Questions a second, on both tools the same requests: both choices of every question."""
    times = []  # (tasks, rounds, ours and theirs) seconds
    for task in SCORED:
        examples = splits.load(task, "test", run.amount(N_SCORED), 0)
        scoring.score(run.lm, examples[:8])  # warm up; the search for a batch size does theirs
        size = best_harness_size(run, task, examples)
        rounds = []
        for _ in range(ROUNDS):
            ours, scores = timed(run, scoring.score, run.lm, examples)
            theirs, values = timed(run, harness_scores, run.harness, examples, size)
            rounds.append((ours, theirs))
        times.append(rounds)
        ours, theirs = len(examples) / np.array(rounds).T
        both = f"scoring/{task}/ours, lm-eval/"
        report(run, f"scoring/{task}/ours/", "rate", "questions/s", ours)
        report(run, f"scoring/{task}/lm-eval/batch {size}", "rate", "questions/s", theirs)
        report(run, both, "ratio of rates", "", ours / theirs)
        apart = np.abs(scores.log_likelihoods - values).max()
        report(run, both, "largest difference of log-likelihoods", "nats", apart)
        equal = 100 * np.mean(scores.log_likelihoods.argmax(1) == values.argmax(1))
        report(run, both, "equal predictions", "%", equal)
    ours, theirs = np.sum(times, axis=0).T
    report(run, "scoring/all/ours, lm-eval/", "ratio of total times", "", theirs / ours)


# --- fine-tuning ---------------------------------------------------------------------------------


class StepClock(transformers.TrainerCallback):
    """Seconds at the beginning and the end of every step."""

    def __init__(self, device):
        self.device, self.begun, self.ended = device, [], []

    def on_step_begin(self, args, state, control, **kwargs):
        self.begun.append(now(self.device))

    def on_step_end(self, args, state, control, **kwargs):
        self.ended.append(now(self.device))


def load_plain(tokenizer, device, dtype):
    """The model as Transformers makes it, with none of our changes, for Trainer.

    As for ours, the token embeddings are frozen. With fp32 weights Trainer computes in bf16 by
    autocast: mixed precision, as ours. With bf16 weights it has no fp32 masters, so that updates
    smaller than a 256th of a weight are lost; that is faster, and another training.
    """
    folder = Path(loading.source_of("embedded"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        part.requires_grad_(False)
    return plain(model, tokenizer, device)


def plain(model, tokenizer, device):
    """A model as it is, with what Trainer's part of a comparison needs of it."""
    output = OutputLayer(causal_lm(model).get_output_embeddings())
    longest = causal_lm(model).config.max_position_embeddings
    return LM("plain", model.to(device), tokenizer, device, output, longest)


def encoded(lm, examples, labels):
    """Prompt and trained choice of every example as tokens."""
    return [forward.encode(lm, e, int(label)) for e, label in zip(examples, labels, strict=True)]


def spread(lm, sequences, size, n):
    """About n of the sequences as batches of neighbours in length, and one before to warm up.

    Such batches are what Trainer's group_by_length makes of a large data set. On one as small as
    this it groups little, and puts the longest first; so Trainer takes these in their order. They
    lie evenly over the lengths, so that few of them stand for all. On a CPU the warm-up may be
    short; on CUDA it is the longest, so that memory is there, or lacking, from the beginning.
    """
    ordered = sorted(sequences, key=lambda s: len(s.tokens))
    steps = max(1, min(n, len(ordered)) // size)
    starts = [int((i + 0.5) * len(ordered) / steps - size / 2) for i in range(steps)]
    warm_up = ordered[-size:] if lm.device.type == "cuda" else ordered[:size]
    return [warm_up, *(ordered[start : start + size] for start in starts)]


def trainer_seconds(lm, batches):
    """Trainer's seconds an example in its steps after the first; nan where memory does not do.

    batches: of token sequences, all of the same size
    """
    size, clock = len(batches[0]), StepClock(lm.device)
    sequences = [s for batch in batches for s in batch]
    features = []  # the loss is on the response only: -100 elsewhere
    for tokens, n in ((list(s.tokens), s.n_response) for s in sequences):
        features.append({"input_ids": tokens, "labels": [-100] * (len(tokens) - n) + tokens[-n:]})

    def train(folder):
        settings = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=size,
            max_steps=len(batches),
            train_sampling_strategy="sequential",
            learning_rate=CONFIG.learning_rate,
            max_grad_norm=CONFIG.max_grad_norm,
            optim="adamw_torch_fused",
            use_cpu=lm.device.type == "cpu",
            bf16=lm.model.dtype == torch.float32,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        pad = transformers.DataCollatorForSeq2Seq(lm.tokenizer)  # to the longest of the batch
        trainer = transformers.Trainer(lm.model, settings, pad, features, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)  # prints a summary
        trainer.train()
        return float(np.mean(np.subtract(clock.ended, clock.begun)[1:])) / size

    n_tokens = size * max(len(s.tokens) for s in sequences)
    with tempfile.TemporaryDirectory() as folder:
        return unless_too_large(lm, n_tokens, TRAINER_BYTES, lambda: train(folder))


def trainer_batches(run, tool, task, sequences):
    """Batches of the size that is the fastest on a few steps."""
    lm = run.trained[tool]

    def seconds(size):
        return trainer_seconds(lm, spread(lm, sequences, size, run.amount(N_TRAINER_TRIED)))

    sizes = [size for size in TRAINER_SIZES[lm.device.type] if size <= len(sequences)]
    size = best_size(run, f"training/{task}/{tool}", "examples/s", sizes, seconds)
    return spread(lm, sequences, size, max(run.amount(N_TRAINER), 2 * size))


def training_flops(lm, sequences):
    """Floating-point operations that training on every sequence once needs, each counted once.

    A multiplication and an addition are two. Parameters of the body's linear layers: 6 a token,
    2 forward and 4 backward. Attention: 12 T^2 / 2 for every layer, head and dimension of a head,
    as a token sees half of the others on average. The output layer, V x D, meets the response's
    tokens only: 2 V D forward and 2 V D for the gradient of the hidden state; it is frozen itself.
    Neither padding nor anything computed twice counts, nor norms, activations and the optimiser.
    """
    body, config = lm.model.base_model, lm.model.config.get_text_config()
    linear = sum(m.weight.numel() for m in body.modules() if isinstance(m, nn.Linear))
    heads = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    head = 4 * vocabulary_size(lm) * config.hidden_size
    lengths = np.array([len(s.tokens) for s in sequences], float)
    n_response = sum(s.n_response for s in sequences)
    return 6 * linear * lengths.sum() + 12 * heads * (lengths**2).sum() / 2 + head * n_response


def our_seconds(run, examples, labels, size):
    """Our seconds an example: in the steps after the first, as Trainer's, and of the whole call."""
    ends, config = [], replace(CONFIG, batch_size=size)

    def on_step(step, steps):
        ends.append(now(run.lm.device))

    whole, _ = timed(run, finetune, run.lm, examples, labels, config, 0, on_step)
    return (ends[-1] - ends[0]) / (len(examples) - size), whole / len(examples)


def bench_training(run):
    """Fine-tuning beside Trainer, and the share of the machine's matmul rate that it reaches."""
    for task, n in TRAINED.items():
        examples = splits.load(task, "train", run.amount(n), 0)
        labels = training_labels(examples, "true", 0)
        sequences = encoded(run.lm, examples, labels)
        finetune(run.lm, examples[:8], labels[:8], CONFIG, 0)  # warm up

        def seconds(size, examples=examples, labels=labels):
            n = max(run.amount(N_OURS_TRIED), 2 * size)
            return our_seconds(run, examples[:n], labels[:n], size)[0]

        sizes = [s for s in OUR_SIZES[run.lm.device.type] if 2 * s <= len(examples)] or [4]
        size = best_size(run, f"training/{task}/ours", "examples/s", sizes, seconds)
        tools = run.trained if task in COMPARED else {}
        batches = {tool: trainer_batches(run, tool, task, sequences) for tool in tools}
        ours, whole, peak, theirs = [], [], [], {tool: [] for tool in tools}
        for _ in range(ROUNDS):
            in_steps, in_all = our_seconds(run, examples, labels, size)
            measure_peak(run)
            ours.append(in_steps)
            whole.append(in_all)
            peak.append(np.mean(run.peaks[-2:]))
            for tool in tools:
                theirs[tool].append(trainer_seconds(run.trained[tool], batches[tool]))
        ours, peak = np.array(ours), np.array(peak)  # seconds an example; FLOP/s beside ours
        mine = f"training/{task}/ours/batch {size}"
        report(run, mine, "rate", "examples/s", 1 / ours)
        report(run, mine, "rate, set-up included", "examples/s", 1 / np.array(whole))
        for tool, found in theirs.items():
            where = f"training/{task}/{tool}/batch {len(batches[tool][0])}"
            report(run, where, "rate", "examples/s", 1 / np.array(found))
            pair = f"training/{task}/ours, {tool}/"
            report(run, pair, "ratio of rates", "", np.array(found) / ours)
        flops = training_flops(run.lm, sequences) / len(sequences)
        report(run, mine, "model FLOP an example", "GFLOP", flops / 1e9)
        report(run, mine, "model FLOP rate", "TFLOP/s", flops / ours / 1e12)
        report(run, mine, "share of the matmul rate beside it", "%", 100 * flops / ours / peak)


# --- growth and memory ---------------------------------------------------------------------------


def bench_counts(run):
    """Seconds an example of more and more examples, and the slope of log time on log number."""
    counts = sorted({run.amount(n) for n in COUNTS})
    test, train = (splits.load("arc_easy", part, counts[-1], 0) for part in ("test", "train"))
    labels = training_labels(train, "true", 0)
    jobs = {
        "scoring": lambda n: scoring.score(run.lm, test[:n]),
        "training": lambda n: finetune(run.lm, train[:n], labels[:n], CONFIG, 0),
    }
    for what, function in jobs.items():
        function(8)  # warm up
        seconds = [timed(run, function, n)[0] for n in counts]
        for n, s in zip(counts, seconds, strict=True):
            report(run, f"growth/arc_easy/ours/{n}", f"{what} by number", "s/example", s / n)
        slope = np.polyfit(np.log(counts), np.log(seconds), 1)[0]
        report(run, "growth/arc_easy/ours/", f"{what}: slope (1: linear)", "", slope)


def made_up(lm, n_tokens, n):
    """n questions of about n_tokens tokens each: BoolQ's passages, repeated and cut."""
    examples = []
    for number, source in enumerate(splits.load("boolq", "test", n, 0)):
        text = f"{source.prompts[0]}\n" * (1 + n_tokens // 20)
        tokens = lm.tokenizer(text, add_special_tokens=False).input_ids
        # Five more: the beginning of the text, "\n", "Answer", ":" and the response.
        prompt = lm.tokenizer.decode(tokens[: n_tokens - 5]) + "\nAnswer:"
        uid = f"length/{n_tokens}/{number}"
        examples.append(Example(uid, (prompt, prompt), ("no", "yes"), number % 2))
    return examples


def bench_lengths(run):
    """Rates of all tools on longer and longer prompts, lm-eval and Trainer with one batch size."""
    n = run.amount(N_LENGTH)
    size = min(n, FIXED_SIZE[run.lm.device.type])
    warm_up, expected = [], 0.0
    for length in LENGTHS:
        examples = made_up(run.lm, length, n)
        labels = training_labels(examples, "true", 0)
        jobs = (
            ("ours", "scoring", scoring.score, run.lm, examples),
            ("lm-eval", "scoring", harness_scores, run.harness, examples, size),
            ("ours", "training", finetune, run.lm, examples, labels, CONFIG, 0),
        )
        for tool, what, function, *arguments in jobs:
            if not warm_up:
                function(*arguments)
            rate = n / timed(run, function, *arguments)[0]
            report(run, f"growth/made up/{tool}/{length}", f"{what} by length", "1/s", rate)
        batch = encoded(run.lm, examples[:size], labels[:size])
        warm_up = warm_up or batch
        if expected < LONGEST_STEP:
            seconds = trainer_seconds(run.trained["Trainer"], [warm_up, batch])
            expected = 2.2 * seconds * size  # of the next length, which is twice this one
            where = f"growth/made up/Trainer/{length}"
            report(run, where, "training by length", "1/s", 1 / seconds)


def bench_memory(run):
    """Peak memory of a process each: only one at a time runs, and this one lets go of its own."""
    run.lm = run.harness = None
    run.trained.clear()
    gc.collect()
    torch.cuda.empty_cache()
    for job in JOBS:
        command = [sys.executable, __file__, "memory", job, *(["--quick"] if run.quick else [])]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{job} ended with {done.returncode}: {done.stderr[-500:]}", flush=True)
        found = float(done.stdout.split()[-1]) if done.returncode == 0 else np.nan
        tool, what = job.rsplit("-", 1)
        task = "suite" if what == "longest" else "boolq"
        report(run, f"memory/{task}/{tool}/", f"peak memory, {what}", "GiB", found)


def peak_memory():
    """GiB at most resident in this process.

    Not ru_maxrss where there is another way: it begins with the parent's, which has held models.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def memory_job(job, quick):
    """Do one thing, in a process that does nothing else; print its peak memory in GiB.

    ours-longest is the worst that a study can meet, task by task.
    """
    device = loading.pick_device()
    size = FIXED_SIZE[device.type]
    examples = splits.load("boolq", "train", 4 * size, 0)
    labels = training_labels(examples, "true", 0)
    if job.startswith("ours"):
        lm = loading.load("embedded")
    else:
        folder = Path(loading.source_of("embedded"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if job == "ours-scoring":
        scoring.score(lm, examples)
    elif job == "ours-training":
        finetune(lm, examples, labels, CONFIG, 0)
    elif job == "lm-eval-scoring":
        harness_scores(load_harness(tokenizer, device), examples, size)
    elif job == "Trainer-training":
        lm = load_plain(tokenizer, device, torch.float32)
        batches = spread(lm, encoded(lm, examples, labels), size, len(examples))
        if np.isnan(trainer_seconds(lm, batches)):
            raise MemoryError("too little for Trainer")
    else:
        for name in tasks.suite("embedded")[: 2 if quick else None]:
            longest_step(lm, name)
            print(name, f"{peak_memory():.2f}", flush=True)
    print(f"{peak_memory():.3f}")


def longest_step(lm, name):
    """Train one step on a task's longest training examples, and score its longest test examples."""
    train, test = (
        sorted(part, key=lambda e: -len(e.prompts[0]) - max(map(len, e.choices)))[:8]
        for part in (splits.split(name, 0).train, splits.split(name, 0).test)
    )
    finetune(lm, train, training_labels(train, "true", 0), CONFIG, 0)
    scoring.score(lm, test)


# --- the table and the figure --------------------------------------------------------------------


def bars(axes, rows):
    """Rates by task: a bar a tool, with the range of the rounds."""
    names, tools = list(rows["task"].unique()), list(rows["tool"].unique())
    width = 0.8 / len(tools)
    for i, tool in enumerate(tools):
        own = rows[rows["tool"] == tool]
        x = [names.index(task) + (i + 0.5) * width - 0.4 for task in own["task"]]
        ends = np.array([own["value"] - own["low"], own["high"] - own["value"]])
        axes.bar(x, own["value"], width, yerr=ends, color=TOOLS[tool], label=tool)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")


def curves(axes, rows):
    """What depends on `setting`: a line a tool, dashed for training. Rates on a log axis, too."""
    rows = rows.assign(setting=rows["setting"].astype(int))
    for (tool, quantity), own in rows.groupby(["tool", "quantity"], sort=False):
        what = quantity.split()[0]
        style = {"color": TOOLS[tool], "markersize": 3.5, "label": f"{tool}, {what}"}
        axes.plot(own["setting"], own["value"], "o-" if what == "scoring" else "s--", **style)
    axes.set_xscale("log")
    if set(rows["unit"]) == {"1/s"}:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.4 * rows["value"].max())
    ticks = rows["setting"].unique()
    axes.set_xticks(ticks, ticks.astype(str))
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


def draw(table):
    """The four panels; one that was not measured stays empty."""
    figure = Figure(figsize=(style.TEXT_WIDTH, 4.8), layout="constrained")
    quantity, section = table["quantity"], table["section"]
    scored, trained = ((quantity == "rate") & (section == s) for s in ("scoring", "training"))
    by_length, by_number = (quantity.str.endswith(f"by {x}") for x in ("length", "number"))
    panels = (
        ("Scoring", bars, scored, "", "questions/s"),
        ("Fine-tuning", bars, trained, "", "examples/s"),
        ("Length of the prompt", curves, by_length, "tokens", "questions or examples/s"),
        ("Number of examples", curves, by_number, "examples", "seconds an example"),
    )
    places = figure.subplots(2, 2).flat
    for axes, (title, function, chosen, x_label, y_label) in zip(places, panels, strict=True):
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        if chosen.any():
            function(axes, table[chosen])
            axes.margins(y=0.4)  # room for the legend
            axes.legend(fontsize=6, ncols=2, loc="upper right", handlelength=1.5)
    return figure


def finish(run, about, folder):
    """Write the table and the figure."""
    report(run, "machine///", "bf16 matmul rate, 4096^3", "TFLOP/s", np.array(run.peaks) / 1e12)
    nothing = (np.nan, np.nan, np.nan)
    run.rows += [("machine", "", "", str(v), k, "", *nothing) for k, v in about.items()]
    table = pd.DataFrame(run.rows, columns=COLUMNS)
    folder.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"\([^)]*\)", " ", about["device"].lower())  # less its (R) and (TM)
    path = folder / "-".join(re.findall("[a-z0-9]+", device))
    table.to_csv(path.with_suffix(".csv"), index=False, float_format="%.6g")
    with style.style():
        figure = draw(table)
        figure.savefig(path.with_suffix(".png"))
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    print(f"written to {path}.csv, .png and .pdf", flush=True)


SECTIONS = {  # in this order: memory comes last, as it gives up the models
    "scoring": (bench_scoring,),
    "training": (bench_training,),
    "growth": (bench_counts, bench_lengths),
    "memory": (bench_memory,),
}


def main():
    parser = argparse.ArgumentParser(description="Measure forgetlib on this machine.")
    parser.add_argument("memory", nargs="?", choices=["memory"], help="do one memory job instead")
    parser.add_argument("job", nargs="?", choices=JOBS)
    parser.add_argument("--quick", action="store_true", help="a tenth of the examples")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.memory:
        return memory_job(arguments.job or parser.error("which job?"), arguments.quick)
    wanted = set(arguments.only.split(","))
    if not wanted <= set(SECTIONS):
        parser.error(f"--only takes {', '.join(SECTIONS)}")
    started, lm = time.perf_counter(), loading.load("embedded")
    harness = load_harness(lm.tokenizer, lm.device)
    trained = {
        tool: load_plain(lm.tokenizer, lm.device, dtype)
        for tool, dtype in (("Trainer", torch.float32), ("Trainer, bf16 weights", torch.bfloat16))
    }
    square = torch.randn(4096, 4096, device=lm.device).to(torch.bfloat16)
    run = Run(lm, harness, trained, square, arguments.quick)
    about = provenance.provenance(lm, 0.0)
    about |= {name: version(name) for name in ("lm_eval", "accelerate")}
    print(*(f"{key}: {about[key]}" for key in about if key != "seconds"), sep="\n", flush=True)
    del lm, harness, trained  # bench_memory lets go of them
    for _ in range(2):
        measure_peak(run)
    del run.peaks[0]  # it warmed up
    for section, functions in SECTIONS.items():
        for function in functions if section in wanted else ():
            function(run)
    about["seconds"] = round(time.perf_counter() - started)
    full = not arguments.quick and wanted == set(SECTIONS)
    finish(run, about, files.root() / ("figures" if full else ".work") / "bench")


if __name__ == "__main__":
    main()
