"""Rows that lack something: what is left out, and what is a mistake."""

from collections import OrderedDict, UserDict

import datasets
import numpy as np
import pandas as pd
import pytest

from forgetlib.data import splits, tasks
from forgetlib.data.base import Task, ask
from forgetlib.errors import InputError

NAN = float("nan")


@pytest.fixture
def made():
    """Reads a task of one's own: its questions by row, and the rows that it leaves out."""

    def read(rows, question):
        pairs = [(f"all/{number}", row) for number, row in enumerate(rows)]
        tasks.add(Task("made", "f", "text", lambda: pairs, question))
        found = {uid.split("/")[2]: asked for uid, asked in splits.questions("made")}
        return found, {uid.split("/")[2]: why for uid, why in splits.left_out("made").items()}

    yield read
    tasks._TASKS.pop("made", None)


def about(row):
    return ask(f"{row['passage']}\nWhat?", ["a", "b"], row["label"])


def row(passage="Ice is cold.", label=0, **more):
    return {"passage": passage, "label": label} | more


@pytest.mark.parametrize("null", [None, NAN, np.float64("nan"), np.float32("nan"), pd.NA, pd.NaT])
@pytest.mark.parametrize("field", ["passage", "label"])
def test_a_row_with_a_null_where_text_is_needed_is_left_out_counted_and_named(made, null, field):
    rows = [row(f"p {i}") for i in range(20)]
    rows[3] = rows[3] | {field: null}
    rows[7] = rows[7] | {field: null}
    said = f"task 'made' goes on without 2 rows .* first 'made/all/3': null {field}"
    with pytest.warns(UserWarning, match=said) as told:
        found, left_out = made(rows, about)
    assert len(told) == 1
    assert left_out == {"3": f"null {field}", "7": f"null {field}"}
    assert set(found) == {str(i) for i in range(20)} - {"3", "7"}
    assert not any(
        w in q.prompts[0].lower() for q in found.values() for w in ("none", "nan", "na>")
    )
    assert splits.split("made", 0).n_left_out == 2


def test_a_row_whose_text_is_the_word_none_stays(made, recwarn):
    rows = [row("None"), row("nan"), row("Of these, None.", hint=None), row("none", hint=NAN)]
    found, left_out = made(rows, about)
    assert not left_out and not recwarn
    assert [q.prompts[0] for q in found.values()] == [f"{r['passage']}\nWhat?" for r in rows]


def test_a_null_that_the_question_does_not_need_or_that_its_function_provides_for_is_none(
    made, recwarn
):
    rows = [row("p"), row("p", hint=None), row("None", hint=NAN), row("p", hint="Think."), row("p")]
    written = ["p\nWhat?", "p\nWhat?", "None\nWhat?", "p Think.\nWhat?", "p\nWhat?"]
    for hint in (
        lambda r: "" if r.get("hint") is None else f" {r['hint']}",
        lambda r: f" {r['hint']}" if r.get("hint", None) else "",
        lambda r: "" if "hint" not in r or pd.isna(r["hint"]) else f" {r['hint']}",
    ):
        provided = lambda r, h=hint: ask(f"{r['passage']}{h(r)}\nWhat?", ["a", "b"], 0)  # noqa: E731
        found, left_out = made(rows, provided)
        assert [q.prompts[0] for q in found.values()] == written
        assert not left_out
    assert not recwarn


@pytest.mark.parametrize(
    ("write", "written"),
    [
        (lambda r: r["topping"] or "none", "none"),
        (lambda r: r.get("sauce") or "none", "none"),
        (lambda r: "on top" + (" (none)" if r["topping"] is None else ""), "on top (none)"),
        (lambda r: f"None of these: {r.get('sauce') or 'none'}", "None of these: none"),
        (lambda r: f"{r['p']} or {r.get('sauce') or 'None at all'}", "None or None at all"),
    ],
)
def test_a_function_s_own_word_for_nothing_is_no_null(made, write, written, recwarn):
    rows = [{"p": "None", "topping": None}]
    found, left_out = made(rows, lambda r: ask(f"{write(r)}?", ["a", "b"], 0))
    assert [q.prompts[0] for q in found.values()] == [f"{written}?"]
    assert not left_out and not recwarn


class Shouting(dict):
    def __getitem__(self, field):
        return f"{super().__getitem__(field)}!"


@pytest.mark.parametrize("kind", [Shouting, UserDict, OrderedDict])
def test_a_row_with_a_null_stays_of_its_kind(made, kind):
    row, kinds = kind(p="p", hint=NAN), set()
    found, left_out = made([row], lambda r: kinds.add(type(r)) or ask(f"{r['p']}?", ["a", "b"], 0))
    assert kinds == {kind} and not left_out
    assert found["0"].prompts[0] == ("p!?" if kind is Shouting else "p?")
    assert pd.isna(dict(row)["hint"])  # the source's own row is as it was


@pytest.mark.parametrize(
    ("question", "rows", "why"),
    [
        (lambda r: ask("p {passage}".format(**r), ["a", "b"], 0), [row(None)], "null passage"),
        (lambda r: ask(str(r["passage"]).upper(), ["a", "b"], 0), [row(NAN)], "null passage"),
        (lambda r: ask(f"{r.get('passage')!s:>9}", ["a", "b"], 0), [row(None)], "null passage"),
        (lambda r: ask(r["passage"].strip(), ["a", "b"], 0), [row(None)], "null passage"),
        (lambda r: ask("\n".join([r["passage"], "?"]), ["a", "b"], 0), [row(None)], "null passage"),
        (lambda r: ask("p", [f"{c}" for c in r["c"]], 0), [row(c=["x", None])], "null c"),
        (lambda r: ask("p", r["c"]["text"], 0), [row(c={"text": ["x", None]})], "null c.text"),
        (lambda r: ask("p", r["c"], 0), [row(c=np.array(["x", NAN], object))], "null c"),
        (lambda r: ask("p", ["a", "b"], ["A", "B"].index(r["key"])), [row(key=None)], "null key"),
        (lambda r: ask("p", ["a", "b"], {"1": 0}[r["key"]]), [row(key=NAN)], "null key"),
        (lambda r: ask("p", ["a", "b"], int(r["score"] > 5)), [row(score=NAN)], "null score"),
        (lambda r: ask(f"None: {r['hint']} {r['passage']}", ["a", "b"], 0),
         [row("None", hint=None)], "null hint"),
        (lambda r: ask(f"{r['passage']}?", ["a", "b"], int(r["key"])), [row(key="")], "empty key"),
        (lambda r: ask("p", [r["x"], "b"], 0), [row(x=" ")], "empty true response"),
        (lambda r: ask("p", ["a", r["x"]], 0), [row(x="")], "empty distractor"),
        (lambda r: ask(r["x"], ["a", "b"], 0), [row(x="\n")], "empty prompt"),
        (lambda r: ask(f"{r['x']}?", ["a", "b"], 0), [row(), row(x="y")], "absent x"),
        (lambda r: ask(f"{r.get('x')}?", ["a", "b"], 0), [row(), row(x="y")], "absent x"),
        (lambda r: ask(f"{r[0]} {r[1]}", ["a", "b"], 0), [("p", None)], "null 1"),
        (lambda r: ask(f"{r.passage}", ["a", "b"], 0),
         pd.DataFrame([row(NAN)]).itertuples(), "null 1"),
        (lambda r: ask(f"{r.passage}", ["a", "b"], 0),
         [r for _, r in pd.DataFrame([row("p"), row(None)]).iterrows()][1:], "null passage"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:task 'made'")
def test_wherever_a_question_would_be_made_of_nothing_the_row_is_left_out(
    made, question, rows, why
):
    found, left_out = made(rows, question)
    assert left_out == {"0": why}
    assert "0" not in found


@pytest.mark.parametrize("form", ["numpy", "torch", None])
@pytest.mark.filterwarnings("ignore:task 'made'")
def test_rows_of_a_formatted_data_set_are_rows(made, form):
    """Texts and labels are NumPy's or PyTorch's own, and a null is a number that is none."""
    passages, labels = ["p", None, "q", "r"], [1, 0, None, 0]
    rows = datasets.Dataset.from_dict({"passage": passages, "label": labels}).with_format(form)

    def question(r):  # a column with nulls is one of floats to PyTorch
        return about(r | {"label": int(r["label"])} if form == "torch" else r)

    found, left_out = made(list(rows), question)
    assert left_out == {"1": "null passage", "2": "null label"}
    assert {row: (q.prompts[0], q.gold) for row, q in found.items()} == {
        "0": ("p\nWhat?", 1),
        "3": ("r\nWhat?", 0),
    }
    for question in found.values():
        assert {type(t) for t in (*question.prompts, *question.choices)} == {str}
        assert type(question.gold) is int


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (lambda r: ask(r["pasage"], ["a", "b"], 0), "KeyError: 'pasage', a field of no row"),
        (
            lambda r: ask(f"{r.get('pasage')}", ["a", "b"], 0),
            "KeyError: 'pasage', a field of no row",
        ),
        (lambda r: ask(r["passage"].upper, ["a", "b"], 0), "prompts of a question"),
        (
            lambda r: ask(r["passage"], ["a", "b"], r["label"] - 1),
            "found -1. Leave out rows without",
        ),
        (lambda r: ask(r["passage"], ["a", "b"], 1 // r["label"]), "ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("hint", [None, ""])
def test_a_mistake_of_the_function_is_no_lack_of_the_row(made, question, message, hint):
    with pytest.raises(InputError, match=r"row 'made/all/0': expected a Question") as error:
        made([row(hint=hint), row(hint="x")], question)
    assert message in str(error.value)
    assert str(error.value).endswith("Correct the task's question function.")


@pytest.mark.filterwarnings("ignore:task 'made'")
def test_a_task_all_of_whose_rows_lack_something_says_what(made):
    made([row(None)] * 5, about)
    with pytest.raises(InputError, match=r"found none, but 5 rows .* 'made/all/0': null passage"):
        splits.load("made", "train", 5, 0)
