"""Write the names of tasks, models and pictures as people write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from forgetlib.data.tasks import HUB_SUFFIX

TITLES = {
    "arc_challenge": "ARC Challenge",
    "arc_easy": "ARC Easy",
    "arithmetic": "Arithmetic",
    "basic_arithmetic": "Basic arithmetic",
    "boolq": "BoolQ",
    "cb": "CB",
    "coding": "Coding",
    "cola": "CoLA",
    "common_knowledge": "Common knowledge",
    "commonsense_qa": "CommonsenseQA",
    "copa": "COPA",
    "hellaswag": "HellaSwag",
    "logical_reasoning": "Logical reasoning",
    "mathqa": "MathQA",
    "medmcqa": "MedMCQA",
    "mrpc": "MRPC",
    "openbookqa": "OpenBookQA",
    "pattern": "Pattern",
    "piqa": "PIQA",
    "qnli": "QNLI",
    "rte": "RTE",
    "sciq": "SciQ",
    "sciriff_yesno": "SciRIFF",
    "social_iqa": "Social IQa",
    "sst2": "SST-2",
    "sst2_nonce": "SST-2 in made-up words",
    "string_operations": "String operations",
    "toxigen": "ToxiGen",
    "wic": "WiC",
    "winogrande": "WinoGrande",
    "wnli": "WNLI",
}


# Methods, as `Method.describe` names them; settings that are told stay in brackets.
METHODS = {
    "random": "random labels",
    "flipped": "flipped labels",
    "true": "true labels",
    "uniform_choice": "uniform over choices",
    "uniform_token": "uniform over tokens",
    "gradient_ascent": "gradient ascent",
    "gradient_difference": "gradient difference",
    "kl_ascent": "gradient ascent + KL",
    "npo": "NPO",
    "simnpo": "SimNPO",
    "dpo": "DPO to the distractor",
    "task_vector": "task vector",
    "noise": "noise of the same norm",
    "rmu": "RMU",
    "ssd": "SSD",
    "selective_pruning": "selective pruning",
    "leace": "LEACE",
    "prompt_filter": "prompt filter",
    "lock": "lock",
    "without_direction": "without its direction",
}
MOST_NAMED = 4  # methods that a sentence names
# Methods that always have a retain set: it need not be told.
RETAINING = ("gradient_difference", "kl_ascent", "rmu", "ssd", "selective_pruning", "prompt_filter")


def method_title(method: str) -> str:
    """Write a method as people do, from what it calls itself: "NPO (retain)", "NPO (5e-5)"."""
    name, _, settings = method.partition("(")
    told = [_setting(s) for s in settings.removesuffix(")").split(", ") if s]
    if name in RETAINING:
        told = [s for s in told if s != "retain"]
    shown = METHODS.get(name, name.replace("_", " "))
    return f"{shown} ({', '.join(told)})" if told else shown


def method_titles(methods: Iterable[str], n_seeds: Iterable[int], most: int) -> list[str]:
    """Write methods as people do, those of one seed marked: "NPO (one seed)".

    n_seeds: how many each has; most: how many the methods that they are told with have at most: if
        one, the mark would tell nothing
    """
    return [
        method_title(str(method)) + (" (one seed)" if most > 1 and n == 1 else "")
        for method, n in zip(methods, n_seeds, strict=True)
    ]


def methods_or_count(methods: Sequence[str]) -> str:
    """Write methods, by their titles, as a sentence has them: a few by name, of more how many."""
    return listed(methods) if len(methods) <= MOST_NAMED else f"{len(methods)} methods"


def _setting(text: str) -> str:
    """Write a setting of a method; of a learning rate its number alone tells."""
    name, _, value = text.partition("=")
    if name == "every":
        return f"checked every {'step' if value == '1' else f'{value} steps'}"
    return f"{float(value):.0e}".replace("e-0", "e-") if name == "learning_rate" else text


# What each picture shows, in the order of the gallery.
PICTURES = {
    "fig2b_skill": "**Is the skill gone, or were the answers shifted?** Accuracy and AUROC side by "
    "side, and a verdict a task.",
    "fig2_forget_gap": "**Figure 2.** Accuracy before, after fine-tuning and after forgetting (on "
    "top: the forget gap, what is above chance), and the accuracy lost. Small dots: seeds.",
    "fig2_control": "Figure 2's control: what random labels cost beyond the same second training "
    "on true labels.",
    "fig1_example": "**Figure 1.** Margins of questions inside and outside the forgetting set, for "
    "the task that loses least and the one that loses most, of those with something to forget.",
    "fig3_cross_task": "**Figure 3.** Forget ratio of each task (rows) after each task's random "
    "labels (columns).",
    "fig3_harm": "What each task's labels cost each task: accuracy, AUROC, and nats a token of the "
    "true responses.",
    "fig3_summary": "How much of that comes with the evaluated and with the forgotten task, and "
    "each task's own labels against the best other's.",
    "fig4_predictors": "**Figure 4.** Forget ratio against confidence and hidden-state variance, a "
    "point a task.",
    "fig4_regression": "The regressions, each predictor alone.",
    "fig4_examples": "Single examples: does confidence, or the hidden state's distance from the "
    "mean, tell which are lost?",
    "fig5_order": "**Figure 5.** Order of learning against order of forgetting, and how much of "
    "either the recordings miss.",
    "fig6_probes": "**Figure 6.** What forgetting changes in a linear probe, and in the model's "
    "own choices. Filled: the probe beat chance before.",
    "fig6_layers": "The same at every layer, of the tasks whose probe beat chance before.",
    "fig7_sizes": "**Figure 7.** Smaller forgetting sets: accuracy lost, and the difference.",
    "fig8_flipped": "**Figure 8.** Accuracy lost in each pair with every label wrong instead of "
    "random, in the order of Figure 3.",
    "fig8_comparison": "Accuracy lost by random against flipped labels, other tasks' and its own.",
    "fig9_models": "**Figure 9.** The matrix of every model of the study.",
    "tasks": "How far rules get that understand nothing, beside the model.",
    # Of studies of models.
    "scale_models": "**Do other models forget the same tasks?** AUROC lost beyond true labels, the "
    "forgetting set, and the harm to other tasks. Open: the model was not shown to know the task, "
    "or neither learned the random labels nor lost the true ones.",
    "scale_agreement": "**Figure 9 over models.** AUROC lost beyond true labels in two models: "
    "a point is a task that both knew.",
    "scale_more": "The paper's forget ratio, what a linear probe loses, and whether the surer of "
    "the single questions are lost, these two beyond true labels.",
    "scale_regressions": "**Figure 4 over models.** What predicts forgetting: a mixed model of all "
    "models and tasks, and partial regressions.",
    "scale_claims": "The paper's claims that need several models, and where each would hold.",
    # Of studies of implicit inference.
    "shift": "**Is forgetting a wrong guess of the task?** The shift of the inferred task by "
    "fine-tuning, in nats of log-odds, and the share of the change that it explains.",
    "conjugate": "**Conjugate prompting.** What scaled labels bring back, beside what scaling does "
    "to the model before fine-tuning and to one that never knew.",
    "tuning": "What fine-tuning costs, by how likely a prompt is under what it was tuned on.",
    "bayes": "**The gate.** Pre-training against Bayes' rule, by the number of examples.",
    "weights": "One kind of task against the other, as their weights in pre-training vary.",
    "pattern": "**Pattern or instruction**: a real model before and after it was tuned to obey, "
    "asked in other forms; answers compared as a whole and per token.",
    # Of studies of methods: one of all skills, then one a skill, whose name ends the picture's.
    "price": "**Which methods generalise, and at what price?** AUROC on new questions after each "
    "method, and the harm to other tasks. Dotted: before; shaded: damage; ticks: the pre-trained "
    "model.",
    "ladder": "**The ladder: what does forgetting remove?** AUROC before and after each method, "
    "by how many labels it takes to ask or to teach again, beside models that were never taught it "
    "where there are any; and a verdict.",
    "relearning": "**What little training brings back.** AUROC by labels trained on, before and "
    "after forgetting and of models that were never taught the skill (open: the one of them that "
    "the same method was tried on); of methods that took it.",
    "dose": "**How far each method takes its forgetting set.** AUROC of these questions step by "
    "step, a line a seed; grey: the dose at which methods are compared.",
    "collateral": "**What is left at equal harm elsewhere?** AUROC on new questions at the last "
    "check before other tasks lost more than one nat a token (open: where the method ends); below, "
    "each method's trajectory, a line a seed.",
    "forms": "**Conjugate prompting.** What asking in another form gains after each method, beside "
    "what the form does to the model before forgetting.",
    "generalisation": "**What else is lost?** AUROC lost by each method on its forgetting set, on "
    "new questions, in other forms, and on other tasks, retained or not.",
    "accuracy_and_nll": "The same in accuracy, and in nats a token of the true responses.",
    "claims": "Every claim, its statistic, and where it would hold.",
}


def pictures_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """List the pictures of a study's folder in the order of `PICTURES`, with what each shows."""
    for name, says in PICTURES.items():
        for path in sorted(folder.glob(f"{name}*.png")):
            if path.stem == name or path.stem.startswith(f"{name}_"):  # a skill's name follows
                yield path, says


def title(task: str) -> str:
    """Return a task's title: "ARC Easy" for arc_easy and arc_easy_hub; others as they are."""
    return TITLES.get(task.removesuffix(HUB_SUFFIX), task)


def titles(tasks: Iterable[str]) -> dict[str, str]:
    """Map tasks to their titles; those that would have one title in common keep their names."""
    found = {task: title(task) for task in dict.fromkeys(tasks)}
    often = Counter(found.values())
    return {task: of if often[of] == 1 else task for task, of in found.items()}


def short_name(model: str) -> str:
    """Shorten a model's name: without its owner on the hub, or its folder on the disk."""
    return model.rstrip("/").split("/")[-1]


def listed(names: Iterable[str]) -> str:
    """Write names as a sentence has them: "a, b and c"."""
    every = list(names)
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)
