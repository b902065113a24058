"""What the command `forgetlib` does with a study of implicit inference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetlib.errors import InputError

if TYPE_CHECKING:
    from forgetlib.implicit.study import ImplicitStudy


def run(
    of: ImplicitStudy,
    sections: Sequence[str],
    *,
    ray: str | None = None,
    keep_weights: bool = False,
) -> int:
    """Compute what is missing, on this machine, and say how much there is now.

    Raises InputError where a cluster is asked for, or weights: these are for other studies.
    """
    from forgetlib.implicit import study

    if ray or keep_weights:
        raise InputError(
            f"run of study {of.name!r}",
            expected="neither --ray, nor RAY_ADDRESS, nor --keep-weights",
            found=f"--ray {ray}" if ray else "--keep-weights",
            do="Leave it out: this study is computed on this machine, and keeps its checkpoints.",
        )
    for section in sections:
        of.jobs(section)  # before hours of work: is there such a section?
    computed = sum(study.run(of, section) for section in sections or (None,))
    now = study.estimate(of)
    print(
        f"{of.name}: {now['jobs_stored']} jobs stored, {computed} of them computed just now; "
        f"{now['hours_spent']:.2f} hours of work where they were computed"
    )
    return 0


def cost(of: ImplicitStudy, sections: Sequence[str], *, as_json: bool) -> int:
    """Print what is missing, and what it would take by what stored jobs took."""
    from forgetlib.implicit import study

    found = [study.estimate(of, section) for section in sections or (None,)]
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    for each in found:
        print(f"{of.name}: {of.description}")
        if each["jobs_missing"]:
            hours = each["hours_missing"]
            by = f"{hours:.2f} hours by what others took" if hours is not None else "hours unknown"
            print(f"{each['jobs_missing']} jobs are missing ({by})")
        else:
            print("nothing is missing")
        if each["jobs_stored"]:
            print(f"{each['jobs_stored']} jobs are stored; they took {each['hours_spent']} hours")
    return 0


def stored(of: ImplicitStudy, sections: Sequence[str]) -> int:
    """Return 0 where nothing is missing, 1 where something is."""
    from forgetlib.implicit import study

    jobs = [job for section in sections or (None,) for job in of.jobs(section)]
    return 0 if all(map(study.is_stored, jobs)) else 1
