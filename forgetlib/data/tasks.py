"""List the tasks that there are, and their suites; add your own.

A task joins a source of rows (`sources`) and a function from a row to a question (`prompts`).
Prompts are those of the lm-evaluation-harness 0.4 for zero shots, to the letter; `Task.harness`
names the task there, or several, as a pattern. Where a real task has none, `Task.note` says why.

Prompts of the tasks here are copies of the harness's, and not made by it as those of `harness` are:
the embedded data are other rows in other columns (no training splits, request files for some), and
stored results hold uids and prompts to the letter. Tests compare each copy with the harness.

To add a task, name its rows and write the question that is asked about one:

    from forgetlib.data import tasks
    from forgetlib.data.base import Task, ask

    def question(row):
        return ask(f"{row['a']} + 1 =", [str(row["a"] + 1), str(row["a"] + 2)], gold=0)

    rows = lambda: ((f"all/{i}", {"a": i}) for i in range(300))
    tasks.add(Task("successor", "math", rows=rows, question=question))

or have a JSON Lines file, or the name of a multiple-choice task of the harness:

    tasks.add(tasks.from_json_lines("mine.jsonl"))
    tasks.get("harness:winogrande")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from forgetlib.data import harness, prompts
from forgetlib.data.base import Question, Row, Task
from forgetlib.data.jsonl import from_json_lines as from_json_lines
from forgetlib.data.sources import arrow, chain, hub, requests, synthetic
from forgetlib.errors import InputError, require_one_of

COMMONSENSE, SCIENCE, KNOWLEDGE = "commonsense", "science", "knowledge"
READING, MATH, REASONING = "reading", "math", "reasoning"
PROGRAMMING, TOXICITY, LANGUAGE = "programming", "toxicity", "language understanding"
TEXT_NOT_LETTER = "the choice's text is scored; the harness lists lettered options"
NOT_IN_HARNESS = "not in the harness; the data's own prompt, without examples"


def _mmlu_group(group: str) -> Task:
    subjects = prompts.MMLU_SUBJECTS[group].split()
    folders = [f"hails/mmlu_no_train/{subject}/test" for subject in subjects]
    note = "the harness's mmlu_continuation form: the choice's text is scored, not a letter"
    return Task(
        f"mmlu_{group}",
        "knowledge",
        "text",
        arrow(*folders),
        prompts.mmlu,
        "mmlu_{subject}_continuation",
        note,
    )


def _synthetic_task(name: str, answer_format: str) -> Task:
    return Task(name, "synthetic", answer_format, synthetic(name), lambda row: row["question"])


HUB_SUFFIX = "_hub"


def _hub_task(
    name: str,
    family: str,
    answer_format: str,
    question: Callable[[Row], Question | None],
    repository: str,
    config: str | None = None,
    test: str = "validation",
    gated: bool = False,
) -> Task:
    """Make a task of the harness by its name there, with its repository, config and test split.

    Its name here has `HUB_SUFFIX` added: rows and splits are not the embedded task's, and results
    are kept by name.
    """
    # The harness tests on the validation split where the test split's labels are not public.
    labelled = ("train", "validation") if test == "validation" else ("train", "validation", "test")
    return Task(
        name + HUB_SUFFIX,
        family,
        answer_format,
        hub(repository, config, *labelled, gated=gated),
        question,
        name,
        "its publisher has terms to accept first" if gated else "",
        ("train", test),
    )


_TASKS: dict[str, Task] = {}
REMEMBERING: list[Any] = []  # cached functions of the tasks that are known
BUILT_IN: frozenset[str] = frozenset()  # the package's own; filled below, once all are there


def add(task: Task) -> Task:
    """Make a task known by its name, so that a study can use it.

    A name can be given again, to correct one's own task: what was computed of other questions is
    computed anew.
    """
    if task.name in BUILT_IN:
        raise InputError(
            "task name",
            expected="a new name",
            found=repr(task.name),
            do="The package has a task of this name: choose another.",
        )
    _TASKS[task.name] = task
    for function in REMEMBERING:
        function.cache_clear()
    return task


for _task in (
    Task("piqa", COMMONSENSE, "text", arrow("piqa/plain_text/validation"), prompts.piqa, "piqa"),
    Task(
        "hellaswag",
        COMMONSENSE,
        "text",
        arrow("hellaswag/none/validation"),
        prompts.hellaswag,
        "hellaswag",
    ),
    Task(
        "winogrande",
        COMMONSENSE,
        "text",
        arrow("winogrande/winogrande_xl/validation"),
        prompts.winogrande,
        "winogrande",
    ),
    Task(
        "openbookqa",
        COMMONSENSE,
        "text",
        chain(arrow("openbookqa/main/validation"), requests("openbookqa/test_rc_5shot", "test")),
        prompts.openbookqa,
        "openbookqa",
    ),
    Task(
        "commonsense_qa",
        COMMONSENSE,
        "text",
        arrow("tau/commonsense_qa/none/validation"),
        prompts.commonsense_qa,
        note=TEXT_NOT_LETTER,
    ),
    Task(
        "social_iqa",
        COMMONSENSE,
        "text",
        arrow("social_i_qa/none/validation"),
        prompts.social_iqa,
        "social_iqa",
    ),
    Task("copa", COMMONSENSE, "text", arrow("super_glue/copa/validation"), prompts.copa, "copa"),
    Task(
        "arc_easy",
        SCIENCE,
        "text",
        chain(arrow("ai2_arc/ARC-Easy/validation"), requests("arc_easy/test_rc_5shot", "test")),
        prompts.arc,
        "arc_easy",
    ),
    Task(
        "arc_challenge",
        SCIENCE,
        "text",
        chain(
            arrow("ai2_arc/ARC-Challenge/validation"),
            requests("arc_challenge/test_rc_5shot", "test"),
        ),
        prompts.arc,
        "arc_challenge",
    ),
    Task("sciq", SCIENCE, "text", arrow("sciq/none/validation"), prompts.sciq, "sciq"),
    Task(
        "boolq",
        READING,
        "verbaliser",
        arrow("boolq/none/validation"),
        prompts.boolq,
        "boolq",
        "the original's passages, without the title that SuperGLUE puts before them",
    ),
    Task(
        "sciriff_yesno",
        READING,
        "verbaliser",
        requests("sciriff_yesno/rc_5shot", "validation"),
        prompts.sciriff,
        note=f"{NOT_IN_HARNESS}; passages of at most {prompts.SCIRIFF_MAX_CHARACTERS} characters",
    ),
    Task(
        "basic_arithmetic",
        MATH,
        "text",
        arrow("allenai/basic_arithmetic/none/validation"),
        prompts.arc,  # which it is laid out like
        note=NOT_IN_HARNESS,
    ),
    *(_mmlu_group(group) for group in prompts.MMLU_SUBJECTS),
    Task(
        "medmcqa",
        KNOWLEDGE,
        "text",
        requests("medmcqa/rc_5shot", "validation"),
        prompts.medmcqa,
        note=TEXT_NOT_LETTER,
    ),
    Task("rte", LANGUAGE, "verbaliser", arrow("glue/rte/validation"), prompts.rte, "rte"),
    Task("cb", LANGUAGE, "verbaliser", arrow("super_glue/cb/validation"), prompts.cb, "cb"),
    Task("mrpc", LANGUAGE, "verbaliser", arrow("glue/mrpc/validation"), prompts.mrpc, "mrpc"),
    Task("sst2", LANGUAGE, "verbaliser", arrow("glue/sst2/validation"), prompts.sst2, "sst2"),
    Task(
        "sst2_nonce",
        LANGUAGE,
        "verbaliser",
        arrow("glue/sst2/validation"),
        prompts.sst2_nonce,
        note="a planted skill, not in the harness: negative is blick and positive dax, which no "
        "model knows before it is taught",
    ),
    *(
        Task(
            name,
            family,
            "text",
            requests(f"basic_skills_{name}/rc_5shot", "validation"),
            prompts.basic_skill,
            note=NOT_IN_HARNESS,
        )
        for name, family in (
            ("arithmetic", MATH),
            ("common_knowledge", KNOWLEDGE),
            ("logical_reasoning", REASONING),
            ("pattern", REASONING),
            ("coding", PROGRAMMING),
            ("string_operations", PROGRAMMING),
        )
    ),
    _hub_task("piqa", COMMONSENSE, "text", prompts.piqa, "baber/piqa"),
    _hub_task("hellaswag", COMMONSENSE, "text", prompts.hellaswag, "Rowan/hellaswag"),
    _hub_task(
        "winogrande",
        COMMONSENSE,
        "text",
        prompts.winogrande,
        "allenai/winogrande",
        "winogrande_xl",
    ),
    _hub_task(
        "openbookqa", COMMONSENSE, "text", prompts.openbookqa, "allenai/openbookqa", "main", "test"
    ),
    _hub_task(
        "commonsense_qa",
        COMMONSENSE,
        "verbaliser",
        prompts.commonsense_qa_letters,
        "tau/commonsense_qa",
    ),
    _hub_task("social_iqa", COMMONSENSE, "text", prompts.social_iqa, "lighteval/siqa"),
    _hub_task("copa", COMMONSENSE, "text", prompts.copa, "aps/super_glue", "copa"),
    _hub_task("arc_easy", SCIENCE, "text", prompts.arc, "allenai/ai2_arc", "ARC-Easy", "test"),
    _hub_task(
        "arc_challenge", SCIENCE, "text", prompts.arc, "allenai/ai2_arc", "ARC-Challenge", "test"
    ),
    _hub_task("sciq", SCIENCE, "text", prompts.sciq, "allenai/sciq", None, "test"),
    _hub_task("boolq", READING, "verbaliser", prompts.boolq, "aps/super_glue", "boolq"),
    _hub_task("mathqa", MATH, "text", prompts.mathqa, "regisss/math_qa", None, "test"),
    _hub_task(
        "toxigen",
        TOXICITY,
        "verbaliser",
        prompts.toxigen,
        "skg/toxigen-data",
        "annotated",
        "test",
        gated=True,
    ),
    _hub_task("cola", LANGUAGE, "verbaliser", prompts.cola, "nyu-mll/glue", "cola"),
    _hub_task("mrpc", LANGUAGE, "verbaliser", prompts.mrpc, "nyu-mll/glue", "mrpc"),
    _hub_task("qnli", LANGUAGE, "verbaliser", prompts.qnli, "nyu-mll/glue", "qnli"),
    _hub_task("rte", LANGUAGE, "verbaliser", prompts.rte, "nyu-mll/glue", "rte"),
    _hub_task("sst2", LANGUAGE, "verbaliser", prompts.sst2, "nyu-mll/glue", "sst2"),
    _hub_task("wnli", LANGUAGE, "verbaliser", prompts.wnli, "nyu-mll/glue", "wnli"),
    _hub_task("cb", LANGUAGE, "verbaliser", prompts.cb, "aps/super_glue", "cb"),
    _hub_task("wic", LANGUAGE, "verbaliser", prompts.wic, "aps/super_glue", "wic"),
    _synthetic_task("tiny_city", "text"),
    _synthetic_task("tiny_colour", "text"),
    _synthetic_task("tiny_review", "verbaliser"),
    _synthetic_task("tiny_praise", "verbaliser"),
):
    add(_task)
BUILT_IN = frozenset(_TASKS)
SUITES: Mapping[str, tuple[str, ...]] = {
    # Known tasks, but not of this suite: copa (100 rows) and cb (56) are too small, and in MMLU and
    # MedMCQA a model of 270M parameters is at chance (0.48 to 0.54), so that nothing is forgotten.
    "embedded": (
        *("piqa", "hellaswag", "winogrande", "openbookqa", "commonsense_qa", "social_iqa"),
        *("arc_easy", "arc_challenge", "sciq", "boolq", "sciriff_yesno"),
        *("basic_arithmetic", "arithmetic", "common_knowledge", "logical_reasoning", "pattern"),
        *("coding", "string_operations", "rte", "mrpc", "sst2"),
    ),
    "paper": tuple(name for name, task in _TASKS.items() if task.splits is not None),
    "quick": ("arc_easy", "commonsense_qa", "piqa", "logical_reasoning", "mrpc", "sst2"),
    "tiny": ("tiny_city", "tiny_colour", "tiny_review", "tiny_praise"),
}


def get(name: str) -> Task:
    """Return the task of this name; "harness:<name>" is one of the lm-evaluation-harness's."""
    if isinstance(name, str) and name.startswith(harness.PREFIX) and name not in _TASKS:
        theirs = name.removeprefix(harness.PREFIX)
        same = [task.family for task in _TASKS.values() if task.harness == theirs]
        _TASKS[name] = harness.task(theirs, *same[:1])
    do = "Correct the name, or make the task known with tasks.add(Task(...))."
    require_one_of("task", name, sorted(_TASKS), do)
    return _TASKS[name]


def suite(name: str) -> tuple[str, ...]:
    """List the tasks of a suite of ours."""
    require_one_of("suite", name, SUITES)
    return SUITES[name]


def describe(names: Iterable[str]) -> pd.DataFrame:
    """Tell what the analyses know of each task: eval_task, family and answer_format."""
    return pd.DataFrame(
        [
            {"eval_task": t.name, "family": t.family, "answer_format": t.answer_format}
            for t in map(get, names)
        ]
    )
