"""Read a study that is under way, and say in its figures that it is."""

from __future__ import annotations

from matplotlib.figure import Figure

from forgetlib.figures import style
from forgetlib.runs.grid import Study
from forgetlib.runs.records import Result
from forgetlib.runs.results import has_all, load_results, load_stored


def so_far(study: Study, needed: set[str], section: str | None = None) -> tuple[list[Result], str]:
    """Read what is stored, and what to say where that is not all; StudyError where too little is.

    needed: ids of checkpoints; without any of them there is nothing to draw
    """
    if has_all(study, section):
        return load_results(study, section), ""
    found = load_stored(study, section)
    if needed.isdisjoint(r.checkpoint.id for r in found):
        return load_results(study, section), ""  # which raises, and says what is missing
    return found, f"under way: {len(found)} of {len(study.jobs(section))} jobs"


def with_note(figure: Figure, note: str) -> Figure:
    """Say in a figure's title that the study is under way."""
    if note:
        said = f"{' '.join(figure.get_suptitle().split())} ({note})"
        with style.style([said]):
            style.set_finding(figure, said)
    return figure
