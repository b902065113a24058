"""Studies of implicit inference (arXiv 2309.10105): one file a figure, and its claims.

    bayes, tuning, shift,      a small world in which Bayes' rule tells what is best: what models
    conjugate, weights         know, lose, and show again where prompts look otherwise
    pattern                    a real model that is tuned from a pattern to an instruction
    stored, measures, lines    reading results, measuring them with intervals, what pictures share
    claims, verdicts           what is claimed, and what this study says of it
    drawing, readme            which pictures a study has; what was found, in sentences

Nothing here imports torch.
"""
