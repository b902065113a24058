"""The command `forgetlib`: see what there is, compute, draw, estimate, verify, save.

    forgetlib list                      studies, tasks, models, methods, measurements
    forgetlib list quick                a study's checkpoints, and which are stored
    forgetlib run quick own             compute what is missing of a study, or of a section
    forgetlib draw mine.py fig2         draw its figures from what is stored
    forgetlib readme mine.py            write what it found as Markdown, from its drawn figures
    forgetlib page                      write one HTML file of what all drawn studies found
    forgetlib compare --original F --unlearned G --task sst2   what is left in G of what F knew

A STUDY is the name of one, or a Python file that defines one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forgetlib
from forgetlib.errors import ForgetlibError, InputError
from forgetlib.implicit import command

if TYPE_CHECKING:
    from forgetlib.implicit.study import ImplicitStudy


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.root is not None:
        os.environ["FORGETLIB_ROOT"] = str(Path(given.root).resolve())
    do: Callable[[argparse.Namespace], int] = given.do
    try:
        code = do(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads it has seen enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ForgetlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forgetlib",
        description="What do language models really forget? See, compute and draw studies.",
    )
    parser.add_argument("--version", action="version", version=forgetlib.__version__)
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="where figures/ and .work/ are; the checkout or the current folder where left out",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def sections(command: argparse.ArgumentParser) -> None:
        text = "sections of it; all where left out"
        # argparse would call it required, where the study is missing.
        command.add_argument("section", nargs="*", help=text).required = False

    def add(
        name: str, do: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(do=do)
        return command

    about = "a study's name, or a Python file that defines one"
    command = add("list", _list, "list studies, tasks, models, methods, measurements, or a study")
    command.add_argument("what", nargs="?", default="", help="one of these, or a study")
    command.add_argument("--json", action="store_true", help="print the rows for a script")
    command = add("run", _run, "compute what is missing of a study")
    command.add_argument("study", help=about)
    sections(command)
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        default=os.environ.get("RAY_ADDRESS") or None,
        help="compute on a Ray cluster: host:port, auto (the one running here) or local (a new one "
        "on this machine); RAY_ADDRESS where left out",
    )
    command.add_argument(
        "--keep-weights",
        action="store_true",
        help="keep all weights in .work, so that what is asked later trains nothing again",
    )
    command = add("draw", _draw, "draw a study's figures from what is stored")
    command.add_argument("study", help=about)
    command.add_argument(
        "figure", nargs="*", help="of its kind of study, as fig2 or models; all if left out"
    )
    command = add("readme", _readme, "write what a study found as Markdown, from its drawn figures")
    command.add_argument("study", help=about)
    command = add("page", _page, "write one HTML file of what drawn studies found")
    command.add_argument("study", nargs="*", help=f"{about}; all that were drawn if left out")
    command.add_argument(
        "--questions", action="store_true", help="with the questions' texts, for yourself alone"
    )
    command.add_argument("--out", metavar="FILE", help="the HTML file; figures/page.html")
    command = add("cost", _cost, "estimate what a study would cost; compute nothing")
    command.add_argument("study", help=about)
    sections(command)
    command.add_argument(
        "--tflops", type=float, metavar="RATE", help="of another machine, in TFLOP/s"
    )
    command.add_argument("--json", action="store_true", help="print the rows for a script")
    command = add("verify", _verify, "compute some stored checkpoints again, and compare")
    command.add_argument("study", help=about)
    command.add_argument("n", nargs="?", type=int, default=3, help="how many; 3 where left out")
    command.add_argument("--seed", type=int, default=0, help="of the draw of these")
    command.add_argument("--json", action="store_true", help="print the rows for a script")
    command = add("save", _save, "save a checkpoint as a folder in the Hugging Face layout")
    command.add_argument("study", help=about)
    command.add_argument("checkpoint", help="its id, as `forgetlib list STUDY` shows it")
    command.add_argument("folder", help="a folder that does not exist yet")
    command = add(
        "compare", _compare, "find out what is left of a skill in one model that another had"
    )
    _compared(command)
    command = add("cache", _cache, "show what the cache of models and data holds, or delete of it")
    command.add_argument("--delete", nargs="+", metavar="NAME", default=[], help="entries of it")
    command.add_argument("--json", action="store_true", help="print the rows for a script")
    command = add("stored", _stored, "tell by the exit code whether all of a study is stored")
    command.add_argument("study", help=about)
    sections(command)
    command = add("resolve", _resolve, "print a study's name; for make")
    command.add_argument("study", help=about)
    about = "the folder of its notebooks instead, and which of them it has nothing for"
    command.add_argument("--notebooks", action="store_true", help=about)
    return parser


def _list(given: argparse.Namespace) -> int:
    """Print a table of what there is, or of a study's checkpoints."""
    from forgetlib import listing

    tables = listing.of(given.what)
    print(listing.as_json(tables) if given.json else listing.as_text(tables))
    return 0


def _implicit(name: str) -> ImplicitStudy | None:
    """Return the study of implicit inference of a name; None where it is another kind of study."""
    from forgetlib.implicit import study

    return study.STUDIES.get(name)


def _run(given: argparse.Namespace) -> int:
    """Compute what is missing, and say how much there is now."""
    if implicit := _implicit(given.study):
        return command.run(implicit, given.section, ray=given.ray, keep_weights=given.keep_weights)
    from forgetlib import studies
    from forgetlib.runs.estimate import spent
    from forgetlib.runs.grid import open_store
    from forgetlib.runs.processes import writes

    chosen = studies.study(given.study)
    for section in given.section:
        chosen.require_section(section)
    store = open_store(chosen)
    sections = given.section or (None,)
    before = {job.id for part in sections for job in chosen.jobs(part) if store.has(job)}
    for part in sections:
        studies.run(chosen, part, given.ray, keep_weights=given.keep_weights)
    if not writes():
        return 0
    store = open_store(chosen)
    jobs = {job.id: job for part in sections for job in chosen.jobs(part) if store.has(job)}
    hours = spent(jobs.values(), store) / 3600
    print(
        f"{chosen.name}: {len(jobs)} jobs stored in {store.packed}, {len(jobs.keys() - before)} of "
        f"them computed just now; {hours:.2f} hours of work where they were computed"
    )
    return 0


def _draw(given: argparse.Namespace) -> int:
    """Draw figures, and say where they are."""
    from forgetlib import studies
    from forgetlib.figures import drawing
    from forgetlib.figures.implicit import drawing as implicit_drawing

    if implicit := _implicit(given.study):
        paths = implicit_drawing.drawn(implicit, given.figure)
    else:
        paths = drawing.drawn(studies.study(given.study), given.figure)
    for path in paths:
        print(path, flush=True)  # what there is, whatever becomes of the next
    return 0


def _readme(given: argparse.Namespace) -> int:
    """Write a study's README, and its findings into the project's README where that has them."""
    from forgetlib import studies
    from forgetlib.figures import readme

    for path in readme.write(_implicit(given.study) or studies.resolve(given.study)):
        print(path)
    return 0


def _page(given: argparse.Namespace) -> int:
    """Write the page of studies, and say where it is."""
    from forgetlib import studies
    from forgetlib.figures.page import page

    # A file's study by its name; of a name alone its folder suffices, as it may be of any file.
    names = [studies.resolve(s).name if s.endswith(".py") else s for s in given.study]
    print(page.write(names, Path(given.out) if given.out else None, texts=given.questions))
    return 0


def _cost(given: argparse.Namespace) -> int:
    """Print what is missing, and what it would take."""
    if implicit := _implicit(given.study):
        return command.cost(implicit, given.section, as_json=given.json)
    from forgetlib import studies
    from forgetlib.runs import estimate

    chosen = studies.study(given.study)
    sections = given.section or (None,)
    found = (estimate.of_study(chosen, section, given.tflops) for section in sections)
    if given.json:
        print(json.dumps([each.as_dict() for each in found], indent=1))
        return 0
    for each in found:
        print(each.as_text(), flush=True)  # as the next section takes a while
    return 0


def _verify(given: argparse.Namespace) -> int:
    """Print a row a checkpoint and data set; 1 where one does not come out again."""
    from forgetlib import studies
    from forgetlib.implicit import study as implicit
    from forgetlib.runs.verify import verify

    if found := _implicit(given.study):
        table = implicit.verify(found, given.n, given.seed)
    else:
        table = verify(studies.study(given.study), given.n, given.seed)
    if given.json:
        print(table.to_json(orient="records", indent=1))
    else:
        machines = ["checkpoint_id", "machine", "machine_again", "commit_again"]
        shown = table.drop(columns=machines, errors="ignore")
        print(shown.round(3).to_string(index=False))
    return 0 if table["ok"].all() else 1


def _save(given: argparse.Namespace) -> int:
    """Make a checkpoint again, and write it to a folder."""
    from forgetlib import studies

    chosen = studies.study(given.study)
    found = {job.checkpoint.id: job.checkpoint for job in chosen.jobs()}
    fits = [c for checkpoint_id, c in found.items() if checkpoint_id.startswith(given.checkpoint)]
    if len(fits) != 1:
        raise InputError(
            f"checkpoint of study {chosen.name!r}",
            expected="the id of one, or enough of its beginning",
            found=f"{given.checkpoint!r}, which {len(fits)} of {len(found)} have",
            do=f"See `forgetlib list {given.study}`.",
        )
    from forgetlib.models import loading
    from forgetlib.runs.jobs import trained

    print(loading.save(trained(fits[0]), given.folder))
    return 0


def _compared(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `compare`."""
    model = "a folder in the Hugging Face layout, a hub id, an adapter, or an embedded model"
    command.add_argument("--original", required=True, metavar="F", help=f"knows the skill: {model}")
    command.add_argument("--unlearned", required=True, metavar="G", help="shall have lost it")
    command.add_argument("--retrained", default="", metavar="C", help="was never taught it")
    command.add_argument(
        "--task",
        required=True,
        action="append",
        help="the skill: a task (`forgetlib list tasks`), a JSON Lines file, or harness:<name>; "
        "several times for several",
    )
    command.add_argument("--out", metavar="FOLDER", help="where results and the report are put")
    command.add_argument("--quick", action="store_true", help="ask less, for a first look")
    command.add_argument("--n", type=int, help="test questions of each task, at most; 200")
    command.add_argument("--seed", type=int, help="of the split into questions; 0")
    command.add_argument("--forms", nargs="*", metavar="VIEW", help="other forms of a question")
    command.add_argument("--bits", nargs="*", type=int, help="weights rounded to so many; 8 4")
    command.add_argument(
        "--relearn", nargs="*", type=int, metavar="N", help="numbers of labels; 8 128"
    )
    command.add_argument("--rate", type=float, help="learning rate of relearning; 5e-5")
    command.add_argument("--draws", type=int, help="how many sets of these labels; 2")
    command.add_argument("--elsewhere", nargs="*", metavar="TASK", help="where damage is measured")
    command.add_argument(
        "--lens",
        type=int,
        metavar="N",
        help="look into hidden states too (logit lens), at a layer chosen on N training questions",
    )
    command.add_argument("--tuning", help="what relearning changes: body, full or lora; body")
    command.add_argument("--dtype", help="bfloat16 or float32; bfloat16")
    command.add_argument("--json", action="store_true", help="print what was found as JSON")


def _compare(given: argparse.Namespace) -> int:
    """Compare models, print what is left, and write a report."""
    from forgetlib import compare
    from forgetlib.forgetting.base import Training

    same = ("n", "seed", "forms", "draws", "elsewhere", "lens", "tuning", "dtype")
    settings: dict[str, Any] = {name: getattr(given, name) for name in same}
    settings |= {"quantised": given.bits, "n_relearned": given.relearn}
    chosen: dict[str, Any] = dict(compare.QUICK if given.quick else {})
    if given.rate is not None:
        chosen["relearning"] = Training(given.rate)
    for name, value in settings.items():
        if value is not None:
            chosen[name] = tuple(value) if isinstance(value, list) else value
    skills = tuple(map(compare.task_of, given.task))
    comparison = compare.Comparison(
        given.original, given.unlearned, skills, given.retrained, **chosen
    )
    folder = Path(given.out) if given.out else compare.place_of(comparison)
    store = compare.run(comparison, folder)
    found = compare.found(comparison, store)
    written = found.write(folder)
    print(found.as_json() if given.json else found.as_text())
    for path in written:
        print(path, file=sys.stderr if given.json else sys.stdout)
    return 0


def _cache(given: argparse.Namespace) -> int:
    """Print what the cache holds, or delete entries of it."""
    from forgetlib.data.cache import cache_dir

    folder = cache_dir()
    entries = {p.name: p for p in sorted(folder.iterdir())} if folder.is_dir() else {}
    for name in given.delete:
        if name not in entries:
            raise InputError(
                f"the cache {folder}",
                expected=f"an entry: {', '.join(entries) or 'it has none'}",
                found=repr(name),
                do="See `forgetlib cache`.",
            )
    for name in given.delete:
        path = entries.pop(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        print(f"deleted {path}", file=sys.stderr if given.json else sys.stdout)
    sizes = {}
    for name, path in entries.items():
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        sizes[name] = sum(p.stat().st_size for p in files)
    if given.json:
        held = [{"name": name, "bytes": size} for name, size in sizes.items()]
        print(json.dumps({"folder": str(folder), "entries": held}, indent=1))
        return 0
    print(folder)
    for name, size in sizes.items():
        print(f"{size / 1e6:10.1f} MB  {name}")
    return 0


def _stored(given: argparse.Namespace) -> int:
    """Return 0 where nothing is missing, 1 where something is."""
    if implicit := _implicit(given.study):
        return command.stored(implicit, given.section)
    from forgetlib import studies
    from forgetlib.runs.results import has_all

    chosen = studies.study(given.study)
    return 0 if all(has_all(chosen, section) for section in given.section or (None,)) else 1


def _resolve(given: argparse.Namespace) -> int:
    """Print a study's name; or its notebooks' folder, and which of these have nothing to draw."""
    from forgetlib import studies

    chosen = _implicit(given.study) or studies.study(given.study)
    print(*((chosen.notebooks, *chosen.not_drawn) if given.notebooks else (chosen.name,)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
