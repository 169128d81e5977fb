"""solve: a flow, sample times and tolerances to an xarray dataset. The door to the bridges."""

from bridges import require_options, require_ready
from nm_ode.solving.ensemble import sgd_ensemble, solve_ensemble
from nm_ode.solving.errors import SolveError
from nm_ode.solving.solve import solve

__all__ = ["SolveError", "require_options", "require_ready", "sgd_ensemble", "solve", "solve_ensemble"]
