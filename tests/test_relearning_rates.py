"""The rate at which skills are taught again: the rule, and that the study has what it chose."""

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


def test_the_rate_is_that_after_which_a_hidden_skill_is_nearest_to_the_known_one():
    low, middle, _ = rates.RATES
    assert rates.chosen(table({"locked": 0.7}, {"locked": 0.85}, {"locked": 0.8})) == middle
    # What the same labels teach anybody is no skill that was hidden.
    learned = {"locked": 0.88} | dict.fromkeys(rates.NEVER, 0.87)
    assert rates.chosen(table({"locked": 0.7}, {"locked": 0.85}, learned)) == middle
    # Where the known model loses, another's gain counts for nothing.
    assert rates.chosen(table({"locked": 0.7}, {"locked": 0.85, "known": 0.88}, {})) == low
    assert rates.chosen(table({"locked": 0.7}, {"locked": 0.85, "known": 0.895}, {})) == middle
    with pytest.raises(ValueError, match="loses at every rate"):
        rates.chosen(table(*[{"known": 0.8}] * 3))


def test_the_study_has_what_the_rule_chooses_and_the_page_says_it():
    folder = ROOT / "figures" / "relearning-rates"
    found = pd.read_csv(folder / "rates.csv")
    assert studies.study("recovery").relearning.learning_rate == rates.chosen(found)
    assert (folder / "README.md").read_text() == rates.page(found)
    assert rates.SEED not in studies.study("recovery").seeds
    assert set(found["learning_rate"]) == {0.0, *rates.RATES}
