"""Say what a study of implicit inference found, as Markdown, from its figures' tables."""

from __future__ import annotations

import pandas as pd

from forgetlib.figures.findings import Tables
from forgetlib.figures.implicit import bayes, conjugate, pattern, shift, tuning, verdicts
from forgetlib.figures.implicit.claims import GATED
from forgetlib.figures.numbers import between, estimate_of
from forgetlib.runs.specs import PLAIN

ABOUT = """\
After *Understanding Catastrophic Forgetting in Language Models via Implicit Inference* (Kotha,
Springer, Raghunathan, ICLR 2024): a small transformer sees examples of a linear rule, and predicts
the next one. In pre-training the rule is one of a few (a *discrete* prompt) or any (a *continuous*
one), and the model has to guess which; Bayes' rule tells how. Then it is fine-tuned on discrete
prompts alone, and seems to forget how to answer the others. Does it, or does it only guess that
every prompt is discrete? How far its guess moved, the *shift*, is told in nats of log-odds: 1 nat
makes the odds 2.7 times as high. A *fade* is the other change that one number describes: every
answer goes the same part of the way to that of the tasks of fine-tuning, whatever a prompt says of
where it comes from. *Conjugate prompting* asks in a form that looks unlike the fine-tuning: with
all labels scaled, and the answer scaled back. A language model is asked the like in words."""
DISTRUST = """\
- **A small world is small.** A few vectors and a few examples: what is said of it is said of
  models that are within 10 % of Bayes' rule there, and of no language model.
- **Its sizes are ours.** The sister paper's text was not at hand: the number of dimensions, the
  spread of vectors and all sizes of model and training are assumptions
  (`forgetlib/implicit/settings.py`).
- **Scaled labels are harder, or easier, by themselves.** What they return to the fine-tuned model
  is to be read beside what they do to the other two.
- **A shift describes a loss, too.** With one that is large enough the tasks of fine-tuning alone
  are left, as in a model that never knew others: it is its size, beside that to such a model (at
  most 40 nats are tried), that speaks for a guess. And one number explains much of a change that
  is no shift: so a fade stands beside it."""
# Of the study of this name alone.
OF_IMPLICIT = """\
- **Three of ten seeds are left out**: 4, 6 and 8, whose models do not meet the gate (error 1.12 to
  1.20 times Bayes', of discrete prompts with 10 examples). The gate is asked of each seed by
  itself, and of nothing but pre-training. That is post hoc: as it was written first, one such seed
  would have left nothing claimed, and seeds 3 to 9 were added after what 0 to 2 say had been seen.
  Of all ten the shift is 3.46 [2.87, 4.06] nats and explains 0.70 [0.66, 0.75], less than a fade
  (the difference: −0.03 [−0.07, 0.00]).
- **Other mixture weights have one seed**, and 0.2 does not meet the gate: nothing is claimed of
  them.
- **The real model was tuned by us**, towards obeying, on prompts of the tasks that it is asked.
  Its 300 prompts are not independent: the pattern's answer is one of three (`What`, `WHAT`,
  `____`), the same as in the tuning, and 39, 50 and 48 % of the three seeds' prompts (76, 100 and
  92 % of those with a blank) end in an input that was trained on in another prompt."""

UNCLEAR = "the pattern is still there, or the instruction is not understood"


def distrust(study: str) -> str:
    """Say what to distrust of a study, by its name."""
    return f"{DISTRUST}\n{OF_IMPLICIT}" if study == "implicit" else DISTRUST


def answer(tables: Tables) -> str:
    """Answer what implicit inference says about forgetting: in the small world, and outside it."""
    if (claims := tables.get("claims")) is not None and not _gate_met(claims):
        return f"Nothing is claimed, as this needs {GATED} ([bayes](bayes.png))."
    said = _small_world(tables.need("shift"), tables.need("conjugate"))
    if (found := tables.get("pattern")) is not None:
        said += " A real model was tuned to obey where it used to continue a pattern. "
        said += f"{pattern.finding(found)} ([pattern](pattern.png))."
        said += f" {UNCLEAR.capitalize()}." if pattern.brought(found)[0] else ""
    return said


def _small_world(shifts: pd.DataFrame, scaled: pd.DataFrame) -> str:
    """Say how much of what fine-tuning changes is a wrong guess of the task."""
    said = f"{shift.finding(shifts)} ([shift](shift.png))."
    row = conjugate.told(scaled)
    if row is None or pd.isna(row["recovered"]):
        return said
    return said + (
        f" Scaling a prompt's labels by {row['gamma']:g} closes {estimate_of(row, 'closed')} of "
        "the gap to the model before fine-tuning, asked in the same way ([conjugate "
        "prompting](conjugate.png))."
    )


def _conjugate(found: pd.DataFrame) -> str:
    """Say what scaled labels return, also of the gap to a model that is asked in the same way."""
    row, said = conjugate.told(found), conjugate.finding(found)
    if row is None or pd.isna(row["closed"]):
        return said
    said += "; of the gap to the pre-trained model, asked in the same way, they close "
    return said + estimate_of(row, "closed")


def _pattern(found: pd.DataFrame) -> str:
    """Say which forms of a prompt bring a pattern back, and what else would look like that."""
    said = pattern.finding(found)
    back, alone = pattern.brought(found)
    if back:
        said += f": {UNCLEAR}"
    for view in alone:
        if why := pattern.shorter(found, view):
            said += f"; in {pattern.form(view)} {why}"
    shares = pattern.of_views(found, pattern.WHOLE)
    others = shares[pattern.counts(found)].drop([PLAIN, *back, *alone], errors="ignore")
    if len(others):
        forms = f"{len(others)} {'other ' * bool(back or alone)}form{'s' * (len(others) > 1)}"
        said += f"; in {forms} the tuned model's share is {between(others['tuned'])}"
    return said


FINDINGS = {
    "shift": shift.exact,
    "conjugate": _conjugate,
    "tuning": tuning.finding,
    "bayes": bayes.finding,
    "pattern": _pattern,
}


def findings(tables: Tables) -> str:
    """Say of each picture what it shows, the most telling first, and count the verdicts."""
    said = [
        f"{find(found)} ([{name}]({name}.png))."
        for name, find in FINDINGS.items()
        if (found := tables.get(name)) is not None
    ]
    claims = tables.get("claims")
    if claims is not None and not _gate_met(claims):
        said.insert(0, f"Nothing is claimed, as this needs {GATED} ([bayes](bayes.png)).")
    said[0] = f"**{said[0].replace(' ([', '** ([', 1)}"
    if claims is not None:
        said.append(f"{verdicts.finding(claims)} ([table](#the-papers-claims)).")
    return "\n".join(f"- {sentence}" for sentence in said)


def _gate_met(claims: pd.DataFrame) -> bool:
    """Tell whether models of the study's own mixture weight may be spoken of."""
    own = claims[claims["claim"] == "fine-tuning-harms"]
    return not own["why"].eq(f"needs {GATED}").any()
