"""Studies of several models on the same tasks: one file a figure (Figures 4 and 9 over models).

    models, agreement          what becomes of a task in each model; whether they rank tasks alike
    regressions, claims        what predicts forgetting over models and tasks; the paper's claims
    readme                     what was found, in sentences

Nothing here imports torch.
"""
