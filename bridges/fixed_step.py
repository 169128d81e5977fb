"""Explicit Runge–Kutta methods with a fixed step, whose error is estimated by step halving."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import DOP853

from bridges.problem import Array, OdeProblem, Rhs
from bridges.vectors import Vector, copied, distance, like, on_host


@dataclass(frozen=True, eq=False)
class Tableau:
    """Coefficients of an explicit method: stages k_i = f(t + c_i h, y + h Σ a_ij k_j), step y + h Σ b_i k_i."""

    a: Array
    b: Array
    c: Array


MIDPOINT = Tableau(np.array([[0.0, 0.0], [0.5, 0.0]]), np.array([0.0, 1.0]), np.array([0.0, 0.5]))
RK8 = Tableau(DOP853.A, DOP853.B, DOP853.C)
"""The eighth-order method of Dormand and Prince that DOP853 controls; twelve stages (Hairer, Nørsett, Wanner, II.5)."""


class FixedSteps(ABC):
    """Steps of h and of h/2 side by side from the same start; the finer one is the solution. A subclass takes a step.

    Their difference is the error estimate. Samples and restarts are ends of steps, so that nothing is interpolated and
    no step crosses a jump.
    """

    def __init__(self, problem: OdeProblem) -> None:
        assert problem.step is not None
        self._step, self._problem = problem.step, problem
        self._grid = np.union1d(problem.times, _inside(problem.restarts, problem.times))
        self._coarse, self._fine = copied(problem.y0), copied(problem.y0)
        self._interval, self._done, self._in_interval, self._entered = 0, 0, 0, False
        if problem.memory:  # in the middle of an interval: its steps are those that it was divided into
            self._coarse = copied(like(problem.y0, problem.memory["coarse"]))
            self._grid[0], done, parts = problem.memory["interval"]
            self._done, self._in_interval = int(done), int(parts)
        self.t = float(problem.times[0])
        self.steps = 0
        self.rejected_steps = 0

    def advance(self) -> None:
        start, end = self._grid[self._interval], self._grid[self._interval + 1]
        if self._done == 0:
            self._in_interval = max(1, math.ceil((end - start) / self._step * (1 - 1e-12)))
        if self._done == 0 or not self._entered:
            self._entered = True
            self._restart_at(start)
        h = (end - start) / self._in_interval
        t = start + self._done * h
        self._take(t, h, self._coarse)
        self._take(t, h / 2, self._fine)
        self._take(t + h / 2, h / 2, self._fine)
        self.steps += 1
        self._done += 1
        if self._done == self._in_interval:
            self._interval, self._done = self._interval + 1, 0
            self.t = float(end)
        else:
            self.t = float(t + h)

    def memory(self) -> dict[str, Array]:
        """The coarser solution, and how far the interval between two samples or restarts is done."""
        interval = np.array([self._grid[self._interval], self._done, self._in_interval])
        return {"coarse": on_host(self._coarse), "interval": interval}

    def _restart_at(self, start: float) -> None:
        restarts, on_restart = self._problem.restarts, self._problem.on_restart
        if restarts is None or on_restart is None:
            return
        which = int(np.searchsorted(restarts, start, side="right")) - 1
        if which >= 0:
            on_restart(which)

    @abstractmethod
    def _take(self, t: float, h: float, y: Vector) -> None:
        """A step of h from (t, y), in y."""

    def at(self, t: float) -> Vector:
        assert t == self.t
        return self._fine

    def error_at_sample(self) -> float | None:
        return distance(self._coarse, self._fine)


class FixedStep(FixedSteps):
    """By a tableau, on arrays."""

    def __init__(self, tableau: Tableau, problem: OdeProblem, rhs: Rhs) -> None:
        super().__init__(problem)
        self._tableau, self._rhs = tableau, rhs
        self._slopes = np.empty((len(tableau.b), problem.y0.size))

    def _take(self, t: float, h: float, y: Array) -> None:
        a, b, c = self._tableau.a, self._tableau.b, self._tableau.c
        for i, slope in enumerate(self._slopes):
            stage = y + h * (a[i, :i] @ self._slopes[:i]) if i else y
            self._rhs(t + c[i] * h, stage, slope)
        y += h * (b @ self._slopes)


def _inside(restarts: Array | None, times: Array) -> NDArray[np.float64]:
    if restarts is None:
        return times[:0]
    return np.asarray(restarts[(restarts > times[0]) & (restarts < times[-1])])
