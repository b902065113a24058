"""Questions that are too long for the model are left out of every set, and told."""

from dataclasses import replace

import pytest
from helpers import small

from forgetlib.data import splits, tasks
from forgetlib.data.base import Task, ask, binarise
from forgetlib.errors import InputError
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import Training
from forgetlib.measuring import scoring
from forgetlib.models import forward, loading
from forgetlib.runs import bench, jobs
from forgetlib.runs.results import data_note, run
from forgetlib.runs.specs import Measurement

pytestmark = pytest.mark.usefixtures("brief_probes", "own_names")
CONTEXT = 64  # tokens, of the tiny models, to which a word is one


def words(n, first=0):
    return " ".join(f"name{(first + i) % 200}" for i in range(n))


@pytest.fixture
def long():
    """A task of 200 questions, whose longest choice ends 60 to 67 words after the prompt's start.

    It is the true response, or one of two distractors.
    """

    def question(row):
        i = row["i"]
        lengths = [1, 1, 1]
        lengths[i // 8 % 3] = 5
        prompt = f"{words(55 + i % 8, i)} person{i % 24} city{i // 24}"
        return ask(prompt, [words(n, k) for k, n in enumerate(lengths)], i // 24 % 3)

    rows = [(f"all/{i}", {"i": i}) for i in range(200)]
    return tasks.add(Task("long", "synthetic", "text", lambda: rows, question))


def too_long(uid):
    return 57 + int(uid.split("/")[2]) % 8 + 5 > CONTEXT


def first_that_fit(part, n, seed):
    fitting = [e.uid for e in splits.load("long", part, 200, seed) if not too_long(e.uid)]
    return tuple(fitting[:n])


def long_study(**changes):
    brief = Training(3e-3, epochs=1)
    settings = {"tasks": ["tiny_city", "long"], "n_train": 12, "n_eval": 12, "tuned": brief}
    settings |= {"forgetting": brief, "records": 2, "sizes": [5]}
    return small(**(settings | changes))


def test_questions_that_are_too_long_are_left_out_of_every_set_before_the_first_n(long, project):
    """In training, testing and probing, of every condition, and in pairs."""
    chosen = long_study()
    found = run(chosen, progress=False)
    own = [r for r in found if r.checkpoint.tasks in ((), ("long",)) and "long/test" in r.scores]
    assert {r.checkpoint.kind for r in own} == {"base", "true", "random", "flipped"}
    assert {r.checkpoint.n for r in own} == {0, 12, 5}
    for result in found:
        for record in result.records:
            asked = record.measurement
            if not asked.task:
                continue
            loaded = tuple(e.uid for e in splits.load(asked.task, asked.split, asked.n, 0))
            fitting = first_that_fit(asked.split, asked.n, 0)
            wanted = fitting if asked.task == "long" else loaded
            assert asked.n == len(wanted)
            if asked.readout in ("scores", "dynamics"):
                assert record.value.uids == wanted
            elif asked.readout == "probe":
                assert record.value.correct.shape[1] == asked.n
            else:
                assert len(record.value.deviation) == asked.n
            told = any(w.startswith("long") for w in record.provenance["sets"])
            assert ("too_long" in record.provenance) == told
    uids = [e.uid for e in splits.load("long", "test", 200, 0)]
    last = uids.index(first_that_fit("test", 12, 0)[-1])
    passed = [uid for uid in uids[:last] if too_long(uid)]
    (about,) = own[0].provenances
    assert about["too_long"]["long/test"] == {"n": len(passed), "first": passed[0]}
    most = max(t["n"] for r in found for p in r.provenances for t in p.get("too_long", {}).values())
    note = f"Questions left out of a set, too long for the model: long ({most})"
    assert data_note(chosen) == note
    assert data_note(small(tasks=["tiny_city"])) == ""


def test_a_shared_start_goes_on_without_the_questions_that_are_too_long(long, project):
    for result in run(long_study(protocol="shared"), "cross", progress=False):
        assert result.scores["long/test"].uids == first_that_fit("test", 12, 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_seed_and_no_distractor_decides_whether_a_question_fits(long, tiny, seed):
    """By the longest choice, though in some of these the drawn ones are short."""
    everything = splits.load("long", "train", 200, seed)
    drawn = [
        max(len(f"{p} {c}".split()) for p, c in zip(e.prompts, e.choices, strict=True))
        for e in everything
    ]
    assert any(n <= CONTEXT and too_long(e.uid) for n, e in zip(drawn, everything, strict=True))
    for n in (3, 30, 200):
        taken, passed = bench.fitting(tiny, "long", "train", n, seed)
        assert tuple(e.uid for e in taken) == first_that_fit("train", n, seed)
        assert all(map(too_long, passed))
    assert len(taken) + len(passed) == len(everything)


def test_what_just_fits_is_what_the_model_takes(long, tiny):
    """The rule counts as `forward.encode`, which refuses, over all choices of a question."""
    fitting = 0
    for uid, question in splits.questions("long"):
        pairs = [ask(question.prompts[0], [c, "it"], 0) for c in question.choices]
        examples = [binarise(pair, uid, 0) for pair in pairs]
        taken = []
        for example in examples:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tiny, "max_length", 10**6)
                lengths = [len(forward.encode(tiny, example, c).tokens) for c in (0, 1)]
            taken.append(max(lengths) <= CONTEXT)
        assert bench._fits(tiny, question) == all(taken) == (not too_long(uid))
        fitting += all(taken)
    assert 0 < fitting < 200
    with pytest.raises(InputError, match="at most 64 tokens"):  # who asks for it is told
        scoring.score(tiny, splits.load("long", "test", 24, 0))


def test_no_more_questions_are_made_tokens_than_are_needed(long):
    lm = loading.load("tiny", dtype="float32", device="cpu")
    taken, passed = bench.fitting(lm, "long", "train", 5, 0)
    assert len(lm._tokens) <= (len(taken) + len(passed)) * 4 < 100


def test_a_task_without_a_question_that_fits_is_an_error_before_the_training(project, monkeypatch):
    monkeypatch.setattr(loop, "apply", lambda *a: pytest.fail("trained already"))
    rows = [(f"all/{i}", {"q": f"{i} {words(64)}"}) for i in range(30)]
    asked = lambda row: ask(row["q"], ["yes", "no"], 0)  # noqa: E731
    tasks.add(Task("longer", "synthetic", "verbaliser", lambda: rows, asked))
    job = small().jobs()[1]
    job = replace(job, measurements=(Measurement("scores", "longer", "test", 24),))
    n = len(splits.load("longer", "test", 30, 0))
    said = f"task 'longer': expected a test question of at most 64 tokens.*none among {n}"
    with pytest.raises(InputError, match=said):
        jobs.run(job)
