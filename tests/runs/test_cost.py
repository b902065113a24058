"""Estimates of a study's cost, beside counts by hand and a real run."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from forgetlib import studies
from forgetlib.data import assets, splits
from forgetlib.engine import packing
from forgetlib.errors import InputError
from forgetlib.forgetting.base import Training
from forgetlib.measuring.scoring import encode_all
from forgetlib.models import forward, loading, memory, synthetic
from forgetlib.runs import cost, estimate, grid
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Checkpoint, Measurement

pytestmark = pytest.mark.usefixtures("brief_probes")


@pytest.fixture
def study(project):
    brief = Training(3e-3, epochs=2, batch_size=10)
    settings = {"n_train": 100, "n_eval": 50, "sizes": [], "models": ["tiny"], "records": 0}
    settings |= {"tuned": brief, "forgetting": brief}
    return studies.study("tiny", tasks=["tiny_city"], **settings)


def test_a_model_s_shape_is_counted_without_its_weights():
    lm = loading.load("tiny", device="cpu").model
    found = cost.shape("tiny")
    assert found.body + found.embeddings == sum(p.numel() for p in lm.parameters())
    assert (found.n_layers, found.hidden) == (2, synthetic.TINY_WIDTHS["tiny"])


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("meta-llama/Llama-2-7b-hf", 6.74),
        ("EleutherAI/gpt-j-6b", 6.05),
        ("openai-community/gpt2", 0.124),
    ],
)
def test_the_paper_s_models_are_known_without_the_hub(model, billions):
    found = cost.shape(model)
    assert (found.body + found.embeddings) / 1e9 == pytest.approx(billions, rel=0.01)


def own_jobs(study):
    return study.own_jobs("tiny_city", 0, "tiny")


def unprobed(job):
    return job.only(m for m in job.measurements if m.readout not in ("probe", "hidden_variance"))


def test_a_job_s_examples_are_counted_as_often_as_they_are_met(study):
    base, tuned, _ = own_jobs(study)
    # Each is scored, and passed once more by the probe; two epochs.
    assert (cost.work(base).trained, cost.work(base).scored) == (0, 2 * 150)
    assert (cost.work(tuned).trained, cost.work(tuned).scored) == (200, 2 * 150)
    recorded = unprobed(own_jobs(replace(study, records=4))[2])
    # The first of the records is the start's scores, and the one at the end this one's.
    assert cost.work(recorded).scored == 4 * 100 + 50


def test_records_of_other_questions_than_are_scored_are_passes_of_their_own(study):
    """Those at the start and at the end too."""
    few = unprobed(own_jobs(replace(study, records=4, n_recorded=10))[2])
    assert cost.work(few).scored == 5 * 10 + 100 + 50


def test_flops_are_two_a_weight_and_token_forward_and_twice_that_backward(study):
    job = unprobed(own_jobs(study)[1])
    form = cost.shape("tiny")
    # Every prompt has six words, every response one.
    forward = 2 * (form.body * 7 + form.vocabulary * form.hidden)
    assert cost.tokens("tiny", "tiny_city") == (6, 1)
    assert cost.work(job).training == pytest.approx(200 * 3 * forward)
    scored = 2 * (form.body * 8 + form.vocabulary * form.hidden * 2)
    assert cost.work(job).scoring == pytest.approx(150 * scored)


def test_a_lens_meets_the_vocabulary_at_the_end_of_every_layer(study):
    form = cost.shape("tiny")
    job = Job(Checkpoint("tiny"), (Measurement("logit_lens", "tiny_city", "test", 50),))
    a_question = 2 * (form.body * 8 + form.vocabulary * form.hidden * 2 * 3)
    assert (cost.work(job).scored, cost.work(job).scoring) == (50, pytest.approx(50 * a_question))


def test_low_rank_training_and_recomputing_change_the_passes(study, monkeypatch):
    job = own_jobs(study)[1]
    full = cost.work(job).training
    low_rank = replace(job, checkpoint=replace(job.checkpoint, tuning="lora"))
    assert cost.work(low_rank).training == pytest.approx(full * 2 / 3)
    monkeypatch.setattr(memory, "RECOMPUTED_SIZE", 0)
    assert cost.work(job).training == pytest.approx(full * 4 / 3)


@pytest.mark.parametrize(
    ("tuning", "optimizer", "least", "most"),
    [("full", "adamw", 100, 120), ("full", "adafactor", 50, 60), ("lora", "adamw", 12, 20)],
)
def test_seven_billion_weights_take_what_their_optimiser_needs(tuning, optimizer, least, most):
    """GiB: 16 or 8 bytes a weight, or 2 and next to nothing, with activations of a batch."""
    checkpoint = studies.study("paper").jobs("own")[1].checkpoint
    training = replace(checkpoint.method.training, optimizer=optimizer)
    method = replace(checkpoint.method, training=training)
    needed = cost.needed_memory(replace(checkpoint, tuning=tuning, method=method), longest=200)
    assert least < needed / cost.GIB < most


def test_a_rate_that_is_none_is_refused(study):
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="--tflops: expected a number above 0"):
            estimate.of_study(study, tflops=rate)


def test_what_is_stored_costs_nothing_and_the_rest_its_share(study):
    rate = cost.Rate(1e9, 1e9)
    whole = cost.table(study, rate=rate).iloc[0]
    assert whole["jobs"] == len(study.jobs())
    studies.run(study, "own", progress=False)
    rest = cost.table(study, rate=rate).iloc[0]
    assert rest["jobs"] == len(study.jobs()) - len(study.jobs("own"))
    assert 0 < rest["hours"] < whole["hours"]
    studies.run(study, progress=False)
    assert cost.table(study, rate=rate).empty


def test_the_estimate_is_near_what_a_run_takes(study):
    """Of the synthetic study, within a factor of three: small steps are mostly overhead."""
    studies.run(study, "own", progress=False)
    store = grid.open_store(study)
    jobs = [j for j in study.jobs("own") if j.checkpoint.start]
    took = estimate.spent(jobs, store)
    rate = cost.measured("tiny", study.tuning, study.dtype)
    guessed = sum(cost.seconds(cost.work(j), rate) for j in jobs)
    assert guessed == pytest.approx(took, rel=2) or took / guessed < 3


@pytest.mark.parametrize("tuning", ["body", "lora"])
def test_the_rate_of_a_model_that_is_not_here_is_that_of_layers_of_its_shape(
    tuning, tmp_path, monkeypatch
):
    """Nothing is downloaded, and none of its weights are needed."""
    monkeypatch.setenv("FORGETLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(assets, "model_dir", lambda *_: pytest.fail("was asked for"))
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("was loaded"))
    model = "smollm2-135m-instruct"
    lm, examples, todo = cost._to_measure(model, tuning, "bfloat16")
    form, config = cost.shape(model), lm.model.config
    assert (config.num_hidden_layers, config.hidden_size) == (2, form.hidden)
    frozen = [p for n, p in lm.model.named_parameters() if "lora_" not in n]
    body = form.body // form.n_layers * 2
    assert sum(p.numel() for p in frozen) == pytest.approx(body + form.embeddings, rel=0.01)
    sequences = [forward.encode(lm, e, e.label) for e in examples]
    assert {len(s.tokens) for s in sequences} == {cost.N_TOKENS}
    head = 2 * form.vocabulary * form.hidden  # of each token of an answer
    fed = len(examples) * 2 * body * (cost.N_TOKENS - 1)
    once = fed + len(examples) * 2 * head
    assert todo.training == pytest.approx((2 if tuning == "lora" else 3) * once, rel=0.01)
    packed = sum(
        packing.n_packed([s.tokens[:-1] for s in both]) for both in encode_all(lm, examples)
    )
    assert packed == len(examples) * cost.N_TOKENS
    assert todo.scoring == pytest.approx(2 * body * packed + len(examples) * 4 * head, rel=0.01)
    cost.measured.cache_clear()
    rate = cost.measured(model, tuning, "bfloat16")
    assert rate.training > 0 and rate.scoring > 0
    cost.measured.cache_clear()


@pytest.mark.embedded
def test_the_embedded_model_s_shape_is_known_without_its_files(embedded, monkeypatch):
    monkeypatch.setattr(assets, "model_dir", lambda *_: pytest.fail("was asked for"))
    cost.shape.cache_clear()
    found, model = cost.shape("embedded"), embedded.model
    config = model.config.get_text_config()
    assert found.embeddings == model.get_input_embeddings().weight.numel()
    assert found.body == sum(p.numel() for p in model.parameters()) - found.embeddings
    sizes = (found.vocabulary, found.hidden, found.n_layers)
    assert sizes == (config.vocab_size, config.hidden_size, config.num_hidden_layers)


def test_an_estimate_for_another_machine_downloads_no_model(project, monkeypatch):
    """Its tokenizer is not here either: 4 characters a token, in place of what it would say."""
    monkeypatch.setenv("FORGETLIB_CACHE", str(project / "cache"))
    monkeypatch.setattr(assets, "model_dir", lambda *_: pytest.fail("was asked for"))
    cost.tokens.cache_clear()
    cost.tokenizer.cache_clear()
    study = studies.study("tiny", tasks=["tiny_city"], models=["embedded"], sizes=[])
    found = cost.table(study, rate=cost.Rate(1e12, 1e12)).iloc[0]
    assert found["parameters"] == 268_098_176  # Gemma-3-270M's
    examples = splits.load("tiny_city", "train", cost.SAMPLE, 0)
    characters = sum(len(e.prompts[0]) for e in examples) / len(examples)
    assert cost.tokens("embedded", "tiny_city")[0] == pytest.approx(characters / 4)
    cost.tokens.cache_clear()
    cost.tokenizer.cache_clear()


def test_nothing_is_loaded_where_nothing_is_missing(tmp_path):
    """Not even torch; and no cache can be had here, from which a model or data would come."""
    (tmp_path / "file").write_text("")
    code = """if True:
        import sys
        from forgetlib import __main__
        assert __main__.main(["cost", "embedded"]) == 0
        assert not {"torch", "transformers", "datasets"} & set(sys.modules)
    """
    environment = os.environ | {"FORGETLIB_CACHE": str(tmp_path / "file" / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    stored = len(studies.study("embedded").jobs())
    took = rf"{stored} jobs are stored; they took \d+\.\d\d hours where they were computed \(.*\)"
    assert re.search(rf"\nnothing is missing\n{took}\n$", done.stdout)


def test_stored_jobs_are_estimated_where_it_is_asked_for(study):
    """What they took, and with how many threads: hours of one and of two do not compare."""
    studies.run(study, progress=False)
    n = torch.get_num_threads()
    threads = "1 thread" if n == 1 else f"{n} threads"
    took = f"hours where they were computed ({threads})"
    assert estimate.of_study(study).as_text().endswith(took)
    given = estimate.of_study(study, tflops=0.001)
    assert re.search(r", and would take \d+\.\d\d by this estimate$", given.as_text())
    assert given.threads_estimated is None and given.threads_spent == (n,)
    more = replace(study, seeds=(*study.seeds, max(study.seeds) + 1))
    assert estimate.of_study(more).as_text().endswith(f" by this estimate ({threads})")


def test_jobs_that_lack_their_data_are_said_to_be_missing(study, monkeypatch):
    monkeypatch.setattr(splits, "missing", lambda names: dict.fromkeys(names, "no data"))
    missing = len(study.jobs())
    assert (
        f"\n{missing} jobs are missing, and so are the data of"
        in estimate.of_study(study).as_text()
    )


def test_missing_tasks_cost_nothing(project, monkeypatch):
    study = studies.study("tiny", models=["tiny"], sizes=[], protocol="pairwise")
    monkeypatch.setattr(splits, "missing", lambda names: {"tiny_city": "no data"})
    found = cost.table(study, rate=cost.Rate(1e9, 1e9)).iloc[0]
    rest = studies.study("tiny", tasks=study.tasks[1:], models=["tiny"], sizes=[])
    assert found["jobs"] == len(replace(rest, protocol="pairwise").jobs())
