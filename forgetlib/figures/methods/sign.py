"""Say where forgetting turned a skill round, and whether a model had to know it for that.

Seeds that end below 0.5 and seeds that end above it average to what looks like chance. So each
model's sign is corrected (`rungs.SIGNED`), and the never-taught ones' too. A method that makes true
responses less likely teaches the opposite, also to models that never knew the skill: what they show
then is no sign of what was left of it.

The table is `rungs.table`, a row a rung.
"""

from __future__ import annotations

import pandas as pd

from forgetlib.figures.methods.relearning import groups, named, with_excess
from forgetlib.figures.methods.rungs import DIRECT, SIGNED, seeds_of
from forgetlib.figures.names import listed, method_title, title
from forgetlib.figures.numbers import number
from forgetlib.figures.verdicts import HALF
from forgetlib.metrics import CHANCE

FAR = 0.25  # of AUROC, between seeds
CAUTION = "what methods that see the true labels teach by themselves is not known"


def apart(table: pd.DataFrame) -> str:
    """Say after which methods seeds end far from each other; "" where none do, or there is one.

    Far is `FAR` of AUROC: half the way from chance to knowing all.

    table: from `rungs.table`, of one skill
    """
    rows = table[(table["kind"] == "direct") & (table["measure"] == "auroc")]
    said, least = [], CHANCE
    for _, row in rows.iterrows():
        ends = seeds_of(row)
        if max(ends) - min(ends) > FAR:
            least = min(least, *ends)
            name = method_title(str(row["method"]))
            said.append(f"{listed(number(end) for end in sorted(ends))} after {name}")
    if not said:
        return ""
    # A mean near or below 0.5 would otherwise be taken for a skill that is gone.
    turned = " (far below 0.5: with the sign turned)" if least < CHANCE - FAR else ""
    return f"Seeds may end far apart: their AUROC on new questions is {', '.join(said)}{turned}"


def headline(table: pd.DataFrame) -> str:
    """Say after which methods a skill is turned round and not gone; "": after none.

    Most of it is there where this is shown, as that most is gone has to be shown too.

    table: from `rungs.table`, of one skill
    """
    rows = _turned(table)
    most, more, *_ = _groups(rows)
    beyond = pd.concat([most, more])
    if beyond.empty:
        return ""
    (task,) = set(rows["eval_task"])
    return (
        f"With the answers exchanged where the forgetting set shows that a model has turned them, "
        f"models show of {title(task)}, {_scale(beyond)}, "
        f"{'; '.join(_shown(most, more, rows, told=True))}{_caution(beyond)}"
    )


def turned(table: pd.DataFrame) -> str:
    """Say what is left after methods that turned a seed's sign, once it is corrected; "": none did.

    table: from `rungs.table`, of one skill
    """
    rows = _turned(table)
    if rows.empty:
        return ""
    most, more, less, rest = _groups(rows[rows["excess"].notna()])
    beyond = pd.concat([most, more])
    as_taught = rows[rows["excess"].isna()]
    (task,) = set(rows["eval_task"])
    scale = f", {_scale(beyond)}" if len(beyond) else ""
    shown = _shown(most, more, rows)
    half = f"less than half{'' if shown else ' of what was taught'} after"
    shown += [f"{half} {listed(named(less, rows))}"] if len(less) else []
    parts = {
        f"models show {'; '.join(shown)}": shown,
        f"after {listed(named(rest, rows))} it is not decided": rest,
        f"after {listed(named(as_taught, rows))} it cannot be told, as the same lesson may teach "
        "as much to models that never knew the skill": as_taught,
    }
    said = "; ".join(words for words, of in parts.items() if len(of))
    return (
        f"Of {title(task)}{scale}, with the answers exchanged wherever the forgetting set shows "
        f"that a model has turned them, {said}{_caution(beyond)}"
    )


def _groups(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Sort methods as `relearning.groups` does, after those that are shown to leave most."""
    beyond, *others = groups(rows)
    is_most = beyond["excess_low"] > HALF
    return [beyond[is_most], beyond[~is_most], *others]


def _shown(
    most: pd.DataFrame, more: pd.DataFrame, rows: pd.DataFrame, *, told: bool = False
) -> list[str]:
    """Say after which methods most is there, and after which more than never-taught models show.

    told: say also what that means
    """
    parts = (
        ("most of what was taught", most, "there it is turned round, and not gone"),
        ("more than never-taught models", more, "there some of it is left, turned round"),
    )
    return [
        f"{words}, {listed(with_excess(of, rows))}{f': {meaning}' * told}"
        for words, of, meaning in parts
        if len(of)
    ]


def _turned(table: pd.DataFrame) -> pd.DataFrame:
    """Take the corrected rows of methods that turned the sign of a seed, most excess first."""
    rows = table[(table["rung"] == SIGNED.name) & (table["excess"].notna() | table["shown"])]
    direct = table[table["rung"] == DIRECT.name].set_index("method")["seeds"]
    rows = rows[(rows["seeds"] != rows["method"].map(direct)).to_numpy()]
    return rows.sort_values("excess", ascending=False, kind="stable")


def _caution(rows: pd.DataFrame) -> str:
    return "" if rows["shown"].all() else f"; {CAUTION}"


def _scale(rows: pd.DataFrame) -> str:
    """Say on which scale the excess is: with which never-taught models methods are compared."""
    shown = " that were shown the same true labels" if rows["shown"].all() else ""
    return f"on a scale from never-taught models{shown} (0) to ones that never forgot (1)"
