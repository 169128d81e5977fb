"""solve: a flow, sample times and tolerances to an xarray dataset. The only package that calls the bridges."""

from bridges import require_options, require_ready
from nm_ode.solving.ensemble import solve_ensemble
from nm_ode.solving.errors import SolveError
from nm_ode.solving.solve import solve

__all__ = ["SolveError", "require_options", "require_ready", "solve", "solve_ensemble"]
