"""Say what hidden states tell of a skill that a model no longer shows.

The table is `rungs.table`, of which these read the rows "lens" and "direction".
"""

from __future__ import annotations

import pandas as pd

from forgetlib.figures.methods.relearning import groups, named
from forgetlib.figures.methods.rungs import DIRECTIONS
from forgetlib.figures.names import listed, title
from forgetlib.figures.numbers import between, estimate_of


def finding(table: pd.DataFrame) -> str:
    """Say what one layer shows, and what comes back without the direction; "" where none was asked.

    table: from `rungs.table`, of one skill
    """
    said = [text for text in (_of_layers(table), _of_directions(table)) if text]
    return ". ".join(said)


def _of_layers(table: pd.DataFrame) -> str:
    """Say what is read at the layer that tells most, compared with never-taught models there."""
    rows = table[(table["kind"] == "lens") & table["oracle"].notna()]
    if rows.empty:
        return ""
    beyond, less, rest = groups(rows)
    of = {
        f"more than they have after {listed(named(beyond, rows))}": beyond,
        f"less than half of what was taught after {listed(named(less, rows))}": less,
        f"not decided after {listed(named(rest, rows))}": rest,
    }
    (task,) = set(rows["eval_task"])
    said = "; ".join(text for text, methods in of.items() if len(methods))
    return (
        f"Of {title(task)}, the layer that tells most in the forgotten model has an AUROC of "
        f"{between(rows['forgotten'])}, where never-taught models have {between(rows['oracle'])}: "
        f"{said}"
    )


def _of_directions(table: pd.DataFrame) -> str:
    """Say after which methods more comes back without the direction than without a random one.

    Where the intervals of both lie apart.
    """
    of = table[table["kind"] == "direction"]
    own, other = (of[of["rung"] == rung.name].set_index("method") for rung in DIRECTIONS)
    both = [m for m in own.index if m in other.index]
    if not both:
        return ""
    more = [
        m for m in both if own.loc[m, "recovered_low"] > max(0.0, other.loc[m, "recovered_high"])
    ]
    without = "Without the direction in which forgetting moved it,"
    if not more:
        which = f"any of {len(both)} methods" if len(both) > 1 else "the one method"
        return f"{without} more is not shown to come back after {which} than without a random one"
    shares = [estimate_of(own.loc[m], "recovered") for m in more]
    names = named(own.loc[more].reset_index(), own.reset_index())
    told = listed(f"{s} after {n}" for s, n in zip(shares, names, strict=True))
    return f"{without} a share of what was lost comes back: {told}"
