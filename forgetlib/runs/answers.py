"""What tasks with fixed answers are answered by: which text is true of each question, which false.

Scores hold log-likelihoods and no texts. Whether a model merely says "yes" to everything can be
told only by someone who knows which response of each question is "yes".

    figures/<study>/answers/<task>-<seed>.parquet   a row a question

is stored where the questions themselves are not ours to hand on (`questions`): an answer that many
questions have in common gives none of them away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forgetlib.data import splits, tasks
from forgetlib.data.base import Example
from forgetlib.data.sources import DataMissing
from forgetlib.files import read_once, replacing
from forgetlib.runs import questions
from forgetlib.runs.grid import Study, open_store, stored_dir
from forgetlib.runs.store import Store

Answers = Mapping[str, tuple[str, str]]  # by uid: the true response and the distractor
Load = Callable[[str, int], Answers]  # (task, seed) -> the answers of its questions
FORMAT = "1"  # raise when a column changes its meaning
_SCHEMA = pa.schema([("uid", pa.string()), ("true", pa.string()), ("distractor", pa.string())])


def load_answers(study: Study, task: str, seed: int) -> Answers:
    """Return the answers to a study's questions of one task, for one of its seeds, by uid.

    task: of its tasks, or of those that models of other tasks are asked (`elsewhere`)

    Where they or the questions are stored, no data are needed; else the task's data are read.
    """
    path = _path(study, task, seed)
    if path.exists():
        known = _read(path)
        # A variation may ask more than its study, of which nothing is stored.
        if not study.named or _asked(study, open_store(study), [task])[task, seed] <= known.keys():
            return known
    # Of a task that is only asked elsewhere, or asked more there, no questions are stored.
    more = task in study.elsewhere and study.n_elsewhere > study.n_eval
    stored = questions.stored_questions(path.parents[1], task, seed)
    if more or task not in study.tasks or stored is None:
        whole = splits.split(task, seed)
        return of(whole.train + whole.test)
    # Beside what the study asks, as a variation may ask more, that by which layers are chosen.
    found = questions.load_questions(study, task, seed)
    return of(stored.train + stored.test + found.train + found.test)


def fixed(load: Load | None, task: str, seed: int) -> Answers | None:
    """Return the answers to a task's questions where they are fixed; None where they are free.

    load: as partial(load_answers, study); None: no task has fixed answers
    """
    if load is None or not tasks.get(task).has_fixed_answers:
        return None
    return load(task, seed)


def texts_of(answers: Answers | None, uids: Iterable[str]) -> np.ndarray | None:
    """List true response and distractor of these questions: (N, 2), as `metrics` takes them."""
    return None if answers is None else np.array([answers[uid] for uid in uids])


def stored_answers(folder: Path, task: str, seed: int) -> Answers | None:
    """Return a task's answers that are stored in a study's folder; None where none are."""
    path = questions.file_of(folder, "answers", task, seed)
    return _read(path) if path.exists() else None


def of(examples: Iterable[Example]) -> Answers:
    """Return the answers of questions, by uid."""
    return {e.uid: (e.choices[e.label], e.choices[1 - e.label]) for e in examples}


def keep_answers(study: Study, store: Store) -> list[Path]:
    """Store the fixed answers of a study's results that are not stored; return the new files.

    Of tasks that are asked elsewhere, too: AUROC there is blind to a bias only with them. Not of
    those whose questions are stored, which have them.
    """
    new = []
    fixed = [
        task
        for task in dict.fromkeys((*study.tasks, *study.elsewhere))
        if tasks.get(task).has_fixed_answers
        and not (task in study.tasks and questions.is_embedded(task))
    ]
    for (task, seed), wanted in sorted(_asked(study, store, fixed).items()):
        path = _path(study, task, seed)
        known = _read(path) if path.exists() else {}
        try:
            whole = splits.split(task, seed)
        except DataMissing:
            if wanted <= known.keys():
                continue  # as another machine stored them, which had the data
            raise
        there = of(whole.train + whole.test)
        # Those that the data have now: a label that was corrected has made its results anew.
        found = {**known, **{uid: there[uid] for uid in wanted if uid in there}}
        if found != known:
            _write(path, found)
            new.append(path)
    return new


def _asked(study: Study, store: Store, names: Iterable[str]) -> dict[tuple[str, int], set[str]]:
    """List the uids that stored scores of these tasks are of, by task and seed; else none."""
    found = questions.asked_of(study, store, names, elsewhere=True)
    return defaultdict(set, {key: set().union(*of.values()) for key, of in found.items()})


def _path(study: Study, task: str, seed: int) -> Path:
    return questions.file_of(stored_dir(study), "answers", task, seed)


def _write(path: Path, answers: Answers) -> None:
    rows = [{"uid": u, "true": t, "distractor": d} for u, (t, d) in sorted(answers.items())]
    schema = _SCHEMA.with_metadata({"forgetlib_answers": FORMAT})
    with replacing(path) as partial:
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)


@read_once
def _read(path: Path) -> Answers:
    """Read what `_write` wrote; StoreError where it is damaged."""
    with questions.opened(path, "answers", FORMAT) as file:
        rows = file.read(_SCHEMA.names).to_pylist()
        return {str(r["uid"]): (str(r["true"]), str(r["distractor"])) for r in rows}
