"""Compute stored runs again, from nothing, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forgetlib.data import tasks
from forgetlib.errors import InputError, in_a_line, require, require_whole
from forgetlib.files import StoreError, replacing
from forgetlib.measuring.base import Scores
from forgetlib.metrics import correct, predictions
from forgetlib.runs import content
from forgetlib.runs.bench import Bench
from forgetlib.runs.grid import Study, figures_dir, open_store
from forgetlib.runs.jobs import run
from forgetlib.runs.processes import writes
from forgetlib.runs.provenance import on_cpu
from forgetlib.runs.records import Job, Record

if TYPE_CHECKING:
    import pandas as pd

# Between processors bf16 rounds in another order, and training carries that on, most where all
# questions have the same two answers: the same run of MRPC ended at 0.66 and at 0.42, one of BoolQ
# on true labels at 0.36 and at 0.55.
SAME_LOG_LIKELIHOODS = 0.3
SAME_ACCURACY = {"text": 0.15, "verbaliser": 0.4}  # by the task's answer format


def verify(study: Study, n_jobs: int, seed: int = 0) -> pd.DataFrame:
    """Compute some of the stored jobs again, from nothing, and compare: a row a job and data set.

    On the kind of CPU and by the versions that a result came from, its scores are the same to the
    last bit. Elsewhere, and on a GPU, where sums are in no fixed order, an accuracy differs by at
    most `SAME_ACCURACY`, and the log-likelihoods of a pre-trained model by `SAME_LOG_LIKELIHOODS`
    nats on average. A model or questions that have changed since are found out.

    Each job's rows, but for `ok`, are added to figures/<study>/check.csv as it ends, in place of
    what an earlier check of it on such a machine found.

    n_jobs, seed: how many jobs, drawn at random
    Columns: checkpoint_id, checkpoint (in words), data, machine and machine_again (the CPU or GPU,
    and the number of threads), commit_again, same_origin (whether the scores have to be the same),
    same_data and same_model (whether the questions are, and the pre-trained model), n, stored and
    again (accuracies), equal_predictions (share), difference (mean absolute, of log-likelihoods,
    nats), ok.
    """
    import numpy as np
    import pandas as pd

    store = open_store(study, any_content=True)
    stored = [job for job in study.jobs() if store.has(job)]
    require_whole("seed of the check", seed)
    require(f"check of study {study.name!r}", n_jobs, int, "a whole number of jobs")
    if not stored:
        raise InputError(
            f"check of study {study.name!r}",
            expected="stored jobs, to compute some of them again",
            found="none",
            do=f"Compute it first: forgetlib run {study.name}.",
        )
    if n_jobs not in range(1, len(stored) + 1):
        raise InputError(
            f"check of study {study.name!r}",
            expected=f"from 1 to {len(stored)} jobs, as many as are stored",
            found=repr(n_jobs),
            do="Correct the number.",
        )
    picked = np.random.default_rng(seed).choice(len(stored), n_jobs, replace=False)
    path = figures_dir(study) / "check.csv"
    _known_checks(path)  # what is wrong with it is said before hours of work
    bench, tables = Bench(), []
    for job in (stored[i] for i in sorted(picked)):
        scored = job.only(m for m in job.measurements if m.readout == "scores")
        tables.append(_compared(scored, store.result(scored).records, run(scored, bench)))
        if not writes():
            continue
        with store.lock("check", timeout=-1), replacing(path) as partial:
            known = pd.concat([*_known_checks(path), tables[-1].drop(columns="ok")])
            known = known.drop_duplicates(["checkpoint_id", "data", "machine_again"], keep="last")
            known.sort_values(["machine_again", "checkpoint", "checkpoint_id", "data"]).to_csv(
                partial, index=False, float_format="%.6g"
            )
    return pd.concat(tables, ignore_index=True)


def _known_checks(path: Path) -> list[pd.DataFrame]:
    """Read the table of earlier checks, if there were any."""
    import pandas as pd

    if not path.exists():
        return []
    try:
        # As texts, since a hash can look like a number.
        known = pd.read_csv(path, dtype={"checkpoint_id": str, "commit_again": str})
        known[["checkpoint_id", "checkpoint", "data", "machine_again", "commit_again"]]  # KeyError
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"table of earlier checks {path}",
            expected="the table that a check writes",
            found=in_a_line(error),
            do="Restore it from git, or delete it to begin a new one.",
        ) from error
    return [known]


def _compared(job: Job, old: Sequence[Record], new: Sequence[Record]) -> pd.DataFrame:
    """Make the rows of `verify` for one job."""
    import numpy as np
    import pandas as pd

    apart_from = ("seconds", "date", "content", "device_type", "data", "sets")
    again_of = {record.measurement: record for record in new}
    rows = []
    for record in old:
        again = again_of[record.measurement]
        was, now = record.provenance, again.provenance
        then_scores, scores = record.value, again.value
        assert isinstance(then_scores, Scores)
        assert isinstance(scores, Scores)
        then, found = was.get("content"), now["content"]
        same_data = set(then_scores.uids) == set(scores.uids)
        same_model = True
        if then:
            where = record.measurement.where
            same_data &= then["questions"].get(where) == found["questions"].get(where)
            same_model = not content.differ(then["model"], found["model"])
        same_data &= np.array_equal(then_scores.labels, scores.labels)
        if was.get("sets", now["sets"]) == now["sets"]:  # else the hashes are of other sets
            same_data &= was.get("data", now["data"]) == now["data"]
        same_origin = (
            {k: v for k, v in was.items() if k not in apart_from}
            == {k: v for k, v in now.items() if k not in apart_from}
            and not was["commit"].endswith("+")
            and same_data
            and same_model
            and on_cpu(was)
            and on_cpu(now)
        )
        apart = np.abs(then_scores.log_likelihoods - scores.log_likelihoods)
        accuracies = correct(then_scores).mean(), correct(scores).mean()
        if same_origin:
            ok = not apart.any()
        else:
            answers = tasks.get(record.measurement.task).answer_format
            ok = abs(accuracies[0] - accuracies[1]) <= SAME_ACCURACY[answers] and (
                job.checkpoint.method is not None or apart.mean() <= SAME_LOG_LIKELIHOODS
            )
        rows.append(
            {
                "checkpoint_id": job.checkpoint.id,
                "checkpoint": str(job),
                "data": record.measurement.where,
                "machine": f"{was['device']}, threads: {was['threads']}",
                "machine_again": f"{now['device']}, threads: {now['threads']}",
                "commit_again": now["commit"],
                "same_origin": same_origin,
                "same_data": same_data,
                "same_model": same_model,
                "n": len(then_scores),
                "stored": accuracies[0],
                "again": accuracies[1],
                "equal_predictions": (predictions(then_scores) == predictions(scores)).mean(),
                "difference": apart.mean(),
                "ok": bool(ok) and same_data and same_model,
            }
        )
    return pd.DataFrame(rows)
