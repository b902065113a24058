"""forgetlib: what do language models really forget?

A reproduction of "Unforgettable Generalization in Language Models" (Zhang, Choshen, Andreas,
COLM 2024, arXiv 2409.02228). Where to look:

    data         questions, tasks, which are trained on and which tested, how they are shown
    engine       speed: kernels, packed sequences, several processes
    models       loading a model, checking it, one pass through it
    measuring    what is asked of a checkpoint: scores, probes
    forgetting   what is done to weights: methods, the training loop
    runs         checkpoints and measurements: what decides them, how they are done and stored
    implicit     in-context regression: a world in which it is known what forgetting is
    studies      the named studies, and one's own
    figures      one file a figure: table makes the numbers, draw the picture
    compare      what is left of a skill in one model that another had, for any two

Imports go upward in this list only. Importing the package imports none of them, so that reading
results never loads torch.
"""

import sys
from importlib.abc import MetaPathFinder

__version__ = "0.2.0"

# Modules of version 0.1, and where to look now.
MOVED = {
    "assets": "data.assets",
    "audit": "figures.audit",
    "catalogue": "models.catalogue",
    "claims": "figures.claims and figures.claim_tests",
    "cluster": "runs.cluster",
    "content": "runs.content",
    "cost": "runs.cost",
    "crosstask": "figures.crosstask and figures.crossanalysis",
    "experiment": "studies (study, load_results, run) and runs",
    "kernels": "engine.kernels",
    "labels": "forgetting.labels",
    "likelihood": "models.likelihood",
    "measures": "figures.fig1 to figures.fig6",
    "packing": "engine.packing",
    "parallel": "engine.parallel",
    "plots": "figures (fig1 to fig9, style)",
    "probing": "measuring.probing",
    "prompts": "data.prompts",
    "regression": "figures.regression, figures.design and figures.mixedmodel",
    "schema": "data.base, runs.specs, measuring.base, errors",
    "scoring": "measuring.scoring",
    "sources": "data.sources",
    "stats": "metrics and figures.intervals",
    "store": "runs.store",
    "tasks": "data.tasks and data.splits",
    "training": "forgetting.loop",
}


class _Moved(MetaPathFinder):
    """Answers an old module's name with where to look now."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        package, _, module = name.partition(".")
        if package == "forgetlib" and module in MOVED:
            raise ImportError(
                f"{name}: expected a module of forgetlib {__version__}, found a name of version "
                f"0.1. Look in forgetlib.{MOVED[module]}.",
                name=name,
            )


sys.meta_path.append(_Moved())
