"""Bad input, over the whole public surface: the right error or the right result, never silence.

An error of the package has four parts: what is wrong, what was expected, what was found, and what
to do. `BAD` is the table; what is refused elsewhere in the tests is not repeated here.
"""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import finetune
from safetensors.torch import load_file, save_file
from synthetic import (
    checkpoint_of,
    cross,
    dynamics_of,
    family,
    passing,
    probe_with,
    scores_with,
)
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import BPE
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import forgetlib
from forgetlib import __main__, metrics, studies
from forgetlib.data import assets, splits, tasks
from forgetlib.data.assets import AssetError
from forgetlib.data.base import Example, Task, ask
from forgetlib.errors import ForgetlibError, InputError, ModelError
from forgetlib.figures import (
    audit,
    bootstrap,
    claims,
    claims_figure,
    crossanalysis,
    crosstask,
    fig1,
    fig2,
    fig3,
    fig4,
    fig5,
    fig7,
    fig9,
    intervals,
    measures,
    regression,
    statements,
    style,
)
from forgetlib.figures.style import readable
from forgetlib.files import StoreError
from forgetlib.forgetting import labels, loop
from forgetlib.forgetting.base import Training
from forgetlib.forgetting.labels import Labels
from forgetlib.forgetting.loop import TrainingDiverged
from forgetlib.measuring import probing, scoring
from forgetlib.measuring.base import Asked, Dynamics, Scores
from forgetlib.models import forward, loading
from forgetlib.models.lm import LM
from forgetlib.runs import jobs, rows, store, verify
from forgetlib.runs.records import Job, Record
from forgetlib.runs.specs import Checkpoint, Data, Measurement, hash_of_text

NAN = float("nan")
CPU = {"dtype": "float32", "device": "cpu"}
NOTEBOOKS = Path(forgetlib.__file__).parent.parent / "notebooks"
PARTS = re.compile(
    r"(?P<what>.+?): expected (?P<expected>.+?), found (?P<found>.+?)\. (?P<do>[A-Z'].+)", re.DOTALL
)


def assert_says_everything(error, message):
    """That an error has its four parts, each of them a text, and this message."""
    parts = PARTS.fullmatch(str(error))
    assert parts, f"not '<what>: expected ..., found .... <What to do>': {error}"
    for name, part in parts.groupdict().items():
        assert part.strip(" ."), f"says nothing of {name}: {error}"
        if name != "found":  # which shows the input as it is
            assert part != "None", f"says nothing of {name}: {error}"
            assert part != part.upper(), f"shouts {name}: {error}"
    assert re.search(message, str(error), re.DOTALL), f"{message!r} is not in: {error}"


# --- what the table's entries are made of --------------------------------------------------------


@dataclass
class Box:
    """What an entry can use. path: an empty project folder; saved: `tiny` as a model's folder."""

    tiny: LM
    path: Path
    saved: Path
    patch: pytest.MonkeyPatch

    def folder(self, **changes):
        """A copy of the saved model, with some of its files written anew; None: without them."""
        copy = self.path / "model"
        shutil.copytree(self.saved, copy)
        for name, content in changes.items():
            file = copy / {"weights": "model.safetensors"}.get(name, f"{name}.json")
            file.unlink()
            if content is not None:
                file.write_bytes(content)
        return copy

    def configured(self, **settings):
        known = json.loads((self.saved / "config.json").read_text())
        return str(self.folder(config=json.dumps(known | settings).encode()))

    def weighted(self, change):
        """The saved model after change(its weights by name)."""
        copy = self.folder()
        weights = load_file(copy / "model.safetensors")
        change(weights)
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
        return str(copy)

    def records(self, results, change=lambda table: table):
        """A file of results' records, after a change of its table."""
        path = self.path / "results.parquet"
        rows.write_records([r for result in results for r in result.records], path)
        pq.write_table(change(pq.read_table(path)), path)
        return path

    def store(self):
        return store.Store(self.path / "packed", self.path / "work")


def in_rows(change):
    """A change of each row, a dict, as a change of the table."""

    def changed(table):
        rows = table.to_pylist()
        for row in rows:
            change(row)
        return pa.Table.from_pylist(rows, schema=table.schema)

    return changed


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    tiny.model.save_pretrained(path)
    tiny.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def box(tiny, saved, project, monkeypatch):
    yield Box(tiny, project, saved, monkeypatch)
    tasks._TASKS.pop("mine", None)


def example(row="0", **changes):
    values = {"prompts": ("is it",) * 2, "choices": ("good", "bad"), "label": 0}
    return Example(**({"uid": f"t/test/{row}"} | values | changes))


FOUR = [example(i, prompts=(f"is it name{i}",) * 2) for i in range(4)]
THREE_CHOICES = example(9, prompts=("is",) * 3, choices=("good", "bad", "it"))
TUNED = checkpoint_of("tiny_city", "true")
SETTINGS = Training(1e-3, epochs=1)


def mine(question, rows=None):
    """The training examples of a task of one's own."""
    rows = [(f"all/{i}", {"i": i}) for i in range(30)] if rows is None else rows
    tasks.add(Task("mine", "f", "text", lambda: rows, question))
    return splits.load("mine", "train", 5, 0)


def asked(choices=("a", "b"), gold=0, prompt="p"):
    """A question function whose prompts differ from row to row."""
    return lambda row: ask(f"{prompt} {row['i']}", choices, gold)


def some_scores(**changes):
    values = {
        "uids": ("t/test/0", "t/test/1"),
        "log_likelihoods": np.array([[-1.0, -2.0], [-3.0, -1.0]], np.float32),
        "n_tokens": np.ones((2, 2), np.int32),
        "labels": np.array([0, 1]),
    }
    return Scores(**(values | changes))


def train(targets, examples=FOUR, seed=0, lm=None):
    return finetune(lm or loading.load("tiny", **CPU), examples, targets, SETTINGS, seed)


def probe(lm):
    """Fit and judge a probe on the same four questions."""
    asked = Measurement("probe", "t", "test", 4, fit_on=4)
    return probing.probe(Asked(lm, asked, lambda split, n: FOUR))


def broken(parameter="model.norm.weight", value=NAN):
    """A model of which one parameter, or one row of it, is not a number."""
    lm = loading.load("tiny", **CPU)
    name, _, row = parameter.partition(" ")
    weight = dict(lm.model.named_parameters())[name]
    with torch.no_grad():
        (weight[lm.tokenizer.convert_tokens_to_ids(row)] if row else weight).fill_(value)
    return lm


def bytes_tokenizer(merges=(), *, first="", last=""):
    """A token a byte, white space included, and merges; with a token before or after every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "</s>", *alphabet, *map("".join, merges)]
    backend = Tokenizer(BPE({word: i for i, word in enumerate(words)}, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if first or last:
        special = [(token, words.index(token)) for token in (first, last) if token]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}".strip(), special_tokens=special
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def with_tokenizer(tiny, tokenizer):
    return replace(tiny, tokenizer=tokenizer, _tokens={})


# " " is "Ġ" to a byte-level tokenizer.
JOINING = bytes_tokenizer([("t", "Ġ"), ("tĠ", "g")])

FAMILY = family("t", 0.5, 0.9, 0.6, n=40)
CROSS = crosstask.cross_task(cross("tu", [0.9, 0.9], np.full((2, 2), 0.6), n=40), n_resamples=50)
OWN = fig2.table(FAMILY, n_resamples=20)


def with_scores(result, **changes):
    """The result with other test scores."""

    def changed(record):
        if record.measurement.where != "t/test":
            return record
        return replace(record, found=replace(record.value, **changes))

    return replace(result, records=tuple(map(changed, result.records)))


def of_words(kind, words):
    """A change of a table: these words in each row, under the id that they have."""

    def change(row):
        row[kind], row[f"{kind}_id"] = words, hash_of_text(words)

    return in_rows(change)


def learned_and_lost(n=40):
    steps = passing("t", [1] * n, 4), passing("t", [2] * n, 4, upward=False)
    return family("t", 0.5, 0.9, 0.6, n=n, dynamics=steps)


def notebook(name, **parameters):
    """Run a notebook with these parameters up to the first error; it must come before any run."""
    (path,) = NOTEBOOKS.glob(f"{name}_*.ipynb")
    space = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "run", lambda *a, **k: pytest.fail("nothing was refused"))
        patch.setattr(loop, "train", lambda *a, **k: pytest.fail("nothing was refused"))
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code":
                source = "\n".join(x for x in cell.source.splitlines() if not x.startswith("%"))
                exec(compile(source, path.name, "exec"), space)
                if "parameters" in cell.metadata.get("tags", []):
                    assert set(parameters) <= set(space)
                    space |= parameters


# --- the table -----------------------------------------------------------------------------------


def bad(name, call, message, error=InputError):
    """One entry: call(box) raises this error, with this message."""
    return pytest.param(call, error, message, id=name)


BAD = [
    # --- examples, specs, results
    bad("uid-none", lambda box: example(uid=None), r"'<task>/<split>/<row>', found N"),
    bad(
        "uid-of-empty-parts",
        lambda box: example(uid="//"),
        r"'<task>/<split>/<row>'",
    ),
    bad(
        "choice-of-unicode-white-space",
        lambda box: example(choices=("good", "\u2003\x1f\n")),
        "prompts and choices with text",
    ),
    bad(
        "prompt-of-newlines",
        lambda box: example(prompts=("\n\n",) * 2),
        "prompts and choices with text",
    ),
    bad(
        "half-a-surrogate-pair-in-a-prompt",
        lambda box: scoring.score(box.tiny, [example(prompts=("is \ud800",) * 2)]),
        r"t/test/0.*UTF-8",
    ),
    bad(
        "half-a-surrogate-pair-in-a-uid",
        lambda box: labels.training_labels([example("\ud800")], "random", 0),
        "UTF-8",
    ),
    bad(
        "bytes-for-a-choice",
        lambda box: example(choices=(b"good", b"bad")),
        "choices to be a tuple of str",
    ),
    bad(
        "one-text-for-prompts", lambda box: example(prompts="is it"), "prompts to be a tuple of str"
    ),
    bad("label-none", lambda box: example(label=None), "label .*from 0 to 1, found N"),
    bad("label-a-float", lambda box: example(label=1.0), r"label .*from 0 to 1, found 1\.0"),
    bad(
        "learning-rate-a-text",
        lambda box: Training("1e-4"),
        "Training.learning_rate: .*'1e-4'",
    ),
    bad(
        "learning-rate-infinite",
        lambda box: Training(float("inf")),
        "Training.learning_rate: .*found inf",
    ),
    bad(
        "epochs-a-float",
        lambda box: Training(1e-4, epochs=2.5),
        r"Training.epochs: .*found 2\.5",
    ),
    bad(
        "batch-size-a-float",
        lambda box: Training(1e-4, batch_size=8.0),
        r"Training.batch_size: .*found 8\.0",
    ),
    bad(
        "records-a-float",
        lambda box: studies.study("tiny", records=1.5),
        r"records of study 'tiny.*found 1\.5",
    ),
    bad(
        "gradient-norm-infinite",
        lambda box: Training(1e-4, max_grad_norm=float("inf")),
        "Training.max_grad_norm: .*found inf",
    ),
    bad(
        "learning-rate-of-another-type",
        lambda box: Training(np.float32(1e-4)),
        "Training.learning_rate",
    ),
    bad(
        "n-train-a-float-of-numpy",
        lambda box: Data(("tiny_city",), np.float64(8)),
        r"Data.n: expected a whole number from 1, found np\.float64\(8\.0\)\. Convert it",
    ),
    bad(
        "seed-a-truth-value",
        lambda box: replace(TUNED, seed=True),
        "Checkpoint.seed: .*found True",
    ),
    bad("model-none", lambda box: replace(TUNED, model=None), "Checkpoint.model: .*found None"),
    bad("model-empty", lambda box: replace(TUNED, model=""), "Checkpoint.model: .*found ''"),
    bad(
        "method-a-text",
        lambda box: replace(TUNED, method="random"),
        "Checkpoint.method: .*found 'random'",
    ),
    bad(
        "base-model-of-some-data",
        lambda box: replace(TUNED, method=None),
        "Checkpoint without a method: .*as the pre-trained model is meant",
    ),
    bad(
        "settings-a-dictionary",
        lambda box: Labels("true", {"learning_rate": 1e-4}),
        "Labels.training: .*learning_rate",
    ),
    bad(
        "start-an-id",
        lambda box: replace(TUNED, start=TUNED.id),
        "Checkpoint.start: expected a Checkpoint",
    ),
    bad(
        "questions-of-no-split",
        lambda box: Measurement("scores", "tiny_city", "all", 8),
        "Measurement.split: expected one of train, test, found 'all'",
    ),
    bad(
        "measurement-of-no-question",
        lambda box: Measurement("scores", "tiny_city", "test"),
        "Measurement.n: expected a whole number from 1, found 0",
    ),
    bad(
        "measurement-with-settings-of-numpy",
        lambda box: Measurement("mine", settings={"layer": np.int64(3)}),
        r"Measurement.settings: .*found np\.int64\(3\)",
    ),
    bad(
        "job-that-asks-nothing",
        lambda box: Job(TUNED, ()),
        r"job of .*at least one measurement.*found \[\]",
    ),
    bad(
        "record-of-a-checkpoint-empty",
        lambda box: Checkpoint.from_dict({}),
        "Checkpoint: expected fields .*model.*incomplete",
    ),
    bad(
        "record-of-a-checkpoint-not-a-dictionary",
        lambda box: Checkpoint.from_dict(None),
        "Checkpoint: expected fields",
    ),
    bad(
        "record-of-a-measurement-empty",
        lambda box: Measurement.from_dict({}),
        "Measurement: expected fields .*readout.*incomplete",
    ),
    bad(
        "record-of-data-with-one-task-s-name",
        lambda box: Checkpoint.from_dict(
            TUNED.to_dict() | {"data": {"tasks": "abc", "n": 8, "seed": 0}}
        ),
        "Data.tasks: expected a tuple of task names, found 'abc'",
    ),
    bad(
        "record-of-settings-of-another-version",
        lambda box: Checkpoint.from_dict(
            TUNED.to_dict()
            | {"method": {"method": "labels", "labels": "true", "training": {"momentum": 0.9}}}
        ),
        "Training: expected fields .*momentum.*newer version",
    ),
    bad(
        "scores-of-nothing",
        lambda box: some_scores(
            uids=(),
            log_likelihoods=np.zeros((0, 2)),
            n_tokens=np.zeros((0, 2)),
            labels=np.zeros(0, int),
        ),
        "N >= 1 uids.*found 0 uids",
    ),
    bad(
        "scores-in-lists",
        lambda box: some_scores(log_likelihoods=[[-1.0, -2.0], [-3.0, -1.0]]),
        "Scores.log_likelihoods: expected a NumPy array, found list",
    ),
    bad(
        "scores-of-a-single-choice",
        lambda box: some_scores(
            log_likelihoods=np.zeros((2, 1)), n_tokens=np.ones((2, 1)), labels=np.zeros(2, int)
        ),
        r"Scores: expected .*C.*\(2, 1\)",
    ),
    bad(
        "labels-of-scores-floats",
        lambda box: some_scores(labels=np.array([0.0, 1.0])),
        "Scores.labels: expected .*indices.*float64",
    ),
    bad(
        "labels-of-scores-truth-values",
        lambda box: some_scores(labels=np.array([True, False])),
        "Scores.labels: expected .*indices.*bool",
    ),
    bad(
        "confidence-not-a-number",
        lambda box: dynamics_of("t", [[0.5, NAN]]),
        "Dynamics.confidence: expected finite numbers",
    ),
    bad(
        "dynamics-without-a-step",
        lambda box: Dynamics(np.zeros(0, int), ("t/train/0",), np.zeros((0, 1))),
        r"Dynamics.confidence: expected .*found \(0, 1\)",
    ),
    bad(
        "probe-without-a-control",
        lambda box: replace(probe_with(0.5, n=3)[0], control=np.zeros((0, 3))),
        r"Probe: expected .*\(0, 3\)",
    ),
    bad(
        "deviation-of-a-matrix",
        lambda box: replace(probe_with(0.5, n=3)[1], deviation=np.ones((3, 1))),
        r"HiddenVariance.deviation: expected shape \(N,\).*found \(3, 1\)",
    ),
    # --- labels
    bad(
        "condition-none",
        lambda box: labels.training_labels(FOUR, None, 0),
        "one of true, random, flipped, found None",
    ),
    bad(
        "seed-of-labels-a-float",
        lambda box: labels.training_labels(FOUR, "random", 1.0),
        r"seed: expected a whole number from 0, found 1\.0",
    ),
    # --- tasks
    bad("task-none", lambda box: tasks.get(None), "task: expected one of .*found None"),
    bad(
        "tasks-in-one-text", lambda box: tasks.describe("sst2"), "task: expected one of .*found 's'"
    ),
    bad(
        "n-a-text",
        lambda box: splits.load("tiny_city", "train", "5", 0),
        "n: expected a whole number from 1, found '5'",
    ),
    bad(
        "seed-of-a-task-none",
        lambda box: splits.load("tiny_city", "train", 5, None),
        "seed: expected a whole number from 0, found None",
    ),
    bad(
        "own-task-without-a-name",
        lambda box: tasks.add(Task("", "f", "text", list, asked())),
        "task name: expected letters, digits, _, found ''",
    ),
    bad(
        "own-task-with-a-control-character-in-its-name",
        lambda box: tasks.add(Task("mine\n", "f", "text", list, asked())),
        r"task name: expected letters, digits, _, found 'mine\\n'",
    ),
    bad(
        "own-task-whose-name-is-none",
        lambda box: tasks.add(Task(None, "f", "text", list, asked())),
        "task name: expected letters, digits, _, found None",
    ),
    bad(
        "own-task-of-an-unknown-answer-format",
        lambda box: tasks.add(Task("mine", "f", "verbalizer", list, asked())),
        "answer_format.*found 'verbalizer'",
    ),
    bad(
        "own-task-whose-rows-are-a-list",
        lambda box: tasks.add(Task("mine", "f", "text", [("all/0", {})], asked())),
        "task 'mine': expected rows .*functions?, found list",
    ),
    bad(
        "own-rows-without-names",
        lambda box: mine(asked(), [{"i": i, "j": 0, "k": 0} for i in range(30)]),
        "task 'mine': expected pairs",
    ),
    bad(
        "own-rows-without-a-split",
        lambda box: mine(asked(), [(str(i), {"i": i}) for i in range(30)]),
        "a uid '<task>/<split>/<row>', found 'mine/0'",
    ),
    bad(
        "own-rows-with-one-uid-twice",
        lambda box: mine(asked(), [(f"all/{i % 20}", {"i": i}) for i in range(30)]),
        "task 'mine': expected every row .*'all/0' twice",
    ),
    bad(
        "own-question-that-raises",
        lambda box: mine(lambda row: ask(row["question"], ["a", "b"], 0)),
        "'mine/all/0'.*KeyError: 'question'",
    ),
    bad(
        "own-question-that-is-none",
        lambda box: mine(lambda row: {"prompt": "p", "choices": ["a", "b"]}),
        "'mine/all/0': expected a Question",
    ),
    bad("own-question-without-a-true-response", lambda box: mine(asked(gold=2)), "gold.*found .*2"),
    bad("own-question-whose-label-is-hidden", lambda box: mine(asked(gold=-1)), "gold.*found .*-1"),
    bad(
        "own-question-whose-label-is-a-text",
        lambda box: mine(asked(gold="0")),
        r"gold.*found .*'0'\. Convert it with int",
    ),
    bad(
        "own-question-whose-label-is-none",
        lambda box: mine(asked(gold=None)),
        "gold.*found None. Leave out rows without a label",
    ),
    bad(
        "own-question-of-half-a-surrogate-pair-in-a-choice-that-is-not-drawn",
        lambda box: mine(asked(choices=("a", "b", "\ud800"))),
        "'mine/all/0'.*UTF-8",
    ),
    bad(
        "own-question-without-a-prompt",
        lambda box: mine(lambda row: ask(None, ["a", "b"], 0)),
        "prompts.*str.*None",
    ),
    bad(
        "own-question-with-numbers-for-choices",
        lambda box: mine(asked(choices=[1, 2])),
        r"choices.*str.*1, 2",
    ),
    bad(
        "own-question-with-one-text-for-choices",
        lambda box: mine(asked(choices="yes")),
        "choices.*found 'yes'",
    ),
    bad(
        "own-question-with-more-choices-than-prompts",
        lambda box: mine(lambda row: tasks.Question(("p",), ("a", "b"), 0)),
        "1 prompts.*2 choices",
    ),
    bad(
        "own-questions-with-a-single-choice",
        lambda box: mine(asked(choices=["a"])),
        "task 'mine': expected at least one usable train example, found none",
    ),
    bad(
        "own-questions-that-are-all-the-same",
        lambda box: mine(lambda row: ask("p", ["a", "b"], 0)),
        "task 'mine': expected at least one usable train example, found none",
    ),
    bad(
        "own-questions-without-text",
        lambda box: mine(lambda row: ask(" \n", ["a", "b"], 0)),
        "task 'mine': expected at least one usable",
    ),
    bad(
        "audit-without-a-seed",
        lambda box: audit.table(["tiny_city"], [], splits.split),
        "seed",
    ),
    bad(
        "cache-that-is-a-file",
        lambda box: (
            (box.path / "file").touch(),
            box.patch.setenv("FORGETLIB_CACHE", str(box.path / "file")),
            assets.data_dir(),
        ),
        "the cache .*file: expected a folder that can be written",
        error=AssetError,
    ),
    # --- models
    bad(
        "model-without-a-name",
        lambda box: loading.load(""),
        "model '': expected embedded, gemma-3-270m, ",
        error=ModelError,
    ),
    bad(
        "model-that-is-a-file",
        lambda box: loading.load(str(box.saved / "tokenizer.json"), **CPU),
        "tokenizer.json': expected .*a folder",
        error=ModelError,
    ),
    bad(
        "model-without-a-tokenizer",
        lambda box: loading.load(str(box.folder(tokenizer=None, tokenizer_config=None)), **CPU),
        "model '.*tokenizer",
        error=ModelError,
    ),
    bad(
        "tokenizer-damaged",
        lambda box: loading.load(str(box.folder(tokenizer=b"{}")), **CPU),
        "model '",
        error=ModelError,
    ),
    bad(
        "config-damaged",
        lambda box: loading.load(str(box.folder(config=b"{")), **CPU),
        "model '.*config",
        error=ModelError,
    ),
    bad(
        "architecture-unknown",
        lambda box: loading.load(box.configured(model_type="abacus"), **CPU),
        "model '.*abacus",
        error=ModelError,
    ),
    bad(
        "config-that-contradicts-itself",
        lambda box: loading.load(box.configured(num_attention_heads=7), **CPU),
        "model '.*attention heads",
        error=ModelError,
    ),
    bad(
        "weights-absent",
        lambda box: loading.load(str(box.folder(weights=None)), **CPU),
        "model '.*safetensors",
        error=ModelError,
    ),
    *(
        bad(
            f"weights-cut-to-{share:.0%}",
            lambda box, share=share: loading.load(
                str(
                    box.folder(
                        weights=(whole := (box.saved / "model.safetensors").read_bytes())[
                            : int(share * len(whole))
                        ]
                    )
                ),
                **CPU,
            ),
            "model '.*safetensors",
            error=ModelError,
        )
        for share in (0, 0.5, 0.99)
    ),
    bad(
        "weights-of-a-layer-missing",
        lambda box: loading.load(
            box.weighted(lambda w: w.pop("model.layers.1.mlp.up_proj.weight")), **CPU
        ),
        r"model '.*model\.layers\.1\.mlp\.up_proj\.weight",
        error=ModelError,
    ),
    bad(
        "weights-of-the-output-layer-missing",
        lambda box: loading.load(box.weighted(lambda w: w.pop("lm_head.weight")), **CPU),
        r"model '.*lm_head\.weight",
        error=ModelError,
    ),
    bad(
        "weights-of-fewer-layers-than-the-config-has",
        lambda box: loading.load(box.configured(num_hidden_layers=3), **CPU),
        r"model '.*model\.layers\.2",
        error=ModelError,
    ),
    bad(
        "weights-of-another-shape",
        lambda box: loading.load(
            box.weighted(lambda w: w.update({"model.norm.weight": torch.ones(3)})), **CPU
        ),
        "model '",
        error=ModelError,
    ),
    bad(
        "device-unknown",
        lambda box: loading.load("tiny", device="gpu"),
        "device: .*'gpu'",
    ),
    bad(
        "device-absent",
        lambda box: loading.load("tiny", device="cuda:99"),
        "device: .*'cuda:99'",
    ),
    bad(
        "weights-to-set-of-another-shape",
        lambda box: (lm := loading.load("tiny", **CPU)).set_weights(
            {name: weight[:1] for name, weight in lm.weights().items()}
        ),
        r"weights for tiny: expected .*shape",
    ),
    # --- tokens and scores
    bad(
        "prompt-of-200000-words",
        lambda box: scoring.score(box.tiny, [example(prompts=("word " * 200_000,) * 2)]),
        "at most 64 tokens, the context of tiny, found 200001",
    ),
    bad(
        "one-token-too-many",
        lambda box: scoring.score(
            box.tiny, [example(prompts=("is " * 62,) * 2, choices=("a b c", "it"))]
        ),
        "at most 64 tokens, the context of tiny, found 65",
    ),
    bad(
        "tokenizer-that-joins-prompt-and-response",
        lambda box: scoring.score(
            with_tokenizer(box.tiny, JOINING), [example(prompts=("it",) * 2, choices=("g", "b"))]
        ),
        "a response of at least one token, found none for ' g'",
    ),
    bad(
        "tokenizer-that-ends-every-text",
        lambda box: (
            bytes_tokenizer(last="</s>").save_pretrained(copy := box.folder(tokenizer=None)),
            loading.load(str(copy), **CPU),
        ),
        "model '.*ends every text with '</s>'",
        error=ModelError,
    ),
    bad(
        "tokenizer-with-more-words-than-the-model",
        lambda box: (
            LlamaForCausalLM(
                LlamaConfig(**(box.tiny.model.config.to_dict() | {"vocab_size": 20}))
            ).save_pretrained(copy := box.folder()),
            scoring.score(loading.load(str(copy), **CPU), [example(prompts=("name150",) * 2)]),
        ),
        "token.*20",
    ),
    bad(
        "choices-of-equal-tokens",
        lambda box: scoring.score(box.tiny, [example(choices=("unheard", "unknown"))]),
        "t/test/0.*unheard.*tiny",
    ),
    bad(
        "choices-whose-white-space-the-tokenizer-drops",
        lambda box: scoring.score(box.tiny, [example(choices=("good", "good "))]),
        r"t/test/0.*\('good', 'good '\).*tiny",
    ),
    bad(
        "examples-scored-twice",
        lambda box: scoring.score(box.tiny, [*FOUR, FOUR[0]]),
        r"every uid once, found repeated \['t/test/0'\]",
    ),
    bad(
        "scores-not-a-number",
        lambda box: scoring.score(broken(), FOUR),
        "finite numbers, found .*for 4 of 4, first 't/test/0'",
    ),
    bad(
        "scores-not-a-number-for-one-word",
        lambda box: scoring.score(broken("model.embed_tokens.weight name2"), FOUR),
        "finite numbers, found .*for 1 of 4, first 't/test/2'",
    ),
    bad(
        "scores-infinite",
        lambda box: scoring.score(broken("lm_head.weight bad", float("inf")), FOUR),
        "finite numbers, found .*for 4 of 4",
    ),
    # --- training
    bad(
        "seed-for-training-negative",
        lambda box: train([0, 0, 0, 0], seed=-1),
        "seed .*found -1",
    ),
    bad(
        "training-on-an-example-twice",
        lambda box: train([0] * 5, [*FOUR, FOUR[0]]),
        r"every uid once, found repeated \['t/test/0'\]",
    ),
    bad(
        "training-that-meets-what-is-not-a-number",
        lambda box: train([0] * 4, lm=broken("model.embed_tokens.weight name2")),
        "training on t at step 1 of 1: expected a finite loss.*found nan",
        error=TrainingDiverged,
    ),
    # --- probes
    bad(
        "hidden-states-of-different-numbers-of-choices",
        lambda box: probing.hidden_states(box.tiny, [FOUR[0], THREE_CHOICES]),
        r"as many choices for all.*\[2, 3\]",
    ),
    bad(
        "hidden-states-not-a-number-at-the-last-layer",
        lambda box: probe(broken()),
        "hidden states.*finite.*check its weights",
    ),
    bad(
        "hidden-states-not-a-number-everywhere",
        lambda box: probe(broken("model.embed_tokens.weight is")),
        "finite numbers.*found not-a-number.*check its weights",
    ),
    # --- statistics
    bad(
        "no-seed-at-all",
        lambda box: bootstrap.resample([]),
        "bootstrap: expected at least one sample.*list of samples",
    ),
    bad(
        "values-of-other-questions",
        lambda box: bootstrap.of_means(["a", "b"], np.ones((3, 1))),
        r"sample: expected .*found 2 questions, values of shape \(3, 1\)",
    ),
    bad(
        "resamples-none",
        lambda box: fig2.table(FAMILY, n_resamples=0),
        "n_resamples: .*found 0",
    ),
    bad(
        "resamples-negative",
        lambda box: crosstask.cross_task(
            cross("tu", [0.9] * 2, np.full((2, 2), 0.6)), n_resamples=-5
        ),
        "n_resamples: .*found -5",
    ),
    bad(
        "accuracies-in-percent",
        lambda box: metrics.forget_ratio(90, 60),
        "accuracies: .*90.*100",
    ),
    bad(
        "rank-correlation-of-what-is-undefined",
        lambda box: intervals.rank_correlation(np.array([1, 2, 3, NAN]), np.arange(4.0)),
        "rank correlation: expected .*undefined",
    ),
    bad(
        "rank-correlation-of-unequal-lengths",
        lambda box: intervals.rank_correlation(np.arange(5.0), np.arange(4.0)),
        "rank correlation: expected .*5 and 4",
    ),
    bad(
        "forgetting-by-true-labels",
        lambda box: crosstask.cross_task(FAMILY, "true"),
        "with true labels: expected runs that were fine-tuned on a task before.*none among 3",
    ),
    bad(
        "cross-task-forgetting-of-nothing",
        lambda box: crosstask.cross_task([]),
        "runs that were fine-tuned on a task before.*found none among 0 results",
    ),
    bad(
        "agreement-of-a-matrix-with-itself",
        lambda box: crossanalysis.model_agreement([CROSS, CROSS]),
        "differ in either the model or the condition",
    ),
    bad(
        "threshold-in-percent",
        lambda box: fig5.table(learned_and_lost(), threshold=60, n_resamples=10),
        "threshold: .*found 60",
    ),
    bad(
        "direction-unknown",
        lambda box: fig5.passing_steps(dynamics_of("t", [[0.5]]), 0.6, "sideways"),
        "one of up, down, found 'sideways'",
    ),
    bad(
        "answers-of-questions-that-the-task-has-no-more",
        lambda box: measures.table(family("sst2", 0.5, 0.9, 0.6), lambda *a: {}),
        "'sst2/test/0'.*recompute",
    ),
    bad(
        "regression-of-an-empty-table",
        lambda box: regression.least_squares(pd.DataFrame()),
        "the regression's table: expected columns eval_task, model, found none",
    ),
    bad(
        "regression-on-terms-in-one-text",
        lambda box: regression.least_squares(fig4.table(FAMILY, n_resamples=20), "tuned"),
        "the regression's table: expected columns d, e, t, u",
    ),
    bad(
        "rank-correlation-with-a-category",
        lambda box: regression.correlations(
            pd.DataFrame(
                {
                    "model": "m",
                    "eval_task": list("abcd"),
                    "family": ["x", "y", "x", "y"],
                    "forget_ratio": [0.1, 0.2, 0.3, 0.4],
                }
            ),
            ["family"],
        ),
        "numbers, found family",
    ),
    # --- stored results
    bad(
        "results-of-a-later-version",
        lambda box: rows.read_records(
            box.records(FAMILY, lambda t: t.replace_schema_metadata({"forgetlib_format": "4"}))
        ),
        r"results.parquet: expected complete records of format 3, found format 4\. .*delete it",
        error=StoreError,
    ),
    bad(
        "results-without-a-column",
        lambda box: rows.read_records(
            box.records(FAMILY, lambda t: t.drop_columns(["provenance"]))
        ),
        "found provenance missing or of another type",
        error=StoreError,
    ),
    bad(
        "results-without-two-columns",
        lambda box: rows.read_records(
            box.records(FAMILY, lambda t: t.drop_columns(["provenance", "checkpoint"]))
        ),
        "found checkpoint, provenance missing or of another type",
        error=StoreError,
    ),
    bad(
        "results-with-a-column-of-another-type",
        lambda box: rows.read_records(
            box.records(FAMILY[:1], lambda t: t.set_column(2, "checkpoint", [[1, 2]]))
        ),
        "found checkpoint missing or of another type",
        error=StoreError,
    ),
    bad(
        "results-with-a-readout-of-another-type",
        lambda box: rows.read_records(
            box.records(FAMILY[:1], lambda t: t.set_column(5, "scores", [["0.5", "0.5"]]))
        ),
        "found scores of type string",
        error=StoreError,
    ),
    bad(
        "results-with-numbers-in-words",
        lambda box: rows.read_records(
            box.records(
                FAMILY[:1],
                lambda t: t.set_column(5, "scores", [[{"uids": ["a"], "labels": ["1"]}] * 2]),
            )
        ),
        "found scores.labels of type list<.*string>",
        error=StoreError,
    ),
    bad(
        "results-with-a-missing-number",
        lambda box: rows.read_records(
            box.records(
                FAMILY[:1], in_rows(lambda row: row["scores"]["labels"].__setitem__(0, None))
            )
        ),
        "complete records of format 3, found 1 values missing",
        error=StoreError,
    ),
    bad(
        "results-with-a-list-that-is-shorter-than-its-neighbours",
        lambda box: rows.read_records(
            box.records(FAMILY[:1], in_rows(lambda row: row["scores"]["log_likelihoods"][0].pop()))
        ),
        r"complete records of format 3, found lists of lengths \[1, 2\]",
        error=StoreError,
    ),
    *(
        bad(
            f"results-whose-{kind}-is-{name}",
            lambda box, kind=kind, words=words: rows.read_records(
                box.records(FAMILY[:1], of_words(kind, words))
            ),
            f"results.parquet: expected complete records of format 3, found .*{message}",
            error=StoreError,
        )
        for kind in ("checkpoint", "measurement")
        for name, words, message in (
            ("no-json", "{", "delete it"),
            ("a-list", "[]", "expected fields among"),
        )
    ),
    bad(
        "results-whose-provenance-is-a-list",
        lambda box: rows.read_records(
            box.records(FAMILY[:1], in_rows(lambda row: row.update(provenance="[]")))
        ),
        "found a provenance that is no object",
        error=StoreError,
    ),
    bad(
        "results-that-are-another-table",
        lambda box: (
            pd.DataFrame({"a": [1]}).to_parquet(box.path / "other.parquet"),
            rows.read_records(box.path / "other.parquet"),
        ),
        "other.parquet: expected complete records of format 3, found format none",
        error=StoreError,
    ),
    *(
        bad(
            f"results-that-are-{name}",
            lambda box, content=content: (
                (box.path / "file").write_bytes(content),
                rows.read_records(box.path / "file"),
            ),
            "file: expected complete records of format 3, found .*delete it",
            error=StoreError,
        )
        for name, content in (("empty", b""), ("text", b"run_id,spec\n" * 9), ("half", b"PAR1" * 9))
    ),
    bad(
        "results-that-are-a-folder",
        lambda box: rows.read_records(box.path),
        "complete records of format 3, found .*directory",
        error=StoreError,
    ),
    bad(
        "record-that-is-not-stored",
        lambda box: box.store().read(TUNED, Measurement("loss")),
        "loss of tiny seed 0 tiny_city:true: expected .*found nothing",
        error=StoreError,
    ),
    bad(
        "record-of-a-file-without-any",
        lambda box: (
            rows.write_records([], box.store().work / "results" / "0123456789abcdef.parquet"),
            box.store().read(TUNED, Measurement("loss")),
        ),
        "loss of tiny seed 0 tiny_city:true: expected .*found nothing",
        error=StoreError,
    ),
    bad(
        "record-whose-file-is-another-checkpoint-s",
        lambda box: (
            rows.write_records(
                FAMILY[0].records, box.store().work / "results" / f"{TUNED.id}.parquet"
            ),
            box.store().read(TUNED, Measurement("loss")),
        ),
        "loss of tiny seed 0 tiny_city:true: expected .*found nothing",
        error=StoreError,
    ),
    bad(
        "record-that-parquet-cannot-hold",
        lambda box: box.store().write(
            with_scores(FAMILY[0], uids=("\ud800", *map(str, range(39)))).records
        ),
        "writing .*parquet",
        error=StoreError,
    ),
    bad(
        "provenance-that-json-cannot-hold",
        lambda box: box.store().write(
            [replace(FAMILY[0].records[0], provenance={"seconds": np.float32(1)})]
        ),
        "writing .*JSON",
        error=StoreError,
    ),
    # --- studies
    bad("study-none", lambda box: studies.study(None), "study: .*found None"),
    bad(
        "study-with-n-train-a-text",
        lambda box: studies.study("tiny", n_train="40"),
        "n_train .*found .*'40'",
    ),
    bad(
        "study-with-n-train-a-float",
        lambda box: studies.study("tiny", n_train=40.5).jobs(),
        r"n_train.*found .*40\.5",
    ),
    bad(
        "study-with-sizes-texts",
        lambda box: studies.study("tiny", sizes=["8"]),
        "sizes .*found .*'8'",
    ),
    bad(
        "study-with-seeds-texts",
        lambda box: studies.study("tiny", seeds=["0"]).jobs(),
        "seed.*found .*'0'",
    ),
    bad(
        "study-with-one-task-twice",
        lambda box: studies.study("tiny", tasks=["tiny_city"] * 2).jobs(),
        "at least one task, and every one once",
    ),
    bad(
        "study-with-a-model-none",
        lambda box: studies.study("tiny", models=[None]),
        "models .*None",
    ),
    bad(
        "study-with-a-model-without-a-name",
        lambda box: studies.study("tiny", models=[""]),
        "models .*''",
    ),
    bad(
        "study-with-settings-a-dictionary",
        lambda box: studies.study("tiny", tuned={"learning_rate": 1e-3}).jobs(),
        "tuned .*Training",
    ),
    bad(
        "study-with-an-unknown-tuning",
        lambda box: studies.study("tiny", tuning="adapters").jobs(),
        "one of body, full, lora, found 'adapters'",
    ),
    bad(
        "job-of-an-unknown-task",
        lambda box: jobs.run(
            Job(Checkpoint("tiny"), (Measurement("scores", "tiny_village", "test", 8),))
        ),
        "task: expected one of .*found 'tiny_village'",
    ),
    bad(
        "packed-results-damaged",
        lambda box: (
            (place := box.path / "figures/tiny/results/all-0.parquet").parent.mkdir(parents=True),
            place.write_bytes(b"PAR1"),
            studies.load_results(studies.study("tiny")),
        ),
        "figures.tiny.results.all-0.parquet: expected complete records",
        error=StoreError,
    ),
    bad(
        "project-folder-that-is-a-file",
        lambda box: (
            (box.path / "file").touch(),
            box.patch.setenv("FORGETLIB_ROOT", str(box.path / "file")),
            studies.run(studies.study("tiny"), progress=False),
        ),
        "writing .*file.*: expected a folder that can be written",
        error=StoreError,
    ),
    bad(
        "check-of-a-text-of-jobs",
        lambda box: verify.verify(studies.study("tiny"), "3"),
        "check of study 'tiny': .*found '3'",
    ),
    # --- figures
    bad(
        "figure-of-an-empty-table",
        lambda box: fig2.draw(pd.DataFrame()),
        "expected columns answer_format, base, .*found none",
    ),
    bad(
        "figure-of-another-figure-s-table",
        lambda box: claims_figure.draw(OWN),
        "expected columns axis, .*found model, eval_task",
    ),
    bad(
        "figure-of-two-models",
        lambda box: fig2.draw(pd.concat([OWN, OWN.assign(model="other")])),
        r"one model, found \['other', 'tiny'\]",
    ),
    bad(
        "figure-of-one-task-twice",
        lambda box: fig2.draw(pd.concat([OWN, OWN])),
        r"one row a task, found several for \['t'\]",
    ),
    bad(
        "figure-of-sizes-without-sizes",
        lambda box: fig7.draw(OWN.drop(columns="size"), tasks.describe([])),
        "expected columns .*size, found model, ",
    ),
    bad(
        "figure-of-no-model",
        lambda box: fig9.draw([], pd.DataFrame(), pd.DataFrame()),
        r"at least one matrix.*found \[\]",
    ),
    bad(
        "figure-of-a-task-that-is-not-described",
        lambda box: fig3.draw(CROSS, pd.DataFrame({"eval_task": ["t"], "family": ["x"]})),
        "for u",
    ),
    bad(
        "figure-in-a-folder-that-is-a-file",
        lambda box: (
            (box.path / "figures").touch(),
            style.save(fig2.draw(OWN), OWN, "fig2", studies.study("tiny")),
        ),
        "writing .*fig2.pdf: expected a folder that can be written",
        error=StoreError,
    ),
    # --- claims
    bad(
        "claims-of-another-table",
        lambda box: claims.verdicts(own=pd.DataFrame({"colour": [1]})),
        "table of a claim: expected .*eval_task.*found .*colour",
    ),
    bad(
        "claims-of-a-table-without-a-measure",
        lambda box: claims.verdicts(own=OWN.drop(columns="forget_gap_low")),
        "table of a claim: expected .*forget_gap_low",
    ),
    bad(
        "claims-of-tasks-without-families",
        lambda box: claims.judge(
            "task-family-split", own=OWN, described=pd.DataFrame({"eval_task": ["t"]})
        ),
        "expected .*family",
    ),
    bad(
        "claims-of-two-rows-a-task",
        lambda box: claims.verdicts(own=pd.concat([OWN, OWN])),
        "one row a eval_task, found several",
    ),
    bad(
        "claims-of-random-labels-for-flipped-ones",
        lambda box: claims.verdicts(flipped=CROSS),
        "flipped labels in this place, found tiny, random",
    ),
    bad(
        "verdict-on-an-unknown-statement",
        lambda box: statements.Statement("beside", 0.5, 0.6),
        "one of above, below, within.*found 'beside'",
    ),
    # --- notebooks' parameters
    bad(
        "notebook-with-an-unknown-study",
        lambda box: notebook("fig2", study="quik"),
        "study: expected one of tiny, quick, embedded.*found 'quik'",
    ),
    bad(
        "notebook-with-a-study-that-is-a-number",
        lambda box: notebook("fig9", study=5),
        "study: .*found 5",
    ),
    bad(
        "notebook-with-one-task-for-a-list",
        lambda box: notebook("fig5", study="tiny", tasks_only="tiny_city"),
        r"tasks to be a list, found 'tiny_city'.*tasks=\['tiny_city'\]",
    ),
    bad(
        "notebook-with-one-seed-for-a-list",
        lambda box: notebook("fig6", study="tiny", seeds=0),
        r"seeds to be a list, found 0.*seeds=\[0\]",
    ),
    bad(
        "notebook-with-an-unknown-protocol",
        lambda box: notebook("fig3", study="tiny", protocol="together"),
        "one of pairwise, shared, found 'together'",
    ),
    bad(
        "notebook-with-a-size-above-the-whole",
        lambda box: notebook("fig7", study="tiny", sizes=[500]),
        r"from 1 to below n_train, 120, found \[500\]",
    ),
    bad(
        "notebook-with-n-train-a-text",
        lambda box: notebook("fig1", study="tiny", n_train="40"),
        "n_train .*found .*'40'",
    ),
    bad(
        "tour-with-an-unknown-task",
        lambda box: notebook("00", tasks=["sst3"]),
        "task: expected one of .*found 'sst3'",
    ),
    bad(
        "tour-with-an-unknown-model",
        lambda box: notebook("00", tasks=["tiny_city"], model="no/such-model"),
        "model 'no/such-model': expected embedded",
        error=ModelError,
    ),
    bad(
        "tour-with-a-learning-rate-that-is-a-text",
        lambda box: notebook("00", tasks=["tiny_city"], model="tiny", learning_rate="5e-5"),
        "Training.learning_rate",
    ),
]


def test_the_table_is_long_and_names_every_entry_once():
    names = [entry.id for entry in BAD]
    assert len(set(names)) == len(names) >= 60


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_ends_in_the_right_error(box, call, error, message):
    assert issubclass(error, ForgetlibError)
    with pytest.raises(error) as raised:
        call(box)
    assert_says_everything(raised.value, message)


# --- the command line ----------------------------------------------------------------------------


def a_stored_job(box):
    job = studies.study("tiny").jobs()[0]
    values = dict(zip(("probe", "hidden_variance"), probe_with(0.5, n=8), strict=True))
    values["scores"] = scores_with("tiny_city", "test", 0.5, 8)
    records = [Record(job.checkpoint, m, values[m.readout]) for m in job.measurements]
    rows.write_records(records, box.path / "figures" / "tiny" / "results" / "all-0.parquet")


def a_damaged_file(box):
    a_stored_job(box)
    path = box.path / "figures" / "tiny" / "results" / "all-0.parquet"
    path.write_bytes(path.read_bytes()[:-9])


SECTION = "section of a study: expected one of own, control.*found 'fig3'"


@pytest.mark.parametrize(
    ("arguments", "before", "message"),
    [
        (["run", "TINY"], None, "study: expected one of tiny, quick, embedded, .*found 'TINY'"),
        (["run", "tiny", "fig3"], None, SECTION),
        (["run", "tiny", "own", "fig3"], a_damaged_file, SECTION),
        (["run", "tiny", "own"], a_damaged_file, "all-0.parquet: expected complete records"),
        (["verify", "tiny", "0"], a_stored_job, "expected from 1 to 1 jobs.*found 0"),
        (["verify", "tiny", "-1"], a_stored_job, "expected from 1 to 1 jobs.*found -1"),
        (["verify", "tiny", "2"], a_stored_job, "expected from 1 to 1 jobs.*found 2"),
        (["verify", "tiny", "1", "--seed", "-1"], a_stored_job, "seed.*found -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_command_line_says_what_is_wrong_and_fails(box, capsys, arguments, before, message):
    if before is not None:
        before(box)
    assert __main__.main(arguments) == 1
    out, err = capsys.readouterr()
    assert not out
    assert_says_everything(err.strip().removeprefix("error: "), message)


@pytest.mark.parametrize(
    "arguments",
    [[], ["tiny"], ["verify", "tiny", "all"], ["run"], ["run", "tiny", "--tasks", "sst2"]],
)
def test_the_command_line_shows_its_usage_where_it_cannot_read_its_arguments(capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        __main__.main(arguments)
    assert "usage: forgetlib" in capsys.readouterr().err


def test_an_unknown_parameter_of_a_notebook_is_named(tmp_path, caplog):
    """papermill goes on without the word that it does not know, but says so."""
    path = NOTEBOOKS / "fig2_forget_gap.ipynb"
    given = {"study": "tiny", "tasks_onyl": ["tiny_city"]}
    papermill.execute_notebook(path, tmp_path / "out.ipynb", given, prepare_only=True)
    assert "Passed unknown parameter: tasks_onyl" in caplog.text
    assert "Passed unknown parameter: study" not in caplog.text


# --- what is odd and right -----------------------------------------------------------------------


def naive_scores(lm, examples):
    """One sequence at a time, all logits; white space at a prompt's end goes with the response."""
    rows = []
    for e in examples:
        rows.append([])
        for prompt, choice in zip(e.prompts, e.choices, strict=True):
            context = lm.tokenizer(prompt.rstrip()).input_ids
            whole = lm.tokenizer(f"{prompt} {choice}").input_ids
            tokens = context + whole[len(context) :]
            with torch.inference_mode():
                logits = lm.model(torch.tensor([tokens])).logits[0].float()
            log_probs = F.log_softmax(logits, -1)
            places = range(len(context), len(tokens))
            rows[-1].append(sum(float(log_probs[i - 1, tokens[i]]) for i in places))
    return np.array(rows)


WORDS = None  # the tiny model's own tokenizer
BYTES = bytes_tokenizer()
BEGUN = bytes_tokenizer(first="<s>")
RIGHT = {
    "a-choice-that-begins-another": (WORDS, "is it", ("good", "good bad")),
    "choices-that-begin-each-other": (WORDS, "is it", ("is", "is it", "is it good ?")),
    "bytes-that-begin-each-other": (BYTES, "1 + 11 =", ("1", "12")),
    "characters-that-begin-with-the-same-byte": (BYTES, "Zürich, café", ("é", "è")),
    "one-word-and-forty": (WORDS, "is it", ("yes", "no " * 40)),
    "one-byte-and-fifty": (BYTES, "n", ("0", "0" * 50)),
    "a-prompt-of-one-token": (WORDS, "is", ("yes", "no")),
    "a-prompt-of-one-byte": (BYTES, "?", ("yes", "no")),
    "a-prompt-that-fills-the-context": (WORDS, "is " * 62, ("yes no", "no")),
    "words-that-the-model-does-not-know": (WORDS, "unheard of", ("yes", "unheard")),
    "a-prompt-that-ends-in-spaces": (BYTES, "Answer:   ", ("yes", "no")),
    "a-prompt-that-ends-in-newlines": (BYTES, "Answer:\n\n", ("yes", "no")),
    "a-prompt-that-ends-in-other-white-space": (BYTES, "A\t\u00a0\u2003\x1f", ("yes", "no")),
    "choices-that-differ-in-white-space": (BYTES, "' a ' trimmed is", ("a", "a ", " a")),
    "choices-with-spaces-around-them": (BYTES, "Answer:", ("  yes ", "\nno\n")),
    "chinese-and-japanese": (BYTES, "日本の首都", ("東京", "京都")),
    "arabic-and-marks-of-direction": (BYTES, "\u202eمرحبا\u202c", ("نعم", "لا")),
    "emoji-joined-and-flagged": (BYTES, "👩‍👩‍👧 🇨🇭", ("👍🏽", "👍")),
    "an-accent-composed-and-combined": (BYTES, "caf", ("é", "e\u0301")),
    "control-characters": (BYTES, "a\x00b\x07\x1b[0m\r\n\x7f", ("\x00", "\x01")),
    "a-tokenizer-that-begins-every-text": (BEGUN, "Answer:\n", ("yes", "yes, or no")),
    "a-tokenizer-that-joins-prompt-and-space": (JOINING, "is it", ("bad", "bade")),
}


@pytest.mark.parametrize("way", ["tree", "mask", None])
@pytest.mark.parametrize(("tokenizer", "prompt", "choices"), RIGHT.values(), ids=RIGHT)
def test_odd_texts_score_as_in_a_loop_of_single_sequences(tiny, tokenizer, prompt, choices, way):
    """Beside an ordinary example with a prompt for each choice, whose scores it leaves alone."""
    lm = replace(tiny, packs=way)
    if tokenizer is not None:
        lm = with_tokenizer(lm, tokenizer)
    odd = example("odd", prompts=(prompt,) * len(choices), choices=choices)
    words = ("good", "good bad", "bad")[: len(choices)]
    usual = example("usual", prompts=("is it", "what is it", "is")[: len(choices)], choices=words)
    found = scoring.score(lm, [odd, usual])
    assert found.log_likelihoods == pytest.approx(naive_scores(lm, [odd, usual]), abs=1e-3)
    assert len(set(found.log_likelihoods[0].tolist())) == len(choices)
    alone = scoring.score(lm, [odd])
    assert alone.log_likelihoods[0] == pytest.approx(found.log_likelihoods[0], abs=1e-4)


def test_a_joined_boundary_keeps_the_prompt_s_own_tokens(tiny):
    """ "it" and " bad": t and the space are one token together, and the prompt has the t alone."""
    lm = with_tokenizer(tiny, JOINING)
    sequence = forward.encode(lm, example(prompts=("it",) * 2, choices=("bad", "good")), 0)
    assert lm.tokenizer.convert_ids_to_tokens(sequence.tokens) == ["i", "t", "b", "a", "d"]
    assert sequence.n_response == 3


def test_a_task_of_odd_texts_goes_all_the_way_to_scores(box):
    """Control characters, scripts, and white space, as rows of a task of one's own."""
    odd = [
        "\x00",
        "\x07 bell",
        "日本",
        "é",
        "e\u0301",
        "👍🏽",
        "\u202eabc",
        "  a  b  ",
        "\r\nx\r\n",
        "½",
    ]
    rows = [(f"{text}/{i}", {"i": f"{text}{i}"}) for i, text in enumerate(odd * 3)]
    made = mine(asked(choices=["ja ", "nein\n", "ÿ"], prompt="\tq"), rows)
    lm = with_tokenizer(box.tiny, BYTES)
    found = scoring.score(lm, made)
    assert found.log_likelihoods == pytest.approx(naive_scores(lm, made), abs=1e-3)
    assert all(e.choices[e.label] == "ja " for e in made)
    drawn = labels.training_labels(made, "flipped", 0)
    assert all(e.choices[d] != "ja " for e, d in zip(made, drawn, strict=True))
    again = replace(lm, model=loading.load("tiny", **CPU).model)
    assert np.isfinite(finetune(again, made, drawn, SETTINGS)).all()


def test_equal_questions_under_different_uids_score_equally(tiny):
    found = scoring.score(tiny, [example(i) for i in range(5)])
    assert np.ptp(found.log_likelihoods, axis=0) == pytest.approx(0, abs=1e-5)


def test_results_of_odd_names_come_back_from_a_folder_of_an_odd_name(tmp_path):
    place = store.Store(tmp_path / "ø 日本 #1%" / "results", tmp_path / "work '\"\n")
    uids = tuple(
        f"t/test/{text}{i}" for i, text in enumerate(["\x00", "é", "e\u0301", "👍🏽"] * 10)
    )
    result = with_scores(FAMILY[0], uids=uids)
    job = Job(result.checkpoint, tuple(r.measurement for r in result.records))
    place.write(result.records)
    place.pack({"t-0": job.keys})
    again = store.Store(place.packed, tmp_path / "nothing").result(job)
    assert again.scores["t/test"].uids == uids


@pytest.mark.parametrize(
    "text", ["costs $5 to $10", r"$\badmacro{x$", "日本 \u202e\x07\x00", "w " * 3000]
)
def test_a_figure_shows_any_text(project, text):
    """Signs of mathematics are none; what no font has is escaped, and a long prompt shortened."""
    rows = [
        {"model": "m", "eval_task": "t", "split": split, "uid": f"t/{split}/{i}"}
        for split in ("train", "test")
        for i in range(4)
    ]
    table = pd.DataFrame(rows).assign(label="", base=0.5, tuned=0.9, forgotten=-0.4)
    shown = [example(uid=f"t/{s}/0", prompts=(text,) * 2) for s in ("train", "test")]
    figure = fig1.draw(table, shown)
    drawn = "".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))
    assert readable(text[:4]) in drawn
    assert len(drawn) < 4000
    figure.canvas.draw()


def test_the_same_seed_twice_is_one_seed():
    assert studies.study("tiny", seeds=[0, 0]).jobs() == studies.study("tiny").jobs()
