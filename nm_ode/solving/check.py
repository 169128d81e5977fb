"""The solver's own error (docs/theory.md §5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bridges import OdeProblem, OdeSolution
from bridges.vectors import Vector, norm
from nm_ode.loss.spent import Spent
from nm_ode.results import CheckVerdict
from nm_ode.sketches import SparseSigns, standard_error
from nm_ode.solving.errors import failure
from nm_ode.solving.field import Array, Field, to_numpy
from nm_ode.solving.keeping import KeptSolve

_TIGHTER = 10.0
_OF_A_START = 30  # steps or right-hand sides, generously: to take others for the same costs one more solve
_FEW_STEPS = 10
_ROUNDINGS = 16.0
_COARSE = 1e-12  # noise of a field from which on it is part of a solution's error
_OF_STAGES = 4.0  # roundings of a field that the stages of a method make of one
_OF_MOTION = (
    1e-2  # what the tolerances of a check may admit, where those of the solve admit more than the motion
)


@dataclass(frozen=True, eq=False)
class Check:
    """How far a solution is from another by the same method.

    Attributes:
        errors: shape (times,), NaN where nothing is known.
        how: in words.
        verdict: what the errors are.
        status, rhs_evaluations, jvp_evaluations, spent: of the other solve; None where the method has an estimate of
            its own.
    """

    errors: Array
    how: str
    verdict: CheckVerdict
    status: str | None = None
    rhs_evaluations: int | None = None
    jvp_evaluations: int | None = None
    spent: Spent | None = None


@dataclass(frozen=True)
class Seen:
    """As what theta was recorded: itself, or a sketch, from which distances are estimated."""

    signs: SparseSigns | None = None

    def of(self, theta: Tensor) -> Array:
        """Shape (P,), or (m,)."""
        return to_numpy(theta if self.signs is None else self.signs.of(theta))

    @property
    def remark(self) -> str:
        """For `Check.how`."""
        if self.signs is None:
            return ""
        return f", estimated from sketches with a standard error of {standard_error(self.signs.m):.1%}"


@dataclass(frozen=True)
class Solved:
    """What is checked.

    Attributes:
        solution: how the solve ended: with success.
        thetas: at each time as they were `seen`.
        atol: the tolerance that a user reads, before any scaling by entries.
        floor: the smallest rtol that means anything.
        parameters: P.
        seen: what the thetas are.
    """

    solution: OdeSolution
    thetas: Array
    atol: float
    floor: float
    parameters: int
    seen: Seen


def check(field: Field, kept: KeptSolve, ode: OdeProblem, solved: Solved) -> Check:
    """Solve once more, ten times tighter; methods of a fixed step have their own step halving instead, or are halved.

    A second solve that took the same steps would be the same solution, whatever its error: then steps of half the
    length are taken. One whose tolerances admit as much as the solution moves would be no better: then they are as
    much tighter as it takes. Where rounding leaves no room for a tighter tolerance, a looser solve gives a bound. What
    the rounding of a field coarser than float64 leaves, no second solve shows: it is a share of the path.
    """
    found = _compared(field, kept, ode, solved)
    noise = field.noise * field.flow.amplification
    if noise < _COARSE:
        return found
    # Two solves by steps that are too short for the field's digits round alike, and agree better than either is right.
    share = _OF_STAGES * noise
    steps = [float(np.linalg.norm(b - a)) for a, b in pairwise(solved.thetas)]
    path = np.append(0.0, np.cumsum(steps))
    errors, how = np.maximum(found.errors, share * path), f"{found.how}; no less than {share:.1e} of the path"
    return replace(found, errors=errors, how=f"{how}, which is what the field's rounding leaves")


def _compared(field: Field, kept: KeptSolve, ode: OdeProblem, solved: Solved) -> Check:
    solution, thetas = solved.solution, solved.thetas
    if solution.error_estimates is not None:
        return Check(solution.error_estimates, "difference to the same method at twice the step", "measured")
    if len(thetas) == 1:
        return Check(np.zeros(1), "the start alone was asked for", "measured")
    other, how, verdict = _other(ode, solved)
    how += solved.seen.remark
    errors, found = _distances(field, kept, other, solved)
    evaluations, products = found.statistics.rhs_evaluations, found.statistics.jvp_evaluations
    spent = Spent(*found.statistics.spent)
    same = _same_steps(solution, found, kept.anew)
    if same or _hardly_more_steps(solution, found, ode):
        shorter = float(ode.times[-1] - ode.times[0]) / (2 * max(solution.statistics.steps, 1))
        if ode.step is None:
            other = replace(other, max_step=min(shorter, other.max_step or np.inf), max_steps=None)
            few = "the same steps" if same else "hardly more steps"
            how += f" and steps of at most {other.max_step:.3g}, since it took {few} without"
        errors, found = _distances(field, kept, other, solved)
        evaluations += found.statistics.rhs_evaluations
        products += found.statistics.jvp_evaluations
        spent = Spent(*map(sum, zip(spent.counts, found.statistics.spent, strict=True)))
        if _same_steps(solution, found, kept.anew):
            verdict = "same_steps"
            how += " (no check: it took the same steps)"
    if verdict != "same_steps" and _admits_motion(other, solved):
        verdict = "too_loose"
        how += " (no check: its tolerances admit as much as the solution moves)"
    if found.status != "success":
        verdict = "stopped"
        how += f" (stopped: {failure(found, fixed_step=ode.step is not None)})"
    if verdict in ("same_steps", "too_loose"):
        errors[1:] = np.nan
    errors[_not_told(other, solved, errors)] = np.nan
    return Check(errors, how, verdict, found.status, evaluations, products, spent)


def _other(ode: OdeProblem, solved: Solved) -> tuple[OdeProblem, str, CheckVerdict]:
    """The problem to solve beside the first, in words, and what its distance is."""
    if ode.step is not None:
        half = replace(ode, step=ode.step / 2, max_steps=None if ode.max_steps is None else 2 * ode.max_steps)
        return half, "difference to the same method at half the step", "measured"
    tighter = max(ode.rtol / _TIGHTER, solved.floor)
    finer = tighter <= ode.rtol / 2
    rtol = tighter if finer else min(ode.rtol * _TIGHTER, 0.5)
    tightness = _TIGHTER if finer else 1 / _TIGHTER
    if _admits_motion(ode, solved):
        rtol, tightness = _as_tight_as_it_takes(ode, solved, rtol)
    how = f"difference to the same method at rtol {rtol:g}, atol {solved.atol / tightness:g}"
    if not finer:
        how += f", a bound: rtol {ode.rtol:g} is as tight as rounding lets it be"
    elif tighter > ode.rtol / _TIGHTER:
        how += ", the smallest that rounding lets it have"
    other = replace(ode, rtol=rtol, atol=ode.atol / tightness)
    if ode.max_step is not None:
        # It may be what decides on the steps, whatever the tolerances.
        other = replace(other, max_step=ode.max_step / 2, max_steps=None)
        how += f", steps of at most {other.max_step:g}"
    return other, how, "measured" if finer else "bound"


def _as_tight_as_it_takes(ode: OdeProblem, solved: Solved, rtol: float) -> tuple[float, float]:
    """rtol, and by what atol is divided, to admit a hundredth of the solution's motion."""
    thetas = solved.thetas
    admitted = _OF_MOTION * _motion(thetas)
    relative, absolute = _size(thetas), _absolute(ode, solved)
    if admitted > 0 and relative > 0:
        rtol = max(solved.floor, min(rtol, admitted / relative))
    return rtol, max(_TIGHTER, absolute / admitted) if admitted > 0 else _TIGHTER


def _distances(field: Field, kept: KeptSolve, other: OdeProblem, solved: Solved) -> tuple[Array, OdeSolution]:
    errors = np.full(len(solved.thetas), np.nan)

    def distance(index: int, t: float, y: Vector) -> None:
        errors[index] = np.linalg.norm(solved.seen.of(field.theta(y)) - solved.thetas[index])

    return errors, kept.solve(other, distance, errors)


def _same_steps(one: OdeSolution, other: OdeSolution, anew: int) -> bool:
    """As many steps for as many right-hand sides, but for what starting anew, so many times, adds to either."""
    steps, evaluations = (
        abs(getattr(one.statistics, count) - getattr(other.statistics, count))
        for count in ("steps", "rhs_evaluations")
    )
    return other.status == "success" and max(steps, evaluations) <= _OF_A_START * anew


def _hardly_more_steps(one: OdeSolution, other: OdeSolution, ode: OdeProblem) -> bool:
    """Few steps, and hardly more of them: what a start costs decides on them, and the tolerance on little."""
    few, more = one.statistics.steps, other.statistics.steps - one.statistics.steps
    return ode.step is None and other.status == "success" and few <= _FEW_STEPS and more <= 2


def _not_told(ode: OdeProblem, solved: Solved, errors: Array) -> NDArray[np.bool_]:
    """Samples up to which the tolerances admit all the motion, and both solves agree to rounding: by the same steps."""
    thetas = solved.thetas
    if ode.step is not None:
        return np.zeros(len(thetas), dtype=bool)
    sizes = np.array([np.linalg.norm(theta) for theta in thetas])
    moved = np.maximum.accumulate([float(np.linalg.norm(theta - thetas[0])) for theta in thetas])
    admitted = ode.rtol * sizes + _absolute(ode, solved)
    agree = errors <= _ROUNDINGS * np.finfo(np.float64).eps * sizes
    return np.asarray((moved > 0) & (admitted >= moved) & agree)


def _admits_motion(ode: OdeProblem, solved: Solved) -> bool:
    """May the local error be as large as all that the solution moves?"""
    thetas = solved.thetas
    return ode.step is None and ode.rtol * _size(thetas) + _absolute(ode, solved) >= _motion(thetas)


def _size(thetas: Array) -> float:
    return max(float(np.linalg.norm(theta)) for theta in thetas)


def _motion(thetas: Array) -> float:
    return max(float(np.linalg.norm(theta - thetas[0])) for theta in thetas)


def _absolute(ode: OdeProblem, solved: Solved) -> float:
    """2-norm of atol over the entries of theta."""
    if isinstance(ode.atol, int | float):
        return float(ode.atol * np.sqrt(solved.parameters))
    return norm(ode.atol[: solved.parameters])
