"""Write one HTML file that needs no other: what every study found, to sort, filter and look into.

`page.html`, `page.css` and `page.js` beside this file are its frame, look and behaviour; what it
shows is one JSON object of texts (`study`) and of a byte a question (`questions`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetlib.errors import InputError
from forgetlib.figures import claims_figure, fig2b
from forgetlib.figures.page.questions import confidences, questions, ticks
from forgetlib.figures.page.study import MEASURES, PHASES, is_study, shown
from forgetlib.figures.style import VERDICT_COLOURS
from forgetlib.figures.verdicts import MEANINGS
from forgetlib.files import replacing, root

FRAME = Path(__file__).parent
COMMITTED = Path("figures/page.html")  # shows no question's text, and may be handed on
LOCAL = Path(".work/page.html")  # with texts, whose licences may forbid that


def study_folders(names: Sequence[str] = ()) -> list[Path]:
    """Find the studies of these names, or all that were drawn; those with most questions first."""
    figures = root() / "figures"
    there = [p for p in sorted(figures.glob("*")) if p.is_dir() and is_study(p)]
    known = {path.name: path for path in there}
    what = f"studies of {figures}"
    if not known:
        raise InputError(
            what,
            expected="a folder with drawn figures",
            found="none",
            do="Draw a study first: make figures, or forgetlib draw STUDY.",
        )
    for name in names:
        if name not in known:
            raise InputError(
                what,
                expected=f"one of {', '.join(known)}",
                found=repr(name),
                do=f"Correct the name, or draw it first: forgetlib draw {name}.",
            )
    return [known[name] for name in dict.fromkeys(names)] if names else there


def page(folders: Sequence[Path], place: Path, *, texts: bool = False) -> str:
    """Write the page of these studies as HTML; the same results give the same text.

    place: the folder that the page will be in, from which it links to pictures
    texts: show the questions that are stored beside the results, for oneself alone
    """
    of_claims = {verdict: mark[1] for verdict, mark in claims_figure.VERDICT_MARKS.items()}
    studies = [_study(folder, place, texts) for folder in folders]
    studies.sort(key=lambda study: -sum(task["n"] for task in study.get("tasks", ())))
    data = {
        "studies": studies,
        "phases": PHASES,
        "measures": MEASURES,
        "meanings": MEANINGS,
        "colours": of_claims | VERDICT_COLOURS,
        "marks": {phase: fig2b.MARKS[phase][2] for phase in PHASES},
        "confidences": confidences(),
        "ticks": ticks(),
        "texts": texts,
    }
    return _filled(data)


def _study(folder: Path, place: Path, texts: bool) -> dict[str, Any]:
    link = Path(os.path.relpath(folder, place)).as_posix()
    found = shown(folder, link)
    # Of a study of methods the page has no dots.
    return found | {"questions": questions(folder, texts=texts) if "tasks" in found else {}}


def _filled(data: dict[str, Any]) -> str:
    """Put look, behaviour and data into the frame."""
    # No text of a study, "</script>" for one, can end the element that it stands in.
    told = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        told = told.replace(character, f"\\u{ord(character):04x}")
    html = (FRAME / "page.html").read_text()
    for mark, text in (
        ("/* page.css */", (FRAME / "page.css").read_text()),
        ("/* page.js */", (FRAME / "page.js").read_text()),
        ("/* data */", told),
    ):
        before, after = html.split(mark)
        html = before + text + after
    return html


def write(names: Sequence[str] = (), out: Path | None = None, *, texts: bool = False) -> Path:
    """Write the page of these studies, or of all that were drawn; return its file.

    out: where to; `COMMITTED` of the project where left out, or `LOCAL` with texts
    """
    folders = study_folders(names)
    path = root() / (LOCAL if texts else COMMITTED) if out is None else out
    if out is not None and not out.resolve().parent.is_dir():
        raise InputError(
            f"page {out}",
            expected="a file in a folder that exists",
            found=f"no folder {out.resolve().parent}",
            do="Make the folder, or name another file.",
        )
    html = page(folders, path.resolve().parent, texts=texts)
    with replacing(path) as partial:
        partial.write_text(html, encoding="utf-8")
    return path
