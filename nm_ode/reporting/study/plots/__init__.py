"""Plots of a study of many members: functions of its tree that return matplotlib's Axes or Figure.

A new plot is a file with such a function and a `Plot`, and a line in STUDY_PLOTS (or `STUDY_PLOTS.register`).
"""

from nm_ode.registry import Registry
from nm_ode.reporting.plots.base import Plot

STUDY_PLOTS: Registry[Plot] = Registry(
    "plot of a study of many members",
    {
        "phase": "nm_ode.reporting.study.plots.phase:PHASE",
        "charge_grid": "nm_ode.reporting.plots.paper:CHARGE_GRID",
        "over_axes": "nm_ode.reporting.study.plots.multiples:OVER_AXES",
        "errors_over_lr": "nm_ode.reporting.study.plots.orders:ERRORS",
        "orders_over_axis": "nm_ode.reporting.study.plots.orders:ORDERS",
        "losses": "nm_ode.reporting.study.plots.losses:LOSSES",
    },
)
"""In the order of the page.

Example:
    >>> from nm_ode.reporting.study.plots import STUDY_PLOTS
    >>> list(STUDY_PLOTS)
    ['phase', 'charge_grid', 'over_axes', 'errors_over_lr', 'orders_over_axis', 'losses']
"""

__all__ = ["STUDY_PLOTS"]
