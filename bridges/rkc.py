"""The stabilised explicit method of order 2 of Sommeijer, Shampine and Verwer, in place and in few vectors.

B. P. Sommeijer, L. F. Shampine, J. G. Verwer, RKC: an explicit solver for parabolic PDEs, J. Comput. Appl. Math. 88
(1997) 315-326: its formulas, its estimate of the error, its step-size control. The stages are Chebyshev polynomials of
the Jacobian, stable for eigenvalues from 0 down to -0.65·s² for s stages. It is written for the stages' distances from
the step's start, so that what a float32 field rounds is these and not the state.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bridges.arithmetic import Arithmetic
from bridges.problem import Array, OdeProblem, Rhs, SolveStopped
from bridges.radius import PowerIteration
from bridges.stepping import StepFailure
from bridges.vectors import Vector, copied, like, on_host

Sharpness: TypeAlias = Callable[[float, Vector, Vector], float]
"""(t, y, field there) → the spectral radius; y in the dtype of the field."""

_DAMPING = 2 / 13
_SAFETY, _SMALLEST_FACTOR, _LARGEST_FACTOR = 0.8, 0.1, 10.0
_SELDOM = 25  # steps between two looks at the spectral radius, at most
_MOST_GROWTH = 2.0
_FEW_STAGES = 5
_CHANGED = 0.1  # a radius that differs by this much from the one before is looked at more often


@dataclass(frozen=True, eq=False)
class Stages:
    """The coefficients of s stages.

    Attributes:
        nodes: c_1 … c_s.
        first: of the first stage: h·first·F_0.
        mu, nu, mu_h, gamma_h: of D_{j-1}, D_{j-2}, h·F_{j-1} and h·F_0 in D_j, for j = 2 … s.
    """

    nodes: Array
    first: float
    mu: Array
    nu: Array
    mu_h: Array
    gamma_h: Array


@functools.lru_cache(maxsize=64)
def stages(s: int) -> Stages:
    """See the paper's eqs. 2.1 to 2.8; s ≥ 2."""
    w0 = 1 + _DAMPING / s**2
    t, first, second = np.ones(s + 1), np.zeros(s + 1), np.zeros(s + 1)  # T_j and its derivatives at w0
    t[1], first[1] = w0, 1.0
    for j in range(2, s + 1):
        t[j] = 2 * w0 * t[j - 1] - t[j - 2]
        first[j] = 2 * w0 * first[j - 1] - first[j - 2] + 2 * t[j - 1]
        second[j] = 2 * w0 * second[j - 1] - second[j - 2] + 4 * first[j - 1]
    w1 = first[s] / second[s]
    b = np.empty(s + 1)
    b[2:] = second[2:] / first[2:] ** 2
    b[:2] = b[2]
    nodes = np.empty(s)
    nodes[1:] = w1 * second[2:] / first[2:]
    nodes[0], nodes[-1] = b[1] * w1, 1.0
    mu_h = 2 * b[2:] * w1 / b[1:-1]
    return Stages(
        nodes=nodes,
        first=float(b[1] * w1),
        mu=2 * b[2:] * w0 / b[1:-1],
        nu=-b[2:] / b[:-2],
        mu_h=mu_h,
        gamma_h=-(1 - b[1:-1] * t[1:-1]) * mu_h,
    )


class StabilisedChebyshev:
    """Steps of RKC. Rows of vectors: F at the start and F of the last stage (their places change from step to step),
    then D of the last two stages, each for its parity.

    Args:
        sharpness: the spectral radius, or its bound; None for a power iteration of its own.
        require_finite: raises SolveStopped if a right-hand side was not; asked where a norm is not.
    """

    def __init__(
        self,
        problem: OdeProblem,
        rhs: Rhs,
        sharpness: Sharpness | None,
        require_finite: Callable[[], None],
        arithmetic: Arithmetic,
    ) -> None:
        self._problem, self._rhs, self._do = problem, rhs, arithmetic
        self._require_finite = require_finite
        self._rows = arithmetic.rows(4)
        self._rows.zero_()  # what is multiplied by zero has to be finite
        self._start, self._last, self._distance = 0, 1, 2
        self._y, self._stage = copied(problem.y0), arithmetic.of_field()
        self._whole = self._stage.dtype == self._y.dtype
        self.t, self._end = float(problem.times[0]), float(problem.times[-1])
        self._longest = math.inf if problem.max_step is None else problem.max_step
        # Rounding grows with s². The paper's bound is a hundredth of it, for stages that are states and not distances.
        self._most = max(2, round(math.sqrt(10 * problem.rtol / arithmetic.rounding)))
        self._h, self._before = 0.0, (0.0, 0.0)  # the step; the one before and its error
        self._sharpness, self._own = sharpness, PowerIteration(problem, rhs, arithmetic)
        self._radius, self._seen = 0.0, 0.0  # that is gone by, and that was found last
        self._age, self._seldom, self._found = 0, 1, False
        self.steps = 0
        self.rejected_steps = 0
        if problem.memory:
            self._go_on()
        else:
            self._stage.copy_(self._y)
            rhs(self.t, self._stage, self._rows[self._last])
            self._next = 0.0

    def advance(self) -> None:
        self._start, self._last = self._last, self._start
        self._look_at_radius()
        if self._next == 0:
            self._next = self._first_step()
        shortest = 10 * (math.nextafter(self.t, math.inf) - self.t)
        length = min(max(self._next, shortest), self._longest)
        while True:
            if length < shortest:
                raise StepFailure("the step has shrunk below the rounding of the time")
            length = self._fitted(length)
            error = self._attempt(length)
            if error < 1:
                break
            self.rejected_steps += 1
            length *= max(_SMALLEST_FACTOR, _SAFETY * error ** (-1 / 3))
            if self._age:
                self._found = False
                self._look_at_radius()
        self._next = length * self._growth(length, error)
        self._before = (length, error)
        if self._whole:
            self._y, self._stage = self._stage, self._y
        else:
            self._do.add(self._y, self._y, self._rows, self._do.sum({self._distance: 1.0}), 1.0)
        self.t = self._end if self._reaches(length) else self.t + length
        self._h = length
        self._age += 1
        self._found = self._age < self._seldom
        self.steps += 1

    def at(self, t: float) -> Vector:
        if t == self.t:
            return self._y
        share, h = 1 + (t - self.t) / self._h, self._h
        sample = self._stage if self._whole else self._do.state()
        terms = {
            self._distance: (share * share * (3 - 2 * share) - 1) / h,
            self._start: share * (1 - share) ** 2,
            self._last: share * share * (share - 1),
        }
        self._do.add(sample, self._y, self._rows, self._do.sum(terms), h)
        return sample

    def memory(self) -> dict[str, Array]:
        """The rate, and what steps and radius are chosen by."""
        found = {
            "rate": on_host(self._rows[self._last]),
            "step": np.array([self._next, *self._before]),
            "radius": np.array([self._radius, self._seen, self._age, self._seldom, self._found]),
            # Sums of rows are rounded in their order.
            "places": np.array([self._start, self._last]),
        }
        return {**found, **self._own.memory()}

    def error_at_sample(self) -> float | None:
        return None

    def _go_on(self) -> None:
        memory = self._problem.memory
        self._start, self._last = map(int, memory["places"].tolist())
        self._rows[self._last].copy_(like(self._y, memory["rate"]))
        self._next, *before = memory["step"].tolist()
        self._before = (before[0], before[1])
        self._radius, self._seen, age, seldom, found = memory["radius"].tolist()
        self._age, self._seldom, self._found = int(age), int(seldom), bool(found)

    def _reaches(self, length: float) -> bool:
        return self.t + length * (1 + 1e-12) >= self._end

    def _fitted(self, length: float) -> float:
        """No longer than the most stages are stable for; to the end, if that is near."""
        if self._radius > 0:
            length = min(length, (self._most**2 - 1) / (1.54 * self._radius))
        left = self._end - self.t
        near = left <= min(1.1 * length, self._longest) and self._stages_for(left) <= self._most
        return left if length >= left or near else length

    def _stages_for(self, length: float) -> int:
        return max(2, 1 + int(math.sqrt(1.54 * length * self._radius + 1)))

    def _attempt(self, h: float) -> float:
        """All stages of a step of h, and the norm of its error; infinite where something overflows.

        Stages that are too few for how stiff the field has become soon do. Of a radius that was just found, and a few
        stages, it is the field itself that is not finite.
        """
        try:
            error = self._norm_after_stages(h)
        except SolveStopped as stop:
            if stop.status != "non_finite" or (not self._age and self._stages_for(h) <= _FEW_STAGES):
                raise
            error = math.inf
        if not math.isfinite(error):
            error = math.inf
            for row in {0, 1, 2, 3} - {self._start}:
                self._rows[row].zero_()  # zero times what is there has to be zero
        return error

    def _norm_after_stages(self, h: float) -> float:
        s = min(self._stages_for(h), self._most)
        table = stages(s)
        terms = self._do.table(self._coefficients(table, h))
        for j in range(1, s + 1):
            self._distance = 2 + j % 2
            self._do.recur(self._stage, self._y, self._rows, self._distance, terms[j - 1])
            self._rhs(self.t + float(table.nodes[j - 1]) * h, self._stage, self._rows[self._last])
        estimate = self._do.sum({self._start: 0.4, self._last: 0.4, self._distance: -0.8 / h})
        problem = self._problem
        (square,) = self._do.mean_squares(
            self._y, self._stage, self._rows, (estimate,), problem.atol, problem.rtol
        )
        error = h * math.sqrt(square)
        if not math.isfinite(error):  # a square that overflows, unless it is the field
            self._require_finite()
        return error

    def _coefficients(self, table: Stages, h: float) -> Array:
        """Those of the four rows, for each stage; the rows of D change places from stage to stage."""
        found = np.zeros((len(table.nodes), 4))
        found[0, self._start] = h * table.first
        for j in range(2, len(found) + 1):
            row = found[j - 1]
            row[self._start], row[self._last] = h * table.gamma_h[j - 2], h * table.mu_h[j - 2]
            row[2 + (j - 1) % 2] = table.mu[j - 2]
            row[2 + j % 2] = table.nu[j - 2] if j > 2 else 0.0
        return found

    def _growth(self, length: float, error: float) -> float:
        """By this error alone, or by how it changed from the step before, whichever is less (the paper's 3.3)."""
        factor = _LARGEST_FACTOR
        if error > 0:
            factor = min(factor, _SAFETY * error ** (-1 / 3))
        before, error_before = self._before
        if before > 0 and error > 0 and error_before > 0:
            factor = min(factor, _SAFETY * length / before * (error_before / error**2) ** (1 / 3))
        return max(_SMALLEST_FACTOR, factor)

    def _first_step(self) -> float:
        """Short enough to be stable as Euler's, and for the first change of the field to be small."""
        h = min(self._end - self.t, self._longest)
        longest = h
        if self._radius * h > 1:
            h = 1 / self._radius
        do, problem = self._do, self._problem
        rate = do.sum({self._start: 1.0})
        do.add(self._stage, self._y, self._rows, rate, h)
        self._rhs(self.t + h, self._stage, self._rows[self._last])
        change = do.sum({self._start: -1.0, self._last: 1.0})
        _, square = do.mean_squares(self._y, None, self._rows, (change,), problem.atol, problem.rtol)
        size = h * math.sqrt(square)
        if not math.isfinite(size):
            self._require_finite()
            return h * 1e-6
        return min(longest, 0.1 * h / math.sqrt(size)) if size > 0 else longest

    def _look_at_radius(self) -> None:
        """The spectral radius at (t, y), if it is time: the oftener, the more it changes."""
        if self._found:
            return
        rate = self._rows[self._start]
        if self._sharpness is None:
            radius = self._own(self.t, self._y, self._stage, rate, self._rows[self._last])
        else:
            self._stage.copy_(self._y)
            radius = abs(self._sharpness(self.t, self._stage, rate))
        before, self._seen = self._seen, radius
        changed = abs(radius - before) > _CHANGED * before
        self._seldom = max(1, self._seldom // 2) if changed else min(2 * self._seldom, _SELDOM)
        # One that has grown is expected to grow as much until it is looked at again.
        growth = min(_MOST_GROWTH, radius / before) if radius > before > 0 else 1.0
        self._radius, self._age, self._found = growth * radius, 0, True
