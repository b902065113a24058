"""Multiple-choice tasks: their rows, their prompts, their suites, and how they become examples.

    rows -> Question (all choices, the harness's prompt) -> Example (true response, one distractor)

Prompts are those of the lm-evaluation-harness 0.4 for zero shots, to the letter; `Task.harness`
names the task there. Where it is empty, `Task.note` says why.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd

from forgetlib import assets
from forgetlib.schema import Example, InputError, hash_uniform

Row = Mapping[str, Any]
Rows = Callable[[], Iterable[tuple[str, Row]]]  # ("<split>/<row number>", row) pairs

TEST_SHARE = 0.4  # of the questions, where a source has no training split of its own


@dataclass(frozen=True)
class Question:
    """A question with all its choices, as the harness scores it.

    prompts: (K,) one for each choice; equal but in partial scoring
    choices: (K,) without the space that joins them to the prompt
    gold: index of the true response
    """

    prompts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Task:
    """One task: where its rows are and how a row becomes a question.

    family: commonsense, science, reading, math, reasoning, knowledge, language understanding or
        synthetic
    answer_format: "verbaliser" where every question has the same responses (yes/no), else "text"
    question: row -> Question, or None where the row is not usable for the task
    harness: the task's name in the lm-evaluation-harness, or ""
    """

    name: str
    family: str
    answer_format: str
    rows: Rows
    question: Callable[[Row], Question | None]
    harness: str = ""
    note: str = ""


def ask(prompt: str, choices: Sequence[str], gold: int) -> Question:
    return Question((prompt,) * len(choices), tuple(choices), gold)


# --- from questions to examples ------------------------------------------------------------------


def binarise(question: Question, uid: str, seed: int) -> Example | None:
    """The true response and one random distractor, in random order (paper, section 3).

    Distractors equal to the true response are no distractors; None where none is left.
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
    task = get(name)
    pairs = ((f"{name}/{where}", task.question(row)) for where, row in task.rows())
    return tuple((uid, question) for uid, question in pairs if question is not None)


@dataclass(frozen=True)
class Split:
    """A task's examples for one seed, in the order in which a smaller n takes them.

    n_overlap: training examples removed because the test set asks the same
    """

    train: tuple[Example, ...]
    test: tuple[Example, ...]
    n_overlap: int


@lru_cache(maxsize=64)
def split(name: str, seed: int) -> Split:
    """Training and test examples of a task: a function of seed and uids, whatever the order."""
    examples = [
        example
        for uid, question in questions(name)
        if (example := binarise(question, uid, seed)) is not None
    ]
    examples.sort(key=lambda e: hash_uniform("sample", seed, e.uid))
    test = [e for e in examples if hash_uniform("split", seed, e.uid) < TEST_SHARE]
    tested = {e.uid for e in test}
    asked = {normalised(e) for e in test}
    rest = [e for e in examples if e.uid not in tested]
    train = [e for e in rest if normalised(e) not in asked]
    return Split(tuple(train), tuple(test), len(rest) - len(train))


def load(name: str, part: str, n: int, seed: int) -> list[Example]:
    """The first n examples of a task's "train" or "test" part, or all where there are fewer."""
    if part not in ("train", "test"):
        raise InputError(
            f"part of task {name!r}", expected="train or test", found=repr(part), do="Choose one."
        )
    if n < 1:
        raise InputError("n", expected="at least 1", found=n, do="Ask for some examples.")
    examples = getattr(split(name, seed), part)[:n]
    if not examples:
        raise InputError(
            f"task {name!r}",
            expected=f"at least one usable {part} example",
            found="none",
            do="Check the task's rows and its question function.",
        )
    return list(examples)


# --- embedded rows -------------------------------------------------------------------------------


def arrow(*folders: str) -> Rows:
    """Rows of saved copies of hub datasets, one folder a split."""

    def rows() -> Iterator[tuple[str, Row]]:
        from datasets import Dataset  # slow to import, and not needed to read results

        for folder in folders:
            path = assets.data_dir() / "hf_datasets" / folder / "data-00000-of-00001.arrow"
            # The subject tells MMLU's splits apart; for the rest the split's name is enough.
            parts = folder.split("/")
            part = f"{parts[-2]}.{parts[-1]}" if "mmlu" in folder else parts[-1]
            for number, row in enumerate(Dataset.from_file(str(path))):
                yield f"{part}/{number}", row

    return rows


def requests(folder: str, part: str) -> Rows:
    """Documents of a request file, which lists a document once for every choice."""

    def rows() -> Iterator[tuple[str, Row]]:
        path = assets.data_dir() / "oe_eval_tasks" / folder / "requests.jsonl.gz"
        seen: set[str] = set()
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                request = json.loads(line)
                if request["native_id"] not in seen:
                    seen.add(request["native_id"])
                    yield f"{part}/{len(seen) - 1}", request["doc"]

    return rows


def chain(*sources: Rows) -> Rows:
    return lambda: (pair for source in sources for pair in source())


# --- prompts, as in the harness ------------------------------------------------------------------


def _arc(row: Row) -> Question:
    if "query" in row:  # a request file: the prompt is made, and says the same
        return ask(row["query"], row["choices"], row["gold"])
    gold = row["choices"]["label"].index(row["answerKey"])
    return ask(f"Question: {row['question']}\nAnswer:", row["choices"]["text"], gold)


def _openbookqa(row: Row) -> Question:
    if "query" in row:  # a request file adds "Question: ...\nAnswer:", which the harness does not
        stem = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        return ask(stem, row["choices"], row["gold"])
    gold = row["choices"]["label"].index(row["answerKey"].lstrip())
    return ask(row["question_stem"], row["choices"]["text"], gold)


def _piqa(row: Row) -> Question:
    return ask(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], row["label"])


def _hellaswag(row: Row) -> Question:
    def clean(text: str) -> str:
        text = text.strip().replace(" [title]", ". ")
        return re.sub(r"\[.*?\]", "", text).replace("  ", " ")

    prompt = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return ask(prompt, [clean(e) for e in row["endings"]], int(row["label"]))


def _winogrande(row: Row) -> Question:
    """Partial scoring: the options end the prompts, and the rest of the sentence is scored."""
    blank = row["sentence"].index("_")
    options = (row["option1"], row["option2"])
    prompts = tuple(row["sentence"][:blank] + option for option in options)
    rest = row["sentence"][blank + 1 :].strip()
    return Question(prompts, (rest, rest), {"1": 0, "2": 1}[row["answer"]])


def _commonsense_qa(row: Row) -> Question:
    gold = row["choices"]["label"].index(row["answerKey"])
    return ask(f"Question: {row['question'].strip()}\nAnswer:", row["choices"]["text"], gold)


def _social_iqa(row: Row) -> Question:
    answers = [row["answerA"], row["answerB"], row["answerC"]]
    return ask(f"Q: {row['context']} {row['question']}\nA:", answers, int(row["label"]) - 1)


def _copa(row: Row) -> Question:
    def lower_first(text: str) -> str:
        return text[:1].lower() + text[1:]

    joint = {"cause": "because", "effect": "therefore"}[row["question"]]
    # The harness's choices start with a space of their own, so that two are scored.
    choices = [" " + lower_first(row["choice1"]), " " + lower_first(row["choice2"])]
    return ask(f"{row['premise'].strip()[:-1]} {joint}", choices, row["label"])


def _sciq(row: Row) -> Question:
    prompt = f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:"
    choices = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
    return ask(prompt, choices, 3)


def _boolq(row: Row) -> Question:
    prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return ask(prompt, ["no", "yes"], int(row["answer"]))


def _rte(row: Row) -> Question:
    prompt = f"{row['sentence1']}\nQuestion: {row['sentence2']} True or False?\nAnswer:"
    return ask(prompt, ["True", "False"], row["label"])


def _cb(row: Row) -> Question:
    prompt = f"{row['premise']}\nQuestion: {row['hypothesis']}. True, False, or Neither?\nAnswer:"
    return ask(prompt, ["True", "False", "Neither"], row["label"])


def _mrpc(row: Row) -> Question:
    prompt = (
        f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\n"
        "Question: Do both sentences mean the same thing?\nAnswer:"
    )
    return ask(prompt, ["no", "yes"], row["label"])


def _sst2(row: Row) -> Question:
    prompt = f"{row['sentence']}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    return ask(prompt, ["negative", "positive"], row["label"])


def _mmlu(row: Row) -> Question:
    subject = row["subject"].replace("_", " ")
    prompt = (
        f"The following are questions (with answers) about {subject}.\n\n"
        f"Question: {row['question'].strip()}\nAnswer:"
    )
    return ask(prompt, row["choices"], row["answer"])


def _medmcqa(row: Row) -> Question:
    options = [row["opa"], row["opb"], row["opc"], row["opd"]]
    return ask(f"Question: {row['question'].strip()}\nAnswer:", options, row["cop"])


def _basic_arithmetic(row: Row) -> Question:
    gold = row["choices"]["label"].index(row["answerKey"])
    return ask(f"Question: {row['question']}\nAnswer:", row["choices"]["text"], gold)


SCIRIFF_MAX_CHARACTERS = 1200


def _sciriff(row: Row) -> Question | None:
    if len(row["context"]) > SCIRIFF_MAX_CHARACTERS:
        return None
    prompt = f"{row['context']}\nQuestion: {row['question']}\nAnswer:"
    return ask(prompt, row["choices"], row["gold"])


def _basic_skill(row: Row) -> Question:
    return ask(row["question"], row["choices"], row["gold"])


# MMLU's four groups, as in the harness (Hendrycks et al. 2021).
MMLU_SUBJECTS = {
    "stem": "abstract_algebra anatomy astronomy college_biology college_chemistry "
    "college_computer_science college_mathematics college_physics computer_security "
    "conceptual_physics electrical_engineering elementary_mathematics high_school_biology "
    "high_school_chemistry high_school_computer_science high_school_mathematics "
    "high_school_physics high_school_statistics machine_learning",
    "humanities": "formal_logic high_school_european_history high_school_us_history "
    "high_school_world_history international_law jurisprudence logical_fallacies moral_disputes "
    "moral_scenarios philosophy prehistory professional_law world_religions",
    "social_sciences": "econometrics high_school_geography high_school_government_and_politics "
    "high_school_macroeconomics high_school_microeconomics high_school_psychology "
    "human_sexuality professional_psychology public_relations security_studies sociology "
    "us_foreign_policy",
    "other": "business_ethics clinical_knowledge college_medicine global_facts human_aging "
    "management marketing medical_genetics miscellaneous nutrition professional_accounting "
    "professional_medicine virology",
}


def _mmlu_group(group: str) -> Task:
    subjects = MMLU_SUBJECTS[group].split()
    folders = [f"hails/mmlu_no_train/{subject}/test" for subject in subjects]
    note = "the harness's mmlu_continuation form: the choice's text is scored, not a letter"
    return Task(
        f"mmlu_{group}",
        "knowledge",
        "text",
        arrow(*folders),
        _mmlu,
        "mmlu_{subject}_continuation",
        note,
    )


TEXT_NOT_LETTER = "the choice's text is scored; the harness lists lettered options"
NOT_IN_HARNESS = "not in the harness; the data's own prompt, without examples"

# --- synthetic tasks -----------------------------------------------------------------------------

N_SYNTHETIC = 400
NAMES = tuple(f"name{i}" for i in range(200))
PEOPLE = tuple(f"person{i}" for i in range(24))
CITIES = tuple(f"city{i}" for i in range(24))
TOOLS = tuple(f"tool{i}" for i in range(24))
COLOURS = tuple(f"colour{i}" for i in range(12))
PRAISE = tuple(f"praise{i}" for i in range(12))
BLAME = tuple(f"blame{i}" for i in range(12))
SYNTHETIC_WORDS = (
    *("review", "by", "where", "lives", "what", "colour", "has", "is", "it", "?"),
    *("good", "bad", "yes", "no"),
    *(*NAMES, *PEOPLE, *CITIES, *TOOLS, *COLOURS, *PRAISE, *BLAME),
)


def synthetic(name: str) -> Rows:
    """A seeded generator of one synthetic task's questions.

    Every prompt carries two random names, by which a model can remember the single question, and
    a cue, from which it can tell the answer of any question. Random labels contradict the cue in
    half of the questions. Where the wrong responses are spread over many words (`tiny_city`,
    `tiny_colour`), the right one stays the likeliest for a new question; where there is a single
    wrong word (`tiny_review`, `tiny_praise`), nothing is left to prefer it.
    """

    def rows() -> Iterator[tuple[str, Row]]:
        rng = np.random.default_rng([ord(c) for c in name])
        for number in range(N_SYNTHETIC):
            first, second = (NAMES[i] for i in rng.choice(len(NAMES), 2, replace=False))
            cue, other = (int(i) for i in rng.choice(len(PEOPLE), 2, replace=False))
            if name == "tiny_city":
                prompt = f"{first} {second} where lives {PEOPLE[cue]} ?"
                question = ask(prompt, [CITIES[cue], CITIES[other]], 0)
            elif name == "tiny_colour":
                prompt = f"{first} {second} what colour has {TOOLS[cue]} ?"
                n = len(COLOURS)
                wrong = (cue + 1 + other % (n - 1)) % n
                question = ask(prompt, [COLOURS[cue % n], COLOURS[wrong]], 0)
            else:
                good = int(rng.integers(2))
                words = PRAISE if good else BLAME
                said = words[cue % len(words)]
                prompt, choices = {
                    "tiny_review": (f"{first} {second} review {said} is it ?", ["bad", "good"]),
                    "tiny_praise": (f"{first} {second} {said} by ?", ["no", "yes"]),
                }[name]
                question = ask(prompt, choices, good)
            yield f"synthetic/{number}", {"question": question}

    return rows


def _synthetic_task(name: str, answer_format: str) -> Task:
    return Task(name, "synthetic", answer_format, synthetic(name), lambda row: row["question"])


# --- the tasks and their suites ------------------------------------------------------------------

COMMONSENSE, SCIENCE, KNOWLEDGE = "commonsense", "science", "knowledge"
READING, MATH, REASONING = "reading", "math", "reasoning"
LANGUAGE = "language understanding"

_TASKS: dict[str, Task] = {}
_BUILT_IN: frozenset[str] = frozenset()  # filled below, once they are all there


def add(task: Task) -> Task:
    """Make a task known by its name, so that a RunSpec can use it.

    A name can be given again, to correct one's own task; results are kept by name, so delete
    those of the old one.
    """
    if task.name in _BUILT_IN:
        raise InputError(
            "task name",
            expected="a new name",
            found=repr(task.name),
            do="The package has a task of this name: choose another.",
        )
    if not re.fullmatch(r"\w+", task.name):
        raise InputError(
            "task name", expected="letters, digits, _", found=repr(task.name), do="Rename it."
        )
    _TASKS[task.name] = task
    questions.cache_clear()
    split.cache_clear()
    return task


for _task in (
    Task("piqa", COMMONSENSE, "text", arrow("piqa/plain_text/validation"), _piqa, "piqa"),
    Task(
        "hellaswag",
        COMMONSENSE,
        "text",
        arrow("hellaswag/none/validation"),
        _hellaswag,
        "hellaswag",
    ),
    Task(
        "winogrande",
        COMMONSENSE,
        "text",
        arrow("winogrande/winogrande_xl/validation"),
        _winogrande,
        "winogrande",
    ),
    Task(
        "openbookqa",
        COMMONSENSE,
        "text",
        chain(arrow("openbookqa/main/validation"), requests("openbookqa/test_rc_5shot", "test")),
        _openbookqa,
        "openbookqa",
    ),
    Task(
        "commonsense_qa",
        COMMONSENSE,
        "text",
        arrow("tau/commonsense_qa/none/validation"),
        _commonsense_qa,
        note=TEXT_NOT_LETTER,
    ),
    Task(
        "social_iqa",
        COMMONSENSE,
        "text",
        arrow("social_i_qa/none/validation"),
        _social_iqa,
        "social_iqa",
    ),
    Task("copa", COMMONSENSE, "text", arrow("super_glue/copa/validation"), _copa, "copa"),
    Task(
        "arc_easy",
        SCIENCE,
        "text",
        chain(arrow("ai2_arc/ARC-Easy/validation"), requests("arc_easy/test_rc_5shot", "test")),
        _arc,
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
        _arc,
        "arc_challenge",
    ),
    Task("sciq", SCIENCE, "text", arrow("sciq/none/validation"), _sciq, "sciq"),
    Task(
        "boolq",
        READING,
        "verbaliser",
        arrow("boolq/none/validation"),
        _boolq,
        "boolq",
        "the original's passages, without the title that SuperGLUE puts before them",
    ),
    Task(
        "sciriff_yesno",
        READING,
        "verbaliser",
        requests("sciriff_yesno/rc_5shot", "validation"),
        _sciriff,
        note=f"{NOT_IN_HARNESS}; passages of at most {SCIRIFF_MAX_CHARACTERS} characters",
    ),
    Task(
        "basic_arithmetic",
        MATH,
        "text",
        arrow("allenai/basic_arithmetic/none/validation"),
        _basic_arithmetic,
        note=NOT_IN_HARNESS,
    ),
    *(_mmlu_group(group) for group in MMLU_SUBJECTS),
    Task(
        "medmcqa",
        KNOWLEDGE,
        "text",
        requests("medmcqa/rc_5shot", "validation"),
        _medmcqa,
        note=TEXT_NOT_LETTER,
    ),
    Task("rte", LANGUAGE, "verbaliser", arrow("glue/rte/validation"), _rte, "rte"),
    Task("cb", LANGUAGE, "verbaliser", arrow("super_glue/cb/validation"), _cb, "cb"),
    Task("mrpc", LANGUAGE, "verbaliser", arrow("glue/mrpc/validation"), _mrpc, "mrpc"),
    Task("sst2", LANGUAGE, "verbaliser", arrow("glue/sst2/validation"), _sst2, "sst2"),
    Task(
        "logical_reasoning",
        REASONING,
        "text",
        requests("basic_skills_logical_reasoning/rc_5shot", "validation"),
        _basic_skill,
        note=NOT_IN_HARNESS,
    ),
    _synthetic_task("tiny_city", "text"),
    _synthetic_task("tiny_colour", "text"),
    _synthetic_task("tiny_review", "verbaliser"),
    _synthetic_task("tiny_praise", "verbaliser"),
):
    add(_task)
_BUILT_IN = frozenset(_TASKS)

SUITES: Mapping[str, tuple[str, ...]] = {
    # copa (100 rows) and cb (56) are known tasks, but too small for this suite.
    "embedded": tuple(
        name
        for name, task in _TASKS.items()
        if name not in ("copa", "cb") and task.family != "synthetic"
    ),
    "quick": ("arc_easy", "commonsense_qa", "piqa", "logical_reasoning", "mrpc", "sst2"),
    "tiny": ("tiny_city", "tiny_colour", "tiny_review", "tiny_praise"),
}


def get(name: str) -> Task:
    if name not in _TASKS:
        raise InputError(
            "task",
            expected=f"one of {', '.join(sorted(_TASKS))}",
            found=repr(name),
            do="Correct the name, or make the task known with tasks.add(Task(...)).",
        )
    return _TASKS[name]


def suite(name: str) -> tuple[str, ...]:
    if name not in SUITES:
        raise InputError(
            "suite",
            expected=f"one of {', '.join(SUITES)}",
            found=repr(name),
            do="Correct the name.",
        )
    return SUITES[name]


def describe(names: Iterable[str]) -> pd.DataFrame:
    """What the analyses know of each task: eval_task, family and answer_format."""
    return pd.DataFrame(
        [
            {"eval_task": t.name, "family": t.family, "answer_format": t.answer_format}
            for t in map(get, names)
        ]
    )
