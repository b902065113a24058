"""The lm-evaluation-harness as oracle: its prompts, its log-likelihoods, its predictions.

Its own task definitions render the rows that the package carries, made-up rows, and those of a
folder laid out like the hub where there is one, so that nothing is downloaded.
"""

import logging
from functools import cache

import datasets
import numpy as np
import pytest
from test_hub import MADE_UP, REAL_HUB, in_place_of_the_hub, needs_real_hub, skip_if_missing

from forgetlib import scoring, tasks
from forgetlib.schema import Example

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
    assert_same_prompts(dict(tasks.questions(name)), instances)


@pytest.mark.embedded
@pytest.mark.parametrize("name", NAMED)
def test_labels_are_the_harness_s(name):
    assert_same_labels(dict(tasks.questions(name)), harness_instances(name))


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
    ours = dict(tasks.questions(name))
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
        read = {uid.split("/")[1] for uid, _ in tasks.questions(name)}
    assert asked == [(theirs["dataset_path"], theirs.get("dataset_name"))]
    assert read == {"train", "validation", evaluated}


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
    ours = dict(tasks.questions(name))
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
