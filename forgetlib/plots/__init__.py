"""Tables to figures: one style, every number from the table, saved as PDF, PNG and CSV.

The rooms: `tasks` (Fig. 1, 2 and 7: tasks forgotten by their own labels; Figure 2's control;
shortcuts), `cross` (Fig. 3, 8 and 9: by other tasks' labels), `measures` (Fig. 4, 5 and 6:
predictors, order, probes), `claims`, and `common`, what they share. Call their functions from here:
`plots.sizes(table)`.
"""

from forgetlib.plots.claims import claims
from forgetlib.plots.common import save, style
from forgetlib.plots.cross import compare, cross_task, cross_task_summary, models
from forgetlib.plots.measures import (
    example_level,
    order,
    predictors,
    probe_layers,
    probes,
    regression,
)
from forgetlib.plots.tasks import control, example, forget_gap, shortcuts, sizes

__all__ = [
    "claims",
    "compare",
    "control",
    "cross_task",
    "cross_task_summary",
    "example",
    "example_level",
    "forget_gap",
    "models",
    "order",
    "predictors",
    "probe_layers",
    "probes",
    "regression",
    "save",
    "shortcuts",
    "sizes",
    "style",
]
