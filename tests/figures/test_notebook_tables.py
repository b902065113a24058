"""A table that a notebook shows has the same numbers in HTML and as plain text."""

import re

import numpy as np
import pandas as pd

from forgetlib.figures import notebook

TABLE = pd.DataFrame(
    {
        "eval_task": ["sst2", "piqa"],
        "auroc": [0.5, np.nan],
        "auroc_low": [-0.4, np.nan],
        "auroc_high": [0.601, np.nan],
        "n": [200, 100],
        "known": [True, False],
        "answer_format": ["verbaliser", "text"],
        "why": ["<b>", "x" * 80],
    }
)


def cells(html):
    rows = re.findall("<tr>(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_an_interval_is_in_its_measure_s_column_and_nothing_is_a_dash():
    shown = notebook.show(TABLE)
    assert shown.columns == ["task", "AUROC", "n", "known", "answers", "why"]
    assert shown.rows[0] == ["SST-2", "0.50 [−0.40, 0.60]", "200", "yes", "fixed", "<b>"]
    assert shown.rows[1][:5] == ["PIQA", "-", "100", "no", "free"]


def test_html_and_plain_text_say_the_same():
    shown = notebook.show(TABLE, ["eval_task", "auroc", "why"], {"why": "reason"})
    html = cells(shown._repr_html_())
    assert html[0] == ["task", "AUROC", "reason"]
    assert html[1] == ["SST-2", "0.50 [−0.40, 0.60]", "&lt;b&gt;"]
    lines = repr(shown).splitlines()
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[:2]] == [
        html[0],
        ["SST-2", "0.50 [−0.40, 0.60]", "<b>"],
    ]


def test_only_a_column_of_sentences_may_have_several_lines():
    html = notebook.show(TABLE)._repr_html_()
    assert "white-space:nowrap" in html
    assert all("white-space:nowrap" in style for style in re.findall(r'<t[hd] style="(.*?)"', html))
    folded = re.findall(r"<th style=\"[^\"]*white-space:normal[^\"]*\">(\w+)<", html)
    assert folded == ["why"]


def test_rows_are_sorted_with_undefined_ones_last():
    names = [row[0] for row in notebook.show(TABLE, ["eval_task"], sort="n").rows]
    assert names == ["PIQA", "SST-2"]
    names = [row[0] for row in notebook.show(TABLE, ["eval_task"], sort="auroc").rows]
    assert names == ["SST-2", "PIQA"]


def test_a_table_of_nothing_is_shown():
    assert repr(notebook.show(TABLE.iloc[:0], ["eval_task"])) == "task"
    assert notebook.show(TABLE, [])._repr_html_()


def test_a_matrix_has_a_row_an_evaluated_task():
    pairs = pd.DataFrame(
        {"eval_task": list("aabb"), "forget_task": list("abab"), "ratio": [0.1, 0.2, np.nan, 0.4]}
    )
    shown = notebook.matrix(pairs, "ratio", "eval_task", "forget_task")
    assert shown.columns == ["", "a", "b"]
    assert shown.rows == [["a", "0.10", "0.20"], ["b", "-", "0.40"]]


def test_a_verdict_stands_beside_its_statistic():
    found = pd.DataFrame(
        {
            "claim": ["c"],
            "statistic": ["a mean"],
            "value": [0.3],
            "low": [0.1],
            "high": [0.5],
            "statement": ["above"],
            "threshold": [0.25],
            "n": [7],
            "verdict": ["not decided by these data"],
        }
    )
    shown = notebook.verdicts(found, ["n", "verdict"])
    assert shown.rows == [
        ["a mean", "0.30 [0.10, 0.50]", "above 0.25", "7", "not decided by these data"]
    ]
