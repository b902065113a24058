"""Rows as the hub has them, and folders laid out like it: made-up ones, and a real one.

The real one, where there is one, is FORGETLIB_HUB, or ../shared/hub beside the checkout.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import datasets
import pytest

import forgetlib
from forgetlib.data import sources, splits, tasks

_FOLDERS = (
    os.environ.get("FORGETLIB_HUB", ""),
    Path(forgetlib.__file__).parents[2] / "shared" / "hub",
)


REAL_HUB = next((Path(f).resolve() for f in _FOLDERS if f and Path(f).is_dir()), None)


needs_real_hub = pytest.mark.skipif(REAL_HUB is None, reason="no folder laid out like the hub")


def options(*texts, labels="ABCDE"):
    return {"text": list(texts), "label": list(labels[: len(texts)])}


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


def skip_if_missing(name):
    if reasons := splits.missing([name]):
        pytest.skip(reasons[name])
