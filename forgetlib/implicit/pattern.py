"""Ask real models a question in which continuing a pattern and obeying an instruction differ.

After arXiv 2309.10105, section 3: fine-tuning on instructions makes a model obey where it used to
continue the pattern of two solved examples. Another language or spelling is far from what it was
tuned on, and brings the pattern back. There, greedy answers are counted; here both answers are
scored by log-likelihood, which no cut of an answer and no parser can disturb. All sentences are our
own.

    Write the input in capitals.

    Input: the cat sleeps on the warm stove.
    Output: THE CAT SLEEPS ON THE WARM STOVE.

    Input: a boat drifts on the quiet lake.
    Output: A BOAT DRIFTS ON THE QUIET LAKE.

    Input: What is 19 plus 4?
    Output: WHAT  (the pattern)  or  23  (the instruction in the last input)

Answers are the first words alone, so that both are short. Still they differ in tokens, and a view
can lengthen one of them: their numbers of tokens are kept beside the likelihoods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

from forgetlib.data import views
from forgetlib.data.base import Example, hash_uniform
from forgetlib.errors import InputError, require_one_of, require_whole

if TYPE_CHECKING:
    import pandas as pd

    from forgetlib.models.lm import LM

NAME = "pattern_or_instruction"
PATTERN, INSTRUCTION = "pattern", "instruction"
CHANGES: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "repeat": ("Repeat the input.", str),
    "upper": ("Write the input in capitals.", str.upper),
}
INPUTS = ("arithmetic", "blank")
TASKS = tuple(f"{change}-{last}" for change in CHANGES for last in INPUTS)
VIEWS = ("plain", "upper", "leet", "pig_latin", "template(1)", "template(3)")

COLUMNS = {
    "model": "its name",
    "task": "of TASKS",
    "view": "through which it was asked",
    "uid": "of the prompt",
    PATTERN: "log-likelihood of the pattern's answer, nats",
    INSTRUCTION: "log-likelihood of the answer that obeys, nats",
    f"{PATTERN}_tokens": "of the pattern's answer",
    f"{INSTRUCTION}_tokens": "of the answer that obeys",
    "distance": "nats a token of the prompt as the view shows it, after its first word",
}

SENTENCES = (
    "The cat sleeps on the warm stove.",
    "A boat drifts on the quiet lake.",
    "My aunt paints doors in bright colours.",
    "The baker opens his shop at dawn.",
    "Two dogs run along the wet beach.",
    "Our teacher keeps bees behind the school.",
    "The old clock strikes seven times.",
    "A farmer carries hay into the barn.",
    "The children build a tower of boxes.",
    "Her brother repairs bicycles in summer.",
    "The train stops near the old bridge.",
    "A small bird sits on the fence.",
    "The nurse drinks tea by the window.",
    "Some students read under the big tree.",
    "The wind blows leaves across the yard.",
    "A tailor sews buttons on a coat.",
    "The river is cold in the morning.",
    "Our neighbour grows beans and tomatoes.",
    "The painter mixes green and yellow.",
    "A child draws a house with chalk.",
)
BLANKS = (  # a sentence without its first word, and that word
    ("falls from the sky in winter and is white.", "Snow"),
    ("give milk and eat grass.", "Cows"),
    ("shines by day and warms the earth.", "Sunlight"),
    ("bark at strangers and chase cats.", "Dogs"),
    ("has seven days.", "Week"),
    ("is what fish swim in.", "Water"),
    ("make honey and live in hives.", "Bees"),
    ("burns wood and is hot.", "Fire"),
    ("is the colour of grass.", "Green"),
    ("bakes bread and cakes.", "Bakers"),
    ("fly, sing and lay eggs.", "Birds"),
    ("is the month before February.", "January"),
    ("is the day after Monday.", "Tuesday"),
    ("have pages and are read.", "Books"),
    ("is cold, hard and made of water.", "Ice"),
    ("catch mice and purr.", "Cats"),
    ("show the time on a wall.", "Clocks"),
    ("is the season after spring.", "Summer"),
    ("have wheels, pedals and a bell.", "Bicycles"),
    ("is the opposite of black.", "White"),
)
BLANK = "____"


def examples(task: str, n: int = 100, seed: int = 0) -> list[Example]:
    """Make n prompts of a task of two solved examples and one input; no two are the same.

    task: of TASKS: what the pattern does, and what the last input is. "arithmetic": a question with
        a number as its answer; "blank": a sentence whose first word is missing
    seed: of the sentences, numbers and the order of the two answers

    `label` of each is the place of the pattern's answer; the other obeys the last input.
    """
    require_one_of("task of pattern or instruction", task, TASKS)
    n, seed = require_whole("n", n, 1), require_whole("seed", seed)
    change, last = task.split("-")
    found: dict[str, Example] = {}
    last_new = 0
    for row in count():
        # Drawn with repetition: the last of those there are is missed so long in e^-10 of cases.
        if row > last_new + 10 * (len(found) + 100):
            break
        uid = f"{NAME}/{task}/{row}"
        asked, answer = _last(last, uid, seed)
        prompt = prompt_of(change, _shots(uid, seed), asked)
        if prompt not in found:
            pattern = CHANGES[change][1](asked).split()[0]
            label = int(hash_uniform("pattern-order", seed, uid) < 0.5)
            choices = (answer, pattern) if label else (pattern, answer)
            found[prompt] = Example(uid, (prompt, prompt), choices, label)
            last_new = row
        if len(found) == n:
            return list(found.values())
    raise InputError(
        f"prompts of {task!r}",
        expected=f"{n} different ones",
        found=f"{len(found)}",
        do="Ask for fewer, or add sentences.",
    )


def prompt_of(change: str, shots: Sequence[str], asked: str) -> str:
    """Write an instruction, solved examples, and the input that is asked.

    change: of CHANGES, what the solved examples do with their inputs
    """
    require_one_of("pattern", change, tuple(CHANGES))
    instruction, write = CHANGES[change]
    solved = [f"Input: {shot}\nOutput: {write(shot)}\n\n" for shot in shots]
    return f"{instruction}\n\n{''.join(solved)}Input: {asked}\nOutput:"


def ask(
    models: Mapping[str, LM],
    shown: Mapping[str, Sequence[Example]] | None = None,
    through: Sequence[str] = VIEWS,
) -> pd.DataFrame:
    """Score both answers of every prompt, by every model and through every view: a row each.

    models: by name, as {"base": ..., "tuned": ...}; all are asked the same
    shown: prompts by task; None: those of `examples` of every task
    through: views of `forgetlib.data.views` by name; they change prompts and answers alike

    Columns: those of COLUMNS; distance tells how far a prompt is from what the model expects.

    Raises InputError, with the view and the task, where a view empties a text or changes none, and
    where a model's tokenizer cannot tell the two answers apart or spell one.
    """
    import pandas as pd

    from forgetlib.measuring import scoring

    shown = {task: examples(task) for task in TASKS} if shown is None else shown
    rows = []
    for view in through:
        for task, plain in shown.items():
            seen = views.apply(view, plain)
            for model, lm in models.items():
                scores = scoring.score(lm, seen)
                distances = scoring.nats_a_token(lm, [e.prompts[e.label] for e in seen])
                for i, example in enumerate(seen):
                    own, other = example.label, 1 - example.label
                    rows.append(
                        {
                            "model": model,
                            "task": task,
                            "view": view,
                            "uid": example.uid,
                            PATTERN: float(scores.log_likelihoods[i, own]),
                            INSTRUCTION: float(scores.log_likelihoods[i, other]),
                            f"{PATTERN}_tokens": int(scores.n_tokens[i, own]),
                            f"{INSTRUCTION}_tokens": int(scores.n_tokens[i, other]),
                            "distance": float(distances[i]),
                        }
                    )
    return pd.DataFrame(rows)


def _shots(uid: str, seed: int) -> list[str]:
    """Draw two sentences that differ."""
    first = int(hash_uniform("pattern-first", seed, uid) * len(SENTENCES))
    step = 1 + int(hash_uniform("pattern-second", seed, uid) * (len(SENTENCES) - 1))
    return [SENTENCES[first], SENTENCES[(first + step) % len(SENTENCES)]]


def _last(last: str, uid: str, seed: int) -> tuple[str, str]:
    """Draw the last input, and what obeying it answers."""
    if last == "blank":
        rest, word = BLANKS[int(hash_uniform("pattern-blank", seed, uid) * len(BLANKS))]
        return f"{BLANK} {rest}", word
    a, b = (2 + int(hash_uniform(f"pattern-{x}", seed, uid) * 48) for x in "ab")
    return f"What is {a} plus {b}?", str(a + b)
