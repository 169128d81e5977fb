"""Methods with a fixed step and step halving in place: `bridges.fixed_step` on vectors that may lie on a device."""

from __future__ import annotations

from bridges.arithmetic import Arithmetic
from bridges.fixed_step import FixedSteps
from bridges.problem import OdeProblem, Rhs
from bridges.rk_tables import Scheme
from bridges.vectors import Vector


class FixedPair(FixedSteps):
    """Steps of h and of h/2 side by side, by a scheme whose stages lie in rows of the field's dtype."""

    def __init__(self, scheme: Scheme, problem: OdeProblem, rhs: Rhs, arithmetic: Arithmetic) -> None:
        super().__init__(problem)
        self._scheme, self._rhs, self._do = scheme, rhs, arithmetic
        self._rows, self._stage = arithmetic.rows(scheme.n_rows), arithmetic.of_field()
        self._a, self._b = (
            tuple(arithmetic.sum({scheme.rows[j]: value for j, value in terms.items()}) for terms in group)
            for group in (scheme.a, (scheme.b,))
        )

    def _take(self, t: float, h: float, y: Vector) -> None:
        scheme = self._scheme
        for i, terms in enumerate(self._a):
            if i:
                self._do.add(self._stage, y, self._rows, terms, h)
            else:
                self._stage.copy_(y)
            self._rhs(t + float(scheme.c[i]) * h, self._stage, self._rows[scheme.rows[i]])
        self._do.add(y, y, self._rows, self._b[0], h)
