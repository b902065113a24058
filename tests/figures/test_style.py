"""Every figure can be read, of tables with next to nothing in them and of odd names too."""

import ast
import warnings
from dataclasses import replace
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path

import matplotlib.patches
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import synthetic
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from tables import (
    SUITES,
    claims_table,
    comparison,
    control_table,
    correlations_table,
    cross,
    described,
    drawn_texts,
    example_level_table,
    forget_gap_table,
    margins,
    models,
    order_tables,
    overlapping,
    own_table,
    points_of,
    probe_table,
    questions,
    recovery_table,
    regression_table,
    sizes_table,
    skills_table,
    stored_case,
    summary,
    trained_table,
    with_interval,
)

from forgetlib import figures
from forgetlib.data.base import Example
from forgetlib.errors import InputError
from forgetlib.figures import (
    audit,
    claims_figure,
    crossanalysis,
    crosstask,
    dumbbell,
    fig1,
    fig2,
    fig2b,
    fig3,
    fig4,
    fig4_examples,
    fig5,
    fig6,
    fig7,
    fig8,
    fig9,
)
from forgetlib.figures.crosstask import CrossTask
from forgetlib.figures.explore import picture as explore_picture
from forgetlib.figures.style import IN_A_PANEL, TEXT_WIDTH, heading, readable

OF_PAIRS = {
    "cross_task": lambda k: fig3.draw(cross(k), described(k)),
    "flipped": lambda k: fig8.draw(*comparison(k)[::-1], described(k)),
    "summary": lambda k: fig3.draw_summary(*summary(k)),
    "harm": lambda k: fig3.draw_harm(fig3.table(cross(k)), described(k)),
    "compare": lambda k: fig8.draw_comparison(fig8.comparison_table(*comparison(k))),
    "models, 2": lambda k: fig9.draw(*models(k, 2)),
    "models, 3": lambda k: fig9.draw(*models(k, 3)),
    "models, 4": lambda k: fig9.draw(*models(k, 4)),
    "example": lambda k: fig1.draw(margins(), questions(long=k > 4)),
}


def shortcuts_table(k):
    rng = np.random.default_rng(3)
    rules = {name: rng.uniform(0.4, 0.9, k) for name in audit.SHORTCUTS}
    table = own_table(k).assign(**rules)
    with_interval(table, "forgotten", table["forgotten"], 0.05)
    with_interval(table, "tuned", table["tuned"], 0.05)
    return table


OF_TASKS = {
    "shortcuts": lambda k: audit.draw(shortcuts_table(k)),
    "predictors": lambda k: fig4.draw(own_table(k), correlations_table(k)),
    "regression": lambda k: fig4.draw_regression(regression_table(k)),
    "example_level": lambda k: fig4_examples.draw(example_level_table(k)),
    "order": lambda k: fig5.draw(*order_tables(k, n_enough=k - 2)),
    "order, nothing": lambda k: fig5.draw(*order_tables(k, n_enough=0)),
    "probes": lambda k: fig6.draw(recovery_table(k), described(k)),
    "probe_layers": lambda k: fig6.draw_layers(probe_table(k, 3 if k == 4 else 19)),
    "sizes": lambda k: fig7.draw(sizes_table(k), described(k)),
    "sizes, one": lambda k: fig7.draw(sizes_table(k, (128,)), described(k)),
    "forget_gap": lambda k: fig2.draw(forget_gap_table(k)),
    "control": lambda k: fig2.draw_control(control_table(k)),
    "claims": lambda k: claims_figure.draw(claims_table(k)),
    "skills": lambda k: fig2b.draw(skills_table(k)),
    "stored case": lambda k: explore_picture.draw(*stored_case(k)),
    "trained models": lambda k: dumbbell.draw(trained_table()),
    "skills, no control": lambda k: fig2b.draw(skills_table(k, ("random",))),
}


def assert_readable(figure, monkeypatch):
    """All text is on the page, large enough for print, and over no other text."""
    assert figure.get_figwidth() == TEXT_WIDTH
    assert figure.get_figheight() <= 9.5  # a page
    texts = drawn_texts(figure, monkeypatch)
    width, height = figure.get_size_inches() * figure.dpi
    outside = [
        t for t, e, _ in texts if e[0] < -1 or e[1] < -1 or e[2] > width + 1 or e[3] > height + 1
    ]
    assert len(texts) > 5
    assert outside == []
    assert overlapping(texts) == []
    assert min(size for *_, size in texts) >= 6


def test_the_test_above_sees_what_is_wrong(monkeypatch):
    """Its positive control: text over text, and text beside the page."""
    figure = fig7.draw(sizes_table(4), described(4))
    figure.text(0.5, 0.5, "here")
    figure.text(0.5, 0.5, "and here")
    figure.text(0.99, 0.99, "beyond the edge").set_in_layout(False)
    texts = drawn_texts(figure, monkeypatch)
    assert ("here", "and here") in overlapping(texts)
    assert [t for t, e, _ in texts if e[2] > 550 + 1] == ["beyond the edge"]


K = 4
ALONE = "tiny_city"


def summary_of(cross):
    return (
        cross,
        fig3.shares(cross),
        crossanalysis.own_against_others(cross),
    )


@cache
def alone(condition="random", model="embedded"):
    """A matrix of one task."""
    rng = np.random.default_rng(0)
    results = synthetic.cross([ALONE], [0.9], [[0.6]], condition=condition, model=model, rng=rng)
    return crosstask.cross_task(results, condition, n_resamples=50)


USUAL = {
    "claims_figure.draw": lambda: (claims_table(K),),
    "fig8.draw_comparison": lambda: (fig8.comparison_table(*comparison(K)),),
    "fig8.draw": lambda: (*comparison(K)[::-1], described(K)),
    "fig2.draw_control": lambda: (control_table(K),),
    "fig3.draw": lambda: (cross(K), described(K)),
    "fig3.draw_pairs": lambda: (*comparison(K), described(K), "found"),
    "fig3.draw_summary": lambda: summary(K),
    "fig3.draw_harm": lambda: (fig3.table(cross(K)), described(K)),
    "fig1.draw": lambda: (margins(), questions(long=False)),
    "fig4_examples.draw": lambda: (example_level_table(K),),
    "fig2.draw": lambda: (forget_gap_table(K),),
    "fig2b.draw": lambda: (skills_table(K),),
    "fig9.draw": lambda: models(K, 2),
    "fig5.draw": lambda: order_tables(K, K - 1),
    "fig4.draw": lambda: (own_table(K), correlations_table(K)),
    "fig6.draw_layers": lambda: (probe_table(K, 5),),
    "fig6.draw": lambda: (recovery_table(K), described(K)),
    "fig4.draw_regression": lambda: (regression_table(6),),
    "audit.draw": lambda: (shortcuts_table(K),),
    "fig7.draw": lambda: (sizes_table(K), described(K)),
    "explore.picture.draw": lambda: stored_case(6),
    "dumbbell.draw": lambda: (trained_table(),),
}


def drawing(name):
    module, _, function = name.rpartition(".")
    return getattr(import_module(f"forgetlib.figures.{module}"), function)


def test_no_drawing_function_is_left_out():
    folder = Path(figures.__file__).parent
    named = {
        ".".join([*file.relative_to(folder).with_suffix("").parts, node.name])
        for file in folder.rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("draw")
    }
    parts = {"style.draw_intervals", "rows.draw_constants", "rows.draw_seeds", "matrix.draw_matrix"}
    # Of studies of methods: test_rungs, test_relearning, test_dose_figure, test_collateral,
    # test_generalisation, test_price.
    # Of studies of models: test_scale_figures.
    # Of implicit inference: test_implicit_figures, test_implicit_models and test_study.
    others = {n for n in named if n.startswith(("methods.", "scale.", "implicit."))}
    assert {"methods.price.draw", "scale.models.draw", "implicit.shift.draw"} < others
    assert set(USUAL) == named - parts - others - {"drawing.drawn"}


def changed(arguments, of_table, of_cross=lambda cross: cross):
    """The arguments with every table and matrix changed."""

    def one(value):
        if isinstance(value, pd.DataFrame):
            return of_table(value)
        if isinstance(value, CrossTask):
            return of_cross(value)
        if isinstance(value, list):
            return [one(v) for v in value]
        return value

    return [one(value) for value in arguments]


def undefined(table):
    return table.assign(**dict.fromkeys(table.select_dtypes("float"), np.nan))


def undefined_matrix(cross):
    nothing = np.full_like(cross.forget_ratio, np.nan)
    return replace(cross, forget_ratio=nothing, replicates=np.full_like(cross.replicates, np.nan))


def constant(table):
    return table.assign(**dict.fromkeys(table.select_dtypes("float"), 0.5))


def constant_matrix(cross):
    same = np.full_like(cross.forget_ratio, 0.5)
    return replace(cross, forget_ratio=same, replicates=np.full_like(cross.replicates, 0.5))


def one_task(table):
    if "eval_task" not in table:
        return table
    return table[table["eval_task"].isin([table["eval_task"].iloc[0], "pooled"])]


ONE_TASK = {  # what is made of matrices is made anew
    "fig8.draw_comparison": lambda: (fig8.comparison_table(alone(), alone("flipped")),),
    "fig3.draw": lambda: (alone(), described(K)),
    "fig3.draw_pairs": lambda: (alone("flipped"), alone(), described(K), "found"),
    "fig3.draw_harm": lambda: (fig3.table(alone()), described(K)),
    "fig8.draw": lambda: (alone("flipped"), alone(), described(K)),
    "fig3.draw_summary": lambda: summary_of(alone()),
    "fig9.draw": lambda: (
        pair := [alone(), alone(model="gpt2")],
        crossanalysis.model_agreement(pair),
        described(K),
    ),
}
KINDS = {
    "usual": lambda name: USUAL[name](),
    "nothing defined": lambda name: changed(USUAL[name](), undefined, undefined_matrix),
    "all equal, intervals of no width": lambda name: changed(
        USUAL[name](), constant, constant_matrix
    ),
    "one task": lambda name: ONE_TASK.get(name, lambda: changed(USUAL[name](), one_task))(),
}


def drawn(figure):
    """The texts of a figure, which is drawn without a warning and whose limits are numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(BytesIO(), format="png", dpi=50)
    for axes in figure.axes:
        limits = np.array([axes.get_xlim(), axes.get_ylim()])
        assert np.isfinite(limits).all()
        assert (limits[:, 0] != limits[:, 1]).all()
    texts = figure.findobj(matplotlib.text.Text)
    return [t for t in texts if t.get_visible() and t.get_text().strip()]


SAYS = ("undefined", "nothing to", "known", "no data", "none", "cannot be estimated")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(set(USUAL) - {"fig1.draw"}))
def test_every_figure_of_next_to_nothing_is_drawn_and_says_so(name, kind):
    arguments = KINDS[kind](name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = drawing(name)(*arguments)
    found = [t.get_text() for t in drawn(figure)]
    if kind == "nothing defined":
        assert any(words in text for text in found for words in SAYS), found


def test_the_summary_of_one_task_says_that_there_is_no_other():
    _, left, right = fig3.draw_summary(*summary_of(alone())).axes
    assert [t.get_text() for t in right.texts] == ["no other task"]
    drawn_ratio = points_of(left)[:, 0]
    assert drawn_ratio == pytest.approx(alone().forget_ratio[0])


def test_single_examples_without_any_correlation_say_why():
    table = undefined(example_level_table(K)).assign(n=2, n_lost=[0, 2, 0, 1, 0] * 2)
    table.loc[0, "n"] = 0
    left, right = fig4_examples.draw(table).axes
    assert left.get_xlim() == (-1, 1)
    of_left = ["not measured", "all lost", "none lost", "", "none lost"]
    assert [t.get_text() for t in left.texts] == [
        f"undefined: {why}" if why else "undefined" for why in of_left
    ]
    assert right.texts[0].get_text() == "undefined: none lost"


def test_a_task_whose_predictor_is_not_known_is_named_below_that_panel():
    table = own_table(K)
    table.loc[0, ["log_variance", "log_variance_low", "log_variance_high"]] = np.nan
    figure = fig4.draw(table, correlations_table(K))
    assert f"as log_variance is not known: {table.eval_task[0]}" in figure.get_supxlabel()
    counts = [len(points_of(axes)) for axes in figure.axes]
    assert counts == [K - 1, K - 2]
    drawn(figure)


def test_a_task_with_enough_examples_of_none_says_so():
    table, families = order_tables(K, 0)
    table = table.assign(enough=True, n=0, learned_at_first=np.nan, forgotten_at_first=np.nan)
    left, right = fig5.draw(table, families).axes
    said = [t.get_text() for t in left.texts]
    assert said.count("undefined: fewer than two examples") == K
    assert [t.get_text() for t in right.texts] == ["none pass both ways"]


@pytest.mark.parametrize("take", [0, 1], ids=["empty", "one row"])
@pytest.mark.parametrize("name", USUAL)
def test_tables_of_too_few_rows_are_drawn_or_refused(name, take):
    """Each table in turn, and all of them."""
    usual = USUAL[name]()
    tables = [i for i, value in enumerate(usual) if isinstance(value, pd.DataFrame)]
    for cut in ([i] for i in tables) if len(tables) == 1 else (*([i] for i in tables), tables):
        arguments = [v.iloc[:take] if i in cut else v for i, v in enumerate(usual)]
        try:
            figure = drawing(name)(*arguments)
        except InputError as error:
            assert "expected" in str(error)
        else:
            figure.draw_without_rendering()


def test_figures_of_tables_that_do_not_fit_each_other_are_refused():
    table, families = order_tables(K, 2)
    with pytest.raises(InputError, match="formats of the tasks: expected one for"):
        fig5.draw(table, families.iloc[:0])
    with pytest.raises(InputError, match="expected predictor log_variance in each"):
        fig4.draw(own_table(K), correlations_table(K).iloc[:1])
    with pytest.raises(InputError, match="rows of the paper's layer"):
        fig6.draw_layers(probe_table(K, 5).assign(is_paper_layer=False))
    with pytest.raises(InputError, match="at least one, found none"):
        fig1.draw(margins(), [])
    with pytest.raises(InputError, match="pooled in each"):
        fig4_examples.draw(example_level_table(K).iloc[:1])


ODD = ("任务 🧪", "a_b$c$", r"$\frac$", "\x07\u202e\u00a0x")
WATCH = "\u231a"  # in STIX, which matplotlib brings, and not in DejaVu Sans


def odd(names):
    return {name: f"{ODD[i % len(ODD)]}{i}" for i, name in enumerate(sorted(set(names)))}


def with_odd_names(name):
    """The usual arguments with other names of tasks, families, terms and models."""
    arguments = USUAL[name]()
    matrices = [a for v in arguments for a in (v if isinstance(v, list) else [v])]
    found = {task for a in matrices if isinstance(a, CrossTask) for task in a.tasks}
    tables = [a for a in arguments if isinstance(a, pd.DataFrame)]
    for column in ("eval_task", "family", "term", "statistic"):
        found |= {x for t in tables if column in t for x in t[column]}
    names = odd(found - {"pooled"})

    def of_cross(cross):
        return replace(cross, tasks=tuple(names[t] for t in cross.tasks), model="模型$_")

    return names, changed(arguments, lambda table: table.replace(names), of_cross)


@cache
def characters_of(path, index):
    return set(TTFont(path, fontNumber=index).getBestCmap())


def lacking(text):
    """Characters of a drawn text that none of its fonts has, read without matplotlib."""
    fonts = font_manager.fontManager._find_fonts_by_props(text.get_fontproperties())
    known = set().union(*(characters_of(f.path, f.face_index) for f in fonts))
    return {c for c in text.get_text() if c != "\n" and ord(c) not in known}


@pytest.mark.parametrize("name", sorted(set(USUAL) - {"fig1.draw", "fig6.draw_layers"}))
def test_names_that_the_font_lacks_are_drawn_in_characters_that_there_are(name):
    names, arguments = with_odd_names(name)
    texts = drawn(drawing(name)(*arguments))
    shown = "\n".join(t.get_text() for t in texts)
    assert [t.get_text() for t in texts if lacking(t)] == []
    assert not any(t.get_parse_math() for t in texts if "$" in t.get_text())
    assert any(readable(other)[:8] in shown for other in names.values())


def test_prompts_and_answers_too():
    question = Example("t/x/0", ("任务 $x_1$ 🧪",) * 2, ("是 $", "否\x07"), 0)
    texts = drawn(fig1.draw(margins(), [question]))
    assert [t.get_text() for t in texts if lacking(t)] == []
    assert any(readable("任务 $x_1$ 🧪") in t.get_text() for t in texts)


def test_an_escape_stands_where_no_font_has_the_character():
    assert readable("a\U0010fffdb\x07c\u200bd") == r"a\U0010fffdb\x07c\u200bd"
    assert readable("one\u00a0two\nthree") == "one two three"
    usual = "arc_easy (café) ∀x ≤ $5"
    assert readable(usual) == usual


def test_another_installed_font_stands_in_where_it_has_the_character():
    table = forget_gap_table(K)
    table.loc[0, "eval_task"] = f"{WATCH} tasks"
    texts = drawn(fig2.draw(table))
    (named,) = [t for t in texts if t.get_text().startswith(WATCH)]
    assert not lacking(named)
    assert len(named.get_fontfamily()) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named.figure.savefig(BytesIO(), format="pdf")
    others = [t for t in drawn(fig2.draw(forget_gap_table(K))) if t is not named]
    assert {tuple(t.get_fontfamily()) for t in others} == {("sans-serif",)}


@pytest.mark.parametrize(
    ("name", "k"),
    [(name, k) for name in OF_TASKS for k in SUITES]
    + [(name, k) for name in OF_PAIRS for k in SUITES if k != 20],
)
def test_every_figure_is_readable(name, k, monkeypatch):
    assert_readable((OF_TASKS | OF_PAIRS)[name](k), monkeypatch)


def test_the_name_of_a_panel_is_broken_before_its_bracket_where_it_is_too_long():
    assert heading("uniform over choices, 10 seeds") == "uniform over choices, 10 seeds"
    broken = "uniform over choices\n(checked every 4 steps), 10 seeds"
    assert heading(broken.replace("\n", " ")) == broken
    long = heading(" ".join(["word"] * 20))
    assert max(map(len, long.split("\n"))) <= IN_A_PANEL
