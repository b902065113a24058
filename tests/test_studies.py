"""Studies by name, variations of them, and those in a file of one's own."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import MINE, in_place_of_tiny, same_results, small

import forgetlib
from forgetlib.data import tasks
from forgetlib.errors import InputError
from forgetlib.figures import fig2
from forgetlib.forgetting.base import Training, methods
from forgetlib.models import catalogue, synthetic
from forgetlib.runs import content, jobs, local
from forgetlib.runs.bench import StudyError
from forgetlib.runs.grid import figures_dir, open_store, work_dir
from forgetlib.studies import STUDIES, load_results, run, study

ROOT = Path(forgetlib.__file__).parent.parent


@pytest.fixture(scope="module")
def tiny_results(tiny_root):
    """The whole `tiny` study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETLIB_ROOT", str(tiny_root))
        return tiny_root, load_results(STUDIES["tiny"])


def test_the_tiny_study_shows_both_kinds_of_forgetting(tiny_results):
    """The positive control of the package: what is built in by construction is measured."""
    own = [r for r in tiny_results[1] if r.checkpoint.model == "tiny"]
    table = fig2.table(own).query("size == 120").set_index("eval_task")
    assert set(table.index) == set(STUDIES["tiny"].tasks)
    assert (table["tuned"] > 0.75).all()
    assert ((table["forgetting_set"] - 0.5).abs() < 0.12).all()
    for task in table.index:
        if tasks.get(task).has_fixed_answers:
            assert table.loc[task, "forget_ratio_high"] > 0.95, task
        else:
            assert table.loc[task, "forget_ratio_high"] < 0.95, task
            assert table.loc[task, "forget_gap_low"] > 0.1, task


def test_true_labels_in_the_second_phase_are_the_tiny_studys_negative_control(tiny_results):
    own = [r for r in tiny_results[1] if r.checkpoint.model == "tiny"]
    table = fig2.control_table(own).set_index("eval_task")
    assert (table["again"] > 0.75).all()
    assert (table["lost_again"].abs() < 0.1).all()
    formats = [tasks.get(t).answer_format for t in table.index]
    forgotten = table[[f == "verbaliser" for f in formats]]
    assert len(forgotten) and (forgotten["beyond_true_labels_low"] > 0.1).all()


def test_results_say_where_they_came_from(tiny_results):
    for result in tiny_results[1]:
        (found,) = result.provenances
        assert found["seconds"] > 0
        assert {"forgetlib", "commit", "torch", "transformers", "device", "threads"} <= set(found)


def test_weights_are_dropped_when_nothing_starts_from_them_any_more(tiny_results):
    root, _ = tiny_results
    assert not list((root / ".work" / "tiny" / "weights").glob("*"))


def test_a_job_on_its_own_equals_the_study_s(tiny_results):
    """Nothing leaks from one job of a study into the next: order and company do not matter."""
    last = {r.checkpoint.kind: r for r in tiny_results[1]}
    for kind in ("random", "flipped"):
        asked = tuple(r.measurement for r in last[kind].records)
        alone = jobs.run(jobs.Job(last[kind].checkpoint, asked))
        assert same_results([replace(last[kind], records=tuple(alone))], [last[kind]])


# --- reading -------------------------------------------------------------------------------------

NO_COMPUTING = """if True:
    import socket, sys, time
    from forgetlib import studies
    from forgetlib.data import assets, sources, splits

    def refused(*given, **more):
        raise AssertionError("asked for")

    socket.socket = assets.model_dir = splits._read = splits.split = splits.load = refused
    sources.Source.__call__ = refused
    import pyarrow, numpy, pandas
    chosen = studies.study(sys.argv[1])
    began = time.process_time()
    found = studies.load_results(chosen)
    seconds = time.process_time() - began
    if chosen.name in ("quick", "embedded"):  # others have none stored
        assert studies.load_questions(chosen, chosen.tasks[0], 0).test
    for result in found:
        for record in result.records[:1]:
            record.value
    torch = {"torch", "transformers", "datasets", "ray", "peft"} & set(sys.modules)
    print(len(found), seconds, *torch)
"""


def read_in_a_process(name, **environment):
    """How many results there are, how long reading them took, and what should not be imported."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", NO_COMPUTING, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    n, seconds, *modules = done.stdout.split()
    return int(n), float(seconds), modules


@pytest.mark.parametrize("name", ["quick", "paper-suite-270m", "embedded"])
def test_committed_results_are_read_in_a_second_without_torch_data_or_network(name, tmp_path):
    """The hub's tasks too, of which nothing is in this cache."""
    (tmp_path / "file").write_text("")
    no_cache = {"FORGETLIB_CACHE": str(tmp_path / "file" / "cache"), "HF_HOME": str(tmp_path)}
    n, seconds, modules = read_in_a_process(name, FORGETLIB_ROOT=str(ROOT), **no_cache)
    assert n == len(open_stored(name))
    assert modules == []
    assert seconds < 3  # 1 where the machine is idle


def open_stored(name):
    """The jobs of a committed study of which something is stored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FORGETLIB_ROOT", raising=False)
        store = open_store(STUDIES[name])
        return [job for job in STUDIES[name].jobs() if store.has(job)]


def test_a_second_call_computes_nothing_and_needs_no_torch(tiny_results):
    root, _ = tiny_results
    n, _, modules = read_in_a_process("tiny", FORGETLIB_ROOT=str(root))
    assert (n, modules) == (len(STUDIES["tiny"].jobs()), [])


def test_reading_what_is_missing_is_an_error_and_computes_nothing(project, monkeypatch):
    monkeypatch.setattr(local, "compute", lambda *a, **k: pytest.fail("computed"))
    said = r"all 6 jobs of own to be stored, found 6 that are not, first tiny seed 0 tiny_city:base"
    with pytest.raises(StudyError, match=rf"{said}\. Compute them: forgetlib run"):
        load_results(small(), "own")
    assert not any(project.iterdir())


def test_a_study_that_was_changed_is_computed_anew_and_what_it_was_stays(
    project, brief_probes, monkeypatch
):
    monkeypatch.setitem(STUDIES, "tiny", in_place_of_tiny())
    before = run(study("tiny"), progress=False)
    packs = {p.name: p.read_bytes() for p in open_store(study("tiny")).packed.iterdir()}
    monkeypatch.setitem(STUDIES, "tiny", in_place_of_tiny(n_train=23))
    with pytest.raises(StudyError, match=r"found 6 that are not"):
        load_results(study("tiny"))
    assert not same_results(run(study("tiny"), progress=False), before)
    now = {p.name: p.read_bytes() for p in open_store(study("tiny")).packed.iterdir()}
    assert packs.items() < now.items()
    monkeypatch.setitem(STUDIES, "tiny", in_place_of_tiny())
    assert same_results(load_results(study("tiny")), before)


# --- variations ----------------------------------------------------------------------------------


def test_a_variation_reuses_the_named_study_s_records(tiny_results, monkeypatch):
    root, named = tiny_results
    monkeypatch.setenv("FORGETLIB_ROOT", str(root))
    part = study("tiny", tasks=["tiny_city"])
    assert part.name.startswith("tiny-") and part.named == "tiny"
    monkeypatch.setattr(local, "compute", lambda *a, **k: pytest.fail("computed again"))
    own = [r for r in named if r.checkpoint.model == "tiny" and r.probe]
    assert same_results(load_results(part, "own"), own[:3])
    assert same_results(run(part, "own"), own[:3])
    assert not work_dir(part).exists()


def test_a_variation_has_a_folder_of_its_own_and_packs_nothing(project, brief_probes, monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", in_place_of_tiny())
    run(study("tiny"), progress=False)
    packed = {p: p.stat().st_mtime_ns for p in figures_dir(study("tiny")).rglob("*")}
    asked, do = [], jobs.run
    monkeypatch.setattr(local, "run", lambda job, *a: asked.append(job) or do(job, *a))
    more = study("tiny", sizes=[8, 4])
    run(more, progress=False)
    assert [j.checkpoint.n for j in asked] == [4]  # all else is the named study's
    assert {p.name for p in (project / ".work").iterdir()} == {"tiny", more.name}
    assert {p: p.stat().st_mtime_ns for p in figures_dir(study("tiny")).rglob("*")} == packed
    assert not figures_dir(more).exists()
    another = study("tiny", sizes=[8, 3])
    with pytest.raises(StudyError, match="found 1 that are not"):
        load_results(another)


def test_a_variation_s_name_tells_it_from_every_other():
    one = study("tiny", n_train=50)
    assert one.name == study("tiny", n_train=50).name
    assert one == study(study("tiny", n_eval=7), n_eval=120, n_train=50)
    others = [
        study("tiny", n_train=51),
        study("tiny", n_eval=50),
        study("tiny", tasks=["tiny_city"]),
        study("tiny", tuned=Training(1e-3)),
        study("tiny", models=["tiny"]),
        study("tiny", tasks=["tiny_review", "tiny_city"]),
        study("tiny", tasks=["tiny_city", "tiny_review"]),
    ]
    names = {one.name, *(s.name for s in others)}
    assert len(names) == 8
    assert all(s.named == "tiny" for s in others)
    assert one.description == "a variation of tiny: tiny, tiny-wide: 4 tasks, 50 examples"


def test_a_change_of_nothing_is_the_named_study():
    assert study("quick", tasks=None, n_train=STUDIES["quick"].n_train) is STUDIES["quick"]


def test_other_tasks_are_all_paired(monkeypatch):
    some = replace(study("tiny"), cross_tasks=("tiny_city", "tiny_praise"))
    monkeypatch.setitem(STUDIES, "tiny", some)
    assert study("tiny", n_train=40).cross_tasks == some.cross_tasks
    assert study("tiny", tasks=some.tasks[2:]).cross_tasks is None


def test_a_smaller_n_train_keeps_the_sizes_that_are_smaller_still():
    assert study("tiny", n_train=40).sizes == (30,)
    assert study("tiny", n_train=20).sizes == ()
    assert study("tiny", n_train=20, sizes=[5]).sizes == (5,)


# --- names of models -----------------------------------------------------------------------------


def test_every_model_that_is_made_here_has_a_content():
    assert content.MADE_HERE.keys() == synthetic.TINY_WIDTHS.keys()


@pytest.mark.parametrize("model", ["gpt2", "distilgpt2", "somebody/embeded", "tiny"])
def test_a_model_of_another_name_may_be_on_the_hub(model):
    assert study("quick", models=[model]).models == (model,)


def test_a_folder_may_have_a_name_that_is_nearly_one_of_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embeded").mkdir()
    assert study("quick", models=["embeded"]).models == (str(tmp_path / "embeded"),)


@pytest.mark.parametrize("name", ["embedded", "gemma-3-270m", "tiny-wide"])
def test_a_name_of_the_package_s_models_is_no_folder_beside_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (name, "mine"):
        (tmp_path / folder).mkdir()
    chosen = study("tiny", models=[name, "mine"])
    assert chosen.models == (catalogue.canonical(name), str(tmp_path / "mine"))


def test_a_model_s_folder_is_the_same_from_every_working_directory(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    here = study("tiny", models=["model", "hub/id"])
    assert here.models == (str(tmp_path / "model"), "hub/id")


# --- a file of one's own -------------------------------------------------------------------------


@pytest.fixture
def mine(project, own_names):
    path = project / "mine.py"
    path.write_text(MINE)
    return path


def test_a_study_in_a_file_is_run_and_stored_under_its_own_name(mine, brief_probes, project):
    chosen = study(str(mine))
    assert chosen.name == "mine" and chosen is study(mine.as_posix())
    found = run(chosen, progress=False)
    assert [r.checkpoint.kind for r in found] == [
        *("base", "true", "random"),
        *("flipped", "shrink(factor=0.5)"),
    ]
    assert same_results(load_results(chosen), found)
    assert {p.name for p in (project / "figures/mine/results").iterdir()} == {"odd-0.parquet"}
    table = fig2.table(load_results(chosen, "methods"), "shrink(factor=0.5)")
    assert table["eval_task"].tolist() == ["odd"]
    part = study(str(mine), n_eval=6)
    assert part.name.startswith("mine-") and part.named == "mine"


def test_what_is_stored_of_a_file_s_study_is_read_where_the_file_is_not_run(mine, brief_probes):
    """A record of a method that nobody imported is there, though it cannot be made again."""
    found = run(study(str(mine)), progress=False)
    code = (
        "from forgetlib import files; from forgetlib.runs.store import Store;"
        "store = Store(files.root() / 'figures/mine/results', files.root() / 'none');"
        "print(*sorted({c.kind for c, _, _ in store.sources()}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode().split() == ["base", "flipped", "random", "shrink", "true"]
    assert len(found) == 5


def test_a_file_that_was_edited_is_run_again(mine):
    assert study(str(mine)).n_eval == 12
    mine.write_text(MINE.replace("n_eval=12", "n_eval=13"))
    os.utime(mine, ns=(1, 1))
    assert study(str(mine)).n_eval == 13
    assert "shrink" in methods()


def test_a_variation_in_a_file_is_a_study(mine):
    mine.write_text("from forgetlib.studies import study, STUDIES\n"
                    "quick = STUDIES['quick']\nmine = study('tiny', n_train=31)\n")  # fmt: skip
    assert study(str(mine)) == study("tiny", n_train=31)


def test_a_model_s_folder_in_a_file_is_absolute(mine, project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "weights").mkdir()
    mine.write_text(MINE.replace('("tiny",)', '("weights",)'))
    assert study("mine.py").models == (str(project / "weights"),)


OTHER = "from dataclasses import replace\nother = replace(mine, {})\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"study file .*mine\.py: expected one Study, found 0: none\. Define one"),
        (MINE + OTHER.format("name='other'"), r"expected one Study, found 2: mine, other"),
        (MINE + OTHER.format("n_eval=3"), r"expected one Study, found 2: mine, mine"),
        (MINE.replace('"mine", "one', '"quick", "one'), r"a name of its own, found 'quick', which"),
        (MINE.replace('"mine", "one', '"My study", "one'), r"name of a study: expected a-z, 0-9"),
        (MINE.replace('("tiny",)', '("tinny",)'), r"models of study 'mine'.*Did you mean 'tiny'"),
        (MINE.replace('("odd",)', '("odds",)'), r"task: expected one of.*found 'odds'"),
        (MINE.replace('"odd", "mine"', '"piqa", "mine"'), r"task name: expected a new name"),
    ],
)
def test_a_file_that_defines_no_study_is_refused(mine, text, message):
    mine.write_text(text)
    with pytest.raises(InputError, match=message):
        study(str(mine))


def test_a_file_that_is_not_there_is_said(project):
    with pytest.raises(InputError, match=r"a Python file that defines one, found no file .*no\.py"):
        study("no.py")


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study("big"), "study: expected one of tiny, quick, embedded, .*found 'big'"),
        (lambda: study("tiny", colour=1), r"change of study 'tiny'.*found 'colour'"),
        (lambda: study("tiny", n_trian=9), r"n_train, .*found 'n_trian'. Did you mean 'n_train'\?"),
        (lambda: study("tiny", named="quick"), r"change of study 'tiny'.*found 'named'"),
        (lambda: study("tinny"), "found 'tinny'. Did you mean 'tiny'?"),
        (lambda: study("quick", tasks=["ss2"]), "found 'ss2'. Did you mean 'sst2'?"),
        (lambda: study("quick", models=["embeded"]), "models of.*Did you mean 'embedded'?"),
        (lambda: study("quick", models=["Tiny_Wide"]), "models of.*Did you mean 'tiny-wide'?"),
        (lambda: study("tiny").jobs("fliped"), "found 'fliped'. Did you mean 'flipped'?"),
        (lambda: study("tiny", tasks=["sst-2"]).jobs(), "task: expected one of.*'sst-2'"),
        (lambda: study("tiny", tasks="tiny_city"), r"expected tasks to be a list.*tasks=\['tiny"),
        (
            lambda: study("tiny", seeds=0),
            r"expected seeds to be a list, found 0. Write seeds=\[0\]",
        ),
        (lambda: study("tiny", tasks=[]), "tasks of study 'tiny': expected at least one"),
        (lambda: study("tiny", seeds=[]), "seeds of study"),
        (lambda: study("tiny", models=[]), "models of study"),
        (lambda: study("tiny", cross_tasks=[]), "cross_tasks of study"),
        (lambda: study("tiny", cross_tasks=["sst2"]), "cross_tasks of.*one of tiny_.*found 'sst2'"),
        (lambda: study("tiny", protocol="all"), "protocol of study 'tiny.*one of pairwise"),
        (lambda: study("tiny", sizes=[200]), r"from 1 to below n_train, 120, found \[200\]"),
        (
            lambda: study("tiny").jobs("fig3"),
            "section of a study: expected one of own.*found 'fig3'. .*; cross: fig3, fig8;",
        ),
        (
            lambda: study("tiny", n_train=0, sizes=[]).jobs(),
            "n_train.*: expected a whole number",
        ),
        (lambda: study("tiny", records=-1), "records of study 'tiny.*: expected a whole number"),
        (lambda: study("tiny", n_recorded=0), "n_recorded of study 'tiny.*: expected a whole num"),
        (lambda: study("tiny", tuned=3), "tuned of study 'tiny.*: expected a Training"),
        (lambda: study("tiny", methods=["ascent"]), "methods of study 'tiny.*: expected a Method"),
        (lambda: study("tiny", methods="ascent"), "expected methods to be a list"),
        (lambda: study("tiny", views=["upsidedown"]), "view: expected one of chat, few_shot"),
        (lambda: study("tiny", readouts=["lenghts"]), "readout: expected one of scores"),
        (lambda: run(study("tiny", models=["no/model"])), "model 'no/model': expected"),
        (lambda: load_results(study("tiny"), "fliped"), "Did you mean 'flipped'?"),
        (lambda: run(study("tiny"), "fliped"), "Did you mean 'flipped'?"),
    ],
)
def test_bad_input_is_refused(project, call, message):
    with pytest.raises((InputError, RuntimeError), match=message):
        call()
