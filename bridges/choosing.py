"""Which engine and method for which vector field, from three numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bridges.engine import EngineError
from bridges.julia.methods import best_method

SMOOTH_RTOL = 1e-6  # what a smooth field is solved with unless asked
KINKED_RTOL = 1e-3  # what a kinked field is solved with unless asked
KINKED_FLOOR = 1e-4  # below it tolerance buys no accuracy


@dataclass(frozen=True)
class Choice:
    """Engine, method and relative tolerance, with the reason in one sentence; a step for methods of a fixed one."""

    engine: str
    method: str
    rtol: float
    reason: str
    step: float | None = None


def choose(*, kinks: tuple[str, ...], stiffness: float, rtol: float | None) -> Choice:
    """Choose by smoothness, stiffness and tolerance.

    Args:
        kinks: names of operations at which the field is not smooth; empty for a smooth field.
        stiffness: sharpness at the start × horizon, dimensionless.
        rtol: the tolerance asked for; None takes SMOOTH_RTOL or KINKED_RTOL. A kinked field is never
            solved with less than KINKED_FLOOR: below it an adaptive method burns evaluations at the kinks
            and gains little. Who needs more names scipy's Midpoint and a step.

    Raises:
        EngineError: rtol is not positive.
    """
    if rtol is not None and not rtol > 0:
        raise EngineError(f"rtol must be a positive number; {rtol} was given")
    if kinks:
        used = KINKED_RTOL if rtol is None else max(rtol, KINKED_FLOOR)
        reason = f"kinked field ({', '.join(kinks)}): low order"
        if rtol is not None and rtol < used:
            reason += f", and rtol {rtol:g} raised to {used:g}, below which tolerance buys no accuracy here"
        return Choice("scipy", "RK23", used, reason)
    used = SMOOTH_RTOL if rtol is None else rtol
    explicit, implicit = dop853_evaluations(stiffness, used), bdf_evaluations(stiffness, used)
    numbers = (
        f"stiffness {stiffness:.3g} at rtol {used:g}: "
        f"about {explicit:.0f} evaluations with DOP853, {implicit:.0f} with BDF"
    )
    if implicit < explicit:
        return Choice("sundials", "BDF", used, f"smooth and stiff ({numbers})")
    return Choice("scipy", "DOP853", used, f"smooth, limited by accuracy ({numbers})")


def choose_for_jumps(*, kinks: tuple[str, ...], piece: float) -> Choice:
    """Choose for a field that jumps each `piece` of time: a fixed step that ends at every jump.

    Where the field is smooth in between, one step of the eighth-order method a piece: over one optimiser step the
    solution is followed to (ηλ)^8. Where it is kinked too, order buys nothing, and the same work goes into six steps
    of the midpoint rule.
    """
    if kinks:
        reason = (
            f"the field jumps from step to step and has kinks ({', '.join(kinks)}): six low-order steps each"
        )
        return Choice("scipy", "Midpoint", KINKED_RTOL, reason, piece / 6)
    return Choice(
        "scipy", "RK8", SMOOTH_RTOL, "the field jumps from step to step: one step of order 8 each", piece
    )


def choose_for_diffeq(*, kinks: tuple[str, ...], stiffness: float, rtol: float | None) -> Choice:
    """The method of DifferentialEquations.jl, for who asks for that engine and names none."""
    used = (KINKED_RTOL if kinks else SMOOTH_RTOL) if rtol is None else rtol
    method, reason = best_method(kinks=bool(kinks), stiffness=stiffness, rtol=used)
    return Choice("diffeq", method, used, reason)


def dop853_evaluations(stiffness: float, rtol: float) -> float:
    """Right-hand sides that DOP853 will need, within a factor of two (benchmarks/method_choice.py).

    Two steps at least; beyond them the larger of two bounds. Stability allows a step of about 6/λ_max for 12
    evaluations, with a λ_max that on gradient flows averages twice its start; accuracy asks for more steps the
    tighter the tolerance.
    """
    return max(26, 4 * stiffness, 3 * math.pow(stiffness, 0.75) * math.pow(rtol, -0.125))


def bdf_evaluations(stiffness: float, rtol: float) -> float:
    """Right-hand sides that CVODE's BDF with GMRES will need, within a factor of two."""
    return 16 * math.pow(stiffness, 0.38) * math.pow(rtol, -0.125)
