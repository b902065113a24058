"""The bar: how much is done and left comes first, then what runs, which is what is cut."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from types import SimpleNamespace

import pytest
from helpers import small

from forgetlib import studies
from forgetlib.runs import progress
from forgetlib.runs.progress import WIDTH, Bar, Steps

BAR = r" *\d+% \|.{12}\| (\d\d:\d\d|\?) left, "


@pytest.fixture
def job():
    """One whose name is long: it was fine-tuned on all tasks."""
    found = small(tasks=["tiny_city", "tiny_colour", "tiny_review", "tiny_praise"],
                  protocol="shared").jobs("cross")[1]  # fmt: skip
    assert len(str(found)) > WIDTH
    return found


def shown(job):
    """Show what a study shows."""
    with Bar(100, 12, quiet=False) as bar:
        bar.at(3, job)
        bar.report("training, step 2 of 9", 40)
        bar.say(3, "waiting for another process")
        bar.report("scores tiny_city/test", 60)
        bar.say(12, "")


def lines_of(text):
    return [line for line in re.split(r"[\r\n]", text) if line.strip()]


def test_in_a_log_each_line_begins_with_the_bar_and_is_cut_at_80_columns(job, capsys):
    shown(job)
    lines = lines_of(capsys.readouterr().err)
    assert all(re.match(BAR, line) and len(line) <= WIDTH == 80 for line in lines)
    assert re.fullmatch(BAR + r"3/12 jobs: waiting for another process *", lines[1])
    assert re.fullmatch(r"100% \|█{12}\| 00:00 left, 12/12 jobs *", lines[-1])


def test_a_study_that_is_done_ends_at_the_end_of_the_bar(project, brief_probes, capsys):
    """What is counted before is an estimate."""
    studies.run(small(tasks=["tiny_city"]), "own")
    assert re.fullmatch(r"100% .*00:00 left, 3/3 jobs *", lines_of(capsys.readouterr().err)[-1])


def test_what_runs_is_said_after_how_much_is_done(job, capsys, monkeypatch):
    monkeypatch.setattr(progress, "WIDTH", 300)
    with Bar(100, 12, quiet=False) as bar:
        bar.at(3, job)
        bar.report("training, step 2 of 9", 40)
        bar._bar.refresh()
    said = f"3/12 jobs: {job}, training, step 2 of 9"
    assert re.fullmatch(f" 40%.*left, {re.escape(said)} *", lines_of(capsys.readouterr().err)[-1])


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_in_a_terminal_a_line_is_cut_at_its_width(job, monkeypatch, width):
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 25, width, 0, 0))
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        shown(job)
    found = b""
    with contextlib.suppress(OSError):  # at the end, as nothing writes there any more
        while part := os.read(reader, 100_000):  # which may be less than there is
            found += part
    os.close(reader)
    text = found.decode()
    lines = lines_of(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text))
    assert lines and all(len(line) <= width for line in lines)
    assert any(re.match(BAR + r"3/1", line) for line in lines)


def test_in_a_notebook_it_is_a_widget_with_what_runs_beside_it(job, monkeypatch):
    notebook = pytest.importorskip("tqdm.notebook")
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(progress, "tqdm", notebook.tqdm)
    monkeypatch.setattr(notebook, "display", lambda *a: None, raising=False)
    with Bar(100, 12, quiet=False) as bar:
        bar.at(3, job)
        bar.report("training, step 2 of 9", 40)
        bar._bar.refresh()
        left, widget, right = bar._bar.container.children
        assert (widget.value, widget.max) == (40, 100)
        assert left.value.strip() == "40%"
        said = re.sub(r"\s", " ", right.value)
        assert "left, 3/12 jobs: tiny seed 0" in said and "█" not in said
        assert bar._bar.container.layout.width == "100%"


def test_it_shows_nothing_where_it_is_told_to_be_quiet(job, capsys):
    with Bar(100, 12, quiet=True) as bar:
        bar.at(3, job)
        bar.report("training", 40)
        bar.say(4, "")
        bar.left(10)
    assert capsys.readouterr().err == ""


def test_what_is_left_of_all_jobs_is_taken_as_it_is_said(capsys):
    with Bar(100, 12, quiet=False) as bar:
        bar.left(30)
        bar.left(0)
        assert bar._bar.n == 100


def test_the_steps_of_a_training_are_a_bar_outside_of_a_notebook(capsys):
    steps = Steps("random labels")
    for done in range(1, 4):
        steps(done, 3)
    last = re.split(r"[\r\n]+", capsys.readouterr().err.strip())[-1]
    assert last.startswith("100%") and "random labels" in last


def test_in_a_notebook_they_are_a_widget_in_whose_place_a_line_remains(monkeypatch):
    shown, left = [], []
    handle = SimpleNamespace(update=left.append)
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda w, **_: shown.append(w) or handle)
    steps = Steps("random labels")
    for done in range(1, 4):
        steps(done, 3)
        bar, said = shown[0].children
        assert (bar.value, bar.max, said.value) == (done, 3, f"random labels: step {done} of 3")
    assert len(shown) == 1 and [repr(line) for line in left] == ["random labels: 3 steps"]
