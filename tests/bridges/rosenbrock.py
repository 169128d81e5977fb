"""An implicit method in the place of Julia's: a Rosenbrock method of order 4, matrix-free.

Its order needs the Jacobian, as Rodas5P's does: with products that are wrong it needs thousands of steps.
Coefficients of L. F. Shampine, Implementation of Rosenbrock methods, ACM TOMS 8 (1982).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_GAMMA = 0.5
_A = ((), (2.0,), (48 / 25, 6 / 25), (48 / 25, 6 / 25, 0.0))
_C = ((), (-8.0,), (372 / 25, 12 / 5), (-112 / 125, -54 / 125, -2 / 5))
_B = np.array([19 / 9, 1 / 2, 25 / 108, 125 / 108])
_E = np.array([17 / 54, 7 / 36, 0.0, 125 / 108])
_TIMES = (0.0, 1.0, 3 / 5, 3 / 5)
_RATES = (1 / 2, -3 / 2, 121 / 50, 29 / 250)
_SMALL = 1e-9  # times the direction that is wanted: iterative solvers ask with directions of any size

Field = Callable[[float, np.ndarray], np.ndarray]
Product = Callable[[float, np.ndarray, np.ndarray], np.ndarray]


class Rosenbrock:
    """Steps as SciPy's solvers take them: `step()` until `status` is no longer "running".

    Attributes:
        t, y: at the end of the last step.
        rejected: attempts that were given up.
    """

    def __init__(
        self,
        field: Field,
        product: Product,
        t: float,
        y: np.ndarray,
        end: float,
        *,
        rtol,
        atol,
        max_step=np.inf,
    ) -> None:
        self._field, self._product, self._end = field, product, end
        self._rtol, self._atol, self._max_step = rtol, atol, max_step
        self.t, self.y, self.status, self.rejected = t, y.copy(), "running", 0
        self._h: float | None = None

    def step(self) -> str | None:
        at_start = self._field(self.t, self.y)
        if self._h is None:
            self._h = 1e-2 * (1e-2 + float(np.linalg.norm(self.y))) / (1e-2 + float(np.linalg.norm(at_start)))
        while True:
            h = min(self._h, self._max_step, self._end - self.t)
            if h < 10 * np.spacing(max(abs(self.t), 1e-30)):
                self.status = "failed"
                return "no step is small enough"
            moved, error = self._attempt(h, at_start)
            weight = self._atol + self._rtol * np.maximum(np.abs(self.y), np.abs(moved))
            size = float(np.sqrt(np.mean((error / weight) ** 2)))
            self._h = h * min(4.0, max(0.2, 0.9 * max(size, 1e-10) ** -0.25)) if np.isfinite(size) else h / 10
            if size <= 1:
                break
            self.rejected += 1
        self.t, self.y = self.t + h, moved
        if self.t >= self._end * (1 - 1e-15) and h >= self._end - self.t:
            self.t, self.status = self._end, "finished"
        return None

    def _attempt(self, h: float, at_start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        t, y = self.t, self.y
        shift = 1e-8 * max(1.0, abs(t))
        in_time = (self._field(t + shift, y) - at_start) / shift

        def times_matrix(v: np.ndarray) -> np.ndarray:
            return v / (_GAMMA * h) - self._product(t, y, _SMALL * v) / _SMALL

        stages: list[np.ndarray] = []
        for i in range(4):
            if i == 0:
                rate = at_start
            elif i < 3:
                rate = self._field(
                    t + _TIMES[i] * h, y + sum(a * g for a, g in zip(_A[i], stages, strict=True))
                )
            right = (
                rate + h * _RATES[i] * in_time + sum(c * g for c, g in zip(_C[i], stages, strict=True)) / h
            )
            stages.append(_gmres(times_matrix, right))
        return y + _B @ stages, _E @ stages


def _gmres(
    times_matrix: Callable[[np.ndarray], np.ndarray], right: np.ndarray, tolerance: float = 1e-12
) -> np.ndarray:
    """x with A x = right, in at most n products."""
    size, n = float(np.linalg.norm(right)), right.size
    if size == 0:
        return np.zeros_like(right)
    basis, columns = [right / size], np.zeros((n + 1, n))
    for k in range(n):
        new = times_matrix(basis[k])
        for _ in range(2):  # orthogonal to rounding
            for i, one in enumerate(basis):
                part = one @ new
                columns[i, k] += part
                new = new - part * one
        columns[k + 1, k] = np.linalg.norm(new)
        target = np.zeros(k + 2)
        target[0] = size
        found, *_ = np.linalg.lstsq(columns[: k + 2, : k + 1], target, rcond=None)
        residual = np.linalg.norm(columns[: k + 2, : k + 1] @ found - target)
        if residual <= tolerance * size or columns[k + 1, k] <= tolerance * size:
            break
        basis.append(new / columns[k + 1, k])
    return found @ np.array(basis[: found.size])
