"""What engine "auto" takes: an embedded engine and its method, by smoothness, stiffness and tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bridges.errors import EngineError

SMOOTH_RTOL = 1e-6  # what a smooth field is solved with unless asked
KINKED_RTOL = 1e-3  # what a kinked field is solved with unless asked
KINKED_FLOOR = 1e-4  # below it a tighter tolerance costs evaluations and gains no accuracy


@dataclass(frozen=True)
class Choice:
    """Engine, method and relative tolerance, with the reason in one sentence; the step of a fixed-step method."""

    engine: str
    method: str
    rtol: float
    reason: str
    step: float | None = None


def default_rtol(kinks: Sequence[str]) -> float:
    """The relative tolerance of a solve for which none was asked, by the field's kinks (empty: it is smooth)."""
    return KINKED_RTOL if kinks else SMOOTH_RTOL


def choose(*, kinks: Sequence[str], stiffness: float, rtol: float | None) -> Choice:
    """Choose by smoothness, stiffness and tolerance.

    Args:
        kinks: names of operations at which the field is not smooth; empty for a smooth field.
        stiffness: sharpness at the start × horizon, dimensionless.
        rtol: the tolerance asked for; None takes `default_rtol`. A kinked field is never solved with less than
            KINKED_FLOOR: below it an adaptive method spends evaluations at the kinks and gains little. For more
            accuracy name scipy's Midpoint and a step.

    Raises:
        EngineError: rtol is not positive.
    """
    if rtol is not None and not rtol > 0:
        raise EngineError(f"rtol must be a positive number; {rtol} was given")
    used = default_rtol(kinks) if rtol is None else rtol
    if kinks:
        used = max(used, KINKED_FLOOR)
        reason = f"kinked field ({', '.join(kinks)}): low order"
        if rtol is not None and rtol < used:
            reason += f", and rtol {rtol:g} raised to {used:g}, below which no accuracy is gained"
        return Choice("scipy", "RK23", used, reason)
    explicit, implicit = dop853_evaluations(stiffness, used), bdf_evaluations(stiffness, used)
    numbers = (
        f"stiffness {stiffness:.3g} at rtol {used:g}: "
        f"about {explicit:.0f} evaluations with DOP853, {implicit:.0f} with BDF"
    )
    if implicit < explicit:
        return Choice("sundials", "BDF", used, f"smooth and stiff ({numbers})")
    return Choice("scipy", "DOP853", used, f"smooth, limited by accuracy ({numbers})")


def choose_for_jumps(*, kinks: Sequence[str], piece: float) -> Choice:
    """Choose for a field that jumps each `piece` of time: a fixed step that ends at every jump.

    A field that is smooth between its jumps gets one step of the eighth-order method a piece: over one optimiser step
    the relative error is about (ηλ)^8. With kinks a higher order gains nothing, and the same work goes into six steps
    of the midpoint rule.

    Args:
        kinks: names of operations at which the field is not smooth; empty for a smooth field.
        piece: the time between two jumps.
    """
    if kinks:
        reason = (
            f"the field jumps from step to step and has kinks ({', '.join(kinks)}): six low-order steps each"
        )
        return Choice("scipy", "Midpoint", KINKED_RTOL, reason, piece / 6)
    return Choice(
        "scipy", "RK8", SMOOTH_RTOL, "the field jumps from step to step: one step of order 8 each", piece
    )


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
