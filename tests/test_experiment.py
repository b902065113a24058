import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import family
from test_store import same

from forgetlib import catalogue, experiment, models, scoring, stats, tasks
from forgetlib.experiment import PARTS, STUDIES, StudyError, main, open_store, results, study
from forgetlib.schema import InputError, TrainConfig
from forgetlib.store import StoreError


def small(**changes):
    """A study of seconds: two of the tiny tasks, trained briefly."""
    settings = {
        "tasks": ("tiny_city", "tiny_review"),
        "n_train": 24,
        "n_eval": 24,
        "tuned": TrainConfig(3e-3, epochs=3),
        "forgetting": TrainConfig(3e-3, epochs=3, record_steps=2),
        "sizes": (8,),
        "models": ("tiny",),
        "start": "pairwise",
    }
    return study("tiny", **(settings | changes))


def named_tiny():
    """The same with one task, in the place of the named study."""
    return replace(small(tasks=("tiny_city",)), name="tiny", modified=False)


@pytest.fixture(scope="module")
def tiny_results(tiny_root):
    """The whole `tiny` study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETLIB_ROOT", str(tiny_root))
        return tiny_root, results(STUDIES["tiny"], progress=False)


def test_the_tiny_study_shows_both_kinds_of_forgetting(tiny_results):
    """The positive control of the package: what is built in by construction is measured."""
    own = [r for r in tiny_results[1] if r.spec.model == "tiny"]
    table = stats.forgetting(own).query("size == 120").set_index("eval_task")
    assert (table["tuned"] > 0.75).all()
    assert ((table["forgetting_set"] - 0.5).abs() < 0.12).all()
    formats = {t: tasks.get(t).answer_format for t in table.index}
    for task, answer_format in formats.items():
        if answer_format == "verbaliser":
            assert table.loc[task, "forget_ratio_high"] > 0.95, task
        else:
            assert table.loc[task, "forget_ratio_high"] < 0.95, task
            assert table.loc[task, "forget_gap_low"] > 0.1, task


def test_true_labels_in_the_second_phase_are_the_tiny_studys_negative_control(tiny_results):
    own = [r for r in tiny_results[1] if r.spec.model == "tiny"]
    table = stats.control(own).set_index("eval_task")
    assert (table["again"] > 0.75).all()
    assert (table["lost_again"].abs() < 0.1).all()
    formats = [tasks.get(t).answer_format for t in table.index]
    forgotten = table[[f == "verbaliser" for f in formats]]
    assert len(forgotten) and (forgotten["beyond_true_labels_low"] > 0.1).all()


def test_the_control_follows_the_seeds_of_a_variation():
    def seeds(chosen):
        return {s.seed for s in chosen.specs("control")}

    assert seeds(STUDIES["embedded"]) == {0, 1, 2}
    assert seeds(study("embedded", seeds=[1])) == {1}
    assert seeds(STUDIES["quick"]) == {0}
    assert seeds(study("quick", seeds=[1])) == set()
    assert seeds(study("quick", seeds=[1], control_seeds=[1])) == {1}
    again = [s for s in STUDIES["embedded"].specs("control") if s.condition == "true" and s.start]
    assert {s.train_task for s in again} == set(STUDIES["embedded"].tasks)
    for spec in again:
        _, tuned, forgotten = STUDIES["embedded"].own_task(spec.train_task, spec.seed, "embedded")
        assert spec.start == tuned
        assert replace(spec.train, record_steps=3) == forgotten.train


def test_a_second_call_computes_nothing_and_needs_no_torch(tiny_results):
    root, _ = tiny_results
    code = (
        "import sys; from forgetlib import experiment as e; r = e.results(e.study('tiny'));"
        "print(len(r), 'torch' in sys.modules)"
    )
    environment = os.environ | {"FORGETLIB_ROOT": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode().split() == [str(len(STUDIES["tiny"].specs())), "False"], (
        done.stderr.decode()
    )


def test_results_say_where_they_came_from(tiny_results):
    for result in tiny_results[1]:
        found = result.provenance
        assert found["seconds"] > 0
        assert {"forgetlib", "commit", "torch", "transformers", "device", "threads"} <= set(found)


def test_weights_are_dropped_when_nothing_starts_from_them_any_more(tiny_results):
    root, _ = tiny_results
    assert not list((root / ".work" / "tiny" / "weights").glob("*"))


def test_a_run_on_its_own_equals_the_study_s(tiny_results):
    """Nothing leaks from one run of a study into the next: order and company do not matter."""
    last = {r.spec.condition: r for r in tiny_results[1]}
    for condition in ("random", "flipped"):
        alone = experiment.run(last[condition].spec)
        assert same(replace(alone, provenance={}), replace(last[condition], provenance={}))


def same_results(one, other):
    assert len(one) == len(other)
    return all(
        same(replace(a, provenance={}), replace(b, provenance={}))
        for a, b in zip(one, other, strict=True)
    )


def test_a_run_that_another_process_is_doing_is_waited_for(project, monkeypatch):
    from filelock import FileLock

    chosen = small(tasks=("tiny_city",))
    store = open_store(chosen)
    lock = FileLock(store.lock_path(chosen.specs()[0].run_id))
    lock.acquire()

    def release_at_the_second_look(seconds):
        lock.release()

    monkeypatch.setattr(experiment.time, "sleep", release_at_the_second_look)
    assert len(results(chosen, "own", progress=False)) == 3


def test_a_corrupt_record_stops_with_its_name(project):
    chosen = small(tasks=("tiny_city",))
    results(chosen, "own", progress=False)
    path = next((project / ".work" / "tiny-modified" / "runs").iterdir())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{path.name}: expected a complete record"):
        results(chosen, "own", progress=False)
    path.unlink()
    assert len(results(chosen, "own", progress=False)) == 3


def test_a_study_changed_under_its_records_is_an_error(project, monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", named_tiny())
    results(study("tiny"), progress=False)
    monkeypatch.setitem(STUDIES, "tiny", replace(study("tiny"), n_train=23))
    with pytest.raises(
        StudyError, match=r"study 'tiny': expected stored runs among the 6.*found 6"
    ):
        results(study("tiny"), progress=False)


def test_results_that_were_not_packed_before_a_kill_are_packed_by_the_next_call(
    project, monkeypatch
):
    monkeypatch.setitem(STUDIES, "tiny", named_tiny())
    results(study("tiny"), progress=False)
    store = open_store(study("tiny"))
    store.packed.unlink()
    results(study("tiny"), progress=False)
    assert store.packed.exists()


def test_a_disk_that_is_full_when_weights_are_kept_is_an_error_that_says_so(project, monkeypatch):
    import safetensors.torch

    def full(weights, path, metadata):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StoreError, match=r"No space left.*finished runs are kept"):
        results(small(), progress=False)


# --- questions that are too long for the model ---------------------------------------------------

CONTEXT = 64  # tokens, of the tiny models, to which a word is one


def words(n, first=0):
    return " ".join(f"name{(first + i) % 200}" for i in range(n))


@pytest.fixture
def long():
    """A task of 200 questions, whose longest choice ends 60 to 67 words after the prompt's start.

    It is the true response, or one of two distractors.
    """

    def question(row):
        i = row["i"]
        lengths = [1, 1, 1]
        lengths[i // 8 % 3] = 5
        prompt = f"{words(55 + i % 8, i)} person{i % 24} city{i // 24}"
        return tasks.ask(prompt, [words(n, k) for k, n in enumerate(lengths)], i // 24 % 3)

    rows = [(f"all/{i}", {"i": i}) for i in range(200)]
    yield tasks.add(tasks.Task("long", "synthetic", "text", lambda: rows, question))
    tasks._TASKS.pop("long")


def too_long(uid):
    return 57 + int(uid.split("/")[2]) % 8 + 5 > CONTEXT


def first_that_fit(part, n, seed):
    fitting = [e.uid for e in tasks.load("long", part, 200, seed) if not too_long(e.uid)]
    return tuple(fitting[:n])


def long_study(**changes):
    brief = TrainConfig(3e-3, epochs=1)
    settings = {"tasks": ["tiny_city", "long"], "n_train": 12, "n_eval": 12, "tuned": brief}
    settings |= {"forgetting": replace(brief, record_steps=2), "sizes": [5]}
    return small(**(settings | changes))


def test_questions_that_are_too_long_are_left_out_of_every_set_before_the_first_n(long, project):
    """In training, testing and probing, of every condition, and in pairs."""
    chosen = long_study()
    found = results(chosen, progress=False)
    own = [r for r in found if r.spec.train_tasks == r.spec.eval_tasks == ("long",)]
    assert {r.spec.condition for r in own} == {"base", "true", "random", "flipped"}
    assert {r.spec.n_train for r in own} == {12, 5}
    for result in found:
        for where, scores in result.scores.items():
            task, part = where.split("/")
            n = result.spec.n_train if part == "train" else result.spec.n_eval
            loaded = tuple(e.uid for e in tasks.load(task, part, n, 0))
            assert scores.uids == (first_that_fit(part, n, 0) if task == "long" else loaded)
            assert len(scores) == n
            if result.dynamics is not None and part == "train":
                assert result.dynamics.uids == scores.uids
            if result.probe is not None and part == "test":
                assert result.probe.correct.shape[1] == n
        assert ("too_long" in result.provenance) == any(w.startswith("long") for w in result.scores)
    uids = [e.uid for e in tasks.load("long", "test", 200, 0)]
    last = uids.index(first_that_fit("test", 12, 0)[-1])
    passed = [uid for uid in uids[:last] if too_long(uid)]
    told = own[0].provenance["too_long"]["long/test"]
    assert told == {"n": len(passed), "first": passed[0]}
    most = max(t["n"] for r in own for t in r.provenance["too_long"].values())
    note = f"Questions left out of a set, too long for the model: long ({most})"
    assert experiment.data_note(chosen) == note
    assert experiment.data_note(small(tasks=["tiny_city"])) == ""


def test_a_note_counts_the_study_s_runs_of_the_present_content_alone(project):
    chosen = small(tasks=["tiny_city"])
    base, tuned, _ = chosen.specs("own")
    store = open_store(chosen)

    def stored(spec, n, **more):
        lacking = {"lacking": {"tiny_city": {"n": n, "first": "tiny_city/all/0", "why": "null p"}}}
        store.write(replace(blank, spec=spec, provenance=blank.provenance | lacking | more))

    blank = experiment.run(base)
    note = "Rows left out, with nothing where text is needed: tiny_city"
    stored(replace(base, n_train=23), 90)  # of a study that was changed since
    assert experiment.data_note(chosen) == ""
    stored(base, 3)
    assert experiment.data_note(chosen) == f"{note} (3)"
    other = blank.provenance["content"] | {"model": "another"}
    old = open_store(chosen, any_content=True)
    lacking = {"lacking": {"tiny_city": {"n": 80, "first": "tiny_city/all/0", "why": "null p"}}}
    old.write(
        replace(blank, spec=tuned, provenance=blank.provenance | lacking | {"content": other})
    )
    assert experiment.data_note(chosen) == f"{note} (3)"
    store.packed.parent.mkdir(parents=True, exist_ok=True)
    store.packed.write_bytes(b"PAR1 damaged")
    with pytest.raises(StoreError, match="complete record"):
        experiment.data_note(chosen)


@pytest.mark.parametrize("name", ["embedded", "gemma-3-270m", "tiny-wide"])
def test_a_name_of_the_package_s_models_is_no_folder_beside_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (name, "mine"):
        (tmp_path / folder).mkdir()
    assert study("tiny", models=[name, "mine"]).models == (name, str(tmp_path / "mine"))


def test_a_shared_start_goes_on_without_the_questions_that_are_too_long(long, project):
    for result in results(long_study(start="shared"), "cross", progress=False):
        assert result.scores["long/test"].uids == first_that_fit("test", 12, 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_seed_and_no_distractor_decides_whether_a_question_fits(long, tiny, seed):
    """By the longest choice, though in some of these the drawn ones are short."""
    everything = tasks.load("long", "train", 200, seed)
    drawn = [max(len(f"{p} {c}".split()) for p, c in zip(e.prompts, e.choices, strict=True))
             for e in everything]  # fmt: skip
    assert any(n <= CONTEXT and too_long(e.uid) for n, e in zip(drawn, everything, strict=True))
    for n in (3, 30, 200):
        taken, passed = experiment._fitting(tiny, "long", "train", n, seed)
        assert tuple(e.uid for e in taken) == first_that_fit("train", n, seed)
        assert all(map(too_long, passed))
    assert len(taken) + len(passed) == len(everything)


def test_what_just_fits_is_what_the_model_takes(long, tiny):
    """The rule counts as `models.encode`, which refuses, over all choices of a question."""
    fitting = 0
    for uid, question in tasks.questions("long"):
        pairs = [tasks.ask(question.prompts[0], [c, "it"], 0) for c in question.choices]
        examples = [tasks.binarise(pair, uid, 0) for pair in pairs]
        taken = []
        for example in examples:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tiny, "max_length", 10**6)
                lengths = [len(models.encode(tiny, example, c).tokens) for c in (0, 1)]
            taken.append(max(lengths) <= CONTEXT)
        assert experiment._fits(tiny, question) == all(taken) == (not too_long(uid))
        fitting += all(taken)
    assert 0 < fitting < 200
    with pytest.raises(InputError, match="at most 64 tokens"):  # who asks for it is told
        scoring.score(tiny, tasks.load("long", "test", 24, 0))


def test_no_more_questions_are_made_tokens_than_are_needed(long):
    lm = models.load("tiny", dtype="float32", device="cpu")
    taken, passed = experiment._fitting(lm, "long", "train", 5, 0)
    assert len(lm._tokens) <= (len(taken) + len(passed)) * 4 < 100


def test_a_task_without_a_question_that_fits_is_an_error_before_the_training(project, monkeypatch):
    from forgetlib import training

    monkeypatch.setattr(training, "finetune", lambda *a: pytest.fail("trained already"))
    rows = [(f"all/{i}", {"q": f"{i} {words(64)}"}) for i in range(30)]
    asked = lambda row: tasks.ask(row["q"], ["yes", "no"], 0)  # noqa: E731
    tasks.add(tasks.Task("longer", "synthetic", "verbaliser", lambda: rows, asked))
    spec = replace(small().specs()[1], eval_tasks=("longer",), model="tiny", probe=False)
    try:
        n = len(tasks.load("longer", "test", 30, 0))
        said = f"task 'longer': expected a test question of at most 64 tokens.*none among {n}"
        with pytest.raises(InputError, match=said):
            experiment.run(spec)
    finally:
        tasks._TASKS.pop("longer")


def test_rows_that_lack_something_are_told_with_a_run_and_in_the_figures(project):
    rows = [(f"all/{i}", {"q": None if i % 10 == 7 else f"name{i}"}) for i in range(100)]
    asked = lambda row: tasks.ask(f"what is {row['q']}", ["good", "bad"], 0)  # noqa: E731
    tasks.add(tasks.Task("gaps", "synthetic", "verbaliser", lambda: rows, asked))
    chosen = small(tasks=["tiny_city", "gaps"])
    try:
        with pytest.warns(UserWarning, match="task 'gaps' goes on without 10 rows"):
            found = results(chosen, "own", progress=False)
        told = [r.provenance.get("lacking") for r in found if r.spec.train_tasks == ("gaps",)]
        assert told == [{"gaps": {"n": 10, "first": "gaps/all/7", "why": "null q"}}] * 3
        assert all("lacking" not in r.provenance for r in found if "gaps" not in r.spec.train_tasks)
        note = "Rows left out, with nothing where text is needed: gaps (10)"
        assert experiment.data_note(chosen) == note
    finally:
        tasks._TASKS.pop("gaps")


# --- variations ----------------------------------------------------------------------------------


def test_a_variation_reuses_the_named_study_s_runs(tiny_results, monkeypatch):
    root, named = tiny_results
    monkeypatch.setenv("FORGETLIB_ROOT", str(root))
    part = study("tiny", tasks=["tiny_city"])
    assert (part.name, part.modified) == ("tiny-modified", True)
    monkeypatch.setattr(experiment, "compute", lambda *a, **k: pytest.fail("computed again"))
    own = [r for r in named if r.spec.model == "tiny" and r.spec.probe]
    assert same_results(results(part, "own"), own[:3])


def test_the_package_s_own_models_are_those_that_it_can_load():
    embedded = {entry.name for entry in catalogue.MODELS} | {*catalogue.ALIASES}
    assert set(experiment.MODELS) == embedded | {*models.TINY_WIDTHS}


@pytest.mark.parametrize("model", ["gpt2", "distilgpt2", "somebody/embeded", "tiny"])
def test_a_model_of_another_name_may_be_on_the_hub(model):
    assert study("quick", models=[model]).models == (model,)


def test_a_folder_may_have_a_name_that_is_nearly_one_of_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embeded").mkdir()
    assert study("quick", models=["embeded"]).models == (str(tmp_path / "embeded"),)


def test_a_change_of_nothing_is_the_named_study():
    assert study("quick", tasks=None, n_train=STUDIES["quick"].n_train) is STUDIES["quick"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study("big"), "study: expected one of tiny, quick, embedded, .*found 'big'"),
        (lambda: study("tiny", colour=1), r"change of study 'tiny'.*found 'colour'"),
        (lambda: study("tiny", n_trian=9), r"n_train, .*found 'n_trian'. Did you mean 'n_train'\?"),
        (lambda: study("tinny"), "found 'tinny'. Did you mean 'tiny'?"),
        (lambda: study("quick", tasks=["ss2"]), "found 'ss2'. Did you mean 'sst2'?"),
        (lambda: study("quick", models=["embeded"]), "models of.*Did you mean 'embedded'?"),
        (lambda: study("quick", models=["Tiny_Wide"]), "models of.*Did you mean 'tiny-wide'?"),
        (lambda: study("tiny").specs("fliped"), "found 'fliped'. Did you mean 'flipped'?"),
        (lambda: study("tiny", tasks=["sst-2"]).specs(), "task: expected one of.*'sst-2'"),
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
        (lambda: study("tiny", start="all"), "start of study 'tiny.*expected one of pairwise"),
        (lambda: study("tiny", sizes=[200]), r"from 1 to below n_train, 120, found \[200\]"),
        (
            lambda: study("tiny").specs("fig3"),
            "part of a study: expected one of own, control.*found 'fig3'. .*; cross: fig3, fig8;",
        ),
        (
            lambda: study("tiny", n_train=0, sizes=[]).specs(),
            "n_train.*: expected a whole number",
        ),
        (lambda: results(study("tiny", models=["no/model"])), "model 'no/model': expected"),
    ],
)
def test_bad_input_is_refused(project, call, message):
    with pytest.raises((InputError, RuntimeError), match=message):
        call()


def test_the_command_line_computes_and_reports(project, capsys, monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", named_tiny())
    assert main(["tiny"]) == 0
    said = r"tiny: 6 runs stored in .*results.parquet, {} of them computed just now; "
    said += r"0\.0\d hours of work where they were computed\n"
    assert re.fullmatch(said.format(6), capsys.readouterr().out)
    assert (project / "figures" / "tiny" / "results.parquet").exists()
    assert main(["tiny", "own"]) == 0
    assert re.fullmatch(said.replace("6", "3").format(0), capsys.readouterr().out)


def test_the_command_line_says_what_is_wrong_without_a_traceback(capsys):
    assert main(["big"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: study: expected one of tiny")
    assert "Traceback" not in error


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("part", (None, *PARTS))
def test_every_part_has_distinct_runs_in_an_order_that_can_be_run(name, part):
    specs = STUDIES[name].specs(part)
    place = {s.run_id: i for i, s in enumerate(specs)}
    assert len(place) == len(specs)
    assert all(place[s.start.run_id] < place[s.run_id] for s in specs if s.start)
    assert place.keys() <= {s.run_id for s in STUDIES[name].specs()}


def test_what_starts_from_one_model_stands_together_so_that_few_weights_are_kept():
    specs = STUDIES["embedded"].specs()
    last_child = {s.start.run_id: i for i, s in enumerate(specs) if s.start}
    place = {s.run_id: i for i, s in enumerate(specs)}
    kept = [sum(place[r] <= i <= last for r, last in last_child.items()) for i in place.values()]
    assert max(kept) == 1


def pairs(chosen, condition):
    return {
        (evaluated, forgotten.train_task)
        for forgotten in chosen.specs({"random": "cross"}.get(condition, condition))
        if forgotten.condition == condition
        for evaluated in forgotten.eval_tasks
    }


@pytest.mark.parametrize("start", ["pairwise", "shared"])
@pytest.mark.parametrize("condition", ["random", "flipped"])
def test_cross_task_runs_cover_every_pair(start, condition):
    chosen = study("tiny", start=start)
    assert pairs(chosen, condition) == set(product(chosen.tasks, repeat=2))
    for spec in chosen.specs("cross"):
        if spec.condition == "random" and start == "shared":
            assert spec.start.train_tasks == chosen.tasks
        elif spec.condition == "random":
            assert spec.start.train_tasks == spec.eval_tasks


def test_a_task_s_own_run_is_the_diagonal_and_is_not_done_twice():
    chosen = study("tiny", start="pairwise")
    cross = [s for s in chosen.specs("cross") if s.condition == "random"]
    own = {s.run_id for s in chosen.specs("own")}
    assert {s.run_id for s in cross if s.train_tasks == s.eval_tasks} <= own
    n = len(chosen.tasks)
    assert len(chosen.specs("cross")) == n + n * n  # fine-tuned, forgotten


@pytest.mark.parametrize("start", ["pairwise", "shared"])
def test_pairs_of_some_tasks_are_those_of_a_study_of_these_alone(start):
    two = ("tiny_city", "tiny_praise")
    some = study("tiny", start=start, cross_tasks=two)
    assert some.specs("own") == study("tiny").specs("own")
    for part in ("cross", "flipped", "models"):
        assert some.specs(part) == study("tiny", start=start, tasks=two).specs(part)


def test_other_tasks_are_all_paired(monkeypatch):
    some = replace(study("tiny"), cross_tasks=("tiny_city", "tiny_praise"))
    monkeypatch.setitem(STUDIES, "tiny", some)
    assert study("tiny", n_train=40).cross_tasks == some.cross_tasks
    assert study("tiny", tasks=some.tasks[2:]).cross_tasks is None


def test_a_smaller_forgetting_set_starts_from_the_same_model_and_is_a_part_of_the_larger():
    chosen = study("tiny")
    smaller = [s for s in chosen.specs("sizes") if s.n_train == 30]
    assert [s.train_task for s in smaller] == list(chosen.tasks)
    for spec in smaller:
        full = next(s for s in chosen.specs("own") if s.start == spec.start and s.start)
        one, other = (tasks.load(s.train_task, "train", s.n_train, 0) for s in (spec, full))
        assert other[:30] == one


def test_recording_and_probing_do_not_change_the_run(project):
    """What is measured on the way leaves no trace in the weights: figures never train twice."""
    forgotten = small(tasks=("tiny_city",)).specs("own")[2]
    bare = replace(forgotten, probe=False, train=replace(forgotten.train, record_steps=0))
    one, other = experiment.run(forgotten), experiment.run(bare)
    for where, scores in one.scores.items():
        assert (scores.log_likelihoods == other.scores[where].log_likelihoods).all()
    assert one.probe is not None
    assert other.dynamics is None
    assert one.dynamics.steps.tolist() == [0, 4, 9]
    # The last record is the trained model's, as scored for the forgetting set.
    expected = stats.confidence(one.scores["tiny_city/train"])
    assert one.dynamics.confidence[-1] == pytest.approx(expected, abs=1e-6)


def test_a_run_on_several_tasks_trains_and_scores_them_all(project):
    chosen = small(start="shared")
    shared = next(s for s in chosen.specs("cross") if s.start is None)
    result = experiment.run(shared)
    assert {k: len(v) for k, v in result.scores.items()} == {
        f"{task}/{part}": 24 for task in chosen.tasks for part in ("train", "test")
    }
    assert len(result.train_loss) == 3 * 48 / 8


def test_a_part_computes_no_other_part_and_the_rest_takes_it_up(project, monkeypatch):
    chosen = small()
    own = results(chosen, "own", progress=False)
    assert len(own) == 6
    calls = []
    run = experiment.run
    monkeypatch.setattr(experiment, "run", lambda spec, *a: calls.append(spec) or run(spec, *a))
    cross = results(chosen, "cross", progress=False)
    assert [s.condition for s in calls] == ["random", "random"]
    assert len(cross) == 6
    assert not list((project / ".work/tiny-modified/weights").glob("*"))


def test_a_smaller_n_train_keeps_the_sizes_that_are_smaller_still():
    assert study("tiny", n_train=40).sizes == (30,)
    assert study("tiny", n_train=20).sizes == ()
    assert study("tiny", n_train=20, sizes=[5]).sizes == (5,)


def test_a_model_s_folder_is_the_same_from_every_working_directory(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    here = study("tiny", models=["model", "hub/id"])
    assert here.models == (str(tmp_path / "model"), "hub/id")


def test_a_long_study_packs_what_it_has_when_it_is_interrupted(project, monkeypatch):
    monkeypatch.setitem(STUDIES, "tiny", named_tiny())
    run, done = experiment.run, []

    def interrupted(spec, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(spec.run_id)
        return run(spec, *rest)

    monkeypatch.setattr(experiment, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results(study("tiny"), progress=False)
    store = open_store(study("tiny"))
    assert store.is_packed(done)


def test_runs_computed_again_are_the_same_and_others_are_found_out(project, monkeypatch):
    monkeypatch.setattr(experiment, "_commit", lambda: "abc")
    chosen = small()
    stored = results(chosen, "own", progress=False)
    table = experiment.check(chosen, 4, seed=1)
    assert len(table) >= 4
    assert table["same_origin"].all() and table["ok"].all() and not table["difference"].any()

    store = open_store(chosen)
    for result in stored:
        moved = {
            where: replace(s, log_likelihoods=s.log_likelihoods[:, ::-1] + 0.001)
            for where, s in result.scores.items()
        }
        store.write(replace(result, scores=moved))
    table = experiment.check(chosen, 4, seed=1)
    assert not table["ok"].any()
    # By another version, small differences are to be expected, and these are not small.
    monkeypatch.setattr(experiment, "_commit", lambda: "def")
    table = experiment.check(chosen, 6)
    assert not table["same_origin"].any()
    # The last check of each run is on record.
    kept = pd.read_csv(experiment.figures_dir(chosen) / "check.csv")
    assert len(kept) == len(table) and kept["run_id"].isin([r.spec.run_id for r in stored]).all()
    assert set(kept["commit_again"]) == {"def"}
    assert kept["machine_again"].str.endswith(f", threads: {torch.get_num_threads()}").all()
    formats = table["data"].map(lambda where: tasks.get(where.split("/")[0]).answer_format)
    other = (table["stored"] - table["again"]).abs() > formats.map(experiment.SAME_ACCURACY)
    assert not table.loc[other, "ok"].any()
    assert not table["ok"].all()


@pytest.mark.parametrize(
    ("device", "device_type", "demanded"),
    [
        ("AMD EPYC", None, True),
        ("Intel(R) Xeon(R) Processor", "cpu", True),
        ("NVIDIA H100 80GB HBM3", None, False),
        ("Quadro RTX 6000", None, False),
        ("AMD Instinct MI250X", None, False),
        ("a card of next year", "cuda", False),
        ("Apple M2", "mps", False),
    ],
)
def test_equal_bits_are_demanded_of_cpus_alone(device, device_type, demanded):
    """Nothing makes them equal on a GPU."""
    (result, *_) = family("tiny_city", 0.5, 0.9, 0.6, n=20)
    about = {"device": device, "threads": 1, "commit": "abc", "data": "d"}
    about |= {} if device_type is None else {"device_type": device_type}
    moved = {
        where: replace(s, log_likelihoods=s.log_likelihoods + np.float32(1e-3))
        for where, s in result.scores.items()
    }
    old = replace(result, provenance=about)
    table = experiment._compared(old, replace(old, scores=moved))
    assert (table["same_origin"] == demanded).all()
    assert (table["ok"] != demanded).all()


def test_a_damaged_table_of_checks_is_an_error_before_the_work(project, monkeypatch):
    chosen = small(tasks=["tiny_city"])
    results(chosen, "own", progress=False)
    path = experiment.figures_dir(chosen) / "check.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(experiment, "run", None)
    for text in ("", "a,b\n1\n1,2,3\n", "<<<<<<< HEAD\nrun_id,run\n"):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"table of earlier checks.*or delete it"):
            experiment.check(chosen, 1)


def test_figures_do_not_make_a_commit_another(tmp_path, monkeypatch):
    def git(*command):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True)

    places = [tmp_path / name for name in ("forgetlib/experiment.py", "figures/check.csv")]
    for place in places:
        place.parent.mkdir()
        place.write_text("1")
    monkeypatch.setattr(experiment, "__file__", str(places[0]))
    assert experiment._commit() == ""
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    commit = experiment._commit()
    assert len(commit) >= 7 and not commit.endswith("+")
    places[1].write_text("2")
    assert experiment._commit() == commit
    places[0].write_text("2")
    assert experiment._commit() == commit + "+"


def test_a_check_tells_that_the_questions_have_changed(project, monkeypatch):
    """A prompt that was edited, say; a run's id does not cover it."""
    chosen = small(tasks=["tiny_city"])
    results(chosen, "own", progress=False)
    assert experiment.check(chosen, 3)["same_data"].all()
    load = tasks.load
    asked = lambda e: replace(e, prompts=tuple(f"{p} what" for p in e.prompts))  # noqa: E731
    monkeypatch.setattr(tasks, "load", lambda *given: [asked(e) for e in load(*given)])
    table = experiment.check(chosen, 3)
    assert not table["same_data"].any() and not table["ok"].any()


def test_the_model_of_a_run_is_the_one_that_its_scores_came_from(project):
    chosen = small(tasks=["tiny_city"])
    for result in results(chosen, "own", progress=False):
        examples = tasks.load("tiny_city", "test", result.spec.n_eval, result.spec.seed)
        again = scoring.score(experiment.trained(result.spec), examples)
        stored = result.scores["tiny_city/test"]
        assert again.log_likelihoods.tolist() == stored.log_likelihoods.tolist()


def test_a_check_of_more_runs_than_there_are_is_refused(project):
    with pytest.raises(InputError, match="expected from 1 to 0 runs, as many as are stored"):
        experiment.check(small(), 1)


@pytest.mark.embedded
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_every_architecture_goes_all_the_way(
    folder_with_a_real_tokenizer, project, tmp_path, tuning
):
    """Real questions, all phases, a probe; and the model that a run ends with, saved and loaded."""
    brief = TrainConfig(1e-3, epochs=1)
    settings = {"n_train": 16, "n_eval": 16, "tuned": brief, "forgetting": brief, "sizes": []}
    chosen = study(
        "quick",
        tasks=["sst2"],
        models=[str(folder_with_a_real_tokenizer)],
        tuning=tuning,
        **settings,
    )
    base, _, forgotten = results(replace(chosen, dtype="float32"), "own", progress=False)
    before, after = (r.scores["sst2/test"].log_likelihoods for r in (base, forgotten))
    assert np.abs(after - before).max() > 0.01
    assert forgotten.probe is not None
    saved = models.save(experiment.trained(forgotten.spec), tmp_path / "saved")
    again = models.load(str(saved), dtype="float32", device="cpu")
    examples = tasks.load("sst2", "test", 16, 0)
    assert scoring.score(again, examples).log_likelihoods == pytest.approx(after, abs=1e-3)
