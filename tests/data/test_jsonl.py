"""Tasks from JSON Lines files: what a line may be, and what is said of one that is wrong."""

import json

import pytest

from forgetlib.data import splits, tasks
from forgetlib.data.base import Question, ask
from forgetlib.errors import InputError


@pytest.fixture
def add(tmp_path):
    """Writes lines, makes them a task, and gives its questions by split and name."""
    added = []

    def of(lines, name="mine.jsonl", **more):
        path = tmp_path / name
        if isinstance(lines, list):
            lines = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        path.write_bytes(lines)
        task = tasks.add(tasks.from_json_lines(path, **more))
        added.append(task.name)
        return {uid.removeprefix(f"{task.name}/"): q for uid, q in splits.questions(task.name)}

    yield of
    for name in set(added):
        tasks._TASKS.pop(name)


def line(i=0, **more):
    return {"prompt": f"Ice {i} is", "choices": ["cold", "hot"], "answer": 0} | more


def test_a_prompt_is_shown_to_the_letter_and_a_question_as_arc_s(add):
    found = add(
        [line(), {"question": "Which is a gas?", "choices": ["tin", "air", "ice"], "answer": "air"}]
    )
    assert found == {
        "all/1": ask("Ice 0 is", ["cold", "hot"], 0),
        "all/2": Question(("Question: Which is a gas?\nAnswer:",) * 3, ("tin", "air", "ice"), 1),
    }


def test_a_number_is_a_place_and_a_text_a_response(add):
    numbers = {"choices": ["1", "0"]}
    assert [q.gold for q in add([line(answer="1", **numbers), line(1, **numbers)]).values()] == [
        0
    ] * 2


def test_names_are_ids_or_numbers_of_lines_and_empty_lines_are_none(add):
    text = "\n".join(["", json.dumps(line(id="a/b")), " ", json.dumps(line(1)), ""])
    assert list(add(text.encode())) == ["all/a/b", "all/4"]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_files_of_other_editors_are_read(add, ending):
    lines = [json.dumps(line(i, prompt="Eis – Ö"), ensure_ascii=False).encode() for i in range(2)]
    found = add(b"\xef\xbb\xbf" + ending.join(lines))
    assert [q.prompts[0] for q in found.values()] == ["Eis – Ö"] * 2


def test_the_task_s_name_and_answer_format_are_the_file_s(add):
    add([line(), line(1)], "my-file.v2.jsonl")
    assert tasks.get("my_file_v2").answer_format == "verbaliser"
    assert tasks.get("my_file_v2").family == "other"
    add([line(), line(1, choices=["cold", "red"])], name="x", family="science")
    add([line()], answer_format="text")
    assert (tasks.get("x").answer_format, tasks.get("x").family) == ("text", "science")
    assert tasks.get("mine").answer_format == "text"


@pytest.mark.parametrize(
    ("parts", "own"),
    [
        (("train", "test"), ("train", "test")),
        (("train", "validation"), ("train", "validation")),
        (("train", "validation", "test"), ("train", "test")),
        (("train",), None),
        (("validation", "test"), None),
    ],
)
def test_splits_are_kept_where_there_are_two(add, parts, own):
    add([line(f"{part} {i}", split=part, id=i) for part in parts for i in range(30)])
    split = splits.split("mine", 0)
    assert tasks.get("mine").splits == own and split.carved == (own is None)
    if own:
        for examples, part in zip((split.train, split.test), own, strict=True):
            assert {e.uid.split("/")[1] for e in examples} == {part}
            assert len(examples) == 30


@pytest.mark.parametrize(
    ("null", "why"),
    [
        ({"prompt": None}, "null prompt"),
        ({"choices": None}, "null choices"),
        ({"choices": ["cold", None]}, "null choices"),
        ({"answer": None}, "null answer"),
        ({"answer": float("nan")}, "null answer"),
        ({"prompt": ""}, "empty prompt"),
        ({"choices": ["", "hot"]}, "empty true response"),
    ],
)
def test_a_line_with_nothing_where_something_is_needed_is_left_out_and_named(add, null, why):
    with pytest.warns(UserWarning, match=f"without 1 rows .* first 'mine/all/2': {why}"):
        assert list(add([line(), line(1) | null, line(2)])) == ["all/1", "all/3"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (b"{'prompt': 1}", r"expected an object in JSON, found .*prompt.*: Expecting property"),
        (b"{", "expected an object in JSON"),
        (b"[1]", r"expected an object in JSON, found \[1\]. Write"),
        (b'{"prompt": "\xff"}', r"expected text in UTF-8, found b'\\xff' at byte 13"),
        ({"prompt": "p", "choices": ["a", "b"]}, "expected the fields answer, found only prompt"),
        ({"prompt": "p", "choices": ["a", "b"], "anwser": 0}, "Is 'anwser' meant to be 'answer'"),
        ({"choices": ["a", "b"], "answer": 0}, "prompt or question, one of both"),
        (line(question="q"), "prompt or question, one of both"),
        (line(prompt=3), "expected prompt to be a text, found 3"),
        (line(choices="ab"), "expected choices to be a list of two texts and more, found 'ab'"),
        (line(choices=["a"]), "two texts and more"),
        (line(choices=["a", 2]), "two texts and more"),
        (line(answer=2), "a number from 0 to 1, found 2"),
        (line(answer=-1), "a number from 0 to 1, found -1. .*null for a question without"),
        (line(answer=True), "a number from 0 to 1, found True"),
        (line(answer=0.0), "a number from 0 to 1, found 0.0"),
        (line(answer="Cold"), "found 'Cold'. Did you mean 'cold'?"),
        (line(answer="0"), "found '0'. Write its text to the letter, or its place as a number"),
        (line(id=""), "id to be a text, found ''"),
        (line(id=["a"]), "id to be a text"),
        (line(split="dev"), "one of train, validation, test, found 'dev'"),
        (line(split=1), "split to be a text, found 1"),
        (line(split="train"), "a split in every line or in none, found one"),
        (line(id="first"), "an id of its own in its split, found 'first', as line 1 has"),
        (line(id=1), None),
    ],
)  # fmt: skip
def test_a_line_that_is_wrong_is_an_error_with_its_number(add, tmp_path, second, message):
    second = second if isinstance(second, bytes) else json.dumps(second).encode()
    text = b"\n".join([json.dumps(line(id="first")).encode(), second])
    if message is None:
        assert list(add(text)) == ["all/first", "all/1"]
        return
    with pytest.raises(InputError, match=f"{tmp_path}/mine.jsonl, line 2: .*{message}"):
        add(text)


@pytest.mark.parametrize("text", [b"", b"\n \n"])
def test_a_file_without_lines_is_an_error_that_shows_one(add, text):
    with pytest.raises(InputError, match=r"mine.jsonl: expected lines like \{.prompt.*found none"):
        add(text)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    for path in (tmp_path / "nothing.jsonl", tmp_path):
        with pytest.raises(InputError, match=f"file {path}: expected a JSON Lines file, found "):
            tasks.from_json_lines(path)


def test_a_file_that_has_changed_since_is_read_and_checked_again(add, tmp_path):
    add([line()])
    (tmp_path / "mine.jsonl").write_text("{")
    tasks.add(tasks.get("mine"))
    with pytest.raises(InputError, match="line 1: expected an object in JSON"):
        splits.questions("mine")
