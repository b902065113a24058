"""What each way of tuning trains."""

import pytest

from forgetlib.errors import ModelError
from forgetlib.models import loading, tuning as tunings


def test_tuning_decides_what_is_trained():
    names = {t: set(loading.load("tiny", tuning=t).trainable) for t in ("body", "full", "lora")}
    assert names["full"] - names["body"] == {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    assert all("lora_" in n for n in names["lora"])
    assert len(names["lora"]) == 2 * 7 * 2  # A and B, linear layers, blocks


@pytest.mark.parametrize("tuning", ["body", "full", "lora"])
def test_a_model_with_nothing_to_train_is_an_error_at_load(tiny, tuning, monkeypatch):
    """As one whose weights are quantised."""
    tune = tunings.tuning_of

    def frozen(name, model, tuning):
        monkeypatch.setattr(model, "parameters", lambda: iter(()))
        return tune(name, model, tuning)

    monkeypatch.setattr(loading, "tuning_of", frozen)
    if tuning == "lora":
        monkeypatch.setattr(tunings, "_with_low_rank_updates", lambda name, model: model)
    with pytest.raises(ModelError, match=f"weights that tuning='{tuning}' can train, found none"):
        loading.load("tiny", tuning=tuning, device="cpu")
