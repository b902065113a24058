"""Figure 1: the table holds every question; what is drawn is what it says of a question."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import family
from tables import confidences, questions

from forgetlib import metrics
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.figures import fig1


def test_question_confidences_has_every_question_of_both_data_sets_in_all_phases():
    results = family("t", 0.6, 0.9, 0.7, n=50)
    results += family("u", 0.5, 0.8, 0.5, n=50, seed=1)
    table = fig1.table(results)
    assert len(table) == 2 * 2 * 50
    for result, phase in zip(results[:3], ("base", "tuned", "forgotten"), strict=True):
        for split in ("train", "test"):
            scores = result.scores[f"t/{split}"]
            rows = table[(table["eval_task"] == "t") & (table["split"] == split)].set_index("uid")
            for uid, found in zip(scores.uids, metrics.confidence(scores), strict=True):
                assert rows.loc[uid, phase] == found
    assert set(table.loc[table["eval_task"] == "u", "seed"]) == {1}
    assert fig1.table([]).empty


class TestExample:
    def test_lines_are_the_questions_probabilities_before_those_of_all(self):
        table = confidences()
        figure = fig1.draw(table, questions(long=False)[:2])
        for number, axes in enumerate(figure.axes[2:4]):
            row = table.iloc[number]
            lines = {line.get_label(): line.get_ydata() for line in axes.lines}
            expected = row[["base", "tuned", "forgotten"]].tolist()
            assert lines["true response"] == pytest.approx(expected)
            assert lines["distractor"] == pytest.approx([1 - p for p in expected])
            alike = table[(table.eval_task == row.eval_task) & (table.split == row.split)]
            medians = [np.median(alike[phase]) for phase in ("base", "tuned", "forgotten")]
            assert lines["true, median of all n"] == pytest.approx(medians)

    def test_text_tells_inside_from_outside_and_the_label_trained_towards(self):
        figure = fig1.draw(confidences(), questions(long=False)[:2])
        inside, outside = ("\n".join(t.get_text() for t in a.texts) for a in figure.axes[:2])
        assert "inside the forgetting set (n = 9)" in inside
        assert "distractor (trained towards): a planet" in inside
        assert "outside the forgetting set (n = 9)" in outside
        assert "distractor: it is a $3 star" in outside  # its true response is the second
        assert "trained towards" not in outside

    def test_a_long_prompt_keeps_its_end_and_says_that_there_was_more(self):
        figure = fig1.draw(confidences(), questions(long=True)[:1])
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
            fig1.draw(confidences(), [other])
        with pytest.raises(InputError, match="expected one row"):
            fig1.draw(pd.concat([confidences()] * 2), questions(long=False)[:1])


class TestChoice:
    def test_is_the_question_of_that_index_among_those_known_after_fine_tuning(self):
        table, asked = confidences(), questions(long=False)
        table.loc[table["uid"] == asked[0].uid, "tuned"] = 0.4
        known = set(table.loc[table["tuned"] > 0.5, "uid"])
        expected = [q for q in asked if q.uid in known]
        assert asked[0] not in expected
        assert [fig1.choose(table, asked, i) for i in range(len(expected))] == expected

    @pytest.mark.parametrize("tuned", [0.9, 0.1])
    def test_an_index_beyond_the_last_says_how_many_there_are(self, tuned):
        asked = questions(long=False)
        n = len(asked) if tuned > 0.5 else 0
        with pytest.raises(InputError) as raised:
            fig1.choose(confidences().assign(tuned=tuned), asked, n)
        assert str(raised.value) == (
            f"index of a question of Figure 1: expected a number below {n}, as so many of these "
            f"questions were right after fine-tuning, found {n}. "
            "Pass a smaller index or, where there are none, another task."
        )

    @pytest.mark.parametrize("index", [-1, 0.5, "first"])
    def test_an_index_is_a_whole_number_from_0(self, index):
        with pytest.raises(InputError, match="index of a question of Figure 1: expected"):
            fig1.choose(confidences(), questions(long=False), index)
