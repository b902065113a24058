"""The HTML page: what it shows is what the tables say, and nothing in a study can break it."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_methods import STUDY, results

import forgetlib
from forgetlib.__main__ import main
from forgetlib.figures.methods import generalisation
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.page import page, questions as page_questions, study as page_study
from forgetlib.figures.scale import models as scale
from forgetlib.measuring.base import Scores
from forgetlib.metrics import confidence, correct
from forgetlib.runs.questions import stored_questions

ROOT = Path(forgetlib.__file__).parent.parent
FIGURES = ROOT / "figures"
COMMITTED = (FIGURES / "page.html").read_text()
HOSTILE = "</script><script>document.title='broken'</script>&amp;<!--\u2028"


class Parts(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self._in_script = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in_script = tag == "script"

    def handle_data(self, text):
        if self._in_script:
            self.scripts.append(text)
            self._in_script = False


def data_of(text):
    return json.loads(Parts(text).scripts[0])


SHOWN = data_of(COMMITTED)
STUDIES = {study["name"]: study for study in SHOWN["studies"]}
OF_TASKS = [name for name, study in STUDIES.items() if "tasks" in study]  # the rest: of methods


@pytest.fixture
def drawn(project):
    """A project with one drawn study, `quick`, to change."""
    shutil.copytree(FIGURES / "quick", project / "figures/quick")
    return project


def written(value, low, high):
    """An estimate as a reader would round it."""
    if np.isnan(value):
        return None
    texts = [f"{x:.2f}".replace("-0.00", "0.00").replace("-", "−") for x in (value, low, high)]
    return texts[0] if np.isnan(low) else "{} [{}, {}]".format(*texts)


def test_the_committed_page_is_what_the_stored_results_give_today():
    assert {"embedded", "quick", "paper-suite-270m"} <= set(STUDIES)
    folders = [FIGURES / name for name in STUDIES]
    said = "another page: write it anew with `make page`, and commit it"
    assert page.page(folders, FIGURES) == COMMITTED, said


def test_it_is_one_small_file_that_loads_nothing():
    assert len(COMMITTED.encode()) < 1e6
    addresses = set(re.findall(r"\w+://[^\s\"']+", COMMITTED))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which nothing fetches
    parts = Parts(COMMITTED)
    links = {attributes.get("href") for tag, attributes in parts.elements if tag in ("link", "a")}
    assert links == {"data:,", "#tasks"}
    assert not any("src" in attributes for _, attributes in parts.elements)
    (policy,) = (a["content"] for _, a in parts.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")


def test_it_shows_no_question():
    for study in ("embedded", "quick"):
        for path in sorted((FIGURES / study / "questions").glob("*-0.parquet")):
            for question in stored_questions(FIGURES / study, path.stem.removesuffix("-0"), 0).test:
                assert json.dumps(question.prompts[0])[1:-1][:60] not in COMMITTED
    assert not SHOWN["texts"]


@pytest.mark.parametrize("name", OF_TASKS)
def test_every_number_of_a_task_is_the_table_s(name):
    table = pd.read_csv(FIGURES / name / "fig2b_skill.csv")
    shown = {(t["task"], p): of for t in STUDIES[name]["tasks"] for p, of in t["phases"].items()}
    assert len(shown) == len(table)
    n = 0
    for row in table.to_dict("records"):
        of = shown[row["eval_task"], row["phase"]]
        for measure in page_study.MEASURES:
            wanted = written(*(row[f"{measure}{end}"] for end in ("", "_low", "_high")))
            assert of.get(measure) == wanted, (row["eval_task"], row["phase"], measure)
            n += wanted is not None
    assert n > 10 * len({t for t, _ in shown})
    verdicts = table[table["phase"] == "random"].set_index("eval_task")["verdict"]
    assert {t["task"]: t["verdict"] for t in STUDIES[name]["tasks"]} == verdicts.to_dict()


# Of a study that is under way, there are no pairs yet.
WITH_PAIRS = [name for name in OF_TASKS if (FIGURES / name / "fig3_cross_task.csv").exists()]


@pytest.mark.parametrize("name", WITH_PAIRS)
def test_every_number_of_a_pair_and_of_a_claim_is_the_table_s(name):
    for labels, file in (("random", "fig3_cross_task"), ("flipped", "fig8_flipped")):
        table = pd.read_csv(FIGURES / name / f"{file}.csv")
        (of,) = (pairs for pairs in STUDIES[name]["pairs"] if pairs["labels"] == labels)
        rows, columns = ([task for task, _ in of[side]] for side in ("rows", "columns"))
        assert {m["name"] for m in of["measures"]} >= {"auroc_lost", "nll_risen"}
        for measure in of["measures"]:
            column = measure["name"]
            for row in table.to_dict("records"):
                place = rows.index(row["eval_task"]), columns.index(row["forget_task"])
                found = measure["cells"][place[0]][place[1]]
                wanted = written(*(row[f"{column}{end}"] for end in ("", "_low", "_high")))
                assert found == (wanted or "-")
    table = pd.read_csv(FIGURES / name / "claims.csv")
    rows = [row for claim in STUDIES[name]["claims"] for row in claim["statistics"]]
    values = zip(table["value"], table["low"], table["high"], strict=True)
    assert [row["value"] for row in rows] == [written(*v) or "-" for v in values]
    assert [row["verdict"] for row in rows] == table["verdict"].tolist()
    for claim in STUDIES[name]["claims"]:
        assert claim["pictures"]
        assert all((FIGURES / name / f"{p}.png").exists() for p in claim["pictures"])


@pytest.mark.parametrize("name", OF_TASKS)
def test_the_dots_that_are_right_are_the_accuracy_of_the_table(name):
    table = pd.read_csv(FIGURES / name / "fig2b_skill.csv")
    for row in table.to_dict("records"):
        of = STUDIES[name]["questions"][row["eval_task"]]
        levels = np.frombuffer(base64.b64decode(of["phases"][row["phase"]]), np.uint8)
        assert len(levels) == len(of["ends"]) == row["n"]
        ends = np.cumsum([n for _, n in of["seeds"]])[:-1]
        of_seeds = [(seed > 127).mean() for seed in np.split(levels, ends)]
        assert np.mean(of_seeds) == pytest.approx(row["accuracy"], abs=1e-5)


def test_a_byte_is_a_question_s_confidence_and_whether_it_was_right():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 4, (500, 2)), np.zeros((2, 2)), [[-30, 0], [0, -30]]])
    labels = np.array([0, 1] * 252)
    scores = Scores(
        tuple(map(str, range(504))), values.astype(np.float32), np.ones((504, 2), int), labels
    )
    levels = page_questions.encoded(scores)
    assert ((levels > 127) == correct(scores)).all()  # where both are equally likely, too
    read = np.array([float(page_questions.confidences()[level]) for level in levels])
    assert np.abs(read - confidence(scores)).max() < 0.015
    for place, text in page_questions.ticks():
        near = page_questions.confidences()[round(np.clip(place, 0, 255))]
        assert float(near) == pytest.approx(float(text), abs=0.02)


def test_a_study_whose_names_are_hostile_cannot_break_it(drawn):
    for path in (drawn / "figures/quick").glob("*.csv"):
        path.write_text(path.read_text().replace("arc_easy", f'"{HOSTILE}"'))
    (drawn / "figures/quick/README.md").write_text(f"# {HOSTILE}\n")
    assert main(["page"]) == 0
    text = (drawn / "figures/page.html").read_text()
    assert [tag for tag, _ in Parts(text).elements].count("script") == 2
    (study,) = data_of(text)["studies"]
    assert study["about"] == HOSTILE and HOSTILE in {task["task"] for task in study["tasks"]}


def test_a_study_of_one_s_own_is_shown_from_its_folder_alone(drawn, capsys):
    """With what it has: here neither README, results, control nor pairs."""
    own = drawn / "figures/mine"
    own.mkdir()
    shutil.copy(FIGURES / "quick/fig2b_skill.csv", own)
    assert main(["page", "mine"]) == 0
    assert capsys.readouterr().out == f"{drawn / 'figures/page.html'}\n"
    (study,) = data_of((drawn / "figures/page.html").read_text())["studies"]
    assert study["name"] == study["about"] == "mine" and study["link"] == "mine"
    assert len(study["tasks"]) == 6
    for absent in ("pairs", "claims", "questions", "pictures", "methods", "compared"):
        assert not study[absent]
    assert main(["page"]) == 0
    shown = data_of((drawn / "figures/page.html").read_text())["studies"]
    assert [study["name"] for study in shown] == ["mine", "quick"]


def test_links_to_pictures_lead_from_where_the_page_is(drawn):
    (drawn / "elsewhere/deep").mkdir(parents=True)
    out = drawn / "elsewhere/deep/page.html"
    assert main(["page", "quick", "--out", str(out)]) == 0
    (study,) = data_of(out.read_text())["studies"]
    assert (out.parent / study["link"] / "fig2b_skill.png").exists()
    linked = [t[2] for said in study["findings"] for t in said if t[1:2] == ["picture"]]
    assert {"fig2_control.png", "fig3_harm.png"} == set(linked)


def test_texts_of_questions_are_shown_on_demand_and_in_no_file_that_git_sees(drawn, capsys):
    assert main(["page", "quick", "--questions"]) == 0
    assert capsys.readouterr().out == f"{drawn / '.work/page.html'}\n"
    assert not (drawn / "figures/page.html").exists()
    found = data_of((drawn / ".work/page.html").read_text())
    (study,) = found["studies"]
    assert found["texts"]
    for task, of in study["questions"].items():
        asked = {e.uid: e for e in stored_questions(FIGURES / "quick", task, 0).test}
        assert set(of["texts"]) == set(asked)
        for uid, (prompt, true, distractor) in of["texts"].items():
            e = asked[uid]
            assert (prompt, true) == (e.prompts[e.label], e.choices[e.label])
            assert distractor in (e.choices[1 - e.label], e.prompts[1 - e.label])


def with_methods(folder):
    """A study of methods, as drawn: what each costs, its verdict and its dose."""
    folder.mkdir(parents=True)
    table = generalisation.table(STUDY, results(), None, n_resamples=20)
    for task, of in table.groupby("eval_task"):
        of.to_csv(folder / f"generalisation_{task}.csv", index=False)
    methods = [*dict.fromkeys(table["method"])]
    one = {"eval_task": "sst2_nonce", "method": methods, "n_seeds": 5}
    pd.DataFrame(one | {"verdict": "removed"}).to_csv(folder / "ladder_sst2_nonce.csv")
    dose = pd.DataFrame(one | {"n_reached": 4, "steps": 12.0})
    dose.to_csv(folder / "dose_sst2_nonce.csv")
    return table


def test_a_study_of_methods_has_a_table_of_them(project):
    table = with_methods(project / "figures/methods")
    assert main(["page"]) == 0
    (study,) = data_of((project / "figures/page.html").read_text())["studies"]
    assert [m["skill"] for m in study["methods"]] == ["ARC Easy", "SST-2 in made-up words"]
    of = study["methods"][1]
    rows, columns = ([name for name, _ in of[side]] for side in ("rows", "columns"))
    (lost,) = (m["cells"] for m in of["measures"] if m["name"] == "auroc_lost")
    wanted = table[table["eval_task"] == "sst2_nonce"]
    assert len(wanted) == len(rows) * len(columns)
    for row in wanted.to_dict("records"):
        found = lost[rows.index(row["method"])][columns.index(row["where"])]
        value = written(*(row[f"auroc_lost{end}"] for end in ("", "_low", "_high")))
        assert found == (value or "-")
    about = {"seeds": 5, "verdict": "removed", "dose": "4 of 5", "steps": "12"}
    assert of["about"]["gradient_ascent"] == about
    said = "What 5 ways to forget cost, on ARC Easy and SST-2 in made-up words"
    assert study["headline"] == said
    assert study["findings"][0][0][0].startswith(
        "Where the model is not damaged, new questions of ARC Easy lose AUROC"
    )


def test_a_study_of_several_models_compares_them(drawn):
    path = drawn / "figures/quick/fig9_models.csv"
    one = pd.read_csv(path)
    other = one.assign(model="other", auroc_lost=one["auroc_lost"] + 0.1)
    pd.concat([one, other]).to_csv(path, index=False)
    assert main(["page"]) == 0
    (study,) = data_of((drawn / "figures/page.html").read_text())["studies"]
    assert [(p["model"], p["labels"]) for p in study["pairs"]] == [
        ("gemma-3-270m", "random"),
        ("gemma-3-270m", "flipped"),
        ("other", "random"),
    ]
    own = one["eval_task"] == one["forget_task"]
    means = [f"{x:.2f}" for x in (one["auroc_lost"][own].mean(), one["auroc_lost"][~own].mean())]
    first, second = study["compared"]
    assert [first["own_auroc_lost"], first["others_auroc_lost"]] == means
    assert float(second["own_auroc_lost"]) == pytest.approx(float(means[0]) + 0.1, abs=0.011)


def test_what_cannot_be_written_is_refused_before_anything_is(drawn, capsys):
    assert main(["page", "quikc"]) == 1
    assert "expected one of quick, found 'quikc'. Correct the name" in capsys.readouterr().err
    assert main(["page", "--out", str(drawn / "no/page.html")]) == 1
    said = capsys.readouterr().err
    assert f"expected a file in a folder that exists, found no folder {drawn / 'no'}" in said
    assert not list(drawn.rglob("page.html"))


def test_a_study_of_models_is_shown_with_what_it_found():
    study = page_study.shown(ROOT / "figures/scale", "scale")
    assert page_study.is_study(ROOT / "figures/scale")
    table = pd.read_csv(ROOT / "figures/scale/scale_models.csv")
    assert study["headline"] == scale.finding(table)
    said = ["".join(token[0] for token in of) for of in study["findings"]]
    assert [s.split()[0] for s in said[: table["model"].nunique()]] == [*table["model"].unique()]
    names = [picture["name"] for picture in study["pictures"]]
    assert names == [
        *("scale_models", "scale_agreement", "scale_more", "scale_regressions", "scale_claims")
    ]
    matrix = study["scaled"]
    lost = next(m for m in matrix["measures"] if m["name"] == scale.AUROC_BEYOND)
    tasks, models = [t for t, _ in matrix["rows"]], [m for m, _ in matrix["columns"]]
    for _, row in table.iterrows():
        told = lost["cells"][tasks.index(row["eval_task"])][models.index(row["model"])]
        assert told == estimate_of(row, scale.AUROC_BEYOND)
        verdict = row["verdict"] if row["learned_or_lost"] else "-"
        assert ["verdict", verdict] in matrix["beside"][row["eval_task"]][row["model"]]
    n_there = sum(bool(cell) for row in lost["cells"] for cell in row)
    assert n_there == len(table)
    judged = pd.read_csv(ROOT / "figures/scale/scale_claims.csv")
    assert sum(len(claim["statistics"]) for claim in study["claims"]) == len(judged)
