"""forgetlib: what do language models really forget?

A reproduction of "Unforgettable Generalization in Language Models" (Zhang, Choshen, Andreas,
COLM 2024, arXiv 2409.02228). Read the modules in this order:

    schema                                            the nouns, and what is checked about them
    prompts sources tasks labels assets store         data and results, without a model
    stats crosstask measures regression audit         from scores to statements
    kernels packing models scoring training probing   everything that touches torch
    experiment cluster plots claims                   runs and studies, figures, the paper's claims

Importing the package imports none of them, so that reading results never loads torch.
"""

__version__ = "0.1.0"
