"""Write what a study found as Markdown: figures/<study>/README.md, from its figures' tables.

The project's README has one study's answer and findings, each between two marks, from here too.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from forgetlib.figures import findings
from forgetlib.figures.audit import SHORTCUTS
from forgetlib.figures.findings import Tables
from forgetlib.figures.implicit import readme as implicit_readme
from forgetlib.figures.methods import readme as methods_readme
from forgetlib.figures.names import listed, pictures_in, title
from forgetlib.figures.numbers import between, estimate, estimate_of, markdown, number
from forgetlib.figures.published import published_of
from forgetlib.figures.scale import readme as scale_readme
from forgetlib.figures.statements import value_of
from forgetlib.figures.verdicts import NOTHING
from forgetlib.files import replacing, root
from forgetlib.implicit.study import ImplicitStudy, is_stored, provenance_of
from forgetlib.measuring.base import ROUNDING
from forgetlib.metrics import CHANCE
from forgetlib.runs.grid import Study, open_store
from forgetlib.runs.ladder import LadderStudy
from forgetlib.runs.results import data_note, has_all
from forgetlib.runs.scale import ScaleStudy

OF_SEVERAL = (
    "What one model cannot decide of families, predictors and models is asked of several in the "
    "study `scale`."
)
CLAIMS = (
    "A claim holds where the whole interval is on its side of its threshold, and does not hold "
    "where all of it is on the other. Else this study did not decide it; it could not have "
    "where its power was below 0.8: the chance that the claim's interval would be on its side "
    "if the claim were true, and as strong as was supposed. Thresholds and suppositions are "
    "ours, with reasons in `forgetlib/figures/thresholds.py`; post hoc are those stated after "
    "the study was computed. The paper's values are computed from its published accuracies "
    "where these suffice."
)
IMPLICIT_CLAIMS = (
    f"{CLAIMS.partition(' Thresholds')[0]} Thresholds and suppositions are ours, with reasons in "
    "`forgetlib/figures/implicit/claims.py` and `pattern.py`; post hoc are those stated "
    "after the first results were computed. Errors are squared; those of Bayes' rule are in "
    "`bayes.csv`."
)
TOLD_BY: dict[type, ModuleType] = {  # any other study by `findings`
    LadderStudy: methods_readme,
    ScaleStudy: scale_readme,
    ImplicitStudy: implicit_readme,
}
# Around what the project's README has of a study: its answer, and its findings.
BEGIN, END = "<!-- {} of {}: written by forgetlib readme -->", "<!-- end of {} -->"


def text(study: Study | ImplicitStudy) -> str:
    """Write a study's README: findings, pictures, tables, what to distrust, provenance."""
    tables = Tables(root() / "figures" / study.name)
    parts = [
        f"# {study.description}",
        "*Written by `forgetlib readme` from the tables in this folder. Terms: "
        "[how to read the figures](../README.md#what-is-measured).*",
        "## What was found",
    ]
    if isinstance(study, ImplicitStudy):
        parts.insert(2, implicit_readme.ABOUT)
        parts += [implicit_readme.findings(tables)]
        if (claims := tables.get("claims")) is not None:
            parts += ["## The claims", _claims_table(claims, IMPLICIT_CLAIMS)]
        parts += ["## Pictures", _gallery(tables)]
        parts += ["## What to distrust", implicit_readme.distrust(study.name)]
        return "\n\n".join([*parts, "## Provenance", _of_jobs(study)]) + "\n"
    if isinstance(study, LadderStudy):
        parts += [methods_readme.findings(tables), "## Every method", methods_readme.table(tables)]
        parts += ["## Pictures", _gallery(tables)]
    elif isinstance(study, ScaleStudy):
        every = "## Every task and model"
        parts += [scale_readme.findings(tables), every, scale_readme.table(tables)]
        if (claims := tables.get("scale_claims")) is not None:
            parts += ["## The paper's claims", _claims_table(claims)]
        parts += ["## Pictures", _gallery(tables)]
        parts += ["## What to distrust", scale_readme.DISTRUST]
    else:
        skills = tables.need("fig2b_skill")
        if not has_all(study):
            n = f"{skills['eval_task'].nunique()} of {len(study.tasks)} tasks"
            parts[0] += f" (under way: {n})"
        parts += [findings.findings(tables), "## Every task", _task_table(skills)]
        if (claims := tables.get("claims")) is not None:
            parts += ["## The paper's claims", _claims_table(claims)]
            parts += [OF_SEVERAL] if len(study.models) == 1 else []
        parts += ["## Pictures", _gallery(tables), "## What to distrust", _distrust(study, tables)]
    return "\n\n".join([*parts, "## Provenance", _provenance(study)]) + "\n"


def _task_table(skills: pd.DataFrame) -> str:
    phases = {name: of.set_index("eval_task") for name, of in skills.groupby("phase")}
    after = phases["random"].sort_values(["answer_format", "auroc_lost"])
    again = phases.get("true")
    header = ["task", "answers", "pre-trained", "fine-tuned", "random labels", "true labels again"]
    header += [
        "a token, fine-tuned",
        "a token, random labels",
        "AUROC, fine-tuned",
        "AUROC, random labels",
        "forget ratio",
        "AUROC ratio",
        "verdict",
    ]
    header += ["paper (Llama-2-7B), after forgetting"]
    rows = []
    for task, of in after.iterrows():
        paper = published_of(str(task))
        rows.append(
            [
                title(str(task)),
                "free" if of["answer_format"] == "text" else "fixed",
                number(phases["base"].loc[task, "accuracy"]),
                number(phases["tuned"].loc[task, "accuracy"]),
                number(of["accuracy"]),
                number(again.loc[task, "accuracy"] if again is not None else np.nan),
                number(phases["tuned"].loc[task, "accuracy_a_token"]),
                number(of["accuracy_a_token"]),
                estimate_of(phases["tuned"].loc[task], "auroc"),
                estimate_of(of, "auroc"),
                estimate_of(of, "forget_ratio"),
                estimate_of(of, "auroc_ratio"),
                of["verdict"],
                "" if pd.isna(paper) else number(paper),
            ]
        )
    words = (
        "Accuracy on new questions where nothing else is said; a token: by the log-likelihood a "
        f"token, as sums favour short responses.{_known_a_token(after, phases['tuned'])} A ratio "
        "is the share of what the fine-tuned model had above chance that was lost; - where it was "
        "not shown to have any, or no more than one answer to everything reaches."
    )
    return f"{markdown(header, rows)}\n\n{words}"


def _known_a_token(after: pd.DataFrame, tuned: pd.DataFrame) -> str:
    """Say which tasks are shown to be known by this accuracy alone; by task, both."""
    unknown = after.index[after["verdict"] == NOTHING]
    floor = tuned["true_share"].fillna(CHANCE).clip(lower=CHANCE)
    known = [title(str(t)) for t in unknown if tuned.loc[t, "accuracy_a_token_low"] > floor[t]]
    return f" So counted, {listed(known)} had something to forget too." if known else ""


def _claims_table(claims: pd.DataFrame, about: str = CLAIMS) -> str:
    header = ["claim", "statistic", "value [95 % interval]", "over", "holds if", "verdict", "why"]
    header.append("paper")
    rows = []
    for _, of in claims.iterrows():
        paper = "" if pd.isna(of["paper"]) else number(of["paper"])
        holds = f"{of['statement']} {of['threshold']:g}"
        rows.append(
            [
                of["claim"],
                of["statistic"],
                estimate(value_of(of)),
                f"{of['n']:g} {of['unit']}" if of["n"] > 0 else "",
                holds,
                of["verdict"] + (" (post hoc)" if of["post_hoc"] else ""),
                "" if pd.isna(of["why"]) else of["why"],
                paper,
            ]
        )
    return f"{markdown(header, rows)}\n\n{about}"


def _gallery(tables: Tables) -> str:
    """Show the pictures that were drawn; Figure 9 compares models, and is nothing with one."""
    models = tables.get("fig9_models")
    alone = models is not None and len(set(models["model"])) == 1
    rows = [
        [f"![{path.stem}]({path.name})", said]
        for path, said in pictures_in(tables.folder)
        if not (alone and path.stem == "fig9_models")
    ]
    return markdown(["", ""], rows)


def _distrust(study: Study, tables: Tables) -> str:
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
        names = listed(title(t) for t in widths.index[: min(3, len(widths) - 1)])
        said.append(
            f"**{between(skills['n_seeds'], 0)} seeds are few.** Intervals over them (Student's t) "
            f"are wide where trainings end differently{f': most in {names}' * bool(names)}."
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
    scores = (store.read(c, m).value for c, m, _ in store.sources() if m.readout == "scores")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which says the same of one file
        every = np.concatenate([found.log_likelihoods.ravel() for found in scores])
    above = every[every > ROUNDING]
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
    found = [(c, p) for c, m, p in store.sources() if (c.id, m.id) in wanted]
    checkpoints = {c.id for c, _ in found}
    values = {k: sorted({str(p[k]) for _, p in found if p.get(k)}) for k in ("device", "torch")}
    dates = sorted(str(p["date"])[:10] for _, p in found if p.get("date"))
    days = f", {_days(dates)}" if dates else ""
    lines = [
        f"{len(checkpoints)} checkpoints, {len(found)} measurements{days}.",
        f"Machines: {'; '.join(values['device']) or 'not recorded'}.",
        f"torch {', '.join(values['torch']) or 'not recorded'}.",
        "Every row of [results](results) says which; `forgetlib verify` computes some again.",
    ]
    return " ".join(lines)


def _days(dates: list[str]) -> str:
    """Write the first and the last of days in order, or the only one."""
    return " to ".join(dict.fromkeys((dates[0], dates[-1])))


def _of_jobs(study: ImplicitStudy) -> str:
    """Say where the results of a study of implicit inference come from."""
    there = [job for job in study.jobs() if is_stored(job)]
    found = [provenance_of(job) for job in there]
    values = {k: listed(sorted({str(of[k]) for of in found})) for k in ("device", "torch")}
    days = sorted(of["date"][:10] for of in found)
    return (
        f"{len(there)} of {len(study.jobs())} jobs, {_days(days)}. Machines: "
        f"{values['device']}. torch {values['torch']}. Every file of [results](results) says which."
    )


def write(study: Study | ImplicitStudy) -> list[Path]:
    """Write a study's README, and what the project's README has of it, where that has marks."""
    tables = Tables(root() / "figures" / study.name)
    written = [tables.folder / "README.md"]
    with replacing(written[0]) as partial:
        partial.write_text(text(study))
    readme = root() / "README.md"
    told = next((of for kind, of in TOLD_BY.items() if isinstance(study, kind)), findings)
    parts = {"answer": told.answer, "findings": told.findings}
    said = before = readme.read_text() if readme.exists() else ""
    for name, make in parts.items():
        begin, end = BEGIN.format(name, study.name), END.format(name)
        if begin in said:
            head, rest = said.split(begin, 1)
            part = _from_above(make(tables), f"figures/{study.name}")
            said = f"{head}{begin}\n{part}\n{end}{rest.split(end, 1)[1]}"
            written.append(readme)
    if said != before:
        with replacing(readme) as partial:
            partial.write_text(said)
    return list(dict.fromkeys(written))


def _from_above(text: str, folder: str) -> str:
    """Make a text's links to pictures, and to headings of its own file, those of the project's."""
    text = re.sub(r"\]\((?=[a-z0-9_]+\.png)", f"]({folder}/", text)
    return text.replace("](#", f"]({folder}/README.md#")
