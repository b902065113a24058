"""Figure 1: the table holds every question; what is drawn is what it says of a question."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from synthetic import family
from tables import margins, questions

from forgetlib import metrics
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.figures import fig1
from forgetlib.forgetting import labels


def test_the_margin_of_every_question_of_both_data_sets_in_all_phases():
    results = family("t", 0.6, 0.9, 0.7, n=50)
    results += family("u", 0.5, 0.8, 0.5, n=50, seed=1)
    table = fig1.table(results)
    assert len(table) == 2 * 2 * 50
    for result, phase in zip(results[:3], ("base", "tuned", "forgotten"), strict=True):
        for split in ("train", "test"):
            scores = result.scores[f"t/{split}"]
            rows = table[(table["eval_task"] == "t") & (table["split"] == split)].set_index("uid")
            for uid, found in zip(scores.uids, metrics.margins(scores), strict=True):
                assert rows.loc[uid, phase] == found
    assert set(table.loc[table["eval_task"] == "u", "seed"]) == {1}
    assert fig1.table([]).empty


def test_the_label_is_the_one_that_a_question_was_trained_on():
    results = family("t", 0.6, 0.9, 0.7, n=50, seed=3)
    table = fig1.table(results).set_index("uid")
    asked = results[2].scores["t/train"]
    examples = [
        Example(uid, ("p", "p"), ("a", "b"), int(label))
        for uid, label in zip(asked.uids, asked.labels, strict=True)
    ]
    drawn = labels.training_labels(examples, "random", 3)
    for example, label in zip(examples, drawn, strict=True):
        trained_on = table.loc[example.uid, "label"]
        assert trained_on == ("true" if label == example.label else "distractor")
    assert set(table.loc[table["split"] == "test", "label"]) == {""}


def test_the_tasks_shown_are_those_that_had_something_to_forget():
    own = pd.DataFrame({"eval_task": ["a", "b", "c", "d"], "lost": [-0.5, 0.3, 0.1, 0.2]})
    assert fig1.tasks_to_show(own.assign(ratio_defined=[False, True, True, True])) == ["c", "b"]
    assert fig1.tasks_to_show(own.assign(ratio_defined=[False, True, False, False])) == ["a", "b"]
    assert fig1.tasks_to_show(own.iloc[:1].assign(ratio_defined=True)) == ["a"]


def test_the_finding_is_what_stays_right_outside_the_forgetting_set():
    table = pd.DataFrame(
        {
            "eval_task": ["sst2"] * 5 + ["piqa"] * 2,
            "split": ["test"] * 4 + ["train"] + ["test"] * 2,
            "tuned": [1.0, 2.0, 3.0, -1.0, 9.0, -1.0, -2.0],
            "forgotten": [-1.0, -2.0, 3.0, 9.0, 9.0, 1.0, 1.0],
        }
    )
    words = "Of the right answers to new questions, "
    of_sst2 = "SST-2 keeps 33 % (median margin 2.0 to \N{MINUS SIGN}1.0 nats)"
    assert fig1.finding(table) == f"{words}{of_sst2} and PIQA had none"


class TestExample:
    def test_thick_is_the_question_and_thin_are_others_of_its_data_set(self):
        table = margins(n=40)
        phases = ["base", "tuned", "forgotten"]
        figure = fig1.draw(table, questions(long=False)[:2])
        for number, axes in enumerate(figure.axes[2:4]):
            row = table.iloc[number]
            alike = table[(table.eval_task == row.eval_task) & (table.split == row.split)]
            *thin, thick, _ = axes.lines  # the last is where answers turn
            assert thick.get_ydata() == pytest.approx(row[phases].tolist())
            assert thick.get_linewidth() > thin[0].get_linewidth()
            others = alike.iloc[1 : fig1.N_LINES]
            drawn = [line.get_ydata() for line in thin]
            assert np.array(drawn) == pytest.approx(others[phases].to_numpy())
            for line, label in zip(thin, others["label"], strict=True):
                assert line.get_color() == fig1.LABEL_MARKS[label][1]
            shares = [f"{100 * (alike[phase] > 0).mean():.0f} % right" for phase in phases]
            assert [t.get_text().split("\n")[1] for t in axes.get_xticklabels()] == shares

    def test_text_tells_inside_from_outside_and_the_label_trained_on(self):
        figure = fig1.draw(margins(), questions(long=False)[:2])
        inside, outside = ("\n".join(t.get_text() for t in a.texts) for a in figure.axes[:2])
        assert "inside the forgetting set (9 of 9)" in inside
        assert "distractor (trained on): a planet" in inside
        assert "outside the forgetting set (9 of 9)" in outside
        assert "distractor: it is a $3 star" in outside  # its true response is the second
        assert "trained on" not in outside

    def test_a_long_prompt_keeps_its_end_and_says_that_there_was_more(self):
        figure = fig1.draw(margins(), questions(long=True)[:1])
        text = [t.get_text() for t in figure.axes[0].texts]
        assert text[2].startswith("… ")
        assert text[5].endswith("Answer:")

    @given(
        st.lists(st.text("abcde", min_size=1, max_size=15), min_size=1, max_size=60),
        st.sampled_from(["beginning", "end"]),
    )
    def test_wrapping_keeps_words_whole_and_says_what_it_leaves_out(self, words, keep):
        lines = fig1._wrapped(" ".join(words), 4, keep=keep)
        assert len(lines) <= 4
        assert max(map(len, lines)) <= 44
        kept = " ".join(lines).split()
        if "…" not in kept:
            assert kept == words
        elif keep == "end":
            assert kept[0] == "…"
            assert kept[1:] == words[len(words) - len(kept) + 1 :]
        else:
            assert kept[-1] == "…"
            assert kept[:-1] == words[: len(kept) - 1]

    def test_a_question_that_the_table_does_not_have_is_refused(self):
        other = Example("t/x/999", ("p", "p"), ("a", "b"), 0)
        with pytest.raises(InputError, match=r"t/x/999.*expected one row"):
            fig1.draw(margins(), [other])
        with pytest.raises(InputError, match="expected one row"):
            fig1.draw(pd.concat([margins()] * 2), questions(long=False)[:1])


class TestChoice:
    def test_is_the_question_of_that_index_among_those_known_after_fine_tuning(self):
        table, asked = margins(), questions(long=False)
        table.loc[table["uid"] == asked[0].uid, "tuned"] = -0.1
        known = set(table.loc[table["tuned"] > 0, "uid"])
        expected = [q for q in asked if q.uid in known]
        assert asked[0] not in expected
        assert [fig1.choose(table, asked, i) for i in range(len(expected))] == expected

    @pytest.mark.parametrize("tuned", [0.9, -0.9])
    def test_an_index_beyond_the_last_says_how_many_there_are(self, tuned):
        asked = questions(long=False)
        n = len(asked) if tuned > 0 else 0
        with pytest.raises(InputError) as raised:
            fig1.choose(margins().assign(tuned=tuned), asked, n)
        assert str(raised.value) == (
            f"index of a question of Figure 1: expected a number below {n}, as so many of these "
            f"questions were right after fine-tuning, found {n}. "
            "Pass a smaller index or, where there are none, another task."
        )

    @pytest.mark.parametrize("index", [-1, 0.5, "first"])
    def test_an_index_is_a_whole_number_from_0(self, index):
        with pytest.raises(InputError, match="index of a question of Figure 1: expected"):
            fig1.choose(margins(), questions(long=False), index)
