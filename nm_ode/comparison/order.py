"""Observed order of a discretisation error: the slope of log error against log learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nm_ode.arguments import as_tensor
from nm_ode.errors import ArgumentError


@dataclass(frozen=True)
class ObservedOrder:
    """Least-squares slope and its standard error (NaN from two points, which leave no residual)."""

    order: float
    standard_error: float


def observed_order(lrs: Sequence[float], errors: Sequence[float]) -> ObservedOrder:
    """Slope of log e against log η over several learning rates at the same final time (docs/theory.md §5).

    Args:
        lrs: learning rates η, at least two that differ.
        errors: e of each, positive.

    Returns:
        An `ObservedOrder`: `order` and its `standard_error`.

    Raises:
        ArgumentError: fewer than two learning rates, or values that are not positive.

    Example:
        >>> import nm_ode
        >>> observed = nm_ode.observed_order([0.4, 0.2, 0.1], [1.6e-2, 4.1e-3, 1.0e-3])
        >>> round(observed.order, 2), round(observed.standard_error, 2)
        (2.0, 0.02)
    """
    lr, error = (
        as_tensor(given, name).detach().to_dense().cpu().numpy()
        for given, name in ((lrs, "learning rates"), (errors, "errors"))
    )
    if np.iscomplexobj(lr) or np.iscomplexobj(error):
        raise ArgumentError("an order needs real learning rates and errors")
    lr, error = lr.astype(float), error.astype(float)
    if lr.ndim != 1 or lr.shape != error.shape or lr.size < 2:
        raise ArgumentError("an order needs at least two learning rates and as many errors")
    if not ((lr > 0) & (error > 0) & np.isfinite(lr) & np.isfinite(error)).all():
        raise ArgumentError("an order needs positive learning rates and errors")
    if (lr == lr[0]).all():
        raise ArgumentError("an order needs learning rates that differ")
    from scipy.stats import linregress  # a fifth of the time that the command takes to start

    fit = linregress(np.log(lr), np.log(error))
    return ObservedOrder(float(fit.slope), float(fit.stderr) if lr.size > 2 else float("nan"))
