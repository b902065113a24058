"""Give the results of a setting: those that are stored, and what is missing computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetlib.errors import InputError
from forgetlib.implicit import results
from forgetlib.implicit.settings import Setting, named

if TYPE_CHECKING:
    import pandas as pd


def settings_of(
    name: str, seeds: Sequence[int] = (0, 1, 2), alphas: Sequence[float] = (0.5,)
) -> list[Setting]:
    """List the settings of a name, one for each seed and mixture weight.

    Raises InputError for a name, seed or weight that cannot be, and where there is none.
    """
    found = [named(name, seed=seed, alpha=alpha) for alpha in alphas for seed in seeds]
    if not found:
        raise InputError(
            f"settings of {name!r}",
            expected="at least one seed and one mixture weight",
            found=f"{len(seeds)} seeds, {len(alphas)} weights",
            do="Write seeds=[0], alphas=[0.5].",
        )
    return found


def obtain(
    name: str, seeds: Sequence[int] = (0, 1, 2), alphas: Sequence[float] = (0.5,)
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return errors and shifts of a setting, for these seeds and mixture weights.

    What is stored is read, without torch; what is not is computed and stored, which takes minutes
    each. Columns are those of `results.read`.
    """
    wanted = settings_of(name, seeds, alphas)
    for setting in wanted:
        if not results.is_stored(setting):
            from forgetlib.implicit.run import run

            run(setting)
    keys = [setting.key for setting in wanted]
    errors, shifts = results.read(name), results.read(name, "shifts")
    return (
        errors[errors["key"].isin(keys)].reset_index(drop=True),
        shifts[shifts["key"].isin(keys)].reset_index(drop=True),
    )


def controls(
    name: str, seeds: Sequence[int] = (0, 1, 2), alphas: Sequence[float] = (0.5,)
) -> pd.DataFrame:
    """Return the controls of a setting, as `obtain` does its errors and shifts.

    What else would explain a shift: see `evaluate.CONTROL_COLUMNS`.
    """
    wanted = settings_of(name, seeds, alphas)
    for setting in wanted:
        if not results.path_of(setting, "controls").exists():
            from forgetlib.implicit.run import run_control

            run_control(setting)
    found = results.read(name, "controls")
    return found[found["key"].isin([setting.key for setting in wanted])].reset_index(drop=True)
