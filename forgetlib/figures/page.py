"""Write what a study found as a page: figures/<study>/README.md, from the tables of its figures.

Every number comes from a CSV that a figure wrote, through one formatter; sentences are chosen by
the numbers. The project's README has the findings of one study, between two marks, from here too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from forgetlib.errors import InputError
from forgetlib.figures import fig2b, intervals
from forgetlib.figures.audit import SHORTCUTS
from forgetlib.figures.claims import DOES_NOT_HOLD, HOLDS, NOT_DECIDED
from forgetlib.figures.names import PICTURES, listed, title
from forgetlib.figures.published import PUBLISHED_FORGET_ACCURACY
from forgetlib.figures.verdicts import DAMAGE, FORGOTTEN, NOTHING
from forgetlib.files import replacing, root
from forgetlib.runs.grid import Study, figures_dir, open_store
from forgetlib.runs.results import data_note
from forgetlib.runs.rows import MOST

BEGIN, END = "<!-- findings of {}: written by forgetlib page -->", "<!-- end of findings -->"
LEVEL = 0.05


def number(value: float, digits: int = 2) -> str:
    """Write a number as every page has it: 0.05, -0.14, "-" where undefined."""
    return "-" if pd.isna(value) else f"{value:.{digits}f}"


def estimate(row: pd.Series, measure: str) -> str:
    """Write a measure with its interval: "0.31 [0.20, 0.41]"; "-" where undefined."""
    value, low, high = (row[f"{measure}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value) or pd.isna(low):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


class Tables:
    """Read a study's drawn tables; a figure that was not drawn has none."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.folder = figures_dir(study)

    def get(self, name: str) -> pd.DataFrame | None:
        """Read the table of a figure; None where it was not drawn."""
        path = self.folder / f"{name}.csv"
        return pd.read_csv(path) if path.exists() else None

    def need(self, name: str) -> pd.DataFrame:
        """Read the table of a figure; InputError where it was not drawn."""
        if (found := self.get(name)) is None:
            raise InputError(
                f"page of study {self.study.name!r}",
                expected=f"the table of figure {name}",
                found=f"no {self.folder / f'{name}.csv'}",
                do=f"Draw it first: forgetlib draw {self.study.name}.",
            )
        return found


def findings(study: Study) -> str:
    """Say what a study found, in a few sentences that each name their evidence."""
    return "\n".join(f"- {sentence}" for sentence in _findings(Tables(study)))


def _findings(tables: Tables) -> Iterator[str]:
    skills = tables.need("fig2b_skill")
    pairs, flipped = tables.get("fig3_cross_task"), tables.get("fig8_flipped")
    yield _of_verdicts(skills, pairs)
    yield _of_forgetting_sets(skills)
    if (control := tables.get("fig2_control")) is not None:
        yield _of_control(control)
    if sentence := _of_fixed_answers(skills):
        yield sentence
    if pairs is not None and len(set(pairs["eval_task"])) > 1:
        yield _of_pairs(pairs, flipped, tables.study)
    if (claims := tables.get("claims")) is not None:
        yield _of_claims(claims)


def _of_verdicts(skills: pd.DataFrame, pairs: pd.DataFrame | None) -> str:
    after = skills[skills["phase"] == "random"]
    unknown = [title(t) for t in after.loc[after["verdict"] == NOTHING, "eval_task"]]
    said = f"**{fig2b.finding(skills)}** (95 % intervals; [Figure 2b](fig2b_skill.png))."
    if unknown:
        said += f" {listed(unknown)} {'was' if len(unknown) == 1 else 'were'} not shown to be known"
        said += " before, so that nothing can be said of forgetting there."
    forgotten = after.loc[(after["verdict"] == FORGOTTEN) & after["damage"].isna(), "eval_task"]
    if len(forgotten):
        said += " Harm elsewhere was not measured with these models: what is called forgotten may "
        said += "have gone with the language model itself."
        for task in forgotten:
            risen = _risen_by(task, pairs)
            if risen > DAMAGE:
                said += f" {title(task)}'s labels do such harm: they raise nats a token of other "
                said += f"tasks' true responses by {number(risen, 1)} (pairs, below)."
    return said


def _risen_by(task: str, pairs: pd.DataFrame | None) -> float:
    """Tell by how much a task's labels raise nats a token of others; NaN where not measured."""
    if pairs is None:
        return np.nan
    own = pairs["eval_task"] == pairs["forget_task"]
    return float(pairs.loc[(pairs["forget_task"] == task) & ~own, "nll_risen"].mean())


def _of_forgetting_sets(skills: pd.DataFrame) -> str:
    after = skills[skills["phase"] == "random"]
    fit = after.groupby("answer_format")["fit"].agg(["min", "max"])
    said = (
        "**On the forgetting set itself**, by the true labels: accuracy "
        f"{number(after['set_accuracy'].min())} to {number(after['set_accuracy'].max())}, AUROC "
        f"{number(after['set_auroc'].min())} to {number(after['set_auroc'].max())}."
    )
    words = {"text": "free", "verbaliser": "fixed"}
    fits = [
        f"{number(of['min'])} to {number(of['max'])} with {words[name]} answers"
        for name, of in fit.iterrows()
    ]
    return f"{said} The random labels are fitted to {' and '.join(fits)}."


def _of_control(control: pd.DataFrame) -> str:
    def mean(measure: str) -> str:
        found = intervals.mean_interval(control[measure].to_numpy())
        return estimate(pd.Series(intervals.as_columns("m", found)), "m")

    def shown(measure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        above = control[control[f"{measure}_low"] > 0].sort_values(measure, ascending=False)
        return above, above[above[f"{measure}_holm"] < LEVEL]

    heading = "Part of the loss is no matter of labels"
    if not intervals.mean_interval(control["lost_again"].to_numpy()).low > 0:
        heading = "The control by true labels"
    said = (
        f"**{heading}.** The same second training on *true* labels "
        f"costs {mean('lost_again')} of accuracy (mean of {len(control)} tasks), on random ones "
        f"{mean('lost')}. Within each seed, random labels cost {mean('beyond_true_labels')} more "
        f"of accuracy, and {mean('auroc_beyond_true_labels')} of AUROC"
    )
    above, certain = shown("auroc_beyond_true_labels")
    names = ", ".join(
        f"{title(r.eval_task)} {number(r.auroc_beyond_true_labels)}" for r in above.itertuples()
    )
    counts = f"{len(above)} of {len(control)} tasks by their own intervals"
    counts += f" ({names})" if len(above) else ""
    many = f"{len(certain)} when corrected for so many tests (Holm"
    seeds = int(control["n_seeds"].min())
    many += f", which {seeds} seeds can hardly pass)" if 1 < seeds < 4 else ")"
    return f"{said}; AUROC in {counts}, {many} ([control](fig2_control.png))."


def _of_fixed_answers(skills: pd.DataFrame) -> str:
    fixed = skills[skills["answer_format"] == "verbaliser"]
    if fixed.empty:
        return ""
    after = fixed[fixed["phase"] == "random"].set_index("eval_task")
    tuned = fixed[fixed["phase"] == "tuned"].set_index("eval_task")
    lost = after["accuracy_lost"].sort_values(ascending=False)
    parts = []
    for task in lost.index[:3]:
        of, before = after.loc[task], tuned.loc[task]
        parts.append(
            f"{title(task)}: accuracy {number(before['accuracy'])} to {number(of['accuracy'])}, "
            f"AUROC {number(before['auroc'])} to {number(of['auroc'])}, commonest answer "
            f"{number(before['commonest_share'])} to {number(of['commonest_share'])} of questions"
        )
    never = [title(t) for t, of in tuned.iterrows() if of["accuracy_low"] <= of["true_share"]]
    said = f"**With fixed answers** a bias moves accuracy, and not AUROC. {'; '.join(parts)}."
    if never:
        said += " Before forgetting, accuracy is not shown to beat one answer to everything in "
        said += f"{listed(never)}."
    return said


def _of_pairs(pairs: pd.DataFrame, flipped: pd.DataFrame | None, study: Study) -> str:
    others = pairs[pairs["eval_task"] != pairs["forget_task"]]
    n_seeds = len(study.seeds if study.cross_seeds is None else study.cross_seeds)
    seeds = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    said = (
        f"**Other tasks' random labels** ({len(others)} pairs, {seeds}) cost "
        f"{number(others['accuracy_lost'].mean())} of accuracy and "
        f"{number(others['auroc_lost'].mean())} of AUROC on average, and raise the nats a token "
        f"of the *true* responses by {number(others['nll_risen'].mean(), 1)}, most after those of "
    )
    by_labels = others.groupby("forget_task")["nll_risen"].mean().sort_values(ascending=False)
    said += listed(f"{title(t)} ({number(v, 1)})" for t, v in by_labels.head(2).items())
    if others["nll_risen"].mean() > DAMAGE:
        said += ": the language model itself is damaged"
    if flipped is not None and "accuracy_lost" in flipped:
        both = others.merge(flipped, on=["eval_task", "forget_task"], suffixes=("", "_flipped"))
        lost = number(both["accuracy_lost_flipped"].mean())
        said += f". Flipped labels cost {lost} of accuracy"
    if not study.cross_control:
        said += ". Without a control by true labels, this may be what any such training does"
    return f"{said} ([harm](fig3_harm.png))."


def _of_claims(claims: pd.DataFrame) -> str:
    counts = claims["verdict"].value_counts()
    words = {HOLDS: "hold", DOES_NOT_HOLD: "do not hold", NOT_DECIDED: "are not decided"}
    said = listed(f"{counts.get(verdict, 0)} {word}" for verdict, word in words.items())
    return (
        f"**Of the paper's claims**, as {len(claims)} statistics with thresholds of ours, {said} "
        "([table](#the-papers-claims))."
    )


def page(study: Study) -> str:
    """Write a study's page: findings, pictures, tables, what to distrust, provenance."""
    tables = Tables(study)
    parts = [
        f"# {study.description}",
        "*Written by `forgetlib page` from the tables in this folder. Terms: "
        "[the project's README](../../README.md#what-is-measured).*",
        "## What was found",
        findings(study),
        "## Every task",
        _task_table(tables.need("fig2b_skill")),
    ]
    if (claims := tables.get("claims")) is not None:
        parts += ["## The paper's claims", _claims_table(claims)]
    parts += ["## Pictures", _gallery(tables.folder), "## What to distrust", _distrust(tables)]
    return "\n\n".join([*parts, "## Provenance", _provenance(study)]) + "\n"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _task_table(skills: pd.DataFrame) -> str:
    phases = {name: of.set_index("eval_task") for name, of in skills.groupby("phase")}
    after = phases["random"].sort_values(["answer_format", "auroc_lost"])
    again = phases.get("true")
    header = ["task", "answers", "pre-trained", "fine-tuned", "random labels", "true labels again"]
    header += [
        "AUROC, fine-tuned",
        "AUROC, random labels",
        "forget ratio",
        "AUROC ratio",
        "verdict",
    ]
    header += ["paper (Llama-2-7B), after forgetting"]
    rows = []
    for task, of in after.iterrows():
        paper = PUBLISHED_FORGET_ACCURACY.get(str(task).removesuffix("_hub"), np.nan)
        rows.append(
            [
                title(str(task)),
                "free" if of["answer_format"] == "text" else "fixed",
                number(phases["base"].loc[task, "accuracy"]),
                number(phases["tuned"].loc[task, "accuracy"]),
                number(of["accuracy"]),
                number(again.loc[task, "accuracy"] if again is not None else np.nan),
                estimate(phases["tuned"].loc[task], "auroc"),
                estimate(of, "auroc"),
                estimate(of, "forget_ratio"),
                estimate(of, "auroc_ratio"),
                of["verdict"],
                "" if pd.isna(paper) else number(paper),
            ]
        )
    words = (
        "Accuracy on new questions where nothing else is said. A ratio is the share of what the "
        "fine-tuned model had above chance that was lost; - where it was not shown to have any, or "
        "no more than one answer to everything reaches."
    )
    return f"{_table(header, rows)}\n\n{words}"


def _claims_table(claims: pd.DataFrame) -> str:
    header = ["claim", "statistic", "value [95 % interval]", "holds if", "verdict", "paper"]
    rows = []
    for _, of in claims.iterrows():
        paper = "" if pd.isna(of["paper"]) else number(of["paper"])
        holds = f"{of['statement']} {of['threshold']:g}"
        rows.append(
            [
                of["claim"],
                of["statistic"],
                estimate(of.rename({"low": "value_low", "high": "value_high"}), "value"),
                holds,
                of["verdict"],
                paper,
            ]
        )
    words = (
        "A claim holds where the whole interval is on its side of its threshold, does not hold "
        "where all of it is on the other, and is not decided else. The thresholds are ours; their "
        "reasons are in `forgetlib/figures/claim_tests.py`. The paper's values are computed from "
        "its published accuracies where these suffice."
    )
    return f"{_table(header, rows)}\n\n{words}"


def _gallery(folder: Path) -> str:
    shown = {name: said for name, said in PICTURES.items() if (folder / f"{name}.png").exists()}
    rows = [[f"![{name}]({name}.png)", said] for name, said in shown.items()]
    return _table(["", ""], rows)


def _distrust(tables: Tables) -> str:
    study = tables.study
    skills = tables.need("fig2b_skill")
    after = skills[skills["phase"] == "random"].set_index("eval_task")
    said = [
        "**One learning rate for all.** The second training runs at "
        f"{study.forgetting.learning_rate:g} on {_weights(study)}. Where nats a token of unrelated "
        "text rise, a lost skill may be a damaged model.",
    ]
    if len(study.seeds) == 1:
        said.append("**One seed**: intervals are over its questions alone.")
    else:
        widths = (after["accuracy_high"] - after["accuracy_low"]).sort_values(ascending=False)
        names = listed(title(t) for t in widths.index[:3])
        said.append(
            f"**{len(study.seeds)} seeds are few.** Intervals over them (Student's t) are wide "
            f"where trainings end differently: most in {names}."
        )
    rules = tables.get("tasks")
    if rules is not None:
        best = rules.set_index("eval_task")[list(SHORTCUTS)].max(axis=1)
        reached = rules.set_index("eval_task")["forgotten"]
        names = listed(title(t) for t in best.index if best[t] >= reached[t])
        said.append(
            "**Rules that understand nothing** are as good as the model after forgetting in "
            f"{names or 'no task'} ([tasks](tasks.png))."
        )
    if sentence := _above_zero(study):
        said.append(sentence)
    if note := data_note(study):
        said.append(f"**Data.** {note}.")
    return "\n".join(f"- {line}" for line in said)


def _above_zero(study: Study) -> str:
    """Say how many stored log-likelihoods are above 0, which no probability has."""
    store = open_store(study, any_content=True)
    scores = (store.read(c, m).value for c, m, _ in store.origins() if m.readout == "scores")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which says the same of one file
        every = np.concatenate([found.log_likelihoods.ravel() for found in scores])
    above = every[every > MOST]
    if not len(above):
        return ""
    return (
        f"**Stored log-likelihoods above 0**: {len(above)} of {len(every)}, by up to "
        f"{number(above.max())} nats. An earlier version subtracted a rounded normaliser in bf16; "
        "sure answers are off by about as much. This version computes none."
    )


def _weights(study: Study) -> str:
    words = {
        "body": "all weights but the embeddings",
        "full": "all weights",
        "lora": "low-rank updates",
    }
    return words.get(study.tuning, study.tuning)


def _provenance(study: Study) -> str:
    """Say where the results come from: how many, of which machines, versions and days."""
    store = open_store(study, any_content=True)
    wanted = {key for job in study.jobs() for key in job.keys}
    found = [(c, p) for c, m, p in store.origins() if (c.id, m.id) in wanted]
    checkpoints = {c.id for c, _ in found}
    values = {k: sorted({str(p[k]) for _, p in found if p.get(k)}) for k in ("device", "torch")}
    dates = sorted(str(p["date"])[:10] for _, p in found if p.get("date"))
    days = f", {dates[0]} to {dates[-1]}" if dates else ""
    lines = [
        f"{len(checkpoints)} checkpoints, {len(found)} measurements{days}.",
        f"Machines: {'; '.join(values['device']) or 'not recorded'}.",
        f"torch {', '.join(values['torch']) or 'not recorded'}.",
        "Every row of [results](results) says which; `forgetlib verify` computes some again.",
    ]
    return " ".join(lines)


def write(study: Study) -> list[Path]:
    """Write a study's page, and its findings into the project's README where that has marks."""
    written = [figures_dir(study) / "README.md"]
    with replacing(written[0]) as partial:
        partial.write_text(page(study))
    readme = root() / "README.md"
    begin = BEGIN.format(study.name)
    if readme.exists() and begin in (text := readme.read_text()):
        before, rest = text.split(begin, 1)
        folder = f"figures/{study.name}"
        of_readme = findings(study).replace("](fig", f"]({folder}/fig")
        of_readme = of_readme.replace("](#", f"]({folder}/README.md#")
        with replacing(readme) as partial:
            partial.write_text(f"{before}{begin}\n{of_readme}\n{END}{rest.split(END, 1)[1]}")
        written.append(readme)
    return written
