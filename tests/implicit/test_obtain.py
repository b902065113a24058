"""Stored results are read without computing; what cannot be asked for is told."""

from dataclasses import replace

import pytest

from forgetlib.errors import InputError
from forgetlib.implicit import obtain, results, run, settings
from forgetlib.implicit.settings import named

BRIEF = replace(
    named("implicit-tiny"), name="brief", steps=4, tuning_steps=2, alone_steps=2, n_prompts=16
)


@pytest.fixture
def brief(project, monkeypatch):
    monkeypatch.setitem(settings.NAMED, "brief", BRIEF)


def test_what_is_missing_is_computed_once_and_what_is_stored_is_read(brief, monkeypatch):
    errors, shifts = obtain.obtain("brief", [0, 1], [0.5])
    assert set(errors.seed) == set(shifts.seed) == {0, 1}
    monkeypatch.setattr(run, "run", None)  # would fail if it were called
    again, _ = obtain.obtain("brief", [1], [0.5])
    assert set(again.seed) == {1}
    assert len(again) == len(errors) / 2


def test_other_settings_that_are_stored_are_left_out(brief, monkeypatch):
    obtain.obtain("brief", [0], [0.5])
    run.run(replace(BRIEF, batch=8), quiet=True)
    assert len(set(results.read("brief").key)) == 2
    errors, _ = obtain.obtain("brief", [0], [0.5])
    assert set(errors.key) == {BRIEF.key}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("implict",), "Did you mean 'implicit'"),
        (("implicit", []), "at least one seed and one mixture weight"),
        (("implicit", [0], []), "at least one seed and one mixture weight"),
        (("implicit", [-1]), "Setting.seed"),
        (("implicit", [0], [1.5]), "Setting.alpha"),
    ],
)
def test_what_cannot_be_asked_for_is_told(asked, says):
    with pytest.raises(InputError, match=says):
        obtain.settings_of(*asked)
