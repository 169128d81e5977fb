"""The largest eigenvalues of a symmetric matrix, from its products: a search that goes on where the last one ended.

Lanczos with thick restarts and full orthogonalisation (Wu & Simon 2000), on the device. A search that starts from the
sum of the eigenvectors of a matrix near by needs few products, but may never see an eigenvalue that has come up in a
direction orthogonal to them, nor a second one of the same value. So another search follows, orthogonal to what was
found, and is broken off after a few products if it finds nothing that is larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nm_ode.loss.directions import normal
from nm_ode.loss.operators import SymmetricOperator
from nm_ode.loss.sums import norm

_BASIS = 12  # vectors beyond those that are wanted, at least
_GUARD = 6  # products of the search for what a start near by knows nothing of
_NEW = 0.1  # of a start from known vectors that is random


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """The largest eigenvalues found, with the vectors.

    Attributes:
        values: shape (k,), float64 on the host, from the largest down.
        vectors: shape (k, P), orthonormal rows.
        residuals: ‖A v − λ v‖, shape (k,), float64 on the host: so near to each value there is an eigenvalue.
        products: how many were spent.
        converged: are all residuals below the tolerance?
        asymmetry: of the products, relative to the matrix: rounding, if it is symmetric.
        start: what the next search, of a matrix near by, starts from; shape (k + 1, P), or (k, P).
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool
    asymmetry: float
    start: Tensor


def largest_eigenpairs(
    operator: SymmetricOperator,
    count: int,
    *,
    start: Tensor | None = None,
    also: Tensor | None = None,
    tol: float = 1e-3,
    most: int = 200,
    seed: int = 0,
) -> Eigenpairs:
    """The `count` largest eigenvalues with sign (all, if there are no more), and their vectors.

    In memory there are at most 2·max(count, 6) + count vectors of P numbers.

    Args:
        start: `Eigenpairs.start` of a matrix near by.
        also: shape (P,), in which eigenvectors are likely to lie: a gradient, say.
        tol: of the residuals, relative to the largest eigenvalue in size. The eigenvalues are much closer: by the
            residual's square over the distance to the next eigenvalue.
        most: products, from which on what was found is given as it is.
        seed: of the random vectors.
    """
    count = min(count, operator.size)
    source = torch.Generator("cpu").manual_seed(seed)

    def drawn() -> Tensor:
        return _unit(normal(operator.like, source))

    known = [] if start is None else list(start)
    first = drawn() if not known else sum(known[:count], start=_NEW * drawn())
    if not known and also is not None:
        first += _unit(also)
    search = _Search(operator, count, tol, drawn)
    search.run(first, most)
    found, spent, asymmetry, scale = search.top(count), search.products, search.asymmetry, search.scale
    beyond: Tensor | None = None
    while count < operator.size and spent < most:
        first = sum(known[count:], start=drawn()) + (0.0 if also is None else _unit(also))
        known, least = [], float(found.values[-1])
        search = _Search(operator, 1, tol, drawn, found.vectors, scale)
        search.run(first, most - spent, least)
        spent, asymmetry = spent + search.products, max(asymmetry, search.asymmetry)
        if not search.products:
            break
        one = search.top(1)
        if not float(one.values[0]) > least:
            beyond = one.vectors
            break
        found, beyond = found.with_one(one)
    following = found.vectors if beyond is None else torch.cat([found.vectors, beyond])
    small = bool((found.residuals <= tol * scale).all())
    return Eigenpairs(found.values, found.vectors, found.residuals, spent, small, asymmetry, following)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """From the largest down."""

    values: Tensor
    vectors: Tensor
    residuals: Tensor

    def with_one(self, other: _Pairs) -> tuple[_Pairs, Tensor]:
        """As many of both, and the vector that is left over."""
        order = torch.cat([self.values, other.values]).argsort(descending=True)
        vectors = torch.cat([self.vectors, other.vectors])[order.to(self.vectors.device)]
        residuals = torch.cat([self.residuals, other.residuals])[order]
        values = torch.cat([self.values, other.values])[order]
        return _Pairs(values[:-1], vectors[:-1], residuals[:-1]), vectors[-1:]


class _Search:
    """Of what is orthogonal to `locked`: A V = V S + β q eᵀ, with S dense after a restart.

    Args:
        scale: the largest eigenvalue in size, as far as it is known.
    """

    def __init__(
        self,
        operator: SymmetricOperator,
        wanted: int,
        tol: float,
        drawn: Callable[[], Tensor],
        locked: Tensor | None = None,
        scale: float = 0.0,
    ) -> None:
        self._operator, self._wanted, self._tol, self._drawn = operator, wanted, tol, drawn
        self._locked, self.scale = locked, scale
        self._n = operator.size - (0 if locked is None else len(locked))
        self._room = min(self._n, max(2 * wanted, wanted + _BASIS))
        self._basis = operator.like.new_empty(self._room, operator.size)
        self._projected = torch.zeros(self._room, self._room, dtype=torch.float64, device="cpu")
        self._size, self._defect = 0, 0.0
        self._values = torch.empty(0, dtype=torch.float64, device="cpu")
        self._turn = self._projected[:0, :0]
        self._beta = 0.0
        self.products = 0

    @property
    def asymmetry(self) -> float:
        """Of the products, relative."""
        # Where the rest of the matrix is nothing, what it has is rounding, of all of it.
        size = max(float(self._projected[: self._size, : self._size].norm()), self.scale)
        return math.sqrt(2 * self._defect) / size if size else 0.0

    def run(self, first: Tensor, most: int, least: float | None = None) -> None:
        """Until those wanted have converged, there is no room, or nothing above `least` is seen after a few products.

        What has converged below `least` may have done so to a tolerance that hides something above it.
        """
        following, coupling = first, torch.zeros(0, dtype=torch.float64, device="cpu")
        while self.products < most:
            if self._size == self._room < self._n:
                coupling = self._restart()
            residual = self._add(following, coupling)
            if residual is None:
                return
            following = residual
            coupling = torch.zeros(self._size, dtype=torch.float64, device="cpu")
            coupling[-1] = self._beta
            above = least is None or float(self._values[0]) > least
            if self._converged() if above else self.products >= _GUARD:
                return

    def top(self, count: int) -> _Pairs:
        """The largest Ritz pairs."""
        columns = self._turn[:, : min(count, self._size)]
        return _Pairs(
            self._values[: columns.shape[1]].clone(),
            self._turned(columns),
            self._beta * columns[-1].abs(),
        )

    def _add(self, vector: Tensor, coupling: Tensor) -> Tensor | None:
        """A basis with one vector more, and what A makes of it beyond the basis; None if nothing is left of space."""
        size, rounding = self._size, 100 * torch.finfo(vector.dtype).eps
        # What follows from the basis is as large as the matrix; a start has any size.
        new = self._beyond(vector, rounding * self.scale if bool(coupling.any()) else 0.0)
        if new is None:  # an invariant subspace: go on in another, if there is one
            new, coupling = self._beyond(self._drawn()), torch.zeros_like(coupling)
            if size == self._n or new is None:
                return None
        self._basis[size] = new
        image = self._operator.matvec(new)
        self.products += 1
        self._size = size + 1
        column = (self._basis[: self._size] @ image).double().cpu()
        self._defect += float((column[:-1] - coupling).square().sum())
        self._projected[: self._size, size] = self._projected[size, : self._size] = column
        values, turn = torch.linalg.eigh(self._projected[: self._size, : self._size])
        self._values, self._turn = values.flip(0), turn.flip(1)
        self.scale = max(self.scale, float(values.abs().max()))
        residual = self._orthogonal(self._orthogonal(image))
        self._beta = float(norm(residual))
        return residual

    def _beyond(self, vector: Tensor, rounding: float = 0.0) -> Tensor | None:
        """Of norm 1, orthogonal to basis and locked; None if all of it lies in them, to rounding."""
        size = float(norm(vector))
        least = 100 * torch.finfo(vector.dtype).eps
        if not size > rounding:
            return None
        new = vector / size
        for _ in range(2):  # once is not enough
            new = self._orthogonal(new)
            left = float(norm(new))
            if not left > least:
                return None
            new = new / left
        return new

    def _orthogonal(self, vector: Tensor) -> Tensor:
        for rows in (self._locked, self._basis[: self._size]):
            if rows is not None and len(rows):
                vector = vector - (rows @ vector) @ rows
        return vector

    def _converged(self) -> bool:
        if self._size < min(self._wanted, self._n):
            return False
        residuals = self._beta * self._turn[-1, : self._wanted].abs()
        return bool((residuals <= self._tol * self.scale).all())

    def _restart(self) -> Tensor:
        """Keep the largest Ritz vectors alone, those wanted and half of the rest: how they go with what follows."""
        kept = self._wanted + (self._room - self._wanted) // 2
        columns = self._turn[:, :kept]
        self._basis[:kept] = self._turned(columns)
        self._projected.zero_()
        self._projected[:kept, :kept] = torch.diag(self._values[:kept])
        self._size = kept
        return self._beta * columns[-1]

    def _turned(self, columns: Tensor) -> Tensor:
        return columns.T.to(self._basis) @ self._basis[: self._size]


def _unit(vector: Tensor) -> Tensor:
    size = float(norm(vector))
    return vector / size if size else torch.zeros_like(vector)
