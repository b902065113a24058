"""From stored scores to tables and pictures: one file a figure of the paper, with table and draw.

    intervals, join            bootstrap and Student's t; the runs that belong together
    crosstask, regression,     analyses that several figures share
    mixedmodel, audit
    fig1 to fig9, audit,       table(results) makes the numbers, draw(table) the picture
    claims_figure
    claims, published          the paper's claims as tests; what it reports
    style, matrix              what pictures share

Nothing here imports torch.
"""
