"""The HTML page in a real browser: it sorts, filters and drills down, by mouse and by keyboard."""

import json
import shutil

import browser
import pandas as pd
import pytest
from test_page import FIGURES, HOSTILE, STUDIES, with_methods

from forgetlib.__main__ import main
from forgetlib.figures.numbers import estimate_of

pytestmark = pytest.mark.skipif(browser.PATH is None, reason=browser.MISSING)
PAGE = FIGURES / "page.html"
TABLE = pd.read_csv(FIGURES / "embedded/fig2b_skill.csv")
AFTER = TABLE[TABLE["phase"] == "random"].set_index("eval_task")
NAMES = {task["title"]: task["task"] for task in STUDIES["embedded"]["tasks"]}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def shown(chromium):
    """The committed page, afresh; what its console complains of fails the test."""
    chromium.complaints.clear()
    chromium.open(PAGE)
    yield chromium
    assert chromium.complaints == []
    assert "undefined" not in chromium.run("document.body.innerText")


def click(shown, selector):
    shown.run(f"document.querySelector({json.dumps(selector)}).click()")


def texts(shown, selector):
    return shown.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)"
    )


def tasks(shown):
    found = "[...document.querySelectorAll('.name')].map(e => e.dataset.task)"
    return shown.run(found)


def choose(shown, selector, value):
    shown.run(
        f"{{const e = document.querySelector({json.dumps(selector)});"
        f"e.value = {json.dumps(value)};"
        "e.dispatchEvent(new Event(e.tagName === 'INPUT' ? 'input' : 'change'))}"
    )


def heading(column):
    return f".tasks th[data-column={column}] button"


def rounded(values):
    return [round(value + 0.0, 2) for value in values]


def test_it_answers_at_once_with_what_was_found(shown):
    assert texts(shown, "h1") == ["What do language models really forget?"]
    (headline,) = texts(shown, ".headline")
    assert headline == f"{STUDIES['embedded']['headline']}."
    counts = AFTER["verdict"].value_counts()
    assert set(texts(shown, ".chips button")) == {f"{n} {verdict}" for verdict, n in counts.items()}
    assert len(tasks(shown)) == len(AFTER) == 21


def test_a_column_sorts_both_ways_and_says_so(shown):
    for column in ("auroc", "accuracy", "forget_ratio", "auroc_lost"):
        by = AFTER[column]
        for down in (True, False) if column != "auroc_lost" else (True,):
            click(shown, heading(column))
            found = by[tasks(shown)]
            known = rounded(found.dropna())  # as they are written
            assert known == sorted(known, reverse=down) and found[len(known) :].isna().all()
            (said,) = shown.run(
                "[...document.querySelectorAll('.tasks thead th')]"
                ".map(e => e.getAttribute('aria-sort'))"
                ".filter(sort => sort !== 'none')"
            )
            assert said == ("descending" if down else "ascending")
    click(shown, heading("title"))
    titles = {task: title.lower() for title, task in NAMES.items()}
    assert tasks(shown) == sorted(AFTER.index, key=titles.get)


def test_filters_leave_what_fits_and_say_how_much(shown):
    choose(shown, ".tools [data-filter=verdict] select", "kept")
    assert set(tasks(shown)) == set(AFTER.index[AFTER["verdict"] == "kept"])
    assert texts(shown, "#count") == ["4 of 21 tasks"]
    pressed = "[...document.querySelectorAll('.chips [aria-pressed=true]')].map(e => e.innerText)"
    assert shown.run(pressed) == ["4 kept"]
    choose(shown, "input[type=search]", "sciq")
    assert tasks(shown) == ["sciq"]
    choose(shown, "input[type=search]", "no such task")
    assert tasks(shown) == [] and texts(shown, ".tasks tbody") == ["No task fits. Show all"]
    click(shown, ".tasks tbody button")
    assert len(tasks(shown)) == 21
    click(shown, ".chips button[data-verdict=forgotten]")
    assert tasks(shown) == ["sst2"]
    click(shown, ".chips button[data-verdict=forgotten]")
    assert len(tasks(shown)) == 21


@pytest.mark.parametrize("task", ["sst2", "arc_easy"])
def test_a_task_opens_and_its_numbers_are_the_table_s(shown, task):
    click(shown, f".name[data-task={task}]")
    of = TABLE[TABLE["eval_task"] == task].set_index("phase")
    found = shown.run(
        "[...document.querySelectorAll('.detail td[data-measure]')]"
        ".map(e => [e.dataset.measure, e.dataset.phase, e.innerText])"
    )
    cells = {(measure, phase): text for measure, phase, text in found}
    assert {phase for _, phase in cells} == set(of.index)
    for measure in ("accuracy", "auroc", "set_accuracy", "nll", "auroc_lost"):
        for phase, row in of.iterrows():
            value = (
                f"{row[measure]:.2f} [{row[measure + '_low']:.2f}, {row[measure + '_high']:.2f}]"
            )
            wanted = "" if pd.isna(row[measure]) else value.replace("-", "−")
            assert cells[measure, phase] == wanted
    # The dots tell the same: of both phases, how many were right.
    changes = [int(text.split()[0]) for text in texts(shown, ".detail .counts li")]
    lost, won, right, wrong = changes
    n = of.loc["tuned", "n"]
    assert lost + won + right + wrong == n
    assert (lost + right) / n == pytest.approx(of.loc["tuned", "accuracy"], abs=1e-5)
    assert (won + right) / n == pytest.approx(of.loc["random", "accuracy"], abs=1e-5)
    choose(shown, ".detail [data-phase=after] select", "true")
    lost, won, right, wrong = (int(t.split()[0]) for t in texts(shown, ".detail .counts li"))
    assert (won + right) / n == pytest.approx(of.loc["true", "accuracy"], abs=1e-5)
    click(shown, f".name[data-task={task}]")
    assert texts(shown, ".detail") == []


def test_each_question_can_be_looked_at(shown):
    """The slider steps through them, and the pointer finds them."""
    click(shown, ".panels [data-panel=sst2]")
    choose(shown, ".detail input[type=range]", "0")
    first = texts(shown, ".asked")[0]
    assert "sst2/" in first and "seed" in first
    sure = dict(part.rsplit(" ", 1) for part in first.split("confidence: ")[1].split(", "))
    assert float(sure["fine-tuned"]) > 0.9 and float(sure["random labels"]) < 0.5
    middle = "document.querySelector('.detail .dots').getBoundingClientRect().toJSON()"
    at = shown.run(middle)
    place = at["x"] + at["width"] * 0.9, at["y"] + at["height"] * 0.47
    shown.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    shown.until("document.querySelector('.detail input[type=range]').value !== '0'")
    assert texts(shown, ".asked")[0] != first


def test_the_matrix_tells_every_cell_by_pointer_and_by_arrow_keys(shown):
    pairs = pd.read_csv(FIGURES / "embedded/fig3_cross_task.csv")
    pairs = pairs.set_index(["eval_task", "forget_task"])
    rows, columns = texts(shown, ".matrix tbody th"), texts(shown, ".matrix thead th span")
    (said,) = shown.run("[document.querySelector('.matrix').scrollWidth > 0]")
    assert said and len(rows) == len(columns) == 12

    def lost(row, column, table=pairs, measure="auroc_lost"):
        of = table.loc[(NAMES[rows[row]], NAMES[columns[column]])]
        values = (of[measure + end] for end in ("", "_low", "_high"))
        return "{:.2f} [{:.2f}, {:.2f}]".format(*values).replace("-0.00", "0.00").replace("-", "−")

    shown.run("document.querySelector('.matrix button').focus()")
    for key, place in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("ArrowUp", (0, 1)),
                       ("ArrowUp", (0, 1)), ("ArrowLeft", (0, 0))):  # fmt: skip
        shown.press(key)
        read = texts(shown, ".read")[0]
        assert f"AUROC lost\n{lost(*place)}" in read
        assert f"{rows[place[0]]}, after random labels of {columns[place[1]]}" in read
    # One cell alone is in the order of the Tab key.
    assert shown.run("document.querySelectorAll('.matrix button[tabindex=\"0\"]').length") == 1
    choose(shown, "#pairs select", "nll_risen")
    assert texts(shown, "#pairs td button")[0] == lost(0, 0, measure="nll_risen").split()[0]
    shown.run("document.querySelectorAll('#pairs input[type=radio]')[1].click()")
    flipped = pd.read_csv(FIGURES / "embedded/fig8_flipped.csv")
    flipped = flipped.set_index(["eval_task", "forget_task"])
    for place, cell in ((0, (0, 0)), (13, (1, 1)), (143, (11, 11))):
        wanted = lost(*cell, flipped, "nll_risen").split()[0]
        assert texts(shown, "#pairs td button")[place] == wanted


def test_it_can_be_used_by_the_keyboard_alone(shown):
    reached = []
    for _ in range(60):
        shown.press("Tab", 9)
        about = "(e => [e.tagName, e.textContent.trim().slice(0, 20), e.matches(':focus-visible')])"
        reached.append(shown.run(f"{about}(document.activeElement)"))
        if reached[-1][1].startswith("AUROC lost"):
            break
    assert all(visible for *_, visible in reached)
    words = " ".join(text for _, text, _ in reached)
    assert words.startswith("Skip to the tasks embedded")
    assert {"INPUT", "SELECT", "BUTTON", "A"} <= {tag for tag, *_ in reached}
    before = tasks(shown)
    shown.press("Enter", 13, "\r")  # the other way round: it was sorted by this
    assert tasks(shown) != before
    shown.run("document.querySelectorAll('#studies button')[1].focus()")
    shown.press("Enter", 13, "\r")
    assert shown.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    shown.run("document.querySelector('.name').focus()")
    shown.press("Enter", 13, "\r")
    assert len(texts(shown, ".detail")) == 1
    assert shown.run("document.activeElement.getAttribute('aria-expanded')") == "true"


def test_every_study_can_be_chosen_and_an_address_leads_to_a_task(shown):
    for name in STUDIES:
        shown.run(f"location.hash = 'study={name}'")
        shown.until(f"document.querySelector('#studies [aria-pressed=true]').innerText"
                    f".startsWith('{name}')")  # fmt: skip
        of = STUDIES[name].get("tasks", [])
        assert set(tasks(shown)) == {task["task"] for task in of}
    shown.run("location.hash = 'study=quick&task=mrpc'")
    shown.until("document.querySelector('.detail') !== null")
    assert shown.run("document.activeElement.dataset.task") == "mrpc"
    (beside,) = texts(shown, "#beside table")
    assert "ARC Easy" in beside and "paper-suite-270m" in beside


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_legible_on_a_phone_in_light_and_in_dark(shown, dark):
    shown.open(PAGE, 400, 800, dark)
    for name in sorted(STUDIES, key=lambda name: "tasks" in STUDIES[name]):  # with pairs, last
        shown.run(f"location.hash = 'study={name}'")
        shown.until(f"document.querySelector('#studies [aria-pressed=true]').innerText"
                    f".startsWith('{name}')")  # fmt: skip
        if "tasks" in STUDIES[name]:
            click(shown, ".name")
        shown.run("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        assert shown.run("document.documentElement.scrollWidth <= innerWidth")
        # No cell's text runs into the next: the opened task's table has long names.
        wide = "[...document.querySelectorAll('th, td')].filter(e => e.offsetParent &&"
        wide += "e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML)"
        assert shown.run(wide) == []
    small = shown.run(
        "[...document.querySelectorAll('main *')].filter(e => e.children.length === 0 &&"
        "e.textContent.trim() && !e.closest('svg') &&"
        "parseFloat(getComputedStyle(e).fontSize) < 12)"
        ".map(e => e.outerHTML)"
    )
    assert small == []
    assert contrast(shown, "body", "body") > 12
    assert contrast(shown, ".note", "body") > 4.5
    for cell in range(0, 25, 6):
        selector = f".matrix tr:nth-child({cell % 5 + 1}) td:nth-of-type({cell // 5 + 1}) button"
        assert contrast(shown, selector, selector) > 4.5


def contrast(shown, ink, ground):
    """The contrast of text with what is behind it, as WCAG 2 defines it."""
    return shown.run(
        """(() => {
          const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
          const light = (selector, property) => {
            canvas.fillStyle = getComputedStyle(document.querySelector(selector))[property];
            canvas.fillRect(0, 0, 1, 1);
            const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(x => x / 255)
              .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          };
          const both = [light(INK, "color"), light(GROUND, "backgroundColor")];
          const [high, low] = both.sort((a, b) => b - a);
          return (high + 0.05) / (low + 0.05);
        })()""".replace("INK", json.dumps(ink)).replace("GROUND", json.dumps(ground))
    )


def test_studies_of_one_s_own_are_shown_whatever_they_are_called(chromium, project):
    """Of methods, of several models, with texts and with names that look like HTML."""
    shutil.copytree(FIGURES / "quick", project / "figures/quick")
    folder = project / "figures/quick"
    for path in folder.glob("*.csv"):
        path.write_text(path.read_text().replace("arc_easy", f'"{HOSTILE}"'))
    one = pd.read_csv(folder / "fig9_models.csv")
    pd.concat([one, one.assign(model=HOSTILE)]).to_csv(folder / "fig9_models.csv", index=False)
    (folder / "README.md").write_text(f"# {HOSTILE}\n")
    with_methods(project / "figures/methods")
    (project / "figures/bare").mkdir()
    shutil.copy(folder / "fig2b_skill.csv", project / "figures/bare")
    out = project / "page.html"
    assert main(["page", "--questions", "--out", str(out)]) == 0
    chromium.complaints.clear()
    chromium.open(out)
    assert chromium.run("document.title") == "What do language models really forget?"
    chromium.run("location.hash = 'study=quick'")
    chromium.until("document.querySelector('#models') !== null")
    assert any(HOSTILE.split("\u2028")[0] in text for text in texts(chromium, ".name"))
    assert len(texts(chromium, "#models tbody tr")) == 2
    assert chromium.run("document.querySelectorAll('#pairs select').length") == 2
    click(chromium, ".panels [data-panel=sst2]")
    choose(chromium, ".detail input[type=range]", "3")
    (told,) = texts(chromium, ".asked")
    assert "true: " in told and "distractor: " in told
    chromium.run("location.hash = 'study=bare&task=sst2'")  # without results
    chromium.until("document.querySelector('.detail .plot') !== null")
    assert "No scores of these questions" in texts(chromium, ".detail .plot")[0]
    chromium.run("location.hash = 'study=methods'")
    chromium.until("document.querySelector('#methods') !== null")
    assert len(texts(chromium, "#methods .matrix")) == 2
    assert "removed, dose reached in 4 of 5, 12 steps" in " ".join(
        texts(chromium, "#methods .matrix")[1].split()
    )
    choose(chromium, "#methods select", "nll_rise")
    assert chromium.run("document.querySelector('#methods select').value") == "nll_rise"
    assert "undefined" not in chromium.run("document.body.innerText")
    assert chromium.complaints == []


def test_models_are_beside_each_other(shown):
    shown.run("location.hash = 'study=scale'")
    shown.until("document.querySelector('#models .matrix') !== null")
    table = pd.read_csv(FIGURES / "scale/scale_models.csv")
    assert len(texts(shown, "#models .matrix tbody tr")) == table["eval_task"].nunique()
    cells = texts(shown, "#models .matrix button")
    assert sum(text != "-" for text in cells) == len(table)
    shown.run("document.querySelector('#models .matrix button').focus()")
    told = " ".join(texts(shown, "#models .read")[0].split())
    row = table[table["eval_task"] == table["eval_task"].iloc[0]].iloc[0]
    assert (
        f"verdict {row['verdict'] if row['learned_or_lost'] else '-'}" in told
        and estimate_of(row, "auroc_tuned") in told
    )
    choose(shown, "#models select", "damage")
    assert shown.run("document.querySelector('#models select').value") == "damage"
    assert texts(shown, "#models .matrix button") != cells


def test_what_goes_wrong_in_a_page_is_heard(chromium, tmp_path):
    """The positive control of every other test here."""
    (tmp_path / "bad.html").write_text(
        "<script>console.error('said')</script><script>nothing()</script><img src='gone.png'>"
    )
    chromium.complaints.clear()
    chromium.open(tmp_path / "bad.html")
    chromium.until("document.images[0].complete")
    assert len(chromium.complaints) >= 3
    chromium.complaints.clear()
