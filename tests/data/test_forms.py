"""The package's views: what each writes, letter by letter, and what none of them may change."""

import re
from collections import Counter
from dataclasses import astuple, replace

import pytest
from helpers import same_results, same_values, small
from hypothesis import given, strategies as st

from forgetlib.data import forms, splits, tasks, views
from forgetlib.data.base import Example, Question, Task, ask, normalised
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.measuring import scoring
from forgetlib.models import forward, loading
from forgetlib.runs import content, jobs
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Checkpoint, Measurement
from forgetlib.studies import load_results, run

EXAMPLE = Example("mine/test/0", ("Question: Is ice cold?\nAnswer:",) * 2, ("no", "Yes"), 1)
PARTIAL = Example("mine/test/1", ("It is Ann", "It is Bob"), ("who ran.",) * 2, 0)
ALL = (
    *("upper", "lower", "leet", "pig_latin", "spaced", "chat"),
    *("template(1)", "template(2)", "template(3)"),
    *("few_shot(1)", "few_shot(4, 60)", "few_shot(3, 0, 'random')"),
)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip)


def shown(name, example=EXAMPLE):
    (found,) = views.apply(name, [example])
    return found


@pytest.fixture
def add(own_names):
    """Add a task of these (prompt or prompts, choices, gold) rows, in a split of their own each."""

    def made(train, test, answer_format="text", name="mine"):
        parts = {"train": train, "test": test}

        def rows():
            for part, of_part in parts.items():
                yield from ((f"{part}/{i}", {"row": row}) for i, row in enumerate(of_part))

        def question(row):
            prompts, choices, gold = row["row"]
            if isinstance(prompts, str):
                return ask(prompts, choices, gold)
            return Question(prompts, choices, gold)

        splits_of_it = ("train", "test")
        task = Task(name, "math", answer_format, rows, question, splits=splits_of_it)
        return tasks.add(task)

    return made


# --- other letters -------------------------------------------------------------------------------


def test_capitals_and_small_letters():
    assert shown("upper").prompts == ("QUESTION: IS ICE COLD?\nANSWER:",) * 2
    assert shown("upper").choices == ("NO", "YES")
    assert shown("lower").prompts == ("question: is ice cold?\nanswer:",) * 2
    assert shown("lower").choices == ("no", "yes")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I am my aunt's sister's daughter.", "1 4M MY 4un7'5 51573r'5 D4ugh73R."),
        ("What is 19 plus 4?", "Wh47 15 19 Plu5 4?"),
        ("Repeat the input.\n\n", "R3p347 7h3 1npu7.\n\n"),
        ("Honestly, I didn't care", "H0n357ly, 1 D1dn'7 C4r3"),
        ("More RVs were seen", "M0r3 Rv5 W3r3 533N"),
        ("a  five-year-old", "4  F1v3-y34r-0lD"),
        ("Answer:", "4n5w3r:"),
        ("x .", "X ."),
        ("Ich weiß.\tÜber", "1cH W31ß.\tÜ83R"),
    ],
)
def test_leetspeak(text, expected):
    assert forms.leet(text) == expected


@given(TEXTS)
def test_leetspeak_has_the_length_of_the_text(text):
    assert len(forms.leet(text)) == len(text)
    assert [c for c in forms.leet(text) if c.isspace()] == [c for c in text if c.isspace()]


PIG_LATIN = {
    "trash": "ashtray",
    "Trash": "Ashtray",
    "sprinkles": "inkles-spray",
    "test": "est-tay",
    "Mum": "Um-may",
    "the": "ethay",
    "a": "ayay",
    "I": "Iyay",
    "Input": "Inputyay",
    "any": "anyay",
    "only": "onlyay",
    "my": "ymay",
    "why": "ywhay",
    "yes": "esyay",
    "your": "ouryay",
    "style": "ylestay",
    "quickly": "uicklyqay",
    "squirrels": "uirrels-sqay",
    "aunt's": "auntsyay",
    "sister's": "isters-say",
    "couldn\N{RIGHT SINGLE QUOTATION MARK}t": "ouldntcay",
    "o'clock": "oclockyay",
    "what,": "atwhay,",
    "cold?": "oldcay?",
    '"stuff': '"uffstay',
    "five-year-old.": "ivefay-earyay-oldyay.",
    "water-skiing": "aterway-iingskay",
    "Mr.": "Mr.",
    "RVs": "RVs",
    "19": "19",
    "A": "Ayay",
    "TEST": "EST-tay",
}


@pytest.mark.parametrize(("word", "expected"), PIG_LATIN.items())
def test_a_word_in_pig_latin(word, expected):
    assert forms.pig_latin(word) == expected


def test_a_text_in_pig_latin_keeps_spaces_digits_and_line_breaks():
    text, expected = "Ben's 2  cats,\n\tand 10 dogs.", "Ensbay 2  atscay,\n\tandyay 10 ogsday."
    assert forms.pig_latin(text) == expected
    assert forms.pig_latin(" ".join(PIG_LATIN)) == " ".join(PIG_LATIN.values())


@given(TEXTS)
def test_pig_latin_leaves_what_is_no_letter_where_it_is(text):
    def rest(words):  # without hyphens and apostrophes, which come and go
        return re.sub(r"[^\W\d_]+", "#", re.sub("[-'\N{RIGHT SINGLE QUOTATION MARK}]", "", words))

    assert rest(forms.pig_latin(text.replace("-", " "))) == rest(text.replace("-", " "))


def test_letters_apart():
    assert forms.spaced("Is it?\nNo.") == "I s   i t ?\nN o ."
    assert shown("spaced").choices == ("n o", "Y e s")


@given(TEXTS)
def test_spaced_letters_are_those_of_the_text(text):
    assert "\n".join(line[::2] for line in forms.spaced(text).split("\n")) == text


@given(TEXTS)
def test_capitals_of_capitals_are_the_same(text):
    assert text.upper().upper() == text.upper()
    assert text.lower().lower() == text.lower()


# --- what holds of all ---------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["tiny_city", "tiny_colour", "tiny_review", "tiny_praise"])
@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("name", [*ALL, "verbaliser('blick', 'dax')"])
def test_everything_but_the_texts_stays(name, task, part):
    plain = splits.load(task, part, 100, seed=1)
    if name == "lower":
        with pytest.raises(InputError, match="expected another text in one of them at least"):
            views.apply(name, plain, 1)
        return
    if name.startswith("verbaliser") and tasks.get(task).answer_format == "text":
        with pytest.raises(InputError, match="found free answers"):
            views.apply(name, plain, 1)
        return
    seen = views.apply(name, plain, 1)
    assert [(e.uid, e.label, len(e.choices)) for e in seen] == [
        (e.uid, e.label, len(e.choices)) for e in plain
    ]
    assert seen != plain
    assert seen == views.apply(name, iter(plain), 1)
    assert seen[40:60] == views.apply(name, plain[40:60], 1)
    became = {}  # one text becomes one text, wherever it stands
    for before, after in zip(plain, seen, strict=True):
        for old, new in zip(before.choices, after.choices, strict=True):
            assert became.setdefault(old, new) == new


@pytest.mark.parametrize("name", ALL)
def test_questions_whose_prompts_differ_work_in_every_view(name, add):
    def row(i):
        return (f"It was Ann{i}", f"It was Bob{i}"), (f"who ran {i}.",) * 2, i % 2

    add([row(i) for i in range(80)], [row(i) for i in range(100, 120)])
    plain = splits.load("mine", "test", 20, 0)
    for before, after in zip(plain, views.apply(name, plain), strict=True):
        assert (after.uid, after.label) == (before.uid, before.label)
        assert after.choices[0] == after.choices[1] and after.prompts[0] != after.prompts[1]
    with pytest.raises(InputError, match="found free answers"):
        views.apply("verbaliser('a', 'b')", plain)


def test_every_view_but_plain_is_of_this_file_and_says_what_it_shows():
    of_ours = {n: c for n, c in views.kinds().items() if c.__module__ == forms.__name__}
    assert set(of_ours) == set(views.kinds()) - {"plain"}
    for cls in of_ours.values():
        assert re.match(r"Show .*\.$", cls.__doc__.split("\n\n")[0].replace("\n", " "), re.DOTALL)


@pytest.mark.parametrize("name", ["lower", "template(3)", "verbaliser('a','b')"])
def test_of_no_examples_there_is_nothing_to_see(name):
    assert views.apply(name, []) == []


@pytest.mark.parametrize(
    ("name", "example", "message"),
    [
        (
            "upper",
            replace(EXAMPLE, choices=("Is", "is")),
            "choices that differ, found .*'IS', 'IS'",
        ),
        (
            "lower",
            replace(EXAMPLE, choices=("Is", "is")),
            "choices that differ, found .*'is', 'is'",
        ),
        ("leet", replace(EXAMPLE, choices=("0", "O")), "choices that differ, found .*'0', '0'"),
        ("pig_latin", replace(EXAMPLE, choices=("its", "it's")), "choices that differ"),
        ("pig_latin", replace(EXAMPLE, choices=("'", "it")), "prompts and choices with text"),
        ("upper", Example("m/t/0", ("IT IS",) * 2, ("A", "B"), 0), "another text in one of them"),
        ("leet", Example("m/t/0", ("10 -",) * 2, ("9", "8"), 0), "another text in one of them"),
        ("spaced", Example("m/t/0", ("?",) * 2, ("a", "b"), 0), "another text in one of them"),
    ],
)
def test_a_view_that_empties_equals_or_changes_nothing_is_refused(name, example, message):
    with pytest.raises(InputError, match=rf"view '{name}' of .*: expected {message}.*leave .* out"):
        views.apply(name, [example])


def test_one_example_may_stay_as_it_is_where_another_changes():
    still = Example("mine/test/9", ("it is",) * 2, ("a", "b"), 0)
    assert views.apply("lower", [still, EXAMPLE]) == [still, shown("lower")]


# --- solved examples -----------------------------------------------------------------------------


def shots(text):
    """The examples before a question of a synthetic task, as (prompt, response), and it itself."""
    *before, asked = text.split("\n\n")
    return [tuple(shot.rsplit(" ", 1)) for shot in before], asked


def test_solved_examples_are_training_questions_with_their_true_responses():
    train = splits.split("tiny_city", 0).train
    (plain,) = splits.load("tiny_city", "test", 1, 0)
    (seen,) = views.apply("few_shot(2, 128)", [plain])
    one, two = train[128:130]
    expected = (
        f"{one.prompts[0]} {one.choices[one.label]}\n\n"
        f"{two.prompts[0]} {two.choices[two.label]}\n\n{plain.prompts[0]}"
    )
    assert seen.prompts == (expected,) * 2 and seen.choices == plain.choices


def test_space_at_the_end_of_an_example_s_prompt_goes(add):
    add([("1 + 1 = \n", ["2", "3"], 0)], [("1 + 2 = ", ["3", "4"], 0)])
    (seen,) = views.apply("few_shot(1)", splits.load("mine", "test", 1, 0))
    assert seen.prompts[0] == "1 + 1 = 2\n\n1 + 2 = "


def test_of_prompts_that_differ_an_example_has_that_of_its_response(add):
    rows = [((f"Ann{i}", f"Bob{i}"), ("ran.",) * 2, i % 2) for i in range(12)]
    add(rows[:10], rows[10:])
    (seen,) = views.apply("few_shot(9)", splits.load("mine", "test", 1, 0))
    found = set(seen.prompts[0].split("\n\n")[:-1])
    assert len(found) == 9
    assert found < {f"{rows[i][0][i % 2]} ran." for i in range(10)}


@pytest.mark.parametrize("task", tasks.suite("tiny"))
@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("part", ["train", "test"])
def test_no_test_question_no_forgotten_one_and_not_the_question_itself_is_shown(task, seed, part):
    split = splits.split(task, seed)
    hidden = {normalised(e) for e in (*split.test, *split.train[:100])}
    plain = getattr(split, part)
    for before, after in zip(plain, views.apply("few_shot(6, 100)", plain, seed), strict=True):
        found, asked = shots(after.prompts[0])
        assert asked == before.prompts[0] and len(set(found)) == 6
        assert not {prompt for prompt, _ in found} & (hidden | {normalised(before)})
        true = {normalised(e): e.choices[e.label] for e in split.train}
        assert all(true[prompt] == response for prompt, response in found)


def test_what_asks_the_same_as_a_forgotten_question_is_not_shown(add):
    same = [("Is it so ?", ["a", "b"], 0), ("is it  so ?", ["a", "b"], 0)]
    add([*same, ("Or so ?", ["a", "b"], 1)], [("Now ?", ["a", "b"], 0)])
    order = [normalised(e) for e in splits.split("mine", 0).train]
    first = order.index("is it so ?")
    (seen,) = views.apply(f"few_shot(1, {first + 1})", splits.load("mine", "test", 1, 0))
    assert "so ?" in seen.prompts[0] and "it" not in seen.prompts[0]


@pytest.mark.parametrize("task", ["tiny_review", "tiny_praise"])
@pytest.mark.parametrize("seed", range(5))
def test_fixed_answers_are_shown_equally_often(task, seed):
    plain = splits.load(task, "test", 1, seed)
    found, _ = shots(views.apply("few_shot(9)", plain, seed)[0].prompts[0])
    for k in range(1, 10):
        counts = Counter(response for _, response in found[:k])
        assert max(counts.values()) - min(counts.values() if k > 1 else [0]) <= 1
        fewer, _ = shots(views.apply(f"few_shot({k})", plain, seed)[0].prompts[0])
        assert fewer == found[:k]


def test_where_one_answer_is_rare_the_rest_are_of_the_other(add):
    rows = [(f"{i} ?", ["no", "yes"], int(i == 7)) for i in range(12)]
    add(rows[:10], rows[10:], "verbaliser")
    (seen,) = views.apply("few_shot(5)", splits.load("mine", "test", 1, 0))
    counts = Counter(response for _, response in shots(seen.prompts[0])[0])
    assert counts == {"no": 4, "yes": 1}


def test_three_fixed_answers_are_shown_equally_often(add):
    rows = [(f"{i} ?", ["a", "b", "c"], i * i % 3 if i % 4 else 2) for i in range(90)]
    add(rows[:80], rows[80:], "verbaliser")
    (seen,) = views.apply("few_shot(6)", splits.load("mine", "test", 1, 0))
    counts = Counter(response for _, response in shots(seen.prompts[0])[0])
    assert counts == {"a": 2, "b": 2, "c": 2}


def test_random_responses_are_drawn_once_for_each_example():
    differ = []
    for seed in range(8):
        plain = splits.load("tiny_review", "test", 20, seed)
        true, drawn, after = (
            [shots(e.prompts[0])[0] for e in views.apply(name, plain, seed)]
            for name in ("few_shot(8)", "few_shot(8, 0, 'random')", "few_shot(8, 5, 'random')")
        )
        assert all(shot == drawn[0] for shot in drawn)  # of one split all questions see the same
        assert [prompt for prompt, _ in drawn[0]] == [prompt for prompt, _ in true[0]]
        both = dict(after[0]).keys() & dict(drawn[0]).keys()
        assert both and all(dict(after[0])[p] == dict(drawn[0])[p] for p in both)
        differ += [a != b for a, b in zip(true[0], drawn[0], strict=True)]
    assert 0.3 < sum(differ) / len(differ) < 0.7


def test_examples_are_of_the_split_of_the_seed():
    plain = splits.load("tiny_city", "test", 3, 4)
    assert views.apply("few_shot(3)", plain, 4) != views.apply("few_shot(3)", plain, 5)
    assert views.apply("few_shot(3)", plain) == views.apply("few_shot(3)", plain, 0)


def test_each_task_has_its_own_examples():
    both = [*splits.load("tiny_city", "test", 2, 0), *splits.load("tiny_review", "test", 2, 0)]
    city, review = (
        views.apply("few_shot(2)", [e for e in both if e.task == task])
        for task in ("tiny_city", "tiny_review")
    )
    mixed = views.apply("few_shot(2)", [both[0], both[2], both[1], both[3]])
    assert mixed == [city[0], review[0], city[1], review[1]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few_shot(0)", "k of view 'few_shot': expected a whole number from 1, found 0"),
        ("few_shot(-1)", "k of view 'few_shot': expected a whole number from 1"),
        ("few_shot(True)", "k of view 'few_shot': expected a whole number from 1"),
        ("few_shot('4')", "k of view 'few_shot'.*Convert it with int"),
        ("few_shot(4, -1)", "after of view 'few_shot': expected a whole number from 0"),
        ("few_shot(4, 0, 'false')", "labels of view 'few_shot': expected one of true, random"),
        ("few_shot", r"expected few_shot\(k: int, after: int = 0, labels: str = 'true'\)"),
        ("template(0)", "i of view 'template': expected a whole number from 1 to 3, found 0"),
        ("template(4)", "i of view 'template': expected a whole number from 1 to 3, found 4"),
        ("verbaliser('a', 'a')", "words of view 'verbaliser': expected two that differ"),
        ("verbaliser('a', ' ')", "words of view 'verbaliser': expected two that differ"),
        ("verbaliser('a', 3)", "words of view 'verbaliser': expected two that differ"),
        ("verbaliser('a')", r"expected verbaliser\(first: str, second: str\)"),
        ("upper(1)", "expected upper, without settings"),
    ],
)
def test_settings_that_are_none_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        views.get(name)


def test_too_few_training_questions_are_refused_with_their_number():
    plain = splits.load("tiny_city", "test", 2, 0)
    n = len(splits.split("tiny_city", 0).train)
    views.apply(f"few_shot(2, {n - 2})", plain)
    message = (
        rf"view \"few_shot\(3, {n - 2}, 'true'\)\" of task 'tiny_city': expected 3 training "
        rf"questions to show, after the first {n - 2}, found 2. Show fewer, leave out fewer"
    )
    with pytest.raises(InputError, match=message):
        views.apply(f"few_shot(3, {n - 2})", plain)


@pytest.mark.parametrize("name", ["few_shot(2)", "verbaliser('a', 'b')"])
def test_a_view_that_was_not_made_ready_says_so(name):
    with pytest.raises(InputError, match=r"made ready.* Call views.apply"):
        views.get(name).shown(EXAMPLE)


# --- other words ---------------------------------------------------------------------------------


def test_fixed_answers_become_others_and_the_prompt_stays(add):
    def row(i):
        return f"{i} is even. True or False?\nAnswer:", ["True", "False"], i % 2

    add([row(i) for i in range(20)], [row(i) for i in range(20, 40)], "verbaliser")
    plain = splits.load("mine", "test", 20, 0)
    become = {"False": "oui", "True": "non"}  # by the alphabet, False is the first
    for before, after in zip(plain, views.apply("verbaliser('oui', 'non')", plain), strict=True):
        assert after.prompts == before.prompts
        assert after.choices == tuple(become[c] for c in before.choices)


@pytest.mark.parametrize(
    ("task", "name", "found"),
    [
        ("tiny_city", "verbaliser('a', 'b')", "free answers"),
        ("tiny_review", "verbaliser('bad', 'good')", r"answers \['bad', 'good'\]"),
        ("tiny_review", "verbaliser('good', 'bad')", r"answers \['bad', 'good'\]"),
    ],
)
def test_a_verbaliser_is_for_two_fixed_answers_and_other_words(task, name, found):
    message = rf"of task '{task}': expected a task with two fixed answers, other.*, found {found}"
    with pytest.raises(InputError, match=message):
        views.apply(name, splits.load(task, "test", 3, 0))


def test_three_fixed_answers_have_no_verbaliser(add):
    rows = [(f"{i} ?", ["a", "b", "c"], i % 3) for i in range(9)]
    add(rows[:6], rows[6:], "verbaliser")
    with pytest.raises(InputError, match=r"two fixed answers.*found answers \['a', 'b', 'c'\]"):
        views.apply("verbaliser('x', 'y')", splits.load("mine", "test", 1, 0))


@pytest.mark.parametrize(
    ("i", "prompt", "expected"),
    [
        (1, "Is {it}?", "Please answer the following.\n\nIs {it}?"),
        (2, "Question: Is it?\nAnswer:", "Question: Is it?\nResponse:"),
        (2, "Q: Is it?\nA:", "Q: Is it?\nResponse:"),
        (2, "Is it? Answer: ", "Is it? Response:"),
        (2, "Answer:", "Response:"),
        (2, "Is it?", "Is it?\nResponse:"),
        (2, "Is it? \n", "Is it?\nResponse:"),
        (2, "The DNA:", "The DNA:\nResponse:"),
        (2, "Answer: no\nQuestion: why", "Answer: no\nQuestion: why\nResponse:"),
        (3, "Is it?\nAnswer:", 'Someone asks: "Is it?\nAnswer:"\nOne would reply:'),
        (3, "Is it? ", 'Someone asks: "Is it?"\nOne would reply:'),
    ],
)
def test_templates(i, prompt, expected):
    seen = shown(f"template({i})", replace(EXAMPLE, prompts=(prompt,) * 2))
    assert seen.prompts == (expected,) * 2 and seen.choices == EXAMPLE.choices


def test_a_chat_is_written_as_chatml():
    seen = shown("chat")
    assert seen.choices == EXAMPLE.choices
    assert seen.prompts[0] == (
        "<|im_start|>user\nQuestion: Is ice cold?\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.fixture(scope="module")
def knows_marks():
    """A model whose tokenizer has ChatML's marks as special tokens, and white space as tokens."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ("<unk>", "\n", " ", "user", "assistant", "Is", "ice", "cold?", "no", "yes")
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return replace(loading.load("tiny", dtype="float32", device="cpu"), tokenizer=tokenizer)


def test_a_model_sees_the_marks_as_special_tokens_and_the_line_break_with_the_response(knows_marks):
    example = Example("mine/test/0", ("Is ice cold?",) * 2, ("no", "yes"), 1)
    sequence = forward.encode(knows_marks, shown("chat", example), 1)
    words = knows_marks.tokenizer.convert_ids_to_tokens(list(sequence.tokens))
    start, end = "<|im_start|>", "<|im_end|>"
    question = [start, "user", "\n", "Is", " ", "ice", " ", "cold?", end, "\n", start, "assistant"]
    assert words == [*question, "\n", " ", "yes"]
    assert sequence.n_response == 3


@pytest.mark.embedded
def test_to_a_model_without_the_marks_they_are_words(embedded):
    example = Example("mine/test/0", ("Is ice cold?",) * 2, ("no", "yes"), 1)
    one, other = (forward.encode(embedded, shown("chat", example), i) for i in range(2))
    words = embedded.tokenizer.convert_ids_to_tokens(list(other.tokens))
    assert words[:6] == ["<bos>", "<", "|", "im", "_", "start"]
    assert words[-other.n_response :] == ["\n", "▁yes"] and one.n_response == 2


# --- in a study ----------------------------------------------------------------------------------

SEEN = ("few_shot(2, 24)", "few_shot(2, 24, 'random')", "template(1)", "verbaliser('no', 'yes')")


@pytest.mark.usefixtures("project", "brief_probes")
def test_a_study_measures_and_stores_what_is_seen_through_views():
    chosen = small(tasks=("tiny_review",), views=SEEN)
    found = run(chosen, "own", progress=False)
    assert same_results(load_results(chosen, "own"), found)
    questions = splits.load("tiny_review", "test", 24, 0)
    lm = loading.load("tiny", dtype="float32")
    for view in SEEN:
        for result in found:
            seen = result.seen(view)["tiny_review/test"]
            assert seen.uids == result.scores["tiny_review/test"].uids
            assert result.seen(views.get(view).name).keys() == {"tiny_review/test"}
        again = scoring.score(lm, views.apply(view, questions, 0))
        assert same_values(found[0].seen(view)["tiny_review/test"], again)
    assert "code" not in found[0].records[-1].provenance["content"]  # they are the package's own


BASE = Checkpoint("tiny", dtype="float32")


@pytest.mark.usefixtures("project")
def test_the_split_s_seed_is_the_measurement_s():
    asked = Measurement("scores", "tiny_city", "test", 6, 2, view="few_shot(2)")
    (record,) = jobs.run(Job(BASE, (asked,)))
    questions = splits.load("tiny_city", "test", 6, 2)
    lm = loading.load("tiny", dtype="float32")
    assert same_values(record.value, scoring.score(lm, views.apply("few_shot(2)", questions, 2)))
    assert not same_values(record.value, scoring.score(lm, views.apply("few_shot(2)", questions)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few_shot(9)", "at most 64 tokens, the context of tiny, found 7"),
        ("upper", "choices that differ in their tokens"),
        ("lower", "another text in one of them"),
        ("few_shot(9, 5000)", "9 training questions to show, after the first 5000, found 0"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_view_that_is_not_for_a_task_or_model_is_found_before_the_training(
    name, message, monkeypatch
):
    monkeypatch.setattr(loop, "apply", lambda *a, **k: pytest.fail("trained"))
    (tuned,) = (j.checkpoint for j in small(tasks=("tiny_city",)).jobs("own")[1:2])
    asked = Measurement("scores", "tiny_city", "test", 6, 0, view=name)
    with pytest.raises(InputError, match=f"view .* of .*: expected {message}"):
        jobs.run(Job(tuned, (asked,)))


def test_training_questions_that_are_shown_are_on_record(add):
    """So that what was seen after other examples is measured anew."""
    test = [(f"{i} + 1 =", [str(i + 1), str(i)], 0) for i in range(5)]

    def of(view):
        asked = Measurement("scores", "mine", "test", 5, 0, view=view)
        return content.of_job(Job(BASE, (asked,)))["questions"]

    def train(wrong):
        return [(f"{i} + 2 =", [str(i + 2), wrong], 0) for i in range(5)]

    add(train("9"), test)
    before = {view: of(view) for view in ("plain", "upper", "few_shot(2)")}
    add(train("99"), test)
    assert set(before["plain"]) == set(before["upper"]) == {"mine/test"}
    assert of("plain") == before["plain"]
    then, now = before["few_shot(2)"], of("few_shot(2)")
    assert {where for where in now if now[where] != then[where]} == {"mine/train"}


def test_examples_are_plain_data():
    """What a view shows is an Example like any, which is hashed for its content."""
    (seen,) = views.apply("few_shot(1)", splits.load("tiny_city", "test", 1, 0))
    assert type(seen) is Example and len(astuple(seen)) == 4
