"""What is trained on and what is tested: of made-up tasks, and of real ones where they are."""

import json

import numpy as np
import pytest
from made_up import (
    MADE_UP,
    arc_rows,
    in_place_of_the_hub,
    needs_real_hub,
    origins,
    sentences,
    skip_if_missing,
    write,
    write_cola,
)

from forgetlib.data import splits, tasks
from forgetlib.data.base import Task, ask, binarise, normalised
from forgetlib.errors import InputError

EMBEDDED = tasks.suite("embedded")
PAPER = tasks.suite("paper")


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
    split = splits.split("counting", 0)
    train, test = ({normalised(e) for e in part} for part in (split.train, split.test))
    assert not train & test
    assert split.n_overlap > 0
    assert len(split.train) + len(split.test) + split.n_overlap == 400
    assert abs(len(split.test) / 400 - splits.TEST_SHARE) < 0.1


def test_a_smaller_n_is_a_prefix_of_a_larger(counting):
    assert splits.load("counting", "train", 10, 3) == splits.load("counting", "train", 100, 3)[:10]


def test_seeds_differ_in_split_distractor_and_order(counting):
    one, two = (splits.split("counting", seed).test for seed in (0, 1))
    assert {e.uid for e in one} != {e.uid for e in two}
    both = {e.uid: e for e in two}
    same = [e.choices == both[e.uid].choices for e in one if e.uid in both]
    assert 0.05 < np.mean(same) < 0.6


def test_an_example_depends_on_its_uid_only(counting):
    whole = {
        e.uid: e for e in (*splits.split("counting", 0).train, *splits.split("counting", 0).test)
    }
    for uid, question in list(splits.questions("counting"))[::37]:
        if uid in whole:
            assert binarise(question, uid, 0) == whole[uid]


def test_one_s_own_task_can_be_corrected(counting):
    assert splits.load("counting", "test", 1, 0)[0].prompts[0].lower().startswith("question")
    changed = Task(
        "counting", "synthetic", "text", counting.rows, lambda row: ask("other", ["a", "b"], 0)
    )
    tasks.add(changed)
    assert {e.prompts[0] for e in splits.load("counting", "test", 5, 0)} == {"other"}


def test_a_task_without_usable_questions_is_an_error():
    tasks.add(Task("empty_task", "synthetic", "text", lambda: [], lambda row: None))
    try:
        with pytest.raises(InputError, match="task 'empty_task': expected at least one usable"):
            splits.load("empty_task", "test", 5, 0)
    finally:
        tasks._TASKS.pop("empty_task")


def test_a_question_is_found_by_the_uid_of_its_example():
    for example in splits.load("tiny_city", "train", 5, 0):
        question = splits.question(example.uid)
        assert set(example.choices) <= set(question.choices)
        assert example.prompts[0] in question.prompts
    assert splits.left_out("tiny_city") == {}


@pytest.mark.embedded
@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_task_has_enough_examples_that_share_no_question(name):
    split = splits.split(name, 0)
    assert len(splits.questions(name)) >= 250
    assert len(split.train) >= 150
    assert len(split.test) >= 100
    train, test = ({normalised(e) for e in part} for part in (split.train, split.test))
    assert not train & test
    assert len({e.uid for e in (*split.train, *split.test)}) == len(split.train) + len(split.test)


@pytest.mark.embedded
def test_splits_of_arc_and_openbookqa_are_both_there():
    for name, sizes in {
        "arc_easy": (570, 2376),
        "arc_challenge": (299, 1172),
        "openbookqa": (500, 500),
    }.items():
        origins = [uid.split("/")[1] for uid, _ in splits.questions(name)]
        assert (origins.count("validation"), origins.count("test")) == sizes


def test_the_official_splits_are_the_training_and_the_test_pool(hub):
    write_cola(hub, train=sentences("t", 40), validation=sentences("v", 20))
    for seed in (0, 1):
        split = splits.split("cola_hub", seed)
        assert not split.carved
        assert {e.uid for e in split.train} == {f"cola_hub/train/{i}" for i in range(40)}
        assert {e.uid for e in split.test} == {f"cola_hub/validation/{i}" for i in range(20)}
        assert split.n_overlap == 0


def test_where_the_harness_tests_on_test_validation_is_not_used(hub):
    rows = {part: arc_rows(part, 20) for part in ("train", "validation", "test")}
    write(hub, "allenai/ai2_arc", "ARC-Easy", **rows)
    split = splits.split("arc_easy_hub", 0)
    assert (origins(split.train), origins(split.test)) == ({"train"}, {"test"})
    assert (len(split.train), len(split.test)) == (20, 20)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_without_one_of_its_two_splits_both_pools_are_carved_from_all_rows(hub, missing):
    rows = {part: arc_rows(part, 100) for part in ("train", "validation", "test")}
    del rows[missing]
    write(hub, "allenai/ai2_arc", "ARC-Easy", **rows)
    one, two = (splits.split("arc_easy_hub", seed) for seed in (0, 1))
    assert one.carved
    assert origins(one.train) == origins(one.test) == set(rows)
    assert len(one.train) + len(one.test) == 200
    assert abs(len(one.test) / 200 - splits.TEST_SHARE) < 0.1
    assert {e.uid for e in one.test} != {e.uid for e in two.test}


def test_splits_without_labels_are_never_used(hub):
    unlabelled = [row | {"label": -1} for row in sentences("x", 30)]
    write_cola(hub, validation=sentences("v", 30), test=unlabelled)
    split = splits.split("cola_hub", 0)
    assert split.carved
    assert origins((*split.train, *split.test)) == {"validation"}
    assert len(split.train) + len(split.test) == 30


def test_training_questions_that_the_test_set_asks_too_are_removed_and_counted(hub):
    again = [row | {"sentence": f" {row['sentence'].upper()}"} for row in sentences("v", 5)]
    train = [*sentences("t", 10), *again, *sentences("v", 2, first=3)]
    write_cola(hub, train=train, validation=sentences("v", 20))
    split = splits.split("cola_hub", 0)
    assert split.n_overlap == 7
    assert {e.uid for e in split.train} == {f"cola_hub/train/{i}" for i in range(10)}
    assert len(split.test) == 20


def test_a_question_twice_in_the_training_set_is_no_overlap(hub):
    write_cola(hub, train=[*sentences("t", 5), *sentences("t", 5)], validation=sentences("v", 5))
    assert splits.split("cola_hub", 0).n_overlap == 0


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_smaller_n_is_a_prefix_and_the_seed_chooses_it(hub, part):
    write_cola(hub, train=sentences("t", 60), validation=sentences("v", 60))
    few, many = (splits.load("cola_hub", part, n, 3) for n in (15, 50))
    assert few == many[:15]
    numbers = [int(e.uid.split("/")[2]) for e in few]
    assert numbers != sorted(numbers)
    other = splits.load("cola_hub", part, 15, 4)
    assert {e.uid for e in few} != {e.uid for e in other}
    everything = [splits.load("cola_hub", part, 60, seed) for seed in (3, 4)]
    assert len({frozenset(e.uid for e in examples) for examples in everything}) == 1


def test_an_example_does_not_depend_on_how_many_rows_there_are(hub, tmp_path):
    write_cola(hub, train=sentences("t", 30), validation=sentences("v", 30))
    few = {e.uid: e for e in splits.split("cola_hub", 0).test}
    larger = tmp_path / "larger"
    write_cola(larger, train=sentences("t", 9), validation=sentences("v", 90))
    with in_place_of_the_hub(larger, tmp_path / "another cache"):
        many = {e.uid: e for e in splits.split("cola_hub", 0).test}
    assert len(many) == 90
    assert few == {uid: many[uid] for uid in few}


def test_tasks_without_splits_of_their_own_are_carved():
    assert all(splits.split(name, 0).carved for name in tasks.suite("tiny"))
    assert all(tasks.get(name).splits is None for name in tasks.suite("embedded"))


def test_missing_names_what_is_missing_and_nothing_else(hub):
    write_cola(hub, validation=sentences("v", 5))
    write(hub, "nyu-mll/glue", "sst2", validation=MADE_UP["sst2_hub"][2])
    assert set(splits.missing(["cola_hub", "mrpc_hub", "sst2_hub", "piqa_hub"])) == {
        "mrpc_hub",
        "piqa_hub",
    }
    write(hub, "baber/piqa", None, validation=MADE_UP["piqa_hub"][2])
    assert splits.missing(["piqa_hub"]) == {}, "what has come since is seen"


def test_missing_reads_one_row_of_data_that_are_there():
    read = []

    def rows():
        for i in range(1000):
            read.append(i)
            yield f"all/{i}", {}

    tasks.add(Task("counted", "synthetic", "text", rows, lambda row: None))
    try:
        assert splits.missing(["counted"]) == {}
        assert read == [0]
    finally:
        tasks._TASKS.pop("counted")


@needs_real_hub
def test_missing_is_exactly_what_the_real_folder_lacks(real_hub):
    lacking = {n for n, (repository, *_) in MADE_UP.items() if not (real_hub / repository).is_dir()}
    reasons = splits.missing(PAPER)
    assert set(reasons) == lacking
    for name, reason in reasons.items():
        assert MADE_UP[name][0] in reason


@needs_real_hub
@pytest.mark.parametrize("name", PAPER)
def test_a_real_task_has_balanced_examples_that_share_no_question(real_hub, name):
    skip_if_missing(name)
    split = splits.split(name, 0)
    train, test = ({normalised(e) for e in part} for part in (split.train, split.test))
    assert train and test and not train & test
    labels = [e.label for e in (*split.train, *split.test)]
    assert 0.3 < sum(labels) / len(labels) < 0.7
    sets = {frozenset(question.choices) for _, question in splits.questions(name)}
    assert (len(sets) == 1) == tasks.get(name).has_fixed_answers
    if not split.carved:
        assert (origins(split.train), origins(split.test)) == tuple(
            {part} for part in tasks.get(name).splits
        )


def real_rows(name):
    """Split -> rows, for the two splits that the task trains and tests on."""
    skip_if_missing(name)
    if splits.split(name, 0).carved:
        pytest.skip(f"{name} is without official splits here")
    pairs = list(tasks.get(name).rows())
    return (
        [row for where, row in pairs if where.startswith(f"{part}/")]
        for part in tasks.get(name).splits
    )


def bare(row):
    return json.dumps({k: v for k, v in row.items() if k not in ("id", "idx")}, sort_keys=True)


@needs_real_hub
@pytest.mark.parametrize(
    ("name", "column", "sizes", "n_text", "n_identical"),
    [
        ("arc_easy_hub", "question", (2251, 2376), 7, 2),
        ("arc_challenge_hub", "question", (1119, 1172), 7, 0),
        ("openbookqa_hub", "question_stem", (4957, 500), 22, 0),
        ("cola_hub", "sentence", (8551, 1043), 16, 14),
        ("rte_hub", "sentence1", (2490, 277), 24, 0),
        ("wnli_hub", "sentence1", (635, 71), 65, 0),
    ],
)
def test_these_numbers_of_real_test_rows_have_a_text_of_the_training_set(
    real_hub, name, column, sizes, n_text, n_identical
):
    """Test rows whose text is in the training set too; of RTE and WNLI, the first sentence."""
    train, test = real_rows(name)
    assert (len(train), len(test)) == sizes
    texts = {row[column] for row in train}
    assert sum(row[column] in texts for row in test) == n_text
    trained = {bare(row) for row in train}
    assert sum(bare(row) in trained for row in test) == n_identical


@needs_real_hub
@pytest.mark.parametrize(
    ("name", "columns", "n_removed"),
    [
        ("arc_easy_hub", ["question"], 8),  # of 7 questions, one is there twice
        ("arc_challenge_hub", ["question"], 6),  # of 7 test questions, two are the same
        ("openbookqa_hub", ["question_stem"], 23),  # 22, and one that differs in case
        ("cola_hub", ["sentence"], 16),
        ("rte_hub", ["sentence1", "sentence2"], 0),  # shared premises are no shared questions
        ("wnli_hub", ["sentence1", "sentence2"], 0),
    ],
)
def test_what_is_removed_is_what_the_columns_of_the_prompt_share(
    real_hub, name, columns, n_removed
):
    def key(row):
        return tuple(" ".join(row[c].lower().split()) for c in columns)

    train, test = real_rows(name)
    tested = {key(row) for row in test}
    assert sum(key(row) in tested for row in train) == n_removed
    split = splits.split(name, 0)
    assert split.n_overlap == n_removed
    assert len(split.train) == len(train) - n_removed
    assert len(split.test) == len(test)
