"""Say what a study found, in a few sentences that each name their evidence.

Every number comes from a CSV that a figure wrote, through one formatter; sentences are chosen by
the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from forgetlib.errors import InputError
from forgetlib.figures import fig2b, fig3, intervals
from forgetlib.figures.fig2 import CONTROLLED, LEVEL
from forgetlib.figures.names import listed, title
from forgetlib.figures.numbers import between, estimate, estimate_of, number
from forgetlib.figures.statements import CANNOT_DECIDE, DOES_NOT_HOLD, HOLDS, UNDECIDED
from forgetlib.figures.verdicts import DAMAGE, FORGOTTEN, KEPT, NOTHING, VERDICTS

BEYOND_TRUE_LABELS = "Beyond the same training on true labels"
FEW = 4  # tasks: so many are named, and have no mean


class Tables:
    """Read a study's drawn tables from its folder; a figure that was not drawn has none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> pd.DataFrame | None:
        """Read the table of a figure; None where it was not drawn."""
        path = self.folder / f"{name}.csv"
        return pd.read_csv(path) if path.exists() else None

    def need(self, name: str) -> pd.DataFrame:
        """Read the table of a figure; InputError where it was not drawn."""
        if (found := self.get(name)) is None:
            raise InputError(
                f"findings of study {self.folder.name!r}",
                expected=f"the table of figure {name}",
                found=f"no {self.folder / f'{name}.csv'}",
                do=f"Draw it first: forgetlib draw {self.folder.name}.",
            )
        return found


def answer(tables: Tables) -> str:
    """Answer the paper's question by what a study found, in few sentences; `findings` has all."""
    skills = tables.need("fig2b_skill")
    after = skills[skills["phase"] == "random"].set_index("eval_task")
    tuned = skills[skills["phase"] == "tuned"].set_index("eval_task")
    known = after[after["verdict"] != NOTHING]
    gone = [
        f"{title(task)}: AUROC {estimate_of(tuned.loc[task], 'auroc')} to "
        f"{estimate_of(known.loc[task], 'auroc')}"
        for task in known.index[known["verdict"] == FORGOTTEN]
    ]
    counts = known["verdict"].value_counts()
    # A few tasks are named.
    names = {
        v: listed(map(title, of.index)) if len(known) <= FEW else len(of)
        for v, of in known.groupby("verdict")
    }
    others = [
        f"{names[verdict]} {'is' if counts[verdict] == 1 else 'are'} {verdict}"
        for verdict in VERDICTS
        if verdict in counts and verdict != FORGOTTEN
    ]
    forgotten = f"{len(gone) or 'none'} {'are' if len(gone) > 1 else 'is'} shown to be forgotten"
    forgotten += f" on new questions{' (' + '; '.join(gone) + ')' if gone else ''}"
    said = (
        f"Of {len(known)} skills that {skills['model'].iloc[0]} had after fine-tuning, "
        f"{listed([forgotten, *others])}."
    )
    control = tables.get("fig2_control")
    if control is not None and len(control) <= FEW:
        said += f" {BEYOND_TRUE_LABELS}, {_task_by_task(control)} (brackets: 95 % intervals)."
    elif control is not None:
        said += (
            f" Random labels cost {_mean_of(control, 'beyond_true_labels')} of accuracy more than "
            f"the same training on *true* labels (mean of {len(control)} tasks; brackets: 95 % "
            "intervals)."
        )
    if gone and known["damage"].isna().all():
        pairs = tables.get("fig3_cross_task")
        harmed = {t: _risen_by(t, pairs) for t in known.index[known["verdict"] == FORGOTTEN]}
        risen = [
            f"{number(x, 1)} nats a token after {title(t)}'s"
            for t, x in harmed.items()
            if x > DAMAGE
        ]
        if risen:
            said += " Forgetting may be damage: where pairs of tasks were tried, other tasks' true "
            said += f"answers became less likely by {listed(risen)} random labels; the models "
            said += "above were not checked for this."
        else:
            said += " Harm to other tasks was not measured in these models."
    return f"{said}{_harm(skills, exact=False)}"


def _by_rule(tables: Tables, after: pd.DataFrame) -> str:
    """Name kept tasks in which a rule does as well that looks for the answers in the prompt."""
    described = tables.get("tasks")
    if described is None or "answer_in_prompt" not in described:
        return ""
    rule = described.groupby("eval_task")["answer_in_prompt"].mean()
    kept = after[(after["verdict"] == KEPT) & (after["answer_format"] == "text")]
    alike = [title(str(t)) for t, of in kept.iterrows() if of["accuracy_low"] <= rule.get(t, 0)]
    if not alike:
        return ""
    are = "is" if len(alike) == 1 else "are"
    return (
        f" Of those kept, {listed(alike)} {are} not shown to beat choosing the answer whose words "
        "stand in the prompt."
    )


def _where_free(control: pd.DataFrame) -> str:
    """Write the means over the tasks with free answers, where there are others beside."""
    free = control[control["answer_format"] == "text"]
    if len(free) in (0, 1, len(control)):
        return ""
    means = listed(_mean_of(free, measure) for measure in CONTROLLED)
    return f"; of the {len(free)} with free answers {means}"


def _harm(skills: pd.DataFrame, *, exact: bool = True) -> str:
    """Say of which tasks' labels damage is shown or excluded, where it was measured; else "".

    exact: say how it is counted, and give the numbers of few tasks
    """
    after, again = (skills[skills["phase"] == phase] for phase in ("random", "true"))
    if after["damage"].isna().all():
        return ""
    counted = f"true answers less likely by more than {number(DAMAGE, 0)} nat a token"
    if exact:
        counted = f"on average, their true answers cost more than {number(DAMAGE, 0)} nat a token "
        counted += "more than they cost the fine-tuned model"
    said = f" Damage to other tasks ({counted}) is, after random labels, {_decided(after, exact)}"
    said += f"; after true labels, {_decided(again, exact)}." if len(again) else "."
    taught = skills[skills["nll_taught"].notna()]
    if taught.empty:
        return said
    said += " Fine-tuning alone had made true answers of other tasks less likely"
    if exact and len(taught) <= FEW:
        told = listed(
            f"{estimate_of(row, 'nll_taught')} in {title(row['eval_task'])}"
            for _, row in taught.iterrows()
        )
        return f"{said}, in nats a token, by {told}."
    most = title(taught.loc[taught["nll_taught"].idxmax(), "eval_task"])
    return f"{said} by {between(taught['nll_taught'], 1)} nats a token, most in {most}."


def _decided(rows: pd.DataFrame, exact: bool) -> str:
    """Sort tasks by what the interval of damage tells: shown, excluded or not decided."""
    rows = rows[rows["damage"].notna()]
    shown, excluded = rows["damage_low"] > DAMAGE, rows["damage_high"] < DAMAGE
    parts = []
    for word, of in (
        ("shown", rows[shown]),
        ("excluded", rows[excluded]),
        ("not decided", rows[~shown & ~excluded]),
    ):
        names = [
            title(r["eval_task"]) + (f" ({estimate_of(r, 'damage')})" if exact else "")
            for _, r in of.iterrows()
        ]
        if names:
            many = len(names) > FEW
            parts.append(f"{word} for {f'{len(names)} tasks' if many else listed(names)}")
    return ", ".join(parts) or "not measured"


def _task_by_task(control: pd.DataFrame) -> str:
    """Say what random labels cost each task beyond true labels: a mean of few tasks is none."""
    by_loss = control.sort_values("auroc_beyond_true_labels", ascending=False)
    lost = listed(
        f"{estimate_of(of, 'auroc_beyond_true_labels')} in {title(of['eval_task'])}"
        for _, of in by_loss.iterrows()
    )
    return f"the AUROC lost to random labels is {lost}"


def _mean_of(control: pd.DataFrame, measure: str) -> str:
    """Write the mean of a measure over tasks, with its interval over them."""
    return estimate(intervals.mean_interval(control[measure].to_numpy()))


def findings(tables: Tables) -> str:
    """Say what a study found as a list in Markdown."""
    return "\n".join(f"- {sentence}" for sentence in sentences(tables))


def sentences(tables: Tables) -> Iterator[str]:
    """Say what a study found, in a few sentences that each name their evidence, in Markdown."""
    skills = tables.need("fig2b_skill")
    pairs, flipped = tables.get("fig3_cross_task"), tables.get("fig8_flipped")
    yield _of_verdicts(skills, tables)
    yield _of_forgetting_sets(skills)
    if (control := tables.get("fig2_control")) is not None:
        yield _of_control(control)
    if sentence := _of_fixed_answers(skills):
        yield sentence
    if pairs is not None and len(set(pairs["eval_task"])) > 1:
        yield _of_pairs(pairs, flipped, skills)
    if (claims := tables.get("claims")) is not None:
        yield _of_claims(claims)


def _of_verdicts(skills: pd.DataFrame, tables: Tables) -> str:
    after = skills[skills["phase"] == "random"]
    unknown = [title(t) for t in after.loc[after["verdict"] == NOTHING, "eval_task"]]
    said = f"**{fig2b.finding(skills)}** (95 % intervals; [Figure 2b](fig2b_skill.png))."
    if unknown:
        said += f" {listed(unknown)} {'was' if len(unknown) == 1 else 'were'} not shown to be known"
        said += " before, so that nothing can be said of forgetting there."
    if (gaps := tables.get("fig2_forget_gap")) is not None:
        n, known = int(gaps["ratio_defined"].sum()), int(gaps["known"].sum())
        said += f" By accuracy alone, which the forget ratio needs, {n} were." if n < known else ""
    if ((after["verdict"] == FORGOTTEN) & after["damage"].isna()).any():
        said += " What is called forgotten may have gone with the language model itself."
    return f"{said}{_by_rule(tables, after.set_index('eval_task'))}{_harm(skills)}"


def _risen_by(task: str, pairs: pd.DataFrame | None) -> float:
    """Tell by how much a task's labels raise nats a token of others; NaN where not measured."""
    if pairs is None:
        return np.nan
    own = pairs["eval_task"] == pairs["forget_task"]
    return float(pairs.loc[(pairs["forget_task"] == task) & ~own, "nll_risen"].mean())


def _of_forgetting_sets(skills: pd.DataFrame) -> str:
    every = skills[skills["phase"] == "random"]
    after = every[every["verdict"] != NOTHING]
    if after.empty:
        after = every
    which = " of known tasks" if len(after) < len(every) else ""
    accuracy, auroc, fit = (between(after[name]) for name in ("set_accuracy", "set_auroc", "fit"))
    return (
        f"**On the questions that were trained with random labels**{which}, accuracy by the true "
        f"labels ends at {accuracy} (chance: 0.5), and AUROC at {auroc}. The model repeats {fit} "
        "of the random labels."
    )


def _of_control(control: pd.DataFrame) -> str:
    if len(control) <= FEW:
        return f"**{BEYOND_TRUE_LABELS}**, {_task_by_task(control)} ([control](fig2_control.png))."
    heading = "More training costs something whatever the labels"
    if not intervals.mean_interval(control["lost_again"].to_numpy()).low > 0:
        heading = "The control by true labels"
    said = (
        f"**{heading}**: training again on *true* labels costs {_mean_of(control, 'lost_again')} "
        f"of accuracy (mean of {len(control)} tasks). Random labels cost "
        f"{_mean_of(control, 'beyond_true_labels')} more, and "
        f"{_mean_of(control, 'auroc_beyond_true_labels')} more of AUROC"
        f"{_where_free(control)}. Task "
        "by task, a loss of AUROC beyond true labels is shown in "
    )
    above = control[control["auroc_beyond_true_labels_low"] > 0]
    above = above.sort_values("auroc_beyond_true_labels", ascending=False)
    certain = above[above["auroc_beyond_true_labels_holm"] < LEVEL]
    said += f"{len(above) or 'none'} of {len(control)}"
    if len(above):
        most = above.iloc[0]
        said += f" (most in {title(most['eval_task'])}, "
        said += f"{estimate_of(most, 'auroc_beyond_true_labels')}), and in "
        said += f"{len(certain) or 'none'} after Holm's correction"
        seeds = int(control["n_seeds"].min())
        said += f" (hardly possible with {seeds} seeds)" if 1 < seeds < 4 else ""
    return f"{said} ([control](fig2_control.png))."


def _of_fixed_answers(skills: pd.DataFrame) -> str:
    fixed = skills[skills["answer_format"] == "verbaliser"]
    if fixed.empty:
        return ""
    after = fixed[fixed["phase"] == "random"].set_index("eval_task")
    tuned = fixed[fixed["phase"] == "tuned"].set_index("eval_task")
    lost = after["accuracy_lost"].sort_values(ascending=False).index[:3]
    never = [title(t) for t, of in tuned.iterrows() if of["accuracy_low"] <= of["true_share"]]
    falls = after.loc[lost, "auroc_lost_low"] > 0
    said = "**With fixed answers** a bias towards one answer lowers accuracy, and not AUROC. "
    shown = [
        f"{title(t)} (by {estimate_of(after.loc[t], 'auroc_lost')}; {after.loc[t, 'verdict']})"
        for t in falls.index[falls]
    ]
    not_shown = [title(t) for t in falls.index[~falls]]
    if shown:
        said += f"AUROC too falls in {listed(shown)}"
        said += f"; in {listed(not_shown)} this is not shown" if not_shown else ""
    else:
        said += f"AUROC is not shown to fall in {listed(not_shown)}"
    said = f"{said}."
    if never:
        said += f" Before forgetting, accuracy in {listed(never)} is not shown to beat one answer "
        said += "to everything."
    return said


def _of_pairs(pairs: pd.DataFrame, flipped: pd.DataFrame | None, skills: pd.DataFrame) -> str:
    others = pairs[pairs["eval_task"] != pairs["forget_task"]]
    n_seeds = _seeds_of_pairs(pairs, skills)
    seeds = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    said = (
        f"**After random labels of one task others get worse** ({len(others)} pairs, {seeds}): "
        f"accuracy falls by {number(others['accuracy_lost'].mean())}, and the loss on true answers "
        f"rises by {number(others['nll_risen'].mean(), 1)} nats a token on average, most after "
        "those of "
    )
    by_labels = others.groupby("forget_task")["nll_risen"].mean().sort_values(ascending=False)
    said += listed(f"{title(t)} ({number(v, 1)})" for t, v in by_labels.head(2).items())
    formats = dict(zip(skills["eval_task"], skills["answer_format"], strict=True))
    # With fixed answers a bias alone moves the ratio.
    free = pairs[pairs["eval_task"].map(formats) == "text"]
    together, n = fig3.harm_correlation(free)
    if np.isfinite(together.low):
        said += f". Over {n} pairs in which a task with free answers is asked, the forget ratio "
        said += f"(the share of accuracy lost) and this rise correlate by {estimate(together)}"
        said += ": what looks forgotten may be damage" if together.low > 0 else ""
    if flipped is not None and "accuracy_lost" in flipped:
        both = others.merge(flipped, on=["eval_task", "forget_task"], suffixes=("", "_flipped"))
        lost = number(both["accuracy_lost_flipped"].mean())
        said += f". With every label wrong, accuracy falls by {lost}"
    if pairs["accuracy_beyond_true_labels"].isna().all():
        said += ". Without a control by true labels, this may be what any such training does"
    return f"{said} ([harm](fig3_harm.png))."


def _seeds_of_pairs(pairs: pd.DataFrame, skills: pd.DataFrame) -> int:
    """Count the seeds of the pairs: how often they ask what one seed asks of a task."""
    asked = skills.drop_duplicates("eval_task").set_index("eval_task")
    n = pairs.drop_duplicates("eval_task").set_index("eval_task")["n"]
    return round(float((n * asked["n_seeds"] / asked["n"]).median()))


def claims_finding(claims: pd.DataFrame, of: str = "the paper's claims") -> str:
    """Count the verdicts in a sentence, for titles and texts.

    claims: from `claims.verdicts`; of: whose claims they are
    """
    counts = claims["verdict"].value_counts()
    if counts.get(CANNOT_DECIDE, 0) == len(claims):
        return f"None of {len(claims)} statistics of {of} can be decided by this study"
    words = {
        HOLDS: ("holds", "hold"),
        DOES_NOT_HOLD: ("does not hold", "do not hold"),
        UNDECIDED: ("is not decided", "are not decided"),
        CANNOT_DECIDE: ("cannot be decided by this study",) * 2,
    }
    said = []
    for verdict, (one, several) in words.items():
        n = int(counts.get(verdict, 0))
        if n or verdict in (HOLDS, DOES_NOT_HOLD):
            said.append(f"{n or 'none'} {several if n > 1 else one}")
    return f"Of {len(claims)} statistics of {of}, {listed(said)}"


def _of_claims(claims: pd.DataFrame) -> str:
    later = int(claims["post_hoc"].sum())
    note = ""
    if later:
        every = claims.loc[claims["verdict"] == HOLDS, "post_hoc"]
        among = f", among them all {len(every)} that hold," if len(every) and every.all() else ""
        note = f" {later} of them{among} were chosen after the study was computed."
    return (
        f"**{claims_finding(claims)}**, by thresholds of ours ([table](#the-papers-claims), with "
        f"the power of each).{note}"
    )
