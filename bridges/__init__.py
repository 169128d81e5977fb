"""ODE engines behind one interface. Knows arrays and callables; knows nothing of models or xarray.

    engines.py         the registry: names → engines
    engine.py          what an engine is, and what it can do
    methods.py         what an engine says about each method
    options.py         do engine, method, step and problem fit together?
    noise.py           the same for stochastic paths
    choosing.py        what engine "auto" takes
    limits.py          the values of options and times that engines take
    problem.py         what an engine is given and gives back
    solving.py         the one way to an engine: times from the start, and answers looked at
    counted.py         the field, counted and within the limits
    differences.py     Jacobian products of a field that has none of its own
    stepping.py        the loop over the steps of an embedded method
    trials.py          does an engine work here?
    noise_trials.py    are its stochastic paths right? By a diffusion whose law is known
    vectors.py         what a solve asks of its vectors, which may be tensors of torch
    scipy_ivp.py, fixed_step.py, sundials.py, julia/    the engines
    torch_engine.py, torch_rk.py    the engine whose vectors are tensors; torch_rk.py alone imports torch
    rk_tables.py, rk_adaptive.py, rk_fixed.py, rkc.py, radius.py    its methods, by what arithmetic.py asks of vectors

A new engine is one file with a subclass of `Engine` (or `SteppedEngine`) and `ENGINES.register(name, "module:Class")`.
"""

from bridges.choosing import Choice, choose, choose_for_jumps, default_rtol
from bridges.engine import Capabilities, Engine, LawsSolution
from bridges.engines import ENGINES, engine_names, engines_with, get_engine
from bridges.errors import EngineError, NmOdeError, UnknownEngineError, UnknownMethodError
from bridges.limits import FINEST_RTOL, LIMITS, Limit, finest_rtol, require_limits, require_times
from bridges.methods import Method, NoiseMethod
from bridges.options import (
    AUTO,
    require_fit,
    require_jumps,
    require_method,
    require_options,
    require_ready,
    resolve_method,
)
from bridges.problem import Kept, OdeProblem, OdeSolution, Rhs, Statistics
from bridges.registry import Registry, did_you_mean
from bridges.solving import solve_with
from bridges.vectors import Vector

__all__ = [
    "AUTO",
    "ENGINES",
    "FINEST_RTOL",
    "LIMITS",
    "Capabilities",
    "Choice",
    "Engine",
    "EngineError",
    "Kept",
    "LawsSolution",
    "Limit",
    "Method",
    "NmOdeError",
    "NoiseMethod",
    "OdeProblem",
    "OdeSolution",
    "Registry",
    "Rhs",
    "Statistics",
    "UnknownEngineError",
    "UnknownMethodError",
    "Vector",
    "choose",
    "choose_for_jumps",
    "default_rtol",
    "did_you_mean",
    "engine_names",
    "engines_with",
    "finest_rtol",
    "get_engine",
    "require_fit",
    "require_jumps",
    "require_limits",
    "require_method",
    "require_options",
    "require_ready",
    "require_times",
    "resolve_method",
    "solve_with",
]
