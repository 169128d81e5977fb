"""Explicit Runge–Kutta schemes as sums of stages that lie in the rows of one matrix; the numbers are SciPy's.

Stage i is f(t + c_i h, y + h Σ a_ij k_j), the step y + h Σ b_i k_i, stage n (of n stages) the field at the step's end.
A stage that no later sum has makes room for another, so that a scheme needs fewer rows than stages; and stages lie so
that the sums take neighbouring rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import DOP853, RK23, RK45

from bridges.fixed_step import MIDPOINT, RK8, Tableau

Numbers: TypeAlias = NDArray[np.float64]
Coefficients: TypeAlias = Mapping[int, float]
"""Stage → its coefficient in a sum; none is zero."""


def nonzero(numbers: Numbers) -> Coefficients:
    """The entries that are not zero, by their number."""
    return {int(i): float(numbers[i]) for i in np.flatnonzero(numbers)}


@dataclass(frozen=True, eq=False)
class Scheme:
    """A scheme of n stages.

    Attributes:
        a: sum of stage i, for each of the n stages.
        b, c: sum of the step; nodes.
        rows: where stage i lies.
    """

    a: tuple[Coefficients, ...]
    b: Coefficients
    c: Numbers
    rows: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return max(self.rows) + 1


@dataclass(frozen=True, eq=False)
class Embedded(Scheme):
    """A scheme with an estimate of its error and a polynomial inside the step; stage n is the next step's first.

    Attributes:
        error_order: the estimate is of h^(error_order + 1).
        errors: sums of which the estimate is made.
        estimate: (mean squares of those sums over the weights, h) → the norm of the error.
        extra: stages n+1 … that the polynomial needs, (coefficients of their sum, node).
        inside: share of the step → coefficients of the stages, of which y + h Σ is the state there.
    """

    error_order: int
    errors: tuple[Coefficients, ...]
    estimate: Callable[[list[float], float], float]
    inside: Callable[[float], Numbers]
    extra: tuple[tuple[Numbers, float], ...] = field(default=())


def _sums(tableau: Tableau) -> dict[str, Any]:
    return {
        "a": tuple(nonzero(row[:i]) for i, row in enumerate(tableau.a)),
        "b": nonzero(tableau.b),
        "c": tableau.c,
    }


def _plain(squares: list[float], h: float) -> float:
    return float(abs(h) * np.sqrt(squares[0]))


def _of_dop853(squares: list[float], h: float) -> float:
    """Hairer, Nørsett, Wanner, II.10: the estimate of order 5, corrected by that of order 3."""
    fifth, third = squares
    if fifth == 0 and third == 0:
        return 0.0
    if not math.isfinite(fifth + third):
        return math.inf
    return float(abs(h) * fifth / np.sqrt(fifth + 0.01 * third))


def _embedded(method: type[RK23] | type[RK45]) -> Embedded:
    powers = np.arange(1, method.P.shape[1] + 1)
    return Embedded(
        **_sums(Tableau(method.A, method.B, method.C)),
        rows=tuple(range(method.n_stages + 1)),
        error_order=method.error_estimator_order,
        errors=(nonzero(method.E),),
        estimate=_plain,
        inside=lambda share: method.P @ share**powers,
    )


def _inside_dop853(share: float) -> Numbers:
    """The polynomial of degree 7 in its nested form, multiplied out: 7 terms, of which the last four are `D`'s."""
    rest = 1 - share
    terms = np.cumprod([share, rest, share, rest, share, rest, share])
    found = np.zeros(16)
    found[:12] += (terms[0] - terms[1] + 2 * terms[2]) * DOP853.B
    found[0] += terms[1] - terms[2]
    found[12] -= terms[2]
    return np.asarray(found + terms[3:] @ DOP853.D)


SCHEMES: Mapping[str, Embedded] = {
    # Stages 1 to 4 are in no sum of the step: 2 takes 1's row when 1 is done with, and the polynomial's stages take
    # theirs.
    "DOP853": Embedded(
        **_sums(RK8),
        rows=(3, 0, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2),
        error_order=DOP853.error_estimator_order,
        errors=(nonzero(DOP853.E5), nonzero(DOP853.E3)),
        estimate=_of_dop853,
        inside=_inside_dop853,
        extra=tuple((a, float(c)) for a, c in zip(DOP853.A_EXTRA, DOP853.C_EXTRA, strict=True)),
    ),
    "RK45": _embedded(RK45),
    "RK23": _embedded(RK23),
}
"""Pairs with SciPy's names."""

FIXED: Mapping[str, Scheme] = {
    "Midpoint": Scheme(**_sums(MIDPOINT), rows=(0, 0)),
    "RK8": Scheme(**_sums(RK8), rows=(3, 0, 0, 1, 2, 4, 5, 6, 7, 8, 9, 0)),
}
"""For a fixed step, as in `bridges.fixed_step`."""
