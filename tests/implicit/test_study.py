"""A study of implicit inference by the command: listed, computed, checked, drawn and told."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from forgetlib import studies
from forgetlib.__main__ import main
from forgetlib.errors import InputError
from forgetlib.figures import findings, readme
from forgetlib.figures.implicit import (
    drawing as implicit_drawing,
    readme as implicit_readme,
    shift as implicit_shift,
    stored as implicit_stored,
)
from forgetlib.figures.implicit.measures import judged
from forgetlib.figures.numbers import estimate_of
from forgetlib.implicit import evaluate, obey, results, run, settings, study
from forgetlib.implicit.obey import Obedience
from forgetlib.implicit.settings import named
from forgetlib.implicit.study import STUDIES, ImplicitStudy

BRIEF = replace(
    named("implicit-tiny"), name="brief", steps=4, tuning_steps=2, alone_steps=2, n_prompts=64
)
CHECKED = ["job", "device", "device_again", "same_origin", "n", "difference", "ok"]


@pytest.fixture
def brief(project, monkeypatch):
    """A study that takes a moment, in a folder of its own."""
    monkeypatch.setitem(settings.NAMED, "brief", BRIEF)
    chosen = ImplicitStudy("brief", "a moment", (0,), (0.2,), ())
    monkeypatch.setitem(STUDIES, "brief", chosen)
    return chosen


def test_it_is_computed_once_and_the_command_says_what_there_is(brief, capsys):
    assert main(["stored", "brief"]) == 1
    assert main(["cost", "brief"]) == 0
    assert "3 jobs are missing (hours unknown)" in capsys.readouterr().out
    assert main(["run", "brief", "regression"]) == 0
    assert "1 jobs stored, 1 of them computed just now" in capsys.readouterr().out
    assert main(["stored", "brief", "regression"]) == 0 and main(["stored", "brief"]) == 1
    assert main(["cost", "brief", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["jobs_missing"] == 2 and told["jobs_stored"] == 1
    # By what the other took: a control needs the same models.
    assert told["hours_missing"] == pytest.approx(2 * told["hours_spent"], abs=0.01)
    assert main(["run", "brief"]) == 0 and main(["run", "brief"]) == 0
    said = capsys.readouterr().out
    assert "2 of them computed just now" in said and "0 of them computed just now" in said
    assert main(["list", "brief", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["section"], row["stored"]) for row in rows] == [
        ("regression", True),
        ("control", True),
        ("weights", True),
    ]
    assert main(["cost", "brief"]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    assert main(["resolve", "brief", "--notebooks"]) == 0
    assert capsys.readouterr().out == "notebooks/implicit pattern\n"


def test_what_was_stored_comes_out_again_and_what_was_changed_is_found_out(brief, capsys):
    study.run(brief)
    found = study.verify(brief, 3)
    assert list(found.columns) == CHECKED
    assert found.ok.all() and found.same_origin.all() and (found.difference == 0).all()
    assert not (run.work(replace(BRIEF, name="brief-again"))).exists()
    path = study.path_of(brief.jobs("regression")[0])
    errors, (setting, about) = results.read_file(path), results.about(path)
    errors["error"] *= 1.001
    results.put(path, errors, setting, about)
    assert main(["verify", "brief", "3", "--json"]) == 1
    assert [row["ok"] for row in json.loads(capsys.readouterr().out)] == [False, True, True]
    results.put(path, errors, setting, about | {"device": "another"})  # sums in another order
    assert study.verify(brief, 3).ok.all()
    with pytest.raises(InputError, match="from 1 to 3 jobs"):
        study.verify(brief, 4)


def test_the_control_is_fitted_to_the_models_that_the_setting_trains(brief):
    study.run(brief, "control")  # alone: what is missing is trained
    setting = brief.jobs("regression")[0]
    path = results.path_of(setting, "controls")
    models = run.trained(setting, quiet=True)
    first, never = (run.predictor(models[name]) for name in ("pre-trained", "discrete-only"))
    found = results.read_file(path)
    assert list(found.columns) == ["key", *results.TABLES["controls"]]
    of = {model: rows.reset_index(drop=True) for model, rows in found.groupby("model")}
    columns = list(results.TABLES["shifts"])
    expected = evaluate.shifts(setting, first, never)
    pd.testing.assert_frame_equal(of["discrete-only"][columns], expected)
    study.run(brief)
    stored = results.read_file(results.path_of(setting, "shifts"))
    pd.testing.assert_frame_equal(of["fine-tuned"][columns], stored[columns])
    changed = found.assign(change=found.change * 1.001)
    results.put(path, changed, *results.about(path))
    assert study.verify(brief, 3).ok.tolist() == [True, False, True]


def test_a_real_model_that_was_tuned_comes_out_again(brief, monkeypatch):
    obeying = Obedience("tiny", 4, 2, through=("plain",), study="brief")
    chosen = replace(brief, obeying=(obeying,))
    table = pd.DataFrame({name: ["x"] for name in results.TABLES["patterns"]})
    table = table.assign(seed=0, pattern=-1.0, instruction=-2.0, distance=1.0)
    about = {"device": "one", "threads": 1, "torch": "2", "seconds": 36.0, "date": "2026-01-01"}
    monkeypatch.setattr(obey, "answers", lambda *_, **__: (table, about))
    assert study.run(chosen, "pattern") == 1 and study.run(chosen, "pattern") == 0
    assert study.estimate(chosen, "pattern")["hours_spent"] == 0.01
    assert study.verify(chosen, 1).ok.all()
    monkeypatch.setattr(obey, "answers", lambda *_, **__: (table.assign(pattern=-1.1), about))
    assert not study.verify(chosen, 1).ok.any()
    # In a folder of its own, and by the same key: the folder changes no number.
    assert study.path_of(obeying).parts[-3:-1] == ("brief", "patterns")
    assert replace(obeying, study="implicit").key == obeying.key


@pytest.mark.parametrize("command", ["run", "cost", "stored"])
def test_a_section_that_there_is_not_is_told_before_anything_is_done(command, brief, capsys):
    assert main([command, "brief", "regression", "pattren"]) == 1
    assert "Did you mean 'pattern'?" in capsys.readouterr().err
    assert not results.folder("brief").exists()


@pytest.mark.parametrize("option", [["--ray", "auto"], ["--keep-weights"]])
def test_an_option_that_it_has_no_use_for_is_not_passed_over(option, brief, capsys):
    assert main(["run", "brief", *option]) == 1
    assert f"found {' '.join(option)}" in capsys.readouterr().err
    assert not results.folder("brief").exists()


def test_what_cannot_be_drawn_is_told(brief, capsys):
    assert main(["draw", "brief"]) == 1
    said = capsys.readouterr().err
    assert "expected all 1 jobs of regression stored, found 0" in said
    assert "forgetlib run brief regression" in said
    study.run(brief)
    assert main(["draw", "brief", "shfit"]) == 1
    assert "Did you mean 'shift'?" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of seeds"):
        implicit_stored.stored(brief, [7])


def test_where_it_is_no_study_of_language_models_that_is_said():
    with pytest.raises(InputError, match="forgetlib list, run, draw, readme, cost or verify"):
        studies.study("implicit")
    with pytest.raises(InputError, match="Did you mean 'implicit'"):
        studies.study("implict")


def test_without_a_real_model_and_far_from_bayes_nothing_is_claimed(brief):
    study.run(brief)
    drawn = {path.stem for path in implicit_drawing.drawn(brief)}
    assert drawn == set(implicit_drawing.FIGURES) - {"pattern"}
    tables = findings.Tables(results.folder("brief"))
    assert "A real model" not in implicit_readme.answer(tables)
    claims = tables.need("claims")
    assert set(claims.why) == {"needs models within 10 % of Bayes (the gate)"}
    assert implicit_readme.answer(tables).startswith("Nothing is claimed, as this needs models")
    assert implicit_readme.findings(tables).startswith("- **Nothing is claimed, as this needs")
    said = readme.text(brief)
    assert said.startswith("# a moment\n") and "3 of 3 jobs, " in said and "pattern.png" not in said
    assert "A small world is small" in said and "ten seeds" not in said


def test_the_mixture_weight_that_does_not_meet_the_gate_is_the_one_that_is_named():
    errors = implicit_stored.stored(STUDIES["implicit"]).errors
    short = [alpha for alpha in sorted(set(errors["alpha"])) if not judged(errors, alpha).met]
    seeds = errors.groupby("alpha")["seed"].nunique()
    others = ", ".join(str(alpha) for alpha in short)
    assert f"and {others} does not meet the gate" in implicit_readme.OF_IMPLICIT
    assert set(seeds.drop(0.5)) == {1}


def test_what_is_said_of_seeds_that_do_not_meet_the_gate_is_in_the_stored_results():
    chosen = STUDIES["implicit"]
    there = implicit_stored.stored(chosen)
    assert there.gate.met and there.gate.left_out == (4, 6, 8)
    every = set(chosen.seeds) - {4, 6, 8}
    for table in (there.own, there.shifts, there.controls):
        assert set(table["seed"]) == every
    own = there.errors[there.errors["alpha"] == there.alpha]
    short = evaluate.gate(own).query("not met")
    assert set(short["seed"]) == {4, 6, 8}
    assert set(zip(short["kind"], short["k"], strict=True)) == {("discrete", 10)}
    said = " ".join(implicit_readme.OF_IMPLICIT.split())
    assert f"error {short['ratio'].min():.2f} to {short['ratio'].max():.2f} times Bayes'" in said
    of_all = [results.read("implicit", name) for name in ("shifts", "controls")]
    row = implicit_shift.table(of_all[0], there.alpha, of_all[1])
    row = row[row["k"] == implicit_shift.ALL].iloc[0]
    assert row["n_seeds"] == len(chosen.seeds)
    assert f"the shift is {implicit_shift.nats(row)} and explains" in said
    assert f"and explains {estimate_of(row, 'share')}, less than a fade" in said
    assert row["beyond_fade_high"] < 0
    assert f"(the difference: {estimate_of(row, 'beyond_fade')})" in said
    short_one = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    assert f"(of ten seeds the {len(every)} whose models come within 10 % of it)" in short_one


def committed():
    """The tables of the committed study."""
    return findings.Tables(results.folder("implicit"))


def test_the_answer_follows_the_numbers():
    said = implicit_readme.answer(committed())
    assert said.startswith(
        "A shift of the guess by 3.88 [3.42, 4.34] nats towards the tasks of fin"
    )
    assert "not shown to be more than the 0.77 that a fade of all answers explains (diff" in said
    assert "nats at 10, and so no single wrong guess ([shift](shift.png))" in said
    assert "the pattern falls by 1.00 (on all of 300 prompts; per token 0.82 [0.75, 0.88])" in said
    assert "leetspeak brings some of it back, 0.85 [0.79, 0.91] (per token 0.50 [" in said
    assert "Pig Latin does so by whole answers alone, 0.46 [0.38, 0.55] (per token 0.01 [" in said
    assert said.endswith("The pattern is still there, or the instruction is not understood.")
    every = implicit_readme.findings(committed())
    assert "in Pig Latin the pattern's answer is the shorter, 2.0 tokens on average" in every
    assert "in 2 other forms the tuned model's share is 0.00 to 0.01 ([pattern]" in every
    assert "in the same way, they close 0.39 [0.28, 0.45] ([conjugate]" in every

    class Changed(findings.Tables):
        def get(self, name):
            found = super().get(name)
            if name == "shift":
                found = found.assign(beyond_fade_low=0.01, moved_low=1.0, moved_high=9.0)
            if name == "pattern":
                found = found.assign(back_low=-0.1)
            return found.assign(recovered=float("nan")) if name == "conjugate" else found

    said = implicit_readme.answer(Changed(results.folder("implicit")))
    assert ", more than the 0.77 that a fade of all answers explains (difference: " in said
    assert "]); the shift is 2.18 [" in said
    assert "no single wrong guess" not in said and "Scaling" not in said
    assert "no view is shown to bring it back" in said and "still there" not in said
    every = implicit_readme.findings(Changed(results.folder("implicit")))
    assert "in 4 forms the tuned model's share is" in every


def test_longer_prompts_are_a_claim_that_was_made_later():
    claims = committed().need("claims")
    near = claims[claims.claim == "near-harmed-most"]
    assert near.post_hoc.tolist() == [False, True]
    assert near.statistic.str.endswith("k = 10").tolist() == [False, True]
