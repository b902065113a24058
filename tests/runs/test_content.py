"""What a job's names stood for is on record, and what has changed since is computed anew."""

import importlib
import json
import linecache
import os
import shutil
import subprocess
import sys
import types
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import same_records, small
from huggingface_hub import constants

import forgetlib
from forgetlib import files, studies
from forgetlib.data import cache, splits, tasks, views
from forgetlib.data.base import Task, ask
from forgetlib.errors import ModelError
from forgetlib.files import StoreError
from forgetlib.forgetting import base, loop
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.labels import Labels
from forgetlib.measuring import scoring
from forgetlib.measuring.base import Readout
from forgetlib.models import catalogue, loading, synthetic
from forgetlib.runs import code, content, jobs, local
from forgetlib.runs.bench import Bench, StudyError
from forgetlib.runs.content import Present, of_model
from forgetlib.runs.grid import open_store
from forgetlib.runs.records import Job
from forgetlib.runs.rows import read_records
from forgetlib.runs.specs import Checkpoint, Measurement
from forgetlib.runs.store import Store
from forgetlib.runs.verify import verify
from forgetlib.studies import load_results, run

ROOT = Path(forgetlib.__file__).parent.parent
BRIEF = Training(3e-3, epochs=1)


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch, brief_probes, own_names):
    """A cache and a project folder of their own, and names that go with the test."""
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path / "project"))
    monkeypatch.setenv("FORGETLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_first_seen", {})


def save(folder, seed, tokenizer):
    """A random model, in a folder that may hold another one already."""
    model, _ = synthetic.tiny(64, torch.float32)
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
    """The jobs that are done, in order."""
    done, do = [], jobs.run
    monkeypatch.setattr(local, "run", lambda job, *a: done.append(job) or do(job, *a))
    return done


def keys(results):
    """Under what the records of each result are stored."""
    return [[record.key for record in result.records] for result in results]


def origin(result):
    """The one provenance of a result, whose records are of one job."""
    (found,) = result.provenances
    return found


def told(said):
    """The one warning that says what is computed anew."""
    (text,) = [str(w.message) for w in said if "anew" in str(w.message)]
    return text


@pytest.fixture
def nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


# --- models --------------------------------------------------------------------------------------


def test_a_model_that_was_trained_further_in_its_folder_is_computed_anew(folder, tiny, runs):
    chosen = of_one_task(folder)
    old = run(chosen, "own", progress=False)
    save(folder, 2, tiny.tokenizer)
    with pytest.warns(UserWarning, match="stored jobs are computed anew") as said:
        new = run(chosen, "own", progress=False)
    text = told(said)
    assert text.startswith("3 stored jobs") and text.endswith(f": model {str(folder)!r}")
    assert runs == [*chosen.jobs("own")] * 2
    assert keys(old) == keys(new) == [[*job.keys] for job in chosen.jobs("own")]
    examples = splits.load("tiny_city", "test", 12, 0)
    now = scoring.score(loading.load(str(folder), dtype="float32", device="cpu"), examples)
    assert np.array_equal(new[0].scores["tiny_city/test"].log_likelihoods, now.log_likelihoods)
    assert not np.allclose(old[0].scores["tiny_city/test"].log_likelihoods, now.log_likelihoods)
    for again in (run(chosen, "own", progress=False), load_results(chosen, "own")):
        assert list(map(origin, again)) == list(map(origin, new))
    assert len(runs) == 6


def test_the_same_model_copied_and_touched_is_the_same(folder, tmp_path, runs, nothing_warns):
    chosen, was = of_one_task(folder), of_model(str(folder))
    run(chosen, "own", progress=False)
    shutil.copytree(folder, tmp_path / "copy")
    assert of_model(str(tmp_path / "copy")) == was
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    assert of_model(str(folder)) == was
    run(chosen, "own", progress=False)
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
        Bench().load(of_one_task(adapter).jobs("own")[0].checkpoint)


def test_a_base_on_the_hub_that_is_fetched_while_its_adapter_is_loaded_is_no_change(
    hub_cache, adapter, tiny, monkeypatch
):
    edit("adapter_config.json", base_model_name_or_path="some/model")(adapter)
    checkpoint = of_one_task(adapter).jobs("own")[0].checkpoint
    change = []

    def meanwhile(name, **settings):
        for do in change:
            do()
        return tiny

    def fetched(revision):
        model = {"config.json": "{}", "model.safetensors": revision}
        hub_cache("models", "some/model", revision, model)

    monkeypatch.setattr(loading, "load", meanwhile)
    fetched("abc")
    change.append(lambda: fetched("bcd"))
    bench = Bench()
    bench.load(checkpoint)
    assert bench.digest() == of_model(str(adapter)) is not None
    change.append(lambda: (adapter / "adapter_model.safetensors").write_bytes(b"others"))
    with pytest.raises(StudyError, match="changed meanwhile"):
        Bench().load(checkpoint)


def test_models_that_are_made_here_have_a_content_without_a_look():
    assert of_model("embedded") == of_model("gemma-3-270m") == catalogue.MODELS[0].gguf_sha256
    assert set(content.MADE_HERE) == set(synthetic.TINY_WIDTHS)


@pytest.mark.parametrize("name", ["no/model", "/no/such/folder", "a b", "..", "a/b/c", "\0"])
def test_a_name_that_stands_for_nothing_has_no_content(name, hub_cache):
    assert of_model(name) is None


def test_a_deleted_folder_s_results_are_read(folder, runs, nothing_warns):
    chosen = of_one_task(folder)
    stored = run(chosen, "own", progress=False)
    shutil.rmtree(folder)
    again = run(chosen, "own", progress=False)
    assert list(map(origin, again)) == list(map(origin, stored))
    assert len(runs) == 3


def test_results_of_a_version_that_recorded_no_content_are_taken_as_they_are(
    folder, tiny, runs, nothing_warns
):
    chosen = of_one_task(folder)
    store = open_store(chosen)
    for result in run(chosen, "own", progress=False):
        before = {k: v for k, v in origin(result).items() if k != "content"}
        before["date"] += " later"  # of two the newer one counts
        store.write([replace(record, provenance=before) for record in result.records])
    save(folder, 2, tiny.tokenizer)
    run(chosen, "own", progress=False)
    assert len(runs) == 3


def test_a_model_that_changes_during_its_run_stops_the_study_and_stores_nothing_of_it(
    folder, tiny, monkeypatch
):
    chosen = of_one_task(folder)
    apply = loop.apply

    def meanwhile(*arguments):
        save(folder, 2, tiny.tokenizer)
        return apply(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "apply", meanwhile)
        with pytest.raises(StudyError, match=r"model .* the content that was loaded.*meanwhile"):
            run(chosen, "own", progress=False)
    stored = open_store(chosen, any_content=True)
    assert [stored.has(job) for job in chosen.jobs("own")] == [True, False, False]
    assert stored.keys() == set(chosen.jobs("own")[0].keys)
    with pytest.warns(UserWarning, match="1 stored jobs are computed anew"):
        found = run(chosen, "own", progress=False)
    assert {origin(r)["content"]["model"] for r in found} == {of_model(str(folder))}


def test_a_result_of_another_content_than_the_study_began_with_is_not_stored(folder, tiny):
    (base, *_) = of_one_task(folder).jobs("own")
    present = Present()
    present.model(str(folder))
    save(folder, 2, tiny.tokenizer)
    store = Store(folder.parent / "none", folder.parent / "work", present)
    with pytest.raises(StoreError, match=r"a result of .* began with, found another: model"):
        store.write(jobs.run(base))
    assert not store.keys()


@pytest.mark.parametrize("changed", [False, True])
def test_weights_are_started_from_only_where_they_are_of_the_same_model(
    folder, tiny, monkeypatch, changed
):
    _, tuned, forgotten = of_one_task(folder).jobs("own")
    store = Store(folder.parent / "none", folder.parent / "work")
    bench = Bench(store)
    jobs.run(tuned, bench)
    bench.keep(tuned.checkpoint)
    if changed:
        save(folder, 2, tiny.tokenizer)
    expected = jobs.run(forgotten)
    made, make = [], Bench.make
    monkeypatch.setattr(Bench, "make", lambda b, c, *a: made.append(c.id) or make(b, c, *a))
    found = jobs.run(forgotten, Bench(store))
    both = [tuned.checkpoint.id, forgotten.checkpoint.id]
    assert sorted(made) == sorted(both if changed else both[1:])
    assert same_records(found, expected)


def test_a_pack_of_the_new_records_alone_is_added_and_a_variation_skips_old_ones(
    folder, tiny, monkeypatch, runs
):
    named = replace(of_one_task(folder), name="tiny", named="")
    monkeypatch.setitem(studies.STUDIES, "tiny", named)
    run(named, "own", progress=False)
    packs = open_store(named).packed
    (first,) = packs.iterdir()
    was = first.read_bytes()
    save(folder, 2, tiny.tokenizer)
    variation = studies.study("tiny", control_seeds=[])
    assert variation.named == "tiny"
    with pytest.warns(UserWarning, match="3 stored jobs"):
        of_variation = run(variation, "own", progress=False)
    assert len(runs) == 6
    with pytest.warns(UserWarning, match="3 stored jobs"):
        new = run(named, "own", progress=False)
    now = of_model(str(folder))
    (second,) = set(packs.iterdir()) - {first}
    assert first.read_bytes() == was
    packed = read_records(second)
    assert same_records(packed, [record for result in new for record in result.records])
    for about in (*(r.provenance for r in packed), *map(origin, (*new, *of_variation))):
        assert about["content"]["model"] == now
    run(variation, "own", progress=False)
    assert len(runs) == 9


def test_a_check_finds_another_model_out(folder, tiny):
    chosen = of_one_task(folder)
    run(chosen, "own", progress=False)
    assert verify(chosen, 3)["same_model"].all()
    save(folder, 2, tiny.tokenizer)
    table = verify(chosen, 3)
    assert table["same_data"].all()
    assert not table[["same_model", "same_origin", "ok"]].any(axis=None)


# --- what is wrong with a model ------------------------------------------------------------------


def test_a_model_that_is_not_there_is_said_once_before_anything_is_computed(folder, runs):
    chosen = of_one_task(folder, models=["tiny", str(folder / "no")])
    with pytest.raises(ModelError, match="no': expected embedded, gemma-3-270m"):
        run(chosen, progress=False)
    assert runs == []
    assert not list(files.root().rglob("*.parquet"))


def test_a_model_whose_code_fails_is_said_once(folder, monkeypatch, runs):
    def fails(name, **settings):
        raise MemoryError("no room")

    monkeypatch.setattr(loading, "load", fails)
    with pytest.raises(
        StudyError, match=r"one that can be loaded here, found MemoryError: no room"
    ):
        run(of_one_task(folder), progress=False)
    assert runs == []


def test_a_model_that_fails_later_stops_the_study(folder, monkeypatch, runs):
    """As what all others of the model would raise too."""
    load, loaded = loading.load, []

    def fails_the_third_time(name, **settings):
        loaded.append(name)
        if len(loaded) == 3:
            raise ModelError("model", expected="it", found="nothing", do="Bring it back.")
        return load(name, **settings)

    monkeypatch.setattr(loading, "load", fails_the_third_time)
    with pytest.raises(ModelError, match="Bring it back"):
        run(of_one_task(folder, models=["tiny", "tiny-wide"]), "models", progress=False)
    assert loaded == ["tiny-wide", "tiny", "tiny-wide"]
    assert {job.checkpoint.model for job in runs} == {"tiny", "tiny-wide"}
    assert [job.checkpoint.model for job in runs].count("tiny-wide") == 1


# --- questions -----------------------------------------------------------------------------------


def own_task(name, question):
    """Rows of tiny_city, of which `question` makes something."""
    return tasks.add(Task(name, "synthetic", "text", tasks.get("tiny_city").rows, question))


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
    stored = run(chosen, "cross", progress=False)
    n = len(runs)
    own_task("mine", again_as_it_is)
    run(chosen, "cross", progress=False)
    assert len(runs) == n
    own_task("mine", the_other_way_round)
    with pytest.warns(UserWarning, match=r"anew, .*: questions of task 'mine'$"):
        run(chosen, "cross", progress=False)
    concerned = {
        job.id
        for job in chosen.jobs("cross")
        if "mine" in {t for c in job.checkpoint.lineage for t in c.given}
        or "mine" in {m.task for m in job.measurements}
    }
    again = {job.id for job in runs[n:]}
    assert again == concerned and 0 < len(again) < len(stored)


def about(job):
    """What a provenance has of a job's content."""
    return {"content": {"model": None, **content.of_job(job)}}


def differing(job, provenance):
    """What of this content is another now, for any of the job's measurements."""
    present = Present()
    found = [present.differs(job.checkpoint, m, provenance) for m in job.measurements]
    return tuple(dict.fromkeys(name for names in found for name in names))


def test_what_starts_from_a_model_of_other_questions_is_computed_anew_too():
    own_task("mine", as_it_is)
    chosen = of_one_task("tiny", tasks=["mine", "tiny_review"])
    tuned = chosen.own_jobs("mine", 0, "tiny")[1].checkpoint
    other = chosen.checkpoint(("tiny_review",), 0, "tiny", Labels("random", BRIEF), tuned)
    child = Job(other, (Measurement("scores", "tiny_review", "test", 12), Measurement("loss")))
    then = about(child)
    assert differing(child, then) == ()
    own_task("mine", the_other_way_round)
    for m in child.measurements:
        assert differing(child.only([m]), then) == ("questions of task 'mine'",)


def test_an_own_task_whose_rows_are_gone_does_not_stop_the_reading(runs, nothing_warns):
    own_task("mine", as_it_is)
    chosen = of_one_task("tiny", tasks=["mine"])
    run(chosen, "own", progress=False)

    def gone():
        raise FileNotFoundError("mine.jsonl")

    tasks.add(Task("mine", "synthetic", "text", gone, as_it_is))
    run(chosen, "own", progress=False)
    assert len(runs) == 3


def test_the_tasks_that_can_change_are_one_s_own_and_those_over_the_hub():
    own_task("mine", as_it_is)
    assert {t for t in tasks._TASKS if content.can_change(t)} == {"mine", *tasks.suite("paper")}


def test_the_questions_of_a_task_are_hashed_once_until_another_is_added(monkeypatch):
    own_task("mine", as_it_is)
    job = of_one_task("tiny", tasks=["mine"]).jobs("own")[1]
    hashed, data_hash = [], content.data_hash
    monkeypatch.setattr(content, "data_hash", lambda d: hashed.append(set(d)) or data_hash(d))
    found = [content.of_job(job) for _ in range(2)]
    assert found[0] == found[1] and hashed == [{"mine"}] * 2  # its two parts
    own_task("mine", the_other_way_round)
    assert content.of_job(job) != found[0]


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

    tasks_of = splits.load("tiny_city", "test", 1, 0)
    monkeypatch.setattr(splits, "load", load)
    return place / "data", opened


def test_data_over_the_hub_are_opened_only_where_the_repository_has_changed(copa, monkeypatch):
    file, opened = copa
    file.write_text("a")
    job = of_one_task("tiny", tasks=["copa_hub"]).jobs("own")[0]
    then = about(job)
    assert set(then["content"]["revisions"]) == {"copa_hub"}

    def now(text):
        """What a new process finds."""
        file.write_text(text)
        monkeypatch.setattr(content, "_first_seen", {})
        content._questions.cache_clear()
        opened.clear()
        return differing(job, then), bool(opened)

    assert now("a") == ((), False)
    assert now("a\n") == ((), True)  # another file with the same questions
    assert now("b") == (("questions of task 'copa_hub'",), True)
    file.unlink()
    assert differing(job, then) == ()
    monkeypatch.setenv("FORGETLIB_HUB", str(file))
    assert differing(job, then) == ()


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


# --- code ----------------------------------------------------------------------------------------

OWN = """
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from forgetlib.data import views
from forgetlib.forgetting.base import Method, Training
from forgetlib.measuring.base import Column, Readout
from forgetlib.models import forward

FACTOR = 1.0


def total(numbers):
    return FACTOR * numbers.sum()


class Unused:
    pass


class Base(Method, registered=False):
    def loss(self, lm, batch, context):
        return total(forward.response_log_likelihoods(lm, batch.inputs)) / batch.n_tokens


@dataclass(frozen=True)
class Ascent(Base):
    training: Training

    def diverged(self, losses, worst):
        return None


@dataclass(frozen=True)
class Count(Readout, name="count"):
    columns: ClassVar = {"n": Column(pa.int32(), "questions")}
    n: int

    @classmethod
    def measure(cls, asked):
        return cls(len(asked.questions()))


class Loud(views.View, name="loud"):
    def shown(self, example):
        return views.with_texts(example, lambda text: f"Hey: {text}", choices=False)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file of one's own, imported anew with these changes of its text, as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def imported(**changes):
        text = OWN
        for old, new in changes.values():
            assert text.count(old) == 1
            text = text.replace(old, new)
        (tmp_path / "mine_own.py").write_text(text)
        sys.modules.pop("mine_own", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        return importlib.import_module("mine_own")

    yield imported
    sys.modules.pop("mine_own", None)


LOSS = ("numbers.sum()", "2 * numbers.sum()")
MEASURE = ("cls(len(asked.questions()))", "cls(2 * len(asked.questions()))")
SHOWN = ("Hey: {text}", "Hey: Hey: {text}")


def own_code(module):
    """A study that is by these methods, readouts and views."""
    chosen = {"methods": [module.Ascent(BRIEF)], "readouts": ["count"], "views": ["loud"]}
    return of_one_task("tiny", **chosen)


def values(results, *, readout, view="plain"):
    """What a readout found, in the order of the jobs."""
    return [
        record.value
        for result in results
        for record in result.records
        if (record.measurement.readout, record.measurement.view) == (readout, view)
    ]


def test_an_edited_loss_is_trained_anew_and_the_rest_is_not(mine, runs, nothing_warns):
    old = run(own_code(mine()), "methods", progress=False)
    assert origin(old[3])["content"]["code"].keys() == {"method ascent"}
    assert origin(old[0])["content"]["code"].keys() == {"readout count", "view loud"}
    n = len(runs)
    run(own_code(mine()), "methods", progress=False)
    assert len(runs) == n == 4
    chosen = own_code(mine(loss=LOSS))
    with pytest.warns(UserWarning, match="stored jobs are computed anew") as said:
        new = run(chosen, "methods", progress=False)
    assert told(said).startswith("1 stored jobs")
    assert told(said).endswith("than when they were made: the code of method ascent")
    assert runs[n:] == [chosen.jobs("methods")[3]] and keys(new) == keys(old)
    assert [origin(x) == origin(y) for x, y in zip(old, new, strict=True)] == [True] * 3 + [False]
    before, after = (values(found[3:], readout="loss")[0].loss for found in (old, new))
    assert after[0] == pytest.approx(2 * before[0], rel=1e-6)


def test_what_an_edited_readout_or_view_gave_is_measured_anew_and_nothing_else(
    mine, runs, nothing_warns
):
    old = run(own_code(mine()), "own", progress=False)
    chosen = own_code(mine(measure=MEASURE, shown=SHOWN))
    with pytest.warns(UserWarning, match="stored jobs are computed anew") as said:
        new = run(chosen, "own", progress=False)
    assert told(said).startswith("3 stored jobs")
    assert told(said).endswith("made: the code of view loud, the code of readout count")
    assert [v.n for v in values(old, readout="count")] == [12] * 3
    assert [v.n for v in values(new, readout="count")] == [24] * 3
    for x, y in zip(
        values(old, readout="scores", view="loud"),
        values(new, readout="scores", view="loud"),
        strict=True,
    ):
        assert not np.array_equal(x.log_likelihoods, y.log_likelihoods)

    def rest(found):
        return [
            (r.key, r.provenance["date"])
            for result in found
            for r in result.records
            if r.measurement.readout != "count" and r.measurement.view != "loud"
        ]

    assert rest(old) == rest(new)


@pytest.mark.parametrize(
    ("change", "another"),
    [
        (("training: Training\n", "training: Training\n    more: int = 0\n"), True),
        (("/ batch.n_tokens", "/ batch.n_examples"), True),  # of the class that it is derived from
        (LOSS, True),  # of a function that it calls
        (("FACTOR = 1.0", "FACTOR = 2.0"), True),  # of a constant that this one reads
        (("class Unused:\n    pass", "class Unused:\n    x = 1"), False),
        (MEASURE, False),
        (SHOWN, False),
        (("import pyarrow as pa", "import pyarrow as pa  # Arrow"), False),
    ],
)
def test_a_method_s_code_is_its_class_and_what_that_uses_of_its_file(mine, change, another):
    job = own_code(mine()).jobs("methods")[3]
    then = about(job)
    mine(change=change)
    assert differing(job, then) == (("the code of method ascent",) if another else ())
    mine()
    assert differing(job, then) == ()


def test_of_a_notebook_s_class_the_functions_count(monkeypatch):
    """Of a cell Python 3.11 finds functions' source, and not that of classes."""
    module = types.ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)

    def cell(text):
        name = f"<cell {hash(text)}>"
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
        exec(compile(text, name, "exec"), vars(module))
        return module.Ascent(BRIEF)

    job = of_one_task("tiny", methods=[cell(OWN)]).jobs("methods")[3]
    then = about(job)
    assert then["content"]["code"].keys() == {"method ascent"}
    assert differing(job, then) == ()
    for old, new in (("return None", "return 'always'"), LOSS):
        cell(OWN.replace(old, new))
        assert differing(job, then) == ("the code of method ascent",)
    cell(OWN)
    assert differing(job, then) == ()


def test_of_what_is_typed_into_an_interpreter_nobody_knows_the_code(mine, monkeypatch):
    job = own_code(mine()).jobs("methods")[3]
    then = about(job)
    typed = types.ModuleType("typed")
    monkeypatch.setitem(sys.modules, "typed", typed)
    base._METHODS.pop("ascent")
    exec(OWN, vars(typed))
    assert differing(job, then) == () and "code" not in about(job)["content"]


def test_weights_are_started_from_only_where_they_are_by_the_same_code(mine, monkeypatch):
    chosen = own_code(mine())
    start = chosen.jobs("methods")[3].checkpoint
    last = replace(start, method=Labels("true", BRIEF), start=start)
    store = Store(files.root() / "none", files.root() / "work")
    bench = Bench(store)
    jobs.run(Job(start, (Measurement("loss"),)), bench)
    bench.keep(start)
    assert Bench(store).load(last) and bench.has(start)
    other = Bench(store)
    other.load(last)
    assert other.has(start)
    mine(loss=LOSS)
    assert not other.has(start)


def test_a_raised_version_of_a_class_of_the_package_makes_older_results_count_as_none(
    mine, monkeypatch
):
    tuned, own = (own_code(mine()).jobs("methods")[i] for i in (1, 3))
    first = about(tuned)
    assert "method labels" not in first["content"]["code"]
    with monkeypatch.context() as patch:
        patch.setattr(Labels, "version", "2")
        code.of_class.cache_clear()
        second = about(tuned)
        assert second["content"]["code"]["method labels"] == "2"
        assert differing(tuned, first) == ("the code of method labels",)
        assert differing(tuned, second) == ()
    code.of_class.cache_clear()
    assert differing(tuned, second) == ("the code of method labels",)
    assert differing(tuned, first) == differing(own, about(own)) == ()


def test_code_whose_file_is_not_imported_is_taken_as_it_is(mine):
    job = own_code(mine()).jobs("own")[1]
    of_method = own_code(mine()).jobs("methods")[3]
    then, of_that = about(job), about(of_method)
    words = of_method.checkpoint.to_dict()
    for known, name in (
        (base._METHODS, "ascent"),
        (Readout._known, "count"),
        (views.View._known, "loud"),
    ):
        del known[name]
    assert differing(job, then) == ()
    unknown = replace(of_method, checkpoint=Checkpoint.from_dict(words))
    assert isinstance(unknown.checkpoint.method, base.UnknownMethod)
    assert unknown.keys == of_method.keys and differing(unknown, of_that) == ()


# --- reading -------------------------------------------------------------------------------------


def test_reading_a_committed_study_looks_nothing_up(tmp_path):
    code = (
        "import sys; from forgetlib import studies as e;"
        "hub = e.study('paper-suite-270m', tasks=['piqa_hub', 'cb_hub']);"
        "print(*(len(e.load_results(s, 'own')) for s in (e.study('embedded'), hub)));"
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
    monkeypatch.setattr(cache, "SETTLED", -1)
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    return path


def test_a_digest_is_computed_once(file, monkeypatch):
    found = cache.digest_of(file)
    assert found == cache.sha256_of(file)
    monkeypatch.setattr(cache, "sha256_of", lambda path: pytest.fail("read again"))
    assert cache.digest_of(file) == found


def test_a_model_s_second_look_reads_no_file_of_it(folder, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", -1)
    found = of_model(str(folder))
    monkeypatch.setattr(cache, "sha256_of", lambda path: pytest.fail("read again"))
    assert of_model(str(folder)) == found


def test_a_file_of_the_same_size_and_date_that_holds_something_else_is_read(file):
    found = file.stat(), cache.digest_of(file)
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(found[0].st_atime_ns, found[0].st_mtime_ns))
    assert cache.digest_of(file) == cache.sha256_of(file) != found[1]


def test_what_was_written_a_moment_ago_is_not_remembered(file, monkeypatch):
    """It may be written again under the same time stamp."""
    monkeypatch.setattr(cache, "SETTLED", 60 * 10**9)
    cache.digest_of(file)
    assert not list(cache.cache_dir().rglob("*.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"stamp": 1}', '{"stamp": null}'])
def test_a_damaged_entry_is_made_anew(file, text):
    found = cache.digest_of(file)
    (entry,) = cache.cache_dir().rglob("*.json")
    whole = entry.read_text()
    entry.write_text(text)
    assert cache.digest_of(file) == found
    assert entry.read_text() == whole
    assert [p.name for p in entry.parent.iterdir()] == [entry.name]


@pytest.mark.parametrize("where", ["cache", "cache/digests"])
def test_a_cache_that_cannot_be_written_costs_the_reading_alone(file, tmp_path, where):
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text("a file where the folder should be")
    assert cache.digest_of(file) == cache.sha256_of(file)
