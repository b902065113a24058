"""From scores to numbers: predictions, confidence, AUROC, forget gap and forget ratio.

Functions of arrays, with their shapes stated: no files, no models, no intervals. Where a function
takes weights, they are (R, N): how often each question counts in each of R resamples.

Shapes: N examples, C = 2 choices, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from forgetlib.errors import InputError

if TYPE_CHECKING:
    from forgetlib.measuring.base import Scores

CHANCE = 0.5  # accuracy of guessing between one true response and one distractor
Numbers = float | np.ndarray


def predictions(scores: Scores) -> np.ndarray:
    """Pick the likelier choice: (N,) indices; the first of equal ones, as in the harness."""
    return scores.log_likelihoods.argmax(1)


def correct(scores: Scores) -> np.ndarray:
    """Tell whether the likelier choice is the true response: (N,) booleans."""
    return predictions(scores) == scores.labels


def choice_probs(scores: Scores) -> np.ndarray:
    """Compute (N, C) probabilities of each choice relative to the others, by softmax."""
    shifted = scores.log_likelihoods.astype(np.float64)
    shifted = np.exp(shifted - shifted.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def confidence(scores: Scores) -> np.ndarray:
    """Compute (N,) p(true) / (p(true) + p(distractor)) (paper, section 5)."""
    return choice_probs(scores)[np.arange(len(scores)), scores.labels]


def margins(scores: Scores, *, a_token: bool = False) -> np.ndarray:
    """Compute (N,) log p(true response) - log p(distractor), in nats.

    a_token: divide each log-likelihood by its response's number of tokens first
    """
    values = scores.log_likelihoods.astype(np.float64)
    if a_token:
        values = values / scores.n_tokens
    rows = np.arange(len(scores))
    return values[rows, scores.labels] - values[rows, 1 - scores.labels]


def lens_margins(log_likelihoods: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute (P, N) log p(true response) - log p(distractor) at each of P layers, in nats.

    log_likelihoods: (P, N, 2) of a logit lens
    labels: (N,) index of the true response, as scores of the same questions have them
    """
    values = np.asarray(log_likelihoods, np.float64)
    rows = np.arange(len(labels))
    return values[:, rows, labels] - values[:, rows, 1 - np.asarray(labels)]


def best_layer(margins: np.ndarray, answers: np.ndarray | None = None) -> int:
    """Pick the layer that best tells true responses from false ones; of equal ones the last.

    By `auroc`, so that a bias towards an answer does not hide what a layer knows. Pick it on
    training questions and read it on test questions: the best of many layers is above chance by
    accident. Models that are compared are read at one layer, picked once.

    margins: (P, N) of `lens_margins`
    answers: (N, 2) true response and distractor of each question; None: not fixed (see `auroc`)
    """
    areas = np.array([auroc(of_layer, answers) for of_layer in margins], np.float64)
    if not len(areas) or np.isnan(areas).any():
        raise InputError(
            "margins of layers",
            expected="at least one layer, and two questions that can be compared",
            found=f"shape {np.shape(margins)}",
            do="Take more training questions.",
        )
    return len(areas) - 1 - int(areas[::-1].argmax())


def correct_a_token(scores: Scores) -> np.ndarray:
    """Tell whether the true response has the higher likelihood a token: (N,) booleans.

    Summed log-likelihoods favour short responses; the harness reports such an accuracy beside the
    plain one, too.
    """
    return margins(scores, a_token=True) > 0


def nll_a_token(scores: Scores) -> np.ndarray:
    """Compute (N,) nats a token of the true response: how well a model still predicts text."""
    rows = np.arange(len(scores))
    values = scores.log_likelihoods[rows, scores.labels].astype(np.float64)
    return -values / scores.n_tokens[rows, scores.labels]


def auroc(margin: np.ndarray, answers: np.ndarray | None = None, weights: Numbers = 1.0) -> Numbers:
    """Compute how well true responses are told from false ones, blind to a bias: (R,) or a number.

    The chance that m_i + m_j > 0, over pairs of questions i and j. With fixed answers (yes or no)
    the pairs are those with opposite true answers, and this is the area under the ROC curve of
    log p(yes) - log p(no): adding a constant to every "yes" leaves it as it is. Without fixed
    answers there is no constant to add, and the pairs are all those of two questions: the chance
    that the mean margin of two questions is positive. Equal to 0.5 for a model that knows nothing,
    above where it is right, below where it is wrong. NaN where there is no pair.

    margin: (N,) of `margins`
    answers: (N, 2) true response and distractor of each question, as texts; None: not fixed
    weights: (R, N) or (N,) counts of the questions; a question makes no pair with itself
    """
    margin = np.asarray(margin, np.float64)
    counts = np.broadcast_to(weights, (*np.shape(weights)[:-1], len(margin)))
    rows = np.atleast_2d(counts)
    pairs = [_ranked(margin, one, other) for one, other in _opposites(len(margin), answers)]
    wins, total = np.zeros((2, len(rows)))
    for block in _blocks(len(rows)):
        of_each = np.array(rows[block].T, float, order="C")  # (N, resamples of the block)
        for one, order, ends in pairs:
            # A question wins against the others' weights above minus its margin, ties by half.
            own, summed = of_each[one], np.zeros((len(order) + 1, of_each.shape[1]))
            of_each[order].cumsum(0, out=summed[1:])
            lost = sum(np.einsum("nr,nr->r", own, summed[end]) for end in ends) / len(ends)
            found = own.sum(0) * summed[-1]
            wins[block] += found - lost
            total[block] += found
        if answers is None:
            squares = of_each**2
            wins[block] -= (np.sign(margin) + 1) / 2 @ squares
            total[block] -= squares.sum(0)
    found = np.divide(wins, total, out=np.full_like(wins, np.nan), where=total > 0)
    return found.reshape(counts.shape[:-1])[()]


def _blocks(n: int) -> Iterator[slice]:
    """Divide resamples into blocks that stay in a processor's cache, which is twice as fast."""
    return (slice(start, start + 250) for start in range(0, n, 250))


_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def _ranked(
    margin: np.ndarray, one: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Put the other side of a kind of pair in order, and tell which of it each question loses to.

    Up to which place it loses to them: with and without those that it ties with. Once where it
    ties with none.
    """
    order = other[np.argsort(margin[other])]
    below, up_to = (np.searchsorted(margin[order], -margin[one], side) for side in _SIDES)
    return one, order, [below] if np.array_equal(below, up_to) else [below, up_to]


def _opposites(n: int, answers: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """List the two sides of each kind of pair, as indices: all, or those with opposite truths."""
    if answers is None:
        return [(np.arange(n), np.arange(n))]
    found: dict[tuple[str, str], list[int]] = {}
    for i, (true, distractor) in enumerate(np.asarray(answers, str).tolist()):
        found.setdefault((true, distractor), []).append(i)
    sides = ((of, found.get((b, a), [])) for (a, b), of in found.items() if a < b)
    return [(np.array(one), np.array(other)) for one, other in sides if other]


def matched_accuracy(margin: np.ndarray, answers: np.ndarray, weights: Numbers = 1.0) -> Numbers:
    """Compute the accuracy with fixed answers had the model given each as often as it is true.

    Of the questions between two answers, those with the highest log p(first) - log p(second) are
    taken to be answered by the first, as many as have it as their true answer. What a constant bias
    costs is thereby given back. Equal differences share what is left to give. (R,) or a number.

    margin, answers, weights: as `auroc` takes them
    """
    ordered = np.sort(np.asarray(answers, str), axis=1)
    first_is_true = np.asarray(answers, str)[:, 0] == ordered[:, 0]
    difference = np.where(first_is_true, margin, -margin)
    counts = np.broadcast_to(weights, (*np.shape(weights)[:-1], len(margin)))
    rows = np.atleast_2d(counts)
    levels = []  # of each two answers: their questions, the highest first, and where a level begins
    for between in np.unique(ordered, axis=0):
        own = np.flatnonzero((ordered == between).all(1))
        own = own[np.argsort(-difference[own])]
        levels.append((own, np.unique(-difference[own], return_index=True)[1]))
    right = np.zeros(len(rows))
    for block in _blocks(len(rows)):
        of_each = rows[block].astype(float)
        for own, starts in levels:
            all_of = np.add.reduceat(of_each[:, own], starts, axis=1)
            true_of = np.add.reduceat(of_each[:, own] * first_is_true[own], starts, axis=1)
            left = true_of.sum(1, keepdims=True) - (all_of.cumsum(1) - all_of)
            given = left.clip(0, all_of)  # answered by the first, of each level
            share = np.divide(given, all_of, out=np.zeros_like(given), where=all_of > 0)
            right[block] += (true_of * share + (all_of - true_of) * (1 - share)).sum(1)
    return (right / rows.sum(1)).reshape(counts.shape[:-1])[()]


def commonest_share(given: np.ndarray, weights: Numbers = 1.0) -> Numbers:
    """Compute the share of the commonest of (N,) answers: 1 where one is given to everything."""
    counts = np.broadcast_to(weights, (*np.shape(weights)[:-1], len(given)))
    each = np.asarray(given)[:, None] == np.unique(given)
    return ((counts @ each).max(-1) / counts.sum(-1))[()]


def forget_gap(forget_accuracy: Numbers) -> Numbers:
    """Forget accuracy above chance: 0 is fully forgotten (paper, Fig. 2). Any shape."""
    _require_shares(forget_accuracy)
    return forget_accuracy - CHANCE


def forget_ratio(tuned: Numbers, forgotten: Numbers, floor: Numbers = CHANCE) -> Numbers:
    """Compute what share of the fine-tuned accuracy above `floor` was lost (paper, Fig. 3).

    (tuned - forgotten) / (tuned - floor): 1 is fully forgotten, 0 nothing. Not-a-number where the
    model was not above the floor to begin with, because there was nothing to lose. Any shape.
    """
    _require_shares(tuned, forgotten, floor)
    above = np.subtract(tuned, floor)
    defined = np.where(above > 0, above, np.nan)
    return (np.subtract(tuned, forgotten) / defined)[()]


def _require_shares(*accuracies: Numbers) -> None:
    for values in accuracies:
        outside = (np.less(values, -1e-9) | np.greater(values, 1 + 1e-9)).ravel()
        if outside.any():
            raise InputError(
                "accuracies",
                expected="shares, from 0 to 1",
                found=f"{np.ravel(values)[outside][0]:g}",
                do="Divide percentages by 100.",
            )


def flipped_forget_ratio(tuned: Numbers, forgotten: Numbers) -> Numbers:
    """Compute the ratio for flipped labels, whose full effect is 1 - tuned (paper, Fig. 8)."""
    return forget_ratio(tuned, forgotten, floor=np.subtract(1, tuned))


def ratio_of(kind: str) -> Callable[[Numbers, Numbers], Numbers]:
    """Return the forget ratio that belongs to what made a model forget (`Checkpoint.kind`).

    Flipped labels have their own; of all else the full effect is chance.
    """
    return flipped_forget_ratio if kind == "flipped" else forget_ratio
