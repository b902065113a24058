"""Views: texts change, and nothing else; a view that changes more is refused."""

from dataclasses import dataclass, replace

import pytest

from forgetlib.data import splits, views
from forgetlib.data.base import Example, ask, binarise, normalised
from forgetlib.errors import InputError

EXAMPLE = Example("mine/test/0", ("Is ice cold?",) * 2, ("no", "yes"), 1)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """What a test defines is forgotten after it."""
    monkeypatch.setattr(views.View, "_known", dict(views.View._known))


def twisted():
    class Twisted(views.View, name="twisted"):
        """Show everything with its letters' case exchanged."""

        def shown(self, example):
            return views.with_texts(example, str.swapcase)

    return Twisted


@pytest.mark.parametrize("task", ["tiny_city", "tiny_review"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_through_a_view_everything_but_the_texts_stays(task, part):
    twisted()
    plain = splits.load(task, part, 50, seed=0)
    shown = views.apply("twisted", plain)
    assert [(e.uid, e.label) for e in shown] == [(e.uid, e.label) for e in plain]
    assert [e.choices for e in shown] == [tuple(c.swapcase() for c in e.choices) for e in plain]
    assert [e.prompts for e in shown] == [tuple(p.swapcase() for p in e.prompts) for e in plain]
    assert views.apply("twisted", plain[:10]) == shown[:10]


@pytest.mark.parametrize("task", ["tiny_city", "tiny_praise"])
def test_no_question_that_was_trained_on_is_in_a_test_set_seen_through_a_view(task):
    twisted()
    split = splits.split(task, 0)
    train, test = split.train, views.apply("twisted", split.test)
    assert not {e.uid for e in train} & {e.uid for e in test}
    assert not {normalised(e) for e in train} & {normalised(e) for e in test}


def test_plain_is_the_example_itself():
    examples = splits.load("tiny_city", "test", 5, 0)
    assert views.apply("plain", examples) == examples
    assert views.get("plain").name == "plain"


def test_a_view_of_contexts_that_differ_keeps_the_shared_rest():
    twisted()
    example = Example("mine/test/0", ("I", "You"), ("am", "am"), 0)
    (shown,) = views.apply("twisted", [example])
    assert (shown.prompts, shown.choices) == (("i", "yOU"), ("AM", "AM"))


def test_settings_are_a_part_of_the_name():
    @dataclass(frozen=True)
    class Said(views.View, name="said"):
        times: int
        by: str = "Ann"

        def shown(self, example):
            said = f"{self.by}: " * self.times
            return views.with_texts(example, lambda text: said + text, choices=False)

    view = views.get("said(2, 'Eve')")
    assert view == Said(2, "Eve")
    assert (view.name, views.get("said( 2 )").name) == ("said(2, 'Eve')", "said(2, 'Ann')")
    assert views.get(view.name) == view
    (shown,) = views.apply("said(2)", [EXAMPLE])
    assert shown.prompts[0] == "Ann: Ann: Is ice cold?" and shown.choices == EXAMPLE.choices
    for name in ("said", "said()", "said(1, 2, 3)", "said(one)", "said(1"):
        with pytest.raises(
            InputError, match=r"view.*expected (said\(times: int, by: str = 'Ann'\)|one of)"
        ):
            views.get(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plian", "expected one of chat, few_shot, .*, found 'plian'. Did you mean 'plain'?"),
        ("Twisted", "Did you mean 'twisted'?"),
        ("braille", "found 'braille'. Correct the name, or define the view"),
        (None, "found None"),
        ("twisted(3)", "expected twisted, without settings, found 'twisted"),
    ],
)
def test_a_name_that_is_none_is_refused(name, message):
    twisted()
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace("?", r"\?")):
        views.get(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: replace(e, uid="mine/test/1"), "uid to stay 'mine/test/0', found 'mine/test/1'"),
        (lambda e: replace(e, label=0), "label to stay 1, found 0"),
        (lambda e: replace(e, choices=("yes", "yes")), "expected choices that differ"),
        (lambda e: replace(e, choices=(" ", "yes")), "expected prompts and choices with text"),
        (lambda e: Example(e.uid, e.prompts[:1] * 3, ("no", "yes", "x"), 1), "expected 2 choices"),
        (lambda e: replace(e, choices=e.choices[::-1]), "expected every choice in its place"),
        (lambda e: ask("p", ["a", "b"], 0), "expected an Example, found Question"),
        (lambda e: None, "expected an Example, found None"),
    ],
)
def test_a_view_that_changes_more_than_texts_is_refused(change, message):
    class Bad(views.View, name="bad"):
        def shown(self, example):
            return change(example)

    with pytest.raises(InputError, match=f"view 'bad' of example 'mine/test/0': .*{message}"):
        views.apply("bad", [EXAMPLE])


def test_a_view_that_swaps_the_contexts_is_refused():
    class Swap(views.View, name="swap"):
        def shown(self, example):
            return replace(example, prompts=example.prompts[::-1])

    example = binarise(ask("p", ["a", "b"], 0), "mine/test/0", 0)
    with pytest.raises(InputError, match="expected another text"):  # equal prompts
        views.apply("swap", [example])
    with pytest.raises(InputError, match="every choice in its place"):
        views.apply("swap", [Example("mine/test/0", ("I", "You"), ("am", "am"), 0)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain", "expected a new name, found 'plain'"),
        ("few_shot", "expected a new name, found 'few_shot'"),
        ("Two words", "expected a small letter"),
    ],
)
def test_a_view_has_a_name_of_its_own(name, message):
    with pytest.raises(InputError, match=message):

        class Mine(views.View, name=name):
            def shown(self, example):
                return example


def test_one_s_own_view_can_be_corrected():
    first, second = twisted(), twisted()
    assert first is not second and type(views.get("twisted")) is second
