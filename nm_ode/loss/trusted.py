"""Are gradient and products of a model that somebody else trains those of its loss? Held against differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.data.sources import place
from nm_ode.data.trees import flatten
from nm_ode.loss.as_found import AsFound
from nm_ode.loss.consistency import is_coarse, rounding_of
from nm_ode.loss.derivatives import nodes
from nm_ode.loss.no_hessian import NoSecondDerivative
from nm_ode.loss.objective import Objective
from nm_ode.loss.probed import Matrix, Mode, Products, copy_of, leaves_in_place, products, require_scalar
from nm_ode.loss.self_test import Line, Verdict, compare, line, steps
from nm_ode.loss.sums import inner
from nm_ode.loss.suspects import handmade, suspects
from nm_ode.parameters import Layout, Vector

_SAMPLES = 16  # on which it is tested
_LINES = 3  # along which the loss changes by a number, in which an error can be small by chance


def require_true_products(
    model: nn.Module,
    objective: Objective,
    batch: Any,
    theta: Vector,
    layout: Layout,
    *,
    matrix: Matrix = "hessian",
    mode: Mode | None = None,
    seed: int = 0,
) -> None:
    """On a few samples, in float64 where the model can compute in it; arguments as of `probed`.

    Where differences say nothing (kinks, a loss that rounds in float32), nothing is refused.

    Raises:
        NoSecondDerivative: the gradient is not the loss's, or the products not those of its matrix.
    """
    for dtype in (torch.float64, None):
        try:
            with leaves_in_place(model, objective, theta, layout, mode=mode, dtype=dtype, seed=seed) as (
                found,
                leaves,
            ):
                some = place(_few(batch), leaves[0].device, leaves[0].dtype)
                at = _At(model, objective, some, found, layout, leaves, matrix)
                wrong = _wrong(at, matrix)
                if not wrong:
                    return
                found.rewind()
                named = suspects(model, partial(objective, model, some))
        except NoSecondDerivative:
            raise
        except Exception:  # a dtype that the model does not take, or a point: nothing is shown
            continue
        raise NoSecondDerivative(
            f"{wrong}, because of {', '.join(named) or 'an operation of the loss'}: its curvature cannot be measured; "
            "write the loss with elementary operations, or leave this observer out"
        )


class _At:
    """Loss, gradient and products at other thetas."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batch: Any,
        found: AsFound,
        layout: Layout,
        leaves: list[Tensor],
        matrix: Matrix,
    ) -> None:
        self._found, self.layout, self._leaves = found, layout, leaves
        self._build = partial(products, model, objective, batch, found, leaves, matrix)
        self._evaluate = partial(objective, model)
        self._batch = batch
        self.theta = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])

    def products(self, theta: Tensor) -> Products:
        """With the graphs of all that follows."""
        self._move(theta)
        return self._build()

    def loss(self, theta: Tensor) -> Tensor:
        """A scalar, in float64."""
        self._move(theta)
        with torch.no_grad():
            return require_scalar(self._evaluate(copy_of(self._batch))).to(torch.float64, copy=True)

    def gradient(self, theta: Tensor) -> Tensor:
        """Shape (P,)."""
        self._move(theta)
        loss = require_scalar(self._evaluate(copy_of(self._batch)))
        found = torch.autograd.grad(loss, self._leaves, allow_unused=True, materialize_grads=True)
        return torch.cat([piece.reshape(-1) for piece in found])

    def _move(self, theta: Tensor) -> None:
        with torch.no_grad():
            for leaf, piece in zip(self._leaves, self.layout.split(theta), strict=True):
                leaf.copy_(piece)
        self._found.rewind()


def _wrong(at: _At, matrix: Matrix) -> str:
    graph = at.products(at.theta).graph
    rounding, custom = rounding_of(graph, at.theta.dtype), any(map(handmade, nodes(graph)))
    del graph
    for seed in range(_LINES):
        if _slope(at, line(at.theta, at.layout, at.gradient, seed), rounding).differs:
            return "the gradient that training takes is not this loss's"
    along = line(at.theta, at.layout, at.gradient)
    del along.gradient
    here = at.products(along.point)
    below: Callable[[float], Tensor]
    if matrix == "hessian":
        what, derivative = "the second derivative of this loss is wrong", here.matvec(along.direction)
        below = lambda s: at.gradient(along.at(s))  # noqa: E731
    else:
        what, derivative = "the derivative of this model's outputs is wrong", here.moved(along.direction)
        below = lambda s: at.products(along.at(s)).outputs  # noqa: E731
    del here
    verdict = compare(derivative, below, steps(rounding), rounding)
    return what if verdict.differs and (custom or not is_coarse(rounding)) else ""


def _slope(at: _At, along: Line, rounding: float) -> Verdict:
    slope = inner(along.gradient, along.direction)
    loss, change = float(at.loss(along.point).abs()), float(slope.abs())
    most = min(1.0, loss / change) if loss and change else 1.0  # the loss may change much faster than theta
    at_h = [most * h for h in steps(rounding)]
    return compare(slope, lambda s: at.loss(along.at(s)), at_h, rounding)


def _few(batch: Any) -> Any:
    """The first samples, where all leaves have as many; else the whole batch."""
    leaves, rebuild = flatten(batch)
    lengths = {len(leaf) if isinstance(leaf, Tensor) and leaf.ndim else -1 for leaf in leaves}
    return rebuild([leaf[:_SAMPLES] for leaf in leaves]) if len(lengths) == 1 and -1 not in lengths else batch
