"""What the READMEs say is what there is."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import forgetlib
from forgetlib import studies
from forgetlib.data import tasks
from forgetlib.figures import findings, readme
from forgetlib.implicit import study as implicit
from forgetlib.models import catalogue
from forgetlib.runs import estimate
from forgetlib.runs.grid import open_store
from forgetlib.runs.results import has_all
from forgetlib.runs.rows import read_records

ROOT = Path(forgetlib.__file__).parent.parent
README = (ROOT / "README.md").read_text()
# Each beside what it speaks of.
PAGES = [
    ROOT / where / "README.md"
    for where in (".", "figures", "figures/bench", "forgetlib", "forgetlib/runs", "tests")
]
FIGURES = ROOT / "figures" / "embedded"  # those that the README shows


def text_of(where="."):
    """What the page of a folder says, whatever its lines."""
    return " ".join((ROOT / where / "README.md").read_text().split())


def blocks(language, where="."):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / where / "README.md").read_text(), re.S)


def anchors(path):
    """Make the anchors of a page's headings, as a code host does."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_it_is_short_and_its_pictures_load_quickly():
    assert len(README.splitlines()) <= 150
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert sum((ROOT / p).stat().st_size for p in pictures) < 1.5e6


def test_every_make_target_it_names_exists():
    shown = subprocess.run(["make", "-pn"], cwd=ROOT, capture_output=True, text=True).stdout
    targets = set(re.findall(r"^([a-z][\w-]*):", shown, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][\w-]+)", README))
    assert {"figures", "test", "lab"} <= named <= targets
    for path in PAGES:
        assert set(re.findall(r"`make ([a-z][\w-]+)", path.read_text())) <= targets, path


def test_make_alone_prints_the_targets():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("figures", "fig2", "lab", "test", "bench", "lint", "clean"):
        assert target in shown


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.parent.name)
def test_every_file_and_heading_it_links_to_exists(path):
    links = re.findall(r"\]\(([^)]+)\)", path.read_text())
    assert links or path.parent.name in ("runs", "bench")
    for link in links:
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        to = path.parent / name if name else path
        assert to.exists(), link
        if anchor:
            to = to / "README.md" if to.is_dir() else to
            assert anchor in anchors(to), link


def test_what_is_there_of_four_models_is_their_table():
    table = pd.read_csv(ROOT / "figures" / "scale" / "scale_models.csv")
    first, second, third, largest = table.groupby("model", sort=False)["eval_task"].nunique()
    study = studies.study("scale")
    assert first == second == len(study.tasks)
    said = f"all tasks in two of the models, {third} in the third, {largest} of "
    assert f"under way: {said}{len(study.large_tasks)} in the largest)" in README
    assert f"[{len(study.tasks)} tasks](figures/scale/README.md)" in README
    gentle = studies.study("gentle")  # in whose setting they are said to be trained
    assert all(
        getattr(study, part) == getattr(gentle, part) for part in ("tuned", "forgetting", "tuning")
    )


def test_the_table_lists_every_notebook():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{path.name}" in README


@pytest.mark.embedded
@pytest.mark.slow
def test_the_python_examples_run(tmp_path):
    """The first with an eighth of its questions, as training on them takes most of a minute."""
    examples = [*blocks("python"), *blocks("python", "forgetlib")]
    assert len(examples) >= 4
    # The question of a line, as often as a task needs.
    (line,) = re.findall(r"`(\{.*?\})`", README)
    lines = [line.replace("Ice is", f"Ice number {i} is") for i in range(100)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    assert examples[0].count("n=32") == 1
    for code in examples:
        code = code.replace("n=32", "n=4")
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    lines = [line for line in examples[0].splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("from ")]) <= 5


def chosen(name):
    """A study by its name, of any kind."""
    return implicit.STUDIES.get(name) or studies.study(name)


PACKED = (
    *("quick", "embedded", "gentle", "paper-suite-270m", "methods", "recovery", "scale"),
    "implicit",
)


@pytest.mark.parametrize("name", PACKED)
def test_a_study_s_readme_is_what_its_tables_say(name, monkeypatch, tmp_path):
    study = chosen(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path))  # without what is not packed yet
        shutil.copytree(ROOT / "figures" / name, tmp_path / "figures" / name)
        assert (ROOT / "figures" / name / "README.md").read_text() == readme.text(study)
        shutil.copy(ROOT / "README.md", tmp_path)
        readme.write(study)
    assert (tmp_path / "README.md").read_text() == README
    links = re.findall(r"\]\(([^)#]+)\)", (tmp_path / "figures" / name / "README.md").read_text())
    for link in links:
        there = tmp_path / "figures" / name / link
        assert (
            link.startswith("http") or there.exists() or (ROOT / "figures" / name / link).exists()
        )


def test_findings_fit_on_a_screen_and_each_names_its_evidence():
    found = (
        README.split(readme.BEGIN.format("findings", "embedded"))[1]
        .split(readme.END.format("findings"))[0]
        .strip()
    )
    lines = found.splitlines()
    assert 4 <= len(lines) <= 7 and len(found) < 3500
    assert all(line.startswith("- ") for line in lines)


def test_answers_are_short():
    """What is behind them is in the README of their study."""
    for name in ("embedded", "gentle", "methods", "recovery", "scale", "implicit"):
        begin = readme.BEGIN.format("answer", name)
        found = README.split(begin)[1].split(readme.END.format("answer"))[0]
        assert len(re.sub(r"\]\(.*?\)", "]", found)) < 1300, name


def test_what_is_said_of_damage_is_in_the_pairs():
    tables = findings.Tables(ROOT / "figures" / "embedded")
    skills, pairs = tables.need("fig2b_skill"), tables.need("fig3_cross_task")
    free = set(skills.loc[skills["answer_format"] == "text", "eval_task"])
    of = pairs[pairs["eval_task"].isin(free) & (pairs["eval_task"] != pairs["forget_task"])]
    of = of[of["forget_ratio"].notna()]
    r = np.corrcoef(of["forget_ratio"], of["nll_risen"])[0, 1]
    said = f"Over {len(of)} pairs in which a task with free answers is asked, the forget ratio "
    said += "(the share of accuracy lost) and this rise correlate by "
    assert f"{said}{r:.2f} [" in findings.findings(tables)
    unrelated = pairs.assign(nll_risen=np.random.default_rng(0).normal(5, 1, len(pairs)))
    said = findings._of_pairs(unrelated, None, skills)
    assert "and this rise correlate by" in said and "may be damage" not in said


def test_harm_that_was_measured_is_told_beside_that_of_true_labels(tmp_path):
    skills = findings.Tables(ROOT / "figures" / "embedded").need("fig2b_skill")
    skills = skills[skills["eval_task"].isin(("sst2", "piqa", "coding"))]
    rises = {"sst2": 0.5, "piqa": 1.5, "coding": 1.0}
    rise = skills["eval_task"].map(rises) - 1.0 * (skills["phase"] == "true")
    ends_of = {"damage": rise, "damage_low": rise - 0.2, "damage_high": rise + 0.2}
    skills.assign(**ends_of).to_csv(tmp_path / "fig2b_skill.csv", index=False)
    said = findings.answer(findings.Tables(tmp_path))
    ends = next(findings.sentences(findings.Tables(tmp_path)))
    assert ends.endswith(
        "Damage to other tasks (on average, their true answers cost more than 1 nat a token more "
        "than they cost the fine-tuned model) is, after "
        "random labels, shown for PIQA (1.50 [1.30, 1.70]), excluded for SST-2 (0.50 [0.30, "
        "0.70]), not decided for Coding (1.00 [0.80, 1.20]); after true labels, excluded for "
        "Coding (0.00 [−0.20, 0.20]), PIQA (0.50 [0.30, 0.70]) and SST-2 (−0.50 [−0.70, −0.30])."
    )
    assert "not measured" not in said
    assert said.endswith(
        "Damage to other tasks (true answers less likely by more than 1 nat a token) is, after "
        "random labels, shown for PIQA, excluded for SST-2, not decided for Coding; after true "
        "labels, excluded for Coding, PIQA and SST-2."
    )
    rise = skills["eval_task"].map(rises).where(skills["phase"] == "tuned")
    taught = {"nll_taught": rise, "nll_taught_low": rise - 0.2, "nll_taught_high": rise + 0.2}
    skills.assign(**ends_of, **taught).to_csv(tmp_path / "fig2b_skill.csv", index=False)
    assert findings.answer(findings.Tables(tmp_path)).endswith(
        " Fine-tuning alone had made true answers of other tasks less likely by 0.5 to 1.5 nats a "
        "token, most in PIQA."
    )
    assert next(findings.sentences(findings.Tables(tmp_path))).endswith(
        " Fine-tuning alone had made true answers of other tasks less likely, in nats a token, by "
        "1.00 [0.80, 1.20] in Coding, 1.50 [1.30, 1.70] in PIQA and 0.50 [0.30, 0.70] in SST-2."
    )


def test_kept_tasks_that_a_rule_does_as_well_are_named(tmp_path):
    """Only those with free answers, whose accuracy after all may be that of the rule."""
    folder = ROOT / "figures" / "embedded"
    skills = findings.Tables(folder).need("fig2b_skill")
    skills.to_csv(tmp_path / "fig2b_skill.csv", index=False)
    rules = pd.read_csv(folder / "tasks.csv").assign(answer_in_prompt=0.0)

    def said(task, reached):
        changed = rules.assign(
            answer_in_prompt=rules["answer_in_prompt"].mask(rules["eval_task"] == task, reached)
        )
        changed.to_csv(tmp_path / "tasks.csv", index=False)
        return next(findings.sentences(findings.Tables(tmp_path)))

    after = skills[skills["phase"] == "random"].set_index("eval_task")
    low = float(after.loc["sciq", "accuracy_low"])
    rule = "Of those kept, SciQ is not shown to beat choosing the answer whose words stand in"
    assert rule in said("sciq", low + 0.01)
    assert "stand in the prompt" not in said("sciq", low - 0.01)
    assert after.loc["sst2", "verdict"] != "kept"
    assert "stand in the prompt" not in said("sst2", 1.0)


def test_tasks_that_are_known_by_the_likelihood_a_token_alone_are_named():
    skills = findings.Tables(ROOT / "figures" / "embedded").need("fig2b_skill")
    table = readme._task_table(skills)
    after = skills[skills["phase"] == "random"].set_index("eval_task")
    row = next(line for line in table.splitlines() if line.startswith("| OpenBookQA |"))
    assert f" {after.loc['openbookqa', 'accuracy_a_token']:.2f} " in row
    ends = skills["accuracy_a_token_low"]
    for end, said in ((0.4, False), (0.51, True)):
        openbookqa = skills["eval_task"] == "openbookqa"
        changed = skills.assign(accuracy_a_token_low=ends.where(~openbookqa, end))
        assert ("OpenBookQA" in readme._task_table(changed).splitlines()[-1]) == said


def test_every_picture_is_in_the_gallery_and_no_picture_is_left_out():
    for name in PACKED:
        shown = set(re.findall(r"!\[\w+\]\((\w+)\.png\)", readme.text(chosen(name))))
        drawn = {p.stem for p in (ROOT / "figures" / name).glob("*.png")}
        assert shown == drawn - {"fig9_models"}  # which compares models: they have one


def test_a_study_of_two_models_has_their_picture_in_the_gallery(tmp_path):
    tables = readme.Tables(tmp_path)
    for name in ("fig5_order", "fig9_models"):
        (tmp_path / f"{name}.png").touch()
    for models, shown in ((["a", "a"], False), (["a", "b"], True)):
        pd.DataFrame({"model": models}).to_csv(tmp_path / "fig9_models.csv")
        assert ("(fig9_models.png)" in readme._gallery(tables)) == shown
        assert "(fig5_order.png)" in readme._gallery(tables)


def of_bench(name):
    """The rows that the table of speeds has to have of a processor: what, and its numbers."""
    table = pd.read_csv(ROOT / "figures" / "bench" / f"{name}.csv")
    table = table.fillna({"task": "", "tool": ""})
    one = (table["section"] != "scoring") | (table["task"] == "all")  # a rate of each task
    values = table[one].set_index(["task", "tool", "quantity"])

    def of(task, tool, quantity, digits=1):
        """The value, with the range of the rounds where there were several."""
        (row,) = values.loc[[(task, tool, quantity)]].itertuples()
        value, *ends = (f"{x:.{digits}f}" for x in (row.value, row.low, row.high))
        return value if pd.isna(row.low) else f"{value} [{', '.join(ends)}]"

    times = of("all", "ours, lm-eval", "ratio of total times")
    told = {"scoring, five tasks: times lm-eval": times}
    names = {"piqa": "PIQA", "sst2": "SST-2", "boolq": "BoolQ"}
    for task in ("piqa", "sst2"):
        ours, theirs = (of(task, tool, "rate").split()[0] for tool in ("ours", "Trainer"))
        times = of(task, "ours, Trainer", "ratio of rates")
        told[f"fine-tuning, {names[task]}: times Trainer"] = f"{times} ({ours}/s, {theirs}/s)"
    for task in ("piqa", "sst2"):
        times = of(task, "ours, Trainer, bf16 weights", "ratio of rates")
        told[f"fine-tuning, {names[task]}: times Trainer with bf16 weights"] = times
    for task, called in names.items():
        share = of(task, "ours", "share of the matmul rate beside it", 0)
        told[f"fine-tuning, {called}: % of the processor's bf16 matmul rate"] = share
    told["that rate, TFLOP/s"] = of("", "", "bf16 matmul rate, 4096^3", 2)
    peaks = [of("boolq", tool, "peak memory, training") for tool in ("ours", "Trainer")]
    told["peak memory, GiB: fine-tuning on BoolQ, ours and Trainer"] = ", ".join(peaks)
    longest = of("suite", "ours", "peak memory, longest")
    told["peak memory, GiB: longest inputs of the 21 tasks"] = longest
    return told


def test_the_table_of_speeds_is_the_bench_s():
    columns = [of_bench(name) for name in ("intel-xeon-processor", "amd-epyc")]
    section = (ROOT / "figures" / "bench" / "README.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    said = {row[0]: row[1:] for row in rows[2:]}
    assert said == {what: [column[what] for column in columns] for what in columns[0]}
    for name in ("intel-xeon-processor", "amd-epyc"):
        table = pd.read_csv(ROOT / "figures" / "bench" / f"{name}.csv")
        equal = table.loc[table["quantity"] == "equal predictions", "value"]
        assert f"{equal.min():.0f} to {equal.max():.0f} %" in section
    # As many times Trainer's speed is what the processor could do, on PIQA.
    share, times = (
        [float(column[f"fine-tuning, PIQA: {what}"].split()[0]) for column in columns]
        for what in ("% of the processor's bf16 matmul rate", "times Trainer")
    )
    assert f"reaches {share[1]:.0f} % of the EPYC's rate" in text_of("figures/bench")
    assert f"and {share[0]:.0f} % of the Xeon's" in text_of("figures/bench")
    said = "about four times as fast as Trainer, .* it would be about nine times as fast"
    assert re.search(said, text_of("figures/bench"))
    assert [round(100 / s * t) for s, t in zip(share, times, strict=True)] == [9, 4]


def stored():
    """Every record of `embedded`, of what is packed."""
    return [r for path in sorted(FIGURES.glob("results/*.parquet")) for r in read_records(path)]


def test_what_is_said_of_runs_computed_again_is_their_table():
    table = pd.read_csv(FIGURES / "check.csv")
    on_epyc = table[table["machine_again"].str.contains("AMD EPYC") & table["same_data"]]
    same = on_epyc["machine"] == on_epyc["machine_again"]
    assert (on_epyc["difference"][same] == 0).all()
    assert on_epyc["checkpoint_id"][same].nunique() == 3
    assert "three of the EPYC's runs have the stored bits" in text_of("tests")
    elsewhere = on_epyc[~same]
    assert elsewhere["machine"].str.contains("Intel").all()
    runs = elsewhere["checkpoint_id"].nunique()
    test = elsewhere[elsewhere["data"].str.endswith("/test")].copy()
    test["apart"] = (test["again"] - test["stored"]).abs()
    formats = test["data"].map(lambda where: tasks.get(where.split("/")[0]).answer_format)
    free, fixed = (test[formats == name] for name in ("text", "verbaliser"))
    assert f"{runs} runs of `embedded`, drawn at random, were computed again" in text_of("tests")
    said = "{} of tasks with free answers the test accuracy is {:.3f} away on average, {:.2f}"
    assert said.format(len(free), free["apart"].mean(), free["apart"].max()) in text_of("tests")
    said = "at most; in the {} of tasks with fixed answers {:.2f} on average and {:.2f} at most"
    assert said.format(len(fixed), fixed["apart"].mean(), fixed["apart"].max()) in text_of("tests")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [r for r in stored() if "AMD EPYC" in r.provenance["device"]]
    tasks_of = {}
    for record in made:
        of_run = tasks_of.setdefault(record.checkpoint.id, set())
        of_run |= {*record.checkpoint.tasks, record.measurement.task}
    epyc = list(tasks_of.values())
    later = {"pattern", "string_operations", "coding", "sciriff_yesno"}
    assert all(later & names for names in epyc)
    said = "The {} runs of pairs with pattern, string_operations, coding and SciRIFF"
    assert said.format(len(epyc)) in text_of("tests")


def test_the_agreement_with_the_harness_is_its_table():
    table = pd.read_csv(ROOT / "figures" / "harness" / "agreement.csv")
    said = f"{len(table)} tasks of both suites and {table['questions'].sum()} questions: at most "
    said += f"{table['largest_difference_nats'].max():.5f} nats apart, "
    assert f"{said}{table['other_predictions'].sum()} other predictions" in text_of("tests")


def test_the_hours_of_embedded_are_those_of_its_runs():
    study = studies.study("embedded")
    seconds = estimate.spent(study.jobs(), open_store(study))
    n_tasks = len(studies.study("embedded").cross_tasks)
    hours = f"{seconds / 2 / 3600:.0f} hours"  # two processes share them
    assert f"pairs of {n_tasks} of these tasks, 1 seed | about {hours}" in text_of("figures")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text()
        if "Computing all of `embedded` anew" in text:
            assert f"takes about {hours}" in text, path


def test_the_settings_search_is_its_table():
    table = pd.read_csv(FIGURES / "settings.csv")
    tuned = table[table["forgetting"].isna()].drop_duplicates(["task", "fine-tuning"])
    assert f"pre-trained {tuned['pre-trained'].mean():.2f}" in text_of("figures")
    for name, rows in tuned.groupby("fine-tuning"):
        rate, epochs = name.replace("e-0", "e-").split(" x ")
        change = (rows["fine-tuned"] - rows["pre-trained"]).set_axis(rows["task"])
        ends = f"{change.min():+.2f} ({change.idxmin()}), {change.max():+.2f} ({change.idxmax()})"
        mean = f"{rows['fine-tuned'].mean():.2f}"
        assert f"| {rate}, {epochs} epochs | {mean} | {ends} |" in text_of("figures")
    for _, rows in table.dropna(subset=["forgetting"]).groupby("forgetting"):
        on_the_set = rows["on the forgetting set"]
        assert f"between {on_the_set.min():.2f} and {on_the_set.max():.2f}" in text_of("figures")


def test_what_is_said_of_gentler_settings_is_their_table():
    table = pd.read_csv(ROOT / "figures" / "settings" / "settings.csv")
    by = ["tuning", "learning_rate", "epochs"]
    of = {key: rows.set_index("task") for key, rows in table.groupby(by)}
    every = set(table["task"])
    able = {k: r for k, r in of.items() if set(r.index[r["dose_reached"]]) == every}
    chosen = min(able, key=lambda key: able[key]["damage"].mean())
    study = studies.study("gentle")
    assert chosen == (study.tuning, study.forgetting.learning_rate, study.forgetting.epochs)
    paper = of["body", 1e-4, 2]
    assert of[chosen].loc[paper.index, "damage"].mean() < paper["damage"].mean()
    assert len(every) == 6
    tuned = table["model"] == study.models[0]
    both = [
        table[tuned & table["task"].isin(paper.index)].set_index(by).loc[key, "damage"].mean()
        for key in (chosen, ("body", 1e-4, 2))
    ]
    said = "at 5e-4 for 4 epochs fit the random labels, or lose the true ones, in all six tasks "
    said += "tried, and cost other tasks {:.2f} nats a token, and not {:.2f}, in the mean of five"
    said = said.format(*both)
    assert len(paper) == 5
    assert said in text_of("figures")


def test_what_is_said_of_intervals_is_their_simulation():
    table = pd.read_csv(ROOT / "figures" / "intervals" / "coverage.csv")
    of = table[table["over"] == "questions and seeds"]
    low, rule, high = (f"{of['coverage'].agg(f):.2f}" for f in ("min", "median", "max"))
    assert f"{table['simulations'].iloc[0]:,} a setting" in text_of("figures")
    assert f"cover the truth in {low} to {high}, {rule} as a rule" in text_of("figures")
    least = of.loc[of["coverage"].idxmin()]
    assert least["seeds_differ"] and least["accuracy"] == 0.95


def test_it_names_every_embedded_model_and_its_download():
    for model in catalogue.MODELS:
        assert f"`{model.name}`" in text_of("forgetlib")
    sizes = [model.gguf_bytes / 1e9 for model in catalogue.MODELS]
    assert f"({min(sizes):.1f} to {max(sizes):.1f} GB)" in text_of("forgetlib")
    assert {m.licence for m in catalogue.MODELS[1:]} == {"Apache 2.0"}


def test_it_counts_the_other_ways_to_forget():
    """All but labels, noise and lock, which are controls, and what tests what is left."""
    listed = [sys.executable, "-m", "forgetlib", "list", "methods", "--json"]
    shown = subprocess.run(listed, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    others = {m["method"] for m in json.loads(shown)} - {"labels", "noise", "lock"}
    others -= {"quantise", "without_direction"}
    # And random labels; one is tried with a retain set, and without.
    assert len(others) + 2 == 16 and "Sixteen ways to forget" in README


def test_a_few_tasks_are_named_and_have_no_mean(tmp_path):
    for name in ("fig2b_skill", "fig2_control"):
        table = pd.read_csv(ROOT / "figures" / "embedded" / f"{name}.csv")
        table[table["eval_task"].isin(["sst2", "sciq"])].to_csv(tmp_path / f"{name}.csv")
    tables = findings.Tables(tmp_path)
    said = findings.answer(tables)
    assert "SST-2: AUROC" in said and "SciQ is kept" in said and "mean" not in said
    control = tables.need("fig2_control").set_index("eval_task")
    first, second = (
        f"{control.loc[t, 'auroc_beyond_true_labels']:.2f} [" for t in ("sst2", "sciq")
    )
    lost = f", the AUROC lost to random labels is {first}"
    assert f"on true labels{lost}" in said and f"] in SST-2 and {second}" in said
    assert f"on true labels**{lost}" in findings.findings(tables)


def test_a_study_under_way_says_so_in_its_first_line():
    """Which the result page shows as well."""
    first = {n: readme.text(studies.study(n)).split("\n", 1)[0] for n in ("quick", "gentle")}
    study = studies.study("gentle")
    there = set(findings.Tables(ROOT / "figures" / "gentle").need("fig2b_skill")["eval_task"])
    assert first["quick"] == f"# {studies.study('quick').description}"
    under_way = f" (under way: {len(there)} of {len(study.tasks)} tasks)"
    done = has_all(study)
    assert first["gentle"] == f"# {study.description}{'' if done else under_way}"
