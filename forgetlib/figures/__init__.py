"""From stored scores to tables and pictures: one file a figure of the paper, with table and draw.

    fig1 to fig9, audit        table(results) makes the numbers, draw(table) the picture; where
                               there is more: <what>_table and draw_<what>
    claims, claim_tests        the paper's claims and the rule that judges them; the test of each
    claims_figure, published   their picture; what the paper reports
    intervals, join            bootstrap and Student's t; the runs that belong together
    crosstask, crossanalysis   matrices of forget ratios; what is asked of them
    regression, mixedmodel,    what predicts forgetting, over tasks and over examples; which rows
    design                     and terms a regression has
    style, matrix              what pictures share

Nothing here imports torch.
"""
