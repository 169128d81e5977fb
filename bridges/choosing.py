"""What engine "auto" takes: an embedded engine and its method, by smoothness, stiffness, tolerance, size and place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bridges.errors import EngineError

SMOOTH_RTOL = 1e-6  # what a smooth field is solved with unless asked
KINKED_RTOL = 1e-3  # what a kinked field is solved with unless asked
KINKED_FLOOR = 1e-4  # below it a tighter tolerance costs evaluations and gains no accuracy

LARGE = 1_000_000
"""Numbers of a state from which on a solve on the CPU is one by engine "torch" (benchmarks/large.py)."""

HOST = 1.5
"""Time of a solve by CVODE over that of its right-hand sides alone, at 1 to 5 million numbers and 256 samples
(benchmarks/large.py); with fewer samples it is more, for the work is less."""


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


def choose(
    *,
    kinks: Sequence[str],
    stiffness: float,
    rtol: float | None,
    size: int = 0,
    on_gpu: bool = False,
    damped: bool = True,
) -> Choice:
    """Choose by smoothness, stiffness, tolerance, and by where and how large the state is.

    On a GPU, and from LARGE numbers on, it is engine "torch", whose vectors stay where the field computes. What it has
    for stiff fields, stabilised Runge–Kutta, needs more right-hand sides than BDF, the more so the tighter the
    tolerance: on a CPU BDF is taken where they cost more than its vectors (HOST). Nothing is timed, so that a solve
    that goes on chooses as it did before.

    Args:
        kinks: names of operations at which the field is not smooth; empty for a smooth field.
        stiffness: sharpness at the start × horizon, dimensionless.
        rtol: the tolerance asked for; None takes `default_rtol`. A kinked field is never solved with less than
            KINKED_FLOOR: below it an adaptive method spends evaluations at the kinks and gains little. For more
            accuracy name scipy's Midpoint and a step.
        size: numbers in the state.
        on_gpu: does the field compute on an accelerator?
        damped: are the Jacobian's eigenvalues real and hardly above zero, as those of a gradient flow? The stability of
            a stabilised method ends close beside the negative real axis.

    Raises:
        EngineError: rtol is not positive.
    """
    if rtol is not None and not rtol > 0:
        raise EngineError(f"rtol must be a positive number; {rtol} was given")
    used = default_rtol(kinks) if rtol is None else rtol
    place = _place(size, on_gpu=on_gpu)
    if kinks:
        used = max(used, KINKED_FLOOR)
        reason = f"kinked field ({', '.join(kinks)}): low order"
        if rtol is not None and rtol < used:
            reason += (
                f", and rtol {rtol:g} raised to {used:g}, below which accuracy costs more than it is worth"
            )
        return Choice("torch" if place else "scipy", "RK23", used, reason + place)
    explicit, implicit = dop853_evaluations(stiffness, used), bdf_evaluations(stiffness, used)
    if not place:
        numbers = _numbers(stiffness, used, DOP853=explicit, BDF=implicit)
        if implicit < explicit:
            return Choice("sundials", "BDF", used, f"smooth and stiff ({numbers})")
        return Choice("scipy", "DOP853", used, f"smooth, limited by accuracy ({numbers})")
    stabilised = rkc2_evaluations(stiffness, used) if damped else math.inf
    fewest = min(explicit, stabilised)
    if not on_gpu and HOST * implicit < fewest:
        numbers = _numbers(stiffness, used, DOP853=explicit, RKC2=stabilised, BDF=implicit)
        reason = f"smooth and stiff ({numbers}, too few for vectors on the host to matter)"
        return Choice("sundials", "BDF", used, reason)
    numbers = _numbers(stiffness, used, DOP853=explicit, RKC2=stabilised)
    if stabilised < explicit:
        return Choice("torch", "RKC2", used, f"smooth and stiff ({numbers}){place}")
    return Choice("torch", "DOP853", used, f"smooth, limited by accuracy ({numbers}){place}")


def choose_for_jumps(*, kinks: Sequence[str], piece: float, size: int = 0, on_gpu: bool = False) -> Choice:
    """Choose for a field that jumps each `piece` of time: a fixed step that ends at every jump.

    A field that is smooth between its jumps gets one step of the eighth-order method a piece: over one optimiser step
    the relative error is about (ηλ)^8. With kinks a higher order gains nothing, and the same work goes into six steps
    of the midpoint rule.

    Args:
        kinks: names of operations at which the field is not smooth; empty for a smooth field.
        piece: the time between two jumps.
        size, on_gpu: as of `choose`.
    """
    place = _place(size, on_gpu=on_gpu)
    engine = "torch" if place else "scipy"
    if kinks:
        reason = (
            f"the field jumps from step to step and has kinks ({', '.join(kinks)}): six low-order steps each"
        )
        return Choice(engine, "Midpoint", KINKED_RTOL, reason + place, piece / 6)
    reason = "the field jumps from step to step: one step of order 8 each"
    return Choice(engine, "RK8", SMOOTH_RTOL, reason + place, piece)


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


def rkc2_evaluations(stiffness: float, rtol: float) -> float:
    """Right-hand sides that RKC2 will need, within a factor of two (benchmarks/method_choice.py).

    Its order decides on the number of steps, and stability on the stages of each, at least two: 0.65 times their square
    is the step's share of the stiffness, which on gradient flows averages twice that of the start.
    """
    steps = max(1.0, 0.7 * math.pow(stiffness, 0.4) * math.pow(rtol, -1 / 3))
    return steps * (1 + math.sqrt(1 + 3.1 * stiffness / steps))


def _place(size: int, *, on_gpu: bool) -> str:
    """Why engine "torch", as the end of a sentence; "" if there is no reason."""
    if on_gpu:
        return "; engine torch, since the field computes on a GPU and the state stays there"
    if size >= LARGE:
        return (
            f"; engine torch, since the state has {size:,} numbers, and vectors on the host would cost more"
        )
    return ""


def _numbers(stiffness: float, rtol: float, **evaluations: float) -> str:
    """What is compared, as a clause; infinite counts are of methods that are out of the question."""
    known = [f"{count:.0f} with {method}" for method, count in evaluations.items() if count < math.inf]
    first, *others = known
    listed = ", ".join([first.replace(" with", " evaluations with"), *others])
    return f"stiffness {stiffness:.3g} at rtol {rtol:g}: about {listed}"
