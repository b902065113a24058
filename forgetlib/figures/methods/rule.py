"""Try the verdicts' rule on models whose truth is known: how often does it name the truth?

The models are put together out of a study's own, rung by rung, so that their scores, their noise
and the number of seeds are real:

    kept         the known model
    shifted      the known model with so large a bias that it gives one answer to everything
    inverted     the known model with the two answers exchanged
    gated        a never-taught model, asked directly; in other forms, with examples and with
                 rounded weights, the known one
    suppressed   a never-taught model, but for a few labels: taught again from these, the known
    removed      a never-taught model
    damaged      a never-taught model, with nats a token of other tasks raised by twice `DAMAGE`

What stands in for the forgotten model is taken out of the pool of never-taught ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from forgetlib.errors import InputError
from forgetlib.figures.intervals import N_RESAMPLES
from forgetlib.figures.methods.rungs import TWIN, Ladder, Model, Seed, Shared, exchanged
from forgetlib.figures.names import listed, title
from forgetlib.figures.verdicts import (
    DAMAGE,
    DAMAGED,
    GATED,
    INVERTED,
    KEPT,
    NOT_DECIDED,
    NOTHING,
    REMOVED,
    SHIFTED,
    SUPPRESSED,
)
from forgetlib.measuring.base import Scores
from forgetlib.runs.ladder import FORGOTTEN, KNOWN, MOVED, ORACLE

TRUTHS = (KEPT, SHIFTED, INVERTED, GATED, SUPPRESSED, REMOVED, DAMAGED)
TRIED_ALONE = 3  # never-taught models that are tried one by one, of each skill


def table(
    ladders: Mapping[tuple[str, str], Ladder],
    *,
    most: int = TRIED_ALONE,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Judge models of known truth: a row each, with eval_task, truth, case and verdict.

    ladders: by skill and method; of a skill the first counts, as known and never-taught models are
        the same for all methods. Skills that were not shown to be known, whose never-taught models
        know them too, or that have fewer than two of these in some seed, are left out
    most: never-taught models of a skill that stand in for the forgotten one, one by one
    """
    rows = []
    for task in dict.fromkeys(task for task, _ in ladders):
        ladder = next(found for (of, _), found in ladders.items() if of == task)
        if _n_pool(ladder) < 2 or not ladder.oracle_is_null or ladder.verdict() == NOTHING:
            continue
        shared: Shared = {}
        for truth, case, seeds in cases(ladder, most):
            verdict = Ladder(seeds, ladder.rungs, n_resamples, shared).verdict()
            rows.append({"eval_task": task, "truth": truth, "case": case, "verdict": verdict})
    return pd.DataFrame(rows, columns=["eval_task", "truth", "case", "verdict"])


def finding(found: pd.DataFrame) -> str:
    """Say in a sentence how often the rule names the truth, and what it says where it does not.

    found: from `rule.table`
    """
    if found.empty:
        return "No skill was shown to be known, and has never-taught models enough to try the rule"
    right = found["verdict"] == found["truth"]
    open_ = found["verdict"] == NOT_DECIDED
    wrong = found[~right & ~open_]
    said = (
        f"the rule names the truth of {right.sum()} of {len(found)} models made of those of "
        f"{listed(title(task) for task in dict.fromkeys(found['eval_task']))}, leaves "
        f"{open_.sum()} open, and is wrong in {len(wrong)}"
    )
    if len(wrong):
        pairs = wrong.groupby(["truth", "verdict"], sort=False).size()
        said += f" ({listed(f'{t} called {v}: {n}' for (t, v), n in pairs.items())})"
    return said[:1].upper() + said[1:]


def matrix(found: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts of each truth: a row a truth, a column a verdict that was given."""
    truths = [t for t in TRUTHS if (found["truth"] == t).any()]
    given = [v for v in (*TRUTHS, NOT_DECIDED) if (found["verdict"] == v).any()]
    given += sorted(set(found["verdict"]) - set(given))
    counts = pd.crosstab(found["truth"], found["verdict"]).reindex(truths, columns=given)
    return counts.rename_axis(columns=None).reset_index()


def cases(ladder: Ladder, most: int = TRIED_ALONE) -> Iterator[tuple[str, int, list[Seed]]]:
    """List models of known truth that a ladder's own make up: truth, number and their seeds."""
    pools = [seed.models.get(ORACLE, ()) for seed in ladder.seeds]
    n_pool = _n_pool(ladder)
    if n_pool < 2:
        raise InputError(
            "models of known truth",
            expected="two never-taught models or more in every seed",
            found=n_pool,
            do="Compute the section `oracles` of the study.",
        )
    kinds = {rung.name: rung.kind for rung in ladder.rungs}
    fewest = min((r.labels for r in ladder.rungs if r.kind == "relearned"), default=None)
    few = {r.name for r in ladder.rungs if r.kind == "relearned" and r.labels == fewest}
    asked = {name for name, kind in kinds.items() if kind in ("form", "context", "quantised")}

    def of_known(change: Callable[[Model, Seed], Model]) -> list[Seed]:
        return [_with(seed, change(seed.models[KNOWN][0], seed)) for seed in ladder.seeds]

    def of_never(i: int, shown: set[str], harm: float = 0.0) -> list[Seed]:
        found = []
        for seed, pool in zip(ladder.seeds, pools, strict=True):
            known = seed.models[KNOWN][0]
            rungs = {
                name: (known if name in shown else pool[i]).rungs.get(name, ()) for name in kinds
            }
            elsewhere = tuple(_harmed(scores, harm) for scores in known.elsewhere)
            own = Model({n: s for n, s in rungs.items() if s}, elsewhere)
            found.append(_with(seed, own, pool[:i] + pool[i + 1 :]))
        return found

    yield KEPT, 0, of_known(lambda model, _: model)
    if all(len(_answers(seed)) == 2 for seed in ladder.seeds):  # else a bias is no single shift
        for side in (0, 1):
            yield SHIFTED, side, of_known(partial(_biased, side=side))
    yield INVERTED, 0, of_known(lambda model, _: _changed(model, exchanged))
    for i in range(min(n_pool, most)):
        yield GATED, i, of_never(i, asked)
        if few:
            yield SUPPRESSED, i, of_never(i, few)
        yield REMOVED, i, of_never(i, set())
        if all(seed.models[KNOWN][0].elsewhere for seed in ladder.seeds):
            yield DAMAGED, i, of_never(i, set(), 2 * DAMAGE)


def _n_pool(ladder: Ladder) -> int:
    return min(len(seed.models.get(ORACLE, ())) for seed in ladder.seeds)


def _answers(seed: Seed) -> list[str]:
    """List the different true answers, where answers are fixed."""
    return sorted({true for true, _ in (seed.answers or {}).values()})


def _with(seed: Seed, forgotten: Model, pool: Sequence[Model] | None = None) -> Seed:
    """Put a model in the place of the forgotten one; nothing else changed the known model.

    No method made it: any never-taught model is its twin.
    """
    never = tuple(seed.models[ORACLE] if pool is None else pool)
    known = seed.models[KNOWN]
    models = {KNOWN: known, FORGOTTEN: (forgotten,), ORACLE: never, TWIN: never[-1:], MOVED: known}
    return replace(seed, models=models, at_dose=None)


def _changed(model: Model, change: Callable[[Scores], Scores]) -> Model:
    """Change what a model says on every rung."""
    rungs = {name: tuple(map(change, draws)) for name, draws in model.rungs.items()}
    return Model(rungs, model.elsewhere)


def _biased(model: Model, seed: Seed, side: int) -> Model:
    """Raise one answer, the first or the second in the alphabet, above all that the model knows."""
    answers, favoured = seed.answers or {}, _answers(seed)[side]

    def change(scores: Scores) -> Scores:
        values = scores.log_likelihoods.copy()
        bias = 2 * np.abs(values[:, 0] - values[:, 1]).max() + 1
        is_true = np.array([answers[uid][0] == favoured for uid in scores.uids])
        place = np.where(is_true, scores.labels, 1 - scores.labels)
        # The other is lowered: a log-likelihood is never above 0.
        values[np.arange(len(values)), 1 - place] -= bias
        return replace(scores, log_likelihoods=values)

    return _changed(model, change)


def _harmed(scores: Scores, nats: float) -> Scores:
    """Lower every response by so many nats a token."""
    return replace(
        scores,
        log_likelihoods=(scores.log_likelihoods - nats * scores.n_tokens).astype(np.float32),
    )
