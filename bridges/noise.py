"""Do engine, method, noise and step of stochastic paths fit together? Asked before anything starts."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from bridges.engine import Engine
from bridges.errors import EngineError, UnknownMethodError
from bridges.limits import require_limits
from bridges.methods import NoiseMethod
from bridges.problem import Array
from bridges.registry import did_you_mean

_SEEDS = 2**63


def require_noise_method(engine: Engine, method: str) -> NoiseMethod:
    """The properties of `method`.

    Raises:
        EngineError: the engine solves no stochastic equations.
        UnknownMethodError: it has no such method for them; with near names.
    """
    if not engine.noise_methods:
        raise EngineError(f"engine {engine.name!r} solves no stochastic differential equations")
    if method not in engine.noise_methods:
        raise UnknownMethodError(
            f"engine {engine.name!r} has no method {method!r} for paths with noise"
            f"{did_you_mean(str(method), engine.noise_methods)}"
        )
    return engine.noise_methods[method]


def require_noise_fit(
    engine: Engine,
    method: str,
    *,
    factor: Array,
    y0: Array,
    time: float,
    step: float | None,
    seeds: Sequence[int],
) -> NoiseMethod:
    """The properties of `method`, which fits the rest; what every `Engine.solve_noisy` asks first.

    Raises:
        UnknownMethodError: the engine has no such method.
        EngineError: a matrix as the factor of a method for diagonal noise; a state, a factor, a time, a step or a seed
            that is none.
    """
    properties = require_noise_method(engine, method)
    if y0.ndim != 1 or not y0.size or not np.isfinite(y0).all():
        raise EngineError(f"y0 must be a non-empty vector of finite numbers; its shape is {y0.shape}")
    n = y0.size
    if factor.ndim not in (1, 2) or factor.shape[-1] != n or not factor.size:
        raise EngineError(
            f"the noise's factor has shape {factor.shape}; of a state of {n} it is ({n},), diagonal noise, or (r, {n})"
        )
    if not np.isfinite(factor).all():
        raise EngineError("the noise's factor has entries that are not finite")
    if factor.ndim == 2 and properties.diagonal_only:
        others = [name for name, other in engine.noise_methods.items() if not other.diagonal_only]
        raise EngineError(
            f"method {method!r} is for diagonal noise, whose factor is a vector, and the factor is a matrix: take "
            f"{' or '.join(map(repr, others)) or 'another engine'}"
        )
    if step is None:
        raise EngineError("every method for paths with noise has a fixed step: give `step`")
    if not (math.isfinite(time) and time > 0):
        raise EngineError(f"time must be a positive number; {time} was given")
    require_limits(step=step, span=time)
    for seed in seeds:
        if not (_is_whole(seed) and 0 <= seed < _SEEDS):
            raise EngineError(f"a seed is a whole number from 0 to 2^63 - 1; {seed!r} was given")
    return properties


def _is_whole(given: Any) -> bool:
    return isinstance(given, numbers.Integral)
