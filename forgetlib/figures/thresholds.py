"""State what each claim is held to: thresholds, and what is supposed where the claim is true.

The paper gives neither: these are ours. They were committed before a study was computed that they
judge; where they were not, its table of claims says "post hoc" (`Statement.stated`).
"""

from dataclasses import replace

from forgetlib.figures.statements import ABOVE, BELOW, RANK, SHARE, WITHIN, Statement

NOW = "2026-11-28"  # the day on which statements about differences from true labels were made
# A gap of 0.1 is a fifth of the way from chance to perfect: not the noise of a test set.
LARGE_GAP = 0.1
LEAST_LANGUAGE = 5  # tasks that were learned: with fewer, one of them is the family
# "often", "many": more than one task in four; supposed: one in two.
OFTEN = Statement(ABOVE, 0.25, 0.5, SHARE)
ANY = Statement(ABOVE, 0.0, 0.1)  # some difference: supposed is a tenth of accuracy, or of a ratio
MOSTLY = Statement(ABOVE, 0.5, 0.75, stated=NOW, axis=SHARE)  # over half of the variance
STRONGER = Statement(ABOVE, 0.0, 0.05, stated=NOW)  # of AUROC
# Over tasks, less than a tenth of the ranks' variance.
NO_CORRELATION = Statement(WITHIN, 0.3, 0.0, RANK, stated=NOW)
NEGATIVE = Statement(BELOW, 0.0, -0.5, RANK, stated=NOW)
# Rank-biserial, of examples: of a lost question and one that is not, the lost one has the higher
# value with a chance between 0.4 and 0.6, where 0.5 is a coin.
NO_EXAMPLE_EFFECT = Statement(WITHIN, 0.2, 0.0, stated="2026-11-27", axis=RANK)
NO_SQUARE = Statement(BELOW, 0.04, 0.0, stated="2026-11-27", axis=RANK)  # its square
# A mean of rank correlations within tasks; supposed of exact steps: see `fig5.share_seen`.
OPPOSITE = Statement(BELOW, 0.0, -0.3, axis=RANK)
PROBE_LOSS = Statement(ABOVE, -0.25, 0.0)  # a quarter of the height above chance lost at most
SAME_PATTERN = Statement(ABOVE, 0.5, 0.8, RANK, stated=NOW)  # usually called a large correlation
OFTEN_BETTER = replace(OFTEN, stated=NOW)


def lacks_families(n_language: int, n_resisting: int) -> str:
    """Say what a study lacks to compare families, of so many tasks learned; "" where nothing."""
    if n_language < LEAST_LANGUAGE:
        return f"{LEAST_LANGUAGE} language tasks learned ({n_language} here)"
    return "" if n_resisting > 1 else "two commonsense or science tasks learned"
