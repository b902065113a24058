"""Studies of methods to forget: one file a figure, and what their tables are made of.

    dose                       how far each method goes until its forgetting set is forgotten
    generalisation, price      what else is lost, and at what price to other tasks
    collateral, forms          what is left at equal harm; what another form of a question shows
    reach                      the numbers of these
    ladder_figure, relearning  what brings a skill back; what a few labels do
    ladders, rungs, rule       its models in a study, its measures, and its verdicts tried on models
                               of known truth
    sign, inside               where a skill was turned round; what hidden states tell
    drawing, readme            which pictures a study has; what was found, in sentences

Nothing here imports torch.
"""
