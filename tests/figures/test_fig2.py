"""Figure 2: forgetting and its control measure what was put in; answers are counted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import (
    checkpoint_of,
    family,
    moved,
    passing,
    probe_with,
    result_of,
    scores_with,
    with_training,
)
from tables import by_name, control_table, forget_gap_table

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import fig2, intervals
from forgetlib.figures.join import by_checkpoint


def test_forgetting_measures_what_was_put_in():
    results = family("kept", 0.6, 0.8, 0.8) + family("lost", 0.55, 0.9, 0.5)
    table = fig2.table(results).set_index("eval_task")
    kept, lost = table.loc["kept"], table.loc["lost"]
    assert (lost.base, lost.tuned, lost.forgotten) == pytest.approx((0.55, 0.9, 0.5))
    assert lost.forget_ratio == pytest.approx(1)
    assert lost.forget_gap == pytest.approx(0)
    assert (kept.forget_ratio, kept.forget_gap) == pytest.approx((0, 0.3))
    assert lost.forgetting_set == pytest.approx(0.5)
    assert lost.forgotten_low < 0.5 < lost.forgotten_high
    assert kept.behaviour == "no loss shown"
    assert lost.behaviour == "below pre-trained"
    assert bool(kept.ratio_defined)


@pytest.mark.parametrize("forgotten", [0.7, 0.52, 0.5])
def test_what_is_lost_down_to_the_pre_trained_accuracy_is_below_fine_tuned(forgotten):
    table = fig2.table(family("t", 0.5, 0.9, forgotten))
    assert table["behaviour"].item() == "below fine-tuned"


def test_a_ratio_without_a_denominator_is_marked_as_undefined_and_has_no_number():
    row = fig2.table(family("t", 0.5, 0.52, 0.44, n=100)).iloc[0]
    assert metrics.forget_ratio(0.52, 0.44) == pytest.approx(4)  # the trap
    assert not row.ratio_defined
    assert row.behaviour == "ratio undefined"
    assert row[["forget_ratio", "forget_ratio_low", "forget_ratio_high"]].isna().all()
    assert row.forgotten == pytest.approx(0.44)


def test_a_loss_that_few_examples_do_not_show_is_not_called_kept():
    rng = np.random.default_rng(0)
    row = fig2.table(family("t", 0.5, 0.75, 0.65, n=100, rng=rng)).iloc[0]
    assert row.lost_low <= 0 < row.lost
    assert row.behaviour == "no loss shown"


def test_resamples_without_a_ratio_are_left_out_of_its_interval():
    """A few of the resamples of 62 right of 100 are at or below chance."""
    accuracies = np.random.default_rng(0).binomial(100, 0.62, (4000, 2)) / 100
    ratios = metrics.forget_ratio(accuracies[:, 0], accuracies[:, 1])
    undefined = np.isnan(ratios)
    assert 0 < undefined.mean() < 0.025
    found = intervals.percentiles(0.0, ratios)
    expected = np.quantile(ratios[~undefined], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    many = np.where(np.arange(4000) % 15 == 0, np.nan, ratios)  # more than 5 %
    assert np.isnan(intervals.percentiles(0.0, many).low)


def test_confidence_is_the_fine_tuned_model_s():
    """Paper, Fig. 4: what is known before forgetting is to predict it."""
    results = family("t", 0.5, 0.9, 0.6)  # every answer with probability 0.8
    row = fig2.table(results).iloc[0]
    assert row.confidence == pytest.approx(0.9 * 0.8 + 0.1 * 0.2)
    assert row.confidence_low < row.confidence < row.confidence_high


def test_as_many_resamples_are_drawn_as_were_asked_for():
    """Of one resample, an interval is a point."""
    row = fig2.table(family("t", 0.5, 0.9, 0.6), n_resamples=1).iloc[0]
    for measure in ("forgotten", "forgetting_set"):
        assert row[f"{measure}_low"] == row[f"{measure}_high"] != row[measure]


def test_an_undefined_ratio_is_three_times_not_a_number():
    row = fig2.table(family("t", 0.5, 0.5, 0.5)).iloc[0]
    ratio = [row[f"forget_ratio{end}"] for end in ("", "_low", "_high")]
    assert all(isinstance(x, float) and np.isnan(x) for x in ratio)


def test_seeds_are_averaged_and_counted():
    results = family("t", 0.5, 0.9, 0.6, seed=0) + family("t", 0.5, 0.9, 0.8, seed=1)
    row = fig2.table(results).iloc[0]
    assert (row.n_seeds, row.n) == (2, 400)
    assert row.forgotten == pytest.approx(0.7)


def test_the_seeds_values_are_kept_as_text_and_their_mean_is_the_table_s():
    results = family("t", 0.5, 0.9, 0.6, seed=0) + family("t", 0.5, 0.7, 0.8, seed=1)
    row = fig2.table(results).iloc[0]
    assert (row.forgotten_seeds, row.lost_seeds) == ("0.6 0.8", "0.3 -0.1")
    assert row.lost == pytest.approx(0.1)
    control = fig2.control_table(controlled("t", 0.9, 0.8, 0.5)).iloc[0]
    assert control.beyond_true_labels_seeds == "0.3"


def test_what_one_answer_reaches_is_a_half_where_answers_are_free():
    row = fig2.table(family("piqa", 0.5, 0.9, 0.6)).iloc[0]
    assert (row.answer_format, row.true_share) == ("text", 0.5)


def judged(**columns):
    """Four tasks; the last had nothing to forget."""
    table = pd.DataFrame({"eval_task": ["sst2", "piqa", "sciq", "rte"], "true_share": 0.5})
    table["ratio_defined"] = [True, True, True, False]
    return table.assign(**columns)


def test_the_finding_counts_tasks_by_their_intervals():
    table = judged(forgotten_low=[0.45, 0.6, 0.7, 0.9], forgetting_set_low=[0.4, 0.4, 0.6, 0.9])
    assert fig2.finding(table) == (
        "Of 3 tasks that were known by accuracy, 2 are still above chance on new questions; SST-2 "
        "is not shown to be. On the questions of the forgetting set, 1 is (95 % intervals)"
    )
    all_kept = judged(forgotten_low=0.6, forgetting_set_low=0.4)
    assert fig2.finding(all_kept) == (
        "Of 3 tasks that were known by accuracy, 3 are still above chance on new questions. On the "
        "questions of the forgetting set, none is (95 % intervals)"
    )
    one = all_kept.iloc[:1]
    assert fig2.finding(one).startswith("Of 1 task that was known by accuracy, 1 is still above")
    nothing = fig2.finding(all_kept.assign(ratio_defined=False))
    assert nothing == "In no task was there shown to be anything to forget"


def test_what_one_answer_to_everything_reaches_is_not_above_chance():
    table = judged(forgotten_low=0.6, forgetting_set_low=0.6, true_share=[0.65, 0.5, 0.5, 0.5])
    said = fig2.finding(table)
    assert "2 are still above chance on new questions; SST-2 is not shown to be" in said
    assert "On the questions of the forgetting set, 2 are" in said


def test_tasks_are_grouped_by_format_and_sorted_by_the_accuracy_that_is_left():
    table = forget_gap_table(21)
    left, right = fig2.draw(table).axes
    order = [by_name(t.get_text()) for t in left.get_yticklabels()]
    free = table[table["answer_format"] == "text"].sort_values("forgotten")["eval_task"]
    fixed = table[table["answer_format"] == "verbaliser"].sort_values("forgotten")["eval_task"]
    assert order == [*free, *fixed]
    said = [t.get_text() for t in right.texts]
    assert said == table["behaviour"].tolist()
    (lost,) = (c.lines[0].get_xdata() for c in right.containers)
    assert lost == pytest.approx(table["lost"].to_numpy())


def test_flipped_labels_have_their_own_ratio():
    results = family("t", 0.5, 0.9, 0.1, condition="flipped")
    assert fig2.table(results).empty
    assert fig2.table(results, "flipped").forget_ratio.item() == pytest.approx(1)


def test_each_size_of_the_forgetting_set_has_a_row():
    """Paper, Fig. 7: the sizes share the runs before forgetting, and each has its own after."""
    results = family("t", 0.5, 0.9, 0.6, n=200)
    for seed in (0, 1):
        results += family("t", 0.5, 0.9, 0.8, n=200, size=50, seed=seed)
    results += family("t", 0.5, 0.9, 0.7, n=200, seed=1)
    unique = list(by_checkpoint(results).values())
    table = fig2.table(unique)
    assert table["size"].tolist() == [50, 200]
    assert table["n_train"].tolist() == [100, 400]
    assert table["n_seeds"].tolist() == [2, 2]
    assert table["forgotten"].tolist() == pytest.approx([0.8, 0.65])
    assert table["tuned"].tolist() == pytest.approx([0.9, 0.9])


def test_what_another_method_made_forgotten_is_analysed_alike_and_apart():
    """A relearned model, too: what starts at a forgotten one has its own kind."""
    results = family("t", 0.5, 0.9, 0.6)
    again = checkpoint_of("t", "true", start=results[2].checkpoint, n=8)
    scores = {
        "t/test": scores_with("t", "test", 0.8, 200),
        "t/train": scores_with("t", "train", 0.5, 8),
    }
    relearned = result_of(again, scores)
    assert len(fig2.table([*results, relearned])) == 1
    row = fig2.table([*results, relearned], "random > true").iloc[0]
    assert (row.tuned, row.forgotten, row["size"]) == pytest.approx((0.9, 0.8, 8))
    assert row.forget_ratio == pytest.approx(0.25)
    assert fig2.table([*results, relearned], "noise").empty


def controlled(task, tuned, again, forgotten, **options):
    """A task's runs of part "control", with these test accuracies."""
    random = family(task, 0.5, tuned, forgotten, **options)
    true = family(task, 0.5, tuned, again, condition="true", **options)
    return [*random, true[2]]


def test_the_control_tells_what_is_lost_by_training_from_what_is_due_to_the_labels():
    results = controlled("t", 0.9, 0.8, 0.6) + controlled("u", 0.7, 0.75, 0.7)
    t, u = (row for _, row in fig2.control_table(results).iterrows())
    assert (t.eval_task, t.n, t.n_seeds) == ("t", 200, 1)
    assert (t.tuned, t.again, t.forgotten) == pytest.approx((0.9, 0.8, 0.6))
    assert (t.lost, t.lost_again, t.beyond_true_labels) == pytest.approx((0.3, 0.1, 0.2))
    assert t.beyond_true_labels_low > 0.1
    assert (u.lost, u.lost_again, u.beyond_true_labels) == pytest.approx((0, -0.05, 0.05))


def beyond(low, high=1.0, holm=1.0, name="beyond_true_labels"):
    """A control's intervals and adjusted p-values of three tasks."""
    return {f"{name}_low": low, f"{name}_high": high, f"{name}_holm": holm}


def test_the_control_s_finding_counts_by_own_intervals_and_after_holm():
    auroc = "auroc_beyond_true_labels"
    tasks = pd.DataFrame({"eval_task": ["sst2", "piqa", "sciq"]})
    table = tasks.assign(**beyond([0.1, -0.1, -0.1]), **beyond([0.1, 0.2, -0.1], name=auroc))
    words = "By their own intervals, random labels cost more accuracy than true ones in 1 of 3 "
    words += "tasks, and more AUROC in 2; after Holm's correction, in "
    assert fig2.control_finding(table) == f"{words}none"
    certain = table.assign(**{f"{auroc}_holm": [0.01, 0.06, 0.01]})  # the last is on neither side
    assert fig2.control_finding(certain) == f"{words}0 and 1"
    less = table.assign(beyond_true_labels_high=[1.0, -0.05, 1.0])
    assert fig2.control_finding(less) == f"{words}none. They cost less in PIQA"


def test_the_control_draws_differences_filled_where_they_are_shown_and_starred_after_holm():
    table = control_table(6)
    figure = fig2.draw_control(table)
    order = table.sort_values("auroc_beyond_true_labels")
    formats = [order[order["answer_format"] == f]["eval_task"] for f in ("text", "verbaliser")]
    labels = [by_name(t.get_text()) for t in figure.axes[0].get_yticklabels()]
    assert labels == [name for names in formats for name in names]
    for axes, name in zip(figure.axes, fig2.CONTROLLED, strict=True):
        shown = (table[f"{name}_low"] > 0) | (table[f"{name}_high"] < 0)
        filled, empty = (c.lines[0].get_xdata() for c in axes.containers)
        assert filled == pytest.approx(table.loc[shown, name].to_numpy())
        assert empty == pytest.approx(table.loc[~shown, name].to_numpy())
        stars = [len(line.get_ydata()) for line in axes.lines if line.get_marker() == "*"]
        assert sum(stars) == (table[f"{name}_holm"] < 0.05).sum()


def test_questions_of_the_control_are_paired_with_those_of_forgetting():
    """Each question of both is one row of the bootstrap: equal answers differ by exactly 0."""
    row = fig2.control_table(controlled("t", 0.9, 0.7, 0.7)).iloc[0]
    assert (row.beyond_true_labels, row.beyond_true_labels_low, row.beyond_true_labels_high) == (
        0,
        0,
        0,
    )
    assert row.again_low < 0.7 < row.again_high
    assert row.beyond_true_labels_p == 1


def test_a_task_or_a_seed_without_its_control_does_not_count():
    results = controlled("t", 0.9, 0.8, 0.6) + family("t", 0.5, 0.9, 0.9, seed=1)
    table = fig2.control_table([*results, *family("u", 0.5, 0.9, 0.9)])
    assert list(table.columns[:4]) == ["model", "eval_task", "answer_format", "n"]
    assert list(zip(table["model"], table["eval_task"], strict=True)) == [("tiny", "t")]
    row = table.iloc[0]
    assert (row.n_seeds, row.n, row.forgotten) == (1, 200, pytest.approx(0.6))
    only_the_other = controlled("t", 0.9, 0.8, 0.6)[:2] + results[3:]
    assert fig2.control_table(only_the_other).empty


def test_a_control_of_another_training_is_an_error():
    results = controlled("t", 0.9, 0.8, 0.6)
    other = with_training(results[3].checkpoint, learning_rate=1e-5)
    with pytest.raises(InputError) as raised:
        fig2.control_table([*results[:3], moved(results[3], other)])
    compared = replace(other, method=replace(other.method, labels="random"))
    assert str(raised.value) == (
        f"control of {results[2].checkpoint}: expected the same training, but for the labels, "
        f"found {compared!r} and {results[2].checkpoint!r}. Pass the results of one study."
    )


@pytest.mark.parametrize("place", [2, 3])
def test_what_is_recorded_and_probed_is_no_other_training(place):
    results = controlled("t", 0.9, 0.8, 0.6)
    dynamics = passing("t", [1] * 200, 3)
    probe, variance = probe_with(0.8)
    more = {"dynamics": dynamics, "probe": probe, "hidden_variance": variance}
    scores = {"t/test": results[place].scores["t/test"]}
    more = result_of(results[place].checkpoint, scores, **more)
    results[place] = replace(results[place], records=results[place].records + more.records[1:])
    assert len(fig2.control_table(results)) == 1


def test_a_control_on_other_test_examples_is_an_error():
    results = controlled("t", 0.9, 0.8, 0.6)
    shifted = controlled("t", 0.9, 0.8, 0.6, uid_offset=7)[3]
    with pytest.raises(InputError) as raised:
        fig2.control_table([*results[:3], shifted])
    said = (
        f"runs of {results[3].checkpoint}: expected the same test examples before and after, found"
    )
    assert str(raised.value).startswith(said)


def test_figure_2_refuses_several_sizes_of_a_task():
    several = fig2.table(family("t", 0.5, 0.9, 0.6) + family("t", 0.5, 0.9, 0.8, size=50))
    with pytest.raises(InputError, match=r"expected one row a task, found several for \['t'\]"):
        fig2.draw(several)
    assert fig2.draw(several[several["size"] == 200])
