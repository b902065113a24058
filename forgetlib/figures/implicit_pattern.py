"""Show how often models continue a pattern where an instruction says otherwise, view by view.

After arXiv 2309.10105, section 3, with likelihoods in the place of greedy answers. The table is
that of `forgetlib.implicit.obey.obtain`, for a base model and one that was tuned to obey.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from forgetlib.errors import InputError
from forgetlib.figures import intervals
from forgetlib.figures.bootstrap import Resampled, of_means, resample
from forgetlib.figures.implicit_claims import LEAST_SEEDS, SEVERAL
from forgetlib.figures.implicit_lines import framed
from forgetlib.figures.intervals import N_RESAMPLES, UNDEFINED, as_columns, with_intervals
from forgetlib.figures.ladders import FORMS
from forgetlib.figures.names import listed
from forgetlib.figures.numbers import estimate_of
from forgetlib.figures.rows import mark
from forgetlib.figures.statements import ABOVE, RANK, Statement, row
from forgetlib.figures.style import (
    BLACK,
    BLUE,
    GREY,
    SMALL,
    TEXT_WIDTH,
    VERMILION,
    draw_intervals,
    readable,
    require_columns,
    style,
)
from forgetlib.runs.specs import PLAIN

ASKED = ("model", "task", "view", "uid", "pattern", "instruction", "distance")
HALF = 0.5  # of the prompts: a base model that prefers the pattern in fewer shows none
MEASURES = ("base", "tuned", "drop", "back")
DROPS = Statement(ABOVE, 0.0, 0.2, stated="2026-11-28")
COMES_BACK = Statement(ABOVE, 0.0, 0.1, stated="2026-11-28")
# Stated after the first models were asked: post hoc for these.
FARTHER_BRINGS_MORE = Statement(ABOVE, 0.0, 0.7, of=RANK, stated="2026-11-29")
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
    """Measure the share of prompts on which each model prefers the pattern, a row a view.

    answers: of `implicit.obey.obtain`, or of `implicit.pattern.ask`, which has one seed
    base, tuned: names of its two models

    Columns: view, n (prompts), n_seeds, distance (nats a token of the prompt, to the base model),
    and with intervals over prompts and seeds, the same for both models: base and tuned, the shares;
    drop, base less tuned; back, the tuned model's share less its share as asked plainly: what the
    view brings back. (The drop as asked plainly less this one would be above 0 wherever the base
    model has less of the pattern to lose.) Without a plain view the last is undefined. Raises
    InputError where models were asked different prompts.
    """
    do = "Pass what implicit.obey.obtain gives."
    intervals.require_columns("answers about patterns", answers, ASKED, do)
    if "seed" in answers:  # each has prompts of its own
        answers = answers.assign(uid=answers["seed"].astype(str) + "/" + answers["uid"])
    seen: dict[str, pd.DataFrame] = {}
    for view in dict.fromkeys(answers["view"]):
        of = answers[answers["view"] == view]
        wide = of.assign(prefers=(of["pattern"] > of["instruction"]).astype(float))
        wide = wide.pivot_table(index="uid", columns="model", values="prefers")
        if not {base, tuned} <= set(wide.columns) or wide[[base, tuned]].isna().any(axis=None):
            raise InputError(
                f"answers about patterns, view {view!r}",
                expected=f"the same prompts of {base!r} and {tuned!r}",
                found=f"models {listed(map(str, wide.columns))}, {len(wide)} prompts",
                do="Ask both models in one call of implicit.pattern.ask.",
            )
        seen[view] = wide[[base, tuned]]
    rows = []
    for view, wide in seen.items():
        of = answers[(answers["view"] == view) & (answers["model"] == base)]
        found = _resampled(wide, seen.get(PLAIN), n_resamples)
        made: dict[str, object] = {
            "view": view,
            "n": len(wide),
            "n_seeds": _seeds(wide).nunique(),
            "distance": float(of["distance"].mean()),
        }
        made |= as_columns("base", found.interval(lambda m: m[..., 0]))
        made |= as_columns("tuned", found.interval(lambda m: m[..., 1]))
        made |= as_columns("drop", found.interval(lambda m: m[..., 0] - m[..., 1]))
        back = UNDEFINED
        if PLAIN in seen and view != PLAIN:
            back = found.interval(lambda m: m[..., 1] - m[..., 3])
        rows.append(made | as_columns("back", back))
    return pd.DataFrame(rows)


def _resampled(wide: pd.DataFrame, plain: pd.DataFrame | None, n_resamples: int) -> Resampled:
    """Resample prompts: of a view, (N, 2), and, where there is one, as asked plainly."""
    both = wide if plain is None else wide.join(plain, rsuffix=" plain", how="inner")
    of_seeds = [of for _, of in both.groupby(_seeds(both).to_numpy())]
    samples = [of_means(list(of.index), of.to_numpy()) for of in of_seeds]
    return resample(samples, n_resamples=n_resamples)


def _seeds(wide: pd.DataFrame) -> pd.Series:
    """Read the seed off each prompt's name: "0/pattern_or_instruction/upper-blank/3"."""
    return pd.Series(wide.index).str.partition("/")[0]


def claims(found: pd.DataFrame) -> pd.DataFrame:
    """Judge that tuning costs the pattern, that each other view brings some back, the farther more.

    found: from `table`. A view that makes even the base model obey brings nothing back: it counts
    where the base model prefers the pattern in over half of the prompts, by its whole interval.
    The last row is over the views that count: does more come back the farther their prompts are, in
    nats a token?

    Columns: claim, says, figure, and those of `statements.row`.
    """
    rows = []
    for _, of in found.iterrows():
        lacks = "" if of["base_low"] > HALF else "a base model that continues the pattern there"
        if of["n_seeds"] < LEAST_SEEDS:
            lacks = SEVERAL
        if of["view"] == PLAIN:
            said, statement, measure = "drop of the pattern by tuning", DROPS, "drop"
        else:
            said = f"share after tuning in {form(of['view'])}, less that as asked plainly"
            statement, measure = COMES_BACK, "back"
        value = intervals.Interval(*(float(of[c]) for c in with_intervals([measure])))
        rows.append(row(said, statement, value, int(of["n_seeds"]), unit="seeds", lacks=lacks))
    views = found[found["back"].notna() & (found["base_low"] > HALF)]
    grows = intervals.rank_correlation(views["distance"].to_numpy(), views["back"].to_numpy())
    lacks = SEVERAL if len(views) and views["n_seeds"].min() < LEAST_SEEDS else ""
    said = "rank correlation of that share with nats a token of the prompts, over views"
    rows.append(row(said, FARTHER_BRINGS_MORE, grows, len(views), unit="views", lacks=lacks))
    judged = pd.concat(rows, ignore_index=True)
    return pd.DataFrame(CLAIM, index=judged.index).join(judged)


def form(view: str) -> str:
    """Name a view as people do: "leetspeak"; "as it is" for plain."""
    return "as it is" if view == PLAIN else FORMS.get(view, view.replace("(", " ").rstrip(")"))


def finding(found: pd.DataFrame) -> str:
    """Say in a sentence what tuning costs the pattern, and which views bring it back.

    found: from `table`
    """
    plain = found[found["view"] == PLAIN]
    if plain.empty:
        return "No prompts were asked as they are: there is nothing to compare views with"
    drop = estimate_of(plain.iloc[0], "drop")
    said = f"Tuning lowers the share of prompts on which the pattern is preferred by {drop}"
    back = found[(found["back_low"] > 0) & (found["base_low"] > HALF)]
    if back.empty:
        return f"{said}; no view is shown to bring it back"
    bring = "brings" if len(back) == 1 else "bring"
    each = [f"{form(of['view'])} ({estimate_of(of, 'back')})" for _, of in back.iterrows()]
    return f"{said}; {listed(each)} {bring} some of it back"


def draw(found: pd.DataFrame) -> Figure:
    """Draw the share of prompts on which the pattern is preferred, and what each view brings back.

    found: from `table`
    """
    require_columns(found, ["view", "n", "distance", *with_intervals(MEASURES)])
    n, n_seeds = int(found["n"].max()), int(found["n_seeds"].max())
    said = f"{finding(found)} ({n} prompts, {n_seeds} seed{'s' * (n_seeds > 1)})"
    order = found.sort_values("distance", ascending=False)
    y = np.arange(len(order), dtype=float)
    names = _names(order["view"], order["distance"])
    with style(names, [said]):
        figure = Figure(figsize=(TEXT_WIDTH, 1.5 + 0.28 * len(order)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for measure, label, marker, colour, up in (
            ("base", "base model", "o", BLUE, 0.12),
            ("tuned", "tuned model", "D", VERMILION, -0.12),
        ):
            draw_intervals(left, order, measure, y + up, label, marker, colour, True)
        mark(left, 0.5)
        left.set_xlim(-0.03, 1.03)
        left.set_yticks(y, names, fontsize=SMALL)
        left.set_ylim(-0.6, len(order) - 0.4)
        left.set_xlabel("share that prefers the pattern")
        shows = (order["base_low"] > HALF).to_numpy()
        for of, label, colour, filled in (
            (shows, "brought back", BLACK, True),
            (~shows, "not to be told: the base model shows no pattern", GREY, False),
        ):
            if of.any():
                some = order[of]
                draw_intervals(right, some, "back", y[of], label, "o", colour, filled)
        mark(right, 0)
        right.set_xlabel("share after tuning, less that as it is")
        return framed(figure, said, 2)


def _names(forms: Sequence[str], distances: Sequence[float]) -> list[str]:
    return [
        readable(f"{form(view)} ({distance:.1f} nats)" if np.isfinite(distance) else form(view))
        for view, distance in zip(forms, distances, strict=True)
    ]
