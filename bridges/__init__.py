"""ODE engines behind one door. Knows arrays and callables; knows nothing of torch, models or xarray."""

from bridges.choosing import Choice, choose, choose_for_diffeq, choose_for_jumps
from bridges.engine import (
    FINEST_RTOL,
    Engine,
    EngineError,
    OdeProblem,
    OdeSolution,
    Statistics,
    UnknownEngineError,
    UnknownMethodError,
    did_you_mean,
    engine_names,
    get_engine,
    require_method,
)

__all__ = [
    "FINEST_RTOL",
    "Choice",
    "Engine",
    "EngineError",
    "OdeProblem",
    "OdeSolution",
    "Statistics",
    "UnknownEngineError",
    "UnknownMethodError",
    "choose",
    "choose_for_diffeq",
    "choose_for_jumps",
    "did_you_mean",
    "engine_names",
    "get_engine",
    "require_method",
]
