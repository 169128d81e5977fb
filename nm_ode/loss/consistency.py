"""Is each derivative of a loss that of the one below? Measured once, at its first use."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.data.trees import flatten
from nm_ode.loss.derivatives import nodes
from nm_ode.loss.evaluation import Evaluation
from nm_ode.loss.no_hessian import WITHOUT, NoSecondDerivative
from nm_ode.loss.objective import Objective
from nm_ode.loss.self_test import Line, Verdict, compare, line, steps
from nm_ode.loss.sums import inner
from nm_ode.loss.suspects import handmade, suspects

_ROUNDING = 10  # units in the last place: of a loss, a gradient, a product
_LINES = 3  # along which the loss changes by a number, in which an error can be small by chance
_COPIED = 10**7  # parameters of a problem in float32 that are copied in float64, at most


class Consistency:
    """Holds gradient, Hessian product and third derivative of one loss against differences, on a few samples.

    A loss that is evaluated in float32 (the problem's dtype, or a cast inside) leaves too little room between rounding
    and kinks for differences of gradients. The problem is copied in float64 for them; where that does not help, they
    count only if the loss has an operation that torch does not derive itself.

    Args:
        evaluation: of the problem. What was `set` is another theta afterwards.
        model, objective: what it evaluates.
        batch: gives the samples to look at.
        in_own_precision: a context in which the loss is not evaluated in a coarser dtype than its parameters'.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        model: nn.Module,
        objective: Objective,
        batch: Callable[[], Any],
        in_own_precision: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._at, self._model, self._objective, self._batch = evaluation, model, objective, batch
        self._in_own_precision = in_own_precision

    @cached_property
    def foreign_gradient(self) -> str:
        """Why the gradient that training takes is not the loss's; empty where it is, or where nothing shows that."""
        if not self._verdict(1).differs:
            return ""
        found = self._suspects()
        named = (
            ", ".join(found) or "an operation whose backward pass is not the derivative of its forward pass"
        )
        still = self._without_gradient()
        hint = (
            f" (none comes to {still}: call requires_grad_(False) on what is to stay constant)"
            if still
            else ""
        )
        return f"the gradient that training takes is not this loss's: {named}{hint}"

    @property
    def has_hessian(self) -> bool:
        """Would `require_hessian` pass?"""
        return not (self.foreign_gradient or self._second)

    def require_hessian(self) -> None:
        """Of products with the Hessian.

        Raises:
            NoSecondDerivative: the gradient is not the loss's, or the product is not the gradient's derivative.
        """
        if self.foreign_gradient:
            raise NoSecondDerivative(
                f"{self.foreign_gradient}; so the loss has no Hessian that its training follows: leave out what needs "
                "one (sharpness, Hessian form), or take gradient flow and the iterated-map form, which need none"
            )
        if self._second:
            raise NoSecondDerivative(self._second)

    def require_third(self) -> None:
        """Of third derivatives.

        Raises:
            NoSecondDerivative: as `require_hessian`, or the third derivative is not the product's.
        """
        self.require_hessian()
        if self._third:
            raise NoSecondDerivative(self._third)

    @cached_property
    def _second(self) -> str:
        return self._wrong(2, "second derivative", WITHOUT)

    @cached_property
    def _third(self) -> str:
        return self._wrong(
            3, "third derivative", "or take order 2, or the modified flow in iterated-map form"
        )

    def _wrong(self, order: int, which: str, instead: str) -> str:
        try:
            verdict = self._verdict(order)
        except NoSecondDerivative as error:
            return str(error)
        if not verdict.differs:
            return ""
        found = self._suspects()
        named = ", ".join(found) or "an operation of the loss"
        by = "it is no number" if math.isnan(verdict.error) else f"by {verdict.error:.1%} along a line"
        return (
            f"the {which} of this loss is wrong ({by}, against differences), because of {named}: its backward pass "
            f"cannot be differentiated rightly; write it with elementary operations, {instead}"
        )

    def _without_gradient(self) -> str:
        """Names of parameters that have none at all, three at most."""
        at, batch = self._at, self._batch()

        def gradient(theta: Tensor) -> Tensor:
            at.set(theta)
            return at.loss_and_grad(batch)[1]

        with torch.enable_grad(), self._in_own_precision():
            along = line(at.theta, at.layout, gradient).gradient
        names = [slot.name for slot in at.layout.slots if not bool(along[slot.slice].any())]
        return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")

    def _suspects(self) -> tuple[str, ...]:
        self._at.set(self._at.theta)
        # The objective itself: what an evaluation does besides is no part of the loss.
        with self._in_own_precision():
            return suspects(self._model, partial(self._objective, self._model, self._batch()))

    def _verdict(self, order: int) -> Verdict:
        try:
            with torch.enable_grad(), self._in_own_precision():
                at, batch = self._at, self._batch()
                if at.theta.dtype != torch.float64 and at.layout.size <= _COPIED:
                    return self._compared_in_float64(order, batch)
                return self._compared(order, at, batch)
        except NoSecondDerivative:
            raise
        except Exception:  # of the model, at a point or in a dtype that it was not made for: nothing is shown
            return Verdict(False, float("nan"))

    def _compared_in_float64(self, order: int, batch: Any) -> Verdict:
        try:
            return self._compared(order, *self._in_float64(batch))
        except NoSecondDerivative:
            raise
        except Exception:  # the model has a dtype of its own
            return self._compared(order, self._at, batch)

    def _compared(self, order: int, at: Evaluation, batch: Any) -> Verdict:
        def gradient(theta: Tensor) -> Tensor:
            at.set(theta)
            return at.loss_and_grad(batch)[1]

        rounding = self._rounding(at, batch)
        if order == 1:
            verdicts = (
                self._slope(at, batch, line(at.theta, at.layout, gradient, seed), rounding)
                for seed in range(_LINES)
            )
            return next((verdict for verdict in verdicts if verdict.differs), Verdict(False, 0.0))
        along = line(at.theta, at.layout, gradient)
        del along.gradient
        point, direction = along.point, along.direction
        parts = at.split(direction, "direction")

        def product(theta: Tensor) -> Tensor:
            at.set(theta)
            return at.grad_and_hvp(batch, parts)[1]

        below = gradient if order == 2 else product
        if order == 2:
            derivative = product(point)
        else:
            at.set(point)
            derivative = at.loss_and_third_derivative(batch, parts)[1]
        verdict = compare(derivative, lambda s: below(along.at(s)), steps(rounding), rounding)
        if (
            verdict.differs
            and is_coarse(rounding)
            and not any(map(handmade, nodes(self._loss(at, batch, point))))
        ):
            return Verdict(False, float("nan"))
        return verdict

    def _slope(self, at: Evaluation, batch: Any, along: Line, rounding: float) -> Verdict:
        """Of the gradient along one line."""

        def value(s: float) -> Tensor:
            with torch.no_grad():
                # A copy, for it may be a parameter itself, which is moved.
                return self._loss(at, batch, along.at(s)).to(torch.float64, copy=True)

        slope = inner(along.gradient, along.direction)
        del along.gradient
        loss, change = float(value(0.0).abs()), float(slope.abs())
        # The loss may change much faster than theta.
        most = min(1.0, loss / change) if loss and change else 1.0
        verdict = compare(slope, value, [most * h for h in steps(rounding)], rounding)
        at.set(at.theta)  # and let go of the line
        return verdict

    def _loss(self, at: Evaluation, batch: Any, theta: Tensor | None = None) -> Tensor:
        at.set(at.theta if theta is None else theta)
        return at.loss(batch)

    def _rounding(self, at: Evaluation, batch: Any) -> float:
        return rounding_of(self._loss(at, batch), at.theta.dtype)

    def _in_float64(self, batch: Any) -> tuple[Evaluation, Any]:
        self._at.set(self._at.theta)
        model = copy.deepcopy(self._model).double()
        objective = self._objective
        if isinstance(objective, nn.Module):
            objective = copy.deepcopy(objective).double()
        leaves, rebuild = flatten(batch)
        finer = [
            leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
            for leaf in leaves
        ]
        return Evaluation(model, objective), rebuild(finer)


def rounding_of(loss: Tensor, dtype: torch.dtype) -> float:
    """Relative, of the coarsest dtype between theta, whose own is given, and the loss."""
    dtypes = {dtype}
    for node in nodes(loss):
        results = getattr(node, "_input_metadata", ())
        # Of several results those that are not used have no shape, and a dtype that says nothing.
        dtypes |= {part.dtype for part in results if len(results) == 1 or part.shape}
    return _ROUNDING * max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)


def is_coarse(rounding: float) -> bool:
    """Is it more than float64's, too much for differences of gradients between kinks?"""
    return rounding > _ROUNDING * torch.finfo(torch.float64).eps
