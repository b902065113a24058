"""Say what a study of models found, as Markdown, from its figures' tables."""

from __future__ import annotations

import pandas as pd

from forgetlib.figures import scale, scale_agreement, scale_regressions
from forgetlib.figures.crosstask import short_name
from forgetlib.figures.findings import Tables, claims_finding
from forgetlib.figures.names import title
from forgetlib.figures.numbers import UNDEFINED_TEXT, between, estimate_of, number
from forgetlib.figures.rows import names_or_count
from forgetlib.figures.verdicts import DAMAGE

WORDS = (
    "AUROC on new questions after fine-tuning on true labels, then after random labels, and after "
    "true labels again from the same model; what random labels cost beyond these; in how many "
    "questions of the forgetting set the model answers as the random labels say (0.5 by chance), "
    "and whether that, or its AUROC there, says that the set is forgotten; the rise of nats a "
    "token of other tasks' true responses; and, where the set is forgotten, the verdict on the "
    "skill against the fine-tuned model."
)
DISTRUST = """\
- While the study is under way, its pictures say how much of it is there.
- All models have the same questions and the same random labels of one seed: what they share of
  these is no property of the tasks. Agreement is taken from halves of the questions that are apart;
  the draw of labels cannot be. A ceiling is what one training agrees with itself: an estimate, so
  that a value may be above it by chance.
- Models that differ in a task may differ by one draw of the training: one seed cannot tell.
- Size, family and instruction tuning differ together.
- A model whose forgetting set is not forgotten says nothing about other questions. The settings
  were chosen on Gemma: by them the smallest model learns fewer of the random labels, and the
  largest is harmed."""


def answer(tables: Tables) -> str:
    """Answer whether other models forget the same, and whether they rank tasks alike."""
    first, *_, last = _sentences(tables, exact=False)
    return f"{first} {last}"


def findings(tables: Tables) -> str:
    """Say which tasks go from which models, whether they agree, and what predicts it."""
    first, *said = _sentences(tables, exact=True)
    sentence, _, picture = first.rpartition(" (")
    said.insert(0, f"**{sentence}** ({picture}")
    if (found := tables.get("scale_regressions")) is not None:
        said.append(f"{scale_regressions.finding(found)} ([regressions](scale_regressions.png)).")
    if (claims := tables.get("scale_claims")) is not None:
        said.append(f"{claims_finding(claims)} ([table](#the-papers-claims)).")
    return "\n".join(f"- {sentence}" for sentence in said)


def _sentences(tables: Tables, *, exact: bool) -> list[str]:
    table, agreed = tables.need("scale_models"), tables.need("scale_agreement")
    return [
        f"{scale.finding(table)} ([every model](scale_models.png)).",
        *(f"{short_name(str(m))} {_of_model(of)}." for m, of in table.groupby("model", sort=False)),
        f"{scale_agreement.finding(agreed, exact=exact)} ([agreement](scale_agreement.png)).",
    ]


def _of_model(table: pd.DataFrame) -> str:
    """Say how many tasks a model knew and was made to forget, and what became of these."""
    known = table[table["known"].astype(bool)]
    reached = known[known["reached"].astype(bool)]
    said = f"knew {len(known)} of {len(table)} task{'s' if len(table) > 1 else ''}, and forgot the "
    said += f"forgetting set of {len(reached) or 'none'}"
    named = [
        f"{names_or_count(of['eval_task'])} {verdict}"
        for verdict, of in reached.groupby("verdict", sort=False)
    ]
    if named:
        lost = between(reached[scale.LOST])
        said += f": {', '.join(named)} (AUROC lost beyond true labels: {lost})"
    harmful = known[known["damage_low"] > DAMAGE]
    by_both = harmful["damage_again_low"] > DAMAGE  # then it is no matter of labels
    for of, words in (
        (harmful[~by_both], "random labels of {} harm other tasks"),
        (harmful[by_both], "a second training on {} harms other tasks, with true labels too"),
    ):
        if len(of):
            said += f"; {words.format(names_or_count(of['eval_task']))} (nats a token up by "
            said += f"{between(of['damage'])}, after true labels by {between(of['damage_again'])})"
    return said


def table(tables: Tables) -> str:
    """Make a table with a row a task and model."""
    found = tables.need("scale_models").sort_values("eval_task", kind="stable")
    header = ["task", "model", "fine-tuned", "random labels", "true labels again"]
    header += ["lost beyond true labels", "as the random labels say", "set forgotten"]
    header += ["nats, other tasks", "verdict"]
    rows = [
        [
            title(str(of["eval_task"])),
            short_name(str(of["model"])),
            *(estimate_of(of, name) for name in ("auroc_tuned", "auroc", "auroc_again")),
            estimate_of(of, scale.LOST),
            number(of["fit"]),
            "yes" if of["reached"] else "no",
            UNDEFINED_TEXT if pd.isna(of["damage"]) else estimate_of(of, "damage"),
            str(of["verdict"]) if of["reached"] else UNDEFINED_TEXT,
        ]
        for of in found.to_dict("records")
    ]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{WORDS}"
