"""Models of folders and the hub: what is refused, what is saved, and adapters."""

from pathlib import Path

import httpx
import oracle
import pytest
import torch
from conftest import save_random_model
from huggingface_hub.errors import GatedRepoError
from questions import mixed_examples
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetlib.errors import InputError, ModelError
from forgetlib.files import StoreError
from forgetlib.measuring import scoring
from forgetlib.models import catalogue, loading


def test_loading_and_scoring_leave_global_state_alone():
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    dtype = torch.get_default_dtype()
    lm = loading.load("tiny", tuning="lora", dtype="float32")
    scoring.score(lm, mixed_examples(4))
    assert (torch.get_rng_state() == random).all()
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no/such-model", {}, "model 'no/such-model': expected embedded, gemma-3-270m, "),
        ("embeded", {}, "Did you mean 'embedded'? Check the name"),
        ("tests", {}, "tiny, tiny-wide, a folder or a hub id"),
        ("tiny", {"tuning": "some"}, "tuning: expected one of body, full, lora, found 'some'"),
        ("tiny", {"dtype": "int8"}, "dtype: expected one of bfloat16, float32, found 'int8'"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_an_error(name, options, message):
    with pytest.raises((ModelError, InputError)) as error:
        loading.load(name, **options)
    assert message in str(error.value)


def test_pickled_weights_are_never_loaded(folder, tmp_path):
    for file in Path(folder).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="with safetensors"):
        loading.load(str(tmp_path))


def test_broken_weights_are_an_error(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    model.save_pretrained(tmp_path)
    for file in Path(folder).glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="logits that are not finite"):
        loading.load(str(tmp_path))


def test_a_gated_model_s_error_says_where_its_terms_are(monkeypatch):
    def refused(*_, **__):
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))
        raise OSError("gated") from GatedRepoError("no access", response=response)

    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", refused)
    with pytest.raises(ModelError, match=r"https://huggingface\.co/meta/secret, and log in"):
        loading.load("meta/secret")


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_drawing_weights_seeds_no_gpu(tuning, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    loading.load("tiny", tuning=tuning, dtype="float32", device="cpu")
    assert not seeded
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
    assert seeded == [0]  # what would have been seen


# --- saving ---------------------------------------------------------------------------------------


def theirs(path, tokenizer, adapter=None):
    """What transformers computes with a model of a folder, and peft with an adapter of it."""
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model = model if adapter is None else PeftModel.from_pretrained(model, adapter)
    return oracle.log_likelihoods(model.eval(), tokenizer, mixed_examples())


@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_a_trained_model_that_was_saved_scores_the_same_in_transformers_and_here(
    folder, tmp_path, tuning
):
    lm = loading.load(str(folder), tuning=tuning, dtype="float32", device="cpu")
    with torch.no_grad():
        for parameter in lm.trainable.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    expected = scoring.score(lm, mixed_examples()).log_likelihoods
    path = loading.save(lm, tmp_path / "models" / "saved")
    again = loading.load(str(path), dtype="float32", device="cpu")
    assert scoring.score(again, mixed_examples()).log_likelihoods == pytest.approx(
        expected, abs=1e-4
    )
    assert theirs(path, lm.tokenizer) == pytest.approx(expected, abs=1e-3)
    untouched = scoring.score(lm, mixed_examples()).log_likelihoods
    assert untouched.tolist() == expected.tolist()
    assert [p.name for p in path.parent.iterdir()] == ["saved"]


def test_a_folder_that_is_there_is_not_written_over(tiny, tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(InputError, match="one that does not exist yet"):
        loading.save(tiny, tmp_path / "kept")


def test_a_disk_that_is_full_leaves_no_half_of_a_model(tiny, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny.tokenizer, "save_pretrained", full)
    with pytest.raises(StoreError, match="No space left"):
        loading.save(tiny, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


# --- adapters -------------------------------------------------------------------------------------


def assert_merged(place, folder, tmp_path):
    """A folder with an adapter of a model is loaded, scored and saved as one model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = theirs(folder, tokenizer, place)
    assert abs(expected - theirs(folder, tokenizer)).max() > 0.1
    for tuning in catalogue.TUNINGS:
        lm = loading.load(str(place), tuning=tuning, dtype="float32", device="cpu")
        found = scoring.score(lm, mixed_examples()).log_likelihoods
        assert found == pytest.approx(expected, abs=1e-3), tuning
        assert lm.trainable
        saved = loading.save(lm, tmp_path / "saved" / tuning)
        assert theirs(saved, tokenizer) == pytest.approx(expected, abs=1e-3), tuning


def test_an_adapter_is_merged_into_its_model(folder, tmp_path):
    """It was scored as its base, or had nothing to train, and was saved without its model."""
    assert_merged(adapter_over(folder, tmp_path / "adapter"), folder, tmp_path)


def test_an_adapter_may_lie_beside_its_model(tiny, tmp_path):
    """Rather than name it."""
    folder = save_random_model("gpt2", tiny.tokenizer, tmp_path / "base")
    place = adapter_over(folder, tmp_path / "adapter")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(place)
    assert_merged(place, folder, tmp_path)


def adapter_over(folder, place, rename=None, safe=True):
    """A random adapter for a model, whose keys are renamed."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    base = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    adapted.save_pretrained(place)
    for file in Path(folder).glob("tokenizer*"):
        (place / file.name).write_bytes(file.read_bytes())
    weights = place / "adapter_model.safetensors"
    values = load_file(weights)
    if rename:
        save_file({rename(name): value for name, value in values.items()}, weights)
    if not safe:
        weights.unlink()
        torch.save(values, place / "adapter_model.bin")
    return place


def test_an_adapter_for_another_model_is_refused(folder, tmp_path):
    """peft loads it with a warning, as the base."""
    place = adapter_over(folder, tmp_path, rename=lambda name: name.replace(".0.", ".7."))
    with pytest.raises(ModelError, match="missing adapter keys"):
        loading.load(str(place), device="cpu")


def test_a_pickled_adapter_is_refused(folder, tmp_path):
    place = adapter_over(folder, tmp_path, safe=False)
    with pytest.raises(ModelError, match=r"an adapter without adapter_model\.safetensors"):
        loading.load(str(place), device="cpu")


def test_an_adapter_of_an_adapter_has_both(folder, tmp_path):
    from peft import PeftConfig

    inner = adapter_over(folder, tmp_path / "inner")
    outer = adapter_over(folder, tmp_path / "outer")
    settings = PeftConfig.from_pretrained(outer)
    settings.base_model_name_or_path = str(inner)
    settings.save_pretrained(outer)
    lms = {p: loading.load(str(p), dtype="float32", device="cpu") for p in (folder, inner, outer)}
    plain = lms[folder].weights()
    one, both = (
        sum(float((w - plain[n]).norm()) for n, w in lms[place].weights().items())
        for place in (inner, outer)
    )
    assert both > 1.1 * one > 0


def test_an_adapter_that_is_no_update_of_weights_is_refused(folder, tmp_path):
    from peft import PromptTuningConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(folder)
    config = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(tmp_path)
    for file in Path(folder).glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="type PROMPT_TUNING, which cannot be merged"):
        loading.load(str(tmp_path), device="cpu")
