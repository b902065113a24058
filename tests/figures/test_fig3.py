"""Figure 3: the summary draws the tables beside the matrix, and titles say what is found."""

import numpy as np
import pandas as pd
import pytest
from tables import cross, described, heat_of, points_of, summary, ticks

from forgetlib.figures import crossanalysis, fig3
from forgetlib.figures.crosstask import after
from forgetlib.figures.effects import AUROC_LOST, RATIO, auroc_lost


class TestSummary:
    def test_draws_shares_ratios_and_differences_of_the_tables(self):
        found, shares, own = summary(6)
        above, left, right = fig3.draw_summary(found, shares, own).axes
        assert points_of(above)[:, 0] == pytest.approx(shares["share"])
        assert ticks(above.yaxis) == list(crossanalysis.SOURCES)[::-1]
        rows = own[own["ratio_defined"]].sort_values("difference")
        n = len(rows)
        assert points_of(left)[:n, 0] == pytest.approx(rows["own"])
        assert points_of(left)[n:, 0] == pytest.approx(rows["best_other_ratio"])
        drawn = points_of(right)[:, 0]
        assert drawn[np.isfinite(drawn)] == pytest.approx(rows["difference"])

    def test_names_every_task_and_the_one_that_beats_it(self):
        found, shares, own = summary(6)
        figure = fig3.draw_summary(found, shares, own)
        _, left, right = figure.axes
        rows = own.set_index("eval_task").fillna({"best_other": ""})
        assert [t.get_text() for t in left.texts] == ["ratio undefined"]
        named = ticks(left.yaxis), ticks(right.child_axes[0].yaxis)
        for task, other in zip(*named, strict=True):
            assert other == (rows.loc[task.split(" (")[0], "best_other"])

    def test_with_nothing_to_forget_anywhere_it_says_so(self):
        found = cross(4, n_undefined=4)
        tables = (
            fig3.shares(found),
            crossanalysis.own_against_others(found),
        )
        _, left, _ = fig3.draw_summary(found, *tables).axes
        assert [t.get_text() for t in left.texts] == ["ratio undefined"] * 4
        assert heat_of(fig3.draw(found, described(4)))

    def test_both_intervals_of_a_share_are_drawn_and_the_title_is_the_finding(self):
        found, shares, own = summary(6)
        figure = fig3.draw_summary(found, shares, own)
        ends = np.array(
            [s[:, 0] for drawn in figure.axes[0].collections for s in drawn.get_segments()]
        )
        for both in shares[["tasks_low", "tasks_high"]].to_numpy():
            assert np.isclose(ends, both).all(1).any()
        assert shares["measure"].nunique() == 2
        said = figure.get_suptitle().replace("\n", " ")
        assert said == fig3.summary_finding(shares, own)


def shares_of(share, low, high):
    sources = list(crossanalysis.SOURCES)
    found = {"source": sources, "share": share, "tasks_low": low, "tasks_high": high}
    return pd.DataFrame({"measure": RATIO, **found})


def own_of(low, high):
    return pd.DataFrame({"difference_low": low, "difference_high": high})


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (shares_of(0.8, 0.6, 0.9), "The evaluated task decides how much is forgotten: its share"),
        (shares_of(0.2, 0.1, 0.4), "The evaluated task does not decide how much is forgotten:"),
        (shares_of(0.3, 0, 0.6), "decides how much is forgotten is open: its share of the"),
        (shares_of(0.3, 0, 0.6), "variance is 0.30 [0.00, 0.60] over tasks. The best other"),
        (shares_of(0.3, np.nan, np.nan), "is open: its share of the variance is 0.30 over tasks"),
        (shares_of(np.nan, np.nan, np.nan), "What decides how much is forgotten is undefined. The"),
    ],
)
def test_the_summary_s_finding_says_whether_the_evaluated_task_decides(shares, said):
    assert said in fig3.summary_finding(shares, own_of([0.1], [0.2]))


def test_the_summary_s_finding_has_the_share_of_auroc_beside_the_ratio_s():
    both = pd.concat([shares_of(0.3, 0, 0.6), shares_of(0.14, 0, 0.4).assign(measure=AUROC_LOST)])
    assert "0.30 [0.00, 0.60] over tasks (of AUROC lost: 0.14)." in fig3.summary_finding(
        both, own_of([0.1], [0.2])
    )


def test_the_share_of_auroc_is_of_auroc():
    """As of a matrix whose AUROCs lost are put in the place of its ratios."""
    found = cross(6)
    of = fig3.shares(found).set_index(["measure", "source"])
    lost = auroc_lost(found)
    by_hand = [m.get("auroc", "tuned").means[0] for m in found.measured]
    after_all = [[m.get("auroc", after(t)).means[0] for t in found.tasks] for m in found.measured]
    assert lost.values == pytest.approx((np.array(by_hand)[:, None] - after_all)[lost.defined])
    assert of.loc[AUROC_LOST, "share"].sum() == pytest.approx(1)
    assert of.loc[RATIO, "share"].tolist() != of.loc[AUROC_LOST, "share"].tolist()


def test_the_summary_s_finding_counts_by_the_differences_intervals():
    shares = shares_of(0.3, 0, 0.6)
    own = own_of([0.1, -0.1, 0.2, -0.3, np.nan], [0.2, 0.1, 0.3, -0.1, np.nan])
    said = fig3.summary_finding(shares, own)
    assert said.endswith("forget more than a task's own in 2 of 4 tasks, less in 1")
    assert "best other" not in fig3.summary_finding(shares, own.iloc[4:])


def pairs_of(ratio, *, names=("sst2", "piqa", "sciq"), defined=True):
    """A row a pair; the ratio's rows are the evaluated tasks."""
    rows = [(e, f) for e in names for f in names]
    table = pd.DataFrame(rows, columns=["eval_task", "forget_task"])
    return table.assign(forget_ratio=np.ravel(ratio), ratio_defined=defined)


def test_the_finding_has_medians_of_the_pairs_and_of_whose_labels_do_most():
    said = fig3.finding(pairs_of([[0.9, 0.2, 0.1], [0.8, 0.5, 0.3], [9, 0.3, 0.4]]))
    assert said == (
        "After another task's random labels 0.30 of what a task had above chance is gone (median "
        "of 6 pairs), after its own 0.50; most after those of SST-2 (4.90) and PIQA (0.25)"
    )
    assert "−0.10 of what" in fig3.finding(pairs_of(np.full((3, 3), -0.1)))


def test_the_finding_of_next_to_nothing_says_so():
    nothing = pairs_of(np.full((3, 3), np.nan), defined=False)
    assert fig3.finding(nothing) == "The forget ratio is undefined in every task"
    alone = fig3.finding(pairs_of([0.4], names=("sst2",)))
    assert alone.startswith("After its own random labels 0.40 of what a task had is gone")


def harm_of(lost, risen):
    rows = [(e, f) for e in ("sst2", "piqa") for f in ("sst2", "piqa")]
    table = pd.DataFrame(rows, columns=["eval_task", "forget_task"])
    return table.assign(accuracy_lost=lost, auroc_lost=lost, nll_risen=risen)


def test_the_finding_of_harm_leaves_out_a_task_s_own_labels():
    said = fig3.harm_finding(harm_of([9, 0.1, 0.3, 9], [9, 1, 2, 9]))
    assert "accuracy is 0.20 and AUROC 0.20 lower on average" in said
    assert said.endswith("costs 1.50 nats more")
    assert fig3.harm_finding(harm_of([1] * 4, 1).iloc[:1]) == "No pairs of different tasks"


def harmed(lost, risen):
    """Pairs of K tasks that lose, and whose nats rise, by these (K, K)."""
    places = [(f"t{i}", f"t{j}") for i in range(len(lost)) for j in range(len(lost))]
    table = pd.DataFrame(places, columns=["eval_task", "forget_task"])
    return table.assign(forget_ratio=np.ravel(lost), nll_risen=np.ravel(risen))


def test_harm_and_loss_are_correlated_over_pairs_of_different_tasks():
    rng = np.random.default_rng(0)
    risen = rng.normal(size=(8, 8))
    lost = risen + rng.normal(size=(8, 8))
    other = ~np.eye(8, dtype=bool)
    lost[~other] = -99
    lost[0, 1] = np.nan
    found, n = fig3.harm_correlation(harmed(lost, risen))
    other[0, 1] = False
    assert n == other.sum() == 55
    assert found.value == pytest.approx(np.corrcoef(lost[other], risen[other])[0, 1])
    assert 0 < found.low < found.value < found.high < 1


def test_what_one_task_s_labels_do_is_not_shown_of_tasks_like_these():
    """Pairs are many, tasks are few: of 56 pairs alone the correlation would be beyond doubt."""
    rng = np.random.default_rng(1)
    lost, risen = rng.normal(size=(2, 8, 8))
    lost[:, 3] += 6
    risen[:, 3] += 6
    found, n = fig3.harm_correlation(harmed(lost, risen))
    assert np.tanh(np.arctanh(found.value) - 1.96 / np.sqrt(n - 3)) > 0.5  # the trap
    assert found.low < 0


def test_too_few_tasks_have_no_interval_of_harm_and_loss():
    rng = np.random.default_rng(0)
    for k in (1, 2, 3):
        found, _ = fig3.harm_correlation(harmed(*rng.normal(size=(2, k, k))))
        assert np.isnan(found.low)


def test_harm_is_grouped_by_format_and_sorted_by_nats():
    found = cross(6)
    table, families = fig3.table(found), described(6)
    panel = fig3.draw_harm(table, families).axes[0]
    formats = families.set_index("eval_task")["answer_format"]
    for side, names in (("eval_task", ticks(panel.yaxis)), ("forget_task", ticks(panel.xaxis))):
        risen = table.groupby(side)["nll_risen"].mean()
        expected = [
            t for f in ("text", "verbaliser") for t in risen.sort_values().index if formats[t] == f
        ]
        assert names == expected
    (line,) = {round(float(at.get_ydata()[0]), 1) for at in panel.lines if at.get_xdata()[0] == 0}
    assert line == (formats == "text").sum() - 0.5
