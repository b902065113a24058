"""From stored scores to tables and pictures: one file a figure of the paper, with table and draw.

    fig1 to fig9, audit        table(results) makes the numbers, draw(table) the picture; where
                               there is more: <what>_table and draw_<what>
    claims, claim_tests        the paper's claims, and the test of each
    statements, thresholds,    the rule that judges claims; what each is held to; what a study
    power                      could decide
    claims_figure, published   their picture; what the paper reports
    intervals, bootstrap       intervals over tasks; over questions and seeds
    join                       the runs that belong together
    crosstask, effects         matrices of forget ratios; what labels did in each pair
    crossanalysis, agreement   what is asked of matrices; whether two rank tasks alike
    regression, mixedmodel,    what predicts forgetting, over tasks and over examples; which rows
    design                     and terms a regression has
    measures, verdicts         what a model knows and says of a task; what became of a skill
    findings, readme           sentences from tables; a study's README
    drawing, under_way         which pictures a study has; of one that is under way
    notebook, report           what notebooks and `compare` show
    dumbbell                   models that were just trained, phase by phase
    beside                     names beside the points of a panel
    style, matrix, rows        what pictures share
    names, numbers             how tasks, methods and numbers are written

A folder each: methods, scale and implicit for studies of their kind, page for the HTML page,
explore for the notebook of that name. Nothing here imports torch.
"""
