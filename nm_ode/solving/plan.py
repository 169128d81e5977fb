"""Which engine and method for a flow, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
from nm_ode.solving.field import Array, Field
from nm_ode.solving.stiffness import spectral_radius


@dataclass(frozen=True)
class Plan:
    """An engine, and what it is asked for."""

    engine: Engine
    choice: Choice


def plan(
    field: Field,
    kinks: tuple[str, ...],
    start: Array,
    scales: Array | None,
    times: Array,
    *,
    engine: str,
    method: str | None,
    rtol: float | None,
    step: float | None,
) -> Plan:
    """The caller's engine and method; where the caller leaves them open, by smoothness, stiffness and tolerance.

    Only where the choice needs it are right-hand sides spent on the stiffness.
    """
    jumps = field.flow.jumps
    if engine == AUTO and jumps is not None:
        choice = choose_for_jumps(kinks=kinks, piece=_longest_piece(jumps, times))
        return Plan(get_engine(choice.engine), choice)

    def stiffness() -> float:
        if kinks:
            return 0.0
        return spectral_radius(field, float(times[0]), start, scales) * float(times[-1] - times[0])

    if engine == AUTO:
        choice = choose(kinks=kinks, stiffness=stiffness(), rtol=rtol)
        return Plan(get_engine(choice.engine), choice)
    named = get_engine(engine)
    if method in (None, AUTO) and step is None and named.capabilities.recommends:
        recommended = named.recommend(kinks=kinks, stiffness=stiffness(), rtol=rtol)
        if recommended is not None:
            return Plan(named, recommended)
    used = default_rtol(kinks) if rtol is None else rtol
    return Plan(named, Choice(engine, resolve_method(named, method, step), used, "named by the caller", step))


def _longest_piece(jumps: Array, times: Array) -> float:
    pieces = np.diff(np.append(jumps, max(float(times[-1]), float(jumps[-1]))))
    # The first of those that are as long but for rounding: to the last digit what a user would write.
    return float(pieces[pieces >= pieces.max() * (1 - 1e-9)][0])
