"""Tasks of the hub, from folders laid out like it: made-up ones, and a real one where there is one.

The real one is FORGETLIB_HUB, or ../shared/hub beside the checkout. Nothing here asks the hub.
"""

import json
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import datasets
import matplotlib.text
import pytest

import forgetlib
from forgetlib import experiment, plots, prompts, sources, stats, tasks
from forgetlib.schema import InputError, TrainConfig
from forgetlib.sources import DataMissing
from forgetlib.tasks import Task

PAPER = tasks.suite("paper")
_FOLDERS = (
    os.environ.get("FORGETLIB_HUB", ""),
    Path(forgetlib.__file__).parents[2] / "shared" / "hub",
)
REAL_HUB = next((Path(f).resolve() for f in _FOLDERS if f and Path(f).is_dir()), None)
needs_real_hub = pytest.mark.skipif(REAL_HUB is None, reason="no folder laid out like the hub")


def options(*texts, labels="ABCDE"):
    return {"text": list(texts), "label": list(labels[: len(texts)])}


# Repository, config, and rows as they are there, with what a reader of them may stumble over.
MADE_UP = {
    "piqa_hub": (
        "baber/piqa",
        None,
        [
            {"goal": "Boil an egg", "sol1": "Heat it in water.", "sol2": "Sing.", "label": 0},
            {"goal": "dry 'it'", "sol1": 'wet "it"', "sol2": "use a\ntowel", "label": 1},
        ],
    ),
    "hellaswag_hub": (
        "Rowan/hellaswag",
        None,
        [
            {
                "activity_label": "Baking",
                "ctx_a": "[header] How to bake [title] Heat the oven.",
                "ctx_b": "the Baker",
                "endings": ["[step] waits.", "sings.  Loudly", "leaves.", "is [substeps] late."],
                "label": "3",
            },
            {
                "activity_label": "Roof",
                "ctx_a": "A man sits.",
                "ctx_b": "",
                "endings": ["He falls.", "He sleeps.", "He flies.", "He eats."],
                "label": "1",
            },
        ],
    ),
    "winogrande_hub": (
        "allenai/winogrande",
        "winogrande_xl",
        [
            {"sentence": "Ann thanked Eve as _ was kind.", "option1": "Ann", "option2": "Eve"}
            | {"answer": "2"},
            {"sentence": "The cup missed the bag, as the _ , was wide.", "option1": "cup"}
            | {"option2": "bag", "answer": "1"},
        ],
    ),
    "openbookqa_hub": (
        "allenai/openbookqa",
        "main",
        [
            {"question_stem": "Ice is", "choices": options("hot", "cold", "red", "loud")}
            | {"answerKey": " B"},
            {"question_stem": "A seed becomes a", "choices": options("plant", "a", "b", "c")}
            | {"answerKey": "A"},
        ],
    ),
    "commonsense_qa_hub": (
        "tau/commonsense_qa",
        None,
        [
            {"question": " Where do fish live? ", "answerKey": "C"}
            | {"choices": options("tree", "desert", "sea", "moon", "fire")},
            {"question": "What is wet?", "answerKey": "A"}
            | {"choices": options("rain", "sand", "sun", "ash", "dust")},
        ],
    ),
    "social_iqa_hub": (
        "lighteval/siqa",
        None,
        [
            {"context": "Kim fell.", "question": "What next?", "label": "3"}
            | {"answerA": "fly", "answerB": "sing", "answerC": "get up"},
            {"context": "Lee won.", "question": "How does Lee feel?", "label": "1"}
            | {"answerA": "glad", "answerB": "ill", "answerC": "sad"},
        ],
    ),
    "copa_hub": (
        "aps/super_glue",
        "copa",
        [
            {"premise": "The man turned on the faucet.", "question": "effect", "label": 1}
            | {"choice1": "The toilet filled.", "choice2": "Water flowed."},
            {"premise": "My body cast a shadow. ", "question": "cause", "label": 0}
            | {"choice1": "The sun was rising.", "choice2": "I mowed."},
        ],
    ),
    "arc_easy_hub": (
        "allenai/ai2_arc",
        "ARC-Easy",
        [
            {"question": "Which is a gas?", "answerKey": "2"}
            | {"choices": options("rock", "air", "sand", "tin", labels="1234")},
            {"question": "Which is a metal?", "answerKey": "E"}
            | {"choices": options("air", "wood", "milk", "wool", "tin")},
        ],
    ),
    "arc_challenge_hub": (
        "allenai/ai2_arc",
        "ARC-Challenge",
        [
            {"question": "What melts?", "answerKey": "1"}
            | {"choices": options("ice", "fire", "wind", labels="123")},
            {"question": "What burns?", "answerKey": "D"}
            | {"choices": options("ice", "sand", "wind", "wood")},
        ],
    ),
    "sciq_hub": (
        "allenai/sciq",
        None,
        [
            {"support": "", "question": "Who?", "correct_answer": "darwin"}
            | {"distractor1": "Linnaeus", "distractor2": "shaw", "distractor3": "Scopes"},
            {"support": " \nCells divide.", "question": "What divides?", "correct_answer": "cells"}
            | {"distractor1": "rocks", "distractor2": "water", "distractor3": "light"},
        ],
    ),
    "boolq_hub": (
        "aps/super_glue",
        "boolq",
        [
            {"passage": "Ice -- Ice is cold.", "question": "is ice cold", "label": 1},
            {"passage": "Fire -- Fire is hot.", "question": "is fire cold", "label": 0},
        ],
    ),
    "mathqa_hub": (
        "regisss/math_qa",
        None,
        [
            {"Problem": "both roots ?", "correct": "a"}
            | {"options": "a ) 2, 5 , b ) 120 , c ) 625 , d ) 720 , e ) 10, 24"},
            {"Problem": "4 ! ?", "correct": "e"}
            | {"options": "a ) 4 , b ) 12 , c ) 16 , d ) none of these , e ) 24"},
        ],
    ),
    "toxigen_hub": (
        "skg/toxigen-data",
        "annotated",
        [
            {"text": "they are 'nice'", "toxicity_ai": 2.5, "toxicity_human": 3.0},
            {"text": "they are bad", "toxicity_ai": 2.5, "toxicity_human": 3.1},
        ],
    ),
    "cola_hub": (
        "nyu-mll/glue",
        "cola",
        [
            {"sentence": "The cat sat.", "label": 1, "idx": 0},
            {"sentence": "Cat the sat.", "label": 0, "idx": 1},
        ],
    ),
    "mrpc_hub": (
        "nyu-mll/glue",
        "mrpc",
        [
            {"sentence1": "It rains.", "sentence2": "Rain falls.", "label": 1},
            {"sentence1": "It rains.", "sentence2": "It snows.", "label": 0},
        ],
    ),
    "qnli_hub": (
        "nyu-mll/glue",
        "qnli",
        [
            {"question": "Where is Rome?", "sentence": "Rome is in Italy.", "label": 0},
            {"question": "Where is Oslo?", "sentence": "Rome is in Italy.", "label": 1},
        ],
    ),
    "rte_hub": (
        "nyu-mll/glue",
        "rte",
        [
            {"sentence1": "It rains hard.", "sentence2": "It rains.", "label": 0},
            {"sentence1": "It rains.", "sentence2": "It snows.", "label": 1},
        ],
    ),
    "sst2_hub": (
        "nyu-mll/glue",
        "sst2",
        [{"sentence": "a joy ", "label": 1}, {"sentence": "a bore ", "label": 0}],
    ),
    "wnli_hub": (
        "nyu-mll/glue",
        "wnli",
        [
            {"sentence1": "Ann met Eve as she asked.", "sentence2": "Eve asked.", "label": 1},
            {"sentence1": "Ann met Eve as she asked.", "sentence2": "Bob asked.", "label": 0},
        ],
    ),
    "cb_hub": (
        "aps/super_glue",
        "cb",
        [
            {"premise": "It rains.", "hypothesis": "it is wet", "label": 0},
            {"premise": "It rains.", "hypothesis": "it is dry", "label": 1},
            {"premise": "It rains.", "hypothesis": "it is Monday", "label": 2},
        ],
    ),
    "wic_hub": (
        "aps/super_glue",
        "wic",
        [
            {"word": "class", "sentence1": "A class of 1A.", "sentence2": "Real class."}
            | {"start1": 2, "end1": 7, "start2": 5, "end2": 10, "label": 0},
            {"word": "run", "sentence1": "We ran far.", "sentence2": "They run."}
            | {"start1": 3, "end1": 6, "start2": 5, "end2": 8, "label": 1},
        ],
    ),
}


def write(folder, repository, config, **splits):
    """Add a config to a repository: its rows as Parquet, and what its README says of it."""
    place = folder / repository
    for split, rows in splits.items():
        datasets.Dataset.from_list(rows).to_parquet(
            place / (config or "default") / f"{split}.parquet"
        )
    configs = [
        {
            "config_name": part.name,
            "data_files": [
                {"split": file.stem, "path": f"{part.name}/{file.name}"}
                for file in sorted(part.iterdir())
            ],
        }
        for part in sorted(place.iterdir())
        if part.is_dir()
    ]
    (place / "README.md").write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")


def forget():
    """Read everything from its source again."""
    for function in (*tasks.REMEMBERING, sources._load):
        function.cache_clear()


@contextmanager
def in_place_of_the_hub(folder, cache):
    """FORGETLIB_HUB is the folder, and nothing read from elsewhere is remembered."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETLIB_HUB", str(folder))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        forget()
        yield
    forget()


@pytest.fixture
def hub(tmp_path):
    """An empty folder in the place of the hub."""
    folder = tmp_path / "hub"
    folder.mkdir()
    with in_place_of_the_hub(folder, tmp_path / "cache"):
        yield folder


@pytest.fixture
def no_folder(hub, monkeypatch):
    monkeypatch.delenv("FORGETLIB_HUB")


def sentences(name, n, first=0):
    """Rows of CoLA."""
    return [{"sentence": f"{name} {i}", "label": i % 2, "idx": i} for i in range(first, first + n)]


def write_cola(folder, **splits):
    write(folder, "nyu-mll/glue", "cola", **splits)


def arc_rows(name, n):
    choices = options("a", "b", "c")
    return [
        {"id": f"{i}", "question": f"{name} {i}?", "choices": choices, "answerKey": "A"}
        for i in range(n)
    ]


def origins(examples):
    return {e.uid.split("/")[1] for e in examples}


# --- the suite -----------------------------------------------------------------------------------


def test_the_paper_suite_is_21_tasks_of_six_families():
    assert len(set(PAPER)) == 21
    assert set(PAPER) == set(MADE_UP)
    assert Counter(tasks.get(n).family for n in PAPER) == {
        "commonsense": 7,
        "science": 3,
        "reading": 1,
        "math": 1,
        "toxicity": 1,
        "language understanding": 8,
    }


def test_no_task_of_the_paper_suite_has_an_embedded_task_s_name():
    """Results are kept by name, and rows and splits differ."""
    assert not set(PAPER) & set(tasks.suite("embedded"))
    assert all(name == f"{tasks.get(name).harness}_hub" for name in PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_a_task_of_the_paper_suite_reads_its_repository(hub, name):
    repository, config, rows = MADE_UP[name]
    write(hub, repository, config, train=rows)
    questions = tasks.questions(name)
    assert [uid for uid, _ in questions] == [f"{name}/train/{i}" for i in range(len(rows))]
    sets = {frozenset(question.choices) for _, question in questions}
    assert (len(sets) == 1) == (tasks.get(name).answer_format == "verbaliser")


# --- prompts -------------------------------------------------------------------------------------


def made_up_question(name, number):
    return tasks.get(name).question(MADE_UP[name][2][number])


def test_a_math_option_ends_at_its_comma_as_in_the_harness():
    question = made_up_question("mathqa_hub", 0)
    assert question.choices == ("2", "120", "625", "720", "10, 24")
    assert question.gold == 0


def test_a_math_question_whose_true_option_cannot_be_found_is_not_used():
    row = {"Problem": "?", "options": "a ) 1 , b ) 2 , c ) 3", "correct": "c"}
    assert prompts.mathqa(row) is None
    assert prompts.mathqa(row | {"correct": "b"}).choices == ("1", "2")


@pytest.mark.parametrize(("human", "gold"), [(2.9, 0), (3.0, 0), (3.1, 1)])
def test_toxigen_is_hateful_above_5_5_and_not_at_it(human, gold):
    question = prompts.toxigen({"text": "x", "toxicity_ai": 2.5, "toxicity_human": human})
    assert (question.choices, question.gold) == (("No", "Yes"), gold)
    assert question.prompts[0].endswith("Statement: 'x'")


def test_label_0_is_true_for_rte_false_for_wnli_yes_for_qnli_and_true_for_cb():
    row = dict.fromkeys(("sentence1", "sentence2", "question", "sentence"), "x") | {"label": 0}
    answers = {f.__name__: f(row).choices for f in (prompts.rte, prompts.wnli, prompts.qnli)}
    assert answers == {"rte": ("True", "False"), "wnli": ("False", "True"), "qnli": ("yes", "no")}
    for number, answer in enumerate(("True", "False", "Neither")):
        question = made_up_question("cb_hub", number)
        assert question.choices[question.gold] == answer


def test_copa_s_choices_have_a_space_of_their_own():
    question = made_up_question("copa_hub", 0)
    assert question.prompts[0] == "The man turned on the faucet therefore"
    assert question.choices == (" the toilet filled.", " water flowed.")


def test_answer_keys_that_are_digits_are_labels_not_positions():
    assert made_up_question("arc_easy_hub", 0).gold == 1
    assert made_up_question("arc_challenge_hub", 0).gold == 0


def test_an_empty_support_leaves_its_line_empty():
    assert made_up_question("sciq_hub", 0).prompts[0] == "\nQuestion: Who?\nAnswer:"


def test_of_commonsense_qa_the_letter_of_a_listed_option_is_scored():
    question = made_up_question("commonsense_qa_hub", 0)
    assert question.prompts[0] == (
        "Question: Where do fish live?\nA. tree\nB. desert\nC. sea\nD. moon\nE. fire\nAnswer:"
    )
    assert (question.choices, question.gold) == (("A", "B", "C", "D", "E"), 2)


def test_the_word_of_wic_is_as_the_first_sentence_has_it():
    assert "'ran'" in made_up_question("wic_hub", 1).prompts[0]


@pytest.mark.parametrize("gold", [-1, 2])
def test_a_question_without_a_true_response_is_an_error(gold):
    """A row without a label has -1, which would be the last choice."""
    with pytest.raises(InputError, match=rf"gold of question \('p',\).*0 to 1, found {gold}"):
        prompts.ask("p", ["a", "b"], gold)
    with pytest.raises(InputError, match="Leave out rows without a label"):
        prompts.cola({"sentence": "p", "label": -1})


# --- splits --------------------------------------------------------------------------------------


def test_the_official_splits_are_the_training_and_the_test_pool(hub):
    write_cola(hub, train=sentences("t", 40), validation=sentences("v", 20))
    for seed in (0, 1):
        split = tasks.split("cola_hub", seed)
        assert not split.carved
        assert {e.uid for e in split.train} == {f"cola_hub/train/{i}" for i in range(40)}
        assert {e.uid for e in split.test} == {f"cola_hub/validation/{i}" for i in range(20)}
        assert split.n_overlap == 0


def test_where_the_harness_tests_on_test_validation_is_not_used(hub):
    rows = {part: arc_rows(part, 20) for part in ("train", "validation", "test")}
    write(hub, "allenai/ai2_arc", "ARC-Easy", **rows)
    split = tasks.split("arc_easy_hub", 0)
    assert (origins(split.train), origins(split.test)) == ({"train"}, {"test"})
    assert (len(split.train), len(split.test)) == (20, 20)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_without_one_of_its_two_splits_both_pools_are_carved_from_all_rows(hub, missing):
    rows = {part: arc_rows(part, 100) for part in ("train", "validation", "test")}
    del rows[missing]
    write(hub, "allenai/ai2_arc", "ARC-Easy", **rows)
    one, two = (tasks.split("arc_easy_hub", seed) for seed in (0, 1))
    assert one.carved
    assert origins(one.train) == origins(one.test) == set(rows)
    assert len(one.train) + len(one.test) == 200
    assert abs(len(one.test) / 200 - tasks.TEST_SHARE) < 0.1
    assert {e.uid for e in one.test} != {e.uid for e in two.test}


def test_splits_without_labels_are_never_used(hub):
    unlabelled = [row | {"label": -1} for row in sentences("x", 30)]
    write_cola(hub, validation=sentences("v", 30), test=unlabelled)
    split = tasks.split("cola_hub", 0)
    assert split.carved
    assert origins((*split.train, *split.test)) == {"validation"}
    assert len(split.train) + len(split.test) == 30


def test_training_questions_that_the_test_set_asks_too_are_removed_and_counted(hub):
    again = [row | {"sentence": f" {row['sentence'].upper()}"} for row in sentences("v", 5)]
    train = [*sentences("t", 10), *again, *sentences("v", 2, first=3)]
    write_cola(hub, train=train, validation=sentences("v", 20))
    split = tasks.split("cola_hub", 0)
    assert split.n_overlap == 7
    assert {e.uid for e in split.train} == {f"cola_hub/train/{i}" for i in range(10)}
    assert len(split.test) == 20


def test_a_question_twice_in_the_training_set_is_no_overlap(hub):
    write_cola(hub, train=[*sentences("t", 5), *sentences("t", 5)], validation=sentences("v", 5))
    assert tasks.split("cola_hub", 0).n_overlap == 0


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_smaller_n_is_a_prefix_and_the_seed_chooses_it(hub, part):
    write_cola(hub, train=sentences("t", 60), validation=sentences("v", 60))
    few, many = (tasks.load("cola_hub", part, n, 3) for n in (15, 50))
    assert few == many[:15]
    numbers = [int(e.uid.split("/")[2]) for e in few]
    assert numbers != sorted(numbers)
    other = tasks.load("cola_hub", part, 15, 4)
    assert {e.uid for e in few} != {e.uid for e in other}
    everything = [tasks.load("cola_hub", part, 60, seed) for seed in (3, 4)]
    assert len({frozenset(e.uid for e in examples) for examples in everything}) == 1


def test_an_example_does_not_depend_on_how_many_rows_there_are(hub, tmp_path):
    write_cola(hub, train=sentences("t", 30), validation=sentences("v", 30))
    few = {e.uid: e for e in tasks.split("cola_hub", 0).test}
    larger = tmp_path / "larger"
    write_cola(larger, train=sentences("t", 9), validation=sentences("v", 90))
    with in_place_of_the_hub(larger, tmp_path / "another cache"):
        many = {e.uid: e for e in tasks.split("cola_hub", 0).test}
    assert len(many) == 90
    assert few == {uid: many[uid] for uid in few}


def test_tasks_without_splits_of_their_own_are_carved():
    assert all(tasks.split(name, 0).carved for name in tasks.suite("tiny"))
    assert all(tasks.get(name).splits is None for name in tasks.suite("embedded"))


# --- what is missing -----------------------------------------------------------------------------


def test_a_repository_that_is_not_there_is_named_with_where_it_was_looked_for(hub):
    with pytest.raises(DataMissing) as error:
        tasks.load("piqa_hub", "test", 5, 0)
    message = str(error.value)
    assert message.startswith("data of baber/piqa: ")
    assert str(hub / "baber" / "piqa") in message
    assert "found no such folder" in message
    assert "FORGETLIB_HUB" in message and "log in" not in message


def test_a_config_that_is_not_there_is_named_with_those_that_are(hub):
    write(hub, "nyu-mll/glue", "mrpc", validation=MADE_UP["mrpc_hub"][2])
    write(hub, "nyu-mll/glue", "sst2", validation=MADE_UP["sst2_hub"][2])
    with pytest.raises(DataMissing, match=r"nyu-mll/glue, config cola: .*'mrpc', 'sst2'"):
        tasks.questions("cola_hub")


def test_a_repository_with_unlabelled_splits_only_is_missing(hub):
    write_cola(hub, test=sentences("x", 5))
    with pytest.raises(DataMissing, match="found the splits test, and none of train, validation"):
        tasks.questions("cola_hub")


def test_damaged_files_are_missing_data(hub):
    write_cola(hub, validation=sentences("v", 5))
    (hub / "nyu-mll" / "glue" / "cola" / "validation.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataMissing, match="data of nyu-mll/glue, config cola"):
        tasks.questions("cola_hub")


def test_a_gated_repository_s_error_says_where_its_terms_are(hub):
    with pytest.raises(DataMissing) as error:
        tasks.questions("toxigen_hub")
    message = str(error.value)
    assert "skg/toxigen-data, config annotated" in message
    assert "https://huggingface.co/datasets/skg/toxigen-data" in message
    assert "accept them" in message and "hf auth login" in message


@pytest.mark.parametrize("error", [datasets.exceptions.DatasetNotFoundError, ConnectionError])
def test_what_the_hub_refuses_is_missing_and_the_reason_is_one_line(no_folder, monkeypatch, error):
    def load_dataset(repository, config, cache_dir):
        raise error(f"{repository} {config} is gated\n  on the hub.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    reasons = tasks.missing(["toxigen_hub", "tiny_city"])
    assert list(reasons) == ["toxigen_hub"]
    assert "\n" not in reasons["toxigen_hub"]
    for said in (
        "found skg/toxigen-data annotated is gated on the hub.",
        "https://huggingface.co/datasets/skg/toxigen-data",
        "hf auth login",
        "FORGETLIB_HUB",
    ):
        assert said in reasons["toxigen_hub"]


def test_an_error_that_is_not_about_data_is_not_called_missing_data(no_folder, monkeypatch):
    def load_dataset(repository, config, cache_dir):
        raise KeyError("a mistake")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(KeyError, match="a mistake"):
        tasks.missing(["toxigen_hub"])


@pytest.mark.parametrize("call", [tasks.questions, lambda name: tasks.missing([name])])
def test_a_setting_that_is_no_folder_is_an_error_not_missing_data(hub, monkeypatch, call):
    monkeypatch.setenv("FORGETLIB_HUB", str(hub / "nowhere"))
    with pytest.raises(InputError, match=r"FORGETLIB_HUB: expected a folder.*nowhere', which is"):
        call("cola_hub")


def test_a_relative_setting_is_a_folder_and_no_repository_of_the_hub(hub, monkeypatch):
    write_cola(hub, validation=sentences("v", 5))
    monkeypatch.chdir(hub)
    monkeypatch.setenv("FORGETLIB_HUB", ".")
    assert len(tasks.questions("cola_hub")) == 5
    assert str(hub / "baber" / "piqa") in tasks.missing(["piqa_hub"])["piqa_hub"]


def test_missing_names_what_is_missing_and_nothing_else(hub):
    write_cola(hub, validation=sentences("v", 5))
    write(hub, "nyu-mll/glue", "sst2", validation=MADE_UP["sst2_hub"][2])
    assert set(tasks.missing(["cola_hub", "mrpc_hub", "sst2_hub", "piqa_hub"])) == {
        "mrpc_hub",
        "piqa_hub",
    }
    write(hub, "baber/piqa", None, validation=MADE_UP["piqa_hub"][2])
    assert tasks.missing(["piqa_hub"]) == {}, "what has come since is seen"


def test_missing_reads_one_row_of_data_that_are_there():
    read = []

    def rows():
        for i in range(1000):
            read.append(i)
            yield f"all/{i}", {}

    tasks.add(Task("counted", "synthetic", "text", rows, lambda row: None))
    try:
        assert tasks.missing(["counted"]) == {}
        assert read == [0]
    finally:
        tasks._TASKS.pop("counted")


def test_the_rows_are_those_of_the_folder_and_of_its_files_now(hub, tmp_path):
    """`datasets` alone takes the first rows from its cache in the second and the third case."""
    cache = tmp_path / "cache"
    for folder, n in ((hub, 5), (tmp_path / "other", 6), (hub, 7)):
        write_cola(folder, validation=sentences("v", n))
        with in_place_of_the_hub(folder, cache):
            assert len(tasks.questions("cola_hub")) == n


def test_a_repository_is_loaded_once(hub, monkeypatch):
    write_cola(hub, validation=sentences("v", 5))
    tasks.missing(["cola_hub"])
    monkeypatch.delattr(datasets, "load_dataset")
    assert tasks.missing(["cola_hub"]) == {}


# --- files of one config whose types differ -------------------------------------------------------


def passages(*texts):
    """Rows of BoolQ; a column without a text has the type of nulls."""
    return [{"question": f"{i} {t}", "passage": t, "label": i % 2} for i, t in enumerate(texts)]


@pytest.mark.parametrize("nulls_in", ["train", "validation"])
def test_a_column_of_nulls_in_one_split_is_one_of_texts_in_the_other(hub, nulls_in):
    """`datasets` takes the first split's type, and cannot make a null of a text."""
    of_splits = {"train": passages("a", "b", "c"), "validation": passages("d", "e")}
    of_splits[nulls_in] = passages(*[None] * len(of_splits[nulls_in]))
    write(hub, "aps/super_glue", "boolq", **of_splits)
    n = len(of_splits[nulls_in])
    said = f"without {n} rows .* first 'boolq_hub/{nulls_in}/0': null passage"
    with pytest.warns(UserWarning, match=said):
        questions = tasks.questions("boolq_hub")
    assert {uid.split("/")[1] for uid, _ in questions} == {"train", "validation"} - {nulls_in}
    assert [q.prompts[0].split("\n")[0] for _, q in questions] == [
        row["passage"] for rows in of_splits.values() for row in rows if row["passage"]
    ]
    split = tasks.split("boolq_hub", 0)
    assert split.carved and split.n_left_out == n


def test_nulls_within_lists_and_columns_of_one_file_alone_are_read_too(hub):
    """In two files of one split, as a large split has them."""
    first = [
        {"question": f"q{i}", "answerKey": "A", "choices": options("x", "y")} for i in range(3)
    ]
    second = [row | {"choices": options(None, None), "more": 1} for row in first]
    write(hub, "allenai/ai2_arc", "ARC-Easy", train=second, validation=first)
    readme = hub / "allenai" / "ai2_arc" / "README.md"
    configs = [{"config_name": "ARC-Easy", "data_files": "ARC-Easy/*.parquet"}]
    readme.write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")
    with pytest.warns(UserWarning, match="without 3 rows"):
        assert len(tasks.questions("arc_easy_hub")) == 3
    assert set(tasks.left_out("arc_easy_hub").values()) == {"null choices.text"}


def test_types_that_cannot_be_joined_are_named_with_their_column_and_their_files(hub):
    texts = [row | {"label": "yes"} for row in passages("d", "e")]
    write(hub, "aps/super_glue", "boolq", train=passages("a", "b"), validation=texts)
    with pytest.raises(DataMissing) as error:
        tasks.questions("boolq_hub")
    message = str(error.value)
    assert "column 'label' is int64 in train.parquet, string in validation.parquet" in message
    assert "ArrowInvalid: Failed to parse string: 'yes' as a scalar of type int64" in message
    assert "'passage'" not in message


def test_what_began_an_error_is_said_with_it(no_folder, monkeypatch):
    def load_dataset(repository, config, cache_dir):
        try:
            raise PermissionError("no access to the cache")
        except PermissionError as error:
            raise ConnectionError("it could not be loaded") from error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    said = "found it could not be loaded: PermissionError: no access to the cache. Connect to"
    with pytest.raises(DataMissing, match=said):
        tasks.questions("cola_hub")


def test_a_row_of_the_hub_that_is_not_as_published_is_named_with_its_repository(hub):
    write_cola(hub, validation=[{"text": "x", "label": 0}])
    with pytest.raises(InputError, match=r"'cola_hub/validation/0': .*nyu-mll/glue, config cola"):
        tasks.questions("cola_hub")


# --- the real data, where they are ---------------------------------------------------------------


@pytest.fixture(scope="module")
def real_hub(tmp_path_factory):
    with in_place_of_the_hub(REAL_HUB, tmp_path_factory.mktemp("cache")):
        yield REAL_HUB


def skip_if_missing(name):
    if reasons := tasks.missing([name]):
        pytest.skip(reasons[name])


@needs_real_hub
def test_missing_is_exactly_what_the_real_folder_lacks(real_hub):
    lacking = {n for n, (repository, *_) in MADE_UP.items() if not (real_hub / repository).is_dir()}
    reasons = tasks.missing(PAPER)
    assert set(reasons) == lacking
    for name, reason in reasons.items():
        assert MADE_UP[name][0] in reason


@needs_real_hub
@pytest.mark.parametrize("name", PAPER)
def test_a_real_task_has_balanced_examples_that_share_no_question(real_hub, name):
    skip_if_missing(name)
    split = tasks.split(name, 0)
    train, test = ({tasks.normalised(e) for e in part} for part in (split.train, split.test))
    assert train and test and not train & test
    labels = [e.label for e in (*split.train, *split.test)]
    assert 0.3 < sum(labels) / len(labels) < 0.7
    sets = {frozenset(question.choices) for _, question in tasks.questions(name)}
    assert (len(sets) == 1) == (tasks.get(name).answer_format == "verbaliser")
    if not split.carved:
        assert (origins(split.train), origins(split.test)) == tuple(
            {part} for part in tasks.get(name).splits
        )


def real_rows(name):
    """Split -> rows, for the two splits that the task trains and tests on."""
    skip_if_missing(name)
    if tasks.split(name, 0).carved:
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
    split = tasks.split(name, 0)
    assert split.n_overlap == n_removed
    assert len(split.train) == len(train) - n_removed
    assert len(split.test) == len(test)


# --- a study -------------------------------------------------------------------------------------


def brief_study(name="tiny", **changes):
    """A few steps of the tiny model on CoLA, which the folder has, and on ToxiGen."""
    brief = TrainConfig(1e-3, epochs=1)
    given = {"tasks": ["cola_hub", "toxigen_hub"], "n_train": 8, "n_eval": 8, "sizes": []}
    given |= {"tuned": brief, "forgetting": brief, "models": ["tiny"]}
    return experiment.study(name, **(given | changes))


@pytest.fixture
def cola(hub, project):
    write_cola(hub, train=sentences("t", 20), validation=sentences("v", 20))
    return hub


@pytest.mark.parametrize("start", experiment.STARTS)
def test_a_study_goes_on_without_missing_tasks_and_says_so(cola, start):
    study = brief_study(start=start)
    with pytest.warns(UserWarning, match=r"without 1 tasks:\n  toxigen_hub: data of skg/toxigen"):
        found = experiment.results(study, progress=False)
    assert {t for r in found for t in r.spec.train_tasks} == {"cola_hub"}
    assert experiment.data_note(study) == "Left out, no data: toxigen_hub"


def test_stored_tasks_are_drawn_where_their_data_are_missing(cola, monkeypatch):
    with pytest.warns(UserWarning, match="toxigen_hub"):
        computed = experiment.results(brief_study(), progress=False)
    shutil.rmtree(cola / "nyu-mll")
    forget()
    with pytest.warns(UserWarning, match="without 1 tasks"):
        again = experiment.results(brief_study(), progress=False)
    assert [r.spec for r in again] == [r.spec for r in computed]


def test_a_study_of_which_no_task_has_data_is_an_error_with_each_reason(hub, project):
    with pytest.raises(
        sources.DataMissing, match=r"(?s)cola_hub: data of nyu.*toxigen_hub: data of"
    ):
        experiment.results(brief_study(), progress=False)


def test_figures_name_the_tasks_that_are_left_out_and_those_that_are_carved(hub, project):
    write_cola(hub, validation=sentences("v", 40))
    study = brief_study()
    with pytest.warns(UserWarning):
        results = experiment.results(study, "own", progress=False)
    table = stats.forgetting(results)
    figure = plots.forget_gap(table)
    plots.save(figure, table, "fig2", study)
    note = "Left out, no data: toxigen_hub. Train and test carved from one split: cola_hub"
    drawn = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    assert note in " ".join(" ".join(drawn).split())


def test_tasks_without_splits_of_their_own_need_no_note(project):
    assert experiment.data_note(experiment.study("quick")) == ""
