"""Multiple-choice tasks: their suites, and how their questions become examples.

    rows -> Question (all choices, the harness's prompt) -> Example (true response, one distractor)

A task joins a source of rows (`sources`) and a function from a row to a question (`prompts`).
Prompts are those of the lm-evaluation-harness 0.4 for zero shots, to the letter; `Task.harness`
names the task there. Where it is empty, `Task.note` says why.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import compress
from typing import Any

import pandas as pd

from forgetlib import prompts
from forgetlib.prompts import Lacking, Question, Row, asked
from forgetlib.prompts import ask as ask  # with `tasks` alone, one can write a task of one's own
from forgetlib.schema import (
    Example,
    ForgetlibError,
    InputError,
    hash_uniform,
    require_one_of,
    require_whole,
)
from forgetlib.sources import SYNTHETIC_WORDS as SYNTHETIC_WORDS  # all words of the suite `tiny`
from forgetlib.sources import (
    DataMissing,
    Rows,
    Source,
    arrow,
    chain,
    hub,
    requests,
    synthetic,
)

TEST_SHARE = 0.4  # of the questions, where the source's own splits are not used
ANSWER_FORMATS = ("text", "verbaliser")


@dataclass(frozen=True)
class Task:
    """One task: where its rows are and how a row becomes a question.

    family: commonsense, science, reading, math, reasoning, knowledge, programming, toxicity,
        language understanding or synthetic
    answer_format: "verbaliser" where every question has the same responses (yes/no), else "text"
    question: row -> Question, or None where the row is not usable for the task
    harness: the task's name in the lm-evaluation-harness, or ""
    splits: the source's splits to train on and to test on. None, or a source that lacks one of
        them: training and test examples are carved from all rows
    """

    name: str
    family: str
    answer_format: str
    rows: Rows
    question: Callable[[Row], Question | None]
    harness: str = ""
    note: str = ""
    splits: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"\w+", self.name):
            raise InputError(
                "task name", expected="letters, digits, _", found=repr(self.name), do="Rename it."
            )
        require_one_of(f"answer_format of task {self.name!r}", self.answer_format, ANSWER_FORMATS)
        for name in ("rows", "question"):
            if not callable(value := getattr(self, name)):
                raise InputError(
                    f"task {self.name!r}",
                    expected=f"{name} to be a function",
                    found=type(value).__name__,
                    do="Pass rows() -> ('<split>/<row>', row) pairs and question(row) -> Question.",
                )


# --- from questions to examples ------------------------------------------------------------------


def binarise(question: Question, uid: str, seed: int) -> Example | None:
    """The true response and one random distractor, in random order (paper, section 3).

    Distractors equal to the true response are no distractors; None where none is left. White space
    may be all that differs, as in questions on trimming.
    """
    pairs = list(zip(question.prompts, question.choices, strict=True))
    true = pairs[question.gold]
    others = sorted({p for p in pairs if p != true and p[1].strip()})
    if not others or not true[1].strip() or not true[0].strip():
        return None
    other = others[int(hash_uniform("distractor", seed, uid) * len(others))]
    label = int(hash_uniform("order", seed, uid) < 0.5)
    first, second = (true, other) if label == 0 else (other, true)
    return Example(uid, (first[0], second[0]), (first[1], second[1]), label)


def normalised(example: Example) -> str:
    """What two examples share when one gives the other away: the prompt, but for case and space."""
    return " ".join(sorted({" ".join(p.lower().split()) for p in example.prompts}))


@cache
def questions(name: str) -> tuple[tuple[str, Question], ...]:
    """Every usable question of a task, as (uid, question), in the source's order."""
    return tuple(_read(name)[0].items())


def question(uid: str) -> Question:
    """The question that an example is made from, with all its choices."""
    return _read(uid.partition("/")[0])[0][uid]


def left_out(name: str) -> dict[str, str]:
    """The rows of a task that lack what their question needs: uid -> "null passage", for example.

    Nulls, fields that only other rows have, and empty texts. Rows for which the task's function
    says None are not counted.
    """
    return dict(_read(name)[1])


@cache
def _read(name: str) -> tuple[dict[str, Question], dict[str, str]]:
    """The questions of a task's rows, and what those lack that have none, both by uid.

    What is left out is told once, when it is read.
    """
    task = get(name)
    seen: set[str] = set()
    fields: set[str] = set()
    found: dict[str, Question] = {}
    lacking: dict[str, Lacking] = {}
    for pair in task.rows():
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InputError(
                f"rows of task {name!r}",
                expected="pairs ('<split>/<row>', row)",
                found=repr(pair)[:300],
                do="Give every row its name in the source.",
            )
        uid, row = f"{name}/{pair[0]}", pair[1]
        if uid in seen:
            raise InputError(
                f"rows of task {name!r}",
                expected="every row under a name of its own",
                found=f"{pair[0]!r} twice",
                do="Number the rows of a split.",
            )
        seen.add(uid)
        if isinstance(row, Mapping):
            fields.update(row)
        try:
            question = _question(task, uid, row)
        except Lacking as error:
            lacking[uid] = error
        else:
            if question is not None:
                found[uid] = question
    for uid, lack in lacking.items():
        if lack.kind == "absent" and lack.field not in fields:  # of no row: it is misspelt
            raise _unusable(task, uid, f"KeyError: {lack.field!r}, a field of no row") from lack
    reasons = {uid: str(lack) for uid, lack in lacking.items()}
    if reasons:
        said = _first(reasons)
        warnings.warn(f"task {name!r} goes on without {said}", stacklevel=3)
    return found, reasons


def _first(reasons: Mapping[str, str]) -> str:
    """How many rows were left out, and why the first of them was."""
    uid, why = next(iter(reasons.items()))
    return f"{len(reasons)} rows that lack what their question needs, first {uid!r}: {why}"


def _question(task: Task, uid: str, row: Row) -> Question | None:
    """What the task asks about a row; what goes wrong is said with the row's name."""
    try:
        question = asked(task.question, row)
    except Lacking:
        raise
    except Exception as error:
        raise _unusable(task, uid, error) from error
    if question is not None and not isinstance(question, Question):
        raise _unusable(task, uid, repr(question)[:300])
    return question


def _unusable(task: Task, uid: str, found: str | Exception) -> InputError:
    """The error for a row that makes no question: a task's own function is to blame, or the data.

    Functions of the package were written for data as they were published.
    """
    said = f"{type(found).__name__}: {found}" if isinstance(found, Exception) else found
    expected = "a Question, or None where it cannot be used"
    do = "Correct the task's question function."
    if task.name in _BUILT_IN and isinstance(task.rows, Source):
        expected = f"what a row of {task.rows.place} holds"
        do = "The data there are damaged, or of another version: correct this row, or drop it."
        if isinstance(found, ForgetlibError):  # without its advice, which is for a function
            said = f"{found.what}: expected {found.expected}, found {found.found}"
    return InputError(f"row {uid!r}", expected=expected, found=said.rstrip("."), do=do)


@dataclass(frozen=True)
class Split:
    """A task's examples for one seed, in the order in which a smaller n takes them.

    n_overlap: training examples removed because the test set asks the same
    n_left_out: rows that lack what their question needs, of both sets and all seeds (`left_out`)
    carved: whether both were carved from the same rows, anew for each seed; else they are the
        source's own splits, and the seed decides their order
    """

    train: tuple[Example, ...]
    test: tuple[Example, ...]
    n_overlap: int
    carved: bool
    n_left_out: int = 0


@lru_cache(maxsize=64)
def split(name: str, seed: int) -> Split:
    """Training and test examples of a task: a function of seed and uids, whatever the order."""
    examples = [
        example
        for uid, question in questions(name)
        if (example := binarise(question, uid, seed)) is not None
    ]
    examples.sort(key=lambda e: hash_uniform("sample", seed, e.uid))
    origins = [e.uid.split("/")[1] for e in examples]
    own = get(name).splits or ()
    carved = not own or not set(own) <= set(origins)
    if carved:
        in_test = [hash_uniform("split", seed, e.uid) < TEST_SHARE for e in examples]
        in_train = [not tested for tested in in_test]
    else:
        in_train, in_test = ([origin == part for origin in origins] for part in own)
    test = tuple(compress(examples, in_test))
    asked = {normalised(e) for e in test}
    pool = tuple(compress(examples, in_train))
    train = tuple(e for e in pool if normalised(e) not in asked)
    return Split(train, test, len(pool) - len(train), carved, len(left_out(name)))


def load(name: str, part: str, n: int, seed: int) -> list[Example]:
    """The first n examples of a task's "train" or "test" part, or all where there are fewer."""
    require_one_of(f"part of task {name!r}", part, ("train", "test"))
    require_whole("n", n, 1)
    require_whole("seed", seed)
    examples = getattr(split(name, seed), part)[:n]
    if not examples:
        reasons = left_out(name)
        raise InputError(
            f"task {name!r}",
            expected=f"at least one usable {part} example",
            found="none" + (f", but {_first(reasons)}" if reasons else ""),
            do="Check the task's rows and its question function.",
        )
    return list(examples)


def missing(names: Iterable[str]) -> dict[str, str]:
    """The tasks whose data cannot be had here, with the reason in one line.

    Data that only have not been fetched yet are fetched; of those that are here one row is read. A
    wrong FORGETLIB_HUB is no missing data but an error.
    """
    found = {}
    for name in names:
        try:
            next(iter(get(name).rows()), None)
        except DataMissing as error:
            found[name] = str(error)
    return found


# --- the tasks and their suites ------------------------------------------------------------------

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
    """A task of the harness by its name there, with its repository, config and evaluated split.

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
REMEMBERING: list[Any] = [_read, questions, split]  # cached functions of the tasks that are known
_BUILT_IN: frozenset[str] = frozenset()  # filled below, once they are all there


def add(task: Task) -> Task:
    """Make a task known by its name, so that a RunSpec can use it.

    A name can be given again, to correct one's own task: what was computed of other questions is
    computed anew.
    """
    if task.name in _BUILT_IN:
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
        prompts.basic_arithmetic,
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
_BUILT_IN = frozenset(_TASKS)

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
    do = "Correct the name, or make the task known with tasks.add(Task(...))."
    require_one_of("task", name, sorted(_TASKS), do)
    return _TASKS[name]


def suite(name: str) -> tuple[str, ...]:
    require_one_of("suite", name, SUITES)
    return SUITES[name]


def describe(names: Iterable[str]) -> pd.DataFrame:
    """What the analyses know of each task: eval_task, family and answer_format."""
    return pd.DataFrame(
        [
            {"eval_task": t.name, "family": t.family, "answer_format": t.answer_format}
            for t in map(get, names)
        ]
    )
