"""Is the gradient that the steps of a recorded loop took one of a loss with the run's symmetries?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nm_ode.charges.errors import LawError
from nm_ode.results import RunInfo

LARGEST = 1e-3
"""Of ⟨g, ξ⟩ over ‖g‖ ‖ξ‖, over all charges together. Below lies what rounding in half precision and the ε of
normalisations leave (1e-4 and 1e-6 in small networks), above what clipping by value and added noise do (1e-2).
"""


def require_orthogonal(run: xr.Dataset, info: RunInfo) -> None:
    """Of a loop whose loss nobody but its user knows: does the recorded ⟨g, ξ⟩ vanish, as laws take for granted?

    The residuals' norm over all charges is held against ‖g‖ times that of the generators.

    Raises:
        LawError: not at each step at which the charges were recorded.
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
        raise LawError(
            f"the gradient that step {int(run[dim].values[worst])} took is not orthogonal to the symmetries (⟨g, ξ⟩ is "
            f"{share[worst]:.1g} of ‖g‖ ‖ξ‖), as where it is clipped by value or gets noise: take law 'exact' "
            "with_residual=True, which has the recorded ⟨g, ξ⟩"
        )
