"""The README of a study of methods says what its tables say."""

import re
import shutil
from dataclasses import replace

import made_up_methods as made_up
import pytest
from test_collateral import of_checks
from test_forms_figure import SKILL, ladder
from test_rungs import LOCKS, RUNGS, TRUTHS, seeds, with_lock

from forgetlib.errors import InputError
from forgetlib.figures import verdicts
from forgetlib.figures.findings import Tables
from forgetlib.figures.methods import (
    collateral,
    dose,
    forms,
    generalisation,
    price,
    readme as methods_readme,
    relearning,
    rungs,
)
from forgetlib.figures.methods.reach import NEW, OTHER
from forgetlib.figures.methods.rungs import DIRECT, Ladder, Rung
from forgetlib.figures.numbers import estimate_of

EIGHT, FOUR = Rung("8 bits", "quantised"), Rung("4 bits", "quantised")
FEW = "relearned from 8"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The tables of a made-up study, as they are drawn: of one skill, and of doses of it."""
    folder = tmp_path_factory.mktemp("made-up")
    results = made_up.results()
    reach = generalisation.table(made_up.STUDY, results, made_up.answers, n_resamples=100)
    of = reach[reach["eval_task"] == "sst2_nonce"]
    of.to_csv(folder / "generalisation_sst2_nonce.csv", index=False)
    price.table(reach).to_csv(folder / "price.csv", index=False)
    summary = dose.summary(made_up.STUDY, results, made_up.answers, n_resamples=100)
    curves = dose.curves(made_up.STUDY, results).merge(summary, how="outer", sort=False)
    curves[curves["eval_task"] == "sst2_nonce"].to_csv(folder / "dose_sst2_nonce.csv", index=False)
    return Tables(folder)


def rows(drawn):
    lines = [line for line in methods_readme.table(drawn).splitlines() if line.startswith("| ")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_every_method_has_a_row_with_its_numbers(drawn):
    found = rows(drawn)
    table = drawn.need("generalisation_sst2_nonce")
    assert len(found) == len(made_up.TRUTH) == len(set(table["method"]))
    ascent = table[(table["method"] == "gradient_ascent") & (table["where"] == NEW)].iloc[0]
    assert found["gradient ascent"][NEW] == estimate_of(ascent, "auroc_lost")
    assert found["gradient ascent"]["dose"] == "overshot"
    assert found["NPO"]["dose"] == "not reached"
    assert found["random labels"]["dose"].endswith("5 of 5")
    assert found["random labels"]["ladder's verdict"] == "-"  # its ladder was not drawn


def test_a_method_without_a_training_may_reach_the_dose_in_some_seeds(drawn, tmp_path):
    for file in drawn.folder.iterdir():
        shutil.copy(file, tmp_path)
    table = drawn.need("dose_sst2_nonce")
    some = table["method"] == "npo"
    table = table.assign(n_reached=table["n_reached"].mask(some, 4))
    table.to_csv(tmp_path / "dose_sst2_nonce.csv", index=False)
    assert rows(Tables(tmp_path))["NPO"]["dose"] == "no training, 4 of 5"


def test_findings_are_the_figures_sentences_and_name_their_pictures(drawn):
    counts, _, found = methods_readme.findings(drawn).rpartition("\n\n")
    first, _, table = counts.partition("\n\n")
    assert first.endswith("([price](price.png)). Other tasks are SciQ and COPA.")
    costs = drawn.need("price")
    assert table == price.counts(costs)
    said = found.splitlines()
    assert len(said) == 3 and all(line.startswith("- ") for line in said)
    own = price.finding(costs[costs["eval_task"] == "sst2_nonce"])
    assert said.pop(0) == f"- {own[:-1]} ([price](price.png))."
    table = drawn.need("generalisation_sst2_nonce")
    assert generalisation.finding(table, exact=True) in said[0]
    assert said[0].endswith("(generalisation_sst2_nonce.png)).")
    assert "not reached by NPO" in said[1] and said[1].endswith("(dose_sst2_nonce.png)).")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("sciq, copa", " Other tasks are SciQ and COPA."),
        (
            "coding",
            " Other tasks are Coding for ARC Easy; SciQ and COPA for SST-2 in made-up words.",
        ),
        (None, " Other tasks are SciQ and COPA."),  # harm was not measured there
    ],
)
def test_the_tasks_on_which_harm_is_read_are_named(drawn, tmp_path, asked, told):
    shutil.copytree(drawn.folder, tmp_path / "more")
    table = drawn.need("generalisation_sst2_nonce").assign(eval_task="arc_easy")
    table.loc[table["where"] == OTHER, "asked"] = asked
    table = table if asked else table.assign(nll_rise=float("nan"))
    table.to_csv(tmp_path / "more" / "generalisation_arc_easy.csv", index=False)
    said = methods_readme.findings(Tables(tmp_path / "more"))
    assert said.splitlines()[0].endswith(told)
    assert re.findall("^### On (.*)\n\n- ", said, re.M) == ["ARC Easy", "SST-2 in made-up words"]


def test_what_is_left_at_equal_harm_is_told_where_it_was_drawn(drawn):
    found = collateral.trajectories(made_up.STUDY, of_checks(made_up.STUDY), made_up.answers)
    left = collateral.table(found, n_resamples=50)
    whole = collateral.curves(found).merge(left.drop(columns="trained"), on=["eval_task", "method"])
    path = drawn.folder / "collateral_sst2_nonce.csv"
    whole[whole["eval_task"] == "sst2_nonce"].to_csv(path, index=False)
    said = methods_readme.findings(drawn).splitlines()[-1]
    path.unlink()
    finding = collateral.finding(left[left["eval_task"] == "sst2_nonce"])
    assert said == f"- {finding} ([collateral](collateral_sst2_nonce.png))."


def test_other_forms_are_told_where_they_were_drawn(drawn):
    asked = forms.table({("sst2_nonce", "npo"): ladder(SKILL)})
    path = drawn.folder / "forms_sst2_nonce.csv"
    asked.to_csv(path, index=False)
    last = methods_readme.findings(drawn).splitlines()[-1]
    assert last == f"- {forms.finding(asked)} ([other forms](forms_sst2_nonce.png))."
    path.unlink()


def test_the_answer_is_what_little_training_brings_back_where_that_tells_anything(drawn):
    counts = f"{price.counts(drawn.need('price'))}\n\nBy 95 % intervals ([price](price.png))."
    assert methods_readme.answer(drawn) == counts
    gone, back = verdicts.REMOVED, verdicts.SUPPRESSED
    cases = [(truth, "", seeds(*TRUTHS[truth])) for truth in (gone, back)]
    cases += [(gone, lock, with_lock(gone, skills)) for lock, (skills, _) in LOCKS.items()]
    for truth, lock, every in cases:
        tells = truth == back or lock
        of_method = {("sst2_nonce", "npo"): Ladder(every, RUNGS, 300)}
        table = rungs.table(of_method)
        summary = rungs.summary(of_method).drop(columns="n_seeds")
        path = drawn.folder / "ladder_sst2_nonce.csv"
        table.merge(summary, on=["eval_task", "method"]).to_csv(path, index=False)
        said, lines = methods_readme.answer(drawn), methods_readme.findings(drawn).splitlines()
        path.unlink()
        again = f"{relearning.finding(table)} ([relearning](relearning_sst2_nonce.png))."
        assert again.startswith("Trained again on 8 labels") and " after NPO" in again
        assert ("hidden on purpose" in again) == bool(lock)
        brief = f"{relearning.finding(table, exact=False)} ([relearning]("
        assert said.startswith(brief) if tells else said == counts
        assert "AUROC of never-taught" in again and "AUROC of never-taught" not in brief
        assert f"- {again}" in lines


def test_rounded_weights_have_a_column_each(drawn):
    seeds = [replace(seed, models=_rounded(seed.models)) for seed in ladder(SKILL).seeds]
    of = Ladder(seeds, (DIRECT, EIGHT, FOUR), n_resamples=100)
    of_method = {("sst2_nonce", "npo"): of}
    table = rungs.table(of_method)
    summary = rungs.summary(of_method).drop(columns="n_seeds")
    path = drawn.folder / "ladder_sst2_nonce.csv"
    table.merge(summary, on=["eval_task", "method"]).to_csv(path, index=False)
    found = rows(drawn)
    path.unlink()
    of_four = table[table["rung"] == "4 bits"].iloc[0]
    assert found["NPO"]["4 bits"] == estimate_of(of_four, "forgotten")
    assert found["NPO"]["AUROC left"] == estimate_of(summary.iloc[0], "auroc")
    assert found["NPO"]["8 bits"] != found["NPO"]["4 bits"]
    assert found["random labels"]["4 bits"] == "-"


def _rounded(models):
    """Models whose scores with 8 bits are those of one form, and with 4 of another."""
    return {
        role: tuple(
            replace(m, rungs={**m.rungs, "8 bits": m.rungs["capitals"], "4 bits": m.rungs[FEW]})
            for m in of_role
        )
        for role, of_role in models.items()
    }


def test_a_study_of_which_nothing_was_drawn_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected the table of figure generalisation"):
        methods_readme.findings(Tables(tmp_path))
