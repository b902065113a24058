"""Where a result comes from: code, libraries, machine and time."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forgetlib
from forgetlib.files import PACKAGE

if TYPE_CHECKING:
    import torch

    from forgetlib.models.lm import LM

GPU_NAMES = ("NVIDIA", "GeForce", "Tesla", "Quadro", "Radeon", "AMD Instinct")


def on_cpu(provenance: Mapping[str, Any]) -> bool:
    """Tell whether a result was computed on a CPU, of earlier ones by the device's name alone."""
    by_name = not any(name in provenance["device"] for name in GPU_NAMES)
    return provenance.get("device_type", "cpu" if by_name else "cuda") == "cpu"


LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "peft")


def provenance(lm: LM, seconds: float) -> dict[str, Any]:
    """Write down where a result comes from: code, libraries, machine, time; never computed with."""
    from forgetlib.engine import kernels, parallel

    found = of_machine(lm.device, seconds)
    if parallel.size() > 1:
        found["processes"] = parallel.size()
    if lm.device.type != "cuda" and kernels.widens():
        found["products"] = "fp32"
    return found | {"packs": lm.packs, "kernels": list(lm.kernels)}


def of_machine(device: torch.device, seconds: float) -> dict[str, Any]:
    """Write down what computed for so many seconds, whatever it computed."""
    import torch

    found: dict[str, Any] = {"forgetlib": forgetlib.__version__, "commit": _commit()}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    cuda = device.type == "cuda"
    return found | {
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    """Name the checkout's commit, with "+" where files differ from it; "" outside a checkout.

    But for figures, which are made from results and not the other way round.
    """
    git = ["git", "-C", str(PACKAGE.parent)]
    try:
        named, differs = (
            subprocess.run([*git, *command], capture_output=True, text=True, timeout=10)
            for command in (
                ["describe", "--always", "--exclude=*"],
                ["diff", "--quiet", "HEAD", "--", ".", ":!figures"],
            )
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return named.stdout.strip() + "+" * (differs.returncode != 0) if named.returncode == 0 else ""


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
