"""Matrices of forget ratios against loops and SciPy."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from synthetic import cross, family, moved, result_of, scores_of, scores_with, with_training

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import crosstask, fig2, fig3, intervals

TASKS = ("a", "b", "c")
TUNED = np.array([0.9, 0.8, 0.85])
FORGOTTEN = np.array([[0.6, 0.7, 0.85], [0.75, 0.55, 0.5], [0.8, 0.85, 0.65]])


@pytest.mark.parametrize("start", ["pairwise", "shared"])
@pytest.mark.parametrize("condition", ["random", "flipped"])
def test_cross_task_measures_what_was_put_in(start, condition):
    results = cross(TASKS, TUNED, FORGOTTEN, start=start, condition=condition)
    found = crosstask.cross_task(results, condition)
    floor = 0.5 if condition == "random" else 1 - TUNED[:, None]
    assert (found.model, found.condition, found.protocol) == ("tiny", condition, start)
    assert found.tasks == TASKS
    assert found.tuned == pytest.approx(TUNED)
    assert found.forgotten == pytest.approx(FORGOTTEN)
    expected = (TUNED[:, None] - FORGOTTEN) / (TUNED[:, None] - floor)
    assert found.forget_ratio == pytest.approx(expected)
    assert found.replicates.shape == (intervals.N_RESAMPLES, 3, 3)
    assert found.n.tolist() == [200] * 3


def test_cross_task_is_a_loop_over_seeds_and_pairs():
    seeds = (0, 1, 2)
    results = cross(TASKS, TUNED, FORGOTTEN, seeds=seeds, n=50, rng=np.random.default_rng(0))
    found = crosstask.cross_task(results)
    assert (found.n_seeds, found.n.tolist()) == (3, [150] * 3)
    for i, evaluated in enumerate(TASKS):
        for j, forgotten in enumerate(TASKS):
            before, after = [], []
            for run in results:
                origin = run.checkpoint.start
                if origin and (origin.task, run.checkpoint.task) == (evaluated, forgotten):
                    (start,) = [r for r in results if r.checkpoint == origin and r.seed == run.seed]
                    test = f"{evaluated}/test"
                    before.append(metrics.correct(start.scores[test]).mean())
                    after.append(metrics.correct(run.scores[test]).mean())
            assert len(after) == 3
            assert found.forgotten[i, j] == pytest.approx(np.mean(after))
            ratio = metrics.forget_ratio(np.mean(before), np.mean(after))
            assert found.forget_ratio[i, j] == pytest.approx(ratio)


def test_the_diagonal_is_the_task_s_own_forgetting():
    own = [r for t, *accuracies in (("a", 0.5, 0.9, 0.6),) for r in family(t, *accuracies)]
    found = crosstask.cross_task(own, n_resamples=500)
    row = fig2.table(own, n_resamples=500).iloc[0]
    (cell,) = fig3.table(found).to_dict("records")
    for name in ("forget_ratio", "forget_ratio_low", "forget_ratio_high"):
        assert cell[name] == pytest.approx(row[name])


def test_the_interval_of_a_pair_is_paired_as_scipy_s():
    rng = np.random.default_rng(3)
    results = cross(TASKS, TUNED, FORGOTTEN, n=300, rng=rng)
    found = crosstask.cross_task(results, n_resamples=6000)
    cell = fig3.table(found).query("eval_task == 'b' and forget_task == 'c'").iloc[0]
    outcomes = found.outcomes[1][0]
    theirs = scipy.stats.bootstrap(
        (outcomes[:, 0], outcomes[:, 3]),
        lambda a, b, axis: (a.mean(axis) - b.mean(axis)) / (a.mean(axis) - 0.5),
        paired=True,
        method="percentile",
        n_resamples=6000,
        rng=rng,
    ).confidence_interval
    assert cell.forget_ratio_low == pytest.approx(theirs.low, abs=0.02)
    assert cell.forget_ratio_high == pytest.approx(theirs.high, abs=0.02)


def test_a_row_s_cells_share_their_resample_and_rows_do_not():
    found = crosstask.cross_task(cross(TASKS, TUNED, FORGOTTEN, rng=np.random.default_rng(0)))
    correlation = np.corrcoef(found.replicates.reshape(-1, 9).T).reshape(3, 3, 3, 3)
    assert correlation[0, 1, 0, 2] > 0.2  # the fine-tuned accuracy is in both
    assert np.abs(correlation[0, :, 1, :]).max() < 0.08
    alike = crosstask.cross_task(cross(TASKS, TUNED, np.full((3, 3), 0.6)))
    assert (alike.replicates == alike.replicates[:, :, :1]).all()


def test_seeds_are_resampled_for_all_tasks_together():
    low = cross(TASKS, TUNED, FORGOTTEN, seeds=(0,))
    high = cross(TASKS, TUNED, FORGOTTEN - 0.2, seeds=(1,))
    found = crosstask.cross_task(low + high)
    correlation = np.corrcoef(found.replicates[:, 0, 0], found.replicates[:, 1, 1])
    assert correlation[0, 1] > 0.5


def test_a_task_that_was_never_learned_is_an_undefined_row():
    found = crosstask.cross_task(cross(TASKS, [0.9, 0.52, 0.85], FORGOTTEN))
    assert found.defined.tolist() == [True, False, True]
    assert np.isnan(found.forget_ratio[1]).all()
    assert np.isnan(found.replicates[:, 1]).all()
    table = fig3.table(found)
    assert len(table) == 9
    undefined = table[~table["ratio_defined"]]
    assert set(undefined["eval_task"]) == {"b"}
    assert (
        undefined[["forget_ratio", "forget_ratio_low", "forget_ratio_high"]].isna().all(axis=None)
    )
    assert np.isfinite(undefined["forgotten"]).all()


def test_smaller_forgetting_sets_and_other_conditions_are_left_aside():
    results = cross(TASKS, TUNED, FORGOTTEN)
    others = family("a", 0.5, 0.9, 0.7, size=50)
    others += cross(TASKS, TUNED, FORGOTTEN + 0.1, condition="flipped")
    found = crosstask.cross_task([*others, *results])
    assert found.forgotten == pytest.approx(FORGOTTEN)


def test_what_only_records_more_is_the_same_setting():
    """The diagonal of a study is the own-task run, which is probed and recorded."""
    results = cross(TASKS, TUNED, FORGOTTEN)
    for i, result in enumerate(results):
        start, task = result.checkpoint.start, result.checkpoint.task
        if start and start.task == task:
            more = result_of(
                result.checkpoint, {f"{task}/train": scores_with(task, "train", 0.5, 9)}
            )
            results[i] = replace(result, records=result.records + more.records)
    assert crosstask.cross_task(results).forgotten == pytest.approx(FORGOTTEN)


def test_missing_pairs_are_named():
    results = cross(TASKS, TUNED, FORGOTTEN)
    pair = [
        r
        for r in results
        if r.checkpoint.start and (r.checkpoint.start.task, r.checkpoint.task) == ("a", "c")
    ]
    with pytest.raises(InputError, match=r"found 1 pairs missing \(seed 0: a after c's labels\)"):
        crosstask.cross_task([r for r in results if r not in pair])
    with pytest.raises(InputError, match="every pair of the 2 tasks"):
        crosstask.cross_task(family("a", 0.5, 0.9, 0.6) + family("b", 0.5, 0.9, 0.6))
    with pytest.raises(InputError, match="found none among 3 results"):
        crosstask.cross_task(family("a", 0.5, 0.9, 0.6), "flipped")


@pytest.mark.parametrize(
    "other",
    [
        cross(TASKS, TUNED, FORGOTTEN, start="shared"),
        cross(TASKS, TUNED, FORGOTTEN, model="other"),
        [
            moved(r, with_training(r.checkpoint, epochs=7))
            for r in cross(TASKS, TUNED, FORGOTTEN)
            if r.checkpoint.start
        ],
    ],
    ids=["start", "model", "setting"],
)
def test_starts_models_and_settings_are_not_mixed(other):
    with pytest.raises(InputError, match="expected one model, start and setting"):
        crosstask.cross_task(cross(TASKS, TUNED, FORGOTTEN) + other)


def test_cross_task_refuses_other_test_examples():
    results = cross(("a",), [0.9], [[0.6]])
    moved = scores_of("a", "test", np.arange(200) < 120, uid_offset=9)
    results[1] = result_of(results[1].checkpoint, {"a/test": moved})
    with pytest.raises(InputError, match="the same test examples"):
        crosstask.cross_task(results)
