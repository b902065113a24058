"""The command of in-context regression: compute, and see whether the gate is met.

python -m forgetlib.implicit run implicit --seed 0 --alpha 0.5
python -m forgetlib.implicit gate implicit
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from forgetlib.errors import ForgetlibError
from forgetlib.implicit import evaluate, results, settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="forgetlib.implicit", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = commands.add_parser("run", help="train, ask and store; goes on where it was stopped")
    command.add_argument("setting", help=", ".join(settings.NAMED))
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--alpha", type=float, default=0.5)
    command = commands.add_parser("gate", help="compare pre-trained models with Bayes")
    command.add_argument("setting", help=", ".join(settings.NAMED))
    given = parser.parse_args(arguments)
    try:
        if given.command == "run":
            from forgetlib.implicit.run import run

            chosen = settings.named(given.setting, seed=given.seed, alpha=given.alpha)
            run(chosen)
            print(f"stored: {results.path_of(chosen)}")
        else:
            settings.named(given.setting)
            print(evaluate.gate(results.read(given.setting)).to_string(index=False))
    except ForgetlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
