"""What the README says is what there is."""

import re
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import forgetlib
from forgetlib import metrics, studies
from forgetlib.data import splits, tasks
from forgetlib.figures import claims, crossanalysis, crosstask, fig2, intervals, published
from forgetlib.models import catalogue
from forgetlib.runs import cost
from forgetlib.runs.grid import open_store
from forgetlib.runs.rows import read_records

ROOT = Path(forgetlib.__file__).parent.parent
README = (ROOT / "README.md").read_text()
SAID = " ".join(README.split())  # whatever the lines

FIGURES = ROOT / "figures" / "embedded"  # those that the README shows


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_make_target_it_names_exists():
    shown = subprocess.run(["make", "-pn"], cwd=ROOT, capture_output=True, text=True).stdout
    targets = set(re.findall(r"^([a-z][\w-]*):", shown, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][\w-]+)", README))
    assert {"figures", "test", "lab"} <= named <= targets


def test_make_alone_prints_the_targets():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("figures", "fig2", "lab", "test", "bench", "lint", "clean"):
        assert target in shown


def test_every_file_it_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_the_table_lists_every_notebook():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{path.name}" in README


@pytest.mark.embedded
@pytest.mark.slow
def test_the_python_examples_run():
    """The first with an eighth of its questions, as training on them takes most of a minute."""
    examples = blocks("python")
    assert examples[0].count("n=32") == 1
    for code in examples:
        code = code.replace("n=32", "n=4")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    lines = [line for line in examples[0].splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("from ")]) <= 5


def test_the_numbers_of_the_figure_s_table_are_the_stored_ones():
    table = pd.read_csv(FIGURES / "fig2_forget_gap.csv").set_index("eval_task")
    number = r" ([\d.]+) \|"
    rows = re.findall(rf"^\| (\w+) \|{4 * number} ([^|]+) \|", README, re.M)
    assert {r[0] for r in rows} == set(table.index)
    for task, *values, ratio in rows:
        of_task = table.loc[task]
        stored = of_task[["base", "tuned", "forgotten", "forgetting_set"]]
        assert values == [f"{v:.2f}" for v in stored], task
        interval = [of_task[f"forget_ratio{end}"] for end in ("", "_low", "_high")]
        undefined = "undefined: nothing to forget"
        expected = "{:.2f} [{:.2f}, {:.2f}]".format(*interval)
        assert ratio == (expected if of_task["ratio_defined"] else undefined), task


def test_which_tasks_end_where_is_said_as_in_the_figure_s_table():
    table = pd.read_csv(FIGURES / "fig2_forget_gap.csv").set_index("eval_task")
    assert "Five tasks are shown to end below the pre-trained model" in SAID
    assert (table["behaviour"] == "below pre-trained").sum() == 5
    defined = table[table["ratio_defined"]]
    by_little = set(defined["tuned_low"].nsmallest(4).index)
    assert by_little == {"boolq", "hellaswag", "arithmetic", "social_iqa"}
    assert "BoolQ, HellaSwag, arithmetic and Social IQa pass that test by little" in SAID
    few_points = 100 * (defined["tuned"] - 0.5).nsmallest(4)
    assert "four others there are 7 to 10 points to lose" in SAID
    assert (round(few_points.min()), round(few_points.max())) == (7, 10)


def test_the_table_of_the_papers_tasks_is_the_stored_one():
    table = pd.read_csv(ROOT / "figures" / "paper-suite-270m" / "fig2_forget_gap.csv")
    for row in table.to_dict("records"):
        name = row["eval_task"].removesuffix("_hub")
        paper = published.PUBLISHED_FORGET_ACCURACY.get(name)
        cells = [
            name,
            f"{row['tuned']:.2f}",
            f"{row['forgotten']:.2f}",
            "{forget_ratio:.2f} [{forget_ratio_low:.2f}, {forget_ratio_high:.2f}]".format(**row)
            if row["ratio_defined"]
            else "undefined: nothing to forget",
            "" if paper is None else f"{paper:.2f}",
        ]
        assert f"| {' | '.join(cells)} |".replace("  |", " |") in README.replace("  |", " |"), name


def test_what_is_said_of_the_control_is_its_table():
    table = pd.read_csv(FIGURES / "fig2_control.csv").set_index("eval_task")

    def mean(measure, of=table):
        found = intervals.mean_interval(of[measure].to_numpy())
        return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"

    for measure in ("lost", "lost_again", "beyond_true_labels"):
        assert mean(measure) in SAID, measure
    shown = table[table["beyond_true_labels_low"] > 0]["beyond_true_labels"].sort_values()
    assert f"in {len(shown)} of {len(table)} tasks" in SAID
    names = {"sst2": "SST-2", "social_iqa": "Social IQa"}
    for task, value in shown.items():
        assert f"{names.get(task, task)} ({value:.2f})" in SAID
    least = table["beyond_true_labels"][["piqa", "basic_arithmetic", "arithmetic"]]
    assert least.max() < 0.01
    own = pd.read_csv(FIGURES / "fig2_forget_gap.csv").set_index("eval_task")
    defined = table[own["ratio_defined"]]
    assert f"Over the {len(defined)} tasks with something to forget alone" in SAID
    assert f"beyond true ones is {mean('beyond_true_labels', defined)}." in SAID


def test_the_table_of_claims_is_the_stored_one():
    stored = pd.read_csv(FIGURES / "claims.csv")
    rows = []
    for claim in stored.to_dict("records"):
        value = "" if pd.isna(claim["value"]) else f"{claim['value']:.2f}"
        if not pd.isna(claim["low"]):
            value += f" [{claim['low']:.2f}, {claim['high']:.2f}]"
        paper = "" if pd.isna(claim["paper"]) else f"{claim['paper']:.2f}"
        cells = (claim["claim"], claim["statistic"], value, claim["verdict"], paper)
        rows.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    table = [line.replace("  ", " ") for line in README.splitlines()]
    for row in rows:
        assert row in table, row


def test_every_figure_of_the_gallery_is_there_and_no_figure_is_left_out():
    shown = set(re.findall(r"\]\(figures/embedded/(\w+)\.png\)", README))
    assert shown == {p.stem for p in FIGURES.glob("*.png")}


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
    section = README.split("## How fast it is")[1].split("\n## ")[0]
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
    assert f"reaches {share[1]:.0f} % of the EPYC's rate" in SAID
    assert f"and {share[0]:.0f} % of the Xeon's" in SAID
    said = "about four times as fast as Trainer, .* it would be about nine times as fast"
    assert re.search(said, SAID)
    assert [round(100 / s * t) for s, t in zip(share, times, strict=True)] == [9, 4]


def stored():
    """Every record of `embedded`, of what is packed."""
    return [r for path in sorted(FIGURES.glob("results/*.parquet")) for r in read_records(path)]


def test_what_is_said_of_stored_values_above_0_is_counted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = [r.value for r in stored() if r.measurement.readout == "scores"]
    values = np.concatenate([s.log_likelihoods.ravel() for s in scores])
    above = values[values > 1e-4]
    said = f"{len(above)} of the {len(values)} values of `embedded` are above 0, by up to"
    assert f"{said} {above.max():.2f} nats" in SAID


def test_what_is_said_of_runs_computed_again_is_their_table():
    table = pd.read_csv(FIGURES / "check.csv")
    on_epyc = table[table["machine_again"].str.contains("AMD EPYC") & table["same_data"]]
    same = on_epyc["machine"] == on_epyc["machine_again"]
    assert (on_epyc["difference"][same] == 0).all()
    assert on_epyc["checkpoint_id"][same].nunique() == 3
    assert "three of the EPYC's runs have the stored bits" in SAID
    elsewhere = on_epyc[~same]
    assert elsewhere["machine"].str.contains("Intel").all()
    runs = elsewhere["checkpoint_id"].nunique()
    test = elsewhere[elsewhere["data"].str.endswith("/test")].copy()
    test["apart"] = (test["again"] - test["stored"]).abs()
    formats = test["data"].map(lambda where: tasks.get(where.split("/")[0]).answer_format)
    free, fixed = (test[formats == name] for name in ("text", "verbaliser"))
    assert f"{runs} runs of `embedded`, drawn at random, were computed again" in SAID
    said = "{} of tasks with free answers the test accuracy is {:.3f} away on average, {:.2f}"
    assert said.format(len(free), free["apart"].mean(), free["apart"].max()) in SAID
    said = "at most; in the {} of tasks with fixed answers {:.2f} on average and {:.2f} at most"
    assert said.format(len(fixed), fixed["apart"].mean(), fixed["apart"].max()) in SAID
    largest = test.loc[test["apart"].idxmax()]
    assert largest["checkpoint"] == "gemma-3-270m seed 0 mrpc:true > mrpc:random"
    said = "MRPC's {:.2f} was {:.2f} when it was computed again on another processor"
    assert said.format(largest["stored"], largest["again"]) in SAID
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
    assert said.format(len(epyc)) in SAID


def test_the_agreement_with_the_harness_is_its_table():
    table = pd.read_csv(ROOT / "figures" / "harness" / "agreement.csv")
    said = f"{len(table)} tasks of both suites and {table['questions'].sum()} questions: at most "
    said += f"{table['largest_difference_nats'].max():.5f} nats apart, "
    assert f"{said}{table['other_predictions'].sum()} other predictions" in SAID


def test_what_is_said_of_single_examples_is_in_figure_4_s_table():
    table = pd.read_csv(FIGURES / "fig4_examples.csv").set_index(["predictor", "eval_task"])
    for predictor in ("confidence", "log_deviation"):
        of_all = table.loc[predictor, "pooled"]
        ends = [of_all[f"rank_biserial{end}"] for end in ("", "_low", "_high")]
        assert "{:.2f} [{:.2f}, {:.2f}]".format(*ends) in SAID
    tasks = table.loc["confidence"].drop("pooled")
    assert f"in {(tasks['rank_biserial_high'] < 0).sum()} of {len(tasks)} tasks" in SAID


def test_what_is_said_of_sizes_and_pairs_is_in_their_tables():
    accuracy = pd.read_csv(FIGURES / "fig7_sizes.csv").pivot_table("forgotten", "eval_task", "size")
    lower, higher = ((accuracy[32] < accuracy[128]).sum(), (accuracy[32] > accuracy[128]).sum())
    assert f"lower with 32 in {lower} tasks, higher in {higher}." in SAID
    ratio = pd.read_csv(FIGURES / "fig3_cross_task.csv")
    ratio = ratio[ratio["eval_task"] != ratio["forget_task"]].set_index("forget_task")
    ratio = ratio["forget_ratio"]
    said = "SST-2's at least {:.2f} and SciRIFF's at least {:.2f}; coding's at most {:.2f}"
    ends = [ratio["sst2"].min(), ratio["sciriff_yesno"].min(), ratio["coding"].max()]
    assert said.format(*ends) in SAID
    share = pd.read_csv(FIGURES / "fig3_summary.csv").dropna(subset="source")
    share = share.set_index("source")["share"]
    said = "{:.2f} comes with the forgotten and {:.2f} with the evaluated task"
    assert said.format(share["forgotten task"], share["evaluated task"]) in SAID
    own = pd.read_csv(FIGURES / "fig3_summary.csv").dropna(subset=["eval_task"])
    assert "Another task's random labels do more than a task's own in five of twelve tasks" in SAID
    assert (len(own), (own["difference_low"] > 0).sum()) == (12, 5)
    assert "each task's own labels against the best other's: in seven of twelve tasks" in SAID
    assert (own["best_other"] == "sst2").sum() == 7
    flipped = pd.read_csv(FIGURES / "fig8_flipped.csv").set_index(["eval_task", "forget_task"])
    inverted = flipped.loc[flipped["forget_ratio_low"] > 0.5, "forget_ratio"]
    inverted = inverted.drop("sciriff_yesno")  # what its models answer: see below
    assert list(inverted.index) == [("sst2", "sst2")]
    assert f"({inverted.iloc[0]:.2f}, where 0.5 is chance)" in SAID


def test_the_pairs_are_of_the_tasks_with_something_to_forget_in_every_seed():
    study = studies.study("embedded")
    results = studies.load_results(study, "own")
    defined = []
    for seed in study.seeds:
        table = fig2.table([r for r in results if r.seed == seed])
        defined.append(set(table["eval_task"][table["ratio_defined"]]))
    assert set(study.cross_tasks) == set.intersection(*defined)
    assert f"of the {len(study.cross_tasks)} tasks with something to forget in every seed" in SAID
    assert "what the labels of the other nine would do" in SAID
    assert len(study.tasks) - len(study.cross_tasks) == 9


def test_the_hours_of_embedded_are_those_of_its_runs():
    study = studies.study("embedded")
    seconds = cost.spent(study.jobs(), open_store(study))
    n_tasks = len(studies.study("embedded").cross_tasks)
    hours = f"{seconds / 2 / 3600:.0f} hours"  # two processes share them
    assert f"pairs of {n_tasks} of these tasks, 1 seed | about {hours}" in SAID
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text()
        if "Computing all of `embedded` anew" in text:
            assert f"takes about {hours}" in text, path


def test_what_is_said_of_pairs_without_sciriff_is_what_they_give():
    results = studies.load_results(studies.study("embedded"), "cross")
    kept = [r for r in results if "sciriff_yesno" not in str(r.checkpoint)]
    cross = crosstask.cross_task(kept, "random")
    assert len(cross.tasks) == 11
    share = crossanalysis.variance_shares(cross).set_index("source")["share"]
    said = "Without SciRIFF that is {:.2f} and {:.2f}"
    assert said.format(share["forgotten task"], share["evaluated task"]) in SAID
    found = claims.judge("other-tasks-better", cross=cross, described=tasks.describe(cross.tasks))
    (row,) = found[found["statistic"].str.contains("commonsense labels")].itertuples()
    said = f"without SciRIFF they are not: {row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
    assert said in SAID
    assert row.verdict == claims.DOES_NOT_HOLD


def answers_to_sciriff(part):
    """Of each run: condition, the task trained on, and how often its model gives each answer."""
    questions = {e.uid: e for e in splits.load("sciriff_yesno", "test", n=200, seed=0)}
    for result in studies.load_results(studies.study("embedded"), part):
        scores = result.scores.get("sciriff_yesno/test")
        if scores is not None and result.seed == 0:
            chosen = zip(scores.uids, metrics.predictions(scores), strict=True)
            given = Counter(questions[uid].choices[i].strip() for uid, i in chosen)
            yield result.checkpoint.kind, result.checkpoint.task, given


@pytest.mark.embedded
def test_what_is_said_of_sciriff_s_answers_is_what_its_models_give():
    ratios = [
        pd.read_csv(FIGURES / f"{name}.csv").set_index(["eval_task", "forget_task"])
        for name in ("fig3_cross_task", "fig8_flipped")
    ]
    random, flipped = (table.loc["sciriff_yesno"] for table in ratios)
    one = {"Yes": [], "No": []}
    for condition, forgotten, given in answers_to_sciriff("cross"):
        if condition == "true":
            assert f"says yes to {given['Yes']} of {given.total()} questions" in SAID
        if condition == "random" and forgotten != "sciriff_yesno" and len(given) == 1:
            one[next(iter(given))].append(round(random["forget_ratio"][forgotten], 2))
    assert one == {"Yes": [0.12] * 2, "No": [1.88] * 4}
    assert "six of its eleven models with others' labels give one answer to all" in SAID
    assert "a ratio of 1.88 where this is no and 0.12 where it is yes" in SAID
    inverted = set(flipped.index[flipped["forget_ratio_low"] > 0.5])
    said_no = {f: n["No"] for c, f, n in answers_to_sciriff("flipped") if c == "flipped"}
    assert inverted == {task for task, n in said_no.items() if n >= 195}
    assert min(said_no[task] for task in inverted) == 195
    assert "SciRIFF where its models say no to 195 or more of 200 questions" in SAID


def test_the_settings_search_is_its_table():
    table = pd.read_csv(FIGURES / "settings.csv")
    tuned = table[table["forgetting"].isna()].drop_duplicates(["task", "fine-tuning"])
    assert f"pre-trained {tuned['pre-trained'].mean():.2f}" in README
    for name, rows in tuned.groupby("fine-tuning"):
        rate, epochs = name.replace("e-0", "e-").split(" x ")
        change = (rows["fine-tuned"] - rows["pre-trained"]).set_axis(rows["task"])
        ends = f"{change.min():+.2f} ({change.idxmin()}), {change.max():+.2f} ({change.idxmax()})"
        mean = f"{rows['fine-tuned'].mean():.2f}"
        assert f"| {rate}, {epochs} epochs | {mean} | {ends} |" in README
    for _, rows in table.dropna(subset=["forgetting"]).groupby("forgetting"):
        on_the_set = rows["on the forgetting set"]
        assert f"between {on_the_set.min():.2f} and {on_the_set.max():.2f}" in README.replace(
            "\n", " "
        )


def test_what_is_said_of_the_papers_tasks_is_in_their_tables():
    folder = ROOT / "figures" / "paper-suite-270m"
    section = README.split("### The paper's own tasks, on this model")[1].split("\n### ")[0]
    said = " ".join(section.split())
    own = pd.read_csv(folder / "fig2_forget_gap.csv").set_index("eval_task")
    own.index = own.index.str.removesuffix("_hub")
    assert f"{len(own)} of 21" in said
    assert "six tasks are shown to lose" in said
    lost = ["arc_easy", "boolq", "piqa", "sciq", "social_iqa", "sst2"]
    assert lost == sorted(own.index[own["behaviour"].str.startswith("below")])
    assert "Half of these tasks have nothing to forget" in said
    assert (~own["ratio_defined"]).sum() == len(own) / 2
    above = own["forgotten_low"] > 0.5
    assert "SciQ, ARC Easy, SST-2 and PIQA are above chance and BoolQ is not shown to be" in said
    assert above[["sciq", "arc_easy", "sst2", "piqa"]].all()
    assert not above[["boolq", "social_iqa"]].any()
    assert f"CoLA's fine-tuned model is right in {own['tuned']['cola']:.2f}: below chance" in said
    assert own["tuned_high"]["cola"] < 0.5
    table = pd.read_csv(folder / "claims.csv").set_index(["claim", "statistic"])
    for claim, words in (
        ("no-example-level-prediction", "being lost and confidence"),
        ("probes-recover", "change of probe accuracy"),
        ("robust-to-method-and-model", "flipped, shared"),
    ):
        row = table.loc[claim][table.loc[claim].index.str.contains(words)].iloc[0]
        assert "{value:.2f} [{low:.2f}, {high:.2f}]".format(**row) in said, claim
    undecided = (table["verdict"] == claims.NOT_DECIDED).sum()
    assert "most of the claims are undecided" in said
    assert undecided > len(table) / 2
    pairs = pd.read_csv(folder / "fig3_cross_task.csv").dropna(subset=["forget_ratio"])
    others = pairs[pairs["eval_task"] != pairs["forget_task"]]
    by_labels = others.groupby("forget_task")["forget_ratio"].mean().sort_values()
    assert "MRPC's and BoolQ's labels forget most, PIQA's least" in said
    assert set(by_labels.index[-2:]) == {"mrpc_hub", "boolq_hub"}
    assert by_labels.index[0] == "piqa_hub"


def test_it_names_every_embedded_model_and_its_download():
    for model in catalogue.MODELS:
        assert f"`{model.name}`" in SAID
    sizes = [model.gguf_bytes / 1e9 for model in catalogue.MODELS]
    assert f"({min(sizes):.1f} to {max(sizes):.1f} GB)" in SAID
    assert {m.licence for m in catalogue.MODELS[1:]} == {"Apache 2.0"}
