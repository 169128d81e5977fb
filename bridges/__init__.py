"""ODE engines behind one door. Knows arrays and callables; knows nothing of torch, models or xarray."""

from bridges.choosing import Choice, choose
from bridges.engine import (
    Engine,
    EngineError,
    OdeProblem,
    OdeSolution,
    Statistics,
    UnknownEngineError,
    UnknownMethodError,
    engine_names,
    get_engine,
)

__all__ = [
    "Choice",
    "Engine",
    "EngineError",
    "OdeProblem",
    "OdeSolution",
    "Statistics",
    "UnknownEngineError",
    "UnknownMethodError",
    "choose",
    "engine_names",
    "get_engine",
]
