"""Is the gradient that the steps of a recorded loop took one of a loss with the run's symmetries?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nm_ode.charges.errors import LawError
from nm_ode.charges.summed import response_names
from nm_ode.results import RunInfo

LARGEST = 1e-3
"""Of ⟨g, ξ⟩ over ‖g‖ ‖ξ‖, over all charges together. Below lies what rounding in half precision and the ε of
normalisations leave (1e-4 and 1e-6 in small networks), above what clipping by value and added noise do (1e-2).
"""


def require_orthogonal(run: xr.Dataset, info: RunInfo) -> None:
    """Of a loop whose loss nobody but its user knows: does the recorded ⟨g, ξ⟩ vanish, as laws take for granted?

    The residuals' norm over all charges is held against ‖g‖ times that of the generators.

    Raises:
        LawError: not at each step at which the charges were recorded, or between them, where that was summed.
    """
    if info.grid.n_samples or "constraint_residual" not in run:
        return  # a problem's gradient was held against differences
    found = run["constraint_residual"]
    (dim, *_) = found.dims
    norms = run["grad_norm"].values[run[dim].values]
    scale = norms * np.linalg.norm(run["generator_norm"].values, axis=1)
    share = np.linalg.norm(found.values, axis=1) / np.where(scale > 0, scale, 1.0)
    if (share > LARGEST).any():
        worst = int(np.nanargmax(share))
        raise _not_orthogonal(f"that step {int(run[dim].values[worst])} took", float(share[worst]))
    if _residual_between(run):
        _require_orthogonal_between(run, info)


def unseen_between(run: xr.Dataset, info: RunInfo) -> bool:
    """Were gradients of a recorded loop taken between its records, of which nobody knows whether they vanish on ξ?"""
    some = "charge" in run and run["charge"].dims[0] != "step"
    return some and not info.grid.n_samples and not _residual_between(run)


def _residual_between(run: xr.Dataset) -> bool:
    return response_names("exact", residual=True)[0] in run


def _require_orthogonal_between(run: xr.Dataset, info: RunInfo) -> None:
    """What ⟨g, ξ⟩ did to the charges between two records, over 2 Σ η‖g‖ ‖ξ‖/(1−β), the most that it could."""
    response = run[response_names("exact", residual=True)[0]].values[:, 0]  # (records, C): of Q
    records = run["charge_step"].values
    paths = np.append(0.0, np.cumsum(run["lr"].values * run["grad_norm"].values))[records]
    sizes = np.linalg.norm(run["generator_norm"].values, axis=1)
    settled = 1 - float(info.hyperparameters.get("momentum", 0.0))
    for i in range(1, len(records)):
        most = 2 * (paths[i] - paths[i - 1]) * max(sizes[i - 1], sizes[i]) / settled
        share = float(np.linalg.norm(response[i])) / most if most > 0 else 0.0
        if not share <= LARGEST:
            raise _not_orthogonal(f"that steps {records[i - 1]} to {records[i] - 1} took", share)


def _not_orthogonal(of: str, share: float) -> LawError:
    return LawError(
        f"the gradient {of} is not orthogonal to the symmetries (⟨g, ξ⟩ is {share:.1g} of ‖g‖ ‖ξ‖), as where it is "
        "clipped by value or gets noise: take law 'exact' with_residual=True, which has the recorded ⟨g, ξ⟩"
    )
