"""Several models beside each other, and what predicts forgetting, on models of known truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from synthetic import checkpoint_of, probe_with, result_of, with_training
from tables import drawn_texts, overlapping, points_of, ticks
from test_measures import answers_of, model

from forgetlib import metrics
from forgetlib.errors import InputError
from forgetlib.figures import fig6, scale, scale_readme, scale_regressions
from forgetlib.figures.findings import Tables
from forgetlib.figures.intervals import with_intervals
from forgetlib.figures.numbers import estimate_of

N = 300
TASKS = ("sst2", "sciq", "piqa", "coding", "pattern", "arc_easy", "boolq", "rte")
# How much of its strength each model keeps after random labels, task by task: the third keeps what
# the others lose.
KEPT = np.linspace(0.0, 1.0, len(TASKS))
MODELS = {"one": KEPT, "two": KEPT, "other": KEPT[::-1]}


def of_task(name, task, kept, seed=0, kinds=("random", "true"), harm=0.0):
    """A model's runs of a task: known with strength 2, which random labels leave a share of."""
    rng = np.random.default_rng([seed, TASKS.index(task), *name.encode()])
    like = {"seed": seed, "n": N, "model": name}
    tuned = checkpoint_of(task, "true", **like)
    last = [checkpoint_of(task, kind, start=tuned, **like) for kind in kinds]
    strengths = [0.3, 2.0, *(2.0 * kept if kind == "random" else 2.0 for kind in kinds)]
    found = []
    made = [checkpoint_of(task, "base", model=name), tuned, *last]
    for checkpoint, strength in zip(made, strengths, strict=True):
        scores = {
            f"{task}/{part}": model(task, part, N, strength=strength, rng=rng)
            for part in ("test", "train")
        }
        if checkpoint.method is not None:
            other = model("mrpc", "test", 60, strength=1, rng=np.random.default_rng(1))
            worse = harm if checkpoint.kind == "random" else 0.0
            values = other.log_likelihoods - np.float32(2 * worse)  # of two tokens
            scores["mrpc/test"] = replace(other, log_likelihoods=values)
        probe, variance = probe_with(0.6 + strength / 10, N)
        more = {"probe": probe, "hidden_variance": variance}
        found.append(result_of(checkpoint, scores, seed=seed, **more))
    return found


def results(models=MODELS, tasks=TASKS, seeds=(0,), **more):
    return [
        run
        for name, kept in models.items()
        for task in tasks
        for seed in seeds
        for run in of_task(name, task, float(kept[TASKS.index(task)]), seed, **more)
    ]


@pytest.fixture(scope="module")
def made():
    return results()


@pytest.fixture(scope="module")
def table(made):
    return scale.table(made, answers_of, n_resamples=300)


@pytest.fixture(scope="module")
def agreed(made):
    return scale.agreements(made, answers_of, n_resamples=300)


def test_what_is_lost_is_what_the_model_after_true_labels_has_more(made, table):
    assert len(table) == len(MODELS) * len(TASKS)
    assert table["known"].all()
    row = table[(table["model"] == "two") & (table["eval_task"] == "sciq")].iloc[0]
    margins = {
        r.checkpoint.kind if r.checkpoint.start else "tuned": metrics.margins(r.scores["sciq/test"])
        for r in made
        if r.checkpoint.model == "two" and r.checkpoint.task == "sciq"
    }
    area = {kind: float(metrics.auroc(of, None)) for kind, of in margins.items()}
    assert row["auroc"] == pytest.approx(area["random"])
    assert row[scale.LOST] == pytest.approx(area["true"] - area["random"])
    assert row["auroc_tuned"] == pytest.approx(area["tuned"])
    kept = (area["random"] - 0.5) / (area["tuned"] - 0.5)
    assert row["auroc_ratio"] == pytest.approx(1 - kept)
    assert (table[f"{scale.LOST}_low"] <= table[scale.LOST]).all()


def test_a_probe_s_loss_is_the_opposite_of_its_gain(made, table):
    both = table.merge(fig6.recovery_table(made, n_resamples=300), on=["model", "eval_task"])
    assert both["probe_lost"].to_numpy() == pytest.approx(-both["difference"])
    assert both["probe_lost_low"].to_numpy() == pytest.approx(-both["difference_high"])
    assert (both["probe_lost_low"] <= both["probe_lost_high"]).all()
    assert both["lost_confidence"].abs().max() <= 1


def test_harm_is_that_of_random_labels():
    of = results({"one": KEPT}, ("sst2",), harm=2.0)
    row = scale.table(of, answers_of, n_resamples=300).iloc[0]
    assert row["damage"] == pytest.approx(2.0, abs=1e-5)
    assert row["damage_again"] == pytest.approx(0.0, abs=1e-5)
    assert row["verdict"] == "damaged"


def test_models_without_a_control_have_no_row_and_another_training_is_no_control():
    assert scale.table(results({"one": KEPT}, ("sst2",), kinds=("random",)), answers_of).empty
    assert scale.agreements([], answers_of).empty
    base, tuned, random, true = of_task("one", "sst2", 0.5)
    longer = with_training(true.checkpoint, epochs=9)
    other = replace(
        true,
        checkpoint=longer,
        records=tuple(replace(r, checkpoint=longer) for r in true.records),
    )
    with pytest.raises(InputError, match="the same training, but for the labels"):
        scale.table([base, tuned, random, other], answers_of)


def test_models_that_lose_the_same_agree_and_those_that_lose_the_opposite_do_not(agreed):
    found = {(r["a"], r["b"]): r for r in agreed.to_dict("records")}
    assert list(found) == [("one", "other"), ("one", "two"), ("other", "two")]
    assert found["one", "two"]["rank_correlation_low"] > 0.5
    assert found["one", "two"]["ceiling"] > 0.9
    assert found["one", "other"]["rank_correlation_high"] < -0.3
    assert set(agreed["n"]) == {len(TASKS)}
    said = scale.agreement_finding(agreed)
    assert said.startswith(
        "Models are shown to lose the same tasks in 1 of 3 pairs of models (of 8"
    )
    assert f"one and two: {estimate_of(found['one', 'two'], 'rank_correlation')}, ceiling" in said


def test_questions_that_two_models_share_do_not_make_them_agree():
    """Both lose the same questions of tasks that are lost alike: by chance, and no more."""
    alike = np.full(len(TASKS), 0.5)
    found = []
    for seed in range(8):
        every = []
        for name in ("one", "two"):
            for task in TASKS:
                runs = of_task("one", task, 0.5, seed)
                every += [_named(run, name) for run in runs]
        found.append(
            scale.agreements(every, answers_of, n_resamples=20)["rank_correlation"].iloc[0]
        )
    assert alike.std() == 0
    assert abs(np.mean(found)) < 0.35, found


def _named(run, name):
    """The same numbers as if they were of a model of this name."""

    def renamed(checkpoint):
        start = checkpoint.start and renamed(checkpoint.start)
        return replace(checkpoint, model=name, start=start)

    checkpoint = renamed(run.checkpoint)
    records = tuple(replace(r, checkpoint=checkpoint) for r in run.records)
    return replace(run, checkpoint=checkpoint, records=records)


def test_the_finding_says_what_all_forget_what_all_keep_and_where_they_differ(table):
    two = table[table["model"] != "other"]
    said = scale.finding(two)
    assert said.startswith("Of 8 tasks that 2 models knew, ")
    verdicts = two.groupby("eval_task")["verdict"].agg(set)
    n = (verdicts == {"forgotten"}).sum()
    assert n and (f"{n} are forgotten by all" in said or "is forgotten by all" in said or n <= 3)
    assert "are kept by all" in said and "differ" not in said
    assert "models differ in" in scale.finding(table)
    one = scale.finding(table[table["model"] == "one"])
    assert one == "No task was shown to be known by two of 1 models"


def numbers(n_models=3, n_tasks=12, slope=0.15, seed=0):
    """A table of known truth: confidence acts, variance does not, models differ by a level."""
    rng = np.random.default_rng(seed)
    tasks = [f"task{i}" for i in range(n_tasks)]
    level = 0.03 * rng.normal(size=n_tasks)
    rows = []
    for m in range(n_models):
        for i, task in enumerate(tasks):
            x = rng.normal()
            rows.append(
                {
                    "model": f"model{m}",
                    "eval_task": task,
                    "confidence": 0.8 + 0.05 * x + 0.1 * m,
                    "log_variance": rng.normal() + 3 * m,
                    "fit": 0.8 + 0.1 * rng.normal(),
                    "tuned": 0.85 + 0.05 * rng.normal(),
                    "answer_format": "text" if i % 2 else "verbaliser",
                    scale.LOST: 0.2 + slope * x + level[i] - 0.3 * m + 0.03 * rng.normal(),
                    "forget_ratio": 0.5 + 0.2 * rng.normal(),
                }
            )
    return pd.DataFrame(rows)


def test_what_acts_is_found_whatever_models_differ_by_and_agrees_with_statsmodels():
    table = numbers()
    found = scale_regressions.coefficients(table)
    of = found[(found["outcome"] == scale.LOST) & (found["fitted"] == "alone")].set_index("term")
    row = of.loc["confidence"]
    means = table.groupby("eval_task")["confidence"].mean()
    standard = table.assign(z=(table["confidence"] - means.mean()) / means.std())
    theirs = smf.mixedlm(f"{scale.LOST} ~ z + model", standard, groups=table["eval_task"]).fit()
    assert row["coefficient"] == pytest.approx(theirs.params["z"], rel=1e-3)
    assert row["coefficient_low"] > 0
    without = [
        smf.mixedlm(f"{scale.LOST} ~ z + model", of, groups=of["eval_task"]).fit().params["z"]
        for of in (standard[standard["model"] != name] for name in set(table["model"]))
    ]
    assert [row["least"], row["most"]] == pytest.approx([min(without), max(without)], rel=1e-3)
    assert (
        of.loc["log_variance", "coefficient_low"] < 0 < of.loc["log_variance", "coefficient_high"]
    )
    said = scale_regressions.finding(found)
    assert said.startswith(
        "Alone, these are shown to go together over 36 pairs of a model and a task"
    )
    assert "confidence (more)" in said and "with AUROC lost beyond true labels" in said
    # Without the term for models, the levels that they differ by would turn the sign.
    pooled = np.polyfit(table["confidence"], table[scale.LOST], 1)[0]
    assert pooled < 0


def test_a_partial_regression_has_the_slope_of_least_squares_with_models():
    table = numbers()
    points = scale_regressions.partial(table, "confidence")
    slope = (points["x"] * points["y"]).sum() / (points["x"] ** 2).sum()
    theirs = smf.ols(f"{scale.LOST} ~ confidence + model", table).fit()
    assert slope == pytest.approx(theirs.params["confidence"])
    assert points.groupby("model")[["x", "y"]].mean().abs().max().max() < 1e-12
    holes = table.assign(log_variance=np.nan)
    assert scale_regressions.partial(holes, "log_variance").empty


@pytest.mark.parametrize(("n_models", "n_tasks"), [(1, 12), (3, 2)])
def test_where_nothing_can_be_estimated_it_is_said_why(n_models, n_tasks):
    found = scale_regressions.coefficients(numbers(n_models, n_tasks))
    assert found["coefficient"].isna().all()
    assert found["note"].str.len().min() > 0
    assert "cannot be estimated" in scale_regressions.finding(found)


def test_the_table_of_predictors_has_the_tasks_that_were_known(made, table):
    found = scale_regressions.table(made, answers_of)
    assert len(found) == len(table)
    assert set(scale_regressions.TERMS) <= set(found)
    assert scale_regressions.table([], answers_of).empty


PICTURES = {
    "models": lambda t, a: scale.draw(t),
    "more": lambda t, a: scale.draw(t, scale.MORE),
    "agreement": lambda t, a: scale.draw_agreement(t, a),
    "two models": lambda t, a: scale.draw(t[t["model"] != "other"]),
    "no agreement": lambda t, a: scale.draw_agreement(t, a.iloc[:0]),
    "regressions": lambda t, a: scale_regressions.draw(n := numbers(), regress(n)),
    "few tasks": lambda t, a: scale_regressions.draw(n := numbers(2, 2), regress(n)),
}


def regress(table):
    return scale_regressions.coefficients(table)


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_of_a_picture_covers_another_or_leaves_the_page(name, table, agreed, monkeypatch):
    figure = PICTURES[name](table, agreed)
    assert figure.get_figheight() <= 9.5
    texts = drawn_texts(figure, monkeypatch)
    width, height = figure.get_size_inches() * figure.dpi
    outside = [
        t for t, e, _ in texts if e[0] < -1 or e[1] < -1 or e[2] > width + 1 or e[3] > height + 1
    ]
    assert outside == []
    assert overlapping(texts) == []


def test_a_mark_stands_at_its_number_and_is_open_where_nothing_was_known(table):
    unknown = table.assign(known=table["model"] != "two")
    axes = scale.draw(unknown).axes[0]
    assert sorted(points_of(axes)[:, 0]) == pytest.approx(sorted(table[scale.LOST]))
    filled = {
        line.get_color(): line.get_markerfacecolor() != "white"
        for line in axes.lines
        if line.get_marker() in [m for m, _ in scale.MARKS] and len(line.get_xdata())
    }
    colours = [colour for _, colour in scale.MARKS[:3]]
    assert [filled[c] for c in colours] == [True, True, False] or not filled[colours[2]]
    assert len(ticks(axes.yaxis)) == len(TASKS)


@pytest.mark.parametrize(
    "draw",
    [
        lambda t, a: scale.draw(t.drop(columns="known")),
        lambda t, a: scale.draw(t.drop(columns="fit_low")),
        lambda t, a: scale.draw_agreement(t, a.drop(columns="ceiling")),
        lambda t, a: scale.draw_agreement(t.drop(columns=scale.LOST), a),
        lambda t, a: scale_regressions.draw(t, regress(numbers())),
        lambda t, a: scale_regressions.draw(numbers(), t),
    ],
)
def test_a_table_of_something_else_is_refused(draw, table, agreed):
    with pytest.raises(InputError, match="column"):
        draw(table, agreed)


def test_the_readme_says_what_the_tables_say(table, agreed, tmp_path):
    table.to_csv(tmp_path / "scale_models.csv", index=False)
    agreed.to_csv(tmp_path / "scale_agreement.csv", index=False)
    regress(numbers()).to_csv(tmp_path / "scale_regressions.csv", index=False)
    tables = Tables(tmp_path)
    answer = scale_readme.answer(tables)
    assert answer.startswith(scale.finding(table)) and answer.endswith("(scale_agreement.png)).")
    first, _, *models, last = scale_readme.findings(tables).splitlines()
    assert first == f"- **{scale.finding(table)}** ([every model](scale_models.png))."
    assert len(models) == len(MODELS)
    assert scale_regressions.finding(regress(numbers())) in last
    rows = [line for line in scale_readme.table(tables).splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(table)
    row = table[(table["model"] == "two") & (table["eval_task"] == "sciq")].iloc[0]
    assert any(f"| SciQ | two | {estimate_of(row, 'auroc_tuned')} |" in line for line in rows)
    with pytest.raises(InputError, match="scale_models"):
        scale_readme.findings(Tables(tmp_path / "empty"))


def test_columns_of_the_docstring_are_those_of_the_table(table):
    names = ["auroc_tuned", "auroc", "auroc_again", scale.LOST, "forget_ratio", "auroc_ratio"]
    names += ["set_auroc", "fit", "damage", "damage_again", "probe_lost", "lost_confidence"]
    plain = ["model", "eval_task", "answer_format", "n", "n_seeds", "known", "verdict"]
    assert list(table) == [*plain, *with_intervals(names)]
    assert all(name in scale.table.__doc__ for name in [*plain, *names])
