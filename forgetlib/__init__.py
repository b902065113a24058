"""forgetlib: what do language models really forget?

A reproduction of "Unforgettable Generalization in Language Models" (Zhang, Choshen, Andreas,
COLM 2024, arXiv 2409.02228). Read the modules in this order:

    schema                             the nouns, and what is checked about them
    tasks  labels  assets stats store  data and results, without a model
    models scoring training            everything that touches torch
    experiment plots                   runs, studies, figures

Importing the package imports none of them, so that reading results never loads torch.
"""

__version__ = "0.1.0"
