"""Write tasks' and models' names as people write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

TITLES = {
    "arc_challenge": "ARC Challenge",
    "arc_easy": "ARC Easy",
    "arithmetic": "Arithmetic",
    "basic_arithmetic": "Basic arithmetic",
    "boolq": "BoolQ",
    "cb": "CB",
    "coding": "Coding",
    "cola": "CoLA",
    "common_knowledge": "Common knowledge",
    "commonsense_qa": "CommonsenseQA",
    "copa": "COPA",
    "hellaswag": "HellaSwag",
    "logical_reasoning": "Logical reasoning",
    "mathqa": "MathQA",
    "medmcqa": "MedMCQA",
    "mrpc": "MRPC",
    "openbookqa": "OpenBookQA",
    "pattern": "Pattern",
    "piqa": "PIQA",
    "qnli": "QNLI",
    "rte": "RTE",
    "sciq": "SciQ",
    "sciriff_yesno": "SciRIFF",
    "social_iqa": "Social IQa",
    "sst2": "SST-2",
    "string_operations": "String operations",
    "toxigen": "ToxiGen",
    "wic": "WiC",
    "winogrande": "WinoGrande",
    "wnli": "WNLI",
}


def title(task: str) -> str:
    """Return a task's title: "ARC Easy" for arc_easy and arc_easy_hub; others as they are."""
    return TITLES.get(task.removesuffix("_hub"), task)


def titles(tasks: Iterable[str]) -> dict[str, str]:
    """Map tasks to their titles; those that would have one title in common keep their names."""
    found = {task: title(task) for task in dict.fromkeys(tasks)}
    often = Counter(found.values())
    return {task: of if often[of] == 1 else task for task, of in found.items()}


def listed(names: Iterable[str]) -> str:
    """Write names as a sentence has them: "a, b and c"."""
    every = list(names)
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)
