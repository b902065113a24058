"""What could be mistaken for knowledge: shortcuts to the answer, and test questions seen before.

Chance is 0.5 in every task, but a rule that reads no question may do better, and a test question
that resembles a training question is half known. Numbers of the data alone, but for
`neighbours_table`.

Shapes: N test examples, M training examples.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from forgetlib.data import tasks
from forgetlib.data.base import Example
from forgetlib.data.splits import Split
from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import resample_counts
from forgetlib.figures.intervals import N_RESAMPLES, as_columns, percentiles, with_intervals
from forgetlib.figures.join import full_size, other_data
from forgetlib.figures.names import listed, title
from forgetlib.figures.style import (
    ACCURACY_MARKS,
    BLACK,
    GREY,
    ORANGE,
    TEXT_WIDTH,
    draw_intervals,
    readable,
    require_columns,
    say_where_nothing,
    set_finding,
    style,
)
from forgetlib.metrics import CHANCE, correct
from forgetlib.runs.records import Result

ALIKE = 0.5  # Jaccard similarity of word triples from which two prompts are near-duplicates
NEIGHBOUR_COLUMNS = [
    *("model", "eval_task", "n_with", "n_without", "lost_with", "lost_without"),
    *("difference", "difference_low", "difference_high"),
]
FEWEST = 10  # questions whose mean has an interval
SHORTCUTS = {  # column of `audit.table`: (legend, marker, colour)
    "commonest_answer": ("rule: the commoner answer", "^", ORANGE),
    "longer_answer": ("rule: the longer answer", "x", BLACK),
    "answer_in_prompt": ("rule: words of the prompt", "v", GREY),
}


def table(
    names: Iterable[str], seeds: Sequence[int], load: Callable[[str, int], Split]
) -> pd.DataFrame:
    """Audit the questions of tasks: duplicates, shared parts, shortcuts; a row a task.

    Numbers are means over seeds.

    load: (task, seed) -> its questions, as partial(studies.load_questions, study)
    Columns: eval_task, family, answer_format; n_train, n_test (the smallest of the seeds); removed
    (training questions that the test set asks too, in the whole pool); near_duplicates (share of
    test questions with a training question that is `ALIKE`); shared_parts (share of those whose
    first line, a passage or a premise, is a training question's too); true_first (share of
    questions whose first choice is true); and the accuracy of `SHORTCUTS` on the test set.
    """
    if not seeds:
        raise InputError(
            "seeds of the audit", expected="at least one", found="none", do="Pass some: [0]."
        )
    rows = []
    for name in names:
        task = tasks.get(name)
        of_seeds = []
        for seed in seeds:
            asked = load(name, seed)
            train, test = asked.train, asked.test
            of_seeds.append(
                {
                    "n_train": len(train),
                    "n_test": len(test),
                    "removed": asked.n_overlap,
                    "near_duplicates": np.mean(nearest(train, test) >= ALIKE),
                    "shared_parts": np.mean(shares_part(train, test)),
                    "true_first": np.mean([e.label == 0 for e in [*train, *test]]),
                    "commonest_answer": commonest_answer(train, test),
                    "longer_answer": longer_answer(test),
                    "answer_in_prompt": answer_in_prompt(test),
                }
            )
        found = pd.DataFrame(of_seeds)
        sizes = found[["n_train", "n_test"]].min()
        named = {"eval_task": name, "family": task.family, "answer_format": task.answer_format}
        rows.append(named | found.mean().to_dict() | sizes.astype(int).to_dict())
    return pd.DataFrame(rows)


def words(text: str) -> list[str]:
    """Split a text into its words, in lower case."""
    return re.findall(r"\w+", text.lower())


def nearest(train: Sequence[Example], test: Sequence[Example]) -> np.ndarray:
    """Measure how like each test prompt is to the likest training prompt: (N,) Jaccard similarity.

    Of their sets of three consecutive words: 1 is equal, 0 has none in common. Fixed words of the
    prompt ("Question:", "Answer:"), which every training example has, do not count.
    """
    trained = [_triples(e) for e in train]
    fixed = set.intersection(*trained) if len(trained) > 1 else set()
    trained = [t - fixed for t in trained]
    having = defaultdict(list)  # triple -> numbers of the training prompts that have it
    for number, triples in enumerate(trained):
        for triple in triples:
            having[triple].append(number)
    found = []
    for example in test:
        own = _triples(example) - fixed
        shared = Counter(number for triple in own for number in having.get(triple, ()))
        likeness = (n / (len(own) + len(trained[number]) - n) for number, n in shared.items())
        found.append(max(likeness, default=0.0))
    return np.array(found)


def shares_part(train: Sequence[Example], test: Sequence[Example]) -> np.ndarray:
    """Tell of each test prompt whether its first line is a training prompt's too: (N,) booleans.

    Of prompts with several lines, where it is a passage, a premise or a first sentence; what stands
    above an empty line is an instruction.
    """

    def first_lines(example: Example) -> set[str]:
        parted = (p.strip().lower().partition("\n") for p in example.prompts)
        return {first for first, _, rest in parted if "\n" in rest and rest[0] != "\n"}

    trained = {line for e in train for line in first_lines(e)}
    return np.array([not trained.isdisjoint(first_lines(e)) for e in test])


def neighbours_table(results: Iterable[Result], load: Callable[[str, int], Split]) -> pd.DataFrame:
    """Compare what is forgotten of test questions that resemble a training question, and of others.

    One row a task with at least `FEWEST` of both kinds, all seeds together. Columns: model,
    eval_task, n_with and n_without such a neighbour (a near-duplicate, or a shared part), lost_with
    and lost_without (fine-tuned less forget accuracy), and their difference with its interval
    (bootstrap over the questions of each kind).

    load: (task, seed) -> its questions, as partial(studies.load_questions, study): scores hold no
        texts
    """
    rows = []
    for model, task, seeds in full_size(results):
        lost, resembles = [], []
        for runs in seeds:
            train, test = (
                _scored(runs["forgotten"], task, part, load) for part in ("train", "test")
            )
            resembles.append((nearest(train, test) >= ALIKE) | shares_part(train, test))
            right = (correct(runs[p].scores[f"{task}/test"]) for p in ("tuned", "forgotten"))
            lost.append(np.subtract(*(r.astype(float) for r in right)))
        kinds = np.concatenate(resembles)
        if min(kinds.sum(), (~kinds).sum()) < FEWEST:
            continue
        with_one, without = (np.concatenate(lost)[kinds == kind] for kind in (True, False))
        rng = np.random.default_rng(0)
        resampled = [
            resample_counts(rng, len(x), N_RESAMPLES) @ x / len(x) for x in (with_one, without)
        ]
        difference = percentiles(with_one.mean() - without.mean(), np.subtract(*resampled))
        rows.append(
            {
                "model": model,
                "eval_task": task,
                "n_with": len(with_one),
                "n_without": len(without),
                "lost_with": with_one.mean(),
                "lost_without": without.mean(),
                **as_columns("difference", difference),
            }
        )
    return pd.DataFrame(rows, columns=NEIGHBOUR_COLUMNS)


def _scored(
    result: Result, task: str, part: str, load: Callable[[str, int], Split]
) -> list[Example]:
    """The examples that a run was scored on: those too long for its model are not among them."""
    known = {e.uid: e for e in getattr(load(task, result.seed), part)}
    uids = result.scores[f"{task}/{part}"].uids
    if gone := [uid for uid in uids if uid not in known]:
        raise other_data(
            f"{part} set of {result.checkpoint}",
            "questions that the task has",
            f"{len(gone)} others, first {gone[0]!r}",
        )
    return [known[uid] for uid in uids]


def _triples(example: Example) -> set[tuple[str, ...]]:
    found = words(" ".join(dict.fromkeys(example.prompts)))
    return set(zip(found, found[1:], found[2:], strict=False))


def commonest_answer(train: Sequence[Example], test: Sequence[Example]) -> float:
    """Score the rule that chooses what is true more often in training; a tie is half right.

    It is what a model may fall back to, and above chance where a fixed answer is the commoner one.
    """
    counts = Counter(e.choices[e.label] for e in train)
    return _accuracy(test, [[counts[c] for c in e.choices] for e in test])


def longer_answer(test: Sequence[Example]) -> float:
    """Score the rule that chooses the longer response, as an accuracy; a tie is half right."""
    return _accuracy(test, [[len(c) for c in e.choices] for e in test])


def answer_in_prompt(test: Sequence[Example]) -> float:
    """Score the rule that chooses the response of whose words the prompt has the larger share.

    A prompt that gives its answer away shows here, and so does a task of finding words again.
    """
    shares = []
    for example in test:
        pairs = zip(example.prompts, example.choices, strict=True)
        of_choices = [(set(words(prompt)), words(choice)) for prompt, choice in pairs]
        shares.append([sum(w in p for w in c) / max(len(c), 1) for p, c in of_choices])
    return _accuracy(test, shares)


def _accuracy(test: Sequence[Example], values: Sequence[Sequence[float]]) -> float:
    """Accuracy of choosing the largest value; CHANCE where all are equal."""
    right = []
    for example, row in zip(test, values, strict=True):
        true = row[example.label]
        best_other = max(v for i, v in enumerate(row) if i != example.label)
        right.append(CHANCE if true == best_other else float(true > best_other))
    return float(np.mean(right))


def finding(table: pd.DataFrame) -> str:
    """Say in a sentence in how many tasks the fine-tuned model is shown to beat every rule.

    table: as of `draw`
    """
    best = table[[*SHORTCUTS]].max(axis=1)
    above = int((table["tuned_low"] > best).sum())
    below = table.loc[table["tuned_high"] < best, "eval_task"]
    said = (
        f"In {above} of {len(table)} tasks the fine-tuned model is shown to beat every rule that "
    )
    said += "understands nothing"
    return f"{said}; in {listed(map(title, below))} a rule beats it" if len(below) else said


def draw(table: pd.DataFrame) -> Figure:
    """Draw how accurate rules are that understand nothing, beside the model in its phases.

    table: from `audit.table`, with the columns of `fig2.table`, one row a task
    """
    require_columns(table, ["eval_task", *SHORTCUTS, *with_intervals(["tuned", "forgotten"])])
    rows = readable(table).sort_values("tuned").reset_index(drop=True)
    y = np.arange(len(rows))
    said = finding(table)
    with style(rows["eval_task"], [said]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.5 + 0.24 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for column in ("tuned", "forgotten"):
            draw_intervals(
                axes, rows, column, y + (column == "tuned") * 0.3 - 0.15, *ACCURACY_MARKS[column]
            )
        for column, (label, marker, colour) in SHORTCUTS.items():
            axes.plot(
                *(rows[column], y, marker),
                label=label,
                color=colour,
                markerfacecolor="white",
                markersize=4,
            )
        say_where_nothing(axes, rows[["tuned", "forgotten", *SHORTCUTS]], "nothing is known")
        axes.axvline(CHANCE, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        axes.set_yticks(y, rows["eval_task"])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("accuracy on the test set (dashed: chance)")
        axes.grid(axis="y", visible=False)
        sns.despine(ax=axes, left=True)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        set_finding(figure, said)
    return figure
