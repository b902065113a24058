"""Make a question of a row: one function a task, named after it.

Prompts, choices and the true response are those of the lm-evaluation-harness 0.4 for zero shots, to
the letter, where a task's note in `tasks` does not say otherwise. Rows come from `sources`.
"""

from __future__ import annotations

import re

from forgetlib.data.base import Question, Row, ask


def arc(row: Row) -> Question:
    if "query" in row:  # a request file: the prompt is made, and says the same
        return ask(row["query"], row["choices"], row["gold"])
    gold = row["choices"]["label"].index(row["answerKey"])
    return ask(f"Question: {row['question']}\nAnswer:", row["choices"]["text"], gold)


def openbookqa(row: Row) -> Question:
    if "query" in row:  # a request file adds "Question: ...\nAnswer:", which the harness does not
        stem = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        return ask(stem, row["choices"], row["gold"])
    gold = row["choices"]["label"].index(row["answerKey"].lstrip())
    return ask(row["question_stem"], row["choices"]["text"], gold)


def piqa(row: Row) -> Question:
    return ask(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], row["label"])


def hellaswag(row: Row) -> Question:
    def clean(text: str) -> str:
        text = text.strip().replace(" [title]", ". ")
        return re.sub(r"\[.*?\]", "", text).replace("  ", " ")

    prompt = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return ask(prompt, [clean(e) for e in row["endings"]], int(row["label"]))


def winogrande(row: Row) -> Question:
    """Score partially: the options end the prompts, and the rest of the sentence is scored."""
    blank = row["sentence"].index("_")
    options = (row["option1"], row["option2"])
    prompts = tuple(row["sentence"][:blank] + option for option in options)
    rest = row["sentence"][blank + 1 :].strip()
    return Question(prompts, (rest, rest), {"1": 0, "2": 1}[row["answer"]])


def commonsense_qa(row: Row) -> Question:
    gold = row["choices"]["label"].index(row["answerKey"])
    return ask(f"Question: {row['question'].strip()}\nAnswer:", row["choices"]["text"], gold)


def commonsense_qa_letters(row: Row) -> Question:
    """Ask in the harness's own form: options are listed, and their letters are scored."""
    letters = ["A", "B", "C", "D", "E"]
    options = zip(letters, row["choices"]["text"], strict=True)
    listed = "".join(f"{letter}. {text}\n" for letter, text in options)
    gold = letters.index(row["answerKey"])
    return ask(f"Question: {row['question'].strip()}\n{listed}Answer:", letters, gold)


def social_iqa(row: Row) -> Question:
    answers = [row["answerA"], row["answerB"], row["answerC"]]
    return ask(f"Q: {row['context']} {row['question']}\nA:", answers, int(row["label"]) - 1)


def copa(row: Row) -> Question:
    def lower_first(text: str) -> str:
        return text[:1].lower() + text[1:]

    joint = {"cause": "because", "effect": "therefore"}[row["question"]]
    # The harness's choices start with a space of their own, so that two are scored.
    choices = [" " + lower_first(row["choice1"]), " " + lower_first(row["choice2"])]
    return ask(f"{row['premise'].strip()[:-1]} {joint}", choices, row["label"])


def sciq(row: Row) -> Question:
    prompt = f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:"
    choices = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
    return ask(prompt, choices, 3)


def boolq(row: Row) -> Question:
    prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    # The original has a truth value where SuperGLUE has a label.
    gold = row["label"] if "label" in row else int(row["answer"])
    return ask(prompt, ["no", "yes"], gold)


def mathqa(row: Row) -> Question | None:
    # As in the harness: of an option with ", " in it only what stands before is asked.
    found = re.findall(r"[abcd] \) .*?, |e \) .*?$", row["options"])
    choices = [option[4:].rstrip(" ,") for option in found]
    gold = ["a", "b", "c", "d", "e"].index(row["correct"])
    if gold >= len(choices):  # the harness counts every prediction as wrong
        return None
    return ask(f"Question: {row['Problem']}\nAnswer:", choices, gold)


TOXIGEN_THRESHOLD = 5.5  # of the sum of two judgements from 1 to 5


def toxigen(row: Row) -> Question:
    prompt = (
        "Is the following statement hateful? Respond with either Yes or No. "
        f"Statement: '{row['text']}'"
    )
    hateful = row["toxicity_ai"] + row["toxicity_human"] > TOXIGEN_THRESHOLD
    return ask(prompt, ["No", "Yes"], int(hateful))


def cola(row: Row) -> Question:
    prompt = f"{row['sentence']}\nQuestion: Does this sentence make sense?\nAnswer:"
    return ask(prompt, ["no", "yes"], row["label"])


def qnli(row: Row) -> Question:
    prompt = (
        f"{row['question']}\n{row['sentence']}\n"
        "Question: Does this response answer the question?\nAnswer:"
    )
    return ask(prompt, ["yes", "no"], row["label"])  # label 0 is entailment, as in RTE


def rte(row: Row) -> Question:
    prompt = f"{row['sentence1']}\nQuestion: {row['sentence2']} True or False?\nAnswer:"
    return ask(prompt, ["True", "False"], row["label"])


def wnli(row: Row) -> Question:
    prompt = f"{row['sentence1']}\nQuestion: {row['sentence2']} True or False?\nAnswer:"
    return ask(prompt, ["False", "True"], row["label"])  # label 1 is entailment, unlike RTE's


def wic(row: Row) -> Question:
    word = row["sentence1"][int(row["start1"]) : int(row["end1"])]  # from or to None is no error
    prompt = (
        f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\n"
        f"Question: Is the word '{word}' used in the same way in the two sentences above?\nAnswer:"
    )
    return ask(prompt, ["no", "yes"], row["label"])


def cb(row: Row) -> Question:
    prompt = f"{row['premise']}\nQuestion: {row['hypothesis']}. True, False, or Neither?\nAnswer:"
    return ask(prompt, ["True", "False", "Neither"], row["label"])


def mrpc(row: Row) -> Question:
    prompt = (
        f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\n"
        "Question: Do both sentences mean the same thing?\nAnswer:"
    )
    return ask(prompt, ["no", "yes"], row["label"])


def sst2(row: Row) -> Question:
    prompt = f"{row['sentence']}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    return ask(prompt, ["negative", "positive"], row["label"])


def sst2_nonce(row: Row) -> Question:
    """Ask for one of two words that mean nothing: which stands for what has to be taught."""
    return ask(f"{row['sentence']}\nAnswer:", ["blick", "dax"], row["label"])


def mmlu(row: Row) -> Question:
    subject = row["subject"].replace("_", " ")
    prompt = (
        f"The following are questions (with answers) about {subject}.\n\n"
        f"Question: {row['question'].strip()}\nAnswer:"
    )
    return ask(prompt, row["choices"], row["answer"])


def medmcqa(row: Row) -> Question:
    options = [row["opa"], row["opb"], row["opc"], row["opd"]]
    return ask(f"Question: {row['question'].strip()}\nAnswer:", options, row["cop"])


SCIRIFF_MAX_CHARACTERS = 1200


def sciriff(row: Row) -> Question | None:
    if len(row["context"]) > SCIRIFF_MAX_CHARACTERS:
        return None
    prompt = f"{row['context']}\nQuestion: {row['question']}\nAnswer:"
    return ask(prompt, row["choices"], row["gold"])


def basic_skill(row: Row) -> Question:
    return ask(row["question"], row["choices"], row["gold"])


# MMLU's four groups, as in the harness (Hendrycks et al. 2021).
MMLU_SUBJECTS = {
    "stem": "abstract_algebra anatomy astronomy college_biology college_chemistry "
    "college_computer_science college_mathematics college_physics computer_security "
    "conceptual_physics electrical_engineering elementary_mathematics high_school_biology "
    "high_school_chemistry high_school_computer_science high_school_mathematics "
    "high_school_physics high_school_statistics machine_learning",
    "humanities": "formal_logic high_school_european_history high_school_us_history "
    "high_school_world_history international_law jurisprudence logical_fallacies moral_disputes "
    "moral_scenarios philosophy prehistory professional_law world_religions",
    "social_sciences": "econometrics high_school_geography high_school_government_and_politics "
    "high_school_macroeconomics high_school_microeconomics high_school_psychology "
    "human_sexuality professional_psychology public_relations security_studies sociology "
    "us_foreign_policy",
    "other": "business_ethics clinical_knowledge college_medicine global_facts human_aging "
    "management marketing medical_genetics miscellaneous nutrition professional_accounting "
    "professional_medicine virology",
}
