"""The rate at which skills are taught again: what is brought back, and what the study has."""

import pandas as pd
import pytest
import relearning_rates as rates
from test_readme import ROOT

from forgetlib import studies

BEFORE = {"known": 0.9, "locked": 0.6} | dict.fromkeys(rates.NEVER, 0.5)


def table(*of_rates):
    """AUROC of every model before, and after each of the rates; two draws of each."""
    return pd.DataFrame(
        {"model": model, "view": "plain", "learning_rate": rate, "auroc": auroc + aside}
        for rate, ends in zip((0.0, *rates.RATES), (BEFORE, *of_rates), strict=False)
        for model, auroc in (BEFORE | ends).items()
        for aside in ((-0.02, 0.02) if rate else (0.0,))
    )


def test_what_is_brought_back_is_what_never_taught_models_do_not_learn():
    never = dict.fromkeys(rates.NEVER, 0.7)
    found = rates.back(table({"locked": 0.7}, {"locked": 0.8} | never, {"locked": 0.7} | never))
    assert found.to_list() == pytest.approx([0.25, 0.5, 0.5, 0.0])


def test_the_page_says_what_its_table_says():
    folder = ROOT / "figures" / "relearning-rates"
    found = pd.read_csv(folder / "rates.csv")
    assert (folder / "README.md").read_text() == rates.page(found)
    assert set(found["learning_rate"]) == {0.0, *rates.RATES}
    assert set(found["model"]) == set(rates.models())


def test_most_of_a_hidden_skill_comes_back_at_the_study_s_rate_and_the_known_one_stays():
    found = pd.read_csv(ROOT / "figures" / "relearning-rates" / "rates.csv")
    study = studies.study("recovery")
    rate = study.relearning.learning_rate
    assert rates.back(found)[rate] > 0.75 > rates.back(found)[2e-5]
    known = found[found["model"] == "known"].set_index("learning_rate")["auroc"]
    assert known[rate] >= known[0.0]
    assert rates.SEED not in study.seeds
