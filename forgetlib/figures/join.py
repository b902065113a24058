"""The runs that belong together: a task's base, fine-tuned and forgotten one, a seed each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from forgetlib.errors import InputError
from forgetlib.figures.intervals import require_columns
from forgetlib.forgetting.labels import Labels
from forgetlib.runs.records import Result
from forgetlib.runs.specs import Checkpoint

PHASES = ("base", "tuned", "forgotten")
Family = dict[str, Result]  # one seed's run of each phase


def by_checkpoint(results: Iterable[Result]) -> dict[tuple[str, int], Result]:
    """Join what was measured of each checkpoint with the questions of each seed."""
    found: dict[tuple[str, int], Result] = {}
    for result in results:
        key = result.checkpoint.id, result.seed
        if key in found:
            records = {r.key: r for r in (*found[key].records, *result.records)}
            result = replace(result, records=tuple(records.values()))
        found[key] = result
    return found


def families(results: Iterable[Result], kind: str) -> dict[tuple[str, str, int], list[Family]]:
    """Find the base, tuned and forgotten model of each (model, task, size), a dictionary a seed.

    They are found by the lineage of the checkpoints, all of whose methods have the one task. Of
    several that were taught again from different questions (`Data.skip`) the first is taken. Raises
    InputError where those of one model, task and size differ in more than the seed, as their
    average would mean nothing, and where the three did not measure the same test examples.

    kind: what was done after fine-tuning, as `Checkpoint.kind` says it: "random", "flipped", "true"
        or another method; "random > true" for a forgotten model that was trained again
    """
    by_id = by_checkpoint(results)
    found: dict[tuple[str, str, int], list[Family]] = {}
    for (_, seed), result in sorted(by_id.items(), key=lambda of: _skip(of[1].checkpoint)):
        checkpoint, task = result.checkpoint, result.checkpoint.task
        if not _is_own(checkpoint) or kind_after(checkpoint) != kind:
            continue
        tuned = by_id.get((checkpoint.lineage[0].id, seed))
        base = by_id.get((checkpoint.base.id, seed))
        if base is None or tuned is None:
            continue  # the study is not complete: results.load_results says so
        phases = zip(PHASES, (base, tuned, result), strict=True)
        runs = {phase: of_phase.of(task) for phase, of_phase in phases}
        if not all(f"{task}/test" in r.scores for r in runs.values()):
            continue
        check_same_examples(checkpoint, f"{task}/test", runs.values())
        seeds = found.setdefault((checkpoint.model, task, checkpoint.n), [])
        if any(_but_skip(s["forgotten"].checkpoint) == _but_skip(checkpoint) for s in seeds):
            continue
        if seeds and but_seed(seeds[0]["forgotten"].checkpoint) != but_seed(checkpoint):
            raise InputError(
                f"runs of {checkpoint.model} on {task}",
                expected="settings that differ in the seed and in the forgetting set's size only",
                found=f"{but_seed(seeds[0]['forgotten'].checkpoint)} and {but_seed(checkpoint)}",
                do="Pass the results of one study.",
            )
        seeds.append(runs)
    return found


def kind_after(checkpoint: Checkpoint) -> str:
    """Say what was done after fine-tuning: "random"; of several steps "random > true"."""
    return " > ".join(c.kind for c in checkpoint.lineage[1:])


def _is_own(checkpoint: Checkpoint) -> bool:
    """Tell whether one task was fine-tuned on and made to be forgotten."""
    own = {c.tasks for c in checkpoint.lineage if c.tasks}
    return len(own) == 1 and len(checkpoint.tasks) == 1


def check_same_examples(checkpoint: Checkpoint, test: str, runs: Iterable[Result]) -> None:
    """Raise InputError where the runs did not measure the same examples of a data set."""
    if len({run.scores[test].uids for run in runs}) != 1:
        expected = "the same test examples before and after"
        raise other_data(f"runs of {checkpoint}", expected, "different ones")


def check_same_training(true: Checkpoint, random: Checkpoint) -> None:
    """Raise InputError where a run and its control differ in more than their labels."""

    def trained(checkpoint: Checkpoint) -> Checkpoint:
        method = checkpoint.method
        if isinstance(method, Labels):
            method = replace(method, labels="random")
        return replace(checkpoint, method=method)

    if trained(true) != trained(random):
        raise InputError(
            f"control of {random}",
            expected="the same training, but for the labels",
            found=f"{trained(true)!r} and {trained(random)!r}",
            do="Pass the results of one study.",
        )


def other_data(what: str, expected: str, found: str) -> InputError:
    """Make the error of results that do not fit each other, or the data that there are now."""
    do = "They were made by different versions of the data: recompute the study."
    return InputError(what, expected=expected, found=found, do=do)


def but_seed(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with every seed of its lineage 0, to compare all else."""
    return replace(
        checkpoint,
        start=checkpoint.start and but_seed(checkpoint.start),
        data=checkpoint.data and replace(checkpoint.data, seed=0),
        seed=0,
    )


def _skip(checkpoint: Checkpoint) -> int:
    return checkpoint.data.skip if checkpoint.data else 0


def _but_skip(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, data=checkpoint.data and replace(checkpoint.data, skip=0))


def full_size(results: Iterable[Result]) -> list[tuple[str, str, list[Family]]]:
    """List (model, task, seeds) where the forgetting set is the whole training set, in order."""
    return [
        (model, task, seeds)
        for (model, task, size), seeds in sorted(families(results, "random").items())
        if size == seeds[0]["tuned"].checkpoint.n
    ]


def given(table: pd.DataFrame | None, key: Sequence[str], *others: str) -> pd.DataFrame | None:
    """Return the table with these columns, None where it is empty; a key may be there once."""
    if table is None or table.empty:
        return None
    do = "Pass the table that the claim's docstring names."
    require_columns("table of a claim", table, [*key, *others], do)
    if table.duplicated(key).any():
        twice = table.loc[table.duplicated(key), key].iloc[0].to_dict()
        raise InputError(
            "table of a claim",
            expected=f"one row a {' and '.join(key)}",
            found=f"several for {twice}",
            do="Pass the rows of one model, of one study.",
        )
    return table
