"""Show how often models continue a pattern where an instruction says otherwise, view by view.

After arXiv 2309.10105, section 3, with likelihoods in the place of greedy answers. The table is
that of `forgetlib.implicit.obey.obtain`, for a base model and one that was tuned to obey.

A sum of log-likelihoods favours the shorter of two answers, and views change their lengths: in Pig
Latin a blank has one token, the word that fills it three. So the answers are compared twice, as a
whole and per token, and nothing is claimed that only one of the two says.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.errors import InputError
from forgetlib.figures import intervals
from forgetlib.figures.bootstrap import (
    Measure,
    Resampled,
    Statistic,
    difference,
    of_means,
    resample,
)
from forgetlib.figures.implicit.claims import LEAST_SEEDS, SEVERAL
from forgetlib.figures.implicit.lines import framed, panel
from forgetlib.figures.intervals import N_RESAMPLES, UNDEFINED, as_columns, with_intervals
from forgetlib.figures.methods.ladders import of_view
from forgetlib.figures.names import listed
from forgetlib.figures.numbers import estimate_of, number
from forgetlib.figures.rows import mark
from forgetlib.figures.statements import ABOVE, RANK, Statement, row
from forgetlib.figures.style import (
    BLUE,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    style,
)
from forgetlib.runs.specs import PLAIN

ANSWERS = ("pattern", "instruction")
LENGTHS = tuple(f"{answer}_tokens" for answer in ANSWERS)
ASKED = ("model", "task", "view", "uid", *ANSWERS, *LENGTHS, "distance")
HALF = 0.5  # of the prompts: a base model that prefers the pattern in fewer shows none
MEASURES = ("base", "tuned", "drop", "back")
ALL = "all"  # inputs of every kind
WHOLE, PER_TOKEN = "whole answer", "per token"
SCORES = (WHOLE, PER_TOKEN)
# Whole answers were to decide, as stated before the first models were asked. That answers are to be
# compared per token as well was stated when these were seen to differ in length: post hoc.
STATED = "2026-11-30"
DROPS = Statement(ABOVE, 0.0, 0.2, stated=STATED)
COMES_BACK = Statement(ABOVE, 0.0, 0.1, stated=STATED)
FARTHER_BRINGS_MORE = Statement(ABOVE, 0.0, 0.7, of=RANK, stated=STATED)
CLAIM = {
    "claim": "tuning-hides-the-pattern",
    "says": "a model tuned to obey continues a pattern again where the form is far from the tuning",
    "figure": "arXiv 2309.10105, section 3",
}


def table(
    answers: pd.DataFrame,
    base: str = "base",
    tuned: str = "tuned",
    *,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """Measure the share of prompts on which each model prefers the pattern.

    answers: of `implicit.obey.obtain`, or of `implicit.pattern.ask`, which has one seed
    base, tuned: names of its two models

    A row for each view, kind of last input (ALL of them, then each) and score: by WHOLE answers,
    the one with the higher log-likelihood is preferred; PER_TOKEN, the one whose log-likelihood is
    the higher after each is divided by its number of tokens.

    Columns: view, inputs, score, n (prompts), n_seeds, distance (nats a token of the prompt, to the
    base model), pattern_tokens and instruction_tokens (mean lengths of the two answers), and with
    intervals over prompts and seeds, the same for both models: base and tuned, the shares; drop,
    base less tuned; back, the tuned model's share less its share as asked plainly: what the view
    brings back. (The drop as asked plainly less this one would be above 0 wherever the base model
    has less of the pattern to lose.) Without a plain view the last is undefined. A share on which
    all prompts agree has no interval. Raises InputError where models were asked different prompts.
    """
    do = "Pass what implicit.obey.obtain gives."
    intervals.require_columns("answers about patterns", answers, ASKED, do)
    if "seed" in answers:  # each has prompts of its own
        answers = answers.assign(uid=answers["seed"].astype(str) + "/" + answers["uid"])
    own, other = (answers[answer] for answer in ANSWERS)
    own_tokens, other_tokens = (answers[length] for length in LENGTHS)
    answers = answers.assign(
        **{
            "inputs": answers["task"].str.rpartition("-")[2],
            WHOLE: (own > other).astype(float),
            PER_TOKEN: (own / own_tokens > other / other_tokens).astype(float),
        }
    )
    rows = []
    for inputs in (ALL, *dict.fromkeys(answers["inputs"])):
        of = answers if inputs == ALL else answers[answers["inputs"] == inputs]
        for score in SCORES:
            seen = _shares(of, score, [base, tuned])
            for view, wide in seen.items():
                prompts = of[(of["view"] == view) & (of["model"] == base)]
                made = {"view": view, "inputs": inputs, "score": score, "n": len(wide)}
                made |= {"n_seeds": _seeds(wide).nunique()}
                made |= prompts[["distance", *LENGTHS]].mean().to_dict()
                rows.append(made | _measures(wide, seen.get(PLAIN), view, n_resamples))
    found = pd.DataFrame(rows)
    views = dict.fromkeys(answers["view"])
    return pd.concat([found[found["view"] == view] for view in views], ignore_index=True)


def _shares(of: pd.DataFrame, score: str, models: list[str]) -> dict[str, pd.DataFrame]:
    """Tell by view on which prompts each of two models prefers the pattern: (N, 2), 0 or 1."""
    seen: dict[str, pd.DataFrame] = {}
    for view in dict.fromkeys(of["view"]):
        wide = of[of["view"] == view].pivot_table(index="uid", columns="model", values=score)
        if not set(models) <= set(wide.columns) or wide[models].isna().any(axis=None):
            raise InputError(
                f"answers about patterns, view {view!r}",
                expected=f"the same prompts of {' and '.join(map(repr, models))}",
                found=f"models {listed(map(str, wide.columns))}, {len(wide)} prompts",
                do="Ask both models in one call of implicit.pattern.ask.",
            )
        seen[view] = wide[models]
    return seen


def _measures(
    wide: pd.DataFrame, plain: pd.DataFrame | None, view: str, n_resamples: int
) -> dict[str, float]:
    """Resample prompts of a view, (N, 2), and as asked plainly; return the columns of MEASURES."""
    both = wide if plain is None else wide.join(plain, rsuffix=" plain", how="inner")
    of_seeds = [of for _, of in both.groupby(_seeds(both).to_numpy())]
    samples = [of_means(list(of.index), of.to_numpy()) for of in of_seeds]
    found = resample(samples, n_resamples=n_resamples)
    made = as_columns("base", _interval(found, Measure(0)))
    made |= as_columns("tuned", _interval(found, Measure(1)))
    made |= as_columns("drop", _interval(found, difference(0, 1)))
    back = UNDEFINED
    if plain is not None and view != PLAIN:
        back = _interval(found, difference(1, 3))
    return made | as_columns("back", back)


def _interval(found: Resampled, statistic: Statistic) -> intervals.Interval:
    return intervals.with_width(found.interval(statistic))


def _seeds(wide: pd.DataFrame) -> pd.Series:
    """Read the seed off each prompt's name: "0/pattern_or_instruction/upper-blank/3"."""
    return pd.Series(wide.index).str.partition("/")[0]


def of_views(found: pd.DataFrame, score: str, inputs: str = ALL) -> pd.DataFrame:
    """Take a table's rows of one score and kind of inputs, with the view as their index."""
    own = found[(found["score"] == score) & (found["inputs"] == inputs)]
    return own.set_index("view", drop=False)


def above(found: pd.DataFrame, measure: str, threshold: float, score: str = "") -> pd.Series:
    """Tell by view whether a share is above a threshold, by its whole interval or on all prompts.

    found: from `table`; score: of SCORES; "": both have to say so
    """
    said = []
    for each in [score] if score else SCORES:
        of = of_views(found, each)
        said.append(of[f"{measure}_low"].fillna(of[measure]) > threshold)
    return pd.concat(said, axis=1).all(axis=1)


def counts(found: pd.DataFrame) -> pd.Series:
    """Tell by view whether it can show anything: the base model prefers the pattern there."""
    return above(found, "base", HALF)


def brought(found: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Name the views that bring some of the pattern back, and those by whole answers alone.

    found: from `table`; views in which the base model shows no pattern are among neither
    """
    back = counts(found) & above(found, "back", 0)
    alone = counts(found) & above(found, "back", 0, WHOLE) & ~back
    return list(back.index[back]), list(alone.index[alone])


def claims(found: pd.DataFrame) -> pd.DataFrame:
    """Judge that tuning costs the pattern, that each other view brings some back, the farther more.

    found: from `table`. The share per token is judged, and holds only where whole answers say the
    same. A view that makes even the base model obey brings nothing back: it counts where the base
    model prefers the pattern in over half of the prompts, by its whole interval and both scores.
    The last row is over the views that count: does more come back the farther their prompts are, in
    nats a token?

    Columns: claim, says, figure, and those of `statements.row`.
    """
    rows, count = [], counts(found)
    own = of_views(found, PER_TOKEN)
    for view, of in own.iterrows():
        plain = view == PLAIN
        measure, statement = ("drop", DROPS) if plain else ("back", COMES_BACK)
        lacks = ""
        if of["n_seeds"] < LEAST_SEEDS:
            lacks = SEVERAL
        elif not count[view]:
            lacks = "a base model that continues the pattern there, by whole answers and per token"
        elif of[f"{measure}_low"] > 0 and not above(found, measure, 0, WHOLE)[view]:
            lacks = "whole answers that say the same"
        elif _agree(of, measure):
            lacks = "prompts that do not all agree"
        said = "drop of the pattern by tuning, per token"
        if not plain:
            said = f"share after tuning in {form(view)}, less that as asked plainly, per token"
        value = intervals.of_row(of, measure)
        rows.append(row(said, statement, value, int(of["n_seeds"]), unit="seeds", lacks=lacks))
    views = own[own["back"].notna() & count]
    grows = intervals.rank_correlation(views["distance"].to_numpy(), views["back"].to_numpy())
    lacks = SEVERAL if len(views) and views["n_seeds"].min() < LEAST_SEEDS else ""
    said = "rank correlation of that share with nats a token of the prompts, over views"
    rows.append(row(said, FARTHER_BRINGS_MORE, grows, len(views), unit="views", lacks=lacks))
    judged = pd.concat(rows, ignore_index=True)
    return pd.DataFrame(CLAIM, index=judged.index).join(judged)


def form(view: str) -> str:
    """Name a view as people do: "leetspeak"; "as it is" for plain."""
    return "as it is" if view == PLAIN else of_view(view).name


def told(found: pd.DataFrame, view: str, measure: str, *, kinds: bool = False) -> str:
    """Write a measure of a view by both scores: "0.85 [0.79, 0.91] (per token 0.50 [0.44, 0.56])".

    Where all prompts agree, that is said in the place of an interval.

    found: from `table`
    kinds: add the value per token of each kind of inputs, where there are several
    """
    whole, token = (of_views(found, score).loc[view] for score in SCORES)
    inside = [f"on all of {whole['n']} prompts"] if _agree(whole, measure) else []
    said = f"per token {estimate_of(token, measure)}"
    said += f" on all of {token['n']}" if _agree(token, measure) else ""
    each = {of: of_views(found, PER_TOKEN, of) for of in _kinds(found)}
    if kinds and len(each) > 1:
        values = [f"{number(of[measure][view])} on {name}" for name, of in each.items()]
        said += f": {listed(values)} prompts"
    return f"{estimate_of(whole, measure)} ({'; '.join([*inside, said])})"


def _agree(of: pd.Series, measure: str) -> bool:
    """Tell whether a measure is the same on all prompts: it has no interval."""
    return bool(pd.notna(of[measure]) and pd.isna(of[f"{measure}_low"]))


def _kinds(found: pd.DataFrame) -> list[str]:
    return [inputs for inputs in dict.fromkeys(found["inputs"]) if inputs != ALL]


def shorter(found: pd.DataFrame, view: str) -> str:
    """Say how much shorter the pattern's answer is in a view; "" where it is not.

    found: from `table`
    """
    own, other = (of_views(found, WHOLE)[length][view] for length in LENGTHS)
    if not own < other:
        return ""
    return f"the pattern's answer is the shorter, {own:.1f} tokens on average against {other:.1f}"


def finding(found: pd.DataFrame) -> str:
    """Say in a sentence what tuning costs the pattern, and which views bring it back.

    found: from `table`
    """
    if PLAIN not in set(found["view"]):
        return "No prompts were asked as they are: there is nothing to compare views with"
    said = "With tuning the share of prompts whose likelier answer continues the pattern falls by "
    said += told(found, PLAIN, "drop")
    back, alone = brought(found)
    for view in back:
        said += f"; {form(view)} brings some of it back, {told(found, view, 'back', kinds=True)}"
    for view in alone:
        said += f"; {form(view)} does so by whole answers alone, {told(found, view, 'back')}"
    return said if back or alone else f"{said}; no view is shown to bring it back"


def draw(found: pd.DataFrame) -> Figure:
    """Draw the share of prompts on which the pattern is preferred, a panel a kind of inputs.

    found: from `table`
    """
    columns = ["view", "inputs", "score", "n", "n_seeds", "distance", *LENGTHS]
    require_columns(found, [*columns, *with_intervals(MEASURES)])
    n_seeds, kinds = int(found["n_seeds"].max()), _kinds(found)
    said = f"{finding(found)}; {found['n'].max()} prompts, {n_seeds} seed{'s' * (n_seeds > 1)}"
    order = of_views(found, WHOLE).sort_values("distance", ascending=False)
    y = pd.Series(np.arange(len(order), dtype=float), order.index)
    names = [
        readable(f"{form(view)} ({distance:.1f} nats)" if np.isfinite(distance) else form(view))
        for view, distance in order["distance"].items()
    ]
    with style([*names, *kinds], [said]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.9 + 0.38 * len(order)), layout="constrained")
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, inputs in zip(panels, kinds, strict=True):
            for measure, score, label, marker, colour, up in (
                ("base", WHOLE, "base model, whole answers", "o", BLUE, 0.27),
                ("base", PER_TOKEN, "base model, per token", "o", BLUE, 0.09),
                ("tuned", WHOLE, "tuned model, whole answers", "D", VERMILION, -0.09),
                ("tuned", PER_TOKEN, "tuned model, per token", "D", VERMILION, -0.27),
            ):
                of = of_views(found, score, inputs)
                at = y[of.index].to_numpy() + up
                draw_intervals(axes, of, measure, at, label, marker, colour, score == WHOLE)
            panel(axes, f"{readable(inputs)} prompts", "share that prefers the pattern")
            mark(axes, HALF)
            axes.set_xlim(-0.03, 1.03)
        panels[0].set_yticks(y, names, fontsize=SMALL)
        panels[0].set_ylim(-0.6, len(order) - 0.4)
        return framed(figure, said, 2)
