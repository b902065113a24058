"""What a run's names stood for is on record, and what has changed since is computed anew."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from test_experiment import small

from forgetlib import (
    assets,
    catalogue,
    content,
    experiment,
    models,
    probing,
    scoring,
    tasks,
    training,
)
from forgetlib.content import Present, of_model
from forgetlib.experiment import Bench, StudyError, open_store, results
from forgetlib.models import ModelError
from forgetlib.prompts import ask
from forgetlib.schema import TrainConfig
from forgetlib.store import Store, StoreError, read_records

ROOT = Path(experiment.__file__).parent.parent
BRIEF = TrainConfig(3e-3, epochs=1)


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    """A cache and a project folder of their own, and tasks that go with the test."""
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path / "project"))
    monkeypatch.setenv("FORGETLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_first_seen", {})
    monkeypatch.setattr(probing, "fit", partial(probing.fit, max_steps=3))
    known = dict(tasks._TASKS)
    yield
    tasks._TASKS.clear()
    tasks._TASKS.update(known)
    for function in tasks.REMEMBERING:
        function.cache_clear()


def save(folder, seed, tokenizer):
    """A random model, in a folder that may hold another one already."""
    model, _ = models._tiny(64, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, tiny):
    return save(tmp_path / "model", 1, tiny.tokenizer)


def of_one_task(folder, **changes):
    settings = {"tasks": ["tiny_city"], "models": [str(folder)], "n_train": 12, "n_eval": 12}
    settings |= {"tuned": BRIEF, "forgetting": BRIEF, "sizes": []}
    return small(**(settings | changes))


@pytest.fixture
def runs(monkeypatch):
    """The runs that are done, in order."""
    done, run = [], experiment.run
    monkeypatch.setattr(experiment, "run", lambda spec, *a: done.append(spec) or run(spec, *a))
    return done


@pytest.fixture
def nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


# --- models --------------------------------------------------------------------------------------


def test_a_model_that_was_trained_further_in_its_folder_is_computed_anew(folder, tiny, runs):
    chosen = of_one_task(folder)
    old = results(chosen, "own", progress=False)
    save(folder, 2, tiny.tokenizer)
    with pytest.warns(UserWarning, match="stored runs are computed anew") as said:
        new = results(chosen, "own", progress=False)
    (text,) = [str(w.message) for w in said if "anew" in str(w.message)]
    assert text.startswith("3 stored runs") and text.endswith(f": model {str(folder)!r}")
    assert runs == [r.spec for r in old] * 2
    assert [r.spec.run_id for r in old] == [r.spec.run_id for r in new]
    examples = tasks.load("tiny_city", "test", 12, 0)
    now = scoring.score(models.load(str(folder), dtype="float32", device="cpu"), examples)
    assert np.array_equal(new[0].scores["tiny_city/test"].log_likelihoods, now.log_likelihoods)
    assert not np.allclose(old[0].scores["tiny_city/test"].log_likelihoods, now.log_likelihoods)
    assert results(chosen, "own", progress=False)[0].provenance == new[0].provenance
    assert len(runs) == 6


def test_the_same_model_copied_and_touched_is_the_same(folder, tmp_path, runs, nothing_warns):
    chosen, was = of_one_task(folder), of_model(str(folder))
    results(chosen, "own", progress=False)
    shutil.copytree(folder, tmp_path / "copy")
    assert of_model(str(tmp_path / "copy")) == was
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    assert of_model(str(folder)) == was
    results(chosen, "own", progress=False)
    assert len(runs) == 3


def edit(name, **values):
    def do(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return do


def write(name):
    return lambda folder: (folder / name).write_text("{}")


@pytest.mark.parametrize(
    ("change", "another"),
    [
        (edit("config.json", rope_theta=5.0), True),
        (edit("tokenizer_config.json", bos_token="no"), True),
        (edit("tokenizer.json", added_tokens=[]), True),
        (write("model-00002-of-00002.safetensors"), True),
        (write("special_tokens_map.json"), True),
        (lambda f: (f / "config.json").rename(f / "other.json"), True),
        (write("README.md"), False),
        (write("optimizer.pt"), False),
        (write("trainer_state.json"), False),
        (write("generation_config.json"), False),
        (write("requirements.txt"), False),
        (write("metrics.json"), False),
        (write("vocab.txt"), True),
        (write("model.safetensors.index.json"), True),
        (write("chat_template.jinja"), True),
        (lambda f: (f / "checkpoint-1").mkdir(), False),
    ],
)
def test_a_folder_s_content_is_what_is_loaded_from_it(folder, change, another):
    was = of_model(str(folder))
    change(folder)
    assert (of_model(str(folder)) != was) == another


@pytest.fixture
def adapter(tmp_path, folder):
    place = tmp_path / "adapter"
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    (place / "adapter_model.safetensors").write_bytes(b"updates")
    return place


def test_an_adapter_s_content_has_that_of_the_model_that_it_is_for(adapter, folder, tiny):
    found = [of_model(str(adapter))]
    save(folder, 2, tiny.tokenizer)
    found.append(of_model(str(adapter)))
    (adapter / "adapter_model.safetensors").write_bytes(b"others")
    found.append(of_model(str(adapter)))
    assert None not in found and len(set(found)) == 3
    # Of an adapter beside its model, the model that it names is not the one that is loaded.
    shutil.copy(folder / "config.json", adapter)
    found = of_model(str(adapter))
    save(folder, 3, tiny.tokenizer)
    assert of_model(str(adapter)) == found
    (adapter / "config.json").unlink()
    shutil.rmtree(folder)
    assert of_model(str(adapter)) is None


def test_an_adapter_for_itself_is_no_model(adapter):
    edit("adapter_config.json", base_model_name_or_path=str(adapter))(adapter)
    assert of_model(str(adapter)) is None


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(kind, repository, revision, files=()):
        place = tmp_path / "hub" / f"{kind}--{repository.replace('/', '--')}"
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / "main").write_text(revision)
        for name, text in dict(files).items():
            (place / "snapshots" / revision).mkdir(parents=True, exist_ok=True)
            (place / "snapshots" / revision / name).write_text(text)

    return put


def test_a_hub_id_s_content_is_what_the_cache_has_of_its_revision(hub_cache, tmp_path):
    assert of_model("some/model") is None
    hub_cache("models", "some/model", "abc", {"config.json": "{}"})
    assert of_model("some/model") is None  # its config was looked at, and nothing is loaded
    model = {"config.json": "{}", "model.safetensors": "weights"}
    hub_cache("models", "some/model", "bcd", model | {"README.md": "one"})
    was = of_model("some/model")
    shutil.copytree(next((tmp_path / "hub").glob("*/snapshots/bcd")), tmp_path / "copy")
    assert was == of_model(str(tmp_path / "copy")) is not None
    hub_cache("models", "some/model", "cde", model | {"README.md": "two"})
    assert of_model("some/model") == was
    hub_cache("models", "some/model", "def", model | {"model.safetensors": "others"})
    assert of_model("some/model") not in (was, None)
    hub_cache("models", "some/model", "efg")  # a commit of which nothing is here
    assert of_model("some/model") is None


def test_an_adapter_s_content_on_the_hub_has_that_of_its_model(hub_cache):
    base = json.dumps({"base_model_name_or_path": "some/model"})
    update = {"adapter_config.json": base, "adapter_model.safetensors": "updates"}
    hub_cache("models", "an/adapter", "def", update)
    assert of_model("an/adapter") is None
    found = []
    for revision in ("abc", "bcd"):
        files = {"config.json": "{}", "model.safetensors": revision}
        hub_cache("models", "some/model", revision, files)
        found.append(of_model("an/adapter"))
    assert None not in found and found[0] != found[1]


@pytest.mark.parametrize("text", ["{}", "[]", "{", "null", '{"base_model_name_or_path": null}'])
def test_an_adapter_that_names_no_model_has_no_content_and_is_refused(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    assert of_model(str(adapter)) is None
    assert not content.in_folders(str(adapter))
    with pytest.raises((ModelError, StudyError), match="adapter"):
        Bench().load(of_one_task(adapter).specs("own")[0])


def test_a_base_on_the_hub_that_is_fetched_while_its_adapter_is_loaded_is_no_change(
    hub_cache, adapter, tiny, monkeypatch
):
    edit("adapter_config.json", base_model_name_or_path="some/model")(adapter)
    spec = of_one_task(adapter).specs("own")[0]
    change = []

    def meanwhile(name, **settings):
        for do in change:
            do()
        return tiny

    def fetched(revision):
        model = {"config.json": "{}", "model.safetensors": revision}
        hub_cache("models", "some/model", revision, model)

    monkeypatch.setattr(models, "load", meanwhile)
    fetched("abc")
    change.append(lambda: fetched("bcd"))
    bench = Bench()
    bench.load(spec)
    assert bench.digest() == of_model(str(adapter)) is not None
    change.append(lambda: (adapter / "adapter_model.safetensors").write_bytes(b"others"))
    with pytest.raises(StudyError, match="changed meanwhile"):
        Bench().load(spec)


def test_models_that_are_made_here_have_a_content_without_a_look():
    assert of_model("embedded") == of_model("gemma-3-270m") == catalogue.MODELS[0].gguf_sha256
    assert set(content.MADE_HERE) == set(models.TINY_WIDTHS)


@pytest.mark.parametrize("name", ["no/model", "/no/such/folder", "a b", "..", "a/b/c", "\0"])
def test_a_name_that_stands_for_nothing_has_no_content(name, hub_cache):
    assert of_model(name) is None


def test_a_deleted_folder_s_results_are_read(folder, runs, nothing_warns):
    chosen = of_one_task(folder)
    stored = results(chosen, "own", progress=False)
    shutil.rmtree(folder)
    again = results(chosen, "own", progress=False)
    assert [r.provenance for r in again] == [r.provenance for r in stored]
    assert len(runs) == 3


def test_results_of_a_version_that_recorded_no_content_are_taken_as_they_are(
    folder, tiny, runs, nothing_warns
):
    chosen = of_one_task(folder)
    store = open_store(chosen)
    for result in results(chosen, "own", progress=False):
        before = {k: v for k, v in result.provenance.items() if k != "content"}
        store.write(replace(result, provenance=before))
    save(folder, 2, tiny.tokenizer)
    results(chosen, "own", progress=False)
    assert len(runs) == 3


def test_a_model_that_changes_during_its_run_stops_the_study_and_stores_nothing_of_it(
    folder, tiny, monkeypatch
):
    chosen = of_one_task(folder)
    finetune = training.finetune

    def meanwhile(*arguments):
        save(folder, 2, tiny.tokenizer)
        return finetune(*arguments)

    monkeypatch.setattr(training, "finetune", meanwhile)
    with pytest.raises(StudyError, match=r"model .* the content that was loaded.*meanwhile"):
        results(chosen, "own", progress=False)
    monkeypatch.undo()
    monkeypatch.setenv("FORGETLIB_ROOT", str(folder.parent / "project"))
    stored = open_store(chosen, any_content=True)
    assert [s.run_id in stored for s in chosen.specs("own")] == [True, False, False]
    with pytest.warns(UserWarning, match="1 stored runs are computed anew"):
        found = results(chosen, "own", progress=False)
    assert {r.provenance["content"]["model"] for r in found} == {of_model(str(folder))}


def test_a_result_of_another_content_than_the_study_began_with_is_not_stored(folder, tiny):
    (base, *_) = of_one_task(folder).specs("own")
    present = Present()
    present.model(str(folder))
    save(folder, 2, tiny.tokenizer)
    store = Store(folder.parent / "none", folder.parent / "work", present)
    with pytest.raises(StoreError, match=r"result of run .* began with, found another: model"):
        store.write(experiment.run(base))
    assert base.run_id not in store


@pytest.mark.parametrize("changed", [False, True])
def test_weights_are_started_from_only_where_they_are_of_the_same_model(
    folder, tiny, monkeypatch, changed
):
    _, tuned, forgotten = of_one_task(folder).specs("own")
    store = Store(folder.parent / "none", folder.parent / "work")
    bench = Bench(store)
    experiment.run(tuned, bench)
    bench.keep(tuned)
    if changed:
        save(folder, 2, tiny.tokenizer)
    expected = experiment.run(forgotten)
    trained, train = [], Bench.train
    monkeypatch.setattr(Bench, "train", lambda b, s, r: trained.append(s) or train(b, s, r))
    found = experiment.run(forgotten, Bench(store))
    assert trained == ([tuned, forgotten] if changed else [forgotten])
    for where, scores in found.scores.items():
        assert np.array_equal(scores.log_likelihoods, expected.scores[where].log_likelihoods)


def test_the_pack_has_the_new_records_alone_and_a_variation_skips_old_ones(
    folder, tiny, monkeypatch, runs
):
    named = replace(of_one_task(folder), name="tiny", modified=False)
    monkeypatch.setitem(experiment.STUDIES, "tiny", named)
    results(named, "own", progress=False)
    save(folder, 2, tiny.tokenizer)
    variation = experiment.study("tiny", control_seeds=[])
    assert variation.modified
    with pytest.warns(UserWarning, match="3 stored runs"):
        of_variation = results(variation, "own", progress=False)
    assert len(runs) == 6
    with pytest.warns(UserWarning, match="3 stored runs"):
        new = results(named, "own", progress=False)
    now = of_model(str(folder))
    packed = read_records(open_store(named).packed)
    assert sorted(r.spec.run_id for r in packed) == sorted(r.spec.run_id for r in new)
    for result in (*packed, *new, *of_variation):
        assert result.provenance["content"]["model"] == now
    results(variation, "own", progress=False)
    assert len(runs) == 9


def test_a_check_finds_another_model_out(folder, tiny):
    chosen = of_one_task(folder)
    results(chosen, "own", progress=False)
    assert experiment.check(chosen, 3)["same_model"].all()
    save(folder, 2, tiny.tokenizer)
    table = experiment.check(chosen, 3)
    assert table["same_data"].all()
    assert not table[["same_model", "same_origin", "ok"]].any(axis=None)


# --- what is wrong with a model ------------------------------------------------------------------


def test_a_model_that_is_not_there_is_said_once_before_anything_is_computed(folder, runs):
    chosen = of_one_task(folder, models=["tiny", str(folder / "no")])
    with pytest.raises(ModelError, match="no': expected embedded, gemma-3-270m"):
        results(chosen, progress=False)
    assert runs == []
    assert not list(experiment.root().rglob("*.parquet"))


def test_a_model_whose_code_fails_is_said_once(folder, monkeypatch, runs):
    def fails(name, **settings):
        raise MemoryError("no room")

    monkeypatch.setattr(models, "load", fails)
    with pytest.raises(
        StudyError, match=r"one that can be loaded here, found MemoryError: no room"
    ):
        results(of_one_task(folder), progress=False)
    assert runs == []


def test_a_model_that_fails_later_stops_the_study(folder, monkeypatch, runs):
    """As what all others of the model would raise too."""
    load, loaded = models.load, []

    def fails_the_third_time(name, **settings):
        loaded.append(name)
        if len(loaded) == 3:
            raise ModelError("model", expected="it", found="nothing", do="Bring it back.")
        return load(name, **settings)

    monkeypatch.setattr(models, "load", fails_the_third_time)
    with pytest.raises(ModelError, match="Bring it back"):
        results(of_one_task(folder, models=["tiny", "tiny-wide"]), "models", progress=False)
    assert loaded == ["tiny-wide", "tiny", "tiny-wide"]
    assert {s.model for s in runs} == {"tiny", "tiny-wide"}
    assert [s.model for s in runs].count("tiny-wide") == 1


# --- questions -----------------------------------------------------------------------------------


def own_task(name, question):
    """Rows of tiny_city, of which `question` makes something."""
    return tasks.add(tasks.Task(name, "synthetic", "text", tasks.get("tiny_city").rows, question))


def as_it_is(row):
    return row["question"]


def again_as_it_is(row):
    asked = row["question"]  # said otherwise
    return ask(asked.prompts[0], asked.choices, asked.gold)


def the_other_way_round(row):
    asked = row["question"]
    return ask(asked.prompts[0], asked.choices[::-1], 0)


def test_an_own_task_s_other_questions_are_asked_anew_and_a_comment_changes_nothing(
    runs, nothing_warns
):
    own_task("mine", as_it_is)
    chosen = of_one_task("tiny", tasks=["mine", "tiny_review"])
    stored = results(chosen, "cross", progress=False)
    n = len(runs)
    own_task("mine", again_as_it_is)
    results(chosen, "cross", progress=False)
    assert len(runs) == n
    own_task("mine", the_other_way_round)
    with pytest.warns(UserWarning, match=r"anew, .*: questions of task 'mine'$"):
        results(chosen, "cross", progress=False)
    concerned = {
        r.spec.run_id
        for r in stored
        if any("mine" in (*s.train_tasks, *s.eval_tasks) for s in r.spec.lineage)
    }
    again = {s.run_id for s in runs[n:]}
    assert again == concerned and 0 < len(again) < len(stored)


def test_what_starts_from_a_run_on_other_questions_is_computed_anew_too():
    own_task("mine", as_it_is)
    chosen = of_one_task("tiny", tasks=["mine", "tiny_review"])
    tuned = chosen.own_task("mine", 0, "tiny")[1]
    other = replace(tuned, train_tasks=("tiny_review",), eval_tasks=("tiny_review",), probe=False)
    child = replace(other, condition="random", start=tuned)
    provenance = {"content": {"model": "1", **content.of_tasks(child)}}
    assert Present().differs(child, provenance) == ()
    own_task("mine", the_other_way_round)
    assert Present().differs(child, provenance) == ("questions of task 'mine'",)


def test_an_own_task_whose_rows_are_gone_does_not_stop_the_reading(runs, nothing_warns):
    own_task("mine", as_it_is)
    chosen = of_one_task("tiny", tasks=["mine"])
    results(chosen, "own", progress=False)

    def gone():
        raise FileNotFoundError("mine.jsonl")

    tasks.add(tasks.Task("mine", "synthetic", "text", gone, as_it_is))
    results(chosen, "own", progress=False)
    assert len(runs) == 3


def test_the_tasks_that_can_change_are_one_s_own_and_those_over_the_hub():
    own_task("mine", as_it_is)
    assert {t for t in tasks._TASKS if content.can_change(t)} == {"mine", *tasks.suite("paper")}


def test_the_questions_of_a_task_are_hashed_once_until_another_is_added(monkeypatch):
    own_task("mine", as_it_is)
    spec = of_one_task("tiny", tasks=["mine"]).specs("own")[1]
    hashed, data_hash = [], content.data_hash
    monkeypatch.setattr(content, "data_hash", lambda d: hashed.append(set(d)) or data_hash(d))
    found = [content.of_tasks(spec) for _ in range(2)]
    assert found[0] == found[1] and hashed == [{"mine"}] * 2  # its two parts
    own_task("mine", the_other_way_round)
    assert content.of_tasks(spec) != found[0]


@pytest.fixture
def copa(tmp_path, monkeypatch):
    """COPA's folder in a hub of one's own, and questions that are those of its one file."""
    place = tmp_path / "a hub" / "aps/super_glue"
    place.mkdir(parents=True)
    monkeypatch.setenv("FORGETLIB_HUB", str(tmp_path / "a hub"))
    opened = []

    def load(name, part, n, seed):
        opened.append(name)
        return [replace(tasks_of[0], uid=f"copa_hub/{(place / 'data').read_text().strip()}/0")]

    tasks_of = tasks.load("tiny_city", "test", 1, 0)
    monkeypatch.setattr(tasks, "load", load)
    return place / "data", opened


def test_data_over_the_hub_are_opened_only_where_the_repository_has_changed(copa, monkeypatch):
    file, opened = copa
    file.write_text("a")
    spec = of_one_task("tiny", tasks=["copa_hub"]).specs("own")[0]
    provenance = {"content": {"model": "1", **content.of_tasks(spec)}}
    assert set(provenance["content"]["revisions"]) == {"copa_hub"}

    def now(text):
        """What a new process finds."""
        file.write_text(text)
        monkeypatch.setattr(content, "_first_seen", {})
        content._questions.cache_clear()
        opened.clear()
        return Present().differs(spec, provenance), bool(opened)

    assert now("a") == ((), False)
    assert now("a\n") == ((), True)  # another file with the same questions
    assert now("b") == (("questions of task 'copa_hub'",), True)
    file.unlink()
    assert Present().differs(spec, provenance) == ()
    monkeypatch.setenv("FORGETLIB_HUB", str(file))
    assert Present().differs(spec, provenance) == ()


def test_a_repository_that_changed_within_a_process_has_no_revision_there(copa, hub_cache):
    """Which of both its questions are from, nobody knows."""
    file, _ = copa
    file.write_text("a")
    first = content.revision("copa_hub")
    file.write_text("b")
    assert first is not None and content.revision("copa_hub") is None
    file.write_text("a")
    assert content.revision("copa_hub") == first


def test_a_data_set_of_the_hub_has_the_revision_that_the_cache_has(hub_cache, monkeypatch):
    monkeypatch.delenv("FORGETLIB_HUB", raising=False)
    assert content.revision("cb_hub") is None
    hub_cache("datasets", "aps/super_glue", "abc")
    assert content.revision("cb_hub") == "abc"


# --- reading -------------------------------------------------------------------------------------


def test_reading_a_committed_study_looks_nothing_up(tmp_path):
    code = (
        "import sys; from forgetlib import experiment as e;"
        "hub = e.study('paper-suite-270m', tasks=['piqa_hub', 'cb_hub']);"
        "print(*(len(e.results(s, 'own')) for s in (e.study('embedded'), hub)));"
        "print(*({'torch', 'datasets', 'huggingface_hub', 'transformers'} & set(sys.modules)))"
    )
    environment = os.environ | {"FORGETLIB_ROOT": str(ROOT), "FORGETLIB_HUB": str(tmp_path / "no")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True
    )
    assert done.stdout.decode().split() == ["189", "6"], done.stderr.decode()
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file that nobody writes to any more."""
    monkeypatch.setattr(assets, "SETTLED", -1)
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    return path


def test_a_digest_is_computed_once(file, monkeypatch):
    found = assets.digest_of(file)
    assert found == assets.sha256_of(file)
    monkeypatch.setattr(assets, "sha256_of", lambda path: pytest.fail("read again"))
    assert assets.digest_of(file) == found


def test_a_model_s_second_look_reads_no_file_of_it(folder, monkeypatch):
    monkeypatch.setattr(assets, "SETTLED", -1)
    found = of_model(str(folder))
    monkeypatch.setattr(assets, "sha256_of", lambda path: pytest.fail("read again"))
    assert of_model(str(folder)) == found


def test_a_file_of_the_same_size_and_date_that_holds_something_else_is_read(file):
    found = file.stat(), assets.digest_of(file)
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(found[0].st_atime_ns, found[0].st_mtime_ns))
    assert assets.digest_of(file) == assets.sha256_of(file) != found[1]


def test_what_was_written_a_moment_ago_is_not_remembered(file, monkeypatch):
    """It may be written again under the same time stamp."""
    monkeypatch.setattr(assets, "SETTLED", 60.0)
    assets.digest_of(file)
    assert not list(assets.cache_dir().rglob("*.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"stamp": 1}', '{"stamp": null}'])
def test_a_damaged_entry_is_made_anew(file, text):
    found = assets.digest_of(file)
    (entry,) = assets.cache_dir().rglob("*.json")
    whole = entry.read_text()
    entry.write_text(text)
    assert assets.digest_of(file) == found
    assert entry.read_text() == whole
    assert [p.name for p in entry.parent.iterdir()] == [entry.name]


@pytest.mark.parametrize("where", ["cache", "cache/digests"])
def test_a_cache_that_cannot_be_written_costs_the_reading_alone(file, tmp_path, where):
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text("a file where the folder should be")
    assert assets.digest_of(file) == assets.sha256_of(file)
