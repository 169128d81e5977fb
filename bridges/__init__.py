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
    engine_names,
    get_engine,
    require_method,
)
from bridges.errors import NmOdeError
from bridges.registry import did_you_mean

__all__ = [
    "FINEST_RTOL",
    "Choice",
    "Engine",
    "EngineError",
    "NmOdeError",
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
