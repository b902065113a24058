"""Prints what of the process's global state each part of the package changes, as JSON.

Third-party packages are imported before: what they do is theirs.
"""

import ast
import contextlib
import importlib
import json
import locale
import logging
import os
import random
import signal
import sys
import tempfile
import warnings
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "forgetlib"
OPTIONAL = ("ray",)


def import_third_parties():
    """Everything that a file of the package imports from elsewhere, at its top or later."""
    names = {"safetensors.torch", "transformers.models.llama.modeling_llama"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    for name in sorted(names):
        if name.split(".")[0] not in ("forgetlib", *OPTIONAL):
            with contextlib.suppress(ImportError):  # a function, or of another platform
                importlib.import_module(name)


def state():
    """Name -> a value that compares equal as long as nothing changes."""
    import matplotlib as mpl
    import numpy as np
    import pandas as pd
    import torch
    import transformers

    loggers = {n: logging.getLogger(n) for n in ("root", "transformers", "datasets", "matplotlib")}
    loggers["root"] = logging.getLogger()
    transformers_logging = transformers.utils.logging
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "NumPy's generator": str(np.random.get_state()),  # noqa: NPY002
        "Python's generator": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        ),
        "matmul precision": torch.get_float32_matmul_precision(),
        "print options": (np.get_printoptions(), str(torch._tensor_str.PRINT_OPTS)),
        "floating-point errors": np.geterr(),
        "matplotlib": dict(mpl.rcParams.copy()),
        "pandas": pd.describe_option(_print_desc=False),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "logging": {n: (log.level, list(log.handlers)) for n, log in loggers.items()},
        "transformers' logging": (
            transformers_logging.get_verbosity(),
            transformers_logging.is_progress_bar_enabled(),
        ),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        "process": (Path.cwd(), locale.setlocale(locale.LC_ALL), sys.excepthook, sys.stderr),
    }


def imports():
    for path in PACKAGE.rglob("*.py"):
        if path.stem != "__init__":
            name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            importlib.import_module(name)


def a_run():
    from test_determinism import jobs as small_jobs

    from forgetlib.runs import jobs

    for job in small_jobs():
        jobs.run(job)


def a_low_rank_model_of_a_folder():
    from forgetlib.models import loading

    tiny = loading.load("tiny")
    with tempfile.TemporaryDirectory() as folder:
        tiny.model.save_pretrained(folder)
        tiny.tokenizer.save_pretrained(folder)
        loading.load(folder, tuning="lora")


def a_figure():
    from synthetic import family

    from forgetlib import studies
    from forgetlib.figures import fig2, style

    table = fig2.table([r for t in ("t", "u") for r in family(t, 0.5, 0.9, 0.6, n=30)])
    style.save(fig2.draw(table), table, "figure", studies.study("tiny"))


def a_bootstrap():
    import numpy as np

    from forgetlib.figures import bootstrap

    found = bootstrap.of_means([str(i) for i in range(20)], np.arange(20.0)[:, None])
    bootstrap.resample([found]).interval(bootstrap.Measure(0))


PARTS = (imports, a_run, a_low_rank_model_of_a_folder, a_figure, a_bootstrap)


if __name__ == "__main__":
    import_third_parties()
    changed = {}
    for part in PARTS:
        before = state()
        part()
        after = state()
        changed[part.__name__] = [name for name in before if before[name] != after[name]]
    print(json.dumps(changed))
