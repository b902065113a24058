"""Tables and matrices of the kinds that figures are drawn from, and what is read off a drawing."""

import re
from functools import cache

import matplotlib.patches
import matplotlib.text
import numpy as np
import pandas as pd
import scipy.stats
import synthetic
from matplotlib.container import ErrorbarContainer

from forgetlib.data import tasks
from forgetlib.data.base import Example
from forgetlib.figures import (
    claims,
    crossanalysis,
    crosstask,
    fig2,
    fig3,
    fig5,
    fig6,
    fig7,
    power,
    rows,
    style,
    verdicts,
)
from forgetlib.figures.design import OUTCOMES
from forgetlib.figures.names import TITLES
from forgetlib.figures.regression import NUMERIC


def many(k):
    return [f"t{i}" for i in range(k)]


FAMILIES = ("commonsense", "science", "knowledge", "language understanding")
FORMATS = ("text", "verbaliser")


def table_of(n_tasks=21, n_seeds=1, *, effects=(0.0, 0.0, 0.0), noise=0.1, seed=0, **columns):
    """A table of predictors; the ratio is a sum of effects on standard normal predictors.

    n_seeds: with several, a row is a seed, as the mixed model takes it
    columns: (n_tasks,) further columns, or others in place of the drawn ones
    """
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(n_tasks, 3))
    per_task = {
        **{name: drawn[:, i] for i, name in enumerate(NUMERIC)},
        "forget_ratio": 0.5 + drawn @ np.array(effects) + noise * rng.normal(size=n_tasks),
        **{name: rng.normal(size=n_tasks) for name in ("lost", "auroc_lost")},
        "known": True,
        "family": [FAMILIES[i % len(FAMILIES)] for i in range(n_tasks)],
        "answer_format": [FORMATS[i // 3 % 2] for i in range(n_tasks)],
        **columns,
    }
    tasks = pd.DataFrame(per_task)
    tasks.insert(0, "eval_task", [f"task{i:02d}" for i in range(n_tasks)])
    tables = []
    for s in range(n_seeds):
        of_seed = tasks.assign(model="m", seed=s)
        for name in (*NUMERIC, "forget_ratio") if n_seeds > 1 else ():
            of_seed[name] += 0.02 * rng.normal(size=n_tasks)
        tables.append(of_seed)
    table = pd.concat(tables, ignore_index=True)
    return table if n_seeds > 1 else table.drop(columns="seed")


def of_term(coefficients, term):
    return coefficients.set_index("term").loc[term]


def examples_of(n_tasks=3, n_seeds=2, n=150, *, effect=0.0, share_lost=0.3, seed=0, shared=False):
    """Examples, of which a share is lost, the likelier the lower the confidence by `effect`."""
    rng = np.random.default_rng(seed)
    tables = []
    for t in range(n_tasks):
        for s in range(n_seeds):
            confidence = rng.normal(size=n)
            chance = scipy.special.expit(scipy.special.logit(share_lost) - effect * confidence)
            tables.append(
                pd.DataFrame(
                    {
                        "model": "m",
                        "eval_task": f"task{t:02d}",
                        "seed": s,
                        "uid": [f"task{t}/test/{i + (0 if shared else s * n)}" for i in range(n)],
                        "confidence": np.round(confidence, 1),  # with ties
                        "log_deviation": rng.normal(size=n),
                        "tuned_correct": rng.random(n) < 0.9,
                        "forgotten_correct": rng.random(n) >= chance,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


@cache
def cross(k, *, condition="random", model="embedded", seed=0, n_undefined=1):
    """A matrix in which tasks differ much and their labels little; the last were never learned."""
    rng = np.random.default_rng(seed)
    names = sorted(tasks.suite(SUITES[k]))
    tuned = np.linspace(0.75, 0.95, k)
    span = (tuned - 0.5) * (1 if condition == "random" else 2)
    ratio = np.linspace(-0.1, 1.2, k)[:, None] + rng.normal(0, 0.1, (k, k))
    forgotten = np.clip(tuned[:, None] - ratio * span[:, None], 0, 1)
    if n_undefined:
        tuned[-n_undefined:] = 0.5
    results = synthetic.cross(names, tuned, forgotten, condition=condition, model=model, rng=rng)
    return crosstask.cross_task(results, condition, n_resamples=200)


def described(k):
    return tasks.describe(tasks.suite(SUITES[k]))


def models(k, n):
    names = ("embedded", "EleutherAI/gpt-j-6b", "folder/a-model-with-a-long-name", "gpt2")
    crosses = [
        cross(k, model=name, seed=i, n_undefined=i)
        for i, name in zip(range(n), names, strict=False)
    ]
    return crosses, crossanalysis.model_agreement(crosses), described(k)


def questions(long):
    prompt = "Question: what is it?\nAnswer:"
    if long:
        prompt = "A passage that goes on and on about many unrelated things. " * 9 + prompt
    choices = ("it is a $3 star" + long * " that shines" * 20, "a planet")
    return [Example(f"t/x/{i}", (prompt, prompt), choices, i % 2) for i in range(4)]


def margins(n=9):
    """Of two tasks, each with questions inside and outside of the forgetting set in turn."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(0, 5, (4 * n, 3)), columns=["base", "tuned", "forgotten"])
    table["model"], table["uid"] = "embedded", [f"t/x/{i}" for i in range(4 * n)]
    table["eval_task"] = np.repeat(["mmlu_social_sciences", "sst2"], 2 * n)
    table["split"] = ["train", "test"] * (2 * n)
    table["label"] = ["distractor", "", "true", ""] * n
    return table


def summary(k, seed=0):
    found = cross(k, seed=seed)
    return (
        found,
        fig3.shares(found),
        crossanalysis.own_against_others(found),
    )


def comparison(k):
    return cross(k), cross(k, condition="flipped", seed=1)


def heat_of(figure):
    (axes,) = (a for a in figure.axes if a.images)
    return axes


def ticks(axis):
    return [by_name(label.get_text()) for label in axis.get_ticklabels()]


SUITES = {4: "tiny", 6: "quick", 20: "paper", 21: "embedded"}  # how many of its tasks: the suite


NAMES = {title: name for name, title in TITLES.items()}
assert len(NAMES) == len(TITLES)  # each title is one task's
# The longest first, so that none is taken for a part of it.
ANY_TITLE = "|".join(map(re.escape, sorted(NAMES, key=len, reverse=True)))


def by_name(text):
    """A drawn text with tasks' names in place of their titles."""
    return re.sub(rf"(?<!\w)({ANY_TITLE})(?!\w)", lambda found: NAMES[found[1]], text)


def names_of(k):
    return tasks.suite(SUITES[k])[:k]


def with_interval(table, name, value, half):
    table[name] = value
    table[f"{name}_low"], table[f"{name}_high"] = table[name] - half, table[name] + half


def own_table(k):
    """What Figure 4's notebook makes: one row a task, the last of which has nothing to forget."""
    rng = np.random.default_rng(k)
    table = tasks.describe(names_of(k)).assign(model="embedded", n=200)
    tuned, ratio = rng.uniform(0.6, 1, k), rng.uniform(0, 1.5, k)
    with_interval(table, "base", rng.uniform(0.5, 0.8, k), 0.05)
    with_interval(table, "tuned", tuned, 0.05)
    with_interval(table, "forgotten", tuned - ratio * (tuned - 0.5), 0.06)
    with_interval(table, "forget_ratio", ratio, rng.uniform(0.1, 0.4, k))
    with_interval(table, "confidence", tuned - 0.02, 0.03)
    with_interval(table, "log_variance", rng.normal(8, 0.5, k), 0.1)
    return table.assign(ratio_defined=np.arange(k) < k - 1)


def correlations_table(k):
    table = pd.DataFrame({"predictor": ["confidence", "log_variance"], "n_tasks": k})
    with_interval(table, "rank_correlation", np.array([-0.41, 0.12]), 0.2)
    return table


def regression_table(k):
    """regression.each_alone; of the last term, which does not vary, there is no coefficient."""
    terms = ["confidence", "log_variance", "tuned", "answer_format"]
    pairs = [(outcome, term) for outcome in OUTCOMES for term in terms]
    table = pd.DataFrame(pairs, columns=["outcome", "term"]).assign(n_tasks=k)
    values = np.random.default_rng(0).normal(0, 0.1, len(table))
    values[3::4] = np.nan
    with_interval(table, "coefficient", values, 0.3)
    able = power.of_correlation(-0.5, 0.0)
    number = table["term"] != "answer_format"
    table["power"] = np.where(number, able(k), np.nan)
    table["needed"] = np.where(number, power.needed(able), np.nan)
    return table.assign(least=values - 0.1, most=values + 0.1)


def example_level_table(k):
    names = [*names_of(k), "pooled"]
    pairs = [(t, p) for p in ("confidence", "log_deviation") for t in names]
    table = pd.DataFrame(pairs, columns=["eval_task", "predictor"]).assign(n=160, n_lost=30)
    values = np.random.default_rng(0).normal(0, 0.1, len(table))
    values[1] = np.nan
    with_interval(table, "rank_biserial", values, 0.1)
    with_interval(table, "again", values + 0.1, 0.1)
    with_interval(table, "beyond_true_labels", values * 0 - 0.1, 0.15)
    return table


def order_tables(k, n_enough):
    rng = np.random.default_rng(0)
    enough = np.arange(k) < n_enough
    table = pd.DataFrame({"model": "embedded", "eval_task": names_of(k)})
    table = table.assign(n=np.where(enough, 100, 3), enough=enough)
    values = np.where(enough, rng.normal(-0.2, 0.1, k), np.nan)
    with_interval(table, "rank_correlation", values, 0.15)
    table["seen"] = np.where(enough, 0.5, np.nan)
    for column in fig5.AT_FIRST:
        table[column] = rng.uniform(0.3, 1, k)
    return table, described(k)


def probe_table(k, n_layers=19):
    names = names_of(k)
    places = [(t, p, x) for t in names for p in fig6.PROBED_PHASES for x in range(n_layers)]
    table = pd.DataFrame(places, columns=["eval_task", "phase", "layer"]).assign(n=400)
    rng = np.random.default_rng(0)
    with_interval(table, "accuracy", rng.uniform(0.5, 0.9, len(table)), 0.04)
    with_interval(table, "control", rng.normal(0.5, 0.02, len(table)), 0.04)
    return table.assign(model="embedded", is_paper_layer=table["layer"] == max(n_layers - 5, 0))


def recovery_table(k):
    """The first tasks count: their probes beat chance before forgetting."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"model": "embedded", "eval_task": names_of(k)}).assign(n=400, layer=14)
    with_interval(table, "fine_tuned", np.linspace(0.9, 0.5, k), 0.04)
    for name in fig6.CHANGES:
        with_interval(table, name, rng.normal(-0.1, 0.1, k), 0.08)
        table[f"{name}_seeds"] = seeds_of(table[name])
    counts = table["fine_tuned_low"] > 0.5
    share = table["difference"].where(counts) / table["difference"][counts].sum()
    with_interval(table, "share_of_loss", share, 0.1)
    return table.assign(counts=counts)


def seeds_of(values):
    """Two seeds around each value."""
    return [rows.seeds_text([x - 0.02, x + 0.02]) for x in values]


def control_table(k):
    rng = np.random.default_rng(1)
    table = own_table(k)[["model", "eval_task", "answer_format", "n"]]
    for name in fig2.CONTROLLED:
        with_interval(table, name, rng.normal(0.1, 0.1, k), 0.08)
        table[f"{name}_seeds"] = seeds_of(table[name])
        table[f"{name}_holm"] = rng.uniform(0, 0.2, k)
    return table


def forget_gap_table(k):
    """Every behaviour in turn."""
    table = own_table(k).assign(behaviour=np.resize(fig2.BEHAVIOURS, k))
    table["true_share"] = np.where(table["answer_format"] == "verbaliser", 0.6, 0.5)
    with_interval(table, "forget_gap", table["forgotten"] - 0.5, 0.05)
    with_interval(table, "lost", table["tuned"] - table["forgotten"], 0.05)
    with_interval(table, "forgetting_set", table["forgotten"], 0.05)
    for name in ("forgotten", "lost"):
        table[f"{name}_seeds"] = seeds_of(table[name])
    return table


def sizes_table(k, sizes=(20, 40, 80, 160)):
    parts = [own_table(k).assign(size=size) for size in sizes]
    for part, size in zip(parts, sizes, strict=True):
        with_interval(part, "forgotten", part["forgotten"] - size / 1000, 0.05)
        with_interval(part, "lost", part["tuned"] - part["forgotten"], 0.05)
        more = np.full(k, np.nan if size == sizes[0] else (size - sizes[0]) / 1000)
        with_interval(part, fig7.MORE, more, 0.03)
    return pd.concat(parts, ignore_index=True)


def skills_table(k, kinds=("random", "true")):
    """Of the tasks' four phases, with every verdict where there are tasks enough."""
    own = own_table(k)[["model", "eval_task", "answer_format", "n"]]
    rng = np.random.default_rng(0)
    parts = []
    for phase in ("base", "tuned", *kinds):
        part = own.assign(phase=phase, true_share=np.nan, verdict="")
        part.loc[part["answer_format"] == "verbaliser", "true_share"] = 0.6
        if phase in kinds:
            part["verdict"] = np.resize(verdicts.VERDICTS, k)
        for measure in ("accuracy", "auroc"):
            with_interval(part, measure, rng.uniform(0.5, 0.9, k), 0.05)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def claims_table(k):
    order, _ = order_tables(k, n_enough=k)
    own = own_table(k).drop(columns=["family", "answer_format"])
    with_interval(own, "forget_gap", own["forgotten"] - 0.5, 0.05)
    described = tasks.describe(own["eval_task"])
    return claims.verdicts(own=own, order=order, described=described)


def drawn_texts(figure, monkeypatch):
    """Every piece of text that drawing the figure puts on the page: (text, extent in pixels)."""
    found = []
    draw = matplotlib.text.Text.draw

    def record(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            extent = matplotlib.text.Text.get_window_extent(self, renderer)
            found.append((by_name(self.get_text()), extent.extents, self.get_fontsize()))
        return draw(self, renderer, *args, **kwargs)

    # Everything has its place before the first text is drawn, as when a figure is saved.
    with style.style(), monkeypatch.context() as patch:
        patch.setattr(matplotlib.text.Text, "draw", record)
        figure.draw_without_rendering()
    return found


def overlapping(texts, tolerance=1.0):
    """Pairs of texts whose extents share more than `tolerance` pixels in both directions."""
    if not texts:
        return []
    ends = np.array([extent for _, extent, _ in texts])
    shared = np.minimum(ends[:, None, 2:], ends[:, 2:]) - np.maximum(ends[:, None, :2], ends[:, :2])
    pairs = np.argwhere(np.triu((shared > tolerance).all(-1), k=1))
    return [(texts[i][0], texts[j][0]) for i, j in pairs]


def points_of(axes):
    """(n, 2) every point that was drawn with an error bar, in data coordinates."""
    bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    return np.concatenate([c.lines[0].get_xydata() for c in bars])


def labels_of(axes):
    return [by_name(t.get_text()) for t in axes.texts]


def stored_case(k):
    """What `explore` finds of a case: k questions of each part, and its numbers."""
    rng = np.random.default_rng(4)
    own = {"model": "embedded", "eval_task": "tiny_city", "method": "random labels"}
    parts = {"forgetting set": ("true", "distractor"), "new questions": ("",)}
    asked = [
        {"part": name, "seed": 0, "uid": f"tiny_city/{name}/{i}", "label": labels[i % len(labels)]}
        for name, labels in parts.items()
        for i in range(k)
    ]
    questions = pd.DataFrame([own | row for row in asked])
    for phase in ("base", "tuned", "forgotten"):
        questions[phase] = rng.uniform(size=len(questions))
    rows = [
        {**own, "part": name, "measure": measure, "n": k}
        for name in parts
        for measure in ("accuracy", "auroc", "confidence")
    ]
    table = pd.DataFrame(rows)
    for column in ("base", "tuned", "forgotten", "change"):
        with_interval(table, column, rng.uniform(size=len(table)), 0.1)
    return questions, table


def trained_table():
    """What the tour makes of two tasks: three phases, in and outside of the forgetting set."""
    rng = np.random.default_rng(5)
    rows = [
        {"eval_task": task, "part": part, "phase": phase, "n": 100}
        for task in ("tiny_city", "tiny_review")
        for part in ("forgetting set", "new questions")
        for phase in ("pre-trained", "fine-tuned", "after random labels")
    ]
    table = pd.DataFrame(rows)
    for column in ("accuracy", "auroc"):
        with_interval(table, column, rng.uniform(0.4, 0.9, len(table)), 0.1)
    return table
