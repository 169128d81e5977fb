"""Which engine and method for a flow, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bridges import (
    AUTO,
    Choice,
    Engine,
    choose,
    choose_for_jumps,
    default_rtol,
    get_engine,
    resolve_method,
)
from bridges.problem import FieldDtype
from bridges.vectors import Vector
from nm_ode.solving.field import Array, Field, to_numpy
from nm_ode.solving.stiffness import spectral_radius


@dataclass(frozen=True)
class Plan:
    """An engine, and what it is asked for."""

    engine: Engine
    choice: Choice

    def given(self, vector: Tensor) -> Vector:
        """A vector of the state's size as the engine takes it: in float64, where it lies or on the host."""
        return vector.to(torch.float64) if self.engine.capabilities.tensors else to_numpy(vector)

    def field_dtype(self, dtype: torch.dtype) -> FieldDtype:
        """What the engine gives to the field of a problem in `dtype`: where it lies, or as an array."""
        return "float32" if self.engine.capabilities.tensors and dtype == torch.float32 else "float64"


def plan(
    field: Field,
    kinks: tuple[str, ...],
    start: Tensor,
    scales: Tensor | None,
    times: Array,
    *,
    engine: str,
    method: str | None,
    rtol: float | None,
    step: float | None,
) -> Plan:
    """The caller's engine and method; where the caller leaves them open, by smoothness, stiffness, tolerance and size.

    Only where the choice needs it are right-hand sides spent on the stiffness.

    Args:
        start, scales: in the problem's dtype, on its device.
    """
    jumps, size, on_gpu = field.flow.jumps, len(start), start.device.type != "cpu"
    if engine == AUTO and jumps is not None:
        piece = _longest_piece(jumps, times)
        choice = choose_for_jumps(kinks=kinks, piece=piece, size=size, on_gpu=on_gpu)
        return Plan(get_engine(choice.engine), choice)

    def stiffness() -> float:
        if kinks:
            return 0.0
        return spectral_radius(field, float(times[0]), start, scales) * float(times[-1] - times[0])

    if engine == AUTO:
        choice = choose(
            kinks=kinks,
            stiffness=stiffness(),
            rtol=rtol,
            size=size,
            on_gpu=on_gpu,
            damped=_is_damped(field, size),
        )
        return Plan(get_engine(choice.engine), choice)
    named = get_engine(engine)
    if method in (None, AUTO) and step is None and named.capabilities.recommends:
        recommended = named.recommend(kinks=kinks, stiffness=stiffness(), rtol=rtol)
        if recommended is not None:
            return Plan(named, recommended)
    used = default_rtol(kinks) if rtol is None else rtol
    return Plan(named, Choice(engine, resolve_method(named, method, step), used, "named by the caller", step))


def _is_damped(field: Field, size: int) -> bool:
    """Are the Jacobian's eigenvalues real? Those of a Hessian, or of a function of one, are; a velocity oscillates."""
    problem = field.flow.problem
    return size == problem.layout.size and not problem.foreign_gradient


def _longest_piece(jumps: Array, times: Array) -> float:
    pieces = np.diff(np.append(jumps, max(float(times[-1]), float(jumps[-1]))))
    # The first of those that are as long but for rounding: to the last digit what a user would write.
    return float(pieces[pieces >= pieces.max() * (1 - 1e-9)][0])
