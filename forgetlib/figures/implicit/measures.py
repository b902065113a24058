"""Measure in-context regression: errors and differences of models, with intervals, and the gate.

The tables are those of `forgetlib.implicit.results.read`: "results", errors of every model, and
"shifts", the fitted shifts of log-odds (arXiv 2309.10105, section 2). No torch.

A seed has its own discrete set, weights, training and prompts. An interval is the wider of that
over prompts and that over seeds (`bootstrap`); what is resampled as prompts are the stored means
over equal parts of them.

Shapes: G seeds, B parts of the prompts, K columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forgetlib.errors import InputError
from forgetlib.figures.bootstrap import Measure, Resampled, Sample, Statistic, of_means, resample
from forgetlib.figures.intervals import N_RESAMPLES, Interval, mean_interval, require_columns
from forgetlib.figures.numbers import number
from forgetlib.implicit.evaluate import GATE, GATE_EXAMPLES, gate

DO = "Pass what forgetlib.implicit.results.read gives."
LEAST_SEEDS = 3  # with fewer nothing is claimed
SHOWN_EXAMPLES = (2, 5, 10)  # numbers of examples that pictures pick out, where they were asked


@dataclass(frozen=True)
class Of:
    """Name one mean error.

    model: "pre-trained", "fine-tuned", "discrete-only", or the closed forms "bayes", "ridge",
        "discrete"
    kind: of the prompts' vectors: "continuous" or "discrete"
    k: labelled examples
    gamma: scale of the labels
    quarter: 0 all prompts; 1 to 4 from the least to the most likely under the discrete set
    """

    model: str
    kind: str = "continuous"
    k: int = 5
    gamma: float = 1.0
    quarter: int = 0


class Errors:
    """Give mean errors of one mixture weight, and statistics of several, their intervals.

    table: "results"; alpha: the mixture weight; None: the only one there is

    Raises InputError for a table without rows of this alpha, or with several settings of a seed.
    """

    def __init__(
        self, table: pd.DataFrame, alpha: float | None = None, n_resamples: int = N_RESAMPLES
    ) -> None:
        wanted = ["seed", "alpha", "model", "kind", "k", "gamma", "quarter", "blocks"]
        require_columns("errors of in-context regression", table, wanted, DO)
        rows = of_alpha(table, alpha)
        keys = ["seed", "model", "kind", "k", "gamma", "quarter"]
        if rows.duplicated(keys).any():
            raise InputError(
                "errors of in-context regression",
                expected="each seed and mixture weight in one setting",
                found=", ".join(sorted(set(rows["key"]))) if "key" in rows else "rows twice",
                do="Take one setting: table[table['key'].isin([...])].",
            )
        self.table, self.n_resamples = rows, n_resamples
        self.seeds = tuple(sorted(set(rows["seed"])))
        at = rows[keys].itertuples(index=False, name=None)
        self._blocks = dict(zip(at, rows["blocks"], strict=True))

    @property
    def examples(self) -> tuple[int, ...]:
        """List the numbers of examples that were asked."""
        return tuple(sorted(set(self.table["k"])))

    @property
    def shown(self) -> tuple[int, ...]:
        """List those of SHOWN_EXAMPLES that were asked; the largest where none of them was."""
        return tuple(k for k in SHOWN_EXAMPLES if k in self.examples) or self.examples[-1:]

    @property
    def gammas(self) -> tuple[float, ...]:
        """List the scales of labels that were asked."""
        return tuple(sorted(set(self.table["gamma"])))

    def has(self, of: Of) -> bool:
        """Tell whether every seed has this error."""
        return all(self._key(seed, of) in self._blocks for seed in self.seeds)

    def of(self, of: Of) -> Interval:
        """Give a mean error its interval."""
        return self.interval(Measure(0), of)

    def interval(self, statistic: Statistic, *of: Of) -> Interval:
        """Give a statistic of mean errors, (..., K) -> (...), its interval over prompts and seeds.

        Differences are taken within seeds and within the same prompts. Raises InputError where a
        seed lacks one of the errors.
        """
        return self._resampled(of).interval(statistic)

    def share(self, above: Statistic, below: Statistic, *of: Of) -> Interval:
        """Divide one statistic by another; NaN all where the divisor's interval is not above 0."""
        return self._resampled(of).ratio(above, below)

    def _resampled(self, of: Sequence[Of]) -> Resampled:
        samples = [self._sample(seed, of) for seed in self.seeds]
        return resample(samples, n_resamples=self.n_resamples)

    def _sample(self, seed: int, of: Sequence[Of]) -> Sample:
        for one in of:
            if self._key(seed, one) not in self._blocks:
                raise InputError(
                    f"error of in-context regression, seed {seed}",
                    expected=str(one),
                    found=f"k up to {self.examples[-1]}, gamma of {self.gammas}",
                    do="Ask for what was computed, or compute another setting.",
                )
        values = np.stack([self._blocks[self._key(seed, one)] for one in of], 1)  # (B, K)
        return of_means([f"{seed}-{block}" for block in range(len(values))], values)

    @staticmethod
    def _key(seed: int, of: Of) -> tuple[object, ...]:
        return seed, of.model, of.kind, of.k, of.gamma, of.quarter


def of_alpha(table: pd.DataFrame, alpha: float | None) -> pd.DataFrame:
    """Take the rows of a mixture weight; None: the only one there is. InputError without any."""
    found = sorted(set(table["alpha"]))
    if alpha is None and len(found) == 1:
        return table
    rows = table[table["alpha"] == alpha]
    if rows.empty:
        raise InputError(
            "mixture weight of in-context regression",
            expected=f"one of {', '.join(map(str, found)) or 'none: the table is empty'}",
            found=alpha,
            do="Pass an alpha that was computed.",
        )
    return rows


def over_seeds(values: pd.Series) -> Interval:
    """Average a seed's values each, with Student's t interval; none of one seed."""
    return mean_interval(values.to_numpy(float), fewest=2)


@dataclass(frozen=True)
class Gate:
    """Say of which pre-trained models may be spoken.

    met: whether every seed's error is within 10 % of Bayes, at 5 and 10 examples of both kinds, or
        that of `LEAST_SEEDS` and more of one mixture weight
    said: a clause for titles
    left_out: the seeds whose models are not spoken of, though others are
    """

    met: bool
    said: str
    left_out: tuple[int, ...] = ()

    def within(self, table: pd.DataFrame) -> pd.DataFrame:
        """Take the rows of the seeds that are not left out."""
        return table[~table["seed"].isin(self.left_out)] if self.left_out else table


def judged(table: pd.DataFrame, alpha: float | None = None) -> Gate:
    """Judge pre-trained models by the gate, each seed by itself, and by nothing else.

    table: "results"; alpha: the mixture weight, None: all that there are
    """
    rows = table if alpha is None else of_alpha(table, alpha)
    if rows["k"].max() < max(GATE_EXAMPLES):
        asked = f"prompts have at most {rows['k'].max()} examples, the gate {max(GATE_EXAMPLES)}"
        return Gate(False, f"Gate not met, nothing is claimed ({asked})")
    found = gate(rows)
    worst = found.loc[found["ratio"].idxmax()]
    where = f"error {number(worst['ratio'])} times Bayes'"
    if found["met"].all():
        said = f"gate met: error at most {number(worst['ratio'])} times Bayes' in any seed"
        return Gate(True, said)
    of_seed = found.groupby("seed")["met"].all()
    out = of_seed.index[~of_seed]
    if len(set(found["alpha"])) == 1 and of_seed.sum() >= LEAST_SEEDS:
        worst = found[~found["seed"].isin(out)]["ratio"].max()
        others = f"{len(out)} other seed{'s do' if len(out) > 1 else ' does'} not meet it"
        said = f"gate met: error at most {number(worst)} times Bayes' in any of these; {others}"
        return Gate(True, said, tuple(map(int, out)))
    place = f"{where} for {worst['kind']} prompts of {worst['k']} examples"
    said = f"Gate not met, nothing is claimed ({place}; at most {GATE} is needed)"
    return Gate(False, said)


def title(said: str, of: Gate, n_seeds: int) -> str:
    """Write a picture's title: the finding; or first that the gate is not met."""
    seeds = f"{n_seeds} seed{'s' if n_seeds > 1 else ''}"
    if of.met:
        return f"{said} ({seeds}; {of.said})"
    return f"{of.said}. Seen here: {said[0].lower()}{said[1:]} ({seeds})"
