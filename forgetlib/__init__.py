"""forgetlib: what do language models really forget?

A reproduction of "Unforgettable Generalization in Language Models" (Zhang, Choshen, Andreas,
COLM 2024, arXiv 2409.02228). Read the modules in this order:

    schema                                            the nouns, and what is checked about them
    prompts sources tasks labels catalogue assets     data, and the files of models
    store content                                     results, and what they were computed from
    stats crosstask measures regression audit         from scores to statements
    kernels packing likelihood models                 everything that touches torch
    scoring training probing
    experiment cost cluster plots claims              runs and studies, figures, the paper's claims

Importing the package imports none of them, so that reading results never loads torch.
"""

__version__ = "0.1.0"
