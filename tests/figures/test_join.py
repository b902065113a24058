"""The runs that belong together are found, and no others are mixed in."""

from dataclasses import replace

import pytest
from synthetic import checkpoint_of, family, moved, with_training

from forgetlib.errors import InputError
from forgetlib.figures import fig2
from forgetlib.figures.join import but_seed


def test_runs_on_other_test_examples_are_not_mixed():
    base, tuned, forgotten = family("t", 0.5, 0.9, 0.6)
    (other,) = [
        r for r in family("t", 0.5, 0.9, 0.6, uid_offset=7) if r.checkpoint == base.checkpoint
    ]
    message = "runs of tiny seed 0 .*: expected the same test examples before and after, found diff"
    with pytest.raises(InputError, match=message):
        fig2.table([other, tuned, forgotten])


def test_runs_with_other_settings_are_not_averaged():
    results = family("t", 0.5, 0.9, 0.6)
    others = family("t", 0.5, 0.9, 0.6, seed=1)
    others[2] = moved(others[2], with_training(others[2].checkpoint, epochs=7))
    with pytest.raises(InputError) as error:
        fig2.table(results + others)
    assert str(error.value) == (
        "runs of tiny on t: expected settings that differ in the seed and in the forgetting set's "
        f"size only, found {results[2].checkpoint} and {but_seed(others[2].checkpoint)}. "
        "Pass the results of one study."
    )


def test_runs_that_start_from_other_settings_are_not_averaged():
    def with_rate(results, rate):  # of the fine-tuning, the forgetting being the same
        _, tuned, forgotten = (r.checkpoint for r in results)
        other = with_training(tuned, learning_rate=rate)
        made = (results[0].checkpoint, other, replace(forgotten, start=other))
        return [moved(r, c) for r, c in zip(results, made, strict=True)]

    results = [family("t", 0.5, 0.9, 0.6, seed=seed) for seed in (0, 1)]
    assert len(fig2.table(results[0] + with_rate(results[1], 1e-4))) == 1  # as it was
    with pytest.raises(InputError, match="settings that differ in the seed"):
        fig2.table(results[0] + with_rate(results[1], 1e-3))


def test_of_several_draws_of_questions_the_first_is_taken():
    """Two models of a seed that were taught again from different questions, as ladders have."""

    def drawn(skip):
        found = family("t", 0.5, 0.9, 0.6 + skip / 100)
        data = replace(found[2].checkpoint.data, skip=skip)
        return [*found[:2], moved(found[2], replace(found[2].checkpoint, data=data))]

    one = fig2.table(drawn(0))
    both = fig2.table([*drawn(16), *drawn(0)])
    assert both.equals(one)
    assert not fig2.table(drawn(16)).equals(one)


@pytest.mark.parametrize("absent", [0, 1])
def test_a_task_without_its_base_or_its_fine_tuned_run_is_left_out_and_no_other(absent):
    incomplete, complete = family("t", 0.5, 0.9, 0.6), family("u", 0.5, 0.9, 0.7)
    del incomplete[absent]
    assert fig2.table(incomplete + complete)["eval_task"].tolist() == ["u"]


def test_another_task_s_labels_do_not_count_as_a_task_s_own():
    results = family("t", 0.5, 0.9, 0.6)
    crossed = checkpoint_of("t", "random", start=checkpoint_of("u", "true"))
    results[2] = moved(results[2], crossed)
    assert fig2.table(results).empty


RUNS = family("t", 0.5, 0.9, 0.6)
OTHER_RECORDS = family("t", 0.5, 0.9, 0.6, uid_offset=7)[2].records


@pytest.mark.parametrize(
    ("call", "what", "expected", "found", "do"),
    [
        (
            lambda: fig2.table([RUNS[0], RUNS[1], replace(RUNS[2], records=OTHER_RECORDS)]),
            f"runs of {RUNS[2].checkpoint}",
            "the same test examples before and after",
            "different ones",
            "They were made by different versions of the data: recompute the study.",
        ),
    ],
)
def test_an_error_of_other_data_says_what_to_do(call, what, expected, found, do):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == f"{what}: expected {expected}, found {found}. {do}"
