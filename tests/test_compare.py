"""`forgetlib compare`: two or three folders that another tool made, and what can be wrong."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from forgetlib import compare
from forgetlib.__main__ import main
from forgetlib.compare import Comparison
from forgetlib.data import splits
from forgetlib.errors import InputError
from forgetlib.figures.methods.rungs import DIRECT, Ladder
from forgetlib.figures.numbers import estimate
from forgetlib.figures.verdicts import FORGOTTEN, KEPT, MEANINGS, NOTHING, SHIFTED
from forgetlib.forgetting.base import Training
from forgetlib.models import loading
from tests.figures.methods import test_rungs as made_up

TASK = "tiny_review"
FAST = {
    "n": 60,
    "forms": ("template(1)", "few_shot(2, 0, 'random')", "few_shot(2)"),
    "quantised": (8,),
    "n_relearned": (8,),
    "draws": 1,
    "relearning": Training(3e-3),
    "elsewhere": ("tiny_city",),
    "n_elsewhere": 20,
    "dtype": "float32",
}


def finetuned(model, tokenizer, folder, label_of, n_epochs=40, optimizer=None):
    """Train with a plain loop of PyTorch, as any other tool would, and save with transformers."""
    examples = splits.load(TASK, "train", 200, 0)[-60:]
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-2)
    texts = [f"{e.prompts[0]} {e.choices[label_of(e)]}" for e in examples]
    rows = [torch.tensor(tokenizer(text).input_ids) for text in texts]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # what follows is not seen
    last = torch.tensor([len(row) - 1 for row in rows])
    every = torch.arange(len(rows))
    for _ in range(n_epochs):
        optimizer.zero_grad()
        logits = model(tokens).logits[every, last - 1]
        torch.nn.functional.cross_entropy(logits, tokens[every, last]).backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model that knows the task; it, biased; one that learned nothing of it; and the base."""
    root = tmp_path_factory.mktemp("models")
    lm = loading.load("tiny", dtype="float32", device="cpu")
    loading.save(lm, root / "base")
    tokenizer = lm.tokenizer
    model = AutoModelForCausalLM.from_pretrained(root / "base")
    torch.manual_seed(0)
    finetuned(model, tokenizer, root / "known", lambda e: e.label)
    other = AutoModelForCausalLM.from_pretrained(root / "base")
    finetuned(other, tokenizer, root / "never", lambda e: sum(map(ord, e.uid)) % 2)
    # Only biased: one response is said to everything, after a few small steps.
    steps = torch.optim.SGD(model.parameters(), lr=0.03)
    finetuned(model, tokenizer, root / "biased", lambda e: e.choices.index("good"), 5, steps)
    return root


@pytest.fixture(autouse=True)
def _apart(project):
    """A project folder of its own."""


def of(folders, unlearned, **changes):
    settings = FAST | {"retrained": str(folders / "never")} | changes
    return Comparison(str(folders / "known"), str(folders / unlearned), (TASK,), **settings)


def test_two_and_three_folders_of_another_tool_are_compared(folders, tmp_path):
    comparison = of(folders, "base")
    store = compare.run(comparison, tmp_path, progress=False)
    found = compare.found(comparison, store)
    (row,) = found.summary.to_dict("records")
    assert row["verdict"] in MEANINGS and row["verdict"] not in (KEPT, SHIFTED, NOTHING)
    assert row["auroc_lost"] > 0.2
    rungs = ["as answered", "calibrated", "directly", "8 bits", "template 1", "2 examples"]
    rungs += ["2 examples, random labels", "relearned from 8"]
    assert list(found.table["rung"]) == rungs
    assert found.table.loc[1:, "oracle"].notna().all()
    assert sum("moved as far by another task" in said for said in found.unknown) == 1
    # Nothing is computed again, and no folder was written to.
    again = compare.run(comparison, tmp_path, progress=False)
    assert compare.found(comparison, again).summary.equals(found.summary)
    two = replace(comparison, retrained="")
    alone = compare.found(two, compare.run(two, tmp_path, progress=False))
    assert alone.summary["verdict"].tolist() == [FORGOTTEN]
    assert any("--retrained" in said for said in alone.unknown)
    assert sum("hidden on purpose" in said for said in alone.unknown) == 1
    assert not any(
        "hidden on purpose" in s for s in compare.cannot_tell(of(folders, "base", n_relearned=()))
    )
    assert not any("took the original's AUROC" in said for said in found.unknown)
    assert not any("--retrained" in said for said in found.unknown)


def test_a_relearning_that_harms_the_original_is_told():
    harmed = made_up.KNOWN | {"relearned": 0.0}
    of = Ladder(made_up.seeds(made_up.NEVER, known=harmed), made_up.RUNGS, 300)
    (said,) = compare._harmed({(TASK, "g"): of})  # by 8 labels, and not by 128
    before, after = (estimate(of.of("auroc", "known", rung)) for rung in (DIRECT, made_up.FEW))
    assert said == (
        f"Training on 8 labels took the original's AUROC of {TASK} from {before} to {after}: at so "
        "high a rate it harms what it should bring back (--rate)."
    )
    well = Ladder(made_up.seeds(made_up.NEVER), made_up.RUNGS, 300)
    assert not list(compare._harmed({(TASK, "g"): well}))


def test_two_tasks_are_compared_at_once(folders, tmp_path):
    both = replace(of(folders, "base"), tasks=(TASK, "tiny_praise"), forms=(), elsewhere=())
    found = compare.found(both, compare.run(both, tmp_path, progress=False))
    assert list(found.summary["eval_task"]) == [TASK, "tiny_praise"]
    rounded = found.table[found.table["rung"] == "8 bits"]
    assert len(rounded) == 2 and rounded["forgotten"].notna().all()


def test_hidden_states_are_looked_into_where_that_is_asked_for(folders, tmp_path):
    comparison = of(folders, "base", lens=24)
    store = compare.run(comparison, tmp_path, progress=False)
    table = compare.found(comparison, store).table.set_index("rung")
    row = table.loc["logit lens"]
    assert row["measure"] == "auroc" and row[["known", "forgotten", "oracle"]].notna().all()
    # The known model's own layer would tell it best; here it is the unlearned one's.
    ((_, ladder),) = comparison.ladders(store).items()
    (seed,) = ladder.seeds
    (known,) = seed.models["known"]
    assert seed.layer in range(len(known.lens))
    direct = known.rungs["directly"][0].log_likelihoods
    assert known.lens[-1] == pytest.approx(direct.astype(float), abs=1e-4)
    assert "logit lens" not in compare.found(replace(comparison, lens=0), store).table["rung"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
def test_an_adapter_that_trainer_and_peft_made_is_compared(folders, tmp_path):
    """Trained by transformers' Trainer on random labels, and saved by peft."""
    model = AutoModelForCausalLM.from_pretrained(folders / "known")
    tokenizer = AutoTokenizer.from_pretrained(folders / "known")
    examples = splits.load(TASK, "train", 200, 0)[-60:]
    wrong = [f"{e.prompts[0]} {e.choices[sum(map(ord, e.uid)) % 2]}" for e in examples]
    tokens = [tokenizer(text).input_ids for text in wrong]
    rows = [{"input_ids": row, "labels": row} for row in tokens]
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    settings = TrainingArguments(
        *(str(tmp_path / "trainer"),),
        **{"num_train_epochs": 10, "learning_rate": 1e-2, "report_to": [], "use_cpu": True},
        per_device_train_batch_size=1,  # nothing to pad
        **{"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True},
    )
    Trainer(adapted, settings, train_dataset=rows).train()
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    comparison = replace(of(folders, "base"), unlearned=str(tmp_path / "adapter"))
    store = compare.run(comparison, tmp_path / "out", progress=False)
    (row,) = compare.found(comparison, store).summary.to_dict("records")
    assert row["auroc_lost"] > 0.1
    assert row["verdict"] in MEANINGS


def test_a_bias_is_called_shifted(folders, tmp_path):
    comparison = of(folders, "biased", n=130)
    found = compare.found(comparison, compare.run(comparison, tmp_path, progress=False))
    assert found.summary["verdict"].tolist() == [SHIFTED]


def test_the_command_prints_and_writes_what_it_found(folders, tmp_path, capsys):
    words = ["compare", "--original", str(folders / "known"), "--unlearned", str(folders / "base")]
    words += ["--task", TASK, "--n", "130", "--forms", "template(1)", "--relearn", "8"]
    words += ["--draws", "1", "--elsewhere", "--dtype", "float32", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"{TASK}: FORGOTTEN. That is, more than half of the skill is gone" in said
    assert "Damage to other tasks was not measured" in said
    assert (
        "by less than 0.02 in every model" in said
    )  # at the usual rate, the tiny model learns nil
    files = {p.name for p in (tmp_path / "out").iterdir()}
    wanted = {"summary.csv", "report.html", *(f"ladder_{TASK}.{e}" for e in ("png", "pdf", "csv"))}
    assert wanted <= files
    table = pd.read_csv(tmp_path / f"out/ladder_{TASK}.csv")
    assert f"{table.loc[1, 'forgotten']:.2f}" in said
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "http" not in page.replace(
        "http-equiv", ""
    )
    assert f"<h2>{TASK}: forgotten</h2>" in page
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["summary"][0]["verdict"] == "forgotten"
    assert found["rungs"][1]["forgotten"] == pytest.approx(table.loc[1, "forgotten"], abs=1e-5)


def test_a_form_that_a_model_cannot_be_asked_in_is_left_out_and_said(folders, tmp_path):
    comparison = of(folders, "base", forms=("upper", "template(1)"))  # capitals are unknown words
    with pytest.warns(UserWarning, match="goes on without the form upper"):
        store = compare.run(comparison, tmp_path, progress=False)
    found = compare.found(comparison, store)
    assert "capitals" not in set(found.table["rung"]) and "template 1" in set(found.table["rung"])
    assert f"Not every model could be asked {TASK} in this form: capitals." in found.unknown


def test_a_form_that_a_task_does_not_have_is_left_out_and_said(folders):
    comparison = of(folders, "base", forms=("lower",))  # it is in small letters
    assert comparison.forms_of(TASK)[0] == ()
    assert any("cannot be asked as lower" in said for said in compare.cannot_tell(comparison))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unlearned": "known"}, "expected two models, with different weights, found the same"),
        ({"retrained": "known"}, "expected two models, with different weights, found the same"),
        ({"n_relearned": (400,)}, "expected 400, for 1 sets of 400 .* found 267"),
        ({"unlearned": "tiny-wide"}, "model 'tiny-wide': expected the sizes of"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_refused_before_anything_is_computed(folders, changes, message):
    named = {k: str(folders / v) if v == "known" else v for k, v in changes.items()}
    comparison = replace(of(folders, "base"), **named)
    with pytest.raises(InputError, match=message):
        comparison.check()


def test_copies_of_a_folder_are_the_same_model(folders, tmp_path):
    shutil.copytree(folders / "known", tmp_path / "copy")
    with pytest.raises(InputError, match="the same one twice"):
        replace(of(folders, "base"), unlearned=str(tmp_path / "copy")).check()


def test_another_tokenizer_is_refused(folders, tmp_path):
    shutil.copytree(folders / "base", tmp_path / "other")
    path = tmp_path / "other/tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    one, other = "good", "bad"
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"tokenizer of .*other tokens for the same text"):
        replace(of(folders, "base"), unlearned=str(tmp_path / "other")).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "tasks: expected at least one"),
        ({"tasks": ("tiny_revew",)}, "Did you mean 'tiny_review'"),
        ({"forms": ("uper",)}, "Did you mean 'upper'"),
        ({"n": 0}, "^n: "),
        ({"n_relearned": (0,)}, "^n_relearned: "),
        ({"original": ""}, "^original: "),
        ({"tuning": "head"}, "^tuning: "),
        ({"relearning": 1e-5}, "^relearning: "),
    ],
    ids=str,
)
def test_bad_settings_are_refused(folders, changes, message):
    with pytest.raises(InputError, match=message):
        replace(of(folders, "base"), **changes)


def test_a_skill_that_the_original_lacks_is_nothing_to_test(folders, tmp_path):
    comparison = replace(of(folders, "base"), original=str(folders / "never"), retrained="")
    found = compare.found(comparison, compare.run(comparison, tmp_path, progress=False))
    assert found.summary["verdict"].tolist() == [NOTHING]
    assert "nothing to test" in found.as_text()
