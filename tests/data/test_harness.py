"""The lm-evaluation-harness as oracle: its prompts, its log-likelihoods, its predictions.

Its own task definitions render the rows that the package carries, made-up rows, and those of a
folder laid out like the hub where there is one, so that nothing is downloaded. Tasks that are taken
from it by name are compared with what it makes of whole splits by itself.
"""

import json
import logging
import pickle
import subprocess
import sys
from functools import cache

import datasets
import numpy as np
import pytest
from made_up import (
    MADE_UP,
    REAL_HUB,
    arc_rows,
    in_place_of_the_hub,
    needs_real_hub,
    origins,
    skip_if_missing,
    write,
)

from forgetlib.data import harness, splits, tasks
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.measuring import scoring

pytest.importorskip("lm_eval", reason="install forgetlib[test] to compare with the harness")

NAMED = [n for n in (*tasks.suite("embedded"), "copa", "cb") if tasks.get(n).harness]
PAPER = tasks.suite("paper")
N_ROWS = 60


@pytest.fixture(scope="module")
def real_hub(tmp_path_factory):
    with in_place_of_the_hub(REAL_HUB, tmp_path_factory.mktemp("cache")):
        yield
    harness_instances.cache_clear()


def source_rows(name):
    """(uid, row) of the rows that still have the columns of their hub dataset."""
    rows = ((f"{name}/{where}", row) for where, row in tasks.get(name).rows())
    rows = [(uid, row) for uid, row in rows if "query" not in row]
    step = max(1, len(rows) // N_ROWS)
    return rows[::step]


def harness_name(name, row):
    return tasks.get(name).harness.format(subject=row.get("subject"))


@cache
def harness_index():
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager().task_index


def harness_settings(their_name):
    from lm_eval.tasks._yaml_loader import load_yaml

    return load_yaml(harness_index()[their_name].yaml_path)


@cache
def harness_instances(name):
    """The harness's requests for some of a task's rows, as `rendered` has them."""
    return rendered(name, source_rows(name))


def rendered(name, pairs):
    """The harness's requests for (uid, row) pairs: uid -> (task, loglikelihood instance) pairs."""
    from lm_eval.api.task import ConfigurableTask

    groups = {}
    for uid, row in pairs:
        groups.setdefault(harness_name(name, row), []).append((uid, row))
    found: dict = {}
    for their_name, pairs in groups.items():
        rows = [dict(row) for _, row in pairs]
        if name == "boolq":  # the original's column is a bool where SuperGLUE's is a label
            rows = [row | {"label": int(row["answer"])} for row in rows]
        data = datasets.Dataset.from_list(rows)
        settings = harness_settings(their_name) | {
            "custom_dataset": lambda data=data, **_: {"validation": data},
            "training_split": None,
            "validation_split": "validation",
            "test_split": None,
            "fewshot_split": "validation",
        }
        settings = {k: v for k, v in settings.items() if k not in ("tag", "group", "include")}
        task = ConfigurableTask(config=settings)
        task.build_all_requests(rank=0, world_size=1)
        for instance in task.instances:
            found.setdefault(pairs[instance.doc_id][0], []).append((task, instance))
    return found


def assert_same_prompts(ours, instances):
    for uid, requests in instances.items():
        question = ours[uid]
        assert [r.args[0] for _, r in requests] == list(question.prompts)
        assert [r.args[1] for _, r in requests] == [f" {c}" for c in question.choices]


def assert_same_labels(ours, instances):
    """A model that is sure of our label is right in the harness's eyes, for every row."""
    for uid, requests in instances.items():
        sure = [(0.0 if i == ours[uid].gold else -9.0, False) for i in range(len(requests))]
        task, first = requests[0]
        found = task.process_results(first.doc, sure)
        if "mcc" in found:  # of CoLA: the true and the predicted label
            assert found["mcc"][0] == found["mcc"][1]
        else:
            assert found["acc"] == 1.0


@pytest.mark.embedded
@pytest.mark.parametrize("name", NAMED)
def test_prompts_and_choices_are_the_harness_s_to_the_letter(name):
    instances = harness_instances(name)
    assert len(instances) >= 50
    assert_same_prompts(dict(splits.questions(name)), instances)


@pytest.mark.embedded
@pytest.mark.parametrize("name", NAMED)
def test_labels_are_the_harness_s(name):
    assert_same_labels(dict(splits.questions(name)), harness_instances(name))


@pytest.mark.parametrize("name", PAPER)
def test_made_up_rows_of_a_hub_task_are_asked_as_in_the_harness(name):
    pairs = [(f"{name}/made_up/{i}", row) for i, row in enumerate(MADE_UP[name][2])]
    ours = {uid: tasks.get(name).question(row) for uid, row in pairs}
    instances = rendered(name, pairs)
    assert set(instances) == set(ours)
    assert_same_prompts(ours, instances)
    assert_same_labels(ours, instances)


@needs_real_hub
@pytest.mark.parametrize("name", PAPER)
def test_real_rows_of_a_hub_task_are_asked_as_in_the_harness(real_hub, name):
    skip_if_missing(name)
    ours = dict(splits.questions(name))
    instances = harness_instances(name)
    assert len(instances) >= min(50, len(ours))
    assert_same_prompts(ours, instances)
    assert_same_labels(ours, instances)


@pytest.mark.parametrize("name", PAPER)
def test_a_hub_task_s_repository_and_splits_are_the_harness_s(name, tmp_path, monkeypatch):
    theirs = harness_settings(tasks.get(name).harness)
    evaluated = theirs.get("test_split") or theirs["validation_split"]
    assert tasks.get(name).splits == (theirs["training_split"], evaluated)
    asked = []

    def load_dataset(repository, config, cache_dir):
        asked.append((repository, config))
        return dict.fromkeys(("train", "validation", "test"), MADE_UP[name][2])

    with in_place_of_the_hub(tmp_path, tmp_path):
        monkeypatch.delenv("FORGETLIB_HUB")
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        read = {uid.split("/")[1] for uid, _ in splits.questions(name)}
    assert asked == [(theirs["dataset_path"], theirs.get("dataset_name"))]
    assert read == {"train", "validation", evaluated}


# --- tasks by the harness's names -----------------------------------------------------------------


@pytest.fixture
def theirs(hub):
    """Gives tasks by the harness's names, over the folder in place of the hub."""
    before = set(tasks._TASKS)
    yield lambda name: tasks.get(f"harness:{name}")
    for name in set(tasks._TASKS) - before:
        del tasks._TASKS[name]


def their_requests(folder, name, split):
    """What the harness itself asks of a whole split: a list of (prompt, continuation) a question.

    Nothing of ours is in between but `datasets`, which reads the folder.
    """
    from lm_eval.tasks import TaskManager

    settings = harness_settings(name)
    settings |= {"dataset_path": str(folder / settings["dataset_path"]), "test_split": None}
    settings |= {"validation_split": split, "training_split": None, "fewshot_split": split}
    task = TaskManager(include_defaults=False).load(
        {k: v for k, v in settings.items() if k not in ("tag", "group", "include", "metadata")}
    )["tasks"][name]
    task.build_all_requests(rank=0, world_size=1)
    found = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, []).append(instance.args)
    return [found[i] for i in range(len(found))]


def our_requests(name, split):
    return [
        [(p, f" {c}") for p, c in zip(question.prompts, question.choices, strict=True)]
        for uid, question in splits.questions(f"harness:{name}")
        if uid.split("/")[1] == split
    ]


@pytest.mark.parametrize("name", PAPER)
def test_a_task_by_its_harness_name_is_asked_and_split_as_there(hub, theirs, name):
    """ARC, WinoGrande with its contexts, COPA with its two spaces, SST-2, and all the others."""
    copy = tasks.get(name)
    repository, config, rows = MADE_UP[name]
    train, tested = copy.splits
    write(hub, repository, config, **{train: rows, tested: rows[::-1]})
    task = theirs(copy.harness)
    assert (task.family, task.answer_format) == (copy.family, copy.answer_format)
    assert task.splits == copy.splits and not splits.split(task.name, 0).carved
    for split in copy.splits:
        requests = our_requests(copy.harness, split)
        assert requests == their_requests(hub, copy.harness, split)
        assert len(requests) == len(rows)
    ours, copies = (dict(splits.questions(n)) for n in (task.name, name))
    assert {uid.replace(task.name, name): q for uid, q in ours.items()} == copies


@needs_real_hub
@pytest.mark.parametrize("name", ["copa_hub", "winogrande_hub", "sst2_hub", "wic_hub", "cb_hub"])
def test_real_rows_by_a_harness_name_are_those_of_the_copy(real_hub, name):
    skip_if_missing(name)
    other = f"harness:{tasks.get(name).harness}"
    ours = {uid.replace(other, name): q for uid, q in splits.questions(other)}
    assert ours == dict(splits.questions(name))
    del tasks._TASKS[other]


def test_a_task_of_the_harness_is_trained_on_its_training_split_only(hub, theirs):
    parts = {"train": "t", "validation": "v", "test": "x"}
    rows = {part: arc_rows(letter, 20) for part, letter in parts.items()}
    write(hub, "allenai/ai2_arc", "ARC-Easy", **rows)
    split = splits.split(theirs("arc_easy").name, 0)
    assert (origins(split.train), origins(split.test)) == ({"train"}, {"test"})
    assert split.train[0].uid.startswith("harness:arc_easy/train/")


def test_without_a_training_split_both_sets_are_carved_from_the_evaluated_one(hub, theirs):
    """Of MMLU's subjects the harness names test, and a validation split for examples."""
    row = {"subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 1}
    rows = {
        part: [row | {"question": f"{part} {i}"} for i in range(40)]
        for part in ("test", "validation", "dev")
    }
    write(hub, "cais/mmlu", "anatomy", **rows)
    task = theirs("mmlu_anatomy")
    split = splits.split(task.name, 0)
    assert task.splits is None and split.carved and task.answer_format == "verbaliser"
    assert origins((*split.train, *split.test)) == {"test"}
    # Its description is shown before each question, as there for zero shots.
    assert our_requests("mmlu_anatomy", "test") == their_requests(hub, "mmlu_anatomy", "test")
    said = "The following are multiple choice questions (with answers) about anatomy."
    assert split.test[0].prompts[0].startswith(said)


MINE = {
    "dataset_path": "me/mine",
    "output_type": "multiple_choice",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "{{q}} is",
    "doc_to_choice": "{{[yes, no]}}",
    "doc_to_target": "{{label}}",
}


@pytest.fixture
def mine(hub, theirs, tmp_path):
    """Makes a task from settings and rows of one's own, and gives the folder of its file."""

    def make(rows, code="", **settings):
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        given = {"task": "mine"} | MINE | settings
        lines = [
            f"{k}: {v if str(v).startswith('!function') else json.dumps(v)}"
            for k, v in given.items()
            if v is not None
        ]
        (folder / "mine.yaml").write_text("\n".join(lines))
        (folder / "helper.py").write_text(code)
        write(hub, "me/mine", None, train=rows, test=rows)
        return tasks.add(harness.task("mine", folder=folder))

    return make


def statement(i, label=0, **more):
    return {"q": f"It {i}", "yes": "wet", "no": "dry", "label": label} | more


def of_mine(split="test"):
    return our_requests("mine", split)


@pytest.mark.parametrize(
    ("settings", "request_of_one"),
    [
        ({}, ("It 0 is", " wet")),
        ({"target_delimiter": "  "}, ("It 0 is", "  wet")),
        ({"target_delimiter": " The answer: "}, ("It 0 is", " The answer: wet")),
        ({"target_delimiter": "", "doc_to_choice": "{{[' ' + yes, no]}}"}, None),
        ({"target_delimiter": "", "doc_to_choice": "{{[' ' + yes, ' ' + no]}}"},
         ("It 0 is", " wet")),
        ({"doc_to_text": "q", "description": "About {{yes}}.\n"}, ("About wet.\n\n\nIt 0", " wet")),
        ({"doc_to_text": "{{q}} is "}, ("It 0 is ", " wet")),
        ({"gen_prefix": "surely"}, ("It 0 is surely", " wet")),
        ({"target_delimiter": ""}, None),
        ({"doc_to_text": ""}, ("", " wet")),
    ],
)  # fmt: skip
def test_how_prompt_and_response_are_joined_is_kept_or_refused(hub, mine, settings, request_of_one):
    mine([statement(i) for i in range(3)], **settings)
    if request_of_one is None:
        with pytest.raises(harness.Refused, match=r"after a prompt and a space, found '(wet|dry)'"):
            splits.questions("harness:mine")
    elif not request_of_one[0]:
        with pytest.warns(UserWarning, match="without 6 rows .*: empty prompt"):
            assert not splits.questions("harness:mine")
    else:
        prompt, response = request_of_one
        if settings.get("description"):  # the harness puts its delimiter after it
            prompt = prompt.replace("\n\n\n", "\n" * of_mine()[0][0][0].count("\n"))
        assert of_mine()[0][0] == (prompt, response)


def test_a_space_at_the_end_of_a_prompt_may_be_what_joins_it(hub, mine):
    """The harness tokenises it with the response, as `forward.encode` does."""
    mine([statement(0)], doc_to_text="{{q}}: ", target_delimiter="")
    assert of_mine() == [[("It 0:", " wet"), ("It 0:", " dry")]]


def test_contexts_that_end_in_the_options_share_what_follows(hub, mine):
    """Whether they do shows in a prompt that is a number; the first row's is none."""
    mine(
        [statement(9, None), *(statement(i, i % 2) for i in range(4))],
        doc_to_text="{{label}}",
        doc_to_choice="{{[q + ' ' + yes, q + ' ' + no]}}",
        doc_to_target="{{'for sure ' + yes}}",
    )
    with pytest.warns(UserWarning, match="without 2 rows .*/0': gold that is no choice"):
        assert of_mine()[1] == [("It 1 wet", " for sure wet"), ("It 1 dry", " for sure wet")]
    assert [q.gold for _, q in splits.questions("harness:mine")] == [0, 1, 0, 1] * 2


@pytest.mark.parametrize("target", ["{{['wet', 'dry'][label]}}", "label", "{{label}}"])
def test_the_true_response_is_a_place_or_a_text(hub, mine, target):
    mine([statement(i, i % 2) for i in range(2)], doc_to_target=target)
    assert [q.gold for _, q in splits.questions("harness:mine")] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"label": None}, "null label"),
        ({"q": None}, "null q"),
        ({"no": None}, "null no"),
        ({"label": -1}, "gold that is no choice: '-1'"),
        ({"label": 2}, "gold that is no choice: 2"),
        ({"yes": ""}, "empty true response"),
    ],
)
def test_rows_that_cannot_be_asked_are_left_out_and_named(hub, mine, bad, why):
    mine([statement(0) | bad, *(statement(i) for i in range(1, 5))])
    with pytest.warns(UserWarning, match="'harness:mine' goes on without 2 rows"):
        assert len(of_mine()) == 4
    assert set(splits.left_out("harness:mine").values()) == {why}


CODE = """
def process(docs):
    def upper(doc):
        return doc | {"q": f"{doc['q'][:1]}{doc['q']} {doc['label'] + 1}"}
    return docs.filter(lambda doc: doc["q"] != "It 1").map(upper)
"""


def test_rows_pass_through_the_tasks_s_own_function_and_are_numbered_after_it(hub, mine):
    mine(
        [statement(i, other=None) for i in range(4)], CODE, process_docs="!function helper.process"
    )
    assert [prompt for (prompt, _), _ in of_mine()] == ["IIt 0 1 is", "IIt 2 1 is", "IIt 3 1 is"]


def test_a_null_that_the_task_s_function_would_stumble_over_costs_its_row_only(hub, mine):
    rows = [statement(i) for i in range(4)]
    rows[2] |= {"q": None}
    rows[3] |= {"no": None}
    mine(rows, CODE, process_docs="!function helper.process", doc_to_choice="{{[yes, no or 'x']}}")
    with pytest.warns(UserWarning, match="without 2 rows"):
        found = of_mine()
    assert [prompt for (prompt, _), _ in found] == ["IIt 0 1 is", "IIt 3 1 is"]
    assert found[1][1][1] == " x"
    assert set(splits.left_out("harness:mine").values()) == {"null q"}


def test_examples_that_the_harness_would_show_are_noted_and_not_shown(hub, mine):
    task = mine([statement(i) for i in range(3)], num_fewshot=5)
    assert task.note.endswith("asks it, but without the 5 examples that it gives")
    assert of_mine()[0][0] == ("It 0 is", " wet")


def test_one_s_own_file_can_be_corrected(hub, mine):
    rows = [statement(i) for i in range(3)]
    mine(rows)
    assert of_mine()[0][0] == ("It 0 is", " wet")
    mine(rows, doc_to_text="{{q}} was")
    assert of_mine()[0][0] == ("It 0 was", " wet")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"output_type": "generate_until"}, "generate_until"),
        ({"output_type": None}, "generate_until"),
        ({"class": "!function helper.Task"}, "a Python class"),
        ({"process_results": "!function helper.scored"}, "process_results"),
        ({"custom_dataset": "!function helper.scored"}, "custom_dataset"),
        ({"target_delimiter": "\n"}, r"target_delimiter '\\n'"),
        ({"test_split": None}, "neither a test nor a validation split"),
        ({"dataset_path": "json", "dataset_kwargs": {"data_files": "x"}}, "'json' with .*_files"),
        ({"dataset_kwargs": {"revision": "abc"}}, "'me/mine' with .*revision"),
        ({"doc_to_text": "!function helper.absent"}, "no function 'absent'"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_asked_as_in_the_harness_is_refused(mine, settings, found):
    with pytest.raises(harness.Refused, match=f"task 'harness:mine': .*found .*{found}"):
        mine([statement(0)], "def scored(*given): pass\nclass Task: pass", **settings)


def test_several_true_responses_are_refused(hub, mine):
    mine([statement(0)], doc_to_target="{{[0, 1]}}")
    with pytest.raises(harness.Refused, match="several true responses"):
        splits.questions("harness:mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arc_eazy", "found 'arc_eazy'. Did you mean 'arc_easy'?"),
        ("glue", "found 'glue', a group of tasks"),
        ("mmlu", "found 'mmlu', a group of tasks"),
        ("gsm8k", "'harness:gsm8k': expected a multiple-choice task, .*generate_until"),
        ("multirc", "what the harness counts as right is wrong"),
        ("truthfulqa_mc2", "process_results: the harness scores it by a function of its own"),
    ],
)
def test_a_name_that_is_none_or_of_another_kind_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        tasks.get(f"harness:{name}")


def test_without_the_harness_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'forgetlib\[harness\]'"):
        tasks.get("harness:piqa")


def test_the_harness_is_imported_when_a_task_of_it_is_asked_for():
    code = "import sys; from forgetlib.data import splits, tasks; tasks.get('piqa');"
    code += "assert not {'lm_eval', 'datasets', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_task_of_the_harness_leaves_its_settings_as_they_were_and_can_be_sent(hub, mine):
    from lm_eval.utils import env

    logger = logging.getLogger("lm_eval")
    before = (logger.level, datasets.is_progress_bar_enabled())
    task = mine([statement(i) for i in range(3)])
    questions = splits.questions("harness:mine")
    assert "from_string" not in vars(env)
    assert (logger.level, datasets.is_progress_bar_enabled()) == before
    again = pickle.loads(pickle.dumps(task.question))
    assert again(statement(0)) == questions[0][1]


@pytest.fixture(scope="module")
def harness_model(embedded):
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=embedded.model,
        tokenizer=embedded.tokenizer,
        backend="causal",
        device="cpu",
        dtype="float32",
        # Its sum over 262 144 fp32 terms is off by up to 2e-5 nats a token: on a response of 62
        # tokens ours is 2e-5 from the fp64 value, and its fp32 softmax 1.1e-3.
        softmax_dtype="float64",
        batch_size=4,
        add_bos_token=True,
    )


@pytest.mark.embedded
@pytest.mark.parametrize(
    "name",
    [
        *("piqa", "sst2", "winogrande", "rte"),
        *(pytest.param(n, marks=pytest.mark.full) for n in ("arc_easy", "boolq", "hellaswag")),
    ],
)
def test_log_likelihoods_are_the_harness_s(embedded, harness_model, name):
    """Per example within 1e-3 nats in fp32, with the same predictions and the same accuracy."""
    ours = dict(splits.questions(name))
    # The shorter prompts of the sample: fp32 is slow on a CPU, and length does not matter here.
    chosen = sorted(harness_instances(name), key=lambda uid: len(ours[uid].prompts[0]))[:20:2]
    requests = [r for uid in chosen for _, r in harness_instances(name)[uid]]
    theirs = np.array([ll for ll, _ in harness_model.loglikelihood(requests, disable_tqdm=True)])
    examples = [Example(u, ours[u].prompts, ours[u].choices, ours[u].gold) for u in chosen]
    scores = scoring.score(embedded, examples)
    theirs = theirs.reshape(scores.log_likelihoods.shape)
    assert scores.log_likelihoods == pytest.approx(theirs, abs=1e-3)
    assert (scores.log_likelihoods.argmax(1) == theirs.argmax(1)).all()
    golds = [ours[u].gold for u in chosen]
    accuracy = (theirs.argmax(1) == golds).mean()
    assert (scores.log_likelihoods.argmax(1) == scores.labels).mean() == accuracy
