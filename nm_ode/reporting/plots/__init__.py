"""Plots of a study: functions of its tree that return matplotlib's Axes or Figure.

A new plot is a file with such a function and a `Plot`, and a line in PLOTS (or `PLOTS.register`); the report then shows
it wherever its `applies` is true.
"""

from nm_ode.registry import Registry
from nm_ode.reporting.plots.base import Plot

PLOTS: Registry[Plot] = Registry(
    "plot",
    {
        "loss": "nm_ode.reporting.plots.flows:LOSS",
        "modified_loss": "nm_ode.reporting.plots.modified_loss:MODIFIED_LOSS",
        "accuracy": "nm_ode.reporting.plots.accuracy:ACCURACY_OF_STUDY",
        "error": "nm_ode.reporting.plots.flows:ERROR",
        "layers": "nm_ode.reporting.plots.layers:LAYERS",
        "orders": "nm_ode.reporting.plots.orders:ORDERS",
        "sharpness": "nm_ode.reporting.plots.sharpness:SHARPNESS",
        "oscillation": "nm_ode.reporting.plots.oscillation:OSCILLATION",
        "critical_eigenvalues": "nm_ode.reporting.plots.edge:CRITICAL",
        "oscillation_variance": "nm_ode.reporting.plots.edge:VARIANCE",
        "averaged_loss": "nm_ode.reporting.plots.edge:AVERAGE_LOSS",
        "errors_to_average": "nm_ode.reporting.plots.edge:DISTANCE",
        "observed": "nm_ode.reporting.plots.observed:OBSERVED",
        "constraints": "nm_ode.reporting.plots.constraints:OF_STUDY",
        "charges_by_kind": "nm_ode.reporting.plots.charges:BY_KIND",
        "charges_by_symmetry": "nm_ode.reporting.plots.charges:BY_SYMMETRY",
        "parameters_and_channels": "nm_ode.reporting.plots.dynamics:PARAMETERS_AND_CHANNELS",
        "phase_portrait": "nm_ode.reporting.plots.phase:PHASE",
    },
)
"""In the order of the report.

Example:
    >>> from nm_ode.reporting import PLOTS
    >>> list(PLOTS)[:4]
    ['loss', 'modified_loss', 'accuracy', 'error']
"""

RUN_PLOTS: Registry[Plot] = Registry(
    "plot of a recorded run",
    {
        "loss": "nm_ode.reporting.plots.recorded:LOSS",
        "accuracy": "nm_ode.reporting.plots.accuracy:ACCURACY_OF_RUN",
        "numbers": "nm_ode.reporting.plots.recorded:NUMBERS",
        "constraints": "nm_ode.reporting.plots.constraints:OF_RUN",
        "layers": "nm_ode.reporting.plots.recorded:LAYERS",
        "eigenvalues": "nm_ode.reporting.plots.spectra:EIGENVALUES",
        "densities": "nm_ode.reporting.plots.spectra:DENSITIES",
    },
)
"""Those that the report of a recorded run shows beside the charges' of PLOTS, in its order."""

__all__ = ["PLOTS", "RUN_PLOTS", "Plot"]
