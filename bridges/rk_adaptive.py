"""Embedded Runge–Kutta pairs in place, with the step-size control of SciPy's classes.

The vectors are somebody else's (`Arithmetic`); here is what is done with them, and when. Of their numbers a step asks
for the norm of its error alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bridges.arithmetic import Arithmetic, Sum
from bridges.problem import Array, OdeProblem, Rhs
from bridges.rk_tables import Coefficients, Embedded, nonzero
from bridges.stepping import StepFailure
from bridges.vectors import Vector, copied, like, on_host

_SAFETY, _SMALLEST_FACTOR, _LARGEST_FACTOR = 0.9, 0.2, 10.0


class AdaptivePair:
    """Steps of an embedded pair; stages in the field's dtype, the state in float64.

    Args:
        require_finite: raises SolveStopped if a right-hand side was not; asked where a norm is not.
    """

    def __init__(
        self,
        scheme: Embedded,
        problem: OdeProblem,
        rhs: Rhs,
        require_finite: Callable[[], None],
        arithmetic: Arithmetic,
    ) -> None:
        self._scheme, self._problem, self._rhs, self._do = scheme, problem, rhs, arithmetic
        self._require_finite = require_finite
        self._stages, n = len(scheme.a), len(scheme.a)
        self._a = tuple(self._sum(terms) for terms in scheme.a)
        self._b = self._sum(scheme.b)
        self._errors = tuple(self._sum(terms) for terms in scheme.errors)
        self._rows = arithmetic.rows(scheme.n_rows)
        self._first, self._last = self._rows[scheme.rows[0]], self._rows[scheme.rows[n]]
        self._y, self._stage = copied(problem.y0), arithmetic.of_field()
        # A stage in float64 is the state at the step's end as well, and then makes room for samples.
        self._whole = self._stage.dtype == self._y.dtype
        self._extra_done = False
        self.t, self._end = float(problem.times[0]), float(problem.times[-1])
        self._longest = math.inf if problem.max_step is None else problem.max_step
        self._h = 0.0
        self.steps = 0
        self.rejected_steps = 0
        if problem.memory:
            self._last.copy_(like(self._y, problem.memory["rate"]))
            self._next = float(problem.memory["step"][0])
        else:
            self._stage.copy_(self._y)
            rhs(self.t, self._stage, self._last)
            self._next = self._first_step()

    def advance(self) -> None:
        shortest = 10 * (math.nextafter(self.t, math.inf) - self.t)
        length = min(max(self._next, shortest), self._longest)
        self._first.copy_(self._last)
        rejected = False
        while True:
            if length < shortest:
                raise StepFailure("the step has shrunk below the rounding of the time")
            end = min(self.t + length, self._end)
            self._h = length = end - self.t
            error = self._attempt(end)
            if error < 1:
                break
            if math.isfinite(error):
                length *= max(_SMALLEST_FACTOR, self._factor(error))
            else:  # a square that overflows, unless it is the field
                self._require_finite()
                length *= _SMALLEST_FACTOR
            rejected = True
            self.rejected_steps += 1
        growth = _LARGEST_FACTOR if error == 0 else min(_LARGEST_FACTOR, self._factor(error))
        self._next = length * (min(1.0, growth) if rejected else growth)
        if self._whole:
            self._y, self._stage = self._stage, self._y
        else:
            self._do.add(self._y, self._y, self._rows, self._b, self._h)
        self.t, self._extra_done = end, False
        self.steps += 1

    def at(self, t: float) -> Vector:
        if t == self.t:
            return self._y
        self._evaluate_extra()
        share = 1 + (t - self.t) / self._h
        sample = self._stage if self._whole else self._do.state()
        self._from_end(sample, self._scheme.inside(share))
        return sample

    def memory(self) -> dict[str, Array]:
        """The length of the step to come, and the rate at its start; no more is there to a one-step method."""
        return {"step": np.array([self._next]), "rate": on_host(self._last)}

    def error_at_sample(self) -> float | None:
        return None

    def _attempt(self, end: float) -> float:
        """All stages of a step to `end`, and the norm of its error."""
        scheme, y, stage, h = self._scheme, self._y, self._stage, self._h
        for i in range(1, self._stages):
            self._do.add(stage, y, self._rows, self._a[i], h)
            self._rhs(self.t + float(scheme.c[i]) * h, stage, self._rows[scheme.rows[i]])
        self._do.add(stage, y, self._rows, self._b, h)
        self._rhs(end, stage, self._last)
        problem = self._problem
        squares = self._do.mean_squares(y, stage, self._rows, self._errors, problem.atol, problem.rtol)
        return scheme.estimate(squares, h)

    def _factor(self, error: float) -> float:
        return _SAFETY * math.pow(error, -1 / (self._scheme.error_order + 1))

    def _first_step(self) -> float:
        """Hairer, Nørsett, Wanner, II.4, as SciPy has it: by the sizes of the field and of its first difference."""
        do, scheme, problem, span = self._do, self._scheme, self._problem, self._end - self.t
        at_start, after = scheme.rows[self._stages], scheme.rows[0]
        rate, change = do.sum({at_start: 1.0}), do.sum({at_start: -1.0, after: 1.0})

        def sizes(terms: Sum) -> list[float]:
            squares = do.mean_squares(self._y, None, self._rows, (terms,), problem.atol, problem.rtol)
            return [math.sqrt(square) for square in squares]

        d0, d1 = sizes(rate)
        if not math.isfinite(d1):
            self._require_finite()
            return 0.0  # the shortest
        h = min(1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1, span)
        do.add(self._stage, self._y, self._rows, rate, h)
        self._rhs(self.t + h, self._stage, self._first)
        d2 = sizes(change)[1] / h
        if not math.isfinite(d1 + d2):
            self._require_finite()
            return 0.0  # the shortest
        if d1 <= 1e-15 and d2 <= 1e-15:
            second = max(1e-6, h * 1e-3)
        else:
            second = math.pow(0.01 / max(d1, d2), 1 / (scheme.error_order + 1))
        return min(100 * h, second, span, self._longest)

    def _evaluate_extra(self) -> None:
        """The stages that the polynomial needs beyond the step's, in rows that the step is done with."""
        if self._extra_done:
            return
        begin = self.t - self._h
        for i, (coefficients, c) in enumerate(self._scheme.extra, start=self._stages + 1):
            self._from_end(self._stage, coefficients)
            self._rhs(begin + c * self._h, self._stage, self._rows[self._scheme.rows[i]])
        self._extra_done = True

    def _from_end(self, out: Vector, coefficients: Array) -> None:
        """out = state at the step's start + h · sum of stages; by the one at its end, for that at its start is gone."""
        difference = coefficients.copy()
        for i, value in self._scheme.b.items():
            difference[i] -= value
        self._do.add(out, self._y, self._rows, self._sum(nonzero(difference)), self._h)

    def _sum(self, stages: Coefficients) -> Sum:
        return self._do.sum({self._scheme.rows[i]: value for i, value in stages.items()})
