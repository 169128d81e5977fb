"""Is the gradient that the steps of a recorded loop took one of a loss with the run's symmetries?"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.charges.errors import LawError
from nm_ode.charges.summed import response_names
from nm_ode.results import RunInfo

Array = NDArray[np.float64]

LARGEST = 1e-3
"""Of ⟨g, ξ⟩ over ‖g‖ ‖ξ‖, over a symmetry's charges together. Below lies what rounding in half precision and the ε of
normalisations leave (1e-4 and 1e-6 in small networks), above what clipping by value and added noise do (1e-2).
"""


def require_orthogonal(run: xr.Dataset, info: RunInfo) -> None:
    """Of a loop whose loss nobody but its user knows: does the recorded ⟨g, ξ⟩ vanish, as laws take for granted?

    Raises:
        LawError: not of every symmetry.
    """
    for why in not_orthogonal(run, info).values():
        raise LawError(why)


def not_orthogonal(run: xr.Dataset, info: RunInfo) -> dict[str, str]:
    """Symmetries of a recorded loop whose ⟨g, ξ⟩ does not vanish, and how that was seen.

    The residuals' norm over a symmetry's charges is held against ‖g‖ times that of their generators: at each step at
    which the charges were recorded, and between them, where that was summed.
    """
    if info.grid.n_samples or "constraint_residual" not in run:
        return {}  # a problem's gradient was held against differences
    (dim, *_) = run["constraint_residual"].dims
    norms, steps = run["grad_norm"].values[run[dim].values], run[dim].values
    residuals, generators = run["constraint_residual"].values, run["generator_norm"].values
    response = run[response_names("exact", residual=True)[0]].values[:, 0] if _residual_between(run) else None
    paths = np.append(0.0, np.cumsum(run["lr"].values * run["grad_norm"].values))
    settled = 1 - float(info.hyperparameters.get("momentum", 0.0))
    symmetry_of, found = run["charge_symmetry"].values, {}
    for name in dict.fromkeys(symmetry_of.tolist()):
        here = np.flatnonzero(symmetry_of == name)
        sizes = np.linalg.norm(generators[:, here], axis=1)
        share = _shares(np.linalg.norm(residuals[:, here], axis=1), norms * sizes)
        if (share > LARGEST).any():
            worst = int(np.nanargmax(share))
            found[name] = _sentence(f"that step {int(steps[worst])} took", name, float(share[worst]))
        elif response is not None:
            # What ⟨g, ξ⟩ did to the charges between two records, over 2 Σ η‖g‖ ‖ξ‖/(1−β), the most that it could.
            most = 2 * np.diff(paths[steps]) * np.maximum(sizes[:-1], sizes[1:]) / settled
            share = _shares(np.linalg.norm(response[1:, here], axis=1), most)
            beyond = np.flatnonzero(~(share <= LARGEST))
            if beyond.size:
                i = int(beyond[0])
                between = f"that steps {steps[i]} to {steps[i + 1] - 1} took"
                found[name] = _sentence(between, name, float(share[i]))
    return found


def unseen_between(run: xr.Dataset, info: RunInfo) -> bool:
    """Were gradients of a recorded loop taken between its records, of which nobody knows whether they vanish on ξ?"""
    some = "charge" in run and run["charge"].dims[0] != "step"
    return some and not info.grid.n_samples and not _residual_between(run)


def _residual_between(run: xr.Dataset) -> bool:
    return response_names("exact", residual=True)[0] in run


def _shares(values: Array, scale: Array) -> Array:
    """Their ratio; 0 where there is nothing to hold them against."""
    return np.asarray(np.divide(values, scale, out=np.zeros_like(values), where=scale > 0))


def _sentence(of: str, symmetry: str, share: float) -> str:
    return (
        f"the gradient {of} is not orthogonal to {symmetry} (⟨g, ξ⟩ is {share:.1g} of ‖g‖ ‖ξ‖), as where it is clipped "
        "by value or gets noise: take law 'exact' with_residual=True, which has the recorded ⟨g, ξ⟩"
    )
