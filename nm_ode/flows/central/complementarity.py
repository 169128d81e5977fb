"""How large the oscillation at the edge of stability is: a small quadratic programme over semidefinite matrices.

    minimise ½⟨X, BX⟩ + ⟨A, X⟩ over X ⪰ 0,   ⟨X, BX⟩ = Σ X_ij B_ijkl X_kl,

whose solution is the X ⪰ 0 with S = BX + A ⪰ 0 and ⟨X, S⟩ = 0.

Newton's method along the central path (Chen, Tseng, "Non-interior continuation methods for solving semidefinite
complementarity problems", Math. Program. 95, 2003). With Z symmetric and μ > 0, X = ½(Z + √(Z² + 4μ)) and S = X − Z are
positive definite with XS = μ, so that the one equation BX + A = S in Z is left, whose Jacobian is regular. With μ = 0
X and S are the two parts of Z: they are semidefinite and orthogonal whatever Z is, and the last steps converge
quadratically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nm_ode.flows.base import OscillationError

Matrix = NDArray[np.float64]

_ASYMMETRY = 1e-8  # of A and B, relative to their size: more is a mistake, less is rounding
_MOST = 1e9  # of X, times B over A: on the way to more nothing that is seen bounds X
_REACHED = 1e-12
_SHRINK = 0.04  # of μ from one point of the path to the next
_LEAST = 1e-22  # of μ
_NEWTON = 25  # steps at one μ
_POLISH = 6  # steps with μ = 0 that may follow without gain
_FROM = 1e-5  # of μ, from where on steps with μ = 0 are tried
_RESCALED = 3
_RIDGE, _RIDGED = 1e-10, 1e-9


@dataclass(frozen=True, eq=False)
class Oscillation:
    """The covariance of an oscillation, in the basis in which A and B are given.

    Attributes:
        x: shape (k, k), X ⪰ 0.
        kkt: the larger of two residuals: the most negative eigenvalue of BX + A, relative to max(‖A‖, ‖BX‖), and
            ⟨X, BX + A⟩, relative to that and the size of X.
        iterations: Newton steps; 0 where the solution is written down.
    """

    x: Matrix
    kkt: float
    iterations: int


def solve_complementarity(a: Matrix, b: NDArray[np.float64]) -> Oscillation:
    """The X ⪰ 0 that minimises ½⟨X, BX⟩ + ⟨A, X⟩.

    Where B has a kernel X may not be unique; BX is, and X is then a point inside the set of solutions. How accurate it
    is is said by `kkt`, and not judged here.

    Args:
        a: shape (k, k), symmetric.
        b: shape (k, k, k, k), symmetric in its first two, in its last two and between these pairs, and positive
            semidefinite on symmetric matrices: b[i, j, k, l] = ½⟨T_ij, T_kl⟩.

    Raises:
        OscillationError: another shape, a number that is not finite, a symmetry that is missing, B not positive
            semidefinite, or no minimum, since X grows without bound.
    """
    a, b = _checked(a, b)
    k = len(a)
    if k == 0 or np.linalg.eigvalsh(a)[0] >= 0:
        return Oscillation(np.zeros((k, k)), 0.0, 0)
    if k == 1:
        return _of_one(float(a[0, 0]), float(b[0, 0, 0, 0]))
    basis = _symmetric_basis(k)
    offset = np.einsum("aij,ij->a", basis, a)
    matrix = np.einsum("aij,ijkl,bkl->ab", basis, b, basis, optimize=True)
    size, largest = float(np.linalg.norm(offset)), _largest(matrix)
    if not largest > 0:
        raise _unbounded()
    matrix, offset = matrix / largest, offset / size
    try:
        x, kkt, steps = _solved(basis, matrix, offset)
    except OscillationError:
        # Or B is singular but for rounding, as where eigenvectors are alike by a symmetry: then a little more bounds X.
        x, _, steps = _solved(basis, matrix + _RIDGE * np.eye(len(matrix)), offset)
        kkt = _residual(basis, matrix, offset, x)
        if not kkt <= _RIDGED:
            raise
    found = (size / largest) * np.einsum("a,aij->ij", x, basis)
    if not np.isfinite(found).all():
        raise _unbounded()
    return Oscillation(found, kkt, steps)


def _solved(basis: Matrix, matrix: Matrix, offset: Matrix) -> tuple[Matrix, float, int]:
    """X in the basis, its residual, and Newton steps; the largest eigenvalue of the matrix and ‖offset‖ are 1.

    Raises:
        OscillationError: X has no bound.
    """
    x, kkt, steps, grown = np.zeros_like(offset), math.inf, 0, 1.0
    for _ in range(_RESCALED):
        # X and S of one size: where X is much larger than S, rounding of the one is all that is left of the other.
        scale = grown
        scaled, spent = _follow(basis, scale * matrix, offset)
        residual, steps = _residual(basis, scale * matrix, offset, scaled), steps + spent
        if residual < kkt:
            x, kkt = scale * scaled, residual
        grown = float(np.linalg.norm(x))
        if kkt <= _REACHED or 0.1 * scale < grown < 10 * scale:
            break
    return x, kkt, steps


def _of_one(a: float, b: float) -> Oscillation:
    """−A/B, A being negative."""
    if b < 0:
        raise _indefinite(b)
    x = -a / b if b > 0 else math.inf
    if not math.isfinite(x):
        raise _unbounded()
    return Oscillation(np.array([[x]]), abs(b * x + a) / -a, 0)


def _follow(basis: Matrix, matrix: Matrix, offset: Matrix) -> tuple[Matrix, int]:
    """X in the basis, and the Newton steps taken; ‖offset‖ = 1.

    Raises:
        OscillationError: no central path, since X has no bound.
    """
    z, mu, steps = np.zeros_like(offset), 1.0, 0
    best = np.zeros_like(offset)
    least = _residual(basis, matrix, offset, best)
    while mu > _LEAST:
        for _ in range(_NEWTON):
            point = _Point(basis, matrix, offset, z, mu)
            if point.error <= 0.1 * math.sqrt(mu):
                break
            if not np.linalg.norm(point.x) <= _MOST:
                raise _unbounded()
            z, steps = point.nearer(), steps + 1
        if mu < _FROM:
            last, since = z, 0
            while since < _POLISH and least > _REACHED:
                point = _Point(basis, matrix, offset, last, 0.0)
                found = _residual(basis, matrix, offset, point.x)
                since = 0 if found < least else since + 1
                if found < least:
                    best, least = point.x, found
                last, steps = last + point.newton(), steps + 1
            if least <= _REACHED:
                break
        mu *= _SHRINK
    return best, steps


class _Point:
    """X and S of one Z and μ, all in the basis."""

    def __init__(self, basis: Matrix, matrix: Matrix, offset: Matrix, z: Matrix, mu: float) -> None:
        self._basis, self._matrix, self._offset, self._z, self._mu = basis, matrix, offset, z, mu
        values, self._turn = np.linalg.eigh(np.einsum("a,aij->ij", z, basis))
        self._values, self._root = values, np.sqrt(values**2 + 4 * mu)
        self.x = self._of_values(_positive_part(values, mu))
        self._gap = matrix @ self.x + offset - self._of_values(_positive_part(-values, mu))
        self.error = float(np.linalg.norm(self._gap))

    def newton(self) -> Matrix:
        """The step of Z by which BX + A − S is 0 to first order."""
        # X changes by the divided differences of z → x, which lie between 0 and 1.
        sums, roots = (np.add.outer(one, one) for one in (self._values, self._root))
        share = 0.5 * (1 + np.divide(sums, roots, out=np.zeros_like(sums), where=roots > 0))
        turned = np.einsum("ip,aij,jq->apq", self._turn, self._basis, self._turn, optimize=True)
        change = np.einsum("apq,pq,bpq->ab", turned, share, turned, optimize=True)
        jacobian = self._matrix @ change + np.eye(len(change)) - change
        step: Matrix
        try:
            step = np.linalg.solve(jacobian, -self._gap)
        except np.linalg.LinAlgError:
            if self._mu > 0:  # it is regular but for rounding, X being large
                raise _unbounded() from None
            step = np.linalg.lstsq(jacobian, -self._gap)[0]
        return step

    def nearer(self) -> Matrix:
        """Z after a Newton step that is shortened until the error falls."""
        step, length = self.newton(), 1.0
        while length > 1e-10:
            z = self._z + length * step
            after = _Point(self._basis, self._matrix, self._offset, z, self._mu)
            if after.error <= (1 - 0.1 * length) * self.error:
                break
            length /= 2
        return z

    def _of_values(self, values: Matrix) -> Matrix:
        found: Matrix = np.einsum(
            "aij,ip,p,jp->a", self._basis, self._turn, values, self._turn, optimize=True
        )
        return found


def _positive_part(z: Matrix, mu: float) -> Matrix:
    """½(z + √(z² + 4μ)), without cancellation."""
    root = np.sqrt(z**2 + 4 * mu)
    large = 0.5 * (np.abs(z) + root)
    return np.where(z > 0, large, np.divide(mu, large, out=np.zeros_like(large), where=large > 0))


def _residual(basis: Matrix, matrix: Matrix, offset: Matrix, x: Matrix) -> float:
    """`Oscillation.kkt`; ‖offset‖ = 1."""
    bent = matrix @ x
    slack, size = bent + offset, max(1.0, float(np.linalg.norm(bent)))
    outside = -float(np.linalg.eigvalsh(np.einsum("a,aij->ij", slack, basis))[0])
    room = max(float(np.linalg.norm(x)), size / _largest(matrix))
    return max(outside / size, abs(float(x @ slack)) / (size * room), 0.0)


def _largest(matrix: Matrix) -> float:
    """The largest eigenvalue.

    Raises:
        OscillationError: a negative one, beyond rounding.
    """
    values = np.linalg.eigvalsh(matrix)
    if values[0] < -_ASYMMETRY * max(abs(values[0]), abs(values[-1])):
        raise _indefinite(float(values[0]))
    return float(values[-1])


def _symmetric_basis(k: int) -> NDArray[np.float64]:
    """Orthonormal, of the symmetric matrices, shape (k(k+1)/2, k, k): a pair off the diagonal counts twice."""
    rows, columns = np.triu_indices(k)
    basis = np.zeros((len(rows), k, k))
    each = np.where(rows == columns, 1.0, math.sqrt(0.5))
    basis[np.arange(len(rows)), rows, columns] = each
    basis[np.arange(len(rows)), columns, rows] = each
    return basis


def _checked(a: Matrix, b: NDArray[np.float64]) -> tuple[Matrix, NDArray[np.float64]]:
    """As float64, with rounding's asymmetry taken out."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    k = a.shape[0] if a.ndim else 0
    if a.shape != (k, k) or b.shape != (k,) * 4:
        raise OscillationError(
            f"A and B must have the shapes (k, k) and (k, k, k, k); {a.shape}, {b.shape} were given"
        )
    for name, given, orders in (("A", a, ((1, 0),)), ("B", b, ((1, 0, 2, 3), (0, 1, 3, 2), (2, 3, 0, 1)))):
        if not np.isfinite(given).all():
            raise OscillationError(
                f"{name} of the oscillation is not finite: the loss or its derivatives overflowed; start nearer, or "
                "take a smaller lr"
            )
        size = float(np.abs(given).max(initial=0.0))
        for order in orders:
            if float(np.abs(given - given.transpose(order)).max(initial=0.0)) > _ASYMMETRY * size:
                raise OscillationError(f"{name} of the oscillation must be symmetric; it is not")
    a = (a + a.T) / 2
    b = (b + b.transpose(1, 0, 2, 3)) / 2
    b = (b + b.transpose(0, 1, 3, 2)) / 2
    return a, (b + b.transpose(2, 3, 0, 1)) / 2


def _indefinite(value: float) -> OscillationError:
    return OscillationError(
        f"B of the oscillation must be positive semidefinite; it has the eigenvalue {value:.3g}"
    )


def _unbounded() -> OscillationError:
    return OscillationError(
        "the oscillation at the edge of stability has no bound: along one of its directions the curvature does not "
        "fall as it grows, so descent leaves this place and no central flow follows; take a smaller lr"
    )
