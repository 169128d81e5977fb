"""Which engine and method for which vector field, from three numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

SMOOTH_RTOL = 1e-6
KINKED_RTOL = 1e-4


@dataclass(frozen=True)
class Choice:
    """Engine, method and relative tolerance, with the reason in one sentence."""

    engine: str
    method: str
    rtol: float
    reason: str


def choose(*, kinks: tuple[str, ...], stiffness: float, rtol: float | None) -> Choice:
    """Choose by smoothness, stiffness and tolerance.

    Args:
        kinks: names of operations at which the field is not smooth; empty for a smooth field.
        stiffness: sharpness at the start × horizon, dimensionless.
        rtol: the tolerance asked for; None takes 1e-6 for smooth and 1e-4 for kinked fields. A kinked
            field is never solved with less than 1e-4: below it an adaptive method burns evaluations at
            the kinks without becoming more accurate.
    """
    if kinks:
        used = max(rtol or KINKED_RTOL, KINKED_RTOL)
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


def dop853_evaluations(stiffness: float, rtol: float) -> float:
    """12 an accepted step; a step is bounded by stability and, the more the tighter, by accuracy."""
    raise NotImplementedError


def bdf_evaluations(stiffness: float, rtol: float) -> float:
    raise NotImplementedError
