import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetlib import tasks
from forgetlib.schema import InputError
from forgetlib.tasks import Question, Task, ask, binarise

EMBEDDED = tasks.suite("embedded")


@given(st.integers(0, 50), st.integers(2, 6), st.integers(0, 5))
def test_binarising_keeps_the_true_response_and_one_other(seed, n_choices, gold):
    gold %= n_choices
    question = ask("p", [f"c{i}" for i in range(n_choices)], gold)
    example = binarise(question, "t/test/0", seed)
    assert example.choices[example.label] == f"c{gold}"
    assert len(set(example.choices)) == 2
    assert set(example.choices) <= set(question.choices)


def test_distractor_and_order_are_uniform():
    question = ask("p", ["a", "b", "c", "d"], 0)
    made = [binarise(question, f"t/test/{i}", 0) for i in range(3000)]
    labels = np.array([e.label for e in made])
    assert abs(labels.mean() - 0.5) < 0.03
    others = [e.choices[1 - e.label] for e in made]
    assert all(abs(others.count(c) / 3000 - 1 / 3) < 0.03 for c in "bcd")


def test_a_distractor_equal_to_the_truth_is_none():
    assert binarise(ask("p", ["a", "a", "b"], 0), "t/test/0", 0).choices in (("a", "b"), ("b", "a"))
    assert binarise(ask("p", ["a", "a"], 0), "t/test/0", 0) is None


def test_partial_scoring_pairs_each_prompt_with_the_shared_rest():
    example = binarise(Question(("I", "You"), ("am", "am"), 1), "t/test/0", 0)
    assert set(example.prompts) == {"I", "You"}
    assert example.prompts[example.label] == "You"


@pytest.fixture
def counting():
    """A task of 400 questions, ten of which are asked twice."""
    asked = [f"question {i}" for i in range(390)] + [f"Question  {i}" for i in range(10)]
    task = Task(
        "counting",
        "synthetic",
        "text",
        lambda: ((f"all/{i}", {"q": q}) for i, q in enumerate(asked)),
        lambda row: ask(row["q"], ["yes", "no", "perhaps"], 0),
    )
    yield tasks.add(task)
    tasks._TASKS.pop("counting")


def test_train_and_test_share_no_question(counting):
    split = tasks.split("counting", 0)
    train, test = ({tasks.normalised(e) for e in part} for part in (split.train, split.test))
    assert not train & test
    assert split.n_overlap > 0
    assert len(split.train) + len(split.test) + split.n_overlap == 400
    assert abs(len(split.test) / 400 - tasks.TEST_SHARE) < 0.1


def test_a_smaller_n_is_a_prefix_of_a_larger(counting):
    assert tasks.load("counting", "train", 10, 3) == tasks.load("counting", "train", 100, 3)[:10]


def test_seeds_differ_in_split_distractor_and_order(counting):
    one, two = (tasks.split("counting", seed).test for seed in (0, 1))
    assert {e.uid for e in one} != {e.uid for e in two}
    both = {e.uid: e for e in two}
    same = [e.choices == both[e.uid].choices for e in one if e.uid in both]
    assert 0.05 < np.mean(same) < 0.6


def test_an_example_depends_on_its_uid_only(counting):
    whole = {
        e.uid: e for e in (*tasks.split("counting", 0).train, *tasks.split("counting", 0).test)
    }
    for uid, question in list(tasks.questions("counting"))[::37]:
        if uid in whole:
            assert binarise(question, uid, 0) == whole[uid]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.get("sst-2"), "task: expected one of arc_challenge.*found 'sst-2'"),
        (lambda: tasks.suite("all"), "suite: expected one of embedded.*found 'all'"),
        (lambda: tasks.load("tiny_city", "validation", 5, 0), "expected one of train, test"),
        (
            lambda: tasks.load("tiny_city", "train", 0, 0),
            "n: expected a whole number from 1, found 0",
        ),
        (lambda: tasks.add(tasks.get("piqa")), "expected a new name, found 'piqa'"),
        (
            lambda: tasks.add(Task("a/b", "f", "text", lambda: [], lambda row: None)),
            "expected letters, digits, _",
        ),
    ],
)
def test_a_bad_name_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_one_s_own_task_can_be_corrected(counting):
    assert tasks.load("counting", "test", 1, 0)[0].prompts[0].lower().startswith("question")
    changed = Task(
        "counting", "synthetic", "text", counting.rows, lambda row: ask("other", ["a", "b"], 0)
    )
    tasks.add(changed)
    assert {e.prompts[0] for e in tasks.load("counting", "test", 5, 0)} == {"other"}


def test_a_task_without_usable_questions_is_an_error():
    tasks.add(Task("empty_task", "synthetic", "text", lambda: [], lambda row: None))
    try:
        with pytest.raises(InputError, match="task 'empty_task': expected at least one usable"):
            tasks.load("empty_task", "test", 5, 0)
    finally:
        tasks._TASKS.pop("empty_task")


@pytest.mark.parametrize("name", tasks.suite("tiny"))
def test_synthetic_tasks_are_the_same_at_every_call_and_balanced(name):
    one, two = (list(tasks.get(name).rows()) for _ in range(2))
    assert one == two
    words = set(tasks.SYNTHETIC_WORDS)
    golds = []
    for _, row in one:
        question = row["question"]
        assert set(" ".join((*question.prompts, *question.choices)).split()) <= words
        golds.append(question.choices[question.gold])
    top = max(golds.count(g) for g in set(golds)) / len(golds)
    assert top < (0.6 if tasks.get(name).answer_format == "verbaliser" else 0.2)


def test_the_embedded_suite_is_21_tasks_of_eight_families():
    assert len(EMBEDDED) == 21
    assert {tasks.get(n).family for n in EMBEDDED} == {
        "commonsense",
        "science",
        "reading",
        "math",
        "reasoning",
        "knowledge",
        "programming",
        "language understanding",
    }


@pytest.mark.embedded
@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_task_has_enough_examples_that_share_no_question(name):
    split = tasks.split(name, 0)
    assert len(tasks.questions(name)) >= 250
    assert len(split.train) >= 150
    assert len(split.test) >= 100
    train, test = ({tasks.normalised(e) for e in part} for part in (split.train, split.test))
    assert not train & test
    assert len({e.uid for e in (*split.train, *split.test)}) == len(split.train) + len(split.test)


@pytest.mark.embedded
@pytest.mark.parametrize("name", EMBEDDED)
def test_no_prompt_gives_its_answer_away(name):
    """Labels balance, and choosing the longer response is not as good as knowing."""
    examples = tasks.split(name, 0).test
    assert 0.35 < np.mean([e.label for e in examples]) < 0.65
    lengths = np.array([[len(e.choices[e.label]), len(e.choices[1 - e.label])] for e in examples])
    differ = lengths[lengths[:, 0] != lengths[:, 1]]
    if tasks.get(name).answer_format == "text" and len(differ) > 100:
        assert 0.25 < (differ[:, 0] > differ[:, 1]).mean() < 0.75


@pytest.mark.embedded
def test_splits_of_arc_and_openbookqa_are_both_there():
    for name, sizes in {
        "arc_easy": (570, 2376),
        "arc_challenge": (299, 1172),
        "openbookqa": (500, 500),
    }.items():
        origins = [uid.split("/")[1] for uid, _ in tasks.questions(name)]
        assert (origins.count("validation"), origins.count("test")) == sizes


def test_the_description_is_the_tasks_own():
    described = tasks.describe(["sst2", "piqa"]).to_dict("records")
    assert described == [
        {"eval_task": n, "family": tasks.get(n).family, "answer_format": tasks.get(n).answer_format}
        for n in ("sst2", "piqa")
    ]
    with pytest.raises(InputError, match="found 'sst'"):
        tasks.describe(["sst"])


def test_the_answer_format_is_what_the_questions_show():
    """A verbaliser's questions have the same responses; the regressions separate by it."""
    for name in tasks.suite("tiny"):
        sets = {frozenset(question.choices) for _, question in tasks.questions(name)}
        assert (len(sets) == 1) == (tasks.get(name).answer_format == "verbaliser")


@pytest.mark.embedded
@pytest.mark.parametrize("name", tasks.suite("embedded"))
def test_the_answer_format_of_real_tasks_is_what_their_questions_show(name):
    sets = {frozenset(question.choices) for _, question in tasks.questions(name)}
    assert (len(sets) == 1) == (tasks.get(name).answer_format == "verbaliser")
