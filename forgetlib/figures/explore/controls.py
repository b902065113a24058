"""Choose what is looked at by widgets: study, model, task, method, phase, and a single question.

    controls.panel("embedded", task="sst2")

The widgets need a running notebook. `explore` and `picture` have all that they show.
"""

from __future__ import annotations

from functools import lru_cache
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.errors import ForgetlibError
from forgetlib.figures.explore import explore, picture
from forgetlib.figures.explore.explore import FATES, PARTS, STEPS, Case, Stored
from forgetlib.figures.names import title
from forgetlib.figures.style import as_data

DPI = 180
EVERY = "all"


@lru_cache(maxsize=16)
def _numbers(case_of: tuple[Stored, str, str, str], step: str) -> tuple[Case, Any, Any]:
    """Read and measure a case; kept, as it takes a second or two."""
    stored, *names = case_of
    case = stored.case(*names)
    return case, explore.table(case, step), explore.questions(case)


class Panel(widgets.VBox):
    """Show a case, and change it by widgets.

    A choice that another one does not have, as a task of another study, is replaced by the first
    that there is. What goes wrong is said in place of the picture.
    """

    def __init__(self, study: str, task: str = "", method: str = "") -> None:
        study = Stored(study).study  # of a file, its name
        names = [study, *(name for name in explore.there() if name != study)]
        self.study = widgets.Dropdown(options=names, value=study, description="study")
        self.model = widgets.Dropdown(description="model")
        self.task = widgets.Dropdown(description="task")
        self.method = widgets.Dropdown(description="method")
        self.phase = widgets.Dropdown(options=list(STEPS), description="phase")
        self.part = widgets.Dropdown(options=[EVERY, *PARTS.values()], description="questions")
        self.fate = widgets.Dropdown(options=[EVERY, *FATES], description="which")
        self.number = widgets.IntSlider(min=0, max=0, description="number", continuous_update=False)
        self.picture = widgets.HTML()
        self.table = widgets.HTML()
        self.card = widgets.HTML()
        self._busy = False
        self._stored: dict[str, Stored] = {}
        chosen = (self.study, self.model, self.task, self.method, self.phase)
        for control in chosen:
            control.observe(self._choose, "value")
        for control in (self.part, self.fate, self.number):
            control.observe(self._browse, "value")
        browse = (self.part, self.fate, self.number)
        rows = [widgets.HBox(chosen[:3]), widgets.HBox(chosen[3:]), self.picture, self.table]
        super().__init__([*rows, widgets.HBox(browse), self.card])
        self.part.value = PARTS["test"]
        self._fill(task, method)

    def __repr__(self) -> str:
        return "Run this cell: the controls are shown where a notebook is running."

    def _choose(self, change: Any) -> None:
        if not self._busy:
            self._fill(self.task.value or "", self.method.value or "")

    def _browse(self, change: Any) -> None:
        if not self._busy:
            self._show()

    def _fill(self, task: str, method: str) -> None:
        """Offer what there is of the chosen study, keep what can be kept, and show it."""
        self._busy = True
        try:
            name = str(self.study.value)
            stored = self._stored.setdefault(name, Stored(name))
            _offer(self.model, [(m.rsplit("/", 1)[-1], m) for m in stored.models()])
            tasks = stored.tasks(self.model.value) if self.model.value else []
            _offer(self.task, [(title(t), t) for t in tasks], task)
            methods = stored.methods(self.model.value, self.task.value) if tasks else []
            _offer(self.method, [(m, m) for m in methods], method)
        except ForgetlibError as error:
            self._say(error)
            return
        finally:
            self._busy = False
        self._show()

    def _show(self) -> None:
        if self.method.value is None:
            self._say("no model that was taught a task and made to forget it is stored here")
            return
        step = str(self.phase.value)
        stored = self._stored[str(self.study.value)]
        key = stored, str(self.model.value), str(self.task.value), str(self.method.value)
        try:
            case, table, questions = _numbers(key, step)
            fate, part = ("" if c.value == EVERY else c.value for c in (self.fate, self.part))
            of = explore.sample_of(questions, step, fate, part)
            self._busy = True
            self.number.max = max(len(of) - 1, 0)
            self._busy = False
            row = of.iloc[self.number.value] if len(of) else None
            picked = "" if row is None else str(row["uid"])
            figure = picture.draw(questions, table, step, picked)
        except ForgetlibError as error:
            self._say(error)
            return
        finally:
            self._busy = False
        self.picture.value = as_html(figure)
        self.table.value = picture.summary(table)._repr_html_()
        self.card.value = _card(case, row)

    def _say(self, what: object) -> None:
        self.picture.value = f"<p>{escape(str(what))}</p>"
        self.table.value = self.card.value = ""


def _offer(control: widgets.Dropdown, options: list[tuple[str, str]], wanted: str = "") -> None:
    """Put options into a control; what was chosen stays chosen where it is still there."""
    values = [value for _, value in options]
    keep = next((v for v in (wanted, control.value) if v in values), values[0] if values else None)
    control.options = options
    control.value = keep


def _card(case: Case, row: pd.Series | None) -> str:
    if row is None:
        return "<p>no such question</p>"
    return picture.card(case, row)._repr_html_()


def as_html(figure: Figure) -> str:
    """Write a picture as HTML, as wide as the page."""
    return f'<img style="width:100%;max-width:1000px" src="{as_data(figure, DPI)}">'


def panel(study: str, task: str = "", method: str = "") -> Panel:
    """Return the widgets, with a case to begin with; "": the first that there is."""
    return Panel(study, task, method)
