"""From stored scores to tables and pictures: one file a figure of the paper, with table and draw.

    fig1 to fig9, audit        table(results) makes the numbers, draw(table) the picture; where
                               there is more: <what>_table and draw_<what>
    claims, claim_tests        the paper's claims and the rule that judges them; the test of each
    claims_figure, published   their picture; what the paper reports
    intervals, join            bootstrap and Student's t; the runs that belong together
    crosstask, crossanalysis   matrices of forget ratios; what is asked of them
    regression, mixedmodel,    what predicts forgetting, over tasks and over examples; which rows
    design                     and terms a regression has
    measures, verdicts         what a model knows and says of a task; what became of a skill
    dose, generalisation,      methods to forget: how far, what else is lost, at what price, at
    price, collateral, reach,  equal harm elsewhere, the numbers of these, and what another form of
    forms                      a question brings back
    ladder_figure, relearning, the ladder: what brings a skill back, what little training does,
    ladders, rungs, rule       its models in a study, its measures, and its verdicts tried on
                               models of known truth
    scale, scale_<what>        several models on the same tasks; Figures 4 and 9 over models
    implicit_<what>            in-context regression, pattern or instruction
    findings, <what>_readme,   sentences from tables; a study's README; the HTML page
    readme, page
    drawing, <what>_drawing,   which pictures a study has; of one that is under way
    under_way
    explore, notebook, report  what notebooks and `compare` show
    style, matrix              what pictures share

Nothing here imports torch.
"""
