"""What random vectors tell of a symmetric matrix: its spectral density and its trace, each with a standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nm_ode.loss.directions import normal
from nm_ode.loss.operators import SymmetricOperator
from nm_ode.loss.sums import inner, norm


@dataclass(frozen=True, eq=False)
class Quadratures:
    """Stochastic Lanczos quadrature: vᵀf(A)v/‖v‖² ≈ Σ weight · f(node) for each random vector v.

    Attributes:
        nodes: shape (vectors, nodes), float64: Ritz values, from the smallest up.
        weights: the same shape; of each vector they add up to 1. A vector whose Krylov space is smaller has nodes of
            weight 0 at the end, which repeat its last.
        products: how many were spent.
    """

    nodes: Tensor
    weights: Tensor
    products: int


def quadratures(operator: SymmetricOperator, vectors: int, steps: int, seed: int = 0) -> Quadratures:
    """Gauss rules of A's spectral measure at random vectors (Golub & Welsch 1969; Ubaru, Chen & Saad 2017).

    Lanczos with full orthogonalisation, so that no eigenvalue appears twice: `steps` vectors of P numbers in memory.

    Args:
        vectors: random ones, Gaussian.
        steps: products for each; the rule is exact for polynomials up to degree 2·steps − 1.
    """
    source = torch.Generator("cpu").manual_seed(seed)
    nodes = torch.zeros(vectors, steps, dtype=torch.float64, device="cpu")
    weights, spent = torch.zeros_like(nodes), 0
    for row_nodes, row_weights in zip(nodes, weights, strict=True):
        values, turn = torch.linalg.eigh(_tridiagonal(operator, normal(operator.like, source), steps))
        found = len(values)
        spent += found
        row_nodes[:found], row_nodes[found:] = values, values[-1]
        row_weights[:found] = turn[0].square()
    return Quadratures(nodes, weights, spent)


def _tridiagonal(operator: SymmetricOperator, vector: Tensor, steps: int) -> Tensor:
    """Lanczos's matrix in float64 on the host; smaller than asked where the Krylov space ends."""
    steps = min(steps, operator.size)
    basis = operator.like.new_empty(steps, operator.size)
    made = torch.zeros(steps, steps, dtype=torch.float64, device="cpu")
    vector = vector / float(norm(vector))
    eps, scale = torch.finfo(vector.dtype).eps, 0.0
    for i in range(steps):
        basis[i] = vector
        image = operator.matvec(vector)
        made[i, i] = float(inner(vector, image))
        scale = max(scale, float(norm(image)))
        rows = basis[: i + 1]
        for _ in range(2):
            image = image - (rows @ image) @ rows
        beta = float(norm(image))
        if i + 1 == steps or not beta > 100 * eps * scale:
            return made[: i + 1, : i + 1]
        made[i, i + 1] = made[i + 1, i] = beta
        vector = image / beta
    return made


@dataclass(frozen=True, eq=False)
class SmoothedDensity:
    """A spectral density, smoothed.

    Attributes:
        at: eigenvalues, shape (points,).
        value: density there, shape (points,); its integral is 1.
        standard_error: of `value` over the random vectors, shape (points,); NaN with one vector.
        width: standard deviation of the Gaussian in the place of each eigenvalue.
    """

    at: NDArray[np.float64]
    value: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    width: float


def smoothed(
    nodes: ArrayLike,
    weights: ArrayLike,
    *,
    at: ArrayLike | None = None,
    points: int = 400,
    width: float | None = None,
) -> SmoothedDensity:
    """The density of which each node is a Gaussian of that weight (Ghorbani, Krishnan & Xiao 2019).

    The standard error is that of the choice of the random vectors: 95 % of intervals of ± t standard errors hold the
    density, t being Student's with one degree less than there are vectors. What the quadrature itself leaves out,
    structure finer than some nodes, is not in it: smoothing with less than the distance of nodes shows the nodes.

    Args:
        nodes, weights: shape (vectors, nodes).
        at: eigenvalues to give it at; `points` from below the smallest node to above the largest if None.
        width: a hundredth of the nodes' range if None.
    """
    nodes, weights = np.asarray(nodes, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    low, high = float(nodes.min()), float(nodes.max())
    if width is None:
        width = (high - low) / 100 or max(abs(high), 1.0) / 100
    grid = (
        np.linspace(low - 4 * width, high + 4 * width, points)
        if at is None
        else np.atleast_1d(np.asarray(at, dtype=np.float64))
    )
    bells = np.exp(-0.5 * ((grid[:, None, None] - nodes) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    each = (bells * weights).sum(axis=-1)  # (points, vectors)
    count = each.shape[1]
    error = each.std(axis=1, ddof=1) / math.sqrt(count) if count > 1 else np.full(len(grid), math.nan)
    return SmoothedDensity(grid, each.mean(axis=1), error, width)


@dataclass(frozen=True)
class Trace:
    """An unbiased estimate of a trace.

    Attributes:
        standard_error: of the random vectors; 0 where nothing was drawn because nothing was left.
        products: how many were spent.
        vectors: how many random vectors the standard error is over: 95 % of intervals of ± t standard errors hold the
            trace, t being Student's with one degree less (12.7 for 2, 2.8 for 5, 2.1 for 20).
    """

    value: float
    standard_error: float
    products: int
    vectors: int = 0


def trace(
    operator: SymmetricOperator, products: int, *, known: tuple[Tensor, Tensor] | None = None, seed: int = 0
) -> Trace:
    """tr A = tr QᵀAQ + the trace of the rest, that by random signs (Hutchinson): Hutch++ (Meyer et al. 2021).

    Args:
        products: how many to spend. A third gives Q, the range of A on so many random vectors; a third is A on Q; as
            many random vectors are left for the rest.
        known: orthonormal rows Q, shape (k, P), and the numbers qᵀAq, shape (k,): eigenvectors that were computed
            before. Then all products go to the rest.
    """
    source = torch.Generator("cpu").manual_seed(seed)
    spent = 0
    if known is None:
        thirds = min(products // 3, operator.size)
        sketch = [operator.matvec(normal(operator.like, source)) for _ in range(thirds)]
        rows = _orthonormal(sketch, operator.like)
        exact = sum(float(inner(row, operator.matvec(row))) for row in rows)
        spent = thirds + len(rows)
    else:
        rows, exact = known[0], float(known[1].sum())
    if len(rows) == operator.size:
        return Trace(exact, 0.0, spent)
    rest: list[float] = []
    while spent < products or len(rest) < 2:
        vector = signs(operator.like, source)
        vector = vector - (rows @ vector) @ rows
        rest.append(float(inner(vector, operator.matvec(vector))))
        spent += 1
    error = float(np.std(rest, ddof=1)) / math.sqrt(len(rest))
    return Trace(exact + float(np.mean(rest)), error, spent, len(rest))


def signs(like: Tensor, source: torch.Generator) -> Tensor:
    """Independent random signs of the shape, dtype and device of `like`."""
    drawn = torch.randint(0, 2, like.shape, generator=source, device="cpu", dtype=torch.int8)
    return drawn.to(like).mul_(2).sub_(1)


def _orthonormal(vectors: list[Tensor], like: Tensor) -> Tensor:
    """Rows that span what the vectors span, to rounding."""
    rows = like.new_empty(0, like.numel())
    least = 100 * torch.finfo(like.dtype).eps
    scale = max((float(norm(vector)) for vector in vectors), default=0.0)
    for vector in vectors:
        new = vector / (scale or 1.0)  # float32's smallest numbers are not lost in products
        for _ in range(2):
            new = new - (rows @ new) @ rows
        size = float(norm(new))
        if size > least:
            rows = torch.cat([rows, (new / size)[None]])
    return rows
