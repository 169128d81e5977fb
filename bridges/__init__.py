"""ODE engines behind one interface. Knows arrays and callables; knows nothing of torch, models or xarray.

    engines.py         the registry: names → engines
    engine.py          what an engine is, and what it can do
    methods.py         what an engine says about each method
    options.py         do engine, method, step and problem fit together?
    choosing.py        what engine "auto" takes
    problem.py         what an engine is given and gives back
    stepping.py        the loop over the steps of an embedded method
    trials.py          does an engine work here?
    scipy_ivp.py, fixed_step.py, sundials.py, julia/    the engines

A new engine is one file with a subclass of `Engine` (or `SteppedEngine`) and `ENGINES.register(name, "module:Class")`.
"""

from bridges.choosing import Choice, choose, choose_for_jumps, default_rtol
from bridges.engine import Capabilities, Engine
from bridges.engines import ENGINES, engine_names, engines_with, get_engine
from bridges.errors import EngineError, NmOdeError, UnknownEngineError, UnknownMethodError
from bridges.methods import Method
from bridges.options import (
    AUTO,
    require_fit,
    require_jumps,
    require_method,
    require_options,
    require_ready,
    resolve_method,
)
from bridges.problem import FINEST_RTOL, Kept, OdeProblem, OdeSolution, Statistics
from bridges.registry import Registry, did_you_mean

__all__ = [
    "AUTO",
    "ENGINES",
    "FINEST_RTOL",
    "Capabilities",
    "Choice",
    "Engine",
    "EngineError",
    "Kept",
    "Method",
    "NmOdeError",
    "OdeProblem",
    "OdeSolution",
    "Registry",
    "Statistics",
    "UnknownEngineError",
    "UnknownMethodError",
    "choose",
    "choose_for_jumps",
    "default_rtol",
    "did_you_mean",
    "engine_names",
    "engines_with",
    "get_engine",
    "require_fit",
    "require_jumps",
    "require_method",
    "require_options",
    "require_ready",
    "resolve_method",
]
