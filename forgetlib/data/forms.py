"""Give the views of the package: other forms of a question.

A model that seems to have forgotten a skill may still have it when it is asked otherwise: what
training has changed may be when a skill is used, and not the skill (Kotha, Springer and
Raghunathan, arXiv 2309.10105). Each view here is another way to ask. How to use them, and how to
add one, is shown in `views`.

    upper  lower  leet  pig_latin  spaced      other letters, in prompts and choices
    few_shot(k, after, labels)                 k solved examples before the prompt
    verbaliser(first, second)                  fixed answers in other words
    template(i)  chat                          other words around the prompt

Letters are changed in the whole text, so also in "Question:" and "Answer:". What two choices have
in common after that may be everything ("Is" and "is" in capitals); such a question is refused.
Partial scoring, where the prompts differ and the choice is shared (WinoGrande), works in every view
but `verbaliser`, which is for fixed answers only.

Whatever a view writes, a response follows its prompt after one space, as everywhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forgetlib.data import splits, tasks
from forgetlib.data.base import Example, View, hash_uniform, normalised, with_texts
from forgetlib.errors import InputError, require_one_of, require_whole

# --- other letters


class Upper(View, name="upper"):
    """Show prompts and choices in capitals."""

    def shown(self, example: Example) -> Example:
        return with_texts(example, str.upper)


class Lower(View, name="lower"):
    """Show prompts and choices in small letters."""

    def shown(self, example: Example) -> Example:
        return with_texts(example, str.lower)


class Leet(View, name="leet"):
    """Show prompts and choices in leetspeak: "I am my aunt's" as "1 4M MY 4un7'5"."""

    def shown(self, example: Example) -> Example:
        return with_texts(example, leet)


class PigLatin(View, name="pig_latin"):
    """Show prompts and choices in Pig Latin: "Trash covered it" as "Ashtray overedcay ityay"."""

    def shown(self, example: Example) -> Example:
        return with_texts(example, pig_latin)


class Spaced(View, name="spaced"):
    """Show prompts and choices with their letters apart: "Is it" as "I s   i t"."""

    def shown(self, example: Example) -> Example:
        return with_texts(example, spaced)


LEET = {"a": "4", "b": "8", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}


def leet(text: str) -> str:
    """Write a text in leetspeak, of the same length.

    Word by word, a word being what stands between white space: seven letters become digits, the
    others small, and then the first and the last character of the word capitals, the last but for
    one full stop. So are the data of arXiv 2309.10105.
    """
    return re.sub(r"\S+", lambda found: _leet_word(found[0]), text)


def _leet_word(word: str) -> str:
    stop = "." if word.endswith(".") else ""
    small = (_one(c, str.lower) for c in word.removesuffix(stop))
    letters = [LEET.get(c, c) for c in small]
    for end in {0, len(letters) - 1} if letters else ():
        letters[end] = _one(letters[end], str.upper)
    return "".join(letters) + stop


def _one(character: str, change: Callable[[str], str]) -> str:
    """Change a character's case where that is one character, too; not as in German's sharp s."""
    changed = change(character)
    return changed if len(changed) == 1 else character


VOWELS = frozenset("aeiou")


def pig_latin(text: str) -> str:
    """Write a text in Pig Latin, word by word; what is no letter stays where it is.

    Apostrophes go. A word that starts with a vowel gets "yay", or "ay" if it ends in y. Of another
    the consonants before its first vowel move to the end, "ay" follows, and "-" stands between if
    the rest ends in the letter with which they begin ("test": "est-tay"). After the first letter y
    is a vowel. An initial capital stays initial. A word without vowels stays as it is ("Mr"). So
    are the data of arXiv 2309.10105.
    """
    without = re.sub("['\N{RIGHT SINGLE QUOTATION MARK}]", "", text)
    return re.sub(r"[^\W\d_]+", lambda found: _pig_latin_word(found[0]), without)


def _pig_latin_word(word: str) -> str:
    # Letter by letter, as a text in small letters may be longer.
    is_vowel = (c.lower() in VOWELS or (i > 0 and c in "yY") for i, c in enumerate(word))
    first = next((i for i, found in enumerate(is_vowel) if found), None)
    if first is None:
        return word
    if first == 0:
        return word + ("ay" if word[-1] in "yY" else "yay")
    cluster, stem = word[:first], word[first:]
    between = "-" if stem[-1].lower() == cluster[0].lower() else ""
    if cluster[0].isupper():
        cluster, stem = cluster[0].lower() + cluster[1:], stem[0].upper() + stem[1:]
    return f"{stem}{between}{cluster}ay"


def spaced(text: str) -> str:
    """Write a space between any two characters of a line, so that words are three apart."""
    return "\n".join(map(" ".join, text.split("\n")))


# --- solved examples


@dataclass(frozen=True)
class FewShot(View, name="few_shot"):
    """Show k solved examples of the task before the prompt: in-context learning.

    They are the task's own training questions, in the order of the split, each as its prompt, a
    space, a response and an empty line, as in the lm-evaluation-harness; the same for all
    questions. Where every question has the same answers, each answer is shown as often as the
    others, or once more. The examples of a smaller k are the first of those of a larger.

    No test question is among them, as none is in a training set, and no question that is asked
    itself: where training questions are shown, the next one takes its place. Nor is one of the
    first `after` questions, or what asks the same: say with it how many were forgotten. Where
    some of those did not fit the model, others were taken in their place: add as many.

    With labels "random" each example has one of its responses, drawn once (Min et al., arXiv
    2202.12837): what is gained with those too is the task's form, and not its skill.

    Raises InputError for a k below 1, and where there are not so many training questions.

    k: examples
    after: training questions to leave out, as these were forgotten
    labels: which responses examples have: "true" or "random"
    """

    k: int
    after: int = 0
    labels: str = "true"

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("after", 0)):
            whole = require_whole(f"{name} of view 'few_shot'", getattr(self, name), least)
            object.__setattr__(self, name, whole)
        require_one_of("labels of view 'few_shot'", self.labels, ("true", "random"))

    def of(self, task: str, seed: int) -> View:
        """Take the examples of a task's split."""
        train = splits.split(task, seed).train
        forgotten = {normalised(e) for e in train[: self.after]}
        pool = {e: same for e in train[self.after :] if (same := normalised(e)) not in forgotten}
        usual = self._taken(task, list(pool))

        def show(example: Example) -> Example:
            asked, taken = normalised(example), usual
            if any(pool[e] == asked for e in usual):
                taken = self._taken(task, [e for e, same in pool.items() if same != asked])
            before = "".join(self._solved(e, seed) for e in taken)
            return with_texts(example, lambda prompt: before + prompt, choices=False)

        return _Ready(show)

    def shown(self, example: Example) -> Example:
        """Raise InputError: which examples there are is known once a split is (`of`)."""
        raise _unready(self, example)

    def _taken(self, task: str, pool: Sequence[Example]) -> list[Example]:
        """Take k examples in the order of the pool, each of an answer that was taken least."""
        if len(pool) < self.k:
            raise InputError(
                f"view {self.name!r} of task {task!r}",
                expected=f"{self.k} training questions to show, after the first {self.after}",
                found=f"{len(pool)}",
                do="Show fewer, leave out fewer, or leave the view out for this task.",
            )
        fixed = tasks.get(task).has_fixed_answers
        left, counts, taken = list(pool), Counter[str](), []
        for _ in range(self.k):
            answers = [e.choices[e.label] if fixed else "" for e in left]
            least = min(counts[answer] for answer in answers)
            place = next(i for i, answer in enumerate(answers) if counts[answer] == least)
            counts[answers[place]] += 1
            taken.append(left.pop(place))
        return taken

    def _solved(self, example: Example, seed: int) -> str:
        """Write an example with a response, as it stands before the question."""
        response = example.label
        if self.labels == "random":
            drawn = hash_uniform("few-shot-labels", seed, example.uid)
            response = int(drawn * len(example.choices))
        return f"{example.prompts[response].rstrip()} {example.choices[response]}\n\n"


# --- other words


@dataclass(frozen=True)
class Verbaliser(View, name="verbaliser"):
    """Show fixed answers in other words: verbaliser('false', 'true') for no and yes.

    The task's two answers, by the alphabet, become `first` and `second`. The prompt stays as it is,
    also where it has the answers in it ("True or False?").

    Raises InputError for a task whose answers are free or not two, and for words that are equal,
    empty, or the task's own: those would change nothing, or make true what is false.
    """

    first: str
    second: str

    def __post_init__(self) -> None:
        words = (self.first, self.second)
        if not all(isinstance(w, str) and w.strip() for w in words) or len(set(words)) < 2:
            raise InputError(
                "words of view 'verbaliser'",
                expected="two that differ, and are not empty",
                found=repr(words),
                do="Write verbaliser('blick', 'dax').",
            )

    def of(self, task: str, seed: int) -> View:
        """Find the task's answers, and which word each becomes."""
        fixed = tasks.get(task).has_fixed_answers
        asked = splits.questions(task) if fixed else ()
        answers = sorted({choice for _, question in asked for choice in question.choices})
        words = (self.first, self.second)
        if len(answers) != 2 or set(answers) == set(words):
            other = "free answers" if not fixed else f"answers {answers}"
            raise InputError(
                f"view {self.name!r} of task {task!r}",
                expected="a task with two fixed answers, other than these",
                found=other,
                do="Choose other words, or leave the view out for this task.",
            )
        become = dict(zip(answers, words, strict=True))
        return _Ready(lambda e: with_texts(e, become.__getitem__, prompts=False))

    def shown(self, example: Example) -> Example:
        """Raise InputError: which answers there are is known once the task is (`of`)."""
        raise _unready(self, example)


@dataclass(frozen=True)
class Template(View, name="template"):
    """Show the prompt with other words around it, in one of three ways; the choices stay.

    1: "Please answer the following.", an empty line, and the prompt
    2: "Response:" in the place of a last "Answer:" or "A:"; in a line of its own where there is
       neither
    3: Someone asks: "<the prompt>", and in the next line "One would reply:"

    None of them knows what a prompt says, so that all can be asked of any task. In partial scoring
    2 and 3 stand between the two parts of a sentence.

    i: which of them
    """

    i: int

    def __post_init__(self) -> None:
        i = require_whole("i of view 'template'", self.i, 1, len(TEMPLATES))
        object.__setattr__(self, "i", i)

    def shown(self, example: Example) -> Example:
        return with_texts(example, TEMPLATES[self.i], choices=False)


def _response(prompt: str) -> str:
    """Ask for a response where the prompt asks for an answer."""
    text, n = re.subn(r"(?<!\S)(Answer|A):\s*$", "Response:", prompt)
    return text if n else f"{prompt.rstrip()}\nResponse:"


TEMPLATES: dict[int, Callable[[str], str]] = {
    1: "Please answer the following.\n\n{}".format,
    2: _response,
    3: lambda prompt: f'Someone asks: "{prompt.rstrip()}"\nOne would reply:',
}


class Chat(View, name="chat"):
    """Show the prompt as a user's turn of a chat, and the choice as the assistant's (ChatML).

        <|im_start|>user
        <the prompt><|im_end|>
        <|im_start|>assistant
         <the choice>

    The marks are text. A tokenizer that knows them makes them its special tokens, as those of
    SmolLM2-Instruct and Qwen2.5 do, which were trained with this form; to another, as Gemma's,
    they are words like any, and the view is one more template. A model's own system turn, which
    chat templates may put first, is left out.

    What a model sees is this text, but for two things. The choice follows after one space, as
    everywhere, and so is the token of " yes" and not that of "yes". And the last line break is
    white space at the end of a prompt, which counts with the response (`forward.encode`): it adds
    the same log-likelihood to both choices, which is next to 0 in a model that was trained so, and
    a token to each, which measures a token see. In partial scoring the line break follows two
    prompts, and its log-likelihoods may differ a little.
    """

    def shown(self, example: Example) -> Example:
        return with_texts(example, in_chat, choices=False)


def in_chat(prompt: str) -> str:
    """Write a prompt as a user's turn in ChatML, with the beginning of the assistant's turn."""
    # The line break stays: after the mark and the name nothing else was ever trained on.
    return f"<|im_start|>user\n{prompt.rstrip()}<|im_end|>\n<|im_start|>assistant\n"


# --- what several use


class _Ready(View):
    """Show examples as a view does that was made ready for a task."""

    def __init__(self, show: Callable[[Example], Example]) -> None:
        self._show = show

    def shown(self, example: Example) -> Example:
        return self._show(example)


def _unready(view: View, example: Example) -> InputError:
    return InputError(
        f"view {view.name!r} of example {example.uid!r}",
        expected="one that was made ready for a task's questions",
        found="one that was not",
        do="Call views.apply(name, examples, seed), which does so.",
    )
