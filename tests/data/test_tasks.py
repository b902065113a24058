"""The tasks that there are, and their suites."""

import json
import re
import textwrap
from collections import Counter

import numpy as np
import pytest
from made_up import MADE_UP, write

from forgetlib.data import splits, tasks, views
from forgetlib.data.base import Task
from forgetlib.errors import InputError

PAPER = tasks.suite("paper")


EMBEDDED = tasks.suite("embedded")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.get("sst-2"), "task: expected one of arc_challenge.*found 'sst-2'"),
        (lambda: tasks.suite("all"), "suite: expected one of embedded.*found 'all'"),
        (lambda: splits.load("tiny_city", "validation", 5, 0), "expected one of train, test"),
        (
            lambda: splits.load("tiny_city", "train", 0, 0),
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
    questions = splits.questions(name)
    assert [uid for uid, _ in questions] == [f"{name}/train/{i}" for i in range(len(rows))]
    sets = {frozenset(question.choices) for _, question in questions}
    assert (len(sets) == 1) == tasks.get(name).has_fixed_answers


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
        sets = {frozenset(question.choices) for _, question in splits.questions(name)}
        assert (len(sets) == 1) == tasks.get(name).has_fixed_answers


@pytest.mark.embedded
@pytest.mark.parametrize("name", tasks.suite("embedded"))
def test_the_answer_format_of_real_tasks_is_what_their_questions_show(name):
    sets = {frozenset(question.choices) for _, question in splits.questions(name)}
    assert (len(sets) == 1) == tasks.get(name).has_fixed_answers


@pytest.mark.embedded
@pytest.mark.parametrize("name", EMBEDDED)
def test_no_prompt_gives_its_answer_away(name):
    """Labels balance, and choosing the longer response is not as good as knowing."""
    examples = splits.split(name, 0).test
    assert 0.35 < np.mean([e.label for e in examples]) < 0.65
    lengths = np.array([[len(e.choices[e.label]), len(e.choices[1 - e.label])] for e in examples])
    differ = lengths[lengths[:, 0] != lengths[:, 1]]
    if tasks.get(name).answer_format == "text" and len(differ) > 100:
        assert 0.25 < (differ[:, 0] > differ[:, 1]).mean() < 0.75


def written(module):
    """The code in a module's docstring, block by block."""
    blocks = re.split(r"\n(?=\S)", module.__doc__)
    found = [textwrap.dedent(re.sub(r"^\S.*\n?", "", block)).strip() for block in blocks]
    return [code for code in found if re.search(r"^(from|class|tasks|views)", code, re.MULTILINE)]


@pytest.mark.parametrize("module", [tasks, views])
def test_what_is_written_on_adding_one_s_own_is_short_and_works(module, tmp_path, monkeypatch):
    if module is tasks:
        pytest.importorskip("lm_eval", reason="install forgetlib[harness] to have its tasks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))
    monkeypatch.setattr(views.View, "_known", dict(views.View._known))
    line = {"prompt": "Ice is", "choices": ["cold", "hot"], "answer": "cold"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line))
    scope = {"__name__": "docstring"}
    blocks = written(module)
    assert len(blocks) == 2
    for code in blocks:
        assert sum(bool(x.strip()) for x in code.splitlines()) <= 12
        exec(code, scope)
    if module is tasks:
        assert {"successor", "mine", "harness:winogrande"} <= set(tasks._TASKS)
        assert splits.load("successor", "train", 1, 0)[0].prompts[0].endswith(" + 1 =")
    else:
        assert scope["examples"][0].prompts[0].isupper()
        (shown,) = views.apply("after(3)", splits.load("tiny_city", "test", 1, 0))
        assert shown.prompts[0].startswith("um um um name")
