"""The spectral density of what `Hessian(density=…)` recorded."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from nm_ode.errors import ArgumentError
from nm_ode.loss.probed import Matrix
from nm_ode.loss.spectral import smoothed
from nm_ode.required import require_dataset
from nm_ode.results import Variable, annotate

_DECLARED = {
    "density": Variable((), "spectral density, each eigenvalue a Gaussian; its integral is 1"),
    "density_error": Variable((), "standard error of the density over the random vectors"),
    "eigenvalue": Variable((), "eigenvalue"),
}


def spectral_density(
    run: xr.Dataset,
    *,
    matrix: Matrix = "hessian",
    at: ArrayLike | None = None,
    points: int = 400,
    width: float | None = None,
) -> xr.Dataset:
    """`density` and `density_error` along `hessian_step` (or `time`) and `eigenvalue`, all steps on one grid.
    See docs/theory.md §4.9.

    The standard error is that of the choice of the random vectors: 95 % of intervals of ± t standard errors hold the
    density, t being Student's with one degree less than there are vectors (12.7 for 2, 2.3 for 10). Structure finer
    than the distance of the quadratures' nodes is not resolved: with a small `width` it is the nodes that one sees.

    Args:
        run: of a run or a flow with `Hessian(density=…)`.
        matrix: whose density: "hessian" or "gauss_newton".
        at: eigenvalues to give it at; `points` from below the smallest node to above the largest if None.
        points: how many, where `at` is None.
        width: standard deviation of the Gaussian in the place of each eigenvalue; a hundredth of the nodes' range if
            None. The dataset has it as its attribute `width`.

    Returns:
        `density` and `density_error`, dimensions (`hessian_step` or `time`, `eigenvalue`).

    Raises:
        ArgumentError: no density was recorded.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10]), cross_entropy, digits(samples=64))
        >>> hessian = nm_ode.Hessian(every=4, top=0, density=2, density_steps=10)
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=5, observe=[hessian])
        >>> density = nm_ode.spectral_density(run, points=200).density
        >>> dict(density.sizes), density.integrate("eigenvalue").values.round(2)
        ({'hessian_step': 2, 'eigenvalue': 200}, array([1., 1.]))
    """
    require_dataset(run, "run", "nm_ode.train")
    names = f"{matrix}_node", f"{matrix}_weight"
    if any(name not in run.variables for name in names):
        raise ArgumentError(f"the run has no {names[0]!r}: record it with Hessian(density=…)")
    nodes, weights = (run[name] for name in names)
    along = nodes.dims[0]
    known = nodes.values[np.isfinite(nodes.values)]
    if not known.size:
        raise ArgumentError("the loss was not finite at any step at which the density was measured")
    low, high = float(known.min()), float(known.max())
    if width is None:
        width = (high - low) / 100 or max(abs(high), 1.0) / 100
    if at is None:
        at = np.linspace(low - 4 * width, high + 4 * width, points)
    each = [smoothed(*pair, at=at, width=width) for pair in zip(nodes.values, weights.values, strict=True)]
    made = xr.Dataset(
        {
            "density": ((along, "eigenvalue"), np.stack([one.value for one in each])),
            "density_error": ((along, "eigenvalue"), np.stack([one.standard_error for one in each])),
        },
        coords={"eigenvalue": each[0].at, **dict(nodes.coords.items())},
        attrs={"width": width},
    )
    return annotate(made, _DECLARED)
