"""Verify and measure the path on a GPU: planned for eight minutes, without a network.

    python tests/gpu.py [--small] [--device cpu]

Verified, on small random models of four architectures: scores, gradients and nine steps of every
tuning beside the CPU's, in fp32, with activations kept and computed again; scores in bf16; that
choices share their prompts; that the same training gives the same bits twice; what is said where
memory does not suffice. Measured, on random layers in the shape of Llama-2-7B and of Gemma-3-270M:
scoring beside a plain loop of transformers and beside lm-eval's HFLM (left out where it is not
installed), training beside Trainer with peft; launches, waits and the optimiser's time of a step;
peak memory beside its estimate; one to three processes on the card.

A full run writes figures/bench/<card>.csv and .png, any other .work/bench/gpu-rehearsal.*; --small
takes tiny shapes, and a CPU stands in for the card, so that a test can rehearse it.
Exit code 1 where something is further off than its limit.
"""

import argparse
import gc
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import transformers
from helpers import finetune
from shapes import ARCHITECTURES
from transformers import AutoConfig

from forgetlib import files
from forgetlib.engine.device import SHARE
from forgetlib.forgetting import loop, optimizer
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.context import Context
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring import scoring
from forgetlib.models import catalogue, loading, memory, synthetic
from forgetlib.models.lm import causal_lm
from forgetlib.runs import bench as runs_bench, cost, provenance

VERIFIED = ("llama", "gpt2", "gptj", "gemma3_text")
NINE_STEPS = Training(1e-3, epochs=3)  # of 24 examples in batches of 8
COLUMNS = ("section", "what", "setting", "quantity", "unit", "value", "low", "high", "limit")
TRAINING = Training(1e-6, epochs=1)
TINY = {"model_type": "llama", **ARCHITECTURES["llama"], "num_attention_heads": 4}
ROUNDS = 3


@dataclass
class Bench:
    """What is run where, and the rows of COLUMNS that it found; peak: FLOP/s of a bf16 product."""

    device: torch.device
    small: bool
    rows: list = field(default_factory=list)
    peak: float = float("nan")

    def report(self, where, quantity, unit, values, limit=np.nan):
        """Keep and print a row: the median of the rounds' values; limit: what it may be at most.

        where: section/what/setting
        """
        values = np.atleast_1d(np.asarray(values, float))
        ends = (values.min(), values.max()) if len(values) > 1 else (np.nan, np.nan)
        self.rows.append((*where.split("/"), quantity, unit, np.median(values), *ends, limit))
        beyond = "" if np.isnan(limit) else f"  (at most {limit:g})"
        if not (np.isnan(limit) or np.median(values) <= limit):
            beyond += "  BEYOND"
        print(f"{where:<44}{quantity:<44}{np.median(values):>10.4g} {unit}{beyond}", flush=True)

    def shape(self, name):
        """The configuration of a model, or a tiny one; and how many layers of it there are."""
        if self.small:
            return AutoConfig.for_model(vocab_size=2048, **TINY), 2
        if name == "7b":
            config = AutoConfig.for_model(**cost.KNOWN["meta-llama/Llama-2-7b-hf"])
            total = torch.cuda.mem_get_info(self.device)[1] if self.device.type == "cuda" else 0
            return config, 32 if total > 60e9 else 8
        config = AutoConfig.for_model(**catalogue.find("gemma-3-270m").config)
        return config, config.num_hidden_layers


def now(device):
    """Seconds; on CUDA once all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# --- verify --------------------------------------------------------------------------------------


def of_architecture(name, device, dtype, tuning="body", recompute=False):
    """A small random model whose logits differ, the same on every device."""
    config = AutoConfig.for_model(
        name, vocab_size=512, num_hidden_layers=2, num_attention_heads=4, **ARCHITECTURES[name]
    )
    model, tokenizer = synthetic.shaped(config, 2, torch.float32, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return loading.prepare(
        name, model.to(dtype), tokenizer, device, tuning=tuning, recompute=recompute
    )


def some_questions():
    """24 questions of three lengths."""
    return tuple(q for n in (8, 24, 40) for q in synthetic.questions(8, n))


def gradients(lm, examples):
    """The gradient of the loss of a batch, by the parameter's name, on the CPU."""
    method, context = Labels("true", NINE_STEPS), Context(0, examples)
    units = [method.sequences(lm, e, context) for e in examples]
    loop._step_gradient(lm, method, context, units, [])
    found = {n: p.grad.double().cpu() for n, p in lm.trainable.items() if p.grad is not None}
    for parameter in lm.trainable.values():
        parameter.grad = None
    return found


def apart(ours, theirs):
    """How far two dictionaries of tensors are apart, as a share of the second's norm."""
    off = sum(float((ours[n].double() - w.double()).square().sum()) for n, w in theirs.items())
    return (off / sum(float(w.double().square().sum()) for w in theirs.values())) ** 0.5


def verify(bench):
    """Compare the device with the CPU, and the same training with itself."""
    examples, cpu = some_questions(), torch.device("cpu")
    for name in VERIFIED[: 1 if bench.small else None]:
        for tuning in ("body", "full", "lora"):
            for recompute in (False, True):
                settings = (torch.float32, tuning, recompute)
                theirs, ours = (of_architecture(name, d, *settings) for d in (cpu, bench.device))
                where = f"fp32/{name}/{tuning}, {'computed again' if recompute else 'kept'}"
                scores = [scoring.score(lm, examples).log_likelihoods for lm in (ours, theirs)]
                bench.report(where, "scores: largest difference", "nats", worst(*scores), 2e-3)
                found = apart(*(gradients(lm, examples) for lm in (ours, theirs)))
                bench.report(where, "gradients: difference", "of the norm", found, 1e-3)
                method = Labels("random", NINE_STEPS)
                before = theirs.weights()
                for lm in (ours, theirs):
                    loop.train(lm, method, Context(0, examples))
                weights = ours.weights(), theirs.weights()
                moved = [{n: w - before[n] for n, w in of.items()} for of in weights]
                bench.report(where, "nine steps: difference", "of the way", apart(*moved), 0.1)
        packs = of_architecture(name, bench.device, torch.float32).packs
        bench.report(f"packing/{name}/{packs}", "prompts not shared", "", packs is None, 0)
        verify_bf16(bench, name, examples)
    verify_bits(bench)
    if bench.device.type == "cuda":
        verify_out_of_memory(bench)


def worst(ours, theirs):
    """The largest difference of two arrays; infinite where one is not finite."""
    return np.nan_to_num(np.abs(ours - theirs).max(), nan=np.inf)


def verify_bf16(bench, name, examples):
    """Scores in bf16 are no further from fp32 than those of a CPU, but for luck."""
    exact, theirs, ours = (
        scoring.score(of_architecture(name, device, dtype), examples).log_likelihoods
        for device, dtype in (
            (torch.device("cpu"), torch.float32),
            (torch.device("cpu"), torch.bfloat16),
            (bench.device, torch.bfloat16),
        )
    )
    off, limit = (float(np.abs(values - exact).mean()) for values in (ours, theirs))
    bench.report(f"bf16/{name}/", "scores: mean error", "nats", off, 1.5 * limit + 0.01)


def digest(device):
    """What nine steps and the scores after them give, to the bit."""
    lm, examples = of_architecture("llama", device, torch.bfloat16), some_questions()
    losses = loop.train(lm, Labels("random", NINE_STEPS), Context(0, examples))
    values = losses, scoring.score(lm, examples).log_likelihoods
    return hashlib.sha256(b"".join(v.tobytes() for v in values)).hexdigest()


def verify_bits(bench):
    """The same training, twice: as it is, and in a process with deterministic algorithms."""
    as_it_is = digest(bench.device) != digest(bench.device)
    bench.report("bits/llama/as it is", "differ between two runs", "", as_it_is)
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    command = [sys.executable, __file__, "digests", "--device", bench.device.type]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    one, other = done.stdout.split()
    bench.report("bits/llama/deterministic", "differ between two runs", "", one != other, 0)


def verify_out_of_memory(bench):
    """Where a process has too little of the card, what is said names what to do."""
    made = synthetic.shaped(*bench.shape("gemma"), torch.bfloat16, bench.device)
    lm = loading.prepare("gemma", *made, bench.device)
    total = torch.cuda.mem_get_info(bench.device)[1]
    taken = torch.cuda.memory_allocated(bench.device)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((taken + 2**25) / total)
    said = "nothing"
    try:
        scoring.score(lm, synthetic.questions(512, 128))
    except torch.OutOfMemoryError as error:
        said = runs_bench.reason(error)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(said, flush=True)
    bench.report("memory/out of it/", "not told what to do", "", SHARE not in said, 0)


# --- measure -------------------------------------------------------------------------------------


def measure_peak(bench):
    """FLOP/s of a bf16 product, the better of two tries."""
    size, n = (512, 2) if bench.small else (8192, 20)
    square = torch.randn(size, size, device=bench.device).to(torch.bfloat16)
    seconds = []
    for _ in range(2):
        started = now(bench.device)
        for _ in range(n):
            torch.mm(square, square)
        seconds.append((now(bench.device) - started) / n)
    bench.peak = 2 * size**3 / min(seconds)
    bench.report("machine//", f"bf16 product of {size}", "TFLOP/s", bench.peak / 1e12)


def timed(bench, function, *arguments):
    """Seconds of a call, in ROUNDS rounds after one that warms up."""
    function(*arguments)
    found = []
    for _ in range(ROUNDS):
        started = now(bench.device)
        function(*arguments)
        found.append(now(bench.device) - started)
    return np.array(found)


def plain_scores(lm, examples, size):
    """What a plain loop does: every choice a row, PyTorch's attention, logits where they count."""
    model, found = causal_lm(lm.model), []
    rows = [s for of_question in scoring.encode_all(lm, examples) for s in of_question]
    with torch.inference_mode():
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]  # all of one length: nothing is padded
            n = batch[0].n_response
            tokens = torch.tensor([s.tokens for s in batch], device=lm.device)
            given = {"input_ids": tokens[:, :-1], "use_cache": False, "logits_to_keep": n}
            logs = model(**given).logits.float().log_softmax(-1)
            found.append(logs.gather(2, tokens[:, -n:, None])[..., 0].sum(1))
    return torch.cat(found).reshape(len(examples), -1).cpu().numpy()


def fastest(bench, sizes, function):
    """The batch size at which function(size) is the fastest, of those with memory for it."""
    tried = {}
    for size in sizes:
        try:
            function(size)  # warms up
            started = now(bench.device)
            function(size)
            tried[size] = now(bench.device) - started
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
    return min(tried, key=tried.get)


def measure_scoring(bench, name):
    """Questions a second of ours, a plain loop and lm-eval's HFLM, each at its best batch size."""
    n, n_tokens = (16, 24) if bench.small else (1024, 128)
    lm = loading.prepare(name, *made(bench, name), bench.device)
    examples = synthetic.questions(n, n_tokens)
    form = cost._shape_of(causal_lm(lm.model))
    flops = n * cost._forward(form, n_tokens, 4)  # the prompt once, and both answers
    ours = timed(bench, scoring.score, lm, examples)
    where = f"scoring/{name}/"
    bench.report(f"{where}ours", "rate", "questions/s", n / ours)
    share = 100 * flops / ours / bench.peak
    bench.report(f"{where}ours", "share of the matmul rate", "%", share)
    tools = {"a plain loop": lambda given: lambda size: plain_scores(lm, given, size)}
    if importlib.util.find_spec("lm_eval"):
        tools["lm-eval"] = lambda given: with_harness(lm, given)
    for tool, of in tools.items():
        sizes = (4, 8) if bench.small else (16, 64, 256)
        size = fastest(bench, sizes, of(examples[:128]))
        theirs = timed(bench, of(examples), size)
        bench.report(where + tool, f"rate, batch {size}", "questions/s", n / theirs)
        bench.report(f"{where}ours, {tool}", "ratio of rates", "", theirs / ours)
    first = examples[:128]
    off = worst(scoring.score(lm, first).log_likelihoods, plain_scores(lm, first, 8))
    bench.report(f"{where}ours", "largest difference from a plain loop", "nats", off, 0.5)
    # Real questions differ in length; cuDNN's attention, if it is chosen, may plan for each shape.
    lengths = [n_tokens // 2 + (37 * i) % n_tokens for i in range(n)]
    mixed = [synthetic.questions(i % 8 + 1, lengths[i])[-1] for i in range(n)]
    mixed = [replace(question, uid=f"made up/mixed/{i}") for i, question in enumerate(mixed)]
    for cudnn in (True, False) if bench.device.type == "cuda" else (True,):
        if bench.device.type == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(cudnn)
        seconds = timed(bench, scoring.score, lm, mixed)
        what = f"rate, mixed lengths{'' if cudnn else ', without cuDNN'}"
        bench.report(f"{where}ours", what, "1,000 tokens/s", sum(lengths) / seconds / 1e3)
    if bench.device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(True)


def with_harness(lm, examples):
    """lm-eval's own class around the same model, as a function of the batch size."""
    from bench import harness_scores
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=causal_lm(lm.model), tokenizer=lm.tokenizer, backend="causal")
    return lambda size: harness_scores(harness, examples, size)


def made(bench, name, n_layers=None):
    """Random layers of a model's shape, on the device, and a tokenizer."""
    config, whole = bench.shape(name)
    return synthetic.shaped(config, n_layers or whole, torch.bfloat16, bench.device)


def measure_training(bench, name, tuning, n_layers=None):
    """Examples a second of ours and of Trainer with peft, and how much of the card that uses."""
    n, n_tokens, size = (16, 24, 4) if bench.small else (256, 128, 32)
    lm = loading.prepare(name, *made(bench, name, n_layers), bench.device, tuning=tuning)
    examples = synthetic.questions(n, n_tokens)
    labels = [e.label for e in examples]
    form = cost._shape_of(causal_lm(lm.model))
    passes = 2 if tuning == "lora" else 3  # through the body; the output layer is frozen
    flops = n * passes * cost._forward(form, n_tokens - 1, 0)
    flops += n * 2 * cost._forward(form, 0, 2)
    training = Training(1e-6, epochs=1, batch_size=size)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    ours = timed(bench, finetune, lm, examples, labels, training)
    where = f"training/{name}, {tuning}/ours"
    bench.report(where, f"rate, batch {size}", "examples/s", n / ours)
    bench.report(where, "share of the matmul rate", "%", 100 * flops / ours / bench.peak)
    if bench.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(bench.device)
        bench.report(where, "peak memory", "GiB", peak / 2**30)
        n_trained = sum(p.numel() for p in lm.trainable.values())
        held = 2 * (form.body + form.embeddings) + memory.training_state(n_trained, 2)
        tokens = min(loop.backward_tokens(lm), size * n_tokens)
        held += memory.activations(tokens, form.n_layers, form.hidden, 2, False)
        bench.report(where, "peak memory by its estimate", "GiB", held / 2**30)
    anatomy(bench, where, lm, examples[: 4 * size], labels[: 4 * size], training)
    from bench import encoded, plain as as_it_is, spread, trainer_seconds

    sequences = encoded(lm, examples, labels)
    device, tokenizer = lm.device, lm.tokenizer
    del lm
    plain, _ = made(bench, name, n_layers)
    if tuning == "lora":
        plain = loading.tuning_of("Trainer", plain, "lora")
    else:
        for part in (plain.get_input_embeddings(), plain.get_output_embeddings()):
            part.requires_grad_(False)
    tokenizer.pad_token = tokenizer.unk_token  # which Trainer asks for
    theirs = as_it_is(plain, tokenizer, device)
    tried = {
        s: trainer_seconds(theirs, spread(theirs, sequences, s, min(n, 4 * s)))
        for s in ((4,) if bench.small else (8, 32, 64))
    }
    best = min(tried, key=lambda s: np.nan_to_num(tried[s], nan=np.inf))
    batches = spread(theirs, sequences, best, n)
    rates = 1 / np.array([trainer_seconds(theirs, batches) for _ in range(ROUNDS)])
    tool = f"training/{name}, {tuning}/Trainer"
    bench.report(tool, f"rate, batch {best}", "examples/s", rates)
    pair = f"training/{name}, {tuning}/ours, Trainer"
    bench.report(pair, "ratio of rates", "", n / ours / rates)


def counts(bench, lm, n_steps, training):
    """How often each operation was called in a training of so many steps."""
    examples = synthetic.questions(n_steps * training.batch_size, 24 if bench.small else 128)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        finetune(lm, examples, [e.label for e in examples], training)
    return {event.key: event.count for event in profile.key_averages()}


def anatomy(bench, where, lm, examples, labels, training):
    """What a step of training asks of the device: launches, waits, and the optimiser's share."""
    in_optimizer, step = [], optimizer.Optimizer.step

    def clocked(self, factor):
        started = now(bench.device)
        step(self, factor)
        in_optimizer.append(now(bench.device) - started)

    # By the difference of two numbers of steps: setting up and the end are in both.
    few, many = (counts(bench, lm, n, training) for n in (2, 6))
    for quantity, pattern in (
        ("launches a step", r"^(cuda|cu)Launch" if bench.device.type == "cuda" else r"^aten::"),
        ("waits a step", r"^cuda\w*Synchronize$"),
        ("copies a step", r"^cudaMemcpy"),
    ):
        one, other = (
            sum(n for key, n in of.items() if re.search(pattern, key)) for of in (few, many)
        )
        bench.report(where, quantity, "", (other - one) / 4)
    optimizer.Optimizer.step = clocked
    try:
        started = now(bench.device)
        finetune(lm, examples, labels, training)
        share = 100 * sum(in_optimizer) / (now(bench.device) - started)
    finally:
        optimizer.Optimizer.step = step
    bench.report(where, "optimiser's share of the time", "%", share)


def measure_processes(bench):
    """Examples a second of one to three processes that train low-rank updates on the card."""
    for n in (2,) if bench.small else (1, 2, 3):
        environment = os.environ | {SHARE: str(1 / n), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "process", "--device", bench.device.type]
        command += ["--small"] * bench.small
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers = [subprocess.Popen(command, env=environment, **pipes) for _ in range(n)]
        for worker in workers:  # all begin when all are ready
            while worker.stdout.readline() not in ("ready\n", ""):
                pass
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        said = [worker.communicate()[0].split()[-3:] for worker in workers]
        trained, begun, ended = np.array(said, float).T
        together = "one process" if n == 1 else f"{n} processes"
        rate = sum(trained) / (max(ended) - min(begun))
        bench.report(f"processes/gemma, lora/{together}", "rate", "examples/s", rate)


def process(bench):
    """Train when told to; print how many examples, and from when until when."""
    n = 16 if bench.small else 512
    lm = loading.prepare("gemma", *made(bench, "gemma"), bench.device, tuning="lora")
    examples = synthetic.questions(n, 24 if bench.small else 128)
    labels = [e.label for e in examples]
    finetune(lm, examples, labels, TRAINING)  # warms up, and tokenises
    now(bench.device)
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.time()
    finetune(lm, examples, labels, TRAINING)
    now(bench.device)
    print(n, begun, time.time())


# --- the table and the figure --------------------------------------------------------------------


def draw(table):
    """Rates beside other tools', and how much of the card they use: two panels of bars."""
    from matplotlib.figure import Figure

    from forgetlib.figures import style

    figure = Figure(figsize=(style.TEXT_WIDTH, 3.2), layout="constrained")
    panels = (
        ("Times as fast as", table[table["quantity"] == "ratio of rates"], ""),
        ("Share of the matmul rate", table[table["quantity"] == "share of the matmul rate"], "%"),
    )
    for axes, (title, rows, unit) in zip(figure.subplots(1, 2), panels, strict=True):
        names = [f"{r.section}, {r.what}\n{r.setting}" for r in rows.itertuples()]
        ends = np.array([rows["value"] - rows["low"], rows["high"] - rows["value"]])
        axes.barh(names, rows["value"], xerr=np.nan_to_num(ends), color=style.BLUE)
        axes.set(title=title, xlabel=unit)
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=6)
    return figure


def finish(bench, about, path):
    """Write the table and the figure; the exit code: 1 where a value is beyond its limit."""
    import pandas as pd

    from forgetlib.figures import style

    nothing = (np.nan,) * 4
    rows = [*bench.rows, *(("machine", "", str(v), k, "", *nothing) for k, v in about.items())]
    table = pd.DataFrame(rows, columns=COLUMNS)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path.with_suffix(".csv"), index=False, float_format="%.6g")
    with style.style():
        draw(table).savefig(path.with_suffix(".png"))
    beyond = table[table["limit"].notna() & ~(table["value"] <= table["limit"])]
    return int(len(beyond) > 0)


def main():
    parser = argparse.ArgumentParser(description="Verify and measure the path on a GPU.")
    parser.add_argument("job", nargs="?", choices=["digests", "process"], help="of its processes")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to rehearse it")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is here: --small --device cpu rehearses it on a CPU")
    transformers.logging.set_verbosity_error()
    bench, started = Bench(torch.device(given.device), given.small), time.perf_counter()
    if given.job == "digests":
        torch.use_deterministic_algorithms(True)
        print(digest(bench.device), digest(bench.device))
        return 0
    if given.job == "process":
        process(bench)
        return 0
    full = bench.device.type == "cuda" and not given.small
    about = provenance.of_machine(bench.device, 0.0)
    card = "-".join(re.findall("[a-z0-9]+", about["device"].lower()))
    path = files.root() / ("figures" if full else ".work") / "bench"
    path /= card if full else "gpu-rehearsal"
    for what, function, *arguments in sections(bench):
        try:
            function(bench, *arguments)
        except Exception:  # whatever it is, the other sections are worth having
            traceback.print_exc()
            bench.report(f"failed/{what}/", "not measured", "", 1, 0)
        gc.collect()
        torch.cuda.empty_cache()  # which other processes need
        about["seconds"] = round(time.perf_counter() - started)
        code = finish(bench, about, path)
    print(f"written to {path}.csv and .png", flush=True)
    return code


def sections(bench):
    """What is done, in this order, with its arguments."""
    yield "verify", verify
    yield "peak", measure_peak
    for name in ("7b",) if bench.small else ("7b", "gemma"):
        yield f"scoring {name}", measure_scoring, name
        yield f"low-rank {name}", measure_training, name, "lora"
    yield "body 7b", measure_training, "7b", "body", None if bench.small else 8
    if not bench.small:
        yield "body gemma", measure_training, "gemma", "body"
    yield "processes", measure_processes


if __name__ == "__main__":
    sys.exit(main())
