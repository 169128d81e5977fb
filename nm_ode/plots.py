"""Plots for a notebook or a paper: functions of a study's tree or a run that draw in your axes, or in new ones.

A function of one panel takes `ax` and returns the Axes; one of several returns an array of them, and takes `axes`
where their number is known beforehand. A run that is not in a study's tree is put into one, with what was solved beside
it, by `as_tree(run, solution)`. Nothing of matplotlib's own state is used or changed; it is imported at the first plot.
For panels of your own beside these, `plt.style.use(nm_ode.plots.STYLE)` sets fonts, lines and colours alike.

Example:
    >>> from torch.nn.functional import mse_loss
    >>> import nm_ode
    >>> from nm_ode.data import diabetes
    >>> from nm_ode.models import linear
    >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
    >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=10)
    >>> tree = nm_ode.plots.as_tree(run, nm_ode.solve(nm_ode.GradientFlow(problem), run))
    >>> ax = nm_ode.plots.loss(tree)
    >>> ax.figure.savefig("loss.pdf")
    >>> [line.get_label() for line in ax.lines]
    ['discrete run', 'gradient flow']
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nm_ode.reporting.plots.accuracy import accuracy
    from nm_ode.reporting.plots.constraints import constraint_residuals
    from nm_ode.reporting.plots.dynamics import parameters_and_channels
    from nm_ode.reporting.plots.given import as_tree
    from nm_ode.reporting.plots.modified_loss import modified_loss
    from nm_ode.reporting.plots.paper import charge_grid
    from nm_ode.reporting.plots.phase import phase_portrait
    from nm_ode.reporting.plots.public import (
        batch_loss,
        error,
        layer_errors,
        layer_numbers,
        loss,
        numbers,
        observed_numbers,
        orders_in_lr,
        stability,
    )
    from nm_ode.reporting.plots.public_charges import (
        charges_by_kind,
        charges_by_symmetry,
    )
    from nm_ode.reporting.plots.public_spectra import (
        averaged_loss,
        critical_eigenvalues,
        eigenvalues,
        errors_to_average,
        oscillation_variance,
        spectral_densities,
    )
    from nm_ode.reporting.plots.public_study import (
        errors_over_lr,
        member_losses,
        over_axes,
        phase_diagram,
    )
    from nm_ode.reporting.plots.two_parameters import two_parameters
    from nm_ode.reporting.style import STYLE

_PUBLIC = "nm_ode.reporting.plots.public"
_CHARGES, _SPECTRA, _STUDY = (f"{_PUBLIC}_{what}" for what in ("charges", "spectra", "study"))
_HOMES = {
    "STYLE": "nm_ode.reporting.style",
    "accuracy": "nm_ode.reporting.plots.accuracy",
    "as_tree": "nm_ode.reporting.plots.given",
    "averaged_loss": _SPECTRA,
    "batch_loss": _PUBLIC,
    "charge_grid": "nm_ode.reporting.plots.paper",
    "charges_by_kind": _CHARGES,
    "charges_by_symmetry": _CHARGES,
    "constraint_residuals": "nm_ode.reporting.plots.constraints",
    "critical_eigenvalues": _SPECTRA,
    "eigenvalues": _SPECTRA,
    "error": _PUBLIC,
    "errors_over_lr": _STUDY,
    "errors_to_average": _SPECTRA,
    "layer_errors": _PUBLIC,
    "layer_numbers": _PUBLIC,
    "loss": _PUBLIC,
    "member_losses": _STUDY,
    "modified_loss": "nm_ode.reporting.plots.modified_loss",
    "numbers": _PUBLIC,
    "observed_numbers": _PUBLIC,
    "orders_in_lr": _PUBLIC,
    "oscillation_variance": _SPECTRA,
    "over_axes": _STUDY,
    "parameters_and_channels": "nm_ode.reporting.plots.dynamics",
    "phase_diagram": _STUDY,
    "phase_portrait": "nm_ode.reporting.plots.phase",
    "spectral_densities": _SPECTRA,
    "stability": _PUBLIC,
    "two_parameters": "nm_ode.reporting.plots.two_parameters",
}

__all__ = [
    "STYLE",
    "accuracy",
    "as_tree",
    "averaged_loss",
    "batch_loss",
    "charge_grid",
    "charges_by_kind",
    "charges_by_symmetry",
    "constraint_residuals",
    "critical_eigenvalues",
    "eigenvalues",
    "error",
    "errors_over_lr",
    "errors_to_average",
    "layer_errors",
    "layer_numbers",
    "loss",
    "member_losses",
    "modified_loss",
    "numbers",
    "observed_numbers",
    "orders_in_lr",
    "oscillation_variance",
    "over_axes",
    "parameters_and_channels",
    "phase_diagram",
    "phase_portrait",
    "spectral_densities",
    "stability",
    "two_parameters",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module 'nm_ode.plots' has no attribute {name!r}"
        raise AttributeError(
            message, name=name, obj=sys.modules[__name__]
        )  # so that Python names one that is near
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
