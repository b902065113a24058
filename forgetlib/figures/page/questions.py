"""Gather what the HTML page shows of every question: how sure each model was of its true response.

A study's packed scores are read, and each question becomes a byte a phase, so that ten thousand
fit into a page. A byte is the margin log p(true) - log p(distractor) in steps of `STEP` nats: 128
and above is right, below is wrong, exactly as `metrics.correct` says.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetlib.figures.join import Family, families
from forgetlib.figures.numbers import number
from forgetlib.measuring.base import Scores
from forgetlib.metrics import correct, margins
from forgetlib.runs.questions import stored_questions
from forgetlib.runs.records import Result
from forgetlib.runs.specs import PLAIN
from forgetlib.runs.store import Store

STEP = 1 / 16  # nats; 128 of them reach a confidence of 0.9997
TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def encoded(scores: Scores) -> np.ndarray:
    """Write the margin of each question as a byte: (N,) from 0, wrong and sure, to 255."""
    distance = np.minimum(np.abs(margins(scores)) // STEP, 127).astype(int)
    return np.where(correct(scores), 128 + distance, 127 - distance).astype(np.uint8)


def confidences() -> list[str]:
    """Write the confidence that each byte stands for, the middle of its step."""
    margin = (np.arange(256) - 127.5) * STEP
    return [number(p) for p in 1 / (1 + np.exp(-margin))]


def ticks() -> list[tuple[float, str]]:
    """Place confidences on the axis of bytes, with their texts."""
    return [(round(127.5 + np.log(p / (1 - p)) / STEP, 1), f"{p:g}") for p in TICKS]


def questions(folder: Path, *, texts: bool = False) -> dict[str, dict[str, Any]]:
    """Gather every test question of a study's own tasks, by task; {} where no results are packed.

    texts: with prompt and responses, of the tasks whose questions are stored beside the results
    """
    results = list(_results(folder / "results"))
    # The first model is the study's own.
    random, true = families(results, "random"), families(results, "true")
    found: dict[str, dict[str, Any]] = {}
    for (model, task, size), seeds in sorted(random.items()):
        if size != seeds[0]["tuned"].checkpoint.n or task in found:
            continue
        again = {runs["forgotten"].seed: runs for runs in true.get((model, task, size), [])}
        found[task] = _of_task(task, sorted(seeds, key=_seed), again)
        if texts:
            found[task]["texts"] = _texts(folder, task, [_seed(runs) for runs in seeds])
    return found


def _seed(runs: Family) -> int:
    return runs["forgotten"].seed


def _results(folder: Path) -> Iterator[Result]:
    """Read what packed models were asked of test questions, as they are."""
    # What is not packed yet is not shown: the page says what anybody finds in the folder.
    store = Store(folder, folder / "no-work")
    asked = [
        (checkpoint, m)
        for checkpoint, m, _ in store.sources()
        if (m.readout, m.split, m.view) == ("scores", "test", PLAIN)
    ]
    asked.sort(key=lambda pair: (pair[0].id, pair[1].seed))
    for (_, seed), of in itertools.groupby(asked, lambda pair: (pair[0].id, pair[1].seed)):
        records = tuple(store.read(checkpoint, m) for checkpoint, m in of)
        yield Result(records[0].checkpoint, seed, records)


def _of_task(task: str, seeds: Sequence[Family], again: dict[int, Family]) -> dict[str, Any]:
    """Write one task's questions: uids, how many each seed has, and bytes by phase."""
    test = f"{task}/test"
    phases = {
        "base": [runs["base"].scores[test] for runs in seeds],
        "tuned": [runs["tuned"].scores[test] for runs in seeds],
        "random": [runs["forgotten"].scores[test] for runs in seeds],
    }
    if all(_seed(runs) in again for runs in seeds):
        phases["true"] = [again[_seed(runs)]["forgotten"].scores[test] for runs in seeds]
    uids = [uid for scores in phases["tuned"] for uid in scores.uids]
    starts = list(dict.fromkeys(uid.rpartition("/")[0] for uid in uids))
    place = {start: i for i, start in enumerate(starts)}
    return {
        "starts": starts,
        "ends": [f"{place[start]}/{end}" for start, _, end in (u.rpartition("/") for u in uids)],
        "seeds": [[_seed(r), len(s.uids)] for r, s in zip(seeds, phases["tuned"], strict=True)],
        "phases": {
            phase: base64.b64encode(np.concatenate([encoded(s) for s in of]).tobytes()).decode()
            for phase, of in phases.items()
        },
    }


def _texts(folder: Path, task: str, seeds: Sequence[int]) -> dict[str, list[str]]:
    """Read prompt, true response and distractor of each question that is stored, by uid."""
    found = {}
    for seed in seeds:
        stored = stored_questions(folder, task, seed)
        for asked in stored.test if stored is not None else ():
            true, false = asked.label, 1 - asked.label
            shown = asked.prompts[true], asked.choices[true], asked.choices[false]
            # Where the prompts differ, the choice is what follows both of them.
            if len(set(asked.prompts)) > 1:
                shown = asked.prompts[true], asked.choices[true], asked.prompts[false]
            found[asked.uid] = list(shown)
    return found
