"""Measure this machine: scoring beside the harness, fine-tuning, and the matmul peak.

All in one run, on the same questions and weights. Rates are questions or examples a second.
"""

import time

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from forgetlib import models, scoring, tasks, training
from forgetlib.labels import training_labels
from forgetlib.schema import TrainConfig

TASKS = ("arc_easy", "piqa", "sst2")
N_SCORED, N_TRAINED = 64, 32


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def matmul_peak(device, dtype=torch.bfloat16, n=2048):
    """TFLOP/s of a large bf16 matrix product."""
    a = torch.randn(n, n, device=device).to(dtype)
    times = [seconds(lambda: float((a @ a)[0, 0])) for _ in range(10)]
    return 2 * n**3 / min(times) / 1e12


def requests(examples):
    """Both choices of every example as the harness's requests."""
    return [
        Instance("loglikelihood", {}, (e.prompts[c], f" {e.choices[c]}"), c)
        for e in examples
        for c in (0, 1)
    ]


def main():
    lm = models.load("embedded")
    print(f"device {lm.device}, bf16 matmul peak {matmul_peak(lm.device):.2f} TFLOP/s")
    config = TrainConfig(learning_rate=1e-6, epochs=1)
    harness = HFLM(
        pretrained=lm.model,
        tokenizer=lm.tokenizer,
        backend="causal",
        device=str(lm.device),
        batch_size=16,
        add_bos_token=True,
    )
    print(f"{'task':<12}{'scoring':>10}{'lm-eval':>10}{'ratio':>8}{'training':>10}")
    for name in TASKS:
        test = tasks.load(name, "test", N_SCORED, 0)
        train = tasks.load(name, "train", N_TRAINED, 0)
        labels = training_labels(train, "true", 0)
        scoring.score(lm, test[:8])  # warm up
        ours = seconds(lambda test=test: scoring.score(lm, test))
        theirs = seconds(lambda test=test: harness.loglikelihood(requests(test), disable_tqdm=True))
        trained = seconds(
            lambda train=train, labels=labels: training.finetune(lm, train, labels, config, 0)
        )
        rates = (N_SCORED / ours, N_SCORED / theirs, theirs / ours, N_TRAINED / trained)
        print(
            name.ljust(12)
            + "".join(f"{r:{w}.1f}" for r, w in zip(rates, (10, 10, 8, 10), strict=True))
        )


if __name__ == "__main__":
    main()
