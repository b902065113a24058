"""Say what a study of models found, as Markdown, from its figures' tables."""

from __future__ import annotations

import pandas as pd

from forgetlib.figures.findings import Tables, claims_finding
from forgetlib.figures.names import listed, short_name, title
from forgetlib.figures.numbers import UNDEFINED_TEXT, between, estimate_of, markdown, number
from forgetlib.figures.rows import names_or_count
from forgetlib.figures.scale import agreement, models as scale, regressions
from forgetlib.figures.verdicts import DAMAGE

WORDS = (
    "AUROC on new questions after fine-tuning on true labels, then after random labels, and after "
    "true labels again from the same model; what random labels cost beyond these; in how many "
    "questions of the forgetting set the model answers as the random labels say (0.5 by chance), "
    "and whether it learned these (0.9 or more), or lost the true ones (AUROC of the set within "
    "0.40 and 0.60); the rise of nats a token of other tasks' true responses; and, where either "
    "holds, the verdict on the skill against the fine-tuned model."
)
DISTRUST = """\
- While the study is under way, its pictures say how much of it is there.
- All models have the same questions and the same random labels of one seed: what they share of
  these is no property of the tasks. Agreement is taken from halves of the questions that are apart;
  the draw of labels cannot be. A ceiling is what one training agrees with itself: an estimate, so
  that a value may be above it by chance.
- Models that differ in a task may differ by one draw of the training: one seed cannot tell.
- Size, family and instruction tuning differ together.
- A group of few tasks, as of those with fixed answers, is told from others by whatever else they
  share; and by chance alone two given tasks are the first two of twelve once in 66 times.
- A model that neither learned the random labels nor lost the true ones says nothing about other
  questions. The settings were chosen on Gemma: by them the smallest model learns fewer of the
  random labels, and the largest is harmed."""


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
        said.append(f"{regressions.finding(found)} ([regressions](scale_regressions.png)).")
    if (claims := tables.get("scale_claims")) is not None:
        said.append(f"{claims_finding(claims)} ([table](#the-papers-claims)).")
    return "\n".join(f"- {sentence}" for sentence in said)


def _sentences(tables: Tables, *, exact: bool) -> list[str]:
    table, agreed = tables.need("scale_models"), tables.need("scale_agreement")
    return [
        f"{scale.finding(table)} ([every model](scale_models.png)).",
        *(f"{short_name(str(m))} {_of_model(of)}." for m, of in table.groupby("model", sort=False)),
        f"{agreement.finding(agreed, exact=exact)} ([agreement](scale_agreement.png))."
        + (_of_fixed(table, agreed) if exact else ""),
    ]


def _of_fixed(table: pd.DataFrame, agreed: pd.DataFrame) -> str:
    """Say what is left of the agreement without the tasks with fixed answers, where it is less."""
    known = table[table["known"].astype(bool) & (table["answer_format"] == "verbaliser")]
    fixed = known["eval_task"].drop_duplicates()
    of = {measure: rows.set_index(["a", "b"]) for measure, rows in agreed.groupby("measure")}
    if fixed.empty or agreement.FREE not in of:
        return ""
    free, every = of[agreement.FREE], of[agreement.SHARE]
    if not (free["rank_correlation"] < every["rank_correlation"].reindex(free.index)).all():
        return ""
    rest, beside = (listed(map(number, free[c])) for c in ("rank_correlation", "beside_known"))
    said = f" Some of it rests on {names_or_count(fixed)}, whose answers are fixed: by the other "
    said += f"tasks the rank correlations are {rest}"
    if free["beside_known"].notna().all():
        said += f", and {beside} {agreement.HELD_FIXED}"
    return f"{said}."


def _of_model(table: pd.DataFrame) -> str:
    """Say of how many tasks a model can tell, and what became of these."""
    known = table[table["known"].astype(bool)]
    trained = known[known["learned_or_lost"].astype(bool)]
    said = (
        f"knew {len(known)} of {len(table)} task{'s' if len(table) > 1 else ''}, and learned the "
    )
    said += f"random labels (or lost the true ones) of {len(trained) or 'none'}"
    named = [
        f"{names_or_count(of['eval_task'])} {verdict}"
        for verdict, of in trained.groupby("verdict", sort=False)
    ]
    if named:
        lost = between(trained[scale.AUROC_BEYOND])
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
    header += ["lost beyond true labels", "as the random labels say", "learned or lost"]
    header += ["nats, other tasks", "verdict"]
    rows = [
        [
            title(str(of["eval_task"])),
            short_name(str(of["model"])),
            *(estimate_of(of, name) for name in ("auroc_tuned", "auroc", "auroc_again")),
            estimate_of(of, scale.AUROC_BEYOND),
            number(of["fit"]),
            "yes" if of["learned_or_lost"] else "no",
            UNDEFINED_TEXT if pd.isna(of["damage"]) else estimate_of(of, "damage"),
            str(of["verdict"]) if of["learned_or_lost"] else UNDEFINED_TEXT,
        ]
        for of in found.to_dict("records")
    ]
    text = f"{markdown(header, rows)}\n\n{WORDS}"
    learned = found[found["fit"] >= scale.LEAST_FIT]
    if n := int((learned["set_auroc_low"] > scale.MOST_AUROC).sum()):
        text += (
            f" In {n} of the {len(learned)} rows whose random labels were learned, the AUROC of "
        )
        text += f"the set by the true ones is still shown to be above {scale.MOST_AUROC:.2f}."
    return text
