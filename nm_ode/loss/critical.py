"""The eigenpairs of a symmetric matrix above a bound, from its products: all of them, tight, from those of one near by.

Rayleigh and Ritz on a block: the vectors that were found before, some more below them, and whatever products are known
already; then the residuals of those that are not tight enough, again and again. Eigenvalues at the edge of stability
gather at one value, where a Krylov space of one vector sees one direction of many.

Vectors that are tight see nothing of an eigenvector in a space that the matrix keeps apart from theirs, as those of
parts of a network that share no output. So one more is handed on from search to search, with a step of the power method
and a little of all directions in each: it goes to the largest eigenvalue outside of what is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nm_ode.loss.directions import normal
from nm_ode.loss.operators import SymmetricOperator

_DRAWN = 8  # random vectors that a search without a start begins with: so often an eigenvalue may be there
_BELOW = 2  # eigenpairs below the bound that are followed, so that none comes up unseen
_LOOSE = 3e-3  # of their residuals, relative to the largest eigenvalue in size
_ROOM = 4  # blocks in the basis, before the best alone are kept
_ROUNDS = 300
_EVERYWHERE = 0.05
_ROUNDING = 50.0


@dataclass(frozen=True, eq=False)
class CriticalSpace:
    """The eigenpairs above a bound, and what the next search starts from.

    Attributes:
        values: shape (k,), float64 on the host, from the largest down.
        vectors: shape (k, P), orthonormal rows.
        largest: the largest eigenvalue, above the bound or not.
        residual: the largest of ‖A v − λ v‖ of those above the bound; 0 if there is none.
        start: shape (k + some, P), rows, of which the first is of the largest eigenvalue.
        products: how many were spent.
        converged: are all residuals as small as they were asked to be?
    """

    values: Tensor
    vectors: Tensor
    largest: float
    residual: float
    start: Tensor
    products: int
    converged: bool


def critical_space(
    operator: SymmetricOperator,
    least: float,
    *,
    start: Tensor | None = None,
    known: Sequence[tuple[Tensor, Tensor]] = (),
    tol: float = 1e-9,
    most: int = 1000,
    seed: int = 0,
) -> CriticalSpace:
    """All eigenvalues above `least`, and their vectors.

    Args:
        start: `CriticalSpace.start` of a matrix near by.
        known: vectors and the matrix's products with them, which cost nothing more.
        tol: of the residuals, relative to the largest eigenvalue in size.
        most: products, from which on what was found is given as it is.
        seed: of the random vectors of a search without a start.
    """
    block, source = _Block(operator, known), torch.Generator("cpu").manual_seed(seed)
    if start is None:
        start = torch.stack([normal(operator.like, source) for _ in range(_DRAWN)])
    block.extend(start)
    loose = max(tol, _LOOSE)
    for _ in range(_ROUNDS):
        values, residuals = block.values, block.residuals
        above = int((values > least).sum())
        followed = min(above + _BELOW, len(values), operator.size)
        bounds = torch.full_like(values, loose)
        bounds[:above] = tol
        late = residuals[:followed] > bounds[:followed] * block.scale
        if above == len(values) < operator.size:
            late[-1] = True
        if not bool(late.any()) or len(block) == operator.size or block.products >= most:
            break
        if not block.refine(late.nonzero()[:, 0], keep=followed):
            break
    tight = residuals[:above]
    scout = _unit(block.outside(followed)) + _EVERYWHERE * _unit(normal(operator.like, source))
    return CriticalSpace(
        values[:above].clone(),
        block.ritz(above),
        float(values[0]),
        float(tight.max()) if above else 0.0,
        torch.cat([block.ritz(followed), scout[None]]),
        block.products,
        not bool(late.any()) or len(block) == operator.size,
    )


class _Block:
    """Orthonormal rows Q with A Q, and what Rayleigh and Ritz make of them."""

    def __init__(self, operator: SymmetricOperator, known: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._operator, self.products, self.scale = operator, 0, 0.0
        self._q = operator.like.new_empty(0, operator.size)
        self._aq = operator.like.new_empty(0, operator.size)
        for vector, product in known:
            size = float(vector.norm())
            if size > 0:
                self._append(vector / size, product / size)
        if len(self):
            self._solve()

    def __len__(self) -> int:
        return len(self._q)

    def extend(self, vectors: Tensor) -> int:
        """Take these into the basis, with a product each, but for what lies in it already: how many are new."""
        before = len(self)
        for vector in vectors:
            if len(self) < self._operator.size:
                self._append(vector)
        self._solve()
        return len(self) - before

    def refine(self, which: Tensor, keep: int) -> bool:
        """Take the residuals of these Ritz pairs into the basis; False if they hold nothing new."""
        columns = self._turn[:, which]
        residuals = self._turned(columns, self._aq) - self.values[which, None].to(self._q) * self._turned(
            columns, self._q
        )
        if len(self) > _ROOM * (keep + _BELOW):
            self._shrink(keep + _BELOW)
        return self.extend(residuals) > 0

    def ritz(self, count: int) -> Tensor:
        """The first so many Ritz vectors."""
        return self._turned(self._turn[:, :count], self._q)

    def outside(self, count: int) -> Tensor:
        """Of the best Ritz vector after the first so many, A v and enough of v that no negative eigenvalue leads it."""
        column = self._turn[:, count : count + 1]  # none where nothing is outside
        return (self._turned(column, self._aq) + self.scale / 2 * self._turned(column, self._q)).sum(dim=0)

    def _shrink(self, keep: int) -> None:
        columns = self._turn[:, :keep]
        self._q, self._aq = self._turned(columns, self._q), self._turned(columns, self._aq)
        self._solve()

    def _append(self, vector: Tensor, product: Tensor | None = None) -> None:
        size = float(vector.norm())
        if not size > 0:
            return
        new, left = vector / size, 1.0
        image = None if product is None else product / size
        for _ in range(2):  # once is not enough
            along = self._q @ new
            new = new - along @ self._q
            if image is not None:
                image = image - along @ self._aq
            now = float(new.norm())
            left *= now
            if not left > _ROUNDING * torch.finfo(new.dtype).eps * max(1.0, float(len(self))):
                return
            new = new / now
            image = None if image is None else image / now
        if image is None or left < 0.1:  # what is left of a known product would be rounding
            image = self._operator.matvec(new)
            self.products += 1
        self._q, self._aq = torch.cat([self._q, new[None]]), torch.cat([self._aq, image[None]])

    def _solve(self) -> None:
        projected = (self._q @ self._aq.T).double().cpu()
        values, turn = torch.linalg.eigh((projected + projected.T) / 2)
        self.values, self._turn = values.flip(0), turn.flip(1)
        self.scale = max(self.scale, float(values.abs().max()))
        of_all = self._turned(self._turn, self._aq) - self.values[:, None].to(self._q) * self._turned(
            self._turn, self._q
        )
        self.residuals = of_all.norm(dim=1).double().cpu()

    def _turned(self, columns: Tensor, rows: Tensor) -> Tensor:
        return columns.T.to(rows) @ rows


def _unit(vector: Tensor) -> Tensor:
    """Of norm 1, or 0."""
    return vector.div(vector.norm().clamp(min=torch.finfo(vector.dtype).tiny))
