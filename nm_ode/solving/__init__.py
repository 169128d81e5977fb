"""solve: a flow, sample times and tolerances to an xarray dataset. The door to the bridges."""

from bridges import require_options
from nm_ode.solving.solve import SolveError, require_ready, solve

__all__ = ["SolveError", "require_options", "require_ready", "solve"]
