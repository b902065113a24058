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

__version__ = "0.2.0"
