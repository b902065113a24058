"""What is shown while jobs are computed: a bar first, then what runs, cut to a line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

from forgetlib.runs.records import Job

# The bar comes first and has a fixed width, so that what runs is cut and not the bar.
FORMAT = "{percentage:3.0f}% |{bar:12}| {remaining} left, {desc}"
WIDTH = 80  # of a line where there is no terminal that has one


def new_bar(total: int, *, quiet: bool) -> tqdm:
    """Return a bar of so many pieces of work, for where it is shown: terminal, notebook or file."""
    options: dict[str, Any] = {"mininterval": 5.0, "ncols": WIDTH, "bar_format": FORMAT}
    if any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__):
        # A widget, of the cell's width: it knows no bar of another one.
        options = {"dynamic_ncols": True, "bar_format": FORMAT.replace("{bar:12}", "{bar}")}
    elif sys.stderr.isatty():
        options = {"mininterval": 0.2, "dynamic_ncols": True, "bar_format": FORMAT}
    return tqdm(total=total, disable=quiet, **options)


class Bar:
    """Show a bar of examples done; in a notebook a widget. In a log file, a line now and then.

    total: examples of all jobs that are to be computed
    n_jobs: how many jobs there are, stored ones too
    """

    def __init__(self, total: int, n_jobs: int, *, quiet: bool) -> None:
        self.n_jobs = n_jobs
        self.job = ""
        self.n_done = 0
        self._bar = new_bar(total, quiet=quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def at(self, n_done: int, job: Job) -> None:
        """Say which job is next."""
        self.n_done, self.job = n_done, str(job)

    def say(self, n_done: int, what: str) -> None:
        """Say something of all jobs."""
        said = f"{n_done}/{self.n_jobs} jobs" + (f": {what}" if what else "")
        self._bar.set_description_str(said)

    def left(self, n_examples: int) -> None:
        """Say how many examples are left of all jobs."""
        self._bar.update(self._bar.total - self._bar.n - n_examples)

    def report(self, what: str, n_examples: int) -> None:
        """Say what is done of the job now, and count examples that are done."""
        said = f"{self.n_done}/{self.n_jobs} jobs: {self.job}, {what}"
        self._bar.set_description_str(said, refresh=False)
        self._bar.update(n_examples)


class Steps:
    """Show the steps of one training: `loop.train(lm, method, context, Steps("random labels"))`.

    In a notebook a widget, in whose place a line remains when it is done; elsewhere a bar.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._update: Callable[[int, int], None] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show that so many of all steps are done."""
        if self._update is None:
            self._update = (_widget if _in_notebook() else _line)(self.what, total)
        self._update(done, total)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _line(what: str, total: int) -> Callable[[int, int], None]:
    bar = new_bar(total, quiet=False)
    bar.set_description_str(what)

    def update(done: int, total: int) -> None:
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return update


class _Text:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _widget(what: str, total: int) -> Callable[[int, int], None]:
    import ipywidgets
    from IPython.display import display

    bar = ipywidgets.IntProgress(max=total, layout={"width": "50%"})
    said = ipywidgets.Label(what)
    handle = display(ipywidgets.HBox([bar, said]), display_id=True)

    def update(done: int, total: int) -> None:
        bar.value, said.value = done, f"{what}: step {done} of {total}"
        if done == total:  # a stored notebook keeps a line, and no widget of a kernel that is gone
            handle.update(_Text(f"{what}: {total} steps"))

    return update
