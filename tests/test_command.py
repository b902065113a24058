"""Each word of the command, and what it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import MINE, in_place_of_tiny

import forgetlib
from forgetlib import listing, studies
from forgetlib.__main__ import main
from forgetlib.figures import fig2
from forgetlib.implicit import study as implicit
from forgetlib.models import loading
from forgetlib.runs import local, verify
from forgetlib.runs.grid import figures_dir, open_store
from forgetlib.runs.results import load_results, run
from forgetlib.studies import STUDIES, study

pytestmark = pytest.mark.usefixtures("brief_probes")


@pytest.fixture
def tiny_study(project, monkeypatch):
    """One of a second in the place of `tiny`."""
    monkeypatch.setitem(STUDIES, "tiny", in_place_of_tiny())
    return study("tiny")


@pytest.fixture
def mine(project, own_names, monkeypatch):
    (project / "mine.py").write_text(MINE)
    monkeypatch.chdir(project)
    return "mine.py"


def test_run_computes_and_reports(tiny_study, capsys, project):
    assert main(["run", "tiny"]) == 0
    said = r"tiny: {} jobs stored in .*figures/tiny/results, {} of them computed just now; "
    said += r"0\.0\d hours of work where they were computed\n"
    assert re.fullmatch(said.format(6, 6), capsys.readouterr().out)
    packed = project / "figures/tiny/results/tiny_city-0.parquet"
    assert packed.exists()
    assert main(["run", "tiny", "own", "cross"]) == 0
    assert re.fullmatch(said.format(3, 0), capsys.readouterr().out)


def test_stored_tells_by_the_exit_code(tiny_study, capsys):
    assert main(["stored", "tiny"]) == 1
    assert main(["run", "tiny", "own"]) == 0
    assert main(["stored", "tiny", "own"]) == 0
    assert main(["stored", "tiny", "own", "sizes"]) == 1
    capsys.readouterr()


def test_a_study_in_a_file_is_run_listed_and_drawn(mine, capsys, project):
    """With a task, a method and a model of its own choice."""
    assert main(["resolve", mine]) == 0
    assert capsys.readouterr().out == "mine\n"
    drawn_by = {mine: "notebooks fig7 claims", "methods": "notebooks/methods"}
    drawn_by |= {"tiny": "notebooks", "implicit-tiny": "notebooks/implicit pattern"}
    for name, words in drawn_by.items():
        assert main(["resolve", name, "--notebooks"]) == 0
        assert capsys.readouterr().out == f"{words}\n"
    assert main(["list", mine]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["checkpoint", "history", "stored", "n", "measurements"]
    assert len(lines) == 1 + 5 and "  0/4     -   scores odd/test, " in lines[1]
    assert main(["run", mine]) == 0
    assert capsys.readouterr().out.startswith("mine: 5 jobs stored in ")
    assert main(["list", mine]) == 0
    (edited,) = (line for line in capsys.readouterr().out.splitlines() if "shrink" in line)
    assert "tiny seed 0 odd:true > odd:shrink(factor=0.5)" in edited and "  2/2  " in edited
    assert main(["draw", mine, "fig2"]) == 0
    drawn = capsys.readouterr().out.split()
    assert drawn and {Path(path).parent for path in drawn} == {project / "figures/mine"}
    assert main(["stored", mine]) == 0


def test_list_shows_what_there_is(project, capsys):
    assert main(["list"]) == 0
    everything = capsys.readouterr().out
    for kind, some in {
        "studies": r"tiny +0/\d+ +two random layers, synthetic tasks +own \(0 of 12\), control",
        "tasks": r"sst2 .* paper",
        "models": r"gemma-3-270m +\d+ ",
        "methods": r"labels +\d+ +Train towards given responses",
        "measurements": r"scores +log_likelihoods (.|\n)*"
        r"\(view\) +few_shot +\d+ +k: int, after: int = 0, labels: str = 'true' +Show k solved",
    }.items():
        assert re.search(some, everything), kind
        assert main(["list", kind]) == 0
        table = capsys.readouterr().out
        assert re.search(some, table) and f"{kind}\n{table}" in everything


def test_of_a_study_only_what_is_not_complete_is_counted(project, tiny_study, capsys):
    run(tiny_study, "own", progress=False)
    n, every = len(tiny_study.jobs("own")), len(tiny_study.jobs())
    table = listing._study_row(tiny_study, tiny_study.sections, open_store(tiny_study).has)
    assert table["stored"] == f"{n}/{every}"
    assert re.match(rf"own, control \({n} of \d+\), ", table["sections"])


def test_what_is_stored_is_counted_by_what_it_is_of(project, tiny_study, capsys):
    def counted(kind, of, name):
        assert main(["list", kind, "--json"]) == 0
        return next(r["stored"] for r in json.loads(capsys.readouterr().out) if r[of] == name)

    assert counted("methods", "method", "labels") == 0
    run(tiny_study, "own", progress=False)
    jobs = tiny_study.jobs("own")
    made = {j.checkpoint.id for j in jobs if j.checkpoint.method}
    assert counted("methods", "method", "labels") == len(made)
    asked = {(j.checkpoint.id, m.id) for j in jobs for m in j.measurements if m.readout == "scores"}
    assert counted("measurements", "readout", "scores") == len(asked)


def test_whoever_has_seen_enough_may_stop_reading(project):
    command = f"{sys.executable} -m forgetlib list measurements | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("readout") and done.stderr == ""


def test_list_gives_a_script_the_rows_that_it_shows(project, capsys):
    assert main(["list", "--json"]) == 0
    everything = json.loads(capsys.readouterr().out)
    assert main(["list", "models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert models == everything["models"] and models[0]["model"] == "gemma-3-270m"
    assert main(["list", "models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(models)


def test_list_of_a_study_shows_the_ids_that_save_takes(tiny_study, capsys, tmp_path):
    run(tiny_study, "own", progress=False)
    assert main(["list", "tiny"]) == 0
    rows = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[2] for row in rows] == ["4/4", "6/6", "6/6", "0/3", "0/3", "0/3"]
    assert [row[0] for row in rows] == [j.checkpoint.id for j in tiny_study.jobs()]
    folder = tmp_path / "saved"
    assert main(["save", "tiny", rows[2][0][:10], str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    again = loading.load(str(folder), dtype="float32", device="cpu")
    stored = load_results(tiny_study, "own")[2].scores["tiny_city/test"]
    from forgetlib.data import splits
    from forgetlib.measuring import scoring

    scores = scoring.score(again, splits.load("tiny_city", "test", 24, 0))
    assert scores.log_likelihoods == pytest.approx(stored.log_likelihoods, abs=1e-4)


def test_draw_draws_what_is_stored_and_computes_nothing(tiny_study, capsys, monkeypatch):
    run(tiny_study, "own", progress=False)
    run(tiny_study, "control", progress=False)
    monkeypatch.setattr(local, "compute", lambda *a, **k: pytest.fail("computed"))
    assert main(["draw", "tiny", "fig2", "fig5"]) == 0
    drawn = {Path(path).name for path in capsys.readouterr().out.split()}
    assert {"fig2_forget_gap.csv", "fig2_forget_gap.pdf", "fig2_control.png"} <= drawn
    assert all((figures_dir(tiny_study) / name).exists() for name in drawn)


def test_verify_prints_a_row_a_set_and_fails_where_something_differs(
    tiny_study, capsys, monkeypatch
):
    run(tiny_study, "own", progress=False)
    assert main(["verify", "tiny", "2", "--seed", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["ok"] for row in rows) and len({row["checkpoint_id"] for row in rows}) == 2
    assert main(["verify", "tiny", "2", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 2 and lines[0].split()[-1] == "ok"
    compared = verify._compared
    monkeypatch.setattr(verify, "_compared", lambda *a: compared(*a).assign(ok=False))
    assert main(["verify", "tiny", "1"]) == 1


def test_cost_prints_a_row_a_model_and_computes_nothing(project, capsys):
    assert main(["cost", "tiny", "own", "--tflops", "0.001"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny: two random layers")
    assert out.count("\n") == 3
    assert main(["cost", "tiny", "own", "control", "--tflops", "0.001", "--json"]) == 0
    own, control = json.loads(capsys.readouterr().out)
    assert (own["section"], control["section"]) == ("own", "control")
    assert own["jobs_missing"] == sum(row["jobs"] for row in own["missing"]) > 0
    assert (own["jobs_stored"], own["hours_spent"], own["hours_estimated"]) == (0, 0, 0)
    assert not (project / ".work").exists()


def test_cache_lists_and_deletes_entries(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORGETLIB_CACHE", str(tmp_path / "cache"))
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cache'}\n"
    (tmp_path / "cache/model").mkdir(parents=True)
    (tmp_path / "cache/model/weights").write_bytes(b"0" * 2_000_000)
    (tmp_path / "cache/file").write_bytes(b"0" * 100_000)
    assert main(["cache"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "       0.1 MB  file",
        "       2.0 MB  model",
    ]
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(tmp_path / "cache"),
        "entries": [
            {"name": "file", "bytes": 100_000},
            {"name": "model", "bytes": 2_000_000},
        ],
    }
    assert main(["cache", "--delete", "file", "nothing"]) == 1  # and deletes neither
    assert (tmp_path / "cache/file").exists()
    assert "expected an entry: file, model, found 'nothing'" in capsys.readouterr().err
    assert main(["cache", "--delete", "model", "file"]) == 0
    assert list((tmp_path / "cache").iterdir()) == []


REFUSED = [
    (["run", "big"], "study: expected one of tiny, quick"),
    (["run", "tiny", "fig3"], "section of a study: expected one of own"),
    (["run", "no.py"], "study: expected a Python file that defines one, found no file"),
    (["run", "tiny", "--ray", "auto"], "computing on a cluster: expected the package ray"),
    (["draw", "big"], "study: expected one of"),
    (["draw", "tiny", "fig99"], "figure: expected one of fig1"),
    (["draw", "tiny", "fig2"], "results of study 'tiny': expected all 12 jobs of own to be stored"),
    (["readme", "big"], "study: expected one of"),
    (["readme", "tiny"], "findings of study 'tiny': expected the table of figure fig2b_skill"),
    (["page"], "figures: expected a folder with drawn figures, found none"),
    (["page", "big"], "expected a folder with drawn figures"),
    (["page", "no.py"], "study: expected a Python file that defines one, found no file"),
    (["cost", "big"], "study: expected one of"),
    (["cost", "tiny", "owm"], "section of a study: expected one of own"),
    (["cost", "tiny", "--tflops", "-1"], "--tflops: expected a number above 0"),
    (["verify", "big"], "study: expected one of"),
    (["verify", "tiny", "1"], "check of study 'tiny': expected stored jobs"),
    (["save", "tiny", "ffffffffffffffffff", "x"], "checkpoint of study 'tiny': expected the id of"),
    (["save", "tiny", "", "x"], "found '', which 31 of 31 have"),
    (["list", "taskss"], "list: expected one of studies, tasks"),
    (["list", "no.py"], "study: expected a Python file that defines one"),
    (["cache", "--delete", "nothing"], "expected an entry"),
    (["stored", "big"], "study: expected one of"),
    (["stored", "tiny", "fig3"], "section of a study: expected one of own"),
    (["resolve", "My study"], "study: expected one of"),
    (
        ["compare", "--original", "tiny", "--unlearned", "tiny", "--task", "tiny_city"],
        "models 'tiny' and 'tiny': expected two models, with different weights",
    ),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_is_wrong_is_said_in_a_line_without_a_traceback(project, capsys, monkeypatch, words,
                                                            message):  # fmt: skip
    monkeypatch.setenv("FORGETLIB_CACHE", str(project / "cache"))
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(words) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and message in shown.err
    assert "Traceback" not in shown.err and shown.out == ""


def test_every_command_has_refused_something_and_has_a_help(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    commands = re.findall(r"^    ([a-z]+)  ", capsys.readouterr().out, re.MULTILINE)
    assert set(commands) == {words[0] for words, _ in REFUSED}
    for command in commands:
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: forgetlib {command}")


@pytest.mark.parametrize("words", [[], ["compute"], ["run"], ["verify", "tiny", "two"]])
def test_what_is_no_command_is_refused_with_the_usage(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: forgetlib")


def test_the_module_is_the_command_and_root_says_where_results_are(tmp_path):
    command = [sys.executable, "-m", "forgetlib"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert done.stdout == f"{forgetlib.__version__}\n"
    done = subprocess.run(
        [*command, "--root", str(tmp_path), "stored", "quick"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    done = subprocess.run([*command, "list", "studies"], capture_output=True, text=True,
                          env=os.environ | {"FORGETLIB_ROOT": str(tmp_path)})  # fmt: skip
    rows = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert rows == [*studies.STUDIES, *implicit.STUDIES]


def test_the_table_of_a_section_is_the_one_that_was_run(tiny_study):
    assert main(["run", "tiny", "own"]) == 0
    table = fig2.table(load_results(tiny_study, "own"))
    assert table["eval_task"].tolist() == ["tiny_city"]
